//! Upstreams: targets, checks, deadlines.

use super::{
    Counts, DecodeError, In, MAX_ENTRIES, MAX_TARGETS, MAX_WEIGHT, Out, authenticator, resilience,
    tls,
};
use crate::snapshot::*;

pub(super) fn write(out: &mut Out, upstream: &Upstream) {
    out.text(&upstream.name);
    write_balance(out, &upstream.balance);
    out.list(&upstream.targets, |out, target| {
        out.address(target.address);
        out.u32(target.weight);
        out.text(&target.name);
        out.u8(target.priority);
        out.text(&target.locality);
    });
    out.u32(upstream.pool.max_idle);
    out.u32(upstream.pool.max_connections);
    out.u32(upstream.pool.idle_timeout_ms);
    write_timeouts(out, &upstream.timeouts);
    match &upstream.host_header {
        HostHeader::Preserve => out.u8(0),
        HostHeader::Target => out.u8(1),
        HostHeader::Literal(host) => {
            out.u8(2);
            out.text(host);
        }
    }
    out.u8(match upstream.protocol {
        Protocol::Http1 => 0,
        Protocol::Http2 => 1,
        Protocol::Auto => 2,
    });
    out.option(upstream.tls.as_ref(), tls::write_upstream_tls);
    out.option(upstream.health.as_ref(), write_health);
    out.u8(upstream.min_live_percent);
    resilience::write_retry(out, &upstream.retry);
    resilience::write_budget(out, upstream.retry_budget);
    out.option(upstream.hedge.as_ref(), resilience::write_hedge);
    resilience::write_bounds(out, upstream.bounds);
    resilience::write_bounds(out, upstream.target_bounds);
    out.option(upstream.breaker.as_ref(), resilience::write_breaker);
    out.option(upstream.target_breaker.as_ref(), resilience::write_breaker);
    resilience::write_fallback(out, &upstream.fallback);
    out.option(upstream.outlier.as_ref(), resilience::write_outlier);
    out.option(upstream.concurrency.as_ref(), resilience::write_concurrency);
    out.option(upstream.credentials.as_ref(), authenticator::write_client_credentials);
}

/// Reads one of `upstreams` upstreams.
pub(super) fn read(
    input: &mut In<'_>,
    counts: Counts,
    upstreams: usize,
) -> Result<Upstream, DecodeError> {
    Ok(Upstream {
        name: input.text("upstream.name")?,
        balance: read_balance(input)?,
        targets: input.list("upstream.targets", MAX_TARGETS, |input| {
            Ok(Target {
                address: input.address("upstream.target.address")?,
                weight: input.u32_within("upstream.target.weight", 1, MAX_WEIGHT)?,
                name: input.text("upstream.target.name")?,
                priority: input.u8("upstream.target.priority")?,
                locality: input.text("upstream.target.locality")?,
            })
        })?,
        pool: Pool {
            max_idle: input.u32("upstream.pool.max_idle")?,
            max_connections: input.u32("upstream.pool.max_connections")?,
            idle_timeout_ms: input.u32("upstream.pool.idle_timeout_ms")?,
        },
        timeouts: read_timeouts(input)?,
        host_header: match input.u8("upstream.host_header")? {
            0 => HostHeader::Preserve,
            1 => HostHeader::Target,
            2 => HostHeader::Literal(input.text("upstream.host_header")?),
            other => return Err(input.tag("upstream.host_header", other)),
        },
        protocol: match input.u8("upstream.protocol")? {
            0 => Protocol::Http1,
            1 => Protocol::Http2,
            2 => Protocol::Auto,
            other => return Err(input.tag("upstream.protocol", other)),
        },
        tls: input.option("upstream.tls", |input| tls::read_upstream_tls(input, counts))?,
        health: input.option("upstream.health", read_health)?,
        min_live_percent: input.u8_within("upstream.min_live_percent", 0, 100)?,
        retry: resilience::read_retry(input)?,
        retry_budget: resilience::read_budget(input)?,
        hedge: input.option("upstream.hedge", resilience::read_hedge)?,
        bounds: resilience::read_bounds(input)?,
        target_bounds: resilience::read_bounds(input)?,
        breaker: input.option("upstream.breaker", resilience::read_breaker)?,
        target_breaker: input.option("upstream.target_breaker", resilience::read_breaker)?,
        fallback: resilience::read_fallback(input, upstreams)?,
        outlier: input.option("upstream.outlier", resilience::read_outlier)?,
        concurrency: input.option("upstream.concurrency", resilience::read_concurrency)?,
        credentials: input.option("upstream.credentials", |input| {
            authenticator::read_client_credentials(input, counts)
        })?,
    })
}

fn write_balance(out: &mut Out, balance: &Balance) {
    match balance {
        Balance::RoundRobin => out.u8(0),
        Balance::Weighted => out.u8(1),
        Balance::LeastConnections => out.u8(2),
        Balance::PowerOfTwo => out.u8(3),
        Balance::Hash { key, load_percent } => {
            out.u8(4);
            match key {
                HashKey::Header(name) => {
                    out.u8(0);
                    out.text(name);
                }
                HashKey::Cookie(name) => {
                    out.u8(1);
                    out.text(name);
                }
                HashKey::ClientIp => out.u8(2),
                HashKey::Consumer => out.u8(3),
            }
            out.u16(*load_percent);
        }
    }
}

fn read_balance(input: &mut In<'_>) -> Result<Balance, DecodeError> {
    Ok(match input.u8("upstream.balance")? {
        0 => Balance::RoundRobin,
        1 => Balance::Weighted,
        2 => Balance::LeastConnections,
        3 => Balance::PowerOfTwo,
        4 => Balance::Hash {
            key: match input.u8("upstream.balance.hash")? {
                0 => HashKey::Header(input.text("upstream.balance.hash")?),
                1 => HashKey::Cookie(input.text("upstream.balance.hash")?),
                2 => HashKey::ClientIp,
                3 => HashKey::Consumer,
                other => return Err(input.tag("upstream.balance.hash", other)),
            },
            load_percent: input.u16_within("upstream.balance.load_percent", 101, 1_000)?,
        },
        other => return Err(input.tag("upstream.balance", other)),
    })
}

fn write_health(out: &mut Out, health: &HealthCheck) {
    match &health.kind {
        HealthKind::Grpc { service } => {
            out.u8(0);
            out.text(service);
        }
        HealthKind::Http { path, host, statuses, body } => {
            out.u8(1);
            out.text(path);
            out.option(host.as_ref(), |out, host| out.text(host));
            out.list(statuses, |out, (first, last)| {
                out.u16(*first);
                out.u16(*last);
            });
            out.option(body.as_ref(), |out, body| out.text(body));
        }
        HealthKind::Tcp => out.u8(2),
    }
    out.u32(health.interval_ms);
    out.u32(health.timeout_ms);
    out.u32(health.healthy_after);
    out.u32(health.unhealthy_after);
}

fn read_health(input: &mut In<'_>) -> Result<HealthCheck, DecodeError> {
    Ok(HealthCheck {
        kind: match input.u8("upstream.health.kind")? {
            0 => HealthKind::Grpc { service: input.text("upstream.health.service")? },
            1 => HealthKind::Http {
                path: input.text("upstream.health.path")?,
                host: input
                    .option("upstream.health.host", |input| input.text("upstream.health.host"))?,
                statuses: input.some("upstream.health.statuses", MAX_ENTRIES, |input| {
                    let first = input.u16_within("upstream.health.statuses", 100, 599)?;
                    let last = input.u16_within("upstream.health.statuses", first, 599)?;
                    Ok((first, last))
                })?,
                body: input
                    .option("upstream.health.body", |input| input.text("upstream.health.body"))?,
            },
            2 => HealthKind::Tcp,
            other => return Err(input.tag("upstream.health.kind", other)),
        },
        interval_ms: input.u32_within("upstream.health.interval_ms", 1, u32::MAX)?,
        timeout_ms: input.u32_within("upstream.health.timeout_ms", 1, u32::MAX)?,
        healthy_after: input.u32_within("upstream.health.healthy_after", 1, u32::MAX)?,
        unhealthy_after: input.u32_within("upstream.health.unhealthy_after", 1, u32::MAX)?,
    })
}

pub(super) fn write_timeouts(out: &mut Out, timeouts: &Timeouts) {
    out.u32(timeouts.connect_ms);
    out.u32(timeouts.first_byte_ms);
    out.u32(timeouts.idle_ms);
    out.u32(timeouts.try_ms);
    out.u32(timeouts.total_ms);
}

pub(super) fn read_timeouts(input: &mut In<'_>) -> Result<Timeouts, DecodeError> {
    Ok(Timeouts {
        connect_ms: input.u32("timeouts.connect_ms")?,
        first_byte_ms: input.u32("timeouts.first_byte_ms")?,
        idle_ms: input.u32("timeouts.idle_ms")?,
        try_ms: input.u32("timeouts.try_ms")?,
        total_ms: input.u32("timeouts.total_ms")?,
    })
}
