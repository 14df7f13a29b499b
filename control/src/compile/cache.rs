//! What is kept of answers.

use contract::snapshot as flat;

use crate::spec::{Cache, QueryKey, RouteCache, SetCookie};

pub fn cache(cache: &Cache) -> flat::Cache {
    flat::Cache { max_bytes: cache.max_bytes, max_object_bytes: cache.max_object_bytes }
}

pub fn route(cache: &RouteCache) -> flat::RouteCache {
    flat::RouteCache {
        ttl_ms: cache.ttl_ms,
        heuristic_percent: cache.heuristic_percent,
        statuses: cache.statuses.clone(),
        stale_while_revalidate_ms: cache.stale_while_revalidate_ms,
        stale_if_error_ms: cache.stale_if_error_ms,
        query: match &cache.key.query {
            QueryKey::All => flat::CacheQuery::All,
            QueryKey::Only(names) => flat::CacheQuery::Only(names.clone()),
            QueryKey::Except(names) => flat::CacheQuery::Except(names.clone()),
        },
        headers: cache.key.headers.clone(),
        by_consumer: cache.key.consumer,
        set_cookie: match cache.set_cookie {
            SetCookie::Refuse => flat::CacheCookies::Refuse,
            SetCookie::Strip => flat::CacheCookies::Strip,
            SetCookie::Store => flat::CacheCookies::Store,
        },
        tag_header: cache.tag_header.clone(),
        heed_requests: !cache.ignore_request_cache_control,
        coalesce_ms: cache.coalesce_ms,
        tell: cache.cache_status,
    }
}
