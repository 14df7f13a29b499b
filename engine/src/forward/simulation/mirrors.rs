//! Copies of requests for a mirror: they have chance and targets of their own.

use std::cell::Cell;
use std::rc::Rc;

use contract::snapshot::Mirror;

use super::script::{Dice, Target};
use super::{Event, World};
use crate::forward::course::Outcome;
use crate::forward::errand::micros;
use crate::forward::mirror::{Place, Trip, is_turn};
use crate::upstream::{Ask, UpstreamState};

pub struct Mirrors {
    pub dice: Dice,
    pub mirror: Mirror,
    pub total_ms: u32,
    /// By shard.
    pub states: Vec<Rc<UpstreamState>>,
    pub places: Vec<Rc<Cell<u32>>>,
    /// Copies that a shard may have under way.
    pub most: u32,
    pub targets: Vec<Target>,
    pub copies: Vec<Option<Copy>>,
}

/// A copy under way, and how it will end.
pub struct Copy {
    shard: usize,
    trip: Trip,
    begun_us: u64,
    coming: Outcome,
}

impl World<'_> {
    /// As `mirror::consider`.
    pub fn mirror(&mut self, request: usize) {
        let (now_us, now_ms) = (self.now_us, self.now_ms());
        let shard = self.requests[request].shard;
        let Some(mirrors) = &mut self.mirrors else { return };
        let dice = &mut mirrors.dice;
        if !is_turn(&mirrors.mirror, dice.word()) {
            return;
        }
        let places = &mirrors.places[shard];
        let Some(place) = Place::take(places, mirrors.most) else {
            assert_eq!(places.get(), mirrors.most);
            self.tally.mirrors_full += 1;
            return;
        };
        let ask = Ask { tried: &[], hash: None, random: dice.word(), now_ms };
        let state = &mirrors.states[shard];
        let Some(trip) = Trip::begin(place, state, &ask, mirrors.total_ms) else {
            self.tally.mirrors_refused += 1;
            return;
        };
        self.tally.mirrored += 1;
        let temper = mirrors.targets[trip.flight.index].temper(now_us);
        let ends_us = temper.took_us(dice).map_or(u64::MAX, |took_us| now_us + took_us);
        let late_us = trip.deadline_ms * 1_000;
        let coming = match ends_us <= late_us {
            true => temper.outcome(dice),
            false => Outcome::Timeout,
        };
        let copy = mirrors.copies.len();
        mirrors.copies.push(Some(Copy { shard, trip, begun_us: now_us, coming }));
        self.at(ends_us.min(late_us), Event::CopyEnds { copy });
    }

    pub fn copy_ends(&mut self, copy: usize) {
        let (now_us, now_ms) = (self.now_us, self.now_ms());
        let Some(mirrors) = &mut self.mirrors else { return };
        let Some(Copy { trip, begun_us, coming, .. }) = mirrors.copies[copy].take() else { return };
        match coming {
            Outcome::Timeout => self.tally.mirrors_late += 1,
            Outcome::Answered { status: 200, .. } => {}
            _ => self.tally.mirrors_failed += 1,
        }
        trip.end(coming, micros(now_us - begun_us), now_ms);
    }
}

impl Mirrors {
    pub fn keep_house(&self, now_ms: u64) {
        for (shard, state) in self.states.iter().enumerate() {
            state.keep_house(shard == 0, now_ms, now_ms);
        }
        for (shard, places) in self.places.iter().enumerate() {
            let under_way = self.copies.iter().flatten().filter(|copy| copy.shard == shard);
            assert_eq!(places.get() as usize, under_way.count(), "places of shard {shard}");
            assert!(places.get() <= self.most);
        }
    }

    /// What must hold in the end.
    pub fn judge(&self) {
        assert!(self.copies.iter().all(Option::is_none), "a copy is still under way");
        assert!(self.places.iter().all(|taken| taken.get() == 0), "a place was not given back");
        for state in &self.states {
            assert_eq!(Rc::strong_count(state), 2, "its shard has it, and we");
        }
    }
}
