use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::text;
use crate::encode::{MAX_CACHE, MAX_CACHED_BODY};
use crate::snapshot::*;

/// What a node keeps, and what it keeps of a route.
pub fn cache() -> impl Strategy<Value = (Cache, Option<RouteCache>)> {
    let node = (0..=MAX_CACHE, 0..=MAX_CACHED_BODY)
        .prop_map(|(max_bytes, max_object_bytes)| Cache { max_bytes, max_object_bytes });
    let query = prop_oneof![
        Just(CacheQuery::All),
        vec(text(), 0..3).prop_map(CacheQuery::Only),
        vec(text(), 0..3).prop_map(CacheQuery::Except),
    ];
    let set_cookie = prop_oneof![
        Just(CacheCookies::Refuse),
        Just(CacheCookies::Strip),
        Just(CacheCookies::Store)
    ];
    let times = (any::<[u64; 3]>(), 0..=100u8, any::<u32>());
    let key = (query, vec(text(), 0..3), any::<[bool; 3]>(), text());
    let route = (times, vec(200..=599u16, 0..3), key, set_cookie);
    let route = route.prop_map(|(times, statuses, key, set_cookie)| {
        let (
            [ttl_ms, stale_while_revalidate_ms, stale_if_error_ms],
            heuristic_percent,
            coalesce_ms,
        ) = times;
        let (query, headers, [by_consumer, heed_requests, tell], tag_header) = key;
        RouteCache {
            ttl_ms,
            heuristic_percent,
            statuses,
            stale_while_revalidate_ms,
            stale_if_error_ms,
            query,
            headers,
            by_consumer,
            set_cookie,
            tag_header,
            heed_requests,
            coalesce_ms,
            tell,
        }
    });
    (node, option::of(route))
}
