//! All is well: nothing beyond the limit, and next to nothing unused.

use tests::limits::{MS, Pattern, judge};

use crate::case::{Case, Policy, Verdict, run};
use crate::world::World;

const SEED: u64 = 1;

const ONE: Policy = Policy::leased(1, 1_000);
const TEN: Policy = Policy::leased(10, 1_000);
const HUNDRED: Policy = Policy::leased(100, 1_000);
/// For 10,000 a minute.
const WIDE: Policy = Policy::leased(1_000, 5_000);
const STRICT: Policy = Policy { limit: 100, window_ms: 1_000, mode: "strict" };
const LOCAL: Policy = Policy { limit: 100, window_ms: 1_000, mode: "local" };

const NODES: [usize; 3] = [1, 2, 4];

/// Each policy of `policies` with each of `demands`, numbers of nodes and patterns.
fn each(policies: &[Policy], demands: &[f64], (from, to): (u64, u64)) -> Vec<Case> {
    let mut cases = Vec::new();
    for &policy in policies {
        for &demand in demands {
            for nodes in NODES {
                for pattern in Pattern::ALL {
                    cases.push(Case { policy, nodes, demand, pattern, from, to });
                }
            }
        }
    }
    cases
}

/// Each number of nodes with another pattern.
fn some(policy: Policy, demand: f64, (from, to): (u64, u64)) -> Vec<Case> {
    let paired = NODES.into_iter().zip(Pattern::ALL.into_iter().cycle().skip(demand as usize));
    paired.map(|(nodes, pattern)| Case { policy, nodes, demand, pattern, from, to }).collect()
}

#[test]
fn nothing_is_over_and_next_to_nothing_is_unused() {
    let world = World::start(4, 1, false, &[ONE, TEN, HUNDRED, WIDE, STRICT, LOCAL]);
    let begin = world.clock.now() + 200 * MS;
    let at = |from_s: u64, to_s: u64| (begin + from_s * 1_000 * MS, begin + to_s * 1_000 * MS);
    let mut cases = Vec::new();
    cases.extend(each(&[ONE, TEN], &[0.9, 2.0, 20.0], at(0, 5)));
    cases.extend(some(STRICT, 2.0, at(0, 5)));
    cases.extend(each(&[HUNDRED], &[0.9, 2.0], at(5, 9)));
    cases.extend(some(HUNDRED, 20.0, at(9, 13)));
    let local = some(LOCAL, 20.0, at(9, 13)).into_iter().map(|case| Case { nodes: 1, ..case });
    cases.extend(local.take(1));
    cases.extend(some(WIDE, 0.9, at(0, 11)));
    cases.extend(some(WIDE, 2.0, at(0, 11)));
    cases.extend(some(WIDE, 20.0, at(13, 21)).into_iter().take(1));
    let log = run(&world.view(), &cases, SEED);
    Verdict::healthy(&cases, &log).assert(SEED);
}

#[test]
fn what_counts_each_node_alone_is_found_out() {
    let world = World::start(2, 1, false, &[LOCAL]);
    let from = world.clock.now() + 200 * MS;
    let (policy, to) = (LOCAL, from + 1_500 * MS);
    let cases = [Case { policy, nodes: 2, demand: 5.0, pattern: Pattern::Uniform, from, to }];
    let log = run(&world.view(), &cases, SEED);
    let verdict = Verdict::healthy(&cases, &log);
    assert!(verdict.wrong.len() == 1 && verdict.wrong[0].contains("exceeded: 200 instead of 100"));
    assert_eq!(judge::over(&log.arrivals[0], LOCAL.limit, LOCAL.window()), 100);
}
