//! The files and secrets of authentication in a spec, and how secrets that stand in it are left out
//! where it is shown.

use serde_json::Value;

use super::read::REDACTED;
use super::{
    Authenticator, AuthenticatorKind, ClientCredentials, ClientProof, Consumer, Fetch,
    JwsAlgorithm, KeySource, List, Loaded, OAuthClient, Password, Redis, Secret, Spec, StaticKey,
    StaticMaterial,
};

/// The only field of specs that holds a secret as it is, whatever it is in.
const INLINE: &str = "inline";
/// What is as good as a secret beside a `username`: whoever has a password's hash can try passwords at
/// leisure. An API key's is none, as nobody finds 256 random bits by it.
const HASH: &str = "hash";

/// What authentication reads from outside of the spec, or keeps to itself.
#[derive(Debug)]
pub enum Part<'s> {
    Secret(&'s mut Secret, SecretUse),
    /// A file with issuers.
    Ca(&'s mut String),
    /// A file with a JWK Set, and what its keys may be for.
    Jwks(&'s mut String, &'s [JwsAlgorithm]),
    /// A file with a public key.
    PublicKey(&'s mut String, JwsAlgorithm),
    /// A file with a private key that signs assertions.
    PrivateKey(&'s mut String),
    /// Files with a certificate and its key.
    Pair(&'s mut String, &'s mut String),
}

/// What a secret must be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretUse {
    /// Sent as text.
    Text,
    /// Key of an HMAC, of this many bytes at least.
    Hmac(usize),
    /// 32 bytes, in hexadecimal or base64.
    Seal,
}

impl Spec {
    /// The parts of authentication that are files or secrets, with the path of their field; of a pair
    /// that of what has it.
    pub fn auth_parts_mut(&mut self) -> Vec<(String, Part<'_>)> {
        let Spec { redis, authenticators, consumers, upstreams, .. } = self;
        let mut parts = callers(redis.as_mut(), authenticators, consumers);
        for (at, upstream) in upstreams.iter_mut_if(|one| one.credentials.is_some()) {
            credentials(at, upstream.credentials.as_mut(), &mut parts);
        }
        parts
    }
}

pub(super) fn callers<'s>(
    redis: Option<&'s mut Redis>,
    authenticators: &'s mut [Authenticator],
    consumers: &'s mut List<Consumer>,
) -> Parts<'s> {
    let mut parts = Vec::new();
    if let Some(redis) = redis {
        if let Some(password) = &mut redis.password {
            parts.push(("redis.password".into(), Part::Secret(password, SecretUse::Text)));
        }
        parts.extend(redis.ca.as_mut().map(|ca| ("redis.ca".into(), Part::Ca(ca))));
    }
    for (at, one) in authenticators.iter_mut().enumerate() {
        let path = format!("authenticators[{at}].{}", one.kind.word());
        authenticator(&path, &mut one.kind, &mut parts);
    }
    for (at, consumer) in consumers.iter_mut_if(|one| !one.signing_keys.is_empty()) {
        for (n, key) in consumer.signing_keys.iter_mut().enumerate() {
            let field = format!("consumers[{at}].signing_keys[{n}].secret");
            // RFC 2104 §3: not shorter than the hash.
            parts.push((field, Part::Secret(&mut key.secret, SecretUse::Hmac(32))));
        }
    }
    parts
}

fn authenticator<'s>(path: &str, kind: &'s mut AuthenticatorKind, parts: &mut Parts<'s>) {
    match kind {
        AuthenticatorKind::Jwt(jwt) => {
            key_source(path, &mut jwt.keys, &jwt.algorithms, parts);
            fetch(path, &mut jwt.fetch, parts);
        }
        AuthenticatorKind::Introspection(one) => {
            client(path, &mut one.client, parts);
            fetch(path, &mut one.fetch, parts);
        }
        AuthenticatorKind::Login(login) => {
            key_source(path, &mut login.keys, &login.algorithms, parts);
            client(path, &mut login.client, parts);
            for (n, key) in login.cookie_keys.iter_mut().enumerate() {
                let field = format!("{path}.cookie_keys[{n}]");
                parts.push((field, Part::Secret(key, SecretUse::Seal)));
            }
            fetch(path, &mut login.fetch, parts);
        }
        AuthenticatorKind::External(external) => fetch(path, &mut external.fetch, parts),
        AuthenticatorKind::ApiKey(_)
        | AuthenticatorKind::Certificate(_)
        | AuthenticatorKind::Basic(_)
        | AuthenticatorKind::Signature(_) => {}
    }
}

pub(super) fn credentials<'s>(
    upstream: usize,
    credentials: Option<&'s mut ClientCredentials>,
    parts: &mut Parts<'s>,
) {
    let Some(credentials) = credentials else { return };
    let path = format!("upstreams[{upstream}].credentials");
    client(&path, &mut credentials.client, parts);
    fetch(&path, &mut credentials.fetch, parts);
}

impl<'s> Part<'s> {
    /// The files, with the name of their field below the part's.
    pub(super) fn files(self) -> Vec<(&'static str, &'s mut String)> {
        match self {
            Part::Secret(Secret::Env(_) | Secret::Command(_) | Secret::Inline(_), _) => Vec::new(),
            Part::Secret(Secret::File(file), _) => vec![(".file", file)],
            Part::Ca(file)
            | Part::Jwks(file, _)
            | Part::PublicKey(file, _)
            | Part::PrivateKey(file) => vec![("", file)],
            Part::Pair(cert, key) => vec![(".cert", cert), (".key", key)],
        }
    }
}

pub(super) type Parts<'s> = Vec<(String, Part<'s>)>;

fn key_source<'s>(
    path: &str,
    keys: &'s mut KeySource,
    algorithms: &'s [JwsAlgorithm],
    parts: &mut Parts<'s>,
) {
    match keys {
        KeySource::Discovery(_) | KeySource::JwksUrl(_) => {}
        KeySource::JwksFile(file) => {
            parts.push((format!("{path}.jwks_file"), Part::Jwks(file, algorithms)));
        }
        KeySource::Keys(keys) => {
            for (at, StaticKey { material, algorithm, .. }) in keys.iter_mut().enumerate() {
                let path = format!("{path}.keys[{at}]");
                parts.push(match material {
                    StaticMaterial::Secret(secret) => {
                        // RFC 7518 §3.2: as long as the hash.
                        let least = match algorithm {
                            JwsAlgorithm::Hs512 => 64,
                            JwsAlgorithm::Hs384 => 48,
                            _ => 32,
                        };
                        (format!("{path}.secret"), Part::Secret(secret, SecretUse::Hmac(least)))
                    }
                    StaticMaterial::PublicKey(file) => {
                        (format!("{path}.public_key"), Part::PublicKey(file, *algorithm))
                    }
                });
            }
        }
    }
}

fn client<'s>(path: &str, client: &'s mut OAuthClient, parts: &mut Parts<'s>) {
    let path = format!("{path}.client");
    match &mut client.proof {
        ClientProof::None => {}
        ClientProof::Basic(secret) | ClientProof::Post(secret) => {
            parts.push((format!("{path}.secret"), Part::Secret(secret, SecretUse::Text)));
        }
        ClientProof::PrivateKeyJwt { key, .. } => {
            parts.push((format!("{path}.key"), Part::PrivateKey(key)));
        }
        ClientProof::Tls { cert, key } => parts.push((path, Part::Pair(cert, key))),
    }
}

fn fetch<'s>(path: &str, fetch: &'s mut Fetch, parts: &mut Parts<'s>) {
    parts.extend(fetch.ca.as_mut().map(|ca| (format!("{path}.ca"), Part::Ca(ca))));
}

/// Leaves secrets out of a piece of a spec's canonical form.
pub fn redact(value: &mut Value) {
    each_secret(value, &mut |text| *text = REDACTED.into());
}

fn each_secret<'v>(value: &'v mut Value, told: &mut impl FnMut(&'v mut String)) {
    match value {
        Value::Object(fields) => {
            let password = fields.contains_key("username");
            for (name, value) in fields {
                let secret = name == INLINE || (password && name == HASH);
                match value {
                    Value::String(text) => {
                        if secret {
                            told(text);
                        }
                    }
                    value => each_secret(value, told),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| each_secret(value, told)),
        _ => {}
    }
}

/// Whether the path of a field, from a consumer or from less, says that it is a secret.
pub fn is_secret(field: &str) -> bool {
    let named = |name| {
        field.strip_suffix(name).filter(|rest: &&str| rest.is_empty() || rest.ends_with('.'))
    };
    let list = |rest: &str| rest.starts_with("passwords[") || rest.contains(".passwords[");
    named(INLINE).is_some() || named(HASH).is_some_and(list)
}

/// The canonical form `spec` (JSON), and the text `source` that it was written as, without secrets.
///
/// Where they cannot be taken out of the text, it becomes the canonical form.
pub fn redacted(spec: &str, source: &str) -> (Value, String) {
    // What control stored is JSON; were it damaged, nothing of it would be shown.
    let whole: Value = serde_json::from_str(spec).unwrap_or_default();
    let mut shown = whole.clone();
    redact(&mut shown);
    if shown == whole && !whole.is_null() {
        return (shown, source.into());
    }
    let (mut whole, mut secrets) = (whole, Vec::new());
    each_secret(&mut whole, &mut |secret| secrets.push(&*secret));
    let text = without(source, &super::load("source", source));
    let text = text.filter(|text| !secrets.iter().any(|secret| text.contains(secret.as_str())));
    let text = text.unwrap_or_else(|| serde_json::to_string_pretty(&shown).unwrap_or_default());
    (shown, text)
}

/// The text with its secrets replaced where they stand; `None`: not all of them could be.
fn without(text: &str, loaded: &Loaded) -> Option<String> {
    let mut spec = loaded.spec.clone()?;
    let mut secrets: Vec<(String, String)> = Vec::new();
    for (at, consumer) in spec.consumers.iter().enumerate() {
        let hash = |(n, one): (usize, &Password)| {
            (format!("consumers[{at}].passwords[{n}].{HASH}"), one.hash.clone())
        };
        secrets.extend(consumer.passwords.iter().enumerate().map(hash));
    }
    for (field, part) in spec.auth_parts_mut() {
        let Part::Secret(Secret::Inline(secret), _) = part else { continue };
        secrets.push((format!("{field}.{INLINE}"), secret.clone()));
    }
    let mut edits = Vec::new();
    for (field, secret) in secrets {
        let start = super::files::offset(text, loaded.places.get(&field))?;
        let length = super::files::written(text.get(start..)?, &secret)?;
        edits.push((start, length));
    }
    // One that an alias repeats stands in one place.
    edits.sort_unstable();
    edits.dedup();
    let mut changed = text.to_owned();
    for (start, length) in edits.into_iter().rev() {
        changed.replace_range(start..start + length, &format!("\"{REDACTED}\""));
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "version: 1
listeners: [{name: web, listen: ':8080'}]
upstreams: [{name: a, targets: ['a:1']}]
authenticators: [{name: signed, signature: {}}]
consumers:
  - name: one
    signing_keys:
      - {id: k1, secret: {inline: plain-secret-of-32-bytes-and-more}}  # rotate me
      - {id: k2, secret: {inline: \"quoted secret\"}}
      - {id: k3, secret: {file: /run/secrets/k3}}
routes: [{name: r, upstream: a, auth: signed}]
";

    #[test]
    fn secrets_by_reference_are_read_whole_or_refused() {
        let of = |secret: &str| {
            let text = SPEC.replace("{file: /run/secrets/k3}", secret);
            let loaded = super::super::load("t.yaml", &text);
            let codes: Vec<&str> = loaded.problems.iter().map(|one| one.code).collect();
            let last = loaded.spec.map(|spec| spec.consumers[0].signing_keys[2].secret.clone());
            last.ok_or_else(|| {
                codes.into_iter().find(|code| *code != "inline-secret").unwrap_or("")
            })
        };
        assert_eq!(of("{env: CLIENT_SECRET}"), Ok(Secret::Env("CLIENT_SECRET".into())));
        let Ok(Secret::Command(command)) = of("{command: [vault, read, '7']}") else { panic!() };
        assert_eq!((command.to_string(), command.refresh.seconds()), ("vault read 7".into(), 300));
        let Ok(Secret::Command(command)) = of("{command: [a], refresh: 90s}") else { panic!() };
        assert_eq!(command.refresh.to_string(), "90s");
        for (secret, code) in [
            ("{command: vault read}", "wrong-type"),
            ("{command: [vault, 7]}", "wrong-type"),
            ("{command: []}", "bad-value"),
            ("{command: ['', a]}", "bad-value"),
            ("{command: [a], refresh: 5s}", "bad-value"),
            ("{command: [a], refresh: +5m}", "bad-value"),
            ("{command: [a], refresh: never}", "bad-value"),
            ("{file: a, refresh: 5m}", "conflicting-fields"),
            ("{file: a, env: B}", "conflicting-fields"),
            ("{env: 1A}", "bad-value"),
            ("{env: 'A B'}", "bad-value"),
            ("{}", "missing-field"),
        ] {
            assert_eq!(of(secret), Err(code), "{secret}");
        }
    }

    #[test]
    fn what_is_shown_has_no_secret_and_the_rest_as_written() {
        let spec = super::super::load("t.yaml", SPEC).spec.expect("loads");
        let canonical = serde_json::to_string(&spec).expect("serialises");
        assert!(canonical.contains("quoted secret"), "the store has all of it");
        let (shown, text) = redacted(&canonical, SPEC);
        let expected = SPEC
            .replace("plain-secret-of-32-bytes-and-more", "\"[redacted]\"")
            .replace("\"quoted secret\"", "\"[redacted]\"");
        assert_eq!(text, expected);
        let keys = &shown["consumers"][0]["signing_keys"];
        assert_eq!(keys[0]["secret"]["inline"], REDACTED);
        assert_eq!(keys[2]["secret"]["file"], "/run/secrets/k3");
        assert!(!shown.to_string().contains("quoted secret"));
        // What is shown cannot be taken for a spec.
        let problems = super::super::load("t.yaml", &text).problems;
        assert!(problems.iter().all(|one| one.code == "redacted-secret"), "{problems:?}");
        assert_eq!(problems.len(), 2);
    }

    /// Every place for a secret in a spec has one, and none is left in what is shown.
    #[test]
    fn secrets_of_all_kinds_are_left_out() {
        let client = |n: u8| format!("client: {{id: g, secret: {{inline: client-secret-{n}}}}}");
        let hash = crate::spec::tests::HASH;
        let source = format!(
            "version: 1
listeners: [{{name: web, listen: ':8080'}}]
redis: {{url: 'redis://10.0.0.1', password: {{inline: redis-password}}}}
upstreams:
  - name: a
    targets: ['a:1']
    balance: {{hash: client_ip}}
    credentials: {{token_url: 'https://id.example.com/t', {}}}
authenticators:
  - {{name: keys, api_key: {{}}}}
  - {{name: signed, signature: {{}}}}
  - {{name: people, basic: {{}}}}
  - name: shared
    jwt:
      issuer: any
      audiences: any
      algorithms: [HS256]
      keys: [{{algorithm: HS256, secret: {{inline: key-of-tokens-of-at-least-32-bytes}}}}]
  - name: asked
    introspection: {{url: 'https://id.example.com/i', audiences: any, {}}}
  - name: web
    login:
      issuer: https://id.example.com
      discovery: true
      cookie_keys: [{{inline: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}}]
      {}
consumers:
  - name: one
    api_keys: [{{sha256: {}, prefix: slk_ab}}]
    passwords:
      - {{username: one, hash: '{hash}'}}
      - username: two
        hash: {hash}
    signing_keys: [{{id: k, secret: {{inline: \"signing-secret-of-at-least-32-bytes\"}}}}]
routes: [{{name: r, upstream: a, auth: {{any: [keys, signed, people, shared, asked, web]}}}}]
",
            client(1),
            client(2),
            client(3),
            "ab".repeat(32)
        );
        let loaded = super::super::load("t.yaml", &source);
        let spec = loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.problems));
        let canonical = serde_json::to_string(&spec).expect("serialises");
        let (shown, text) = redacted(&canonical, &source);
        let shown = shown.to_string();
        let secrets = [
            "redis-password",
            "client-secret-1",
            "client-secret-2",
            "client-secret-3",
            "key-of-tokens-of-at-least-32-bytes",
            "0123456789abcdef0123456789abcdef",
            "signing-secret-of-at-least-32-bytes",
            "argon2id",
        ];
        for secret in secrets {
            assert!(canonical.contains(secret), "{secret}: the store has all of it");
            assert!(!shown.contains(secret) && !text.contains(secret), "{secret}: {text}");
        }
        assert_eq!(text.matches(REDACTED).count(), 9, "{text}");
        assert_eq!(shown.matches(REDACTED).count(), 9, "{shown}");
        assert!(text.starts_with("version: 1\n"), "the rest is as it was written: {text}");
        assert!(shown.contains("client_ip") && text.contains("balance: {hash: client_ip}"));
        let problems = super::super::load("t.yaml", &text).problems;
        assert!(problems.iter().all(|one| one.code == "redacted-secret"), "{problems:?}");
    }

    #[test]
    fn a_secret_that_stands_elsewhere_too_makes_the_text_canonical() {
        let source = SPEC.replace("# rotate me", "# quoted secret");
        let spec = super::super::load("t.yaml", &source).spec.expect("loads");
        let canonical = serde_json::to_string(&spec).expect("serialises");
        for source in [source.as_str(), "no: spec", ""] {
            let (_, text) = redacted(&canonical, source);
            assert!(text.starts_with('{') && !text.contains("quoted secret"), "{text}");
        }
        let (shown, text) = redacted("damaged", SPEC);
        assert_eq!((shown, text.contains("secret-of")), (Value::Null, false));
    }

    #[test]
    fn a_spec_without_secrets_is_shown_as_written() {
        let source = include_str!("../../../examples/minimal.yaml");
        let spec = super::super::load("t.yaml", source).spec.expect("loads");
        let canonical = serde_json::to_value(&spec).expect("serialises");
        assert_eq!(redacted(&canonical.to_string(), source), (canonical, source.into()));
    }

    /// Whatever is called `inline` is taken for a secret, and nothing else is.
    #[test]
    fn only_secrets_are_called_inline() {
        fn count(value: &Value) -> usize {
            let own =
                value.get("properties").map_or(0, |one| usize::from(one.get(INLINE).is_some()));
            let below: usize = match value {
                Value::Object(fields) => fields.values().map(count).sum(),
                Value::Array(list) => list.iter().map(count).sum(),
                _ => 0,
            };
            own + below
        }
        assert_eq!(count(&super::super::schema()), 1);
        assert!(is_secret("secret.inline") && is_secret("inline") && !is_secret("online"));
        assert!(is_secret("passwords[a.b].hash") && !is_secret("balance.hash"));
        assert!(is_secret("consumers[a].passwords[b].hash") && !is_secret("passwords[a].username"));
    }
}
