//! Upstreams of a snapshot, and what is done when they fail.

use std::net::{IpAddr, SocketAddr};

use contract::snapshot as flat;

use super::Indexes;
use super::identities::Identities;
use crate::spec::{
    AdaptiveConcurrency, Balance, Bounds, Breaker, Fallback, HashKey, Health, HealthKind, Hedge,
    HostHeader, LimitMs, Mirror, OrNone, Outlier, Priority, Protocol, Retry, RetryMethods,
    RouteTimeouts, TargetHost, Timeouts, Upstream,
};

pub(super) fn upstream(
    upstream: &Upstream,
    index: &Indexes<'_>,
    resolve: &dyn Fn(&str) -> Vec<IpAddr>,
    identities: &mut Identities<'_>,
) -> flat::Upstream {
    let mut targets = Vec::with_capacity(upstream.targets.len());
    for target in &upstream.targets {
        let mut addresses = match &target.address.host {
            TargetHost::Ip(ip) => vec![*ip],
            TargetHost::Name(name) => resolve(name),
        };
        addresses.sort_unstable();
        addresses.dedup();
        targets.extend(addresses.into_iter().map(|ip| flat::Target {
            address: SocketAddr::new(ip, target.address.port),
            weight: target.weight,
            name: target.address.to_string(),
            priority: target.priority,
            locality: target.locality.clone().unwrap_or_default(),
        }));
    }
    flat::Upstream {
        // Compiled beside it: it may name key sets and certificates of its own.
        credentials: None,
        name: upstream.name.clone(),
        balance: balance(&upstream.balance),
        targets,
        pool: flat::Pool {
            max_idle: upstream.pool.max_idle,
            max_connections: upstream.pool.max_connections,
            idle_timeout_ms: upstream.pool.idle_timeout_ms,
        },
        timeouts: timeouts(&upstream.timeouts),
        host_header: match &upstream.host_header {
            HostHeader::Preserve => flat::HostHeader::Preserve,
            HostHeader::Target => flat::HostHeader::Target,
            HostHeader::Value(value) => flat::HostHeader::Literal(value.clone()),
        },
        protocol: match upstream.protocol {
            Protocol::Http1 => flat::Protocol::Http1,
            Protocol::Http2 => flat::Protocol::Http2,
            Protocol::Auto => flat::Protocol::Auto,
        },
        tls: upstream.tls.as_ref().map(|tls| identities.upstream(tls)),
        health: upstream.health.as_ref().map(health),
        min_live_percent: upstream.min_live_percent,
        retry: retry(&upstream.retry),
        retry_budget: flat::RetryBudget {
            percent: upstream.retry_budget.percent,
            min: upstream.retry_budget.min,
        },
        hedge: upstream.hedge.as_option().map(some_hedge),
        bounds: bounds(&upstream.bounds),
        target_bounds: bounds(&upstream.target_bounds),
        breaker: upstream.breaker.as_option().map(breaker),
        target_breaker: upstream.target_breaker.as_option().map(breaker),
        fallback: fallback(&upstream.fallback, index),
        outlier: upstream.outlier.as_option().map(outlier),
        concurrency: upstream.concurrency.as_option().map(concurrency),
    }
}

fn balance(balance: &Balance) -> flat::Balance {
    match balance {
        Balance::RoundRobin => flat::Balance::RoundRobin,
        Balance::Weighted => flat::Balance::Weighted,
        Balance::LeastConnections => flat::Balance::LeastConnections,
        Balance::PowerOfTwo => flat::Balance::PowerOfTwo,
        Balance::Hash { key, load_percent } => flat::Balance::Hash {
            key: match key {
                HashKey::Header(name) => flat::HashKey::Header(name.clone()),
                HashKey::Cookie(name) => flat::HashKey::Cookie(name.clone()),
                HashKey::Consumer => flat::HashKey::Consumer,
                HashKey::ClientIp => flat::HashKey::ClientIp,
            },
            load_percent: *load_percent,
        },
    }
}

fn health(health: &Health) -> flat::HealthCheck {
    flat::HealthCheck {
        kind: match &health.kind {
            HealthKind::Grpc(grpc) => flat::HealthKind::Grpc { service: grpc.service.clone() },
            HealthKind::Http(http) => flat::HealthKind::Http {
                path: http.path.clone(),
                host: http.host.clone(),
                statuses: http.statuses.iter().map(|range| (range.first, range.last)).collect(),
                body: http.body.clone(),
            },
            HealthKind::Tcp => flat::HealthKind::Tcp,
        },
        interval_ms: health.interval_ms,
        timeout_ms: health.timeout_ms,
        healthy_after: health.healthy_after,
        unhealthy_after: health.unhealthy_after,
    }
}

fn timeouts(timeouts: &Timeouts) -> flat::Timeouts {
    flat::Timeouts {
        connect_ms: timeouts.connect_ms,
        first_byte_ms: timeouts.first_byte_ms,
        idle_ms: timeouts.idle_ms,
        try_ms: limit(timeouts.try_ms),
        total_ms: limit(timeouts.total_ms),
    }
}

/// On a route, 0 stands for the upstream's value.
pub(super) fn route_timeouts(timeouts: &RouteTimeouts) -> flat::Timeouts {
    flat::Timeouts {
        connect_ms: timeouts.connect_ms.unwrap_or(0),
        first_byte_ms: timeouts.first_byte_ms.unwrap_or(0),
        idle_ms: timeouts.idle_ms.unwrap_or(0),
        try_ms: timeouts.try_ms.map_or(0, limit),
        total_ms: timeouts.total_ms.map_or(0, limit),
    }
}

fn limit(limit: LimitMs) -> u32 {
    match limit {
        LimitMs::After(ms) => ms,
        LimitMs::None => u32::MAX,
    }
}

pub(super) fn retry(retry: &Retry) -> flat::Retry {
    let on = &retry.on;
    flat::Retry {
        attempts: retry.attempts,
        on: flat::RetryOn {
            connect: on.connect,
            refused: on.refused,
            reset: on.reset,
            timeout: on.timeout,
        },
        statuses: on.statuses.clone(),
        methods: match &retry.methods {
            RetryMethods::Idempotent => flat::RetryMethods::Idempotent,
            RetryMethods::Any => flat::RetryMethods::Any,
            RetryMethods::Listed(methods) => flat::RetryMethods::Listed(methods.clone()),
        },
        backoff_base_ms: retry.backoff_base_ms,
        backoff_max_ms: retry.backoff_max_ms,
        retry_after_max_ms: retry.retry_after_max_ms,
        body_bytes: retry.body_bytes,
    }
}

/// A route's `none` must not become the upstream's hedge: it is one that is never sent.
pub(super) fn route_hedge(hedge: &OrNone<Hedge>) -> flat::Hedge {
    let never = flat::Hedge { quantile_permille: 999, min_ms: u32::MAX };
    hedge.as_option().map_or(never, some_hedge)
}

fn some_hedge(hedge: &Hedge) -> flat::Hedge {
    flat::Hedge { quantile_permille: hedge.quantile_permille, min_ms: hedge.min_ms }
}

fn bounds(bounds: &Bounds) -> flat::Bounds {
    flat::Bounds { max_requests: bounds.max_requests, max_pending: bounds.max_pending }
}

fn breaker(breaker: &Breaker) -> flat::Breaker {
    flat::Breaker {
        consecutive: breaker.consecutive,
        error_percent: breaker.error_percent,
        slow_percent: breaker.slow_percent,
        slow_ms: breaker.slow_ms,
        window_ms: breaker.window_ms,
        min_requests: breaker.min_requests,
        open_ms: breaker.open_ms,
        probes: breaker.probes,
    }
}

fn fallback(fallback: &Fallback, index: &Indexes<'_>) -> flat::Fallback {
    match fallback {
        Fallback::Refuse => flat::Fallback::Refuse,
        Fallback::Answer(answer) => flat::Fallback::Answer {
            status: answer.status,
            content_type: answer.content_type.clone(),
            body: answer.body.clone(),
        },
        Fallback::Upstream(name) => index
            .get(name.as_str())
            .map_or(flat::Fallback::Refuse, |at| flat::Fallback::Upstream(*at)),
    }
}

fn outlier(outlier: &Outlier) -> flat::Outlier {
    flat::Outlier {
        consecutive_5xx: outlier.consecutive_5xx,
        consecutive_gateway: outlier.consecutive_gateway,
        interval_ms: outlier.interval_ms,
        min_targets: outlier.min_targets,
        min_requests: outlier.min_requests,
        stdev_permille: outlier.stdev_permille,
        latency_percent: outlier.latency_percent,
        base_ejection_ms: outlier.base_ejection_ms,
        max_ejection_ms: outlier.max_ejection_ms,
        max_ejected_percent: outlier.max_ejected_percent,
        panic_percent: outlier.panic_percent,
        slow_start_ms: outlier.slow_start_ms,
    }
}

fn concurrency(concurrency: &AdaptiveConcurrency) -> flat::AdaptiveConcurrency {
    flat::AdaptiveConcurrency {
        min: concurrency.min,
        max: concurrency.max,
        tolerance_percent: concurrency.tolerance_percent,
    }
}

pub(super) fn priority(priority: Priority) -> flat::Priority {
    match priority {
        Priority::Low => flat::Priority::Low,
        Priority::Normal => flat::Priority::Normal,
        Priority::High => flat::Priority::High,
        Priority::Critical => flat::Priority::Critical,
    }
}

pub(super) fn mirror(mirror: &Mirror, index: &Indexes<'_>) -> Option<flat::Mirror> {
    let upstream = *index.get(mirror.upstream.as_str())?;
    Some(flat::Mirror { upstream, per_ten_thousand: mirror.per_ten_thousand })
}
