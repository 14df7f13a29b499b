//! What runs now.

use axum::{Json, extract::State};
use contract::snapshot::{Balance, PathMatch};

use super::model::{Listener, Route, Share, Status, Target, Upstream};
use crate::running::Running;

/// `GET /v1/status`.
pub async fn status(State(running): State<Running>) -> Json<Status> {
    Json(running.status())
}

/// `GET /v1/routes`.
pub async fn routes(State(running): State<Running>) -> Json<Vec<Route>> {
    let current = running.current();
    let upstreams = &current.snapshot.upstreams;
    let routes = current.snapshot.routes.iter().map(|route| Route {
        name: route.name.clone(),
        methods: route.methods.clone(),
        hosts: route.hosts.clone(),
        path: match &route.path {
            PathMatch::Exact(path) => format!("= {path}"),
            PathMatch::Prefix(path) => format!("{path}*"),
            PathMatch::Regex(pattern) => format!("~ {pattern}"),
        },
        conditions: route.headers.len() + route.query.len(),
        upstreams: route
            .backends
            .iter()
            .map(|backend| Share {
                name: upstreams
                    .get(backend.upstream as usize)
                    .map(|upstream| upstream.name.clone())
                    .unwrap_or_default(),
                weight: backend.weight,
            })
            .collect(),
    });
    Json(routes.collect())
}

/// `GET /v1/upstreams`.
pub async fn upstreams(State(running): State<Running>) -> Json<Vec<Upstream>> {
    let current = running.current();
    let upstreams = current.snapshot.upstreams.iter().map(|upstream| Upstream {
        name: upstream.name.clone(),
        balance: match upstream.balance {
            Balance::RoundRobin => "round_robin",
            Balance::Weighted => "weighted",
            Balance::LeastConnections => "least_connections",
        }
        .into(),
        targets: upstream
            .targets
            .iter()
            .map(|target| Target {
                name: target.name.clone(),
                address: target.address.to_string(),
                weight: target.weight,
            })
            .collect(),
    });
    Json(upstreams.collect())
}

/// `GET /v1/listeners`.
pub async fn listeners(State(running): State<Running>) -> Json<Vec<Listener>> {
    let current = running.current();
    let listeners = current.snapshot.listeners.iter().map(|listener| Listener {
        name: listener.name.clone(),
        address: listener.address.to_string(),
        shards: running.shards(),
    });
    Json(listeners.collect())
}
