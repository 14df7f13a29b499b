//! Calls to a service that speaks JSON: the http rules the other way round, for unary calls.

use std::cell::RefCell;
use std::sync::Arc;

use contract::record::Reason;
use serde_json::{Map, Value};

use super::Transcode;
use super::binding::{Binding, BodyTo, FieldPath};
use super::frames::{self, BadFrame};
use super::json::from_base64;
use super::outward::http_body;
use super::percent;
use super::proto::Method;
use super::schema::{Kind, Schema};
use super::status::{self, Status};
use super::template::Segment;
use super::wire::write_bytes;
use crate::answer::{Answer, Body, Carrier};
use crate::exchange::{AnswerAs, Request, Responder};
use crate::forward as upstreams;
use crate::grpc;
use crate::io::Chunk;
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::Name;
use crate::route::RouteIndex;
use crate::shard::Shard;
use crate::upload;

/// A request for a JSON service.
struct Asked {
    method: Vec<u8>,
    path: Vec<u8>,
    query: Vec<u8>,
    /// With its content type.
    body: Option<(Vec<u8>, Vec<u8>)>,
}

/// Forwards a call.
///
/// # Errors
/// What forwarding ends with; UNIMPLEMENTED for what is no method, or one of streams; INVALID_ARGUMENT for
/// what is no message, or does not fit the path.
pub async fn forward(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    index: RouteIndex,
    transcode: &Arc<Transcode>,
) -> Result<Answer, LocalReply> {
    let kind = request.grpc.unwrap_or(grpc::Kind::Grpc);
    let (proto, path) = (&transcode.proto, request.path().to_vec());
    let unknown = || LocalReply::new(404, Reason::NoBinding);
    let place = transcode.methods.iter().copied().find(|place| {
        proto.methods.get(*place).is_some_and(|method| method.path.as_bytes() == path)
    });
    let place = place.ok_or_else(unknown)?;
    let binding = transcode.bindings.iter().find(|binding| binding.method == place);
    let (Some(binding), Some(method)) = (binding, proto.methods.get(place)) else {
        return Err(unknown());
    };
    let coded = request.head.other(request.bytes(), b"grpc-encoding");
    let coded = coded.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    if method.client_streaming || method.server_streaming || coded || kind != grpc::Kind::Grpc {
        return Err(LocalReply::new(501, Reason::NotImplemented));
    }
    let most = transcode.max_request + frames::HEAD;
    let max_body_bytes = request.plan.plan.route(index).max_body_bytes;
    let body = upload::gather_request(shard, request, responder, most, max_body_bytes).await?;
    let message = frames::only(&body, transcode.max_request).map_err(|bad| match bad {
        BadFrame::Compressed => LocalReply::new(501, Reason::NotImplemented),
        BadFrame::TooLarge => LocalReply::new(413, Reason::BodyTooLarge),
        BadFrame::Cut => LocalReply::new(400, Reason::BodyUnusable),
    })?;
    let asked = ask(transcode, binding, method, message)
        .ok_or_else(|| LocalReply::new(400, Reason::NotValid))?;
    request.grpc = None;
    request.answer_as = Some(AnswerAs::Grpc(kind));
    request.head.te_trailers = false;
    let own = [&b"content-type"[..], b"grpc-accept-encoding", b"grpc-encoding", b"grpc-timeout"];
    let edit = request.edit();
    own.iter().for_each(|name| edit.remove(name));
    edit.set(b"accept", b"application/json".to_vec());
    edit.method = Some(asked.method);
    edit.query = Some(asked.query);
    let body = asked.body.map(|(content_type, body)| {
        edit.set(b"content-type", content_type);
        body
    });
    request.replace_path(asked.path);
    request.replace_body(body.unwrap_or_default());
    let answer = upstreams::forward_rewritten(shard, request, responder, index).await?;
    let whole = answer.gather(shard, responder, None, transcode.max_response).await?;
    let mut frame = Vec::with_capacity(whole.body.len() + frames::HEAD);
    let content_type = whole.head.value(whole.bytes.bytes(), Name::ContentType);
    let content_type = content_type.unwrap_or_default();
    let status = match whole.head.status {
        200..=299 => {
            match frames::write(&mut frame, |out| {
                answered(transcode, binding, method, content_type, &whole.body, out)
            }) {
                Ok(()) => Status::default(),
                Err(problem) => Status::new(status::INTERNAL, problem),
            }
        }
        other => failed(other, &whole.body),
    };
    if status.code != 0 {
        frame.clear();
    }
    let mut trailers = Vec::new();
    status.write_trailers(&mut trailers);
    let fields: Vec<(&[u8], &[u8])> = whole
        .fields()
        .filter(|(name, _)| !is_of_json(name))
        .chain([(&b"content-type"[..], &b"application/grpc"[..])])
        .collect();
    let mut answer = Answer::own(shard, responder.is_head, 200, &fields, Vec::new())?;
    let data = (!frame.is_empty()).then(|| Chunk::from_vec(frame));
    let length = data.as_ref().map_or(0, Chunk::len) as u64;
    answer.head.framing = crate::message::BodyFraming::Length(length);
    answer.carrier = Carrier::Own(RefCell::new(Body { data, trailers, pipe: None }));
    Ok(answer)
}

/// Fields of a JSON answer that say nothing of a call's.
fn is_of_json(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 8] = [
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"connection",
        b"date",
        b"etag",
        b"www-authenticate",
    ];
    NAMES.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// The request that a message stands for; `None`: it has no place in the path for what it holds, or is
/// malformed.
fn ask(transcode: &Transcode, binding: &Binding, method: &Method, message: &[u8]) -> Option<Asked> {
    let schema = &transcode.proto.schema;
    let mut text = Vec::with_capacity(message.len() * 2);
    transcode.printing(false).message(message, method.input, &mut text).ok()?;
    let raw = match &binding.body {
        BodyTo::Message => transcode.proto.is_http_body(method.input),
        _ => false,
    };
    if raw {
        let (content_type, data) = http_body(message).ok()?;
        let path = path(binding, schema, &mut Map::new())?;
        let body = Some((content_type.to_vec(), data.to_vec()));
        let method = binding.http_method.as_bytes().to_vec();
        return Some(Asked { method, path, query: Vec::new(), body });
    }
    let mut own = match serde_json::from_slice(&text).ok()? {
        Value::Object(own) => own,
        // A message with a form of its own, which has no fields to take out.
        other => {
            let body = Some((JSON.to_vec(), serde_json::to_vec(&other).ok()?));
            let path = path(binding, schema, &mut Map::new())?;
            let method = binding.http_method.as_bytes().to_vec();
            return Some(Asked { method, path, query: Vec::new(), body });
        }
    };
    let path = path(binding, schema, &mut own)?;
    let (mut query, mut body) = (Vec::new(), None);
    match &binding.body {
        BodyTo::Message => body = Some((JSON.to_vec(), serde_json::to_vec(&own).ok()?)),
        BodyTo::Field(field) => {
            let value = take(schema, field, &mut own).unwrap_or(Value::Null);
            let is_http_body = field.field(schema).is_some_and(|field| {
                matches!(field.kind, Kind::Message(index) if transcode.proto.is_http_body(index))
            });
            body = Some(match is_http_body {
                true => {
                    let text =
                        |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
                    let data = from_base64(text("data").as_bytes())?;
                    (text("contentType").as_bytes().to_vec(), data)
                }
                false => (JSON.to_vec(), serde_json::to_vec(&value).ok()?),
            });
            flatten("", &Value::Object(own), &mut query)?;
        }
        BodyTo::Nowhere => flatten("", &Value::Object(own), &mut query)?,
    }
    let method = match &*binding.http_method {
        "*" => b"POST".to_vec(),
        method => method.as_bytes().to_vec(),
    };
    Some(Asked { method, path, query, body })
}

const JSON: &[u8] = b"application/json";

/// Takes what is in the path out of a message, and writes the path.
fn path(binding: &Binding, schema: &Schema, own: &mut Map<String, Value>) -> Option<Vec<u8>> {
    let template = &binding.template;
    let mut out = Vec::with_capacity(64);
    let mut at = 0;
    while at < template.segments.len() {
        out.push(b'/');
        let variable = template.variables.iter().zip(&binding.variables);
        let variable = variable.into_iter().find(|(variable, _)| variable.start == at);
        let Some((variable, field)) = variable else {
            match template.segments.get(at)? {
                Segment::Literal(text) => percent::encode(text, false, &mut out),
                // Nothing says what stands here.
                Segment::One | Segment::Rest => return None,
            }
            at += 1;
            continue;
        };
        let value = match take(schema, field, own) {
            Some(Value::String(text)) => text,
            Some(Value::Null) | None => default_text(schema, field)?,
            Some(Value::Array(_) | Value::Object(_)) => return None,
            Some(other) => other.to_string(),
        };
        let pattern = template.segments.get(variable.start..variable.end)?;
        if !fits(&value, pattern) {
            return None;
        }
        percent::encode(value.as_bytes(), template.is_multi(variable), &mut out);
        at = variable.end;
    }
    if out.is_empty() {
        out.push(b'/');
    }
    if !template.verb.is_empty() {
        out.push(b':');
        percent::encode(&template.verb, false, &mut out);
    }
    // What a value makes of the path must not be another one.
    let dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    (!out.split(|byte| *byte == b'/').any(dots)).then_some(out)
}

/// What a field that is not there has in a path.
fn default_text(schema: &Schema, field: &FieldPath) -> Option<String> {
    match field.field(schema)?.kind {
        Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Group(_) => None,
        Kind::Bool => Some("false".into()),
        Kind::Enum(index) => {
            let own = schema.enumeration(index);
            own.name_of(own.default).map(Into::into)
        }
        _ => Some("0".into()),
    }
}

/// Whether a value is of the segments that its variable stands for.
fn fits(value: &str, pattern: &[Segment]) -> bool {
    if pattern.len() == 1 && pattern.first() == Some(&Segment::One) {
        return !value.is_empty();
    }
    let parts: Vec<&str> = if value.is_empty() { Vec::new() } else { value.split('/').collect() };
    let one = |segment: &Segment, part: &str| match segment {
        Segment::Literal(text) => text.as_ref() == part.as_bytes(),
        _ => !part.is_empty(),
    };
    match pattern.iter().position(|segment| *segment == Segment::Rest) {
        None => parts.len() == pattern.len() && pattern.iter().zip(&parts).all(|(a, b)| one(a, b)),
        Some(at) => {
            let behind = pattern.len() - at - 1;
            parts.len() >= at + behind
                && pattern.iter().take(at).zip(&parts).all(|(a, b)| one(a, b))
                && pattern.iter().rev().take(behind).zip(parts.iter().rev()).all(|(a, b)| one(a, b))
        }
    }
}

/// Takes a field out of a message in JSON.
fn take(schema: &Schema, path: &FieldPath, own: &mut Map<String, Value>) -> Option<Value> {
    let (last, before) = path.0.split_last()?;
    let name = |(message, place): &(u32, u16)| {
        schema.message(*message).fields.get(usize::from(*place)).map(|field| &*field.json_name)
    };
    let mut own = own;
    for step in before {
        own = own.get_mut(name(step)?)?.as_object_mut()?;
    }
    own.remove(name(last)?)
}

/// Appends what is left of a message as a query; `None`: it has no place there.
fn flatten(prefix: &str, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    let mut pair = |value: &str| {
        if !out.is_empty() {
            out.push(b'&');
        }
        percent::encode(prefix.as_bytes(), false, out);
        out.push(b'=');
        percent::encode(value.as_bytes(), false, out);
    };
    match value {
        Value::Null => {}
        Value::Bool(on) => pair(if *on { "true" } else { "false" }),
        Value::Number(number) => pair(&number.to_string()),
        Value::String(text) => pair(text),
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(_) | Value::Array(_) => return None,
                    item => flatten(prefix, item, out)?,
                }
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                let name = match prefix {
                    "" => name.clone(),
                    prefix => format!("{prefix}.{name}"),
                };
                flatten(&name, value, out)?;
            }
        }
    }
    (out.len() <= limits::REQUEST_LINE).then_some(())
}

/// Appends the message that an answer stands for.
fn answered(
    transcode: &Transcode,
    binding: &Binding,
    method: &Method,
    content_type: &[u8],
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    if binding.response.is_none() && transcode.proto.is_http_body(method.output) {
        if !content_type.is_empty() {
            write_bytes(out, 1, content_type);
        }
        write_bytes(out, 2, body);
        return Ok(());
    }
    // 204, and what answers so without saying it.
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    let reading = transcode.reading();
    let read = match binding.response {
        None => reading.message(body, method.output, out),
        Some(place) => match transcode.proto.schema.message(method.output).fields.get(place) {
            Some(field) => reading.field(body, field, out),
            None => Ok(()),
        },
    };
    read.map_err(|_| "the service's answer is not the JSON of the method's message")
}

/// The status of an answer that is no success: what it says as `google.rpc.Status`, else by HTTP's.
fn failed(http: u16, body: &[u8]) -> Status {
    let mut status = Status::new(status::code_of_http(http), "");
    if let Ok(Value::Object(told)) = serde_json::from_slice(body) {
        // `{"error": {..}}` is how Google's own APIs have it.
        let told = match told.get("error") {
            Some(Value::Object(inner)) => inner.clone(),
            _ => told,
        };
        let code = told.get("code").and_then(Value::as_u64).filter(|code| (1..=16).contains(code));
        if let Some(code) = code {
            status.code = code as u8;
        }
        let text = |name: &str| told.get(name).and_then(Value::as_str);
        if let Some(message) = text("message").or_else(|| text("detail")).or_else(|| text("title"))
        {
            status.message = message.chars().take(limits::FAULT_TEXT).collect();
        }
    }
    if status.message.is_empty() {
        status.message = format!("the service answered with HTTP status {http}");
    }
    status
}
