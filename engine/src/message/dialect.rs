//! The two ways to write a head: HTTP/1 text, or an HTTP/2 header block.

use super::write;
use crate::http2::Encoder;

/// How a message is spelled on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    Http1,
    Http2,
}

/// Appends the lines of a head to `out`. Nothing is validated, see [`write`].
pub struct HeadWriter<'a> {
    pub out: &'a mut Vec<u8>,
    dialect: Dialect,
}

impl<'a> HeadWriter<'a> {
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, dialect: Dialect) -> HeadWriter<'a> {
        HeadWriter { out, dialect }
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    #[inline]
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        match self.dialect {
            Dialect::Http1 => write::field(self.out, name, value),
            Dialect::Http2 => Encoder::field(self.out, name, value),
        }
    }

    #[inline]
    pub fn field_decimal(&mut self, name: &[u8], value: u64) {
        self.field_of(name, |out| write::decimal(out, value));
    }

    /// A field whose value `write` appends.
    #[inline]
    pub fn field_of(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        match self.dialect {
            Dialect::Http1 => {
                self.out.extend_from_slice(name);
                self.out.extend_from_slice(b": ");
                write(self.out);
                self.out.extend_from_slice(write::CRLF);
            }
            Dialect::Http2 => {
                // The length of a literal stands in front of it.
                let mut value = Vec::with_capacity(64);
                write(&mut value);
                Encoder::field(self.out, name, &value);
            }
        }
    }

    /// The status line, with the phrase of the registry unless the upstream had its own.
    #[inline]
    pub fn status(&mut self, status: u16, phrase: &[u8]) {
        match self.dialect {
            Dialect::Http1 if phrase.is_empty() || status == 200 => {
                write::status_line(self.out, status);
            }
            Dialect::Http1 => {
                self.out.extend_from_slice(b"HTTP/1.1 ");
                write::decimal(self.out, u64::from(status));
                self.out.push(b' ');
                self.out.extend_from_slice(phrase);
                self.out.extend_from_slice(write::CRLF);
            }
            Dialect::Http2 => Encoder::status(self.out, status),
        }
    }

    /// The empty line behind HTTP/1's fields.
    #[inline]
    pub fn end(&mut self) {
        if self.dialect == Dialect::Http1 {
            self.out.extend_from_slice(write::CRLF);
        }
    }
}

/// Appends trailer `lines` (`name: value CRLF`, no empty line) as a header block.
pub fn encode_trailers(lines: &[u8], out: &mut Vec<u8>) {
    for line in lines.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = line.split_at(colon);
        Encoder::field(out, name, super::fields::trim(value.get(1..).unwrap_or_default()));
    }
}

/// Appends the trailer fields of a block as lines, those that may stand in a trailer section.
pub fn decode_trailers(bytes: &[u8], lines: super::http2::Lines<'_>, out: &mut Vec<u8>) {
    for (name, value) in lines {
        let name = name.of(bytes);
        if super::chunked::may_trail(name) {
            write::field(out, name, value.of(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Span;

    #[test]
    fn trailers_of_a_block_are_lines_without_what_may_not_trail() {
        let bytes = b"grpc-status0hosta.test";
        let span = |start, end| Span { start, end };
        let lines = [(span(0, 11), span(11, 12)), (span(12, 16), span(16, 22))];
        let mut out = Vec::new();
        decode_trailers(bytes, &lines, &mut out);
        assert_eq!(out, b"grpc-status: 0\r\n");
    }
}
