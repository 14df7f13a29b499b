//! Trials of revisions.

use axum::{
    Json,
    extract::{Extension, State},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Problem, admit::Caller, extract::Params};
use crate::{
    rollout::{Canaries, Order, Rollout, Rules, Standing, State as Outcome},
    running::Running,
};

/// How a revision is tried out; without `canary` it is not.
#[derive(Clone, Debug, Default)]
pub struct TrialQuery {
    pub canary: Option<String>,
    pub watch_s: Option<u32>,
    pub min_requests: Option<u64>,
    pub max_errors: Option<f64>,
    pub max_p99_ratio: Option<f64>,
}

impl TrialQuery {
    /// # Errors
    /// It is no trial.
    pub fn order(self) -> Result<Option<Order>, Problem> {
        let TrialQuery { canary, watch_s, min_requests, max_errors, max_p99_ratio } = self;
        let Some(canary) = canary else {
            let others = watch_s.is_some() || min_requests.is_some();
            return match others || max_errors.is_some() || max_p99_ratio.is_some() {
                true => Err(Problem::bad_request("without `canary` there is nothing to watch")),
                false => Ok(None),
            };
        };
        let standard = Rules::default();
        let rules = Rules {
            watch_s: watch_s.unwrap_or(standard.watch_s),
            min_requests: min_requests.unwrap_or(standard.min_requests),
            max_errors: max_errors.unwrap_or(standard.max_errors),
            max_p99_ratio: max_p99_ratio.unwrap_or(standard.max_p99_ratio),
        };
        let within = |name: &str, good: bool, range: &str| match good {
            true => Ok(()),
            false => Err(Problem::bad_request(format!("`{name}` must be {range}"))),
        };
        within("watch_s", (1..=86_400).contains(&rules.watch_s), "from 1 to 86400")?;
        within("min_requests", rules.min_requests > 0, "at least 1")?;
        within("max_errors", (0.0..=100.0).contains(&rules.max_errors), "from 0 to 100")?;
        within("max_p99_ratio", (1.0..=1_000.0).contains(&rules.max_p99_ratio), "from 1 to 1000")?;
        let canaries = canary.parse::<Canaries>().map_err(Problem::bad_request)?;
        Ok(Some(Order { canaries, rules }))
    }
}

/// `GET /v1/rollout`.
pub async fn standing(State(running): State<Running>) -> Result<Json<Standing>, Problem> {
    Ok(Json(running.rollout().await?))
}

/// How a trial is to be ended.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndQuery {
    /// Why.
    #[schemars(length(max = 1000))]
    message: Option<String>,
    /// Whose wish it is, where nobody is listed: who is, cannot claim to be another.
    #[schemars(length(max = 200))]
    author: Option<String>,
}

/// `POST /v1/rollout/promote`: all nodes take the revision on trial.
pub async fn promote(
    State(running): State<Running>,
    query: Params<EndQuery>,
    caller: Extension<Caller>,
) -> Result<Json<Rollout>, Problem> {
    end(running, query, caller, Outcome::Promoted).await
}

/// `POST /v1/rollout/abort`: all nodes go on as before it.
pub async fn abort(
    State(running): State<Running>,
    query: Params<EndQuery>,
    caller: Extension<Caller>,
) -> Result<Json<Rollout>, Problem> {
    end(running, query, caller, Outcome::RolledBack).await
}

async fn end(
    running: Running,
    Params(query): Params<EndQuery>,
    Extension(caller): Extension<Caller>,
    outcome: Outcome,
) -> Result<Json<Rollout>, Problem> {
    let audit = caller.deed(query.author.as_deref().unwrap_or_default());
    let why = query.message.filter(|why| !why.is_empty());
    let why = why.unwrap_or_else(|| format!("{} wanted it", audit.actor));
    Ok(Json(running.end_trial(outcome, &why, &caller.by, audit).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_has_canaries_and_bounds() {
        let query = |canary: Option<&str>, watch_s, max_p99_ratio| TrialQuery {
            canary: canary.map(str::to_owned),
            watch_s,
            max_p99_ratio,
            ..TrialQuery::default()
        };
        assert_eq!(query(None, None, None).order().unwrap(), None);
        let order = query(Some("10%"), Some(5), None).order().unwrap().unwrap();
        assert_eq!(order.canaries, Canaries::Percent(10.0));
        assert_eq!(order.rules, Rules { watch_s: 5, ..Rules::default() });
        for bad in [
            query(None, Some(5), None),
            query(Some("1"), Some(0), None),
            query(Some("1"), None, Some(0.5)),
            query(Some("1"), None, Some(f64::NAN)),
            query(Some("0"), None, None),
        ] {
            assert!(bad.clone().order().is_err(), "{bad:?}");
        }
    }
}
