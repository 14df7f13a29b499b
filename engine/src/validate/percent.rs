//! Percent-encoding (RFC 3986 §2.1), undone.

use std::borrow::Cow;

/// `text` without percent-encoding; `%` without two digits stays. `plus`: `+` is a space, as in the
/// query strings of forms.
pub fn decoded(text: &[u8], plus: bool) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| *byte == b'%' || (plus && *byte == b'+')) {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Two digits of four bits each.
                out.push((high << 4 | low) as u8);
                at += 3;
                continue;
            }
            (b'+', ..) if plus => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(&*decoded(b"a%2Fb%zz%4", false), b"a/b%zz%4");
        assert_eq!(&*decoded(b"a+b%2b", true), b"a b+");
        assert_eq!(&*decoded(b"a+b", false), b"a+b");
    }
}
