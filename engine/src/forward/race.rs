//! Two tries beside each other: when the second begins, and whose end counts. No I/O, no clock: the
//! hedges and their simulation drive the same code.

use contract::snapshot::Hedge;

use super::course::Outcome;
use crate::upstream::{RetryPermit, Verdict};

/// When a first try is a slow one, in milliseconds from its begin. `usual_us`: how long tries
/// usually take, at most.
pub fn slow_ms(hedge: &Hedge, usual_us: u32) -> u64 {
    u64::from(usual_us.div_ceil(1_000).max(hedge.min_ms))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    First,
    Second,
}

/// What the end of one of two tries means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is the end of both.
    Counts,
    /// The other one goes on alone. `failed`: the request has failed at this one's target.
    GivesWay { verdict: Verdict, failed: bool },
}

/// Why there is no second try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRace {
    Budget,
    /// There is no other target.
    Alone,
}

pub struct Race<P = RetryPermit> {
    begun_us: [u64; 2],
    /// One has given way.
    alone: bool,
    /// The second try's.
    permit: Option<P>,
}

impl<P> Race<P> {
    /// Begins a second try, at what `pick` finds for it.
    ///
    /// # Errors
    /// There is none; nothing is held for it.
    pub fn begin<T>(
        first_us: u64,
        now_us: u64,
        permit: impl FnOnce() -> Option<P>,
        pick: impl FnOnce() -> Option<T>,
    ) -> Result<(Race<P>, T), NoRace> {
        let permit = permit().ok_or(NoRace::Budget)?;
        let picked = pick().ok_or(NoRace::Alone)?;
        Ok((Race { begun_us: [first_us, now_us], alone: false, permit: Some(permit) }, picked))
    }

    /// When this one of the two began.
    pub fn begun_us(&self, lane: Lane) -> u64 {
        let [first_us, second_us] = self.begun_us;
        match lane {
            Lane::First => first_us,
            Lane::Second => second_us,
        }
    }

    /// One of the two has ended. A failure, of which `statuses` are some, gives way to the try that
    /// still goes on, unless it is the request's own.
    pub fn ends(&mut self, lane: Lane, outcome: Outcome, statuses: &[u16]) -> Ruling {
        let counts = match outcome {
            Outcome::Ours | Outcome::ClientDeadline => true,
            Outcome::Answered { status, .. } => !statuses.contains(&status),
            _ => false,
        };
        if counts || self.alone {
            self.permit = None;
            return Ruling::Counts;
        }
        self.alone = true;
        // The first goes on as if there had never been another; the second is a try more.
        if lane == Lane::Second {
            self.permit = None;
        }
        Ruling::GivesWay { verdict: outcome.lone_verdict(), failed: !outcome.is_stale() }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    const OK: Outcome = Outcome::Answered { status: 200, retry_after_ms: None };
    const BUSY: Outcome = Outcome::Answered { status: 503, retry_after_ms: None };

    fn race() -> (Race<Rc<()>>, Rc<()>) {
        let permit = Rc::new(());
        let begun = Race::begin(10, 30, || Some(permit.clone()), || Some(()));
        (begun.expect("a permit and a target").0, permit)
    }

    fn ends(race: &mut Race<Rc<()>>, lane: Lane, outcome: Outcome) -> Ruling {
        race.ends(lane, outcome, &[502, 503, 504])
    }

    #[test]
    fn a_second_try_waits_for_what_is_usual_but_at_least_so_long() {
        let hedge = Hedge { quantile_permille: 950, min_ms: 5 };
        assert_eq!(slow_ms(&hedge, 4_001), 5);
        assert_eq!(slow_ms(&hedge, 9_001), 10);
    }

    #[test]
    fn the_first_answer_counts_and_gives_the_permit_back() {
        for lane in [Lane::First, Lane::Second] {
            let (mut race, permit) = race();
            assert_eq!(ends(&mut race, lane, OK), Ruling::Counts);
            assert_eq!(Rc::strong_count(&permit), 1);
        }
    }

    #[test]
    fn a_failure_gives_way_once() {
        for lane in [Lane::First, Lane::Second] {
            for outcome in [BUSY, Outcome::NoConnection, Outcome::Timeout, Outcome::Invalid] {
                let (mut race, permit) = race();
                let way = Ruling::GivesWay { verdict: Verdict::Gateway, failed: true };
                assert_eq!(ends(&mut race, lane, outcome), way, "{outcome:?}");
                let other = if lane == Lane::First { Lane::Second } else { Lane::First };
                let held = 1 + usize::from(other == Lane::Second);
                assert_eq!(Rc::strong_count(&permit), held, "only a second try needs one");
                assert_eq!(ends(&mut race, other, outcome), Ruling::Counts, "{outcome:?}");
                assert_eq!(Rc::strong_count(&permit), 1);
            }
        }
    }

    #[test]
    fn what_is_the_requests_own_counts() {
        for outcome in [Outcome::Ours, Outcome::ClientDeadline] {
            assert_eq!(ends(&mut race().0, Lane::Second, outcome), Ruling::Counts);
        }
    }

    #[test]
    fn a_stale_connection_is_no_failure() {
        let stale = Outcome::Reset { reused: true };
        let way = Ruling::GivesWay { verdict: Verdict::Stale, failed: false };
        assert_eq!(ends(&mut race().0, Lane::First, stale), way);
    }

    #[test]
    fn without_another_target_no_permit_is_held() {
        let permit = Rc::new(());
        let none = Race::begin(0, 0, || Some(permit.clone()), || None::<()>);
        assert_eq!(none.err(), Some(NoRace::Alone));
        assert_eq!(Rc::strong_count(&permit), 1);
        let none = Race::<()>::begin(0, 0, || None, || -> Option<()> { unreachable!() });
        assert_eq!(none.err(), Some(NoRace::Budget));
    }

    #[test]
    fn each_try_has_its_own_begin() {
        let (race, _) = race();
        assert_eq!((race.begun_us(Lane::First), race.begun_us(Lane::Second)), (10, 30));
    }
}
