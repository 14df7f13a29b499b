use std::sync::Arc;

use bytes::Bytes;
use contract::Purge;
use proptest::prelude::*;

use super::*;
use crate::cache::freshness::Freshness;
use crate::cache::object::Draft;

fn key(uri: &str) -> Key {
    let uri = format!("a.test\0{uri}\0\0");
    Key { uri: uri.as_bytes().into(), way: b"r\0p\0"[..].into() }
}

fn draft(uri: &str, by: &[(&str, &str)], tags: &[&str]) -> Draft {
    let selecting =
        by.iter().map(|(name, value)| (name.as_bytes().into(), Some(value.as_bytes().into())));
    Draft {
        key: key(uri),
        selecting: selecting.collect(),
        route: "r".into(),
        status: 200,
        fields: b"Date: x\r\n"[..].into(),
        freshness: Freshness::default(),
        for_all: false,
        tags: tags.iter().map(|tag| tag.as_bytes().into()).collect(),
    }
}

fn put(store: &Store, uri: &str, bytes: usize) -> bool {
    put_as(store, draft(uri, &[], &[]), bytes)
}

fn put_as(store: &Store, draft: Draft, bytes: usize) -> bool {
    let since = store.since(&draft.key);
    store.insert(Object::new(draft, Bytes::from(vec![7; bytes])), since, None)
}

fn find(store: &Store, uri: &str) -> Option<Arc<Object>> {
    match store.find(&key(uri), |_| true) {
        Found::One(object) => Some(object),
        Found::Others | Found::Nothing => None,
    }
}

#[test]
fn what_is_stored_is_found_and_replaced() {
    let store = Store::new(1 << 20, None);
    assert!(find(&store, "/a").is_none());
    assert!(put(&store, "/a", 10) && put(&store, "/a", 20) && put(&store, "/b", 5));
    assert_eq!(find(&store, "/a").unwrap().body.len(), 20);
    let report = store.report();
    assert_eq!((report.objects, report.routes[0].objects), (2, 2));
    assert_eq!(report.bytes, report.routes[0].bytes);
    store.remove(&find(&store, "/a").unwrap());
    assert!(find(&store, "/a").is_none() && find(&store, "/b").is_some());
}

#[test]
fn variants_stand_side_by_side_up_to_their_bound() {
    let store = Store::new(1 << 24, None);
    for n in 0..limits::CACHE_VARIANTS + 5 {
        assert!(put_as(&store, draft("/a", &[("x", &n.to_string())], &[]), n));
    }
    let of = |value: &str| {
        let selects =
            |object: &Object| object.draft.selecting[0].1.as_deref() == Some(value.as_bytes());
        matches!(store.find(&key("/a"), selects), Found::One(_))
    };
    assert!(!of("4") && of("5") && of("36"));
    assert!(matches!(store.find(&key("/a"), |_| false), Found::Others));
    assert_eq!(store.report().objects, limits::CACHE_VARIANTS as u64);
}

#[test]
fn what_was_asked_for_before_it_became_invalid_is_not_stored() {
    let store = Store::new(1 << 20, None);
    let object = || Object::new(draft("/a", &[], &[]), Bytes::from_static(b"old"));
    let since = store.since(&key("/a"));
    store.invalidate(&key("/a").uri);
    assert!(!store.insert(object(), since, None));
    let since = store.since(&key("/a"));
    assert!(store.insert(object(), since, None));
    store.invalidate(&key("/a").uri);
    assert!(find(&store, "/a").is_none());
    let since = store.since(&key("/a"));
    assert_eq!(store.purge(&Purge { tag: "other".into(), ..Purge::default() }), 0);
    assert!(!store.insert(object(), since, None));
    assert_eq!(store.report().bytes, 0);
}

#[test]
fn purges_take_what_is_meant() {
    let purged = |purge: Purge| {
        let store = Store::new(1 << 20, None);
        for (uri, tags) in [("/a", &["x"][..]), ("/a/b", &["x", "y"]), ("/ab", &[]), ("/c", &["y"])]
        {
            assert!(put_as(&store, draft(uri, &[], tags), 9));
        }
        let count = store.purge(&purge);
        let left =
            ["/a", "/a/b", "/ab", "/c"].into_iter().filter(|uri| find(&store, uri).is_some());
        let left: Vec<&str> = left.collect();
        assert_eq!(left.len() as u64 + count, 4);
        left.join(" ")
    };
    let none = Purge::default;
    assert_eq!(purged(none()), "");
    assert_eq!(purged(Purge { tag: "y".into(), ..none() }), "/a /ab");
    assert_eq!(purged(Purge { path: "/a".into(), ..none() }), "/a/b /ab /c");
    assert_eq!(purged(Purge { path: "/a".into(), below: true, ..none() }), "/c");
    assert_eq!(purged(Purge { route: "other".into(), ..none() }), "/a /a/b /ab /c");
    assert_eq!(purged(Purge { host: "a.test".into(), tag: "x".into(), ..none() }), "/ab /c");
}

#[test]
fn what_is_used_outlives_what_passes_through() {
    let store = Store::new(64 * 2_048, None);
    for n in 0..8 {
        assert!(put(&store, &format!("/kept/{n}"), 500));
        assert!(find(&store, &format!("/kept/{n}")).is_some());
    }
    for n in 0..1_000 {
        assert!(put(&store, &format!("/once/{n}"), 500));
        if n % 10 == 0 {
            for n in 0..8 {
                assert!(find(&store, &format!("/kept/{n}")).is_some(), "after {n}");
            }
        }
    }
}

#[test]
fn what_never_fits_evicts_nothing() {
    let store = Store::new(64 * 1_024, None);
    assert!(put(&store, "/a", 100));
    assert!(!put(&store, "/b", 64 * 1_024));
    assert!(find(&store, "/a").is_some());
    // Bodies on their way in have a share, whoever asks for them.
    let mut room = Room::none(&store);
    assert!(!room.grow(32 * 1_024) && room.grow(16 * 1_024) && !room.grow(1));
    drop(room);
    assert!(find(&store, "/a").is_some());
    store.configure(0);
    assert!(find(&store, "/a").is_none() && !put(&store, "/a", 0));
}

#[test]
fn one_goes_and_the_others_wait_for_it() {
    let store = Store::new(1 << 20, None);
    let Joined::Leads(leader) = store.join(&key("/a"), 5) else { panic!("nobody else is there") };
    let Joined::Follows(5, others) = store.join(&key("/a"), 7) else { panic!("one is under way") };
    assert!(matches!(store.join(&key("/b"), 7), Joined::Leads(_)));
    assert!(others.has_changed().is_ok());
    drop(leader);
    assert!(others.has_changed().is_err(), "it is over");
    store.leave_alone(&key("/a"), 10_000);
    assert!(matches!(store.join(&key("/a"), 11_000), Joined::Alone));
    let later = 11_000 + limits::CACHE_ALONE_MS;
    assert!(matches!(store.join(&key("/a"), later), Joined::Leads(_)));
}

#[derive(Clone, Debug)]
enum Deed {
    Put { uri: u8, variant: u8, bytes: usize },
    Find { uri: u8 },
    Invalidate { uri: u8 },
    Remove { uri: u8 },
    Purge { uri: u8 },
    Grow { bytes: usize },
    Release,
    Bound { bytes: usize },
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => (0..40u8, 0..4u8, 0..6_000usize)
            .prop_map(|(uri, variant, bytes)| Deed::Put { uri, variant, bytes }),
        6 => (0..40u8).prop_map(|uri| Deed::Find { uri }),
        1 => (0..40u8).prop_map(|uri| Deed::Invalidate { uri }),
        1 => (0..40u8).prop_map(|uri| Deed::Remove { uri }),
        1 => (0..40u8).prop_map(|uri| Deed::Purge { uri }),
        2 => (0..9_000usize).prop_map(|bytes| Deed::Grow { bytes }),
        1 => Just(Deed::Release),
        1 => (0..60_000usize).prop_map(|bytes| Deed::Bound { bytes }),
    ]
}

proptest! {
    /// Whatever happens, what counts is what there is, and never past the bound.
    #[test]
    fn the_bound_holds(deeds in prop::collection::vec(deed(), 1..300)) {
        let mut bound = 40_000;
        let store = Store::new(bound, None);
        let mut rooms: Vec<Room> = Vec::new();
        for deed in deeds {
            match deed {
                Deed::Put { uri, variant, bytes } => {
                    let by = [("x", &*variant.to_string())];
                    put_as(&store, draft(&format!("/{uri}"), &by, &["t"]), bytes);
                }
                Deed::Find { uri } => drop(find(&store, &format!("/{uri}"))),
                Deed::Invalidate { uri } => store.invalidate(&key(&format!("/{uri}")).uri),
                Deed::Remove { uri } => {
                    if let Some(object) = find(&store, &format!("/{uri}")) {
                        store.remove(&object);
                        store.remove(&object);
                    }
                }
                Deed::Purge { uri } => {
                    let path = format!("/{uri}");
                    store.purge(&Purge { path, below: true, ..Purge::default() });
                }
                Deed::Grow { bytes } => {
                    let mut room = Room::none(&store);
                    if room.grow(bytes) {
                        rooms.push(room);
                    }
                }
                Deed::Release => rooms.clear(),
                Deed::Bound { bytes } => {
                    rooms.clear();
                    bound = bytes;
                    store.configure(bytes);
                }
            }
            let report = store.report();
            let coming: usize = rooms.iter().map(Room::bytes).sum();
            let stored: u64 = report.routes.iter().map(|line| line.bytes).sum();
            let objects: u64 = report.routes.iter().map(|line| line.objects).sum();
            prop_assert_eq!(report.bytes, stored + coming as u64);
            prop_assert_eq!(report.objects, objects);
            prop_assert!(report.bytes <= bound as u64, "{} of {bound}", report.bytes);
            let places = lock(&store.queues).places() as u64;
            prop_assert!(places >= objects && places <= 2 * objects + 65 + 300);
        }
    }
}

/// The same with threads: counts are right in the end.
#[test]
fn shards_share_it() {
    let store = Store::new(50_000, None);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let store = &store;
            scope.spawn(move || {
                let mut random = thread + 1;
                for _ in 0..3_000 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let uri = format!("/{}", (random >> 33) % 50);
                    match (random >> 40) % 8 {
                        0..=3 => drop(put(store, &uri, (random >> 45) as usize % 3_000)),
                        4 => store.invalidate(&key(&uri).uri),
                        5 => drop(Room::none(store).grow(1_000)),
                        _ => drop(find(store, &uri)),
                    }
                    assert!(store.bytes.load(Ordering::Relaxed) <= 50_000);
                }
            });
        }
    });
    let report = store.report();
    let stored: u64 = report.routes.iter().map(|line| line.bytes).sum();
    assert_eq!((report.bytes, report.objects), (stored, report.routes[0].objects));
}
