//! How limits stand now.

use axum::Json;
use axum::extract::State;
use contract::MAX_LIMIT_LINES;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Problem;
use super::extract::Params;
use super::model::LimitBucket;
use crate::running::Running;

/// Lines of an answer that asks for no number.
const USUAL: u32 = 1_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Only those that count by this consumer.
    consumer: Option<String>,
    /// Lines at most.
    limit: Option<u32>,
}

/// `GET /v1/limits?consumer=NAME&limit=N`: the buckets that this node has, the fullest first.
pub async fn limits(
    State(running): State<Running>,
    Params(which): Params<Which>,
) -> Result<Json<Vec<LimitBucket>>, Problem> {
    let most = which.limit.unwrap_or(USUAL).min(MAX_LIMIT_LINES as u32);
    let lines = running.inquiry().limits(which.consumer.as_deref(), most).await;
    let lines = lines.map_err(Problem::unavailable)?;
    Ok(Json(lines.into_iter().map(LimitBucket::from).collect()))
}
