//! What a spec says about upstreams that fail, are slow, or are asked too much.
//!
//! The defaults are those of the snapshot.

use contract::snapshot as flat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Something, or the word `none`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "{T}OrNone")]
pub enum OrNone<T> {
    /// "none" turns it off.
    None(schema::NoneWord),
    Some(T),
}

impl<T> OrNone<T> {
    pub const NONE: OrNone<T> = OrNone::None(schema::NoneWord::None);

    pub fn as_option(&self) -> Option<&T> {
        match self {
            OrNone::None(_) => None,
            OrNone::Some(value) => Some(value),
        }
    }
}

impl<T> Default for OrNone<T> {
    fn default() -> Self {
        OrNone::NONE
    }
}

/// Which failed tries are made again, how often, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Tries in all, the first included; 1: no retries.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u8,
    /// Failures that another try may follow: connect, refused, reset, timeout, statuses of HTTP, and
    /// statuses of gRPC by their names.
    pub on: RetryOn,
    /// Methods whose requests may reach an upstream more than once. Every gRPC call is a POST.
    pub methods: RetryMethods,
    /// Pauses are random, between 0 and this times two for each retry so far, in milliseconds.
    #[schemars(range(max = 60_000))]
    pub backoff_base_ms: u32,
    /// Longest pause, in milliseconds.
    #[schemars(range(max = 60_000))]
    pub backoff_max_ms: u32,
    /// A Retry-After of at most this is waited for instead, in milliseconds; a longer one ends the
    /// retries. 0: the field is not looked at.
    #[schemars(range(max = 3_600_000))]
    pub retry_after_max_ms: u32,
    /// Request bodies up to this size are kept for another try, in bytes or as "64KiB".
    #[schemars(with = "schema::SizeForm")]
    pub body_bytes: u32,
}

impl Retry {
    /// One try.
    pub fn none() -> Retry {
        Retry { attempts: 1, ..Retry::default() }
    }
}

impl Default for Retry {
    fn default() -> Self {
        let retry = flat::Retry::default();
        let flat::RetryOn { connect, refused, reset, timeout } = retry.on;
        let grpc_statuses = GrpcStatus::of_codes(&retry.grpc_statuses);
        Retry {
            attempts: retry.attempts,
            on: RetryOn {
                connect,
                refused,
                reset,
                timeout,
                statuses: retry.statuses,
                grpc_statuses,
            },
            methods: RetryMethods::default(),
            backoff_base_ms: retry.backoff_base_ms,
            backoff_max_ms: retry.backoff_max_ms,
            retry_after_max_ms: retry.retry_after_max_ms,
            body_bytes: retry.body_bytes,
        }
    }
}

/// Failures that another try may follow. At least one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<schema::CauseForm>", into = "Vec<schema::CauseForm>")]
pub struct RetryOn {
    pub connect: bool,
    pub refused: bool,
    pub reset: bool,
    pub timeout: bool,
    /// Sorted, each once, 400 to 599.
    pub statuses: Vec<u16>,
    /// Sorted, each once.
    pub grpc_statuses: Vec<GrpcStatus>,
}

/// A status of a gRPC call that is not OK. The number is its code.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum GrpcStatus {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl GrpcStatus {
    /// In the order of their codes.
    pub const ALL: [GrpcStatus; 16] = [
        GrpcStatus::Cancelled,
        GrpcStatus::Unknown,
        GrpcStatus::InvalidArgument,
        GrpcStatus::DeadlineExceeded,
        GrpcStatus::NotFound,
        GrpcStatus::AlreadyExists,
        GrpcStatus::PermissionDenied,
        GrpcStatus::ResourceExhausted,
        GrpcStatus::FailedPrecondition,
        GrpcStatus::Aborted,
        GrpcStatus::OutOfRange,
        GrpcStatus::Unimplemented,
        GrpcStatus::Internal,
        GrpcStatus::Unavailable,
        GrpcStatus::DataLoss,
        GrpcStatus::Unauthenticated,
    ];

    pub fn code(self) -> u8 {
        self as u8
    }

    fn of_codes(codes: &[u8]) -> Vec<GrpcStatus> {
        GrpcStatus::ALL.into_iter().filter(|status| codes.contains(&status.code())).collect()
    }
}

/// Methods whose requests may reach an upstream more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "schema::MethodsForm", into = "schema::MethodsForm")]
pub enum RetryMethods {
    #[default]
    Idempotent,
    Any,
    /// At least one, in upper case.
    Listed(Vec<String>),
}

impl RetryMethods {
    /// Whether it has a method that is not idempotent.
    pub fn lists(&self, method: &str) -> bool {
        match self {
            RetryMethods::Idempotent => false,
            RetryMethods::Any => true,
            RetryMethods::Listed(methods) => methods.iter().any(|one| one == method),
        }
    }
}

/// How many retries and hedges may be under way at once, on all shards together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Share of the upstream's active requests.
    #[schemars(range(max = 100))]
    pub percent: u8,
    /// That many are always allowed.
    #[schemars(range(max = 1_000_000))]
    pub min: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        let flat::RetryBudget { percent, min } = flat::RetryBudget::default();
        RetryBudget { percent, min }
    }
}

/// A second try beside a slow first one; the first answer counts. Only for idempotent methods, and
/// within the retry budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// Sent after this quantile of recent latencies: 0.95 is p95.
    #[serde(
        rename = "quantile",
        with = "schema::thousandths",
        default = "Hedge::default_quantile_permille"
    )]
    #[schemars(with = "f64", range(min = 0.5, max = 0.999))]
    pub quantile_permille: u16,
    /// But not before, in milliseconds.
    #[serde(default = "Hedge::default_min_ms")]
    #[schemars(range(max = 86_400_000))]
    pub min_ms: u32,
}

impl Hedge {
    /// p95, as in "The Tail at Scale" (Dean, Barroso 2013): about a twentieth more requests.
    pub(crate) fn default_quantile_permille() -> u16 {
        950
    }

    pub(crate) fn default_min_ms() -> u32 {
        10
    }
}

/// Bounds on what an upstream, or each of its targets, has to do at once, on all shards together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Requests in flight; 0: no bound.
    #[schemars(range(max = 10_000_000))]
    pub max_requests: u32,
    /// Requests that wait for a connection; 0: no bound but the engine's own.
    #[schemars(range(max = 10_000_000))]
    pub max_pending: u32,
}

/// When a circuit breaker opens, and how it closes. A trigger of 0 is off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Errors in a row that open it.
    #[schemars(range(max = 1_000_000))]
    pub consecutive: u32,
    /// Errors of all requests in the window that open it.
    #[schemars(range(max = 100))]
    pub error_percent: u8,
    /// Requests of the window slower than slow_ms that open it.
    #[schemars(range(max = 100))]
    pub slow_percent: u8,
    /// What is slow to the head of the answer, in milliseconds.
    #[schemars(range(max = 86_400_000))]
    pub slow_ms: u32,
    /// Length of the window, in milliseconds.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub window_ms: u32,
    /// No percentage is judged with fewer requests in the window.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: u32,
    /// Stays open this long, then lets probes through, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub open_ms: u32,
    /// Successful probes that close it, as many at once.
    #[schemars(range(min = 1, max = 1000))]
    pub probes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        let breaker = flat::Breaker::default();
        Breaker {
            consecutive: breaker.consecutive,
            error_percent: breaker.error_percent,
            slow_percent: breaker.slow_percent,
            slow_ms: breaker.slow_ms,
            window_ms: breaker.window_ms,
            min_requests: breaker.min_requests,
            open_ms: breaker.open_ms,
            probes: breaker.probes,
        }
    }
}

/// What clients get while an upstream's breaker is open or none of its targets may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "schema::FallbackForm", into = "schema::FallbackForm")]
pub enum Fallback {
    /// The gateway's own 503.
    #[default]
    Refuse,
    /// This answer.
    Answer(FallbackAnswer),
    /// That of this upstream, whose own fallback is then not followed.
    Upstream(String),
}

/// An answer of the gateway in place of an upstream's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FallbackAnswer {
    /// Status, one that may have a body.
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Its Content-Type.
    pub content_type: String,
    /// Its body.
    pub body: String,
}

impl Default for FallbackAnswer {
    fn default() -> Self {
        FallbackAnswer {
            status: 503,
            content_type: "text/plain; charset=utf-8".into(),
            body: String::new(),
        }
    }
}

/// Targets that do worse than they should, or than their fleet, are left out for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outlier {
    /// Answers of 5xx in a row that eject a target; 0: not judged.
    #[schemars(range(max = 1_000_000))]
    pub consecutive_5xx: u32,
    /// Failed connects, resets, time-outs, invalid answers, 502, 503, 504 in a row that do; 0: not
    /// judged.
    #[schemars(range(max = 1_000_000))]
    pub consecutive_gateway: u32,
    /// Period of the comparisons with the fleet, in milliseconds.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub interval_ms: u32,
    /// Comparisons need that many targets with min_requests requests each.
    #[schemars(range(min = 2, max = 10_000))]
    pub min_targets: u32,
    /// Requests that a target needs in the period to be compared.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub min_requests: u32,
    /// Ejects a target whose success rate is below the mean by that many standard deviations, in
    /// thousandths: 1900 is 1.9; 0: off.
    #[schemars(range(max = 10_000))]
    pub stdev_permille: u32,
    /// Ejects a target whose mean latency is this many per cent of the fleet's median: 300 is three
    /// times; 0: off.
    #[schemars(range(max = 100_000))]
    pub latency_percent: u32,
    /// An ejection lasts this long times how often it has happened lately, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub base_ejection_ms: u32,
    /// Longest ejection, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub max_ejection_ms: u32,
    /// Largest share of the targets that may be out at once; one always may, if there is another.
    #[schemars(range(max = 100))]
    pub max_ejected_percent: u8,
    /// With less than this share of the weight left, ejections are not heeded.
    #[schemars(range(max = 100))]
    pub panic_percent: u8,
    /// A target that comes back gets a share that grows over this time, in milliseconds; 0: all of
    /// it at once.
    #[schemars(range(max = 3_600_000))]
    pub slow_start_ms: u32,
}

impl Default for Outlier {
    fn default() -> Self {
        let outlier = flat::Outlier::default();
        Outlier {
            consecutive_5xx: outlier.consecutive_5xx,
            consecutive_gateway: outlier.consecutive_gateway,
            interval_ms: outlier.interval_ms,
            min_targets: outlier.min_targets,
            min_requests: outlier.min_requests,
            stdev_permille: outlier.stdev_permille,
            latency_percent: outlier.latency_percent,
            base_ejection_ms: outlier.base_ejection_ms,
            max_ejection_ms: outlier.max_ejection_ms,
            max_ejected_percent: outlier.max_ejected_percent,
            panic_percent: outlier.panic_percent,
            slow_start_ms: outlier.slow_start_ms,
        }
    }
}

/// A bound on requests in flight that falls as latencies rise above their least, and grows while
/// they do not. Without any field: the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveConcurrency {
    /// Never below, on all shards together.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub min: u32,
    /// Never above, on all shards together.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max: u32,
    /// Latencies this many per cent above their least are tolerated.
    #[schemars(range(max = 1000))]
    pub tolerance_percent: u32,
}

impl Default for AdaptiveConcurrency {
    fn default() -> Self {
        let concurrency = flat::AdaptiveConcurrency::default();
        AdaptiveConcurrency {
            min: concurrency.min,
            max: concurrency.max,
            tolerance_percent: concurrency.tolerance_percent,
        }
    }
}

/// Which requests are refused last when the node is asked too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
    /// Never refused for load.
    Critical,
}

/// When the node as a whole sheds load: 503 with Retry-After, low priorities first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overload {
    /// Work waits longer than this for its CPU, in milliseconds; 0: not judged.
    #[schemars(range(max = 60_000))]
    pub queue_delay_ms: u32,
    /// Share of the memory that the process may have; 0: not judged.
    #[schemars(range(max = 100))]
    pub memory_percent: u8,
}

impl Default for Overload {
    fn default() -> Self {
        let flat::Overload { queue_delay_ms, memory_percent } = flat::Overload::default();
        Overload { queue_delay_ms, memory_percent }
    }
}

/// Another upstream that gets a share of a route's requests too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Name of the upstream.
    pub upstream: String,
    /// Share of the requests in per cent, such as 1.5.
    #[serde(rename = "percent", with = "schema::hundredths", default = "Mirror::everything")]
    #[schemars(with = "f64", range(min = 0.0, max = 100.0))]
    pub per_ten_thousand: u16,
}

impl Mirror {
    pub(crate) fn everything() -> u16 {
        10_000
    }
}
