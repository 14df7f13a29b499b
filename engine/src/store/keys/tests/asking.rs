//! Keys in real servers.

#![allow(clippy::disallowed_methods, reason = "tests live on the system's clocks")]

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use contract::snapshot::{self, REDIS_USED, RedisKeys, Snapshot, redis_owner};
use ring::digest::{SHA256, digest};

use super::super::*;
use crate::store::Store;
use crate::store::redis::server::{RedisServer, until};

const PREFIX: &str = "sluice:key:";

pub fn terms() -> RedisKeys {
    RedisKeys {
        prefix: PREFIX.into(),
        cache_ms: 600_000,
        negative_ms: 600_000,
        grace_ms: 60_000,
        timeout_ms: 500,
    }
}

pub fn digest_of(key: &str) -> Digest {
    digest(&SHA256, key.as_bytes()).as_ref().try_into().unwrap()
}

pub fn place(key: &str) -> String {
    format!("{PREFIX}{}", hex(&digest_of(key)))
}

/// A node.
pub struct Node {
    pub keys: Arc<Keys>,
    pub store: Arc<Store>,
}

impl Node {
    pub fn start(redis: snapshot::Redis, terms: RedisKeys) -> Node {
        Node::of(redis, terms, Snapshot::default())
    }

    pub fn of(redis: snapshot::Redis, keys: RedisKeys, snapshot: Snapshot) -> Node {
        let store = Store::start(1).unwrap();
        let redis = redis::Settings::of(&redis, &snapshot).unwrap();
        let keys = store.keys(&Settings { redis, keys });
        Node { keys, store }
    }

    pub fn at(servers: &[&RedisServer], terms: RedisKeys) -> Node {
        let urls = servers.iter().map(|server| server.url()).collect();
        Node::start(snapshot::Redis { urls, cluster: false, ..snapshot::Redis::default() }, terms)
    }

    /// As `at`, once changes are told.
    pub fn tracking(servers: &[&RedisServer], terms: RedisKeys) -> Node {
        let node = Node::at(servers, terms);
        node.await_tracking(servers.len());
        node
    }

    pub fn await_tracking(&self, servers: usize) {
        until("all servers tell of changes and answer", || {
            let trackers = self.keys.shared.trackers();
            let told = trackers.values().filter(|tracker| tracker.session() != 0).count();
            drop(trackers);
            let probe = |n| self.ask(&format!("probe {n} {:?}", Instant::now()));
            told == servers && (0..16).all(|n| !matches!(probe(n), Answer::Unavailable))
        });
    }

    /// As a shard asks.
    pub fn ask(&self, key: &str) -> Answer {
        let digest = digest_of(key);
        if let Some(answer) = self.keys.recall(&digest, monotonic_ms()) {
            return answer;
        }
        self.store.runtime().block_on(self.keys.look_up(digest))
    }

    pub fn standing(&self, key: &str) -> Standing {
        match self.ask(key) {
            Answer::Known(standing) => standing,
            other => panic!("{key}: {other:?}"),
        }
    }

    pub fn knows(&self, key: &str) -> bool {
        matches!(self.ask(key), Answer::Known(_))
    }

    pub fn refuses(&self, key: &str) -> bool {
        matches!(self.ask(key), Answer::Unknown)
    }

    pub fn cannot_say(&self, key: &str) -> bool {
        matches!(self.ask(key), Answer::Unavailable)
    }
}

pub fn is_revoked(standing: &Standing) -> bool {
    standing.revoked.load(Ordering::Relaxed)
}

pub fn put(server: &RedisServer, key: &str, consumer: &str) {
    server.command(&["SET", &place(key), &format!(r#"{{"consumer":"{consumer}"}}"#)]);
}

#[test]
fn a_key_is_asked_for_once_by_all_who_want_to_know() {
    let server = RedisServer::start();
    put(&server, "good", "acme");
    let node = Node::tracking(&[&server], terms());
    let before = server.calls("get");
    let asked: Vec<_> = (0..500)
        .map(|_| node.store.runtime().spawn(node.keys.look_up(digest_of("good"))))
        .collect();
    for answer in asked {
        let answer = node.store.runtime().block_on(answer).unwrap();
        assert!(matches!(answer, Answer::Known(known) if &*known.record.consumer == "acme"));
    }
    assert_eq!(server.calls("get"), before + 1, "one for all of them");
    for _ in 0..100 {
        assert!(node.knows("good") && node.refuses("bad"));
    }
    assert_eq!(server.calls("get"), before + 2, "what is known is not asked for");
    assert_eq!(node.keys.shared.table().counts()[2], 0);
}

#[test]
fn who_asks_right_after_the_start_waits_for_the_connection() {
    let server = RedisServer::start();
    put(&server, "good", "acme");
    for _ in 0..10 {
        let node = Node::at(&[&server], terms());
        assert!(node.knows("good"), "it is the first to ask");
        let node = Node::at(&[&server], terms());
        assert!(node.refuses("bad"));
    }
    // Not for ever.
    let mut gone = RedisServer::start();
    gone.kill();
    let node = Node::at(&[&gone], terms());
    let asked: Vec<_> = (0..100)
        .map(|n| node.store.runtime().spawn(node.keys.look_up(digest_of(&format!("key {n}")))))
        .collect();
    for answer in asked {
        let answer = node.store.runtime().block_on(answer).unwrap();
        assert!(matches!(answer, Answer::Unavailable), "{answer:?}");
    }
    assert!(node.cannot_say("another"));
}

#[test]
fn changes_reach_all_nodes_at_once() {
    let server = RedisServer::start();
    put(&server, "good", "acme");
    let nodes = [Node::tracking(&[&server], terms()), Node::tracking(&[&server], terms())];
    let all = |what: &str, holds: &dyn Fn(&Node) -> bool| {
        let took = until(what, || nodes.iter().all(holds));
        assert!(took < Duration::from_secs(1), "{what}: {took:?}");
    };
    let standings = nodes.each_ref().map(|node| node.standing("good"));
    assert!(standings.iter().all(|standing| standing.fresh_ms > 1_000 && !is_revoked(standing)));
    // By whoever.
    server.command(&["DEL", &place("good")]);
    all("the key is gone", &|node| node.refuses("good"));
    assert!(standings.iter().all(is_revoked), "shards are told, too");
    // A key that comes after it was looked for works at once.
    put(&server, "good", "other");
    all("the key is back", &|node| node.knows("good"));
    assert_eq!(&*nodes[1].standing("good").record.consumer, "other");
    let standing = nodes[0].standing("good");
    put(&server, "good", "acme");
    all("the key is another's", &|node| &*node.standing("good").record.consumer == "acme");
    assert!(is_revoked(&standing));
    // By time.
    server.command(&["PEXPIRE", &place("good"), "300"]);
    all("the key ends", &|node| node.standing("good").ends_ms <= 300);
    let took = until("the key has ended", || nodes.iter().all(|node| node.refuses("good")));
    assert!(took < Duration::from_millis(1_300), "{took:?}");
    // All at once.
    put(&server, "good", "acme");
    all("the key is there", &|node| node.knows("good"));
    server.command(&["FLUSHALL"]);
    all("everything is gone", &|node| node.refuses("good"));
}

#[test]
fn who_is_not_told_asks_each_second() {
    let server = RedisServer::start_with(&["--rename-command", "CLIENT", ""]);
    put(&server, "good", "acme");
    let node = Node::at(&[&server], terms());
    until("it answers", || node.knows("good"));
    assert!(node.standing("good").fresh_ms <= 1_000);
    server.command(&["DEL", &place("good")]);
    let took = until("the key is gone", || node.refuses("good"));
    assert!(took < Duration::from_millis(1_300), "{took:?}");
    put(&server, "good", "acme");
    let took = until("the key is back", || node.knows("good"));
    assert!(took < Duration::from_millis(1_300), "{took:?}");
}

#[test]
fn known_keys_outlive_redis_for_the_grace_and_come_back_with_it() {
    let mut server = RedisServer::start();
    put(&server, "good", "acme");
    let node = Node::tracking(&[&server], RedisKeys { grace_ms: 2_500, ..terms() });
    let before = node.standing("good");
    assert!(node.refuses("bad"));
    server.kill();
    let killed = Instant::now();
    until("the node notices", || is_revoked(&before));
    let mut graced = false;
    while killed.elapsed() < Duration::from_millis(2_000) {
        let standing = node.standing("good");
        graced |= standing.on_grace;
        assert!(standing.fresh_ms <= 1_000);
        assert!(node.cannot_say("unseen"), "never an open door");
        assert!(!node.knows("bad"));
        sleep(Duration::from_millis(20));
    }
    assert!(graced);
    until("the grace is over", || node.cannot_say("good"));
    assert!(killed.elapsed() < Duration::from_millis(3_500), "{:?}", killed.elapsed());
    server.restart();
    put(&server, "good", "acme");
    put(&server, "unseen", "acme");
    let took = until("it answers again", || node.knows("good") && node.knows("unseen"));
    assert!(took < Duration::from_secs(3), "{took:?}");
    node.await_tracking(1);
    assert!(node.refuses("bad"));
    put(&server, "bad", "acme");
    let took = until("changes are told again", || node.knows("bad"));
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Keys that went while it was away have no grace.
    let standing = node.standing("good");
    server.restart();
    until("the key is gone", || node.refuses("good"));
    assert!(is_revoked(&standing));
}

#[test]
fn a_server_that_stands_still_is_noticed_within_a_second() {
    let server = RedisServer::start();
    put(&server, "good", "acme");
    let node = Node::tracking(&[&server], RedisKeys { timeout_ms: 200, ..terms() });
    let before = node.standing("good");
    assert!(before.fresh_ms > 1_000);
    server.freeze(true);
    let took = until("what is known is in doubt", || is_revoked(&before));
    assert!(took < Duration::from_millis(1_300), "{took:?}");
    let asked = Instant::now();
    assert!(node.cannot_say("unseen"));
    assert!(asked.elapsed() < Duration::from_secs(1), "bounded");
    let (mut slow, begun) = (0, Instant::now());
    while begun.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        assert!(node.knows("good"));
        slow += u32::from(asked.elapsed() > Duration::from_millis(100));
        sleep(Duration::from_millis(5));
    }
    assert!(slow <= 3, "known keys do not wait for it: {slow}");
    server.freeze(false);
    until("it answers again", || node.refuses("unseen"));
    node.await_tracking(1);
    assert!(!node.standing("good").on_grace);
}

#[test]
fn keys_are_spread_over_servers() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let node = Node::tracking(&[&servers[0], &servers[1]], terms());
    let names = servers.each_ref().map(|server| format!("127.0.0.1:{}", server.port));
    let owner = |key: &str| redis_owner(&names, place(key).as_bytes());
    let keys: Vec<String> = (0..40).map(|n| format!("key {n}")).collect();
    for key in &keys {
        put(&servers[owner(key)], key, "acme");
        assert!(node.knows(key), "{key}");
        // Where it does not belong it means nothing.
        servers[owner(key)].command(&["DEL", &place(key)]);
        put(&servers[1 - owner(key)], key, "acme");
        until("it is gone where it belongs", || node.refuses(key));
        put(&servers[owner(key)], key, "acme");
        until("it is back", || node.knows(key));
    }
    let shares = [0, 1].map(|at| keys.iter().filter(|key| owner(key) == at).count());
    assert!(shares.iter().all(|share| *share >= 10), "{shares:?}");
    // The end of one is the end of its keys only.
    let [mine, others] = [0, 1].map(|at| keys.iter().find(|key| owner(key) == at).unwrap());
    let [ours, theirs] = [mine, others].map(|key| node.standing(key));
    servers[0].command(&["FLUSHALL"]);
    until("the first is empty", || node.refuses(mine));
    assert!(is_revoked(&ours) && !is_revoked(&theirs) && node.knows(others));
}

#[test]
fn an_unfit_record_lets_nobody_in() {
    let server = RedisServer::start();
    let node = Node::tracking(&[&server], terms());
    for text in ["", "acme", "{}", r#"{"consumer":"acme","scope":["all"]}"#] {
        server.command(&["SET", &place("key"), text]);
        until("it is unfit", || matches!(node.ask("key"), Answer::Malformed));
    }
    put(&server, "key", "acme");
    until("it is mended", || node.knows("key"));
    // Something else in its place.
    server.command(&["DEL", &place("key")]);
    server.command(&["LPUSH", &place("key"), "x"]);
    until("it cannot be read", || node.cannot_say("key"));
}

#[test]
fn the_last_use_is_written() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let node = Node::tracking(&[&servers[0], &servers[1]], terms());
    let names = servers.each_ref().map(|server| format!("127.0.0.1:{}", server.port));
    let owner = |key: &str| &servers[redis_owner(&names, key.as_bytes())];
    let before_s = wall_ms() / 1_000;
    for n in 0..10 {
        let key = format!("key {n}");
        put(owner(&place(&key)), &key, "acme");
        assert!(node.knows(&key) && node.refuses("bad"));
    }
    for n in 0..10 {
        let used = format!("{REDIS_USED}{}", hex(&digest_of(&format!("key {n}"))));
        let read = || owner(&used).command(&["GET", &used]);
        until("it is written", || read() != "(nil)");
        let used_s: u64 = read().parse().unwrap();
        assert!((before_s..=wall_ms() / 1_000).contains(&used_s), "{used_s}");
        assert!(owner(&used).command(&["TTL", &used]).parse::<i64>().unwrap() > 30_000_000);
    }
    let bad = format!("{REDIS_USED}{}", hex(&digest_of("bad")));
    assert_eq!(owner(&bad).command(&["GET", &bad]), "(nil)");
}

#[test]
fn passwords_and_databases() {
    let server = RedisServer::start_with(&["--requirepass", "s:e@c"]);
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}/3", server.port);
    let redis = |password: &str| snapshot::Redis {
        urls: vec![url(password)],
        cluster: false,
        ..snapshot::Redis::default()
    };
    let wrong = Node::start(redis("wrong"), terms());
    let node = Node::start(redis("s%3Ae%40c"), terms());
    node.await_tracking(1);
    assert!(node.refuses("good"));
    let script = format!(
        "redis.call('SELECT', 3) redis.call('SET', '{}', '{{\"consumer\":\"acme\"}}')",
        place("good")
    );
    let mut client = std::process::Command::new("redis-cli");
    client.args(["-p", &server.port.to_string(), "-a", "s:e@c", "EVAL", &script, "0"]);
    assert!(client.output().unwrap().status.success());
    until("it is there", || node.knows("good"));
    assert!(wrong.cannot_say("good"));
}

#[test]
fn what_is_open_lives_as_long_as_someone_has_it() {
    let server = RedisServer::start();
    let node = Node::tracking(&[&server], terms());
    let settings = node.keys.settings().clone();
    assert!(Arc::ptr_eq(&node.keys, &node.store.keys(&settings)));
    let mut other = settings.clone();
    other.keys.prefix = "other:".into();
    let beside = node.store.keys(&other);
    assert!(!Arc::ptr_eq(&node.keys, &beside));
    assert!(Arc::ptr_eq(&node.keys.shared.redis, &beside.shared.redis), "the same connections");
    let connected = || {
        let clients = server.command(&["INFO", "clients"]);
        let line = clients.lines().find_map(|line| line.strip_prefix("connected_clients:"));
        // Less the one that asks.
        line.unwrap().trim().parse::<u64>().unwrap() - 1
    };
    until("all are connected", || connected() == 3);
    drop(beside);
    until("one watch has ended", || connected() == 2);
    let Node { keys, store } = node;
    drop(keys);
    until("all connections have ended", || connected() == 0);
    drop(store);
}

#[test]
fn over_tls_it_must_be_whom_the_spec_trusts() {
    let (ca, chain, key) = identity();
    let directory = std::env::temp_dir().join(format!("sluice-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (cert, key) = (file("cert.pem", &chain), file("key.pem", &key));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let arguments = ["--tls-port", &port.to_string(), "--tls-cert-file", &cert];
    let more = ["--tls-key-file", &key, "--tls-ca-cert-file", &cert, "--tls-auth-clients", "no"];
    let server = RedisServer::start_with(&[&arguments[..], &more].concat());
    put(&server, "good", "acme");
    let redis = |trust| snapshot::Redis {
        urls: vec![format!("rediss://localhost:{port}")],
        trust: Some(trust),
        ..snapshot::Redis::default()
    };
    let trust = |root| snapshot::Trust { roots: vec![root], crls: vec![] };
    let trust = vec![trust(ca), trust(identity().0)];
    let snapshot = Snapshot { trust, ..Snapshot::default() };
    let node = Node::of(redis(0), terms(), snapshot.clone());
    let wary = Node::of(redis(1), RedisKeys { timeout_ms: 100, ..terms() }, snapshot);
    node.await_tracking(1);
    assert!(node.knows("good"));
    server.command(&["DEL", &place("good")]);
    let took = until("it is gone", || node.refuses("good"));
    assert!(took < Duration::from_secs(1), "{took:?}");
    for _ in 0..10 {
        assert!(wary.cannot_say("good"));
        sleep(Duration::from_millis(50));
    }
    let _ = std::fs::remove_dir_all(directory);
}

/// An authority (DER), a certificate of it for localhost (PEM), and its key.
fn identity() -> (Vec<u8>, String, String) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    (issuer.der().to_vec(), leaf.pem(), key.serialize_pem())
}
