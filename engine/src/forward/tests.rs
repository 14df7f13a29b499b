//! Forwarding over real sockets: a shard with a client connection, and origins that follow a script.

#![allow(clippy::disallowed_methods, reason = "a test is the peer of the gateway")]

mod grants;
mod http2;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::snapshot::{self, Retry, Snapshot, Timeouts};

use crate::testing::{self, field, read_head};

/// What an origin does with a request.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Answers 200 with the origin's name and the request's body.
    Echo,
    /// Answers with this status, and fields.
    Status(u16, &'static str),
    /// Answers a call by nothing but this status.
    Ended(&'static str),
    /// Reads the request and closes.
    Close,
    /// Closes once the head has come.
    CloseAtHead,
    /// Answers no HTTP.
    Garbage,
    /// Never answers.
    Hang,
    /// Announces more than it sends.
    Short,
}

/// An origin: what it does with its requests in turn, the last for all further ones.
struct Origin {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    fn start(name: &'static str, acts: &'static [Act]) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = seen.clone();
        let turn = Arc::new(AtomicUsize::new(0));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (told, turn) = (told.clone(), turn.clone());
                std::thread::spawn(move || serve_one(name, stream, acts, &turn, &told));
            }
        });
        Origin { address, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve_one(
    name: &str,
    mut stream: TcpStream,
    acts: &[Act],
    turn: &AtomicUsize,
    seen: &Mutex<Vec<String>>,
) {
    while let Some(head) = read_head(&mut stream) {
        let act = acts[turn.fetch_add(1, Ordering::SeqCst).min(acts.len() - 1)];
        if matches!(act, Act::CloseAtHead) {
            seen.lock().unwrap().push(head);
            return;
        }
        let body = read_body(&mut stream, &head);
        seen.lock().unwrap().push(format!("{head}{}", String::from_utf8_lossy(&body)));
        let answer = match act {
            Act::Echo => {
                let mut text = format!("{name}:").into_bytes();
                text.extend_from_slice(&body);
                let mut answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len())
                        .into_bytes();
                answer.extend_from_slice(&text);
                answer
            }
            Act::Status(status, fields) => {
                format!("HTTP/1.1 {status} S\r\n{fields}Content-Length: 3\r\n\r\nbad").into_bytes()
            }
            Act::Ended(code) => format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: {code}\r\n\
                 Content-Length: 0\r\n\r\n"
            )
            .into_bytes(),
            Act::Close | Act::CloseAtHead => return,
            Act::Garbage => b"What is this?\r\n\r\n".to_vec(),
            Act::Hang => {
                let _ = stream.read(&mut [0]);
                return;
            }
            Act::Short => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbad".to_vec(),
        };
        if stream.write_all(&answer).is_err() || matches!(act, Act::Short | Act::Garbage) {
            return;
        }
    }
}

fn read_body(stream: &mut TcpStream, head: &str) -> Vec<u8> {
    let exactly = |stream: &mut TcpStream, len: usize| {
        let mut body = vec![0; len];
        stream.read_exact(&mut body).map(|()| body).unwrap_or_default()
    };
    if field(head, "transfer-encoding").is_none() {
        let length = field(head, "content-length").map_or(0, |value| value.parse().unwrap());
        return exactly(stream, length);
    }
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        while !line.ends_with("\r\n") {
            match exactly(stream, 1).first() {
                Some(&byte) => line.push(char::from(byte)),
                None => return body,
            }
        }
        let len = usize::from_str_radix(line.trim_end(), 16).unwrap();
        body.extend(exactly(stream, len));
        exactly(stream, 2);
        if len == 0 {
            return body;
        }
    }
}

/// An answer as a client sees it.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

fn ask(gateway: SocketAddr, parts: &[&[u8]]) -> Reply {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            // Separate on their way; nothing depends on how long.
            std::thread::sleep(Duration::from_millis(30));
        }
        stream.write_all(part).unwrap();
    }
    let head = read_head(&mut stream).expect("an answer");
    let body = read_body(&mut stream, &head);
    let status = head[9..12].parse().unwrap();
    Reply { status, head, body: String::from_utf8_lossy(&body).into_owned() }
}

fn get(gateway: SocketAddr) -> Reply {
    ask(gateway, &[b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"])
}

fn post(gateway: SocketAddr) -> Reply {
    ask(gateway, &[b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"])
}

fn upstream(name: &str, targets: &[SocketAddr]) -> snapshot::Upstream {
    let target = |address: &SocketAddr| snapshot::Target {
        address: *address,
        name: address.to_string(),
        ..Default::default()
    };
    snapshot::Upstream {
        name: name.into(),
        balance: snapshot::Balance::RoundRobin,
        targets: targets.iter().map(target).collect(),
        // The tests are about the course of single requests.
        outlier: None,
        ..Default::default()
    }
}

fn route() -> snapshot::Route {
    snapshot::Route {
        name: "r".into(),
        backends: vec![snapshot::Backend { upstream: 0, weight: 1 }],
        timeouts: Timeouts { connect_ms: 0, first_byte_ms: 0, idle_ms: 0, try_ms: 0, total_ms: 0 },
        max_body_bytes: 1 << 20,
        ..Default::default()
    }
}

/// Runs a gateway, and `client` beside it. Returns what was counted.
fn gateway(
    route: snapshot::Route,
    upstreams: Vec<snapshot::Upstream>,
    client: impl FnOnce(SocketAddr) + Send + 'static,
) -> HashMap<&'static str, u64> {
    let snapshot = Snapshot { upstreams, routes: vec![route], ..Default::default() };
    gateway_of(snapshot, client)
}

/// The same of a whole snapshot.
fn gateway_of(
    snapshot: Snapshot,
    client: impl FnOnce(SocketAddr) + Send + 'static,
) -> HashMap<&'static str, u64> {
    testing::gateway(snapshot, client).by_name()
}

fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn failures_of_each_kind_are_made_good_by_another_target() {
    let acts: [&'static [Act]; 5] = [
        &[Act::Close],
        &[Act::Garbage],
        &[Act::Status(503, "")],
        &[Act::Status(502, "Retry-After: 0\r\n")],
        &[Act::Hang],
    ];
    for acts in acts {
        let bad = Origin::start("bad", acts);
        let good = Origin::start("good", &[Act::Echo]);
        let timeouts = Timeouts { try_ms: 100, ..Timeouts::default() };
        let targets = [bad.address, good.address];
        let upstream = snapshot::Upstream { timeouts, ..upstream("u", &targets) };
        gateway(route(), vec![upstream], move |gateway| {
            for _ in 0..4 {
                let reply = get(gateway);
                assert_eq!((reply.status, &*reply.body), (200, "good:"), "{acts:?}");
            }
        });
        assert_eq!(good.seen().len(), 4);
        assert!(!bad.seen().is_empty(), "it was asked, too");
    }
    let good = Origin::start("good", &[Act::Echo]);
    let upstream = upstream("u", &[refusing(), good.address]);
    let counts = gateway(route(), vec![upstream], move |gateway| {
        for _ in 0..4 {
            assert_eq!(post(gateway).body, "good:hi", "nothing was sent, so whatever the method");
        }
    });
    let retries = counts["sluice_upstream_retries_total"];
    assert!((1..=4).contains(&retries), "{retries}");
    assert_eq!(counts["sluice_upstream_connect_errors_total"], retries);
}

#[test]
fn what_may_have_been_seen_is_sent_once_unless_told_otherwise() {
    for (methods, status, times) in
        [(snapshot::RetryMethods::Idempotent, 502, 1), (snapshot::RetryMethods::Any, 200, 1)]
    {
        let bad = Origin::start("bad", &[Act::Close]);
        let good = Origin::start("good", &[Act::Echo]);
        let retry = Retry { methods, ..Retry::default() };
        let upstream = snapshot::Upstream { retry, ..upstream("u", &[bad.address, good.address]) };
        gateway(route(), vec![upstream], move |gateway| {
            let first = post(gateway);
            let second = post(gateway);
            let statuses = [first.status, second.status];
            assert!(statuses.contains(&status) && statuses.contains(&200), "{statuses:?}");
        });
        assert_eq!(bad.seen().len(), times);
    }
}

#[test]
fn the_last_answer_is_relayed_when_tries_are_used_up() {
    let bad = Origin::start("bad", &[Act::Status(503, "X-Own: 1\r\n")]);
    let counts = gateway(route(), vec![upstream("u", &[bad.address])], |gateway| {
        let reply = get(gateway);
        assert_eq!((reply.status, &*reply.body), (503, "bad"));
        assert_eq!(field(&reply.head, "x-own"), Some("1"));
    });
    assert_eq!(bad.seen().len(), 3);
    assert_eq!(counts["sluice_upstream_retries_total"], 2);
    assert_eq!(counts["sluice_upstream_connects_total"], 1, "answers thrown away leave it usable");

    let late = Origin::start("late", &[Act::Status(503, "Retry-After: 60\r\n")]);
    gateway(route(), vec![upstream("u", &[late.address])], |gateway| {
        assert_eq!(get(gateway).status, 503);
    });
    assert_eq!(late.seen().len(), 1, "no one waits for so long");
}

#[test]
fn a_body_that_streams_is_sent_again_while_it_is_small() {
    let put: [&[u8]; 4] = [
        b"PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n",
        b"6\r\n world\r\n",
        b"0\r\n\r\n",
    ];
    for (acts, bytes, status, body) in [
        (&[Act::Close, Act::Echo][..], 64 * 1024, 200, "o:hello world"),
        (&[Act::CloseAtHead, Act::Echo][..], 64 * 1024, 200, "o:hello world"),
        (&[Act::Close, Act::Echo][..], 11, 200, "o:hello world"),
        (&[Act::Close, Act::Echo][..], 10, 502, ""),
        // The host is the target's, so each try needs the head anew.
        (&[Act::Status(503, ""), Act::Close, Act::Echo][..], 11, 200, "o:hello world"),
    ] {
        let origin = Origin::start("o", acts);
        let retry = Retry { body_bytes: bytes, ..Retry::default() };
        let targets = [origin.address, origin.address];
        let upstream = snapshot::Upstream {
            retry,
            host_header: snapshot::HostHeader::Target,
            ..upstream("u", &targets)
        };
        gateway(route(), vec![upstream], move |gateway| {
            let reply = ask(gateway, &put);
            assert_eq!(reply.status, status, "{acts:?}");
            assert!(status != 200 || reply.body == body, "{reply:?}");
        });
    }
}

#[test]
fn a_large_body_with_its_length_is_not_kept() {
    let origin = Origin::start("o", &[Act::Close, Act::Echo]);
    let retry = Retry { body_bytes: 1_000, ..Retry::default() };
    let upstream = snapshot::Upstream { retry, ..upstream("u", &[origin.address]) };
    gateway(route(), vec![upstream], move |gateway| {
        let head = b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n";
        assert_eq!(ask(gateway, &[head, &[b'x'; 20_000]]).status, 502);
        let head = b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\n";
        assert_eq!(ask(gateway, &[head, &[b'x'; 900]]).status, 200);
    });
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_clients_deadline_bounds_all_and_is_passed_on() {
    let origin = Origin::start("o", &[Act::Echo, Act::Hang]);
    let route = snapshot::Route { deadline_header: Some("x-patience".into()), ..route() };
    gateway(route, vec![upstream("u", &[origin.address])], |gateway| {
        let with = |value: &str| {
            format!("GET /x HTTP/1.1\r\nHost: h\r\nX-Patience: {value}\r\n\r\n").into_bytes()
        };
        assert_eq!(ask(gateway, &[&with("60000")]).status, 200);
        assert_eq!(ask(gateway, &[&with("150")]).status, 504);
    });
    let seen = origin.seen();
    let told = |at: usize| field(&seen[at], "x-patience").unwrap().parse::<u64>().unwrap();
    assert!((1..=60_000).contains(&told(0)) && (1..=150).contains(&told(1)));
    assert_eq!(seen.len(), 2, "no other try after the deadline");
    assert_eq!(seen[0].matches("atience").count(), 1);
}

/// Answers for long enough that what is usual is known, and then no more.
static TIRED: [Act; 81] = {
    let mut acts = [Act::Echo; 81];
    acts[80] = Act::Hang;
    acts
};

#[test]
fn a_slow_try_gets_another_beside_it() {
    let tired = Origin::start("tired", &TIRED);
    let quick = Origin::start("quick", &[Act::Echo]);
    let hedge = Some(snapshot::Hedge { quantile_permille: 950, min_ms: 20 });
    let upstream = snapshot::Upstream { hedge, ..upstream("u", &[tired.address, quick.address]) };
    let counts = gateway(route(), vec![upstream], move |gateway| {
        for _ in 0..200 {
            assert_eq!(get(gateway).status, 200);
        }
    });
    let (hedges, won) =
        (counts["sluice_upstream_hedges_total"], counts["sluice_upstream_hedges_won_total"]);
    // A first try at the tired one is given up for one at the quick one; the reverse may happen, too.
    assert!(won > 0 && won <= hedges, "{won} of {hedges}");
    assert_eq!(counts["sluice_upstream_retries_total"], 0);
    assert!(tired.seen().len() > 80, "it was asked when it did not answer any more");
}

#[test]
fn a_mirror_gets_a_copy_and_nobody_its_answer() {
    let main = Origin::start("main", &[Act::Echo]);
    let shadow = Origin::start("shadow", &[Act::Status(500, ""), Act::Close, Act::Hang]);
    let mirror = Some(snapshot::Mirror { upstream: 1, per_ten_thousand: 10_000 });
    let route = snapshot::Route { mirror, ..route() };
    let upstreams = vec![upstream("u", &[main.address]), upstream("m", &[shadow.address])];
    let copies = shadow.seen.clone();
    let counts = gateway(route, upstreams, move |gateway| {
        assert_eq!(get(gateway).body, "main:");
        assert_eq!(post(gateway).body, "main:hi");
        let long =
            [&b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n"[..], &[b'x'; 20_000]];
        assert_eq!(ask(gateway, &long).status, 200);
        for _ in 0..1_000 {
            if copies.lock().unwrap().len() == 2 {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("two copies never came");
    });
    assert_eq!(counts["sluice_mirrored_total"], 2);
    assert_eq!(counts["sluice_mirrors_dropped_total"], 1, "too large");
    let copies = shadow.seen();
    assert!(copies.iter().all(|copy| field(copy, "x-sluice-mirror") == Some("1")));
    assert!(copies.iter().any(|copy| copy.starts_with("POST") && copy.ends_with("\r\n\r\nhi")));
    assert!(main.seen().iter().all(|request| field(request, "x-sluice-mirror").is_none()));
}

#[test]
fn a_fallback_answers_for_an_upstream_without_targets() {
    let other = Origin::start("other", &[Act::Echo]);
    let answer = snapshot::Fallback::Answer {
        status: 200,
        content_type: "text/plain".into(),
        body: "later".into(),
    };
    for (fallback, status, body) in [
        (snapshot::Fallback::Refuse, 503, None),
        (answer, 200, Some("later")),
        (snapshot::Fallback::Upstream(1), 200, Some("other:hi")),
    ] {
        let upstreams = vec![
            snapshot::Upstream { fallback, ..upstream("u", &[]) },
            // One hop: this one's own is not followed.
            snapshot::Upstream {
                fallback: snapshot::Fallback::Upstream(0),
                ..upstream("other", &[other.address])
            },
        ];
        let counts = gateway(route(), upstreams, move |gateway| {
            let reply = post(gateway);
            assert_eq!(reply.status, status);
            assert!(body.is_none_or(|body| body == reply.body), "{reply:?}");
        });
        assert_eq!(counts["sluice_upstream_fallbacks_total"], 1);
    }
}

#[test]
fn a_body_cut_short_is_never_a_whole_answer() {
    let origin = Origin::start("o", &[Act::Short]);
    gateway(route(), vec![upstream("u", &[origin.address])], |gateway| {
        let mut stream = TcpStream::connect(gateway).unwrap();
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let all = String::from_utf8_lossy(&all);
        assert!(all.contains("Content-Length: 9") && all.ends_with("\r\n\r\nbad"), "{all}");
    });
    assert_eq!(origin.seen().len(), 1, "its head was passed on");
}
