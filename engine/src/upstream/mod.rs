//! Upstreams as one shard sees them: who is next, and over which connection.

pub mod balance;
pub(crate) mod health;
pub mod pool;
mod shared;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use balance::Balancer;
use health::Health;
use pool::Pool;

/// One upstream's state on one shard, for one plan. Pools outlive it: the shard hands the same
/// pool to the next plan's state of the same upstream and target.
pub struct UpstreamState {
    balancer: RefCell<Balancer>,
    in_flight: RefCell<Vec<u32>>,
    pub pools: Vec<Rc<Pool>>,
    /// By target; empty where no checks are made.
    pub(crate) health: Vec<Arc<Health>>,
}

impl UpstreamState {
    pub(crate) fn new(
        balancer: Balancer,
        pools: Vec<Rc<Pool>>,
        health: Vec<Arc<Health>>,
    ) -> Rc<UpstreamState> {
        let in_flight = RefCell::new(vec![0; pools.len()]);
        Rc::new(UpstreamState { balancer: RefCell::new(balancer), in_flight, pools, health })
    }

    /// Picks the next target that is not known to be unhealthy, other than the one at `exclude`
    /// unless that is the only one.
    #[inline]
    pub fn pick(self: &Rc<Self>, exclude: Option<usize>) -> Option<InFlight> {
        let mut in_flight = self.in_flight.borrow_mut();
        let mut balancer = self.balancer.borrow_mut();
        let usable = |at: usize| self.health.get(at).is_none_or(|health| health.is_usable());
        let index = balancer
            .pick_of(|at| exclude != Some(at) && usable(at), &in_flight)
            .or_else(|| exclude.and_then(|_| balancer.pick_of(usable, &in_flight)))?;
        *in_flight.get_mut(index)? += 1;
        Some(InFlight { upstream: self.clone(), index })
    }
}

/// A request at a target, counted until this is dropped.
pub struct InFlight {
    upstream: Rc<UpstreamState>,
    pub index: usize,
}

impl InFlight {
    pub fn pool(&self) -> &Rc<Pool> {
        &self.upstream.pools[self.index]
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(count) = self.upstream.in_flight.borrow_mut().get_mut(self.index) {
            *count -= 1;
        }
    }
}
