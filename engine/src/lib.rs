//! Sluice's data plane. `pipeline.rs` tells the life of one request.

pub mod io;
pub mod message;
pub mod plan;
pub mod route;
pub mod upstream;
