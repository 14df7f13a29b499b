//! The parts of a spec, from the whole down to one condition.

use std::net::SocketAddr;

use super::fields::{Fields, Walk, nearest};
use super::{Mark, Places};
use crate::spec::model::*;
use crate::spec::problem::{Problems, Severity};
use crate::spec::scalars::{self, TargetAddress};
use crate::spec::tree::{Node, Value};

const DAY_MS: u64 = 86_400_000;
const HOUR_MS: u64 = 3_600_000;

/// Reads the whole. What could not be read has an error in `problems` and a stand-in here.
pub fn spec(root: &Node, problems: &mut Problems) -> (Spec, Places) {
    let mut walk = Walk { problems, places: Places::default() };
    let spec = top(&mut walk, root).unwrap_or_else(|| Spec {
        version: VERSION,
        node: Default::default(),
        admin: Admin::default(),
        access_log: AccessLog::default(),
        listeners: Vec::new(),
        upstreams: Vec::new(),
        routes: Vec::new(),
    });
    (spec, walk.places)
}

fn top(walk: &mut Walk<'_>, root: &Node) -> Option<Spec> {
    const KNOWN: &[&str] =
        &["version", "node", "admin", "access_log", "listeners", "upstreams", "routes"];
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
        listeners: listeners.unwrap_or_default(),
        upstreams: fields
            .read(walk, "upstreams", |walk, node, path| walk.list(node, path, upstream))
            .unwrap_or_default(),
        routes: fields
            .read(walk, "routes", |walk, node, path| walk.list(node, path, route))
            .unwrap_or_default(),
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
    let fields = walk.fields(node, path, &["via", "drain_timeout_ms"])?;
    let via = fields.read(walk, "via", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match scalars::is_token(text) {
            true if text.len() <= 100 => Ok(text.into()),
            _ => Err("a pseudonym for Via is one word of letters, digits and -._".into()),
        })
    });
    Some(crate::spec::Node {
        via: via.unwrap_or(default.via),
        drain_timeout_ms: ms(walk, &fields, "drain_timeout_ms", HOUR_MS, default.drain_timeout_ms),
    })
}

fn admin(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Admin> {
    let fields = walk.fields(node, path, &["listen"])?;
    let listen = fields.read(walk, "listen", |walk, node, path| {
        let listen = socket_address(walk, node, path)?;
        if !listen.ip().is_loopback() {
            let message = format!(
                "the admin listener has no login and {listen} is not on the loopback: whoever \
                 reaches it can steer the gateway; prefer 127.0.0.1:{}",
                listen.port()
            );
            let value = node.excerpt();
            walk.problems.add(
                Severity::Warning,
                "admin-exposed",
                node.mark,
                path,
                value.as_deref(),
                message,
                None,
            );
        }
        Some(listen)
    });
    Some(Admin { listen: listen.unwrap_or(DEFAULT_ADMIN) })
}

fn access_log(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<AccessLog> {
    let fields = walk.fields(node, path, &["path"])?;
    let path = fields.read(walk, "path", |walk, node, path| {
        if node_is_false(node) {
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

fn node_is_false(node: &Node) -> bool {
    matches!(node.value, Value::Bool(_))
}

fn socket_address(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<SocketAddr> {
    walk.parsed(node, path, "bad-address", scalars::listen_address)
}

fn name(walk: &mut Walk<'_>, fields: &Fields<'_>) -> String {
    let read = fields.require(walk, "name", "a name unique among its kind", |walk, node, path| {
        walk.parsed(node, path, "bad-name", scalars::name)
    });
    read.unwrap_or_default()
}

fn ms(walk: &mut Walk<'_>, fields: &Fields<'_>, name: &str, most: u64, default: u32) -> u32 {
    count(walk, fields, name, 1, most, default)
}

fn count<T: TryFrom<u64>>(
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

fn listener(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Listener> {
    const KNOWN: &[&str] = &[
        "name",
        "listen",
        "trusted_proxies",
        "proxy_protocol",
        "forwarded",
        "underscore_fields",
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
        forwarded: fields
            .read(walk, "forwarded", |walk, node, path| walk.flag(node, path))
            .unwrap_or_default(),
        underscore_fields: fields
            .read(walk, "underscore_fields", |walk, node, path| walk.word(node, path, underscores))
            .unwrap_or_default(),
        limits: fields.read(walk, "limits", limits).unwrap_or_default(),
    })
}

fn cidrs(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<scalars::Cidr>> {
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
        max_fields: count(walk, f, "max_fields", 1, 1000, d.max_fields),
        max_requests: count(walk, f, "max_requests", 1, all, d.max_requests),
    })
}

fn upstream(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Upstream> {
    const KNOWN: &[&str] = &["name", "balance", "targets", "pool", "timeouts", "host_header"];
    let Some(fields) = walk.fields(node, path, KNOWN) else {
        return Some(Upstream {
            name: String::new(),
            balance: Balance::default(),
            targets: Vec::new(),
            pool: Pool::default(),
            timeouts: Timeouts::default(),
            host_header: HostHeader::default(),
        });
    };
    let balances = [
        ("round_robin", Balance::RoundRobin),
        ("weighted", Balance::Weighted),
        ("least_connections", Balance::LeastConnections),
    ];
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
    })
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

fn route_timeouts(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<RouteTimeouts> {
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

fn route(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Route> {
    const KNOWN: &[&str] = &[
        "name",
        "match",
        "rewrite",
        "upstream",
        "upstreams",
        "timeouts",
        "max_body_bytes",
        "upgrades",
    ];
    let Some(fields) = walk.fields(node, path, KNOWN) else {
        return Some(Route {
            name: String::new(),
            matches: Match::default(),
            rewrite: Rewrite::Keep,
            upstreams: Vec::new(),
            timeouts: RouteTimeouts::default(),
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            upgrades: Vec::new(),
        });
    };
    let name = name(walk, &fields);
    let matches = fields.read(walk, "match", conditions).unwrap_or_default();
    let rewrite = fields.read(walk, "rewrite", rewrite).unwrap_or_default();
    if let (PathMatch::Regex(_), false, Some(node)) =
        (&matches.path, rewrite.is_keep(), fields.node("rewrite"))
    {
        let message = "a regex has no prefix to rewrite; match a prefix, or leave rewrite out";
        walk.error("rewrite-on-regex", node, &fields.at("rewrite"), message.into());
    }
    Some(Route {
        name,
        matches,
        rewrite,
        upstreams: backends(walk, &fields),
        timeouts: fields.read(walk, "timeouts", route_timeouts).unwrap_or_default(),
        max_body_bytes: fields.read(walk, "max_body_bytes", size).unwrap_or(DEFAULT_MAX_BODY_BYTES),
        upgrades: fields.read(walk, "upgrades", upgrades).unwrap_or_default(),
    })
}

fn backends(walk: &mut Walk<'_>, fields: &Fields<'_>) -> Vec<Backend> {
    let one = fields.read(walk, "upstream", |walk, node, path| match node.value {
        Value::List(_) => {
            walk.wrong_type(node, path, "one name (for several use `upstreams`)");
            None
        }
        _ => walk.text(node, path),
    });
    let several = fields.read(walk, "upstreams", |walk, node, path| {
        let list = walk.list(node, path, backend)?;
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            walk.error("empty-list", node, path, "a route needs at least one upstream".into());
        }
        Some(list)
    });
    match (fields.node("upstream"), fields.node("upstreams")) {
        (None, None) => {
            let message = "`upstream` is missing; expected the name of an upstream";
            walk.problems.error(
                "missing-field",
                fields.mark,
                &fields.at("upstream"),
                None,
                message.into(),
            );
        }
        (Some(_), Some(node)) => {
            let message = "`upstream` and `upstreams` exclude each other; keep one";
            walk.error("conflicting-fields", node, &fields.at("upstreams"), message.into());
        }
        _ => {}
    }
    match one {
        Some(name) => vec![Backend { name, weight: 1 }],
        None => several.unwrap_or_default(),
    }
}

fn backend(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Backend> {
    // As everywhere else a name alone is enough; it then weighs 1.
    if let Value::Text(name) = &node.value {
        walk.places.set(path, node.mark);
        return Some(Backend { name: name.clone(), weight: 1 });
    }
    let fields = walk.fields(node, path, &["name", "weight"])?;
    let weight = count(walk, &fields, "weight", 0, 1000, 1);
    let name = fields
        .require(walk, "name", "the name of an upstream", |walk, node, path| walk.text(node, path));
    Some(Backend { name: name.unwrap_or_default(), weight })
}

fn size(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<u64> {
    match &node.value {
        Value::Text(_) => walk.parsed(node, path, "bad-size", scalars::size),
        // JSON numbers are exact up to 2^53, and nobody sends more.
        Value::Integer(_) => walk.number(node, path, 0..=1 << 53),
        _ => {
            walk.wrong_type(node, path, "a size in bytes, or with a unit like 10MiB");
            None
        }
    }
}

fn upgrades(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<String>> {
    walk.list(node, path, |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| {
            let token = text.to_ascii_lowercase();
            match token.as_str() {
                // Security: h2c behind a gateway smuggles requests past it.
                "h2c" => Err("h2c cannot be tunnelled: its requests would pass unseen".into()),
                _ if scalars::is_token(&token) => Ok(token),
                _ => Err("expected a protocol like websocket".into()),
            }
        })
    })
}

fn rewrite(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Rewrite> {
    let fields = walk.fields(node, path, &["strip_prefix", "replace_prefix"])?;
    let strip = fields.read(walk, "strip_prefix", |walk, node, path| walk.flag(node, path));
    let replace = fields.read(walk, "replace_prefix", |walk, node, path| {
        walk.parsed(node, path, "bad-path", scalars::prefix)
    });
    match (strip, replace) {
        (Some(true), Some(_)) => {
            let message = "strip_prefix and replace_prefix exclude each other; keep one";
            walk.error("conflicting-fields", node, path, message.into());
            None
        }
        (Some(true), None) => Some(Rewrite::StripPrefix),
        (_, Some(prefix)) => Some(Rewrite::ReplacePrefix(prefix)),
        _ => Some(Rewrite::Keep),
    }
}

fn conditions(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Match> {
    let fields = walk.fields(node, path, &["hosts", "path", "methods", "headers", "query"])?;
    let hosts = fields.read(walk, "hosts", |walk, node, path| {
        unique(walk, node, path, "bad-host", scalars::host_pattern)
    });
    let methods = fields.read(walk, "methods", |walk, node, path| {
        unique(walk, node, path, "bad-method", scalars::method)
    });
    if let (Some(methods), Some(Value::List(items))) =
        (&methods, fields.node("methods").map(|node| &node.value))
        && methods.len() == items.len()
    {
        for (at, (method, node)) in methods.iter().zip(items).enumerate() {
            doubtful_method(walk, method, node.mark, &format!("{}[{at}]", fields.at("methods")));
        }
    }
    Some(Match {
        hosts: hosts.unwrap_or_default(),
        path: fields.read(walk, "path", path_match).unwrap_or_default(),
        methods: methods.unwrap_or_default(),
        headers: fields
            .read(walk, "headers", |walk, node, path| {
                walk.list(node, path, |walk, node, path| field_match(walk, node, path, true))
            })
            .unwrap_or_default(),
        query: fields
            .read(walk, "query", |walk, node, path| {
                walk.list(node, path, |walk, node, path| field_match(walk, node, path, false))
            })
            .unwrap_or_default(),
    })
}

/// A list of texts none of which is there twice. An empty list would read as "any", and hardly
/// means it.
fn unique(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
    code: &'static str,
    parse: impl Fn(&str) -> Result<String, String>,
) -> Option<Vec<String>> {
    let mut seen = std::collections::HashSet::new();
    walk.list(node, path, |walk, node, path| {
        let value = walk.parsed(node, path, code, &parse)?;
        if !seen.insert(value.clone()) {
            walk.error("duplicate-value", node, path, format!("`{value}` is there twice"));
            return None;
        }
        Some(value)
    })
}

/// Any token is a method (RFC 9110 §9.1), but `GTE` is hardly meant.
fn doubtful_method(walk: &mut Walk<'_>, method: &str, mark: Mark, path: &str) {
    if scalars::METHODS.contains(&method) {
        return;
    }
    if let Some(word) = nearest(method, scalars::METHODS.into_iter()) {
        let message = format!("`{method}` is no usual method; did you mean {word}?");
        walk.problems.add(
            Severity::Warning,
            "unusual-method",
            mark,
            path,
            Some(method),
            message,
            None,
        );
    }
}

fn path_match(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<PathMatch> {
    if let Value::Text(_) = node.value {
        let prefix = walk.parsed(node, path, "bad-path", scalars::prefix)?;
        return Some(PathMatch::Prefix(prefix));
    }
    if !matches!(node.value, Value::Map(_)) {
        walk.wrong_type(node, path, "a prefix like /users, or one of exact, prefix and regex");
        return None;
    }
    let fields = walk.fields(node, path, &["exact", "prefix", "regex"])?;
    one_of(walk, &fields, &["exact", "prefix", "regex"])?;
    let exact = fields
        .read(walk, "exact", |walk, node, path| walk.parsed(node, path, "bad-path", scalars::path));
    let prefix = fields.read(walk, "prefix", |walk, node, path| {
        walk.parsed(node, path, "bad-path", scalars::prefix)
    });
    let regex = fields.read(walk, "regex", |walk, node, path| {
        walk.parsed(node, path, "bad-regex", scalars::regex)
    });
    exact.map(PathMatch::Exact).or(prefix.map(PathMatch::Prefix)).or(regex.map(PathMatch::Regex))
}

fn field_match(walk: &mut Walk<'_>, node: &Node, path: &str, header: bool) -> Option<FieldMatch> {
    let fields = walk.fields(node, path, &["name", "exact", "regex", "present"])?;
    let name = fields.require(walk, "name", "the name to look at", |walk, node, path| {
        walk.parsed(node, path, "bad-field-name", |text| match (header, text) {
            (true, text) => scalars::field_name(text),
            (false, "") => Err("expected the name of a query parameter".into()),
            (false, text) => Ok(text.into()),
        })
    });
    one_of(walk, &fields, &["exact", "regex", "present"])?;
    let exact = fields.read(walk, "exact", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match header {
            true if text.chars().any(|c| c.is_control() && c != '\t') => {
                Err("a header's value has no control characters, so this never matches".into())
            }
            true if text.trim_matches([' ', '\t']) != text => {
                Err("a header's value has no space around it, so this never matches".into())
            }
            _ => Ok(text.to_string()),
        })
    });
    let regex = fields.read(walk, "regex", |walk, node, path| {
        walk.parsed(node, path, "bad-regex", scalars::regex)
    });
    let present = fields.read(walk, "present", |walk, node, path| {
        let present = walk.flag(node, path)?;
        if !present {
            let message = "that something is absent cannot be a condition; expected present: true";
            walk.error("bad-value", node, path, message.into());
        }
        present.then_some(ValueMatch::Present)
    });
    let value = exact.map(ValueMatch::Exact).or(regex.map(ValueMatch::Regex)).or(present);
    Some(FieldMatch { name: name?, value: value? })
}

/// Reports when not exactly one of `names` is there.
fn one_of(walk: &mut Walk<'_>, fields: &Fields<'_>, names: &[&str]) -> Option<()> {
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
