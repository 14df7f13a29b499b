//! Others know who is calling: API keys in Redis, an authorization server, a service of one's own.

use std::time::Duration;

use data_encoding::BASE64;
use tests::origin::{Seen, answer_with};
use tests::process::cli;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Redis, Response, eventually};

/// How soon a key that was revoked opens nothing any more, on any node.
const REVOKED: Duration = Duration::from_secs(1);

fn ask(gateway: &Gateway, target: &str, fields: &str) -> Response {
    gateway.ask(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

fn status(gateway: &Gateway, fields: &str) -> u16 {
    ask(gateway, "/", fields).status
}

/// Each shard has been asked, more likely than not; all say the same.
#[track_caller]
fn assert_all(gateway: &Gateway, fields: &str, expected: u16, why: &str) {
    for _ in 0..6 {
        assert_eq!(status(gateway, fields), expected, "{why}");
    }
}

fn put(redis: &Redis) -> String {
    let made = cli(&["keys", "put", "--consumer", "acme", "--redis", &redis.url()]);
    assert_eq!(made.code, Some(0), "{made:?}");
    made.stdout.trim_end().to_owned()
}

#[test]
fn keys_in_redis_open_and_close_without_an_apply_and_outlive_it() {
    let (origin, mut redis) = (Origin::echo(), Redis::start());
    let spec = Spec::to(origin.address())
        .also(&format!("redis: {{ urls: [ \"{}\" ] }}", redis.url()))
        .also("consumers: [ { name: acme, scopes: [ read ] } ]")
        .also("authenticators: [ { name: keys, api_key: { store: redis } } ]")
        .route("auth: { any: [ keys ], hide_credentials: true }");
    let gateway = Gateway::of(&spec);
    let field = |key: &str| format!("X-API-Key: {key}\r\n");
    let unknown = field("slk_nobody-has-this-key-in-any-place");
    // Redis is connected to once somebody has to be looked up.
    assert!(eventually(PATIENCE, || status(&gateway, &unknown) == 401));
    assert_all(&gateway, &unknown, 401, "nobody's");

    let (kept, lost) = (put(&redis), put(&redis));
    for key in [&kept, &lost] {
        assert_all(&gateway, &field(key), 200, "known from now on");
        let seen = origin.last();
        assert_eq!(seen.all("x-consumer-id"), ["acme"]);
        assert!(!format!("{seen:?}").contains(&**key), "{seen:?}");
    }
    let revoked = cli(&["keys", "revoke", &lost, "--redis", &redis.url()]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    assert!(eventually(REVOKED, || status(&gateway, &field(&lost)) == 401), "still in");
    assert_all(&gateway, &field(&lost), 401, "on every shard");
    assert_all(&gateway, &field(&kept), 200, "the other one");

    redis.kill();
    assert_all(&gateway, &field(&kept), 200, "known, while Redis is away");
    let reply = ask(&gateway, "/", &field("slk_another-one-that-nobody-was-asked-of"));
    assert_eq!((reply.status, reply.problem().as_deref()), (503, Ok("auth_unavailable")));
    assert!(reply.field("retry-after").is_some());

    redis.restart();
    let made = put(&redis);
    assert!(eventually(PATIENCE, || status(&gateway, &field(&made)) == 200), "Redis is back");
    assert!(eventually(PATIENCE, || status(&gateway, &field(&kept)) == 401), "it came back empty");
}

/// The fields of a form, not decoded.
fn form(seen: &Seen) -> Vec<(String, String)> {
    let text = String::from_utf8(seen.body.clone()).expect("a form");
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn an_authorization_server_is_asked_what_a_token_is() {
    let origin = Origin::echo();
    // RFC 7662 §2.2: a token that is not active is told by nothing else.
    let server = Origin::start(|seen| {
        let json = "Content-Type: application/json\r\n";
        let token = form(seen).into_iter().find(|(name, _)| name == "token");
        match token.map(|(_, token)| token).as_deref() {
            Some("good") => answer_with(
                "200 OK",
                json,
                r#"{"active":true,"sub":"user-7","scope":"read","tenant":"acme"}"#,
            ),
            Some("narrow") => {
                answer_with("200 OK", json, r#"{"active":true,"sub":"user-7","scope":"other"}"#)
            }
            Some("broken") => answer_with("500 Internal Server Error", "", "no"),
            Some("odd") => answer_with("200 OK", json, r#"{"active":"true","sub":"user-7"}"#),
            _ => answer_with("200 OK", json, r#"{"active":false}"#),
        }
    });
    let spec = Spec::to(origin.address())
        .also(
            "consumers: [ { name: app, subjects: [ { authenticator: tokens, value: user-7 } ] } ]",
        )
        .also(&format!(
            "authenticators: [ {{ name: tokens, introspection: {{ url: \"http://{}/introspect\", \
             allow_private: true, audiences: any, issuer: any, cache_ms: 60000, \
             claim_headers: {{ tenant: x-tenant }}, \
             client: {{ id: edge, secret: {{ inline: \"for this suite\" }} }} }} }} ]",
            server.address()
        ))
        .route("auth: { any: [ tokens ], scopes: [ read ] }");
    let gateway = Gateway::single(&spec);
    let bearer = |token: &str| format!("X-Tenant: forged\r\nAuthorization: Bearer {token}\r\n");
    for _ in 0..4 {
        assert_eq!(status(&gateway, &bearer("good")), 200);
        let seen = origin.last();
        assert_eq!((seen.all("x-consumer-id"), seen.all("x-tenant")), (vec!["app"], vec!["acme"]));
    }
    assert_eq!(server.completed(), 1, "the answer is believed for a while");
    let asked = server.last();
    assert_eq!((&*asked.method, &*asked.target), ("POST", "/introspect"));
    assert_eq!(asked.field("content-type"), Some("application/x-www-form-urlencoded"));
    // RFC 6749 §2.3.1: name and secret are form-encoded before they are joined.
    let client = format!("Basic {}", BASE64.encode(b"edge:for+this+suite"));
    assert_eq!(asked.field("authorization"), Some(&*client));
    let hint = ("token_type_hint".to_owned(), "access_token".to_owned());
    assert!(form(&asked).contains(&hint), "{asked:?}");

    let before = origin.completed();
    let reply = |token: &str| {
        let reply = ask(&gateway, "/", &bearer(token));
        (reply.status, reply.problem().unwrap_or_else(|e| panic!("{token}: {e}")))
    };
    let expected = |status: u16, reason: &str| (status, reason.to_owned());
    assert_eq!(reply("other"), expected(401, "credential_invalid"));
    assert_eq!(reply("narrow"), expected(403, "scope_missing"));
    assert_eq!(reply("broken"), expected(503, "auth_unavailable"));
    assert_eq!(reply("odd"), expected(503, "auth_unavailable"), "only a plain yes is one");
    let asked = server.completed();
    assert_eq!(reply("other"), expected(401, "credential_invalid"));
    assert_eq!(server.completed(), asked, "so is a no");
    drop(server);
    assert_eq!(reply("new"), expected(503, "auth_unavailable"));
    assert_eq!(origin.completed(), before, "none of these reached the upstream");
    assert_eq!(status(&gateway, &bearer("good")), 200, "known already");
}

#[test]
fn a_service_of_ones_own_decides() {
    let origin = Origin::echo();
    let judge = Origin::start(|seen| match seen.field("x-ticket") {
        Some("good") => {
            answer_with("204 No Content", "X-Consumer: ada\r\nX-User: 7\r\nX-Other: 1\r\n", "")
        }
        Some("bad") => answer_with("403 Forbidden", "", "no"),
        Some("broken") => answer_with("302 Found", "Location: /elsewhere\r\n", ""),
        _ => answer_with("401 Unauthorized", "", "who?"),
    });
    let spec = Spec::to(origin.address())
        .also("consumers: [ { name: ada, scopes: [ read ] } ]")
        .also(&format!(
            "authenticators: [ {{ name: judge, external: {{ url: \"http://{}/check\", \
             allow_private: true, send: [ x-ticket ], take: [ x-user ], \
             consumer_header: x-consumer }} }} ]",
            judge.address()
        ))
        .route("auth: { any: [ judge ], scopes: [ read ] }");
    let gateway = Gateway::of(&spec);
    let fields = |ticket: &str| format!("X-Ticket: {ticket}\r\nX-User: forged\r\nX-Secret: 1\r\n");
    let asked = ask(&gateway, "/a/b?c=1", &fields("good"));
    assert_eq!(asked.status, 200);
    let seen = origin.last();
    assert_eq!((seen.all("x-consumer-id"), seen.all("x-user")), (vec!["ada"], vec!["7"]));
    assert_eq!(seen.field("x-other"), None, "only what is named");
    let shown = judge.last();
    assert_eq!((&*shown.method, &*shown.target), ("GET", "/check"));
    for (name, value) in [
        ("x-ticket", "good"),
        ("x-forwarded-method", "GET"),
        ("x-forwarded-uri", "/a/b?c=1"),
        ("x-forwarded-host", "a.test"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(shown.field(name), Some(value), "{name}");
    }
    assert_eq!(shown.field("x-secret"), None);

    let before = origin.completed();
    for (ticket, code, reason) in [
        ("none", 401, "credential_invalid"),
        ("bad", 403, "forbidden"),
        ("broken", 503, "auth_unavailable"),
    ] {
        let reply = ask(&gateway, "/", &fields(ticket));
        assert_eq!((reply.status, reply.problem().as_deref()), (code, Ok(reason)), "{ticket}");
    }
    assert_eq!(judge.completed(), 4, "it is asked each time");
    judge.hang_up();
    drop(judge);
    assert_eq!(status(&gateway, &fields("good")), 503, "nobody is let in unasked");
    assert_eq!(origin.completed(), before, "none of these reached the upstream");
}
