//! Between JSON and gRPC: names that must be there, and what upstreams must speak.

use std::collections::{HashMap, HashSet};

use super::{Check, dangling};
use crate::spec::{Protocol, Severity, TranscodeTarget};

pub(super) fn check(check: &mut Check<'_>) {
    let spec = check.spec;
    let known: HashSet<&str> = spec.protos.iter().map(|one| one.name.as_str()).collect();
    let upstreams: HashMap<&str, Protocol> =
        spec.upstreams.iter().map(|one| (one.name.as_str(), one.protocol)).collect();
    let mut used: HashSet<&str> = HashSet::new();
    for (at, route) in spec.routes.iter().enumerate() {
        let field = format!("routes[{at}].transcode");
        let Some(transcode) = &route.transcode else {
            // `transcode:` with nothing behind it must not pass for one that does something.
            if check.places.has(&field) && !check.problems.is_broken(&field) {
                let message = "`transcode` is empty; leave it out to translate nothing".into();
                check.report(Severity::Error, "empty-field", &field, "", message, None);
            }
            continue;
        };
        let name = transcode.proto.as_str();
        used.insert(name);
        if !name.is_empty() && !known.contains(name) {
            let message = dangling("proto", name, &known);
            let field = format!("{field}.proto");
            check.report(Severity::Error, "unknown-proto", &field, name, message, None);
        }
        let old = route.upstreams.iter().find(|backend| {
            upstreams.get(backend.name.as_str()).is_some_and(|own| *own == Protocol::Http1)
        });
        if let (TranscodeTarget::Grpc, Some(backend)) = (transcode.to, old) {
            let message = format!(
                "gRPC needs HTTP/2, and the upstream `{}` speaks HTTP/1.1; give it \
                 `protocol: http2`, or `auto` with tls",
                backend.name
            );
            check.report(Severity::Error, "grpc-over-http1", &field, "", message, None);
        }
    }
    for (field, name, upstream) in super::aggregate::protos(spec) {
        used.insert(name);
        if !name.is_empty() && !known.contains(name) {
            let message = dangling("proto", name, &known);
            let field = format!("{field}.proto");
            check.report(Severity::Error, "unknown-proto", &field, name, message, None);
        }
        let old = upstream
            .and_then(|name| upstreams.get(name))
            .is_some_and(|own| *own == Protocol::Http1);
        if old {
            let message = "gRPC needs HTTP/2, and this upstream speaks HTTP/1.1; give it `protocol: \
                           http2`, or `auto` with tls";
            let code = "grpc-over-http1";
            check.report(Severity::Error, code, &field, "", message.into(), None);
        }
    }
    for (at, source) in spec.protos.iter().enumerate() {
        if let Some(reflection) = &source.reflection {
            let name = reflection.upstream.as_str();
            let field = format!("protos[{at}].reflection.upstream");
            if !name.is_empty() && !upstreams.contains_key(name) {
                let known: HashSet<&str> = upstreams.keys().copied().collect();
                let message = dangling("upstream", name, &known);
                check.report(Severity::Error, "unknown-upstream", &field, name, message, None);
            }
        }
        if !used.contains(source.name.as_str()) && !check.problems.has_errors() {
            let message = format!("no route transcodes by the proto `{}`", source.name);
            let field = format!("protos[{at}].name");
            check.report(Severity::Warning, "unused-proto", &field, &source.name, message, None);
        }
    }
}
