//! Limits: names that point nowhere, windows that contradict each other, costs that never fit.

use std::collections::HashSet;

use contract::snapshot::LimitSpan;

use super::{Check, dangling};
use crate::spec::{LimitCost, LimitMode, LimitWindow, Severity};

pub fn check(check: &mut Check<'_>) {
    references(check);
    let spec = check.spec;
    let groups: HashSet<&str> = spec.groups.iter().map(|one| one.name.as_str()).collect();
    for (at, limit) in spec.limits.iter().enumerate() {
        let path = format!("limits[{at}]");
        let most = match limit.cost {
            LimitCost::Fixed(cost) => cost,
            LimitCost::RequestHeader { default, .. } => default,
            LimitCost::ResponseHeader { reserve, .. } => reserve,
        };
        quota(check, &path, &limit.windows, limit.burst, most.into());
        for (n, tier) in limit.tiers.iter().enumerate() {
            let path = format!("{path}.tiers[{n}]");
            if !groups.contains(tier.group.as_str()) {
                let message = dangling("group", &tier.group, &groups);
                let field = format!("{path}.group");
                check.report(Severity::Error, "unknown-group", &field, &tier.group, message, None);
            }
            quota(check, &path, &tier.windows, tier.burst, most.into());
        }
        if limit.mode == LimitMode::Strict && spec.redis.is_none() {
            let message = "strict asks Redis for every request, and the spec has no `redis`; \
                           add it, or take mode: local"
                .into();
            let field = format!("{path}.mode");
            check.report(Severity::Error, "no-redis", &field, "strict", message, None);
        }
    }
    if let Some(redis) = &spec.redis
        && redis.cluster
        && redis.sentinel.is_some()
    {
        let message = "a cluster needs no Sentinel; keep one of both".into();
        check.report(Severity::Error, "conflicting-fields", "redis.sentinel", "", message, None);
    }
}

/// Every name of a policy is one.
fn references(check: &mut Check<'_>) {
    let spec = check.spec;
    check.unique("limits", spec.limits.iter().map(|one| one.name.as_str()));
    let known: HashSet<&str> = spec.limits.iter().map(|one| one.name.as_str()).collect();
    let mut named: Vec<(String, &str)> = Vec::new();
    for (at, route) in spec.routes.iter().enumerate() {
        for (n, name) in route.limits.iter().enumerate() {
            named.push((format!("routes[{at}].limits[{n}]"), name));
        }
    }
    for (at, group) in spec.groups.iter().enumerate() {
        named.extend(group.limits.iter().map(|name| (format!("groups[{at}].limits"), &**name)));
    }
    for (at, consumer) in spec.consumers.iter().enumerate() {
        let path = format!("consumers[{at}]");
        named.extend(consumer.limits.iter().map(|name| (format!("{path}.limits"), &**name)));
        for (n, key) in consumer.api_keys.iter().enumerate() {
            let field = format!("{path}.api_keys[{n}].limits");
            named.extend(key.limits.iter().map(|name| (field.clone(), &**name)));
        }
    }
    for (field, name) in named {
        if !known.contains(name) && !check.problems.is_broken(&field) {
            let message = dangling("limit", name, &known);
            check.report(Severity::Error, "unknown-limit", &field, name, message, None);
        }
    }
}

fn quota(
    check: &mut Check<'_>,
    path: &str,
    windows: &[LimitWindow],
    burst: Option<u64>,
    cost: u64,
) {
    for (n, window) in windows.iter().enumerate() {
        let field = match check.places.has(&format!("{path}.windows")) {
            true => format!("{path}.windows[{n}].requests"),
            false => format!("{path}.requests"),
        };
        if cost > window.requests {
            let message = format!(
                "one request costs {cost}, more than the {} of the window: none would ever pass",
                window.requests
            );
            let value = window.requests.to_string();
            check.report(Severity::Error, "cost-over-limit", &field, &value, message, None);
        }
        for (m, before) in windows[..n].iter().enumerate() {
            let related = Some(check.places.get(&format!("{path}.windows[{m}]")));
            let (short, long) = match before.per.least_ms() <= window.per.least_ms() {
                true => (before, window),
                false => (window, before),
            };
            if before.per == window.per {
                let message = format!("there is a window per {} already; keep one", window.per);
                let value = window.per.to_string();
                let code = "duplicate-window";
                check.report(Severity::Error, code, &field, &value, message, related);
            } else if long.requests < short.requests {
                let message = format!(
                    "{} per {} is less than {} per {}, which could never be used; raise it, or \
                     leave the shorter window out",
                    long.requests, long.per, short.requests, short.per
                );
                let value = window.requests.to_string();
                let code = "window-contradiction";
                check.report(Severity::Error, code, &field, &value, message, related);
            }
        }
    }
    let Some(burst) = burst else { return };
    let field = format!("{path}.burst");
    let wrong = match windows.first() {
        None => Some("burst is about a window, and there is none".into()),
        Some(first) => match first.per.0 {
            LimitSpan::Calendar(_) => {
                Some("burst goes with a window that slides, such as per: 1s".to_owned())
            }
            LimitSpan::Sliding(_) if burst > first.requests => Some(format!(
                "a burst of {burst} is more than the {} that the window allows",
                first.requests
            )),
            LimitSpan::Sliding(_) if burst < cost => {
                Some(format!("one request costs {cost}: none would ever pass"))
            }
            LimitSpan::Sliding(ms)
                if u128::from(ms) * u128::from(burst) / u128::from(first.requests.max(1)) < 10 =>
            {
                Some(
                    "the time in which so many come free is below 10 ms; take a larger burst"
                        .into(),
                )
            }
            LimitSpan::Sliding(_) => None,
        },
    };
    if let Some(message) = wrong {
        check.report(Severity::Error, "bad-burst", &field, &burst.to_string(), message, None);
    }
}
