//! Routes that are answered by several calls together.

use std::collections::BTreeMap;

use contract::encode::{
    MAX_AGGREGATE_BYTES, MAX_AGGREGATE_MS, MAX_CALLS, MAX_CALLS_AT_ONCE, MAX_ITEMS,
    MAX_JSON_TEMPLATE,
};
use serde_json::Value as Json;

use super::fields::{Fields, Walk};
use super::health::statuses;
use super::parts::{count, flag, ms, one_of};
use super::resilience::retry;
use super::route::{size, unique};
use super::validate::value;
use crate::spec::model::*;
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

pub(super) fn aggregate(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Aggregate> {
    const KNOWN: &[&str] = &[
        "calls",
        "response",
        "deadline_ms",
        "concurrency",
        "max_bytes",
        "errors",
        "server_timing",
        "stream",
    ];
    let f = walk.fields(node, path, KNOWN)?;
    let calls = f.require(walk, "calls", "a list of calls", |walk, node, path| {
        let list = walk.list(node, path, call)?;
        if let Value::List(items) = &node.value
            && !(1..=MAX_CALLS).contains(&items.len())
        {
            let message = format!("this has {} calls; expected 1 to {MAX_CALLS}", items.len());
            walk.error("out-of-range", node, path, message);
        }
        Some(list)
    });
    Some(Aggregate {
        calls: calls.unwrap_or_default(),
        response: f.read(walk, "response", response).unwrap_or_default(),
        deadline_ms: ms(walk, &f, "deadline_ms", MAX_AGGREGATE_MS.into(), DEFAULT_AGGREGATE_MS),
        concurrency: at_once(walk, &f),
        max_bytes: bytes(walk, &f, DEFAULT_AGGREGATE_BYTES),
        errors: flag(walk, &f, "errors", false),
        server_timing: flag(walk, &f, "server_timing", false),
        stream: flag(walk, &f, "stream", false),
    })
}

fn at_once(walk: &mut Walk<'_>, f: &Fields<'_>) -> u16 {
    count(walk, f, "concurrency", 1, MAX_CALLS_AT_ONCE.into(), DEFAULT_CALLS_AT_ONCE)
}

fn bytes(walk: &mut Walk<'_>, f: &Fields<'_>, default: u64) -> u64 {
    let bytes = f.read(walk, "max_bytes", size).unwrap_or(default);
    if let Some(node) = f.node("max_bytes")
        && !(1..=u64::from(MAX_AGGREGATE_BYTES)).contains(&bytes)
    {
        let message =
            format!("{bytes} is out of range; expected 1 to {MAX_AGGREGATE_BYTES} (64MiB)");
        walk.error("out-of-range", node, &f.at("max_bytes"), message);
    }
    bytes
}

fn call(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<AggregateCall> {
    const KNOWN: &[&str] = &[
        "name",
        "upstream",
        "static",
        "grpc",
        "method",
        "path",
        "query",
        "headers",
        "body",
        "forward_headers",
        "forward_query",
        "forward_cookies",
        "after",
        "when",
        "mode",
        "timeout_ms",
        "retry",
        "success",
        "pass",
        "max_bytes",
        "foreach",
        "batch",
        "unwrap",
        "allow",
        "deny",
        "hidden",
        "group",
    ];
    let f = walk.fields(node, path, KNOWN)?;
    let name = f.require(walk, "name", "a name unique among the calls", |walk, node, path| {
        walk.parsed(node, path, "bad-name", call_name)
    });
    one_of(walk, &f, &["upstream", "static"]);
    alone(walk, &f);
    let upstream = f.read(walk, "upstream", |walk, node, path| walk.text(node, path));
    let fixed = f.read(walk, "static", json);
    let read_path = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        walk.parsed(node, path, "bad-path", |text| match text {
            text if !text.starts_with('/') => Err("a path begins with /".into()),
            text if outside(text).contains(['?', '#']) => {
                Err("a path has no query; write `query`".into())
            }
            text => Ok(text.to_owned()),
        })
    };
    let grpc = f.read(walk, "grpc", grpc);
    let target = match upstream {
        Some(_) if f.node("grpc").is_none() => {
            f.require(walk, "path", "a path such as /users/${path.id}", read_path)
        }
        _ => f.read(walk, "path", read_path),
    };
    let timeout_ms = f.read(walk, "timeout_ms", |walk, node, path| {
        walk.number(node, path, 1..=MAX_AGGREGATE_MS.into())
    });
    let pass = f.read(walk, "pass", |walk, node, path| {
        walk.list(node, path, |walk, node, path| walk.number(node, path, 300..=599))
    });
    Some(AggregateCall {
        name: name.unwrap_or_default(),
        upstream,
        grpc,
        fixed,
        method: f.read(walk, "method", |walk, node, path| {
            walk.parsed(node, path, "bad-method", scalars::method)
        }),
        path: target,
        query: f
            .read(walk, "query", |walk, node, path| {
                texts(walk, node, path, |name| match name {
                    "" => Err("expected the name of a query parameter".into()),
                    name => Ok(name.into()),
                })
            })
            .unwrap_or_default(),
        headers: f
            .read(walk, "headers", |walk, node, path| texts(walk, node, path, sent_field))
            .unwrap_or_default(),
        body: f.read(walk, "body", json),
        forward_headers: f
            .read(walk, "forward_headers", |walk, node, path| {
                unique(walk, node, path, "bad-field-name", sent_field)
            })
            .unwrap_or_default(),
        forward_query: f.read(walk, "forward_query", names).unwrap_or_default(),
        forward_cookies: f.read(walk, "forward_cookies", names).unwrap_or_default(),
        after: f.read(walk, "after", names).unwrap_or_default(),
        when: f.read(walk, "when", |walk, node, path| walk.text(node, path)),
        mode: f.read(walk, "mode", mode).unwrap_or_default(),
        timeout_ms,
        retry: f.read(walk, "retry", retry),
        success: f.read(walk, "success", statuses).unwrap_or_else(default_success),
        pass: pass.unwrap_or_else(default_pass),
        max_bytes: bytes(walk, &f, DEFAULT_CALL_BYTES),
        foreach: f.read(walk, "foreach", foreach),
        batch: f.read(walk, "batch", batch),
        unwrap: f.read(walk, "unwrap", dotted),
        allow: f.read(walk, "allow", paths).unwrap_or_default(),
        deny: f.read(walk, "deny", paths).unwrap_or_default(),
        hidden: flag(walk, &f, "hidden", false),
        group: f.read(walk, "group", |walk, node, path| {
            walk.parsed(node, path, "bad-value", |text| match text {
                "" => Err("expected a key".into()),
                text => Ok(text.to_owned()),
            })
        }),
    })
}

/// Reports fields that mean nothing beside others.
fn alone(walk: &mut Walk<'_>, f: &Fields<'_>) {
    const OF_UPSTREAM: &[&str] = &[
        "method",
        "path",
        "query",
        "headers",
        "body",
        "forward_headers",
        "forward_query",
        "forward_cookies",
        "timeout_ms",
        "retry",
    ];
    if f.node("static").is_some() && f.node("upstream").is_none() {
        for name in OF_UPSTREAM {
            if let Some(node) = f.node(name) {
                let message = format!("`{name}` means nothing beside `static`; remove it");
                walk.error("conflicting-fields", node, &f.at(name), message);
            }
        }
    }
    if f.node("grpc").is_some() {
        for name in ["static", "method", "path", "query", "forward_query"] {
            if let Some(node) = f.node(name) {
                let message = format!("`{name}` means nothing beside `grpc`; remove it");
                walk.error("conflicting-fields", node, &f.at(name), message);
            }
        }
    }
    if let (Some(_), Some(node)) = (f.node("foreach"), f.node("batch")) {
        let message = "`foreach` and `batch` exclude each other; keep one";
        walk.error("conflicting-fields", node, &f.at("batch"), message.into());
    }
    if let (Some(_), Some(node)) = (f.node("static"), f.node("batch")) {
        let message = "a batch asks an upstream; write `foreach`, or `upstream`";
        walk.error("conflicting-fields", node, &f.at("batch"), message.into());
    }
}

fn grpc(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<GrpcCall> {
    let f = walk.fields(node, path, &["proto", "method"])?;
    let proto =
        f.require(walk, "proto", "the name of a proto", |walk, node, path| walk.text(node, path));
    let expected = "a method such as shop.v1.Stock/Get";
    let method = f.require(walk, "method", expected, |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text.split_once('/') {
            Some((service, method)) if !service.is_empty() && !method.is_empty() => {
                Ok(text.to_owned())
            }
            _ => Err(format!("expected {expected}")),
        })
    });
    Some(GrpcCall { proto: proto?, method: method? })
}

/// A call's name stands in templates, between dots.
fn call_name(text: &str) -> Result<String, String> {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let all = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match first && all && text.len() <= 100 {
        true => Ok(text.into()),
        false => Err("a call's name is letters, digits and _, at most 100, no digit first".into()),
    }
}

/// A text without its templates.
fn outside(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("${") {
        out.push_str(rest.get(..start).unwrap_or_default());
        let end = rest.get(start..).and_then(|tail| tail.find('}'));
        rest = end.and_then(|end| rest.get(start + end + 1..)).unwrap_or_default();
    }
    out + rest
}

/// A field of a call's request: those that the gateway writes itself are not for anyone to set.
fn sent_field(text: &str) -> Result<String, String> {
    let name = scalars::field_name(text)?;
    match name.as_str() {
        "connection" | "content-length" | "cookie" | "expect" | "host" | "keep-alive"
        | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade" | "via" => {
            let hint = if name == "cookie" { "; write `forward_cookies`" } else { "" };
            Err(format!("the gateway writes {name} itself{hint}"))
        }
        _ => Ok(name),
    }
}

fn names(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<String>> {
    unique(walk, node, path, "bad-value", |text| match text {
        "" => Err("expected a name".into()),
        text => Ok(text.into()),
    })
}

/// A map of texts.
fn texts(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
    name: impl Fn(&str) -> Result<String, String>,
) -> Option<BTreeMap<String, String>> {
    walk.places.set(path, node.mark);
    let Value::Map(entries) = &node.value else {
        walk.wrong_type(node, path, "a map of names and values");
        return None;
    };
    let mut map = BTreeMap::new();
    for entry in entries {
        let place = format!("{path}.{}", entry.key);
        walk.places.set(&place, entry.key_mark);
        let Some(text) = walk.text(&entry.value, &place) else { continue };
        match name(&entry.key) {
            Ok(key) => {
                if map.insert(key, text).is_some() {
                    let message = format!("`{}` is there twice; keep one", entry.key);
                    walk.error("duplicate-key", &entry.value, &place, message);
                }
            }
            Err(message) => walk.error("bad-value", &entry.value, &place, message),
        }
    }
    Some(map)
}

fn json(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Json> {
    walk.places.set(path, node.mark);
    let value = value(walk, node, path)?;
    let len = value.to_string().len();
    if len > MAX_JSON_TEMPLATE {
        let message = format!("this is {len} bytes as JSON; expected at most {MAX_JSON_TEMPLATE}");
        walk.error("out-of-range", node, path, message);
    }
    Some(value)
}

fn mode(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<CallMode> {
    if let Value::Map(entries) = &node.value {
        walk.fields(node, path, &["default"])?;
        // Null is a value here.
        let entry = entries.iter().find(|entry| entry.key == "default");
        let Some(entry) = entry else {
            walk.error("missing-field", node, path, "expected default: and any JSON".into());
            return None;
        };
        return json(walk, &entry.value, &format!("{path}.default")).map(CallMode::Default);
    }
    walk.places.set(path, node.mark);
    match &node.value {
        Value::Text(text) if text == "required" => Some(CallMode::Required),
        Value::Text(text) if text == "optional" => Some(CallMode::Optional),
        _ => {
            walk.wrong_type(node, path, "required, optional, or {default: ...}");
            None
        }
    }
}

fn items(walk: &mut Walk<'_>, f: &Fields<'_>, name: &str) -> u32 {
    count(walk, f, name, 1, MAX_ITEMS.into(), DEFAULT_ITEMS)
}

fn list(walk: &mut Walk<'_>, f: &Fields<'_>) -> Option<String> {
    let expected = "a template such as ${call.NAME.body.items}";
    f.require(walk, "in", expected, |walk, node, path| walk.text(node, path))
}

fn foreach(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Foreach> {
    let f = walk.fields(node, path, &["in", "key", "concurrency", "max_items"])?;
    Some(Foreach {
        list: list(walk, &f)?,
        key: f.read(walk, "key", dotted),
        concurrency: at_once(walk, &f),
        max_items: items(walk, &f, "max_items"),
    })
}

fn batch(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<BatchCall> {
    let f = walk.fields(node, path, &["in", "key", "by", "size", "concurrency", "max_items"])?;
    let by = f.require(walk, "by", "the path of what names an element of the answer", dotted);
    Some(BatchCall {
        list: list(walk, &f)?,
        key: f.read(walk, "key", dotted),
        by: by?,
        size: items(walk, &f, "size"),
        concurrency: at_once(walk, &f),
        max_items: items(walk, &f, "max_items"),
    })
}

/// A path into JSON, such as `data.items`.
fn dotted(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.parsed(node, path, "bad-path", |text| match text.split('.').any(str::is_empty) {
        true => Err("expected a path such as data.items".into()),
        false => Ok(text.to_owned()),
    })
}

fn dotted_or_all(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    match &node.value {
        Value::Text(text) if text.is_empty() => walk.text(node, path),
        _ => dotted(walk, node, path),
    }
}

fn paths(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<String>> {
    unique(walk, node, path, "bad-path", |text| match text.split('.').any(str::is_empty) {
        true => Err("expected a path such as owner.name".into()),
        false => Ok(text.to_owned()),
    })
}

fn response(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<AggregateResponse> {
    const KNOWN: &[&str] = &["status", "merge", "body", "join", "allow", "deny", "headers"];
    const MERGES: &[(&str, Merge)] =
        &[("group", Merge::Group), ("deep", Merge::Deep), ("append", Merge::Append)];
    let f = walk.fields(node, path, KNOWN)?;
    if let (Some(merge), Some(_)) = (f.node("merge"), f.node("body"))
        && !matches!(&merge.value, Value::Text(word) if word == "group")
    {
        let message = "`merge` and `body` exclude each other; keep one";
        walk.error("conflicting-fields", merge, &f.at("merge"), message.into());
    }
    Some(AggregateResponse {
        status: count(walk, &f, "status", 200, 599, 200),
        merge: f
            .read(walk, "merge", |walk, node, path| walk.word(node, path, MERGES))
            .unwrap_or_default(),
        body: f.read(walk, "body", json),
        join: f
            .read(walk, "join", |walk, node, path| walk.list(node, path, join))
            .unwrap_or_default(),
        allow: f.read(walk, "allow", paths).unwrap_or_default(),
        deny: f.read(walk, "deny", paths).unwrap_or_default(),
        headers: f
            .read(walk, "headers", |walk, node, path| texts(walk, node, path, answered_field))
            .unwrap_or_default(),
    })
}

fn answered_field(text: &str) -> Result<String, String> {
    let name = sent_field(text)?;
    match name.as_str() {
        "date" | "server-timing" | "sluice-complete" => {
            Err(format!("the gateway writes {name} itself"))
        }
        _ => Ok(name),
    }
}

fn join(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Join> {
    let known = &["list", "key", "call", "from", "by", "into", "many"];
    let f = walk.fields(node, path, known)?;
    let key = f.require(walk, "key", "the path of the value to look for", dotted);
    let call =
        f.require(walk, "call", "the name of a call", |walk, node, path| walk.text(node, path));
    let by = f.require(walk, "by", "the path of the value that must be the same", dotted);
    let into = f.require(walk, "into", "the path where what is found goes", dotted);
    Some(Join {
        list: f.read(walk, "list", dotted_or_all).unwrap_or_default(),
        key: key?,
        call: call?,
        from: f.read(walk, "from", dotted_or_all).unwrap_or_default(),
        by: by?,
        into: into?,
        many: flag(walk, &f, "many", false),
    })
}
