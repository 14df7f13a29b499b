//! HTTP Basic, what guessing leads to, and policies.

use tests::spec::Spec;
use tests::{Gateway, Origin};

/// argon2id of `open sesame`.
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$PAWILv0lSNnqn/P1tbZnTr/BSDrLrmPHnPbBcq8xFY8";

/// `ada:open sesame`, and with a wrong password.
const RIGHT: &str = "YWRhOm9wZW4gc2VzYW1l";
const WRONG: &str = "YWRhOmNsb3NlIHNlc2FtZQ==";

fn spec(origin: &Origin) -> Spec {
    Spec::to(origin.address())
        .listener("trusted_proxies: [\"127.0.0.0/8\"]")
        .also("authenticators: [ { name: people, basic: { realm: here } } ]")
        .also(&format!(
            "groups: [ {{ name: staff }} ]\n\
             consumers: [ {{ name: team, groups: [staff], \
             passwords: [ {{ username: ada, hash: \"{HASH}\" }} ] }} ]"
        ))
}

fn ask(gateway: &Gateway, line: &str, credential: &str, from: &str) -> tests::Response {
    gateway.ask(format!(
        "{line} HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: {from}\r\n\
         Authorization: Basic {credential}\r\n\r\n"
    ))
}

#[test]
fn guesses_are_slowed_down_and_nobody_is_locked_out() {
    let origin = Origin::echo();
    let spec = spec(&origin)
        .also("auth: { throttle: { failures: 3, window_ms: 600000 } }")
        .route("auth: { any: [people], hide_credentials: true }");
    let gateway = Gateway::of(&spec);
    let status = |credential: &str, from: &str| ask(&gateway, "GET /", credential, from).status;
    assert_eq!(status(RIGHT, "192.0.2.1"), 200);
    let seen = origin.last();
    assert_eq!(seen.field("x-consumer-id"), Some("team"));
    assert_eq!(seen.field("authorization"), None);
    for guess in 0..3 {
        assert_eq!(status(WRONG, "198.51.100.1"), 401, "{guess}");
    }
    let throttled = ask(&gateway, "GET /", WRONG, "198.51.100.1");
    assert_eq!(throttled.status, 429);
    let wait_s: u32 = throttled.field("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=1_200).contains(&wait_s), "{wait_s}");
    assert_eq!(status(WRONG, "198.51.100.2"), 429, "the account is guessed at");
    for _ in 0..8 {
        // On any shard, whether it remembers or not.
        assert_eq!(status(RIGHT, "192.0.2.1"), 200, "who was here before");
    }
}

#[test]
fn policies_are_checked_when_they_are_applied_and_judged_when_they_are_met() {
    let origin = Origin::echo();
    let policy = "request.method == 'GET' || 'staff' in consumer.groups";
    let guard =
        |policy: &str| format!("auth: {{ any: [people], optional: true, policy: \"{policy}\" }}");
    let mut gateway = Gateway::of(&spec(&origin).route(&guard(policy)));
    assert_eq!(gateway.ask("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").status, 200);
    assert_eq!(gateway.ask("DELETE / HTTP/1.1\r\nHost: a.test\r\n\r\n").status, 401);
    assert_eq!(ask(&gateway, "DELETE /", RIGHT, "192.0.2.1").status, 200);
    let wrong = spec(&origin).route(&guard("request.verb == 'GET'"));
    let (status, told) = gateway.try_apply(&wrong.text());
    assert!(status >= 400 && told.contains("`request` has no `verb`"), "{status}: {told}");
    assert!(told.contains("policy"), "{told}");
}
