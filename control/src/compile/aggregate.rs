//! Routes that are answered by several calls together.

use std::collections::{BTreeMap, HashMap};

use contract::snapshot as flat;
use serde_json::Value;

use super::{Indexes, upstreams};
use crate::material::Material;
use crate::spec::{Aggregate, AggregateCall, CallMode, Merge, Route, Spec};

/// Total: a call that names no upstream (which a loaded spec cannot have) makes a snapshot that is
/// refused when it is decoded.
pub fn route(
    route: &Route,
    index: &Indexes<'_>,
    spec: &Spec,
    material: &Material,
) -> Option<flat::Aggregate> {
    route.aggregate.as_deref().map(|one| aggregate(one, index, spec, material))
}

fn aggregate(
    from: &Aggregate,
    index: &Indexes<'_>,
    spec: &Spec,
    material: &Material,
) -> flat::Aggregate {
    let grpc = |call: &AggregateCall| grpc(call, spec, material);
    let places: HashMap<&str, u32> =
        (0..).zip(&from.calls).map(|(at, call)| (call.name.as_str(), at)).collect();
    let place = |name: &String| places.get(name.as_str()).copied().unwrap_or(u32::MAX);
    let response = &from.response;
    flat::Aggregate {
        calls: from.calls.iter().map(|one| call(one, index, &place, &grpc)).collect(),
        response: flat::AggregateResponse {
            status: response.status,
            body: match (&response.body, response.merge) {
                (Some(body), _) => flat::AggregateBody::Template(body.to_string()),
                (None, Merge::Group) => flat::AggregateBody::Group,
                (None, Merge::Deep) => flat::AggregateBody::Deep,
                (None, Merge::Append) => flat::AggregateBody::Append,
            },
            join: response
                .join
                .iter()
                .map(|join| flat::Join {
                    list: join.list.clone(),
                    key: join.key.clone(),
                    call: place(&join.call),
                    from: join.from.clone(),
                    by: join.by.clone(),
                    into: join.into.clone(),
                    many: join.many,
                })
                .collect(),
            projection: projection(&response.allow, &response.deny),
            headers: pairs(&response.headers),
        },
        deadline_ms: from.deadline_ms,
        concurrency: from.concurrency,
        max_bytes: bytes(from.max_bytes),
        errors: from.errors,
        server_timing: from.server_timing,
        stream: from.stream,
    }
}

fn call(
    from: &AggregateCall,
    index: &Indexes<'_>,
    place: &impl Fn(&String) -> u32,
    grpc: &impl Fn(&AggregateCall) -> Option<flat::GrpcCall>,
) -> flat::AggregateCall {
    flat::AggregateCall {
        name: from.name.clone(),
        source: match &from.fixed {
            Some(value) => flat::CallSource::Static(value.to_string()),
            None => flat::CallSource::Http(Box::new(http(from, index, grpc(from)))),
        },
        after: from.after.iter().map(place).collect(),
        when: from.when.clone(),
        mode: match &from.mode {
            CallMode::Required => flat::CallMode::Required,
            CallMode::Optional => flat::CallMode::Optional,
            CallMode::Default(value) => flat::CallMode::Default(value.to_string()),
        },
        repeat: repeat(from),
        unwrap: from.unwrap.clone().unwrap_or_default(),
        projection: projection(&from.allow, &from.deny),
        hidden: from.hidden,
        group: from.group.clone().unwrap_or_default(),
    }
}

/// Nothing while descriptors are still to be had, which is never published.
fn grpc(from: &AggregateCall, spec: &Spec, material: &Material) -> Option<flat::GrpcCall> {
    let grpc = from.grpc.as_ref()?;
    let at = spec.protos.iter().position(|one| one.name == grpc.proto);
    let source = at.and_then(|at| spec.protos.get(at));
    if source.is_some_and(|source| material.is_pending_proto(source)) {
        return None;
    }
    let known = source.is_some_and(|source| material.proto(source).is_some());
    let proto = at.filter(|_| known).map_or(u32::MAX, |at| at as u32);
    Some(flat::GrpcCall { proto, method: grpc.method.clone() })
}

fn http(from: &AggregateCall, index: &Indexes<'_>, grpc: Option<flat::GrpcCall>) -> flat::HttpCall {
    let upstream = from.upstream.as_deref().and_then(|name| index.get(name));
    let method = match (&from.method, &from.body) {
        (Some(method), _) => method,
        (None, Some(_)) => "POST",
        (None, None) => "GET",
    };
    flat::HttpCall {
        upstream: upstream.copied().unwrap_or(u32::MAX),
        method: method.into(),
        path: from.path.clone().unwrap_or_default(),
        query: pairs(&from.query),
        headers: pairs(&from.headers),
        body: from.body.as_ref().map(Value::to_string),
        forward_headers: from.forward_headers.clone(),
        forward_query: from.forward_query.clone(),
        forward_cookies: from.forward_cookies.clone(),
        timeout_ms: from.timeout_ms.unwrap_or(0),
        retry: from.retry.as_ref().map(upstreams::retry),
        success: from.success.iter().map(|range| (range.first, range.last)).collect(),
        pass: from.pass.clone(),
        max_bytes: bytes(from.max_bytes),
        grpc,
    }
}

fn repeat(from: &AggregateCall) -> Option<flat::Repeat> {
    if let Some(batch) = &from.batch {
        return Some(flat::Repeat {
            list: batch.list.clone(),
            key: batch.key.clone().unwrap_or_default(),
            max_items: batch.max_items,
            concurrency: batch.concurrency,
            batch: Some(flat::Batch { size: batch.size, by: batch.by.clone() }),
        });
    }
    let foreach = from.foreach.as_ref()?;
    Some(flat::Repeat {
        list: foreach.list.clone(),
        key: foreach.key.clone().unwrap_or_default(),
        max_items: foreach.max_items,
        concurrency: foreach.concurrency,
        batch: None,
    })
}

fn projection(allow: &[String], deny: &[String]) -> flat::Projection {
    flat::Projection { allow: allow.to_vec(), deny: deny.to_vec() }
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn bytes(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
