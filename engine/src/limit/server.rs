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
    members: BTreeMap<NodeId, Member>,
    /// Who has to state anew in this generation.
    awaited: BTreeSet<NodeId>,
    /// Members that were replaced, and when: they can have spent something up to then.
    dead: BTreeMap<NodeId, u64>,
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
    /// The most that it may believe to be its part, in millionths; `None`: not known.
    share: Option<u64>,
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
        let (run_id, now_ms) = (self.run_id.clone(), self.now_ms);
        *self = Server { now_ms, ..Server::new(&run_id) };
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

    pub fn call(&mut self, call: &Call, now_ms: u64) -> Answer {
        self.now_ms = self.now_ms.max(now_ms);
        let now_ms = self.now_ms;
        if self.generation == 0 || call.generation != self.generation {
            return Answer::Generation { now_ms, generation: self.generation };
        }
        let heard = now_ms.saturating_sub(call.heard_ms) <= SILENT_MS;
        let member = self.members.get_mut(&call.node);
        let Some(member) = member.filter(|_| heard) else {
            return Answer::Unheard { now_ms };
        };
        let lost = now_ms.saturating_sub(member.heard_ms) > SILENT_MS;
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
        let window_ms = match rule.span {
            Span::Sliding { ms } => ms + rule.span.slot_ms() + rule.span.reach_ms(),
            Span::Until { .. } => u64::MAX,
            Span::Concurrent => 0,
        };
        let old = now_ms.saturating_sub(self.born_ms) >= window_ms;
        let restoring = lost || !(self.awaited.is_empty() || old);
        let kept = self.kept(account, rule, own);
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
            let wish = match restoring {
                true => Wish { need: u64::MAX, waiting: 0, want: 0, sharers, kept },
                false => Wish { need, waiting, want, sharers, kept },
            };
            let grant = account.grant(rule, own, wish);
            verdict.granted = grant.granted;
            verdict.fair = grant.fair;
            verdict.oldest_ms = account.log().frees_ms(rule.span, need.max(1));
            if grant.granted < need {
                let live = |holder: &u32| {
                    let node = &self.nodes[*holder as usize];
                    self.members.get(node).is_some_and(|one| !self.is_lost(one))
                };
                let others: Vec<u32> = account
                    .holders()
                    .map(|(holder, _)| holder)
                    .filter(|holder| *holder != own)
                    .filter(live)
                    .collect();
                for holder in others {
                    let node = self.nodes[holder as usize].clone();
                    self.recalls.entry(node).or_default().insert(statement.key.clone());
                }
            }
        }
        verdict.used = account.used();
        verdict.held = account.held().saturating_add(kept);
        self.books.insert(statement.key.clone(), book);
        verdict
    }

    fn is_lost(&self, member: &Member) -> bool {
        self.now_ms.saturating_sub(member.heard_ms) > SILENT_MS
    }

    /// What lost members may go by, beyond what they hold.
    fn kept(&self, account: &Account<u32>, rule: &Rule, own: u32) -> u64 {
        let lost = self.members.iter().filter(|(node, member)| {
            self.is_lost(member) && self.nodes.get(own as usize) != Some(node)
        });
        lost.map(|(node, member)| {
            let share = member.share.unwrap_or_else(|| self.unclaimed(""));
            let part = u128::from(rule.limit) * u128::from(share) / u128::from(MILLION);
            let at = self.nodes.iter().position(|have| have == node);
            let held = at.map_or(0, |at| account.held_by(at as u32));
            u64::try_from(part).unwrap_or(u64::MAX).saturating_sub(held)
        })
        .sum()
    }

    /// What members but `node` do not claim of the whole.
    fn unclaimed(&self, node: &str) -> u64 {
        let others = self.members.iter().filter(|(have, _)| have.as_ref() != node);
        let claimed: u64 = others.filter_map(|(_, member)| member.share).sum();
        MILLION.saturating_sub(claimed)
    }

    /// What the dead held counts as spent when they were replaced; what is held by nobody that is known
    /// any more is free.
    fn bury(&self, account: &mut Account<u32>, rule: &Rule, own: u32) {
        let others = account.holders().filter(|(holder, _)| *holder != own);
        let holders: Vec<(u32, u64)> = others.collect();
        for (holder, tokens) in holders {
            let node = &self.nodes[holder as usize];
            if let Some(&at_ms) = self.dead.get(node) {
                account.hold(holder, 0);
                account.spend(rule, at_ms, tokens);
            } else if !self.members.contains_key(node) {
                account.hold(holder, 0);
            }
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
        self.now_ms = self.now_ms.max(now_ms);
        let now_ms = self.now_ms;
        let node = &beat.node;
        if self.generation == 0 || self.made_by != beat.run_id {
            self.begin(beat, random.max(1));
        }
        if beat.generation != self.generation && beat.generation != 0 {
            // It comes from another generation, and tells whom this one may not know.
            for other in beat.members.iter().filter(|other| *other != node) {
                if !self.members.contains_key(other) && !self.dead.contains_key(other) {
                    let heard_ms = now_ms.saturating_sub(SILENT_MS + 1);
                    self.members.insert(other.clone(), Member { heard_ms, share: None });
                    self.awaited.insert(other.clone());
                }
            }
        }
        let forgotten = |member: &Member| now_ms.saturating_sub(member.heard_ms) > FORGET_MS;
        self.members.retain(|have, member| have == node || !forgotten(member));
        self.dead.retain(|_, at_ms| now_ms.saturating_sub(*at_ms) <= FORGET_MS);
        self.replace(node);
        let restated = beat.restated && beat.generation == self.generation;
        if beat.leaves {
            self.members.remove(node);
            self.awaited.remove(node);
            self.recalls.remove(node);
            return self.beaten(node, 0, false);
        }
        let fresh = now_ms.saturating_sub(beat.heard_ms) <= SILENT_MS;
        let was_lost = match self.members.get(node) {
            None => false,
            Some(member) => !fresh || self.is_lost(member) && !restated,
        };
        if restated && !was_lost {
            self.awaited.remove(node);
        }
        // What it believes now, and what it may believe once it has heard of this.
        let unknown = self.members.iter().any(|(have, one)| have != node && one.share.is_none());
        let others = self.members.keys().filter(|have| *have != node).count() as u64;
        let offer = match unknown {
            true => beat.share,
            false => (MILLION / (others + 1)).min(self.unclaimed(node)),
        };
        let share = Some(beat.share.max(offer));
        let heard_ms = match (was_lost, self.members.get(node)) {
            (true, Some(member)) => member.heard_ms,
            _ => now_ms,
        };
        self.members.insert(node.clone(), Member { heard_ms, share });
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
        self.flush();
        self.generation = generation;
        self.made_by = beat.run_id.clone();
        self.born_ms = self.now_ms;
        for node in &beat.members {
            // Lost until they come.
            let heard_ms = self.now_ms.saturating_sub(SILENT_MS + 1);
            self.members.insert(node.clone(), Member { heard_ms, share: None });
            self.awaited.insert(node.clone());
        }
        if beat.generation != 0 {
            self.awaited.insert(beat.node.clone());
        }
    }

    /// Earlier runs of the same node that are silent are dead.
    fn replace(&mut self, node: &NodeId) {
        let name = |id: &str| id.split('#').next().unwrap_or_default().to_owned();
        let own = name(node);
        let dead: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(have, member)| *have != node && name(have) == own && self.is_lost(member))
            .map(|(have, _)| have.clone())
            .collect();
        for old in dead {
            self.members.remove(&old);
            self.dead.insert(old.clone(), self.now_ms);
            self.awaited.remove(&old);
            self.recalls.remove(&old);
        }
    }
}
