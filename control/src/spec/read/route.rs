//! Routes: what they match, what they change, where they go.

use std::collections::HashSet;

use super::Mark;
use super::access::{cors, networks, route_auth};
use super::aggregate::aggregate;
use super::cache::route_cache;
use super::consumers::names;
use super::fields::{Fields, Walk, nearest};
use super::graphql::graphql;
use super::parts::{count, flag, locality, name, one_of};
use super::payload::{compress, request_body, response_body};
use super::processor::external_processor;
use super::resilience::{deadline_header, hedge, mirror, retry};
use super::shape::{redirect, request, respond, response};
use super::transcode::transcode;
use super::upstream::route_timeouts;
use super::validate::validate;
use crate::spec::model::{
    Backend, DEFAULT_MAX_BODY_BYTES, FieldMatch, Match, PathMatch, Priority, Rewrite, Route,
    RouteTimeouts, ValueMatch,
};
use crate::spec::problem::Severity;
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

pub(super) fn route(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Route> {
    const KNOWN: &[&str] = &[
        "name",
        "workspace",
        "match",
        "rewrite",
        "request",
        "response",
        "redirect",
        "respond",
        "upstream",
        "upstreams",
        "aggregate",
        "timeouts",
        "max_body_bytes",
        "request_body",
        "response_body",
        "compress",
        "upgrades",
        "early_data",
        "grpc_web",
        "transcode",
        "retry",
        "cache",
        "hedge",
        "priority",
        "mirror",
        "deadline_header",
        "auth",
        "networks",
        "cors",
        "external_processor",
        "limits",
        "validate",
        "graphql",
    ];
    const PRIORITIES: &[(&str, Priority)] = &[
        ("low", Priority::Low),
        ("normal", Priority::Normal),
        ("high", Priority::High),
        ("critical", Priority::Critical),
    ];
    let Some(fields) = walk.fields(node, path, KNOWN) else {
        return Some(Route {
            name: String::new(),
            workspace: None,
            matches: Match::default(),
            rewrite: Rewrite::Keep,
            request: None,
            response: None,
            redirect: None,
            respond: None,
            upstreams: Vec::new(),
            aggregate: None,
            timeouts: RouteTimeouts::default(),
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            request_body: Vec::new(),
            response_body: Vec::new(),
            compress: None,
            upgrades: Vec::new(),
            early_data: false,
            grpc_web: false,
            transcode: None,
            retry: None,
            cache: None,
            hedge: None,
            priority: Priority::default(),
            mirror: None,
            deadline_header: None,
            auth: None,
            networks: None,
            cors: None,
            external_processor: None,
            limits: Vec::new(),
            validate: None,
            graphql: None,
        });
    };
    let name = name(walk, &fields);
    let matches = fields.read(walk, "match", conditions).unwrap_or_default();
    let rewrite = fields.read(walk, "rewrite", rewrite).unwrap_or_default();
    if let (PathMatch::Template(_), false, Some(node)) =
        (&matches.path, rewrite.is_keep(), fields.node("rewrite"))
    {
        let message = "a path with named segments has no prefix to rewrite; use request.path";
        walk.error("rewrite-on-template", node, &fields.at("rewrite"), message.into());
    }
    if let (PathMatch::Regex(_), false, Some(node)) =
        (&matches.path, rewrite.is_keep(), fields.node("rewrite"))
    {
        let message = "a regex has no prefix to rewrite; match a prefix, or leave rewrite out";
        walk.error("rewrite-on-regex", node, &fields.at("rewrite"), message.into());
    }
    Some(Route {
        name,
        workspace: fields.read(walk, "workspace", locality),
        matches,
        rewrite,
        request: fields.read(walk, "request", request),
        response: fields.read(walk, "response", response),
        redirect: fields.read(walk, "redirect", redirect),
        respond: fields.read(walk, "respond", respond),
        upstreams: backends(walk, &fields),
        aggregate: fields.read(walk, "aggregate", aggregate).map(Box::new),
        timeouts: fields.read(walk, "timeouts", route_timeouts).unwrap_or_default(),
        max_body_bytes: fields.read(walk, "max_body_bytes", size).unwrap_or(DEFAULT_MAX_BODY_BYTES),
        request_body: fields.read(walk, "request_body", request_body).unwrap_or_default(),
        response_body: fields.read(walk, "response_body", response_body).unwrap_or_default(),
        compress: fields.read(walk, "compress", compress),
        upgrades: fields.read(walk, "upgrades", upgrades).unwrap_or_default(),
        early_data: flag(walk, &fields, "early_data", false),
        grpc_web: flag(walk, &fields, "grpc_web", false),
        transcode: fields.read(walk, "transcode", transcode),
        retry: fields.read(walk, "retry", retry),
        cache: fields.read(walk, "cache", route_cache),
        hedge: fields.read(walk, "hedge", hedge),
        priority: fields
            .read(walk, "priority", |walk, node, path| walk.word(node, path, PRIORITIES))
            .unwrap_or_default(),
        mirror: fields.read(walk, "mirror", mirror),
        deadline_header: fields.read(walk, "deadline_header", deadline_header),
        auth: fields.read(walk, "auth", route_auth),
        networks: fields.read(walk, "networks", networks),
        cors: fields.read(walk, "cors", cors),
        external_processor: fields.read(walk, "external_processor", external_processor),
        limits: fields.read(walk, "limits", names).unwrap_or_default(),
        validate: fields.read(walk, "validate", validate),
        graphql: fields.read(walk, "graphql", graphql).map(Box::new),
    })
}

/// What a route may have in place of an upstream.
const OWN: [&str; 3] = ["aggregate", "redirect", "respond"];

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
    if let (Some(_), Some(node)) = (fields.node("redirect"), fields.node("respond")) {
        let message = "`redirect` and `respond` exclude each other; keep one";
        walk.error("conflicting-fields", node, &fields.at("respond"), message.into());
    }
    // The gateway answers itself.
    if let Some(name) = OWN.into_iter().find(|name| fields.node(name).is_some()) {
        for other in ["upstream", "upstreams"] {
            if let Some(node) = fields.node(other) {
                let message = format!("`{name}` and `{other}` exclude each other; keep one");
                walk.error("conflicting-fields", node, &fields.at(other), message);
            }
        }
        return Vec::new();
    }
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
    let Some(fields) = walk.fields(node, path, &["name", "weight"]) else {
        return Some(Backend { name: String::new(), weight: 1 });
    };
    let weight = count(walk, &fields, "weight", 0, 1000, 1);
    let name = fields
        .require(walk, "name", "the name of an upstream", |walk, node, path| walk.text(node, path));
    Some(Backend { name: name.unwrap_or_default(), weight })
}

pub(super) fn size(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<u64> {
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

/// A list of texts none of which is there twice.
pub(super) fn unique(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
    code: &'static str,
    parse: impl Fn(&str) -> Result<String, String>,
) -> Option<Vec<String>> {
    let mut seen = HashSet::new();
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
    if scalars::COMMON_METHODS.contains(&method) {
        return;
    }
    if let Some(word) = nearest(method, scalars::COMMON_METHODS.into_iter()) {
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
        let expected = "a prefix like /users, or one of exact, prefix, regex and template";
        walk.wrong_type(node, path, expected);
        return None;
    }
    const KINDS: &[&str] = &["exact", "prefix", "regex", "template"];
    let fields = walk.fields(node, path, KINDS)?;
    one_of(walk, &fields, KINDS)?;
    let exact = fields
        .read(walk, "exact", |walk, node, path| walk.parsed(node, path, "bad-path", scalars::path));
    let prefix = fields.read(walk, "prefix", |walk, node, path| {
        walk.parsed(node, path, "bad-path", scalars::prefix)
    });
    let regex = fields.read(walk, "regex", |walk, node, path| {
        walk.parsed(node, path, "bad-regex", scalars::regex)
    });
    let template = fields.read(walk, "template", |walk, node, path| {
        walk.parsed(node, path, "bad-path", scalars::path_template)
    });
    exact
        .map(PathMatch::Exact)
        .or(prefix.map(PathMatch::Prefix))
        .or(regex.map(PathMatch::Regex))
        .or(template.map(PathMatch::Template))
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
