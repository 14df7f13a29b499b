//! What the shards of a node know together of upstreams and targets.
//!
//! All of it is atomics behind an `Arc` that shards find when they adopt a plan. What changes with
//! every request has a slot for each shard, which that shard alone writes; readers add them up. What
//! changes with failures only is one word for all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use contract::snapshot::{HealthCheck, HealthKind, Outlier};
use contract::targets::{self, Cause, TargetEntry, Targets};

use super::Verdict;
use super::adaptive::Adaptive;
use super::breaker::BreakerState;
use super::ejection::Ejection;
use super::fleet::{self, Totals};
use super::health::{Change, Health, Key};
use super::window::add;
use crate::limits;

/// What the node knows of its upstreams. Lives as long as the engine's process; what no plan has any
/// more is forgotten.
#[derive(Default)]
pub struct Book {
    shards: u16,
    /// Where control reads what is known.
    table: Option<Targets>,
    targets: Mutex<HashMap<Key, Weak<TargetState>>>,
    upstreams: Mutex<HashMap<Box<str>, Weak<Shared>>>,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").field("shards", &self.shards).finish_non_exhaustive()
    }
}

impl Book {
    /// Of a node with so many shards; `table` is emptied.
    pub fn new(shards: u16, table: Option<Targets>) -> Book {
        table.iter().for_each(Targets::clear);
        Book { shards, table, ..Book::default() }
    }

    /// The state of a target, which other shards and other plans have as well. For a shard that
    /// adopts a plan: it locks.
    pub fn target(&self, key: &Key) -> Arc<TargetState> {
        let entry = || self.claim(&key.0, Some(key.1));
        find(&self.targets, key, || TargetState::new(self.shards, entry()))
    }

    /// The state of an upstream as a whole; as [`Book::target`].
    pub fn upstream(&self, name: &str) -> Arc<Shared> {
        let key: Box<str> = name.into();
        find(&self.upstreams, &key, || Shared::new(self.shards, self.claim(name, None)))
    }

    fn claim(&self, upstream: &str, target: Option<SocketAddr>) -> Option<TargetEntry> {
        self.table.as_ref()?.claim(targets::key(upstream, target))
    }
}

fn find<K, V>(known: &Mutex<HashMap<K, Weak<V>>>, key: &K, fresh: impl FnOnce() -> V) -> Arc<V>
where
    K: Clone + Eq + std::hash::Hash,
{
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(state) = known.get(key).and_then(Weak::upgrade) {
        return state;
    }
    // Seldom: each look at all of them pays for as many new ones.
    if known.len() == known.capacity() {
        known.retain(|_, state| state.strong_count() > 0);
    }
    let fresh = Arc::new(fresh());
    known.insert(key.clone(), Arc::downgrade(&fresh));
    fresh
}

/// What is known of one target.
#[derive(Debug)]
pub struct TargetState {
    pub health: Health,
    pub ejection: Ejection,
    pub breaker: BreakerState,
    /// Answers of 5xx in a row, and failures of a gateway's kind.
    run_5xx: AtomicU32,
    run_gateway: AtomicU32,
    /// Connections in a row that had gone stale.
    run_stale: AtomicU32,
    /// Requests there, of all shards, where the balance or a bound asks for that.
    pub in_flight: AtomicU32,
    /// Requests that wait for a connection to it.
    pub pending: Arc<AtomicU32>,
    slots: Box<[Slot]>,
    /// What it was compared with its fleet by last.
    compared: Slot,
    pub entry: Option<TargetEntry>,
}

/// What one shard has seen of a target, ever.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    requests: AtomicU64,
    errors: AtomicU64,
    latency_us: AtomicU64,
}

impl Slot {
    fn totals(&self) -> Totals {
        Totals {
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            latency_us: self.latency_us.load(Ordering::Relaxed),
        }
    }

    fn set(&self, totals: Totals) {
        self.requests.store(totals.requests, Ordering::Relaxed);
        self.errors.store(totals.errors, Ordering::Relaxed);
        self.latency_us.store(totals.latency_us, Ordering::Relaxed);
    }
}

impl TargetState {
    pub fn new(shards: u16, entry: Option<TargetEntry>) -> TargetState {
        TargetState {
            health: Health::default(),
            ejection: Ejection::default(),
            breaker: BreakerState::new(shards),
            run_5xx: AtomicU32::new(0),
            run_gateway: AtomicU32::new(0),
            run_stale: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            pending: Arc::default(),
            slots: (0..shards).map(|_| Slot::default()).collect(),
            compared: Slot::default(),
            entry,
        }
    }

    /// Counts a finished request.
    #[inline]
    pub fn count(&self, shard: usize, error: bool, latency_us: u32) {
        let Some(slot) = self.slots.get(shard) else { return };
        let before = slot.totals();
        slot.set(Totals {
            requests: before.requests.wrapping_add(1),
            errors: before.errors.wrapping_add(error.into()),
            latency_us: before.latency_us.wrapping_add(latency_us.into()),
        });
    }

    /// What all shards have counted.
    fn totals(&self) -> Totals {
        self.slots.iter().map(Slot::totals).fold(Totals::default(), |sum, slot| Totals {
            requests: sum.requests.wrapping_add(slot.requests),
            errors: sum.errors.wrapping_add(slot.errors),
            latency_us: sum.latency_us.wrapping_add(slot.latency_us),
        })
    }

    /// What has been counted since this was asked last. For one caller at a time.
    pub fn news(&self) -> Totals {
        let totals = self.totals();
        let news = totals.since(self.compared.totals());
        self.compared.set(totals);
        news
    }

    /// A request went well.
    #[inline]
    pub fn well(&self) {
        for run in [&self.run_5xx, &self.run_gateway, &self.run_stale] {
            if run.load(Ordering::Relaxed) != 0 {
                run.store(0, Ordering::Relaxed);
            }
        }
    }

    /// A connection had gone stale. More of them in a row than idle peers explain, without an answer
    /// between, are failures.
    #[cold]
    pub fn stale(&self) -> Verdict {
        let run = self.run_stale.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if run > limits::STALE_RESETS { Verdict::Gateway } else { Verdict::Nothing }
    }

    /// A request failed, at a gateway's fault or not. Returns why the target is to be ejected, if so.
    #[cold]
    pub fn failed(&self, gateway: bool, settings: &Outlier) -> Option<Cause> {
        let reaches = |run: u32, bound: u32| bound > 0 && run >= bound;
        let run_5xx = self.run_5xx.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let run_gateway = match gateway {
            true => self.run_gateway.fetch_add(1, Ordering::Relaxed).saturating_add(1),
            false => {
                self.run_gateway.store(0, Ordering::Relaxed);
                0
            }
        };
        if reaches(run_gateway, settings.consecutive_gateway) {
            return Some(Cause::ConsecutiveGateway);
        }
        reaches(run_5xx, settings.consecutive_5xx).then_some(Cause::Consecutive5xx)
    }

    /// Takes the result of a check. One that asked for an answer and got it ends an ejection; a target that was down comes
    /// back slowly.
    pub fn checked(&self, success: bool, check: &HealthCheck, now_ms: u64) -> Option<Change> {
        let change = self.health.note(success, check);
        // That connections can be opened says nothing about answers.
        if success && check.kind != HealthKind::Tcp {
            self.ejection.readmit(now_ms);
        }
        if change == Some(Change::Recovered) {
            self.well();
            self.ejection.come_back(now_ms);
        }
        change
    }
}

/// What is known of an upstream as a whole.
#[derive(Debug)]
pub struct Shared {
    pub breaker: BreakerState,
    pub adaptive: Adaptive,
    /// Requests in flight by shard.
    active: Box<[Active]>,
    /// The same of all shards, where a bound asks for it.
    pub bounded: AtomicU32,
    /// Requests that wait for a connection.
    pub pending: Arc<AtomicU32>,
    /// Retries and hedges under way.
    pub retries: AtomicU32,
    /// Someone is ejecting: the share of the ejected is judged by one at a time.
    ejecting: AtomicBool,
    /// When its targets were compared with each other last; 0: never.
    compared_ms: AtomicU64,
    pub entry: Option<TargetEntry>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Active(AtomicU32);

impl Shared {
    pub fn new(shards: u16, entry: Option<TargetEntry>) -> Shared {
        Shared {
            breaker: BreakerState::new(shards),
            adaptive: Adaptive::default(),
            active: (0..shards).map(|_| Active::default()).collect(),
            bounded: AtomicU32::new(0),
            pending: Arc::default(),
            retries: AtomicU32::new(0),
            ejecting: AtomicBool::new(false),
            compared_ms: AtomicU64::new(0),
            entry,
        }
    }

    /// A request begins, or ends, on this shard.
    #[inline]
    pub fn begin(&self, shard: usize) {
        if let Some(active) = self.active.get(shard) {
            add(&active.0, 1);
        }
    }

    #[inline]
    pub fn end(&self, shard: usize) {
        if let Some(active) = self.active.get(shard) {
            add(&active.0, u32::MAX);
        }
    }

    /// Requests in flight on the node.
    pub fn active(&self) -> u32 {
        let all = self.active.iter().map(|active| active.0.load(Ordering::Relaxed));
        all.fold(0, u32::wrapping_add)
    }

    /// Requests in flight on this shard.
    #[inline]
    pub fn active_here(&self, shard: usize) -> u32 {
        self.active.get(shard).map_or(0, |active| active.0.load(Ordering::Relaxed))
    }

    /// Compares `targets` with each other, if it is time, and ejects who stands out. For the shard
    /// that the upstream falls to. What is counted is kept here, over all plans: an interval may see
    /// several of them.
    pub fn compare(&self, targets: &[Arc<TargetState>], settings: &Outlier, now_ms: u64) {
        let last_ms = self.compared_ms.load(Ordering::Relaxed);
        let since_ms = now_ms.saturating_sub(last_ms);
        if last_ms != 0 && since_ms < u64::from(settings.interval_ms) {
            return;
        }
        self.compared_ms.store(now_ms.max(1), Ordering::Relaxed);
        let period: Vec<Totals> = targets.iter().map(|target| target.news()).collect();
        if last_ms == 0 {
            return;
        }
        for (at, cause) in fleet::outliers(&period, settings) {
            self.eject(targets, at, cause, settings, now_ms);
        }
    }

    /// Ejects one of `targets`, as far as the largest share allows it. Who comes while another is
    /// about it does nothing: the next failure tries again.
    #[cold]
    pub fn eject(
        &self,
        targets: &[Arc<TargetState>],
        at: usize,
        cause: Cause,
        settings: &Outlier,
        now_ms: u64,
    ) {
        let free = self.ejecting.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed);
        if free.is_err() {
            return;
        }
        let out = targets.iter().filter(|target| target.ejection.is_out(now_ms)).count();
        let most = targets.len() * usize::from(settings.max_ejected_percent) / 100;
        if let Some(target) = targets.get(at)
            && targets.len() > 1
            && out < most.max(1)
            && target.ejection.eject(cause, settings, now_ms)
        {
            target.well();
        }
        self.ejecting.store(false, Ordering::Release);
    }
}
