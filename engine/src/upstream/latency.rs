//! How long targets take, as one shard sees it.

/// How fast a peak is forgotten, in microseconds.
const DECAY_US: f32 = 10_000_000.0;

/// A moving average that follows a peak at once and falls over 10 s ("peak EWMA", as Finagle's
/// balancer has it). It falls without requests, too: else a target that was slow once would never be
/// asked again.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakEwma {
    us: f32,
    at_ms: u64,
}

impl PeakEwma {
    pub fn observe(&mut self, latency_us: u32, now_ms: u64) {
        let latency = latency_us as f32;
        let kept = self.kept(now_ms);
        self.us = match latency > self.us * kept {
            true => latency,
            false => latency + (self.us - latency) * kept,
        };
        self.at_ms = now_ms;
    }

    /// In microseconds; 0: nothing was seen yet.
    #[inline]
    pub fn now_us(&self, now_ms: u64) -> u32 {
        (self.us * self.kept(now_ms)) as u32
    }

    /// What is left after the time since: 1/(1+t), near enough to an exponential and cheaper.
    #[inline]
    fn kept(&self, now_ms: u64) -> f32 {
        let since_us = now_ms.saturating_sub(self.at_ms) as f32 * 1_000.0;
        DECAY_US / (DECAY_US + since_us)
    }
}

/// Recent latencies of one upstream: powers of two, each in eight steps, so that a quantile is off by
/// an eighth at most. Old ones fade: at [`FULL`] all counts are halved.
#[derive(Debug)]
pub struct Histogram {
    counts: Box<[u16; STEPS]>,
    total: u32,
}

const STEPS: usize = 30 * 8;
const FULL: u32 = 4_096;
/// With fewer no quantile is told.
const FEW: u32 = 64;

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: Box::new([0; STEPS]), total: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, latency_us: u32) {
        if let Some(count) = self.counts.get_mut(step(latency_us)) {
            *count += 1;
            self.total += 1;
        }
        if self.total >= FULL {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|&count| u32::from(count)).sum();
        }
    }

    /// The latency in microseconds that so many thousandths did not pass; `None`: too few are known.
    pub fn quantile(&self, permille: u16) -> Option<u32> {
        if self.total < FEW {
            return None;
        }
        let wanted = (u64::from(self.total) * u64::from(permille.min(1_000))).div_ceil(1_000);
        let mut seen = 0;
        let at = self.counts.iter().position(|&count| {
            seen += u64::from(count);
            seen >= wanted.max(1)
        })?;
        Some(upper(at))
    }
}

/// Below 8 each value has a step of its own; above, each power of two has eight.
fn step(latency_us: u32) -> usize {
    if latency_us < 8 {
        return latency_us as usize;
    }
    let power = latency_us.ilog2();
    let eighth = (latency_us >> (power - 3)) & 7;
    ((power - 2) * 8 + eighth) as usize
}

/// The largest value of a step.
fn upper(step: usize) -> u32 {
    let (power, eighth) = (step as u32 / 8, step as u32 % 8);
    match power {
        0 => eighth,
        _ => ((u64::from(eighth + 9) << (power - 1)) - 1).min(u32::MAX.into()) as u32,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let mut ewma = PeakEwma::default();
        assert_eq!(ewma.now_us(1_000), 0);
        ewma.observe(1_000, 1_000);
        assert_eq!(ewma.now_us(1_000), 1_000);
        ewma.observe(50_000, 1_001);
        assert_eq!(ewma.now_us(1_001), 50_000);
        assert_eq!(ewma.now_us(11_001), 25_000, "without requests, too");
        for ms in 0..30_000 {
            ewma.observe(1_000, 1_001 + ms);
        }
        assert!(ewma.now_us(31_001) < 5_000);
    }

    proptest! {
        #[test]
        fn steps_are_in_order_and_narrow(latency_us in any::<u32>()) {
            let at = step(latency_us);
            prop_assert!(at < STEPS);
            prop_assert!(upper(at) >= latency_us);
            prop_assert!(u64::from(upper(at)) <= u64::from(latency_us) * 9 / 8 + 1);
            prop_assert!(at == 0 || upper(at - 1) < latency_us);
        }

        #[test]
        fn a_quantile_is_off_by_an_eighth(
            mut latencies in proptest::collection::vec(0u32..10_000_000, 64..1_000),
            permille in 1u16..=1_000,
        ) {
            let mut histogram = Histogram::default();
            latencies.iter().for_each(|&latency| histogram.record(latency));
            latencies.sort_unstable();
            let rank = (latencies.len() * usize::from(permille)).div_ceil(1_000) - 1;
            let (right, told) = (latencies[rank], histogram.quantile(permille).unwrap());
            prop_assert!(told >= right && u64::from(told) <= u64::from(right) * 9 / 8 + 1);
        }
    }

    #[test]
    fn the_past_fades() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), None);
        (0..10_000).for_each(|_| histogram.record(1_000_000));
        (0..10_000).for_each(|_| histogram.record(100));
        assert!(histogram.quantile(700).unwrap() < 200);
    }
}
