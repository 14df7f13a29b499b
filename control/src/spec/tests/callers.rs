//! Any consumers, authenticators and rules of routes.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::random::{cidr, texts};
use crate::spec::*;

/// Authentication of a spec, as far as it is not in routes and upstreams.
#[derive(Clone, Debug)]
pub struct Callers {
    pub redis: Option<Redis>,
    pub auth: AuthSettings,
    pub authenticators: Vec<Authenticator>,
    pub groups: Vec<Group>,
    pub consumers: Vec<Consumer>,
    pub limits: Vec<Limit>,
}

const GROUPS: [&str; 3] = ["gold", "staff", "1"];

fn scopes() -> impl Strategy<Value = Vec<String>> {
    subsequence(texts(&["orders:read", "a", "null", "https://x.example/y"]), 0..4)
}

fn secret() -> impl Strategy<Value = Secret> {
    prop_oneof![
        select(texts(&["/run/secrets/a", "certs/b c", "1"])).prop_map(Secret::File),
        select(texts(&["a-secret-of-at-least-32-bytes-is-enough", "true", "\"q\\ü", "1.5"]))
            .prop_map(Secret::Inline),
        select(texts(&["A", "CLIENT_SECRET_2"])).prop_map(Secret::Env),
        (
            vec(select(texts(&["vault", "-field=key", "a b", "1", "true", ""])), 1..4),
            select(texts(&["10s", "5m", "90s", "1d"])),
        )
            .prop_filter("a program", |(command, _)| !command[0].is_empty())
            .prop_map(|(command, refresh)| {
                let refresh = refresh.parse().expect("a time");
                Secret::Command(SecretCommand { command, refresh })
            }),
    ]
}

fn fetch() -> impl Strategy<Value = Fetch> {
    (option::of(select(texts(&["ca.pem", "/etc/ca.pem"]))), any::<bool>(), 1u32..=60_000)
        .prop_map(|(ca, allow_private, timeout_ms)| Fetch { ca, allow_private, timeout_ms })
}

fn client() -> impl Strategy<Value = OAuthClient> {
    let proof = prop_oneof![
        secret().prop_map(ClientProof::Basic),
        secret().prop_map(ClientProof::Post),
        option::of(select(texts(&["k1", "1"])))
            .prop_map(|kid| ClientProof::PrivateKeyJwt { key: "c.key".into(), kid }),
        Just(ClientProof::Tls { cert: "c.pem".into(), key: "c.key".into() }),
    ];
    (select(texts(&["gateway", "1", "a b"])), proof)
        .prop_map(|(id, proof)| OAuthClient { id, proof })
}

fn sources() -> impl Strategy<Value = Vec<CredentialSource>> {
    let header = |name: &str, scheme: Option<&str>| CredentialSource::Header {
        name: name.into(),
        scheme: scheme.map(Into::into),
    };
    let all = vec![
        CredentialSource::Bearer,
        header("x-api-key", None),
        header("authorization", Some("Token")),
        CredentialSource::Query("api key".into()),
        CredentialSource::Cookie("sid".into()),
    ];
    subsequence(all, 1..5)
}

fn audiences() -> impl Strategy<Value = OrAny<Vec<String>>> {
    prop_oneof![
        Just(OrAny::ANY),
        subsequence(texts(&["api://orders", "any", "1"]), 1..3).prop_map(OrAny::Some),
    ]
}

fn rule() -> impl Strategy<Value = ClaimRule> {
    let values = subsequence(texts(&["true", "1", "a b", "ü"]), 1..4);
    let test = prop_oneof![
        Just(ClaimTest::Present),
        values.prop_map(ClaimTest::OneOf),
        select(texts(&["user|", "1"])).prop_map(ClaimTest::Prefix),
    ];
    (select(texts(&["tenant", "org.name", "https://x.example/roles"])), test)
        .prop_map(|(claim, test)| ClaimRule { claim, test })
}

prop_compose! {
    fn claims()(
        leeway_s in 0u32..=3_600,
        require in vec(rule(), 0..3),
        scope_claims in subsequence(texts(&["scope", "scp", "a.b"]), 0..3),
        groups_claim in option::of(select(texts(&["groups", "realm.roles"]))),
        consumer_claim in select(texts(&["sub", "client_id"])),
        consumer_required in any::<bool>(),
        headers in btree_map(select(texts(&["sub", "org.name", "1", "a b"])), Just(()), 0..4),
    ) -> Claims {
        let claim_headers =
            headers.into_keys().zip(0..).map(|(claim, n)| (claim, format!("x-claim-{n}"))).collect();
        Claims {
            leeway_s, require, scope_claims, groups_claim, consumer_claim, consumer_required,
            claim_headers,
        }
    }
}

fn asymmetric() -> impl Strategy<Value = Vec<JwsAlgorithm>> {
    subsequence(Jwt::default_algorithms(), 1..9)
}

/// Where keys are, with algorithms that they can be for.
fn keys(at: usize) -> impl Strategy<Value = (KeySource, Vec<JwsAlgorithm>)> {
    let url = move |path: &str| format!("https://id{at}.example.com/{path}");
    let public = asymmetric().prop_map(|list| {
        let key = |(n, algorithm): (usize, JwsAlgorithm)| StaticKey {
            material: StaticMaterial::PublicKey(format!("{n}.pem")),
            algorithm,
            kid: (n > 0).then(|| format!("k{n}")),
        };
        let keys = list.iter().copied().enumerate().map(key).collect();
        (KeySource::Keys(keys), list)
    });
    let shared = secret().prop_map(|secret| {
        let algorithm = JwsAlgorithm::Hs384;
        let key = StaticKey { material: StaticMaterial::Secret(secret), algorithm, kid: None };
        (KeySource::Keys(vec![key]), vec![algorithm])
    });
    let remote = prop_oneof![
        Just(KeySource::Discovery(Discovery::Issuer)),
        Just(KeySource::Discovery(Discovery::At(url("metadata")))),
        Just(KeySource::JwksUrl(url("keys?a=b"))),
    ];
    let file = select(vec![JwsAlgorithm::Hs256, JwsAlgorithm::EdDsa])
        .prop_map(|one| (KeySource::JwksFile("keys.json".into()), vec![one]));
    prop_oneof![public, shared, (remote, asymmetric()), file]
}

prop_compose! {
    fn jwt(at: usize)(
        (keys, algorithms) in keys(at),
        named in any::<bool>(),
        audiences in audiences(),
        from in sources(),
        (max_lifetime_s, allow_endless) in (any::<u32>(), any::<bool>()),
        (access_token, bound_only) in any::<(bool, bool)>(),
        claims in claims(),
        fetch in fetch(),
    ) -> AuthenticatorKind {
        let issuer = match named || keys == KeySource::Discovery(Discovery::Issuer) {
            true => OrAny::Some(format!("https://id{at}.example.com")),
            false => OrAny::ANY,
        };
        let max_lifetime_s = if allow_endless { 0 } else { max_lifetime_s };
        AuthenticatorKind::Jwt(Box::new(Jwt {
            issuer, keys, algorithms, audiences, from, max_lifetime_s, allow_endless, access_token,
            bound_only, claims, fetch,
        }))
    }
}

prop_compose! {
    fn introspection(at: usize)(
        discovery in any::<bool>(),
        client in client(),
        audiences in audiences(),
        from in sources(),
        bound_only in any::<bool>(),
        (cache_ms, negative_ms) in (0u32..=3_600_000, 0u32..=3_600_000),
        claims in claims(),
        fetch in fetch(),
    ) -> AuthenticatorKind {
        let (issuer, endpoint) = match discovery {
            true => (
                OrAny::Some(format!("https://id{at}.example.com/")),
                IntrospectionEndpoint::Discovery(Discovery::Issuer),
            ),
            false => (OrAny::ANY, IntrospectionEndpoint::Url("https://id.example.com/i".into())),
        };
        AuthenticatorKind::Introspection(Box::new(Introspection {
            issuer, endpoint, client, audiences, from, bound_only, cache_ms, negative_ms, claims,
            fetch,
        }))
    }
}

prop_compose! {
    fn login(at: usize)(
        (keys, algorithms) in keys(at),
        client in client(),
        audiences in option::of(audiences()),
        more in scopes(),
        cookie_keys in vec(secret(), 0..3),
        lifetime_s in 60u32..=2_592_000,
        forward_token in any::<bool>(),
        claims in claims(),
        fetch in fetch(),
        ended in any::<bool>(),
    ) -> AuthenticatorKind {
        let url = |path: &str| Some(format!("https://id.example.com/{path}"));
        let needed = !matches!(keys, KeySource::Discovery(_));
        let scopes = more.into_iter().chain(["openid".into()]).collect();
        AuthenticatorKind::Login(Box::new(Login {
            issuer: format!("https://id{at}.example.com"),
            keys,
            authorization_url: url("authorize").filter(|_| needed),
            token_url: url("token").filter(|_| needed),
            end_session_url: url("end").filter(|_| ended),
            algorithms,
            client,
            audiences,
            scopes,
            callback_path: format!("/login{at}/callback"),
            logout_path: format!("/login{at}/out"),
            after_logout: "/bye?a=b".into(),
            cookie: format!("session{at}"),
            cookie_keys,
            lifetime_s,
            forward_token,
            claims,
            fetch,
        }))
    }
}

fn store() -> impl Strategy<Value = KeyStore> {
    let times = (1u32..=86_400_000, 0u32..=3_600_000, 0u32..=86_400_000, 1u32..=60_000);
    prop_oneof![
        Just(KeyStore::Embedded),
        times.prop_map(|(cache_ms, negative_ms, grace_ms, timeout_ms)| {
            let prefix = "keys:".into();
            KeyStore::Redis(RedisKeys { prefix, cache_ms, negative_ms, grace_ms, timeout_ms })
        }),
    ]
}

fn kind(at: usize) -> impl Strategy<Value = AuthenticatorKind> {
    let components =
        subsequence(texts(&["@method", "@path", "@authority", "content-digest", "date"]), 1..5);
    let fields = subsequence(texts(&["authorization", "x-a", "cookie"]), 0..3);
    let external = (fields, option::of(Just("x-who".to_string())), 0u32..=3_600_000, fetch());
    prop_oneof![
        (sources(), store())
            .prop_map(|(from, store)| AuthenticatorKind::ApiKey(ApiKeys { from, store })),
        jwt(at),
        introspection(at),
        login(at),
        any::<bool>().prop_map(|consumer_required| {
            AuthenticatorKind::Certificate(Certificates { consumer_required })
        }),
        select(texts(&["orders", "a b", "1"]))
            .prop_map(|realm| AuthenticatorKind::Basic(Basic { realm })),
        (components, 1u32..=86_400).prop_map(|(components, max_age_s)| {
            AuthenticatorKind::Signature(Signature { components, max_age_s })
        }),
        external.prop_map(|(send, consumer_header, cache_ms, fetch)| {
            AuthenticatorKind::External(Box::new(External {
                url: "https://judge.example.com/ask".into(),
                send,
                take: vec!["x-user".into()],
                consumer_header,
                cache_ms,
                fetch,
            }))
        }),
    ]
}

fn named((name, limit): (&str, Limit)) -> Limit {
    Limit { name: name.into(), ..limit }
}

fn limits() -> impl Strategy<Value = Option<String>> {
    option::of(select(texts(&["plan", "1"])))
}

prop_compose! {
    fn consumer(at: usize)(
        groups in subsequence(texts(&GROUPS), 0..3),
        (own, limits) in (scopes(), limits()),
        (keys, expires, narrow) in (0usize..3, option::of(any::<u32>()), option::of(scopes())),
        (passwords, certificates, signing) in (0usize..3, 0usize..6, vec(secret(), 0..3)),
        prefixed in any::<bool>(),
    ) -> Consumer {
        let key = |n: usize| ApiKey {
            sha256: Digest([at as u8 * 16 + n as u8; 32]),
            prefix: prefixed.then(|| format!("slk_{at}{n}")),
            expires: expires.map(Timestamp),
            scopes: narrow.clone(),
            limits: limits.clone(),
        };
        let certificate = |n: usize| match n {
            0 => CertificateMatch::Dns(format!("*.c{at}.example.com")),
            1 => CertificateMatch::Uri(format!("spiffe://example.org/c{at}/**")),
            2 => CertificateMatch::Cn(format!("c {at}")),
            3 => CertificateMatch::Email(format!("c{at}@example.com")),
            _ => CertificateMatch::Sha256(Digest([at as u8; 32])),
        };
        Consumer {
            name: format!("consumer-{at}"),
            workspace: prefixed.then(|| "team".into()),
            groups,
            scopes: own,
            api_keys: (0..keys).map(key).collect(),
            passwords: (0..passwords)
                .map(|n| Password { username: format!("u{at}.{n}"), hash: HASH.into() })
                .collect(),
            certificates: (0..certificates.min(5)).map(certificate).collect(),
            signing_keys: signing
                .into_iter()
                .enumerate()
                .map(|(n, secret)| SigningKey { id: format!("k{at} {n}"), secret })
                .collect(),
            subjects: Vec::new(),
            limits,
        }
    }
}

/// Of the password `secret`.
pub const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$BwcHBwcHBwcHBwcHBwcHBw$\
                        Yr0kSRnGDlhHnHFyL4TqbH8CDQkNlNW7OY3rPTQqDeI";

fn redis() -> impl Strategy<Value = Redis> {
    (any::<bool>(), option::of(secret()), any::<bool>()).prop_map(|(cluster, password, tls)| {
        let url = |n: u8| match tls {
            true => format!("rediss://r{n}.example.com:6380"),
            false => format!("redis://10.0.0.{n}"),
        };
        Redis {
            urls: vec![url(1), url(2)],
            cluster,
            sentinel: (!cluster && tls).then(|| "main".into()),
            limits_timeout_ms: if tls { LIMITS_TIMEOUT_MS } else { 20 },
            username: password.as_ref().map(|_| "gateway".into()),
            password,
            ca: tls.then(|| "redis-ca.pem".into()),
        }
    })
}

/// With `count` authenticators and as many consumers.
pub fn callers(count: usize) -> impl Strategy<Value = Callers> {
    (
        redis(),
        (0u32..=1_000_000, 1_000u32..=86_400_000),
        (0..count).map(kind).collect::<Vec<_>>(),
        (0..count).map(consumer).collect::<Vec<_>>(),
        (vec((scopes(), limits()), GROUPS.len()), [super::limits::limit(), super::limits::limit()]),
    )
        .prop_map(|(redis, (failures, window_ms), kinds, mut consumers, (groups, plans))| {
            let authenticators: Vec<Authenticator> = kinds
                .into_iter()
                .enumerate()
                .map(|(at, kind)| Authenticator {
                    name: format!("auth.{at}"),
                    workspace: (at % 2 == 0).then(|| "1".into()),
                    kind,
                })
                .collect();
            let tokens = authenticators.iter().filter(|one| {
                matches!(one.kind, AuthenticatorKind::Jwt(_) | AuthenticatorKind::Login(_))
            });
            for (one, consumer) in tokens.zip(&mut consumers) {
                let authenticator = one.name.clone();
                consumer.subjects.push(Subject { authenticator, value: "a|b 1".into() });
            }
            let group = |(name, (scopes, limits)): (&&str, (_, Option<String>))| Group {
                name: (*name).into(),
                workspace: limits.is_some().then(|| "null".into()),
                scopes,
                limits,
            };
            Callers {
                redis: Some(redis),
                auth: AuthSettings { throttle: Throttle { failures, window_ms } },
                authenticators,
                groups: GROUPS.iter().zip(groups).map(group).collect(),
                consumers,
                // Whom consumers and groups name.
                limits: ["plan", "1"].into_iter().zip(plans).map(named).collect(),
            }
        })
}

prop_compose! {
    /// Of a spec with `count` authenticators and consumers.
    pub fn route_auth(count: usize)(
        names in subsequence((0..count).collect::<Vec<_>>(), 1..=count),
        all in any::<bool>(),
        unidentified in 0..3,
        anonymous in 0..count,
        scopes in scopes(),
        groups in subsequence(texts(&GROUPS), 0..3),
        policy in option::of(select(texts(&["consumer.id == \"a\"", "true", "1 == 1 &&\n  2 == 2"]))),
        hide_credentials in any::<bool>(),
    ) -> RouteAuth {
        RouteAuth {
            authenticators: names.into_iter().map(|at| format!("auth.{at}")).collect(),
            all,
            unidentified: match unidentified {
                0 => Unidentified::Refuse,
                1 => Unidentified::Pass,
                _ => Unidentified::As(format!("consumer-{anonymous}")),
            },
            scopes,
            groups,
            policy,
            hide_credentials,
        }
    }
}

pub fn networks() -> impl Strategy<Value = Networks> {
    (vec(cidr(), 0..3), vec(cidr(), 0..3)).prop_map(|(allow, deny)| Networks { allow, deny })
}

prop_compose! {
    pub fn cors()(
        listed in subsequence(
            texts(&["https://a.example", "https://*.b.example:8443", "http://localhost:3000"]), 0..3,
        ),
        methods in subsequence(texts(&["GET", "PUT", "PURGE"]), 0..3),
        headers in subsequence(texts(&["x-a", "authorization"]), 0..2),
        expose in subsequence(texts(&["x-b", "etag"]), 0..2),
        (credentials, private_network) in any::<(bool, bool)>(),
        max_age_s in 0u32..=86_400,
    ) -> Cors {
        let credentials = credentials && !listed.is_empty();
        let origins = if listed.is_empty() { Origins::Any } else { Origins::Listed(listed) };
        Cors { origins, methods, headers, expose, credentials, max_age_s, private_network }
    }
}

pub fn credentials() -> impl Strategy<Value = ClientCredentials> {
    let url = |path: &str| format!("https://id.example.com/{path}");
    let endpoint = select(vec![
        TokenEndpoint::TokenUrl(url("token")),
        TokenEndpoint::Discovery(url(".well-known/openid-configuration")),
    ]);
    let audience = option::of(select(texts(&["api://users", "1"])));
    // One way to fetch, as several upstreams may have the same document.
    (endpoint, client(), scopes(), audience).prop_map(|(endpoint, client, scopes, audience)| {
        ClientCredentials { endpoint, client, scopes, audience, fetch: Fetch::default() }
    })
}
