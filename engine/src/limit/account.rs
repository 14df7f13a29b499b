//! One bucket's truth: what was spent of it and who holds what. It grants only what is left.

use smallvec::SmallVec;

use super::log::Log;
use super::rule::Rule;

/// A bucket as whoever leases it out keeps it.
#[derive(Clone, Debug)]
pub struct Account<H> {
    log: Log,
    held: SmallVec<[(H, u64); 1]>,
    /// The sum of all that is held.
    held_sum: u64,
}

impl<H> Default for Account<H> {
    fn default() -> Account<H> {
        Account { log: Log::default(), held: SmallVec::new(), held_sum: 0 }
    }
}

/// What someone asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Less is of no use.
    pub need: u64,
    /// Wanted now, `need` included: granted as far as there are any.
    pub waiting: u64,
    /// Wanted in advance, `waiting` included: granted up to what is fair.
    pub want: u64,
    /// Among how many the limit is divided while there is plenty: at least 1.
    pub sharers: u64,
    /// What is kept for others beside what is held.
    pub kept: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// 0, or at least what was needed.
    pub granted: u64,
    /// What the holder should hold at most now.
    pub fair: u64,
    /// Left for all, after this.
    pub left: u64,
    /// How long until what is needed can have left the window, in milliseconds; 0: nothing counts.
    pub frees_ms: u64,
}

impl<H: Copy + PartialEq> Account<H> {
    /// Lets time pass. To be called before anything else is said about `now_ms`.
    pub fn advance(&mut self, rule: &Rule, now_ms: u64) {
        self.log.advance(rule.span, now_ms);
    }

    /// `holder` says what it holds now.
    pub fn hold(&mut self, holder: H, tokens: u64) {
        let at = self.held.iter().position(|(have, _)| *have == holder);
        let before = at.map_or(0, |at| self.held[at].1);
        self.held_sum = self.held_sum.saturating_sub(before).saturating_add(tokens);
        match at {
            Some(at) if tokens == 0 => drop(self.held.swap_remove(at)),
            Some(at) => self.held[at].1 = tokens,
            None if tokens > 0 => self.held.push((holder, tokens)),
            None => {}
        }
    }

    /// Someone has spent so many then.
    pub fn spend(&mut self, rule: &Rule, at_ms: u64, tokens: u64) {
        self.log.spend(rule.span, at_ms, tokens);
    }

    /// Grants what is left of what `holder` wishes.
    pub fn grant(&mut self, rule: &Rule, holder: H, wish: Wish) -> Grant {
        let Wish { need, waiting, want, sharers, kept } = wish;
        let own = self.held_by(holder);
        let taken = self.log.used().saturating_add(self.held_sum).saturating_add(kept);
        let left = rule.limit.saturating_sub(taken);
        // Of what others neither hold nor have spent, its part.
        let fair = left.saturating_add(own) / sharers.max(1);
        let granted = match need {
            _ if left < need => 0,
            _ => want.min(fair.saturating_sub(own)).max(waiting).max(need).min(left),
        };
        if granted > 0 {
            self.hold(holder, own.saturating_add(granted));
        }
        let missing = need.saturating_sub(left);
        Grant {
            granted,
            fair,
            left: left - granted,
            frees_ms: self.log.frees_ms(rule.span, missing),
        }
    }

    pub fn used(&self) -> u64 {
        self.log.used()
    }

    pub fn held(&self) -> u64 {
        self.held_sum
    }

    pub fn held_by(&self, holder: H) -> u64 {
        self.held.iter().find(|(have, _)| *have == holder).map_or(0, |(_, tokens)| *tokens)
    }

    /// Who holds anything.
    pub fn holders(&self) -> impl Iterator<Item = (H, u64)> + '_ {
        self.held.iter().copied()
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Nothing counts and nobody holds anything: it is as a new one.
    pub fn is_blank(&self) -> bool {
        self.log.used() == 0 && self.held_sum == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::rule::Span;
    use proptest::prelude::*;

    fn rule(limit: u64, ms: u64) -> Rule {
        Rule { limit, span: Span::Sliding { ms } }
    }

    fn wish(need: u64, want: u64, sharers: u64) -> Wish {
        Wish { need, waiting: need, want, sharers, kept: 0 }
    }

    #[test]
    fn plenty_is_divided_and_little_goes_to_who_needs_it() {
        let (rule, mut account) = (rule(100, 1_000), Account::<u32>::default());
        account.advance(&rule, 0);
        let first = account.grant(&rule, 0, wish(1, 100, 4));
        assert_eq!((first.granted, first.fair, first.left), (25, 25, 75));
        // It has its part: nothing more for nothing.
        assert_eq!(account.grant(&rule, 0, wish(0, 100, 4)).granted, 0);
        assert_eq!(account.grant(&rule, 1, wish(0, 100, 4)).granted, 18);
        assert_eq!(account.grant(&rule, 2, wish(57, 57, 4)).granted, 57);
        let none = account.grant(&rule, 3, wish(1, 5, 4));
        assert_eq!((none.granted, none.fair, none.left, none.frees_ms), (0, 0, 0, 0));
        // Of those that wait some are better than none.
        account.hold(2, 50);
        let some = Wish { waiting: 9, ..wish(1, 9, 4) };
        assert_eq!(account.grant(&rule, 3, some).granted, 7);
        account.hold(3, 0);
        // Two give back, one has spent.
        account.hold(2, 0);
        account.spend(&rule, 0, 50);
        account.hold(0, 20);
        let last = account.grant(&rule, 3, wish(13, 13, 4));
        assert_eq!((last.granted, last.frees_ms), (0, 1_001));
        assert_eq!(account.grant(&rule, 3, wish(12, 99, 4)).granted, 12);
        account.advance(&rule, 1_001);
        assert_eq!((account.used(), account.held()), (0, 50));
    }

    #[test]
    fn what_is_kept_for_others_is_not_granted() {
        let (rule, mut account) = (rule(10, 1_000), Account::<u32>::default());
        let kept = Wish { kept: 4, ..wish(7, 7, 1) };
        assert_eq!(account.grant(&rule, 0, kept).granted, 0);
        assert_eq!(account.grant(&rule, 0, Wish { need: 6, waiting: 6, ..kept }).granted, 6);
        // More is kept than there is.
        let most = Wish { kept: u64::MAX, ..wish(1, 1, 1) };
        assert_eq!(account.grant(&rule, 1, most).granted, 0);
    }

    proptest! {
        /// Whatever holders do, as long as they state what is true: spent and held is within the limit.
        #[test]
        fn never_more_than_the_limit(
            limit in 1u64..50,
            window in 10u64..5_000,
            steps in prop::collection::vec((0u64..400, 0u32..4, 0u64..9, 0u64..20, 1u64..5), 1..300),
        ) {
            let rule = rule(limit, window);
            let mut account = Account::<u32>::default();
            let mut exact: Vec<(u64, u64)> = Vec::new();
            let mut now = 5_000;
            for (step, holder, need, more, sharers) in steps {
                now += step;
                account.advance(&rule, now);
                // It has spent a part of what it holds, just now.
                let own = account.held_by(holder);
                let spent = own.min(more);
                account.hold(holder, own - spent);
                account.spend(&rule, now, spent);
                exact.push((now, spent));
                let before = account.held_by(holder);
                let grant = account.grant(&rule, holder, wish(need, need + more, sharers));
                prop_assert!(grant.granted == 0 || grant.granted >= need);
                prop_assert_eq!(account.held_by(holder), before + grant.granted);
                prop_assert!(account.used() + account.held() <= limit);
                prop_assert_eq!(grant.left, limit - account.used() - account.held());
                let sum: u64 = account.holders().map(|(_, tokens)| tokens).sum();
                prop_assert_eq!(sum, account.held());
                let counts = |(at, _): &&(u64, u64)| at + window > now;
                let truth: u64 = exact.iter().filter(counts).map(|(_, spent)| spent).sum();
                prop_assert!(truth + account.held() <= limit);
            }
        }
    }
}
