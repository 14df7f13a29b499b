//! Smooth weighted round-robin.

use crate::plan::Backend;

/// Smooth weighted round-robin: over a cycle (the sum of the weights) each choice comes exactly as
/// often as its weight says, spread as evenly as may be.
#[derive(Clone, Debug)]
pub struct WeightedPick {
    shares: Box<[Share]>,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    weight: u32,
    /// nginx's `current_weight`: the share's claim on the next pick.
    claim: i64,
}

impl WeightedPick {
    /// A fresh cycle. Weight 0 gets nothing.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> WeightedPick {
        let shares = weights.into_iter().map(|weight| Share { weight, claim: 0 });
        WeightedPick { shares: shares.collect() }
    }

    /// A fresh cycle over the backends of a route.
    pub fn over(backends: &[Backend]) -> WeightedPick {
        WeightedPick::new(backends.iter().map(|backend| backend.weight))
    }

    /// Index of the next choice; `None`: every weight is 0 but that of `exclude`.
    pub fn pick(&mut self, exclude: Option<usize>) -> Option<usize> {
        self.pick_by(|at, weight| if exclude == Some(at) { 0 } else { weight })
    }

    /// The same with other weights this time, made of the index and the own one.
    pub fn pick_by(&mut self, weight: impl Fn(usize, u32) -> u32) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (at, share) in self.shares.iter_mut().enumerate() {
            let weight = i64::from(weight(at, share.weight));
            if weight == 0 {
                continue;
            }
            share.claim += weight;
            total += weight;
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
    use super::*;

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
        assert_eq!(WeightedPick::new([1, 3]).pick_by(|_, _| 0), None);
    }

    #[test]
    fn another_weight_counts_while_it_holds() {
        let mut pick = WeightedPick::new([1, 1]);
        let mut picks = |permille: u32| {
            let weight = |at: usize, own: u32| own * if at == 1 { permille } else { 1_000 };
            (0..1_000).filter(|_| pick.pick_by(weight) == Some(1)).count()
        };
        // 100 of 1,100 are 91 of 1,000.
        assert!((90..=92).contains(&picks(100)));
        assert!((499..=501).contains(&picks(1_000)));
    }
}
