//! The chunked coding, read strictly and without copying data (RFC 9112 §7.1).

use super::fields::{Name, is_tchar};
use super::{Refusal, write};

/// Bytes of chunk extensions that one message may carry in all its chunks together. They are
/// read and thrown away, so only a hostile sender has any.
const MAX_EXTENSIONS: usize = 4 * 1024;
/// Bytes of the trailer section.
const MAX_TRAILERS: usize = 8 * 1024;
/// Lines of the trailer section.
const MAX_TRAILER_FIELDS: usize = 100;
/// Digits of a chunk size: 64 bits.
const MAX_DIGITS: u8 = 16;

/// Why a chunked body is refused. The end of the message is lost: the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("chunk size is not 1 to 16 hex digits followed by CRLF")]
    Size,
    #[error("malformed chunk extension")]
    Extension,
    #[error("more than 4 KiB of chunk extensions")]
    ExtensionsTooLarge,
    #[error("chunk data does not end in CRLF where its size says")]
    DataEnd,
    #[error("malformed trailer section")]
    Trailers,
    #[error("trailer section of more than 8 KiB or 100 fields")]
    TrailersTooLarge,
}

impl ChunkError {
    /// What a client that sent this is answered.
    pub fn refusal(self) -> Refusal {
        match self {
            ChunkError::Size => Refusal::BadRequest("chunk size"),
            ChunkError::Extension => Refusal::BadRequest("chunk extension"),
            ChunkError::ExtensionsTooLarge => Refusal::BadRequest("chunk extensions too large"),
            ChunkError::DataEnd => Refusal::BadRequest("chunk data"),
            ChunkError::Trailers => Refusal::BadRequest("trailer section"),
            ChunkError::TrailersTooLarge => Refusal::HeadTooLarge,
        }
    }
}

/// What a step of the decoder found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Body bytes, never empty: the last bytes of what was consumed.
    Data(&'a [u8]),
    /// All of the input was consumed, and the body goes on.
    NeedMore,
    /// The body has ended; bytes behind what was consumed belong to the next message. Trailer
    /// fields, if any, are in [`ChunkedDecoder::trailers`].
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    SizeLf,
    ExtensionStart,
    ExtensionName,
    ExtensionValueStart,
    ExtensionValue,
    Quoted,
    QuotedPair,
    QuotedEnd,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// Reads one chunked body from successive slices.
#[derive(Clone, Debug, Default)]
pub struct ChunkedDecoder {
    state: State,
    digits: u8,
    /// The size as read so far, then the data bytes of the chunk still to come.
    left: u64,
    extensions: usize,
    /// The trailer section as it came; empty in all but rare messages.
    raw: Vec<u8>,
    raw_line: usize,
    lines: usize,
    trailers: Vec<u8>,
}

impl ChunkedDecoder {
    pub fn new() -> ChunkedDecoder {
        ChunkedDecoder::default()
    }

    /// Makes ready for the next body, keeping memory.
    pub fn reset(&mut self) {
        self.state = State::Size;
        (self.digits, self.left, self.extensions) = (0, 0, 0);
        (self.raw_line, self.lines) = (0, 0);
        self.raw.clear();
        self.trailers.clear();
    }

    /// Whether [`Event::Done`] was returned.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Data bytes of the chunk under way that are still to come: announced, not yet there.
    pub fn announced(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// The trailer fields that may be forwarded, as lines `name: value CRLF` without an empty
    /// line at the end. Fields that frame, route, authenticate or describe the content are left
    /// out (RFC 9110 §6.5.1). Complete only after [`Event::Done`].
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Takes the next step in `input`. Returns how many bytes of it were consumed and what they
    /// were; call again with the rest. On [`Event::Data`], the data is the end of the consumed
    /// bytes, so its position in `input` is `consumed - data.len()..consumed`.
    ///
    /// # Errors
    /// At the first byte that cannot belong to a valid body. The decoder is of no use afterwards.
    #[inline]
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Event<'a>), ChunkError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Data => {
                    let rest = input.get(at..).unwrap_or_default();
                    let len = usize::try_from(self.left).map_or(rest.len(), |n| n.min(rest.len()));
                    let data = rest.get(..len).unwrap_or_default();
                    if data.is_empty() {
                        return Ok((at, Event::NeedMore));
                    }
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok((at + len, Event::Data(data)));
                }
                State::Trailers => {
                    let (len, done) = self.trailer_bytes(input.get(at..).unwrap_or_default())?;
                    at += len;
                    return Ok((at, if done { Event::Done } else { Event::NeedMore }));
                }
                State::Done => return Ok((at, Event::Done)),
                _ => {
                    let Some(&byte) = input.get(at) else { return Ok((at, Event::NeedMore)) };
                    self.state = self.step(byte)?;
                    at += 1;
                }
            }
        }
    }

    /// One byte of a chunk's header or of the CRLF behind its data. RFC 9112 §7.1.1 lets a
    /// recipient skip whitespace around `;` and `=`; two readers disagree there too often.
    #[inline]
    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        let in_extension = match self.state {
            State::Size => return self.size_byte(byte),
            State::SizeLf if byte != b'\n' => return Err(ChunkError::Size),
            State::SizeLf if self.left == 0 => return Ok(State::Trailers),
            State::SizeLf => return Ok(State::Data),
            State::DataCr if byte == b'\r' => return Ok(State::DataLf),
            State::DataLf if byte == b'\n' => {
                self.digits = 0;
                return Ok(State::Size);
            }
            State::DataCr | State::DataLf => return Err(ChunkError::DataEnd),
            state => state,
        };
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS {
            return Err(ChunkError::ExtensionsTooLarge);
        }
        match (in_extension, byte) {
            (State::ExtensionStart | State::ExtensionName, _) if is_tchar(byte) => {
                Ok(State::ExtensionName)
            }
            (State::ExtensionName, b'=') => Ok(State::ExtensionValueStart),
            (State::ExtensionValueStart | State::ExtensionValue, _) if is_tchar(byte) => {
                Ok(State::ExtensionValue)
            }
            (State::ExtensionValueStart, b'"') => Ok(State::Quoted),
            (State::Quoted, b'"') => Ok(State::QuotedEnd),
            (State::Quoted, b'\\') => Ok(State::QuotedPair),
            (State::Quoted | State::QuotedPair, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Quoted),
            (State::ExtensionName | State::ExtensionValue | State::QuotedEnd, b';') => {
                Ok(State::ExtensionStart)
            }
            (State::ExtensionName | State::ExtensionValue | State::QuotedEnd, b'\r') => {
                Ok(State::SizeLf)
            }
            _ => Err(ChunkError::Extension),
        }
    }

    #[inline]
    fn size_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.digits > 0 => return Ok(State::SizeLf),
            b';' if self.digits > 0 => return Ok(State::ExtensionStart),
            _ => return Err(ChunkError::Size),
        };
        if self.digits == MAX_DIGITS {
            return Err(ChunkError::Size);
        }
        self.left = if self.digits == 0 { 0 } else { self.left << 4 } | u64::from(digit);
        self.digits += 1;
        Ok(State::Size)
    }

    /// Collects the trailer section line by line; true at its end.
    fn trailer_bytes(&mut self, input: &[u8]) -> Result<(usize, bool), ChunkError> {
        if self.raw.is_empty() && input.starts_with(b"\r\n") {
            self.state = State::Done; // Nearly every body ends here.
            return Ok((2, true));
        }
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let lf = memchr::memchr(b'\n', rest);
            let part = rest.get(..lf.map_or(rest.len(), |lf| lf + 1)).unwrap_or_default();
            if self.raw.len() + part.len() > MAX_TRAILERS {
                return Err(ChunkError::TrailersTooLarge);
            }
            self.raw.extend_from_slice(part);
            used += part.len();
            if lf.is_none() {
                return Ok((used, false));
            }
            let line = self.raw.get(self.raw_line..).unwrap_or_default();
            if !line.ends_with(b"\r\n") {
                return Err(ChunkError::Trailers);
            }
            if line.len() == 2 {
                self.keep_trailers()?;
                self.state = State::Done;
                return Ok((used, true));
            }
            self.raw_line = self.raw.len();
            self.lines += 1;
            if self.lines > MAX_TRAILER_FIELDS {
                return Err(ChunkError::TrailersTooLarge);
            }
        }
    }

    fn keep_trailers(&mut self) -> Result<(), ChunkError> {
        let mut table = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
        match httparse::parse_headers(&self.raw, &mut table) {
            Ok(httparse::Status::Complete((len, lines))) if len == self.raw.len() => {
                for line in lines {
                    if may_trail(line.name.as_bytes()) {
                        write::field(&mut self.trailers, line.name.as_bytes(), line.value);
                    }
                }
                Ok(())
            }
            _ => Err(ChunkError::Trailers),
        }
    }
}

/// RFC 9110 §6.5.1: fields for framing, routing, authentication, request modifiers, caching and
/// content have no business behind the content, where nothing that decides looks at them.
pub(super) fn may_trail(name: &[u8]) -> bool {
    let prefix = |prefix: &[u8]| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let known = matches!(
        Name::classify(name),
        Name::Other
            | Name::Etag
            | Name::Date
            | Name::Server
            | Name::UserAgent
            | Name::Accept
            | Name::AcceptEncoding
    );
    known
        && memchr::memchr(b'_', name).is_none()
        && ![&b"content-"[..], b"proxy-", b"x-forwarded-", b"sec-", b"access-control-", b"if-"]
            .iter()
            .any(|start| prefix(start))
        && !OTHERS.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Names of those kinds that nothing else here needs to know.
const OTHERS: [&[u8]; 10] = [
    b"authentication-info",
    b"expires",
    b"pragma",
    b"warning",
    b"x-original-url",
    b"x-rewrite-url",
    b"x-http-method-override",
    b"x-client-cert",
    b"strict-transport-security",
    b"clear-site-data",
];
