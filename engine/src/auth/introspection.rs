//! Token introspection (RFC 7662).
//!
//! What the authorization server says is kept for the node (`store::answers`), and each shard
//! remembers beside it what that meant. Only a well-formed "no" refuses a token; whatever else goes
//! wrong means that nobody knows, and lets nobody in.

use std::rc::Rc;
use std::sync::Arc;

use contract::snapshot::{self, Snapshot};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::jwt::claims::{self, Claims, identify};
use super::jwt::{json, parse};
use super::registry::Unfit;
use super::{Call, Check, Identity, Outcome, Refusal};
use crate::io::wall_ms;
use crate::limits;
use crate::store::answers::{Answers, Believed};
use crate::store::http::{Clients, Endpoint, Failure};
use crate::store::oauth_client::OAuthClient;

#[cfg(test)]
mod tests;

/// An authenticator that asks the authorization server.
#[derive(Debug)]
pub struct Introspection {
    pub tokens: snapshot::Tokens,
    server: Arc<Server>,
}

/// The server, as the store thread asks it.
#[derive(Debug)]
struct Server {
    endpoint: Endpoint,
    client: OAuthClient,
    cache_ms: u64,
    negative_ms: u64,
    answers: Answers<Word>,
}

/// What is said of a token.
#[derive(Clone, Debug)]
enum Word {
    Active(Arc<Claims>),
    Inactive,
    /// Nobody knows.
    None,
}

impl Introspection {
    /// # Errors
    /// A certificate or key cannot be used.
    pub fn build(
        from: &snapshot::Introspection,
        snapshot: &Snapshot,
    ) -> Result<Introspection, Unfit> {
        let identity = OAuthClient::identity(&from.client);
        let server = Server {
            endpoint: Endpoint::build(&from.endpoint, identity, snapshot)?,
            client: OAuthClient::build(&from.client)?,
            cache_ms: from.cache_ms.into(),
            negative_ms: from.negative_ms.into(),
            answers: Answers::default(),
        };
        Ok(Introspection { tokens: from.tokens.clone(), server: Arc::new(server) })
    }

    pub fn verify<'a>(&'a self, call: Call<'a>, index: u32, credential: &[u8]) -> Check<'a> {
        // RFC 6749 A.12: what no server can have issued it need not be asked about.
        let issued = |byte: &u8| matches!(byte, 0x21..=0x7e);
        let token = match std::str::from_utf8(credential) {
            Ok(token) if credential.iter().all(issued) => token.to_owned(),
            _ => return Check::refused(Refusal::Invalid),
        };
        if token.len() > limits::AUTH_CREDENTIAL {
            return Check::refused(Refusal::Invalid);
        }
        let (server, now_ms) = (self.server.clone(), call.wall_ms());
        let desk = call.shard.desk();
        let http = desk.store().http();
        let asked = desk.ask(async move { server.word(&http, token, now_ms).await });
        Check::later(async move {
            let Ok(believed) = asked.await else { return Outcome::Refused(Refusal::Unavailable) };
            match believed.value {
                Word::None => Outcome::Refused(Refusal::Unavailable),
                Word::Inactive => Outcome::Refused(Refusal::Invalid),
                Word::Active(claims) => {
                    let claims = Arc::unwrap_or_clone(claims);
                    match identify(&self.tokens, call.registry, index, claims, call.wall_ms()) {
                        Ok(identity) => {
                            let until_ms = identity.until_ms.min(believed.until_ms);
                            Outcome::Known(Rc::new(Identity { until_ms, ..identity }))
                        }
                        Err(refusal) => Outcome::Refused(refusal),
                    }
                }
            }
        })
    }
}

impl Server {
    /// What it says of `token`, now or a little while ago.
    async fn word(&self, http: &Clients, token: String, now_ms: u64) -> Believed<Word> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        self.answers.get(key, now_ms, || self.ask(http, token)).await
    }

    async fn ask(&self, http: &Clients, token: String) -> Believed<Word> {
        match self.introspect(http, &token).await {
            Ok(believed) => believed,
            Err(failure) => {
                self.endpoint.complain(&failure);
                Believed::once(Word::None)
            }
        }
    }

    /// RFC 7662 §2.1, §2.2.
    async fn introspect(&self, http: &Clients, token: &str) -> Result<Believed<Word>, Failure> {
        let parameters = [("token", token), ("token_type_hint", "access_token")];
        let question = self.client.question(&self.endpoint, &parameters, wall_ms()).await?;
        let answer = http.ask(&self.endpoint, question).await?;
        let claims = answer.object()?;
        let now_ms = wall_ms();
        match claims.get("active") {
            Some(Value::Bool(true)) => {
                let believed_ms = now_ms + self.cache_ms;
                let until_ms = end_ms(&claims).map_or(believed_ms, |end| end.min(believed_ms));
                // A tree of values takes several times its text.
                let bytes = 4 * answer.body.len() + 256;
                Ok(Believed { value: Word::Active(Arc::new(claims)), until_ms, bytes })
            }
            Some(Value::Bool(false)) => {
                let until_ms = now_ms + self.negative_ms;
                Ok(Believed { value: Word::Inactive, until_ms, bytes: 64 })
            }
            _ => Err(Failure::Malformed("it does not say whether the token is active")),
        }
    }
}

/// When the token ends, if it does, in milliseconds since the Unix epoch.
fn end_ms(claims: &Claims) -> Option<u64> {
    // Too large ones become the largest, negative ones 0.
    claims.get("exp")?.as_f64().map(|seconds| (seconds * 1_000.0) as u64)
}

/// Whether `token` is a JWT whose issuer is that of `tokens`. What begins as a JWT and cannot be read is,
/// too.
pub fn is_jwt_of(token: &[u8], tokens: &snapshot::Tokens) -> bool {
    let mut parts = token.split(|&byte| byte == b'.');
    let (Some(header), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let object = |part: &[u8]| json::object(&parse::decoded(part).ok()?);
    if object(header).is_none_or(|header| !header.contains_key("alg")) {
        return false;
    }
    object(payload).is_none_or(|claims| claims::is_issuer(tokens, &claims))
}
