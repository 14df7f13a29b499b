//! Runs Sluice and its peers on the same work, pinned to the same CPU, in interleaved rounds:
//! A B C A B C …, so that what the machine does meanwhile falls on all of them.

mod idle;
pub mod plot;
pub mod report;
pub mod scenario;

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use report::{Place, Report, Row, Sample, Section, Version};
use scenario::{ROUTES, Rate, Scenario, Work};

use crate::load::report::Summary;
use crate::load::target::Message;
use crate::load::{Edge, Plan};
use crate::peer::config::{Certificate, Wire};
use crate::peer::{self, Found, Peer, Running, Scene, config};
use crate::pin::{self, Pinned};
use crate::tls;
use crate::usage::Reading;

/// What is to be compared, and how long.
#[derive(Clone, Debug)]
pub struct Comparison {
    pub peers: Vec<Found>,
    pub scenarios: Vec<Scenario>,
    pub rounds: usize,
    pub seconds: f64,
    pub proxy_cpu: usize,
    pub load_cpu: usize,
    pub origin_cpu: usize,
}

/// Time before each measured window: connections are made and caches filled. No longer than the
/// window itself.
const WARMUP: Duration = Duration::from_secs(1);
/// Bytes of a gRPC message to the origin.
const MESSAGE_BYTES: usize = 128;

/// Files of a run. Removed when it is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("sluice-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Makes the certificate that all peers are given.
    fn certificate(&self) -> Result<Certificate, Box<dyn Error>> {
        let (chain, key) = tls::self_signed()?;
        let write = |name: &str, text: &str| {
            let path = self.0.join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        let both = write("both.pem", &format!("{chain}{key}"))?;
        Ok(Certificate { chain: write("chain.pem", &chain)?, key: write("key.pem", &key)?, both })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Comparison {
    /// Runs everything; says on stderr what is being done.
    pub fn run(&self, stop: &AtomicBool) -> Result<Report, Box<dyn Error>> {
        let open_files = pin::raise_open_files();
        pin::this_thread(self.load_cpu)?;
        let scratch = Scratch::new()?;
        let certificate = scratch.certificate()?;
        let (origin, clear) = self.origin(&scratch.0, None, stop)?;
        let (tls_origin, secure) = self.origin(&scratch.0, Some(&certificate), stop)?;
        // They live as long as the run.
        let _origins = (origin, tls_origin);

        let run = Run {
            comparison: self,
            origin: clear,
            tls_origin: secure,
            certificate,
            open_files,
            stop,
        };
        let mut sections = Vec::new();
        for scenario in &self.scenarios {
            let mut rows: Vec<(Row, &Found)> = Vec::new();
            for found in self.peers.iter().filter(|found| scenario.takes(found.peer)) {
                let routes =
                    if found.peer == Peer::Sluice { scenario.routes } else { &[ROUTES][..] };
                rows.extend(
                    routes.iter().map(|&routes| {
                        (Row { peer: found.peer, routes, samples: Vec::new() }, found)
                    }),
                );
            }
            for round in 1..=self.rounds {
                for (row, found) in &mut rows {
                    eprintln!("{} {round}/{} {}", scenario.name, self.rounds, row.label(scenario));
                    let directory = scratch.0.join(format!("{}-{}", found.peer, row.routes));
                    let sample = run.sample(scenario, found, row.routes, &directory);
                    let _ = std::fs::remove_dir_all(&directory);
                    if stop.load(Relaxed) {
                        return Err("stopped".into());
                    }
                    row.samples.push(sample?);
                }
            }
            let rows = rows.into_iter().map(|(row, _)| row).collect();
            sections.push(Section::new(*scenario, rows));
        }
        Ok(Report { place: self.place(), peers: self.versions(), sections })
    }

    fn origin(
        &self,
        directory: &Path,
        secure: Option<&Certificate>,
        stop: &AtomicBool,
    ) -> Result<(Pinned, SocketAddr), Box<dyn Error>> {
        let me = std::env::current_exe()?;
        let port = pin::free_port()?;
        let mut arguments = vec!["origin".to_owned(), "-p".to_owned(), port.to_string()];
        if let Some(Certificate { chain, key, .. }) = secure {
            let path = |path: &Path| path.to_string_lossy().into_owned();
            arguments.extend(["--cert".to_owned(), path(chain), "--key".to_owned(), path(key)]);
            arguments.push("--equal-work".to_owned());
        }
        let name = if secure.is_some() { "tls-origin" } else { "origin" };
        let mut origin = Pinned::start(name, self.origin_cpu, directory, &me, arguments)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        origin.wait_for(address, Duration::from_secs(5), stop)?;
        Ok((origin, address))
    }

    fn versions(&self) -> Vec<Version> {
        let version =
            |found: &Found| Version { name: found.peer.name(), version: found.version.clone() };
        self.peers.iter().filter(|found| found.peer != Peer::Direct).map(version).collect()
    }

    fn place(&self) -> Place {
        place(self.proxy_cpu, self.load_cpu, self.origin_cpu, self.rounds, self.seconds)
    }
}

/// Where a run takes place.
pub fn place(
    proxy_cpu: usize,
    load_cpu: usize,
    origin_cpu: usize,
    rounds: usize,
    seconds: f64,
) -> Place {
    let line = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.rsplit(": ").next().unwrap_or_default().trim().to_owned()
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let model = line("/proc/cpuinfo", "model name");
    Place {
        machine: format!("{model}, {} CPUs", pin::online_cpus().unwrap_or(cpus)),
        kernel: line("/proc/sys/kernel/osrelease", ""),
        proxy_cpu,
        load_cpu,
        origin_cpu,
        rounds,
        seconds,
    }
}

/// What all samples of a comparison share.
struct Run<'a> {
    comparison: &'a Comparison,
    origin: SocketAddr,
    tls_origin: SocketAddr,
    certificate: Certificate,
    open_files: u64,
    stop: &'a AtomicBool,
}

impl Run<'_> {
    /// Starts a peer afresh and measures it once.
    fn sample(
        &self,
        scenario: &Scenario,
        found: &Found,
        routes: usize,
        directory: &Path,
    ) -> Result<Sample, Box<dyn Error>> {
        let scene = Scene {
            cpu: self.comparison.proxy_cpu,
            origin: if scenario.wire.tls_origin { self.tls_origin } else { self.origin },
            routes,
            wire: scenario.wire,
            certificate: &self.certificate,
            directory,
        };
        let mut running = peer::start(found, scene, self.stop)?;
        // What the direct way leads to has no TLS.
        let wire = match found.peer {
            Peer::Direct => Wire { tls: None, ..scenario.wire },
            _ => scenario.wire,
        };
        let url = |address: SocketAddr, wire: Wire, bytes: u64| {
            let scheme = if wire.tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{address}{}/bytes/{bytes}", config::prefix(routes))
        };
        match scenario.work {
            Work::Requests { connections, streams, body_bytes, rate } => {
                let mut plan = self.plan(&url(running.address, wire, body_bytes), wire)?;
                (plan.connections, plan.pipeline) = (connections, streams);
                let share = match rate {
                    Rate::Saturated => None,
                    Rate::Fixed(rate) => {
                        plan.rate = Some(rate);
                        None
                    }
                    Rate::Share(share) => Some(share),
                };
                let sample = measure(&plan, &mut running, self.stop)?;
                let Some(share) = share else { return Ok(sample) };
                plan.rate = Some((sample.requests_per_s * share).max(1.0) as u64);
                let sample = measure(&plan, &mut running, self.stop)?;
                drop(running);
                let mut direct = Running { address: self.origin, process: None };
                let wire = Wire { tls: None, ..wire };
                let plan = Plan {
                    rate: plan.rate,
                    connections,
                    pipeline: streams,
                    ..self.plan(&url(self.origin, wire, body_bytes), wire)?
                };
                let direct = measure(&plan, &mut direct, self.stop)?;
                Ok(Sample {
                    direct_p50_us: direct.p50_us,
                    direct_p99_us: direct.p99_us,
                    direct_p99_9_us: direct.p99_9_us,
                    ..sample
                })
            }
            Work::Handshakes { connections, resume } => {
                let mut plan = self.plan(&url(running.address, wire, 128), wire)?;
                (plan.connections, plan.fresh, plan.tls.resume) = (connections, true, resume);
                measure(&plan, &mut running, self.stop)
            }
            Work::Idle { connections } => {
                let mut plan = self.plan(&url(running.address, wire, 128), wire)?;
                plan.tls.resume = false;
                let spare = self.open_files.saturating_sub(500) as usize;
                idle::measure(plan, &running, connections.min(spare), self.stop)
            }
        }
    }

    fn plan(&self, url: &str, wire: Wire) -> Result<Plan, String> {
        let duration = Duration::from_secs_f64(self.comparison.seconds);
        let plan = Plan::get(url, 1)?;
        Ok(Plan {
            message: Message {
                http2: wire.http2,
                grpc: wire.grpc,
                body_bytes: if wire.grpc { MESSAGE_BYTES } else { 0 },
                ..Message::default()
            },
            tls: tls::Client {
                trust: tls::Trust::Anybody,
                version: wire.tls,
                equal_work: true,
                ..plan.tls
            },
            server_name: Some(tls::NAME.to_owned()),
            warmup: WARMUP.min(duration),
            duration,
            timeout: Duration::from_secs(5),
            cpu: Some(self.comparison.load_cpu),
            ..plan
        })
    }
}

/// One run of the load with the CPU time of the peer over the same window.
pub fn measure(
    plan: &Plan,
    running: &mut Running,
    stop: &AtomicBool,
) -> Result<Sample, Box<dyn Error>> {
    let root = running.process.as_ref().map(Pinned::id);
    let read = || root.map(Reading::of).unwrap_or_default();
    let mut edges = Vec::new();
    let outcome = plan.run(stop, |edge: Edge, answers| edges.push((edge, answers, read())))?;
    let summary = Summary::new(plan, &outcome);
    let [(_, first, before), (_, last, after)] = &edges[..] else {
        return Err("the run had no window".into());
    };
    let requests = last.saturating_sub(*first);
    if requests == 0 && !stop.load(Relaxed) {
        let why = summary.first_fault.as_deref().unwrap_or("nothing came");
        let what = format!("gave no answer to {} ({why})", plan.target.path);
        return Err(match &running.process {
            Some(process) => process.failure(&what).into(),
            None => what.into(),
        });
    }
    if let Some(fault) = &summary.first_fault {
        eprintln!("  {fault}");
    }
    let (tree, engine) = after.since(before);
    let each = |ns: u64| ns as f64 / 1e3 / requests.max(1) as f64;
    Ok(Sample {
        cpu_us: each(tree),
        engine_cpu_us: each(engine),
        busy: tree as f64 / outcome.elapsed.as_nanos().max(1) as f64,
        requests_per_s: requests as f64 / outcome.elapsed.as_secs_f64().max(1e-9),
        p50_us: summary.latency_us.p50,
        p99_us: summary.latency_us.p99,
        p99_9_us: summary.latency_us.p99_9,
        connections: plan.connections,
        failures: summary.failures(),
        resumed: summary.resumed as f64 / summary.handshakes.max(1) as f64,
        ..Sample::default()
    })
}

/// Which CPUs to use: one for the proxy, and the load and the origin away from it, apart from
/// each other where there are three.
pub fn layout(cpus: &[usize]) -> Result<(usize, usize, usize), String> {
    match *cpus {
        [load, proxy, origin, ..] => Ok((proxy, load, origin)),
        [load, proxy] => Ok((proxy, load, load)),
        _ => Err("a comparison needs two CPUs: one for the proxy, one for the load".into()),
    }
}

/// Writes a report's files.
pub fn save(
    report: &Report,
    json: Option<&Path>,
    svg: Option<&Path>,
) -> Result<(), Box<dyn Error>> {
    let wrong = |path: &Path, error| format!("cannot write {}: {error}", path.display());
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_vec_pretty(report)?).map_err(|e| wrong(path, e))?;
    }
    if let Some(path) = svg {
        std::fs::write(path, plot::svg(report)?).map_err(|e| wrong(path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_has_a_cpu_of_its_own() {
        assert_eq!(layout(&[0, 1]), Ok((1, 0, 0)));
        assert_eq!(layout(&[0, 1, 2, 3]), Ok((1, 0, 2)));
        assert_eq!(layout(&[4, 6, 8]), Ok((6, 4, 8)));
        assert!(layout(&[3]).is_err());
    }
}
