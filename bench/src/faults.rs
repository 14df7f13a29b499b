//! Upstreams that fail, and what clients of each proxy see of it: three origins, one of which
//! begins to fail in one way after another, under requests that do not wait for each other.

pub mod config;
pub mod origin;

use std::error::Error;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use origin::{Fault, Origin};
use serde::Serialize;

use crate::load::report::time;
use crate::load::{Edge, Plan};
use crate::peer::{self, Found, Peer};
use crate::pin::{self, Pinned, free_port};

/// So many that one which waits for a time-out holds up none of the others for long.
const CONNECTIONS: usize = 256;
const WARMUP: Duration = Duration::from_secs(1);
/// A client that waits longer has gone.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Faults {
    pub peers: Vec<Found>,
    pub faults: Vec<Fault>,
    /// Requests of a hundred that the failing origin fails.
    pub share: u64,
    pub seconds: f64,
    pub rate: u64,
    pub proxy_cpu: usize,
    pub load_cpu: usize,
    pub origin_cpu: usize,
}

/// What clients of one peer saw while one origin failed in one way.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub peer: &'static str,
    /// `healthy`: nothing failed.
    pub fault: &'static str,
    /// A proxy can keep all of it from the client.
    pub can_be_hidden: bool,
    /// Requests that were due.
    pub due: u64,
    /// Of these, answered with 200, whole, and with their own id.
    pub good: u64,
    /// Answers to other requests, or not whole and yet ended cleanly.
    pub wrong: u64,
    /// Other statuses than 200.
    pub refused: u64,
    /// Ended without a whole answer so that it showed.
    pub cut: u64,
    pub late: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Requests that reached the failing origin after it began to fail.
    pub asked: u64,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub rate: u64,
    pub seconds: f64,
    pub share: u64,
    pub rows: Vec<Row>,
}

impl Faults {
    /// Runs everything; says on stderr what is being done.
    pub fn run(&self, stop: &AtomicBool) -> Result<Report, Box<dyn Error>> {
        pin::raise_open_files();
        let scratch =
            std::env::temp_dir().join(format!("sluice-bench-faults-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        let rows = self.rows(&scratch, stop);
        let _ = std::fs::remove_dir_all(&scratch);
        Ok(Report { rate: self.rate, seconds: self.seconds, share: self.share, rows: rows? })
    }

    fn rows(&self, scratch: &Path, stop: &AtomicBool) -> Result<Vec<Row>, Box<dyn Error>> {
        let mut rows = Vec::new();
        let ways = std::iter::once(None).chain(self.faults.iter().copied().map(Some));
        for fault in ways {
            for found in &self.peers {
                let name = fault.map_or("healthy", Fault::name);
                eprintln!("{name}: {}", found.peer);
                let directory = scratch.join(format!("{}-{name}", found.peer));
                let row = self.row(found, fault, &directory, stop);
                let _ = std::fs::remove_dir_all(&directory);
                if stop.load(Relaxed) {
                    return Err("stopped".into());
                }
                rows.push(row?);
            }
        }
        Ok(rows)
    }

    /// Everything is started afresh, is healthy while it warms up, and then one origin fails.
    fn row(
        &self,
        found: &Found,
        fault: Option<Fault>,
        directory: &Path,
        stop: &AtomicBool,
    ) -> Result<Row, Box<dyn Error>> {
        let origins = (0..3)
            .map(|_| Origin::start(0, self.share, Some(self.origin_cpu)))
            .collect::<Result<Vec<_>, _>>()?;
        let (address, _process) = self.start(found, &origins, directory, stop)?;
        let failing = origins.get(1).ok_or("three origins")?;

        let mut plan = Plan::get(&format!("http://{address}/"), CONNECTIONS)?;
        plan.message.checked = true;
        plan.warmup = WARMUP;
        plan.duration = Duration::from_secs_f64(self.seconds);
        plan.rate = Some(self.rate);
        plan.timeout = PATIENCE;
        plan.cpu = Some(self.load_cpu);
        let mut before = 0;
        let outcome = plan.run(stop, |edge, _| {
            if edge == Edge::Start {
                failing.fail(fault);
                before = failing.asked();
            }
        })?;
        let tally = outcome.tally;
        let cut = tally.read_errors + tally.write_errors;
        // Everything else has a latency, if only its age.
        let due = tally.latency.len() + cut;
        let bad = tally.not_2xx + tally.wrong + tally.resets;
        let at = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Row {
            peer: found.peer.name(),
            fault: fault.map_or("healthy", Fault::name),
            can_be_hidden: fault.is_none_or(Fault::can_be_hidden),
            due,
            good: tally.answers.saturating_sub(bad),
            wrong: tally.wrong,
            refused: tally.not_2xx,
            cut,
            late: tally.timeouts + tally.unfinished,
            p50_us: at(0.5),
            p99_us: at(0.99),
            asked: failing.asked().saturating_sub(before),
        })
    }

    fn start(
        &self,
        found: &Found,
        origins: &[Origin],
        directory: &Path,
        stop: &AtomicBool,
    ) -> Result<(SocketAddr, Option<Pinned>), Box<dyn Error>> {
        std::fs::create_dir_all(directory)?;
        let setup = config::Setup {
            listen: free_port()?,
            admin: free_port()?,
            origins: origins.iter().map(|origin| origin.address().port()).collect(),
        };
        let text = match found.peer {
            Peer::Sluice => config::sluice(&setup),
            Peer::Nginx => config::nginx(&setup, directory),
            Peer::Haproxy => config::haproxy(&setup),
            Peer::Envoy => config::envoy(&setup),
            other => return Err(format!("{other} has one upstream only").into()),
        };
        let arguments = peer::arguments(found.peer, directory, &text)?;
        let (name, cpu) = (found.peer.name(), self.proxy_cpu);
        let mut process = Pinned::start(name, cpu, directory, &found.program, arguments)?;
        let address = SocketAddr::from(([127, 0, 0, 1], setup.listen));
        process.wait_for(address, Duration::from_secs(10), stop)?;
        Ok((address, Some(process)))
    }
}

/// Whether a peer takes part.
pub fn takes(peer: Peer) -> bool {
    matches!(peer, Peer::Sluice | Peer::Nginx | Peer::Haproxy | Peer::Envoy)
}

impl Report {
    fn healthy(&self, peer: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.peer == peer && row.fault == "healthy")
    }

    pub fn text(&self) -> String {
        let mut out = format!(
            "Three origins, one of which begins to fail; {} requests/s, {} s for each way\n\n",
            self.rate, self.seconds
        );
        let _ = writeln!(
            out,
            "{:<14} {:<8} {:>9} {:>7} {:>7} {:>6} {:>6} {:>6} {:>10} {:>10} {:>9}",
            "fault",
            "peer",
            "good",
            "wrong",
            "refused",
            "cut",
            "late",
            "asked",
            "p50",
            "p99",
            "healthy x"
        );
        let mut last = "";
        for row in &self.rows {
            if row.fault != last {
                last = row.fault;
                out.push('\n');
            }
            let times = self.healthy(row.peer).map_or(f64::NAN, |h| row.p99_us / h.p99_us.max(1.0));
            // Cut down, so that 100 % means all of them.
            let share = (row.good as f64 / row.due.max(1) as f64 * 1e5).floor() / 1e3;
            let mark = if row.can_be_hidden { "" } else { "*" };
            let _ = writeln!(
                out,
                "{:<14} {:<8} {share:>8.3}% {:>7} {:>7} {:>6} {:>6} {:>6} {:>10} {:>10} {times:>9.2}",
                format!("{}{mark}", row.fault),
                row.peer,
                row.wrong,
                row.refused,
                row.cut,
                row.late,
                row.asked,
                time(row.p50_us),
                time(row.p99_us),
            );
        }
        out += "\n* Fails after the head has passed: nobody can hide it, only ask elsewhere from then on.\n\
                asked: requests that still reached the failing origin, checks included.\n";
        out
    }

    /// Writes it as JSON.
    pub fn save(&self, path: Option<&PathBuf>) -> Result<(), Box<dyn Error>> {
        let Some(path) = path else { return Ok(()) };
        std::fs::write(path, serde_json::to_vec_pretty(self)?)
            .map_err(|e| format!("cannot write {}: {e}", path.display()).into())
    }
}
