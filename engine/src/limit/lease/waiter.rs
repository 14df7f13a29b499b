//! Whoever waits for tokens.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use smallvec::SmallVec;

use super::{Few, Leases, Verdict, Want};
use crate::limits;

/// A request that waits until it finds all that it wants at a time.
#[derive(Debug, Default)]
pub struct Parked {
    stage: Cell<Stage>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Waits,
    /// There was an answer: it is about to try again.
    Woken,
    /// It has tried again, or is gone.
    Done,
}

impl Parked {
    /// Whether there was an answer. If not, `waker` is woken by one.
    pub fn is_woken(&self, waker: &Waker) -> bool {
        if !self.was_woken() {
            *self.waker.borrow_mut() = Some(waker.clone());
        }
        self.was_woken()
    }

    pub fn was_woken(&self) -> bool {
        self.stage.get() != Stage::Waits
    }

    pub fn wake(&self) {
        if self.stage.get() == Stage::Waits {
            self.stage.set(Stage::Woken);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.stage.get() == Stage::Done
    }

    pub(super) fn end(&self) {
        self.stage.set(Stage::Done);
    }
}

/// What it has to do with one of its buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It lacks tokens of it.
    Lacks,
    /// They are there, and stay until others want them: what it lacks comes before this in the order of
    /// ids.
    Keeps,
    /// They are there, and stay. Requests that wait for each other's tokens would wait for ever; so of
    /// two only that one has its way whose missing bucket comes later.
    Insists,
}

pub(super) struct Waiter {
    pub(super) cost: u64,
    pub(super) part: Part,
    /// `None`: nobody waits for what is asked.
    pub(super) parked: Option<Rc<Parked>>,
}

/// All that have to do with one lease.
#[derive(Default)]
pub(super) struct Waiters(SmallVec<[Waiter; 2]>);

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, waiter: Waiter) {
        self.0.push(waiter);
    }

    /// Forgets those that are gone.
    pub(super) fn clean(&mut self) {
        self.0.retain(|waiter| waiter.parked.as_ref().is_none_or(|parked| !parked.is_done()));
    }

    /// Has those that lack something try again. What they are about to take stays here until they have.
    pub(super) fn wake(&mut self) {
        self.0.retain(|waiter| waiter.parked.is_some());
        for waiter in self.0.iter().filter(|waiter| waiter.part == Part::Lacks) {
            waiter.parked.iter().for_each(|parked| parked.wake());
        }
    }

    /// What the first one costs that lacks tokens and was not woken for another of its buckets, and what
    /// all of them do.
    pub(super) fn lacking(&self) -> Option<(u64, u64)> {
        let waits = |one: &&Waiter| one.parked.as_ref().is_none_or(|parked| !parked.was_woken());
        let mut lacking = self.0.iter().filter(|one| one.part == Part::Lacks).filter(waits);
        let first = lacking.next()?.cost;
        Some((first, lacking.fold(first, |sum, one| sum.saturating_add(one.cost))))
    }

    /// How many tokens are not to be given back: because others have all but them, or only as long as
    /// nobody else (`recalled`) wants them.
    pub(super) fn kept(&self, recalled: bool) -> u64 {
        let keeps = |one: &&Waiter| match one.part {
            Part::Insists => true,
            Part::Keeps => !recalled,
            // About to take what it was granted.
            Part::Lacks => one.parked.as_ref().is_some_and(|parked| parked.was_woken()),
        };
        self.0.iter().filter(keeps).fold(0, |sum, one| sum.saturating_add(one.cost))
    }
}

impl Leases {
    /// Waits for the wants of which there is too little, and keeps what there is of the others, until
    /// [`Leases::end_wait`]. `false`: too many wait.
    pub fn wait(
        &mut self,
        wants: &[Want],
        places: &[u32],
        parked: &Rc<Parked>,
        now_ms: u64,
    ) -> bool {
        if self.waiting >= limits::LEASE_WAITERS {
            return false;
        }
        let verdicts: Few<bool> = wants
            .iter()
            .zip(places)
            .map(|(want, &place)| matches!(self.verdict(place, want, now_ms), Verdict::Dry))
            .collect();
        let lacks = wants.iter().zip(&verdicts).filter(|(_, dry)| **dry);
        let first = lacks.map(|(want, _)| want.id).min().unwrap_or(0);
        for ((want, &place), dry) in wants.iter().zip(places).zip(verdicts) {
            let there = self.lease(place).is_some_and(|lease| lease.tokens >= want.cost);
            let part = match dry {
                true => Part::Lacks,
                false if !there => continue,
                false if want.id < first => Part::Insists,
                false => Part::Keeps,
            };
            self.line_up(place, want.cost, part, Some(parked.clone()));
        }
        true
    }

    /// Who has waited has tried again, or is gone.
    pub fn end_wait(&mut self, places: &[u32], parked: &Parked) {
        parked.end();
        for &place in places {
            let Some(waiters) = self.waiters.get_mut(&place) else { continue };
            self.waiting -= waiters.len();
            waiters.clean();
            self.waiting += waiters.len();
            if waiters.is_empty() {
                self.waiters.remove(&place);
            }
            // What was kept for it may be too much now.
            if self.lease(place).is_some_and(|lease| lease.held() > lease.fair) {
                self.mark(place);
            }
        }
    }

    pub(super) fn line_up(
        &mut self,
        place: u32,
        cost: u64,
        part: Part,
        parked: Option<Rc<Parked>>,
    ) {
        let waiters = self.waiters.entry(place).or_default();
        // One that nobody waits for says what all of them would.
        if parked.is_some() || waiters.is_empty() {
            waiters.push(Waiter { cost, part, parked });
            self.waiting += 1;
        }
        if part == Part::Lacks {
            self.mark(place);
        }
    }

    /// Has whoever waits for a lease try again.
    pub(super) fn call(&mut self, place: u32) {
        let Some(waiters) = self.waiters.get_mut(&place) else { return };
        self.waiting -= waiters.len();
        waiters.wake();
        self.waiting += waiters.len();
        if waiters.is_empty() {
            self.waiters.remove(&place);
        }
    }
}
