//! What routes transcode by: each set of descriptors once, in the order of the spec.

use contract::snapshot as flat;

use crate::material::Material;
use crate::spec::{
    HttpBinding, ProtoSource, Route, Spec, StreamFormat, Transcode, TranscodeTarget, Unknown,
    UnknownQuery,
};

/// The sets of descriptors of a spec. What material lacks is empty, and its routes point past the end, so
/// that such a snapshot is not decoded.
pub fn protos(spec: &Spec, material: &Material) -> Vec<flat::ProtoSet> {
    let set = |source: &ProtoSource| flat::ProtoSet {
        name: source.name.clone(),
        descriptors: material.proto(source).map(<[u8]>::to_vec).unwrap_or_default(),
    };
    spec.protos.iter().map(set).collect()
}

/// How a route transcodes. Nothing while descriptors are still to be had, which is never published.
pub fn route(route: &Route, spec: &Spec, material: &Material) -> Option<flat::RouteTranscode> {
    let transcode = route.transcode.as_ref()?;
    let source = spec.protos.iter().find(|one| one.name == transcode.proto);
    match source.is_some_and(|source| material.is_pending_proto(source)) {
        true => None,
        false => Some(flat_route(transcode, spec, material)),
    }
}

fn flat_route(transcode: &Transcode, spec: &Spec, material: &Material) -> flat::RouteTranscode {
    let proto = spec.protos.iter().position(|one| one.name == transcode.proto);
    let known =
        proto.filter(|at| spec.protos.get(*at).is_some_and(|one| material.proto(one).is_some()));
    let mut rules = Vec::new();
    for (at, binding) in transcode.bindings.iter().enumerate() {
        let more = binding.additional_bindings.iter();
        for one in std::iter::once(binding).chain(more) {
            rules.push(rule(at as u32, &binding.selector, one));
        }
    }
    let print = transcode.print;
    flat::RouteTranscode {
        proto: known.map_or(u32::MAX, |at| at as u32),
        to: match transcode.to {
            TranscodeTarget::Grpc => flat::TranscodeTo::Grpc,
            TranscodeTarget::Json => flat::TranscodeTo::Json,
        },
        services: transcode.services.clone(),
        rules,
        auto_mapping: transcode.auto_mapping,
        print: flat::PrintJson {
            always: print.always_print_primitive_fields,
            enums_as_ints: print.enums_as_ints,
            proto_names: print.preserve_proto_field_names,
            whitespace: print.whitespace,
        },
        streams: match transcode.streams {
            StreamFormat::Array => flat::StreamForm::Array,
            StreamFormat::Ndjson => flat::StreamForm::Ndjson,
            StreamFormat::Sse => flat::StreamForm::Sse,
        },
        unknown_query: match &transcode.unknown_query {
            UnknownQuery::All(Unknown::Refuse) => flat::UnknownQuery::Refuse,
            UnknownQuery::All(Unknown::Ignore) => flat::UnknownQuery::Ignore,
            UnknownQuery::Listed(names) => flat::UnknownQuery::Listed(names.clone()),
        },
        ignore_unknown_fields: transcode.unknown_fields == Unknown::Ignore,
        status_details: transcode.status_details,
        any_case_enums: transcode.case_insensitive_enums,
        max_request_bytes: u32::try_from(transcode.max_request_bytes).unwrap_or(u32::MAX),
        max_response_bytes: u32::try_from(transcode.max_response_bytes).unwrap_or(u32::MAX),
    }
}

fn rule(at: u32, selector: &str, binding: &HttpBinding) -> flat::HttpRule {
    let (method, path) = binding.pattern().unwrap_or_default();
    flat::HttpRule {
        at,
        selector: selector.into(),
        method: method.into(),
        path: path.into(),
        body: binding.body.clone(),
        response_body: binding.response_body.clone(),
    }
}
