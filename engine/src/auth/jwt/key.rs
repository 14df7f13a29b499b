//! Keys that verify signatures, each for the algorithms that it is made for.

use std::fmt;

use contract::snapshot::{JwsAlgorithm, KeyMaterial, VerifyKey};
use p521::ecdsa::signature::Verifier;
use ring::signature::{self as sig, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{hmac, rsa};

/// A key as tokens are tried with it.
pub struct Key {
    pub kid: Option<Box<str>>,
    /// What it may verify, never what a token says (RFC 8725 §3.1).
    pub algorithms: Box<[JwsAlgorithm]>,
    material: Material,
}

enum Material {
    Rsa(RsaPublicKeyComponents<Box<[u8]>>),
    P256(Box<[u8]>),
    P384(Box<[u8]>),
    /// `ring` does not have this curve. `None`: the point is not on it, so that nothing is verified. (Of
    /// the other curves `ring` finds that each time; no provider's key may make a snapshot unfit.)
    P521(Option<Box<p521::ecdsa::VerifyingKey>>),
    Ed25519([u8; 32]),
    /// One for each algorithm.
    Hmac(Box<[(JwsAlgorithm, hmac::Key)]>),
}

impl fmt::Debug for Key {
    /// Without the material.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { kid, algorithms, .. } = self;
        f.debug_struct("Key")
            .field("kid", kid)
            .field("algorithms", algorithms)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// # Errors
    /// It is not what control should have checked.
    pub fn build(from: &VerifyKey) -> Result<Key, &'static str> {
        if !from.is_sound() {
            return Err("it is not sound, or not for its algorithms");
        }
        let material = match &from.material {
            KeyMaterial::Rsa { modulus, exponent } => {
                let (n, e) = (modulus.as_slice().into(), exponent.as_slice().into());
                Material::Rsa(rsa::PublicKeyComponents { n, e })
            }
            KeyMaterial::P256(point) => Material::P256(point.as_slice().into()),
            KeyMaterial::P384(point) => Material::P384(point.as_slice().into()),
            KeyMaterial::P521(point) => {
                let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point);
                Material::P521(key.ok().map(Box::new))
            }
            KeyMaterial::Ed25519(point) => Material::Ed25519(*point),
            KeyMaterial::Hmac(secret) => {
                let keys =
                    from.algorithms.iter().map(|one| (*one, hmac::Key::new(hash(*one), secret)));
                Material::Hmac(keys.collect())
            }
        };
        Ok(Key {
            kid: from.kid.as_deref().map(Box::from),
            algorithms: from.algorithms.as_slice().into(),
            material,
        })
    }

    /// Whether it takes too long with this key to let other requests of the shard wait.
    pub fn is_slow(&self) -> bool {
        match &self.material {
            Material::Rsa(key) => bits(&key.n) > 2_048 || key.e.len() > 3,
            Material::P384(_) | Material::P521(_) => true,
            Material::P256(_) | Material::Ed25519(_) | Material::Hmac(_) => false,
        }
    }

    /// Whether `signature` is this key's over `signed`, by an algorithm that is the key's.
    pub fn verifies(&self, algorithm: JwsAlgorithm, signed: &[u8], signature: &[u8]) -> bool {
        use JwsAlgorithm as A;
        if !self.algorithms.contains(&algorithm) {
            return false;
        }
        let rsa = |parameters| match &self.material {
            Material::Rsa(key) => key.verify(parameters, signed, signature).is_ok(),
            _ => false,
        };
        // In constant time.
        let mac = |keys: &[(JwsAlgorithm, hmac::Key)]| {
            let key = keys.iter().find(|(of, _)| *of == algorithm);
            key.is_some_and(|(_, key)| hmac::verify(key, signed, signature).is_ok())
        };
        let point = |kind: &'static dyn sig::VerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(kind, point).verify(signed, signature).is_ok()
        };
        match (algorithm, &self.material) {
            (A::Hs256 | A::Hs384 | A::Hs512, Material::Hmac(keys)) => mac(keys),
            (A::Rs256, _) => rsa(&sig::RSA_PKCS1_2048_8192_SHA256),
            (A::Rs384, _) => rsa(&sig::RSA_PKCS1_2048_8192_SHA384),
            (A::Rs512, _) => rsa(&sig::RSA_PKCS1_2048_8192_SHA512),
            (A::Ps256, _) => rsa(&sig::RSA_PSS_2048_8192_SHA256),
            (A::Ps384, _) => rsa(&sig::RSA_PSS_2048_8192_SHA384),
            (A::Ps512, _) => rsa(&sig::RSA_PSS_2048_8192_SHA512),
            // RFC 7518 §3.4: two numbers of fixed length, not ASN.1.
            (A::Es256, Material::P256(key)) => point(&sig::ECDSA_P256_SHA256_FIXED, key),
            (A::Es384, Material::P384(key)) => point(&sig::ECDSA_P384_SHA384_FIXED, key),
            (A::Es512, Material::P521(Some(key))) => p521::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
            (A::EdDsa, Material::Ed25519(key)) => point(&sig::ED25519, key),
            // The algorithms are the material's: see `build`.
            _ => false,
        }
    }
}

fn bits(number: &[u8]) -> usize {
    let zeros = number.first().map_or(0, |first| first.leading_zeros() as usize);
    number.len() * 8 - zeros
}

fn hash(algorithm: JwsAlgorithm) -> hmac::Algorithm {
    match algorithm {
        JwsAlgorithm::Hs512 => hmac::HMAC_SHA512,
        JwsAlgorithm::Hs384 => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA256,
    }
}
