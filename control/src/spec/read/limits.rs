//! Policies of limits.

use super::fields::{Fields, Walk};
use super::parts::{count, flag, locality, name};
use crate::spec::model::*;
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

/// Most that a limit can be.
const MOST: u64 = contract::encode::MAX_LIMIT;
/// Longest name of a field.
const MAX_FIELD_NAME: usize = 256;
/// Longest template of paths.
const MAX_TEMPLATE: usize = 1_024;

pub(super) fn limit(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Limit> {
    const KNOWN: &[&str] = &[
        "name",
        "workspace",
        "by",
        "requests",
        "per",
        "windows",
        "burst",
        "concurrency",
        "tiers",
        "cost",
        "mode",
        "on_store_failure",
        "dry_run",
        "everywhere",
        "fields",
    ];
    const MODES: &[(&str, LimitMode)] = &[
        ("leased", LimitMode::Leased),
        ("strict", LimitMode::Strict),
        ("local", LimitMode::Local),
    ];
    const FAILURES: &[(&str, OnStoreFailure)] = &[
        ("share", OnStoreFailure::Share),
        ("deny", OnStoreFailure::Deny),
        ("open", OnStoreFailure::Open),
    ];
    let Some(f) = &walk.fields(node, path, KNOWN) else {
        return Some(Limit::default());
    };
    let (windows, burst, concurrency) = quota(walk, f);
    Some(Limit {
        name: name(walk, f),
        workspace: f.read(walk, "workspace", locality),
        by: f.read(walk, "by", |walk, node, path| walk.list(node, path, by)).unwrap_or_default(),
        windows,
        burst,
        concurrency,
        tiers: f
            .read(walk, "tiers", |walk, node, path| walk.list(node, path, tier))
            .unwrap_or_default(),
        cost: f.read(walk, "cost", cost).unwrap_or_default(),
        mode: f
            .read(walk, "mode", |walk, node, path| walk.word(node, path, MODES))
            .unwrap_or_default(),
        on_store_failure: f
            .read(walk, "on_store_failure", |walk, node, path| walk.word(node, path, FAILURES))
            .unwrap_or_default(),
        dry_run: flag(walk, f, "dry_run", false),
        everywhere: flag(walk, f, "everywhere", false),
        fields: f.read(walk, "fields", fields).unwrap_or_default(),
    })
}

fn tier(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<LimitTier> {
    const KNOWN: &[&str] = &["group", "requests", "per", "windows", "burst", "concurrency"];
    let f = &walk.fields(node, path, KNOWN)?;
    let group = f.require(walk, "group", "the name of a group", |walk, node, path| {
        walk.parsed(node, path, "bad-name", scalars::name)
    });
    let (windows, burst, concurrency) = quota(walk, f);
    Some(LimitTier { group: group?, windows, burst, concurrency })
}

/// Windows, burst and concurrency: at least one window, or a concurrency.
fn quota(walk: &mut Walk<'_>, f: &Fields<'_>) -> (Vec<LimitWindow>, Option<u64>, Option<u32>) {
    let requests = f.read(walk, "requests", |walk, node, path| walk.number(node, path, 1..=MOST));
    let per = f.read(walk, "per", per);
    let several = f.read(walk, "windows", |walk, node, path| {
        let list = walk.list(node, path, window)?;
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            walk.error("empty-list", node, path, "expected [{requests: 100, per: 1s}, ...]".into());
        }
        Some(list)
    });
    let concurrency = f.read(walk, "concurrency", |walk, node, path| {
        walk.number(node, path, 1..=u64::from(u32::MAX))
    });
    let burst = f.read(walk, "burst", |walk, node, path| walk.number(node, path, 1..=MOST));
    let short = f.node("requests").or(f.node("per"));
    match (short, f.node("windows")) {
        (Some(node), Some(_)) => {
            let message = "`windows` stands in place of `requests` and `per`; keep one form";
            walk.error("conflicting-fields", node, &f.path, message.into());
        }
        (Some(_), None) => {
            for missing in ["requests", "per"].into_iter().filter(|name| f.node(name).is_none()) {
                let message = format!("`{missing}` is missing; expected requests: 100, per: 1s");
                let field = f.at(missing);
                walk.problems.error("missing-field", f.mark, &field, None, message);
            }
        }
        (None, None) if f.node("concurrency").is_none() => {
            let message = "nothing is limited; expected requests and per, windows, or concurrency";
            walk.problems.error("missing-field", f.mark, &f.path, None, message.into());
        }
        (None, _) => {}
    }
    let one = requests.zip(per).map(|(requests, per)| vec![LimitWindow { requests, per }]);
    (one.or(several).unwrap_or_default(), burst, concurrency)
}

fn window(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<LimitWindow> {
    let f = &walk.fields(node, path, &["requests", "per"])?;
    let requests = f.require(walk, "requests", "a number", |walk, node, path| {
        walk.number(node, path, 1..=MOST)
    });
    let per = f.require(walk, "per", "a time such as 1s, or day", per);
    Some(LimitWindow { requests: requests?, per: per? })
}

fn per(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Per> {
    walk.parsed(node, path, "bad-window", str::parse)
}

fn by(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<LimitBy> {
    const WORDS: &[(&str, u8)] =
        &[("consumer", 0), ("credential", 1), ("group", 2), ("route", 3), ("address", 4)];
    if let Value::Text(_) = node.value {
        return Some(match walk.word(node, path, WORDS)? {
            0 => LimitBy::Consumer,
            1 => LimitBy::Credential,
            2 => LimitBy::Group,
            3 => LimitBy::Route,
            _ => LimitBy::Address { v4: V4, v6: V6 },
        });
    }
    let f = &walk.fields(node, path, &["address", "header", "path"])?;
    super::parts::one_of(walk, f, &["address", "header", "path"])?;
    if f.node("header").is_some() {
        return f.read(walk, "header", header).map(LimitBy::Header);
    }
    if f.node("path").is_some() {
        return f.read(walk, "path", template).map(LimitBy::Path);
    }
    f.read(walk, "address", |walk, node, path| {
        let f = &walk.fields(node, path, &["v4", "v6"])?;
        let (v4, v6) = (count(walk, f, "v4", 0, 32, V4), count(walk, f, "v6", 0, 128, V6));
        Some(LimitBy::Address { v4, v6 })
    })
}

fn header(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.parsed(node, path, "bad-field-name", |text| {
        match scalars::is_token(text) && text.len() <= MAX_FIELD_NAME {
            true => Ok(text.to_ascii_lowercase()),
            false => Err("expected the name of a field, like X-Tenant".into()),
        }
    })
}

fn template(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.parsed(node, path, "bad-template", |text| {
        let wrong =
            || Err("expected a template like /users/{id}/orders or /files/{owner}/*".to_string());
        if text.len() > MAX_TEMPLATE || !text.starts_with('/') {
            return wrong();
        }
        let segments: Vec<&str> = text[1..].split('/').collect();
        let last = segments.len() - 1;
        for (at, segment) in segments.iter().enumerate() {
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let good = match name {
                Some(name) => {
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                }
                None if *segment == "*" => at == last,
                None => !segment.contains(['{', '}', '*', '?', '#']),
            };
            if !good {
                return wrong();
            }
        }
        Ok(text.to_string())
    })
}

fn cost(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<LimitCost> {
    if !matches!(node.value, Value::Map(_)) {
        return walk.number(node, path, 1..=u64::from(u32::MAX)).map(LimitCost::Fixed);
    }
    const KNOWN: &[&str] = &["header", "default", "response_header", "reserve", "max"];
    let f = &walk.fields(node, path, KNOWN)?;
    super::parts::one_of(walk, f, &["header", "response_header"])?;
    let most = f.require(walk, "max", "the most that one request can cost", |walk, node, path| {
        walk.number(node, path, 1..=u64::from(u32::MAX))
    });
    let (own, other) = match f.node("header") {
        Some(_) => ("default", "reserve"),
        None => ("reserve", "default"),
    };
    if let Some(node) = f.node(other) {
        let message = format!("`{other}` does not go with this; expected `{own}`");
        walk.error("conflicting-fields", node, &f.at(other), message);
    }
    // One that reserves nothing would be let in however much is used up.
    let value: u32 = count(walk, f, own, 1, u64::from(u32::MAX), 1);
    let max: u32 = most?;
    if value > max {
        let message = format!("{value} is more than max, {max}");
        walk.problems.error("out-of-range", f.mark, &f.at(own), None, message);
    }
    match f.node("header") {
        Some(_) => f.read(walk, "header", header).map(|header| LimitCost::RequestHeader {
            header,
            default: value,
            max,
        }),
        None => f.read(walk, "response_header", header).map(|response_header| {
            LimitCost::ResponseHeader { response_header, reserve: value, max }
        }),
    }
}

fn fields(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<LimitFields> {
    let f = &walk.fields(node, path, &["standard", "legacy"])?;
    Some(LimitFields {
        standard: flag(walk, f, "standard", true),
        legacy: flag(walk, f, "legacy", false),
    })
}
