//! Limits in a real Redis Cluster.

#![allow(clippy::disallowed_methods, reason = "tests live on the system's clocks")]

use std::sync::Arc;

use contract::Snapshot;
use contract::snapshot::{self, OnStoreFailure};

use super::hub::{Node, bucket, worst};
use crate::io::monotonic_ms;
use crate::limit::messages::Bucket;
use crate::store::Store;
use crate::store::keys::tests::cluster::{Cluster, role};
use crate::store::redis::Settings;
use crate::store::redis::server::{RedisServer, until};

pub(super) const LIMIT: u64 = 60;
const BUCKETS: usize = 6;

/// Two nodes, each with all buckets: one for each of its shards.
pub(super) struct Nodes {
    all: Vec<Node>,
    /// When something was granted, by bucket.
    times: Vec<Vec<u64>>,
}

impl Nodes {
    fn start(cluster: &Cluster) -> Nodes {
        let urls = cluster.servers.iter().map(|server| server.url()).collect();
        let redis = snapshot::Redis { urls, cluster: true, ..Default::default() };
        Nodes::with(&Settings::of(&redis, &Snapshot::default()).unwrap())
    }

    pub fn with(settings: &Settings) -> Nodes {
        let mut all = Vec::new();
        for name in ["a", "b"] {
            let store = Store::start(BUCKETS).unwrap();
            store.limits().configure(Some(settings), name, 50);
            all.extend((0..BUCKETS).map(|at| Node::of(store.clone(), at as u16, &named(at))));
        }
        let mut nodes = Nodes { all, times: vec![Vec::new(); BUCKETS] };
        nodes.await_exact();
        nodes
    }

    pub fn demand(&mut self, for_ms: u64) {
        let begun_ms = monotonic_ms();
        while monotonic_ms() < begun_ms + for_ms {
            for (at, node) in self.all.iter_mut().enumerate() {
                if node.take() {
                    self.times[at % BUCKETS].push(monotonic_ms());
                }
            }
            std::thread::sleep(std::time::Duration::from_micros(300));
        }
    }

    /// The most that was granted of a bucket in any window since the start.
    pub fn worst(&self) -> u64 {
        self.times.iter().map(|times| worst(times, 1_000) as u64).max().unwrap()
    }

    /// The least that was granted of a bucket since then.
    pub fn least(&self, since_ms: u64) -> u64 {
        let count = |times: &Vec<u64>| times.iter().filter(|ms| **ms >= since_ms).count() as u64;
        self.times.iter().map(count).min().unwrap()
    }

    /// Whether both nodes decide about that bucket by the truth.
    fn is_exact(&self, bucket: usize) -> bool {
        [bucket, bucket + BUCKETS].into_iter().all(|at| self.all[at].is_exact())
    }

    pub fn await_exact(&mut self) {
        until("all go by the truth", || {
            self.demand(20);
            (0..BUCKETS).all(|bucket| self.is_exact(bucket))
        });
    }

    /// All go by the truth again, get their limit, and never got more.
    fn assert_kept(&mut self) {
        self.await_exact();
        // What others may have spent before is waited out for a window and more.
        self.demand(2_500);
        let now_ms = monotonic_ms();
        self.demand(2_500);
        let least = self.least(now_ms);
        assert!(least > LIMIT, "{least} of {}", 2 * LIMIT);
        assert!(self.worst() <= LIMIT, "{} of {LIMIT}", self.worst());
    }
}

/// Each tag has a partition of its own.
fn named(at: usize) -> Arc<Bucket> {
    let one = Arc::into_inner(bucket(LIMIT, 1_000, OnStoreFailure::Share)).unwrap();
    Arc::new(Bucket { tag: format!("acme{at}").into(), ..one })
}

/// The buckets that a server has.
fn buckets(server: &RedisServer) -> Vec<usize> {
    let keys = server.command(&["KEYS", "sluice:limit:{p*}{acme*"]);
    (0..BUCKETS).filter(|at| keys.contains(&format!("{{acme{at}}}"))).collect()
}

/// A primary that has buckets.
fn busy(cluster: &Cluster) -> usize {
    let all = 0..cluster.servers.len();
    let of = |at: &usize| match role(&cluster.servers[*at]).as_str() {
        "master" => buckets(&cluster.servers[*at]).len(),
        _ => 0,
    };
    all.max_by_key(of).unwrap()
}

#[test]
fn buckets_are_spread_over_a_cluster_and_primaries_that_forget_are_told_again() {
    let cluster = Cluster::start(0);
    let mut nodes = Nodes::start(&cluster);
    let now_ms = monotonic_ms();
    nodes.demand(2_500);
    let least = nodes.least(now_ms);
    assert!(least > LIMIT, "{least} of {}", 3 * LIMIT);
    let spread: Vec<usize> = cluster.servers.iter().map(|one| buckets(one).len()).collect();
    assert!(spread.iter().sum::<usize>() == BUCKETS && !spread.contains(&BUCKETS), "{spread:?}");
    for at in (0..3).chain(0..3) {
        cluster.servers[at].command(&["FLUSHALL"]);
        // At other places of the window.
        nodes.demand(1_300);
        nodes.await_exact();
    }
    nodes.assert_kept();
}

#[test]
fn a_cluster_goes_on_with_a_replica() {
    let mut cluster = Cluster::start(1);
    let mut nodes = Nodes::start(&cluster);
    nodes.demand(1_000);
    let victim = busy(&cluster);
    cluster.servers[victim].kill();
    let rest: Vec<usize> = (0..6).filter(|at| *at != victim).collect();
    until("a replica takes over", || {
        nodes.demand(20);
        rest.iter().filter(|at| role(&cluster.servers[**at]) == "master").count() == 3
    });
    nodes.assert_kept();
}

#[test]
fn a_primary_that_comes_back_empty_concerns_its_buckets_alone() {
    let mut cluster = Cluster::start(0);
    let mut nodes = Nodes::start(&cluster);
    nodes.demand(1_000);
    let victim = busy(&cluster);
    let lost = buckets(&cluster.servers[victim]);
    cluster.servers[victim].kill();
    let others: Vec<usize> = (0..BUCKETS).filter(|at| !lost.contains(at)).collect();
    assert!(!lost.is_empty() && !others.is_empty(), "{lost:?}");
    until("its buckets are missed, and others are not", || {
        nodes.demand(20);
        let missed = lost.iter().all(|at| !nodes.is_exact(*at));
        missed && others.iter().all(|at| nodes.is_exact(*at))
    });
    nodes.demand(500);
    cluster.servers[victim].restart();
    nodes.assert_kept();
    // At once, so that nobody can have noticed by a missing beat.
    cluster.servers[victim].restart();
    nodes.assert_kept();
}
