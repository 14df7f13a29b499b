//! What is refused of limits, and how they are written.

use super::*;

fn quota() -> LimitQuota {
    LimitQuota {
        windows: vec![
            LimitWindow { limit: 100, span: LimitSpan::Sliding(1_000) },
            LimitWindow { limit: 10_000, span: LimitSpan::Calendar(CalendarUnit::Day) },
        ],
        concurrency: Some(5),
    }
}

fn policy() -> LimitPolicy {
    LimitPolicy {
        name: "plan".into(),
        by: vec![
            LimitScope::Consumer,
            LimitScope::Address { v4: 24, v6: 56 },
            LimitScope::Header("x-tenant".into()),
            LimitScope::Path("/users/{id}".into()),
        ],
        quota: quota(),
        tiers: vec![LimitTier { group: "gold".into(), quota: quota() }],
        cost: LimitCost::Fixed(1),
        mode: LimitMode::Strict,
        on_store_failure: OnStoreFailure::Deny,
        dry_run: true,
        fields: LimitFields { standard: false, legacy: true },
    }
}

/// `small`, with a policy that holds on its route and everywhere.
fn limited() -> Snapshot {
    let mut snapshot = small();
    snapshot.limits = Limits { policies: vec![policy()], everywhere: vec![0] };
    snapshot.routes[0].limits = vec![0];
    snapshot
}

/// What is refused of `limited` once `change` has been done to it.
fn refusal(change: impl FnOnce(&mut Snapshot)) -> DecodeError {
    let mut snapshot = limited();
    change(&mut snapshot);
    Snapshot::decode(&snapshot.encode()).expect_err("refused")
}

/// The same of its policy: the field, and the bounds of a number that is out of them.
fn of_policy(change: impl FnOnce(&mut LimitPolicy)) -> (&'static str, Option<(u64, u64)>) {
    let error = refusal(|snapshot| change(&mut snapshot.limits.policies[0]));
    match error.fault {
        Fault::OutOfRange { min, max, .. } => (error.field, Some((min, max))),
        _ => (error.field, None),
    }
}

/// ...after its bytes that are `from` have become `to`, which are as many.
fn forged(from: &[u8], to: &[u8]) -> DecodeError {
    assert_eq!(from.len(), to.len());
    let mut bytes = limited().encode();
    let found: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    for at in found {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    reframe(&mut bytes);
    Snapshot::decode(&bytes).expect_err("refused")
}

#[test]
fn policies_that_are_named_exist() {
    let whole = limited();
    assert_eq!(Snapshot::decode(&whole.encode()), Ok(whole));
    let error = refusal(|s| s.limits.everywhere = vec![0, 1]);
    assert_eq!(error.field, "limits.everywhere");
    assert_eq!(error.fault, Fault::OutOfRange { found: 1, min: 0, max: 0 });
    assert_eq!(refusal(|s| s.routes[0].limits = vec![1]).field, "route.limits");
    assert_eq!(refusal(|s| s.limits.everywhere = vec![u32::MAX]).field, "limits.everywhere");
    let none = refusal(|s| s.limits = Limits::default());
    assert_eq!(
        (none.field, none.fault),
        ("route.limits", Fault::OutOfRange { found: 0, min: 1, max: 0 })
    );
}

#[test]
fn numbers_of_limits_are_in_range() {
    let limit = ("limit.window.limit", Some((1, MAX_LIMIT)));
    assert_eq!(of_policy(|p| p.quota.windows[0].limit = 0), limit);
    assert_eq!(of_policy(|p| p.quota.windows[1].limit = MAX_LIMIT + 1), limit);
    assert_eq!(of_policy(|p| p.tiers[0].quota.windows[0].limit = 0), limit);
    for ms in [0, 9, 31 * 24 * 3_600_000 + 1, u64::MAX] {
        let span = LimitSpan::Sliding(ms);
        let bounds = Some((10, 31 * 24 * 3_600_000));
        assert_eq!(of_policy(|p| p.quota.windows[0].span = span), ("limit.window.ms", bounds));
    }
    let some = Some((1, u32::MAX.into()));
    assert_eq!(of_policy(|p| p.quota.concurrency = Some(0)), ("limit.concurrency", some));
    assert_eq!(of_policy(|p| p.cost = LimitCost::Fixed(0)), ("limit.cost", some));
    let asked = |default, most| LimitCost::RequestHeader { name: "x".into(), default, most };
    assert_eq!(of_policy(|p| p.cost = asked(0, 1)), ("limit.cost.default", some));
    assert_eq!(of_policy(|p| p.cost = asked(1, 0)), ("limit.cost.most", some));
    let said = |reserve, most| LimitCost::ResponseHeader { name: "x".into(), reserve, most };
    assert_eq!(of_policy(|p| p.cost = said(0, 1)), ("limit.cost.reserve", some));
    assert_eq!(of_policy(|p| p.cost = said(1, 0)), ("limit.cost.most", some));
    let address = |v4, v6| vec![LimitScope::Address { v4, v6 }];
    assert_eq!(of_policy(|p| p.by = address(33, 0)), ("limit.by.address.v4", Some((0, 32))));
    assert_eq!(of_policy(|p| p.by = address(0, 129)), ("limit.by.address.v6", Some((0, 128))));
}

#[test]
fn lists_of_limits_have_bounds() {
    let most = |most: usize| Some((0, most as u64));
    let window = quota().windows[0];
    let many = vec![window; MAX_LIMIT_WINDOWS + 1];
    let windows = ("limit.windows", most(MAX_LIMIT_WINDOWS));
    assert_eq!(of_policy(|p| p.quota.windows = many.clone()), windows);
    assert_eq!(of_policy(|p| p.tiers[0].quota.windows = many), windows);
    let many = vec![LimitScope::Route; MAX_LIMIT_SCOPES + 1];
    assert_eq!(of_policy(|p| p.by = many), ("limit.by", most(MAX_LIMIT_SCOPES)));
    let many = vec![policy().tiers[0].clone(); MAX_LIMIT_TIERS + 1];
    assert_eq!(of_policy(|p| p.tiers = many), ("limit.tiers", most(MAX_LIMIT_TIERS)));
    let many = vec![policy(); MAX_LIMITS + 1];
    assert_eq!(refusal(|s| s.limits.policies = many).field, "limits.policies");
    let many = vec![0; MAX_ENTRIES + 1];
    assert_eq!(refusal(|s| s.limits.everywhere = many.clone()).field, "limits.everywhere");
    assert_eq!(refusal(|s| s.routes[0].limits = many).field, "route.limits");
    let long = "n".repeat(MAX_TEXT + 1);
    assert_eq!(of_policy(|p| p.name = long.clone()).0, "limit.name");
    assert_eq!(of_policy(|p| p.tiers[0].group = long.clone()).0, "limit.tier.group");
    assert_eq!(of_policy(|p| p.by = vec![LimitScope::Header(long.clone())]).0, "limit.by.header");
    assert_eq!(of_policy(|p| p.by = vec![LimitScope::Path(long)]).0, "limit.by.path");
    // All of them at once are taken.
    let mut full = limited();
    let one = &mut full.limits.policies[0];
    one.quota.windows = vec![window; MAX_LIMIT_WINDOWS];
    one.by = vec![LimitScope::Route; MAX_LIMIT_SCOPES];
    one.tiers = vec![one.tiers[0].clone(); MAX_LIMIT_TIERS];
    assert_eq!(Snapshot::decode(&full.encode()), Ok(full));
}

#[test]
fn unknown_tags_of_limits_are_told() {
    // The second window's limit, and its span: a day of the calendar.
    let day = [&10_000u64.to_le_bytes()[..], &[3]].concat();
    let unknown = [&10_000u64.to_le_bytes()[..], &[7]].concat();
    let error = forged(&day, &unknown);
    assert_eq!((error.field, error.fault), ("limit.window.span", Fault::Tag { found: 7 }));
    // Four scopes, of which the first is the consumer.
    let by = |tag| [&4u32.to_le_bytes()[..], &[tag, 3, 24, 56]].concat();
    let error = forged(&by(0), &by(9));
    assert_eq!((error.field, error.fault), ("limit.by", Fault::Tag { found: 9 }));
    // The cost, the mode, what holds while Redis is away, and three truth values.
    let end = |bytes: [u8; 6]| {
        let [cost, mode, failure, rest @ ..] = bytes;
        [&[cost][..], &1u32.to_le_bytes(), &[mode, failure], &rest].concat()
    };
    let right = end([0, 0, 1, 1, 0, 1]);
    for (bytes, field, found) in [
        ([3, 0, 1, 1, 0, 1], "limit.cost", 3),
        ([0, 3, 1, 1, 0, 1], "limit.mode", 3),
        ([0, 0, 3, 1, 0, 1], "limit.on_store_failure", 3),
        ([0, 0, 1, 2, 0, 1], "limit.dry_run", 2),
        ([0, 0, 1, 1, 2, 1], "limit.fields.standard", 2),
        ([0, 0, 1, 1, 0, 9], "limit.fields.legacy", 9),
    ] {
        let error = forged(&right, &end(bytes));
        assert_eq!((error.field, error.fault), (field, Fault::Tag { found }));
    }
    let error = forged(b"/users/{id}", b"/users/\xff\xfeid");
    assert_eq!((error.field, error.fault), ("limit.by.path", Fault::NotUtf8));
}

/// Wherever the bytes of limits end, they end too early.
#[test]
fn limits_that_are_cut_short_are_refused() {
    let whole = limited().encode();
    let at = |text: &[u8]| whole.windows(text.len()).position(|one| one == text).expect("is there");
    // From the policy's name to the listeners, which follow the policies.
    for end in at(b"plan") - 4..at(b"gold") + 60 {
        let mut bytes = whole[..end].to_vec();
        reframe(&mut bytes);
        assert_eq!(Snapshot::decode(&bytes).expect_err("refused").fault, Fault::Short, "{end}");
    }
}
