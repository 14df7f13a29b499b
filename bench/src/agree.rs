//! Whether our generator finds what `wrk` and `wrk2` find: both on the same origin, in turns.
//! The origin burns CPU time for every request, so that it and not the generator is what bounds
//! the throughput.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::compare::report::Spread;
use crate::load::Plan;
use crate::load::report::{Summary, parse_time};
use crate::pin::{self, Pinned};

/// How long, how often, where.
#[derive(Clone, Debug)]
pub struct Agreement {
    pub rounds: usize,
    pub seconds: u64,
    pub connections: usize,
    pub load_cpu: usize,
    pub origin_cpu: usize,
    /// CPU time that the origin burns for one request, in µs.
    pub spin_us: u64,
    pub rate: u64,
}

/// What a generator found. Latencies in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Finding {
    pub requests_per_s: f64,
    pub p50: f64,
    pub p75: f64,
    pub p90: f64,
    pub p99: f64,
}

const TOLERANCE: f64 = 0.05;

impl Agreement {
    /// Prints both results; an error if throughput or median differ by more than 5 %.
    pub fn run(&self, stop: &AtomicBool) -> Result<(), Box<dyn Error>> {
        let me = std::env::current_exe()?;
        let port = pin::free_port()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let arguments = ["origin", "-p", &port.to_string(), "--spin-us", &self.spin_us.to_string()];
        let directory = std::env::temp_dir();
        let mut origin = Pinned::start("origin", self.origin_cpu, &directory, &me, arguments)?;
        origin.wait_for(address, Duration::from_secs(5), stop)?;
        let url = format!("http://{address}/bytes/128");
        pin::this_thread(self.load_cpu)?;
        let mut compared = false;
        let mut agree = true;
        for (tool, rate) in [("wrk", None), ("wrk2", Some(self.rate))] {
            if Command::new(tool).arg("-v").output().is_err() {
                println!("{tool}: not found, left out");
                continue;
            }
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..self.rounds {
                ours.push(self.ours(&url, rate, stop)?);
                if stop.load(Relaxed) {
                    return Err("stopped".into());
                }
                theirs.push(self.theirs(tool, Path::new(tool), &url, rate)?);
            }
            compared = true;
            agree &= table(tool, rate, &ours, &theirs);
        }
        if !compared {
            return Err("neither wrk nor wrk2 is here: apt-get install wrk".into());
        }
        if !agree {
            return Err("the generators differ by more than 5 %".into());
        }
        Ok(())
    }

    fn ours(
        &self,
        url: &str,
        rate: Option<u64>,
        stop: &AtomicBool,
    ) -> Result<Finding, Box<dyn Error>> {
        let plan = Plan {
            rate,
            duration: Duration::from_secs(self.seconds),
            cpu: Some(self.load_cpu),
            ..Plan::get(url, self.connections)?
        };
        let summary = Summary::new(&plan, &plan.run(stop, |_, _| {})?);
        let latency = summary.latency_us;
        Ok(Finding {
            requests_per_s: summary.requests_per_s,
            p50: latency.p50,
            p75: latency.p75,
            p90: latency.p90,
            p99: latency.p99,
        })
    }

    fn theirs(
        &self,
        tool: &str,
        program: &Path,
        url: &str,
        rate: Option<u64>,
    ) -> Result<Finding, Box<dyn Error>> {
        // This thread is held to the load's CPU, and children inherit that.
        let output = Command::new(program)
            .args(["-t1", "--latency"])
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{}s", self.seconds))
            .args(rate.map(|rate| format!("-R{rate}")))
            .arg(url)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse_wrk(&text).ok_or_else(|| format!("{tool} printed something else:\n{text}").into())
    }
}

/// Reads what wrk and wrk2 print.
pub fn parse_wrk(text: &str) -> Option<Finding> {
    let after = |label: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(label))?;
        line.trim_start().strip_prefix(label)?.split_whitespace().next().map(str::to_owned)
    };
    let percentile = |short: &str, long: &str| {
        let text = after(short).or_else(|| after(long))?;
        Some(parse_time(&text).ok()?.as_secs_f64() * 1e6)
    };
    Some(Finding {
        requests_per_s: after("Requests/sec:")?.parse().ok()?,
        p50: percentile("50%", "50.000%")?,
        p75: percentile("75%", "75.000%")?,
        p90: percentile("90%", "90.000%")?,
        p99: percentile("99%", "99.000%")?,
    })
}

/// Prints medians side by side; whether throughput and, in the closed loop, the median latency
/// agree. (At a fixed rate wrk2 counts in its own timer's coarseness, so only the rate is judged.)
fn table(tool: &str, rate: Option<u64>, ours: &[Finding], theirs: &[Finding]) -> bool {
    let what = rate.map_or("closed loop".to_owned(), |rate| format!("{rate} requests/s"));
    println!("\n{what:<22} {:>12} {tool:>12} {:>9}", "bench", "differs");
    type Value = fn(&Finding) -> f64;
    let values: [(&str, Value, bool); 5] = [
        ("requests/s", |f| f.requests_per_s, true),
        ("p50 us", |f| f.p50, rate.is_none()),
        ("p75 us", |f| f.p75, false),
        ("p90 us", |f| f.p90, false),
        ("p99 us", |f| f.p99, false),
    ];
    let mut agree = true;
    for (label, value, judged) in values {
        let (a, b) = (Spread::of(ours.iter().map(value)), Spread::of(theirs.iter().map(value)));
        let difference = a.median / b.median - 1.0;
        // Not a number is no agreement either.
        let within = difference.abs() <= TOLERANCE;
        agree &= within || !judged;
        let verdict = match (judged, within) {
            (false, _) => "",
            (true, true) => "  pass",
            (true, false) => "  MISS",
        };
        println!(
            "{label:<22} {:>12.1} {:>12.1} {:>8.1}%{verdict}",
            a.median,
            b.median,
            difference * 100.0
        );
    }
    agree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_and_wrk2_print_is_read() {
        let wrk = "Running 1s test @ http://127.0.0.1/\n  1 threads and 64 connections\n\
            \x20 Latency Distribution\n     50%  512.00us\n     75%    1.05ms\n     90%    2.00ms\n\
            \x20    99%    3.00s\n  100 requests in 1.00s\nRequests/sec:  99.50\n";
        let finding = parse_wrk(wrk).unwrap();
        let expected =
            Finding { requests_per_s: 99.5, p50: 512.0, p75: 1050.0, p90: 2000.0, p99: 3e6 };
        assert_eq!(finding, expected);
        let wrk2 = wrk
            .replace(" 50% ", " 50.000% ")
            .replace(" 75% ", " 75.000% ")
            .replace(" 90% ", " 90.000% ")
            .replace(" 99% ", " 99.000% ");
        assert_eq!(parse_wrk(&wrk2), Some(expected));
        assert_eq!(parse_wrk("unable to connect"), None);
    }

    #[test]
    fn five_percent_is_the_bound() {
        let at = |requests_per_s, p50| Finding { requests_per_s, p50, ..Finding::default() };
        assert!(table("wrk", None, &[at(104.0, 10.0)], &[at(100.0, 10.0)]));
        assert!(!table("wrk", None, &[at(106.0, 10.0)], &[at(100.0, 10.0)]));
        assert!(!table("wrk", None, &[at(100.0, 11.0)], &[at(100.0, 10.0)]));
        assert!(table("wrk2", Some(9), &[at(100.0, 11.0)], &[at(100.0, 10.0)]));
        assert!(!table("wrk", None, &[], &[]));
    }
}
