//! TLS with upstreams: verified, by name, with a certificate of our own where one is asked for.

use tests::http2::H2Origin;
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::{Authority, Gateway, Identity, Origin, TlsServer, get};

use super::place;

/// A gateway before a TLS origin, with these settings of the upstream's `tls:`.
fn before(origin: std::net::SocketAddr, files: &[(&str, &Identity)], ca: &str, tls: &str) -> Gateway {
    let scratch = Scratch::new();
    scratch.file("ca.pem", ca);
    for (name, identity) in files {
        place(scratch.path(), name, identity);
    }
    let spec = Spec::to(origin).upstream(&format!("tls: {{ {tls} }}"));
    Gateway::start_in(scratch, &spec.text(), 1)
}

const CA: &str = "ca: \"{DIR}/ca.pem\"";

#[test]
fn an_upstream_is_verified() {
    let authority = Authority::new("Upstreams");
    let stranger = Authority::new("Strangers");
    for (what, identity, tls, status) in [
        ("the target's address", authority.server(&["127.0.0.1"]), CA.to_owned(), 200),
        (
            "a name of its own",
            authority.server(&["up.test"]),
            format!("{CA}, server_name: up.test"),
            200,
        ),
        ("another address", authority.server(&["127.0.0.2"]), CA.to_owned(), 502),
        (
            "another name",
            authority.server(&["down.test"]),
            format!("{CA}, server_name: up.test"),
            502,
        ),
        ("an unknown authority", stranger.server(&["127.0.0.1"]), CA.to_owned(), 502),
        ("a client's certificate", authority.client("up", "spiffe://test/up"), CA.to_owned(), 502),
        ("an expired one", authority.expired("up"), format!("{CA}, server_name: up.test"), 502),
        ("the system's roots", authority.server(&["127.0.0.1"]), String::new(), 502),
        ("anybody", stranger.server(&["x.test"]), "verify: false".to_owned(), 200),
    ] {
        let origin = Origin::tls(TlsServer::new(&identity, &["http/1.1"]), tests::origin::echo);
        let gateway = before(origin.address(), &[], authority.pem(), &tls);
        let response = gateway.ask(get("/up"));
        assert_eq!(response.status, status, "{what}: {}", response.text());
        if status == 502 {
            response.problem().unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(origin.completed(), 0, "{what}: a request was sent all the same");
        }
    }
}

#[test]
fn a_clear_text_upstream_is_no_tls_upstream() {
    let origin = Origin::echo().lenient();
    let authority = Authority::new("Upstreams");
    let gateway = before(origin.address(), &[], authority.pem(), CA);
    assert_eq!(gateway.ask(get("/clear")).status, 502);
    assert_eq!(origin.completed(), 0);
}

#[test]
fn the_upstream_is_asked_for_by_name() {
    let authority = Authority::new("Upstreams");
    let identity = authority.server(&["up.test"]);
    let origin = Origin::tls(TlsServer::new(&identity, &["http/1.1"]), tests::origin::echo);
    let tls = format!("{CA}, server_name: up.test");
    let gateway = before(origin.address(), &[], authority.pem(), &tls);
    assert_eq!(gateway.ask(get("/sni")).status, 200);
    assert_eq!(origin.handshakes()[0].name.as_deref(), Some("up.test"));
    // The name in the handshake is not the host of the request.
    assert_eq!(origin.last().field("host"), Some("a.test"));
    assert_eq!(origin.handshakes()[0].alpn.as_deref(), Some("http/1.1"));
}

#[test]
fn our_own_certificate_is_shown_where_it_is_asked_for() {
    let authority = Authority::new("Upstreams");
    let identity = authority.server(&["127.0.0.1"]);
    let us = authority.client("gateway", "spiffe://test/gateway");
    let server = || TlsServer::asking(&identity, &["http/1.1"], &authority);
    let origin = Origin::tls(server(), tests::origin::echo);
    let tls = format!("{CA}, cert: \"{{DIR}}/us.pem\", key: \"{{DIR}}/us.key\"");
    let gateway = before(origin.address(), &[("us", &us)], authority.pem(), &tls);
    assert_eq!(gateway.ask(get("/mtls")).status, 200);
    assert_eq!(origin.handshakes()[0].client.as_deref(), Some(us.der().as_slice()));
    // Without one the origin refuses us.
    let origin = Origin::tls(server(), tests::origin::echo);
    let gateway = before(origin.address(), &[], authority.pem(), CA);
    assert_eq!(gateway.ask(get("/mtls")).status, 502);
}

#[test]
fn sessions_with_upstreams_are_resumed() {
    let authority = Authority::new("Upstreams");
    let identity = authority.server(&["127.0.0.1"]);
    let origin = Origin::tls(TlsServer::new(&identity, &["http/1.1"]), tests::origin::echo);
    let gateway = before(origin.address(), &[], authority.pem(), CA);
    for _ in 0..3 {
        assert_eq!(gateway.ask(get("/again")).status, 200);
        origin.hang_up();
    }
    let handshakes = origin.handshakes();
    assert!(handshakes.len() >= 3 && !handshakes[0].resumed);
    assert!(handshakes[1..].iter().all(|h| h.resumed), "{handshakes:?}");
}

#[test]
fn auto_takes_what_alpn_agrees_on() {
    let authority = Authority::new("Upstreams");
    let identity = authority.server(&["127.0.0.1"]);
    let scratch = || {
        let scratch = Scratch::new();
        scratch.file("ca.pem", authority.pem());
        scratch
    };
    let spec = |origin| Spec::to(origin).upstream(&format!("protocol: auto, tls: {{ {CA} }}"));
    let both = TlsServer::new(&identity, &["h2", "http/1.1"]);
    let h2 = H2Origin::tls(both, tests::http2::origin::echo);
    let gateway = Gateway::start_in(scratch(), &spec(h2.address()).text(), 1);
    assert_eq!(gateway.ask(get("/auto")).text(), "GET /auto\n");
    assert_eq!(h2.handshakes()[0].alpn.as_deref(), Some("h2"));
    for alpn in [&["http/1.1"][..], &[]] {
        let h1 = Origin::tls(TlsServer::new(&identity, alpn), tests::origin::echo);
        let gateway = Gateway::start_in(scratch(), &spec(h1.address()).text(), 1);
        assert_eq!(gateway.ask(get("/auto")).text(), "GET /auto\n", "{alpn:?}");
        assert_eq!(h1.last().version, "HTTP/1.1");
    }
}
