use proptest::prelude::*;

use super::*;
use crate::payload::json::tests::document;
use crate::template::Scope;

fn at(text: &str) -> Pointer {
    Pointer::parse(text).unwrap()
}

fn made(text: &str) -> Made {
    let scope = Scope::request([]).with_body();
    Made::compile(&Json::parse(text.as_bytes()).unwrap(), &scope).unwrap()
}

fn add(to: &str, value: &str) -> Step {
    Step::Add { at: at(to), value: made(value) }
}

fn changed(steps: &[Step], text: &str) -> String {
    let mut body = Json::parse(text.as_bytes()).unwrap();
    apply(steps, &mut body, &Known::default()).unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

fn one(step: Step, text: &str) -> String {
    changed(&[step], text)
}

#[test]
fn what_is_added_finds_its_place() {
    // The cases of RFC 6902 appendix A that are no errors there.
    assert_eq!(one(add("/baz", r#""qux""#), r#"{"foo":"bar"}"#), r#"{"foo":"bar","baz":"qux"}"#);
    assert_eq!(
        one(add("/foo/1", r#""qux""#), r#"{"foo":["bar","baz"]}"#),
        r#"{"foo":["bar","qux","baz"]}"#
    );
    assert_eq!(
        one(add("/foo/-", r#"["abc",1.10]"#), r#"{"foo":["bar"]}"#),
        r#"{"foo":["bar",["abc",1.10]]}"#
    );
    assert_eq!(
        one(add("/foo", "1"), r#"{"foo":[2],"z":12345678901234567890.10}"#),
        r#"{"foo":1,"z":12345678901234567890.10}"#
    );
    assert_eq!(one(add("", "7"), "{}"), "7");
    assert_eq!(one(add("/a/b/c", "1"), r#"{"x":0}"#), r#"{"x":0,"a":{"b":{"c":1}}}"#);
    assert_eq!(
        one(add("/l/*/k", "1"), r#"{"l":[{"k":2},{},3,{"k":null}]}"#),
        r#"{"l":[{"k":1},{"k":1},3,{"k":1}]}"#
    );
    assert_eq!(
        one(add("/m/*/k", "1"), r#"{"m":{"a":{},"b":[]}}"#),
        r#"{"m":{"a":{"k":1},"b":[]}}"#
    );
    assert_eq!(one(add("/a~1b/m~0n", "1"), r#"{"a/b":{}}"#), r#"{"a/b":{"m~n":1}}"#);
    // Where there is no place nothing is done, not half of it.
    for (to, text) in [
        ("/foo/3", r#"{"foo":[1]}"#),
        ("/foo/01", r#"{"foo":[1,2]}"#),
        ("/a/b", r#"{"a":1}"#),
        ("/a/-/b/c", r#"{"a":[]}"#),
    ] {
        assert_eq!(one(add(to, "9"), text), text, "{to}");
    }
}

#[test]
fn what_is_there_is_replaced_removed_moved_copied_renamed() {
    let text = r#"{"items":[{"id":1,"meta":{"sku":"x"}},{"id":2}],"n":1.10}"#;
    let replace = |to: &str, value: &str| Step::Replace { at: at(to), value: made(value) };
    assert_eq!(one(replace("/n", "2.50"), text), text.replace("1.10", "2.50"));
    assert_eq!(one(replace("/none", "2"), text), text);
    assert_eq!(
        one(replace("/items/*/meta", "0"), text),
        r#"{"items":[{"id":1,"meta":0},{"id":2}],"n":1.10}"#
    );
    let remove = |what: &str| Step::Remove { at: at(what) };
    assert_eq!(one(remove("/items/*/id"), text), r#"{"items":[{"meta":{"sku":"x"}},{}],"n":1.10}"#);
    assert_eq!(one(remove("/items/0"), text), r#"{"items":[{"id":2}],"n":1.10}"#);
    assert_eq!(one(remove("/items/*"), text), r#"{"items":[],"n":1.10}"#);
    let shift = |from: &str, to: &str| Step::Move { from: at(from), to: at(to) };
    assert_eq!(
        one(shift("/items/*/meta/sku", "/items/*/sku"), text),
        r#"{"items":[{"id":1,"meta":{},"sku":"x"},{"id":2}],"n":1.10}"#
    );
    assert_eq!(
        one(shift("/n", "/items/0"), text),
        r#"{"items":[1.10,{"id":1,"meta":{"sku":"x"}},{"id":2}]}"#
    );
    assert_eq!(one(shift("/n", "/items/9"), text), text);
    let copy = |from: &str, to: &str| Step::Copy { from: at(from), to: at(to) };
    assert_eq!(
        one(copy("/n", "/total/amount"), text),
        text.replace("1.10}", r#"1.10,"total":{"amount":1.10}}"#)
    );
    let rename = |what: &str, name: &str| Step::Rename { at: at(what), name: name.into() };
    assert_eq!(one(rename("/items/*/id", "key"), text), text.replace("\"id\"", "\"key\""));
    assert_eq!(one(rename("/a", "b"), r#"{"b":1,"a":2,"c":3}"#), r#"{"b":2,"c":3}"#);
    assert_eq!(one(rename("/a", "b"), r#"{"b":1}"#), r#"{"b":1}"#);
}

#[test]
fn the_whole_is_wrapped_unwrapped_and_filled_up() {
    assert_eq!(one(Step::Wrap("data".into()), "[1]"), r#"{"data":[1]}"#);
    assert_eq!(one(Step::Unwrap(at("/data/0")), r#"{"data":[{"a":1}]}"#), r#"{"a":1}"#);
    assert_eq!(one(Step::Unwrap(at("/data")), r#"{"a":1}"#), r#"{"a":1}"#);
    let defaults = Step::Defaults(made(r#"{"a":1,"b":{"c":2,"d":3},"l":[1]}"#));
    assert_eq!(
        one(defaults, r#"{"a":null,"b":{"c":0},"x":1}"#),
        r#"{"a":null,"b":{"c":0,"d":3},"x":1,"l":[1]}"#
    );
    assert_eq!(one(Step::Defaults(made(r#"{"a":1}"#)), "[]"), "[]");
}

#[test]
fn templates_keep_types_and_digits() {
    let template = r#"{"id":"${body.id}","price":"${body.price}","name":"n: ${body.name}","gone":"${body.none}",
        "list":["${body.none}","${body.tags}"],"or":"${body.none | default(\"x\")}","first":"${body.tags[0]}"}"#;
    let body = r#"{"id":1234567890123456789012,"price":1.10,"name":"a","tags":["t",2.0]}"#;
    let want = r#"{"id":1234567890123456789012,"price":1.10,"name":"n: a","list":[null,["t",2.0]],"or":"x","first":"t"}"#;
    assert_eq!(one(Step::Template(made(template)), body), want);
    assert_eq!(
        one(add("/copy", r#""${body.id}""#), body),
        body.replace("]}", r#"],"copy":1234567890123456789012}"#)
    );
    assert_eq!(one(add("/copy", r#""${body.none}""#), body), body);
}

#[test]
fn a_document_does_not_grow_without_end() {
    let double = Step::Copy { from: at(""), to: at("/x") };
    let steps = vec![double; 40];
    let mut body = Json::parse(br#"{"x":{"a":"some text"}}"#).unwrap();
    // The whole replaces what is in it, so each copy holds the one before.
    let grown = apply(&steps, &mut body, &Known::default());
    assert!(grown == Err(TooMuch) || body.weight() <= 2 * limits::PAYLOAD_ADDED);
    let items = format!("[{}0]", "0,".repeat(100_000));
    let mut body = Json::parse(items.as_bytes()).unwrap();
    let long = add("/*", &format!("\"{}\"", "x".repeat(1_000)));
    assert_eq!(apply(std::slice::from_ref(&long), &mut body, &Known::default()), Err(TooMuch));
}

#[test]
fn pointers_that_are_none_are_refused() {
    for text in ["a", "a/b", "/a~", "/a~2", "#/a"] {
        assert!(Pointer::parse(text).is_err(), "{text}");
    }
    assert!(Pointer::parse(&"/a".repeat(limits::POINTER_SEGMENTS + 1)).is_err());
    assert!(
        go_together(&at("/a/*/b"), &at("/a/*/c/d")) && !go_together(&at("/a/*/b"), &at("/c/*/b"))
    );
    assert!(go_together(&at("/a"), &at("/b")) && !go_together(&at("/a/*"), &at("/b")));
    assert!(is_within(&at("/a"), &at("/a/b")) && !is_within(&at("/a/b"), &at("/a")));
}

proptest! {
    #[test]
    fn what_was_done_can_be_undone(text in document(), name in "[a-c]{1,2}") {
        let mut body = Json::parse(text.as_bytes()).unwrap();
        let before = body.clone();
        let steps = [Step::Wrap(name.as_str().into()), Step::Unwrap(at(&format!("/{name}")))];
        apply(&steps, &mut body, &Known::default()).unwrap();
        prop_assert_eq!(&body, &before);
        let there = before.member("new").is_some() || !matches!(before, Json::Object(_));
        if !there {
            let steps = [
                add("/new", "1.10"),
                Step::Rename { at: at("/new"), name: "newer".into() },
                Step::Copy { from: at("/newer"), to: at("/new") },
                Step::Remove { at: at("/newer") },
                Step::Move { from: at("/new"), to: at("/newest") },
                Step::Remove { at: at("/newest") },
            ];
            apply(&steps, &mut body, &Known::default()).unwrap();
            prop_assert_eq!(&body, &before);
        }
    }

    #[test]
    fn denying_what_is_not_there_and_allowing_all_changes_nothing(text in document()) {
        let mut body = Json::parse(text.as_bytes()).unwrap();
        let before = body.clone();
        project::deny(&mut body, &Tree::parse(["zz.*", "a.zz"]).unwrap());
        prop_assert_eq!(&body, &before);
        // What is left and what was taken away are the whole, in objects.
        let tree = Tree::parse(["a", "b"]).unwrap();
        let (mut kept, mut rest) = (before.clone(), before.clone());
        project::allow(&mut kept, &tree);
        project::deny(&mut rest, &tree);
        if let (Json::Object(all), Json::Object(kept), Json::Object(rest)) = (&before, &kept, &rest) {
            prop_assert_eq!(all.len(), kept.len() + rest.len());
        }
    }
}
