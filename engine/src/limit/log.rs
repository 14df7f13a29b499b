//! What was spent of one bucket, and when: a sliding log, by slots.

use thin_vec::ThinVec;

use super::rule::Span;

/// What was spent and still counts. Its memory follows what happened, not the window: an entry per slot in
/// which something was spent.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Slot and tokens, ascending. Thin, as most keys have none or one at a time.
    slots: ThinVec<(u64, u64)>,
    used: u64,
    /// The latest time that was seen: a clock that goes back stands still here.
    seen_ms: u64,
}

impl Log {
    /// Forgets what has left the window by `now_ms`. Returns the time that this log goes by.
    pub fn advance(&mut self, span: Span, now_ms: u64) -> u64 {
        self.seen_ms = self.seen_ms.max(now_ms);
        if let Span::Sliding { ms } = span {
            let slot_ms = span.slot_ms();
            let left = |&&(slot, _): &&(u64, u64)| leaves_ms(slot, slot_ms, ms) <= self.seen_ms;
            let gone = self.slots.iter().take_while(left).count();
            if gone == self.slots.len() {
                self.clear();
            } else if gone > 0 {
                let tokens: u64 = self.slots.drain(..gone).map(|(_, tokens)| tokens).sum();
                self.used = self.used.saturating_sub(tokens);
            }
        }
        self.seen_ms
    }

    /// What still counts, as of the last [`Log::advance`].
    pub fn used(&self) -> u64 {
        self.used
    }

    /// `tokens` were spent at `at_ms`. What lies before the window is not counted; what would lie in the
    /// future counts as now.
    pub fn spend(&mut self, span: Span, at_ms: u64, tokens: u64) {
        if tokens == 0 || span == Span::Concurrent {
            return;
        }
        let slot_ms = span.slot_ms();
        let slot = match slot_ms {
            0 => 0,
            slot_ms => at_ms.min(self.seen_ms) / slot_ms,
        };
        if let Span::Sliding { ms } = span
            && leaves_ms(slot, slot_ms, ms) <= self.seen_ms
        {
            return;
        }
        self.used = self.used.saturating_add(tokens);
        let at = self.slots.partition_point(|(have, _)| *have < slot);
        match self.slots.get_mut(at) {
            Some((have, count)) if *have == slot => *count = count.saturating_add(tokens),
            _ => {
                if self.slots.is_empty() {
                    self.slots.reserve_exact(1);
                }
                self.slots.insert(at, (slot, tokens));
            }
        }
    }

    /// How long until `tokens` of what counts have left the window (at least one, at most all of it), in
    /// milliseconds; 0 where nothing counts.
    pub fn frees_ms(&self, span: Span, tokens: u64) -> u64 {
        let Span::Sliding { ms } = span else {
            return match span {
                Span::Until { wall_ms } if self.used > 0 => wall_ms.saturating_sub(self.seen_ms),
                _ => 0,
            };
        };
        let mut left = tokens.clamp(1, self.used.max(1));
        let mut last = 0;
        for &(slot, count) in self.slots.iter() {
            last = leaves_ms(slot, span.slot_ms(), ms).saturating_sub(self.seen_ms);
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
        last
    }

    /// What counts, each as if it were spent at its slot's end: whoever is told it never takes it for
    /// older than it is. `(age in milliseconds, tokens)`, the oldest first.
    pub fn ages(&self, span: Span) -> impl Iterator<Item = (u64, u64)> + '_ {
        let slot_ms = span.slot_ms();
        self.slots.iter().map(move |&(slot, tokens)| {
            let last_ms = slot.saturating_add(1).saturating_mul(slot_ms).saturating_sub(1);
            (self.seen_ms.saturating_sub(last_ms), tokens)
        })
    }

    pub fn clear(&mut self) {
        self.slots = ThinVec::new();
        self.used = 0;
    }

    /// Roughly, beside the value itself.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<(u64, u64)>()
    }

    /// Gives memory back that a burst has left.
    pub fn shrink(&mut self) {
        self.slots.shrink_to_fit();
    }
}

/// When what was spent in `slot` counts no more: all of it a window after the slot's end, so that none
/// of it leaves too early.
fn leaves_ms(slot: u64, slot_ms: u64, window_ms: u64) -> u64 {
    slot.saturating_add(1).saturating_mul(slot_ms).saturating_add(window_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Span = Span::Sliding { ms: 1_000 };

    #[test]
    fn what_is_spent_counts_for_the_window_and_a_slot_at_most() {
        let mut log = Log::default();
        log.advance(SECOND, 10_001);
        log.spend(SECOND, 10_001, 3);
        assert_eq!((log.advance(SECOND, 11_000), log.used()), (11_000, 3));
        assert_eq!(log.frees_ms(SECOND, 1), 2);
        log.advance(SECOND, 11_002);
        assert_eq!((log.used(), log.frees_ms(SECOND, 1)), (0, 0));
        // A clock that goes back stands still.
        assert_eq!(log.advance(SECOND, 5), 11_002);
        log.spend(SECOND, 5, 1);
        assert_eq!(log.used(), 0, "older than the window");
        log.spend(SECOND, 99_999, 1);
        assert_eq!((log.used(), log.ages(SECOND).next()), (1, Some((0, 1))));
    }

    #[test]
    fn how_long_until_there_is_room() {
        let mut log = Log::default();
        for at in [100, 200, 300] {
            log.advance(SECOND, at);
            log.spend(SECOND, at, 2);
        }
        let frees = |tokens| log.frees_ms(SECOND, tokens);
        assert_eq!((frees(0), frees(1), frees(2), frees(3)), (801, 801, 801, 901));
        assert_eq!((frees(6), frees(100)), (1_001, 1_001));
    }

    #[test]
    fn a_period_of_the_calendar_counts_to_its_end() {
        let day = Span::Until { wall_ms: 90_000 };
        let mut log = Log::default();
        log.advance(day, 10_000);
        log.spend(day, 10_000, 5);
        log.advance(day, 80_000);
        assert_eq!((log.used(), log.frees_ms(day, 1)), (5, 10_000));
    }

    proptest! {
        /// Never fewer than an exact log has, never more than one that keeps each a slot longer.
        #[test]
        fn between_exact_and_a_slot_more(
            window in 10u64..20_000,
            steps in prop::collection::vec((0u64..3_000, 0u64..5, 0u64..1_500), 1..200),
        ) {
            let span = Span::Sliding { ms: window };
            let (mut log, mut exact, mut now) = (Log::default(), Vec::new(), 1_000_000u64);
            for (step, tokens, age) in steps {
                now += step;
                log.advance(span, now);
                let at = now - age;
                log.spend(span, at, tokens);
                exact.push((at, tokens));
                let within = |more: u64| -> u64 {
                    let in_time = |(at, _): &&(u64, u64)| at + window + more > now;
                    exact.iter().filter(in_time).map(|(_, tokens)| tokens).sum()
                };
                prop_assert!(log.used() >= within(0), "{} < {}", log.used(), within(0));
                prop_assert!(log.used() <= within(span.slot_ms()));
                let told: u64 = log.ages(span).map(|(_, tokens)| tokens).sum();
                prop_assert_eq!(told, log.used());
                if log.used() > 0 {
                    let mut later = log.clone();
                    later.advance(span, now + log.frees_ms(span, 1) - 1);
                    prop_assert_eq!(later.used(), log.used());
                    later.advance(span, now + log.frees_ms(span, 1));
                    prop_assert!(later.used() < log.used());
                }
            }
        }
    }
}
