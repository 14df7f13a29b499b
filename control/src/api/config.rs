//! What reads and changes the configuration.

use axum::{
    Json,
    body::Bytes,
    extract::{Extension, State},
    http::{HeaderMap, header::IF_MATCH},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Problem,
    admit::Caller,
    extract::{Params, Place, tags},
    model::{self, Applied},
    page::{MOST, Page},
    rollout::TrialQuery,
};
use crate::{
    diff::Diff,
    explain::{Explanation, Question},
    running::{Change, Running},
    spec::redacted,
    store::Revision,
};

/// How a spec is to be applied.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct ApplyQuery {
    /// Only say what would change.
    dry_run: Option<bool>,
    /// Why, for the list of revisions.
    #[serde(default)]
    message: String,
    /// Whose change it is, where nobody is listed: who is, cannot claim to be another.
    #[serde(default)]
    author: String,
    /// Name of the file the text came from.
    #[serde(default)]
    source: String,
    /// Only on some nodes of the store at first, and on all when it proves itself there: a number of
    /// nodes, a share of the traffic such as `10%`, or nodes by name with commas between.
    #[schemars(length(max = 1000))]
    canary: Option<String>,
    /// With `canary`: how long they are watched, in seconds; 60 by default.
    #[schemars(range(min = 1, max = 86400))]
    watch_s: Option<u32>,
    /// With `canary`: requests on either side below which nothing is judged; 100 by default.
    #[schemars(range(min = 1))]
    min_requests: Option<u64>,
    /// With `canary`: points of a percent by which their share of 5xx may be larger than elsewhere; 1
    /// by default.
    #[schemars(range(min = 0.0, max = 100.0))]
    max_errors: Option<f64>,
    /// With `canary`: how many times the p99 of elsewhere theirs may be; 2 by default.
    #[schemars(range(min = 1.0, max = 1000.0))]
    max_p99_ratio: Option<f64>,
}

/// `POST /v1/apply`: the body is the spec. `If-Match: "7"` applies only over revision 7.
pub async fn apply(
    State(running): State<Running>,
    Params(query): Params<ApplyQuery>,
    (Extension(caller), headers): (Extension<Caller>, HeaderMap),
    body: Bytes,
) -> Result<Json<Applied>, Problem> {
    let source_name = if query.source.is_empty() { "request".into() } else { query.source };
    let author = caller.by.author(&query.author);
    let trial = TrialQuery {
        canary: query.canary,
        watch_s: query.watch_s,
        min_requests: query.min_requests,
        max_errors: query.max_errors,
        max_p99_ratio: query.max_p99_ratio,
    };
    let change = Change {
        trial: trial.order()?,
        source_name,
        source: body.to_vec(),
        message: query.message,
        dry_run: query.dry_run.unwrap_or(false),
        over: if_match(&headers)?,
        audit: Some(caller.deed(&author)),
        author,
        by: caller.by,
    };
    Ok(Json(running.apply(change).await?))
}

fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(tags) = tags(headers, IF_MATCH)? else { return Ok(None) };
    if tags.iter().any(|tag| tag == "*") {
        return Ok(None);
    }
    let wrong = || Problem::bad_request("If-Match must be a revision, such as \"7\"");
    match tags.as_slice() {
        [tag] => tag.parse().map(Some).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// Where to go back to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct RollbackQuery {
    /// The revision; without it the one before the running one.
    #[schemars(range(min = 1))]
    to: Option<u64>,
    /// Only say what would change.
    dry_run: Option<bool>,
    /// Why, for the list of revisions.
    #[serde(default)]
    message: String,
    /// Whose change it is, where nobody is listed.
    #[serde(default)]
    author: String,
}

/// `POST /v1/rollback?to=REV`; without `to`, to the one before the running one.
pub async fn rollback(
    State(running): State<Running>,
    Params(query): Params<RollbackQuery>,
    (Extension(caller), headers): (Extension<Caller>, HeaderMap),
) -> Result<Json<Applied>, Problem> {
    let author = caller.by.author(&query.author);
    let change = Change {
        source_name: String::new(),
        source: Vec::new(),
        message: query.message,
        dry_run: query.dry_run.unwrap_or(false),
        over: if_match(&headers)?,
        audit: Some(caller.deed(&author)),
        author,
        trial: None,
        by: caller.by,
    };
    Ok(Json(running.rollback(query.to, change).await?))
}

/// `POST /v1/diff`: how the spec in the body differs from the running one.
pub async fn diff(State(running): State<Running>, body: Bytes) -> Result<Json<Diff>, Problem> {
    Ok(Json(running.diff(body.to_vec()).await?))
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

/// Which revisions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevisionsQuery {
    /// Revisions at most; without it all that are kept, 1,000.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Where to go on; from the Link field of the page before.
    #[schemars(length(max = 500))]
    cursor: Option<String>,
}

/// `GET /v1/revisions`: newest first.
pub async fn revisions(
    State(running): State<Running>,
    Params(query): Params<RevisionsQuery>,
) -> Result<Response, Problem> {
    let page = Page::new(query.limit.or(Some(MOST)), query.cursor.as_deref())?;
    let rows = running.revisions(page.before()?, page.limit as u32 + 1).await?;
    Ok(page.answer("/v1/revisions", rows, |row| row.id.to_string()).into_response())
}

/// `GET /v1/revisions/{id}`, without secrets.
pub async fn revision(
    State(running): State<Running>,
    Place(id): Place<u64>,
) -> Result<Json<Revision>, Problem> {
    let revision = running.revision(id).await?;
    let (spec, source) = redacted(&revision.spec, &revision.source);
    Ok(Json(Revision { spec: spec.to_string().into(), source: source.into(), ..revision }))
}
