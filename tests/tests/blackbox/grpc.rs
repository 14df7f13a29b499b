//! gRPC through the gateway: calls of every shape, deadlines, cancellation, errors as a gRPC client
//! reads them, gRPC-Web, health checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tests::http2::frame::*;
use tests::http2::{Answer, Broken, H2Client, H2Origin, H2Seen, Reply};
use tests::message::values;
use tests::spec::Spec;
use tests::websocket::{base64, unbase64};
use tests::{Gateway, PATIENCE, eventually};

const OK: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];

fn spec(origin: &H2Origin) -> Spec {
    Spec::to(origin.address()).listener("h2c: true").upstream("protocol: http2")
}

/// A message with its five bytes of prefix.
fn message(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn call<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = tests::http2::client::request("POST", path);
    fields.extend([("te", "trailers"), ("content-type", "application/grpc")]);
    fields.extend_from_slice(more);
    fields
}

/// grpc-status, wherever it is: trailers, or the head of an answer that is nothing else.
fn status(answer: &Answer) -> Option<u32> {
    let all = [values(&answer.trailers, "grpc-status"), values(&answer.fields, "grpc-status")];
    let all = all.concat();
    assert!(all.len() <= 1, "{answer:?}");
    all.first().and_then(|code| code.parse().ok())
}

/// An answer of the gateway's own, as a gRPC client wants it.
fn own(answer: &Answer, code: u32) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let kind = answer.field("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/grpc"), "{answer:?}");
    assert_eq!(status(answer), Some(code), "{answer:?}");
    assert_eq!(answer.body.len(), 0, "{answer:?}");
}

fn serve(seen: &H2Seen) -> Reply {
    match seen.path() {
        "/t.T/Unary" => Reply::default().request().head(OK).data(message(b"answer")).last(&[
            ("grpc-status", "0"),
            ("x-trailer", "t"),
            ("x-bin", "AAEC"),
        ]),
        "/t.T/Bidi" => Reply::default().head(OK).echo(),
        "/t.T/Stream" => {
            let mut reply = Reply::default().request().head(OK);
            for n in 0..3u8 {
                reply = reply.data(message(&[n])).sleep(Duration::from_millis(200));
            }
            reply.last(&[("grpc-status", "0")])
        }
        "/t.T/Error" => Reply::default().request().last(&[
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "5"),
            ("grpc-message", "no%20such%20thing"),
        ]),
        "/t.T/Late" => Reply::default()
            .request()
            .head(OK)
            .data(message(b"half"))
            .last(&[("grpc-status", "13"), ("grpc-message", "late")]),
        "/t.T/Sleep" => Reply::default().sleep(Duration::from_secs(60)),
        "/t.T/Begin" => {
            Reply::default().head(OK).data(message(b"1")).sleep(Duration::from_secs(60))
        }
        _ => Reply::default().request().last(&[
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "12"),
        ]),
    }
}

#[test]
fn unary_calls_with_metadata() {
    let origin = H2Origin::clear(serve);
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    let fields = call(
        "/t.T/Unary",
        &[("x-meta", "m"), ("x-meta-bin", "AAEC"), ("grpc-encoding", "identity")],
    );
    let answer = client.ask(&fields, &message(b"question"));
    assert_eq!((answer.status, answer.body.as_slice()), (200, &message(b"answer")[..]));
    assert_eq!(status(&answer), Some(0));
    assert_eq!((answer.trailer("x-trailer"), answer.trailer("x-bin")), (Some("t"), Some("AAEC")));
    let seen = origin.last();
    assert_eq!(seen.body, message(b"question"));
    // The transport demands it of every hop (PROTOCOL-HTTP2, Requests).
    assert_eq!(seen.field("te"), Some("trailers"));
    assert_eq!(seen.field("content-type"), Some("application/grpc"));
    assert_eq!((seen.field("x-meta"), seen.field("x-meta-bin")), (Some("m"), Some("AAEC")));
}

#[test]
fn streams_flow_as_they_come() {
    let origin = H2Origin::clear(serve);
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    // Bidirectional: each message comes back before the next is sent.
    let stream = client.begin(&call("/t.T/Bidi", &[]), false);
    let mut sent = Vec::new();
    for n in 0..5u8 {
        let next = message(&vec![n; 1_000]);
        client.body(stream, &next, false).unwrap();
        sent.extend_from_slice(&next);
        let there = client.until(PATIENCE, |client| client.so_far(stream).body.len() >= sent.len());
        assert!(there && client.so_far(stream).body == sent, "message {n}");
    }
    client.body(stream, b"", true).unwrap();
    assert!(client.answer(stream).is_ok());
    // From the server.
    let answer = client.ask(&call("/t.T/Stream", &[]), &message(b""));
    assert_eq!(answer.body, [message(&[0]), message(&[1]), message(&[2])].concat());
    assert_eq!(status(&answer), Some(0));
}

#[test]
fn errors_of_the_origin_pass_through() {
    let origin = H2Origin::clear(serve);
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    let answer = client.ask(&call("/t.T/Error", &[]), &message(b""));
    own(&answer, 5);
    let message_of =
        [values(&answer.fields, "grpc-message"), values(&answer.trailers, "grpc-message")];
    assert_eq!(message_of.concat(), ["no%20such%20thing"]);
    let answer = client.ask(&call("/t.T/Late", &[]), &message(b""));
    assert_eq!((status(&answer), answer.trailer("grpc-message")), (Some(13), Some("late")));
    assert_eq!(answer.body, message(b"half"));
}

#[test]
fn own_answers_are_grpc_statuses() {
    let origin = H2Origin::clear(serve);
    let down = tests::scratch::free_port();
    let spec = Spec::to(std::net::SocketAddr::from(([127, 0, 0, 1], down)))
        .listener("h2c: true")
        .upstream("protocol: http2")
        .matching("hosts: [a.test]")
        .also_upstream("up", origin.address(), "protocol: http2")
        .also_route(
            "{ name: small, match: { hosts: [a.test], path: { prefix: /small } }, upstream: up, max_body_bytes: 10 }",
        );
    let gateway = Gateway::of(&spec);
    let mut client = H2Client::clear(gateway.address());
    // http-grpc-status-mapping: 503 and 502 are UNAVAILABLE, 404 is UNIMPLEMENTED.
    own(&client.ask(&call("/t.T/Down", &[]), &message(b"")), 14);
    let mut nowhere = call("/t.T/Nowhere", &[]);
    nowhere[2].1 = "b.test";
    own(&client.ask(&nowhere, &message(b"")), 12);
    // 413, which that mapping does not name: UNKNOWN, or what it is, a matter of resources.
    let large = client.ask(&call("/small", &[]), &message(&[0; 100]));
    assert_eq!(large.status, 200, "{large:?}");
    assert!(matches!(status(&large), Some(2 | 8 | 11)), "{large:?}");
    // To others the same is a problem of HTTP.
    let plain = client.ask(&tests::http2::client::request("GET", "/t.T/Down"), b"");
    assert!(matches!(plain.status, 502 | 503), "{plain:?}");
    assert_eq!(plain.field("content-type"), Some("application/problem+json"));
    // A gRPC call over HTTP/1 is told the same way.
    let response = gateway.ask(
        "POST /t.T/Down HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc\r\n\
         Content-Length: 5\r\n\r\n\0\0\0\0\0",
    );
    assert_eq!(response.status, 200, "{:?}", response.head.fields);
}

#[test]
fn an_origin_that_breaks_is_unavailable() {
    let origin = H2Origin::clear(|seen| match seen.path() {
        "/t.T/Close" => Reply::default().request().close(),
        "/t.T/Reset" => Reply::default().request().reset(INTERNAL_ERROR),
        _ => Reply::default().head(OK).data(message(b"half")).reset(INTERNAL_ERROR),
    });
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    for path in ["/t.T/Close", "/t.T/Reset"] {
        let stream = client.begin(&call(path, &[]), false);
        client.body(stream, &message(b""), true).unwrap();
        match client.answer(stream) {
            // UNKNOWN, INTERNAL or UNAVAILABLE (B-60), always told as gRPC wants it.
            Ok(answer) => assert!(
                answer.status == 200 && matches!(status(&answer), Some(2 | 13 | 14)),
                "{path}: {answer:?}"
            ),
            // A reset is mapped by the client itself.
            Err(Broken::Reset(..)) => {}
            other => panic!("{path}: {other:?}"),
        }
    }
    // Inside an answer: never a clean end.
    let stream = client.begin(&call("/t.T/Half", &[]), true);
    match client.answer(stream) {
        Ok(answer) => assert!(status(&answer).is_some_and(|code| code != 0), "{answer:?}"),
        Err(Broken::Reset(code, _)) => assert_ne!(code, NO_ERROR),
        other => panic!("{other:?}"),
    }
}

/// Milliseconds of a grpc-timeout.
fn millis(value: &str) -> f64 {
    let (digits, unit) = value.split_at(value.len() - 1);
    assert!(digits.len() <= 8 && !digits.is_empty(), "grpc-timeout {value:?}");
    let n: f64 = digits.parse().unwrap_or_else(|e| panic!("grpc-timeout {value:?}: {e}"));
    n * match unit {
        "H" => 3_600_000.0,
        "M" => 60_000.0,
        "S" => 1_000.0,
        "m" => 1.0,
        "u" => 0.001,
        "n" => 0.000_001,
        _ => panic!("grpc-timeout {value:?}"),
    }
}

#[test]
fn deadlines_are_lowered_and_passed_on() {
    let origin = H2Origin::clear(serve);
    let gateway = Gateway::of(&spec(&origin).route("timeouts: { total_ms: 5000 }"));
    let mut client = H2Client::clear(gateway.address());
    let mut seen = |timeout: Option<&str>| {
        let more: Vec<_> = timeout.map(|value| ("grpc-timeout", value)).into_iter().collect();
        assert_eq!(status(&client.ask(&call("/t.T/Unary", &more), &message(b""))), Some(0));
        origin.last().field("grpc-timeout").map(millis)
    };
    // The client's own is lower: some of it is spent on the way.
    for (timeout, most) in [("2S", 2_000.0), ("1500m", 1_500.0), ("900000u", 900.0)] {
        let passed = seen(Some(timeout)).unwrap_or_else(|| panic!("{timeout} was dropped"));
        assert!(passed <= most && passed > 0.0, "{timeout} became {passed} ms");
    }
    // The route's is lower.
    for timeout in ["10S", "1M", "99999999H"] {
        let passed = seen(Some(timeout)).unwrap_or_else(|| panic!("{timeout} was dropped"));
        assert!(passed <= 5_000.0, "{timeout} became {passed} ms");
    }
    // Without one there is still the route's.
    assert!(seen(None).is_none_or(|passed| passed <= 5_000.0));
}

#[test]
fn a_deadline_that_passes_is_deadline_exceeded() {
    let origin = H2Origin::clear(serve);
    let gateway = Gateway::of(&spec(&origin).route("timeouts: { total_ms: 1000 }"));
    let mut client = H2Client::clear(gateway.address());
    for more in [&[("grpc-timeout", "300m")][..], &[]] {
        own(&client.ask(&call("/t.T/Sleep", more), &message(b"")), 4);
    }
    let sleeping = |seen: &H2Seen| seen.path() == "/t.T/Sleep";
    let cancelled = || origin.seen().iter().filter(|s| sleeping(s)).all(|s| s.reset.is_some());
    assert!(eventually(PATIENCE, cancelled), "the origin is left working");
    // After an answer has begun the end must show all the same.
    let stream = client.begin(&call("/t.T/Begin", &[("grpc-timeout", "500m")]), true);
    match client.answer(stream) {
        Ok(answer) => assert_eq!(status(&answer), Some(4), "{answer:?}"),
        Err(Broken::Reset(code, _)) => assert_ne!(code, NO_ERROR),
        other => panic!("{other:?}"),
    }
}

#[test]
fn malformed_deadlines() {
    let origin = H2Origin::clear(serve);
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    for timeout in ["", "5", "S", "-1S", "1.5S", "123456789S", "5s", "5 S", "5SS"] {
        let answer = client.ask(&call("/t.T/Unary", &[("grpc-timeout", timeout)]), &message(b""));
        // B-60: INTERNAL, or as if it were not there; then it is not passed on either.
        match status(&answer) {
            Some(0) => {
                let passed = origin.last().field("grpc-timeout").map(str::to_owned);
                assert_ne!(passed.as_deref(), Some(timeout), "passed on");
            }
            code => assert_eq!(code, Some(13), "{timeout:?}: {answer:?}"),
        }
    }
}

#[test]
fn cancellation_reaches_the_origin() {
    let origin = H2Origin::clear(serve);
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    for path in ["/t.T/Sleep", "/t.T/Begin"] {
        let stream = client.begin(&call(path, &[]), false);
        origin.await_one("asked", |seen| seen.path() == path);
        client.send(&Frame::reset(stream, CANCEL));
        let cancelled = |seen: &H2Seen| seen.path() == path && seen.reset == Some(CANCEL);
        origin.await_one("cancelled", cancelled);
    }
}

// ---------------------------------------------------------------- gRPC-Web

fn web_gateway(origin: &H2Origin) -> Gateway {
    Gateway::of(&spec(origin).route("grpc_web: true"))
}

/// Data and the fields of the trailer frame of a gRPC-Web body.
fn web_parts(mut body: &[u8]) -> (Vec<u8>, Vec<(String, String)>) {
    let mut data = Vec::new();
    while let Some(length) = number(body, 1) {
        let end = 5 + length as usize;
        assert!(body.len() >= end, "a frame of {length} bytes in {}", body.len());
        if body[0] & 0x80 == 0 {
            data.extend_from_slice(&body[..end]);
            body = &body[end..];
            continue;
        }
        let text = String::from_utf8(body[5..end].to_vec()).unwrap();
        let fields = text.split_terminator("\r\n").map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?}"));
            assert_eq!(name, name.to_ascii_lowercase());
            (name.to_owned(), value.trim().to_owned())
        });
        assert_eq!(body.len(), end, "bytes after the trailers");
        return (data, fields.collect());
    }
    panic!("no trailer frame in {body:?}");
}

#[test]
fn grpc_web_is_translated() {
    let origin = H2Origin::clear(serve);
    let gateway = web_gateway(&origin);
    for kind in ["application/grpc-web", "application/grpc-web+proto"] {
        let body = message(b"question");
        let head = format!(
            "POST /t.T/Unary HTTP/1.1\r\nHost: a.test\r\nContent-Type: {kind}\r\nX-Grpc-Web: 1\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let response = gateway.ask([head.as_bytes(), &body].concat());
        assert_eq!(response.status, 200, "{kind}");
        assert_eq!(
            response.field("content-type").map(|got| got.starts_with("application/grpc-web")),
            Some(true)
        );
        assert!(!response.field("content-type").unwrap().contains("text"));
        let (data, trailers) = web_parts(&response.body);
        assert_eq!(data, message(b"answer"));
        assert_eq!(values(&trailers, "grpc-status"), ["0"]);
        assert_eq!(values(&trailers, "x-trailer"), ["t"]);
        let seen = origin.last();
        let expected = kind.replace("-web", "");
        assert_eq!(seen.field("content-type"), Some(expected.as_str()));
        assert_eq!(seen.field("te"), Some("trailers"));
        assert_eq!(seen.body, message(b"question"));
    }
    // Over h2 it is the same.
    let mut client = H2Client::clear(gateway.address());
    let mut fields = tests::http2::client::request("POST", "/t.T/Unary");
    fields.push(("content-type", "application/grpc-web"));
    let answer = client.ask(&fields, &message(b"question"));
    let (data, trailers) = web_parts(&answer.body);
    assert_eq!((data, values(&trailers, "grpc-status")), (message(b"answer"), vec!["0"]));
}

#[test]
fn grpc_web_text_is_translated() {
    let origin = H2Origin::clear(serve);
    let gateway = web_gateway(&origin);
    let text = |path: &str, body: &str| {
        gateway.ask(format!(
            "POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc-web-text\r\n\
             Accept: application/grpc-web-text\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    // In one piece, and in two that are padded each (PROTOCOL-WEB: concatenated base64).
    let whole = message(b"question");
    for body in [base64(&whole), format!("{}{}", base64(&whole[..4]), base64(&whole[4..]))] {
        let response = text("/t.T/Unary", &body);
        assert_eq!(response.status, 200);
        let kind = response.field("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/grpc-web-text"), "{kind}");
        let bytes = unbase64(&response.text()).unwrap_or_else(|| panic!("{:?}", response.text()));
        let (data, trailers) = web_parts(&bytes);
        assert_eq!(data, message(b"answer"));
        assert_eq!(values(&trailers, "grpc-status"), ["0"]);
        assert_eq!(origin.last().body, whole);
    }
    // What is no base64 reaches no origin whole.
    let before = origin.seen().iter().filter(|seen| seen.complete).count();
    let response = text("/t.T/Unary", "!!!! this is not base64 !!!!");
    let refused =
        response.status == 400 || response.field("grpc-status").is_some_and(|code| code != "0");
    assert!(refused || web_status(&response.body).is_none_or(|code| code != "0"));
    let after = origin.seen().iter().filter(|seen| seen.complete).count();
    assert_eq!(after, before, "forwarded");
}

fn web_status(body: &[u8]) -> Option<String> {
    let bytes = unbase64(&String::from_utf8_lossy(body))?;
    let (_, trailers) = web_parts(&bytes);
    values(&trailers, "grpc-status").first().map(ToString::to_string)
}

#[test]
fn grpc_web_errors_and_streams() {
    let origin = H2Origin::clear(serve);
    let gateway = web_gateway(&origin);
    let ask = |path: &str| {
        gateway.ask(format!(
            "POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc-web\r\n\
             Content-Length: 5\r\n\r\n\0\0\0\0\0"
        ))
    };
    // Trailers-only may stay in the head (PROTOCOL-WEB) or be a frame.
    let response = ask("/t.T/Error");
    let code = match response.field("grpc-status") {
        Some(code) => code.to_owned(),
        None => values(&web_parts(&response.body).1, "grpc-status").join(","),
    };
    assert_eq!((response.status, code.as_str()), (200, "5"));
    let (data, trailers) = web_parts(&ask("/t.T/Late").body);
    assert_eq!((data, values(&trailers, "grpc-status")), (message(b"half"), vec!["13"]));
    let (data, _) = web_parts(&ask("/t.T/Stream").body);
    assert_eq!(data, [message(&[0]), message(&[1]), message(&[2])].concat());
    // Where the route does not ask for it, nothing is translated.
    let plain = Gateway::of(&spec(&origin));
    plain.ask(
        "POST /t.T/Unary HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc-web\r\n\
         Content-Length: 5\r\n\r\n\0\0\0\0\0",
    );
    assert_eq!(origin.last().field("content-type"), Some("application/grpc-web"));
}

// ---------------------------------------------------------------- health

/// An origin whose health is what `state` says (1: serving, 2: not), and which names itself.
fn judged(name: &'static str, state: Arc<AtomicU8>) -> H2Origin {
    H2Origin::clear(move |seen| match seen.path() {
        "/grpc.health.v1.Health/Check" => match state.load(Ordering::SeqCst) {
            // Not even an answer.
            0 => Reply::default().request().reset(INTERNAL_ERROR),
            // HealthCheckResponse { status: N }.
            n => Reply::default()
                .request()
                .head(OK)
                .data(message(&[0x08, n]))
                .last(&[("grpc-status", "0")]),
        },
        _ => Reply::default().request().head(&[(":status", "200")]).data(name).end(),
    })
}

#[test]
fn health_checks_take_a_target_out_and_back() {
    let states = [Arc::new(AtomicU8::new(1)), Arc::new(AtomicU8::new(1))];
    let [one, two] = [judged("one", states[0].clone()), judged("two", states[1].clone())];
    let spec = Spec::to(one.address())
        .target(two.address(), 1)
        .listener("h2c: true")
        .upstream("protocol: http2, balance: round_robin")
        .upstream(
            "health: { grpc: { service: t.T }, interval_ms: 300, timeout_ms: 250, \
             healthy_after: 1, unhealthy_after: 2 }",
        );
    let gateway = Gateway::of(&spec);
    // Over connections of their own, so that every shard is asked.
    let ask = || {
        let mut client = H2Client::clear(gateway.address());
        client.ask(&tests::http2::client::request("GET", "/who"), b"").text()
    };
    let among = |wanted: &[&str]| {
        eventually(PATIENCE, || {
            let answers: Vec<String> = (0..12).map(|_| ask()).collect();
            wanted.iter().all(|name| answers.iter().any(|answer| answer == name))
                && answers.iter().all(|answer| wanted.contains(&answer.as_str()))
        })
    };
    assert!(among(&["one", "two"]), "both at first");
    // NOT_SERVING, SERVICE_UNKNOWN, and no answer at all.
    for state in [2, 3, 0] {
        states[0].store(state, Ordering::SeqCst);
        assert!(among(&["two"]), "state {state} is still asked");
        states[0].store(1, Ordering::SeqCst);
        assert!(among(&["one", "two"]), "back from state {state}");
    }
    let check = one.seen().into_iter().find(|seen| seen.path().ends_with("/Check")).unwrap();
    assert_eq!((check.method(), check.field("te")), ("POST", Some("trailers")));
    // HealthCheckRequest { service: "t.T" }.
    assert_eq!(check.body, message(b"\x0a\x03t.T"));
}

#[test]
fn a_target_that_is_gone_is_taken_out() {
    let up = judged("up", Arc::new(AtomicU8::new(1)));
    let down = tests::scratch::free_port();
    let spec = Spec::to(up.address())
        .target(std::net::SocketAddr::from(([127, 0, 0, 1], down)), 1)
        .listener("h2c: true")
        .upstream("protocol: http2, balance: round_robin")
        .upstream(
            "health: { grpc: {}, interval_ms: 200, timeout_ms: 150, healthy_after: 1, unhealthy_after: 1 }",
        );
    let gateway = Gateway::of(&spec);
    let all_up = || {
        (0..10).all(|_| {
            let mut client = H2Client::clear(gateway.address());
            client.ask(&tests::http2::client::request("GET", "/who"), b"").status == 200
        })
    };
    assert!(eventually(PATIENCE, all_up), "a dead target is still asked");
}
