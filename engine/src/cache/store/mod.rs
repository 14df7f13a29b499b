//! What a node keeps: one store for all of its shards.
//!
//! One and not one per shard, so that an answer is fetched, kept and purged once, a cache of a given size
//! keeps what fits it whatever the number of shards, and one request fetches for all. The price is a lock on
//! the way of requests of routes with a cache (of no others). It is one of [`STRIPES`], held for the probe
//! of a hash table and a count of a reference, never over an await, an allocation of a body, or another
//! lock; shards meet on it only when they look up keys of one stripe within the same 100 ns. Storing,
//! evicting and purging take the one lock of the queues first, which no look-up takes.
//!
//! The bound is exact: what counts is counted before it is there (bodies on their way in, too) and until it
//! is out of the index. Answers that are being sent keep their bytes a little longer, as a client's send
//! buffer would.

mod flight;
mod queues;
mod room;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contract::figures::{Figure, Figures};
use contract::{CacheLine, CacheReport, Purge};
use tokio::sync::watch;

pub use self::flight::{Joined, Leader};
use self::queues::Queues;
pub use self::room::Room;
use super::key::Key;
use super::object::Object;
use crate::limits;

const STRIPES: usize = 256;
/// Places in which is noted what was made invalid, by digests of what was asked for.
const MARKS: usize = 64 * 1024;

/// The stored answers of a node.
#[derive(Debug)]
pub struct Store {
    hasher: RandomState,
    stripes: Box<[Mutex<Stripe>]>,
    queues: Mutex<Queues>,
    /// Bytes that count, and objects. Written under the lock of the queues or of a stripe.
    bytes: AtomicUsize,
    objects: AtomicUsize,
    /// Of these bytes those of bodies on their way in.
    coming: AtomicUsize,
    bound: AtomicUsize,
    /// Grow with each invalidation of a key of that digest, and with each purge: what was asked for before
    /// is not stored afterwards.
    marks: Box<[AtomicU32]>,
    purges: AtomicU64,
    /// Until when (in seconds) nobody waits for answers to such a key: they are not for others.
    alone: Box<[AtomicU32]>,
    figures: Option<Figures>,
}

#[derive(Debug, Default)]
struct Stripe {
    /// By what is asked for, and in which way. Variants of one key: the newest last.
    slots: HashMap<Box<[u8]>, HashMap<Box<[u8]>, Vec<Arc<Object>>>>,
    /// What is being asked for; ends when its leader is dropped.
    flights: HashMap<Key, (u64, watch::Receiver<()>)>,
}

/// What was so when an answer was asked for; it is stored only if it still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    mark: u32,
    purges: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked left no invariant broken: counts are changed where the index is.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// An empty store. `figures`: where it tells how it stands.
    pub fn new(bound: usize, figures: Option<Figures>) -> Arc<Store> {
        let store = Store {
            hasher: RandomState::new(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            queues: Mutex::default(),
            bytes: AtomicUsize::new(0),
            objects: AtomicUsize::new(0),
            coming: AtomicUsize::new(0),
            bound: AtomicUsize::new(bound),
            marks: (0..MARKS).map(|_| AtomicU32::new(0)).collect(),
            purges: AtomicU64::new(0),
            alone: (0..MARKS).map(|_| AtomicU32::new(0)).collect(),
            figures,
        };
        Arc::new(store)
    }

    fn digest(&self, of: &[u8]) -> u64 {
        self.hasher.hash_one(of)
    }

    fn stripe(&self, digest: u64) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[digest as usize % STRIPES])
    }

    fn mark(&self, digest: u64) -> &AtomicU32 {
        &self.marks[(digest >> 8) as usize % MARKS]
    }

    /// Bytes that may be kept; what is over goes.
    pub fn configure(&self, bound: usize) {
        let mut queues = lock(&self.queues);
        self.bound.store(bound, Ordering::Relaxed);
        self.make_room(&mut queues, 0);
        self.tell();
    }

    /// The newest answer under this key that suits.
    pub fn find(&self, key: &Key, suits: impl Fn(&Object) -> bool) -> Found {
        let stripe = self.stripe(self.digest(&key.uri));
        let Some(variants) = stripe.slots.get(&key.uri).and_then(|ways| ways.get(&key.way)) else {
            return Found::Nothing;
        };
        match variants.iter().rev().find(|object| suits(object)) {
            Some(object) => {
                object.touch();
                Found::One(object.clone())
            }
            None => Found::Others,
        }
    }

    /// How things stand for an answer that is asked for now.
    pub fn since(&self, key: &Key) -> Since {
        let digest = self.digest(&key.uri);
        // Acquire: pairs with the invalidation, whose look at the index comes after its mark.
        let mark = self.mark(digest).load(Ordering::Acquire);
        Since { mark, purges: self.purges.load(Ordering::Acquire) }
    }

    /// Stores an answer in place of the one that it replaces. `room` is what was kept free for its body.
    /// False: there is no room, or it was purged or made invalid while it came.
    pub fn insert(&self, object: Object, since: Since, room: Option<Room>) -> bool {
        let object = Arc::new(object);
        let key = &object.draft.key;
        let digest = self.digest(&key.uri);
        let mut queues = lock(&self.queues);
        // From here on it is the object that counts.
        if let Some(room) = room {
            room.release();
        }
        if self.mark(digest).load(Ordering::Acquire) != since.mark
            || self.purges.load(Ordering::Acquire) != since.purges
        {
            return false;
        }
        {
            let mut stripe = self.stripe(digest);
            if let Some(variants) =
                stripe.slots.get_mut(&key.uri).and_then(|ways| ways.get_mut(&key.way))
            {
                variants.retain(|old| {
                    let same = old.draft.selecting == object.draft.selecting;
                    if same {
                        self.left(old);
                    }
                    !same
                });
                while variants.len() >= limits::CACHE_VARIANTS {
                    self.left(&variants.remove(0));
                }
            }
        }
        let fits = object.cost() <= self.bound.load(Ordering::Relaxed);
        if !fits || !self.make_room(&mut queues, object.cost()) {
            self.sweep(key);
            self.tell();
            return false;
        }
        let way = self.hasher.hash_one((&key.uri, &key.way, &object.draft.selecting));
        {
            let mut stripe = self.stripe(digest);
            let ways = stripe.slots.entry(key.uri.clone()).or_default();
            ways.entry(key.way.clone()).or_default().push(object.clone());
            self.bytes.fetch_add(object.cost(), Ordering::Relaxed);
            self.objects.fetch_add(1, Ordering::Relaxed);
        }
        queues.push(&object, way);
        queues.tidy(self.objects.load(Ordering::Relaxed));
        self.count(Figure::CacheStored, 1);
        self.tell();
        true
    }

    /// Takes one answer out: it is of no use any more.
    pub fn remove(&self, object: &Arc<Object>) {
        self.detach(object);
        self.tell();
    }

    /// Makes all answers to what is asked for invalid (RFC 9111 §4.4), also those on their way.
    pub fn invalidate(&self, uri: &[u8]) {
        let digest = self.digest(uri);
        self.mark(digest).fetch_add(1, Ordering::AcqRel);
        let gone = self.stripe(digest).slots.remove(uri);
        let Some(gone) = gone else { return };
        let gone: Vec<Arc<Object>> = gone.into_values().flatten().collect();
        gone.iter().for_each(|object| self.left(object));
        self.count(Figure::CachePurged, gone.len() as u64);
        self.tell();
    }

    /// Has all answers go that are meant, and tells how many went. Answers that are on their way are not
    /// stored.
    pub fn purge(&self, purge: &Purge) -> u64 {
        self.purges.fetch_add(1, Ordering::AcqRel);
        let mut count = 0;
        for stripe in &self.stripes {
            let mut stripe = lock(stripe);
            stripe.slots.retain(|_, ways| {
                ways.retain(|_, variants| {
                    variants.retain(|object| {
                        let meant = is_meant(object, purge);
                        if meant {
                            self.left(object);
                            count += 1;
                        }
                        !meant
                    });
                    !variants.is_empty()
                });
                !ways.is_empty()
            });
        }
        self.count(Figure::CachePurged, count);
        self.tell();
        count
    }

    /// How it stands.
    pub fn report(&self) -> CacheReport {
        let mut routes: HashMap<Box<str>, CacheLine> = HashMap::new();
        for stripe in &self.stripes {
            let stripe = lock(stripe);
            for object in stripe.slots.values().flat_map(HashMap::values).flatten() {
                let route = &object.draft.route;
                let line = match routes.get_mut(route) {
                    Some(line) => line,
                    None => routes.entry(route.clone()).or_default(),
                };
                line.objects += 1;
                line.bytes += object.cost() as u64;
            }
        }
        let mut routes: Vec<CacheLine> = routes
            .into_iter()
            .map(|(route, line)| CacheLine { route: route.into(), ..line })
            .collect();
        routes.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.route.cmp(&b.route)));
        CacheReport {
            purged: 0,
            objects: self.objects.load(Ordering::Relaxed) as u64,
            bytes: self.bytes.load(Ordering::Relaxed) as u64,
            max_bytes: self.bound.load(Ordering::Relaxed) as u64,
            routes,
        }
    }

    /// Evicts until so many more bytes fit. False: they never will.
    fn make_room(&self, queues: &mut Queues, more: usize) -> bool {
        let bound = self.bound.load(Ordering::Relaxed);
        while self.bytes.load(Ordering::Relaxed).saturating_add(more) > bound {
            let Some(object) = queues.evict(bound) else { return more == 0 };
            if self.detach(&object) {
                self.count(Figure::CacheEvicted, 1);
            }
        }
        true
    }

    /// Takes an object out of the index. False: it is out already.
    fn detach(&self, object: &Object) -> bool {
        let key = &object.draft.key;
        let mut stripe = self.stripe(self.digest(&key.uri));
        let Some(ways) = stripe.slots.get_mut(&key.uri) else { return false };
        let Some(variants) = ways.get_mut(&key.way) else { return false };
        let Some(at) = variants.iter().position(|one| std::ptr::eq(&**one, object)) else {
            return false;
        };
        variants.remove(at);
        if variants.is_empty() {
            ways.remove(&key.way);
        }
        if ways.is_empty() {
            stripe.slots.remove(&key.uri);
        }
        self.left(object);
        true
    }

    /// Forgets the places of a key under which nothing is left.
    fn sweep(&self, key: &Key) {
        let mut stripe = self.stripe(self.digest(&key.uri));
        if let Some(ways) = stripe.slots.get_mut(&key.uri) {
            ways.retain(|_, variants| !variants.is_empty());
            if ways.is_empty() {
                stripe.slots.remove(&key.uri);
            }
        }
    }

    /// An object that is being taken out of the index counts no more.
    fn left(&self, object: &Object) {
        if object.leave() {
            self.bytes.fetch_sub(object.cost(), Ordering::Relaxed);
            self.objects.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn count(&self, figure: Figure, more: u64) {
        if let Some(figures) = &self.figures {
            figures.add(figure, more);
        }
    }

    fn tell(&self) {
        if let Some(figures) = &self.figures {
            let value = |of: &AtomicUsize| of.load(Ordering::Relaxed) as u64;
            figures.set(Figure::CacheBytes, value(&self.bytes));
            figures.set(Figure::CacheBound, value(&self.bound));
            figures.set(Figure::CacheObjects, value(&self.objects));
        }
    }
}

/// What there is under a key.
pub enum Found {
    One(Arc<Object>),
    /// Answers to other requests of it.
    Others,
    Nothing,
}

fn is_meant(object: &Object, purge: &Purge) -> bool {
    let draft = &object.draft;
    let (host, path) = draft.key.place();
    let text = |wanted: &str, own: &[u8]| wanted.is_empty() || wanted.as_bytes() == own;
    let on_path = match purge.below {
        true => path.starts_with(purge.path.as_bytes()),
        false => text(&purge.path, path),
    };
    on_path
        && text(&purge.route, draft.route.as_bytes())
        && text(&purge.host, host)
        && (purge.tag.is_empty() || draft.tags.iter().any(|tag| **tag == *purge.tag.as_bytes()))
}
