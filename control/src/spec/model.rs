//! The types of the spec. Defaults are filled in when it is loaded, so a [`Spec`] says all of it.
//!
//! Its JSON is canonical: one spelling per meaning, short forms written out. That is what control
//! stores, compares and prints; [`super::load`] reads it back to an equal value.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::list::List;
use super::scalars::{Cidr, TargetHost};
use super::schema;
pub use access::*;
pub use admin::*;
pub use aggregate::*;
pub use authenticators::*;
pub use cache::*;
pub use consumers::*;
pub use graphql::*;
pub use limits::*;
pub use oauth::*;
pub use payload::*;
pub use processor::*;
pub use resilience::*;
pub use shape::*;
pub use tls::*;
pub use tokens::*;
pub use transcode::*;
pub use upstream::*;
pub use validate::*;

mod access;
mod admin;
mod aggregate;
mod authenticators;
mod cache;
mod consumers;
mod graphql;
mod limits;
mod oauth;
mod payload;
mod processor;
mod resilience;
mod shape;
mod tls;
mod tokens;
mod transcode;
mod upstream;
mod validate;

/// The only version of the format there is.
pub const VERSION: u32 = 1;
/// What `max_body_bytes` is when a route does not say it: 10 MiB.
pub const DEFAULT_MAX_BODY_BYTES: u64 = 10 * 1024 * 1024;
/// Where the admin listener is when the spec does not say it.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// The configuration of a Sluice gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// Settings of the node as a whole.
    #[serde(default)]
    pub node: Node,
    /// Where control serves /metrics, /healthz, /readyz and its API.
    #[serde(default)]
    pub admin: Admin,
    /// Where the access log goes.
    #[serde(default)]
    pub access_log: AccessLog,
    /// Redis, where API keys may be, and limits are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// What concerns all of authentication.
    #[serde(default)]
    pub auth: AuthSettings,
    /// Ways to prove who one is, which routes choose from.
    #[serde(default)]
    pub authenticators: Vec<Authenticator>,
    /// What consumers have in common.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Who calls.
    #[serde(default)]
    pub consumers: List<Consumer>,
    /// How much callers may ask for; routes, consumers, groups and keys name these.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// What all routes with a `cache` keep together.
    #[serde(default)]
    pub cache: Cache,
    /// APIs that documents describe; routes name these to have requests validated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apis: Vec<ApiDocument>,
    /// Descriptors of gRPC services; routes name these to have requests transcoded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protos: Vec<ProtoSource>,
    /// Addresses the gateway listens on.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Listener>,
    /// Clusters of interchangeable targets that routes send requests to.
    #[serde(default)]
    pub upstreams: List<Upstream>,
    /// Which requests go where: the best host, then the best path, then more conditions before
    /// fewer, then the order here.
    #[serde(default)]
    pub routes: List<Route>,
}

impl Spec {
    /// Names of targets that are no addresses and need DNS, lower case.
    pub fn host_names(&self) -> BTreeSet<String> {
        let targets = self.upstreams.iter().flat_map(|upstream| &upstream.targets);
        targets
            .filter_map(|target| match &target.address.host {
                TargetHost::Name(name) => Some(name.clone()),
                TargetHost::Ip(_) => None,
            })
            .collect()
    }
}

/// Settings of the node as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Pseudonym of this node in the Via field (RFC 9110 §7.6.3); also what loop detection looks for.
    pub via: String,
    /// What this node is called among those that share limits; without it as its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub name: Option<String>,
    /// Longest a drain may take, in milliseconds.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub drain_timeout_ms: u32,
    /// Where the node is, such as a zone's name: targets with the same locality are preferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub locality: Option<String>,
    /// When the node as a whole is asked too much.
    pub overload: Overload,
}

impl Default for Node {
    fn default() -> Self {
        let node = contract::snapshot::Node::default();
        Node {
            via: node.via,
            name: None,
            drain_timeout_ms: node.drain_timeout_ms,
            locality: None,
            overload: Overload::default(),
        }
    }
}

/// The access log: one JSON object per line and request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// A file, "-" for the standard output, or "off". Without it: access.jsonl in the state
    /// directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Where [`AccessLog`] points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogDestination<'a> {
    /// `access.jsonl` in the state directory.
    StateDirectory,
    /// The standard output.
    Stdout,
    Off,
    /// This file.
    File(&'a str),
}

impl AccessLog {
    pub fn destination(&self) -> LogDestination<'_> {
        match self.path.as_deref() {
            None => LogDestination::StateDirectory,
            Some("-") => LogDestination::Stdout,
            Some("off") => LogDestination::Off,
            Some(path) => LogDestination::File(path),
        }
    }
}

/// One address the gateway listens on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Unique among listeners; appears in logs and metrics.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// Address and port: 0.0.0.0:8080, [::]:8080, or :8080 for all IPv4 addresses.
    #[schemars(with = "schema::SocketAddress")]
    pub listen: SocketAddr,
    /// Networks of proxies whose X-Forwarded-* and Forwarded fields are believed.
    #[serde(default)]
    pub trusted_proxies: Vec<Cidr>,
    /// The PROXY protocol (v1 and v2).
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// Also send the Forwarded field (RFC 7239) upstream.
    #[serde(default)]
    pub forwarded: bool,
    /// What to do with requests that have a field name with an underscore.
    #[serde(default)]
    pub underscore_fields: UnderscoreFields,
    /// TLS with certificates by server name; without it: clear text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Also speak HTTP/2 with clients that begin with it on clear text (RFC 9113 §3.3).
    #[serde(default)]
    pub h2c: bool,
    /// Bounds and deadlines towards clients.
    #[serde(default)]
    pub limits: Limits,
}

/// Who must speak the PROXY protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyProtocol {
    /// Networks of peers that must begin with a PROXY header. Empty: nobody may.
    pub from: Vec<Cidr>,
}

/// What to do with a field name that has an underscore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnderscoreFields {
    /// Answer 400.
    #[default]
    Refuse,
    /// Remove the field, serve the request.
    Drop,
}

/// Bounds and deadlines towards clients. None can be switched off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections per shard; past it new ones are closed at once.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_connections: u32,
    /// From the first byte to the end of the head, in milliseconds.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub header_timeout_ms: u32,
    /// Between the requests of a connection, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub idle_timeout_ms: u32,
    /// Slowest body a client may send or read, in bytes per second, judged over 10 s.
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub min_body_rate: u32,
    /// A write without progress for this long ends the connection, in milliseconds.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub write_timeout_ms: u32,
    /// Largest request head (request line and fields), in bytes.
    #[schemars(range(min = 1024, max = 262_144))]
    pub max_head_bytes: u32,
    /// Largest number of field lines.
    #[schemars(range(min = 1, max = 1000))]
    pub max_fields: u16,
    /// Requests served per connection before it is closed.
    #[schemars(range(min = 1))]
    pub max_requests: u32,
    /// Concurrent streams of an HTTP/2 connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = contract::snapshot::ListenerLimits::default();
        Limits {
            max_connections: limits.max_connections,
            header_timeout_ms: limits.header_timeout_ms,
            idle_timeout_ms: limits.idle_timeout_ms,
            min_body_rate: limits.min_body_rate,
            write_timeout_ms: limits.write_timeout_ms,
            max_head_bytes: limits.max_head_bytes,
            max_fields: limits.max_fields,
            max_requests: limits.max_requests,
            max_streams: limits.max_streams,
        }
    }
}

/// Which requests go where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::route_with_upstream)]
pub struct Route {
    /// Unique among routes; appears in logs and metrics.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// Whose it is: who may change only some workspaces may change it when this is one of them.
    /// Without it: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub workspace: Option<String>,
    /// What a request must look like. Without it: every request.
    #[serde(rename = "match", default)]
    pub matches: Match,
    /// How the path is changed on the way.
    #[serde(default, skip_serializing_if = "Rewrite::is_keep")]
    pub rewrite: Rewrite,
    /// What else is changed of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RouteRequest>,
    /// What is changed of answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<RouteResponse>,
    /// Answer with a redirect, instead of an upstream. A text is its location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::RedirectForm>")]
    pub redirect: Option<Redirect>,
    /// Answer with this, instead of an upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond>,
    /// Several upstreams by weight, as for a canary; instead of upstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub upstreams: Vec<Backend>,
    /// Several calls that make the answer together; instead of upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<Box<Aggregate>>,
    /// Deadlines of this route; what is absent is the upstream's.
    #[serde(default)]
    pub timeouts: RouteTimeouts,
    /// Largest request body, in bytes or as "10MiB"; past it 413.
    #[serde(default = "default_max_body_bytes")]
    #[schemars(with = "schema::SizeForm")]
    pub max_body_bytes: u64,
    /// What is changed of request bodies: one rule, or several of which the first whose content type fits is
    /// applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "RulesForm")]
    pub request_body: RequestBody,
    /// What is changed of the bodies of answers: one rule, or several of which the first whose status and
    /// content type fit is applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "RulesForm")]
    pub response_body: ResponseBody,
    /// Compress answers for clients that take that; true, or how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CompressForm>")]
    pub compress: Option<Compress>,
    /// Protocols that may be switched to, such as websocket.
    #[serde(default)]
    pub upgrades: Vec<String>,
    /// Serve requests from early data (0-RTT), which an attacker can replay: safe methods only,
    /// others get 425 (RFC 8470).
    #[serde(default)]
    pub early_data: bool,
    /// Translate gRPC-Web requests, binary and text, to gRPC, and the answers back.
    #[serde(default)]
    pub grpc_web: bool,
    /// Translate between JSON and gRPC, by the http rules of the services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcode: Option<Transcode>,
    /// Which failed tries are made again; without it the upstream's. It is taken as a whole: what it
    /// does not say has its default, not the upstream's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<OrNone<Retry>>")]
    pub retry: Option<Retry>,
    /// Keep answers, and answer by them (RFC 9111); without it nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<RouteCache>,
    /// A second try beside a slow first one; without it the upstream's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<OrNone<Hedge>>,
    /// Which requests are refused last when the node is asked too much.
    #[serde(default)]
    pub priority: Priority,
    /// Send a share of the requests to another upstream too; its answers are thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Name of a header field in which clients say how many milliseconds they will wait. It bounds
    /// all time-outs, and is passed on with what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_header: Option<String>,
    /// Who may call; without it anyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<RouteAuth>,
    /// From which addresses; without it from any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Networks>,
    /// Which pages of other origins may call from browsers; without it the upstream says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// A service that sees requests and answers on their way, and may change or refuse them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_processor: Option<ExternalProcessor>,
    /// Limits that its requests must pass, by name, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// What requests must look like; without it they are not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate: Option<Validate>,
    /// The upstream speaks GraphQL; requests are held against these bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graphql: Option<Box<Graphql>>,
}

impl fmt::Display for Route {
    /// On one line, for people: `GET,POST api.example.com /users* -> users`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = |list: &[String]| if list.is_empty() { "*".into() } else { list.join(",") };
        write!(f, "{} {} ", any(&self.matches.methods), any(&self.matches.hosts))?;
        match &self.matches.path {
            PathMatch::Exact(path) => write!(f, "{path}")?,
            PathMatch::Prefix(path) => write!(f, "{path}*")?,
            PathMatch::Regex(pattern) => write!(f, "~ {pattern}")?,
            PathMatch::Template(template) => write!(f, "{template}")?,
        }
        f.write_str(" ->")?;
        if let Some(redirect) = &self.redirect {
            return write!(f, " {} {}", redirect.status, redirect.location);
        }
        if let Some(respond) = &self.respond {
            return write!(f, " {}", respond.status);
        }
        for (at, backend) in self.upstreams.iter().enumerate() {
            f.write_str(if at == 0 { " " } else { ", " })?;
            match self.upstreams.len() {
                1 => f.write_str(&backend.name)?,
                _ => write!(f, "{} ({})", backend.name, backend.weight)?,
            }
        }
        for call in self.aggregate.iter().flat_map(|aggregate| &aggregate.calls) {
            write!(f, " {}", call.name)?;
        }
        Ok(())
    }
}

fn default_max_body_bytes() -> u64 {
    DEFAULT_MAX_BODY_BYTES
}

/// What a request must look like. All of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Host names, without port; *.example.com stands for one or more labels. Empty: any host.
    pub hosts: Vec<String>,
    /// The path; a plain text is a prefix. Without it: the prefix /.
    #[schemars(with = "schema::PathForm")]
    pub path: PathMatch,
    /// Methods, in upper case. Empty: any. GET does not imply HEAD.
    pub methods: Vec<String>,
    /// Conditions on header fields.
    pub headers: Vec<FieldMatch>,
    /// Conditions on query parameters, compared percent-decoded.
    pub query: Vec<FieldMatch>,
}

/// How a path is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// By whole segments: /users matches /users and /users/7, not /usersx.
    Prefix(String),
    /// A regular expression (the syntax of Rust's regex crate), unanchored unless it says so.
    Regex(String),
    /// Named segments: /users/{id} matches /users/7 and calls that ${path.id}; {rest...} at the end stands
    /// for all that is left. Goes before a prefix of the same beginning.
    Template(String),
}

impl Default for PathMatch {
    fn default() -> Self {
        PathMatch::Prefix("/".into())
    }
}

/// A condition on a header field or a query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "schema::FieldForm", into = "schema::FieldForm")]
pub struct FieldMatch {
    /// Header names are lower case.
    pub name: String,
    pub value: ValueMatch,
}

/// What the value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    Present,
    Exact(String),
    /// Unanchored unless the pattern says so.
    Regex(String),
}

/// How the path is changed on the way to the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "schema::RewriteForm", into = "schema::RewriteForm")]
pub enum Rewrite {
    #[default]
    Keep,
    /// Remove what `match.path` matched; the result always begins with `/`.
    StripPrefix,
    /// Put this in its place.
    ReplacePrefix(String),
}

impl Rewrite {
    pub fn is_keep(&self) -> bool {
        *self == Rewrite::Keep
    }
}

/// One of several upstreams of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Name of an upstream.
    pub name: String,
    /// Share, 0 to 1000; 0 gets nothing.
    #[serde(default = "one")]
    #[schemars(range(max = 1000))]
    pub weight: u32,
}

fn one() -> u32 {
    1
}
