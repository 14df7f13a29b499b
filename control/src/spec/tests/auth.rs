//! Broken specs about callers, and what is said of them; by their place in the file.

use super::broken::{mentions, says};
use super::callers::HASH;
use crate::spec::{load, *};

/// A gateway whose one route asks for `auth` (line 4); `more` begins on line 5.
#[track_caller]
pub(super) fn gateway(auth: &str, more: &str, expected: &[&str]) -> String {
    let text = format!(
        "version: 1\nlisteners: [{{name: a, listen: ':1', tls: {{certificates: [{{cert: c, key: k, \
         client_auth: {{mode: request, ca: a}}}}]}}}}]\n\
         upstreams: [{{name: u, targets: ['10.0.0.1:1']}}]\n\
         routes: [{{name: r, upstream: u, {auth}}}]\n{more}"
    );
    says(&text, expected).join("\n")
}

/// One authenticator `x` that the route asks for, its kind on line 7.
#[track_caller]
fn kind(kind: &str, expected: &[&str]) -> String {
    gateway("auth: x", &format!("authenticators:\n- name: x\n  {kind}\n"), expected)
}

/// A jwt with `fields`, which begin at column 9 of line 7.
#[track_caller]
fn jwt(fields: &str, expected: &[&str]) -> String {
    kind(&format!("jwt: {{{fields}}}"), expected)
}

/// A jwt with `fields` behind what it needs, from column 76 of line 7.
#[track_caller]
fn tokens(fields: &str, expected: &[&str]) -> String {
    jwt(
        &format!("issuer: 'https://id.example.com', audiences: [a], discovery: true, {fields}"),
        expected,
    )
}

/// A consumer with `fields`, on line 9, and an authenticator of each kind that is its own.
#[track_caller]
fn consumer(fields: &str, expected: &[&str]) -> String {
    gateway(
        "auth: [k, b, c, s]",
        &format!(
            "authenticators: [{{name: k, api_key: }}, {{name: b, basic: }}, {{name: s, signature: }}, \
             {{name: c, certificate: }}]\ngroups: [{{name: gold}}]\nconsumers:\n- name: one\n  \
             {fields}\n"
        ),
        expected,
    )
}

const DIGEST: &str = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5";

#[test]
fn what_the_format_promises_is_read_with_its_defaults() {
    let text = format!(
        "version: 1
redis: {{url: 'redis://10.0.0.1:6379'}}
auth: {{throttle: {{failures: 10}}}}
authenticators:
- name: keys
  api_key: {{from: [bearer, {{header: X-API-Key}}, {{cookie: key}}], store: redis}}
- name: corp
  jwt: {{issuer: 'https://id.example.com/', discovery: true, audiences: [api], algorithms: [RS256, ES256],
    require: [tenant, {{claim: verified, equals: true}}, {{claim: sub, prefix: 'user|'}},
      {{claim: level, one_of: [1, two]}}], claim_headers: {{org.name: X-Org}}}}
- {{name: web, login: {{issuer: 'https://id.example.com/', discovery: true,
    client: {{id: gw, secret: {{file: web.secret}}}}}}}}
- {{name: mtls, certificate: }}
groups: [{{name: gold, scopes: ['orders:read'], limits: plan}}]
limits: [{{name: plan, requests: 5, per: 1s}}]
consumers:
- name: app
  groups: [gold]
  api_keys: [{{sha256: {DIGEST}, prefix: slk_ab12cd, expires: 2027-01-01}}]
  certificates: [{{dns: '*.SVC.example.com'}}, {{sha256: '{fingerprint}'}}]
  subjects: [{{authenticator: corp, value: 00u1abc}}]
listeners:
- {{name: https, listen: ':8443', tls: {{certificates:
    [{{cert: c.pem, key: c.key, client_auth: {{mode: request, ca: ca.pem}}}}]}}}}
upstreams:
- {{name: u, targets: ['10.0.0.1:1'],
   credentials: {{token_url: 'https://id.example.com/token',
     client: {{id: gw, key: gw.key, kid: k1}}, scopes: [a]}}}}
routes:
- {{name: one, upstream: u, match: {{path: /one}}, auth: keys, cors: {{origins: '*'}}}}
- {{name: two, upstream: u, match: {{path: /two}}, auth: [corp, web], networks: {{deny: [10.1.0.0/16]}}}}
- {{name: three, upstream: u, auth: {{all: [mtls, corp], anonymous: app}}}}
",
        fingerprint = DIGEST.to_uppercase()
    );
    let loaded = load("t.yaml", &text);
    assert_eq!(loaded.problems, []);
    let spec = loaded.spec.expect("loads");
    let [keys, corp, web, mtls] = &spec.authenticators[..] else { panic!("{spec:?}") };
    let header = CredentialSource::Header { name: "x-api-key".into(), scheme: None };
    assert_eq!(
        keys.kind,
        AuthenticatorKind::ApiKey(ApiKeys {
            from: vec![CredentialSource::Bearer, header, CredentialSource::Cookie("key".into())],
            store: KeyStore::Redis(RedisKeys::default()),
        })
    );
    let AuthenticatorKind::Jwt(jwt) = &corp.kind else { panic!("{corp:?}") };
    assert_eq!(jwt.keys, KeySource::Discovery(Discovery::Issuer));
    assert_eq!(jwt.algorithms, [JwsAlgorithm::Rs256, JwsAlgorithm::Es256]);
    let tests: Vec<&ClaimTest> = jwt.claims.require.iter().map(|rule| &rule.test).collect();
    let one_of = |list: &[&str]| ClaimTest::OneOf(list.iter().map(ToString::to_string).collect());
    assert_eq!(
        tests,
        [
            &ClaimTest::Present,
            &one_of(&["true"]),
            &ClaimTest::Prefix("user|".into()),
            &one_of(&["1", "two"])
        ]
    );
    assert_eq!(jwt.claims.claim_headers["org.name"], "x-org");
    assert_eq!((jwt.claims.leeway_s, jwt.max_lifetime_s), (60, 0));
    let AuthenticatorKind::Login(login) = &web.kind else { panic!("{web:?}") };
    assert_eq!(login.scopes, ["openid"]);
    assert_eq!((&*login.callback_path, login.lifetime_s), ("/oauth2/callback", 28_800));
    assert_eq!(login.client.proof, ClientProof::Basic(Secret::File("web.secret".into())));
    assert_eq!(mtls.kind, AuthenticatorKind::Certificate(Certificates::default()));
    let consumer = &spec.consumers[0];
    assert_eq!(
        consumer.api_keys[0].expires.map(|time| time.to_string()).as_deref(),
        Some("2027-01-01T00:00:00Z")
    );
    assert_eq!(consumer.certificates[0], CertificateMatch::Dns("*.svc.example.com".into()));
    assert_eq!(spec.auth.throttle, Throttle { failures: 10, window_ms: 60_000 });
    let proof = &spec.upstreams[0].credentials.as_ref().expect("is there").client.proof;
    let kid = Some("k1".to_string());
    assert_eq!(*proof, ClientProof::PrivateKeyJwt { key: "gw.key".into(), kid });
    let auth = spec.routes[2].auth.as_ref().expect("is there");
    assert!(auth.all && !auth.hide_credentials);
    assert_eq!(auth.unidentified, Unidentified::As("app".into()));
    assert_eq!(spec.routes[0].cors.as_ref().map(|cors| cors.max_age_s), Some(600));
    // Both ways to say it are one.
    assert_eq!(
        spec.routes[0].auth.as_ref().map(|auth| &auth.authenticators[..]),
        Some(&["keys".into()][..])
    );
}

#[test]
fn consumers() {
    mentions(&consumer("groups: [goald]", &["9:12 unknown-group"]), "did you mean `gold`?");
    consumer("name: two", &["9:3 duplicate-key"]);
    consumer("scopes: ['a b']", &["9:12 bad-scope"]);
    consumer("api_keys: [{}]", &["9:14 missing-field"]);
    mentions(
        &consumer("api_keys: [{sha256: slk_0123456789}]", &["9:23 bad-hash"]),
        "64 hexadecimal digits",
    );
    let said = consumer("api_keys: [{key: slk_0123456789}]", &["9:20 plain-secret"]);
    mentions(&said, "`sluice keys hash`");
    assert!(!said.contains("0123456789"), "{said}");
    let key = |more: &str, expected: &[&str]| {
        consumer(&format!("api_keys: [{{sha256: {DIGEST}, {more}}}]"), expected)
    };
    key("prefix: slk_ab12cd", &[]);
    mentions(&key("prefix: slk_ab12cd34567890", &["9:97 bad-value"]), "would tell the key");
    mentions(&key("expires: soon", &["9:98 bad-time"]), "2027-01-01");
    key("expires: 2020", &["9:98 wrong-type"]);
    consumer("passwords: [{username: 'a:b', hash: x}]", &["9:26 bad-value", "9:39 bad-hash"]);
    consumer("certificates: [{}]", &["9:18 missing-field"]);
    consumer("certificates: [{dns: a, cn: b}]", &["9:27 conflicting-fields"]);
    mentions(&consumer("certificates: [{cn: '*'}]", &["9:23 bad-value"]), "any certificate");
    consumer("certificates: [{sha256: ab}]", &["9:27 bad-hash"]);
    let said = consumer("signing_keys: [{id: k, secret: hunter2}]", &["9:34 wrong-type"]);
    mentions(&said, "{file: NAME}");
    assert!(!said.contains("hunter2"), "{said}");
    consumer("signing_keys: [{id: k, secret: {file: a, inline: b}}]", &["9:44 conflicting-fields"]);
    let said = consumer("signing_keys: [{id: k, secret: {inline: 7}}]", &["9:43 wrong-type"]);
    mentions(&said, "in quotes");
    let said =
        consumer("signing_keys: [{id: k, secret: {inline: hunter2}}]", &["9:43 inline-secret"]);
    mentions(&said, "whoever reads this spec");
    assert!(!said.contains("hunter2"), "{said}");
    mentions(
        &consumer(
            "signing_keys: [{id: k, secret: {inline: '[redacted]'}}]",
            &["9:43 redacted-secret"],
        ),
        "write the secret again",
    );
    mentions(
        &consumer("subjects: [{authenticator: kk, value: a}]", &["9:30 unknown-authenticator"]),
        "did you mean `k`?",
    );
    mentions(
        &consumer("subjects: [{authenticator: k, value: a}]", &["9:30 subject-without-tokens"]),
        "is one by api_key",
    );
}

#[test]
fn passwords_are_hashed_well() {
    let password = |hash: &str, expected: &[&str]| {
        let said = consumer(&format!("passwords: [{{username: ann, hash: '{hash}'}}]"), expected);
        assert!(!said.contains(hash), "{said}");
        said
    };
    password(HASH, &[]);
    for (hash, kind) in [
        ("hunter2", "plain text"),
        ("$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW", "bcrypt"),
        ("$argon2i$v=19$m=19456,t=2,p=1$BwcHBwcHBwcHBwcHBwcHBw$AAAA", "argon2i"),
        ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "SHA-1"),
        ("$argon2id$v=19$m=19456", "cannot be read"),
        ("$argon2id$v=19$m=19456,t=2,p=1$BwcHBwcHBwcHBwcHBwcHBw", "no hash by argon2id"),
    ] {
        let said = password(hash, &["9:37 bad-hash"]);
        mentions(&said, if kind == "cannot be read" { "no hash by argon2id" } else { kind });
    }
    let weak = HASH.replace("m=19456", "m=4096");
    mentions(&password(&weak, &["9:37 weak-hash"]), "cheaper to break");
    password(&HASH.replace("m=19456,t=2", "m=47104,t=1"), &[]);
    let greedy = HASH.replace("m=19456", "m=4194304");
    mentions(&password(&greedy, &["9:37 bad-hash"]), "4096 MiB");
    mentions(
        &consumer("passwords: [{username: a, password: hunter2}]", &["9:39 plain-secret"]),
        "`sluice password hash`",
    );
}

#[test]
fn no_two_consumers_have_a_credential() {
    let two = |fields: &str, expected: &[&str]| {
        consumer(&format!("{fields}\n- name: two\n  {fields}"), expected)
    };
    let said = two(&format!("api_keys: [{{sha256: {DIGEST}}}]"), &["11:23 duplicate-key-hash"]);
    mentions(&said, "in consumers[0] on line 9");
    two("passwords: [{username: ann, hash: x}]", &["9:37 bad-hash", "11:37 bad-hash"]);
    two(&format!("passwords: [{{username: ann, hash: '{HASH}'}}]"), &["11:26 duplicate-username"]);
    two("signing_keys: [{id: k, secret: {file: a}}]", &["11:23 duplicate-key-id"]);
    two("certificates: [{dns: a.example.com}]", &["11:18 duplicate-certificate"]);
    let other = DIGEST.replace('5', "6");
    let keys = |digest: &str| format!("api_keys: [{{prefix: slk_a, sha256: {digest}}}]");
    consumer(
        &format!("{}\n- name: two\n  {}", keys(DIGEST), keys(&other)),
        &["11:23 duplicate-prefix"],
    );
    gateway(
        "auth: x",
        "authenticators: [{name: x, jwt: {issuer: any, audiences: any, jwks_file: k.json}}]\nconsumers:\n\
         - {name: a, subjects: [{authenticator: x, value: s}]}\n\
         - {name: b, subjects: [{authenticator: x, value: s}]}\n\
         - {name: a}\n",
        &["8:50 duplicate-subject", "9:10 duplicate-name"],
    );
}

#[test]
fn credentials_that_nobody_looks_at() {
    mentions(
        &gateway(
            "auth: x",
            &format!(
                "authenticators: [{{name: x, api_key: }}]\nconsumers:\n- name: one\n  passwords: \
                 [{{username: ann, hash: '{HASH}'}}]\n"
            ),
            &["8:14 unused-credential"],
        ),
        "{name: basic, basic: {}}",
    );
}

#[test]
fn authenticators() {
    kind("", &["6:3 missing-field"]);
    mentions(&kind("jwtt: {}", &["7:3 unknown-field"]), "did you mean `jwt`?");
    kind("basic: {}\n  signature: {}", &["8:3 conflicting-fields"]);
    kind("basic:", &[]);
    kind("basic: {realm: '\"'}", &["7:18 bad-value"]);
    kind("api_key: {from: []}", &["7:19 empty-list"]);
    mentions(&kind("api_key: {from: [header]}", &["7:20 bad-value"]), "{header: NAME}");
    kind("api_key: {from: [{header: a, query: b}]}", &["7:32 conflicting-fields"]);
    kind("api_key: {from: [{header: Cookie}]}", &["7:29 bad-field-name"]);
    kind("api_key: {from: [{header: host}]}", &["7:29 bad-field-name"]);
    kind("api_key: {from: [{query: a, scheme: b}]}", &["7:39 conflicting-fields"]);
    kind(
        "api_key: {from: [bearer, {header: Authorization, scheme: bearer}]}",
        &["7:28 duplicate-value"],
    );
    mentions(&kind("api_key: {store: redis}", &["7:20 no-redis"]), "redis://127.0.0.1:6379");
    mentions(&kind("api_key: {store: reddis}", &["7:20 bad-value"]), "did you mean `redis`?");
    kind("api_key: {store: {redis: {timeout_ms: 0}}}", &["7:41 out-of-range"]);
    kind("certificate: {consumer_required: 1}", &["7:36 wrong-type"]);
    kind("signature: {components: []}", &["7:27 empty-list"]);
    mentions(
        &kind("signature: {components: ['@status']}", &["7:28 bad-component"]),
        "@method, @target-uri",
    );
    kind("signature: {max_age_s: 0}", &["7:26 out-of-range"]);
    kind("external: {}", &["7:13 missing-field"]);
    kind("external: {url: 'https://x.example', take: [Content-Length]}", &["7:47 bad-field-name"]);
    gateway(
        "priority: low",
        "authenticators: [{name: x, basic: }]\n",
        &["5:25 unused-authenticator"],
    );
}

#[test]
fn json_web_tokens() {
    mentions(
        &jwt("issuer: 'https://id.example.com', discovery: true", &["7:8 missing-field"]),
        "or any",
    );
    jwt("discovery: true, audiences: any", &["7:8 missing-field"]);
    jwt("issuer: any, audiences: any", &["7:8 missing-field"]);
    jwt("issuer: any, audiences: [], jwks_file: a", &["7:33 empty-list"]);
    jwt("issuer: 'https://a/?b', audiences: [a], jwks_file: a", &["7:17 bad-issuer"]);
    mentions(
        &jwt("issuer: any, audiences: any, discovery: true", &["7:49 bad-value"]),
        "URL of the discovery document",
    );
    jwt("issuer: accounts.example.com, audiences: any, discovery: true", &["7:66 bad-value"]);
    tokens("discovery: true", &["7:76 duplicate-key"]);
    tokens("jwks_url: 'https://a.example/k'", &["7:76 conflicting-fields"]);
    mentions(
        &tokens("algorithms: [HS256]", &["7:89 algorithm-mismatch"]),
        "could sign with a secret",
    );
    mentions(&tokens("algorithms: [none]", &["7:89 bad-value"]), "no signature");
    mentions(&tokens("algorithms: [RS265]", &["7:89 bad-value"]), "did you mean `RS256`?");
    tokens("algorithms: []", &["7:88 empty-list"]);
    tokens("algorithms: [RS256, RS256]", &["7:96 duplicate-value"]);
    tokens("leeway_s: 3601", &["7:86 out-of-range"]);
    tokens("allow_endless: true, max_lifetime_s: 5", &["7:91 conflicting-fields"]);
    tokens("require: [{one_of: [a]}]", &["7:86 missing-field"]);
    tokens("require: [{claim: a, one_of: [a], prefix: b}]", &["7:110 conflicting-fields"]);
    tokens("require: [{claim: a, one_of: []}]", &["7:105 empty-list"]);
    tokens("require: ['.a']", &["7:86 bad-claim"]);
    tokens("scope_claims: [a, a]", &["7:94 duplicate-value"]);
    for field in ["Content-Length", "connection", "X-Forwarded-For", "x-consumer-id", "Host"] {
        let said = tokens(&format!("claim_headers: {{sub: {field}}}"), &["7:97 bad-field-name"]);
        mentions(&said, "meaning of its own");
    }
    tokens("claim_headers: {a: x-a, b: X-A}", &["7:103 duplicate-value"]);
    tokens("claim_headers: [a]", &["7:91 wrong-type"]);
    jwt("issuer: any, audiences: any, keys: []", &["7:44 empty-list"]);
    let key = |fields: &str, expected: &[&str]| {
        jwt(&format!("issuer: any, audiences: any, keys: [{{{fields}}}]"), expected)
    };
    key("algorithm: ES256", &["7:45 missing-field"]);
    key("public_key: a.pem", &["7:45 missing-field"]);
    key("public_key: a.pem, algorithm: ES256", &[]);
    mentions(
        &key("public_key: a.pem, algorithm: HS256", &["7:76 algorithm-mismatch"]),
        "sign with it",
    );
    mentions(
        &key("secret: {file: a}, algorithm: RS256", &["7:76 algorithm-mismatch"]),
        "needs a public_key",
    );
    key(
        "public_key: a.pem, algorithm: ES256, kid: a}, {public_key: b.pem, algorithm: ES256, kid: a",
        &["7:135 duplicate-key-id"],
    );
    jwt(
        "issuer: any, audiences: any, algorithms: [RS256], keys: [{public_key: a, algorithm: ES256}]",
        &["7:50 algorithm-mismatch"],
    );
}

#[test]
fn who_is_asked_must_be_reached_safely() {
    let url = |url: &str, more: &str, expected: &[&str]| {
        jwt(&format!("issuer: any, audiences: any, jwks_url: '{url}'{more}"), expected)
    };
    let private = ", allow_private: true";
    url("https://id.example.com/keys", "", &[]);
    mentions(&url("http://id.example.com/keys", "", &["7:48 clear-text"]), "write https://");
    url("http://id.internal/keys", private, &["7:48 clear-text"]);
    url("http://1.1.1.1/keys", private, &["7:48 clear-text"]);
    url("http://127.0.0.1:8080/keys", private, &[]);
    url("http://localhost:8080/keys", private, &[]);
    url("http://10.0.0.1/keys", private, &[]);
    mentions(&url("https://10.0.0.1/keys", "", &["7:48 private-address"]), "allow_private: true");
    url("http://127.0.0.1/keys", "", &["7:48 private-address"]);
    mentions(
        &url("http://169.254.169.254/latest", private, &["7:48 link-local-address"]),
        "never asked",
    );
    let said = url("https://user:pass@id.example.com/", "", &["7:48 bad-url"]);
    assert!(!said.contains("pass@"), "{said}");
    url("id.example.com", "", &["7:48 bad-url"]);
    jwt("issuer: 'http://id.example.com', audiences: any, discovery: true", &["7:69 clear-text"]);
    kind("external: {url: 'http://judge.example.com'}", &["7:19 clear-text"]);
    gateway(
        "auth: [x, y]",
        "authenticators:\n\
         - {name: x, jwt: {issuer: any, audiences: any, jwks_url: 'https://a.example/k'}}\n\
         - {name: y, jwt: {issuer: b, audiences: any, jwks_url: 'https://a.example/k', timeout_ms: 5}}\n",
        &["7:56 conflicting-source"],
    );
}

#[test]
fn clients_of_authorization_servers() {
    let client = |client: &str, expected: &[&str]| {
        kind(
            &format!(
                "introspection: {{url: 'https://a.example/i', audiences: any, client: {client}}}"
            ),
            expected,
        )
    };
    client("{id: a, secret: {file: s}}", &[]);
    client("{id: a, secret: {file: s}, method: post}", &[]);
    client("{id: a, key: k.pem, kid: k}", &[]);
    client("{id: a, cert: c.pem, key: k.pem}", &[]);
    mentions(&client("{id: a}", &["7:71 unproved-client"]), "prove who we are");
    client("{secret: {file: s}}", &["7:71 missing-field"]);
    client("{id: a, method: post}", &["7:71 missing-field"]);
    client("{id: a, cert: c.pem}", &["7:71 missing-field"]);
    client(
        "{id: a, method: tls, secret: {file: s}, cert: c, key: k}",
        &["7:92 conflicting-fields"],
    );
    client("{id: a, secret: {file: s}, kid: k}", &["7:98 conflicting-fields"]);
    mentions(&client("{id: a, method: pots}", &["7:87 bad-value"]), "did you mean `post`?");
    kind(
        "introspection: {audiences: any, client: {id: a, secret: {file: s}}}",
        &["7:18 missing-field"],
    );
    kind(
        "introspection: {url: 'https://a.example/i', client: {id: a, secret: {file: s}}}",
        &["7:18 missing-field"],
    );
    let upstream = |credentials: &str, expected: &[&str]| {
        let text = format!(
            "version: 1\nlisteners: [{{name: a, listen: ':1'}}]\nroutes: [{{name: r, upstream: u}}]\n\
             upstreams:\n- name: u\n  targets: ['10.0.0.1:1']\n  credentials: {{{credentials}}}\n"
        );
        says(&text, expected).join("\n")
    };
    upstream("token_url: 'https://a.example/t', client: {id: a, secret: {file: s}}", &[]);
    upstream("token_url: 'https://a.example/t', client: {id: a}", &["7:59 unproved-client"]);
    upstream("token_url: 'http://a.example/t', client: {id: a, key: k}", &["7:28 clear-text"]);
    upstream("client: {id: a, key: k}", &["7:16 missing-field"]);
    upstream("discovery: true, client: {id: a, key: k}", &["7:28 wrong-type"]);
}

#[test]
fn logins() {
    let login = |fields: &str, expected: &[&str]| {
        kind(
            &format!(
                "login: {{issuer: 'https://a.example', client: {{id: a, secret: {{file: s}}}}, {fields}}}"
            ),
            expected,
        )
    };
    login("discovery: true", &[]);
    login("", &["7:10 missing-field"]);
    login("jwks_url: 'https://a.example/k'", &["7:10 missing-field", "7:10 missing-field"]);
    login(
        "jwks_url: 'https://a.example/k', authorization_url: 'https://a.example/a', token_url: \
         'https://a.example/t'",
        &[],
    );
    mentions(&login("discovery: true, scopes: [email]", &["7:101 bad-scope"]), "`openid`");
    login("discovery: true, callback_path: back", &["7:108 bad-path"]);
    mentions(
        &login("discovery: true, after_logout: //evil.example", &["7:107 bad-path"]),
        "path of this host",
    );
    login("discovery: true, logout_path: /oauth2/callback", &["7:106 duplicate-login-path"]);
    login("discovery: true, cookie: 'a b'", &["7:101 bad-value"]);
    login("discovery: true, lifetime_s: 5", &["7:105 out-of-range"]);
    login("discovery: true, from: [bearer]", &["7:93 unknown-field"]);
    let one = "issuer: 'https://a.example', discovery: true, client: {id: a}";
    gateway(
        "auth: [x, y]",
        &format!(
            "authenticators:\n- {{name: x, login: {{{one}}}}}\n- {{name: y, login: {{{one}, \
             callback_path: /b, logout_path: /l}}}}\n"
        ),
        &["7:20 duplicate-login-path"],
    );
}

#[test]
fn redis() {
    let redis = |fields: &str, expected: &[&str]| {
        gateway("priority: low", &format!("redis: {{{fields}}}\n"), expected)
    };
    redis("url: 'redis://10.0.0.1'", &[]);
    redis("urls: ['rediss://a', 'rediss://b:7000'], ca: ca.pem, cluster: true", &[]);
    redis("", &["5:8 missing-field"]);
    redis("urls: []", &["5:15 empty-list"]);
    redis("url: 'http://a'", &["5:14 bad-url"]);
    redis("url: 'redis://a/x'", &["5:14 bad-url"]);
    let said = redis("url: 'redis://:hunter2@a'", &["5:14 bad-url"]);
    mentions(&said, "`password: {file: FILE}`");
    assert!(!said.contains("hunter2"), "{said}");
    redis("url: 'redis://a', urls: ['redis://b']", &["5:27 conflicting-fields"]);
    redis("urls: ['redis://a', 'rediss://b']", &["5:29 mixed-redis"]);
    redis("url: 'redis://a', ca: ca.pem", &["5:31 ca-without-tls"]);
    redis("url: 'redis://a/3', cluster: true", &["5:14 cluster-database"]);
    redis("url: 'redis://a', username: me", &["5:37 missing-field"]);
    gateway("priority: low", "auth: {throttle: {window_ms: 5}}\n", &["5:30 out-of-range"]);
}

#[test]
fn what_routes_ask() {
    let more = "authenticators: [{name: keys, api_key: }, {name: people, basic: }]\n\
                groups: [{name: gold}]\nconsumers: [{name: guest}]\n";
    let route = |auth: &str, expected: &[&str]| gateway(auth, more, expected);
    route("auth: [keys, people]", &[]);
    mentions(&route("auth: kees", &["4:39 unknown-authenticator"]), "did you mean `keys`?");
    route("auth: [keys, people, x]", &["4:54 unknown-authenticator"]);
    route("auth: {any: [keys, peopel]}", &["4:52 unknown-authenticator"]);
    mentions(&route("auth:", &["4:33 empty-field"]), "let anyone in");
    route("auth: []", &["4:39 empty-list"]);
    route("auth: {all: []}", &["4:45 empty-list"]);
    route("auth: true", &["4:39 wrong-type"]);
    mentions(&route("auth: {scopes: [a]}", &["4:39 missing-field"]), "any, all");
    route("auth: {any: [keys], all: [people]}", &["4:53 conflicting-fields"]);
    route("auth: {any: [keys, keys]}", &["4:52 duplicate-value"]);
    let asks = |rules: &str, expected: &[&str]| {
        route(&format!("auth: {{any: [keys, people], {rules}}}"), expected)
    };
    asks("optional: true", &[]);
    asks("anonymous: guest, scopes: ['orders:read'], groups: [gold], policy: 'true'", &[]);
    mentions(&asks("anonymous: gust", &["4:72 unknown-consumer"]), "did you mean `guest`?");
    asks("anonymous: guest, optional: true", &["4:72 conflicting-fields"]);
    mentions(&asks("groups: [golt]", &["4:70 unknown-group"]), "did you mean `gold`?");
    asks("scopes: ['a b']", &["4:70 bad-scope"]);
    asks("policy: ''", &["4:69 bad-value"]);
    mentions(&asks("optional: true, scopes: [a]", &["4:71 unused-optional"]), "nobody passes");
    asks("hide_credential: true", &["4:61 unknown-field"]);
    // Groups may come with tokens, which the spec cannot know.
    gateway(
        "auth: {any: [x], groups: [anything]}",
        "authenticators: [{name: x, jwt: {issuer: any, audiences: any, jwks_file: a, groups_claim: g}}]\n",
        &[],
    );
}

#[test]
fn authenticators_that_do_not_fit_a_route() {
    let text = "version: 1\nlisteners: [{name: a, listen: ':1'}]\n\
                upstreams: [{name: u, targets: ['10.0.0.1:1']}]\n\
                routes: [{name: r, upstream: u, auth: x}]\nauthenticators: [{name: x, certificate: }]\n";
    mentions(
        &says(text, &["4:39 no-client-certificates"]).join("\n"),
        "client_auth: {mode: request, ca: FILE}",
    );
    let jwt = |name: &str, audience: &str| {
        format!("{{name: {name}, jwt: {{issuer: i, audiences: [{audience}], jwks_file: a}}}}")
    };
    mentions(
        &gateway(
            "auth: [x, y]",
            &format!("authenticators: [{}, {}]\n", jwt("x", "a"), jwt("y", "b")),
            &["4:43 same-issuer"],
        ),
        "`x`",
    );
    let text = "version: 1\nlisteners: [{name: a, listen: ':1'}]\n\
                upstreams: [{name: u, targets: ['10.0.0.1:1'], balance: {hash: consumer}}]\n\
                routes: [{name: r, upstream: u}]\n";
    mentions(&says(text, &["3:64 unused-hash"]).join("\n"), "{hash: client_ip}");
}

#[test]
fn all_problems_are_told_at_once() {
    gateway(
        "auth: {any: [keys], groups: [silver], anonymous: nobody}, cors: {origins: '*', credentials: true}",
        "authenticators:\n- {name: corp, jwt: {issuer: any, jwks_url: 'http://id.example.com/k'}}\n\
         consumers:\n- {name: app, groups: [bronze], api_keys: [{sha256: x}]}\n",
        &[
            "4:46 unknown-authenticator",
            "4:62 unknown-group",
            "4:82 unknown-consumer",
            "4:125 cors-any-with-credentials",
            "6:21 missing-field",
            "8:24 unknown-group",
            "8:53 bad-hash",
        ],
    );
}
