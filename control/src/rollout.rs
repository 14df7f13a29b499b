//! Canaries: a revision that some nodes serve on trial while the rest go on with the one before, and
//! the judgement that makes all nodes take it, or none.
//!
//! A trial is a value in the store beside its revision. Every node knows from it what to serve, meters
//! what it serves meanwhile ([`Meter`]), and may pronounce the verdict ([`judge`]); the store sees to it
//! that only one is. So a trial goes on when any node fails, and ends without a person.

mod judge;
mod meter;
mod plan;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use judge::{MAX_SILENT_MS, Verdict, judge};
pub use meter::{Meter, Tally};
pub use plan::{Canaries, Order};

use crate::store::NodeReport;

/// A revision on trial, or what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    /// On trial: the latest one while it lasts.
    pub revision: u64,
    /// What the rest serve meanwhile.
    pub base: u64,
    /// The nodes that serve `revision`.
    pub canaries: Vec<String>,
    pub rules: Rules,
    pub author: String,
    /// Milliseconds since the Unix epoch, by the store's clock; 0: when it was stored.
    pub started_ms: u64,
    pub state: State,
    /// Why it ended.
    pub reason: String,
    /// By the same clock; null while it lasts.
    pub ended_ms: Option<u64>,
}

/// How a trial stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It lasts.
    Watching,
    /// All nodes serve the revision.
    Promoted,
    /// All nodes serve what they served before, as a new revision.
    RolledBack,
}

/// When a trial is a success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rules {
    /// How long it is watched before it is promoted, in seconds.
    pub watch_s: u32,
    /// Requests on either side below which nothing is judged.
    pub min_requests: u64,
    /// Points of a percent by which the canaries' share of 5xx may be larger than that of the rest.
    pub max_errors: f64,
    /// How many times the rest's p99 that of the canaries may be.
    pub max_p99_ratio: f64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { watch_s: 60, min_requests: 100, max_errors: 1.0, max_p99_ratio: 2.0 }
    }
}

/// What the nodes of one side served since the trial began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    pub nodes: Vec<String>,
    pub requests: u64,
    /// Of `requests`, those answered with 5xx.
    pub errors: u64,
    /// In microseconds; null without requests.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
}

/// A trial and what is known of its two sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Standing {
    /// The last one; null: there was none.
    pub rollout: Option<Rollout>,
    pub canaries: Side,
    pub rest: Side,
    /// What it waits for, for people; empty when it is over.
    pub waits_for: String,
}

impl Rollout {
    pub fn lasts(&self) -> bool {
        self.state == State::Watching
    }

    /// The node serves the revision on trial.
    pub fn has(&self, node: &str) -> bool {
        self.canaries.iter().any(|name| name == node)
    }

    /// The revision that `node` is to serve.
    pub fn wanted(&self, node: &str) -> u64 {
        match !self.lasts() || self.has(node) {
            true => self.revision,
            false => self.base,
        }
    }

    /// The same, ended.
    pub fn ended(&self, state: State, reason: &str, now_ms: u64) -> Rollout {
        Rollout { state, reason: reason.into(), ended_ms: Some(now_ms), ..self.clone() }
    }

    /// What the nodes have metered: the canaries, and the rest.
    pub fn sides(&self, nodes: &[NodeReport]) -> (Side, Side) {
        let of = |canary: bool| {
            let side = nodes.iter().filter(|node| self.has(&node.name) == canary);
            let mut sum = Tally::of(self.revision);
            let mut names = Vec::new();
            for node in side {
                names.push(node.name.clone());
                if let Some(tally) = node.trial.as_ref().filter(|one| one.revision == self.revision)
                {
                    sum.add(tally);
                }
            }
            Side {
                nodes: names,
                requests: sum.requests,
                errors: sum.errors,
                p50_us: sum.quantile_us(0.5),
                p99_us: sum.quantile_us(0.99),
            }
        };
        (of(true), of(false))
    }
}

impl Side {
    /// Share of 5xx, in percent.
    pub fn error_percent(&self) -> f64 {
        match self.requests {
            0 => 0.0,
            requests => self.errors as f64 * 100.0 / requests as f64,
        }
    }
}
