//! The head of a request, and how its body is framed.

use std::mem::MaybeUninit;

use super::fields::{self, Coding, Field, Name};
use super::scan::{Scan, ScanError};
use super::target::{self, Authority, Target};
use super::{HeadLimits, MAX_FIELDS, MAX_METHOD, Progress, Refusal, Span, Version};

/// How the body of a request ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// So many bytes; may be 0, when the client said so.
    Length(u64),
    Chunked,
}

impl Framing {
    /// Whether not a single byte of body will come.
    pub fn is_empty(self) -> bool {
        matches!(self, Framing::None | Framing::Length(0))
    }
}

/// A parsed and validated request head. All spans point into the bytes given to
/// [`RequestHead::parse`]. One value serves a connection for life: its memory is reused.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// Bytes of the head, with leading empty lines and the empty line that ends it. The body, or
    /// the next request, begins here.
    pub head_len: usize,
    /// A token of at most [`MAX_METHOD`] bytes, case kept: methods are case-sensitive.
    pub method: Span,
    pub version: Version,
    pub target: Target,
    pub fields: Vec<Field>,
    pub framing: Framing,
    /// What the client wants, from the version and `Connection` (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    /// Value of the only `Upgrade` line, when `Connection` lists `upgrade` and the version allows
    /// it (RFC 9110 §7.8).
    pub upgrade: Option<Span>,
    /// The validated `Host` line, which counts only where the target has no authority.
    pub host: Option<Authority>,
    /// Host and port that the request is for: the target's, where it has one, else `Host`
    /// (RFC 9112 §3.3). `None` only in HTTP/1.0.
    pub site: Option<Authority>,
    /// `TE` lists `trailers`.
    pub te_trailers: bool,
    scan: Scan,
}

impl RequestHead {
    pub fn new() -> RequestHead {
        RequestHead::default()
    }

    /// Forgets a half-read head. Needed only when a parse ended in [`Progress::Partial`] and the
    /// next one is given other bytes than these and more.
    pub fn reset(&mut self) {
        self.scan = Scan::default();
    }

    /// Forgets everything: of a head that was refused, nothing is to be believed.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = RequestHead { fields, version: self.version, ..RequestHead::default() };
    }

    /// Parses the head at the start of `bytes` and replaces what this value held.
    ///
    /// After [`Progress::Partial`], call again with the same bytes and more behind them: only the
    /// new ones are looked at until the end of the head has come. Up to two empty lines before
    /// the request line are skipped (RFC 9112 §2.2).
    ///
    /// # Errors
    /// A [`Refusal`] as soon as the bytes can no longer become an acceptable head. On
    /// [`Refusal::ExpectationFailed`] alone, the head is filled in.
    pub fn parse(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Progress, Refusal> {
        let max_fields = limits.max_fields.min(MAX_FIELDS);
        let seen_first = self.scan.has_first_line();
        let end = self.scan.advance(bytes, true, limits.max_head, limits.max_line, max_fields);
        let scan = self.scan;
        match end {
            Ok(Some(end)) => {
                self.scan = Scan::default();
                self.fill(bytes, end, scan, limits)
            }
            Ok(None) => {
                let checked = check_early(bytes, scan, seen_first);
                if checked.is_err() {
                    self.scan = Scan::default();
                }
                checked
            }
            Err(error) => {
                self.scan = Scan::default();
                Err(scan_refusal(bytes, scan, error))
            }
        }
    }

    fn fill(
        &mut self,
        bytes: &[u8],
        end: usize,
        scan: Scan,
        limits: &HeadLimits,
    ) -> Result<Progress, Refusal> {
        let head = bytes.get(scan.start..end).unwrap_or_default();
        let mut table = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut lines = httparse::Request::new(&mut []);
        match lines.parse_with_uninit_headers(head, &mut table) {
            Ok(httparse::Status::Complete(len)) if len == head.len() => {}
            // The scan and the tokeniser must agree where the head ends.
            Ok(_) => return Err(Refusal::BadRequest("head ends in two places")),
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
            Err(_) if lines.version.is_none() => {
                return Err(refuse_line(bytes.get(scan.start..scan.first_end).unwrap_or_default()));
            }
            Err(error) => return Err(Refusal::BadRequest(line_fault(error))),
        }
        let (Some(method), Some(path), Some(version)) = (lines.method, lines.path, lines.version)
        else {
            return Err(Refusal::BadRequest("request line is incomplete"));
        };
        if method.len() > MAX_METHOD {
            return Err(Refusal::MethodTooLong);
        }
        self.head_len = end;
        self.method = Span::within(bytes, method.as_bytes());
        self.version = if version == 0 { Version::V10 } else { Version::V11 };
        let target = Span::within(bytes, path.as_bytes());
        (self.target, self.site) =
            target::parse(bytes, method.as_bytes(), target).map_err(Refusal::BadRequest)?;
        self.read_fields(bytes, lines.headers, limits)
    }

    fn read_fields(
        &mut self,
        bytes: &[u8],
        lines: &[httparse::Header<'_>],
        limits: &HeadLimits,
    ) -> Result<Progress, Refusal> {
        let mut seen = Seen::default();
        self.fields.clear();
        self.fields.reserve(lines.len());
        self.host = None;
        self.te_trailers = false;
        for line in lines {
            let name = line.name.as_bytes();
            if name.len() > limits.max_name {
                return Err(Refusal::HeadTooLarge);
            }
            let id = Name::classify(name);
            let value = Span::within(bytes, line.value);
            let mut drop = false;
            match id {
                Name::Other => {
                    drop = memchr::memchr(b'_', name).is_some();
                    if drop && !limits.drop_underscore {
                        return Err(Refusal::BadRequest("underscore in a field name"));
                    }
                }
                Name::Host if self.host.is_some() => {
                    return Err(Refusal::BadRequest("several Host lines"));
                }
                Name::Host => {
                    let authority = Authority::parse(bytes, value);
                    self.host = Some(authority.ok_or(Refusal::BadRequest("invalid Host"))?);
                }
                Name::ContentLength if seen.length.is_some() => {
                    return Err(Refusal::BadRequest("several Content-Length lines"));
                }
                Name::ContentLength => {
                    let length = fields::content_length(line.value);
                    seen.length =
                        Some(length.ok_or(Refusal::BadRequest("invalid Content-Length"))?);
                }
                Name::TransferEncoding if seen.coding.is_some() => {
                    return Err(Refusal::BadRequest("several Transfer-Encoding lines"));
                }
                Name::TransferEncoding => {
                    seen.coding = Some(fields::transfer_encoding(line.value));
                }
                Name::Connection => seen.connection = true,
                Name::Te => self.te_trailers |= fields::lists(line.value, b"trailers"),
                Name::Upgrade => {
                    seen.upgrade_lines += 1;
                    seen.upgrade = Some(value);
                }
                Name::Expect => {
                    seen.expect = true;
                    seen.expect_other |= !line.value.eq_ignore_ascii_case(b"100-continue");
                }
                _ => {}
            }
            self.fields.push(Field { name: Span::within(bytes, name), value, id, drop });
        }
        self.decide(bytes, seen)
    }

    /// What the fields say together: framing, persistence, expectations.
    fn decide(&mut self, bytes: &[u8], seen: Seen) -> Result<Progress, Refusal> {
        let modern = self.version == Version::V11;
        if modern && self.host.is_none() {
            return Err(Refusal::BadRequest("no Host")); // RFC 9112 §3.2
        }
        self.site = self.site.or(self.host);
        self.framing = match (seen.length, seen.coding) {
            (None, None) => Framing::None,
            (Some(length), None) => Framing::Length(length),
            // RFC 9112 §6.1 lets a server pick one; §11.2 tells what comes of that.
            (Some(_), Some(_)) => {
                return Err(Refusal::BadRequest("Content-Length and Transfer-Encoding"));
            }
            (None, Some(Coding::Invalid(fault))) => return Err(Refusal::BadRequest(fault)),
            (None, Some(_)) if !modern => {
                return Err(Refusal::BadRequest("Transfer-Encoding in HTTP/1.0"));
            }
            (None, Some(Coding::Unknown)) => {
                return Err(Refusal::NotImplemented("transfer coding other than chunked"));
            }
            (None, Some(Coding::Chunked)) => Framing::Chunked,
        };
        let mut options = fields::Options::default();
        if seen.connection {
            options =
                fields::connection_options(bytes, &mut self.fields).map_err(Refusal::BadRequest)?;
        }
        self.keep_alive = !options.close && (modern || options.keep_alive);
        // Two Upgrade lines are legal, but no client needs them and two readers may differ.
        let offered = modern && options.upgrade && seen.upgrade_lines == 1;
        self.upgrade = if offered { seen.upgrade } else { None };
        // RFC 9110 §10.1.1: an expectation in HTTP/1.0, or without a body, is ignored.
        self.expect_continue = modern && seen.expect && !self.framing.is_empty();
        if modern && seen.expect_other {
            self.expect_continue = false;
            return Err(Refusal::ExpectationFailed);
        }
        Ok(Progress::Complete)
    }

    /// The method's bytes.
    #[inline]
    pub fn method<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.method.of(bytes)
    }

    /// The path's bytes, not normalised: begins with `/`, or is empty for `*`, for CONNECT and
    /// for an absolute-form target without path (which means `/`, RFC 9110 §4.2.3).
    #[inline]
    pub fn path<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self.target {
            Target::Origin { path, .. } | Target::Absolute { path, .. } => path.of(bytes),
            Target::Authority(_) | Target::Asterisk => &[],
        }
    }

    /// The query's bytes without the `?`; `None` when there is no `?`.
    #[inline]
    pub fn query<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match self.target {
            Target::Origin { query, .. } | Target::Absolute { query, .. } => {
                query.map(|query| query.of(bytes))
            }
            Target::Authority(_) | Target::Asterisk => None,
        }
    }

    /// [`RequestHead::site`] as it is written: what an upstream's `Host` is made from.
    #[inline]
    pub fn authority(&self) -> Option<Span> {
        self.site.map(|site| site.whole)
    }

    /// Value of the first field of a name that the gateway does not know ([`Name::Other`]).
    pub fn other<'a>(&self, bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        let mut fields = self.fields.iter().filter(|field| field.id == Name::Other);
        let field = fields.find(|field| field.name.of(bytes).eq_ignore_ascii_case(name))?;
        Some(field.value.of(bytes))
    }

    /// Value of the first field of that name, dropped or not.
    pub fn value<'a>(&self, bytes: &'a [u8], id: Name) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| field.id == id).map(|field| field.value.of(bytes))
    }
}

/// What the walk over the field lines collects.
#[derive(Default)]
struct Seen {
    length: Option<u64>,
    coding: Option<Coding>,
    connection: bool,
    upgrade: Option<Span>,
    upgrade_lines: usize,
    expect: bool,
    expect_other: bool,
}

fn line_fault(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "byte not allowed in a field name, or no colon",
        httparse::Error::HeaderValue => "control byte in a field value",
        _ => "line does not end in CRLF",
    }
}

fn scan_refusal(bytes: &[u8], scan: Scan, error: ScanError) -> Refusal {
    let too_long = matches!(error, ScanError::FirstLine);
    match error {
        ScanError::LineEnd => Refusal::BadRequest("line does not end in CRLF"),
        ScanError::LeadingLines => Refusal::BadRequest("more than two empty lines before"),
        ScanError::Control => Refusal::BadRequest("control byte in the head"),
        ScanError::Head => Refusal::HeadTooLarge,
        // The method is at fault when it alone makes the line long.
        ScanError::FirstLine => check_method(bytes, scan.start)
            .err()
            .filter(|_| too_long)
            .unwrap_or(Refusal::UriTooLong),
    }
}

/// Looks at what has come of an unfinished head, so that other protocols and nonsense are
/// answered now and not when the time for the head is up.
fn check_early(bytes: &[u8], scan: Scan, seen_first: bool) -> Result<Progress, Refusal> {
    if !scan.has_begun() {
        return Ok(Progress::Partial); // Only (a part of) an empty line before the request.
    }
    if !scan.has_first_line() {
        check_method(bytes, scan.start)?;
    } else if !seen_first {
        let line = bytes.get(scan.start..scan.first_end + 2).unwrap_or_default();
        check_method(bytes, scan.start)?;
        if httparse::Request::new(&mut []).parse(line).is_err() {
            return Err(refuse_line(line.strip_suffix(b"\r\n").unwrap_or(line)));
        }
    }
    Ok(Progress::Partial)
}

/// Checks as much of the method as there is.
fn check_method(bytes: &[u8], start: usize) -> Result<(), Refusal> {
    let line = bytes.get(start..).unwrap_or_default();
    for (at, &byte) in line.iter().take(MAX_METHOD + 1).enumerate() {
        match byte {
            b' ' if at > 0 => return Ok(()),
            _ if !fields::is_tchar(byte) => {
                return Err(Refusal::BadRequest("method is not a token"));
            }
            _ if at == MAX_METHOD => return Err(Refusal::MethodTooLong),
            _ => {}
        }
    }
    Ok(())
}

/// The refusal for a complete request line that the tokeniser did not take.
fn refuse_line(line: &[u8]) -> Refusal {
    let mut parts = line.split(|&byte| byte == b' ');
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if method.len() > MAX_METHOD && method.iter().all(|&byte| fields::is_tchar(byte)) {
        return Refusal::MethodTooLong;
    }
    let sound = !method.is_empty() && method.iter().all(|&byte| fields::is_tchar(byte));
    let sound = sound && !target.is_empty() && target.iter().all(u8::is_ascii_graphic);
    match (parts.next(), parts.next()) {
        (Some(b"HTTP/1.0" | b"HTTP/1.1"), None) => Refusal::BadRequest("malformed request target"),
        // RFC 9112 §2.3: one digit each. A line that is sound but for the number is a version we
        // do not speak; anything else is not HTTP.
        (Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']), None) if sound => {
            Refusal::VersionNotSupported
        }
        _ => Refusal::NotHttp,
    }
}
