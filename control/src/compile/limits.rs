//! Limits: names become indexes, a burst becomes a window.

use std::collections::HashMap;

use contract::snapshot as flat;
use contract::snapshot::LimitSpan;

use crate::spec::{
    Limit, LimitBy, LimitCost, LimitMode, LimitTier, LimitWindow, OnStoreFailure, Spec,
};

/// Where a policy stands, by its name.
pub type Limits<'a> = HashMap<&'a str, flat::LimitIndex>;

pub fn places(spec: &Spec) -> Limits<'_> {
    (0..).zip(&spec.limits).map(|(at, limit)| (limit.name.as_str(), at)).collect()
}

pub fn limits(spec: &Spec) -> flat::Limits {
    let everywhere = (0..).zip(&spec.limits).filter(|(_, limit)| limit.everywhere);
    flat::Limits {
        everywhere: everywhere.map(|(at, _)| at).collect(),
        policies: spec.limits.iter().map(policy).collect(),
    }
}

fn policy(limit: &Limit) -> flat::LimitPolicy {
    flat::LimitPolicy {
        name: limit.name.clone(),
        by: limit.by.iter().map(scope).collect(),
        quota: quota(&limit.windows, limit.burst, limit.concurrency),
        tiers: limit.tiers.iter().map(tier).collect(),
        cost: match &limit.cost {
            LimitCost::Fixed(cost) => flat::LimitCost::Fixed(*cost),
            LimitCost::RequestHeader { header, default, max } => flat::LimitCost::RequestHeader {
                name: header.clone(),
                default: *default,
                most: *max,
            },
            LimitCost::ResponseHeader { response_header, reserve, max } => {
                flat::LimitCost::ResponseHeader {
                    name: response_header.clone(),
                    reserve: *reserve,
                    most: *max,
                }
            }
        },
        mode: match limit.mode {
            LimitMode::Strict => flat::LimitMode::Strict,
            LimitMode::Leased => flat::LimitMode::Leased,
            LimitMode::Local => flat::LimitMode::Local,
        },
        on_store_failure: match limit.on_store_failure {
            OnStoreFailure::Share => flat::OnStoreFailure::Share,
            OnStoreFailure::Deny => flat::OnStoreFailure::Deny,
            OnStoreFailure::Open => flat::OnStoreFailure::Open,
        },
        dry_run: limit.dry_run,
        fields: flat::LimitFields { standard: limit.fields.standard, legacy: limit.fields.legacy },
    }
}

fn tier(tier: &LimitTier) -> flat::LimitTier {
    let quota = quota(&tier.windows, tier.burst, tier.concurrency);
    flat::LimitTier { group: tier.group.clone(), quota }
}

/// `burst` of the first window's `requests`: so many at most in the time in which so many come free.
fn quota(
    windows: &[LimitWindow],
    burst: Option<u64>,
    concurrency: Option<u32>,
) -> flat::LimitQuota {
    let window = |one: &LimitWindow| flat::LimitWindow { limit: one.requests, span: one.per.0 };
    let mut all: Vec<flat::LimitWindow> = windows.iter().map(window).collect();
    if let (Some(first), Some(burst)) = (windows.first(), burst)
        && let LimitSpan::Sliding(ms) = first.per.0
        && burst < first.requests
    {
        let part = u128::from(ms) * u128::from(burst) / u128::from(first.requests);
        let span = LimitSpan::Sliding(u64::try_from(part).unwrap_or(ms).max(10));
        all.push(flat::LimitWindow { limit: burst, span });
    }
    flat::LimitQuota { windows: all, concurrency }
}

fn scope(by: &LimitBy) -> flat::LimitScope {
    match by {
        LimitBy::Consumer => flat::LimitScope::Consumer,
        LimitBy::Credential => flat::LimitScope::Credential,
        LimitBy::Group => flat::LimitScope::Group,
        LimitBy::Route => flat::LimitScope::Route,
        LimitBy::Address { v4, v6 } => flat::LimitScope::Address { v4: *v4, v6: *v6 },
        LimitBy::Header(name) => flat::LimitScope::Header(name.clone()),
        LimitBy::Path(template) => flat::LimitScope::Path(template.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Per;

    #[test]
    fn a_burst_is_a_window_in_which_so_many_come_free() {
        let windows = [LimitWindow { requests: 100, per: "1m".parse::<Per>().unwrap() }];
        let quota = |burst| quota(&windows, burst, Some(3));
        let minute = flat::LimitWindow { limit: 100, span: LimitSpan::Sliding(60_000) };
        let burst = flat::LimitWindow { limit: 20, span: LimitSpan::Sliding(12_000) };
        assert_eq!(quota(Some(20)).windows, [minute, burst]);
        assert_eq!(quota(Some(100)).windows, [minute], "it says nothing");
        assert_eq!(quota(None).concurrency, Some(3));
    }
}
