//! What is kept of answers: by the node, and for a route.

/// The cache of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// All that it keeps: bodies, heads, keys and what each answer costs beside. 0: nothing.
    pub max_bytes: u64,
    /// Largest answer that is kept, in bytes of its body.
    pub max_object_bytes: u64,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache { max_bytes: 64 * 1024 * 1024, max_object_bytes: 1024 * 1024 }
    }
}

/// What is kept of a route's answers, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCache {
    /// How long answers are good that do not say it, in milliseconds; 0: those are not kept.
    pub ttl_ms: u64,
    /// Share of the time since its `Last-Modified` that an answer is good for that says no more; 0: none.
    pub heuristic_percent: u8,
    /// Only answers with these are kept. Empty: with any that may be (RFC 9111 §3).
    pub statuses: Vec<u16>,
    /// How long past its lifetime an answer is used while it is asked about, and where that fails, unless
    /// it says so itself.
    pub stale_while_revalidate_ms: u64,
    pub stale_if_error_ms: u64,
    /// Which parameters of the query tell answers apart.
    pub query: CacheQuery,
    /// Fields of requests that tell answers apart, beside those that `Vary` names; lower case.
    pub headers: Vec<String>,
    /// Each caller has answers of its own.
    pub by_consumer: bool,
    pub set_cookie: CacheCookies,
    /// The field of answers with the tags that they are purged by, lower case.
    pub tag_header: String,
    /// Do what `Cache-Control` of requests says.
    pub heed_requests: bool,
    /// How long requests wait for the answer to one that asked for the same, in milliseconds; 0: they
    /// do not.
    pub coalesce_ms: u32,
    /// Tell of it in `Cache-Status` (RFC 9211).
    pub tell: bool,
}

impl Default for RouteCache {
    fn default() -> RouteCache {
        RouteCache {
            ttl_ms: 0,
            heuristic_percent: 0,
            statuses: Vec::new(),
            stale_while_revalidate_ms: 0,
            stale_if_error_ms: 0,
            query: CacheQuery::All,
            headers: Vec::new(),
            by_consumer: false,
            set_cookie: CacheCookies::Refuse,
            tag_header: "surrogate-key".into(),
            heed_requests: true,
            coalesce_ms: 5_000,
            tell: true,
        }
    }
}

/// Which parameters of a query tell answers apart. Names are compared percent-decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CacheQuery {
    #[default]
    All,
    Only(Vec<String>),
    Except(Vec<String>),
}

/// What becomes of answers with `Set-Cookie`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheCookies {
    /// They are not kept.
    #[default]
    Refuse,
    /// They are kept without it.
    Strip,
    /// They are kept with it: every client gets the same cookies.
    Store,
}
