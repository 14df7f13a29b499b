//! Texts of JSON.

use super::Unprintable;

/// # Errors
/// The bytes are no UTF-8, which texts are.
pub fn utf8(bytes: &[u8]) -> Result<&str, Unprintable> {
    std::str::from_utf8(bytes).map_err(|_| Unprintable("a text is not UTF-8"))
}

/// Appends a text in quotes.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text.as_bytes(), out);
    out.push(b'"');
}

/// Appends a text without its quotes.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    for (at, &byte) in text.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(text.get(from..at).unwrap_or_default());
        from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let hex = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[hex[usize::from(byte >> 4)], hex[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(text.get(from..).unwrap_or_default());
}
