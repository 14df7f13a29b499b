//! What a shard holds of one bucket.

use std::sync::Arc;

use contract::snapshot::{LimitMode, OnStoreFailure};
use smallvec::SmallVec;

use super::{Hold, Until, Want};
use crate::limit::messages::{Bucket, BucketId, Spent, State};
use crate::limit::rule::{Rule, Span};
use crate::limits;

/// Kept small: a node has one per key and shard. Times of 32 bits are the low ones of milliseconds.
pub(super) struct Lease {
    pub(super) id: BucketId,
    pub(super) limit: u64,
    /// Of the span: its length, or its end.
    pub(super) span_ms: u64,
    /// Free to be taken.
    pub(super) tokens: u64,
    /// Of requests that last, or whose cost is to come.
    pub(super) open: u64,
    pub(super) busy: Option<Box<Busy>>,
    pub(super) fair: u64,
    pub(super) remaining: u64,
    pub(super) retry_at_ms: u64,
    pub(super) reset_at_ms: u64,
    /// Ask ahead below this.
    pub(super) low: u32,
    /// Until `retry_at_ms` whoever lacks so many is refused; of an `Ask` under way what it needs.
    pub(super) need: u32,
    pub(super) rate: Rate,
    pub(super) used_ms: u32,
    pub(super) asked_ms: u32,
    pub(super) state: State,
    pub(super) span: SpanKind,
    pub(super) mode: LimitMode,
    pub(super) on_store_failure: OnStoreFailure,
    pub(super) flags: Flags,
}

/// A [`Span`] without what makes it large.
#[derive(Clone, Copy)]
pub(super) enum SpanKind {
    Sliding,
    Until,
    Concurrent,
}

const _: () = assert!(size_of::<Lease>() <= 128, "100,000 keys in 64 MiB");

#[derive(Clone, Copy, Default)]
pub(super) struct Flags {
    /// An `Ask` is under way.
    pub(super) asking: bool,
    /// It is in `dirty`.
    pub(super) dirty: bool,
    /// It is in `due`.
    pub(super) queued: bool,
    /// What was spent is to be told with the next tick.
    pub(super) report: bool,
    /// The ledger does not know it.
    pub(super) unnamed: bool,
    /// The ledger has answered once.
    pub(super) told: bool,
    pub(super) vacant: bool,
}

/// What only leases in use have.
#[derive(Default)]
pub(super) struct Busy {
    /// Taken, by when, the earliest first.
    pub(super) flying: SmallVec<[Flight; 2]>,
    /// Spent and not yet told.
    pub(super) spent: SmallVec<[Spent; 2]>,
    pub(super) debt: u64,
    /// To be told with the next `Ask`.
    pub(super) bucket: Option<Arc<Bucket>>,
}

/// Tokens taken in one cell of time.
#[derive(Clone, Copy)]
pub(super) struct Flight {
    pub(super) cell: u64,
    pub(super) tokens: u64,
}

/// How many tokens were taken in this time and in the one before.
#[derive(Clone, Copy, Default)]
pub(super) struct Rate {
    pub(super) start_ms: u32,
    pub(super) now: u32,
    pub(super) before: u32,
}

/// Most times of which is told apart what was spent in them.
const STAMPS: usize = 96;

impl Lease {
    pub(super) fn new(want: &Want, bucket: Arc<Bucket>, now_ms: u64) -> Lease {
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
            need: 0,
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

    pub(super) fn rule(&self) -> Rule {
        let span = match self.span {
            SpanKind::Sliding => Span::Sliding { ms: self.span_ms },
            SpanKind::Until => Span::Until { wall_ms: self.span_ms },
            SpanKind::Concurrent => Span::Concurrent,
        };
        Rule { limit: self.limit, span }
    }

    pub(super) fn set_rule(&mut self, rule: Rule) {
        self.limit = rule.limit;
        (self.span, self.span_ms) = match rule.span {
            Span::Sliding { ms } => (SpanKind::Sliding, ms),
            Span::Until { wall_ms } => (SpanKind::Until, wall_ms),
            Span::Concurrent => (SpanKind::Concurrent, 0),
        };
    }

    pub(super) fn busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    pub(super) fn flying(&self) -> u64 {
        let flying = |busy: &Busy| busy.flying.iter().map(|flight| flight.tokens).sum();
        self.busy.as_deref().map_or(0, flying)
    }

    pub(super) fn held(&self) -> u64 {
        self.tokens + self.open + self.flying()
    }

    pub(super) fn is_told(&self) -> bool {
        self.busy.as_deref().is_none_or(|busy| busy.spent.is_empty() && busy.debt == 0)
    }

    /// Whether the ledger was asked so lately that it would say the same.
    pub(super) fn asked_lately(&self, now_ms: u64) -> bool {
        since(now_ms, self.asked_ms) < limits::LEASE_LOST_MS
    }

    /// Within so long is what is leased used up; it is what is asked for.
    pub(super) fn ahead_ms(&self) -> u64 {
        match self.rule().span {
            Span::Sliding { ms } => (ms / 8).clamp(1, limits::LEASE_AHEAD_MS),
            Span::Until { .. } | Span::Concurrent => limits::LEASE_AHEAD_MS,
        }
    }

    /// When to tell of what is spent, at the latest.
    pub(super) fn report_ms(&self) -> u64 {
        match self.rule().span {
            Span::Sliding { ms } => (ms / 16).clamp(1, limits::LEASE_REPORT_MS),
            Span::Until { .. } | Span::Concurrent => 1_000,
        }
    }

    /// How finely it is told apart when requests were let in. A part of the time to reach the upstream.
    pub(super) fn cell_ms(&self) -> u64 {
        (self.rule().span.reach_ms() / 8).max(1)
    }

    /// When a request of that cell has reached its upstream at the latest.
    pub(super) fn reached_ms(&self, cell: u64) -> u64 {
        (cell + 1) * self.cell_ms() - 1 + self.rule().span.reach_ms()
    }

    /// What is worth to be held, as far as it is fair.
    pub(super) fn target(&mut self, now_ms: u64) -> u64 {
        if self.mode == LimitMode::Strict || self.rule().span == Span::Concurrent {
            return 0;
        }
        self.rate.roll(now_ms, self.ahead_ms());
        match u64::from(self.rate.now.max(self.rate.before)) {
            0 | 1 => 0,
            used => (used + used / 2).max(4).min(self.fair),
        }
    }

    pub(super) fn count(&mut self, cost: u64, now_ms: u64) {
        if self.rate.count(cost, now_ms, self.ahead_ms()) {
            self.set_low(now_ms);
        }
    }

    pub(super) fn set_low(&mut self, now_ms: u64) {
        let low = self.target(now_ms) / 2;
        self.low = u32::try_from(low).unwrap_or(u32::MAX);
    }

    /// Whether to ask for more before it is dry.
    pub(super) fn is_low(&self, now_ms: u64) -> bool {
        self.tokens < u64::from(self.low)
            && self.flags.told
            && self.retry_at_ms <= now_ms
            && self.held() < self.fair
            && matches!(self.state, State::Exact | State::Share)
    }

    /// What has reached its upstream by now is spent.
    pub(super) fn mature(&mut self, now_ms: u64) {
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
    pub(super) fn stamp(&mut self, at_ms: u64, tokens: u64) {
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
    pub(super) fn take(&mut self, want: &Want, now_ms: u64) {
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

    pub(super) fn settle(&mut self, hold: &Hold, actual: Option<u64>, now_ms: u64) {
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

    pub(super) fn release(&mut self, hold: &Hold) {
        self.open = self.open.saturating_sub(hold.cost);
        self.tokens += hold.cost;
        self.remaining = (self.remaining + hold.cost).min(self.limit);
    }

    /// Whether nothing keeps it here.
    pub(super) fn is_idle(&self) -> bool {
        let flying = self.busy.as_deref().is_some_and(|busy| !busy.flying.is_empty());
        !(self.flags.vacant || self.flags.asking || self.open > 0 || flying)
    }
}

impl Rate {
    pub(super) fn roll(&mut self, now_ms: u64, length_ms: u64) -> bool {
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
    pub(super) fn count(&mut self, cost: u64, now_ms: u64, length_ms: u64) -> bool {
        let rolled = self.roll(now_ms, length_ms);
        self.now = self.now.saturating_add(u32::try_from(cost).unwrap_or(u32::MAX));
        rolled
    }
}

/// Milliseconds since a time of which the low bits are known.
pub(super) fn since(now_ms: u64, then_ms: u32) -> u64 {
    (now_ms as u32).wrapping_sub(then_ms).into()
}
