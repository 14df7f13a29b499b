//! What is done about upstreams that fail, are slow, or are asked too much.
//!
//! Percentages are whole numbers of 0 to 100, times are milliseconds. Where peers have a usual value
//! the default is theirs, or the comment says why not.

use super::UpstreamIndex;

/// Which failed tries are made again, how often, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, the first included: 1..=10; 1: no retries.
    pub attempts: u8,
    pub on: RetryOn,
    /// Answers of the upstream that are a failed try. Sorted.
    pub statuses: Vec<u16>,
    /// Statuses of gRPC calls that are a failed try where the answer is nothing else. 1..=16, sorted.
    pub grpc_statuses: Vec<u8>,
    pub methods: RetryMethods,
    /// Pauses are random between 0 and `backoff_base_ms` × 2^(retries so far), at most
    /// `backoff_max_ms` ("full jitter"). The first retry does not pause where another target can be
    /// asked.
    pub backoff_base_ms: u32,
    pub backoff_max_ms: u32,
    /// A `Retry-After` of at most this is waited for instead; a longer one ends the retries.
    /// 0: the field is not looked at.
    pub retry_after_max_ms: u32,
    /// Request bodies up to this size are kept for another try.
    pub body_bytes: u32,
}

/// Failures that another try may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// There was no connection, so nothing was sent: whatever the method.
    pub connect: bool,
    /// The peer says that it did not look at the request (RFC 9113 §8.7): whatever the method.
    pub refused: bool,
    /// The connection or stream ended before any byte of an answer.
    pub reset: bool,
    /// `Timeouts::try_ms` passed before the head of an answer.
    pub timeout: bool,
}

/// Methods whose requests may reach an upstream more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RetryMethods {
    /// Those of RFC 9110 §9.2.2.
    #[default]
    Idempotent,
    Any,
    /// Upper case as given.
    Listed(Vec<String>),
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: 3,
            on: RetryOn { connect: true, refused: true, reset: true, timeout: true },
            statuses: vec![502, 503, 504],
            // UNAVAILABLE: the one that says that another try may help.
            grpc_statuses: vec![14],
            methods: RetryMethods::Idempotent,
            backoff_base_ms: 25,
            backoff_max_ms: 250,
            retry_after_max_ms: 1_000,
            body_bytes: 64 * 1024,
        }
    }
}

/// Retries and hedges that may be under way at once, of all shards (Envoy's `retry_budget`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Of the upstream's active requests.
    pub percent: u8,
    /// That many are always allowed.
    pub min: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { percent: 20, min: 3 }
    }
}

/// A second try beside a slow first one; the first answer counts, the other is cancelled. Only for
/// idempotent methods, and within the retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// Sent after this quantile of recent latencies, in thousandths: 950 is p95.
    pub quantile_permille: u16,
    /// But not before; `u32::MAX`: never, which is what a route's `none` is.
    pub min_ms: u32,
}

/// Bounds on what an upstream, or each of its targets, has to do at once. Over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Requests in flight; 0: no bound.
    pub max_requests: u32,
    /// Requests that wait for a connection; 0: no bound but the engine's own.
    pub max_pending: u32,
}

/// When a circuit breaker opens, and how it closes. A trigger of 0 is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Errors in a row.
    pub consecutive: u32,
    /// Errors of all requests in the window.
    pub error_percent: u8,
    /// Requests of the window that took longer than `slow_ms` to the head of their answer.
    pub slow_percent: u8,
    pub slow_ms: u32,
    pub window_ms: u32,
    /// No percentage is judged below that many requests in the window.
    pub min_requests: u32,
    /// Stays open this long, then lets probes through.
    pub open_ms: u32,
    /// Successful probes that close it; as many at once. One that fails opens it again.
    pub probes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker {
            consecutive: 0,
            error_percent: 50,
            slow_percent: 0,
            slow_ms: 0,
            window_ms: 10_000,
            min_requests: 20,
            open_ms: 5_000,
            probes: 3,
        }
    }
}

/// What clients get while an upstream's breaker is open or none of its targets may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// The gateway's own 503.
    #[default]
    Refuse,
    /// This answer.
    Answer { status: u16, content_type: String, body: String },
    /// The answer of another upstream, whose own fallback is then not followed.
    Upstream(UpstreamIndex),
}

/// Targets that do worse than they should, or than their fleet, are left out for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Answers of 5xx in a row; 0: not judged.
    pub consecutive_5xx: u32,
    /// Failed connects, resets, time-outs, invalid answers, 502, 503, 504 in a row; 0: not judged.
    pub consecutive_gateway: u32,
    /// Period of the comparisons with the fleet.
    pub interval_ms: u32,
    /// Comparisons need that many targets with...
    pub min_targets: u32,
    /// ...that many requests in the period.
    pub min_requests: u32,
    /// Out: success rate below the mean by this many standard deviations, in thousandths; 0: off.
    pub stdev_permille: u32,
    /// Out: mean latency this many per cent of the fleet's median (300: three times); 0: off.
    pub latency_percent: u32,
    /// An ejection lasts this long × how often it has happened lately...
    pub base_ejection_ms: u32,
    /// ...at most this.
    pub max_ejection_ms: u32,
    /// Largest share of the targets that may be out at once; one always may, if there is another.
    pub max_ejected_percent: u8,
    /// With less than this share of the weight left, ejections are not heeded: they would only
    /// bring down the rest. What active checks have found stands.
    pub panic_percent: u8,
    /// A target that comes back gets a share that grows over this time; 0: all of it at once.
    pub slow_start_ms: u32,
}

impl Default for Outlier {
    fn default() -> Self {
        Outlier {
            consecutive_5xx: 5,
            consecutive_gateway: 3,
            interval_ms: 10_000,
            min_targets: 5,
            min_requests: 100,
            stdev_permille: 1_900,
            latency_percent: 0,
            base_ejection_ms: 30_000,
            max_ejection_ms: 300_000,
            max_ejected_percent: 50,
            panic_percent: 30,
            slow_start_ms: 10_000,
        }
    }
}

/// A bound on requests in flight that follows what the upstream can do: it falls as latencies rise
/// above their least (the gradient), and grows while they do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveConcurrency {
    /// Never below, per node.
    pub min: u32,
    /// Never above, per node.
    pub max: u32,
    /// Latencies this many per cent above their least are tolerated.
    pub tolerance_percent: u32,
}

impl Default for AdaptiveConcurrency {
    fn default() -> Self {
        AdaptiveConcurrency { min: 8, max: 10_000, tolerance_percent: 50 }
    }
}

/// Which of a node's requests are refused last when it is asked too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
    /// Never refused for load.
    Critical,
}

/// When the node as a whole sheds load: 503 with `Retry-After`, low priorities first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// Work waits longer than this for its CPU, over a tenth of a second; 0: not judged.
    pub queue_delay_ms: u32,
    /// Share of the memory that the process may have (cgroup or machine); 0: not judged.
    pub memory_percent: u8,
}

impl Default for Overload {
    fn default() -> Self {
        Overload { queue_delay_ms: 100, memory_percent: 90 }
    }
}

/// A share of a route's requests is sent to another upstream as well, whose answers are thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub upstream: UpstreamIndex,
    /// Requests of 10,000.
    pub per_ten_thousand: u16,
}

/// What a consistent hash is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// Lower case. Requests without the field go where their client's address says.
    Header(String),
    /// Requests without the cookie go where their client's address says.
    Cookie(String),
    /// Requests of nobody in particular go where their client's address says.
    Consumer,
    ClientIp,
}
