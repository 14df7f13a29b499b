//! Any aggregate.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{retry, text};
use crate::encode::{MAX_AGGREGATE_BYTES, MAX_AGGREGATE_MS, MAX_CALLS_AT_ONCE, MAX_ITEMS};
use crate::snapshot::*;

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..3)
}

fn projection() -> impl Strategy<Value = Projection> {
    (vec(text(), 0..3), vec(text(), 0..3)).prop_map(|(allow, deny)| Projection { allow, deny })
}

/// A request to the first upstream, which is always there.
fn http() -> impl Strategy<Value = HttpCall> {
    let forwarded = (vec(text(), 0..2), vec(text(), 0..2), vec(text(), 0..2));
    let statuses = (vec(any::<(u16, u16)>(), 0..2), vec(300..=599u16, 0..3));
    let bounds = (0..=MAX_AGGREGATE_MS, 1..=MAX_AGGREGATE_BYTES);
    let texts = (text(), text(), pairs(), pairs(), option::of(text()));
    (texts, forwarded, option::of(retry()), statuses, bounds).prop_map(
        |((method, path, query, headers, body), forwarded, retry, statuses, bounds)| HttpCall {
            upstream: 0,
            method,
            path,
            query,
            headers,
            body,
            forward_headers: forwarded.0,
            forward_query: forwarded.1,
            forward_cookies: forwarded.2,
            timeout_ms: bounds.0,
            retry,
            success: statuses.0,
            pass: statuses.1,
            max_bytes: bounds.1,
            grpc: None,
        },
    )
}

fn repeat() -> impl Strategy<Value = Repeat> {
    let batch = (1..=MAX_ITEMS, text()).prop_map(|(size, by)| Batch { size, by });
    (text(), text(), 1..=MAX_ITEMS, 1..=MAX_CALLS_AT_ONCE, option::of(batch)).prop_map(
        |(list, key, max_items, concurrency, batch)| Repeat {
            list,
            key,
            max_items,
            concurrency,
            batch,
        },
    )
}

fn call(calls: u32) -> impl Strategy<Value = AggregateCall> {
    let source = prop_oneof![
        http().prop_map(|http| CallSource::Http(Box::new(http))),
        text().prop_map(CallSource::Static),
    ];
    let mode = prop_oneof![
        Just(CallMode::Required),
        Just(CallMode::Optional),
        text().prop_map(CallMode::Default)
    ];
    let first = (text(), source, vec(0..calls, 0..3), option::of(text()), mode);
    (first, option::of(repeat()), text(), projection(), any::<bool>(), text()).prop_map(
        |((name, source, after, when, mode), repeat, unwrap, projection, hidden, group)| {
            AggregateCall {
                name,
                source,
                after,
                when,
                mode,
                repeat,
                unwrap,
                projection,
                hidden,
                group,
            }
        },
    )
}

pub fn aggregate() -> impl Strategy<Value = Aggregate> {
    let calls = (1..4u32).prop_flat_map(|count| vec(call(count), count as usize));
    let body = prop_oneof![
        Just(AggregateBody::Group),
        Just(AggregateBody::Deep),
        Just(AggregateBody::Append),
        text().prop_map(AggregateBody::Template)
    ];
    let join = (text(), text(), text(), text(), text(), any::<bool>()).prop_map(
        |(list, key, from, by, into, many)| Join { list, key, call: 0, from, by, into, many },
    );
    let response = (200..=599u16, body, vec(join, 0..2), projection(), pairs()).prop_map(
        |(status, body, join, projection, headers)| AggregateResponse {
            status,
            body,
            join,
            projection,
            headers,
        },
    );
    let bounds = (1..=MAX_AGGREGATE_MS, 1..=MAX_CALLS_AT_ONCE, 1..=MAX_AGGREGATE_BYTES);
    (calls, response, bounds, any::<[bool; 3]>()).prop_map(
        |(calls, response, bounds, [errors, server_timing, stream])| Aggregate {
            calls,
            response,
            deadline_ms: bounds.0,
            concurrency: bounds.1,
            max_bytes: bounds.2,
            errors,
            server_timing,
            stream,
        },
    )
}
