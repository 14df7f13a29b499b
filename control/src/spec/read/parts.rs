//! The whole spec, and what its parts share.

use std::net::SocketAddr;

use super::Places;
use super::admin::admin;
use super::authenticators::authenticator;
use super::cache::cache;
use super::consumers::{consumer, group, redis, settings};
use super::fields::{Fields, Walk};
use super::limits::limit;
use super::listener::listener;
use super::resilience::overload;
use super::route::route;
use super::transcode::proto;
use super::upstream::upstream;
use super::validate::api;
use crate::spec::model::*;
use crate::spec::problem::Problems;
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

pub(super) const DAY_MS: u64 = 86_400_000;
pub(super) const HOUR_MS: u64 = 3_600_000;

/// Reads the whole. What could not be read has an error in `problems` and a stand-in here; `None`:
/// the text is no map at all.
pub fn spec(root: &Node, places: Places, problems: &mut Problems) -> Option<(Spec, Places)> {
    let mut walk = Walk { problems, places };
    let spec = top(&mut walk, root)?;
    Some((spec, walk.places))
}

/// Reads a route that stands by itself.
pub fn route_alone(root: &Node, problems: &mut Problems) -> Option<Route> {
    let mut walk = Walk { problems, places: Places::few() };
    route(&mut walk, root, "routes[0]")
}

fn top(walk: &mut Walk<'_>, root: &Node) -> Option<Spec> {
    const KNOWN: &[&str] = &[
        "version",
        "node",
        "admin",
        "access_log",
        "redis",
        "auth",
        "authenticators",
        "groups",
        "consumers",
        "limits",
        "cache",
        "apis",
        "protos",
        "listeners",
        "upstreams",
        "routes",
    ];
    let fields = walk.fields(root, "", KNOWN)?;
    let version = fields.require(walk, "version", "version: 1", version).unwrap_or(VERSION);
    let listeners =
        fields.require(walk, "listeners", "at least one listener", |walk, node, path| {
            let list = walk.list(node, path, listener)?;
            if matches!(&node.value, Value::List(items) if items.is_empty()) {
                walk.error("empty-list", node, path, "there must be at least one listener".into());
            }
            Some(list)
        });
    Some(Spec {
        version,
        node: fields.read(walk, "node", node_settings).unwrap_or_default(),
        admin: fields.read(walk, "admin", admin).unwrap_or_default(),
        access_log: fields.read(walk, "access_log", access_log).unwrap_or_default(),
        redis: fields.read(walk, "redis", redis),
        auth: fields.read(walk, "auth", settings).unwrap_or_default(),
        authenticators: fields
            .read(walk, "authenticators", |walk, node, path| walk.list(node, path, authenticator))
            .unwrap_or_default(),
        groups: fields
            .read(walk, "groups", |walk, node, path| walk.list(node, path, group))
            .unwrap_or_default(),
        consumers: fields
            .read(walk, "consumers", |walk, node, path| walk.list(node, path, consumer))
            .unwrap_or_default()
            .into(),
        limits: fields
            .read(walk, "limits", |walk, node, path| walk.list(node, path, limit))
            .unwrap_or_default(),
        cache: fields.read(walk, "cache", cache).unwrap_or_default(),
        apis: fields
            .read(walk, "apis", |walk, node, path| walk.list(node, path, api))
            .unwrap_or_default(),
        protos: fields
            .read(walk, "protos", |walk, node, path| walk.list(node, path, proto))
            .unwrap_or_default(),
        listeners: listeners.unwrap_or_default(),
        upstreams: fields
            .read(walk, "upstreams", |walk, node, path| walk.list(node, path, upstream))
            .unwrap_or_default()
            .into(),
        routes: fields
            .read(walk, "routes", |walk, node, path| walk.list(node, path, route))
            .unwrap_or_default()
            .into(),
    })
}

fn version(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<u32> {
    match node.value {
        Value::Integer(1) => Some(VERSION),
        _ => {
            let message = "this Sluice reads version 1 of the format; expected version: 1";
            walk.error("bad-version", node, path, message.into());
            None
        }
    }
}

fn node_settings(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<crate::spec::Node> {
    let default = crate::spec::Node::default();
    let fields =
        walk.fields(node, path, &["via", "name", "drain_timeout_ms", "locality", "overload"])?;
    let via = fields.read(walk, "via", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match scalars::is_token(text) {
            true if text.len() <= 100 => Ok(text.into()),
            _ => Err("a pseudonym for Via is one word of letters, digits and -._".into()),
        })
    });
    Some(crate::spec::Node {
        via: via.unwrap_or(default.via),
        name: fields.read(walk, "name", locality),
        drain_timeout_ms: ms(walk, &fields, "drain_timeout_ms", HOUR_MS, default.drain_timeout_ms),
        locality: fields.read(walk, "locality", locality),
        overload: fields.read(walk, "overload", overload).unwrap_or_default(),
    })
}

fn access_log(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<AccessLog> {
    let fields = walk.fields(node, path, &["path"])?;
    let path = fields.read(walk, "path", |walk, node, path| {
        if let Value::Bool(_) = node.value {
            walk.wrong_type(node, path, "a file, \"-\" for the standard output, or \"off\"");
            return None;
        }
        walk.parsed(node, path, "bad-value", |text| match text {
            "" => Err("expected a file, \"-\" for the standard output, or \"off\"".into()),
            text if text.contains('\0') => Err("a file name has no NUL byte".into()),
            text => Ok(text.to_string()),
        })
    });
    Some(AccessLog { path })
}

pub(super) fn socket_address(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<SocketAddr> {
    walk.parsed(node, path, "bad-address", scalars::listen_address)
}

pub(super) fn name(walk: &mut Walk<'_>, fields: &Fields<'_>) -> String {
    let read = fields.require(walk, "name", "a name unique among its kind", |walk, node, path| {
        walk.parsed(node, path, "bad-name", scalars::name)
    });
    read.unwrap_or_default()
}

pub(super) fn locality(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.parsed(node, path, "bad-name", scalars::name)
}

pub(super) fn ms(
    walk: &mut Walk<'_>,
    fields: &Fields<'_>,
    name: &str,
    most: u64,
    default: u32,
) -> u32 {
    count(walk, fields, name, 1, most, default)
}

pub(super) fn count<T: TryFrom<u64>>(
    walk: &mut Walk<'_>,
    fields: &Fields<'_>,
    name: &str,
    least: u64,
    most: u64,
    default: T,
) -> T {
    let read = |walk: &mut Walk<'_>, node: &Node, path: &str| walk.number(node, path, least..=most);
    fields.read(walk, name, read).unwrap_or(default)
}

pub(super) fn flag(walk: &mut Walk<'_>, fields: &Fields<'_>, name: &str, default: bool) -> bool {
    let read = |walk: &mut Walk<'_>, node: &Node, path: &str| walk.flag(node, path);
    fields.read(walk, name, read).unwrap_or(default)
}

/// Reports when not exactly one of `names` is there.
pub(super) fn one_of(walk: &mut Walk<'_>, fields: &Fields<'_>, names: &[&str]) -> Option<()> {
    let there: Vec<&str> =
        names.iter().copied().filter(|name| fields.node(name).is_some()).collect();
    let list = names.join(", ");
    match there.as_slice() {
        [_] => Some(()),
        [] => {
            let message = format!("expected one of: {list}");
            walk.problems.error("missing-field", fields.mark, &fields.path, None, message);
            None
        }
        [_, second, ..] => {
            let mark = walk.places.get(&fields.at(second));
            let message = format!("{} exclude each other; keep one", there.join(" and "));
            walk.problems.error("conflicting-fields", mark, &fields.at(second), None, message);
            None
        }
    }
}
