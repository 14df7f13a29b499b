//! Gateways of two shards whose routes want an API key.

#![allow(clippy::disallowed_methods, reason = "a test is the peer of the gateway")]

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use contract::snapshot::{
    self, ApiKey, ApiKeys, Auth, Authenticator, AuthenticatorKind, Consumer, CredentialSource,
    KeyStore, RedisKeys, RouteAuth, Snapshot,
};
use contract::{Counter, Segment};

use super::*;
use crate::io::tests::{shard, small};
use crate::io::{Acceptor, Swap, wall_ms};
use crate::observe::Meter;
use crate::plan::Plan;
use crate::serve;
use crate::shard::Shard;
use crate::store::redis::server::{RedisServer, until};
use crate::testing::{field, listener, read_head, seat};
use crate::upstream::book::Book;

const SHARDS: u16 = 2;

/// Answers each request with its head.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                while let Some(head) = read_head(&mut stream) {
                    let length = head.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A gateway.
struct Gate {
    /// One for each shard.
    addresses: Vec<SocketAddr>,
    segment: Arc<Segment>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Gate {
    fn start(auth: Auth, scopes: &[&str]) -> Gate {
        let sockets: Vec<TcpListener> =
            (0..SHARDS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = sockets.iter().map(|one| one.local_addr().unwrap()).collect();
        let target = origin();
        let target =
            snapshot::Target { address: target, name: target.to_string(), ..Default::default() };
        let upstream =
            snapshot::Upstream { name: "u".into(), targets: vec![target], ..Default::default() };
        let rules = RouteAuth {
            authenticators: vec![0],
            scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
            ..RouteAuth::default()
        };
        let route = snapshot::Route {
            name: "r".into(),
            backends: vec![snapshot::Backend { upstream: 0, weight: 1 }],
            max_body_bytes: 1_000,
            auth: Some(rules),
            ..Default::default()
        };
        let snapshot = Snapshot {
            epoch: 1,
            listeners: addresses.iter().copied().map(listener).collect(),
            upstreams: vec![upstream],
            routes: vec![route],
            auth,
            ..Default::default()
        };
        let plan = Plan::build(snapshot).unwrap();
        let store = Store::start(SHARDS.into()).unwrap();
        plan.auth.open(&store);
        let plans = Arc::new(Swap::new(Arc::new(plan), 1));
        let (_, segment) = Segment::create(SHARDS, contract::ring::MIN_RING).unwrap();
        let segment = Arc::new(segment);
        let (book, stop) = (Arc::new(Book::new(SHARDS, None)), Arc::<AtomicBool>::default());
        let mut threads = Vec::new();
        for (index, socket) in (0..SHARDS).zip(sockets) {
            let meter = Meter::new(segment.shard(index), segment.ring_writer(index).unwrap());
            let seat = seat(index, SHARDS, &book, &store);
            let (plans, stop, address) =
                (plans.clone(), stop.clone(), addresses[usize::from(index)]);
            let main = move |io: crate::io::Io| async move {
                let shard = Shard::new(io.clone(), meter, plans, seat, [7, 9]);
                let acceptor = Acceptor::new(&io, socket.into());
                let (accepting, own) = (shard.clone(), io.clone());
                io.spawn(async move {
                    while let Ok((stream, peer)) = acceptor.accept().await {
                        own.spawn(serve::serve(accepting.clone(), stream, peer, address));
                    }
                });
                let asking = shard.clone();
                io.spawn(async move {
                    let _ = asking.desk().listen(&asking.io, drop).await;
                });
                while !stop.load(Ordering::Relaxed) {
                    io.sleep_ms(5).await;
                }
            };
            threads.push(std::thread::spawn(move || shard(small(), main)));
        }
        Gate { addresses, segment, stop, threads }
    }

    /// Asks one shard; the status, and what the origin saw.
    fn get_at(&self, index: usize, key: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.addresses[index]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Api-Key: {key}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let head = read_head(&mut stream).expect("an answer");
        let status = head[9..12].parse().unwrap();
        let seen = if status == 200 { read_head(&mut stream).unwrap() } else { head };
        (status, seen)
    }

    fn get(&self, key: &str) -> (u16, String) {
        self.get_at(0, key)
    }

    /// What all shards answer.
    fn statuses(&self, key: &str) -> Vec<u16> {
        (0..self.addresses.len()).map(|index| self.get_at(index, key).0).collect()
    }

    fn count(&self, counter: Counter) -> u64 {
        (0..SHARDS).map(|index| self.segment.shard(index).get(counter)).sum()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

fn auth(store: KeyStore, consumers: Vec<Consumer>, redis: Option<&RedisServer>) -> Auth {
    let from = vec![CredentialSource::Header { name: "x-api-key".into(), scheme: None }];
    let kind = AuthenticatorKind::ApiKey(ApiKeys { from, store });
    let redis = redis
        .map(|server| snapshot::Redis { urls: vec![server.url()], ..snapshot::Redis::default() });
    let authenticators = vec![Authenticator { name: "keys".into(), kind }];
    Auth { version: 1, consumers: consumers.into(), authenticators, redis, ..Auth::default() }
}

fn key(text: &str) -> ApiKey {
    ApiKey {
        digest: digest_of(text.as_bytes()).unwrap(),
        prefix: text[..8].into(),
        expires_ms: 0,
        scopes: None,
        limits: None,
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).into()).collect()
}

fn acme(api_keys: Vec<ApiKey>) -> Consumer {
    Consumer {
        name: "acme".into(),
        groups: texts(&["gold"]),
        scopes: texts(&["read", "write"]),
        limits: Some("slow".into()),
        api_keys,
        ..Consumer::default()
    }
}

fn place(key: &str) -> String {
    let digest = digest_of(key.as_bytes()).unwrap();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sluice:key:{hex}")
}

fn in_redis(grace_ms: u32) -> KeyStore {
    KeyStore::Redis(RedisKeys {
        prefix: "sluice:key:".into(),
        cache_ms: 600_000,
        negative_ms: 600_000,
        grace_ms,
        timeout_ms: 500,
    })
}

#[test]
fn keys_of_the_snapshot() {
    let soon = ApiKey { expires_ms: wall_ms() + 1_500, ..key("slk_soon") };
    let past = ApiKey { expires_ms: wall_ms() - 1, ..key("slk_past") };
    // A scope that the consumer does not have is none of its keys'.
    let narrow = ApiKey { scopes: Some(texts(&["admin", "read"])), ..key("slk_narrow") };
    let consumer = acme(vec![key("slk_whole"), soon, past, narrow]);
    let gate = Gate::start(auth(KeyStore::Embedded, vec![consumer], None), &["write"]);
    for _ in 0..2 {
        let (status, seen) = gate.get("slk_whole");
        assert_eq!(status, 200);
        assert_eq!(field(&seen, "x-consumer-id"), Some("acme"));
        assert_eq!(field(&seen, "x-consumer-groups"), Some("gold"));
        assert_eq!(field(&seen, "x-consumer-credential"), Some("slk_whol"));
        assert_eq!(gate.statuses("slk_soon"), [200, 200]);
        assert_eq!(gate.statuses("slk_narrow"), [403, 403]);
    }
    for wrong in
        ["slk_past", "slk_wrong", "short", &"x".repeat(600), "with space in it", "slk_whol"]
    {
        for _ in 0..2 {
            let (status, head) = gate.get(wrong);
            assert_eq!(status, 401, "{wrong}");
            assert_eq!(field(&head, "www-authenticate"), Some("ApiKey realm=\"sluice\""));
        }
    }
    until("the key ends, though it is remembered", || gate.statuses("slk_soon") == [401, 401]);
}

#[test]
fn a_key_narrows_its_consumer_and_never_widens_it() {
    let narrow = ApiKey {
        scopes: Some(texts(&["admin", "read"])),
        limits: Some("fast".into()),
        ..key("slk_narrow")
    };
    let consumers = vec![Consumer::default(), acme(vec![key("slk_whole"), narrow])];
    let auth = auth(KeyStore::Embedded, consumers, None);
    let registry = Registry::build(&Snapshot { auth, ..Snapshot::default() }).unwrap();
    let identity = |key: &str, now_ms| {
        let key = &registry.api_keys[&digest_of(key.as_bytes()).unwrap()];
        match key.outcome(&registry, now_ms) {
            Outcome::Known(identity) => identity,
            other => panic!("{other:?}"),
        }
    };
    let whole = identity("slk_whole", 5);
    assert_eq!(
        (whole.consumer, &*whole.id, whole.limits.as_deref()),
        (Some(1), "acme", Some("slow"))
    );
    assert!(whole.has_scope("read") && whole.has_scope("write"));
    assert_eq!(whole.until_ms, 5 + limits::KEY_REMEMBER_MS);
    assert_eq!(whole.fresh_ms, 5 + limits::KEY_USED_MS, "by which its use is noted");
    let narrow = identity("slk_narrow", 5);
    assert!(narrow.has_scope("read") && !narrow.has_scope("write") && !narrow.has_scope("admin"));
    assert_eq!(narrow.limits.as_deref(), Some("fast"));
}

#[test]
fn a_hundred_thousand_consumers() {
    let consumers = (0..100_000).map(|n| Consumer {
        name: format!("consumer {n}"),
        api_keys: vec![key(&format!("slk_{n:08}"))],
        ..Consumer::default()
    });
    let auth = auth(KeyStore::Embedded, consumers.collect(), None);
    let snapshot = Snapshot { auth, ..Snapshot::default() };
    let begun = Instant::now();
    let registry = Registry::build(&snapshot).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for n in [0, 4_711, 99_999] {
        let key = &registry.api_keys[&digest_of(format!("slk_{n:08}").as_bytes()).unwrap()];
        assert_eq!(key.consumer, n);
    }
    assert_eq!(registry.api_keys.len(), 100_000);
}

#[test]
fn a_store_that_cannot_be_is_refused_when_the_plan_is_built() {
    let build = |urls: &[&str], cluster| {
        let mut auth = auth(in_redis(0), vec![], None);
        auth.redis =
            Some(snapshot::Redis { urls: texts(urls), cluster, ..snapshot::Redis::default() })
                .filter(|redis| !redis.urls.is_empty() || cluster);
        let snapshot = Snapshot { auth, ..Snapshot::default() };
        Registry::build(&snapshot).err().map(|error| error.to_string())
    };
    assert_eq!(build(&["redis://a", "redis://b"], false), None);
    for (urls, cluster) in [
        (&[][..], false),
        (&[][..], true),
        (&["redis://a", "redis://u:secret@b:x"][..], false),
        (&["redis://a", "rediss://b"][..], true),
    ] {
        let error = build(urls, cluster).expect("it cannot be");
        assert!(error.contains("authenticator") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn keys_in_redis() {
    let server = RedisServer::start();
    let embedded = "slk_embedded";
    let auth = auth(in_redis(60_000), vec![acme(vec![key(embedded)])], Some(&server));
    let gate = Gate::start(auth, &["read"]);
    let put = |key: &str, record: &str| {
        server.command(&["SET", &place(key), record]);
    };
    until("redis answers", || gate.statuses("slk_missing") == [401, 401]);

    // A consumer of the registry, as it is there.
    put("slk_acme", r#"{"consumer":"acme","prefix":"slk_ac"}"#);
    let (status, seen) = gate.get("slk_acme");
    assert_eq!(status, 200);
    assert_eq!(field(&seen, "x-consumer-id"), Some("acme"));
    assert_eq!(field(&seen, "x-consumer-groups"), Some("gold"));
    assert_eq!(field(&seen, "x-consumer-credential"), Some("slk_ac"));
    // As the record says.
    put("slk_less", r#"{"consumer":"acme","groups":["tin"],"scopes":["write"]}"#);
    assert_eq!(gate.statuses("slk_less"), [403, 403]);
    // Nobody whom the registry knows.
    put("slk_guest", r#"{"consumer":"guest","groups":["a","b"],"scopes":["read"]}"#);
    let (status, seen) = gate.get("slk_guest");
    assert_eq!((status, field(&seen, "x-consumer-id")), (200, Some("guest")));
    assert_eq!(field(&seen, "x-consumer-groups"), Some("a,b"));
    put("slk_plain", r#"{"consumer":"guest"}"#);
    assert_eq!(gate.statuses("slk_plain"), [403, 403], "it has no scopes");
    // What has ended, or will.
    put("slk_past", &format!(r#"{{"consumer":"acme","expires_ms":{}}}"#, wall_ms() - 1));
    assert_eq!(gate.statuses("slk_past"), [401, 401]);
    put("slk_soon", &format!(r#"{{"consumer":"acme","expires_ms":{}}}"#, wall_ms() + 800));
    assert_eq!(gate.statuses("slk_soon"), [200, 200]);
    until("it ends, though it is remembered", || gate.statuses("slk_soon") == [401, 401]);
    // The snapshot goes first.
    put(embedded, r#"{"consumer":"guest"}"#);
    let (status, seen) = gate.get(embedded);
    assert_eq!((status, field(&seen, "x-consumer-id")), (200, Some("acme")));
    // No record at all.
    put("slk_unfit", r#"{"name":"acme"}"#);
    assert_eq!(gate.statuses("slk_unfit"), [503, 503]);
    assert_eq!(gate.count(Counter::KeyRecordsMalformed), 2);

    // What is known costs Redis nothing.
    let before = server.calls("get");
    for _ in 0..20 {
        assert_eq!(gate.statuses("slk_acme"), [200, 200]);
        assert_eq!(gate.statuses("slk_missing"), [401, 401]);
    }
    assert_eq!(server.calls("get"), before);
    // Revoked, and given again.
    server.command(&["DEL", &place("slk_acme")]);
    let took = until("it is revoked", || gate.statuses("slk_acme") == [401, 401]);
    assert!(took < Duration::from_secs(1), "{took:?}");
    put("slk_missing", r#"{"consumer":"acme"}"#);
    let took = until("it is found", || gate.statuses("slk_missing") == [200, 200]);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn redis_dies_and_comes_back() {
    let mut server = RedisServer::start();
    let embedded = acme(vec![key("slk_embedded")]);
    let gate = Gate::start(auth(in_redis(2_500), vec![embedded], Some(&server)), &[]);
    until("redis answers", || gate.statuses("slk_missing") == [401, 401]);
    server.command(&["SET", &place("slk_known"), r#"{"consumer":"acme"}"#]);
    until("it is found", || gate.statuses("slk_known") == [200, 200]);
    // Give the watch the time of two beats, so that the grace counts from here.
    sleep(Duration::from_millis(600));
    server.kill();
    let killed = Instant::now();
    while killed.elapsed() < Duration::from_millis(1_800) {
        assert_eq!(gate.statuses("slk_known"), [200, 200], "{:?}", killed.elapsed());
        assert_eq!(gate.statuses("slk_embedded"), [200, 200]);
    }
    let (status, head) = gate.get("slk_unseen");
    assert_eq!((status, field(&head, "retry-after")), (503, Some("1")));
    assert!(gate.count(Counter::KeysOnGrace) > 0);
    until("the grace is over", || gate.statuses("slk_known") == [503, 503]);
    assert!(killed.elapsed() < Duration::from_millis(4_000), "{:?}", killed.elapsed());
    assert_eq!(gate.statuses("slk_embedded"), [200, 200]);
    server.restart();
    server.command(&["SET", &place("slk_known"), r#"{"consumer":"acme"}"#]);
    let took = until("it is back", || gate.statuses("slk_known") == [200, 200]);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(gate.statuses("slk_unseen"), [401, 401]);
}
