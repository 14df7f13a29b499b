//! How much callers may ask for: policies of limits, and where they hold.

/// Index into [`Limits::policies`].
pub type LimitIndex = u32;

/// All limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    pub policies: Vec<LimitPolicy>,
    /// Hold for every request that has a route, before the route's own.
    pub everywhere: Vec<LimitIndex>,
}

/// One policy: several limits on the same thing.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitPolicy {
    /// Unique; buckets are found by it, so that they survive other changes of the configuration.
    pub name: String,
    /// Whom and what requests are counted by, together. Empty: all are counted as one.
    pub by: Vec<LimitScope>,
    /// All must have room. Those of a tier replace them.
    pub quota: LimitQuota,
    /// The first whose group the caller is in goes before `quota`.
    pub tiers: Vec<LimitTier>,
    pub cost: LimitCost,
    pub mode: LimitMode,
    pub on_store_failure: OnStoreFailure,
    /// Refusals are counted and recorded, and the request goes on.
    pub dry_run: bool,
    pub fields: LimitFields,
}

/// How much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitQuota {
    /// `burst` has become a window of its own here. The first one is what clients are told of.
    pub windows: Vec<LimitWindow>,
    /// Most requests under way at once.
    pub concurrency: Option<u32>,
}

/// So many in any time of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitWindow {
    /// At least 1.
    pub limit: u64,
    pub span: LimitSpan,
}

/// How long a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitSpan {
    /// Any time of so many milliseconds: 10 ms up to 31 days.
    Sliding(u64),
    /// From one turn of the calendar (UTC) to the next.
    Calendar(CalendarUnit),
}

/// A unit of the calendar, in UTC. Weeks begin on Monday (ISO 8601).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CalendarUnit {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// Another quota for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitTier {
    pub group: String,
    pub quota: LimitQuota,
}

/// What requests are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitScope {
    /// Who calls. Where nobody is known, the client's address.
    Consumer,
    /// The credential's name. Where there is none, as `Consumer`.
    Credential,
    /// The group by which the tier was chosen, else the caller's first: all of a group share the limit.
    Group,
    /// The client's network: prefix lengths of IPv4 and IPv6.
    Address {
        v4: u8,
        v6: u8,
    },
    /// A field's value, without case in its name. Absent counts as empty.
    Header(String),
    /// What a template such as `/users/{id}/*` captures. Paths that do not match are not limited.
    Path(String),
    Route,
}

/// What one request costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitCost {
    Fixed(u32),
    /// The value of the request's field, from 1 to `most`; `default` where it is no such number.
    RequestHeader {
        name: String,
        default: u32,
        most: u32,
    },
    /// `reserve`, at least 1, until the answer says it in this field, from 0 to `most`; what it does not
    /// say is `reserve`. The field is not passed on.
    ResponseHeader {
        name: String,
        reserve: u32,
        most: u32,
    },
}

/// How sure, at what price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LimitMode {
    /// Redis decides on every request.
    Strict,
    /// Redis leases tokens to nodes.
    #[default]
    Leased,
    /// This node alone.
    Local,
}

/// What holds while Redis cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnStoreFailure {
    /// This node's part of the limit.
    #[default]
    Share,
    /// Requests are refused (503).
    Deny,
    /// Requests are not limited.
    Open,
}

/// What clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitFields {
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
    pub standard: bool,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    pub legacy: bool,
}

impl Default for LimitFields {
    fn default() -> LimitFields {
        LimitFields { standard: true, legacy: false }
    }
}
