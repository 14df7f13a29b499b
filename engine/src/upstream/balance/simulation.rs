//! Balancers over queues: targets that take time, and a clock that jumps from event to event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use contract::snapshot::{Balance, HashKey};

use super::tests::{Targets, Words, plain};
use crate::upstream::selection::Fleet;

/// What came of a run.
struct Outcome {
    /// Requests by target.
    counts: Vec<usize>,
    /// Of all requests, in ascending order; in microseconds.
    latencies: Vec<u64>,
}

impl Outcome {
    fn share(&self, at: usize) -> f64 {
        self.counts[at] as f64 / self.latencies.len() as f64
    }

    fn quantile_us(&self, of: f64) -> u64 {
        self.latencies[((self.latencies.len() - 1) as f64 * of) as usize]
    }
}

/// Sends requests at random times, `gap_us` apart on the average, to targets that serve one after
/// the other and take `service_us` for each.
fn run(balance: Balance, service_us: &[u64], gap_us: u64) -> Outcome {
    const REQUESTS: usize = 20_000;
    let count = service_us.len();
    let mut balancer = plain(balance, &vec![1; count]);
    let mut fleet = Targets::idle(count);
    let mut words = Words(5);
    let (mut counts, mut latencies) = (vec![0; count], Vec::new());
    // When each target is through with what it has.
    let mut free_us = vec![0; count];
    let mut under_way = BinaryHeap::new();
    let mut now_us = 0;
    while latencies.len() < REQUESTS {
        now_us += words.next() % (2 * gap_us);
        while let Some(&Reverse((end_us, at, start_us))) = under_way.peek()
            && end_us <= now_us
        {
            under_way.pop();
            let latency_us: u64 = end_us - start_us;
            latencies.push(latency_us);
            fleet.in_flight[at] -= 1;
            // A moving average as the state keeps it: up at once, down slowly.
            let (known, seen) = (u64::from(fleet.latency_us[at]), latency_us);
            fleet.latency_us[at] = if seen > known { seen } else { (known * 7 + seen) / 8 } as u32;
        }
        let at = balancer.pick(&fleet, &words.ask()).unwrap();
        counts[at] += 1;
        fleet.in_flight[at] += 1;
        free_us[at] = now_us.max(free_us[at]) + service_us[at];
        under_way.push(Reverse((free_us[at], at, now_us)));
    }
    let left: usize = under_way.len();
    assert_eq!(fleet.total_in_flight() as usize, left);
    latencies.sort_unstable();
    Outcome { counts, latencies }
}

#[test]
fn two_choices_keep_queues_short() {
    // Four alike at four fifths of what they can do: random picks would queue for long.
    let service_us = [4_000; 4];
    let two = run(Balance::PowerOfTwo, &service_us, 1_250);
    let hashed = Balance::Hash { key: HashKey::ClientIp, load_percent: 1_000 };
    let random = run(hashed, &service_us, 1_250);
    assert!(two.quantile_us(0.99) * 2 < random.quantile_us(0.99));
    for at in 0..4 {
        assert!((0.22..0.28).contains(&two.share(at)), "{:?}", two.counts);
    }
}

#[test]
fn two_choices_send_little_to_the_slow_one() {
    // One of eight takes twenty times as long. In turns, one request in eight would be slow.
    let mut service_us = [2_000; 8];
    service_us[5] = 40_000;
    let two = run(Balance::PowerOfTwo, &service_us, 500);
    assert!(two.share(5) < 0.01, "{:?}", two.counts);
    assert!(two.quantile_us(0.98) < 20_000);
    for at in [0, 1, 2, 3, 4, 6, 7] {
        assert!((0.1..0.18).contains(&two.share(at)), "{:?}", two.counts);
    }
}

#[test]
fn bounded_loads_keep_queues_short() {
    // At four fifths of what they can do, keys alone overload the targets with more of them.
    let service_us = [4_000; 4];
    let run = |load_percent| {
        run(Balance::Hash { key: HashKey::ClientIp, load_percent }, &service_us, 1_250)
    };
    assert!(run(125).quantile_us(0.99) < run(1_000).quantile_us(0.99));
}
