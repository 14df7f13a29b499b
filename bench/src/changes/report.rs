//! What was found, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::admin::Made;
use crate::compare::report::Place;

/// What is promised: a whole spec, one route, the p99 against that without changes, and how far
/// memory may grow over the second half of the changes.
const WHOLE_MS: f64 = 1_000.0;
const PATCH_MS: f64 = 100.0;
const P99_TIMES: f64 = 1.1;
const GROWTH_PERCENT: f64 = 5.0;

/// How long changes took, in ms: from the request to the answer, and from the publish to the last
/// shard's adoption.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Times {
    pub whole_ms: Vec<f64>,
    pub adoption_ms: Vec<f64>,
}

impl Times {
    pub fn of(made: &[Made]) -> Self {
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        Self {
            whole_ms: made.iter().map(|one| ms(one.whole)).collect(),
            adoption_ms: made.iter().map(|one| ms(one.adoption)).collect(),
        }
    }

    fn line(&self, what: &str) -> String {
        let (whole, adoption) = (&self.whole_ms, &self.adoption_ms);
        format!(
            "{what:<34}{:>6}{:>10.1}{:>10.1}{:>10.1}{:>10.1}   {:>9.1}{:>9.1}\n",
            whole.len(),
            quantile(whole, 0.0),
            quantile(whole, 0.5),
            quantile(whole, 0.99),
            quantile(whole, 1.0),
            quantile(adoption, 0.5),
            quantile(adoption, 1.0),
        )
    }
}

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Resident {
    pub engine: u64,
    pub control: u64,
    pub supervisor: u64,
}

/// A run of traffic.
#[derive(Clone, Debug, Serialize)]
pub struct Traffic {
    pub asked_per_s: u32,
    pub changes_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub max_us: f64,
    pub made: Times,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub place: Place,
    pub shards: usize,
    pub routes: usize,
    pub upstreams: usize,
    pub consumers: usize,
    pub traffic_consumers: usize,
    /// A whole spec after a small one; the same with another route; a route by itself.
    pub whole: Times,
    pub again: Times,
    pub patch: Times,
    /// With all of it.
    pub large: Resident,
    pub rate: u64,
    pub changes: u32,
    pub traffic: Vec<Traffic>,
    /// After so many changes.
    pub memory: Vec<(u64, Resident)>,
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}, Linux {}; {} shards; {} routes, {} upstreams, {} consumers\n",
            self.place.machine,
            self.place.kernel,
            self.shards,
            self.routes,
            self.upstreams,
            self.consumers
        );
        let _ = writeln!(
            out,
            "{:<34}{:>6}{:>10}{:>10}{:>10}{:>10}   {:>9}{:>9}",
            "ms, request to answer", "n", "least", "median", "p99", "most", "adoption", "most"
        );
        out.push_str(&self.whole.line("whole spec"));
        out.push_str(&self.again.line("whole spec, one route different"));
        out.push_str(&self.patch.line("one route"));
        let idle = self.runs(|run| run.asked_per_s == 0);
        let busy = self.runs(|run| run.asked_per_s > 0);
        let _ = writeln!(
            out,
            "\n{:<34}{:>6}{:>10}{:>10}{:>10}{:>10}{:>14}",
            format!("us, {} requests/s", self.rate),
            "",
            "p50",
            "p99",
            "p99.9",
            "max",
            "changes/s"
        );
        for run in &self.traffic {
            let what = match run.asked_per_s {
                0 => "no changes".to_owned(),
                n => format!("{n} changes/s, {} consumers", self.traffic_consumers),
            };
            let _ = writeln!(
                out,
                "{what:<40}{:>10.0}{:>10.0}{:>10.0}{:>10.0}{:>14.1}",
                run.p50_us, run.p99_us, run.p99_9_us, run.max_us, run.changes_per_s
            );
        }
        if !self.memory.is_empty() {
            let _ = writeln!(
                out,
                "\n{:<34}{:>16}{:>10}{:>12}",
                "MiB resident, after changes", "engine", "control", "supervisor"
            );
            for (turn, resident) in &self.memory {
                let _ = writeln!(out, "{turn:<34}{}", line(*resident));
            }
        }
        let _ = writeln!(out, "{:<34}{}\n", "with the whole spec", line(self.large));
        let mut verdict = |what: &str, found: f64, most: f64| {
            let word = if found <= most { "met " } else { "MISS" };
            let _ = writeln!(out, "{word}  {what}: {found:.2}, at most {most}");
        };
        verdict("whole spec, ms", quantile(&self.whole.whole_ms, 0.5), WHOLE_MS);
        verdict("one route, ms (p99)", quantile(&self.patch.whole_ms, 0.99), PATCH_MS);
        let times = quantile(&busy, 0.5) / quantile(&idle, 0.5).max(1.0);
        verdict("p99 with changes, times that without", times, P99_TIMES);
        if self.memory.len() > 2 {
            verdict("growth over the second half, %", self.growth(), GROWTH_PERCENT);
        }
        out
    }

    fn runs(&self, wanted: impl Fn(&Traffic) -> bool) -> Vec<f64> {
        self.traffic.iter().filter(|run| wanted(run)).map(|run| run.p99_us).collect()
    }

    /// How much more there is at the end than halfway, in percent of all.
    fn growth(&self) -> f64 {
        let all = |(_, one): &(u64, Resident)| (one.engine + one.control + one.supervisor) as f64;
        let half = self.memory.get(self.memory.len() / 2).map_or(1.0, all);
        let end = self.memory.last().map_or(1.0, all);
        100.0 * (end - half) / half.max(1.0)
    }
}

fn line(resident: Resident) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let Resident { engine, control, supervisor } = resident;
    format!("{:>16.1}{:>10.1}{:>12.1}", mib(engine), mib(control), mib(supervisor))
}

/// The value that this share of `values` does not exceed; 0 of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let found = [0.0, 0.5, 0.99, 1.0].map(|share| quantile(&values, share));
        assert_eq!(found, [1.0, 50.0, 99.0, 100.0]);
        assert_eq!((quantile(&[], 0.5), quantile(&[7.0], 0.99)), (0.0, 7.0));
    }
}
