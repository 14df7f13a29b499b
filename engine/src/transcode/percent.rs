//! Percent-encoding (RFC 3986 §2.1).

use std::borrow::Cow;

/// What is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Nothing,
    /// `%2F`, which is no border of segments (`google/api/http.proto`).
    Slash,
    /// Nothing, and `+` is a space (a form's).
    PlusIsSpace,
}

/// `text` without its escapes. What is no escape stays as it is.
pub fn decoded(text: &[u8], keep: Keep) -> Cow<'_, [u8]> {
    let plus = keep == Keep::PlusIsSpace;
    if !text.iter().any(|&byte| byte == b'%' || (plus && byte == b'+')) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'%' => {
                let digit = |at: usize| behind.get(at).and_then(|b| char::from(*b).to_digit(16));
                match (digit(0), digit(1)) {
                    (Some(high), Some(low)) => {
                        let decoded = (high * 16 + low) as u8;
                        if decoded == b'/' && keep == Keep::Slash {
                            out.push(b'%');
                            continue;
                        }
                        out.push(decoded);
                        rest = behind.get(2..).unwrap_or_default();
                    }
                    _ => out.push(b'%'),
                }
            }
            b'+' if plus => out.push(b' '),
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

/// Appends `text` as one segment of a path, or (`slashes`) as several, or as a query's name or value:
/// all but unreserved characters (RFC 3986 §2.3) as escapes.
pub fn encode(text: &[u8], slashes: bool, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~')
            || (slashes && byte == b'/');
        if plain {
            out.push(byte);
        } else {
            out.push(b'%');
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_as_far_as_they_may() {
        for (text, keep, expected) in [
            ("a%20b", Keep::Nothing, "a b"),
            ("p%20q%2Fr", Keep::Nothing, "p q/r"),
            ("p%20q%2fr", Keep::Slash, "p q%2fr"),
            ("a+b%2B", Keep::PlusIsSpace, "a b+"),
            ("a+b", Keep::Nothing, "a+b"),
            ("100%", Keep::Nothing, "100%"),
            ("%zz%4", Keep::Nothing, "%zz%4"),
            ("%24%25%2F%20%0A", Keep::Nothing, "$%/ \n"),
        ] {
            assert_eq!(&*decoded(text.as_bytes(), keep), expected.as_bytes(), "{text}");
        }
        let mut out = Vec::new();
        encode("a b/ü".as_bytes(), false, &mut out);
        encode(b"/c?d", true, &mut out);
        assert_eq!(out, b"a%20b%2F%C3%BC/c%3Fd");
        assert_eq!(&*decoded(&out, Keep::Nothing), "a b/ü/c?d".as_bytes());
    }
}
