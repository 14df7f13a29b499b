//! One connection to one server (or cluster) that keeps limits, and again another when it ends.
//!
//! fred connects once and never by itself again: only a new connection can tell that the server is
//! another one now, and no call may be sent over it before that is known.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, TcpConfig, UnresponsiveConfig,
};
use fred::types::{InfoKind, Value};
use tokio::sync::mpsc::UnboundedSender;

use super::script;
use crate::io::monotonic_us;
use crate::limit::ledger::Failed;
use crate::limit::protocol::{Answer, Beat, Beaten, Call, Verdict};
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
    cluster: bool,
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
    loop {
        let tell = |what| drop(events.send(Event { life, server, what }));
        let mut ended = None;
        match open(&settings, server).await {
            Ok((connection, run_id, task)) => {
                wait_ms = least_ms;
                tell(What::Connected(connection, run_id));
                ended = Some(task);
            }
            Err(error) => tell(What::Refused(error.details().to_owned())),
        }
        if let Some(mut task) = ended {
            // It ends with the connection.
            let _ = (&mut task).await;
            tell(What::Disconnected);
        }
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        wait_ms = (wait_ms * 2).min(most_ms);
    }
}

type Opened = (Connection, Arc<str>, super::super::Task<Result<(), fred::error::Error>>);

async fn open(settings: &Settings, server: usize) -> Result<Opened, fred::error::Error> {
    let config = Config { fail_fast: true, ..settings.config(server) };
    let performance = PerformanceConfig {
        // The ledger knows when an answer is late.
        default_command_timeout: Duration::ZERO,
        ..PerformanceConfig::default()
    };
    let silence = Duration::from_millis(limits::LIMIT_SILENT_MS);
    let connection = ConnectionConfig {
        connection_timeout: Duration::from_millis(limits::REDIS_CONNECT_MS),
        internal_command_timeout: Duration::from_millis(limits::REDIS_CONNECT_MS),
        // Redirections in a cluster count as attempts. A statement that came twice is known by its number.
        max_command_attempts: if settings.cluster { 3 } else { 1 },
        max_command_buffer_len: limits::REDIS_COMMANDS,
        unresponsive: UnresponsiveConfig { max_timeout: Some(silence), interval: silence / 4 },
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    };
    let client = Client::new(config, Some(performance), Some(connection), None);
    let task = super::super::Task::from(client.connect());
    let patience = Duration::from_millis(limits::REDIS_CONNECT_MS);
    let opened = async {
        client.wait_for_connect().await?;
        let cluster = settings.cluster;
        let call: String = client.script_load(script::CALL).await?;
        let beat: String = client.script_load(script::BEAT).await?;
        let run_id = match cluster {
            // Which of its servers answers changes; what they remember is not told apart.
            true => "cluster".into(),
            false => {
                let text: String = client.info(Some(InfoKind::Server)).await?;
                let line = text.lines().find_map(|line| line.strip_prefix("run_id:"));
                line.unwrap_or_default().trim().to_owned()
            }
        };
        let connection =
            Connection { client: client.clone(), call: call.into(), beat: beat.into(), cluster };
        Ok::<_, fred::error::Error>((connection, run_id.into()))
    };
    match tokio::time::timeout(patience, opened).await {
        Ok(Ok((connection, run_id))) => Ok((connection, run_id, task)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(fred::error::Error::new(fred::error::ErrorKind::Timeout, "no answer")),
    }
}

/// Whether it is an error of this kind.
fn says(answer: &Result<Value, fred::error::Error>, kind: &str) -> bool {
    answer.as_ref().is_err_and(|error| error.details().starts_with(kind))
}

impl Connection {
    /// Asks, and tells what comes; with how many microseconds it took.
    pub async fn call(self, call: Call, members: usize) -> (Result<Answer, Failed>, u64) {
        let began_us = monotonic_us();
        let answer = match self.cluster {
            false => self.run_call(&call, None).await,
            true => self.call_by_slot(call, members).await,
        };
        (answer, monotonic_us().saturating_sub(began_us))
    }

    async fn run_call(&self, call: &Call, nodes: Option<usize>) -> Result<Answer, Failed> {
        let (keys, args) = script::call(call, nodes, None);
        let value = self.run(&self.call, script::CALL, keys, args).await?;
        script::answer(&value).map_err(|_| Failed)
    }

    async fn run(
        &self,
        hash: &str,
        text: &str,
        keys: Vec<String>,
        args: Vec<String>,
    ) -> Result<Value, Failed> {
        let mut answer = self.client.evalsha(hash, keys.clone(), args.clone()).await;
        // SCRIPT FLUSH, or another server of the cluster. It was not run, so running it is no second time.
        if says(&answer, "NOSCRIPT") {
            answer = self.client.eval(text, keys, args).await;
        }
        // It is a replica by now, and does not end the connection in every case: who is the master is to be
        // found out anew. (In a cluster the client finds that out by itself.)
        if says(&answer, "READONLY") && !self.cluster {
            let _ = self.client.quit().await;
        }
        answer.map_err(|_| Failed)
    }

    /// A script's keys are in one slot: one call for each statement, all under way at once.
    async fn call_by_slot(&self, call: Call, members: usize) -> Result<Answer, Failed> {
        let calls: Vec<Call> = call
            .statements
            .iter()
            .map(|one| Call { statements: vec![one.clone()], ..call.clone() })
            .collect();
        let mut under_way = tokio::task::JoinSet::new();
        for (at, one) in calls.into_iter().enumerate() {
            let own = self.clone();
            under_way.spawn(async move { (at, own.run_call(&one, Some(members)).await) });
        }
        let mut all = vec![Verdict::default(); call.statements.len()];
        let mut last_ms = 0;
        while let Some(Ok((at, answer))) = under_way.join_next().await {
            match answer? {
                Answer::Verdicts { now_ms, verdicts } => {
                    last_ms = last_ms.max(now_ms);
                    all[at] = *verdicts.first().ok_or(Failed)?;
                }
                other => return Ok(other),
            }
        }
        Ok(Answer::Verdicts { now_ms: last_ms, verdicts: all })
    }

    pub async fn beat(self, beat: Beat, random: u64) -> Result<Beaten, Failed> {
        let (keys, args) = script::beat(&beat, random, None);
        let value = self.run(&self.beat, script::BEAT, keys, args).await?;
        script::beaten(&value).map_err(|_| Failed)
    }
}
