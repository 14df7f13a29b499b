//! What a log of arrivals says about a limit: whether it was ever exceeded, and how much of it was
//! left unused.

use std::collections::VecDeque;

/// The most arrivals in any half-open time of length `window`, and when the first of these was.
/// `arrivals` are in order.
pub fn worst_window(arrivals: &[u64], window: u64) -> (usize, u64) {
    debug_assert!(arrivals.is_sorted());
    let (mut most, mut at, mut first) = (0, 0, 0);
    for (last, &arrival) in arrivals.iter().enumerate() {
        while arrival - arrivals[first] >= window {
            first += 1;
        }
        if last - first + 1 > most {
            (most, at) = (last - first + 1, arrivals[first]);
        }
    }
    (most, at)
}

/// How many arrivals beyond `limit` the worst window has.
pub fn over(arrivals: &[u64], limit: usize, window: u64) -> usize {
    worst_window(arrivals, window).0.saturating_sub(limit)
}

/// How many of `offered` an exact sliding log would admit: whatever comes while fewer than `limit`
/// were admitted within the last `window`. No way of admitting can admit more. `before` was admitted
/// already. Both are in order.
pub fn ideal(before: &[u64], offered: &[u64], limit: usize, window: u64) -> usize {
    debug_assert!(before.is_sorted() && offered.is_sorted());
    let mut inside: VecDeque<u64> = before.iter().copied().collect();
    let mut admitted = 0;
    for &at in offered {
        while inside.front().is_some_and(|&first| at.saturating_sub(first) >= window) {
            inside.pop_front();
        }
        if inside.len() < limit {
            inside.push_back(at);
            admitted += 1;
        }
    }
    admitted
}

/// What was admitted, beside what could have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    pub admitted: usize,
    /// By an exact sliding log.
    pub ideal: usize,
    /// By one whose window is longer by a hundredth (and 5 ms, which is what a busy machine takes to run
    /// a thread). With few tokens, whatever is late by a moment makes the next one late, too: a request a
    /// millisecond before its token is back is refused, and the token waits for the one after it.
    pub near: usize,
}

/// Judges `from..to`; the logs may hold more than that.
pub fn used(
    offered: &[u64],
    arrivals: &[u64],
    limit: usize,
    window: u64,
    from: u64,
    to: u64,
) -> Use {
    let within = |times: &[u64], from: u64, to: u64| -> Vec<u64> {
        times.iter().copied().filter(|at| (from..to).contains(at)).collect()
    };
    let offered = within(offered, from, to);
    let late = window + window / 100 + 5 * super::MS;
    let before = |window: u64| within(arrivals, from.saturating_sub(window), from);
    Use {
        admitted: within(arrivals, from, to).len(),
        ideal: ideal(&before(window), &offered, limit, window),
        near: ideal(&before(late), &offered, limit, late),
    }
}

impl Use {
    /// What was left unused beyond what may be, in requests: a hundredth at limits of 100 and more,
    /// one request below. A request more, as both ends cut through what is under way.
    pub fn wasted(self, limit: usize) -> usize {
        if limit >= 100 {
            self.ideal.saturating_sub(self.admitted + self.ideal.div_ceil(100) + 1)
        } else {
            self.near.saturating_sub(self.admitted + 2)
        }
    }

    /// Of what could have been admitted, in percent.
    pub fn under_percent(self) -> f64 {
        match self.ideal {
            0 => 0.0,
            ideal => 100.0 * ideal.saturating_sub(self.admitted) as f64 / ideal as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive_worst(arrivals: &[u64], window: u64) -> usize {
        let inside =
            |from: u64| arrivals.iter().filter(|&&at| at >= from && at < from + window).count();
        arrivals.iter().map(|&from| inside(from)).max().unwrap_or(0)
    }

    /// The most that any choice among `offered` can have, all tried.
    fn naive_most(offered: &[u64], limit: usize, window: u64) -> usize {
        (0u32..1 << offered.len())
            .filter(|choice| {
                let chosen: Vec<u64> = (0..offered.len())
                    .filter(|n| choice >> n & 1 == 1)
                    .map(|n| offered[n])
                    .collect();
                naive_worst(&chosen, window) <= limit
            })
            .map(u32::count_ones)
            .max()
            .unwrap_or(0) as usize
    }

    fn times(most: usize) -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(0u64..60, 0..=most).prop_map(|mut times| {
            times.sort_unstable();
            times
        })
    }

    proptest! {
        #[test]
        fn two_pointers_find_what_a_look_at_each_window_finds(
            arrivals in times(40),
            window in 1u64..30,
        ) {
            let (most, at) = worst_window(&arrivals, window);
            prop_assert_eq!(most, naive_worst(&arrivals, window));
            let there = arrivals.iter().filter(|&&one| one >= at && one < at + window).count();
            prop_assert!(most == 0 || there == most, "{} at {}", there, at);
        }

        #[test]
        fn the_ideal_is_never_over_and_nothing_is_better(
            offered in times(10),
            limit in 1usize..5,
            window in 1u64..30,
        ) {
            prop_assert_eq!(ideal(&[], &offered, limit, window), naive_most(&offered, limit, window));
        }

        #[test]
        fn who_loses_requests_is_seen(
            offered in times(40),
            limit in 1usize..5,
            window in 1u64..30,
            cut in 0u64..60,
        ) {
            // Admitted as the ideal does, and then judged in two parts.
            let mut arrivals: Vec<u64> = Vec::new();
            for &at in &offered {
                let inside = arrivals.iter().filter(|&&one| at - one < window).count();
                if inside < limit {
                    arrivals.push(at);
                }
            }
            prop_assert_eq!(over(&arrivals, limit, window), 0);
            for (from, to) in [(0, cut), (cut, 60), (0, 60)] {
                let used = used(&offered, &arrivals, limit, window, from, to);
                prop_assert_eq!(used.admitted, used.ideal);
                prop_assert_eq!(used.wasted(limit), 0);
                prop_assert_eq!(used.under_percent(), 0.0);
            }
        }
    }

    #[test]
    fn edges_are_half_open() {
        assert_eq!(worst_window(&[], 10), (0, 0));
        assert_eq!(worst_window(&[0, 10], 10), (1, 0));
        assert_eq!(worst_window(&[0, 9, 10, 18], 10), (3, 9));
        assert_eq!(over(&[1, 1, 1], 2, 5), 1);
        assert_eq!(ideal(&[], &[0, 9, 10, 11], 1, 10), 2);
        assert_eq!(ideal(&[5], &[9, 14, 15, 16], 1, 10), 1);
    }

    #[test]
    fn waste_is_judged_by_the_size_of_the_limit() {
        let wide = |admitted| Use { admitted, ideal: 1_000, near: 990 };
        assert_eq!(wide(989).wasted(100), 0);
        assert_eq!(wide(980).wasted(100), 9);
        let narrow = |admitted| Use { admitted, ideal: 50, near: 40 };
        assert_eq!(narrow(38).wasted(10), 0);
        assert_eq!(narrow(30).wasted(10), 8);
    }
}
