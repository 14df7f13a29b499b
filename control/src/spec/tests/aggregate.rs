//! Aggregates: any of them, and what is wrong with some.

use std::collections::BTreeMap;

use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::broken::mentions;
use super::random::texts;
use crate::spec::*;

fn value() -> impl Strategy<Value = Value> {
    select(vec![json!({"a": ["${query.q}", 1, null, -2.5]}), json!([]), json!("1"), json!(true)])
}

fn map(names: &'static [&'static str]) -> impl Strategy<Value = BTreeMap<String, String>> {
    subsequence(texts(names), 0..=names.len())
        .prop_map(|names| names.into_iter().map(|name| (name, "${query.q}".into())).collect())
}

fn paths() -> impl Strategy<Value = Vec<String>> {
    subsequence(texts(&["id", "owner.name", "null"]), 0..3)
}

fn upstream_call(upstream: String) -> impl Strategy<Value = AggregateCall> {
    let texts = (option::of(select(texts(&["PUT", "GET"]))), option::of(value()));
    let maps = (map(&["q", "a b", "1"]), map(&["x-a", "true"]));
    let forwarded = (
        subsequence(super::random::texts(&["accept-language", "1"]), 0..2),
        subsequence(super::random::texts(&["lang", "null"]), 0..2),
        subsequence(super::random::texts(&["session"]), 0..1),
    );
    let rest = (option::of(1u32..=3_600_000), option::of(super::resilience::retry()));
    let statuses =
        vec![StatusRange { first: 200, last: 204 }, StatusRange { first: 404, last: 404 }];
    let statuses = (subsequence(statuses, 1..=2), subsequence(vec![404u16, 409, 503], 0..3));
    (texts, maps, forwarded, rest, statuses, 1u64..=1 << 20).prop_map(
        move |(
            (method, body),
            (query, headers),
            forwarded,
            (timeout_ms, retry),
            statuses,
            max_bytes,
        )| {
            AggregateCall {
                upstream: Some(upstream.clone()),
                method,
                path: Some("/a/${query.q}".into()),
                query,
                headers,
                body,
                forward_headers: forwarded.0,
                forward_query: forwarded.1,
                forward_cookies: forwarded.2,
                timeout_ms,
                retry,
                success: statuses.0,
                pass: statuses.1,
                max_bytes,
                ..plain()
            }
        },
    )
}

/// A static call with every default.
fn plain() -> AggregateCall {
    serde_json::from_value(json!({"name": "x"})).expect("a call")
}

fn call(at: usize) -> impl Strategy<Value = AggregateCall> {
    let fixed = value().prop_map(|value| AggregateCall { fixed: Some(value), ..plain() });
    let source = prop_oneof![fixed, upstream_call("upstream-0".into())];
    let mode = prop_oneof![
        Just(CallMode::Required),
        Just(CallMode::Optional),
        value().prop_map(CallMode::Default),
        Just(CallMode::Default(Value::Null)),
    ];
    let each = (option::of(Just("id".to_owned())), 1u16..=64, 1u32..=10_000, 0..3);
    let last = (option::of(Just("a.b".to_owned())), paths(), paths(), any::<(bool, bool, bool)>());
    (source, mode, each, last).prop_map(move |(source, mode, each, last)| {
        let (key, concurrency, max_items, kind) = each;
        let (unwrap, allow, deny, (hidden, grouped, after)) = last;
        let list = || "${body.items}".to_owned();
        let foreach = Foreach { list: list(), key: key.clone(), concurrency, max_items };
        let by = "id".into();
        let batch = BatchCall { list: list(), key, by, size: max_items, concurrency, max_items };
        let asks = source.upstream.is_some();
        AggregateCall {
            name: format!("call_{at}"),
            mode,
            foreach: (kind == 1).then_some(foreach),
            batch: (kind == 2 && asks).then_some(batch),
            unwrap,
            allow,
            deny,
            hidden: hidden && at > 0,
            group: grouped.then(|| format!("group {at}")),
            after: if after && at > 0 { vec!["call_0".into()] } else { Vec::new() },
            when: after.then(|| "${query.q}".into()),
            ..source
        }
    })
}

prop_compose! {
    pub fn aggregate()(
        calls in (1usize..4).prop_flat_map(|count| (0..count).map(|at| call(at).boxed()).collect::<Vec<_>>()),
        (status, merge) in (200u16..=599, select(vec![Merge::Group, Merge::Deep])),
        (body, joins, many) in (option::of(value()), any::<bool>(), any::<bool>()),
        (allow, deny, headers) in (paths(), paths(), map(&["x-a", "1"])),
        (deadline_ms, concurrency, max_bytes) in (1u32..=3_600_000, 1u16..=64, 1u64..=64 << 20),
        (errors, server_timing) in any::<(bool, bool)>(),
    ) -> Aggregate {
        let join = Join {
            list: String::new(),
            key: "a.id".into(),
            call: "call_0".into(),
            from: "items".into(),
            by: "id".into(),
            into: "b".into(),
            many,
        };
        let response = AggregateResponse {
            status,
            merge: if body.is_some() { Merge::Group } else { merge },
            body,
            join: if joins { vec![join] } else { Vec::new() },
            allow,
            deny,
            headers,
        };
        let stream = false;
        Aggregate { calls, response, deadline_ms, concurrency, max_bytes, errors, server_timing, stream }
    }
}

/// A case of an aggregate with a good call `a`, and more fields, indented by six.
#[track_caller]
fn route(fields: &str, expected: &[(&str, &str)]) -> String {
    let text = format!(
        "version: 1\nlisteners: [{{name: web, listen: ':8080'}}]\nupstreams: [{{name: u, targets: \
         ['127.0.0.1:9001']}}]\nroutes:\n  - name: r\n    aggregate:\n      calls:\n        - {{name: a, \
         upstream: u, path: /a}}\n{fields}\n"
    );
    let problems = load("t", &text).problems;
    let short = |field: &str| field.trim_start_matches("routes[0].").to_owned();
    let found: Vec<_> = problems.iter().map(|one| (short(&one.field), one.code)).collect();
    let expected: Vec<_> = expected.iter().map(|(field, code)| (short(field), *code)).collect();
    assert_eq!(found, expected, "{text}");
    problems.iter().map(|one| one.message.clone()).collect::<Vec<_>>().join(
        "
",
    )
}

#[test]
fn one_call_is_enough() {
    route("", &[]);
    let loaded = load("t", &{
        "version: 1\nlisteners: [{name: web, listen: ':8080'}]\nupstreams: [{name: u, targets: ['a:1']}]\n\
         routes: [{name: r, aggregate: {calls: [{name: a, upstream: u, path: '/a'}]}}]\n"
            .to_owned()
    });
    let spec = loaded.spec.expect("loads");
    let aggregate = spec.routes[0].aggregate.as_ref().expect("is there");
    assert_eq!(aggregate.deadline_ms, 10_000);
    assert_eq!(aggregate.calls[0].mode, CallMode::Required);
    assert_eq!(aggregate.calls[0].success, [StatusRange { first: 200, last: 299 }]);
    assert_eq!(spec.routes[0].to_string(), " * /* -> a".replace(" * ", "* * "));
}

#[test]
fn what_is_wrong_with_calls_is_said_where_it_stands() {
    route(
        "        - {name: a, upstream: u, path: /b}",
        &[("aggregate.calls[1].name", "duplicate-name")],
    );
    route(
        "        - {name: a-b, upstream: u, path: /b}",
        &[("aggregate.calls[1].name", "bad-name")],
    );
    let nobody = route(
        "        - {name: b, upstream: w, path: /b}",
        &[("aggregate.calls[1].upstream", "unknown-upstream")],
    );
    mentions(&nobody, "did you mean `u`?");
    route("        - {name: b, upstream: u}", &[("aggregate.calls[1].path", "missing-field")]);
    route("        - {name: b}", &[("aggregate.calls[1]", "missing-field")]);
    route(
        "        - {name: b, static: 1, upstream: u, path: /b}",
        &[("aggregate.calls[1].static", "conflicting-fields")],
    );
    let idle = route(
        "        - {name: b, static: 1, path: /b}",
        &[("aggregate.calls[1].path", "conflicting-fields")],
    );
    mentions(&idle, "beside `static`");
    route("        - {name: b, upstream: u, path: b}", &[("aggregate.calls[1].path", "bad-path")]);
    route(
        "        - {name: b, upstream: u, path: '/b?c=1'}",
        &[("aggregate.calls[1].path", "bad-path")],
    );
    route(
        "        - {name: b, upstream: u, path: /b, after: [z]}",
        &[("aggregate.calls[1].after[0]", "unknown-call")],
    );
    route(
        "        - {name: b, upstream: u, path: /b, after: [b]}",
        &[("aggregate.calls[1].after[0]", "call-cycle")],
    );
    route(
        "        - {name: b, upstream: u, path: /b, mode: maybe}",
        &[("aggregate.calls[1].mode", "wrong-type")],
    );
    route(
        "        - {name: b, upstream: u, path: /b, headers: {cookie: x}}",
        &[("aggregate.calls[1].headers.cookie", "bad-value")],
    );
    route(
        "        - {name: b, upstream: u, path: /b, forward_headers: [Host]}",
        &[("aggregate.calls[1].forward_headers[0]", "bad-field-name")],
    );
    route(
        "        - {name: b, upstream: u, path: /b, unwrap: a..b}",
        &[("aggregate.calls[1].unwrap", "bad-path")],
    );
    let both = "foreach: {in: a}, batch: {in: a, by: id}";
    route(
        &format!("        - {{name: b, upstream: u, path: /b, {both}}}"),
        &[("aggregate.calls[1].batch", "conflicting-fields")],
    );
    route(
        "        - {name: b, upstream: u, path: /b, max_bytes: 1GiB}",
        &[("aggregate.calls[1].max_bytes", "out-of-range")],
    );
}

#[test]
fn what_is_wrong_with_the_response_is_said_where_it_stands() {
    let shown = "        - {name: b, upstream: u, path: /b, group: a}";
    mentions(&route(shown, &[("aggregate.calls[1].group", "key-conflict")]), "the key `a`");
    let errors = "        - {name: errors, static: 1}\n      errors: true";
    mentions(
        &route(errors, &[("aggregate.calls[1].name", "key-conflict")]),
        "choose another `group`",
    );
    route(
        "      errors: true\n      response: {merge: append}",
        &[("aggregate.errors", "conflicting-fields")],
    );
    route(
        "      stream: true\n      response: {merge: deep}",
        &[("aggregate.response.merge", "conflicting-fields")],
    );
    route(
        "      response: {merge: deep, body: 1}",
        &[("aggregate.response.merge", "conflicting-fields")],
    );
    let join = "{key: a, call: z, by: id, into: b}";
    route(
        &format!("      response: {{join: [{join}]}}"),
        &[("aggregate.response.join[0].call", "unknown-call")],
    );
    let keys = "        - {name: b, static: {k: 1}}\n        - {name: c, static: {k: 2}}\n      response: {merge: deep}";
    mentions(&route(keys, &[("aggregate.calls[2]", "key-conflict")]), "what `c` says goes over it");
    route(
        "      response: {headers: {date: x}}",
        &[("aggregate.response.headers.date", "bad-value")],
    );
}

#[test]
fn a_route_has_either_calls_or_an_upstream() {
    let text = route("    upstream: u", &[("upstream", "conflicting-fields")]);
    mentions(&text, "exclude each other");
    route("    retry: none", &[("retry", "unused-field")]);
}
