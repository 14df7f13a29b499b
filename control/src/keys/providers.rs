//! What providers say, kept fresh: when each is asked, and what is known of it meanwhile.
//!
//! A failure changes nothing of what is known. Whatever comes over the network lands here; who publishes
//! is told ([`Providers::changed`]).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use contract::snapshot::VerifyKey;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
};

use super::{
    Fetched, Metadata, Source,
    fetch::{Answer, Fetcher},
};
use crate::{
    material::{Material, TrustFiles, system_roots},
    resolve::Resolver,
};

/// First and longest pause after a failure.
const MIN_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// However much shards wish for a set, it is fetched once in this time.
const WISH_INTERVAL: Duration = Duration::from_secs(10);

/// A look that has not ended by then never will.
const MAX_LOOK: Duration = Duration::from_secs(600);

/// Sources that are asked at once.
const MAX_BUSY: usize = 16;

/// The sources in use and what they say. Cheap to clone.
#[derive(Clone)]
pub struct Providers {
    shared: Arc<Shared>,
}

struct Shared {
    entries: Mutex<Vec<Entry>>,
    resolver: Resolver,
    busy: Arc<Semaphore>,
    /// Signalled when something is known that was not.
    changed: Notify,
}

/// One source.
struct Entry {
    source: Source,
    keys: Option<Vec<VerifyKey>>,
    metadata: Option<Metadata>,
    /// When to ask again; `None`: it is being asked.
    due: Option<Instant>,
    /// When it was last begun to ask.
    asked: Option<Instant>,
    /// When it last said all that is needed.
    told: Option<Instant>,
    /// A shard has seen a key that is not there.
    wished: bool,
    /// Failures since the last success.
    failures: u32,
    error: Option<String>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    good: u64,
    failed: u64,
}

/// How a source stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderState {
    pub url: String,
    /// Keys that can be used; `None`: none are needed, or none have come yet.
    pub keys: Option<usize>,
    /// Since it last said all that is needed; `None`: never, as far as this process knows.
    pub age: Option<Duration>,
    /// Why the last look failed.
    pub error: Option<String>,
    pub good: u64,
    pub failed: u64,
}

impl Providers {
    pub fn new(resolver: Resolver) -> Providers {
        Providers {
            shared: Arc::new(Shared {
                entries: Mutex::default(),
                resolver,
                busy: Arc::new(Semaphore::new(MAX_BUSY)),
                changed: Notify::new(),
            }),
        }
    }

    /// Takes over what was known before this process.
    pub fn recover(&self, sources: &[Source], before: &Fetched) {
        let now = Instant::now();
        let mut entries = self.shared.lock();
        for source in sources {
            let (keys, metadata) = (before.sets.get(&source.url), before.metadata.get(&source.url));
            if keys.is_some() || metadata.is_some() {
                entries.push(Entry {
                    keys: keys.cloned(),
                    metadata: metadata.cloned(),
                    ..Entry::new(source.clone(), now)
                });
            }
        }
    }

    /// Asks those of `sources` of which nothing is known, waiting at most `limit`. A slower answer is
    /// taken when it comes.
    pub async fn ensure(&self, sources: &[Source], material: &Material, limit: Duration) {
        let now = Instant::now();
        let mut tasks = Vec::new();
        for source in sources {
            let new = {
                let mut entries = self.shared.lock();
                let new = entries.iter().all(|entry| entry.source != *source);
                if new {
                    // The same document, asked for in another way.
                    let same = |entry: &&Entry| {
                        entry.source.url == source.url && entry.source.kind == source.kind
                    };
                    let twin = entries.iter().find(same);
                    let (keys, metadata) = twin
                        .map(|twin| (twin.keys.clone(), twin.metadata.clone()))
                        .unwrap_or_default();
                    entries.push(Entry {
                        keys,
                        metadata,
                        due: None,
                        asked: Some(now),
                        ..Entry::new(source.clone(), now)
                    });
                }
                new
            };
            if new {
                tasks.push(self.spawn(source.clone(), None, material));
            }
        }
        let all = async {
            for task in tasks {
                // One that panicked leaves its source without anything.
                _ = task.await;
            }
        };
        _ = tokio::time::timeout(limit, all).await;
    }

    /// Forgets every source that is not in `sources`.
    pub fn retain(&self, sources: &[Source]) {
        self.shared.lock().retain(|entry| sources.contains(&entry.source));
    }

    /// Begins to ask what is due of `sources`, or wished for: the places in `wishes` are places in
    /// `sources`.
    pub fn refresh(&self, sources: &[Source], material: &Material, wishes: &[usize], now: Instant) {
        let mut due = Vec::new();
        {
            let mut entries = self.shared.lock();
            for (place, source) in sources.iter().enumerate() {
                let Some(entry) = entries.iter_mut().find(|entry| entry.source == *source) else {
                    continue;
                };
                entry.wished |= wishes.contains(&place);
                if let Some(alone) = entry.begin(now) {
                    let known = entry.metadata.clone().filter(|_| alone);
                    due.push((source.clone(), known));
                }
            }
        }
        for (source, known) in due {
            drop(self.spawn(source, known, material));
        }
    }

    /// What is known of `sources`.
    pub fn fetched(&self, sources: &[Source]) -> Fetched {
        let mut fetched = Fetched::default();
        for entry in self.shared.lock().iter().filter(|entry| sources.contains(&entry.source)) {
            let url = &entry.source.url;
            if let Some(keys) = &entry.keys {
                fetched.sets.insert(url.clone(), keys.clone());
            }
            if let Some(metadata) = &entry.metadata {
                fetched.metadata.insert(url.clone(), metadata.clone());
            }
        }
        fetched
    }

    /// Resolves once something has changed since the last call.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// How `sources` stand.
    pub fn states(&self, sources: &[Source]) -> Vec<ProviderState> {
        let now = Instant::now();
        let entries = self.shared.lock();
        let of = |source: &Source| entries.iter().find(|entry| entry.source == *source);
        let state = |entry: &Entry| ProviderState {
            url: entry.source.url.clone(),
            keys: entry.keys.as_ref().map(Vec::len),
            age: entry.told.map(|told| now.saturating_duration_since(told)),
            error: entry.error.clone(),
            good: entry.counts.good,
            failed: entry.counts.failed,
        };
        sources.iter().filter_map(of).map(state).collect()
    }

    fn spawn(
        &self,
        source: Source,
        known: Option<Metadata>,
        material: &Material,
    ) -> JoinHandle<()> {
        let shared = Arc::clone(&self.shared);
        let files = TrustFiles { ca: source.fetch.ca.clone(), crl: None };
        let own = material.trust(&files).map(|trust| trust.roots.clone());
        tokio::spawn(async move {
            let permit = Arc::clone(&shared.busy).acquire_owned().await;
            let answer = match roots(own, source.fetch.ca.is_some()).await {
                Ok(roots) => {
                    let fetcher = Fetcher::new(shared.resolver.clone(), &roots);
                    Ok(fetcher.fetch(&source, known.as_ref()).await)
                }
                Err(error) => Err(error),
            };
            drop(permit);
            shared.take(&source, answer);
        })
    }
}

/// The certificates that a service must come from.
async fn roots(own: Option<Vec<Vec<u8>>>, named: bool) -> Result<Vec<Vec<u8>>, String> {
    match own {
        Some(roots) => Ok(roots),
        None if named => Err("the certificates of its `ca` are not known".into()),
        None => match tokio::task::spawn_blocking(system_roots).await {
            Ok(roots) => roots,
            Err(error) => Err(error.to_string()),
        },
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, source: &Source, answer: Result<Answer, String>) {
        let changed = {
            let mut entries = self.lock();
            // Forgotten in the meantime?
            let entry = entries.iter_mut().find(|entry| entry.source == *source);
            entry.is_some_and(|entry| entry.take(answer, Instant::now(), chance()))
        };
        if changed {
            self.changed.notify_one();
        }
    }
}

impl Entry {
    fn new(source: Source, now: Instant) -> Entry {
        Entry {
            source,
            keys: None,
            metadata: None,
            due: Some(now),
            asked: None,
            told: None,
            wished: false,
            failures: 0,
            error: None,
            counts: Counts::default(),
        }
    }

    /// Whether to ask now, which is noted; `Some(true)`: for the keys alone.
    fn begin(&mut self, now: Instant) -> Option<bool> {
        let due = self.due.or_else(|| self.asked.map(|asked| asked + MAX_LOOK))?;
        let rested = self.asked.is_none_or(|asked| now >= asked + WISH_INTERVAL);
        let wished = self.wished && rested && self.due.is_some();
        let regular = due <= now;
        if !regular && !wished {
            return None;
        }
        self.due = None;
        self.asked = Some(now);
        self.wished = false;
        Some(!regular)
    }

    /// Takes an answer in; whether something is known that was not. `chance` is from 0 to 1.
    fn take(&mut self, answer: Result<Answer, String>, now: Instant, chance: f64) -> bool {
        let url = &self.source.url;
        let (answer, error) = match answer {
            Ok(answer) => {
                let error = answer.error.as_ref().map(ToString::to_string);
                (answer, error)
            }
            Err(error) => (Answer::default(), Some(error)),
        };
        let pause = match &error {
            None => {
                self.failures = 0;
                self.told = Some(now);
                self.counts.good += 1;
                if self.error.is_some() {
                    eprintln!("sluice: {url} can be fetched again");
                }
                answer.life
            }
            Some(error) => {
                let pause = MIN_RETRY.saturating_mul(1 << self.failures.min(8)).min(MAX_RETRY);
                self.failures = self.failures.saturating_add(1);
                self.counts.failed += 1;
                // Each reason is said once.
                if self.error.as_ref() != Some(error) {
                    let kept =
                        if self.is_known() { "; what it said before stays in use" } else { "" };
                    eprintln!("sluice: {url} cannot be fetched: {error}{kept}");
                }
                pause
            }
        };
        self.error = error;
        // A little earlier, so that many nodes do not come at once.
        self.due = Some(now + pause.mul_f64(1.0 - chance / 10.0));
        let mut changed = false;
        if answer.keys.is_some() && answer.keys != self.keys {
            self.keys = answer.keys;
            changed = true;
        }
        if answer.metadata.is_some() && answer.metadata != self.metadata {
            self.metadata = answer.metadata;
            changed = true;
        }
        changed
    }

    fn is_known(&self) -> bool {
        self.keys.is_some() || self.metadata.is_some()
    }
}

/// Anything from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 2];
    // Without, all come at the same time: no harm beyond that.
    _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests;
