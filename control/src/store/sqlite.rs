//! The embedded store: one SQLite file.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Draft, Revision, RevisionLine, StoreError};

/// Version of the table layout below, in `PRAGMA user_version`.
const LAYOUT: i64 = 2;

/// How long a call waits for another process that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Revisions kept: with the default limits on their texts a file stays manageable, and nobody goes
/// back further. [`TABLES`] names the number, too.
const MAX_KEPT: i64 = 1_000;

/// The triggers make immutability a fact of the file, not a habit of this program: what is among
/// the last 1,000 cannot be changed or removed.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS revisions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        created_ms INTEGER NOT NULL,
        author TEXT NOT NULL,
        message TEXT NOT NULL,
        spec TEXT NOT NULL,
        source TEXT NOT NULL,
        source_name TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER IF NOT EXISTS revisions_no_update BEFORE UPDATE ON revisions
        BEGIN SELECT RAISE(ABORT, 'revisions are immutable'); END;
    DROP TRIGGER IF EXISTS revisions_no_delete;
    CREATE TRIGGER revisions_no_delete BEFORE DELETE ON revisions
        WHEN OLD.id > (SELECT MAX(id) FROM revisions) - 1000
        BEGIN SELECT RAISE(ABORT, 'revisions are immutable'); END;
    CREATE TABLE IF NOT EXISTS key_uses (
        digest BLOB PRIMARY KEY,
        used_s INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// API keys whose last use is kept; those used last.
const MAX_KEY_USES: usize = 200_000;

const COLUMNS: &str = "id, created_ms, author, message, spec, source, source_name";

#[derive(Clone)]
pub struct Sqlite {
    connection: Arc<Mutex<Connection>>,
}

impl Sqlite {
    pub async fn open(path: &Path) -> Result<Sqlite, StoreError> {
        let path = path.to_owned();
        blocking(move || {
            let connection = open(&path)?;
            Ok(Sqlite { connection: Arc::new(Mutex::new(connection)) })
        })
        .await
    }

    pub async fn append(&self, draft: Draft) -> Result<Revision, StoreError> {
        self.call(move |connection| {
            let created_ms =
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            let change = connection.transaction()?;
            change.execute(
                "INSERT INTO revisions (created_ms, author, message, spec, source, source_name)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (
                    created_ms as i64,
                    &draft.author,
                    &draft.message,
                    &draft.spec,
                    &draft.source,
                    &draft.source_name,
                ),
            )?;
            let id = change.last_insert_rowid();
            change.execute("DELETE FROM revisions WHERE id <= ?1", [id - MAX_KEPT])?;
            change.commit()?;
            Ok(Revision {
                id: id as u64,
                created_ms,
                author: draft.author,
                message: draft.message,
                spec: draft.spec,
                source: draft.source,
                source_name: draft.source_name,
            })
        })
        .await
    }

    pub async fn latest(&self) -> Result<Option<Revision>, StoreError> {
        self.call(|connection| {
            let query = format!("SELECT {COLUMNS} FROM revisions ORDER BY id DESC LIMIT 1");
            connection.query_row(&query, [], revision).optional()
        })
        .await
    }

    pub async fn get(&self, id: u64) -> Result<Option<Revision>, StoreError> {
        // Ids past i64 cannot be in the file.
        let Ok(id) = i64::try_from(id) else { return Ok(None) };
        self.call(move |connection| {
            let query = format!("SELECT {COLUMNS} FROM revisions WHERE id = ?1");
            connection.query_row(&query, [id], revision).optional()
        })
        .await
    }

    pub async fn list(&self, limit: u32) -> Result<Vec<RevisionLine>, StoreError> {
        self.call(move |connection| {
            let mut query = connection.prepare(
                "SELECT id, created_ms, author, message, source_name
                 FROM revisions ORDER BY id DESC LIMIT ?1",
            )?;
            let lines = query.query_map([limit], |row| {
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
        self.call(move |connection| {
            let change = connection.transaction()?;
            {
                let mut note = change.prepare(
                    "INSERT INTO key_uses (digest, used_s) VALUES (?1, ?2)
                     ON CONFLICT (digest) DO UPDATE SET used_s = MAX(used_s, excluded.used_s)",
                )?;
                for (digest, used_s) in uses {
                    note.execute((digest, i64::try_from(used_s).unwrap_or(i64::MAX)))?;
                }
            }
            let since_s = i64::try_from(since_s).unwrap_or(i64::MAX);
            change.execute("DELETE FROM key_uses WHERE used_s < ?1", [since_s])?;
            change.commit()
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

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        blocking(move || {
            // A panic while the lock was held left no transaction open that SQLite would not
            // roll back: the connection stays usable.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection).map_err(|error| StoreError::Failed(error.to_string()))
        })
        .await
    }
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

fn open(path: &PathBuf) -> Result<Connection, StoreError> {
    let refused = |error: rusqlite::Error| StoreError::Open {
        path: path.display().to_string(),
        reason: error.to_string(),
    };
    let connection = Connection::open(path).map_err(refused)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(refused)?;
    let found: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(refused)?;
    if found > LAYOUT {
        return Err(StoreError::Layout { path: path.display().to_string(), found, known: LAYOUT });
    }
    // FULL: an apply that was answered survives a power cut.
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        .and_then(|()| connection.execute_batch(TABLES))
        .and_then(|()| connection.pragma_update(None, "user_version", LAYOUT))
        .map_err(refused)?;
    Ok(connection)
}

fn revision(row: &Row<'_>) -> rusqlite::Result<Revision> {
    Ok(Revision {
        id: row.get::<_, i64>(0)? as u64,
        created_ms: row.get::<_, i64>(1)? as u64,
        author: row.get(2)?,
        message: row.get(3)?,
        spec: row.get(4)?,
        source: row.get(5)?,
        source_name: row.get(6)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(n: u32) -> Draft {
        Draft {
            author: "ada".into(),
            message: format!("change {n}"),
            spec: format!("{{\"n\":{n}}}"),
            source: format!("n: {n} # \u{1F980}\n"),
            source_name: "a.yaml".into(),
        }
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    /// A directory that is removed at the end of the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path =
                std::env::temp_dir().join(format!("sluice-store-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn keeps_revisions_in_order_and_over_a_reopen() {
        let scratch = Scratch::new("order");
        let path = scratch.0.join("sluice.db");
        run(async {
            let store = Sqlite::open(&path).await.unwrap();
            assert_eq!(store.latest().await.unwrap(), None);
            let first = store.append(draft(1)).await.unwrap();
            let second = store.append(draft(2)).await.unwrap();
            assert_eq!((first.id, second.id), (1, 2));
            drop(store);

            let store = Sqlite::open(&path).await.unwrap();
            assert_eq!(store.latest().await.unwrap(), Some(second));
            assert_eq!(store.get(1).await.unwrap(), Some(first));
            assert_eq!(store.get(3).await.unwrap(), None);
            assert_eq!(store.get(u64::MAX).await.unwrap(), None);
            let ids: Vec<u64> =
                store.list(10).await.unwrap().into_iter().map(|line| line.id).collect();
            assert_eq!(ids, [2, 1]);
            assert_eq!(store.list(1).await.unwrap().len(), 1);
        });
    }

    #[test]
    fn a_stored_revision_cannot_be_changed_or_removed() {
        let scratch = Scratch::new("immutable");
        run(async {
            let store = Sqlite::open(&scratch.0.join("sluice.db")).await.unwrap();
            let stored = store.append(draft(1)).await.unwrap();
            for statement in ["UPDATE revisions SET spec = 'x'", "DELETE FROM revisions"] {
                let refused = store.call(move |c| c.execute(statement, [])).await.unwrap_err();
                assert!(refused.to_string().contains("immutable"), "{refused}");
            }
            assert_eq!(store.get(1).await.unwrap(), Some(stored));
        });
    }

    #[test]
    fn keeps_the_last_thousand() {
        let scratch = Scratch::new("kept");
        run(async {
            let store = Sqlite::open(&scratch.0.join("sluice.db")).await.unwrap();
            // Without a sync for each of them.
            store.call(|c| c.execute_batch("PRAGMA synchronous = OFF")).await.unwrap();
            for n in 1..=1_005 {
                store.append(draft(n)).await.unwrap();
            }
            let ids: Vec<u64> =
                store.list(2_000).await.unwrap().into_iter().map(|line| line.id).collect();
            assert_eq!(ids, (6..=1_005).rev().collect::<Vec<u64>>());
            assert_eq!(store.get(5).await.unwrap(), None);
            let refused = store.call(|c| c.execute("DELETE FROM revisions WHERE id = 6", [])).await;
            assert!(refused.unwrap_err().to_string().contains("immutable"));
        });
    }

    #[test]
    fn takes_over_an_older_layout() {
        let scratch = Scratch::new("older");
        let path = scratch.0.join("sluice.db");
        run(async {
            let store = Sqlite::open(&path).await.unwrap();
            let stored = store.append(draft(1)).await.unwrap();
            let old = "DROP TRIGGER revisions_no_delete;
                CREATE TRIGGER revisions_no_delete BEFORE DELETE ON revisions
                BEGIN SELECT RAISE(ABORT, 'never'); END; PRAGMA user_version = 1;";
            store.call(|c| c.execute_batch(old)).await.unwrap();
            drop(store);
            let store = Sqlite::open(&path).await.unwrap();
            assert_eq!(store.get(1).await.unwrap(), Some(stored));
            let refused = store.call(|c| c.execute("DELETE FROM revisions", [])).await.unwrap_err();
            assert!(refused.to_string().contains("immutable"), "{refused}");
        });
    }

    #[test]
    fn keeps_when_keys_were_used_last() {
        let scratch = Scratch::new("uses");
        let path = scratch.0.join("sluice.db");
        let uses = |list: &[(u8, u64)]| -> HashMap<[u8; 32], u64> {
            list.iter().map(|(n, used_s)| ([*n; 32], *used_s)).collect()
        };
        run(async {
            let store = Sqlite::open(&path).await.unwrap();
            assert_eq!(store.key_uses().await.unwrap(), uses(&[]));
            store.note_key_uses(uses(&[(1, 10), (2, 20)]), 0).await.unwrap();
            store.note_key_uses(uses(&[(1, 30), (2, 5), (3, u64::MAX)]), 0).await.unwrap();
            drop(store);
            let store = Sqlite::open(&path).await.unwrap();
            let last = i64::MAX as u64;
            assert_eq!(store.key_uses().await.unwrap(), uses(&[(1, 30), (2, 20), (3, last)]));
            store.note_key_uses(uses(&[]), 25).await.unwrap();
            assert_eq!(store.key_uses().await.unwrap(), uses(&[(1, 30), (3, last)]));
        });
    }

    #[test]
    fn refuses_a_newer_layout_and_a_file_that_is_no_database() {
        let scratch = Scratch::new("refuse");
        let newer = scratch.0.join("newer.db");
        Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let garbage = scratch.0.join("garbage.db");
        std::fs::write(&garbage, vec![b'x'; 8192]).unwrap();
        run(async {
            assert!(matches!(
                Sqlite::open(&newer).await.err(),
                Some(StoreError::Layout { found: 99, .. })
            ));
            assert!(matches!(Sqlite::open(&garbage).await.err(), Some(StoreError::Open { .. })));
        });
    }
}
