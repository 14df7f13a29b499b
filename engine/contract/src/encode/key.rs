//! Keys that tokens are verified with.

use super::tls::MAX_DER;
use super::{DecodeError, Fault, In, Out};
use crate::snapshot::*;

/// Most key sets of a snapshot.
pub const MAX_KEY_SETS: usize = 1_000;
/// Most keys of a key set.
pub const MAX_KEYS: usize = 1_000;
/// Key sets that shards can wish for.
pub const MAX_WISHES: usize = 256;

pub(super) fn write_key_set(out: &mut Out, set: &KeySet) {
    out.text(&set.source);
    out.u8(set.loaded.into());
    out.option(set.wish.as_ref(), |out, wish| out.u32(*wish));
    out.list(&set.keys, write_key);
}

pub(super) fn read_key_set(input: &mut In<'_>) -> Result<KeySet, DecodeError> {
    Ok(KeySet {
        source: input.text("key_set.source")?,
        loaded: input.bool("key_set.loaded")?,
        wish: input.option("key_set.wish", |input| input.index("key_set.wish", MAX_WISHES))?,
        keys: input.list("key_set.keys", MAX_KEYS, read_key)?,
    })
}

fn write_key(out: &mut Out, key: &VerifyKey) {
    out.option(key.kid.as_ref(), |out, kid| out.text(kid));
    match &key.material {
        KeyMaterial::Rsa { modulus, exponent } => {
            out.u8(0);
            out.blob(modulus);
            out.blob(exponent);
        }
        KeyMaterial::P256(point) => {
            out.u8(1);
            out.blob(point);
        }
        KeyMaterial::P384(point) => {
            out.u8(2);
            out.blob(point);
        }
        KeyMaterial::P521(point) => {
            out.u8(3);
            out.blob(point);
        }
        KeyMaterial::Ed25519(key) => {
            out.u8(4);
            out.bytes.extend_from_slice(key);
        }
        KeyMaterial::Hmac(secret) => {
            out.u8(5);
            out.blob(secret);
        }
    }
    out.list(&key.algorithms, |out, algorithm| {
        // In the order of its declaration, which `JwsAlgorithm::ALL` is in.
        out.u8(*algorithm as u8);
    });
}

fn read_key(input: &mut In<'_>) -> Result<VerifyKey, DecodeError> {
    const MATERIAL: &str = "key.material";
    let kid = input.option("key.kid", |input| input.text("key.kid"))?;
    let unsound = input.fault(MATERIAL, Fault::Key);
    let material = match input.u8(MATERIAL)? {
        0 => KeyMaterial::Rsa {
            modulus: input.blob(MATERIAL, MAX_DER)?,
            exponent: input.blob(MATERIAL, MAX_DER)?,
        },
        1 => KeyMaterial::P256(input.blob(MATERIAL, MAX_DER)?),
        2 => KeyMaterial::P384(input.blob(MATERIAL, MAX_DER)?),
        3 => KeyMaterial::P521(input.blob(MATERIAL, MAX_DER)?),
        4 => KeyMaterial::Ed25519(input.array(MATERIAL)?),
        5 => KeyMaterial::Hmac(input.blob(MATERIAL, MAX_DER)?),
        other => return Err(input.tag(MATERIAL, other)),
    };
    if !material.is_sound() {
        return Err(unsound);
    }
    // RFC 8725 §3.1: a key is for the algorithms of its kind, whatever a token says.
    let algorithms = input.some("key.algorithms", JwsAlgorithm::ALL.len(), |input| {
        let number = input.u8("key.algorithms")?;
        let algorithm = JwsAlgorithm::ALL.get(usize::from(number)).copied();
        algorithm
            .filter(|algorithm| material.suits(*algorithm))
            .ok_or_else(|| input.tag("key.algorithms", number))
    })?;
    Ok(VerifyKey { kid, algorithms, material })
}
