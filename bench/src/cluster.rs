//! Many nodes on one PostgreSQL: how long a change that one of them stores takes to all of them, and
//! what happens when the database starts again.

mod node;
mod report;
#[path = "../../control/src/store/postgres/server.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod server;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use node::Node;
use report::{Outage, Report};
use server::PostgresServer;

use crate::changes::spec::{self, Ports, Size};
use crate::peer::{Peer, Programs};
use crate::{compare, pin};

/// Longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measure convergence of many nodes on one PostgreSQL, each in a network namespace (as root).
#[derive(clap::Args)]
pub struct Args {
    /// The gateway's program
    #[arg(long, default_value = "target/release/sluice", value_name = "PATH")]
    sluice: PathBuf,
    #[arg(long, default_value_t = 40)]
    nodes: usize,
    /// Changes, each through another node
    #[arg(long, default_value_t = 100)]
    changes: u64,
    #[arg(long, default_value_t = 100)]
    routes: usize,
    #[arg(long, default_value_t = 100)]
    consumers: usize,
    /// Pause between changes, in ms
    #[arg(long, default_value_t = 200)]
    pause_ms: u64,
    /// How often each node is asked what it serves, in ms: as exact is the outside view
    #[arg(long, default_value_t = 20)]
    look_ms: u64,
    /// How long the database is down, in ms
    #[arg(long, default_value_t = 5_000)]
    down_ms: u64,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs what is asked for, and prints it.
pub fn run(args: &Args, stop: &AtomicBool) -> Result<(), Box<dyn Error>> {
    pin::raise_open_files();
    let directory = std::env::temp_dir().join(format!("sluice-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let report = measure(args, &directory, stop);
    let _ = std::fs::remove_dir_all(&directory);
    let report = report?;
    print!("{}", report.table());
    match &args.json {
        Some(path) => Ok(std::fs::write(path, serde_json::to_vec_pretty(&report)?)?),
        None => Ok(()),
    }
}

fn measure(args: &Args, directory: &Path, stop: &AtomicBool) -> Result<Report, Box<dyn Error>> {
    let programs = Programs { given: vec![(Peer::Sluice, args.sluice.clone())] };
    let found = programs.find(Peer::Sluice).ok_or("sluice is not here: --sluice PATH")?;
    // Its socket's path leads to it from every network namespace.
    let mut database = PostgresServer::start_with(&["-c", "unix_socket_directories=.."], &[], None);
    database.database("sluice");
    let host = database.directory().display().to_string().replace('/', "%2F");
    let url = format!("postgres://postgres@{host}:{}/sluice", database.port);
    let ports = Ports { listen: 8080, admin: 9901, origin: 9000 };
    let size = Size { routes: args.routes.max(1), upstreams: 10, consumers: args.consumers };
    let text = |turn: u64| spec::json(size, ports, "bench", turn);
    let file = directory.join("spec.json");
    std::fs::write(&file, text(0))?;
    let cpus = pin::cpus()?;
    let mut nodes = Vec::new();
    for at in 0..args.nodes.max(1) {
        eprintln!("node {}/{}", at + 1, args.nodes);
        let cpu = cpus.get(at % cpus.len().max(1)).copied().unwrap_or(0);
        let own = directory.join(format!("node-{at}"));
        let look = Duration::from_millis(args.look_ms.max(1));
        nodes.push(Node::start(&found.program, &own, &file, &url, cpu, look)?);
        if stop.load(Relaxed) {
            return Err("stopped".into());
        }
    }
    wait(&nodes, 1)?;

    let (mut seen_ms, mut last_ms, mut stored_ms, mut lag_ms) = (vec![], vec![], vec![], vec![]);
    for turn in 1..=args.changes {
        if stop.load(Relaxed) {
            return Err("stopped".into());
        }
        std::thread::sleep(Duration::from_millis(args.pause_ms));
        // Another one each time, in an order without a pattern.
        let through = nodes.get((turn as usize * 7 + turn as usize / 5) % nodes.len());
        let through = through.ok_or("there are no nodes")?;
        let begun = Instant::now();
        let revision = through.apply(text(turn))?;
        stored_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        wait(&nodes, revision)?;
        let times = nodes.iter().map(|node| node.since(begun));
        let times: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
        last_ms.push(times.iter().copied().fold(0.0, f64::max));
        seen_ms.extend(times);
        lag_ms.extend(through.lags(revision, nodes.len())?);
        if turn % 10 == 0 {
            eprintln!("change {turn}/{}", args.changes);
        }
    }

    eprintln!("the database is down for {} ms", args.down_ms);
    let before = failures(&nodes);
    database.kill();
    std::thread::sleep(Duration::from_millis(args.down_ms / 2));
    let node = nodes.first().ok_or("there are no nodes")?;
    let refused = node.try_apply(text(args.changes + 1))?;
    std::thread::sleep(Duration::from_millis(args.down_ms.div_ceil(2)));
    database.restart();
    let begun = Instant::now();
    let revision = loop {
        let (status, revision) = node.try_apply(text(args.changes + 1))?;
        match status {
            200 => break revision,
            _ if begun.elapsed() > PATIENCE => return Err("the store does not come back".into()),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let stored = begun.elapsed();
    wait(&nodes, revision)?;
    let all = nodes.iter().map(|node| node.since(begun)).max().unwrap_or_default();
    let outage = Outage {
        down_ms: args.down_ms,
        answered: refused.0,
        not_ready: failures(&nodes) - before,
        stored_ms: stored.as_secs_f64() * 1e3,
        all_ms: all.as_secs_f64() * 1e3,
    };
    Ok(Report {
        place: compare::place(0, 0, 0, args.changes as usize, 0.0),
        nodes: nodes.len(),
        routes: args.routes,
        consumers: args.consumers,
        changes: args.changes,
        look_ms: args.look_ms,
        stored_ms,
        seen_ms,
        last_ms,
        lag_ms,
        outage,
    })
}

/// Waits until each node was seen to serve `revision` on all of its shards.
fn wait(nodes: &[Node], revision: u64) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    while nodes.iter().any(|node| node.served() < revision) {
        if begun.elapsed() > PATIENCE {
            let behind = nodes.iter().filter(|node| node.served() < revision).count();
            return Err(format!("{behind} nodes do not serve revision {revision}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// How often nodes were found not to be ready for traffic.
fn failures(nodes: &[Node]) -> u64 {
    nodes.iter().map(Node::failures).sum()
}
