//! Active checks of an upstream's targets.

use super::fields::Walk;
use super::parts::{HOUR_MS, count, ms, one_of};
use super::upstream::host_value;
use crate::spec::model::{GrpcHealth, Health, HealthKind, HttpHealth, StatusRange};
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

/// Longest text that a body is searched for, in bytes.
const MAX_BODY: usize = 1024;

pub(super) fn health(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Health> {
    const KINDS: &[&str] = &["grpc", "http", "tcp"];
    const KNOWN: &[&str] =
        &["grpc", "http", "tcp", "interval_ms", "timeout_ms", "healthy_after", "unhealthy_after"];
    let f = &walk.fields(node, path, KNOWN)?;
    // One slip gives one message.
    if !KINDS.iter().any(|kind| f.is_misspelt(kind)) {
        _ = one_of(walk, f, KINDS);
    }
    let grpc = f.read(walk, "grpc", grpc).map(HealthKind::Grpc);
    let http = f.read(walk, "http", http).map(HealthKind::Http);
    let tcp = f.read(walk, "tcp", |walk, node, path| {
        walk.fields(node, path, &[]).map(|_| HealthKind::Tcp)
    });
    let interval = Health::default_interval_ms();
    let (healthy, unhealthy) = (Health::default_healthy_after(), Health::default_unhealthy_after());
    let interval_ms = count(walk, f, "interval_ms", 100, HOUR_MS, interval);
    // With an interval shorter than the usual time-out, the interval is the bound.
    let timeout = Health::default_timeout_ms().min(interval_ms);
    Some(Health {
        kind: grpc.or(http).or(tcp).unwrap_or(HealthKind::Tcp),
        interval_ms,
        timeout_ms: ms(walk, f, "timeout_ms", HOUR_MS, timeout),
        healthy_after: count(walk, f, "healthy_after", 1, 1000, healthy),
        unhealthy_after: count(walk, f, "unhealthy_after", 1, 1000, unhealthy),
    })
}

fn grpc(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<GrpcHealth> {
    let fields = walk.fields(node, path, &["service"])?;
    let service = fields.read(walk, "service", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
            match text.len() <= 256 && text.chars().all(fits) {
                true => Ok(text.to_string()),
                false => Err("expected a service like shop.v1.Orders, or \"\"".into()),
            }
        })
    });
    Some(GrpcHealth { service: service.unwrap_or_default() })
}

fn http(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<HttpHealth> {
    let fields = walk.fields(node, path, &["path", "host", "statuses", "body"])?;
    let target = fields.require(walk, "path", "a path like /healthz", |walk, node, path| {
        walk.parsed(node, path, "bad-path", scalars::request_target)
    });
    Some(HttpHealth {
        path: target.unwrap_or_default(),
        host: fields
            .read(walk, "host", |walk, node, path| walk.parsed(node, path, "bad-host", host_value)),
        statuses: fields
            .read(walk, "statuses", statuses)
            .unwrap_or_else(HttpHealth::default_statuses),
        body: fields.read(walk, "body", |walk, node, path| {
            walk.parsed(node, path, "bad-value", |text| match text.len() {
                1..=MAX_BODY => Ok(text.to_string()),
                _ => Err(format!("expected a text of 1 to {MAX_BODY} bytes")),
            })
        }),
    })
}

/// A status, or a range of them.
pub(super) fn status(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<StatusRange> {
    match &node.value {
        Value::Text(_) => walk.parsed(node, path, "bad-status", scalars::status_range),
        Value::Integer(_) => {
            let status = walk.number(node, path, 100..=599)?;
            Some(StatusRange { first: status, last: status })
        }
        _ => {
            walk.wrong_type(node, path, "a status like 204, or a range like \"200-299\"");
            None
        }
    }
}

pub(super) fn statuses(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<StatusRange>> {
    let list = walk.list(node, path, status)?;
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        let message = "without a status nothing is ever well; leave it out for \"200-299\"";
        walk.error("empty-list", node, path, message.into());
    }
    Some(list)
}
