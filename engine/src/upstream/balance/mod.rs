//! Which target the next request goes to. Each shard has its own state over a plan's upstream.

mod draw;
mod ring;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod weighted;

use std::sync::Arc;

use contract::snapshot::Balance;

use self::draw::{Draw, Drawn, better, scale, two_of};
pub use self::ring::Rings;
pub use self::weighted::WeightedPick;
use super::Ask;
use super::hash_key::mix;
use super::selection::{Fleet, Selection};
use super::standing::Standing;
use crate::plan::Upstream;

/// The balancing state of one upstream on one shard.
#[derive(Clone, Debug)]
pub struct Balancer {
    selection: Selection,
    policy: Policy,
}

#[derive(Clone, Debug)]
enum Policy {
    RoundRobin(Turns),
    Weighted(WeightedPick),
    LeastConnections(Least),
    PowerOfTwo(Draw),
    Hash(Hashed),
}

impl Balancer {
    /// A fresh state.
    pub fn new(upstream: &Upstream) -> Balancer {
        let selection = Selection::new(upstream);
        let weights = || (0..selection.targets()).map(|at| selection.weight(at).0);
        let policy = match upstream.balance {
            Balance::RoundRobin => Policy::RoundRobin(Turns::new(selection.targets())),
            Balance::Weighted => Policy::Weighted(WeightedPick::new(weights())),
            Balance::LeastConnections => Policy::LeastConnections(Least {
                loads: vec![0; selection.targets()].into(),
                ties: WeightedPick::new(weights()),
            }),
            Balance::PowerOfTwo => Policy::PowerOfTwo(Draw::new(&weights().collect::<Vec<_>>())),
            Balance::Hash { load_percent, .. } => {
                let made = || Arc::new(Rings::new(&upstream.targets));
                let rings = upstream.rings.clone().unwrap_or_else(made);
                Policy::Hash(Hashed { rings, load_percent: load_percent.max(101) })
            }
        };
        Balancer { selection, policy }
    }

    /// Index of the target for the next request: usable, and none of those that were tried unless
    /// nothing else is usable. `None`: no target may be used.
    #[inline]
    pub fn pick(&mut self, fleet: &impl Fleet, ask: &Ask<'_>) -> Option<usize> {
        let mut unclear = Unclear::default();
        if self.selection.is_plain() && ask.tried.is_empty() {
            match self.policy.pick_at_once(&self.selection, fleet, ask) {
                Ok(at) => return Some(at),
                Err(drawn) => unclear = drawn,
            }
        }
        self.pick_among(fleet, ask, unclear)
    }

    /// Looks at all targets: some are out, were tried, or are used only when others are out.
    fn pick_among(&mut self, fleet: &impl Fleet, ask: &Ask<'_>, unclear: Unclear) -> Option<usize> {
        let word = match self.policy {
            // Keys stay in their tier while the tiers' shares stay.
            Policy::Hash(_) => mix(ask.hash.unwrap_or(ask.random)),
            _ => mix(ask.random),
        };
        let tier = self.selection.narrow(fleet, ask, word)?;
        let open = self.selection.open();
        match &mut self.policy {
            Policy::RoundRobin(turns) => turns.among(open, &self.selection),
            Policy::Weighted(pick) => pick.pick_by(|at, _| weight(open, at)),
            Policy::LeastConnections(least) => least.among(open, fleet),
            Policy::PowerOfTwo(_) => {
                // Not by the word that has led here.
                let (first, second) = two_of(open, unclear.drawn, word)?;
                Some(better(fleet, first, second))
            }
            Policy::Hash(hashed) => {
                let in_flight = match self.selection.is_plain() {
                    true => fleet.total_in_flight(),
                    // Those of other tiers have bounds of their own.
                    false => candidates(open).map(|at| fleet.in_flight(at)).sum(),
                };
                hashed.among(open, tier, in_flight, fleet, ask)
            }
        }
    }
}

fn weight(open: &[u32], at: usize) -> u32 {
    open.get(at).copied().unwrap_or(0)
}

fn candidates(open: &[u32]) -> impl Iterator<Item = usize> {
    open.iter().enumerate().filter(|(_, weight)| **weight > 0).map(|(at, _)| at)
}

/// A pick that has to look at all targets.
#[derive(Clone, Copy, Debug, Default)]
struct Unclear {
    /// The target to take if it is a candidate: were another one drawn in its place, the ejected
    /// would get less than their share when they are used after all.
    drawn: Option<usize>,
}

impl Policy {
    /// A pick among targets that are all in one tier, with no more looks than needed. Where a
    /// target is met that is not [`Standing::FULL`], all of them may have to be looked at.
    #[inline]
    fn pick_at_once(
        &mut self,
        selection: &Selection,
        fleet: &impl Fleet,
        ask: &Ask<'_>,
    ) -> Result<usize, Unclear> {
        let is_full = |at: &usize| fleet.standing(*at) == Standing::FULL;
        let picked = match self {
            _ if selection.targets() == 1 => Some(0).filter(is_full),
            Policy::RoundRobin(turns) => turns.at_once(selection.targets(), ask.random, fleet),
            Policy::PowerOfTwo(draw) => match draw.first(fleet, ask.random) {
                Drawn::Usable(first) => match draw.second(fleet, first, mix(ask.random)) {
                    Some(second) => Some(better(fleet, first, second)),
                    None => Some(first.at),
                },
                Drawn::Ejected(at) => return Err(Unclear { drawn: Some(at) }),
                Drawn::Nothing => None,
            },
            Policy::Hash(hashed) => {
                let key = ask.hash.unwrap_or(ask.random);
                hashed.rings.walk(0, key).next().filter(is_full).filter(|&at| {
                    let load = fleet.in_flight(at);
                    // One may always be had, so that most of the time none need be added up.
                    load == 0
                        || hashed.has_room(load, fleet.total_in_flight(), selection.weight(at))
                })
            }
            Policy::Weighted(pick) => {
                let full = selection.all_full(fleet);
                full.and_then(|weights| pick.pick_by(|at, _| weight(weights, at)))
            }
            Policy::LeastConnections(least) => {
                selection.all_full(fleet).and_then(|weights| least.among(weights, fleet))
            }
        };
        picked.ok_or_else(Unclear::default)
    }
}

/// Each in turn, weights ignored.
#[derive(Clone, Debug)]
struct Turns {
    /// `None`: at the beginning, which is somewhere else on each shard.
    next: Option<usize>,
    /// The turns where some targets take fewer.
    uneven: WeightedPick,
}

impl Turns {
    fn new(targets: usize) -> Turns {
        Turns { next: None, uneven: WeightedPick::new((0..targets).map(|_| 1)) }
    }

    fn at_once(&mut self, targets: usize, random: u64, fleet: &impl Fleet) -> Option<usize> {
        let mut at = self.next.unwrap_or_else(|| scale(random >> 32, targets as u32));
        for _ in 0..STEPS {
            at = if at < targets { at } else { 0 };
            match fleet.standing(at) {
                Standing::FULL => {
                    self.next = Some(at + 1);
                    return Some(at);
                }
                Standing::Unusable => at += 1,
                Standing::Ejected | Standing::Usable(_) => return None,
            }
        }
        None
    }

    fn among(&mut self, open: &[u32], selection: &Selection) -> Option<usize> {
        let mut all = open.iter().zip(selection.full());
        let even = selection.is_plain() && all.all(|(open, full)| *open == 0 || open == full);
        if even {
            let next = self.next.unwrap_or(0);
            let at = candidates(open).find(|&at| at >= next).or(candidates(open).next())?;
            self.next = Some(at + 1);
            return Some(at);
        }
        // What is left of a target's weight is its share of turns.
        self.uneven.pick_by(|at, _| weight(open, at) / selection.weight(at).0.max(1))
    }
}

/// Targets that turns pass over before all are looked at.
const STEPS: u32 = 8;

/// Fewest requests in flight relative to weight. Those with equally few take turns by weight.
#[derive(Clone, Debug)]
struct Least {
    /// By target, as they were when this pick looked: others count meanwhile.
    loads: Box<[u32]>,
    ties: WeightedPick,
}

impl Least {
    fn among(&mut self, open: &[u32], fleet: &impl Fleet) -> Option<usize> {
        let mut least: Option<(u32, u32)> = None;
        for (at, load) in self.loads.iter_mut().enumerate() {
            let weight = weight(open, at);
            if weight == 0 {
                continue;
            }
            *load = fleet.in_flight(at);
            if least.is_none_or(|least| compare((*load, weight), least).is_lt()) {
                least = Some((*load, weight));
            }
        }
        let least = least?;
        let loads = &self.loads;
        self.ties.pick_by(|at, _| {
            let weight = weight(open, at);
            let load = loads.get(at).copied().unwrap_or(0);
            let is_least = weight > 0 && compare((load, weight), least).is_eq();
            if is_least { weight } else { 0 }
        })
    }
}

/// Compares load / weight without division.
fn compare(a: (u32, u32), b: (u32, u32)) -> std::cmp::Ordering {
    (u64::from(a.0) * u64::from(b.1)).cmp(&(u64::from(b.0) * u64::from(a.1)))
}

/// Consistent hashing with bounded loads.
#[derive(Clone, Debug)]
struct Hashed {
    rings: Arc<Rings>,
    /// Of its share of the requests in flight, what a target may have.
    load_percent: u16,
}

impl Hashed {
    /// Whether a target with `load` of the requests `in_flight` may have one more, with its weight
    /// of the whole. That one is shared out too, and shares are rounded up.
    fn has_room(&self, load: u32, in_flight: u32, (weight, whole): (u32, u64)) -> bool {
        let shared = u128::from(in_flight) + 1;
        let may = shared * u128::from(weight) * u128::from(self.load_percent);
        u128::from(load) * u128::from(whole) * 100 < may
    }

    fn among(
        &self,
        open: &[u32],
        tier: usize,
        in_flight: u32,
        fleet: &impl Fleet,
        ask: &Ask<'_>,
    ) -> Option<usize> {
        let key = ask.hash.unwrap_or(ask.random);
        let whole: u64 = open.iter().map(|&weight| u64::from(weight)).sum();
        let mut last = None;
        let found = self.rings.walk(tier, key).find(|&at| {
            let weight = weight(open, at);
            if weight == 0 || last.replace(at) == Some(at) {
                return false;
            }
            takes(fleet, at, key) && self.has_room(fleet.in_flight(at), in_flight, (weight, whole))
        });
        // All near ones are full, or out: the least loaded one has room, by the pigeonhole
        // principle.
        found.or_else(|| {
            let load = |at: usize| (fleet.in_flight(at), weight(open, at));
            candidates(open).map(|at| (at, load(at))).min_by(|a, b| compare(a.1, b.1)).map(|a| a.0)
        })
    }
}

/// Whether the key is among those that a target takes which comes back slowly: first few, then
/// more, always the same.
fn takes(fleet: &impl Fleet, at: usize, key: u64) -> bool {
    match fleet.standing(at) {
        Standing::Usable(permille) => scale(mix(key ^ at as u64), 1_000) < usize::from(permille),
        _ => true,
    }
}
