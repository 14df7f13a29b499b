//! What a token says, once it is known who says it: from its claims to a caller.

use std::sync::Arc;

use contract::snapshot::{ClaimRule, ClaimTest, Jwt, Tokens};
use serde_json::{Map, Value};

use super::parse;
use crate::auth::identity::{Fields, Identity};
use crate::auth::{Refusal, Registry};
use crate::limits;

pub type Claims = Map<String, Value>;

/// The caller that verified `claims` are about, if they are what `tokens` asks for.
///
/// # Errors
/// They are not: [`Refusal::Invalid`].
pub fn identify(
    tokens: &Tokens,
    registry: &Registry,
    authenticator: u32,
    claims: Claims,
    now_ms: u64,
) -> Result<Identity, Refusal> {
    if !is_issuer(tokens, &claims) || !is_for(&tokens.audiences, &claims) {
        return Err(Refusal::Invalid);
    }
    let until_ms = until_ms(tokens, &claims, now_ms)?;
    if !tokens.require.iter().all(|rule| holds(rule, &claims)) {
        return Err(Refusal::Invalid);
    }
    let certificate = certificate(&claims)?;
    if tokens.bound_only && certificate.is_none() {
        return Err(Refusal::Invalid);
    }
    let subject = scalar_at(&claims, &tokens.consumer_claim);
    let consumer = subject.as_deref().and_then(|name| registry.by_subject(authenticator, name));
    if tokens.consumer_required && consumer.is_none() {
        return Err(Refusal::Invalid);
    }
    let own = consumer.map(|index| registry.identity(index)).unwrap_or_default();
    let id = match consumer {
        Some(_) => own.id.clone(),
        None => subject.or_else(|| name(&claims)).unwrap_or_default().into(),
    };
    let credential = claims.get("jti").and_then(Value::as_str).map(Arc::from);
    let groups = groups(tokens, &own, &claims);
    // All three go to upstreams in fields.
    let told = groups.iter().map(|group| &**group).chain([&*id]).chain(credential.as_deref());
    if told.into_iter().any(has_control) {
        return Err(Refusal::Invalid);
    }
    Ok(Identity {
        id,
        groups,
        scopes: narrowed(&own.scopes, scopes(tokens, &claims)),
        fields: fields(tokens, &claims),
        credential,
        certificate,
        until_ms,
        claims: Some(Arc::new(claims)),
        ..own
    })
}

/// Whether `iss` is the issuer's (RFC 7519 §4.1.1), character by character.
pub fn is_issuer(tokens: &Tokens, claims: &Claims) -> bool {
    tokens.issuer.as_deref().is_none_or(|wanted| text(claims, "iss") == Some(wanted))
}

/// What is asked of a token that is a JWT, beside [`identify`].
///
/// # Errors
/// It is not so: [`Refusal::Invalid`].
pub fn check_lifetime(rules: &Jwt, claims: &Claims) -> Result<(), Refusal> {
    let Some(end_ms) = instant(claims, "exp")? else {
        // A token without an end lives longer than any.
        let endless = rules.allow_endless && rules.max_lifetime_s == 0;
        return if endless { Ok(()) } else { Err(Refusal::Invalid) };
    };
    if rules.max_lifetime_s == 0 {
        return Ok(());
    }
    let begin_ms = match instant(claims, "iat")? {
        Some(issued_ms) => issued_ms,
        None => instant(claims, "nbf")?.ok_or(Refusal::Invalid)?,
    };
    let lifetime_ms = end_ms.saturating_sub(begin_ms);
    (lifetime_ms <= i64::from(rules.max_lifetime_s) * 1_000).then_some(()).ok_or(Refusal::Invalid)
}

/// Until when the token is good; it has to be now.
fn until_ms(tokens: &Tokens, claims: &Claims, now_ms: u64) -> Result<u64, Refusal> {
    let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let leeway_ms = i64::from(tokens.leeway_s) * 1_000;
    // RFC 7519 §4.1.5; and what was issued in the future was not issued yet.
    for begin in ["nbf", "iat"] {
        if instant(claims, begin)?.is_some_and(|ms| ms > now_ms.saturating_add(leeway_ms)) {
            return Err(Refusal::Invalid);
        }
    }
    let until_ms = match instant(claims, "exp")? {
        Some(end_ms) => end_ms.saturating_add(leeway_ms),
        None => now_ms.saturating_add(limits::AUTH_ENDLESS_MS as i64),
    };
    // RFC 7519 §4.1.4: on or after it is too late.
    let until_ms = Some(until_ms).filter(|until_ms| *until_ms > now_ms).ok_or(Refusal::Invalid)?;
    u64::try_from(until_ms).map_err(|_| Refusal::Invalid)
}

/// A NumericDate (RFC 7519 §2) in milliseconds. What is there and none refuses the token.
fn instant(claims: &Claims, name: &str) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().ok_or(Refusal::Invalid)?;
    // Too large ones become the largest.
    Ok(Some((seconds * 1_000.0) as i64))
}

/// Whether `aud` names one of `audiences` (RFC 7519 §4.1.3).
fn is_for(audiences: &[String], claims: &Claims) -> bool {
    let meant =
        |value: &Value| value.as_str().is_some_and(|one| audiences.iter().any(|a| a == one));
    audiences.is_empty()
        || match claims.get("aud") {
            Some(Value::Array(list)) => list.iter().all(Value::is_string) && list.iter().any(meant),
            Some(value) => meant(value),
            None => false,
        }
}

fn holds(rule: &ClaimRule, claims: &Claims) -> bool {
    let Some(value) = at(claims, &rule.claim) else { return false };
    let fits = |value: &Value| match &rule.test {
        ClaimTest::Present => true,
        ClaimTest::OneOf(values) => scalar(value).is_some_and(|one| values.contains(&one)),
        ClaimTest::Prefix(prefix) => value.as_str().is_some_and(|one| one.starts_with(prefix)),
    };
    match (value, &rule.test) {
        (_, ClaimTest::Present) => true,
        (Value::Array(list), _) => list.iter().any(fits),
        (value, _) => fits(value),
    }
}

/// The certificate that a token is bound to (RFC 8705 §3.1). One that is bound to something else is
/// refused: nobody here could check that its bearer has it (RFC 7800 §3.1, RFC 9449 §7.2).
fn certificate(claims: &Claims) -> Result<Option<[u8; 32]>, Refusal> {
    let Some(confirmation) = claims.get("cnf") else { return Ok(None) };
    let thumbprint =
        confirmation.get("x5t#S256").and_then(Value::as_str).ok_or(Refusal::Invalid)?;
    let thumbprint = parse::decoded(thumbprint.as_bytes()).map_err(|_| Refusal::Invalid)?;
    thumbprint.try_into().map(Some).map_err(|_| Refusal::Invalid)
}

/// What a caller is called who is no consumer.
fn name(claims: &Claims) -> Option<String> {
    ["sub", "client_id", "azp"].iter().find_map(|claim| text(claims, claim)).map(str::to_owned)
}

/// The scopes that a token has, sorted; `None`: it does not say.
fn scopes(tokens: &Tokens, claims: &Claims) -> Option<Vec<Box<str>>> {
    let mut all = None;
    for value in tokens.scope_claims.iter().filter_map(|claim| at(claims, claim)) {
        words(value, all.get_or_insert_default());
    }
    all.map(|mut all: Vec<Box<str>>| {
        all.sort_unstable();
        all.dedup();
        all
    })
}

/// What a consumer may do by a token: what both say, and what one of them says where the other says
/// nothing. A token never widens what the spec gives a consumer.
fn narrowed(own: &Arc<[Box<str>]>, token: Option<Vec<Box<str>>>) -> Arc<[Box<str>]> {
    match token {
        None => own.clone(),
        Some(token) if own.is_empty() => token.into(),
        Some(token) => token.into_iter().filter(|s| own.binary_search(s).is_ok()).collect(),
    }
}

/// The groups of the consumer and those of the token.
fn groups(tokens: &Tokens, own: &Identity, claims: &Claims) -> Arc<[Box<str>]> {
    let Some(value) = tokens.groups_claim.as_deref().and_then(|claim| at(claims, claim)) else {
        return own.groups.clone();
    };
    let mut token = Vec::new();
    words(value, &mut token);
    token.retain(|group| !own.in_group(group));
    own.groups.iter().cloned().chain(token).collect()
}

/// The items of a list, or the words of a text.
fn words(value: &Value, out: &mut Vec<Box<str>>) {
    match value {
        Value::String(text) => out.extend(text.split_ascii_whitespace().map(Box::from)),
        Value::Array(list) => out.extend(list.iter().filter_map(Value::as_str).map(Box::from)),
        _ => {}
    }
}

/// What upstreams are told of the claims.
fn fields(tokens: &Tokens, claims: &Claims) -> Fields {
    let told = tokens.claim_headers.iter().filter_map(|(claim, field)| {
        let value = match at(claims, claim)? {
            Value::Array(list) => list.iter().filter_map(scalar).collect::<Vec<_>>().join(","),
            value => scalar(value)?,
        };
        let value = value.trim();
        let fit = !value.is_empty() && !has_control(value);
        fit.then(|| (field.as_str().into(), value.as_bytes().into()))
    });
    told.collect()
}

/// The claim of this name, such as `https://example.com/roles`, or else at this path: names between dots,
/// which may themselves have dots.
fn at<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value).filter(|value| !value.is_null());
    }
    path.match_indices('.').find_map(|(dot, _)| {
        let (name, rest) = (path.get(..dot)?, path.get(dot + 1..)?);
        at(claims.get(name)?.as_object()?, rest)
    })
}

fn scalar_at(claims: &Claims, path: &str) -> Option<String> {
    at(claims, path).and_then(scalar)
}

/// A text, number or truth value as text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn text<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// Whether it could end a field, or begin another (RFC 9110 §5.5).
fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| byte < b' ' || byte == 0x7f)
}
