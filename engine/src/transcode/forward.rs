//! Requests in JSON as calls, and their answers back.

use std::sync::Arc;

use contract::record::Reason;
use contract::snapshot::{StreamForm, TranscodeTo};

use super::binding::BodyTo;
use super::frames::{self, BadFrame};
use super::inward::{self, Inward, unusable};
use super::json::Unprintable;
use super::outward::{Form, Outward, http_body};
use super::schema::Kind;
use super::status::{self, Status, is_of_grpc, trailers};
use super::table::{Lookup, Path};
use super::{Transcode, params, reverse};
use crate::answer::{Answer, Whole};
use crate::exchange::{AnswerAs, Request, Responder};
use crate::filter::Filter;
use crate::forward as upstreams;
use crate::grpc::{self, Kind as CallKind};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{BodyFraming, Name};
use crate::route::RouteIndex;
use crate::shard::Shard;
use crate::upload;
use crate::upstream::Verdict;

/// Forwards a request of a route that transcodes.
///
/// # Errors
/// What forwarding ends with; 404 and 405 for what no method is bound to, 400, 413 and 415 for what is
/// no message, 5xx for an answer that is none.
pub async fn forward(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    index: RouteIndex,
    transcode: &Arc<Transcode>,
) -> Result<Answer, LocalReply> {
    let plan = request.plan.clone();
    let route = plan.plan.route(index);
    upstreams::rewrite(route, request);
    match (transcode.to, request.grpc) {
        // What is spoken already what the upstream speaks goes on as it is.
        (TranscodeTo::Grpc, Some(_)) | (TranscodeTo::Json, None) => {
            upstreams::forward_rewritten(shard, request, responder, index).await
        }
        (TranscodeTo::Json, Some(_)) => {
            reverse::forward(shard, request, responder, index, transcode).await
        }
        (TranscodeTo::Grpc, None) => {
            request.answer_as = Some(AnswerAs::Json);
            let most = route.max_body_bytes;
            let asked = ask(shard, request, responder, transcode, most).await?;
            let answer = upstreams::forward_rewritten(shard, request, responder, index).await?;
            told(shard, request, responder, transcode, asked, answer).await
        }
    }
}

/// What was asked for.
struct Asked {
    binding: usize,
    form: StreamForm,
}

/// Makes a call of the request.
async fn ask(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    transcode: &Arc<Transcode>,
    max_body_bytes: u64,
) -> Result<Asked, LocalReply> {
    let proto = &transcode.proto;
    let missing = || LocalReply::new(404, Reason::NoBinding);
    let (place, mut fields) = {
        let path = Path::split(request.path()).ok_or_else(missing)?;
        // HEAD is a GET without its body (RFC 9110 §9.3.2).
        let own = request.method_out();
        let method = if own == b"HEAD" { b"GET" } else { own };
        let place = match transcode.table.find(method, &path) {
            Lookup::Found(place) => place,
            Lookup::Nothing => return Err(missing()),
            Lookup::Methods(methods) => {
                let allow = methods.join(", ").into_bytes();
                let reply = LocalReply::method_not_allowed(allow);
                return Err(LocalReply { reason: Reason::NoBinding, ..reply });
            }
        };
        let Some(binding) = transcode.bindings.get(place) else { return Err(missing()) };
        let Some(method) = binding.method(proto) else { return Err(missing()) };
        let mut fields = Vec::new();
        let reading = transcode.reading();
        let invalid =
            |fault| LocalReply { faults: vec![fault], ..LocalReply::new(400, Reason::NotValid) };
        params::write_path(&reading, binding, &path, &mut fields).map_err(invalid)?;
        let query = query(request);
        let unknown = &transcode.unknown_query;
        params::write_query(&reading, binding, method.input, query, unknown, &mut fields)
            .map_err(invalid)?;
        (place, fields)
    };
    let (Some(binding), form) = (transcode.bindings.get(place), accepted(request, transcode))
    else {
        return Err(missing());
    };
    let Some(method) = binding.method(proto) else { return Err(missing()) };
    let raw = is_raw(transcode, binding.method, &binding.body);
    check_content(request, raw, method.client_streaming)?;
    let timeout = request.head.other(request.bytes(), b"grpc-timeout");
    let patience_ms = grpc::deadline_ms(timeout, shard.io.clock().now_ms());
    request.deadline_ms = upstreams::soonest(request.deadline_ms, patience_ms);
    let content_type =
        request.head.value(request.bytes(), Name::ContentType).unwrap_or_default().to_vec();
    let has_body = !request.head.framing.is_empty();
    if binding.body == BodyTo::Nowhere || !method.client_streaming || !has_body {
        let most = transcode.max_request;
        let body = upload::gather_request(shard, request, responder, most, max_body_bytes).await?;
        let mut frame = Vec::with_capacity(frames::HEAD + body.len() + fields.len());
        let blank = body.trim_ascii().is_empty();
        frames::write(&mut frame, |frame| {
            match &binding.body {
                BodyTo::Nowhere if !blank => {
                    return Err(unusable("", "a body is not expected here"));
                }
                BodyTo::Nowhere => {}
                to if raw => inward::raw(transcode, to, &content_type, &body, frame),
                // No body is an empty message.
                _ if blank => {}
                to => inward::message(transcode, to, binding.method, &body, frame)
                    .map_err(|fault| unusable(&fault.pointer, &fault.problem))?,
            }
            frame.append(&mut fields);
            Ok(())
        })
        .map_err(|reply| LocalReply { close: false, ..reply })?;
        // No body is no message, where there may be any number of them.
        if method.client_streaming && frame.len() == frames::HEAD && !raw {
            frame.clear();
        }
        request.replace_body(frame);
    } else {
        let raw = raw.then(|| content_type.clone());
        let mut inward = Inward::new(transcode.clone(), place, fields, raw);
        if request.feed.is_some() {
            // All of it is here already.
            let most = usize::try_from(max_body_bytes).unwrap_or(usize::MAX);
            let body =
                upload::gather_request(shard, request, responder, most, max_body_bytes).await?;
            let mut framed = Vec::with_capacity(body.len());
            inward
                .pass(&body, true, &mut framed)
                .map_err(|reply| LocalReply { close: false, ..reply })?;
            request.replace_body(framed);
        } else {
            request.inward = Some(Box::new(upload::Inward::Transcode(inward)));
            request.reframed = true;
        }
    }
    request.grpc = Some(CallKind::Grpc);
    request.head.te_trailers = true;
    let original = (request.method_out().to_vec(), request.path().to_vec());
    let edit = request.edit();
    edit.method = Some(b"POST".to_vec());
    edit.query = Some(Vec::new());
    for name in [&b"accept"[..], b"accept-encoding", b"content-encoding", b"content-md5", b"digest"]
    {
        edit.remove(name);
    }
    edit.set(b"content-type", b"application/grpc".to_vec());
    edit.set(b"grpc-accept-encoding", b"identity".to_vec());
    edit.set(b"x-original-method", original.0);
    edit.set(b"x-original-path", original.1);
    request.replace_path(method.path.as_bytes().to_vec());
    Ok(Asked { binding: place, form })
}

/// What stands behind `?`, without credentials that are hidden.
fn query(request: &Request) -> &[u8] {
    if let Some(query) = request.edit.as_ref().and_then(|edit| edit.query.as_deref()) {
        return query;
    }
    match request.hidden.as_ref().and_then(|hidden| hidden.query.as_deref()) {
        Some(query) => query,
        None => request.head.query(request.bytes()).unwrap_or_default(),
    }
}

/// How the client wants a stream: as its `Accept` says, else as the route does.
fn accepted(request: &Request, transcode: &Transcode) -> StreamForm {
    let bytes = request.bytes();
    let fields = request.head.fields.iter().filter(|field| field.id == Name::Accept);
    let mut ranges = fields.flat_map(|field| field.value.of(bytes).split(|b| *b == b','));
    let named = ranges.find_map(|range| {
        let range = range.split(|b| *b == b';').next().unwrap_or_default();
        match &range.trim_ascii().to_ascii_lowercase()[..] {
            b"text/event-stream" => Some(StreamForm::Sse),
            b"application/x-ndjson" | b"application/ndjson" | b"application/jsonl" => {
                Some(StreamForm::Ndjson)
            }
            b"application/json" => Some(StreamForm::Array),
            _ => None,
        }
    });
    named.unwrap_or(transcode.streams)
}

/// Whether the body goes into an `HttpBody`, as it is.
fn is_raw(transcode: &Transcode, method: usize, body: &BodyTo) -> bool {
    let (proto, schema) = (&transcode.proto, &transcode.proto.schema);
    match body {
        BodyTo::Nowhere => false,
        BodyTo::Message => {
            proto.methods.get(method).is_some_and(|method| proto.is_http_body(method.input))
        }
        BodyTo::Field(path) => path.field(schema).is_some_and(
            |field| matches!(field.kind, Kind::Message(index) if proto.is_http_body(index)),
        ),
    }
}

/// Refuses a body that says it is no JSON.
fn check_content(request: &Request, raw: bool, streaming: bool) -> Result<(), LocalReply> {
    if request.head.framing.is_empty() {
        return Ok(());
    }
    let refuse = || Err(LocalReply::new(415, Reason::UnsupportedMediaType));
    let bytes = request.bytes();
    if raw {
        return Ok(());
    }
    if let Some(coding) = request.head.other(bytes, b"content-encoding")
        && !coding.eq_ignore_ascii_case(b"identity")
    {
        return refuse();
    }
    let Some(content_type) = request.head.value(bytes, Name::ContentType) else { return Ok(()) };
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    match &media_type.trim_ascii().to_ascii_lowercase()[..] {
        b"" | b"application/json" | b"text/json" => Ok(()),
        b"application/x-ndjson" | b"application/ndjson" | b"application/jsonl" if streaming => {
            Ok(())
        }
        other if other.ends_with(b"+json") => Ok(()),
        _ => refuse(),
    }
}

/// What the client is told of the call's answer.
async fn told(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    transcode: &Arc<Transcode>,
    asked: Asked,
    mut answer: Answer,
) -> Result<Answer, LocalReply> {
    let internal = || LocalReply::new(500, Reason::Internal);
    let binding = transcode.bindings.get(asked.binding).ok_or_else(internal)?;
    let method = binding.method(&transcode.proto).ok_or_else(internal)?;
    let bytes = answer.bytes.bytes();
    let content_type = answer.head.value(bytes, Name::ContentType).unwrap_or_default();
    if answer.head.status != 200 || CallKind::of(content_type) != Some(CallKind::Grpc) {
        return Err(foreign(shard, transcode, answer));
    }
    let alone = grpc::status_in_head(&answer.head, bytes).is_some();
    let most = transcode.max_response + frames::HEAD;
    let is_raw = match binding.response {
        None => transcode.proto.is_http_body(method.output),
        Some(_) => false,
    };
    let form = if is_raw { Form::Raw } else { Form::Json(asked.form) };
    let has_deadline = request.deadline_ms != 0;
    if alone || !method.server_streaming {
        let mut whole = answer.gather(shard, responder, Some(has_deadline), most).await?;
        let status = match Status::of_trailers(&whole.trailers) {
            Some(status) => Some(status),
            None => Status::read(|name| whole.field(name)),
        };
        let status =
            status.unwrap_or_else(|| Status::new(status::UNKNOWN, "the answer has no status"));
        let kept = metadata(&whole);
        whole.trailers.clear();
        if status.code != 0 {
            let mut body = Vec::with_capacity(128);
            status.print(&transcode.printing(true), transcode.details, &mut body);
            return Ok(finish(
                whole,
                status::http_status(status.code),
                b"application/json",
                kept,
                body,
            ));
        }
        let mut body = Vec::with_capacity(whole.body.len() * 2 + 64);
        let result = if method.server_streaming {
            let array = form == Form::Json(StreamForm::Array);
            body.extend_from_slice(if array { b"[]" } else { b"" });
            Ok(form.content_type().to_vec())
        } else {
            tell(transcode, asked.binding, is_raw, &whole.body, &mut body)
        };
        return match result {
            Ok(content_type) => Ok(finish(whole, 200, &content_type, kept, body)),
            Err(problem) => Err(unusable_answer(transcode, problem)),
        };
    }
    let mut content_type = form.content_type().to_vec();
    let mut outward = Outward::new(transcode.clone(), method.output, binding.response, form);
    if is_raw && let Some(first) = outward.first_content_type(&mut answer, responder).await {
        content_type = first;
    }
    let edit = answer.edit.get_or_insert_default();
    for name in OF_CALLS {
        edit.remove(name);
    }
    edit.set(b"content-type", content_type);
    if form == Form::Json(StreamForm::Sse) {
        // No cache between may hold events back.
        edit.set(b"cache-control", b"no-cache".to_vec());
    }
    answer.filters.insert(0, Filter::Transcode(Box::new(outward)));
    Ok(answer)
}

/// Fields that are the call's and not the answer's.
const OF_CALLS: [&[u8]; 7] = [
    b"content-type",
    b"grpc-status",
    b"grpc-message",
    b"grpc-status-details-bin",
    b"grpc-encoding",
    b"grpc-accept-encoding",
    b"trailer",
];

/// Appends the message of a unary call; returns its content type.
fn tell(
    transcode: &Transcode,
    binding: usize,
    is_raw: bool,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<Vec<u8>, &'static str> {
    let message = frames::only(bytes, transcode.max_response).map_err(|bad| match bad {
        BadFrame::Compressed => "the answer is compressed, which was not asked for",
        BadFrame::TooLarge => "the answer is too large",
        BadFrame::Cut => "the answer is not one message",
    })?;
    let told = |unprintable: Unprintable| unprintable.0;
    if is_raw {
        let (content_type, data) = http_body(message).map_err(told)?;
        out.extend_from_slice(data);
        return Ok(match is_field_value(content_type) {
            true => content_type.to_vec(),
            false => b"application/octet-stream".to_vec(),
        });
    }
    let Some(binding) = transcode.bindings.get(binding) else { return Err("there is no binding") };
    let Some(method) = binding.method(&transcode.proto) else { return Err("there is no method") };
    // A field of the answer may be a body as it is, too.
    if let Some(place) = binding.response
        && let Some(field) = transcode.proto.schema.message(method.output).fields.get(place)
        && let Kind::Message(index) = field.kind
        && transcode.proto.is_http_body(index)
    {
        let mut own = &[][..];
        let mut fields = super::wire::Fields::of(message);
        while let Some(raw) = fields.next().map_err(|_| "the message is malformed")? {
            if raw.number == field.number {
                own = raw.bytes;
            }
        }
        let (content_type, data) = http_body(own).map_err(told)?;
        out.extend_from_slice(data);
        return Ok(match is_field_value(content_type) {
            true => content_type.to_vec(),
            false => b"application/octet-stream".to_vec(),
        });
    }
    let printing = transcode.printing(true);
    match binding.response {
        None => printing.message(message, method.output, out),
        Some(place) => printing.field(message, method.output, place, out),
    }
    .map_err(told)?;
    Ok(b"application/json".to_vec())
}

/// Whether a text of the upstream's can stand in a head (RFC 9110 §5.5).
pub fn is_field_value(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= 200 && text.iter().all(|byte| matches!(byte, 0x20..=0x7e))
}

/// Metadata behind the message, which JSON has in its head.
fn metadata(whole: &Whole) -> Vec<(Vec<u8>, Vec<u8>)> {
    trailers(&whole.trailers)
        .filter(|(name, _)| !is_of_grpc(name))
        .take(limits::STATUS_DETAILS)
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

/// The same answer with another status and body.
fn finish(
    mut whole: Whole,
    status: u16,
    content_type: &[u8],
    kept: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
) -> Answer {
    // A head that ended the answer says that there is no body.
    whole.head.framing = BodyFraming::Length(0);
    let edit = whole.edit.get_or_insert_default();
    edit.status = Some(status);
    for name in OF_CALLS {
        edit.remove(name);
    }
    for (name, value) in kept {
        edit.fields.push((name, value));
    }
    edit.fields.push((b"content-type".to_vec(), content_type.to_vec()));
    whole.into_answer(body)
}

/// The answer in place of one that is no gRPC server's.
fn foreign(shard: &Shard, transcode: &Transcode, answer: Answer) -> LocalReply {
    let code = status::code_of_foreign(answer.head.status);
    // What a gateway on the way says of itself is true of the whole way.
    let http = match answer.head.status {
        own @ (502..=504 | 429) => own,
        _ => status::http_status(code),
    };
    if let Some(account) = &answer.account {
        account.settle(Verdict::Gateway, shard.io.clock().now_ms());
    }
    let message =
        format!("the service answered with HTTP status {}, which is no gRPC", answer.head.status);
    reply(transcode, http, Reason::UpstreamInvalid, &Status::new(code, &message))
}

fn unusable_answer(transcode: &Transcode, problem: &str) -> LocalReply {
    reply(transcode, 502, Reason::AnswerUnusable, &Status::new(status::INTERNAL, problem))
}

fn reply(transcode: &Transcode, http: u16, reason: Reason, status: &Status) -> LocalReply {
    let mut body = Vec::new();
    status.print(&transcode.printing(true), false, &mut body);
    let body = String::from_utf8_lossy(&body);
    LocalReply::new(http, reason).with_text(http, "application/json", &body)
}
