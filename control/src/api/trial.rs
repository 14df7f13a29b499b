//! What a spec would do: its problems, and what would become of requests.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use axum::{Json, body::Bytes, extract::State};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Problem,
    extract::json,
    model::{Course, Tried, TryAnswer, Validated},
};
use crate::{
    explain::{Explanation, Outcome, Question},
    running::Running,
};

/// Requests tried at most.
const MOST: usize = 1_000;
/// Longest time for them; a large spec takes a while for each.
const TIME: Duration = Duration::from_secs(10);

/// `POST /v1/validate`: every problem of the spec in the body.
pub async fn validate(
    State(running): State<Running>,
    body: Bytes,
) -> Result<Json<Validated>, Problem> {
    if body.is_empty() {
        return Err(Problem::bad_request("the body must be a spec"));
    }
    let (ok, problems) = running.validate(body.to_vec()).await?;
    let problems = problems.iter().filter_map(|one| serde_json::to_value(one).ok());
    Ok(Json(Validated { ok, problems: problems.collect() }))
}

/// A spec, and what to try it with.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TryOrder {
    /// The spec: as an object, or its text in YAML or JSON.
    #[schemars(schema_with = "text_or_object")]
    spec: Value,
    /// The requests; without any, the last ones that this node served. Of those only method, host and
    /// path are known.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    requests: Option<Vec<Question>>,
    /// How many of the last ones; without it all that are known, 1,000 at most.
    #[schemars(range(min = 1, max = 1000))]
    last: Option<u32>,
    /// Tell also those for which nothing changes.
    #[serde(default)]
    all: bool,
}

fn text_or_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": ["string", "object"]})
}

/// `POST /v1/try`.
pub async fn try_out(
    State(running): State<Running>,
    body: Bytes,
) -> Result<Json<TryAnswer>, Problem> {
    let order: TryOrder = json(&body)?;
    let source = match &order.spec {
        Value::String(text) => text.clone(),
        Value::Object(_) => order.spec.to_string(),
        _ => return Err(Problem::bad_request("spec: expected a text or an object")),
    };
    if order.last.is_some_and(|last| !(1..=MOST as u32).contains(&last)) {
        return Err(Problem::bad_request(format!("last: expected a number from 1 to {MOST}")));
    }
    let questions = match order.requests {
        Some(given) if given.len() > MOST => {
            return Err(Problem::bad_request(format!("requests: at most {MOST} are tried")));
        }
        Some(given) => given,
        None => recorded(&running, order.last),
    };
    let current = running.current();
    for question in &questions {
        question.check(&current.snapshot).map_err(Problem::bad_request)?;
    }
    let (asked, began) = (questions.len(), Instant::now());
    let (diff, answers) =
        running.try_out(source.as_bytes(), questions, move || began.elapsed() >= TIME).await?;
    let tried = answers.len();
    let mut different = 0;
    let mut requests = Vec::new();
    for (question, now, then) in answers {
        let (now, then) = (course(now), course(then));
        let change = match (now.result == MATCHED, then.result == MATCHED) {
            _ if now == then => "same",
            (false, true) => "routed",
            (true, false) => "refused",
            _ => "differently",
        };
        different += usize::from(change != "same");
        if order.all || change != "same" {
            let Question { method, host, path_and_query, .. } = question;
            requests.push(Tried { method, host, path_and_query, change: change.into(), now, then });
        }
    }
    Ok(Json(TryAnswer {
        revision: current.revision.id,
        diff,
        tried,
        left_out: asked - tried,
        different,
        requests,
    }))
}

/// The last requests, each once.
fn recorded(running: &Running, last: Option<u32>) -> Vec<Question> {
    let mut seen = HashSet::new();
    let last = last.map_or(MOST, |last| last as usize);
    let newest = running.recent().into_iter().rev().take(last);
    let each = newest.filter(|asked| seen.insert(asked.clone()));
    each.map(|asked| Question {
        method: asked.method,
        host: asked.host,
        path_and_query: asked.path,
        ..Question::default()
    })
    .collect()
}

const MATCHED: &str = "matched";

fn course(explanation: Explanation) -> Course {
    let plain = |result: &str, problem: Option<String>| Course {
        result: result.into(),
        route: None,
        upstreams: Vec::new(),
        path: None,
        auth: None,
        limits: Vec::new(),
        problem,
    };
    match explanation.outcome {
        Outcome::Matched { route, rewritten, backends, asked, limits, .. } => Course {
            route: Some(route),
            upstreams: backends
                .into_iter()
                .map(|share| format!("{} ({})", share.upstream, share.weight))
                .collect(),
            path: Some(rewritten),
            auth: asked.map(|asked| asked.to_string()),
            limits: limits.into_iter().map(|limit| limit.name).collect(),
            ..plain(MATCHED, None)
        },
        Outcome::NotFound => plain("not_found", None),
        Outcome::MethodNotAllowed { allow } => {
            plain("method_not_allowed", Some(format!("allowed: {}", allow.join(", "))))
        }
        Outcome::BadPath { problem } => plain("bad_path", Some(problem)),
    }
}
