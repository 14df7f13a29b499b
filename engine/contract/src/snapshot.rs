//! The snapshot: the whole data-plane configuration of one epoch, as control compiled it.
//!
//! These are plain values without pointers into anything. `encode.rs` writes them as flat bytes,
//! [`Snapshot::decode`] reads them back without trusting them. The engine turns them into its Plan.

mod aggregate;
mod auth;
mod cache;
mod consumers;
mod graphql;
mod key;
mod limit;
mod payload;
mod processor;
mod redis;
mod resilience;
mod shape;
mod transcode;
mod validation;

use std::net::{IpAddr, SocketAddr};

pub use aggregate::*;
pub use auth::*;
pub use cache::*;
pub use consumers::Consumers;
pub use graphql::Graphql;
pub use limit::*;
pub use payload::*;
pub use processor::*;
pub use redis::{REDIS_USED, RedisAddress, is_redis_item, is_redis_word, redis_owner};
pub use resilience::*;
pub use shape::*;
pub use transcode::*;
pub use validation::*;

/// Index into [`Snapshot::upstreams`].
pub type UpstreamIndex = u32;
/// Index into [`Snapshot::certificates`].
pub type CertificateIndex = u32;
/// Index into [`Snapshot::trust`].
pub type TrustIndex = u32;

/// The configuration of one epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Strictly increasing per segment; what shards report as adopted.
    pub epoch: u64,
    /// Revision in control's store that this epoch was compiled from (several epochs may share one:
    /// a DNS answer changes the epoch, not the revision).
    pub revision: u64,
    pub node: Node,
    /// Own identities: what listeners show to clients, and upstream connections to upstreams.
    pub certificates: Vec<Certificate>,
    /// Whom peers' certificates must come from.
    pub trust: Vec<Trust>,
    /// Keys of stateless session tickets, newest first: the first one seals, all of them open.
    pub ticket_keys: Vec<TicketKey>,
    pub auth: Auth,
    pub limits: Limits,
    pub validation: Validation,
    /// What routes transcode by.
    pub protos: Vec<ProtoSet>,
    pub cache: Cache,
    pub listeners: Vec<Listener>,
    pub upstreams: Vec<Upstream>,
    /// In the order of the spec: of two routes that match equally, the earlier wins.
    pub routes: Vec<Route>,
}

/// Settings of the node as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Pseudonym in `Via` (RFC 9110 §7.6.3); also what loop detection looks for.
    pub via: String,
    /// What the node is called among those that share limits; empty: as its host.
    pub name: String,
    /// Longest a drain may take, in milliseconds.
    pub drain_timeout_ms: u32,
    /// Where the node is, such as a zone's name: targets of the same locality are preferred. Empty:
    /// nowhere in particular.
    pub locality: String,
    pub overload: Overload,
}

impl Default for Node {
    fn default() -> Self {
        Node {
            via: "sluice".into(),
            name: String::new(),
            drain_timeout_ms: 30_000,
            locality: String::new(),
            overload: Overload::default(),
        }
    }
}

/// One listening address. Its sockets arrive over the bus, matched by `address`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: String,
    pub address: SocketAddr,
    /// Peers whose `X-Forwarded-*`/`Forwarded` are believed (the trusted-hop rule).
    pub trusted_proxies: Vec<Cidr>,
    /// Peers that must speak the PROXY protocol (v1 or v2); empty: nobody may.
    pub proxy_protocol_from: Vec<Cidr>,
    /// Also send RFC 7239 `Forwarded` upstream.
    pub forwarded: bool,
    /// Field names with `_`: refuse the request (B-19), or drop just the field.
    pub underscore_fields: UnderscoreFields,
    /// `None`: clear text.
    pub tls: Option<ListenerTls>,
    /// Speak HTTP/2 with clients that begin with its preface on clear text (RFC 9113 §3.3).
    pub h2c: bool,
    pub limits: ListenerLimits,
}

/// A certificate chain and its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// DER, the leaf first.
    pub chain: Vec<Vec<u8>>,
    /// DER: PKCS#8, SEC1 or PKCS#1. Secret.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Certificate {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Trust anchors, and what they have revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// DER certificates.
    pub roots: Vec<Vec<u8>>,
    /// DER revocation lists (RFC 5280 §5).
    pub crls: Vec<Vec<u8>>,
}

/// One key of session tickets (RFC 5077 §4, RFC 8446 §4.6.1).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TicketKey {
    /// In clear in every ticket, so that the right key is found.
    pub name: [u8; 16],
    /// Secret.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for TicketKey {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    pub min_version: TlsVersion,
    /// In order of preference; not empty.
    pub alpn: Vec<Alpn>,
    /// By server name: an exact name goes before a wildcard. At least one.
    pub sites: Vec<TlsSite>,
    /// Which of `sites` answers a client without a (known) server name; `None`: the handshake is
    /// refused with `unrecognized_name`.
    pub default_site: Option<u32>,
    /// Most bytes of early data (0-RTT, RFC 8446 §2.3) that a client may send; 0: none is taken.
    pub early_data_bytes: u32,
    /// From the accept to the end of the handshake.
    pub handshake_timeout_ms: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V12,
    #[default]
    V13,
}

/// Application protocols of RFC 7301.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    Http11,
    H2,
}

/// What is shown and asked under some server names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSite {
    /// Lower case, `api.example.com` or `*.example.com` (exactly one label, RFC 6125 §6.4.3).
    pub names: Vec<String>,
    pub certificate: CertificateIndex,
    pub client_auth: Option<ClientAuth>,
}

/// Client certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    pub trust: TrustIndex,
    /// Without a certificate no handshake; otherwise it is asked for, and judged if it comes.
    pub required: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnderscoreFields {
    /// 400 (the default).
    #[default]
    Refuse,
    /// Remove the field, serve the request.
    Drop,
}

/// Client-side bounds of a listener. Times in milliseconds, sizes in bytes, 0 never means "off".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Open connections per shard; past it new ones are closed at once.
    pub max_connections: u32,
    /// From the first byte (or accept) to the end of the head.
    pub header_timeout_ms: u32,
    /// Between requests of a keep-alive connection.
    pub idle_timeout_ms: u32,
    /// Slowest body a client may send, bytes per second, judged over 10 s. (Who reads slowly is
    /// bounded by `write_timeout_ms`.)
    pub min_body_rate: u32,
    /// A write that makes no progress for this long ends the connection.
    pub write_timeout_ms: u32,
    /// Largest request head (request line and field section).
    pub max_head_bytes: u32,
    /// Largest number of field lines; more than 128 count as 128.
    pub max_fields: u16,
    /// Requests served per connection before it is closed.
    pub max_requests: u32,
    /// Concurrent streams of an HTTP/2 connection.
    pub max_streams: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        ListenerLimits {
            max_connections: 50_000,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            min_body_rate: 500,
            write_timeout_ms: 30_000,
            max_head_bytes: 32 * 1024,
            max_fields: 100,
            max_requests: 1_000_000,
            max_streams: 100,
        }
    }
}

/// A network prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub network: IpAddr,
    /// 0..=32 for IPv4, 0..=128 for IPv6.
    pub prefix: u8,
}

impl Cidr {
    /// Whether `ip` lies in this prefix. An IPv4-mapped IPv6 address is judged as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = match ip {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
            IpAddr::V4(_) => ip,
        };
        match (self.network, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                shift == 32 || u32::from(net) >> shift == u32::from(ip) >> shift
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                shift == 128 || u128::from(net) >> shift == u128::from(ip) >> shift
            }
            _ => false,
        }
    }
}

/// A cluster of interchangeable targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Upstream {
    pub name: String,
    pub balance: Balance,
    /// Resolved; a host name with three addresses is three targets. May be empty (name unresolved):
    /// the answer is then 503.
    pub targets: Vec<Target>,
    pub pool: Pool,
    pub timeouts: Timeouts,
    pub host_header: HostHeader,
    pub protocol: Protocol,
    /// `None`: clear text.
    pub tls: Option<UpstreamTls>,
    /// Active checks; a target that fails them is passed over.
    pub health: Option<HealthCheck>,
    /// With less than this share of the weight alive, all requests get the fallback at once, as the
    /// rest would not bear them (0: never).
    pub min_live_percent: u8,
    pub retry: Retry,
    pub retry_budget: RetryBudget,
    pub hedge: Option<Hedge>,
    /// Bounds of the upstream as a whole, and of each target.
    pub bounds: Bounds,
    pub target_bounds: Bounds,
    /// The breaker of the upstream as a whole, and of each target.
    pub breaker: Option<Breaker>,
    pub target_breaker: Option<Breaker>,
    pub fallback: Fallback,
    pub outlier: Option<Outlier>,
    pub concurrency: Option<AdaptiveConcurrency>,
    /// A token that goes with every request, in place of the client's `Authorization`.
    pub credentials: Option<ClientCredentials>,
}

/// What is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http1,
    /// On clear text by prior knowledge.
    Http2,
    /// What ALPN agrees on, HTTP/2 preferred; HTTP/1.1 on clear text.
    Auto,
}

/// How an upstream is reached over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    pub min_version: TlsVersion,
    /// Who must vouch for the upstream; `None`: its certificate is not verified at all.
    pub trust: Option<TrustIndex>,
    /// Name to ask for and to verify; `None`: the host of the target's name.
    pub server_name: Option<String>,
    /// What we show when the upstream asks (mTLS).
    pub identity: Option<CertificateIndex>,
}

/// An active health check, run by one shard and shared with all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub kind: HealthKind,
    pub interval_ms: u32,
    pub timeout_ms: u32,
    /// Consecutive successes that make a target healthy, and failures that make it unhealthy.
    pub healthy_after: u32,
    pub unhealthy_after: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// `grpc.health.v1.Health/Check` of this service (may be empty: the whole server).
    Grpc { service: String },
    /// `GET path`; healthy with a status in one of the ranges (both ends included) and, if a text is
    /// given, that text in the first bytes of the body.
    Http {
        path: String,
        /// Value of `Host`; `None`: the target's name.
        host: Option<String>,
        statuses: Vec<(u16, u16)>,
        body: Option<String>,
    },
    /// A connection can be opened (over TLS: with its handshake).
    Tcp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each target in turn, weights ignored.
    RoundRobin,
    /// Smooth weighted round-robin (as nginx does it).
    Weighted,
    /// Fewest requests in flight relative to weight, over all shards.
    LeastConnections,
    /// Of two targets drawn by weight the one with the smaller (requests in flight / weight + 1) ×
    /// latency; latency is a moving average that follows peaks at once.
    #[default]
    PowerOfTwo,
    /// Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018): no target has
    /// more than `load_percent` of its fair share of the requests in flight.
    Hash { key: HashKey, load_percent: u16 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// 1..=1000.
    pub weight: u32,
    /// What the spec called it, `host:port`.
    pub name: String,
    /// Targets of a larger number are used as those of smaller ones fail.
    pub priority: u8,
    /// Where it is; compared with [`Node::locality`].
    pub locality: String,
}

impl Default for Target {
    /// Nowhere.
    fn default() -> Self {
        Target {
            address: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
            weight: 1,
            name: String::new(),
            priority: 0,
            locality: String::new(),
        }
    }
}

/// Keep-alive pool per target and shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Idle connections kept.
    pub max_idle: u32,
    /// Open connections, idle and busy; past it requests wait for one until the connect time-out.
    pub max_connections: u32,
    /// An idle connection is closed after this long.
    pub idle_timeout_ms: u32,
}

impl Default for Pool {
    fn default() -> Self {
        // Whatever was open at once may stay: opening a connection costs as much as a request. What is
        // not used again ages out.
        Pool { max_idle: 1024, max_connections: 1024, idle_timeout_ms: 30_000 }
    }
}

/// Deadlines of one exchange with an upstream, in milliseconds. On a route, 0 means "the upstream's".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect_ms: u32,
    /// From the end of the request to the first byte of the answer.
    pub first_byte_ms: u32,
    /// Longest silence inside an answer's body.
    pub idle_ms: u32,
    /// From the start of one try to the head of its answer, after which another try may be made;
    /// `u32::MAX`: none.
    pub try_ms: u32,
    /// The whole exchange; `u32::MAX`: none.
    pub total_ms: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect_ms: 2_000,
            first_byte_ms: 30_000,
            idle_ms: 60_000,
            try_ms: u32::MAX,
            total_ms: 300_000,
        }
    }
}

/// What `Host` the upstream sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    #[default]
    Preserve,
    /// The chosen target's `name`.
    Target,
    /// This value.
    Literal(String),
}

/// Which requests go where.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    pub name: String,
    /// Lower case. Empty: any host. `*.example.com` matches one or more labels in its place.
    pub hosts: Vec<String>,
    pub path: PathMatch,
    /// Upper case as given. Empty: any method. `GET` does not imply `HEAD`.
    pub methods: Vec<String>,
    /// All must hold.
    pub headers: Vec<FieldMatch>,
    /// All must hold. Names and values are compared percent-decoded.
    pub query: Vec<FieldMatch>,
    pub rewrite: PathRewrite,
    /// What else is changed; `None`: nothing.
    pub shape: Option<Box<RouteShape>>,
    /// At least one, unless the gateway answers itself or calls make the answer; picked by weight (smooth weighted, per shard).
    pub backends: Vec<Backend>,
    /// Calls that make the answer; `None`: a backend does.
    pub aggregate: Option<Box<Aggregate>>,
    /// 0 in a field: the upstream's value.
    pub timeouts: Timeouts,
    /// Largest request body in bytes; past it 413.
    pub max_body_bytes: u64,
    /// What is changed of bodies; `None`: nothing.
    pub payload: Option<Box<RoutePayload>>,
    /// `Upgrade` tokens that may be tunnelled, lower case (`websocket`).
    pub upgrades: Vec<String>,
    /// Requests with a safe method are taken from early data (RFC 8470); others get 425.
    pub early_data: bool,
    /// gRPC-Web requests are translated to gRPC, and the answers back.
    pub grpc_web: bool,
    /// Translate between JSON and gRPC.
    pub transcode: Option<RouteTranscode>,
    /// `None`: the upstream's.
    pub retry: Option<Retry>,
    /// `None`: answers are not kept.
    pub cache: Option<RouteCache>,
    /// `None`: the upstream's.
    pub hedge: Option<Hedge>,
    pub priority: Priority,
    pub mirror: Option<Mirror>,
    /// A field in which clients say how many milliseconds they will wait, lower case. It bounds all
    /// time-outs, and is passed on with what is left.
    pub deadline_header: Option<String>,
    /// Who may call; `None`: anyone.
    pub auth: Option<RouteAuth>,
    /// From where; `None`: from anywhere.
    pub networks: Option<Networks>,
    /// Policies that requests must pass, in their order.
    pub limits: Vec<LimitIndex>,
    pub cors: Option<Cors>,
    /// Who sees its requests and answers on their way.
    pub processor: Option<Processor>,
    /// What requests must look like; `None`: it is not looked at.
    pub validation: Option<RouteValidation>,
    /// Requests are GraphQL's, within these bounds.
    pub graphql: Option<Box<Graphql>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole normalised path.
    Exact(String),
    /// By whole segments: `/users` matches `/users` and `/users/7`, not `/usersx`.
    Prefix(String),
    /// Unanchored unless the pattern says so; `regex` crate syntax.
    Regex(String),
    /// `/users/{id}/{rest...}`: names for whole segments, and for all that is left.
    Template(String),
}

impl Default for PathMatch {
    /// Any path.
    fn default() -> Self {
        PathMatch::Prefix("/".into())
    }
}

/// A condition on a header or a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldMatch {
    /// Header names are lower case.
    pub name: String,
    pub value: ValueMatch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    Present,
    Exact(String),
    Regex(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathRewrite {
    #[default]
    Keep,
    /// Remove the matched prefix (the result always begins with `/`).
    StripPrefix,
    /// Put this in place of the matched prefix.
    ReplacePrefix(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    pub upstream: UpstreamIndex,
    /// 0..=1000; 0: gets nothing.
    pub weight: u32,
}
