//! The engine as control sees it: functions that `main.rs` fills in.

use std::os::fd::OwnedFd;

use contract::snapshot::Snapshot;

use crate::{
    explain::{Explanation, Question},
    fit::Judge,
};

/// The engine's entry points. Plain functions: which engine it is, is known when compiling.
#[derive(Clone, Copy)]
pub struct EngineEntry {
    /// Runs the shards; returns once drained. The error is one line for a person.
    pub run: fn(EngineStart) -> Result<(), String>,
    /// Checks kernel, memlock and io_uring for so many shards.
    pub probe: fn(usize) -> Result<(), String>,
    /// Whether the engine could take a snapshot, without an engine.
    pub check: Judge,
    /// Serves the engine as a worker for jq programs.
    pub jq: fn(),
    /// Explains a request under a snapshot.
    pub explain: fn(&Snapshot, &Question) -> Result<Explanation, String>,
}

/// What an engine starts with.
pub struct EngineStart {
    pub bus: OwnedFd,
    pub segment: OwnedFd,
    /// One shard per entry.
    pub cpus: Vec<usize>,
}
