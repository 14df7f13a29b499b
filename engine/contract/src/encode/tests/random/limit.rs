//! Any policies of limits.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::text;
use crate::encode::MAX_LIMIT;
use crate::snapshot::*;

fn quota() -> impl Strategy<Value = LimitQuota> {
    let calendar = select(vec![
        CalendarUnit::Minute,
        CalendarUnit::Hour,
        CalendarUnit::Day,
        CalendarUnit::Week,
        CalendarUnit::Month,
        CalendarUnit::Year,
    ]);
    let span = prop_oneof![
        (10u64..=31 * 24 * 3_600_000).prop_map(LimitSpan::Sliding),
        calendar.prop_map(LimitSpan::Calendar),
    ];
    let window = (1..=MAX_LIMIT, span).prop_map(|(limit, span)| LimitWindow { limit, span });
    (vec(window, 0..3), option::of(1..=u32::MAX))
        .prop_map(|(windows, concurrency)| LimitQuota { windows, concurrency })
}

fn scope() -> impl Strategy<Value = LimitScope> {
    prop_oneof![
        Just(LimitScope::Consumer),
        Just(LimitScope::Credential),
        Just(LimitScope::Group),
        Just(LimitScope::Route),
        (0..=32u8, 0..=128u8).prop_map(|(v4, v6)| LimitScope::Address { v4, v6 }),
        text().prop_map(LimitScope::Header),
        text().prop_map(LimitScope::Path),
    ]
}

fn cost() -> impl Strategy<Value = LimitCost> {
    let some = 1..=u32::MAX;
    prop_oneof![
        some.clone().prop_map(LimitCost::Fixed),
        (text(), some.clone(), some.clone())
            .prop_map(|(name, default, most)| LimitCost::RequestHeader { name, default, most }),
        (text(), any::<u32>(), some).prop_map(|(name, reserve, most)| LimitCost::ResponseHeader {
            name,
            reserve,
            most
        }),
    ]
}

pub fn policy() -> impl Strategy<Value = LimitPolicy> {
    let mode = select(vec![LimitMode::Strict, LimitMode::Leased, LimitMode::Local]);
    let failure = select(vec![OnStoreFailure::Share, OnStoreFailure::Deny, OnStoreFailure::Open]);
    let tier = (text(), quota()).prop_map(|(group, quota)| LimitTier { group, quota });
    let first = (text(), vec(scope(), 0..4), quota(), vec(tier, 0..3), cost());
    (first, mode, failure, any::<[bool; 3]>()).prop_map(
        |((name, by, quota, tiers, cost), mode, on_store_failure, [dry_run, standard, legacy])| {
            let fields = LimitFields { standard, legacy };
            LimitPolicy { name, by, quota, tiers, cost, mode, on_store_failure, dry_run, fields }
        },
    )
}
