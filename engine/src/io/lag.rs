//! How long work that is ready waits for its core.
//!
//! A completion that comes just after the driver has looked waits for a whole turn of its loop:
//! so the length of turns is the delay. As CoDel does (RFC 8289 §3.2), the *least* of an interval is
//! judged: a burst makes one turn long, a standing queue makes all of them long.
//!
//! A turn's length includes its enter, in which the kernel does much of the work, and may sleep. A sleep
//! ends with the first completion, so the turn behind it has little to do, and says so: that one turn is
//! then the least of its interval.

use std::cell::Cell;

/// Over which the least delay is taken, in microseconds.
const INTERVAL_US: u64 = 100_000;
/// A turn that polled fewer tasks had no queue: it was long because it slept, or for one task's sake.
const BUSY_POLLS: u64 = 16;

/// What a shard's driver tells of each of its turns.
#[derive(Default)]
pub struct Lag {
    turn_us: Cell<u64>,
    polls: Cell<u64>,
    interval_us: Cell<u64>,
    least_us: Cell<u64>,
    standing_us: Cell<u64>,
}

impl Lag {
    /// A turn begins at `now_us`; `polls` counts the task polls of all turns so far.
    #[inline]
    pub(super) fn turn(&self, now_us: u64, polls: u64) {
        let (began_us, before) = (self.turn_us.replace(now_us), self.polls.replace(polls));
        let busy = polls.wrapping_sub(before) >= BUSY_POLLS && began_us != 0;
        let delay_us = if busy { now_us.saturating_sub(began_us) } else { 0 };
        self.least_us.set(self.least_us.get().min(delay_us));
        if now_us.saturating_sub(self.interval_us.get()) >= INTERVAL_US {
            self.standing_us.set(self.least_us.replace(u64::MAX));
            self.interval_us.set(now_us);
        }
    }

    /// The least delay of the last interval, in microseconds: what everything waits for at least.
    #[inline]
    pub fn standing_us(&self) -> u64 {
        self.standing_us.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of this length until `until_us`, each with so many polls.
    fn turns(lag: &Lag, from_us: u64, until_us: u64, length_us: u64, polls: u64) -> u64 {
        let (mut now_us, mut all) = (from_us, lag.polls.get());
        while now_us < until_us {
            now_us += length_us;
            all += polls;
            lag.turn(now_us, all);
        }
        now_us
    }

    #[test]
    fn a_standing_queue_is_told_from_a_burst_and_from_sleep() {
        let lag = Lag::default();
        let now = turns(&lag, 1_000, 1_000_000, 500, 20);
        assert_eq!(lag.standing_us(), 500);
        // One long turn among short ones is no queue.
        let now = turns(&lag, now, now + 50_000, 500, 20);
        let now = turns(&lag, now, now + 80_000, 80_000, 1_000);
        let now = turns(&lag, now, now + 300_000, 500, 20);
        assert_eq!(lag.standing_us(), 500);
        let now = turns(&lag, now, now + 1_000_000, 30_000, 1_000);
        assert_eq!(lag.standing_us(), 30_000);
        // Asleep most of the time.
        let now = turns(&lag, now, now + 1_000_000, 90_000, 3);
        assert_eq!(lag.standing_us(), 0);
        // Turns longer than the interval count, too.
        turns(&lag, now, now + 2_000_000, 400_000, 10_000);
        assert_eq!(lag.standing_us(), 400_000);
    }
}
