//! Sessions resumed (RFC 8446 §2.2) across shards, restarts and deaths; early data (RFC 8470).

use rustls::ProtocolVersion;
use tests::spec::Spec;
use tests::{Authority, Client, Origin, PATIENCE, TlsClient, eventually, get};

use super::{Edge, ask, edge, entry};

fn setup(settings: &str, spec: impl Fn(Spec) -> Spec) -> (Edge, Origin, TlsClient) {
    let authority = Authority::new("Resumption");
    let site = authority.server(&["a.test"]);
    let origin = Origin::echo();
    let spec = spec(Spec::to(origin.address()));
    let edge = edge(spec, &[("site", &site)], settings, &[entry("site", "")]);
    let tls = TlsClient::new(&authority, "a.test").resuming();
    (edge, origin, tls)
}

/// One connection with a request, after which the tickets are there; whether it was resumed.
fn visit(edge: &Edge, tls: &TlsClient) -> Result<bool, String> {
    let (stream, agreed) = tls.connect(edge.address).map_err(|e| e.to_string())?;
    let mut client = Client::over(stream);
    client.send(get("/v"));
    let response = client.response().map_err(|e| format!("{e:?}"))?;
    if response.status == 200 { Ok(agreed.resumed) } else { Err(response.head.start) }
}

#[test]
fn sessions_resume_on_any_shard() {
    for (version, settings) in
        [(ProtocolVersion::TLSv1_3, ""), (ProtocolVersion::TLSv1_2, "min_version: \"1.2\"")]
    {
        let (edge, _origin, tls) = setup(settings, |spec| spec);
        let tls = tls.only(version);
        assert_eq!(visit(&edge, &tls), Ok(false), "{version:?}: the first");
        for n in 0..30 {
            assert_eq!(visit(&edge, &tls), Ok(true), "{version:?}: connection {n}");
        }
    }
}

#[test]
fn sessions_outlive_the_engine_and_control() {
    let (edge, _origin, tls) = setup("", |spec| spec);
    assert_eq!(visit(&edge, &tls), Ok(false));
    assert_eq!(visit(&edge, &tls), Ok(true));
    edge.gateway.kill("engine");
    let mut resumed = None;
    // What was being accepted as it died may fail; the next is served.
    assert!(eventually(PATIENCE, || {
        resumed = visit(&edge, &tls).ok();
        resumed.is_some()
    }));
    assert_eq!(resumed, Some(true), "after the engine's death");
    let old = edge.gateway.kill("control");
    assert_eq!(visit(&edge, &tls), Ok(true), "without control");
    let back = || edge.gateway.find("control").is_some_and(|pid| pid != old);
    assert!(eventually(PATIENCE, back));
    assert!(eventually(PATIENCE, || edge.gateway.is_ready()));
    for n in 0..10 {
        assert_eq!(visit(&edge, &tls), Ok(true), "connection {n} after control's restart");
    }
}

#[test]
fn forged_and_foreign_tickets_are_no_sessions() {
    let (edge, _origin, tls) = setup("", |spec| spec);
    assert_eq!(visit(&edge, &tls), Ok(false));
    // Another gateway has other keys: its tickets mean nothing here, and hurt nobody.
    let (other, _other_origin, _) = setup("", |spec| spec);
    let there = tls.connect(other.address);
    assert!(there.is_err(), "another authority's certificate was taken");
    assert_eq!(visit(&edge, &tls), Ok(true));
}

#[test]
fn the_hit_rate_is_in_the_metrics() {
    let (edge, _origin, tls) = setup("", |spec| spec);
    for _ in 0..5 {
        visit(&edge, &tls).unwrap();
    }
    let (_, text) = edge.gateway.admin("/metrics");
    let lines: Vec<&str> =
        text.lines().filter(|line| line.contains("handshake") && !line.starts_with('#')).collect();
    assert!(lines.iter().any(|line| line.contains("resumed")), "{lines:?}");
}

const EARLY: &str = "early_data: 16KiB";

/// A route that takes early data, and the rest that does not.
fn early_routes(spec: Spec) -> Spec {
    spec.also_route(
        "{ name: early, match: { path: { prefix: /early } }, upstream: origin, early_data: true }",
    )
}

/// Sends `text` as early data after a visit; whether it was taken, and the answer's status.
fn early(edge: &Edge, tls: &TlsClient, text: &str) -> (bool, u16) {
    visit(edge, tls).unwrap();
    let (stream, taken) = tls
        .connect_early(edge.address, text.as_bytes())
        .unwrap_or_else(|e| panic!("early data: {e}"));
    let mut client = Client::over(stream);
    if !taken {
        // RFC 8446 §4.2.10: what was not taken is sent again.
        client.send(text);
    }
    let response = client.response().unwrap_or_else(|e| panic!("{text:?}: {e:?}"));
    (taken, response.status)
}

#[test]
fn early_data_is_a_policy() {
    let (edge, origin, tls) = setup(EARLY, early_routes);
    let tls = tls.early();
    let field = |path: &str| {
        let seen = origin.seen();
        let seen = seen.into_iter().rev().find(|seen| seen.target == path).expect("forwarded");
        seen.field("early-data").map(str::to_owned)
    };
    assert_eq!(early(&edge, &tls, &get("/early")), (true, 200));
    // RFC 8470 §5.1.
    assert_eq!(field("/early").as_deref(), Some("1"));
    // Not on this route, and nothing with effects on any (§5.2).
    for text in [
        get("/late"),
        "POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n".into(),
        "PUT /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi".into(),
        "DELETE /early HTTP/1.1\r\nHost: a.test\r\n\r\n".into(),
    ] {
        let before = origin.completed();
        assert_eq!(early(&edge, &tls, &text), (true, 425), "{text:?}");
        // The visit itself is one.
        assert_eq!(origin.completed(), before + 1, "{text:?} was forwarded");
    }
    // After the handshake the same is served, and nothing is said of early data; what a client says
    // of it is passed on, since it may be a proxy itself (§5.1).
    let whole = ask(edge.address, &tls, &get("/late")).unwrap();
    assert_eq!(whole.status, 200);
    assert_eq!(field("/late"), None);
}

#[test]
fn early_data_is_off_by_default() {
    let (edge, origin, tls) = setup("", early_routes);
    let tls = tls.early();
    visit(&edge, &tls).unwrap();
    // No ticket allows it, so the client cannot even try.
    let tried = tls.connect_early(edge.address, get("/early").as_bytes());
    assert!(tried.is_err() || tried.is_ok_and(|(_, taken)| !taken), "early data was taken");
    assert!(!origin.received("early-data") && !origin.received("Early-Data"));
}

#[test]
fn early_data_beyond_its_limit_is_refused() {
    let (edge, _origin, tls) = setup("early_data: 1KiB", early_routes);
    let tls = tls.early();
    visit(&edge, &tls).unwrap();
    let large = format!("GET /early HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "x".repeat(4_000));
    // rustls sends no more than the ticket allows; the rest follows the handshake.
    match tls.connect_early(edge.address, large.as_bytes()) {
        Ok((stream, _)) => {
            let mut client = Client::over(stream);
            client.patience(std::time::Duration::from_millis(300));
            assert!(client.response().is_err(), "a part of a request was answered");
        }
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WriteZero, "{e}"),
    }
    assert_eq!(visit(&edge, &tls).map(|_| ()), Ok(()));
}
