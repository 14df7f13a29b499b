//! The request target and the host it names (RFC 9112 §3.2).

use super::Span;

/// The four forms of a request target. Every byte is checked; nothing is decoded or normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Origin {
        /// Begins with `/`.
        path: Span,
        /// Without the `?`.
        query: Option<Span>,
    },
    Absolute {
        /// `https`, else `http`: what the client wrote, not how it came.
        scheme_https: bool,
        /// Checked; [`super::RequestHead::site`] has it taken apart.
        authority: Span,
        /// Begins with `/`, or is empty, which means `/`.
        path: Span,
        query: Option<Span>,
    },
    /// Of CONNECT alone; always with a port.
    Authority(Span),
    /// Of OPTIONS alone.
    Asterisk,
}

impl Default for Target {
    fn default() -> Self {
        Target::Origin { path: Span::default(), query: None }
    }
}

/// Host and port, checked: no userinfo, no empty host, a port from 1 to 65535.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Authority {
    /// All of it, as it goes into an upstream's `Host`.
    pub whole: Span,
    /// A DNS-like name or IPv4 address in the case it came in, or an IPv6 address in brackets.
    pub host: Span,
    pub port: Option<u16>,
}

/// Longest host name, in bytes (RFC 1035 §2.3.4, with the dot at the end).
const MAX_HOST: usize = 254;

impl Authority {
    /// Reads `host [":" port]` at `span` of `bytes`; `None` if it is anything else.
    ///
    /// Stricter than RFC 3986 §3.2.2: names are letters, digits, `-`, `_`, `~` and single dots; a
    /// percent-encoded or comma-bearing name has no host behind it, only readers that differ.
    pub(crate) fn parse(bytes: &[u8], span: Span) -> Option<Authority> {
        let text = span.of(bytes);
        let host_len = if text.first() == Some(&b'[') {
            bracketed(text)?
        } else {
            let len = memchr::memchr(b':', text).unwrap_or(text.len());
            is_name(text.get(..len)?).then_some(len)?
        };
        let port = match text.get(host_len..)? {
            [] => None,
            [b':', digits @ ..] => Some(port_number(digits)?),
            _ => return None,
        };
        let start = span.start as usize;
        Some(Authority { whole: span, host: Span::at(start, start + host_len), port })
    }
}

/// Length of an IPv6 address in brackets. Zone identifiers mean nothing to other hosts.
fn bracketed(text: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b']', text)?;
    let address = std::str::from_utf8(text.get(1..end)?).ok()?;
    address.parse::<std::net::Ipv6Addr>().ok()?;
    Some(end + 1)
}

fn is_name(name: &[u8]) -> bool {
    if name.is_empty() || name.len() > MAX_HOST {
        return false;
    }
    let mut before = b'.';
    for &byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {}
            b'.' if before != b'.' => {}
            _ => return false,
        }
        before = byte;
    }
    true
}

/// RFC 3986 allows an empty port and leading zeros; both are other spellings of the same site.
fn port_number(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 || digits.first() == Some(&b'0') {
        return None;
    }
    let mut port = 0u32;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        port = port * 10 + u32::from(digit);
    }
    u16::try_from(port).ok()
}

/// Reads the target at `span` of `bytes`. The text of an error is for logs and tests.
/// With it, the authority of the target where it has one.
pub(crate) fn parse(
    bytes: &[u8],
    method: &[u8],
    span: Span,
) -> Result<(Target, Option<Authority>), &'static str> {
    let text = span.of(bytes);
    if method == b"CONNECT" {
        return match Authority::parse(bytes, span) {
            Some(authority @ Authority { port: Some(_), .. }) => {
                Ok((Target::Authority(span), Some(authority)))
            }
            _ => Err("CONNECT needs host:port"),
        };
    }
    match text {
        [b'/', ..] => {
            let (path, query) = path_and_query(bytes, span)?;
            Ok((Target::Origin { path, query }, None))
        }
        b"*" if method == b"OPTIONS" => Ok((Target::Asterisk, None)),
        _ => absolute(bytes, span),
    }
}

fn absolute(bytes: &[u8], span: Span) -> Result<(Target, Option<Authority>), &'static str> {
    let text = span.of(bytes);
    let (scheme_https, skip) = match (text.get(..7), text.get(..8)) {
        (Some(scheme), _) if scheme.eq_ignore_ascii_case(b"http://") => (false, 7),
        (_, Some(scheme)) if scheme.eq_ignore_ascii_case(b"https://") => (true, 8),
        _ => return Err("target is neither a path nor an http URI"),
    };
    let rest = text.get(skip..).unwrap_or_default();
    let len = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let from = span.start as usize + skip;
    let authority = Authority::parse(bytes, Span::at(from, from + len))
        .ok_or("invalid authority in the target")?;
    let (path, query) = path_and_query(bytes, Span::at(from + len, span.end as usize))?;
    let whole = authority.whole;
    Ok((Target::Absolute { scheme_https, authority: whole, path, query }, Some(authority)))
}

/// What a byte means in a path or query.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Plain,
    Query,
    Escape,
    Illegal,
}

/// RFC 3986 §3.3 and §3.4, and `[` and `]`, which browsers send as they are (WHATWG URL) and
/// which mean nothing outside the authority.
static KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Illegal; 256];
    let plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789\
        -._~!$&'()*+,;=:@/[]";
    let mut at = 0;
    while at < plain.len() {
        kinds[plain[at] as usize] = Kind::Plain;
        at += 1;
    }
    kinds[b'?' as usize] = Kind::Query;
    kinds[b'%' as usize] = Kind::Escape;
    kinds
};

fn path_and_query(bytes: &[u8], span: Span) -> Result<(Span, Option<Span>), &'static str> {
    let text = span.of(bytes);
    let mut mark = None;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match KINDS[byte as usize] {
            Kind::Plain => {}
            Kind::Query => mark = mark.or(Some(at)),
            Kind::Escape => {
                match text.get(at + 1..at + 3) {
                    Some(b"00") => return Err("%00 in the target"),
                    Some([high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {}
                    _ => return Err("% without two hex digits in the target"),
                }
                at += 2;
            }
            Kind::Illegal => return Err("byte not allowed in the target"),
        }
        at += 1;
    }
    let start = span.start as usize;
    Ok(match mark {
        None => (span, None),
        Some(mark) => {
            let query = Span::at(start + mark + 1, span.end as usize);
            (Span::at(start, start + mark), Some(query))
        }
    })
}
