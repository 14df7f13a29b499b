//! Calls for lists.

use contract::snapshot::{Batch, CallMode, Repeat};

use super::*;

fn repeat(list: &str) -> Repeat {
    let list = list.into();
    Repeat { list, key: String::new(), max_items: 10, concurrency: 2, batch: None }
}

/// `list` is asked first, `one` for each of what it answers.
fn foreach(list: &str) -> (snapshot::Aggregate, World) {
    let mut from = aggregate(vec![call("list", "/list"), call("one", "/one/${item}?")]);
    http(&mut from.calls[1]).path = "/one/${item}".into();
    from.calls[1].repeat = Some(repeat("${call.list.body}"));
    from.calls[0].hidden = true;
    (from, World::new(&[("list", 1, 200, list), ("one", 10, 200, r#"{"ok":true}"#)]))
}

#[test]
fn a_call_is_made_for_each_item_with_so_many_at_once() {
    let (from, world) = foreach("[1,2,null,\"a/b\",3]");
    assert_eq!(
        body(&from, &world),
        r#"{"one":[{"ok":true},{"ok":true},null,{"ok":true},{"ok":true}]}"#
    );
    let targets: Vec<String> = world
        .asked("one")
        .into_iter()
        .map(|asked| String::from_utf8(asked.target).unwrap())
        .collect();
    assert_eq!(targets, ["/one/1", "/one/2", "/one/a%2Fb", "/one/3"]);
    assert_eq!(world.most.get(), 2);
    assert_eq!(world.now_us.get(), 21_000);
}

#[test]
fn an_empty_list_is_answered_by_one() {
    for list in ["[]", "null"] {
        let (from, world) = foreach(list);
        assert_eq!(body(&from, &world), r#"{"one":[]}"#);
        assert!(world.asked("one").is_empty());
    }
}

#[test]
fn what_is_no_list_or_too_long_fails() {
    let (from, world) = foreach("7");
    assert_eq!(broken(&from, &world).2, r#"[{"call":"one","reason":"not_a_list"}]"#);
    let (from, world) = foreach("[1,2,3,4,5,6,7,8,9,10,11]");
    let (call, status, errors) = broken(&from, &world);
    assert_eq!((call.as_str(), status), ("one", 502));
    assert_eq!(errors, r#"[{"call":"one","reason":"too_many_items"}]"#);
    assert!(world.asked("one").is_empty());
}

#[test]
fn an_item_that_fails_is_null_or_breaks_the_whole() {
    let (mut from, mut world) = foreach("[1,2]");
    http(&mut from.calls[1]).path = "/${item}".into();
    world.does.insert("1".into(), (5, Does::Answers(200, "1".into())));
    world.does.insert("2".into(), (3, Does::Answers(404, String::new())));
    assert_eq!(
        broken(&from, &world),
        ("one".into(), 404, r#"[{"call":"one","item":1,"reason":"status","status":404}]"#.into())
    );
    let (_, mut again) = foreach("[1,2]");
    again.does = world.does.clone();
    from.calls[1].mode = CallMode::Optional;
    assert_eq!(
        body(&from, &again),
        r#"{"one":[1,null],"errors":[{"call":"one","item":1,"reason":"status","status":404}]}"#
    );
}

#[test]
fn where_all_items_fail_the_call_has_failed() {
    let (mut from, mut world) = foreach("[1,2]");
    world.does.insert("one".into(), (5, Does::Breaks(Reason::ConnectFailed)));
    from.calls[1].mode = CallMode::Default("[]".into());
    assert_eq!(
        body(&from, &world),
        r#"{"one":[],"errors":[{"call":"one","item":0,"reason":"connect_failed"}]}"#
    );
}

fn batch(orders: &str, people: &str, size: u32) -> (snapshot::Aggregate, World) {
    let mut from = aggregate(vec![call("orders", "/orders"), call("people", "/people")]);
    http(&mut from.calls[1]).query =
        vec![("ids".into(), r#"${item | join(",")}"#.into()), ("id".into(), "${item}".into())];
    from.calls[0].hidden = true;
    from.calls[1].repeat = Some(Repeat {
        key: "who".into(),
        batch: Some(Batch { size, by: "id".into() }),
        ..repeat("${call.orders.body}")
    });
    (from, World::new(&[("orders", 0, 200, orders), ("people", 0, 200, people)]))
}

#[test]
fn one_call_is_made_for_many_items() {
    let orders = r#"[{"who":2},{"who":1},{"who":2},{"x":0},{"who":9007199254740993}]"#;
    let people = r#"[{"id":1,"n":"a"},{"id":9007199254740993,"n":"c"},{"id":2,"n":"b"}]"#;
    let (from, world) = batch(orders, people, 100);
    assert_eq!(
        body(&from, &world),
        r#"{"people":[{"id":2,"n":"b"},{"id":1,"n":"a"},{"id":2,"n":"b"},null,{"id":9007199254740993,"n":"c"}]}"#
    );
    let ids = "ids=2%2C1%2C9007199254740993&id=2&id=1&id=9007199254740993";
    assert_eq!(world.target("people"), format!("/people?{ids}"));
}

#[test]
fn larger_lists_take_more_calls_and_unknown_items_are_null() {
    let (from, world) = batch(r#"[{"who":2},{"who":1},{"who":3}]"#, r#"[{"id":"3"}]"#, 2);
    assert_eq!(body(&from, &world), r#"{"people":[null,null,{"id":"3"}]}"#);
    assert_eq!(world.asked("people").len(), 2);
}

#[test]
fn a_batch_is_answered_by_a_list() {
    let (from, world) = batch(r#"[{"who":2}]"#, r#"{"id":2}"#, 2);
    assert!(broken(&from, &world).2.contains("not_a_list"));
}
