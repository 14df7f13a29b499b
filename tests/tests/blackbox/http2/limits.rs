//! Bounds of size and time that HTTP/2 clients meet: bodies, heads, requests, silence.

use std::time::Duration;

use tests::http2::client::request;
use tests::http2::frame::*;
use tests::http2::{Broken, H2Client};
use tests::{Gateway, Origin, PATIENCE, eventually};

use super::spec;

#[test]
fn bodies_beyond_the_limit_are_413() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin).route("max_body_bytes: 1000"));
    let mut client = H2Client::clear(gateway.address());
    // B-46: by its length, before a byte of it was sent.
    let mut fields = request("POST", "/declared");
    fields.push(("content-length", "1001"));
    let stream = client.begin(&fields, false);
    assert_eq!(client.answer(stream).unwrap().status, 413, "B-46");
    client.assert_alive("B-46");
    // By what comes.
    let stream = client.begin(&request("POST", "/streamed"), false);
    for _ in 0..4 {
        client.body(stream, &[b'x'; 400], false).unwrap();
    }
    match client.answer(stream) {
        Ok(answer) => assert_eq!(answer.status, 413, "B-46"),
        other => assert!(matches!(other, Err(Broken::Reset(..))), "B-46: {other:?}"),
    }
    client.assert_alive("B-46");
    // Up to the limit all is well.
    assert_eq!(client.ask(&request("POST", "/fits"), &[b'x'; 1000]).status, 200);
    let whole = |seen: &tests::Seen| seen.complete && seen.target == "/streamed";
    assert!(!origin.seen().iter().any(whole), "B-46: completed upstream");
    assert!(!origin.received("/declared"), "B-46");
}

#[test]
fn a_connection_serves_so_many_requests() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin).listener("limits: { max_requests: 5 }"));
    let mut client = H2Client::clear(gateway.address());
    for n in 0..5 {
        let path = format!("/{n}");
        assert_eq!(client.ask(&request("GET", &path), b"").text(), format!("GET {path}\n"));
    }
    // RFC 9113 §6.8: told by GOAWAY, so that nothing is lost.
    assert_eq!(client.close_code(PATIENCE), Ok(Some(NO_ERROR)));
    assert_eq!(origin.completed(), 5);
}

#[test]
fn a_head_that_never_ends_is_not_waited_for() {
    let origin = Origin::echo();
    let gateway = Gateway::of(
        &spec(&origin).listener("limits: { header_timeout_ms: 400, idle_timeout_ms: 60000 }"),
    );
    // Before the preface is whole, between HEADERS and CONTINUATION, and inside a frame.
    let mut preface = gateway.connect();
    preface.send(&PREFACE[..10]);
    let _ = preface.response();
    preface.assert_closed("half a preface");
    let block = block(&request("GET", "/never"));
    let half = Frame::new(HEADERS, END_STREAM, 1, block.clone());
    let inside = Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, block).encode();
    for (what, bytes) in [("a half block", half.encode()), ("a half frame", inside[..20].to_vec())]
    {
        let mut client = H2Client::clear(gateway.address());
        client.peer.write(&bytes);
        assert!(client.close_code(PATIENCE).is_ok(), "{what}: waited for");
    }
    // One byte at a time is no progress either.
    let mut client = H2Client::clear(gateway.address());
    let slow = Frame::new(HEADERS, END_STREAM, 1, super::block(&request("GET", "/never"))).encode();
    client.peer.write(&slow);
    let closed = eventually(PATIENCE, || {
        let empty = Frame::new(CONTINUATION, 0, 1, []);
        std::thread::sleep(Duration::from_millis(100));
        !client.peer.send(&empty) || client.close_code(Duration::from_millis(1)).is_ok()
    });
    assert!(closed, "a head that dribbles is waited for");
    assert!(!origin.received("/never"));
}

#[test]
fn a_later_head_has_no_more_time() {
    let origin = Origin::echo();
    let gateway = Gateway::of(
        &spec(&origin).listener("limits: { header_timeout_ms: 400, idle_timeout_ms: 60000 }"),
    );
    let fields = request("GET", "/never");
    let half = Frame::new(HEADERS, END_STREAM, 5, block(&fields)).encode();
    let inside = Frame::new(HEADERS, END_HEADERS | END_STREAM, 5, block(&fields)).encode();
    let ping = Frame::new(PING, 0, 0, [7; 8]).encode();
    for (what, bytes) in [
        ("a half block", &half[..]),
        ("a half frame", &inside[..20]),
        ("a half frame header", &inside[..4]),
        ("a half PING", &ping[..12]),
    ] {
        let mut client = H2Client::clear(gateway.address());
        client.assert_alive(what);
        // A request under way makes no difference.
        let upload = client.begin(&request("POST", "/under-way"), false);
        client.body(upload, b"some", false).unwrap();
        client.peer.write(bytes);
        assert_eq!(client.close_code(PATIENCE), Ok(Some(ENHANCE_YOUR_CALM)), "{what}");
    }
    assert!(!origin.received("/never"));

    // One that ends in time is forgotten.
    let mut client = H2Client::clear(gateway.address());
    client.assert_alive("before");
    for part in [&ping[..4], &ping[4..]] {
        client.peer.write(part);
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(900));
    client.assert_alive("after");
    assert!(client.goaways.is_empty());
}

#[test]
fn a_body_that_stops_is_given_up() {
    let origin = Origin::echo();
    let gateway = Gateway::of(
        &spec(&origin).listener("limits: { idle_timeout_ms: 500, write_timeout_ms: 500 }"),
    );
    let mut client = H2Client::clear(gateway.address());
    let mut fields = request("POST", "/stopped");
    fields.push(("content-length", "100"));
    let stream = client.begin(&fields, false);
    client.body(stream, b"half", false).unwrap();
    // B-43: 408, a reset or the end; never a request that looks whole. (By the body's rate, judged
    // over ten seconds.)
    match client.await_answer(stream, PATIENCE * 2) {
        Ok(answer) => assert!(matches!(answer.status, 408 | 504 | 502), "{answer:?}"),
        Err(Broken::Reset(..) | Broken::GoAway(_) | Broken::Closed) => {}
        other => panic!("B-43: {other:?}"),
    }
    assert!(!origin.seen().iter().any(|seen| seen.complete), "B-43: completed upstream");
}

#[test]
fn a_client_that_reads_nothing_is_given_up() {
    let origin = Origin::start(|_| {
        let body = vec![b'x'; 2 << 20];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        tests::Script::default().send([head.as_bytes(), &body].concat())
    });
    let gateway = Gateway::of(&spec(&origin).listener("limits: { write_timeout_ms: 600 }"));
    let mut client = H2Client::clear(gateway.address());
    client.peer.generous = false;
    let stream = client.get("/large");
    // It takes its first window and grants no more (faults row 20).
    assert!(client.until(PATIENCE, |client| client.peer.received == 65_535));
    match client.await_answer(stream, PATIENCE * 2) {
        Err(Broken::Reset(..) | Broken::GoAway(_) | Broken::Closed) => {}
        other => panic!("{other:?}"),
    }
    assert!(eventually(PATIENCE, || origin.open() == 0), "the upstream connection is held");
}

#[test]
fn requests_are_not_mixed_up() {
    // Bodies of many streams, cut into each other, answered out of order.
    let origin = Origin::start(|seen| {
        let body = seen.body.clone();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let pause = Duration::from_millis(seen.target.len() as u64 * 7 % 40);
        tests::Script::default().send([head.as_bytes(), &body].concat()).after(pause)
    });
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    let streams: Vec<(u32, u8)> = (0..40u8)
        .map(|n| (client.begin(&request("POST", &"/x".repeat(usize::from(n) + 1)), false), n))
        .collect();
    for round in 0..5 {
        for &(stream, n) in &streams {
            client.body(stream, &vec![n; 200 + usize::from(n)], round == 4).unwrap();
        }
    }
    for &(stream, n) in streams.iter().rev() {
        let answer = client.answer(stream).unwrap_or_else(|e| panic!("stream {stream}: {e:?}"));
        assert_eq!(answer.body, vec![n; 5 * (200 + usize::from(n))], "stream {stream}");
    }
}
