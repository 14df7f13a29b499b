//! What only a database can go through.

use std::time::{Duration, Instant};

use super::server::PostgresServer;
use crate::{
    rollout::{Rollout, Rules, State},
    store::{
        Draft, Standing, Store, StoreError, Trial,
        tests::{database, deed, draft, run, server},
    },
};

/// Waits until `holds`.
async fn until<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(held) = holds().await {
            return held;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it never came that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn what_is_stored_cannot_be_changed_or_removed() {
    let (name, url) = database("immutable");
    run(async {
        let store = Store::database(&url).unwrap();
        store.append(draft(1), None).await.unwrap();
        store.audit(deed(1)).await.unwrap();
        for (statement, why) in [
            ("UPDATE revisions SET author = 'x'", "immutable"),
            ("DELETE FROM revisions", "immutable"),
            ("TRUNCATE revisions", "immutable"),
            ("UPDATE audit SET actor = 'x'", "append-only"),
            ("DELETE FROM audit", "append-only"),
            ("TRUNCATE audit", "append-only"),
        ] {
            let refused = server().try_sql(&name, statement).unwrap_err();
            assert!(refused.contains(why), "{statement}: {refused}");
        }
        assert_eq!(store.latest_id().await.unwrap(), 1);
    });
}

#[test]
fn entities_of_the_latest_revision_can_be_queried() {
    let (name, url) = database("entities");
    let sql = |statement: &str| server().sql(&name, statement);
    run(async {
        let store = Store::database(&url).unwrap();
        let spec = |text: &str| crate::store::Draft { spec: text.into(), ..draft(1) };
        let first = r#"{"routes": [{"name": "a", "path": "/a"}, {"name": "b"}],
            "upstreams": [{"name": "u"}], "limits": [{"name": "l"}], "groups": [{"name": "l"}],
            "consumers": [{"name": "c", "workspace": "w", "key": {"inline": "s3cret"}}]}"#;
        store.append(spec(first), None).await.unwrap();
        assert_eq!(sql("SELECT name, position FROM routes ORDER BY position"), "a|1\nb|2");
        assert_eq!(sql("SELECT spec->>'path' FROM routes WHERE name = 'a'"), "/a");
        assert_eq!(sql("SELECT kind, name FROM policies ORDER BY kind"), "group|l\nlimit|l");
        assert_eq!(sql("SELECT workspace FROM consumers"), "w");
        assert!(!sql("SELECT spec FROM consumers").contains("s3cret"));
        let second = r#"{"routes": [{"name": "b"}, {"name": "n"}], "upstreams": [{"name": "v"}]}"#;
        // A diff that was made against the latest revision says what may stay as it is.
        let mut touched = spec(second);
        touched.base = Some(1);
        let named = serde_json::json!([{"name": "n"}]);
        touched.diff = serde_json::json!({
            "routes": {"added": named, "removed": [], "changed": []},
            "upstreams": {"added": [], "removed": [], "changed": []},
            "limits": {"added": [], "removed": named, "changed": []},
        });
        store.append(touched, None).await.unwrap();
        assert_eq!(
            sql("SELECT name, position, revision FROM routes ORDER BY position"),
            "b|1|2\nn|2|2"
        );
        assert_eq!(sql("SELECT name FROM upstreams"), "u", "not touched, as it was told");
        // Another base: nothing is believed.
        let mut other = spec(second);
        other.base = Some(1);
        other.diff = serde_json::json!({});
        store.append(other, None).await.unwrap();
        assert_eq!(sql("SELECT name FROM upstreams"), "v");
        assert_eq!(sql("SELECT count(*) FROM policies"), "0");
        assert_eq!(sql("SELECT name, revision FROM routes ORDER BY 1"), "b|2\nn|2", "unchanged");
    });
}

#[test]
fn nodes_that_come_at_once_make_the_tables_once_and_newer_ones_are_refused() {
    let (name, url) = database("migrate");
    run(async {
        let stores: Vec<Store> = (0..5).map(|_| Store::database(&url).unwrap()).collect();
        let (a, b, c, d, e) = tokio::join!(
            stores[0].ready(),
            stores[1].ready(),
            stores[2].ready(),
            stores[3].ready(),
            stores[4].ready(),
        );
        for done in [a, b, c, d, e] {
            done.unwrap();
        }
        assert_eq!(server().sql(&name, "SELECT layout FROM schema_migrations"), "1");
        server().sql(&name, "INSERT INTO schema_migrations (layout) VALUES (99)");
        let refused = Store::database(&url).unwrap().ready().await.unwrap_err();
        assert!(matches!(refused, StoreError::Layout { found: 99, .. }), "{refused}");
    });
}

#[test]
fn tampering_with_the_audit_log_is_found() {
    let (name, url) = database("tamper");
    run(async {
        let store = Store::database(&url).unwrap();
        for n in 1..=4 {
            store.audit(deed(n)).await.unwrap();
        }
        assert_eq!(store.audit_verify().await.unwrap().broken, None);
        server().sql(&name, "ALTER TABLE audit DISABLE TRIGGER USER");
        server().sql(&name, "DELETE FROM audit WHERE seq = 4");
        let verdict = store.audit_verify().await.unwrap();
        assert_eq!(verdict.broken.as_deref(), Some("entries 4 to 4 are missing"));
        server().sql(&name, "UPDATE audit SET outcome = 'x' WHERE seq = 2");
        let verdict = store.audit_verify().await.unwrap();
        assert_eq!(verdict.broken.as_deref(), Some("entry 2 was changed"));
    });
}

#[test]
fn a_notice_comes_from_another_node_and_again_after_its_connection_was_cut() {
    let (name, url) = database("notice");
    run(async {
        let (one, two) = (Store::database(&url).unwrap(), Store::database(&url).unwrap());
        one.ready().await.unwrap();
        let mut changes = two.changes();
        for id in 1..=3_u64 {
            assert_eq!(one.append(draft(1), Some(id - 1)).await.unwrap().id, id);
            changes.wait_for(|known| known.latest == id).await.unwrap();
            let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
            server().sql(&name, cut);
            tokio::time::sleep(Duration::from_millis(200)).await;
            // The call that finds out is told so; the next one has a new connection.
            until("a cut connection is replaced", async || one.latest_id().await.ok()).await;
        }
    });
}

#[test]
fn a_database_that_is_killed_says_so_and_is_used_when_it_is_back() {
    let mut server = PostgresServer::start();
    let url = server.database("killed");
    run(async {
        let store = Store::database(&url).unwrap();
        let first = store.append(draft(1), None).await.unwrap();
        server.kill();
        for _ in 0..3 {
            let refused = store.append(draft(2), None).await.unwrap_err();
            assert!(matches!(refused, StoreError::Failed(_)), "{refused}");
            assert!(refused.to_string().contains("PostgreSQL"), "{refused}");
            assert!(!refused.to_string().contains("secret"), "{refused}");
        }
        server.restart();
        let latest = until("it is back", async || store.latest().await.ok()).await.unwrap();
        assert_eq!((latest.id, latest.created_ms), (1, first.created_ms));
        assert_eq!(store.append(draft(2), Some(1)).await.unwrap().id, 2);
        // Killed while it is written to: what was answered is there, and nothing by half.
        let writing = store.clone();
        let writer = tokio::spawn(async move {
            let mut done = 2;
            while let Ok(revision) =
                writing.append(crate::store::Draft { audit: Some(deed(1)), ..draft(3) }, None).await
            {
                done = revision.id;
            }
            done
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut server = tokio::task::spawn_blocking(move || {
            server.kill();
            server
        })
        .await
        .unwrap();
        let done = writer.await.unwrap();
        server.restart();
        let latest = until("it is back", async || store.latest_id().await.ok()).await;
        // fsync is off here, but the kernel lives on: nothing that was answered may be lost.
        assert!(latest == done || latest == done + 1, "{latest} after {done}");
        let verdict = store.audit_verify().await.unwrap();
        assert_eq!((verdict.entries, verdict.broken), (latest - 2, None));
    });
}

#[test]
fn a_database_that_stands_still_holds_up_nobody_for_long() {
    let server = PostgresServer::start();
    let url = server.database("still");
    run(async {
        let store = Store::database(&url).unwrap();
        store.append(draft(1), None).await.unwrap();
        server.freeze(true);
        let refused = store.append(draft(2), None).await.unwrap_err();
        assert!(refused.to_string().contains("does not answer"), "{refused}");
        assert!(refused.to_string().contains("not known"), "{refused}");
        store.latest().await.unwrap_err();
        server.freeze(false);
        until("it goes on", async || store.latest_id().await.ok()).await;
        let again = async || store.append(draft(2), None).await.ok();
        until("it takes changes", again).await;
    });
}

#[test]
fn a_replica_a_wrong_password_and_a_missing_database_are_told() {
    let server = PostgresServer::start_with(&[], &[], Some("host all all all scram-sha-256\n"));
    let url = server.database("told");
    run(async {
        let store = Store::database(&url).unwrap();
        store.append(draft(1), None).await.unwrap();
        let wrong = url.replace("secret", "wrong");
        let refused = Store::database(&wrong).unwrap().ready().await.unwrap_err();
        assert!(refused.to_string().contains("password authentication failed"), "{refused}");
        assert!(refused.to_string().contains("PGPASSFILE"), "{refused}");
        let none = server.url("nowhere");
        let refused = Store::database(&none).unwrap().ready().await.unwrap_err();
        assert!(refused.to_string().contains("does not exist"), "{refused}");
        server.sql("postgres", "ALTER DATABASE told SET default_transaction_read_only = on");
        let store = Store::database(&url).unwrap();
        let refused = store.append(draft(2), None).await.unwrap_err();
        assert!(refused.to_string().contains("replica"), "{refused}");
        assert_eq!(store.latest_id().await.unwrap(), 1, "it can be read");
    });
}

#[test]
fn over_tls_it_must_be_whom_the_address_trusts() {
    let made = rcgen::generate_simple_self_signed(vec!["db.example".into()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server = PostgresServer::start_with(
        &["-c", "ssl=on"],
        &[("server.crt", &certificate), ("server.key", &key)],
        Some("hostssl all all all trust\nhostnossl template1 all all trust\n"),
    );
    let url = server.database("secured");
    let scratch = crate::store::tests::Scratch::new("roots");
    let roots = scratch.0.join("roots.pem");
    std::fs::write(&roots, &certificate).unwrap();
    let other = scratch.0.join("other.pem");
    let stranger = rcgen::generate_simple_self_signed(vec!["x".into()]).unwrap().cert.pem();
    std::fs::write(&other, stranger).unwrap();
    let try_with = |mode: &str, file: Option<&std::path::Path>| {
        let file = file.map(|file| format!("&sslrootcert={}", file.display())).unwrap_or_default();
        let url = format!("{url}?sslmode={mode}{file}");
        run(async { Store::database(&url).unwrap().ready().await })
    };
    try_with("prefer", None).unwrap();
    try_with("require", None).unwrap();
    try_with("verify-ca", Some(&roots)).unwrap();
    let refused = try_with("disable", None).unwrap_err().to_string();
    assert!(refused.contains("no encryption"), "{refused}");
    for (mode, file) in [("require", &other), ("verify-ca", &other), ("verify-full", &other)] {
        try_with(mode, Some(file)).unwrap_err();
    }
    // It is not the name that it was asked for.
    let refused = try_with("verify-full", Some(&roots)).unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
}

#[test]
fn one_trial_lasts_at_a_time_and_ends_once() {
    let (_, url) = database("trials");
    run(async {
        let store = Store::database(&url).unwrap();
        assert_eq!(store.standing().await.unwrap(), Standing::default());
        store.append(draft(1), None).await.unwrap();
        let rollout = Rollout {
            revision: 0,
            base: 1,
            canaries: vec!["a".into()],
            rules: Rules::default(),
            author: "ada".into(),
            started_ms: 0,
            state: State::Watching,
            reason: String::new(),
            ended_ms: None,
        };
        let begin = || Draft { trial: Trial::Begin(Box::new(rollout.clone())), ..draft(2) };
        let revision = store.append(begin(), Some(1)).await.unwrap();
        let standing = store.standing().await.unwrap();
        let trial = standing.trial.clone().unwrap();
        assert_eq!((trial.revision, trial.started_ms), (2, revision.created_ms));
        assert_eq!((standing.wanted("a"), standing.wanted("b")), (2, 1));
        // Neither a change nor another trial may come between.
        for next in [draft(3), begin()] {
            let refused = store.append(next, Some(2)).await.unwrap_err();
            assert!(matches!(refused, StoreError::OnTrial { revision: 2 }), "{refused}");
        }
        // What ends it brings the next revision, or none; the second of two that would is late.
        let mut changes = store.changes();
        changes.mark_unchanged();
        let promoted = trial.ended(State::Promoted, "good", 5);
        assert!(store.end_rollout(promoted.clone(), deed(2)).await.unwrap());
        assert!(!store.end_rollout(promoted, deed(2)).await.unwrap());
        changes.changed().await.unwrap();
        let back = trial.ended(State::RolledBack, "bad", 6);
        let end = |ended: Rollout| Draft { trial: Trial::End(Box::new(ended)), ..draft(3) };
        let late = store.append(end(back), Some(2)).await.unwrap_err();
        assert!(matches!(late, StoreError::Changed { latest: 2 }), "{late}");
        assert_eq!(store.standing().await.unwrap().wanted("b"), 2);
        assert_eq!(store.rollout().await.unwrap().unwrap().reason, "good");

        store.append(begin(), Some(2)).await.unwrap();
        let trial = store.standing().await.unwrap().trial.unwrap();
        let back = trial.ended(State::RolledBack, "bad", 6);
        assert_eq!(store.append(end(back), Some(3)).await.unwrap().id, 4);
        let standing = store.standing().await.unwrap();
        assert_eq!(standing, Standing { latest: 4, trial: None });
        assert_eq!(store.rollout().await.unwrap().unwrap().state, State::RolledBack);
        assert!(store.audit_verify().await.unwrap().broken.is_none());
    });
}
