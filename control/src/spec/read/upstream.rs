//! Upstreams: targets, pool, deadlines.

use super::fields::Walk;
use super::parts::{DAY_MS, HOUR_MS, count, ms, name};
use super::tls::upstream_tls;
use crate::spec::model::{
    Balance, GrpcHealth, Health, HostHeader, Pool, Protocol, RouteTimeouts, Target, Timeouts,
    TotalMs, Upstream,
};
use crate::spec::scalars::{self, TargetAddress};
use crate::spec::tree::{Node, Value};

pub(super) fn upstream(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Upstream> {
    const KNOWN: &[&str] = &[
        "name",
        "balance",
        "targets",
        "pool",
        "timeouts",
        "host_header",
        "protocol",
        "tls",
        "health",
    ];
    let Some(fields) = walk.fields(node, path, KNOWN) else {
        return Some(Upstream {
            name: String::new(),
            balance: Balance::default(),
            targets: Vec::new(),
            pool: Pool::default(),
            timeouts: Timeouts::default(),
            host_header: HostHeader::default(),
            protocol: Protocol::default(),
            tls: None,
            health: None,
        });
    };
    let balances = [
        ("round_robin", Balance::RoundRobin),
        ("weighted", Balance::Weighted),
        ("least_connections", Balance::LeastConnections),
    ];
    let protocols =
        [("http1", Protocol::Http1), ("http2", Protocol::Http2), ("auto", Protocol::Auto)];
    let targets = fields.require(walk, "targets", "a list like [\"10.0.0.1:80\"]", targets);
    Some(Upstream {
        name: name(walk, &fields),
        balance: fields
            .read(walk, "balance", |walk, node, path| walk.word(node, path, &balances))
            .unwrap_or_default(),
        targets: targets.unwrap_or_default(),
        pool: fields.read(walk, "pool", pool).unwrap_or_default(),
        timeouts: fields.read(walk, "timeouts", timeouts).unwrap_or_default(),
        host_header: fields.read(walk, "host_header", host_header).unwrap_or_default(),
        protocol: fields
            .read(walk, "protocol", |walk, node, path| walk.word(node, path, &protocols))
            .unwrap_or_default(),
        tls: fields.read(walk, "tls", upstream_tls),
        health: fields.read(walk, "health", health),
    })
}

fn health(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Health> {
    const KNOWN: &[&str] =
        &["grpc", "interval_ms", "timeout_ms", "healthy_after", "unhealthy_after"];
    let f = &walk.fields(node, path, KNOWN)?;
    let grpc = f.require(walk, "grpc", "what to ask for, like {service: \"\"}", grpc_health);
    let interval = Health::default_interval_ms();
    let (healthy, unhealthy) = (Health::default_healthy_after(), Health::default_unhealthy_after());
    let interval_ms = count(walk, f, "interval_ms", 100, HOUR_MS, interval);
    // With an interval shorter than the usual time-out, the interval is the bound.
    let timeout = Health::default_timeout_ms().min(interval_ms);
    Some(Health {
        grpc: grpc.unwrap_or_default(),
        interval_ms,
        timeout_ms: ms(walk, f, "timeout_ms", HOUR_MS, timeout),
        healthy_after: count(walk, f, "healthy_after", 1, 1000, healthy),
        unhealthy_after: count(walk, f, "unhealthy_after", 1, 1000, unhealthy),
    })
}

fn grpc_health(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<GrpcHealth> {
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

fn targets(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<Target>> {
    let list = walk.list(node, path, target)?;
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        walk.error("empty-list", node, path, "an upstream needs at least one target".into());
    }
    Some(list)
}

fn target(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Target> {
    let address = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        walk.parsed(node, path, "bad-target", str::parse::<TargetAddress>)
    };
    if let Value::Map(_) = node.value {
        let fields = walk.fields(node, path, &["address", "weight"])?;
        let weight = count(walk, &fields, "weight", 1, 1000, 1);
        let address = fields.require(walk, "address", "host:port", address)?;
        return Some(Target { address, weight });
    }
    Some(Target { address: address(walk, node, path)?, weight: 1 })
}

fn pool(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Pool> {
    let d = Pool::default();
    let f = &walk.fields(node, path, &["max_idle", "max_connections", "idle_timeout_ms"])?;
    Some(Pool {
        max_idle: count(walk, f, "max_idle", 0, 65_535, d.max_idle),
        max_connections: count(walk, f, "max_connections", 1, 65_535, d.max_connections),
        idle_timeout_ms: ms(walk, f, "idle_timeout_ms", DAY_MS, d.idle_timeout_ms),
    })
}

fn timeouts(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Timeouts> {
    let default = Timeouts::default();
    let given = route_timeouts(walk, node, path)?;
    Some(Timeouts {
        connect_ms: given.connect_ms.unwrap_or(default.connect_ms),
        first_byte_ms: given.first_byte_ms.unwrap_or(default.first_byte_ms),
        idle_ms: given.idle_ms.unwrap_or(default.idle_ms),
        total_ms: given.total_ms.unwrap_or(default.total_ms),
    })
}

pub(super) fn route_timeouts(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
) -> Option<RouteTimeouts> {
    let fields =
        walk.fields(node, path, &["connect_ms", "first_byte_ms", "idle_ms", "total_ms"])?;
    let ms = |walk: &mut Walk<'_>, node: &Node, path: &str| walk.number(node, path, 1..=DAY_MS);
    Some(RouteTimeouts {
        connect_ms: fields.read(walk, "connect_ms", ms),
        first_byte_ms: fields.read(walk, "first_byte_ms", ms),
        idle_ms: fields.read(walk, "idle_ms", ms),
        total_ms: fields.read(walk, "total_ms", |walk, node, path| match &node.value {
            Value::Text(text) if text == "none" => Some(TotalMs::None),
            Value::Text(_) => {
                walk.wrong_type(node, path, "milliseconds, or none");
                None
            }
            _ => ms(walk, node, path).map(TotalMs::After),
        }),
    })
}

fn host_header(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<HostHeader> {
    if let Value::Map(_) = node.value {
        let fields = walk.fields(node, path, &["value"])?;
        let value = fields.require(walk, "value", "the Host to send", |walk, node, path| {
            walk.parsed(node, path, "bad-host", host_value)
        })?;
        return Some(HostHeader::Value(value));
    }
    let words = [("preserve", HostWord::Preserve), ("target", HostWord::Target)];
    if !matches!(node.value, Value::Text(_)) {
        walk.wrong_type(node, path, "preserve, target or {value: host}");
        return None;
    }
    Some(match walk.word(node, path, &words)? {
        HostWord::Preserve => HostHeader::Preserve,
        HostWord::Target => HostHeader::Target,
    })
}

#[derive(Clone, Copy)]
enum HostWord {
    Preserve,
    Target,
}

/// A Host field's value: a host with or without a port (RFC 9110 §7.2).
fn host_value(text: &str) -> Result<String, String> {
    let bare = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => text,
    };
    match bare.contains('*') {
        true => Err("a Host has no `*`; expected a host with or without a port".into()),
        false => scalars::host_pattern(bare).map(|_| text.to_ascii_lowercase()),
    }
}
