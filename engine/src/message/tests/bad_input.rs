//! The table of bad input, row by row: what each malformed or hostile head or body is answered.

use super::super::{Framing, HeadLimits, Name, Progress, Refusal, RequestHead, Target};
use super::{Outcome, read_requests, status};

/// Asserts that every input gets `expected`; 0: it is read.
fn expect(id: &str, expected: u16, inputs: &[&[u8]]) {
    for input in inputs {
        let outcome = read_requests(input);
        let input: Vec<u8> = input.iter().copied().take(200).collect();
        assert_eq!(status(&outcome), expected, "{id}: {outcome:?}: {}", input.escape_ascii());
        if expected == 0 {
            assert!(!matches!(outcome, Outcome::Read(0)), "{id}: no end: {}", input.escape_ascii());
        }
    }
}

/// A POST whose head is complete but for `lines`, and what follows the head.
fn post(lines: &[u8], body: &[u8]) -> Vec<u8> {
    [&b"POST / HTTP/1.1\r\nHost: a\r\n"[..], lines, b"\r\n\r\n", body].concat()
}

fn expect_lines(id: &str, expected: u16, lines: &[&[u8]]) {
    for lines in lines {
        expect(id, expected, &[&post(lines, b"")]);
    }
}

fn expect_chunked(id: &str, expected: u16, bodies: &[&[u8]]) {
    for body in bodies {
        expect(id, expected, &[&post(b"Transfer-Encoding: chunked", body)]);
    }
}

fn expect_line(id: &str, expected: u16, lines: &[&[u8]]) {
    for line in lines {
        expect(id, expected, &[&[line, &b"\r\nHost: a\r\n\r\n"[..]].concat()]);
    }
}

#[test]
fn hosts() {
    expect("B-01", 400, &[b"GET / HTTP/1.1\r\n\r\n", b"GET http://a/ HTTP/1.1\r\n\r\n"]);
    expect("B-01: 1.0 has none", 0, &[b"GET / HTTP/1.0\r\n\r\n"]);
    expect_lines("B-02", 400, &[b"Host: a", b"host: b"]);
    for host in [
        &b"a, b"[..],
        b"a,b",
        b"u@a",
        b"u:p@a",
        b"a/",
        b"a/b",
        b"a b",
        b"a\tb",
        b"",
        b" ",
        b"a:",
        b"a:x",
        b"a:0",
        b"a:65536",
        b"a:080",
        b"a:+80",
        b"a:80:80",
        b"a..b",
        b".a",
        b"a%41",
        b"a\xe9",
        b"[::1",
        b"[::g]",
        b"[::1]x",
        b"::1",
        b"[fe80::1%25eth0]",
        b"a?b",
        b"a#b",
        b"a\\b",
        b"http://a",
        b"*",
        b"a=1",
    ] {
        expect("B-03", 400, &[&[b"GET / HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat()]);
        if !host.is_empty() && !host.contains(&b'/') && !host.contains(&b'?') {
            let target = [b"GET http://", host, b"/ HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            expect("B-03: in the target", 400, &[&target]);
        }
    }
    for host in
        [&b"a"[..], b"A.example", b"a.:80", b"1.2.3.4:65535", b"[::1]", b"[::1]:80", b"_x-1~"]
    {
        expect("B-03: good", 0, &[&[b"GET / HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat()]);
    }
}

#[test]
fn absolute_targets_win_over_host() {
    let bytes = b"GET http://one:81/p?q HTTP/1.1\r\nHost: two\r\n\r\n";
    let mut head = RequestHead::new();
    assert_eq!(head.parse(bytes, &HeadLimits::REQUEST), Ok(Progress::Complete), "B-04");
    assert_eq!(head.authority().unwrap().of(bytes), b"one:81", "B-04");
    let site = head.site.unwrap();
    assert_eq!((site.host.of(bytes), site.port), (&b"one"[..], Some(81)), "B-04");
    assert_eq!((head.path(bytes), head.query(bytes)), (&b"/p"[..], Some(&b"q"[..])), "B-04");
    let bytes = b"GET HTTPS://one?q HTTP/1.1\r\nHost: two\r\n\r\n";
    assert_eq!(head.parse(bytes, &HeadLimits::REQUEST), Ok(Progress::Complete), "B-04");
    assert_eq!((head.path(bytes), head.query(bytes)), (&b""[..], Some(&b"q"[..])), "B-04");
    assert!(matches!(head.target, Target::Absolute { scheme_https: true, .. }), "B-04");
}

#[test]
fn body_lengths() {
    expect_lines(
        "B-05",
        400,
        &[
            b"Content-Length: 3\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 0",
            b"Transfer-Encoding: gzip\r\nContent-Length: 0",
        ],
    );
    expect_lines(
        "B-06",
        400,
        &[b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 5, 6"],
    );
    expect_lines(
        "B-07",
        400,
        &[b"Content-Length: 5\r\nContent-Length: 5", b"Content-Length: 5, 5"],
    );
    for length in [
        &b"+5"[..],
        b"-1",
        b"-0",
        b"0x5",
        b"1_0",
        b"1 0",
        b"5;",
        b"",
        b" ",
        b"1\t0",
        b"5,",
        b",5",
        b"5.0",
        b"\xb2",
        b"\"5\"",
    ] {
        expect_lines("B-08", 400, &[&[b"Content-Length: ", length].concat()]);
    }
    expect_lines("B-09", 400, &[b"Content-Length: 18446744073709551616"]);
    expect_lines("B-09", 400, &[b"Content-Length: 1000000000000000000000000000000"]);
    expect_lines("B-10", 400, &[b"Content-Length: 010", b"Content-Length: 00"]);
    expect("a length", 0, &[&post(b"content-length:\t5 ", b"12345GET")]);
}

#[test]
fn transfer_codings() {
    for coding in [&b"xchunked"[..], b"gzip", b"identity", b"chunked;x=y", b"gzip, chunked"] {
        expect_lines("B-11", 501, &[&[b"Transfer-Encoding: ", coding].concat()]);
    }
    expect_lines("B-11", 400, &[b"Transfer-Encoding:", b"Transfer-Encoding: \t "]);
    for lines in [&b""[..], b"Content-Length: 3\r\n"] {
        let head = [
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n",
            lines,
            b"\r\n0\r\n\r\n",
        ];
        expect("B-12", 400, &[&head.concat()]);
    }
    expect_lines(
        "B-13",
        400,
        &[b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: chunked, chunked"],
    );
    expect_lines(
        "B-14",
        400,
        &[
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            b"Transfer-Encoding: ,chunked",
            b"Transfer-Encoding: chunked,",
            b"Transfer-Encoding: chunked,,chunked",
        ],
    );
    for coding in [
        &b"\x0bchunked"[..],
        b"chunked\x0b",
        b"\x0cchunked",
        b"chunked\x00",
        b"\x85chunked",
        b"chunked\xa0",
        b"\"chunked\"",
        b"'chunked'\"",
        b"chunked\x7f",
        b"chun ked",
        b"gzip;a=\"b,chunked\"",
    ] {
        expect_lines("B-15", 400, &[&[b"Transfer-Encoding: ", coding].concat()]);
    }
    expect("chunked", 0, &[&post(b"transfer-ENCODING:CHUNKED\t", b"1\r\na\r\n0\r\n\r\n")]);
}

#[test]
fn field_lines() {
    expect_lines("B-16", 400, &[b"Transfer-Encoding : chunked", b"X\t: a", b"X : a"]);
    expect_lines("B-17", 400, &[b"X: a\r\n b", b"X: a\r\n\tb", b"X:\r\n a", b"X: a\r\n \r\nY: b"]);
    expect(
        "B-18",
        400,
        &[
            b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n\tX: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
        ],
    );
    expect_lines(
        "B-19",
        400,
        &[
            b"no colon",
            b": empty",
            b":",
            b"a(b: c",
            b"a b: c",
            b"a/b: c",
            b"\xc3\xa9: c",
            b"a\x80: c",
            b"Transfer_Encoding: chunked",
            b"X_Y: a",
            b"_: a",
            b"\x00: a",
            b"a\x7f: b",
            b"\"a\": b",
        ],
    );
    for byte in (0..0x20u8).filter(|byte| *byte != b'\t').chain([0x7f]) {
        for value in [vec![b'a', byte, b'b'], vec![byte], vec![byte, b'a'], vec![b'a', byte]] {
            expect_lines("B-20", 400, &[&[b"X: ", &value[..]].concat()]);
            // Beside long text, where the tokeniser works on many bytes at once.
            let long = [b"X: ", &[b'x'; 70][..], &value, &[b'y'; 70]].concat();
            expect_lines("B-20", 400, &[&long]);
        }
    }
    expect_lines("obs-text, empty, tab", 0, &[b"X: \xe9\xff\x80", b"X:", b"X: a\tb", b"X: \t"]);
    expect(
        "B-21",
        400,
        &[
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"GET / HTTP/1.1\r\nHost: a\n\n",
            b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \n\r\n",
        ],
    );
    expect_chunked(
        "B-21",
        400,
        &[b"1\na\r\n0\r\n\r\n", b"1\r\na\n0\r\n\r\n", b"1\r\na\r\n0\n\r\n"],
    );
    expect_chunked("B-21", 400, &[b"0\r\n\n", b"0\r\nA: b\n\r\n", b"1;a\na\r\n0\r\n\r\n"]);
    expect(
        "B-22",
        400,
        &[
            b"GET / HTTP/1.1\rHost: a\r\r",
            b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\rX",
            b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
}

#[test]
fn request_lines() {
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    expect("B-23", 0, &[&[b"\r\n", &get[..]].concat(), &[b"\r\n\r\n", &get[..]].concat()]);
    expect("B-23", 400, &[&[b"\r\n\r\n\r\n", &get[..]].concat(), b"\r\n\r\n\r"]);
    expect("B-23: between", 0, &[&[&get[..], b"\r\n", get, b"\r\n\r\n", get].concat()]);
    expect_line(
        "B-24",
        400,
        &[
            b"GET  / HTTP/1.1",
            b"GET /  HTTP/1.1",
            b"GET\t/ HTTP/1.1",
            b"GET /\tHTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET / HTTP/1.1\t",
            b" GET / HTTP/1.1",
            b"GET",
            b"GET ",
            b"GET /",
            b"GET /\x0bHTTP/1.1",
            b"GET HTTP/1.1",
            b"GET  HTTP/1.1",
        ],
    );
    expect_line(
        "B-25",
        400,
        &[b"GET /a b HTTP/1.1", b"GET /#frag HTTP/1.1", b"GET /a?b#c HTTP/1.1"],
    );
    let legal = b"-._~!$&'()*+,;=:@/[]?";
    for byte in (0..=255u8).filter(|byte| !byte.is_ascii_alphanumeric() && *byte != b'%') {
        let verdict = if legal.contains(&byte) { 0 } else { 400 };
        for before in [&b"/a"[..], b"/?a", b"http://h/"] {
            let line = [b"GET ", before, &[byte], b"b HTTP/1.1"].concat();
            expect_line("B-25", verdict, &[&line]);
        }
    }
    for escape in [&b"%zz"[..], b"%0", b"%", b"%00", b"%0g", b"%%20", b"%g0"] {
        expect_line("B-26", 400, &[&[b"GET /a", escape, b" HTTP/1.1"].concat()]);
        expect_line("B-26", 400, &[&[b"GET /a?b=", escape, b" HTTP/1.1"].concat()]);
        expect_line("B-26", 400, &[&[b"GET /", escape, b"? HTTP/1.1"].concat()]);
    }
    expect_line("B-26: good", 0, &[b"GET /%20%c3%A9%7e?%2F HTTP/1.1"]);
}

#[test]
fn bounds() {
    let line = |len: usize| [&b"GET /"[..], &vec![b'a'; len - 14], b" HTTP/1.1"].concat();
    assert_eq!(line(8192).len(), 8192);
    expect_line("B-28", 0, &[&line(8000), &line(8192)]);
    expect_line("B-28", 414, &[&line(8193), &line(20_000)]);
    expect("B-28: no end", 414, &[&line(9000), &[b"GET /", &[b'a'; 40_000][..]].concat()]);
    let value = |len: usize| [&b"X: "[..], &vec![b'a'; len]].concat();
    let rest = post(&value(0), b"").len();
    expect_lines("B-29", 0, &[&value(32 * 1024 - rest)]);
    expect_lines("B-29", 431, &[&value(32 * 1024 - rest + 1), &value(100_000)]);
    expect("B-29: no end", 431, &[&post(&value(40_000), b"")[..35_000]]);
    let fields = |count: usize| vec![&b"X: a"[..]; count].join(&b"\r\n"[..]);
    expect_lines("B-29: fields", 0, &[&fields(99)]);
    expect_lines("B-29: fields", 431, &[&fields(100), &fields(2000)]);
    let name = |len: usize| [&vec![b'a'; len][..], b": b"].concat();
    expect_lines("B-29: name", 0, &[&name(256)]);
    expect_lines("B-29: name", 431, &[&name(257), &name(10_000)]);
    expect_line("B-30", 501, &[&[&[b'A'; 33][..], b" / HTTP/1.1"].concat()]);
    expect("B-30: no end", 501, &[&[b'A'; 33], &[b'A'; 20_000]]);
    expect_line("B-30: routed", 0, &[b"get / HTTP/1.1", b"M-SEARCH / HTTP/1.1"]);
    expect_line("B-30: routed", 0, &[&[&[b'A'; 32][..], b" / HTTP/1.1"].concat()]);
    expect_line("B-30: not a token", 400, &[b"G@T / HTTP/1.1", b"G\xc3\xa9T / HTTP/1.1"]);
}

#[test]
fn versions_and_targets() {
    for version in [
        &b"HTTP/1.32"[..],
        b"HTTP/01.1",
        b"HTTP/1",
        b"http/1.1",
        b"HTTP/ 1.1",
        b"HTTP/1.1x",
        b"HTTP/1.",
        b"HTTP1.1",
        b"HTTP/1,1",
        b"HTTP/a.b",
        b"HTTPS/1.1",
        b"XTTP/1.1",
        b"",
    ] {
        expect_line("B-31", 400, &[&[b"GET / ", version].concat()]);
    }
    for version in [&b"HTTP/2.0"[..], b"HTTP/3.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/9.9"] {
        expect_line("B-32", 505, &[&[b"GET / ", version].concat()]);
    }
    expect("B-33", 400, &[b"GET /\r\n", b"GET /\r\n\r\n", b"GET\r\n\r\n"]);
    expect_line("B-34", 400, &[b"GET * HTTP/1.1", b"OPTIONS *x HTTP/1.1", b"OPTIONS ** HTTP/1.1"]);
    expect_line("B-34", 0, &[b"OPTIONS * HTTP/1.1"]);
    expect_line(
        "targets",
        400,
        &[b"GET a HTTP/1.1", b"GET a:80 HTTP/1.1", b"GET ftp://a/ HTTP/1.1"],
    );
    expect_line("targets", 400, &[b"GET http:/a HTTP/1.1", b"GET http:///a HTTP/1.1"]);
    for target in [&b"/"[..], b"a", b"a:", b"http://a:80/", b"*", b"a:80/", b"u@a:80"] {
        expect_line("B-35", 400, &[&[b"CONNECT ", target, b" HTTP/1.1"].concat()]);
    }
    let bytes = b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut head = RequestHead::new();
    assert_eq!(head.parse(bytes, &HeadLimits::REQUEST), Ok(Progress::Complete), "B-35");
    assert!(matches!(head.target, Target::Authority(at) if at.of(bytes) == b"a:443"), "B-35");
}

#[test]
fn chunks() {
    for size in [
        &b"+5"[..],
        b"-1",
        b"0x5",
        b"5_0",
        b" 5",
        b"5 ",
        b"",
        b"00000000000000005",
        b"5\t",
        b"g",
        b"\t5",
        b"5\r",
        b"5,",
        b"5\x00",
        b"\xef\xbc\x95",
        b"fffffffffffffffff",
    ] {
        let body = [size, b"\r\nhello\r\n0\r\n\r\n"].concat();
        expect_chunked("B-36", 400, &[&body]);
    }
    expect_chunked("B-36: good", 0, &[b"0000000000000005\r\nhello\r\n000\r\n\r\n"]);
    expect_chunked(
        "B-37",
        400,
        &[
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"5\r\nhell\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\n\r0\r\n\r\n",
        ],
    );
    for extension in [
        &b";"[..],
        b";a\rb",
        b";a\nb",
        b";a\x00",
        b";a=",
        b";=b",
        b";;",
        b";a;",
        b"; a",
        b" ;a",
        b";a =b",
        b";a= b",
        b";a=\"b",
        b";a=\"b\"c",
        b";a=\"\x01\"",
        b";a=\"\\\r\"",
        b";a(b",
        b";a=b=c",
        b";\xe9",
        b";a=\"b\x7f\"",
    ] {
        expect_chunked("B-38", 400, &[&[b"0", extension, b"\r\n\r\n"].concat()]);
    }
    expect_chunked("B-38: good", 0, &[b"1;a;b=c;d=\"e \\\" ; \xe9\";f\r\nx\r\n0;g\r\n\r\n"]);
    let extended = |len: usize| [&b"1;"[..], &vec![b'a'; len], b"\r\nx\r\n"].concat();
    expect_chunked("B-38", 400, &[&extended(4096), &extended(100_000)]);
    let many = [&extended(10).repeat(400)[..], b"0\r\n\r\n"].concat();
    expect_chunked("B-38: in total", 400, &[&many]);
    expect_chunked("B-38: bounded", 0, &[&[&extended(4000)[..], b"0\r\n\r\n"].concat()]);
}

#[test]
fn trailers() {
    expect_chunked(
        "B-39",
        400,
        &[
            b"0\r\nno colon\r\n\r\n",
            b"0\r\n:path: /\r\n\r\n",
            b"0\r\n A: b\r\n\r\n",
            b"0\r\nA: b\r\n c\r\n\r\n",
            b"0\r\nA : b\r\n\r\n",
            b"0\r\nA: b\x00\r\n\r\n",
            b"0\r\nA: \r\r\n\r\n",
        ],
    );
    let long = [b"0\r\nA: ", &[b'a'; 9000][..], b"\r\n\r\n"].concat();
    let many = [&b"0\r\n"[..], &b"A: b\r\n".repeat(101), b"\r\n"].concat();
    expect_chunked("B-39", 431, &[&long, &many]);
    let mut decoder = super::ChunkedDecoder::new();
    let body = b"0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nAuthorization: c\r\n\
        Content-Type: d\r\nX-Forwarded-For: e\r\nCookie: f\r\nConnection: g\r\nX_Y: h\r\n\
        Trailer: i\r\nGrpc-Status:  0 \r\nCache-Control: j\r\nSet-Cookie: k\r\nX-Sum:abc\r\n\r\nrest";
    assert_eq!(decoder.next(body), Ok((body.len() - 4, super::Event::Done)), "B-39");
    assert_eq!(decoder.trailers(), b"Grpc-Status: 0\r\nX-Sum: abc\r\n", "B-39");
}

fn parsed(bytes: &[u8]) -> RequestHead {
    let mut head = RequestHead::new();
    let limits = HeadLimits { drop_underscore: true, ..HeadLimits::REQUEST };
    assert_eq!(head.parse(bytes, &limits), Ok(Progress::Complete), "{}", bytes.escape_ascii());
    head
}

#[test]
fn upgrades_and_expectations() {
    let head = |lines: &[u8]| parsed(&post(lines, b""));
    assert!(head(b"Upgrade: foo\r\nConnection: upgrade").upgrade.is_some(), "B-40");
    assert!(head(b"Upgrade: foo").upgrade.is_none(), "B-40: not in Connection");
    let two = b"Upgrade: foo\r\nUpgrade: bar\r\nConnection: upgrade";
    assert!(head(two).upgrade.is_none(), "B-40: two");
    let old = b"GET / HTTP/1.0\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n";
    assert!(parsed(old).upgrade.is_none(), "B-40: in 1.0");
    assert!(head(b"Expect: 100-Continue\r\nContent-Length: 5").expect_continue, "B-42");
    assert!(!head(b"Expect: 100-continue").expect_continue, "B-42: no body");
    let old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    assert!(!parsed(old).expect_continue, "B-42: in 1.0");
    let mut refused = RequestHead::new();
    let bytes = post(b"Expect: other\r\nContent-Length: 5", b"");
    let verdict = refused.parse(&bytes, &HeadLimits::REQUEST);
    assert_eq!(verdict, Err(Refusal::ExpectationFailed), "B-42");
    assert!(!Refusal::ExpectationFailed.closes() && refused.keep_alive, "B-42");
    assert_eq!((refused.framing, refused.head_len), (Framing::Length(5), bytes.len()), "B-42");
    assert!(!head(b"Expect: 100-continue\r\nContent-Length: 0").expect_continue, "B-42");
}

#[test]
fn connection_options() {
    let bytes = post(
        b"Authorization: a\r\nConnection: Authorization, x-USER,, close\r\nX-User: b\r\n\
        X-User2: c\r\nTE: gzip, trailers;q=1\r\nConnection: via\r\nVia: d\r\nX_Y: e",
        b"",
    );
    let head = parsed(&bytes);
    let kept: Vec<&[u8]> = head
        .fields
        .iter()
        .filter(|field| field.forwarded())
        .map(|field| field.name.of(&bytes))
        .collect();
    assert_eq!(kept, [&b"Host"[..], b"X-User2"], "B-44");
    assert!(!head.keep_alive && head.te_trailers, "B-44");
    assert_eq!(head.value(&bytes, Name::Via), Some(&b"d"[..]), "B-44: still to be read");
    for named in
        [&b"Host"[..], b"content-length", b"close, Transfer-Encoding", b"a b", b"\"a\"", b"a;b"]
    {
        expect_lines("B-44", 400, &[&[b"Connection: ", named].concat()]);
    }
    let many = vec![&b"a"[..]; 10_000].join(&b","[..]);
    expect_lines("B-44: many", 400, &[&[b"Connection: ", &many[..]].concat()]);
    let old =
        |lines: &[u8]| parsed(&[b"GET / HTTP/1.0\r\n", lines, b"\r\n\r\n"].concat()).keep_alive;
    assert!(!old(b"A: b"));
    assert!(old(b"Connection: Keep-Alive"));
    assert!(!old(b"Connection: keep-alive\r\nConnection: close"));
    assert!(!old(b"Proxy-Connection: keep-alive"));
}

#[test]
fn other_protocols() {
    expect("B-48: TLS", 400, &[b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]);
    expect("B-48: HTTP/2", 505, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\r\n"]);
    let mut state = 0x9e37_79b9u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..512).map(|_| noise()).collect();
        assert_ne!(status(&read_requests(&bytes)), 0, "B-48: {}", bytes.escape_ascii());
    }
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let bytes = [&get.repeat(10)[..], b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", get].concat();
    assert!(matches!(read_requests(&bytes), Outcome::Refused(10, 400, _)), "B-49");
}
