//! A Redis Cluster, as limits see it: a fixed number of *partitions*. All keys of one are in one slot, by its
//! tag, so that one script sees all that it judges by. To the ledger each is a server of its own: with a
//! generation, members and parts. A bucket is placed among them as among servers (`redis_owner`). When a
//! primary is lost, or its memory, that concerns its partitions.
//!
//! More would spread load more evenly, but each costs every node ten beats a second and a connection.

use std::net::IpAddr;

use fred::types::Value;
use fred::types::config::{Config, Server, ServerConfig};
use fred::util::redis_keyslot;

use crate::limits;
use crate::store::redis::Settings;

/// Their tags, which place buckets (by their text) and partitions (by their slots, which lie in the middles of
/// sixteen equal parts of all): they never change.
pub const PARTITIONS: [&str; 16] = [
    "p00pp", "p01qp", "p02rp", "p03sp", "p04tp", "p05up", "p06vp", "p07wp", "p08ht", "p09it",
    "p10uz", "p11tz", "p12fx", "p13gx", "p14qz", "p15pz",
];

/// Whom to ask who has a slot: the nodes of the cluster that are configured, and those that these name.
#[derive(Clone, Debug)]
pub struct Seeds {
    configured: Vec<Server>,
    all: Vec<Server>,
    at: usize,
}

impl Seeds {
    pub fn of(settings: &Settings) -> Seeds {
        let server = |host: &str, port| Server { host: host.into(), port, tls_server_name: None };
        let addresses = settings.addresses.iter();
        let configured: Vec<Server> =
            addresses.map(|one| server(one.host.as_str(), one.port)).collect();
        Seeds { all: configured.clone(), configured, at: 0 }
    }

    /// Another one is asked next.
    pub fn turn(&mut self) {
        self.at += 1;
    }

    fn asked(&self) -> Option<&Server> {
        self.all.get(self.at % self.all.len().max(1))
    }

    /// How to connect to the one that is asked.
    pub fn config(&self, settings: &Settings) -> Config {
        match self.asked() {
            Some(server) => config(settings, server.clone()),
            None => Config::default(),
        }
    }

    /// Takes up who is named in an answer to CLUSTER SLOTS, for when those that are configured are gone.
    pub fn learn(&mut self, slots: &Value) {
        let Some(asked) = self.asked().cloned() else { return };
        let mut all = self.configured.clone();
        let ranges = parts(slots).iter();
        for node in ranges.flat_map(|range| parts(range).iter().skip(2)) {
            let node = named(node, &asked);
            if let Some(node) = node.filter(|node| !all.contains(node))
                && all.len() < limits::LIMIT_SEEDS
            {
                all.push(node);
            }
        }
        // It has answered: it is asked again.
        self.at = all.iter().position(|one| *one == asked).unwrap_or(0);
        self.all = all;
    }

    /// How to connect to whom has the partition by an answer to CLUSTER SLOTS.
    pub fn primary(&self, settings: &Settings, tag: &str, slots: &Value) -> Option<Config> {
        let slot = u64::from(redis_keyslot(tag.as_bytes()));
        let has = |range: &&Value| {
            let bound = |at: usize| parts(range).get(at).and_then(Value::as_u64);
            bound(0).is_some_and(|first| first <= slot) && bound(1).is_some_and(|last| slot <= last)
        };
        let range = parts(slots).iter().find(has)?;
        let server = named(parts(range).get(2)?, self.asked()?)?;
        Some(config(settings, server))
    }
}

fn parts(value: &Value) -> &[Value] {
    match value {
        Value::Array(parts) => parts,
        _ => &[],
    }
}

/// A node in an answer to CLUSTER SLOTS: host, port, and more. Without a host it is the one that was asked. One
/// with a bare address has the name in its certificate under which the one that was asked is known.
fn named(node: &Value, asked: &Server) -> Option<Server> {
    let text = parts(node).first().and_then(Value::as_str);
    let host = match text.as_deref() {
        None | Some("") => asked.host.clone(),
        Some("?") => return None,
        Some(host) => host.into(),
    };
    let port = parts(node).get(1).and_then(Value::as_u64).and_then(|port| port.try_into().ok())?;
    let known_as = asked.tls_server_name.clone().unwrap_or_else(|| asked.host.clone());
    let bare = host.parse::<IpAddr>().is_ok() && host != known_as;
    Some(Server { host, port, tls_server_name: bare.then_some(known_as) })
}

fn config(settings: &Settings, server: Server) -> Config {
    // All nodes speak TLS, or none, and have the same users.
    Config { server: ServerConfig::Centralized { server }, ..settings.config(0) }
}

#[cfg(test)]
mod tests {
    use contract::snapshot::redis_owner;

    use super::*;

    #[test]
    fn slots_and_buckets_are_spread_evenly() {
        let part = 16_384 / PARTITIONS.len();
        for (at, tag) in PARTITIONS.iter().enumerate() {
            let slot =
                usize::from(redis_keyslot(format!("sluice:limit:{{{tag}}}:members").as_bytes()));
            assert!(slot.abs_diff(at * part + part / 2) <= 16, "{tag}: {slot}");
        }
        let mut counts = [0; PARTITIONS.len()];
        for n in 0..16_000 {
            counts[redis_owner(&PARTITIONS, format!("consumer-{n}").as_bytes())] += 1;
        }
        assert!(counts.iter().all(|count| (850..=1_150).contains(count)), "{counts:?}");
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, port.into(), "id".into(), Value::Array(vec![])])
    }

    #[test]
    fn who_has_a_slot_is_read_and_others_are_asked_when_one_is_gone() {
        let urls = vec!["redis://:pw@redis.example:7000".to_owned()];
        let redis = contract::snapshot::Redis { urls, cluster: true, ..Default::default() };
        let settings = Settings::of(&redis, &contract::Snapshot::default()).unwrap();
        let mut seeds = Seeds::of(&settings);
        let range = |first: i64, last: i64, nodes: Vec<Value>| {
            Value::Array([vec![first.into(), last.into()], nodes].concat())
        };
        let slots = Value::Array(vec![
            range(0, 8_191, vec![node(Value::Null, 7_000), node("10.0.0.3".into(), 7_002)]),
            range(8_192, 16_383, vec![node("b.example".into(), 7_001)]),
        ]);
        seeds.learn(&slots);
        let place = |config: Option<Config>| match config.map(|config| config.server) {
            Some(ServerConfig::Centralized { server }) => (
                server.host.to_string(),
                server.port,
                server.tls_server_name.map(|n| n.to_string()),
            ),
            other => panic!("{other:?}"),
        };
        let first = place(seeds.primary(&settings, PARTITIONS[0], &slots));
        assert_eq!(first, ("redis.example".into(), 7_000, None));
        let last = place(seeds.primary(&settings, PARTITIONS[15], &slots));
        assert_eq!(last, ("b.example".into(), 7_001, None));
        assert!(seeds.primary(&settings, PARTITIONS[0], &Value::Null).is_none());
        let asked = std::iter::repeat_with(|| {
            seeds.turn();
            place(Some(seeds.config(&settings)))
        });
        let asked: Vec<_> = asked.take(3).collect();
        assert_eq!(asked[0], ("10.0.0.3".into(), 7_002, Some("redis.example".into())));
        assert_eq!(asked[1].0, "b.example");
        assert_eq!(asked[2].0, "redis.example");
    }
}
