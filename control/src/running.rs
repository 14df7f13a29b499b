//! The running configuration: everything that changes it goes through here, one at a time.

mod amend;
mod choose;
mod follow;
mod key_uses;
mod revise;
mod rollout;
mod state;
mod told;
mod upkeep;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use contract::{Segment, snapshot::Snapshot};
use thiserror::Error;
use tokio::sync::Mutex;

use crate::{
    access::Principal,
    api::model::Applied,
    compile::Before,
    diff::diff,
    entry::EngineEntry,
    fit::{self, Checked, Judge, Whole, unix_now},
    inquiry::Inquiry,
    keys::{self, ProviderState, Providers, Source},
    material::Material,
    publish::{EngineState, Publisher},
    records::Records,
    resolve::{HostState, Resolver},
    rollout::Order,
    spec::{Problem, Severity, Spec},
    store::{AuditDraft, Draft, Revision, RevisionLine, Store, StoreError, Trial},
    tickets::Tickets,
};
pub use amend::Placing;
pub use choose::choose;
use follow::Following;
pub use follow::LastRevision;
pub use revise::{Aim, Edit};
use told::told;
use upkeep::{NodeKeys, compiled, cookie_keys, ticket_keys};

/// Longest that an apply waits for new host names; slower answers are published when they come.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest that it waits for providers of which nothing is known yet.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(5);

/// A shard that gave no sign of life for longer is not ready.
const MAX_SILENT_MS: u64 = 3_000;

/// Longest texts kept with a revision, in bytes.
const MAX_MESSAGE: usize = 1_000;
const MAX_NAME: usize = 200;

/// How often a change is tried over what other nodes store at the same time.
const MAX_TURNS: usize = 10;

/// A change that was asked for.
pub struct Change {
    pub source_name: String,
    /// YAML or JSON.
    pub source: Vec<u8>,
    pub author: String,
    pub message: String,
    /// Only say what would change.
    pub dry_run: bool,
    /// Only when this revision runs.
    pub over: Option<u64>,
    /// Who asks for it, and so what it may change.
    pub by: Principal,
    /// Stored with the revision.
    pub audit: Option<AuditDraft>,
    /// On some nodes first.
    pub trial: Option<Order>,
}

/// Why a change was not made. The old configuration keeps running.
#[derive(Debug, Error)]
pub enum Refused {
    #[error("the spec has {} (nothing was changed)", errors(.0))]
    Spec(Vec<Problem>),
    #[error("{0} (nothing was changed)")]
    Listener(String),
    #[error("there is no revision {0}; `sluice get revisions` lists those that are kept")]
    NoRevision(u64),
    #[error("there is no spec to run yet: give one with -f FILE, or try --demo")]
    NoSpec,
    #[error("{0}")]
    Question(String),
    #[error("revision {running} runs, not {expected}; look at it and try again")]
    Changed { running: u64, expected: u64 },
    /// Who asks may not.
    #[error("{0} (nothing was changed)")]
    Forbidden(String),
    /// There is no such thing in the running spec.
    #[error("{0}")]
    NoEntity(String),
    /// It is not as who asks believes.
    #[error("{0} (nothing was changed)")]
    Precondition(String),
    /// It contradicts itself, or what there is.
    #[error("{0} (nothing was changed)")]
    Conflict(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored and published, but not everywhere yet.
    #[error("{0}")]
    Publish(String),
    #[error("{0}; this is a defect, please report it")]
    Internal(String),
}

fn errors(problems: &[Problem]) -> String {
    match problems.iter().filter(|problem| problem.severity == Severity::Error).count() {
        1 => "1 error".into(),
        n => format!("{n} errors"),
    }
}

/// What runs.
pub struct Current {
    pub revision: Arc<Revision>,
    pub spec: Arc<Spec>,
    /// What its files hold.
    pub material: Arc<Material>,
    pub snapshot: Arc<Snapshot>,
    /// From the last publish to its last adoption; `None` before the first of this process.
    pub convergence: Option<Duration>,
}

/// Handle to the running configuration. Cheap to clone.
#[derive(Clone)]
pub struct Running {
    shared: Arc<Shared>,
}

/// What [`Running::start`] needs.
pub struct Parts {
    pub store: Store,
    pub resolver: Resolver,
    pub publisher: Publisher,
    pub records: Records,
    pub segment: Arc<Segment>,
    pub engine: EngineEntry,
    pub tickets: Tickets,
    pub cookies: Tickets,
    /// Of this node, among those of the store.
    pub name: String,
    pub last_revision: LastRevision,
}

struct Shared {
    store: Store,
    following: Following,
    resolver: Resolver,
    /// Its lock is the order of all changes.
    publisher: Mutex<Publisher>,
    records: Records,
    segment: Arc<Segment>,
    engine: EngineEntry,
    engine_state: EngineState,
    /// Questions that only the engine can answer.
    inquiry: Inquiry,
    tickets: std::sync::Mutex<Tickets>,
    cookies: std::sync::Mutex<Tickets>,
    /// What providers say.
    providers: Providers,
    /// When API keys were used last.
    key_uses: key_uses::Known,
    /// What is wrong with files.
    file_errors: RwLock<Vec<String>>,
    current: RwLock<Arc<Current>>,
    /// Where the admin listener is; it does not move while this process lives.
    admin: std::net::SocketAddr,
    started: Instant,
}

impl Running {
    /// Puts `chosen` in force. `last` is the snapshot that the engine serves already, from a
    /// control process before this one: when nothing differs, the engine is not disturbed.
    /// `admin` is where the admin listener is.
    pub async fn start(
        parts: Parts,
        (revision, whole): (Revision, Whole),
        last: Option<Snapshot>,
        admin: std::net::SocketAddr,
    ) -> Result<Running, Refused> {
        let Parts { store, resolver, mut publisher, records, segment, engine, .. } = parts;
        let (name, last_revision) = (parts.name, parts.last_revision);
        let (mut tickets, mut cookies) = (parts.tickets, parts.cookies);
        let Whole { spec, material, auth } = whole;
        let (providers, sources) = (Providers::new(resolver.clone()), keys::sources(&spec));
        if let Some(last) = last.as_ref().filter(|last| last.revision == revision.id) {
            providers.recover(&sources, &keys::recover(&spec, last));
        }
        let hosts = hosts(&spec);
        tokio::join!(
            resolver.ensure(&hosts, RESOLVE_TIMEOUT),
            providers.ensure(&sources, &material, PROVIDER_TIMEOUT),
        );
        records.write_to(&spec.access_log);
        for note in unresolved(&spec, &resolver) {
            eprintln!("sluice: {note}");
        }

        if let Some(last) = &last {
            publisher.resume(last);
            records.remember(last);
        }
        let epoch = last.as_ref().map_or(0, |last| last.epoch);
        let keys = NodeKeys {
            tickets: ticket_keys(&mut tickets, &spec),
            cookies: cookie_keys(&mut cookies, &spec),
        };
        let fetched = providers.fetched(&sources);
        let before = auth.as_ref().map(|auth| Before { spec: &spec, material: &material, auth });
        let snapshot =
            compiled(&spec, epoch, revision.id, (&resolver, &material), &keys, &fetched, before);
        let (snapshot, convergence) = match last {
            Some(last) if last == snapshot => (last, None),
            _ => {
                publisher.open(&snapshot.listeners).await.map_err(Refused::Listener)?;
                let snapshot = Snapshot { epoch: publisher.next_epoch(), ..snapshot };
                records.remember(&snapshot);
                publisher.publish(&snapshot).await.map_err(Refused::Publish)?;
                // Without an engine yet there is nobody to wait for: it adopts when it is up.
                (snapshot, None)
            }
        };
        let (engine_state, inquiry) = (publisher.engine(), publisher.inquiry());
        let key_uses = key_uses::Known::of(&store).await;
        let following = Following::new(name, last_revision.path().to_owned());
        let revision = Arc::new(revision);
        follow::keep(last_revision, Arc::clone(&revision)).await;
        let current = Current {
            revision,
            spec: Arc::new(spec),
            material: Arc::new(material),
            snapshot: Arc::new(snapshot),
            convergence,
        };
        Ok(Running {
            shared: Arc::new(Shared {
                store,
                following,
                resolver,
                publisher: Mutex::new(publisher),
                records,
                segment,
                engine,
                engine_state,
                inquiry,
                tickets: std::sync::Mutex::new(tickets),
                cookies: std::sync::Mutex::new(cookies),
                providers,
                key_uses,
                file_errors: RwLock::default(),
                current: RwLock::new(Arc::new(current)),
                admin,
                started: Instant::now(),
            }),
        })
    }

    pub fn inquiry(&self) -> &Inquiry {
        &self.shared.inquiry
    }

    pub fn admin(&self) -> std::net::SocketAddr {
        self.shared.admin
    }

    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.shared.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn shards(&self) -> usize {
        self.shared.segment.shards().into()
    }

    /// Checks `change` and makes it the running configuration on every shard.
    pub async fn apply(&self, change: Change) -> Result<Applied, Refused> {
        let whole = load(&change.source_name, &change.source, self.shared.engine.check).await?;
        let Change { source_name, source, author, message, dry_run, over, by, audit, trial } =
            change;
        let draft = Draft {
            author: cut(author, MAX_NAME),
            message: cut(message, MAX_MESSAGE),
            spec: canonical(&whole.spec)?.into(),
            source: String::from_utf8_lossy(&source).into_owned().into(),
            source_name: cut(source_name, MAX_NAME),
            audit,
            ..Draft::default()
        };
        self.install(whole, draft, (dry_run, over), &by, trial.as_ref()).await
    }

    /// Makes revision `to`, or the one before the running one, run again: as a new revision.
    pub async fn rollback(&self, to: Option<u64>, change: Change) -> Result<Applied, Refused> {
        let running = self.current().revision.id;
        let to = match to {
            Some(to) => to,
            None => running.saturating_sub(1),
        };
        let old = self.revision(to).await?;
        let whole = parse(&old, self.shared.engine.check).await?;
        let draft = Draft {
            author: cut(change.author, MAX_NAME),
            message: match change.message.is_empty() {
                true => format!("rollback to revision {to}"),
                false => cut(change.message, MAX_MESSAGE),
            },
            spec: canonical(&whole.spec)?.into(),
            source: old.source,
            source_name: old.source_name,
            audit: change.audit,
            ..Draft::default()
        };
        let trial = change.trial.as_ref();
        self.install(whole, draft, (change.dry_run, change.over), &change.by, trial).await
    }

    /// The newest `limit` revisions before `before`, newest first.
    pub async fn revisions(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<RevisionLine>, Refused> {
        Ok(self.shared.store.list_before(before, limit).await?)
    }

    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    pub async fn revision(&self, id: u64) -> Result<Revision, Refused> {
        // What runs is known without the store.
        let current = self.current();
        if current.revision.id == id {
            return Ok(Revision::clone(&current.revision));
        }
        let found = self.shared.store.get(id).await?;
        found.ok_or(Refused::NoRevision(id))
    }

    /// Makes `whole` run. `over`: only when that revision does, and no other node has stored one.
    async fn install(
        &self,
        whole: Whole,
        draft: Draft,
        (dry_run, over): (bool, Option<u64>),
        by: &Principal,
        trial: Option<&Order>,
    ) -> Result<Applied, Refused> {
        let mut whole = Some(whole);
        for _ in 0..MAX_TURNS {
            // What a person compares with and changes is the latest, if this node can take it.
            if !dry_run
                && self.shared.store.is_shared()
                && let Err(Refused::Store(error)) = self.catch_up().await
            {
                return Err(error.into());
            }
            match self.try_install(&mut whole, draft.clone(), (dry_run, over), by, trial).await {
                Err(Refused::Store(StoreError::Changed { latest })) => {
                    if let Some(expected) = over {
                        return Err(Refused::Changed { running: latest, expected });
                    }
                }
                done => return done,
            }
        }
        let running = self.current().revision.id;
        Err(Refused::Store(StoreError::Changed { latest: running }))
    }

    /// Takes `whole` only when it is stored.
    async fn try_install(
        &self,
        given: &mut Option<Whole>,
        draft: Draft,
        (dry_run, over): (bool, Option<u64>),
        by: &Principal,
        order: Option<&Order>,
    ) -> Result<Applied, Refused> {
        let Some(whole) = given.as_ref() else { return Err(Refused::NoSpec) };
        let mut publisher = self.shared.publisher.lock().await;
        let current = self.current();
        let running = current.revision.id;
        // A revision that this node could not take is the latest all the same.
        let latest = match (dry_run, self.shared.store.is_shared()) {
            (false, true) => {
                let standing = self.shared.store.standing().await?;
                if let Some(trial) = standing.trial {
                    return Err(StoreError::OnTrial { revision: trial.revision }.into());
                }
                standing.latest
            }
            _ => running,
        };
        if let Some(expected) = over.filter(|expected| *expected != running || latest != running) {
            return Err(Refused::Changed { running: latest, expected });
        }
        let diff = diff(&current.spec, &whole.spec);
        by.may_change(&diff, &current.spec, &whole.spec).map_err(Refused::Forbidden)?;
        let mut applied = Applied {
            revision: running,
            epoch: current.snapshot.epoch,
            unchanged: diff.is_empty() && latest == running,
            dry_run,
            convergence_us: None,
            shards: self.shards(),
            canaries: Vec::new(),
            changes: diff.to_string(),
            diff: serde_json::to_value(&diff).unwrap_or_default(),
            notes: self.notes(&whole.spec),
        };
        let trial = match order.filter(|_| !applied.unchanged) {
            Some(order) => Some(self.planned(order, running, &draft.author).await?),
            None => None,
        };
        applied.canaries = trial.as_ref().map(|trial| trial.canaries.clone()).unwrap_or_default();
        if dry_run || applied.unchanged {
            return Ok(applied);
        }
        // Only a change runs commands, never a question.
        if let Some(whole) = given.take_if(|whole| whole.material.is_pending()) {
            *given = Some(told(whole).await?);
        }
        let Some(whole) = given.as_ref() else { return Err(Refused::NoSpec) };
        let mut snapshot = self.prepared(&mut publisher, whole, 0).await?;
        applied.notes.extend(unresolved(&whole.spec, &self.shared.resolver));
        applied.notes.extend(silent(&keys::sources(&whole.spec), &self.shared.providers));
        // Elsewhere first: this node goes on as it is.
        let here = trial.as_ref().is_none_or(|trial| trial.has(self.following().name()));
        let trial = trial.map_or(Trial::None, |trial| Trial::Begin(Box::new(trial)));
        let draft = Draft { diff: applied.diff.clone(), base: Some(running), trial, ..draft };
        // A store of this node alone may have begun anew under what runs.
        let over = self.shared.store.is_shared().then_some(latest);
        let revision = match self.shared.store.append(draft, over).await {
            Ok(revision) => revision,
            Err(error) => {
                publisher.close_others(&current.snapshot.listeners).await;
                return Err(error.into());
            }
        };
        applied.revision = revision.id;
        if !here {
            publisher.close_others(&current.snapshot.listeners).await;
            return Ok(applied);
        }
        snapshot.revision = revision.id;
        applied.epoch = snapshot.epoch;
        let Some(whole) = given.take() else { return Err(Refused::NoSpec) };
        let convergence = self.put(&mut publisher, revision.into(), whole, snapshot).await?;
        applied.convergence_us = Some(convergence.as_micros() as u64);
        Ok(applied)
    }

    /// Publishes `snapshot` and waits for every shard to adopt it.
    async fn publish(
        &self,
        publisher: &mut Publisher,
        revision: Arc<Revision>,
        (spec, material): (Arc<Spec>, Arc<Material>),
        snapshot: Snapshot,
    ) -> Result<Duration, Refused> {
        if material.is_pending() {
            return Err(Refused::Internal(
                "a secret that is not known yet was to be published".into(),
            ));
        }
        // Names first: records of the new epoch may come at once.
        self.shared.records.remember(&snapshot);
        let began = publisher.publish(&snapshot).await.map_err(Refused::Publish)?;
        let epoch = snapshot.epoch;
        let snapshot = Arc::new(snapshot);
        self.set(Current { revision, spec, material, snapshot, convergence: None });
        let convergence = publisher.converge(epoch, began).await.map_err(Refused::Publish)?;
        let current = self.current();
        self.set(Current {
            revision: Arc::clone(&current.revision),
            spec: Arc::clone(&current.spec),
            material: Arc::clone(&current.material),
            snapshot: Arc::clone(&current.snapshot),
            convergence: Some(convergence),
        });
        Ok(convergence)
    }

    fn set(&self, current: Current) {
        *self.shared.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
    }

    /// Opens the access log anew, as after a rotation.
    pub fn reopen_log(&self) {
        self.shared.records.reopen();
    }

    /// Writes out every record, the access log, and when keys were used.
    pub async fn finish(&self) {
        self.shared.records.finish();
        self.write_key_uses().await;
        self.keep_now().await;
    }

    fn notes(&self, spec: &Spec) -> Vec<String> {
        let mut notes = Vec::new();
        let running = self.current().spec.admin.listen;
        if spec.admin.listen != running {
            notes.push(format!("admin.listen stays {running} until control starts again"));
        }
        let running = self.current().spec.admin.tls.is_some();
        if spec.admin.tls.is_some() != running {
            let tls = if running { "TLS" } else { "clear text" };
            notes.push(format!("the admin listener goes on with {tls} until control starts again"));
        }
        notes
    }
}

/// The spec of a stored revision, checked again: this version may be stricter than the one that
/// stored it.
async fn parse(revision: &Revision, judge: Judge) -> Result<Whole, Refused> {
    load(&format!("revision {}", revision.id), revision.spec.as_bytes(), judge).await
}

async fn load(name: &str, source: &[u8], judge: Judge) -> Result<Whole, Refused> {
    let Checked { whole, problems, .. } = checked(name, source, judge).await?;
    whole.ok_or(Refused::Spec(problems))
}

/// Checks away from the async threads: a large spec takes a while, and so do files. What the engine
/// would refuse is refused here, so that it is never stored.
async fn checked(name: &str, source: &[u8], judge: Judge) -> Result<Checked, Refused> {
    let (name, source) = (name.to_owned(), source.to_vec());
    let work = move || fit::load(&name, &source, None, judge);
    let checked = tokio::task::spawn_blocking(work).await;
    checked.map_err(|error| Refused::Internal(error.to_string()))
}

/// One note for each upstream host name of `spec` without an address.
fn unresolved(spec: &Spec, resolver: &Resolver) -> Vec<String> {
    let wanted = spec.host_names();
    let states = resolver.states().into_iter();
    let lost = states.filter(|state| state.addresses.is_empty() && wanted.contains(&state.host));
    lost.map(|HostState { host, error, .. }| {
        let why = error.unwrap_or_else(|| "no answer yet".into());
        format!("{host} has no address ({why}); an upstream without any answers 503")
    })
    .collect()
}

/// One note for each of `sources` that has not said yet what is needed.
fn silent(sources: &[Source], providers: &Providers) -> Vec<String> {
    let silent = providers.states(sources).into_iter().filter(|state| state.age.is_none());
    let note = |ProviderState { url, error, keys, .. }: ProviderState| {
        let why = error.unwrap_or_else(|| "no answer yet".into());
        let what = match keys {
            Some(_) => "; what it said before stays in use",
            None => "; what needs it answers 503 until it can",
        };
        format!("{url} cannot be fetched ({why}){what}")
    };
    silent.map(note).collect()
}

fn canonical(spec: &Spec) -> Result<String, Refused> {
    serde_json::to_string(spec).map_err(|error| Refused::Internal(error.to_string()))
}

fn hosts(spec: &Spec) -> Vec<String> {
    spec.host_names().into_iter().collect()
}

/// At most `max` bytes of `text`, at a character boundary.
fn cut(mut text: String, max: usize) -> String {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// The clock of the shards' heartbeats: milliseconds of CLOCK_MONOTONIC, the same in all processes.
fn monotonic_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}
