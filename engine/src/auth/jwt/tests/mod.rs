//! Tokens that are signed here, and what becomes of them.

mod algorithms;
pub(crate) mod gate;
mod meaning;
mod refusals;
mod rotation;
mod wycheproof;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::snapshot::{
    self, JwsAlgorithm, Jwt as JwtRules, KeyMaterial, Snapshot, Tokens, VerifyKey,
};
use p521::ecdsa::signature::Signer as _;
use ring::rand::SystemRandom;
use ring::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use ring::{hmac, rsa};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::verify::KeySet;

/// The time in these tests, in seconds since the Unix epoch.
pub const NOW_S: u64 = 1_700_000_000;

/// Who issues tokens.
pub enum Signer {
    Hmac(JwsAlgorithm, Vec<u8>),
    Rsa(JwsAlgorithm, RsaKeyPair),
    Ec(JwsAlgorithm, EcdsaKeyPair),
    P521(Box<p521::ecdsa::SigningKey>),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub fn new(algorithm: JwsAlgorithm) -> Signer {
        use JwsAlgorithm as A;
        let random = SystemRandom::new();
        let ec = |kind| {
            let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap();
            Signer::Ec(algorithm, pair)
        };
        match algorithm {
            A::Hs256 | A::Hs384 | A::Hs512 => Signer::Hmac(algorithm, vec![9; 64]),
            A::Es256 => ec(&sig::ECDSA_P256_SHA256_FIXED_SIGNING),
            A::Es384 => ec(&sig::ECDSA_P384_SHA384_FIXED_SIGNING),
            A::Es512 => {
                let mut scalar = [3; 66];
                scalar[0] = 0;
                Signer::P521(Box::new(p521::ecdsa::SigningKey::from_slice(&scalar).unwrap()))
            }
            A::EdDsa => {
                let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Signer::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
            }
            _ => Signer::rsa(algorithm, include_bytes!("data/rsa2048.pem")),
        }
    }

    pub fn rsa(algorithm: JwsAlgorithm, pem: &[u8]) -> Signer {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).unwrap();
        Signer::Rsa(algorithm, RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap())
    }

    pub fn algorithm(&self) -> JwsAlgorithm {
        match self {
            Signer::Hmac(algorithm, _) | Signer::Rsa(algorithm, _) | Signer::Ec(algorithm, _) => {
                *algorithm
            }
            Signer::P521(_) => JwsAlgorithm::Es512,
            Signer::Ed25519(_) => JwsAlgorithm::EdDsa,
        }
    }

    pub fn key(&self, kid: Option<&str>) -> VerifyKey {
        let material = match self {
            Signer::Hmac(_, secret) => KeyMaterial::Hmac(secret.clone()),
            Signer::Rsa(_, pair) => {
                let public = rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                KeyMaterial::Rsa { modulus: public.n, exponent: public.e }
            }
            Signer::Ec(JwsAlgorithm::Es256, pair) => {
                KeyMaterial::P256(pair.public_key().as_ref().to_vec())
            }
            Signer::Ec(_, pair) => KeyMaterial::P384(pair.public_key().as_ref().to_vec()),
            Signer::P521(key) => {
                KeyMaterial::P521(key.verifying_key().to_sec1_point(false).as_bytes().to_vec())
            }
            Signer::Ed25519(pair) => {
                KeyMaterial::Ed25519(pair.public_key().as_ref().try_into().unwrap())
            }
        };
        VerifyKey { kid: kid.map(str::to_owned), algorithms: vec![self.algorithm()], material }
    }

    /// Signs whatever parts are given.
    pub fn sign(&self, header: &[u8], payload: &[u8]) -> String {
        let signed = format!("{}.{}", encoded(header), encoded(payload));
        let signature = self.signature(signed.as_bytes());
        format!("{signed}.{}", encoded(&signature))
    }

    /// A token with `claims`.
    pub fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({ "alg": self.algorithm().name(), "typ": "JWT" });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        self.sign(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        use JwsAlgorithm as A;
        let random = SystemRandom::new();
        match self {
            Signer::Hmac(algorithm, secret) => {
                let hash = match algorithm {
                    A::Hs256 => hmac::HMAC_SHA256,
                    A::Hs384 => hmac::HMAC_SHA384,
                    _ => hmac::HMAC_SHA512,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
            Signer::Rsa(algorithm, pair) => {
                let padding: &'static dyn sig::RsaEncoding = match algorithm {
                    A::Rs256 => &sig::RSA_PKCS1_SHA256,
                    A::Rs384 => &sig::RSA_PKCS1_SHA384,
                    A::Rs512 => &sig::RSA_PKCS1_SHA512,
                    A::Ps256 => &sig::RSA_PSS_SHA256,
                    A::Ps384 => &sig::RSA_PSS_SHA384,
                    _ => &sig::RSA_PSS_SHA512,
                };
                let mut out = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut out).unwrap();
                out
            }
            Signer::Ec(_, pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::P521(key) => {
                let signature: p521::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

pub fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn key_set(keys: Vec<VerifyKey>) -> Arc<KeySet> {
    KeySet::build(&snapshot::KeySet { keys, ..loaded() }).unwrap()
}

pub fn loaded() -> snapshot::KeySet {
    snapshot::KeySet { loaded: true, ..snapshot::KeySet::default() }
}

/// Tokens of `https://issuer.example` for `api`.
pub fn rules() -> JwtRules {
    JwtRules {
        tokens: Tokens {
            from: vec![snapshot::CredentialSource::Header {
                name: "authorization".into(),
                scheme: Some("Bearer".into()),
            }],
            issuer: Some("https://issuer.example".into()),
            audiences: vec!["api".into(), "other".into()],
            require: vec![],
            scope_claims: vec!["scope".into(), "scp".into()],
            groups_claim: None,
            consumer_claim: "sub".into(),
            consumer_required: false,
            claim_headers: vec![],
            bound_only: false,
            leeway_s: 10,
        },
        keys: 0,
        max_lifetime_s: 0,
        allow_endless: false,
        access_token: false,
    }
}

/// Claims that [`rules`] take.
pub fn claims() -> Value {
    json!({
        "iss": "https://issuer.example",
        "aud": "api",
        "sub": "ada",
        "iat": NOW_S,
        "exp": NOW_S + 300,
    })
}

/// A snapshot with one authenticator, `tokens`.
pub fn snapshot_of(rules: JwtRules, keys: snapshot::KeySet, version: u64) -> Snapshot {
    let mut snapshot = Snapshot { epoch: version, ..Snapshot::default() };
    snapshot.auth.version = version;
    snapshot.auth.key_sets = vec![keys];
    snapshot.auth.authenticators = vec![snapshot::Authenticator {
        name: "tokens".into(),
        kind: snapshot::AuthenticatorKind::Jwt(Box::new(rules)),
    }];
    snapshot
}
