//! Everything that measures Sluice: a load generator, an origin, a bare relay as the limit of
//! what is possible, and the comparison with other proxies.

// The one exception is the relay; its file says why.
#![deny(unsafe_code)]
// This program reads clocks and opens sockets for a living; the rules that keep the gateway
// from doing so at random places are not for it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod agree;
mod auth;
mod changes;
mod cluster;
mod compare;
mod faults;
mod h2;
mod histogram;
mod limits;
mod load;
mod origin;
mod peer;
mod pin;
mod relay;
mod tls;
mod transform;
mod turns;
mod usage;
mod wire;

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use compare::scenario::{self, Scenario};
use faults::origin::Fault;
use load::report::{Summary, parse_count, parse_time};
use load::target::{Message, Target};
use peer::{Peer, Programs};

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
    Relay(RelayArgs),
    /// Run Sluice and every peer found on the same work, and compare.
    Compare(CompareArgs),
    /// The same for TLS handshakes: a new connection, a handshake, one request, and the end.
    Handshakes(CompareArgs),
    Auth(auth::Args),
    Limits(limits::Args),
    Transform(transform::Args),
    Changes(changes::Args),
    Cluster(cluster::Args),
    Faults(FaultsArgs),
    Peers(PeersArgs),
    Agree(AgreeArgs),
    #[command(hide = true)]
    Pinned(PinnedArgs),
}

/// Send requests and measure latency, with wrk2's flags.
///
/// With -R requests start on a fixed schedule and latency counts from the intended start, so a
/// server that stalls cannot hide it. Without -R every connection is kept busy, like wrk.
#[derive(Args)]
struct LoadArgs {
    /// http://HOST:PORT/PATH, or https
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
    /// Speak HTTP/2: by ALPN over TLS, by prior knowledge without
    #[arg(long)]
    http2: bool,
    /// Streams of HTTP/2 in flight on one connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    streams: u16,
    /// Make unary gRPC calls with a message of --body-bytes; an answer needs grpc-status 0
    #[arg(long)]
    grpc: bool,
    /// Send an id with each request and look for it in the answer, as `bench origin --fault` gives it
    #[arg(long, conflicts_with_all = ["http2", "grpc", "fresh"], requires = "rate")]
    checked: bool,
    /// Trust any certificate
    #[arg(short = 'k', long)]
    insecure: bool,
    /// Trust these certificates (PEM) [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// The server's name [default: the URL's host]
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// Only this version of TLS: 1.2 or 1.3
    #[arg(long, value_parser = tls::Version::parse)]
    tls: Option<tls::Version>,
    /// A new connection for every request; its latency counts from the connect
    #[arg(long, conflicts_with_all = ["rate", "pipeline", "streams"])]
    fresh: bool,
    /// Do not resume TLS sessions
    #[arg(long)]
    no_resume: bool,
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
    /// Speak TLS, with a certificate made for the occasion
    #[arg(long)]
    tls: bool,
    /// Speak TLS with this certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Take only AES-128-GCM and X25519, so that all clients do the same work
    #[arg(long)]
    equal_work: bool,
    /// Fail in this way; bench/README.md has them all. HTTP/1.1 in clear text, one body size
    #[arg(long, value_name = "NAME", value_parser = Fault::parse,
          conflicts_with_all = ["bytes", "spin_us", "tls", "cert", "key", "equal_work"])]
    fault: Option<Fault>,
    /// So many requests of a hundred fail
    #[arg(long, default_value_t = 100, requires = "fault", value_parser = clap::value_parser!(u64).range(1..=100))]
    share: u64,
}

/// Pass bytes to an upstream and back on bare io_uring: the limit of what a proxy can save.
#[derive(Args)]
struct RelayArgs {
    /// The port on 127.0.0.1
    #[arg(short, long, default_value_t = 9001)]
    port: u16,
    /// Where every connection is passed on to
    #[arg(long, default_value = "127.0.0.1:9000")]
    upstream: SocketAddrV4,
    /// Provided buffers, a power of two
    #[arg(long, default_value_t = 1024)]
    buffers: u16,
    /// Bytes of one of them
    #[arg(long, default_value_t = 20 * 1024)]
    buffer_bytes: u32,
}

/// Where the programs to compare are.
#[derive(Args)]
struct Where {
    /// The gateway's program
    #[arg(long, default_value = "target/release/sluice", value_name = "PATH")]
    sluice: PathBuf,
    /// Another one's program, like envoy=/opt/envoy; may be repeated
    #[arg(long, value_name = "NAME=PATH", value_parser = peer::parse_at)]
    at: Vec<(Peer, PathBuf)>,
}

#[derive(Args)]
struct CompareArgs {
    #[command(flatten)]
    programs: Where,
    /// Only these peers
    #[arg(long, value_delimiter = ',', value_parser = Peer::parse)]
    only: Vec<Peer>,
    /// Not these peers
    #[arg(long, value_delimiter = ',', value_parser = Peer::parse)]
    skip: Vec<Peer>,
    /// Only these scenarios; bench/README.md has them all
    #[arg(long, value_delimiter = ',', value_parser = compare::scenario::find)]
    scenario: Vec<Scenario>,
    /// tls64, h2tls, grpc, hsfull and hsresumed in 3 rounds of 2 s: under 6 minutes
    #[arg(long, conflicts_with_all = ["scenario", "rounds", "seconds"])]
    quick: bool,
    /// Rounds, interleaved
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured seconds of one run
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The CPU that every proxy is held to [default: the second one]
    #[arg(long)]
    proxy_cpu: Option<usize>,
    /// The CPU of the load [default: the first one]
    #[arg(long)]
    load_cpu: Option<usize>,
    /// The CPU of the origin [default: the third one, else the load's]
    #[arg(long)]
    origin_cpu: Option<usize>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as plots
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Let one of three origins fail in every way, and count what clients of each proxy see of it.
#[derive(Args)]
struct FaultsArgs {
    #[command(flatten)]
    programs: Where,
    /// Only these peers
    #[arg(long, value_delimiter = ',', value_parser = Peer::parse)]
    only: Vec<Peer>,
    /// Only these ways to fail
    #[arg(long, value_delimiter = ',', value_parser = Fault::parse)]
    fault: Vec<Fault>,
    /// So many of a hundred of the failing origin's requests fail
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100))]
    share: u64,
    /// 3 s for each way
    #[arg(long, conflicts_with = "seconds")]
    quick: bool,
    /// Measured seconds for each way
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Requests a second
    #[arg(short = 'R', long, default_value = "5k", value_parser = parse_count)]
    rate: u64,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Say for each peer whether it is here, in which version, and where to get it.
#[derive(Args)]
struct PeersArgs {
    #[command(flatten)]
    programs: Where,
    /// Build the sample on the pingora crate
    #[arg(long)]
    build: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Check that the load generator finds what wrk and wrk2 find, within 5 %.
#[derive(Args)]
struct AgreeArgs {
    /// Rounds, in turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of one run
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(short, long, default_value_t = 64)]
    connections: usize,
    /// The fixed rate for wrk2
    #[arg(short = 'R', long, default_value = "5k", value_parser = parse_count)]
    rate: u64,
    /// CPU time that the origin burns for one request, in µs
    #[arg(long, default_value_t = 20)]
    spin_us: u64,
}

/// Become another program, held to a CPU and to the life of the parent.
#[derive(Args)]
struct PinnedArgs {
    #[arg(long)]
    cpu: Option<usize>,
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
        Command::Origin(OriginArgs { fault: Some(fault), port, share, cpu, .. }) => {
            pin::raise_open_files();
            let origin = faults::origin::Origin::start(port, share, cpu.first().copied())?;
            origin.fail(Some(fault));
            println!("origin on http://{}, {fault} for {share} % of requests", origin.address());
            origin.wait();
            Ok(())
        }
        Command::Origin(args) => {
            let spin = Duration::from_micros(args.spin_us);
            let tls = match (args.cert, args.key) {
                (Some(cert), Some(key)) => {
                    let read = |path: &PathBuf| {
                        std::fs::read(path).map_err(|e| format!("cannot read {path:?}: {e}"))
                    };
                    Some(tls::server(&read(&cert)?, &read(&key)?, args.equal_work)?)
                }
                _ if args.tls => {
                    let (cert, key) = tls::self_signed()?;
                    Some(tls::server(cert.as_bytes(), key.as_bytes(), args.equal_work)?)
                }
                _ => None,
            };
            let (port, bytes, cpus) = (args.port, args.bytes, args.cpu);
            let origin = origin::Origin { port, bytes, cpus, spin, tls };
            Ok(origin.run()?)
        }
        Command::Relay(args) => {
            let RelayArgs { port, upstream, buffers, buffer_bytes } = args;
            Ok(relay::Relay { port, upstream, buffers, buffer_bytes }.run()?)
        }
        Command::Compare(args) => compare(args, false),
        Command::Handshakes(args) => compare(args, true),
        Command::Auth(args) => auth::run(args, &*pin::stop_flag()?),
        Command::Limits(args) => limits::run(args, &*pin::stop_flag()?),
        Command::Cluster(args) => cluster::run(&args, &*pin::stop_flag()?),
        Command::Transform(args) => transform::run(args, &*pin::stop_flag()?),
        Command::Changes(args) => changes::run(&args, &*pin::stop_flag()?),
        Command::Faults(args) => faults(args),
        Command::Peers(args) => peers(args),
        Command::Agree(args) => {
            let cpus = pin::cpus()?;
            let (origin_cpu, load_cpu, _) = compare::layout(&cpus)?;
            let AgreeArgs { rounds, seconds, connections, rate, spin_us } = args;
            let agreement = agree::Agreement {
                rounds,
                seconds,
                connections,
                load_cpu,
                origin_cpu,
                spin_us,
                rate,
            };
            agreement.run(&*pin::stop_flag()?)
        }
        Command::Pinned(args) => Err(pin::exec(args.cpu, args.parent, &args.command).into()),
    }
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
    let message = Message {
        rotation: None,
        body: None,
        method: args.method,
        headers: args.header,
        body_bytes: args.body_bytes,
        http2: args.http2 || args.grpc,
        grpc: args.grpc,
        checked: args.checked,
    };
    message.check(&target)?;
    let plan = load::Plan {
        target,
        tls: tls::Client {
            version: args.tls,
            http2: message.http2,
            resume: !args.no_resume,
            ..tls::Client::new(match args.ca {
                _ if args.insecure => tls::Trust::Anybody,
                Some(path) => tls::Trust::File(path),
                None => tls::Trust::System,
            })
        },
        server_name: args.sni,
        fresh: args.fresh,
        threads: args.threads,
        connections: args.connections,
        warmup: args.warmup,
        duration: args.duration,
        rate: args.rate,
        timeout: args.timeout,
        pipeline: usize::from(if message.http2 { args.streams } else { args.pipeline }),
        message,
        cpu: args.cpu,
    };
    let outcome = plan.run(&*pin::stop_flag()?, |_, _| {})?;
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

impl Where {
    fn programs(&self) -> Programs {
        let mut given = self.at.clone();
        given.push((Peer::Sluice, self.sluice.clone()));
        Programs { given }
    }
}

fn compare(mut args: CompareArgs, handshakes: bool) -> Result<(), Box<dyn Error>> {
    let (proxy, load, origin) = match compare::layout(&pin::cpus()?) {
        Ok(layout) => layout,
        Err(problem) => match (args.proxy_cpu, args.load_cpu) {
            (Some(proxy), Some(load)) => (proxy, load, load),
            _ => return Err(problem.into()),
        },
    };
    let load_cpu = args.load_cpu.unwrap_or(load);
    let origin_cpu = args.origin_cpu.or(args.load_cpu).unwrap_or(origin);
    let programs = args.programs.programs();
    let mut peers = Vec::new();
    for peer in Peer::ALL {
        // The direct way costs little and the latencies are counted against it.
        let wanted = args.only.is_empty() || args.only.contains(&peer) || peer == Peer::Direct;
        if !wanted || args.skip.contains(&peer) {
            continue;
        }
        match programs.find(peer) {
            Some(found) => peers.push(found),
            None => eprintln!("{peer} is not here and is left out; get it: {}", peer.source()),
        }
    }
    if args.quick {
        (args.rounds, args.seconds) = (3, 2.0);
        args.scenario =
            scenario::QUICK.into_iter().filter_map(|n| scenario::find(n).ok()).collect();
    }
    let mut scenarios = args.scenario;
    if scenarios.is_empty() {
        scenarios.extend(scenario::ALL.iter().filter(|s| s.is_handshakes() == handshakes));
    }
    let comparison = compare::Comparison {
        peers,
        scenarios,
        rounds: args.rounds.max(1),
        seconds: args.seconds.clamp(0.1, 3600.0),
        proxy_cpu: args.proxy_cpu.unwrap_or(proxy),
        load_cpu,
        origin_cpu,
    };
    let report = comparison.run(&*pin::stop_flag()?)?;
    print!("{}", report.text());
    compare::save(&report, args.json.as_deref(), args.svg.as_deref())
}

fn faults(args: FaultsArgs) -> Result<(), Box<dyn Error>> {
    let (proxy_cpu, load_cpu, origin_cpu) = compare::layout(&pin::cpus()?)?;
    let programs = args.programs.programs();
    let wanted = |peer: &Peer| args.only.is_empty() || args.only.contains(peer);
    let mut peers = Vec::new();
    for peer in Peer::ALL.into_iter().filter(|&peer| faults::takes(peer)).filter(wanted) {
        match programs.find(peer) {
            Some(found) => peers.push(found),
            None => eprintln!("{peer} is not here and is left out; get it: {}", peer.source()),
        }
    }
    let run = faults::Faults {
        peers,
        faults: if args.fault.is_empty() { Fault::ALL.to_vec() } else { args.fault },
        share: args.share,
        seconds: if args.quick { 3.0 } else { args.seconds.clamp(0.5, 3600.0) },
        rate: args.rate,
        proxy_cpu,
        load_cpu,
        origin_cpu,
    };
    let report = run.run(&*pin::stop_flag()?)?;
    print!("{}", report.text());
    report.save(args.json.as_ref())
}

fn peers(args: PeersArgs) -> Result<(), Box<dyn Error>> {
    if args.build {
        let manifest = PathBuf::from(peer::PINGORA_SAMPLE).join("Cargo.toml");
        if !manifest.is_file() {
            return Err("run this from the root of the repository".into());
        }
        let status = std::process::Command::new("cargo")
            .args(["build", "--release", "--manifest-path"])
            .arg(&manifest)
            .env_remove("CARGO_TARGET_DIR")
            .status()?;
        if !status.success() {
            return Err(
                "the pingora sample did not build; it needs cmake and a C++ compiler".into()
            );
        }
    }
    let programs = args.programs.programs();
    let found: Vec<_> = Peer::ALL
        .into_iter()
        .filter(|&peer| peer != Peer::Direct)
        .map(|peer| (peer, programs.find(peer)))
        .collect();
    if args.json {
        let list: Vec<_> = found
            .iter()
            .map(|(peer, found)| {
                serde_json::json!({
                    "name": peer.name(),
                    "found": found.is_some(),
                    "version": found.as_ref().map(|found| &found.version),
                    "program": found.as_ref().map(|found| &found.program),
                    "source": peer.source(),
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    for (peer, found) in found {
        match found {
            Some(found) => {
                println!("{peer:<8} {:<10} {}", found.version, found.program.display());
            }
            None => println!("{peer:<8} {:<10} get it: {}", "not found", peer.source()),
        }
    }
    Ok(())
}
