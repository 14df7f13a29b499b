//! Row 14 of the faults table for HTTP/2 origins: whatever they send, a client gets a whole answer of
//! the gateway's own or an end that shows, and others never notice.

use std::sync::Arc;

use tests::http2::client::request;
use tests::http2::frame::*;
use tests::http2::{Broken, H2Client, H2Origin, H2Seen, Reply};
use tests::{Framing, Gateway, WireError};

use super::spec_h2;

/// What the client must see.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// The gateway's own 502 (504).
    Refusal,
    /// An answer whose end is missing so that it shows.
    Cut,
}

const OK: &[(&str, &str)] = &[(":status", "200")];

type Bad = (&'static str, Seen, Box<dyn Fn(u32) -> Reply + Send + Sync>);

/// An answer of one head with these fields.
fn head(what: &'static str, fields: &'static [(&'static str, &'static str)]) -> Bad {
    (what, Seen::Refusal, Box::new(|_| Reply::default().last(fields)))
}

/// Raw frames, given the stream.
fn raw(what: &'static str, seen: Seen, frame: fn(u32) -> Vec<Frame>) -> Bad {
    let reply = move |stream| {
        frame(stream).into_iter().fold(Reply::default(), |reply, frame| reply.raw(frame))
    };
    (what, seen, Box::new(reply))
}

fn bad_answers() -> Vec<Bad> {
    use Seen::{Cut, Refusal};
    vec![
        // RFC 9113 §8.3.2, §8.2: the head.
        head("no status", &[("x-a", "b")]),
        head("two statuses", &[(":status", "200"), (":status", "200")]),
        head("a status of two digits", &[(":status", "99")]),
        head("a status of four digits", &[(":status", "1000")]),
        head("a status that is no number", &[(":status", "ok")]),
        head("a late status", &[("x-a", "b"), (":status", "200")]),
        head("a request's pseudo-field", &[(":status", "200"), (":path", "/")]),
        head("an unknown pseudo-field", &[(":status", "200"), (":x", "/")]),
        head("101", &[(":status", "101")]),
        head("a final 103", &[(":status", "103")]),
        head("an upper-case name", &[(":status", "200"), ("X-Upper", "1")]),
        head("an empty name", &[(":status", "200"), ("", "1")]),
        head("a name with a space", &[(":status", "200"), ("x y", "1")]),
        head("a name with CRLF", &[(":status", "200"), ("x\r\ny", "1")]),
        head("a value with CRLF", &[(":status", "200"), ("x-a", "1\r\nx-smuggled: 2")]),
        head("a value with LF", &[(":status", "200"), ("x-a", "1\nx-smuggled: 2")]),
        head("a value with NUL", &[(":status", "200"), ("x-a", "1\x002")]),
        head("connection", &[(":status", "200"), ("connection", "close")]),
        head("transfer-encoding", &[(":status", "200"), ("transfer-encoding", "chunked")]),
        head("upgrade", &[(":status", "200"), ("upgrade", "h2c")]),
        head(
            "two lengths",
            &[(":status", "200"), ("content-length", "0"), ("content-length", "1")],
        ),
        head("a list of lengths", &[(":status", "200"), ("content-length", "0, 0")]),
        head("a signed length", &[(":status", "200"), ("content-length", "+0")]),
        head("a length and no body", &[(":status", "200"), ("content-length", "5")]),
        // Its body.
        (
            "a body shorter than its length",
            Cut,
            Box::new(|_| {
                Reply::default()
                    .head(&[(":status", "200"), ("content-length", "9")])
                    .data("half")
                    .end()
            }),
        ),
        (
            "a body longer than its length",
            Cut,
            Box::new(|_| {
                Reply::default()
                    .head(&[(":status", "200"), ("content-length", "2")])
                    .data("long")
                    .end()
            }),
        ),
        raw("DATA before a head", Refusal, |s| vec![Frame::data(s, "x", true)]),
        (
            "trailers with a pseudo-field",
            Cut,
            Box::new(|_| Reply::default().head(OK).data("x").last(&[(":status", "200")])),
        ),
        (
            "trailers that do not end the stream",
            Cut,
            Box::new(|_| Reply::default().head(OK).data("x").head(&[("x-a", "b")])),
        ),
        ("a reset", Refusal, Box::new(|_| Reply::default().reset(INTERNAL_ERROR))),
        (
            "a reset in the body",
            Cut,
            Box::new(|_| Reply::default().head(OK).data("half").reset(CANCEL)),
        ),
        (
            "NO_ERROR in the body",
            Cut,
            Box::new(|_| Reply::default().head(OK).data("half").reset(NO_ERROR)),
        ),
        ("the end of the connection", Refusal, Box::new(|_| Reply::default().close())),
        (
            "the end of the connection in the body",
            Cut,
            Box::new(|_| Reply::default().head(OK).data("half").close()),
        ),
        (
            "a flood of 1xx",
            Refusal,
            Box::new(|_| {
                (0..5_000).fold(Reply::default(), |reply, _| reply.head(&[(":status", "103")]))
            }),
        ),
        (
            "a head beyond the limit",
            Refusal,
            Box::new(|stream| {
                let value = "v".repeat(15_000);
                let first = Frame::new(HEADERS, END_STREAM, stream, block(OK));
                let more = Frame::new(CONTINUATION, 0, stream, block(&[("x-a", &value)]));
                let last = Frame::new(CONTINUATION, END_HEADERS, stream, Vec::new());
                (0..10).fold(Reply::default().raw(first), |r, _| r.raw(more.clone())).raw(last)
            }),
        ),
        // RFC 9113 §4 to §6: the connection.
        raw("a frame beyond the limit", Refusal, |s| {
            vec![Frame::new(HEADERS, 5, s, vec![0; 16_385])]
        }),
        raw("HPACK index 0", Refusal, |s| vec![Frame::new(HEADERS, 5, s, [0x80])]),
        raw("an index out of range", Refusal, |s| vec![Frame::new(HEADERS, 5, s, [0xff, 0xff, 1])]),
        raw("a push", Refusal, |s| {
            let mut promise = 2u32.to_be_bytes().to_vec();
            promise.extend(block(&request("GET", "/pushed")));
            vec![Frame::new(PUSH_PROMISE, END_HEADERS, s, promise)]
        }),
        raw("a stream that nobody opened", Refusal, |_| vec![Frame::headers(99_999, OK, true)]),
        raw("an even stream", Refusal, |_| vec![Frame::headers(2, OK, true)]),
        raw("CONTINUATION alone", Refusal, |s| vec![Frame::new(CONTINUATION, 4, s, [])]),
        raw("SETTINGS of 5 bytes", Refusal, |_| vec![Frame::new(SETTINGS, 0, 0, [0; 5])]),
        raw("ENABLE_PUSH=1 from a server", Refusal, |_| vec![Frame::settings(&[(ENABLE_PUSH, 1)])]),
        raw("a window beyond 2^31-1", Refusal, |_| vec![Frame::window_update(0, 0x7fff_ffff)]),
        raw("WINDOW_UPDATE 0", Refusal, |_| vec![Frame::window_update(0, 0)]),
        raw("DATA beyond the window", Cut, |s| {
            let mut frames = vec![Frame::headers(s, OK, false)];
            frames.extend((0..2_000).map(|_| Frame::data(s, vec![0; 16_384], false)));
            frames
        }),
        raw("HTTP/1.1", Refusal, |_| {
            // Nine bytes of it are read as a frame's head.
            vec![Frame::new(b'1', b'.', 0x3120_3230, b"HTTP/1.1 200 OK\r\n\r\n".to_vec())]
        }),
    ]
}

fn serve(cases: &[Bad], seen: &H2Seen) -> Reply {
    match seen.path().trim_start_matches("/bad/").parse::<usize>() {
        Ok(n) => cases[n].2(seen.stream),
        Err(_) => tests::http2::origin::echo(seen),
    }
}

/// Judges an answer over HTTP/2.
fn over_h2(client: &mut H2Client, path: &str) -> Result<Seen, String> {
    let stream = client.get(path);
    match client.answer(stream) {
        Ok(answer) if matches!(answer.status, 502 | 504) => Ok(Seen::Refusal),
        Ok(answer) => Err(format!("a whole answer: {answer:?}")),
        Err(Broken::Reset(code, _)) if code != NO_ERROR => Ok(Seen::Cut),
        Err(e) => Err(format!("{e:?}").chars().take(200).collect()),
    }
}

/// And over HTTP/1.
fn over_h1(gateway: &Gateway, path: &str) -> Result<Seen, String> {
    let mut client = gateway.connect();
    client.send(tests::get(path));
    match client.response() {
        Ok(response) if matches!(response.status, 502 | 504) => {
            response.problem()?;
            Ok(Seen::Refusal)
        }
        Ok(response) if response.framing == Framing::UntilClose => Err("an open end".into()),
        Ok(response) => {
            Err(format!("a whole answer: {} {:?}", response.head.start, response.text()))
        }
        Err(WireError::Truncated(_) | WireError::Reset(_) | WireError::Closed) => Ok(Seen::Cut),
        Err(e) => Err(format!("{e:?}").chars().take(200).collect()),
    }
}

#[test]
fn bad_h2_origins_get_502_or_a_cut_that_shows() {
    let cases = Arc::new(bad_answers());
    let served = cases.clone();
    let origin = H2Origin::clear(move |seen| serve(&served, seen)).lenient();
    let gateway =
        Gateway::of(&spec_h2(&origin).upstream("timeouts: { first_byte_ms: 2000, idle_ms: 2000 }"));
    let mut failures = Vec::new();
    for (n, (what, expected, _)) in cases.iter().enumerate() {
        let path = format!("/bad/{n}");
        let mut client = H2Client::clear(gateway.address());
        for (over, seen) in [("h2", over_h2(&mut client, &path)), ("h1", over_h1(&gateway, &path))]
        {
            match seen {
                // Nothing of the answer may have gone out yet when the end is found to be bad.
                Ok(seen) if seen == *expected || seen == Seen::Refusal => {}
                Ok(seen) => failures.push(format!("{what}, {over}: {seen:?}, not {expected:?}")),
                Err(e) => failures.push(format!("{what}, {over}: {e}")),
            }
        }
        // Whatever it was, the same client and others are served.
        let next = client.get("/next");
        match client.answer(next) {
            Ok(answer) if answer.text() == "GET /next\n" => {}
            other => failures.push(format!("{what}: then {other:?}")),
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn an_origin_that_never_says_its_settings_or_takes_ours() {
    // It reads and says nothing: the request ends at its deadline, and not before.
    let origin = tests::Origin::raw(|mut wire, _| {
        let _ = wire.until_close(&mut |_| {});
    });
    let spec = tests::spec::Spec::to(origin.address())
        .listener("h2c: true")
        .upstream("protocol: http2, timeouts: { connect_ms: 500, first_byte_ms: 500 }");
    let gateway = Gateway::of(&spec);
    let mut client = H2Client::clear(gateway.address());
    let answer = client.ask(&request("GET", "/silent"), b"");
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
}
