//! `sluice up`: the process that owns the listening sockets and keeps control and engine alive.
//!
//! One thread, one poll loop. It knows nothing of HTTP or specs beyond what it needs to start:
//! sockets, the last snapshot, two children and their buses.

mod banner;
pub mod child;
mod event;
mod watch;

use clap::Args;
use contract::segment::Segment;
use rustix::process::Signal;

use self::{banner::Banner, child::follow_parent, watch::Watch};
use crate::{
    cli::{Failure, Source, Up, exit, state_directory},
    demo,
    entry::{EngineEntry, EngineStart},
    place::StateDirectory,
};

/// Shards at most: the sockets of a listener travel in one message.
const MAX_SHARDS: usize = contract::bus::MAX_FDS;

/// Room for access records per shard, in bytes: at 300 bytes each and 100,000 a second, about
/// 140 ms of them.
const RING_BYTES: u32 = 4 << 20;

/// What the supervisor hands to the engine. The bus is its standard input.
#[derive(Debug, Args)]
pub struct EngineInherited {
    #[arg(long)]
    parent: u32,
    #[arg(long)]
    segment: i32,
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
}

#[derive(Debug, Args)]
pub struct DemoInherited {
    #[arg(long)]
    parent: u32,
}

/// Runs the gateway until it is told to stop.
pub fn up(up: &Up, engine: &EngineEntry) -> Result<(), Failure> {
    let banner = Banner::new();
    let cpus = cpus(up)?;
    (engine.probe)(cpus.len()).map_err(Failure::from)?;
    // A spec that is given is judged before anything is made.
    let given = match &up.file {
        Some(file) => Some(absolute(Source::read(file)?, engine)?),
        None => None,
    };
    let state = match (&up.state, up.demo) {
        (None, true) => StateDirectory::at(
            &std::env::temp_dir().join(format!("sluice-demo-{}", std::process::id())),
        ),
        (given, _) => state_directory(given.as_ref()),
    };
    let state = state.absolute()?;
    state.create().map_err(|error| {
        Failure::new(
            exit::FAILURE,
            format!(
                "the state directory {} cannot be created: {error}; choose another with --state DIR",
                state.path().display()
            ),
        )
    })?;
    let Some(_lock) = state.lock()? else {
        return Err(Failure::new(
            exit::FAILURE,
            format!(
                "another gateway runs with the state directory {}; stop it, or choose another with \
                 --state DIR",
                state.path().display()
            ),
        ));
    };
    let source = match given {
        None if up.demo => {
            demo::make_certificate(state.path())?;
            demo::write_proto(state.path())?;
            let bytes = demo::SPEC.as_bytes().to_vec();
            let directory = state.path().to_owned();
            let source = Source { name: demo::SPEC_NAME.into(), bytes, directory };
            Some(absolute(source, engine)?)
        }
        given => given,
    };
    banner.progress(&format!("starting {} engine shards…", cpus.len()));
    let shards = u16::try_from(cpus.len())?;
    let segment = Segment::create(shards, RING_BYTES)?;
    let directory = state.path().to_path_buf();
    let mut watch = Watch::new(banner, segment, cpus, state, up)?;
    let result = watch.run(source);
    if up.demo && up.state.is_none() {
        // Made for this run alone.
        _ = std::fs::remove_dir_all(directory);
    }
    result
}

/// The spec, checked, with the file names that control needs: it runs elsewhere.
fn absolute(source: Source, engine: &EngineEntry) -> Result<Source, Failure> {
    let bytes = source.checked(false, engine)?.text.into_bytes();
    Ok(Source { bytes, ..source })
}

/// The engine process.
pub fn run_engine(inherited: EngineInherited, engine: &EngineEntry) -> Result<(), Failure> {
    follow_parent(inherited.parent, Signal::KILL, c"sluice-engine")?;
    // A service manager signals every process; ours ends when the supervisor has had it drained.
    let ignored = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in
        [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP]
    {
        signal_hook::flag::register(signal, std::sync::Arc::clone(&ignored))?;
    }
    let start = EngineStart {
        bus: child::stdin()?,
        segment: child::inherited(inherited.segment, true)?,
        cpus: inherited.cpus,
    };
    (engine.run)(start).map_err(Failure::from)
}

/// The demo origins' process.
pub fn run_demo_origin(inherited: DemoInherited) -> Result<(), Failure> {
    follow_parent(inherited.parent, Signal::KILL, c"sluice-origin")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(demo::run_origins()).map_err(Failure::from)
}

/// The CPUs to run shards on.
fn cpus(up: &Up) -> Result<Vec<usize>, Failure> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let ours: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let usage = |text: String| Err(Failure::new(exit::BAD_SPEC, text));
    if !up.cpus.is_empty() {
        if let Some(foreign) = up.cpus.iter().find(|cpu| !ours.contains(cpu)) {
            return usage(format!("--cpus: CPU {foreign} is not one of this process's: {ours:?}"));
        }
        if up.cpus.len() > MAX_SHARDS {
            return usage(format!("--cpus: at most {MAX_SHARDS} shards are possible"));
        }
        return Ok(up.cpus.clone());
    }
    // A container's CPU quota can be smaller than its CPU set.
    let quota = std::thread::available_parallelism().map_or(ours.len(), usize::from);
    let shards = up.shards.unwrap_or_else(|| quota.min(ours.len()).min(MAX_SHARDS));
    if shards == 0 || shards > MAX_SHARDS || ours.is_empty() {
        return usage(format!("--shards must be 1 to {MAX_SHARDS}"));
    }
    // More shards than CPUs share them: slower, but of use in tests.
    Ok(ours.iter().copied().cycle().take(shards).collect())
}
