//! The snapshot as flat bytes, and back without trusting them.
//!
//! ```text
//! 0   magic "SLUICEsn"        16  length of all of it, u64
//! 8   format version, u32     24  body: epoch, revision, node, certificates, trust, ticket keys,
//! 12  CRC-32 of the body          auth, listeners, upstreams, routes
//! ```
//! Little-endian, lists and texts behind a u32 count, enums as one byte, options behind a byte 0 or
//! 1. A change of the model is a new format version.

mod aggregate;
mod auth;
mod authenticator;
mod cache;
mod consumer;
mod graphql;
mod key;
mod limit;
mod payload;
mod processor;
mod resilience;
mod shape;
mod tls;
mod transcode;
mod upstream;
mod validation;

use crate::snapshot::*;
use crate::wire::{In, Out};
pub use aggregate::{
    MAX_AGGREGATE_BYTES, MAX_AGGREGATE_MS, MAX_CALLS, MAX_CALLS_AT_ONCE, MAX_ITEMS,
    MAX_JSON_TEMPLATE,
};
pub use auth::{MAX_AUTHENTICATORS, MAX_NETWORKS, MAX_REDIS};
pub use authenticator::MAX_COOKIE_KEYS;
pub use cache::{MAX_CACHE, MAX_CACHED_BODY};
pub use consumer::{MAX_CONSUMERS, MAX_CREDENTIALS, MAX_SIGNING_SECRET};
pub use graphql::{MAX_QUERY_BATCH, MAX_QUERY_BYTES, MAX_QUERY_DEPTH, MAX_QUERY_TOKENS};
pub use key::{MAX_KEY_SETS, MAX_KEYS, MAX_WISHES};
pub use limit::{MAX_LIMIT, MAX_LIMIT_SCOPES, MAX_LIMIT_TIERS, MAX_LIMIT_WINDOWS, MAX_LIMITS};
pub use payload::{MAX_BODY_RULES, MAX_BODY_STEPS, MAX_BODY_VALUE, MAX_CHANGED_BODY, MAX_JQ_MS};
pub use processor::{MAX_PROCESSED_BODY, MAX_PROCESSOR_MS};
pub use resilience::{MAX_ATTEMPTS, MAX_KEPT_BODY};
pub use shape::{MAX_SHAPE_RULES, MAX_STATIC_BODY};
pub use tls::{MAX_CERTIFICATES, MAX_CHAIN, MAX_CRL, MAX_DER, MAX_TICKET_KEYS, MAX_TRUST};
pub use transcode::{MAX_DESCRIPTORS, MAX_PROTOS, MAX_TRANSCODED};
pub use validation::{
    MAX_APIS, MAX_OPERATIONS, MAX_PARAMETERS, MAX_SCHEMA, MAX_SCHEMAS, MAX_VALIDATED_BODY,
};

/// Changes with every change of the model.
pub const FORMAT: u32 = 13;
/// Largest snapshot, in bytes.
pub const MAX_SNAPSHOT: usize = 64 * 1024 * 1024;
/// Most listeners of a snapshot.
pub const MAX_LISTENERS: usize = 1_000;
/// Most upstreams of a snapshot.
pub const MAX_UPSTREAMS: usize = 10_000;
/// Most routes of a snapshot.
pub const MAX_ROUTES: usize = 100_000;
/// Most targets of an upstream.
pub const MAX_TARGETS: usize = 10_000;
/// Most entries of any other list: a route's hosts, methods, conditions, backends and upgrades, a
/// listener's prefixes.
pub const MAX_ENTRIES: usize = 10_000;
/// Longest text, in bytes.
pub const MAX_TEXT: usize = crate::wire::MAX_TEXT;
/// Largest weight of a target or backend.
pub const MAX_WEIGHT: u32 = 1_000;

/// What a snapshot that was decoded may have in common with the next one.
#[derive(Clone, Debug)]
pub struct Known {
    consumers: Consumers,
    /// So many there must be for what consumers say of them.
    authenticators: usize,
}

impl Known {
    pub fn of(snapshot: &Snapshot) -> Known {
        let Auth { consumers, authenticators, .. } = &snapshot.auth;
        Known { consumers: consumers.clone(), authenticators: authenticators.len() }
    }
}

const MAGIC: [u8; 8] = *b"SLUICEsn";
const HEAD: usize = 24;

/// How much there is of what indexes point at, as far as it has been read.
#[derive(Clone, Copy, Default)]
struct Counts {
    certificates: usize,
    trust: usize,
    redis: bool,
    key_sets: usize,
    authenticators: usize,
    consumers: usize,
    limits: usize,
    apis: usize,
    protos: usize,
}

/// Why bytes are refused: which field, where, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused at byte {offset}, in `{field}`: {fault}")]
pub struct DecodeError {
    /// A dotted path in the model, such as `route.backend.upstream`.
    pub field: &'static str,
    /// Byte offset from the start of what was decoded.
    pub offset: usize,
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the bytes end too early; they were cut short or never finished")]
    Short,
    #[error("{bytes} bytes too many follow")]
    Trailing { bytes: usize },
    #[error("these are not the bytes of a snapshot")]
    Magic,
    #[error(
        "format {found}, this program reads {FORMAT}: control and engine come from different releases; restart `sluice up`"
    )]
    Format { found: u32 },
    #[error("the length {found} is not that of the bytes ({actual})")]
    Length { found: u64, actual: usize },
    #[error(
        "checksum {found:#010x}, expected {expected:#010x}: the bytes were damaged on their way"
    )]
    Checksum { found: u32, expected: u32 },
    #[error("{found} is not within {min} to {max}")]
    OutOfRange { found: u64, min: u64, max: u64 },
    #[error("{found} is not a known tag")]
    Tag { found: u8 },
    #[error("the text is not UTF-8")]
    NotUtf8,
    #[error("the list is not in ascending order, or names something twice")]
    Order,
    #[error("the key does not have the form or the length of its kind")]
    Key,
    #[error("the number of file descriptors is {found}, the message asks for {expected}")]
    Descriptors { found: usize, expected: usize },
}

impl Snapshot {
    /// The snapshot as flat bytes.
    ///
    /// This does not judge: a snapshot past a limit of this module becomes bytes that
    /// [`Snapshot::decode`] refuses, so control decodes what it encoded before it publishes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        out.bytes.extend_from_slice(&MAGIC);
        out.u32(FORMAT);
        out.u32(0);
        out.u64(0);
        out.u64(self.epoch);
        out.u64(self.revision);
        out.text(&self.node.via);
        out.text(&self.node.name);
        out.u32(self.node.drain_timeout_ms);
        out.text(&self.node.locality);
        resilience::write_overload(&mut out, &self.node.overload);
        out.list(&self.certificates, tls::write_certificate);
        out.list(&self.trust, tls::write_trust);
        out.list(&self.ticket_keys, tls::write_ticket_key);
        auth::write(&mut out, &self.auth);
        limit::write(&mut out, &self.limits);
        validation::write(&mut out, &self.validation);
        out.list(&self.protos, transcode::write_proto);
        cache::write(&mut out, &self.cache);
        out.list(&self.listeners, write_listener);
        out.list(&self.upstreams, upstream::write);
        out.list(&self.routes, write_route);
        let mut bytes = out.bytes;
        let crc = crc32fast::hash(&bytes[HEAD..]);
        let len = bytes.len() as u64;
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    /// Reads what [`Snapshot::encode`] wrote, from a source that is not trusted.
    ///
    /// What comes back holds every invariant of the model: backends with an upstream that exists, certificates, trust, authenticators and consumers that exist, weights
    /// and prefixes in range, keys that suit their algorithms.
    ///
    /// # Errors
    /// Anything else than exactly one whole snapshot of this [`FORMAT`] within the limits of this
    /// module. Never panics, and never takes more memory than a small multiple of the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Snapshot, DecodeError> {
        Snapshot::decode_after(bytes, None)
    }

    /// As [`Snapshot::decode`]; consumers that are the same as in `before` are taken from there.
    ///
    /// # Errors
    /// As [`Snapshot::decode`].
    pub fn decode_after(bytes: &[u8], before: Option<&Known>) -> Result<Snapshot, DecodeError> {
        let mut input = In::new(bytes, 0);
        if bytes.len() > MAX_SNAPSHOT {
            let fault =
                Fault::OutOfRange { found: bytes.len() as u64, min: 0, max: MAX_SNAPSHOT as u64 };
            return Err(input.fault("snapshot", fault));
        }
        if input.take("magic", MAGIC.len())? != MAGIC {
            return Err(DecodeError { field: "magic", offset: 0, fault: Fault::Magic });
        }
        let found = input.u32("format")?;
        if found != FORMAT {
            return Err(DecodeError { field: "format", offset: 8, fault: Fault::Format { found } });
        }
        let found = input.u32("checksum")?;
        let len = input.u64("length")?;
        if len != bytes.len() as u64 {
            let fault = Fault::Length { found: len, actual: bytes.len() };
            return Err(DecodeError { field: "length", offset: 16, fault });
        }
        let expected = crc32fast::hash(bytes.get(HEAD..).unwrap_or_default());
        if found != expected {
            let fault = Fault::Checksum { found, expected };
            return Err(DecodeError { field: "checksum", offset: 12, fault });
        }
        read_body(&mut input, before)
    }
}

fn read_body(input: &mut In<'_>, before: Option<&Known>) -> Result<Snapshot, DecodeError> {
    let epoch = input.u64("epoch")?;
    let revision = input.u64("revision")?;
    let node = Node {
        via: input.text("node.via")?,
        name: input.text("node.name")?,
        drain_timeout_ms: input.u32("node.drain_timeout_ms")?,
        locality: input.text("node.locality")?,
        overload: resilience::read_overload(input)?,
    };
    let certificates = input.list("certificates", MAX_CERTIFICATES, tls::read_certificate)?;
    let trust = input.list("trust", MAX_TRUST, tls::read_trust)?;
    let ticket_keys = input.list("ticket_keys", MAX_TICKET_KEYS, tls::read_ticket_key)?;
    let counts =
        Counts { certificates: certificates.len(), trust: trust.len(), ..Counts::default() };
    let (auth, counts) = auth::read(input, counts, before)?;
    let limits = limit::read(input)?;
    let validation = validation::read(input)?;
    let protos = input.list("protos", MAX_PROTOS, transcode::read_proto)?;
    let counts = Counts {
        limits: limits.policies.len(),
        apis: validation.apis.len(),
        protos: protos.len(),
        ..counts
    };
    let cache = cache::read(input)?;
    let listeners = input.list("listeners", MAX_LISTENERS, |input| read_listener(input, counts))?;
    // Upstreams point at each other. A count that lies is found when the list is read.
    let count = input.ahead().u32_within("upstreams", 0, MAX_UPSTREAMS as u32)? as usize;
    let upstreams =
        input.list("upstreams", MAX_UPSTREAMS, |input| upstream::read(input, counts, count))?;
    let routes =
        input.list("routes", MAX_ROUTES, |input| read_route(input, counts, upstreams.len()))?;
    input.end()?;
    Ok(Snapshot {
        epoch,
        revision,
        node,
        certificates,
        trust,
        ticket_keys,
        auth,
        limits,
        validation,
        protos,
        cache,
        listeners,
        upstreams,
        routes,
    })
}

/// For a fuzz target: whatever `data` is, decoding ends without a panic, and what it accepts means
/// the same when written again. Also decodes `data` as a body under a right head, which no fuzzer
/// would guess.
#[doc(hidden)]
pub fn fuzz_snapshot(data: &[u8]) {
    let mut framed = Vec::with_capacity(HEAD + data.len());
    framed.extend_from_slice(&MAGIC);
    framed.extend_from_slice(&FORMAT.to_le_bytes());
    framed.extend_from_slice(&crc32fast::hash(data).to_le_bytes());
    framed.extend_from_slice(&((HEAD + data.len()) as u64).to_le_bytes());
    framed.extend_from_slice(data);
    for bytes in [data, framed.as_slice()] {
        if let Ok(snapshot) = Snapshot::decode(bytes) {
            assert_eq!(snapshot.encode(), bytes, "a snapshot has one encoding");
            assert_eq!(Snapshot::decode(bytes).as_ref(), Ok(&snapshot));
        }
    }
}

fn write_listener(out: &mut Out, listener: &Listener) {
    out.text(&listener.name);
    out.address(listener.address);
    out.list(&listener.trusted_proxies, write_cidr);
    out.list(&listener.proxy_protocol_from, write_cidr);
    out.u8(listener.forwarded.into());
    out.u8(match listener.underscore_fields {
        UnderscoreFields::Refuse => 0,
        UnderscoreFields::Drop => 1,
    });
    out.option(listener.tls.as_ref(), tls::write_listener_tls);
    out.u8(listener.h2c.into());
    let limits = &listener.limits;
    out.u32(limits.max_connections);
    out.u32(limits.header_timeout_ms);
    out.u32(limits.idle_timeout_ms);
    out.u32(limits.min_body_rate);
    out.u32(limits.write_timeout_ms);
    out.u32(limits.max_head_bytes);
    out.u16(limits.max_fields);
    out.u32(limits.max_requests);
    out.u32(limits.max_streams);
}

fn read_listener(input: &mut In<'_>, counts: Counts) -> Result<Listener, DecodeError> {
    Ok(Listener {
        name: input.text("listener.name")?,
        address: input.address("listener.address")?,
        trusted_proxies: input.list("listener.trusted_proxies", MAX_ENTRIES, read_cidr)?,
        proxy_protocol_from: input.list("listener.proxy_protocol_from", MAX_ENTRIES, read_cidr)?,
        forwarded: input.bool("listener.forwarded")?,
        underscore_fields: match input.u8("listener.underscore_fields")? {
            0 => UnderscoreFields::Refuse,
            1 => UnderscoreFields::Drop,
            other => return Err(input.tag("listener.underscore_fields", other)),
        },
        tls: input.option("listener.tls", |input| tls::read_listener_tls(input, counts))?,
        h2c: input.bool("listener.h2c")?,
        limits: ListenerLimits {
            max_connections: input.u32("listener.limits.max_connections")?,
            header_timeout_ms: input.u32("listener.limits.header_timeout_ms")?,
            idle_timeout_ms: input.u32("listener.limits.idle_timeout_ms")?,
            min_body_rate: input.u32("listener.limits.min_body_rate")?,
            write_timeout_ms: input.u32("listener.limits.write_timeout_ms")?,
            max_head_bytes: input.u32("listener.limits.max_head_bytes")?,
            max_fields: input.u16("listener.limits.max_fields")?,
            max_requests: input.u32("listener.limits.max_requests")?,
            max_streams: input.u32("listener.limits.max_streams")?,
        },
    })
}

fn write_cidr(out: &mut Out, cidr: &Cidr) {
    out.ip(cidr.network);
    out.u8(cidr.prefix);
}

fn read_cidr(input: &mut In<'_>) -> Result<Cidr, DecodeError> {
    let network = input.ip("cidr.network")?;
    let max = if network.is_ipv4() { 32 } else { 128 };
    let at_prefix = input.fault("cidr.prefix", Fault::Short);
    let prefix = input.u8("cidr.prefix")?;
    if prefix > max {
        let fault = Fault::OutOfRange { found: prefix.into(), min: 0, max: max.into() };
        return Err(DecodeError { fault, ..at_prefix });
    }
    Ok(Cidr { network, prefix })
}

fn write_route(out: &mut Out, route: &Route) {
    out.text(&route.name);
    out.list(&route.hosts, |out, host| out.text(host));
    let (tag, path) = match &route.path {
        PathMatch::Exact(path) => (0, path),
        PathMatch::Prefix(path) => (1, path),
        PathMatch::Regex(pattern) => (2, pattern),
        PathMatch::Template(template) => (3, template),
    };
    out.u8(tag);
    out.text(path);
    out.list(&route.methods, |out, method| out.text(method));
    out.list(&route.headers, write_field_match);
    out.list(&route.query, write_field_match);
    match &route.rewrite {
        PathRewrite::Keep => out.u8(0),
        PathRewrite::StripPrefix => out.u8(1),
        PathRewrite::ReplacePrefix(prefix) => {
            out.u8(2);
            out.text(prefix);
        }
    }
    out.option(route.shape.as_deref(), shape::write);
    out.list(&route.backends, |out, backend| {
        out.u32(backend.upstream);
        out.u32(backend.weight);
    });
    out.option(route.aggregate.as_deref(), aggregate::write);
    upstream::write_timeouts(out, &route.timeouts);
    out.u64(route.max_body_bytes);
    out.option(route.payload.as_deref(), payload::write);
    out.list(&route.upgrades, |out, token| out.text(token));
    out.u8(route.early_data.into());
    out.u8(route.grpc_web.into());
    out.option(route.transcode.as_ref(), transcode::write_route);
    out.option(route.retry.as_ref(), resilience::write_retry);
    out.option(route.cache.as_ref(), cache::write_route);
    out.option(route.hedge.as_ref(), resilience::write_hedge);
    resilience::write_priority(out, route.priority);
    out.option(route.mirror.as_ref(), resilience::write_mirror);
    out.option(route.deadline_header.as_ref(), |out, name| out.text(name));
    out.option(route.auth.as_ref(), auth::write_route_auth);
    out.option(route.networks.as_ref(), auth::write_networks);
    limit::write_named(out, &route.limits);
    out.option(route.cors.as_ref(), auth::write_cors);
    out.option(route.processor.as_ref(), processor::write);
    out.option(route.validation.as_ref(), validation::write_route);
    out.option(route.graphql.as_deref(), graphql::write);
}

fn read_route(input: &mut In<'_>, counts: Counts, upstreams: usize) -> Result<Route, DecodeError> {
    let fault = Fault::OutOfRange { found: 0, min: 1, max: MAX_ENTRIES as u64 };
    let unanswered = input.fault("route.backends", fault);
    let route = Route {
        name: input.text("route.name")?,
        hosts: input.list("route.hosts", MAX_ENTRIES, |input| input.text("route.host"))?,
        path: match input.u8("route.path")? {
            0 => PathMatch::Exact(input.text("route.path")?),
            1 => PathMatch::Prefix(input.text("route.path")?),
            2 => PathMatch::Regex(input.text("route.path")?),
            3 => PathMatch::Template(input.text("route.path")?),
            other => return Err(input.tag("route.path", other)),
        },
        methods: input.list("route.methods", MAX_ENTRIES, |input| input.text("route.method"))?,
        headers: input.list("route.headers", MAX_ENTRIES, read_field_match)?,
        query: input.list("route.query", MAX_ENTRIES, read_field_match)?,
        rewrite: match input.u8("route.rewrite")? {
            0 => PathRewrite::Keep,
            1 => PathRewrite::StripPrefix,
            2 => PathRewrite::ReplacePrefix(input.text("route.rewrite")?),
            other => return Err(input.tag("route.rewrite", other)),
        },
        shape: input.option("route.shape", |input| shape::read(input).map(Box::new))?,
        backends: input.list("route.backends", MAX_ENTRIES, |input| {
            Ok(Backend {
                upstream: input.index("route.backend.upstream", upstreams)?,
                weight: input.u32_within("route.backend.weight", 0, MAX_WEIGHT)?,
            })
        })?,
        aggregate: input.option("route.aggregate", |input| {
            aggregate::read(input, upstreams, counts.protos).map(Box::new)
        })?,
        timeouts: upstream::read_timeouts(input)?,
        max_body_bytes: input.u64("route.max_body_bytes")?,
        payload: input.option("route.payload", |input| payload::read(input).map(Box::new))?,
        upgrades: input.list("route.upgrades", MAX_ENTRIES, |input| input.text("route.upgrade"))?,
        early_data: input.bool("route.early_data")?,
        grpc_web: input.bool("route.grpc_web")?,
        transcode: input
            .option("route.transcode", |input| transcode::read_route(input, counts.protos))?,
        retry: input.option("route.retry", resilience::read_retry)?,
        cache: input.option("route.cache", cache::read_route)?,
        hedge: input.option("route.hedge", resilience::read_hedge)?,
        priority: resilience::read_priority(input)?,
        mirror: input.option("route.mirror", |input| resilience::read_mirror(input, upstreams))?,
        deadline_header: input
            .option("route.deadline_header", |input| input.text("route.deadline_header"))?,
        auth: input.option("route.auth", |input| auth::read_route_auth(input, counts))?,
        networks: input.option("route.networks", auth::read_networks)?,
        limits: limit::read_named(input, "route.limits", counts.limits)?,
        cors: input.option("route.cors", auth::read_cors)?,
        processor: input.option("route.processor", |input| processor::read(input, upstreams))?,
        validation: input
            .option("route.validate", |input| validation::read_route(input, counts))?,
        graphql: input.option("route.graphql", |input| graphql::read(input).map(Box::new))?,
    };
    let answers = route.shape.as_ref().is_some_and(|shape| shape.answer.is_some());
    match route.backends.is_empty() && route.aggregate.is_none() && !answers {
        true => Err(unanswered),
        false => Ok(route),
    }
}

fn write_field_match(out: &mut Out, field: &FieldMatch) {
    out.text(&field.name);
    match &field.value {
        ValueMatch::Present => out.u8(0),
        ValueMatch::Exact(value) => {
            out.u8(1);
            out.text(value);
        }
        ValueMatch::Regex(pattern) => {
            out.u8(2);
            out.text(pattern);
        }
    }
}

fn read_field_match(input: &mut In<'_>) -> Result<FieldMatch, DecodeError> {
    Ok(FieldMatch {
        name: input.text("field.name")?,
        value: match input.u8("field.value")? {
            0 => ValueMatch::Present,
            1 => ValueMatch::Exact(input.text("field.value")?),
            2 => ValueMatch::Regex(input.text("field.value")?),
            other => return Err(input.tag("field.value", other)),
        },
    })
}

#[cfg(all(test, not(loom)))]
mod tests;
