//! What stores keep, as values.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Text;
use crate::rollout::{Rollout, Tally};

/// One stored spec with where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// Rises by one with every revision, from 1.
    pub id: u64,
    /// Milliseconds since the Unix epoch, by the store's clock.
    pub created_ms: u64,
    pub author: String,
    pub message: String,
    /// The spec as JSON: what is compiled. A store may change its layout, never its meaning.
    pub spec: Text,
    /// The text as the person wrote it, comments and all.
    pub source: Text,
    /// File name (or other origin) of `source`.
    pub source_name: String,
    /// What it changed, as [`crate::diff::Diff`], without secrets; null for the first one and for
    /// those from before this was kept.
    #[serde(default)]
    pub diff: Value,
}

/// A [`Revision`] without its texts, for lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevisionLine {
    pub id: u64,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    pub author: String,
    pub message: String,
    pub source_name: String,
}

/// A revision about to be stored; the store gives it its id and time.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub author: String,
    pub message: String,
    pub spec: Text,
    pub source: Text,
    pub source_name: String,
    /// How `spec` differs from that of another revision, where it is little of much. `source` is then
    /// its canonical form. A store may keep this instead of both.
    pub delta: Option<Delta>,
    /// What changes, as [`crate::diff::Diff`]; null: not told.
    pub diff: Value,
    /// The revision that `diff` was made against.
    pub base: Option<u64>,
    /// Stored with the revision, or neither is. Without a revision in it, it gets that of the draft.
    pub audit: Option<AuditDraft>,
    /// The same.
    pub trial: Trial,
}

/// What a revision is to a trial.
#[derive(Clone, Debug, Default)]
pub enum Trial {
    /// Nothing. While one lasts it is not stored.
    #[default]
    None,
    /// It begins with it; `revision` and `started_ms` are the store's to set.
    Begin(Box<Rollout>),
    /// It ends with it.
    End(Box<Rollout>),
}

/// What nodes are to serve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The latest revision; 0: there is none.
    pub latest: u64,
    /// The trial of it, while it lasts.
    pub trial: Option<Rollout>,
}

impl Standing {
    /// The revision that `node` is to serve; 0: none.
    pub fn wanted(&self, node: &str) -> u64 {
        self.trial.as_ref().map_or(self.latest, |trial| trial.wanted(node))
    }
}

/// A change of one thing in a list of a spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// The revision that it is a change of.
    pub base: u64,
    /// Name of the list.
    pub list: String,
    /// Index of what is taken out, before anything is put in.
    pub take: Option<usize>,
    /// What is put in, and its index then.
    pub put: Option<(usize, Value)>,
}

impl Delta {
    /// Makes the change in a whole spec. `false`: it does not fit.
    pub fn apply(self, spec: &mut Value) -> bool {
        let Some(list) = spec.get_mut(&self.list).and_then(Value::as_array_mut) else {
            return false;
        };
        match self.take {
            Some(at) if at < list.len() => drop(list.remove(at)),
            Some(_) => return false,
            None => {}
        }
        match self.put {
            Some((at, value)) if at <= list.len() => list.insert(at, value),
            Some(_) => return false,
            None => {}
        }
        true
    }
}

/// Something that somebody did, or was refused to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditDraft {
    /// Who: a name of the access list, or the user of this machine.
    pub actor: String,
    /// From where: an address.
    pub source: String,
    /// What: a verb, such as `apply`.
    pub action: String,
    /// On what, such as `route/shop`.
    pub target: String,
    pub revision: Option<u64>,
    /// `done`, or why not.
    pub outcome: String,
}

/// A link of the audit chain; see [`super::chain`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Rises by one with every entry, from 1.
    pub seq: u64,
    /// Milliseconds since the Unix epoch, by the store's clock.
    pub time_ms: u64,
    pub actor: String,
    pub source: String,
    pub action: String,
    pub target: String,
    pub revision: Option<u64>,
    pub outcome: String,
    /// Of the entry before, in hexadecimal; of the first one, empty.
    pub prev_hash: String,
    /// SHA-256 in hexadecimal over everything above.
    pub hash: String,
}

/// What a look at the whole audit chain found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditVerdict {
    /// Entries looked at.
    pub entries: u64,
    /// Hash of the last one. Kept elsewhere, it proves later that nothing before was changed.
    pub head: String,
    /// The first thing that is wrong, for people; null: the chain is whole.
    pub broken: Option<String>,
}

/// The answer to a request with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// SHA-256 of method, path and body, in hexadecimal.
    pub fingerprint: String,
    pub status: u16,
    pub body: Vec<u8>,
}

/// How a node stands, as it says itself every few seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeReport {
    /// Of the node, unique in the cluster.
    pub name: String,
    /// Where its admin API listens.
    pub admin: String,
    pub version: String,
    /// Revision that it is to serve, as far as it knows.
    pub wanted: u64,
    /// Revision that all its shards serve, or that it published last.
    pub served: u64,
    pub epoch: u64,
    /// All shards serve `epoch`.
    pub converged: bool,
    /// From its publish to its last shard's adoption, in microseconds.
    pub convergence_us: Option<u64>,
    /// From the storing of `served` (by whatever node) until all shards served it, in milliseconds;
    /// null when it was stored before this control process began.
    pub lag_ms: Option<u64>,
    /// Why it does not serve what is wanted.
    pub error: Option<String>,
    /// `ok`, `starting`, or `down: ` and why.
    pub engine: String,
    /// What it serves just now.
    #[serde(default)]
    pub load: Load,
    /// What it served since the trial began that lasts; null: there is none.
    #[serde(default)]
    pub trial: Option<Tally>,
    /// When it last reported, in milliseconds since the Unix epoch by the store's clock, which sets
    /// it.
    pub seen_ms: u64,
}

/// What a node serves, since a moment of its own: only differences mean anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Load {
    pub requests: u64,
    /// Requests per second over the last interval.
    pub rate: f64,
}
