//! What TLS, protocols and health checks ask of each other.

use std::collections::HashMap;

use super::Check;
use crate::spec::{HealthKind, Listener, Protocol, Severity, Upstream};

pub fn check(check: &mut Check<'_>) {
    let spec = check.spec;
    for (at, listener) in spec.listeners.iter().enumerate() {
        self::listener(check, &format!("listeners[{at}]"), listener);
    }
    for (at, upstream) in spec.upstreams.iter().enumerate() {
        self::upstream(check, &format!("upstreams[{at}]"), upstream);
    }
    early_data(check);
    grpc_web(check);
}

fn listener(check: &mut Check<'_>, path: &str, listener: &Listener) {
    empty_tls(check, path, listener.tls.is_none(), "write its certificates");
    let Some(tls) = &listener.tls else { return };
    if listener.h2c {
        let message = "h2c is HTTP/2 on clear text; over TLS clients agree on it by ALPN (RFC 9113 \
                       §3.2), which `tls.alpn` offers: leave `h2c` out";
        let field = format!("{path}.h2c");
        check.report(Severity::Error, "h2c-with-tls", &field, "true", message.into(), None);
    }
    let mut first: HashMap<&str, String> = HashMap::new();
    for (at, certificate) in tls.certificates.iter().enumerate() {
        for (n, name) in certificate.names.iter().enumerate() {
            let field = format!("{path}.tls.certificates[{at}].names[{n}]");
            if let Some(other) = first.get(name.as_str()) {
                let related = check.places.get(other);
                let message =
                    format!("`{name}` is a name of another certificate of this listener; keep one");
                let code = "duplicate-server-name";
                check.report(Severity::Error, code, &field, name, message, Some(related));
            } else {
                first.insert(name, field);
            }
        }
    }
}

/// `tls:` with nothing behind it must not pass for clear text unseen.
fn empty_tls(check: &mut Check<'_>, path: &str, absent: bool, instead: &str) {
    let field = format!("{path}.tls");
    if absent && check.places.has(&field) && !check.problems.is_broken(&field) {
        let message = format!("`tls` is empty; {instead}, or leave it out for clear text");
        check.report(Severity::Error, "empty-tls", &field, "", message, None);
    }
}

fn upstream(check: &mut Check<'_>, path: &str, upstream: &Upstream) {
    empty_tls(check, path, upstream.tls.is_none(), "write `tls: {}` for the defaults");
    if check.problems.is_broken(&format!("{path}.protocol")) {
        return;
    }
    if upstream.protocol == Protocol::Auto
        && upstream.tls.is_none()
        && !check.problems.is_broken(&format!("{path}.tls"))
    {
        let message = "without TLS there is no ALPN to agree on a protocol; add `tls: {}`, or \
                       choose http1 or http2";
        let field = format!("{path}.protocol");
        check.report(Severity::Error, "auto-without-tls", &field, "auto", message.into(), None);
    }
    if let Some(tls) = upstream.tls.as_ref().filter(|tls| !tls.verify) {
        let message = match tls.cert {
            Some(_) => "anybody may pretend to be this upstream and get our certificate shown",
            None => "anybody may pretend to be this upstream",
        };
        let message = format!("{message}: name its issuer as `ca` instead");
        let field = format!("{path}.tls.verify");
        check.report(Severity::Warning, "unverified-upstream", &field, "false", message, None);
    }
    let Some(health) = &upstream.health else { return };
    let grpc = matches!(health.kind, HealthKind::Grpc(_));
    let broken = check.problems.is_broken(&format!("{path}.health"));
    if upstream.protocol == Protocol::Http1 && grpc && !broken {
        let message = "gRPC needs HTTP/2; set `protocol: http2`, or `auto` with tls".into();
        let field = format!("{path}.health.grpc");
        check.report(Severity::Error, "grpc-over-http1", &field, "", message, None);
    }
    let timing = [format!("{path}.health.timeout_ms"), format!("{path}.health.interval_ms")];
    let broken = timing.iter().any(|field| check.problems.is_broken(field));
    if health.timeout_ms > health.interval_ms && !broken {
        let message = format!(
            "a check must end before the next one: at most interval_ms, {}",
            health.interval_ms
        );
        let value = health.timeout_ms.to_string();
        check.report(Severity::Error, "timeout-past-interval", &timing[0], &value, message, None);
    }
}

fn early_data(check: &mut Check<'_>) {
    let spec = check.spec;
    let allows = |listener: &Listener| listener.tls.as_ref().is_some_and(|tls| tls.early_data > 0);
    let allowed = spec.listeners.iter().any(allows);
    let taken = spec.routes.iter().any(|route| route.early_data);
    for (at, route) in spec.routes.iter().enumerate().filter(|(_, route)| route.early_data) {
        if !allowed {
            let message = format!(
                "no listener takes early data, so this has no effect on `{}`; set \
                 `tls: {{early_data: 16KiB}}` on one",
                route.name
            );
            let field = format!("routes[{at}].early_data");
            check.report(Severity::Warning, "unused-early-data", &field, "true", message, None);
        }
    }
    for (at, listener) in spec.listeners.iter().enumerate().filter(|(_, one)| allows(one)) {
        if !taken && !spec.routes.is_empty() {
            let message = format!(
                "no route has `early_data: true`, so every early request on `{}` is answered 425",
                listener.name
            );
            let field = format!("listeners[{at}].tls.early_data");
            check.report(Severity::Warning, "unused-early-data", &field, "", message, None);
        }
    }
}

fn grpc_web(check: &mut Check<'_>) {
    let spec = check.spec;
    let old: HashMap<&str, &Upstream> = spec
        .upstreams
        .iter()
        .filter(|upstream| upstream.protocol == Protocol::Http1)
        .map(|upstream| (upstream.name.as_str(), &**upstream))
        .collect();
    for (at, route) in spec.routes.iter().enumerate() {
        if let Some(processor) = &route.external_processor
            && old.contains_key(processor.upstream.as_str())
        {
            let name = &processor.upstream;
            let message = format!(
                "a processor is called over gRPC, which needs HTTP/2, and the upstream `{name}` speaks \
                 HTTP/1.1; give it `protocol: http2`, or `auto` with tls"
            );
            let field = format!("routes[{at}].external_processor.upstream");
            check.report(Severity::Error, "grpc-over-http1", &field, name, message, None);
        }
    }
    for (at, route) in spec.routes.iter().enumerate().filter(|(_, route)| route.grpc_web) {
        if let Some(backend) =
            route.upstreams.iter().find(|backend| old.contains_key(backend.name.as_str()))
        {
            let message = format!(
                "gRPC needs HTTP/2, and the upstream `{}` speaks HTTP/1.1; give it \
                 `protocol: http2`, or `auto` with tls",
                backend.name
            );
            let field = format!("routes[{at}].grpc_web");
            check.report(Severity::Error, "grpc-over-http1", &field, "true", message, None);
        }
    }
}
