//! The client's half of the WebSocket opening handshake, judged before any upstream sees it
//! (RFC 6455 §4.2.1).

use contract::record::Reason;

use crate::exchange::Request;
use crate::local_reply::LocalReply;
use crate::message::{Framing, Version};

/// Judges a request whose `Upgrade` is `websocket`.
///
/// # Errors
/// 426 with the version spoken here for another version, 400 for what is no handshake.
pub fn check(request: &Request) -> Result<(), LocalReply> {
    let bytes = request.bytes();
    let field = |name: &[u8]| {
        let mut found = request
            .head
            .fields
            .iter()
            .filter(|field| field.name.of(bytes).eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (Some(field), None) => Some(field.value.of(bytes)),
            _ => None,
        }
    };
    let malformed = || Err(LocalReply::closing(400, Reason::BadRequest));
    let has_body = !matches!(request.head.framing, Framing::None | Framing::Length(0));
    if request.head.method(bytes) != b"GET" || has_body {
        return malformed();
    }
    if field(b"Sec-WebSocket-Version") != Some(b"13") {
        return Err(LocalReply {
            field: Some(("Sec-WebSocket-Version", b"13".to_vec())),
            ..LocalReply::closing(426, Reason::BadRequest)
        });
    }
    match field(b"Sec-WebSocket-Key") {
        // RFC 8441 §5: an extended CONNECT has none.
        _ if request.head.version == Version::V20 => Ok(()),
        Some(key) if is_key(key) => Ok(()),
        _ => malformed(),
    }
}

/// The client's key, if it has one.
pub fn client_key(request: &Request) -> Option<Vec<u8>> {
    let bytes = request.bytes();
    let mut fields = request.head.fields.iter();
    let field =
        fields.find(|field| field.name.of(bytes).eq_ignore_ascii_case(b"sec-websocket-key"))?;
    Some(field.value.of(bytes).to_vec())
}

/// A key for an upstream of HTTP/1, made from the request's id, which is unique.
pub fn key(id: &[u8]) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA256, id);
    base64(digest.as_ref().get(..16).unwrap_or_default())
}

/// What answers a client's key (RFC 6455 §4.2.2).
pub fn accept(key: &[u8]) -> Vec<u8> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(context.finish().as_ref())
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte))
            << (8 * (3 - group.len()));
        for at in 0..4 {
            out.push(match at <= group.len() {
                true => ALPHABET[(word >> (18 - 6 * at)) as usize & 63],
                false => b'=',
            });
        }
    }
    out
}

/// 16 bytes in base64: 22 characters of the alphabet and `==`.
fn is_key(key: &[u8]) -> bool {
    let Some(text) = key.strip_suffix(b"==") else { return false };
    text.len() == 22 && text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::{accept, is_key, key};

    #[test]
    fn the_rfcs_own_handshake() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(is_key(&key(b"some id")));
    }

    #[test]
    fn keys_are_sixteen_bytes_of_base64() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in [&b""[..], b"dGhl", b"dGhlIHNhbXBsZSBub25jZQ=", b"dGhlIHNhbXBsZSBub25j*Q=="] {
            assert!(!is_key(bad));
        }
    }
}
