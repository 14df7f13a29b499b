//! Services of the operator's that see requests and answers on their way.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::schema;

/// A service that sees the route's requests and answers, changes or refuses them. It speaks the messages
/// of Envoy's external processing (envoy.service.ext_proc.v3) over gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalProcessor {
    /// Name of its upstream, which speaks HTTP/2 (`protocol: http2`).
    pub upstream: String,
    /// What it is shown of requests.
    #[serde(default = "ProcessorView::of_requests")]
    pub request: ProcessorView,
    /// What it is shown of answers, in a call of its own.
    #[serde(default)]
    pub response: ProcessorView,
    /// How long a call may take.
    #[serde(default = "ExternalProcessor::default_timeout_ms")]
    #[schemars(range(min = 1, max = 60_000))]
    pub timeout_ms: u32,
    /// Largest body that is shown, in bytes or as "1MiB": a larger request gets 413, a larger answer 502.
    #[serde(default = "ExternalProcessor::default_max_body_bytes")]
    #[schemars(with = "schema::SizeForm")]
    pub max_body_bytes: u64,
    /// What happens when it cannot be asked, is late, or says what makes no sense.
    #[serde(default)]
    pub on_failure: OnProcessorFailure,
}

impl ExternalProcessor {
    pub(crate) fn default_timeout_ms() -> u32 {
        200
    }

    pub(crate) fn default_max_body_bytes() -> u64 {
        1024 * 1024
    }
}

/// How much of a message is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessorView {
    #[default]
    Nothing,
    /// The head. Bodies pass as they come.
    Headers,
    /// The head and the whole body, which is read first. Those of gRPC calls and upgrades are not shown.
    Body,
}

impl ProcessorView {
    pub(crate) fn of_requests() -> ProcessorView {
        ProcessorView::Headers
    }
}

/// What becomes of a message that could not be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnProcessorFailure {
    /// An error is answered.
    #[default]
    Refuse,
    /// It goes on as it is.
    Pass,
}
