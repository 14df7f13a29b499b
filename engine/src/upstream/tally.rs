//! How often something has happened to a target or an upstream, and why.

use std::sync::atomic::{AtomicU32, Ordering};

use contract::targets::Cause;

/// Counts by cause, for all shards. They only grow.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [AtomicU32; Cause::ALL.len()],
    last: AtomicU32,
}

impl Tally {
    pub fn count(&self, cause: Cause) {
        self.last.store(cause as u32, Ordering::Relaxed);
        if let Some(count) = self.counts.get(cause as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn of(&self, cause: Cause) -> u32 {
        self.counts.get(cause as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// For whatever cause.
    pub fn all(&self) -> u32 {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        counts.fold(0, u32::wrapping_add)
    }

    /// Why it happened the last time.
    pub fn last(&self) -> Cause {
        Cause::ALL.get(self.last.load(Ordering::Relaxed) as usize).copied().unwrap_or_default()
    }
}
