//! Limits in a Redis that asks who comes, over TLS.

#![allow(clippy::disallowed_methods, reason = "tests live on the system's clocks and sockets")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use contract::Snapshot;
use contract::snapshot::{self, OnStoreFailure, Trust};

use super::hub::{Node, bucket, demand, worst};
use crate::limit::messages::State;
use crate::store::limits::link::{self, What};
use crate::store::redis::Settings;
use crate::store::redis::server::{PATIENCE, RedisServer, until};

/// Asks for a password, and for TLS on another port. Gone with its end.
struct Secured {
    server: RedisServer,
    tls_port: u16,
    authority: Vec<u8>,
    directory: PathBuf,
}

impl Secured {
    fn start() -> Secured {
        let (authority, chain, key) = identity();
        let place = format!("sluice-limits-tls-{}", std::process::id());
        let directory = std::env::temp_dir().join(place);
        std::fs::create_dir_all(&directory).unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (cert, key) = (file("cert.pem", &chain), file("key.pem", &key));
        let tls_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = tls_port.to_string();
        let tls = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key];
        let trust = ["--tls-ca-cert-file", &cert, "--tls-auth-clients", "no"];
        // No other keys than those of limits.
        let user = ["--user", "gate", "on", ">s3cret@:/", "~sluice:limit:*", "+@all"];
        let password = ["--requirepass", "only"];
        let all = [&tls[..], &trust, &user, &password].concat();
        let server = RedisServer::start_with(&all);
        Secured { server, tls_port, authority, directory }
    }

    /// Over TLS as `user`, trusting `root`.
    fn settings(&self, user: &str, root: &[u8]) -> Settings {
        let urls = vec![format!("rediss://{user}@localhost:{}", self.tls_port)];
        let trust = vec![Trust { roots: vec![root.to_vec()], crls: vec![] }];
        let snapshot = Snapshot { trust, ..Snapshot::default() };
        let redis = snapshot::Redis { urls, trust: Some(0), ..snapshot::Redis::default() };
        Settings::of(&redis, &snapshot).unwrap()
    }

    fn plain(&self, user: &str) -> Settings {
        let urls = vec![format!("redis://{user}@127.0.0.1:{}", self.server.port)];
        let redis = snapshot::Redis { urls, ..snapshot::Redis::default() };
        Settings::of(&redis, &Snapshot::default()).unwrap()
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
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

const USER: &str = "gate:s3cret%40%3A%2F";

#[test]
fn a_user_over_tls_and_one_by_password_alone_keep_one_limit() {
    let redis = Secured::start();
    let bucket = bucket(100, 1_000, OnStoreFailure::Share);
    let over_tls = Node::with(&redis.settings(USER, &redis.authority), "a", &bucket);
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
    let wrong = redis.settings("gate:wr0ng", &redis.authority);
    let why = refusal(wrong.clone());
    assert!(why.contains("WRONGPASS") && !why.contains("wr0ng"), "{why}");
    let why = refusal(redis.plain(":no"));
    assert!(why.contains("WRONGPASS"), "{why}");
    let stranger = redis.settings(USER, &identity().0);
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
        let right = redis.settings(USER, &redis.authority);
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
