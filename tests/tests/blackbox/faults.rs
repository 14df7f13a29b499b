//! Origins that misbehave, processes that die: what the client may notice, and what it never may.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tests::load::{self, Load};
use tests::origin::echo;
use tests::process::{self, open_files};
use tests::{Client, Gateway, Origin, PATIENCE, Script, WireError, answer, eventually, get};

/// What the client must see of a bad answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// A whole answer of the gateway's own: 502 (504).
    Refusal,
    /// An answer whose end is missing so that it shows.
    Cut,
}

/// Bad answers: what, bytes, and whether the origin then closes.
fn bad_answers() -> Vec<(&'static str, Vec<u8>, bool, Seen)> {
    use Seen::{Cut, Refusal};
    let text = |s: &str| s.as_bytes().to_vec();
    let with =
        |fields: &str| text(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    let chunked =
        |body: &str| text(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
    vec![
        ("FIN at once", text(""), true, Refusal),
        ("FIN in the status line", text("HTTP/1.1 20"), true, Refusal),
        ("FIN in the head", text("HTTP/1.1 200 OK\r\nContent-Le"), true, Refusal),
        ("FIN after a 100", text("HTTP/1.1 100 Continue\r\n\r\n"), true, Refusal),
        ("garbage", text("garbage garbage\r\n\r\n"), false, Refusal),
        ("binary garbage", (0..=255u8).cycle().take(2_000).collect(), false, Refusal),
        ("HTTP/0.9", text("<html>hello</html>"), true, Refusal),
        ("HTTP/2.0", text("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), false, Refusal),
        (
            "a lower-case version",
            text("http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            false,
            Refusal,
        ),
        ("status 99", text("HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n"), false, Refusal),
        ("status 1000", text("HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n"), false, Refusal),
        ("no status", text("HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"), false, Refusal),
        (
            "a 101 nobody asked for",
            text("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            false,
            Refusal,
        ),
        (
            "a 100 KB head",
            with(&format!("X: {}\r\nContent-Length: 17", "x".repeat(100_000))),
            false,
            Refusal,
        ),
        (
            "5,000 fields",
            with(&format!("{}Content-Length: 17", "X: y\r\n".repeat(5_000))),
            false,
            Refusal,
        ),
        (
            "a flood of 1xx",
            text(&"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(5_000)),
            false,
            Refusal,
        ),
        ("two lengths", with("Content-Length: 17\r\nContent-Length: 5"), false, Refusal),
        ("a list of lengths", with("Content-Length: 17, 5"), false, Refusal),
        ("a signed length", with("Content-Length: +17"), false, Refusal),
        ("a huge length", with("Content-Length: 99999999999999999999"), false, Refusal),
        (
            "length and coding",
            with("Content-Length: 17\r\nTransfer-Encoding: chunked"),
            false,
            Refusal,
        ),
        (
            "coding and length",
            with("Transfer-Encoding: chunked\r\nContent-Length: 17"),
            false,
            Refusal,
        ),
        ("an unknown coding", with("Transfer-Encoding: gzip"), true, Refusal),
        ("chunked twice", with("Transfer-Encoding: chunked, chunked"), false, Refusal),
        ("chunked not last", with("Transfer-Encoding: chunked, gzip"), true, Refusal),
        ("bare LF", text("HTTP/1.1 200 OK\nContent-Length: 0\n\n"), false, Refusal),
        ("bare LF in a field", with("X: y\nContent-Length: 17"), false, Refusal),
        ("bare CR in a field", with("X: y\rz\r\nContent-Length: 17"), false, Refusal),
        ("obs-fold", with("X: y\r\n z\r\nContent-Length: 17"), false, Refusal),
        ("NUL in a value", with("X: y\0z\r\nContent-Length: 17"), false, Refusal),
        ("no colon", with("X y\r\nContent-Length: 17"), false, Refusal),
        ("space before the colon", with("Content-Length : 17"), false, Refusal),
        ("an empty name", with(": y\r\nContent-Length: 17"), false, Refusal),
        (
            "FIN in a counted body",
            text("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
            true,
            Cut,
        ),
        (
            "FIN before a counted body",
            text("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
            true,
            Cut,
        ),
        ("FIN in a chunk", chunked("a\r\nhalf"), true, Cut),
        ("FIN between chunks", chunked("4\r\nhalf\r\n"), true, Cut),
        ("FIN before the last line", chunked("4\r\nhalf\r\n0\r\n"), true, Cut),
        ("a bad chunk size", chunked("4\r\nhalf\r\nx\r\n\r\n"), false, Cut),
        ("a signed chunk size", chunked("4\r\nhalf\r\n+4\r\nhalf\r\n0\r\n\r\n"), false, Cut),
        ("a chunk too long", chunked("4\r\nhalfway\r\n0\r\n\r\n"), false, Cut),
        ("bare LF after a chunk", chunked("4\r\nhalf\n0\r\n\r\n"), false, Cut),
        ("an overflowing chunk size", chunked("4\r\nhalf\r\nfffffffffffffffff\r\nx"), false, Cut),
    ]
}

/// Asks once; says what the client saw.
fn look(client: &mut Client, target: &str) -> Result<Seen, String> {
    client.send(get(target));
    match client.response() {
        Ok(response) if matches!(response.status, 502 | 504) => {
            response.problem()?;
            Ok(Seen::Refusal)
        }
        Ok(response) => {
            Err(format!("a whole answer: {} {:?}", response.head.start, response.text()))
        }
        Err(WireError::Truncated(_) | WireError::Reset(_) | WireError::Closed) => Ok(Seen::Cut),
        Err(e) => Err(format!("{e:?}")),
    }
}

#[test]
fn bad_origins_get_502_or_a_cut_that_shows() {
    let cases = Arc::new(bad_answers());
    let scripts = cases.clone();
    let origin = Origin::start(move |seen| {
        let Ok(n) = seen.target.trim_start_matches("/bad/").parse::<usize>() else {
            return echo(seen);
        };
        let (_, bytes, close, _) = &scripts[n];
        let script = Script::default().send(bytes.clone());
        if *close { script.close() } else { script }
    });
    let gateway = Gateway::front(&origin);
    let mut failures = Vec::new();
    for (n, (what, _, _, expected)) in cases.iter().enumerate() {
        match look(&mut gateway.connect(), &format!("/bad/{n}")) {
            // Nothing of the answer may have gone out yet when the end is found to be bad.
            Ok(seen) if seen == *expected || (*expected == Seen::Cut && seen == Seen::Refusal) => {}
            Ok(seen) => failures.push(format!("{what}: {seen:?} instead of {expected:?}")),
            Err(e) => failures.push(format!("{what}: {e}")),
        }
        // Whatever it was, the next request is served as if nothing had been.
        let next = gateway.ask(get("/next"));
        if next.text() != "GET /next\n" {
            failures.push(format!("{what}: then {} {:?}", next.head.start, next.text()));
        }
    }
    let reused = origin.seen().iter().any(|seen| {
        seen.nth > 0
            && origin.seen().iter().any(|bad| {
                bad.connection == seen.connection
                    && bad.nth + 1 == seen.nth
                    && bad.target.starts_with("/bad/")
            })
    });
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(!reused, "a connection was used again after a bad answer");
}

#[test]
fn resets_before_and_inside_an_answer() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/before" => Script::default().reset(),
        "/inside" => Script::default()
            .send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            .sleep(Duration::from_millis(50))
            .reset(),
        "/chunked" => Script::default()
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            .sleep(Duration::from_millis(50))
            .reset(),
        // A reset is no end: the body could have been longer.
        "/until-close" => Script::default()
            .send("HTTP/1.1 200 OK\r\n\r\nhalf")
            .sleep(Duration::from_millis(50))
            .reset(),
        _ => echo(seen),
    });
    let gateway = Gateway::front(&origin);
    for (target, expected) in [
        ("/before", Seen::Refusal),
        ("/inside", Seen::Cut),
        ("/chunked", Seen::Cut),
        ("/until-close", Seen::Cut),
    ] {
        assert_eq!(look(&mut gateway.connect(), target), Ok(expected), "{target}");
        assert_eq!(gateway.ask(get("/next")).text(), "GET /next\n", "after {target}");
    }
}

#[test]
fn all_targets_down_is_an_answer_and_other_routes_live() {
    let origin = Origin::echo();
    // A port that no other test will listen on.
    let down = SocketAddr::from(([127, 0, 0, 1], 1));
    let spec = tests::spec::Spec::to(origin.address())
        .also_upstream("down", down, "")
        .also_route("{ name: down, match: { path: { prefix: /down } }, upstream: down }");
    let gateway = Gateway::of(&spec);
    let load = Load::start(gateway.address(), 4, 0, &get("/up"), load::ok);
    for _ in 0..200 {
        let response = gateway.ask(get("/down"));
        assert!(matches!(response.status, 502 | 503), "{}", response.head.start);
        response.problem().unwrap();
    }
    load.await_more(100);
    load.stop_clean();
}

#[test]
fn control_killed_under_load_fails_nothing() {
    let origin = Origin::echo();
    let mut gateway = Gateway::front(&origin);
    let load = Load::start(gateway.address(), 8, 50, &get("/load"), load::ok);
    for _ in 0..5 {
        load.await_more(200);
        let old = gateway.kill("control");
        load.await_more(200);
        assert!(
            eventually(PATIENCE, || gateway.find("control").is_some_and(|pid| pid != old)),
            "control is not started again"
        );
    }
    load.stop_clean();
    // The new control takes over: it is ready and can apply.
    let ready = |gateway: &Gateway| {
        Client::try_connect(gateway.admin_address().parse().unwrap()).is_ok()
            && gateway.admin("/readyz").0 == 200
    };
    assert!(eventually(PATIENCE, || ready(&gateway)), "control does not get ready again");
    let text =
        tests::spec::Spec::to(origin.address()).route("rewrite: { replace_prefix: /new }").text();
    gateway.apply(&text);
    assert!(eventually(PATIENCE, || gateway.ask(get("/x")).text() == "GET /new/x\n"));
}

#[test]
fn control_stopped_fails_nothing() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let load = Load::start(gateway.address(), 8, 50, &get("/load"), load::ok);
    load.await_more(100);
    process::signal(gateway.pid_of("control"), Signal::STOP);
    // More records than any ring holds: a full ring must drop, never block.
    load.await_more(20_000.min(load.done() * 50));
    process::signal(gateway.pid_of("control"), Signal::CONT);
    load.await_more(100);
    load.stop_clean();
    assert!(eventually(PATIENCE, || gateway.admin("/readyz").0 == 200));
}

/// Opens connections without a pause until told to stop; the errors are what counts.
fn knock(address: SocketAddr, stop: Arc<AtomicBool>) -> thread::JoinHandle<(usize, Vec<String>)> {
    thread::spawn(move || {
        let (mut tried, mut refused) = (0, Vec::new());
        while !stop.load(Ordering::SeqCst) {
            tried += 1;
            if let Err(e) = TcpStream::connect_timeout(&address, PATIENCE) {
                refused.push(e.to_string());
            }
            thread::sleep(Duration::from_millis(2));
        }
        (tried, refused)
    })
}

#[test]
fn engine_killed_refuses_no_connection_and_serves_again() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let stop = Arc::new(AtomicBool::new(false));
    let knocking = knock(gateway.address(), stop.clone());
    for round in 0..5 {
        let old = gateway.kill("engine");
        // Asked during the gap: the connection waits in the queue and is served afterwards.
        assert_eq!(after_a_kill(&gateway, "/gap"), "GET /gap\n", "round {round}");
        assert_ne!(gateway.pid_of("engine"), old);
    }
    stop.store(true, Ordering::SeqCst);
    let (tried, refused) = knocking.join().unwrap();
    assert!(
        refused.is_empty(),
        "{} of {tried} connections were refused: {refused:?}",
        refused.len()
    );
    assert!(eventually(PATIENCE, || gateway.admin("/readyz").0 == 200));
}

/// What is answered once the engine was killed. The kernel takes a killed process apart after its
/// end: a connection that its rings still accept is lost with them, as those it served are.
fn after_a_kill(gateway: &Gateway, path: &str) -> String {
    let mut answer = None;
    let answered = eventually(PATIENCE, || {
        let mut client = gateway.connect();
        client.patience(PATIENCE).send(get(path));
        match client.response() {
            Err(WireError::Closed | WireError::Reset(_)) => false,
            other => {
                answer = Some(other.expect("a whole answer").text());
                true
            }
        }
    });
    assert!(answered, "nothing but lost connections");
    answer.unwrap_or_default()
}

#[test]
fn the_engine_starts_again_without_control() {
    let origin = Origin::echo();
    let mut gateway = Gateway::front(&origin);
    // The last configuration must be the applied one, not the one `up` began with.
    gateway.apply(
        &tests::spec::Spec::to(origin.address()).route("rewrite: { replace_prefix: /new }").text(),
    );
    process::signal(gateway.pid_of("control"), Signal::STOP);
    for _ in 0..3 {
        gateway.kill("engine");
        let served = after_a_kill(&gateway, "/x");
        assert_eq!(served, "GET /new/x\n", "on the last snapshot, with control dead");
    }
    process::signal(gateway.pid_of("control"), Signal::CONT);
    assert!(eventually(PATIENCE, || gateway.admin("/readyz").0 == 200));
}

#[test]
fn sigterm_and_sigint_drain() {
    for signal in [Signal::TERM, Signal::INT] {
        let origin = Origin::start(|_| answer("slow\n").after(Duration::from_millis(700)));
        let mut gateway = Gateway::front(&origin);
        let mut idle = gateway.connect();
        let mut busy = gateway.connect();
        busy.send(get("/slow"));
        origin.await_seen(1);
        gateway.signal(signal);
        let response = busy.response().unwrap_or_else(|e| panic!("{signal:?}: in flight: {e:?}"));
        assert_eq!((response.status, response.text()), (200, "slow\n".into()), "{signal:?}");
        assert!(response.says_close(), "{signal:?}: a draining gateway says that it closes");
        idle.assert_closed("an idle connection at the drain");
        let status = gateway.wait(PATIENCE).unwrap_or_else(|| panic!("{signal:?}: still running"));
        assert_eq!(status.code(), Some(0), "{signal:?}");
    }
}

#[test]
fn nothing_outlives_the_supervisor() {
    let origin = Origin::echo();
    let mut gateway = Gateway::front(&origin);
    let pids = [gateway.pid_of("engine"), gateway.pid_of("control")];
    gateway.signal(Signal::KILL);
    assert!(gateway.wait(PATIENCE).is_some());
    let gone = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")
    };
    assert!(eventually(PATIENCE, || pids.iter().all(gone)), "the engine or control lives on alone");
}

#[test]
fn broken_connections_leak_no_descriptor() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/cut" => Script::default().send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx").close(),
        "/reset" => Script::default().reset(),
        _ => echo(seen),
    });
    let gateway = Gateway::front(&origin);
    let round = || {
        for n in 0..60 {
            let mut client = gateway.connect();
            match n % 6 {
                0 => drop(client),
                1 => client.wire.reset(),
                2 => {
                    client.send("GET /half HTTP/1.1\r\nHo");
                    client.wire.reset();
                }
                3 => {
                    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nhalf");
                    client.wire.reset();
                }
                4 => drop(client.send(get("/cut")).response()),
                _ => drop(client.send(get("/reset")).response()),
            }
        }
        origin.hang_up();
    };
    let engine = gateway.pid_of("engine");
    round();
    assert_eq!(gateway.ask(get("/")).status, 200);
    origin.hang_up();
    thread::sleep(Duration::from_millis(300));
    let before = open_files(engine);
    (0..10).for_each(|_| round());
    assert!(
        eventually(PATIENCE, || open_files(engine) <= before + 4),
        "{} descriptors became {}",
        before,
        open_files(engine)
    );
    assert_eq!(gateway.pid_of("engine"), engine, "the engine did not die on the way");
}
