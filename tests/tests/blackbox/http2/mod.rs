//! HTTP/2 with clients (RFC 9113): what is announced, kept and drained. Over h2c, since TLS changes
//! nothing above it; `crossings` runs both.

mod abuse;
mod bad_input;
mod bad_origins;
mod limits;

use std::time::Duration;

use rustix::process::Signal;
use tests::http2::client::request;
use tests::http2::frame::*;
use tests::http2::{Broken, H2Client, H2Origin, Reply};
use tests::origin::echo;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Script, eventually, get};

/// One clear-text listener that speaks HTTP/2 by prior knowledge, everything to one h1 origin.
fn spec(origin: &Origin) -> Spec {
    Spec::to(origin.address()).listener("h2c: true")
}

/// The same to an h2 origin.
fn spec_h2(origin: &H2Origin) -> Spec {
    Spec::to(origin.address()).listener("h2c: true").upstream("protocol: http2")
}

#[test]
fn h2c_and_h1_share_a_listener() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    let answer = client.ask(&request("GET", "/h2"), b"");
    assert_eq!((answer.status, answer.text()), (200, "GET /h2\n".into()));
    assert_eq!(gateway.ask(get("/h1")).text(), "GET /h1\n");
    // RFC 9113 §8.2.2: nothing of h1's connection comes through; the strict client has seen to it.
    assert_eq!(origin.last().version, "HTTP/1.1");
}

#[test]
fn a_preface_on_a_listener_without_h2c_is_refused() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    client.send(PREFACE);
    // B-48: 400 to 505 and close.
    let response = client.response().unwrap();
    assert!(matches!(response.status, 400 | 505), "{}", response.head.start);
    client.assert_closed("B-48");
    // RFC 9113 §3.1: the upgrade mechanism of old is not offered.
    let response = gateway.ask(
        "GET /u HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    assert_eq!(response.text(), "GET /u\n");
}

#[test]
fn limits_are_announced() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    client.assert_alive("settings");
    let peer = &client.peer;
    assert_eq!(peer.setting(MAX_CONCURRENT_STREAMS, 0), 100);
    assert_eq!(peer.setting(MAX_HEADER_LIST_SIZE, 0), 32 * 1024);
    assert_eq!(peer.setting(MAX_FRAME_SIZE, 16_384), 16_384);
    assert_eq!(peer.setting(HEADER_TABLE_SIZE, 4096), 4096);

    // RFC 8441 §3: said where there is something to connect to.
    let sockets = Gateway::of(&spec(&origin).route("upgrades: [websocket]"));
    let mut client = H2Client::clear(sockets.address());
    client.assert_alive("settings");
    assert_eq!(client.peer.setting(ENABLE_CONNECT_PROTOCOL, 0), 1);

    let few =
        Gateway::of(&spec(&origin).listener("limits: { max_streams: 7, max_head_bytes: 9000 }"));
    let mut client = H2Client::clear(few.address());
    client.assert_alive("settings");
    assert_eq!(client.peer.setting(MAX_CONCURRENT_STREAMS, 0), 7);
    assert_eq!(client.peer.setting(MAX_HEADER_LIST_SIZE, 0), 9_000);
}

#[test]
fn a_hundred_streams_at_once_are_all_answered() {
    // Nobody is answered before everybody has asked.
    let origin = H2Origin::clear(|seen| {
        let body = format!("{} {}\n", seen.method(), seen.path());
        Reply::default()
            .sleep(Duration::from_millis(200))
            .head(&[(":status", "200")])
            .data(body)
            .end()
    });
    let gateway = Gateway::of(&spec_h2(&origin));
    let mut client = H2Client::clear(gateway.address());
    let paths: Vec<String> = (0..100).map(|n| format!("/{n}")).collect();
    let streams: Vec<u32> = paths.iter().map(|path| client.get(path)).collect();
    // Backwards, so that none is served because it is waited for.
    for (stream, path) in streams.iter().zip(&paths).rev() {
        let answer = client.answer(*stream).unwrap_or_else(|e| panic!("{path}: {e:?}"));
        assert_eq!(answer.text(), format!("GET {path}\n"));
    }
    // RFC 9113 §5.1.2 upstream, too: they were multiplexed.
    assert!(origin.accepted() <= 4, "{} upstream connections", origin.accepted());
}

#[test]
fn many_requests_in_a_row_on_one_connection() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    for n in 0..500 {
        let path = format!("/{n}");
        let answer = client.ask(&request("GET", &path), b"");
        assert_eq!(answer.text(), format!("GET {path}\n"));
    }
}

#[test]
fn one_stream_too_many_is_refused_retryably() {
    let origin = Origin::start(|seen| echo(seen).after(Duration::from_millis(300)));
    let gateway = Gateway::of(&spec(&origin).listener("limits: { max_streams: 5 }"));
    let mut client = H2Client::clear(gateway.address());
    client.assert_alive("warm");
    let streams: Vec<u32> = (0..6).map(|n| client.get(&format!("/{n}"))).collect();
    // B-57.
    let refused = client.answer(streams[5]);
    assert!(matches!(refused, Err(Broken::Reset(REFUSED_STREAM, _))), "B-57: {refused:?}");
    for stream in &streams[..5] {
        assert_eq!(client.answer(*stream).unwrap().status, 200);
    }
    client.assert_alive("B-57: after a refusal");
    assert_eq!(origin.completed(), 7, "B-57: the refused stream reached the origin");
}

#[test]
fn a_client_that_does_not_read_stops_the_origin() {
    const BODY: usize = 16 << 20;
    let origin = H2Origin::clear(|_| {
        Reply::default().head(&[(":status", "200")]).data(vec![7u8; BODY]).end()
    });
    let gateway = Gateway::of(&spec_h2(&origin));
    let mut client = H2Client::clear(gateway.address());
    client.peer.generous = false;
    let stream = client.get("/large");
    assert!(client.until(PATIENCE, |client| client.peer.received == 65_535), "the first window");
    // The gateway may hold a window of each side and the kernels their buffers, not the body.
    let mut before = usize::MAX;
    let still = eventually(PATIENCE, || {
        std::thread::sleep(Duration::from_millis(300));
        let now = origin.sent();
        std::mem::replace(&mut before, now) == now
    });
    assert!(still && origin.sent() < BODY / 2, "{} bytes were sent", origin.sent());
    // Another stream of the same connection would wait for the connection's window; another
    // connection must not.
    let mut other = H2Client::clear(gateway.address());
    assert_eq!(other.ask(&request("GET", "/other"), b"").body.len(), BODY);
    // Reading on brings the rest.
    client.peer.generous = true;
    client.peer.grant(0, 65_535);
    client.peer.grant(stream, 65_535);
    let answer = client.answer(stream).unwrap();
    assert!(answer.body.len() == BODY && answer.body.iter().all(|&b| b == 7));
}

#[test]
fn a_slow_reader_gets_everything_within_its_windows() {
    let body: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let sent = body.clone();
    let origin = Origin::start(move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len());
        Script::default().send([head.as_bytes(), &sent].concat())
    });
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear_with(gateway.address(), &[(INITIAL_WINDOW_SIZE, 1)]);
    client.peer.generous = false;
    let stream = client.get("/slow");
    // The strict client fails on a byte beyond what it granted.
    assert!(client.until(PATIENCE, |client| client.peer.received == 1));
    for step in [10u32, 100, 1_000, 50_000, 200_000] {
        let from = client.peer.received;
        client.peer.grant(0, step);
        client.peer.grant(stream, step);
        let most = from + u64::from(step);
        let there =
            |client: &H2Client| client.peer.received == most || client.peer.received == 200_000;
        assert!(client.until(PATIENCE, there), "after {step}: {}", client.peer.received);
    }
    assert_eq!(client.answer(stream).unwrap().body, body);
}

#[test]
fn an_origin_that_does_not_read_stops_the_client() {
    // It grants its first window and no more.
    let origin = Origin::raw(|mut wire, _| {
        let _ = wire.head();
        std::thread::sleep(Duration::from_secs(5));
    });
    let gateway = Gateway::of(&spec(&origin).route("max_body_bytes: 1GiB"));
    let mut client = H2Client::clear(gateway.address());
    let mut fields = request("POST", "/upload");
    fields.push(("content-length", "1000000000"));
    let stream = client.begin(&fields, false);
    let block = vec![0u8; 16_384];
    let mut sent = 0usize;
    // Until a second passes without room.
    loop {
        let n = client.peer.send_some(stream, &block, false);
        sent += n;
        assert!(sent < 100 << 20, "{sent} bytes were taken");
        if n == 0 && client.pump(Duration::from_secs(1)).is_err() {
            break;
        }
    }
    assert!(sent >= 65_535, "only {sent} bytes were taken");
}

#[test]
fn a_reset_cancels_the_upstream_request() {
    let origin = H2Origin::clear(|seen| match seen.path() {
        "/wait" => Reply::default().sleep(Duration::from_secs(60)),
        "/drip" => {
            Reply::default().head(&[(":status", "200")]).data("one").sleep(Duration::from_secs(60))
        }
        _ => tests::http2::origin::echo(seen),
    });
    let gateway = Gateway::of(&spec_h2(&origin));
    let mut client = H2Client::clear(gateway.address());
    for path in ["/wait", "/drip"] {
        let stream = client.get(path);
        origin.await_one("asked", |seen| seen.path() == path);
        if path == "/drip" {
            assert!(client.until(PATIENCE, |client| client.so_far(stream).body == b"one"));
        }
        client.send(&Frame::reset(stream, CANCEL));
        origin.await_one("cancelled", |seen| seen.path() == path && seen.reset.is_some());
    }
    client.assert_alive("after resets");

    // Over h1 the only way to cancel is to close.
    let h1 = Origin::raw(|mut wire, _| {
        let _ = wire.head();
        // FIN or RST ends this.
        let _ = wire.until_close(&mut |_| {});
    });
    let gateway = Gateway::of(&spec(&h1));
    let mut client = H2Client::clear(gateway.address());
    let stream = client.get("/wait");
    assert!(eventually(PATIENCE, || h1.open() == 1));
    client.send(&Frame::reset(stream, CANCEL));
    assert!(eventually(PATIENCE, || h1.open() == 0), "the upstream connection stays open");
}

#[test]
fn a_reset_inside_a_body_never_completes_it_upstream() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    let stream = client.begin(&request("POST", "/half"), false);
    client.body(stream, b"half", false).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    client.send(&Frame::reset(stream, CANCEL));
    client.assert_alive("after a reset");
    origin.await_seen(1);
    let half = origin.seen().into_iter().find(|seen| seen.target == "/half");
    assert!(half.is_none_or(|seen| !seen.complete), "a half request was completed");
}

#[test]
fn a_drain_says_goaway_and_finishes_streams() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/slow" => echo(seen).after(Duration::from_millis(1_500)),
        _ => echo(seen),
    });
    let mut gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    client.assert_alive("warm");
    let slow = client.get("/slow");
    let upload = client.begin(&request("POST", "/upload"), false);
    origin.await_seen(2);
    gateway.signal(Signal::TERM);
    assert!(client.until(PATIENCE, |client| !client.goaways.is_empty()), "no GOAWAY");
    // RFC 9113 §6.8: no error, and no open stream is left out.
    assert!(client.goaways.iter().all(|&(last, code)| code == NO_ERROR && last >= upload));
    client.body(upload, b"rest", true).unwrap();
    assert_eq!(client.answer(upload).unwrap().text(), "POST /upload\n");
    assert_eq!(client.answer(slow).unwrap().text(), "GET /slow\n");
    assert_eq!(client.close_code(PATIENCE), Ok(Some(NO_ERROR)));
    assert!(gateway.wait(PATIENCE).is_some(), "the gateway does not end");
}

#[test]
fn an_idle_connection_is_closed_with_goaway() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin).listener("limits: { idle_timeout_ms: 500 }"));
    let mut client = H2Client::clear(gateway.address());
    client.assert_alive("warm");
    assert_eq!(client.close_code(PATIENCE), Ok(Some(NO_ERROR)));
    // So is one that says nothing after the preface, and one that stops inside it.
    let mut silent = H2Client::clear(gateway.address());
    assert!(silent.close_code(PATIENCE).is_ok());
    let mut half = gateway.connect();
    half.send(&PREFACE[..20]);
    half.patience(PATIENCE);
    let _ = half.response();
    half.assert_closed("half a preface");
}
