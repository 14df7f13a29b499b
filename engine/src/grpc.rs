//! What a gateway must know of gRPC: which requests are calls, their deadlines, how an answer of ours
//! becomes a status, and what a status says of who gave it (gRPC over HTTP/2, `PROTOCOL-HTTP2.md`).

use contract::record::Reason;

use crate::forward::retry_after;
use crate::limits;
use crate::message::{BodyFraming, ResponseHead, write};
use crate::upstream::Verdict;

/// The kinds of gRPC by content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `application/grpc`, with or without `+proto`, `+json` …
    Grpc,
    /// `application/grpc-web`: trailers come inside the body.
    Web,
    /// `application/grpc-web-text`: the same in base64.
    WebText,
}

impl Kind {
    /// The kind of a request or answer with this content type; `None`: not gRPC.
    #[inline]
    pub fn of(content_type: &[u8]) -> Option<Kind> {
        const GRPC: &[u8] = b"application/grpc";
        let start = content_type.get(..GRPC.len())?;
        if !start.eq_ignore_ascii_case(GRPC) {
            return None;
        }
        let rest = content_type.get(GRPC.len()..).unwrap_or_default().to_ascii_lowercase();
        let ends = |rest: &[u8]| matches!(rest.first(), None | Some(b'+' | b';' | b' '));
        if ends(&rest) {
            return Some(Kind::Grpc);
        }
        match (rest.strip_prefix(b"-web-text"), rest.strip_prefix(b"-web")) {
            (Some(rest), _) if ends(rest) => Some(Kind::WebText),
            (_, Some(rest)) if ends(rest) => Some(Kind::Web),
            _ => None,
        }
    }
}

impl Kind {
    /// The content type of an answer of ours.
    pub fn content_type(self) -> &'static [u8] {
        match self {
            Kind::Grpc => b"application/grpc",
            Kind::Web => b"application/grpc-web",
            Kind::WebText => b"application/grpc-web-text",
        }
    }
}

/// Milliseconds of a `grpc-timeout` value (`TimeoutValue TimeoutUnit`, at most 8 digits), rounded
/// up; `None` if it is malformed, in which case it is as if there were none.
pub fn parse_timeout(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let mut number = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    Some(match unit {
        b'H' => number * 3_600_000,
        b'M' => number * 60_000,
        b'S' => number * 1_000,
        b'm' => number,
        b'u' => number.div_ceil(1_000),
        b'n' => number.div_ceil(1_000_000),
        _ => return None,
    })
}

/// Writes `ms` as a `grpc-timeout` value, never more than it is.
pub fn write_timeout(out: &mut Vec<u8>, ms: u64) {
    const MOST: u64 = 99_999_999;
    let (number, unit) = match ms {
        0..=MOST => (ms, b'm'),
        _ if ms / 1_000 <= MOST => (ms / 1_000, b'S'),
        _ => ((ms / 60_000).min(MOST), b'M'),
    };
    write::decimal(out, number);
    out.push(unit);
}

/// The gRPC status code of an answer of ours. By the reason where that says more than the HTTP
/// status, else by the mapping of `http-grpc-status-mapping.md`.
pub fn status_code(status: u16, reason: Reason) -> u8 {
    match reason {
        Reason::DeadlineExceeded
        | Reason::TotalTimeout
        | Reason::FirstByteTimeout
        | Reason::TryTimeout => 4,
        Reason::BodyTooLarge | Reason::HeadTooLarge | Reason::UriTooLong => 8,
        Reason::BadRequest
        | Reason::CredentialAmbiguous
        | Reason::DigestMismatch
        | Reason::NotValid => 3,
        // A call cannot be sent to log in.
        Reason::Login => 16,
        Reason::ClientAborted => 1,
        Reason::Local => 0,
        _ => match status {
            401 => 16,
            403 => 7,
            404 | 405 | 415 | 501 => 12,
            429 => 8,
            502..=504 => 14,
            400 => 13,
            _ => 2,
        },
    }
}

/// The code of the status in an answer's head, if it has one.
pub fn status_in_head(head: &ResponseHead, bytes: &[u8]) -> Option<u8> {
    let value = head.other(bytes, b"grpc-status").filter(|_| head.status == 200)?;
    Some(read_status(value))
}

/// The same where nothing follows the head ("Trailers-Only").
pub fn status_alone(head: &ResponseHead, bytes: &[u8]) -> Option<u8> {
    let bodiless = matches!(head.framing, BodyFraming::None | BodyFraming::Length(0));
    status_in_head(head, bytes).filter(|_| bodiless)
}

/// The code of the status among trailer lines, if it is there.
pub fn status_in_trailers(lines: &[u8]) -> Option<u8> {
    lines.split(|&byte| byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at(memchr::memchr(b':', line)?);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        name.eq_ignore_ascii_case(b"grpc-status").then(|| read_status(value))
    })
}

/// What is no code, or none of those that there are, is UNKNOWN, as it is for clients.
pub fn read_status(value: &[u8]) -> u8 {
    match *value {
        [digit @ b'0'..=b'9'] => digit - b'0',
        [b'1', digit @ b'0'..=b'6'] => 10 + digit - b'0',
        _ => UNKNOWN,
    }
}

const UNKNOWN: u8 = 2;
const DEADLINE_EXCEEDED: u8 = 4;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const DATA_LOSS: u8 = 15;
pub const UNAUTHENTICATED: u8 = 16;

/// What a call that ended with this code says of its target. `has_deadline`: the client gave it one.
///
/// As in Envoy, by the HTTP status that `google/rpc/code.proto` gives each code, with two exceptions, or
/// clients could have targets ejected at will. A deadline that the client has set says nothing. And
/// UNIMPLEMENTED, there a 501, is what asking for a method that does not exist gets.
pub fn verdict(code: u8, has_deadline: bool) -> Verdict {
    match code {
        DEADLINE_EXCEEDED if has_deadline => Verdict::Nothing,
        UNAVAILABLE | DEADLINE_EXCEEDED => Verdict::Gateway,
        UNKNOWN | INTERNAL | DATA_LOSS => Verdict::ServerError,
        _ => Verdict::Good,
    }
}

/// How long the server wants a retry to wait, in milliseconds (gRFC A6). What is negative, or no
/// number, asks for none: a wait that is longer than any.
pub fn pushback_ms(head: &ResponseHead, bytes: &[u8]) -> Option<u64> {
    let value = head.other(bytes, b"grpc-retry-pushback-ms")?;
    Some(retry_after::number(value).unwrap_or(u64::MAX))
}

/// A text as a `grpc-message`: percent-encoded but for printable ASCII.
pub fn write_message(out: &mut Vec<u8>, text: &str) {
    for &byte in text.as_bytes() {
        match byte {
            b'%' | ..0x20 | 0x7f.. => {
                let hex = b"0123456789ABCDEF";
                let digits = [hex[usize::from(byte >> 4)], hex[usize::from(byte & 15)]];
                out.push(b'%');
                out.extend_from_slice(&digits);
            }
            _ => out.push(byte),
        }
    }
}

/// The monotonic deadline of a call that came at `now_ms`; 0: it has none.
pub fn deadline_ms(timeout: Option<&[u8]>, now_ms: u64) -> u64 {
    match timeout.and_then(parse_timeout) {
        Some(ms) => now_ms + ms.clamp(1, limits::PATIENCE_MS),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_tell_the_kind() {
        for (text, kind) in [
            ("application/grpc", Some(Kind::Grpc)),
            ("application/grpc+proto", Some(Kind::Grpc)),
            ("Application/GRPC; charset=x", Some(Kind::Grpc)),
            ("application/grpc-web", Some(Kind::Web)),
            ("application/grpc-web+proto", Some(Kind::Web)),
            ("application/grpc-web-text", Some(Kind::WebText)),
            ("application/grpc-web-text+proto", Some(Kind::WebText)),
            ("application/grpcx", None),
            ("application/grpc-webx", None),
            ("application/json", None),
            ("", None),
        ] {
            assert_eq!(Kind::of(text.as_bytes()), kind, "{text}");
        }
    }

    #[test]
    fn timeouts_read_and_write() {
        for (text, ms) in [
            ("1S", Some(1_000)),
            ("250m", Some(250)),
            ("1500u", Some(2)),
            ("1n", Some(1)),
            ("2H", Some(7_200_000)),
            ("3M", Some(180_000)),
            ("99999999m", Some(99_999_999)),
            ("123456789m", None),
            ("m", None),
            ("-1S", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), ms, "{text}");
        }
        for ms in [0, 1, 99_999_999, 100_000_000, 99_999_999_000, u64::MAX] {
            let mut out = Vec::new();
            write_timeout(&mut out, ms);
            assert!(parse_timeout(&out).unwrap() <= ms, "{ms}");
            assert!(ms > 99_999_999 || parse_timeout(&out) == Some(ms));
        }
    }

    fn head(text: &str) -> (ResponseHead, &[u8]) {
        let mut head = ResponseHead::new();
        head.parse(text.as_bytes(), false, &crate::message::HeadLimits::RESPONSE).unwrap();
        (head, text.as_bytes())
    }

    #[test]
    fn statuses_are_read_where_they_stand() {
        let (alone, bytes) = head(
            "HTTP/1.1 200 OK\r\nGrpc-Status: 14\r\nContent-Length: 0\r\n\
             grpc-retry-pushback-ms: 250\r\n\r\n",
        );
        assert_eq!(status_alone(&alone, bytes), Some(14));
        assert_eq!(pushback_ms(&alone, bytes), Some(250));
        let (early, bytes) = head(
            "HTTP/1.1 200 OK\r\ngrpc-status: 5\r\ngrpc-retry-pushback-ms: -1\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        );
        assert_eq!((status_alone(&early, bytes), status_in_head(&early, bytes)), (None, Some(5)));
        assert_eq!(pushback_ms(&early, bytes), Some(u64::MAX), "not at all");
        let (other, bytes) = head("HTTP/1.1 503 No\r\ngrpc-status: 5\r\nContent-Length: 0\r\n\r\n");
        assert_eq!((status_in_head(&other, bytes), pushback_ms(&other, bytes)), (None, None));
        assert_eq!(status_in_trailers(b"x: 1\r\nGRPC-STATUS:  13 \r\n"), Some(13));
        assert_eq!(status_in_trailers(b"x-grpc-status: 1\r\n"), None);
        assert_eq!(status_in_trailers(b""), None);
        for (value, code) in [("0", 0), ("16", 16), ("17", 2), ("", 2), ("-1", 2), ("014", 2)] {
            assert_eq!(read_status(value.as_bytes()), code, "{value:?}");
        }
    }

    #[test]
    fn what_clients_can_bring_about_is_not_held_against_targets() {
        for code in 0..=16 {
            let expected = match code {
                14 => Verdict::Gateway,
                2 | 13 | 15 => Verdict::ServerError,
                4 => Verdict::Nothing,
                _ => Verdict::Good,
            };
            assert_eq!(verdict(code, true), expected, "{code}");
        }
        assert_eq!(verdict(4, false), Verdict::Gateway);
    }

    #[test]
    fn own_answers_have_the_status_a_client_expects() {
        assert_eq!(status_code(401, Reason::CredentialMissing), 16);
        assert_eq!(status_code(401, Reason::CredentialInvalid), 16);
        assert_eq!(status_code(302, Reason::Login), 16);
        assert_eq!(status_code(400, Reason::CredentialAmbiguous), 3);
        assert_eq!(status_code(403, Reason::ScopeMissing), 7);
        assert_eq!(status_code(403, Reason::AddressDenied), 7);
        assert_eq!(status_code(503, Reason::AuthUnavailable), 14);
        assert_eq!(status_code(429, Reason::AuthThrottled), 8);
        assert_eq!(status_code(429, Reason::None), 8);
        assert_eq!(status_code(503, Reason::NoTarget), 14);
        assert_eq!(status_code(404, Reason::NoRoute), 12);
        assert_eq!(status_code(504, Reason::DeadlineExceeded), 4);
        assert_eq!(status_code(504, Reason::ConnectTimeout), 14);
        let mut out = Vec::new();
        write_message(&mut out, "50% of é\n");
        assert_eq!(out, b"50%25 of %C3%A9%0A");
    }
}
