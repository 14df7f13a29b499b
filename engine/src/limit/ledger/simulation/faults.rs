//! Faults, and what must hold in spite of them.

use contract::snapshot::LimitMode;

use super::check::{ideal, worst};
use super::{Demand, Event, Fault, MS, Setting, World};

impl World {
    /// `step`: 0 a second before the fault, 1 when it begins, 2 when it ends, 3 when it is noticed.
    pub(super) fn fail(&mut self, step: u32) {
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        let fault = self.setting.fault;
        match (fault, step) {
            (Fault::Killed { kept: true }, 0) => {
                for host in &mut self.hosts {
                    host.saved = Some(host.server.clone());
                }
            }
            (Fault::Stopped, 1) => {
                all.iter().for_each(|at| self.hosts[*at].stopped_until = self.now + 5_000 * MS);
            }
            (Fault::Slow, 1) => {
                all.iter().for_each(|at| self.hosts[*at].slow_until = self.now + 3_000 * MS);
            }
            (Fault::Flushed, 1) => {
                all.iter().for_each(|at| self.hosts[*at].server.flush());
            }
            (Fault::Killed { .. }, 1) => {
                for server in all {
                    self.hosts[server].alive = false;
                    for node in 0..self.nodes.len() {
                        self.disconnect(node, server);
                    }
                }
                let at = self.now + 700 * MS;
                self.push(at, Event::Fault(2));
            }
            (Fault::Killed { .. }, 2) => {
                for server in all {
                    let host = &mut self.hosts[server];
                    let kept = host.saved.take();
                    let was_kept = kept.is_some();
                    host.server = kept.unwrap_or_else(|| host.server.clone());
                    host.runs += 1;
                    host.server.restart(&format!("server{server}.{}", host.runs), was_kept);
                    host.alive = true;
                    for node in 0..self.nodes.len() {
                        let at = self.now + self.random.below(300) * MS;
                        self.connect(node, server, at);
                    }
                }
            }
            (Fault::CutOff { breaks }, 1) => {
                self.nodes[0].cut_until = self.now + 4_000 * MS;
                if breaks {
                    let at = self.now + 500 * MS;
                    self.push(at, Event::Fault(3));
                }
            }
            (Fault::CutOff { .. }, 3) => {
                for server in all {
                    self.disconnect(0, server);
                    let at = self.nodes[0].cut_until + self.random.below(300) * MS;
                    self.connect(0, server, at);
                }
            }
            (Fault::NodeKilled, 1) => {
                self.nodes[0].alive = false;
                let at = self.now + 300 * MS;
                self.push(at, Event::Fault(2));
            }
            (Fault::NodeKilled, 2) => {
                let run = self.nodes[0].run + 1;
                let mut node = self.node(0, run);
                for (new, old) in node.lines.iter_mut().zip(&self.nodes[0].lines) {
                    new.epoch = old.epoch + 1;
                }
                self.nodes[0] = node;
                self.begin(0);
            }
            _ => {}
        }
    }
}

fn setting(seed: u64) -> Setting {
    Setting {
        seed,
        nodes: 2,
        shards: 2,
        servers: 1,
        limit: 100,
        window_ms: 1_000,
        load: 2.0,
        demand: Demand::Poisson,
        fault: Fault::None,
        fault_at_ms: 6_000,
        length_ms: 10_000,
        mode: LimitMode::Leased,
        busy: 2,
    }
}

/// How many of what an exact limiter admits were admitted between two times after the start, and that.
/// Bursts that return after exactly a window meet those that are only just about to leave it: there it
/// is one that keeps each for as long as the slots and the way to the upstream make it.
fn yields(world: &World, from_ms: u64, to_ms: u64) -> (usize, usize) {
    let begin = 100_000 * MS;
    let (from, to) = (begin + from_ms * MS, begin + to_ms * MS);
    let span = world.rule.span;
    let longer_ms = match world.setting.demand {
        // And a question with its answer.
        Demand::Bursts => span.slot_ms() + span.reach_ms() + 2,
        Demand::Uniform | Demand::Poisson => 0,
    };
    let window = (world.setting.window_ms + longer_ms) * MS;
    let best = ideal(&world.came, world.setting.limit as usize, window, from, to);
    let within = world.admitted.iter().filter(|at| (from..to).contains(at)).count();
    (within, best)
}

/// Runs it; never over.
fn run(setting: &Setting) -> World {
    let mut world = World::new(setting.clone());
    world.came.sort_unstable();
    world.run();
    let window = setting.window_ms * MS;
    for (what, times) in [("admitted", &world.admitted), ("reached", &world.reached)] {
        let worst = worst(times, window);
        assert!(worst <= setting.limit as usize, "{what}: {worst} in a window; {setting:?}");
    }
    world
}

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    // One seed again: SIMULATION_SEED=123.
    let only = std::env::var("SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok());
    let (from, to) = only.map_or((1, count), |seed: u64| (seed, seed));
    from..=to
}

#[test]
fn without_faults_what_is_left_is_admitted() {
    let mut bad: Vec<String> = Vec::new();
    let demands = [Demand::Uniform, Demand::Poisson, Demand::Bursts];
    for demand in demands {
        for (nodes, busy) in [(1, 1), (2, 2), (4, 4), (2, 1)] {
            for (limit, load) in [(1, 5.0), (10, 1.5), (100, 0.9), (100, 2.0), (1_000, 10.0)] {
                let (mut got, mut best, mut windows) = (0, 0, 0);
                for seed in seeds(3) {
                    let setting = Setting {
                        nodes,
                        busy,
                        limit,
                        load,
                        demand,
                        length_ms: 8_000,
                        ..setting(seed)
                    };
                    let world = run(&setting);
                    let (within, ideal) = yields(&world, 3_000, 8_000);
                    (got, best, windows) = (got + within, best + ideal, windows + 5);
                }
                // A hundredth, or of small limits one for each window.
                let allowed = if limit < 100 { windows } else { best / 100 };
                if best.saturating_sub(got) > allowed {
                    bad.push(format!("{got} of {best}: {nodes} {limit} {load} {demand:?}"));
                }
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn with_faults_never_over_and_soon_well_again() {
    let mut bad: Vec<String> = Vec::new();
    let faults = [
        (Fault::Stopped, 5_000),
        (Fault::Killed { kept: false }, 1_000),
        (Fault::Killed { kept: true }, 1_000),
        (Fault::Slow, 3_000),
        (Fault::Flushed, 0),
        (Fault::CutOff { breaks: false }, 4_000),
        (Fault::CutOff { breaks: true }, 4_300),
        (Fault::NodeKilled, 300),
    ];
    for seed in seeds(4) {
        for (fault, length_ms) in faults {
            for nodes in [1, 2, 4] {
                for (limit, load) in [(3, 3.0), (100, 2.0)] {
                    let again_ms = 6_000 + length_ms + 2_000;
                    let setting = Setting {
                        nodes,
                        busy: nodes,
                        limit,
                        load,
                        fault,
                        length_ms: again_ms + 20_000,
                        ..setting(seed)
                    };
                    let world = run(&setting);
                    let (got, best) = yields(&world, again_ms, again_ms + 20_000);
                    let (during, ideal) = yields(&world, 6_000, again_ms);
                    println!("{got} of {best}, meanwhile {during} of {ideal}: {setting:?}");
                    // Its windows begin at other times than those of the ideal: half of one is nothing.
                    if best.saturating_sub(got) > best / 100 + limit.div_ceil(2) as usize + 8 {
                        bad.push(format!("{got} of {best}: {setting:?}"));
                    }
                }
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}
