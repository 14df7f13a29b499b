//! A value that one thread replaces and all shards read, without locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_epoch::{Atomic, Owned, pin};

/// The current value and its number. Readers look at the number (one relaxed load) and take the
/// value only when it has changed.
pub struct Swap<T> {
    value: Atomic<Arc<T>>,
    number: AtomicU64,
}

impl<T: Send + Sync + 'static> Swap<T> {
    pub fn new(value: Arc<T>, number: u64) -> Swap<T> {
        Swap { value: Atomic::new(value), number: AtomicU64::new(number) }
    }

    /// Number of the latest value. May run behind [`Swap::set`] for a moment, never ahead of it.
    #[inline]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Puts `value` in place. The old one is dropped when the last reader has let go of it.
    pub fn set(&self, value: Arc<T>, number: u64) {
        let guard = pin();
        let old = self.value.swap(Owned::new(value), Ordering::AcqRel, &guard);
        self.number.store(number, Ordering::Release);
        // SAFETY: `old` was unlinked by the swap, so no new reader finds it, and readers that
        // have it are pinned; it came from Atomic::new or an earlier `set`, never null.
        unsafe { guard.defer_destroy(old) };
        guard.flush();
    }

    /// The value in place.
    pub fn get(&self) -> Arc<T> {
        let guard = pin();
        let shared = self.value.load(Ordering::Acquire, &guard);
        // SAFETY: never null (see `set`), and not destroyed while this guard is pinned.
        unsafe { shared.deref() }.clone()
    }
}

impl<T> Drop for Swap<T> {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: no reader is left.
        unsafe { drop(std::mem::take(&mut self.value).into_owned()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_never_see_the_past_again_and_nothing_leaks() {
        let first = Arc::new(0u64);
        let swap = Arc::new(Swap::new(first.clone(), 0));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let swap = swap.clone();
                std::thread::spawn(move || {
                    let mut last = 0;
                    while last < 5_000 {
                        let number = swap.number();
                        let value = *swap.get();
                        assert!(value >= last && value >= number);
                        last = value;
                    }
                })
            })
            .collect();
        for n in 1..=5_000 {
            swap.set(Arc::new(n), n);
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        drop(swap);
        for _ in 0..1000 {
            pin().flush();
        }
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
