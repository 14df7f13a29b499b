//! How values are written so that they stay values where they stand.

use super::reference::Reference;

/// Where a template's text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Anywhere: values are written as they are.
    None,
    /// Into a path. Parts of the request's path keep their `/`, all other values are one segment. The
    /// result may still hold dot segments: see `route::path::normalise`.
    Path,
    /// Into a query or another place of a URI.
    Query,
    /// Into HTML or XML, between tags or in an attribute's quotes.
    Html,
    /// Into a field's value (RFC 9110 §5.5): what cannot stand there is [`super::Missing::unfit`].
    Header,
}

/// The value cannot stand there.
pub(super) struct Unfit;

/// Appends the text of `what`.
#[inline]
pub(super) fn write(
    text: &[u8],
    escape: Escape,
    what: &Reference,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    match escape {
        Escape::None => out.extend_from_slice(text),
        Escape::Header if !is_field_value(text) => return Err(Unfit),
        Escape::Header => out.extend_from_slice(text),
        Escape::Html => html(text, out),
        Escape::Path | Escape::Query if what.is_uri() => escaped(text, out, is_uri),
        Escape::Path | Escape::Query if matches!(what, Reference::Capture(_)) => {
            escaped(text, out, |byte| byte == b'/' || is_segment(byte));
        }
        Escape::Path => escaped(text, out, is_segment),
        Escape::Query => escaped(text, out, is_unreserved),
    }
    Ok(())
}

/// Whether these bytes may stand in a field's value (RFC 9110 §5.5): no CR, LF, NUL, nor any other control
/// but the tab.
#[inline]
pub fn is_field_value(text: &[u8]) -> bool {
    // Without a way out in the middle this is done many bytes at a time.
    let bad = |byte: u8| (byte < 0x20 && byte != b'\t') || byte == 0x7f;
    !text.iter().fold(false, |any, byte| any | bad(*byte))
}

fn escaped(text: &[u8], out: &mut Vec<u8>, stays: impl Fn(u8) -> bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(text.len());
    for &byte in text {
        match stays(byte) {
            true => out.push(byte),
            false => {
                let digit = |nibble: u8| DIGITS[usize::from(nibble & 15)];
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
            }
        }
    }
}

fn html(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            b'\'' => out.extend_from_slice(b"&#39;"),
            byte => out.push(byte),
        }
    }
}

/// Appends a text as a name or a value in a query.
pub fn write_query(text: &[u8], out: &mut Vec<u8>) {
    escaped(text, out, is_unreserved);
}

/// Everything but unreserved characters encoded (RFC 3986 §2.3).
pub(super) fn urlencode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    escaped(text, &mut out, is_unreserved);
    out
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand in a segment (RFC 3986 §3.3) but `;`, at which some servers cut.
fn is_segment(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@'
        )
}

/// What may stand in a URI without its fragment, encoded or not.
fn is_uri(byte: u8) -> bool {
    is_segment(byte) || matches!(byte, b'/' | b'?' | b'%' | b';' | b'[' | b']')
}
