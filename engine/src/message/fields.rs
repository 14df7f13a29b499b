//! Field lines: their names, and the syntax of the few values that decide framing.

use super::Span;

/// One field line of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// A token (RFC 9110 §5.1), in the case it came in.
    pub name: Span,
    /// Without leading and trailing whitespace. Visible ASCII, space, tab and obs-text only.
    pub value: Span,
    pub id: Name,
    /// Not to be forwarded: named by `Connection` (RFC 9110 §7.6.1), an underscore name under the
    /// drop policy, or framing of a body that cannot be. Hop-by-hop names are not marked; ask
    /// [`super::write::hop_by_hop`] or, for both, [`Field::forwarded`].
    pub drop: bool,
}

impl Field {
    /// Whether a forwarder copies this field as it is.
    #[inline]
    pub fn forwarded(&self) -> bool {
        !self.drop && !super::write::hop_by_hop(self.id)
    }
}

macro_rules! names {
    ($($len:literal { $($text:literal => $name:ident),+ $(,)? })+) => {
        /// The field names that the gateway knows. All others are [`Name::Other`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Name {
            #[default]
            Other,
            $($($name),+),+
        }

        impl Name {
            /// The known name, without regard to case. First by length and first letter, so that
            /// most names cost one jump and at most one comparison.
            #[inline]
            pub fn classify(name: &[u8]) -> Name {
                let Some(first) = name.first().map(u8::to_ascii_lowercase) else {
                    return Name::Other;
                };
                match name.len() {
                    $($len => match first {
                        $(_ if first == const { $text[0].to_ascii_lowercase() }
                            && same($text, name) => Name::$name,)+
                        _ => Name::Other,
                    },)+
                    _ => Name::Other,
                }
            }

            /// The name in its usual case; empty for [`Name::Other`].
            pub fn text(self) -> &'static [u8] {
                match self {
                    Name::Other => b"",
                    $($(Name::$name => $text),+),+
                }
            }

            #[cfg(test)]
            pub(crate) const ALL: &'static [Name] = &[$($(Name::$name),+),+];
        }
    };
}

names! {
    2 { b"TE" => Te }
    3 { b"Via" => Via, b"Age" => Age }
    4 { b"Host" => Host, b"Date" => Date, b"ETag" => Etag, b"Vary" => Vary }
    5 { b"Range" => Range, b"Allow" => Allow }
    6 { b"Cookie" => Cookie, b"Accept" => Accept, b"Server" => Server, b"Expect" => Expect,
        b"Origin" => Origin }
    7 { b"Upgrade" => Upgrade, b"Trailer" => Trailer, b"Alt-Svc" => AltSvc }
    8 { b"Location" => Location, b"If-Match" => IfMatch, b"If-Range" => IfRange }
    9 { b"Forwarded" => Forwarded, b"X-Real-IP" => XRealIp }
    10 { b"Connection" => Connection, b"User-Agent" => UserAgent, b"Keep-Alive" => KeepAlive,
         b"Set-Cookie" => SetCookie, b"Tracestate" => Tracestate }
    11 { b"Traceparent" => Traceparent, b"Retry-After" => RetryAfter }
    12 { b"Content-Type" => ContentType, b"X-Request-ID" => XRequestId,
         b"Max-Forwards" => MaxForwards }
    13 { b"Authorization" => Authorization, b"Cache-Control" => CacheControl,
         b"Last-Modified" => LastModified, b"If-None-Match" => IfNoneMatch }
    14 { b"Content-Length" => ContentLength, b"HTTP2-Settings" => Http2Settings }
    15 { b"Accept-Encoding" => AcceptEncoding, b"X-Forwarded-For" => XForwardedFor }
    16 { b"Content-Encoding" => ContentEncoding, b"X-Forwarded-Host" => XForwardedHost,
         b"X-Forwarded-Port" => XForwardedPort, b"Proxy-Connection" => ProxyConnection,
         b"WWW-Authenticate" => WwwAuthenticate }
    17 { b"Transfer-Encoding" => TransferEncoding, b"X-Forwarded-Proto" => XForwardedProto,
         b"If-Modified-Since" => IfModifiedSince }
    18 { b"Proxy-Authenticate" => ProxyAuthenticate }
    19 { b"Proxy-Authorization" => ProxyAuthorization, b"If-Unmodified-Since" => IfUnmodifiedSince }
}

/// Whether `name` is `known` without regard to case. The length is known when this is compiled
/// into each comparison, so it becomes a few wide ones.
#[inline(always)]
fn same<const N: usize>(known: &[u8; N], name: &[u8]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else { return false };
    let mut difference = 0;
    for (known, byte) in known.iter().zip(name) {
        difference |= known.to_ascii_lowercase() ^ byte.to_ascii_lowercase();
    }
    difference == 0
}

/// Bytes of a token (RFC 9110 §5.6.2).
#[inline]
pub(crate) fn is_tchar(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
        | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// Without leading and trailing spaces and tabs (OWS, RFC 9110 §5.6.3).
#[inline]
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// A Content-Length value: digits alone, without leading zeros, that fit 64 bits. RFC 9110 §8.6
/// allows `010`; two parties may read it as two numbers, so it is refused.
#[inline]
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    match value {
        [] => return None,
        [b'0'] => return Some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let mut length = 0u64;
    for &byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        length = length.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(length)
}

/// What a Transfer-Encoding value says (RFC 9112 §6.1, §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Chunked,
    /// Well-formed, but with a coding that is not spoken here.
    Unknown,
    Invalid(&'static str),
}

/// Reads the value of the only Transfer-Encoding line.
pub(crate) fn transfer_encoding(value: &[u8]) -> Coding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    // A quoted parameter could hide a comma from one reader and show it to another.
    if value.iter().any(|&byte| !matches!(byte, 0x21..=0x7e | b' ' | b'\t') || byte == b'"') {
        return Coding::Invalid("byte not allowed in Transfer-Encoding");
    }
    let mut chunked_seen = false;
    for element in value.split(|&byte| byte == b',') {
        let element = trim(element);
        let name = trim(element.split(|&byte| byte == b';').next().unwrap_or_default());
        if name.is_empty() || !name.iter().all(|&byte| is_tchar(byte)) {
            return Coding::Invalid("Transfer-Encoding is not a list of codings");
        }
        if chunked_seen {
            return Coding::Invalid("chunked is not the last, or not the only, time in the list");
        }
        chunked_seen = element.eq_ignore_ascii_case(b"chunked");
    }
    Coding::Unknown
}

/// What the Connection lines of a head ask for, beside the fields that they name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
}

/// Options that one head may list. Each costs a walk over the fields, so the product is bounded.
const MAX_OPTIONS: usize = 64;

/// Reads every Connection line of `fields` and marks the fields that they name as
/// [`Field::drop`] (RFC 9110 §7.6.1).
///
/// # Errors
/// An option is not a token, there are more than 64, or one names a field that frames or routes
/// the message: dropping that would change what the next hop reads.
pub(crate) fn connection_options(
    bytes: &[u8],
    fields: &mut [Field],
) -> Result<Options, &'static str> {
    let mut options = Options::default();
    let mut count = 0usize;
    for at in 0..fields.len() {
        let Some(&Field { id: Name::Connection, value, .. }) = fields.get(at) else { continue };
        for option in value.of(bytes).split(|&byte| byte == b',') {
            let option = trim(option);
            count += 1;
            if count > MAX_OPTIONS {
                return Err("too many Connection options");
            }
            match option {
                [] => continue, // RFC 9110 §5.6.1.2: empty elements are ignored.
                _ if option.eq_ignore_ascii_case(b"close") => options.close = true,
                _ if option.eq_ignore_ascii_case(b"keep-alive") => options.keep_alive = true,
                _ if option.eq_ignore_ascii_case(b"upgrade") => options.upgrade = true,
                _ => drop_named(bytes, fields, option)?,
            }
        }
    }
    Ok(options)
}

fn drop_named(bytes: &[u8], fields: &mut [Field], option: &[u8]) -> Result<(), &'static str> {
    if !option.iter().all(|&byte| is_tchar(byte)) {
        return Err("a Connection option is not a token");
    }
    let id = Name::classify(option);
    if matches!(id, Name::Host | Name::ContentLength | Name::TransferEncoding) {
        return Err("Connection names a field that frames or routes the message");
    }
    for field in fields {
        let named = field.id == id
            && (id != Name::Other || field.name.of(bytes).eq_ignore_ascii_case(option));
        field.drop |= named;
    }
    Ok(())
}

/// Whether these bytes may be the name of a field, or a method (RFC 9110 §5.6.2, token).
pub fn is_name(bytes: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(token)
}

/// Whether these bytes may be the value of a field (RFC 9110 §5.5): visible characters, with spaces and
/// tabs between them only.
pub fn is_value(bytes: &[u8]) -> bool {
    let inner = |byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..);
    bytes.iter().all(inner) && bytes.trim_ascii().len() == bytes.len()
}

/// Whether a comma-separated value has `wanted` among its elements, parameters aside.
pub(crate) fn lists(value: &[u8], wanted: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|element| {
        let name = element.split(|&byte| byte == b';').next().unwrap_or_default();
        trim(name).eq_ignore_ascii_case(wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_classifies_to_itself_in_any_case() {
        for &name in Name::ALL {
            assert_eq!(Name::classify(name.text()), name);
            assert_eq!(Name::classify(&name.text().to_ascii_lowercase()), name);
            assert_eq!(Name::classify(&name.text().to_ascii_uppercase()), name);
            let mut other = name.text().to_vec();
            other.push(b'x');
            assert_eq!(Name::classify(&other), Name::Other);
        }
        assert_eq!(Name::classify(b""), Name::Other);
        assert_eq!(Name::classify(b"Transfer_Encoding"), Name::Other);
    }

    #[test]
    fn lengths_are_canonical_decimals_of_64_bits() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"18446744073709551615"), Some(u64::MAX));
        for bad in
            [&b""[..], b"00", b"010", b"+5", b"-1", b"5 ", b"5;", b"1_0", b"18446744073709551616"]
        {
            assert_eq!(content_length(bad), None, "{}", bad.escape_ascii());
        }
    }
}
