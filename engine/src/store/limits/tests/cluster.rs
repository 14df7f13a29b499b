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
use crate::store::redis::server::until;

const LIMIT: u64 = 60;
const BUCKETS: usize = 6;

/// Two nodes, each with all buckets: one for each of its shards.
struct Nodes {
    all: Vec<Node>,
    /// When something was granted, by bucket.
    times: Vec<Vec<u64>>,
}

impl Nodes {
    fn start(cluster: &Cluster) -> Nodes {
        let urls = cluster.servers.iter().map(|server| server.url()).collect();
        let redis = snapshot::Redis { urls, cluster: true, ..Default::default() };
        let settings = Settings::of(&redis, &Snapshot::default()).unwrap();
        let mut all = Vec::new();
        for name in ["a", "b"] {
            let store = Store::start(BUCKETS).unwrap();
            store.limits().configure(Some(&settings), name, 50);
            all.extend((0..BUCKETS).map(|at| Node::of(store.clone(), at as u16, &named(at))));
        }
        all.iter_mut().for_each(Node::await_exact);
        Nodes { all, times: vec![Vec::new(); BUCKETS] }
    }

    fn demand(&mut self, for_ms: u64) {
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

    /// Forgets what was granted, and tells the most of it in any window.
    fn worst(&mut self) -> usize {
        let times = std::mem::replace(&mut self.times, vec![Vec::new(); BUCKETS]);
        times.iter().map(|times| worst(times, 1_000)).max().unwrap()
    }

    fn await_exact(&mut self) {
        until("all go by the truth again", || {
            self.demand(20);
            self.all.iter().all(Node::is_exact)
        });
    }
}

/// Each tag has a slot of its own.
fn named(at: usize) -> Arc<Bucket> {
    let one = Arc::into_inner(bucket(LIMIT, 1_000, OnStoreFailure::Share)).unwrap();
    Arc::new(Bucket { tag: format!("acme{at}").into(), ..one })
}

#[test]
fn buckets_are_spread_over_a_cluster_and_each_limit_is_kept() {
    let cluster = Cluster::start(0);
    let mut nodes = Nodes::start(&cluster);
    nodes.demand(2_500);
    let least = nodes.times.iter().map(Vec::len).min().unwrap();
    assert!(nodes.worst() <= LIMIT as usize);
    assert!(least > LIMIT as usize, "{least} of {}", 3 * LIMIT);
    let buckets = |at: usize| {
        let keys = cluster.servers[at].command(&["KEYS", "sluice:limit:{acme*"]);
        keys.split(' ').filter(|key| !key.is_empty()).count()
    };
    let spread: Vec<usize> = (0..3).map(buckets).collect();
    assert!(spread.iter().sum::<usize>() == BUCKETS && !spread.contains(&BUCKETS), "{spread:?}");

    // What `protocol.rs` says of a primary that loses its memory: no more than twice the limit, and soon
    // the limit again.
    let victim = (0..3).max_by_key(|at| spread[*at]).unwrap();
    nodes.demand(300);
    cluster.servers[victim].command(&["FLUSHALL"]);
    nodes.demand(2_000);
    nodes.await_exact();
    assert!(nodes.worst() <= 2 * LIMIT as usize);
    nodes.demand(2_000);
    assert!(nodes.worst() <= LIMIT as usize);
}

#[test]
fn a_cluster_goes_on_with_a_replica() {
    let mut cluster = Cluster::start(1);
    let mut nodes = Nodes::start(&cluster);
    nodes.demand(1_000);
    let victim = (0..6).find(|at| role(&cluster.servers[*at]) == "master").unwrap();
    cluster.servers[victim].kill();
    let rest: Vec<usize> = (0..6).filter(|at| *at != victim).collect();
    until("a replica takes over", || {
        nodes.demand(20);
        rest.iter().filter(|at| role(&cluster.servers[**at]) == "master").count() == 3
    });
    nodes.demand(1_000);
    nodes.await_exact();
    assert!(nodes.worst() <= 2 * LIMIT as usize);
    // What is from before that has left the window.
    nodes.demand(1_500);
    nodes.worst();
    nodes.demand(2_000);
    let least = nodes.times.iter().map(Vec::len).min().unwrap();
    assert!(nodes.worst() <= LIMIT as usize);
    assert!(least >= LIMIT as usize, "{least} of {}", 2 * LIMIT);
}
