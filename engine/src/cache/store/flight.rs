//! Requests for the same at the same time: one goes to the upstream, the others wait for what it brings.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::Store;
use crate::cache::key::Key;
use crate::limits;

/// Whether a request goes to the upstream for others, too.
pub enum Joined {
    /// It does. The others wait until this is dropped.
    Leads(Leader),
    /// Another does, which was sent at that time (in monotonic milliseconds). The receiver fails once it is
    /// over.
    Follows(u64, watch::Receiver<()>),
    /// Nobody waits for this.
    Alone,
}

/// Others wait for what this request brings, until this is dropped.
#[derive(Debug)]
pub struct Leader {
    store: Arc<Store>,
    key: Key,
    _others: watch::Sender<()>,
}

impl Store {
    /// Goes on beside, or behind, others that ask for the same.
    pub fn join(self: &Arc<Store>, key: &Key, now_ms: u64) -> Joined {
        let digest = self.digest(&key.uri);
        let mut stripe = self.stripe(digest);
        if let Some((begun_ms, receiver)) = stripe.flights.get(key) {
            return Joined::Follows(*begun_ms, receiver.clone());
        }
        if u64::from(self.alone_until(digest)) > now_ms / 1_000 {
            return Joined::Alone;
        }
        let (sender, receiver) = watch::channel(());
        stripe.flights.insert(key.clone(), (now_ms, receiver));
        Joined::Leads(Leader { store: self.clone(), key: key.clone(), _others: sender })
    }

    fn alone_until(&self, digest: u64) -> u32 {
        self.alone[(digest >> 8) as usize % self.alone.len()].load(Ordering::Relaxed)
    }

    /// What is under this key is for nobody else: for a while nobody waits for it.
    pub fn leave_alone(&self, key: &Key, now_ms: u64) {
        let digest = self.digest(&key.uri);
        let until_s = (now_ms + limits::CACHE_ALONE_MS) / 1_000;
        let until_s = u32::try_from(until_s).unwrap_or(u32::MAX);
        self.alone[(digest >> 8) as usize % self.alone.len()].store(until_s, Ordering::Relaxed);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let digest = self.store.digest(&self.key.uri);
        self.store.stripe(digest).flights.remove(&self.key);
    }
}
