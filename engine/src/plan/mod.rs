//! Snapshot → Plan: the configuration of one epoch in the form the shards work with.
//!
//! A Plan is built once per epoch off the hot path, never changes afterwards, and is shared by all
//! shards; whatever a shard must count or rotate (balancers, pools) lives in the shard.

mod route;

use std::net::{IpAddr, SocketAddr};

use contract::snapshot::{
    self, Balance, Cidr, HealthCheck, HostHeader, ListenerLimits, Pool, Protocol, Snapshot,
    Timeouts, UnderscoreFields,
};

pub use self::route::{Backend, Route};
use crate::route::{RouteIndex, Router};

/// The configuration of one epoch.
#[derive(Debug)]
pub struct Plan {
    /// What shards report as adopted.
    pub epoch: u64,
    /// Revision in control's store that the epoch was compiled from.
    pub revision: u64,
    pub node: Node,
    pub listeners: Vec<Listener>,
    pub upstreams: Vec<Upstream>,
    /// In the order of the spec; access records carry indexes into this.
    pub routes: Vec<Route>,
    /// Finds the route of a request; its answers index [`Plan::routes`].
    pub router: Router,
}

/// Settings of the node as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Pseudonym in `Via` (RFC 9110 §7.6.3).
    pub via: Box<str>,
    /// Longest a drain may take, in milliseconds.
    pub drain_timeout_ms: u32,
}

/// One listening address.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: Box<str>,
    pub address: SocketAddr,
    /// Peers whose `X-Forwarded-*`/`Forwarded` are believed.
    pub trusted_proxies: Box<[Cidr]>,
    /// Peers that must speak the PROXY protocol; empty: nobody may.
    pub proxy_protocol_from: Box<[Cidr]>,
    /// Also send RFC 7239 `Forwarded` upstream.
    pub forwarded: bool,
    pub underscore_fields: UnderscoreFields,
    /// Speak HTTP/2 with clients that begin with its preface on clear text.
    pub h2c: bool,
    pub limits: ListenerLimits,
}

impl Listener {
    /// Whether the forwarding fields that `peer` sends are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|cidr| cidr.contains(peer))
    }

    /// Whether `peer` must begin its connections with a PROXY protocol header.
    pub fn expects_proxy_protocol(&self, peer: IpAddr) -> bool {
        self.proxy_protocol_from.iter().any(|cidr| cidr.contains(peer))
    }
}

/// A cluster of interchangeable targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    pub name: Box<str>,
    pub balance: Balance,
    /// May be empty: the answer is then 503.
    pub targets: Box<[Target]>,
    pub pool: Pool,
    pub timeouts: Timeouts,
    pub host_header: HostHeader,
    pub protocol: Protocol,
    pub health: Option<HealthCheck>,
}

/// One address requests are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// At least 1.
    pub weight: u32,
    /// What the spec called it, `host:port`.
    pub name: Box<str>,
}

/// Why a snapshot cannot become a Plan: always the operator's to mend, in the spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("route {route:?}, {field}: {problem}")]
pub struct PlanError {
    /// Name of the route.
    pub route: String,
    /// Path of the field inside the route, such as `headers[0].value`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl Plan {
    /// Builds the Plan of `snapshot`.
    ///
    /// # Errors
    /// Names the first route whose pattern, condition, rewrite or backend cannot be used.
    pub fn build(snapshot: Snapshot) -> Result<Plan, PlanError> {
        let router = Router::build(&snapshot.routes)?;
        let upstreams: Vec<Upstream> = snapshot.upstreams.into_iter().map(upstream).collect();
        let routes = snapshot
            .routes
            .into_iter()
            .map(|route| Route::build(route, upstreams.len()))
            .collect::<Result<Vec<Route>, PlanError>>()?;
        let snapshot::Node { via, drain_timeout_ms } = snapshot.node;
        Ok(Plan {
            epoch: snapshot.epoch,
            revision: snapshot.revision,
            node: Node { via: via.into(), drain_timeout_ms },
            listeners: snapshot.listeners.into_iter().map(listener).collect(),
            upstreams,
            routes,
            router,
        })
    }

    /// The route that this Plan's router found.
    pub fn route(&self, index: RouteIndex) -> &Route {
        &self.routes[index as usize]
    }

    /// The upstream that a backend of this Plan names.
    pub fn upstream(&self, backend: Backend) -> &Upstream {
        &self.upstreams[backend.upstream as usize]
    }
}

fn listener(from: snapshot::Listener) -> Listener {
    Listener {
        name: from.name.into(),
        address: from.address,
        trusted_proxies: from.trusted_proxies.into(),
        proxy_protocol_from: from.proxy_protocol_from.into(),
        forwarded: from.forwarded,
        underscore_fields: from.underscore_fields,
        h2c: from.h2c,
        limits: from.limits,
    }
}

fn upstream(from: snapshot::Upstream) -> Upstream {
    let target = |target: snapshot::Target| Target {
        address: target.address,
        weight: target.weight.max(1),
        name: target.name.into(),
    };
    Upstream {
        name: from.name.into(),
        balance: from.balance,
        targets: from.targets.into_iter().map(target).collect(),
        pool: from.pool,
        timeouts: from.timeouts,
        host_header: from.host_header,
        protocol: from.protocol,
        health: from.health,
    }
}
