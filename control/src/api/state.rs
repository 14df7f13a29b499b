//! What runs now.

use axum::{Json, extract::State};
use contract::snapshot::{self as flat, Alpn, PathMatch};

use super::model::{Certificate, Cluster, Listener, Route, Share, Status, Upstream};
use crate::{
    fit::unix_now,
    running::{Current, Running},
    spec::ClientAuthMode,
};

/// `GET /v1/status`.
pub async fn status(State(running): State<Running>) -> Json<Status> {
    Json(running.status())
}

/// `GET /v1/cluster`: every node of the store.
pub async fn cluster(State(running): State<Running>) -> Json<Cluster> {
    Json(running.cluster().await)
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
            PathMatch::Template(template) => template.clone(),
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

/// `GET /v1/upstreams`: with how they and their targets stand.
pub async fn upstreams(State(running): State<Running>) -> Json<Vec<Upstream>> {
    Json(running.upstreams())
}

/// `GET /v1/listeners`.
pub async fn listeners(State(running): State<Running>) -> Json<Vec<Listener>> {
    let current = running.current();
    let listeners = current.snapshot.listeners.iter().map(|listener| Listener {
        name: listener.name.clone(),
        address: listener.address.to_string(),
        protocols: protocols(listener),
        tls: listener.tls.is_some(),
        shards: running.shards(),
    });
    Json(listeners.collect())
}

fn protocols(listener: &flat::Listener) -> Vec<String> {
    match &listener.tls {
        Some(tls) => tls
            .alpn
            .iter()
            .map(|alpn| match alpn {
                Alpn::H2 => "h2".into(),
                Alpn::Http11 => "http/1.1".into(),
            })
            .collect(),
        None if listener.h2c => vec!["http/1.1".into(), "h2c".into()],
        None => vec!["http/1.1".into()],
    }
}

/// `GET /v1/certificates`.
pub async fn certificates(State(running): State<Running>) -> Json<Vec<Certificate>> {
    Json(in_use(&running.current()))
}

/// The certificates that `current` shows to clients and to upstreams.
pub fn in_use(current: &Current) -> Vec<Certificate> {
    let now = unix_now();
    let row = |cert: &str, key: &str, names: Vec<String>| {
        let leaf = current.material.pair(cert, key).map(|pair| pair.leaf.clone());
        let leaf = leaf.unwrap_or_default();
        Certificate {
            listener: None,
            upstream: None,
            names,
            days_left: (leaf.not_after - now).div_euclid(86_400),
            subject: leaf.subject,
            issuer: leaf.issuer,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            key_type: leaf.key_type,
            client_auth: "none".into(),
            file: cert.into(),
        }
    };
    let mut rows = Vec::new();
    for listener in &current.spec.listeners {
        for one in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            let client_auth = match one.client_auth.as_ref().map(|auth| auth.mode) {
                None => "none",
                Some(ClientAuthMode::Request) => "request",
                Some(ClientAuthMode::Require) => "require",
            };
            rows.push(Certificate {
                listener: Some(listener.name.clone()),
                client_auth: client_auth.into(),
                ..row(&one.cert, &one.key, current.material.names(one))
            });
        }
    }
    for upstream in &current.spec.upstreams {
        let Some(tls) = &upstream.tls else { continue };
        if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
            let names = current.material.pair(cert, key).map(|pair| pair.leaf.names.clone());
            rows.push(Certificate {
                upstream: Some(upstream.name.clone()),
                ..row(cert, key, names.unwrap_or_default())
            });
        }
    }
    rows
}
