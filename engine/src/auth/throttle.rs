//! Against guessing: who fails too often is told to wait, before anything that is shown is looked at.
//!
//! Failures are counted for the whole node, by address (IPv6: by /64, what one subscriber has) and by
//! what the credential names: the first characters of an API key, the user of a password. An address
//! alone would let many guess at one account together; the account alone would let one try a thousand.
//!
//! What this must not do is to lock out whoever has the right credential because someone else guesses
//! at it. Credentials that a shard remembers as good go on in any case, and for an account under attack
//! so do addresses from which it was entered before. What remains: who comes with the right credential
//! for the first time from an address, while others guess at that account, waits with them. And who
//! shares an address with one who guesses waits with him, unless remembered.
//!
//! **Memory.** Two tables of counters that never grow, each found by a hash of its own with a random
//! key. What counts is the lesser of the two, so a count may be too high (where both are shared with
//! someone else's), never too low. A flood from very many addresses fills the tables and so refuses
//! more than it should, which is the safe side.
//!
//! **Windows.** A count is that of this window and of the last one, as far as it reaches into the
//! `window_ms` before now. So it decays evenly, and nobody gets twice the failures around an edge but
//! who spent the last window's at its very end.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use contract::snapshot;

use crate::limits;

/// Who is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    Address(Network),
    /// What a credential names, by the authenticator that would judge it.
    Account(u32, &'a [u8]),
}

/// What one subscriber has: an IPv4 address, or the first half of an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Network {
    fn from(ip: IpAddr) -> Network {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Network::V4(ip.into()),
            IpAddr::V6(ip) => Network::V6((u128::from(ip) >> 64) as u64),
        }
    }
}

/// The failures of a node's callers. Shared by its shards; nothing here waits for anything.
pub struct Throttle {
    rows: [Row; 2],
    /// Hashes of accounts with addresses that they were entered from, each at the place that it says:
    /// a later one takes the place of an earlier.
    entered: Box<[AtomicU64]>,
    keys: RandomState,
}

struct Row {
    slots: Box<[AtomicU64]>,
    /// SipHash under a key of the system's randomness: nobody can aim at someone else's counters.
    keys: RandomState,
}

fn zeros() -> Box<[AtomicU64]> {
    (0..limits::THROTTLE_SLOTS).map(|_| AtomicU64::new(0)).collect()
}

impl Default for Throttle {
    fn default() -> Throttle {
        let row = || Row { slots: zeros(), keys: RandomState::new() };
        Throttle { rows: [row(), row()], entered: zeros(), keys: RandomState::new() }
    }
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Throttle").finish_non_exhaustive()
    }
}

impl Throttle {
    /// How many milliseconds `subject` has to wait; `None`: not at all.
    pub fn wait_ms(&self, rules: Rules, subject: Subject<'_>, now_ms: u64) -> Option<u64> {
        if rules.failures == 0 {
            return None;
        }
        let waits = self.rows.each_ref().map(|row| {
            let slot = row.slot(&subject).map_or(0, |slot| slot.load(Ordering::Relaxed));
            Window::read(slot).wait_ms(rules, now_ms)
        });
        waits.into_iter().min().filter(|wait_ms| *wait_ms > 0)
    }

    /// Counts a failure of `subject`.
    pub fn count(&self, rules: Rules, subject: Subject<'_>, now_ms: u64) {
        if rules.failures == 0 {
            return;
        }
        for slot in self.rows.iter().filter_map(|row| row.slot(&subject)) {
            let counted = |slot| Some(Window::read(slot).counted(rules, now_ms).write());
            // Relaxed: each slot is a word of its own, and no other memory hangs on it.
            let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
        }
    }

    /// Remembers that an account was entered from there.
    pub fn enter(&self, authenticator: u32, account: &[u8], from: Network) {
        let hash = self.keys.hash_one((authenticator, account, from));
        if let Some(slot) = place(&self.entered, hash) {
            slot.store(hash, Ordering::Relaxed);
        }
    }

    /// Whether it was, as far as that is remembered.
    pub fn was_entered(&self, authenticator: u32, account: &[u8], from: Network) -> bool {
        let hash = self.keys.hash_one((authenticator, account, from));
        // All bits of the hash: the chance of an error is that of guessing 48 of them.
        place(&self.entered, hash).is_some_and(|slot| slot.load(Ordering::Relaxed) == hash)
    }
}

impl Row {
    fn slot(&self, subject: &Subject<'_>) -> Option<&AtomicU64> {
        place(&self.slots, self.keys.hash_one(subject))
    }
}

fn place(slots: &[AtomicU64], hash: u64) -> Option<&AtomicU64> {
    slots.get(hash as usize % slots.len().max(1))
}

/// How many failures are too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// 0: none are.
    failures: u32,
    window_ms: u64,
}

impl From<snapshot::Throttle> for Rules {
    fn from(from: snapshot::Throttle) -> Rules {
        let failures = from.failures.min(COUNT_MAX);
        Rules { failures, window_ms: u64::from(from.window_ms).max(1) }
    }
}

/// A counter: the number of its window, and the failures in it and in the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    /// The lowest 24 bits.
    number: u32,
    current: u32,
    previous: u32,
}

const NUMBER_BITS: u32 = 24;
const NUMBER_MAX: u32 = (1 << NUMBER_BITS) - 1;
const COUNT_BITS: u32 = 20;
const COUNT_MAX: u32 = (1 << COUNT_BITS) - 1;
const _: () = assert!(NUMBER_BITS + 2 * COUNT_BITS == u64::BITS);

impl Window {
    fn read(slot: u64) -> Window {
        Window {
            number: (slot >> (2 * COUNT_BITS)) as u32,
            current: (slot >> COUNT_BITS) as u32 & COUNT_MAX,
            previous: slot as u32 & COUNT_MAX,
        }
    }

    fn write(self) -> u64 {
        u64::from(self.number) << (2 * COUNT_BITS)
            | u64::from(self.current) << COUNT_BITS
            | u64::from(self.previous)
    }

    /// As it stands at `now_ms`, and how far into its window that is.
    fn at(self, rules: Rules, now_ms: u64) -> (Window, u64) {
        let number = (now_ms / rules.window_ms) as u32 & NUMBER_MAX;
        let elapsed_ms = now_ms % rules.window_ms;
        match number.wrapping_sub(self.number) & NUMBER_MAX {
            0 => (self, elapsed_ms),
            1 => (Window { number, current: 0, previous: self.current }, elapsed_ms),
            // A shard whose clock was read later has begun the next window already.
            NUMBER_MAX => (self, 0),
            _ => (Window { number, current: 0, previous: 0 }, elapsed_ms),
        }
    }

    fn counted(self, rules: Rules, now_ms: u64) -> Window {
        let (window, _) = self.at(rules, now_ms);
        Window { current: (window.current + 1).min(COUNT_MAX), ..window }
    }

    /// How long until there are fewer failures than are too many.
    fn wait_ms(self, rules: Rules, now_ms: u64) -> u64 {
        let (Window { current, previous, .. }, elapsed_ms) = self.at(rules, now_ms);
        // The part of a window after which at most `left` of its `count` reach into the last
        // `window_ms`.
        let decayed_ms = |count: u32, left: u32| match count {
            0 => 0,
            count => {
                let ahead_ms = u64::from(left) * rules.window_ms / u64::from(count);
                rules.window_ms.saturating_sub(ahead_ms)
            }
        };
        match (rules.failures - 1).checked_sub(current) {
            Some(left) => decayed_ms(previous, left).saturating_sub(elapsed_ms),
            None => rules.window_ms - elapsed_ms + decayed_ms(current, rules.failures - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { failures: 5, window_ms: 1_000 };

    fn address(text: &str) -> Subject<'static> {
        Subject::Address(text.parse::<IpAddr>().unwrap().into())
    }

    fn fail(throttle: &Throttle, subject: Subject<'_>, times: u32, now_ms: u64) {
        (0..times).for_each(|_| throttle.count(RULES, subject, now_ms));
    }

    #[test]
    fn who_fails_too_often_waits_and_others_do_not() {
        let throttle = Throttle::default();
        let (guesser, other) = (address("192.0.2.1"), address("192.0.2.2"));
        fail(&throttle, guesser, 4, 10_000);
        assert_eq!(throttle.wait_ms(RULES, guesser, 10_000), None);
        fail(&throttle, guesser, 1, 10_400);
        // The rest of the window, and until 1 of the 5 is no longer in the last second.
        assert_eq!(throttle.wait_ms(RULES, guesser, 10_400), Some(600 + 200));
        assert_eq!(throttle.wait_ms(RULES, guesser, 11_199), Some(1));
        assert_eq!(throttle.wait_ms(RULES, guesser, 11_200), None);
        assert_eq!(throttle.wait_ms(RULES, other, 10_400), None);
        assert_eq!(throttle.wait_ms(RULES, Subject::Account(0, b"192.0.2.1"), 10_400), None);
    }

    #[test]
    fn failures_are_forgotten() {
        let throttle = Throttle::default();
        fail(&throttle, address("::1"), 1_000, 10_999);
        assert!(throttle.wait_ms(RULES, address("::1"), 11_500).is_some());
        assert_eq!(throttle.wait_ms(RULES, address("::1"), 12_000), None);
    }

    #[test]
    fn a_subscriber_is_one_however_many_addresses_it_has() {
        let throttle = Throttle::default();
        for host in 0..5 {
            fail(&throttle, address(&format!("2001:db8:0:1::{host}")), 1, 10_000);
        }
        assert!(throttle.wait_ms(RULES, address("2001:db8:0:1:ffff::"), 10_000).is_some());
        assert!(throttle.wait_ms(RULES, address("2001:db8:0:2::"), 10_000).is_none());
        fail(&throttle, address("::ffff:192.0.2.1"), 5, 10_000);
        assert!(throttle.wait_ms(RULES, address("192.0.2.1"), 10_000).is_some());
    }

    #[test]
    fn nothing_is_too_much_where_there_is_no_bound() {
        let throttle = Throttle::default();
        let off = Rules::from(snapshot::Throttle { failures: 0, window_ms: 1_000 });
        (0..100).for_each(|_| throttle.count(off, address("::1"), 10_000));
        assert_eq!(throttle.wait_ms(off, address("::1"), 10_000), None);
        assert_eq!(throttle.wait_ms(RULES, address("::1"), 10_000), None, "nor was it counted");
    }

    #[test]
    fn accounts_know_where_they_were_entered_from() {
        let throttle = Throttle::default();
        let home = Network::from("192.0.2.1".parse::<IpAddr>().unwrap());
        let away = Network::from("192.0.2.2".parse::<IpAddr>().unwrap());
        assert!(!throttle.was_entered(1, b"ada", home));
        throttle.enter(1, b"ada", home);
        assert!(throttle.was_entered(1, b"ada", home));
        assert!(!throttle.was_entered(1, b"ada", away) && !throttle.was_entered(2, b"ada", home));
        assert!(!throttle.was_entered(1, b"eve", home));
    }

    #[test]
    fn a_late_clock_counts_in_the_window_that_has_begun() {
        let window = Window { number: 11, current: 2, previous: 3 };
        assert_eq!(window.counted(RULES, 10_999).current, 3);
        assert_eq!(window.at(RULES, 10_999), (window, 0));
        let wrapped = Window { number: 0, current: 2, previous: 3 };
        let last = u64::from(NUMBER_MAX) * RULES.window_ms;
        assert_eq!(wrapped.at(RULES, last), (wrapped, 0));
        assert_eq!(Window { number: NUMBER_MAX, ..wrapped }.at(RULES, last + 1_000).0.previous, 2);
    }

    /// Shards that count at once lose nothing, also where a window begins under their hands.
    #[test]
    fn no_failure_is_lost_between_shards() {
        let throttle = Throttle::default();
        let rules = Rules { failures: COUNT_MAX, window_ms: 1_000 };
        let subject = address("192.0.2.1");
        for round in 1..20u64 {
            std::thread::scope(|threads| {
                for shard in 0..4 {
                    let throttle = &throttle;
                    threads.spawn(move || {
                        for turn in 0..500 {
                            // Each crosses from one window to the next, not all at the same time.
                            let now_ms = 10_000 * round + 900 + (turn + shard * 20) / 5;
                            throttle.count(rules, subject, now_ms);
                        }
                    });
                }
            });
            let slots = throttle
                .rows
                .each_ref()
                .map(|row| Window::read(row.slot(&subject).unwrap().load(Ordering::Relaxed)));
            for window in slots {
                assert_eq!(window.current + window.previous, 2_000, "{window:?}");
                assert_eq!(u64::from(window.number), 10 * round + 1);
            }
        }
    }

    proptest! {
        #[test]
        fn a_slot_keeps_what_it_is_given(slot: u64) {
            prop_assert_eq!(Window::read(slot).write(), slot);
        }

        /// However full the tables are, nobody is counted too low.
        #[test]
        fn a_crowd_hides_no_one(others in prop::collection::vec(any::<u32>(), 0..2_000), own in 1..9u32) {
            let throttle = Throttle::default();
            for other in others {
                throttle.count(RULES, Subject::Address(Network::V4(other)), 10_000);
            }
            let subject = Subject::Account(7, b"ada");
            fail(&throttle, subject, own, 10_000);
            let waits = throttle.wait_ms(RULES, subject, 10_000).is_some();
            prop_assert!(waits || own < RULES.failures);
        }

        /// The wait is neither too short nor too long.
        #[test]
        fn after_the_wait_and_not_before_there_is_another_try(
            current in 0..20u32,
            previous in 0..20u32,
            failures in 1..10u32,
            window_ms in 1..5_000u64,
            now_ms in 100_000..200_000u64,
        ) {
            let rules = Rules { failures, window_ms };
            let number = (now_ms / window_ms) as u32 & NUMBER_MAX;
            let window = Window { number, current, previous };
            let count = |at_ms: u64| {
                let (Window { current, previous, .. }, elapsed_ms) = window.at(rules, at_ms);
                let reaches = u64::from(previous) * (window_ms - elapsed_ms);
                u64::from(current) * window_ms + reaches
            };
            let too_many = u64::from(failures - 1) * window_ms;
            let wait_ms = window.wait_ms(rules, now_ms);
            prop_assert!(count(now_ms + wait_ms) <= too_many);
            if let Some(before) = wait_ms.checked_sub(1) {
                prop_assert!(count(now_ms + before) > too_many, "{} is too long", wait_ms);
            }
        }
    }
}
