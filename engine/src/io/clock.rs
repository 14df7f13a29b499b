//! The shard's clock: read once per turn of the driver, so that asking for the time costs a load.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time as of the last completion batch. Timeouts use only the monotonic half (a wall clock that
/// jumps changes no deadline).
pub struct Clock {
    origin: Instant,
    now_us: Cell<u64>,
    wall_us: Cell<u64>,
}

impl Clock {
    pub(super) fn new() -> Clock {
        let clock =
            Clock { origin: Instant::now(), now_us: Cell::new(0), wall_us: Cell::new(0) };
        clock.refresh();
        clock
    }

    /// Reads both clocks of the system.
    #[inline]
    pub(super) fn refresh(&self) {
        // Starting at one second keeps "deadline 0" free to mean "none".
        self.now_us.set(self.origin.elapsed().as_micros() as u64 + 1_000_000);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.wall_us.set(wall.as_micros() as u64);
    }

    /// Monotonic microseconds since an arbitrary origin.
    #[inline]
    pub fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    /// Monotonic milliseconds since the same origin.
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
