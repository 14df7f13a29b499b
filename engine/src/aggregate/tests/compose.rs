//! How answers become one.

use contract::snapshot::{AggregateBody, CallMode, CallSource, Join, Projection};

use super::*;

fn shop() -> World {
    World::new(&[
        ("a", 5, 200, r#"{"id":12345678901234567890123,"price":1.10,"x":{"p":1,"q":[1]}}"#),
        ("b", 1, 200, r#"{"x":{"p":2,"r":3},"b":true}"#),
        ("c", 3, 200, "[1,2]"),
    ])
}

#[test]
fn answers_are_grouped_in_the_order_of_the_calls() {
    let mut from = aggregate(vec![call("a", "/a"), call("b", "/b"), call("c", "/c")]);
    from.calls[2].group = "list".into();
    assert_eq!(
        body(&from, &shop()),
        r#"{"a":{"id":12345678901234567890123,"price":1.10,"x":{"p":1,"q":[1]}},"b":{"x":{"p":2,"r":3},"b":true},"list":[1,2]}"#
    );
}

#[test]
fn of_equal_keys_the_later_call_wins_however_fast_it_was() {
    let mut from = aggregate(vec![call("a", "/a"), call("b", "/b"), call("c", "/c")]);
    from.response.body = AggregateBody::Deep;
    assert_eq!(
        body(&from, &shop()),
        r#"{"id":12345678901234567890123,"price":1.10,"x":{"p":2,"q":[1],"r":3},"b":true,"c":[1,2]}"#
    );
    from.calls.swap(0, 1);
    assert!(body(&from, &shop()).contains(r#""x":{"p":1,"r":3,"q":[1]}"#));
}

#[test]
fn large_objects_are_merged_as_small_ones_are() {
    let object = |range: std::ops::Range<u32>, value: &str| {
        let members: Vec<String> = range.map(|at| format!(r#""k{at}":{value}"#)).collect();
        format!("{{{}}}", members.join(","))
    };
    let world =
        World::new(&[("a", 0, 200, &object(0..40, "1")), ("b", 0, 200, &object(20..60, "2"))]);
    let mut from = aggregate(vec![call("a", "/a"), call("b", "/b")]);
    from.response.body = AggregateBody::Deep;
    let whole = format!(
        "{},{}",
        object(0..20, "1").trim_end_matches('}'),
        object(20..60, "2").trim_start_matches('{')
    );
    assert_eq!(body(&from, &world), whole);
}

#[test]
fn lists_are_appended() {
    let mut from = aggregate(vec![call("c", "/c"), call("b", "/b"), optional("d", "/d")]);
    from.errors = false;
    from.response.body = AggregateBody::Append;
    from.calls[1].unwrap = "x.r".into();
    assert_eq!(body(&from, &shop()), "[1,2,3]");
}

#[test]
fn templates_keep_types_and_leave_out_what_is_missing() {
    let mut from = aggregate(vec![call("a", "/a"), optional("d", "/d"), call("c", "/c")]);
    from.errors = false;
    let template = r#"{"id":"${call.a.body.id}","p":"${call.a.body.price}","t":"=${call.a.body.price}",
        "no":"${call.a.body.nothing}","none":"${call.d.body.x}","or":"${call.d.body.x | default(0)}",
        "list":["${call.c.body[1]}","${call.d.body}"],"s":"${call.a.status}","fixed":[1.0,null]}"#;
    from.response.body = AggregateBody::Template(template.into());
    assert_eq!(
        body(&from, &shop()),
        r#"{"id":12345678901234567890123,"p":1.10,"t":"=1.10","or":0,"list":[2,null],"s":200,"fixed":[1.0,null]}"#
    );
}

#[test]
fn failures_are_told() {
    let mut from = aggregate(vec![call("b", "/b"), optional("d", "/d"), optional("e", "/e")]);
    from.response.projection.deny = vec!["b.x".into()];
    let mut world = shop();
    world.does.insert("e".into(), (1, Does::Answers(500, "secret".into())));
    assert_eq!(
        body(&from, &world),
        r#"{"b":{"b":true},"errors":[{"call":"d","reason":"no_target"},{"call":"e","reason":"status","status":500}]}"#
    );
}

#[test]
fn a_default_stands_for_an_answer() {
    let mut from = aggregate(vec![call("d", "/d"), call("b", "/b/${call.d.body.n}")]);
    from.calls[0].mode = CallMode::Default(r#"{"n":7}"#.into());
    let world = shop();
    assert!(body(&from, &world).starts_with(r#"{"d":{"n":7},"b":{"#));
    assert_eq!(world.target("b"), "/b/7");
}

#[test]
fn only_what_is_allowed_is_shown() {
    let mut from = aggregate(vec![call("a", "/a"), call("b", "/b/${call.a.body.price}")]);
    from.calls[0].projection = Projection { allow: vec!["x".into()], deny: vec!["x.p".into()] };
    from.calls[1].hidden = true;
    let world = shop();
    assert_eq!(body(&from, &world), r#"{"a":{"x":{"q":[1]}}}"#);
    assert_eq!(world.target("b"), "/b/1.10", "others see all of it");
}

fn join(many: bool) -> Join {
    Join {
        list: "orders.items".into(),
        key: "customer.id".into(),
        call: 1,
        from: "list".into(),
        by: "id".into(),
        into: "customer.found".into(),
        many,
    }
}

#[test]
fn lists_are_joined_by_key() {
    let orders = r#"[{"items":[{"customer":{"id":1}},{"customer":{"id":"2"}}]},{"items":[{"customer":{"id":9}},{"x":null}]}]"#;
    let people = r#"{"list":[{"id":2,"n":"b"},{"id":"1","n":"a"},{"id":1,"n":"c"},{"id":null}]}"#;
    let world = World::new(&[("orders", 0, 200, orders), ("people", 0, 200, people)]);
    let mut from = aggregate(vec![call("orders", "/orders"), call("people", "/people")]);
    from.calls[1].hidden = true;
    from.calls[1].projection.deny = vec!["id".into()];
    from.response.join = vec![join(false)];
    assert_eq!(
        body(&from, &world),
        r#"{"orders":[{"items":[{"customer":{"id":1,"found":{"n":"a"}}},{"customer":{"id":"2","found":{"n":"b"}}}]},{"items":[{"customer":{"id":9,"found":null}},{"x":null,"customer":{"found":null}}]}]}"#
    );
    from.response.join = vec![join(true)];
    assert!(body(&from, &world).contains(r#"{"id":1,"found":[{"n":"a"},{"n":"c"}]}"#));
}

#[test]
fn joins_do_not_grow_without_bound() {
    let items = vec![r#"{"customer":{"id":1}}"#; 1000].join(",");
    let big = "x".repeat(10_000);
    let world = World::new(&[
        ("orders", 0, 200, &format!(r#"{{"items":[{items}]}}"#)),
        ("people", 0, 200, &format!(r#"{{"list":[{{"id":1,"t":"{big}"}}]}}"#)),
    ]);
    let mut from = aggregate(vec![call("orders", "/orders"), call("people", "/people")]);
    from.response.join = vec![join(false)];
    let plan = build(&from);
    running(&plan, &Asking::default(), &world, |ran, _| {
        assert!(compose(&plan, &mut ran.outcomes, None).is_err());
    });
}

#[test]
fn static_calls_are_answered_at_once() {
    let mut from = aggregate(vec![call("a", "/a"), call("s", "/s")]);
    from.calls[0].projection.allow = vec!["price".into()];
    from.calls[1].source = CallSource::Static(r#"{"of":"${call.a.body.price}","v":[1]}"#.into());
    assert_eq!(body(&from, &shop()), r#"{"a":{"price":1.10},"s":{"of":1.10,"v":[1]}}"#);
}
