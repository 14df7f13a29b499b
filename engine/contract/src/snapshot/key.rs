//! Which keys are good for what: judged the same by who fetches keys and by who reads snapshots.

use std::fmt;

use super::{JwsAlgorithm, KeyMaterial, VerifyKey};

/// Lengths of RSA moduli, in bits: what RFC 7518 §3.3 asks for at least, and what a verification may
/// cost at most.
const RSA_BITS: std::ops::RangeInclusive<u64> = 2_048..=8_192;
/// Longest public exponent of RSA, in bytes. Those in use have three.
const RSA_EXPONENT: usize = 5;
/// How an uncompressed point begins (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;
/// Longest secret of an HMAC, in bytes.
const HMAC_SECRET: usize = 4_096;

impl JwsAlgorithm {
    /// Every algorithm, in the order of its number in snapshots.
    pub const ALL: [JwsAlgorithm; 13] = [
        JwsAlgorithm::Hs256,
        JwsAlgorithm::Hs384,
        JwsAlgorithm::Hs512,
        JwsAlgorithm::Rs256,
        JwsAlgorithm::Rs384,
        JwsAlgorithm::Rs512,
        JwsAlgorithm::Ps256,
        JwsAlgorithm::Ps384,
        JwsAlgorithm::Ps512,
        JwsAlgorithm::Es256,
        JwsAlgorithm::Es384,
        JwsAlgorithm::Es512,
        JwsAlgorithm::EdDsa,
    ];

    /// Its name in RFC 7518 §3.1 and RFC 8037 §3.1.
    pub fn name(self) -> &'static str {
        match self {
            JwsAlgorithm::Hs256 => "HS256",
            JwsAlgorithm::Hs384 => "HS384",
            JwsAlgorithm::Hs512 => "HS512",
            JwsAlgorithm::Rs256 => "RS256",
            JwsAlgorithm::Rs384 => "RS384",
            JwsAlgorithm::Rs512 => "RS512",
            JwsAlgorithm::Ps256 => "PS256",
            JwsAlgorithm::Ps384 => "PS384",
            JwsAlgorithm::Ps512 => "PS512",
            JwsAlgorithm::Es256 => "ES256",
            JwsAlgorithm::Es384 => "ES384",
            JwsAlgorithm::Es512 => "ES512",
            JwsAlgorithm::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of that name. Names have a case (RFC 7515 §4.1.1); RFC 9864 §2.2 gives the one
    /// curve of EdDSA that there is here a name of its own.
    pub fn from_name(name: &str) -> Option<JwsAlgorithm> {
        match name {
            "Ed25519" => Some(JwsAlgorithm::EdDsa),
            name => JwsAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name),
        }
    }
}

impl KeyMaterial {
    /// Whether it has the form and length of its kind. (Whether a point is on its curve is found when
    /// it is used.)
    pub fn is_sound(&self) -> bool {
        let point = |point: &[u8], len| point.len() == len && point.first() == Some(&UNCOMPRESSED);
        match self {
            KeyMaterial::Rsa { modulus, exponent } => {
                let bits = |number: &[u8]| {
                    let top = number.first().map_or(0, |first| u64::from(first.leading_zeros()));
                    // Leading zero bytes would be a second way to write the same number.
                    if top < 8 { (number.len() as u64 * 8).saturating_sub(top) } else { 0 }
                };
                RSA_BITS.contains(&bits(modulus))
                    && bits(exponent) > 1
                    && exponent.len() <= RSA_EXPONENT
            }
            KeyMaterial::P256(bytes) => point(bytes, 65),
            KeyMaterial::P384(bytes) => point(bytes, 97),
            KeyMaterial::P521(bytes) => point(bytes, 133),
            KeyMaterial::Ed25519(_) => true,
            KeyMaterial::Hmac(secret) => (32..=HMAC_SECRET).contains(&secret.len()),
        }
    }

    /// Whether signatures of `algorithm` can be verified with it.
    pub fn suits(&self, algorithm: JwsAlgorithm) -> bool {
        match algorithm {
            // RFC 7518 §3.2: a secret at least as long as the hash.
            JwsAlgorithm::Hs256 => matches!(self, KeyMaterial::Hmac(s) if s.len() >= 32),
            JwsAlgorithm::Hs384 => matches!(self, KeyMaterial::Hmac(s) if s.len() >= 48),
            JwsAlgorithm::Hs512 => matches!(self, KeyMaterial::Hmac(s) if s.len() >= 64),
            JwsAlgorithm::Rs256
            | JwsAlgorithm::Rs384
            | JwsAlgorithm::Rs512
            | JwsAlgorithm::Ps256
            | JwsAlgorithm::Ps384
            | JwsAlgorithm::Ps512 => matches!(self, KeyMaterial::Rsa { .. }),
            JwsAlgorithm::Es256 => matches!(self, KeyMaterial::P256(_)),
            JwsAlgorithm::Es384 => matches!(self, KeyMaterial::P384(_)),
            JwsAlgorithm::Es512 => matches!(self, KeyMaterial::P521(_)),
            JwsAlgorithm::EdDsa => matches!(self, KeyMaterial::Ed25519(_)),
        }
    }
}

impl fmt::Debug for KeyMaterial {
    /// Its kind alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyMaterial::Rsa { .. } => "Rsa",
            KeyMaterial::P256(_) => "P256",
            KeyMaterial::P384(_) => "P384",
            KeyMaterial::P521(_) => "P521",
            KeyMaterial::Ed25519(_) => "Ed25519",
            KeyMaterial::Hmac(_) => "Hmac",
        })
    }
}

impl VerifyKey {
    /// Whether its material is sound and suits all of its algorithms, of which there is one at least.
    pub fn is_sound(&self) -> bool {
        self.material.is_sound()
            && !self.algorithms.is_empty()
            && self.algorithms.iter().all(|algorithm| self.material.suits(*algorithm))
    }
}
