//! What requests are held against: exact logs.

use std::collections::VecDeque;

/// Most of `times` (any order) within any `window`.
pub fn worst(times: &[u64], window: u64) -> usize {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let mut first = 0;
    let mut worst = 0;
    for last in 0..sorted.len() {
        while sorted[first] + window <= sorted[last] {
            first += 1;
        }
        worst = worst.max(last + 1 - first);
    }
    worst
}

/// How many of `arrivals` (ascending) an exact limiter admits between `from` and `to`.
pub fn ideal(arrivals: &[u64], limit: usize, window: u64, from: u64, to: u64) -> usize {
    let mut log: VecDeque<u64> = VecDeque::new();
    let mut count = 0;
    for &at in arrivals {
        while log.front().is_some_and(|first| first + window <= at) {
            log.pop_front();
        }
        if log.len() < limit {
            log.push_back(at);
            count += usize::from((from..to).contains(&at));
        }
    }
    count
}

#[test]
fn what_the_checks_say() {
    assert_eq!(worst(&[0, 10, 5, 20], 10), 2);
    assert_eq!(worst(&[0, 9, 5], 10), 3);
    assert_eq!(ideal(&[0, 1, 2, 10, 11, 12], 2, 10, 0, 100), 4);
}
