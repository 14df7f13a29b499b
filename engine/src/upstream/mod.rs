//! What the engine knows about upstreams.

pub mod balance;
