//! Everything with everything; takes an hour and the whole machine. `./tests/run limits-matrix`, or one
//! part of it: `./tests/run limits-matrix seconds`. SLUICE_LIMITS_NODES=2, SLUICE_LIMITS_SEEDS=11 and
//! SLUICE_LIMITS_LIMITS=1,100 (lists with commas) narrow it down. Prints a table; best with a release build (SLUICE_BIN).

use tests::limits::{MS, Pattern};

use crate::case::{Case, MOST_PER_S, Policy, Verdict, run};
use crate::faults::{Fault, POLICIES, demands, endure, judge};
use crate::world::World;

const NODES: [u64; 3] = [1, 2, 4];
const LIMITS: [u64; 4] = [1, 10, 100, 10_000];
const DEMANDS: [f64; 6] = [0.9, 1.0, 2.0, 5.0, 20.0, 50.0];
const SEEDS: [u64; 2] = [11, 12];
/// Of all cases that are under way together, per second.
const TOGETHER_PER_S: f64 = MOST_PER_S;

/// The numbers that the environment has under `name`, or all.
fn chosen(name: &str, all: &[u64]) -> Vec<u64> {
    let Ok(text) = std::env::var(name) else { return all.to_vec() };
    let number = |text: &str| text.trim().parse();
    text.split(',').map(number).collect::<Result<_, _>>().unwrap_or_else(|_| {
        panic!("{name} must be numbers with commas between, such as 1,2; it is {text:?}")
    })
}

fn nodes() -> impl Iterator<Item = usize> {
    chosen("SLUICE_LIMITS_NODES", &NODES).into_iter().map(|nodes| nodes as usize)
}

fn seeds() -> Vec<u64> {
    chosen("SLUICE_LIMITS_SEEDS", &SEEDS)
}

/// All limits, demands and patterns in windows of `window_ms`, each for so many windows.
fn matrix(window_ms: u64, windows: u64) {
    let limits = chosen("SLUICE_LIMITS_LIMITS", &LIMITS);
    let policies: Vec<Policy> =
        limits.into_iter().map(|limit| Policy::leased(limit as usize, window_ms)).collect();
    let mut all = Verdict::default();
    for nodes in nodes() {
        let world = World::start(nodes, 2, false, &policies);
        for seed in seeds() {
            let mut cases: Vec<Case> = Vec::new();
            for &policy in &policies {
                for demand in DEMANDS {
                    for pattern in Pattern::ALL {
                        cases.push(Case { policy, nodes, demand, pattern, from: 0, to: 0 });
                    }
                }
            }
            for wave in waves(cases) {
                let from = world.clock.now() + 300 * MS;
                let to = from + windows * window_ms * MS;
                let wave: Vec<Case> =
                    wave.into_iter().map(|case| Case { from, to, ..case }).collect();
                let log = run(&world.view(), &wave, seed);
                let verdict = Verdict::healthy(&wave, &log);
                println!("{nodes} nodes, seed {seed}\n{}", verdict.table);
                verdict.wrong.iter().for_each(|wrong| println!("WRONG: {wrong}"));
                all.wrong.extend(verdict.wrong);
            }
        }
    }
    all.assert(SEEDS[0]);
}

/// Cases that run together: as many as the machine bears.
fn waves(mut cases: Vec<Case>) -> Vec<Vec<Case>> {
    cases.sort_by(|a, b| b.per_s().total_cmp(&a.per_s()));
    let mut waves: Vec<(f64, Vec<Case>)> = Vec::new();
    for case in cases {
        let per_s = case.per_s();
        match waves.iter_mut().find(|(sum, _)| sum + per_s <= TOGETHER_PER_S) {
            Some((sum, wave)) => {
                *sum += per_s;
                wave.push(case);
            }
            None => waves.push((per_s, vec![case])),
        }
    }
    waves.into_iter().map(|(_, wave)| wave).collect()
}

#[test]
#[ignore = "started by ./tests/run limits-matrix"]
fn seconds() {
    matrix(1_000, 10);
}

#[test]
#[ignore = "started by ./tests/run limits-matrix"]
fn minutes() {
    matrix(60_000, 3);
}

#[test]
#[ignore = "started by ./tests/run limits-matrix"]
fn faults() {
    let mut all = Verdict::default();
    for nodes in nodes() {
        for seed in seeds() {
            let mut world = World::start(nodes, 2, true, &POLICIES);
            world.stand_by();
            // The last one: whoever is killed after it has no replica any more.
            let faults: Vec<Fault> = Fault::ALL.into_iter().chain([Fault::FailedOver]).collect();
            let (log, happened, cases) =
                endure(&mut world, &faults, &demands(nodes), (2, 4_000), seed);
            let verdict = judge(&log, &happened, &cases);
            println!("{nodes} nodes, seed {seed}\n{}", verdict.table);
            verdict.wrong.iter().for_each(|wrong| println!("WRONG: {wrong}"));
            all.wrong.extend(verdict.wrong);
        }
    }
    all.assert(SEEDS[0]);
}

#[test]
#[ignore = "started by ./tests/run limits-matrix"]
fn parted() {
    let Some(mut world) = World::with_one_apart(3, 2, &POLICIES) else {
        println!("left out: network namespaces take root and ip (iproute2)");
        return;
    };
    let faults = [Fault::Parted, Fault::Stopped, Fault::Parted];
    let (log, happened, cases) = endure(&mut world, &faults, &demands(4), (4, 4_000), SEEDS[0]);
    judge(&log, &happened, &cases).assert(SEEDS[0]);
}
