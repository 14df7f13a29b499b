//! Engines that share limits, their Redis, and the origin behind them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tests::limits::relay::Way;
use tests::limits::{Arrivals, Clock, Relay};
use tests::spec::Spec;
use tests::{Client, Gateway, PATIENCE, Redis, eventually, get};

use crate::case::Policy;
use crate::namespace::Apart;

/// One test at a time: each fills the machine.
static ALONE: Mutex<()> = Mutex::new(());

pub struct World {
    pub clock: Clock,
    pub origin: Arc<Arrivals>,
    pub nodes: Vec<Gateway>,
    /// One before Redis for each node; empty: they ask it directly.
    pub relays: Vec<Relay>,
    pub redis: Redis,
    /// A replica, which takes its place when it fails over.
    pub spare: Option<Redis>,
    /// One more node, in a network of its own; the last of the addresses.
    pub apart: Option<Apart>,
    runs: AtomicU32,
    _alone: MutexGuard<'static, ()>,
}

/// Where demand goes, and where it is seen.
pub struct View {
    pub clock: Clock,
    pub origin: Arc<Arrivals>,
    pub addresses: Vec<SocketAddr>,
    /// In the names of keys, so that no run meets another's.
    pub run: u32,
}

impl World {
    /// `nodes` engines with these policies, each with a route of its name. `relayed`: each node asks
    /// Redis through a relay of its own.
    pub fn start(nodes: usize, shards: usize, relayed: bool, policies: &[Policy]) -> World {
        let alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let clock = Clock::default();
        let origin = Arc::new(Arrivals::start(clock));
        // Nodes apart come by another address.
        let redis = Redis::start_with(&["--bind", "0.0.0.0", "--protected-mode", "no"]);
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port()));
        let relays: Vec<Relay> =
            (0..nodes).filter(|_| relayed).map(|_| Relay::to(server)).collect();
        let nodes = (0..nodes)
            .map(|n| {
                let port = relays.get(n).map_or(redis.port(), |relay| relay.address().port());
                let redis = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                let spec = spec(&format!("n{n}"), origin.address(), redis, policies);
                Gateway::start_with(&spec.text(), shards)
            })
            .collect();
        let runs = AtomicU32::new(0);
        let (spare, apart) = (None, None);
        let world =
            World { clock, origin, nodes, relays, redis, spare, apart, runs, _alone: alone };
        world.settle(policies);
        world
    }

    /// With one more node in a network of its own. `None`: that takes root.
    pub fn with_one_apart(nodes: usize, shards: usize, policies: &[Policy]) -> Option<World> {
        let network = Apart::network()?;
        let mut world = World::start(nodes, shards, true, policies);
        let (origin, redis) = (world.origin.address().port(), world.redis.port());
        let (origin, redis) =
            ((network.host, origin).into(), (network.host_of_redis, redis).into());
        let text = spec("apart", origin, redis, policies).text();
        world.apart = Some(network.start(&text, shards));
        world.settle(policies);
        Some(world)
    }

    /// A replica of Redis that stands by.
    pub fn stand_by(&mut self) {
        let spare = Redis::start_with(&["--bind", "0.0.0.0", "--protected-mode", "no"]);
        spare.command(&["REPLICAOF", "127.0.0.1", &self.redis.port().to_string()]);
        let up = || spare.command(&["INFO", "replication"]).contains("master_link_status:up");
        assert!(eventually(PATIENCE, up), "the replica does not follow");
        self.spare = Some(spare);
    }

    /// Redis is gone, and its replica takes its place.
    pub fn fail_over(&mut self) {
        let spare = self.spare.take().expect("a replica");
        self.redis.kill();
        spare.command(&["REPLICAOF", "NO", "ONE"]);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, spare.port()));
        self.relays.iter().for_each(|relay| relay.turn_to(address));
        self.redis = spare;
    }

    /// Waits until each node grants tokens by what Redis says, and knows the others.
    fn settle(&self, policies: &[Policy]) {
        let policy = policies.iter().max_by_key(|policy| policy.limit).expect("a policy");
        for (n, address) in self.addresses().into_iter().enumerate() {
            let mut client = Client::connect(address);
            let path = get(&format!("/{}/settle-{n}/-", policy.name()));
            let in_order = eventually(PATIENCE, || client.ask(&path).status == 200);
            let log = || self.nodes.get(n).map(Gateway::log_text);
            assert!(in_order, "node {n} lets nobody in: {}", log().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(700));
    }

    /// What a run needs; the rest may change meanwhile.
    pub fn view(&self) -> View {
        View {
            clock: self.clock,
            origin: self.origin.clone(),
            addresses: self.addresses(),
            run: self.runs.fetch_add(1, Ordering::SeqCst),
        }
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        let apart = self.apart.as_ref().map(|apart| apart.address);
        self.nodes.iter().map(Gateway::address).chain(apart).collect()
    }

    pub fn set_ways(&self, way: Way) {
        self.relays.iter().for_each(|relay| relay.set(way));
    }
}

/// Keys are what comes behind the policy's name: `/POLICY/KEY/NUMBER`.
pub fn spec(node: &str, origin: SocketAddr, redis: SocketAddr, policies: &[Policy]) -> Spec {
    let mut spec = Spec::to(origin)
        .also(&format!("node: {{ name: {node} }}"))
        .also(&format!("redis: {{ urls: [ \"redis://{redis}\" ] }}"));
    let mut limits = String::from("limits:");
    for policy in policies {
        let Policy { limit, window_ms, mode } = policy;
        let name = policy.name();
        limits.push_str(&format!(
            "\n  - {{ name: {name}, by: [ {{ path: \"/{name}/{{key}}/*\" }} ], requests: {limit}, \
             per: {window_ms}ms, mode: {mode} }}"
        ));
        spec = spec.also_route(&format!(
            "{{ name: {name}, match: {{ path: {{ prefix: /{name} }} }}, upstream: origin, \
             limits: [ {name} ] }}"
        ));
    }
    spec.also(&limits)
}
