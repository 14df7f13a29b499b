//! A Redis that stands still, and goes on.

use contract::snapshot::OnStoreFailure;

use super::hub::{Node, bucket, demand, worst};
use crate::store::redis::server::{RedisServer, until};

#[test]
fn while_redis_stands_still_nodes_go_on_by_their_part() {
    let redis = RedisServer::start();
    let bucket = bucket(200, 1_000, OnStoreFailure::Share);
    let mut nodes = ["a", "b"].map(|name| Node::start(&redis, name, &bucket));
    nodes.iter_mut().for_each(Node::await_exact);
    let mut times = demand(&mut nodes, 1_000);

    redis.freeze(true);
    let without = demand(&mut nodes, 3_000);
    redis.freeze(false);
    assert!(!nodes.iter().any(Node::is_exact), "it does not answer");
    // By the window's end at the latest each has its part of the next one.
    assert!(without.len() >= 100, "{} of 600", without.len());
    times.extend(without);

    until("all go by the truth again", || {
        times.extend(demand(&mut nodes, 20));
        nodes.iter().all(Node::is_exact)
    });
    let after = demand(&mut nodes, 2_000);
    assert!(after.len() >= 200, "{} of 400", after.len());
    times.extend(after);
    assert!(worst(&times, 1_000) <= 200, "{}", worst(&times, 1_000));
}
