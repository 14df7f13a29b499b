//! Upstreams: targets, pool, deadlines.

use super::fields::Walk;
use super::health::health;
use super::oauth::credentials;
use super::parts::{DAY_MS, count, locality, ms, name, one_of};
use super::resilience;
use super::tls::upstream_tls;
use crate::spec::model::{
    Balance, HashKey, HostHeader, LimitMs, Pool, Protocol, RouteTimeouts, Target, Timeouts,
    Upstream, default_outlier,
};
use crate::spec::scalars::{self, TargetAddress};
use crate::spec::schema::default_load_percent;
use crate::spec::tree::{Node, Value};

pub(super) fn upstream(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Upstream> {
    const KNOWN: &[&str] = &[
        "name",
        "workspace",
        "balance",
        "targets",
        "pool",
        "timeouts",
        "host_header",
        "protocol",
        "tls",
        "health",
        "min_live_percent",
        "retry",
        "retry_budget",
        "hedge",
        "bounds",
        "target_bounds",
        "breaker",
        "target_breaker",
        "fallback",
        "outlier",
        "concurrency",
        "credentials",
    ];
    let Some(fields) = walk.fields(node, path, KNOWN) else {
        return Some(Upstream::default());
    };
    let protocols =
        [("http1", Protocol::Http1), ("http2", Protocol::Http2), ("auto", Protocol::Auto)];
    let targets = fields.require(walk, "targets", "a list like [\"10.0.0.1:80\"]", targets);
    let f = &fields;
    Some(Upstream {
        name: name(walk, f),
        workspace: f.read(walk, "workspace", locality),
        balance: f.read(walk, "balance", balance).unwrap_or_default(),
        targets: targets.unwrap_or_default(),
        pool: f.read(walk, "pool", pool).unwrap_or_default(),
        timeouts: f.read(walk, "timeouts", timeouts).unwrap_or_default(),
        host_header: f.read(walk, "host_header", host_header).unwrap_or_default(),
        protocol: f
            .read(walk, "protocol", |walk, node, path| walk.word(node, path, &protocols))
            .unwrap_or_default(),
        tls: f.read(walk, "tls", upstream_tls),
        health: f.read(walk, "health", health),
        min_live_percent: resilience::percent(walk, f, "min_live_percent", 0),
        retry: f.read(walk, "retry", resilience::retry).unwrap_or_default(),
        retry_budget: f.read(walk, "retry_budget", resilience::budget).unwrap_or_default(),
        hedge: f.read(walk, "hedge", resilience::hedge).unwrap_or_default(),
        bounds: f.read(walk, "bounds", resilience::bounds).unwrap_or_default(),
        target_bounds: f.read(walk, "target_bounds", resilience::bounds).unwrap_or_default(),
        breaker: f.read(walk, "breaker", resilience::breaker).unwrap_or_default(),
        target_breaker: f.read(walk, "target_breaker", resilience::breaker).unwrap_or_default(),
        fallback: f.read(walk, "fallback", resilience::fallback).unwrap_or_default(),
        outlier: f.read(walk, "outlier", resilience::outlier).unwrap_or_else(default_outlier),
        concurrency: f.read(walk, "concurrency", resilience::concurrency).unwrap_or_default(),
        credentials: f.read(walk, "credentials", credentials),
    })
}

#[derive(Clone, Copy)]
enum BalanceKind {
    RoundRobin,
    Weighted,
    LeastConnections,
    PowerOfTwo,
    Hash,
}

fn balance(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Balance> {
    const WORDS: &[(&str, BalanceKind)] = &[
        ("power_of_two", BalanceKind::PowerOfTwo),
        ("round_robin", BalanceKind::RoundRobin),
        ("weighted", BalanceKind::Weighted),
        ("least_connections", BalanceKind::LeastConnections),
        ("hash", BalanceKind::Hash),
    ];
    if let Value::Map(_) = node.value {
        let fields = walk.fields(node, path, &["hash", "load_percent"])?;
        let load_percent = count(walk, &fields, "load_percent", 101, 1000, default_load_percent());
        let expected = "what to hash: client_ip, {header: name} or {cookie: name}";
        let key = fields.require(walk, "hash", expected, hash_key)?;
        return Some(Balance::Hash { key, load_percent });
    }
    Some(match walk.word(node, path, WORDS)? {
        BalanceKind::RoundRobin => Balance::RoundRobin,
        BalanceKind::Weighted => Balance::Weighted,
        BalanceKind::LeastConnections => Balance::LeastConnections,
        BalanceKind::PowerOfTwo => Balance::PowerOfTwo,
        BalanceKind::Hash => {
            let message = "what is to be hashed is missing; write {hash: client_ip}, {hash: consumer}, \
                           {hash: {header: name}} or {hash: {cookie: name}}";
            walk.error("bad-value", node, path, message.into());
            return None;
        }
    })
}

fn hash_key(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<HashKey> {
    match &node.value {
        Value::Text(text) if text == "client_ip" => {
            walk.places.set(path, node.mark);
            Some(HashKey::ClientIp)
        }
        Value::Text(text) if text == "consumer" => {
            walk.places.set(path, node.mark);
            Some(HashKey::Consumer)
        }
        Value::Map(_) => {
            let fields = walk.fields(node, path, &["header", "cookie"])?;
            one_of(walk, &fields, &["header", "cookie"])?;
            let header = fields.read(walk, "header", |walk, node, path| {
                walk.parsed(node, path, "bad-field-name", scalars::field_name)
            });
            let cookie = fields.read(walk, "cookie", |walk, node, path| {
                walk.parsed(node, path, "bad-value", |text| match scalars::is_token(text) {
                    true if text.len() <= 256 => Ok(text.into()),
                    _ => Err("expected the name of a cookie, like sid".into()),
                })
            });
            header.map(HashKey::Header).or(cookie.map(HashKey::Cookie))
        }
        _ => {
            walk.places.set(path, node.mark);
            walk.wrong_type(node, path, "client_ip, consumer, {header: name} or {cookie: name}");
            None
        }
    }
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
        let fields = walk.fields(node, path, &["address", "weight", "priority", "locality"])?;
        let weight = count(walk, &fields, "weight", 1, 1000, 1);
        let priority = count(walk, &fields, "priority", 0, 255, 0);
        let locality = fields.read(walk, "locality", locality);
        let address = fields.require(walk, "address", "host:port", address)?;
        return Some(Target { address, weight, priority, locality });
    }
    let address = address(walk, node, path)?;
    Some(Target { address, weight: 1, priority: 0, locality: None })
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
        try_ms: given.try_ms.unwrap_or(default.try_ms),
        total_ms: given.total_ms.unwrap_or(default.total_ms),
    })
}

pub(super) fn route_timeouts(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
) -> Option<RouteTimeouts> {
    let fields =
        walk.fields(node, path, &["connect_ms", "first_byte_ms", "idle_ms", "try_ms", "total_ms"])?;
    let limit = |walk: &mut Walk<'_>, node: &Node, path: &str| match &node.value {
        Value::Text(text) if text == "none" => Some(LimitMs::None),
        Value::Text(_) => {
            walk.wrong_type(node, path, "milliseconds, or none");
            None
        }
        _ => walk.number(node, path, 1..=DAY_MS).map(LimitMs::After),
    };
    let ms = |walk: &mut Walk<'_>, node: &Node, path: &str| walk.number(node, path, 1..=DAY_MS);
    Some(RouteTimeouts {
        connect_ms: fields.read(walk, "connect_ms", ms),
        first_byte_ms: fields.read(walk, "first_byte_ms", ms),
        idle_ms: fields.read(walk, "idle_ms", ms),
        try_ms: fields.read(walk, "try_ms", limit),
        total_ms: fields.read(walk, "total_ms", limit),
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
pub(super) fn host_value(text: &str) -> Result<String, String> {
    let bare = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => text,
    };
    match bare.contains('*') {
        true => Err("a Host has no `*`; expected a host with or without a port".into()),
        false => scalars::host_pattern(bare).map(|_| text.to_ascii_lowercase()),
    }
}
