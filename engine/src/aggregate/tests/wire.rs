//! Aggregates over real sockets: a shard, an origin that answers by path, and clients.

#![allow(clippy::disallowed_methods, reason = "a test is the peer of the gateway")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::snapshot::{AggregateBody, CallMode, Route, Snapshot, Target, Upstream};

use super::*;
use crate::testing::{Reply as Head, gateway, read_head};

type Seen = Arc<Mutex<Vec<String>>>;

/// An origin: for a path how long it takes, the status, fields and the body.
fn origin(
    answers: &'static [(&'static str, u64, u16, &'static str, &'static str)],
) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let told = seen.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let told = told.clone();
            std::thread::spawn(move || {
                while let Some(head) = read_head(&mut stream) {
                    let length = crate::testing::field(&head, "content-length");
                    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                    stream.read_exact(&mut body).unwrap();
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    told.lock().unwrap().push(head + &String::from_utf8_lossy(&body));
                    let (_, ms, status, fields, body) = answers
                        .iter()
                        .find(|(own, ..)| path.starts_with(own))
                        .copied()
                        .unwrap_or(("", 0, 404, "", "{}"));
                    std::thread::sleep(Duration::from_millis(ms));
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 {status} \r\n{fields}Content-Length: {length}\r\n\r\n{body}"
                    );
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, seen)
}

fn snapshot(origin: SocketAddr, from: snapshot::Aggregate) -> Snapshot {
    let target = Target { address: origin, name: origin.to_string(), ..Target::default() };
    let upstream = Upstream { name: "u".into(), targets: vec![target], ..Upstream::default() };
    let route = Route {
        name: "r".into(),
        max_body_bytes: 1 << 20,
        aggregate: Some(Box::new(from)),
        ..Route::default()
    };
    Snapshot { upstreams: vec![upstream], routes: vec![route], ..Snapshot::default() }
}

/// Sends all of `requests` at once on one connection, and reads as many answers.
fn answers(gateway: SocketAddr, requests: &[&str]) -> Vec<(Head, String)> {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(requests.concat().as_bytes()).unwrap();
    let one = |_| {
        let head = Head(read_head(&mut stream).expect("an answer"));
        let mut body = vec![0; head.only("content-length").parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        (head, String::from_utf8(body).unwrap())
    };
    requests.iter().map(one).collect()
}

/// The answers of a gateway with one aggregate to some requests, and what the origin saw.
fn exchange(
    origin_answers: &'static [(&'static str, u64, u16, &'static str, &'static str)],
    from: snapshot::Aggregate,
    requests: &'static [&'static str],
) -> (Vec<(Head, String)>, Vec<String>) {
    let (address, seen) = origin(origin_answers);
    let told: Arc<Mutex<Vec<(Head, String)>>> = Arc::default();
    let tell = told.clone();
    gateway(snapshot(address, from), move |gateway| {
        *tell.lock().unwrap() = answers(gateway, requests);
    });
    let told = std::mem::take(&mut *told.lock().unwrap());
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (told, seen)
}

const GET: &str =
    "GET /shop?lang=de&token=s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer s\r\n\r\n";

#[test]
fn an_answer_of_three_parts() {
    let mut from = aggregate(vec![
        call("user", "/user"),
        call("orders", "/orders/${call.user.body.id}"),
        optional("offers", "/offers"),
    ]);
    http(&mut from.calls[2]).forward_query = vec!["lang".into()];
    from.server_timing = true;
    let (told, seen) = exchange(
        &[
            ("/user", 0, 200, "Cache-Control: max-age=60\r\n", r#"{"id":9007199254740993}"#),
            ("/orders/9007199254740993", 0, 200, "Cache-Control: max-age=5\r\n", "[1.0]"),
            ("/offers?lang=de", 0, 200, "Cache-Control: max-age=9\r\nSet-Cookie: a=b\r\n", "[]"),
        ],
        from,
        &[GET, GET],
    );
    for (head, body) in &told {
        assert_eq!(head.status(), 200);
        assert_eq!(body, r#"{"user":{"id":9007199254740993},"orders":[1.0],"offers":[]}"#);
        assert_eq!(head.only("sluice-complete"), "true");
        assert_eq!(head.only("cache-control"), "max-age=5");
        assert_eq!(head.only("content-type"), "application/json");
        assert!(head.only("server-timing").starts_with("user;dur="));
        assert!(head.all("set-cookie").is_empty());
    }
    assert_eq!(seen.len(), 6);
    for head in seen {
        assert!(!head.contains("Bearer") && !head.contains("token"), "{head}");
        assert!(head.to_ascii_lowercase().contains("\r\nvia:"), "{head}");
    }
}

#[test]
fn an_incomplete_answer_says_so_and_is_not_stored() {
    let from = aggregate(vec![call("user", "/user"), optional("offers", "/offers")]);
    let (told, _) = exchange(
        &[
            ("/user", 0, 200, "Cache-Control: max-age=60\r\n", "{}"),
            ("/offers", 0, 500, "", "secret"),
        ],
        from,
        &[GET],
    );
    let (head, body) = &told[0];
    assert_eq!(body, r#"{"user":{},"errors":[{"call":"offers","reason":"status","status":500}]}"#);
    assert_eq!((head.status(), head.only("sluice-complete")), (200, "false"));
    assert_eq!(head.only("cache-control"), "no-store");
}

#[test]
fn failures_have_the_right_status_and_the_connection_stays() {
    let mut from = aggregate(vec![optional("a", "/a"), optional("b", "/b")]);
    let (told, _) =
        exchange(&[("/a", 0, 500, "", ""), ("/b", 0, 200, "", "<")], from.clone(), &[GET]);
    assert_eq!(told[0].0.status(), 502, "never 200 with nothing");
    from.deadline_ms = 50;
    from.calls[0].mode = CallMode::Required;
    let (told, _) =
        exchange(&[("/a", 5_000, 200, "", "1"), ("/b", 0, 200, "", "1")], from, &[GET, GET]);
    for (head, body) in told {
        assert_eq!((head.status(), head.only("sluice-complete")), (504, "false"));
        assert!(body.contains(r#""errors":[{"call":"a","reason":"deadline_exceeded"}]"#), "{body}");
        assert_eq!(head.only("content-type"), "application/problem+json");
    }
    let from = aggregate(vec![call("a", "/a")]);
    let (told, _) = exchange(&[("/a", 0, 404, "", "")], from, &[GET]);
    assert_eq!(told[0].0.status(), 404);
}

#[test]
fn the_requests_body_is_there_for_templates() {
    let mut from = aggregate(vec![call("a", "/a/${body.id}")]);
    let one = http(&mut from.calls[0]);
    one.method = "PUT".into();
    one.body = Some(r#"{"n":"${body.n}","x":"${body.x}","all":"${body}"}"#.into());
    let (told, seen) = exchange(
        &[("/a/7", 0, 200, "", "1")],
        from,
        &[
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 19\r\n\r\n{\"id\":7,\"n\":[1.50]}",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n{",
        ],
    );
    assert_eq!((told[0].0.status(), &*told[0].1), (200, r#"{"a":1}"#));
    assert_eq!(told[1].0.status(), 400);
    assert_eq!(seen.len(), 1);
    assert!(seen[0].starts_with("PUT /a/7 "), "{}", seen[0]);
    assert!(seen[0].ends_with(r#"{"n":[1.50],"all":{"id":7,"n":[1.50]}}"#), "{}", seen[0]);
}

#[test]
fn a_body_that_nobody_asks_for_is_no_request() {
    let from = aggregate(vec![call("a", "/a")]);
    let (told, seen) = exchange(
        &[("/a", 0, 200, "", "1")],
        from,
        &[
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
            GET,
        ],
    );
    assert_eq!(told.len(), 2);
    assert_eq!(seen.len(), 2);
}

#[test]
fn head_has_the_length_and_no_body() {
    let mut from = aggregate(vec![call("a", "/a")]);
    from.response.body = AggregateBody::Template(r#"{"a":"${call.a.body}"}"#.into());
    from.response.headers = vec![("x-a".into(), "${call.a.header.x-b}".into())];
    from.response.status = 203;
    let (address, _) = origin(&[("/a", 0, 200, "X-B: c\r\n", "1")]);
    gateway(snapshot(address, from), |gateway| {
        let head = crate::testing::ask(gateway, "HEAD /", "");
        assert_eq!((head.status(), head.only("content-length")), (203, "7"));
        assert_eq!(head.only("x-a"), "c");
    });
}

#[test]
fn what_clients_leave_is_given_up() {
    let from = aggregate(vec![call("a", "/a"), call("b", "/b/${call.a.body}")]);
    let (address, seen) = origin(&[("/a", 300, 200, "", "1"), ("/b", 0, 200, "", "1")]);
    gateway(snapshot(address, from), |gateway| {
        let mut stream = TcpStream::connect(gateway).unwrap();
        stream.write_all([GET, GET].concat().as_bytes()).unwrap();
        // With an answer that nobody has read the close is a reset.
        std::thread::sleep(Duration::from_millis(500));
        drop(stream);
        std::thread::sleep(Duration::from_millis(500));
    });
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3, "nobody waits for the second call of the second request");
}

#[test]
fn parts_are_streamed_as_they_come() {
    let mut from = aggregate(vec![call("a", "/a"), optional("b", "/b"), optional("c", "/c")]);
    from.stream = true;
    let (address, _) =
        origin(&[("/a", 80, 200, "", "1"), ("/b", 0, 200, "", "[2]"), ("/c", 40, 500, "", "")]);
    gateway(snapshot(address, from), |gateway| {
        let mut stream = TcpStream::connect(gateway).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let head = Head(read_head(&mut stream).unwrap());
        assert_eq!((head.status(), head.only("content-type")), (200, "application/x-ndjson"));
        let mut body = String::new();
        stream.read_to_string(&mut body).unwrap();
        let lines: Vec<&str> = body.lines().filter(|line| line.starts_with('{')).collect();
        assert_eq!(
            lines,
            [
                r#"{"call":"b","status":200,"body":[2]}"#,
                r#"{"call":"c","error":{"call":"c","reason":"status","status":500}}"#,
                r#"{"call":"a","status":200,"body":1}"#,
                r#"{"complete":false,"errors":[{"call":"c","reason":"status","status":500}]}"#,
            ]
        );
    });
}

#[test]
fn a_stream_that_fails_before_its_first_line_has_a_status() {
    let mut from = aggregate(vec![call("a", "/a"), call("b", "/b")]);
    from.stream = true;
    let (told, _) = exchange(&[("/a", 0, 404, "", "1"), ("/b", 300, 200, "", "1")], from, &[GET]);
    assert_eq!((told[0].0.status(), told[0].0.only("sluice-complete")), (404, "false"));
}
