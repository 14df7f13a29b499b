//! Properties: how the bytes arrive does not matter, nothing panics, and what is written reads
//! back as it was.

use proptest::prelude::*;

use super::super::{fuzz_chunked, fuzz_request, fuzz_response, write};
use super::{ChunkedDecoder, Event, HeadLimits, Refusal, RequestHead};

/// Heads and bodies near to valid ones, where the interesting branches are.
fn fragments(parts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        8 => prop::sample::select(parts).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat())
}

const REQUEST: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "POST /a?b HTTP/1.1\r\n",
    "GET http://a/ HTTP/1.0\r\n",
    "\r\n",
    "Host: b\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: x-a\r\n",
    "X-A: b\r\n",
    "X_B: c\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: foo\r\nConnection: upgrade\r\n",
    "X: \t d \r\n",
    "Y:\r\n",
    "\n",
    "\r",
    " ",
    ":",
    "OPTIONS * HTTP/1.1\r\n",
    "CONNECT a:1 HTTP/1.1\r\n",
    "\r\n\r\n",
];

const RESPONSE: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.0 304\r\n",
    "HTTP/1.1 101 S\r\n",
    "\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close, x-a\r\n",
    "X-A: b\r\n",
    "\n",
    "\r",
    " ",
    "\r\n\r\n",
];

const CHUNKED: &[&str] = &[
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\n",
    "A: b\r\n",
    "Host: c\r\n",
    "\r\n",
    "1;a=\"b\"\r\nx\r\n",
    "A",
    "\r",
    "\n",
    ";",
    "a:\r\n",
    "00005\r\n12345\r\n",
];

/// One message behind each possible first byte, so that both the step and the flags vary.
fn with_step(step: u8, bytes: &[u8]) -> Vec<u8> {
    [&[step], bytes].concat()
}

#[test]
fn byte_by_byte_is_as_good_as_at_once() {
    for bytes in [
        &b"\r\n\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"[..],
        b"\r\nGET http://a/ HTTP/1.0\r\nX-A: b\r\nConnection: x-a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        b"5;a=\"b\"\r\nhello\r\n0\r\nA: b\r\n\r\nrest",
    ] {
        for end in 0..=bytes.len() {
            for step in 0..16 {
                fuzz_request(&with_step(step, &bytes[..end]));
                fuzz_response(&with_step(step, &bytes[..end]));
                fuzz_chunked(&with_step(step, &bytes[..end]));
            }
        }
    }
}

/// A head is reused for the next connection; nothing of a refused one may weaken its bounds.
#[test]
fn a_refusal_leaves_nothing_behind() {
    let mut head = RequestHead::new();
    let long = [b"GET /", &[b'a'; 9000][..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    for refused in [&b"GET /\r\n"[..], b"GET / HTTP/1.1\r\nHost: a\r\nX", b"\r\n\r\n\r\n"] {
        let limits = HeadLimits { max_head: 25, ..HeadLimits::REQUEST };
        assert!(head.parse(refused, &limits).is_err());
        assert_eq!(head.parse(&long, &HeadLimits::REQUEST), Err(Refusal::UriTooLong));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_do_not_depend_on_splits(step: u8, bytes in fragments(REQUEST)) {
        fuzz_request(&with_step(step, &bytes));
    }

    #[test]
    fn responses_do_not_depend_on_splits(step: u8, bytes in fragments(RESPONSE)) {
        fuzz_response(&with_step(step, &bytes));
    }

    #[test]
    fn chunked_bodies_do_not_depend_on_splits(step: u8, bytes in fragments(CHUNKED)) {
        fuzz_chunked(&with_step(step, &bytes));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz_request(&bytes);
        fuzz_response(&bytes);
        fuzz_chunked(&bytes);
    }

    #[test]
    fn what_is_encoded_decodes(
        body in prop::collection::vec(any::<u8>(), 0..2000),
        chunk_len in 1usize..700,
        piece_len in 1usize..700,
    ) {
        let mut wire = Vec::new();
        for part in body.chunks(chunk_len) {
            write::chunk(&mut wire, part);
        }
        wire.extend_from_slice(write::LAST_CHUNK);
        let (mut decoder, mut out, mut done) = (ChunkedDecoder::new(), Vec::new(), false);
        for mut piece in wire.chunks(piece_len) {
            while !piece.is_empty() && !done {
                let (used, event) = decoder.next(piece).unwrap();
                if let Event::Data(data) = event {
                    out.extend_from_slice(data);
                }
                done = event == Event::Done;
                piece = &piece[used..];
            }
        }
        prop_assert!(done && decoder.is_done());
        prop_assert_eq!(out, body);
    }

    #[test]
    fn decimals_are_decimals(value: u64) {
        let mut out = Vec::new();
        write::decimal(&mut out, value);
        prop_assert_eq!(out, value.to_string().into_bytes());
    }

    #[test]
    fn chunk_headers_are_hexadecimal(len: usize) {
        let mut space = [0; write::MAX_CHUNK_HEADER];
        let header = write::chunk_header(&mut space, len);
        prop_assert_eq!(header, format!("{len:x}\r\n").into_bytes());
    }
}
