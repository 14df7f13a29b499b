//! Where revisions of the spec are kept, and when API keys were used last.
//!
//! A revision is written once and never changed; the latest one is what should be running. The last
//! 1,000 are kept. A
//! rollback is a new revision with an old one's text, so the list reads as history.

pub mod offline;
mod sqlite;

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One stored spec with where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Rises by one with every revision, from 1.
    pub id: u64,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    pub author: String,
    pub message: String,
    /// The spec as canonical JSON: what is compiled.
    pub spec: String,
    /// The text as the person wrote it, comments and all.
    pub source: String,
    /// File name (or other origin) of `source`.
    pub source_name: String,
}

/// A [`Revision`] without its texts, for lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionLine {
    pub id: u64,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    pub author: String,
    pub message: String,
    pub source_name: String,
}

/// A revision about to be stored; the store gives it its id and time.
#[derive(Clone, Debug)]
pub struct Draft {
    pub author: String,
    pub message: String,
    pub spec: String,
    pub source: String,
    pub source_name: String,
}

#[derive(Debug, Error)]
pub enum StoreError {
    #[error(
        "the revision store {path} cannot be opened: {reason}; check that the directory exists, is writable and has free space"
    )]
    Open { path: String, reason: String },
    #[error(
        "the revision store {path} was written by a newer sluice (layout {found}, this one reads up to {known}); use that version or another --state directory"
    )]
    Layout { path: String, found: i64, known: i64 },
    #[error("the revision store failed: {0}; the running configuration is not affected")]
    Failed(String),
}

/// The store. Cheap to clone; calls from anywhere are taken one at a time.
#[derive(Clone)]
pub struct Store {
    engine: sqlite::Sqlite,
}

impl Store {
    /// Opens `path`, creating it when absent.
    pub async fn open(path: &Path) -> Result<Store, StoreError> {
        Ok(Store { engine: sqlite::Sqlite::open(path).await? })
    }

    /// Stores `draft` durably, forgets what is older than the last 1,000, and returns it as a
    /// revision.
    pub async fn append(&self, draft: Draft) -> Result<Revision, StoreError> {
        self.engine.append(draft).await
    }

    /// The newest revision, or `None` in a fresh store.
    pub async fn latest(&self) -> Result<Option<Revision>, StoreError> {
        self.engine.latest().await
    }

    /// Revision `id`, or `None` when there is no such.
    pub async fn get(&self, id: u64) -> Result<Option<Revision>, StoreError> {
        self.engine.get(id).await
    }

    /// The newest `limit` revisions, newest first.
    pub async fn list(&self, limit: u32) -> Result<Vec<RevisionLine>, StoreError> {
        self.engine.list(limit).await
    }

    /// Notes when API keys were used, in seconds since the Unix epoch, by their SHA-256. Of two times
    /// for a key the later one stays; what is from before `since_s` is forgotten.
    pub async fn note_key_uses(
        &self,
        uses: HashMap<[u8; 32], u64>,
        since_s: u64,
    ) -> Result<(), StoreError> {
        self.engine.note_key_uses(uses, since_s).await
    }

    /// When API keys were used last.
    pub async fn key_uses(&self) -> Result<HashMap<[u8; 32], u64>, StoreError> {
        self.engine.key_uses().await
    }
}
