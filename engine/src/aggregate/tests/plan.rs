//! What is no aggregate.

use contract::snapshot::CallSource;

use super::*;

fn refused(from: &snapshot::Aggregate) -> (String, String) {
    Aggregate::build(from, &Scope::request(Vec::new()), 1, &[]).unwrap_err()
}

#[test]
fn calls_that_wait_for_each_other_are_refused() {
    let from = aggregate(vec![
        call("a", "/a"),
        call("b", "/b/${call.c.body}"),
        call("c", "/c/${call.d.status}"),
        call("d", "/d"),
    ]);
    let mut ring = from.clone();
    ring.calls[3].after = vec![1];
    assert!(Aggregate::build(&from, &Scope::request(Vec::new()), 1, &[]).is_ok());
    let (field, problem) = refused(&ring);
    assert_eq!(field, "calls[1]");
    assert!(problem.contains("b needs c needs d needs b"), "{problem}");
    let own = aggregate(vec![call("a", "/a/${call.a.body}")]);
    assert!(refused(&own).1.contains("a needs a"));
}

#[test]
fn what_is_no_template_is_refused_with_its_field() {
    let good = aggregate(vec![call("a", "/a")]);
    type Break = fn(&mut snapshot::Aggregate);
    let breaks: [(&str, Break); 12] = [
        ("calls[0].path", |from| http(&mut from.calls[0]).path = "/${call.b.body}".into()),
        ("calls[0].path", |from| http(&mut from.calls[0]).path = "/${item}".into()),
        ("calls[0].path", |from| http(&mut from.calls[0]).path = "/${path.id}".into()),
        ("calls[0].query.q", |from| {
            http(&mut from.calls[0]).query = vec![("q".into(), "${".into())];
        }),
        ("calls[0].headers.x-a", |from| {
            http(&mut from.calls[0]).headers = vec![("x-a".into(), "${nobody}".into())];
        }),
        ("calls[0].body", |from| http(&mut from.calls[0]).body = Some(r#"{"a":["${x}"]}"#.into())),
        ("calls[0].static", |from| from.calls[0].source = CallSource::Static("{".into())),
        ("calls[0].when", |from| from.calls[0].when = Some("${item}".into())),
        ("calls[0].unwrap", |from| from.calls[0].unwrap = "a..b".into()),
        ("calls[0].deny", |from| from.calls[0].projection.deny = vec![".".into()]),
        ("response.headers.x-a", |from| {
            from.response.headers = vec![("x-a".into(), "${index}".into())];
        }),
        ("response.body", |from| {
            from.response.body = snapshot::AggregateBody::Template(r#""${call.z.body}""#.into());
        }),
    ];
    for (field, break_it) in breaks {
        let mut bad = good.clone();
        break_it(&mut bad);
        assert_eq!(refused(&bad).0, field);
    }
    let mut bad = good;
    http(&mut bad.calls[0]).upstream = 1;
    assert_eq!(refused(&bad).0, "calls[0].upstream");
}

#[test]
fn what_an_answer_depends_on_is_known() {
    let mut from = aggregate(vec![call("a", "/a")]);
    let one = http(&mut from.calls[0]);
    one.headers = vec![("x-a".into(), "${header.Accept-Language}".into())];
    one.forward_cookies = vec!["session".into()];
    let plan = build(&from);
    assert_eq!((&*plan.vary, plan.private), ("accept-language, cookie", false));
    http(&mut from.calls[0]).forward_headers = vec!["authorization".into()];
    assert!(build(&from).private);
}
