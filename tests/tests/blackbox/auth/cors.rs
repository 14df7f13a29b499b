//! The CORS protocol at the edge (Fetch standard).

use tests::http2::H2Client;
use tests::http2::client::request;
use tests::origin::answer_with;
use tests::spec::Spec;
use tests::{Gateway, Origin, Response};

const APP: &str = "https://app.example.com";

/// An origin with an opinion of its own, and a gateway with another.
fn shared(rules: &str) -> (Origin, Gateway) {
    let origin = Origin::start(|_| {
        let fields = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Methods: BREW\r\n\
                      access-control-expose-headers: x-theirs\r\nVary: Accept\r\n";
        answer_with("200 OK", fields, "hello")
    });
    let spec = Spec::to(origin.address())
        .listener("h2c: true")
        .also("authenticators: [ { name: people, basic: { realm: here } } ]")
        .route(&format!("cors: {{ {rules} }}"))
        .also_route(
            "{ name: guarded, match: { path: /guarded, methods: [PUT] }, upstream: origin, \
                     auth: people, cors: { origins: [\"https://*.example.com\"] } }",
        )
        .also_route("{ name: plain, match: { path: /plain }, upstream: origin }");
    let gateway = Gateway::of(&spec);
    (origin, gateway)
}

fn ask(gateway: &Gateway, line: &str, fields: &[(&str, &str)]) -> Response {
    let fields: String =
        fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    gateway.ask(format!("{line} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

fn about_cors(response: &Response) -> Vec<String> {
    let fields = response.head.fields.iter().map(|(name, _)| name.to_ascii_lowercase());
    fields.filter(|name| name.starts_with("access-control-")).collect()
}

#[test]
fn a_preflight_is_answered_here_and_before_anyone_is_asked() {
    let (origin, gateway) = shared("origins: [\"https://*.example.com\"]");
    for path in ["/anything", "/guarded"] {
        let preflight = ask(
            &gateway,
            &format!("OPTIONS {path}"),
            &[
                ("Origin", APP),
                ("Access-Control-Request-Method", "PUT"),
                ("Access-Control-Request-Headers", "authorization,x-trace"),
            ],
        );
        assert_eq!(preflight.status, 204, "{path}");
        assert_eq!(preflight.field("access-control-allow-origin"), Some(APP));
        let methods = preflight.field("access-control-allow-methods").unwrap_or_default();
        assert!(methods.split(", ").any(|method| method == "PUT"), "{methods}");
        let headers = preflight.field("access-control-allow-headers");
        assert_eq!(headers, Some("authorization, x-trace"));
        assert!(preflight.field("access-control-max-age").is_some());
        assert_eq!(preflight.field("vary"), Some("Origin"));
        assert_eq!(preflight.field("www-authenticate"), None);
    }
    assert!(origin.seen().is_empty(), "it has not heard of them");
    // The same over HTTP/2.
    let mut client = H2Client::clear(gateway.address());
    let mut fields = request("OPTIONS", "/guarded");
    fields.extend([("origin", APP), ("access-control-request-method", "PUT")]);
    let answer = client.ask(&fields, b"");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.field("access-control-allow-origin"), Some(APP));
}

#[test]
fn other_origins_are_told_nothing() {
    let (origin, gateway) = shared("origins: [\"https://*.example.com\"]");
    for evil in [
        "https://example.com",
        "http://app.example.com",
        "https://app.example.com.evil.test",
        "https://evil.test/.example.com",
        "null",
    ] {
        let asked = [("Origin", evil), ("Access-Control-Request-Method", "GET")];
        let preflight = ask(&gateway, "OPTIONS /x", &asked);
        assert_eq!((preflight.status, about_cors(&preflight).len()), (204, 0), "{evil}");
        assert_eq!(preflight.field("vary"), Some("Origin"), "{evil}");
        let answer = ask(&gateway, "GET /x", &[("Origin", evil)]);
        assert_eq!((answer.status, about_cors(&answer).len()), (200, 0), "{evil}");
        assert!(answer.head.lists("vary", "origin") && answer.head.lists("vary", "accept"));
    }
    assert_eq!(origin.seen().len(), 5, "their plain requests go on: they always could");
}

#[test]
fn every_answer_says_once_who_may_read_it() {
    let rules = "origins: [\"https://app.example.com\"], expose: [X-Total], credentials: true, max_age_s: 60";
    let (origin, gateway) = shared(rules);
    let answer = ask(&gateway, "GET /x", &[("Origin", APP)]);
    assert_eq!(answer.head.all("access-control-allow-origin"), [APP]);
    assert_eq!(answer.head.all("access-control-expose-headers"), ["x-total"]);
    assert_eq!(answer.head.all("access-control-allow-credentials"), ["true"]);
    assert!(answer.head.all("access-control-allow-methods").is_empty(), "that was the origin's");
    let answer = ask(&gateway, "GET /x", &[]);
    assert!(answer.head.lists("vary", "origin") && about_cors(&answer).is_empty());
    // Also ours, so that a page can see that it has to log in.
    let refused = ask(&gateway, "PUT /guarded", &[("Origin", APP)]);
    assert_eq!((refused.status, refused.field("access-control-allow-origin")), (401, Some(APP)));
    // Where there are no rules it is the origin's matter.
    let plain = ask(&gateway, "OPTIONS /plain", &[("Origin", APP)]);
    assert_eq!(plain.field("access-control-allow-methods"), Some("BREW"));
    assert_eq!(origin.last().method, "OPTIONS");
}

#[test]
fn anyone_may_read_where_the_origin_is_a_star() {
    let (_origin, gateway) = shared("origins: \"*\"");
    for fields in [&[("Origin", APP)][..], &[]] {
        let answer = ask(&gateway, "GET /x", fields);
        assert_eq!(answer.head.all("access-control-allow-origin"), ["*"]);
        assert!(!answer.head.lists("vary", "origin"), "one answer for all");
    }
}

#[test]
fn options_by_itself_is_a_method_like_others() {
    let (origin, gateway) = shared("origins: [\"https://app.example.com\"]");
    for fields in [&[("Origin", APP)][..], &[("Access-Control-Request-Method", "GET")], &[]] {
        let answer = ask(&gateway, "OPTIONS /x", fields);
        assert_eq!((answer.status, answer.text()), (200, "hello".to_string()), "{fields:?}");
    }
    assert_eq!(origin.seen().len(), 3);
    assert_eq!(ask(&gateway, "OPTIONS /guarded", &[("Origin", APP)]).status, 405);
}
