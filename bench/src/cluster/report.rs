//! What was found, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::changes::quantile;
use crate::compare::report::Place;

/// A time in which the database was down.
#[derive(Debug, Serialize)]
pub struct Outage {
    pub down_ms: u64,
    /// Status that an apply was answered meanwhile.
    pub answered: u16,
    /// How often a node could not be asked how it stands.
    pub not_ready: u64,
    /// From the database's return until a change was stored, and until all nodes served it.
    pub stored_ms: f64,
    pub all_ms: f64,
}

/// Times in ms. From the request: `stored_ms` until its answer, `seen_ms` until each node was seen to
/// serve it, `last_ms` until the last one was. `lag_ms` from the storing until each node served it, by
/// the database's clock.
#[derive(Debug, Serialize)]
pub struct Report {
    pub place: Place,
    pub nodes: usize,
    pub routes: usize,
    pub consumers: usize,
    pub changes: u64,
    pub look_ms: u64,
    pub stored_ms: Vec<f64>,
    pub seen_ms: Vec<f64>,
    pub last_ms: Vec<f64>,
    pub lag_ms: Vec<f64>,
    pub outage: Outage,
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}, Linux {}; {} nodes, {} changes, {} routes, {} consumers; looked at every {} ms\n",
            self.place.machine,
            self.place.kernel,
            self.nodes,
            self.changes,
            self.routes,
            self.consumers,
            self.look_ms
        );
        let head = ["n", "p50", "p90", "p99", "max"];
        let [n, p50, p90, p99, max] = head;
        let _ = writeln!(out, "{:<40}{n:>7}{p50:>9}{p90:>9}{p99:>9}{max:>9}", "ms");
        for (what, values) in [
            ("request to answer of its node", &self.stored_ms),
            ("request to a node, seen from outside", &self.seen_ms),
            ("request to the last node, from outside", &self.last_ms),
            ("storing to a node, by the store's clock", &self.lag_ms),
        ] {
            let at = |share| quantile(values, share);
            let _ = writeln!(
                out,
                "{what:<40}{:>7}{:>9.1}{:>9.1}{:>9.1}{:>9.1}",
                values.len(),
                at(0.5),
                at(0.9),
                at(0.99),
                at(1.0)
            );
        }
        let Outage { down_ms, answered, not_ready, stored_ms, all_ms } = self.outage;
        let _ = writeln!(
            out,
            "\ndatabase down for {down_ms} ms: an apply is answered {answered}; {not_ready} failed \
             looks at nodes\nafter its return: a change is stored in {stored_ms:.0} ms, and served by \
             all in {all_ms:.0} ms"
        );
        out
    }
}
