//! What providers said before this control process, out of the snapshot that the engine serves.
//!
//! Control may end and begin again while a provider cannot be asked. The engine has its keys, and keeps
//! them.

use std::collections::HashMap;

use contract::snapshot::{self as flat, JwsAlgorithm, Snapshot, VerifyKey};

use super::{Fetched, Metadata};
use crate::spec::{
    AuthenticatorKind, Discovery, IntrospectionEndpoint, KeySource, Spec, TokenEndpoint,
};

/// What `snapshot`, compiled from `spec` or one like it, had fetched.
pub fn recover(spec: &Spec, snapshot: &Snapshot) -> Fetched {
    let mut before = Before { snapshot, fetched: Fetched::default() };
    let named: HashMap<&str, &flat::AuthenticatorKind> =
        snapshot.auth.authenticators.iter().map(|one| (one.name.as_str(), &one.kind)).collect();
    for one in &spec.authenticators {
        match (&one.kind, named.get(one.name.as_str())) {
            (AuthenticatorKind::Jwt(own), Some(flat::AuthenticatorKind::Jwt(flat))) => {
                before.keys(&own.keys, own.issuer.as_option(), flat.keys);
            }
            (AuthenticatorKind::Login(own), Some(flat::AuthenticatorKind::Login(flat))) => {
                before.keys(&own.keys, Some(&own.issuer), flat.keys);
                if let KeySource::Discovery(at) = &own.keys {
                    // What the spec says itself is not the provider's word.
                    let found = |own: &Option<String>, url: &String| {
                        Some(url.clone()).filter(|url| own.is_none() && !url.is_empty())
                    };
                    before.metadata(at, Some(&own.issuer), |known| {
                        let (own, known) = (&**own, known);
                        let authorization = found(&own.authorization_url, &flat.authorization_url);
                        let end = found(&own.end_session_url, &flat.end_session_url);
                        let token = found(&own.token_url, &flat.token.url);
                        known.authorization_endpoint =
                            known.authorization_endpoint.take().or(authorization);
                        known.end_session_endpoint = known.end_session_endpoint.take().or(end);
                        known.token_endpoint = known.token_endpoint.take().or(token);
                    });
                }
            }
            (
                AuthenticatorKind::Introspection(own),
                Some(flat::AuthenticatorKind::Introspection(flat)),
            ) => {
                if let IntrospectionEndpoint::Discovery(at) = &own.endpoint {
                    before.metadata(at, own.issuer.as_option(), |known| {
                        let url = Some(flat.endpoint.url.clone()).filter(|url| !url.is_empty());
                        known.introspection_endpoint = known.introspection_endpoint.take().or(url);
                    });
                }
            }
            _ => {}
        }
    }
    let upstreams: HashMap<&str, &flat::Upstream> =
        snapshot.upstreams.iter().map(|one| (one.name.as_str(), one)).collect();
    for one in &spec.upstreams {
        let flat = upstreams.get(one.name.as_str()).and_then(|flat| flat.credentials.as_ref());
        if let (Some(own), Some(flat)) = (&one.credentials, flat)
            && let TokenEndpoint::Discovery(url) = &own.endpoint
        {
            before.metadata(&Discovery::At(url.clone()), None, |known| {
                let url = Some(flat.endpoint.url.clone()).filter(|url| !url.is_empty());
                known.token_endpoint = known.token_endpoint.take().or(url);
            });
        }
    }
    before.fetched
}

struct Before<'s> {
    snapshot: &'s Snapshot,
    fetched: Fetched,
}

impl Before<'_> {
    fn keys(&mut self, source: &KeySource, issuer: Option<&String>, at: flat::KeySetIndex) {
        let url = match source {
            KeySource::Discovery(at) => at.url(issuer.map(String::as_str)),
            KeySource::JwksUrl(url) => Some(url.clone()),
            KeySource::JwksFile(_) | KeySource::Keys(_) => None,
        };
        let set = self.snapshot.auth.key_sets.get(at as usize);
        // The source of another spec's authenticator of that name says nothing of this one's.
        if let (Some(url), Some(set)) = (url, set)
            && set.loaded
            && set.source == url
        {
            let known = self.fetched.sets.entry(url).or_default();
            set.keys.iter().for_each(|key| add(known, key));
        }
    }

    fn metadata(
        &mut self,
        at: &Discovery,
        issuer: Option<&String>,
        fill: impl FnOnce(&mut Metadata),
    ) {
        let Some(url) = at.url(issuer.map(String::as_str)) else { return };
        let known = self.fetched.metadata.remove(&url);
        let mut known = known.unwrap_or_default();
        let nothing = Metadata::default();
        fill(&mut known);
        if known != nothing {
            // It was compared with the one that was asked for.
            known.issuer = issuer.cloned().unwrap_or(known.issuer);
            self.fetched.metadata.insert(url, known);
        }
    }
}

/// A key, as several authenticators have it: each for its own algorithms.
fn add(known: &mut Vec<VerifyKey>, key: &VerifyKey) {
    let same = |one: &&mut VerifyKey| one.kid == key.kid && one.material == key.material;
    match known.iter_mut().find(same) {
        Some(one) => {
            let all = one.algorithms.iter().chain(&key.algorithms).copied();
            let mut all: Vec<JwsAlgorithm> = all.collect();
            all.sort_unstable();
            all.dedup();
            one.algorithms = all;
        }
        None => known.push(key.clone()),
    }
}

#[cfg(test)]
mod tests;
