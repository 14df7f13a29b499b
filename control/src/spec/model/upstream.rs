//! Upstreams in the spec: targets, deadlines, checks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AdaptiveConcurrency, Bounds, Breaker, ClientCredentials, Fallback, Hedge, OrNone, Outlier,
    Protocol, Retry, RetryBudget, UpstreamTls, schema,
};
use crate::spec::scalars::TargetAddress;

/// A cluster of interchangeable targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Unique among upstreams; what routes refer to.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// Whose it is: who may change only some workspaces may change it when this is one of them.
    /// Without it: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub workspace: Option<String>,
    /// How requests are spread over the targets.
    #[serde(default)]
    pub balance: Balance,
    /// Where the requests go: host:port, or an address with a weight.
    #[schemars(with = "Vec<schema::TargetForm>", length(min = 1))]
    pub targets: Vec<Target>,
    /// Keep-alive pool per target and shard.
    #[serde(default)]
    pub pool: Pool,
    /// Deadlines of an exchange with this upstream.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What Host the upstream sees.
    #[serde(default)]
    pub host_header: HostHeader,
    /// What is spoken with the targets.
    #[serde(default)]
    pub protocol: Protocol,
    /// Reach the targets over TLS; without it: clear text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// Ask the targets whether they are well; one that is not is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// With less than this share of the targets' weight alive, requests get the fallback at once; 0:
    /// never.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub min_live_percent: u8,
    /// Which failed tries are made again.
    #[serde(default)]
    #[schemars(with = "OrNone<Retry>")]
    pub retry: Retry,
    /// How many retries and hedges may be under way at once.
    #[serde(default)]
    pub retry_budget: RetryBudget,
    /// A second try beside a slow first one.
    #[serde(default)]
    pub hedge: OrNone<Hedge>,
    /// Bounds on what the upstream as a whole has to do at once.
    #[serde(default)]
    pub bounds: Bounds,
    /// Bounds on what each target has to do at once.
    #[serde(default)]
    pub target_bounds: Bounds,
    /// The circuit breaker of the upstream as a whole.
    #[serde(default)]
    pub breaker: OrNone<Breaker>,
    /// The circuit breaker of each target.
    #[serde(default)]
    pub target_breaker: OrNone<Breaker>,
    /// What clients get while the breaker is open or no target may be used.
    #[serde(default)]
    pub fallback: Fallback,
    /// Leave out targets that do worse than they should, for a while. On by default.
    #[serde(default = "default_outlier")]
    pub outlier: OrNone<Outlier>,
    /// A bound on requests in flight that follows the upstream's latencies.
    #[serde(default)]
    pub concurrency: OrNone<AdaptiveConcurrency>,
    /// A token of our own that goes with every request, in place of the client's Authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<ClientCredentials>,
}

impl Default for Upstream {
    /// Without a name and without targets.
    fn default() -> Self {
        Upstream {
            name: String::new(),
            workspace: None,
            balance: Balance::default(),
            targets: Vec::new(),
            pool: Pool::default(),
            timeouts: Timeouts::default(),
            host_header: HostHeader::default(),
            protocol: Protocol::default(),
            tls: None,
            health: None,
            min_live_percent: 0,
            retry: Retry::default(),
            retry_budget: RetryBudget::default(),
            hedge: OrNone::default(),
            bounds: Bounds::default(),
            target_bounds: Bounds::default(),
            breaker: OrNone::default(),
            target_breaker: OrNone::default(),
            fallback: Fallback::default(),
            outlier: default_outlier(),
            concurrency: OrNone::default(),
            credentials: None,
        }
    }
}

/// Without a word in the spec, outliers are looked for.
pub(crate) fn default_outlier() -> OrNone<Outlier> {
    OrNone::Some(Outlier::default())
}

/// How requests are spread over the targets of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "schema::BalanceForm", into = "schema::BalanceForm")]
pub enum Balance {
    /// Each target in turn; weights are ignored.
    RoundRobin,
    /// In proportion to the weights, evenly mixed.
    Weighted,
    /// Fewest requests in flight relative to the weight.
    LeastConnections,
    /// Of two random targets the less busy and quicker one.
    #[default]
    PowerOfTwo,
    /// Consistent hashing with bounded loads.
    Hash {
        key: HashKey,
        /// 101 to 1000: the most that a target may have of its fair share of the requests in flight.
        load_percent: u16,
    },
}

/// What a consistent hash is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The value of this header field; without it the client's address.
    Header(String),
    /// The value of this cookie; without it the client's address.
    Cookie(String),
    /// Who calls, on routes with `auth`; of nobody in particular the client's address.
    Consumer,
    /// The client's address.
    ClientIp,
}

/// One target of an upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// host:port. A host name with several addresses becomes one target per address.
    pub address: TargetAddress,
    /// Share, 1 to 1000.
    pub weight: u32,
    /// Targets of a larger number are used as those of smaller ones fail.
    #[serde(default)]
    pub priority: u8,
    /// Where it is; those of the node's own locality are preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
}

/// Keep-alive pool per target and shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Idle connections kept.
    #[schemars(range(max = 65_535))]
    pub max_idle: u32,
    /// Open connections, idle and busy; past it requests wait for one until the connect time-out.
    #[schemars(range(min = 1, max = 65_535))]
    pub max_connections: u32,
    /// An idle connection is closed after this long, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub idle_timeout_ms: u32,
}

impl Default for Pool {
    fn default() -> Self {
        let pool = contract::snapshot::Pool::default();
        Pool {
            max_idle: pool.max_idle,
            max_connections: pool.max_connections,
            idle_timeout_ms: pool.idle_timeout_ms,
        }
    }
}

/// Deadlines of one exchange with an upstream, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// To open a connection, or to wait for one of the pool.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub connect_ms: u32,
    /// From the end of the request to the first byte of the answer.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub first_byte_ms: u32,
    /// Longest silence inside an answer's body.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub idle_ms: u32,
    /// From the start of one try to the head of its answer; past it another try may be made.
    pub try_ms: LimitMs,
    /// The whole exchange; "none" for answers that never end.
    pub total_ms: LimitMs,
}

impl Default for Timeouts {
    fn default() -> Self {
        let timeouts = contract::snapshot::Timeouts::default();
        Timeouts {
            connect_ms: timeouts.connect_ms,
            first_byte_ms: timeouts.first_byte_ms,
            idle_ms: timeouts.idle_ms,
            // The snapshot's default, `u32::MAX`.
            try_ms: LimitMs::None,
            total_ms: LimitMs::After(timeouts.total_ms),
        }
    }
}

/// A bound on a time, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, from = "schema::LimitForm", into = "schema::LimitForm")]
pub enum LimitMs {
    /// Milliseconds, 1 to 86 400 000.
    After(u32),
    /// No bound.
    None,
}

/// Deadlines of a route; what is absent is the upstream's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteTimeouts {
    /// To open a connection, or to wait for one of the pool, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u32>,
    /// From the end of the request to the first byte of the answer, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u32>,
    /// Longest silence inside an answer's body, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u32>,
    /// From the start of one try to the head of its answer, in milliseconds; past it another try may
    /// be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub try_ms: Option<LimitMs>,
    /// The whole exchange, in milliseconds; "none" for answers that never end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<LimitMs>,
}

/// What Host the upstream sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostHeader {
    /// The client's.
    #[default]
    Preserve,
    /// The chosen target's name.
    Target,
    /// This value.
    Value(String),
}

/// Active checks of the targets; one that fails is passed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "schema::HealthForm", into = "schema::HealthForm")]
pub struct Health {
    pub kind: HealthKind,
    pub interval_ms: u32,
    /// At most `interval_ms`.
    pub timeout_ms: u32,
    /// Successes in a row that make a target healthy, and failures that make it unhealthy.
    pub healthy_after: u32,
    pub unhealthy_after: u32,
}

impl Health {
    pub(crate) fn default_interval_ms() -> u32 {
        5_000
    }

    pub(crate) fn default_timeout_ms() -> u32 {
        1_000
    }

    pub(crate) fn default_healthy_after() -> u32 {
        2
    }

    pub(crate) fn default_unhealthy_after() -> u32 {
        3
    }
}

/// How a target is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthKind {
    Grpc(GrpcHealth),
    Http(HttpHealth),
    Tcp,
}

/// What to ask grpc.health.v1.Health about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcHealth {
    /// Name of the service; empty: the server as a whole.
    pub service: String,
}

/// What to GET, and what the answer must be like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpHealth {
    /// Path, with a query if need be.
    #[schemars(regex(pattern = r"^/[!-~]*$"))]
    pub path: String,
    /// The Host to send; without it the target's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Statuses that say it is well.
    #[serde(default = "HttpHealth::default_statuses")]
    #[schemars(length(min = 1))]
    pub statuses: Vec<StatusRange>,
    /// A text that must be in the beginning of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl HttpHealth {
    pub(crate) fn default_statuses() -> Vec<StatusRange> {
        vec![StatusRange { first: 200, last: 299 }]
    }
}

/// Statuses from `first` to `last`, both included. Read and written as `204` or `"200-299"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "schema::StatusForm", into = "schema::StatusForm")]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}
