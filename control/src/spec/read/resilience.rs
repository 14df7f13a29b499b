//! Retries, hedges, breakers and bounds.

use super::fields::{Fields, Walk};
use super::parts::{DAY_MS, HOUR_MS, count, ms};
use super::route::{size, unique};
use crate::spec::model::*;
use crate::spec::scalars;
use crate::spec::schema::{CauseForm, CauseWord};
use crate::spec::tree::{Node, Value};

/// Most of anything that is counted at once.
const MANY: u64 = 10_000_000;
/// Longest pause before a retry.
const PAUSE_MS: u64 = 60_000;
/// Longest body of a fallback's answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A thing or the word `none`.
pub(super) fn or_none<T>(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
    expected: &str,
    read: impl FnOnce(&mut Walk<'_>, &Node, &str) -> Option<T>,
) -> Option<OrNone<T>> {
    match &node.value {
        Value::Text(text) if text == "none" => {
            walk.places.set(path, node.mark);
            Some(OrNone::NONE)
        }
        Value::Map(_) => read(walk, node, path).map(OrNone::Some),
        _ => {
            walk.places.set(path, node.mark);
            walk.wrong_type(node, path, &format!("{expected}, or none"));
            None
        }
    }
}

pub(super) fn retry(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Retry> {
    let read = or_none(walk, node, path, "a map like {attempts: 3}", some_retry)?;
    Some(match read {
        OrNone::None(_) => Retry::none(),
        OrNone::Some(retry) => retry,
    })
}

fn some_retry(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Retry> {
    const KNOWN: &[&str] = &[
        "attempts",
        "on",
        "methods",
        "backoff_base_ms",
        "backoff_max_ms",
        "retry_after_max_ms",
        "body_bytes",
    ];
    let d = Retry::default();
    let f = &walk.fields(node, path, KNOWN)?;
    let most_attempts = contract::encode::MAX_ATTEMPTS.into();
    let backoff_base_ms = count(walk, f, "backoff_base_ms", 0, PAUSE_MS, d.backoff_base_ms);
    // With a longer base than the usual longest pause, the base is the bound.
    let backoff_max_ms = d.backoff_max_ms.max(backoff_base_ms);
    Some(Retry {
        attempts: count(walk, f, "attempts", 1, most_attempts, d.attempts),
        on: f.read(walk, "on", retry_on).unwrap_or(d.on),
        methods: f.read(walk, "methods", retry_methods).unwrap_or(d.methods),
        backoff_base_ms,
        backoff_max_ms: count(walk, f, "backoff_max_ms", 0, PAUSE_MS, backoff_max_ms),
        retry_after_max_ms: count(walk, f, "retry_after_max_ms", 0, HOUR_MS, d.retry_after_max_ms),
        body_bytes: f.read(walk, "body_bytes", kept_body).unwrap_or(d.body_bytes),
    })
}

fn kept_body(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<u32> {
    let bytes = size(walk, node, path)?;
    let most = contract::encode::MAX_KEPT_BODY;
    let fits = u32::try_from(bytes).ok().filter(|bytes| *bytes <= most);
    if fits.is_none() {
        let message = format!("{bytes} is out of range; expected 0 to {most} (16MiB)");
        walk.error("out-of-range", node, path, message);
    }
    fits
}

fn retry_on(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<RetryOn> {
    const WORDS: &[(&str, CauseForm)] = &[
        ("connect", CauseForm::Word(CauseWord::Connect)),
        ("refused", CauseForm::Word(CauseWord::Refused)),
        ("reset", CauseForm::Word(CauseWord::Reset)),
        ("timeout", CauseForm::Word(CauseWord::Timeout)),
        ("cancelled", CauseForm::Grpc(GrpcStatus::Cancelled)),
        ("unknown", CauseForm::Grpc(GrpcStatus::Unknown)),
        ("invalid_argument", CauseForm::Grpc(GrpcStatus::InvalidArgument)),
        ("deadline_exceeded", CauseForm::Grpc(GrpcStatus::DeadlineExceeded)),
        ("not_found", CauseForm::Grpc(GrpcStatus::NotFound)),
        ("already_exists", CauseForm::Grpc(GrpcStatus::AlreadyExists)),
        ("permission_denied", CauseForm::Grpc(GrpcStatus::PermissionDenied)),
        ("resource_exhausted", CauseForm::Grpc(GrpcStatus::ResourceExhausted)),
        ("failed_precondition", CauseForm::Grpc(GrpcStatus::FailedPrecondition)),
        ("aborted", CauseForm::Grpc(GrpcStatus::Aborted)),
        ("out_of_range", CauseForm::Grpc(GrpcStatus::OutOfRange)),
        ("unimplemented", CauseForm::Grpc(GrpcStatus::Unimplemented)),
        ("internal", CauseForm::Grpc(GrpcStatus::Internal)),
        ("unavailable", CauseForm::Grpc(GrpcStatus::Unavailable)),
        ("data_loss", CauseForm::Grpc(GrpcStatus::DataLoss)),
        ("unauthenticated", CauseForm::Grpc(GrpcStatus::Unauthenticated)),
    ];
    let mut on = RetryOn::default();
    walk.list(node, path, |walk, node, path| {
        let fresh = match &node.value {
            Value::Integer(_) => {
                let status = walk.number(node, path, 400..=599)?;
                let fresh = !on.statuses.contains(&status);
                on.statuses.push(status);
                fresh
            }
            Value::Text(_) => match walk.word(node, path, WORDS)? {
                CauseForm::Word(CauseWord::Connect) => !std::mem::replace(&mut on.connect, true),
                CauseForm::Word(CauseWord::Refused) => !std::mem::replace(&mut on.refused, true),
                CauseForm::Word(CauseWord::Reset) => !std::mem::replace(&mut on.reset, true),
                CauseForm::Word(CauseWord::Timeout) => !std::mem::replace(&mut on.timeout, true),
                CauseForm::Grpc(status) => {
                    let fresh = !on.grpc_statuses.contains(&status);
                    on.grpc_statuses.push(status);
                    fresh
                }
                // No word is a number.
                CauseForm::Status(_) => return None,
            },
            _ => {
                let expected = "connect, refused, reset, timeout, a status, or one of gRPC's such \
                                as unavailable";
                walk.wrong_type(node, path, expected);
                return None;
            }
        };
        if !fresh {
            let value = node.excerpt().unwrap_or_default();
            walk.error("duplicate-value", node, path, format!("`{value}` is there twice"));
        }
        Some(())
    })?;
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        let message = "nothing would be tried again; write `retry: none` for that";
        walk.error("empty-list", node, path, message.into());
    }
    on.statuses.sort_unstable();
    on.statuses.dedup();
    on.grpc_statuses.sort_unstable();
    on.grpc_statuses.dedup();
    Some(on)
}

fn retry_methods(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<RetryMethods> {
    if let Value::List(items) = &node.value {
        if items.is_empty() {
            let message = "no method would be tried again; write `retry: none` for that";
            walk.error("empty-list", node, path, message.into());
        }
        let methods = unique(walk, node, path, "bad-method", scalars::method)?;
        return Some(RetryMethods::Listed(methods));
    }
    let words = [("idempotent", false), ("any", true)];
    if !matches!(node.value, Value::Text(_)) {
        walk.places.set(path, node.mark);
        walk.wrong_type(node, path, "idempotent, any or a list like [GET, POST]");
        return None;
    }
    Some(match walk.word(node, path, &words)? {
        true => RetryMethods::Any,
        false => RetryMethods::Idempotent,
    })
}

pub(super) fn budget(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<RetryBudget> {
    let d = RetryBudget::default();
    let f = &walk.fields(node, path, &["percent", "min"])?;
    Some(RetryBudget {
        percent: count(walk, f, "percent", 0, 100, d.percent),
        min: count(walk, f, "min", 0, 1_000_000, d.min),
    })
}

pub(super) fn hedge(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<OrNone<Hedge>> {
    or_none(walk, node, path, "a map like {quantile: 0.95}", |walk, node, path| {
        let f = &walk.fields(node, path, &["quantile", "min_ms"])?;
        let quantile = f.read(walk, "quantile", |walk, node, path| {
            walk.decimal(node, path, 3, 500..=999, "a quantile from 0.5 to 0.999, such as 0.95")
        });
        let min_ms = Hedge::default_min_ms();
        Some(Hedge {
            quantile_permille: quantile.unwrap_or_else(Hedge::default_quantile_permille),
            min_ms: count(walk, f, "min_ms", 0, DAY_MS, min_ms),
        })
    })
}

pub(super) fn bounds(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Bounds> {
    let f = &walk.fields(node, path, &["max_requests", "max_pending"])?;
    Some(Bounds {
        max_requests: count(walk, f, "max_requests", 0, MANY, 0),
        max_pending: count(walk, f, "max_pending", 0, MANY, 0),
    })
}

pub(super) fn breaker(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<OrNone<Breaker>> {
    const KNOWN: &[&str] = &[
        "consecutive",
        "error_percent",
        "slow_percent",
        "slow_ms",
        "window_ms",
        "min_requests",
        "open_ms",
        "probes",
    ];
    or_none(walk, node, path, "a map like {error_percent: 50}", |walk, node, path| {
        let d = Breaker::default();
        let f = &walk.fields(node, path, KNOWN)?;
        Some(Breaker {
            consecutive: count(walk, f, "consecutive", 0, 1_000_000, d.consecutive),
            error_percent: percent(walk, f, "error_percent", d.error_percent),
            slow_percent: percent(walk, f, "slow_percent", d.slow_percent),
            slow_ms: count(walk, f, "slow_ms", 0, DAY_MS, d.slow_ms),
            window_ms: count(walk, f, "window_ms", 100, HOUR_MS, d.window_ms),
            min_requests: count(walk, f, "min_requests", 1, 1_000_000, d.min_requests),
            open_ms: ms(walk, f, "open_ms", DAY_MS, d.open_ms),
            probes: count(walk, f, "probes", 1, 1000, d.probes),
        })
    })
}

pub(super) fn percent(walk: &mut Walk<'_>, f: &Fields<'_>, name: &str, default: u8) -> u8 {
    count(walk, f, name, 0, 100, default)
}

pub(super) fn fallback(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Fallback> {
    let expected = "a map like {status: 503, body: \"try later\"} or {upstream: other}";
    let read = or_none(walk, node, path, expected, some_fallback)?;
    Some(match read {
        OrNone::None(_) => Fallback::Refuse,
        OrNone::Some(fallback) => fallback,
    })
}

fn some_fallback(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Fallback> {
    const ANSWER: [&str; 3] = ["status", "content_type", "body"];
    let f = &walk.fields(node, path, &["status", "content_type", "body", "upstream"])?;
    if let Some(upstream) = f.node("upstream") {
        if let Some(other) = ANSWER.iter().find(|name| f.node(name).is_some()) {
            let message = format!("upstream and {other} exclude each other; keep one");
            walk.error("conflicting-fields", upstream, &f.at("upstream"), message);
        }
        return walk.text(upstream, &f.at("upstream")).map(Fallback::Upstream);
    }
    let d = FallbackAnswer::default();
    let status = f.read(walk, "status", |walk, node, path| {
        let status = walk.number(node, path, 200..=599)?;
        if matches!(status, 204 | 205 | 304) {
            let message = format!("an answer with {status} has no body; choose another");
            walk.error("bad-status", node, path, message);
            return None;
        }
        Some(status)
    });
    let content_type = f.read(walk, "content_type", |walk, node, path| {
        walk.parsed(node, path, "bad-value", scalars::field_value)
    });
    let body = f.read(walk, "body", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text.len() {
            0..=MAX_ANSWER => Ok(text.to_string()),
            more => Err(format!("the body has {more} bytes; at most {MAX_ANSWER}")),
        })
    });
    Some(Fallback::Answer(FallbackAnswer {
        status: status.unwrap_or(d.status),
        content_type: content_type.unwrap_or(d.content_type),
        body: body.unwrap_or(d.body),
    }))
}

pub(super) fn outlier(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<OrNone<Outlier>> {
    const KNOWN: &[&str] = &[
        "consecutive_5xx",
        "consecutive_gateway",
        "interval_ms",
        "min_targets",
        "min_requests",
        "stdev_permille",
        "latency_percent",
        "base_ejection_ms",
        "max_ejection_ms",
        "max_ejected_percent",
        "panic_percent",
        "slow_start_ms",
    ];
    or_none(walk, node, path, "a map like {consecutive_5xx: 5}", |walk, node, path| {
        let d = Outlier::default();
        let f = &walk.fields(node, path, KNOWN)?;
        let gateway = d.consecutive_gateway;
        let base_ejection_ms = ms(walk, f, "base_ejection_ms", DAY_MS, d.base_ejection_ms);
        let max_ejection_ms = d.max_ejection_ms.max(base_ejection_ms);
        Some(Outlier {
            consecutive_5xx: count(walk, f, "consecutive_5xx", 0, 1_000_000, d.consecutive_5xx),
            consecutive_gateway: count(walk, f, "consecutive_gateway", 0, 1_000_000, gateway),
            interval_ms: count(walk, f, "interval_ms", 100, HOUR_MS, d.interval_ms),
            min_targets: count(walk, f, "min_targets", 2, 10_000, d.min_targets),
            min_requests: count(walk, f, "min_requests", 1, MANY, d.min_requests),
            stdev_permille: count(walk, f, "stdev_permille", 0, 10_000, d.stdev_permille),
            latency_percent: count(walk, f, "latency_percent", 0, 100_000, d.latency_percent),
            base_ejection_ms,
            max_ejection_ms: ms(walk, f, "max_ejection_ms", DAY_MS, max_ejection_ms),
            max_ejected_percent: percent(walk, f, "max_ejected_percent", d.max_ejected_percent),
            panic_percent: percent(walk, f, "panic_percent", d.panic_percent),
            slow_start_ms: count(walk, f, "slow_start_ms", 0, HOUR_MS, d.slow_start_ms),
        })
    })
}

pub(super) fn concurrency(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
) -> Option<OrNone<AdaptiveConcurrency>> {
    or_none(walk, node, path, "a map like {min: 8}", |walk, node, path| {
        let d = AdaptiveConcurrency::default();
        let f = &walk.fields(node, path, &["min", "max", "tolerance_percent"])?;
        let min = count(walk, f, "min", 1, MANY, d.min);
        Some(AdaptiveConcurrency {
            min,
            max: count(walk, f, "max", 1, MANY, d.max.max(min)),
            tolerance_percent: count(walk, f, "tolerance_percent", 0, 1000, d.tolerance_percent),
        })
    })
}

pub(super) fn overload(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Overload> {
    let d = Overload::default();
    let f = &walk.fields(node, path, &["queue_delay_ms", "memory_percent"])?;
    Some(Overload {
        queue_delay_ms: count(walk, f, "queue_delay_ms", 0, 60_000, d.queue_delay_ms),
        memory_percent: percent(walk, f, "memory_percent", d.memory_percent),
    })
}

pub(super) fn mirror(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Mirror> {
    let f = &walk.fields(node, path, &["upstream", "percent"])?;
    let upstream = f.require(walk, "upstream", "the name of an upstream", |walk, node, path| {
        walk.text(node, path)
    });
    let share = f.read(walk, "percent", |walk, node, path| {
        walk.decimal(node, path, 2, 0..=10_000, "a share from 0 to 100, such as 1.5")
    });
    Some(Mirror {
        upstream: upstream.unwrap_or_default(),
        per_ten_thousand: share.unwrap_or_else(Mirror::everything),
    })
}

/// Fields that describe the connection or the message (RFC 9110 §7.6.1), and so say nothing to us.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn deadline_header(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.parsed(node, path, "bad-field-name", |text| {
        let name = scalars::field_name(text)?;
        match FRAMING.contains(&name.as_str()) || name == "grpc-timeout" {
            true => Err(format!("`{name}` has a meaning of its own; choose another field")),
            false => Ok(name),
        }
    })
}
