use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::fuzz::{Nasty, everything, fuzz_template};
use super::*;
use crate::limits;

/// A request and what is known with it.
struct Known;

impl Values for Known {
    fn text(&self, what: &Reference) -> Option<Cow<'_, [u8]>> {
        let value = match what {
            Reference::Path => "/users/a%20b/x",
            Reference::Capture(Capture { index: 0, .. }) => "a b",
            Reference::Capture(_) => "x/y;z",
            Reference::Query(name) if **name == *"q" => "1&2=/é",
            Reference::Header(name) if *name.text == *"x-a" => "A-b",
            Reference::Header(name) if *name.text == *"bad" => "a\r\nb: c",
            Reference::Cookie(name) if **name == *"s" => " padded ",
            Reference::Consumer(ConsumerPart::Username) => "Ann",
            Reference::Request(RequestPart::Host) => "h.example:8080",
            Reference::Request(RequestPart::Query) => "a=1&b=%20",
            Reference::ResponseStatus => "201",
            Reference::Call { index: 1, part: CallPart::Status } => "404",
            Reference::Index => "3",
            what => return self.json(what).and_then(text_of),
        };
        Some(Cow::Borrowed(value.as_bytes()))
    }

    fn value(&self, what: &Reference) -> Option<Value> {
        match what {
            Reference::Index => Some(3.into()),
            what => self.json(what).cloned().or_else(|| {
                let text = self.text(what)?;
                Some(String::from_utf8_lossy(&text).into())
            }),
        }
    }
}

impl Known {
    fn json(&self, what: &Reference) -> Option<&'static Value> {
        static CLAIMS: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| {
            json!({"sub": "me", "roles": ["a", 2, null], "n": null, "deep": {"x y": [1, {"z": 2.5}]},
                   "big": 9007199254740993u64, "yes": true, "https://x/y": "url"})
        });
        match what {
            Reference::Claim(pointer) => pointer.find_in(CLAIMS.as_object()?),
            Reference::Body(pointer) | Reference::Item(pointer) => pointer.find(&CLAIMS),
            Reference::Call { part: CallPart::Body(pointer), .. } => pointer.find(&CLAIMS),
            _ => None,
        }
    }
}

fn rendered(text: &str, escape: Escape) -> Result<String, Missing> {
    let template = Template::compile(text, &everything()).unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut out = b">".to_vec();
    let result = template.text(&Known, escape, &mut out);
    assert!(result.is_ok() || out == b">", "nothing of it stays");
    result.map(|()| String::from_utf8(out).unwrap().split_off(1))
}

#[test]
fn texts() {
    for (text, want) in [
        ("", ""),
        ("plain $ {x} é$", "plain $ {x} é$"),
        ("$${path} $$${index}", "${path} $${index}"),
        ("é${index}$é", "é3$é"),
        ("${path}", "/users/a%20b/x"),
        ("<${ path.id }|${path[1]}>", "<a b|x/y;z>"),
        ("${header.X-A | lower}${header.x-a|upper}", "a-bA-B"),
        ("[${cookie.s | trim}]", "[padded]"),
        ("${claim.sub}${claim.roles[1]}${claim.deep[\"x y\"][1].z}", "me22.5"),
        ("${claim[\"https://x/y\"]}", "url"),
        ("${claim.roles | join(\", \")}", "a, 2"),
        ("${claim.sub | join(\",\")}", "me"),
        ("${claim.roles}", "[\"a\",2,null]"),
        ("${claim.big} ${claim.yes}", "9007199254740993 true"),
        ("${claim.n | default(\"none\")} ${claim.none | lower | default(7)}", "none 7"),
        ("${claim.sub | json} ${claim.yes | json}", "\"me\" true"),
        ("${consumer.username | prefix(\"u-\") | base64}", "dS1Bbm4="),
        ("${query.q | urlencode}", "1%262%3D%2F%C3%A9"),
        ("${header.x-a | replace(\"-\", \"\\\"+\\\"\")}", "A\"+\"b"),
        ("${call.stock.status | int} ${response.status}", "404 201"),
        ("${item.sub} ${index} ${body.yes}", "me 3 true"),
    ] {
        assert_eq!(rendered(text, Escape::None).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn values_stay_values_where_they_stand() {
    for (text, escape, want) in [
        ("/v2/${path.id}/${path[1]}", Escape::Path, "/v2/a%20b/x/y%3Bz"),
        ("/v2${path}", Escape::Path, "/v2/users/a%20b/x"),
        ("/${query.q}", Escape::Path, "/1&2=%2F%C3%A9"),
        ("/${query.q | urlencode}", Escape::Path, "/1%262%3D%2F%C3%A9"),
        ("/${query.q | urlencode | default(\"a/\")}", Escape::Path, "/1%25262%253D%252F%25C3%25A9"),
        ("a=${query.q}&${request.query}", Escape::Query, "a=1%262%3D%2F%C3%A9&a=1&b=%20"),
        ("https://${request.host}/", Escape::Query, "https://h.example:8080/"),
        (
            "<${header.x-a | replace(\"-\", \"<'&\\\">\")}>",
            Escape::Html,
            "<A&lt;&#39;&amp;&quot;&gt;b>",
        ),
        ("${header.x-a}\t", Escape::Header, "A-b\t"),
    ] {
        assert_eq!(rendered(text, escape).as_deref(), Ok(want), "{text}");
    }
    let error = rendered("a${header.bad}", Escape::Header).unwrap_err();
    assert!(error.unfit && error.to_string().contains("`header.bad` holds bytes"), "{error}");
    let error = rendered("a${cookie.none | trim}", Escape::None).unwrap_err();
    assert_eq!(error.to_string(), "`cookie.none | trim` has no value");
    assert!(rendered("${claim.n}", Escape::None).is_err(), "null is no text");
}

#[test]
fn types_are_kept_where_nothing_stands_beside_them() {
    for (text, want) in [
        ("${claim.roles}", Some(json!(["a", 2, null]))),
        ("${claim.big}", Some(json!(9007199254740993u64))),
        ("${claim.n}", Some(Value::Null)),
        ("${claim.n | default([])}", Some(json!([]))),
        ("${claim.none | default({})}", Some(json!({}))),
        ("${claim.none | default(-1.5)}", Some(json!(-1.5))),
        ("${claim.none}", None),
        ("${claim.yes}!", Some(json!("true!"))),
        ("${claim.big | string}", Some(json!("9007199254740993"))),
        ("${call.stock.status | int}", Some(json!(404))),
        ("${claim.sub | int}", None),
        ("${index}", Some(json!(3))),
        ("${claim.none | default(\"7.0\") | int}", Some(json!(7))),
        ("x", Some(json!("x"))),
    ] {
        let template = Template::compile(text, &everything()).unwrap();
        assert_eq!(template.value(&Known), want, "{text}");
    }
}

#[test]
fn json_templates() {
    let from =
        json!({"a${index}": ["${claim.roles}", "n${index}", 1, "$${x}"], "b": {"c": [true]}});
    let template = JsonTemplate::compile(&from, &everything()).unwrap();
    let want = json!({"a${index}": [["a", 2, null], "n3", 1, "${x}"], "b": {"c": [true]}});
    assert_eq!(template.render(&Known), Ok(want));
    let error = JsonTemplate::compile(&json!({"a/b": ["", "x${y}"]}), &everything()).unwrap_err();
    assert_eq!(error.at, 3);
    assert!(error.problem.starts_with("/a~1b/1: `y` is unknown; expected path, "), "{error}");
    let missing = JsonTemplate::compile(&json!(["${claim.none}"]), &everything()).unwrap();
    assert!(missing.render(&Known).is_err());
}

#[test]
fn errors_say_where_and_what_was_expected() {
    let scope = Scope::request(["id".to_string()]).without(Root::Claim);
    for (text, at, problem) in [
        ("a${", 3, "expected path, query,"),
        ("a${x}", 3, "`x` is unknown; expected path, query,"),
        ("${claim.sub}", 2, "`claim` is not at hand here; expected"),
        ("${response.status}", 2, "`response` is not at hand here"),
        ("${path.nr}", 6, "there is no part of the path `nr`; expected id"),
        ("${path.id", 9, "expected `}` or `|` and a filter, but the text ends"),
        ("${path.id lower}", 10, "expected `}` or `|` and a filter, but found `l`"),
        ("${path.id | loud}", 12, "expected a filter (default, "),
        ("${path.id | }", 12, "but found `}`"),
        ("${path.id | default}", 19, "expected `(` and an argument, but found `}`"),
        ("${path.id | default(x)}", 20, "expected a text in double quotes, a number, true"),
        ("${path.id | prefix('x')}", 19, "expected a text in double quotes, but found `\\'`"),
        ("${path.id | prefix(\"x)}", 19, "expected `\"` at the end"),
        ("${path.id | replace(\"\", \"\")}", 20, "expected a text that is not empty"),
        ("${path.id | replace(\"a\")}", 23, "expected `,` and what to put in its place"),
        ("${query}", 7, "expected the name of a parameter behind it"),
        ("${header.}", 9, "expected a name behind `.`, but found `}`"),
        ("${header[\"a b\"]}", 8, "expected the name of a header field behind it"),
        ("${request.size}", 9, "expected .id, .method, .host, .path, .query or .scheme"),
        ("${consumer}", 10, "expected .id, .username or .group behind it"),
        ("${query[1}", 9, "expected `]` behind it, but found `}`"),
        ("${query[x]}", 8, "expected a number or a text in double quotes"),
        ("${query[99999999999999999999]}", 8, "expected a number from 0"),
    ] {
        let error = Template::compile(text, &scope).unwrap_err();
        assert!(error.problem.contains(problem), "{text}: {error}");
        assert_eq!(error.at, at, "{text}: {error}");
    }
    let none = Template::compile("${path.id}", &Scope::request([])).unwrap_err();
    assert!(none.problem.contains("there are none here"), "{none}");
    let claim = Template::compile("${claim}", &everything()).unwrap_err();
    assert!(claim.problem.contains("such as claim.sub"), "{claim}");
}

#[test]
fn bounds_hold() {
    let scope = everything();
    let long = "x".repeat(limits::TEMPLATE_BYTES + 1);
    assert!(Template::compile(&long, &scope).is_err());
    assert!(Template::compile(&"${index}".repeat(limits::TEMPLATE_PARTS), &scope).is_ok());
    assert!(Template::compile(&"${index}".repeat(limits::TEMPLATE_PARTS + 1), &scope).is_err());
    let filters = format!("${{index{}}}", "|trim".repeat(limits::TEMPLATE_FILTERS + 1));
    assert!(Template::compile(&filters, &scope).is_err());
    let steps = format!("${{body{}}}", "[0]".repeat(limits::TEMPLATE_STEPS + 1));
    assert!(Template::compile(&steps, &scope).is_err());
    let grow = "|replace(\"a\", \"aaaaaaaaaaaaaaaa\")".repeat(12);
    let grow =
        Template::compile(&format!("${{claim.sub|default(\"\")|prefix(\"a\"){grow}}}"), &scope);
    assert!(grow.unwrap().text(&Known, Escape::None, &mut Vec::new()).is_err());
}

#[test]
fn it_is_known_what_is_asked_for() {
    let template = Template::compile("${path.id} ${claim.a}", &everything()).unwrap();
    assert!(template.uses(Root::Path) && template.uses(Root::Claim));
    assert!(!template.uses(Root::Query) && template.literal().is_none());
    assert_eq!(Template::compile("$${x}", &everything()).unwrap().literal(), Some("${x}"));
}

/// Texts that are nearly templates.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("${"),
        Just("}"),
        Just("$"),
        Just("{"),
        Just("path"),
        Just(".id"),
        Just("claim"),
        Just(".a"),
        Just("[0]"),
        Just("[\"x\"]"),
        Just(" | "),
        Just("default("),
        Just("\"y\""),
        Just(")"),
        Just("lower"),
        Just("json"),
        Just("é"),
        Just("header.x"),
        Just("\\"),
        Just("body"),
        Just("replace(\"a\",\"b\")"),
        Just("${query.q | urlencode}"),
        Just("${index}"),
        Just(" "),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn the_parser_takes_any_text(text in any::<String>()) {
        fuzz_template(text.as_bytes());
    }

    #[test]
    fn the_parser_takes_what_is_nearly_a_template(text in nearly()) {
        fuzz_template(text.as_bytes());
    }

    #[test]
    fn literals_come_back(text in "[ -~é$\\{\\}]{0,40}") {
        let template = Template::compile(&text.replace("${", "$${"), &everything()).unwrap();
        prop_assert_eq!(template.literal(), Some(text.as_str()));
    }

    #[test]
    fn no_value_breaks_out_of_a_field(value in any::<String>()) {
        let template = Template::compile("a ${body} b", &everything()).unwrap();
        let mut out = Vec::new();
        let values = Nasty(Value::String(value.clone()));
        match template.text(&values, Escape::Header, &mut out) {
            Ok(()) => prop_assert!(!out.iter().any(|b| matches!(b, b'\r' | b'\n' | 0 | 0x7f))),
            Err(missing) => prop_assert!(missing.unfit && value.bytes().any(|b| b < 32 || b == 127)),
        }
    }

    #[test]
    fn a_value_is_one_segment_and_one_parameter(value in any::<String>()) {
        let template = Template::compile("${body}", &everything()).unwrap();
        let values = Nasty(Value::String(value.clone()));
        for (escape, plus) in [(Escape::Path, false), (Escape::Query, true)] {
            let mut out = Vec::new();
            prop_assert!(template.text(&values, escape, &mut out).is_ok());
            let delimiter = |b: &u8| b"/?#;\\".contains(b) || (plus && b"&=+".contains(b));
            prop_assert!(!out.iter().any(|b| delimiter(b) || *b <= b' ' || *b >= 0x7f));
            let back = crate::validate::percent::decoded(&out, plus);
            prop_assert_eq!(&*back, value.as_bytes());
        }
    }
}
