//! Services of the operator's that see requests and answers on their way.

use super::UpstreamIndex;

/// An external processor of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    pub upstream: UpstreamIndex,
    /// What it is shown of requests, and of answers.
    pub request: ProcessorView,
    pub response: ProcessorView,
    /// Bounds a call, in milliseconds.
    pub timeout_ms: u32,
    /// Largest body that is shown, in bytes.
    pub max_body_bytes: u32,
    /// When it cannot be asked, requests and answers go on as they are.
    pub pass_on_failure: bool,
}

/// How much of a message is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessorView {
    #[default]
    Nothing,
    Head,
    /// The head, and the whole body behind it.
    Body,
}
