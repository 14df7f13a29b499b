//! Bounds on GraphQL requests.

use std::collections::BTreeMap;

use contract::encode::{MAX_QUERY_BATCH, MAX_QUERY_BYTES, MAX_QUERY_DEPTH, MAX_QUERY_TOKENS};

use super::fields::Walk;
use super::parts::{count, flag};
use super::route::{size, unique};
use crate::spec::model::Graphql;
use crate::spec::tree::{Node, Value};

pub(super) fn graphql(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Graphql> {
    const KNOWN: &[&str] = &[
        "max_depth",
        "max_cost",
        "max_aliases",
        "max_tokens",
        "max_batch",
        "max_bytes",
        "introspection",
        "list_arguments",
        "weights",
        "operations",
        "documents",
    ];
    let d = Graphql::default();
    let f = &walk.fields(node, path, KNOWN)?;
    let many = u32::MAX.into();
    let max_bytes = f.read(walk, "max_bytes", size).unwrap_or(d.max_bytes);
    if let Some(node) = f.node("max_bytes")
        && !(1..=u64::from(MAX_QUERY_BYTES)).contains(&max_bytes)
    {
        let message =
            format!("{max_bytes} is out of range; expected 1 to {MAX_QUERY_BYTES} (1MiB)");
        walk.error("out-of-range", node, &f.at("max_bytes"), message);
    }
    Some(Graphql {
        max_depth: count(walk, f, "max_depth", 1, MAX_QUERY_DEPTH.into(), d.max_depth),
        max_cost: count(walk, f, "max_cost", 1, many, d.max_cost),
        max_aliases: count(walk, f, "max_aliases", 0, many, d.max_aliases),
        max_tokens: count(walk, f, "max_tokens", 1, MAX_QUERY_TOKENS.into(), d.max_tokens),
        max_batch: count(walk, f, "max_batch", 1, MAX_QUERY_BATCH.into(), d.max_batch),
        max_bytes,
        introspection: flag(walk, f, "introspection", d.introspection),
        list_arguments: f.read(walk, "list_arguments", names).unwrap_or(d.list_arguments),
        weights: f.read(walk, "weights", weights).unwrap_or_default(),
        operations: f.read(walk, "operations", names).unwrap_or_default(),
        documents: f
            .read(walk, "documents", |walk, node, path| {
                unique(walk, node, path, "bad-value", |text| {
                    let digits = text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit());
                    match digits {
                        true => Ok(text.to_ascii_lowercase()),
                        false => Err("expected a SHA-256: 64 hexadecimal digits".into()),
                    }
                })
            })
            .unwrap_or_default(),
    })
}

/// GraphQL §2.1.9.
fn name(text: &str) -> Result<String, String> {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    match first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        true => Ok(text.into()),
        false => Err("a name of GraphQL is letters, digits and _, no digit first".into()),
    }
}

fn names(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<String>> {
    unique(walk, node, path, "bad-value", name)
}

fn weights(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<BTreeMap<String, u32>> {
    walk.places.set(path, node.mark);
    let Value::Map(entries) = &node.value else {
        walk.wrong_type(node, path, "a map of fields and their weights");
        return None;
    };
    let mut map = BTreeMap::new();
    for entry in entries {
        let place = format!("{path}.{}", entry.key);
        if let Err(message) = name(&entry.key) {
            walk.error("bad-value", &entry.value, &place, message);
            continue;
        }
        if let Some(weight) = walk.number(&entry.value, &place, 0..=1_000_000)
            && map.insert(entry.key.clone(), weight).is_some()
        {
            let message = format!("`{}` is there twice; keep one", entry.key);
            walk.error("duplicate-key", &entry.value, &place, message);
        }
    }
    Some(map)
}
