//! Limits: any of them, broken ones, and what is said of these.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::broken::{mentions, says};
use crate::spec::*;

fn texts(list: &[&str]) -> Vec<Per> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn by() -> impl Strategy<Value = Vec<LimitBy>> {
    let all = vec![
        LimitBy::Consumer,
        LimitBy::Credential,
        LimitBy::Group,
        LimitBy::Route,
        LimitBy::Address { v4: 24, v6: 56 },
        LimitBy::Header("x-tenant".into()),
        LimitBy::Path("/users/{id}/*".into()),
    ];
    subsequence(all, 0..=7)
}

/// Longer windows have no smaller limits.
fn windows() -> impl Strategy<Value = Vec<LimitWindow>> {
    let pers = texts(&["10ms", "1500ms", "1s", "30m", "day", "month", "year"]);
    let pers = subsequence(pers, 1..4).prop_map(|mut pers| {
        pers.sort_by_key(|per| per.least_ms());
        pers
    });
    (pers, 5u64..1_000, 0u64..1_000).prop_map(|(pers, least, more)| {
        let window =
            |(at, per): (usize, Per)| LimitWindow { requests: least + more * at as u64, per };
        pers.into_iter().enumerate().map(window).collect()
    })
}

fn cost() -> impl Strategy<Value = LimitCost> {
    prop_oneof![
        (1u32..=5).prop_map(LimitCost::Fixed),
        (1u32..=5, 5u32..100).prop_map(|(default, max)| {
            LimitCost::RequestHeader { header: "x-cost".into(), default, max }
        }),
        (0u32..=5, 5u32..100).prop_map(|(reserve, max)| {
            LimitCost::ResponseHeader { response_header: "x-cost".into(), reserve, max }
        }),
    ]
}

/// Without a name.
pub fn limit() -> impl Strategy<Value = Limit> {
    let mode = select(vec![LimitMode::Strict, LimitMode::Leased, LimitMode::Local]);
    let failure = select(vec![OnStoreFailure::Share, OnStoreFailure::Deny, OnStoreFailure::Open]);
    let concurrency = proptest::option::of(1u32..100);
    let first = (by(), windows(), concurrency, cost(), windows());
    (first, mode, failure, any::<[bool; 4]>()).prop_map(
        |((by, windows, concurrency, cost, other), mode, on_store_failure, flags)| {
            let [dry_run, everywhere, standard, legacy] = flags;
            let group = "gold".into();
            let tier = LimitTier { group, windows: other, burst: None, concurrency: None };
            Limit {
                name: String::new(),
                by,
                windows,
                burst: None,
                concurrency,
                tiers: vec![tier],
                cost,
                mode,
                on_store_failure,
                dry_run,
                everywhere,
                fields: LimitFields { standard, legacy },
            }
        },
    )
}

/// A spec with these fields of one limit; they begin in line 2, column 26.
fn spec(fields: &str) -> String {
    format!(
        "version: 1\nlimits: [{{name: gold, {fields}}}]\ngroups: [{{name: g}}]\n\
         listeners: [{{name: l, listen: ':1'}}]\nupstreams: [{{name: u, targets: ['a:1']}}]\n\
         routes: [{{name: r, upstream: u, limits: [gold]}}]\n"
    )
}

#[test]
fn short_forms_are_written_out() {
    let loaded = load_with(&spec("by: [consumer, address], requests: 100, per: 60s, burst: 20"));
    let limit = &loaded.limits[0];
    let per = "1m".parse().unwrap();
    assert_eq!(limit.windows, [LimitWindow { requests: 100, per }]);
    assert_eq!(limit.by, [LimitBy::Consumer, LimitBy::Address { v4: 32, v6: 64 }]);
    assert_eq!((limit.burst, limit.mode), (Some(20), LimitMode::Leased));
    let text = serde_json::to_string(limit).unwrap();
    assert!(text.contains(r#""windows":[{"requests":100,"per":"1m"}]"#), "{text}");
}

fn load_with(text: &str) -> Spec {
    let loaded = load("t.yaml", text);
    loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.problems))
}

#[test]
fn lengths_of_windows() {
    for (text, written, ms) in [
        ("10ms", "10ms", 10),
        ("1000ms", "1s", 1_000),
        ("90s", "90s", 90_000),
        ("120m", "2h", 7_200_000),
        ("31d", "31d", 2_678_400_000),
        ("month", "month", 2_419_200_000),
    ] {
        let per: Per = text.parse().unwrap();
        assert_eq!((per.to_string().as_str(), per.least_ms()), (written, ms));
    }
    for text in ["", "1", "s", "9ms", "32d", "1 s", "-1s", "1.5s", "fortnight", "99999999999999d"] {
        assert!(text.parse::<Per>().is_err(), "{text}");
    }
}

#[test]
fn what_is_wrong_with_limits_is_said() {
    let one = |fields: &str, code: &str, words: &str| {
        let loaded = load("t.yaml", &spec(fields));
        let said: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
        let found = loaded.problems.iter().any(|problem| problem.code == code);
        assert!(found && said.iter().any(|one| one.contains(words)), "{fields}: {said:?}");
    };
    let ok = "requests: 10, per: 1s";
    one("by: [consumer]", "missing-field", "nothing is limited");
    one("requests: 10", "missing-field", "`per` is missing");
    one("requests: 0, per: 1s", "out-of-range", "1 to");
    one("requests: 10, per: 1 second", "bad-window", "expected one like 1s");
    one(&format!("{ok}, windows: [{{requests: 1, per: 1m}}]"), "conflicting-fields", "one form");
    one(&format!("{ok}, by: [nobody]"), "bad-value", "consumer, credential");
    one(&format!("{ok}, by: [{{path: 'users/{{id}}'}}]"), "bad-template", "/users/{id}");
    one(&format!("{ok}, by: [{{path: '/a/*/b'}}]"), "bad-template", "/users/{id}");
    one(&format!("{ok}, by: [{{header: 'a b'}}]"), "bad-field-name", "X-Tenant");
    one(&format!("{ok}, burst: 11"), "bad-burst", "more than the 10");
    one("requests: 10, per: day, burst: 2", "bad-burst", "slides");
    one("concurrency: 3, burst: 2", "bad-burst", "there is none");
    one("requests: 10, per: 20ms, burst: 2", "bad-burst", "below 10 ms");
    one(&format!("{ok}, cost: 11"), "cost-over-limit", "none would ever pass");
    one(&format!("{ok}, cost: 0"), "out-of-range", "1 to");
    one(&format!("{ok}, cost: {{header: X-C}}"), "missing-field", "max");
    one(
        &format!("{ok}, cost: {{header: X-C, default: 9, max: 3}}"),
        "out-of-range",
        "more than max",
    );
    one(
        &format!("{ok}, cost: {{header: X-C, reserve: 1, max: 3}}"),
        "conflicting-fields",
        "default",
    );
    one(&format!("{ok}, tiers: [{{group: h, requests: 1, per: 1s}}]"), "unknown-group", "`h`");
    one(&format!("{ok}, mode: strict"), "no-redis", "has no `redis`");
    let two = |a: &str, b: &str| format!("windows: [{{requests: {a}}}, {{requests: {b}}}]");
    one(&two("10, per: 1s", "10, per: 1000ms"), "duplicate-window", "already");
    one(&two("10, per: 1s", "9, per: 1m"), "window-contradiction", "less than 10 per 1s");
    one(&two("9, per: day", "10, per: 1h"), "window-contradiction", "less than 10 per 1h");
}

#[test]
fn names_of_limits_exist() {
    let text = "version: 1\nlimits: [{name: gold, requests: 1, per: 1s}]\n\
                groups: [{name: g, limits: glod}]\nconsumers: [{name: c, limits: gold}]\n\
                listeners: [{name: l, listen: ':1'}]\nupstreams: [{name: u, targets: ['a:1']}]\n\
                routes: [{name: r, upstream: u, limits: [gold, silver]}]\n";
    let said = says(text, &["3:28 unknown-limit", "7:48 unknown-limit"]);
    mentions(&said.join("\n"), "did you mean `gold`");
}
