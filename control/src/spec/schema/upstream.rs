//! The short forms of what a spec says about upstreams and retries.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::NoneWord;
use crate::spec::model::{
    Balance, Fallback, FallbackAnswer, GrpcHealth, GrpcStatus, HashKey, Health, HealthKind,
    HttpHealth, RetryMethods, RetryOn, StatusRange,
};
use crate::spec::scalars;

/// How requests are spread: a word, or what to hash.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum BalanceForm {
    Word(BalanceWord),
    Hash(HashForm),
}

/// Ways to spread requests over the targets.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceWord {
    /// Each target in turn; weights are ignored.
    RoundRobin,
    /// In proportion to the weights, evenly mixed.
    Weighted,
    /// Fewest requests in flight relative to the weight.
    LeastConnections,
    /// Of two random targets the less busy and quicker one.
    PowerOfTwo,
}

/// Consistent hashing with bounded loads: equal keys go to the same target while it is not too busy.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashForm {
    /// What the hash is made of.
    hash: HashKey,
    /// The most that a target may have of its fair share of the requests in flight.
    #[serde(default = "default_load_percent")]
    #[schemars(range(min = 101, max = 1000))]
    load_percent: u16,
}

/// The usual choice of its authors: a quarter more than the fair share.
pub fn default_load_percent() -> u16 {
    125
}

impl From<BalanceForm> for Balance {
    fn from(form: BalanceForm) -> Self {
        match form {
            BalanceForm::Word(BalanceWord::RoundRobin) => Balance::RoundRobin,
            BalanceForm::Word(BalanceWord::Weighted) => Balance::Weighted,
            BalanceForm::Word(BalanceWord::LeastConnections) => Balance::LeastConnections,
            BalanceForm::Word(BalanceWord::PowerOfTwo) => Balance::PowerOfTwo,
            BalanceForm::Hash(HashForm { hash, load_percent }) => {
                Balance::Hash { key: hash, load_percent }
            }
        }
    }
}

impl From<Balance> for BalanceForm {
    fn from(balance: Balance) -> Self {
        match balance {
            Balance::RoundRobin => BalanceForm::Word(BalanceWord::RoundRobin),
            Balance::Weighted => BalanceForm::Word(BalanceWord::Weighted),
            Balance::LeastConnections => BalanceForm::Word(BalanceWord::LeastConnections),
            Balance::PowerOfTwo => BalanceForm::Word(BalanceWord::PowerOfTwo),
            Balance::Hash { key, load_percent } => {
                BalanceForm::Hash(HashForm { hash: key, load_percent })
            }
        }
    }
}

/// A failure that another try may follow.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CauseForm {
    /// An answer with this status.
    Status(#[schemars(range(min = 400, max = 599))] u16),
    Word(CauseWord),
    /// An answer to a gRPC call that is nothing but this status.
    Grpc(GrpcStatus),
}

/// Failures without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CauseWord {
    /// There was no connection, so nothing was sent: whatever the method.
    Connect,
    /// The upstream says that it did not look at the request: whatever the method.
    Refused,
    /// The connection ended before any byte of an answer.
    Reset,
    /// try_ms passed before the head of an answer.
    Timeout,
}

/// What may be retried, at least one.
#[derive(JsonSchema)]
#[allow(dead_code)] // Only its schema is used.
pub struct CausesForm(#[schemars(length(min = 1))] Vec<CauseForm>);

impl From<Vec<CauseForm>> for RetryOn {
    fn from(causes: Vec<CauseForm>) -> Self {
        let mut on = RetryOn::default();
        for cause in causes {
            match cause {
                CauseForm::Status(status) => on.statuses.push(status),
                CauseForm::Word(CauseWord::Connect) => on.connect = true,
                CauseForm::Word(CauseWord::Refused) => on.refused = true,
                CauseForm::Word(CauseWord::Reset) => on.reset = true,
                CauseForm::Word(CauseWord::Timeout) => on.timeout = true,
                CauseForm::Grpc(status) => on.grpc_statuses.push(status),
            }
        }
        on.statuses.sort_unstable();
        on.statuses.dedup();
        on.grpc_statuses.sort_unstable();
        on.grpc_statuses.dedup();
        on
    }
}

impl From<RetryOn> for Vec<CauseForm> {
    fn from(on: RetryOn) -> Self {
        let words = [
            (on.connect, CauseWord::Connect),
            (on.refused, CauseWord::Refused),
            (on.reset, CauseWord::Reset),
            (on.timeout, CauseWord::Timeout),
        ];
        let words = words.into_iter().filter(|(on, _)| *on).map(|(_, word)| CauseForm::Word(word));
        let statuses = on.statuses.into_iter().map(CauseForm::Status);
        words.chain(statuses).chain(on.grpc_statuses.into_iter().map(CauseForm::Grpc)).collect()
    }
}

/// Methods whose requests may be sent again: a word, or a list.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum MethodsForm {
    Word(MethodsWord),
    Listed(#[schemars(length(min = 1))] Vec<String>),
}

/// Methods whose requests may be sent again.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodsWord {
    /// Those of RFC 9110 §9.2.2.
    Idempotent,
    /// Every method.
    Any,
}

impl From<MethodsForm> for RetryMethods {
    fn from(form: MethodsForm) -> Self {
        match form {
            MethodsForm::Word(MethodsWord::Idempotent) => RetryMethods::Idempotent,
            MethodsForm::Word(MethodsWord::Any) => RetryMethods::Any,
            MethodsForm::Listed(methods) => RetryMethods::Listed(methods),
        }
    }
}

impl From<RetryMethods> for MethodsForm {
    fn from(methods: RetryMethods) -> Self {
        match methods {
            RetryMethods::Idempotent => MethodsForm::Word(MethodsWord::Idempotent),
            RetryMethods::Any => MethodsForm::Word(MethodsWord::Any),
            RetryMethods::Listed(methods) => MethodsForm::Listed(methods),
        }
    }
}

/// What clients get instead: "none" (the gateway's own 503), an answer, or that of an upstream.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FallbackForm {
    Word(NoneWord),
    Upstream(FallbackUpstream),
    Answer(FallbackAnswer),
}

/// Another upstream answers; its own fallback is then not followed.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallbackUpstream {
    /// Name of the upstream.
    upstream: String,
}

impl From<FallbackForm> for Fallback {
    fn from(form: FallbackForm) -> Self {
        match form {
            FallbackForm::Word(NoneWord::None) => Fallback::Refuse,
            FallbackForm::Upstream(FallbackUpstream { upstream }) => Fallback::Upstream(upstream),
            FallbackForm::Answer(answer) => Fallback::Answer(answer),
        }
    }
}

impl From<Fallback> for FallbackForm {
    fn from(fallback: Fallback) -> Self {
        match fallback {
            Fallback::Refuse => FallbackForm::Word(NoneWord::None),
            Fallback::Upstream(upstream) => FallbackForm::Upstream(FallbackUpstream { upstream }),
            Fallback::Answer(answer) => FallbackForm::Answer(answer),
        }
    }
}

/// Active checks of the targets, by one of grpc, http and tcp; a target that fails is passed over.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = one_kind_of_check)]
pub struct HealthForm {
    /// Ask grpc.health.v1.Health; the upstream must speak HTTP/2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grpc: Option<GrpcHealth>,
    /// GET a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<HttpHealth>,
    /// Open a connection, over TLS with its handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp: Option<TcpHealth>,
    /// From one check to the next, in milliseconds.
    #[serde(default = "Health::default_interval_ms")]
    #[schemars(range(min = 100, max = 3_600_000))]
    interval_ms: u32,
    /// Longest wait for the answer, in milliseconds; at most interval_ms.
    #[serde(default = "Health::default_timeout_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    timeout_ms: u32,
    /// Successes in a row that make a target healthy.
    #[serde(default = "Health::default_healthy_after")]
    #[schemars(range(min = 1, max = 1000))]
    healthy_after: u32,
    /// Failures in a row that make it unhealthy.
    #[serde(default = "Health::default_unhealthy_after")]
    #[schemars(range(min = 1, max = 1000))]
    unhealthy_after: u32,
}

/// A check by connecting has no settings.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpHealth {}

impl TryFrom<HealthForm> for Health {
    type Error = &'static str;

    fn try_from(form: HealthForm) -> Result<Self, Self::Error> {
        let kind = match (form.grpc, form.http, form.tcp) {
            (Some(grpc), None, None) => HealthKind::Grpc(grpc),
            (None, Some(http), None) => HealthKind::Http(http),
            (None, None, Some(TcpHealth {})) => HealthKind::Tcp,
            _ => return Err("health has one of grpc, http and tcp"),
        };
        Ok(Health {
            kind,
            interval_ms: form.interval_ms,
            timeout_ms: form.timeout_ms,
            healthy_after: form.healthy_after,
            unhealthy_after: form.unhealthy_after,
        })
    }
}

impl From<Health> for HealthForm {
    fn from(health: Health) -> Self {
        let (mut grpc, mut http, mut tcp) = (None, None, None);
        match health.kind {
            HealthKind::Grpc(kind) => grpc = Some(kind),
            HealthKind::Http(kind) => http = Some(kind),
            HealthKind::Tcp => tcp = Some(TcpHealth {}),
        }
        HealthForm {
            grpc,
            http,
            tcp,
            interval_ms: health.interval_ms,
            timeout_ms: health.timeout_ms,
            healthy_after: health.healthy_after,
            unhealthy_after: health.unhealthy_after,
        }
    }
}

fn one_kind_of_check(schema: &mut Schema) {
    let one = serde_json::json!([
        {"required": ["grpc"]}, {"required": ["http"]}, {"required": ["tcp"]}
    ]);
    schema.insert("oneOf".into(), one);
}

/// A status such as 204, or several as "200-299".
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StatusForm {
    One(#[schemars(range(min = 100, max = 599))] u16),
    Range(#[schemars(regex(pattern = r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"))] String),
}

impl TryFrom<StatusForm> for StatusRange {
    type Error = String;

    fn try_from(form: StatusForm) -> Result<Self, String> {
        match form {
            StatusForm::One(status) => Ok(StatusRange { first: status, last: status }),
            StatusForm::Range(text) => scalars::status_range(&text),
        }
    }
}

impl From<StatusRange> for StatusForm {
    fn from(range: StatusRange) -> Self {
        match range {
            StatusRange { first, last } if first == last => StatusForm::One(first),
            StatusRange { first, last } => StatusForm::Range(format!("{first}-{last}")),
        }
    }
}

/// A whole number of parts, written as a number with decimals.
macro_rules! parts {
    ($name:ident, $of:literal) => {
        pub mod $name {
            use serde::{Deserialize, Deserializer, Serializer};

            pub fn serialize<S: Serializer>(parts: &u16, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_f64(f64::from(*parts) / $of)
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
                // Saturating: what is past the range of the field is refused where it is checked.
                Ok((f64::deserialize(from)? * $of).round() as u16)
            }
        }
    };
}

parts!(thousandths, 1_000.0);
parts!(hundredths, 100.0);
