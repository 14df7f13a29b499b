//! Services that see requests and answers on their way.

use super::{DecodeError, In, Out};
use crate::snapshot::{Processor, ProcessorView};

/// Largest body that a processor may be shown, in bytes.
pub const MAX_PROCESSED_BODY: u32 = 16 * 1024 * 1024;
/// Longest that a processor may take, in milliseconds.
pub const MAX_PROCESSOR_MS: u32 = 60_000;

pub(super) fn write(out: &mut Out, processor: &Processor) {
    out.u32(processor.upstream);
    write_view(out, processor.request);
    write_view(out, processor.response);
    out.u32(processor.timeout_ms);
    out.u32(processor.max_body_bytes);
    out.u8(processor.pass_on_failure.into());
}

pub(super) fn read(input: &mut In<'_>, upstreams: usize) -> Result<Processor, DecodeError> {
    Ok(Processor {
        upstream: input.index("route.processor.upstream", upstreams)?,
        request: read_view(input)?,
        response: read_view(input)?,
        timeout_ms: input.u32_within("route.processor.timeout_ms", 1, MAX_PROCESSOR_MS)?,
        max_body_bytes: input.u32_within("route.processor.max_body", 0, MAX_PROCESSED_BODY)?,
        pass_on_failure: input.bool("route.processor.pass_on_failure")?,
    })
}

fn write_view(out: &mut Out, view: ProcessorView) {
    out.u8(match view {
        ProcessorView::Nothing => 0,
        ProcessorView::Head => 1,
        ProcessorView::Body => 2,
    });
}

fn read_view(input: &mut In<'_>) -> Result<ProcessorView, DecodeError> {
    Ok(match input.u8("route.processor.view")? {
        0 => ProcessorView::Nothing,
        1 => ProcessorView::Head,
        2 => ProcessorView::Body,
        other => return Err(input.tag("route.processor.view", other)),
    })
}
