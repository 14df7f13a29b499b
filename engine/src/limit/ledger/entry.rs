//! One bucket of a node.
//!
//! **By the truth**: what shards need comes out of the pool, and what is not there the server is asked
//! for. **On its own**: while the server cannot be asked, the stock and what is spent and not yet stated
//! are the node's private limit: the server counts both as held by this node, for as long as it takes.
//! What a lost statement said may have arrived or not, so it is not part of that.

use std::sync::Arc;

use contract::snapshot::LimitMode;
use thin_vec::ThinVec;

use super::super::account::Account;
use super::super::log::Log;
use super::super::messages::{Ask, Bucket, BucketId, Spent, Told};
use super::super::protocol::{RESTATE_MS, Statement, Verdict};
use super::super::rule::Span;
use super::link::Link;
use super::pace::{check_ms, idle_ms, is_short, memory_ms, patience_ms, rest_ms};
use super::serve::short_retry_ms;
use crate::limits;

/// Kept small: a node has one per key. Lists that are empty as a rule are thin.
#[derive(Debug)]
pub(super) struct Entry {
    pub bucket: Arc<Bucket>,
    server: Option<u16>,
    /// What shards hold, and what this node has spent within the window.
    pub(super) account: Account<u16>,
    /// What the server has granted and is neither spent nor given back: with the pool and the shards.
    pub(super) stock: u64,
    /// Spent since the last statement.
    unstated: ThinVec<Spent>,
    /// Said with statements that were not answered: it may count already or not. Said again, which may
    /// count it twice for a window; never taken for held.
    stated: ThinVec<Spent>,
    pub(super) private: Option<Box<Private>>,
    pub(super) waiting: ThinVec<Waiter>,
    seq: u64,
    pub(super) statement: Progress,
    pub asked_ms: u64,
    /// When it was stated last.
    stated_ms: u64,
    pub(super) retry_at_ms: u64,
    /// As the last verdict said: what all have spent, what all others hold, this node's fair part, and
    /// when the first that was spent counts no more.
    pub(super) used: u64,
    pub(super) others: u64,
    pub(super) fair: u64,
    pub(super) oldest_at_ms: u64,
    /// When it is to be looked at without being asked.
    pub check_at_ms: u64,
    /// Everything goes back.
    parting: bool,
    /// Shards were asked to give back, and have not been heard of since.
    recalling: bool,
}

/// What holds for all buckets at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub now_ms: u64,
    /// So far the wall's clock is ahead of the monotonic one.
    pub ahead_ms: u64,
    pub shards: u16,
}

/// The node's own limit while the server cannot be asked.
#[derive(Debug)]
pub(super) struct Private {
    pub allowance: u64,
    /// Spent of the allowance.
    pub log: Log,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub shard: u16,
    pub need: u64,
    pub waiting: u64,
    pub want: u64,
    pub since_ms: u64,
    /// Others were asked to give back for it.
    pub recalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    None,
    /// It goes as soon as there is room for it.
    Due {
        /// Somebody waits for it.
        urgent: bool,
    },
    Sent,
}

impl Entry {
    pub fn new(bucket: Arc<Bucket>, now_ms: u64) -> Entry {
        Entry {
            bucket,
            server: None,
            account: Account::default(),
            stock: 0,
            unstated: ThinVec::new(),
            stated: ThinVec::new(),
            private: None,
            waiting: ThinVec::new(),
            // Beyond what an earlier life of it has said.
            seq: now_ms.saturating_mul(1_000),
            statement: Progress::None,
            asked_ms: now_ms,
            stated_ms: now_ms,
            retry_at_ms: 0,
            used: 0,
            others: 0,
            fair: 0,
            oldest_at_ms: 0,
            check_at_ms: u64::MAX,
            parting: false,
            recalling: false,
        }
    }

    /// Another server keeps it from now on. It is a bucket of its own there: shards keep what they hold,
    /// and what was spent is not told anew.
    pub fn place(&mut self, server: Option<usize>, now_ms: u64) {
        self.server = server.and_then(|server| u16::try_from(server).ok());
        self.account.advance(&self.bucket.rule, now_ms);
        self.stock = self.account.held();
        self.unstated.clear();
        self.stated.clear();
        self.private = None;
        self.statement = Progress::None;
        self.retry_at_ms = 0;
        if server.is_some() {
            let rule = self.bucket.rule;
            let ages = self.account.log().ages(rule.span);
            self.unstated = ages
                .map(|(age, tokens)| Spent { at_ms: now_ms.saturating_sub(age), tokens })
                .collect();
        }
    }

    pub fn server(&self) -> Option<usize> {
        self.server.map(usize::from)
    }

    /// Its server has another place among them.
    pub fn moved(&mut self, server: usize) {
        self.server = u16::try_from(server).ok();
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
        self.recalling = false;
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
            self.parting = false;
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
            None if self.server.is_some() => push(&mut self.unstated, rule.span, at_ms, tokens),
            None => {}
        }
    }

    pub(super) fn pass(&mut self, now_ms: u64) {
        self.account.advance(&self.bucket.rule, now_ms);
        if let Some(private) = &mut self.private {
            private.log.advance(self.bucket.rule.span, now_ms);
        }
    }

    pub fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn push_due(&mut self, id: BucketId, link: &mut Link) {
        let urgent = self.is_awaited();
        match self.statement {
            Progress::None => {}
            // It goes before those for which nobody waits.
            Progress::Due { urgent: false } if urgent => {}
            Progress::Due { .. } | Progress::Sent => return,
        }
        self.statement = Progress::Due { urgent };
        link.push_due(id, urgent);
    }

    /// From now on it is on its own.
    pub(super) fn lapse(&mut self, now_ms: u64) {
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

    /// What it says to the server now; nothing when that was said already.
    pub fn state(&mut self, link: &Link, now_ms: u64) -> Option<Statement> {
        if !matches!(self.statement, Progress::Due { .. }) {
            return None;
        }
        self.pass(now_ms);
        let rule = self.bucket.rule;
        let most = link.most(rule.limit);
        if let Some(private) = self.private.take() {
            for (age, tokens) in private.log.ages(rule.span) {
                self.stated.push(Spent { at_ms: now_ms.saturating_sub(age), tokens });
            }
            self.stock = self.account.held();
        }
        let target = self.fair.min(most);
        let strict = self.bucket.mode == LimitMode::Strict;
        let resting = self.is_resting(link.is_alone(), now_ms);
        if self.parting || strict || resting && is_short(&rule) {
            self.stock = self.account.held();
        } else if self.stock > target {
            self.stock = self.account.held().max(target);
        }
        match self.stated.is_empty() {
            true => self.stated = std::mem::take(&mut self.unstated),
            false => self.stated.extend(std::mem::take(&mut self.unstated)),
        }
        thin(&mut self.stated);
        self.statement = Progress::Sent;
        self.stated_ms = now_ms;
        self.seq += 1;
        let needs = || self.waiting.iter().filter(|waiter| waiter.need > 0);
        let pool = self.stock.saturating_sub(self.account.held());
        let waiting: u64 = self.waiting.iter().map(|waiter| waiter.waiting).sum();
        let need = needs().map(|waiter| waiter.need).min().unwrap_or(0);
        let in_advance = match self.bucket.mode {
            LimitMode::Leased if !resting && !self.parting => most.saturating_sub(self.stock),
            _ => 0,
        };
        // Clocks are read in whole milliseconds at both ends: never older than it is.
        let age =
            |spent: &Spent| (now_ms.saturating_sub(spent.at_ms).saturating_sub(1), spent.tokens);
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
    pub fn verdict(&mut self, seq: u64, verdict: Verdict, now_ms: u64) {
        if seq != self.seq || self.statement != Progress::Sent {
            return;
        }
        self.statement = Progress::None;
        if verdict.stale {
            return;
        }
        self.stated = ThinVec::new();
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
        // What others hold, other shards of this node too, may come back at any time.
        let held = self.others > 0 || self.account.held() > 0;
        let free_ms = match verdict.oldest_ms {
            0 => short_retry_ms(&rule),
            oldest_ms if held => oldest_ms.min(short_retry_ms(&rule)),
            oldest_ms => oldest_ms,
        };
        let pool = self.stock.saturating_sub(self.account.held());
        let short = self.waiting.iter().any(|waiter| waiter.need > pool);
        self.retry_at_ms = match short {
            _ if verdict.restoring => now_ms + limits::LIMIT_AGAIN_MS,
            true => now_ms + free_ms.clamp(1, 60_000),
            // Nothing in advance: there is next to nothing left.
            false if verdict.granted == 0 && self.fair <= own => now_ms + short_retry_ms(&rule),
            false => 0,
        };
    }

    /// The statement `seq` (or one that was due: `u64::MAX`) is lost, or was not understood.
    pub fn unanswered(&mut self, seq: u64) {
        let due = seq == u64::MAX && matches!(self.statement, Progress::Due { .. });
        if due || seq == self.seq && self.statement != Progress::None {
            self.statement = Progress::None;
        }
    }

    /// The server has forgotten, or taken this node for lost.
    /// `whole`: it has forgotten all, what it had acknowledged, too.
    pub fn restate(&mut self, id: BucketId, link: &mut Link, whole: bool, now_ms: u64) {
        self.pass(now_ms);
        let span = self.bucket.rule.span;
        let private = self.private.take();
        self.stated.extend(std::mem::take(&mut self.unstated));
        let log = match &private {
            _ if whole => {
                self.stated.clear();
                Some(self.account.log())
            }
            Some(private) => Some(&private.log),
            None => None,
        };
        for (age, tokens) in log.into_iter().flat_map(|log| log.ages(span)) {
            self.stated.push(Spent { at_ms: now_ms.saturating_sub(age), tokens });
        }
        self.stock = self.account.held();
        self.retry_at_ms = 0;
        self.statement = Progress::None;
        if self.stock > 0 || !self.stated.is_empty() || !whole {
            link.restate(id);
            self.push_due(id, link);
        }
    }

    /// Others need what this node holds.
    pub fn recall(
        &mut self,
        id: BucketId,
        frame: Frame,
        link: &mut Link,
        told: &mut Vec<(u16, Told)>,
    ) {
        self.fair = 0;
        self.retry_at_ms = self.retry_at_ms.max(frame.now_ms + short_retry_ms(&self.bucket.rule));
        self.recall_from(id, None, told);
        self.recalling = true;
        if self.stock > self.account.held() {
            self.push_due(id, link);
        }
    }

    /// No more than `most` is to be held. Whether that is so.
    pub fn shrink(
        &mut self,
        id: BucketId,
        most: u64,
        link: &mut Link,
        told: &mut Vec<(u16, Told)>,
    ) -> bool {
        if self.stock <= most && self.statement == Progress::None && self.private.is_none() {
            return true;
        }
        if self.account.held() > most && !self.recalling {
            self.recall_from(id, None, told);
            self.recalling = true;
        }
        if self.account.held() <= most || self.private.is_some() {
            self.push_due(id, link);
        }
        false
    }

    /// Everything goes back. `leaves`: shards are gone. Whether there is anything to be said.
    pub fn part(&mut self, id: BucketId, leaves: bool, link: &mut Link, now_ms: u64) -> bool {
        self.pass(now_ms);
        if leaves {
            // What they had not said they may have spent.
            let held = self.account.held();
            let holders: Vec<(u16, u64)> = self.account.holders().collect();
            holders.iter().for_each(|(shard, _)| self.account.hold(*shard, 0));
            self.spend(now_ms, held);
            self.stock = self.stock.saturating_sub(held);
            self.waiting.clear();
        }
        self.parting = true;
        let counts = self.is_owed();
        if counts {
            self.push_due(id, link);
        }
        counts
    }

    /// The server believes otherwise: something is to be given back or told.
    fn is_owed(&self) -> bool {
        let untold = !self.unstated.is_empty() || !self.stated.is_empty();
        self.stock > 0 || untold || self.private.is_some() || self.statement != Progress::None
    }

    /// It was given back, and can be forgotten.
    pub fn has_parted(&self) -> bool {
        self.parting && !self.is_owed() && self.waiting.is_empty()
    }

    /// Nobody of the shards holds any of it.
    pub fn is_free(&self) -> bool {
        self.account.held() == 0 && self.waiting.is_empty()
    }

    /// How many tokens the server has granted that were not given back.
    pub fn holds(&self) -> u64 {
        self.stock
    }

    /// A private limit is left as soon as the server can be asked.
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// A look without being asked. `false`: it can be forgotten.
    pub fn check(
        &mut self,
        id: BucketId,
        frame: Frame,
        mut link: Option<&mut Link>,
        told: &mut Vec<(u16, Told)>,
    ) -> bool {
        let now_ms = frame.now_ms;
        self.pass(now_ms);
        let rule = self.bucket.rule;
        if matches!(rule.span, Span::Until { wall_ms } if now_ms + frame.ahead_ms >= wall_ms) {
            self.account.log_mut().clear();
        }
        if let Some(link) = link.as_deref_mut() {
            let resting = self.is_resting(link.is_alone(), now_ms);
            let over = self.stock > link.most(rule.limit);
            // What shards hold at rest, and may be missed elsewhere.
            if over && self.account.held() > 0 && !self.recalling && self.is_quiet(now_ms) {
                self.recall_from(id, None, told);
                self.recalling = true;
            }
            if link.is_ready() && self.statement == Progress::None {
                let patience_ms = patience_ms(&rule);
                let old = |spent: &Spent| now_ms >= spent.at_ms.saturating_add(patience_ms);
                let untold = self.unstated.first().is_some_and(old)
                    || !self.stated.is_empty()
                    || resting && !self.unstated.is_empty();
                let surplus = self.stock > self.account.held()
                    && (resting && is_short(&rule)
                        || over
                        || self.stock > self.fair && self.fair == 0);
                // The server does not believe it for ever.
                let anew = self.stock > 0 && now_ms >= self.stated_ms.saturating_add(RESTATE_MS);
                if self.private.is_some() || untold || surplus || anew {
                    self.push_due(id, link);
                }
            }
        }
        self.serve(id, frame, link, told);
        let blank = !self.counts() && self.waiting.is_empty();
        let old = now_ms.saturating_sub(self.asked_ms) > memory_ms(&rule);
        !(blank && old && self.statement == Progress::None)
    }

    /// Nobody has asked for a while.
    fn is_resting(&self, alone: bool, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.asked_ms) >= rest_ms(&self.bucket.rule, alone)
    }

    /// Nobody has asked just now.
    fn is_quiet(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.asked_ms) >= 50
    }

    /// When to look at it without being asked.
    pub fn next_check_ms(&self, now_ms: u64) -> u64 {
        let rule = &self.bucket.rule;
        let spent = self.unstated.first().map(|spent| spent.at_ms + patience_ms(rule));
        let shared = self.server.is_some();
        let held = shared && self.stock > 0;
        let next = [
            (!self.waiting.is_empty()).then_some(now_ms + 2),
            spent.filter(|_| shared),
            (!self.stated.is_empty() || self.private.is_some()).then_some(now_ms + 100),
            // At rest it is given back; what is beyond this node's part soon.
            held.then_some(now_ms + check_ms(rule).min(200)),
            Some((self.asked_ms + memory_ms(rule)).max(now_ms + idle_ms(rule))),
        ];
        // Nothing is looked at twice at a time.
        next.into_iter().flatten().min().unwrap_or(u64::MAX).max(now_ms + 1)
    }

    /// Whether it matters: something is held here, or was spent and still counts.
    pub fn counts(&self) -> bool {
        let untold = !self.unstated.is_empty() || !self.stated.is_empty();
        // A server that forgets has to be told what was spent.
        !self.account.is_blank() || self.stock > 0 || untold
    }
}

/// Adds to what was spent: an entry per slot, as late as its youngest.
fn push(list: &mut ThinVec<Spent>, span: Span, at_ms: u64, tokens: u64) {
    let slot = |at_ms: u64| at_ms / span.slot_ms().max(1);
    match list.last_mut() {
        Some(last) if slot(last.at_ms) == slot(at_ms) || last.at_ms >= at_ms => {
            last.at_ms = last.at_ms.max(at_ms);
            last.tokens += tokens;
        }
        _ => list.push(Spent { at_ms, tokens }),
    }
    thin(list);
}

/// Tells two neighbours apart no more where there are too many; both are as late as the younger.
fn thin(list: &mut ThinVec<Spent>) {
    if list.len() <= limits::LIMIT_SPENT {
        return;
    }
    list.sort_unstable_by_key(|spent| spent.at_ms);
    for at in 0..list.len() / 2 {
        let (one, two) = (list[2 * at], list[2 * at + 1]);
        list[at] = Spent { at_ms: two.at_ms, tokens: one.tokens + two.tokens };
    }
    let count = list.len();
    if count % 2 == 1 {
        list.swap(count / 2, count - 1);
    }
    list.truncate(count.div_ceil(2));
}
