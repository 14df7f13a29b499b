//! What probes and scrapers ask, and what the API says of itself.

use axum::{
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};

use super::openapi;
use crate::running::Running;

/// `GET /healthz`.
pub async fn healthy() -> &'static str {
    "ok\n"
}

/// `GET /readyz`.
pub async fn ready(State(running): State<Running>) -> impl IntoResponse {
    match running.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

/// `GET /metrics`.
pub async fn metrics(State(running): State<Running>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], running.metrics())
}

/// `GET /v1/openapi.json`.
pub async fn openapi() -> impl IntoResponse {
    let text = openapi::document().to_string();
    ([(CONTENT_TYPE, "application/json")], text)
}
