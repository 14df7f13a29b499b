//! The health checks that this shard runs for its node: one task per target that falls to it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use contract::Counter;

use super::{Shard, ShardPlan};
use crate::io::Watch;
use crate::upstream::health::{self, Change, Found, Key};

/// Tasks that wait for a new plan or their next check.
#[derive(Default)]
pub struct Checks {
    /// Each target that has a task, with the task's waker while it sleeps.
    running: RefCell<HashMap<Key, Option<Waker>>>,
    overseer: RefCell<Option<Waker>>,
}

impl Checks {
    /// A plan was adopted: everyone looks at it.
    pub fn look(&self) {
        let mut running = self.running.borrow_mut();
        let sleepers = running.values_mut().filter_map(Option::take);
        let wakers: Vec<Waker> = sleepers.chain(self.overseer.borrow_mut().take()).collect();
        drop(running);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn sleep(&self, key: &Key, cx: &Context<'_>) {
        if let Some(slot) = self.running.borrow_mut().get_mut(key) {
            *slot = Some(cx.waker().clone());
        }
    }
}

/// A target to check, in one plan.
struct Subject {
    plan: Rc<ShardPlan>,
    upstream: usize,
    target: usize,
}

impl Shard {
    /// Runs the checks that fall to this shard, plan after plan.
    pub async fn check_targets(self: Rc<Self>) {
        let mut looked_at: Option<Rc<[_]>> = None;
        loop {
            let plan = self.plan();
            let epoch = plan.plan.epoch;
            // Plans with the same upstreams have the same checks.
            let same = looked_at.as_ref().is_some_and(|old| Rc::ptr_eq(old, &plan.upstreams));
            if !same {
                looked_at = Some(plan.upstreams.clone());
                for key in self.assigned(&plan) {
                    let fresh = !self.checks.running.borrow().contains_key(&key);
                    if fresh {
                        self.checks.running.borrow_mut().insert(key.clone(), None);
                        self.io.spawn(run(Running { shard: self.clone(), key }));
                    }
                }
            }
            drop(plan);
            poll_fn(|cx| {
                if epoch != self.epoch() {
                    return Poll::Ready(());
                }
                *self.checks.overseer.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
        }
    }

    /// The targets of a plan that this shard checks for the node.
    fn assigned(&self, plan: &ShardPlan) -> Vec<Key> {
        let checked = plan.plan.upstreams.iter().filter(|upstream| upstream.health.is_some());
        let keys = checked.flat_map(|upstream| {
            upstream.targets.iter().map(|target| (upstream.name.clone(), target.address))
        });
        keys.filter(|key| health::checker(key, self.seat.shards) == self.seat.index).collect()
    }

    fn subject(&self, key: &Key) -> Option<Subject> {
        let plan = self.plan();
        let upstreams = &plan.plan.upstreams;
        let at = upstreams.iter().position(|upstream| upstream.name == key.0)?;
        let upstream = upstreams.get(at)?;
        upstream.health.as_ref()?;
        let target = upstream.targets.iter().position(|target| target.address == key.1)?;
        Some(Subject { plan, upstream: at, target })
    }
}

/// A running task's entry; gone with it.
struct Running {
    shard: Rc<Shard>,
    key: Key,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shard.checks.running.borrow_mut().remove(&self.key);
    }
}

/// Checks one target for as long as the plan has it.
async fn run(running: Running) {
    let (shard, key) = (&running.shard, &running.key);
    let watch = shard.io.watch();
    let mut due_ms = 0;
    while !shard.is_draining() {
        let Some(subject) = shard.subject(key) else { return };
        let Some(interval_ms) = subject.interval_ms() else { return };
        if due_ms <= shard.io.clock().now_ms() {
            check(shard, &watch, &subject).await;
            due_ms = u64::MAX;
        }
        // A new plan does not put a check off, but may want it sooner.
        let latest_ms = shard.io.clock().now_ms() + health::jittered(interval_ms, shard.random());
        due_ms = due_ms.min(latest_ms);
        let epoch = subject.plan.plan.epoch;
        // The plan is not kept while nothing happens.
        drop(subject);
        watch.set_at(due_ms);
        let replaced = poll_fn(|cx| {
            if shard.epoch() != epoch {
                return Poll::Ready(());
            }
            shard.checks.sleep(key, cx);
            Poll::Pending
        });
        let _ = watch.bound(replaced).await;
    }
}

impl Subject {
    fn interval_ms(&self) -> Option<u32> {
        let upstream = self.plan.plan.upstreams.get(self.upstream)?;
        upstream.health.as_ref().map(|check| check.interval_ms)
    }
}

async fn check(shard: &Shard, watch: &Watch, subject: &Subject) -> Option<()> {
    let plan = &subject.plan;
    let upstream = plan.plan.upstreams.get(subject.upstream)?;
    let target = upstream.targets.get(subject.target)?;
    let settings = upstream.health.as_ref()?;
    let state = plan.upstreams.get(subject.upstream)?;
    let (pool, known) = (state.pools.get(subject.target)?, state.targets.get(subject.target)?);
    watch.set_in(u64::from(settings.timeout_ms));
    let found = health::check(&shard.io, watch, pool, upstream, target, &settings.kind).await;
    shard.meter.count(Counter::HealthChecks, 1);
    let success = match found {
        Found::Healthy => true,
        Found::Unhealthy => false,
        Found::Nothing => return None,
    };
    shard.meter.count(Counter::HealthFailures, u64::from(!success));
    let now_ms = shard.io.clock().now_ms();
    let change = known.checked(success, settings, now_ms);
    state.tell_target(subject.target, now_ms);
    match change {
        Some(Change::Lost) => shard.meter.count(Counter::TargetsLost, 1),
        Some(Change::Recovered) => shard.meter.count(Counter::TargetsRecovered, 1),
        None => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::{Segment, snapshot};

    use super::*;
    use crate::io::tests::{shard, small};
    use crate::io::{Io, Swap};
    use crate::observe::Meter;
    use crate::plan::{Backend, Plan};
    use crate::testing::seat;
    use crate::upstream::Ask;
    use crate::upstream::book::Book;
    use crate::upstream::health::tests::{Says, Server};

    fn plan(epoch: u64, targets: &[&Server]) -> Arc<Plan> {
        let target = |server: &&Server| snapshot::Target {
            address: server.address,
            weight: 1,
            name: "t:1".into(),
            ..Default::default()
        };
        let kind = snapshot::HealthKind::Grpc { service: "s".into() };
        let upstream = snapshot::Upstream {
            name: "u".into(),
            balance: snapshot::Balance::RoundRobin,
            targets: targets.iter().map(target).collect(),
            pool: Default::default(),
            timeouts: Default::default(),
            host_header: Default::default(),
            protocol: snapshot::Protocol::Http2,
            tls: None,
            health: Some(snapshot::HealthCheck {
                kind,
                interval_ms: 5,
                timeout_ms: 5_000,
                healthy_after: 2,
                unhealthy_after: 3,
            }),
            ..Default::default()
        };
        let snapshot =
            snapshot::Snapshot { epoch, upstreams: vec![upstream], ..Default::default() };
        Arc::new(Plan::build(snapshot).unwrap())
    }

    fn shards(io: &Io, plans: &Arc<Swap<Plan>>) -> [Rc<Shard>; 2] {
        let (_, segment) = Segment::create(2, contract::ring::MIN_RING).unwrap();
        let health = Arc::new(Book::new(2, None));
        [0, 1].map(|index| {
            let meter = Meter::new(segment.shard(index), segment.ring_writer(index).unwrap());
            let store = crate::store::Store::start(2).unwrap();
            let seat = seat(index, 2, &health, &store);
            let shard = Shard::new(io.clone(), meter, plans.clone(), seat, [7, 9]);
            io.spawn(shard.clone().check_targets());
            shard
        })
    }

    /// Where each shard would send a request now.
    fn picks(shards: &[Rc<Shard>; 2]) -> [Option<usize>; 2] {
        [0, 1].map(|at| {
            let plan = shards[at].plan();
            let (_, state) = plan.upstream(Backend { upstream: 0, weight: 1 });
            state.pick(&Ask::default()).ok().map(|flight| flight.index)
        })
    }

    async fn until(io: &Io, mut holds: impl FnMut() -> bool) {
        for _ in 0..2_000 {
            if holds() {
                return;
            }
            io.sleep_ms(5).await;
        }
        panic!("it never came");
    }

    #[test]
    fn all_shards_pass_over_what_one_of_them_found_unhealthy() {
        let (a, b) = (Server::start(Says::Status(1)), Server::start(Says::Status(2)));
        shard(small(), move |io| async move {
            let plans = Arc::new(Swap::new(plan(1, &[&a, &b]), 1));
            let shards = shards(&io, &plans);
            until(&io, || (0..4).all(|_| picks(&shards) == [Some(0); 2])).await;
            assert_eq!(shards[0].assigned(&shards[0].plan()).len(), {
                2 - shards[1].assigned(&shards[1].plan()).len()
            });

            a.say(Says::Fails(b"14"));
            until(&io, || picks(&shards) == [None; 2]).await;
            b.say(Says::Status(1));
            until(&io, || (0..4).all(|_| picks(&shards) == [Some(1); 2])).await;

            // What is known survives a plan: `a` is the second now, and still passed over.
            plans.set(plan(2, &[&b, &a]), 2);
            assert!((0..4).all(|_| picks(&shards) == [Some(0); 2]));

            // Checks end with their target.
            plans.set(plan(3, &[&b]), 3);
            let running =
                || shards.iter().map(|one| one.checks.running.borrow().len()).sum::<usize>();
            until(&io, || {
                picks(&shards);
                running() == 1
            })
            .await;
            plans.set(plan(4, &[]), 4);
            until(&io, || {
                assert_eq!(picks(&shards), [None; 2]);
                running() == 0
            })
            .await;
            plans.set(plan(5, &[&a]), 5);
            a.say(Says::Status(1));
            until(&io, || picks(&shards) == [Some(0); 2] && running() == 1).await;
        });
    }
}
