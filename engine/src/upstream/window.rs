//! What happened lately, as one shard saw it and all may read it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A window moves by this part of its length.
pub const BUCKETS: u64 = 10;

#[derive(Debug, Default)]
struct Bucket {
    number: AtomicU64,
    requests: AtomicU32,
    errors: AtomicU32,
    slow: AtomicU32,
}

/// One shard's part of a window. Only that shard writes; a reader who looks while a bucket begins
/// anew may count a few requests too many or too few.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Window {
    buckets: [Bucket; BUCKETS as usize],
}

/// What several parts have seen together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub requests: u64,
    pub errors: u64,
    pub slow: u64,
}

/// Adds to a number that only the caller's shard writes.
#[inline]
pub fn add(own: &AtomicU32, n: u32) {
    own.store(own.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

impl Window {
    /// The bucket that a time falls into.
    #[inline]
    pub fn number(now_ms: u64, window_ms: u32) -> u64 {
        now_ms / (u64::from(window_ms) / BUCKETS).max(1)
    }

    #[inline]
    pub fn note(&self, number: u64, error: bool, slow: bool) {
        let Some(bucket) = self.buckets.get((number % BUCKETS) as usize) else { return };
        if bucket.number.load(Ordering::Relaxed) != number {
            bucket.requests.store(0, Ordering::Relaxed);
            bucket.errors.store(0, Ordering::Relaxed);
            bucket.slow.store(0, Ordering::Relaxed);
            bucket.number.store(number, Ordering::Relaxed);
        }
        add(&bucket.requests, 1);
        if error {
            add(&bucket.errors, 1);
        }
        if slow {
            add(&bucket.slow, 1);
        }
    }

    /// Adds what this part has of the window that ends with bucket `number`, not before `since`.
    pub fn sum(&self, number: u64, since: u64, sums: &mut Sums) {
        for bucket in &self.buckets {
            let own = bucket.number.load(Ordering::Relaxed);
            if own > number || own + BUCKETS <= number || own < since {
                continue;
            }
            sums.requests += u64::from(bucket.requests.load(Ordering::Relaxed));
            sums.errors += u64::from(bucket.errors.load(Ordering::Relaxed));
            sums.slow += u64::from(bucket.slow.load(Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_sums_up_what_lies_within(
            events in proptest::collection::vec((0u64..400, any::<bool>(), any::<bool>()), 0..300),
            since in 0u64..60,
        ) {
            let window = Window::default();
            let mut log = Vec::new();
            let mut now_ms = 5_000;
            for (pause_ms, error, slow) in events {
                now_ms += pause_ms;
                let number = Window::number(now_ms, 1_000);
                window.note(number, error, slow);
                log.push((number, error, slow));
                let mut sums = Sums::default();
                window.sum(number, since, &mut sums);
                let within = log.iter().filter(|(at, ..)| at + BUCKETS > number && *at >= since);
                let mut wanted = Sums::default();
                for (_, error, slow) in within {
                    wanted.requests += 1;
                    wanted.errors += u64::from(*error);
                    wanted.slow += u64::from(*slow);
                }
                prop_assert_eq!(sums, wanted);
            }
        }
    }
}
