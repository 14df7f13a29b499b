//! The gateway as a client of authorization servers.

use contract::encode::MAX_COOKIE_KEYS;

use super::authenticators::{fetch, url};
use super::consumers::{key_id, scopes, secret};
use super::fields::Walk;
use super::parts::{count, flag, one_of};
use super::tls::file;
use super::tokens::{algorithms, audiences, claims, key_source};
use crate::spec::model::*;
use crate::spec::scalars;
use crate::spec::schema::ProofWord;
use crate::spec::tree::{Node, Value};

pub(super) fn login(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Login> {
    const KNOWN: &[&str] = &[
        "issuer",
        "discovery",
        "jwks_url",
        "jwks_file",
        "keys",
        "authorization_url",
        "token_url",
        "end_session_url",
        "algorithms",
        "client",
        "audiences",
        "scopes",
        "callback_path",
        "logout_path",
        "after_logout",
        "cookie",
        "cookie_keys",
        "lifetime_s",
        "forward_token",
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
    let issuer = f.require(walk, "issuer", "the provider's URL", |walk, node, path| {
        walk.parsed(node, path, "bad-issuer", scalars::issuer)
    });
    let keys = key_source(walk, f, issuer.as_ref());
    let client =
        f.require(walk, "client", "who we are, like {id: gateway, secret: {file: NAME}}", client);
    let [authorization_url, token_url, end_session_url] =
        ["authorization_url", "token_url", "end_session_url"].map(|name| f.read(walk, name, url));
    if !matches!(keys, None | Some(KeySource::Discovery(_))) {
        for (name, there) in [("authorization_url", &authorization_url), ("token_url", &token_url)]
        {
            if there.is_none() && !walk.problems.is_broken(&f.at(name)) {
                let message = format!(
                    "`{name}` is missing; it is the provider's endpoint, which only `discovery` finds \
                     by itself"
                );
                walk.problems.error("missing-field", f.mark, &f.at(name), None, message);
            }
        }
    }
    let own_path = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        walk.parsed(node, path, "bad-path", scalars::path)
    };
    let cookie = f.read(walk, "cookie", |walk, node, path| {
        walk.parsed(node, path, "bad-value", scalars::token)
    });
    let cookie_keys = f.read(walk, "cookie_keys", |walk, node, path| walk.list(node, path, secret));
    if let Some(node) = f.node("cookie_keys")
        && let Value::List(items) = &node.value
        && items.len() > MAX_COOKIE_KEYS
    {
        let message = format!("{} keys; at most {MAX_COOKIE_KEYS} are tried", items.len());
        walk.error("too-many-keys", node, &f.at("cookie_keys"), message);
    }
    let algorithms = algorithms(walk, f, keys.as_ref());
    let lifetime_s = Login::default_lifetime_s();
    let login = Login {
        authorization_url,
        token_url,
        end_session_url,
        algorithms,
        scopes: f.read(walk, "scopes", login_scopes).unwrap_or_else(Login::default_scopes),
        callback_path: f
            .read(walk, "callback_path", own_path)
            .unwrap_or_else(Login::default_callback_path),
        logout_path: f
            .read(walk, "logout_path", own_path)
            .unwrap_or_else(Login::default_logout_path),
        after_logout: f
            .read(walk, "after_logout", own_target)
            .unwrap_or_else(Login::default_after_logout),
        cookie: cookie.unwrap_or_else(Login::default_cookie),
        cookie_keys: cookie_keys.unwrap_or_default(),
        lifetime_s: count(walk, f, "lifetime_s", 60, 2_592_000, lifetime_s),
        forward_token: flag(walk, f, "forward_token", false),
        audiences: f.read(walk, "audiences", audiences),
        claims: claims(walk, f),
        fetch: fetch(walk, f),
        issuer: issuer?,
        keys: keys?,
        client: client?,
    };
    Some(login)
}

/// A path of this host. Security: `//other.example` would be another one (an open redirect).
fn own_target(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.parsed(node, path, "bad-path", |text| {
        let target = scalars::request_target(text)?;
        match target.starts_with("//") || target.contains('\\') {
            true => Err("expected a path of this host, like /".into()),
            false => Ok(target),
        }
    })
}

fn login_scopes(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<String>> {
    let list = scopes(walk, node, path)?;
    if !list.iter().any(|scope| scope == "openid") && !walk.problems.is_broken(path) {
        // OpenID Connect Core 1.0 §3.1.2.1.
        let message = "`openid` must be among them: without it there is no identity token".into();
        walk.error("bad-scope", node, path, message);
    }
    Some(list)
}

pub(super) fn client(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<OAuthClient> {
    const METHODS: &[(&str, ProofWord)] = &[
        ("none", ProofWord::None),
        ("basic", ProofWord::Basic),
        ("post", ProofWord::Post),
        ("private_key_jwt", ProofWord::PrivateKeyJwt),
        ("tls", ProofWord::Tls),
    ];
    let f = &walk.fields(node, path, &["id", "method", "secret", "key", "kid", "cert"])?;
    let id = f.require(walk, "id", "our client_id", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text.len() {
            1..=1_024 if !text.contains(char::is_control) => Ok(text.into()),
            _ => Err("expected a client_id of 1 to 1024 characters".into()),
        })
    });
    let method = match f.node("method") {
        Some(_) => f.read(walk, "method", |walk, node, path| walk.word(node, path, METHODS))?,
        None if f.node("secret").is_some() => ProofWord::Basic,
        None if f.node("cert").is_some() => ProofWord::Tls,
        None if f.node("key").is_some() => ProofWord::PrivateKeyJwt,
        None => ProofWord::None,
    };
    let word = METHODS.iter().find(|(_, one)| *one == method).map_or("", |(word, _)| word);
    let wanted: &[&str] = match method {
        ProofWord::None => &[],
        ProofWord::Basic | ProofWord::Post => &["secret"],
        ProofWord::PrivateKeyJwt => &["key"],
        ProofWord::Tls => &["cert", "key"],
    };
    for name in ["secret", "key", "kid", "cert"] {
        let taken = wanted.contains(&name) || (name == "kid" && method == ProofWord::PrivateKeyJwt);
        if let (Some(_), false) = (f.node(name), taken) {
            // Without the value: it may be a secret.
            let mark = walk.places.get(&f.at(name));
            let message = format!("`{name}` has no use for the method {word}; leave one out");
            walk.problems.error("conflicting-fields", mark, &f.at(name), None, message);
        }
    }
    let expected = |name: &str| match name {
        "secret" => "{file: NAME}",
        "cert" => "a PEM file with our certificate chain",
        _ => "a PEM file with our private key",
    };
    let read_file = |walk: &mut Walk<'_>, name: &str| f.require(walk, name, expected(name), file);
    let proof = match method {
        ProofWord::None => Some(ClientProof::None),
        ProofWord::Basic => {
            f.require(walk, "secret", expected("secret"), secret).map(ClientProof::Basic)
        }
        ProofWord::Post => {
            f.require(walk, "secret", expected("secret"), secret).map(ClientProof::Post)
        }
        ProofWord::PrivateKeyJwt => {
            let kid = f.read(walk, "kid", key_id);
            read_file(walk, "key").map(|key| ClientProof::PrivateKeyJwt { key, kid })
        }
        ProofWord::Tls => {
            let (cert, key) = (read_file(walk, "cert"), read_file(walk, "key"));
            cert.zip(key).map(|(cert, key)| ClientProof::Tls { cert, key })
        }
    };
    Some(OAuthClient { id: id?, proof: proof? })
}

pub(super) fn credentials(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
) -> Option<ClientCredentials> {
    const KNOWN: &[&str] = &[
        "token_url",
        "discovery",
        "client",
        "scopes",
        "audience",
        "ca",
        "allow_private",
        "timeout_ms",
    ];
    let f = &walk.fields(node, path, KNOWN)?;
    let endpoint = match f.is_misspelt("token_url") || f.is_misspelt("discovery") {
        true => None,
        false => one_of(walk, f, &["token_url", "discovery"]),
    };
    let endpoint = endpoint.and_then(|()| {
        f.read(walk, "token_url", url)
            .map(TokenEndpoint::TokenUrl)
            .or_else(|| f.read(walk, "discovery", url).map(TokenEndpoint::Discovery))
    });
    let client =
        f.require(walk, "client", "who we are, like {id: gateway, secret: {file: NAME}}", client);
    let audience = f.read(walk, "audience", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text.len() {
            1..=1_024 => Ok(text.into()),
            _ => Err("expected an audience of 1 to 1024 characters".into()),
        })
    });
    let credentials = ClientCredentials {
        scopes: f.read(walk, "scopes", scopes).unwrap_or_default(),
        audience,
        fetch: fetch(walk, f),
        endpoint: endpoint?,
        client: client?,
    };
    Some(credentials)
}
