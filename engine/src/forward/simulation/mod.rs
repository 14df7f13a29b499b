//! The course of requests simulated: a virtual clock, shards, targets that follow scripts, clients
//! that lose patience. What decides is the real thing (the course, the upstream's state, and all
//! that it shares between shards); only sockets and time are played.
//!
//! `SLUICE_SIM_SEEDS=100000` runs more seeds than usual, `SLUICE_SIM_SEED=7` only that one, which
//! goes the same way each time.

mod script;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::Arc;

use contract::record::RetryStop;
use contract::snapshot::{
    self, Balance, Bounds, Breaker, Outlier, Retry, RetryBudget, RetryMethods, Snapshot, Timeouts,
};

use self::script::{Dice, TEMPERS, Target, Temper};
use super::Account;
use super::course::{Course, Facts, Next, Outcome};
use super::errand::micros;
use crate::plan::{Backend, Plan, Upstream};
use crate::shard::ShardPlan;
use crate::upstream::{Admitted, Ask, InFlight, Refusal, RetryPermit, UpstreamState, Verdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    TryEnds { request: usize, serial: u32 },
    PauseEnds { request: usize },
    BodyEnds { request: usize },
    ClientGoes { request: usize },
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

struct Request<'p> {
    shard: usize,
    repeatable: bool,
    /// A body that streams, in bytes; 0: none, or whole.
    streams: u32,
    kept: bool,
    begun: bool,
    deadline_ms: u64,
    patience_ms: u64,
    started_us: u64,
    try_us: u64,
    serial: u32,
    fresh: bool,
    /// How the try under way will end, and whether its answer will be cut.
    coming: (Outcome, bool),
    course: Option<Course<'p, Permit>>,
    admitted: Option<Admitted>,
    flight: Option<InFlight>,
    account: Option<Account>,
    // What the oracle asks for.
    executed: u32,
    answers: u32,
    gone: bool,
}

/// What happened, over all seeds: a simulation in which nothing goes wrong proves nothing.
#[derive(Debug, Default)]
struct Tally {
    answered: u64,
    failed: u64,
    cut: u64,
    refused: [u64; 5],
    retries: u64,
    stops: [u64; RetryStop::ALL.len()],
    abandoned: u64,
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
    held: Rc<Cell<u32>>,
    active: u32,
    tally: &'p mut Tally,
}

impl<'p> World<'p> {
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
                Event::TryEnds { request, serial } => self.try_ends(request, serial),
                Event::PauseEnds { request } => self.pause_ends(request),
                Event::BodyEnds { request } => self.body_ends(request),
                Event::ClientGoes { request } => self.client_goes(request),
                Event::Housekeeping => self.keep_house(),
            }
        }
    }

    fn keep_house(&mut self) {
        let now_ms = self.now_ms();
        let states = self.states.iter().enumerate();
        states.for_each(|(shard, state)| state.keep_house(shard == 0, now_ms, now_ms));
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
            repeatable: idempotent || self.upstream.retry.methods == RetryMethods::Any,
            streams: if self.dice.percent(20) { self.dice.below(2_000) as u32 } else { 0 },
            kept: false,
            begun: false,
            deadline_ms: super::soonest(now_ms + total_ms, patience_ms),
            patience_ms,
            started_us: self.now_us,
            try_us: 0,
            serial: 0,
            fresh: false,
            coming: (Outcome::Ours, false),
            course: None,
            admitted: None,
            flight: None,
            account: None,
            executed: 0,
            answers: 0,
            gone: false,
        });
        if self.dice.percent(5) {
            let at_us = self.now_us + self.dice.below(300_000);
            self.at(at_us, Event::ClientGoes { request });
        }
        let state = self.states[shard].clone();
        match state.admit(now_ms) {
            Ok(admitted) => {
                self.active += 1;
                let own = &mut self.requests[request];
                own.admitted = Some(admitted);
                own.course = Some(Course::new(&self.upstream.retry, own.deadline_ms));
                self.next_try(request);
            }
            Err(refusal) => self.refuse(request, refusal),
        }
    }

    fn refuse(&mut self, request: usize, refusal: Refusal) {
        self.tally.refused[refusal as usize] += 1;
        self.answer(request);
    }

    /// The request's one answer, from wherever. It has nothing any more but what relays it.
    fn answer(&mut self, request: usize) {
        let own = &mut self.requests[request];
        own.answers += 1;
        own.flight = None;
        own.course = None;
        if own.admitted.take().is_some() {
            self.active -= 1;
        }
    }

    fn next_try(&mut self, request: usize) {
        let random = self.dice.word();
        let hash = Some(request as u64 % 7);
        let now_ms = self.now_ms();
        let own = &self.requests[request];
        let tried = own.course.as_ref().unwrap().tried();
        let state = &self.states[own.shard];
        match state.pick(&Ask { tried, hash, random, now_ms }) {
            Ok(flight) => self.try_begins(request, flight),
            Err(refusal) => self.refuse(request, refusal),
        }
    }

    fn try_begins(&mut self, request: usize, flight: InFlight) {
        let (outcome, took_us, executed, cut) =
            self.reaction(&flight, self.requests[request].fresh);
        let Timeouts { try_ms, first_byte_ms, .. } = self.upstream.timeouts;
        let now_us = self.now_us;
        let own = &mut self.requests[request];
        let course = own.course.as_ref().unwrap();
        // As `Outgoing::feed` does, once there is a connection.
        if outcome != Outcome::NoConnection {
            let keeps = course.may_go_on(own.repeatable, true);
            own.kept = own.streams <= self.upstream.retry.body_bytes && (own.kept || !own.begun);
            own.kept &= keeps || own.begun;
            own.begun = true;
            own.executed += u32::from(executed);
        }
        let later = |ms: u64| if ms == 0 { u64::MAX } else { (ms * 1_000).max(now_us) };
        let own_ms = |ms: u32| if ms == u32::MAX { 0 } else { now_us / 1_000 + u64::from(ms) };
        // The first of equals is what `Attempt::late` looks at first.
        let ends = [
            (later(own.patience_ms), Outcome::ClientDeadline),
            (later(own.deadline_ms), Outcome::Timeout),
            (later(own_ms(try_ms)), Outcome::TryTimeout),
            (later(own_ms(first_byte_ms)), Outcome::Timeout),
            (now_us.saturating_add(took_us), outcome),
        ];
        let (at_us, outcome) = ends.into_iter().min_by_key(|(at_us, _)| *at_us).unwrap();
        own.coming = (outcome, cut);
        own.serial += 1;
        own.try_us = now_us;
        own.flight = Some(flight);
        let serial = own.serial;
        self.at(at_us, Event::TryEnds { request, serial });
    }

    /// What the target does: how it ends, after how long, whether it has acted on the request, and
    /// whether the answer stops in its middle.
    fn reaction(&mut self, flight: &InFlight, fresh: bool) -> (Outcome, u64, bool, bool) {
        let dice = &mut self.dice;
        let quick_us = 500 + dice.below(5_000);
        if !fresh && dice.percent(2) {
            return (Outcome::Reset { reused: true }, quick_us, false, false);
        }
        let answered = |status| Outcome::Answered { status, retry_after_ms: None };
        match self.targets[flight.index].temper(self.now_us) {
            Temper::Good => (answered(200), quick_us, true, false),
            Temper::Forgets if fresh => (answered(200), quick_us, true, false),
            Temper::Forgets => (Outcome::Reset { reused: true }, quick_us, false, false),
            Temper::Slow => (answered(200), quick_us * 100, true, false),
            Temper::RefusesConnections => (Outcome::NoConnection, 200, false, false),
            Temper::ResetsEarly => (Outcome::Reset { reused: false }, quick_us, false, false),
            Temper::ResetsLate => (Outcome::Reset { reused: false }, quick_us, true, false),
            Temper::RefusesStreams => (Outcome::Refused { leaving: false }, 300, false, false),
            Temper::Garbage => (Outcome::Invalid, quick_us, true, false),
            Temper::Hangs => (answered(200), u64::MAX, true, false),
            Temper::Lies => (answered(200), quick_us, true, true),
            Temper::Status(status) => {
                let retry_after_ms = dice.percent(30).then(|| dice.one(&[0, 50, 120_000]));
                (Outcome::Answered { status, retry_after_ms }, quick_us, true, false)
            }
        }
    }

    /// As `Errand::go` goes on from here.
    fn try_ends(&mut self, request: usize, serial: u32) {
        let random = self.dice.word();
        let (now_us, now_ms) = (self.now_us, self.now_ms());
        let own = &mut self.requests[request];
        if own.serial != serial || own.gone {
            return;
        }
        let (outcome, cut) = own.coming;
        let (Some(flight), Some(course)) = (own.flight.take(), own.course.as_mut()) else { return };
        let facts = Facts {
            repeatable: own.repeatable,
            at_hand: own.streams == 0 || !own.begun || own.kept,
            targets: self.targets.len(),
            now_ms,
            random,
        };
        let state = &self.states[own.shard];
        let (held, active) = (&self.held, self.active);
        let budget = self.upstream.retry_budget;
        let next = course.next(outcome, flight.index, &facts, || {
            let own = state.retry_permit()?;
            held.set(held.get() + 1);
            let share = (u64::from(active) * u64::from(budget.percent)).div_ceil(100);
            let most = share.max(u64::from(budget.min));
            assert!(u64::from(held.get()) <= most, "{} retries of {most}", held.get());
            Some(Permit { _own: own, held: held.clone() })
        });
        let verdict = next.verdict(outcome);
        let (try_us, whole_us) = (micros(now_us - own.try_us), micros(now_us - own.started_us));
        if let Next::Again { pause_ms, fresh } = next {
            flight.judge(verdict, try_us, now_ms);
            own.fresh = fresh;
            self.tally.retries += 1;
            assert!(own.deadline_ms == 0 || now_ms + pause_ms < own.deadline_ms);
            return self.at(now_us + pause_ms * 1_000, Event::PauseEnds { request });
        }
        self.tally.stops[course.stop() as usize] += 1;
        let admitted = own.admitted.take().expect("a request under way is counted");
        if matches!(outcome, Outcome::Answered { .. }) {
            let account = Account::new(flight, admitted, verdict, try_us, whole_us);
            account.begin(false, now_ms);
            own.account = Some(account);
            own.coming = (outcome, cut);
            own.answers += 1;
            own.course = None;
            let body_us = self.dice.below(20_000);
            self.tally.answered += 1;
            self.at(now_us + body_us, Event::BodyEnds { request });
        } else {
            flight.judge(verdict, try_us, now_ms);
            admitted.finish(verdict, whole_us, now_ms);
            drop(flight);
            own.admitted = Some(admitted);
            self.tally.failed += 1;
            self.answer(request);
        }
    }

    fn pause_ends(&mut self, request: usize) {
        if !self.requests[request].gone {
            self.next_try(request);
        }
    }

    fn body_ends(&mut self, request: usize) {
        let now_ms = self.now_ms();
        let own = &mut self.requests[request];
        let Some(account) = own.account.take() else { return };
        let cut = own.coming.1;
        self.tally.cut += u64::from(cut);
        account.settle(if cut { Verdict::Gateway } else { Verdict::Good }, now_ms);
        self.active -= 1;
    }

    /// All that the request has goes, as its future would.
    fn client_goes(&mut self, request: usize) {
        let now_ms = self.now_ms();
        let own = &mut self.requests[request];
        let under_way = own.admitted.is_some() || own.account.is_some();
        if !under_way {
            return;
        }
        own.gone = true;
        if let Some(account) = own.account.take() {
            account.settle(Verdict::Nothing, now_ms);
        }
        own.flight = None;
        own.course = None;
        own.admitted = None;
        self.active -= 1;
        self.tally.abandoned += 1;
    }

    /// What must hold whatever happened.
    fn judge(&self) {
        for (number, request) in self.requests.iter().enumerate() {
            let once = request.answers == 1 || (request.gone && request.answers == 0);
            assert!(once, "request {number} has {} answers", request.answers);
            let harmless = request.repeatable || request.executed <= 1;
            assert!(harmless, "request {number} was executed {} times", request.executed);
            let tries = usize::from(self.upstream.retry.attempts) + 1;
            assert!(request.serial as usize <= tries, "request {number}: {} tries", request.serial);
            let holds = request.admitted.is_some()
                || request.flight.is_some()
                || request.account.is_some()
                || request.course.is_some();
            assert!(!holds, "request {number} still has something");
        }
        assert_eq!(self.held.get(), 0, "a permit was not given back");
        assert_eq!(self.active, 0, "a request is still counted");
        for state in &self.states {
            assert_eq!(Rc::strong_count(state), 2, "its shard has it, and we");
        }
    }
}

fn settings(dice: &mut Dice, targets: u64) -> snapshot::Upstream {
    let target = |at: u64| snapshot::Target {
        address: format!("192.0.2.{}:80", at + 1).parse().unwrap(),
        weight: 1 + (at % 3) as u32,
        name: format!("t{at}:80"),
        ..Default::default()
    };
    let breaker = |dice: &mut Dice| {
        dice.percent(40).then(|| Breaker {
            consecutive: dice.one(&[0, 5]),
            open_ms: 200,
            window_ms: 2_000,
            ..Breaker::default()
        })
    };
    snapshot::Upstream {
        name: "u".into(),
        balance: dice.one(&[
            Balance::RoundRobin,
            Balance::Weighted,
            Balance::LeastConnections,
            Balance::PowerOfTwo,
            Balance::Hash { key: snapshot::HashKey::ClientIp, load_percent: 125 },
        ]),
        targets: (0..targets).map(target).collect(),
        timeouts: Timeouts {
            first_byte_ms: 1_000,
            try_ms: dice.one(&[u32::MAX, 100, 400]),
            total_ms: dice.one(&[500, 3_000]),
            ..Timeouts::default()
        },
        retry: Retry {
            attempts: dice.one(&[1, 2, 3, 5]),
            methods: if dice.percent(80) { RetryMethods::Idempotent } else { RetryMethods::Any },
            body_bytes: 1_000,
            ..Retry::default()
        },
        retry_budget: RetryBudget { percent: dice.one(&[0, 20, 100]), min: dice.one(&[0, 3]) },
        breaker: breaker(dice),
        target_breaker: breaker(dice),
        bounds: Bounds { max_requests: dice.one(&[0, 0, 5]), max_pending: 0 },
        target_bounds: Bounds { max_requests: dice.one(&[0, 0, 5]), max_pending: 0 },
        min_live_percent: dice.one(&[0, 0, 40]),
        outlier: dice.percent(80).then(|| Outlier {
            interval_ms: 500,
            base_ejection_ms: 300,
            max_ejection_ms: 1_500,
            min_requests: 5,
            slow_start_ms: dice.one(&[0, 500]),
            ..Outlier::default()
        }),
        concurrency: dice.percent(20).then(snapshot::AdaptiveConcurrency::default),
        ..Default::default()
    }
}

fn simulate(seed: u64, tally: &mut Tally) {
    let mut dice = Dice(seed);
    let (shards, targets) = (1 + dice.below(4), 1 + dice.below(5));
    let upstream = settings(&mut dice, targets);
    let snapshot = Snapshot { epoch: 1, upstreams: vec![upstream], ..Default::default() };
    let plan = Arc::new(Plan::build(snapshot).unwrap());
    let plans = ShardPlan::for_shards(&plan, shards as u16);
    let one = Backend { upstream: 0, weight: 1 };
    let scripts = (0..targets).map(|_| {
        let good = dice.percent(50);
        let turns = 1 + dice.below(4);
        let tempers = (0..turns).map(|_| if good { Temper::Good } else { dice.one(&TEMPERS) });
        Target { tempers: tempers.collect(), period_us: 100_000 + dice.below(900_000) }
    });
    let targets = scripts.collect();
    let mut world = World {
        now_us: 1_000_000,
        queue: BinaryHeap::new(),
        events: 0,
        upstream: plan.upstream(one),
        states: plans.iter().map(|plan| plan.upstream(one).1.clone()).collect(),
        targets,
        requests: Vec::new(),
        arrivals: 100 + dice.below(200) as u32,
        gap_us: dice.one(&[200, 2_000, 20_000]),
        held: Rc::default(),
        active: 0,
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
        None => 0..number("SLUICE_SIM_SEEDS").unwrap_or(3_000),
    };
    let many = seeds.end - seeds.start >= 1_000;
    for seed in seeds {
        let told = Seed(seed);
        simulate(seed, &mut tally);
        drop(told);
    }
    if !many {
        return;
    }
    assert!(
        tally.answered > 0 && tally.failed > 0 && tally.cut > 0 && tally.abandoned > 0,
        "{tally:?}"
    );
    assert!(tally.retries > 0 && tally.refused.iter().sum::<u64>() > 0, "{tally:?}");
    for (stop, times) in RetryStop::ALL.into_iter().zip(tally.stops) {
        assert!(times > 0, "no retry was ever stopped by {}", stop.name());
    }
}

#[test]
fn a_seed_goes_the_same_way_each_time() {
    for seed in 0..20 {
        let mut tallies = [Tally::default(), Tally::default()];
        tallies.iter_mut().for_each(|tally| simulate(seed, tally));
        let [one, two] = tallies.map(|tally| format!("{tally:?}"));
        assert_eq!(one, two, "seed {seed}");
    }
}
