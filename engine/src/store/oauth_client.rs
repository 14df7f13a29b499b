//! How the gateway proves who it is to an authorization server (RFC 6749 §2.3).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use contract::snapshot::{self, CertificateIndex, ClientProof};
use form_urlencoded::{Serializer, byte_serialize};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::json;

use super::http::{Endpoint, Failure, HeaderMap, HeaderValue, Question};
use crate::auth::registry::Unfit;

/// How long an assertion is good, in seconds.
const ASSERTION_S: u64 = 60;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The gateway as a client of an authorization server.
pub struct OAuthClient {
    id: String,
    proof: Proof,
}

impl std::fmt::Debug for OAuthClient {
    /// Without the proof.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OAuthClient").field("id", &self.id).finish_non_exhaustive()
    }
}

enum Proof {
    /// A public client, or one whose certificate is its proof (RFC 8705 §2).
    Id,
    /// The value of `Authorization`.
    Basic(HeaderValue),
    Post(String),
    Assertion {
        key: Arc<AssertionKey>,
        /// `{"alg":…,"kid":…,"typ":"JWT"}` in base64url.
        header: String,
    },
}

enum AssertionKey {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

impl OAuthClient {
    /// # Errors
    /// The key cannot be used.
    pub fn build(from: &snapshot::OAuthClient) -> Result<OAuthClient, Unfit> {
        let proof = match &from.proof {
            ClientProof::None | ClientProof::Tls { .. } => Proof::Id,
            ClientProof::Basic(secret) => Proof::Basic(basic(&from.id, secret)?),
            ClientProof::Post(secret) => Proof::Post(secret.clone()),
            ClientProof::PrivateKeyJwt { key, kid } => {
                let key = AssertionKey::build(key)?;
                let mut header = json!({ "alg": key.algorithm(), "typ": "JWT" });
                if let Some(kid) = kid {
                    header["kid"] = json!(kid);
                }
                let header = URL_SAFE_NO_PAD.encode(header.to_string());
                Proof::Assertion { key: Arc::new(key), header }
            }
        };
        Ok(OAuthClient { id: from.id.clone(), proof })
    }

    /// The certificate that connections to the server show.
    pub fn identity(from: &snapshot::OAuthClient) -> Option<CertificateIndex> {
        match from.proof {
            ClientProof::Tls { identity } => Some(identity),
            _ => None,
        }
    }

    /// A question to `endpoint`: `parameters` with the proof beside them. `now_ms`: since the Unix
    /// epoch.
    ///
    /// # Errors
    /// Nothing can be signed: the address is not known, or the work was lost.
    pub async fn question(
        &self,
        endpoint: &Endpoint,
        parameters: &[(&str, &str)],
        now_ms: u64,
    ) -> Result<Question, Failure> {
        let mut fields = HeaderMap::new();
        fields.insert("accept", HeaderValue::from_static("application/json"));
        let assertion = match &self.proof {
            Proof::Assertion { key, header } => {
                let audience = endpoint.url().ok_or(Failure::Unknown)?;
                let signed = format!("{header}.{}", self.claims(audience, now_ms)?);
                let key = key.clone();
                // A signature with a long RSA key takes milliseconds, and this thread is everyone's.
                let assertion = tokio::task::spawn_blocking(move || key.sign(signed)).await;
                assertion.ok().flatten().ok_or(Failure::Unreachable)?
            }
            _ => String::new(),
        };
        let mut form = Serializer::new(String::new());
        form.extend_pairs(parameters);
        match &self.proof {
            Proof::Id => {
                form.append_pair("client_id", &self.id);
            }
            Proof::Basic(value) => {
                fields.insert("authorization", value.clone());
            }
            Proof::Post(secret) => {
                form.append_pair("client_id", &self.id).append_pair("client_secret", secret);
            }
            // RFC 7523 §2.2.
            Proof::Assertion { .. } => {
                form.append_pair("client_id", &self.id)
                    .append_pair("client_assertion_type", ASSERTION_TYPE)
                    .append_pair("client_assertion", &assertion);
            }
        }
        Ok(Question { fields, form: Some(form.finish()) })
    }

    /// RFC 7523 §3. In base64url.
    fn claims(&self, audience: &str, now_ms: u64) -> Result<String, Failure> {
        let mut id = [0; 16];
        SystemRandom::new().fill(&mut id).map_err(|_| Failure::Unreachable)?;
        let now_s = now_ms / 1_000;
        let claims = json!({
            "iss": self.id,
            "sub": self.id,
            "aud": audience,
            "jti": URL_SAFE_NO_PAD.encode(id),
            "iat": now_s,
            "exp": now_s + ASSERTION_S,
        });
        Ok(URL_SAFE_NO_PAD.encode(claims.to_string()))
    }
}

/// RFC 6749 §2.3.1: both are form-encoded before they are joined.
fn basic(id: &str, secret: &str) -> Result<HeaderValue, Unfit> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(id), encoded(secret));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
        .map_err(|_| ("client.secret".to_string(), "is too long".to_string()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl AssertionKey {
    fn build(pkcs8: &[u8]) -> Result<AssertionKey, Unfit> {
        if let Ok(key) = RsaKeyPair::from_pkcs8(pkcs8) {
            return Ok(AssertionKey::Rsa(key));
        }
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random);
        key.map(AssertionKey::P256).map_err(|_| {
            let problem = "write an RSA key (2048 to 4096 bits) or an ECDSA P-256 key in PKCS#8";
            ("client.key".to_string(), problem.to_string())
        })
    }

    fn algorithm(&self) -> &'static str {
        match self {
            AssertionKey::Rsa(_) => "RS256",
            AssertionKey::P256(_) => "ES256",
        }
    }

    /// `signed` with the signature behind it (RFC 7515 §3.1).
    fn sign(&self, mut signed: String) -> Option<String> {
        let random = SystemRandom::new();
        let signature = match self {
            AssertionKey::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).ok()?;
                signature
            }
            AssertionKey::P256(key) => key.sign(&random, signed.as_bytes()).ok()?.as_ref().to_vec(),
        };
        signed.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut signed);
        Some(signed)
    }
}
