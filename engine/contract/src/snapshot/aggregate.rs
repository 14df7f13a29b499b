//! Routes that are answered by several calls together.

use super::{ProtoIndex, Retry, UpstreamIndex};

/// How a route's answer is made of the answers to calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// At least one. Their names are unique; their order decides between equal keys.
    pub calls: Vec<AggregateCall>,
    pub response: AggregateResponse,
    /// The whole, in milliseconds.
    pub deadline_ms: u32,
    /// Calls under way at once, of one request.
    pub concurrency: u16,
    /// The bodies of all answers of one request together, in bytes.
    pub max_bytes: u32,
    /// The answer lists the calls that failed.
    pub errors: bool,
    /// The answer says how long each call took (`Server-Timing`).
    pub server_timing: bool,
    /// Each call's answer is a line of its own, as it comes.
    pub stream: bool,
}

/// One of the calls. What is a template is one of the engine's language.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateCall {
    pub name: String,
    pub source: CallSource,
    /// Calls (by their place) that must have ended before, besides those that templates name.
    pub after: Vec<u32>,
    /// Template: the call is made where its value is true. `None`: always.
    pub when: Option<String>,
    pub mode: CallMode,
    /// `None`: once.
    pub repeat: Option<Repeat>,
    /// The part of the answer's body that counts, as a dotted path. Empty: all of it.
    pub unwrap: String,
    pub projection: Projection,
    /// The answer is there for other calls and templates only.
    pub hidden: bool,
    /// What it is called in a grouped answer. Empty: as the call.
    pub group: String,
}

/// Where a call's answer comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum CallSource {
    Http(Box<HttpCall>),
    /// JSON with templates.
    Static(String),
}

/// A request to an upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpCall {
    pub upstream: UpstreamIndex,
    /// Upper case.
    pub method: String,
    /// Template; without a query.
    pub path: String,
    /// Names, and templates of their values.
    pub query: Vec<(String, String)>,
    /// Lower-case names, and templates of their values.
    pub headers: Vec<(String, String)>,
    /// JSON with templates. `None`: no body.
    pub body: Option<String>,
    /// Of the client's request: fields (lower case), parameters and cookies that go on.
    pub forward_headers: Vec<String>,
    pub forward_query: Vec<String>,
    pub forward_cookies: Vec<String>,
    /// In milliseconds; 0: as long as the whole may take.
    pub timeout_ms: u32,
    /// `None`: the upstream's.
    pub retry: Option<Retry>,
    /// Statuses that are a success, both ends included.
    pub success: Vec<(u16, u16)>,
    /// Statuses that, where a required call is answered so, are the status of the whole.
    pub pass: Vec<u16>,
    /// Largest body of an answer, in bytes.
    pub max_bytes: u32,
    /// It is a call of gRPC: the body is its message. `None`: plain HTTP.
    pub grpc: Option<GrpcCall>,
}

/// A unary method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcCall {
    pub proto: ProtoIndex,
    /// `pkg.Service/Method`
    pub method: String,
}

/// What it means that a call fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallMode {
    /// The whole fails.
    Required,
    /// Its answer is missing.
    Optional,
    /// This JSON stands for its answer.
    Default(String),
}

/// A call that is made for each item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Template of the list.
    pub list: String,
    /// A dotted path in each of its items: the item is what stands there. Empty: the item itself.
    pub key: String,
    /// Most items.
    pub max_items: u32,
    /// Calls of it that are under way at once.
    pub concurrency: u16,
    /// `None`: one call for each item.
    pub batch: Option<Batch>,
}

/// One call for many items, answered by a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Most items of one call.
    pub size: u32,
    /// A dotted path in each element of the answer to what names its item.
    pub by: String,
}

/// What of a JSON value is kept. Paths are dotted and go through lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// Empty: all.
    pub allow: Vec<String>,
    /// Taken away from what is allowed.
    pub deny: Vec<String>,
}

/// What becomes of the calls' answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateResponse {
    pub status: u16,
    pub body: AggregateBody,
    /// In this order.
    pub join: Vec<Join>,
    pub projection: Projection,
    /// Lower-case names, and templates of their values.
    pub headers: Vec<(String, String)>,
}

/// How answers become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AggregateBody {
    /// Each under its own key.
    Group,
    /// Objects into one, and objects in them; the later call wins.
    Deep,
    /// Lists one after the other.
    Append,
    /// JSON with templates.
    Template(String),
}

/// Puts what calls have answered into the items of a list, by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Dotted path of the list in the body; also through lists.
    pub list: String,
    /// Dotted path, in its items, of the value that is looked for.
    pub key: String,
    /// The call (by its place) whose answer is searched.
    pub call: u32,
    /// Dotted path of the list in that answer. Empty: the answer is the list.
    pub from: String,
    /// Dotted path, in its elements, of the value that must be the same.
    pub by: String,
    /// Where, in the items, what is found goes.
    pub into: String,
    /// All that is found, as a list; otherwise the first.
    pub many: bool,
}
