//! Limits in a Redis that asks who comes, over TLS.

#![allow(clippy::disallowed_methods, reason = "tests live on the system's clocks and sockets")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use contract::Snapshot;
use contract::snapshot::{self, OnStoreFailure, Trust};

use super::cluster::{LIMIT, Nodes};
use super::hub::{Node, bucket, demand, worst};
use super::sentinel::{Sentinel, assert_kept_by_replica};
use crate::limit::messages::State;
use crate::store::keys::tests::cluster::Cluster;
use crate::store::limits::link::{self, What};
use crate::store::redis::Settings;
use crate::store::redis::server::{PATIENCE, RedisServer, until};

/// What servers that speak TLS, and let `USER` in, are started with. Its files are gone with its end.
struct Safe {
    authority: Vec<u8>,
    directory: PathBuf,
}

impl Safe {
    /// With a certificate for these names.
    fn new(names: &[&str]) -> Safe {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = format!("sluice-limits-tls-{}-{count}", std::process::id());
        let directory = std::env::temp_dir().join(place);
        std::fs::create_dir_all(&directory).unwrap();
        let identity = identity(names);
        for (name, text) in
            [("cert.pem", identity.chain), ("key.pem", identity.key), ("ca.pem", identity.issuer)]
        {
            std::fs::write(directory.join(name), text).unwrap();
        }
        Safe { authority: identity.authority, directory }
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Servers speak TLS with each other, too.
    fn options(&self, tls_port: u16) -> Vec<(&'static str, String)> {
        vec![
            ("tls-port", tls_port.to_string()),
            ("tls-cert-file", self.file("cert.pem")),
            ("tls-key-file", self.file("key.pem")),
            ("tls-ca-cert-file", self.file("ca.pem")),
            ("tls-auth-clients", "no".into()),
            ("tls-replication", "yes".into()),
        ]
    }

    /// A server with these and more; on which port it speaks TLS.
    fn start(&self, more: &[&str]) -> (RedisServer, u16) {
        let tls_port = free_port();
        let options = self.options(tls_port);
        let mut all: Vec<String> = Vec::new();
        for (name, value) in options {
            all.extend([format!("--{name}"), value]);
        }
        // No other keys than those of limits.
        all.extend(
            ["--user", "gate", "on", ">s3cret@:/", "~sluice:limit:*", "+@all"].map(String::from),
        );
        let all: Vec<&str> = all.iter().map(String::as_str).chain(more.iter().copied()).collect();
        (RedisServer::start_with(&all), tls_port)
    }

    /// Over TLS as `user`, trusting `root`.
    fn settings(&self, user: &str, root: &[u8], ports: &[u16], redis: snapshot::Redis) -> Settings {
        let url = |port: &u16| format!("rediss://{user}@localhost:{port}");
        let trust = vec![Trust { roots: vec![root.to_vec()], crls: vec![] }];
        let snapshot = Snapshot { trust, ..Snapshot::default() };
        let urls = ports.iter().map(url).collect();
        let redis = snapshot::Redis { urls, trust: Some(0), ..redis };
        Settings::of(&redis, &snapshot).unwrap()
    }
}

impl Drop for Safe {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A cluster's bus has the port 10,000 above.
fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 {
            return port;
        }
    }
}

/// Asks for a password, and for TLS on another port.
struct Secured {
    server: RedisServer,
    tls_port: u16,
    safe: Safe,
}

impl Secured {
    fn start() -> Secured {
        let safe = Safe::new(&["localhost"]);
        let (server, tls_port) = safe.start(&["--requirepass", "only"]);
        Secured { server, tls_port, safe }
    }

    /// Over TLS as `user`, trusting `root`.
    fn settings(&self, user: &str, root: &[u8]) -> Settings {
        self.safe.settings(user, root, &[self.tls_port], snapshot::Redis::default())
    }

    fn plain(&self, user: &str) -> Settings {
        let urls = vec![format!("redis://{user}@127.0.0.1:{}", self.server.port)];
        let redis = snapshot::Redis { urls, ..snapshot::Redis::default() };
        Settings::of(&redis, &Snapshot::default()).unwrap()
    }
}

struct Identity {
    /// DER.
    authority: Vec<u8>,
    /// All others PEM.
    issuer: String,
    chain: String,
    key: String,
}

/// An authority, and a certificate of it with its key.
fn identity(names: &[&str]) -> Identity {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    // OpenSSL takes a certificate whose issuer is called as itself for its own issuer.
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    Identity {
        authority: issuer.der().to_vec(),
        issuer: issuer.pem(),
        chain: leaf.pem(),
        key: key.serialize_pem(),
    }
}

const USER: &str = "gate:s3cret%40%3A%2F";

#[test]
fn a_user_over_tls_and_one_by_password_alone_keep_one_limit() {
    let redis = Secured::start();
    let bucket = bucket(100, 1_000, OnStoreFailure::Share);
    let over_tls = Node::with(&redis.settings(USER, &redis.safe.authority), "a", &bucket);
    let by_password = Node::with(&redis.plain(":only"), "b", &bucket);
    let mut nodes = [over_tls, by_password];
    nodes.iter_mut().for_each(Node::await_exact);
    let times = demand(&mut nodes, 2_500);
    assert!(worst(&times, 1_000) <= 100, "{}", worst(&times, 1_000));
    assert!(times.len() > 150, "{} of 300", times.len());
    assert!(nodes.iter().all(Node::is_exact));
}

/// Why there is no connection with these.
fn refusal(settings: Settings) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (events, mut news) = tokio::sync::mpsc::unbounded_channel();
    runtime.block_on(async {
        let work = tokio::spawn(link::keep(1, 0, settings, events));
        let event = tokio::time::timeout(PATIENCE, news.recv()).await.unwrap().unwrap();
        work.abort();
        match event.what {
            What::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    })
}

#[test]
fn who_is_not_let_in_says_why_and_comes_with_the_right_settings() {
    let redis = Secured::start();
    let wrong = redis.settings("gate:wr0ng", &redis.safe.authority);
    let why = refusal(wrong.clone());
    assert!(why.contains("WRONGPASS") && !why.contains("wr0ng"), "{why}");
    let why = refusal(redis.plain(":no"));
    assert!(why.contains("WRONGPASS"), "{why}");
    let stranger = redis.settings(USER, &identity(&["localhost"]).authority);
    let why = refusal(stranger.clone());
    assert!(why.to_lowercase().contains("certificate"), "{why}");

    for settings in [wrong, stranger] {
        let bucket = bucket(5, 1_000, OnStoreFailure::Deny);
        let mut node = Node::with(&settings, "a", &bucket);
        until("it is denied", || {
            node.ask(1);
            node.last.as_ref().is_some_and(|told| told.state == State::Denied)
        });
        std::thread::sleep(Duration::from_millis(200));
        assert!(!node.take(), "nothing is granted without Redis");
        let state = |node: &Node| node.store.limits().list("acme", 1)[0].state.clone();
        assert_eq!(state(&node), "denied");
        let right = redis.settings(USER, &redis.safe.authority);
        node.store.limits().configure(Some(&right), "a", 50);
        node.await_exact();
        assert_eq!(state(&node), "exact");
        // And the other way.
        node.store.limits().configure(Some(&settings), "a", 50);
        until("it is denied again", || {
            node.ask(1);
            !node.is_exact()
        });
    }
}

#[test]
fn a_user_over_tls_keeps_limits_in_a_cluster() {
    // Its nodes know each other by addresses, which stand in no certificate.
    let safe = Safe::new(&["localhost"]);
    let ports = RefCell::new(HashMap::new());
    let start = |arguments: &[&str]| {
        let (server, tls_port) = safe.start(&[arguments, &["--tls-cluster", "yes"]].concat());
        ports.borrow_mut().insert(server.port, tls_port);
        server
    };
    let port = |server: &RedisServer| ports.borrow()[&server.port];
    let authority = safe.file("ca.pem");
    let cluster = Cluster::start_with(0, start, port, &["--tls", "--cacert", &authority]);
    // The others are found.
    let known = [port(&cluster.servers[0])];
    let redis = snapshot::Redis { cluster: true, ..Default::default() };
    let mut nodes = Nodes::with(&safe.settings(USER, &safe.authority, &known, redis));
    nodes.demand(2_500);
    assert!(nodes.worst() <= LIMIT, "{} of {LIMIT}", nodes.worst());
    assert!(nodes.least(0) > LIMIT, "{} of {}", nodes.least(0), 3 * LIMIT);
}

#[test]
fn a_user_over_tls_keeps_limits_with_sentinels() {
    // Sentinels tell of addresses.
    let safe = Safe::new(&["localhost", "127.0.0.1"]);
    let (primary, primary_port) = safe.start(&[]);
    let (replica, _) = safe.start(&["--replicaof", "127.0.0.1", &primary_port.to_string()]);
    let mut ports = Vec::new();
    let sentinels: Vec<Sentinel> = (0..3)
        .map(|_| {
            ports.push(free_port());
            let options = safe.options(ports[ports.len() - 1]);
            let lines = options.iter().map(|(name, value)| format!("{name} {value}\n"));
            let user = "user gate on >s3cret@:/ ~* &* +@all\n";
            Sentinel::start(primary_port, &(lines.collect::<String>() + user))
        })
        .collect();
    let redis = snapshot::Redis { sentinel: Some("main".into()), ..Default::default() };
    let settings = safe.settings(USER, &safe.authority, &ports, redis);
    assert_kept_by_replica(primary, &replica, &sentinels, &settings);
}
