//! API keys in Redis, as all shards of a node know them: each is asked for once, however many want to
//! know, and what comes of it is shared until Redis tells of a change.
//!
//! A shard looks into the table itself ([`Keys::recall`], which never waits), and asks the store
//! thread ([`Keys::look_up`]) only for what is not there.

mod record;
mod table;

#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::snapshot::RedisKeys;
use tokio::runtime::Handle;

use self::record::Malformed;
pub use self::record::Record;
pub use self::table::{Answer, Digest, Standing};
use self::table::{Table, Terms};
use super::Task;
use super::redis::tracking::{Event, Sessions, Tracker};
use super::redis::{self, Down, Redis, Server};
use crate::io::{monotonic_ms, wall_ms};
use crate::limits;

/// What a node's knowledge of keys depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub redis: redis::Settings,
    pub keys: RedisKeys,
}

/// What a node knows of API keys in Redis.
pub struct Keys {
    settings: Settings,
    shared: Arc<Shared>,
    _tasks: [Task; 2],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?})", self.settings)
    }
}

impl Keys {
    pub fn open(settings: Settings, redis: Arc<Redis>, runtime: &Handle) -> Keys {
        let shared = Arc::new(Shared {
            prefix: settings.keys.prefix.clone(),
            timeout: Duration::from_millis(settings.keys.timeout_ms.into()),
            redis,
            table: Mutex::new(Table::new(Terms::of(&settings.keys))),
            sessions: Sessions::default(),
            trackers: Mutex::default(),
            told_malformed: AtomicBool::new(false),
        });
        let tasks = [
            Task::spawn(runtime, watch(shared.clone())),
            Task::spawn(runtime, write_used(shared.clone())),
        ];
        Keys { settings, shared, _tasks: tasks }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is known of a key without asking. Does not wait: where another thread is at the table now,
    /// nothing is known.
    pub fn recall(&self, digest: &Digest, now_ms: u64) -> Option<Answer> {
        self.shared.table.try_lock().ok()?.recall(digest, now_ms)
    }

    /// What Redis says of a key; to be awaited on the store thread.
    pub fn look_up(&self, digest: Digest) -> impl Future<Output = Answer> + Send + use<> {
        let shared = self.shared.clone();
        async move { shared.look_up(digest).await }
    }
}

struct Shared {
    prefix: String,
    timeout: Duration,
    redis: Arc<Redis>,
    table: Mutex<Table>,
    sessions: Sessions,
    /// By the server's name.
    trackers: Mutex<HashMap<Arc<str>, Arc<Tracker>>>,
    told_malformed: AtomicBool,
}

/// A question that is under way, to its end.
struct Asking<'a> {
    shared: &'a Shared,
    digest: Digest,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.shared.table().asked(&self.digest);
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trackers(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Tracker>>> {
        self.trackers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(&self, digest: Digest) -> Answer {
        let answer = {
            let mut table = self.table();
            if let Some(answer) = table.recall(&digest, monotonic_ms()) {
                return answer;
            }
            table.ask(&digest)
        };
        answer.get_or_init(|| self.ask(digest)).await.clone()
    }

    /// Asks Redis; one question per key at a time.
    async fn ask(&self, digest: Digest) -> Answer {
        let _asking = Asking { shared: self, digest };
        let key = format!("{}{}", self.prefix, hex(&digest));
        let mut tries = 0;
        loop {
            tries += 1;
            if self.redis.is_silent(key.as_bytes())
                && let known @ Answer::Known(_) = self.table().grace(&digest, monotonic_ms())
            {
                return known;
            }
            // Before the question: whatever changes after it is told under this session.
            let tracker = self.tracker_of(&key);
            let session = tracker.as_ref().map_or(0, |tracker| tracker.session());
            let found = self.redis.get(&key, self.timeout).await;
            let now_ms = monotonic_ms();
            // The same server still, too: in a cluster keys move.
            let mut tracked = match (&tracker, self.tracker_of(&key)) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, &now) && now.session() == session,
                _ => false,
            };
            let mut table = self.table();
            if table.take_changed(&digest) {
                if tries < limits::KEY_TRIES {
                    continue;
                }
                // It changes all the time.
                tracked = false;
            }
            let session = if tracked { session } else { 0 };
            let found = match found {
                Err(Down) => return table.grace(&digest, now_ms),
                Ok(None) => return table.learn_absent(&digest, false, session != 0, now_ms),
                Ok(Some(found)) => found,
            };
            return match Record::parse(&found.text) {
                Ok(record) => {
                    let ends_ms = found.ends_in_ms.map_or(u64::MAX, |in_ms| now_ms + in_ms);
                    table.learn(&digest, record, session, ends_ms, now_ms)
                }
                Err(malformed) => {
                    self.tell_malformed(&key, malformed);
                    table.learn_absent(&digest, true, session != 0, now_ms)
                }
            };
        }
    }

    fn tracker_of(&self, key: &str) -> Option<Arc<Tracker>> {
        let server = self.redis.server_of(key.as_bytes())?;
        self.trackers().get(&server).cloned()
    }

    /// Once: who writes records wrongly writes many.
    fn tell_malformed(&self, key: &str, Malformed(what): Malformed) {
        if !self.told_malformed.swap(true, Ordering::Relaxed) {
            let key = key.get(..self.prefix.len() + 8).unwrap_or(key);
            eprintln!("sluice: the record at {key}… in Redis says nobody's key ({what})");
        }
    }

    fn heard(&self, server: &Server, event: Event) {
        match event {
            Event::Begun { again } => {
                self.table().begun();
                if again {
                    eprintln!("sluice: Redis at {} tells of changes again", server.name);
                }
            }
            Event::Changed(key) => {
                let digest = key.strip_prefix(self.prefix.as_bytes()).and_then(digest_of);
                if let Some(digest) = digest {
                    self.table().changed(&digest);
                }
            }
            Event::Flushed { session } => self.table().flushed(session),
            Event::Lost { session, heard_ms } => self.table().lost(session, heard_ms),
            Event::Failed(why) => eprintln!("sluice: Redis at {} {why}", server.name),
        }
    }
}

/// Keeps a tracker at each server that keys can be on.
async fn watch(shared: Arc<Shared>) {
    let mut watched: Vec<(Server, Arc<Tracker>, Task)> = Vec::new();
    loop {
        let servers = shared.redis.servers();
        let stay = watched.iter().filter(|(server, ..)| servers.contains(server)).count();
        if stay != watched.len() || stay != servers.len() {
            // Keys have moved between servers, or will: what each of them told was of its own.
            for (_, tracker, _) in &watched {
                shared.table().lost(tracker.session(), monotonic_ms());
            }
        }
        watched.retain(|(server, tracker, _)| {
            let stays = servers.contains(server);
            if !stays {
                shared.trackers().remove(&server.name);
                let session = tracker.end();
                shared.table().lost(session, monotonic_ms());
            }
            stays
        });
        for server in servers {
            if watched.iter().any(|(known, ..)| *known == server) {
                continue;
            }
            let tracker = Arc::<Tracker>::default();
            shared.trackers().insert(server.name.clone(), tracker.clone());
            let (of, own, to) = (server.clone(), tracker.clone(), shared.clone());
            let task = tokio::spawn(async move {
                let heard = |event| to.heard(&of, event);
                own.run(of.clone(), to.prefix.clone(), &to.sessions, heard).await;
            });
            watched.push((server, tracker, task.into()));
        }
        // A cluster's primaries change.
        tokio::time::sleep(Duration::from_millis(limits::REDIS_TOPOLOGY_MS)).await;
    }
}

/// Writes when keys were used, each at most once a minute.
async fn write_used(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(Duration::from_millis(limits::KEY_USED_WRITE_MS)).await;
        let used = shared.table().take_used();
        if used.is_empty() {
            continue;
        }
        let (now_ms, wall_ms) = (monotonic_ms(), wall_ms());
        let at_s = |used_ms: u64| wall_ms.saturating_sub(now_ms.saturating_sub(used_ms)) / 1_000;
        let used = used.into_iter().map(|(digest, used_ms)| (hex(&digest), at_s(used_ms)));
        shared.redis.write_used(used.collect()).await;
    }
}

fn hex(digest: &Digest) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    digest.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The other way round; lower case only, as keys in Redis differ by case.
fn digest_of(hex: &[u8]) -> Option<Digest> {
    let value = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut digest = Digest::default();
    if hex.len() != 2 * digest.len() {
        return None;
    }
    for (to, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        *to = value(*pair.first()?)? << 4 | value(*pair.get(1)?)?;
    }
    Some(digest)
}
