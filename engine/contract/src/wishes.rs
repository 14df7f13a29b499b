//! Wishes: how shards ask control to fetch a key set again, as a token named a key that is not in it.
//!
//! A count per key set ([`KeySet::wish`](crate::snapshot::KeySet::wish)) that only grows, through
//! restarts of either side, too. Control looks whether it has changed, and decides how often it is
//! willing to fetch: anybody can make up a token with a key that nobody knows.

use std::sync::atomic::{AtomicU64, Ordering};

pub use crate::encode::MAX_WISHES;
use crate::segment::Keeper;

/// The counts as they lie in the segment.
#[repr(C, align(128))]
pub(crate) struct Table {
    counts: [AtomicU64; MAX_WISHES],
}

/// The wishes, for a process that maps their segment.
#[derive(Clone)]
pub struct Wishes {
    segment: Keeper,
}

impl Wishes {
    pub(crate) fn new(segment: Keeper) -> Wishes {
        Wishes { segment }
    }

    /// Wishes for key set `index`, by a shard. One atomic addition; an index that is none is nobody's.
    #[inline]
    pub fn wish(&self, index: u32) {
        if let Some(count) = self.segment.wishes().counts.get(index as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often key set `index` was wished for since the segment was made. Control compares it with
    /// what it saw before.
    pub fn count(&self, index: u32) -> u64 {
        let count = self.segment.wishes().counts.get(index as usize);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Wishes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wishes").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Segment;
    use crate::ring::MIN_RING;

    #[test]
    fn wishes_of_all_shards_are_seen_by_control() {
        let (fd, engine) = Segment::create(2, MIN_RING).unwrap();
        let control = Segment::open(&fd).unwrap().wishes();
        let last = MAX_WISHES as u32 - 1;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let shard = engine.wishes();
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        shard.wish(0);
                        shard.wish(last);
                    }
                });
            }
        });
        assert_eq!((control.count(0), control.count(1), control.count(last)), (2_000, 0, 2_000));
        // Nothing beside them is touched.
        engine.wishes().wish(last + 1);
        engine.wishes().wish(u32::MAX);
        assert_eq!((control.count(last + 1), control.count(u32::MAX)), (0, 0));
        assert_eq!(engine.epoch(), 0);
        assert!((1..last).all(|index| control.count(index) == 0));
    }

    #[test]
    fn wishes_outlive_the_segment() {
        let (fd, engine) = Segment::create(1, MIN_RING).unwrap();
        let shard = engine.wishes();
        drop(engine);
        shard.wish(3);
        assert_eq!(Segment::open(&fd).unwrap().wishes().count(3), 1);
    }
}
