//! Which API keys of the snapshot were used on a shard, until control is told.
//!
//! A use is noted as a key is looked up, and a shard that remembers a key looks it up once a minute: so
//! a request with a remembered key does nothing here. Control is told by the shard's housekeeping.

use std::cell::RefCell;
use std::collections::HashMap;

use contract::KeyUse;
use foldhash::quality::RandomState;

use crate::limits;
use crate::store::keys::Digest;

/// Uses that control does not know of.
#[derive(Default)]
pub struct KeyUses(RefCell<HashMap<Digest, u64, RandomState>>);

impl KeyUses {
    /// A use of the key with this hash, in milliseconds since the Unix epoch.
    pub fn note(&self, digest: &Digest, now_ms: u64) {
        let uses = &mut *self.0.borrow_mut();
        if uses.len() < limits::KEYS_USED || uses.contains_key(digest) {
            uses.insert(*digest, now_ms / 1_000);
        }
    }

    /// Hands some of the uses to `tell`, until it takes no more. The others wait for the next time.
    pub fn tell(&self, mut tell: impl FnMut(&KeyUse) -> bool) {
        let uses = &mut *self.0.borrow_mut();
        if uses.is_empty() {
            return;
        }
        let some = uses.iter().take(limits::KEYS_USED_TOLD);
        let some: Vec<KeyUse> =
            some.map(|(digest, used_s)| KeyUse { digest: *digest, used_s: *used_s }).collect();
        for used in &some {
            if !tell(used) {
                return;
            }
            uses.remove(&used.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: usize) -> Digest {
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&n.to_le_bytes());
        digest
    }

    /// What is told while there is room for `most`.
    fn told(uses: &KeyUses, most: usize) -> Vec<KeyUse> {
        let mut told = Vec::new();
        uses.tell(|used| {
            let room = told.len() < most;
            if room {
                told.push(*used);
            }
            room
        });
        told
    }

    #[test]
    fn each_key_is_told_once_with_its_last_use() {
        let uses = KeyUses::default();
        uses.note(&digest(1), 5_000);
        uses.note(&digest(2), 6_000);
        uses.note(&digest(1), 7_999);
        let mut all = told(&uses, 9);
        all.sort_by_key(|used| used.digest);
        let used = |n, used_s| KeyUse { digest: digest(n), used_s };
        assert_eq!(all, [used(1, 7), used(2, 6)]);
        assert_eq!(told(&uses, 9), []);
    }

    #[test]
    fn what_was_not_taken_is_told_again() {
        let uses = KeyUses::default();
        (0..10).for_each(|n| uses.note(&digest(n), 1_000));
        let mut all = Vec::new();
        for most in [0, 3, 0, 4, 9] {
            all.extend(told(&uses, most));
        }
        all.sort_by_key(|used| used.digest);
        all.dedup();
        assert_eq!(all.len(), 10);
    }

    #[test]
    fn it_is_bounded_and_comes_in_portions() {
        let uses = KeyUses::default();
        (0..limits::KEYS_USED + 5).for_each(|n| uses.note(&digest(n), 1_000));
        assert_eq!(uses.0.borrow().len(), limits::KEYS_USED);
        uses.note(&digest(1), 9_000);
        assert_eq!(uses.0.borrow()[&digest(1)], 9, "one that is known is noted all the same");
        assert_eq!(told(&uses, usize::MAX).len(), limits::KEYS_USED_TOLD);
    }
}
