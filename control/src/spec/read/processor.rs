//! Services that see requests and answers on their way.

use contract::encode::{MAX_PROCESSED_BODY, MAX_PROCESSOR_MS};

use super::fields::Walk;
use super::parts::count;
use super::route::size;
use crate::spec::model::{ExternalProcessor, OnProcessorFailure, ProcessorView};
use crate::spec::tree::Node;

pub(super) fn external_processor(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
) -> Option<ExternalProcessor> {
    const KNOWN: &[&str] =
        &["upstream", "request", "response", "timeout_ms", "max_body_bytes", "on_failure"];
    const VIEWS: &[(&str, ProcessorView)] = &[
        ("nothing", ProcessorView::Nothing),
        ("headers", ProcessorView::Headers),
        ("body", ProcessorView::Body),
    ];
    const FAILURES: &[(&str, OnProcessorFailure)] =
        &[("refuse", OnProcessorFailure::Refuse), ("pass", OnProcessorFailure::Pass)];
    let f = &walk.fields(node, path, KNOWN)?;
    let upstream = f.require(walk, "upstream", "the name of an upstream", |walk, node, path| {
        walk.text(node, path)
    });
    let request = f.read(walk, "request", |walk, node, path| walk.word(node, path, VIEWS));
    let response = f.read(walk, "response", |walk, node, path| walk.word(node, path, VIEWS));
    let (request, response) =
        (request.unwrap_or(ProcessorView::Headers), response.unwrap_or_default());
    if (request, response) == (ProcessorView::Nothing, ProcessorView::Nothing) {
        let message = "it would be shown nothing; give `request` or `response`, or leave it out";
        walk.error("bad-value", node, path, message.into());
    }
    let default_ms = ExternalProcessor::default_timeout_ms();
    let timeout_ms = count(walk, f, "timeout_ms", 1, u64::from(MAX_PROCESSOR_MS), default_ms);
    let max_body_bytes = f.read(walk, "max_body_bytes", |walk, node, path| {
        let bytes = size(walk, node, path)?;
        if bytes > u64::from(MAX_PROCESSED_BODY) {
            let message = format!("at most {MAX_PROCESSED_BODY} bytes (16MiB) are shown");
            walk.error("out-of-range", node, path, message);
            return None;
        }
        Some(bytes)
    });
    let failure = f.read(walk, "on_failure", |walk, node, path| walk.word(node, path, FAILURES));
    Some(ExternalProcessor {
        upstream: upstream.unwrap_or_default(),
        request,
        response,
        timeout_ms,
        max_body_bytes: max_body_bytes.unwrap_or_else(ExternalProcessor::default_max_body_bytes),
        on_failure: failure.unwrap_or_default(),
    })
}
