//! Limits: names that point nowhere, windows that contradict each other, costs that never fit.

use std::collections::{HashMap, HashSet};

use contract::encode::{MAX_LIMIT_SCOPES, MAX_LIMIT_TIERS, MAX_LIMIT_WINDOWS};
use contract::snapshot::LimitSpan;

use super::{Check, dangling};
use crate::spec::{Limit, LimitBy, LimitCost, LimitMode, LimitWindow, Quota, Severity};

pub fn check(check: &mut Check<'_>) {
    references(check);
    let spec = check.spec;
    for (at, limit) in spec.limits.iter().enumerate() {
        let path = format!("limits[{at}]");
        scopes(check, &path, &limit.by);
        quota(check, &path, &path, limit.quota(), &limit.cost);
        tiers(check, &path, limit);
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

/// What requests are told apart by is there once.
fn scopes(check: &mut Check<'_>, path: &str, by: &[LimitBy]) {
    let list = format!("{path}.by");
    if check.problems.is_broken(&list) || too_many(check, &list, by.len(), MAX_LIMIT_SCOPES) {
        return;
    }
    for (n, one) in by.iter().enumerate() {
        let address = |by: &LimitBy| matches!(by, LimitBy::Address { .. });
        let before = by.iter().take(n).position(|before| {
            // Of two networks the smaller one says it all.
            before == one || (address(before) && address(one))
        });
        let Some(before) = before else { continue };
        let word = one.to_string();
        let related = check.places.get(&format!("{list}[{before}]"));
        let message = format!(
            "requests are told apart by `{word}` already, on line {}; keep one",
            related.line
        );
        let (field, code) = (format!("{list}[{n}]"), "duplicate-value");
        check.report(Severity::Error, code, &field, &word, message, Some(related));
    }
}

/// Each tier is for a group of its own, which exists.
fn tiers(check: &mut Check<'_>, policy: &str, limit: &Limit) {
    let list = format!("{policy}.tiers");
    if check.problems.is_broken(&list) || too_many(check, &list, limit.tiers.len(), MAX_LIMIT_TIERS)
    {
        return;
    }
    let groups: HashSet<&str> = check.spec.groups.iter().map(|one| one.name.as_str()).collect();
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (n, tier) in limit.tiers.iter().enumerate() {
        let (group, path) = (tier.group.as_str(), format!("{list}[{n}]"));
        let field = format!("{path}.group");
        if !groups.contains(group) {
            let message = dangling("group", group, &groups);
            check.report(Severity::Error, "unknown-group", &field, group, message, None);
        }
        if let Some(before) = first.get(group) {
            let related = check.places.get(&format!("{list}[{before}].group"));
            let message = format!(
                "the group `{group}` has a tier already, on line {}, which would be the one that \
                 holds; keep one",
                related.line
            );
            check.report(Severity::Error, "duplicate-tier", &field, group, message, Some(related));
        }
        first.entry(group).or_insert(n);
        quota(check, policy, &path, tier.quota(), &limit.cost);
    }
}

/// Whether a list has more than the engine takes, which is then told.
fn too_many(check: &mut Check<'_>, list: &str, count: usize, most: usize) -> bool {
    if count > most {
        let what = list.rsplit('.').next().unwrap_or(list);
        let message = format!("`{what}` has {count} entries; expected at most {most}");
        check.report(Severity::Error, "too-many", list, "", message, None);
    }
    count > most
}

/// Windows say something beside each other, and the costs of requests fit in.
fn quota(check: &mut Check<'_>, policy: &str, path: &str, quota: Quota<'_>, cost: &LimitCost) {
    let list = format!("{path}.windows");
    if check.problems.is_broken(&list) {
        return;
    }
    let burst = quota.burst_window();
    // The burst becomes one more.
    let most = MAX_LIMIT_WINDOWS - usize::from(burst.is_some());
    if too_many(check, &list, quota.windows.len(), most) {
        return;
    }
    let fields: Vec<String> = match check.places.has(&list) {
        true => (0..quota.windows.len()).map(|n| format!("{list}[{n}].requests")).collect(),
        false => vec![format!("{path}.requests"); quota.windows.len()],
    };
    let least = u64::from(match *cost {
        LimitCost::Fixed(cost) => cost,
        LimitCost::RequestHeader { default, .. } => default,
        LimitCost::ResponseHeader { reserve, .. } => reserve,
    });
    for (n, (window, field)) in quota.windows.iter().zip(&fields).enumerate() {
        let value = window.requests.to_string();
        if least > window.requests {
            let message = format!(
                "one request costs {least}, more than the {} of the window: none would ever pass",
                window.requests
            );
            check.report(Severity::Error, "cost-over-limit", field, &value, message, None);
        }
        for (m, before) in quota.windows.iter().take(n).enumerate() {
            let Some(clash) = clash(before, window) else { continue };
            let related = Some(check.places.get(&format!("{list}[{m}]")));
            let (code, value, message) = match clash {
                Clash::Same => {
                    let message = format!("there is a window per {} already; keep one", window.per);
                    ("duplicate-window", window.per.to_string(), message)
                }
                Clash::Idle(short, long) => {
                    let message = format!(
                        "{} per {} is less than {} per {}, which could never be used; raise it, or \
                         leave the shorter window out",
                        long.requests, long.per, short.requests, short.per
                    );
                    ("window-contradiction", value.clone(), message)
                }
            };
            check.report(Severity::Error, code, field, &value, message, related);
        }
    }
    if let Some(requests) = quota.burst
        && let Some(message) = bad_burst(&quota, requests, burst.as_ref(), least)
    {
        let (field, value) = (format!("{path}.burst"), requests.to_string());
        check.report(Severity::Error, "bad-burst", &field, &value, message, None);
        return;
    }
    // What answers cost counts even past the limit.
    let LimitCost::RequestHeader { max, .. } = *cost else { return };
    let tightest = quota.windows.iter().chain(&burst).min_by_key(|window| window.requests);
    if let Some(window) = tightest.filter(|window| window.requests < max.into()) {
        let message = format!(
            "a request may cost up to {max}, and one that costs more than {} would never pass \
             ({} per {}); lower max to that, or raise the limit",
            window.requests, window.requests, window.per
        );
        let (field, value) = (format!("{policy}.cost.max"), max.to_string());
        let related = Some(check.places.get(path));
        check.report(Severity::Warning, "cost-over-limit", &field, &value, message, related);
    }
}

/// How two windows get in each other's way.
enum Clash<'a> {
    Same,
    /// The shorter one, of which so many can never be used by the longer one.
    Idle(&'a LimitWindow, &'a LimitWindow),
}

fn clash<'a>(one: &'a LimitWindow, other: &'a LimitWindow) -> Option<Clash<'a>> {
    let (short, long) = match one.per.least_ms() <= other.per.least_ms() {
        true => (one, other),
        false => (other, one),
    };
    match one.per == other.per {
        true => Some(Clash::Same),
        false => (long.requests < short.requests).then_some(Clash::Idle(short, long)),
    }
}

/// What is wrong with a burst of so many requests, which is the window `own`.
fn bad_burst(
    quota: &Quota<'_>,
    burst: u64,
    own: Option<&LimitWindow>,
    cost: u64,
) -> Option<String> {
    let Some(first) = quota.windows.first() else {
        return Some("burst is about a window, and there is none".into());
    };
    if let LimitSpan::Calendar(_) = first.per.0 {
        return Some("burst goes with a window that slides, such as per: 1s".into());
    }
    if burst > first.requests {
        let most = first.requests;
        return Some(format!("a burst of {burst} is more than the {most} that the window allows"));
    }
    if burst < cost {
        return Some(format!("one request costs {cost}: none would ever pass"));
    }
    let own = own?;
    if own.per.least_ms() < 10 {
        return Some(
            "the time in which so many come free is below 10 ms; take a larger burst".into(),
        );
    }
    let others = quota.windows.iter().skip(1);
    let (clash, other) = others.filter_map(|other| Some((clash(own, other)?, other))).next()?;
    let means = format!(
        "{burst} of {} per {} at once is {burst} per {}",
        first.requests, first.per, own.per
    );
    Some(match clash {
        Clash::Same => {
            format!("{means}, and there is a window per {} already; keep one", other.per)
        }
        Clash::Idle(short, _) if short == own => format!(
            "{means}, which could never be used beside {} per {}; take a smaller burst",
            other.requests, other.per
        ),
        Clash::Idle(..) => format!(
            "{means}, beside which {} per {} could never be used; take a larger burst",
            other.requests, other.per
        ),
    })
}
