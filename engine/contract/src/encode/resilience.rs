//! What is done about upstreams that fail.
//!
//! Ranges here are those that the engine relies on; control asks for more sense than that.

use super::{DecodeError, In, MAX_ENTRIES, Out};
use crate::snapshot::*;

/// Most tries of one request.
pub const MAX_ATTEMPTS: u8 = 10;
/// Largest request body that may be kept for another try, in bytes.
pub const MAX_KEPT_BODY: u32 = 16 * 1024 * 1024;
/// The last status that gRPC has (UNAUTHENTICATED).
const MAX_GRPC_STATUS: u8 = 16;

pub(super) fn write_overload(out: &mut Out, overload: &Overload) {
    out.u32(overload.queue_delay_ms);
    out.u8(overload.memory_percent);
}

pub(super) fn read_overload(input: &mut In<'_>) -> Result<Overload, DecodeError> {
    Ok(Overload {
        queue_delay_ms: input.u32("node.overload.queue_delay_ms")?,
        memory_percent: input.u8_within("node.overload.memory_percent", 0, 100)?,
    })
}

pub(super) fn write_retry(out: &mut Out, retry: &Retry) {
    let Retry { attempts, on, statuses, grpc_statuses, methods, .. } = retry;
    out.u8(*attempts);
    out.u8(on.connect.into());
    out.u8(on.refused.into());
    out.u8(on.reset.into());
    out.u8(on.timeout.into());
    out.list(statuses, |out, status| out.u16(*status));
    out.list(grpc_statuses, |out, status| out.u8(*status));
    match methods {
        RetryMethods::Idempotent => out.u8(0),
        RetryMethods::Any => out.u8(1),
        RetryMethods::Listed(methods) => {
            out.u8(2);
            out.list(methods, |out, method| out.text(method));
        }
    }
    out.u32(retry.backoff_base_ms);
    out.u32(retry.backoff_max_ms);
    out.u32(retry.retry_after_max_ms);
    out.u32(retry.body_bytes);
}

pub(super) fn read_retry(input: &mut In<'_>) -> Result<Retry, DecodeError> {
    Ok(Retry {
        attempts: input.u8_within("retry.attempts", 1, MAX_ATTEMPTS)?,
        on: RetryOn {
            connect: input.bool("retry.on.connect")?,
            refused: input.bool("retry.on.refused")?,
            reset: input.bool("retry.on.reset")?,
            timeout: input.bool("retry.on.timeout")?,
        },
        statuses: {
            // Each above the one before: sorted, none twice.
            let mut least = 400;
            input.list("retry.statuses", MAX_ENTRIES, |input| {
                let status = input.u16_within("retry.statuses", least, 599)?;
                least = status + 1;
                Ok(status)
            })?
        },
        grpc_statuses: {
            let mut least = 1;
            input.list("retry.grpc_statuses", MAX_ENTRIES, |input| {
                let status = input.u8_within("retry.grpc_statuses", least, MAX_GRPC_STATUS)?;
                least = status + 1;
                Ok(status)
            })?
        },
        methods: match input.u8("retry.methods")? {
            0 => RetryMethods::Idempotent,
            1 => RetryMethods::Any,
            2 => RetryMethods::Listed(
                input.list("retry.methods", MAX_ENTRIES, |input| input.text("retry.methods"))?,
            ),
            other => return Err(input.tag("retry.methods", other)),
        },
        backoff_base_ms: input.u32("retry.backoff_base_ms")?,
        backoff_max_ms: input.u32("retry.backoff_max_ms")?,
        retry_after_max_ms: input.u32("retry.retry_after_max_ms")?,
        body_bytes: input.u32_within("retry.body_bytes", 0, MAX_KEPT_BODY)?,
    })
}

pub(super) fn write_budget(out: &mut Out, budget: RetryBudget) {
    out.u8(budget.percent);
    out.u32(budget.min);
}

pub(super) fn read_budget(input: &mut In<'_>) -> Result<RetryBudget, DecodeError> {
    Ok(RetryBudget {
        percent: input.u8_within("upstream.retry_budget.percent", 0, 100)?,
        min: input.u32("upstream.retry_budget.min")?,
    })
}

pub(super) fn write_hedge(out: &mut Out, hedge: &Hedge) {
    out.u16(hedge.quantile_permille);
    out.u32(hedge.min_ms);
}

pub(super) fn read_hedge(input: &mut In<'_>) -> Result<Hedge, DecodeError> {
    Ok(Hedge {
        quantile_permille: input.u16_within("hedge.quantile_permille", 1, 999)?,
        min_ms: input.u32("hedge.min_ms")?,
    })
}

pub(super) fn write_bounds(out: &mut Out, bounds: Bounds) {
    out.u32(bounds.max_requests);
    out.u32(bounds.max_pending);
}

pub(super) fn read_bounds(input: &mut In<'_>) -> Result<Bounds, DecodeError> {
    Ok(Bounds {
        max_requests: input.u32("bounds.max_requests")?,
        max_pending: input.u32("bounds.max_pending")?,
    })
}

pub(super) fn write_breaker(out: &mut Out, breaker: &Breaker) {
    out.u32(breaker.consecutive);
    out.u8(breaker.error_percent);
    out.u8(breaker.slow_percent);
    out.u32(breaker.slow_ms);
    out.u32(breaker.window_ms);
    out.u32(breaker.min_requests);
    out.u32(breaker.open_ms);
    out.u32(breaker.probes);
}

pub(super) fn read_breaker(input: &mut In<'_>) -> Result<Breaker, DecodeError> {
    Ok(Breaker {
        consecutive: input.u32("breaker.consecutive")?,
        error_percent: input.u8_within("breaker.error_percent", 0, 100)?,
        slow_percent: input.u8_within("breaker.slow_percent", 0, 100)?,
        slow_ms: input.u32("breaker.slow_ms")?,
        window_ms: input.u32_within("breaker.window_ms", 1, u32::MAX)?,
        min_requests: input.u32("breaker.min_requests")?,
        open_ms: input.u32_within("breaker.open_ms", 1, u32::MAX)?,
        probes: input.u32_within("breaker.probes", 1, u32::MAX)?,
    })
}

pub(super) fn write_fallback(out: &mut Out, fallback: &Fallback) {
    match fallback {
        Fallback::Refuse => out.u8(0),
        Fallback::Answer { status, content_type, body } => {
            out.u8(1);
            out.u16(*status);
            out.text(content_type);
            out.text(body);
        }
        Fallback::Upstream(upstream) => {
            out.u8(2);
            out.u32(*upstream);
        }
    }
}

pub(super) fn read_fallback(input: &mut In<'_>, upstreams: usize) -> Result<Fallback, DecodeError> {
    Ok(match input.u8("upstream.fallback")? {
        0 => Fallback::Refuse,
        1 => Fallback::Answer {
            status: input.u16_within("upstream.fallback.status", 200, 599)?,
            content_type: input.text("upstream.fallback.content_type")?,
            body: input.text("upstream.fallback.body")?,
        },
        2 => Fallback::Upstream(input.index("upstream.fallback.upstream", upstreams)?),
        other => return Err(input.tag("upstream.fallback", other)),
    })
}

pub(super) fn write_outlier(out: &mut Out, outlier: &Outlier) {
    out.u32(outlier.consecutive_5xx);
    out.u32(outlier.consecutive_gateway);
    out.u32(outlier.interval_ms);
    out.u32(outlier.min_targets);
    out.u32(outlier.min_requests);
    out.u32(outlier.stdev_permille);
    out.u32(outlier.latency_percent);
    out.u32(outlier.base_ejection_ms);
    out.u32(outlier.max_ejection_ms);
    out.u8(outlier.max_ejected_percent);
    out.u8(outlier.panic_percent);
    out.u32(outlier.slow_start_ms);
}

pub(super) fn read_outlier(input: &mut In<'_>) -> Result<Outlier, DecodeError> {
    Ok(Outlier {
        consecutive_5xx: input.u32("outlier.consecutive_5xx")?,
        consecutive_gateway: input.u32("outlier.consecutive_gateway")?,
        interval_ms: input.u32_within("outlier.interval_ms", 1, u32::MAX)?,
        min_targets: input.u32("outlier.min_targets")?,
        min_requests: input.u32("outlier.min_requests")?,
        stdev_permille: input.u32("outlier.stdev_permille")?,
        latency_percent: input.u32("outlier.latency_percent")?,
        base_ejection_ms: input.u32_within("outlier.base_ejection_ms", 1, u32::MAX)?,
        max_ejection_ms: input.u32_within("outlier.max_ejection_ms", 1, u32::MAX)?,
        max_ejected_percent: input.u8_within("outlier.max_ejected_percent", 0, 100)?,
        panic_percent: input.u8_within("outlier.panic_percent", 0, 100)?,
        slow_start_ms: input.u32("outlier.slow_start_ms")?,
    })
}

pub(super) fn write_concurrency(out: &mut Out, concurrency: &AdaptiveConcurrency) {
    out.u32(concurrency.min);
    out.u32(concurrency.max);
    out.u32(concurrency.tolerance_percent);
}

pub(super) fn read_concurrency(input: &mut In<'_>) -> Result<AdaptiveConcurrency, DecodeError> {
    let min = input.u32_within("concurrency.min", 1, u32::MAX)?;
    Ok(AdaptiveConcurrency {
        min,
        max: input.u32_within("concurrency.max", min, u32::MAX)?,
        tolerance_percent: input.u32("concurrency.tolerance_percent")?,
    })
}

pub(super) fn write_priority(out: &mut Out, priority: Priority) {
    out.u8(match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
        Priority::Critical => 3,
    });
}

pub(super) fn read_priority(input: &mut In<'_>) -> Result<Priority, DecodeError> {
    Ok(match input.u8("route.priority")? {
        0 => Priority::Low,
        1 => Priority::Normal,
        2 => Priority::High,
        3 => Priority::Critical,
        other => return Err(input.tag("route.priority", other)),
    })
}

pub(super) fn write_mirror(out: &mut Out, mirror: &Mirror) {
    out.u32(mirror.upstream);
    out.u16(mirror.per_ten_thousand);
}

pub(super) fn read_mirror(input: &mut In<'_>, upstreams: usize) -> Result<Mirror, DecodeError> {
    Ok(Mirror {
        upstream: input.index("route.mirror.upstream", upstreams)?,
        per_ten_thousand: input.u16_within("route.mirror.per_ten_thousand", 0, 10_000)?,
    })
}
