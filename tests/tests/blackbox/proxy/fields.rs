//! Header fields: what is removed, what is added, what passes.

use tests::origin::answer_with;
use tests::spec::Spec;
use tests::{Client, Gateway, Origin};

fn ask(client: &mut Client, fields: &str) -> tests::Response {
    client.ask(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

#[test]
fn hop_by_hop_fields_stop_here_on_the_way_up() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let response = ask(
        &mut gateway.connect(),
        "Connection: keep-alive, X-Hop, x-other\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         TE: trailers, deflate\r\nTrailer: X\r\nUpgrade: h2c\r\nProxy-Authorization: Basic x\r\n\
         Proxy-Authenticate: Basic\r\nX-Hop: 1\r\nX-Other: 2\r\nX-End: 3\r\nX-End: 4\r\nCookie: a=b\r\n",
    );
    assert_eq!(response.status, 200);
    let seen = origin.last();
    for name in [
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "proxy-authorization",
        "proxy-authenticate",
        "x-hop",
        "x-other",
    ] {
        assert!(!seen.head.has(name), "{name} was forwarded: {:?}", seen.head.fields);
    }
    assert!(!seen.head.lists("connection", "x-hop"), "{:?}", seen.head.fields);
    assert!(!seen.head.lists("te", "deflate"), "{:?}", seen.head.fields);
    assert_eq!(seen.all("x-end"), ["3", "4"], "end-to-end fields pass in order");
    assert_eq!(seen.field("cookie"), Some("a=b"));
}

#[test]
fn hop_by_hop_fields_stop_here_on_the_way_down() {
    let origin = Origin::start(|_| {
        answer_with(
            "200 OK",
            "Connection: X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n\
             X-End: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: origin\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            "",
        )
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    let response = ask(&mut client, "");
    for name in ["keep-alive", "x-hop", "proxy-connection", "upgrade"] {
        assert!(!response.head.has(name), "{name} was passed on: {:?}", response.head.fields);
    }
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"], "never joined (RFC 6265 §3)");
    assert_eq!(response.field("x-end"), Some("1"));
    assert_eq!(response.field("server"), Some("origin"));
    assert_eq!(response.field("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    client.assert_alive("after it");
}

#[test]
fn the_upstream_learns_who_asked() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    ask(&mut gateway.connect(), "");
    let seen = origin.last();
    assert_eq!(seen.field("host"), Some("a.test"));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.field("x-forwarded-host"), Some("a.test"));
    assert_eq!(seen.field("via"), Some("1.1 sluice"));
    assert!(!seen.head.has("forwarded"), "Forwarded is off unless the listener asks for it");
}

#[test]
fn the_forwarded_field_on_request() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).listener("forwarded: true"));
    ask(&mut gateway.connect(), "");
    let seen = origin.last();
    let forwarded = seen.field("forwarded").unwrap_or_default().to_ascii_lowercase();
    let pairs: Vec<&str> = forwarded.split(';').map(str::trim).collect();
    assert!(pairs.contains(&"for=127.0.0.1"), "{forwarded}");
    assert!(pairs.contains(&"proto=http"), "{forwarded}");
    assert!(pairs.contains(&"host=a.test") || pairs.contains(&"host=\"a.test\""), "{forwarded}");
}

#[test]
fn trusted_proxies_are_believed() {
    let origin = Origin::echo();
    let trusting = Gateway::of(
        &Spec::to(origin.address())
            .listener("trusted_proxies: [\"127.0.0.0/8\", \"10.0.0.0/8\"], forwarded: true"),
    );
    ask(
        &mut trusting.connect(),
        "X-Forwarded-For: 203.0.113.7, 10.1.2.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\n\
         Forwarded: for=203.0.113.7;proto=https\r\n",
    );
    let seen = origin.last();
    let list: Vec<String> =
        seen.all("x-forwarded-for").join(",").split(',').map(|a| a.trim().to_owned()).collect();
    assert_eq!(list, ["203.0.113.7", "10.1.2.3", "127.0.0.1"], "appended to");
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"), "kept");
    assert_eq!(seen.field("x-forwarded-host"), Some("shop.test"), "kept");
    let forwarded = seen.all("forwarded").join(",").to_ascii_lowercase();
    assert!(forwarded.starts_with("for=203.0.113.7;proto=https"), "{forwarded}");
    assert!(forwarded.contains("for=127.0.0.1"), "{forwarded}");

    let other =
        Gateway::of(&Spec::to(origin.address()).listener("trusted_proxies: [\"10.0.0.0/8\"]"));
    ask(&mut other.connect(), "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n");
    let seen = origin.last();
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"), "127.0.0.1 is not listed");
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
}

#[test]
fn via_is_appended_and_loops_end() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()));
    ask(&mut gateway.connect(), "Via: 1.0 front\r\n");
    let via = origin.last().all("via").join(", ");
    assert_eq!(via, "1.0 front, 1.1 sluice");
    // A gateway whose upstream is itself must not spin.
    let mut looping = Gateway::start(
        "version: 1\nadmin: { listen: \"127.0.0.1:{ADMIN}\" }\nlisteners:\n  - { name: web, listen: \"127.0.0.1:{PORT}\" }\n\
         upstreams:\n  - { name: me, targets: [ { address: \"127.0.0.1:{PORT}\" } ] }\n\
         routes:\n  - { name: all, match: { path: { prefix: / } }, upstream: me }\n",
    );
    let address = looping.address_of("PORT");
    let response = ask(&mut Client::connect(address), "");
    assert!(matches!(response.status, 502 | 508), "{}", response.head.start);
}

#[test]
fn the_request_id_is_made_or_kept_and_goes_both_ways() {
    let origin = Origin::echo();
    let gateway =
        Gateway::of(&Spec::to(origin.address()).listener("trusted_proxies: [\"127.0.0.0/8\"]"));
    let mut client = gateway.connect();
    let mut ids = Vec::new();
    for _ in 0..20 {
        let response = ask(&mut client, "");
        let id = response.field("x-request-id").expect("X-Request-Id on every answer").to_owned();
        assert_eq!(
            origin.last().field("x-request-id"),
            Some(id.as_str()),
            "the upstream gets the same"
        );
        assert!(id.len() >= 16, "{id}");
        ids.push(id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20, "ids repeat");
    let response = ask(&mut client, "X-Request-Id: from-the-client-1\r\n");
    let id = response.field("x-request-id").unwrap_or_default();
    assert_eq!(id, "from-the-client-1", "kept");
    assert_eq!(origin.last().field("x-request-id"), Some(id));
    // One that could break logs or fields is replaced.
    for bad in ["x".repeat(1_000), "a b;c<d>".to_owned()] {
        let response = ask(&mut client, &format!("X-Request-Id: {bad}\r\n"));
        assert_eq!(response.status, 200);
        assert_ne!(response.field("x-request-id"), Some(bad.as_str()));
    }
    let missing = gateway.ask(
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Request-Id: own-answer-1\r\nVia: 1.1 sluice\r\n\r\n",
    );
    assert!(missing.status >= 500);
    missing.problem().unwrap();
}

#[test]
fn trace_context_passes_unchanged() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    ask(&mut gateway.connect(), &format!("traceparent: {parent}\r\ntracestate: a=1\r\n"));
    assert_eq!(origin.last().field("traceparent"), Some(parent));
    assert_eq!(origin.last().field("tracestate"), Some("a=1"));
}

#[test]
fn the_host_field_by_choice() {
    for (setting, expected) in [
        ("host_header: preserve", Some("a.test")),
        ("host_header: target", None),
        ("host_header: { value: inner.test }", Some("inner.test")),
    ] {
        let origin = Origin::echo();
        let gateway = Gateway::of(&Spec::to(origin.address()).upstream(setting));
        ask(&mut gateway.connect(), "");
        let target = origin.address().to_string();
        assert_eq!(origin.last().field("host"), Some(expected.unwrap_or(&target)), "{setting}");
        assert_eq!(origin.last().field("x-forwarded-host"), Some("a.test"), "{setting}");
    }
}

#[test]
fn own_answers_are_problems_without_reflection() {
    let origin = Origin::echo();
    let gateway =
        Gateway::of(&Spec::to(origin.address()).matching("hosts: [a.test], methods: [GET]"));
    for (request, status, reason) in [
        ("GET /marker HTTP/1.1\r\nHost: marker.test\r\nX-Marker: marker\r\n\r\n", 404, "no_route"),
        ("DELETE /marker HTTP/1.1\r\nHost: a.test\r\n\r\n", 405, ""),
        ("GET /marker%zz HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ""),
    ] {
        let response = gateway.ask(request);
        assert_eq!(response.status, status, "{request:?}");
        let named = response.problem().unwrap();
        assert!(
            !named.is_empty() && (reason.is_empty() || named == reason),
            "{request:?}: {named}"
        );
        let all = format!("{:?} {}", response.head.fields, response.text());
        assert!(!all.contains("marker"), "{request:?} is reflected in {all}");
    }
    // The same to HEAD, without the body.
    let response = gateway.ask("HEAD /x HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert_eq!((response.status, response.body.len()), (404, 0));
}
