//! Asks, grants, recalls and what is given back, in every order in which they can cross: two shards and
//! the ledger, each on a thread of loom's, joined by the queues that join the real ones.
//!
//! Time stands still while anybody can go on. When all sleep nothing may be left in a queue, or a wake-up
//! was lost; then the first timer is due.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use contract::snapshot::{LimitMode, OnStoreFailure};
use loom::thread;

use crate::limit::lease::{Few, Leases, Outcome, Parked, Until, Want};
use crate::limit::ledger::{Ledger, Output};
use crate::limit::messages::{Ask, Bucket};
use crate::limit::rule::{Rule, Span};
use crate::store::wake_queue::tests::Line;
use crate::store::wake_queue::{Bell, WakeQueue};
use crate::store::{News, deliver};

const SHARDS: usize = 2;
/// Among the threads: shards come first.
const STORE: usize = SHARDS;
const START_MS: u64 = 1_000;
/// Whoever has no answer by then never gets one.
const END_MS: u64 = START_MS + 2_000;
/// Longer than that: nothing that was spent leaves it.
const MINUTE: Span = Span::Sliding { ms: 60_000 };

type Asks = WakeQueue<Line<(u16, Ask)>, Sleeper>;
type Inbox = WakeQueue<Line<News>, Sleeper>;

/// Who sleeps, and what time it is.
struct World {
    sleep: loom::sync::Mutex<Sleep>,
    changed: loom::sync::Condvar,
    /// Not loom's: what happens between two of its steps happens at once.
    truth: Mutex<Truth>,
}

struct Sleep {
    rings: [bool; SHARDS + 1],
    /// Until when at the latest.
    asleep: [Option<u64>; SHARDS + 1],
    ended: [bool; SHARDS + 1],
}

/// What nobody in the model knows.
#[derive(Default)]
struct Truth {
    now_ms: u64,
    limit: u64,
    /// Granted to each shard, and not yet there.
    under_way: [u64; SHARDS],
    /// What it holds, and what it has spent for ever.
    holds: [u64; SHARDS],
    spent: [u64; SHARDS],
    /// It has left: whatever comes to it goes nowhere.
    gone: [bool; SHARDS],
    /// Messages in queues.
    queued: usize,
    unanswered: usize,
    refused: u64,
    admitted: u64,
}

impl Truth {
    fn check(&self) {
        let sum = |all: &[u64]| all.iter().sum::<u64>();
        let out = sum(&self.under_way) + sum(&self.holds) + sum(&self.spent);
        assert!(out <= self.limit, "{out} of {}", self.limit);
    }
}

impl World {
    fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap()
    }

    fn now_ms(&self) -> u64 {
        self.truth().now_ms
    }

    /// All sleep until then.
    fn pass(&self, next_ms: u64) {
        let mut truth = self.truth();
        assert_eq!(truth.queued, 0, "all sleep over a message");
        assert!(next_ms < END_MS, "{} wait for ever", truth.unanswered);
        truth.now_ms = next_ms;
    }

    fn end(&self, at: usize) {
        self.sleep.lock().unwrap().ended[at] = true;
        self.changed.notify_all();
    }
}

/// The bell of one thread.
struct Sleeper {
    world: Arc<World>,
    at: usize,
}

impl Sleeper {
    /// Returns when it has rung, or `due_ms` has come.
    fn wait(&self, due_ms: u64) {
        let mut sleep = self.world.sleep.lock().unwrap();
        sleep.asleep[self.at] = Some(due_ms);
        while !sleep.rings[self.at] && self.world.now_ms() < due_ms {
            let now_ms = self.world.now_ms();
            let threads = sleep.rings.iter().zip(&sleep.asleep).zip(&sleep.ended);
            let mut all_sleep = threads.map(|((rings, asleep), ended)| match asleep {
                Some(due_ms) => !rings && *due_ms > now_ms,
                None => *ended,
            });
            if all_sleep.all(|sleeps| sleeps) {
                let next_ms = sleep.asleep.iter().flatten().min().copied().unwrap_or(u64::MAX);
                self.world.pass(next_ms);
                self.world.changed.notify_all();
            } else {
                sleep = self.world.changed.wait(sleep).unwrap();
            }
        }
        sleep.asleep[self.at] = None;
        // The store thread's is a permit, which is taken; those of shards are silenced.
        if self.at == STORE {
            sleep.rings[STORE] = false;
        }
    }
}

impl Bell for Sleeper {
    fn ring(&self) {
        self.world.sleep.lock().unwrap().rings[self.at] = true;
        self.world.changed.notify_all();
    }

    fn silence(&self) {
        if self.at != STORE {
            self.world.sleep.lock().unwrap().rings[self.at] = false;
        }
    }
}

struct Shard {
    world: Arc<World>,
    at: usize,
    asks: Arc<Asks>,
    inbox: Arc<Inbox>,
    leases: Leases,
    want: Want,
}

impl Shard {
    fn run(mut self, requests: usize, inboxes: &[Arc<Inbox>]) {
        for _ in 0..requests {
            let admitted = self.request();
            let mut truth = self.world.truth();
            truth.unanswered -= 1;
            *(if admitted { &mut truth.admitted } else { &mut truth.refused }) += 1;
            if truth.unanswered == 0 {
                drop(truth);
                inboxes.iter().for_each(|inbox| inbox.bell().ring());
            }
        }
        // Others may need what it holds.
        while self.world.truth().unanswered > 0 {
            self.sleep();
        }
        let asks = self.leases.leave(self.world.now_ms());
        self.world.truth().under_way[self.at] = 0;
        self.world.truth().gone[self.at] = true;
        self.put(asks);
        self.world.end(self.at);
    }

    /// From its coming to its end. Whether it was admitted.
    fn request(&mut self) -> bool {
        let want = [self.want];
        let (mut places, mut holds) = (Few::new(), Few::new());
        loop {
            let now_ms = self.world.now_ms();
            let make = |_| bucket(&want[0]);
            let outcome = self.leases.take(&want, true, now_ms, make, &mut places, &mut holds);
            match outcome {
                Outcome::Taken { .. } => break,
                Outcome::Refused { .. } => return false,
                Outcome::Dry => {}
                Outcome::Unavailable => panic!("there is no Redis to be lost"),
            }
            let parked = Rc::new(Parked::default());
            assert!(self.leases.wait(&want, &places, &parked, now_ms));
            self.tell();
            while !parked.was_woken() {
                self.sleep();
            }
            self.leases.end_wait(&places, &parked);
        }
        // Messages come while it is under way.
        self.tell();
        self.look();
        let now_ms = self.world.now_ms();
        for hold in &mut holds {
            self.leases.settle(hold, None, now_ms);
            if self.want.until != Until::Ended {
                self.world.truth().spent[self.at] += self.want.cost;
            }
            self.leases.end(hold, now_ms);
        }
        self.tell();
        true
    }

    fn sleep(&mut self) {
        let due_ms = self.leases.due_ms().unwrap_or(u64::MAX);
        self.inbox.bell().wait(due_ms);
        self.look();
    }

    fn look(&mut self) {
        let (world, leases, at) = (&self.world, &mut self.leases, self.at);
        self.inbox.take(usize::MAX, |news| {
            let News::Limit(told) = news else { panic!("nothing was asked") };
            let mut truth = world.truth();
            truth.queued -= 1;
            truth.under_way[at] -= told.granted;
            leases.told(&told, truth.now_ms);
            truth.holds[at] += told.granted;
            truth.check();
        });
        self.tell();
    }

    /// Says what there is to say.
    fn tell(&mut self) {
        let asks = self.leases.tick(self.world.now_ms());
        self.put(asks);
    }

    fn put(&self, asks: Vec<Ask>) {
        let mut truth = self.world.truth();
        truth.holds[self.at] = self.leases.held();
        truth.check();
        drop(truth);
        for ask in asks {
            self.world.truth().queued += 1;
            self.asks.put((self.at as u16, ask));
        }
    }
}

fn bucket(want: &Want) -> Arc<Bucket> {
    Arc::new(Bucket {
        name: "b".into(),
        tag: "t".into(),
        consumer: "".into(),
        rule: want.rule,
        mode: want.mode,
        on_store_failure: want.on_store_failure,
    })
}

/// What the store thread does, until both shards have left.
fn keep(world: &Arc<World>, asks: &Asks, inboxes: &[Arc<Inbox>]) {
    let mut ledger = Ledger::new(SHARDS as u16, "node#1".into());
    let (mut output, mut left) = (Output::default(), 0);
    let used_and_leased = |ledger: &Ledger| {
        let lines = ledger.list("", 1);
        lines.first().map_or((0, 0), |line| (line.used, line.leased))
    };
    loop {
        // So few that some are left at times.
        asks.take(1, |(shard, ask)| {
            world.truth().queued -= 1;
            left += usize::from(ask.last);
            ledger.ask(shard, ask, world.now_ms());
        });
        if world.now_ms() >= ledger.next_ms() {
            ledger.tick(world.now_ms());
        }
        ledger.take_output(&mut output);
        let mut truth = world.truth();
        for (shard, told) in &output.told {
            if !truth.gone[usize::from(*shard)] {
                truth.under_way[usize::from(*shard)] += told.granted;
                truth.queued += 1;
            }
        }
        truth.check();
        let (used, leased) = used_and_leased(&ledger);
        assert!(used + leased <= truth.limit, "{used} and {leased} of {}", truth.limit);
        drop(truth);
        deliver(&mut output.told, inboxes);
        if left == SHARDS {
            break;
        }
        if asks.is_empty() {
            asks.bell().wait(ledger.next_ms());
        }
    }
    world.end(STORE);
    let spent: u64 = world.truth().spent.iter().sum();
    assert_eq!(used_and_leased(&ledger), (spent, 0), "all has come back");
}

/// Each shard has so many requests, one after the other. `decide`: how many were admitted and refused.
fn cross(
    rule: Rule,
    mode: LimitMode,
    requests: [usize; SHARDS],
    preemptions: usize,
    decide: impl Fn(u64, u64) + Send + Sync + 'static,
) {
    let want = Want {
        id: 7,
        rule,
        mode,
        on_store_failure: OnStoreFailure::Share,
        cost: 1,
        until: if rule.span == Span::Concurrent { Until::Ended } else { Until::Reached },
        dry_run: false,
        policy: 0,
    };
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 10_000;
    // There are more orders than anybody waits for: it goes as far as it comes. LOOM_MAX_DURATION
    // (seconds) lets it go on.
    model.max_duration = model.max_duration.or(Some(Duration::from_secs(10)));
    model.check(move || {
        let world = Arc::new(World {
            sleep: loom::sync::Mutex::new(Sleep {
                rings: Default::default(),
                asleep: Default::default(),
                ended: Default::default(),
            }),
            changed: loom::sync::Condvar::new(),
            truth: Mutex::new(Truth {
                now_ms: START_MS,
                limit: rule.limit,
                unanswered: requests.iter().sum(),
                ..Truth::default()
            }),
        });
        let bell = |at| Sleeper { world: world.clone(), at };
        let asks = Arc::new(Asks::new(Line::new(), bell(STORE)));
        let inboxes = [0, 1].map(|at| Arc::new(Inbox::new(Line::new(), bell(at))));
        let shards = [0, 1].map(|at| {
            let (world, asks, inboxes) = (world.clone(), asks.clone(), inboxes.clone());
            thread::spawn(move || {
                let (leases, inbox) = (Leases::default(), inboxes[at].clone());
                Shard { world, at, asks, inbox, leases, want }.run(requests[at], &inboxes);
            })
        });
        keep(&world, &asks, &inboxes);
        shards.into_iter().for_each(|shard| shard.join().unwrap());
        let truth = world.truth();
        decide(truth.admitted, truth.refused);
    });
}

#[test]
fn loom_one_place_goes_from_hand_to_hand() {
    let rule = Rule { limit: 1, span: Span::Concurrent };
    cross(rule, LimitMode::Local, [2, 1], 2, |admitted, _| assert_eq!(admitted, 3));
}

#[test]
fn loom_a_window_is_used_up_and_no_more() {
    let rule = Rule { limit: 2, span: MINUTE };
    cross(rule, LimitMode::Local, [2, 1], 2, |admitted, refused| {
        assert_eq!((admitted, refused), (2, 1));
    });
}
