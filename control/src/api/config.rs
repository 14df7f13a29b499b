//! What reads and changes the configuration.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, header::IF_MATCH},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Problem,
    model::{self, Applied},
};
use crate::{
    explain::{Explanation, Question},
    running::{Change, Running},
    spec::redacted,
    store::{Revision, RevisionLine},
};

/// Revisions listed at most.
const MAX_LISTED: u32 = 1_000;

#[derive(Deserialize)]
pub struct ApplyQuery {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    message: String,
    #[serde(default)]
    author: String,
    /// Name of the file the text came from.
    #[serde(default)]
    source: String,
}

/// `POST /v1/apply`: the body is the spec. `If-Match: "7"` applies only over revision 7.
pub async fn apply(
    State(running): State<Running>,
    query: Result<Query<ApplyQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Applied>, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let source_name = if query.source.is_empty() { "request".into() } else { query.source };
    let change = Change {
        source_name,
        source: body.to_vec(),
        author: query.author,
        message: query.message,
        dry_run: query.dry_run,
        over: if_match(&headers)?,
    };
    Ok(Json(running.apply(change).await?))
}

fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let tag = value.to_str().unwrap_or_default().trim().trim_matches('"');
    match tag.parse() {
        Ok(revision) => Ok(Some(revision)),
        Err(_) if tag == "*" => Ok(None),
        Err(_) => Err(Problem::bad_request("If-Match must be a revision, such as \"7\"")),
    }
}

#[derive(Deserialize)]
pub struct RollbackQuery {
    to: Option<u64>,
    #[serde(default)]
    author: String,
}

/// `POST /v1/rollback?to=REV`; without `to`, to the one before the running one.
pub async fn rollback(
    State(running): State<Running>,
    query: Result<Query<RollbackQuery>, QueryRejection>,
) -> Result<Json<Applied>, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    Ok(Json(running.rollback(query.to, query.author).await?))
}

/// `POST /v1/diff`: how the spec in the body differs from the running one.
pub async fn diff(State(running): State<Running>, body: Bytes) -> Result<Json<Value>, Problem> {
    let diff = running.diff(body.to_vec()).await?;
    Ok(Json(serde_json::to_value(diff).unwrap_or_default()))
}

/// `POST /v1/explain`: which route a request takes.
pub async fn explain(
    State(running): State<Running>,
    body: Bytes,
) -> Result<Json<Explanation>, Problem> {
    let question: Question =
        serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
    Ok(Json(running.explain(question).await?))
}

/// `GET /v1/spec`: the running revision, without secrets.
pub async fn spec(
    State(running): State<Running>,
) -> ([(axum::http::HeaderName, String); 1], Json<model::Running>) {
    let current = running.current();
    let etag = format!("\"{}\"", current.revision.id);
    let canonical = serde_json::to_string(&*current.spec).unwrap_or_default();
    let (spec, source) = redacted(&canonical, &current.revision.source);
    let answer = model::Running {
        revision: current.revision.id,
        epoch: current.snapshot.epoch,
        author: current.revision.author.clone(),
        message: current.revision.message.clone(),
        created_ms: current.revision.created_ms,
        source_name: current.revision.source_name.clone(),
        source,
        spec,
    };
    ([(axum::http::header::ETAG, etag)], Json(answer))
}

/// `GET /v1/revisions`: newest first.
pub async fn revisions(State(running): State<Running>) -> Result<Json<Vec<RevisionLine>>, Problem> {
    Ok(Json(running.revisions(MAX_LISTED).await?))
}

/// `GET /v1/revisions/{id}`, without secrets.
pub async fn revision(
    State(running): State<Running>,
    Path(id): Path<u64>,
) -> Result<Json<Revision>, Problem> {
    let revision = running.revision(id).await?;
    let (spec, source) = redacted(&revision.spec, &revision.source);
    Ok(Json(Revision { spec: spec.to_string(), source, ..revision }))
}
