//! Security schemes of OpenAPI as authenticators, and security requirements as what routes ask.

use std::collections::BTreeMap;

use super::openapi::pointer;
use super::source::View;
use super::{Draft, Kind};
use crate::yaml::{Map, Yaml};

/// Names of authenticators by the scheme, or why it has none.
pub type Schemes = BTreeMap<String, Result<String, String>>;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Writes an authenticator for every scheme that can be one.
pub fn schemes(root: View<'_>, draft: &mut Draft) -> Schemes {
    let mut schemes = Schemes::new();
    for (name, scheme) in root.get("components").get("securitySchemes").entries() {
        let scheme = match scheme.get("$ref").text() {
            Some(reference) => pointer(root, &reference).unwrap_or(scheme),
            None => scheme,
        };
        let place = scheme.place();
        let authenticator = match kind(name, scheme, draft) {
            Ok((word, fields)) => {
                let own = draft.name(Kind::Authenticators, name);
                let fields = Map::new().with("name", own.as_str()).with(&word, fields);
                draft.add(Kind::Authenticators, &place, fields);
                Ok(own)
            }
            Err(why) => Err(why),
        };
        schemes.insert(name.into(), authenticator);
    }
    schemes
}

/// The kind of authenticator that a scheme is, with its fields.
fn kind(name: &str, scheme: View<'_>, draft: &mut Draft) -> Result<(String, Yaml), String> {
    let place = scheme.place();
    // Somebody has said it in our own words.
    if let Some((word, fields)) = scheme.get("x-sluice-authenticator").entries().next() {
        return Ok((word.into(), fields.yaml()));
    }
    let text = |field: &str| scheme.get(field).text().unwrap_or_default();
    let own_words = "say x-sluice-authenticator in the scheme";
    match (&*text("type"), &*text("scheme").to_ascii_lowercase()) {
        ("apiKey", _) => {
            let from = Map::new().with(&text("in"), text("name"));
            let message =
                format!("who has a key for `{name}` is not in the document: add consumers");
            draft.warn(&place, message);
            Ok(("api_key".into(), Map::new().with("from", vec![from]).into()))
        }
        ("http", "basic") => {
            let message =
                format!("who has a password for `{name}` is not in the document: add consumers");
            draft.warn(&place, message);
            Ok(("basic".into(), Map::new().into()))
        }
        ("http", "bearer") if text("bearerFormat").eq_ignore_ascii_case("jwt") => Err(format!(
            "the keys and the issuer of the tokens of `{name}` are not in the document; {own_words}: \
             {{jwt: {{issuer: …, discovery: true, audiences: […]}}}}"
        )),
        ("http", "bearer") => {
            let message = format!(
                "the tokens of `{name}` are taken as API keys of consumers, which must be added; for JWTs \
                 {own_words}"
            );
            draft.warn(&place, message);
            Ok(("api_key".into(), Map::new().with("from", vec!["bearer"]).into()))
        }
        ("openIdConnect", _) => {
            let url = text("openIdConnectUrl");
            let Some(issuer) = url.strip_suffix(WELL_KNOWN) else {
                return Err(format!("openIdConnectUrl of `{name}` does not end in {WELL_KNOWN}"));
            };
            let message = format!(
                "`{name}` takes tokens of {issuer} for any audience: write yours in place of `any`"
            );
            draft.warn(&place, message);
            let fields = Map::new().with("issuer", issuer).with("discovery", true);
            Ok(("jwt".into(), fields.with("audiences", "any").into()))
        }
        (other, _) => Err(format!("the scheme `{name}` ({other}) is not known here; {own_words}")),
    }
}

/// What an operation with these requirements asks of callers; `None`: nothing.
///
/// # Errors
/// Why it cannot be said.
pub fn demand(
    asked: View<'_>,
    schemes: &Schemes,
    draft: &mut Draft,
) -> Result<Option<Map>, String> {
    let mut alternatives: Vec<Vec<String>> = Vec::new();
    let mut scopes: Vec<Vec<String>> = Vec::new();
    let mut optional = false;
    for alternative in asked.items() {
        let mut names = Vec::new();
        for (scheme, wanted) in alternative.entries() {
            match schemes.get(scheme) {
                Some(Ok(name)) => names.push(name.clone()),
                Some(Err(why)) => return Err(why.clone()),
                None => return Err(format!("there is no security scheme `{scheme}`")),
            }
            scopes.push(wanted.texts());
        }
        match names.is_empty() {
            true => optional = true,
            false => alternatives.push(names),
        }
    }
    let mut auth = Map::new();
    match alternatives.as_slice() {
        [] => return Ok(None),
        [all] if all.len() > 1 => {
            auth.set("all", all.clone());
        }
        any if any.iter().all(|one| one.len() == 1) => {
            let mut names: Vec<String> = any.concat();
            names.dedup();
            auth.set("any", names);
        }
        _ => {
            return Err(
                "security asks for one of several schemes or for several at once; a route has \
                        `any` or `all`"
                    .into(),
            );
        }
    }
    if optional {
        auth.set("optional", true);
    }
    let mut all: Vec<String> = scopes.concat();
    all.sort();
    all.dedup();
    if scopes.iter().any(|some| some.len() != all.len()) {
        let message = "alternatives have different scopes; the routes ask for all of them";
        draft.warn(&asked.place(), message);
    }
    if !all.is_empty() {
        auth.set("scopes", all);
    }
    Ok(Some(auth))
}
