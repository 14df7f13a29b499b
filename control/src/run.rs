//! The control process: from its start to its end.

use std::{fs::File, io::Read, os::fd::OwnedFd, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use contract::{segment::Segment, snapshot::Snapshot};
use rustix::process::Signal;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    api,
    cli::{Failure, exit},
    entry::EngineEntry,
    place::StateDirectory,
    publish::Publisher,
    records::Records,
    resolve::Resolver,
    running::{Change, Parts, Refused, Running},
    spec,
    store::Store,
    supervise::child::{follow_parent, inherited},
};

/// Largest snapshot that is read back, in bytes.
const MAX_SNAPSHOT_BYTES: u64 = 1 << 30;

/// What the supervisor hands to control. The bus is its standard input.
#[derive(Debug, Args)]
pub struct Inherited {
    #[arg(long)]
    parent: u32,
    #[arg(long)]
    segment: i32,
    #[arg(long)]
    state: PathBuf,
    /// The spec given to `up`; only for the first control process.
    #[arg(long, requires = "spec_name")]
    spec: Option<i32>,
    #[arg(long)]
    spec_name: Option<String>,
    /// The snapshot that the engine serves.
    #[arg(long)]
    last: Option<i32>,
}

/// Runs the control process until the supervisor ends it.
pub fn control(inherited: Inherited, engine: EngineEntry) -> Result<(), Failure> {
    follow_parent(inherited.parent, Signal::TERM, c"sluice-control")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()?;
    let result = runtime.block_on(serve(inherited, engine));
    // A DNS look-up or a disk that hangs must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(inherited: Inherited, engine: EngineEntry) -> Result<(), Failure> { todo!() }
