//! Reading revisions beside whoever runs them: nothing is created, migrated or locked.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::{Revision, StoreError, sqlite};

/// Revision `id` of the store in `path`, or the latest; `None` when there is no such.
///
/// # Errors
/// There is no store, or none that can be read.
pub fn read(path: &Path, id: Option<u64>) -> Result<Option<Revision>, StoreError> {
    let failed = |error: rusqlite::Error| StoreError::Open {
        path: path.display().to_string(),
        reason: error.to_string(),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
    let Ok(id) = id.map(i64::try_from).transpose() else { return Ok(None) };
    let query = "SELECT id, created_ms, author, message, spec, source, source_name FROM revisions
                 WHERE ?1 IS NULL OR id = ?1 ORDER BY id DESC LIMIT 1";
    let found = connection.query_row(query, [id], |row| {
        Ok(Revision {
            id: row.get::<_, i64>(0)? as u64,
            created_ms: row.get::<_, i64>(1)? as u64,
            author: row.get(2)?,
            message: row.get(3)?,
            spec: row.get::<_, String>(4)?.into(),
            source: row.get::<_, String>(5)?.into(),
            source_name: row.get(6)?,
            // Nobody who reads so asks for it.
            diff: serde_json::Value::Null,
        })
    });
    let Some(found) = found.optional().map_err(failed)? else { return Ok(None) };
    Ok(Some(match sqlite::texts(&connection, found.id as i64).map_err(failed)? {
        Some((spec, source)) => Revision { spec, source, ..found },
        None => found,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Draft, Store};

    #[test]
    fn revisions_are_read_while_their_owner_has_them() {
        let directory = std::env::temp_dir().join(format!("sluice-read-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("sluice.db");
        assert!(read(&path, None).is_err(), "nothing is created");
        assert!(!path.exists());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(&path).await.unwrap();
            assert_eq!(read(&path, None).unwrap(), None);
            let mut kept = Vec::new();
            for text in ["one", "two"] {
                let draft = Draft {
                    author: "a".into(),
                    message: "m".into(),
                    spec: "{}".into(),
                    source: text.into(),
                    source_name: "f".into(),
                    ..Draft::default()
                };
                kept.push(store.append(draft, None).await.unwrap());
            }
            assert_eq!(read(&path, None).unwrap().as_ref(), kept.last());
            assert_eq!(read(&path, Some(1)).unwrap().as_ref(), kept.first());
            assert_eq!(read(&path, Some(3)).unwrap(), None);
            assert_eq!(read(&path, Some(u64::MAX)).unwrap(), None);
        });
        std::fs::remove_dir_all(directory).unwrap();
    }
}
