//! What a comparison found: medians and spreads, ratios against the targets, as a table and as
//! JSON.

use std::fmt::Write;

use serde::Serialize;

use super::scenario::{ROUTES_RATIO, Rate, Scenario, Work};
use crate::peer::Peer;

/// One measured run of one peer. Latencies in µs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sample {
    /// User and system time of the whole process tree for one request.
    pub cpu_us: f64,
    /// The same of the process alone that carries the traffic.
    pub engine_cpu_us: f64,
    /// The share of one CPU that the tree used.
    pub busy: f64,
    pub requests_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    /// The same of the direct way, where it was measured at this sample's own rate.
    pub direct_p50_us: f64,
    pub direct_p99_us: f64,
    pub direct_p99_9_us: f64,
    /// The share of the TLS handshakes that resumed a session.
    pub resumed: f64,
    /// Resident memory of the tree for one idle connection.
    pub idle_bytes: f64,
    pub connections: usize,
    pub failures: u64,
}

/// The median and the extremes over all rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |n: usize| values.get(n).copied().unwrap_or_default();
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) && middle > 0 {
            (at(middle - 1) + at(middle)) / 2.0
        } else {
            at(middle)
        };
        Self { median, min: at(0), max: at(values.len().saturating_sub(1)) }
    }
}

/// One line of a table: a peer, for Sluice with a number of routes.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    #[serde(serialize_with = "as_name")]
    pub peer: Peer,
    pub routes: usize,
    pub samples: Vec<Sample>,
}

fn as_name<S: serde::Serializer>(peer: &Peer, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(peer.name())
}

impl Row {
    pub fn spread(&self, value: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(value))
    }

    pub fn label(&self, scenario: &Scenario) -> String {
        if self.peer == Peer::Sluice && scenario.alone {
            format!("{} routes", self.routes)
        } else {
            self.peer.name().to_owned()
        }
    }
}

/// One target and whether it was met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    pub what: String,
    pub value: f64,
    pub target: f64,
    pub pass: bool,
}

impl Verdict {
    fn at_most(what: String, value: f64, target: f64) -> Self {
        // Not a number, for want of a sample, is no pass.
        Self { what, value, target, pass: value <= target }
    }
}

/// All of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    pub name: &'static str,
    pub about: &'static str,
    pub rows: Vec<Row>,
    pub verdicts: Vec<Verdict>,
    #[serde(skip)]
    pub scenario: Scenario,
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    pub machine: String,
    pub kernel: String,
    pub proxy_cpu: usize,
    pub load_cpu: usize,
    pub origin_cpu: usize,
    pub rounds: usize,
    pub seconds: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Version {
    pub name: &'static str,
    pub version: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub place: Place,
    pub peers: Vec<Version>,
    pub sections: Vec<Section>,
}

impl Section {
    pub fn new(scenario: Scenario, rows: Vec<Row>) -> Self {
        let verdicts = verdicts(&scenario, &rows);
        Self { name: scenario.name, about: scenario.about, rows, verdicts, scenario }
    }

    /// The latencies added to the direct way's, in µs: p50, p99, p99.9.
    fn added(&self, row: &Row) -> Option<[f64; 3]> {
        if self.scenario.is_share() {
            return Some(added_at_own_rate(row));
        }
        let direct = self.rows.iter().find(|row| row.peer == Peer::Direct)?;
        let added =
            |value: fn(&Sample) -> f64| row.spread(value).median - direct.spread(value).median;
        Some([added(|s| s.p50_us), added(|s| s.p99_us), added(|s| s.p99_9_us)])
    }

    /// The section as text.
    pub fn text(&self) -> String {
        let mut out = format!("\n{}: {}\n", self.name, self.about);
        match self.scenario.work {
            Work::Requests { rate, .. } => self.request_table(&mut out, rate != Rate::Saturated),
            Work::Handshakes { .. } => self.request_table(&mut out, false),
            Work::Idle { .. } => self.idle_table(&mut out),
        }
        for verdict in &self.verdicts {
            let word = if verdict.pass { "pass" } else { "MISS" };
            let _ = writeln!(
                out,
                "  {word}  {:<46} {:>8.3}  target <= {:.2}",
                verdict.what, verdict.value, verdict.target
            );
        }
        out
    }

    fn request_table(&self, out: &mut String, fixed: bool) {
        let _ = write!(
            out,
            "  {:<13} {:>7} {:<15} {:>5} {:>9} {:<17} {:>8} {:>8} {:>8}",
            "", "CPU us", "(min-max)", "busy", "req/s", "(min-max)", "p50 us", "p99 us", "p99.9"
        );
        let handshakes = self.scenario.is_handshakes();
        let added = match () {
            () if fixed => " | added p50      p99    p99.9",
            () if handshakes => "   (a request is a connection with its handshake)",
            () => "",
        };
        let _ = writeln!(out, "{added}");
        for row in &self.rows {
            let (cpu, rate) = (row.spread(|s| s.cpu_us), row.spread(|s| s.requests_per_s));
            let _ = write!(
                out,
                "  {:<13} {:>7.2} {:<15} {:>4.0}% {:>9.0} {:<17} {:>8.0} {:>8.0} {:>8.0}",
                row.label(&self.scenario),
                cpu.median,
                format!("({:.2}-{:.2})", cpu.min, cpu.max),
                row.spread(|s| s.busy).median * 100.0,
                rate.median,
                format!("({:.0}-{:.0})", rate.min, rate.max),
                row.spread(|s| s.p50_us).median,
                row.spread(|s| s.p99_us).median,
                row.spread(|s| s.p99_9_us).median,
            );
            if fixed
                && row.peer != Peer::Direct
                && let Some([p50, p99, p99_9]) = self.added(row)
            {
                let _ = write!(out, " | {p50:>9.0} {p99:>8.0} {p99_9:>8.0}");
            }
            if handshakes {
                let resumed = row.spread(|s| s.resumed).median * 100.0;
                let _ = write!(out, "  {resumed:.0} % resumed");
            }
            let failures: u64 = row.samples.iter().map(|sample| sample.failures).sum();
            if failures > 0 {
                let _ = write!(out, "  {failures} FAILED");
            }
            out.push('\n');
            if row.peer == Peer::Sluice {
                let engine = row.spread(|s| s.engine_cpu_us);
                let _ = writeln!(
                    out,
                    "  {:<13} {:>7.2} ({:.2}-{:.2})",
                    "  engine only", engine.median, engine.min, engine.max
                );
            }
        }
    }

    fn idle_table(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "  {:<13} {:>16} {:<17} {:>11}",
            "", "B per connection", "(min-max)", "connections"
        );
        for row in &self.rows {
            let bytes = row.spread(|s| s.idle_bytes);
            let _ = write!(
                out,
                "  {:<13} {:>16.0} {:<17} {:>11}",
                row.label(&self.scenario),
                bytes.median,
                format!("({:.0}-{:.0})", bytes.min, bytes.max),
                row.samples.first().map_or(0, |sample| sample.connections),
            );
            let failures: u64 = row.samples.iter().map(|sample| sample.failures).sum();
            if failures > 0 {
                let _ = write!(out, "  {failures} FAILED");
            }
            out.push('\n');
        }
    }
}

impl Report {
    pub fn text(&self) -> String {
        let place = &self.place;
        let peers: Vec<String> =
            self.peers.iter().map(|peer| format!("{} {}", peer.name, peer.version)).collect();
        let mut out = format!(
            "{}, Linux {}; proxy on CPU {}, load on CPU {}, origin on CPU {}\n\
             {} interleaved rounds of {} s, median and extremes; CPU is user + system of the \
             whole process tree for one request\n{}\n",
            place.machine,
            place.kernel,
            place.proxy_cpu,
            place.load_cpu,
            place.origin_cpu,
            place.rounds,
            place.seconds,
            peers.join(", ")
        );
        for section in &self.sections {
            out += &section.text();
        }
        let all: Vec<&Verdict> = self.sections.iter().flat_map(|s| &s.verdicts).collect();
        if !all.is_empty() {
            let met = all.iter().filter(|verdict| verdict.pass).count();
            let _ = writeln!(out, "\n{met} of {} targets met", all.len());
        }
        out
    }
}

/// Medians of what a peer adds to the direct way at the rate that was its own share.
fn added_at_own_rate(row: &Row) -> [f64; 3] {
    let added = |value: fn(&Sample) -> f64| row.spread(value).median;
    [
        added(|s| s.p50_us - s.direct_p50_us),
        added(|s| s.p99_us - s.direct_p99_us),
        added(|s| s.p99_9_us - s.direct_p99_9_us),
    ]
}

fn verdicts(scenario: &Scenario, rows: &[Row]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let ours: Vec<&Row> = rows.iter().filter(|row| row.peer == Peer::Sluice).collect();
    let (Some(first), Some(last)) = (ours.first(), ours.last()) else { return verdicts };
    let cpu = |row: &Row| row.spread(|s| s.cpu_us).median;
    for row in rows {
        if let Some(target) = scenario.cpu_target(row.peer) {
            let engine = first.spread(|s| s.engine_cpu_us).median;
            for (part, ours) in [("whole tree", cpu(first)), ("engine only", engine)] {
                let what = format!("CPU per request, {part}, / {}", row.peer);
                verdicts.push(Verdict::at_most(what, ours / cpu(row), target));
            }
        }
    }
    if let Work::Idle { .. } = scenario.work {
        let bytes = first.spread(|s| s.idle_bytes).median;
        let what = "KiB of memory per idle connection".to_owned();
        verdicts.push(Verdict::at_most(what, bytes / 1024.0, scenario.idle_bytes() / 1024.0));
    }
    if scenario.is_share() {
        let [_, p99, _] = added_at_own_rate(first);
        for row in rows.iter().filter(|row| row.peer != Peer::Sluice) {
            let what = format!("us of added p99, less that of {}", row.peer);
            verdicts.push(Verdict::at_most(what, p99 - added_at_own_rate(row)[1], 0.0));
        }
    }
    if scenario.alone && ours.len() > 1 {
        let what = format!("CPU per request, {} / {} routes", last.routes, first.routes);
        verdicts.push(Verdict::at_most(what, cpu(last) / cpu(first), ROUTES_RATIO));
    }
    verdicts
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::compare::scenario::find;

    pub fn row(peer: Peer, routes: usize, cpu_us: &[f64]) -> Row {
        let sample = |&cpu_us: &f64| Sample {
            cpu_us,
            engine_cpu_us: cpu_us * 0.9,
            requests_per_s: 50_000.0,
            p50_us: 100.0 + cpu_us,
            idle_bytes: cpu_us * 1024.0,
            ..Sample::default()
        };
        Row { peer, routes, samples: cpu_us.iter().map(sample).collect() }
    }

    #[test]
    fn spreads() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[test]
    fn targets_are_judged_by_medians() {
        let rows = vec![
            row(Peer::Sluice, 1000, &[24.0, 90.0, 20.0]),
            row(Peer::Nginx, 1000, &[40.0]),
            row(Peer::Haproxy, 1000, &[30.0]),
            row(Peer::Relay, 1000, &[20.0]),
        ];
        let section = Section::new(find("sat64").unwrap(), rows);
        let passes: Vec<(f64, bool)> =
            section.verdicts.iter().map(|v| (v.target, v.pass)).collect();
        assert_eq!(
            passes,
            [(0.6, true), (0.6, true), (0.75, false), (0.75, true), (1.35, true), (1.35, true)]
        );
        let text = section.text();
        assert!(text.contains("MISS  CPU per request, whole tree, / haproxy"), "{text}");
        assert!(text.contains("engine only"), "{text}");
    }

    #[test]
    fn memory_routes_and_added_latency() {
        let idle = Section::new(find("idle10k").unwrap(), vec![row(Peer::Sluice, 1000, &[17.0])]);
        assert!(!idle.verdicts[0].pass);
        let rows = vec![row(Peer::Sluice, 10, &[10.0]), row(Peer::Sluice, 10_000, &[10.9])];
        let routes = Section::new(find("routes10k").unwrap(), rows);
        assert!(routes.verdicts[0].pass && routes.text().contains("10000 routes"));
        let rows = vec![row(Peer::Nginx, 0, &[30.0]), row(Peer::Direct, 0, &[10.0])];
        let rate = Section::new(find("rate5k").unwrap(), rows);
        assert_eq!(rate.added(&rate.rows[0]).unwrap()[0], 20.0);
        assert!(rate.verdicts.is_empty(), "no Sluice, no verdict");
    }

    #[test]
    fn added_latency_at_each_ones_own_rate() {
        let at = |peer, p99_us, direct_p99_us| {
            let sample = Sample { p99_us, direct_p99_us, ..Sample::default() };
            Row { peer, routes: 0, samples: vec![sample] }
        };
        let rows = vec![
            at(Peer::Sluice, 500.0, 300.0),
            at(Peer::Nginx, 350.0, 100.0),
            at(Peer::Haproxy, 290.0, 100.0),
        ];
        let section = Section::new(find("ratetls").unwrap(), rows);
        let found: Vec<_> = section.verdicts.iter().map(|v| (v.value, v.pass)).collect();
        assert_eq!(found, [(-50.0, true), (10.0, false)]);
        assert!(section.text().contains("added p50"), "{}", section.text());
    }

    #[test]
    fn handshakes_and_tls_have_targets_of_their_own() {
        let rows = vec![row(Peer::Sluice, 1000, &[300.0]), row(Peer::Nginx, 0, &[400.0])];
        let section = Section::new(find("hsresumed").unwrap(), rows);
        assert!(section.text().contains("0 % resumed") && section.verdicts.is_empty());
        let idle = Section::new(find("idletls").unwrap(), vec![row(Peer::Sluice, 1000, &[47.0])]);
        assert!(idle.verdicts[0].pass);
        let rows = vec![row(Peer::Sluice, 1000, &[10.0]), row(Peer::Envoy, 0, &[39.0])];
        let passes: Vec<bool> =
            Section::new(find("grpc").unwrap(), rows).verdicts.iter().map(|v| v.pass).collect();
        assert_eq!(passes, [false, true], "whole tree, engine only");
    }

    #[test]
    fn a_row_without_samples_passes_nothing() {
        let rows = vec![row(Peer::Sluice, 0, &[]), row(Peer::Nginx, 0, &[])];
        assert!(Section::new(find("sat64").unwrap(), rows).verdicts.iter().all(|v| !v.pass));
    }
}
