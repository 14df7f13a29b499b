//! What a call ended with, as HTTP and JSON say it: `google.rpc.Code` and `google.rpc.Status`.

use super::json::{Printing, write_text};
use super::percent::{self, Keep};
use super::wire::{Fields, WireType};
use crate::grpc;
use crate::limits;
use crate::message::write;

pub const UNKNOWN: u8 = 2;
pub const INVALID_ARGUMENT: u8 = 3;
pub const DEADLINE_EXCEEDED: u8 = 4;
pub const INTERNAL: u8 = 13;
pub const UNAVAILABLE: u8 = 14;

/// The HTTP status of a code (`google/rpc/code.proto`).
pub fn http_status(code: u8) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// The code of what is no answer of a gRPC server (`http-grpc-status-mapping.md`).
pub fn code_of_foreign(status: u16) -> u8 {
    match status {
        400 => INTERNAL,
        401 => grpc::UNAUTHENTICATED,
        403 => 7,
        404 => 12,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The code of a JSON upstream's answer: the reverse of [`http_status`].
pub fn code_of_http(status: u16) -> u8 {
    match status {
        200..=299 => 0,
        400 | 422 => INVALID_ARGUMENT,
        401 => grpc::UNAUTHENTICATED,
        403 => 7,
        404 | 410 => 5,
        408 | 504 => DEADLINE_EXCEEDED,
        409 => 10,
        412 => 9,
        413 | 429 => 8,
        416 => 11,
        499 => 1,
        405 | 501 => 12,
        502 | 503 => UNAVAILABLE,
        400..=499 => 9,
        500..=599 => INTERNAL,
        _ => UNKNOWN,
    }
}

/// What a call ended with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub code: u8,
    pub message: String,
    /// Of each type and value.
    pub details: Vec<(String, Vec<u8>)>,
}

impl Status {
    pub fn new(code: u8, message: &str) -> Status {
        Status { code, message: message.into(), details: Vec::new() }
    }

    /// The status that fields or trailers tell; `None`: they have none.
    pub fn read<'a>(get: impl Fn(&[u8]) -> Option<&'a [u8]>) -> Option<Status> {
        let code = grpc::read_status(get(b"grpc-status")?);
        let message = percent::decoded(get(b"grpc-message").unwrap_or_default(), Keep::Nothing);
        let mut status = Status {
            code,
            message: String::from_utf8_lossy(&message).into_owned(),
            details: vec![],
        };
        if let Some(details) = get(b"grpc-status-details-bin").and_then(super::json::from_base64) {
            status.read_details(&details);
        }
        Some(status)
    }

    /// The same from trailer lines.
    pub fn of_trailers(lines: &[u8]) -> Option<Status> {
        Status::read(|name| {
            let mut all = trailers(lines);
            all.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        })
    }

    /// `google.rpc.Status` as bytes. What is malformed has no details.
    fn read_details(&mut self, bytes: &[u8]) {
        let mut fields = Fields::of(bytes);
        while let Ok(Some(raw)) = fields.next() {
            match (raw.number, raw.wire) {
                // More than the header holds, which is cut here and there.
                (2, WireType::Bytes) if self.message.is_empty() => {
                    self.message = String::from_utf8_lossy(raw.bytes).into_owned();
                }
                (3, WireType::Bytes) if self.details.len() < limits::STATUS_DETAILS => {
                    let (mut url, mut value) = (String::new(), Vec::new());
                    let mut parts = Fields::of(raw.bytes);
                    while let Ok(Some(part)) = parts.next() {
                        match (part.number, part.wire) {
                            (1, WireType::Bytes) => {
                                url = String::from_utf8_lossy(part.bytes).into_owned()
                            }
                            (2, WireType::Bytes) => value = part.bytes.to_vec(),
                            _ => {}
                        }
                    }
                    self.details.push((url, value));
                }
                _ => {}
            }
        }
    }

    /// Appends `{"code": .., "message": .., "details": [..]}`. `details`: whether they are told.
    pub fn print(&self, printing: &Printing<'_>, details: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"code\":");
        write::decimal(out, u64::from(self.code));
        out.extend_from_slice(b",\"message\":");
        write_text(&self.message, out);
        out.extend_from_slice(b",\"details\":[");
        let told = if details { &self.details[..] } else { &[] };
        for (at, (url, value)) in told.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let start = out.len();
            if printing.any(url, value, out).is_err() {
                out.truncate(start);
                out.extend_from_slice(b"{\"@type\":");
                write_text(url, out);
                out.extend_from_slice(b",\"value\":\"");
                super::json::to_base64(value, out);
                out.extend_from_slice(b"\"}");
            }
        }
        out.extend_from_slice(b"]}");
    }

    /// Appends trailer lines.
    pub fn write_trailers(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"grpc-status: ");
        write::decimal(out, u64::from(self.code));
        out.extend_from_slice(b"\r\n");
        if !self.message.is_empty() {
            out.extend_from_slice(b"grpc-message: ");
            grpc::write_message(out, &self.message);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Names and values of trailer lines.
pub fn trailers(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = memchr::memchr(b':', line)?;
        let (name, value) = line.split_at(at);
        Some((name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii()))
    })
}

/// What belongs to gRPC and says nothing to others.
pub fn is_of_grpc(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] = [
        b"grpc-status",
        b"grpc-message",
        b"grpc-status-details-bin",
        b"grpc-encoding",
        b"grpc-accept-encoding",
        b"grpc-retry-pushback-ms",
    ];
    NAMES.iter().any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_from_trailers() {
        let status =
            Status::of_trailers(b"grpc-status: 5\r\ngrpc-message: no%20such%20%C3%BC\r\nx: y\r\n");
        assert_eq!(status, Some(Status::new(5, "no such ü")));
        assert_eq!(Status::of_trailers(b"x: y\r\n"), None);
        let mut out = Vec::new();
        Status::new(5, "no such ü").write_trailers(&mut out);
        assert_eq!(Status::of_trailers(&out), Some(Status::new(5, "no such ü")));
    }

    #[test]
    fn codes_and_statuses_are_those_of_google_rpc() {
        let told: Vec<u16> = (0..=17).map(http_status).collect();
        let expected = [
            200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
            500,
        ];
        assert_eq!(told, expected);
        for code in [0, 1, 3, 4, 5, 7, 8, 12, 13, 14, 16] {
            assert_eq!(code_of_http(http_status(code)), code, "{code}");
        }
        let foreign = [401, 403, 404, 429, 502, 503, 504, 200, 500].map(code_of_foreign);
        assert_eq!(foreign, [16, 7, 12, 14, 14, 14, 14, 2, 2]);
    }
}
