//! The node's ledger: leases tokens to shards, and from Redis. It lives on the store thread, and does no
//! I/O and reads no clock: what is to be sent it puts into an [`Output`].
//!
//! Of each bucket it knows what its shards hold and, in its *pool*, what nobody of them does. Together
//! that is its *stock*. Without Redis the stock is what the limit leaves (an [`Account`] is the truth);
//! with Redis it is what the server has granted. While the server cannot be asked, the stock of that
//! moment, and what was spent since the last statement, are a limit of the node's own ([`entry`]).

mod entry;
mod link;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use contract::LimitLine;
use contract::snapshot::{LimitMode, redis_owner};
use foldhash::fast::RandomState;

use self::entry::Entry;
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

/// What the ledger counts; only grows, but for the last three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub calls: u64,
    pub failures: u64,
    pub losses: u64,
    pub generations: u64,
    pub servers: u64,
    pub servers_lost: u64,
    pub buckets: u64,
}

/// All that a node knows of limits.
#[derive(Debug)]
pub struct Ledger {
    shards: u16,
    node: NodeId,
    timeout_ms: u64,
    entries: HashMap<BucketId, Entry, RandomState>,
    /// By the name in Redis, for recalls.
    keys: HashMap<Arc<str>, BucketId, RandomState>,
    links: Vec<Link>,
    names: Vec<Arc<str>>,
    /// When to look at a bucket without being asked; one entry for each bucket.
    checks: BinaryHeap<Reverse<(u64, BucketId)>>,
    now_ms: u64,
    leaving: bool,
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
            leaving: false,
            counts: Counts::default(),
            output: Output::default(),
        }
    }

    /// Another name for the node: before it has servers, or with others.
    pub fn rename(&mut self, node: NodeId) {
        self.node = node;
    }

    /// Other servers from now on, by their names (as [`redis_owner`] wants them); none: none. Buckets
    /// begin anew with them. What the old ones believe that this node holds they forget with the node.
    pub fn set_servers(&mut self, names: &[Arc<str>], timeout_ms: u64, now_ms: u64) {
        self.pass(now_ms);
        self.timeout_ms = timeout_ms.max(1);
        if self.names == names {
            return;
        }
        self.names = names.to_vec();
        self.links = names.iter().map(|_| Link::new(now_ms)).collect();
        let (links, names) = (&self.links, &self.names);
        for entry in self.entries.values_mut() {
            entry.place(server_of(names, &entry.bucket), links, now_ms);
        }
        for id in self.entries.keys().copied().collect::<Vec<_>>() {
            self.serve(id);
        }
    }

    /// A shard says how it stands.
    pub fn ask(&mut self, shard: u16, ask: Ask, now_ms: u64) {
        self.pass(now_ms);
        let id = ask.id;
        if !self.entries.contains_key(&id) {
            let Some(bucket) = ask.bucket.clone() else {
                // Forgotten here, known there: it has to say what it is about.
                self.output.told.push((shard, entry::unknown(id)));
                return;
            };
            self.make_room();
            let place = server_of(&self.names, &bucket);
            self.keys.insert(bucket_key(&bucket), id);
            self.checks.push(Reverse((now_ms + entry::check_ms(&bucket.rule), id)));
            let mut entry = Entry::new(bucket, now_ms);
            entry.place(place, &self.links, now_ms);
            self.entries.insert(id, entry);
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.hear(shard, ask, now_ms);
        self.serve(id);
    }

    /// Answers whom it can, and asks the server for the rest.
    fn serve(&mut self, id: BucketId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let link = entry.server.and_then(|server| self.links.get_mut(server));
        entry.serve(id, self.shards, self.now_ms, link, &mut self.output.told);
    }

    /// A connection to a server is there, and which server it is.
    pub fn connected(&mut self, server: usize, run_id: Arc<str>, now_ms: u64) {
        self.pass(now_ms);
        if let Some(link) = self.links.get_mut(server) {
            link.connected(run_id, now_ms);
            self.beat(server);
        }
    }

    pub fn disconnected(&mut self, server: usize, now_ms: u64) {
        self.pass(now_ms);
        let Some(link) = self.links.get_mut(server) else { return };
        let calls = link.disconnected(now_ms);
        for call in calls {
            self.counts.failures += 1;
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
        let on = |entry: &Entry| entry.server == Some(server) && entry.is_awaited();
        let waiting: Vec<_> =
            self.entries.iter().filter(|(_, entry)| on(entry)).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|id| self.serve(id));
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
        let Some(under_way) = link.answered(call, answer.is_ok(), now_ms) else { return };
        match &answer {
            Ok(_) => self.counts.calls += 1,
            Err(Failed) => self.counts.failures += 1,
        }
        let verdicts = match answer {
            Ok(Answer::Verdicts { now_ms: server_ms, verdicts })
                if verdicts.len() == under_way.about.len() =>
            {
                link.heard(server_ms, under_way.sent_ms);
                verdicts
            }
            Ok(Answer::Generation { .. } | Answer::Unheard { .. }) => {
                // The next beat says what is to be done.
                link.doubt();
                Vec::new()
            }
            _ => Vec::new(),
        };
        let ready = link.is_ready();
        let mut verdicts = verdicts.into_iter();
        for (id, seq) in under_way.about {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            match verdicts.next() {
                Some(verdict) => entry.verdict(seq, verdict, ready, now_ms),
                None => entry.unanswered(seq),
            }
            self.serve(id);
        }
        if let Some(link) = self.links.get_mut(server)
            && link.has_restated()
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
            return;
        };
        let recalled = beat.recalled.clone();
        let told = link.beaten(beat, now_ms);
        if told.new_generation {
            self.counts.generations += 1;
        }
        if told.restate {
            let of = |entry: &Entry| entry.server == Some(server);
            let all: Vec<_> =
                self.entries.iter().filter(|(_, entry)| of(entry)).map(|(id, _)| *id).collect();
            for id in all {
                let Some(entry) = self.entries.get_mut(&id) else { continue };
                let Some(link) = self.links.get_mut(server) else { return };
                entry.restate(id, link, told.whole, now_ms);
            }
            let done = self.links.get(server).is_some_and(Link::has_restated);
            if done {
                self.beat(server);
            }
        } else if told.ready {
            self.lapse(server);
        }
        for key in recalled {
            if let Some(id) = self.keys.get(&key).copied()
                && let Some(entry) = self.entries.get_mut(&id)
            {
                entry.recall(id, now_ms, &mut self.output.told);
                self.serve(id);
            }
        }
    }

    fn beat(&mut self, server: usize) {
        if let Some(link) = self.links.get_mut(server)
            && let Some(beat) = link.beat(&self.node, self.leaving, self.now_ms)
        {
            self.output.beats.push((server, beat));
        }
    }

    /// Lets time pass: time-outs, beats, buckets at rest.
    pub fn tick(&mut self, now_ms: u64) {
        self.pass(now_ms);
        for server in 0..self.links.len() {
            let late = self.links[server].late(self.timeout_ms, self.now_ms);
            for (id, seq) in late.about {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.late(seq, self.now_ms);
                }
                self.serve(id);
            }
            if late.lost {
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
            self.check(id);
        }
    }

    fn check(&mut self, id: BucketId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let link = entry.server.and_then(|server| self.links.get_mut(server));
        match entry.check(id, self.shards, self.now_ms, link, &mut self.output.told) {
            Some(next_ms) => self.checks.push(Reverse((next_ms, id))),
            None => self.forget(id),
        }
    }

    fn forget(&mut self, id: BucketId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.keys.remove(&bucket_key(&entry.bucket));
        }
    }

    /// The oldest go when there are too many: first those of which nothing counts.
    fn make_room(&mut self) {
        if self.entries.len() < limits::LIMIT_BUCKETS {
            return;
        }
        // A part of them at once, so that the search is seldom.
        let mut by_age: Vec<(bool, u64, BucketId)> =
            self.entries.iter().map(|(id, entry)| (entry.counts(), entry.asked_ms, *id)).collect();
        let go = by_age.len() / 16 + 1;
        by_age.select_nth_unstable(go);
        for &(_, _, id) in &by_age[..go] {
            if let Some(entry) = self.entries.get_mut(&id)
                && let Some(link) = entry.server.and_then(|server| self.links.get_mut(server))
            {
                entry.part(id, link, self.now_ms);
            }
            self.forget(id);
        }
    }

    /// When [`Ledger::tick`] is to be called at the latest, in monotonic milliseconds.
    pub fn next_ms(&self) -> u64 {
        let check = self.checks.peek().map_or(u64::MAX, |Reverse((at_ms, _))| *at_ms);
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
                    if let Some(statement) = entry.state(self.now_ms) {
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

    /// Gives everything back and says farewell: the process ends.
    pub fn leave(&mut self, now_ms: u64) {
        self.pass(now_ms);
        self.leaving = true;
        for (id, entry) in &mut self.entries {
            if let Some(link) = entry.server.and_then(|server| self.links.get_mut(server)) {
                entry.part(*id, link, now_ms);
            }
        }
        (0..self.links.len()).for_each(|server| self.beat(server));
    }

    /// The buckets of a consumer, or all: the fullest first.
    pub fn list(&self, consumer: &str, most: usize) -> Vec<LimitLine> {
        let meant =
            |entry: &&Entry| consumer.is_empty() || entry.bucket.consumer.as_ref() == consumer;
        let mut lines: Vec<LimitLine> = self
            .entries
            .values()
            .filter(meant)
            .map(|entry| entry.line(entry.server.and_then(|at| self.links.get(at)), self.now_ms))
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
