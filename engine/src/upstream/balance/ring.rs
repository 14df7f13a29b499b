//! Consistent hashing: targets own points of a ring, keys go to the next point (Karger et al.
//! 1997), weights say how many points. Of Maglev's table (2016) and the ring, the ring moves fewer
//! keys when a target comes or goes, and its order is the one in which bounded loads look on
//! (Mirrokni, Thorup, Zadimoghaddam 2018).

use std::net::SocketAddr;

use crate::limits;
use crate::plan::Target;
use crate::upstream::hash_key::{hash, mix};
use crate::upstream::selection::tiers;

/// The rings of one upstream, one for each tier of its targets. Made with the plan, shared by all
/// shards; the same on every node that has the same targets.
#[derive(Debug)]
pub struct Rings {
    tiers: Box<[Ring]>,
}

#[derive(Debug, Default)]
struct Ring {
    /// In ascending order.
    points: Box<[Point]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    place: u32,
    target: u32,
}

/// Points of a target of the mean weight, or down to half as many: its share is then off by some
/// 7 %.
const POINTS: usize = 256;

impl Rings {
    pub fn new(targets: &[Target]) -> Rings {
        let (tier_of, count) = tiers(targets);
        let ring = |tier| {
            let members = tier_of.iter().zip(targets).enumerate();
            let members = members.filter(|(_, (of, _))| **of == tier);
            Ring::new(&members.map(|(at, (_, target))| (at as u32, target)).collect::<Vec<_>>())
        };
        Rings { tiers: (0..count).map(ring).collect() }
    }

    /// The targets of a tier in the order in which `key` prefers them, the same one several times,
    /// up to a bound.
    pub fn walk(&self, tier: usize, key: u64) -> impl Iterator<Item = usize> {
        let points = self.tiers.get(tier).map_or(&[][..], |ring| &ring.points);
        let place = (key >> 32) as u32;
        let start = points.partition_point(|point| point.place < place);
        let (before, after) = points.split_at_checked(start).unwrap_or_default();
        let all = after.iter().chain(before).take(limits::RING_STEPS);
        all.map(|point| point.target as usize)
    }
}

impl Ring {
    fn new(members: &[(u32, &Target)]) -> Ring {
        let whole: u64 = members.iter().map(|(_, target)| u64::from(target.weight)).sum();
        let all = (members.len() * POINTS).min(limits::RING_POINTS) as u64;
        // Points for a weight of 2^32. Powers of two, so that it seldom changes as targets come and
        // go, and then no point of another target comes or goes with them.
        let unit = (all << 32)
            .checked_div(whole)
            .and_then(u64::checked_ilog2)
            .map_or(0, |log| 1u64 << log);
        let mut points = Vec::with_capacity(all as usize + members.len());
        for &(at, target) in members {
            let count = ((u128::from(target.weight) * u128::from(unit)) >> 32).max(1) as u64;
            // A target with fewer points keeps the first ones: little moves when shares change.
            let seed = seed(target.address);
            let place = |number: u64| (mix(seed.wrapping_add(number)) >> 32) as u32;
            points.extend((0..count).map(|number| Point { place: place(number), target: at }));
        }
        points.sort_unstable();
        Ring { points: points.into() }
    }
}

/// Where a target's points begin. By its address: one name may have several.
fn seed(address: SocketAddr) -> u64 {
    let port = hash(&address.port().to_be_bytes());
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) => hash(&ip.octets()),
        std::net::IpAddr::V6(ip) => hash(&ip.octets()),
    };
    mix(ip ^ port.rotate_left(32))
}
