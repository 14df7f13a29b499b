//! What a field's bytes allow by themselves: judged once when a field is decoded or enters the
//! dynamic table, not each time an index brings it back.

/// What a field name means to the framing of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Regular,
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
    /// A pseudo-header field that the RFC does not know (RFC 9113 §8.3).
    UnknownPseudo,
    ContentLength,
    Host,
    Te,
    /// About the connection, which HTTP/2 says by frames (RFC 9113 §8.2.2).
    ConnectionSpecific,
    /// Not a lower-case token (RFC 9113 §8.2.1).
    Invalid,
}

impl Class {
    pub const fn of(name: &[u8]) -> Class {
        match name {
            [b':', ..] => match name {
                b":method" => Class::Method,
                b":path" => Class::Path,
                b":scheme" => Class::Scheme,
                b":authority" => Class::Authority,
                b":status" => Class::Status,
                b":protocol" => Class::Protocol,
                _ => Class::UnknownPseudo,
            },
            b"te" => Class::Te,
            b"host" => Class::Host,
            b"content-length" => Class::ContentLength,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
            | b"upgrade" => Class::ConnectionSpecific,
            _ if name_is_valid(name) => Class::Regular,
            _ => Class::Invalid,
        }
    }
}

/// Lower-case token bytes (RFC 9110 §5.6.2, RFC 9113 §8.2.1).
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
            | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

const fn name_is_valid(name: &[u8]) -> bool {
    let mut n = 0;
    while n < name.len() {
        if !NAME[name[n] as usize] {
            return false;
        }
        n += 1;
    }
    n > 0
}

/// No control byte but tab, and no whitespace at the ends. RFC 9113 §8.2.1 forbids NUL, CR and LF;
/// RFC 9110 §5.5 the others, and HTTP/1 heads with them are refused, too.
#[inline]
pub fn value_is_valid(value: &[u8]) -> bool {
    if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value {
        return false;
    }
    // Without branches, so that it is done many bytes at a time.
    let bad = value
        .iter()
        .fold(false, |bad, &byte| bad | ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f));
    !bad
}
