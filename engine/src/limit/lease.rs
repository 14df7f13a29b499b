//! What a shard holds of each bucket. A request takes a token of each of its buckets, or of none.
//!
//! **What was granted is held, under way, spent and not yet told, or told**: nothing here makes a token.
//! One that is taken is *flying* until its upstream surely has the request: then it is spent, at that
//! time. What is taken for as long as a request lasts, or until its answer says what it has cost, is
//! *open*: it counts as held.
//!
//! No clock, no I/O: what is to be said to the ledger comes out of [`Leases::tick`], which is called
//! after those that were woken together have had their turn, so that one question is for all of them.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use contract::snapshot::{LimitMode, OnStoreFailure};
use smallvec::SmallVec;

use super::messages::{Ask, Bucket, BucketId, Spent, State, Told};
use super::rule::{Rule, Span};
use crate::limits;

/// Until when what a request takes counts as held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Its answer begins, or its time to reach the upstream is over.
    Reached,
    /// Its answer says what it has cost.
    Answered,
    /// It ends. Then it is as if it had never been.
    Ended,
}

/// What a request wants of one bucket.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub id: BucketId,
    pub rule: Rule,
    pub mode: LimitMode,
    pub on_store_failure: OnStoreFailure,
    /// At least 1.
    pub cost: u64,
    pub until: Until,
    /// What is missing is noted only.
    pub dry_run: bool,
    /// Of which policy it is.
    pub policy: u32,
}

/// What a request has of one bucket.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    id: BucketId,
    place: u32,
    until: Until,
    settled: bool,
    policy: u32,
    cost: u64,
    at_ms: u64,
}

impl Hold {
    pub fn until(&self) -> Until {
        self.until
    }

    pub fn policy(&self) -> u32 {
        self.policy
    }
}

/// A list with a place for each bucket of most requests.
pub type Few<T> = SmallVec<[T; 4]>;

/// What came of a request's wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Taken {
        /// Without Redis.
        shared: bool,
        /// A dry run would have refused it.
        over: bool,
    },
    /// There is nothing before `retry_at_ms` of the want at that place.
    Refused { at: usize, retry_at_ms: u64 },
    /// The ledger has to be asked: [`Leases::wait`].
    Dry,
    /// Whoever counts cannot be asked, and that is a reason to refuse.
    Unavailable,
}

/// How a bucket stands, roughly, for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub remaining: u64,
    /// Monotonic milliseconds.
    pub reset_at_ms: u64,
}

/// Whoever waits for tokens.
#[derive(Debug, Default)]
pub struct Parked {
    woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Parked {
    /// Whether there was an answer. If not, `waker` is woken by one.
    pub fn is_woken(&self, waker: &Waker) -> bool {
        if !self.woken.get() {
            *self.waker.borrow_mut() = Some(waker.clone());
        }
        self.woken.get()
    }

    pub fn wake(&self) {
        self.woken.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

struct Waiter {
    cost: u64,
    /// `None`: a dry run, which goes on without.
    parked: Option<Rc<Parked>>,
}

impl Waiter {
    /// Whether it is still there, and was not woken for another of its buckets.
    fn is_there(&self) -> bool {
        self.parked.as_ref().is_none_or(|parked| !parked.woken.get())
    }
}

/// One shard's leases.
#[derive(Default)]
pub struct Leases {
    table: HashMap<BucketId, u32, BuildHasherDefault<Low>>,
    all: Vec<Lease>,
    vacant: Vec<u32>,
    /// When to look whether there is something to tell. At most one for each lease.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    /// To be looked at by the next tick.
    dirty: Vec<u32>,
    /// By the lease's place.
    waiters: HashMap<u32, Vec<Waiter>>,
    /// How many these are.
    waiting: usize,
    asks: Vec<Ask>,
    /// Where the sweep goes on.
    hand: usize,
}

/// The low half of an id: it is a hash already.
#[derive(Default)]
pub struct Low(u64);

impl Hasher for Low {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

/// Kept small: a node has one per key and shard. Times of 32 bits are the low ones of milliseconds.
struct Lease {
    id: BucketId,
    limit: u64,
    /// Of the span: its length, or its end.
    span_ms: u64,
    /// Free to be taken.
    tokens: u64,
    /// Of requests that last, or whose cost is to come.
    open: u64,
    busy: Option<Box<Busy>>,
    fair: u64,
    remaining: u64,
    retry_at_ms: u64,
    reset_at_ms: u64,
    /// Ask ahead below this.
    low: u32,
    rate: Rate,
    used_ms: u32,
    asked_ms: u32,
    state: State,
    span: SpanKind,
    mode: LimitMode,
    on_store_failure: OnStoreFailure,
    flags: Flags,
}

/// A [`Span`] without what makes it large.
#[derive(Clone, Copy)]
enum SpanKind {
    Sliding,
    Until,
    Concurrent,
}

const _: () = assert!(size_of::<Lease>() <= 128, "100,000 keys in 64 MiB");

#[derive(Clone, Copy, Default)]
struct Flags {
    /// An `Ask` is under way.
    asking: bool,
    /// It says that somebody waits.
    needs: bool,
    /// It is in `dirty`.
    dirty: bool,
    /// It is in `due`.
    queued: bool,
    /// What was spent is to be told with the next tick.
    report: bool,
    /// The ledger does not know it.
    unnamed: bool,
    /// The ledger has answered once.
    told: bool,
    vacant: bool,
}

/// What only leases in use have.
#[derive(Default)]
struct Busy {
    /// Taken, by when, the earliest first.
    flying: SmallVec<[Flight; 2]>,
    /// Spent and not yet told.
    spent: SmallVec<[Spent; 2]>,
    debt: u64,
    /// To be told with the next `Ask`.
    bucket: Option<Arc<Bucket>>,
}

/// Tokens taken in one cell of time.
#[derive(Clone, Copy)]
struct Flight {
    cell: u64,
    tokens: u64,
}

/// How many tokens were taken in this time and in the one before.
#[derive(Clone, Copy, Default)]
struct Rate {
    start_ms: u32,
    now: u32,
    before: u32,
}

/// Most times of which is told apart what was spent in them.
const STAMPS: usize = 96;

impl Lease {
    fn new(want: &Want, bucket: Arc<Bucket>, now_ms: u64) -> Lease {
        let mut lease = Lease {
            id: want.id,
            limit: 0,
            span_ms: 0,
            span: SpanKind::Concurrent,
            tokens: 0,
            open: 0,
            busy: Some(Box::new(Busy { bucket: Some(bucket), ..Busy::default() })),
            fair: 0,
            remaining: want.rule.limit,
            retry_at_ms: 0,
            reset_at_ms: 0,
            low: 0,
            rate: Rate { start_ms: now_ms as u32, now: 0, before: 0 },
            used_ms: now_ms as u32,
            asked_ms: (now_ms as u32).wrapping_sub(limits::LEASE_LOST_MS as u32),
            state: State::Exact,
            mode: want.mode,
            on_store_failure: want.on_store_failure,
            flags: Flags::default(),
        };
        lease.set_rule(want.rule);
        lease
    }

    fn rule(&self) -> Rule {
        let span = match self.span {
            SpanKind::Sliding => Span::Sliding { ms: self.span_ms },
            SpanKind::Until => Span::Until { wall_ms: self.span_ms },
            SpanKind::Concurrent => Span::Concurrent,
        };
        Rule { limit: self.limit, span }
    }

    fn set_rule(&mut self, rule: Rule) {
        self.limit = rule.limit;
        (self.span, self.span_ms) = match rule.span {
            Span::Sliding { ms } => (SpanKind::Sliding, ms),
            Span::Until { wall_ms } => (SpanKind::Until, wall_ms),
            Span::Concurrent => (SpanKind::Concurrent, 0),
        };
    }

    fn busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    fn flying(&self) -> u64 {
        let flying = |busy: &Busy| busy.flying.iter().map(|flight| flight.tokens).sum();
        self.busy.as_deref().map_or(0, flying)
    }

    fn held(&self) -> u64 {
        self.tokens + self.open + self.flying()
    }

    fn is_told(&self) -> bool {
        self.busy.as_deref().is_none_or(|busy| busy.spent.is_empty() && busy.debt == 0)
    }

    /// Whether the ledger was asked so lately that it would say the same.
    fn asked_lately(&self, now_ms: u64) -> bool {
        since(now_ms, self.asked_ms) < limits::LEASE_LOST_MS
    }

    /// Within so long is what is leased used up; it is what is asked for.
    fn ahead_ms(&self) -> u64 {
        match self.rule().span {
            Span::Sliding { ms } => (ms / 8).clamp(1, limits::LEASE_AHEAD_MS),
            Span::Until { .. } | Span::Concurrent => limits::LEASE_AHEAD_MS,
        }
    }

    /// When to tell of what is spent, at the latest.
    fn report_ms(&self) -> u64 {
        match self.rule().span {
            Span::Sliding { ms } => (ms / 16).clamp(1, limits::LEASE_REPORT_MS),
            Span::Until { .. } | Span::Concurrent => 1_000,
        }
    }

    /// How finely it is told apart when requests were let in. A part of the time to reach the upstream.
    fn cell_ms(&self) -> u64 {
        (self.rule().span.reach_ms() / 8).max(1)
    }

    /// When a request of that cell has reached its upstream at the latest.
    fn reached_ms(&self, cell: u64) -> u64 {
        (cell + 1) * self.cell_ms() - 1 + self.rule().span.reach_ms()
    }

    /// What is worth to be held, as far as it is fair.
    fn target(&mut self, now_ms: u64) -> u64 {
        if self.mode == LimitMode::Strict || self.rule().span == Span::Concurrent {
            return 0;
        }
        self.rate.roll(now_ms, self.ahead_ms());
        match u64::from(self.rate.now.max(self.rate.before)) {
            0 | 1 => 0,
            used => (used + used / 2).max(4).min(self.fair),
        }
    }

    fn count(&mut self, cost: u64, now_ms: u64) {
        self.used_ms = now_ms as u32;
        if self.rate.count(cost, now_ms, self.ahead_ms()) {
            self.set_low(now_ms);
        }
    }

    fn set_low(&mut self, now_ms: u64) {
        let low = self.target(now_ms) / 2;
        self.low = u32::try_from(low).unwrap_or(u32::MAX);
    }

    /// Whether to ask for more before it is dry.
    fn is_low(&self, now_ms: u64) -> bool {
        self.tokens < u64::from(self.low)
            && self.flags.told
            && self.retry_at_ms <= now_ms
            && self.held() < self.fair
            && matches!(self.state, State::Exact | State::Share)
    }

    /// What has reached its upstream by now is spent.
    fn mature(&mut self, now_ms: u64) {
        loop {
            let Some(first) = self.busy.as_deref().and_then(|busy| busy.flying.first().copied())
            else {
                return;
            };
            let reached_ms = self.reached_ms(first.cell);
            if reached_ms > now_ms {
                return;
            }
            self.busy().flying.remove(0);
            self.stamp(reached_ms, first.tokens);
        }
    }

    /// Notes what was spent: never as earlier than it was.
    fn stamp(&mut self, at_ms: u64, tokens: u64) {
        if tokens == 0 {
            return;
        }
        let cell_ms = match self.rule().span {
            Span::Sliding { ms } => (ms / 1_024).max(1),
            // Nothing of it ages.
            Span::Until { .. } | Span::Concurrent => u64::MAX,
        };
        let spent = &mut self.busy().spent;
        let full = spent.len() >= STAMPS;
        let same = |one: &&mut Spent| one.at_ms / cell_ms == at_ms / cell_ms;
        let known = match full {
            false => spent.iter_mut().rev().find(same),
            true => spent.iter_mut().max_by_key(|one| one.at_ms),
        };
        match known {
            Some(one) => {
                one.at_ms = one.at_ms.max(at_ms);
                one.tokens += tokens;
            }
            None => spent.push(Spent { at_ms, tokens }),
        }
    }

    /// Takes what a request costs, which is there.
    fn take(&mut self, want: &Want, now_ms: u64) {
        self.tokens -= want.cost;
        self.remaining = self.remaining.saturating_sub(want.cost);
        self.count(want.cost, now_ms);
        match want.until {
            Until::Answered | Until::Ended => self.open += want.cost,
            Until::Reached if self.rule().span.reach_ms() == 0 => self.stamp(now_ms, want.cost),
            Until::Reached => {
                let cell = now_ms / self.cell_ms();
                let flying = &mut self.busy().flying;
                match flying.last_mut() {
                    Some(last) if last.cell == cell => last.tokens += want.cost,
                    _ => flying.push(Flight { cell, tokens: want.cost }),
                }
            }
        }
    }

    fn settle(&mut self, hold: &Hold, actual: Option<u64>, now_ms: u64) {
        match hold.until {
            Until::Reached => {
                let cell = hold.at_ms / self.cell_ms();
                let at_ms = now_ms.min(self.reached_ms(cell));
                let Some(busy) = self.busy.as_deref_mut() else { return };
                // Not there any more: it was spent by then.
                let Some(at) = busy.flying.iter().position(|flight| flight.cell == cell) else {
                    return;
                };
                let Some(flight) = busy.flying.get_mut(at) else { return };
                let tokens = hold.cost.min(flight.tokens);
                flight.tokens -= tokens;
                if flight.tokens == 0 {
                    busy.flying.remove(at);
                }
                self.stamp(at_ms, tokens);
            }
            Until::Answered => {
                self.open = self.open.saturating_sub(hold.cost);
                let actual = actual.unwrap_or(hold.cost);
                self.tokens += hold.cost.saturating_sub(actual);
                let more = actual.saturating_sub(hold.cost);
                let paid = more.min(self.tokens);
                self.tokens -= paid;
                self.stamp(now_ms, actual.min(hold.cost) + paid);
                self.remaining = (self.remaining + hold.cost).saturating_sub(actual);
                if more > paid {
                    let busy = self.busy();
                    busy.debt = busy.debt.saturating_add(more - paid);
                }
            }
            Until::Ended => {}
        }
    }

    fn release(&mut self, hold: &Hold) {
        self.open = self.open.saturating_sub(hold.cost);
        self.tokens += hold.cost;
        self.remaining = (self.remaining + hold.cost).min(self.limit);
    }

    /// Whether nothing keeps it here.
    fn is_idle(&self) -> bool {
        let flying = self.busy.as_deref().is_some_and(|busy| !busy.flying.is_empty());
        !(self.flags.vacant || self.flags.asking || self.open > 0 || flying)
    }
}

impl Rate {
    fn roll(&mut self, now_ms: u64, length_ms: u64) -> bool {
        let passed = since(now_ms, self.start_ms);
        if passed < length_ms {
            return false;
        }
        self.before = if passed < 2 * length_ms { self.now } else { 0 };
        self.now = 0;
        self.start_ms = now_ms as u32;
        true
    }

    /// Whether another time has begun.
    fn count(&mut self, cost: u64, now_ms: u64, length_ms: u64) -> bool {
        let rolled = self.roll(now_ms, length_ms);
        self.now = self.now.saturating_add(u32::try_from(cost).unwrap_or(u32::MAX));
        rolled
    }
}

/// Milliseconds since a time of which the low bits are known.
fn since(now_ms: u64, then_ms: u32) -> u64 {
    (now_ms as u32).wrapping_sub(then_ms).into()
}

/// What a lease says to a want.
enum Verdict {
    Room,
    /// Not limited now.
    Pass,
    Dry,
    Refused(u64),
    Unavailable,
}

impl Leases {
    /// Takes what `wants` say, all of it or nothing; what was taken goes to `holds`, and where each want's
    /// lease is to `places`. `make` says what the bucket of a want is.
    pub fn take(
        &mut self,
        wants: &[Want],
        now_ms: u64,
        mut make: impl FnMut(usize) -> Arc<Bucket>,
        places: &mut Few<u32>,
        holds: &mut Few<Hold>,
    ) -> Outcome {
        places.clear();
        // Bits of those that are passed by.
        let (mut passed, mut dry, mut shared, mut over) = (0u64, false, false, false);
        let (mut refused, mut unavailable) = (None, false);
        for (at, want) in wants.iter().enumerate() {
            let Some(place) = self.place(want, now_ms, || make(at)) else {
                places.push(u32::MAX);
                match want.dry_run {
                    true => passed |= 1 << (at % 64),
                    false => unavailable = true,
                }
                continue;
            };
            places.push(place);
            let verdict = self.verdict(place, want, now_ms);
            match verdict {
                Verdict::Room => {
                    shared |= self.lease(place).is_some_and(|lease| lease.state == State::Share);
                    continue;
                }
                Verdict::Pass => shared = true,
                Verdict::Refused(_) | Verdict::Unavailable if want.dry_run => over = true,
                // It goes on, and the next one will know.
                Verdict::Dry if want.dry_run => self.line_up(place, want.cost, None),
                Verdict::Dry => dry = true,
                Verdict::Unavailable => unavailable = true,
                Verdict::Refused(retry_at_ms) => {
                    if refused.is_none_or(|(_, latest_ms)| latest_ms < retry_at_ms) {
                        refused = Some((at, retry_at_ms));
                    }
                }
            }
            passed |= 1 << (at % 64);
        }
        if let Some((at, retry_at_ms)) = refused {
            return Outcome::Refused { at, retry_at_ms };
        }
        if unavailable {
            return Outcome::Unavailable;
        }
        if dry {
            return Outcome::Dry;
        }
        for (at, (want, &place)) in wants.iter().zip(places.iter()).enumerate() {
            if passed & (1 << (at % 64)) != 0 {
                continue;
            }
            let Some(lease) = self.all.get_mut(place as usize) else { continue };
            lease.take(want, now_ms);
            let Want { id, until, cost, policy, .. } = *want;
            holds.push(Hold { id, place, until, settled: false, policy, cost, at_ms: now_ms });
            let low = lease.tokens < u64::from(lease.low) && !lease.flags.asking;
            let queue = !lease.flags.queued && until != Until::Ended;
            if low && lease.is_low(now_ms) {
                self.mark(place);
            }
            if queue {
                self.queue(place, now_ms);
            }
        }
        Outcome::Taken { shared, over }
    }

    fn lease(&self, place: u32) -> Option<&Lease> {
        self.all.get(place as usize)
    }

    /// The lease of a want, made if need be. `None`: there is no room for it.
    #[inline]
    fn place(
        &mut self,
        want: &Want,
        now_ms: u64,
        make: impl FnOnce() -> Arc<Bucket>,
    ) -> Option<u32> {
        if let Some(&place) = self.table.get(&want.id) {
            let lease = self.all.get_mut(place as usize)?;
            let same = lease.rule() == want.rule
                && lease.mode == want.mode
                && lease.on_store_failure == want.on_store_failure;
            if !same || lease.flags.unnamed {
                lease.flags.unnamed = false;
                lease.set_rule(want.rule);
                lease.mode = want.mode;
                lease.on_store_failure = want.on_store_failure;
                // What was said of it was of another rule.
                lease.retry_at_ms = 0;
                lease.busy().bucket = Some(make());
                self.mark(place);
            }
            return Some(place);
        }
        self.open(want, make(), now_ms)
    }

    #[cold]
    fn open(&mut self, want: &Want, bucket: Arc<Bucket>, now_ms: u64) -> Option<u32> {
        if self.table.len() >= limits::LEASES {
            self.make_room(now_ms);
            if self.table.len() >= limits::LEASES {
                return None;
            }
        }
        let lease = Lease::new(want, bucket, now_ms);
        let place = match self.vacant.pop() {
            Some(place) => {
                *self.all.get_mut(place as usize)? = lease;
                place
            }
            None => {
                self.all.push(lease);
                self.all.len() as u32 - 1
            }
        };
        self.table.insert(want.id, place);
        Some(place)
    }

    #[inline]
    fn verdict(&mut self, place: u32, want: &Want, now_ms: u64) -> Verdict {
        let Some(lease) = self.all.get_mut(place as usize) else { return Verdict::Unavailable };
        if lease.tokens >= want.cost {
            return Verdict::Room;
        }
        lease.used_ms = now_ms as u32;
        match lease.state {
            State::Open => {
                if !lease.asked_lately(now_ms) {
                    // Whether it is over.
                    self.line_up(place, want.cost, None);
                }
                return Verdict::Pass;
            }
            State::Denied if lease.asked_lately(now_ms) => return Verdict::Unavailable,
            _ => {}
        }
        if want.cost > lease.limit {
            // Never.
            let wait_ms = match lease.rule().span {
                Span::Sliding { ms } => ms,
                Span::Until { .. } | Span::Concurrent => 60_000,
            };
            return Verdict::Refused(now_ms + wait_ms);
        }
        match lease.retry_at_ms {
            retry_at_ms if retry_at_ms > now_ms => Verdict::Refused(retry_at_ms),
            _ => Verdict::Dry,
        }
    }

    /// Waits for the wants of which there is too little. `false`: too many wait.
    pub fn wait(
        &mut self,
        wants: &[Want],
        places: &[u32],
        parked: &Rc<Parked>,
        now_ms: u64,
    ) -> bool {
        if self.waiting >= limits::LEASE_WAITERS {
            return false;
        }
        for (want, &place) in wants.iter().zip(places).filter(|(want, _)| !want.dry_run) {
            if let Verdict::Dry = self.verdict(place, want, now_ms) {
                self.line_up(place, want.cost, Some(parked.clone()));
            }
        }
        true
    }

    fn line_up(&mut self, place: u32, cost: u64, parked: Option<Rc<Parked>>) {
        let waiters = self.waiters.entry(place).or_default();
        // One dry run says what all of them would.
        if parked.is_some() || waiters.is_empty() {
            waiters.push(Waiter { cost, parked });
            self.waiting += 1;
        }
        self.mark(place);
    }

    /// Has the next tick look at a lease.
    fn mark(&mut self, place: u32) {
        if let Some(lease) = self.all.get_mut(place as usize)
            && !lease.flags.dirty
        {
            lease.flags.dirty = true;
            self.dirty.push(place);
        }
    }

    fn queue(&mut self, place: u32, now_ms: u64) {
        if let Some(lease) = self.all.get_mut(place as usize)
            && !lease.flags.queued
        {
            lease.flags.queued = true;
            self.due.push(Reverse((now_ms + lease.report_ms(), place)));
        }
    }

    /// The head of the answer came, or there will be none. `actual`: what the answer says that the request
    /// has cost, where it decides.
    pub fn settle(&mut self, hold: &mut Hold, actual: Option<u64>, now_ms: u64) {
        if std::mem::replace(&mut hold.settled, true) {
            return;
        }
        let place = hold.place;
        let Some(lease) = self.all.get_mut(place as usize) else { return };
        // Its place may be another's by now, as what it had was spent long ago.
        if lease.id != hold.id || lease.flags.vacant {
            return;
        }
        lease.settle(hold, actual, now_ms);
        let owes = lease.busy.as_deref().is_some_and(|busy| busy.debt > 0);
        if hold.until != Until::Ended {
            self.queue(place, now_ms);
        }
        if owes {
            self.mark(place);
        }
    }

    /// The request has ended.
    pub fn end(&mut self, hold: &mut Hold, now_ms: u64) {
        self.settle(hold, None, now_ms);
        let Some(lease) = self.all.get_mut(hold.place as usize) else { return };
        if hold.until != Until::Ended || lease.id != hold.id || lease.flags.vacant {
            return;
        }
        lease.release(hold);
        // Once.
        hold.cost = 0;
        lease.used_ms = now_ms as u32;
        if lease.held() > lease.fair {
            self.mark(hold.place);
        }
        self.call(hold.place);
    }

    /// Has whoever waits for a lease try again.
    fn call(&mut self, place: u32) {
        let waiters = self.waiters.remove(&place).unwrap_or_default();
        self.waiting -= waiters.len();
        waiters.iter().filter_map(|waiter| waiter.parked.as_ref()).for_each(|parked| parked.wake());
    }

    /// What the ledger says. Whoever waited for it tries again.
    pub fn told(&mut self, told: &Told, now_ms: u64) {
        let Some(&place) = self.table.get(&told.id) else { return };
        let Some(lease) = self.all.get_mut(place as usize) else { return };
        if told.unknown {
            // It counts for nothing what was held.
            lease.tokens = 0;
            lease.flags.unnamed = true;
            lease.flags.asking &= !told.answers;
            self.call(place);
            return;
        }
        lease.flags.told = true;
        lease.tokens += told.granted;
        lease.fair = if lease.mode == LimitMode::Strict { 0 } else { told.fair };
        lease.remaining = told.remaining.min(lease.limit);
        lease.retry_at_ms = told.retry_at_ms;
        lease.reset_at_ms = told.reset_at_ms;
        lease.state = told.state;
        lease.set_low(now_ms);
        if told.granted > 0 || lease.held() > lease.fair || !told.answers {
            self.mark(place);
        }
        if !told.answers {
            return;
        }
        let Some(lease) = self.all.get_mut(place as usize) else { return };
        lease.flags.asking = false;
        if std::mem::take(&mut lease.flags.needs) && told.granted == 0 {
            // Whoever waited is not to ask again at once.
            lease.retry_at_ms = lease.retry_at_ms.max(now_ms + 1);
        }
        if lease.flags.report {
            self.mark(place);
        }
        self.call(place);
    }

    /// Whether a tick would say something now.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.asks.is_empty()
    }

    /// When time alone will bring something to say.
    pub fn due_ms(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_ms, _))| *due_ms)
    }

    /// What is to be said to the ledger now.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Ask> {
        while let Some(&Reverse((due_ms, place))) = self.due.peek() {
            if due_ms > now_ms {
                break;
            }
            self.due.pop();
            let Some(lease) = self.all.get_mut(place as usize) else { continue };
            lease.flags.queued = false;
            if lease.flags.vacant {
                continue;
            }
            lease.mature(now_ms);
            let busy = lease.busy.as_deref();
            let oldest = busy.and_then(|busy| busy.spent.iter().map(|one| one.at_ms).min());
            let flying = busy.is_some_and(|busy| !busy.flying.is_empty());
            let due_ms = oldest.map(|at_ms| at_ms + lease.report_ms());
            match due_ms {
                Some(due_ms) if due_ms > now_ms => {
                    lease.flags.queued = true;
                    self.due.push(Reverse((due_ms, place)));
                }
                Some(_) => {
                    lease.flags.report = true;
                    self.mark(place);
                    self.queue(place, now_ms);
                }
                None if flying => self.queue(place, now_ms),
                None => {}
            }
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for place in dirty.drain(..) {
            let Some(lease) = self.all.get_mut(place as usize) else { continue };
            lease.flags.dirty = false;
            if !lease.flags.vacant && !lease.flags.asking {
                self.ask(place, now_ms);
            }
        }
        self.dirty = dirty;
        std::mem::take(&mut self.asks)
    }

    /// Asks, if there is anything to say.
    fn ask(&mut self, place: u32, now_ms: u64) {
        let (mut first, mut waiting) = (None, 0u64);
        if let Some(waiters) = self.waiters.get_mut(&place) {
            let before = waiters.len();
            waiters.retain(Waiter::is_there);
            self.waiting -= before - waiters.len();
            first = waiters.first().map(|waiter| waiter.cost);
            waiting = waiters.iter().map(|waiter| waiter.cost).sum();
            if waiters.is_empty() {
                self.waiters.remove(&place);
            }
        }
        let Some(lease) = self.all.get_mut(place as usize) else { return };
        lease.mature(now_ms);
        if lease.flags.unnamed {
            // The ledger would not know what is meant. Whoever comes next says it.
            return;
        }
        if first.is_some_and(|cost| cost <= lease.tokens) {
            // Something has come back meanwhile.
            self.mark(place);
            self.call(place);
            return;
        }
        let need = first.map_or(0, |cost| cost - lease.tokens);
        let waiting = waiting.saturating_sub(lease.tokens);
        let left = if need > 0 { 0 } else { lease.tokens };
        let want = waiting + lease.target(now_ms).saturating_sub(left);
        let named = lease.busy.as_deref().is_some_and(|busy| busy.bucket.is_some());
        // What is given back together with a name would count as spent.
        let surplus = match need {
            0 if lease.flags.told && !named => lease.held().saturating_sub(lease.fair),
            _ => 0,
        };
        let back = surplus.min(lease.tokens);
        let owes = lease.busy.as_deref().is_some_and(|busy| busy.debt > 0);
        let renamed = named && lease.flags.told;
        let low = back == 0 && lease.is_low(now_ms);
        if !(need > 0 || back > 0 || owes || renamed || low || lease.flags.report) {
            return;
        }
        lease.tokens -= back;
        let want = if need > 0 || low { want } else { 0 };
        lease.flags.report = false;
        lease.flags.asking = true;
        lease.flags.needs = need > 0;
        lease.asked_ms = now_ms as u32;
        let (id, hold) = (lease.id, lease.held());
        let busy = lease.busy();
        let ask = Ask {
            id,
            bucket: busy.bucket.take(),
            hold,
            spent: std::mem::take(&mut busy.spent),
            need,
            waiting,
            want,
            debt: std::mem::take(&mut busy.debt),
            last: false,
        };
        self.asks.push(ask);
    }

    /// Looks at a part of the leases: what nobody takes is given back, and then forgotten.
    pub fn sweep(&mut self, now_ms: u64) {
        let part = self.all.len() / 4 + 1;
        self.look(
            part,
            |lease| {
                let idle_ms = since(now_ms, lease.used_ms);
                (idle_ms >= limits::LEASE_RETURN_MS, idle_ms >= limits::LEASE_IDLE_MS)
            },
            now_ms,
        );
    }

    /// Forgets some that nobody uses now.
    fn make_room(&mut self, now_ms: u64) {
        self.look(64, |lease| (true, since(now_ms, lease.used_ms) > 0), now_ms);
    }

    fn look(&mut self, part: usize, judge: impl Fn(&Lease) -> (bool, bool), now_ms: u64) {
        for _ in 0..part.min(self.all.len()) {
            self.hand = (self.hand + 1) % self.all.len();
            let place = self.hand as u32;
            let waits = self.waiters.contains_key(&place);
            let Some(lease) = self.all.get_mut(place as usize) else { continue };
            lease.mature(now_ms);
            if waits || !lease.is_idle() {
                continue;
            }
            let (idle, old) = judge(lease);
            if old {
                self.forget(place);
            } else if idle && lease.tokens > 0 {
                // More than fair: the next tick gives it back.
                lease.fair = 0;
                lease.low = 0;
                self.mark(place);
            } else if idle
                && lease.is_told()
                && lease.busy.as_deref().is_some_and(|b| b.bucket.is_none())
            {
                lease.busy = None;
            }
        }
    }

    /// Gives all back, and says that it is forgotten here.
    fn forget(&mut self, place: u32) {
        let Some(lease) = self.all.get_mut(place as usize) else { return };
        let busy = lease.busy.take().unwrap_or_default();
        let id = lease.id;
        // One that was never asked about is not known.
        if lease.flags.told {
            self.asks.push(Ask {
                id,
                bucket: None,
                hold: 0,
                spent: busy.spent,
                need: 0,
                waiting: 0,
                want: 0,
                debt: busy.debt,
                last: true,
            });
        }
        lease.tokens = 0;
        lease.flags = Flags {
            vacant: true,
            queued: lease.flags.queued,
            dirty: lease.flags.dirty,
            ..Flags::default()
        };
        self.table.remove(&id);
        self.vacant.push(place);
    }

    /// How a bucket stands, where its lease is known.
    pub fn standing(&self, place: u32, now_ms: u64) -> Option<Standing> {
        let lease = self.lease(place)?;
        let reset_at_ms = match lease.rule().span {
            // What is spent now will be the first to leave.
            Span::Sliding { ms } if lease.reset_at_ms <= now_ms => now_ms + ms,
            _ => lease.reset_at_ms,
        };
        Some(Standing { remaining: lease.remaining, reset_at_ms })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

#[cfg(test)]
mod tests;
