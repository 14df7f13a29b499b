//! Limits in a Redis whose primary Sentinels know, and replace.

#![allow(clippy::disallowed_methods, reason = "tests live on the system's clocks and sockets")]

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use contract::Snapshot;
use contract::snapshot::{self, OnStoreFailure};

use super::hub::{Node, bucket, demand, worst};
use crate::store::keys::tests::cluster::role;
use crate::store::redis::Settings;
use crate::store::redis::server::{RedisServer, until};

/// Ends with this, and its file.
pub(super) struct Sentinel {
    port: u16,
    file: PathBuf,
    process: Child,
}

impl Sentinel {
    /// Watches the primary at `primary`, with others: two must agree. `more`: lines of its file.
    pub fn start(primary: u16, more: &str) -> Sentinel {
        // Another process may take the port in between.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let place = format!("sluice-sentinel-{}-{port}.conf", std::process::id());
            let file = std::env::temp_dir().join(place);
            let text = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {primary} 2\n\
                 sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n\
                 {more}"
            );
            std::fs::write(&file, text).unwrap();
            let process = Command::new("redis-server")
                .arg(&file)
                .arg("--sentinel")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("redis-server is installed");
            let mut sentinel = Sentinel { port, file, process };
            let mut runs = false;
            until("it runs or has ended", || {
                runs = TcpStream::connect(("127.0.0.1", port)).is_ok();
                runs || sentinel.process.try_wait().unwrap().is_some()
            });
            if runs {
                return sentinel;
            }
        }
        panic!("no Sentinel starts");
    }

    fn ask(&self, parts: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        let ran = cli.args(["-p", &self.port.to_string()]).args(parts).output().unwrap();
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    /// Whether it knows the replica, and the other Sentinels.
    fn knows_all(&self) -> bool {
        let text = self.ask(&["SENTINEL", "MASTER", "main"]);
        let lines: Vec<&str> = text.lines().collect();
        let is = |name: &str, value: &str| lines.windows(2).any(|pair| pair == [name, value]);
        is("num-slaves", "1") && is("num-other-sentinels", "2")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

#[test]
fn a_promoted_replica_keeps_the_limit_of_the_primary_that_died() {
    let primary = RedisServer::start();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    let sentinels: Vec<Sentinel> = (0..3).map(|_| Sentinel::start(primary.port, "")).collect();

    let urls = sentinels.iter().map(|one| format!("redis://127.0.0.1:{}", one.port)).collect();
    let redis = snapshot::Redis { urls, sentinel: Some("main".into()), ..Default::default() };
    let settings = Settings::of(&redis, &Snapshot::default()).unwrap();
    assert_kept_by_replica(primary, &replica, &sentinels, &settings);
}

/// The primary dies, its replica takes over, and nobody gets more than the limit.
pub(super) fn assert_kept_by_replica(
    mut primary: RedisServer,
    replica: &RedisServer,
    sentinels: &[Sentinel],
    settings: &Settings,
) {
    until("the replica is in step", || {
        replica.command(&["INFO", "replication"]).contains("master_link_status:up")
    });
    until("Sentinels know each other", || sentinels.iter().all(Sentinel::knows_all));
    let bucket = bucket(200, 1_000, OnStoreFailure::Share);
    let mut nodes = ["a", "b"].map(|name| Node::with(settings, name, &bucket));
    nodes.iter_mut().for_each(Node::await_exact);
    let mut times = demand(&mut nodes, 700);
    let generation = |server: &RedisServer| {
        server.command(&["HMGET", "sluice:limit:{nodes}:generation", "id", "run_id"])
    };
    let before = generation(&primary);

    primary.kill();
    until("nodes miss it", || {
        times.extend(demand(&mut nodes, 20));
        !nodes.iter().any(Node::is_exact)
    });
    until("the replica is promoted", || {
        times.extend(demand(&mut nodes, 20));
        role(replica) == "master"
    });
    until("all go by its truth", || {
        times.extend(demand(&mut nodes, 20));
        nodes.iter().all(Node::is_exact)
    });
    let after = demand(&mut nodes, 2_500);
    assert!(after.len() >= 200, "{} of 500", after.len());
    times.extend(after);
    assert!(worst(&times, 1_000) <= 200, "{}", worst(&times, 1_000));
    assert_ne!(generation(replica), before, "another server's memory begins anew");
}

#[test]
fn a_primary_that_has_become_a_replica_is_left() {
    let primary = RedisServer::start();
    let other = RedisServer::start();
    let mut node = Node::start(&primary, "a", &bucket(5, 1_000, OnStoreFailure::Share));
    node.await_exact();
    let opened = || -> u64 {
        let stats = primary.command(&["INFO", "stats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().trim().parse().unwrap()
    };
    let before = opened();
    primary.command(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    until("the node misses it", || {
        node.ask(1);
        !node.is_exact()
    });
    // Each look at it is one more.
    let mut looks = 0;
    until("it is connected to anew", || {
        looks += 1;
        std::thread::sleep(std::time::Duration::from_millis(20));
        opened() > before + looks + 1
    });
    primary.command(&["REPLICAOF", "NO", "ONE"]);
    node.await_exact();
}

/// Sentinels that replace a primary end the connections of its clients. Who does it by hand may not.
#[test]
fn a_primary_that_was_replaced_by_hand_is_left_for_the_new_one() {
    let primary = RedisServer::start();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    until("the replica is in step", || {
        replica.command(&["INFO", "replication"]).contains("master_link_status:up")
    });
    // By itself it replaces nobody, as two would have to agree.
    let sentinel = Sentinel::start(primary.port, "");
    let urls = vec![format!("redis://127.0.0.1:{}", sentinel.port)];
    let redis = snapshot::Redis { urls, sentinel: Some("main".into()), ..Default::default() };
    let settings = Settings::of(&redis, &Snapshot::default()).unwrap();
    let bucket = bucket(200, 1_000, OnStoreFailure::Share);
    let mut nodes = ["a", "b"].map(|name| Node::with(&settings, name, &bucket));
    nodes.iter_mut().for_each(Node::await_exact);
    let mut times = demand(&mut nodes, 300);
    let generation = || replica.command(&["HGET", "sluice:limit:{nodes}:generation", "id"]);
    until("the replica has the generation", || generation() != "(nil)");
    let before = generation();

    let new = replica.port.to_string();
    sentinel.ask(&["SENTINEL", "REMOVE", "main"]);
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    primary.command(&["REPLICAOF", "127.0.0.1", &new]);
    sentinel.ask(&["SENTINEL", "MONITOR", "main", "127.0.0.1", &new, "2"]);
    until("all go by the truth of the new primary", || {
        times.extend(demand(&mut nodes, 20));
        generation() != before && nodes.iter().all(Node::is_exact)
    });
    assert_eq!(role(&primary), "slave", "it was alive all the time");
    times.extend(demand(&mut nodes, 1_500));
    assert!(worst(&times, 1_000) <= 200, "{}", worst(&times, 1_000));
}
