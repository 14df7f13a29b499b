//! One connection to one server, or one partition of a cluster, that keeps limits, and again another when it
//! ends.
//!
//! fred connects once and never by itself again: only a new connection can tell that the server is
//! another one now, and no call may be sent over it before that is known.
//!
//! In a cluster, too, a partition has a connection of its own to the primary that has its slot, and follows no
//! redirection: whoever runs a script is the process whose `run_id` was read on this connection, and a
//! promoted replica or a restarted primary is another generation at once. Scripts that ask for it themselves
//! would have to with each call, not only with beats, and INFO takes 11 µs of Redis' one thread, a fifth of a
//! call; a connection that all partitions share would have them wait for each other's primaries.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, ClusterInterface, LuaInterface};
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, TcpConfig, UnresponsiveConfig,
};
use fred::types::{InfoKind, Value};
use tokio::sync::mpsc::UnboundedSender;

use super::partition::{PARTITIONS, Seeds};
use super::script::{self, Place};
use crate::io::monotonic_us;
use crate::limit::ledger::Failed;
use crate::limit::protocol::{Answer, Beat, Beaten, Call};
use crate::limits;
use crate::store::redis::Settings;

/// What comes from a link: of which server, in which life of the settings.
#[derive(Debug)]
pub(super) struct Event {
    pub life: u64,
    pub server: usize,
    pub what: What,
}

pub(super) enum What {
    Connected(Connection, Arc<str>),
    /// There is no connection, and why: in words without secrets.
    Refused(String),
    Disconnected,
    Answered(u64, Result<Answer, Failed>, u64),
    Beaten(Result<Beaten, Failed>),
}

impl std::fmt::Debug for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            What::Connected(..) => "connected",
            What::Refused(_) => "refused",
            What::Disconnected => "disconnected",
            What::Answered(..) => "answered",
            What::Beaten(_) => "beaten",
        })
    }
}

/// What calls go over.
#[derive(Clone)]
pub(super) struct Connection {
    client: Client,
    call: Arc<str>,
    beat: Arc<str>,
    place: Place,
}

/// Connects, until it is dropped.
pub(super) async fn keep(
    life: u64,
    server: usize,
    settings: Settings,
    events: UnboundedSender<Event>,
) {
    let (least_ms, most_ms) = limits::LIMIT_BACKOFF_MS;
    let mut wait_ms = least_ms;
    let mut seeds = Seeds::of(&settings);
    loop {
        let tell = |what| drop(events.send(Event { life, server, what }));
        let mut ended = None;
        match open(&settings, server, &mut seeds).await {
            Ok((connection, run_id, task)) => {
                wait_ms = least_ms;
                tell(What::Connected(connection, run_id));
                ended = Some(task);
            }
            Err(error) => {
                // Another one may know better who has the slot.
                seeds.turn();
                tell(What::Refused(error.details().to_owned()));
            }
        }
        if let Some(mut task) = ended {
            // It ends with the connection.
            let _ = (&mut task).await;
            seeds.turn();
            tell(What::Disconnected);
        }
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        wait_ms = (wait_ms * 2).min(most_ms);
    }
}

/// What one says that is no primary, or not of these keys, or cut off from most of its cluster.
const LEFT: [&str; 3] = ["READONLY", "MOVED", "CLUSTERDOWN"];

type Driver = super::super::Task<Result<(), fred::error::Error>>;
type Opened = (Connection, Arc<str>, Driver);

async fn open(
    settings: &Settings,
    server: usize,
    seeds: &mut Seeds,
) -> Result<Opened, fred::error::Error> {
    let place = PARTITIONS.get(server).copied().filter(|_| settings.cluster);
    let config = match place {
        None => settings.config(server),
        Some(tag) => {
            let (client, task) = connect(seeds.config(settings)).await?;
            let slots: Value = patiently(client.cluster_slots()).await?;
            drop(task);
            seeds.learn(&slots);
            seeds.primary(settings, tag, &slots).ok_or_else(|| {
                let why = "no primary has a part of the cluster's slots";
                fred::error::Error::new(fred::error::ErrorKind::Cluster, why)
            })?
        }
    };
    let (client, task) = connect(config).await?;
    let opened = async {
        let call: String = client.script_load(script::CALL).await?;
        let beat: String = client.script_load(script::BEAT).await?;
        let text: String = client.info(Some(InfoKind::Server)).await?;
        let line = text.lines().find_map(|line| line.strip_prefix("run_id:"));
        let run_id = Arc::from(line.unwrap_or_default().trim());
        let client = client.clone();
        Ok((Connection { client, call: call.into(), beat: beat.into(), place }, run_id))
    };
    let (connection, run_id) = patiently(opened).await?;
    Ok((connection, run_id, task))
}

/// Once; what drives the connection ends with it.
async fn connect(config: Config) -> Result<(Client, Driver), fred::error::Error> {
    let config = Config { fail_fast: true, ..config };
    let performance = PerformanceConfig {
        // The ledger knows when an answer is late.
        default_command_timeout: Duration::ZERO,
        ..PerformanceConfig::default()
    };
    let silence = Duration::from_millis(limits::LIMIT_SILENT_MS);
    let connection = ConnectionConfig {
        connection_timeout: Duration::from_millis(limits::REDIS_CONNECT_MS),
        internal_command_timeout: Duration::from_millis(limits::REDIS_CONNECT_MS),
        max_command_attempts: 1,
        max_command_buffer_len: limits::REDIS_COMMANDS,
        unresponsive: UnresponsiveConfig { max_timeout: Some(silence), interval: silence / 4 },
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    };
    let client = Client::new(config, Some(performance), Some(connection), None);
    let task = super::super::Task::from(client.connect());
    patiently(client.wait_for_connect()).await?;
    Ok((client, task))
}

async fn patiently<T>(
    work: impl Future<Output = Result<T, fred::error::Error>>,
) -> Result<T, fred::error::Error> {
    let patience = Duration::from_millis(limits::REDIS_CONNECT_MS);
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
        Err(fred::error::Error::new(fred::error::ErrorKind::Timeout, "no answer"))
    })
}

/// Whether it is an error of this kind.
fn says(answer: &Result<Value, fred::error::Error>, kind: &str) -> bool {
    answer.as_ref().is_err_and(|error| error.details().starts_with(kind))
}

impl Connection {
    /// Asks, and tells what comes; with how many microseconds it took.
    pub async fn call(self, call: Call) -> (Result<Answer, Failed>, u64) {
        let began_us = monotonic_us();
        let (keys, args) = script::call(&call, self.place, None);
        let value = self.run(&self.call, script::CALL, keys, args).await;
        let answer = value.and_then(|value| script::answer(&value).map_err(|_| Failed));
        (answer, monotonic_us().saturating_sub(began_us))
    }

    async fn run(
        &self,
        hash: &str,
        text: &str,
        keys: Vec<String>,
        args: Vec<String>,
    ) -> Result<Value, Failed> {
        let mut answer = self.client.evalsha(hash, keys.clone(), args.clone()).await;
        // SCRIPT FLUSH. It was not run, so running it is no second time.
        if says(&answer, "NOSCRIPT") {
            answer = self.client.eval(text, keys, args).await;
        }
        // It is a replica by now, or another has the slot, and that does not end the connection in every
        // case: who is the primary is to be found out anew.
        if LEFT.iter().any(|kind| says(&answer, kind)) {
            let _ = self.client.quit().await;
        }
        answer.map_err(|_| Failed)
    }

    pub async fn beat(self, beat: Beat, random: u64) -> Result<Beaten, Failed> {
        let (keys, args) = script::beat(&beat, random, self.place, None);
        let value = self.run(&self.beat, script::BEAT, keys, args).await?;
        script::beaten(&value, self.place).map_err(|_| Failed)
    }
}
