//! What a shard holds of each bucket. A request takes a token of each of its buckets, or of none.
//!
//! **What was granted is held, under way, spent and not yet told, or told**: nothing here makes a token.
//! One that is taken is *flying* until its upstream surely has the request: then it is spent, at that
//! time. What is taken for as long as a request lasts, or until its answer says what it has cost, is
//! *open*: it counts as held.
//!
//! No clock, no I/O: what is to be said to the ledger comes out of [`Leases::tick`], which is called
//! after those that were woken together have had their turn, so that one question is for all of them.

mod entry;
mod waiter;
mod want;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use contract::snapshot::LimitMode;
use smallvec::SmallVec;

use self::entry::{Busy, Flags, Lease, since};
pub use self::waiter::Parked;
use self::waiter::{Part, Waiters};
pub use self::want::{Few, Hold, Outcome, Standing, Until, Want};
use super::messages::{Ask, Bucket, BucketId, State, Told};
use super::rule::Span;
use crate::limits;

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
    waiters: HashMap<u32, Waiters>,
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
    /// lease is to `places`. `make` says what the bucket of a want is. `patient`: it would wait.
    pub fn take(
        &mut self,
        wants: &[Want],
        patient: bool,
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
                Verdict::Dry if want.dry_run && !patient => {}
                // Also for a dry run, which is to tell how it would be.
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
                let old = self.all.get_mut(place as usize)?;
                let Flags { queued, dirty, .. } = old.flags;
                *old = lease;
                // Its place may be in the lists still.
                old.flags = Flags { queued, dirty, ..Flags::default() };
                place
            }
            None => {
                if self.all.len() == self.all.capacity() {
                    // Twice as many would be megabytes that nothing uses.
                    self.all.reserve_exact((self.all.len() / 4).max(64));
                }
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
        // Nor will it have to make room for another one of the same request.
        lease.used_ms = now_ms as u32;
        if lease.tokens >= want.cost {
            return Verdict::Room;
        }
        match lease.state {
            State::Open => {
                if !lease.asked_lately(now_ms) {
                    // Whether it is over.
                    self.line_up(place, want.cost, Part::Lacks, None);
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
            // Less may be there than who was refused has needed.
            retry_at_ms
                if retry_at_ms > now_ms && want.cost - lease.tokens >= lease.need.into() =>
            {
                Verdict::Refused(retry_at_ms)
            }
            _ => Verdict::Dry,
        }
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
        lease.flags.recalled |= !told.answers;
        lease.set_low(now_ms);
        if told.granted > 0 || lease.held() > lease.fair || !told.answers {
            self.mark(place);
        }
        if !told.answers {
            return;
        }
        let Some(lease) = self.all.get_mut(place as usize) else { return };
        lease.flags.asking = false;
        if told.granted > 0 {
            lease.need = 0;
        } else if lease.need > 0 {
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
        let waiters = self.waiters.get(&place);
        let mut lacking = waiters.and_then(Waiters::lacking);
        // Something has come back meanwhile.
        let called =
            self.lease(place).is_some_and(|lease| lacking.is_some_and(|l| l.0 <= lease.tokens));
        if called {
            self.call(place);
            lacking = None;
        }
        let recalled = self.lease(place).is_some_and(|lease| lease.flags.recalled);
        let kept = self.waiters.get(&place).map_or(0, |waiters| waiters.kept(recalled));
        let Some(lease) = self.all.get_mut(place as usize) else { return };
        lease.mature(now_ms);
        if lease.flags.unnamed {
            // The ledger would not know what is meant. Whoever comes next says it.
            return;
        }
        let need = lacking.map_or(0, |(first, _)| first - lease.tokens);
        let waiting = lacking.map_or(0, |(_, all)| all - lease.tokens);
        let left = if need > 0 { 0 } else { lease.tokens };
        let want = waiting + lease.target(now_ms).saturating_sub(left);
        let named = lease.busy.as_deref().is_some_and(|busy| busy.bucket.is_some());
        // What is given back together with a name would count as spent.
        let surplus = match need {
            0 if lease.flags.told && !named => lease.held().saturating_sub(lease.fair),
            _ => 0,
        };
        let back = surplus.min(lease.tokens.saturating_sub(kept));
        let owes = lease.busy.as_deref().is_some_and(|busy| busy.debt > 0);
        let renamed = named && lease.flags.told;
        let low = back == 0 && lease.is_low(now_ms);
        if !(need > 0 || back > 0 || owes || renamed || low || lease.flags.report) {
            return;
        }
        lease.tokens -= back;
        let want = if need > 0 || low { want } else { 0 };
        (lease.flags.report, lease.flags.recalled) = (false, false);
        lease.flags.asking = true;
        lease.need = u32::try_from(need).unwrap_or(u32::MAX);
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

    /// The shard ends: what it says last. Only what requests still have is held then.
    pub fn leave(&mut self, now_ms: u64) -> Vec<Ask> {
        self.asks.clear();
        for lease in self.all.iter_mut().filter(|lease| !lease.flags.vacant && lease.flags.told) {
            lease.mature(now_ms);
            lease.tokens = 0;
            let (id, hold) = (lease.id, lease.held());
            let Busy { spent, debt, .. } = std::mem::take(lease.busy());
            self.asks.push(Ask { hold, spent, debt, ..last(id) });
        }
        let asks = std::mem::take(&mut self.asks);
        *self = Leases::default();
        asks
    }

    /// Gives all back, and says that it is forgotten here.
    fn forget(&mut self, place: u32) {
        let Some(lease) = self.all.get_mut(place as usize) else { return };
        let busy = lease.busy.take().unwrap_or_default();
        let id = lease.id;
        // One that was never asked about is not known.
        if lease.flags.told {
            self.asks.push(Ask { spent: busy.spent, debt: busy.debt, ..last(id) });
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

    /// Of all leases.
    #[cfg(test)]
    pub fn held(&self) -> u64 {
        self.all.iter().filter(|lease| !lease.flags.vacant).map(Lease::held).sum()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

/// Nothing is held of a bucket any more, nor wanted.
fn last(id: BucketId) -> Ask {
    let spent = SmallVec::new();
    Ask { id, bucket: None, hold: 0, spent, need: 0, waiting: 0, want: 0, debt: 0, last: true }
}

#[cfg(test)]
mod tests;
