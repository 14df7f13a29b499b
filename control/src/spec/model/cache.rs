//! What is kept of answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::schema;

/// The response cache of a node: what all of its routes with a `cache` share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// All that is kept, in memory: bodies, heads, keys, and about 1 KiB for each answer. In bytes or as
    /// "64MiB"; 0: nothing.
    #[schemars(with = "schema::SizeForm")]
    pub max_bytes: u64,
    /// Largest body that is kept; at most a quarter of `max_bytes`.
    #[schemars(with = "schema::SizeForm")]
    pub max_object_bytes: u64,
}

impl Default for Cache {
    fn default() -> Cache {
        let cache = contract::snapshot::Cache::default();
        Cache { max_bytes: cache.max_bytes, max_object_bytes: cache.max_object_bytes }
    }
}

/// What is kept of a route's answers (RFC 9111, as a shared cache), and for whom. An answer to a caller
/// with credentials is given to others only if it says public or s-maxage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteCache {
    /// How long answers are good that do not say it themselves, in milliseconds; 0: those are not kept.
    #[schemars(range(max = 31_536_000_000u64))]
    pub ttl_ms: u64,
    /// Or this share of the time since their Last-Modified, in percent, up to a day (RFC 9111 §4.2.2).
    #[schemars(range(max = 100))]
    pub heuristic_percent: u8,
    /// Keep only answers with these. Empty: with any that may be kept.
    pub statuses: Vec<u16>,
    /// How long past its lifetime an answer is used while it is asked about (RFC 5861), unless it says so
    /// itself.
    #[schemars(range(max = 31_536_000_000u64))]
    pub stale_while_revalidate_ms: u64,
    /// How long past its lifetime an answer is used where the upstream fails (RFC 5861), unless it says
    /// so itself.
    #[schemars(range(max = 31_536_000_000u64))]
    pub stale_if_error_ms: u64,
    /// What tells answers apart, beside route, scheme, host, path, and the fields that Vary names.
    pub key: CacheKey,
    /// What becomes of answers with Set-Cookie, which may be meant for one client.
    pub set_cookie: SetCookie,
    /// Field of answers with the tags that they can be purged by, separated by spaces or commas.
    pub tag_header: String,
    /// Take no notice of Cache-Control in requests, by which clients can have the upstream asked.
    pub ignore_request_cache_control: bool,
    /// How long requests wait for the answer to an earlier one for the same, in milliseconds; 0: not at
    /// all.
    #[schemars(range(max = 60_000))]
    pub coalesce_ms: u32,
    /// Say in Cache-Status (RFC 9211) what the cache did.
    pub cache_status: bool,
}

impl Default for RouteCache {
    fn default() -> RouteCache {
        let cache = contract::snapshot::RouteCache::default();
        RouteCache {
            ttl_ms: cache.ttl_ms,
            heuristic_percent: cache.heuristic_percent,
            statuses: cache.statuses,
            stale_while_revalidate_ms: cache.stale_while_revalidate_ms,
            stale_if_error_ms: cache.stale_if_error_ms,
            key: CacheKey::default(),
            set_cookie: SetCookie::Refuse,
            tag_header: cache.tag_header,
            ignore_request_cache_control: !cache.heed_requests,
            coalesce_ms: cache.coalesce_ms,
            cache_status: cache.tell,
        }
    }
}

/// What tells the answers of a route apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheKey {
    /// Which parameters of the query: all, {only: […]} or {except: […]}.
    pub query: QueryKey,
    /// Header fields of requests, beside those that Vary names.
    pub headers: Vec<String>,
    /// Who calls: each consumer has answers of its own, also those that do not say public.
    pub consumer: bool,
}

/// Which parameters of a query tell answers apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryKey {
    #[default]
    All,
    /// These alone.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

/// What becomes of answers with Set-Cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SetCookie {
    /// They are not kept.
    #[default]
    Refuse,
    /// They are kept without it.
    Strip,
    /// They are kept with it: all clients get the same cookies.
    Store,
}
