//! A plan with what one shard counts and rotates beside it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::Pools;
use crate::plan::{Backend, Plan, Route, Target, Upstream};
use crate::route::RouteIndex;
use crate::upstream::UpstreamState;
use crate::upstream::balance::WeightedPick;
use crate::upstream::book::Book;
use crate::upstream::pool::Pool;

/// The plan a request runs under, from its beginning to its end.
pub struct ShardPlan {
    pub plan: Arc<Plan>,
    pub(super) upstreams: Rc<[Rc<UpstreamState>]>,
    /// Of routes with something to choose.
    canaries: HashMap<RouteIndex, RefCell<WeightedPick>>,
}

impl ShardPlan {
    /// Puts the shard's state beside `plan`. Pools of known targets move from `old` to `pools`, new
    /// ones are made there. What the node knows of its targets comes from `book`.
    pub(super) fn build(
        plan: Arc<Plan>,
        old: &mut Pools,
        pools: &mut Pools,
        book: &Book,
        shard: u16,
    ) -> Rc<ShardPlan> {
        let upstreams = ShardPlan::upstreams(&plan, old, pools, book, shard);
        ShardPlan::with(plan, upstreams)
    }

    /// The shard's state beside a plan with the same upstreams as this one: they go on as they are. The
    /// work of a change must not grow with what it does not touch, as requests wait meanwhile. `None`:
    /// they are others.
    pub(super) fn next(&self, plan: &Arc<Plan>) -> Option<Rc<ShardPlan>> {
        let (old, new) = (&self.plan.upstreams, &plan.upstreams);
        let same = old.len() == new.len() && old.iter().zip(new).all(|(a, b)| Arc::ptr_eq(a, b));
        same.then(|| ShardPlan::with(plan.clone(), self.upstreams.clone()))
    }

    fn with(plan: Arc<Plan>, upstreams: Rc<[Rc<UpstreamState>]>) -> Rc<ShardPlan> {
        let canaries = plan.canaries.iter().map(|index| {
            let pick = WeightedPick::over(&plan.route(*index).backends);
            (*index, RefCell::new(pick))
        });
        let canaries = canaries.collect();
        Rc::new(ShardPlan { plan, upstreams, canaries })
    }

    fn upstreams(
        plan: &Plan,
        old: &mut Pools,
        pools: &mut Pools,
        book: &Book,
        shard: u16,
    ) -> Rc<[Rc<UpstreamState>]> {
        plan.upstreams
            .iter()
            .map(|upstream| {
                let mut pool = |target: &Target| {
                    let key = (upstream.name.clone(), target.address);
                    let known = match old.remove(&key) {
                        Some(known) if known.suits(upstream, target) => Some(known),
                        Some(other) => {
                            other.clear();
                            None
                        }
                        None => None,
                    };
                    let pool = pools
                        .entry(key)
                        .or_insert_with(|| known.unwrap_or_else(|| Pool::new(upstream, target)))
                        .clone();
                    pool.configure(upstream.pool);
                    pool
                };
                let pools = upstream.targets.iter().map(&mut pool).collect();
                let key = |target: &Target| (upstream.name.clone(), target.address);
                let known = upstream.targets.iter().map(|target| book.target(&key(target)));
                let node = book.upstream(&upstream.name);
                UpstreamState::new(upstream, shard, pools, known.collect(), node)
            })
            .collect()
    }

    /// The plan as each of the shards of a node has it, without the shards.
    #[cfg(test)]
    pub(crate) fn for_shards(plan: &Arc<Plan>, shards: u16) -> Vec<Rc<ShardPlan>> {
        let book = Book::new(shards, None);
        let build = |shard| {
            let (old, pools) = (&mut Pools::new(), &mut Pools::new());
            ShardPlan::build(plan.clone(), old, pools, &book, shard)
        };
        (0..shards).map(build).collect()
    }

    /// The upstream that takes this request of the route; `None`: every weight is 0.
    #[inline]
    pub fn backend(&self, index: RouteIndex) -> Option<Backend> {
        let route: &Route = self.plan.route(index);
        if !route.is_canary() {
            return route.backends.first().copied();
        }
        let at = self.canaries.get(&index)?.borrow_mut().pick(None)?;
        route.backends.get(at).copied()
    }

    pub fn upstream(&self, backend: Backend) -> (&Upstream, &Rc<UpstreamState>) {
        (self.plan.upstream(backend), &self.upstreams[backend.upstream as usize])
    }
}
