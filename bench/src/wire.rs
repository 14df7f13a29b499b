//! The least of HTTP/1.1 framing that a generator and an origin need: where a head ends, what
//! its few framing fields say, and where its body ends. Both sides of it are our own or a proxy
//! under test, so it is strict where a mistake would spoil a measurement and careless elsewhere.

use std::fmt;

use memchr::{memchr, memmem};

/// The longest head taken, in bytes.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What was wrong with the peer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The head is longer than [`MAX_HEAD_BYTES`].
    HeadTooLong,
    /// The first line is neither a status line nor a request line.
    FirstLine,
    /// `Content-Length` is not a number, or differs from an earlier one.
    ContentLength,
    /// A chunk size or the bytes round a chunk are not as RFC 9112 §7.1 has them.
    Chunk,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeadTooLong => "the head is longer than 64 KiB",
            Self::FirstLine => "the first line is not HTTP/1",
            Self::ContentLength => "the Content-Length is not one number",
            Self::Chunk => "the chunked body is broken",
        })
    }
}

/// Collects a head that may come in pieces.
#[derive(Debug, Default)]
pub struct HeadBuffer {
    carry: Vec<u8>,
}

impl HeadBuffer {
    /// Takes bytes until the blank line. Calls `parse` with the whole head, blank line included,
    /// and returns how many bytes of `input` were used and what `parse` said; `None` means that
    /// all of `input` was used and the head goes on.
    pub fn take<T>(
        &mut self,
        input: &[u8],
        parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<(usize, Option<T>), Malformed> {
        if self.carry.is_empty() {
            if let Some(at) = memmem::find(input, b"\r\n\r\n") {
                let end = at + 4;
                return Ok((end, Some(parse(input.get(..end).unwrap_or(input))?)));
            }
            self.carry.extend_from_slice(input);
            self.check()?;
            return Ok((input.len(), None));
        }
        let before = self.carry.len();
        self.carry.extend_from_slice(input);
        // The blank line may have begun in the bytes we had.
        let from = before.saturating_sub(3);
        let found = memmem::find(self.carry.get(from..).unwrap_or_default(), b"\r\n\r\n");
        let Some(at) = found else {
            self.check()?;
            return Ok((input.len(), None));
        };
        let end = from + at + 4;
        self.carry.truncate(end);
        let parsed = parse(&self.carry)?;
        self.carry.clear();
        Ok((end - before, Some(parsed)))
    }

    fn check(&self) -> Result<(), Malformed> {
        if self.carry.len() > MAX_HEAD_BYTES { Err(Malformed::HeadTooLong) } else { Ok(()) }
    }
}

/// The framing fields of one head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub content_length: Option<u64>,
    pub chunked: bool,
    /// `Connection: close`.
    pub close: bool,
    /// `Connection: keep-alive`, which HTTP/1.0 needs.
    pub keep_alive: bool,
}

impl Fields {
    /// Reads the field lines that follow the first line of `head`.
    pub fn parse(head: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        let mut rest = after_line(head);
        while let Some(end) = memchr(b'\n', rest) {
            let (line, next) = rest.split_at(end);
            rest = next.get(1..).unwrap_or_default();
            // Only three names matter; their first letters skip nearly every other line.
            match line.first() {
                Some(b'C' | b'c') => {
                    if let Some(value) = field(line, b"content-length") {
                        let length = decimal(value).ok_or(Malformed::ContentLength)?;
                        if fields.content_length.is_some_and(|earlier| earlier != length) {
                            return Err(Malformed::ContentLength);
                        }
                        fields.content_length = Some(length);
                    } else if let Some(value) = field(line, b"connection") {
                        fields.close |= has_token(value, b"close");
                        fields.keep_alive |= has_token(value, b"keep-alive");
                    }
                }
                Some(b'T' | b't') => {
                    if let Some(value) = field(line, b"transfer-encoding") {
                        fields.chunked |= has_token(value, b"chunked");
                    }
                }
                _ => {}
            }
        }
        Ok(fields)
    }
}

/// Where in a body the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Ended; nothing more belongs to this message.
    Ended,
    /// So many bytes are still to come.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunk),
    /// Ends with the connection.
    UntilClose,
}

/// Where in a chunked body the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// In the size; the value so far and the number of digits.
    Size(u64, u8),
    /// In a chunk extension, before the line end.
    Extension(u64),
    /// After the CR of the size line.
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    TrailerLine,
    /// After the CR of the blank line.
    EndLf,
}

impl Body {
    /// A body of chunks, at its start.
    pub const CHUNKED: Self = Self::Chunked(Chunk::Size(0, 0));

    /// Moves over `input`, and says how many of its bytes belong to this body.
    pub fn skip(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        match *self {
            Self::Ended => Ok(0),
            Self::UntilClose => Ok(input.len()),
            Self::Length(left) => {
                let used = left.min(input.len() as u64);
                *self = if used == left { Self::Ended } else { Self::Length(left - used) };
                Ok(used as usize)
            }
            Self::Chunked(mut chunk) => {
                let mut used = 0;
                while let Some(&byte) = input.get(used) {
                    if let Chunk::Data(left) = chunk {
                        let here = left.min((input.len() - used) as u64);
                        used += here as usize;
                        chunk = if here == left { Chunk::DataCr } else { Chunk::Data(left - here) };
                        continue;
                    }
                    used += 1;
                    match chunk.step(byte)? {
                        Some(next) => chunk = next,
                        None => {
                            *self = Self::Ended;
                            return Ok(used);
                        }
                    }
                }
                *self = Self::Chunked(chunk);
                Ok(used)
            }
        }
    }
}

impl Chunk {
    /// Takes one byte that is not data. `None` at the end of the body.
    fn step(self, byte: u8) -> Result<Option<Self>, Malformed> {
        Ok(Some(match (self, byte) {
            (Self::Size(size, digits), byte) if byte.is_ascii_hexdigit() => {
                if digits >= 15 {
                    return Err(Malformed::Chunk);
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                Self::Size(size * 16 + u64::from(digit), digits + 1)
            }
            (Self::Size(_, 0), _) => return Err(Malformed::Chunk),
            (Self::Size(size, _) | Self::Extension(size), b'\r') => Self::SizeLf(size),
            (Self::Size(size, _), b';' | b' ' | b'\t') => Self::Extension(size),
            (Self::Extension(size), byte) if byte != b'\n' => Self::Extension(size),
            (Self::SizeLf(0), b'\n') => Self::TrailerStart,
            (Self::SizeLf(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size(0, 0),
            (Self::TrailerStart, b'\r') => Self::EndLf,
            (Self::TrailerLine, b'\n') => Self::TrailerStart,
            (Self::TrailerStart | Self::TrailerLine, _) => Self::TrailerLine,
            (Self::EndLf, b'\n') => return Ok(None),
            _ => return Err(Malformed::Chunk),
        }))
    }
}

/// The first line of `head`, without its end.
pub fn first_line(head: &[u8]) -> &[u8] {
    let end = memchr(b'\r', head).unwrap_or(head.len());
    head.get(..end).unwrap_or(head)
}

fn after_line(head: &[u8]) -> &[u8] {
    let start = memchr(b'\n', head).map_or(head.len(), |at| at + 1);
    head.get(start..).unwrap_or_default()
}

/// The value of `line` if its name is `name` (lower case).
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// The value of the field `name` (lower case) of `head`, where it is there.
pub fn value<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = after_line(head);
    while let Some(end) = memchr(b'\n', rest) {
        let (line, next) = rest.split_at(end);
        if let Some(value) = field(line, name) {
            return Some(value);
        }
        rest = next.get(1..).unwrap_or_default();
    }
    None
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

/// A decimal number of 1 to 18 digits.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0u64, |sum, &byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_any_case() {
        let head =
            b"HTTP/1.1 200 OK\r\nCONTENT-length:  12 \r\nX: y\r\nconnection: foo, Close\r\n\r\n";
        let fields = Fields::parse(head).unwrap();
        assert_eq!(fields.content_length, Some(12));
        assert!(fields.close && !fields.chunked && !fields.keep_alive);
    }

    #[test]
    fn two_lengths_that_differ_are_refused() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(Fields::parse(head), Err(Malformed::ContentLength));
    }

    #[test]
    fn broken_chunks_are_refused() {
        for bad in
            [&b"\r\n"[..], b"x\r\n", b"1\r\naa\r\n", b"1\r\na\n", b"1\n", b"1111111111111111"]
        {
            assert_eq!(Body::CHUNKED.clone().skip(bad), Err(Malformed::Chunk), "{bad:?}");
        }
    }

    #[test]
    fn chunks_end_after_the_trailers() {
        let body = b"4;a=b\r\nwiki\r\n0\r\nT: x\r\n\r\nNEXT";
        let mut state = Body::CHUNKED;
        assert_eq!(state.skip(body), Ok(body.len() - 4));
        assert_eq!(state, Body::Ended);
    }

    #[test]
    fn a_head_without_end_is_bounded() {
        let mut head = HeadBuffer::default();
        let piece = [b'a'; 4096];
        let mut result = Ok((0, None));
        for _ in 0..17 {
            result = head.take(&piece, |_| Ok(()));
        }
        assert_eq!(result, Err(Malformed::HeadTooLong));
    }
}
