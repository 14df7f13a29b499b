//! What routes change of bodies: any of it, and what is wrong with some.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::json;

use super::load;
use super::random::{errors, texts};
use crate::spec::*;

fn step() -> BoxedStrategy<BodyStep> {
    let place = || select(texts(&["/a", "/a/*/b", "", "1", "null", "é\"'"]));
    let value = || {
        select(vec![
            json!(null),
            json!(1),
            json!("${body.a}"),
            json!({"a": [true, null, "x: y"], "1": -1.5}),
        ])
    };
    let put = || (place(), value()).prop_map(|(at, value)| PlacedValue { at, value });
    let both = || (place(), place()).prop_map(|(from, to)| FromTo { from, to });
    let paths = || subsequence(texts(&["a.b", "*.c", "true"]), 1..=3);
    prop_oneof![
        put().prop_map(BodyStep::Add),
        put().prop_map(BodyStep::Replace),
        place().prop_map(BodyStep::Remove),
        both().prop_map(BodyStep::Move),
        both().prop_map(BodyStep::Copy),
        place().prop_map(|at| BodyStep::Rename(NewName { at, name: "n".into() })),
        paths().prop_map(BodyStep::Allow),
        paths().prop_map(BodyStep::Deny),
        Just(BodyStep::Wrap("data".into())),
        place().prop_map(BodyStep::Unwrap),
        Just(BodyStep::Defaults(json!({"a": {"b": 1}}).as_object().expect("a map").clone())),
        select(vec![json!([1]), json!("${body}")]).prop_map(BodyStep::Template),
        Just(BodyStep::Jq(".a | {b: .}".into())),
    ]
    .boxed()
}

fn rule(of_answers: bool) -> impl Strategy<Value = BodyRule> {
    use BodyForm::{Form, Json, Ndjson, Sse, Xml};
    let form = || select(vec![Json, Form, Xml, Ndjson, Sse]);
    let statuses = subsequence(vec![(200, 200), (400, 499)], 0..=2);
    let types = subsequence(texts(&["application/json", "*/*", "*+json"]), 0..=3);
    let more = (any::<(bool, bool)>(), 1u64..=64 << 20, 1u32..=30_000);
    let arrays = subsequence(texts(&["a.b", "1"]), 0..=2);
    ((statuses, types), (form(), option::of(form())), more, arrays, vec(step(), 0..5)).prop_map(
        move |((statuses, content_types), (from, to), more, arrays, steps)| {
            let ((decode, pass), max_bytes, jq_timeout_ms) = more;
            let statuses = statuses.into_iter().filter(|_| of_answers);
            BodyRule {
                statuses: statuses.map(|(first, last)| StatusRange { first, last }).collect(),
                content_types,
                from,
                to,
                decode: decode && !of_answers,
                max_bytes,
                unreadable: if pass { Unreadable::Pass } else { Unreadable::Refuse },
                arrays,
                jq_timeout_ms,
                steps,
            }
        },
    )
}

// Boxed: what routes are made of weighs on the stack.
pub fn payload() -> BoxedStrategy<(RequestBody, ResponseBody, Option<Compress>)> {
    use CodingName::{Br, Deflate, Gzip, Zstd};
    let codings = subsequence(vec![Br, Gzip, Zstd, Deflate], 1..=4).prop_shuffle();
    let levels = subsequence(vec![(Br, 0), (Gzip, 9), (Zstd, 1), (Deflate, 5)], 0..=4);
    let types = subsequence(texts(&["text/*", "application/json"]), 1..=2);
    let compress = (codings, levels, any::<u32>(), types).prop_map(
        |(codings, levels, min_bytes, content_types)| {
            let levels = levels.into_iter().collect::<BTreeMap<_, _>>();
            Compress { codings, levels, min_bytes, content_types }
        },
    );
    (vec(rule(false), 0..3), vec(rule(true), 0..3), option::of(compress)).boxed()
}

fn route(fields: &str) -> Loaded {
    let text = format!(
        "version: 1\nlisteners: [{{name: web, listen: ':8080'}}]\nupstreams: [{{name: a, targets: \
         ['127.0.0.1:9001']}}]\nroutes:\n- name: r\n  upstream: a\n{fields}"
    );
    load("payload.yaml", &text)
}

#[test]
fn short_forms_are_written_out() {
    let short = route("  compress: true\n  request_body: {steps: [{remove: /a}]}\n");
    let long = route(
        "  compress: {codings: [zstd, br, gzip], min_bytes: 1KiB}\n  request_body:\n  - from: json\n    \
         max_bytes: 1MiB\n    unreadable: refuse\n    jq_timeout_ms: 1000\n    steps: [remove: /a]\n",
    );
    assert_eq!(errors(&short), Vec::<String>::new());
    assert_eq!(short.spec, long.spec);
    let off = route("  compress: false\n").spec.expect("loads");
    assert_eq!(off.routes[0].compress, None);
    let null =
        route("  request_body: {steps: [add: {at: /a, value: null}]}\n").spec.expect("loads");
    let put = PlacedValue { at: "/a".into(), value: json!(null) };
    assert_eq!(null.routes[0].request_body[0].steps, [BodyStep::Add(put)]);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (fields, field) in [
        ("  request_body: {statuses: [200]}\n", "routes[0].request_body.statuses"),
        ("  response_body: [{decode: true}]\n", "routes[0].response_body[0].decode"),
        ("  request_body: {from: yaml}\n", "routes[0].request_body.from"),
        ("  request_body: {max_bytes: 65MiB}\n", "routes[0].request_body.max_bytes"),
        ("  request_body: {steps: [{}]}\n", "routes[0].request_body.steps[0]"),
        ("  request_body: {steps: [{remove: /a, wrap: b}]}\n", "routes[0].request_body.steps[0]"),
        ("  request_body: {steps: [add: {at: /a}]}\n", "routes[0].request_body.steps[0].add.value"),
        (
            "  request_body: {steps: [move: {from: /a}]}\n",
            "routes[0].request_body.steps[0].move.to",
        ),
        ("  request_body: {steps: [defaults: 1]}\n", "routes[0].request_body.steps[0].defaults"),
        ("  request_body: {steps: [delete: /a]}\n", "routes[0].request_body.steps[0].delete"),
        ("  response_body: {statuses: [99]}\n", "routes[0].response_body.statuses[0]"),
        ("  compress: {codings: [gzip, gzip]}\n", "routes[0].compress.codings"),
        ("  compress: {codings: []}\n", "routes[0].compress.codings"),
        ("  compress: {levels: {br: 7}}\n", "routes[0].compress.levels.br"),
        ("  compress: yes please\n", "routes[0].compress"),
    ] {
        let loaded = route(fields);
        let fields_of: Vec<_> = loaded.problems.iter().map(|one| one.field.as_str()).collect();
        assert!(fields_of.contains(&field), "{fields}: {:?}", loaded.problems);
    }
}
