//! Circuit breakers (Nygard, *Release It!*): one state for all shards of a node.
//!
//! Closed, requests pass and are counted. What opens it is looked for only when something went wrong, so
//! a healthy request costs a count. Open, nothing passes until its time is over. Then it is half open:
//! so many probes pass at once, and either all succeed, or one failure opens it again.
//!
//! The state is one word: 0 is closed, [`HALF`] and above is half open with so many probes passed, and
//! anything else the time until which it is open. Every transition is a compare-and-swap on it, so
//! only one shard makes it, and no probe counts for a trial that began anew meanwhile unseen.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use contract::snapshot::Breaker;
use contract::targets::Cause;

use super::Verdict;
use super::tally::Tally;
use super::window::{Sums, Window};

const CLOSED: u64 = 0;
const HALF: u64 = 1 << 63;

/// What every shard knows of one breaker.
#[derive(Debug)]
pub struct BreakerState {
    word: AtomicU64,
    /// Probes under way.
    probes: AtomicU32,
    /// Errors in a row.
    run: AtomicU32,
    /// What was before counts no more.
    closed_ms: AtomicU64,
    /// How often it has opened, and why.
    tally: Tally,
    /// Requests that it has let through while it was half open.
    let_through: AtomicU32,
    /// By shard.
    windows: Box<[Window]>,
}

/// How a request came through. [`Pass::Probe`] is to be given back by [`BreakerState::note`] or
/// [`BreakerState::release`], once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Free,
    Probe,
    No,
}

/// As people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

impl BreakerState {
    pub fn new(shards: u16) -> BreakerState {
        BreakerState {
            word: AtomicU64::new(CLOSED),
            probes: AtomicU32::new(0),
            run: AtomicU32::new(0),
            closed_ms: AtomicU64::new(0),
            tally: Tally::default(),
            let_through: AtomicU32::new(0),
            windows: (0..shards).map(|_| Window::default()).collect(),
        }
    }

    pub fn state(&self, now_ms: u64) -> State {
        match self.word.load(Ordering::Relaxed) {
            CLOSED => State::Closed,
            until if now_ms < until && until < HALF => State::Open,
            _ => State::HalfOpen,
        }
    }

    /// How often it has opened, and why.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How many requests it has let through while it was half open.
    pub fn let_through(&self) -> u32 {
        self.let_through.load(Ordering::Relaxed)
    }

    /// Whether [`BreakerState::take`] would let a request pass now.
    #[inline]
    pub fn admits(&self, settings: &Breaker, now_ms: u64) -> bool {
        match self.word.load(Ordering::Relaxed) {
            CLOSED => true,
            HALF.. => self.probes.load(Ordering::Relaxed) < settings.probes.max(1),
            until => now_ms >= until,
        }
    }

    /// Lets a request pass, or not.
    #[inline]
    pub fn take(&self, settings: &Breaker, now_ms: u64) -> Pass {
        let word = self.word.load(Ordering::Relaxed);
        if word == CLOSED {
            return Pass::Free;
        }
        self.take_probe(word, settings, now_ms)
    }

    #[cold]
    fn take_probe(&self, word: u64, settings: &Breaker, now_ms: u64) -> Pass {
        if word < HALF {
            if now_ms < word {
                return Pass::No;
            }
            // Who comes first begins the trial; the others see it begun, or closed already.
            let begun = self.word.compare_exchange(word, HALF, Ordering::AcqRel, Ordering::Relaxed);
            match begun {
                Ok(_) | Err(HALF..) => {}
                Err(CLOSED) => return Pass::Free,
                Err(_) => return Pass::No,
            }
        }
        let most = settings.probes.max(1);
        let more = |probes: u32| (probes < most).then_some(probes + 1);
        match self.probes.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more) {
            Ok(_) => {
                self.let_through.fetch_add(1, Ordering::Relaxed);
                Pass::Probe
            }
            Err(_) => Pass::No,
        }
    }

    /// A probe ended without saying anything.
    pub fn release(&self, pass: Pass) {
        if pass == Pass::Probe {
            self.probes.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Takes how a request went that had passed.
    #[inline]
    pub fn note(
        &self,
        pass: Pass,
        verdict: Verdict,
        latency_us: u32,
        settings: &Breaker,
        shard: usize,
        now_ms: u64,
    ) {
        let error = matches!(verdict, Verdict::ServerError | Verdict::Gateway);
        let slow = settings.slow_percent > 0 && latency_us / 1_000 >= settings.slow_ms.max(1);
        if pass == Pass::Probe {
            return self.probed(verdict, error || slow, settings, now_ms);
        }
        if verdict == Verdict::Nothing || self.word.load(Ordering::Relaxed) != CLOSED {
            return;
        }
        let number = Window::number(now_ms, settings.window_ms);
        if let Some(window) = self.windows.get(shard) {
            window.note(number, error, slow);
        }
        if !error {
            if self.run.load(Ordering::Relaxed) != 0 {
                self.run.store(0, Ordering::Relaxed);
            }
            if !slow {
                return;
            }
        }
        self.judge(error, number, settings, now_ms);
    }

    #[cold]
    fn judge(&self, error: bool, number: u64, settings: &Breaker, now_ms: u64) {
        let run = match error {
            true => self.run.fetch_add(1, Ordering::Relaxed) + 1,
            false => 0,
        };
        let mut sums = Sums::default();
        let closed_ms = self.closed_ms.load(Ordering::Relaxed);
        let since = match closed_ms {
            0 => 0,
            // The rest of the bucket in which it closed would count what was before.
            closed_ms => Window::number(closed_ms, settings.window_ms) + 1,
        };
        for window in &self.windows {
            window.sum(number, since, &mut sums);
        }
        let share = |part: u64, percent: u8| {
            percent > 0
                && sums.requests >= u64::from(settings.min_requests.max(1))
                && part * 100 >= sums.requests * u64::from(percent)
        };
        let cause = if settings.consecutive > 0 && run >= settings.consecutive {
            Cause::ConsecutiveErrors
        } else if share(sums.errors, settings.error_percent) {
            Cause::ErrorRatio
        } else if share(sums.slow, settings.slow_percent) {
            Cause::SlowRatio
        } else {
            return;
        };
        self.open(CLOSED, cause, settings, now_ms);
    }

    /// `false`: it is not as it was `from`.
    fn open(&self, from: u64, cause: Cause, settings: &Breaker, now_ms: u64) -> bool {
        let until = now_ms.saturating_add(settings.open_ms.into()).clamp(1, HALF - 1);
        let opened =
            self.word.compare_exchange(from, until, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if opened {
            self.tally.count(cause);
        }
        opened
    }

    #[cold]
    fn probed(&self, verdict: Verdict, bad: bool, settings: &Breaker, now_ms: u64) {
        self.release(Pass::Probe);
        if verdict == Verdict::Nothing {
            return;
        }
        loop {
            let word = self.word.load(Ordering::Acquire);
            if word < HALF {
                // Another probe has decided it.
                return;
            }
            let passed = word - HALF + 1;
            let done = if bad {
                self.open(word, Cause::ProbeFailed, settings, now_ms)
            } else {
                let closes = passed >= u64::from(settings.probes.max(1));
                if closes {
                    // Before anyone sees it closed.
                    self.run.store(0, Ordering::Relaxed);
                    self.closed_ms.store(now_ms, Ordering::Relaxed);
                }
                let next = if closes { CLOSED } else { HALF + passed };
                let swapped =
                    self.word.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed);
                swapped.is_ok()
            };
            if done {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Breaker = Breaker {
        consecutive: 4,
        error_percent: 50,
        slow_percent: 80,
        slow_ms: 100,
        window_ms: 1_000,
        min_requests: 10,
        open_ms: 500,
        probes: 2,
    };

    fn note(breaker: &BreakerState, verdict: Verdict, latency_us: u32, now_ms: u64) {
        breaker.note(Pass::Free, verdict, latency_us, &SETTINGS, 0, now_ms);
    }

    #[test]
    fn errors_in_a_row_open_it() {
        let breaker = BreakerState::new(2);
        for _ in 0..3 {
            note(&breaker, Verdict::Gateway, 1, 1_000);
        }
        note(&breaker, Verdict::Good, 1, 1_000);
        for _ in 0..3 {
            note(&breaker, Verdict::ServerError, 1, 1_000);
        }
        note(&breaker, Verdict::Nothing, 1, 1_000);
        assert_eq!(breaker.take(&SETTINGS, 1_000), Pass::Free);
        // Another shard sees the fourth.
        breaker.note(Pass::Free, Verdict::Gateway, 1, &SETTINGS, 1, 1_000);
        assert_eq!(breaker.state(1_000), State::Open);
        assert_eq!(breaker.take(&SETTINGS, 1_499), Pass::No);
        assert!(!breaker.admits(&SETTINGS, 1_499));
        assert_eq!(breaker.tally().of(Cause::ConsecutiveErrors), 1);
        assert_eq!((breaker.tally().all(), breaker.tally().last()), (1, Cause::ConsecutiveErrors));
    }

    #[test]
    fn shares_of_the_window_open_it_over_all_shards() {
        for (verdict, latency_us, cause) in [
            (Verdict::ServerError, 1, Cause::ErrorRatio),
            (Verdict::Good, 100_000, Cause::SlowRatio),
        ] {
            let breaker = BreakerState::new(2);
            let settings = Breaker { consecutive: 0, slow_percent: 50, ..SETTINGS };
            let mut now_ms = 10_000;
            for turn in 0..4 {
                breaker.note(Pass::Free, verdict, latency_us, &settings, turn % 2, now_ms);
                breaker.note(Pass::Free, Verdict::Good, 1, &settings, turn % 2, now_ms);
                now_ms += 50;
            }
            assert_eq!(breaker.state(now_ms), State::Closed, "8 are too few");
            breaker.note(Pass::Free, Verdict::Good, 1, &settings, 0, now_ms);
            breaker.note(Pass::Free, verdict, latency_us, &settings, 1, now_ms);
            assert_eq!((breaker.state(now_ms), breaker.tally().last()), (State::Open, cause));
        }
    }

    #[test]
    fn probes_close_it_or_open_it_again() {
        let breaker = BreakerState::new(1);
        (0..4).for_each(|_| note(&breaker, Verdict::Gateway, 1, 1_000));
        assert_eq!(breaker.state(1_500), State::HalfOpen);
        assert_eq!(breaker.take(&SETTINGS, 1_500), Pass::Probe);
        assert_eq!(breaker.take(&SETTINGS, 1_500), Pass::Probe);
        assert_eq!(breaker.take(&SETTINGS, 1_500), Pass::No, "two at once");
        breaker.release(Pass::Probe);
        assert_eq!(breaker.take(&SETTINGS, 1_500), Pass::Probe);
        breaker.note(Pass::Probe, Verdict::Good, 1, &SETTINGS, 0, 1_500);
        breaker.note(Pass::Probe, Verdict::Gateway, 1, &SETTINGS, 0, 1_510);
        assert_eq!(breaker.take(&SETTINGS, 2_009), Pass::No);
        assert_eq!((breaker.tally().all(), breaker.tally().last()), (2, Cause::ProbeFailed));
        assert_eq!(breaker.let_through(), 3);
        for _ in 0..2 {
            assert_eq!(breaker.take(&SETTINGS, 2_010), Pass::Probe);
            breaker.note(Pass::Probe, Verdict::Good, 1, &SETTINGS, 0, 2_010);
        }
        assert_eq!(breaker.take(&SETTINGS, 2_010), Pass::Free);
        // What was before it closed is forgotten.
        (0..3).for_each(|_| note(&breaker, Verdict::Gateway, 1, 2_020));
        assert_eq!(breaker.state(2_020), State::Closed);
    }

    proptest! {
        /// Whatever the shards do: never more probes than allowed, and none is lost.
        #[test]
        fn probes_are_bounded_and_returned(steps in proptest::collection::vec((0u8..6, 0u64..300), 1..400)) {
            let breaker = BreakerState::new(2);
            let (mut now_ms, mut out) = (1_000u64, 0u32);
            for (step, pause_ms) in steps {
                now_ms += pause_ms;
                match step {
                    0 | 1 => match breaker.take(&SETTINGS, now_ms) {
                        Pass::Probe => out += 1,
                        Pass::Free => note(&breaker, Verdict::Gateway, 1, now_ms),
                        Pass::No => {}
                    },
                    _ if out == 0 => {}
                    2 => {
                        breaker.release(Pass::Probe);
                        out -= 1;
                    }
                    verdict => {
                        let verdict = [Verdict::Good, Verdict::Gateway, Verdict::Nothing]
                            [usize::from(verdict) - 3];
                        breaker.note(Pass::Probe, verdict, 1, &SETTINGS, 1, now_ms);
                        out -= 1;
                    }
                }
                prop_assert_eq!(breaker.probes.load(Ordering::Relaxed), out);
                prop_assert!(out <= SETTINGS.probes);
            }
        }
    }
}
