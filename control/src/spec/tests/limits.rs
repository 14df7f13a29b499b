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
        (1u32..=5, 5u32..100).prop_map(|(reserve, max)| {
            LimitCost::ResponseHeader { response_header: "x-cost".into(), reserve, max }
        }),
    ]
}

/// Some of the first window's requests, where that is a window that slides and says something beside the
/// others.
fn burst(windows: &[LimitWindow], least: u64, share: f64) -> Option<u64> {
    let first = windows.first()?;
    let burst = ((first.requests as f64 * share) as u64).max(least);
    let quota = Quota { windows, burst: Some(burst), concurrency: None };
    let own = quota.burst_window()?;
    let fits =
        |other: &LimitWindow| own.per != other.per && own.per.least_ms() < other.per.least_ms();
    (own.per.least_ms() >= 10 && windows.iter().all(fits)).then_some(burst)
}

/// Without a name.
pub fn limit() -> impl Strategy<Value = Limit> {
    let mode = select(vec![LimitMode::Strict, LimitMode::Leased, LimitMode::Local]);
    let failure = select(vec![OnStoreFailure::Share, OnStoreFailure::Deny, OnStoreFailure::Open]);
    let concurrency = proptest::option::of(1u32..100);
    let first = (by(), windows(), concurrency, cost(), windows());
    let shares = (0.0..1.0, 0.0..1.0);
    (first, mode, failure, any::<[bool; 4]>(), shares).prop_map(
        |((by, windows, concurrency, cost, other), mode, on_store_failure, flags, shares)| {
            let [dry_run, everywhere, standard, legacy] = flags;
            let group = "gold".into();
            // No request costs more than 5.
            let bursts = (burst(&windows, 5, shares.0), burst(&other, 5, shares.1));
            let tier = LimitTier { group, windows: other, burst: bursts.1, concurrency: None };
            Limit {
                name: String::new(),
                workspace: dry_run.then(|| "team".into()),
                by,
                windows,
                burst: bursts.0,
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
    // 50 of 100 per second are 50 per 500ms.
    let burst = |burst: u32, other: &str| {
        format!("windows: [{{requests: 100, per: 1s}}, {{requests: {other}}}], burst: {burst}")
    };
    one(&burst(50, "50, per: 500ms"), "bad-burst", "a window per 500ms already");
    let idle = "50 of 100 per 1s at once is 50 per 500ms, beside which 60 per 100ms could never be";
    one(&burst(50, "60, per: 100ms"), "bad-burst", idle);
    let idle = "30 per 300ms, which could never be used beside 20 per 500ms; take a smaller burst";
    one(&burst(30, "20, per: 500ms"), "bad-burst", idle);
    one(&format!("{ok}, cost: 11"), "cost-over-limit", "none would ever pass");
    one(&format!("{ok}, cost: 0"), "out-of-range", "1 to");
    one(&format!("{ok}, burst: 4, cost: 5"), "bad-burst", "none would ever pass");
    one(&format!("{ok}, cost: {{header: X-C}}"), "missing-field", "max");
    let answer =
        |reserve: u32| format!("{ok}, cost: {{response_header: X, max: 5, reserve: {reserve}}}");
    one(&answer(0), "out-of-range", "0 is out of range; expected 1 to");
    one(&answer(6), "out-of-range", "6 is more than max");
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
fn nothing_of_a_limit_is_there_twice() {
    let tiers = "requests: 9, per: 1s, tiers: [{group: g, requests: 1, per: 1s}, \
                 {group: g, requests: 2, per: 1s}]";
    let said = says(&spec(tiers), &["2:95 duplicate-tier"]).join("\n");
    mentions(&said, "limits[0].tiers[1].group: the group `g` has a tier already, on line 2");
    for by in [
        "consumer, route, consumer",
        "address, {header: x}, address",
        "{address: {v4: 24}}, route, address",
        "{header: X-A}, route, {header: x-a}",
        "{path: '/{a}'}, route, {path: '/{a}'}",
    ] {
        let loaded = load("t.yaml", &spec(&format!("by: [{by}], requests: 9, per: 1s")));
        let [problem] = &loaded.problems[..] else { panic!("{by}: {:?}", loaded.problems) };
        assert_eq!((problem.code, &*problem.field), ("duplicate-value", "limits[0].by[2]"));
        assert!(problem.value.is_some() && problem.message.contains("already, on line 2"), "{by}");
    }
    load_with(&spec("by: [consumer, {header: a}, {header: b}, credential], requests: 9, per: 1s"));
}

#[test]
fn limits_have_no_more_parts_than_the_engine_takes() {
    let one = |fields: &str, field: &str, words: &str| {
        let problems = load("t.yaml", &spec(fields)).problems;
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert_eq!((problem.code, &*problem.field, problem.line), ("too-many", field, 2));
        mentions(&problem.message, words);
    };
    let list = |count: usize, item: &dyn Fn(usize) -> String| {
        (1..=count).map(item).collect::<Vec<_>>().join(", ")
    };
    let windows = |count| list(count, &|n| format!("{{requests: {}, per: {n}m}}", n * 10));
    load_with(&spec(&format!("windows: [{}]", windows(16))));
    let words = "`windows` has 17 entries; expected at most 16";
    one(&format!("windows: [{}]", windows(17)), "limits[0].windows", words);
    let words = "`windows` has 16 entries; expected at most 15";
    one(&format!("windows: [{}], burst: 2", windows(16)), "limits[0].windows", words);
    let headers = |count| list(count, &|n| format!("{{header: x-{n}}}"));
    load_with(&spec(&format!("by: [{}], requests: 1, per: 1s", headers(16))));
    let by = format!("by: [{}], requests: 1, per: 1s", headers(17));
    one(&by, "limits[0].by", "`by` has 17 entries; expected at most 16");
    let tiers = list(256, &|n| format!("{{group: g{n}, requests: 1, per: 1s}}"));
    one(
        &format!("requests: 1, per: 1s, tiers: [{tiers}]"),
        "limits[0].tiers",
        "`tiers` has 256 entries; expected at most 255",
    );
    let name = "x".repeat(257);
    let text = spec(&format!("by: [{{header: {name}}}], requests: 1, per: 1s"));
    assert_eq!(load("t.yaml", &text).problems[0].code, "bad-field-name");
    let many = list(10_001, &|n| format!("{{name: n{n}, requests: 1, per: 1s}}"));
    let text = spec("requests: 1, per: 1s")
        .replace("limits: [{name: gold", &format!("limits: [{many}, {{name: gold"));
    says(&text, &["2:9 too-many"]);
}

/// What is read is what the engine takes.
#[test]
fn the_largest_limits_fit_the_contract() {
    let windows: Vec<String> =
        (1..=15).map(|n| format!("{{requests: {}, per: {n}m}}", n * 100)).collect();
    let tiers: Vec<String> =
        (0..255).map(|n| format!("{{group: g{n}, requests: 1, per: 31d}}")).collect();
    let groups: Vec<String> = (0..255).map(|n| format!("{{name: g{n}}}")).collect();
    let text = spec(&format!(
        "windows: [{}], burst: 50, tiers: [{}], cost: 1",
        windows.join(", "),
        tiers.join(", ")
    ));
    let spec = load_with(&text.replace("{name: g}", &groups.join(", ")));
    let snapshot = crate::fit::plain(&spec, &crate::material::Material::default());
    assert_eq!(snapshot.limits.policies[0].quota.windows.len(), 16);
    assert_eq!(contract::snapshot::Snapshot::decode(&snapshot.encode()), Ok(snapshot));
}

#[test]
fn requests_that_would_never_pass_are_warned_of() {
    let cost = "cost: {header: X-Cost, max: 50}";
    let warned = |fields: &str| {
        let loaded = load("t.yaml", &spec(&format!("{fields}, {cost}")));
        assert!(loaded.spec.is_some(), "{:?}", loaded.problems);
        let said = loaded.problems.iter().map(|one| {
            let place = format!("{} {} {:?}", one.code, one.field, one.value.as_deref());
            (place, one.message.clone())
        });
        said.collect::<Vec<_>>()
    };
    assert_eq!(warned("requests: 50, per: 1s"), []);
    for (fields, words) in [
        ("requests: 49, per: 1s", "more than 49 would never pass (49 per 1s)"),
        ("windows: [{requests: 99, per: day}, {requests: 40, per: 1s}]", "(40 per 1s)"),
        ("requests: 100, per: 1s, burst: 20", "(20 per 200ms)"),
        ("requests: 99, per: 1s, tiers: [{group: g, requests: 30, per: 1s}]", "(30 per 1s)"),
    ] {
        let said = warned(fields);
        let [(place, message)] = &said[..] else { panic!("{fields}: {said:?}") };
        assert_eq!(place, "cost-over-limit limits[0].cost.max Some(\"50\")");
        mentions(message, words);
    }
    // What an answer costs is known too late to refuse it.
    let answer = "requests: 9, per: 1s, cost: {response_header: X-Cost, max: 50}";
    assert_eq!(load("t.yaml", &spec(answer)).problems, []);
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
