//! What a node serves during a trial.

use contract::record::Record;
use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Durations are told apart up to this, in microseconds; longer ones count as this long.
const MAX_US: u64 = 60_000_000;

/// Two digits: what is told to the store stays small.
const DIGITS: u8 = 2;

/// Counts the requests of a trial on this node.
pub struct Meter {
    /// The revision on trial.
    pub revision: u64,
    /// Requests of earlier epochs were begun before the trial.
    pub since_epoch: u64,
    requests: u64,
    errors: u64,
    durations: Histogram<u64>,
}

/// What a [`Meter`] has counted, to be told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tally {
    /// The revision on trial.
    pub revision: u64,
    pub requests: u64,
    /// Of `requests`, those answered with 5xx.
    pub errors: u64,
    /// Durations in microseconds with how often each was seen, to two digits, ascending.
    pub durations: Vec<(u64, u64)>,
}

impl Meter {
    /// `None` never: the bounds are right. But no bound of ours may end the process.
    pub fn new(revision: u64, since_epoch: u64) -> Option<Meter> {
        let durations = Histogram::new_with_max(MAX_US, DIGITS).ok()?;
        Some(Meter { revision, since_epoch, requests: 0, errors: 0, durations })
    }

    pub fn count(&mut self, record: &Record<'_>) {
        if record.epoch < self.since_epoch {
            return;
        }
        self.requests += 1;
        self.errors += u64::from((500..600).contains(&record.status));
        self.durations.saturating_record(u64::from(record.duration_us).clamp(1, MAX_US));
    }

    pub fn tally(&self) -> Tally {
        let durations = self.durations.iter_recorded();
        Tally {
            revision: self.revision,
            requests: self.requests,
            errors: self.errors,
            durations: durations
                .map(|one| (one.value_iterated_to(), one.count_at_value()))
                .collect(),
        }
    }
}

impl Tally {
    pub fn of(revision: u64) -> Tally {
        Tally { revision, ..Tally::default() }
    }

    /// Adds what another node has counted.
    pub fn add(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.durations.extend(&other.durations);
        self.durations.sort_unstable();
    }

    /// The duration that the share `quantile` (0.0 to 1.0) of the requests did not exceed.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let all: u64 = self.durations.iter().map(|(_, count)| count).sum();
        let wanted = ((all as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        self.durations.iter().find_map(|(value, count)| {
            seen += count;
            (seen >= wanted).then_some(*value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_go_over_all_nodes() {
        let tally = |durations: &[(u64, u64)]| Tally {
            revision: 1,
            requests: durations.iter().map(|one| one.1).sum(),
            errors: 1,
            durations: durations.to_vec(),
        };
        let mut sum = Tally::of(1);
        assert_eq!(sum.quantile_us(0.99), None);
        sum.add(&tally(&[(10, 90), (1_000, 1)]));
        sum.add(&tally(&[(5, 7), (900, 2)]));
        assert_eq!((sum.requests, sum.errors), (100, 2));
        assert_eq!(sum.quantile_us(0.0), Some(5));
        assert_eq!(sum.quantile_us(0.5), Some(10));
        assert_eq!(sum.quantile_us(0.99), Some(900));
        assert_eq!(sum.quantile_us(1.0), Some(1_000));
    }
}
