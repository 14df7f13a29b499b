//! A case: a limit, what is asked of it, and how it stood the test.

use std::fmt::Write as _;

use tests::limits::{Answered, Arrival, Clock, Dice, MS, Offer, Pattern, judge, offer};

use crate::world::View;

/// A policy that the worlds have; their routes are called after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub limit: usize,
    pub window_ms: u64,
    pub mode: &'static str,
}

impl Policy {
    pub const fn leased(limit: usize, window_ms: u64) -> Policy {
        Policy { limit, window_ms, mode: "leased" }
    }

    pub fn name(self) -> String {
        format!("{}-{}-{}", self.mode, self.limit, self.window_ms)
    }

    pub fn window(self) -> u64 {
        self.window_ms * MS
    }
}

/// One key of a policy, and the demand for it. Times in nanoseconds of the test's clock.
#[derive(Debug, Clone)]
pub struct Case {
    pub policy: Policy,
    /// The first so many nodes get the requests.
    pub nodes: usize,
    /// In limits.
    pub demand: f64,
    pub pattern: Pattern,
    pub from: u64,
    pub to: u64,
}

/// Most requests a second of one case: what is beyond this is no demand but a queue.
pub const MOST_PER_S: f64 = 12_000.0;

impl Case {
    pub fn per_s(&self) -> f64 {
        let per_s = self.demand * self.policy.limit as f64 * 1e3 / self.policy.window_ms as f64;
        per_s.min(MOST_PER_S)
    }

    fn offers(&self, case: usize, clock: Clock, dice: &mut Dice) -> Vec<Offer> {
        let per_window = self.per_s() * self.policy.window_ms as f64 / 1e3;
        let span = (self.from, self.to);
        let times = self.pattern.times(clock, span, per_window, self.policy.window(), dice);
        let pick = |(n, at): (usize, u64)| {
            let node = match self.pattern {
                Pattern::Uniform => n % self.nodes,
                _ => (dice.roll() % self.nodes as u64) as usize,
            };
            Offer { at, node, case }
        };
        times.into_iter().enumerate().map(pick).collect()
    }
}

/// What a run has written down.
#[derive(Debug)]
pub struct Log {
    pub offers: Vec<Offer>,
    pub answered: Vec<Answered>,
    /// By case, in order.
    pub sent: Vec<Vec<u64>>,
    pub arrivals: Vec<Vec<u64>>,
}

/// Offers all cases at once, to their end.
pub fn run(view: &View, cases: &[Case], seed: u64) -> Log {
    let mut dice = Dice::new(seed);
    let mut offers: Vec<Offer> = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        offers.extend(case.offers(n, view.clock, &mut dice));
    }
    offers.sort_by_key(|offer| offer.at);
    let (run, first) = (view.run, view.origin.taken().len());
    let target = |case: usize| format!("/{}/{run}-{case}", cases[case].policy.name());
    let answered = offer(view.clock, &view.addresses, &offers, &target);
    // What was answered late, or not at all, may still be on its way.
    std::thread::sleep(std::time::Duration::from_millis(100));
    let taken = view.origin.taken();
    Log::new(cases.len(), offers, answered, &taken[first..])
}

impl Log {
    fn new(cases: usize, offers: Vec<Offer>, answered: Vec<Answered>, taken: &[Arrival]) -> Log {
        let (mut sent, mut arrivals) = (vec![Vec::new(); cases], vec![Vec::new(); cases]);
        for (offer, answered) in offers.iter().zip(&answered) {
            sent[offer.case].push(answered.sent);
        }
        for arrival in taken {
            arrivals[offers[arrival.number as usize].case].push(arrival.at);
        }
        sent.iter_mut().for_each(|times| times.sort_unstable());
        Log { offers, answered, sent, arrivals }
    }

    /// Answers that are neither a yes nor a no, with when they were sent and to which node.
    pub fn failures(&self, case: usize) -> impl Iterator<Item = (&Offer, &Answered)> {
        let all = self.offers.iter().zip(&self.answered);
        let failed = |answered: &Answered| !matches!(answered.status, Ok(200 | 429));
        all.filter(move |(offer, answered)| offer.case == case && failed(answered))
    }

    /// How long requests that were let in took, in µs: the median and p99.
    fn latency_us(&self, case: usize) -> (u64, u64) {
        let all = self.offers.iter().zip(&self.answered);
        let of_case =
            all.filter(|(offer, answered)| offer.case == case && answered.status == Ok(200));
        parts(of_case.map(|(_, answered)| (answered.done - answered.sent) / 1_000).collect())
    }

    /// How long requests took that were sent in `from..to`, whatever the answer, in µs: p50 and p99.
    pub fn meanwhile_us(&self, (from, to): (u64, u64)) -> (u64, u64) {
        let sent = |answered: &&Answered| (from..to).contains(&answered.sent);
        let took = |answered: &Answered| (answered.done - answered.sent) / 1_000;
        parts(self.answered.iter().filter(sent).map(took).collect())
    }

    /// Where the limit was exceeded, and how: for whoever looks for the reason.
    fn excess(&self, case: usize, policy: Policy) -> Option<String> {
        let arrivals = &self.arrivals[case];
        let (most, at) = judge::worst_window(arrivals, policy.window());
        if most <= policy.limit {
            return None;
        }
        let of_case =
            self.offers.iter().zip(&self.answered).filter(|(offer, _)| offer.case == case);
        let inside = of_case.filter(|(_, answered)| {
            answered.done >= at
                && answered.sent < at + policy.window()
                && answered.status == Ok(200)
        });
        let slowest = inside.map(|(_, answered)| answered.done - answered.sent).max().unwrap_or(0);
        Some(format!(
            "{most} instead of {} within {} ms from {:.1} ms on; its slowest answer took {:.1} ms",
            policy.limit,
            policy.window_ms,
            at as f64 / 1e6,
            slowest as f64 / 1e6
        ))
    }
}

/// The median and p99.
fn parts(mut took: Vec<u64>) -> (u64, u64) {
    took.sort_unstable();
    let at = |part: f64| took.get((took.len() as f64 * part) as usize).copied().unwrap_or(0);
    (at(0.5), at(0.99))
}

/// A table of what came of the cases, and what must not have.
#[derive(Debug, Default)]
pub struct Verdict {
    pub table: String,
    pub wrong: Vec<String>,
}

impl Verdict {
    /// Judges the whole time of each case.
    pub fn healthy(cases: &[Case], log: &Log) -> Verdict {
        let mut verdict = Verdict::default();
        verdict.head();
        for (n, case) in cases.iter().enumerate() {
            // The first requests of a key learn of it.
            let used = verdict.row(case, n, log, (case.from, case.to + 1_000 * MS));
            if used.wasted(case.policy.limit) > 0 {
                verdict.wrong.push(format!("{case:?}: too much left unused: {used:?}"));
            }
            if let Some((_, answered)) = log.failures(n).next() {
                let count = log.failures(n).count();
                verdict.wrong.push(format!("{case:?}: {count} failed, the first: {answered:?}"));
            }
        }
        verdict
    }

    pub fn head(&mut self) {
        let _ = writeln!(
            self.table,
            "{:<22}{:>6}{:>8} {:<8}{:>8}{:>9}{:>6}{:>9}{:>7}{:>9}{:>9}",
            "policy",
            "nodes",
            "demand",
            "pattern",
            "offered",
            "admitted",
            "over",
            "ideal",
            "under%",
            "p50 us",
            "p99 us"
        );
    }

    /// Judges `from..to` for what is unused, and the whole log for what was exceeded.
    pub fn row(&mut self, case: &Case, n: usize, log: &Log, (from, to): (u64, u64)) -> judge::Use {
        let Policy { limit, .. } = case.policy;
        let window = case.policy.window();
        let (sent, arrivals) = (&log.sent[n], &log.arrivals[n]);
        let over = judge::over(arrivals, limit, window);
        let used = judge::used(sent, arrivals, limit, window, from, to);
        let (p50, p99) = log.latency_us(n);
        let _ = writeln!(
            self.table,
            "{:<22}{:>6}{:>8} {:<8}{:>8}{:>9}{:>6}{:>9}{:>7.2}{:>9}{:>9}",
            case.policy.name(),
            case.nodes,
            case.demand,
            case.pattern.name(),
            sent.len(),
            used.admitted,
            over,
            used.ideal,
            used.under_percent(),
            p50,
            p99
        );
        if let Some(how) = log.excess(n, case.policy) {
            self.wrong.push(format!("{case:?}: exceeded: {how}"));
        }
        used
    }

    /// Fails the test if anything is wrong; with all there is to know.
    #[track_caller]
    pub fn assert(&self, seed: u64) {
        assert!(
            self.wrong.is_empty(),
            "seed {seed}\n{}\n{} wrong:\n{}",
            self.table,
            self.wrong.len(),
            self.wrong.join("\n")
        );
        println!("seed {seed}\n{}", self.table);
    }
}
