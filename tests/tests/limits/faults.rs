//! Redis is killed, stopped, emptied, slow; a node is cut off or killed: nothing beyond the limit, no
//! request fails, and all is well again two seconds after.

use std::fmt::Write as _;
use std::thread;

use rustix::process::Signal;
use tests::limits::relay::Way;
use tests::limits::{MS, Pattern};
use tests::{Client, PATIENCE, eventually, get, process};

use crate::case::{Case, Log, Policy, Verdict, run};
use crate::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// FLUSHALL.
    Emptied,
    /// Killed, and started again, empty.
    Killed,
    /// SIGSTOP.
    Stopped,
    /// Answers come 200 ms late.
    Slow,
    /// Node 0 has no connection to Redis, and gets none.
    CutOff,
    /// What node 0 and Redis say to each other comes when it is over.
    Silent,
    /// `kill -9` of node 0's engine, which its supervisor starts again.
    NodeKilled,
    /// Redis is gone, and a replica is asked instead.
    FailedOver,
    /// The network of the node apart has no way to Redis.
    Parted,
}

impl Fault {
    /// Those that need nothing besides.
    pub const ALL: [Fault; 7] = [
        Fault::Emptied,
        Fault::Killed,
        Fault::Stopped,
        Fault::Slow,
        Fault::CutOff,
        Fault::Silent,
        Fault::NodeKilled,
    ];

    fn begin(self, world: &mut World) {
        match self {
            Fault::Emptied => drop(world.redis.command(&["FLUSHALL"])),
            Fault::Killed => world.redis.kill(),
            Fault::Stopped => world.redis.freeze(true),
            Fault::Slow => world.set_ways(Way::Late(std::time::Duration::from_millis(200))),
            Fault::CutOff => world.relays[0].set(Way::Cut),
            Fault::Silent => world.relays[0].set(Way::Silent),
            Fault::NodeKilled => process::signal(world.nodes[0].pid_of("engine"), Signal::KILL),
            Fault::FailedOver => world.fail_over(),
            Fault::Parted => world.apart.as_ref().expect("a node apart").part(true),
        }
    }

    fn end(self, world: &mut World) {
        match self {
            Fault::Emptied | Fault::FailedOver => {}
            Fault::Parted => world.apart.as_ref().expect("a node apart").part(false),
            Fault::Killed => world.redis.restart(),
            Fault::Stopped => world.redis.freeze(false),
            Fault::Slow => world.set_ways(Way::Pass),
            Fault::CutOff | Fault::Silent => world.relays[0].set(Way::Pass),
            Fault::NodeKilled => {
                let address = world.nodes[0].address();
                let back = || {
                    let answer = Client::try_connect(address)
                        .ok()
                        .and_then(|mut client| client.send(get("/")).response().ok());
                    answer.is_some_and(|answer| answer.status == 200)
                };
                assert!(eventually(PATIENCE, back), "the killed engine does not come back");
            }
        }
    }

    /// In milliseconds.
    fn lasts_ms(self) -> u64 {
        match self {
            Fault::Emptied | Fault::FailedOver => 0,
            Fault::Stopped | Fault::Slow => 2_000,
            _ => 1_500,
        }
    }
}

/// A fault, as it was.
#[derive(Debug, Clone, Copy)]
pub struct Happened {
    fault: Fault,
    began: u64,
    ended: u64,
    /// When the next one begins.
    until: u64,
}

/// All must be well again so long after a fault.
const RECOVERY_MS: u64 = 2_000;

/// Runs `cases` (their times are set here) while one fault after the other happens, `longer` times as
/// long as usual, and judges `judged_ms` of each recovery.
pub fn endure(
    world: &mut World,
    faults: &[Fault],
    cases: &[Case],
    (longer, judged_ms): (u64, u64),
    seed: u64,
) -> (Log, Vec<Happened>, Vec<Case>) {
    let begin = world.clock.now() + 200 * MS;
    let mut at = begin + 2_000 * MS;
    let mut due = Vec::new();
    for &fault in faults {
        let ends = at + longer * fault.lasts_ms() * MS;
        // Starting again takes a moment.
        let until = ends + (300 + RECOVERY_MS + judged_ms) * MS;
        due.push(Happened { fault, began: at, ended: ends, until });
        at = until;
    }
    let cases: Vec<Case> =
        cases.iter().map(|case| Case { from: begin, to: at, ..case.clone() }).collect();
    let clock = world.clock;
    // The run looks at what does not change: addresses and the origin's log.
    let view = world.view();
    let log = thread::scope(|scope| {
        let running = scope.spawn(|| run(&view, &cases, seed));
        for happened in &mut due {
            clock.sleep_until(happened.began);
            happened.began = clock.now();
            happened.fault.begin(world);
            clock.sleep_until(happened.ended);
            happened.fault.end(world);
            happened.ended = clock.now();
        }
        running.join().expect("the run")
    });
    (log, due, cases)
}

/// When to begin to judge: not in the midst of a burst, of which a limit admits the first ones.
fn whole(case: &Case, sent: &[u64], from: u64) -> u64 {
    let gap = case.policy.window() / 4;
    let next = sent.partition_point(|&at| at < from);
    let begins = |at: &usize| sent[*at] - sent[at.saturating_sub(1)] > gap;
    match case.pattern {
        Pattern::Edge => (next..sent.len()).find(begins).map_or(u64::MAX, |at| sent[at]),
        Pattern::Uniform | Pattern::Poisson => from,
    }
}

/// Judges a run with faults.
pub fn judge(log: &Log, happened: &[Happened], cases: &[Case]) -> Verdict {
    let mut verdict = Verdict::default();
    let last = happened.last().map_or(0, |last| last.until);
    for one in happened {
        let (from, to) = (one.ended + RECOVERY_MS * MS, one.until);
        let lasted = (one.ended - one.began) as f64 / 1e9;
        let _ = writeln!(verdict.table, "\n{:?}, {lasted:.1} s; judged after", one.fault);
        verdict.head();
        for (n, case) in cases.iter().enumerate() {
            let from = whole(case, &log.sent[n], from);
            let used = verdict.row(case, n, log, (from, to));
            if used.wasted(case.policy.limit) > 0 {
                let fault = one.fault;
                verdict.wrong.push(format!("{case:?}: not well after {fault:?}: {used:?}"));
            }
        }
        let first = cases.iter().map(|case| case.from).min().unwrap_or(0);
        let (healthy, meanwhile) = (
            log.meanwhile_us((first + 1_000 * MS, happened[0].began)),
            log.meanwhile_us((one.began, one.ended.max(one.began + 1_000 * MS))),
        );
        let _ = writeln!(
            verdict.table,
            "meanwhile; p50 and p99 of all answers {} and {} us (before the first fault {} and {})",
            meanwhile.0, meanwhile.1, healthy.0, healthy.1
        );
        for (n, case) in cases.iter().enumerate() {
            verdict.row(case, n, log, (one.began, from));
        }
    }
    // Each row has judged the whole log.
    verdict.wrong.sort();
    verdict.wrong.dedup();
    for (n, case) in cases.iter().enumerate() {
        let killed = |node: usize, from: u64, to: u64| {
            node == 0
                && happened.iter().any(|one| {
                    one.fault == Fault::NodeKilled && to >= one.began && from <= one.ended
                })
        };
        let failed: Vec<String> = log
            .failures(n)
            .filter(|(offer, answered)| !killed(offer.node, answered.sent, answered.done))
            .map(|(offer, answered)| {
                let at = happened.iter().rev().find(|one| one.began <= answered.sent);
                let since = at.map(|one| (one.fault, (answered.sent - one.began) / MS));
                format!("node {}, {since:?} ms: {:?}", offer.node, answered.status)
            })
            .collect();
        if let Some(first) = failed.first() {
            let count = failed.len();
            verdict.wrong.push(format!("{case:?}: {count} failed, the first: {first}"));
        }
    }
    debug_assert!(last > 0);
    verdict
}

pub const POLICIES: [Policy; 3] =
    [Policy::leased(1, 1_000), Policy::leased(10, 1_000), Policy::leased(100, 1_000)];

pub fn demands(nodes: usize) -> Vec<Case> {
    let [one, ten, hundred] = POLICIES;
    let case =
        |policy, nodes, demand, pattern| Case { policy, nodes, demand, pattern, from: 0, to: 0 };
    vec![
        case(one, nodes, 20.0, Pattern::Poisson),
        case(one, 1, 2.0, Pattern::Uniform),
        case(ten, nodes, 20.0, Pattern::Uniform),
        case(ten, nodes, 2.0, Pattern::Edge),
        case(hundred, nodes, 0.9, Pattern::Poisson),
        case(hundred, nodes, 2.0, Pattern::Uniform),
        case(hundred, nodes, 10.0, Pattern::Poisson),
        case(hundred, 1, 2.0, Pattern::Edge),
    ]
}

#[test]
fn faults_let_nothing_over_and_nothing_fail() {
    const SEED: u64 = 2;
    let mut world = World::start(4, 1, true, &POLICIES);
    let (log, happened, cases) = endure(&mut world, &Fault::ALL, &demands(4), (1, 1_200), SEED);
    judge(&log, &happened, &cases).assert(SEED);
}
