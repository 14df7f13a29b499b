//! Any rules for bodies.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::text;
use crate::encode::{MAX_CHANGED_BODY, MAX_JQ_MS};
use crate::snapshot::*;

fn step() -> impl Strategy<Value = BodyStep> {
    let two = (text(), text(), 0..11u8).prop_map(|(at, value, which)| match which {
        0 => BodyStep::Add { at, value },
        1 => BodyStep::Replace { at, value },
        2 => BodyStep::Remove { at },
        3 => BodyStep::Move { from: at, to: value },
        4 => BodyStep::Copy { from: at, to: value },
        5 => BodyStep::Rename { at, name: value },
        6 => BodyStep::Wrap(at),
        7 => BodyStep::Unwrap(at),
        8 => BodyStep::Defaults(value),
        _ => BodyStep::Template(value),
    });
    prop_oneof![
        two,
        vec(text(), 0..3).prop_map(BodyStep::Allow),
        vec(text(), 0..3).prop_map(BodyStep::Deny),
        (text(), 1..=MAX_JQ_MS)
            .prop_map(|(program, timeout_ms)| BodyStep::Jq { program, timeout_ms }),
    ]
}

fn rule() -> impl Strategy<Value = BodyRule> {
    use BodyForm::{Events, Form, Json, Lines, Xml};
    let form = || select(vec![Json, Form, Xml, Lines, Events]);
    let conditions = (vec(any::<(u16, u16)>(), 0..3), vec(text(), 0..3));
    let rest = (any::<(bool, bool)>(), 1..=MAX_CHANGED_BODY, vec(text(), 0..3));
    (conditions, form(), form(), rest, vec(step(), 0..4)).prop_map(
        |((statuses, content_types), from, to, ((decode, pass), max_bytes, arrays), steps)| {
            let pass_unreadable = pass;
            BodyRule {
                statuses,
                content_types,
                from,
                to,
                decode,
                max_bytes,
                pass_unreadable,
                arrays,
                steps,
            }
        },
    )
}

pub fn payload() -> impl Strategy<Value = RoutePayload> {
    use ContentCoding::{Brotli, Deflate, Gzip, Zstd};
    let coding =
        select(vec![Gzip, Deflate, Brotli, Zstd]).prop_flat_map(|one| (Just(one), one.levels()));
    let compress = (vec(coding, 0..4), any::<u32>(), vec(text(), 0..3));
    let compress = compress.prop_map(|(codings, min_bytes, content_types)| Compress {
        codings,
        min_bytes,
        content_types,
    });
    (vec(rule(), 0..2), vec(rule(), 0..2), option::of(compress))
        .prop_map(|(request, response, compress)| RoutePayload { request, response, compress })
}
