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
    /// `ring` does not have this curve.
    P521(Box<p521::ecdsa::VerifyingKey>),
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
    /// What is wrong with it.
    pub fn build(from: &VerifyKey) -> Result<Key, &'static str> {
        let material = match &from.material {
            KeyMaterial::Rsa { modulus, exponent } => {
                let bits = bits(modulus);
                if !(2_048..=8_192).contains(&bits) {
                    return Err("an RSA key has 2,048 to 8,192 bits");
                }
                let (n, e) = (modulus.as_slice().into(), exponent.as_slice().into());
                Material::Rsa(rsa::PublicKeyComponents { n, e })
            }
            KeyMaterial::P256(point) => Material::P256(uncompressed(point, 65)?),
            KeyMaterial::P384(point) => Material::P384(uncompressed(point, 97)?),
            KeyMaterial::P521(point) => {
                let point = uncompressed(point, 133)?;
                let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(&point);
                Material::P521(Box::new(key.map_err(|_| "the point is not on P-521")?))
            }
            KeyMaterial::Ed25519(point) => Material::Ed25519(*point),
            KeyMaterial::Hmac(secret) => {
                let keys = from.algorithms.iter().map(|one| Ok((*one, secret_key(*one, secret)?)));
                Material::Hmac(keys.collect::<Result<_, &str>>()?)
            }
        };
        let key = Key {
            kid: from.kid.as_deref().map(Box::from),
            algorithms: from.algorithms.as_slice().into(),
            material,
        };
        if key.algorithms.is_empty() || !key.algorithms.iter().all(|one| key.is_of(*one)) {
            return Err("the algorithms are not those of such a key");
        }
        Ok(key)
    }

    fn is_of(&self, algorithm: JwsAlgorithm) -> bool {
        use JwsAlgorithm as A;
        match self.material {
            Material::Rsa(_) => {
                matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512)
            }
            Material::P256(_) => algorithm == A::Es256,
            Material::P384(_) => algorithm == A::Es384,
            Material::P521(_) => algorithm == A::Es512,
            Material::Ed25519(_) => algorithm == A::EdDsa,
            Material::Hmac(_) => matches!(algorithm, A::Hs256 | A::Hs384 | A::Hs512),
        }
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
            (A::Es512, Material::P521(key)) => p521::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
            (A::EdDsa, Material::Ed25519(key)) => point(&sig::ED25519, key),
            // The algorithms are the material's: see `build`.
            _ => false,
        }
    }
}

fn uncompressed(point: &[u8], len: usize) -> Result<Box<[u8]>, &'static str> {
    // SEC 1 §2.3.3.
    match point.first() {
        Some(4) if point.len() == len => Ok(point.into()),
        _ => Err("a point is uncompressed, of the length of its curve"),
    }
}

fn bits(number: &[u8]) -> usize {
    let zeros = number.first().map_or(0, |first| first.leading_zeros() as usize);
    number.len() * 8 - zeros
}

fn secret_key(algorithm: JwsAlgorithm, secret: &[u8]) -> Result<hmac::Key, &'static str> {
    let hash = match algorithm {
        JwsAlgorithm::Hs512 => hmac::HMAC_SHA512,
        JwsAlgorithm::Hs384 => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA256,
    };
    // RFC 7518 §3.2.
    if secret.len() < hash.digest_algorithm().output_len() {
        return Err("a secret has to be as long as the hash of its algorithm");
    }
    Ok(hmac::Key::new(hash, secret))
}
