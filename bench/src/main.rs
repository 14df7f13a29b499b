//! Everything that measures Sluice: a load generator, an origin, a bare relay as the limit of
//! what is possible, and the comparison with other proxies.

// The one exception is the relay; its file says why.
#![deny(unsafe_code)]
// This program reads clocks and opens sockets for a living; the rules that keep the gateway
// from doing so at random places are not for it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod histogram;
mod load;
mod origin;
mod pin;
mod usage;
mod wire;

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use load::report::{Summary, parse_count, parse_time};
use load::target::{self, Target};

/// Load generator, origin, reference relay and comparison for HTTP proxies.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Load(LoadArgs),
    Origin(OriginArgs),
    #[command(hide = true)]
    Pinned(PinnedArgs),
}

/// Send requests and measure latency, with wrk2's flags.
///
/// With -R requests start on a fixed schedule and latency counts from the intended start, so a
/// server that stalls cannot hide it. Without -R every connection is kept busy, like wrk.
#[derive(Args)]
struct LoadArgs {
    /// http://HOST:PORT/PATH
    url: String,
    /// Threads, each with its share of the connections
    #[arg(short, long, default_value_t = 1)]
    threads: usize,
    /// Connections in all
    #[arg(short, long, default_value_t = 10)]
    connections: usize,
    /// Measured time: 10s, 2m, 500ms
    #[arg(short, long, default_value = "10s", value_parser = parse_time)]
    duration: Duration,
    /// Requests a second in all: 5000, 5k
    #[arg(short = 'R', long, value_parser = parse_count)]
    rate: Option<u64>,
    /// Print the distribution of latency
    #[arg(long)]
    latency: bool,
    /// A header field, like 'Name: value'; may be repeated
    #[arg(short = 'H', long)]
    header: Vec<String>,
    /// The longest wait for one answer
    #[arg(long, default_value = "2s", value_parser = parse_time)]
    timeout: Duration,
    /// Time before the measurement, not counted
    #[arg(long, default_value = "0s", value_parser = parse_time)]
    warmup: Duration,
    /// The request's method
    #[arg(short, long, default_value = "GET")]
    method: String,
    /// Send a body of so many bytes
    #[arg(long, default_value_t = 0)]
    body_bytes: usize,
    /// Requests in flight on one connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pipeline: u16,
    /// Hold all threads to this CPU
    #[arg(long)]
    cpu: Option<usize>,
    /// Write the percentile distribution for HdrHistogram's plotters
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Serve answers at the least cost: …/bytes/N, …/chunked/N, else the default size.
#[derive(Args)]
struct OriginArgs {
    /// The port on 127.0.0.1; 0 picks a free one
    #[arg(short, long, default_value_t = 9000)]
    port: u16,
    /// Bytes of the default body
    #[arg(long, default_value_t = 128)]
    bytes: u64,
    /// Run one thread on each of these CPUs, like 0,1
    #[arg(long, value_delimiter = ',')]
    cpu: Vec<usize>,
    /// Burn so many µs of CPU for each request
    #[arg(long, default_value_t = 0)]
    spin_us: u64,
}

/// Become another program, held to a CPU and to the life of the parent.
#[derive(Args)]
struct PinnedArgs {
    #[arg(long)]
    cpu: usize,
    #[arg(long)]
    parent: i32,
    #[arg(last = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Load(args) => load(args),
        Command::Origin(args) => {
            let spin = Duration::from_micros(args.spin_us);
            let origin =
                origin::Origin { port: args.port, bytes: args.bytes, cpus: args.cpu, spin };
            Ok(origin.run()?)
        }
        Command::Pinned(args) => Err(pin::exec(args.cpu, args.parent, &args.command).into()),
    }
}

/// A flag that Ctrl-C or a polite kill sets; the second one ends us at once.
fn stop_flag() -> Result<Arc<AtomicBool>, Box<dyn Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

fn load(args: LoadArgs) -> Result<(), Box<dyn Error>> {
    if args.connections == 0 || args.threads == 0 {
        return Err("-c and -t must be above zero".into());
    }
    let open_files = pin::raise_open_files();
    if args.connections as u64 + 32 > open_files {
        return Err(format!(
            "{} connections need more than the {open_files} open files allowed: raise `ulimit -n`",
            args.connections
        )
        .into());
    }
    let target = Target::parse(&args.url)?;
    let plan = load::Plan {
        request: target::request(&target, &args.method, &args.header, args.body_bytes),
        target,
        head_only: args.method == "HEAD",
        threads: args.threads,
        connections: args.connections,
        warmup: args.warmup,
        duration: args.duration,
        rate: args.rate,
        timeout: args.timeout,
        pipeline: usize::from(args.pipeline),
        cpu: args.cpu,
    };
    let outcome = plan.run(&*stop_flag()?, |_, _| {})?;
    let summary = Summary::new(&plan, &outcome);
    if let Some(path) = &args.hgrm {
        let file = File::create(path).map_err(|e| format!("cannot write {path:?}: {e}"))?;
        histogram::write_hgrm(&outcome.tally.latency, &mut BufWriter::new(file))?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print!("{}", summary.text(&plan, args.latency));
    }
    Ok(())
}
