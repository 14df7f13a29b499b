//! One bucket of a node.
//!
//! **By the truth**: what shards need comes out of the pool, and what is not there the server is asked
//! for. **On its own**: while the server cannot be asked, the stock and what is spent and not yet stated
//! are the node's private limit: the server counts both as held by this node, for as long as it takes.
//! What a lost statement said may have arrived or not, so it is not part of that.

use std::sync::Arc;

use contract::LimitLine;
use contract::snapshot::{LimitMode, OnStoreFailure};
use smallvec::SmallVec;

use super::super::account::{Account, Wish};
use super::super::log::Log;
use super::super::messages::{Ask, Bucket, BucketId, Spent, State, Told};
use super::super::protocol::{Statement, Verdict};
use super::super::rule::{Rule, Span};
use super::EXACT;
use super::link::Link;
use crate::limits;

#[derive(Debug)]
pub(super) struct Entry {
    pub bucket: Arc<Bucket>,
    pub server: Option<usize>,
    /// What shards hold, and what this node has spent within the window.
    account: Account<u16>,
    /// What the server has granted and is neither spent nor given back: with the pool and the shards.
    stock: u64,
    /// Spent since the last statement.
    unstated: SmallVec<[Spent; 1]>,
    /// Said with the last statement, which is not answered.
    stated: SmallVec<[Spent; 1]>,
    private: Option<Box<Private>>,
    waiting: SmallVec<[Waiter; 1]>,
    seq: u64,
    statement: Progress,
    pub asked_ms: u64,
    retry_at_ms: u64,
    /// As the last verdict said: what all have spent, what all others hold, this node's fair part, and
    /// when the first that was spent counts no more.
    used: u64,
    others: u64,
    fair: u64,
    oldest_at_ms: u64,
    /// Everything goes back.
    parting: bool,
}

/// The node's own limit while the server cannot be asked.
#[derive(Debug)]
struct Private {
    allowance: u64,
    /// Spent of the allowance.
    log: Log,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    shard: u16,
    need: u64,
    waiting: u64,
    want: u64,
    since_ms: u64,
    /// Others were asked to give back for it.
    recalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    None,
    /// It goes with the next output.
    Due,
    Sent,
    /// Not answered in time: nobody waits for it any more.
    Late,
}

/// How often a bucket is looked at without being asked, in milliseconds.
pub(super) fn check_ms(rule: &Rule) -> u64 {
    match rule.span {
        Span::Sliding { ms } => (ms / 16).clamp(25, 2_000),
        Span::Until { .. } | Span::Concurrent => 500,
    }
}

/// How long a bucket is not asked for until it is at rest.
fn rest_ms(rule: &Rule) -> u64 {
    match rule.span {
        // What rests elsewhere is soon missed in a short window.
        Span::Sliding { ms } if ms <= 10_000 => (ms / 20).max(50),
        Span::Sliding { ms } => ms.min(60_000),
        Span::Until { .. } => 10_000,
        Span::Concurrent => 1_000,
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

impl Entry {
    pub fn new(bucket: Arc<Bucket>, now_ms: u64) -> Entry {
        Entry {
            bucket,
            server: None,
            account: Account::default(),
            stock: 0,
            unstated: SmallVec::new(),
            stated: SmallVec::new(),
            private: None,
            waiting: SmallVec::new(),
            seq: 0,
            statement: Progress::None,
            asked_ms: now_ms,
            retry_at_ms: 0,
            used: 0,
            others: 0,
            fair: 0,
            oldest_at_ms: 0,
            parting: false,
        }
    }

    /// Another server keeps it from now on. It is a bucket of its own there: shards keep what they hold,
    /// and what was spent is not told anew.
    pub fn place(&mut self, server: Option<usize>, _links: &[Link], now_ms: u64) {
        self.server = server;
        self.account.advance(&self.bucket.rule, now_ms);
        self.stock = self.account.held();
        self.unstated.clear();
        self.stated.clear();
        self.private = None;
        self.statement = Progress::None;
        self.retry_at_ms = 0;
        self.seq = 0;
        if server.is_some() {
            let rule = self.bucket.rule;
            let ages = self.account.log().ages(rule.span);
            self.unstated = ages
                .map(|(age, tokens)| Spent { at_ms: now_ms.saturating_sub(age), tokens })
                .collect();
        }
    }

    /// A shard says how it stands.
    pub fn hear(&mut self, shard: u16, ask: Ask, now_ms: u64) {
        if ask.want > 0 || ask.need > 0 || !ask.spent.is_empty() {
            self.asked_ms = now_ms;
        }
        if let Some(bucket) = &ask.bucket {
            // The same bucket with another limit.
            self.bucket = bucket.clone();
        }
        self.pass(now_ms);
        let before = self.account.held_by(shard);
        let spent: u64 = ask.spent.iter().map(|spent| spent.tokens).sum();
        // A shard cannot have come to more than it was granted.
        let hold = ask.hold.min(before.saturating_sub(spent));
        self.account.hold(shard, hold);
        for one in &ask.spent {
            self.spend(one.at_ms, one.tokens);
        }
        self.stock = self.stock.saturating_sub(spent);
        if ask.bucket.is_some() {
            // It has begun anew: what it held may have been spent.
            let lost = before.saturating_sub(spent).saturating_sub(hold);
            self.spend(now_ms, lost);
            self.stock = self.stock.saturating_sub(lost);
        }
        self.spend(now_ms, ask.debt);
        self.waiting.retain(|waiter| waiter.shard != shard);
        if !ask.last {
            let Ask { need, waiting, want, .. } = ask;
            let (waiting, recalled) = (waiting.max(need), false);
            let want = want.max(waiting);
            self.waiting.push(Waiter { shard, need, waiting, want, since_ms: now_ms, recalled });
        }
    }

    fn spend(&mut self, at_ms: u64, tokens: u64) {
        if tokens == 0 || self.bucket.rule.span == Span::Concurrent {
            return;
        }
        let rule = self.bucket.rule;
        self.account.spend(&rule, at_ms, tokens);
        match &mut self.private {
            Some(private) => private.log.spend(rule.span, at_ms, tokens),
            None if self.server.is_some() => push(&mut self.unstated, at_ms, tokens),
            None => {}
        }
    }

    fn pass(&mut self, now_ms: u64) {
        self.account.advance(&self.bucket.rule, now_ms);
        if let Some(private) = &mut self.private {
            private.log.advance(self.bucket.rule.span, now_ms);
        }
    }

    pub fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Answers whom it can.
    pub fn serve(
        &mut self,
        id: BucketId,
        shards: u16,
        now_ms: u64,
        link: Option<&mut Link>,
        told: &mut Vec<(u16, Told)>,
    ) {
        if self.waiting.is_empty() {
            return;
        }
        self.pass(now_ms);
        let shards = u64::from(shards.max(1));
        match link {
            None => self.serve_alone(id, shards, now_ms, told),
            Some(link) if link.is_ready() && self.statement != Progress::Late => {
                self.serve_exactly(id, shards, now_ms, link, told);
            }
            Some(link) => self.serve_without(id, shards, now_ms, link, told),
        }
    }

    /// This node is the truth.
    fn serve_alone(&mut self, id: BucketId, shards: u64, now_ms: u64, told: &mut Vec<(u16, Told)>) {
        let rule = self.bucket.rule;
        let strict = self.bucket.mode == LimitMode::Strict;
        for mut waiter in std::mem::take(&mut self.waiting) {
            let Waiter { shard, need, waiting, want, .. } = waiter;
            let want = if strict { waiting } else { want };
            let wish = Wish { need, waiting, want, sharers: shards, kept: 0 };
            let grant = self.account.grant(&rule, shard, wish);
            if grant.granted < need && self.await_others(&mut waiter, id, now_ms, told) {
                self.waiting.push(waiter);
                continue;
            }
            let short = grant.granted < need;
            let frees_at_ms = now_ms + grant.frees_ms.max(1);
            let retry_at_ms = match short {
                true if grant.frees_ms > 0 => frees_at_ms,
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
                    reset_at_ms: now_ms + self.account.log().frees_ms(rule.span, u64::MAX),
                    ..answer(id)
                },
            ));
        }
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

    fn recall_from(&self, id: BucketId, but: Option<u16>, told: &mut Vec<(u16, Told)>) {
        for (shard, _) in self.account.holders().filter(|(shard, _)| Some(*shard) != but) {
            let recall = Told { answers: false, remaining: self.remaining(), ..answer(id) };
            told.push((shard, recall));
        }
    }

    fn serve_exactly(
        &mut self,
        id: BucketId,
        shards: u64,
        now_ms: u64,
        link: &mut Link,
        told: &mut Vec<(u16, Told)>,
    ) {
        if self.private.is_some() {
            // First the server has to hear what was spent without it.
            return self.push_due(id, link);
        }
        let strict = self.bucket.mode == LimitMode::Strict;
        let mut keep = SmallVec::new();
        let mut short = false;
        for mut waiter in std::mem::take(&mut self.waiting) {
            let Waiter { shard, need, waiting, want, .. } = waiter;
            let pool = self.stock.saturating_sub(self.account.held());
            let in_advance = if strict { 0 } else { want.min(pool / shards) };
            let granted = in_advance.max(waiting).min(pool);
            if granted >= need {
                self.account.hold(shard, self.account.held_by(shard) + granted);
                told.push((shard, self.told(id, granted, shards, 0, EXACT)));
                continue;
            }
            if now_ms < self.retry_at_ms {
                if !self.await_others(&mut waiter, id, now_ms, told) {
                    told.push((shard, self.told(id, 0, shards, self.retry_at_ms, EXACT)));
                    continue;
                }
            } else {
                short = true;
            }
            keep.push(waiter);
        }
        self.waiting = keep;
        // Before it is dry: more is on its way when it is.
        let low =
            !strict && self.stock < self.fair / 2 && self.fair > 1 && now_ms >= self.retry_at_ms;
        if short || low {
            self.push_due(id, link);
        }
    }

    fn push_due(&mut self, id: BucketId, link: &mut Link) {
        if self.statement == Progress::None {
            self.statement = Progress::Due;
            link.push_due(id);
        }
    }

    fn serve_without(
        &mut self,
        id: BucketId,
        shards: u64,
        now_ms: u64,
        link: &mut Link,
        told: &mut Vec<(u16, Told)>,
    ) {
        let without = match self.bucket.on_store_failure {
            OnStoreFailure::Deny => State::Denied,
            OnStoreFailure::Open => State::Open,
            OnStoreFailure::Share => return self.serve_share(id, shards, now_ms, link, told),
        };
        for waiter in std::mem::take(&mut self.waiting) {
            let retry_at_ms = now_ms + limits::LIMIT_AGAIN_MS;
            told.push((waiter.shard, self.told(id, 0, shards, retry_at_ms, without)));
        }
    }

    fn serve_share(
        &mut self,
        id: BucketId,
        shards: u64,
        now_ms: u64,
        link: &mut Link,
        told: &mut Vec<(u16, Told)>,
    ) {
        let rule = self.bucket.rule;
        let part = link.part(rule.limit, rule.span, now_ms);
        if !link.is_ready() {
            self.lapse(now_ms);
        }
        for mut waiter in std::mem::take(&mut self.waiting) {
            let Waiter { shard, need, waiting, want, .. } = waiter;
            let held = self.account.held();
            let (room, frees_ms) = match &self.private {
                Some(private) => {
                    let allowance = private.allowance.max(part.unwrap_or(0)).min(rule.limit);
                    let room = allowance.saturating_sub(private.log.used() + held);
                    (room, private.log.frees_ms(rule.span, need.saturating_sub(room)))
                }
                // A single answer that is late: what is in the pool is there all the same.
                None => (self.stock.saturating_sub(held), 0),
            };
            let granted = want.min(room / shards).max(waiting).min(room);
            if granted >= need {
                self.account.hold(shard, self.account.held_by(shard) + granted);
                if self.private.is_some() {
                    self.stock = self.stock.max(self.account.held());
                }
                told.push((shard, self.told(id, granted, shards, 0, State::Share)));
            } else if self.await_others(&mut waiter, id, now_ms, told) {
                self.waiting.push(waiter);
            } else {
                let again_ms = limits::LIMIT_AGAIN_MS;
                let retry_at_ms = now_ms + if frees_ms == 0 { again_ms } else { frees_ms.min(50) };
                told.push((shard, self.told(id, 0, shards, retry_at_ms, State::Share)));
            }
        }
    }

    /// From now on it is on its own.
    fn lapse(&mut self, now_ms: u64) {
        if self.private.is_some() {
            return;
        }
        let span = self.bucket.rule.span;
        let mut log = Log::default();
        log.advance(span, now_ms);
        let mut allowance = self.stock;
        for spent in std::mem::take(&mut self.unstated) {
            allowance += spent.tokens;
            log.spend(span, spent.at_ms, spent.tokens);
        }
        self.private = Some(Box::new(Private { allowance, log }));
    }

    /// What it says to the server now.
    pub fn state(&mut self, now_ms: u64) -> Option<Statement> {
        if self.statement != Progress::Due {
            return None;
        }
        self.pass(now_ms);
        let rule = self.bucket.rule;
        if let Some(private) = self.private.take() {
            for (age, tokens) in private.log.ages(rule.span) {
                push(&mut self.unstated, now_ms.saturating_sub(age), tokens);
            }
            self.stock = self.account.held();
        }
        let resting = now_ms.saturating_sub(self.asked_ms) >= rest_ms(&rule);
        if self.parting {
            self.account = Account::default();
            self.stock = 0;
        } else if resting && matches!(rule.span, Span::Sliding { ms } if ms <= 10_000) {
            self.stock = self.account.held();
        } else if self.stock > self.fair {
            self.stock = self.account.held().max(self.fair);
        }
        self.stated.append(&mut self.unstated);
        self.statement = Progress::Sent;
        self.seq += 1;
        let needs = || self.waiting.iter().filter(|waiter| waiter.need > 0);
        let pool = self.stock.saturating_sub(self.account.held());
        let waiting: u64 = self.waiting.iter().map(|waiter| waiter.waiting).sum();
        let need = needs().map(|waiter| waiter.need).min().unwrap_or(0);
        let in_advance = match self.bucket.mode {
            LimitMode::Leased if !resting && !self.parting => rule.limit,
            _ => 0,
        };
        let age = |spent: &Spent| (now_ms.saturating_sub(spent.at_ms), spent.tokens);
        Some(Statement {
            key: super::bucket_key(&self.bucket),
            rule,
            seq: self.seq,
            hold: self.stock,
            spent: self.stated.iter().map(age).collect(),
            need: need.saturating_sub(pool),
            waiting: waiting.saturating_sub(pool),
            want: in_advance.max(waiting.saturating_sub(pool)),
        })
    }

    /// What the server says to the statement `seq`.
    pub fn verdict(&mut self, seq: u64, verdict: Verdict, ready: bool, now_ms: u64) {
        if seq != self.seq || !matches!(self.statement, Progress::Sent | Progress::Late) {
            return;
        }
        self.statement = Progress::None;
        if verdict.stale {
            return self.put_back();
        }
        self.stated.clear();
        let rule = self.bucket.rule;
        // On its own meanwhile: the grant is not reckoned with, and goes back with the next statement.
        if self.private.is_none() {
            self.stock += verdict.granted;
        }
        let own = self.stock;
        self.used = verdict.used;
        self.others = verdict.held.saturating_sub(own);
        self.fair = verdict.fair;
        self.oldest_at_ms = now_ms + verdict.oldest_ms;
        let others_ms = match self.others {
            0 => u64::MAX,
            _ => short_retry_ms(&rule),
        };
        let oldest_ms = match verdict.oldest_ms {
            0 => u64::MAX,
            oldest_ms => oldest_ms,
        };
        let pool = self.stock.saturating_sub(self.account.held());
        let short = self.waiting.iter().any(|waiter| waiter.need > pool);
        self.retry_at_ms = match short {
            _ if verdict.restoring => now_ms + limits::LIMIT_AGAIN_MS,
            true => now_ms + others_ms.min(oldest_ms).min(60_000).max(1),
            // Nothing in advance: there is next to nothing left.
            false if verdict.granted == 0 && self.fair <= own => now_ms + short_retry_ms(&rule),
            false => 0,
        };
        let _ = ready;
    }

    /// The statement `seq` (or one that was due: `u64::MAX`) is lost, or was not understood.
    pub fn unanswered(&mut self, seq: u64) {
        let due = seq == u64::MAX && self.statement == Progress::Due;
        if due || seq == self.seq && self.statement != Progress::None {
            self.statement = Progress::None;
            if self.private.is_none() {
                self.put_back();
            }
        }
    }

    /// What was stated is stated again: twice is safe, never is not.
    fn put_back(&mut self) {
        self.stated.append(&mut self.unstated);
        std::mem::swap(&mut self.stated, &mut self.unstated);
    }

    pub fn late(&mut self, seq: u64, _now_ms: u64) {
        if seq == self.seq && self.statement == Progress::Sent {
            self.statement = Progress::Late;
        }
    }

    /// The server has forgotten, or taken this node for lost.
    /// `whole`: it has forgotten all, what it had acknowledged, too.
    pub fn restate(&mut self, id: BucketId, link: &mut Link, whole: bool, now_ms: u64) {
        self.pass(now_ms);
        let span = self.bucket.rule.span;
        self.put_back();
        let private = self.private.take();
        let log = match &private {
            _ if whole => {
                self.unstated.clear();
                Some(self.account.log())
            }
            Some(private) => Some(&private.log),
            None => None,
        };
        for (age, tokens) in log.into_iter().flat_map(|log| log.ages(span)) {
            push(&mut self.unstated, now_ms.saturating_sub(age), tokens);
        }
        self.stock = self.account.held();
        self.retry_at_ms = 0;
        self.statement = Progress::None;
        if self.stock > 0 || !self.unstated.is_empty() || self.seq > 0 {
            link.restate(id);
            self.push_due(id, link);
        }
    }

    /// Others need what this node holds.
    pub fn recall(&mut self, id: BucketId, now_ms: u64, told: &mut Vec<(u16, Told)>) {
        self.fair = 0;
        self.retry_at_ms = self.retry_at_ms.max(now_ms + short_retry_ms(&self.bucket.rule));
        self.recall_from(id, None, told);
        self.parting = false;
        self.asked_ms = self.asked_ms.min(now_ms.saturating_sub(rest_ms(&self.bucket.rule)));
    }

    /// Everything goes back.
    pub fn part(&mut self, id: BucketId, link: &mut Link, now_ms: u64) {
        self.pass(now_ms);
        if self.stock > 0 || !self.unstated.is_empty() || self.private.is_some() {
            self.parting = true;
            self.push_due(id, link);
        }
    }

    /// A look without being asked. Returns when to look again; `None`: it can be forgotten.
    pub fn check(
        &mut self,
        id: BucketId,
        shards: u16,
        now_ms: u64,
        link: Option<&mut Link>,
        told: &mut Vec<(u16, Told)>,
    ) -> Option<u64> {
        self.pass(now_ms);
        let rule = self.bucket.rule;
        let resting = now_ms.saturating_sub(self.asked_ms) >= rest_ms(&rule);
        if let Some(link) = link {
            if link.is_ready() && self.statement == Progress::None {
                let patience_ms = match rule.span {
                    Span::Sliding { ms } => ms / 8,
                    _ => 1_000,
                };
                let old = |spent: &Spent| now_ms >= spent.at_ms.saturating_add(patience_ms);
                let untold =
                    self.unstated.first().is_some_and(old) || resting && !self.unstated.is_empty();
                let short_window = matches!(rule.span, Span::Sliding { ms } if ms <= 10_000);
                let surplus = self.stock > self.account.held()
                    && (resting && short_window || self.stock > self.fair && self.fair == 0);
                if self.private.is_some() || untold || surplus {
                    self.push_due(id, link);
                }
            }
            self.serve(id, shards, now_ms, Some(link), told);
        } else {
            self.serve(id, shards, now_ms, None, told);
        }
        let memory_ms = match rule.span {
            Span::Sliding { ms } => ms + ms / 4,
            Span::Until { .. } => 60_000,
            Span::Concurrent => 10_000,
        };
        let blank = !self.counts() && self.waiting.is_empty();
        let old = now_ms.saturating_sub(self.asked_ms) > memory_ms.max(1_000);
        if blank && old && self.statement == Progress::None {
            return None;
        }
        Some(now_ms + check_ms(&rule))
    }

    /// Whether it matters: something is held here, or was spent and is known only here.
    pub fn counts(&self) -> bool {
        let only_here = self.server.is_none() || self.private.is_some();
        let untold = !self.unstated.is_empty() || !self.stated.is_empty();
        let spent = self.account.used() > 0
            // The server has that for as long as the period lasts.
            && (only_here || matches!(self.bucket.rule.span, Span::Sliding { .. }));
        self.account.held() > 0 || self.stock > 0 || untold || spent
    }

    fn remaining(&self) -> u64 {
        self.bucket.rule.limit.saturating_sub(self.used).saturating_sub(self.others)
    }

    fn told(
        &self,
        id: BucketId,
        granted: u64,
        shards: u64,
        retry_at_ms: u64,
        state: State,
    ) -> Told {
        let fair = self.stock.max(self.fair) / shards;
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

    pub fn line(&self, link: Option<&Link>, now_ms: u64) -> LimitLine {
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
                true => self.account.log().frees_ms(rule.span, 1),
                false => self.oldest_at_ms.saturating_sub(now_ms),
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
fn short_retry_ms(rule: &Rule) -> u64 {
    match rule.span {
        Span::Sliding { ms } => (ms / 500).clamp(2, 100),
        Span::Until { .. } => 100,
        Span::Concurrent => 5,
    }
}

/// Adds to what was spent; few entries, each as late as its youngest.
fn push(list: &mut SmallVec<[Spent; 1]>, at_ms: u64, tokens: u64) {
    if tokens == 0 {
        return;
    }
    let full = list.len() >= limits::LIMIT_SPENT;
    match list.last_mut() {
        Some(last) if full || last.at_ms == at_ms => {
            last.at_ms = last.at_ms.max(at_ms);
            last.tokens += tokens;
        }
        _ => list.push(Spent { at_ms, tokens }),
    }
}
