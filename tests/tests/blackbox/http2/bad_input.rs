//! Rows B-50 to B-57 of the bad-input table, and what an HTTP/1.1 origin must never be sent across
//! the crossing. The row's id is in each message.

use tests::http2::client::request;
use tests::http2::frame::*;
use tests::http2::{Broken, H2Client};
use tests::{Gateway, Origin, PATIENCE};

use super::spec;

/// A header block and what is wrong with it.
type Bad = (&'static str, String, Vec<u8>);

/// `GET /bad` with one more field.
fn field(row: &'static str, name: &[u8], value: &[u8]) -> Bad {
    let what = format!("{:?}: {:?}", tests::wire::lossy(name), tests::wire::lossy(value));
    let mut fields = block(&request("GET", "/bad"));
    fields.extend(block_of_bytes(&[(name, value)]));
    (row, what, fields)
}

/// Exactly these fields.
fn whole(row: &'static str, fields: &[(&str, &str)]) -> Bad {
    (row, format!("{fields:?}"), block(fields))
}

/// `GET /bad`, one pseudo-field replaced.
fn pseudo(row: &'static str, name: &str, value: &str) -> Bad {
    let fields: Vec<_> = request("GET", "/bad")
        .into_iter()
        .map(|(n, v)| if n == name { (n, value) } else { (n, v) })
        .collect();
    whole(row, &fields)
}

fn malformed() -> Vec<Bad> {
    let mut cases = Vec::new();
    // RFC 9113 §8.2.1: what a name may not hold.
    for name in [
        &b"Upper"[..],
        b"x-Upper",
        b"",
        b"x y",
        b" x",
        b"x ",
        b"x:y",
        b"x\ry",
        b"x\ny",
        b"x\r\nhost",
        b"x\0y",
        b"x\x7f",
        b"x\xc3\xa9",
        b"x\t",
        b"x\"",
        b"x(y)",
        b"x,y",
        b"x/y",
    ] {
        cases.push(field("B-50", name, b"v"));
    }
    // And a value.
    for value in [
        &b"a\0b"[..],
        b"a\rb",
        b"a\nb",
        b"a\r\nb",
        b"\r\n",
        b" a",
        b"a ",
        b"\ta",
        b"a\t",
        b"a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        cases.push(field("B-50", b"x-value", value));
    }
    // Other control characters (RFC 9110 §5.5).
    for value in [&b"a\x01b"[..], b"a\x7fb"] {
        cases.push(field("B-20", b"x-value", value));
    }
    // RFC 9113 §8.2.2: fields of a connection.
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x-a"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("te", "chunked"),
    ] {
        cases.push(field("B-50", name.as_bytes(), value.as_bytes()));
    }
    // RFC 9113 §8.3.1: pseudo-fields missing, twice, unknown, late, or with junk inside.
    let good = request("GET", "/bad");
    for left_out in [":method", ":scheme", ":path"] {
        let rest: Vec<_> = good.iter().copied().filter(|(name, _)| *name != left_out).collect();
        cases.push(whole("B-51", &rest));
    }
    for &(name, value) in &good {
        let mut twice = good.clone();
        twice.push((name, value));
        cases.push(whole("B-51", &twice));
        let mut late: Vec<_> = good.iter().copied().filter(|(n, _)| *n != name).collect();
        late.push(("x-a", "b"));
        late.push((name, value));
        cases.push(whole("B-51", &late));
    }
    for (name, value) in [(":status", "200"), (":foo", "bar"), (":", "x"), (":protocol", "x")] {
        let mut more = good.clone();
        more.push((name, value));
        cases.push(whole("B-51", &more));
    }
    for path in [
        "",
        "bad",
        "a.test/bad",
        "http://a.test/bad",
        "*",
        "/a b",
        "/a\tb",
        "/a\r\nb",
        "/a HTTP/1.1\r\nHost: a.test\r\n\r\nGET /smuggled",
        "/a\0b",
        "/a#b",
        "/a\u{e9}b",
        "/a\\b",
        "/a%zz",
        "/a%00",
        "/%c0%af",
    ] {
        cases.push(pseudo("B-51", ":path", path));
    }
    for scheme in ["", "ht tp", "http://", "http:\r\n", "1http"] {
        cases.push(pseudo("B-51", ":scheme", scheme));
    }
    for method in [
        "",
        "GET ",
        "G ET",
        "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\nGET",
        "GE\tT",
        "GET\0",
        "(GET)",
    ] {
        cases.push(pseudo("B-51", ":method", method));
    }
    for authority in [
        "user@a.test",
        "user:pass@a.test",
        "a.test/smuggled",
        "a.test\r\nX-Smuggled: 1",
        "a.test x",
        "a.test\0",
        "a.test:99999",
        "a.test:x",
        "a,b",
        "a.test?x",
        "a.test#x",
    ] {
        cases.push(pseudo("B-51", ":authority", authority));
    }
    cases.push(pseudo("B-51", ":authority", ""));
    let mut other = good.clone();
    other.push(("host", "b.test"));
    cases.push(whole("B-51", &other));
    let mut two = good.clone();
    two.extend([("host", "a.test"), ("host", "a.test")]);
    cases.push(whole("B-51", &two));
    let nobody: Vec<_> = good.iter().copied().filter(|(name, _)| *name != ":authority").collect();
    cases.push(whole("B-51", &nobody));
    // RFC 9113 §8.5: CONNECT has neither scheme nor path, and no tunnel is offered.
    cases.push(whole("B-51", &[(":method", "CONNECT"), (":authority", "a.test:443"), (":path", "/")]));
    cases.push(whole("B-51", &[(":method", "CONNECT"), (":path", "/"), (":scheme", "http")]));
    // The length that an h1 origin would believe.
    for length in ["+0", "-1", "0x0", "", "0, 0", "1_0", "18446744073709551616", "1 0"] {
        cases.push(field("B-52", b"content-length", length.as_bytes()));
    }
    let mut lengths = good.clone();
    lengths.extend([("content-length", "0"), ("content-length", "0")]);
    cases.push(whole("B-52", &lengths));
    cases
}

#[test]
fn malformed_requests_end_their_stream_and_reach_nobody() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let mut failures = Vec::new();
    let mut cases = 0;
    for (row, what, block) in malformed() {
        cases += 1;
        // On a connection of its own: so many errors would use up a good one's budget.
        let mut client = H2Client::clear(gateway.address());
        let stream = client.begin(&request("GET", "/before"), true);
        if !client.answer(stream).is_ok_and(|answer| answer.status == 200) {
            failures.push(format!("{row} {what}: the request before was not served"));
            continue;
        }
        let before = origin.completed();
        let stream = client.take_stream();
        client.send(&Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, block));
        match client.answer(stream) {
            Err(Broken::Reset(PROTOCOL_ERROR, _)) => {}
            // Where the table says "or 400" (421: an authority that is nobody's).
            Ok(answer) if row == "B-51" && matches!(answer.status, 400 | 421 | 501) => {}
            Ok(answer) if matches!(row, "B-20" | "B-52") && answer.status == 400 => {}
            other => {
                failures.push(format!("{row} {what}: {other:?}"));
                continue;
            }
        }
        if origin.completed() != before {
            failures.push(format!("{row} {what}: forwarded"));
        }
        // A stream error leaves the connection (RFC 9113 §5.4.2).
        let stream = client.get("/after");
        if !client.answer(stream).is_ok_and(|answer| answer.status == 200) {
            failures.push(format!("{row} {what}: the connection ended, {:?}", client.goaways));
        }
    }
    assert!(!origin.received("smuggled") && !origin.received("Smuggled"), "smuggled");
    assert!(failures.is_empty(), "{} of {cases}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn b50_te_trailers_and_forwarded_fields() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    let mut fields = request("GET", "/good");
    fields.extend([("te", "trailers"), ("x-odd", "!#$%&'*+-.^`|~"), ("x-empty", "")]);
    assert_eq!(client.ask(&fields, b"").status, 200);
    let seen = origin.last();
    assert_eq!(seen.field("x-odd"), Some("!#$%&'*+-.^`|~"));
    assert_eq!(seen.field("x-empty"), Some(""));
    assert_eq!(seen.field("host"), Some("a.test"));
    // Host instead of :authority is as good (RFC 9113 §8.3.1), and so are both when equal.
    let host = [(":method", "GET"), (":scheme", "http"), (":path", "/host"), ("host", "a.test")];
    assert_eq!(client.ask(&host, b"").status, 200);
    assert_eq!(origin.last().field("host"), Some("a.test"));
    let mut both = request("GET", "/both");
    both.push(("host", "a.test"));
    assert_eq!(client.ask(&both, b"").status, 200);
    assert_eq!(origin.last().field("host"), Some("a.test"));
}

#[test]
fn b52_lengths_that_lie() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    for (what, length, pieces) in [
        ("too short", "3", &[&b"hello"[..]][..]),
        ("too long", "9", &[b"hello"]),
        ("too short, in two frames", "7", &[b"hello", b"world"]),
        ("zero with a body", "0", &[b"x"]),
        ("a request behind it", "4", &[b"bodyGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"]),
    ] {
        let mut client = H2Client::clear(gateway.address());
        client.assert_alive(what);
        let mut fields = request("POST", "/lie");
        fields.push(("content-length", length));
        let stream = client.begin(&fields, false);
        for (n, piece) in pieces.iter().enumerate() {
            client.send(&Frame::data(stream, *piece, n + 1 == pieces.len()));
        }
        let answer = client.answer(stream);
        assert!(
            matches!(answer, Err(Broken::Reset(PROTOCOL_ERROR, _))),
            "B-52, {what}: {answer:?}"
        );
        client.assert_alive(what);
    }
    let mut client = H2Client::clear(gateway.address());
    client.assert_alive("B-52");
    let mut fields = request("POST", "/lie");
    fields.push(("content-length", "9"));
    let stream = client.begin(&fields, true);
    let answer = client.answer(stream);
    assert!(matches!(answer, Err(Broken::Reset(PROTOCOL_ERROR, _))), "B-52, none: {answer:?}");
    let lies = origin.seen().into_iter().filter(|seen| seen.target == "/lie" && seen.complete);
    assert_eq!(lies.count(), 0, "B-52: completed upstream");
    assert!(!origin.received("GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\nGET"));
    assert!(!origin.seen().iter().any(|seen| seen.target == "/smuggled"), "B-52: smuggled");
}

/// What ends the whole connection, and with which of these codes.
fn connection_errors() -> Vec<(&'static str, &'static str, Vec<Frame>, Vec<u32>)> {
    let head = |stream| Frame::headers(stream, &request("GET", "/bad"), true);
    let settings = |name, value| Frame::settings(&[(name, value)]);
    let bad_block = |block: &[u8]| {
        let mut whole = super::block(&request("GET", "/bad"));
        whole.extend_from_slice(block);
        Frame::new(HEADERS, END_HEADERS | END_STREAM, 101, whole)
    };
    let size = |max: usize| {
        let mut block = Vec::new();
        integer(&mut block, 0x20, 5, max);
        block.extend(super::block(&request("GET", "/bad")));
        Frame::new(HEADERS, END_HEADERS | END_STREAM, 101, block)
    };
    let huffman = |bytes: &[u8]| {
        let mut block = vec![0x00, 0x01, b'x', 0x80 | bytes.len() as u8];
        block.extend_from_slice(bytes);
        bad_block(&block)
    };
    let (protocol, frame_size) = (vec![PROTOCOL_ERROR], vec![FRAME_SIZE_ERROR]);
    let either = vec![PROTOCOL_ERROR, STREAM_CLOSED];
    let large = vec![FRAME_SIZE_ERROR, PROTOCOL_ERROR];
    let flow = vec![FLOW_CONTROL_ERROR];
    let hpack = vec![COMPRESSION_ERROR];
    vec![
        ("B-53", "DATA on an idle stream", vec![Frame::data(101, "x", true)], either.clone()),
        ("B-53", "RST_STREAM on an idle stream", vec![Frame::reset(101, CANCEL)], protocol.clone()),
        ("B-53", "WINDOW_UPDATE on an idle stream", vec![Frame::window_update(101, 1)], protocol.clone()),
        ("B-53", "an even stream", vec![head(102)], protocol.clone()),
        ("B-53", "a stream number used again", vec![head(1)], either.clone()),
        ("B-53", "a stream number below the last", vec![head(101), head(99)], either),
        ("B-53", "HEADERS on stream 0", vec![head(0)], protocol.clone()),
        ("B-53", "DATA on stream 0", vec![Frame::data(0, "x", true)], protocol.clone()),
        ("B-53", "SETTINGS on a stream", vec![Frame::new(SETTINGS, 0, 101, [])], protocol.clone()),
        ("B-53", "PING on a stream", vec![Frame::new(PING, 0, 101, [0; 8])], protocol.clone()),
        ("B-53", "GOAWAY on a stream", vec![Frame::new(GOAWAY, 0, 101, [0; 8])], protocol.clone()),
        ("B-53", "PUSH_PROMISE from a client", vec![Frame::new(PUSH_PROMISE, END_HEADERS, 101, [0, 0, 0, 2])], protocol.clone()),
        ("B-53", "CONTINUATION alone", vec![Frame::new(CONTINUATION, END_HEADERS, 101, [])], protocol.clone()),
        (
            "B-53",
            "another frame inside a header block",
            vec![Frame::new(HEADERS, END_STREAM, 101, super::block(&request("GET", "/bad"))), Frame::new(PING, 0, 0, [0; 8])],
            protocol.clone(),
        ),
        (
            "B-53",
            "another stream's CONTINUATION",
            vec![Frame::new(HEADERS, END_STREAM, 101, super::block(&request("GET", "/bad"))), Frame::new(CONTINUATION, END_HEADERS, 103, [])],
            protocol.clone(),
        ),
        ("B-54", "a frame beyond the limit", vec![Frame::new(SETTINGS + 90, 0, 0, vec![0; 16_385])], frame_size.clone()),
        ("B-54", "HEADERS beyond the limit", vec![Frame::new(HEADERS, END_HEADERS | END_STREAM, 101, vec![0; 16_385])], frame_size.clone()),
        ("B-54", "SETTINGS of 5 bytes", vec![Frame::new(SETTINGS, 0, 0, [0; 5])], frame_size.clone()),
        ("B-54", "SETTINGS ack with payload", vec![Frame::new(SETTINGS, ACK, 0, [0, 3, 0, 0, 0, 1])], frame_size.clone()),
        ("B-54", "ENABLE_PUSH=2", vec![settings(ENABLE_PUSH, 2)], protocol.clone()),
        ("B-54", "INITIAL_WINDOW_SIZE 2^31", vec![settings(INITIAL_WINDOW_SIZE, 1 << 31)], flow.clone()),
        ("B-54", "MAX_FRAME_SIZE 16383", vec![settings(MAX_FRAME_SIZE, 16_383)], protocol.clone()),
        ("B-54", "MAX_FRAME_SIZE 2^24", vec![settings(MAX_FRAME_SIZE, 1 << 24)], protocol.clone()),
        ("B-54", "PING of 7 bytes", vec![Frame::new(PING, 0, 0, [0; 7])], frame_size.clone()),
        ("B-54", "PING of 9 bytes", vec![Frame::new(PING, 0, 0, [0; 9])], frame_size.clone()),
        ("B-54", "RST_STREAM of 3 bytes", vec![head(101), Frame::new(RST_STREAM, 0, 101, [0; 3])], frame_size.clone()),
        ("B-54", "WINDOW_UPDATE of 3 bytes", vec![Frame::new(WINDOW_UPDATE, 0, 0, [0; 3])], frame_size.clone()),
        ("B-54", "GOAWAY of 7 bytes", vec![Frame::new(GOAWAY, 0, 0, [0; 7])], frame_size),
        ("B-54", "padding beyond the frame", vec![Frame::new(HEADERS, END_HEADERS | END_STREAM | PADDED, 101, [200, 0, 0])], large.clone()),
        ("B-54", "HEADERS too short for a priority", vec![Frame::new(HEADERS, END_HEADERS | END_STREAM | PRIORITISED, 101, [0; 3])], large),
        ("B-55", "WINDOW_UPDATE 0 on the connection", vec![Frame::window_update(0, 0)], protocol),
        ("B-55", "the connection's window beyond 2^31-1", vec![Frame::window_update(0, 0x7fff_ffff)], flow),
        ("B-56", "HPACK index 0", vec![bad_block(&[0x80])], hpack.clone()),
        ("B-56", "an index out of range", vec![bad_block(&[0xff, 0xff, 0x01])], hpack.clone()),
        ("B-56", "a name's index out of range", vec![bad_block(&[0x7f, 0xff, 0x01, 0x01, b'x'])], hpack.clone()),
        ("B-56", "EOS in Huffman", vec![huffman(&[0xff, 0xff, 0xff, 0xff])], hpack.clone()),
        ("B-56", "padding of more than 7 bits", vec![huffman(&[0x1f, 0xff])], hpack.clone()),
        ("B-56", "padding that is not ones", vec![huffman(&[0x18])], hpack.clone()),
        ("B-56", "a table beyond the setting", vec![size(4097)], hpack.clone()),
        ("B-56", "a string that ends early", vec![bad_block(&[0x00, 0x05, b'x'])], hpack.clone()),
        ("B-56", "an integer without end", vec![bad_block(&[0xff; 12])], hpack),
    ]
}

#[test]
fn connection_errors_say_goaway_and_close() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let mut failures = Vec::new();
    let cases = connection_errors();
    for (row, what, frames, codes) in &cases {
        let mut client = H2Client::clear(gateway.address());
        client.assert_alive(what);
        for frame in frames {
            // The first of several is good and may be answered; the client need not know of it.
            client.peer.send(frame);
        }
        let ended = loop {
            match client.peer.event(PATIENCE) {
                Ok(tests::http2::Event::GoAway { code, .. }) => client.goaways.push((0, code)),
                Ok(_) => {}
                Err(tests::http2::End::Closed) => break Ok(()),
                Err(e) => break Err(format!("{e:?}")),
            }
        };
        let code = client.goaways.last().map(|&(_, code)| code);
        if ended.is_err() || !code.is_some_and(|code| codes.contains(&code)) {
            failures.push(format!("{row} {what}: {ended:?}, GOAWAY {code:?}, not {codes:?}"));
        }
    }
    assert!(!origin.received("/bad") || origin.seen().iter().all(|seen| seen.complete));
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn b53_frames_on_a_closed_stream() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    // What belongs to a stream that has ended: an error of the stream or of the connection (RFC
    // 9113 §5.1), never served.
    for what in ["DATA", "HEADERS"] {
        let mut client = H2Client::clear(gateway.address());
        let stream = client.get("/once");
        assert_eq!(client.answer(stream).unwrap().status, 200);
        match what {
            "DATA" => client.send(&Frame::data(stream, "x", true)),
            _ => client.send(&Frame::headers(stream, &request("GET", "/again"), true)),
        };
        let answered = client.until(PATIENCE, |client| {
            client.closed
                || client.goaways.iter().any(|&(_, code)| code == STREAM_CLOSED || code == PROTOCOL_ERROR)
                || client.resets.iter().any(|&(s, code)| s == stream && code == STREAM_CLOSED)
        });
        assert!(answered, "B-53, {what} on a closed stream: nothing came of it");
    }
    assert!(!origin.received("/again"), "B-53");
}

#[test]
fn b55_windows_of_streams() {
    let origin = Origin::start(|seen| {
        tests::origin::echo(seen).after(std::time::Duration::from_millis(200))
    });
    let gateway = Gateway::of(&spec(&origin));
    for (what, increment, code) in [
        ("WINDOW_UPDATE 0", 0, PROTOCOL_ERROR),
        ("a window beyond 2^31-1", 0x7fff_ffff, FLOW_CONTROL_ERROR),
    ] {
        let mut client = H2Client::clear(gateway.address());
        client.assert_alive(what);
        let stream = client.get("/window");
        client.send(&Frame::window_update(stream, increment));
        let answer = client.answer(stream);
        assert!(
            matches!(answer, Err(Broken::Reset(c, _)) if c == code),
            "B-55, {what}: {answer:?}"
        );
        client.assert_alive(what);
    }
}

#[test]
fn b54_data_beyond_the_window() {
    let origin = Origin::raw(|mut wire, _| {
        let _ = wire.head();
        std::thread::sleep(std::time::Duration::from_secs(3));
    });
    let gateway = Gateway::of(&spec(&origin).route("max_body_bytes: 1GiB"));
    let mut client = H2Client::clear(gateway.address());
    let stream = client.begin(&request("POST", "/flood"), false);
    // RFC 9113 §6.9.1: more than any window that was ever granted here.
    for _ in 0..2_000 {
        client.send(&Frame::data(stream, vec![0u8; 16_384], false));
    }
    let ended = client.until(PATIENCE, |client| {
        client.closed || !client.goaways.is_empty() || client.resets.iter().any(|&(s, _)| s == stream)
    });
    assert!(ended, "a flood beyond the window goes on");
    let code = client.goaways.last().map(|g| g.1).or(client.resets.last().map(|r| r.1));
    assert!(matches!(code, None | Some(FLOW_CONTROL_ERROR)), "{code:?}");
}

#[test]
fn crumbs_of_cookies_are_joined() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    let mut fields = request("GET", "/cookies");
    fields.extend([("cookie", "a=1"), ("x-between", "y"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]);
    assert_eq!(client.ask(&fields, b"").status, 200);
    // RFC 9113 §8.2.3: one field on the way to an HTTP/1.1 server, joined by "; ".
    assert_eq!(origin.last().all("cookie"), ["a=1; b=2; c=3; d=4"]);
}
