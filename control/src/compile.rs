//! Spec → Snapshot: names become indexes, host names become addresses, defaults are all there.

use std::collections::HashMap;
use std::net::IpAddr;

use contract::snapshot as flat;

use crate::keys::Fetched;
use crate::material::Material;
use crate::spec::{
    Cidr, ExternalProcessor, FieldMatch, Graphql, Listener, OnProcessorFailure, PathMatch,
    ProcessorView, Rewrite, Route, Spec, UnderscoreFields, ValueMatch,
};
use identities::Identities;
use providers::Providers;

pub use providers::jws;

mod aggregate;
mod cache;
mod callers;
mod identities;
mod limits;
mod payload;
mod providers;
mod shape;
mod transcode;
mod upstreams;
mod validation;

/// Where an upstream stands, by its name.
type Indexes<'a> = HashMap<&'a str, flat::UpstreamIndex>;

/// What a spec is compiled with.
pub struct Inputs<'a> {
    /// The addresses of a host name, in any order; none leaves the target out until a later epoch.
    pub resolve: &'a dyn Fn(&str) -> Vec<IpAddr>,
    /// What the spec's files hold.
    pub material: &'a Material,
    /// Keys of session tickets, newest first. Left out when no listener speaks TLS.
    pub ticket_keys: &'a [flat::TicketKey],
    /// Keys that sessions of logins are sealed with where the spec has none, newest first.
    pub cookie_keys: &'a [[u8; 32]],
    /// What providers have said.
    pub fetched: &'a Fetched,
    /// What was compiled last.
    pub before: Option<Before<'a>>,
}

/// What was compiled last. Its consumers are taken again where nothing of them has changed.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    pub spec: &'a Spec,
    pub material: &'a Material,
    pub auth: &'a flat::Auth,
}

impl<'a> Before<'a> {
    fn consumers(self, spec: &Spec, material: &Material) -> Option<&'a flat::Consumers> {
        let names = |spec: &'a Spec| spec.authenticators.iter().map(|one| &one.name);
        let same = spec.consumers.is(&self.spec.consumers)
            && spec.groups == self.spec.groups
            && spec.authenticators.iter().map(|one| &one.name).eq(names(self.spec))
            && *material == *self.material;
        same.then_some(&self.auth.consumers)
    }
}

/// Compiles a spec that passed [`crate::spec::load`].
///
/// The snapshot does not depend on the order of resolved addresses, so that equal answers make equal
/// snapshots. Total: a backend, mirror or fallback that names no upstream (which a loaded spec cannot have) is left out;
/// what material lacks makes a snapshot that is refused when it is decoded, never one that is less
/// safe than the spec.
pub fn compile(spec: &Spec, epoch: u64, revision: u64, inputs: &Inputs<'_>) -> flat::Snapshot {
    let index: Indexes<'_> =
        (0..).zip(&spec.upstreams).map(|(at, upstream)| (upstream.name.as_str(), at)).collect();
    let places = callers::Places::new(spec);
    let policies = limits::places(spec);
    let mut identities = Identities::new(inputs.material);
    let listeners: Vec<_> =
        spec.listeners.iter().map(|one| listener(one, &mut identities)).collect();
    let auth = callers::auth(spec, &places, inputs, &mut identities);
    let version = callers::version(&auth, &identities, inputs.before.map(|before| before.auth));
    let upstreams = spec
        .upstreams
        .iter()
        .map(|one| flat::Upstream {
            credentials: one.credentials.as_ref().map(|credentials| {
                Providers::new(spec, inputs, &mut identities).credentials(credentials)
            }),
            ..upstreams::upstream(one, &index, inputs.resolve, &mut identities)
        })
        .collect();
    let mut rules = validation::Rules::new(spec, inputs.material);
    let routes = spec.routes.iter().map(|one| route(one, &index, &places, &policies, &mut rules));
    let routes: Vec<flat::Route> = routes
        .zip(&spec.routes)
        .map(|(flat, one)| flat::Route {
            transcode: transcode::route(one, spec, inputs.material),
            aggregate: aggregate::route(one, &index, spec, inputs.material).map(Box::new),
            ..flat
        })
        .collect();
    let secure = listeners.iter().any(|listener| listener.tls.is_some());
    flat::Snapshot {
        auth: flat::Auth { version, ..auth },
        limits: limits::limits(spec),
        epoch,
        revision,
        node: flat::Node {
            via: spec.node.via.clone(),
            name: spec.node.name.clone().unwrap_or_default(),
            drain_timeout_ms: spec.node.drain_timeout_ms,
            locality: spec.node.locality.clone().unwrap_or_default(),
            overload: flat::Overload {
                queue_delay_ms: spec.node.overload.queue_delay_ms,
                memory_percent: spec.node.overload.memory_percent,
            },
        },
        ticket_keys: if secure { inputs.ticket_keys.to_vec() } else { Vec::new() },
        listeners,
        upstreams,
        routes,
        validation: rules.validation,
        protos: transcode::protos(spec, inputs.material),
        cache: cache::cache(&spec.cache),
        certificates: identities.certificates,
        trust: identities.trust,
    }
}

fn listener(listener: &Listener, identities: &mut Identities<'_>) -> flat::Listener {
    let limits = &listener.limits;
    flat::Listener {
        name: listener.name.clone(),
        address: listener.listen,
        trusted_proxies: cidrs(&listener.trusted_proxies),
        proxy_protocol_from: cidrs(&listener.proxy_protocol.from),
        forwarded: listener.forwarded,
        underscore_fields: match listener.underscore_fields {
            UnderscoreFields::Refuse => flat::UnderscoreFields::Refuse,
            UnderscoreFields::Drop => flat::UnderscoreFields::Drop,
        },
        tls: listener.tls.as_ref().map(|tls| identities.listener(tls)),
        h2c: listener.h2c,
        limits: flat::ListenerLimits {
            max_connections: limits.max_connections,
            header_timeout_ms: limits.header_timeout_ms,
            idle_timeout_ms: limits.idle_timeout_ms,
            min_body_rate: limits.min_body_rate,
            write_timeout_ms: limits.write_timeout_ms,
            max_head_bytes: limits.max_head_bytes,
            max_fields: limits.max_fields,
            max_requests: limits.max_requests,
            max_streams: limits.max_streams,
        },
    }
}

fn cidrs(list: &[Cidr]) -> Vec<flat::Cidr> {
    list.iter().map(|cidr| flat::Cidr { network: cidr.network, prefix: cidr.prefix }).collect()
}

fn route<'a>(
    route: &'a Route,
    index: &Indexes<'_>,
    places: &callers::Places<'_>,
    policies: &limits::Limits<'_>,
    rules: &mut validation::Rules<'a>,
) -> flat::Route {
    flat::Route {
        limits: route.limits.iter().filter_map(|name| policies.get(&**name).copied()).collect(),
        auth: route.auth.as_ref().map(|auth| callers::route_auth(auth, places)),
        networks: route.networks.as_ref().map(callers::networks),
        cors: route.cors.as_ref().map(callers::cors),
        processor: route.external_processor.as_ref().and_then(|one| processor(one, index)),
        validation: route.validate.as_ref().map(|one| rules.route(one)),
        graphql: route.graphql.as_deref().map(|one| Box::new(graphql(one))),
        name: route.name.clone(),
        hosts: route.matches.hosts.clone(),
        path: match &route.matches.path {
            PathMatch::Exact(path) => flat::PathMatch::Exact(path.clone()),
            PathMatch::Prefix(path) => flat::PathMatch::Prefix(path.clone()),
            PathMatch::Regex(pattern) => flat::PathMatch::Regex(pattern.clone()),
            PathMatch::Template(template) => flat::PathMatch::Template(template.clone()),
        },
        methods: route.matches.methods.clone(),
        headers: route.matches.headers.iter().map(field).collect(),
        query: route.matches.query.iter().map(field).collect(),
        rewrite: match &route.rewrite {
            Rewrite::Keep => flat::PathRewrite::Keep,
            Rewrite::StripPrefix => flat::PathRewrite::StripPrefix,
            Rewrite::ReplacePrefix(prefix) => flat::PathRewrite::ReplacePrefix(prefix.clone()),
        },
        shape: shape::shape(route),
        backends: route
            .upstreams
            .iter()
            .filter_map(|backend| {
                let upstream = *index.get(backend.name.as_str())?;
                Some(flat::Backend { upstream, weight: backend.weight })
            })
            .collect(),
        aggregate: None,
        timeouts: upstreams::route_timeouts(&route.timeouts),
        max_body_bytes: route.max_body_bytes,
        payload: payload::payload(route),
        upgrades: route.upgrades.clone(),
        early_data: route.early_data,
        grpc_web: route.grpc_web,
        transcode: None,
        retry: route.retry.as_ref().map(upstreams::retry),
        cache: route.cache.as_ref().map(cache::route),
        hedge: route.hedge.as_ref().map(upstreams::route_hedge),
        priority: upstreams::priority(route.priority),
        mirror: route.mirror.as_ref().and_then(|mirror| upstreams::mirror(mirror, index)),
        deadline_header: route.deadline_header.clone(),
    }
}

fn graphql(from: &Graphql) -> flat::Graphql {
    flat::Graphql {
        max_depth: from.max_depth,
        max_cost: from.max_cost,
        max_aliases: from.max_aliases,
        max_tokens: from.max_tokens,
        max_batch: from.max_batch,
        max_bytes: u32::try_from(from.max_bytes).unwrap_or(u32::MAX),
        introspection: from.introspection,
        list_arguments: from.list_arguments.clone(),
        weights: from.weights.iter().map(|(name, weight)| (name.clone(), *weight)).collect(),
        operations: from.operations.clone(),
        documents: from.documents.clone(),
    }
}

fn processor(from: &ExternalProcessor, index: &Indexes<'_>) -> Option<flat::Processor> {
    let view = |view| match view {
        ProcessorView::Nothing => flat::ProcessorView::Nothing,
        ProcessorView::Headers => flat::ProcessorView::Head,
        ProcessorView::Body => flat::ProcessorView::Body,
    };
    Some(flat::Processor {
        upstream: *index.get(from.upstream.as_str())?,
        request: view(from.request),
        response: view(from.response),
        timeout_ms: from.timeout_ms,
        max_body_bytes: u32::try_from(from.max_body_bytes).unwrap_or(u32::MAX),
        pass_on_failure: from.on_failure == OnProcessorFailure::Pass,
    })
}

fn field(field: &FieldMatch) -> flat::FieldMatch {
    flat::FieldMatch {
        name: field.name.clone(),
        value: match &field.value {
            ValueMatch::Present => flat::ValueMatch::Present,
            ValueMatch::Exact(value) => flat::ValueMatch::Exact(value.clone()),
            ValueMatch::Regex(pattern) => flat::ValueMatch::Regex(pattern.clone()),
        },
    }
}

#[cfg(test)]
mod tests;
