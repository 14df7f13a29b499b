//! Routes that are answered by several calls together.

use super::{DecodeError, Fault, In, MAX_ENTRIES, Out, resilience};
use crate::snapshot::*;

/// Most calls of an aggregate.
pub const MAX_CALLS: usize = 64;
/// Largest JSON with templates, in bytes.
pub const MAX_JSON_TEMPLATE: usize = 256 * 1024;
/// Most items that a call is made for.
pub const MAX_ITEMS: u32 = 10_000;
/// Most calls of one request at once.
pub const MAX_CALLS_AT_ONCE: u16 = 64;
/// What the answers of one request may take together, in bytes.
pub const MAX_AGGREGATE_BYTES: u32 = 64 * 1024 * 1024;
/// Longest that an aggregate may take, in milliseconds.
pub const MAX_AGGREGATE_MS: u32 = 3_600_000;

pub(super) fn write(out: &mut Out, aggregate: &Aggregate) {
    out.list(&aggregate.calls, write_call);
    let response = &aggregate.response;
    out.u16(response.status);
    match &response.body {
        AggregateBody::Group => out.u8(0),
        AggregateBody::Deep => out.u8(1),
        AggregateBody::Append => out.u8(2),
        AggregateBody::Template(json) => {
            out.u8(3);
            out.blob(json.as_bytes());
        }
    }
    out.list(&response.join, |out, join| {
        out.text(&join.list);
        out.text(&join.key);
        out.u32(join.call);
        out.text(&join.from);
        out.text(&join.by);
        out.text(&join.into);
        out.u8(join.many.into());
    });
    write_projection(out, &response.projection);
    write_pairs(out, &response.headers);
    out.u32(aggregate.deadline_ms);
    out.u16(aggregate.concurrency);
    out.u32(aggregate.max_bytes);
    out.u8(aggregate.errors.into());
    out.u8(aggregate.server_timing.into());
    out.u8(aggregate.stream.into());
}

pub(super) fn read(
    input: &mut In<'_>,
    upstreams: usize,
    protos: usize,
) -> Result<Aggregate, DecodeError> {
    // Calls point at each other. A count that lies is found when the list is read.
    let count = input.ahead().u32_within("aggregate.calls", 1, MAX_CALLS as u32)? as usize;
    let calls = input
        .some("aggregate.calls", MAX_CALLS, |input| read_call(input, (upstreams, protos), count))?;
    Ok(Aggregate {
        response: AggregateResponse {
            status: input.u16_within("aggregate.status", 200, 599)?,
            body: match input.u8("aggregate.body")? {
                0 => AggregateBody::Group,
                1 => AggregateBody::Deep,
                2 => AggregateBody::Append,
                3 => AggregateBody::Template(json(input, "aggregate.body")?),
                other => return Err(input.tag("aggregate.body", other)),
            },
            join: input.list("aggregate.join", MAX_ENTRIES, |input| {
                Ok(Join {
                    list: input.text("join.list")?,
                    key: input.text("join.key")?,
                    call: input.index("join.call", calls.len())?,
                    from: input.text("join.from")?,
                    by: input.text("join.by")?,
                    into: input.text("join.into")?,
                    many: input.bool("join.many")?,
                })
            })?,
            projection: read_projection(input)?,
            headers: read_pairs(input, "aggregate.headers")?,
        },
        calls,
        deadline_ms: input.u32_within("aggregate.deadline_ms", 1, MAX_AGGREGATE_MS)?,
        concurrency: input.u16_within("aggregate.concurrency", 1, MAX_CALLS_AT_ONCE)?,
        max_bytes: input.u32_within("aggregate.max_bytes", 1, MAX_AGGREGATE_BYTES)?,
        errors: input.bool("aggregate.errors")?,
        server_timing: input.bool("aggregate.server_timing")?,
        stream: input.bool("aggregate.stream")?,
    })
}

fn write_call(out: &mut Out, call: &AggregateCall) {
    out.text(&call.name);
    match &call.source {
        CallSource::Http(http) => {
            out.u8(0);
            write_http(out, http);
        }
        CallSource::Static(json) => {
            out.u8(1);
            out.blob(json.as_bytes());
        }
    }
    out.list(&call.after, |out, at| out.u32(*at));
    out.option(call.when.as_ref(), |out, when| out.text(when));
    match &call.mode {
        CallMode::Required => out.u8(0),
        CallMode::Optional => out.u8(1),
        CallMode::Default(json) => {
            out.u8(2);
            out.blob(json.as_bytes());
        }
    }
    out.option(call.repeat.as_ref(), |out, repeat| {
        out.text(&repeat.list);
        out.text(&repeat.key);
        out.u32(repeat.max_items);
        out.u16(repeat.concurrency);
        out.option(repeat.batch.as_ref(), |out, batch| {
            out.u32(batch.size);
            out.text(&batch.by);
        });
    });
    out.text(&call.unwrap);
    write_projection(out, &call.projection);
    out.u8(call.hidden.into());
    out.text(&call.group);
}

fn read_call(
    input: &mut In<'_>,
    known: (usize, usize),
    calls: usize,
) -> Result<AggregateCall, DecodeError> {
    Ok(AggregateCall {
        name: input.text("call.name")?,
        source: match input.u8("call.source")? {
            0 => CallSource::Http(Box::new(read_http(input, known)?)),
            1 => CallSource::Static(json(input, "call.static")?),
            other => return Err(input.tag("call.source", other)),
        },
        after: input.list("call.after", MAX_CALLS, |input| input.index("call.after", calls))?,
        when: input.option("call.when", |input| input.text("call.when"))?,
        mode: match input.u8("call.mode")? {
            0 => CallMode::Required,
            1 => CallMode::Optional,
            2 => CallMode::Default(json(input, "call.mode")?),
            other => return Err(input.tag("call.mode", other)),
        },
        repeat: input.option("call.repeat", |input| {
            Ok(Repeat {
                list: input.text("repeat.list")?,
                key: input.text("repeat.key")?,
                max_items: input.u32_within("repeat.max_items", 1, MAX_ITEMS)?,
                concurrency: input.u16_within("repeat.concurrency", 1, MAX_CALLS_AT_ONCE)?,
                batch: input.option("repeat.batch", |input| {
                    Ok(Batch {
                        size: input.u32_within("batch.size", 1, MAX_ITEMS)?,
                        by: input.text("batch.by")?,
                    })
                })?,
            })
        })?,
        unwrap: input.text("call.unwrap")?,
        projection: read_projection(input)?,
        hidden: input.bool("call.hidden")?,
        group: input.text("call.group")?,
    })
}

fn write_http(out: &mut Out, http: &HttpCall) {
    out.u32(http.upstream);
    out.text(&http.method);
    out.text(&http.path);
    write_pairs(out, &http.query);
    write_pairs(out, &http.headers);
    out.option(http.body.as_ref(), |out, json| out.blob(json.as_bytes()));
    out.texts(&http.forward_headers);
    out.texts(&http.forward_query);
    out.texts(&http.forward_cookies);
    out.u32(http.timeout_ms);
    out.option(http.retry.as_ref(), resilience::write_retry);
    out.list(&http.success, |out, (first, last)| {
        out.u16(*first);
        out.u16(*last);
    });
    out.list(&http.pass, |out, status| out.u16(*status));
    out.u32(http.max_bytes);
    out.option(http.grpc.as_ref(), |out, grpc| {
        out.u32(grpc.proto);
        out.text(&grpc.method);
    });
}

fn read_http(
    input: &mut In<'_>,
    (upstreams, protos): (usize, usize),
) -> Result<HttpCall, DecodeError> {
    Ok(HttpCall {
        upstream: input.index("call.upstream", upstreams)?,
        method: input.text("call.method")?,
        path: input.text("call.path")?,
        query: read_pairs(input, "call.query")?,
        headers: read_pairs(input, "call.headers")?,
        body: input.option("call.body", |input| json(input, "call.body"))?,
        forward_headers: input.texts("call.forward_headers", MAX_ENTRIES)?,
        forward_query: input.texts("call.forward_query", MAX_ENTRIES)?,
        forward_cookies: input.texts("call.forward_cookies", MAX_ENTRIES)?,
        timeout_ms: input.u32_within("call.timeout_ms", 0, MAX_AGGREGATE_MS)?,
        retry: input.option("call.retry", resilience::read_retry)?,
        success: input.list("call.success", MAX_ENTRIES, |input| {
            Ok((input.u16("call.success")?, input.u16("call.success")?))
        })?,
        pass: input
            .list("call.pass", MAX_ENTRIES, |input| input.u16_within("call.pass", 300, 599))?,
        max_bytes: input.u32_within("call.max_bytes", 1, MAX_AGGREGATE_BYTES)?,
        grpc: input.option("call.grpc", |input| {
            Ok(GrpcCall {
                proto: input.index("call.grpc.proto", protos)?,
                method: input.text("call.grpc.method")?,
            })
        })?,
    })
}

fn write_projection(out: &mut Out, projection: &Projection) {
    out.texts(&projection.allow);
    out.texts(&projection.deny);
}

fn read_projection(input: &mut In<'_>) -> Result<Projection, DecodeError> {
    Ok(Projection {
        allow: input.texts("projection.allow", MAX_ENTRIES)?,
        deny: input.texts("projection.deny", MAX_ENTRIES)?,
    })
}

fn write_pairs(out: &mut Out, pairs: &[(String, String)]) {
    out.list(pairs, |out, (name, value)| {
        out.text(name);
        out.text(value);
    });
}

fn read_pairs(
    input: &mut In<'_>,
    field: &'static str,
) -> Result<Vec<(String, String)>, DecodeError> {
    input.list(field, MAX_ENTRIES, |input| Ok((input.text(field)?, input.text(field)?)))
}

fn json(input: &mut In<'_>, field: &'static str) -> Result<String, DecodeError> {
    let unsound = input.fault(field, Fault::NotUtf8);
    String::from_utf8(input.blob(field, MAX_JSON_TEMPLATE)?).map_err(|_| unsound)
}
