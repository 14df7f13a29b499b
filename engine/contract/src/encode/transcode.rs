//! Descriptors, and how routes transcode by them.

use super::{DecodeError, In, MAX_ENTRIES, Out};
use crate::snapshot::*;

/// Most sets of descriptors of a snapshot.
pub const MAX_PROTOS: usize = 1_000;
/// Largest set, in bytes.
pub const MAX_DESCRIPTORS: usize = 16 * 1024 * 1024;
/// Largest message that a route may ask to have transcoded, in bytes.
pub const MAX_TRANSCODED: u32 = 64 * 1024 * 1024;

pub(super) fn write_proto(out: &mut Out, proto: &ProtoSet) {
    out.text(&proto.name);
    out.blob(&proto.descriptors);
}

pub(super) fn read_proto(input: &mut In<'_>) -> Result<ProtoSet, DecodeError> {
    Ok(ProtoSet {
        name: input.text("proto.name")?,
        descriptors: input.blob("proto.descriptors", MAX_DESCRIPTORS)?,
    })
}

pub(super) fn write_route(out: &mut Out, route: &RouteTranscode) {
    out.u32(route.proto);
    out.u8(match route.to {
        TranscodeTo::Grpc => 0,
        TranscodeTo::Json => 1,
    });
    out.list(&route.services, |out, name| out.text(name));
    out.list(&route.rules, |out, rule| {
        out.u32(rule.at);
        out.text(&rule.selector);
        out.text(&rule.method);
        out.text(&rule.path);
        out.text(&rule.body);
        out.text(&rule.response_body);
    });
    out.u8(route.auto_mapping.into());
    out.u8(route.print.always.into());
    out.u8(route.print.enums_as_ints.into());
    out.u8(route.print.proto_names.into());
    out.u8(route.print.whitespace.into());
    out.u8(match route.streams {
        StreamForm::Array => 0,
        StreamForm::Ndjson => 1,
        StreamForm::Sse => 2,
    });
    match &route.unknown_query {
        UnknownQuery::Refuse => out.u8(0),
        UnknownQuery::Ignore => out.u8(1),
        UnknownQuery::Listed(names) => {
            out.u8(2);
            out.list(names, |out, name| out.text(name));
        }
    }
    out.u8(route.ignore_unknown_fields.into());
    out.u8(route.status_details.into());
    out.u8(route.any_case_enums.into());
    out.u32(route.max_request_bytes);
    out.u32(route.max_response_bytes);
}

pub(super) fn read_route(input: &mut In<'_>, protos: usize) -> Result<RouteTranscode, DecodeError> {
    Ok(RouteTranscode {
        proto: input.index("route.transcode.proto", protos)?,
        to: match input.u8("route.transcode.to")? {
            0 => TranscodeTo::Grpc,
            1 => TranscodeTo::Json,
            other => return Err(input.tag("route.transcode.to", other)),
        },
        services: input.list("route.transcode.services", MAX_ENTRIES, |input| {
            input.text("route.transcode.service")
        })?,
        rules: input.list("route.transcode.rules", MAX_ENTRIES, |input| {
            Ok(HttpRule {
                at: input.u32("rule.at")?,
                selector: input.text("rule.selector")?,
                method: input.text("rule.method")?,
                path: input.text("rule.path")?,
                body: input.text("rule.body")?,
                response_body: input.text("rule.response_body")?,
            })
        })?,
        auto_mapping: input.bool("route.transcode.auto_mapping")?,
        print: PrintJson {
            always: input.bool("route.transcode.print.always")?,
            enums_as_ints: input.bool("route.transcode.print.enums_as_ints")?,
            proto_names: input.bool("route.transcode.print.proto_names")?,
            whitespace: input.bool("route.transcode.print.whitespace")?,
        },
        streams: match input.u8("route.transcode.streams")? {
            0 => StreamForm::Array,
            1 => StreamForm::Ndjson,
            2 => StreamForm::Sse,
            other => return Err(input.tag("route.transcode.streams", other)),
        },
        unknown_query: match input.u8("route.transcode.unknown_query")? {
            0 => UnknownQuery::Refuse,
            1 => UnknownQuery::Ignore,
            2 => UnknownQuery::Listed(input.list(
                "route.transcode.unknown_query",
                MAX_ENTRIES,
                |input| input.text("route.transcode.unknown_query"),
            )?),
            other => return Err(input.tag("route.transcode.unknown_query", other)),
        },
        ignore_unknown_fields: input.bool("route.transcode.ignore_unknown_fields")?,
        status_details: input.bool("route.transcode.status_details")?,
        any_case_enums: input.bool("route.transcode.any_case_enums")?,
        max_request_bytes: input.u32_within(
            "route.transcode.max_request_bytes",
            1,
            MAX_TRANSCODED,
        )?,
        max_response_bytes: input.u32_within(
            "route.transcode.max_response_bytes",
            1,
            MAX_TRANSCODED,
        )?,
    })
}
