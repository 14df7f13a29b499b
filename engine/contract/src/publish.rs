//! The published epoch: one atomic that shards read on every request, and a wake for who waits.

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// An epoch that only grows, and a futex word to sleep on until it does.
///
/// It lies in shared memory; all zeroes is its initial state (epoch 0: nothing published).
#[repr(C, align(128))]
pub struct EpochCell {
    epoch: AtomicU64,
    /// Changes on every publish. A separate word, as a futex compares 32 bits only.
    word: AtomicU32,
    #[cfg(loom)]
    sleepers: (loom::sync::Mutex<()>, loom::sync::Condvar),
}

impl EpochCell {
    /// A cell at epoch 0.
    #[allow(clippy::new_without_default)]
    pub fn new() -> EpochCell {
        EpochCell {
            epoch: AtomicU64::new(0),
            word: AtomicU32::new(0),
            #[cfg(loom)]
            sleepers: (loom::sync::Mutex::new(()), loom::sync::Condvar::new()),
        }
    }

    /// The epoch published last; 0 before the first. One relaxed-cost load on x86.
    #[inline]
    pub fn get(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Publishes `epoch` and wakes all waiters. What was written before happens before what a
    /// reader of this epoch does. An epoch that is not greater than the present one changes nothing
    /// (a control process that was believed dead cannot turn the clock back).
    pub fn publish(&self, epoch: u64) {
        self.epoch.fetch_max(epoch, Ordering::AcqRel);
        // After the epoch: who sees the new word sees the new epoch, and who saw the old word
        // either finds it changed when falling asleep or is woken below.
        self.word.fetch_add(1, Ordering::Release);
        self.wake();
    }

    /// Waits until the epoch differs from `seen`, at most `timeout`, and returns the epoch.
    ///
    /// May return early with the epoch unchanged (a signal, a wake meant for another epoch): callers
    /// loop, and look at their own clock and stop flag in between.
    pub fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        // The word before the epoch: see `publish`.
        let word = self.word.load(Ordering::Acquire);
        let epoch = self.get();
        if epoch != seen {
            return epoch;
        }
        self.sleep(word, timeout);
        self.get()
    }

    /// Wakes waiters without publishing (so that they look at their stop flag).
    pub fn nudge(&self) {
        self.word.fetch_add(1, Ordering::Release);
        self.wake();
    }

    #[cfg(not(loom))]
    fn sleep(&self, word: u32, timeout: Duration) {
        use rustix::thread::futex;
        let timeout = futex::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        // Without PRIVATE: the waiter and the publisher are different processes. Every error (the
        // word has changed, a signal, the time-out) means "look again".
        let _ = futex::wait(&self.word, futex::Flags::empty(), word, Some(&timeout));
    }

    #[cfg(not(loom))]
    fn wake(&self) {
        use rustix::thread::futex;
        // Fails only for an address that is not a futex, which ours is.
        let _ = futex::wake(&self.word, futex::Flags::empty(), i32::MAX as u32);
    }

    /// The model of a futex: to compare the word and to fall asleep is one step to a waker. It has
    /// no time-out, so that loom reports a lost wake as a deadlock.
    #[cfg(loom)]
    fn sleep(&self, word: u32, _timeout: Duration) {
        let asleep = self.sleepers.0.lock().unwrap();
        if self.word.load(Ordering::Relaxed) == word {
            drop(self.sleepers.1.wait(asleep).unwrap());
        }
    }

    #[cfg(loom)]
    fn wake(&self) {
        let _guard = self.sleepers.0.lock().unwrap();
        self.sleepers.1.notify_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn an_epoch_only_grows() {
        let cell = EpochCell::new();
        assert_eq!(cell.get(), 0);
        cell.publish(5);
        cell.publish(3);
        assert_eq!(cell.get(), 5);
        assert_eq!(cell.wait(4, LONG), 5, "no sleep when the epoch is another already");
        assert_eq!(cell.wait(5, Duration::from_millis(1)), 5, "the time-out ends the wait");
    }

    #[test]
    fn a_publish_wakes_every_waiter() {
        let cell = Arc::new(EpochCell::new());
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let cell = Arc::clone(&cell);
                std::thread::spawn(move || {
                    let mut seen = 0;
                    while seen < 100 {
                        let epoch = cell.wait(seen, LONG);
                        assert!(epoch >= seen);
                        seen = epoch;
                    }
                })
            })
            .collect();
        for epoch in 1..=100 {
            cell.publish(epoch);
        }
        for waiter in waiters {
            waiter.join().unwrap();
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64 as Payload;

    #[test]
    fn loom_a_wake_is_never_lost_and_carries_what_came_before() {
        loom::model(|| {
            let shared = Arc::new((EpochCell::new(), Payload::new(0)));
            let publisher = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    shared.1.store(7, Ordering::Relaxed);
                    shared.0.publish(1);
                    shared.0.publish(2);
                })
            };
            let mut seen = 0;
            while seen < 2 {
                let epoch = shared.0.wait(seen, Duration::ZERO);
                assert!(epoch >= seen);
                if epoch > 0 {
                    assert_eq!(shared.1.load(Ordering::Relaxed), 7);
                }
                seen = epoch;
            }
            publisher.join().unwrap();
        });
    }
}
