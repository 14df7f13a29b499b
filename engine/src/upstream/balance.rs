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
        self.pick_of(|at| exclude != Some(at), in_flight)
    }

    /// The same among those that `admits` lets pass.
    pub fn pick_of(&mut self, admits: impl Fn(usize) -> bool, in_flight: &[u32]) -> Option<usize> {
        match &mut self.policy {
            Policy::RoundRobin { targets, next } => {
                let chosen = turn(*next, *targets).find(|&at| admits(at))?;
                *next = (chosen + 1) % *targets;
                Some(chosen)
            }
            Policy::Weighted(pick) => pick.pick_of(admits),
            Policy::LeastConnections { weights, next } => {
                let load = |at: usize| u64::from(in_flight.get(at).copied().unwrap_or(0));
                let weight = |at: usize| weights.get(at).map_or(1, |&weight| u64::from(weight));
                let others = turn(*next, weights.len()).filter(|&at| admits(at));
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
        self.pick_of(|at| exclude != Some(at))
    }

    fn pick_of(&mut self, admits: impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (at, share) in self.shares.iter_mut().enumerate() {
            if share.weight == 0 || !admits(at) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::Target;

    fn upstream(balance: Balance, weights: &[u32]) -> Upstream {
        let target = |(i, &weight): (usize, &u32)| Target {
            address: ([127, 0, 0, 1], 1000 + i as u16).into(),
            weight,
            name: format!("t{i}:80").into(),
        };
        Upstream {
            name: "u".into(),
            balance,
            targets: weights.iter().enumerate().map(target).collect(),
            pool: Default::default(),
            timeouts: Default::default(),
            host_header: Default::default(),
            protocol: Default::default(),
            tls: None,
            health: None,
        }
    }

    #[test]
    fn canary_is_exact_and_smooth() {
        let mut pick = WeightedPick::new([90, 10]);
        for _ in 0..3 {
            let picks: Vec<usize> = (0..100).map(|_| pick.pick(None).unwrap()).collect();
            assert_eq!(picks.iter().filter(|&&at| at == 1).count(), 10);
            let tens = picks.chunks(10).map(|ten| ten.iter().sum::<usize>());
            assert_eq!(tens.collect::<Vec<_>>(), [1; 10], "one of each ten");
        }
    }

    #[test]
    fn weighted_goes_as_nginx_goes() {
        let mut pick = WeightedPick::new([5, 1, 1]);
        let picks: Vec<usize> = (0..7).map(|_| pick.pick(None).unwrap()).collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn nothing_to_pick() {
        assert_eq!(WeightedPick::new([]).pick(None), None);
        assert_eq!(WeightedPick::new([0, 0]).pick(None), None);
        assert_eq!(WeightedPick::new([0, 3]).pick(Some(1)), None);
        for balance in [Balance::RoundRobin, Balance::Weighted, Balance::LeastConnections] {
            assert_eq!(Balancer::new(&upstream(balance, &[])).pick(None, &[]), None);
            let mut one = Balancer::new(&upstream(balance, &[7]));
            assert_eq!(one.pick(None, &[]), Some(0));
            assert_eq!(one.pick(Some(0), &[]), None);
            assert_eq!(one.pick(Some(9), &[4]), Some(0));
        }
    }

    #[test]
    fn least_connections_prefers_the_least_load_per_weight() {
        let mut balancer = Balancer::new(&upstream(Balance::LeastConnections, &[1, 3, 1]));
        assert_eq!(balancer.pick(None, &[1, 2, 5]), Some(1), "2/3 is less than 1");
        assert_eq!(balancer.pick(None, &[1, 4, 5]), Some(0));
        assert_eq!(balancer.pick(Some(0), &[1, 9, 5]), Some(1), "3 is less than 5");
    }

    proptest! {
        #[test]
        fn round_robin_is_even(targets in 1usize..20, cycles in 1usize..5) {
            let mut balancer = Balancer::new(&upstream(Balance::RoundRobin, &vec![9; targets]));
            for _ in 0..cycles {
                let picks: Vec<usize> =
                    (0..targets).map(|_| balancer.pick(None, &[]).unwrap()).collect();
                prop_assert_eq!(picks, (0..targets).collect::<Vec<_>>());
            }
        }

        #[test]
        fn weighted_is_exact_over_a_cycle(weights in proptest::collection::vec(1u32..50, 1..8)) {
            let mut balancer = Balancer::new(&upstream(Balance::Weighted, &weights));
            for _ in 0..2 {
                let mut counts = vec![0; weights.len()];
                for _ in 0..weights.iter().sum() {
                    counts[balancer.pick(None, &[]).unwrap()] += 1;
                }
                prop_assert_eq!(&counts, &weights);
            }
        }

        #[test]
        fn least_connections_fills_by_weight(weights in proptest::collection::vec(1u32..10, 1..8)) {
            let mut balancer = Balancer::new(&upstream(Balance::LeastConnections, &weights));
            // Requests that never end: after a cycle each target has its weight's share.
            let mut in_flight = vec![0; weights.len()];
            for _ in 0..weights.iter().sum() {
                let at = balancer.pick(None, &in_flight).unwrap();
                let ratio = |at: usize| f64::from(in_flight[at]) / f64::from(weights[at]);
                prop_assert!((0..weights.len()).all(|other| ratio(at) <= ratio(other)));
                in_flight[at] += 1;
            }
            prop_assert_eq!(&in_flight, &weights);
        }

        #[test]
        fn idle_targets_take_turns(targets in 1usize..10) {
            let all = vec![2; targets];
            let mut balancer = Balancer::new(&upstream(Balance::LeastConnections, &all));
            let picks: Vec<usize> = (0..targets).map(|_| balancer.pick(None, &[]).unwrap()).collect();
            prop_assert_eq!(picks, (0..targets).collect::<Vec<_>>());
        }

        #[test]
        fn the_excluded_is_never_picked(
            weights in proptest::collection::vec(1u32..20, 2..6),
            excluded in 0usize..6,
            kind in 0usize..3,
        ) {
            let balance = [Balance::RoundRobin, Balance::Weighted, Balance::LeastConnections][kind];
            let mut balancer = Balancer::new(&upstream(balance, &weights));
            for _ in 0..50 {
                let at = balancer.pick(Some(excluded), &[]).unwrap();
                prop_assert!(at != excluded && at < weights.len());
            }
        }
    }
}
