//! Keys that tokens are verified with, and what providers say of themselves.
//!
//! What comes over the network is gathered beside the spec and handed to [`crate::compile`] as
//! [`Fetched`], so that compiling stays a function of its arguments.

mod fetch;
pub mod jwk;
#[cfg(test)]
mod origin;
mod providers;
mod reach;
mod recover;

use std::collections::HashMap;

use contract::snapshot::{JwsAlgorithm, VerifyKey};

pub use providers::{ProviderState, Providers};
pub use recover::recover;

use crate::spec::{
    AuthenticatorKind, Discovery, Fetch, IntrospectionEndpoint, KeySource, Spec, TokenEndpoint,
};

/// What a fetched set's keys may be for at most: all but the symmetric algorithms, since whoever can
/// read the set could sign with its keys.
pub const REMOTE_ALGORITHMS: [JwsAlgorithm; 10] = [
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

/// What has been fetched so far, by the URL of its [`Source`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Key sets, parsed with [`REMOTE_ALGORITHMS`]; compiling narrows them to what an authenticator
    /// allows. Of a discovered set the URL is that of the discovery document.
    pub sets: HashMap<String, Vec<VerifyKey>>,
    /// What discovery documents say, by their URL.
    pub metadata: HashMap<String, Metadata>,
}

/// A provider's metadata (OpenID Connect Discovery 1.0 §3, RFC 8414 §2). Its issuer has been compared
/// with the one that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pub issuer: String,
    pub jwks_uri: Option<String>,
    pub introspection_endpoint: Option<String>,
    pub authorization_endpoint: Option<String>,
    pub token_endpoint: Option<String>,
    pub end_session_endpoint: Option<String>,
}

/// Something to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Of a key set or of a discovery document; unique among the sources of a spec.
    pub url: String,
    pub kind: SourceKind,
    /// Trust, time-out, and which addresses may be asked.
    pub fetch: Fetch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A JWK Set.
    Keys,
    /// A discovery document.
    Discovery {
        /// What its `issuer` has to be; `None`: anything.
        issuer: Option<String>,
        /// Somebody needs the key set that its `jwks_uri` names.
        keys: bool,
    },
}

/// What `spec` needs from the network, each once. A key set's place in this list is its place among the
/// wishes of shards.
pub fn sources(spec: &Spec) -> Vec<Source> {
    let mut list: Vec<Source> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for Demand { url, kind, fetch, .. } in demands(spec) {
        match places.get(&url).and_then(|at| list.get_mut(*at)) {
            None => {
                places.insert(url.clone(), list.len());
                list.push(Source { url, kind, fetch: fetch.clone() });
            }
            Some(Source { kind: SourceKind::Discovery { issuer, keys }, .. }) => {
                if let SourceKind::Discovery { issuer: also, keys: wanted } = kind {
                    *keys |= wanted;
                    *issuer = issuer.take().or(also);
                }
            }
            Some(_) => {}
        }
    }
    list
}

/// A source as one thing of the spec needs it.
pub(crate) struct Demand<'s> {
    pub field: String,
    pub url: String,
    pub kind: SourceKind,
    pub fetch: &'s Fetch,
}

/// What `spec` needs from the network, once for each thing that needs it.
pub(crate) fn demands(spec: &Spec) -> Vec<Demand<'_>> {
    let mut list = Vec::new();
    for (at, authenticator) in spec.authenticators.iter().enumerate() {
        let path = format!("authenticators[{at}].{}", authenticator.kind.word());
        match &authenticator.kind {
            AuthenticatorKind::Jwt(jwt) => {
                list.extend(set(&path, &jwt.keys, jwt.issuer.as_option(), &jwt.fetch));
            }
            AuthenticatorKind::Login(login) => {
                list.extend(set(&path, &login.keys, Some(&login.issuer), &login.fetch));
            }
            AuthenticatorKind::Introspection(one) => {
                if let IntrospectionEndpoint::Discovery(at) = &one.endpoint {
                    let issuer = one.issuer.as_option();
                    list.extend(document(&path, at, issuer, false, &one.fetch));
                }
            }
            _ => {}
        }
    }
    for (at, upstream) in spec.upstreams.iter().enumerate() {
        if let Some(credentials) = &upstream.credentials
            && let TokenEndpoint::Discovery(url) = &credentials.endpoint
        {
            let path = format!("upstreams[{at}].credentials");
            let at = Discovery::At(url.clone());
            list.extend(document(&path, &at, None, false, &credentials.fetch));
        }
    }
    list
}

fn set<'s>(
    path: &str,
    keys: &KeySource,
    issuer: Option<&String>,
    fetch: &'s Fetch,
) -> Option<Demand<'s>> {
    match keys {
        KeySource::Discovery(at) => document(path, at, issuer, true, fetch),
        KeySource::JwksUrl(url) => Some(Demand {
            field: format!("{path}.jwks_url"),
            url: url.clone(),
            kind: SourceKind::Keys,
            fetch,
        }),
        KeySource::JwksFile(_) | KeySource::Keys(_) => None,
    }
}

fn document<'s>(
    path: &str,
    at: &Discovery,
    issuer: Option<&String>,
    keys: bool,
    fetch: &'s Fetch,
) -> Option<Demand<'s>> {
    Some(Demand {
        field: format!("{path}.discovery"),
        url: at.url(issuer.map(String::as_str))?,
        kind: SourceKind::Discovery { issuer: issuer.cloned(), keys },
        fetch,
    })
}
