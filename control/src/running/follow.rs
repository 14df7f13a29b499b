//! Following the store: what another node has stored is taken here, too, and the store is told how
//! this node stands.

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::{MutexGuard as Held, Notify};

use super::{Current, Publisher, Refused, Running, load};
use crate::{
    api::model::{Cluster, ClusterNode},
    compile::Before,
    fit::Whole,
    keys,
    rollout::{MAX_SILENT_MS, Rollout},
    store::{Load, NodeReport, Revision, Standing, Store, StoreError, Text},
    yaml::Yaml,
};

/// How often a revision that this node could not take is tried again, and the store is looked at
/// though it has not said anything.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How often the store is told how this node stands; at once when that changes.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// How long large revisions wait before they are kept, so that many changes are one writing.
const KEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Larger specs than this, in bytes, are kept after a change was answered.
const MAX_KEPT_AT_ONCE: usize = 1 << 20;

/// What is known of this node's way with the store.
pub(super) struct Following {
    /// Of this node, among those of the store.
    name: String,
    /// Where the last revision is kept for a start without the store.
    last: PathBuf,
    state: Mutex<State>,
    /// There is something to report.
    news: Notify,
    /// A large revision is about to be kept.
    keeping: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The revision that could not be taken, and why.
    fault: Option<(u64, String)>,
    /// Why the store could not be asked the last time.
    store_error: Option<String>,
    /// A revision, and how long after its storing all shards here served it, in milliseconds.
    lag: Option<(u64, u64)>,
    /// Requests at the last report.
    meter: Option<(Instant, u64)>,
    /// The revision that this node is to serve.
    wanted: Option<u64>,
    /// The trial that lasts.
    trial: Option<Rollout>,
}

impl Following {
    pub fn new(name: String, last: PathBuf) -> Following {
        Following {
            name,
            last,
            state: Mutex::default(),
            news: Notify::new(),
            keeping: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The trial that lasts, as far as is known.
    pub fn trial(&self) -> Option<Rollout> {
        self.state().trial.clone()
    }

    pub fn set_trial(&self, trial: Option<Rollout>) {
        let mut state = self.state();
        if state.trial != trial {
            state.trial = trial;
            drop(state);
            self.tell();
        }
    }

    /// Something about this node is different now.
    pub fn tell(&self) {
        self.news.notify_one();
    }

    /// Notes what `revision` is prevented by; each reason is said once.
    fn fault(&self, fault: Option<(u64, String)>) {
        let mut state = self.state();
        if state.fault != fault {
            if let Some((revision, why)) = &fault {
                eprintln!(
                    "sluice: revision {revision} cannot be taken here, the one before goes on: {why}"
                );
            }
            state.fault = fault;
            drop(state);
            self.tell();
        }
    }

    fn store_error(&self, error: Option<&StoreError>) {
        let mut state = self.state();
        match (&state.store_error, error) {
            (None, Some(error)) => eprintln!("sluice: {error}"),
            (Some(_), None) => eprintln!("sluice: the revision store answers again"),
            _ => {}
        }
        state.store_error = error.map(ToString::to_string);
    }
}

/// Where the last revision that ran here is kept: a node starts with it when the store is down.
#[derive(Clone, Debug)]
pub struct LastRevision(PathBuf);

impl LastRevision {
    pub fn at(path: PathBuf) -> LastRevision {
        LastRevision(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What was kept, if anything was that can be read.
    pub fn read(&self) -> Option<Revision> {
        let revision: Revision = serde_json::from_slice(&std::fs::read(&self.0).ok()?).ok()?;
        if !revision.source.is_empty() || revision.spec.is_empty() {
            return Some(revision);
        }
        let spec = revision.spec.clone();
        let source = Text::later(move || {
            let value: Value = serde_json::from_str(&spec).unwrap_or_default();
            Yaml::from(&value).document()
        });
        Some(Revision { source, ..revision })
    }

    fn write(&self, revision: &Revision) -> std::io::Result<()> {
        let new = self.0.with_extension("new");
        // Specs are nobody else's: secrets may stand in them.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        // One that nobody has read yet can be made of the spec again.
        let source = match revision.source.is_made() {
            true => revision.source.clone(),
            false => Text::default(),
        };
        let revision = Revision { source, ..revision.clone() };
        options.open(&new)?.write_all(&serde_json::to_vec(&revision)?)?;
        std::fs::rename(new, &self.0)
    }
}

impl Running {
    pub(super) fn following(&self) -> &Following {
        &self.shared.following
    }

    /// Takes revisions that other nodes store. Runs for ever.
    pub async fn follow_store(&self) {
        let mut changes = self.shared.store.changes();
        loop {
            changes.borrow_and_update();
            // What went wrong is noted, and told with the next report.
            _ = self.catch_up().await;
            _ = tokio::time::timeout(LOOK_INTERVAL, changes.changed()).await;
        }
    }

    /// Tells the store how this node stands. Runs for ever.
    pub async fn follow_standing(&self) {
        let mut news = true;
        loop {
            let reported = match news || self.shared.store.is_shared() {
                true => self.shared.store.report(self.report(true)).await,
                // Nobody waits for a sign of life: no need to write to the disk.
                false => self.shared.store.latest_id().await.map(drop),
            };
            self.following().store_error(reported.as_ref().err());
            self.judge_trial().await;
            let more = self.following().news.notified();
            news = tokio::time::timeout(REPORT_INTERVAL, more).await.is_ok();
        }
    }

    /// Makes the revision run here that the store wants to, if another one does. What this node cannot
    /// take is noted, and the old one goes on.
    ///
    /// # Errors
    /// It was not taken.
    pub(super) async fn catch_up(&self) -> Result<(), Refused> {
        loop {
            // A change that is being made here has stored its revision before it runs.
            drop(self.shared.publisher.lock().await);
            let running = self.current().revision.id;
            let standing = self.shared.store.standing().await?;
            self.meter(standing.trial.as_ref());
            let wanted = standing.wanted(self.following().name());
            self.following().state().wanted = Some(wanted);
            // An empty store is a new one: what runs goes on until somebody applies. A file that is
            // behind was put there by a person; a database may have lost its last changes with a
            // server, and all its nodes must agree.
            let behind = wanted < running && !self.shared.store.is_shared();
            if wanted == running || wanted == 0 || behind {
                self.following().fault(None);
                return Ok(());
            }
            let Some(revision) = self.shared.store.get(wanted).await? else { continue };
            let name = format!("revision {wanted}");
            let loaded = load(&name, revision.spec.as_bytes(), self.shared.engine.check).await;
            let told = match loaded {
                Ok(whole) => super::told(whole).await,
                Err(refused) => Err(refused),
            };
            let taken = match told {
                Ok(whole) => {
                    let mut publisher = self.shared.publisher.lock().await;
                    // Another change was made here meanwhile.
                    if self.current().revision.id != running {
                        continue;
                    }
                    self.take(&mut publisher, revision, whole).await
                }
                Err(refused) => Err(refused),
            };
            let fault = taken.as_ref().err().map(|refused| (wanted, why(refused)));
            let done = fault.is_none();
            self.following().fault(fault);
            if done {
                eprintln!("sluice: revision {wanted} of the store is served");
                self.meter(standing.trial.as_ref());
            }
            return taken;
        }
    }

    /// Makes a stored revision run.
    async fn take(
        &self,
        publisher: &mut Held<'_, Publisher>,
        revision: Revision,
        whole: Whole,
    ) -> Result<(), Refused> {
        let before = self.current();
        let snapshot = self.prepared(publisher, &whole, revision.id).await?;
        let done = self.put(publisher, revision.into(), whole, snapshot).await.map(drop);
        if done.is_err() && self.current().revision.id == before.revision.id {
            publisher.close_others(&before.snapshot.listeners).await;
        }
        done
    }

    /// Notes that what runs now is served by all shards.
    pub(super) fn served(&self, current: &Current) {
        let now_ms = self.shared.store.now_ms();
        let lag_ms = now_ms.saturating_sub(current.revision.created_ms);
        self.following().state().lag = Some((current.revision.id, lag_ms));
    }

    /// Keeps `revision` for a start without the store.
    pub(super) async fn keep(&self, revision: Arc<Revision>) {
        let last = LastRevision(self.following().last.clone());
        let (made, most) = (revision.spec.is_made(), MAX_KEPT_AT_ONCE);
        if made && revision.spec.len() <= most {
            return keep(last, revision).await;
        }
        let pause = if made { Duration::ZERO } else { KEEP_INTERVAL };
        // Writing out a large spec takes longer than many changes of it.
        if self.following().keeping.swap(true, Relaxed) {
            return;
        }
        let running = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            running.following().keeping.store(false, Relaxed);
            keep(last, Arc::clone(&running.current().revision)).await;
        });
    }

    /// Keeps what waits for it.
    pub(super) async fn keep_now(&self) {
        if self.following().keeping.swap(false, Relaxed) {
            let last = LastRevision(self.following().last.clone());
            keep(last, Arc::clone(&self.current().revision)).await;
        }
    }

    /// How this node stands. `metered`: for the store, which gets the rate since the last time.
    fn report(&self, metered: bool) -> NodeReport {
        let (status, current) = (self.status(), self.current());
        let requests = status.shards.iter().map(|shard| shard.requests).sum();
        let mut state = self.following().state();
        let rate = match state.meter {
            Some((since, before)) if since.elapsed() > Duration::ZERO => {
                u64::saturating_sub(requests, before) as f64 / since.elapsed().as_secs_f64()
            }
            _ => 0.0,
        };
        if metered {
            state.meter = Some((Instant::now(), requests));
        }
        NodeReport {
            name: self.following().name.clone(),
            admin: self.shared.admin.to_string(),
            version: status.version,
            wanted: state.wanted.filter(|id| *id > 0).unwrap_or(current.revision.id),
            served: current.revision.id,
            epoch: status.epoch,
            converged: status.converged,
            convergence_us: status.convergence_us,
            lag_ms: state.lag.filter(|(id, _)| *id == current.revision.id).map(|(_, lag)| lag),
            error: state.fault.as_ref().map(|(id, why)| format!("revision {id}: {why}")),
            engine: status.engine,
            load: Load { requests, rate },
            trial: self.shared.records.tally(),
            seen_ms: self.shared.store.now_ms(),
        }
    }

    /// All nodes of the store. While it cannot be asked, this one alone.
    pub async fn cluster(&self) -> Cluster {
        let own = self.report(false);
        let store = self.shared.store.place();
        let (nodes, standing) = match self.shared.store.nodes().await {
            Ok(nodes) => (nodes, self.shared.store.standing().await),
            Err(error) => (Vec::new(), Err(error)),
        };
        let store_error = standing.as_ref().err().map(ToString::to_string);
        let standing = standing.unwrap_or(Standing { latest: own.wanted, trial: None });
        let trial = standing.trial.as_ref();
        let now_ms = self.shared.store.now_ms();
        let others = nodes.into_iter().filter(|node| node.name != own.name);
        let mut nodes: Vec<NodeReport> = others.chain([own.clone()]).collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        let nodes = nodes.into_iter().map(|node| {
            let silent_ms = now_ms.saturating_sub(node.seen_ms);
            let state = if silent_ms > MAX_SILENT_MS {
                "gone"
            } else if node.served == standing.wanted(&node.name) && node.converged {
                "ok"
            } else if node.error.is_some() {
                "failed"
            } else {
                "behind"
            };
            let canary = trial.is_some_and(|trial| trial.has(&node.name));
            ClusterNode { state: state.into(), silent_ms, own: node.name == own.name, canary, node }
        });
        Cluster { store, store_error, latest: standing.latest, nodes: nodes.collect() }
    }

    /// Why the store cannot be asked just now.
    pub(super) fn store_error(&self) -> Option<String> {
        self.following().state().store_error.clone()
    }

    /// Why this node does not serve the latest revision.
    pub(super) fn revision_error(&self) -> Option<String> {
        let state = self.following().state();
        state.fault.as_ref().map(|(id, why)| format!("revision {id} cannot be taken here: {why}"))
    }
}

/// Writes the last revision where a disk may be slow.
pub(super) async fn keep(last: LastRevision, revision: Arc<Revision>) {
    let written = tokio::task::spawn_blocking(move || last.write(&revision)).await;
    if let Ok(Err(error)) = written {
        eprintln!(
            "sluice: the last revision cannot be kept for a start without the store: {error}"
        );
    }
}

/// Listeners, names and providers of `whole` as they are needed for its snapshot.
impl Running {
    /// Compiles `whole` and opens its listeners: what can fail without trace comes before what cannot
    /// be undone.
    pub(super) async fn prepared(
        &self,
        publisher: &mut Publisher,
        whole: &Whole,
        revision: u64,
    ) -> Result<contract::snapshot::Snapshot, Refused> {
        let Whole { spec, material, auth } = whole;
        let (providers, sources) = (&self.shared.providers, keys::sources(spec));
        let hosts = super::hosts(spec);
        tokio::join!(
            self.shared.resolver.ensure(&hosts, super::RESOLVE_TIMEOUT),
            providers.ensure(&sources, material, super::PROVIDER_TIMEOUT),
        );
        let own = auth.as_ref().map(|auth| Before { spec, material, auth });
        let snapshot = self.compiled(spec, publisher.next_epoch(), revision, material, own);
        publisher.open(&snapshot.listeners).await.map_err(Refused::Listener)?;
        Ok(snapshot)
    }

    /// Publishes what was prepared, and waits for every shard.
    pub(super) async fn put(
        &self,
        publisher: &mut Publisher,
        revision: Arc<Revision>,
        Whole { spec, material, .. }: Whole,
        snapshot: contract::snapshot::Snapshot,
    ) -> Result<Duration, Refused> {
        self.shared.records.write_to(&spec.access_log);
        let whole = (spec.into(), material.into());
        let id = revision.id;
        let published = self.publish(publisher, revision, whole, snapshot).await;
        let current = self.current();
        if current.revision.id == id {
            self.keep(Arc::clone(&current.revision)).await;
        }
        let convergence = published?;
        self.served(&current);
        self.following().tell();
        publisher.close_others(&current.snapshot.listeners).await;
        self.shared.resolver.retain(&super::hosts(&current.spec));
        self.shared.providers.retain(&keys::sources(&current.spec));
        Ok(convergence)
    }
}

/// For people, in one line.
fn why(refused: &Refused) -> String {
    match refused {
        Refused::Spec(problems) => {
            let errors = problems.iter().filter(|one| one.severity == crate::spec::Severity::Error);
            let texts: Vec<String> = errors.take(3).map(|one| one.message.clone()).collect();
            texts.join("; ")
        }
        other => other.to_string(),
    }
}

/// The revision that is kept, when `store` cannot be asked.
pub(super) fn instead(store: &Store, last: &LastRevision, error: &StoreError) -> Option<Revision> {
    let revision = last.read()?;
    eprintln!(
        "sluice: {error}\nsluice: starting with revision {}, the last one that ran here; the store {} is \
         asked again and again",
        revision.id,
        store.place()
    );
    Some(revision)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_last_revision_is_kept_for_nobody_else_and_read_again() {
        let path = std::env::temp_dir().join(format!("sluice-last-{}", std::process::id()));
        let last = LastRevision::at(path.join("last-revision.json"));
        assert_eq!(last.read(), None);
        std::fs::create_dir_all(&path).unwrap();
        for id in [7, 8] {
            let revision = Revision {
                id,
                created_ms: 1,
                author: "ada".into(),
                message: String::new(),
                spec: "{}".into(),
                source: "a: b".into(),
                source_name: "a.yaml".into(),
                diff: serde_json::Value::Null,
            };
            last.write(&revision).unwrap();
            assert_eq!(last.read(), Some(revision));
        }
        let mode = std::fs::metadata(last.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(last.path(), "{").unwrap();
        assert_eq!(last.read(), None);
        std::fs::remove_dir_all(path).unwrap();
    }
}
