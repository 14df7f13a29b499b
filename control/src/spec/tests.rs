//! Broken specs and what is said of them; round trips; noise.

mod access;
mod aggregate;
mod auth;
mod broken;
mod cache;
mod callers;
mod limits;
mod operators;
mod payload;
mod random;
mod resilience;
mod secure;
mod shape;
mod validate;

pub(crate) use validate::as_json;

use super::*;

pub use callers::HASH;

const EXAMPLES: [(&str, &str); 13] = [
    ("minimal.yaml", include_str!("../../../examples/minimal.yaml")),
    ("aggregate.yaml", include_str!("../../../examples/aggregate.yaml")),
    ("microservices.yaml", include_str!("../../../examples/microservices.yaml")),
    ("canary.yaml", include_str!("../../../examples/canary.yaml")),
    ("behind-a-proxy.yaml", include_str!("../../../examples/behind-a-proxy.yaml")),
    ("limits.yaml", include_str!("../../../examples/limits.yaml")),
    ("tls.yaml", include_str!("../../../examples/tls.yaml")),
    ("grpc.yaml", include_str!("../../../examples/grpc.yaml")),
    ("resilience.yaml", include_str!("../../../examples/resilience.yaml")),
    ("rate-limits.yaml", include_str!("../../../examples/rate-limits.yaml")),
    ("cache.yaml", include_str!("../../../examples/cache.yaml")),
    ("validation.yaml", include_str!("../../../examples/validation.yaml")),
    ("bodies.yaml", include_str!("../../../examples/bodies.yaml")),
];

#[test]
fn examples_load_without_a_problem() {
    for (name, text) in EXAMPLES {
        let loaded = load(name, text);
        assert_eq!(loaded.problems, [], "{name}");
        assert!(loaded.spec.is_some(), "{name}");
    }
}

/// `limits.yaml` says that it spells out the defaults; they must not drift apart.
#[test]
fn the_limits_example_spells_out_the_defaults() {
    let text = EXAMPLES.iter().find(|(name, _)| *name == "limits.yaml").expect("is listed").1;
    let spec = load("limits.yaml", text).spec.expect("loads");
    assert_eq!(spec.node, Node::default());
    assert_eq!(spec.admin, Admin::default());
    assert_eq!(spec.listeners[0].limits, Limits::default());
    assert_eq!(spec.upstreams[0].pool, Pool::default());
    assert_eq!(spec.upstreams[0].timeouts, Timeouts::default());
    assert_eq!(spec.routes[0].max_body_bytes, 2 << 30);
    assert_eq!(spec.routes[1].timeouts.total_ms, Some(LimitMs::None));
    assert_eq!(spec.access_log.destination(), LogDestination::Off);
}

/// So does `resilience.yaml`, for one upstream.
#[test]
fn the_resilience_example_spells_out_the_defaults() {
    let text = EXAMPLES.iter().find(|(name, _)| *name == "resilience.yaml").expect("is listed").1;
    let spec = load("resilience.yaml", text).spec.expect("loads");
    let upstream = Upstream::clone(&spec.upstreams[0]);
    assert!(text.contains("outlier:") && text.contains("retry:") && text.contains("overload:"));
    assert_eq!(upstream.name, "defaults");
    let default = Upstream { name: upstream.name.clone(), ..Upstream::default() };
    assert_eq!(upstream, Upstream { targets: upstream.targets.clone(), ..default });
    assert_eq!(spec.node.overload, Overload::default());
}

#[test]
fn short_forms_and_long_forms_are_equal() {
    let short = r#"
version: 1
listeners: [{name: web, listen: ":8080", trusted_proxies: [10.1.2.3]}]
upstreams: [{name: a, targets: ["Users.Internal:80"]}]
routes:
  - name: r
    match: {path: /x/, hosts: [API.Example.com], headers: [{name: X-A, present: true}]}
    upstream: a
    max_body_bytes: 1KiB
"#;
    let long = r#"{"version": 1,
 "listeners": [{"name": "web", "listen": "0.0.0.0:8080", "trusted_proxies": ["10.1.2.3/32"]}],
 "upstreams": [{"name": "a", "targets": [{"address": "users.internal:80", "weight": 1}]}],
 "routes": [{"name": "r", "upstreams": [{"name": "a", "weight": 1}], "max_body_bytes": 1024,
   "match": {"path": {"prefix": "/x"}, "hosts": ["api.example.com"],
             "headers": [{"name": "x-a", "present": true}]}}]}"#;
    let (short, long) = (load("a", short), load("b", long));
    assert_eq!(short.problems, []);
    assert_eq!(long.problems, []);
    assert_eq!(short.spec, long.spec);
    let names = short.spec.expect("loads").host_names();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["users.internal"]);
}

#[test]
fn bytes_that_are_not_utf8_are_placed() {
    let loaded = load_bytes("x.yaml", b"version: 1\nnode: \xff\n");
    assert!(loaded.spec.is_none());
    assert_eq!(loaded.problems.len(), 1);
    assert_eq!(loaded.problems[0].to_string().split(": ").next(), Some("x.yaml:2:7"));
    assert!(load_bytes("x.yaml", EXAMPLES[0].1.as_bytes()).spec.is_some());
}

#[test]
fn a_spec_past_its_bound_is_refused() {
    let text = format!("version: 1\n#{}", "x".repeat(MAX_BYTES));
    let loaded = load("big.yaml", &text);
    assert!(loaded.spec.is_none());
    assert_eq!(loaded.problems[0].code, "file-too-large");
}

#[test]
fn problems_are_bounded_and_counted() {
    let mut text = String::from("version: 1\nlisteners: [{name: a, listen: ':1'}]\nroutes:\n");
    for n in 0..1000 {
        text.push_str(&format!("- {{name: r{n}, upstream: nowhere}}\n"));
    }
    let problems = load("x", &text).problems;
    assert_eq!(problems.len(), 201);
    assert_eq!(problems.last().map(|last| last.code), Some("too-many-problems"));
}

#[test]
fn rendering_points_at_the_place() {
    let text = "version: 1\nlisteners:\n  - {name: web, listen: ':80', limit: 3}\n";
    let loaded = load("gateway.yaml", text);
    let expected = "\
error[unknown-field]: `limit` is not a field here; did you mean `limits`?
 --> gateway.yaml:3:32
  |
3 |   - {name: web, listen: ':80', limit: 3}
  |                                ^^^^^
  = field: listeners[0].limit
";
    let plain = render(&loaded.problems, text, false);
    assert!(plain.starts_with(expected), "{plain}");
    assert!(plain.ends_with("\n1 error\n"), "{plain}");
    assert!(!plain.contains('\u{1b}'));
    assert!(render(&loaded.problems, text, true).contains("\u{1b}[1;31merror[unknown-field]"));
    assert_eq!(
        loaded.problems[0].to_string(),
        "gateway.yaml:3:32: error[unknown-field]: listeners[0].limit: `limit` is not a field \
         here; did you mean `limits`?"
    );
}

#[test]
fn rendering_makes_control_characters_harmless() {
    let text = "version: 1\n\"a\u{1b}[2Jb\": 1\nlisteners: [{name: a, listen: ':1'}]\n";
    let plain = render(&load("x", text).problems, text, false);
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
}

#[test]
fn problems_serialise_for_programs() {
    let problems = load("x", "version: 2\nlisteners: [{name: a, listen: ':1'}]").problems;
    let json = serde_json::to_value(&problems[0]).expect("serialises");
    assert_eq!(json["code"], "bad-version");
    assert_eq!(json["severity"], "error");
    assert_eq!((&json["line"], &json["column"]), (&1.into(), &10.into()));
    assert_eq!(json["value"], "2");
}
