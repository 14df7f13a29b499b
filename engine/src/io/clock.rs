//! The shard's clock: read once per turn of the driver, so that asking for the time costs a load.

use std::cell::Cell;

use rustix::time::{ClockId, clock_gettime};

/// Time as of the last completion batch. Timeouts use only the monotonic half (a wall clock that
/// jumps changes no deadline).
pub struct Clock {
    now_us: Cell<u64>,
    wall_us: Cell<u64>,
}

impl Clock {
    pub(super) fn new() -> Clock {
        let clock = Clock { now_us: Cell::new(0), wall_us: Cell::new(0) };
        clock.refresh();
        clock
    }

    /// Reads both clocks of the system.
    #[inline]
    pub(super) fn refresh(&self) {
        self.now_us.set(read(ClockId::Monotonic));
        self.wall_us.set(read(ClockId::Realtime));
    }

    /// Microseconds of `CLOCK_MONOTONIC`: one clock for all processes of the machine. Never 0.
    #[inline]
    pub fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    /// Milliseconds of `CLOCK_MONOTONIC`.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.now_us.get() / 1000
    }

    /// Wall clock, microseconds since the Unix epoch.
    #[inline]
    pub fn wall_us(&self) -> u64 {
        self.wall_us.get()
    }
}

/// [`Clock::now_ms`] for the store thread, where no driver turns.
pub fn monotonic_ms() -> u64 {
    read(ClockId::Monotonic) / 1000
}

/// Monotonic microseconds, for the store thread.
pub fn monotonic_us() -> u64 {
    read(ClockId::Monotonic)
}

/// Milliseconds since the Unix epoch, for the store thread.
pub fn wall_ms() -> u64 {
    read(ClockId::Realtime) / 1000
}

#[inline]
fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // A wall clock before 1970 is no time at all.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    (seconds * 1_000_000 + time.tv_nsec as u64 / 1000).max(1)
}
