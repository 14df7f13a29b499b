//! What handlers take, with refusals as problems.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{HeaderMap, HeaderName, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Problem;

/// The query.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(query)| Params(query))
            .map_err(|error| Problem::bad_request(error.body_text()))
    }
}

/// What varies in the path.
pub struct Place<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Place<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(path)| Place(path)).map_err(|error| Problem::bad_request(error.body_text()))
    }
}

/// The body as JSON.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(error.to_string()))
}

/// The body as a JSON object.
pub fn object(body: &[u8]) -> Result<serde_json::Map<String, Value>, Problem> {
    match json(body)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Problem::bad_request("the body must be a JSON object")),
    }
}

/// The entity tags of a field, `*` among them; `None`: there is no such field.
///
/// # Errors
/// The field holds something else.
pub fn tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Vec<String>>, Problem> {
    let mut tags = Vec::new();
    let mut found = false;
    for value in headers.get_all(&name) {
        found = true;
        let wrong =
            || Problem::bad_request(format!("{name} must hold entity tags, such as \"7\", or *"));
        for tag in value.to_str().map_err(|_| wrong())?.split(',') {
            match tag.trim() {
                "*" => tags.push("*".into()),
                // Weak ones never match strongly (RFC 9110 §8.8.3.2).
                tag if tag.starts_with("W/") => {}
                tag => {
                    let bare = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                    // Whole numbers were taken without quotes from the beginning.
                    let bare = bare.or(Some(tag).filter(|tag| tag.parse::<u64>().is_ok()));
                    tags.push(bare.ok_or_else(wrong)?.into());
                }
            }
        }
    }
    Ok(found.then_some(tags))
}
