//! A target compared with its fleet: those whose answers fail more, or take longer, than the others'.

use contract::snapshot::Outlier;
use contract::targets::Cause;

/// What one target did in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub requests: u64,
    pub errors: u64,
    pub latency_us: u64,
}

impl Totals {
    /// What came since `before`.
    pub fn since(self, before: Totals) -> Totals {
        Totals {
            requests: self.requests.wrapping_sub(before.requests),
            errors: self.errors.wrapping_sub(before.errors),
            latency_us: self.latency_us.wrapping_sub(before.latency_us),
        }
    }
}

/// Who stands out, and why. Targets with too few requests are neither judged nor counted, and fewer
/// than `min_targets` are no fleet.
pub fn outliers(fleet: &[Totals], settings: &Outlier) -> Vec<(usize, Cause)> {
    let min_requests = u64::from(settings.min_requests.max(1));
    let judged: Vec<(usize, Totals)> = fleet
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, totals)| totals.requests >= min_requests)
        .collect();
    if judged.len() < settings.min_targets.max(2) as usize {
        return Vec::new();
    }
    let rate = |totals: Totals| 1.0 - totals.errors as f64 / totals.requests as f64;
    let mean_us = |totals: Totals| totals.latency_us as f64 / totals.requests as f64;
    let count = judged.len() as f64;
    let mean = judged.iter().map(|(_, totals)| rate(*totals)).sum::<f64>() / count;
    let square = |(_, totals): &(usize, Totals)| (rate(*totals) - mean).powi(2);
    let deviation = (judged.iter().map(square).sum::<f64>() / count).sqrt();
    let least = mean - deviation * f64::from(settings.stdev_permille) / 1_000.0;
    let mut latencies: Vec<f64> = judged.iter().map(|(_, totals)| mean_us(*totals)).collect();
    latencies.sort_unstable_by(f64::total_cmp);
    let median = latencies.get((latencies.len() - 1) / 2).copied().unwrap_or_default();
    let most_us = median * f64::from(settings.latency_percent) / 100.0;
    let mut out = Vec::new();
    for (at, totals) in judged {
        if settings.stdev_permille > 0 && rate(totals) < least {
            out.push((at, Cause::SuccessRate));
        } else if settings.latency_percent > 0 && mean_us(totals) > most_us {
            out.push((at, Cause::Latency));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(requests: u64, errors: u64, mean_us: u64) -> Totals {
        Totals { requests, errors, latency_us: requests * mean_us }
    }

    #[test]
    fn the_worst_rate_stands_out() {
        let settings = Outlier::default();
        let mut fleet = vec![totals(1_000, 1, 10); 5];
        assert_eq!(outliers(&fleet, &settings), [], "all alike");
        fleet.push(totals(1_000, 300, 10));
        assert_eq!(outliers(&fleet, &settings), [(5, Cause::SuccessRate)]);
        fleet[5] = totals(99, 99, 10);
        assert_eq!(outliers(&fleet, &settings), [], "too few of its requests");
        let pair = [totals(1_000, 1, 10), totals(1_000, 900, 10)];
        assert_eq!(outliers(&pair, &settings), [], "two are no fleet");
        let off = Outlier { stdev_permille: 0, ..settings };
        fleet[5] = totals(1_000, 900, 10);
        assert_eq!(outliers(&fleet, &off), []);
    }

    #[test]
    fn the_slowest_stands_out_where_that_is_judged() {
        let mut fleet = vec![totals(500, 0, 1_000); 5];
        fleet[1] = totals(500, 0, 3_001);
        assert_eq!(outliers(&fleet, &Outlier::default()), []);
        let settings = Outlier { latency_percent: 300, ..Outlier::default() };
        assert_eq!(outliers(&fleet, &settings), [(1, Cause::Latency)]);
        fleet[1] = totals(500, 0, 3_000);
        assert_eq!(outliers(&fleet, &settings), []);
    }
}
