//! Routes that are answered by several calls together.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::resilience::{OrNone, Retry};
use super::upstream::StatusRange;
use crate::spec::schema;

/// How long an aggregate may take when it does not say it.
pub const DEFAULT_AGGREGATE_MS: u32 = 10_000;
/// What all answers of one request may take together when it does not say it: 8 MiB.
pub const DEFAULT_AGGREGATE_BYTES: u64 = 8 * 1024 * 1024;
/// Largest answer of one call when it does not say it: 2 MiB.
pub const DEFAULT_CALL_BYTES: u64 = 2 * 1024 * 1024;
/// Calls of one request at once when it does not say it.
pub const DEFAULT_CALLS_AT_ONCE: u16 = 16;
/// Items that a call is made for when it does not say it.
pub const DEFAULT_ITEMS: u32 = 100;

/// An answer made of the answers to several calls. They are made at once, but for those that need what
/// another one was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// The calls. Where their answers have the same key, the later one in this list wins, however long
    /// each of them took.
    #[schemars(length(min = 1, max = 64))]
    pub calls: Vec<AggregateCall>,
    /// What is made of the answers. Without it: an object with each of them under its call's name.
    #[serde(default)]
    pub response: AggregateResponse,
    /// Longest that the whole may take, in milliseconds; past it 504, or what is there if all required
    /// calls are answered.
    #[serde(default = "default_deadline_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub deadline_ms: u32,
    /// Calls that are under way at once, of one request.
    #[serde(default = "default_calls_at_once")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u16,
    /// What the bodies of all answers of one request may take together, in bytes or as "8MiB"; a call
    /// that goes past it fails.
    #[serde(default = "default_aggregate_bytes")]
    #[schemars(with = "schema::SizeForm")]
    pub max_bytes: u64,
    /// true: `errors` in the answer lists the calls that failed: {call, status, reason}.
    #[serde(default)]
    pub errors: bool,
    /// true: Server-Timing says how long each call took.
    #[serde(default)]
    pub server_timing: bool,
    /// true: the answer is NDJSON, a line {call, status, body} for each call as it is answered, and a last
    /// one {complete, errors}.
    #[serde(default)]
    pub stream: bool,
}

fn default_deadline_ms() -> u32 {
    DEFAULT_AGGREGATE_MS
}

fn default_calls_at_once() -> u16 {
    DEFAULT_CALLS_AT_ONCE
}

fn default_aggregate_bytes() -> u64 {
    DEFAULT_AGGREGATE_BYTES
}

/// One call. It has either `upstream` or `static`. It waits for the calls that its templates name
/// (`${call.NAME.body.x}`) and for those in `after`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AggregateCall {
    /// Unique among the calls: letters, digits and _.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"))]
    pub name: String,
    /// Name of the upstream that is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The call is one of gRPC: `body` is its message, in JSON. Then there is no method, path or query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCall>,
    /// The answer itself: JSON with templates in its texts.
    #[serde(rename = "static", default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Value>,
    /// The method. Without it: GET, or POST with a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path, with templates. A value that is missing there, or null, fails the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The query: values with templates. What is missing or null is left out; a list is a parameter
    /// for each of its items.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// Header fields: values with templates. What is missing or null is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body: JSON with templates in its texts. A text that is one template keeps its value's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Header fields of the client's request that go on. No others do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forward_headers: Vec<String>,
    /// Query parameters of the client's request that go on. No others do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forward_query: Vec<String>,
    /// Cookies of the client's request that go on. No others do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forward_cookies: Vec<String>,
    /// Calls that must have ended before, besides those that templates name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// A template: the call is made only where its value is there and is not null, false, 0 or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What it means that the call fails.
    #[serde(default)]
    pub mode: CallMode,
    /// Longest that the call may take, tries included, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub timeout_ms: Option<u32>,
    /// Which failed tries are made again; without it the upstream's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<OrNone<Retry>>")]
    pub retry: Option<Retry>,
    /// Statuses that are a success, as 404 or "200-299". Any other fails the call.
    #[serde(default = "default_success")]
    pub success: Vec<StatusRange>,
    /// Statuses that are the status of the whole when this call is required and is answered so. With any
    /// other failure the whole is 502, or 504 for a time-out.
    #[serde(default = "default_pass")]
    pub pass: Vec<u16>,
    /// Largest body of its answer, in bytes or as "2MiB"; past it the call fails.
    #[serde(default = "default_call_bytes")]
    #[schemars(with = "schema::SizeForm")]
    pub max_bytes: u64,
    /// Make the call for each item of a list. Its answer is the list of the answers, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreach: Option<Foreach>,
    /// Make one call for many items of a list. Its answer is the list of what was found for each of them,
    /// in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchCall>,
    /// The part of the answer's body that counts, as a path such as data.items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwrap: Option<String>,
    /// What of the answer gets into the response: paths such as id or owner.name, which go through
    /// lists. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// What of the answer does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// true: the answer is there for other calls, joins and templates, and not part of the response.
    #[serde(default)]
    pub hidden: bool,
    /// Its key in a grouped response. Without it: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// A unary method of gRPC. Its status counts as the HTTP status that it maps to: NOT_FOUND is 404.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcCall {
    /// Name of the set of descriptors (`protos`).
    pub proto: String,
    /// Service and method, such as shop.v1.Stock/Get.
    pub method: String,
}

pub(crate) fn default_success() -> Vec<StatusRange> {
    vec![StatusRange { first: 200, last: 299 }]
}

pub(crate) fn default_pass() -> Vec<u16> {
    vec![404, 409, 410]
}

fn default_call_bytes() -> u64 {
    DEFAULT_CALL_BYTES
}

/// What it means that a call fails.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallMode {
    /// The whole fails.
    #[default]
    Required,
    /// Its answer is missing, and the response says that it is not complete.
    Optional,
    /// This JSON stands for its answer, and the response says that it is not complete.
    Default(Value),
}

/// A call for each item of a list. Its templates have `item` and `index`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Foreach {
    /// A template whose value is the list, such as ${call.cart.body.items}. Missing or null is as empty.
    #[serde(rename = "in")]
    pub list: String,
    /// Path in each of its items: the item is what stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Calls of it that are under way at once.
    #[serde(default = "default_calls_at_once")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u16,
    /// Longest list; a longer one fails the call.
    #[serde(default = "default_items")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_items: u32,
}

fn default_items() -> u32 {
    DEFAULT_ITEMS
}

/// One call for many items. Its templates have `item`, the list of the items of one call, none of them
/// twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchCall {
    /// A template whose value is the list, such as ${call.orders.body}. Missing or null is as empty.
    #[serde(rename = "in")]
    pub list: String,
    /// Path in each of its items: the item is what stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Path, in the elements of the answer, of the value that is the item.
    pub by: String,
    /// Most items of one call; with more there are more calls.
    #[serde(default = "default_items")]
    #[schemars(range(min = 1, max = 10_000))]
    pub size: u32,
    /// Calls of it that are under way at once.
    #[serde(default = "default_calls_at_once")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u16,
    /// Longest list; a longer one fails the call.
    #[serde(default = "default_items")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_items: u32,
}

/// What is made of the answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AggregateResponse {
    /// The status where every required call is answered.
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// How the answers become one; not with body.
    pub merge: Merge,
    /// The body: JSON with templates in its texts, such as ${call.user.body.name}.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Puts answers into the items of a list, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub join: Vec<Join>,
    /// What of it is sent: paths such as id or owner.name, which go through lists. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// What of it is not sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Header fields: values with templates. What is missing or null is left out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl Default for AggregateResponse {
    fn default() -> Self {
        AggregateResponse {
            status: 200,
            merge: Merge::default(),
            body: None,
            join: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            headers: BTreeMap::new(),
        }
    }
}

/// How answers become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// An object with each of them under its call's name, or group.
    #[default]
    Group,
    /// One object: the keys of all of them, and so for objects in them. Where two have the same key, the
    /// later call wins. What is no object stands under its call's name.
    Deep,
    /// One list: the items of all lists, and what is no list as an item.
    Append,
}

/// Puts what a call was answered into the items of a list, by a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// Path of the list in the response, such as orders or orders.items; empty: the response is the list.
    #[serde(default)]
    pub list: String,
    /// Path, in its items, of the value that is looked for.
    pub key: String,
    /// The call whose answer is searched.
    pub call: String,
    /// Path of the list in that answer; empty: the answer is the list.
    #[serde(default)]
    pub from: String,
    /// Path, in its elements, of the value that must be the same. A number and its text are the same.
    pub by: String,
    /// Path, in the items, where what is found goes. What is not found leaves null, or an empty list.
    pub into: String,
    /// true: all that is found, as a list; false: the first.
    #[serde(default)]
    pub many: bool,
}
