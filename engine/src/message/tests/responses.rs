//! The response side, held to the same rules as the request side (security checklist, 11).

use super::super::{BodyFraming, HeadLimits, Progress, ResponseHead, ResponseRefusal};
use super::{read_responses, status};

#[test]
fn malformed_heads() {
    let head = |lines: &[u8]| [b"HTTP/1.1 200 OK\r\n", lines, b"\r\n\r\n"].concat();
    for lines in [
        &b"Content-Length: 5\r\nTransfer-Encoding: chunked"[..],
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5, 5",
        b"Content-Length: +5",
        b"Content-Length:",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding:",
        b"X: a\rb",
        b"X: a\x00",
        b"X: a\nY: b",
        b"X: a\r\n b",
        b"X : a",
        b"no colon",
        b"Connection: content-length",
        b" X: a",
    ] {
        let outcome = read_responses(&head(lines));
        assert_eq!(status(&outcome), 502, "{outcome:?}: {}", lines.escape_ascii());
    }
    for line in [
        &b"HTTP/1.1 099 A"[..],
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/1.1 200 a\x00",
        b"HTTP/1.1 200\tOK",
        b"http/1.1 200 OK",
        b"\r\nHTTP/1.1 200 OK",
        b"200 OK",
    ] {
        let outcome = read_responses(&[line, &b"\r\n\r\n"[..]].concat());
        assert_eq!(status(&outcome), 502, "{outcome:?}: {}", line.escape_ascii());
    }
    let old = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(status(&read_responses(old)), 502);
    let long = head(&[b"X: ", &[b'a'; 64 * 1024][..]].concat());
    let mut parser = ResponseHead::new();
    let verdict = parser.parse(&long, false, &HeadLimits::RESPONSE);
    assert_eq!(verdict, Err(ResponseRefusal::HeadTooLarge));
}

#[test]
fn framing() {
    let parse = |bytes: &[u8], request_is_head| {
        let mut head = ResponseHead::new();
        let verdict = head.parse(bytes, request_is_head, &HeadLimits::RESPONSE);
        assert_eq!(verdict, Ok(Progress::Complete), "{}", bytes.escape_ascii());
        let dropped = head.fields.iter().any(|field| field.drop);
        (head.framing, head.keep_alive, dropped)
    };
    let get = |bytes: &[u8]| parse(bytes, false);
    use BodyFraming::{Chunked, Length, None, UntilClose};
    assert_eq!(get(b"HTTP/1.1 200\r\n\r\n"), (UntilClose, false, false));
    assert_eq!(get(b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n"), (Length(0), true, false));
    assert_eq!(
        get(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (Chunked, true, false)
    );
    assert_eq!(get(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n"), (Length(5), false, false));
    let kept = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(get(kept), (Length(5), true, false));
    let close = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(get(close), (Length(5), false, false));
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse(chunked, true), (None, true, false), "HEAD");
    assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n", true), (None, true, false), "HEAD");
    assert_eq!(get(b"HTTP/1.1 304 A\r\nContent-Length: 5\r\n\r\n"), (None, true, false));
    assert_eq!(get(b"HTTP/1.1 204 A\r\n\r\n"), (None, true, false));
    assert_eq!(get(b"HTTP/1.1 204 A\r\nContent-Length: 0\r\n\r\n"), (None, true, true));
    assert_eq!(get(b"HTTP/1.1 204 A\r\nContent-Length: 5\r\n\r\n"), (None, false, true));
    assert_eq!(get(b"HTTP/1.1 204 A\r\nTransfer-Encoding: chunked\r\n\r\n"), (None, false, true));
    assert_eq!(get(b"HTTP/1.1 100 Continue\r\n\r\n"), (None, true, false));
    let mut head = ResponseHead::new();
    let bytes = b"HTTP/1.1 101 Sw\xe9tch\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n\x16";
    assert_eq!(head.parse(bytes, false, &HeadLimits::RESPONSE), Ok(Progress::Complete));
    assert!(head.switching && !head.is_interim());
    assert_eq!((head.status, head.reason.of(bytes)), (101, &b"Sw\xe9tch"[..]));
}
