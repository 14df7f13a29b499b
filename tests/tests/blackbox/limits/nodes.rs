//! Several nodes and a real Redis.

use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Redis, eventually};

use super::*;

fn shared(origin: &Origin, redis: &Redis, node: &str, limits: &[&str]) -> Spec {
    spec(origin, limits)
        .also(&format!("node: {{ name: {node} }}"))
        .also(&format!("redis: {{ urls: [ \"{}\" ] }}", redis.url()))
}

/// Lets each node be known to Redis before anything is counted.
#[track_caller]
fn settle(nodes: &[&Gateway], redis: &Redis) {
    for (n, node) in nodes.iter().enumerate() {
        let warm = format!("X-Who: warm-{n}\r\n");
        assert!(eventually(PATIENCE, || ask(node, "/", &warm).status == 200), "{n}");
    }
    let keys = || redis.command(&["KEYS", "sluice:limit:*"]);
    assert!(eventually(PATIENCE, || !keys().is_empty()));
    std::thread::sleep(std::time::Duration::from_millis(500));
}

#[test]
fn nodes_share_a_limit_in_each_mode() {
    let (origin, redis) = (Origin::echo(), Redis::start());
    for mode in ["leased", "strict"] {
        let limit = format!(
            "{{ name: {mode}, by: [ {{ header: x-who }} ], requests: 10, per: 1h, mode: {mode} }}"
        );
        let nodes =
            ["one", "two"].map(|name| Gateway::of(&shared(&origin, &redis, name, &[&limit])));
        settle(&[&nodes[0], &nodes[1]], &redis);
        let mut admitted = 0;
        for n in 0..30 {
            admitted += let_in(&nodes[n % 2], "/", "X-Who: a\r\n", 1);
        }
        assert_eq!(admitted, 10, "{mode}: from both");
        assert_eq!(let_in(&nodes[1], "/", "X-Who: b\r\n", 15), 10, "{mode}: all at one of them");
        assert_eq!(let_in(&nodes[0], "/", "X-Who: b\r\n", 5), 0, "{mode}");
        let used = redis.command(&["KEYS", &format!("sluice:limit:*{mode}*")]);
        assert!(!used.is_empty(), "a person can read it");
    }
}

#[test]
fn local_limits_need_no_redis() {
    let (origin, redis) = (Origin::echo(), Redis::start());
    let limit = "{ name: own, requests: 4, per: 1h, mode: local }";
    let nodes = ["one", "two"].map(|name| Gateway::of(&shared(&origin, &redis, name, &[limit])));
    for node in &nodes {
        assert_eq!(let_in(node, "/", "", 9), 4, "each its own");
    }
    drop(redis);
    assert_eq!(let_in(&nodes[0], "/", "", 3), 0);
}

#[test]
fn what_holds_without_redis_is_as_the_policy_says() {
    let (origin, mut redis) = (Origin::echo(), Redis::start());
    let limits = [
        "{ name: s, by: [ { header: x-s }, { header: x-who } ], requests: 6, per: 1h }",
        "{ name: d, by: [ { path: \"/deny/{x}\" } ], requests: 6, per: 1h, on_store_failure: deny }",
        "{ name: o, by: [ { path: \"/open/{x}\" } ], requests: 6, per: 1h, on_store_failure: open }",
    ];
    let gateway = Gateway::of(&shared(&origin, &redis, "one", &limits));
    settle(&[&gateway], &redis);
    assert_eq!(let_in(&gateway, "/", "X-S: a\r\n", 2), 2);
    redis.kill();
    let denied = || {
        let response = ask(&gateway, "/deny/a", "X-S: d\r\n");
        response.status == 503 && response.problem().as_deref() == Ok("limit_unavailable")
    };
    assert!(eventually(PATIENCE, denied));
    let (_, metrics) = gateway.admin("/metrics");
    assert!(metrics.contains("sluice_limit"), "{metrics}");
    for n in 0..12 {
        let field = format!("X-S: o{n}\r\n");
        let response = ask(&gateway, "/open/a", &field);
        assert!(matches!(response.status, 200 | 429), "{:?}", response.head);
    }
    let admitted = let_in(&gateway, "/", "X-S: a\r\n", 20);
    assert!(admitted <= 4, "never beyond the limit: {admitted}");
    redis.restart();
    // Redis has forgotten, the node has not.
    assert!(eventually(PATIENCE, || ask(&gateway, "/deny/b", "X-S: e\r\n").status == 200));
    assert_eq!(let_in(&gateway, "/", "X-S: a\r\n", 20) + admitted, 4, "in all six");
}

#[test]
fn a_node_that_leaves_tells_what_it_has_spent() {
    let (origin, redis) = (Origin::echo(), Redis::start());
    let limit = "{ name: plenty, by: [ { header: x-who } ], requests: 1000, per: 1h }";
    let one = Gateway::of(&shared(&origin, &redis, "one", &[limit]));
    settle(&[&one], &redis);
    assert_eq!(let_in(&one, "/", "X-Who: a\r\n", 300), 300);
    drop(one);
    let two = Gateway::of(&shared(&origin, &redis, "two", &[limit]));
    settle(&[&two], &redis);
    // What its shards held counts as spent.
    let rest = let_in(&two, "/", "X-Who: a\r\n", 720);
    assert!((1..=700).contains(&rest), "{rest} beside 300 of 1,000");
}
