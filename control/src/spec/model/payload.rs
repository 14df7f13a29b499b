//! What routes change of bodies.

use std::collections::BTreeMap;

use contract::snapshot::ContentCoding;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::StatusRange;
use crate::spec::schema;

/// Largest body that a rule changes when it does not say it: 1 MiB.
pub const DEFAULT_CHANGED_BYTES: u64 = 1024 * 1024;
/// How long a jq program may run when a rule does not say it, in milliseconds.
pub const DEFAULT_JQ_MS: u32 = 1_000;
/// Smallest body that is compressed when a route does not say it.
pub const DEFAULT_COMPRESSED_BYTES: u32 = 1024;

/// What is changed of request bodies: the first rule whose content type fits.
pub type RequestBody = Vec<BodyRule>;
/// What is changed of the bodies of answers: the first rule whose status and content type fit.
pub type ResponseBody = Vec<BodyRule>;

/// One rule, or several.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "read by the walk; this is its schema")]
pub enum RulesForm {
    One(BodyRule),
    Several(#[schemars(length(max = 32))] Vec<BodyRule>),
}

/// What is done with bodies of some kind. All others stay as they are, and so do the calls of gRPC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BodyRule {
    /// Of answers only: statuses, such as 200 or "200-299". Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<StatusRange>,
    /// Media types: application/json, ranges (text/*, */*), *+json for any kind of JSON, *+xml. Empty: what
    /// `from` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_types: Vec<String>,
    /// What the body is.
    #[serde(default)]
    pub from: BodyForm,
    /// What becomes of it: json or form. Without it: the same, and of xml json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<BodyForm>,
    /// Of requests: decode bodies with a Content-Encoding of gzip, deflate, br or zstd; without it they get
    /// 415. Answers are always decoded.
    #[serde(default, skip_serializing_if = "is_false")]
    pub decode: bool,
    /// Largest body, decoded, in bytes or as "1MiB"; of ndjson and sse the largest record. Past it 413, for
    /// answers 502.
    #[serde(default = "changed_bytes")]
    #[schemars(with = "schema::SizeForm")]
    pub max_bytes: u64,
    /// What is done with what cannot be read as `from` says.
    #[serde(default)]
    pub unreadable: Unreadable,
    /// Of XML: elements that are arrays even where there is one of them, as dotted paths (order.item).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arrays: Vec<String>,
    /// Longest that a jq program may run, in milliseconds; past it 500, for answers 502.
    #[serde(default = "jq_ms")]
    #[schemars(range(min = 1, max = 30_000))]
    pub jq_timeout_ms: u32,
    /// What is done, one after the other. Where the place of an operation is not there, it does nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub steps: Vec<BodyStep>,
}

impl Default for BodyRule {
    fn default() -> BodyRule {
        BodyRule {
            statuses: Vec::new(),
            content_types: Vec::new(),
            from: BodyForm::default(),
            to: None,
            decode: false,
            max_bytes: DEFAULT_CHANGED_BYTES,
            unreadable: Unreadable::default(),
            arrays: Vec::new(),
            jq_timeout_ms: DEFAULT_JQ_MS,
            steps: Vec::new(),
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn changed_bytes() -> u64 {
    DEFAULT_CHANGED_BYTES
}

fn jq_ms() -> u32 {
    DEFAULT_JQ_MS
}

/// What a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyForm {
    #[default]
    Json,
    /// application/x-www-form-urlencoded: an object of strings; a name that is there more than once is an
    /// array.
    Form,
    /// Read only. Attributes are @name, text beside other things is #text, elements of one name are an
    /// array. Document types are refused.
    Xml,
    /// A JSON value on each line, changed while it streams.
    Ndjson,
    /// Server-sent events with JSON as data, changed while they stream.
    Sse,
}

/// What is done with bodies that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unreadable {
    /// 400, for answers 502.
    #[default]
    Refuse,
    /// They go on as they are.
    Pass,
}

/// One operation. Places are JSON Pointers (/user/name), in which * is every item of an array and every
/// member of an object. Values may hold templates: "${body.a.b}" and the rest of ${...} become what they
/// stand for, with its type; a member whose value is missing is left out. Members that a value brings stand in
/// the order of their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyStep {
    /// Put a value: in place of a member, before an item, or with - behind the last one. Objects that are
    /// missing on the way are made.
    Add(PlacedValue),
    /// Put a value in place of one that is there.
    Replace(PlacedValue),
    /// Take what is there away.
    Remove(String),
    /// Take a value from one place to another; up to the last * both are the same.
    Move(FromTo),
    /// The same, and leave it where it was, too.
    Copy(FromTo),
    /// Give a member another name.
    Rename(NewName),
    /// Keep these and nothing else. Dotted paths, which go through arrays (items.price); * is any member.
    Allow(Vec<String>),
    /// Take these away. Dotted paths as for allow.
    Deny(Vec<String>),
    /// Make the body the only member of an object.
    Wrap(String),
    /// Put what is there in place of the whole body.
    Unwrap(String),
    /// Add members that are not there, in objects in objects, too.
    Defaults(Map<String, Value>),
    /// Put this in place of the whole body.
    Template(Value),
    /// Run a jq program, which gives one value. It sees its input and nothing else, and runs in a process of
    /// its own with a bound on memory and time.
    Jq(String),
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacedValue {
    pub at: String,
    pub value: Value,
}

/// Two places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromTo {
    pub from: String,
    pub to: String,
}

/// A member and its new name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewName {
    pub at: String,
    pub name: String,
}

/// How answers are compressed, where a client takes that (RFC 9110 §12.5.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Compress {
    /// Codings; of those that a client likes equally well the first is taken.
    #[schemars(length(min = 1, max = 4))]
    pub codings: Vec<CodingName>,
    /// How hard they try: gzip and deflate 1 to 9, br 0 to 6, zstd 1 to 9.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: BTreeMap<CodingName, u8>,
    /// Smallest body, in bytes or as "1KiB".
    #[schemars(with = "schema::SizeForm")]
    pub min_bytes: u32,
    /// Media types, as in the rules for bodies.
    #[schemars(length(min = 1))]
    pub content_types: Vec<String>,
}

impl Default for Compress {
    fn default() -> Compress {
        const TYPES: [&str; 10] = [
            "text/*",
            "*+json",
            "*+xml",
            "application/javascript",
            "application/x-javascript",
            "application/x-ndjson",
            "application/wasm",
            "application/vnd.ms-fontobject",
            "font/otf",
            "font/ttf",
        ];
        Compress {
            codings: vec![CodingName::Zstd, CodingName::Br, CodingName::Gzip],
            levels: BTreeMap::new(),
            min_bytes: DEFAULT_COMPRESSED_BYTES,
            content_types: TYPES.map(String::from).into(),
        }
    }
}

/// `true` for all defaults, or what differs from them.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "read by the walk; this is its schema")]
pub enum CompressForm {
    Flag(bool),
    Settings(Compress),
}

/// A content coding.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CodingName {
    Gzip,
    Deflate,
    Br,
    Zstd,
}

impl CodingName {
    pub fn coding(self) -> ContentCoding {
        match self {
            CodingName::Gzip => ContentCoding::Gzip,
            CodingName::Deflate => ContentCoding::Deflate,
            CodingName::Br => ContentCoding::Brotli,
            CodingName::Zstd => ContentCoding::Zstd,
        }
    }
}
