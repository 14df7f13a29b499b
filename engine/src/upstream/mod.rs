//! Upstreams as one shard sees them: who is next, over which connection, and whether at all.
//!
//! `UpstreamState` is of one shard and one plan. Behind it stands what the node's shards know
//! together (`book.rs`). Time is an argument and chance comes from the caller, so that all of it can be
//! simulated.

mod adaptive;
pub mod balance;
mod bearer;
pub mod book;
mod breaker;
mod ejection;
mod fleet;
pub mod hash_key;
pub(crate) mod health;
mod latency;
pub mod pool;
mod report;
pub mod selection;
mod shared;
pub mod standing;
mod tally;
#[cfg(test)]
mod tests;
mod window;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use contract::snapshot::{AdaptiveConcurrency, Balance, Bounds, Breaker, Outlier, RetryBudget};

use adaptive::Sample;
use balance::Balancer;
use bearer::Bearer;
use book::{Shared, TargetState};
use breaker::Pass;
use latency::{Histogram, PeakEwma};
use pool::{Pool, Queue};
use selection::Fleet;
use standing::Standing;

use crate::plan::Upstream;

/// A failure is no quick answer: for the balancer it took at least this long, in microseconds, so that
/// a target that fails at once does not look like the fastest.
const FAILURE_US: u32 = 100_000;

/// One upstream's state on one shard, for one plan. Pools outlive it: the shard hands the same
/// pool to the next plan's state of the same upstream and target.
pub struct UpstreamState {
    settings: Settings,
    shard: usize,
    balancer: RefCell<Balancer>,
    pub pools: Vec<Rc<Pool>>,
    /// By target, as all shards know it.
    pub(crate) targets: Vec<Arc<TargetState>>,
    /// The upstream as a whole, as all shards know it.
    pub(crate) node: Arc<Shared>,
    /// By target, of this shard: requests there now, and how long they take.
    loads: Box<[Load]>,
    /// What requests carry in place of the client's credential.
    bearer: Option<Bearer>,
    recent: RefCell<Histogram>,
    sample: Cell<Sample>,
    /// How far the wall clock is ahead of ours, once it was told.
    wall_ahead_ms: Cell<Option<u64>>,
}

#[derive(Default)]
struct Load {
    weight: u32,
    in_flight: Cell<u32>,
    /// Of those, how many control was told of.
    told: Cell<u32>,
    latency: Cell<PeakEwma>,
}

/// What the plan says of it.
#[derive(Clone, Copy)]
struct Settings {
    /// The balance goes by the requests of the node, not of the shard.
    counts_node: bool,
    weight: u64,
    /// Its targets are checked.
    checked: bool,
    min_live_percent: u8,
    bounds: Bounds,
    target_bounds: Bounds,
    breaker: Option<Breaker>,
    target_breaker: Option<Breaker>,
    outlier: Option<Outlier>,
    concurrency: Option<AdaptiveConcurrency>,
    retry_budget: RetryBudget,
}

impl Settings {
    fn of(upstream: &Upstream) -> Settings {
        let counts = matches!(upstream.balance, Balance::LeastConnections | Balance::Hash { .. });
        Settings {
            counts_node: counts || upstream.target_bounds.max_requests > 0,
            weight: upstream.targets.iter().map(|target| u64::from(target.weight)).sum(),
            checked: upstream.health.is_some(),
            min_live_percent: upstream.min_live_percent,
            bounds: upstream.bounds,
            target_bounds: upstream.target_bounds,
            breaker: upstream.breaker,
            target_breaker: upstream.target_breaker,
            outlier: upstream.outlier,
            concurrency: upstream.concurrency,
            retry_budget: upstream.retry_budget,
        }
    }

    /// Requests are counted over the node, for a bound.
    fn is_bounded(&self) -> bool {
        self.bounds.max_requests > 0 || self.concurrency.is_some()
    }
}

impl UpstreamState {
    /// `upstream`'s state on the shard of that number.
    pub(crate) fn new(
        upstream: &Upstream,
        shard: u16,
        pools: Vec<Rc<Pool>>,
        targets: Vec<Arc<TargetState>>,
        node: Arc<Shared>,
    ) -> Rc<UpstreamState> {
        let settings = Settings::of(upstream);
        let (most, own) = (settings.bounds.max_pending, settings.target_bounds.max_pending);
        for (pool, target) in pools.iter().zip(&targets) {
            pool.bound_queue((most > 0 || own > 0).then(|| Queue {
                target: (target.pending.clone(), own),
                upstream: (node.pending.clone(), most),
            }));
        }
        Rc::new(UpstreamState {
            settings,
            shard: shard.into(),
            balancer: RefCell::new(Balancer::new(upstream)),
            loads: upstream
                .targets
                .iter()
                .map(|target| Load { weight: target.weight, ..Load::default() })
                .collect(),
            pools,
            targets,
            node,
            bearer: upstream.credentials.clone().map(Bearer::new),
            recent: RefCell::default(),
            sample: Cell::default(),
            wall_ahead_ms: Cell::default(),
        })
    }

    /// The token that requests carry, where the plan says so.
    #[inline]
    pub(crate) fn bearer(&self) -> Option<&Bearer> {
        self.bearer.as_ref()
    }

    /// Counts a request at the upstream from now until the guard is dropped.
    ///
    /// # Errors
    /// The upstream takes no request now.
    #[inline]
    pub fn admit(self: &Rc<Self>, now_ms: u64) -> Result<Admitted, Refusal> {
        let settings = &self.settings;
        let floor = u32::from(settings.min_live_percent) * 10;
        if floor > 0 && !self.targets.is_empty() && self.live_permille(now_ms) < floor {
            return Err(Refusal::BelowFloor);
        }
        let bounded = settings.is_bounded();
        if bounded {
            // Counted first: what two shards ask for at once, one of them gets.
            let before = self.node.bounded.fetch_add(1, Ordering::AcqRel);
            let refusal =
                if settings.bounds.max_requests > 0 && before >= settings.bounds.max_requests {
                    Some(Refusal::Bound)
                } else {
                    let full = |adaptive| before >= self.node.adaptive.limit(adaptive);
                    settings.concurrency.as_ref().is_some_and(full).then_some(Refusal::Adaptive)
                };
            if let Some(refusal) = refusal {
                self.node.bounded.fetch_sub(1, Ordering::AcqRel);
                return Err(refusal);
            }
        }
        // Last: a probe that is then refused elsewhere would be lost.
        let pass = match &settings.breaker {
            None => Pass::Free,
            Some(breaker) => self.node.breaker.take(breaker, now_ms),
        };
        if pass == Pass::No {
            if bounded {
                self.node.bounded.fetch_sub(1, Ordering::AcqRel);
            }
            return Err(Refusal::BreakerOpen);
        }
        self.node.begin(self.shard);
        Ok(Admitted { upstream: self.clone(), bounded, pass: Cell::new(pass) })
    }

    /// The next target: usable, and none of those that were tried unless nothing else is.
    ///
    /// # Errors
    /// No target may be used.
    #[inline]
    pub fn pick(self: &Rc<Self>, ask: &Ask<'_>) -> Result<InFlight, Refusal> {
        let seen = Seen { upstream: self, now_ms: ask.now_ms };
        // Another shard may take a target's last place between look and grasp: then another target
        // is looked for, which cannot go on for longer than there are targets unless places come back.
        for _ in 0..=self.targets.len() {
            let Some(index) = self.balancer.borrow_mut().pick(&seen, ask) else { break };
            if let Some(flight) = self.take(index, ask.now_ms) {
                return Ok(flight);
            }
        }
        Err(self.why_none(ask.now_ms))
    }

    /// Another target than the one at `index`, however well that stands.
    pub fn pick_other(self: &Rc<Self>, index: usize, ask: &Ask<'_>) -> Option<InFlight> {
        let flight = self.pick(&Ask { tried: &[index], ..*ask }).ok()?;
        (flight.index != index).then_some(flight)
    }

    /// Counts a request at a target; `None`: it takes none any more.
    #[inline]
    fn take(self: &Rc<Self>, index: usize, now_ms: u64) -> Option<InFlight> {
        let (load, target) = (self.loads.get(index)?, self.targets.get(index)?);
        let counted = self.settings.counts_node;
        if counted {
            // Counted first: what two shards ask for at once, one of them gets.
            let before = target.in_flight.fetch_add(1, Ordering::AcqRel);
            let most = self.settings.target_bounds.max_requests;
            if most > 0 && before >= most {
                target.in_flight.fetch_sub(1, Ordering::AcqRel);
                return None;
            }
        }
        let pass = match &self.settings.target_breaker {
            None => Pass::Free,
            Some(breaker) => target.breaker.take(breaker, now_ms),
        };
        if pass == Pass::No {
            if counted {
                target.in_flight.fetch_sub(1, Ordering::AcqRel);
            }
            return None;
        }
        load.in_flight.set(load.in_flight.get() + 1);
        Some(InFlight { upstream: self.clone(), index, counted, pass: Cell::new(pass) })
    }

    /// Why no target may be used.
    #[cold]
    fn why_none(&self, now_ms: u64) -> Refusal {
        let healthy = || self.targets.iter().filter(|target| self.is_up(target));
        let open = |target: &Arc<TargetState>| {
            let breaker = self.settings.target_breaker.as_ref();
            breaker.is_some_and(|breaker| !target.breaker.admits(breaker, now_ms))
        };
        if healthy().any(|target| !open(target) && self.is_full(target)) {
            Refusal::Bound
        } else if healthy().any(open) {
            Refusal::BreakerOpen
        } else {
            Refusal::NoTarget
        }
    }

    fn is_full(&self, target: &TargetState) -> bool {
        let most = self.settings.target_bounds.max_requests;
        most > 0 && target.in_flight.load(Ordering::Relaxed) >= most
    }

    /// How a target stands.
    #[inline]
    fn standing(&self, at: usize, now_ms: u64) -> Standing {
        match self.targets.get(at) {
            Some(target) if !self.is_full(target) => self.health(target, now_ms),
            _ => Standing::Unusable,
        }
    }

    /// The same, however much it has to do.
    #[inline]
    fn health(&self, target: &TargetState, now_ms: u64) -> Standing {
        let settings = &self.settings;
        if !self.is_up(target) {
            return Standing::Unusable;
        }
        if let Some(breaker) = &settings.target_breaker
            && !target.breaker.admits(breaker, now_ms)
        {
            return Standing::Unusable;
        }
        let share = match &settings.outlier {
            None => Some(1_000),
            Some(outlier) => target.ejection.share(outlier, now_ms),
        };
        share.map_or(Standing::Ejected, Standing::Usable)
    }

    /// What checks say. Without checks, what they have said once is not heeded: nothing would mend it.
    #[inline]
    fn is_up(&self, target: &TargetState) -> bool {
        !self.settings.checked || target.health.is_usable()
    }

    /// The share of the weight that is alive, in thousandths. Who has enough to do is alive.
    fn live_permille(&self, now_ms: u64) -> u32 {
        let alive = |target| matches!(self.health(target, now_ms), Standing::Usable(_));
        let loads = self.loads.iter().zip(&self.targets);
        let weights = loads.filter(|(_, target)| alive(target)).map(|(load, _)| load.weight);
        let live: u64 = weights.map(u64::from).sum();
        (live * 1_000 / self.settings.weight.max(1)) as u32
    }

    /// The right to make one try more, of the upstream's retry budget.
    pub fn retry_permit(self: &Rc<Self>) -> Option<RetryPermit> {
        let budget = &self.settings.retry_budget;
        let share = u64::from(self.node.active()) * u64::from(budget.percent) / 100;
        let most = u64::from(budget.min).max(share);
        let more = |retries: u32| (u64::from(retries) < most).then_some(retries + 1);
        self.node.retries.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).ok()?;
        Some(RetryPermit { upstream: self.clone() })
    }

    /// A quantile of this shard's recent latencies at this upstream, in microseconds; `None`: too
    /// few were seen.
    pub fn latency_quantile(&self, permille: u16) -> Option<u32> {
        self.recent.borrow().quantile(permille)
    }

    #[inline]
    fn judge(&self, at: usize, pass: Pass, verdict: Verdict, latency_us: u32, now_ms: u64) {
        let (Some(target), Some(load)) = (self.targets.get(at), self.loads.get(at)) else { return };
        let verdict = match verdict {
            Verdict::Stale => target.stale(),
            verdict => verdict,
        };
        if let Some(breaker) = &self.settings.target_breaker {
            target.breaker.note(pass, verdict, latency_us, breaker, self.shard, now_ms);
        } else {
            target.breaker.release(pass);
        }
        let failed = match verdict {
            Verdict::Nothing | Verdict::Stale => return,
            Verdict::Good => false,
            Verdict::ServerError | Verdict::Gateway => true,
        };
        target.count(self.shard, failed, latency_us);
        let mut latency = load.latency.get();
        latency.observe(if failed { latency_us.max(FAILURE_US) } else { latency_us }, now_ms);
        load.latency.set(latency);
        if !failed {
            self.recent.borrow_mut().record(latency_us);
            target.well();
        } else if let Some(outlier) = &self.settings.outlier
            && let Some(cause) = target.failed(verdict == Verdict::Gateway, outlier)
        {
            self.node.eject(&self.targets, at, cause, outlier, now_ms);
        }
        if failed || pass == Pass::Probe {
            self.tell_target(at, now_ms);
        }
    }
}

/// What the balancer sees of the targets.
struct Seen<'a> {
    upstream: &'a UpstreamState,
    now_ms: u64,
}

impl Fleet for Seen<'_> {
    #[inline]
    fn standing(&self, at: usize) -> Standing {
        self.upstream.standing(at, self.now_ms)
    }

    /// Of the node where the balance goes by that. Power of two looks at its shard's: its word for
    /// word count would be a cache line fought for with every request.
    #[inline]
    fn in_flight(&self, at: usize) -> u32 {
        match self.upstream.settings.counts_node {
            true => {
                self.upstream.targets.get(at).map_or(0, |t| t.in_flight.load(Ordering::Relaxed))
            }
            false => self.upstream.loads.get(at).map_or(0, |load| load.in_flight.get()),
        }
    }

    fn total_in_flight(&self) -> u32 {
        (0..self.upstream.targets.len()).map(|at| self.in_flight(at)).sum()
    }

    #[inline]
    fn latency_us(&self, at: usize) -> u32 {
        self.upstream.loads.get(at).map_or(0, |load| load.latency.get().now_us(self.now_ms))
    }
}

/// What a pick goes by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Targets that this request has failed at, the latest last.
    pub tried: &'a [usize],
    /// What a consistent hash goes by.
    pub hash: Option<u64>,
    /// Any word.
    pub random: u64,
    pub now_ms: u64,
}

/// How a try, or a request as a whole, went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// A 5xx of the upstream's that is not one of a gateway.
    ServerError,
    /// No connection, reset, time-out, invalid answer, 502, 503 or 504.
    Gateway,
    /// It says nothing about the upstream: the client went away, say.
    Nothing,
    /// A connection that had served before ended before any byte of an answer. Its peer may have
    /// closed it for being idle, so it says nothing of the target, but for one that does so too often.
    Stale,
}

/// Why an upstream takes no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no target that may be used.
    NoTarget,
    /// Too little of it is alive to bear the load.
    BelowFloor,
    BreakerOpen,
    /// As many requests as it may have.
    Bound,
    /// As many as it can bear, as far as latencies tell.
    Adaptive,
}

/// A request at an upstream, counted until this is dropped.
pub struct Admitted {
    upstream: Rc<UpstreamState>,
    bounded: bool,
    /// Given back once.
    pass: Cell<Pass>,
}

impl Admitted {
    /// Says how the request went. At most once.
    pub fn finish(&self, verdict: Verdict, latency_us: u32, now_ms: u64) {
        let (upstream, pass) = (&self.upstream, self.pass.replace(Pass::Free));
        let settings = &upstream.settings;
        // Of a target only.
        let verdict = if verdict == Verdict::Stale { Verdict::Nothing } else { verdict };
        match &settings.breaker {
            Some(breaker) => {
                let shard = upstream.shard;
                upstream.node.breaker.note(pass, verdict, latency_us, breaker, shard, now_ms);
                if verdict != Verdict::Good || pass == Pass::Probe {
                    upstream.tell_breaker(now_ms);
                }
            }
            None => upstream.node.breaker.release(pass),
        }
        let measures = |latency_us| match verdict {
            Verdict::Good => true,
            Verdict::Nothing | Verdict::Stale => false,
            Verdict::ServerError | Verdict::Gateway => {
                upstream.node.adaptive.heeds_failure(latency_us)
            }
        };
        if let Some(adaptive) = &settings.concurrency
            && measures(latency_us)
        {
            let mut sample = upstream.sample.get();
            let active = upstream.node.bounded.load(Ordering::Relaxed);
            upstream.node.adaptive.note(&mut sample, latency_us, active, adaptive, now_ms);
            upstream.sample.set(sample);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let node = &self.upstream.node;
        node.breaker.release(self.pass.get());
        node.end(self.upstream.shard);
        if self.bounded {
            node.bounded.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// A retry or hedge under way, counted until this is dropped.
pub struct RetryPermit {
    upstream: Rc<UpstreamState>,
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.upstream.node.retries.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request at a target, counted until this is dropped.
pub struct InFlight {
    upstream: Rc<UpstreamState>,
    pub index: usize,
    counted: bool,
    /// Given back once.
    pass: Cell<Pass>,
}

impl InFlight {
    pub fn pool(&self) -> &Rc<Pool> {
        &self.upstream.pools[self.index]
    }

    /// Says how the try went. At most once.
    pub fn judge(&self, verdict: Verdict, latency_us: u32, now_ms: u64) {
        let pass = self.pass.replace(Pass::Free);
        self.upstream.judge(self.index, pass, verdict, latency_us, now_ms);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let upstream = &self.upstream;
        if let Some(load) = upstream.loads.get(self.index) {
            load.in_flight.set(load.in_flight.get().wrapping_sub(1));
        }
        if let Some(target) = upstream.targets.get(self.index) {
            target.breaker.release(self.pass.get());
            if self.counted {
                target.in_flight.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
