//! How much callers may ask for.

use std::fmt;
use std::str::FromStr;

use contract::snapshot::{CalendarUnit, LimitSpan};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::schema;

/// A policy: limits on the same thing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::one_window)]
pub struct Limit {
    /// Unique. What was counted is found by it, and so survives other changes.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// Whose it is: who may change only some workspaces may change it when this is one of them.
    /// Without it: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub workspace: Option<String>,
    /// What requests are counted by, together; without it all are counted as one.
    #[serde(default)]
    pub by: Vec<LimitBy>,
    /// So many requests (or what they cost) in any time of a length; all must have room.
    #[serde(default)]
    pub windows: Vec<LimitWindow>,
    /// Most of the first window's requests at once: no more than these in the time in which so many
    /// come free. 20 of 100 per 1s: at most 20 in any 200 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub burst: Option<u64>,
    /// Most requests under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub concurrency: Option<u32>,
    /// Other limits for groups: the first whose group the caller is in. Each group has one.
    #[serde(default)]
    pub tiers: Vec<LimitTier>,
    /// What one request costs: a number, or what a field says.
    #[serde(default)]
    pub cost: LimitCost,
    /// strict asks Redis for every request, and is an error without `redis` in the spec; leased lets
    /// nodes lease from it, and without `redis` each node counts alone; local always counts each node
    /// alone.
    #[serde(default)]
    pub mode: LimitMode,
    /// While Redis cannot be asked: share goes by this node's part, deny refuses (503), open does not limit.
    #[serde(default)]
    pub on_store_failure: OnStoreFailure,
    /// Count and record what would be refused, and let it go on.
    #[serde(default)]
    pub dry_run: bool,
    /// It holds for every request that has a route, before the route's own.
    #[serde(default)]
    pub everywhere: bool,
    /// What clients are told.
    #[serde(default)]
    pub fields: LimitFields,
}

/// One window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitWindow {
    #[schemars(range(min = 1))]
    pub requests: u64,
    /// A time like 500ms, 1s, 10m, 1h or 7d, which slides: no more in any time of that length. Or minute,
    /// hour, day, week, month or year: from one turn of the calendar (UTC) to the next. So 1d is any 24
    /// hours, and day begins anew at midnight.
    #[schemars(with = "String")]
    pub per: Per,
}

/// The limits of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::one_window)]
pub struct LimitTier {
    #[schemars(with = "schema::Name")]
    pub group: String,
    #[serde(default)]
    pub windows: Vec<LimitWindow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub burst: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub concurrency: Option<u32>,
}

/// How much: what a policy and its tiers have in common.
#[derive(Clone, Copy, Debug)]
pub struct Quota<'a> {
    pub windows: &'a [LimitWindow],
    pub burst: Option<u64>,
    pub concurrency: Option<u32>,
}

impl Limit {
    pub fn quota(&self) -> Quota<'_> {
        let Limit { windows, burst, concurrency, .. } = self;
        Quota { windows, burst: *burst, concurrency: *concurrency }
    }
}

impl LimitTier {
    pub fn quota(&self) -> Quota<'_> {
        let LimitTier { windows, burst, concurrency, .. } = self;
        Quota { windows, burst: *burst, concurrency: *concurrency }
    }
}

impl Quota<'_> {
    /// The window that `burst` is: so many in the time in which so many of the first window's come
    /// free. `None` where it says nothing more than that window.
    pub fn burst_window(&self) -> Option<LimitWindow> {
        let (first, requests) = (self.windows.first()?, self.burst?);
        let LimitSpan::Sliding(ms) = first.per.0 else { return None };
        if requests >= first.requests {
            return None;
        }
        let part = u128::from(ms) * u128::from(requests) / u128::from(first.requests);
        let ms = u64::try_from(part).unwrap_or(ms);
        Some(LimitWindow { requests, per: Per(LimitSpan::Sliding(ms)) })
    }
}

/// What requests are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LimitBy {
    /// Who calls; where nobody is known, the client's address.
    Consumer,
    /// The credential; where there is none, as consumer.
    Credential,
    /// All of a group together: the one of the tier, else the caller's first.
    Group,
    Route,
    /// The client's network.
    Address {
        /// Bits of IPv4 addresses that count.
        #[serde(default = "v4")]
        #[schemars(range(max = 32))]
        v4: u8,
        /// Bits of IPv6 addresses that count.
        #[serde(default = "v6")]
        #[schemars(range(max = 128))]
        v6: u8,
    },
    /// A field's value.
    Header(#[schemars(with = "schema::Name")] String),
    /// What a template like /users/{id}/* captures; other paths are not limited.
    Path(String),
}

impl fmt::Display for LimitBy {
    /// For people, in the words of the spec.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitBy::Consumer => f.write_str("consumer"),
            LimitBy::Credential => f.write_str("credential"),
            LimitBy::Group => f.write_str("group"),
            LimitBy::Route => f.write_str("route"),
            LimitBy::Address { v4: V4, v6: V6 } => f.write_str("address"),
            LimitBy::Address { v4, v6 } => write!(f, "address /{v4} or /{v6}"),
            LimitBy::Header(name) => write!(f, "header {name}"),
            LimitBy::Path(template) => write!(f, "path {template}"),
        }
    }
}

pub const V4: u8 = 32;
pub const V6: u8 = 64;

fn v4() -> u8 {
    V4
}

fn v6() -> u8 {
    V6
}

/// What one request costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum LimitCost {
    Fixed(#[schemars(range(min = 1))] u32),
    /// A field of the request says it.
    RequestHeader {
        header: String,
        /// Where it is no number above 0.
        #[serde(default = "one")]
        #[schemars(range(min = 1))]
        default: u32,
        /// More is taken for this. One that costs more than a limit would never pass.
        #[schemars(range(min = 1))]
        max: u32,
    },
    /// A field of the answer says it; until then `reserve` is taken. What an answer costs beyond it
    /// counts all the same, even past the limit.
    ResponseHeader {
        response_header: String,
        /// At least 1: what reserves nothing would be let in however much is used up.
        #[serde(default = "one")]
        #[schemars(range(min = 1))]
        reserve: u32,
        /// More is taken for this.
        #[schemars(range(min = 1))]
        max: u32,
    },
}

fn one() -> u32 {
    1
}

impl fmt::Display for LimitCost {
    /// For people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitCost::Fixed(cost) => write!(f, "{cost}"),
            LimitCost::RequestHeader { header, max, .. } => {
                write!(f, "{header} of the request, up to {max}")
            }
            LimitCost::ResponseHeader { response_header, max, .. } => {
                write!(f, "{response_header} of the answer, up to {max}")
            }
        }
    }
}

impl Default for LimitCost {
    fn default() -> LimitCost {
        LimitCost::Fixed(1)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitMode {
    Strict,
    #[default]
    Leased,
    Local,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreFailure {
    #[default]
    Share,
    Deny,
    Open,
}

/// What clients are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitFields {
    /// RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers).
    pub standard: bool,
    /// X-RateLimit-Limit, -Remaining and -Reset.
    pub legacy: bool,
}

impl Default for LimitFields {
    fn default() -> LimitFields {
        LimitFields { standard: true, legacy: false }
    }
}

/// The length of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Per(pub LimitSpan);

const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const WORDS: [(&str, CalendarUnit); 6] = [
    ("minute", CalendarUnit::Minute),
    ("hour", CalendarUnit::Hour),
    ("day", CalendarUnit::Day),
    ("week", CalendarUnit::Week),
    ("month", CalendarUnit::Month),
    ("year", CalendarUnit::Year),
];

impl Per {
    /// Its shortest length, in milliseconds.
    pub fn least_ms(self) -> u64 {
        let days = match self.0 {
            LimitSpan::Sliding(ms) => return ms,
            LimitSpan::Calendar(CalendarUnit::Minute) => return 60_000,
            LimitSpan::Calendar(CalendarUnit::Hour) => return 3_600_000,
            LimitSpan::Calendar(CalendarUnit::Day) => 1,
            LimitSpan::Calendar(CalendarUnit::Week) => 7,
            LimitSpan::Calendar(CalendarUnit::Month) => 28,
            LimitSpan::Calendar(CalendarUnit::Year) => 365,
        };
        days * 86_400_000
    }
}

impl FromStr for Per {
    type Err = String;

    fn from_str(text: &str) -> Result<Per, String> {
        if let Some((_, unit)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(Per(LimitSpan::Calendar(*unit)));
        }
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = UNITS.iter().find(|(unit, _)| *unit == &text[digits.len()..]);
        let ms = digits.parse::<u64>().ok().zip(unit).and_then(|(n, (_, ms))| n.checked_mul(*ms));
        match ms {
            Some(ms @ 10..=2_678_400_000) => Ok(Per(LimitSpan::Sliding(ms))),
            Some(_) => Err(format!("{text} is out of range; expected 10ms to 31d")),
            None => Err(format!(
                "`{text}` is no length of a window; expected one like 1s, 500ms, 10m, 1h or 7d, or a \
                 calendar's minute, hour, day, week, month or year"
            )),
        }
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            LimitSpan::Calendar(unit) => {
                let word = WORDS.iter().find(|(_, have)| *have == unit);
                f.write_str(word.map_or("", |(word, _)| word))
            }
            LimitSpan::Sliding(ms) => {
                let largest = UNITS.iter().find(|(_, unit)| ms.is_multiple_of(*unit));
                let (word, unit) = largest.unwrap_or(&("ms", 1));
                write!(f, "{}{word}", ms / unit)
            }
        }
    }
}

impl TryFrom<String> for Per {
    type Error = String;

    fn try_from(text: String) -> Result<Per, String> {
        text.parse()
    }
}

impl From<Per> for String {
    fn from(per: Per) -> String {
        per.to_string()
    }
}
