//! What is kept of answers.

use super::{DecodeError, In, MAX_ENTRIES, Out};
use crate::snapshot::*;

/// Most that a node may keep, in bytes: 1 TiB.
pub const MAX_CACHE: u64 = 1 << 40;
/// Largest answer that may be kept, in bytes.
pub const MAX_CACHED_BODY: u64 = 1 << 30;

pub(super) fn write(out: &mut Out, cache: &Cache) {
    out.u64(cache.max_bytes);
    out.u64(cache.max_object_bytes);
}

pub(super) fn read(input: &mut In<'_>) -> Result<Cache, DecodeError> {
    Ok(Cache {
        max_bytes: input.u64_within("cache.max_bytes", MAX_CACHE)?,
        max_object_bytes: input.u64_within("cache.max_object_bytes", MAX_CACHED_BODY)?,
    })
}

pub(super) fn write_route(out: &mut Out, cache: &RouteCache) {
    out.u64(cache.ttl_ms);
    out.u8(cache.heuristic_percent);
    out.list(&cache.statuses, |out, status| out.u16(*status));
    out.u64(cache.stale_while_revalidate_ms);
    out.u64(cache.stale_if_error_ms);
    match &cache.query {
        CacheQuery::All => out.u8(0),
        CacheQuery::Only(names) => {
            out.u8(1);
            out.texts(names);
        }
        CacheQuery::Except(names) => {
            out.u8(2);
            out.texts(names);
        }
    }
    out.texts(&cache.headers);
    out.u8(cache.by_consumer.into());
    out.u8(match cache.set_cookie {
        CacheCookies::Refuse => 0,
        CacheCookies::Strip => 1,
        CacheCookies::Store => 2,
    });
    out.text(&cache.tag_header);
    out.u8(cache.heed_requests.into());
    out.u32(cache.coalesce_ms);
    out.u8(cache.tell.into());
}

pub(super) fn read_route(input: &mut In<'_>) -> Result<RouteCache, DecodeError> {
    Ok(RouteCache {
        ttl_ms: input.u64("route.cache.ttl_ms")?,
        heuristic_percent: input.u8_within("route.cache.heuristic_percent", 0, 100)?,
        statuses: input.list("route.cache.statuses", MAX_ENTRIES, |input| {
            input.u16_within("route.cache.status", 200, 599)
        })?,
        stale_while_revalidate_ms: input.u64("route.cache.stale_while_revalidate_ms")?,
        stale_if_error_ms: input.u64("route.cache.stale_if_error_ms")?,
        query: match input.u8("route.cache.query")? {
            0 => CacheQuery::All,
            1 => CacheQuery::Only(input.texts("route.cache.query", MAX_ENTRIES)?),
            2 => CacheQuery::Except(input.texts("route.cache.query", MAX_ENTRIES)?),
            other => return Err(input.tag("route.cache.query", other)),
        },
        headers: input.texts("route.cache.headers", MAX_ENTRIES)?,
        by_consumer: input.bool("route.cache.by_consumer")?,
        set_cookie: match input.u8("route.cache.set_cookie")? {
            0 => CacheCookies::Refuse,
            1 => CacheCookies::Strip,
            2 => CacheCookies::Store,
            other => return Err(input.tag("route.cache.set_cookie", other)),
        },
        tag_header: input.text("route.cache.tag_header")?,
        heed_requests: input.bool("route.cache.heed_requests")?,
        coalesce_ms: input.u32("route.cache.coalesce_ms")?,
        tell: input.bool("route.cache.tell")?,
    })
}
