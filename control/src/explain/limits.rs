//! The limits that a request meets.

use std::fmt::Write;

use contract::snapshot::{self as flat, LimitIndex, Snapshot, Unidentified};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cli::table::Table;
use crate::spec::{LimitBy, LimitCost, LimitMode, LimitWindow, OnStoreFailure, Per};

/// A policy that holds for a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Met {
    pub name: String,
    /// Why it holds: one of `everywhere`, `route`, `consumer` and `key`.
    pub of: String,
    /// What requests are told apart by; empty: all are counted as one.
    pub by: Vec<LimitBy>,
    /// A burst is one of them.
    pub windows: Vec<LimitWindow>,
    pub concurrency: Option<u32>,
    /// The group that these are for; null: they are the policy's own.
    pub tier: Option<String>,
    /// What holds instead for callers in these groups. Empty where it is known who calls.
    pub tiers: Vec<Tier>,
    pub cost: LimitCost,
    pub mode: LimitMode,
    /// All nodes count together; otherwise this one alone.
    pub shared: bool,
    pub on_store_failure: OnStoreFailure,
    pub dry_run: bool,
}

/// The quota of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tier {
    pub group: String,
    pub windows: Vec<LimitWindow>,
    pub concurrency: Option<u32>,
}

/// What holds for a request on the route of this name by this consumer: in the order of the engine, each
/// once. `None`: nobody knows who calls, so that it is the consumer of those without a credential, if
/// the route has one. `key` is how one of the consumer's keys begins, where it calls with that. `fits` says whether the request's path is of the form that a policy is about.
pub fn met(
    snapshot: &Snapshot,
    route: &str,
    consumer: Option<&str>,
    key: Option<&str>,
    fits: impl Fn(LimitIndex) -> bool,
) -> Vec<Met> {
    let Some(route) = snapshot.routes.iter().find(|one| one.name == route) else {
        return Vec::new();
    };
    let consumers = &snapshot.auth.consumers;
    let anonymous = match route.auth.as_ref().map(|auth| auth.unidentified) {
        Some(Unidentified::As(at)) => consumers.get(at as usize),
        _ => None,
    };
    let caller = match consumer {
        Some(name) => consumers.iter().find(|one| one.name == name),
        None => anonymous,
    };
    let Snapshot { limits, auth, .. } = snapshot;
    let key = caller.and_then(|caller| caller.api_keys.iter().find(|one| key == Some(&one.prefix)));
    let of_key = key.and_then(|key| key.limits.as_deref()).map(|name| (name, "key"));
    let of_caller = caller.and_then(|caller| caller.limits.as_deref());
    // One of both: a key's is in place of its consumer's.
    let own = of_key.or(of_caller.map(|name| (name, "consumer"))).and_then(|(name, of)| {
        let at = limits.policies.iter().position(|policy| policy.name == name)?;
        Some((LimitIndex::try_from(at).ok()?, of))
    });
    let everywhere = limits.everywhere.iter().map(|at| (*at, "everywhere"));
    let all = everywhere.chain(route.limits.iter().map(|at| (*at, "route"))).chain(own);
    let mut seen = Vec::new();
    let mut out = Vec::new();
    for (at, of) in all {
        let Some(policy) = limits.policies.get(at as usize) else { continue };
        if seen.contains(&at) || !fits(at) {
            continue;
        }
        seen.push(at);
        let groups = caller.map(|caller| caller.groups.as_slice());
        out.push(one(policy, of, groups, auth.redis.is_some()));
    }
    out
}

fn one(policy: &flat::LimitPolicy, of: &str, groups: Option<&[String]>, redis: bool) -> Met {
    let tier = |tier: &flat::LimitTier| Tier {
        group: tier.group.clone(),
        windows: windows(&tier.quota),
        concurrency: tier.quota.concurrency,
    };
    let own = groups.and_then(|groups| policy.tiers.iter().find(|one| groups.contains(&one.group)));
    let quota = own.map_or(&policy.quota, |tier| &tier.quota);
    let mode = match policy.mode {
        flat::LimitMode::Strict => LimitMode::Strict,
        flat::LimitMode::Leased => LimitMode::Leased,
        flat::LimitMode::Local => LimitMode::Local,
    };
    Met {
        name: policy.name.clone(),
        of: of.into(),
        by: policy.by.iter().map(scope).collect(),
        windows: windows(quota),
        concurrency: quota.concurrency,
        tier: own.map(|tier| tier.group.clone()),
        tiers: match groups {
            Some(_) => Vec::new(),
            None => policy.tiers.iter().map(tier).collect(),
        },
        cost: match &policy.cost {
            flat::LimitCost::Fixed(cost) => LimitCost::Fixed(*cost),
            flat::LimitCost::RequestHeader { name, default, most } => {
                LimitCost::RequestHeader { header: name.clone(), default: *default, max: *most }
            }
            flat::LimitCost::ResponseHeader { name, reserve, most } => LimitCost::ResponseHeader {
                response_header: name.clone(),
                reserve: *reserve,
                max: *most,
            },
        },
        mode,
        shared: redis && mode != LimitMode::Local,
        on_store_failure: match policy.on_store_failure {
            flat::OnStoreFailure::Share => OnStoreFailure::Share,
            flat::OnStoreFailure::Deny => OnStoreFailure::Deny,
            flat::OnStoreFailure::Open => OnStoreFailure::Open,
        },
        dry_run: policy.dry_run,
    }
}

fn windows(quota: &flat::LimitQuota) -> Vec<LimitWindow> {
    let window = |one: &flat::LimitWindow| LimitWindow { requests: one.limit, per: Per(one.span) };
    quota.windows.iter().map(window).collect()
}

fn scope(scope: &flat::LimitScope) -> LimitBy {
    match scope {
        flat::LimitScope::Consumer => LimitBy::Consumer,
        flat::LimitScope::Credential => LimitBy::Credential,
        flat::LimitScope::Group => LimitBy::Group,
        flat::LimitScope::Route => LimitBy::Route,
        flat::LimitScope::Address { v4, v6 } => LimitBy::Address { v4: *v4, v6: *v6 },
        flat::LimitScope::Header(name) => LimitBy::Header(name.clone()),
        flat::LimitScope::Path(template) => LimitBy::Path(template.clone()),
    }
}

/// For people: a table, a line each.
pub fn table(limits: &[Met]) -> String {
    let mut table = Table::new(&["LIMIT", "OF", "BY", "QUOTA", "COST", "MODE"]);
    for met in limits {
        let by: Vec<String> = met.by.iter().map(ToString::to_string).collect();
        let mut quotas = quota(&met.windows, met.concurrency);
        if let Some(group) = &met.tier {
            quotas = format!("{group}: {quotas}");
        }
        for tier in &met.tiers {
            // Writing to a String cannot fail.
            _ = write!(quotas, "; {}: {}", tier.group, quota(&tier.windows, tier.concurrency));
        }
        let mut mode = match met.mode {
            LimitMode::Strict => "strict",
            LimitMode::Leased if met.shared => "leased",
            LimitMode::Leased => "leased (no redis: this node alone)",
            LimitMode::Local => "local",
        }
        .to_string();
        if met.dry_run {
            mode.push_str(", dry run");
        }
        table.row([
            met.name.clone(),
            met.of.clone(),
            if by.is_empty() { "all together".into() } else { by.join(", ") },
            quotas,
            met.cost.to_string(),
            mode,
        ]);
    }
    table.render(false)
}

/// `100 per 1s, 10000 per day, 5 at once`.
fn quota(windows: &[LimitWindow], concurrency: Option<u32>) -> String {
    let mut parts: Vec<String> =
        windows.iter().map(|one| format!("{} per {}", one.requests, one.per)).collect();
    parts.extend(concurrency.map(|most| format!("{most} at once")));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "version: 1
listeners: [{name: a, listen: ':1'}]
upstreams: [{name: u, targets: ['10.0.0.1:1']}]
redis: {url: 'redis://10.0.0.1'}
authenticators: [{name: keys, api_key: {}}]
groups: [{name: gold, limits: plan}, {name: staff}]
consumers:
- {name: acme, groups: [staff, gold]}
- name: guest
  limits: trial
  api_keys:
  - {sha256: '0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a', prefix: guest_a, limits: fast}
  - {sha256: '0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b', limits: plan}
  - {sha256: '0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c', prefix: guest_c}
- {name: other}
limits:
- {name: trial, by: [{address: {v4: 24, v6: 56}}, {header: X-Tenant}], requests: 5, per: 1m, dry_run: true, mode: local}
- {name: all, requests: 2000, per: 1s, concurrency: 20, everywhere: true, mode: strict, on_store_failure: open}
- name: plan
  by: [consumer, route]
  windows: [{requests: 100, per: 1s}, {requests: 10000, per: day}]
  burst: 20
  cost: {response_header: X-Cost, reserve: 2, max: 50}
  tiers: [{group: gold, requests: 900, per: 1s}, {group: staff, concurrency: 3}]
- {name: fast, by: [credential], requests: 50, per: 1s}
- {name: users, by: [{path: '/users/{id}'}], requests: 7, per: 10m, cost: 2}
routes:
- {name: one, upstream: u, auth: {any: [keys], anonymous: guest}, limits: [plan, users, all]}
- {name: two, upstream: u, match: {path: /two}, limits: [plan]}
";

    fn snapshot(spec: &str) -> Snapshot {
        let loaded = crate::spec::load("t.yaml", spec);
        let spec = loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.problems));
        crate::fit::plain(&spec, &crate::material::Material::default())
    }

    fn names(met: &[Met]) -> Vec<(&str, &str)> {
        met.iter().map(|one| (&*one.name, &*one.of)).collect()
    }

    #[test]
    fn what_holds_everywhere_on_the_route_and_for_the_consumer() {
        let snapshot = snapshot(SPEC);
        let of = |route, consumer| met(&snapshot, route, consumer, None, |_| true);
        let all = ("all", "everywhere");
        let route = [all, ("plan", "route"), ("users", "route")];
        assert_eq!(names(&of("one", Some("acme"))), route, "each once");
        let guest = [all, ("plan", "route"), ("users", "route"), ("trial", "consumer")];
        assert_eq!(names(&of("one", None)), guest, "the consumer of those without a credential");
        assert_eq!(names(&of("one", Some("other"))), route);
        assert_eq!(names(&of("two", None)), [all, ("plan", "route")]);
        assert_eq!(
            names(&of("two", Some("guest"))),
            [all, ("plan", "route"), ("trial", "consumer")]
        );
        assert_eq!(of("none", None), []);
        // Paths of another form are not limited.
        let users = snapshot.limits.policies.iter().position(|one| one.name == "users");
        let others = met(&snapshot, "one", Some("other"), None, |at| Some(at as usize) != users);
        assert_eq!(names(&others), [all, ("plan", "route")]);
    }

    #[test]
    fn a_keys_own_limits_are_in_place_of_its_consumers() {
        let snapshot = snapshot(SPEC);
        let with = |consumer, key| met(&snapshot, "two", Some(consumer), Some(key), |_| true);
        let route = [("all", "everywhere"), ("plan", "route")];
        assert_eq!(names(&with("guest", "guest_a")), [&route[..], &[("fast", "key")]].concat());
        assert_eq!(names(&with("guest", "0b0b0b0b")), route, "each once");
        let consumer = [&route[..], &[("trial", "consumer")]].concat();
        assert_eq!(names(&with("guest", "guest_c")), consumer, "it has none of its own");
        // Of another consumer.
        assert_eq!(names(&with("other", "guest_a")), route);
    }

    #[test]
    fn the_tier_is_the_callers_or_all_are_told() {
        let snapshot = snapshot(SPEC);
        let plan = |consumer| {
            let met = met(&snapshot, "two", consumer, None, |_| true);
            met.into_iter().find(|one| one.name == "plan").unwrap()
        };
        let acme = plan(Some("acme"));
        assert_eq!(
            (acme.tier.as_deref(), acme.tiers.len()),
            (Some("gold"), 0),
            "the policy's order"
        );
        assert_eq!(quota(&acme.windows, acme.concurrency), "900 per 1s");
        let guest = plan(Some("guest"));
        assert_eq!((guest.tier, guest.tiers.len(), guest.windows.len()), (None, 0, 3));
        let anybody = plan(None);
        assert_eq!(anybody.tiers.len(), 2);
        assert_eq!(anybody.tiers[1].concurrency, Some(3));
    }

    #[test]
    fn people_get_a_table() {
        let all = met(&snapshot(SPEC), "one", None, None, |_| true);
        let text = table(&all);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(
            lines,
            [
                ["LIMIT", "OF", "BY", "QUOTA", "COST", "MODE"],
                ["all", "everywhere", "all together", "2000 per 1s, 20 at once", "1", "strict"],
                [
                    "plan",
                    "route",
                    "consumer, route",
                    "100 per 1s, 10000 per day, 20 per 200ms",
                    "x-cost of the answer, up to 50",
                    "leased",
                ],
                ["users", "route", "path /users/{id}", "7 per 10m", "2", "leased"],
                [
                    "trial",
                    "consumer",
                    "address /24 or /56, header x-tenant",
                    "5 per 1m",
                    "1",
                    "local, dry run",
                ],
            ]
        );
        let alone = SPEC.replace("redis: {url: 'redis://10.0.0.1'}\n", "");
        let alone =
            met(&snapshot(&alone.replace(", mode: strict", "")), "two", None, None, |_| true);
        assert!(alone.iter().all(|one| !one.shared));
        let text = table(&alone);
        assert!(text.contains("; gold: 900 per 1s; staff: 3 at once"), "{text}");
        assert!(text.contains("leased (no redis: this node alone)"), "{text}");
        let acme = table(&met(&snapshot(SPEC), "two", Some("acme"), None, |_| true));
        assert!(acme.contains("gold: 900 per 1s  "), "{acme}");
    }

    #[test]
    fn programs_get_the_words_of_the_spec() {
        let all = met(&snapshot(SPEC), "one", None, None, |_| true);
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(
            json[3],
            serde_json::json!({
                "name": "trial", "of": "consumer",
                "by": [{"address": {"v4": 24, "v6": 56}}, {"header": "x-tenant"}],
                "windows": [{"requests": 5, "per": "1m"}], "concurrency": null,
                "tier": null, "tiers": [], "cost": 1, "mode": "local", "shared": false,
                "on_store_failure": "share", "dry_run": true,
            })
        );
        assert_eq!(
            (&json[0]["on_store_failure"], &json[0]["shared"]),
            (&"open".into(), &true.into())
        );
        assert_eq!(serde_json::from_value::<Vec<Met>>(json).unwrap(), all);
    }
}
