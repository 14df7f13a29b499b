//! Any sets of descriptors, and ways to transcode by them.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::text;
use crate::encode::MAX_TRANSCODED;
use crate::snapshot::*;

fn rule() -> impl Strategy<Value = HttpRule> {
    (any::<u32>(), text(), text(), text(), text(), text()).prop_map(
        |(at, selector, method, path, body, response_body)| HttpRule {
            at,
            selector,
            method,
            path,
            body,
            response_body,
        },
    )
}

fn route(protos: u32) -> impl Strategy<Value = RouteTranscode> {
    let names = (0..protos, vec(text(), 0..3), vec(rule(), 0..3));
    let to = select(vec![TranscodeTo::Grpc, TranscodeTo::Json]);
    let streams = select(vec![StreamForm::Array, StreamForm::Ndjson, StreamForm::Sse]);
    let unknown = prop_oneof![
        Just(UnknownQuery::Refuse),
        Just(UnknownQuery::Ignore),
        vec(text(), 0..3).prop_map(UnknownQuery::Listed),
    ];
    let flags = any::<[bool; 8]>();
    let sizes = (1..=MAX_TRANSCODED, 1..=MAX_TRANSCODED);
    (names, to, streams, unknown, flags, sizes).prop_map(
        |((proto, services, rules), to, streams, unknown_query, flags, sizes)| RouteTranscode {
            proto,
            to,
            services,
            rules,
            auto_mapping: flags[0],
            print: PrintJson {
                always: flags[1],
                enums_as_ints: flags[2],
                proto_names: flags[3],
                whitespace: flags[4],
            },
            streams,
            unknown_query,
            ignore_unknown_fields: flags[5],
            status_details: flags[6],
            any_case_enums: flags[7],
            max_request_bytes: sizes.0,
            max_response_bytes: sizes.1,
        },
    )
}

/// Sets of descriptors, and what a route makes of them.
pub fn transcode() -> impl Strategy<Value = (Vec<ProtoSet>, Option<RouteTranscode>)> {
    let set = (text(), vec(any::<u8>(), 0..9))
        .prop_map(|(name, descriptors)| ProtoSet { name, descriptors });
    vec(set, 0..3).prop_flat_map(|protos| {
        let count = protos.len() as u32;
        let on_route = match count {
            0 => Just(None).boxed(),
            count => option::of(route(count)).boxed(),
        };
        (Just(protos), on_route)
    })
}
