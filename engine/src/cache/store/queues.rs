//! Which stored answer goes when there is no room: S3-FIFO (Yang, Zhang, Qiu, Yue, Vigfusson: "FIFO
//! queues are all you need for cache eviction", SOSP 2023).
//!
//! What is new stands in a small queue, of a tenth of the bytes. What was used meanwhile goes on to the
//! main one, what was not is dropped, and remembered by a digest of its key: should it come again soon, it
//! begins in the main queue. That one is a FIFO in which what was used of late gets another round. So a
//! scan of many answers that are used once passes through a tenth of the cache, and a use costs a store of
//! one byte instead of a change of a list that all shards have.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Weak};

use crate::cache::object::Object;

/// Share of the bytes that the small queue may have, as a divisor.
const SMALL: usize = 10;

#[derive(Debug, Default)]
pub struct Queues {
    small: Queue,
    main: Queue,
    /// Digests of keys that have left the small queue unused, as many as there are objects in the main
    /// one.
    ghosts: HashSet<u64>,
    ghost_order: VecDeque<u64>,
}

#[derive(Debug, Default)]
struct Queue {
    places: VecDeque<Place>,
    /// Of all places, gone or not.
    bytes: usize,
}

#[derive(Debug)]
struct Place {
    object: Weak<Object>,
    cost: usize,
    digest: u64,
}

impl Queue {
    fn push(&mut self, place: Place) {
        self.bytes += place.cost;
        self.places.push_back(place);
    }

    fn pop(&mut self) -> Option<Place> {
        let place = self.places.pop_front()?;
        self.bytes -= place.cost;
        Some(place)
    }

    fn forget_the_gone(&mut self) {
        self.places.retain(|place| place.object.upgrade().is_some_and(|one| !one.is_gone()));
        self.bytes = self.places.iter().map(|place| place.cost).sum();
    }
}

impl Queues {
    /// A new object whose key has that digest.
    pub fn push(&mut self, object: &Arc<Object>, digest: u64) {
        let place = Place { object: Arc::downgrade(object), cost: object.cost(), digest };
        match self.ghosts.remove(&digest) {
            true => self.main.push(place),
            false => self.small.push(place),
        }
    }

    /// The object that has to go first; it is in no queue any more. `bound`: bytes of all.
    pub fn evict(&mut self, bound: usize) -> Option<Arc<Object>> {
        loop {
            let small = self.small.bytes > bound / SMALL || self.main.places.is_empty();
            let place = match small {
                true => self.small.pop(),
                false => self.main.pop(),
            };
            let place = place.or_else(|| self.main.pop())?;
            let Some(object) = place.object.upgrade().filter(|one| !one.is_gone()) else {
                continue;
            };
            match (small, object.used()) {
                (true, 0) => {
                    self.haunt(place.digest);
                    return Some(object);
                }
                (false, 0) => return Some(object),
                (_, _) => {
                    object.fade();
                    self.main.push(place);
                }
            }
        }
    }

    fn haunt(&mut self, digest: u64) {
        if self.ghosts.insert(digest) {
            self.ghost_order.push_back(digest);
        }
        let most = self.main.places.len().max(64);
        while self.ghost_order.len() > most {
            let Some(oldest) = self.ghost_order.pop_front() else { return };
            self.ghosts.remove(&oldest);
        }
    }

    /// Forgets places of objects that left by another way once they are most. `objects`: how many there
    /// are.
    pub fn tidy(&mut self, objects: usize) {
        if self.small.places.len() + self.main.places.len() > 2 * objects + 64 {
            self.small.forget_the_gone();
            self.main.forget_the_gone();
        }
    }

    #[cfg(test)]
    pub fn places(&self) -> usize {
        self.small.places.len() + self.main.places.len()
    }
}
