//! Targets left out for a while (outlier ejection, as Envoy calls it), and their slow return.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use contract::snapshot::Outlier;
use contract::targets::Cause;

use super::tally::Tally;

/// What share of its weight a target gets as it comes back, in thousandths.
const FIRST_SHARE: u64 = 100;

/// What every shard knows of one target's ejection.
#[derive(Debug, Default)]
pub struct Ejection {
    /// Until when it is left out; once that has passed, since when it is back. 0: never out.
    until_ms: AtomicU64,
    /// How often lately.
    lately: AtomicU32,
    /// How often at all, and why.
    tally: Tally,
}

impl Ejection {
    /// Whether it is left out.
    #[inline]
    pub fn is_out(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms.load(Ordering::Relaxed)
    }

    /// The share of its weight that it gets, in thousandths; `None`: it is left out.
    #[inline]
    pub fn share(&self, settings: &Outlier, now_ms: u64) -> Option<u16> {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        if until_ms == 0 {
            return Some(1_000);
        }
        if now_ms < until_ms {
            return None;
        }
        let back_ms = now_ms - until_ms;
        let whole_ms = u64::from(settings.slow_start_ms);
        match back_ms >= whole_ms {
            true => Some(1_000),
            false => Some((FIRST_SHARE + (1_000 - FIRST_SHARE) * back_ms / whole_ms) as u16),
        }
    }

    /// How often it was left out, and why.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Leaves it out, longer each time that it happens again soon. `false`: it is out already. For
    /// one caller at a time.
    pub fn eject(&self, cause: Cause, settings: &Outlier, now_ms: u64) -> bool {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        if now_ms < until_ms {
            return false;
        }
        let base_ms = u64::from(settings.base_ejection_ms.max(1));
        // Each time as long as an ejection without one makes up for one.
        let good = u32::try_from((now_ms - until_ms) / base_ms).unwrap_or(u32::MAX);
        let lately = self.lately.load(Ordering::Relaxed).saturating_sub(good).saturating_add(1);
        self.lately.store(lately, Ordering::Relaxed);
        let out_ms =
            base_ms.saturating_mul(lately.into()).min(settings.max_ejection_ms.max(1).into());
        self.tally.count(cause);
        self.until_ms.store(now_ms + out_ms, Ordering::Relaxed);
        true
    }

    /// It is known to be well again, by a check: it comes back now, slowly.
    pub fn readmit(&self, now_ms: u64) {
        let earlier = |until_ms: u64| (until_ms > now_ms).then_some(now_ms);
        let _ = self.until_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earlier);
    }

    /// It was down, and comes back slowly.
    pub fn come_back(&self, now_ms: u64) {
        self.until_ms.store(now_ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> Outlier {
        Outlier {
            base_ejection_ms: 1_000,
            max_ejection_ms: 3_500,
            slow_start_ms: 500,
            ..Outlier::default()
        }
    }

    /// Ejects, and says how long it lasts.
    fn eject(ejection: &Ejection, now_ms: u64) -> u64 {
        assert!(ejection.eject(Cause::Consecutive5xx, &settings(), now_ms));
        assert!(!ejection.eject(Cause::Consecutive5xx, &settings(), now_ms), "once");
        (0..).find(|ms| !ejection.is_out(now_ms + ms)).unwrap()
    }

    #[test]
    fn ejections_grow_and_are_forgotten() {
        let ejection = Ejection::default();
        assert_eq!(eject(&ejection, 10_000), 1_000);
        assert_eq!(eject(&ejection, 11_999), 2_000);
        assert_eq!(eject(&ejection, 14_500), 3_000);
        assert_eq!(eject(&ejection, 18_000), 3_500, "at most");
        assert_eq!(eject(&ejection, 25_000), 2_000, "three good ones make up for three");
        assert_eq!(ejection.tally().of(Cause::Consecutive5xx), 5);
        assert_eq!((ejection.tally().all(), ejection.tally().last()), (5, Cause::Consecutive5xx));
    }

    #[test]
    fn it_comes_back_slowly() {
        let ejection = Ejection::default();
        assert_eq!(ejection.share(&settings(), 5), Some(1_000));
        eject(&ejection, 10_000);
        assert_eq!(ejection.share(&settings(), 10_999), None);
        assert_eq!(ejection.share(&settings(), 11_000), Some(100));
        assert_eq!(ejection.share(&settings(), 11_250), Some(550));
        assert_eq!(ejection.share(&settings(), 11_500), Some(1_000));
        eject(&ejection, 12_000);
        ejection.readmit(12_100);
        assert_eq!(ejection.share(&settings(), 12_100), Some(100), "a check has found it well");
        ejection.readmit(12_300);
        assert_eq!(ejection.share(&settings(), 12_600), Some(1_000), "it was back already");
    }

    proptest! {
        #[test]
        fn shares_grow(ms in 0u64..2_000) {
            let ejection = Ejection::default();
            ejection.come_back(100);
            let (now, next) = (ejection.share(&settings(), 100 + ms), ejection.share(&settings(), 101 + ms));
            prop_assert!(now <= next && now >= Some(100) && next <= Some(1_000));
        }
    }
}
