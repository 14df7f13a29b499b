//! Limits judged from outside: what was offered, what an origin saw of it, and what that says.
//!
//! All times are nanoseconds since one instant of the test ([`Clock`]), so that what clients and the
//! origin write down can be compared.

pub mod arrivals;
pub mod judge;
pub mod offered;
pub mod relay;

use std::time::{Duration, Instant, SystemTime};

pub use arrivals::{Arrival, Arrivals};
pub use offered::{Answered, Offer, Pattern, offer};
pub use relay::Relay;

/// Where a test's time begins.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { start: Instant::now() }
    }
}

impl Clock {
    pub fn now(self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Sleeps until then; not at all when it is past.
    pub fn sleep_until(self, at: u64) {
        let now = self.now();
        if at > now {
            std::thread::sleep(Duration::from_nanos(at - now));
        }
    }

    /// The first time from `from` on at which the wall clock is at a multiple of `window`: where
    /// windows that are fixed have their edge.
    pub fn edge(self, from: u64, window: u64) -> u64 {
        let wall = nanos(SystemTime::UNIX_EPOCH.elapsed().expect("after 1970"));
        let now = self.now();
        let begin = wall - now;
        from + (window - (begin + from) % window) % window
    }
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("centuries")
}

/// Milliseconds in nanoseconds.
pub const MS: u64 = 1_000_000;

/// Runs this thread before others, where we may: what it writes down should be when it happened.
pub fn hurry() {
    let _ = rustix::process::setpriority_process(None, -15);
}

/// Small, seeded numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 (left out) to 1.
    pub fn unit(&mut self) -> f64 {
        ((self.roll() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}
