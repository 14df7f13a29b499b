//! When requests are meant to start. With a fixed rate every request has an intended start that
//! does not depend on how earlier ones fared, and its latency is counted from there; so a server
//! that stalls pays for every request that would have been sent meanwhile ("coordinated
//! omission" is what it is called when it does not).

/// The intended starts of all connections at `rate` requests a second in total. Connection `k`
/// of `connections` starts its `n`-th request at `(n × connections + k) / rate` seconds: the
/// whole is an even stream, and each connection has an even schedule of its own.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    rate: u64,
    connections: u64,
}

impl Schedule {
    /// Both must be above zero; `rate` is in requests a second.
    pub fn new(rate: u64, connections: u64) -> Self {
        assert!(rate > 0 && connections > 0, "a schedule needs a rate and a connection");
        Self { rate, connections }
    }

    /// The intended start of request `n` of connection `k`, in ns since the start of the run.
    pub fn start_ns(&self, k: u64, n: u64) -> u64 {
        let slot = u128::from(n) * u128::from(self.connections) + u128::from(k);
        (slot * 1_000_000_000 / u128::from(self.rate)) as u64
    }
}

/// Walks the intended starts of one thread's connections in the order of time. The thread has
/// the connections `thread`, `thread + threads`, …
#[derive(Debug)]
pub struct Due {
    schedule: Schedule,
    thread: u64,
    threads: u64,
    mine: u64,
    /// The next to start: its place among this thread's connections, and its number there.
    at: u64,
    n: u64,
    next_ns: u64,
}

impl Due {
    /// `mine` is the number of connections that this thread has.
    pub fn new(schedule: Schedule, thread: u64, threads: u64, mine: u64) -> Self {
        let next_ns = schedule.start_ns(thread, 0);
        Self { schedule, thread, threads, mine, at: 0, n: 0, next_ns }
    }

    /// The time of the next start, in ns since the start of the run.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Takes the next start if it is due: the place of its connection in this thread.
    pub fn pop(&mut self, now_ns: u64) -> Option<usize> {
        if self.mine == 0 || self.next_ns > now_ns {
            return None;
        }
        let place = self.at as usize;
        self.at += 1;
        if self.at == self.mine {
            self.at = 0;
            self.n += 1;
        }
        self.next_ns = self.start_ns(self.at as usize, self.n);
        Some(place)
    }

    /// The intended start of request `n` of the connection at `place`, in ns.
    pub fn start_ns(&self, place: usize, n: u64) -> u64 {
        self.schedule.start_ns(self.thread + place as u64 * self.threads, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_an_even_stream() {
        let schedule = Schedule::new(1_000, 4);
        let mut starts: Vec<u64> =
            (0..4).flat_map(|k| (0..3).map(move |n| schedule.start_ns(k, n))).collect();
        starts.sort_unstable();
        let even: Vec<u64> = (0..12).map(|slot| slot * 1_000_000).collect();
        assert_eq!(starts, even);
    }

    #[test]
    fn no_drift_after_a_long_run() {
        let schedule = Schedule::new(7, 3);
        // 7 requests a second: request 7 × 1e6 of the stream starts at exactly 1e6 seconds.
        let (n, k) = (7_000_000 / 3, 7_000_000 % 3);
        assert_eq!(schedule.start_ns(k, n), 1_000_000 * 1_000_000_000);
    }

    #[test]
    fn threads_share_the_stream_without_gap_or_overlap() {
        let schedule = Schedule::new(500, 5);
        let mut seen = Vec::new();
        for (thread, mine) in [(0, 3), (1, 2)] {
            let mut due = Due::new(schedule, thread, 2, mine);
            let mut last = 0;
            while due.next_ns() < 100_000_000 {
                let start = due.next_ns();
                assert!(start >= last, "in the order of time");
                last = start;
                assert!(due.pop(start).is_some());
                seen.push(start);
            }
        }
        seen.sort_unstable();
        let even: Vec<u64> = (0..50).map(|slot| slot * 2_000_000).collect();
        assert_eq!(seen, even);
    }

    #[test]
    fn nothing_is_due_early() {
        let mut due = Due::new(Schedule::new(10, 1), 0, 1, 1);
        assert_eq!(due.pop(0), Some(0));
        assert_eq!(due.pop(99_999_999), None);
        assert_eq!(due.pop(100_000_000), Some(0));
        assert_eq!(due.start_ns(0, 2), 200_000_000);
    }

    #[test]
    fn a_thread_without_connections_has_nothing_due() {
        assert_eq!(Due::new(Schedule::new(10, 1), 1, 2, 0).pop(u64::MAX), None);
    }
}
