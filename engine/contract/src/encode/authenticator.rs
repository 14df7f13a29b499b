//! Authenticators, and the services that some of them ask.

use super::tls::MAX_DER;
use super::{Counts, DecodeError, In, MAX_ENTRIES, Out};
use crate::snapshot::*;

/// Most keys of a login's cookie.
pub const MAX_COOKIE_KEYS: usize = 16;

pub(super) fn write(out: &mut Out, authenticator: &Authenticator) {
    out.text(&authenticator.name);
    match &authenticator.kind {
        AuthenticatorKind::ApiKey(keys) => {
            out.u8(0);
            out.list(&keys.from, write_source);
            write_store(out, &keys.store);
        }
        AuthenticatorKind::Jwt(jwt) => {
            out.u8(1);
            write_tokens(out, &jwt.tokens);
            out.u32(jwt.keys);
            out.u32(jwt.max_lifetime_s);
            out.u8(jwt.allow_endless.into());
            out.u8(jwt.access_token.into());
        }
        AuthenticatorKind::Introspection(introspection) => {
            out.u8(2);
            write_tokens(out, &introspection.tokens);
            write_endpoint(out, &introspection.endpoint);
            write_client(out, &introspection.client);
            out.u32(introspection.cache_ms);
            out.u32(introspection.negative_ms);
        }
        AuthenticatorKind::Login(login) => {
            out.u8(3);
            write_login(out, login);
        }
        AuthenticatorKind::Certificate(certificates) => {
            out.u8(4);
            out.u8(certificates.consumer_required.into());
        }
        AuthenticatorKind::Basic(basic) => {
            out.u8(5);
            out.text(&basic.realm);
        }
        AuthenticatorKind::Signature(signature) => {
            out.u8(6);
            out.texts(&signature.components);
            out.u32(signature.max_age_s);
        }
        AuthenticatorKind::External(external) => {
            out.u8(7);
            write_endpoint(out, &external.endpoint);
            out.texts(&external.send);
            out.texts(&external.take);
            out.option(external.consumer_header.as_ref(), |out, name| out.text(name));
            out.u32(external.cache_ms);
        }
    }
}

pub(super) fn read(input: &mut In<'_>, counts: Counts) -> Result<Authenticator, DecodeError> {
    let name = input.text("authenticator.name")?;
    let kind = match input.u8("authenticator.kind")? {
        0 => AuthenticatorKind::ApiKey(ApiKeys {
            from: input.some("authenticator.from", MAX_ENTRIES, read_source)?,
            store: read_store(input, counts)?,
        }),
        1 => AuthenticatorKind::Jwt(Box::new(Jwt {
            tokens: read_tokens(input, 1)?,
            keys: input.index("authenticator.keys", counts.key_sets)?,
            max_lifetime_s: input.u32("authenticator.max_lifetime_s")?,
            allow_endless: input.bool("authenticator.allow_endless")?,
            access_token: input.bool("authenticator.access_token")?,
        })),
        2 => AuthenticatorKind::Introspection(Box::new(Introspection {
            tokens: read_tokens(input, 1)?,
            endpoint: read_endpoint(input, counts)?,
            client: read_client(input, counts)?,
            cache_ms: input.u32("authenticator.cache_ms")?,
            negative_ms: input.u32("authenticator.negative_ms")?,
        })),
        3 => AuthenticatorKind::Login(Box::new(read_login(input, counts)?)),
        4 => AuthenticatorKind::Certificate(Certificates {
            consumer_required: input.bool("authenticator.consumer_required")?,
        }),
        5 => AuthenticatorKind::Basic(Basic { realm: input.text("authenticator.realm")? }),
        6 => AuthenticatorKind::Signature(Signature {
            components: input.texts("authenticator.components", MAX_ENTRIES)?,
            max_age_s: input.u32("authenticator.max_age_s")?,
        }),
        7 => AuthenticatorKind::External(Box::new(External {
            endpoint: read_endpoint(input, counts)?,
            send: input.texts("authenticator.send", MAX_ENTRIES)?,
            take: input.texts("authenticator.take", MAX_ENTRIES)?,
            consumer_header: input.option("authenticator.consumer_header", |input| {
                input.text("authenticator.consumer_header")
            })?,
            cache_ms: input.u32("authenticator.cache_ms")?,
        })),
        other => return Err(input.tag("authenticator.kind", other)),
    };
    Ok(Authenticator { name, kind })
}

fn write_source(out: &mut Out, source: &CredentialSource) {
    match source {
        CredentialSource::Header { name, scheme } => {
            out.u8(0);
            out.text(name);
            out.option(scheme.as_ref(), |out, scheme| out.text(scheme));
        }
        CredentialSource::Query(name) => {
            out.u8(1);
            out.text(name);
        }
        CredentialSource::Cookie(name) => {
            out.u8(2);
            out.text(name);
        }
    }
}

fn read_source(input: &mut In<'_>) -> Result<CredentialSource, DecodeError> {
    const FIELD: &str = "authenticator.from";
    Ok(match input.u8(FIELD)? {
        0 => CredentialSource::Header {
            name: input.text(FIELD)?,
            scheme: input.option(FIELD, |input| input.text(FIELD))?,
        },
        1 => CredentialSource::Query(input.text(FIELD)?),
        2 => CredentialSource::Cookie(input.text(FIELD)?),
        other => return Err(input.tag(FIELD, other)),
    })
}

fn write_store(out: &mut Out, store: &KeyStore) {
    match store {
        KeyStore::Embedded => out.u8(0),
        KeyStore::Redis(keys) => {
            out.u8(1);
            out.text(&keys.prefix);
            out.u32(keys.cache_ms);
            out.u32(keys.negative_ms);
            out.u32(keys.grace_ms);
            out.u32(keys.timeout_ms);
        }
    }
}

fn read_store(input: &mut In<'_>, counts: Counts) -> Result<KeyStore, DecodeError> {
    // Without a Redis there is no tag but the first.
    Ok(match input.u8_within("authenticator.store", 0, counts.redis.into())? {
        0 => KeyStore::Embedded,
        _ => KeyStore::Redis(RedisKeys {
            prefix: input.text("authenticator.store.prefix")?,
            cache_ms: input.u32("authenticator.store.cache_ms")?,
            negative_ms: input.u32("authenticator.store.negative_ms")?,
            grace_ms: input.u32("authenticator.store.grace_ms")?,
            timeout_ms: input.u32("authenticator.store.timeout_ms")?,
        }),
    })
}

fn write_tokens(out: &mut Out, tokens: &Tokens) {
    out.list(&tokens.from, write_source);
    out.option(tokens.issuer.as_ref(), |out, issuer| out.text(issuer));
    out.texts(&tokens.audiences);
    out.list(&tokens.require, write_claim_rule);
    out.texts(&tokens.scope_claims);
    out.option(tokens.groups_claim.as_ref(), |out, claim| out.text(claim));
    out.text(&tokens.consumer_claim);
    out.u8(tokens.consumer_required.into());
    out.list(&tokens.claim_headers, |out, (claim, name)| {
        out.text(claim);
        out.text(name);
    });
    out.u8(tokens.bound_only.into());
    out.u32(tokens.leeway_s);
}

/// Reads them; there are `sources` sources at least.
fn read_tokens(input: &mut In<'_>, sources: usize) -> Result<Tokens, DecodeError> {
    Ok(Tokens {
        from: match sources {
            0 => input.list("authenticator.from", MAX_ENTRIES, read_source)?,
            _ => input.some("authenticator.from", MAX_ENTRIES, read_source)?,
        },
        issuer: input.option("tokens.issuer", |input| input.text("tokens.issuer"))?,
        audiences: input.texts("tokens.audiences", MAX_ENTRIES)?,
        require: input.list("tokens.require", MAX_ENTRIES, read_claim_rule)?,
        scope_claims: input.texts("tokens.scope_claims", MAX_ENTRIES)?,
        groups_claim: input
            .option("tokens.groups_claim", |input| input.text("tokens.groups_claim"))?,
        consumer_claim: input.text("tokens.consumer_claim")?,
        consumer_required: input.bool("tokens.consumer_required")?,
        claim_headers: input.list("tokens.claim_headers", MAX_ENTRIES, |input| {
            Ok((input.text("tokens.claim_headers")?, input.text("tokens.claim_headers")?))
        })?,
        bound_only: input.bool("tokens.bound_only")?,
        leeway_s: input.u32("tokens.leeway_s")?,
    })
}

fn write_claim_rule(out: &mut Out, rule: &ClaimRule) {
    out.text(&rule.claim);
    match &rule.test {
        ClaimTest::Present => out.u8(0),
        ClaimTest::OneOf(values) => {
            out.u8(1);
            out.texts(values);
        }
        ClaimTest::Prefix(prefix) => {
            out.u8(2);
            out.text(prefix);
        }
    }
}

fn read_claim_rule(input: &mut In<'_>) -> Result<ClaimRule, DecodeError> {
    const FIELD: &str = "tokens.require";
    Ok(ClaimRule {
        claim: input.text(FIELD)?,
        test: match input.u8(FIELD)? {
            0 => ClaimTest::Present,
            1 => ClaimTest::OneOf(input.texts(FIELD, MAX_ENTRIES)?),
            2 => ClaimTest::Prefix(input.text(FIELD)?),
            other => return Err(input.tag(FIELD, other)),
        },
    })
}

fn write_login(out: &mut Out, login: &Login) {
    write_tokens(out, &login.tokens);
    out.u32(login.keys);
    write_client(out, &login.client);
    out.text(&login.authorization_url);
    write_endpoint(out, &login.token);
    out.text(&login.end_session_url);
    out.texts(&login.scopes);
    out.text(&login.callback_path);
    out.text(&login.logout_path);
    out.text(&login.after_logout);
    out.text(&login.cookie);
    out.list(&login.cookie_keys, |out, key| out.bytes.extend_from_slice(key));
    out.u32(login.lifetime_s);
    out.u8(login.forward_token.into());
}

fn read_login(input: &mut In<'_>, counts: Counts) -> Result<Login, DecodeError> {
    Ok(Login {
        tokens: read_tokens(input, 0)?,
        keys: input.index("authenticator.keys", counts.key_sets)?,
        client: read_client(input, counts)?,
        authorization_url: input.text("login.authorization_url")?,
        token: read_endpoint(input, counts)?,
        end_session_url: input.text("login.end_session_url")?,
        scopes: input.texts("login.scopes", MAX_ENTRIES)?,
        callback_path: input.text("login.callback_path")?,
        logout_path: input.text("login.logout_path")?,
        after_logout: input.text("login.after_logout")?,
        cookie: input.text("login.cookie")?,
        cookie_keys: input
            .some("login.cookie_keys", MAX_COOKIE_KEYS, |input| input.array("login.cookie_keys"))?,
        lifetime_s: input.u32("login.lifetime_s")?,
        forward_token: input.bool("login.forward_token")?,
    })
}

fn write_endpoint(out: &mut Out, endpoint: &Endpoint) {
    out.text(&endpoint.url);
    out.option(endpoint.trust.as_ref(), |out, trust| out.u32(*trust));
    out.u8(endpoint.allow_private.into());
    out.u32(endpoint.timeout_ms);
}

fn read_endpoint(input: &mut In<'_>, counts: Counts) -> Result<Endpoint, DecodeError> {
    Ok(Endpoint {
        url: input.text("endpoint.url")?,
        trust: input
            .option("endpoint.trust", |input| input.index("endpoint.trust", counts.trust))?,
        allow_private: input.bool("endpoint.allow_private")?,
        timeout_ms: input.u32("endpoint.timeout_ms")?,
    })
}

fn write_client(out: &mut Out, client: &OAuthClient) {
    out.text(&client.id);
    match &client.proof {
        ClientProof::None => out.u8(0),
        ClientProof::Basic(secret) => {
            out.u8(1);
            out.text(secret);
        }
        ClientProof::Post(secret) => {
            out.u8(2);
            out.text(secret);
        }
        ClientProof::PrivateKeyJwt { key, kid } => {
            out.u8(3);
            out.blob(key);
            out.option(kid.as_ref(), |out, kid| out.text(kid));
        }
        ClientProof::Tls { identity } => {
            out.u8(4);
            out.u32(*identity);
        }
    }
}

fn read_client(input: &mut In<'_>, counts: Counts) -> Result<OAuthClient, DecodeError> {
    Ok(OAuthClient {
        id: input.text("client.id")?,
        proof: match input.u8("client.proof")? {
            0 => ClientProof::None,
            1 => ClientProof::Basic(input.text("client.secret")?),
            2 => ClientProof::Post(input.text("client.secret")?),
            3 => ClientProof::PrivateKeyJwt {
                key: input.blob("client.key", MAX_DER)?,
                kid: input.option("client.kid", |input| input.text("client.kid"))?,
            },
            4 => {
                ClientProof::Tls { identity: input.index("client.identity", counts.certificates)? }
            }
            other => return Err(input.tag("client.proof", other)),
        },
    })
}

/// What an upstream is given a token with.
pub(super) fn write_client_credentials(out: &mut Out, credentials: &ClientCredentials) {
    write_endpoint(out, &credentials.endpoint);
    write_client(out, &credentials.client);
    out.texts(&credentials.scopes);
    out.option(credentials.audience.as_ref(), |out, audience| out.text(audience));
}

pub(super) fn read_client_credentials(
    input: &mut In<'_>,
    counts: Counts,
) -> Result<ClientCredentials, DecodeError> {
    Ok(ClientCredentials {
        endpoint: read_endpoint(input, counts)?,
        client: read_client(input, counts)?,
        scopes: input.texts("upstream.credentials.scopes", MAX_ENTRIES)?,
        audience: input.option("upstream.credentials.audience", |input| {
            input.text("upstream.credentials.audience")
        })?,
    })
}
