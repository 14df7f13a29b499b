//! JSON Web Signatures in their compact serialization (RFC 7515 §7.1), as far as they can be read
//! without a key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::snapshot::JwsAlgorithm;
use serde_json::{Map, Value};

use super::json;
use crate::limits;

/// A token as it came: nothing of it is true before its signature is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub header: Header,
    pub payload: Vec<u8>,
    /// What the signature is over: header and payload as they were sent, and the dot between.
    pub signed: Vec<u8>,
    pub signature: Vec<u8>,
}

/// What we read of a header. Keys that it brings or points to (`jwk`, `jku`, `x5c`, `x5u`, `x5t`) are
/// not among it: who signs does not choose what is trusted (RFC 8725 §3.5, §3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub algorithm: JwsAlgorithm,
    pub kid: Option<String>,
    pub typ: Option<String>,
}

/// Why something is no token that could be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    Length,
    /// Not three of them.
    Parts,
    /// Padding, foreign characters, or bits that say nothing (RFC 4648 §3.5).
    Base64,
    /// The header is no JSON object, or a name stands twice in it.
    Header,
    /// `none`, or any other that is not ours.
    Algorithm,
    /// Extensions that we would have to understand. There are none that we do.
    Critical,
    /// A member of the header has no business to be what it is.
    Member,
}

impl Token {
    /// # Errors
    /// What about it cannot be read.
    pub fn read(text: &[u8]) -> Result<Token, Malformed> {
        if text.len() > limits::JWT {
            return Err(Malformed::Length);
        }
        let mut parts = text.split(|&byte| byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed::Parts);
        };
        let signed = text.get(..header.len() + 1 + payload.len()).ok_or(Malformed::Parts)?;
        let header = json::object(&decoded(header)?).ok_or(Malformed::Header)?;
        Ok(Token {
            header: Header::read(&header)?,
            payload: decoded(payload)?,
            signed: signed.to_vec(),
            signature: decoded(signature)?,
        })
    }
}

impl Header {
    fn read(from: &Map<String, Value>) -> Result<Header, Malformed> {
        // RFC 7515 §4.1.11: what is critical and not understood refuses the token. RFC 7797 §6: `b64`
        // has to be critical where it says anything.
        if from.contains_key("crit") || from.contains_key("b64") {
            return Err(Malformed::Critical);
        }
        let text = |name| match from.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Malformed::Member),
        };
        let algorithm = text("alg")?
            .and_then(|name| JwsAlgorithm::from_name(name))
            .ok_or(Malformed::Algorithm)?;
        Ok(Header { algorithm, kid: text("kid")?.cloned(), typ: text("typ")?.cloned() })
    }
}

/// RFC 7515 §2: base64url without padding.
pub fn decoded(text: &[u8]) -> Result<Vec<u8>, Malformed> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed::Base64)
}
