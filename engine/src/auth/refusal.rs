//! Why a caller is not let in, and what it is told.

use std::sync::Arc;

use contract::record::Reason;
use contract::snapshot::RouteAuth;

use super::registry::{Kind, Registry};
use crate::local_reply::LocalReply;

/// Values of `WWW-Authenticate`.
pub type Challenges = Arc<[Box<[u8]>]>;

/// Why a caller is not let in. What exactly was wrong with a credential is nobody's business but the
/// record's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No credential: 401.
    Missing,
    /// A credential that is not good: 401.
    Invalid,
    /// The same, of a service that says how to do better: 401 with its challenges.
    Challenged(Challenges),
    /// More than one where there must be one: 400 (RFC 6750 §3.1).
    Ambiguous,
    /// Known, but without a scope that this needs: 403.
    Scope,
    /// Known, but not allowed to do this: 403.
    Forbidden,
    /// Too many failures, so many seconds to wait: 429.
    Throttled(u32),
    /// Whoever knows cannot be asked: 503. Never a reason to let someone in.
    Unavailable,
}

impl Refusal {
    /// Of two authenticators' refusals the one to tell: that someone could not be asked goes before
    /// that the credential is wrong, as it may be right.
    pub fn graver(one: Option<Refusal>, two: Refusal) -> Refusal {
        let weight = |refusal: &Refusal| match refusal {
            Refusal::Missing => 0,
            Refusal::Invalid => 1,
            Refusal::Challenged(_) => 2,
            Refusal::Scope | Refusal::Forbidden => 3,
            Refusal::Unavailable => 4,
            Refusal::Throttled(_) => 5,
            Refusal::Ambiguous => 6,
        };
        match one {
            Some(one) if weight(&one) >= weight(&two) => one,
            _ => two,
        }
    }

    fn status(&self) -> (u16, Reason) {
        match self {
            Refusal::Missing => (401, Reason::CredentialMissing),
            Refusal::Invalid | Refusal::Challenged(_) => (401, Reason::CredentialInvalid),
            Refusal::Ambiguous => (400, Reason::CredentialAmbiguous),
            Refusal::Scope => (403, Reason::ScopeMissing),
            Refusal::Forbidden => (403, Reason::Forbidden),
            Refusal::Throttled(_) => (429, Reason::AuthThrottled),
            Refusal::Unavailable => (503, Reason::AuthUnavailable),
        }
    }

    /// The answer; its challenges, one for each scheme that the route takes (RFC 9110 §11.6.1), go to
    /// `fields`.
    pub fn reply(
        &self,
        registry: &Registry,
        rules: &RouteAuth,
        fields: &mut Vec<(&'static str, Vec<u8>)>,
    ) -> LocalReply {
        let (status, reason) = self.status();
        match self {
            Refusal::Unavailable => fields.push(("Retry-After", b"1".to_vec())),
            Refusal::Throttled(wait_s) => {
                fields.push(("Retry-After", wait_s.to_string().into_bytes()));
            }
            Refusal::Forbidden => {}
            _ => self.challenge(registry, rules, fields),
        }
        LocalReply::new(status, reason)
    }

    fn challenge(
        &self,
        registry: &Registry,
        rules: &RouteAuth,
        fields: &mut Vec<(&'static str, Vec<u8>)>,
    ) {
        let mut seen: Vec<Vec<u8>> = match self {
            Refusal::Challenged(challenges) => challenges.iter().map(|one| one.to_vec()).collect(),
            _ => Vec::new(),
        };
        for authenticator in registry.of(rules) {
            let challenge = self.challenge_of(&authenticator.kind, rules);
            if !challenge.is_empty() && !seen.contains(&challenge) {
                seen.push(challenge);
            }
        }
        // A 401 has one (RFC 9110 §15.5.2), though nobody can answer these.
        if seen.is_empty() && self.status().0 == 401 {
            seen.push(b"Sluice realm=\"sluice\"".to_vec());
        }
        fields.extend(seen.into_iter().map(|value| ("WWW-Authenticate", value)));
    }

    /// RFC 6750 §3, RFC 7617 §2. Client certificates have no scheme.
    fn challenge_of(&self, kind: &Kind, rules: &RouteAuth) -> Vec<u8> {
        let scheme = kind.scheme();
        let mut out = scheme.as_bytes().to_vec();
        let error = match self {
            Refusal::Invalid | Refusal::Challenged(_) => "invalid_token",
            Refusal::Ambiguous => "invalid_request",
            Refusal::Scope => "insufficient_scope",
            _ => return out,
        };
        if scheme.starts_with("Bearer") {
            out.extend_from_slice(b", error=\"");
            out.extend_from_slice(error.as_bytes());
            out.push(b'"');
            if *self == Refusal::Scope {
                out.extend_from_slice(b", scope=\"");
                out.extend_from_slice(rules.scopes.join(" ").as_bytes());
                out.push(b'"');
            }
        }
        out
    }
}
