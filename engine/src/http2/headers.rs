//! Header blocks as messages (RFC 9113 §8.1 to §8.3): what is malformed is found here.

use super::hpack::{Class, Sink};
use crate::message::Span;

/// A decoded header block: one buffer, and spans into it.
#[derive(Clone, Debug, Default)]
pub struct HeaderBlock {
    pub bytes: Vec<u8>,
    /// Names (lower case) and values in their order, pseudo-header fields first.
    pub fields: Vec<(Span, Span)>,
    /// The block exceeded the limits for size or fields. It was decoded for the sake of the
    /// connection, but what it holds is incomplete and was not judged: answer 431.
    pub too_large: bool,
    pub pseudo: Pseudo,
    /// How many of `fields` are pseudo-header fields.
    pub pseudo_fields: usize,
    pub content_length: Option<u64>,
    /// The value of the one Host field, if there is one.
    pub host: Option<Span>,
}

/// Values of the pseudo-header fields (RFC 9113 §8.3, RFC 8441 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pseudo {
    pub method: Option<Span>,
    pub scheme: Option<Span>,
    pub authority: Option<Span>,
    pub path: Option<Span>,
    pub protocol: Option<Span>,
    /// 0 if there is none.
    pub status: u16,
}

impl HeaderBlock {
    /// The fields behind the pseudo-header fields.
    pub fn regular(&self) -> &[(Span, Span)] {
        self.fields.get(self.pseudo_fields..).unwrap_or_default()
    }

    /// The bytes of a name or value; empty if there is none.
    pub fn text(&self, span: Option<Span>) -> &[u8] {
        span.unwrap_or_default().of(&self.bytes)
    }

    pub fn method(&self) -> &[u8] {
        self.text(self.pseudo.method)
    }

    pub fn path(&self) -> &[u8] {
        self.text(self.pseudo.path)
    }

    /// `:authority`, else Host (RFC 9113 §8.3.1). Whether both agree is
    /// [`HeaderBlock::authorities_agree`].
    pub fn authority(&self) -> &[u8] {
        self.text(self.pseudo.authority.or(self.host))
    }

    /// False if `:authority` and Host name different hosts, which must not be forwarded
    /// (RFC 9113 §8.3.1).
    pub fn authorities_agree(&self) -> bool {
        match (self.pseudo.authority, self.host) {
            (Some(_), Some(_)) => {
                self.text(self.pseudo.authority).eq_ignore_ascii_case(self.text(self.host))
            }
            _ => true,
        }
    }

    /// Whether `:scheme` is `scheme`, without regard to case (RFC 3986 §3.1).
    pub fn scheme_is(&self, scheme: &[u8]) -> bool {
        self.text(self.pseudo.scheme).eq_ignore_ascii_case(scheme)
    }

    /// Name and value pairs, as bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (name.of(&self.bytes), value.of(&self.bytes)))
    }

    /// Forgets everything but the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        let (bytes, fields) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.fields));
        *self = HeaderBlock { bytes, fields, ..HeaderBlock::default() };
    }
}

/// What is wrong with a message. Its stream is reset with PROTOCOL_ERROR (RFC 9113 §8.1.1).
pub(super) type Fault = &'static str;

/// A block while it is decoded.
pub(super) struct Reading<'a> {
    pub block: &'a mut HeaderBlock,
    pub fault: Option<Fault>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(block: &'a mut HeaderBlock) -> Reading<'a> {
        Reading { block, fault: None }
    }

    #[cold]
    fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    #[cold]
    fn judge_special(&mut self, class: Class, value: Span) {
        match class {
            Class::ConnectionSpecific => self.fail("connection-specific field"),
            Class::UnknownPseudo => self.fail("unknown pseudo-header field"),
            _ => {
                let te = value.of(&self.block.bytes);
                // RFC 9113 §8.2.2.
                if !te.eq_ignore_ascii_case(b"trailers") {
                    self.fail("te other than trailers");
                }
            }
        }
    }
}

impl Sink for Reading<'_> {
    #[inline]
    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.block.bytes
    }

    #[inline]
    fn field(&mut self, name: Span, value: Span, class: Class, valid: bool) {
        let block = &mut *self.block;
        if !valid {
            self.fail("forbidden byte in a field");
            return;
        }
        let pseudo = &mut block.pseudo;
        let place = match class {
            Class::Regular => None,
            Class::Method => Some(&mut pseudo.method),
            Class::Scheme => Some(&mut pseudo.scheme),
            Class::Authority => Some(&mut pseudo.authority),
            Class::Path => Some(&mut pseudo.path),
            Class::Protocol => Some(&mut pseudo.protocol),
            Class::Status => {
                let status = status(value.of(&block.bytes));
                if std::mem::replace(&mut pseudo.status, status) != 0 || status == 0 {
                    self.fail("bad or second :status");
                    return;
                }
                None
            }
            Class::ContentLength => {
                let length = content_length(value.of(&block.bytes));
                if block.content_length.is_some() || length.is_none() {
                    self.fail("bad or second content-length");
                    return;
                }
                block.content_length = length;
                None
            }
            Class::Host => {
                if block.host.replace(value).is_some() {
                    self.fail("second host");
                    return;
                }
                None
            }
            Class::Te | Class::ConnectionSpecific | Class::UnknownPseudo | Class::Invalid => {
                self.judge_special(class, value);
                return self.block.fields.push((name, value));
            }
        };
        if place.is_some() || class == Class::Status {
            // RFC 9113 §8.3: before all regular fields, each once.
            let late = block.fields.len() != block.pseudo_fields;
            let second = place.is_some_and(|place| place.replace(value).is_some());
            block.pseudo_fields += 1;
            if late || second {
                self.fail("late or second pseudo-header field");
                return;
            }
        }
        self.block.fields.push((name, value));
    }

    fn too_large(&mut self) {
        self.block.too_large = true;
    }
}

/// RFC 9113 §8.3.1, §8.5; RFC 8441 §4 where `extended` CONNECT was announced.
pub(super) fn check_request(block: &HeaderBlock, extended: bool) -> Result<(), Fault> {
    let Pseudo { method, scheme, authority, path, protocol, status } = block.pseudo;
    if status != 0 {
        return Err(":status in a request");
    }
    let method = method.ok_or("no :method")?.of(&block.bytes);
    if !is_token(method) {
        return Err(":method is no token");
    }
    let connect = method == b"CONNECT";
    if protocol.is_some() && !(connect && extended) {
        return Err(":protocol without extended CONNECT");
    }
    if connect && protocol.is_none() {
        return match (scheme, path, authority) {
            (None, None, Some(authority)) if !authority.is_empty() => Ok(()),
            _ => Err("CONNECT needs :authority alone"),
        };
    }
    if protocol.is_some_and(|protocol| !is_token(protocol.of(&block.bytes))) {
        return Err(":protocol is no token");
    }
    if scheme.ok_or("no :scheme")?.is_empty() {
        return Err("empty :scheme");
    }
    if path.ok_or("no :path")?.is_empty() {
        return Err("empty :path");
    }
    Ok(())
}

/// RFC 9113 §8.3.2.
pub(super) fn check_response(block: &HeaderBlock) -> Result<(), Fault> {
    match block.pseudo.status {
        0 => Err("no :status"),
        101 => Err("101 is of HTTP/1.1"), // §8.6
        _ if block.pseudo_fields != 1 => Err("pseudo-header field of a request"),
        _ => Ok(()),
    }
}

/// RFC 9113 §8.1: trailers have no pseudo-header fields.
pub(super) fn check_trailers(block: &HeaderBlock) -> Result<(), Fault> {
    match block.pseudo_fields {
        0 => Ok(()),
        _ => Err("pseudo-header field in trailers"),
    }
}

fn is_token(text: &[u8]) -> bool {
    let tchar = |byte: &u8| {
        byte.is_ascii_alphanumeric() || memchr::memchr(*byte, b"!#$%&'*+-.^_`|~").is_some()
    };
    !text.is_empty() && text.iter().all(tchar)
}

/// Three digits from 100; 0 for anything else.
fn status(value: &[u8]) -> u16 {
    match value {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => 0,
    }
}

/// Digits alone, without leading zeros, that fit 64 bits: two parties may read `010` as two
/// numbers (RFC 9110 §8.6).
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || (value.len() > 1 && value.first() == Some(&b'0')) {
        return None;
    }
    value.iter().try_fold(0u64, |length, &byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        length.checked_mul(10)?.checked_add(u64::from(digit))
    })
}
