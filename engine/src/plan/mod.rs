//! Snapshot → Plan: the configuration of one epoch in the form the shards work with.
//!
//! A Plan is built once per epoch off the hot path, never changes afterwards, and is shared by all
//! shards; whatever a shard must count or rotate (balancers, pools) lives in the shard.

mod route;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use contract::snapshot::{
    self, AdaptiveConcurrency, Balance, Bounds, Breaker, Cidr, Fallback, HealthCheck, Hedge,
    HostHeader, ListenerLimits, Outlier, Overload, Pool, Protocol, Retry, RetryBudget, Snapshot,
    Timeouts, UnderscoreFields,
};

pub use self::route::{Backend, Route};
use crate::auth::registry::Unfit;
use crate::auth::{Registry, policy};
use crate::limit;
use crate::route::{RouteIndex, Router};
use crate::store::grant::{self, Grant};
use crate::tls::{self, ClientSide, Fingerprint, ServerSide, Unusable};
use crate::transcode::{self, Proto};
use crate::upstream::balance::Rings;
use crate::validate::{self, Api, Schemas};

/// The configuration of one epoch.
#[derive(Debug)]
pub struct Plan {
    /// What shards report as adopted.
    pub epoch: u64,
    /// Revision in control's store that the epoch was compiled from.
    pub revision: u64,
    pub node: Node,
    pub listeners: Vec<Listener>,
    /// Who may call.
    pub auth: Arc<Registry>,
    /// How much they may.
    pub limits: limit::Policies,
    /// How much of answers is kept.
    pub cache: snapshot::Cache,
    /// Those that are as in the plan before are the same memory.
    pub upstreams: Vec<Arc<Upstream>>,
    /// In the order of the spec; access records carry indexes into this.
    pub routes: Vec<Route>,
    /// Finds the route of a request; its answers index [`Plan::routes`].
    pub router: Router,
    /// Routes with something to choose between upstreams.
    pub canaries: Vec<RouteIndex>,
}

/// Settings of the node as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Pseudonym in `Via` (RFC 9110 §7.6.3).
    pub via: Box<str>,
    /// Longest a drain may take, in milliseconds.
    pub drain_timeout_ms: u32,
    /// Targets of this locality are preferred; empty: none is.
    pub locality: Box<str>,
    pub overload: Overload,
}

/// One listening address.
#[derive(Clone, Debug)]
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
    /// `None`: clear text.
    pub tls: Option<Arc<ServerSide>>,
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
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    pub name: Box<str>,
    pub balance: Balance,
    /// Set where it balances by hash.
    pub rings: Option<Arc<Rings>>,
    /// May be empty: the answer is then 503.
    pub targets: Box<[Target]>,
    pub pool: Pool,
    pub timeouts: Timeouts,
    pub host_header: HostHeader,
    pub protocol: Protocol,
    /// `None`: clear text.
    pub tls: Option<Arc<ClientSide>>,
    pub health: Option<HealthCheck>,
    /// Below this share of live weight everything gets the fallback; 0: never.
    pub min_live_percent: u8,
    pub retry: Retry,
    pub retry_budget: RetryBudget,
    pub hedge: Option<Hedge>,
    /// Of the upstream as a whole, and of each target.
    pub bounds: Bounds,
    pub target_bounds: Bounds,
    pub breaker: Option<Breaker>,
    pub target_breaker: Option<Breaker>,
    pub fallback: Fallback,
    pub outlier: Option<Outlier>,
    pub concurrency: Option<AdaptiveConcurrency>,
    /// The token that requests carry.
    pub credentials: Option<Arc<Grant>>,
}

/// One address requests are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// At least 1.
    pub weight: u32,
    /// What the spec called it, `host:port`.
    pub name: Box<str>,
    /// Targets of a larger number are used as those of smaller ones fail.
    pub priority: u8,
    /// It is where the node is, or neither is anywhere in particular.
    pub local: bool,
}

impl Default for Target {
    /// Nowhere.
    fn default() -> Self {
        let from = snapshot::Target::default();
        Target {
            address: from.address,
            weight: from.weight,
            name: from.name.into(),
            priority: from.priority,
            local: true,
        }
    }
}

/// Why a snapshot cannot become a Plan: always the operator's to mend, in the spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entity} {name:?}, {field}: {problem}")]
pub struct PlanError {
    /// `listener`, `upstream`, `api` or `route`.
    pub entity: &'static str,
    pub name: String,
    /// Path of the field inside the entity, such as `headers[0].value` or
    /// `tls.certificates[0].key`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// What plans have in common, so that the next one need not build it again.
#[derive(Debug, Default)]
pub struct Memory {
    pub tls: tls::Memory,
    policies: policy::Memory,
    schemas: validate::Memory,
    protos: transcode::Memory,
    registry: Mutex<Weak<Registry>>,
    upstreams: Mutex<Vec<Kept>>,
    grants: Mutex<HashMap<Fingerprint, Weak<Grant>>>,
}

/// An upstream of the last plan, with all that it was made of.
#[derive(Debug)]
struct Kept {
    from: snapshot::Upstream,
    locality: String,
    upstream: Weak<Upstream>,
}

impl Kept {
    /// The upstream, if a plan still has it and it would be made the same way.
    fn same(
        &self,
        from: &snapshot::Upstream,
        locality: &str,
        tls: Option<&Arc<ClientSide>>,
        grant: Option<&Arc<Grant>>,
    ) -> Option<Arc<Upstream>> {
        let upstream = self.upstream.upgrade()?;
        let same = self.locality == locality
            && upstream.tls.as_ref().map(Arc::as_ptr) == tls.map(Arc::as_ptr)
            && upstream.credentials.as_ref().map(Arc::as_ptr) == grant.map(Arc::as_ptr)
            && self.from == *from;
        same.then_some(upstream)
    }
}

impl Memory {
    /// The registry of the snapshot: the last one's, if the snapshot's auth part has not changed.
    fn registry(&self, snapshot: &Snapshot) -> Result<Arc<Registry>, PlanError> {
        let mut last = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registry) = last.upgrade()
            && registry.version == snapshot.auth.version
        {
            return Ok(registry);
        }
        let registry = Arc::new(Registry::build(snapshot)?);
        *last = Arc::downgrade(&registry);
        Ok(registry)
    }

    /// The grant of these settings: that of earlier plans, so that its token lives on.
    fn grant(
        &self,
        from: &snapshot::ClientCredentials,
        snapshot: &Snapshot,
    ) -> Result<Arc<Grant>, Unfit> {
        let fingerprint = grant::fingerprint(from, snapshot);
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grant) = grants.get(&fingerprint).and_then(Weak::upgrade) {
            return Ok(grant);
        }
        grants.retain(|_, grant| grant.strong_count() > 0);
        let grant = Arc::new(Grant::build(from, snapshot)?);
        grants.insert(fingerprint, Arc::downgrade(&grant));
        Ok(grant)
    }
}

impl Plan {
    /// Builds the Plan of `snapshot` with no regard to earlier ones.
    ///
    /// # Errors
    /// As [`Plan::build_with`].
    pub fn build(snapshot: Snapshot) -> Result<Plan, PlanError> {
        Plan::build_with(snapshot, &Memory::default())
    }

    /// Builds the Plan of `snapshot`. What `memory` has from earlier plans is used again.
    ///
    /// # Errors
    /// Names the first route whose pattern, condition, rewrite or backend cannot be used, or the
    /// first listener or upstream whose certificates cannot.
    pub fn build_with(mut snapshot: Snapshot, memory: &Memory) -> Result<Plan, PlanError> {
        let (auth, shared) = (memory.registry(&snapshot)?, memory);
        let policies = &memory.policies;
        policies.sweep();
        shared.schemas.sweep();
        let memory = &memory.tls;
        memory.sweep();
        let router = Router::build(&snapshot.routes)?;
        let limits = limit::Policies::of(&snapshot)?;
        let mut listeners = Vec::with_capacity(snapshot.listeners.len());
        for from in std::mem::take(&mut snapshot.listeners) {
            let tls = from.tls.as_ref().map(|tls| memory.listener(tls, &snapshot)).transpose();
            let tls = tls.map_err(|error| unusable("listener", &from.name, error))?;
            listeners.push(listener(from, tls));
        }
        let mut kept = shared.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        let mut upstreams = Vec::with_capacity(snapshot.upstreams.len());
        for (at, from) in std::mem::take(&mut snapshot.upstreams).into_iter().enumerate() {
            let tls = from.tls.as_ref();
            let tls = tls.map(|tls| memory.upstream(tls, from.protocol, &snapshot)).transpose();
            let tls = tls.map_err(|error| unusable("upstream", &from.name, error))?;
            let grant = from.credentials.as_ref().map(|from| shared.grant(from, &snapshot));
            let grant = grant.transpose().map_err(|(field, problem)| PlanError {
                entity: "upstream",
                name: from.name.clone(),
                field: format!("credentials.{field}"),
                problem,
            })?;
            let locality = &snapshot.node.locality;
            let known = kept.get(at);
            let known =
                known.and_then(|one| one.same(&from, locality, tls.as_ref(), grant.as_ref()));
            if let Some(known) = known {
                upstreams.push(known);
                continue;
            }
            let built = upstream(from.clone(), tls, locality);
            let built = Arc::new(Upstream { credentials: grant, ..built });
            let upstream = Arc::downgrade(&built);
            let new = Kept { from, locality: locality.clone(), upstream };
            match kept.get_mut(at) {
                Some(place) => *place = new,
                None => kept.push(new),
            }
            upstreams.push(built);
        }
        kept.truncate(upstreams.len());
        drop(kept);
        let apis = apis(&snapshot, &shared.schemas)?;
        let protos = protos(&snapshot, &shared.protos)?;
        let routes = snapshot
            .routes
            .into_iter()
            .map(|route| Route::build(route, upstreams.len(), policies, &limits, &apis, &protos))
            .collect::<Result<Vec<Route>, PlanError>>()?;
        let canaries = (0..).zip(&routes).filter(|(_, route)| route.is_canary()).map(|(at, _)| at);
        let canaries = canaries.collect();
        let snapshot::Node { via, drain_timeout_ms, locality, overload, name: _ } = snapshot.node;
        Ok(Plan {
            epoch: snapshot.epoch,
            revision: snapshot.revision,
            node: Node { via: via.into(), drain_timeout_ms, locality: locality.into(), overload },
            listeners,
            auth,
            limits,
            cache: snapshot.cache,
            upstreams,
            routes,
            router,
            canaries,
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

/// The APIs that routes hold requests against.
fn apis(snapshot: &Snapshot, memory: &validate::Memory) -> Result<Vec<Arc<Api>>, PlanError> {
    let schemas = Schemas { from: &snapshot.validation, memory };
    let build = |from: &snapshot::Api| {
        let api = Api::build(from, &schemas).map_err(|problem| PlanError {
            entity: "api",
            name: from.name.clone(),
            field: "openapi".into(),
            problem,
        });
        api.map(Arc::new)
    };
    snapshot.validation.apis.iter().map(build).collect()
}

/// What routes transcode by.
fn protos(snapshot: &Snapshot, memory: &transcode::Memory) -> Result<Vec<Arc<Proto>>, PlanError> {
    let build = |from: &snapshot::ProtoSet| {
        memory.proto(&from.name, &from.descriptors).map_err(|problem| PlanError {
            entity: "proto",
            name: from.name.clone(),
            field: "name".into(),
            problem,
        })
    };
    snapshot.protos.iter().map(build).collect()
}

fn unusable(entity: &'static str, name: &str, error: Unusable) -> PlanError {
    PlanError { entity, name: name.into(), field: error.field, problem: error.problem }
}

fn listener(from: snapshot::Listener, tls: Option<Arc<ServerSide>>) -> Listener {
    Listener {
        name: from.name.into(),
        address: from.address,
        trusted_proxies: from.trusted_proxies.into(),
        proxy_protocol_from: from.proxy_protocol_from.into(),
        forwarded: from.forwarded,
        underscore_fields: from.underscore_fields,
        h2c: from.h2c,
        tls,
        limits: from.limits,
    }
}

fn upstream(from: snapshot::Upstream, tls: Option<Arc<ClientSide>>, locality: &str) -> Upstream {
    let target = |target: snapshot::Target| Target {
        address: target.address,
        weight: target.weight.max(1),
        name: target.name.into(),
        priority: target.priority,
        local: locality.is_empty() || target.locality == locality,
    };
    let targets: Box<[Target]> = from.targets.into_iter().map(target).collect();
    let hashes = matches!(from.balance, Balance::Hash { .. });
    Upstream {
        name: from.name.into(),
        balance: from.balance,
        rings: hashes.then(|| Arc::new(Rings::new(&targets))),
        targets,
        pool: from.pool,
        timeouts: from.timeouts,
        host_header: from.host_header,
        protocol: from.protocol,
        tls,
        health: from.health,
        min_live_percent: from.min_live_percent,
        retry: from.retry,
        retry_budget: from.retry_budget,
        hedge: from.hedge,
        bounds: from.bounds,
        target_bounds: from.target_bounds,
        breaker: from.breaker,
        target_breaker: from.target_breaker,
        fallback: from.fallback,
        outlier: from.outlier,
        concurrency: from.concurrency,
        credentials: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_that_stay_as_they_are_are_the_same_memory() {
        let upstream = |name: &str| snapshot::Upstream { name: name.into(), ..Default::default() };
        let memory = Memory::default();
        let build = |upstreams: Vec<snapshot::Upstream>| {
            Plan::build_with(Snapshot { upstreams, ..Default::default() }, &memory).unwrap()
        };
        let first = build(vec![upstream("a"), upstream("b")]);
        let other = snapshot::Upstream { min_live_percent: 7, ..upstream("b") };
        let second = build(vec![upstream("a"), other]);
        assert!(Arc::ptr_eq(&first.upstreams[0], &second.upstreams[0]));
        let floors = [&first, &second].map(|plan| plan.upstreams[1].min_live_percent);
        assert_eq!(floors, [0, 7]);
        let place = Arc::downgrade(&first.upstreams[0]);
        drop((first, second));
        assert!(place.upgrade().is_none(), "nobody keeps what no plan has");
    }

    #[test]
    fn rings_are_made_with_the_plan_and_only_where_they_are_needed() {
        let hash = Balance::Hash { key: snapshot::HashKey::ClientIp, load_percent: 125 };
        let balances = [hash, Balance::PowerOfTwo];
        let upstream = |balance| snapshot::Upstream { balance, ..Default::default() };
        let upstreams = balances.map(upstream).into();
        let plan = Plan::build(Snapshot { upstreams, ..Default::default() }).unwrap();
        let made = plan.upstreams.iter().map(|upstream| upstream.rings.is_some());
        assert_eq!(made.collect::<Vec<_>>(), [true, false]);
    }
}
