//! Who calls, in the snapshot: names become indexes, groups are merged into their members, secrets and
//! keys come from files and from providers.

use std::collections::{BTreeSet, HashMap};

use contract::snapshot as flat;
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};

use super::identities::{Identities, NOTHING};
use super::providers::Providers;
use super::{Inputs, cidrs};
use crate::spec::{
    AuthenticatorKind, CertificateMatch, Consumer, Cors, CredentialSource, Group, KeyStore,
    Networks, Origins, Redis, RouteAuth, Spec, Unidentified,
};

/// Where things of authentication stand, by their name.
#[derive(Default)]
pub(super) struct Places<'s> {
    authenticators: HashMap<&'s str, u32>,
    consumers: HashMap<&'s str, u32>,
}

impl<'s> Places<'s> {
    pub(super) fn new(spec: &'s Spec) -> Places<'s> {
        let authenticators = spec.authenticators.iter().map(|one| one.name.as_str());
        let consumers = spec.consumers.iter().map(|one| one.name.as_str());
        Places {
            authenticators: authenticators.zip(0..).collect(),
            consumers: consumers.zip(0..).collect(),
        }
    }
}

/// All but [`flat::Auth::version`].
pub(super) fn auth<'m>(
    spec: &Spec,
    places: &Places<'_>,
    inputs: &Inputs<'m>,
    identities: &mut Identities<'m>,
) -> flat::Auth {
    let redis = spec.redis.as_ref().map(|one| redis(one, inputs, identities));
    let mut providers = Providers::new(spec, inputs, identities);
    let authenticators = spec.authenticators.iter().map(|one| flat::Authenticator {
        name: one.name.clone(),
        kind: kind(&one.name, &one.kind, &mut providers),
    });
    let authenticators = authenticators.collect();
    let groups: HashMap<&str, &Group> =
        spec.groups.iter().map(|one| (one.name.as_str(), one)).collect();
    flat::Auth {
        version: 0,
        consumers: match inputs.before.and_then(|one| one.consumers(spec, inputs.material)) {
            Some(known) => known.clone(),
            None => {
                spec.consumers.iter().map(|one| consumer(one, &groups, places, inputs)).collect()
            }
        },
        key_sets: providers.key_sets,
        authenticators,
        redis,
        throttle: flat::Throttle {
            failures: spec.auth.throttle.failures,
            window_ms: spec.auth.throttle.window_ms,
        },
    }
}

/// Eight bytes of a hash over the rest of `auth`, and over the certificates and trust that it names.
pub(super) fn version(
    auth: &flat::Auth,
    identities: &Identities<'_>,
    before: Option<&flat::Auth>,
) -> u64 {
    if auth.authenticators.is_empty() {
        return 0;
    }
    let (certificates, trust) = named(auth);
    let bare = flat::Auth { version: 0, ..auth.clone() };
    // Over many consumers it takes a while.
    if let Some(before) = before
        && certificates.is_empty()
        && trust.is_empty()
        && bare == (flat::Auth { version: 0, ..before.clone() })
    {
        return before.version;
    }
    let mut hash = Context::new(&SHA256);
    hash.update(&flat::Snapshot { auth: bare, ..flat::Snapshot::default() }.encode());
    let mut blob = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for certificate in certificates.iter().filter_map(|at| identities.certificates.get(*at)) {
        certificate.chain.iter().for_each(|der| blob(der));
        blob(&certificate.key);
    }
    for trust in trust.iter().filter_map(|at| identities.trust.get(*at)) {
        trust.roots.iter().chain(&trust.crls).for_each(|der| blob(der));
    }
    let digest = hash.finish();
    let first = digest.as_ref().first_chunk::<8>().copied().unwrap_or_default();
    // 0 says that there is nothing.
    u64::from_le_bytes(first).max(1)
}

/// Indexes of the certificates and of the trust that `auth` names.
fn named(auth: &flat::Auth) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let mut certificates = BTreeSet::new();
    let mut trust: BTreeSet<usize> =
        auth.redis.iter().filter_map(|redis| redis.trust).map(|at| at as usize).collect();
    for one in &auth.authenticators {
        let (endpoint, client) = match &one.kind {
            flat::AuthenticatorKind::Introspection(one) => (&one.endpoint, Some(&one.client)),
            flat::AuthenticatorKind::Login(login) => (&login.token, Some(&login.client)),
            flat::AuthenticatorKind::External(external) => (&external.endpoint, None),
            _ => continue,
        };
        trust.extend(endpoint.trust.map(|at| at as usize));
        if let Some(flat::ClientProof::Tls { identity }) = client.map(|client| &client.proof) {
            certificates.insert(*identity as usize);
        }
    }
    (certificates, trust)
}

fn kind(
    name: &str,
    kind: &AuthenticatorKind,
    providers: &mut Providers<'_, '_, '_>,
) -> flat::AuthenticatorKind {
    match kind {
        AuthenticatorKind::ApiKey(keys) => flat::AuthenticatorKind::ApiKey(flat::ApiKeys {
            from: sources(&keys.from),
            store: match &keys.store {
                KeyStore::Embedded => flat::KeyStore::Embedded,
                KeyStore::Redis(keys) => flat::KeyStore::Redis(flat::RedisKeys {
                    prefix: keys.prefix.clone(),
                    cache_ms: keys.cache_ms,
                    negative_ms: keys.negative_ms,
                    grace_ms: keys.grace_ms,
                    timeout_ms: keys.timeout_ms,
                }),
            },
        }),
        AuthenticatorKind::Jwt(jwt) => flat::AuthenticatorKind::Jwt(Box::new(providers.jwt(jwt))),
        AuthenticatorKind::Introspection(one) => {
            flat::AuthenticatorKind::Introspection(Box::new(providers.introspection(one)))
        }
        AuthenticatorKind::Login(login) => {
            flat::AuthenticatorKind::Login(Box::new(providers.login(name, login)))
        }
        AuthenticatorKind::Certificate(certificates) => {
            flat::AuthenticatorKind::Certificate(flat::Certificates {
                consumer_required: certificates.consumer_required,
            })
        }
        AuthenticatorKind::Basic(basic) => {
            flat::AuthenticatorKind::Basic(flat::Basic { realm: basic.realm.clone() })
        }
        AuthenticatorKind::Signature(signature) => {
            flat::AuthenticatorKind::Signature(flat::Signature {
                components: signature.components.clone(),
                max_age_s: signature.max_age_s,
            })
        }
        AuthenticatorKind::External(external) => {
            flat::AuthenticatorKind::External(Box::new(flat::External {
                endpoint: providers.endpoint(Some(&external.url), &external.fetch),
                send: external.send.clone(),
                take: external.take.clone(),
                consumer_header: external.consumer_header.clone(),
                cache_ms: external.cache_ms,
            }))
        }
    }
}

pub(super) fn sources(list: &[CredentialSource]) -> Vec<flat::CredentialSource> {
    let source = |source: &CredentialSource| match source {
        CredentialSource::Bearer => flat::CredentialSource::Header {
            name: "authorization".into(),
            scheme: Some("Bearer".into()),
        },
        CredentialSource::Header { name, scheme } => {
            flat::CredentialSource::Header { name: name.clone(), scheme: scheme.clone() }
        }
        CredentialSource::Query(name) => flat::CredentialSource::Query(name.clone()),
        CredentialSource::Cookie(name) => flat::CredentialSource::Cookie(name.clone()),
    };
    list.iter().map(source).collect()
}

fn consumer(
    consumer: &Consumer,
    groups: &HashMap<&str, &Group>,
    places: &Places<'_>,
    inputs: &Inputs<'_>,
) -> flat::Consumer {
    let own: Vec<&Group> =
        consumer.groups.iter().filter_map(|name| groups.get(name.as_str()).copied()).collect();
    let scopes = consumer.scopes.iter().chain(own.iter().flat_map(|group| &group.scopes));
    let limits =
        consumer.limits.as_ref().or_else(|| own.iter().find_map(|group| group.limits.as_ref()));
    flat::Consumer {
        name: consumer.name.clone(),
        groups: consumer.groups.clone(),
        scopes: sorted(scopes),
        limits: limits.cloned(),
        api_keys: consumer
            .api_keys
            .iter()
            .map(|key| flat::ApiKey {
                digest: key.sha256.0,
                prefix: key.prefix.clone().unwrap_or_else(|| {
                    HEXLOWER.encode(key.sha256.0.first_chunk::<4>().unwrap_or(&[0; 4]))
                }),
                expires_ms: key.expires.map_or(0, |time| u64::from(time.0) * 1_000),
                scopes: key.scopes.as_ref().map(|scopes| sorted(scopes.iter())),
                limits: key.limits.clone(),
            })
            .collect(),
        passwords: consumer
            .passwords
            .iter()
            .map(|one| flat::Password { username: one.username.clone(), hash: one.hash.clone() })
            .collect(),
        certificates: consumer.certificates.iter().map(certificate).collect(),
        signing_keys: consumer
            .signing_keys
            .iter()
            .map(|key| flat::SigningKey {
                id: key.id.clone(),
                // An empty one is refused when the snapshot is decoded.
                secret: inputs.material.secret(&key.secret).unwrap_or_default().to_vec(),
            })
            .collect(),
        subjects: consumer
            .subjects
            .iter()
            .map(|subject| flat::Subject {
                authenticator: *places
                    .authenticators
                    .get(subject.authenticator.as_str())
                    .unwrap_or(&NOTHING),
                value: subject.value.clone(),
            })
            .collect(),
    }
}

fn sorted<'t>(texts: impl Iterator<Item = &'t String>) -> Vec<String> {
    texts.collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

fn certificate(one: &CertificateMatch) -> flat::CertificateMatch {
    let pattern = |text: &String| match text.contains('*') {
        true => flat::NamePattern::Glob(text.clone()),
        false => flat::NamePattern::Exact(text.clone()),
    };
    match one {
        CertificateMatch::Dns(name) => flat::CertificateMatch::Dns(pattern(name)),
        CertificateMatch::Uri(name) => flat::CertificateMatch::Uri(pattern(name)),
        CertificateMatch::Cn(name) => flat::CertificateMatch::CommonName(pattern(name)),
        CertificateMatch::Email(name) => flat::CertificateMatch::Email(pattern(name)),
        CertificateMatch::Sha256(digest) => flat::CertificateMatch::Fingerprint(digest.0),
    }
}

fn redis(redis: &Redis, inputs: &Inputs<'_>, identities: &mut Identities<'_>) -> flat::Redis {
    let password = redis.password.as_ref().map(|secret| inputs.material.text(secret));
    let user = match (&redis.username, password) {
        (None, None) => String::new(),
        (name, password) => {
            let name = name.as_deref().map(escaped).unwrap_or_default();
            format!("{name}:{}@", password.flatten().map(escaped).unwrap_or_default())
        }
    };
    let url = |url: &String| match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{user}{rest}"),
        None => url.clone(),
    };
    let trust = redis.ca.as_ref().map(|ca| identities.trust(Some(ca.clone()), None));
    flat::Redis {
        urls: redis.urls.iter().map(url).collect(),
        cluster: redis.cluster,
        sentinel: redis.sentinel.clone(),
        limits_timeout_ms: redis.limits_timeout_ms,
        // Without its password it must not be asked at all.
        trust: if password == Some(None) { Some(NOTHING) } else { trust },
    }
}

/// Percent-encoded (RFC 3986 §2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

pub(super) fn route_auth(auth: &RouteAuth, places: &Places<'_>) -> flat::RouteAuth {
    let index = |map: &HashMap<&str, u32>, name: &String| {
        map.get(name.as_str()).copied().unwrap_or(NOTHING)
    };
    flat::RouteAuth {
        authenticators: auth
            .authenticators
            .iter()
            .map(|name| index(&places.authenticators, name))
            .collect(),
        all: auth.all,
        unidentified: match &auth.unidentified {
            Unidentified::Refuse => flat::Unidentified::Refuse,
            Unidentified::Pass => flat::Unidentified::Pass,
            Unidentified::As(name) => flat::Unidentified::As(index(&places.consumers, name)),
        },
        scopes: auth.scopes.clone(),
        groups: auth.groups.clone(),
        policy: auth.policy.clone(),
        hide_credentials: auth.hide_credentials,
    }
}

pub(super) fn networks(networks: &Networks) -> flat::Networks {
    flat::Networks { allow: cidrs(&networks.allow), deny: cidrs(&networks.deny) }
}

pub(super) fn cors(cors: &Cors) -> flat::Cors {
    flat::Cors {
        origins: match &cors.origins {
            Origins::Any => flat::Origins::Any,
            Origins::Listed(list) => flat::Origins::Listed(list.clone()),
        },
        methods: cors.methods.clone(),
        headers: cors.headers.clone(),
        expose: cors.expose.clone(),
        credentials: cors.credentials,
        max_age_s: cors.max_age_s,
        private_network: cors.private_network,
    }
}
