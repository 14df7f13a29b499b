//! Listeners and their limits.

use std::net::SocketAddr;

use super::fields::Walk;
use super::parts::{DAY_MS, HOUR_MS, count, flag, ms, name, socket_address};
use super::tls::listener_tls;
use crate::spec::model::{Limits, Listener, ProxyProtocol, UnderscoreFields};
use crate::spec::scalars;
use crate::spec::tree::Node;

pub(super) fn listener(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Listener> {
    const KNOWN: &[&str] = &[
        "name",
        "listen",
        "trusted_proxies",
        "proxy_protocol",
        "forwarded",
        "underscore_fields",
        "tls",
        "h2c",
        "limits",
    ];
    // An element that is no map still holds its place, so that indexes stay those of the text.
    let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
    let Some(fields) = walk.fields(node, path, KNOWN) else {
        return Some(Listener {
            name: String::new(),
            listen: unspecified,
            trusted_proxies: Vec::new(),
            proxy_protocol: ProxyProtocol::default(),
            forwarded: false,
            underscore_fields: UnderscoreFields::default(),
            tls: None,
            h2c: false,
            limits: Limits::default(),
        });
    };
    let listen = fields.require(walk, "listen", "an address like 0.0.0.0:8080", socket_address);
    let underscores =
        [("refuse", UnderscoreFields::Refuse), ("drop", UnderscoreFields::Drop)].as_slice();
    Some(Listener {
        name: name(walk, &fields),
        listen: listen.unwrap_or(unspecified),
        trusted_proxies: fields.read(walk, "trusted_proxies", cidrs).unwrap_or_default(),
        proxy_protocol: fields.read(walk, "proxy_protocol", proxy_protocol).unwrap_or_default(),
        forwarded: flag(walk, &fields, "forwarded", false),
        underscore_fields: fields
            .read(walk, "underscore_fields", |walk, node, path| walk.word(node, path, underscores))
            .unwrap_or_default(),
        tls: fields.read(walk, "tls", listener_tls),
        h2c: flag(walk, &fields, "h2c", false),
        limits: fields.read(walk, "limits", limits).unwrap_or_default(),
    })
}

pub(super) fn cidrs(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<scalars::Cidr>> {
    walk.list(node, path, |walk, node, path| walk.parsed(node, path, "bad-cidr", str::parse))
}

fn proxy_protocol(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<ProxyProtocol> {
    let fields = walk.fields(node, path, &["from"])?;
    let from = fields.require(walk, "from", "networks that speak it, like [10.0.0.0/8]", cidrs);
    Some(ProxyProtocol { from: from.unwrap_or_default() })
}

fn limits(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Limits> {
    const KNOWN: &[&str] = &[
        "max_connections",
        "header_timeout_ms",
        "idle_timeout_ms",
        "min_body_rate",
        "write_timeout_ms",
        "max_head_bytes",
        "max_fields",
        "max_requests",
        "max_streams",
    ];
    let all = u64::from(u32::MAX);
    let d = Limits::default();
    let f = &walk.fields(node, path, KNOWN)?;
    Some(Limits {
        max_connections: count(walk, f, "max_connections", 1, 10_000_000, d.max_connections),
        header_timeout_ms: ms(walk, f, "header_timeout_ms", HOUR_MS, d.header_timeout_ms),
        idle_timeout_ms: ms(walk, f, "idle_timeout_ms", DAY_MS, d.idle_timeout_ms),
        min_body_rate: count(walk, f, "min_body_rate", 1, 1 << 30, d.min_body_rate),
        write_timeout_ms: ms(walk, f, "write_timeout_ms", HOUR_MS, d.write_timeout_ms),
        max_head_bytes: count(walk, f, "max_head_bytes", 1024, 262_144, d.max_head_bytes),
        max_fields: count(walk, f, "max_fields", 1, 128, d.max_fields),
        max_requests: count(walk, f, "max_requests", 1, all, d.max_requests),
        max_streams: count(walk, f, "max_streams", 1, 10_000, d.max_streams),
    })
}
