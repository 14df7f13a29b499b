//! Tries, as `Errand::go` makes them one after the other.

use contract::snapshot::{Protocol, Timeouts};

use super::lines::Held;
use super::script::Temper;
use super::{Event, Relay, World};
use crate::answer::Account;
use crate::forward::course::{Facts, Next, Outcome};
use crate::forward::errand::micros;
use crate::forward::race::Lane;
use crate::upstream::{Ask, InFlight};

/// A try under way.
pub struct Try {
    pub serial: u32,
    pub lane: Lane,
    pub flight: InFlight,
    pub begun_us: u64,
    /// It ends by then, like this; whether the answer will be cut.
    pub due_us: u64,
    pub due: (Outcome, bool),
    pub held: Held,
}

impl World<'_> {
    pub fn next_try(&mut self, request: usize) {
        let random = self.dice.word();
        let now_ms = self.now_ms();
        let own = &self.requests[request];
        let tried = own.course.as_ref().unwrap().tried();
        let state = &self.states[own.shard];
        match state.pick(&Ask { tried, hash: own.hash, random, now_ms }) {
            Ok(flight) => self.try_begins(request, flight, Lane::First),
            Err(refusal) => self.refuse(request, refusal),
        }
    }

    pub fn try_begins(&mut self, request: usize, flight: InFlight, lane: Lane) {
        self.tell(&[request as u64, flight.index as u64]);
        let now_us = self.now_us;
        let own = &mut self.requests[request];
        own.serial += 1;
        let (serial, fresh, shard, index) = (own.serial, own.fresh, own.shard, flight.index);
        let shares = self.upstream.protocol == Protocol::Http2;
        let (due_us, due, held);
        if shares {
            let (late_us, late) = self.late(request, now_us, true);
            (due_us, due) = (late_us, (late, false));
            held = Held::Awaits { pool: self.lines.pool(shard, index, fresh) };
        } else {
            let (temper, outcome, took_us) = self.over_http1(index, fresh);
            if outcome != Outcome::NoConnection && outcome != Outcome::Exhausted {
                self.sends(request, false);
                let acts = temper.executes() && !outcome.is_stale();
                self.requests[request].executed += u32::from(acts);
            }
            let (late_us, late) = self.late(request, now_us, false);
            let ends_us = took_us.map_or(u64::MAX, |took_us| now_us + took_us);
            let in_time = ends_us < late_us;
            due_us = ends_us.min(late_us);
            due = (if in_time { outcome } else { late }, in_time && temper == Temper::Lies);
            held = Held::Nothing;
        }
        let begun = Try { serial, lane, flight, begun_us: now_us, due_us, due, held };
        self.requests[request].tries.push(begun);
        self.at(due_us, Event::TryEnds { request, serial });
        if lane == Lane::First {
            self.expect_slow(request, serial);
        }
        if shares {
            self.lease(request, serial);
        }
    }

    /// What a target does over a connection of its own, and after how long.
    fn over_http1(&mut self, index: usize, fresh: bool) -> (Temper, Outcome, Option<u64>) {
        let dice = &mut self.dice;
        let temper = self.targets[index].temper(self.now_us);
        if !fresh && dice.percent(2) {
            return (temper, Outcome::Reset { reused: true }, Some(500 + dice.below(5_000)));
        }
        (temper, temper.outcome(dice), temper.took_us(dice))
    }

    /// As `Outgoing::feed` does, once there is a connection.
    pub fn sends(&mut self, request: usize, refusals: bool) {
        let own = &mut self.requests[request];
        let course = own.course.as_ref().unwrap();
        let keeps = course.may_go_on(own.repeatable, refusals);
        own.kept = own.streams <= self.upstream.retry.body_bytes && (own.kept || !own.begun);
        own.kept &= keeps || own.begun;
        own.begun = true;
    }

    /// When a try that began then will have had its time, and how it ends then. The first of equals
    /// is what `Attempt::late` and `Attempt::no_lease` look at first.
    pub fn late(&self, request: usize, begun_us: u64, connecting: bool) -> (u64, Outcome) {
        let own = &self.requests[request];
        let Timeouts { connect_ms, try_ms, first_byte_ms, .. } = self.upstream.timeouts;
        let at = |ms: u64| if ms == 0 { u64::MAX } else { (ms * 1_000).max(self.now_us) };
        let after = |from_us: u64, ms: u32| match ms {
            u32::MAX => u64::MAX,
            ms => at(from_us / 1_000 + u64::from(ms)),
        };
        let (its, own_ms, end) = match connecting {
            true => (Outcome::NoConnection, connect_ms, Outcome::NoConnection),
            false => (Outcome::TryTimeout, first_byte_ms, Outcome::Timeout),
        };
        let ends = [
            (at(own.patience_ms), Outcome::ClientDeadline),
            (at(own.deadline_ms), Outcome::Timeout),
            (after(begun_us, try_ms), its),
            (after(self.now_us, own_ms), end),
        ];
        ends.into_iter().min_by_key(|(at_us, _)| *at_us).unwrap()
    }

    pub fn time_is_up(&mut self, request: usize, serial: u32) {
        let own = &self.requests[request];
        let Some(one) = own.tries.iter().find(|one| one.serial == serial) else { return };
        if one.due_us <= self.now_us {
            let (outcome, cut) = one.due;
            self.try_ends(request, serial, outcome, cut);
        }
    }

    /// As `Errand::go` goes on from here.
    pub fn try_ends(&mut self, request: usize, serial: u32, outcome: Outcome, cut: bool) {
        let own = &self.requests[request];
        let find = |tries: &[Try]| tries.iter().position(|one| one.serial == serial);
        let Some(at) = find(&own.tries) else { return };
        match outcome {
            Outcome::Refused { leaving: false } => self.tally.streams_refused += 1,
            Outcome::Refused { leaving: true } => self.tally.left_out += 1,
            _ => {}
        }
        if !self.race_ends(request, own.tries[at].lane, outcome) {
            return;
        }
        let random = self.dice.word();
        let (now_us, now_ms) = (self.now_us, self.now_ms());
        let own = &mut self.requests[request];
        assert_eq!(own.tries.len(), 1, "what counts is the last of them");
        let Try { flight, begun_us, held, .. } = own.tries.pop().unwrap();
        let course = own.course.as_mut().expect("it is under way");
        let facts = Facts {
            repeatable: own.repeatable,
            at_hand: own.streams == 0 || !own.begun || own.kept,
            targets: self.targets.len(),
            now_ms,
            random,
        };
        let state = &self.states[own.shard];
        let next = course.next(outcome, flight.index, &facts, || self.ledger.grant(state));
        let verdict = next.verdict(outcome);
        let (try_us, whole_us) = (micros(now_us - begun_us), micros(now_us - own.started_us));
        if let Next::Again { pause_ms, fresh } = next {
            flight.judge(verdict, try_us, now_ms);
            drop(flight);
            own.fresh = fresh;
            own.retries |= !fresh;
            self.tally.retries += 1;
            self.tally.stale += u64::from(fresh);
            assert!(!fresh || self.lines.may_be_stale(held), "a permit was due");
            assert!(own.deadline_ms == 0 || now_ms + pause_ms < own.deadline_ms);
            self.let_go(request, serial, held);
            return self.at(now_us + pause_ms * 1_000, Event::PauseEnds { request });
        }
        self.tally.stops[course.stop() as usize] += 1;
        let admitted = own.admitted.take().expect("a request under way is counted");
        if matches!(outcome, Outcome::Answered { .. }) {
            let account = Account::new(flight, admitted, verdict, try_us, whole_us);
            account.begin(false, now_ms);
            self.tally.answered += 1;
            if matches!(held, Held::Nothing) {
                let body_us = self.dice.below(20_000);
                self.at(now_us + body_us, Event::BodyEnds { request });
            }
            self.requests[request].relay = Some(Relay { account, held, cut });
            self.answer(request);
        } else {
            flight.judge(verdict, try_us, now_ms);
            admitted.finish(verdict, whole_us, now_ms);
            drop(flight);
            own.admitted = Some(admitted);
            self.tally.failed += 1;
            self.let_go(request, serial, held);
            self.answer(request);
        }
    }
}
