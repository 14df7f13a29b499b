//! When a shard asks for a key set to be fetched again, and who may wait for it.
//!
//! Tokens with keys that nobody knows come when an issuer has changed its keys, and from anyone who
//! writes some. So a set is asked for once in a while, whatever comes, and few may wait.

use std::cell::{Cell, RefCell};

use crate::limits;

/// A shard's wishes for key sets.
#[derive(Debug, Default)]
pub struct Wishes {
    /// When each set was last asked for, by its place among all nodes' wishes.
    last: RefCell<Vec<(u32, u64)>>,
    waiting: Cell<u32>,
}

/// Someone waits for a set.
#[derive(Debug)]
pub struct Wait<'a> {
    of: &'a Wishes,
    pub until_ms: u64,
}

impl Wishes {
    /// Whether the set at `place` is to be asked for now.
    pub fn is_due(&self, place: u32, now_ms: u64) -> bool {
        let mut last = self.last.borrow_mut();
        last.retain(|(_, asked_ms)| now_ms < asked_ms + limits::KEY_WISH_MS);
        let due = last.iter().all(|(asked, _)| *asked != place);
        if due {
            last.push((place, now_ms));
        }
        due
    }

    /// A place to wait in, if the set was asked for just now and not too many wait.
    pub fn wait(&self, place: u32, now_ms: u64) -> Option<Wait<'_>> {
        let last = self.last.borrow();
        let (_, asked_ms) = last.iter().find(|(asked, _)| *asked == place)?;
        let until_ms = asked_ms + limits::KEY_WAIT_MS;
        if until_ms <= now_ms || self.waiting.get() >= limits::KEY_WAITERS {
            return None;
        }
        self.waiting.set(self.waiting.get() + 1);
        Some(Wait { of: self, until_ms })
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.of.waiting.set(self.of.waiting.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_asked_for_once_in_a_while() {
        let wishes = Wishes::default();
        assert!(wishes.is_due(3, 5) && !wishes.is_due(3, 6) && wishes.is_due(4, 6));
        assert!(!wishes.is_due(3, 5 + limits::KEY_WISH_MS - 1));
        assert!(wishes.is_due(3, 5 + limits::KEY_WISH_MS));
        for place in 0..100_000 {
            wishes.is_due(place, u64::from(place) * 1_000);
        }
        assert!(wishes.last.borrow().len() <= 10, "what is old is forgotten");
    }

    #[test]
    fn few_wait_and_not_for_long() {
        let wishes = Wishes::default();
        assert!(wishes.wait(3, 5).is_none(), "nobody has asked");
        wishes.is_due(3, 5);
        assert_eq!(wishes.wait(3, 6).unwrap().until_ms, 5 + limits::KEY_WAIT_MS);
        assert!(wishes.wait(3, 5 + limits::KEY_WAIT_MS).is_none());
        let waits: Vec<_> = std::iter::from_fn(|| wishes.wait(3, 7)).collect();
        assert_eq!(waits.len(), limits::KEY_WAITERS as usize);
        drop(waits);
        assert!(wishes.wait(3, 7).is_some());
    }
}
