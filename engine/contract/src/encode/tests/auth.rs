//! What is refused of consumers, keys, authenticators and what routes ask for.

use super::*;

fn tokens() -> Tokens {
    Tokens {
        from: vec![CredentialSource::Header {
            name: "authorization".into(),
            scheme: Some("Bearer".into()),
        }],
        issuer: Some("https://id.example.com".into()),
        audiences: vec!["api".into()],
        require: vec![ClaimRule { claim: "tier".into(), test: ClaimTest::Present }],
        scope_claims: vec!["scope".into()],
        groups_claim: None,
        consumer_claim: "sub".into(),
        consumer_required: false,
        claim_headers: vec![("sub".into(), "x-sub".into())],
        bound_only: false,
        leeway_s: 30,
    }
}

fn jwt() -> Jwt {
    Jwt { tokens: tokens(), keys: 0, max_lifetime_s: 0, allow_endless: false, access_token: false }
}

fn login() -> Login {
    Login {
        tokens: Tokens { from: vec![], ..tokens() },
        keys: 0,
        client: OAuthClient { id: "gateway".into(), proof: ClientProof::Basic("hush-hush".into()) },
        authorization_url: "https://id.example.com/authorize".into(),
        token: Endpoint { url: "https://id.example.com/token".into(), ..Endpoint::default() },
        end_session_url: String::new(),
        scopes: vec!["openid".into()],
        callback_path: "/callback".into(),
        logout_path: "/logout".into(),
        after_logout: "/".into(),
        cookie: "session".into(),
        cookie_keys: vec![[201; 32]],
        lifetime_s: 3_600,
        forward_token: true,
    }
}

fn point(len: usize) -> Vec<u8> {
    let mut point = vec![7; len];
    point[0] = 4;
    point
}

fn rsa(bytes: usize) -> KeyMaterial {
    let mut modulus = vec![0xC5; bytes];
    modulus[0] = 0x80;
    KeyMaterial::Rsa { modulus, exponent: vec![1, 0, 1] }
}

fn key(material: KeyMaterial, algorithms: &[JwsAlgorithm]) -> VerifyKey {
    VerifyKey { kid: Some("one".into()), algorithms: algorithms.to_vec(), material }
}

fn api_key(digest: u8) -> ApiKey {
    ApiKey {
        digest: [digest; 32],
        prefix: "slk_4f2a".into(),
        expires_ms: 0,
        scopes: Some(vec!["read".into()]),
        limits: None,
    }
}

/// `secure`, with a consumer, a key set and two authenticators, on its route.
fn guarded() -> Snapshot {
    let mut snapshot = secure();
    snapshot.auth = Auth {
        version: 1,
        consumers: vec![Consumer {
            name: "shop".into(),
            groups: vec!["gold".into()],
            scopes: vec!["read".into(), "write".into()],
            api_keys: vec![api_key(1)],
            passwords: vec![Password { username: "shop".into(), hash: "$argon2id$secret".into() }],
            certificates: vec![CertificateMatch::Uri(NamePattern::Glob("spiffe://*/shop".into()))],
            signing_keys: vec![SigningKey { id: "shop-1".into(), secret: vec![202; 32] }],
            subjects: vec![Subject { authenticator: 1, value: "7".into() }],
            ..Consumer::default()
        }]
        .into(),
        key_sets: vec![KeySet {
            loaded: true,
            wish: Some(0),
            keys: vec![key(KeyMaterial::P256(point(65)), &[JwsAlgorithm::Es256])],
            ..KeySet::default()
        }],
        authenticators: vec![
            Authenticator { name: "token".into(), kind: AuthenticatorKind::Jwt(Box::new(jwt())) },
            Authenticator {
                name: "login".into(),
                kind: AuthenticatorKind::Login(Box::new(login())),
            },
        ],
        redis: Some(Redis {
            urls: vec!["redis://:hush-hush@127.0.0.1".into()],
            trust: Some(0),
            limits_timeout_ms: 5,
            ..Redis::default()
        }),
        throttle: Throttle::default(),
    };
    snapshot.routes[0].auth = Some(RouteAuth {
        authenticators: vec![1, 0],
        unidentified: Unidentified::As(0),
        ..RouteAuth::default()
    });
    snapshot
}

/// What is refused of `guarded` once `change` has been done to it.
fn refused(change: impl FnOnce(&mut Snapshot)) -> &'static str {
    let mut snapshot = guarded();
    change(&mut snapshot);
    Snapshot::decode(&snapshot.encode()).expect_err("refused").field
}

/// The same of its consumer.
fn consumer(change: impl FnOnce(&mut Consumer)) -> &'static str {
    refused(|s| change(&mut s.auth.consumers[0]))
}

/// The same with another kind of authenticator in place of the first.
fn kind(kind: AuthenticatorKind) -> &'static str {
    refused(|s| s.auth.authenticators[0].kind = kind)
}

#[test]
fn what_it_names_exists() {
    let whole = guarded();
    assert_eq!(Snapshot::decode(&whole.encode()), Ok(whole));
    assert_eq!(refused(|s| s.auth.redis.as_mut().unwrap().trust = Some(1)), "auth.redis.trust");
    assert_eq!(refused(|s| s.auth.redis.as_mut().unwrap().urls.clear()), "auth.redis.urls");
    assert_eq!(refused(|s| s.auth.key_sets.clear()), "authenticator.keys");
    assert_eq!(
        kind(AuthenticatorKind::Jwt(Box::new(Jwt { keys: 1, ..jwt() }))),
        "authenticator.keys"
    );
    let other = Box::new(Login { keys: 1, ..login() });
    assert_eq!(kind(AuthenticatorKind::Login(other)), "authenticator.keys");
    let subject = |authenticator| Subject { authenticator, value: "8".into() };
    assert_eq!(consumer(|c| c.subjects.push(subject(2))), "consumer.subject.authenticator");
    let route =
        |change: fn(&mut RouteAuth)| refused(|s| change(s.routes[0].auth.as_mut().unwrap()));
    assert_eq!(route(|r| r.authenticators.push(2)), "route.auth.authenticators");
    assert_eq!(route(|r| r.authenticators.clear()), "route.auth.authenticators");
    assert_eq!(route(|r| r.unidentified = Unidentified::As(1)), "route.auth.unidentified");
    assert_eq!(refused(|s| s.auth.consumers.clear()), "route.auth.unidentified");
    let without = refused(|s| {
        s.auth.consumers.clear();
        s.auth.authenticators.clear();
    });
    assert_eq!(without, "route.auth.authenticators");
}

#[test]
fn whom_authenticators_ask_exists() {
    let endpoint =
        |trust| Endpoint { url: "https://a.example".into(), trust, ..Endpoint::default() };
    let client = |identity| OAuthClient { id: "g".into(), proof: ClientProof::Tls { identity } };
    let introspection = |trust, identity| {
        AuthenticatorKind::Introspection(Box::new(Introspection {
            tokens: tokens(),
            endpoint: endpoint(trust),
            client: client(identity),
            cache_ms: 1,
            negative_ms: 1,
        }))
    };
    assert_eq!(kind(introspection(Some(1), 0)), "endpoint.trust");
    assert_eq!(kind(introspection(Some(0), 1)), "client.identity");
    let external = External {
        endpoint: endpoint(Some(1)),
        send: vec![],
        take: vec![],
        consumer_header: None,
        cache_ms: 0,
    };
    assert_eq!(kind(AuthenticatorKind::External(Box::new(external))), "endpoint.trust");
    let credentials = |trust, identity| ClientCredentials {
        endpoint: endpoint(trust),
        client: client(identity),
        scopes: vec![],
        audience: None,
    };
    let upstream = |credentials| refused(|s| s.upstreams[0].credentials = Some(credentials));
    assert_eq!(upstream(credentials(Some(1), 0)), "endpoint.trust");
    assert_eq!(upstream(credentials(None, 1)), "client.identity");
}

#[test]
fn credentials_are_looked_for_somewhere() {
    let keys = |from| AuthenticatorKind::ApiKey(ApiKeys { from, store: KeyStore::Embedded });
    assert_eq!(kind(keys(vec![])), "authenticator.from");
    let nowhere = Jwt { tokens: Tokens { from: vec![], ..tokens() }, ..jwt() };
    assert_eq!(kind(AuthenticatorKind::Jwt(Box::new(nowhere))), "authenticator.from");
    let unsealed = Login { cookie_keys: vec![], ..login() };
    assert_eq!(kind(AuthenticatorKind::Login(Box::new(unsealed))), "login.cookie_keys");
    let unsealed = Login { cookie_keys: vec![[0; 32]; MAX_COOKIE_KEYS + 1], ..login() };
    assert_eq!(kind(AuthenticatorKind::Login(Box::new(unsealed))), "login.cookie_keys");
    let records = RedisKeys {
        prefix: "key:".into(),
        cache_ms: 1,
        negative_ms: 1,
        grace_ms: 1,
        timeout_ms: 1,
    };
    let field = refused(|s| {
        let from = vec![CredentialSource::Query("key".into())];
        let store = KeyStore::Redis(records);
        s.auth.authenticators[0].kind = AuthenticatorKind::ApiKey(ApiKeys { from, store });
        s.auth.redis = None;
    });
    assert_eq!(field, "authenticator.store");
    assert_eq!(refused(|s| s.auth.throttle.window_ms = 0), "auth.throttle.window_ms");
}

#[test]
fn scopes_are_sorted() {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    for wrong in [texts(&["write", "read"]), texts(&["read", "read"])] {
        assert_eq!(consumer(|c| c.scopes = wrong.clone()), "consumer.scopes");
        assert_eq!(consumer(|c| c.api_keys[0].scopes = Some(wrong)), "consumer.api_key.scopes");
    }
    let mut snapshot = guarded();
    snapshot.auth.consumers[0].scopes = vec!["z".into(), "a".into()];
    let error = Snapshot::decode(&snapshot.encode()).unwrap_err();
    assert_eq!(error.fault, Fault::Order);
}

#[test]
fn lists_of_callers_have_bounds() {
    let texts = vec![String::new(); MAX_ENTRIES + 1];
    assert_eq!(consumer(|c| c.groups = texts), "consumer.groups");
    let many = vec![api_key(1); MAX_CREDENTIALS + 1];
    assert_eq!(consumer(|c| c.api_keys = many), "consumer.api_keys");
    let many = |c: &mut Consumer| {
        c.signing_keys[0].secret = vec![1; MAX_SIGNING_SECRET + 1];
    };
    assert_eq!(consumer(many), "consumer.signing_key.secret");
    assert_eq!(consumer(|c| c.signing_keys[0].secret.clear()), "consumer.signing_key.secret");
    let many = vec![Consumer::default(); MAX_CONSUMERS + 1];
    assert_eq!(refused(|s| s.auth.consumers = many.into()), "auth.consumers");
    let many = vec![KeySet::default(); MAX_KEY_SETS + 1];
    assert_eq!(refused(|s| s.auth.key_sets = many), "auth.key_sets");
    let one = key(KeyMaterial::Ed25519([1; 32]), &[JwsAlgorithm::EdDsa]);
    let many = vec![one; MAX_KEYS + 1];
    assert_eq!(refused(|s| s.auth.key_sets[0].keys = many), "key_set.keys");
    let wish = Some(MAX_WISHES as u32);
    assert_eq!(refused(|s| s.auth.key_sets[0].wish = wish), "key_set.wish");
    let basic =
        Authenticator { name: String::new(), kind: AuthenticatorKind::Basic(Basic::default()) };
    let many = vec![basic; MAX_AUTHENTICATORS + 1];
    assert_eq!(refused(|s| s.auth.authenticators = many), "auth.authenticators");
    let network = Cidr { network: "10.0.0.0".parse().unwrap(), prefix: 8 };
    let networks = Networks { allow: vec![], deny: vec![network; MAX_NETWORKS + 1] };
    assert_eq!(refused(|s| s.routes[0].networks = Some(networks)), "route.networks.deny");
}

#[test]
fn keys_have_the_form_of_their_kind() {
    use JwsAlgorithm::{EdDsa, Es256, Es384, Es512, Hs256, Hs384, Hs512, Ps256, Rs256, Rs512};
    let decoded = |material: KeyMaterial, algorithms: &[JwsAlgorithm]| {
        let mut snapshot = guarded();
        let key = key(material, algorithms);
        let sound = key.is_sound();
        snapshot.auth.key_sets[0].keys = vec![key];
        let decoded = Snapshot::decode(&snapshot.encode());
        assert_eq!(decoded.is_ok(), sound, "one judgement");
        decoded.map_err(|error| error.field).err()
    };
    let hmac = |len| KeyMaterial::Hmac(vec![9; len]);
    for (material, algorithms) in [
        (rsa(256), &[Rs256, Rs512, Ps256][..]),
        (rsa(1_024), &[Rs256]),
        (KeyMaterial::P256(point(65)), &[Es256]),
        (KeyMaterial::P384(point(97)), &[Es384]),
        (KeyMaterial::P521(point(133)), &[Es512]),
        (KeyMaterial::Ed25519([0; 32]), &[EdDsa]),
        (hmac(32), &[Hs256]),
        (hmac(48), &[Hs256, Hs384]),
        (hmac(64), &[Hs512]),
    ] {
        assert_eq!(decoded(material, algorithms), None, "{algorithms:?}");
    }
    // The same number of bytes, but a bit less.
    let mut short = vec![0xC5; 256];
    short[0] = 0x7F;
    // A second way to write the same number.
    let mut padded = vec![0xC5; 257];
    padded[0] = 0;
    let mut compressed = point(65);
    compressed[0] = 2;
    let exponents = [vec![], vec![0, 3], vec![1], vec![1; 6]];
    let moduli = [vec![], short, padded];
    let modulus = vec![0xC5; 256];
    let rsas = exponents.into_iter().map(|exponent| (modulus.clone(), exponent));
    let rsas = rsas.chain(moduli.into_iter().map(|modulus| (modulus, vec![1, 0, 1])));
    let unsound = rsas.map(|(modulus, exponent)| KeyMaterial::Rsa { modulus, exponent }).chain([
        rsa(255),
        rsa(1_025),
        KeyMaterial::P256(point(64)),
        KeyMaterial::P256(compressed),
        KeyMaterial::P384(point(65)),
        KeyMaterial::P521(point(132)),
        hmac(31),
        hmac(4_097),
    ]);
    for material in unsound {
        let algorithms: Vec<_> =
            JwsAlgorithm::ALL.into_iter().filter(|a| material.suits(*a)).collect();
        assert_eq!(decoded(material, &algorithms), Some("key.material"));
    }
    for (material, algorithms) in [
        (rsa(256), &[][..]),
        // The classic: a public key taken for the secret of an HMAC.
        (rsa(256), &[Rs256, Hs256]),
        (KeyMaterial::P256(point(65)), &[Es384]),
        (KeyMaterial::P384(point(97)), &[Es256]),
        (KeyMaterial::P521(point(133)), &[EdDsa]),
        (KeyMaterial::Ed25519([0; 32]), &[Es256]),
        (hmac(32), &[Rs256]),
        (hmac(47), &[Hs384]),
        (hmac(63), &[Hs512]),
    ] {
        assert_eq!(decoded(material, algorithms), Some("key.algorithms"), "{algorithms:?}");
    }
}

#[test]
fn algorithms_have_one_number() {
    for (number, algorithm) in JwsAlgorithm::ALL.into_iter().enumerate() {
        assert_eq!(algorithm as usize, number);
    }
}

#[test]
fn secrets_of_callers_are_not_printed() {
    let mut snapshot = guarded();
    snapshot.auth.key_sets[0].keys.push(key(KeyMaterial::Hmac(vec![203; 32]), &[]));
    let text = format!("{snapshot:?}");
    for secret in ["hush-hush", "argon2id", "201, 201", "202, 202", "203, 203"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// What a large installation has: 100,000 consumers with a key each, and more groups and scopes than
/// most.
#[test]
fn very_many_consumers_fit() {
    let mut snapshot = guarded();
    let names = |kind: &str| (0..4).map(|n| format!("{kind}-of-an-api-{n}")).collect();
    let consumer = |n: u32| {
        let mut digest = [0xAB; 32];
        digest[..4].copy_from_slice(&n.to_le_bytes());
        Consumer {
            name: format!("customer-of-ours-{n:06}"),
            groups: names("group"),
            scopes: names("scope"),
            limits: Some("gold-limits".into()),
            api_keys: vec![ApiKey { digest, ..api_key(0) }],
            subjects: vec![Subject { authenticator: 0, value: format!("{n:036}") }],
            ..Consumer::default()
        }
    };
    snapshot.auth.consumers = (0..100_000).map(consumer).collect();
    let bytes = snapshot.encode();
    // The routes and certificates of such an installation have to fit as well.
    assert!(bytes.len() < MAX_SNAPSHOT / 8 * 5, "{} bytes", bytes.len());
    assert_eq!(Snapshot::decode(&bytes), Ok(snapshot));
}

#[test]
fn consumers_that_are_known_are_taken_from_there() {
    let consumer = |n: u32| Consumer { name: format!("consumer-{n}"), ..Consumer::default() };
    let mut one = Snapshot { epoch: 1, ..Snapshot::default() };
    one.auth.consumers = (0..100).map(consumer).collect();
    let first = Snapshot::decode(&one.encode()).unwrap();
    let known = Known::of(&first);
    let two = Snapshot { epoch: 2, ..one.clone() };
    let second = Snapshot::decode_after(&two.encode(), Some(&known)).unwrap();
    assert_eq!(second, two);
    assert!(second.auth.consumers.is(&first.auth.consumers));
    let mut three = two.clone();
    three.auth.consumers[7].name = "other".into();
    let third = Snapshot::decode_after(&three.encode(), Some(&known)).unwrap();
    assert_eq!(third, three);
    assert!(!third.auth.consumers.is(&first.auth.consumers));
}
