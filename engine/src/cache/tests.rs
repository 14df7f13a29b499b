//! The cache over real sockets: one shard, its clients, and an origin that answers by a script.

#![allow(clippy::disallowed_methods, reason = "a test is the peer of the gateway")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::snapshot::{self, CacheQuery, RouteCache, Snapshot};

use crate::testing::{Reply, field, gateway, read_head};

/// What an origin says to a request, and whether it closes then.
type Script = fn(&str, usize) -> (Vec<u8>, bool);

/// Heads that an origin has seen.
type Seen = Arc<Mutex<Vec<String>>>;

fn origin(script: Script) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let told = seen.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let told = told.clone();
            std::thread::spawn(move || {
                while let Some(head) = read_head(&mut stream) {
                    let length = field(&head, "content-length").and_then(|text| text.parse().ok());
                    let mut body = vec![0; length.unwrap_or(0)];
                    stream.read_exact(&mut body).unwrap();
                    let count = {
                        let mut told = told.lock().unwrap();
                        told.push(head.clone());
                        told.len()
                    };
                    let (answer, closes) = script(&head, count);
                    if stream.write_all(&answer).is_err() || closes {
                        return;
                    }
                }
            });
        }
    });
    (address, seen)
}

fn text(fields: &str, body: &str) -> (Vec<u8>, bool) {
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
    (answer.into_bytes(), false)
}

fn snapshot_of(origin: SocketAddr, rules: RouteCache) -> Snapshot {
    let target =
        snapshot::Target { address: origin, name: origin.to_string(), ..Default::default() };
    let upstream =
        snapshot::Upstream { name: "u".into(), targets: vec![target], ..Default::default() };
    let route = snapshot::Route {
        name: "r".into(),
        backends: vec![snapshot::Backend { upstream: 0, weight: 1 }],
        max_body_bytes: 1 << 20,
        cache: Some(rules),
        ..Default::default()
    };
    Snapshot { upstreams: vec![upstream], routes: vec![route], ..Default::default() }
}

/// Runs a gateway with a cache in front of an origin with that script. Returns what the origin saw, and what
/// was counted.
fn run(
    script: Script,
    rules: RouteCache,
    client: impl FnOnce(SocketAddr) + Send + 'static,
) -> (Vec<String>, std::collections::HashMap<&'static str, u64>) {
    let (address, seen) = origin(script);
    let counts = gateway(snapshot_of(address, rules), client);
    let seen = seen.lock().unwrap().clone();
    (seen, counts.by_label("sluice_cache_requests_total"))
}

struct Got {
    reply: Reply,
    body: Vec<u8>,
}

impl Got {
    fn status(&self) -> u16 {
        self.reply.status()
    }

    fn told(&self) -> &str {
        self.reply.only("Cache-Status")
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn ask(gateway: SocketAddr, line: &str, fields: &str) -> Got {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let reply = Reply(read_head(&mut stream).expect("an answer"));
    let mut body = Vec::new();
    // A body that is cut ends with a reset.
    let _ = stream.read_to_end(&mut body);
    Got { reply, body }
}

fn get(gateway: SocketAddr, fields: &str) -> Got {
    ask(gateway, "GET /a?b=1", fields)
}

#[test]
fn what_is_fresh_is_answered_without_the_upstream() {
    let script =
        |_: &str, _| text("Cache-Control: max-age=60\r\nETag: \"e\"\r\nAge: 7\r\n", "0123456789");
    let (seen, counts) = run(script, RouteCache::default(), |gateway| {
        let first = get(gateway, "");
        assert_eq!((first.text(), first.told()), ("0123456789", "sluice; fwd=uri-miss; stored"));
        let hit = get(gateway, "");
        assert_eq!((hit.status(), hit.text()), (200, "0123456789"));
        assert!(hit.told().starts_with("sluice; hit; ttl="), "{}", hit.told());
        let age_s: u64 = hit.reply.only("Age").parse().unwrap();
        assert!((7..30).contains(&age_s));
        assert_eq!(hit.reply.only("Content-Length"), "10");
        let head = ask(gateway, "HEAD /a?b=1", "");
        assert_eq!((head.reply.only("Content-Length"), head.text()), ("10", ""));
        let same = get(gateway, "If-None-Match: \"x\", W/\"e\"\r\n");
        assert_eq!((same.status(), same.text(), same.reply.only("ETag")), (304, "", "\"e\""));
        let part = get(gateway, "Range: bytes=2-4\r\n");
        assert_eq!((part.status(), part.text()), (206, "234"));
        assert_eq!(part.reply.only("Content-Range"), "bytes 2-4/10");
        let none = get(gateway, "Range: bytes=10-\r\n");
        assert_eq!((none.status(), none.reply.only("Content-Range")), (416, "bytes */10"));
        let other = ask(gateway, "GET /a?b=2", "Cache-Control: only-if-cached\r\n");
        assert_eq!(other.status(), 504);
    });
    assert_eq!(seen.len(), 1);
    assert_eq!((counts["hit"], counts["miss"]), (5, 2));
}

#[test]
fn a_large_body_comes_back_as_it_was() {
    let script = |_: &str, _| {
        let body: String = (0..60_000).map(|n| format!("{n},")).collect();
        let mut answer =
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_vec();
        for piece in body.as_bytes().chunks(7_001) {
            answer.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            answer.extend_from_slice(piece);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"0\r\n\r\n");
        (answer, false)
    };
    let (seen, _) = run(script, RouteCache::default(), |gateway| {
        let body: String = (0..60_000).map(|n| format!("{n},")).collect();
        get(gateway, "");
        let hit = get(gateway, "");
        assert!(hit.told().contains("hit"));
        assert_eq!(hit.reply.only("Content-Length"), body.len().to_string());
        assert!(hit.text() == body);
        let part = get(gateway, "Range: bytes=100000-299999\r\n");
        assert!(part.text() == &body[100_000..300_000]);
    });
    assert_eq!(seen.len(), 1);
}

#[test]
fn what_is_not_whole_is_not_kept() {
    let script = |_: &str, _| {
        (
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n01234"
                .to_vec(),
            true,
        )
    };
    let (seen, _) = run(script, RouteCache::default(), |gateway| {
        for _ in 0..2 {
            assert_eq!(get(gateway, "").text(), "01234");
        }
    });
    assert_eq!(seen.len(), 2);
    // An answer that the close ends cannot be told from one that was cut.
    let script =
        |_: &str, _| (b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\n01234".to_vec(), true);
    let (seen, _) = run(script, RouteCache::default(), |gateway| {
        for _ in 0..2 {
            assert_eq!(get(gateway, "").told(), "sluice; fwd=uri-miss");
        }
    });
    assert_eq!(seen.len(), 2);
}

#[test]
fn answers_to_callers_are_not_for_others() {
    let script = |head: &str, _| {
        let who = field(head, "authorization").unwrap_or("nobody").to_owned();
        let public = if head.contains("/public") { ", public" } else { "" };
        text(&format!("Cache-Control: max-age=60{public}\r\n"), &who)
    };
    let (seen, _) = run(script, RouteCache::default(), |gateway| {
        let of = |path: &str, who: &str| {
            let fields =
                if who.is_empty() { String::new() } else { format!("Authorization: {who}\r\n") };
            ask(gateway, &format!("GET {path}"), &fields).text().to_owned()
        };
        assert_eq!(of("/own", "a"), "a");
        assert_eq!(of("/own", "b"), "b");
        assert_eq!(of("/own", "a"), "a");
        assert_eq!(of("/own", ""), "nobody");
        // That is stored now, and still not theirs.
        assert_eq!(of("/own", ""), "nobody");
        assert_eq!(of("/own", "a"), "a");
        assert_eq!(of("/public", "a"), "a");
        assert_eq!((of("/public", "b"), of("/public", "")), ("a".into(), "a".into()));
    });
    assert_eq!(seen.len(), 6);
}

#[test]
fn an_answer_is_one_of_several_by_what_it_varies_by() {
    let script = |head: &str, _| {
        let foo = field(head, "foo").unwrap_or("none").to_owned();
        text("Cache-Control: max-age=60\r\nVary: Foo, Accept-Language\r\n", &foo)
    };
    let (seen, _) = run(script, RouteCache::default(), |gateway| {
        for _ in 0..2 {
            assert_eq!(get(gateway, "Foo: 1\r\nAccept-Language: de, en\r\n").text(), "1");
            assert_eq!(get(gateway, "Foo: 2\r\nAccept-Language: de, en\r\n").text(), "2");
            assert_eq!(get(gateway, "").text(), "none");
        }
        let same = get(gateway, "Foo: 1\r\nAccept-Language: EN,de\r\n");
        assert!(same.told().contains("hit"), "{}", same.told());
        assert!(get(gateway, "Foo: 3\r\n").told().contains("fwd=vary-miss"));
    });
    assert_eq!(seen.len(), 4);
}

#[test]
fn an_unsafe_request_makes_it_invalid() {
    let script = |head: &str, _| match head.starts_with("POST /fails") {
        true => (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec(), false),
        false => text("Cache-Control: max-age=60\r\nLocation: b?c=1\r\n", "x"),
    };
    let (seen, _) = run(script, RouteCache::default(), |gateway| {
        let is_hit = |path: &str| ask(gateway, &format!("GET {path}"), "").told().contains("hit");
        for path in ["/d/a", "/d/b?c=1", "/fails"] {
            assert!(!is_hit(path) && is_hit(path), "{path}");
        }
        let posted = ask(gateway, "POST /d/a", "Content-Length: 0\r\n");
        assert_eq!(posted.told(), "sluice; fwd=method");
        assert!(!is_hit("/d/a") && !is_hit("/d/b?c=1") && is_hit("/fails"));
        ask(gateway, "POST /fails", "Content-Length: 0\r\n");
        assert!(is_hit("/fails"));
    });
    assert_eq!(seen.len(), 7);
}

#[test]
fn what_is_stale_is_asked_about() {
    let script = |head: &str, count| match (count, field(head, "if-none-match")) {
        (1, None) => {
            text("Cache-Control: max-age=60\r\nAge: 60\r\nETag: \"e\"\r\nX-Count: 1\r\n", "body")
        }
        (2, Some("\"e\"")) => {
            let answer = "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nETag: \"e\"\r\nX-Count: 2\r\n\r\n";
            (answer.as_bytes().to_vec(), false)
        }
        other => panic!("{other:?}"),
    };
    let (_, counts) = run(script, RouteCache::default(), |gateway| {
        get(gateway, "");
        // The client's own condition is another question.
        let again = get(gateway, "If-None-Match: \"other\"\r\n");
        assert_eq!((again.status(), again.text(), again.reply.only("X-Count")), (200, "body", "2"));
        assert!(
            again.told().starts_with("sluice; fwd=stale; fwd-status=304; ttl="),
            "{}",
            again.told()
        );
        assert_eq!(get(gateway, "").reply.only("X-Count"), "2");
        assert_eq!(get(gateway, "If-None-Match: \"e\"\r\n").status(), 304);
    });
    assert_eq!((counts["revalidated"], counts["hit"]), (1, 2));
}

#[test]
fn what_is_stale_is_used_where_that_is_allowed() {
    let script = |head: &str, count| match (head.contains("/refreshed"), count) {
        (_, 1) => text(
            "Cache-Control: max-age=60, stale-while-revalidate=600\r\nAge: 61\r\nX-Count: 1\r\n",
            "old",
        ),
        _ => text("Cache-Control: max-age=60\r\nX-Count: 2\r\n", "new"),
    };
    let (seen, counts) = run(script, RouteCache::default(), |gateway| {
        get(gateway, "X-Mine: 1\r\n");
        let stale = get(gateway, "X-Mine: 1\r\n");
        assert_eq!(stale.text(), "old");
        assert!(stale.told().starts_with("sluice; hit; ttl=-"), "{}", stale.told());
        // Soon it is new.
        for _ in 0..200 {
            if get(gateway, "").text() == "new" {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(get(gateway, "").told().contains("hit"));
    });
    assert_eq!(seen.len(), 2);
    let asked = &seen[1];
    assert!(asked.starts_with("GET /a?b=1 ") && field(asked, "x-mine") == Some("1"), "{asked}");
    assert_eq!(field(asked, "host"), Some("h"));
    assert!(counts["stale"] >= 1);
}

#[test]
fn what_is_stale_is_better_than_an_error_by_choice() {
    let script = |_: &str, count| match count {
        1 => text("Cache-Control: max-age=60\r\nAge: 61\r\n", "old"),
        2 => (b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno".to_vec(), false),
        _ => (Vec::new(), true),
    };
    let rules = RouteCache { stale_if_error_ms: 600_000, ..RouteCache::default() };
    let (_, counts) = run(script, rules, |gateway| {
        get(gateway, "");
        let covered = get(gateway, "");
        assert_eq!((covered.status(), covered.text()), (200, "old"));
        assert!(covered.told().starts_with("sluice; fwd=stale"), "{}", covered.told());
        assert_eq!(get(gateway, "").text(), "old");
    });
    assert_eq!(counts["stale"], 2);
    let (_, _) = run(script, RouteCache::default(), |gateway| {
        get(gateway, "");
        assert!(get(gateway, "").status() >= 502);
    });
}

#[test]
fn one_request_is_made_for_all_that_ask_at_once() {
    let script = |head: &str, _| {
        std::thread::sleep(Duration::from_millis(300));
        match head.contains("/mine") {
            true => text("Cache-Control: private, max-age=60\r\n", "x"),
            false => text("Cache-Control: max-age=60\r\n", "x"),
        }
    };
    let (seen, counts) = run(script, RouteCache::default(), |gateway| {
        let all = |path: &'static str| {
            let one = move || ask(gateway, &format!("GET {path}"), "").text().to_owned();
            let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(one)).collect();
            threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), "x"));
        };
        all("/ours");
        all("/mine");
    });
    let of = |path: &str| seen.iter().filter(|head| head.contains(path)).count();
    assert_eq!((of("/ours"), of("/mine")), (1, 8));
    assert_eq!(counts["coalesced"] + counts.get("hit").copied().unwrap_or(0), 7);
}

#[test]
fn parameters_tell_answers_apart_by_choice() {
    let script = |_: &str, _| text("", "x");
    let rules = RouteCache {
        ttl_ms: 60_000,
        query: CacheQuery::Except(vec!["utm source".into()]),
        headers: vec!["x-kind".into()],
        tell: true,
        ..RouteCache::default()
    };
    let (seen, _) = run(script, rules, |gateway| {
        let is_hit = |query: &str, fields: &str| {
            ask(gateway, &format!("GET /a?{query}"), fields).told().contains("hit")
        };
        assert!(
            !is_hit("a=1&utm%20source=7", "")
                && is_hit("a=1", "")
                && is_hit("utm+source=8&a=1", "")
        );
        assert!(
            !is_hit("a=2", "") && !is_hit("a=1", "X-Kind: 1\r\n") && is_hit("a=1", "X-Kind: 1\r\n")
        );
    });
    assert_eq!(seen.len(), 3);
}
