//! How limits stand now.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use contract::MAX_LIMIT_LINES;
use serde::Deserialize;

use super::Problem;
use super::model::LimitBucket;
use crate::running::Running;

/// Lines of an answer that asks for no number.
const USUAL: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    consumer: Option<String>,
    limit: Option<u32>,
}

/// `GET /v1/limits?consumer=NAME&limit=N`: the buckets that this node has, the fullest first.
pub async fn limits(
    State(running): State<Running>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Vec<LimitBucket>>, Problem> {
    let Query(which) = which.map_err(|error| Problem::bad_request(error.body_text()))?;
    let most = which.limit.unwrap_or(USUAL).min(MAX_LIMIT_LINES as u32);
    let lines = running.inquiry().limits(which.consumer.as_deref(), most).await;
    let lines = lines.map_err(Problem::unavailable)?;
    Ok(Json(lines.into_iter().map(LimitBucket::from).collect()))
}
