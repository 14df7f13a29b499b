//! JSON Web Tokens (RFC 7515, 7519, 8725, 9068), verified here.
//!
//! A token is read ([`parse`]), its issuer looked at to tell it from those of other authenticators, its
//! signature verified ([`verify`], [`key`]), and only then believed ([`claims`]).

pub mod claims;
mod fuzz;
pub mod json;
mod key;
pub mod parse;
pub mod verify;
mod wishes;

#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;
use std::sync::Arc;

use contract::snapshot::{self, Snapshot};

use self::claims::Claims;
pub use self::fuzz::fuzz_jwt;
use self::parse::Token;
use self::verify::{KeySet, Verdict};
pub use self::wishes::Wishes;
use super::registry::{Kind, Unfit, key_set};
use super::{Call, Check, Identity, Outcome, Refusal};

/// An authenticator by JSON Web Tokens.
#[derive(Debug)]
pub struct Jwt {
    pub rules: snapshot::Jwt,
    keys: Arc<KeySet>,
}

impl Jwt {
    pub fn build(from: &snapshot::Jwt, snapshot: &Snapshot) -> Result<Jwt, Unfit> {
        let keys = KeySet::build(key_set(snapshot, from.keys)?);
        let keys = keys.map_err(|problem| ("keys".to_string(), problem))?;
        Ok(Jwt { rules: from.clone(), keys })
    }

    pub fn verify<'a>(&'a self, call: Call<'a>, index: u32, credential: &[u8]) -> Check<'a> {
        let (token, claims) = match self.read(credential) {
            Ok(read) => read,
            Err(refusal) => return Check::refused(refusal),
        };
        if !self.keys.loaded {
            self.wish(call);
            return Check::refused(Refusal::Unavailable);
        }
        if self.keys.is_slow_for(&token.header) {
            return Check::later(self.verify_aside(call, index, token, claims));
        }
        match self.keys.judge(&token) {
            Verdict::Good => Check::Now(outcome(self.identity(call, index, claims))),
            Verdict::Bad => Check::refused(Refusal::Invalid),
            Verdict::Unknown if self.keys.wish.is_none() => Check::refused(Refusal::Invalid),
            Verdict::Unknown => Check::later(self.verify_anew(call, index, token, claims)),
        }
    }

    /// The token and its claims, if they could be for this authenticator.
    fn read(&self, credential: &[u8]) -> Result<(Token, Claims), Refusal> {
        let token = Token::read(credential).map_err(|_| Refusal::Invalid)?;
        if !self.is_of_type(token.header.typ.as_deref()) {
            return Err(Refusal::Invalid);
        }
        let claims = json::object(&token.payload).ok_or(Refusal::Invalid)?;
        // Of several authenticators for bearer tokens each has its own issuer. Whatever that token is,
        // it is none of these keys' business, and no reason to ask for others.
        if !claims::is_issuer(&self.rules.tokens, &claims) {
            return Err(Refusal::Invalid);
        }
        Ok((token, claims))
    }

    /// Whether a token says that it is of a kind that is taken here (RFC 8725 §3.11).
    fn is_of_type(&self, typ: Option<&str>) -> bool {
        let lower = typ.map(str::to_ascii_lowercase);
        // RFC 7515 §4.1.9: `application/` is left out, or not.
        let lower = lower.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
        match lower {
            Some("at+jwt") => true,
            // RFC 9068 §4.
            _ if self.rules.access_token => false,
            // Logout tokens, proofs of possession and the like are signed by the same keys.
            Some(typ) => !typ.ends_with("+jwt"),
            None => true,
        }
    }

    fn identity(&self, call: Call<'_>, index: u32, claims: Claims) -> Result<Identity, Refusal> {
        claims::check_lifetime(&self.rules, &claims)?;
        claims::identify(&self.rules.tokens, call.registry, index, claims, call.wall_ms())
    }

    async fn verify_aside(
        &self,
        call: Call<'_>,
        index: u32,
        token: Token,
        claims: Claims,
    ) -> Outcome {
        match self.keys.judge_aside(call.shard, token.clone()).await {
            Ok(Verdict::Good) => outcome(self.identity(call, index, claims)),
            Ok(Verdict::Unknown) if self.keys.wish.is_some() => {
                self.verify_anew(call, index, token, claims).await
            }
            Ok(Verdict::Bad | Verdict::Unknown) => Outcome::Refused(Refusal::Invalid),
            Err(_) => Outcome::Refused(Refusal::Unavailable),
        }
    }

    /// Asks for the keys to be fetched again, and judges a token by what comes: a change of keys is no
    /// reason to fail requests.
    async fn verify_anew(
        &self,
        call: Call<'_>,
        index: u32,
        token: Token,
        claims: Claims,
    ) -> Outcome {
        let Some(keys) = self.fresh_keys(call, index, &token).await else {
            return Outcome::Refused(Refusal::Invalid);
        };
        match keys.judge_aside(call.shard, token).await {
            Ok(Verdict::Good) => {
                // Not remembered: the request goes on under its own registry, which does not know the
                // key, and what is remembered is so under one registry.
                let identity = self.identity(call, index, claims);
                outcome(identity.map(|identity| Identity { until_ms: 0, ..identity }))
            }
            Ok(_) => Outcome::Refused(Refusal::Invalid),
            Err(_) => Outcome::Refused(Refusal::Unavailable),
        }
    }

    /// The set with the key that `token` names, once that has come.
    async fn fresh_keys(&self, call: Call<'_>, index: u32, token: &Token) -> Option<Arc<KeySet>> {
        let (shard, kid) = (call.shard, token.header.kid.as_deref()?);
        self.wish(call);
        // Held while it waits.
        let wait = shard.wishes().wait(self.keys.wish?, shard.io.clock().now_ms())?;
        let find = |kind: &Kind| match kind {
            Kind::Jwt(jwt) if jwt.rules.tokens.issuer == self.rules.tokens.issuer => {
                jwt.keys.has(kid).then(|| jwt.keys.clone())
            }
            _ => None,
        };
        call.in_newer(index, wait.until_ms, find).await
    }

    /// Asks for the set, if that was not just done.
    fn wish(&self, call: Call<'_>) {
        if let Some(place) = self.keys.wish
            && call.shard.wishes().is_due(place, call.shard.io.clock().now_ms())
        {
            call.shard.wish(place);
        }
    }
}

fn outcome(identity: Result<Identity, Refusal>) -> Outcome {
    match identity {
        Ok(identity) => Outcome::Known(Rc::new(identity)),
        Err(refusal) => Outcome::Refused(refusal),
    }
}
