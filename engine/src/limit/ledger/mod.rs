//! The node's ledger: leases tokens to shards, and from Redis. It lives on the store thread, and does no
//! I/O and reads no clock: what is to be sent it puts into an [`Output`].
//!
//! Of each bucket it knows what its shards hold and, in its *pool*, what nobody of them does. Together
//! that is its *stock*. Without Redis the stock is what the limit leaves (an [`Account`] is the truth);
//! with Redis it is what the server has granted. While the server cannot be asked, the stock of that
//! moment, and what was spent since the last statement, are a limit of the node's own ([`entry`]).

mod entry;
mod link;
mod pace;
mod serve;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use contract::LimitLine;
use contract::snapshot::{LimitMode, redis_owner};
use foldhash::fast::RandomState;

use self::entry::{Entry, Frame};
use self::link::Link;
use super::messages::{Ask, Bucket, BucketId, State, Told};
use super::protocol::{Answer, Beat, Beaten, Call, NodeId};
use crate::limits;

/// What is to be sent.
#[derive(Debug, Default)]
pub struct Output {
    /// The server, the number of the call, and what it says.
    pub calls: Vec<(usize, u64, Call)>,
    pub beats: Vec<(usize, Beat)>,
    /// To which shard.
    pub told: Vec<(u16, Told)>,
}

/// A server did not answer, or not the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// What the ledger counts; only grows, but for servers and buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub calls: u64,
    pub failures: u64,
    pub losses: u64,
    pub generations: u64,
    pub servers: u64,
    pub servers_lost: u64,
    pub buckets: u64,
    /// Buckets that were forgotten for want of room.
    pub evicted: u64,
}

/// All that a node knows of limits.
#[derive(Debug)]
pub struct Ledger {
    shards: u16,
    node: NodeId,
    timeout_ms: u64,
    entries: HashMap<BucketId, Box<Entry>, RandomState>,
    /// By a hash of the name in Redis, for recalls. Should two names meet, one is not recalled.
    keys: HashMap<u64, Halves, RandomState>,
    links: Vec<Link>,
    names: Vec<Arc<str>>,
    /// When to look at a bucket without being asked. Those that are not as the bucket says are void.
    checks: BinaryHeap<Reverse<(u64, Halves)>>,
    now_ms: u64,
    /// So far the wall's clock is ahead.
    ahead_ms: u64,
    leaving: bool,
    /// Buckets that came since room was made.
    since_room: usize,
    counts: Counts,
    output: Output,
}

impl Ledger {
    /// Without a server: each bucket is this node's alone.
    pub fn new(shards: u16, node: NodeId) -> Ledger {
        Ledger {
            shards: shards.max(1),
            node,
            timeout_ms: 5,
            entries: HashMap::default(),
            keys: HashMap::default(),
            links: Vec::new(),
            names: Vec::new(),
            checks: BinaryHeap::new(),
            now_ms: 0,
            ahead_ms: 0,
            leaving: false,
            since_room: 0,
            counts: Counts::default(),
            output: Output::default(),
        }
    }

    /// Another name for the node: before it has servers, or with others.
    pub fn rename(&mut self, node: NodeId) {
        self.node = node;
    }

    /// What the wall's clock says, in milliseconds since the Unix epoch: for quotas of the calendar that
    /// are decided here.
    pub fn set_wall(&mut self, wall_ms: u64, now_ms: u64) {
        self.pass(now_ms);
        self.ahead_ms = wall_ms.saturating_sub(self.now_ms);
    }

    /// Other servers from now on, by their names (as [`redis_owner`] wants them); none: none. Buckets that
    /// another server keeps from now on begin anew there, with what was spent; what the old one believes
    /// that this node holds it forgets with the node. Servers that stay are known by their names.
    pub fn set_servers(&mut self, names: &[Arc<str>], timeout_ms: u64, now_ms: u64) {
        self.pass(now_ms);
        self.timeout_ms = timeout_ms.max(1);
        if self.names == names {
            return;
        }
        let old_names = std::mem::replace(&mut self.names, names.to_vec());
        let numbers = self.links.iter().map(Link::numbers).max().unwrap_or(0);
        let mut old: Vec<Option<Link>> = self.links.drain(..).map(Some).collect();
        let kept = |name: &Arc<str>| old_names.iter().position(|old| old == name);
        for name in names {
            let link = kept(name).and_then(|at| old[at].take());
            self.links.push(link.unwrap_or_else(|| Link::new(numbers, self.now_ms)));
        }
        for entry in self.entries.values_mut() {
            let server = server_of(&self.names, &entry.bucket);
            let before = entry.server().and_then(|at| old_names.get(at));
            match server {
                Some(at) if before == self.names.get(at) => entry.moved(at),
                _ => entry.place(server, self.now_ms),
            }
        }
        self.all(|_| true).into_iter().for_each(|id| self.serve(id));
    }

    /// All buckets of which `like` says so.
    fn all(&self, like: impl Fn(&Entry) -> bool) -> Vec<BucketId> {
        self.entries.iter().filter(|(_, entry)| like(entry)).map(|(id, _)| *id).collect()
    }

    fn frame(&self) -> Frame {
        Frame { now_ms: self.now_ms, ahead_ms: self.ahead_ms, shards: self.shards }
    }

    fn key_hash(&self, key: &str) -> u64 {
        self.keys.hasher().hash_one(key)
    }

    /// A shard says how it stands.
    pub fn ask(&mut self, shard: u16, ask: Ask, now_ms: u64) {
        self.pass(now_ms);
        let id = ask.id;
        if !self.entries.contains_key(&id) {
            let Some(bucket) = ask.bucket.clone() else {
                // Forgotten here, known there: it has to say what it is about.
                self.output.told.push((shard, serve::unknown(id)));
                return;
            };
            self.make_room();
            let place = server_of(&self.names, &bucket);
            if place.is_some() {
                let hash = self.key_hash(&bucket_key(&bucket));
                self.keys.insert(hash, halves(id));
            }
            let mut entry = Entry::new(bucket, self.now_ms);
            entry.place(place, self.now_ms);
            self.entries.insert(id, Box::new(entry));
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.hear(shard, ask, self.now_ms);
        self.serve(id);
    }

    /// Answers whom it can, and asks the server for the rest.
    fn serve(&mut self, id: BucketId) {
        let frame = self.frame();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let mut link = entry.server().and_then(|server| self.links.get_mut(server));
        if let Some(link) = link.as_deref_mut()
            && link.is_shrinking(id)
            && entry.shrink(id, link.most(entry.bucket.rule.limit), link, &mut self.output.told)
        {
            link.has_shrunk(id);
        }
        entry.serve(id, frame, link, &mut self.output.told);
        self.schedule(id);
    }

    /// It is looked at in time.
    fn schedule(&mut self, id: BucketId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let next_ms = entry.next_check_ms(self.now_ms);
        if next_ms < entry.check_at_ms {
            entry.check_at_ms = next_ms;
            self.checks.push(Reverse((next_ms, halves(id))));
        }
    }

    /// A connection to a server is there, and which server it is. What was said on an earlier one is not
    /// answered any more.
    pub fn connected(&mut self, server: usize, run_id: Arc<str>, now_ms: u64) {
        if self.links.get(server).is_some_and(|link| !link.is_away()) {
            self.disconnected(server, now_ms);
        }
        self.pass(now_ms);
        if let Some(link) = self.links.get_mut(server) {
            link.connected(run_id, self.now_ms);
            self.beat(server);
        }
    }

    pub fn disconnected(&mut self, server: usize, now_ms: u64) {
        self.pass(now_ms);
        let Some(link) = self.links.get_mut(server) else { return };
        let calls = link.disconnected(self.now_ms);
        for call in calls {
            // What was not sent did not fail.
            self.counts.failures += u64::from(call.was_sent);
            for (id, seq) in call.about {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.unanswered(seq);
                }
            }
        }
        self.lapse(server);
    }

    /// Whoever waits for this server is answered without it.
    fn lapse(&mut self, server: usize) {
        let on = |entry: &Entry| entry.server() == Some(server) && entry.is_awaited();
        self.all(on).into_iter().for_each(|id| self.serve(id));
    }

    /// The server can be asked again: it hears what was spent without it.
    fn resume(&mut self, server: usize) {
        for id in self.all(|entry| entry.server() == Some(server) && entry.is_private()) {
            if let (Some(entry), Some(link)) =
                (self.entries.get_mut(&id), self.links.get_mut(server))
            {
                entry.push_due(id, link);
            }
        }
        self.lapse(server);
    }

    /// This node's part has become smaller: what it holds beyond that goes back.
    fn shrink(&mut self, server: usize) {
        let Some(most) = self.links.get(server).map(|link| |limit| link.most(limit)) else {
            return;
        };
        let more = |entry: &Entry| {
            entry.server() == Some(server) && entry.holds() > most(entry.bucket.rule.limit)
        };
        for id in self.all(more) {
            if let Some(link) = self.links.get_mut(server) {
                link.shrink(id);
            }
            self.serve(id);
        }
    }

    /// What a server says to a call, or that it does not; maybe long after the time-out.
    pub fn answered(
        &mut self,
        server: usize,
        call: u64,
        answer: Result<Answer, Failed>,
        now_ms: u64,
    ) {
        self.pass(now_ms);
        let Some(link) = self.links.get_mut(server) else { return };
        let Some(under_way) = link.answered(call, answer.is_ok(), self.now_ms) else { return };
        match &answer {
            Ok(_) => self.counts.calls += 1,
            Err(Failed) => self.counts.failures += 1,
        }
        let verdicts = match answer {
            Ok(Answer::Verdicts { now_ms: server_ms, verdicts })
                if verdicts.len() == under_way.about.len() =>
            {
                link.heard(server_ms, under_way.sent_ms, self.now_ms);
                verdicts
            }
            Ok(Answer::Generation { .. } | Answer::Unheard { .. }) => {
                // The next beat says what is to be done.
                link.doubt();
                Vec::new()
            }
            _ => Vec::new(),
        };
        let mut verdicts = verdicts.into_iter();
        for (id, seq) in under_way.about {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            match verdicts.next() {
                Some(verdict) => entry.verdict(seq, verdict, self.now_ms),
                None => entry.unanswered(seq),
            }
            if entry.has_parted() && !self.leaving {
                self.forget(id);
            }
            self.serve(id);
        }
        if let Some(link) = self.links.get_mut(server)
            && (link.has_restated() || link.is_beat_due(self.now_ms))
        {
            self.beat(server);
        }
    }

    pub fn beaten(&mut self, server: usize, beat: Result<Beaten, Failed>, now_ms: u64) {
        self.pass(now_ms);
        let Some(link) = self.links.get_mut(server) else { return };
        let Ok(beat) = beat else {
            self.counts.failures += 1;
            link.beat_failed();
            return self.lapse(server);
        };
        let recalled = beat.recalled.clone();
        let learned = link.beaten(beat, self.now_ms);
        self.counts.generations += u64::from(learned.new_generation);
        if learned.restate {
            for id in self.all(|entry| entry.server() == Some(server)) {
                if let (Some(entry), Some(link)) =
                    (self.entries.get_mut(&id), self.links.get_mut(server))
                {
                    entry.restate(id, link, learned.whole, self.now_ms);
                }
            }
        } else if learned.ready {
            self.resume(server);
        }
        if learned.shrink {
            self.shrink(server);
        }
        for key in recalled {
            self.recall(server, &key);
        }
        if self.links.get(server).is_some_and(Link::has_restated) {
            self.beat(server);
        }
    }

    fn recall(&mut self, server: usize, key: &str) {
        let frame = self.frame();
        let Some(id) = self.keys.get(&self.key_hash(key)).copied().map(whole) else { return };
        if let (Some(entry), Some(link)) = (self.entries.get_mut(&id), self.links.get_mut(server))
            && entry.server() == Some(server)
            && *bucket_key(&entry.bucket) == *key
        {
            entry.recall(id, frame, link, &mut self.output.told);
            self.serve(id);
        }
    }

    fn beat(&mut self, server: usize) {
        if let Some(link) = self.links.get_mut(server)
            && let Some(beat) = link.beat(&self.node, self.now_ms)
        {
            self.output.beats.push((server, beat));
        }
    }

    /// Lets time pass: time-outs, beats, buckets at rest.
    pub fn tick(&mut self, now_ms: u64) {
        self.pass(now_ms);
        for server in 0..self.links.len() {
            if self.links[server].lapses(self.timeout_ms, self.now_ms) {
                self.lapse(server);
            }
            if self.links[server].is_beat_due(self.now_ms) {
                self.beat(server);
            }
        }
        let mut looked = 0;
        while let Some(&Reverse((at_ms, id))) = self.checks.peek()
            && at_ms <= self.now_ms
            && looked < limits::LIMIT_CHECKS
        {
            looked += 1;
            self.checks.pop();
            self.check(whole(id), at_ms);
        }
    }

    fn check(&mut self, id: BucketId, at_ms: u64) {
        let frame = self.frame();
        let Some(entry) = self.entries.get_mut(&id).filter(|one| one.check_at_ms == at_ms) else {
            return;
        };
        entry.check_at_ms = u64::MAX;
        let link = entry.server().and_then(|server| self.links.get_mut(server));
        match entry.check(id, frame, link, &mut self.output.told) {
            true => self.schedule(id),
            false => self.forget(id),
        }
    }

    fn forget(&mut self, id: BucketId) {
        if let Some(entry) = self.entries.remove(&id)
            && entry.server().is_some()
        {
            let hash = self.key_hash(&bucket_key(&entry.bucket));
            self.keys.remove(&hash);
        }
    }

    /// The oldest go when there are too many, of those first of which nothing counts. What a server
    /// believes is held here goes back before. A part of all at once, so that the search is seldom.
    fn make_room(&mut self) {
        self.since_room += 1;
        let (have, bound) = (self.entries.len(), limits::LIMIT_BUCKETS);
        if have < bound || self.since_room < bound / 32 {
            return;
        }
        self.since_room = 0;
        let of = |id: &BucketId, entry: &Entry| (entry.counts(), entry.asked_ms, *id);
        let entries = self.entries.iter();
        let mut by_age: Vec<(bool, u64, BucketId)> =
            entries.map(|(id, entry)| of(id, entry)).collect();
        let go = (have / 16 + 1).min(have - 1);
        by_age.select_nth_unstable(go);
        for &(counts, _, id) in &by_age[..go] {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let link = entry.server().and_then(|server| self.links.get_mut(server));
            self.counts.evicted += 1;
            // If servers are too slow to take it back they keep it until this node ends.
            if let Some(link) = link
                && counts
                && have < bound + bound / 8
                && (!entry.is_free() || entry.part(id, false, link, self.now_ms))
            {
                continue;
            }
            self.forget(id);
        }
    }

    /// When [`Ledger::tick`] is to be called at the latest, in monotonic milliseconds.
    pub fn next_ms(&self) -> u64 {
        let check = self.checks.peek().map_or(u64::MAX, |Reverse((at_ms, _))| *at_ms);
        // What is overdue is done in parts.
        let links = self.links.iter().map(|link| link.next_ms(self.timeout_ms));
        links.min().unwrap_or(u64::MAX).min(check.max(self.now_ms + 1))
    }

    /// Takes what is to be sent.
    pub fn take_output(&mut self, out: &mut Output) {
        for server in 0..self.links.len() {
            loop {
                let link = &mut self.links[server];
                let due = link.take_due();
                if due.is_empty() {
                    break;
                }
                let mut statements = Vec::with_capacity(due.len());
                let mut about = Vec::with_capacity(due.len());
                for id in due {
                    let Some(entry) = self.entries.get_mut(&id) else { continue };
                    if let Some(statement) = entry.state(&self.links[server], self.now_ms) {
                        about.push((id, statement.seq));
                        statements.push(statement);
                    }
                }
                if statements.is_empty() {
                    continue;
                }
                let (number, call) =
                    self.links[server].call(&self.node, statements, about, self.now_ms);
                self.output.calls.push((server, number, call));
            }
        }
        out.calls.append(&mut self.output.calls);
        out.beats.append(&mut self.output.beats);
        out.told.append(&mut self.output.told);
    }

    /// Gives everything back, then says farewell: the process ends, its shards have ended. Done when
    /// [`Ledger::has_left`].
    pub fn leave(&mut self, now_ms: u64) {
        self.pass(now_ms);
        self.leaving = true;
        for server in 0..self.links.len() {
            let mut parting = HashSet::new();
            for (id, entry) in &mut self.entries {
                if entry.server() == Some(server)
                    && entry.part(*id, true, &mut self.links[server], self.now_ms)
                {
                    parting.insert(*id);
                }
            }
            self.links[server].leave(parting, self.now_ms);
            self.beat(server);
        }
    }

    /// Every server that can be asked knows that this node has left.
    pub fn has_left(&self) -> bool {
        self.leaving && self.links.iter().all(Link::has_left)
    }

    /// The buckets of a consumer, or all: the fullest first.
    pub fn list(&self, consumer: &str, most: usize) -> Vec<LimitLine> {
        let meant =
            |entry: &Entry| consumer.is_empty() || entry.bucket.consumer.as_ref() == consumer;
        let mut lines: Vec<LimitLine> = self
            .entries
            .values()
            .filter(|entry| meant(entry))
            .map(|entry| entry.line(entry.server().and_then(|at| self.links.get(at)), self.frame()))
            .collect();
        // Remaining of limit, without division.
        let fuller = |one: &LimitLine, two: &LimitLine| {
            let left = |a: &LimitLine, b: &LimitLine| u128::from(a.remaining) * u128::from(b.limit);
            left(one, two).cmp(&left(two, one)).then_with(|| one.bucket.cmp(&two.bucket))
        };
        lines.sort_by(fuller);
        lines.truncate(most);
        lines
    }

    pub fn counts(&self) -> Counts {
        let lost = self.links.iter().filter(|link| !link.is_ready()).count() as u64;
        let losses = self.links.iter().map(|link| link.losses).sum();
        let (servers, buckets) = (self.links.len() as u64, self.entries.len() as u64);
        Counts { servers, buckets, servers_lost: lost, losses, ..self.counts }
    }

    /// Whether the server can be asked now.
    pub fn is_ready(&self, server: usize) -> bool {
        self.links.get(server).is_some_and(Link::is_ready)
    }

    fn pass(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }
}

/// A [`BucketId`] where many lie beside something of 8 bytes: as one number each would take 16 of them.
type Halves = [u64; 2];

fn halves(id: BucketId) -> Halves {
    [(id >> 64) as u64, id as u64]
}

fn whole([high, low]: Halves) -> BucketId {
    u128::from(high) << 64 | u128::from(low)
}

/// `sluice:limit:{TAG}:NAME`.
pub fn bucket_key(bucket: &Bucket) -> Arc<str> {
    format!("sluice:limit:{{{}}}:{}", bucket.tag, bucket.name).into()
}

/// Which server keeps a bucket; `None`: this node alone does.
fn server_of(names: &[Arc<str>], bucket: &Bucket) -> Option<usize> {
    // By the tag, so that what counts by the same consumer is judged by one call.
    let shared = bucket.mode != LimitMode::Local && !names.is_empty();
    shared.then(|| redis_owner(names, bucket.tag.as_bytes()))
}

/// For shards: decided by the truth.
const EXACT: State = State::Exact;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
