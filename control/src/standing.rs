//! How upstreams and targets stand: what the engine tells, under the names of the snapshot.

use std::collections::{BTreeMap, HashMap};

use contract::Segment;
use contract::snapshot::{self as flat, Balance};
use contract::targets::{Cause, Standing, Told, key};

use crate::api::model::{Target, Upstream, UpstreamStanding};

/// The upstreams of a snapshot with what is told of them now.
pub fn upstreams(snapshot: &flat::Snapshot, segment: &Segment) -> Vec<Upstream> {
    let told: HashMap<u64, Told> = segment.targets().read().collect();
    snapshot.upstreams.iter().map(|one| upstream(one, &told)).collect()
}

fn upstream(upstream: &flat::Upstream, told: &HashMap<u64, Told>) -> Upstream {
    let name = &upstream.name;
    let standing = told.get(&key(name, None)).map(|told| UpstreamStanding {
        breaker: breaker(upstream.breaker.is_some(), told),
        reason: reason(told),
        since_ms: since(told),
        breaker_opens: told.counts.openings().into(),
        opens_by_reason: by_reason(told, &Cause::OPENINGS),
        breaker_probes: told.probes.into(),
        concurrency_limit: Some(told.limit).filter(|limit| *limit > 0),
        live_percent: percent(told),
        active_requests: told.in_flight,
        active_retries: told.retries,
    });
    let targets = upstream.targets.iter().map(|target| {
        let told = told.get(&key(name, Some(target.address))).copied().unwrap_or_default();
        Target {
            name: target.name.clone(),
            address: target.address.to_string(),
            weight: target.weight,
            priority: target.priority,
            locality: Some(target.locality.clone()).filter(|locality| !locality.is_empty()),
            state: told.standing.name().into(),
            reason: reason(&told),
            since_ms: since(&told),
            in_flight: told.in_flight,
            ejections: told.counts.ejections().into(),
            ejections_by_reason: by_reason(&told, &Cause::EJECTIONS),
            returns: told.returns.into(),
            breaker: breaker(upstream.target_breaker.is_some(), &told),
            breaker_opens: told.counts.openings().into(),
            opens_by_reason: by_reason(&told, &Cause::OPENINGS),
            breaker_probes: told.probes.into(),
            share_percent: percent(&told),
        }
    });
    Upstream {
        name: name.clone(),
        balance: match upstream.balance {
            Balance::RoundRobin => "round_robin",
            Balance::Weighted => "weighted",
            Balance::LeastConnections => "least_connections",
            Balance::PowerOfTwo => "power_of_two",
            Balance::Hash { .. } => "hash",
        }
        .into(),
        standing,
        targets: targets.collect(),
    }
}

fn breaker(configured: bool, told: &Told) -> String {
    match (configured, told.standing) {
        (false, _) => "none",
        (true, Standing::Open) => "open",
        (true, Standing::HalfOpen) => "half_open",
        (true, _) => "closed",
    }
    .into()
}

fn by_reason(told: &Told, causes: &[Cause]) -> BTreeMap<String, u64> {
    let counts =
        causes.iter().map(|cause| (cause.name().to_owned(), told.counts.of(*cause).into()));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn reason(told: &Told) -> Option<String> {
    (told.cause != Cause::None).then(|| told.cause.name().into())
}

fn since(told: &Told) -> Option<u64> {
    Some(told.since_ms).filter(|since| *since > 0)
}

/// Rounded down, but what has a share has one per cent.
fn percent(told: &Told) -> u8 {
    let percent = (told.share_permille / 10).max(u32::from(told.share_permille > 0));
    u8::try_from(percent.min(100)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use contract::snapshot::{Breaker, Snapshot};

    use super::*;

    #[test]
    fn what_is_told_finds_its_names() {
        let (_fd, segment) = Segment::create(1, 1 << 16).unwrap();
        let address = |port| ([127, 0, 0, 1], port).into();
        let target = |port| flat::Target { address: address(port), ..Default::default() };
        let named = |name: &str, breaker| flat::Upstream {
            name: name.into(),
            breaker,
            targets: vec![target(1), target(2)],
            ..Default::default()
        };
        let snapshot = Snapshot {
            upstreams: vec![named("a", None), named("b", Some(Breaker::default()))],
            ..Snapshot::default()
        };
        let whole = segment.targets().claim(key("b", None)).unwrap();
        whole.stand(Standing::Open, Cause::SlowRatio, 17);
        whole.set_share(5);
        whole.set_limit(40);
        whole.add_in_flight(3);
        let one = segment.targets().claim(key("b", Some(address(2)))).unwrap();
        one.stand(Standing::SlowStart, Cause::Consecutive5xx, 18);
        one.set_share(250);
        one.set_count(Cause::Consecutive5xx, 2);
        one.set_count(Cause::SlowRatio, 1);
        one.set_returns(2);
        // Another's target of the same address.
        let other = segment.targets().claim(key("c", Some(address(1)))).unwrap();
        other.stand(Standing::Ejected, Cause::Latency, 19);

        let [a, b] = &upstreams(&snapshot, &segment)[..] else { panic!("two upstreams") };
        assert_eq!(a.standing, None);
        assert_eq!((&*a.targets[0].state, &a.targets[0].reason), ("unknown", &None));
        assert_eq!(a.targets[0].since_ms, None);
        let standing = b.standing.as_ref().unwrap();
        assert_eq!((&*standing.breaker, standing.reason.as_deref()), ("open", Some("slow_ratio")));
        assert_eq!((standing.live_percent, standing.concurrency_limit), (1, Some(40)));
        assert_eq!((standing.active_requests, standing.since_ms), (3, Some(17)));
        let slow = &b.targets[1];
        assert_eq!((&*slow.state, slow.reason.as_deref()), ("slow_start", Some("consecutive_5xx")));
        assert_eq!((slow.share_percent, slow.ejections, slow.since_ms), (25, 2, Some(18)));
        assert_eq!((slow.returns, slow.breaker_opens, &*slow.breaker), (2, 1, "none"));
        assert_eq!(slow.ejections_by_reason, [("consecutive_5xx".into(), 2)].into());
        assert_eq!(slow.opens_by_reason, [("slow_ratio".into(), 1)].into());
        assert_eq!(b.targets[0].state, "unknown");
    }

    #[test]
    fn a_breaker_that_is_not_configured_is_none() {
        let (_fd, segment) = Segment::create(1, 1 << 16).unwrap();
        let whole = segment.targets().claim(key("a", None)).unwrap();
        let breaker = |breaker| {
            let upstreams =
                vec![flat::Upstream { name: "a".into(), breaker, ..Default::default() }];
            let snapshot = Snapshot { upstreams, ..Snapshot::default() };
            let standing = super::upstreams(&snapshot, &segment)[0].standing.clone().unwrap();
            standing.breaker
        };
        assert_eq!(breaker(None), "none");
        whole.stand(Standing::Healthy, Cause::None, 1);
        assert_eq!(breaker(Some(Breaker::default())), "closed");
        whole.stand(Standing::HalfOpen, Cause::None, 1);
        assert_eq!(breaker(Some(Breaker::default())), "half_open");
    }
}
