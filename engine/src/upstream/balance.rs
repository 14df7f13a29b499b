//! Which target the next request goes to. Each shard has its own state over a plan's upstream.

use contract::snapshot::Balance;

use crate::plan::{Backend, Upstream};

/// The balancing state of one upstream on one shard.
#[derive(Clone, Debug)]
pub struct Balancer {
    policy: Policy,
}

#[derive(Clone, Debug)]
enum Policy {
    RoundRobin { targets: usize, next: usize },
    Weighted(WeightedPick),
    LeastConnections { weights: Box<[u32]>, next: usize },
}

impl Balancer {
    /// A fresh state, at the first target.
    pub fn new(upstream: &Upstream) -> Balancer {
        let weights = upstream.targets.iter().map(|target| target.weight.max(1));
        let policy = match upstream.balance {
            Balance::RoundRobin => Policy::RoundRobin { targets: upstream.targets.len(), next: 0 },
            Balance::Weighted => Policy::Weighted(WeightedPick::new(weights)),
            Balance::LeastConnections => {
                Policy::LeastConnections { weights: weights.collect(), next: 0 }
            }
        };
        Balancer { policy }
    }

    /// Index of the target for the next request; `None`: there is none besides `exclude`, the
    /// target that has just failed this request.
    ///
    /// `in_flight` has the requests now at each target; a missing entry counts as 0. Only
    /// [`Balance::LeastConnections`] reads it.
    pub fn pick(&mut self, exclude: Option<usize>, in_flight: &[u32]) -> Option<usize> {
        match &mut self.policy {
            Policy::RoundRobin { targets, next } => {
                let chosen = turn(*next, *targets).find(|&at| exclude != Some(at))?;
                *next = (chosen + 1) % *targets;
                Some(chosen)
            }
            Policy::Weighted(pick) => pick.pick(exclude),
            Policy::LeastConnections { weights, next } => {
                let load = |at: usize| u64::from(in_flight.get(at).copied().unwrap_or(0));
                let weight = |at: usize| weights.get(at).map_or(1, |&weight| u64::from(weight));
                let others = turn(*next, weights.len()).filter(|&at| exclude != Some(at));
                // `reduce` keeps the earlier of equals, so ties go round.
                let chosen = others.reduce(|best, at| {
                    // load / weight compared without division.
                    if load(at) * weight(best) < load(best) * weight(at) { at } else { best }
                })?;
                *next = (chosen + 1) % weights.len();
                Some(chosen)
            }
        }
    }
}

/// All of `0..count`, beginning with `first`.
fn turn(first: usize, count: usize) -> impl Iterator<Item = usize> {
    (first..count).chain(0..first.min(count))
}

/// Smooth weighted round-robin: over a cycle (the sum of the weights) each choice comes exactly as
/// often as its weight says, spread as evenly as may be.
#[derive(Clone, Debug)]
pub struct WeightedPick {
    shares: Box<[Share]>,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    weight: i64,
    /// nginx's `current_weight`: the share's claim on the next pick.
    claim: i64,
}

impl WeightedPick {
    /// A fresh cycle. Weight 0 gets nothing.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> WeightedPick {
        let shares = weights.into_iter().map(|w| Share { weight: w.into(), claim: 0 });
        WeightedPick { shares: shares.collect() }
    }

    /// A fresh cycle over the backends of a route.
    pub fn over(backends: &[Backend]) -> WeightedPick {
        WeightedPick::new(backends.iter().map(|backend| backend.weight))
    }

    /// Index of the next choice; `None`: every weight is 0 but that of `exclude`.
    pub fn pick(&mut self, exclude: Option<usize>) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (at, share) in self.shares.iter_mut().enumerate() {
            if share.weight == 0 || exclude == Some(at) {
                continue;
            }
            share.claim += share.weight;
            total += share.weight;
            if best.is_none_or(|(_, claim)| share.claim > claim) {
                best = Some((at, share.claim));
            }
        }
        let (chosen, _) = best?;
        if let Some(share) = self.shares.get_mut(chosen) {
            share.claim -= total;
        }
        Some(chosen)
    }
}
