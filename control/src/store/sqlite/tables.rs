//! The layout of the file, and how older files come to it.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, TransactionBehavior};

use super::{StoreError, deltas, reason};

/// Version of the layout below, in `PRAGMA user_version`.
pub const LAYOUT: i64 = 4;

/// How long a call waits for another process that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(3);

/// The triggers make immutability a fact of the file, not a habit of this program: what is among
/// the last 1,000 cannot be changed or removed.
const REVISIONS: &str = "
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

/// What layout 3 adds. `audit_head` keeps the last entry's number, so that a chain without its end
/// is found to be one.
const CONTROL_PLANE: &str = "
    ALTER TABLE revisions ADD COLUMN diff TEXT;
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        time_ms INTEGER NOT NULL,
        actor TEXT NOT NULL,
        source TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        revision INTEGER,
        outcome TEXT NOT NULL,
        prev_hash TEXT NOT NULL,
        hash TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
    CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
    CREATE TABLE audit_head (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        seq INTEGER NOT NULL
    ) STRICT;
    INSERT INTO audit_head VALUES (1, 0);
    CREATE TABLE idempotency (
        key TEXT NOT NULL,
        actor TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        fingerprint TEXT NOT NULL,
        status INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (key, actor)
    ) STRICT;
    CREATE INDEX idempotency_by_age ON idempotency (created_ms);
    CREATE TABLE nodes (
        name TEXT PRIMARY KEY,
        seen_ms INTEGER NOT NULL,
        report TEXT NOT NULL
    ) STRICT;
";

/// Opens the file, creating it when absent, and brings it to [`LAYOUT`]: whole, or not at all.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    let refused = |error: rusqlite::Error| StoreError::Open {
        path: path.display().to_string(),
        reason: reason(&error),
    };
    let mut connection = Connection::open(path).map_err(refused)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(refused)?;
    let known = |found: i64| match found {
        0..=LAYOUT => Ok(()),
        _ => Err(StoreError::Layout { path: path.display().to_string(), found, known: LAYOUT }),
    };
    known(layout(&connection).map_err(refused)?)?;
    // FULL: an apply that was answered survives a power cut.
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        .map_err(refused)?;
    let change =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(refused)?;
    // Another process may have been quicker.
    let found = layout(&change).map_err(refused)?;
    known(found)?;
    if found < LAYOUT {
        let older = if found < 3 { [REVISIONS, CONTROL_PLANE] } else { ["", ""] };
        change
            .execute_batch(&older.concat())
            .and_then(|()| change.execute_batch(deltas::TABLES))
            .and_then(|()| change.pragma_update(None, "user_version", LAYOUT))
            .map_err(refused)?;
    }
    change.commit().map_err(refused)?;
    Ok(connection)
}

fn layout(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}
