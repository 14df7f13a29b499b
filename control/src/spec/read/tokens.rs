//! Authenticators by tokens.

use std::collections::BTreeMap;

use super::authenticators::{fetch, from, url};
use super::consumers::{key_id, secret};
use super::fields::{Fields, Walk};
use super::oauth::client;
use super::parts::{HOUR_MS, count, flag, one_of};
use super::route::unique;
use super::tls::file;
use crate::spec::model::*;
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

const ALGORITHMS: [JwsAlgorithm; 13] = [
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
    JwsAlgorithm::Hs256,
    JwsAlgorithm::Hs384,
    JwsAlgorithm::Hs512,
];

pub(super) const KEY_SOURCES: [&str; 4] = ["discovery", "jwks_url", "jwks_file", "keys"];

pub(super) fn jwt(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Jwt> {
    const KNOWN: &[&str] = &[
        "issuer",
        "discovery",
        "jwks_url",
        "jwks_file",
        "keys",
        "algorithms",
        "audiences",
        "from",
        "max_lifetime_s",
        "allow_endless",
        "access_token",
        "bound_only",
        "leeway_s",
        "require",
        "scope_claims",
        "groups_claim",
        "consumer_claim",
        "consumer_required",
        "claim_headers",
        "ca",
        "allow_private",
        "timeout_ms",
    ];
    let f = &walk.fields(node, path, KNOWN)?;
    let issuer = f.require(walk, "issuer", "what `iss` must be, or any", |walk, node, path| {
        or_any(walk, node, path, |walk, node, path| {
            walk.parsed(node, path, "bad-issuer", scalars::issuer)
        })
    });
    let keys = key_source(walk, f, issuer.as_ref().and_then(OrAny::as_option));
    let audiences = f.require(walk, "audiences", "what `aud` must name, or any", audiences);
    let from = f.read(walk, "from", from).unwrap_or_else(bearer);
    let algorithms = algorithms(walk, f, keys.as_ref());
    let jwt = Jwt {
        max_lifetime_s: count(walk, f, "max_lifetime_s", 0, u32::MAX.into(), 0),
        allow_endless: flag(walk, f, "allow_endless", false),
        access_token: flag(walk, f, "access_token", false),
        bound_only: flag(walk, f, "bound_only", false),
        claims: claims(walk, f),
        fetch: fetch(walk, f),
        from,
        algorithms,
        issuer: issuer?,
        audiences: audiences?,
        keys: keys?,
    };
    Some(jwt)
}

/// Something, or the word `any`.
fn or_any<T>(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
    read: impl FnOnce(&mut Walk<'_>, &Node, &str) -> Option<T>,
) -> Option<OrAny<T>> {
    if matches!(&node.value, Value::Text(text) if text == "any") {
        walk.places.set(path, node.mark);
        return Some(OrAny::ANY);
    }
    read(walk, node, path).map(OrAny::Some)
}

pub(super) fn audiences(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
) -> Option<OrAny<Vec<String>>> {
    or_any(walk, node, path, |walk, node, path| {
        let list = unique(walk, node, path, "bad-value", |text| match text.len() {
            1..=1_024 => Ok(text.into()),
            _ => Err("expected an audience of 1 to 1024 characters".into()),
        })?;
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            let message = "no token could be for nobody; name an audience, or write \
                           `audiences: any`";
            walk.error("empty-list", node, path, message.into());
        }
        Some(list)
    })
}

pub(super) fn key_source(
    walk: &mut Walk<'_>,
    f: &Fields<'_>,
    issuer: Option<&String>,
) -> Option<KeySource> {
    if !KEY_SOURCES.iter().any(|name| f.is_misspelt(name)) {
        one_of(walk, f, &KEY_SOURCES)?;
    }
    let file = |walk: &mut Walk<'_>, node: &Node, path: &str| file(walk, node, path);
    discovery(walk, f, issuer)
        .map(KeySource::Discovery)
        .or_else(|| f.read(walk, "jwks_url", url).map(KeySource::JwksUrl))
        .or_else(|| f.read(walk, "jwks_file", file).map(KeySource::JwksFile))
        .or_else(|| f.read(walk, "keys", static_keys).map(KeySource::Keys))
}

fn discovery(walk: &mut Walk<'_>, f: &Fields<'_>, issuer: Option<&String>) -> Option<Discovery> {
    let node = f.node("discovery")?;
    let path = f.at("discovery");
    if matches!(node.value, Value::Text(_)) {
        return url(walk, node, &path).map(Discovery::At);
    }
    walk.places.set(&path, node.mark);
    match node.value {
        Value::Bool(true) => {}
        _ => {
            walk.wrong_type(node, &path, "true, or the URL of the discovery document");
            return None;
        }
    }
    match issuer {
        Some(issuer) if scalars::url(issuer).is_ok() => Some(Discovery::Issuer),
        // The issuer has its own error.
        None if walk.problems.is_broken(&f.at("issuer")) => Some(Discovery::Issuer),
        _ => {
            let message = "without an issuer that is a URL it is not known where to look; write the \
                           URL of the discovery document";
            walk.error("bad-value", node, &path, message.into());
            None
        }
    }
}

fn static_keys(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<StaticKey>> {
    let list = walk.list(node, path, static_key)?;
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        let message = "without a key no token can be verified".into();
        walk.error("empty-list", node, path, message);
    }
    Some(list)
}

fn static_key(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<StaticKey> {
    let f = &walk.fields(node, path, &["secret", "public_key", "algorithm", "kid"])?;
    let misspelt = f.is_misspelt("secret") || f.is_misspelt("public_key");
    if !misspelt {
        one_of(walk, f, &["secret", "public_key"]);
    }
    let algorithm = f.require(walk, "algorithm", "the one it is for, like ES256", algorithm);
    let kid = f.read(walk, "kid", key_id);
    let material = f
        .read(walk, "secret", secret)
        .map(StaticMaterial::Secret)
        .or_else(|| f.read(walk, "public_key", file).map(StaticMaterial::PublicKey))?;
    let algorithm = algorithm?;
    let message = match (&material, algorithm.is_symmetric()) {
        (StaticMaterial::Secret(_), false) => {
            "a secret is for HS256, HS384 or HS512; this algorithm needs a public_key"
        }
        // Security: whoever has the public key could sign (RFC 8725 §2.1).
        (StaticMaterial::PublicKey(_), true) => {
            "everybody may know a public key, and could sign with it as a secret; choose one of RS, \
             PS, ES and EdDSA"
        }
        _ => return Some(StaticKey { material, algorithm, kid }),
    };
    let node = f.node("algorithm").unwrap_or(node);
    walk.error("algorithm-mismatch", node, &f.at("algorithm"), message.into());
    None
}

fn algorithm(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<JwsAlgorithm> {
    let message = match &node.value {
        Value::Text(text) if text == "none" => {
            "`none` is no signature: anybody could write such tokens"
        }
        _ => return walk.word(node, path, &ALGORITHMS.map(|one| (one.name(), one))),
    };
    walk.error("bad-value", node, path, message.into());
    None
}

/// Algorithms that are taken: those written, or all that the keys may be for.
pub(super) fn algorithms(
    walk: &mut Walk<'_>,
    f: &Fields<'_>,
    keys: Option<&KeySource>,
) -> Vec<JwsAlgorithm> {
    let own: Vec<JwsAlgorithm> = match keys {
        Some(KeySource::Keys(keys)) => {
            let mut own: Vec<JwsAlgorithm> = keys.iter().map(|key| key.algorithm).collect();
            own.sort_unstable();
            own.dedup();
            own
        }
        _ => Vec::new(),
    };
    let Some(node) = f.node("algorithms") else {
        return match own.is_empty() {
            true => Jwt::default_algorithms(),
            false => own,
        };
    };
    let path = f.at("algorithms");
    let mut seen = Vec::new();
    let remote = matches!(keys, Some(KeySource::Discovery(_) | KeySource::JwksUrl(_)));
    let list = walk.list(node, &path, |walk, node, path| {
        let one = algorithm(walk, node, path)?;
        if seen.contains(&one) {
            walk.error("duplicate-value", node, path, "this algorithm is there twice".into());
            return None;
        }
        seen.push(one);
        if remote && one.is_symmetric() {
            let message = "whoever can fetch the key set could sign with a secret in it; HS256, HS384 \
                           and HS512 are for `keys` and `jwks_file`";
            walk.error("algorithm-mismatch", node, path, message.into());
            return None;
        }
        Some(one)
    });
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        walk.error("empty-list", node, &path, "no token could be verified".into());
    }
    let list = list.unwrap_or_default();
    if let Some(missing) = own.iter().find(|one| !list.contains(one))
        && !walk.problems.is_broken(&path)
    {
        let message = format!("the key for {} would never be used; add it here", missing.name());
        walk.error("algorithm-mismatch", node, &path, message);
    }
    list
}

pub(super) fn claims(walk: &mut Walk<'_>, f: &Fields<'_>) -> Claims {
    let d = Claims::default();
    let claim = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        walk.parsed(node, path, "bad-claim", scalars::claim)
    };
    let require = f.read(walk, "require", |walk, node, path| walk.list(node, path, claim_rule));
    let scope_claims = f.read(walk, "scope_claims", |walk, node, path| {
        unique(walk, node, path, "bad-claim", scalars::claim)
    });
    Claims {
        leeway_s: count(walk, f, "leeway_s", 0, 3_600, d.leeway_s),
        require: require.unwrap_or_default(),
        scope_claims: scope_claims.unwrap_or(d.scope_claims),
        groups_claim: f.read(walk, "groups_claim", claim),
        consumer_claim: f.read(walk, "consumer_claim", claim).unwrap_or(d.consumer_claim),
        consumer_required: flag(walk, f, "consumer_required", d.consumer_required),
        claim_headers: f.read(walk, "claim_headers", claim_headers).unwrap_or_default(),
    }
}

fn claim_rule(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<ClaimRule> {
    let claim = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        walk.parsed(node, path, "bad-claim", scalars::claim)
    };
    if let Value::Text(_) = node.value {
        return Some(ClaimRule { claim: claim(walk, node, path)?, test: ClaimTest::Present });
    }
    let f = &walk.fields(node, path, &["claim", "one_of", "equals", "prefix"])?;
    let tests = ["one_of", "equals", "prefix"];
    if tests.iter().any(|name| f.node(name).is_some()) {
        one_of(walk, f, &tests)?;
    }
    let one_of = f.read(walk, "one_of", |walk, node, path| {
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            let message = "a claim is never one of none; name its values".into();
            walk.error("empty-list", node, path, message);
        }
        walk.list(node, path, claim_value)
    });
    let equals = f.read(walk, "equals", claim_value).map(|value| vec![value]);
    let prefix = f.read(walk, "prefix", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text {
            "" => Err("everything begins with nothing; leave it out".into()),
            text => Ok(text.to_string()),
        })
    });
    let claim = f.require(walk, "claim", "the name of a claim", claim)?;
    let test = one_of.or(equals).map(ClaimTest::OneOf).or(prefix.map(ClaimTest::Prefix));
    Some(ClaimRule { claim, test: test.unwrap_or(ClaimTest::Present) })
}

/// Claims are texts, numbers and flags; all are compared as texts.
fn claim_value(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    match &node.value {
        Value::Bool(_) | Value::Integer(_) => {
            walk.places.set(path, node.mark);
            node.excerpt()
        }
        _ => walk.text(node, path),
    }
}

/// A map from claims, whose names may be any.
fn claim_headers(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<BTreeMap<String, String>> {
    walk.places.set(path, node.mark);
    let Value::Map(entries) = &node.value else {
        walk.wrong_type(node, path, "a map from claims to header fields, like {sub: x-user-id}");
        return None;
    };
    let mut headers = BTreeMap::new();
    for entry in entries {
        let field = format!("{path}.{}", entry.key);
        let key = Some(entry.key.as_str());
        if let Err(message) = scalars::claim(&entry.key) {
            walk.problems.error("bad-claim", entry.key_mark, &field, key, message);
            continue;
        }
        let told = walk.parsed(&entry.value, &field, "bad-field-name", scalars::told_field);
        let Some(told) = told else { continue };
        if headers.values().any(|other| *other == told) {
            let message = format!("`{told}` is told by another claim; choose another field");
            walk.error("duplicate-value", &entry.value, &field, message);
            continue;
        }
        if headers.insert(entry.key.clone(), told).is_some() {
            let message = format!("`{}` is there twice; keep one", entry.key);
            walk.problems.error("duplicate-key", entry.key_mark, &field, key, message);
        }
    }
    Some(headers)
}

pub(super) fn introspection(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Introspection> {
    const KNOWN: &[&str] = &[
        "issuer",
        "url",
        "discovery",
        "client",
        "audiences",
        "from",
        "bound_only",
        "cache_ms",
        "negative_ms",
        "leeway_s",
        "require",
        "scope_claims",
        "groups_claim",
        "consumer_claim",
        "consumer_required",
        "claim_headers",
        "ca",
        "allow_private",
        "timeout_ms",
    ];
    let f = &walk.fields(node, path, KNOWN)?;
    let issuer = f.read(walk, "issuer", |walk, node, path| {
        or_any(walk, node, path, |walk, node, path| {
            walk.parsed(node, path, "bad-issuer", scalars::issuer)
        })
    });
    let issuer = issuer.unwrap_or_default();
    let endpoint = match f.is_misspelt("url") || f.is_misspelt("discovery") {
        true => None,
        false => one_of(walk, f, &["url", "discovery"]),
    };
    let endpoint = endpoint.and_then(|()| {
        discovery(walk, f, issuer.as_option())
            .map(IntrospectionEndpoint::Discovery)
            .or_else(|| f.read(walk, "url", url).map(IntrospectionEndpoint::Url))
    });
    let client =
        f.require(walk, "client", "who we are, like {id: gateway, secret: {file: NAME}}", client);
    let audiences = f.require(walk, "audiences", "what `aud` must name, or any", audiences);
    let (cache_ms, negative_ms) =
        (Introspection::default_cache_ms(), Introspection::default_negative_ms());
    let introspection = Introspection {
        from: f.read(walk, "from", from).unwrap_or_else(bearer),
        bound_only: flag(walk, f, "bound_only", false),
        cache_ms: count(walk, f, "cache_ms", 0, HOUR_MS, cache_ms),
        negative_ms: count(walk, f, "negative_ms", 0, HOUR_MS, negative_ms),
        claims: claims(walk, f),
        fetch: fetch(walk, f),
        issuer,
        endpoint: endpoint?,
        client: client?,
        audiences: audiences?,
    };
    Some(introspection)
}
