//! Which of an upstream's targets a request may go to.
//!
//! Targets stand in *tiers*: the ones of a priority that are where the node is, then the others of
//! that priority, then the same for the next priority. A part of the upstream bears its whole load
//! while [`SPARE`] times its live weight covers its weight; what it cannot bear goes to the next
//! part (Envoy's overprovisioning factor of 140, for priorities and again within one for places).

use super::Ask;
use super::hash_key::mix;
use super::standing::Standing;
use crate::plan::{Target, Upstream};

/// What a pick needs to know of an upstream's targets, each by its index in the plan. An index that
/// is out of range is [`Standing::Unusable`] and has nothing in flight.
pub trait Fleet {
    fn standing(&self, at: usize) -> Standing;

    /// Requests now at the target, of all shards.
    fn in_flight(&self, at: usize) -> u32;

    /// The sum of [`Fleet::in_flight`] over all targets.
    fn total_in_flight(&self) -> u32;

    /// What a request is likely to take, in microseconds; 0: not known. It must fall back (to 0 or
    /// towards what others have) in time without requests, or a target that was slow once would
    /// never be tried again.
    fn latency_us(&self, at: usize) -> u32;
}

/// A part of an upstream bears this many times its live weight.
const SPARE: f64 = 1.4;

/// A target's place among the others.
#[derive(Clone, Copy, Debug)]
struct Member {
    weight: u32,
    tier: u32,
}

/// Targets of one priority, all of them local or none.
#[derive(Clone, Copy, Debug)]
struct Tier {
    priority: u8,
    weight: Weight,
    /// It has a candidate that this request has not been to.
    untried: bool,
}

/// How much of some weight is there.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    live: u64,
    whole: u64,
}

impl Weight {
    /// The share of its load that it bears.
    fn bears(self) -> f64 {
        match self.live {
            0 => 0.0,
            live => (live as f64 * SPARE / self.whole as f64).min(1.0),
        }
    }
}

/// The candidates of one upstream's picks on one shard.
#[derive(Clone, Debug)]
pub struct Selection {
    members: Box<[Member]>,
    /// In the order in which they are used.
    tiers: Box<[Tier]>,
    whole: u64,
    /// By target, its weight in thousandths.
    full: Box<[u32]>,
    panic_percent: u64,
    /// By target, for the pick under way: the weight with which it is a candidate, in thousandths;
    /// 0: it is none.
    open: Box<[u32]>,
}

/// Marks the ejected while it is not known whether that is heeded.
const EJECTED: u32 = u32::MAX;
/// Bounds a weight, whatever the snapshot says.
const MAX_WEIGHT: u32 = 1_000;

/// For each target the tier it is in, and how many tiers there are.
pub fn tiers(targets: &[Target]) -> (Vec<u32>, u32) {
    let place = |target: &Target| (target.priority, !target.local);
    let mut places: Vec<(u8, bool)> = targets.iter().map(place).collect();
    places.sort_unstable();
    places.dedup();
    let tier = |target| places.partition_point(|known| *known < place(target)) as u32;
    (targets.iter().map(tier).collect(), places.len() as u32)
}

impl Selection {
    pub fn new(upstream: &Upstream) -> Selection {
        let (tier_of, count) = tiers(&upstream.targets);
        let fresh = Tier { priority: 0, weight: Weight::default(), untried: false };
        let mut tiers = vec![fresh; count as usize];
        let mut members = Vec::with_capacity(upstream.targets.len());
        for (target, &tier) in upstream.targets.iter().zip(&tier_of) {
            let weight = target.weight.clamp(1, MAX_WEIGHT);
            members.push(Member { weight, tier });
            if let Some(tier) = tiers.get_mut(tier as usize) {
                tier.priority = target.priority;
                tier.weight.whole += u64::from(weight);
            }
        }
        let panic_percent = upstream.outlier.map_or(0, |outlier| outlier.panic_percent);
        Selection {
            whole: tiers.iter().map(|tier| tier.weight.whole).sum(),
            full: members.iter().map(|member| member.weight * 1_000).collect(),
            open: vec![0; members.len()].into(),
            members: members.into(),
            tiers: tiers.into(),
            panic_percent: panic_percent.into(),
        }
    }

    /// How many targets the upstream has.
    #[inline]
    pub fn targets(&self) -> usize {
        self.members.len()
    }

    /// Whether all targets are in one tier. Then one of them that is [`Standing::FULL`] is a candidate, with
    /// all of its weight, whatever the others are.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.tiers.len() == 1
    }

    /// Weight of a target, and of all of them.
    pub fn weight(&self, at: usize) -> (u32, u64) {
        (self.members.get(at).map_or(0, |member| member.weight), self.whole)
    }

    /// All weights in thousandths.
    pub fn full(&self) -> &[u32] {
        &self.full
    }

    /// The same, if all targets are [`Standing::FULL`].
    pub fn all_full(&self, fleet: &impl Fleet) -> Option<&[u32]> {
        let full = (0..self.full.len()).all(|at| fleet.standing(at) == Standing::FULL);
        full.then_some(&self.full)
    }

    /// The weights of the candidates that [`Selection::narrow`] has found, in thousandths; 0: none.
    pub fn open(&self) -> &[u32] {
        &self.open
    }

    /// Finds the candidates for `ask`: of one tier, usable, and none of those that were tried unless
    /// nothing else is usable. Requests spread over the tiers by `word`. Returns the tier; `None`:
    /// no target may be used.
    pub fn narrow(&mut self, fleet: &impl Fleet, ask: &Ask<'_>, word: u64) -> Option<usize> {
        self.look(fleet);
        for tier in &mut self.tiers {
            (tier.weight.live, tier.untried) = (0, false);
        }
        for (at, (member, open)) in self.members.iter().zip(&self.open).enumerate() {
            if *open > 0
                && let Some(tier) = self.tiers.get_mut(member.tier as usize)
            {
                tier.weight.live += u64::from(member.weight);
                tier.untried |= !ask.tried.contains(&at);
            }
        }
        let (chosen, untried) = self.tier(word)?;
        if !self.is_plain() || !ask.tried.is_empty() {
            for (at, (member, open)) in self.members.iter().zip(&mut self.open).enumerate() {
                if member.tier as usize != chosen || (untried && ask.tried.contains(&at)) {
                    *open = 0;
                }
            }
        }
        Some(chosen)
    }

    /// Fills `open` with what may be used in any tier.
    fn look(&mut self, fleet: &impl Fleet) {
        let (mut live, mut ejected) = (0, false);
        for (at, (member, open)) in self.members.iter().zip(&mut self.open).enumerate() {
            *open = match fleet.standing(at) {
                Standing::Usable(permille) => {
                    live += u64::from(member.weight);
                    member.weight * u32::from(permille.clamp(1, 1_000))
                }
                Standing::Ejected => {
                    ejected = true;
                    EJECTED
                }
                Standing::Unusable => 0,
            };
        }
        if !ejected {
            return;
        }
        let panics = live * 100 < self.whole * self.panic_percent;
        for (full, open) in self.full.iter().zip(&mut self.open) {
            if *open == EJECTED {
                *open = if panics { *full } else { 0 };
            }
        }
    }

    /// The tier that a request goes to, and whether it has candidates that were not tried.
    fn tier(&self, word: u64) -> Option<(usize, bool)> {
        let drawn = match self.tiers.as_ref() {
            [only] => (only.weight.live > 0).then_some(0),
            tiers => draw(tiers, mix(word)),
        }?;
        let untried = |tier: &Tier| tier.untried;
        if self.tiers.get(drawn).is_some_and(untried) {
            return Some((drawn, true));
        }
        match self.tiers.iter().position(untried) {
            Some(other) => Some((other, true)),
            None => Some((drawn, false)),
        }
    }
}

/// Draws the priority, and the place within it.
fn draw(tiers: &[Tier], word: u64) -> Option<usize> {
    let priorities = tiers.chunk_by(|a, b| a.priority == b.priority);
    let weight = |tiers: &[Tier]| {
        tiers.iter().fold(Weight::default(), |sum, tier| Weight {
            live: sum.live + tier.weight.live,
            whole: sum.whole + tier.weight.whole,
        })
    };
    let priority = spill(priorities.clone().map(weight), word as u32)?;
    let before: usize = priorities.clone().take(priority).map(<[Tier]>::len).sum();
    let places = priorities.clone().nth(priority)?;
    let place = spill(places.iter().map(|tier| tier.weight), (word >> 32) as u32)?;
    Some(before + place)
}

/// Draws one of several parts. Each takes what it bears of what those before it have left; if they
/// cannot bear all of it together, each gets more in proportion. `None`: none is live.
fn spill(parts: impl Iterator<Item = Weight> + Clone, random: u32) -> Option<usize> {
    let borne = parts.clone().map(Weight::bears).sum::<f64>().min(1.0);
    let mut left = f64::from(random) / (f64::from(u32::MAX) + 1.0) * borne;
    let mut last = None;
    for (at, part) in parts.enumerate().filter(|(_, part)| part.live > 0) {
        last = Some(at);
        if left < part.bears() {
            break;
        }
        left -= part.bears();
    }
    last
}
