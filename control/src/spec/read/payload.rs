//! What routes change of bodies. Pointers, paths, templates and programs are compiled by the engine, whose
//! judgement follows (`crate::fit`).

use contract::encode::{
    MAX_BODY_RULES, MAX_BODY_STEPS, MAX_BODY_VALUE, MAX_CHANGED_BODY, MAX_JQ_MS,
};
use serde_json::Value as Json;

use super::fields::Walk;
use super::health::status;
use super::parts::{count, flag};
use super::route::{size, unique};
use super::validate::value;
use crate::spec::model::{
    BodyForm, BodyRule, BodyStep, CodingName, Compress, DEFAULT_CHANGED_BYTES, DEFAULT_JQ_MS,
    FromTo, NewName, PlacedValue, Unreadable,
};
use crate::spec::tree::{Node, Value};

pub(super) fn request_body(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<BodyRule>> {
    rules(walk, node, path, false)
}

pub(super) fn response_body(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<BodyRule>> {
    rules(walk, node, path, true)
}

/// A list of rules, or one.
fn rules(walk: &mut Walk<'_>, node: &Node, path: &str, of_answers: bool) -> Option<Vec<BodyRule>> {
    if let Value::Map(_) = node.value {
        return Some(vec![rule(walk, node, path, of_answers)?]);
    }
    let list = walk.list(node, path, |walk, node, path| rule(walk, node, path, of_answers))?;
    if list.len() > MAX_BODY_RULES {
        let message = format!("expected at most {MAX_BODY_RULES} rules");
        walk.error("too-many", node, path, message);
    }
    Some(list)
}

fn rule(walk: &mut Walk<'_>, node: &Node, path: &str, of_answers: bool) -> Option<BodyRule> {
    const OF_REQUESTS: &[&str] = &[
        "content_types",
        "from",
        "to",
        "decode",
        "max_bytes",
        "unreadable",
        "arrays",
        "jq_timeout_ms",
        "steps",
    ];
    const OF_ANSWERS: &[&str] = &[
        "statuses",
        "content_types",
        "from",
        "to",
        "max_bytes",
        "unreadable",
        "arrays",
        "jq_timeout_ms",
        "steps",
    ];
    const FORMS: &[(&str, BodyForm)] = &[
        ("json", BodyForm::Json),
        ("form", BodyForm::Form),
        ("xml", BodyForm::Xml),
        ("ndjson", BodyForm::Ndjson),
        ("sse", BodyForm::Sse),
    ];
    const UNREADABLE: &[(&str, Unreadable)] =
        &[("refuse", Unreadable::Refuse), ("pass", Unreadable::Pass)];
    let f = walk.fields(node, path, if of_answers { OF_ANSWERS } else { OF_REQUESTS })?;
    let from = f.read(walk, "from", |walk, node, path| walk.word(node, path, FORMS));
    let to = f.read(walk, "to", |walk, node, path| walk.word(node, path, FORMS));
    let max_bytes = f.read(walk, "max_bytes", size).unwrap_or(DEFAULT_CHANGED_BYTES);
    if let Some(node) = f.node("max_bytes")
        && !(1..=u64::from(MAX_CHANGED_BODY)).contains(&max_bytes)
    {
        let message = format!("expected 1 to {MAX_CHANGED_BODY} bytes (64MiB)");
        walk.error("out-of-range", node, &f.at("max_bytes"), message);
    }
    let steps = f.read(walk, "steps", |walk, node, path| {
        let list = walk.list(node, path, step)?;
        if list.len() > MAX_BODY_STEPS {
            walk.error("too-many", node, path, format!("expected at most {MAX_BODY_STEPS} steps"));
        }
        Some(list)
    });
    let texts = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        unique(walk, node, path, "bad-value", |text| Ok(text.into()))
    };
    Some(BodyRule {
        statuses: f
            .read(walk, "statuses", |walk, node, path| walk.list(node, path, status))
            .unwrap_or_default(),
        content_types: f.read(walk, "content_types", texts).unwrap_or_default(),
        from: from.unwrap_or_default(),
        to,
        decode: flag(walk, &f, "decode", false),
        max_bytes,
        unreadable: f
            .read(walk, "unreadable", |walk, node, path| walk.word(node, path, UNREADABLE))
            .unwrap_or_default(),
        arrays: f.read(walk, "arrays", texts).unwrap_or_default(),
        jq_timeout_ms: count(walk, &f, "jq_timeout_ms", 1, u64::from(MAX_JQ_MS), DEFAULT_JQ_MS),
        steps: steps.unwrap_or_default(),
    })
}

fn step(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<BodyStep> {
    const KNOWN: &[&str] = &[
        "add", "replace", "remove", "move", "copy", "rename", "allow", "deny", "wrap", "unwrap",
        "defaults", "template", "jq",
    ];
    let f = walk.fields(node, path, KNOWN)?;
    // What becomes null is there, too.
    let entries = match &node.value {
        Value::Map(entries) => entries.len(),
        _ => 0,
    };
    if entries != 1 {
        let message = format!("expected one operation, one of {}", KNOWN.join(", "));
        walk.error("bad-value", node, path, message);
        return None;
    }
    let named = |text: &str| match text {
        "" => Err("expected the name of a member".to_string()),
        name => Ok(name.to_string()),
    };
    let place = |walk: &mut Walk<'_>, node: &Node, path: &str| walk.text(node, path);
    let paths = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        unique(walk, node, path, "bad-value", |text| Ok(text.into()))
    };
    let short = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        walk.parsed(node, path, "bad-value", |text| match text.len() {
            1..=MAX_BODY_VALUE => Ok(text.to_string()),
            _ => Err(format!("expected a program of 1 to {MAX_BODY_VALUE} bytes")),
        })
    };
    let found = [
        f.read(walk, "add", placed).map(BodyStep::Add),
        f.read(walk, "replace", placed).map(BodyStep::Replace),
        f.read(walk, "remove", place).map(BodyStep::Remove),
        f.read(walk, "move", from_to).map(BodyStep::Move),
        f.read(walk, "copy", from_to).map(BodyStep::Copy),
        f.read(walk, "rename", |walk, node, path| {
            let f = walk.fields(node, path, &["at", "name"])?;
            let at = f.require(walk, "at", "a JSON Pointer such as /user/name", place);
            let name = f.require(walk, "name", "its new name", |walk, node, path| {
                walk.parsed(node, path, "bad-value", named)
            });
            Some(BodyStep::Rename(NewName { at: at?, name: name? }))
        }),
        f.read(walk, "allow", paths).map(BodyStep::Allow),
        f.read(walk, "deny", paths).map(BodyStep::Deny),
        f.read(walk, "wrap", |walk, node, path| walk.parsed(node, path, "bad-value", named))
            .map(BodyStep::Wrap),
        f.read(walk, "unwrap", place).map(BodyStep::Unwrap),
        f.read(walk, "defaults", |walk, node, path| match bounded(walk, node, path)? {
            Json::Object(members) => Some(BodyStep::Defaults(members)),
            _ => {
                walk.wrong_type(node, path, "a map of members and their values");
                None
            }
        }),
        f.read(walk, "template", bounded).map(BodyStep::Template),
        f.read(walk, "jq", short).map(BodyStep::Jq),
    ];
    let step = found.into_iter().flatten().next();
    if step.is_none() && KNOWN.iter().all(|name| f.node(name).is_none()) {
        walk.error("bad-value", node, path, "expected an operation with something to do".into());
    }
    step
}

/// A value that a snapshot can hold.
fn bounded(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Json> {
    walk.places.set(path, node.mark);
    let json = value(walk, node, path)?;
    if json.to_string().len() > MAX_BODY_VALUE {
        walk.error("out-of-range", node, path, format!("expected at most {MAX_BODY_VALUE} bytes"));
        return None;
    }
    Some(json)
}

fn placed(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<PlacedValue> {
    let f = walk.fields(node, path, &["at", "value"])?;
    let at = f.require(walk, "at", "a JSON Pointer such as /user/name", |walk, node, path| {
        walk.text(node, path)
    });
    // Null is a value like any other.
    let null = match &node.value {
        Value::Map(entries) => entries
            .iter()
            .any(|entry| entry.key == "value" && matches!(entry.value.value, Value::Null)),
        _ => false,
    };
    let value = match null {
        true => Some(Json::Null),
        false => f.require(walk, "value", "the value to put there", bounded),
    };
    Some(PlacedValue { at: at?, value: value? })
}

fn from_to(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<FromTo> {
    let f = walk.fields(node, path, &["from", "to"])?;
    let text = |walk: &mut Walk<'_>, node: &Node, path: &str| walk.text(node, path);
    let from = f.require(walk, "from", "a JSON Pointer such as /user/name", text);
    let to = f.require(walk, "to", "a JSON Pointer such as /user/name", text);
    Some(FromTo { from: from?, to: to? })
}

/// `true`, or what differs from the defaults. `false`: nothing.
pub(super) fn compress(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Compress> {
    const CODINGS: &[(&str, CodingName)] = &[
        ("gzip", CodingName::Gzip),
        ("deflate", CodingName::Deflate),
        ("br", CodingName::Br),
        ("zstd", CodingName::Zstd),
    ];
    walk.places.set(path, node.mark);
    if let Value::Bool(on) = node.value {
        return on.then(Compress::default);
    }
    let default = Compress::default();
    let f = walk.fields(node, path, &["codings", "levels", "min_bytes", "content_types"])?;
    let codings = f.read(walk, "codings", |walk, node, path| {
        let list = walk.list(node, path, |walk, node, path| walk.word(node, path, CODINGS))?;
        let twice = (1..list.len()).any(|at| list[..at].contains(&list[at]));
        if list.is_empty() || twice {
            let message = "expected each coding once, and at least one; to compress nothing, leave \
                           `compress` out";
            walk.error("bad-value", node, path, message.into());
            return None;
        }
        Some(list)
    });
    let levels = f.read(walk, "levels", |walk, node, path| {
        let f = walk.fields(node, path, &["gzip", "deflate", "br", "zstd"])?;
        let levels = CODINGS.iter().filter_map(|(name, coding)| {
            let range = coding.coding().levels();
            let (low, high) = (u64::from(*range.start()), u64::from(*range.end()));
            let level = f.read(walk, name, |walk, node, path| walk.number(node, path, low..=high));
            Some((*coding, level?))
        });
        Some(levels.collect())
    });
    let min_bytes = f.read(walk, "min_bytes", |walk, node, path| {
        let bytes = u32::try_from(size(walk, node, path)?).ok();
        if bytes.is_none() {
            walk.error("out-of-range", node, path, "expected less than 4GiB".into());
        }
        bytes
    });
    let content_types = f.read(walk, "content_types", |walk, node, path| {
        let list = unique(walk, node, path, "bad-value", |text| Ok(text.into()))?;
        if list.is_empty() {
            let message = "expected at least one media type";
            walk.error("empty-list", node, path, message.into());
        }
        Some(list)
    });
    Some(Compress {
        codings: codings.unwrap_or(default.codings),
        levels: levels.unwrap_or_default(),
        min_bytes: min_bytes.unwrap_or(default.min_bytes),
        content_types: content_types.unwrap_or(default.content_types),
    })
}
