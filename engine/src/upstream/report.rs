//! What an upstream's state on a shard tells control, by the table of the segment.
//!
//! A change of standing is told by the shard that has made it, at once. Numbers, and changes that
//! time alone makes, are told as the house is kept: by the shard that the upstream falls to, but
//! for the requests at a target, of which each shard tells its own.

use std::sync::atomic::Ordering;

use contract::targets::{Cause, Standing as Told, TargetEntry};

use super::UpstreamState;
use super::breaker::State;
use super::standing::Standing;
use super::tally::Tally;

impl UpstreamState {
    /// Compares targets with their fleet, and tells control what is known. For the shard that this
    /// upstream falls to; the others tell their own part only. `wall_ms` is the time of day.
    pub(crate) fn keep_house(&self, in_charge: bool, now_ms: u64, wall_ms: u64) {
        self.wall_ahead_ms.set(Some(wall_ms.wrapping_sub(now_ms)));
        for (load, target) in self.loads.iter().zip(&self.targets) {
            let now = load.in_flight.get();
            let change = now.wrapping_sub(load.told.replace(now)) as i32;
            if let Some(entry) = &target.entry
                && change != 0
            {
                entry.add_in_flight(change);
            }
        }
        if !in_charge {
            return;
        }
        if let Some(outlier) = &self.settings.outlier {
            self.node.compare(&self.targets, outlier, now_ms);
        }
        (0..self.targets.len()).for_each(|at| self.tell_target(at, now_ms));
        self.tell_breaker(now_ms);
        let Some(entry) = &self.node.entry else { return };
        entry.set_in_flight(self.node.active());
        entry.set_share(self.live_permille(now_ms));
        let limit = self.settings.concurrency.map_or(0, |own| self.node.adaptive.limit(&own));
        entry.set_limit(limit);
        entry.set_retries(self.node.retries.load(Ordering::Relaxed));
    }

    /// The time of day; 0 before the house was kept once, which then puts it right.
    fn wall_ms(&self, now_ms: u64) -> u64 {
        self.wall_ahead_ms.get().map_or(0, |ahead_ms| now_ms.wrapping_add(ahead_ms))
    }

    /// How a target stands.
    #[cold]
    pub(crate) fn tell_target(&self, at: usize, now_ms: u64) {
        let Some(target) = self.targets.get(at) else { return };
        let Some(entry) = &target.entry else { return };
        let (ejections, openings) = (target.ejection.tally(), target.breaker.tally());
        let (ejected, opening) = (ejections.last(), openings.last());
        let state = match self.settings.target_breaker {
            Some(_) => target.breaker.state(now_ms),
            None => State::Closed,
        };
        let share = match &self.settings.outlier {
            Some(outlier) => target.ejection.share(outlier, now_ms),
            None => Some(1_000),
        };
        let verdict = target.health.verdict().filter(|_| self.settings.checked);
        let (told, cause) = match (verdict, state, share) {
            (Some(false), ..) => (Told::Unhealthy, Cause::Check),
            (_, State::Open, _) => (Told::Open, opening),
            (_, State::HalfOpen, _) => (Told::HalfOpen, opening),
            (.., None) => (Told::Ejected, ejected),
            (.., Some(share)) if share < 1_000 => (Told::SlowStart, ejected),
            (Some(true), ..) => (Told::Healthy, Cause::Check),
            (None, ..) => (Told::Unknown, Cause::None),
        };
        entry.stand(told, cause, self.wall_ms(now_ms));
        tell(entry, &Cause::EJECTIONS, ejections);
        tell(entry, &Cause::OPENINGS, openings);
        let out = u32::from(target.ejection.is_out(now_ms));
        entry.set_returns(ejections.all().saturating_sub(out));
        entry.set_probes(target.breaker.let_through());
        entry.set_share(match self.standing(at, now_ms) {
            Standing::Usable(share) => share.into(),
            Standing::Ejected | Standing::Unusable => 0,
        });
    }

    /// How the upstream's breaker stands.
    #[cold]
    pub(super) fn tell_breaker(&self, now_ms: u64) {
        let Some(entry) = &self.node.entry else { return };
        let openings = self.node.breaker.tally();
        let cause = openings.last();
        let state = match self.settings.breaker {
            Some(_) => self.node.breaker.state(now_ms),
            None => State::Closed,
        };
        let (told, cause) = match state {
            State::Closed => (Told::Healthy, Cause::None),
            State::Open => (Told::Open, cause),
            State::HalfOpen => (Told::HalfOpen, cause),
        };
        entry.stand(told, cause, self.wall_ms(now_ms));
        tell(entry, &Cause::OPENINGS, openings);
        entry.set_probes(self.node.breaker.let_through());
    }
}

fn tell(entry: &TargetEntry, causes: &[Cause], tally: &Tally) {
    causes.iter().for_each(|cause| entry.set_count(*cause, tally.of(*cause)));
}

impl Drop for UpstreamState {
    fn drop(&mut self) {
        for (load, target) in self.loads.iter().zip(&self.targets) {
            if let Some(entry) = &target.entry {
                entry.add_in_flight((load.told.get() as i32).wrapping_neg());
            }
        }
    }
}
