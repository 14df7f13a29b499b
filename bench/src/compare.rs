//! Runs Sluice and its peers on the same work, pinned to the same CPU, in interleaved rounds:
//! A B C A B C …, so that what the machine does meanwhile falls on all of them.

pub mod plot;
pub mod report;
pub mod scenario;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use report::{Place, Report, Row, Sample, Section, Version};
use scenario::{ROUTES, Scenario, Work};

use crate::load::report::Summary;
use crate::load::{Edge, Plan};
use crate::peer::{self, Found, Peer, Running, config};
use crate::pin::{self, Pinned};
use crate::usage::{self, Reading};

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

/// Time before each measured window: connections are made and caches filled.
const WARMUP: Duration = Duration::from_secs(1);
/// The same before the memory of idle connections is measured.
const IDLE_WARMUP: Duration = Duration::from_millis(500);
/// Between the last answer and the reading of memory.
const SETTLE: Duration = Duration::from_secs(1);

/// Files of a run. Removed when it is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("sluice-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
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
        let port = pin::free_port()?;
        let origin_address = SocketAddr::from(([127, 0, 0, 1], port));
        let me = std::env::current_exe()?;
        let arguments = ["origin", "-p", &port.to_string()];
        let mut origin = Pinned::start("origin", self.origin_cpu, &scratch.0, &me, arguments)?;
        origin.wait_for(origin_address, Duration::from_secs(5), stop)?;

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
                    let mut running = peer::start(
                        found,
                        self.proxy_cpu,
                        origin_address,
                        row.routes,
                        &directory,
                        stop,
                    )?;
                    let sample = match scenario.work {
                        Work::Requests { connections, body_bytes, rate } => {
                            let path = format!("{}/bytes/{body_bytes}", config::prefix(row.routes));
                            let url = format!("http://{}{path}", running.address);
                            let mut plan = self.plan(&url, connections)?;
                            plan.rate = rate;
                            measure(&plan, &mut running, stop)
                        }
                        Work::Idle { connections } => {
                            let path = format!("{}/bytes/128", config::prefix(row.routes));
                            let spare = open_files.saturating_sub(500) as usize;
                            let connections = connections.min(spare);
                            self.idle(&running, &path, connections, stop)
                        }
                    };
                    drop(running);
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

    fn plan(&self, url: &str, connections: usize) -> Result<Plan, String> {
        Ok(Plan {
            warmup: WARMUP,
            duration: Duration::from_secs_f64(self.seconds),
            timeout: Duration::from_secs(5),
            cpu: Some(self.load_cpu),
            ..Plan::get(url, connections)?
        })
    }

    fn versions(&self) -> Vec<Version> {
        let version =
            |found: &Found| Version { name: found.peer.name(), version: found.version.clone() };
        self.peers.iter().filter(|found| found.peer != Peer::Direct).map(version).collect()
    }

    fn place(&self) -> Place {
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
            proxy_cpu: self.proxy_cpu,
            load_cpu: self.load_cpu,
            origin_cpu: self.origin_cpu,
            rounds: self.rounds,
            seconds: self.seconds,
        }
    }

    /// Opens connections that have one answer each and then stay idle.
    fn idle(
        &self,
        running: &Running,
        path: &str,
        connections: usize,
        stop: &AtomicBool,
    ) -> Result<Sample, Box<dyn Error>> {
        let Some(process) = &running.process else { return Ok(Sample::default()) };
        let url = format!("http://{}{path}", running.address);
        let mut plan = self.plan(&url, 64)?;
        (plan.warmup, plan.duration) = (Duration::ZERO, IDLE_WARMUP);
        plan.run(stop, |_, _| {})?;
        std::thread::sleep(SETTLE);
        let before = memory(process.id());
        let mut open = Vec::with_capacity(connections);
        let mut failures = 0;
        for _ in 0..connections {
            if stop.load(Relaxed) {
                return Err("stopped".into());
            }
            match one_answer(running.address, path) {
                Ok(stream) => open.push(stream),
                Err(_) => failures += 1,
            }
        }
        std::thread::sleep(SETTLE);
        let after = memory(process.id());
        // A connection that was closed meanwhile is not an idle connection held.
        failures += open.iter().filter(|stream| !is_open(stream)).count() as u64;
        let held = open.len().max(1);
        Ok(Sample {
            idle_bytes: after.saturating_sub(before) as f64 / held as f64,
            connections: open.len(),
            failures,
            ..Sample::default()
        })
    }
}

fn memory(root: u32) -> u64 {
    usage::tree(root).into_iter().map(usage::rss_bytes).sum()
}

fn one_answer(address: SocketAddr, path: &str) -> std::io::Result<TcpStream> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut parser = crate::load::response::Parser::new(false);
    let mut buffer = [0; 4096];
    loop {
        let received = stream.read(&mut buffer)?;
        let mut rest = buffer.get(..received).unwrap_or_default();
        if rest.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        while !rest.is_empty() {
            match parser.feed(rest) {
                Ok((_, Some(answer))) if answer.status == 200 && !answer.close => {
                    return Ok(stream);
                }
                Ok((used, None)) => rest = rest.get(used..).unwrap_or_default(),
                _ => return Err(std::io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    stream.set_nonblocking(true).is_ok()
        && matches!(stream.peek(&mut byte), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

/// One run of the load with the CPU time of the peer over the same window.
fn measure(
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
        let what = format!("gave no answer to {}", plan.target.path);
        return Err(match &running.process {
            Some(process) => process.failure(&what).into(),
            None => what.into(),
        });
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
        idle_bytes: 0.0,
        connections: plan.connections,
        failures: summary.failures(),
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
