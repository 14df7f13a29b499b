//! What is kept of answers.

use contract::encode::{MAX_CACHE, MAX_CACHED_BODY};

use super::fields::Walk;
use super::parts::{count, flag, one_of};
use super::route::{size, unique};
use crate::spec::model::{Cache, CacheKey, QueryKey, RouteCache, SetCookie};
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

/// A year.
const LONG_MS: u64 = 365 * 86_400_000;
/// Longest wait for somebody else's answer.
const WAIT_MS: u64 = 60_000;

pub(super) fn cache(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Cache> {
    let default = Cache::default();
    let fields = walk.fields(node, path, &["max_bytes", "max_object_bytes"])?;
    let mut read = |name: &str, most: u64| {
        fields.read(walk, name, |walk, node, path| {
            let bytes = size(walk, node, path)?;
            if bytes > most {
                let message = format!("{bytes} is out of range; expected 0 to {most}");
                walk.error("out-of-range", node, path, message);
                return None;
            }
            Some(bytes)
        })
    };
    let max_bytes = read("max_bytes", MAX_CACHE).unwrap_or(default.max_bytes);
    // With a small cache, the usual bound would be past it.
    let usual = default.max_object_bytes.min(max_bytes / 4);
    let max_object_bytes = read("max_object_bytes", MAX_CACHED_BODY).unwrap_or(usual);
    if max_object_bytes > max_bytes / 4
        && let Some(node) = fields.node("max_object_bytes").or(fields.node("max_bytes"))
    {
        let message = format!(
            "one answer may have a quarter of max_bytes; expected max_object_bytes of at most {}",
            max_bytes / 4
        );
        walk.error("out-of-range", node, &fields.at("max_object_bytes"), message);
    }
    Some(Cache { max_bytes, max_object_bytes })
}

pub(super) fn route_cache(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<RouteCache> {
    const KNOWN: &[&str] = &[
        "ttl_ms",
        "heuristic_percent",
        "statuses",
        "stale_while_revalidate_ms",
        "stale_if_error_ms",
        "key",
        "set_cookie",
        "tag_header",
        "ignore_request_cache_control",
        "coalesce_ms",
        "cache_status",
    ];
    const COOKIES: &[(&str, SetCookie)] =
        &[("refuse", SetCookie::Refuse), ("strip", SetCookie::Strip), ("store", SetCookie::Store)];
    let d = RouteCache::default();
    let f = &walk.fields(node, path, KNOWN)?;
    let set_cookie = f.read(walk, "set_cookie", |walk, node, path| walk.word(node, path, COOKIES));
    Some(RouteCache {
        ttl_ms: count(walk, f, "ttl_ms", 0, LONG_MS, d.ttl_ms),
        heuristic_percent: count(walk, f, "heuristic_percent", 0, 100, d.heuristic_percent),
        statuses: f.read(walk, "statuses", statuses).unwrap_or_default(),
        stale_while_revalidate_ms: count(
            walk,
            f,
            "stale_while_revalidate_ms",
            0,
            LONG_MS,
            d.stale_while_revalidate_ms,
        ),
        stale_if_error_ms: count(walk, f, "stale_if_error_ms", 0, LONG_MS, d.stale_if_error_ms),
        key: f.read(walk, "key", key).unwrap_or_default(),
        set_cookie: set_cookie.unwrap_or_default(),
        tag_header: f
            .read(walk, "tag_header", |walk, node, path| {
                walk.parsed(node, path, "bad-field-name", scalars::field_name)
            })
            .unwrap_or(d.tag_header),
        ignore_request_cache_control: flag(
            walk,
            f,
            "ignore_request_cache_control",
            d.ignore_request_cache_control,
        ),
        coalesce_ms: count(walk, f, "coalesce_ms", 0, WAIT_MS, d.coalesce_ms),
        cache_status: flag(walk, f, "cache_status", d.cache_status),
    })
}

fn statuses(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<u16>> {
    let mut seen = Vec::new();
    walk.list(node, path, |walk, node, path| {
        let status: u16 = walk.number(node, path, 200..=599)?;
        let message = match status {
            206 => "parts of answers are not kept (but given of whole ones)".to_owned(),
            304 => "a 304 is about what is kept, and not kept itself".to_owned(),
            status if seen.contains(&status) => format!("`{status}` is there twice"),
            status => {
                seen.push(status);
                return Some(status);
            }
        };
        walk.error("bad-value", node, path, message);
        None
    })
}

fn key(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<CacheKey> {
    let fields = walk.fields(node, path, &["query", "headers", "consumer"])?;
    Some(CacheKey {
        query: fields.read(walk, "query", query).unwrap_or_default(),
        headers: fields
            .read(walk, "headers", |walk, node, path| {
                unique(walk, node, path, "bad-field-name", scalars::field_name)
            })
            .unwrap_or_default(),
        consumer: flag(walk, &fields, "consumer", false),
    })
}

fn query(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<QueryKey> {
    match &node.value {
        Value::Text(text) if text == "all" => {
            walk.places.set(path, node.mark);
            Some(QueryKey::All)
        }
        Value::Map(_) => {
            let fields = walk.fields(node, path, &["only", "except"])?;
            one_of(walk, &fields, &["only", "except"])?;
            let names = |walk: &mut Walk<'_>, node: &Node, path: &str| {
                unique(walk, node, path, "bad-value", |text| match text {
                    "" => Err("expected the name of a query parameter".into()),
                    text => Ok(text.to_owned()),
                })
            };
            let only = fields.read(walk, "only", names).map(QueryKey::Only);
            only.or(fields.read(walk, "except", names).map(QueryKey::Except))
        }
        _ => {
            walk.places.set(path, node.mark);
            walk.wrong_type(node, path, "all, or a map with `only` or `except`");
            None
        }
    }
}
