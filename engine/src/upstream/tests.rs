use std::sync::Arc;

use contract::snapshot::{self, HealthCheck, HealthKind, Snapshot};
use contract::targets::{Cause, Standing as Told, key};
use contract::{Segment, ring::MIN_RING};

use super::book::Book;
use super::breaker::State;
use super::*;
use crate::plan::{Backend, Plan};
use crate::shard::ShardPlan;

const ONE: Backend = Backend { upstream: 0, weight: 1 };

fn upstream(targets: u16) -> snapshot::Upstream {
    let target =
        |n| snapshot::Target { address: ([127, 0, 0, 1], 1_000 + n).into(), ..Default::default() };
    snapshot::Upstream {
        name: "u".into(),
        targets: (0..targets).map(target).collect(),
        outlier: Some(Outlier::default()),
        ..Default::default()
    }
}

/// The upstream's state on each of two shards.
fn shards(upstream: snapshot::Upstream) -> Vec<Rc<UpstreamState>> {
    let snapshot = Snapshot { epoch: 1, upstreams: vec![upstream], ..Default::default() };
    let plan = Arc::new(Plan::build(snapshot).unwrap());
    let plans = ShardPlan::for_shards(&plan, 2);
    plans.iter().map(|plan| plan.upstream(ONE).1.clone()).collect()
}

fn ask(now_ms: u64, random: u64) -> Ask<'static> {
    Ask { now_ms, random: random.wrapping_mul(0x9e37_79b9_7f4a_7c15), ..Ask::default() }
}

/// Has a target's requests end like that until `count` were there.
fn give(shards: &[Rc<UpstreamState>], at: usize, verdict: Verdict, count: usize, now_ms: u64) {
    for n in 0..count {
        shards[n % shards.len()].judge(at, Pass::Free, verdict, 1_000, now_ms);
    }
}

/// Which targets a hundred picks go to, by shard.
fn picked(shards: &[Rc<UpstreamState>], now_ms: u64) -> Vec<usize> {
    let mut seen = Vec::new();
    for shard in shards {
        for n in 0..100 {
            if let Ok(flight) = shard.pick(&ask(now_ms, n)) {
                seen.push(flight.index);
            }
        }
    }
    seen.sort_unstable();
    seen.dedup();
    seen
}

#[test]
fn three_failures_of_a_gateway_eject_on_all_shards_at_once() {
    let shards = shards(upstream(3));
    give(&shards, 1, Verdict::Gateway, 2, 1_000);
    give(&shards, 1, Verdict::Good, 1, 1_000);
    give(&shards, 1, Verdict::Gateway, 2, 1_000);
    assert_eq!(picked(&shards, 1_000), [0, 1, 2]);
    give(&shards, 1, Verdict::Nothing, 5, 1_000);
    give(&shards, 1, Verdict::Gateway, 1, 1_000);
    assert_eq!(picked(&shards, 1_001), [0, 2]);
    assert_eq!(picked(&shards, 30_999), [0, 2]);
    // It comes back, slowly.
    assert_eq!(shards[1].standing(1, 31_000), Standing::Usable(100));
    assert_eq!(shards[1].standing(1, 41_000), Standing::Usable(1_000));
}

#[test]
fn connections_gone_stale_are_failures_once_nothing_else_comes() {
    let shards = shards(upstream(3));
    for _ in 0..5 {
        give(&shards, 1, Verdict::Stale, 3, 1_000);
        give(&shards, 1, Verdict::Good, 1, 1_000);
    }
    assert_eq!(picked(&shards, 1_000), [0, 1, 2], "it answers between");
    give(&shards, 1, Verdict::Stale, 5, 1_000);
    assert_eq!(picked(&shards, 1_000), [0, 1, 2], "two more than peers that close explain");
    give(&shards, 1, Verdict::Stale, 1, 1_000);
    assert_eq!(picked(&shards, 1_001), [0, 2]);
}

#[test]
fn no_more_are_ejected_than_may_be() {
    let shards = shards(upstream(4));
    for at in 0..4 {
        give(&shards, at, Verdict::ServerError, 10, 1_000);
    }
    assert_eq!(picked(&shards, 1_001), [2, 3], "half of them");
    let alone = self::shards(upstream(1));
    give(&alone, 0, Verdict::Gateway, 100, 1_000);
    assert_eq!(picked(&alone, 1_001), [0], "the only one stays");
}

/// A check of whether connections can be opened, whose results count at once.
fn check() -> HealthCheck {
    HealthCheck {
        kind: HealthKind::Tcp,
        interval_ms: 100,
        timeout_ms: 100,
        healthy_after: 1,
        unhealthy_after: 1,
    }
}

#[test]
fn a_check_that_succeeds_ends_an_ejection() {
    let check = check();
    let shards = shards(snapshot::Upstream { health: Some(check.clone()), ..upstream(2) });
    give(&shards, 0, Verdict::Gateway, 3, 1_000);
    assert_eq!(picked(&shards, 1_500), [1]);
    shards[0].targets[0].checked(true, &check, 1_400);
    assert_eq!(picked(&shards, 1_500), [1], "that it accepts connections says little");
    let check = HealthCheck { kind: HealthKind::Grpc { service: String::new() }, ..check };
    shards[0].targets[0].checked(true, &check, 1_500);
    assert_eq!(shards[1].standing(0, 1_500), Standing::Usable(100));
    shards[0].targets[0].checked(false, &check, 1_600);
    assert_eq!(shards[1].standing(0, 1_600), Standing::Unusable);
}

#[test]
fn a_failing_fleet_member_is_found_by_comparison() {
    let shards = shards(snapshot::Upstream {
        outlier: Some(Outlier { interval_ms: 1_000, ..Outlier::default() }),
        ..upstream(6)
    });
    shards[0].keep_house(true, 1_000, 1);
    for at in 0..6 {
        // Never three failures in a row.
        for n in 0..200 {
            let verdict = match at == 4 && n % 2 == 0 {
                true => Verdict::Gateway,
                false => Verdict::Good,
            };
            shards[n % 2].judge(at, Pass::Free, verdict, 1_000, 1_500);
        }
    }
    shards[0].keep_house(true, 1_999, 1);
    assert_eq!(picked(&shards, 1_999), [0, 1, 2, 3, 4, 5], "not before the interval is over");
    shards[0].keep_house(true, 2_000, 1);
    assert_eq!(picked(&shards, 2_000), [0, 1, 2, 3, 5]);
}

#[test]
fn bounds_hold_for_the_node() {
    let shards = shards(snapshot::Upstream {
        bounds: Bounds { max_requests: 3, max_pending: 0 },
        target_bounds: Bounds { max_requests: 1, max_pending: 0 },
        ..upstream(2)
    });
    let held: Vec<Admitted> = (0..3).map(|n| shards[n % 2].admit(1).unwrap()).collect();
    assert_eq!(shards[1].admit(1).err(), Some(Refusal::Bound));
    drop(held);
    assert!(shards[1].admit(1).is_ok());
    let one = shards[0].pick(&ask(1, 1)).unwrap();
    let other = shards[1].pick(&ask(1, 2)).unwrap();
    assert_ne!(one.index, other.index);
    assert_eq!(shards[0].pick(&ask(1, 3)).err(), Some(Refusal::Bound));
    drop(one);
    assert!(shards[1].pick(&ask(1, 4)).is_ok());
}

#[test]
fn an_open_breaker_refuses_and_probes() {
    let breaker = Breaker { consecutive: 3, error_percent: 0, probes: 1, ..Breaker::default() };
    let shards = shards(snapshot::Upstream { breaker: Some(breaker), ..upstream(2) });
    for n in 0..3 {
        shards[n % 2].admit(1_000).unwrap().finish(Verdict::Gateway, 1, 1_000);
    }
    assert_eq!(shards[0].admit(1_001).err(), Some(Refusal::BreakerOpen));
    let probe = shards[1].admit(6_000).unwrap();
    assert_eq!(shards[0].admit(6_000).err(), Some(Refusal::BreakerOpen), "one probe");
    drop(probe);
    let probe = shards[0].admit(6_000).unwrap();
    probe.finish(Verdict::Good, 1, 6_000);
    assert!(shards[1].admit(6_000).is_ok() && shards[1].admit(6_000).is_ok());
}

#[test]
fn a_target_with_an_open_breaker_is_passed_over() {
    let breaker = Breaker { consecutive: 2, error_percent: 0, probes: 1, ..Breaker::default() };
    let shards =
        shards(snapshot::Upstream { target_breaker: Some(breaker), outlier: None, ..upstream(2) });
    give(&shards, 0, Verdict::ServerError, 2, 1_000);
    assert_eq!(picked(&shards, 1_000), [1]);
    give(&shards, 1, Verdict::ServerError, 2, 1_000);
    assert_eq!(shards[0].pick(&ask(1_000, 1)).err(), Some(Refusal::BreakerOpen));
    let flights: Vec<_> = (0..9).filter_map(|n| shards[0].pick(&ask(6_000, n)).ok()).collect();
    assert_eq!(flights.len(), 2, "a probe each");
    flights[0].judge(Verdict::Good, 1, 6_000);
    drop(flights);
    assert_eq!(
        shards[1].targets.iter().filter(|t| t.breaker.state(6_000) == State::Closed).count(),
        1
    );
}

#[test]
fn too_little_alive_is_refused_at_once() {
    let shards = shards(snapshot::Upstream { min_live_percent: 60, ..upstream(4) });
    assert!(shards[0].admit(1_000).is_ok());
    give(&shards, 0, Verdict::Gateway, 3, 1_000);
    assert!(shards[0].admit(1_001).is_ok());
    give(&shards, 1, Verdict::Gateway, 3, 1_000);
    assert_eq!(shards[1].admit(1_001).err(), Some(Refusal::BelowFloor));
}

#[test]
fn retries_are_a_share_of_the_active() {
    let shards = shards(upstream(2));
    let least: Vec<_> = (0..9).filter_map(|n| shards[n % 2].retry_permit()).collect();
    assert_eq!(least.len(), 3);
    let active: Vec<Admitted> = (0..50).map(|n| shards[n % 2].admit(1).unwrap()).collect();
    let more: Vec<_> = (0..90).filter_map(|n| shards[n % 2].retry_permit()).collect();
    assert_eq!(least.len() + more.len(), 10, "a fifth of 50");
    drop((active, more, least));
    assert_eq!((shards[0].node.active(), shards[0].node.retries.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn power_of_two_prefers_the_faster() {
    let shards = shards(upstream(2));
    for n in 0..100 {
        shards[0].judge(0, Pass::Free, Verdict::Good, 50_000, n);
        shards[0].judge(1, Pass::Free, Verdict::Good, 1_000, n);
    }
    let slow = (0..1_000).filter(|&n| shards[0].pick(&ask(100, n)).unwrap().index == 0).count();
    assert!(slow < 400, "{slow} of 1,000 to the slow one");
    assert!(shards[0].latency_quantile(500).unwrap() < 1_200);
}

#[test]
fn control_is_told() {
    let (_fd, segment) = Segment::create(2, MIN_RING).unwrap();
    let book = Book::new(2, Some(segment.targets()));
    let snapshot = Snapshot { epoch: 1, upstreams: vec![upstream(3)], ..Default::default() };
    let plan = Plan::build(snapshot).unwrap();
    let upstream = &plan.upstreams[0];
    let pools = upstream.targets.iter().map(|target| Pool::new(upstream, target)).collect();
    let keys = upstream.targets.iter().map(|target| ("u".into(), target.address));
    let targets = keys.map(|key| book.target(&key)).collect();
    let state = UpstreamState::new(upstream, 0, pools, targets, book.upstream("u"));
    let told = |address| {
        let all: std::collections::HashMap<_, _> = segment.targets().read().collect();
        all.get(&key("u", address)).copied()
    };
    let first = Some(upstream.targets[0].address);
    let flights: Vec<_> = (0..8).map(|n| state.pick(&ask(1_000, n)).unwrap()).collect();
    let _active = state.admit(1_000);
    for _ in 0..3 {
        state.judge(0, Pass::Free, Verdict::Gateway, 1, 1_000);
    }
    state.keep_house(true, 1_000, 77);
    let ejected = told(first).unwrap();
    assert_eq!((ejected.standing, ejected.since_ms), (Told::Ejected, 77));
    assert_eq!(ejected.counts.of(Cause::ConsecutiveGateway), 1);
    assert_eq!((ejected.counts.ejections(), ejected.returns), (1, 0));
    let whole = told(None).unwrap();
    assert_eq!((whole.standing, whole.share_permille, whole.in_flight), (Told::Healthy, 666, 1));
    let all = upstream.targets.iter().map(|target| told(Some(target.address)).unwrap().in_flight);
    assert_eq!(all.sum::<u32>(), 8);
    drop(flights);
    state.keep_house(false, 1_500, 78);
    let all = upstream.targets.iter().map(|target| told(Some(target.address)).unwrap().in_flight);
    assert_eq!(all.sum::<u32>(), 0);
    state.keep_house(true, 31_000, 79);
    let back = told(first).unwrap();
    assert_eq!((back.standing, back.counts.ejections(), back.returns), (Told::SlowStart, 1, 1));
    drop((_active, state));
    assert_eq!(told(first), None, "nobody has it any more");
}

#[test]
fn comparisons_go_on_over_plans() {
    let config = snapshot::Upstream {
        outlier: Some(Outlier { interval_ms: 1_000, ..Outlier::default() }),
        ..upstream(6)
    };
    let snapshot = Snapshot { epoch: 1, upstreams: vec![config], ..Default::default() };
    let plan = Plan::build(snapshot).unwrap();
    let book = Book::new(1, None);
    // A new plan every 100 ms, the whole time.
    let mut last = state_of(&plan, &book);
    for turn in 0..=10u64 {
        let now_ms = 1_000 + turn * 100;
        let state = state_of(&plan, &book);
        for at in 0..6 {
            for n in 0..20 {
                let failed = at == 4 && n % 2 == 0;
                let verdict = if failed { Verdict::Gateway } else { Verdict::Good };
                state.judge(at, Pass::Free, verdict, 1_000, now_ms);
            }
        }
        state.keep_house(true, now_ms, 1);
        last = state;
    }
    assert_eq!(last.standing(4, 2_001), Standing::Ejected);
    assert_eq!(last.standing(3, 2_001), Standing::FULL);
}

#[test]
fn verdicts_of_checks_that_are_no_more_are_not_heeded() {
    let check = check();
    let plan = |health| {
        let upstreams = vec![snapshot::Upstream { health, ..upstream(2) }];
        Plan::build(Snapshot { epoch: 1, upstreams, ..Default::default() }).unwrap()
    };
    let book = Book::new(1, None);
    let checked = state_of(&plan(Some(check.clone())), &book);
    checked.targets[1].checked(false, &check, 1_000);
    assert_eq!(checked.standing(1, 1_000), Standing::Unusable);
    let unchecked = state_of(&plan(None), &book);
    assert_eq!(unchecked.standing(1, 1_001), Standing::FULL);
}

#[test]
fn a_target_with_enough_to_do_is_alive() {
    let shards = shards(snapshot::Upstream {
        min_live_percent: 60,
        target_bounds: Bounds { max_requests: 1, max_pending: 0 },
        ..upstream(2)
    });
    let _held: Vec<_> = (0..2).map(|n| shards[0].pick(&ask(1, n)).unwrap()).collect();
    assert!(shards[1].admit(1).is_ok());
    assert_eq!(shards[1].pick(&ask(1, 3)).err(), Some(Refusal::Bound));
}

#[test]
fn a_change_is_told_at_once() {
    let (_fd, segment) = Segment::create(2, MIN_RING).unwrap();
    let book = Book::new(1, Some(segment.targets()));
    let breaker = Breaker { consecutive: 3, error_percent: 0, ..Breaker::default() };
    let upstreams = vec![snapshot::Upstream { breaker: Some(breaker), ..upstream(3) }];
    let plan = Plan::build(Snapshot { epoch: 1, upstreams, ..Default::default() }).unwrap();
    let state = state_of(&plan, &book);
    let told = |address| {
        let all: std::collections::HashMap<_, _> = segment.targets().read().collect();
        let told = all[&key("u", address)];
        (told.standing, told.since_ms)
    };
    let first = Some(plan.upstreams[0].targets[0].address);
    state.keep_house(true, 1_000, 500_000);
    assert_eq!(told(first), (Told::Unknown, 500_000));
    for _ in 0..3 {
        state.judge(0, Pass::Free, Verdict::Gateway, 1, 1_100);
        state.admit(1_100).unwrap().finish(Verdict::Gateway, 1, 1_100);
    }
    assert_eq!(told(first), (Told::Ejected, 500_100));
    assert_eq!(told(None), (Told::Open, 500_100));
    let probes: Vec<_> = (0..3).map(|_| state.admit(6_100).unwrap()).collect();
    probes.iter().for_each(|probe| probe.finish(Verdict::Good, 1, 6_200));
    assert_eq!(told(None), (Told::Healthy, 505_200));
    let all: std::collections::HashMap<_, _> = segment.targets().read().collect();
    let whole = all[&key("u", None)];
    assert_eq!((whole.counts.of(Cause::ConsecutiveErrors), whole.counts.openings()), (1, 1));
    assert_eq!(whole.probes, 3);
}

#[test]
fn an_outage_does_not_bind_what_comes_after() {
    let concurrency = AdaptiveConcurrency { min: 8, max: 1_000, tolerance_percent: 50 };
    let shards = shards(snapshot::Upstream { concurrency: Some(concurrency), ..upstream(2) });
    let serve = |from_ms: u64, verdict, latency_us| {
        for now_ms in from_ms..from_ms + 5_000 {
            let active: Vec<_> = (0..150).filter_map(|_| shards[0].admit(now_ms).ok()).collect();
            active.iter().for_each(|one| one.finish(verdict, latency_us, now_ms));
        }
        shards[1].node.adaptive.limit(&concurrency)
    };
    assert!(serve(1, Verdict::Good, 10_000) >= 150);
    assert!(serve(6_000, Verdict::Gateway, 100) >= 150, "refused connections");
    assert!(serve(12_000, Verdict::Good, 10_000) >= 150, "as fast as before");
    assert!(serve(18_000, Verdict::Gateway, 500_000) < 100, "time-outs are slowness");
}

/// Many threads at once, each a shard: bounds hold, and in the end nothing is left counted.
#[test]
fn shards_race_within_the_bounds() {
    const SHARDS: u16 = 4;
    let breaker = Breaker { consecutive: 3, open_ms: 5, probes: 2, ..Breaker::default() };
    let config = snapshot::Upstream {
        bounds: Bounds { max_requests: 5, max_pending: 0 },
        target_bounds: Bounds { max_requests: 2, max_pending: 0 },
        target_breaker: Some(breaker),
        outlier: Some(Outlier { base_ejection_ms: 3, panic_percent: 0, ..Outlier::default() }),
        ..upstream(6)
    };
    let snapshot = Snapshot { epoch: 1, upstreams: vec![config], ..Default::default() };
    let plan = Plan::build(snapshot).unwrap();
    let book = Book::new(SHARDS, None);
    let at_targets: [std::sync::atomic::AtomicU32; 6] = Default::default();
    let whole = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for shard in 0..SHARDS {
            let (plan, book, at_targets, whole) = (&plan, &book, &at_targets, &whole);
            scope.spawn(move || {
                let state = state_of_shard(plan, book, shard);
                let mut word = u64::from(shard) + 1;
                for now_ms in 1..5_000u64 {
                    // xorshift64 (Marsaglia 2003).
                    word ^= word << 13;
                    word ^= word >> 7;
                    word ^= word << 17;
                    let Ok(admitted) = state.admit(now_ms) else { continue };
                    assert!(whole.fetch_add(1, Ordering::SeqCst) < 5);
                    if let Ok(flight) = state.pick(&ask(now_ms, word)) {
                        assert!(at_targets[flight.index].fetch_add(1, Ordering::SeqCst) < 2);
                        let verdict = match word >> 60 {
                            0..8 => Verdict::Good,
                            8..14 => Verdict::Gateway,
                            _ => Verdict::Nothing,
                        };
                        at_targets[flight.index].fetch_sub(1, Ordering::SeqCst);
                        flight.judge(verdict, 1, now_ms);
                        admitted.finish(verdict, 1, now_ms);
                    }
                    whole.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    let state = state_of(&plan, &book);
    assert_eq!((state.node.active(), state.node.bounded.load(Ordering::Relaxed)), (0, 0));
    for target in &state.targets {
        assert_eq!(target.in_flight.load(Ordering::Relaxed), 0);
        let probes: Vec<_> = (0..3).map(|_| target.breaker.take(&breaker, 1 << 40)).collect();
        let free = probes.iter().filter(|pass| **pass != Pass::No).count();
        assert!(free >= 2, "no probe is lost: {probes:?}");
    }
}

fn state_of(plan: &Plan, book: &Book) -> Rc<UpstreamState> {
    state_of_shard(plan, book, 0)
}

/// The first upstream's state on a shard of the node that has `book`.
fn state_of_shard(plan: &Plan, book: &Book, shard: u16) -> Rc<UpstreamState> {
    let upstream = &plan.upstreams[0];
    let pools = upstream.targets.iter().map(|target| Pool::new(upstream, target)).collect();
    let keys = upstream.targets.iter().map(|target| (upstream.name.clone(), target.address));
    let targets = keys.map(|key| book.target(&key)).collect();
    UpstreamState::new(upstream, shard, pools, targets, book.upstream(&upstream.name))
}
