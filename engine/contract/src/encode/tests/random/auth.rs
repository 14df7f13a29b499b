//! Any consumers, keys and authenticators, and what routes ask of callers.

use super::super::*;
use super::{blob, cidr, index, text};
use proptest::collection::btree_set;
use proptest::option;

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..3)
}

fn sorted() -> impl Strategy<Value = Vec<String>> {
    btree_set(text(), 0..4).prop_map(|texts| texts.into_iter().collect())
}

fn pattern() -> impl Strategy<Value = NamePattern> {
    prop_oneof![text().prop_map(NamePattern::Exact), text().prop_map(NamePattern::Glob)]
}

fn certificate_match() -> impl Strategy<Value = CertificateMatch> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(CertificateMatch::Fingerprint),
        pattern().prop_map(CertificateMatch::CommonName),
        pattern().prop_map(CertificateMatch::Dns),
        pattern().prop_map(CertificateMatch::Uri),
        pattern().prop_map(CertificateMatch::Email),
    ]
}

fn api_key() -> impl Strategy<Value = ApiKey> {
    let narrowed = (option::of(sorted()), option::of(text()));
    (any::<[u8; 32]>(), text(), any::<u64>(), narrowed).prop_map(
        |(digest, prefix, expires_ms, (scopes, limits))| ApiKey {
            digest,
            prefix,
            expires_ms,
            scopes,
            limits,
        },
    )
}

fn consumer(authenticators: u32) -> impl Strategy<Value = Consumer> {
    let password = (text(), text()).prop_map(|(username, hash)| Password { username, hash });
    let signing_key = (text(), vec(any::<u8>(), 1..20));
    let signing_key = signing_key.prop_map(|(id, secret)| SigningKey { id, secret });
    let subject = (index(authenticators), text())
        .prop_map(|(authenticator, value)| Some(Subject { authenticator: authenticator?, value }));
    let who = (text(), texts(), sorted(), option::of(text()));
    let credentials = (
        vec(api_key(), 0..3),
        vec(password, 0..2),
        vec(certificate_match(), 0..3),
        vec(signing_key, 0..2),
        vec(subject, 0..3),
    );
    (who, credentials).prop_map(|((name, groups, scopes, limits), credentials)| {
        let (api_keys, passwords, certificates, signing_keys, subjects) = credentials;
        Consumer {
            name,
            groups,
            scopes,
            limits,
            api_keys,
            passwords,
            certificates,
            signing_keys,
            subjects: subjects.into_iter().flatten().collect(),
        }
    })
}

fn material() -> impl Strategy<Value = KeyMaterial> {
    let modulus = vec(any::<u8>(), 256..=300).prop_map(|mut modulus| {
        modulus[0] |= 0x80;
        modulus
    });
    let exponent = vec(any::<u8>(), 1..=5).prop_map(|mut exponent| {
        exponent[0] |= 2;
        exponent
    });
    let point = |len: usize| {
        vec(any::<u8>(), len).prop_map(|mut point| {
            point[0] = 4;
            point
        })
    };
    prop_oneof![
        (modulus, exponent).prop_map(|(modulus, exponent)| KeyMaterial::Rsa { modulus, exponent }),
        point(65).prop_map(KeyMaterial::P256),
        point(97).prop_map(KeyMaterial::P384),
        point(133).prop_map(KeyMaterial::P521),
        any::<[u8; 32]>().prop_map(KeyMaterial::Ed25519),
        vec(any::<u8>(), 32..=70).prop_map(KeyMaterial::Hmac),
    ]
}

fn key() -> impl Strategy<Value = VerifyKey> {
    (option::of(text()), material(), 1..=3usize).prop_map(|(kid, material, most)| {
        let suits = JwsAlgorithm::ALL.into_iter().filter(|algorithm| material.suits(*algorithm));
        VerifyKey { kid, algorithms: suits.take(most).collect(), material }
    })
}

fn key_set() -> impl Strategy<Value = KeySet> {
    let wish = option::of(0..MAX_WISHES as u32);
    (text(), any::<bool>(), wish, vec(key(), 0..3))
        .prop_map(|(source, loaded, wish, keys)| KeySet { source, loaded, wish, keys })
}

fn source() -> impl Strategy<Value = CredentialSource> {
    prop_oneof![
        (text(), option::of(text()))
            .prop_map(|(name, scheme)| CredentialSource::Header { name, scheme }),
        text().prop_map(CredentialSource::Query),
        text().prop_map(CredentialSource::Cookie),
    ]
}

fn tokens(sources: usize) -> impl Strategy<Value = Tokens> {
    let test = prop_oneof![
        Just(ClaimTest::Present),
        texts().prop_map(ClaimTest::OneOf),
        text().prop_map(ClaimTest::Prefix)
    ];
    let rule = (text(), test).prop_map(|(claim, test)| ClaimRule { claim, test });
    let asked = (option::of(text()), texts(), vec(rule, 0..3));
    let means = (texts(), option::of(text()), text(), vec((text(), text()), 0..2));
    let flags = any::<(bool, bool, u32)>();
    (vec(source(), sources..3), asked, means, flags).prop_map(|(from, asked, means, flags)| {
        let (issuer, audiences, require) = asked;
        let (scope_claims, groups_claim, consumer_claim, claim_headers) = means;
        let (consumer_required, bound_only, leeway_s) = flags;
        Tokens {
            from,
            issuer,
            audiences,
            require,
            scope_claims,
            groups_claim,
            consumer_claim,
            consumer_required,
            claim_headers,
            bound_only,
            leeway_s,
        }
    })
}

fn endpoint(trust: u32) -> impl Strategy<Value = Endpoint> {
    (text(), index(trust), any::<bool>(), any::<u32>()).prop_map(
        |(url, trust, allow_private, timeout_ms)| Endpoint {
            url,
            trust,
            allow_private,
            timeout_ms,
        },
    )
}

fn client(certificates: u32) -> impl Strategy<Value = OAuthClient> {
    let identity = index(certificates).prop_map(|identity| match identity {
        Some(identity) => ClientProof::Tls { identity },
        None => ClientProof::None,
    });
    let proof = prop_oneof![
        Just(ClientProof::None),
        text().prop_map(ClientProof::Basic),
        text().prop_map(ClientProof::Post),
        (blob(), option::of(text())).prop_map(|(key, kid)| ClientProof::PrivateKeyJwt { key, kid }),
        identity,
    ];
    (text(), proof).prop_map(|(id, proof)| OAuthClient { id, proof })
}

pub fn client_credentials(
    certificates: u32,
    trust: u32,
) -> impl Strategy<Value = ClientCredentials> {
    (endpoint(trust), client(certificates), texts(), option::of(text())).prop_map(
        |(endpoint, client, scopes, audience)| ClientCredentials {
            endpoint,
            client,
            scopes,
            audience,
        },
    )
}

fn login(certificates: u32, trust: u32, key_sets: u32) -> impl Strategy<Value = Login> {
    let server = (client(certificates), text(), endpoint(trust), text());
    let paths = (texts(), [text(), text(), text()]);
    let cookie = (text(), vec(any::<[u8; 32]>(), 1..3), any::<u32>(), any::<bool>());
    (tokens(0), 0..key_sets, server, paths, cookie).prop_map(
        |(tokens, keys, server, (scopes, paths), cookie)| {
            let (client, authorization_url, token, end_session_url) = server;
            let [callback_path, logout_path, after_logout] = paths;
            let (cookie, cookie_keys, lifetime_s, forward_token) = cookie;
            Login {
                tokens,
                keys,
                client,
                authorization_url,
                token,
                end_session_url,
                scopes,
                callback_path,
                logout_path,
                after_logout,
                cookie,
                cookie_keys,
                lifetime_s,
                forward_token,
            }
        },
    )
}

/// One that needs no key set.
fn keyless(certificates: u32, trust: u32, redis: bool) -> BoxedStrategy<AuthenticatorKind> {
    let records = (text(), any::<[u32; 4]>()).prop_map(move |(prefix, n)| match redis {
        false => KeyStore::Embedded,
        true => KeyStore::Redis(RedisKeys {
            prefix,
            cache_ms: n[0],
            negative_ms: n[1],
            grace_ms: n[2],
            timeout_ms: n[3],
        }),
    });
    let store = prop_oneof![Just(KeyStore::Embedded), records];
    let api_keys = (vec(source(), 1..3), store).prop_map(|(from, store)| ApiKeys { from, store });
    let introspection = (tokens(1), endpoint(trust), client(certificates), any::<[u32; 2]>());
    let introspection =
        introspection.prop_map(|(tokens, endpoint, client, [cache_ms, negative_ms])| {
            Box::new(Introspection { tokens, endpoint, client, cache_ms, negative_ms })
        });
    let signature = (texts(), any::<u32>())
        .prop_map(|(components, max_age_s)| Signature { components, max_age_s });
    let external = (endpoint(trust), texts(), texts(), option::of(text()), any::<u32>()).prop_map(
        |(endpoint, send, take, consumer_header, cache_ms)| {
            Box::new(External { endpoint, send, take, consumer_header, cache_ms })
        },
    );
    prop_oneof![
        api_keys.prop_map(AuthenticatorKind::ApiKey),
        introspection.prop_map(AuthenticatorKind::Introspection),
        any::<bool>().prop_map(|consumer_required| {
            AuthenticatorKind::Certificate(Certificates { consumer_required })
        }),
        text().prop_map(|realm| AuthenticatorKind::Basic(Basic { realm })),
        signature.prop_map(AuthenticatorKind::Signature),
        external.prop_map(AuthenticatorKind::External),
    ]
    .boxed()
}

fn authenticator(
    certificates: u32,
    trust: u32,
    redis: bool,
    key_sets: u32,
) -> impl Strategy<Value = Authenticator> {
    let keyless = keyless(certificates, trust, redis);
    let kind = match key_sets {
        0 => keyless,
        _ => {
            let jwt = (tokens(1), 0..key_sets, any::<(u32, bool, bool)>()).prop_map(
                |(tokens, keys, (max_lifetime_s, allow_endless, access_token))| {
                    Box::new(Jwt { tokens, keys, max_lifetime_s, allow_endless, access_token })
                },
            );
            let login = login(certificates, trust, key_sets).prop_map(Box::new);
            prop_oneof![
                2 => keyless,
                1 => jwt.prop_map(AuthenticatorKind::Jwt),
                1 => login.prop_map(AuthenticatorKind::Login),
            ]
            .boxed()
        }
    };
    (text(), kind).prop_map(|(name, kind)| Authenticator { name, kind })
}

pub fn auth(certificates: u32, trust: u32) -> impl Strategy<Value = Auth> {
    let redis = (vec(text(), 1..3), any::<bool>(), option::of(text()), index(trust), 1..=10_000u32)
        .prop_map(|(urls, cluster, sentinel, trust, limits_timeout_ms)| Redis {
            urls,
            cluster,
            sentinel,
            trust,
            limits_timeout_ms,
        });
    let throttle = (any::<u32>(), 1..=u32::MAX)
        .prop_map(|(failures, window_ms)| Throttle { failures, window_ms });
    let first = (any::<u64>(), option::of(redis), throttle, vec(key_set(), 0..3));
    first.prop_flat_map(move |(version, redis, throttle, key_sets)| {
        let any = authenticator(certificates, trust, redis.is_some(), key_sets.len() as u32);
        let first = Just((version, redis, throttle, key_sets));
        (first, vec(any, 0..3)).prop_flat_map(|(first, authenticators)| {
            let consumers = vec(consumer(authenticators.len() as u32), 0..3);
            (Just(first), Just(authenticators), consumers).prop_map(
                |((version, redis, throttle, key_sets), authenticators, consumers)| Auth {
                    version,
                    consumers: consumers.into(),
                    key_sets,
                    authenticators,
                    redis,
                    throttle,
                },
            )
        })
    })
}

/// What a route asks for; nothing, where there is nobody to ask.
pub fn route_auth(authenticators: u32, consumers: u32) -> BoxedStrategy<Option<RouteAuth>> {
    if authenticators == 0 {
        return Just(None).boxed();
    }
    let unidentified =
        (any::<bool>(), index(consumers)).prop_map(|(pass, consumer)| match (pass, consumer) {
            (_, Some(consumer)) => Unidentified::As(consumer),
            (true, None) => Unidentified::Pass,
            (false, None) => Unidentified::Refuse,
        });
    let asked = (texts(), texts(), option::of(text()));
    let rules = (vec(0..authenticators, 1..3), unidentified, asked, any::<(bool, bool)>())
        .prop_map(
            |(authenticators, unidentified, (scopes, groups, policy), (all, hide_credentials))| {
                RouteAuth {
                    authenticators,
                    all,
                    unidentified,
                    scopes,
                    groups,
                    policy,
                    hide_credentials,
                }
            },
        );
    option::of(rules).boxed()
}

pub fn networks() -> impl Strategy<Value = Networks> {
    (vec(cidr(), 0..3), vec(cidr(), 0..3)).prop_map(|(allow, deny)| Networks { allow, deny })
}

pub fn cors() -> impl Strategy<Value = Cors> {
    let origins = prop_oneof![Just(Origins::Any), texts().prop_map(Origins::Listed)];
    (origins, [texts(), texts(), texts()], any::<(bool, u32, bool)>()).prop_map(
        |(origins, [methods, headers, expose], (credentials, max_age_s, private_network))| Cors {
            origins,
            methods,
            headers,
            expose,
            credentials,
            max_age_s,
            private_network,
        },
    )
}
