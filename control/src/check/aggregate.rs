//! Names and keys of aggregates. What their templates say of each other, the engine's plan judges.

use std::collections::{HashMap, HashSet};

use super::{Check, dangling};
use crate::spec::{Aggregate, CallMode, Merge, Route, Severity, Spec};

/// Upstreams that calls name, with the path of their field.
pub fn references(spec: &Spec) -> impl Iterator<Item = (String, &str)> {
    spec.routes.iter().enumerate().flat_map(|(at, route)| {
        let calls = route.aggregate.iter().flat_map(|one| one.calls.iter().enumerate());
        calls.filter_map(move |(n, call)| {
            let field = format!("routes[{at}].aggregate.calls[{n}].upstream");
            Some((field, call.upstream.as_deref()?))
        })
    })
}

/// Sets of descriptors that calls name, with the path of their field and the upstream that is called.
pub fn protos(spec: &Spec) -> impl Iterator<Item = (String, &str, Option<&str>)> {
    spec.routes.iter().enumerate().flat_map(|(at, route)| {
        let calls = route.aggregate.iter().flat_map(|one| one.calls.iter().enumerate());
        calls.filter_map(move |(n, call)| {
            let field = format!("routes[{at}].aggregate.calls[{n}].grpc");
            Some((field, call.grpc.as_ref()?.proto.as_str(), call.upstream.as_deref()))
        })
    })
}

pub fn check(check: &mut Check<'_>) {
    let spec = check.spec;
    for (at, route) in spec.routes.iter().enumerate() {
        if let Some(aggregate) = &route.aggregate {
            let path = format!("routes[{at}].aggregate");
            names(check, &path, aggregate);
            keys(check, &path, aggregate);
            response(check, &path, aggregate);
            idle(check, &format!("routes[{at}]"), route);
        }
    }
}

fn names(check: &mut Check<'_>, path: &str, aggregate: &Aggregate) {
    let names = aggregate.calls.iter().map(|call| call.name.as_str());
    check.unique(&format!("{path}.calls"), names.clone());
    let known: HashSet<&str> = names.filter(|name| !name.is_empty()).collect();
    let after = aggregate.calls.iter().enumerate().flat_map(|(n, call)| {
        let field = move |m| format!("{path}.calls[{n}].after[{m}]");
        call.after.iter().enumerate().map(move |(m, name)| (field(m), name.as_str(), &*call.name))
    });
    let join = aggregate.response.join.iter().enumerate();
    let join = join.map(|(n, join)| (format!("{path}.response.join[{n}].call"), &*join.call, ""));
    for (field, name, own) in after.chain(join) {
        if name == own && !name.is_empty() {
            let message = format!("the call `{name}` cannot wait for itself");
            check.report(Severity::Error, "call-cycle", &field, name, message, None);
        } else if !known.contains(name) {
            let message = dangling("call", name, &known);
            check.report(Severity::Error, "unknown-call", &field, name, message, None);
        }
    }
}

/// Keys of the response that more than one call has, where that can be known.
fn keys(check: &mut Check<'_>, path: &str, aggregate: &Aggregate) {
    let response = &aggregate.response;
    if aggregate.stream || response.body.is_some() {
        return;
    }
    let shown = aggregate.calls.iter().enumerate().filter(|(_, call)| !call.hidden);
    if response.merge == Merge::Group {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (n, call) in shown {
            let (name, key) = match &call.group {
                Some(group) => ("group", group.as_str()),
                None => ("name", call.name.as_str()),
            };
            let field = format!("{path}.calls[{n}].{name}");
            if key == "errors" && aggregate.errors {
                let message = "`errors` is where failed calls are listed; choose another `group`";
                check.report(Severity::Error, "key-conflict", &field, key, message.into(), None);
            }
            let before = first.insert(key, n).filter(|_| !key.is_empty());
            // Names that are there twice have their own message.
            if let Some(before) = before
                .filter(|at| aggregate.calls.get(*at).is_none_or(|other| other.name != call.name))
            {
                let related = check.places.get(&format!("{path}.calls[{before}]"));
                let message = format!(
                    "the key `{key}` of the response is taken by calls[{before}]; choose another"
                );
                let related = Some(related);
                check.report(Severity::Error, "key-conflict", &field, key, message, related);
            }
        }
        return;
    }
    if response.merge != Merge::Deep {
        return;
    }
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (n, call) in shown {
        let default = match &call.mode {
            CallMode::Default(value) => Some(value),
            CallMode::Required | CallMode::Optional => None,
        };
        let whole = call.foreach.is_none() && call.unwrap.is_none();
        let known = call.fixed.as_ref().filter(|_| whole).or(default);
        for key in known.and_then(|value| value.as_object()).into_iter().flat_map(|map| map.keys())
        {
            let Some(before) = first.insert(key, n) else { continue };
            let other = aggregate.calls.get(before).map_or("", |call| &call.name);
            let field = format!("{path}.calls[{n}]");
            let message = format!(
                "`{other}` and `{}` both have the key `{key}`; what `{}` says goes over it",
                call.name, call.name
            );
            check.warn("key-conflict", &field, key, message);
        }
    }
}

fn response(check: &mut Check<'_>, path: &str, aggregate: &Aggregate) {
    let response = &aggregate.response;
    if aggregate.errors && response.merge == Merge::Append && response.body.is_none() {
        let field = format!("{path}.errors");
        let message = "an appended response is a list, which has no place for errors; use another \
                       merge, or leave errors out";
        check.report(Severity::Error, "conflicting-fields", &field, "", message.into(), None);
    }
    let shaped = [
        ("body", response.body.is_some()),
        ("join", !response.join.is_empty()),
        ("merge", response.merge != Merge::Group),
    ];
    for (name, there) in shaped {
        if aggregate.stream && there {
            let field = format!("{path}.response.{name}");
            let message =
                format!("`{name}` needs all answers, and `stream` does not wait for them");
            check.report(Severity::Error, "conflicting-fields", &field, "", message, None);
        }
    }
    let hidden = aggregate.calls.iter().all(|call| call.hidden);
    if hidden && !aggregate.calls.is_empty() && response.body.is_none() {
        let field = format!("{path}.calls");
        let message = "all calls are hidden, so the response would be empty; show one, or write \
                       response.body";
        check.report(Severity::Error, "empty-response", &field, "", message.into(), None);
    }
}

/// What a route with calls does not use.
fn idle(check: &mut Check<'_>, path: &str, route: &Route) {
    let idle = [
        ("rewrite", !route.rewrite.is_keep()),
        ("mirror", route.mirror.is_some()),
        ("hedge", route.hedge.is_some()),
        ("retry", route.retry.is_some()),
        ("upgrades", !route.upgrades.is_empty()),
        ("grpc_web", route.grpc_web),
    ];
    for (name, _) in idle.into_iter().filter(|(_, there)| *there) {
        let message =
            format!("`{name}` is about one upstream; calls of an aggregate do not use it");
        check.warn("unused-field", &format!("{path}.{name}"), "", message);
    }
}
