//! The embedded store: one SQLite file.

mod deltas;
mod log;
mod tables;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior};

pub use deltas::texts;

use super::{Draft, MAX_KEPT, MAX_KEY_USES, Revision, RevisionLine, StoreError, now_ms};

const COLUMNS: &str = "id, created_ms, author, message, spec, source, source_name, diff";

/// The file. It is opened by the first call, and again by the next one after it was found broken.
#[derive(Clone)]
pub struct Sqlite {
    path: Arc<Path>,
    connection: Arc<Mutex<Option<Connection>>>,
}

impl Sqlite {
    pub fn at(path: &Path) -> Sqlite {
        Sqlite { path: path.into(), connection: Arc::default() }
    }

    pub fn path(&self) -> PathBuf {
        self.path.to_path_buf()
    }

    /// Opens the file now.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.call(|_| Ok(())).await
    }

    /// `over`: only when that is the latest one.
    pub async fn append(&self, draft: Draft, over: Option<u64>) -> Result<Revision, StoreError> {
        self.change(move |change| {
            let latest: Option<i64> =
                change.query_row("SELECT MAX(id) FROM revisions", [], |row| row.get(0))?;
            let latest = latest.unwrap_or(0) as u64;
            if over.is_some_and(|over| over != latest) {
                return Ok(Err(StoreError::Changed { latest }));
            }
            Ok(Ok(insert(change, draft, latest as i64)?))
        })
        .await?
    }

    pub async fn latest(&self) -> Result<Option<Revision>, StoreError> {
        self.call(|connection| {
            let query = format!("SELECT {COLUMNS} FROM revisions ORDER BY id DESC LIMIT 1");
            let found = connection.query_row(&query, [], revision).optional()?;
            found.map(|found| complete(connection, found)).transpose()
        })
        .await
    }

    /// The number of the latest revision; 0: there is none.
    pub async fn latest_id(&self) -> Result<u64, StoreError> {
        self.call(|connection| {
            let query = "SELECT COALESCE(MAX(id), 0) FROM revisions";
            connection.query_row(query, [], |row| Ok(row.get::<_, i64>(0)? as u64))
        })
        .await
    }

    pub async fn get(&self, id: u64) -> Result<Option<Revision>, StoreError> {
        // Ids past i64 cannot be in the file.
        let Ok(id) = i64::try_from(id) else { return Ok(None) };
        self.call(move |connection| {
            let query = format!("SELECT {COLUMNS} FROM revisions WHERE id = ?1");
            let found = connection.query_row(&query, [id], revision).optional()?;
            found.map(|found| complete(connection, found)).transpose()
        })
        .await
    }

    pub async fn list(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<RevisionLine>, StoreError> {
        self.call(move |connection| {
            let mut query = connection.prepare(
                "SELECT id, created_ms, author, message, source_name
                 FROM revisions WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let lines = query.query_map((end(before), limit), |row| {
                Ok(RevisionLine {
                    id: row.get::<_, i64>(0)? as u64,
                    created_ms: row.get::<_, i64>(1)? as u64,
                    author: row.get(2)?,
                    message: row.get(3)?,
                    source_name: row.get(4)?,
                })
            })?;
            lines.collect()
        })
        .await
    }

    pub async fn note_key_uses(
        &self,
        uses: HashMap<[u8; 32], u64>,
        since_s: u64,
    ) -> Result<(), StoreError> {
        self.change(move |change| {
            let mut note = change.prepare(
                "INSERT INTO key_uses (digest, used_s) VALUES (?1, ?2)
                 ON CONFLICT (digest) DO UPDATE SET used_s = MAX(used_s, excluded.used_s)",
            )?;
            for (digest, used_s) in uses {
                note.execute((digest, i64::try_from(used_s).unwrap_or(i64::MAX)))?;
            }
            let since_s = i64::try_from(since_s).unwrap_or(i64::MAX);
            change.execute("DELETE FROM key_uses WHERE used_s < ?1", [since_s])?;
            Ok(())
        })
        .await
    }

    pub async fn key_uses(&self) -> Result<HashMap<[u8; 32], u64>, StoreError> {
        self.call(|connection| {
            let mut query = connection
                .prepare("SELECT digest, used_s FROM key_uses ORDER BY used_s DESC LIMIT ?1")?;
            let uses = query.query_map([MAX_KEY_USES as i64], |row| {
                Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, i64>(1)?.max(0) as u64))
            })?;
            uses.collect()
        })
        .await
    }

    /// Runs `work` in a transaction that holds the file from its beginning, so that what it reads
    /// stays true.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call(move |connection| {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&change)?;
            change.commit()?;
            Ok(done)
        })
        .await
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (path, connection) = (Arc::clone(&self.path), Arc::clone(&self.connection));
        blocking(move || {
            // A panic while the lock was held left no transaction open that SQLite would not
            // roll back: the connection stays usable.
            let mut held = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let connection = match &mut *held {
                Some(connection) => connection,
                none => none.insert(tables::open(&path)?),
            };
            work(connection).map_err(|error| {
                if broken(&error) {
                    // Somebody may put a good file in its place.
                    *held = None;
                }
                StoreError::Failed(reason(&error))
            })
        })
        .await
    }
}

fn insert(change: &Transaction<'_>, draft: Draft, latest: i64) -> rusqlite::Result<Revision> {
    let created_ms = now_ms();
    let Draft { author, message, spec, source, source_name, delta, diff, audit, base: _, trial: _ } =
        draft;
    let delta = match delta {
        Some(delta) if deltas::fits(change, latest, &delta)? => Some(delta),
        _ => None,
    };
    // Reading these may be what makes them.
    let (own_spec, own_source) = match delta {
        Some(_) => ("", ""),
        None => (&*spec, &*source),
    };
    change.execute(
        "INSERT INTO revisions (created_ms, author, message, spec, source, source_name, diff)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        (
            created_ms as i64,
            &author,
            &message,
            own_spec,
            own_source,
            &source_name,
            (!diff.is_null()).then(|| diff.to_string()),
        ),
    )?;
    let id = change.last_insert_rowid();
    if let Some(delta) = &delta {
        deltas::note(change, id, delta)?;
    }
    deltas::forget(change, id - MAX_KEPT as i64)?;
    let id = id as u64;
    if let Some(mut audit) = audit {
        audit.revision.get_or_insert(id);
        log::link(change, audit)?;
    }
    Ok(Revision { id, created_ms, author, message, spec, source, source_name, diff })
}

/// Where a list that goes downwards from `before` ends.
fn end(before: Option<u64>) -> i64 {
    before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX)
}

/// Disk work happens on tokio's blocking threads so that the admin API never waits for a disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Failed(error.to_string())),
    }
}

/// The connection is of no more use.
fn broken(error: &rusqlite::Error) -> bool {
    let broken = [
        ErrorCode::DatabaseCorrupt,
        ErrorCode::NotADatabase,
        ErrorCode::CannotOpen,
        ErrorCode::SystemIoFailure,
        ErrorCode::ReadOnly,
    ];
    error.sqlite_error_code().is_some_and(|code| broken.contains(&code))
}

/// For people: what is wrong, and what helps.
fn reason(error: &rusqlite::Error) -> String {
    let help = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full; make room",
        Some(ErrorCode::ReadOnly) => "the file, its directory or the disk is read-only",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process holds the file for long"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "the file is damaged; put a copy in its place, or move it away to begin anew"
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "check that the directory exists, is writable and has free space"
        }
        Some(ErrorCode::SystemIoFailure) => "the disk cannot be read or written",
        _ => return error.to_string(),
    };
    format!("{help} ({error})")
}

/// With its texts, where it is kept as a difference.
fn complete(connection: &Connection, found: Revision) -> rusqlite::Result<Revision> {
    Ok(match deltas::texts(connection, found.id as i64)? {
        Some((spec, source)) => Revision { spec, source, ..found },
        None => found,
    })
}

fn revision(row: &Row<'_>) -> rusqlite::Result<Revision> {
    let diff: Option<String> = row.get(7)?;
    Ok(Revision {
        id: row.get::<_, i64>(0)? as u64,
        created_ms: row.get::<_, i64>(1)? as u64,
        author: row.get(2)?,
        message: row.get(3)?,
        spec: row.get::<_, String>(4)?.into(),
        source: row.get::<_, String>(5)?.into(),
        source_name: row.get(6)?,
        diff: diff.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
    })
}
