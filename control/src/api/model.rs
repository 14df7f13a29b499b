//! What the admin API answers, as types both ends share.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::NodeReport;

/// Answer to an apply or a rollback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// The revision that is running now; of a dry run, the one that stays.
    pub revision: u64,
    /// The epoch every shard serves now.
    pub epoch: u64,
    /// Nothing was different, so nothing was done.
    pub unchanged: bool,
    pub dry_run: bool,
    /// From the publish to the last shard's adoption, in microseconds.
    pub convergence_us: Option<u64>,
    pub shards: usize,
    /// The nodes that serve it on trial, or would; empty: it is for all.
    #[serde(default)]
    pub canaries: Vec<String>,
    /// The change, thing by thing.
    pub diff: serde_json::Value,
    /// The change for people.
    pub changes: String,
    /// What a person should know, such as settings that need a restart.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    pub version: String,
    /// Revision and epoch as published.
    pub revision: u64,
    pub epoch: u64,
    /// Every shard serves the published epoch.
    pub converged: bool,
    /// Last convergence, in microseconds.
    pub convergence_us: Option<u64>,
    /// `ok`, `starting`, or `down: ` and why.
    pub engine: String,
    pub control_uptime_ms: u64,
    pub shards: Vec<Shard>,
    pub access_log: AccessLog,
    /// Upstream host names that do not resolve.
    pub unresolved: Vec<Unresolved>,
    /// Certificate files that cannot be used; what they held before stays in use.
    pub certificate_errors: Vec<String>,
    /// Where revisions are kept.
    #[serde(default)]
    pub store: String,
    /// Why the store cannot be asked just now; traffic is served all the same.
    #[serde(default)]
    pub store_error: Option<String>,
    /// Why this node does not serve the store's latest revision.
    #[serde(default)]
    pub revision_error: Option<String>,
}

/// The nodes that share a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cluster {
    pub store: String,
    /// Why it cannot be asked; then only the node that was asked is told of.
    pub store_error: Option<String>,
    /// The latest revision, which every node should serve, or the canaries while it is on trial.
    pub latest: u64,
    /// By name.
    pub nodes: Vec<ClusterNode>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterNode {
    /// `ok`, `behind`, `failed` (see `error`), or `gone`.
    pub state: String,
    /// Milliseconds since it last reported.
    pub silent_ms: u64,
    /// It is the node that was asked.
    pub own: bool,
    /// It serves a revision on trial.
    #[serde(default)]
    pub canary: bool,
    #[serde(flatten)]
    pub node: NodeReport,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Shard {
    pub shard: usize,
    /// Epoch it serves.
    pub epoch: u64,
    pub healthy: bool,
    /// Milliseconds since its last sign of life.
    pub silent_ms: u64,
    pub requests: u64,
    pub connections: u64,
    /// Access records it could not hand over.
    pub records_dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AccessLogState")]
pub struct AccessLog {
    /// A path, `-` or `off`.
    pub path: String,
    pub lines_dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unresolved {
    pub host: String,
    pub error: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RouteState")]
pub struct Route {
    pub name: String,
    pub methods: Vec<String>,
    pub hosts: Vec<String>,
    /// `= /exact`, `/prefix*` or `~ regex`.
    pub path: String,
    /// Header and query conditions.
    pub conditions: usize,
    pub upstreams: Vec<Share>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    pub name: String,
    pub weight: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "UpstreamState")]
pub struct Upstream {
    pub name: String,
    pub balance: String,
    /// What the engine says of it; null before it has said anything.
    pub standing: Option<UpstreamStanding>,
    pub targets: Vec<Target>,
}

/// How an upstream as a whole does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UpstreamStanding {
    /// `none`, `closed`, `open` or `half_open`.
    pub breaker: String,
    /// Why the breaker is or was open, in one stable word; null for no reason.
    pub reason: Option<String>,
    /// Since when the breaker is as it is, in milliseconds of Unix time.
    pub since_ms: Option<u64>,
    /// How often the breaker has opened.
    pub breaker_opens: u64,
    /// The same by reason; what never happened is left out.
    pub opens_by_reason: BTreeMap<String, u64>,
    /// Requests that the breaker has let through while it was half open.
    pub breaker_probes: u64,
    /// The adaptive bound on requests in flight; null without one.
    pub concurrency_limit: Option<u32>,
    /// Share of the targets' weight that is alive, in per cent.
    pub live_percent: u8,
    pub active_requests: u32,
    /// Retries and hedges under way.
    pub active_retries: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TargetState")]
pub struct Target {
    /// As the spec calls it.
    pub name: String,
    pub address: String,
    pub weight: u32,
    pub priority: u8,
    pub locality: Option<String>,
    /// `unknown`, `healthy`, `slow_start`, `unhealthy`, `ejected`, `open` or `half_open`.
    pub state: String,
    /// Why, in one stable word; null for no reason.
    pub reason: Option<String>,
    /// Since when, in milliseconds of Unix time; null while the state is unknown.
    pub since_ms: Option<u64>,
    pub in_flight: u32,
    /// How often it has been ejected.
    pub ejections: u64,
    /// The same by reason; what never happened is left out.
    pub ejections_by_reason: BTreeMap<String, u64>,
    /// Of its ejections, those that are over.
    pub returns: u64,
    /// `none`, `closed`, `open` or `half_open`.
    pub breaker: String,
    /// How often its breaker has opened.
    pub breaker_opens: u64,
    /// The same by reason; what never happened is left out.
    pub opens_by_reason: BTreeMap<String, u64>,
    /// Requests that its breaker has let through while it was half open.
    pub breaker_probes: u64,
    /// Share of its weight that it gets, in per cent: 0 while it gets nothing, less than 100 in a
    /// slow start.
    pub share_percent: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ListenerState")]
pub struct Listener {
    pub name: String,
    pub address: String,
    /// Protocols that it speaks, such as `h2` and `http/1.1`.
    pub protocols: Vec<String>,
    pub tls: bool,
    /// Sockets that accept, one per shard.
    pub shards: usize,
}

/// A certificate in use. Never its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "CertificateState")]
pub struct Certificate {
    /// The listener that shows it; of an upstream's (mTLS) it is null.
    pub listener: Option<String>,
    /// The upstream that it is shown to.
    pub upstream: Option<String>,
    /// Server names that it answers to.
    pub names: Vec<String>,
    pub subject: String,
    pub issuer: String,
    /// Seconds since the Unix epoch.
    pub not_before: i64,
    pub not_after: i64,
    /// Whole days until `not_after`; negative: it has ended.
    pub days_left: i64,
    pub key_type: String,
    /// `none`, `request` or `require`.
    pub client_auth: String,
    /// File with the chain.
    pub file: String,
}

/// A way to prove who one is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AuthenticatorState")]
pub struct Authenticator {
    pub name: String,
    /// `api_key`, `jwt`, `introspection`, `login`, `certificate`, `basic`, `signature` or `external`.
    pub kind: String,
    /// Whose tokens it takes; null: anybody's, or none.
    pub issuer: Option<String>,
    /// What it asks, or gets keys from: a URL or a file; null: nothing.
    pub source: Option<String>,
    /// Keys that it verifies tokens with; null: it has no use for any, or they have not come yet.
    pub keys: Option<usize>,
    /// Whether it has what it needs from others; without, callers get 503.
    pub ready: bool,
    /// Routes that ask for it.
    pub routes: usize,
}

/// One window of a limit for one value of what it counts by, as this node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitBucket {
    /// The policy, the window, and what it counts by.
    pub bucket: String,
    pub consumer: Option<String>,
    pub limit: u64,
    /// Within the window, by all nodes, as far as this one knows.
    pub used: u64,
    /// What this node may admit without asking.
    pub leased: u64,
    /// Roughly what is left for all nodes.
    pub remaining: u64,
    /// Until the first request that counts does so no more; 0: none counts.
    pub reset_ms: u64,
    /// `exact`; while Redis cannot be asked: `share`, `denied`, `open`.
    pub state: String,
    /// `strict`, `leased`, `local`.
    pub mode: String,
}

/// What the response cache of a node keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CacheState {
    /// Answers that this request had go.
    pub purged: u64,
    pub objects: u64,
    /// All that counts against the bound, answers on their way in included.
    pub bytes: u64,
    pub max_bytes: u64,
    /// Those that keep most, first.
    pub routes: Vec<CacheLine>,
}

/// What is kept of a route's answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CacheLine {
    pub route: String,
    pub objects: u64,
    pub bytes: u64,
}

impl From<contract::CacheReport> for CacheState {
    fn from(report: contract::CacheReport) -> CacheState {
        let line = |line: contract::CacheLine| CacheLine {
            route: line.route,
            objects: line.objects,
            bytes: line.bytes,
        };
        CacheState {
            purged: report.purged,
            objects: report.objects,
            bytes: report.bytes,
            max_bytes: report.max_bytes,
            routes: report.routes.into_iter().map(line).collect(),
        }
    }
}

impl From<contract::LimitLine> for LimitBucket {
    fn from(line: contract::LimitLine) -> LimitBucket {
        LimitBucket {
            bucket: line.bucket,
            consumer: Some(line.consumer).filter(|name| !name.is_empty()),
            limit: line.limit,
            used: line.used,
            leased: line.leased,
            remaining: line.remaining,
            reset_ms: line.reset_ms,
            state: line.state,
            mode: line.mode,
        }
    }
}

/// Someone who calls. No secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ConsumerState")]
pub struct Consumer {
    pub name: String,
    pub groups: Vec<String>,
    /// With those of its groups.
    pub scopes: Vec<String>,
    /// Name of its limit policy.
    pub limits: Option<String>,
    pub api_keys: usize,
    /// Of the API keys those that have ended.
    pub expired_api_keys: usize,
    /// When one of its API keys was last used here, in seconds since the Unix epoch.
    pub last_used_s: Option<u64>,
    pub passwords: usize,
    pub certificates: usize,
    pub signing_keys: usize,
    pub subjects: usize,
}

/// An API key of the spec, told as `sluice keys list` tells those in Redis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ApiKeyState")]
pub struct ApiKey {
    /// In hexadecimal.
    pub sha256: String,
    /// The key's first characters; empty where the spec does not say.
    pub prefix: String,
    pub consumer: String,
    /// Milliseconds since the Unix epoch; null: never.
    pub expires_ms: Option<u64>,
    /// When it was last used here, in seconds since the Unix epoch, to a minute; null: not that is
    /// known.
    pub last_used_s: Option<u64>,
}

/// The running spec. Secrets that stand in it are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Running {
    pub revision: u64,
    pub epoch: u64,
    pub author: String,
    pub message: String,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    pub source_name: String,
    /// The text as written.
    pub source: String,
    /// Canonical form.
    pub spec: serde_json::Value,
}

/// `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemDocument {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// Every problem of a refused spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<serde_json::Value>,
}

/// An API key that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeyMade {
    /// The key, told this once; null in a dry run, and where an answer is repeated for its idempotency
    /// key.
    pub key: Option<String>,
    /// In hexadecimal: what the spec has of it.
    pub sha256: String,
    pub prefix: String,
    pub applied: Applied,
}

/// Whether a spec could run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Validated {
    pub ok: bool,
    /// Errors and warnings in the order of the text.
    pub problems: Vec<serde_json::Value>,
}

/// What a spec would do with requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TryAnswer {
    /// The revision that it was compared to.
    pub revision: u64,
    pub diff: crate::diff::Diff,
    pub tried: usize,
    /// Requests that there was no time for.
    pub left_out: usize,
    /// Of those that were tried, how many would fare differently.
    pub different: usize,
    pub requests: Vec<Tried>,
}

/// A request that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tried {
    pub method: String,
    pub host: String,
    pub path_and_query: String,
    /// `same`, `routed` (it is refused now), `refused` (it is routed now) or `differently`.
    pub change: String,
    pub now: Course,
    pub then: Course,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Course {
    /// `matched`, `not_found`, `method_not_allowed` or `bad_path`.
    pub result: String,
    pub route: Option<String>,
    /// With their weights.
    pub upstreams: Vec<String>,
    /// Path and query as the upstream gets them.
    pub path: Option<String>,
    /// What is asked of the caller; null: nothing.
    pub auth: Option<String>,
    /// Limits that must have room.
    pub limits: Vec<String>,
    pub problem: Option<String>,
}
