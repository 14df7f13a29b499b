//! Where revisions of the spec are kept, and what belongs to them: who changed what (the audit log),
//! what the nodes of a cluster say, answers to repeated requests, and when API keys were used last.
//!
//! A revision is written once and never changed; the latest one is what should be running. The last
//! 1,000 are kept. A rollback is a new revision with an old one's text, so the list reads as history.

mod chain;
mod error;
pub mod offline;
mod postgres;
mod record;
mod sqlite;
mod text;

use std::{
    collections::HashMap,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

pub use error::StoreError;
use postgres::Postgres;
pub use record::{
    AuditDraft, AuditEntry, AuditVerdict, Delta, Draft, Load, NodeReport, Remembered, Revision,
    RevisionLine, Standing, Trial,
};
use sqlite::Sqlite;
pub use text::Text;

use crate::rollout::Rollout;

/// Revisions kept: with the default limits on their texts a store stays manageable, and nobody goes
/// back further. The stores' triggers name the number, too.
const MAX_KEPT: u64 = 1_000;

/// API keys whose last use is kept; those used last.
const MAX_KEY_USES: usize = 200_000;

/// How long answers to requests with an idempotency key are kept, in milliseconds.
const REMEMBERED_MS: u64 = 24 * 3_600 * 1_000;

/// Answers kept at most; the latest.
const MAX_REMEMBERED: u32 = 10_000;

/// The store. Cheap to clone; calls from anywhere are taken one at a time, and each is done whole or
/// not at all.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    /// The latest revision known.
    changes: watch::Sender<Known>,
}

/// What is known of the store without asking it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The latest revision; 0 before any is known.
    pub latest: u64,
    /// Rises with everything that happens to trials.
    pub trials: u64,
}

#[derive(Clone)]
enum Engine {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Calls the same method of whichever store it is.
macro_rules! either {
    ($store:expr, $call:ident ( $($argument:expr),* )) => {
        match &$store.engine {
            Engine::Sqlite(store) => store.$call($($argument),*).await,
            Engine::Postgres(store) => store.$call($($argument),*).await,
        }
    };
}

impl Store {
    /// Opens the file `path`, creating it when absent.
    pub async fn open(path: &Path) -> Result<Store, StoreError> {
        let store = Store::file(path);
        store.ready().await?;
        Ok(store)
    }

    /// The file `path`, which the first call opens.
    pub fn file(path: &Path) -> Store {
        Store { engine: Engine::Sqlite(Sqlite::at(path)), changes: watch::Sender::default() }
    }

    /// The database at `url` (`postgres://USER@HOST/DATABASE?sslmode=...`), which the first call
    /// connects to. Within a tokio runtime only.
    ///
    /// # Errors
    /// `url` is none.
    pub fn database(url: &str) -> Result<Store, StoreError> {
        let changes = watch::Sender::default();
        let database = Postgres::at(url.parse()?, changes.clone());
        Ok(Store { engine: Engine::Postgres(database), changes })
    }

    /// Whether the store can be used now; opens it.
    pub async fn ready(&self) -> Result<(), StoreError> {
        either!(self, ready())?;
        self.latest_id().await.map(drop)
    }

    /// Where it is, for people; without secrets.
    pub fn place(&self) -> String {
        match &self.engine {
            Engine::Sqlite(store) => store.path().display().to_string(),
            Engine::Postgres(store) => store.place(),
        }
    }

    /// Other nodes may use it, too.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// Milliseconds since the Unix epoch by the store's clock, which revisions are dated by.
    pub fn now_ms(&self) -> u64 {
        match &self.engine {
            Engine::Sqlite(_) => now_ms(),
            Engine::Postgres(store) => store.now_ms(),
        }
    }

    /// Stores `draft` durably, forgets what is older than the last 1,000, and returns it as a
    /// revision. `over`: only when that is the latest one; 0: only when there is none.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when `over` is not the latest. Nothing is stored then.
    pub async fn append(&self, draft: Draft, over: Option<u64>) -> Result<Revision, StoreError> {
        let revision = either!(self, append(draft, over))?;
        self.learn(revision.id);
        Ok(revision)
    }

    /// The newest revision, or `None` in a fresh store.
    pub async fn latest(&self) -> Result<Option<Revision>, StoreError> {
        either!(self, latest())
    }

    /// The number of the newest revision; 0: there is none.
    pub async fn latest_id(&self) -> Result<u64, StoreError> {
        let latest = either!(self, latest_id())?;
        self.learn(latest);
        Ok(latest)
    }

    /// Revision `id`, or `None` when there is no such.
    pub async fn get(&self, id: u64) -> Result<Option<Revision>, StoreError> {
        either!(self, get(id))
    }

    /// The newest `limit` revisions, newest first.
    pub async fn list(&self, limit: u32) -> Result<Vec<RevisionLine>, StoreError> {
        self.list_before(None, limit).await
    }

    /// The newest `limit` revisions before `before`, newest first.
    pub async fn list_before(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<RevisionLine>, StoreError> {
        either!(self, list(before, limit))
    }

    /// Appends to the audit log.
    pub async fn audit(&self, entry: AuditDraft) -> Result<AuditEntry, StoreError> {
        either!(self, audit(entry))
    }

    /// The newest `limit` entries of the audit log before `before`, newest first.
    pub async fn audit_list(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        either!(self, audit_list(before, limit))
    }

    /// Looks at the whole audit log, from its first entry.
    pub async fn audit_verify(&self) -> Result<AuditVerdict, StoreError> {
        either!(self, audit_verify())
    }

    /// The answer that `actor` got to an earlier request under the idempotency key `key`, for 24 h.
    pub async fn idempotent(
        &self,
        key: &str,
        actor: &str,
    ) -> Result<Option<Remembered>, StoreError> {
        either!(self, idempotent(key, actor))
    }

    /// Keeps an answer for 24 h. Of two under one key the first stays.
    pub async fn remember(
        &self,
        key: &str,
        actor: &str,
        answer: Remembered,
    ) -> Result<(), StoreError> {
        either!(self, remember(key, actor, answer))
    }

    /// What is known of the store, by whichever node it was changed.
    pub fn changes(&self) -> watch::Receiver<Known> {
        self.changes.subscribe()
    }

    /// What nodes are to serve.
    pub async fn standing(&self) -> Result<Standing, StoreError> {
        let standing = match &self.engine {
            Engine::Sqlite(store) => Standing { latest: store.latest_id().await?, trial: None },
            Engine::Postgres(store) => store.standing().await?,
        };
        self.learn(standing.latest);
        Ok(standing)
    }

    /// The last trial, and whether it lasts. A file has none: there is nothing to compare with.
    pub async fn rollout(&self) -> Result<Option<Rollout>, StoreError> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(None),
            Engine::Postgres(store) => store.rollout().await,
        }
    }

    /// Ends the trial of `ended.revision` without another revision, and notes who did. False: it has
    /// ended already.
    pub async fn end_rollout(&self, ended: Rollout, audit: AuditDraft) -> Result<bool, StoreError> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(false),
            Engine::Postgres(store) => store.end_rollout(ended, audit).await,
        }
    }

    /// Notes how a node stands; the store sets `seen_ms`.
    pub async fn report(&self, node: NodeReport) -> Result<(), StoreError> {
        either!(self, report(node))
    }

    /// What each node said last, by name.
    pub async fn nodes(&self) -> Result<Vec<NodeReport>, StoreError> {
        either!(self, nodes())
    }

    /// Forgets a node, until it reports again.
    pub async fn forget(&self, node: &str) -> Result<(), StoreError> {
        either!(self, forget(node))
    }

    /// Notes when API keys were used, in seconds since the Unix epoch, by their SHA-256. Of two times
    /// for a key the later one stays; what is from before `since_s` is forgotten.
    pub async fn note_key_uses(
        &self,
        uses: HashMap<[u8; 32], u64>,
        since_s: u64,
    ) -> Result<(), StoreError> {
        either!(self, note_key_uses(uses, since_s))
    }

    /// When API keys were used last.
    pub async fn key_uses(&self) -> Result<HashMap<[u8; 32], u64>, StoreError> {
        either!(self, key_uses())
    }

    fn learn(&self, latest: u64) {
        self.changes.send_if_modified(|known| {
            let news = latest > known.latest;
            known.latest = latest.max(known.latest);
            news
        });
    }
}

/// Milliseconds since the Unix epoch, by this machine's clock.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests;
