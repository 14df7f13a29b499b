//! Sluice's data plane. `pipeline.rs` tells the life of one request.

pub mod io;
