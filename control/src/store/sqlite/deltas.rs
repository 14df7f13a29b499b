//! Revisions of large specs that differ from the one before in one thing are stored as that
//! difference: a change of one of 10,000 routes must not write all of them.

use rusqlite::{Connection, OptionalExtension, Transaction};
use serde_json::Value;

use crate::store::{Delta, Text};
use crate::yaml::Yaml;

/// Most differences between a revision and the whole one that it is read from: that takes time.
const MAX_DELTAS: i64 = 256;

/// What layout 4 adds. The revisions that it has have no texts of their own.
pub const TABLES: &str = "
    CREATE TABLE deltas (
        id INTEGER PRIMARY KEY,
        delta TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER deltas_no_update BEFORE UPDATE ON deltas
        BEGIN SELECT RAISE(ABORT, 'revisions are immutable'); END;
    CREATE TRIGGER deltas_no_delete BEFORE DELETE ON deltas
        WHEN OLD.id > (SELECT MAX(id) FROM revisions) - 1000
        BEGIN SELECT RAISE(ABORT, 'revisions are immutable'); END;
";

/// The newest revision up to `id` that is whole.
const WHOLE: &str = "SELECT id FROM revisions WHERE id <= ?1
    AND NOT EXISTS (SELECT 1 FROM deltas WHERE deltas.id = revisions.id)
    ORDER BY id DESC LIMIT 1";

/// Whether a revision after `latest` may be stored as `delta`.
pub fn fits(change: &Transaction<'_>, latest: i64, delta: &Delta) -> rusqlite::Result<bool> {
    if delta.base != latest as u64 {
        return Ok(false);
    }
    let whole: Option<i64> = change.query_row(WHOLE, [latest], |row| row.get(0)).optional()?;
    Ok(whole.is_some_and(|whole| latest - whole < MAX_DELTAS))
}

/// Notes how revision `id` differs from the one before.
pub fn note(change: &Transaction<'_>, id: i64, delta: &Delta) -> rusqlite::Result<()> {
    let text = serde_json::to_string(delta).unwrap_or_default();
    change.execute("INSERT INTO deltas (id, delta) VALUES (?1, ?2)", (id, text))?;
    Ok(())
}

/// Forgets revisions up to `last`, but for what later ones are read from.
pub fn forget(change: &Transaction<'_>, last: i64) -> rusqlite::Result<()> {
    if last <= 0 {
        return Ok(());
    }
    let whole: Option<i64> = change.query_row(WHOLE, [last + 1], |row| row.get(0)).optional()?;
    if let Some(whole) = whole {
        change.execute("DELETE FROM revisions WHERE id < ?1", [whole])?;
        change.execute("DELETE FROM deltas WHERE id < ?1", [whole])?;
    }
    Ok(())
}

/// Spec and source of revision `id`; `None`: it has its own, as all have in older files.
pub fn texts(connection: &Connection, id: i64) -> rusqlite::Result<Option<(Text, Text)>> {
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'deltas')";
    if !connection.query_row(exists, [], |row| row.get::<_, bool>(0))? {
        return Ok(None);
    }
    let is_delta = "SELECT EXISTS (SELECT 1 FROM deltas WHERE id = ?1)";
    if !connection.query_row(is_delta, [id], |row| row.get::<_, bool>(0))? {
        return Ok(None);
    }
    let whole: i64 = connection.query_row(WHOLE, [id], |row| row.get(0))?;
    let query = "SELECT spec FROM revisions WHERE id = ?1";
    let text: String = connection.query_row(query, [whole], |row| row.get(0))?;
    // What is damaged becomes a text that no spec is read from.
    let mut spec: Value = serde_json::from_str(&text).unwrap_or_default();
    let mut deltas =
        connection.prepare("SELECT delta FROM deltas WHERE id > ?1 AND id <= ?2 ORDER BY id")?;
    for delta in deltas.query_map([whole, id], |row| row.get::<_, String>(0))? {
        let applied = serde_json::from_str::<Delta>(&delta?).is_ok_and(|one| one.apply(&mut spec));
        if !applied {
            spec = Value::Null;
        }
    }
    let text = Text::from(spec.to_string());
    let source = Text::later(move || Yaml::from(&spec).document());
    Ok(Some((text, source)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::tests::{Scratch, draft, run};
    use crate::store::{Draft, Store, offline};

    #[test]
    fn a_revision_is_read_as_it_was_stored_however_it_is_kept() {
        let scratch = Scratch::new("deltas");
        let path = scratch.0.join("sluice.db");
        run(async {
            let store = Store::open(&path).await.unwrap();
            let mut spec = json!({"version": 1, "routes": []});
            let mut wanted = Vec::new();
            for n in 0..1_300_u64 {
                // It grows, changes in the middle, and shrinks.
                let (take, put) = match n {
                    0..10 => (None, Some((n as usize / 2, json!({"name": n})))),
                    _ if n % 7 == 3 => (Some(n as usize % 5), None),
                    _ if n % 7 == 4 => (None, Some((0, json!({"name": n})))),
                    _ => (Some(4), Some((2, json!({"name": n, "x": "y"})))),
                };
                let delta = Delta { base: n, list: "routes".into(), take, put };
                assert!(delta.clone().apply(&mut spec), "{n}");
                let text = spec.to_string();
                let source = Yaml::from(&spec).document();
                let told = Draft {
                    spec: text.clone().into(),
                    source: source.clone().into(),
                    delta: Some(delta),
                    ..draft(n as u32)
                };
                let stored = store.append(told, None).await.unwrap();
                assert_eq!((stored.id, &stored.spec), (n + 1, &Text::from(text.clone())));
                wanted.push((text, source));
            }
            let count: i64 = rusqlite::Connection::open(&path)
                .unwrap()
                .query_row("SELECT count(*) FROM deltas", [], |row| row.get(0))
                .unwrap();
            assert!((990..1_300).contains(&count), "{count}");
            for id in [302, 303, 557, 558, 800, 1_299, 1_300] {
                let found = store.get(id).await.unwrap().unwrap();
                let (spec, source) = &wanted[id as usize - 1];
                assert_eq!(
                    (&*found.spec, &*found.source),
                    (spec.as_str(), source.as_str()),
                    "{id}"
                );
                assert_eq!(offline::read(&path, Some(id)).unwrap().unwrap().spec, found.spec);
            }
            assert_eq!(store.latest().await.unwrap().unwrap().spec, wanted[1_299].0);
            assert_eq!(store.get(1).await.unwrap(), None, "it was forgotten");
            // One that is not told as a difference from the latest is kept whole.
            let delta = Delta { base: 7, list: "routes".into(), take: None, put: None };
            let told = Draft { delta: Some(delta), ..draft(1) };
            let stored = store.append(told, None).await.unwrap();
            assert_eq!(store.get(stored.id).await.unwrap().unwrap().source, stored.source);
        });
    }
}
