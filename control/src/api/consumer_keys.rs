//! API keys of a consumer of the spec: made here, told once, kept as a hash.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Extension, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Problem,
    admit::Caller,
    callers::api_keys,
    entities::{ChangeQuery, Conditions, Kind, entries},
    extract::{self, Params, Place},
    model::KeyMade,
    page::{Page, PageQuery},
};
use crate::{
    cli::keys::new_key,
    running::{Current, Edit, Refused, Running},
};

/// What a key begins with that asks for nothing else.
const PREFIX: &str = "slk";

/// A key to be made.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What the key begins with; without it slk.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_]{1,9}$"))]
    prefix: Option<String>,
    /// When it ends, such as 2027-01-01T00:00:00Z. Without it: never.
    expires: Option<String>,
    /// Narrows the consumer's scopes to these. Without it: all of them.
    scopes: Option<Vec<String>>,
    /// Name of a limit policy in place of the consumer's.
    limits: Option<String>,
}

pub async fn list(
    State(running): State<Running>,
    Place(name): Place<String>,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    let page = Page::new(query.limit, query.cursor.as_deref())?;
    let current = running.current();
    if !current.spec.consumers.iter().any(|one| one.name == name) {
        return Err(Problem::not_found(missing(&name)));
    }
    let rows = api_keys(&current.snapshot.auth, &running.key_uses());
    let own = rows.into_iter().filter(|row| row.consumer == name);
    let mut own: Vec<_> = own.collect();
    if let Some(after) = &page.after
        && let Some(at) = own.iter().position(|row| row.sha256 == *after)
    {
        own.drain(..=at);
    }
    own.truncate(page.limit + 1);
    let path = format!("/v1/spec/consumers/{name}/keys");
    Ok(page.answer(&path, own, |row| row.sha256.clone()).into_response())
}

pub async fn create(
    State(running): State<Running>,
    Place(name): Place<String>,
    Params(query): Params<ChangeQuery>,
    (Extension(caller), headers): (Extension<Caller>, HeaderMap),
    body: Bytes,
) -> Result<Response, Problem> {
    let wish: NewKey = if body.is_empty() { NewKey::default() } else { extract::json(&body)? };
    let prefix = wish.prefix.as_deref().unwrap_or(PREFIX);
    let fits = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !(1..=9).contains(&prefix.len()) || !fits(prefix) {
        return Err(Problem::bad_request("prefix: expected 1 to 9 letters, digits or _"));
    }
    let (key, shown) = new_key(prefix).map_err(|failure| Problem::internal(failure.message))?;
    let sha256 =
        HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, key.as_bytes()).as_ref());
    let mut entry =
        Map::from_iter([("sha256".to_owned(), json!(sha256)), ("prefix".to_owned(), json!(shown))]);
    let more = [
        ("expires", json!(wish.expires)),
        ("scopes", json!(wish.scopes)),
        ("limits", json!(wish.limits)),
    ];
    entry.extend(
        more.into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.into(), value)),
    );
    let edit = with_keys(&name, Conditions::read(&headers)?, move |keys| {
        keys.push(Value::Object(entry.clone()));
        Ok(())
    });
    let change = query.change(caller, format!("add an API key of {name}"));
    let applied = running.revise(change, edit).await?;
    let place = HeaderValue::from_str(&format!("/v1/spec/consumers/{name}/keys/{sha256}"));
    // Of a dry run there is no key: nobody would know it.
    let made = !applied.dry_run;
    let answer = KeyMade { key: made.then_some(key), sha256, prefix: shown, applied };
    match place {
        Ok(place) if made => {
            Ok((StatusCode::CREATED, [(LOCATION, place)], Json(answer)).into_response())
        }
        _ => Ok(Json(answer).into_response()),
    }
}

pub async fn delete(
    State(running): State<Running>,
    Place((name, sha256)): Place<(String, String)>,
    Params(query): Params<ChangeQuery>,
    (Extension(caller), headers): (Extension<Caller>, HeaderMap),
) -> Result<Response, Problem> {
    let change = query.change(caller, format!("remove an API key of {name}"));
    let edit = with_keys(&name, Conditions::read(&headers)?, move |keys| {
        let at = keys.iter().position(|one| one["sha256"] == *sha256);
        let at = at.ok_or_else(|| Refused::NoEntity("there is no such API key".into()))?;
        keys.remove(at);
        Ok(())
    });
    Ok(Json(running.revise(change, edit).await?).into_response())
}

fn missing(name: &str) -> String {
    format!("there is no consumer `{name}`")
}

fn with_keys(
    name: &str,
    conditions: Conditions,
    work: impl Fn(&mut Vec<Value>) -> Result<(), Refused> + Send + Sync + 'static,
) -> Edit {
    let name = name.to_owned();
    Arc::new(move |_: &Current, spec: &mut Value| {
        let list = entries(spec, Kind::Consumers)?;
        let consumer = list.iter_mut().find(|one| one["name"] == *name);
        let consumer = consumer.ok_or_else(|| Refused::NoEntity(missing(&name)))?;
        conditions.judge(&format!("the consumer `{name}`"), Some(consumer))?;
        let keys = consumer.get_mut("api_keys").and_then(Value::as_array_mut);
        work(keys.ok_or_else(|| Refused::Internal("the consumer has no keys".into()))?)
    })
}
