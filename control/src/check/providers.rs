//! Authenticators and the services that are asked: Redis, providers, authorization servers.

use std::collections::HashMap;

use super::Check;
use crate::keys::{self, Demand, SourceKind};
use crate::spec::scalars::{Place, place};
use crate::spec::{
    Authenticator, AuthenticatorKind, ClientProof, Fetch, IntrospectionEndpoint, Jwt, KeySource,
    KeyStore, Login, OAuthClient, Severity, StaticKey, TokenEndpoint,
};

pub fn check(check: &mut Check<'_>) {
    let spec = check.spec;
    redis(check);
    for (at, one) in spec.authenticators.iter().enumerate() {
        let path = format!("authenticators[{at}].{}", one.kind.word());
        if !check.problems.is_broken(&path) {
            authenticator(check, &path, one);
        }
    }
    for (at, upstream) in spec.upstreams.iter().enumerate() {
        let path = format!("upstreams[{at}].credentials");
        let Some(credentials) = &upstream.credentials else { continue };
        if check.problems.is_broken(&path) {
            continue;
        }
        let (field, url) = match &credentials.endpoint {
            TokenEndpoint::TokenUrl(url) => ("token_url", url),
            TokenEndpoint::Discovery(url) => ("discovery", url),
        };
        endpoint(check, &format!("{path}.{field}"), url, &credentials.fetch);
        secret_needed(check, &path, &credentials.client);
    }
    logins(check);
    sources(check);
}

fn redis(check: &mut Check<'_>) {
    let Some(redis) = &check.spec.redis else { return };
    if check.problems.is_broken("redis") {
        return;
    }
    let tls = |url: &String| url.starts_with("rediss:");
    let first = redis.urls.first();
    if let Some((at, url)) =
        redis.urls.iter().enumerate().find(|(_, url)| Some(tls(url)) != first.map(tls))
    {
        let message = "all servers speak TLS (rediss://), or none".into();
        let field = format!("redis.urls[{at}]");
        check.report(Severity::Error, "mixed-redis", &field, url, message, None);
    }
    if redis.ca.is_some() && !first.is_some_and(tls) {
        let message = "without TLS nobody vouches for anything; write rediss://, or leave `ca` out";
        let ca = redis.ca.as_deref().unwrap_or_default();
        check.report(Severity::Error, "ca-without-tls", "redis.ca", ca, message.into(), None);
    }
    // Redis Cluster has only database 0.
    let database = |url: &String| {
        let path = url.split("://").nth(1).and_then(|rest| rest.split_once('/'));
        path.is_some_and(|(_, number)| !matches!(number, "" | "0"))
    };
    if redis.cluster && redis.urls.iter().any(database) {
        let message = "a cluster has only database 0; leave the number out".into();
        let field = if check.places.has("redis.url") { "redis.url" } else { "redis.urls" };
        check.report(Severity::Error, "cluster-database", field, "", message, None);
    }
}

fn authenticator(check: &mut Check<'_>, path: &str, one: &Authenticator) {
    match &one.kind {
        AuthenticatorKind::ApiKey(keys) => {
            let missing = matches!(keys.store, KeyStore::Redis(_)) && check.spec.redis.is_none();
            if missing && !check.problems.is_broken("redis") {
                let message = "the keys are to be in Redis, and the spec names none; add \
                               `redis: {url: \"redis://127.0.0.1:6379\"}` at its top";
                let field = format!("{path}.store");
                check.report(Severity::Error, "no-redis", &field, "redis", message.into(), None);
            }
        }
        AuthenticatorKind::Jwt(jwt) => self::jwt(check, path, jwt),
        AuthenticatorKind::Introspection(introspection) => {
            let issuer = introspection.issuer.as_option();
            match &introspection.endpoint {
                IntrospectionEndpoint::Url(url) => {
                    endpoint(check, &format!("{path}.url"), url, &introspection.fetch);
                }
                IntrospectionEndpoint::Discovery(at) => {
                    let url = at.url(issuer.map(String::as_str)).unwrap_or_default();
                    endpoint(check, &format!("{path}.discovery"), &url, &introspection.fetch);
                }
            }
            secret_needed(check, path, &introspection.client);
        }
        AuthenticatorKind::Login(login) => self::login(check, path, login),
        AuthenticatorKind::External(external) => {
            endpoint(check, &format!("{path}.url"), &external.url, &external.fetch);
        }
        AuthenticatorKind::Certificate(_)
        | AuthenticatorKind::Basic(_)
        | AuthenticatorKind::Signature(_) => {}
    }
}

fn jwt(check: &mut Check<'_>, path: &str, jwt: &Jwt) {
    key_source(check, path, &jwt.keys, jwt.issuer.as_option(), &jwt.fetch);
    if jwt.allow_endless && jwt.max_lifetime_s > 0 {
        let message = "a token without an end lives longer than any bound; keep one of the two";
        let field = format!("{path}.allow_endless");
        let code = "conflicting-fields";
        check.report(Severity::Error, code, &field, "true", message.into(), None);
    }
}

fn login(check: &mut Check<'_>, path: &str, login: &Login) {
    key_source(check, path, &login.keys, Some(&login.issuer), &login.fetch);
    let urls = [
        ("authorization_url", &login.authorization_url),
        ("token_url", &login.token_url),
        ("end_session_url", &login.end_session_url),
    ];
    for (name, url) in urls {
        if let Some(url) = url {
            endpoint(check, &format!("{path}.{name}"), url, &login.fetch);
        }
    }
    if login.callback_path == login.logout_path {
        let message = "a login cannot come back to the path that ends it; choose another";
        let (field, value) = (format!("{path}.logout_path"), &login.logout_path);
        let code = "duplicate-login-path";
        check.report(Severity::Error, code, &field, value, message.into(), None);
    }
}

fn key_source(
    check: &mut Check<'_>,
    path: &str,
    keys: &KeySource,
    issuer: Option<&String>,
    fetch: &Fetch,
) {
    match keys {
        KeySource::Discovery(at) => {
            let url = at.url(issuer.map(String::as_str)).unwrap_or_default();
            endpoint(check, &format!("{path}.discovery"), &url, fetch);
        }
        KeySource::JwksUrl(url) => endpoint(check, &format!("{path}.jwks_url"), url, fetch),
        KeySource::JwksFile(_) => {}
        KeySource::Keys(keys) => static_keys(check, &format!("{path}.keys"), keys),
    }
}

fn static_keys(check: &mut Check<'_>, path: &str, keys: &[StaticKey]) {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (at, key) in keys.iter().enumerate() {
        let Some(kid) = &key.kid else { continue };
        if let Some(other) = first.insert(kid, at) {
            let related = check.places.get(&format!("{path}[{other}].kid"));
            let message = format!("`{kid}` is another key's; tokens could mean only one of them");
            let (field, code) = (format!("{path}[{at}].kid"), "duplicate-key-id");
            check.report(Severity::Error, code, &field, kid, message, Some(related));
        }
    }
}

/// An address that is asked must be one that may be, over a connection that nobody can change.
fn endpoint(check: &mut Check<'_>, field: &str, url: &str, fetch: &Fetch) {
    let clear = url.starts_with("http://");
    let (severity, code, message) = match (place(url), clear, fetch.allow_private) {
        (Place::LinkLocal, ..) => (
            Severity::Error,
            "link-local-address",
            "link-local addresses, where clouds keep their secrets, are never asked",
        ),
        (Place::Private | Place::Loopback, _, false) => (
            Severity::Error,
            "private-address",
            "this is a private address, which is asked only with `allow_private: true`",
        ),
        (Place::Public, true, _) => (
            Severity::Error,
            "clear-text",
            "whoever is on the way could forge the answers; write https://",
        ),
        (Place::Name, true, false) => (
            Severity::Error,
            "clear-text",
            "whoever is on the way could forge the answers; write https://, or `allow_private: \
             true` for a service in your own network",
        ),
        (Place::Name, true, true) => (
            Severity::Warning,
            "clear-text",
            "whoever is on the way could forge the answers; better https://",
        ),
        _ => return,
    };
    check.report(severity, code, field, url, message.into(), None);
}

/// Introspection and tokens of our own are for those who prove who they are (RFC 7662 §2.1, RFC 6749
/// §4.4).
fn secret_needed(check: &mut Check<'_>, path: &str, client: &OAuthClient) {
    if client.proof == ClientProof::None {
        let message = "we have to prove who we are; write a secret ({file: NAME}), a key for \
                       private_key_jwt, or cert and key for tls";
        let field = format!("{path}.client");
        check.report(Severity::Error, "unproved-client", &field, "", message.into(), None);
    }
}

/// Two logins would answer for each other where they share a path or a cookie.
fn logins(check: &mut Check<'_>) {
    let spec = check.spec;
    let mut first: HashMap<(bool, &str), String> = HashMap::new();
    for (at, one) in spec.authenticators.iter().enumerate() {
        let AuthenticatorKind::Login(login) = &one.kind else { continue };
        let path = format!("authenticators[{at}].login");
        let own = [
            ("callback_path", false, &login.callback_path),
            ("logout_path", false, &login.logout_path),
            ("cookie", true, &login.cookie),
        ];
        for (name, cookie, value) in own {
            let key = (cookie, value.as_str());
            let Some(other) = first.get(&key).filter(|other| !other.starts_with(&path)) else {
                first.insert(key, format!("{path}.{name}"));
                continue;
            };
            let related = check.places.get(other);
            let message = format!("`{value}` is another login's; choose another");
            let (field, code) = (format!("{path}.{name}"), "duplicate-login-path");
            check.report(Severity::Error, code, &field, value, message, Some(related));
        }
    }
}

/// What is fetched once for several must be fetched in one way.
fn sources(check: &mut Check<'_>) {
    let spec = check.spec;
    let mut first: HashMap<String, Demand<'_>> = HashMap::new();
    for demand in keys::demands(spec) {
        let Some(other) = first.get(&demand.url) else {
            first.insert(demand.url.clone(), demand);
            continue;
        };
        let issuers = match (&other.kind, &demand.kind) {
            (
                SourceKind::Discovery { issuer: Some(one), .. },
                SourceKind::Discovery { issuer: Some(two), .. },
            ) => one == two,
            _ => true,
        };
        let kinds =
            matches!(other.kind, SourceKind::Keys) == matches!(demand.kind, SourceKind::Keys);
        if issuers && kinds && other.fetch == demand.fetch {
            continue;
        }
        let message = "the same document is fetched for another in another way; make `issuer`, `ca`, \
                       `allow_private` and `timeout_ms` equal";
        let related = check.places.get(&other.field);
        let (field, code) = (demand.field.clone(), "conflicting-source");
        check.report(Severity::Error, code, &field, &demand.url, message.into(), Some(related));
    }
}
