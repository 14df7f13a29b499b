//! One Redis server's part of the protocol, in Rust: what its scripts do, for simulations, and for holding
//! the scripts against.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::account::{Account, Wish};
use super::protocol::{
    Answer, Beat, Beaten, Call, FORGET_MS, MILLION, NodeId, SILENT_MS, Statement, Verdict,
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
    /// When the generation began.
    born_ms: u64,
    /// Until then whoever lives and is not known is waited for.
    settled_ms: u64,
    /// When a beat came last.
    beaten_ms: u64,
    members: BTreeMap<NodeId, Member>,
    /// Who has to state anew in this generation.
    awaited: BTreeSet<NodeId>,
    /// Members that were replaced.
    dead: BTreeMap<NodeId, Dead>,
    books: HashMap<Arc<str>, Book>,
    recalls: BTreeMap<NodeId, BTreeSet<Arc<str>>>,
    /// Holders in accounts.
    nodes: Vec<NodeId>,
    now_ms: u64,
}

#[derive(Clone, Debug)]
struct Member {
    /// When it last proved to live.
    heard_ms: u64,
    /// When it beat last; time in which nobody did is not counted.
    beaten_ms: u64,
    /// The most that it may believe to be its part, in millionths; `None`: not known.
    share: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Dead {
    /// It can have spent something up to then.
    at_ms: u64,
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
            born_ms: 0,
            settled_ms: 0,
            beaten_ms: 0,
            members: BTreeMap::new(),
            awaited: BTreeSet::new(),
            dead: BTreeMap::new(),
            books: HashMap::new(),
            recalls: BTreeMap::new(),
            nodes: Vec::new(),
            now_ms: 0,
        }
    }

    pub fn run_id(&self) -> Arc<str> {
        self.run_id.clone()
    }

    /// FLUSHALL.
    pub fn flush(&mut self) {
        *self = Server::new(&self.run_id.clone());
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

    pub fn call(&mut self, call: &Call, now_ms: u64) -> Answer {
        let now_ms = self.pass(now_ms);
        if self.generation == 0 || call.generation != self.generation {
            return Answer::Generation { now_ms, generation: self.generation };
        }
        let heard = now_ms.saturating_sub(call.heard_ms) <= SILENT_MS;
        let member = self.members.get_mut(&call.node);
        let Some(member) = member.filter(|_| heard) else {
            return Answer::Unheard { now_ms };
        };
        let lost = is_lost(member, now_ms);
        if !lost {
            member.heard_ms = now_ms;
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
        let account = &mut book.account;
        account.advance(rule, now_ms);
        if !self.dead.is_empty() {
            self.bury(account, rule, own);
        }
        let restoring = lost || self.is_restoring(rule.span);
        let kept = self.kept(account, rule, node);
        let last = book.seqs.entry(own).or_default();
        let stale = statement.seq <= *last;
        let mut verdict = Verdict { stale, restoring, ..Verdict::default() };
        if !stale {
            *last = statement.seq;
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

    /// Whether someone may have spent or hold something that is not known here.
    fn is_restoring(&self, span: Span) -> bool {
        let waits = |node: &NodeId| {
            let (since_ms, alive) = match (self.members.get(node), self.dead.get(node)) {
                (Some(member), _) => (member.heard_ms, true),
                (None, Some(dead)) => (dead.at_ms, false),
                (None, None) => return false,
            };
            let for_ms = match span {
                Span::Sliding { .. } => 2 * SILENT_MS + whole_ms(span),
                // Who is dead will never state it.
                Span::Until { .. } if alive => u64::MAX,
                Span::Concurrent if alive => 2 * SILENT_MS,
                Span::Until { .. } | Span::Concurrent => 0,
            };
            self.now_ms.saturating_sub(since_ms.max(self.born_ms)) < for_ms
        };
        self.now_ms < self.settled_ms || self.awaited.iter().any(waits)
    }

    /// What nodes that are lost, or were before they died, may go by beyond what they hold.
    fn kept(&self, account: &Account<u32>, rule: &Rule, own: &NodeId) -> u64 {
        let part = |share: u64| {
            let part = u128::from(rule.limit) * u128::from(share) / u128::from(MILLION);
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        // Of a calendar's period they go by nothing else.
        if matches!(rule.span, Span::Until { .. }) {
            return 0;
        }
        let lost =
            self.members.iter().filter(|(node, one)| *node != own && is_lost(one, self.now_ms));
        let lost = lost.map(|(node, member)| {
            let at = self.nodes.iter().position(|have| have == node);
            let held = at.map_or(0, |at| account.held_by(at as u32));
            part(member.share.unwrap_or_else(|| self.unclaimed(""))).saturating_sub(held)
        });
        let within = |dead: &&Dead| self.now_ms.saturating_sub(dead.at_ms) < whole_ms(rule.span);
        let dead = self.dead.values().filter(within).map(|dead| part(dead.share));
        lost.chain(dead).fold(0, u64::saturating_add)
    }

    /// What members but `node` do not claim of the whole.
    fn unclaimed(&self, node: &str) -> u64 {
        let others = self.members.iter().filter(|(have, _)| have.as_ref() != node);
        let claimed: u64 = others.filter_map(|(_, member)| member.share).sum();
        MILLION.saturating_sub(claimed)
    }

    /// What the dead held counts as spent when they were replaced. Of whom nothing is known any more was
    /// not heard for long, and has spent what it held before.
    fn bury(&self, account: &mut Account<u32>, rule: &Rule, own: u32) {
        let others = account.holders().filter(|(holder, _)| *holder != own);
        let holders: Vec<(u32, u64)> = others.collect();
        for (holder, tokens) in holders {
            let node = &self.nodes[holder as usize];
            let at_ms = match (self.dead.get(node), self.members.contains_key(node)) {
                (Some(dead), _) => dead.at_ms,
                (None, false) => self.now_ms.saturating_sub(FORGET_MS - 2 * SILENT_MS),
                (None, true) => continue,
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
        if now_ms.saturating_sub(self.beaten_ms) > SILENT_MS {
            // Nobody could be heard: that is nobody's silence.
            self.members.values_mut().for_each(|member| member.beaten_ms = now_ms);
        }
        self.beaten_ms = now_ms;
        // It may have been taken for dead.
        self.dead.remove(node);
        if beat.generation != self.generation && beat.generation != 0 {
            // It comes from another generation, and tells whom this one may not know.
            for other in beat.members.iter().chain([node]) {
                if !self.members.contains_key(other) && !self.dead.contains_key(other) {
                    self.expect(other);
                }
            }
        }
        self.forget(node);
        self.replace(node);
        if beat.leaves {
            self.members.remove(node);
            self.awaited.remove(node);
            self.recalls.remove(node);
            return self.beaten(node, 0, false);
        }
        let restated = beat.restated && beat.generation == self.generation;
        let fresh = now_ms.saturating_sub(beat.heard_ms) <= SILENT_MS;
        let before = self.members.get(node).cloned();
        let was_lost = match &before {
            // It knows this server, and was forgotten.
            None => beat.generation != 0,
            Some(member) => !fresh || is_lost(member, now_ms) && !restated,
        };
        if restated && !was_lost {
            self.awaited.remove(node);
        }
        let unknown = self.members.iter().any(|(have, one)| have != node && one.share.is_none());
        let others = self.members.keys().filter(|have| *have != node).count() as u64;
        let offer = match unknown || now_ms < self.settled_ms {
            true => beat.share,
            false => (MILLION / (others + 1)).min(self.unclaimed(node)),
        };
        // What it believes now, what it may believe once it has heard of this, and, if it may not have
        // heard the last answer, what that has told.
        let share = beat.share.max(offer).max(match &before {
            Some(member) if beat.heard_ms < member.beaten_ms => member.share.unwrap_or(0),
            _ => 0,
        });
        let heard_ms = match (was_lost, &before) {
            (true, Some(member)) => member.heard_ms,
            (true, None) => now_ms.saturating_sub(SILENT_MS + 1),
            (false, _) => now_ms,
        };
        let member = Member { heard_ms, beaten_ms: now_ms, share: Some(share) };
        self.members.insert(node.clone(), member);
        self.beaten(node, offer, was_lost)
    }

    fn beaten(&mut self, node: &NodeId, share: u64, was_lost: bool) -> Beaten {
        Beaten {
            now_ms: self.now_ms,
            generation: self.generation,
            share,
            members: self.members.keys().cloned().collect(),
            recalled: self.recalls.remove(node).unwrap_or_default().into_iter().collect(),
            was_lost,
        }
    }

    /// A new generation: what was is void.
    fn begin(&mut self, beat: &Beat, generation: u64) {
        let now_ms = self.now_ms;
        self.flush();
        self.now_ms = now_ms;
        self.generation = generation;
        self.made_by = beat.run_id.clone();
        (self.born_ms, self.beaten_ms) = (now_ms, now_ms);
        beat.members.iter().for_each(|node| self.expect(node));
        if beat.generation != 0 {
            self.expect(&beat.node);
            self.settled_ms = now_ms + SILENT_MS;
        }
    }

    /// It is lost until it comes.
    fn expect(&mut self, node: &NodeId) {
        let heard_ms = self.now_ms.saturating_sub(SILENT_MS + 1);
        let member = Member { heard_ms, beaten_ms: self.now_ms, share: None };
        self.members.insert(node.clone(), member);
        self.awaited.insert(node.clone());
    }

    /// Those that were silent for too long, but `node`, which speaks.
    fn forget(&mut self, node: &NodeId) {
        let now_ms = self.now_ms;
        let old = |at_ms: u64| now_ms.saturating_sub(at_ms) > FORGET_MS;
        self.members.retain(|have, member| have == node || !old(member.beaten_ms));
        self.dead.retain(|_, dead| !old(dead.at_ms));
        let (members, dead) = (&self.members, &self.dead);
        let known = |have: &NodeId| members.contains_key(have) || dead.contains_key(have);
        self.awaited.retain(|have| have == node || known(have));
        self.recalls.retain(|have, _| members.contains_key(have));
    }

    /// Earlier runs of the same node that are silent are dead.
    fn replace(&mut self, node: &NodeId) {
        let name = |id: &str| id.split('#').next().unwrap_or_default().to_owned();
        let own = name(node);
        let (now_ms, unclaimed) = (self.now_ms, self.unclaimed(""));
        let is_old = |have: &NodeId, member: &Member| {
            have != node && name(have) == own && is_lost(member, now_ms)
        };
        let old = self.members.iter().filter(|(have, member)| is_old(have, member));
        let old: Vec<(NodeId, Member)> =
            old.map(|(have, one)| (have.clone(), one.clone())).collect();
        for (have, member) in old {
            self.members.remove(&have);
            self.recalls.remove(&have);
            // Before that it has gone by nothing but what it held.
            let early = now_ms.saturating_sub(member.heard_ms) <= 2 * SILENT_MS;
            let share = match member.share {
                Some(_) if early => 0,
                share => share.unwrap_or(unclaimed),
            };
            self.dead.insert(have, Dead { at_ms: now_ms, share });
        }
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
