//! The client's half of the WebSocket opening handshake, judged before any upstream sees it
//! (RFC 6455 §4.2.1).

use contract::record::Reason;

use crate::exchange::Request;
use crate::local_reply::LocalReply;
use crate::message::Framing;

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
        Some(key) if is_key(key) => Ok(()),
        _ => malformed(),
    }
}

/// 16 bytes in base64: 22 characters of the alphabet and `==`.
fn is_key(key: &[u8]) -> bool {
    let Some(text) = key.strip_suffix(b"==") else { return false };
    text.len() == 22 && text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::is_key;

    #[test]
    fn keys_are_sixteen_bytes_of_base64() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in [&b""[..], b"dGhl", b"dGhlIHNhbXBsZSBub25jZQ=", b"dGhlIHNhbXBsZSBub25j*Q=="] {
            assert!(!is_key(bad));
        }
    }
}
