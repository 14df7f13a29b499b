//! What a run is printed as: wrk2's text, or JSON.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::{Outcome, Plan};

/// The numbers of one run. Latencies are in µs.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub threads: usize,
    pub connections: usize,
    pub rate: Option<u64>,
    pub seconds: f64,
    pub requests: u64,
    pub requests_per_s: f64,
    pub bytes: u64,
    pub bytes_per_s: f64,
    pub latency_us: Latency,
    pub errors: Errors,
    pub not_2xx_or_3xx: u64,
    pub grpc_failures: u64,
    pub resets: u64,
    pub wrong: u64,
    pub reconnects: u64,
    pub handshakes: u64,
    pub resumed: u64,
    pub unfinished: u64,
    pub first_fault: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    pub mean: f64,
    pub stdev: f64,
    pub p50: f64,
    pub p75: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Errors {
    pub connect: u64,
    pub read: u64,
    pub write: u64,
    pub timeout: u64,
}

impl Summary {
    pub fn new(plan: &Plan, outcome: &Outcome) -> Self {
        let tally = &outcome.tally;
        let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
        let at = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            threads: plan.threads,
            connections: plan.connections,
            rate: plan.rate,
            seconds,
            requests: tally.answers,
            requests_per_s: tally.answers as f64 / seconds,
            bytes: tally.bytes,
            bytes_per_s: tally.bytes as f64 / seconds,
            latency_us: Latency {
                mean: tally.latency.mean() / 1e3,
                stdev: tally.latency.stdev() / 1e3,
                p50: at(0.5),
                p75: at(0.75),
                p90: at(0.9),
                p99: at(0.99),
                p99_9: at(0.999),
                p99_99: at(0.9999),
                max: tally.latency.max() as f64 / 1e3,
            },
            errors: Errors {
                connect: tally.connect_errors,
                read: tally.read_errors,
                write: tally.write_errors,
                timeout: tally.timeouts,
            },
            not_2xx_or_3xx: tally.not_2xx,
            grpc_failures: tally.grpc_failures,
            resets: tally.resets,
            wrong: tally.wrong,
            reconnects: tally.reconnects,
            handshakes: tally.handshakes,
            resumed: tally.resumed,
            unfinished: tally.unfinished,
            first_fault: tally.first_fault.clone(),
        }
    }

    /// All ways in which a request did not get its answer.
    pub fn failures(&self) -> u64 {
        let errors = &self.errors;
        let socket = errors.connect + errors.read + errors.write + errors.timeout;
        socket + self.not_2xx_or_3xx + self.grpc_failures + self.resets + self.wrong
    }

    /// The text that wrk2 prints. `percentiles` adds the distribution (`--latency`).
    pub fn text(&self, plan: &Plan, percentiles: bool) -> String {
        let mut out = String::new();
        let latency = &self.latency_us;
        let _ = writeln!(
            out,
            "Running {} test @ {}://{}{}\n  {} threads and {} connections{}",
            time(plan.duration.as_secs_f64() * 1e6),
            if plan.target.secure { "https" } else { "http" },
            plan.target.authority,
            plan.target.path,
            self.threads,
            self.connections,
            match self.rate {
                Some(rate) => format!(", {rate} requests/s, latency from the intended start"),
                None => ", as fast as answers come".to_owned(),
            },
        );
        let _ = writeln!(
            out,
            "  Latency     Avg {}   Stdev {}   Max {}",
            time(latency.mean),
            time(latency.stdev),
            time(latency.max)
        );
        if percentiles {
            out += "  Latency Distribution (HdrHistogram)\n";
            for (label, value) in [
                ("50.000%", latency.p50),
                ("75.000%", latency.p75),
                ("90.000%", latency.p90),
                ("99.000%", latency.p99),
                ("99.900%", latency.p99_9),
                ("99.990%", latency.p99_99),
                ("100.000%", latency.max),
            ] {
                let _ = writeln!(out, "{label:>9} {:>9}", time(value));
            }
        }
        let _ = writeln!(
            out,
            "  {} requests in {}, {} read",
            self.requests,
            time(self.seconds * 1e6),
            size(self.bytes as f64)
        );
        let errors = &self.errors;
        if errors.connect + errors.read + errors.write + errors.timeout > 0 {
            let _ = writeln!(
                out,
                "  Socket errors: connect {}, read {}, write {}, timeout {}",
                errors.connect, errors.read, errors.write, errors.timeout
            );
        }
        if self.not_2xx_or_3xx > 0 {
            let _ = writeln!(out, "  Non-2xx or 3xx responses: {}", self.not_2xx_or_3xx);
        }
        for (count, what) in [
            (self.grpc_failures, "Calls without grpc-status 0"),
            (self.resets, "Requests reset by the server"),
            (self.wrong, "Answers to other requests, or not whole"),
        ] {
            if count > 0 {
                let _ = writeln!(out, "  {what}: {count}");
            }
        }
        if let Some(fault) = &self.first_fault {
            let _ = writeln!(out, "  The first time that it made no sense: {fault}");
        }
        if self.handshakes > 0 {
            let (all, resumed) = (self.handshakes, self.resumed);
            let _ = writeln!(out, "  TLS handshakes: {all}, of them resumed: {resumed}");
        }
        if self.reconnects > 0 {
            let _ = writeln!(out, "  Connections closed by the server: {}", self.reconnects);
        }
        if self.unfinished > 0 {
            let _ = writeln!(out, "  Due but unanswered at the end: {}", self.unfinished);
        }
        let _ = writeln!(out, "Requests/sec: {:>11.2}", self.requests_per_s);
        let _ = writeln!(out, "Transfer/sec: {:>11}", size(self.bytes_per_s));
        out
    }
}

/// A time given in µs, in wrk's units.
pub fn time(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.2}us"),
        us if us < 1e6 => format!("{:.2}ms", us / 1e3),
        us if us < 60e6 => format!("{:.2}s", us / 1e6),
        us => format!("{:.2}m", us / 60e6),
    }
}

/// Reads a time with wrk's units (`10s`, `2m`, `1.5ms`, `300us`, `1h`), or plain seconds.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit {unit:?}: write us, ms, s, m or h")),
    };
    let value: f64 = digits.parse().map_err(|_| format!("{text:?} is not a time like 10s"))?;
    Duration::try_from_secs_f64(value * scale).map_err(|_| format!("{text:?} is no usable time"))
}

/// Reads a count that may have wrk's suffixes (`10k`, `2M`).
pub fn parse_count(text: &str) -> Result<u64, String> {
    let (digits, scale) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|value| value.checked_mul(scale))
        .filter(|&value| value > 0)
        .ok_or_else(|| format!("{text:?} is not a count above zero, like 5000 or 5k"))
}

fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 1024.0 => format!("{bytes:.2}B"),
        bytes if bytes < 1024f64.powi(2) => format!("{:.2}KB", bytes / 1024.0),
        bytes if bytes < 1024f64.powi(3) => format!("{:.2}MB", bytes / 1024f64.powi(2)),
        bytes => format!("{:.2}GB", bytes / 1024f64.powi(3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counts() {
        assert_eq!(parse_time("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_time("1.5ms"), Ok(Duration::from_micros(1500)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_time("3"), Ok(Duration::from_secs(3)));
        assert!(
            parse_time("3d").is_err() && parse_time("s").is_err() && parse_time("-1s").is_err()
        );
        assert_eq!(parse_count("5k"), Ok(5000));
        assert_eq!(parse_count("7"), Ok(7));
        assert!(parse_count("k").is_err() && parse_count("0").is_err() && parse_count("").is_err());
        assert_eq!(time(1500.0), "1.50ms");
        assert_eq!(size(2048.0), "2.00KB");
    }
}
