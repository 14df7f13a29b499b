//! What tests of whole requests stand on: a gateway of one shard over real sockets, its clients, and
//! origins.

#![allow(clippy::disallowed_methods, reason = "a test is the peer of the gateway")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::snapshot::{
    self, Cidr, LimitCost, LimitFields, LimitMode, LimitPolicy, LimitQuota, LimitSpan, LimitWindow,
    OnStoreFailure, Snapshot,
};
use contract::{Counter, Segment};

use crate::io::tests::{shard, small};
use crate::io::{Acceptor, Swap};
use crate::observe::Meter;
use crate::plan::Plan;
use crate::serve;
use crate::shard::{Seat, Shard};
use crate::store::Store;
use crate::upstream::book::Book;

/// A plain listener.
pub fn listener(address: SocketAddr) -> snapshot::Listener {
    snapshot::Listener {
        name: address.to_string(),
        address,
        trusted_proxies: vec![],
        proxy_protocol_from: vec![],
        forwarded: false,
        underscore_fields: Default::default(),
        tls: None,
        h2c: false,
        limits: Default::default(),
    }
}

/// A shard's place in a node without control.
pub fn seat(index: u16, shards: u16, book: &Arc<Book>, store: &Arc<Store>) -> Seat {
    Seat {
        index,
        shards,
        book: book.clone(),
        memory: Arc::default(),
        store: store.clone(),
        throttle: Default::default(),
        wishes: None,
        cache: crate::cache::Store::new(
            contract::snapshot::Cache::default().max_bytes as usize,
            None,
        ),
    }
}

/// What a shard has counted.
#[derive(Clone, Default)]
pub struct Counts(Vec<(Counter, u64)>);

impl Counts {
    /// By name; those of one name together.
    pub fn by_name(&self) -> HashMap<&'static str, u64> {
        let mut sums = HashMap::new();
        for (counter, count) in &self.0 {
            *sums.entry(counter.name()).or_default() += count;
        }
        sums
    }

    /// Those of one name, by the value of their label.
    pub fn by_label(&self, name: &str) -> HashMap<&'static str, u64> {
        let named = self.0.iter().filter(|(counter, _)| counter.name() == name);
        named.filter_map(|(counter, count)| Some((counter.label()?.1, *count))).collect()
    }
}

/// Runs a gateway, and `client` beside it, which is told its address. A listener is added to `snapshot`
/// and no more.
pub fn gateway(snapshot: Snapshot, client: impl FnOnce(SocketAddr) + Send + 'static) -> Counts {
    gateway_behind(vec![], snapshot, client)
}

/// The same behind proxies.
pub fn gateway_behind(
    trusted_proxies: Vec<Cidr>,
    mut snapshot: Snapshot,
    client: impl FnOnce(SocketAddr) + Send + 'static,
) -> Counts {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    snapshot.epoch = 1;
    snapshot.listeners = vec![snapshot::Listener { trusted_proxies, ..listener(address) }];
    let plan = Arc::new(Plan::build(snapshot).unwrap());
    let counted: Arc<Mutex<Counts>> = Arc::default();
    let told = counted.clone();
    shard(small(), move |io| async move {
        let (_, segment) = Segment::create(1, contract::ring::MIN_RING).unwrap();
        let meter = Meter::new(segment.shard(0), segment.ring_writer(0).unwrap());
        let seat = seat(0, 1, &Arc::new(Book::new(1, None)), &Store::start(1).unwrap());
        let plans = Arc::new(Swap::new(plan, 1));
        let shard = Shard::new(io.clone(), meter, plans, seat, [7, 9]);
        io.spawn(shard.clone().talk_to_store());
        let acceptor = Acceptor::new(&io, socket.into());
        let (accepting, own) = (shard.clone(), io.clone());
        io.spawn(async move {
            while let Ok((stream, peer)) = acceptor.accept().await {
                own.spawn(serve::serve(accepting.clone(), stream, peer, address));
            }
        });
        let client = std::thread::spawn(move || client(address));
        while !client.is_finished() {
            io.sleep_ms(5).await;
        }
        client.join().expect("the client is content");
        let count = |counter| (counter, segment.shard(0).get(counter));
        *told.lock().unwrap() = Counts(Counter::ALL.into_iter().map(count).collect());
    });
    let counted = counted.lock().unwrap();
    counted.clone()
}

/// An origin that answers every request with these fields, after `pause_ms`. Returns how it is
/// reached, and the heads that it has seen.
pub fn origin(fields: &'static str, pause_ms: u64) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = seen.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let told = told.clone();
            std::thread::spawn(move || {
                while let Some(head) = read_head(&mut stream) {
                    told.lock().unwrap().push(head);
                    std::thread::sleep(Duration::from_millis(pause_ms));
                    let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, seen)
}

/// A head and its empty line; `None`: the peer has ended.
pub fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// The values of all fields of that name.
pub fn fields<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// The value of the first.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    fields(head, name).first().copied()
}

/// An answer's head.
#[derive(Debug)]
pub struct Reply(pub String);

impl Reply {
    pub fn status(&self) -> u16 {
        self.0[9..12].parse().unwrap()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        fields(&self.0, name)
    }

    /// The value of the one field of that name.
    pub fn only(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {}", self.0);
        all[0]
    }
}

/// One request, such as `GET /x`, on a connection of its own.
pub fn ask(gateway: SocketAddr, line: &str, fields: &str) -> Reply {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    Reply(read_head(&mut stream).expect("an answer"))
}

/// The same numbers for the same seed.
pub struct Random(pub u64);

impl Random {
    /// SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `most`.
    pub fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    /// From 0 to less than 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A policy of one window, that counts everything.
pub fn limit_policy(name: &str, limit: u64, span: LimitSpan) -> LimitPolicy {
    LimitPolicy {
        name: name.into(),
        by: vec![],
        quota: LimitQuota { windows: vec![LimitWindow { limit, span }], concurrency: None },
        tiers: vec![],
        cost: LimitCost::Fixed(1),
        mode: LimitMode::Leased,
        on_store_failure: OnStoreFailure::Share,
        dry_run: false,
        fields: LimitFields::default(),
    }
}
