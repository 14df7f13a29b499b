//! Tokens, and the services that are asked, in the snapshot.

use std::collections::HashMap;

use contract::encode::MAX_WISHES;
use contract::snapshot as flat;
use ring::hmac;

use super::Inputs;
use super::callers::sources;
use super::identities::{Identities, NOTHING};
use crate::keys::{self, Metadata, jwk};
use crate::material::seal;
use crate::spec::{
    ClaimRule, ClaimTest, Claims, ClientCredentials, ClientProof, Discovery, Fetch, Introspection,
    IntrospectionEndpoint, JwsAlgorithm, Jwt, KeySource, Login, OAuthClient, OrAny, Spec,
    StaticKey, StaticMaterial, TokenEndpoint,
};

/// Compiles what concerns others, and gathers the key sets.
pub(super) struct Providers<'i, 'm, 'c> {
    inputs: &'i Inputs<'m>,
    identities: &'c mut Identities<'m>,
    /// Places of what is fetched among the wishes of shards, by its URL.
    wishes: HashMap<String, u32>,
    pub(super) key_sets: Vec<flat::KeySet>,
}

impl<'i, 'm, 'c> Providers<'i, 'm, 'c> {
    pub(super) fn new(
        spec: &Spec,
        inputs: &'i Inputs<'m>,
        identities: &'c mut Identities<'m>,
    ) -> Providers<'i, 'm, 'c> {
        let sources = keys::sources(spec).into_iter().map(|source| source.url);
        let wishes = sources.zip(0..).take(MAX_WISHES).collect();
        Providers { inputs, identities, wishes, key_sets: Vec::new() }
    }

    pub(super) fn jwt(&mut self, jwt: &Jwt) -> flat::Jwt {
        let issuer = jwt.issuer.as_option();
        flat::Jwt {
            tokens: flat::Tokens {
                from: sources(&jwt.from),
                bound_only: jwt.bound_only,
                ..tokens(issuer, &jwt.audiences, &jwt.claims)
            },
            keys: self.key_set(&jwt.keys, issuer, &jwt.algorithms),
            max_lifetime_s: jwt.max_lifetime_s,
            allow_endless: jwt.allow_endless,
            access_token: jwt.access_token,
        }
    }

    pub(super) fn introspection(&mut self, one: &Introspection) -> flat::Introspection {
        let issuer = one.issuer.as_option();
        let url = match &one.endpoint {
            IntrospectionEndpoint::Url(url) => Some(url.clone()),
            IntrospectionEndpoint::Discovery(at) => {
                self.discovered(at, issuer).and_then(|found| found.introspection_endpoint.clone())
            }
        };
        flat::Introspection {
            tokens: flat::Tokens {
                from: sources(&one.from),
                bound_only: one.bound_only,
                ..tokens(issuer, &one.audiences, &one.claims)
            },
            endpoint: self.endpoint(url.as_ref(), &one.fetch),
            client: self.client(&one.client),
            cache_ms: one.cache_ms,
            negative_ms: one.negative_ms,
        }
    }

    pub(super) fn login(&mut self, name: &str, login: &Login) -> flat::Login {
        let issuer = Some(&login.issuer);
        let found = match &login.keys {
            KeySource::Discovery(at) => self.discovered(at, issuer).cloned(),
            _ => None,
        };
        let found = found.unwrap_or_default();
        // OpenID Connect Core 1.0 §2: an identity token is for who asked for it.
        let own = OrAny::Some(vec![login.client.id.clone()]);
        let token_url = login.token_url.as_ref().or(found.token_endpoint.as_ref());
        let authorization_url = login.authorization_url.clone().or(found.authorization_endpoint);
        let end_session_url = login.end_session_url.clone().or(found.end_session_endpoint);
        flat::Login {
            tokens: tokens(issuer, login.audiences.as_ref().unwrap_or(&own), &login.claims),
            keys: self.key_set(&login.keys, issuer, &login.algorithms),
            client: self.client(&login.client),
            authorization_url: authorization_url.unwrap_or_default(),
            token: self.endpoint(token_url, &login.fetch),
            end_session_url: end_session_url.unwrap_or_default(),
            scopes: login.scopes.clone(),
            callback_path: login.callback_path.clone(),
            logout_path: login.logout_path.clone(),
            after_logout: login.after_logout.clone(),
            cookie: login.cookie.clone(),
            cookie_keys: self.cookie_keys(name, login),
            lifetime_s: login.lifetime_s,
            forward_token: login.forward_token,
        }
    }

    /// The login's own keys, or some of this node: each login has others, so that a session of one is
    /// none of another.
    fn cookie_keys(&self, name: &str, login: &Login) -> Vec<[u8; 32]> {
        if login.cookie_keys.is_empty() {
            let own = |key: &[u8; 32]| {
                let key = hmac::Key::new(hmac::HMAC_SHA256, key);
                let tag = hmac::sign(&key, format!("sluice login cookie {name}").as_bytes());
                tag.as_ref().try_into().unwrap_or([0; 32])
            };
            return self.inputs.cookie_keys.iter().map(own).collect();
        }
        let given = login.cookie_keys.iter().map(|key| self.inputs.material.secret(key));
        // Without one of them there are none, which is refused when the snapshot is decoded.
        given.map(|secret| secret.and_then(seal)).collect::<Option<_>>().unwrap_or_default()
    }

    pub(super) fn endpoint(&mut self, url: Option<&String>, fetch: &Fetch) -> flat::Endpoint {
        flat::Endpoint {
            url: url.cloned().unwrap_or_default(),
            trust: fetch.ca.as_ref().map(|ca| self.identities.trust(Some(ca.clone()), None)),
            allow_private: fetch.allow_private,
            timeout_ms: fetch.timeout_ms,
        }
    }

    /// The token that an upstream gets.
    pub(super) fn credentials(&mut self, one: &ClientCredentials) -> flat::ClientCredentials {
        let url = match &one.endpoint {
            TokenEndpoint::TokenUrl(url) => Some(url.clone()),
            TokenEndpoint::Discovery(url) => self
                .discovered(&Discovery::At(url.clone()), None)
                .and_then(|found| found.token_endpoint.clone()),
        };
        flat::ClientCredentials {
            endpoint: self.endpoint(url.as_ref(), &one.fetch),
            client: self.client(&one.client),
            scopes: one.scopes.clone(),
            audience: one.audience.clone(),
        }
    }

    fn client(&mut self, client: &OAuthClient) -> flat::OAuthClient {
        // Points at nothing, so that the snapshot is refused when it is decoded: without what proves
        // who we are nobody would answer.
        const UNPROVED: flat::ClientProof = flat::ClientProof::Tls { identity: NOTHING };
        let material = self.inputs.material;
        let proof = match &client.proof {
            ClientProof::None => flat::ClientProof::None,
            ClientProof::Basic(secret) => match material.text(secret) {
                Some(secret) => flat::ClientProof::Basic(secret.into()),
                None => UNPROVED,
            },
            ClientProof::Post(secret) => match material.text(secret) {
                Some(secret) => flat::ClientProof::Post(secret.into()),
                None => UNPROVED,
            },
            ClientProof::PrivateKeyJwt { key, kid } => match material.private_key(key) {
                Some(key) => flat::ClientProof::PrivateKeyJwt { key: key.into(), kid: kid.clone() },
                None => UNPROVED,
            },
            ClientProof::Tls { cert, key } => {
                flat::ClientProof::Tls { identity: self.identities.certificate(cert, key) }
            }
        };
        flat::OAuthClient { id: client.id.clone(), proof }
    }

    fn discovered(&self, at: &Discovery, issuer: Option<&String>) -> Option<&'m Metadata> {
        self.inputs.fetched.metadata.get(&at.url(issuer.map(String::as_str))?)
    }

    fn key_set(
        &mut self,
        source: &KeySource,
        issuer: Option<&String>,
        algorithms: &[JwsAlgorithm],
    ) -> flat::KeySetIndex {
        let allowed: Vec<flat::JwsAlgorithm> = algorithms.iter().copied().map(jws).collect();
        let set = match source {
            KeySource::Discovery(at) => {
                self.remote(at.url(issuer.map(String::as_str)).unwrap_or_default(), &allowed)
            }
            KeySource::JwksUrl(url) => self.remote(url.clone(), &allowed),
            KeySource::JwksFile(file) => {
                let keys = self.inputs.material.key_set(file);
                flat::KeySet {
                    source: file.clone(),
                    loaded: keys.is_some(),
                    wish: None,
                    keys: jwk::narrowed(keys.unwrap_or_default(), &allowed),
                }
            }
            KeySource::Keys(keys) => flat::KeySet {
                source: String::new(),
                loaded: true,
                wish: None,
                keys: keys.iter().map(|key| self.static_key(key)).collect(),
            },
        };
        self.key_sets.push(set);
        (self.key_sets.len() - 1) as u32
    }

    fn remote(&self, url: String, allowed: &[flat::JwsAlgorithm]) -> flat::KeySet {
        let keys = self.inputs.fetched.sets.get(&url);
        flat::KeySet {
            loaded: keys.is_some(),
            wish: self.wishes.get(&url).copied(),
            keys: jwk::narrowed(keys.map_or(&[][..], Vec::as_slice), allowed),
            source: url,
        }
    }

    fn static_key(&self, key: &StaticKey) -> flat::VerifyKey {
        let material = match &key.material {
            StaticMaterial::Secret(secret) => {
                self.inputs.material.secret(secret).map(|one| flat::KeyMaterial::Hmac(one.into()))
            }
            StaticMaterial::PublicKey(file) => self.inputs.material.public_key(file).cloned(),
        };
        flat::VerifyKey {
            kid: key.kid.clone(),
            algorithms: vec![jws(key.algorithm)],
            // An empty one is refused when the snapshot is decoded.
            material: material.unwrap_or(flat::KeyMaterial::Hmac(Vec::new())),
        }
    }
}

/// Without where they are.
fn tokens(
    issuer: Option<&String>,
    audiences: &OrAny<Vec<String>>,
    claims: &Claims,
) -> flat::Tokens {
    flat::Tokens {
        from: Vec::new(),
        issuer: issuer.cloned(),
        audiences: audiences.as_option().cloned().unwrap_or_default(),
        require: claims.require.iter().map(rule).collect(),
        scope_claims: claims.scope_claims.clone(),
        groups_claim: claims.groups_claim.clone(),
        consumer_claim: claims.consumer_claim.clone(),
        consumer_required: claims.consumer_required,
        claim_headers: claims
            .claim_headers
            .iter()
            .map(|(claim, name)| (claim.clone(), name.clone()))
            .collect(),
        bound_only: false,
        leeway_s: claims.leeway_s,
    }
}

fn rule(rule: &ClaimRule) -> flat::ClaimRule {
    flat::ClaimRule {
        claim: rule.claim.clone(),
        test: match &rule.test {
            ClaimTest::Present => flat::ClaimTest::Present,
            ClaimTest::OneOf(values) => flat::ClaimTest::OneOf(values.clone()),
            ClaimTest::Prefix(prefix) => flat::ClaimTest::Prefix(prefix.clone()),
        },
    }
}

/// An algorithm in the snapshot's words.
pub fn jws(algorithm: JwsAlgorithm) -> flat::JwsAlgorithm {
    match algorithm {
        JwsAlgorithm::Hs256 => flat::JwsAlgorithm::Hs256,
        JwsAlgorithm::Hs384 => flat::JwsAlgorithm::Hs384,
        JwsAlgorithm::Hs512 => flat::JwsAlgorithm::Hs512,
        JwsAlgorithm::Rs256 => flat::JwsAlgorithm::Rs256,
        JwsAlgorithm::Rs384 => flat::JwsAlgorithm::Rs384,
        JwsAlgorithm::Rs512 => flat::JwsAlgorithm::Rs512,
        JwsAlgorithm::Ps256 => flat::JwsAlgorithm::Ps256,
        JwsAlgorithm::Ps384 => flat::JwsAlgorithm::Ps384,
        JwsAlgorithm::Ps512 => flat::JwsAlgorithm::Ps512,
        JwsAlgorithm::Es256 => flat::JwsAlgorithm::Es256,
        JwsAlgorithm::Es384 => flat::JwsAlgorithm::Es384,
        JwsAlgorithm::Es512 => flat::JwsAlgorithm::Es512,
        JwsAlgorithm::EdDsa => flat::JwsAlgorithm::EdDsa,
    }
}
