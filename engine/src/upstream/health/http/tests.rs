#![allow(clippy::disallowed_methods, reason = "a test is the peer of the reactor")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use contract::snapshot::Protocol;

use super::*;
use crate::http2::{Config, Event};
use crate::io::tests::{listener, shard, small};

/// What becomes of a connection behind an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Keep,
    Close,
    /// The next request is taken, and the connection ends without an answer to it.
    Drop,
    /// Neither bytes nor an end.
    Hang,
}

/// A target that answers all requests alike.
#[derive(Clone)]
struct Origin {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Origin {
    fn start(serve: impl Fn(&Origin, TcpStream) + Clone + Send + 'static) -> Origin {
        let (listener, address) = listener();
        let origin = Origin { address, requests: Arc::default(), connections: Arc::default() };
        let copy = origin.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (origin, serve, stream) = (copy.clone(), serve.clone(), stream.unwrap());
                origin.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || serve(&origin, stream));
            }
        });
        origin
    }

    fn http1(answer: impl Into<Vec<u8>>, then: Then) -> Origin {
        let answer = answer.into();
        Origin::start(move |origin, mut stream| {
            while let Some(request) = read_head(&mut stream) {
                origin.requests.lock().unwrap().push(request);
                // Two writes: the answer may come in pieces.
                let (a, b) = answer.split_at(answer.len() / 2);
                let _ = stream.write_all(a).and_then(|()| stream.write_all(b));
                match then {
                    Then::Keep => {}
                    Then::Close => return,
                    Then::Drop => return drop(read_head(&mut stream)),
                    Then::Hang => return drop(stream.read(&mut [0; 100])),
                }
            }
        })
    }

    /// Knows one status and one body for all.
    fn http2(status: u16, body: &'static [u8]) -> Origin {
        Origin::start(move |origin, mut stream| {
            let mut connection = crate::http2::Connection::new(Config::SERVER);
            let (mut events, mut buf) = (VecDeque::new(), [0; 4096]);
            loop {
                while let Some(out) = connection.take_output(Vec::new()) {
                    stream.write_all(&out).unwrap();
                }
                let Ok(len @ 1..) = stream.read(&mut buf) else { return };
                connection.receive(Chunk::copy_of(&buf[..len]), 0, &mut events).unwrap();
                while let Some(event) = events.pop_front() {
                    let Event::Head { stream: id, block, .. } = event else { continue };
                    let lines = block.iter().map(|(name, value)| {
                        [name, b"=", value].concat().escape_ascii().to_string()
                    });
                    origin.requests.lock().unwrap().push(lines.collect::<Vec<_>>().join(" "));
                    let mut head = Vec::new();
                    Encoder::status(&mut head, status);
                    connection.send_head(id, &head, body.is_empty()).unwrap();
                    if !body.is_empty() {
                        connection.send_data(id, body, true).unwrap();
                    }
                }
            }
        })
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn check(&self, text: Option<&'static str>) -> Found {
        found(self.address, Protocol::Http1, text, &[10_000])[0]
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// Checks `address` once for each patience; 200 to 299 and 301 are good.
fn found(
    address: SocketAddr,
    protocol: Protocol,
    text: Option<&'static str>,
    patience_ms: &'static [u64],
) -> Vec<Found> {
    let (tell, told) = std::sync::mpsc::channel();
    shard(small(), move |io| async move {
        let target = Target { address, name: "t:1".into(), ..Default::default() };
        let upstream = Upstream { protocol, ..Upstream::default() };
        let pool: Rc<Pool> = Pool::new(&upstream, &target);
        let watch = io.watch();
        let wanted = Wanted {
            path: "/healthz?deep=1",
            host: Some("h.test"),
            statuses: &[(200, 299), (301, 301)],
            body: text,
        };
        for &ms in patience_ms {
            watch.set_in(ms);
            tell.send(check(&io, &watch, &pool, &upstream, &target, wanted).await).unwrap();
        }
        pool.clear();
    });
    told.iter().collect()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready";

#[test]
fn a_good_answer_is_healthy_on_one_connection() {
    let origin = Origin::http1(OK, Then::Keep);
    let all = found(origin.address, Protocol::Http1, None, &[10_000; 3]);
    assert_eq!(all, [Found::Healthy; 3]);
    assert_eq!(origin.connections(), 1);
    let request =
        "GET /healthz?deep=1 HTTP/1.1\r\nHost: h.test\r\nUser-Agent: sluice-health\r\n\r\n";
    assert_eq!(*origin.requests.lock().unwrap(), [request; 3]);
}

#[test]
fn the_status_decides() {
    for (status, expected) in [
        (200, Found::Healthy),
        (204, Found::Healthy),
        (299, Found::Healthy),
        (300, Found::Unhealthy),
        (301, Found::Healthy),
        (302, Found::Unhealthy),
        (404, Found::Unhealthy),
        (500, Found::Unhealthy),
        (503, Found::Unhealthy),
    ] {
        let answer = format!("HTTP/1.1 {status} Why\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(Origin::http1(answer, Then::Keep).check(None), expected, "{status}");
    }
}

#[test]
fn interim_answers_are_passed_over() {
    let hints: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n";
    assert_eq!(Origin::http1([hints, OK].concat(), Then::Keep).check(None), Found::Healthy);
    let endless = hints.repeat(20);
    assert_eq!(Origin::http1(endless, Then::Keep).check(None), Found::Unhealthy);
    let switch: &[u8] = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    assert_eq!(Origin::http1(switch, Then::Keep).check(None), Found::Unhealthy);
}

#[test]
fn the_text_must_be_there() {
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n";
    let closing = b"HTTP/1.1 200 OK\r\n\r\nI am ready.";
    for (answer, then) in [(OK, Then::Keep), (chunked, Then::Keep), (closing, Then::Close)] {
        assert_eq!(Origin::http1(answer, then).check(Some("ready")), Found::Healthy);
        assert_eq!(Origin::http1(answer, then).check(Some("Ready")), Found::Unhealthy);
    }
    let none = b"HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(Origin::http1(none, Then::Keep).check(Some("ready")), Found::Unhealthy);
    let wrong = b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nready";
    assert_eq!(Origin::http1(wrong, Then::Keep).check(Some("ready")), Found::Unhealthy);
}

#[test]
fn the_text_is_looked_for_in_the_first_bytes() {
    for (before, expected) in
        [(limits::HEALTH_ANSWER - 5, Found::Healthy), (limits::HEALTH_ANSWER - 4, Found::Unhealthy)]
    {
        let body = "x".repeat(before) + "ready" + &"y".repeat(100_000);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let origin = Origin::http1(answer, Then::Keep);
        let all = found(origin.address, Protocol::Http1, Some("ready"), &[10_000; 2]);
        assert_eq!(all, [expected; 2], "{before}");
        assert_eq!(origin.connections(), 2, "what is left unread is not kept");
    }
}

#[test]
fn a_connection_that_ended_meanwhile_says_nothing() {
    let origin = Origin::http1(OK, Then::Drop);
    let all = found(origin.address, Protocol::Http1, Some("ready"), &[10_000; 3]);
    assert_eq!(all, [Found::Healthy; 3]);
    assert_eq!(origin.connections(), 3);
    // One that ends each time does.
    let origin = Origin::http1("", Then::Close);
    assert_eq!(origin.check(None), Found::Unhealthy);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn garbage_and_cut_answers_are_unhealthy() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nready",
        b"\0",
    ] {
        assert_eq!(Origin::http1(answer, Then::Close).check(None), Found::Unhealthy);
    }
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nsteady";
    assert_eq!(Origin::http1(cut, Then::Close).check(Some("ready")), Found::Unhealthy);
}

#[test]
fn the_time_out_ends_what_hangs() {
    let hung = |answer: &'static [u8], text| {
        let origin = Origin::http1(answer, Then::Hang);
        found(origin.address, Protocol::Http1, text, &[100])[0]
    };
    assert_eq!(hung(b"HTTP/1.1 200 ", None), Found::Unhealthy);
    // What was known by then counts.
    let body = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nready";
    assert_eq!(hung(body, None), Found::Healthy);
    assert_eq!(hung(body, Some("ready")), Found::Healthy);
    assert_eq!(hung(body, Some("steady")), Found::Unhealthy);
}

#[test]
fn a_refused_connection_is_unhealthy() {
    let (gone, address) = listener();
    drop(gone);
    assert_eq!(found(address, Protocol::Http1, None, &[10_000]), [Found::Unhealthy]);
}

#[test]
fn over_http2_it_is_the_same() {
    let origin = Origin::http2(200, b"ready");
    let all = found(origin.address, Protocol::Http2, Some("ready"), &[10_000; 3]);
    assert_eq!(all, [Found::Healthy; 3]);
    assert_eq!(origin.connections(), 1);
    let request = ":method=GET :scheme=http :authority=h.test :path=/healthz?deep=1 \
                   user-agent=sluice-health";
    assert_eq!(*origin.requests.lock().unwrap(), [request; 3]);
    for (status, body, text, expected) in [
        (200, &b""[..], None, Found::Healthy),
        (200, b"", Some("ready"), Found::Unhealthy),
        (301, b"moved", None, Found::Healthy),
        (503, b"", None, Found::Unhealthy),
        (503, b"ready", Some("ready"), Found::Unhealthy),
    ] {
        let origin = Origin::http2(status, body);
        let all = found(origin.address, Protocol::Http2, text, &[10_000]);
        assert_eq!(all, [expected], "{status} {text:?}");
    }
    // It speaks another protocol.
    let origin = Origin::http1(OK, Then::Keep);
    assert_eq!(found(origin.address, Protocol::Http2, None, &[2_000]), [Found::Unhealthy]);
}
