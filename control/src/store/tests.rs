//! What must hold for every store. Each test runs over all of them.

use std::{path::PathBuf, sync::OnceLock};

use serde_json::json;

use super::{postgres::server::PostgresServer, *};

pub(super) fn draft(n: u32) -> Draft {
    Draft {
        author: "ada".into(),
        message: format!("change {n}"),
        spec: format!("{{\"n\":{n}}}").into(),
        source: format!("n: {n} # \u{1F980}\n").into(),
        source_name: "a.yaml".into(),
        diff: json!({"settings": [{"field": "n", "new": n}]}),
        ..Draft::default()
    }
}

pub(super) fn deed(n: u32) -> AuditDraft {
    AuditDraft {
        actor: "ada".into(),
        source: "127.0.0.1:1".into(),
        action: "apply".into(),
        target: format!("route/{n}"),
        revision: None,
        outcome: "done".into(),
    }
}

pub(super) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A directory that is removed at the end of the test.
pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("sluice-store-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The database server of all tests here; it ends with this process.
pub(super) fn server() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(PostgresServer::start)
}

/// A new database: its name and address.
pub(super) fn database(name: &str) -> (String, String) {
    (name.into(), server().database(name))
}

/// A store of one kind, fresh for each test. What is opened twice is the same store, as two nodes
/// have it.
#[derive(Clone)]
enum Place {
    File(PathBuf),
    Database(String),
}

impl Place {
    async fn open(&self) -> Store {
        let store = match self {
            Place::File(path) => Store::file(path),
            Place::Database(url) => Store::database(url).unwrap(),
        };
        store.ready().await.unwrap();
        store
    }
}

/// Runs `test` over each kind of store.
fn each<T: Future<Output = ()>>(name: &str, test: impl Fn(Place) -> T) {
    let scratch = Scratch::new(name);
    run(test(Place::File(scratch.0.join("sluice.db"))));
    run(test(Place::Database(database(&format!("each-{name}")).1)));
}

fn ids(lines: &[RevisionLine]) -> Vec<u64> {
    lines.iter().map(|line| line.id).collect()
}

#[test]
fn revisions_stay_in_order_and_over_a_reopen() {
    each("order", |place| async move {
        let store = place.open().await;
        assert_eq!(store.latest().await.unwrap(), None);
        assert_eq!(store.latest_id().await.unwrap(), 0);
        let first = store.append(draft(1), None).await.unwrap();
        let second = store.append(draft(2), None).await.unwrap();
        assert_eq!((first.id, second.id), (1, 2));
        assert!(first.created_ms <= second.created_ms);
        drop(store);

        let store = place.open().await;
        assert_eq!(store.latest_id().await.unwrap(), 2);
        assert_eq!(store.changes().borrow().latest, 2);
        let same = |one: Option<Revision>, other: &Revision| {
            let mut one = one.unwrap();
            // Its layout is the store's affair.
            let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(parse(&one.spec), parse(&other.spec));
            one.spec.clone_from(&other.spec);
            assert_eq!(one, *other);
        };
        same(store.latest().await.unwrap(), &second);
        same(store.get(1).await.unwrap(), &first);
        assert_eq!(store.get(3).await.unwrap(), None);
        assert_eq!(store.get(u64::MAX).await.unwrap(), None);
        assert_eq!(ids(&store.list(10).await.unwrap()), [2, 1]);
        assert_eq!(ids(&store.list(1).await.unwrap()), [2]);
        assert_eq!(ids(&store.list_before(Some(2), 10).await.unwrap()), [1]);
    });
}

#[test]
fn a_revision_is_only_stored_over_the_one_it_was_made_for() {
    each("over", |place| async move {
        let store = place.open().await;
        store.append(draft(1), Some(0)).await.unwrap();
        let refused = store.append(draft(2), Some(0)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Changed { latest: 1 }), "{refused}");
        let refused = store.append(draft(2), Some(7)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Changed { latest: 1 }), "{refused}");
        assert_eq!(store.append(draft(2), Some(1)).await.unwrap().id, 2);
        assert_eq!(ids(&store.list(10).await.unwrap()), [2, 1]);
    });
}

#[test]
fn of_two_writers_over_the_same_revision_exactly_one_wins() {
    each("race", |place| async move {
        let (one, two) = (place.open().await, place.open().await);
        for turn in 0..25_u64 {
            let (first, second) =
                tokio::join!(one.append(draft(1), Some(turn)), two.append(draft(2), Some(turn)));
            let winners = [&first, &second].iter().filter(|done| done.is_ok()).count();
            assert_eq!(winners, 1, "{first:?} {second:?}");
            let lost = [first, second].into_iter().find_map(Result::err).unwrap();
            assert!(matches!(lost, StoreError::Changed { latest } if latest == turn + 1), "{lost}");
        }
        assert_eq!(one.list(100).await.unwrap().len(), 25);
    });
}

#[test]
fn a_change_is_told_to_who_waits_for_it() {
    each("changes", |place| async move {
        let store = place.open().await;
        let mut changes = store.changes();
        assert_eq!(changes.borrow_and_update().latest, 0);
        store.append(draft(1), None).await.unwrap();
        changes.changed().await.unwrap();
        assert_eq!(changes.borrow_and_update().latest, 1);
        assert!(!changes.has_changed().unwrap());
    });
}

#[test]
fn the_audit_chain_goes_on_over_writers_and_is_whole() {
    each("audit", |place| async move {
        let (one, two) = (place.open().await, place.open().await);
        assert_eq!(one.audit_list(None, 10).await.unwrap(), []);
        assert_eq!(one.audit_verify().await.unwrap(), AuditVerdict::default());
        for turn in 0..10 {
            let (first, second) = tokio::join!(one.audit(deed(turn)), two.audit(deed(turn + 100)));
            let (first, second) = (first.unwrap(), second.unwrap());
            assert_eq!(first.seq.abs_diff(second.seq), 1);
        }
        let entries = one.audit_list(None, 100).await.unwrap();
        let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, (1..=20).rev().collect::<Vec<u64>>());
        assert_eq!(entries[19].prev_hash, "");
        assert!(entries.windows(2).all(|two| two[0].prev_hash == two[1].hash));
        let page = one.audit_list(Some(5), 2).await.unwrap();
        assert_eq!(page.iter().map(|entry| entry.seq).collect::<Vec<u64>>(), [4, 3]);
        let verdict = one.audit_verify().await.unwrap();
        assert_eq!((verdict.entries, verdict.broken), (20, None));
        assert_eq!(verdict.head, entries[0].hash);
    });
}

#[test]
fn a_revision_and_its_audit_entry_come_together_or_not_at_all() {
    each("together", |place| async move {
        let store = place.open().await;
        let with = |n| Draft { audit: Some(deed(n)), ..draft(n) };
        store.append(with(1), None).await.unwrap();
        store.append(with(2), Some(0)).await.unwrap_err();
        store.append(with(3), Some(1)).await.unwrap();
        let entries = store.audit_list(None, 10).await.unwrap();
        let told: Vec<_> = entries.iter().map(|entry| (&*entry.target, entry.revision)).collect();
        assert_eq!(told, [("route/3", Some(2)), ("route/1", Some(1))]);
        assert_eq!(store.audit_verify().await.unwrap().broken, None);
    });
}

#[test]
fn an_answer_is_remembered_for_whom_it_was() {
    each("idempotency", |place| async move {
        let store = place.open().await;
        let answer = |text: &str| Remembered {
            fingerprint: format!("f-{text}"),
            status: 201,
            body: text.as_bytes().to_vec(),
        };
        assert_eq!(store.idempotent("k", "ada").await.unwrap(), None);
        store.remember("k", "ada", answer("first")).await.unwrap();
        store.remember("k", "ada", answer("second")).await.unwrap();
        store.remember("k", "bob", answer("his")).await.unwrap();
        assert_eq!(store.idempotent("k", "ada").await.unwrap(), Some(answer("first")));
        assert_eq!(store.idempotent("k", "bob").await.unwrap(), Some(answer("his")));
        assert_eq!(store.idempotent("other", "ada").await.unwrap(), None);
    });
}

#[test]
fn nodes_tell_how_they_stand() {
    each("nodes", |place| async move {
        let store = place.open().await;
        let node = |name: &str, served| NodeReport {
            name: name.into(),
            served,
            error: Some("a file is missing".into()),
            ..NodeReport::default()
        };
        store.report(node("b", 1)).await.unwrap();
        store.report(node("a", 1)).await.unwrap();
        store.report(node("b", 2)).await.unwrap();
        let nodes = store.nodes().await.unwrap();
        let told: Vec<_> = nodes.iter().map(|node| (&*node.name, node.served)).collect();
        assert_eq!(told, [("a", 1), ("b", 2)]);
        assert!(nodes.iter().all(|node| node.seen_ms > 0 && node.error.is_some()));
        store.forget("a").await.unwrap();
        assert_eq!(store.nodes().await.unwrap().len(), 1);
    });
}

#[test]
fn keeps_when_keys_were_used_last() {
    let uses = |list: &[(u8, u64)]| -> HashMap<[u8; 32], u64> {
        list.iter().map(|(n, used_s)| ([*n; 32], *used_s)).collect()
    };
    each("uses", |place| async move {
        let store = place.open().await;
        assert_eq!(store.key_uses().await.unwrap(), uses(&[]));
        store.note_key_uses(uses(&[(1, 10), (2, 20)]), 0).await.unwrap();
        store.note_key_uses(uses(&[(1, 30), (2, 5), (3, u64::MAX)]), 0).await.unwrap();
        drop(store);
        let store = place.open().await;
        let last = i64::MAX as u64;
        assert_eq!(store.key_uses().await.unwrap(), uses(&[(1, 30), (2, 20), (3, last)]));
        store.note_key_uses(uses(&[]), 25).await.unwrap();
        assert_eq!(store.key_uses().await.unwrap(), uses(&[(1, 30), (3, last)]));
    });
}
