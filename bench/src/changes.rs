//! What changes of a large configuration cost: how long until every shard has them, what clients
//! notice, and whether memory grows.

pub mod admin;
mod report;
pub mod spec;

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use admin::{Admin, Made};
pub use report::quantile;
use report::{Report, Resident, Times, Traffic};
use spec::{Ports, Size};

use crate::compare;
use crate::load::Plan;
use crate::load::report::{Summary, parse_count};
use crate::peer::{Found, Peer, Programs};
use crate::pin::{self, Pinned};
use crate::{turns, usage};

/// Measure changes of a large configuration: compile, adoption, clients' p99 meanwhile, memory.
#[derive(clap::Args)]
pub struct Args {
    /// The gateway's program
    #[arg(long, default_value = "target/release/sluice", value_name = "PATH")]
    sluice: PathBuf,
    #[arg(long, default_value_t = 10_000)]
    routes: usize,
    #[arg(long, default_value_t = 1_000)]
    upstreams: usize,
    #[arg(long, default_value_t = 100_000)]
    consumers: usize,
    /// Consumers while traffic is measured [default: as --consumers]
    #[arg(long, value_name = "N")]
    traffic_consumers: Option<usize>,
    #[arg(long, default_value_t = 2)]
    shards: usize,
    /// Whole specs applied
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Changes of one route
    #[arg(long, default_value_t = 100)]
    patches: u64,
    /// Requests a second while the p99 is measured
    #[arg(short = 'R', long, default_value = "1k", value_parser = parse_count)]
    rate: u64,
    /// Changes a second meanwhile
    #[arg(long, default_value_t = 20)]
    changes: u32,
    /// Seconds of one run of traffic; runs without and with changes take turns
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Small changes while memory is watched; 0: none
    #[arg(long, default_value_t = 10_000)]
    applies: u64,
    /// Routes meanwhile
    #[arg(long, default_value_t = 1_000)]
    memory_routes: usize,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs what is asked for, and prints it.
pub fn run(args: &Args, stop: &AtomicBool) -> Result<(), Box<dyn Error>> {
    pin::raise_open_files();
    let programs = Programs { given: vec![(Peer::Sluice, args.sluice.clone())] };
    let found = programs.find(Peer::Sluice).ok_or("sluice is not here: --sluice PATH")?;
    let directory = std::env::temp_dir().join(format!("sluice-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let report = measure(args, &found, &directory, stop);
    let _ = std::fs::remove_dir_all(&directory);
    let report = report?;
    print!("{}", report.table());
    match &args.json {
        Some(path) => Ok(std::fs::write(path, serde_json::to_vec_pretty(&report)?)?),
        None => Ok(()),
    }
}

/// A gateway that runs.
pub struct Gateway {
    pub process: Pinned,
    pub admin: Admin,
    pub ports: Ports,
}

impl Gateway {
    /// Starts one with a small spec.
    pub fn start(
        found: &Found,
        directory: &Path,
        shards: usize,
        origin: u16,
        stop: &AtomicBool,
    ) -> Result<Self, Box<dyn Error>> {
        let _ = std::fs::remove_dir_all(directory);
        let state = directory.join("state");
        std::fs::create_dir_all(&state)?;
        let ports = Ports { listen: pin::free_port()?, admin: pin::free_port()?, origin };
        let file = directory.join("spec.json");
        let small = Size { routes: 1, upstreams: 1, consumers: 1 };
        std::fs::write(&file, spec::json(small, ports, "bench", 0))?;
        let (file, state) = (file.display().to_string(), state.display().to_string());
        let shards = shards.to_string();
        let arguments = ["up", "-f", &file, "--state", &state, "--shards", &shards];
        let mut process = Pinned::start_anywhere("sluice", directory, &found.program, arguments)?;
        let at = SocketAddr::from(([127, 0, 0, 1], ports.admin));
        process.wait_for(at, Duration::from_secs(20), stop)?;
        let mut admin = Admin::at(ports.admin);
        admin.wait(Duration::from_secs(20))?;
        Ok(Self { process, admin, ports })
    }

    /// Resident bytes of supervisor, control and engine.
    fn resident(&self) -> Resident {
        let mut resident = Resident::default();
        for id in usage::tree(self.process.id()) {
            let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            let bytes = usage::rss_bytes(id);
            match name.trim() {
                "sluice-engine" => resident.engine += bytes,
                "sluice-control" => resident.control += bytes,
                _ => resident.supervisor += bytes,
            }
        }
        resident
    }
}

fn measure(
    args: &Args,
    found: &Found,
    directory: &Path,
    stop: &AtomicBool,
) -> Result<Report, Box<dyn Error>> {
    let cpus = pin::cpus()?;
    let (_, load_cpu, origin_cpu) = compare::layout(&cpus)?;
    let (_origin, origin) = turns::origin(origin_cpu, directory, stop)?;
    let own = directory.join("sluice");
    let size = Size {
        routes: args.routes.max(1),
        upstreams: args.upstreams.max(1),
        consumers: args.consumers,
    };
    let start = || Gateway::start(found, &own, args.shards, origin.port(), stop);
    let going = || if stop.load(Relaxed) { Err("stopped") } else { Ok(()) };

    let mut gateway = start()?;
    let small = Size { routes: 1, upstreams: 1, consumers: 1 };
    let full = spec::json(size, gateway.ports, "bench", 0);
    let mut whole = Vec::new();
    for round in 1..=args.rounds.max(1) {
        eprintln!("whole spec {round}/{}", args.rounds);
        going()?;
        if round > 1 {
            gateway.admin.apply(&spec::json(small, gateway.ports, "bench", 0))?;
        }
        whole.push(gateway.admin.apply(&full)?);
    }
    let mut again = Vec::new();
    for round in 1..=args.rounds.max(1) as u64 {
        eprintln!("whole spec with another route {round}/{}", args.rounds);
        going()?;
        again.push(gateway.admin.apply(&spec::json(size, gateway.ports, "bench", round))?);
    }
    eprintln!("{} changes of a route", args.patches);
    let mut patches = Vec::new();
    for turn in 0..args.patches {
        going()?;
        let route = spec::route(turn as usize * 97 % size.routes);
        patches.push(gateway.admin.patch(&route)?);
    }
    let large = gateway.resident();

    let size = Size { consumers: args.traffic_consumers.unwrap_or(size.consumers), ..size };
    if size.consumers != args.consumers {
        gateway.admin.apply(&spec::json(size, gateway.ports, "bench", 0))?;
    }
    let mut traffic = Vec::new();
    for round in 1..=args.rounds.max(1) {
        for changes in [0, args.changes] {
            eprintln!("traffic {round}/{}, {changes} changes/s", args.rounds);
            going()?;
            traffic.push(serve(args, &mut gateway, size, changes, load_cpu, stop)?);
        }
    }
    drop(gateway);

    let mut memory = Vec::new();
    if args.applies > 0 {
        let mut gateway = start()?;
        let size = Size { routes: args.memory_routes.max(1), upstreams: 100, consumers: 1_000 };
        gateway.admin.apply(&spec::json(size, gateway.ports, "bench", 0))?;
        let step = (args.applies / 20).max(1);
        for turn in 0..=args.applies {
            if turn % step == 0 {
                going()?;
                eprintln!("memory: {turn}/{} changes", args.applies);
                memory.push((turn, gateway.resident()));
            }
            let route = spec::route(turn as usize % size.routes);
            gateway.admin.patch(&route)?;
        }
    }
    Ok(Report {
        place: compare::place(load_cpu, load_cpu, origin_cpu, args.rounds, args.seconds),
        shards: args.shards,
        routes: args.routes,
        upstreams: args.upstreams,
        consumers: args.consumers,
        traffic_consumers: size.consumers,
        whole: Times::of(&whole),
        again: Times::of(&again),
        patch: Times::of(&patches),
        large,
        rate: args.rate,
        changes: args.changes,
        traffic,
        memory,
    })
}

/// Requests at a constant rate, and so many changes a second beside them.
fn serve(
    args: &Args,
    gateway: &mut Gateway,
    size: Size,
    changes: u32,
    load_cpu: usize,
    stop: &AtomicBool,
) -> Result<Traffic, Box<dyn Error>> {
    let url = format!("http://127.0.0.1:{}/{}/bytes/128", gateway.ports.listen, spec::route(0));
    let plan = Plan {
        warmup: Duration::from_secs(1),
        duration: Duration::from_secs_f64(args.seconds.clamp(0.5, 3600.0)),
        rate: Some(args.rate),
        timeout: Duration::from_secs(5),
        cpu: Some(load_cpu),
        ..Plan::get(&url, 32)?
    };
    let over = AtomicBool::new(false);
    let admin = &mut gateway.admin;
    let (outcome, made) = std::thread::scope(|scope| {
        let changer = scope.spawn(|| change(admin, size, changes, &over));
        let outcome = plan.run(stop, |_, _| {});
        over.store(true, Relaxed);
        (outcome, changer.join())
    });
    let made = made.map_err(|_| "the changes panicked")?.map_err(|error| error.to_string())?;
    let outcome = outcome?;
    let summary = Summary::new(&plan, &outcome);
    if summary.not_2xx_or_3xx + summary.resets + summary.unfinished > 0 {
        let fault = summary.first_fault.unwrap_or_default();
        return Err(format!("requests were not answered as they should: {fault}").into());
    }
    let latency = summary.latency_us;
    Ok(Traffic {
        changes_per_s: made.len() as f64 / (plan.duration + plan.warmup).as_secs_f64(),
        asked_per_s: changes,
        p50_us: latency.p50,
        p99_us: latency.p99,
        p99_9_us: latency.p99_9,
        max_us: latency.max,
        made: Times::of(&made),
    })
}

/// Changes a route `per_s` times a second, on a schedule, until it is over.
fn change(
    admin: &mut Admin,
    size: Size,
    per_s: u32,
    over: &AtomicBool,
) -> Result<Vec<Made>, String> {
    let (begun, mut made) = (Instant::now(), Vec::new());
    while per_s > 0 && !over.load(Relaxed) {
        let due = begun + Duration::from_secs_f64(made.len() as f64 / f64::from(per_s));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let route = spec::route(made.len() * 89 % size.routes);
        made.push(admin.patch(&route).map_err(|error| error.to_string())?);
    }
    Ok(made)
}
