//! A bound on requests in flight that finds itself: Netflix's gradient ("Performance Under Load",
//! 2018; `concurrency-limits`, `GradientLimit`), over all shards.
//!
//! Where latencies rise above their least, work queues at the upstream, and the bound falls in
//! proportion. While they do not, and the bound is made use of, it grows by its square root: that much
//! of a queue is what it takes to find out.

use std::sync::atomic::{AtomicU32, Ordering};

use contract::snapshot::AdaptiveConcurrency;

/// Latencies are judged this often by each shard, in milliseconds...
const SAMPLE_MS: u64 = 100;
/// ...if there were this many.
const FEW: u32 = 10;
/// How much of a new bound is taken over at once.
const SMOOTHING: f32 = 0.2;
/// How much of the way the least latency goes towards the present one, per sample. So what has become
/// slower for good is accepted after a minute or so.
const DRIFT: f32 = 1.0 / 512.0;

/// What all shards share.
#[derive(Debug, Default)]
pub struct Adaptive {
    /// The bound as bits of an `f32`; 0: not begun.
    limit: AtomicU32,
    /// The least latency in microseconds, as bits of an `f32`; 0: not known.
    least: AtomicU32,
}

/// What a shard has seen since it judged last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    count: u32,
    sum_us: u64,
    busiest: u32,
    since_ms: u64,
}

impl Adaptive {
    /// Requests that may be in flight on the node.
    #[inline]
    pub fn limit(&self, settings: &AdaptiveConcurrency) -> u32 {
        let limit = f32::from_bits(self.limit.load(Ordering::Relaxed));
        match limit > 0.0 {
            true => {
                let (min, max) = bounds(settings);
                (limit as u32).clamp(min, max)
            }
            // It begins where nobody is refused without need, and comes down if it must.
            false => start(settings) as u32,
        }
    }

    /// Whether a request that failed after so long says anything. One that failed at once does not: a
    /// connection that is refused is no sign of how fast an upstream can be, and what were fast
    /// answers before would look slow beside it. One that failed late took this long at least.
    pub fn heeds_failure(&self, latency_us: u32) -> bool {
        let least = f32::from_bits(self.least.load(Ordering::Relaxed));
        least > 0.0 && latency_us as f32 >= least
    }

    /// Takes a request's latency; `active` requests were in flight then. Shards may overwrite each
    /// other's judgement: the next ones follow soon.
    pub fn note(
        &self,
        sample: &mut Sample,
        latency_us: u32,
        active: u32,
        settings: &AdaptiveConcurrency,
        now_ms: u64,
    ) {
        sample.count += 1;
        sample.sum_us += u64::from(latency_us);
        sample.busiest = sample.busiest.max(active);
        if sample.since_ms == 0 {
            sample.since_ms = now_ms;
        }
        if now_ms.saturating_sub(sample.since_ms) < SAMPLE_MS || sample.count < FEW {
            return;
        }
        let short = (sample.sum_us as f32 / sample.count as f32).max(1.0);
        let busiest = sample.busiest;
        *sample = Sample { since_ms: now_ms, ..Sample::default() };
        self.judge(short, busiest, settings);
    }

    fn judge(&self, short: f32, busiest: u32, settings: &AdaptiveConcurrency) {
        let least = f32::from_bits(self.least.load(Ordering::Relaxed));
        let least = match least > 0.0 && short > least {
            true => least + (short - least) * DRIFT,
            false => short,
        };
        self.least.store(least.to_bits(), Ordering::Relaxed);
        let known = f32::from_bits(self.limit.load(Ordering::Relaxed));
        let limit = if known > 0.0 { known } else { start(settings) };
        let tolerated = 1.0 + settings.tolerance_percent as f32 / 100.0;
        let gradient = (tolerated * least / short).clamp(0.5, 1.0);
        // A bound that is not reached says nothing of what lies beyond.
        if gradient >= 1.0 && (busiest as f32) < limit / 2.0 {
            return;
        }
        let wanted = limit * gradient + limit.sqrt();
        let next = limit + (wanted - limit) * SMOOTHING;
        let (min, max) = bounds(settings);
        self.limit.store(next.clamp(min as f32, max as f32).to_bits(), Ordering::Relaxed);
    }
}

fn start(settings: &AdaptiveConcurrency) -> f32 {
    let (min, max) = bounds(settings);
    200u32.clamp(min, max) as f32
}

/// In order, whatever a plan says.
fn bounds(settings: &AdaptiveConcurrency) -> (u32, u32) {
    let min = settings.min.max(1);
    (min, settings.max.max(min))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: AdaptiveConcurrency =
        AdaptiveConcurrency { min: 8, max: 1_000, tolerance_percent: 50 };

    /// An upstream that does `able` requests at once in 10 ms each and queues the rest, kept as busy
    /// as the bound allows, for `ms`.
    fn run(adaptive: &Adaptive, able: u32, wanted: u32, from_ms: u64, ms: u64) -> u64 {
        let mut sample = Sample::default();
        let mut now_ms = from_ms;
        while now_ms < from_ms + ms {
            now_ms += 10;
            let active = adaptive.limit(&SETTINGS).min(wanted);
            let queued = (active as f32 / able as f32).max(1.0);
            for _ in 0..20 {
                adaptive.note(&mut sample, (10_000.0 * queued) as u32, active, &SETTINGS, now_ms);
            }
        }
        now_ms
    }

    #[test]
    fn it_falls_to_what_the_upstream_bears_and_recovers() {
        let adaptive = Adaptive::default();
        assert_eq!(adaptive.limit(&SETTINGS), 200);
        let now_ms = run(&adaptive, 300, 150, 0, 2_000);
        assert!(adaptive.limit(&SETTINGS) >= 200, "nothing was slow");
        let now_ms = run(&adaptive, 40, 500, now_ms, 10_000);
        let fallen = adaptive.limit(&SETTINGS);
        assert!((20..120).contains(&fallen), "{fallen}");
        run(&adaptive, 300, 500, now_ms, 10_000);
        let risen = adaptive.limit(&SETTINGS);
        assert!(risen > 250, "{risen}");
    }

    #[test]
    fn quick_failures_are_no_measure() {
        let adaptive = Adaptive::default();
        assert!(!adaptive.heeds_failure(1_000_000), "nothing is known yet");
        run(&adaptive, 300, 150, 0, 2_000);
        assert!(!adaptive.heeds_failure(100));
        assert!(adaptive.heeds_failure(500_000));
    }

    proptest! {
        #[test]
        fn it_stays_in_its_bounds(
            requests in proptest::collection::vec((1u32..10_000_000, 0u32..2_000, 0u64..300), 1..2_000),
        ) {
            let (adaptive, mut sample, mut now_ms) = (Adaptive::default(), Sample::default(), 1);
            for (latency_us, active, pause_ms) in requests {
                now_ms += pause_ms;
                adaptive.note(&mut sample, latency_us, active, &SETTINGS, now_ms);
                let limit = adaptive.limit(&SETTINGS);
                prop_assert!((SETTINGS.min..=SETTINGS.max).contains(&limit));
            }
        }
    }
}
