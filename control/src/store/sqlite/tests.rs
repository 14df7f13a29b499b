//! What only a file can go through.

use std::io::{Seek, SeekFrom, Write};

use super::*;
use crate::store::tests::{Scratch, deed, draft, run};

fn sqlite(scratch: &Scratch) -> Sqlite {
    Sqlite::at(&scratch.0.join("sluice.db"))
}

#[test]
fn what_is_stored_cannot_be_changed_or_removed() {
    let scratch = Scratch::new("immutable");
    run(async {
        let store = sqlite(&scratch);
        let stored = store.append(draft(1), None).await.unwrap();
        store.audit(deed(1)).await.unwrap();
        for (statement, why) in [
            ("UPDATE revisions SET spec = 'x'", "immutable"),
            ("DELETE FROM revisions", "immutable"),
            ("UPDATE audit SET actor = 'x'", "append-only"),
            ("DELETE FROM audit", "append-only"),
        ] {
            let refused = store.call(move |c| c.execute(statement, [])).await.unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}");
        }
        assert_eq!(store.get(1).await.unwrap(), Some(stored));
    });
}

#[test]
fn keeps_the_last_thousand() {
    let scratch = Scratch::new("kept");
    run(async {
        let store = sqlite(&scratch);
        // Without a sync for each of them.
        store.call(|c| c.execute_batch("PRAGMA synchronous = OFF")).await.unwrap();
        for n in 1..=1_005 {
            store.append(draft(n), None).await.unwrap();
        }
        let lines = store.list(None, 2_000).await.unwrap();
        let ids: Vec<u64> = lines.into_iter().map(|line| line.id).collect();
        assert_eq!(ids, (6..=1_005).rev().collect::<Vec<u64>>());
        assert_eq!(store.get(5).await.unwrap(), None);
        let refused = store.call(|c| c.execute("DELETE FROM revisions WHERE id = 6", [])).await;
        assert!(refused.unwrap_err().to_string().contains("immutable"));
    });
}

/// Files as earlier versions wrote them.
fn old(layout: i64, path: &Path) {
    let connection = Connection::open(path).unwrap();
    let columns = "created_ms INTEGER NOT NULL, author TEXT NOT NULL, message TEXT NOT NULL,
        spec TEXT NOT NULL, source TEXT NOT NULL, source_name TEXT NOT NULL";
    let tables = format!(
        "CREATE TABLE revisions (id INTEGER PRIMARY KEY AUTOINCREMENT, {columns}) STRICT;
        CREATE TRIGGER revisions_no_update BEFORE UPDATE ON revisions
            BEGIN SELECT RAISE(ABORT, 'revisions are immutable'); END;
        CREATE TRIGGER revisions_no_delete BEFORE DELETE ON revisions
            BEGIN SELECT RAISE(ABORT, 'never'); END;"
    );
    connection.execute_batch(&tables).unwrap();
    if layout == 2 {
        let uses = "CREATE TABLE key_uses (digest BLOB PRIMARY KEY, used_s INTEGER NOT NULL)
            STRICT, WITHOUT ROWID; INSERT INTO key_uses VALUES (zeroblob(32), 7);";
        connection.execute_batch(uses).unwrap();
    }
    let insert = "INSERT INTO revisions (created_ms, author, message, spec, source, source_name)
        VALUES (5, 'ada', 'first', '{}', 'a: b', 'a.yaml'), (6, 'bob', '', '{}', '', '')";
    connection.execute_batch(insert).unwrap();
    connection.pragma_update(None, "user_version", layout).unwrap();
}

#[test]
fn takes_over_older_layouts_with_all_that_is_in_them() {
    for layout in [1, 2] {
        let scratch = Scratch::new(&format!("older-{layout}"));
        old(layout, &scratch.0.join("sluice.db"));
        run(async {
            let store = sqlite(&scratch);
            assert_eq!(store.latest_id().await.unwrap(), 2);
            let first = store.get(1).await.unwrap().unwrap();
            assert_eq!((first.created_ms, &*first.source), (5, "a: b"));
            assert!(first.diff.is_null());
            assert_eq!(store.key_uses().await.unwrap().len(), usize::from(layout == 2));
            assert_eq!(store.append(draft(1), Some(2)).await.unwrap().id, 3);
            store.audit(deed(1)).await.unwrap();
            let refused = store.call(|c| c.execute("DELETE FROM revisions", [])).await.unwrap_err();
            assert!(refused.to_string().contains("immutable"), "{refused}");
            // Once is enough.
            drop(store);
            assert_eq!(sqlite(&scratch).latest_id().await.unwrap(), 3);
        });
    }
}

#[test]
fn refuses_a_newer_layout_and_a_file_that_is_no_database() {
    let scratch = Scratch::new("refuse");
    let newer = scratch.0.join("newer.db");
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let garbage = scratch.0.join("garbage.db");
    std::fs::write(&garbage, vec![b'x'; 8192]).unwrap();
    run(async {
        let refused = Sqlite::at(&newer).ready().await.unwrap_err();
        assert!(matches!(refused, StoreError::Layout { found: 99, .. }), "{refused}");
        let store = Sqlite::at(&garbage);
        let refused = store.ready().await.unwrap_err();
        assert!(matches!(refused, StoreError::Open { .. }), "{refused}");
        assert!(refused.to_string().contains("damaged"), "{refused}");
        // Without a restart it is used once it is good.
        std::fs::remove_file(&garbage).unwrap();
        assert_eq!(store.append(draft(1), None).await.unwrap().id, 1);
    });
}

#[test]
fn tampering_with_the_audit_log_is_found() {
    let changes = [
        ("UPDATE audit SET actor = 'eve' WHERE seq = 2", "entry 2 was changed"),
        ("UPDATE audit SET revision = 4 WHERE seq = 1", "entry 1 was changed"),
        ("UPDATE audit SET hash = prev_hash WHERE seq = 3", "entry 3 was changed"),
        ("DELETE FROM audit WHERE seq = 1", "entry 1 is missing"),
        ("DELETE FROM audit WHERE seq = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE seq >= 3", "entries 3 to 4 are missing"),
        ("DELETE FROM audit", "entries 1 to 4 are missing"),
        (
            "DELETE FROM audit WHERE seq = 2; UPDATE audit SET seq = seq - 1 WHERE seq > 2",
            "entry 2 does not follow the one before",
        ),
    ];
    for (at, (change, found)) in changes.into_iter().enumerate() {
        let scratch = Scratch::new(&format!("tamper-{at}"));
        run(async {
            let store = sqlite(&scratch);
            for n in 1..=4 {
                store.audit(deed(n)).await.unwrap();
            }
            assert_eq!(store.audit_verify().await.unwrap().broken, None);
            // Whoever owns the file can do away with its triggers.
            let change =
                format!("DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete; {change}");
            store.call(move |c| c.execute_batch(&change)).await.unwrap();
            assert_eq!(store.audit_verify().await.unwrap().broken.as_deref(), Some(found));
        });
    }
}

#[test]
fn answers_are_forgotten_with_time_and_number() {
    let scratch = Scratch::new("forget");
    run(async {
        let store = sqlite(&scratch);
        let answer = || super::super::Remembered {
            fingerprint: "f".into(),
            status: 200,
            body: b"{}".to_vec(),
        };
        store.remember("old", "ada", answer()).await.unwrap();
        let age = "UPDATE idempotency SET created_ms = created_ms - 24 * 3600 * 1000 - 1";
        store.call(move |c| c.execute(age, [])).await.unwrap();
        assert_eq!(store.idempotent("old", "ada").await.unwrap(), None);
        let many = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 10000)
            INSERT INTO idempotency SELECT 'k' || n, 'ada', 9e15, 'f', 200, x'' FROM n";
        store.call(move |c| c.execute_batch(many)).await.unwrap();
        store.remember("new", "ada", answer()).await.unwrap();
        let left: i64 = store
            .call(|c| c.query_row("SELECT COUNT(*) FROM idempotency", [], |row| row.get(0)))
            .await
            .unwrap();
        assert_eq!(left, 10_000);
    });
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_half_written() {
    let scratch = Scratch::new("full");
    run(async {
        let store = sqlite(&scratch);
        let whole = store.append(draft(1), None).await.unwrap();
        // SQLite's own bound fails as a full disk does.
        let bound = |pages: i64| {
            store.call(move |c| {
                c.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            })
        };
        bound(1).await.unwrap();
        let mut large = draft(2);
        large.source = "x".repeat(1 << 20).into();
        large.audit = Some(deed(2));
        let refused = store.append(large, None).await.unwrap_err();
        assert!(refused.to_string().contains("full"), "{refused}");
        assert_eq!(store.latest().await.unwrap(), Some(whole));
        assert_eq!(store.audit_list(None, 9).await.unwrap(), []);
        bound(1 << 30).await.unwrap();
        assert_eq!(store.append(draft(3), Some(1)).await.unwrap().id, 2);
    });
}

#[test]
fn a_file_that_another_process_holds_is_told_and_used_when_it_is_free() {
    let scratch = Scratch::new("locked");
    run(async {
        let store = sqlite(&scratch);
        store.append(draft(1), None).await.unwrap();
        let other = Connection::open(store.path()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let refused = store.append(draft(2), None).await.unwrap_err();
        assert!(refused.to_string().contains("another process holds"), "{refused}");
        assert_eq!(store.latest_id().await.unwrap(), 1, "it can be read");
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(store.append(draft(2), Some(1)).await.unwrap().id, 2);
    });
}

#[test]
fn a_read_only_file_is_told_and_used_when_it_is_not() {
    let scratch = Scratch::new("read-only");
    run(async {
        let store = sqlite(&scratch);
        store.append(draft(1), None).await.unwrap();
        // For root no mode of a file is in the way, so the connection is made to be.
        store.call(|c| c.pragma_update(None, "query_only", true)).await.unwrap();
        let refused = store.append(draft(2), None).await.unwrap_err();
        assert!(refused.to_string().contains("read-only"), "{refused}");
        assert_eq!(store.append(draft(2), Some(1)).await.unwrap().id, 2, "opened anew");
    });
}

#[test]
fn a_damaged_page_is_told_and_a_good_file_is_used_when_it_is_back() {
    let scratch = Scratch::new("damaged");
    run(async {
        let store = sqlite(&scratch);
        let mut large = draft(1);
        large.source = "x".repeat(1 << 18).into();
        store.append(large, None).await.unwrap();
        store.append(draft(2), None).await.unwrap();
        // All of it into the file itself.
        drop(store);
        let path = scratch.0.join("sluice.db");
        let good = std::fs::read(&path).unwrap();
        let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for page in 1..good.len() / 4096 {
            file.seek(SeekFrom::Start(page as u64 * 4096)).unwrap();
            file.write_all(&[0x5a; 64]).unwrap();
        }
        let store = Sqlite::at(&path);
        let refused = store.latest().await.unwrap_err();
        assert!(refused.to_string().contains("damaged"), "{refused}");
        let refused = store.append(draft(3), None).await.unwrap_err();
        assert!(refused.to_string().contains("damaged"), "{refused}");
        std::fs::write(&path, &good).unwrap();
        assert_eq!(store.latest().await.unwrap().unwrap().id, 2);
        assert_eq!(store.append(draft(3), Some(2)).await.unwrap().id, 3);
    });
}
