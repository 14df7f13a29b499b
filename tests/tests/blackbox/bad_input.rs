//! Every HTTP/1 row of the bad-input table: what is sent, what may come back, what the origin must
//! never see. The row's id is in each message.

use std::time::Duration;

use tests::message::Framing;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Response, WireError, answer, eventually, get};

/// What the connection must do after the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    /// Close; nothing that follows is ever parsed.
    Close,
    /// Serve a good request.
    Keep,
}

/// What the origin may have got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// Not a byte.
    Nothing,
    /// Perhaps a beginning, never a whole request.
    Unfinished,
    /// The request.
    Request,
}

struct Case {
    row: &'static str,
    what: String,
    bytes: Vec<u8>,
    /// Statuses that are right; 0: closed without an answer.
    answers: &'static [u16],
    then: Then,
    reach: Reach,
    /// The input ends inside a message, so what follows would be part of it.
    open_ended: bool,
}

impl Case {
    fn new(row: &'static str, bytes: impl Into<Vec<u8>>, answers: &'static [u16]) -> Case {
        let bytes = bytes.into();
        let what = tests::wire::lossy(&bytes[..bytes.len().min(160)]);
        Case {
            row,
            what,
            bytes,
            answers,
            then: Then::Close,
            reach: Reach::Nothing,
            open_ended: false,
        }
    }

    fn keep(mut self) -> Case {
        self.then = Then::Keep;
        self
    }

    fn unfinished(mut self) -> Case {
        self.reach = Reach::Unfinished;
        self
    }

    fn forwarded(mut self) -> Case {
        self.reach = Reach::Request;
        self.keep()
    }

    fn open_ended(mut self) -> Case {
        self.open_ended = true;
        self
    }

    fn name(&self) -> String {
        format!("{} {:?}", self.row, self.what)
    }
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// `GET /bad` with these field lines (each without its CRLF) besides Host.
fn with(fields: &[u8]) -> Vec<u8> {
    [b"GET /bad HTTP/1.1\r\nHost: a.test\r\n", fields, b"\r\n\r\n"].concat()
}

/// `POST /bad` with these field lines and a body.
fn post(fields: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /bad HTTP/1.1\r\nHost: a.test\r\n", fields, b"\r\n\r\n", body].concat()
}

/// A chunked POST with this body.
fn chunked(body: &[u8]) -> Vec<u8> {
    post(b"Transfer-Encoding: chunked", body)
}

/// A request with this first line.
fn line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: a.test\r\n\r\n"].concat()
}

/// Runs each case alone and, where it must end the connection, once more with a good request
/// behind it that must never be served.
fn run(cases: &[Case]) {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    run_on(&gateway, &origin, cases);
}

fn run_on(gateway: &Gateway, origin: &Origin, cases: &[Case]) {
    let mut failures = Vec::new();
    for case in cases {
        if let Err(e) = attempt(gateway, origin, case, b"") {
            failures.push(format!("{}: {e}", case.name()));
        } else if case.then == Then::Close
            && !case.open_ended
            && let Err(e) = attempt(gateway, origin, case, SMUGGLED.as_bytes())
        {
            failures.push(format!("{} with a request behind it: {e}", case.name()));
        }
    }
    assert!(!origin.received("/smuggled"), "a request behind a bad one was forwarded");
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

fn attempt(gateway: &Gateway, origin: &Origin, case: &Case, behind: &[u8]) -> Result<(), String> {
    let before = origin.completed();
    let mut client = gateway.connect();
    client.send([&case.bytes, behind].concat());
    let method = if case.bytes.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
    let response = match client.response_to(method) {
        Ok(response) => response,
        Err(WireError::Closed | WireError::Reset(_)) if case.answers.contains(&0) => return Ok(()),
        Err(e) => return Err(format!("no answer: {e:?}, expected {:?}", case.answers)),
    };
    if !case.answers.contains(&response.status) {
        return Err(format!("{} instead of {:?}", response.head.start, case.answers));
    }
    let forwarded = origin.completed() - before;
    match case.reach {
        Reach::Request if response.status == 200 && forwarded != 1 => {
            return Err(format!("{forwarded} requests forwarded instead of 1"));
        }
        Reach::Nothing | Reach::Unfinished if forwarded != 0 => {
            return Err(format!("{forwarded} requests reached the origin"));
        }
        _ => {}
    }
    if response.status >= 400 {
        own_answer(&response, method)?;
    }
    // A row that says "forwarded or 400" leaves the close to the 400.
    let then = if case.reach == Reach::Request && response.status == 400 {
        Then::Close
    } else {
        case.then
    };
    match then {
        Then::Close => {
            if !response.says_close() {
                return Err(format!("no Connection: close in {:?}", response.head.fields));
            }
            client.wire.closes_within(PATIENCE)
        }
        Then::Keep => {
            client.send(get("/after"));
            match client.response() {
                Ok(next) if next.status == 200 && next.text() == "GET /after\n" => Ok(()),
                Ok(next) => Err(format!("then {} {:?}", next.head.start, next.text())),
                Err(e) => Err(format!("then no second answer: {e:?}")),
            }
        }
    }
}

/// The gateway's own answer is problem+json and reflects nothing.
fn own_answer(response: &Response, method: &str) -> Result<(), String> {
    if method == "HEAD" {
        return Ok(());
    }
    response.problem()?;
    let text = response.text().to_ascii_lowercase();
    match ["/bad", "a.test", "smuggled", "chunked"].iter().find(|word| text.contains(**word)) {
        Some(word) => Err(format!("the answer reflects {word:?}: {text}")),
        None => Ok(()),
    }
}

#[test]
fn b01_to_b04_host() {
    let mut cases = vec![
        Case::new("B-01", "GET /bad HTTP/1.1\r\n\r\n", &[400]),
        Case::new("B-02", "GET /bad HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", &[400]),
        Case::new("B-02", "GET /bad HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n", &[400]),
        Case::new(
            "B-02",
            "GET /bad HTTP/1.1\r\nHost: a.test\r\nX: y\r\nhOST: a.test\r\n\r\n",
            &[400],
        ),
    ];
    for host in ["a.test, b.test", "a,b"] {
        cases.push(Case::new("B-02", format!("GET /bad HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[400]));
    }
    for host in [
        "user@a.test",
        "user:pw@a.test",
        "a.test/x",
        "a.test?x",
        "a.test#x",
        "a .test",
        "",
        " ",
        "a.test:99999",
        "a.test:x",
        "a.test:80:80",
        "a.test:-1",
        "[::1",
        "::1]",
        "[x]",
        "a\\b",
        "a<b",
        "a%zz",
    ] {
        cases.push(Case::new("B-03", format!("GET /bad HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[400]));
    }
    run(&cases);
}

#[test]
fn b04_the_absolute_form_decides_over_host() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    let response = client.ask("GET http://b.test/absolute?q=1 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    if response.status != 400 {
        assert_eq!(response.status, 200, "B-04");
        let seen = origin.last();
        assert_eq!(seen.field("host"), Some("b.test"), "B-04: Host must follow the target");
        assert_eq!(seen.target, "/absolute?q=1", "B-04");
        client.assert_alive("B-04");
    }
}

#[test]
fn b05_to_b10_content_length() {
    let mut cases = vec![
        Case::new(
            "B-05",
            post(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
            &[400],
        ),
        Case::new(
            "B-05",
            post(b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
            &[400],
        ),
        Case::new(
            "B-05",
            post(b"Transfer-Encoding: chunked\r\nContent-Length: 0", b"0\r\n\r\n"),
            &[400],
        ),
        Case::new("B-06", post(b"Content-Length: 5\r\nContent-Length: 6", b"hello!"), &[400]),
        Case::new("B-06", post(b"Content-Length: 5, 6", b"hello!"), &[400]),
        Case::new("B-07", post(b"Content-Length: 5\r\nContent-Length: 5", b"hello"), &[400]),
        Case::new("B-07", post(b"Content-Length: 5, 5", b"hello"), &[400]),
        Case::new("B-09", post(b"Content-Length: 18446744073709551616", b""), &[400]),
        Case::new("B-09", post(b"Content-Length: 18446744073709551621", b"hello"), &[400]),
        Case::new("B-09", post(b"Content-Length: 1000000000000000000000000000000", b""), &[400]),
    ];
    for value in [
        "+5", "-1", "-0", "0x5", "1_0", "1 0", "5;", "", "\t", "1\t0", "5.0", "5e0", "five",
        "\u{665}",
    ] {
        let field = format!("Content-Length: {value}");
        cases.push(Case::new("B-08", post(field.as_bytes(), b"hello"), &[400]));
    }
    run(&cases);
}

#[test]
fn b10_a_length_with_leading_zeros_is_refused_or_canonical() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    for (value, body) in [("010", "0123456789"), ("00", "")] {
        let mut client = gateway.connect();
        let response =
            client.ask(post(format!("Content-Length: {value}").as_bytes(), body.as_bytes()));
        if response.status == 400 {
            client.assert_closed("B-10");
            continue;
        }
        assert_eq!(response.status, 200, "B-10 {value}");
        let seen = origin.last();
        assert_eq!(seen.body, body.as_bytes(), "B-10 {value}");
        assert_ne!(seen.field("content-length"), Some(value), "B-10: must be canonical");
        client.assert_alive("B-10");
    }
}

#[test]
fn b11_to_b16_transfer_encoding() {
    let mut cases = Vec::new();
    for coding in ["xchunked", "gzip", "identity", "chunkedd", "chunked;x=y"] {
        let field = format!("Transfer-Encoding: {coding}");
        cases.push(Case::new("B-11", post(field.as_bytes(), b"0\r\n\r\n"), &[501]));
    }
    cases.push(Case::new("B-11", post(b"Transfer-Encoding:", b"0\r\n\r\n"), &[400]));
    cases.push(Case::new("B-11", post(b"Transfer-Encoding: ", b"0\r\n\r\n"), &[400]));
    for fields in ["Transfer-Encoding: chunked", "Content-Length: 5\r\nTransfer-Encoding: chunked"]
    {
        let bytes = format!("POST /bad HTTP/1.0\r\nHost: a.test\r\n{fields}\r\n\r\n0\r\n\r\n");
        cases.push(Case::new("B-12", bytes, &[400]));
    }
    for coding in ["chunked, gzip", "chunked, chunked", "chunked,chunked", "chunked, identity"] {
        let field = format!("Transfer-Encoding: {coding}");
        cases.push(Case::new("B-13", post(field.as_bytes(), b"0\r\n\r\n"), &[400]));
    }
    for fields in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: , chunked",
    ] {
        cases.push(Case::new("B-14", post(fields.as_bytes(), b"0\r\n\r\n"), &[400]));
    }
    for value in [
        &b"\x0bchunked"[..],
        b"chunked\x0b",
        b"\x0cchunked",
        b"chunked\x0c",
        b"chunked\0",
        b"\0chunked",
        b"\x85chunked",
        b"chunked\x85",
        b"\xa0chunked",
        b"chunked\xa0",
        b"\"chunked\"",
        b"chu\x00nked",
    ] {
        let field = [b"Transfer-Encoding: ", value].concat();
        cases.push(Case::new("B-15", post(&field, b"0\r\n\r\n"), &[400]));
    }
    // ' may stand in a token, so this is an unknown coding as well as a quoted one.
    cases.push(Case::new("B-15", post(b"Transfer-Encoding: 'chunked'", b"0\r\n\r\n"), &[400, 501]));
    for name in ["Transfer-Encoding ", "Transfer-Encoding\t", "Content-Length ", "X-Any "] {
        let value = if name.starts_with('C') { "5" } else { "chunked" };
        let field = format!("{name}: {value}");
        cases.push(Case::new("B-16", post(field.as_bytes(), b"0\r\n\r\n"), &[400]));
    }
    run(&cases);
}

#[test]
fn b17_to_b20_field_lines() {
    let mut cases = vec![
        Case::new("B-17", with(b"X-A: b\r\n c"), &[400]),
        Case::new("B-17", with(b"X-A: b\r\n\tc"), &[400]),
        Case::new("B-17", with(b"X-A:\r\n b"), &[400]),
        Case::new("B-17", post(b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n"), &[400]),
        Case::new("B-17", with(b"X-A: b\r\n "), &[400]),
        Case::new("B-18", "GET /bad HTTP/1.1\r\n Host: a.test\r\n\r\n", &[400]),
        Case::new("B-18", "GET /bad HTTP/1.1\r\n\tHost: a.test\r\n\r\n", &[400]),
        Case::new("B-18", "GET /bad HTTP/1.1\r\n X: y\r\nHost: a.test\r\n\r\n", &[400]),
    ];
    for field in [
        &b"NoColon"[..],
        b": value",
        b"X Y: z",
        b"X\xc3\xa9: z",
        b"X(Y): z",
        b"X\"Y: z",
        b"X/Y: z",
        b"X@Y: z",
        b"X\x00Y: z",
        b"X\x7fY: z",
        b"[X]: z",
        b"X\t: z",
        b"\x01: z",
        b"X,Y: z",
        b"=X: z",
        b"{X}: z",
        b"Transfer_Encoding: chunked",
        b"Content_Length: 5",
        b"X_Y: z",
        b"_X: z",
        b"X_: z",
    ] {
        cases.push(Case::new("B-19", with(field), &[400]));
    }
    for byte in (0u8..0x20).filter(|b| !b"\t\r\n".contains(b)).chain([0x7f]) {
        cases.push(Case::new("B-20", with(&[b"X-A: b", &[byte][..], b"c"].concat()), &[400]));
    }
    cases.push(Case::new("B-20", with(b"X-A: b\rc"), &[400]));
    cases.push(Case::new("B-20", with(b"X-A: b\nc"), &[400]));
    cases.push(Case::new("B-20", with(b"X-A: b\nX-B: c"), &[400]));
    cases.push(Case::new("B-20", with(b"X-A: b\r"), &[400]));
    run(&cases);
}

#[test]
fn b19_underscore_fields_may_be_dropped_instead() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).listener("underscore_fields: drop"));
    let mut client = gateway.connect();
    let response = client.ask(with(b"X_Y: secret\r\nX-Z: kept"));
    assert_eq!(response.status, 200, "B-19 drop: {:?}", response.text());
    assert!(!origin.received("secret"), "B-19 drop: the field must go");
    assert_eq!(origin.last().field("x-z"), Some("kept"), "B-19 drop: the others stay");
    client.assert_alive("B-19 drop");
}

#[test]
fn b21_b22_line_ends() {
    run(&[
        Case::new("B-21", "GET /bad HTTP/1.1\nHost: a.test\r\n\r\n", &[400]),
        Case::new("B-21", "GET /bad HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n", &[400]),
        Case::new("B-21", "GET /bad HTTP/1.1\r\nHost: a.test\r\nX: y\n\r\n", &[400]),
        Case::new("B-21", "GET /bad HTTP/1.1\nHost: a.test\n\n", &[400]),
        Case::new("B-21", "GET /bad HTTP/1.1\r\nHost: a.test\r\n\n", &[400]).open_ended(),
        Case::new("B-21", "GET /bad HTTP/1.1\r\nHost: a.test\n\r\n", &[400]),
        Case::new("B-21", chunked(b"5\nhello\r\n0\r\n\r\n"), &[400]).unfinished(),
        Case::new("B-21", chunked(b"5\r\nhello\n0\r\n\r\n"), &[400]).unfinished(),
        Case::new("B-21", chunked(b"5\r\nhello\r\n0\n\r\n"), &[400]).unfinished(),
        Case::new("B-21", chunked(b"5\r\nhello\r\n0\r\n\n"), &[400]).unfinished(),
        Case::new("B-21", chunked(b"5\r\nhello\r\n0\r\nX-T: y\n\r\n"), &[400]).unfinished(),
        Case::new("B-22", "GET /bad HTTP/1.1\rHost: a.test\r\n\r\n", &[400]),
        Case::new("B-22", "GET /bad HTTP/1.1\r\nHost: a.test\rX: y\r\n\r\n", &[400]),
        Case::new("B-22", "GET /bad HTTP/1.1\rHost: a.test\r\r", &[400]).open_ended(),
        Case::new("B-22", chunked(b"5\rhello\r\n0\r\n\r\n"), &[400]).unfinished(),
        Case::new("B-22", chunked(b"5\r\nhello\r0\r\n\r\n"), &[400]).unfinished(),
    ]);
}

#[test]
fn b23_to_b26_request_line() {
    let mut cases = vec![
        Case::new("B-23", format!("\r\n{}", get("/good")), &[200]).forwarded(),
        Case::new("B-23", format!("\r\n\r\n\r\n{}", get("/bad")), &[400]),
        Case::new("B-23", format!("{}{}", "\r\n".repeat(50), get("/bad")), &[400]),
    ];
    for bad in [
        &b"GET  /bad HTTP/1.1"[..],
        b"GET /bad  HTTP/1.1",
        b"GET\t/bad HTTP/1.1",
        b"GET /bad\tHTTP/1.1",
        b"GET /bad HTTP/1.1 ",
        b"GET /bad HTTP/1.1\t",
        b" GET /bad HTTP/1.1",
        b"\tGET /bad HTTP/1.1",
        b"GET /bad HTTP/1.1 x",
        b"GET\x0b/bad HTTP/1.1",
    ] {
        cases.push(Case::new("B-24", line(bad), &[400]));
    }
    for target in [
        &b"/a b"[..],
        b"/bad#frag",
        b"/b\xc3\xa4d",
        b"/\xff",
        b"/a\\b",
        b"/a<b",
        b"/a>b",
        b"/a\"b",
        b"/a{b",
        b"/a}b",
        b"/a|b",
        b"/a^b",
        b"/a`b",
        b"bad",
        b"",
        b"/a\x00b",
        b"/a\x7fb",
        b"/?a#b",
        b"/?a\\b",
        b"http:///bad",
        b"http://",
        b"http://u@a.test/bad",
        b"ftp://a.test/bad",
    ] {
        cases.push(Case::new("B-25", line(&[b"GET ", target, b" HTTP/1.1"].concat()), &[400]));
    }
    for target in [
        "/%zz",
        "/%0",
        "/%",
        "/%00",
        "/a%00b",
        "/%C0%AF",
        "/%c0%ae%c0%ae/",
        "/%E0%80%AF",
        "/%ff",
        "/%0d%0aX:y",
    ] {
        cases.push(Case::new("B-26", get(target), &[400]));
    }
    run(&cases);
}

/// What a careless origin would make of a path: decoded, dots resolved, slashes merged.
fn as_an_origin_reads(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair: Vec<u8> = bytes.by_ref().take(2).collect();
            let text = String::from_utf8_lossy(&pair).into_owned();
            decoded.push(u8::from_str_radix(&text, 16).unwrap_or(b'?'));
        } else {
            decoded.push(byte);
        }
    }
    let text = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

#[test]
fn b27_one_normalisation_for_matching_and_forwarding() {
    let public = Origin::echo();
    let private = Origin::echo();
    let spec = Spec::to(public.address())
        .also_upstream("private", private.address(), "")
        .also_route("{ name: admin, match: { path: { prefix: /admin } }, upstream: private }");
    let gateway = Gateway::of(&spec);
    for target in [
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/.%2E/admin",
        "/./admin",
        "//admin",
        "/%61dmin",
        "/admi%6E/",
        "/x/..//admin",
        "/a/b/../../admin/x",
        "/x%2f..%2fadmin",
        "/x%2F%2e%2e%2Fadmin",
        "/%2fadmin",
        "/..%2fadmin",
        "/x/..%5cadmin",
        "/%5cadmin",
        "/.%2fadmin",
        "/x/%2e./admin",
        "///admin",
        "/admin/../admin",
        "/../admin",
        "/../../admin",
        "/%2e%2e/admin",
        "/x/..;/admin",
    ] {
        let response = gateway.ask(get(target));
        assert!(
            matches!(response.status, 200 | 400 | 404),
            "B-27 {target}: {:?}",
            response.head.start
        );
        if response.status == 200 && !target.contains("..;") {
            let forwarded = response.text();
            let forwarded = forwarded.trim_end().trim_start_matches("GET ");
            let again = as_an_origin_reads(forwarded);
            assert!(
                again == "/admin" || again.starts_with("/admin/"),
                "B-27 {target} was forwarded as {forwarded}"
            );
            assert!(!forwarded.contains("/../"), "B-27 {target} was forwarded as {forwarded}");
        }
    }
    for seen in public.seen() {
        let path = as_an_origin_reads(&seen.target);
        assert!(
            path != "/admin" && !path.starts_with("/admin/"),
            "B-27: the public origin was given {}",
            seen.target
        );
    }
    assert!(private.completed() >= 2, "B-27: /./admin and /%61dmin must reach the admin route");
    for (target, expected) in [("/a/../b", "/b"), ("/a/./b", "/a/b"), ("/a/b;x=1", "/a/b;x=1")] {
        let response = gateway.ask(get(target));
        if response.status == 200 {
            assert_eq!(response.text(), format!("GET {expected}\n"), "B-27 {target}");
        } else {
            assert_eq!(response.status, 400, "B-27 {target}");
        }
    }
}

#[test]
fn b28_b29_sizes() {
    let long_line = |length: usize| {
        // "GET " + target + " HTTP/1.1" is what the table counts.
        let target = format!("/{}", "a".repeat(length - "GET / HTTP/1.1".len()));
        get(&target)
    };
    let fields = |count: usize, size: usize| {
        let lines: Vec<String> =
            (0..count).map(|n| format!("X-{n}: {}", "v".repeat(size))).collect();
        with(lines.join("\r\n").as_bytes())
    };
    run(&[
        Case::new("B-28", long_line(4_000), &[200]).forwarded(),
        Case::new("B-28", long_line(8_000), &[200]).forwarded(),
        Case::new("B-28", long_line(40_000), &[414]),
        Case::new("B-28", long_line(200_000), &[414]),
        Case::new("B-29", fields(90, 10), &[200]).forwarded(),
        Case::new("B-29", fields(40, 500), &[200]).forwarded(),
        Case::new("B-29", fields(40, 1_000), &[431]),
        Case::new("B-29", fields(1, 200_000), &[431]),
        Case::new("B-29", fields(101, 1), &[431]),
        Case::new("B-29", fields(1_000, 1), &[431]),
        Case::new("B-29", with(format!("{}: v", "n".repeat(257)).as_bytes()), &[431]),
        Case::new("B-29", with(format!("{}: v", "n".repeat(200)).as_bytes()), &[200]).forwarded(),
        // Endless heads are refused before they end.
        Case::new("B-28", format!("GET /{}", "a".repeat(100_000)), &[414]).open_ended(),
        Case::new("B-29", format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(100_000)), &[431])
            .open_ended(),
    ]);
}

#[test]
fn b30_methods_are_never_folded() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).also_route(
        "{ name: only, match: { path: { prefix: /only }, methods: [GET, POST] }, upstream: origin }",
    ));
    let line =
        |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    run_on(
        &gateway,
        &origin,
        &[
            Case::new("B-30", line(&"M".repeat(33), "/bad"), &[501]),
            Case::new("B-30", line(&"M".repeat(5_000), "/bad"), &[501]),
            Case::new("B-30", line("G(T", "/bad"), &[400]),
            Case::new("B-30", line("", "/bad"), &[400]),
        ],
    );
    for method in ["get", "Get", "BREW"] {
        let mut client = gateway.connect();
        let response = client.ask(line(method, "/only"));
        assert_eq!(response.status, 405, "B-30 {method}");
        let mut allowed: Vec<&str> =
            response.field("allow").unwrap_or_default().split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed, ["GET", "POST"], "B-30 {method}");
        client.assert_alive("B-30");
        let response = gateway.ask(line(method, "/any"));
        if response.status == 200 {
            assert_eq!(response.text(), format!("{method} /any\n"), "B-30: never folded");
        } else {
            assert_eq!(response.status, 405, "B-30 {method}");
        }
    }
}

#[test]
fn b31_to_b35_versions_and_forms() {
    let mut cases = Vec::new();
    for version in [
        "HTTP/1.32",
        "HTTP/01.1",
        "HTTP/1",
        "http/1.1",
        "HTTP/ 1.1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/1.1.1",
        "HTTP 1.1",
        "HTTPS/1.1",
        "HTTP/1,1",
        "HTTP/a.b",
        "HTTP/+1.1",
        "Http/1.1",
        "H",
        "HTTP/",
    ] {
        cases.push(Case::new("B-31", line(format!("GET /bad {version}").as_bytes()), &[400]));
    }
    for version in ["HTTP/2.0", "HTTP/3.0"] {
        cases.push(Case::new("B-32", line(format!("GET /bad {version}").as_bytes()), &[505]));
    }
    cases.push(Case::new("B-33", "GET /bad\r\n\r\n", &[400]));
    cases.push(Case::new("B-33", line(b"GET /bad"), &[400]));
    cases.push(Case::new("B-34", line(b"GET * HTTP/1.1"), &[400]));
    cases.push(Case::new("B-34", line(b"OPTIONS *x HTTP/1.1"), &[400]));
    cases.push(Case::new("B-34", line(b"OPTIONS * HTTP/1.1"), &[200, 204]).keep());
    cases.push(Case::new(
        "B-35",
        "CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n",
        &[405, 501],
    ));
    cases.push(Case::new(
        "B-35",
        "CONNECT /bad HTTP/1.1\r\nHost: a.test\r\n\r\n",
        &[400, 405, 501],
    ));
    cases.push(Case::new("B-35", line(b"TRACE /bad HTTP/1.1"), &[405]).keep());
    run(&cases);
}

#[test]
fn b36_to_b38_chunks() {
    let mut cases = Vec::new();
    for size in [
        "+5",
        "-1",
        "0x5",
        "5_0",
        " 5",
        "5 ",
        "\t5",
        "",
        "g",
        "00000000000000005",
        "fffffffffffffffff",
        "ffffffffffffffff",
        "5\0",
        "5,",
        "5:",
    ] {
        let body = format!("{size}\r\nhello\r\n0\r\n\r\n");
        cases.push(Case::new("B-36", chunked(body.as_bytes()), &[400]).unfinished());
    }
    for body in [
        &b"5\r\nhelloo\r\n0\r\n\r\n"[..],
        b"5\r\nhell\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\r\r\n0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"hello",
    ] {
        cases.push(Case::new("B-37", chunked(body), &[400]).unfinished());
    }
    for extension in [
        &b";"[..],
        b"; ",
        b";a=\0",
        b";a=b\rc",
        b";a=b\nc",
        b";=b",
        b"; =b",
        b";a=\"b",
        b";a b",
        b";a=(b)",
        b";\x01",
        b";;",
        b";a=b;",
    ] {
        let body = [b"5", extension, b"\r\nhello\r\n0\r\n\r\n"].concat();
        cases.push(Case::new("B-38", chunked(&body), &[400]).unfinished());
    }
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5_000));
    cases.push(Case::new("B-38", chunked(long.as_bytes()), &[400]).unfinished());
    let many = format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "a".repeat(100)).repeat(60));
    cases.push(Case::new("B-38", chunked(many.as_bytes()), &[400]).unfinished());
    run(&cases);
}

#[test]
fn b38_good_extensions_are_read_and_never_forwarded() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    let response = client.ask(chunked(b"5;a=b\r\nhello\r\n1;secret=\"q;\"\r\n!\r\n0;last\r\n\r\n"));
    assert_eq!(response.status, 200, "B-38");
    assert_eq!(origin.last().body, b"hello!", "B-38");
    assert!(
        !origin.received("secret") && !origin.received("a=b"),
        "B-38: an extension went through"
    );
    client.assert_alive("B-38");
}

#[test]
fn b39_forbidden_trailers_are_dropped_or_refused() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    for trailer in [
        "Content-Length: 77",
        "Transfer-Encoding: chunked",
        "Host: evil.test",
        "Authorization: Basic evil",
        "Content-Type: text/evil",
        "Connection: close",
        "X-Forwarded-For: 6.6.6.6",
    ] {
        let mut client = gateway.connect();
        let bytes =
            chunked(format!("5\r\nhello\r\n0\r\n{trailer}\r\nX-Fine: 1\r\n\r\n").as_bytes());
        let response = client.ask(bytes);
        if response.status == 400 {
            client.assert_closed("B-39");
            continue;
        }
        assert_eq!(response.status, 200, "B-39 {trailer}");
        let (name, value) = trailer.split_once(": ").unwrap();
        let seen = origin.last();
        assert_eq!(seen.body, b"hello", "B-39 {trailer}");
        assert!(
            seen.trailers.iter().all(|(n, _)| !n.eq_ignore_ascii_case(name)),
            "B-39 {trailer} in {:?}",
            seen.trailers
        );
        if value.len() > 8 || value == "77" {
            assert!(
                seen.head.fields.iter().all(|(_, v)| v != value || name == "Transfer-Encoding"),
                "B-39 {trailer} merged into the head"
            );
        }
        client.assert_alive("B-39");
    }
    run_on(
        &gateway,
        &origin,
        &[
            Case::new("B-39", chunked(b"5\r\nhello\r\n0\r\n:path: /x\r\n\r\n"), &[400])
                .unfinished(),
            Case::new("B-39", chunked(b"5\r\nhello\r\n0\r\nNo Token: x\r\n\r\n"), &[400])
                .unfinished(),
            Case::new("B-39", chunked(b"5\r\nhello\r\n0\r\n folded\r\n\r\n"), &[400]).unfinished(),
        ],
    );
}

#[test]
fn b40_an_upgrade_refused_by_the_origin_is_no_tunnel() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).route("upgrades: [foo]"));
    for token in ["foo", "websocket", "h2c"] {
        let before = origin.completed();
        let mut client = gateway.connect();
        client.send(format!(
            "GET /upgrade HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n\r\n{}",
            get("/second")
        ));
        let first = client.response().unwrap_or_else(|e| panic!("B-40 {token}: {e:?}"));
        assert_eq!(first.text(), "GET /upgrade\n", "B-40 {token}");
        match client.response() {
            Ok(second) => {
                assert_eq!(second.text(), "GET /second\n", "B-40 {token}");
                assert_eq!(origin.completed() - before, 2, "B-40 {token}");
            }
            Err(WireError::Closed | WireError::Reset(_)) => {}
            Err(e) => panic!("B-40 {token}: {e:?}"),
        }
    }
    let seen = origin.seen();
    let unlisted = seen
        .iter()
        .filter(|seen| seen.target == "/upgrade")
        .filter(|seen| seen.field("upgrade").is_some_and(|token| token != "foo"));
    assert_eq!(unlisted.count(), 0, "an Upgrade that the route does not allow was forwarded");
}

#[test]
fn b41_the_body_of_a_request_answered_early_is_never_a_request() {
    let origin = Origin::echo();
    let gateway = Gateway::of(
        &Spec::to(origin.address()).matching("hosts: [a.test]").also_route(
            "{ name: get, match: { hosts: [a.test], path: { exact: /get }, methods: [GET] }, upstream: origin }",
        ),
    );
    let small = SMUGGLED.repeat(3);
    let large = SMUGGLED.repeat(40_000);
    for (host, path, status) in [("other.test", "/bad", 404), ("a.test", "/get", 405)] {
        for body in [&small, &large] {
            for chunked in [false, true] {
                let mut client = gateway.connect();
                let body_bytes = if chunked {
                    format!(
                        "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                        body.len()
                    )
                } else {
                    format!("Content-Length: {}\r\n\r\n{body}", body.len())
                };
                client.send(format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{body_bytes}"));
                let what = format!("B-41 {status}, {} bytes, chunked {chunked}", body.len());
                let response = client.response().unwrap_or_else(|e| panic!("{what}: {e:?}"));
                assert_eq!(response.status, status, "{what}");
                client.send(get("/after"));
                match client.response() {
                    Ok(next) => assert_eq!(next.text(), "GET /after\n", "{what}"),
                    Err(WireError::Closed | WireError::Reset(_)) => {
                        assert!(response.says_close(), "{what}: closed without saying so");
                    }
                    Err(e) => panic!("{what}: {e:?}"),
                }
            }
        }
    }
    assert!(!origin.received("/smuggled"), "B-41: a body was parsed as a request");
}

#[test]
fn b42_expectations() {
    let origin = Origin::echo();
    let gateway = Gateway::of(
        &Spec::to(origin.address()).matching("hosts: [a.test]").route("max_body_bytes: 10"),
    );
    let expecting = |host: &str, length: usize, what: &str| {
        format!(
            "POST /bad HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nExpect: {what}\r\n\r\n"
        )
    };
    for (host, status) in [("a.test", 413), ("other.test", 404)] {
        let mut client = gateway.connect();
        client.send(expecting(host, 100, "100-continue"));
        let response = client.response().unwrap_or_else(|e| panic!("B-42 {status}: {e:?}"));
        assert_eq!(response.status, status, "B-42");
        assert!(response.interim.is_empty(), "B-42 {status}: no 100 before a refusal");
        client.assert_closed("B-42: the body is unread");
    }
    run_on(
        &gateway,
        &origin,
        &[Case::new(
            "B-42",
            "GET /bad HTTP/1.1\r\nHost: a.test\r\nExpect: something\r\n\r\n",
            &[417],
        )
        .keep()],
    );
    assert_eq!(origin.seen().iter().filter(|seen| seen.target == "/bad").count(), 0, "B-42");
}

#[test]
fn b43_a_body_cut_by_fin_never_completes_upstream() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    for (fields, body) in [
        ("Content-Length: 100", "x".repeat(50)),
        ("Transfer-Encoding: chunked", "32\r\n".to_owned() + &"x".repeat(50) + "\r\n"),
        ("Transfer-Encoding: chunked", "32\r\n".to_owned() + &"x".repeat(50) + "\r\n0\r\n"),
        ("Transfer-Encoding: chunked", "64\r\n".to_owned() + &"x".repeat(50)),
    ] {
        let mut client = gateway.connect();
        client.send(post(fields.as_bytes(), body.as_bytes()));
        client.wire.half_close();
        match client.response() {
            Ok(response) => {
                assert!(matches!(response.status, 400 | 408), "B-43 {}", response.status)
            }
            Err(WireError::Closed | WireError::Reset(_)) => {}
            Err(e) => panic!("B-43 {fields}: {e:?}"),
        }
    }
    // The origin's connections must end, or it would wait for the rest for ever.
    assert!(eventually(PATIENCE, || origin.open() == 0), "B-43: upstream requests are not aborted");
    assert_eq!(origin.completed(), 0, "B-43");
}

#[test]
fn b44_connection_cannot_strip_what_the_gateway_says() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut cases = Vec::new();
    for named in ["Host", "Content-Length", "Transfer-Encoding", "close, host", "HOST"] {
        cases.push(Case::new(
            "B-44",
            post(format!("Connection: {named}\r\nContent-Length: 5").as_bytes(), b"hello"),
            &[400],
        ));
    }
    run_on(&gateway, &origin, &cases);
    let response = gateway.ask(with(
        b"Connection: Authorization, X-User, X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, Via, close\r\n\
          Authorization: secret\r\nX-User: me\r\nX-Forwarded-For: 6.6.6.6\r\nKept: yes",
    ));
    assert_eq!(response.status, 200, "B-44");
    let seen = origin.last();
    assert!(
        seen.all("authorization").is_empty() && seen.all("x-user").is_empty(),
        "B-44: {:?}",
        seen.head.fields
    );
    assert_eq!(seen.field("kept"), Some("yes"), "B-44");
    assert_eq!(
        seen.field("x-forwarded-for"),
        Some("127.0.0.1"),
        "B-44: the gateway's own field is set after"
    );
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"), "B-44");
    assert!(seen.field("x-request-id").is_some(), "B-44");
    assert_eq!(seen.field("via"), Some("1.1 sluice"), "B-44");
}

#[test]
fn b45_spoofed_identity_fields() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).listener("forwarded: true"));
    let response = gateway.ask(with(
        b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
          X-Forwarded-Host: evil.test\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6;proto=https\r\n\
          X-Consumer-Id: root\r\nX-Consumer-Username: root",
    ));
    assert_eq!(response.status, 200, "B-45");
    let seen = origin.last();
    for (name, value) in &seen.head.fields {
        for evil in ["6.6.6.6", "7.7.7.7", "evil.test", "https", "root"] {
            assert!(!value.contains(evil), "B-45: {name}: {value} comes from an untrusted client");
        }
    }
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"), "B-45");
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"), "B-45");
    assert_eq!(seen.field("x-forwarded-host"), Some("a.test"), "B-45");
    assert!(
        seen.field("forwarded").is_some_and(|v| v.contains("for=127.0.0.1")),
        "B-45: {:?}",
        seen.all("forwarded")
    );
    run_on(
        &gateway,
        &origin,
        &[
            Case::new("B-45", with(b"Via: 1.1 sluice"), &[502, 508]),
            Case::new("B-45", with(b"Via: 1.0 other, 1.1 sluice (x)"), &[502, 508]),
            Case::new("B-45", with(b"Via: 1.0 other\r\nVia: 1.1 sluice"), &[502, 508]),
            Case::new("B-45", with(b"Via: 1.1 sluicegate"), &[200]).forwarded(),
        ],
    );
}

#[test]
fn b46_bodies_over_the_limit() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).route("max_body_bytes: 1000"));
    let body = "x".repeat(1001);
    let mut cases = vec![
        Case::new("B-46", post(b"Content-Length: 1001", body.as_bytes()), &[413]),
        Case::new("B-46", post(b"Content-Length: 9000000000000000000", b""), &[413]).open_ended(),
        Case::new("B-46", post(b"Content-Length: 1000", &body.as_bytes()[..1000]), &[200])
            .forwarded(),
        Case::new("B-46", chunked(format!("3e9\r\n{body}\r\n0\r\n\r\n").as_bytes()), &[413])
            .unfinished(),
        Case::new(
            "B-46",
            chunked(format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(1001)).as_bytes()),
            &[413],
        )
        .unfinished(),
        Case::new(
            "B-46",
            chunked(format!("3e8\r\n{}\r\n0\r\n\r\n", &body[..1000]).as_bytes()),
            &[200],
        )
        .forwarded(),
    ];
    cases.push(
        Case::new("B-46", chunked(b"7fffffffffffffff\r\nx"), &[413]).unfinished().open_ended(),
    );
    run_on(&gateway, &origin, &cases);
}

#[test]
fn b47_bodies_on_methods_without_meaning_for_them() {
    let mut cases = Vec::new();
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let head = format!("{method} /body HTTP/1.1\r\nHost: a.test\r\n");
        cases.push(
            Case::new(
                "B-47",
                format!("{head}Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
                &[200, 400],
            )
            .forwarded(),
        );
        cases.push(
            Case::new(
                "B-47",
                format!(
                    "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
                    SMUGGLED.len()
                ),
                &[200, 400],
            )
            .forwarded(),
        );
    }
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    for case in &cases {
        attempt(&gateway, &origin, case, b"").unwrap_or_else(|e| panic!("{}: {e}", case.name()));
    }
    let targets = origin.seen();
    assert!(
        targets.iter().all(|seen| seen.target != "/smuggled"),
        "B-47: a body was parsed as a request"
    );
}

#[test]
fn b48_other_protocols() {
    // The beginning of a TLS 1.2 ClientHello record.
    let tls = [&b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"[..], &[0x5a; 194]].concat();
    // A fixed xorshift stream: the same 512 bytes in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let random: Vec<u8> = (0..512)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect();
    run(&[
        Case::new("B-48", tls, &[400, 0]).open_ended(),
        Case::new("B-48", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 405, 501, 505]).open_ended(),
        Case::new("B-48", random, &[400, 0]).open_ended(),
        Case::new("B-48", [0u8; 512], &[400, 0]).open_ended(),
        Case::new("B-48", [0xff_u8; 512], &[400, 0]).open_ended(),
        Case::new("B-48", "SSH-2.0-OpenSSH_9.2\r\n", &[400, 0]).open_ended(),
    ]);
}

#[test]
fn b48_saying_nothing_ends_in_a_close() {
    let origin = Origin::echo();
    let gateway = Gateway::of(
        &Spec::to(origin.address())
            .listener("limits: { header_timeout_ms: 300, idle_timeout_ms: 300 }"),
    );
    for bytes in ["", "G", "GET / HT", "GET / HTTP/1.1\r\nHost: a.test\r\n"] {
        let mut client = gateway.connect();
        client.send(bytes);
        match client.response() {
            Ok(response) => {
                assert_eq!(response.status, 408, "B-48 after {bytes:?}");
                client.assert_closed("B-48");
            }
            Err(WireError::Closed | WireError::Reset(_)) => {}
            Err(e) => panic!("B-48 after {bytes:?}: {e:?}"),
        }
    }
    assert_eq!(origin.accepted(), 0, "B-48");
}

#[test]
fn b49_ten_good_then_one_bad() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut bytes: String = (0..10).map(|n| get(&format!("/{n}"))).collect();
    bytes.push_str("GET /bad HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n");
    bytes.push_str(SMUGGLED);
    let mut client = gateway.connect();
    client.send(bytes);
    for n in 0..10 {
        let response = client.response().unwrap_or_else(|e| panic!("B-49, answer {n}: {e:?}"));
        assert_eq!(response.text(), format!("GET /{n}\n"), "B-49");
    }
    let bad = client.response().unwrap_or_else(|e| panic!("B-49, the 400: {e:?}"));
    assert_eq!(bad.status, 400, "B-49");
    client.assert_closed("B-49");
    assert!(!origin.received("/bad") && !origin.received("/smuggled"), "B-49");
}

/// An origin that accepts WebSocket handshakes and then echoes bytes.
fn websocket_origin() -> Origin {
    Origin::start(|seen| {
        if !seen.head.lists("connection", "upgrade") || seen.field("upgrade").is_none() {
            return answer("no upgrade\n");
        }
        tests::Script::default().send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello from the origin",
        )
    })
    .lenient()
}

#[test]
fn b58_websocket_handshakes() {
    let origin = websocket_origin();
    let gateway = Gateway::of(&Spec::to(origin.address()).route("upgrades: [websocket]"));
    let handshake = |method: &str, fields: &str| {
        format!("{method} /ws HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
    };
    let (connection, upgrade) = ("Connection: Upgrade\r\n", "Upgrade: websocket\r\n");
    let (key, version) =
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Version: 13\r\n");

    let mut client = gateway.connect();
    client.send(handshake("GET", &format!("{connection}{upgrade}{key}{version}")));
    let (_, head) = client.final_head().unwrap_or_else(|e| panic!("B-58, good: {e:?}"));
    assert_eq!(head.status(), Ok(101), "B-58, good");
    assert!(head.lists("connection", "upgrade") && head.has("upgrade"), "B-58: {:?}", head.fields);
    let mut early = Vec::new();
    client
        .wire
        .body(21, &mut |bytes| early.extend_from_slice(bytes))
        .unwrap_or_else(|e| panic!("B-58: {e:?}"));
    assert_eq!(early, b"hello from the origin", "B-58: bytes pass once it is a tunnel");
    drop(client);

    for (what, method, fields, statuses) in [
        ("no key", "GET", format!("{connection}{upgrade}{version}"), &[400][..]),
        (
            "short key",
            "GET",
            format!("{connection}{upgrade}Sec-WebSocket-Key: dGhl\r\n{version}"),
            &[400],
        ),
        (
            "version 12",
            "GET",
            format!("{connection}{upgrade}{key}Sec-WebSocket-Version: 12\r\n"),
            &[426],
        ),
        (
            "POST",
            "POST",
            format!("{connection}{upgrade}{key}{version}Content-Length: 0\r\n"),
            &[400],
        ),
    ] {
        let response = gateway.ask(handshake(method, &fields));
        assert!(statuses.contains(&response.status), "B-58, {what}: {}", response.head.start);
        if response.status == 426 {
            assert_eq!(response.field("sec-websocket-version"), Some("13"), "B-58, {what}");
        }
    }
    let response = gateway.ask(handshake("GET", &format!("{upgrade}{key}{version}")));
    assert_eq!(
        (response.status, response.text()),
        (200, "no upgrade\n".into()),
        "B-58, no Connection: upgrade"
    );
}

#[test]
fn every_400_is_the_same_400() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let bodies: Vec<String> = [
        "GET /bad HTTP/1.1\r\n\r\n".to_owned(),
        get("/%zz"),
        "GET / HTTP/1.1\r\nHost: a.test\r\nX Y: z\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1, 2\r\n\r\n".to_owned(),
        "\x16\x03\x01 nonsense\r\n\r\n".to_owned(),
    ]
    .iter()
    .map(|bytes| {
        let response = gateway.ask(bytes);
        assert_eq!(response.status, 400, "{bytes:?}");
        let id = response.field("x-request-id").unwrap_or_default().to_owned();
        assert!(!id.is_empty(), "{bytes:?}: no request id");
        assert_ne!(response.framing, Framing::UntilClose, "{bytes:?}");
        response.text().replace(&id, "ID")
    })
    .collect();
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
}

/// Each bad head also comes one byte at a time: how bytes are cut must not change the judgement.
#[test]
fn dribbled_bytes_are_judged_alike() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    for (bytes, status) in [
        (get("/fine"), 200),
        (format!("\r\n{}", get("/fine")), 200),
        (String::from_utf8_lossy(&chunked(b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n")).into_owned(), 200),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n".to_owned(), 400),
        (String::from_utf8_lossy(&chunked(b"5\r\nhelloX\r\n0\r\n\r\n")).into_owned(), 400),
    ] {
        let mut client = gateway.connect();
        for byte in bytes.as_bytes() {
            client.send([*byte]);
            std::thread::sleep(Duration::from_micros(300));
        }
        let response = client.response().unwrap_or_else(|e| panic!("{bytes:?}: {e:?}"));
        assert_eq!(response.status, status, "{bytes:?} byte by byte");
    }
}
