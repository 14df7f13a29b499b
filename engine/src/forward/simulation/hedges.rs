//! A second try beside a slow first one.

use super::{Event, World};
use crate::forward::course::Outcome;
use crate::forward::errand::micros;
use crate::forward::race::{Lane, NoRace, Race, Ruling, slow_ms};
use crate::upstream::Ask;

impl World<'_> {
    /// As `Errand::hedge_ms`.
    pub fn expect_slow(&mut self, request: usize, serial: u32) {
        let own = &self.requests[request];
        let whole = own.streams == 0;
        let Some(hedge) = self.upstream.hedge else { return };
        if serial != 1 || !whole || !own.idempotent {
            return;
        }
        let usual_us = self.states[own.shard].latency_quantile(hedge.quantile_permille);
        let Some(usual_us) = usual_us else { return };
        let at_us = self.now_us + slow_ms(&hedge, usual_us) * 1_000;
        self.at(at_us, Event::IsSlow { request, serial });
    }

    /// As `hedge::run` goes on when the first try has not ended in time.
    pub fn is_slow(&mut self, request: usize, serial: u32) {
        let (now_us, now_ms) = (self.now_us, self.now_ms());
        let random = self.dice.word();
        let own = &self.requests[request];
        let Some(first) = own.tries.iter().find(|one| one.serial == serial) else { return };
        let state = &self.states[own.shard];
        let index = first.flight.index;
        let ask = Ask { tried: &[], hash: own.hash, random, now_ms };
        let permit = || self.ledger.grant(state);
        let pick = || state.pick_other(index, &ask);
        match Race::begin(first.begun_us, now_us, permit, pick) {
            Ok((race, beside)) => {
                assert!(own.idempotent && own.race.is_none() && beside.index != index);
                self.tally.hedges += 1;
                self.requests[request].race = Some(race);
                self.try_begins(request, beside, Lane::Second);
            }
            Err(NoRace::Budget) => self.tally.hedges_over_budget += 1,
            Err(NoRace::Alone) => self.tally.hedges_alone += 1,
        }
    }

    /// One of two tries has ended. False: it has given way to the other.
    pub fn race_ends(&mut self, request: usize, lane: Lane, outcome: Outcome) -> bool {
        let statuses = &self.upstream.retry.statuses;
        let own = &mut self.requests[request];
        let Some(race) = &mut own.race else { return true };
        let at = own.tries.iter().position(|one| one.lane == lane).expect("it is under way");
        assert_eq!(own.tries[at].begun_us, race.begun_us(lane));
        let two = own.tries.len() == 2;
        match race.ends(lane, outcome, statuses) {
            Ruling::Counts => {
                let answers = matches!(outcome, Outcome::Answered { .. });
                let good = match outcome {
                    Outcome::Answered { status, .. } => !statuses.contains(&status),
                    Outcome::Ours | Outcome::ClientDeadline => true,
                    _ => false,
                };
                assert!(good || !two, "{outcome:?} must not count while another try goes on");
                self.tally.hedges_won += u64::from(answers && lane == Lane::Second);
                own.race = None;
                // Dropped with what counted it, it says nothing.
                let other = own.tries.iter().position(|one| one.lane != lane);
                if let Some(other) = other {
                    let other = own.tries.swap_remove(other);
                    self.let_go(request, other.serial, other.held);
                }
                true
            }
            Ruling::GivesWay { verdict, failed } => {
                assert!(two, "there is none to give way to");
                self.tally.gave_way += 1;
                let one = own.tries.swap_remove(at);
                if failed {
                    let course = own.course.as_mut().expect("it is under way");
                    course.note(one.flight.index);
                }
                one.flight.judge(verdict, micros(self.now_us - one.begun_us), self.now_us / 1_000);
                self.let_go(request, one.serial, one.held);
                false
            }
        }
    }
}
