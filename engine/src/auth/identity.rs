//! Who a caller was found to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contract::snapshot::ConsumerIndex;

use super::ContentDigest;
use crate::message::HeadWriter;

/// Fields for upstreams, with names in lower case.
pub type Fields = Arc<[(Box<str>, Box<[u8]>)]>;

/// What all authenticators end in. Shared by the requests of one credential.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// In the registry that found it; `None`: known, but no consumer of ours.
    pub consumer: Option<ConsumerIndex>,
    /// The consumer's name, else what the authenticator calls the caller (`sub`, a certificate's name).
    pub id: Arc<str>,
    pub groups: Arc<[Box<str>]>,
    /// Sorted.
    pub scopes: Arc<[Box<str>]>,
    /// Claims of a token, for policies.
    pub claims: Option<Arc<serde_json::Map<String, serde_json::Value>>>,
    /// Name of the limit policy.
    pub limits: Option<Arc<str>>,
    /// The credential's name, no secret: a key's prefix, a token's `jti`, a certificate's serial.
    pub credential: Option<Arc<str>>,
    /// What upstreams are told beside that.
    pub fields: Fields,
    /// What the client is told with the answer, such as a cookie in place of the one it has.
    pub answer: Arc<[(&'static str, Vec<u8>)]>,
    /// What the body has to be, where a signature covers that.
    pub content: Option<Box<ContentDigest>>,
    /// SHA-256 of the certificate that the credential is bound to.
    pub certificate: Option<[u8; 32]>,
    /// It goes by the anonymous consumer.
    pub anonymous: bool,
    /// Until when this may be remembered, in milliseconds since the Unix epoch; 0: not at all.
    pub until_ms: u64,
    /// Until when it is believed without a question; then the authenticator is asked again, and may go
    /// on with what was known. 0: as `until_ms`.
    pub fresh_ms: u64,
    /// Turned on, by whoever learns of it, when the credential was revoked or changed.
    pub revoked: Option<Arc<AtomicBool>>,
}

impl Identity {
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.binary_search_by(|have| (**have).cmp(scope)).is_ok()
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|have| **have == *group)
    }

    /// Whether this says what the field `name` may only say by it.
    pub fn tells(&self, name: &[u8]) -> bool {
        self.fields.iter().any(|(own, _)| own.as_bytes().eq_ignore_ascii_case(name))
    }

    /// What upstreams are told. `authorizes`: also by what credential, where there is something to say.
    pub fn write(&self, out: &mut HeadWriter<'_>, authorizes: bool) {
        // A service may let someone in without saying who it is.
        if !self.id.is_empty() {
            out.field(b"X-Consumer-Id", self.id.as_bytes());
        }
        if self.anonymous {
            out.field(b"X-Consumer-Anonymous", b"true");
        }
        if !self.groups.is_empty() {
            out.field_of(b"X-Consumer-Groups", |out| {
                for (at, group) in self.groups.iter().enumerate() {
                    if at > 0 {
                        out.extend_from_slice(b",");
                    }
                    write_item(out, group);
                }
            });
        }
        if let Some(credential) = &self.credential {
            out.field(b"X-Consumer-Credential", credential.as_bytes());
        }
        let told = |name: &str| authorizes || !name.eq_ignore_ascii_case("authorization");
        for (name, value) in self.fields.iter().filter(|(name, _)| told(name)) {
            out.field(name.as_bytes(), value);
        }
    }

    pub fn is_revoked(&self) -> bool {
        self.revoked.as_ref().is_some_and(|revoked| revoked.load(Ordering::Relaxed))
    }

    /// The same caller by two credentials: what both say together. `None` where they are of different
    /// callers.
    pub fn with(&self, other: &Identity) -> Option<Identity> {
        if let (Some(one), Some(two)) = (self.consumer, other.consumer)
            && one != two
        {
            return None;
        }
        let named = if self.consumer.is_some() || other.consumer.is_none() { self } else { other };
        let union = |one: &[Box<str>], two: &[Box<str>]| {
            let mut all: Vec<Box<str>> = one.iter().chain(two).cloned().collect();
            all.sort();
            all.dedup();
            Arc::from(all)
        };
        // What one credential narrows the other must not widen: only scopes of both count, but a
        // credential that says nothing of scopes does not narrow them.
        let scopes: Arc<[Box<str>]> = match (self.scopes.is_empty(), other.scopes.is_empty()) {
            (true, _) => other.scopes.clone(),
            (_, true) => self.scopes.clone(),
            _ => self.scopes.iter().filter(|scope| other.has_scope(scope)).cloned().collect(),
        };
        Some(Identity {
            consumer: named.consumer,
            id: named.id.clone(),
            groups: union(&self.groups, &other.groups),
            scopes,
            claims: self.claims.clone().or_else(|| other.claims.clone()),
            limits: self.limits.clone().or_else(|| other.limits.clone()),
            credential: self.credential.clone().or_else(|| other.credential.clone()),
            fields: self.fields.iter().chain(other.fields.iter()).cloned().collect(),
            answer: self.answer.iter().chain(other.answer.iter()).cloned().collect(),
            // Both signatures cover one field.
            content: self.content.clone().or_else(|| other.content.clone()),
            certificate: None,
            anonymous: false,
            until_ms: 0,
            fresh_ms: 0,
            revoked: None,
        })
    }
}

/// One item of a list: a comma in it would make two of it, which a group may not be made of.
fn write_item(out: &mut Vec<u8>, item: &str) {
    for byte in item.bytes() {
        match byte {
            b',' => out.extend_from_slice(b"%2C"),
            b'%' => out.extend_from_slice(b"%25"),
            byte => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_with_a_comma_stays_one_group() {
        let mut out = Vec::new();
        write_item(&mut out, "cn=staff,ou=50%");
        assert_eq!(out, b"cn=staff%2Cou=50%25");
    }
}
