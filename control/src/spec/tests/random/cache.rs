//! What routes keep.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::texts;
use crate::spec::*;

pub fn route_cache() -> BoxedStrategy<RouteCache> {
    let names = || subsequence(texts(&["a", "1", "x-y"]), 0..3);
    let query = prop_oneof![
        Just(QueryKey::All),
        names().prop_map(QueryKey::Only),
        names().prop_map(QueryKey::Except),
    ];
    let set_cookie = select(vec![SetCookie::Refuse, SetCookie::Strip, SetCookie::Store]);
    let times = (0..1u64 << 34, 0..1u64 << 34, 0..1u64 << 34, 0..=100u8, 0..=60_000u32);
    let statuses = subsequence(vec![200u16, 404, 599], 0..3);
    let tag_header = select(texts(&["cache-tag", "x-1"]));
    let parts = (query, names(), set_cookie, statuses, tag_header);
    (times, parts, any::<[bool; 3]>())
        .prop_map(|(times, parts, flags)| {
            let (
                ttl_ms,
                stale_while_revalidate_ms,
                stale_if_error_ms,
                heuristic_percent,
                coalesce_ms,
            ) = times;
            let (query, headers, set_cookie, statuses, tag_header) = parts;
            let [consumer, ignore_request_cache_control, cache_status] = flags;
            RouteCache {
                ttl_ms,
                heuristic_percent,
                statuses,
                stale_while_revalidate_ms,
                stale_if_error_ms,
                key: CacheKey { query, headers, consumer },
                set_cookie,
                tag_header,
                ignore_request_cache_control,
                coalesce_ms,
                cache_status,
            }
        })
        .boxed()
}
