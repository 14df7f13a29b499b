//! Redis, as the store thread asks it: one server, several among which keys are spread, or a cluster.
//!
//! Connections live on over plans, for as long as a plan has the same settings. They come back by
//! themselves; meanwhile questions fail at once.

pub mod tracking;

#[cfg(test)]
pub mod server;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contract::snapshot::{self, REDIS_USED, RedisAddress, Snapshot, redis_owner};
use fred::clients::Client;
use fred::interfaces::{ClientLike, ClusterInterface, KeysInterface};
use fred::types::config::{
    Config, ConnectionConfig, Options, PerformanceConfig, ReconnectPolicy, Server as FredServer,
    ServerConfig, TlsConfig, TlsConnector, TlsHostMapping, UnresponsiveConfig,
};
use fred::types::{Expiration, RespVersion, Value};
use tokio::runtime::Handle;

use super::Task;
use crate::io::monotonic_ms;
use crate::limits;
use crate::tls::{Service, ServiceTls, Unusable};

/// What a connection depends on.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    pub addresses: Vec<RedisAddress>,
    pub cluster: bool,
    /// The addresses are Sentinels, that know where this primary is.
    pub sentinel: Option<String>,
    /// Set where an address asks for TLS.
    pub tls: Option<ServiceTls>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.addresses).finish()
    }
}

impl Settings {
    /// # Errors
    /// What in the spec must be mended.
    pub fn of(redis: &snapshot::Redis, snapshot: &Snapshot) -> Result<Settings, Unusable> {
        let mut addresses = Vec::with_capacity(redis.urls.len());
        for (at, url) in redis.urls.iter().enumerate() {
            let address = RedisAddress::parse(url)
                .map_err(|problem| Unusable::new(format!("redis.urls[{at}]"), problem))?;
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(Unusable::new("redis.urls", "name at least one server"));
        }
        if redis.cluster && addresses.iter().any(|address| address.tls != addresses[0].tls) {
            return Err(Unusable::new("redis.urls", "all nodes of a cluster speak TLS, or none"));
        }
        let tls = match addresses.iter().any(|address| address.tls) {
            true => {
                let (trust, field) = (redis.trust, "redis.ca");
                let service = Service { trust, identity: None, alpn: &[], field };
                Some(ServiceTls::build(service, snapshot)?)
            }
            false => None,
        };
        let sentinel = redis.sentinel.clone();
        if redis.cluster && sentinel.is_some() {
            return Err(Unusable::new(
                "redis.sentinel",
                "a cluster needs no Sentinel: take one of both",
            ));
        }
        Ok(Settings { addresses, cluster: redis.cluster, sentinel, tls })
    }

    /// What can be asked by itself: each server, or the cluster, or the primary that Sentinels know, by
    /// its name in messages and among shards.
    pub fn names(&self) -> Vec<Arc<str>> {
        match &self.sentinel {
            Some(name) => vec![name.as_str().into()],
            None if self.cluster => {
                self.addresses.iter().take(1).map(|one| one.name().into()).collect()
            }
            None => self.addresses.iter().map(|one| one.name().into()).collect(),
        }
    }

    /// How to connect to that of these.
    pub fn config(&self, at: usize) -> Config {
        match self.addresses.get(at) {
            Some(_) if self.sentinel.is_some() => sentinel(self),
            Some(_) if self.cluster => cluster(self),
            Some(address) => single(address, self.tls.as_ref()),
            None => Config::default(),
        }
    }
}

/// A server that can be watched.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name among all.
    pub name: Arc<str>,
    pub address: RedisAddress,
    pub tls: Option<ServiceTls>,
    /// Whom it must be.
    pub tls_name: String,
}

/// Redis did not answer, or not the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down;

/// A value, and in how many milliseconds Redis forgets it by itself.
#[derive(Debug)]
pub struct Found {
    pub text: Vec<u8>,
    pub ends_in_ms: Option<u64>,
}

/// Connections to Redis.
pub struct Redis {
    settings: Settings,
    /// Names of the servers, in their order; of a cluster not used.
    names: Vec<Arc<str>>,
    /// One for each server, or one for the cluster.
    links: Vec<Link>,
}

struct Link {
    client: Client,
    /// A question was not answered in time: who can do without the answer does, until then.
    silent_until_ms: AtomicU64,
    /// Until then questions wait for the first connection; 0: it was there.
    first_until_ms: AtomicU64,
    /// Drives the connection; ends with this.
    _task: Task,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({:?})", self.settings)
    }
}

impl Redis {
    /// Begins to connect.
    pub fn open(settings: Settings, runtime: &Handle) -> Redis {
        let names = settings.names();
        let links = (0..names.len()).map(|at| Link::open(settings.config(at), runtime)).collect();
        Redis { settings, names, links }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The servers that keys can be on now; of a cluster its primaries, as far as they are known.
    pub fn servers(&self) -> Vec<Server> {
        if self.settings.sentinel.is_some() {
            // Which one it is now only the connection knows; what is not watched is believed for a second.
            return Vec::new();
        }
        let tls = &self.settings.tls;
        let Some(seed) = self.settings.addresses.first().filter(|_| self.settings.cluster) else {
            let server = |(address, name): (&RedisAddress, &Arc<str>)| Server {
                name: name.clone(),
                address: address.clone(),
                tls: tls.clone().filter(|_| address.tls),
                tls_name: address.host.clone(),
            };
            return self.settings.addresses.iter().zip(&self.names).map(server).collect();
        };
        let routing = self.links.first().and_then(|link| link.client.cached_cluster_state());
        let nodes = routing.map(|routing| routing.unique_primary_nodes()).unwrap_or_default();
        let server = |node: FredServer| {
            let host = node.host.to_string();
            let address = RedisAddress { host: host.clone(), port: node.port, ..seed.clone() };
            let tls_name = node.tls_server_name.map_or(host, |name| name.to_string());
            Server { name: address.name().into(), address, tls: tls.clone(), tls_name }
        };
        nodes.into_iter().map(server).collect()
    }

    /// Name of the server that has `key` now. `None`: unknown as yet.
    pub fn server_of(&self, key: &[u8]) -> Option<Arc<str>> {
        if !self.settings.cluster {
            return self.names.get(redis_owner(&self.names, key)).cloned();
        }
        let routing = self.links.first()?.client.cached_cluster_state()?;
        let node = routing.get_server(fred::util::redis_keyslot(key))?;
        let seed = self.settings.addresses.first()?.clone();
        let address = RedisAddress { host: node.host.to_string(), port: node.port, ..seed };
        Some(address.name().into())
    }

    fn link(&self, key: &[u8]) -> Option<&Link> {
        let at = if self.settings.cluster { 0 } else { redis_owner(&self.names, key) };
        self.links.get(at)
    }

    /// Whether who has `key` did not answer a moment ago.
    pub fn is_silent(&self, key: &[u8]) -> bool {
        let until_ms = |link: &Link| link.silent_until_ms.load(Ordering::Relaxed);
        self.link(key).is_some_and(|link| monotonic_ms() < until_ms(link))
    }

    /// What stands at `key`. Right after the start, who asks waits for the first connection; then
    /// `timeout` begins.
    ///
    /// # Errors
    /// It cannot be told within `timeout`, or there is no connection.
    pub async fn get(&self, key: &str, timeout: Duration) -> Result<Option<Found>, Down> {
        let link = self.link(key.as_bytes()).ok_or(Down)?;
        link.connected_once().await;
        let options = Options {
            timeout: Some(timeout),
            // For redirections in a cluster. What was under way on a lost connection fails.
            max_attempts: Some(3),
            fail_fast: true,
            ..Options::default()
        };
        let client = link.client.with_options(&options);
        // Both leave together, in this order.
        let answers = tokio::join!(client.get::<Value, _>(key), client.pttl::<i64, _>(key));
        let (value, left_ms) = match answers {
            (Ok(value), Ok(left_ms)) => (value, left_ms),
            (Err(error), _) | (_, Err(error)) => {
                if *error.kind() == fred::error::ErrorKind::Timeout {
                    link.note_silence();
                }
                return Err(Down);
            }
        };
        link.silent_until_ms.store(0, Ordering::Relaxed);
        match (value, left_ms) {
            // PTTL: -2 where there is no such key (any more), -1 where it stays.
            (Value::Null, _) | (_, -2) => Ok(None),
            (value, left_ms) => {
                let text = value.into_bytes().ok_or(Down)?.to_vec();
                Ok(Some(Found { text, ends_in_ms: u64::try_from(left_ms).ok() }))
            }
        }
    }

    /// Writes when keys were used, in seconds since the Unix epoch.
    pub async fn write_used(&self, used: Vec<(String, u64)>) {
        let mut batches: Vec<Vec<(String, u64)>> = self.links.iter().map(|_| Vec::new()).collect();
        for (digest, used_s) in used {
            let key = format!("{REDIS_USED}{digest}");
            let at =
                if self.settings.cluster { 0 } else { redis_owner(&self.names, key.as_bytes()) };
            if let Some(batch) = batches.get_mut(at) {
                batch.push((key, used_s));
            }
        }
        for (link, batch) in self.links.iter().zip(batches) {
            for batch in batch.chunks(limits::REDIS_BATCH) {
                if link.client.is_connected() && link.write_used(batch).await.is_err() {
                    // It is told again in a minute, if the keys are in use.
                    break;
                }
            }
        }
    }
}

impl Link {
    fn open(config: Config, runtime: &Handle) -> Link {
        let performance = PerformanceConfig {
            default_command_timeout: Duration::from_millis(limits::REDIS_COMMAND_MS),
            ..PerformanceConfig::default()
        };
        let connection = ConnectionConfig {
            connection_timeout: Duration::from_millis(limits::REDIS_CONNECT_MS),
            internal_command_timeout: Duration::from_millis(limits::REDIS_CONNECT_MS),
            max_command_buffer_len: limits::REDIS_COMMANDS,
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(Duration::from_millis(limits::REDIS_COMMAND_MS)),
                interval: Duration::from_millis(limits::REDIS_COMMAND_MS / 4),
            },
            tcp: fred::types::config::TcpConfig { nodelay: Some(true), ..Default::default() },
            ..ConnectionConfig::default()
        };
        let (least_ms, most_ms) = limits::REDIS_BACKOFF_MS;
        let policy = ReconnectPolicy::new_exponential(0, least_ms, most_ms, 2);
        let client = Client::new(config, Some(performance), Some(connection), Some(policy));
        let driven = client.clone();
        let task = Task::spawn(runtime, async move {
            loop {
                // It ends on errors that it takes for final; nothing is, as servers are mended.
                let _ = Task::from(driven.connect()).await;
                tokio::time::sleep(Duration::from_millis(most_ms.into())).await;
            }
        });
        let first_until_ms = AtomicU64::new(monotonic_ms() + limits::REDIS_FIRST_MS);
        Link { client, silent_until_ms: AtomicU64::new(0), first_until_ms, _task: task }
    }

    /// Waits until there has been a connection, but only for as long as one is made at the start.
    async fn connected_once(&self) {
        let until_ms = self.first_until_ms.load(Ordering::Relaxed);
        if until_ms == 0 {
            return;
        }
        let connected = async {
            // An attempt may fail and the next one succeed.
            while self.client.wait_for_connect().await.is_err() {
                tokio::time::sleep(Duration::from_millis(limits::REDIS_BACKOFF_MS.0.into())).await;
            }
        };
        let left_ms = until_ms.saturating_sub(monotonic_ms());
        if left_ms > 0 {
            let _ = tokio::time::timeout(Duration::from_millis(left_ms), connected).await;
        }
        if left_ms == 0 || self.client.is_connected() {
            self.first_until_ms.store(0, Ordering::Relaxed);
        }
    }

    fn note_silence(&self) {
        let until_ms = monotonic_ms() + limits::REDIS_SILENT_MS;
        self.silent_until_ms.store(until_ms, Ordering::Relaxed);
    }

    async fn write_used(&self, batch: &[(String, u64)]) -> Result<(), fred::error::Error> {
        let pipeline = self.client.pipeline();
        for (key, used_s) in batch {
            let expiration = Some(Expiration::EX(limits::KEY_USED_S));
            let used_s = i64::try_from(*used_s).unwrap_or(i64::MAX);
            let _: () = pipeline.set(key, used_s, expiration, None, false).await?;
        }
        pipeline.all::<Value>().await.map(drop)
    }
}

fn single(address: &RedisAddress, tls: Option<&ServiceTls>) -> Config {
    let server = ServerConfig::new_centralized(address.host.as_str(), address.port);
    Config { database: Some(address.database), ..config(address, server, tls, false) }
}

fn sentinel(settings: &Settings) -> Config {
    let hosts: Vec<(String, u16)> =
        settings.addresses.iter().map(|one| (one.host.clone(), one.port)).collect();
    let name = settings.sentinel.clone().unwrap_or_default();
    let server = ServerConfig::new_sentinel(hosts, name);
    match settings.addresses.first() {
        Some(seed) => Config {
            database: Some(seed.database),
            ..config(seed, server, settings.tls.as_ref(), false)
        },
        None => Config::default(),
    }
}

fn cluster(settings: &Settings) -> Config {
    let hosts = settings.addresses.iter().map(|one| (one.host.clone(), one.port)).collect();
    let server = ServerConfig::new_clustered(hosts);
    match settings.addresses.first() {
        Some(seed) => config(seed, server, settings.tls.as_ref(), true),
        None => Config::default(),
    }
}

fn config(
    address: &RedisAddress,
    server: ServerConfig,
    tls: Option<&ServiceTls>,
    cluster: bool,
) -> Config {
    let hostnames = if cluster { TlsHostMapping::DefaultHost } else { TlsHostMapping::None };
    let connector = |tls: &ServiceTls| TlsConnector::Rustls(tls.config.clone().into());
    Config {
        fail_fast: false,
        username: address.username.clone(),
        password: address.password.clone(),
        server,
        // The oldest common denominator: what needs more has a connection of its own.
        version: RespVersion::RESP2,
        tls: tls
            .filter(|_| address.tls)
            .map(|tls| TlsConfig { connector: connector(tls), hostnames }),
        ..Config::default()
    }
}
