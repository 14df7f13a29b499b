use contract::snapshot::{JwsAlgorithm as Alg, VerifyKey};

use super::*;
use crate::keys::Metadata;

const ISSUER: &str = "https://id.example.com";
const DOCUMENT: &str = "https://id.example.com/.well-known/openid-configuration";

const SPEC: &str = "version: 1
redis: {urls: ['redis://10.0.0.1', 'redis://10.0.0.2:7000/3'], username: g+w, password: {inline: 'p@ss/w:rd'}}
auth: {throttle: {failures: 7, window_ms: 5000}}
authenticators:
- name: keys
  api_key: {from: [bearer, {header: X-Key}, {query: key}], store: {redis: {grace_ms: 0}}}
- name: corp
  jwt: {issuer: 'https://id.example.com', discovery: true, audiences: [api], algorithms: [RS256, ES256],
    require: [tenant], groups_claim: groups, claim_headers: {org.name: X-Org}, from: [{cookie: token}],
    bound_only: true, max_lifetime_s: 600}
- name: own
  jwt: {issuer: any, audiences: any,
    keys: [{secret: {inline: a-secret-of-32-bytes-at-the-least}, algorithm: HS256, kid: k}]}
- name: ask
  introspection: {discovery: 'https://id.example.com/.well-known/openid-configuration', audiences: any,
    client: {id: gw, secret: {inline: s}, method: post}}
- name: web
  login: {issuer: 'https://id.example.com', discovery: true, client: {id: web}, scopes: [openid, email]}
- name: other
  login: {issuer: 'https://id.example.com', discovery: true, client: {id: other}, callback_path: /cb,
    logout_path: /out, cookie: other, audiences: [x], end_session_url: 'https://id.example.com/bye',
    cookie_keys: [{inline: '0101010101010101010101010101010101010101010101010101010101010101'},
      {inline: 'AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI='}]}
- {name: ext, external: {url: 'https://judge.example.com', take: [X-User], cache_ms: 5}}
limits: [{name: plan, requests: 5, per: 1s}, {name: other, concurrency: 2}, {name: own, concurrency: 1}]
groups: [{name: gold, scopes: [b, a], limits: plan}, {name: staff, scopes: [c], limits: other}]
consumers:
- name: app
  groups: [staff, gold]
  scopes: [z, a]
  api_keys:
  - {sha256: 'ab00000000000000000000000000000000000000000000000000000000000000', expires: 2027-01-01, scopes: [b, a]}
  - {sha256: 'cd00000000000000000000000000000000000000000000000000000000000000', prefix: slk_x}
  certificates: [{uri: 'spiffe://example.org/**'}, {cn: client}]
  signing_keys: [{id: k, secret: {inline: another-secret-of-32-bytes-or-so}}]
  subjects: [{authenticator: corp, value: 'u|1'}]
- {name: guest, limits: own}
listeners: [{name: a, listen: ':1'}]
upstreams:
- {name: u, targets: ['10.0.0.1:1'],
   credentials: {discovery: 'https://id.example.com/.well-known/openid-configuration',
     client: {id: gw, secret: {inline: s}}, audience: api, scopes: [a]}}
routes:
- name: r
  upstream: u
  auth: {all: [corp, keys], anonymous: guest, scopes: [s], groups: [gold], policy: 'true', hide_credentials: true}
  networks: {allow: [10.0.0.0/8], deny: [10.1.0.0/16]}
  cors: {origins: ['https://*.a.example'], credentials: true, methods: [GET]}
- {name: open, upstream: u, match: {path: /open}, auth: [web, other, own, ask, ext]}
";

fn rsa() -> VerifyKey {
    let mut modulus = vec![0xff; 256];
    modulus[255] = 1;
    VerifyKey {
        kid: Some("r".into()),
        algorithms: vec![Alg::Rs256, Alg::Rs512, Alg::Ps256],
        material: flat::KeyMaterial::Rsa { modulus, exponent: vec![1, 0, 1] },
    }
}

fn fetched() -> Fetched {
    let url = |path: &str| Some(format!("{ISSUER}/{path}"));
    let metadata = Metadata {
        issuer: ISSUER.into(),
        jwks_uri: url("keys"),
        introspection_endpoint: url("introspect"),
        authorization_endpoint: url("authorize"),
        token_endpoint: url("token"),
        end_session_endpoint: url("end"),
    };
    Fetched {
        sets: [(DOCUMENT.to_string(), vec![rsa()])].into(),
        metadata: [(DOCUMENT.to_string(), metadata)].into(),
    }
}

fn with(text: &str, fetched: &Fetched, cookie_keys: &[[u8; 32]]) -> flat::Snapshot {
    let inputs = Inputs {
        resolve: &|_| Vec::new(),
        material: &Material::default(),
        ticket_keys: &[],
        cookie_keys,
        fetched,
        before: None,
    };
    compile(&spec(text), 1, 1, &inputs)
}

fn whole() -> flat::Snapshot {
    with(SPEC, &fetched(), &[[7; 32], [8; 32]])
}

#[test]
fn consumers_have_what_their_groups_have() {
    let snapshot = whole();
    assert_eq!(flat::Snapshot::decode(&snapshot.encode()).as_ref(), Ok(&snapshot));
    let auth = &snapshot.auth;
    let [app, guest] = &auth.consumers[..] else { panic!("{auth:?}") };
    assert_eq!(app.scopes, ["a", "b", "c", "z"]);
    assert_eq!(app.groups, ["staff", "gold"]);
    // The first group's that has one; one of its own goes before.
    assert_eq!((app.limits.as_deref(), guest.limits.as_deref()), (Some("other"), Some("own")));
    let [one, two] = &app.api_keys[..] else { panic!("{app:?}") };
    assert_eq!((&*one.prefix, one.expires_ms), ("ab000000", 1_798_761_600_000));
    assert_eq!(one.scopes.as_deref(), Some(&["a".to_string(), "b".into()][..]));
    assert_eq!((&*two.prefix, two.expires_ms, &two.scopes), ("slk_x", 0, &None));
    assert_eq!(
        app.certificates,
        [
            flat::CertificateMatch::Uri(flat::NamePattern::Glob("spiffe://example.org/**".into())),
            flat::CertificateMatch::CommonName(flat::NamePattern::Exact("client".into())),
        ]
    );
    assert_eq!(app.subjects, [flat::Subject { authenticator: 1, value: "u|1".into() }]);
    assert_eq!(app.signing_keys[0].secret, b"another-secret-of-32-bytes-or-so");
    assert_eq!(auth.throttle, flat::Throttle { failures: 7, window_ms: 5_000 });
    let redis = auth.redis.as_ref().expect("is there");
    assert_eq!(
        redis.urls,
        ["redis://g%2Bw:p%40ss%2Fw%3Ard@10.0.0.1", "redis://g%2Bw:p%40ss%2Fw%3Ard@10.0.0.2:7000/3"]
    );
}

#[test]
fn authenticators_have_what_providers_say() {
    let auth = whole().auth;
    let kinds: Vec<&flat::AuthenticatorKind> =
        auth.authenticators.iter().map(|one| &one.kind).collect();
    let [
        flat::AuthenticatorKind::ApiKey(keys),
        flat::AuthenticatorKind::Jwt(corp),
        flat::AuthenticatorKind::Jwt(own),
        flat::AuthenticatorKind::Introspection(ask),
        flat::AuthenticatorKind::Login(web),
        flat::AuthenticatorKind::Login(other),
        flat::AuthenticatorKind::External(ext),
    ] = kinds[..]
    else {
        panic!("{kinds:?}")
    };
    let bearer = flat::CredentialSource::Header {
        name: "authorization".into(),
        scheme: Some("Bearer".into()),
    };
    assert_eq!((keys.from.len(), &keys.from[0]), (3, &bearer));
    let flat::KeyStore::Redis(store) = &keys.store else { panic!("{keys:?}") };
    assert_eq!((&*store.prefix, store.grace_ms), ("sluice:key:", 0));

    assert_eq!(corp.tokens.issuer.as_deref(), Some(ISSUER));
    assert_eq!(corp.tokens.audiences, ["api"]);
    assert_eq!(corp.tokens.claim_headers, [("org.name".to_string(), "x-org".to_string())]);
    assert!(corp.tokens.bound_only && corp.max_lifetime_s == 600);
    let set = &auth.key_sets[corp.keys as usize];
    assert_eq!((&*set.source, set.loaded, set.wish), (DOCUMENT, true, Some(0)));
    // What the provider offers, as far as it is allowed.
    assert_eq!(set.keys[0].algorithms, [Alg::Rs256]);
    let set = &auth.key_sets[own.keys as usize];
    assert_eq!((&*set.source, set.loaded, set.wish), ("", true, None));
    assert_eq!(set.keys[0].algorithms, [Alg::Hs256]);
    assert_eq!((&own.tokens.issuer, own.tokens.audiences.len()), (&None, 0));

    assert_eq!(ask.endpoint.url, format!("{ISSUER}/introspect"));
    assert_eq!(ask.client.proof, flat::ClientProof::Post("s".into()));
    assert_eq!(web.authorization_url, format!("{ISSUER}/authorize"));
    assert_eq!(web.token.url, format!("{ISSUER}/token"));
    assert_eq!(web.end_session_url, format!("{ISSUER}/end"));
    assert_eq!((&web.tokens.audiences[..], web.tokens.from.len()), (&["web".to_string()][..], 0));
    assert_eq!(auth.key_sets[web.keys as usize].wish, Some(0));
    assert_eq!(other.end_session_url, format!("{ISSUER}/bye"));
    assert_eq!(other.tokens.audiences, ["x"]);
    assert_eq!(other.cookie_keys, [[1; 32], [2; 32]]);
    // The node's own keys are of each login alone.
    assert_eq!(web.cookie_keys.len(), 2);
    assert!(!web.cookie_keys.contains(&[7; 32]));
    let renamed = with(
        &SPEC.replace("name: web", "name: web2").replace("[web,", "[web2,"),
        &fetched(),
        &[[7; 32], [8; 32]],
    );
    let flat::AuthenticatorKind::Login(login) = &renamed.auth.authenticators[4].kind else {
        panic!()
    };
    assert_ne!(login.cookie_keys, web.cookie_keys);
    assert_eq!((&ext.take[..], ext.cache_ms), (&["x-user".to_string()][..], 5));
}

#[test]
fn nobody_is_let_in_before_providers_have_answered() {
    let snapshot = with(SPEC, &Fetched::default(), &[[7; 32]]);
    assert_eq!(flat::Snapshot::decode(&snapshot.encode()).as_ref(), Ok(&snapshot));
    let auth = &snapshot.auth;
    let loaded: Vec<bool> = auth.key_sets.iter().map(|set| set.loaded).collect();
    assert_eq!(loaded, [false, true, false, false]);
    let flat::AuthenticatorKind::Introspection(ask) = &auth.authenticators[3].kind else {
        panic!()
    };
    assert_eq!(ask.endpoint.url, "");
    let flat::AuthenticatorKind::Login(web) = &auth.authenticators[4].kind else { panic!() };
    assert_eq!((&*web.authorization_url, &*web.token.url), ("", ""));
    let credentials = snapshot.upstreams[0].credentials.as_ref().expect("is there");
    assert_eq!(credentials.endpoint.url, "");
}

#[test]
fn routes_and_upstreams_name_them() {
    let snapshot = whole();
    let auth = snapshot.routes[0].auth.as_ref().expect("is there");
    assert_eq!(
        *auth,
        flat::RouteAuth {
            authenticators: vec![1, 0],
            all: true,
            unidentified: flat::Unidentified::As(1),
            scopes: vec!["s".into()],
            groups: vec!["gold".into()],
            policy: Some("true".into()),
            hide_credentials: true,
        }
    );
    let networks = snapshot.routes[0].networks.as_ref().expect("is there");
    assert_eq!((networks.allow[0].prefix, networks.deny[0].prefix), (8, 16));
    let cors = snapshot.routes[0].cors.as_ref().expect("is there");
    assert_eq!(cors.origins, flat::Origins::Listed(vec!["https://*.a.example".into()]));
    assert!(cors.credentials && cors.max_age_s == 600);
    let credentials = snapshot.upstreams[0].credentials.as_ref().expect("is there");
    assert_eq!(credentials.endpoint.url, format!("{ISSUER}/token"));
    assert_eq!(credentials.client.proof, flat::ClientProof::Basic("s".into()));
    assert_eq!(credentials.audience.as_deref(), Some("api"));
}

#[test]
fn the_version_is_that_of_what_identifies_callers() {
    let (fetched, keys) = (fetched(), [[7; 32]]);
    let version = |text: &str| with(text, &fetched, &keys).auth.version;
    let base = version(SPEC);
    assert_ne!(base, 0);
    assert_eq!(version(SPEC), base);
    // Of routes and upstreams nothing is remembered by it.
    assert_eq!(version(&SPEC.replace("policy: 'true'", "policy: 'false'")), base);
    assert_eq!(version(&SPEC.replace("10.0.0.1:1'", "10.0.0.9:1'")), base);
    for (from, to) in [
        ("failures: 7", "failures: 8"),
        ("p@ss", "pass"),
        ("{inline: s}, method", "{inline: t}, method"),
        ("another-secret", "altered-secret"),
        ("a-secret-of", "b-secret-of"),
        ("scopes: [c]", "scopes: [d]"),
        ("sha256: 'ab", "sha256: 'ac"),
        ("grace_ms: 0", "grace_ms: 1"),
        ("inline: '01", "inline: '02"),
    ] {
        let other = SPEC.replace(from, to);
        assert_ne!(other, SPEC);
        assert_ne!(version(&other), base, "{from}");
    }
    let mut more = fetched.clone();
    more.sets.get_mut(DOCUMENT).expect("is there").push(VerifyKey { kid: None, ..rsa() });
    assert_ne!(with(SPEC, &more, &keys).auth.version, base);
    assert_ne!(with(SPEC, &fetched, &[[9; 32]]).auth.version, base);
    let none = with(include_str!("../../../../examples/minimal.yaml"), &fetched, &keys);
    assert_eq!(none.auth.version, 0);
}
