use super::diff;
use crate::spec::{Spec, load};

const OLD: &str = r#"
version: 1
listeners:
- {name: web, listen: ":8080"}
- {name: old, listen: ":8081"}
upstreams:
- {name: users, targets: ["10.0.0.1:80", "10.0.0.2:80"], pool: {max_idle: 256}}
- {name: gone, targets: ["10.0.0.9:80"]}
routes:
- {name: a, upstream: users, match: {path: /a, hosts: [a.com, b.com]}}
- {name: b, upstream: users, match: {path: /b, headers: [{name: x, exact: "1"}]}}
- {name: c, upstream: users, match: {path: /c}, timeouts: {idle_ms: 5}}
- {name: d, upstream: gone, match: {path: /d}}
"#;

fn spec(text: &str) -> Spec {
    let loaded = load("t.yaml", text);
    loaded.spec.unwrap_or_else(|| panic!("{:#?}", loaded.problems))
}

#[test]
fn layout_and_defaults_are_no_difference() {
    let other = OLD
        .replace("\":8080\"", "0.0.0.0:8080, forwarded: false, limits: {max_fields: 100}")
        .replace("upstream: gone", "upstreams: [{name: gone, weight: 1}]")
        .replace("path: /d", "path: {prefix: /d/}");
    let diff = diff(&spec(OLD), &spec(&other));
    assert!(diff.is_empty(), "{diff}");
    assert_eq!(diff.to_string(), "");
}

#[test]
fn changes_are_told_field_by_field() {
    let new = r#"
version: 1
node: {via: edge}
listeners:
- {name: web, listen: ":8080", limits: {max_fields: 50}}
- {name: new, listen: ":8082"}
upstreams:
- {name: users, targets: ["10.0.0.3:80", {address: "10.0.0.2:80", weight: 2}],
   balance: weighted, pool: {max_idle: 128}}
routes:
- {name: c, upstream: users, match: {path: /c}, timeouts: {connect_ms: 7}}
- {name: a, upstream: users, match: {path: {exact: /a}, hosts: [b.com, c.com]}}
- {name: b, upstream: users, match: {path: /b, headers: [{name: x, exact: "2"}]}}
- {name: e, upstreams: [{name: users, weight: 9}], match: {path: /e, methods: [GET]}}
"#;
    let diff = diff(&spec(OLD), &spec(new));
    let expected = r#"~ node.via: "sluice" -> "edge"
- listener old: 0.0.0.0:8081
+ listener new: 0.0.0.0:8082
~ listener web
    ~ limits.max_fields: 100 -> 50
- upstream gone: 10.0.0.9:80
~ upstream users
    ~ balance: "power_of_two" -> "weighted"
    ~ pool.max_idle: 256 -> 128
    - targets[10.0.0.1:80]: {"address":"10.0.0.1:80","priority":0,"weight":1}
    ~ targets[10.0.0.2:80].weight: 1 -> 2
    + targets[10.0.0.3:80]: {"address":"10.0.0.3:80","priority":0,"weight":1}
- route d: * * /d* -> gone
+ route e: GET * /e* -> users
~ route c
    + timeouts.connect_ms: 7
    - timeouts.idle_ms: 5
~ route a
    - match.hosts: "a.com"
    + match.hosts: "c.com"
    + match.path.exact: "/a"
    - match.path.prefix: "/a"
~ route b
    ~ match.headers[x].exact: "1" -> "2"
~ route c: moved to the front
"#;
    assert_eq!(diff.to_string(), expected);
    let json = serde_json::to_value(&diff).expect("serialises");
    assert_eq!(json["settings"][0]["field"], "node.via");
    assert_eq!(json["routes"]["added"][0]["name"], "e");
    assert_eq!(json["moved_routes"][0]["name"], "c");
    assert!(diff.to_text(true).contains("\u{1b}[31m- listener old: 0.0.0.0:8081\u{1b}[0m\n"));
}

#[test]
fn the_order_inside_a_list_counts() {
    let new = OLD.replace("a.com, b.com", "b.com, a.com");
    let diff = diff(&spec(OLD), &spec(&new));
    assert_eq!(
        diff.to_string(),
        "~ route a\n    ~ match.hosts: [\"a.com\",\"b.com\"] -> [\"b.com\",\"a.com\"]\n"
    );
}

#[test]
fn only_the_routes_that_moved_are_named() {
    let old = spec(OLD);
    let mut new = old.clone();
    let a = new.routes.edit().remove(0);
    new.routes.edit().insert(2, a);
    assert_eq!(diff(&old, &new).to_string(), "~ route a: moved after c\n");
}

const CALLERS: &str = r#"
version: 1
redis: {url: "redis://10.0.0.1:6379"}
listeners: [{name: web, listen: ":8080"}]
authenticators:
- {name: keys, api_key: {}}
- {name: signed, signature: {}}
limits: [{name: plan, requests: 5, per: 1s}]
groups: [{name: gold, scopes: [orders:read]}]
consumers:
- name: app
  groups: [gold]
  api_keys: [{sha256: "0000000000000000000000000000000000000000000000000000000000000000"}]
  signing_keys: [{id: k1, secret: {inline: an-old-secret-of-32-bytes-or-more}}]
upstreams: [{name: users, targets: ["10.0.0.1:80"]}]
routes: [{name: a, upstream: users, auth: [keys, signed]}]
"#;

#[test]
fn callers_are_told_without_their_secrets() {
    let new = CALLERS
        .replace("an-old-secret", "another-secret")
        .replace("[{name: gold, scopes: [orders:read]}]", "[{name: gold, limits: plan}]")
        .replace("redis: {url: \"redis://10.0.0.1:6379\"}\n", "auth: {throttle: {failures: 5}}\n")
        .replace("auth: [keys, signed]", "auth: {all: [keys, signed], scopes: [orders:write]}")
        .replace(
            "upstreams: [",
            "- {name: new, signing_keys: [{id: k2, secret: {inline: brand-new-secret-of-32-bytes-or-more}}]}\n\
             upstreams: [",
        );
    let (old, new) = (spec(CALLERS), spec(&new));
    let diff = diff(&old, &new);
    let expected = r#"- redis: {"cluster":false,"limits_timeout_ms":5,"urls":["redis://10.0.0.1:6379"]}
~ auth.throttle.failures: 50 -> 5
~ group gold
    + limits: "plan"
    - scopes: "orders:read"
+ consumer new: 1 signing key
~ consumer app
    ~ signing_keys[k1].secret.inline: "[redacted]" -> "[redacted]"
~ route a
    + auth.all: ["keys","signed"]
    - auth.any: ["keys","signed"]
    + auth.scopes: "orders:write"
"#;
    assert_eq!(diff.to_string(), expected);
    let json = serde_json::to_string(&diff).expect("serialises");
    assert!(!json.contains("secret-of"), "{json}");
    assert_eq!(serde_json::from_str::<super::Diff>(&json).expect("comes back"), diff);
    // A key that comes or goes as a whole brings its secret along.
    let mut gone = old.clone();
    gone.consumers.iter_mut_if(|_| true).for_each(|(_, one)| one.signing_keys.clear());
    let text = super::diff(&old, &gone).to_string();
    assert!(text.contains("[redacted]") && !text.contains("secret-of"), "{text}");
}
