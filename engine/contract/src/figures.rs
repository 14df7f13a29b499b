//! Figures of the node: how Redis answers about limits, how the node decides meanwhile, what its cache keeps.
//!
//! The engine writes, its store thread what is about limits; readers see each number whole, and all of them roughly at
//! once. They only grow (but gauges), through restarts of the engine, too.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::segment::Keeper;

/// Upper bounds of the histogram's buckets, in microseconds; one more is without bound.
pub const LATENCY_BOUNDS_US: [u64; 12] =
    [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 204_800];

/// One number each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Figure {
    /// Calls of scripts that were answered.
    Calls,
    /// Those that failed, or were not answered in time.
    Failures,
    /// Gauge: servers, or the partitions of a cluster.
    Servers,
    /// Gauge: of these those that cannot be asked now.
    ServersLost,
    /// Gauge: buckets that the node knows.
    Buckets,
    /// Times that a server was lost.
    Losses,
    /// Times that a server had lost its memory, and nodes stated anew.
    Generations,
    /// Gauges: what the cache keeps, and what it may.
    CacheBytes,
    CacheBound,
    CacheObjects,
    /// Answers that were stored, that went to make room, and that were purged or invalidated.
    CacheStored,
    CacheEvicted,
    CachePurged,
}

const FIGURES: usize = Figure::CachePurged as usize + 1;
const BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// The figures as they lie in the segment.
#[repr(C, align(128))]
pub(crate) struct Table {
    figures: [AtomicU64; FIGURES],
    latency_us: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

/// The figures, for a process that maps their segment.
#[derive(Clone)]
pub struct Figures {
    segment: Keeper,
}

impl Figures {
    pub(crate) fn new(segment: Keeper) -> Figures {
        Figures { segment }
    }

    pub fn get(&self, figure: Figure) -> u64 {
        self.segment.figures().figures[figure as usize].load(Ordering::Relaxed)
    }

    pub fn add(&self, figure: Figure, more: u64) {
        self.segment.figures().figures[figure as usize].fetch_add(more, Ordering::Relaxed);
    }

    /// For gauges.
    pub fn set(&self, figure: Figure, value: u64) {
        self.segment.figures().figures[figure as usize].store(value, Ordering::Relaxed);
    }

    /// A call took so long.
    pub fn took(&self, us: u64) {
        let table = self.segment.figures();
        let at = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        table.latency[at].fetch_add(1, Ordering::Relaxed);
        table.latency_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Calls by how long they took, one number per bucket, and the sum of their times in microseconds.
    pub fn latency(&self) -> ([u64; BUCKETS], u64) {
        let table = self.segment.figures();
        let buckets = std::array::from_fn(|at| table.latency[at].load(Ordering::Relaxed));
        (buckets, table.latency_us.load(Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Figures").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Segment;
    use crate::ring::MIN_RING;

    #[test]
    fn control_sees_what_the_engine_writes() {
        let (fd, engine) = Segment::create(1, MIN_RING).unwrap();
        let (engine, control) = (engine.figures(), Segment::open(&fd).unwrap().figures());
        engine.add(Figure::Calls, 2);
        engine.add(Figure::Calls, 3);
        engine.set(Figure::ServersLost, 1);
        for us in [0, 100, 101, 204_800, 204_801, 10_000_000] {
            engine.took(us);
        }
        assert_eq!((control.get(Figure::Calls), control.get(Figure::ServersLost)), (5, 1));
        assert_eq!(control.get(Figure::Generations), 0);
        let (buckets, sum_us) = control.latency();
        assert_eq!((buckets[0], buckets[1], buckets[11], buckets[12]), (2, 1, 1, 2));
        assert_eq!(sum_us, 10_409_802);
    }
}
