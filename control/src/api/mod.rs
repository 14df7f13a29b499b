//! The admin listener: health, metrics and the API under `/v1`.
//!
//! The [`table`] has every operation; the [`router`] and the [`openapi`] document are made of it. A
//! request goes through [`admit`] first: who asks, and what they may.
//!
//! Against web pages that reach for it through a visitor's browser, requests with an `Origin` and, on
//! the loopback while nobody is listed in `admin.access`, requests under a foreign host name (DNS
//! rebinding) are refused.

mod admit;
mod audit;
mod bounds;
mod cache;
mod callers;
mod config;
mod consumer_keys;
mod entities;
mod extract;
mod guard;
mod limits;
pub mod model;
pub mod openapi;
mod operation;
mod page;
mod probes;
mod problem;
mod rollout;
mod serve;
mod state;
mod table;
mod trial;

use std::sync::{Arc, Mutex};

use axum::{Router, extract::DefaultBodyLimit, middleware};

pub use problem::Problem;
pub use serve::serve;
pub use state::in_use as certificates;

use admit::{Door, Refusals, Rule};

use crate::{access::Gate, running::Running};

/// All of the admin listener.
pub fn router(running: Running, gate: Gate) -> Router {
    let door = Door {
        guard: guard::Guard::new(running.admin()),
        running: running.clone(),
        gate,
        under_way: Arc::default(),
        refusals: Arc::new(Mutex::new(Refusals::new())),
    };
    let mut router = Router::new();
    for one in table::operations(&mut openapi::generator()) {
        let call = match one.role {
            None => one.call,
            Some(role) => {
                let takes = one.body.map_or(&[][..], |(takes, _)| takes);
                let bounds = bounds::Bounds::of(&one.parameters);
                let rule = Rule { action: one.id, role, changes: one.changes, takes, bounds };
                let judge = middleware::from_fn_with_state((door.clone(), rule), admit::judge);
                one.call.route_layer(judge)
            }
        };
        router = router.route(&one.path, call);
    }
    router
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        // The body is here already when a handler runs: `admit` has bounded it.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(door, admit::admit))
        .with_state(running)
}

#[cfg(test)]
mod tests;
