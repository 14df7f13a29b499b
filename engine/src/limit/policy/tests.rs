use contract::snapshot::{LimitTier, LimitWindow};

use super::*;
use crate::testing::limit_policy;

fn policy(name: &str) -> LimitPolicy {
    let by = vec![LimitScope::Consumer];
    LimitPolicy { by, ..limit_policy(name, 100, LimitSpan::Sliding(60_000)) }
}

fn refused(policy: LimitPolicy) -> String {
    let limits = Limits { policies: vec![policy], everywhere: vec![] };
    Policies::build(&limits).unwrap_err().to_string()
}

#[test]
fn templates_take_values_by_whole_segments() {
    let values = |template: &str, path: &str| {
        let template = Template::build(template).unwrap();
        template.values(path.as_bytes()).map(|all| {
            let text = all.iter().map(|value| String::from_utf8(value.to_vec()).unwrap());
            text.collect::<Vec<_>>().join(" ")
        })
    };
    for (template, path, taken) in [
        ("/users/{id}", "/users/7", Some("7")),
        ("/users/{id}", "/users/7/", Some("7")),
        ("/users/{id}", "/users", None),
        ("/users/{id}", "/users/", None),
        ("/users/{id}", "/users/7/x", None),
        ("/users/{id}", "/usersx/7", None),
        ("/users/{id}/*", "/users/7", Some("7")),
        ("/users/{id}/*", "/users/7/x/y", Some("7")),
        ("/{a}/{b}", "/x/y", Some("x y")),
        ("/users/", "/users", Some("")),
        ("/", "/", Some("")),
        ("/", "/x", None),
        ("/*", "/", Some("")),
        ("/*", "/x/y", Some("")),
    ] {
        assert_eq!(values(template, path).as_deref(), taken, "{template} {path}");
    }
    for bad in ["users", "/a*", "/*/b", "/{}", "/a{b}", "/{a", "/{a{b}}"] {
        assert!(Template::build(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let mut bad = policy("gold");
    bad.quota.windows[0].limit = 0;
    assert!(refused(bad).starts_with("limit policy \"gold\", quota.windows[0].limit: is 0"));
    let mut bad = policy("gold");
    bad.quota.windows[0].span = LimitSpan::Sliding(9);
    assert!(refused(bad).contains("quota.windows[0].span: "));
    let mut bad = policy("gold");
    bad.by.push(LimitScope::Path("users".into()));
    assert!(refused(bad).contains("by[1].path: does not begin"));
    let mut bad = policy("gold");
    let quota = LimitQuota { windows: vec![], concurrency: Some(0) };
    bad.tiers.push(LimitTier { group: "g".into(), quota });
    assert!(refused(bad).contains("tiers[0].quota.concurrency: is 0"));
    let twice = Limits { policies: vec![policy("a"), policy("a")], everywhere: vec![] };
    assert!(Policies::build(&twice).unwrap_err().to_string().contains("another policy's"));
    let lost = Limits { policies: vec![policy("a")], everywhere: vec![1] };
    assert!(Policies::build(&lost).unwrap_err().to_string().contains("everywhere: policy 1"));
}

#[test]
fn each_policy_holds_once_on_a_route_those_of_everywhere_first() {
    let policies = ["a", "b", "c"].map(policy).into();
    let built = Policies::build(&Limits { policies, everywhere: vec![2] }).unwrap();
    assert_eq!(*built.on_route(&[0, 2, 0]).unwrap(), [2, 0]);
    assert_eq!(*built.on_route(&[]).unwrap(), [2]);
    assert!(built.on_route(&[3]).is_err());
    assert_eq!((built.named("b"), built.named("x")), (Some(1), None));
}

#[test]
fn windows_have_names_and_fingerprints_of_their_own() {
    let mut from = policy("go/ld \"1\"");
    from.quota.windows = [
        LimitSpan::Sliding(1_500),
        LimitSpan::Sliding(7_200_000),
        LimitSpan::Calendar(CalendarUnit::Month),
    ]
    .map(|span| LimitWindow { limit: 5, span })
    .into();
    // The same length again: the lesser limit holds.
    from.quota.windows.push(LimitWindow { limit: 3, span: LimitSpan::Sliding(1_500) });
    from.quota.concurrency = Some(2);
    let tier = LimitTier { group: "pro".into(), quota: from.quota.clone() };
    from.tiers.push(tier);
    let policy = Policy::build(&from).unwrap();
    assert_eq!(policy.quota_of(|group| group == "pro"), (1, Some("pro")));
    assert_eq!(policy.quota_of(|_| false), (0, None));
    let all = [policy.quota(0), policy.quota(1)].map(|quota| {
        quota.windows.iter().map(|window| (&*window.label, window.limit)).collect::<Vec<_>>()
    });
    let head = "go%2Fld%20%221%22";
    let expected = |head: String| {
        [(":1500ms", 3), (":2h", 5), (":month", 5), (":concurrent", 2)]
            .map(|(label, limit)| (format!("{head}{label}"), limit))
    };
    let text = |all: &[(&str, u64)]| {
        all.iter().map(|(label, limit)| (label.to_string(), *limit)).collect::<Vec<_>>()
    };
    assert_eq!(text(&all[0]), expected(head.into()));
    assert_eq!(text(&all[1]), expected(format!("{head}/pro")));
    let mut prints: Vec<u128> = [0, 1]
        .iter()
        .flat_map(|place| policy.quota(*place).windows.iter())
        .map(|window| window.fingerprint)
        .collect();
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), 8);
    assert_eq!(&*policy.quota(0).told, b"\"go/ld \\\"1\\\"\";q=3");
}
