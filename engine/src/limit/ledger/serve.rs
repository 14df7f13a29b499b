//! How a bucket answers shards: by the truth, out of what the server has granted, or on its own.

use contract::LimitLine;
use contract::snapshot::{LimitMode, OnStoreFailure};

use super::super::account::Wish;
use super::super::messages::{BucketId, State, Told};
use super::super::rule::{Rule, Span};
use super::EXACT;
use super::entry::{Entry, Frame, Waiter};
use super::link::Link;
use crate::limits;

impl Frame {
    fn shards(self) -> u64 {
        u64::from(self.shards.max(1))
    }
}

impl Entry {
    /// Answers whom it can.
    pub fn serve(
        &mut self,
        id: BucketId,
        frame: Frame,
        link: Option<&mut Link>,
        told: &mut Vec<(u16, Told)>,
    ) {
        if self.waiting.is_empty() {
            return;
        }
        self.pass(frame.now_ms);
        match link {
            None => self.serve_alone(id, frame, told),
            Some(link) if link.is_ready() && !(link.is_late() && self.is_hasty()) => {
                self.serve_exactly(id, frame, link, told);
            }
            Some(link) => self.serve_without(id, frame, link, told),
        }
    }

    /// Its requests wait no longer than the spec's time-out: they do not go by what is known without Redis.
    fn is_hasty(&self) -> bool {
        self.bucket.on_store_failure != OnStoreFailure::Share
    }

    /// This node is the truth.
    fn serve_alone(&mut self, id: BucketId, frame: Frame, told: &mut Vec<(u16, Told)>) {
        let (now_ms, rule) = (frame.now_ms, self.bucket.rule);
        let strict = self.bucket.mode == LimitMode::Strict;
        for mut waiter in std::mem::take(&mut self.waiting) {
            let Waiter { shard, need, waiting, want, .. } = waiter;
            let want = if strict { waiting } else { want };
            let wish = Wish { need, waiting, want, sharers: frame.shards(), kept: 0 };
            let grant = self.account.grant(&rule, shard, wish);
            if grant.granted < need && self.await_others(&mut waiter, id, now_ms, told) {
                self.waiting.push(waiter);
                continue;
            }
            // By itself nothing of a period comes free before its end.
            let frees_ms = self.frees_ms(need.saturating_sub(grant.left), frame);
            let retry_at_ms = match grant.granted < need {
                true if frees_ms > 0 => now_ms.saturating_add(frees_ms),
                true => now_ms + short_retry_ms(&rule),
                false => 0,
            };
            let remaining = grant.left.saturating_add(self.account.held_by(shard));
            told.push((
                shard,
                Told {
                    granted: grant.granted,
                    fair: grant.fair,
                    remaining,
                    retry_at_ms,
                    reset_at_ms: now_ms.saturating_add(self.frees_ms(u64::MAX, frame)),
                    ..answer(id)
                },
            ));
        }
    }

    /// How long until `tokens` of what this node has spent count no more.
    pub(super) fn frees_ms(&self, tokens: u64, frame: Frame) -> u64 {
        let span = match self.bucket.rule.span {
            // The log goes by the monotonic clock.
            Span::Until { wall_ms } => {
                Span::Until { wall_ms: wall_ms.saturating_sub(frame.ahead_ms) }
            }
            span => span,
        };
        self.account.log().frees_ms(span, tokens)
    }

    /// Has others give back for a waiter, where they hold anything; false: that was done, or is of no use.
    fn await_others(
        &self,
        waiter: &mut Waiter,
        id: BucketId,
        now_ms: u64,
        told: &mut Vec<(u16, Told)>,
    ) -> bool {
        let others = self.account.held() - self.account.held_by(waiter.shard);
        if others == 0 {
            return false;
        }
        if !waiter.recalled {
            waiter.recalled = true;
            self.recall_from(id, Some(waiter.shard), told);
        }
        now_ms < waiter.since_ms + limits::LIMIT_RECALL_MS
    }

    pub(super) fn recall_from(&self, id: BucketId, but: Option<u16>, told: &mut Vec<(u16, Told)>) {
        for (shard, _) in self.account.holders().filter(|(shard, _)| Some(*shard) != but) {
            let recall = Told { answers: false, remaining: self.remaining(), ..answer(id) };
            told.push((shard, recall));
        }
    }

    fn serve_exactly(
        &mut self,
        id: BucketId,
        frame: Frame,
        link: &mut Link,
        told: &mut Vec<(u16, Told)>,
    ) {
        if self.private.is_some() {
            // First the server has to hear what was spent without it.
            return self.push_due(id, link);
        }
        let strict = self.bucket.mode == LimitMode::Strict;
        let now_ms = frame.now_ms;
        let mut keep = thin_vec::ThinVec::new();
        let mut short = false;
        for mut waiter in std::mem::take(&mut self.waiting) {
            let Waiter { shard, need, waiting, want, .. } = waiter;
            let pool = self.stock.saturating_sub(self.account.held());
            let in_advance = if strict { 0 } else { want.min(pool / frame.shards()) };
            let granted = in_advance.max(waiting).min(pool);
            if granted >= need {
                self.account.hold(shard, self.account.held_by(shard) + granted);
                told.push((shard, self.told(id, granted, frame, 0, EXACT)));
                continue;
            }
            if now_ms < self.retry_at_ms {
                if !self.await_others(&mut waiter, id, now_ms, told) {
                    told.push((shard, self.told(id, 0, frame, self.retry_at_ms, EXACT)));
                    continue;
                }
            } else {
                short = true;
            }
            keep.push(waiter);
        }
        self.waiting = keep;
        // Before it is dry: more is on its way when it is.
        let target = self.fair.min(link.most(self.bucket.rule.limit));
        let low = !strict && target > 1 && self.stock < target / 2 && now_ms >= self.retry_at_ms;
        if short || low {
            self.push_due(id, link);
        }
    }

    fn serve_without(
        &mut self,
        id: BucketId,
        frame: Frame,
        link: &mut Link,
        told: &mut Vec<(u16, Told)>,
    ) {
        let without = match self.bucket.on_store_failure {
            OnStoreFailure::Deny => State::Denied,
            OnStoreFailure::Open => State::Open,
            OnStoreFailure::Share => return self.serve_share(id, frame, link, told),
        };
        let retry_at_ms = frame.now_ms + limits::LIMIT_AGAIN_MS;
        for waiter in std::mem::take(&mut self.waiting) {
            told.push((waiter.shard, self.told(id, 0, frame, retry_at_ms, without)));
        }
    }

    fn serve_share(
        &mut self,
        id: BucketId,
        frame: Frame,
        link: &mut Link,
        told: &mut Vec<(u16, Told)>,
    ) {
        let rule = self.bucket.rule;
        let now_ms = frame.now_ms;
        self.lapse(now_ms);
        for mut waiter in std::mem::take(&mut self.waiting) {
            let Waiter { shard, need, waiting, want, .. } = waiter;
            let held = self.account.held();
            let (room, frees_ms) = match &self.private {
                Some(private) => {
                    let limit = rule.limit;
                    let allowance = link.allowance(private.allowance, limit, rule.span, now_ms);
                    let room = allowance.min(limit).saturating_sub(private.log.used() + held);
                    (room, private.log.frees_ms(rule.span, need.saturating_sub(room)))
                }
                None => (self.stock.saturating_sub(held), 0),
            };
            let granted = want.min(room / frame.shards()).max(waiting).min(room);
            if granted >= need {
                self.account.hold(shard, self.account.held_by(shard) + granted);
                if self.private.is_some() {
                    self.stock = self.stock.max(self.account.held());
                }
                told.push((shard, self.told(id, granted, frame, 0, State::Share)));
            } else if self.await_others(&mut waiter, id, now_ms, told) {
                self.waiting.push(waiter);
            } else {
                let again_ms = limits::LIMIT_AGAIN_MS;
                let retry_at_ms = now_ms + if frees_ms == 0 { again_ms } else { frees_ms.min(50) };
                told.push((shard, self.told(id, 0, frame, retry_at_ms, State::Share)));
            }
        }
    }

    fn remaining(&self) -> u64 {
        self.bucket.rule.limit.saturating_sub(self.used).saturating_sub(self.others)
    }

    fn told(
        &self,
        id: BucketId,
        granted: u64,
        frame: Frame,
        retry_at_ms: u64,
        state: State,
    ) -> Told {
        let fair = self.stock.max(self.fair) / frame.shards();
        let remaining = self.remaining();
        Told {
            granted,
            fair: fair.max(granted),
            remaining,
            retry_at_ms,
            reset_at_ms: self.oldest_at_ms,
            state,
            ..answer(id)
        }
    }

    pub fn line(&self, link: Option<&Link>, frame: Frame) -> LimitLine {
        let rule = self.bucket.rule;
        let alone = link.is_none();
        let exact = link.is_none_or(Link::is_ready);
        let used = if alone { self.account.used() } else { self.used.max(self.account.used()) };
        let held = if alone { self.account.held() } else { self.stock };
        LimitLine {
            bucket: self.bucket.name.to_string(),
            consumer: self.bucket.consumer.to_string(),
            limit: rule.limit,
            used,
            leased: held,
            remaining: rule.limit.saturating_sub(used).saturating_sub(if alone {
                0
            } else {
                self.others
            }),
            reset_ms: match alone {
                true => self.frees_ms(1, frame),
                false => self.oldest_at_ms.saturating_sub(frame.now_ms),
            },
            state: match (exact, self.bucket.on_store_failure) {
                (true, _) => "exact",
                (_, OnStoreFailure::Share) => "share",
                (_, OnStoreFailure::Deny) => "denied",
                (_, OnStoreFailure::Open) => "open",
            }
            .into(),
            mode: match self.bucket.mode {
                LimitMode::Strict => "strict",
                LimitMode::Leased => "leased",
                LimitMode::Local => "local",
            }
            .into(),
        }
    }
}

/// An answer that grants nothing.
fn answer(id: BucketId) -> Told {
    Told { unknown: false, ..unknown(id) }
}
/// When to try again where others hold what is missing: they may give it back at any time.
pub(super) fn short_retry_ms(rule: &Rule) -> u64 {
    match rule.span {
        Span::Sliding { ms } => (ms / 500).clamp(2, 100),
        Span::Until { .. } => 100,
        Span::Concurrent => 5,
    }
}

/// The shard has to say what the bucket is.
pub(super) fn unknown(id: BucketId) -> Told {
    Told {
        id,
        answers: true,
        granted: 0,
        fair: 0,
        remaining: 0,
        retry_at_ms: 0,
        reset_at_ms: 0,
        state: EXACT,
        unknown: true,
    }
}
