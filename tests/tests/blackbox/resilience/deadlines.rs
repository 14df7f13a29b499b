//! What bounds a try, and what bounds all of them.

use std::time::Duration;

use tests::http2::client::request;
use tests::http2::{H2Client, H2Origin, Reply};
use tests::spec::Spec;
use tests::{Gateway, Script, get};

use super::*;

fn hang() -> Script {
    Script::default().sleep(Duration::from_secs(20))
}

fn reason(response: &Response) -> String {
    response.problem().expect("the gateway's own answer")
}

#[test]
fn a_try_has_a_time_of_its_own() {
    let only = Moody::new("only");
    only.turn(hang());
    let spec = turns(&[&only], &[QUICK, "timeouts: { try_ms: 150 }"]).also_route(
        "{ name: own, match: { path: /own }, upstream: origin, timeouts: { try_ms: none, first_byte_ms: 200 } }",
    );
    let gateway = Gateway::single(&spec);
    let answer = gateway.ask(get("/x"));
    assert_eq!((answer.status, reason(&answer).as_str()), (504, "try_timeout"));
    assert_eq!(only.seen(), 3, "each of its tries");
    // A slow answer is another matter than a try that is over: it is not repeated.
    only.origin.forget();
    let answer = gateway.ask(get("/own"));
    assert_eq!((answer.status, reason(&answer).as_str()), (504, "first_byte_timeout"));
    assert_eq!(only.seen(), 1);
    assert!(eventually(PATIENCE, || standing(&gateway)["standing"]["active_requests"] == 0));
}

#[test]
fn an_answer_that_has_begun_is_not_cut_by_the_trys_time() {
    let slow = Moody::new("slow");
    let answer = Script::default()
        .send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        .sleep(Duration::from_millis(400))
        .send("def");
    slow.turn(answer);
    let gateway = Gateway::single(&turns(&[&slow], &["timeouts: { try_ms: 150 }"]));
    assert_eq!(gateway.ask(get("/x")).text(), "abcdef");
}

#[test]
fn the_whole_time_bounds_the_tries() {
    let only = Moody::new("only");
    only.turn(hang());
    let settings =
        ["retry: { attempts: 10, backoff_base_ms: 1 }", "timeouts: { try_ms: 200, total_ms: 500 }"];
    let gateway = Gateway::single(&turns(&[&only], &settings));
    assert_eq!(gateway.ask(get("/x")).status, 504);
    assert!((1..=3).contains(&only.seen()), "{} tries", only.seen());
    // Nor does a pause go beyond it.
    only.turn(tests::origin::answer_with("503 X", "Retry-After: 1\r\n", "no"));
    only.origin.forget();
    assert_eq!(gateway.ask(get("/x")).status, 503);
    assert_eq!(only.seen(), 1);
    assert_eq!(log_line(&gateway, 2)["retry_stopped"], "deadline");
}

#[test]
fn the_client_says_how_long_it_waits() {
    let only = Moody::new("only");
    let spec = turns(&[&only], &[QUICK]).route("deadline_header: x-request-timeout-ms");
    let gateway = Gateway::single(&spec);
    let ask = |value: &str| {
        gateway.ask(format!(
            "GET /x HTTP/1.1\r\nHost: a.test\r\nX-Request-Timeout-Ms: {value}\r\n\r\n"
        ))
    };
    // It is passed on, less what is gone.
    assert_eq!(ask("5000").text(), "only");
    let passed = only.origin.last().field("x-request-timeout-ms").map(str::to_owned);
    let left: u64 = passed.as_deref().unwrap_or_default().parse().expect("milliseconds");
    assert!(left <= 5_000 && left > 0, "{left}");
    only.turn(hang());
    let answer = ask("200");
    assert_eq!((answer.status, reason(&answer).as_str()), (504, "deadline_exceeded"));
    assert_eq!(only.seen(), 2, "the client will not wait for another try");
    // A client with no patience is no failure of the target's.
    for _ in 0..5 {
        assert_eq!(ask("50").status, 504);
    }
    only.heal();
    assert_eq!(ask("5000").status, 200);
    assert_ne!(state_of(&gateway, &only), "ejected");
}

#[test]
fn a_calls_deadline_bounds_its_tries() {
    let origin = H2Origin::clear(|seen| match seen.path() {
        "/t.T/Hang" => Reply::default().sleep(Duration::from_secs(20)),
        _ => Reply::default().request().last(&[
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "0"),
        ]),
    });
    let spec = Spec::to(origin.address())
        .listener("h2c: true")
        .upstream("protocol: http2, timeouts: { try_ms: 150 }")
        .upstream("retry: { attempts: 10, methods: any, backoff_base_ms: 1 }");
    let gateway = Gateway::single(&spec);
    let mut client = H2Client::clear(gateway.address());
    let mut call = request("POST", "/t.T/Hang");
    call.extend([("te", "trailers"), ("content-type", "application/grpc")]);
    call.push(("grpc-timeout", "400m"));
    let answer = client.ask(&call, b"\0\0\0\0\0");
    let status = answer.field("grpc-status").or(answer.trailer("grpc-status"));
    // DEADLINE_EXCEEDED.
    assert_eq!(status, Some("4"), "{answer:?}");
    let seen = origin.seen();
    assert!((2..=4).contains(&seen.len()), "{} tries", seen.len());
    let left =
        |n: usize| seen.get(n).and_then(|seen| seen.field("grpc-timeout").map(str::to_owned));
    assert_ne!(left(0), left(1), "each try is told what is left");
}
