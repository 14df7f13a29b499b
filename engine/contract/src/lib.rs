//! What crosses the shared memory between control and engine, and nothing else.

pub mod record;
pub mod snapshot;
