//! What a shard remembers of credentials, so that a repeated one costs one look-up.
//!
//! Bounded: two generations. When the young one is full it becomes the old one, and the old one is
//! forgotten; what is asked for again moves back. So the credentials in use stay, at the price of one
//! move per generation, whatever floods in.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use foldhash::quality::RandomState;

use super::{Identity, Outcome, Refusal};
use crate::limits;

/// What is known of a credential.
pub enum Remembered {
    Fresh(Outcome),
    /// Good, but to be asked for again; what was known.
    Stale(Rc<Identity>),
}

#[derive(Clone)]
enum Entry {
    Known(Rc<Identity>),
    /// Not good, until then.
    Refused(Refusal, u64),
}

type Generation = HashMap<Box<[u8]>, Entry, RandomState>;

/// A shard's memory of credentials. Hashes are keyed at random: whoever sends credentials cannot make
/// them collide.
#[derive(Default)]
pub struct Memory(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    /// What it knows holds under this version of the registry.
    version: u64,
    /// By authenticator.
    young: Vec<Generation>,
    old: Vec<Generation>,
    /// Of the young generation.
    entries: usize,
    bytes: usize,
}

impl Memory {
    /// What is known of `credential`, if that still holds.
    #[inline]
    pub fn get(
        &self,
        version: u64,
        authenticator: u32,
        credential: &[u8],
        now_ms: u64,
    ) -> Option<Remembered> {
        let inner = &mut *self.0.borrow_mut();
        if inner.version != version {
            return None;
        }
        let at = authenticator as usize;
        if let Some(entry) = inner.young.get(at).and_then(|young| young.get(credential)) {
            return entry.remembered(now_ms);
        }
        let (key, entry) = inner.old.get_mut(at)?.remove_entry(credential)?;
        let remembered = entry.remembered(now_ms);
        if remembered.is_some() {
            inner.insert(at, key, entry);
        }
        remembered
    }

    /// Remembers what came of `credential`, for as long as the outcome says.
    pub fn put(
        &self,
        version: u64,
        authenticator: u32,
        credential: &[u8],
        outcome: &Outcome,
        now_ms: u64,
    ) {
        let entry = match outcome {
            Outcome::Known(identity) if identity.until_ms > now_ms => {
                Entry::Known(identity.clone())
            }
            // A wrong credential stays wrong, but only a little while: keys may be added, clocks differ.
            Outcome::Refused(Refusal::Invalid) if credential.len() <= limits::AUTH_CREDENTIAL => {
                Entry::Refused(Refusal::Invalid, now_ms + limits::AUTH_NEGATIVE_MS)
            }
            // Nor what a service says to it: that would be much to remember.
            _ => return,
        };
        if credential.len() > limits::AUTH_CREDENTIAL {
            return;
        }
        let inner = &mut *self.0.borrow_mut();
        if inner.version != version {
            *inner = Inner { version, ..Inner::default() };
        }
        let at = authenticator as usize;
        if let Some(old) = inner.old.get_mut(at) {
            old.remove(credential);
        }
        inner.insert(at, credential.into(), entry);
    }

    #[cfg(test)]
    pub fn clear(&self) {
        *self.0.borrow_mut() = Inner::default();
    }

    /// Credentials remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        let inner = self.0.borrow();
        inner.young.iter().chain(&inner.old).map(HashMap::len).sum()
    }
}

impl Inner {
    fn insert(&mut self, at: usize, key: Box<[u8]>, entry: Entry) {
        if self.entries >= limits::AUTH_MEMORY || self.bytes >= limits::AUTH_MEMORY_BYTES {
            self.old = std::mem::take(&mut self.young);
            (self.entries, self.bytes) = (0, 0);
        }
        if self.young.len() <= at {
            self.young.resize_with(at + 1, Generation::default);
        }
        self.entries += 1;
        self.bytes += key.len();
        if let Some(young) = self.young.get_mut(at) {
            young.insert(key, entry);
        }
    }
}

impl Entry {
    fn remembered(&self, now_ms: u64) -> Option<Remembered> {
        match self {
            Entry::Refused(refusal, until_ms) => {
                (*until_ms > now_ms).then_some(Remembered::Fresh(Outcome::Refused(refusal.clone())))
            }
            Entry::Known(identity) if identity.until_ms <= now_ms || identity.is_revoked() => None,
            Entry::Known(identity) if identity.fresh_ms != 0 && identity.fresh_ms <= now_ms => {
                Some(Remembered::Stale(identity.clone()))
            }
            Entry::Known(identity) => Some(Remembered::Fresh(Outcome::Known(identity.clone()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(until_ms: u64, fresh_ms: u64) -> Outcome {
        Outcome::Known(Rc::new(Identity { until_ms, fresh_ms, ..Identity::default() }))
    }

    fn fresh(memory: &Memory, key: &[u8], now_ms: u64) -> bool {
        matches!(memory.get(1, 0, key, now_ms), Some(Remembered::Fresh(Outcome::Known(_))))
    }

    #[test]
    fn it_knows_until_the_end_and_under_one_version() {
        let memory = Memory::default();
        memory.put(1, 0, b"a", &known(100, 0), 10);
        assert!(fresh(&memory, b"a", 99) && !fresh(&memory, b"a", 100));
        assert!(memory.get(2, 0, b"a", 20).is_none(), "another registry");
        assert!(memory.get(1, 1, b"a", 20).is_none(), "another authenticator");
        memory.put(2, 0, b"b", &known(100, 0), 10);
        assert!(memory.get(1, 0, b"a", 20).is_none() && memory.len() == 1);
    }

    #[test]
    fn what_is_stale_is_told_apart() {
        let memory = Memory::default();
        memory.put(1, 0, b"a", &known(100, 50), 10);
        assert!(fresh(&memory, b"a", 49));
        assert!(matches!(memory.get(1, 0, b"a", 50), Some(Remembered::Stale(_))));
        assert!(memory.get(1, 0, b"a", 100).is_none());
    }

    #[test]
    fn a_revoked_credential_is_forgotten_at_once() {
        let memory = Memory::default();
        let revoked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let identity =
            Identity { until_ms: 100, revoked: Some(revoked.clone()), ..Identity::default() };
        memory.put(1, 0, b"a", &Outcome::Known(Rc::new(identity)), 10);
        assert!(fresh(&memory, b"a", 20));
        revoked.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(memory.get(1, 0, b"a", 20).is_none());
    }

    #[test]
    fn wrong_ones_are_known_for_a_little_while() {
        let memory = Memory::default();
        memory.put(1, 0, b"a", &Outcome::Refused(Refusal::Invalid), 10);
        let wrong = |now_ms| {
            matches!(
                memory.get(1, 0, b"a", now_ms),
                Some(Remembered::Fresh(Outcome::Refused(Refusal::Invalid)))
            )
        };
        assert!(wrong(10 + limits::AUTH_NEGATIVE_MS - 1) && !wrong(10 + limits::AUTH_NEGATIVE_MS));
        memory.put(1, 0, b"b", &Outcome::Refused(Refusal::Unavailable), 10);
        assert!(memory.get(1, 0, b"b", 10).is_none(), "who could not be asked may be asked again");
    }

    #[test]
    fn a_flood_does_not_drive_out_what_is_in_use() {
        let memory = Memory::default();
        memory.put(1, 0, b"mine", &known(100, 0), 10);
        for n in 0..4 * limits::AUTH_MEMORY {
            memory.put(1, 0, &n.to_le_bytes(), &Outcome::Refused(Refusal::Invalid), 10);
            if n % 1_000 == 0 {
                assert!(fresh(&memory, b"mine", 20), "after {n}");
            }
        }
        assert!(memory.len() <= 2 * limits::AUTH_MEMORY);
    }
}
