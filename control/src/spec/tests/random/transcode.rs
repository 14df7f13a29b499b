//! Protos and a route that transcodes.

use crate::spec::*;

/// Has one of the routes that may transcode, in all its parts.
pub fn put(routes: &mut [Route], upstreams: &[Upstream]) {
    let old = |upstream: &Upstream| upstream.protocol == Protocol::Http1;
    let speaks = |route: &Route| {
        route
            .upstreams
            .iter()
            .all(|backend| !upstreams.iter().any(|one| one.name == backend.name && old(one)))
    };
    if let Some(route) = routes.iter_mut().find(|route| speaks(route)) {
        route.transcode = Some(transcode());
    }
}

pub fn protos() -> Vec<ProtoSource> {
    let empty = ProtoSource {
        name: "shop".into(),
        workspace: Some("shop".into()),
        files: vec!["/etc/shop.proto".into()],
        includes: vec!["/etc".into()],
        descriptor_set: None,
        reflection: None,
    };
    let (files, includes) = (Vec::new(), Vec::new());
    let set = Some("/etc/x.binpb".to_string());
    let other = ProtoSource { name: "set".into(), files, includes, ..empty.clone() };
    vec![empty, ProtoSource { descriptor_set: set, ..other }]
}

fn transcode() -> Transcode {
    let binding = HttpBinding {
        custom: Some(CustomMethod { kind: "*".into(), path: "/v1/{a.b=c/**}:d".into() }),
        body: "*".into(),
        ..HttpBinding::default()
    };
    let one = HttpBinding {
        selector: "shop.v1.Shop.Get".into(),
        get: Some("/v1/{id}".into()),
        response_body: "item".into(),
        additional_bindings: vec![binding],
        ..HttpBinding::default()
    };
    Transcode {
        proto: "shop".into(),
        services: vec!["shop.v1.Shop".into()],
        to: TranscodeTarget::Grpc,
        bindings: vec![one],
        auto_mapping: true,
        print: PrintOptions { whitespace: true, ..PrintOptions::default() },
        streams: StreamFormat::Sse,
        unknown_query: UnknownQuery::Listed(vec!["key".into()]),
        unknown_fields: Unknown::Ignore,
        status_details: false,
        case_insensitive_enums: true,
        max_request_bytes: 1024,
        max_response_bytes: DEFAULT_TRANSCODED_BYTES,
    }
}
