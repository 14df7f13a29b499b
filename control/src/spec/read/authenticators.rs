//! Authenticators that need nobody else, and what all have in common.

use super::fields::{Fields, Walk};
use super::oauth::login;
use super::parts::{DAY_MS, HOUR_MS, count, flag, locality, name, one_of};
use super::route::unique;
use super::tokens::{introspection, jwt};
use crate::spec::model::*;
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

pub(super) fn authenticator(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Authenticator> {
    const KINDS: &[&str] = &[
        "api_key",
        "jwt",
        "introspection",
        "login",
        "certificate",
        "basic",
        "signature",
        "external",
    ];
    const KNOWN: &[&str] = &[
        "name",
        "workspace",
        "api_key",
        "jwt",
        "introspection",
        "login",
        "certificate",
        "basic",
        "signature",
        "external",
    ];
    // What cannot be read still holds its place and its name, so that routes may refer to it.
    let stand_in = || AuthenticatorKind::Certificate(Certificates::default());
    let Some(f) = &walk.fields(node, path, KNOWN) else {
        return Some(Authenticator { name: String::new(), workspace: None, kind: stand_in() });
    };
    let name = name(walk, f);
    let workspace = f.read(walk, "workspace", locality);
    let misspelt = KINDS.iter().any(|kind| f.is_misspelt(kind));
    // `certificate:` and `api_key:` alone say all there is to say.
    let bare = |kind: &str| f.node(kind).is_none() && walk.places.has(&f.at(kind));
    let kind = match (bare("certificate"), bare("api_key"), bare("basic"), bare("signature")) {
        _ if KINDS.iter().any(|kind| f.node(kind).is_some()) => match one_of(walk, f, KINDS) {
            Some(()) => kind(walk, f),
            None => None,
        },
        (true, false, false, false) => Some(stand_in()),
        (false, true, false, false) => Some(AuthenticatorKind::ApiKey(ApiKeys::default())),
        (false, false, true, false) => Some(AuthenticatorKind::Basic(Basic::default())),
        (false, false, false, true) => Some(AuthenticatorKind::Signature(Signature::default())),
        _ if misspelt => None,
        _ => {
            one_of(walk, f, KINDS);
            None
        }
    };
    if kind.is_none() {
        walk.problems.mark_broken(path);
    }
    Some(Authenticator { name, workspace, kind: kind.unwrap_or_else(stand_in) })
}

fn kind(walk: &mut Walk<'_>, f: &Fields<'_>) -> Option<AuthenticatorKind> {
    let api_key = f.read(walk, "api_key", api_keys).map(AuthenticatorKind::ApiKey);
    api_key
        .or_else(|| f.read(walk, "jwt", jwt).map(Box::new).map(AuthenticatorKind::Jwt))
        .or_else(|| {
            let read = f.read(walk, "introspection", introspection);
            read.map(Box::new).map(AuthenticatorKind::Introspection)
        })
        .or_else(|| f.read(walk, "login", login).map(Box::new).map(AuthenticatorKind::Login))
        .or_else(|| f.read(walk, "certificate", certificate).map(AuthenticatorKind::Certificate))
        .or_else(|| f.read(walk, "basic", basic).map(AuthenticatorKind::Basic))
        .or_else(|| f.read(walk, "signature", signature).map(AuthenticatorKind::Signature))
        .or_else(|| {
            f.read(walk, "external", external).map(Box::new).map(AuthenticatorKind::External)
        })
}

fn api_keys(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<ApiKeys> {
    let d = ApiKeys::default();
    let f = &walk.fields(node, path, &["from", "store"])?;
    Some(ApiKeys {
        from: f.read(walk, "from", from).unwrap_or(d.from),
        store: f.read(walk, "store", key_store).unwrap_or(d.store),
    })
}

fn key_store(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<KeyStore> {
    if let Value::Map(_) = node.value {
        let f = &walk.fields(node, path, &["redis"])?;
        // `redis:` with nothing behind it is all defaults.
        if f.node("redis").is_none() && walk.places.has(&f.at("redis")) {
            return Some(KeyStore::Redis(RedisKeys::default()));
        }
        return f
            .require(walk, "redis", "a map, {} for the defaults", redis_keys)
            .map(KeyStore::Redis);
    }
    let words = [("embedded", false), ("redis", true)];
    Some(match walk.word(node, path, &words)? {
        false => KeyStore::Embedded,
        true => KeyStore::Redis(RedisKeys::default()),
    })
}

fn redis_keys(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<RedisKeys> {
    const KNOWN: &[&str] = &["prefix", "cache_ms", "negative_ms", "grace_ms", "timeout_ms"];
    let d = RedisKeys::default();
    let f = &walk.fields(node, path, KNOWN)?;
    let prefix = f.read(walk, "prefix", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text.len() {
            0..=256 if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.into()),
            _ => Err("expected what Redis keys begin with, like sluice:key:".into()),
        })
    });
    Some(RedisKeys {
        prefix: prefix.unwrap_or(d.prefix),
        cache_ms: count(walk, f, "cache_ms", 1, DAY_MS, d.cache_ms),
        negative_ms: count(walk, f, "negative_ms", 0, HOUR_MS, d.negative_ms),
        grace_ms: count(walk, f, "grace_ms", 0, DAY_MS, d.grace_ms),
        timeout_ms: count(walk, f, "timeout_ms", 1, 60_000, d.timeout_ms),
    })
}

/// Where a credential is.
pub(super) fn from(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<CredentialSource>> {
    let mut seen = Vec::new();
    let list = walk.list(node, path, |walk, node, path| {
        let source = source(walk, node, path)?;
        if seen.contains(&source) {
            walk.error("duplicate-value", node, path, "this place is there twice".into());
            return None;
        }
        seen.push(source.clone());
        Some(source)
    })?;
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        let message = "a credential must be somewhere, such as bearer or {header: x-api-key}";
        walk.error("empty-list", node, path, message.into());
    }
    Some(list)
}

fn source(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<CredentialSource> {
    if let Value::Text(text) = &node.value {
        walk.places.set(path, node.mark);
        if text == "bearer" {
            return Some(CredentialSource::Bearer);
        }
        let message = format!(
            "expected bearer, {{header: NAME}}, {{query: NAME}} or {{cookie: NAME}}, found `{text}`"
        );
        walk.error("bad-value", node, path, message);
        return None;
    }
    let f = &walk.fields(node, path, &["header", "scheme", "query", "cookie"])?;
    one_of(walk, f, &["header", "query", "cookie"])?;
    let token = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        walk.parsed(node, path, "bad-value", scalars::token)
    };
    if let (Some(scheme), None) = (f.node("scheme"), f.node("header")) {
        let message = "a scheme stands in a header field; name it as `header`".into();
        walk.error("conflicting-fields", scheme, &f.at("scheme"), message);
        return None;
    }
    if f.node("header").is_some() {
        let name = f.read(walk, "header", |walk, node, path| {
            walk.parsed(node, path, "bad-field-name", credential_field)
        });
        let scheme = f.read(walk, "scheme", token);
        let name = name?;
        // The same as `bearer`; one spelling per meaning.
        let bearer = scheme.as_ref().is_some_and(|one| one.eq_ignore_ascii_case("bearer"));
        return Some(match bearer && name == "authorization" {
            true => CredentialSource::Bearer,
            false => CredentialSource::Header { name, scheme },
        });
    }
    let query = f.read(walk, "query", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text.len() {
            1..=256 => Ok(text.into()),
            _ => Err("expected the name of a query parameter, like api_key".into()),
        })
    });
    query
        .map(CredentialSource::Query)
        .or_else(|| f.read(walk, "cookie", token).map(CredentialSource::Cookie))
}

/// A field that may hold a credential.
fn credential_field(text: &str) -> Result<String, String> {
    let name = scalars::field_name(text)?;
    match name.as_str() {
        "cookie" => Err("for a cookie write {cookie: NAME}".into()),
        "host" | "content-length" | "content-type" | "transfer-encoding" | "connection" | "te"
        | "upgrade" | "trailer" | "expect" | "proxy-connection" | "keep-alive" => {
            Err(format!("`{name}` has a meaning of its own; choose another field"))
        }
        _ => Ok(name),
    }
}

fn certificate(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Certificates> {
    let f = &walk.fields(node, path, &["consumer_required"])?;
    Some(Certificates { consumer_required: flag(walk, f, "consumer_required", false) })
}

fn basic(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Basic> {
    let f = &walk.fields(node, path, &["realm"])?;
    let realm = f.read(walk, "realm", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| {
            let fits = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
            match !text.is_empty() && text.len() <= 100 && text.bytes().all(fits) {
                true => Ok(text.into()),
                false => Err("a realm has 1 to 100 ASCII characters without \" and \\".into()),
            }
        })
    });
    Some(Basic { realm: realm.unwrap_or(Basic::default().realm) })
}

/// Derived components of requests (RFC 9421 §2.2), without those that have parameters.
const COMPONENTS: [&str; 7] =
    ["@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query"];

fn signature(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Signature> {
    let d = Signature::default();
    let f = &walk.fields(node, path, &["components", "max_age_s"])?;
    let components = f.read(walk, "components", |walk, node, path| {
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            let message = "a signature that covers nothing is good for any request; name what it \
                           must cover, such as \"@method\" and \"@target-uri\"";
            walk.error("empty-list", node, path, message.into());
        }
        unique(walk, node, path, "bad-component", |text| match text.strip_prefix('@') {
            Some(_) if COMPONENTS.contains(&text) => Ok(text.into()),
            Some(_) => Err(format!("expected a field or one of: {}", COMPONENTS.join(", "))),
            None => scalars::field_name(text),
        })
    });
    Some(Signature {
        components: components.unwrap_or(d.components),
        max_age_s: count(walk, f, "max_age_s", 1, 86_400, d.max_age_s),
    })
}

fn external(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<External> {
    const KNOWN: &[&str] = &[
        "url",
        "send",
        "take",
        "consumer_header",
        "cache_ms",
        "ca",
        "allow_private",
        "timeout_ms",
    ];
    let f = &walk.fields(node, path, KNOWN)?;
    let send = f.read(walk, "send", |walk, node, path| {
        unique(walk, node, path, "bad-field-name", scalars::field_name)
    });
    let take = f.read(walk, "take", |walk, node, path| {
        unique(walk, node, path, "bad-field-name", scalars::told_field)
    });
    let url = f.require(walk, "url", "the URL to ask", url);
    Some(External {
        send: send.unwrap_or_else(External::default_send),
        take: take.unwrap_or_default(),
        consumer_header: f.read(walk, "consumer_header", |walk, node, path| {
            walk.parsed(node, path, "bad-field-name", scalars::field_name)
        }),
        cache_ms: count(walk, f, "cache_ms", 0, HOUR_MS, 0),
        fetch: fetch(walk, f),
        url: url?,
    })
}

pub(super) fn url(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    let text = walk.text(node, path)?;
    // Nothing of one with a password in it is repeated.
    let excerpt = (!text.contains('@')).then_some(text.as_str());
    scalars::url(&text)
        .map_err(|message| walk.problems.error("bad-url", node.mark, path, excerpt, message))
        .ok()
}

/// How a service is asked.
pub(super) fn fetch(walk: &mut Walk<'_>, f: &Fields<'_>) -> Fetch {
    let d = Fetch::default();
    Fetch {
        ca: f.read(walk, "ca", super::tls::file),
        allow_private: flag(walk, f, "allow_private", d.allow_private),
        timeout_ms: count(walk, f, "timeout_ms", 1, 60_000, d.timeout_ms),
    }
}
