//! Random targets by weight, and the better one of two.

use crate::upstream::hash_key::mix;
use crate::upstream::selection::Fleet;
use crate::upstream::standing::Standing;

/// Draws targets as often as their weights say, in constant time: Walker's alias method, built as
/// Vose (1991) does.
#[derive(Clone, Debug)]
pub struct Draw {
    targets: u32,
    /// Empty: the weights are all the same.
    cells: Box<[Cell]>,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    /// Words below this draw the cell itself, others its alias.
    own: u32,
    alias: u32,
    /// See [`Side::share`].
    share: f32,
}

/// One target of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    pub at: usize,
    /// The mean weight by its own: what one request is of its load.
    pub share: f32,
}

impl Draw {
    pub fn new(weights: &[u32]) -> Draw {
        let targets = weights.len() as u32;
        if weights.iter().all(|weight| weights.first() == Some(weight)) {
            return Draw { targets, cells: Box::default() };
        }
        let mean =
            weights.iter().map(|&weight| f64::from(weight)).sum::<f64>() / f64::from(targets);
        // What each cell has of the mean, until those below it are filled up by those above.
        let mut filled: Vec<f64> = weights.iter().map(|&weight| f64::from(weight) / mean).collect();
        let mut cells: Vec<Cell> = filled
            .iter()
            .enumerate()
            .map(|(at, &of)| Cell { own: u32::MAX, alias: at as u32, share: (1.0 / of) as f32 })
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..cells.len()).partition(|&at| filled.get(at).is_some_and(|&of| of < 1.0));
        while let (Some(low), Some(&high)) = (small.pop(), large.last()) {
            let Some(&part) = filled.get(low) else { break };
            if let Some(cell) = cells.get_mut(low) {
                cell.own = (part * f64::from(u32::MAX)) as u32;
                cell.alias = high as u32;
            }
            let Some(rest) = filled.get_mut(high) else { break };
            *rest -= 1.0 - part;
            if *rest < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Draw { targets, cells: cells.into() }
    }

    /// A target, by `word`. There must be one.
    #[inline]
    fn one(&self, word: u64) -> usize {
        let at = scale(word >> 32, self.targets);
        match self.cells.get(at) {
            None => at,
            // The low half tells within the cell.
            Some(cell) if (word as u32) <= cell.own => at,
            Some(cell) => cell.alias as usize,
        }
    }

    /// Another one than `first`. There must be two.
    #[inline]
    fn other(&self, first: usize, word: u64) -> usize {
        let any = || {
            let at = scale(word, self.targets.saturating_sub(1));
            if at < first { at } else { at + 1 }
        };
        match self.cells.is_empty() {
            true => any(),
            // Where one has nearly all of the weight it would be drawn for long: any other will do.
            false => Some(self.one(word)).filter(|&at| at != first).unwrap_or_else(any),
        }
    }

    fn side(&self, at: usize, permille: u16) -> Side {
        let share = self.cells.get(at).map_or(1.0, |cell| cell.share);
        match permille {
            1_000 => Side { at, share },
            _ => Side { at, share: share * 1_000.0 / f32::from(permille.max(1)) },
        }
    }

    /// Draws a target that is usable, without a look at more than a few.
    #[inline]
    pub fn first(&self, fleet: &impl Fleet, random: u64) -> Drawn {
        let mut word = random;
        for _ in 0..DRAWS {
            let at = self.one(word);
            match fleet.standing(at) {
                Standing::Usable(1_000) => return Drawn::Usable(self.side(at, 1_000)),
                Standing::Usable(permille) if scale(mix(word), 1_000) < usize::from(permille) => {
                    return Drawn::Usable(self.side(at, permille));
                }
                Standing::Usable(_) | Standing::Unusable => word = mix(!word),
                Standing::Ejected => return Drawn::Ejected(at),
            }
        }
        Drawn::Nothing
    }

    /// Draws another target to compare `first` with, if one is soon found.
    #[inline]
    pub fn second(&self, fleet: &impl Fleet, first: Side, random: u64) -> Option<Side> {
        let mut word = random;
        for _ in 0..DRAWS.min(self.targets.saturating_sub(1)) {
            let at = self.other(first.at, word);
            match fleet.standing(at) {
                Standing::Usable(1_000) => return Some(self.side(at, 1_000)),
                Standing::Usable(permille) if scale(mix(word), 1_000) < usize::from(permille) => {
                    return Some(self.side(at, permille));
                }
                _ => word = mix(!word),
            }
        }
        None
    }
}

/// Draws before all targets are looked at.
const DRAWS: u32 = 4;

/// What was drawn.
#[derive(Clone, Copy, Debug)]
pub enum Drawn {
    /// As often as its weight says, of which a share counts while it comes back slowly.
    Usable(Side),
    /// Whether that counts is not known without a look at the others.
    Ejected(usize),
    Nothing,
}

/// A number below `below`, by a word of 32 bits (Lemire 2019, without the rejection: the error is
/// below 2^-16 for 65,536 targets).
#[inline]
pub fn scale(word: u64, below: u32) -> usize {
    (((word & 0xffff_ffff) * u64::from(below)) >> 32) as usize
}

/// Added to latencies before they are compared, in microseconds: below it, differences are noise of
/// the machine more than anything about the target.
const GRAIN_US: f32 = 1_000.0;
/// How much better the second must be. Where two are about as good, the draw decides, so that not
/// all shards run after the best at once.
const MARGIN: f32 = 1.125;

/// The target with the smaller (requests in flight / weight + 1) × latency of two, of which `first`
/// was drawn by weight. Latencies count where both are known: a fresh target is taken to be like
/// the one it is compared with.
///
/// An idle target of a small weight is no better than a busy one of a large weight, or it would get
/// many times its share while little is going on: to move to `second` costs at least what one
/// request is of its load.
#[inline]
pub fn better(fleet: &impl Fleet, first: Side, second: Side) -> usize {
    let load = |side: Side| fleet.in_flight(side.at) as f32 * side.share;
    let (stay, turn) = match (fleet.latency_us(first.at), fleet.latency_us(second.at)) {
        (0, _) | (_, 0) => (1.0, 1.0),
        (stay_us, turn_us) => (stay_us as f32 + GRAIN_US, turn_us as f32 + GRAIN_US),
    };
    let stay = (load(first) + 1.0) * stay;
    let turn = (load(second) + second.share.max(1.0)) * turn;
    if turn * MARGIN < stay { second.at } else { first.at }
}

/// Two different ones of the targets with a weight in `open`: `drawn`, if it is one of them, or one
/// drawn by weight, and another one. The same one twice where there is no other; `None`: there is
/// none at all.
pub fn two_of(open: &[u32], drawn: Option<usize>, random: u64) -> Option<(Side, Side)> {
    let weight = |at: usize| open.get(at).copied().unwrap_or(0);
    let total: u64 = open.iter().map(|&weight| u64::from(weight)).sum();
    let count = open.iter().filter(|&&weight| weight > 0).count();
    let share = |at: usize| total as f64 / (count as f64 * f64::from(weight(at)));
    let side = |at: usize| Side { at, share: share(at) as f32 };
    let first = match drawn.filter(|&at| weight(at) > 0) {
        Some(first) => first,
        None => at_weight(open, below(random, total), None)?,
    };
    let rest = total - u64::from(weight(first));
    let second = at_weight(open, below(mix(!random), rest), Some(first)).unwrap_or(first);
    Some((side(first), side(second)))
}

/// A number below `below`, by any word.
fn below(word: u64, below: u64) -> u64 {
    ((u128::from(word) * u128::from(below)) >> 64) as u64
}

/// The target in which `left` lies, when the weights of all but `except` stand in a row.
fn at_weight(open: &[u32], mut left: u64, except: Option<usize>) -> Option<usize> {
    let mut all = open.iter().enumerate().filter(|(at, _)| Some(*at) != except);
    let found = all.find(|(_, weight)| match left.checked_sub(u64::from(**weight)) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    found.map(|(at, _)| at)
}
