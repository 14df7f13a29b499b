//! One Redis server's part of the protocol, in Rust: what its scripts do, for simulations, and for holding
//! the scripts against.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::account::{Account, Wish};
use super::protocol::{
    Answer, Beat, Beaten, Call, FORGET_MS, MILLION, NodeId, SETTLE_MS, SILENT_MS, Statement,
    Verdict,
};
use super::rule::{Rule, Span};

/// A server that keeps limits.
#[derive(Clone, Debug)]
pub struct Server {
    run_id: Arc<str>,
    /// 0: it has none, as after FLUSHALL.
    generation: u64,
    /// The server whose generation this is.
    made_by: Arc<str>,
    /// Until then whoever lives and is not known is waited for.
    settled_ms: u64,
    /// When a beat came last.
    beaten_ms: u64,
    /// When a member ended last: it left, was replaced or forgotten; 0: none did.
    gone_ms: u64,
    /// When one ended last whose spending was never stated in this generation.
    bare_ms: u64,
    members: BTreeMap<NodeId, Member>,
    /// Who has to state anew in this generation.
    awaited: BTreeSet<NodeId>,
    /// Members that have ended without saying so.
    dead: BTreeMap<NodeId, Dead>,
    books: HashMap<Arc<str>, Book>,
    recalls: BTreeMap<NodeId, BTreeSet<Arc<str>>>,
    /// Holders in accounts.
    nodes: Vec<NodeId>,
    now_ms: u64,
    /// [`FORGET_MS`], but in tests.
    forget_ms: u64,
}

#[derive(Clone, Debug)]
struct Member {
    /// When it last proved to live.
    heard_ms: u64,
    /// When it was answered last, or may have been; time in which nobody beat is not counted.
    beaten_ms: u64,
    /// The most that it may believe to be its part, in millionths; `None`: not known.
    share: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Dead {
    /// It can have spent something up to then.
    at_ms: u64,
    /// As they were.
    heard_ms: u64,
    beaten_ms: u64,
    /// What it may have gone by, beyond what it held.
    share: u64,
}

#[derive(Clone, Debug, Default)]
struct Book {
    account: Account<u32>,
    seqs: HashMap<u32, u64>,
}

impl Server {
    pub fn new(run_id: &str) -> Server {
        Server {
            run_id: run_id.into(),
            generation: 0,
            made_by: "".into(),
            settled_ms: 0,
            beaten_ms: 0,
            gone_ms: 0,
            bare_ms: 0,
            members: BTreeMap::new(),
            awaited: BTreeSet::new(),
            dead: BTreeMap::new(),
            books: HashMap::new(),
            recalls: BTreeMap::new(),
            nodes: Vec::new(),
            now_ms: 0,
            forget_ms: FORGET_MS,
        }
    }

    pub fn run_id(&self) -> Arc<str> {
        self.run_id.clone()
    }

    /// FLUSHALL.
    pub fn flush(&mut self) {
        let forget_ms = self.forget_ms;
        *self = Server { forget_ms, ..Server::new(&self.run_id.clone()) };
    }

    /// Another process goes on, with what this one has saved or with nothing.
    pub fn restart(&mut self, run_id: &str, kept: bool) {
        if !kept {
            self.flush();
        }
        self.run_id = run_id.into();
    }

    /// What is spent and held of a bucket by `now_ms`.
    pub fn taken(&mut self, key: &str, rule: &Rule, now_ms: u64) -> (u64, u64) {
        self.books.get_mut(key).map_or((0, 0), |book| {
            book.account.advance(rule, now_ms);
            (book.account.used(), book.account.held())
        })
    }

    /// A clock that goes back stands still.
    fn pass(&mut self, now_ms: u64) -> u64 {
        self.now_ms = self.now_ms.max(now_ms);
        self.now_ms
    }

    /// Whether a node that has last heard at `heard_ms` still does.
    fn is_fresh(&self, heard_ms: u64) -> bool {
        heard_ms <= self.now_ms && self.now_ms - heard_ms <= SILENT_MS
    }

    pub fn call(&mut self, call: &Call, now_ms: u64) -> Answer {
        let now_ms = self.pass(now_ms);
        if self.generation == 0 || call.generation != self.generation {
            return Answer::Generation { now_ms, generation: self.generation };
        }
        let fresh = self.is_fresh(call.heard_ms);
        let member = self.members.get_mut(&call.node);
        let Some(member) = member.filter(|_| fresh) else {
            return Answer::Unheard { now_ms };
        };
        let lost = is_lost(member, now_ms);
        match lost {
            true => member.beaten_ms = now_ms,
            false => member.heard_ms = now_ms,
        }
        let verdicts =
            call.statements.iter().map(|one| self.judge(&call.node, lost, one)).collect();
        Answer::Verdicts { now_ms, verdicts }
    }

    fn judge(&mut self, node: &NodeId, lost: bool, statement: &Statement) -> Verdict {
        let now_ms = self.now_ms;
        let rule = &statement.rule;
        let own = self.number(node);
        let mut book = self.books.remove(&statement.key).unwrap_or_default();
        let last = book.seqs.entry(own).or_default();
        if statement.seq <= *last {
            self.books.insert(statement.key.clone(), book);
            return Verdict { stale: true, ..Verdict::default() };
        }
        *last = statement.seq;
        let account = &mut book.account;
        account.advance(rule, now_ms);
        let restoring = lost || self.is_restoring(rule.span);
        let kept = self.kept(account, rule, node);
        let mut verdict = Verdict { restoring, ..Verdict::default() };
        account.hold(own, statement.hold);
        for &(age_ms, tokens) in &statement.spent {
            account.spend(rule, now_ms.saturating_sub(age_ms), tokens);
        }
        let left = |account: &Account<u32>| {
            let taken = account.used().saturating_add(account.held()).saturating_add(kept);
            rule.limit.saturating_sub(taken)
        };
        if left(account) < statement.need {
            self.bury(account, rule, own);
        }
        let sharers = self.members.len().max(1) as u64;
        let Statement { need, waiting, want, .. } = *statement;
        let missing = need.saturating_sub(left(account));
        let wish = match restoring {
            true => Wish { need: u64::MAX, waiting: 0, want: 0, sharers, kept },
            false => Wish { need, waiting, want, sharers, kept },
        };
        let grant = account.grant(rule, own, wish);
        verdict.granted = grant.granted;
        verdict.fair = grant.fair;
        verdict.oldest_ms = account.log().frees_ms(rule.span, missing);
        if grant.granted < need {
            self.recall(account, own, &statement.key);
        }
        verdict.used = account.used();
        verdict.held = account.held().saturating_add(kept);
        self.books.insert(statement.key.clone(), book);
        verdict
    }

    /// Whoever else lives and holds something is to give it back.
    fn recall(&mut self, account: &Account<u32>, own: u32, key: &Arc<str>) {
        for (holder, _) in account.holders().filter(|(holder, _)| *holder != own) {
            let node = &self.nodes[holder as usize];
            if self.members.get(node).is_some_and(|one| !is_lost(one, self.now_ms)) {
                self.recalls.entry(node.clone()).or_default().insert(key.clone());
            }
        }
    }

    /// For how long what somebody has spent is waited for that nobody can tell.
    fn waited_ms(&self, span: Span) -> u64 {
        match span {
            Span::Sliding { .. } => whole_ms(span).min(self.forget_ms),
            Span::Until { .. } => self.forget_ms,
            Span::Concurrent => 0,
        }
    }

    /// Whether someone may have spent or hold something that is not known here.
    fn is_restoring(&self, span: Span) -> bool {
        let now_ms = self.now_ms;
        let whole_ms = self.waited_ms(span);
        // By then it goes by its part at most, and did so for a window.
        let calm_ms = 2 * SILENT_MS + whole_ms;
        let waits = |node: &NodeId| match (self.members.get(node), self.dead.get(node)) {
            (Some(member), _) => now_ms - member.beaten_ms < calm_ms,
            (None, Some(dead)) => {
                now_ms - dead.at_ms < whole_ms && dead.at_ms - dead.beaten_ms < calm_ms
            }
            (None, None) => false,
        };
        let bare = self.bare_ms > 0 && now_ms - self.bare_ms < whole_ms;
        now_ms < self.settled_ms || bare || self.awaited.iter().any(waits)
    }

    /// What nodes that are lost, or were before they died, may go by beyond what they hold.
    fn kept(&self, account: &Account<u32>, rule: &Rule, own: &NodeId) -> u64 {
        let part = |share: u64| {
            let part = u128::from(rule.limit) * u128::from(share) / u128::from(MILLION);
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        let whole_ms = whole_ms(rule.span);
        // Of a calendar's period they go by nothing else; of a long window not before they stop.
        if matches!(rule.span, Span::Until { .. }) || whole_ms >= self.forget_ms {
            return 0;
        }
        let (mut kept, mut unknown) = (0u64, None);
        let lost =
            self.members.iter().filter(|(node, one)| *node != own && is_lost(one, self.now_ms));
        for (node, member) in lost {
            let at = self.nodes.iter().position(|have| have == node);
            let held = at.map_or(0, |at| account.held_by(at as u32));
            match member.share {
                Some(share) => kept = kept.saturating_add(part(share).saturating_sub(held)),
                None => unknown = Some(unknown.unwrap_or(0) + held),
            }
        }
        if let Some(held) = unknown {
            kept = kept.saturating_add(part(self.unclaimed("")).saturating_sub(held));
        }
        let dead = self.dead.values().filter(|dead| {
            let alone_ms = dead.at_ms - dead.heard_ms;
            // Before that it has gone by nothing but what it held.
            self.now_ms - dead.at_ms < whole_ms && alone_ms > SILENT_MS + whole_ms
        });
        dead.map(|dead| part(dead.share)).fold(kept, u64::saturating_add)
    }

    /// What members but `node` do not claim of the whole.
    fn unclaimed(&self, node: &str) -> u64 {
        let others = self.members.iter().filter(|(have, _)| have.as_ref() != node);
        let claimed: u64 = others.filter_map(|(_, member)| member.share).sum();
        MILLION.saturating_sub(claimed)
    }

    /// What the dead held counts as spent when they ended. Who is not even known for dead any more has
    /// ended long ago.
    fn bury(&self, account: &mut Account<u32>, rule: &Rule, own: u32) {
        let others = account.holders().filter(|(holder, _)| *holder != own);
        let holders: Vec<(u32, u64)> = others.collect();
        for (holder, tokens) in holders {
            let node = &self.nodes[holder as usize];
            let at_ms = match (self.members.contains_key(node), self.dead.get(node)) {
                (true, _) => continue,
                (false, Some(dead)) => dead.at_ms,
                (false, None) => self.now_ms.saturating_sub(self.forget_ms),
            };
            account.hold(holder, 0);
            account.spend(rule, at_ms, tokens);
        }
    }

    fn number(&mut self, node: &NodeId) -> u32 {
        let at = self.nodes.iter().position(|have| have == node).unwrap_or_else(|| {
            self.nodes.push(node.clone());
            self.nodes.len() - 1
        });
        at as u32
    }

    /// `random` names a generation, should one begin.
    pub fn beat(&mut self, beat: &Beat, random: u64, now_ms: u64) -> Beaten {
        let now_ms = self.pass(now_ms);
        let node = &beat.node;
        if self.generation == 0 || self.made_by != beat.run_id {
            self.begin(beat, random.max(1));
        }
        if now_ms - self.beaten_ms > SILENT_MS {
            // Nobody could be heard: that is nobody's silence.
            self.members.values_mut().for_each(|member| member.beaten_ms = now_ms);
        }
        self.beaten_ms = now_ms;
        // It may have been taken for dead; or this is read late.
        let dead = self.dead.remove(node);
        let current = beat.generation == self.generation;
        let stranger = !current && beat.generation != 0;
        if stranger {
            self.learn(beat);
        }
        let unclaimed = self.unclaimed("");
        self.forget(node, unclaimed);
        let fresh = current && self.is_fresh(beat.heard_ms);
        let restated = current && beat.restated;
        let before = self.members.get(node).cloned();
        let lived = before.as_ref().is_some_and(|member| !is_lost(member, now_ms));
        if beat.leaves {
            self.leave(node, fresh && lived, unclaimed);
            return self.beaten(node, 0, false);
        }
        let lives = fresh && before.is_some() && (lived || restated);
        if restated && lives {
            self.awaited.remove(node);
        }
        if lives {
            self.replace(node, unclaimed);
        }
        let unknown = self.members.iter().any(|(have, one)| have != node && one.share.is_none());
        let others = self.members.keys().filter(|have| *have != node).count() as u64;
        let offer = match stranger || unknown || now_ms < self.settled_ms {
            true => beat.share,
            false => (MILLION / (others + 1)).min(self.unclaimed(node)),
        };
        let share = match &before {
            // What it says belongs to another generation, or to none.
            Some(member) if !current && member.share.is_none() => None,
            // What it believes now, what it may believe once it has heard of this, and, if it may not
            // have heard the last answer, what that has told.
            Some(member) if beat.heard_ms < member.beaten_ms => {
                Some(beat.share.max(offer).max(member.share.unwrap_or(0)))
            }
            _ => Some(beat.share.max(offer).max(dead.map_or(0, |dead| dead.share))),
        };
        let heard_ms = match (lives, &before) {
            (true, _) => now_ms,
            (false, Some(member)) => member.heard_ms,
            // The next beat proves that it hears.
            (false, None) if beat.generation == 0 => now_ms.saturating_sub(SILENT_MS + 1),
            (false, None) => {
                dead.map_or(now_ms.saturating_sub(self.forget_ms), |dead| dead.heard_ms)
            }
        };
        self.members.insert(node.clone(), Member { heard_ms, beaten_ms: now_ms, share });
        self.beaten(node, offer, !lives)
    }

    fn beaten(&mut self, node: &NodeId, share: u64, was_lost: bool) -> Beaten {
        let gone_ms = match self.gone_ms {
            0 => self.forget_ms,
            gone_ms => (self.now_ms - gone_ms).min(self.forget_ms),
        };
        Beaten {
            now_ms: self.now_ms,
            generation: self.generation,
            share,
            members: self.members.keys().cloned().collect(),
            recalled: self.recalls.remove(node).unwrap_or_default().into_iter().collect(),
            was_lost,
            gone_ms,
        }
    }

    /// A new generation: what was is void, but for whom it knew.
    fn begin(&mut self, beat: &Beat, generation: u64) {
        let (now_ms, gone_ms) = (self.now_ms, self.gone_ms);
        let known: Vec<NodeId> = self.members.keys().cloned().collect();
        self.flush();
        self.now_ms = now_ms;
        self.generation = generation;
        self.made_by = beat.run_id.clone();
        self.beaten_ms = now_ms;
        self.settled_ms = now_ms + SETTLE_MS;
        (self.gone_ms, self.bare_ms) = (gone_ms, gone_ms);
        known.iter().for_each(|node| self.expect(node));
    }

    /// A node comes from another generation, and tells whom this one may not know.
    fn learn(&mut self, beat: &Beat) {
        if beat.gone_ms < self.forget_ms {
            let gone_ms = self.now_ms.saturating_sub(beat.gone_ms);
            self.bare_ms = self.bare_ms.max(gone_ms);
            self.gone_ms = self.gone_ms.max(gone_ms);
        }
        for other in &beat.members {
            let known = match self.members.get(other) {
                Some(member) => !is_lost(member, self.now_ms) || self.awaited.contains(other),
                None => self.dead.contains_key(other),
            };
            if !known {
                self.expect(other);
            }
        }
        self.expect(&beat.node);
    }

    /// It is lost until it comes.
    fn expect(&mut self, node: &NodeId) {
        let heard_ms = self.now_ms.saturating_sub(SILENT_MS + 1);
        let member = Member { heard_ms, beaten_ms: self.now_ms, share: None };
        self.members.insert(node.clone(), member);
        self.awaited.insert(node.clone());
    }

    /// `well`: all that it has spent is known.
    fn leave(&mut self, node: &NodeId, well: bool, unclaimed: u64) {
        if well && !self.awaited.contains(node) {
            self.members.remove(node);
            self.recalls.remove(node);
            self.gone_ms = self.now_ms;
        } else {
            self.end(node, unclaimed);
        }
    }

    /// It has ended by now, and what it has spent may not be known. `unclaimed`: its part at the most,
    /// where that is not known.
    fn end(&mut self, node: &NodeId, unclaimed: u64) {
        let Some(Member { heard_ms, beaten_ms, share }) = self.members.remove(node) else { return };
        self.recalls.remove(node);
        let (at_ms, share) = (self.now_ms, share.unwrap_or(unclaimed));
        self.gone_ms = at_ms;
        self.dead.insert(node.clone(), Dead { at_ms, heard_ms, beaten_ms, share });
    }

    /// Those that were silent for too long, but `node`, which speaks.
    fn forget(&mut self, node: &NodeId, unclaimed: u64) {
        let (now_ms, forget_ms) = (self.now_ms, self.forget_ms);
        let old = |at_ms: u64| now_ms - at_ms > forget_ms;
        let silent = |(have, member): &(&NodeId, &Member)| *have != node && old(member.beaten_ms);
        let silent: Vec<NodeId> =
            self.members.iter().filter(silent).map(|(have, _)| have.clone()).collect();
        silent.iter().for_each(|have| self.end(have, unclaimed));
        self.dead.retain(|_, dead| !old(dead.at_ms));
        let (members, dead) = (&self.members, &self.dead);
        let known = |have: &NodeId| members.contains_key(have) || dead.contains_key(have);
        self.awaited.retain(|have| have == node || known(have));
    }

    /// Earlier runs of a node that lives are dead if they are silent. What they have said themselves may be
    /// read late: it proves nothing.
    fn replace(&mut self, node: &NodeId, unclaimed: u64) {
        let name = |id: &str| id.split('#').next().unwrap_or_default().to_owned();
        let own = name(node);
        let is_old = |(have, member): &(&NodeId, &Member)| {
            *have != node && name(have) == own && is_lost(member, self.now_ms)
        };
        let old: Vec<NodeId> =
            self.members.iter().filter(is_old).map(|(have, _)| have.clone()).collect();
        old.iter().for_each(|have| self.end(have, unclaimed));
    }
}

fn is_lost(member: &Member, now_ms: u64) -> bool {
    now_ms.saturating_sub(member.heard_ms) > SILENT_MS
}

/// How long what was spent counts at the most since it was admitted.
fn whole_ms(span: Span) -> u64 {
    match span {
        Span::Sliding { ms } => ms + span.slot_ms() + span.reach_ms(),
        Span::Until { .. } | Span::Concurrent => 0,
    }
}

#[cfg(test)]
mod tests;
