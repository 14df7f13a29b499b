//! HTTP/1 messages as pure code: bytes in, verdicts and spans out. No I/O, no clock.
//!
//! This room holds the gateway's one parser and its one framing decision (RFC 9112). What it
//! accepts is stricter than the RFC wherever the RFC says MAY: nothing is repaired, and nothing
//! reaches an upstream that was not validated here. Heads are re-serialised from the parsed form
//! with [`write`]; the bytes that came in are never passed through.
//!
//! - [`RequestHead`] and [`ResponseHead`] parse a head in place and keep [`Span`]s into it.
//! - [`ChunkedDecoder`] and [`write::chunk_header`] are the chunked coding, both ways.
//! - [`Refusal`] and [`ResponseRefusal`] say whose fault a bad head is, and what to answer.

mod chunked;
mod dialect;
pub(crate) mod fields;
mod fuzz;
mod http2;
mod request;
mod response;
mod scan;
mod target;
pub mod write;

pub use chunked::{ChunkError, ChunkedDecoder, Event};
pub use dialect::{Dialect, HeadWriter, decode_trailers, encode_trailers};
pub use fields::{Field, Name};
pub use request::{Framing, RequestHead};
pub use response::{BodyFraming, ResponseHead, ResponseRefusal};
pub use target::{Authority, Target};

#[doc(hidden)]
pub use fuzz::{fuzz_chunked, fuzz_request, fuzz_response};

use contract::record::Reason;

/// Most field lines that any limit can allow in one head: the size of the parser's stack table.
pub const MAX_FIELDS: usize = 128;

/// Longest method that is looked at, in bytes; a longer one is answered 501 (RFC 9110 §9.1).
pub const MAX_METHOD: usize = 32;

/// A range of bytes inside the buffer that a head was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// The bytes of the span in `bytes`, the buffer that the head was parsed from. A span of
    /// another buffer gives an empty slice rather than a panic.
    #[inline]
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// The span of `part`, which must be a slice of `bytes`.
    #[inline]
    fn within(bytes: &[u8], part: &[u8]) -> Span {
        let start = (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
        Span::at(start, start.wrapping_add(part.len()))
    }

    /// Heads are bounded far below 4 GiB by [`HeadLimits::max_head`], so the cast loses nothing.
    #[inline]
    fn at(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }
}

/// The versions spoken here. Everything else is refused before a head exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    V10,
    #[default]
    V11,
    V20,
}

impl Version {
    /// The version as records carry it: `10`, `11` or `20`.
    pub fn number(self) -> u8 {
        match self {
            Version::V10 => 10,
            Version::V11 => 11,
            Version::V20 => 20,
        }
    }
}

/// Whether a head's end has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Complete,
    /// Valid so far. Call again with the same bytes and more behind them.
    Partial,
}

/// Bounds of one head. They hold for heads whose end has not arrived yet, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Whole head with its empty line, in bytes. Beyond: 431.
    pub max_head: usize,
    /// Request line without its CRLF, in bytes. Beyond: 414. RFC 9112 §3 asks for at least 8,000.
    pub max_line: usize,
    /// Field lines; at most [`MAX_FIELDS`]. Beyond: 431.
    pub max_fields: usize,
    /// One field name, in bytes. Beyond: 431.
    pub max_name: usize,
    /// Fields with `_` in their name: `true` marks them [`Field::drop`], `false` refuses the
    /// request. They are never forwarded, since CGI-like origins read `_` and `-` as one.
    pub drop_underscore: bool,
}

impl HeadLimits {
    /// The bounds for requests.
    pub const REQUEST: HeadLimits = HeadLimits {
        max_head: 32 * 1024,
        max_line: 8 * 1024,
        max_fields: 100,
        max_name: 256,
        drop_underscore: false,
    };

    /// The bounds for responses: origins are trusted with larger heads than clients.
    pub const RESPONSE: HeadLimits = HeadLimits {
        max_head: 64 * 1024,
        max_line: 8 * 1024,
        max_fields: MAX_FIELDS,
        max_name: 256,
        drop_underscore: false,
    };
}

impl Default for HeadLimits {
    fn default() -> Self {
        HeadLimits::REQUEST
    }
}

/// Why a request is refused. The client is at fault in every case. All but
/// [`Refusal::ExpectationFailed`] end the connection, as the end of the message is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Malformed. The text is for logs and tests; answers do not reflect it.
    #[error("malformed request: {0}")]
    BadRequest(&'static str),
    #[error("the request line is longer than the limit")]
    UriTooLong,
    #[error("the request head is longer, or has more fields, than the limit")]
    HeadTooLarge,
    #[error("not implemented: {0}")]
    NotImplemented(&'static str),
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    VersionNotSupported,
    /// The head is valid and filled in: the connection may go on after its body was drained.
    #[error("the only expectation known here is 100-continue")]
    ExpectationFailed,
    /// What RFC 9113 §8.1.1 calls malformed: the stream is reset, nothing is answered.
    #[error("malformed HTTP/2 request: {0}")]
    Malformed(&'static str),
    /// The first line is not one of HTTP at all.
    #[error("this is not HTTP")]
    NotHttp,
    #[error("the method is longer than 32 bytes")]
    MethodTooLong,
}

impl Refusal {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Refusal::BadRequest(_) | Refusal::Malformed(_) | Refusal::NotHttp => 400,
            Refusal::UriTooLong => 414,
            Refusal::HeadTooLarge => 431,
            Refusal::NotImplemented(_) | Refusal::MethodTooLong => 501,
            Refusal::VersionNotSupported => 505,
            Refusal::ExpectationFailed => 417,
        }
    }

    /// The reason that the access record carries.
    pub fn reason(self) -> Reason {
        match self {
            Refusal::BadRequest(_) | Refusal::NotHttp => Reason::BadRequest,
            Refusal::Malformed(_) => Reason::Malformed,
            Refusal::UriTooLong => Reason::UriTooLong,
            Refusal::HeadTooLarge => Reason::HeadTooLarge,
            Refusal::NotImplemented(_) | Refusal::MethodTooLong => Reason::NotImplemented,
            Refusal::VersionNotSupported => Reason::VersionNotSupported,
            Refusal::ExpectationFailed => Reason::ExpectationFailed,
        }
    }

    /// Whether the connection must be closed after the answer.
    pub fn closes(self) -> bool {
        self != Refusal::ExpectationFailed
    }
}

#[cfg(test)]
mod tests;
