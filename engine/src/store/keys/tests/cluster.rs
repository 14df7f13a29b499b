//! Keys in a real Redis Cluster.

#![allow(clippy::disallowed_methods, reason = "tests live on the system's clocks")]

use std::process::Command;
use std::time::Duration;

use contract::snapshot::{self, REDIS_USED};

use super::asking::{Node, is_revoked, place, terms};
use crate::store::redis::server::{RedisServer, until};

/// Servers that are a cluster: three primaries, and the rest replicas of theirs.
pub(in crate::store) struct Cluster {
    pub servers: Vec<RedisServer>,
}

impl Cluster {
    pub fn start(replicas: usize) -> Cluster {
        let server = |arguments: &[&str]| RedisServer::start_with(arguments);
        Cluster::start_with(replicas, server, |server| server.port, &[])
    }

    /// Of servers that `server` starts with these arguments and more, which know each other by `port`;
    /// `cli` is what redis-cli is told to get there.
    pub fn start_with(
        replicas: usize,
        server: impl Fn(&[&str]) -> RedisServer,
        port: impl Fn(&RedisServer) -> u16,
        cli: &[&str],
    ) -> Cluster {
        let arguments = [
            ["--cluster-enabled", "yes"],
            ["--cluster-node-timeout", "1000"],
            // Who was cut off for longer than this does not take over: never mind.
            ["--cluster-replica-validity-factor", "0"],
            ["--cluster-require-full-coverage", "no"],
        ];
        let arguments = arguments.concat();
        let servers: Vec<RedisServer> =
            (0..3 * (1 + replicas)).map(|_| server(&arguments)).collect();
        let place_of = |server: &RedisServer| format!("127.0.0.1:{}", port(server));
        let mut create = Command::new("redis-cli");
        create.args(cli).args(["--cluster", "create"]).args(servers.iter().map(place_of));
        create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
        let created = create.output().unwrap();
        assert!(created.status.success(), "{created:?}");
        let cluster = Cluster { servers };
        until("the cluster is well", || {
            let is_well = |server: &RedisServer| {
                let known = server.command(&["CLUSTER", "NODES"]);
                server.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                    && known.matches("slave").count() == 3 * replicas
                    // Replicas have the state of their primaries.
                    && (role(server) == "master"
                        || server.command(&["INFO", "replication"]).contains("master_link_status:up"))
            };
            cluster.servers.iter().all(is_well)
        });
        cluster
    }

    /// A node that knows of one server, and finds the others.
    fn node(&self, known: usize) -> Node {
        let redis = snapshot::Redis {
            urls: vec![self.servers[known].url()],
            cluster: true,
            ..snapshot::Redis::default()
        };
        let node = Node::start(redis, terms());
        node.await_tracking(3);
        node
    }

    /// Runs a command where its key is, through the server `by`.
    fn run(&self, by: usize, parts: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-c", "-p", &self.servers[by].port.to_string()]).args(parts);
        let ran = cli.output().unwrap();
        let text = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
        assert!(ran.status.success(), "{ran:?}");
        text
    }
}

pub(in crate::store) fn role(server: &RedisServer) -> String {
    server.command(&["ROLE"]).split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn a_cluster_tells_of_changes_on_all_its_nodes() {
    let cluster = Cluster::start(0);
    let node = cluster.node(1);
    let run = |parts: &[&str]| cluster.run(0, parts);
    for n in 0..12 {
        let key = format!("key {n}");
        assert!(node.refuses(&key));
        run(&["SET", &place(&key), r#"{"consumer":"acme"}"#]);
        let took = until("it is found", || node.knows(&key));
        assert!(took < Duration::from_secs(1), "{took:?}");
        let standing = node.standing(&key);
        assert!(standing.fresh_ms > 1_000, "changes of it are told");
        run(&["DEL", &place(&key)]);
        until("shards are told", || is_revoked(&standing));
        assert!(node.refuses(&key));
    }
    let used = |server: &RedisServer| server.command(&["KEYS", "sluice:used:*"]).len();
    until("the last uses are written where they belong", || {
        cluster.servers.iter().map(used).sum::<usize>() >= 12 * (REDIS_USED.len() + 64)
    });
}

#[test]
fn a_replica_takes_over_and_nobody_slips_in() {
    let mut cluster = Cluster::start(1);
    let is_primary = |at: &usize| role(&cluster.servers[*at]) == "master";
    let primaries: Vec<usize> = (0..6).filter(is_primary).collect();
    let [victim, survivor, _] = primaries[..] else { panic!("{primaries:?}") };
    let key = |n: usize| format!("key {n}");
    for n in 0..60 {
        cluster.run(survivor, &["SET", &place(&key(n)), r#"{"consumer":"acme"}"#]);
    }
    let held = |keys: &[String], at: usize| -> Vec<String> {
        let all = cluster.servers[at].command(&["KEYS", "*"]);
        keys.iter().filter(|key| all.contains(&place(key))).cloned().collect()
    };
    let keys: Vec<String> = (0..60).map(key).collect();
    let [lost, safe] = [victim, survivor].map(|at| held(&keys, at));
    assert!(lost.len() >= 4 && safe.len() >= 2, "{} and {}", lost.len(), safe.len());
    until("replicas have it all", || {
        let copies = (0..6).filter(|at| !primaries.contains(at));
        copies.map(|at| held(&keys, at).len()).sum::<usize>() == keys.len()
    });

    let node = cluster.node(survivor);
    let (used, fresh) = (&lost[0], &lost[1]);
    assert!(node.knows(used) && node.knows(&safe[0]));
    let standing = node.standing(used);
    cluster.servers[victim].kill();

    // Before, while and after a replica takes over: what is known goes on, what is nobody's stays out.
    let strangers: Vec<String> = (0..20).map(|n| format!("stranger {n}")).collect();
    let mut turn = 0;
    until("the replica answers", || {
        assert!(node.knows(used), "it was known, and Redis is away for a while");
        turn += 1;
        let stranger = &strangers[turn % strangers.len()];
        assert!(node.refuses(stranger) || node.cannot_say(stranger), "an open door");
        node.knows(fresh)
    });
    assert!(is_revoked(&standing), "shards ask again");
    until("nobody's keys are refused again", || strangers.iter().all(|key| node.refuses(key)));
    for key in lost.iter().chain(&safe) {
        until("every key is known", || node.knows(key));
    }

    // The new primary tells of changes.
    until("changes are told", || node.standing(used).fresh_ms > 1_000);
    let standing = node.standing(used);
    assert_eq!(cluster.run(survivor, &["DEL", &place(used)]), "1");
    until("shards are told", || is_revoked(&standing));
    until("it is revoked", || node.refuses(used));
}
