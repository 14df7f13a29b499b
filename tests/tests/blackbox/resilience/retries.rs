//! Which failures another try follows, and how many.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tests::http2::client::request;
use tests::http2::frame::REFUSED_STREAM;
use tests::http2::{H2Client, H2Origin, Reply};
use tests::origin::{answer_with, echo};
use tests::spec::Spec;
use tests::{Gateway, Origin, Script, get};

use super::*;

/// Every way to fail before the head of an answer, by the path that brings it about.
fn failures() -> Vec<(&'static str, Script)> {
    let send = |bytes: &str| Script::default().send(bytes);
    vec![
        ("/reset", Script::default().reset()),
        ("/fin", Script::default().close()),
        ("/fin-in-the-head", send("HTTP/1.1 200 OK\r\nContent-Le").close()),
        ("/reset-in-the-head", send("HTTP/1.1 200 OK\r\nContent-Le").reset()),
        ("/garbage", send("garbage\r\n\r\n")),
        ("/lengths", send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx")),
        ("/interim-then-fin", send("HTTP/1.1 103 Early Hints\r\n\r\n").close()),
        ("/502", status("502 Bad Gateway")),
        ("/503", status("503 Service Unavailable")),
        ("/504", status("504 Gateway Timeout")),
        ("/hang", Script::default().sleep(Duration::from_secs(20))),
    ]
}

/// An origin that fails as the path says.
fn failing() -> Origin {
    let failures = Arc::new(failures());
    Origin::start(move |seen| {
        let found = failures.iter().find(|(path, _)| *path == seen.target);
        found.map_or_else(|| echo(seen), |(_, script)| script.clone())
    })
}

#[test]
fn every_failure_before_an_answer_is_tried_elsewhere() {
    let (bad, good) = (failing(), Origin::echo());
    let spec = Spec::to(bad.address())
        .target(good.address(), 1)
        .upstream("balance: round_robin, outlier: none, timeouts: { try_ms: 300 }")
        .upstream(QUICK);
    let gateway = Gateway::single(&spec);
    for (path, _) in failures() {
        bad.forget();
        let mut client = gateway.connect();
        for n in 0..4 {
            let answer = client.ask(get(path));
            assert_eq!(answer.text(), format!("GET {path}\n"), "{path} {n}: {}", answer.head.start);
            let put =
                format!("PUT {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello");
            let answer = client.ask(put);
            assert_eq!(answer.text(), format!("PUT {path}\n"), "{path} {n}: {}", answer.head.start);
        }
        assert!(bad.completed() > 0, "{path}: it was never asked");
    }
    assert!(good.seen().iter().filter(|s| s.method == "PUT").all(|s| s.body == b"hello"));
}

#[test]
fn what_may_have_been_seen_is_not_sent_again() {
    for (path, seen_by_client) in
        [("/reset", 502), ("/fin", 502), ("/garbage", 502), ("/503", 503), ("/hang", 504)]
    {
        let (bad, good) = (failing(), Origin::echo());
        let spec = Spec::to(bad.address())
            .target(good.address(), 1)
            .upstream("balance: round_robin, outlier: none, timeouts: { try_ms: 300 }")
            .upstream(QUICK);
        let gateway = Gateway::single(&spec);
        let mut client = gateway.connect();
        let mut answers = Vec::new();
        for _ in 0..6 {
            let post =
                format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
            let answer = client.ask(post);
            if answer.says_close() {
                client = gateway.connect();
            }
            answers.push(answer.status);
        }
        let failed = answers.iter().filter(|&&status| status == seen_by_client).count();
        let fine = answers.iter().filter(|&&status| status == 200).count();
        assert_eq!((failed, fine), (3, 3), "{path}: {answers:?}");
        assert_eq!((bad.completed(), good.completed()), (3, 3), "{path}: each exactly once");
    }
}

#[test]
fn methods_are_the_operators_choice() {
    for (methods, post, get_too) in [("any", true, true), ("[POST]", true, false)] {
        let (bad, good) = (Moody::new("bad"), Moody::new("good"));
        bad.turn(reset());
        let retry = format!("retry: {{ methods: {methods}, backoff_base_ms: 1 }}");
        let gateway = Gateway::single(&turns(&[&bad, &good], &[&retry]));
        let mut client = gateway.connect();
        let posts: Vec<u16> = (0..4).map(|_| client.ask(with_body("POST", "hi")).status).collect();
        assert_eq!(posts.iter().all(|&status| status == 200), post, "{methods}: {posts:?}");
        let gets = statuses(&ask(&gateway, 4));
        assert_eq!(gets.iter().all(|&status| status == 200), get_too, "{methods}: {gets:?}");
    }
}

#[test]
fn tries_are_counted_and_the_last_answer_is_the_clients() {
    let only = Moody::new("only");
    only.turn(status("503 Service Unavailable"));
    let spec = turns(&[&only], &["retry: { attempts: 4, backoff_base_ms: 1 }"])
        .also_route(
            "{ name: twice, match: { path: /twice }, upstream: origin, \
             retry: { attempts: 2, backoff_base_ms: 1 } }",
        )
        .also_route("{ name: once, match: { path: /once }, upstream: origin, retry: none }")
        .also_route(
            "{ name: picky, match: { path: /picky }, upstream: origin, \
             retry: { on: [connect, 500], backoff_base_ms: 1 } }",
        );
    let gateway = Gateway::single(&spec);
    for (n, (path, tries)) in
        [("/all", 4), ("/twice", 2), ("/once", 1), ("/picky", 1)].into_iter().enumerate()
    {
        only.origin.forget();
        let answer = gateway.ask(get(path));
        assert_eq!((answer.status, answer.text()), (503, "no\n".into()), "{path}");
        assert_eq!(answer.field("x-from"), Some("origin"), "{path}: its own answer");
        assert_eq!(only.seen(), tries, "{path}");
        let line = log_line(&gateway, n + 1);
        assert_eq!(line["attempts"], tries, "{line}");
        let stopped = line["retry_stopped"].as_str();
        assert_eq!(stopped, (tries > 1).then_some("attempts"), "{line}");
    }
    // 500 is none of the default's statuses, but what one route lists.
    only.turn(status("500 Internal Server Error"));
    only.origin.forget();
    assert_eq!(gateway.ask(get("/all")).status, 500);
    assert_eq!(only.seen(), 1);
    assert_eq!(gateway.ask(get("/picky")).status, 500);
    assert_eq!(only.seen(), 4);
}

#[test]
fn no_connection_to_any_target_is_one_answer() {
    let dead = || SocketAddr::from((Ipv4Addr::LOCALHOST, tests::scratch::free_port()));
    let spec = Spec::to(dead()).target(dead(), 1).target(dead(), 1).upstream(QUICK);
    let gateway = Gateway::single(&spec);
    for _ in 0..20 {
        let answer = gateway.ask(get("/x"));
        assert!(matches!(answer.status, 502 | 503), "{}", answer.head.start);
        answer.problem().unwrap();
    }
}

#[test]
fn retry_after_is_waited_for_or_ends_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    // By the path: what the first answer's Retry-After says. The second answer is good.
    let origin = Origin::start(move |seen| {
        if counter.fetch_add(1, Ordering::SeqCst) == 0 {
            let value = seen.target.trim_start_matches('/').replace('_', " ");
            let field = format!("Retry-After: {value}\r\n");
            return answer_with("503 Service Unavailable", &field, "no");
        }
        echo(seen)
    });
    let spec = Spec::to(origin.address()).upstream(QUICK).also_route(
        "{ name: deaf, match: { path: /3600/deaf }, upstream: origin, \
         retry: { retry_after_max_ms: 0, backoff_base_ms: 1 } }",
    );
    let gateway = Gateway::single(&spec);
    for (path, expected, tries) in [
        ("/0", 200, 2),
        ("/1", 200, 2),
        ("/3600", 503, 1),
        // A date long past is no reason to wait; one far away is.
        ("/Sun,_06_Nov_1994_08:49:37_GMT", 200, 2),
        ("/Wed,_06_Nov_2097_08:49:37_GMT", 503, 1),
        ("/nonsense", 200, 2),
        ("/3600/deaf", 200, 2),
    ] {
        asked.store(0, Ordering::SeqCst);
        let answer = gateway.ask(get(path));
        assert_eq!(answer.status, expected, "{path}");
        assert_eq!(asked.load(Ordering::SeqCst), tries, "{path}");
    }
}

#[test]
fn a_stream_that_was_not_looked_at_is_sent_again_whatever_the_method() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let origin = H2Origin::clear(move |seen| match counter.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => Reply::default().reset(REFUSED_STREAM),
        _ => tests::http2::origin::echo(seen),
    });
    let spec = Spec::to(origin.address())
        .listener("h2c: true")
        .upstream("protocol: http2")
        .upstream(QUICK);
    let gateway = Gateway::single(&spec);
    let mut client = H2Client::clear(gateway.address());
    for n in 0..3 {
        let answer = client.ask(&request("POST", "/refused"), b"");
        assert_eq!((answer.status, answer.text()), (200, "POST /refused\n".into()), "{n}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 6);
}

#[test]
fn an_answer_that_has_begun_is_never_tried_again() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    bad.turn(Script::default().send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").close());
    let gateway = Gateway::single(&turns(&[&bad, &good], &[QUICK]));
    let mut cut = 0;
    for _ in 0..6 {
        let mut client = gateway.connect();
        client.send(get("/x"));
        match client.response() {
            Ok(answer) => assert_eq!(answer.text(), "good"),
            Err(_) => cut += 1,
        }
    }
    assert_eq!((cut, bad.seen(), good.seen()), (3, 3, 3));
}

/// Retries under way are a fifth of what is under way, so those made are a quarter of the rest.
#[test]
fn a_dead_upstream_is_not_flooded_with_retries() {
    const CLIENTS: usize = 40;
    const EACH: usize = 25;
    let run = |budget: &str| {
        let dead = Moody::new("dead");
        dead.turn(status("503 Service Unavailable").after(Duration::from_millis(20)));
        let gateway = Gateway::single(&turns(&[&dead], &[QUICK, budget]));
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let answers = ask(&gateway, EACH);
                    assert!(answers.iter().all(|answer| answer.status == 503));
                });
            }
        });
        let metric = || gateway.metric("sluice_shard_upstream_retries_over_budget_total");
        assert!(eventually(PATIENCE, || metric() > Some(0.0)), "those not made are not counted");
        dead.seen() - CLIENTS * EACH
    };
    let retries = run("retry_budget: { percent: 20, min: 3 }");
    assert!(retries > 0, "some are made");
    assert!(retries <= CLIENTS * EACH / 4 + 3 * EACH, "{retries} retries");
    let retries = run("retry_budget: { percent: 0, min: 0 }");
    assert_eq!(retries, 0);
}
