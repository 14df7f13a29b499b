//! Nodes on a real Redis.

#![allow(clippy::disallowed_methods, reason = "tests live on the system's clocks")]

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use contract::Snapshot;
use contract::snapshot::{self, LimitMode, OnStoreFailure};
use smallvec::SmallVec;

use crate::io::monotonic_ms;
use crate::limit::messages::{Ask, Bucket, BucketId, Spent, State, Told};
use crate::limit::rule::{Rule, Span};
use crate::store::redis::Settings;
use crate::store::redis::server::{PATIENCE, RedisServer, until};
use crate::store::{News, Store};

/// A node of one shard, as simple as one can be.
pub(super) struct Node {
    pub store: Arc<Store>,
    /// Its shard among those of the store, each with a bucket.
    shard: u16,
    bucket: Arc<Bucket>,
    known: bool,
    pub hold: u64,
    spent: SmallVec<[Spent; 2]>,
    retry_at_ms: u64,
    pub last: Option<Told>,
}

const ID: BucketId = 7;

impl Node {
    pub fn start(redis: &RedisServer, name: &str, bucket: &Arc<Bucket>) -> Node {
        let settings = snapshot::Redis { urls: vec![redis.url()], ..Default::default() };
        let settings = Settings::of(&settings, &Snapshot::default()).unwrap();
        Node::with(&settings, name, bucket)
    }

    pub fn with(settings: &Settings, name: &str, bucket: &Arc<Bucket>) -> Node {
        let store = Store::start(1).unwrap();
        store.limits().configure(Some(settings), name, 50);
        Node::of(store, 0, bucket)
    }

    /// What the store's shard does.
    pub fn of(store: Arc<Store>, shard: u16, bucket: &Arc<Bucket>) -> Node {
        let (bucket, known) = (bucket.clone(), false);
        let (hold, spent, retry_at_ms) = (0, SmallVec::new(), 0);
        Node { store, shard, bucket, known, hold, spent, retry_at_ms, last: None }
    }

    /// Whether a request may go on.
    pub fn take(&mut self) -> bool {
        let now_ms = monotonic_ms();
        if self.hold == 0 && now_ms >= self.retry_at_ms {
            self.ask(1);
        }
        if self.hold == 0 {
            return false;
        }
        self.hold -= 1;
        self.spent.push(Spent { at_ms: monotonic_ms(), tokens: 1 });
        true
    }

    pub fn ask(&mut self, need: u64) {
        let told = self.say(need);
        if told.unknown {
            self.known = false;
            return self.ask(need);
        }
        self.hold += told.granted;
        self.retry_at_ms = told.retry_at_ms;
        self.last = Some(told);
    }

    fn say(&mut self, need: u64) -> Told {
        let ask = Ask {
            id: ID + BucketId::from(self.shard),
            bucket: (!self.known).then(|| self.bucket.clone()),
            hold: self.hold,
            spent: std::mem::take(&mut self.spent),
            need,
            waiting: need,
            want: 20 * need,
            debt: 0,
            last: false,
        };
        self.known = true;
        self.store.limits().ask(self.shard, ask);
        let until_ms = monotonic_ms() + PATIENCE.as_millis() as u64;
        loop {
            let mut answer = None;
            self.store.inboxes[usize::from(self.shard)].take(1, |news| match news {
                News::Limit(told) if told.answers => answer = Some(told),
                News::Limit(recall) if recall.fair < self.hold => self.retry_at_ms = 0,
                _ => {}
            });
            if let Some(told) = answer {
                return told;
            }
            assert!(monotonic_ms() < until_ms, "the ledger does not answer");
            sleep(Duration::from_micros(50));
        }
    }

    pub fn is_exact(&self) -> bool {
        self.last.as_ref().is_some_and(|told| told.state == State::Exact)
    }

    /// Decided by the truth, and it has got something.
    pub fn await_exact(&mut self) {
        let until_ms = monotonic_ms() + PATIENCE.as_millis() as u64;
        while !self.is_exact() || self.hold == 0 {
            assert!(monotonic_ms() < until_ms, "never exact: {:?}", self.last);
            self.ask(1);
            sleep(Duration::from_millis(5));
        }
    }
}

pub(super) fn bucket(limit: u64, ms: u64, on_store_failure: OnStoreFailure) -> Arc<Bucket> {
    Arc::new(Bucket {
        name: "gold:1s:consumer=acme".into(),
        tag: "acme".into(),
        consumer: "acme".into(),
        rule: Rule { limit, span: Span::Sliding { ms } },
        mode: LimitMode::Leased,
        on_store_failure,
    })
}

/// Most in any window.
pub(super) fn worst(times: &[u64], window_ms: u64) -> usize {
    let within =
        |at: usize| times[at..].iter().take_while(|ms| **ms < times[at] + window_ms).count();
    (0..times.len()).map(within).max().unwrap_or(0)
}

/// All nodes want as much as they can get for a while: when they got something.
pub(super) fn demand(nodes: &mut [Node], for_ms: u64) -> Vec<u64> {
    let (begun, mut times) = (monotonic_ms(), Vec::new());
    while monotonic_ms() < begun + for_ms {
        for node in &mut *nodes {
            if node.take() {
                times.push(monotonic_ms());
            }
        }
        sleep(Duration::from_micros(300));
    }
    times
}

#[test]
fn two_nodes_keep_one_limit_and_use_it_up() {
    let redis = RedisServer::start();
    let bucket = bucket(100, 1_000, OnStoreFailure::Share);
    let mut nodes = ["a", "b"].map(|name| Node::start(&redis, name, &bucket));
    nodes.iter_mut().for_each(Node::await_exact);
    let times = demand(&mut nodes, 3_500);
    assert!(worst(&times, 1_000) <= 100, "{}", worst(&times, 1_000));
    // Four times the limit fits: at the beginning, and after one, two and three seconds.
    assert!(times.len() > 300, "{} of 400", times.len());
    // A person can read it.
    let seen = redis.command(&["HGETALL", "sluice:limit:{acme}:gold:1s:consumer=acme"]);
    assert!(seen.contains("used") && seen.contains("held:a#"), "{seen}");
    let lines = nodes[0].store.limits().list("acme", 10);
    assert_eq!((lines.len(), lines[0].limit, &*lines[0].state), (1, 100, "exact"));
    assert!(nodes[0].store.limits().list("someone", 10).is_empty());
}

#[test]
fn without_redis_a_node_goes_on_by_what_it_holds_and_comes_back() {
    let mut redis = RedisServer::start();
    let bucket = bucket(1_000, 1_000, OnStoreFailure::Share);
    let mut nodes = ["a", "b"].map(|name| Node::start(&redis, name, &bucket));
    nodes.iter_mut().for_each(Node::await_exact);
    until("each has a half", || {
        redis.command(&["HVALS", "sluice:limit:{nodes}:shares"]).matches("500000").count() == 2
    });
    // They are told with the next beats, and lease as much when they have to ask again.
    sleep(Duration::from_millis(400));
    let mut times: Vec<u64> = Vec::new();
    for node in &mut nodes {
        for _ in 0..50 {
            until("there is one", || node.take());
            times.push(monotonic_ms());
        }
    }
    redis.kill();
    let mut without = demand(&mut nodes, 700);
    assert!(!without.is_empty(), "what a node holds it may spend");
    times.append(&mut without);
    redis.restart();
    nodes.iter_mut().for_each(Node::await_exact);
    times.append(&mut demand(&mut nodes, 1_500));
    assert!(worst(&times, 1_000) <= 1_000, "{}", worst(&times, 1_000));
    let late = times.iter().filter(|ms| **ms + 1_000 > *times.last().unwrap()).count();
    assert!(late > 900, "{late} in the last second");
}

#[test]
fn what_is_chosen_for_a_lost_redis_is_done() {
    for (chosen, state) in
        [(OnStoreFailure::Deny, State::Denied), (OnStoreFailure::Open, State::Open)]
    {
        let mut redis = RedisServer::start();
        let mut node = Node::start(&redis, "a", &bucket(5, 1_000, chosen));
        node.await_exact();
        redis.kill();
        let until_ms = monotonic_ms() + PATIENCE.as_millis() as u64;
        while node.last.as_ref().map(|told| told.state) != Some(state) {
            assert!(monotonic_ms() < until_ms, "{:?}", node.last);
            node.ask(1);
            sleep(Duration::from_millis(5));
        }
        redis.restart();
        node.await_exact();
    }
}

#[test]
fn a_server_that_forgets_is_told_again() {
    let redis = RedisServer::start();
    let bucket = bucket(50, 2_000, OnStoreFailure::Share);
    let mut nodes = ["a", "b"].map(|name| Node::start(&redis, name, &bucket));
    nodes.iter_mut().for_each(Node::await_exact);
    let mut times = demand(&mut nodes, 300);
    redis.command(&["FLUSHALL"]);
    times.append(&mut demand(&mut nodes, 3_000));
    assert!(worst(&times, 2_000) <= 50, "{}", worst(&times, 2_000));
    assert!(times.len() >= 90, "{} of 100", times.len());
}

#[test]
fn an_ask_without_servers_is_decided_here() {
    let store = Store::start(1).unwrap();
    let bucket = bucket(3, 60_000, OnStoreFailure::Share);
    let mut node = Node::of(store, 0, &bucket);
    assert_eq!((0..9).filter(|_| node.take()).count(), 3);
}
