//! JWK Sets (RFC 7517) → keys that verify.
//!
//! What a set holds beside keys that can be used is passed over, as §5 asks: a provider may add kinds
//! of keys that nobody here knows. Private parts of keys are not looked at.

use contract::snapshot::{JwsAlgorithm, KeyMaterial, VerifyKey};
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// Largest set, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Most keys of a set.
pub const MAX_KEYS: usize = 1_000;
/// Longest `kid`, in bytes.
const MAX_KID: usize = 1_024;

/// Why bytes are no key set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JwksError {
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it is no JSON object with a list of `keys` (RFC 7517 §5)")]
    NoSet,
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
}

/// The members of a JWK that matter here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

/// The keys of a set that can verify something by one of `allowed`.
///
/// A key is for the algorithm that it names; one that names none is for those of `allowed` that suit
/// its kind. Of two keys with the same `kid` and an algorithm in common the first stays.
///
/// # Errors
/// The bytes are no key set.
pub fn parse(bytes: &[u8], allowed: &[JwsAlgorithm]) -> Result<Vec<VerifyKey>, JwksError> {
    if bytes.len() > MAX_BYTES {
        return Err(JwksError::TooLarge);
    }
    let mut set: Value = serde_json::from_slice(bytes).map_err(|_| JwksError::NoSet)?;
    let Some(Value::Array(list)) = set.get_mut("keys").map(Value::take) else {
        return Err(JwksError::NoSet);
    };
    if list.len() > MAX_KEYS {
        return Err(JwksError::TooMany);
    }
    let mut keys: Vec<VerifyKey> = Vec::new();
    for value in list {
        let Some(key) = serde_json::from_value(value).ok().and_then(|jwk| usable(jwk, allowed))
        else {
            continue;
        };
        let rival = |other: &VerifyKey| {
            key.kid.is_some()
                && key.kid == other.kid
                && key.algorithms.iter().any(|algorithm| other.algorithms.contains(algorithm))
        };
        if !keys.iter().any(rival) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// `keys` as far as they are for one of `allowed`.
pub fn narrowed(keys: &[VerifyKey], allowed: &[JwsAlgorithm]) -> Vec<VerifyKey> {
    let narrow = |key: &VerifyKey| {
        let algorithms = key.algorithms.iter().copied().filter(|one| allowed.contains(one));
        let algorithms: Vec<JwsAlgorithm> = algorithms.collect();
        (!algorithms.is_empty()).then(|| VerifyKey { algorithms, ..key.clone() })
    };
    keys.iter().filter_map(narrow).collect()
}

fn usable(jwk: Jwk, allowed: &[JwsAlgorithm]) -> Option<VerifyKey> {
    // RFC 7517 §4.2, §4.3.
    if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return None;
    }
    if jwk.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID) {
        return None;
    }
    let material = material(&jwk)?;
    let mut algorithms = allowed.to_vec();
    if let Some(name) = &jwk.alg {
        let named = JwsAlgorithm::from_name(name)?;
        algorithms.retain(|algorithm| *algorithm == named);
    }
    algorithms.retain(|algorithm| material.suits(*algorithm));
    algorithms.sort_unstable();
    algorithms.dedup();
    let key = VerifyKey { kid: jwk.kid, algorithms, material };
    key.is_sound().then_some(key)
}

fn material(jwk: &Jwk) -> Option<KeyMaterial> {
    let bytes = |text: &Option<String>| BASE64URL_NOPAD.decode(text.as_ref()?.as_bytes()).ok();
    // RFC 7518 §6.3.1 has numbers without leading zeros; some write them all the same.
    let number = |text: &Option<String>| {
        let bytes = bytes(text)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(bytes.get(zeros..)?.to_vec())
    };
    // RFC 7518 §6.2.1: coordinates have the length of the curve's field.
    let point = |length: usize| {
        let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
        let whole = x.len() == length && y.len() == length;
        // SEC 1 §2.3.3: uncompressed.
        whole.then(|| [&[4][..], &x, &y].concat())
    };
    Some(match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => KeyMaterial::Rsa { modulus: number(&jwk.n)?, exponent: number(&jwk.e)? },
        ("EC", Some("P-256")) => KeyMaterial::P256(point(32)?),
        ("EC", Some("P-384")) => KeyMaterial::P384(point(48)?),
        ("EC", Some("P-521")) => KeyMaterial::P521(point(66)?),
        // RFC 8037 §2.
        ("OKP", Some("Ed25519")) => KeyMaterial::Ed25519(bytes(&jwk.x)?.try_into().ok()?),
        ("oct", _) => KeyMaterial::Hmac(bytes(&jwk.k)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
