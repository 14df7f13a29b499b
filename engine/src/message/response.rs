//! The head of a response, and how its body is framed.

use std::mem::MaybeUninit;

use super::fields::{self, Coding, Field, Name};
use super::scan::{Scan, ScanError};
use super::{HeadLimits, MAX_FIELDS, Progress, Span, Version};

/// How the body of a response ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body, whatever the fields say.
    #[default]
    None,
    /// So many bytes; may be 0.
    Length(u64),
    Chunked,
    /// Everything until the upstream closes. Its end cannot be told from a broken connection.
    UntilClose,
}

/// Why an upstream's answer is refused. The upstream is at fault; the client gets 502 and the
/// connection is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseRefusal {
    /// The text is for logs and tests.
    #[error("the upstream's answer is malformed: {0}")]
    Invalid(&'static str),
    #[error("the head of the upstream's answer is longer, or has more fields, than the limit")]
    HeadTooLarge,
}

/// A parsed and validated response head. All spans point into the bytes given to
/// [`ResponseHead::parse`].
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// Bytes of the head with the empty line that ends it.
    pub head_len: usize,
    /// 100 to 999. Below 200 another head follows, except for 101.
    pub status: u16,
    pub version: Version,
    /// May be empty.
    pub reason: Span,
    /// Framing fields that contradict a status without body are marked [`Field::drop`].
    pub fields: Vec<Field>,
    pub framing: BodyFraming,
    /// Whether the connection may carry another exchange after a clean end of this one.
    pub keep_alive: bool,
    /// 101: what follows is no longer HTTP (RFC 9110 §15.2.2).
    pub switching: bool,
    scan: Scan,
}

impl ResponseHead {
    pub fn new() -> ResponseHead {
        ResponseHead::default()
    }

    /// Forgets a half-read head. Needed only when a parse ended in [`Progress::Partial`] and the
    /// next one is given other bytes than these and more.
    pub fn reset(&mut self) {
        self.scan = Scan::default();
    }

    /// Whether this is an interim answer, after which another head comes.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && !self.switching
    }

    /// Parses the head at the start of `bytes` and replaces what this value held.
    /// `request_is_head` says that the request's method was HEAD, whose answer has no body.
    ///
    /// # Errors
    /// As soon as the bytes can no longer become a valid head within `limits`.
    pub fn parse(
        &mut self,
        bytes: &[u8],
        request_is_head: bool,
        limits: &HeadLimits,
    ) -> Result<Progress, ResponseRefusal> {
        let max_fields = limits.max_fields.min(MAX_FIELDS);
        let end = self.scan.advance(bytes, false, limits.max_head, limits.max_line, max_fields);
        match end {
            Ok(Some(end)) => {
                self.scan = Scan::default();
                self.fill(bytes, end, request_is_head, limits)
            }
            Ok(None) => {
                let start = b"HTTP/1.";
                if bytes.iter().zip(start).any(|(got, want)| got != want) {
                    self.scan = Scan::default();
                    return Err(ResponseRefusal::Invalid("does not begin with HTTP/1."));
                }
                Ok(Progress::Partial)
            }
            Err(error) => {
                self.scan = Scan::default();
                Err(match error {
                    ScanError::Head | ScanError::FirstLine => ResponseRefusal::HeadTooLarge,
                    ScanError::LineEnd | ScanError::LeadingLines => {
                        ResponseRefusal::Invalid("line does not end in CRLF")
                    }
                    ScanError::Control => ResponseRefusal::Invalid("control byte in the head"),
                })
            }
        }
    }

    fn fill(
        &mut self,
        bytes: &[u8],
        end: usize,
        request_is_head: bool,
        limits: &HeadLimits,
    ) -> Result<Progress, ResponseRefusal> {
        let head = bytes.get(..end).unwrap_or_default();
        let mut table = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut lines = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut lines, head, &mut table) {
            Ok(httparse::Status::Complete(len)) if len == head.len() => {}
            Ok(_) => return Err(ResponseRefusal::Invalid("head ends in two places")),
            Err(httparse::Error::TooManyHeaders) => return Err(ResponseRefusal::HeadTooLarge),
            Err(error) => return Err(ResponseRefusal::Invalid(line_fault(error))),
        }
        let (Some(version), Some(status)) = (lines.version, lines.code) else {
            return Err(ResponseRefusal::Invalid("status line is incomplete"));
        };
        if status < 100 {
            return Err(ResponseRefusal::Invalid("status below 100"));
        }
        self.head_len = end;
        self.status = status;
        self.switching = status == 101;
        self.version = if version == 0 { Version::V10 } else { Version::V11 };
        // The tokeniser hides a reason with obs-text. `HTTP/1.1 200 ` is 13 bytes.
        let line_end = memchr::memchr(b'\r', head).unwrap_or(0);
        self.reason = Span::at(line_end.min(13), line_end);
        self.read_fields(bytes, lines.headers, request_is_head, limits)
    }

    fn read_fields(
        &mut self,
        bytes: &[u8],
        lines: &[httparse::Header<'_>],
        request_is_head: bool,
        limits: &HeadLimits,
    ) -> Result<Progress, ResponseRefusal> {
        let mut seen = Seen::default();
        self.fields.clear();
        self.fields.reserve(lines.len());
        for line in lines {
            let name = line.name.as_bytes();
            if name.len() > limits.max_name {
                return Err(ResponseRefusal::HeadTooLarge);
            }
            let id = Name::classify(name);
            match id {
                Name::ContentLength if seen.length.is_some() => {
                    return Err(ResponseRefusal::Invalid("several Content-Length lines"));
                }
                Name::ContentLength => {
                    let length = fields::content_length(line.value);
                    seen.length =
                        Some(length.ok_or(ResponseRefusal::Invalid("invalid Content-Length"))?);
                }
                Name::TransferEncoding if seen.coding.is_some() => {
                    return Err(ResponseRefusal::Invalid("several Transfer-Encoding lines"));
                }
                Name::TransferEncoding => {
                    seen.coding = Some(fields::transfer_encoding(line.value));
                }
                Name::Connection => seen.connection = true,
                _ => {}
            }
            let (name, value) = (Span::within(bytes, name), Span::within(bytes, line.value));
            self.fields.push(Field { name, value, id, drop: false });
        }
        self.decide(bytes, request_is_head, seen)
    }

    fn decide(
        &mut self,
        bytes: &[u8],
        request_is_head: bool,
        seen: Seen,
    ) -> Result<Progress, ResponseRefusal> {
        let modern = self.version == Version::V11;
        let framed = match (seen.length, seen.coding) {
            (None, None) => BodyFraming::UntilClose,
            (Some(length), None) => BodyFraming::Length(length),
            (Some(_), Some(_)) => {
                return Err(ResponseRefusal::Invalid("Content-Length and Transfer-Encoding"));
            }
            (None, Some(Coding::Invalid(fault))) => return Err(ResponseRefusal::Invalid(fault)),
            (None, Some(Coding::Unknown)) => {
                return Err(ResponseRefusal::Invalid("transfer coding other than chunked"));
            }
            // RFC 9112 §6.1: such a message is framed wrongly.
            (None, Some(Coding::Chunked)) if !modern => {
                return Err(ResponseRefusal::Invalid("Transfer-Encoding in HTTP/1.0"));
            }
            (None, Some(Coding::Chunked)) => BodyFraming::Chunked,
        };
        let mut options = fields::Options::default();
        if seen.connection {
            options = fields::connection_options(bytes, &mut self.fields)
                .map_err(ResponseRefusal::Invalid)?;
        }
        self.keep_alive = !options.close && (modern || options.keep_alive);
        let bodiless_status = self.status < 200 || self.status == 204;
        if bodiless_status {
            self.drop_framing(framed);
        }
        let bodiless = bodiless_status || request_is_head || self.status == 304;
        self.framing = if bodiless { BodyFraming::None } else { framed };
        self.keep_alive &= self.framing != BodyFraming::UntilClose;
        Ok(Progress::Complete)
    }

    /// RFC 9110 §8.6, RFC 9112 §6.1: 1xx and 204 carry neither field. An upstream that frames a
    /// body there may well send it, so its connection ends here.
    fn drop_framing(&mut self, framed: BodyFraming) {
        for field in &mut self.fields {
            field.drop |= matches!(field.id, Name::ContentLength | Name::TransferEncoding);
        }
        self.keep_alive &= matches!(framed, BodyFraming::UntilClose | BodyFraming::Length(0));
    }

    /// Value of the first field of that name, dropped or not.
    pub fn value<'a>(&self, bytes: &'a [u8], id: Name) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| field.id == id).map(|field| field.value.of(bytes))
    }

    /// Whether there is a field of that name, whatever its value.
    pub fn has(&self, bytes: &[u8], name: &[u8]) -> bool {
        let mut fields = self.fields.iter().filter(|field| !field.drop);
        fields.any(|field| field.name.of(bytes).eq_ignore_ascii_case(name))
    }

    /// Value of the first field of a name that is no [`Name`].
    pub fn other<'a>(&self, bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        let mut fields = self.fields.iter().filter(|field| field.id == Name::Other);
        let field = fields.find(|field| field.name.of(bytes).eq_ignore_ascii_case(name))?;
        Some(field.value.of(bytes))
    }
}

/// What the walk over the field lines collects.
#[derive(Default)]
struct Seen {
    length: Option<u64>,
    coding: Option<Coding>,
    connection: bool,
}

fn line_fault(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "byte not allowed in a field name, or no colon",
        httparse::Error::HeaderValue => "control byte in a field value",
        httparse::Error::Version => "version is neither HTTP/1.0 nor HTTP/1.1",
        httparse::Error::Status => "malformed status line",
        _ => "line does not end in CRLF",
    }
}
