//! The promises about failing upstreams, by their rows of the list of faults: 13 (resets and ends),
//! 14 (nonsense), 15 (all of them down, one flapping).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tests::http2::{Broken, H2Client};
use tests::load::{self, Load};
use tests::origin::echo;
use tests::spec::Spec;
use tests::{Gateway, Origin, Script, WireError, get};

use super::*;

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
const HALF_CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";

/// Two origins in turns: the first does what its mood is.
fn pair(mood: Script) -> (Moody, Moody, Gateway) {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    bad.turn(mood);
    let spec = turns(&[&bad, &good], &[QUICK, "timeouts: { try_ms: 300 }"]).listener("h2c: true");
    let gateway = Gateway::single(&spec);
    (bad, good, gateway)
}

#[test]
fn row_13_before_an_answer_the_client_sees_success() {
    let silent_half_close = Script::default().half_close();
    for mood in [reset(), Script::default().close(), silent_half_close] {
        let (bad, good, gateway) = pair(mood);
        let mut h1 = gateway.connect();
        let mut h2 = H2Client::clear(gateway.address());
        for _ in 0..4 {
            assert_eq!(h1.ask(get("/x")).text(), "good");
            let stream = h2.get("/x");
            assert_eq!(h2.answer(stream).map(|answer| answer.text()), Ok("good".into()));
        }
        assert!(bad.seen() >= 2);
        assert_eq!(good.seen(), 8);
    }
}

#[test]
fn row_13_inside_an_answer_the_end_shows_as_cut() {
    let pause = Duration::from_millis(50);
    let moods = [HALF, HALF_CHUNKED].into_iter().flat_map(|half| {
        let sent = Script::default().send(half);
        [sent.clone().close(), sent.clone().sleep(pause).reset(), sent.half_close()]
    });
    for mood in moods {
        let (bad, good, gateway) = pair(mood);
        let (mut cut, mut whole) = (0, 0);
        for _ in 0..4 {
            let mut client = gateway.connect();
            client.send(get("/x"));
            match client.response() {
                Ok(answer) => {
                    assert_eq!(answer.text(), "good");
                    whole += 1;
                }
                Err(WireError::Truncated(_) | WireError::Reset(_)) => cut += 1,
                Err(e) => panic!("{e:?}"),
            }
        }
        let mut client = H2Client::clear(gateway.address());
        for _ in 0..4 {
            let stream = client.get("/x");
            match client.answer(stream) {
                Ok(answer) => {
                    assert_eq!(answer.text(), "good");
                    whole += 1;
                }
                Err(Broken::Reset(code, _)) => {
                    assert_ne!(code, tests::http2::frame::NO_ERROR);
                    cut += 1;
                }
                Err(e) => panic!("{e:?}"),
            }
        }
        assert_eq!((cut, whole), (4, 4));
        assert_eq!((bad.seen(), good.seen()), (4, 4), "what has begun is not asked again");
    }
}

/// Answers with what nobody asked for behind them.
#[test]
fn row_14_surplus_bytes_are_nobodys_answer() {
    let bad = Origin::start(|seen| {
        let body = format!("GET {}\n", seen.target);
        let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        match seen.target.ends_with("late") {
            // The surplus comes when the connection is back in the pool.
            true => Script::default().send(whole).sleep(Duration::from_millis(30)).send(poison),
            false => Script::default().send(format!("{whole}{poison}")),
        }
    });
    let gateway = Gateway::single(&Spec::to(bad.address()).upstream(QUICK));
    for how in ["now", "late"] {
        for n in 0..10 {
            let path = format!("/{n}/{how}");
            let answer = gateway.ask(get(&path));
            assert_eq!(answer.text(), format!("GET {path}\n"));
            if how == "late" {
                // Once the next request is out, no proxy can tell what comes from its answer.
                std::thread::sleep(Duration::from_millis(60));
            }
        }
    }
}

#[test]
fn row_14_nonsense_is_hidden_where_another_can_be_asked() {
    let send = |bytes: String| Script::default().send(bytes);
    let ok = "HTTP/1.1 200 OK\r\n";
    let moods = [
        (
            "100 KB of head",
            send(format!("{ok}X: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(100_000))),
        ),
        ("a flood of 1xx", send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(5_000))),
        (
            "length and coding",
            send(format!("{ok}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ),
        ("bare LF", send("HTTP/1.1 200 OK\nContent-Length: 0\n\n".into())),
        ("no HTTP", send("\0\u{1}\u{2}garbage\r\n\r\n".into())),
        (
            "a byte at a time",
            (0..40).fold(Script::default(), |script, n| {
                let byte = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n     "[n];
                script.send([byte]).sleep(Duration::from_millis(250))
            }),
        ),
    ];
    for (what, mood) in moods {
        let (bad, _good, gateway) = pair(mood);
        for n in 0..4 {
            let answer = gateway.ask(get("/x"));
            assert_eq!(answer.text(), "good", "{what} {n}: {}", answer.head.start);
        }
        // Never used again: each of its requests came on a connection of its own.
        assert!(bad.seen() > 0, "{what}: it was never asked");
        assert!(bad.origin.seen().iter().all(|seen| seen.nth == 0), "{what}: it was used again");
    }
}

#[test]
fn row_14_an_answer_before_the_body_is_the_answer() {
    let origin = Origin::early(|_| tests::origin::answer_with("413 Too Large", "", "no").close());
    let gateway = Gateway::single(&Spec::to(origin.address()).upstream(QUICK));
    for _ in 0..4 {
        let answer = gateway.ask(with_body("PUT", &"x".repeat(20_000)));
        assert_eq!((answer.status, answer.text()), (413, "no".into()));
    }
    assert_eq!(origin.accepted(), 4, "what owes a body is not used again");
}

#[test]
fn row_15_all_down_is_503_and_other_routes_live() {
    let origin = Origin::echo();
    let downs: Vec<SocketAddr> =
        (0..3).map(|_| SocketAddr::from(([127, 0, 0, 1], tests::scratch::free_port()))).collect();
    let mut spec = Spec::default();
    for down in &downs {
        spec = spec.target(*down, 1);
    }
    let breaker = "breaker: { consecutive: 3, error_percent: 0, open_ms: 60000 }";
    let spec = spec
        .upstream(breaker)
        .also_upstream("up", origin.address(), "")
        .also_route("{ name: up, match: { path: /up }, upstream: up }");
    let gateway = Gateway::of(&spec);
    let load = Load::start(gateway.address(), 4, 0, &get("/up"), load::ok);
    let mut answers = Vec::new();
    for _ in 0..60 {
        let response = gateway.ask(get("/down"));
        response.problem().expect("an answer of our own");
        answers.push(response.status);
    }
    assert!(answers.iter().all(|status| matches!(status, 502 | 503)), "{answers:?}");
    assert_eq!(answers[50..], [503; 10], "the breaker is open");
    load.await_more(100);
    load.stop_clean();
}

#[test]
fn row_15_one_flapping_of_three_is_noticed_by_nobody() {
    let is_bad = Arc::new(AtomicBool::new(false));
    let (reached, flaps) = (Arc::new(AtomicUsize::new(0)), is_bad.clone());
    let counter = reached.clone();
    let flapping = Origin::start(move |seen| {
        if flaps.load(Ordering::SeqCst) {
            counter.fetch_add(1, Ordering::SeqCst);
            return Script::default().reset();
        }
        echo(seen)
    });
    let others = [Origin::echo(), Origin::echo()];
    let mut spec = Spec::to(flapping.address());
    for other in &others {
        spec = spec.target(other.address(), 1);
    }
    // Whether it is ejected or, looking slow, just not chosen, is the balancer's matter.
    let outlier = "outlier: { base_ejection_ms: 200, slow_start_ms: 200 }";
    let gateway = Gateway::of(&spec.upstream(outlier).upstream(QUICK));
    let load = Load::start(gateway.address(), 8, 50, &get("/load"), load::ok);
    for _ in 0..4 {
        load.await_more(300);
        is_bad.store(true, Ordering::SeqCst);
        // Long enough for more failures than those over connections that had served before, which
        // say nothing about the target.
        load.await_more(1_500);
        is_bad.store(false, Ordering::SeqCst);
    }
    let (done, failed, failures) = load.stop();
    let log = gateway.access_log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("\"status\":502")).collect();
    assert_eq!(failed, 0, "of {done}: {failures:?} {lines:#?}");
    let failed = reached.load(Ordering::SeqCst) as u64;
    assert!(failed > 0, "it never failed");
    assert!(failed * 10 <= done, "{failed} retries of {done} requests");
}
