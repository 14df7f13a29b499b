//! The admin listener: health, metrics and the API under `/v1`.
//!
//! It has no login and is meant for the loopback. Against web pages that reach for it through a
//! visitor's browser, requests with an `Origin` and, on the loopback, requests under a foreign
//! host name (DNS rebinding) are refused.

mod callers;
mod config;
mod guard;
mod limits;
pub mod model;
mod problem;
mod state;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware,
    response::IntoResponse,
    routing::{get, post},
};

pub use problem::Problem;
pub use state::in_use as certificates;

use crate::{running::Running, spec};

/// All of the admin listener.
pub fn router(running: Running) -> Router {
    let v1 = Router::new()
        .route("/apply", post(config::apply))
        .route("/rollback", post(config::rollback))
        .route("/diff", post(config::diff))
        .route("/explain", post(config::explain))
        .route("/spec", get(config::spec))
        .route("/revisions", get(config::revisions))
        .route("/revisions/{id}", get(config::revision))
        .route("/status", get(state::status))
        .route("/cluster", get(state::cluster))
        .route("/routes", get(state::routes))
        .route("/upstreams", get(state::upstreams))
        .route("/listeners", get(state::listeners))
        .route("/certificates", get(state::certificates))
        .route("/authenticators", get(callers::authenticators))
        .route("/consumers", get(callers::consumers))
        .route("/keys", get(callers::keys))
        .route("/limits", get(limits::limits));
    let guard = guard::Guard::new(running.admin());
    Router::new()
        .nest("/v1", v1)
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .layer(DefaultBodyLimit::max(spec::MAX_BYTES + 1))
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .with_state(running)
}

async fn ready(State(running): State<Running>) -> impl IntoResponse {
    match running.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn metrics(State(running): State<Running>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], running.metrics())
}
