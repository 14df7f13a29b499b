use std::time::Duration;

use super::client::request;
use super::*;

#[test]
fn client_and_origin_understand_each_other() {
    let origin = H2Origin::clear(|seen| match seen.path() {
        "/trailers" => Reply::default()
            .request()
            .head(&[(":status", "200")])
            .data("hello")
            .last(&[("x-t", "1")]),
        "/reset" => Reply::default().reset(CANCEL),
        "/echo" => Reply::default().head(&[(":status", "200")]).echo(),
        _ => origin::echo(seen),
    });
    let mut client = H2Client::clear(origin.address());
    let first = client.get("/1");
    let second = client.get("/trailers");
    assert_eq!(client.answer(second).unwrap().trailer("x-t"), Some("1"));
    assert_eq!(client.answer(first).unwrap().text(), "GET /1\n");
    let reset = client.get("/reset");
    assert!(matches!(client.answer(reset), Err(Broken::Reset(CANCEL, _))));
    // Larger than every window.
    let body = vec![7u8; 300_000];
    let echoed = client.ask(&request("POST", "/echo"), &body);
    assert_eq!(echoed.body, body);
    let head = client.ask(&request("HEAD", "/h"), b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(origin.count(), 5);
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_reader_that_grants_nothing_stops_the_origin() {
    let origin = H2Origin::clear(|_| {
        Reply::default().head(&[(":status", "200")]).data(vec![1u8; 1 << 20]).end()
    });
    let mut client = H2Client::clear(origin.address());
    client.peer.generous = false;
    let stream = client.get("/");
    let whole = client.until(Duration::from_millis(300), |client| client.peer.received > 65_535);
    assert!(!whole);
    assert_eq!(client.so_far(stream).body.len(), 65_535);
    assert_eq!(origin.sent(), 65_535);
}

#[test]
fn loose_answers_are_errors() {
    let origin = H2Origin::clear(|seen| match seen.path() {
        "/length" => Reply::default()
            .head(&[(":status", "200"), ("content-length", "9")])
            .data("hello")
            .end(),
        "/upper" => Reply::default().last(&[(":status", "200"), ("X-Upper", "1")]),
        "/hop" => Reply::default().last(&[(":status", "200"), ("connection", "close")]),
        "/late" => Reply::default().last(&[("a", "b"), (":status", "200")]),
        "/zero" => Reply::default().raw(Frame::window_update(0, 0)),
        _ => {
            Reply::default().head(&[(":status", "200")]).raw(Frame::data(1, vec![0; 70_000], true))
        }
    });
    for path in ["/length", "/upper", "/hop", "/late", "/zero", "/window"] {
        let mut client = H2Client::clear(origin.address());
        let stream = client.get(path);
        let answer = client.answer(stream);
        assert!(matches!(answer, Err(Broken::Malformed(_))), "{path}: {answer:?}");
    }
}
