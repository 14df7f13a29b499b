//! Bytes that are kept free for a body on its way in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Store, lock};

/// Share of the bound that bodies on their way in may have together, as a divisor: whoever only asks,
/// and does not take the answers, must not empty the cache.
const COMING: usize = 4;

/// Counts as if the bytes were stored, until it is dropped.
#[derive(Debug)]
pub struct Room {
    store: Arc<Store>,
    bytes: usize,
}

impl Room {
    pub fn none(store: &Arc<Store>) -> Room {
        Room { store: store.clone(), bytes: 0 }
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps so many more bytes free. False: there is no room for them.
    pub fn grow(&mut self, more: usize) -> bool {
        let store = &self.store;
        let mut queues = lock(&store.queues);
        let coming = store.coming.load(Ordering::Relaxed).saturating_add(more);
        if coming > store.bound.load(Ordering::Relaxed) / COMING
            || !store.make_room(&mut queues, more)
        {
            return false;
        }
        store.coming.fetch_add(more, Ordering::Relaxed);
        store.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        true
    }

    /// Gives them back.
    pub fn release(mut self) {
        self.give();
    }

    fn give(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.store.coming.fetch_sub(bytes, Ordering::Relaxed);
        self.store.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give();
    }
}
