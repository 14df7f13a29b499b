//! How much callers may ask for.

use super::{DecodeError, Fault, In, MAX_ENTRIES, Out};
use crate::snapshot::*;

/// Most policies of limits.
pub const MAX_LIMITS: usize = 10_000;
/// Most that requests of one policy are told apart by.
pub const MAX_LIMIT_SCOPES: usize = 16;
/// Most windows of one quota, that of a burst among them. Each is a bucket that a request looks up.
pub const MAX_LIMIT_WINDOWS: usize = 16;
/// Most tiers of one policy: shards count quotas in a byte, and one more is for whom no tier is for.
pub const MAX_LIMIT_TIERS: usize = 255;
/// Largest limit, and largest cost of anything: counts stay exact in Redis' numbers (2⁵³).
pub const MAX_LIMIT: u64 = 1_000_000_000_000;
/// Bounds of a sliding window, in milliseconds: 10 ms to 31 days.
const SPANS: std::ops::RangeInclusive<u64> = 10..=31 * 24 * 3_600_000;

pub(super) fn write(out: &mut Out, limits: &Limits) {
    out.list(&limits.policies, write_policy);
    write_named(out, &limits.everywhere);
}

pub(super) fn read(input: &mut In<'_>) -> Result<Limits, DecodeError> {
    let policies = input.list("limits.policies", MAX_LIMITS, read_policy)?;
    let everywhere = read_named(input, "limits.everywhere", policies.len())?;
    Ok(Limits { policies, everywhere })
}

pub(super) fn write_named(out: &mut Out, named: &[LimitIndex]) {
    out.list(named, |out, index| out.u32(*index));
}

pub(super) fn read_named(
    input: &mut In<'_>,
    field: &'static str,
    policies: usize,
) -> Result<Vec<LimitIndex>, DecodeError> {
    input.list(field, MAX_ENTRIES, |input| input.index(field, policies))
}

fn write_policy(out: &mut Out, policy: &LimitPolicy) {
    out.text(&policy.name);
    out.list(&policy.by, write_scope);
    write_quota(out, &policy.quota);
    out.list(&policy.tiers, |out, tier| {
        out.text(&tier.group);
        write_quota(out, &tier.quota);
    });
    write_cost(out, &policy.cost);
    out.u8(match policy.mode {
        LimitMode::Strict => 0,
        LimitMode::Leased => 1,
        LimitMode::Local => 2,
    });
    out.u8(match policy.on_store_failure {
        OnStoreFailure::Share => 0,
        OnStoreFailure::Deny => 1,
        OnStoreFailure::Open => 2,
    });
    out.u8(policy.dry_run.into());
    out.u8(policy.fields.standard.into());
    out.u8(policy.fields.legacy.into());
}

fn read_policy(input: &mut In<'_>) -> Result<LimitPolicy, DecodeError> {
    Ok(LimitPolicy {
        name: input.text("limit.name")?,
        by: input.list("limit.by", MAX_LIMIT_SCOPES, read_scope)?,
        quota: read_quota(input)?,
        tiers: input.list("limit.tiers", MAX_LIMIT_TIERS, |input| {
            Ok(LimitTier { group: input.text("limit.tier.group")?, quota: read_quota(input)? })
        })?,
        cost: read_cost(input)?,
        mode: match input.u8("limit.mode")? {
            0 => LimitMode::Strict,
            1 => LimitMode::Leased,
            2 => LimitMode::Local,
            other => return Err(input.tag("limit.mode", other)),
        },
        on_store_failure: match input.u8("limit.on_store_failure")? {
            0 => OnStoreFailure::Share,
            1 => OnStoreFailure::Deny,
            2 => OnStoreFailure::Open,
            other => return Err(input.tag("limit.on_store_failure", other)),
        },
        dry_run: input.bool("limit.dry_run")?,
        fields: LimitFields {
            standard: input.bool("limit.fields.standard")?,
            legacy: input.bool("limit.fields.legacy")?,
        },
    })
}

fn write_quota(out: &mut Out, quota: &LimitQuota) {
    out.list(&quota.windows, |out, window| {
        out.u64(window.limit);
        match window.span {
            LimitSpan::Sliding(ms) => {
                out.u8(0);
                out.u64(ms);
            }
            LimitSpan::Calendar(unit) => out.u8(match unit {
                CalendarUnit::Minute => 1,
                CalendarUnit::Hour => 2,
                CalendarUnit::Day => 3,
                CalendarUnit::Week => 4,
                CalendarUnit::Month => 5,
                CalendarUnit::Year => 6,
            }),
        }
    });
    out.option(quota.concurrency.as_ref(), |out, most| out.u32(*most));
}

fn read_quota(input: &mut In<'_>) -> Result<LimitQuota, DecodeError> {
    let windows = input.list("limit.windows", MAX_LIMIT_WINDOWS, |input| {
        let limit = within(input, "limit.window.limit", 1, MAX_LIMIT)?;
        let span = match input.u8("limit.window.span")? {
            0 => {
                LimitSpan::Sliding(within(input, "limit.window.ms", *SPANS.start(), *SPANS.end())?)
            }
            1 => LimitSpan::Calendar(CalendarUnit::Minute),
            2 => LimitSpan::Calendar(CalendarUnit::Hour),
            3 => LimitSpan::Calendar(CalendarUnit::Day),
            4 => LimitSpan::Calendar(CalendarUnit::Week),
            5 => LimitSpan::Calendar(CalendarUnit::Month),
            6 => LimitSpan::Calendar(CalendarUnit::Year),
            other => return Err(input.tag("limit.window.span", other)),
        };
        Ok(LimitWindow { limit, span })
    })?;
    let concurrency = input
        .option("limit.concurrency", |input| input.u32_within("limit.concurrency", 1, u32::MAX))?;
    Ok(LimitQuota { windows, concurrency })
}

fn within(input: &mut In<'_>, field: &'static str, min: u64, max: u64) -> Result<u64, DecodeError> {
    let found = input.u64(field)?;
    match (min..=max).contains(&found) {
        true => Ok(found),
        false => Err(input.fault(field, Fault::OutOfRange { found, min, max })),
    }
}

fn write_scope(out: &mut Out, scope: &LimitScope) {
    match scope {
        LimitScope::Consumer => out.u8(0),
        LimitScope::Credential => out.u8(1),
        LimitScope::Group => out.u8(2),
        LimitScope::Address { v4, v6 } => {
            out.u8(3);
            out.u8(*v4);
            out.u8(*v6);
        }
        LimitScope::Header(name) => {
            out.u8(4);
            out.text(name);
        }
        LimitScope::Path(template) => {
            out.u8(5);
            out.text(template);
        }
        LimitScope::Route => out.u8(6),
    }
}

fn read_scope(input: &mut In<'_>) -> Result<LimitScope, DecodeError> {
    Ok(match input.u8("limit.by")? {
        0 => LimitScope::Consumer,
        1 => LimitScope::Credential,
        2 => LimitScope::Group,
        3 => LimitScope::Address {
            v4: input.u8_within("limit.by.address.v4", 0, 32)?,
            v6: input.u8_within("limit.by.address.v6", 0, 128)?,
        },
        4 => LimitScope::Header(input.text("limit.by.header")?),
        5 => LimitScope::Path(input.text("limit.by.path")?),
        6 => LimitScope::Route,
        other => return Err(input.tag("limit.by", other)),
    })
}

fn write_cost(out: &mut Out, cost: &LimitCost) {
    match cost {
        LimitCost::Fixed(cost) => {
            out.u8(0);
            out.u32(*cost);
        }
        LimitCost::RequestHeader { name, default, most } => {
            out.u8(1);
            out.text(name);
            out.u32(*default);
            out.u32(*most);
        }
        LimitCost::ResponseHeader { name, reserve, most } => {
            out.u8(2);
            out.text(name);
            out.u32(*reserve);
            out.u32(*most);
        }
    }
}

fn read_cost(input: &mut In<'_>) -> Result<LimitCost, DecodeError> {
    Ok(match input.u8("limit.cost")? {
        0 => LimitCost::Fixed(input.u32_within("limit.cost", 1, u32::MAX)?),
        1 => LimitCost::RequestHeader {
            name: input.text("limit.cost.header")?,
            default: input.u32_within("limit.cost.default", 1, u32::MAX)?,
            most: input.u32_within("limit.cost.most", 1, u32::MAX)?,
        },
        2 => LimitCost::ResponseHeader {
            name: input.text("limit.cost.header")?,
            reserve: input.u32_within("limit.cost.reserve", 1, u32::MAX)?,
            most: input.u32_within("limit.cost.most", 1, u32::MAX)?,
        },
        other => return Err(input.tag("limit.cost", other)),
    })
}
