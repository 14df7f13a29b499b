//! What it costs to change requests and answers: fields, JSON to gRPC and back, answers made of several.
//! In one process and in interleaved rounds, beside the same work without the change.

mod config;

use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;

use crate::compare::{self, report::Place, report::Sample};
use crate::load::Plan;
use crate::peer::{self, Found, Peer};
use crate::pin::{self, Pinned};
use crate::tls;
use crate::turns::{self, Turns};

/// Measure what it costs to change requests and answers: fields, gRPC, aggregates.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    turns: Turns,
    /// Only these cases: headers, body, transcode, aggregate
    #[arg(long, value_delimiter = ',', value_parser = Case::parse)]
    case: Vec<Case>,
    /// A KrakenD to be measured beside Sluice with aggregates
    #[arg(long, value_name = "FILE")]
    krakend: Option<PathBuf>,
}

/// Runs what is asked for, and prints it.
pub fn run(args: Args, stop: &AtomicBool) -> Result<(), Box<dyn Error>> {
    let (proxy_cpu, load_cpu, origin_cpu) = compare::layout(&pin::cpus()?)?;
    let turns = args.turns;
    let mut gateways: Vec<Gateway> = turns.peers().into_iter().map(Gateway::Peer).collect();
    gateways.extend(args.krakend.map(Gateway::KrakenD));
    let comparison = Comparison {
        gateways,
        cases: if args.case.is_empty() { CASES.to_vec() } else { args.case },
        rounds: turns.rounds(),
        seconds: turns.seconds(),
        proxy_cpu,
        load_cpu,
        origin_cpu,
    };
    let report = comparison.run(stop)?;
    print!("{}", report.table());
    turns.write(&report)
}

/// A change that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// Two fields of the request set, one removed; one of the answer set, one removed.
    Headers,
    /// A JSON body of 1 KiB gets a member, and loses one, on its way to the upstream.
    Body,
    /// A JSON request of 1 KiB becomes a unary call, and its answer JSON.
    Transcode,
    /// Three calls at once, merged.
    Aggregate,
}

const CASES: [Case; 4] = [Case::Headers, Case::Body, Case::Transcode, Case::Aggregate];

/// The most that edits of fields may add to a request, in µs of CPU.
const HEADERS_US: f64 = 0.5;
/// The most that transcoding may cost, in costs of Envoy's.
const TRANSCODE_RATIO: f64 = 0.4;
/// The most that an aggregate's p50 may be above that of one call, in µs.
const AGGREGATE_US: f64 = 200.0;
/// Requests a second at which latency is measured.
const CALM_RATE: u64 = 500;

impl Case {
    fn name(self) -> &'static str {
        match self {
            Case::Headers => "headers",
            Case::Body => "body",
            Case::Transcode => "transcode",
            Case::Aggregate => "aggregate",
        }
    }

    fn parse(name: &str) -> Result<Case, String> {
        CASES.into_iter().find(|case| case.name() == name).ok_or_else(|| {
            let known = CASES.map(Case::name).join(", ");
            format!("unknown case {name:?}: it is one of {known}")
        })
    }

    /// Paths without and with the change.
    fn paths(self) -> (&'static str, &'static str) {
        match self {
            Case::Headers => ("/open/bytes/128", "/headers/bytes/128"),
            Case::Body => ("/open/bytes/128", "/body/bytes/128"),
            // To the same origin without gRPC.
            Case::Transcode => ("/open/bytes/1024", "/bench.Notes/Echo"),
            Case::Aggregate => ("/open/json/512", "/aggregate"),
        }
    }

    fn body(self) -> Option<Arc<[u8]>> {
        let text = "x".repeat(880);
        let note = format!(
            "{{\"id\":\"1234567890123\",\"title\":\"a note\",\"tags\":[\"first\",\"second\",\"third\"],\
             \"score\":12.5,\"done\":true,\"text\":\"{text}\"}}"
        );
        matches!(self, Case::Body | Case::Transcode).then(|| note.into_bytes().into())
    }
}

/// What is measured.
enum Gateway {
    Peer(Found),
    KrakenD(PathBuf),
}

impl Gateway {
    fn name(&self) -> &'static str {
        match self {
            Gateway::Peer(found) => found.peer.name(),
            Gateway::KrakenD(_) => "krakend",
        }
    }

    fn takes(&self, case: Case) -> bool {
        match self {
            Gateway::Peer(found) => match found.peer {
                Peer::Sluice => true,
                Peer::Envoy => matches!(case, Case::Headers | Case::Transcode),
                Peer::Nginx => case == Case::Headers,
                _ => false,
            },
            Gateway::KrakenD(_) => case == Case::Aggregate,
        }
    }
}

struct Comparison {
    gateways: Vec<Gateway>,
    cases: Vec<Case>,
    rounds: usize,
    seconds: f64,
    proxy_cpu: usize,
    load_cpu: usize,
    origin_cpu: usize,
}

/// One case at one gateway.
#[derive(Debug, Serialize)]
struct Row {
    gateway: &'static str,
    case: Case,
    /// CPU µs per request without and with the change, by round.
    plain_us: Vec<f64>,
    changed_us: Vec<f64>,
    /// Medians of the latency at a low rate, in µs, by round.
    plain_p50_us: Vec<f64>,
    changed_p50_us: Vec<f64>,
    /// Requests a second of one CPU, saturated, by round.
    changed_rps: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    place: Place,
    rows: Vec<Row>,
}

impl Comparison {
    /// Runs everything; says on stderr what is being done.
    fn run(&self, stop: &AtomicBool) -> Result<Report, Box<dyn Error>> {
        pin::raise_open_files();
        pin::this_thread(self.load_cpu)?;
        let directory = std::env::temp_dir().join(format!("sluice-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let report = self.measure(&directory, stop);
        let _ = std::fs::remove_dir_all(&directory);
        report
    }

    fn measure(&self, directory: &Path, stop: &AtomicBool) -> Result<Report, Box<dyn Error>> {
        let (_origin, origin) = turns::origin(self.origin_cpu, directory, stop)?;
        let descriptors = config::descriptors(directory)?;
        let mut rows = Vec::new();
        for gateway in &self.gateways {
            let cases = self.cases.iter().copied().filter(|case| gateway.takes(*case));
            let mut rows_of: Vec<Row> = cases.map(|case| Row::new(gateway.name(), case)).collect();
            if rows_of.is_empty() {
                continue;
            }
            let own = directory.join(gateway.name());
            std::fs::create_dir_all(&own)?;
            for round in 1..=self.rounds {
                let mut running = self.start(gateway, &own, origin, &descriptors, stop)?;
                for row in &mut rows_of {
                    eprintln!("{} {round}/{}: {}", row.gateway, self.rounds, row.case.name());
                    let (plain, changed) = row.case.paths();
                    for (path, is_plain) in [(plain, true), (changed, false)] {
                        let url = format!("http://{}{path}", running.address);
                        let plan = self.plan(&url, row.case, None)?;
                        let sample = measured(&plan, &mut running, stop)?;
                        let calm = self.plan(&url, row.case, Some(CALM_RATE))?;
                        let calm = measured(&calm, &mut running, stop)?;
                        row.push(is_plain, &sample, &calm);
                    }
                }
            }
            rows.append(&mut rows_of);
        }
        let place = compare::place(
            self.proxy_cpu,
            self.load_cpu,
            self.origin_cpu,
            self.rounds,
            self.seconds,
        );
        Ok(Report { place, rows })
    }

    fn start(
        &self,
        gateway: &Gateway,
        directory: &Path,
        origin: SocketAddr,
        descriptors: &Path,
        stop: &AtomicBool,
    ) -> Result<peer::Running, Box<dyn Error>> {
        let (listen, admin) = (pin::free_port()?, pin::free_port()?);
        let setup = config::Setup { listen, admin, origin: origin.port(), descriptors };
        let (program, arguments) = match gateway {
            Gateway::Peer(found) => {
                let text = match found.peer {
                    Peer::Sluice => config::sluice(&setup),
                    Peer::Nginx => config::nginx(&setup, directory),
                    _ => config::envoy(&setup),
                };
                (found.program.clone(), peer::arguments(found.peer, directory, &text)?)
            }
            Gateway::KrakenD(program) => {
                let file = directory.join("krakend.json");
                std::fs::write(&file, config::krakend(&setup))?;
                let arguments = ["run", "-c", &file.display().to_string()].map(str::to_owned);
                (program.clone(), arguments.to_vec())
            }
        };
        let mut process =
            Pinned::start(gateway.name(), self.proxy_cpu, directory, &program, arguments)?;
        let address = SocketAddr::from(([127, 0, 0, 1], listen));
        process.wait_for(address, Duration::from_secs(10), stop)?;
        Ok(peer::Running { address, process: Some(process) })
    }

    fn plan(&self, url: &str, case: Case, rate: Option<u64>) -> Result<Plan, Box<dyn Error>> {
        let duration = Duration::from_secs_f64(self.seconds);
        let connections = if rate.is_some() { 8 } else { 64 };
        let mut plan = Plan {
            tls: tls::Client::new(tls::Trust::Anybody),
            rate,
            warmup: Duration::from_secs(1).min(duration),
            duration,
            timeout: Duration::from_secs(5),
            cpu: Some(self.load_cpu),
            ..Plan::get(url, connections)?
        };
        if let Some(body) = case.body() {
            plan.message.method = "POST".to_owned();
            plan.message.headers.push("Content-Type: application/json".to_owned());
            plan.message.body = Some(body);
        }
        Ok(plan)
    }
}

/// A run without a single failure.
fn measured(
    plan: &Plan,
    running: &mut peer::Running,
    stop: &AtomicBool,
) -> Result<Sample, Box<dyn Error>> {
    let sample = compare::measure(plan, running, stop)?;
    match sample.failures {
        0 => Ok(sample),
        failures => {
            Err(format!("{failures} requests to {} were not answered", plan.target.path).into())
        }
    }
}

impl Row {
    fn new(gateway: &'static str, case: Case) -> Row {
        Row {
            gateway,
            case,
            plain_us: Vec::new(),
            changed_us: Vec::new(),
            plain_p50_us: Vec::new(),
            changed_p50_us: Vec::new(),
            changed_rps: Vec::new(),
        }
    }

    fn push(&mut self, is_plain: bool, sample: &Sample, calm: &Sample) {
        match is_plain {
            true => {
                self.plain_us.push(sample.cpu_us);
                self.plain_p50_us.push(calm.p50_us);
            }
            false => {
                self.changed_us.push(sample.cpu_us);
                self.changed_p50_us.push(calm.p50_us);
                self.changed_rps.push(sample.requests_per_s);
            }
        }
    }

    /// What it adds, by round.
    fn added_us(&self) -> Vec<f64> {
        self.changed_us.iter().zip(&self.plain_us).map(|(after, before)| after - before).collect()
    }

    fn added_p50_us(&self) -> f64 {
        let pairs = self.changed_p50_us.iter().zip(&self.plain_p50_us);
        median(&pairs.map(|(after, before)| after - before).collect::<Vec<f64>>())
    }
}

impl Report {
    /// For people.
    fn table(&self) -> String {
        let mut out = String::new();
        let Place { machine, kernel, rounds, seconds, .. } = &self.place;
        let _ = writeln!(out, "{machine}, Linux {kernel}; {rounds} rounds of {seconds} s\n");
        let _ = writeln!(
            out,
            "{:<12}{:<10}{:>9}{:>9}{:>9}  {:<13}{:>10}{:>10}{:>10}",
            "CPU us per",
            "request",
            "plain",
            "changed",
            "added",
            "min-max",
            "p50 plain",
            "changed",
            "req/s"
        );
        for row in &self.rows {
            let added = row.added_us();
            let least = added.iter().copied().fold(f64::INFINITY, f64::min);
            let most = added.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let range = format!("{least:.2}-{most:.2}");
            let _ = writeln!(
                out,
                "{:<12}{:<10}{:>9.2}{:>9.2}{:>9.2}  {range:<13}{:>10.0}{:>10.0}{:>10.0}",
                row.case.name(),
                row.gateway,
                median(&row.plain_us),
                median(&row.changed_us),
                median(&added),
                median(&row.plain_p50_us),
                median(&row.changed_p50_us),
                median(&row.changed_rps),
            );
        }
        out.push('\n');
        for row in self.rows.iter().filter(|row| row.gateway == Peer::Sluice.name()) {
            let other = |name: &str| {
                let rows = self.rows.iter();
                let mut rows = rows.filter(|one| one.case == row.case && one.gateway == name);
                rows.next().map(|one| median(&one.changed_us))
            };
            let (what, found, most) = match row.case {
                Case::Headers => ("us of CPU added", median(&row.added_us()), HEADERS_US),
                Case::Body => continue,
                Case::Transcode => match other(Peer::Envoy.name()) {
                    Some(envoy) => {
                        ("of Envoy's CPU", median(&row.changed_us) / envoy, TRANSCODE_RATIO)
                    }
                    None => continue,
                },
                Case::Aggregate => {
                    if let Some(krakend) = other("krakend") {
                        let ratio = krakend / median(&row.changed_us);
                        let _ =
                            writeln!(out, "      aggregate: KrakenD takes {ratio:.1} x the CPU");
                    }
                    ("us above one call, p50", row.added_p50_us(), AGGREGATE_US)
                }
            };
            let verdict = if found <= most { "met " } else { "MISS" };
            let _ =
                writeln!(out, "{verdict}  {}: {found:.2} {what}, at most {most}", row.case.name());
        }
        out
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        _ if sorted.is_empty() => 0.0,
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}
