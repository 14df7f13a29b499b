//! The course of requests simulated: a virtual clock, shards, targets that follow scripts, clients
//! that lose patience. What decides is the real thing: the course, the race of a hedge, what a mirror
//! takes up, the upstream's state with all that shards share, and both ends of HTTP/2. Only sockets,
//! time, and the pool's choice of a connection are played.
//!
//! `SLUICE_SIM_SEEDS=100000` runs more seeds than usual, `SLUICE_SIM_SEED=7` only that one, which
//! goes the same way each time.

mod hedges;
mod lines;
mod mirrors;
mod script;
mod tally;
mod tries;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::Arc;

use contract::snapshot::{RetryBudget, RetryMethods, Snapshot};

use self::lines::{Held, Lines, Side};
use self::mirrors::Mirrors;
use self::script::{Dice, Target, Temper};
use self::tally::Tally;
use self::tries::Try;
use super::course::Course;
use super::race::{Lane, Race};
use crate::answer::Account;
use crate::http2::StreamId;
use crate::plan::{Backend, Plan, Upstream};
use crate::shard::ShardPlan;
use crate::upstream::{Admitted, Refusal, RetryPermit, UpstreamState, Verdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    /// As its script says, or its time is up.
    TryEnds {
        request: usize,
        serial: u32,
    },
    IsSlow {
        request: usize,
        serial: u32,
    },
    PauseEnds {
        request: usize,
    },
    BodyEnds {
        request: usize,
    },
    ClientGoes {
        request: usize,
    },
    CopyEnds {
        copy: usize,
    },
    /// A connection was opened for the try, or `refused`.
    Connected {
        request: usize,
        serial: u32,
        refused: bool,
    },
    /// What was sent is there.
    Bytes {
        line: usize,
        to: Side,
    },
    /// A target does with a stream what it does.
    Acts {
        line: usize,
        stream: StreamId,
        temper: Temper,
    },
    AnswerEnds {
        line: usize,
        stream: StreamId,
        cut: bool,
    },
    /// A target takes no more streams on a connection.
    Leaves {
        line: usize,
    },
    Dies {
        line: usize,
    },
    Housekeeping,
}

/// A permit that the oracle counts, too.
struct Permit {
    _own: RetryPermit,
    held: Rc<Cell<u32>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.held.set(self.held.get() - 1);
    }
}

/// What the oracle knows of the budget of retries.
struct Ledger {
    held: Rc<Cell<u32>>,
    /// Requests under way.
    active: u32,
    budget: RetryBudget,
}

impl Ledger {
    fn grant(&self, state: &Rc<UpstreamState>) -> Option<Permit> {
        let own = state.retry_permit()?;
        self.held.set(self.held.get() + 1);
        let share = (u64::from(self.active) * u64::from(self.budget.percent)).div_ceil(100);
        let most = share.max(u64::from(self.budget.min));
        assert!(u64::from(self.held.get()) <= most, "{} retries of {most}", self.held.get());
        Some(Permit { _own: own, held: self.held.clone() })
    }
}

/// An answer on its way to the client.
struct Relay {
    account: Account,
    held: Held,
    cut: bool,
}

struct Request<'p> {
    shard: usize,
    idempotent: bool,
    repeatable: bool,
    hash: Option<u64>,
    /// A body that streams, in bytes; 0: none, or whole.
    streams: u32,
    kept: bool,
    begun: bool,
    deadline_ms: u64,
    patience_ms: u64,
    started_us: u64,
    serial: u32,
    fresh: bool,
    /// The try under way, or to come, is one that needs a permit.
    retries: bool,
    tries: Vec<Try>,
    race: Option<Race<Permit>>,
    course: Option<Course<'p, Permit>>,
    admitted: Option<Admitted>,
    relay: Option<Relay>,
    // What the oracle asks for.
    executed: u32,
    answers: u32,
    gone: bool,
}

struct World<'p> {
    dice: Dice,
    now_us: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    events: u64,
    upstream: &'p Upstream,
    states: Vec<Rc<UpstreamState>>,
    targets: Vec<Target>,
    requests: Vec<Request<'p>>,
    arrivals: u32,
    gap_us: u64,
    ledger: Ledger,
    lines: Lines,
    mirrors: Option<Mirrors>,
    tally: &'p mut Tally,
}

impl World<'_> {
    fn at(&mut self, at_us: u64, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((at_us, self.events, event)));
    }

    fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    fn run(&mut self) {
        self.at(self.now_us, Event::Arrives);
        self.at(self.now_us, Event::Housekeeping);
        while let Some(Reverse((at_us, _, event))) = self.queue.pop() {
            self.now_us = at_us;
            match event {
                Event::Arrives => self.arrive(),
                Event::TryEnds { request, serial } => self.time_is_up(request, serial),
                Event::IsSlow { request, serial } => self.is_slow(request, serial),
                Event::PauseEnds { request } => self.pause_ends(request),
                Event::BodyEnds { request } => self.body_ends(request),
                Event::ClientGoes { request } => self.client_goes(request),
                Event::CopyEnds { copy } => self.copy_ends(copy),
                Event::Connected { request, serial, refused } => {
                    self.connected(request, serial, refused);
                }
                Event::Bytes { line, to } => self.bytes(line, to),
                Event::Acts { line, stream, temper } => self.acts(line, stream, temper),
                Event::AnswerEnds { line, stream, cut } => self.answer_ends(line, stream, cut),
                Event::Leaves { line } => self.leaves(line),
                Event::Dies { line } => self.dies(line),
                Event::Housekeeping => self.keep_house(),
            }
        }
    }

    fn keep_house(&mut self) {
        let now_ms = self.now_ms();
        let states = self.states.iter().enumerate();
        states.for_each(|(shard, state)| state.keep_house(shard == 0, now_ms, now_ms));
        if let Some(mirrors) = &self.mirrors {
            mirrors.keep_house(now_ms);
        }
        // Who holds a permit is trying again, or beside another try.
        let due = |own: &Request<'_>| {
            let beside = own.tries.iter().any(|one| one.lane == Lane::Second);
            u32::from(own.course.is_some() && own.retries) + u32::from(beside)
        };
        let due: u32 = self.requests.iter().map(due).sum();
        assert_eq!(self.ledger.held.get(), due, "permits held");
        if self.arrivals > 0 {
            self.at(self.now_us + 100_000, Event::Housekeeping);
        }
    }

    fn arrive(&mut self) {
        if self.arrivals == 0 {
            return;
        }
        self.arrivals -= 1;
        let gap_us = self.dice.below(2 * self.gap_us + 1);
        self.at(self.now_us + gap_us, Event::Arrives);
        let now_ms = self.now_ms();
        let idempotent = self.dice.percent(70);
        let total_ms = u64::from(self.upstream.timeouts.total_ms);
        let patience_ms = if self.dice.percent(20) { now_ms + 1 + self.dice.below(400) } else { 0 };
        let shard = self.dice.below(self.states.len() as u64) as usize;
        let request = self.requests.len();
        self.requests.push(Request {
            shard,
            idempotent,
            repeatable: idempotent || self.upstream.retry.methods == RetryMethods::Any,
            hash: Some(request as u64 % 7),
            streams: if self.dice.percent(20) { self.dice.below(2_000) as u32 } else { 0 },
            kept: false,
            begun: false,
            deadline_ms: super::soonest(now_ms + total_ms, patience_ms),
            patience_ms,
            started_us: self.now_us,
            serial: 0,
            fresh: false,
            retries: false,
            tries: Vec::new(),
            race: None,
            course: None,
            admitted: None,
            relay: None,
            executed: 0,
            answers: 0,
            gone: false,
        });
        if self.dice.percent(5) {
            let at_us = self.now_us + self.dice.below(300_000);
            self.at(at_us, Event::ClientGoes { request });
        }
        self.mirror(request);
        let state = self.states[shard].clone();
        match state.admit(now_ms) {
            Ok(admitted) => {
                self.ledger.active += 1;
                let own = &mut self.requests[request];
                own.admitted = Some(admitted);
                own.course = Some(Course::new(&self.upstream.retry, own.deadline_ms));
                self.next_try(request);
            }
            Err(refusal) => self.refuse(request, refusal),
        }
    }

    fn refuse(&mut self, request: usize, refusal: Refusal) {
        self.tally.refuse(refusal);
        self.answer(request);
    }

    /// The request's one answer, from wherever. It has nothing any more but what relays it.
    fn answer(&mut self, request: usize) {
        let own = &mut self.requests[request];
        own.answers += 1;
        own.course = None;
        assert!(own.tries.is_empty() && own.race.is_none(), "a try goes on behind the answer");
        if own.admitted.take().is_some() {
            self.ledger.active -= 1;
        }
        self.tell(&[request as u64]);
    }

    fn tell(&mut self, what: &[u64]) {
        self.tally.tell(&[self.now_us]);
        self.tally.tell(what);
    }

    fn pause_ends(&mut self, request: usize) {
        if !self.requests[request].gone {
            self.next_try(request);
        }
    }

    fn body_ends(&mut self, request: usize) {
        let now_ms = self.now_ms();
        let own = &mut self.requests[request];
        let Some(Relay { account, held, cut }) = own.relay.take() else { return };
        self.tally.cut += u64::from(cut);
        account.settle(if cut { Verdict::Gateway } else { Verdict::Good }, now_ms);
        let serial = own.serial;
        self.let_go(request, serial, held);
        self.ledger.active -= 1;
        self.tell(&[request as u64, u64::from(cut)]);
    }

    /// All that the request has goes, as its future would.
    fn client_goes(&mut self, request: usize) {
        let now_ms = self.now_ms();
        let own = &mut self.requests[request];
        let under_way = own.admitted.is_some() || own.relay.is_some();
        if !under_way {
            return;
        }
        own.gone = true;
        own.race = None;
        own.course = None;
        own.admitted = None;
        let tries = std::mem::take(&mut own.tries);
        let relay = own.relay.take();
        let serial = own.serial;
        for one in tries {
            self.let_go(request, one.serial, one.held);
        }
        if let Some(Relay { account, held, .. }) = relay {
            account.settle(Verdict::Nothing, now_ms);
            self.let_go(request, serial, held);
        }
        self.ledger.active -= 1;
        self.tally.abandoned += 1;
        self.tell(&[request as u64]);
    }

    /// What must hold whatever happened.
    fn judge(&self) {
        for (number, request) in self.requests.iter().enumerate() {
            let once = request.answers == 1 || (request.gone && request.answers == 0);
            assert!(once, "request {number} has {} answers", request.answers);
            let harmless = request.repeatable || request.executed <= 1;
            assert!(harmless, "request {number} was executed {} times", request.executed);
            // One for a stale connection, and one beside the first.
            let hedged = usize::from(self.upstream.hedge.is_some());
            let tries = usize::from(self.upstream.retry.attempts) + 1 + hedged;
            assert!(request.serial as usize <= tries, "request {number}: {} tries", request.serial);
            let holds = request.admitted.is_some()
                || !request.tries.is_empty()
                || request.race.is_some()
                || request.relay.is_some()
                || request.course.is_some();
            assert!(!holds, "request {number} still has something");
        }
        assert_eq!(self.ledger.held.get(), 0, "a permit was not given back");
        assert_eq!(self.ledger.active, 0, "a request is still counted");
        for state in &self.states {
            assert_eq!(Rc::strong_count(state), 2, "its shard has it, and we");
        }
        self.lines.judge();
        if let Some(mirrors) = &self.mirrors {
            mirrors.judge();
        }
    }
}

/// `mirrored`: whether there is a mirror, if the seed has one.
fn simulate(seed: u64, mirrored: bool, tally: &mut Tally) {
    let mut dice = Dice(seed);
    let (shards, targets) = (1 + dice.below(4), 1 + dice.below(5));
    let upstream = script::upstream(&mut dice, targets);
    let hedges = upstream.hedge.is_some();
    // Latencies are known by shard, and hedges need some that are.
    let shards = if hedges { 1 + shards / 4 } else { shards };
    let mut others = Dice(!seed);
    let (shadow, mirror) = script::shadow(&mut others);
    let upstreams = vec![upstream, shadow];
    let snapshot = Snapshot { epoch: 1, upstreams, ..Default::default() };
    let plan = Arc::new(Plan::build(snapshot).unwrap());
    let plans = ShardPlan::for_shards(&plan, shards as u16);
    let states = |upstream| -> Vec<Rc<UpstreamState>> {
        let one = Backend { upstream, weight: 1 };
        plans.iter().map(|plan| plan.upstream(one).1.clone()).collect()
    };
    let upstream = plan.upstream(Backend { upstream: 0, weight: 1 });
    let lazy = hedges && dice.percent(60);
    let script = |dice: &mut Dice| if lazy { Target::lazy(dice) } else { Target::new(dice) };
    let mirrors = (mirrored && others.percent(30)).then(|| Mirrors {
        mirror,
        total_ms: plan.upstream(Backend { upstream: 1, weight: 1 }).timeouts.total_ms,
        states: states(1),
        places: (0..shards).map(|_| Rc::default()).collect(),
        most: others.one(&[2, 20, crate::limits::MIRRORS]),
        targets: (0..2).map(|_| Target::new(&mut others)).collect(),
        copies: Vec::new(),
        dice: others,
    });
    let mut world = World {
        now_us: 1_000_000,
        queue: BinaryHeap::new(),
        events: 0,
        upstream,
        states: states(0),
        targets: (0..targets).map(|_| script(&mut dice)).collect(),
        requests: Vec::new(),
        arrivals: 100 + dice.below(200) as u32,
        gap_us: dice.one(&[200, 2_000, 20_000]),
        ledger: Ledger { held: Rc::default(), active: 0, budget: upstream.retry_budget },
        lines: Lines::new(&mut dice, shards as usize, targets as usize),
        mirrors,
        tally,
        dice,
    };
    world.run();
    world.judge();
}

/// Tells which seed it was when something panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}: run it alone with SLUICE_SIM_SEED={0}", self.0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn whatever_targets_do_each_request_is_answered_once_and_harmlessly() {
    let mut tally = Tally::default();
    let seeds = match number("SLUICE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SLUICE_SIM_SEEDS").unwrap_or(5_000),
    };
    let many = seeds.end - seeds.start >= 1_000;
    for seed in seeds {
        let told = Seed(seed);
        simulate(seed, true, &mut tally);
        drop(told);
    }
    if many {
        tally.prove();
    } else {
        eprintln!("{tally:?}");
    }
}

#[test]
fn a_seed_goes_the_same_way_each_time() {
    for seed in 0..40 {
        let mut tallies = [Tally::default(), Tally::default()];
        tallies.iter_mut().for_each(|tally| simulate(seed, true, tally));
        let [one, two] = tallies.map(|tally| format!("{tally:?}"));
        assert_eq!(one, two, "seed {seed}");
    }
}

#[test]
fn a_mirror_changes_nothing_for_whom_it_copies() {
    let mut copies = 0;
    for seed in 0..200 {
        let told = Seed(seed);
        let mut tallies = [Tally::default(), Tally::default()];
        let [with, without] = &mut tallies;
        simulate(seed, true, with);
        simulate(seed, false, without);
        assert_eq!(with.story, without.story);
        assert_eq!(without.mirrored, 0);
        copies += with.mirrored;
        drop(told);
    }
    assert!(copies > 1_000, "{copies} copies");
}
