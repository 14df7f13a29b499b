//! External processors: a service of the operator's that sees requests and answers of a route, changes
//! or refuses them. It speaks the messages of Envoy's external processing over gRPC, so that processors
//! written for Envoy can be used.
//!
//! Requests and answers are shown in calls of their own, each a stream that the gateway ends at once: what
//! a processor wants to remember from a request for its answer goes by `x-request-id`. In the call, the
//! head comes first, and the body behind it where the route shows it. The processor's upstream has
//! balancing, health checks, breakers and pools as any has; a call is bounded in time and size, and what
//! happens when it fails is the route's choice.
//!
//! # Why no code inside of the gateway
//!
//! A WebAssembly runtime was weighed. A module's instance for each request costs less than a round trip, but
//! not little, as its memory has to be its own; the runtime with its compiler takes longer to build than all
//! else here together; and what a module computes, however well it is contained, is taken from all other
//! requests of its CPU. A processor can be written in any language, fails alone, and may be anywhere.

mod wire;

use contract::Counter;
use contract::record::Reason;
use contract::snapshot::{Processor, ProcessorView, Timeouts};

pub use self::wire::fuzz_processor;
use self::wire::{Ask, Body, CommonResponse, HeaderMap, HeaderMutation, HeaderValue};
use self::wire::{HttpBody, HttpHeaders, ImmediateResponse, ProcessingRequest, Told};
use crate::answer::{Answer, Edit, Whole};
use crate::call::{Call, Called, Caller, call};
use crate::exchange::{Request, Responder};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::fields::{is_name, is_value};
use crate::plan::Route;
use crate::rewrite;
use crate::route::path;
use crate::shard::Shard;
use crate::upload;

/// A processor of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Extension {
    from: Processor,
    /// Its time-outs and tries.
    route: Route,
}

impl Extension {
    pub fn build(from: &Processor, name: &str) -> Extension {
        let total_ms = from.timeout_ms;
        let timeouts =
            Timeouts { connect_ms: 0, first_byte_ms: 0, idle_ms: 0, try_ms: 0, total_ms };
        let route = Route::of_call(name, timeouts, None);
        Extension { from: from.clone(), route }
    }
}

/// What came of a call.
enum Outcome {
    /// For each phase, in its order.
    Go(Vec<CommonResponse>),
    Answer(ImmediateResponse),
}

/// Shows the request to the route's processor, and makes the changes that it asks for. `Some`: its answer.
///
/// # Errors
/// 500 or what failed, where the route wants that; 413 for a body that is too large to be shown.
pub async fn request(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    route: &Route,
    extension: &Extension,
) -> Result<Option<Answer>, LocalReply> {
    let from = &extension.from;
    if from.request == ProcessorView::Nothing {
        return Ok(None);
    }
    // A conversation cannot be shown before it has taken place.
    let has_body = !request.head.framing.is_empty();
    let shows_body = from.request == ProcessorView::Body
        && has_body
        && request.grpc.is_none()
        && request.upgrade.is_none();
    let mut frames = Vec::with_capacity(1024);
    let ask = Ask::RequestHeaders(HttpHeaders {
        headers: Some(HeaderMap { headers: request_head(request) }),
        end_of_stream: !has_body,
    });
    wire::frame(&ProcessingRequest { ask: Some(ask) }, &mut frames);
    if shows_body {
        let most = from.max_body_bytes as usize;
        let body =
            upload::gather_request(shard, request, responder, most, route.max_body_bytes).await?;
        let ask = Ask::RequestBody(HttpBody { body, end_of_stream: true });
        wire::frame(&ProcessingRequest { ask: Some(ask) }, &mut frames);
    }
    let phases = 1 + usize::from(shows_body);
    let asked = ask_processor(shard, &Caller::of(request), extension, frames, phases).await;
    match failed_open(shard, from, asked)? {
        None => Ok(None),
        Some(Outcome::Answer(immediate)) => {
            shard.meter.count(Counter::ProcessorsAnswered, 1);
            answer(shard, responder, &immediate).map(Some)
        }
        Some(Outcome::Go(changes)) => {
            for change in changes {
                change_request(request, change, shows_body)?;
            }
            Ok(None)
        }
    }
}

/// Shows the answer to the route's processor, and makes the changes that it asks for.
///
/// # Errors
/// As [`request`]; 502 for a body that is too large to be shown.
pub async fn response(
    shard: &Shard,
    request: &Request,
    responder: &Responder,
    extension: &Extension,
    mut answer: Answer,
) -> Result<Answer, LocalReply> {
    let from = &extension.from;
    if from.response == ProcessorView::Nothing || answer.switched {
        return Ok(answer);
    }
    let shows_body = from.response == ProcessorView::Body
        && request.grpc.is_none()
        && answer.filters.is_empty()
        && answer.has_body();
    let mut whole = None;
    let mut frames = Vec::with_capacity(1024);
    let ask = Ask::ResponseHeaders(HttpHeaders {
        headers: Some(HeaderMap { headers: answer_head(&answer) }),
        end_of_stream: !answer.has_body(),
    });
    wire::frame(&ProcessingRequest { ask: Some(ask) }, &mut frames);
    if shows_body {
        let most = from.max_body_bytes as usize;
        let mut gathered = answer.gather(shard, responder, None, most).await?;
        let body = std::mem::take(&mut gathered.body);
        let shown = HttpBody { body, end_of_stream: true };
        let ask = ProcessingRequest { ask: Some(Ask::ResponseBody(shown)) };
        wire::frame(&ask, &mut frames);
        if let Some(Ask::ResponseBody(shown)) = ask.ask {
            gathered.body = shown.body;
        }
        answer = whole_answer(gathered);
        whole = Some(());
    }
    let phases = 1 + usize::from(shows_body);
    let asked = ask_processor(shard, &Caller::of(request), extension, frames, phases).await;
    match failed_open(shard, from, asked)? {
        None => Ok(answer),
        Some(Outcome::Answer(immediate)) => {
            shard.meter.count(Counter::ProcessorsAnswered, 1);
            self::answer(shard, responder, &immediate)
        }
        Some(Outcome::Go(changes)) => {
            for change in changes {
                answer = change_answer(answer, change, whole.is_some());
            }
            Ok(answer)
        }
    }
}

fn whole_answer(mut whole: Whole) -> Answer {
    let body = std::mem::take(&mut whole.body);
    whole.into_answer(body)
}

/// A call that failed stops the request, or does not.
fn failed_open(
    shard: &Shard,
    from: &Processor,
    asked: Result<Outcome, LocalReply>,
) -> Result<Option<Outcome>, LocalReply> {
    match asked {
        Ok(outcome) => Ok(Some(outcome)),
        Err(reply) => {
            shard.meter.count(Counter::ProcessorsFailed, 1);
            match from.pass_on_failure {
                true => Ok(None),
                false => Err(LocalReply { reason: Reason::ExtensionRefused, ..reply }),
            }
        }
    }
}

async fn ask_processor(
    shard: &Shard,
    caller: &Caller,
    extension: &Extension,
    frames: Vec<u8>,
    phases: usize,
) -> Result<Outcome, LocalReply> {
    let from = &extension.from;
    let deadline_ms = shard.io.clock().now_ms() + u64::from(from.timeout_ms);
    let fields = [(b"content-type".to_vec(), b"application/grpc".to_vec())];
    let asked = Call {
        route: &extension.route,
        upstream: from.upstream,
        method: b"POST",
        host: None,
        target: wire::PATH,
        fields: &fields,
        body: Some(frames),
        is_grpc: true,
        deadline_ms,
        most_bytes: from.max_body_bytes as usize + limits::PROCESSOR_ANSWER,
    };
    shard.meter.count(Counter::ProcessorCalls, 1);
    outcome(&call(shard, caller, asked).await?, phases)
}

fn outcome(called: &Called, phases: usize) -> Result<Outcome, LocalReply> {
    let broken = || LocalReply::new(502, Reason::ExtensionRefused);
    let messages = wire::messages(&called.body).ok_or_else(broken)?;
    let mut changes = Vec::with_capacity(phases);
    for message in messages {
        let phase = match message.told {
            Some(Told::Immediate(answer)) => return Ok(Outcome::Answer(answer)),
            Some(
                Told::RequestHeaders(phase)
                | Told::ResponseHeaders(phase)
                | Told::RequestBody(phase)
                | Told::ResponseBody(phase),
            ) => phase,
            None => return Err(broken()),
        };
        changes.push(phase.response.unwrap_or_default());
    }
    match called.status == 200 && called.grpc_status() == Some(0) && changes.len() == phases {
        true => Ok(Outcome::Go(changes)),
        false => Err(broken()),
    }
}

fn header(name: &[u8], value: &[u8]) -> HeaderValue {
    let key = String::from_utf8_lossy(name).to_ascii_lowercase();
    HeaderValue { key, value: Vec::new(), raw_value: value.to_vec() }
}

/// The head as Envoy shows it: what HTTP/2 would have, lower case.
fn request_head(request: &Request) -> Vec<HeaderValue> {
    let (head, bytes) = (&*request.head, request.bytes());
    let scheme: &[u8] = if request.client.tls.is_some() { b"https" } else { b"http" };
    let mut target = request.path().to_vec();
    if let Some(query) = head.query(bytes) {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let authority = head.authority().map_or(&[][..], |span| span.of(bytes));
    let mut headers = vec![
        header(b":method", head.method(bytes)),
        header(b":scheme", scheme),
        header(b":authority", authority),
        header(b":path", &target),
    ];
    for field in head.fields.iter().filter(|field| field.forwarded()) {
        let name = field.name.of(bytes);
        if !name.eq_ignore_ascii_case(b"host") && !rewrite::is_identity(name) {
            headers.push(header(name, field.value.of(bytes)));
        }
    }
    headers.push(header(b"x-request-id", request.id.bytes()));
    if let Some(identity) = &request.identity {
        headers.push(header(b"x-consumer-id", identity.id.as_bytes()));
    }
    headers
}

fn answer_head(answer: &Answer) -> Vec<HeaderValue> {
    let (head, bytes) = (&*answer.head, answer.bytes.bytes());
    let status = answer.edit.as_ref().and_then(|edit| edit.status).unwrap_or(head.status);
    let mut headers = vec![header(b":status", status.to_string().as_bytes())];
    for field in head.fields.iter().filter(|field| field.forwarded()) {
        headers.push(header(field.name.of(bytes), field.value.of(bytes)));
    }
    headers
}

fn change_request(
    request: &mut Request,
    change: CommonResponse,
    shows_body: bool,
) -> Result<(), LocalReply> {
    let refused = || LocalReply::new(502, Reason::ExtensionRefused);
    let mutation = change.header_mutation.unwrap_or_default();
    for option in &mutation.set_headers {
        let Some(header) = &option.header else { continue };
        let value = value_of(header);
        match header.key.as_str() {
            ":path" => {
                let mut parts = value.splitn(2, |byte| *byte == b'?');
                let mut normal = Vec::new();
                let path = parts.next().unwrap_or_default();
                let path = path::normalise(path, &mut normal).map_err(|_| refused())?.to_vec();
                let query = parts.next().unwrap_or_default();
                if !query.iter().all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b'#') {
                    return Err(refused());
                }
                request.edit().query = Some(query.to_vec());
                request.replace_path(path);
            }
            ":method" if is_name(value) => request.edit().method = Some(value.to_vec()),
            ":authority" if is_value(value) => request.edit().host = Some(value.to_vec()),
            _ => {}
        }
    }
    let mut edit = std::mem::take(request.edit());
    let has = |name: &[u8]| {
        let mut fields = request.head.fields.iter();
        let bytes = request.bytes();
        fields.any(|field| field.name.of(bytes).eq_ignore_ascii_case(name) && !field.drop)
    };
    change_fields(&mut edit, &mutation, has);
    *request.edit() = edit;
    match change.body_mutation.and_then(|mutation| mutation.mutation) {
        Some(Body::Body(body)) if shows_body => request.replace_body(body),
        Some(Body::Clear(true)) if shows_body => request.replace_body(Vec::new()),
        _ => {}
    }
    Ok(())
}

fn change_answer(mut answer: Answer, change: CommonResponse, whole: bool) -> Answer {
    let mutation = change.header_mutation.unwrap_or_default();
    let mut edit = answer.edit.take().unwrap_or_default();
    for option in &mutation.set_headers {
        if let Some(header) = &option.header
            && header.key == ":status"
            && let Some(status) = std::str::from_utf8(value_of(header)).ok()
            && let Ok(status @ 200..=999) = status.parse()
        {
            edit.status = Some(status);
        }
    }
    let has = |name: &[u8]| answer.head.has(answer.bytes.bytes(), name);
    change_fields(&mut edit, &mutation, has);
    answer.edit = Some(edit);
    if let Some(body) = change.body_mutation.and_then(|mutation| mutation.mutation)
        && whole
    {
        let body = match body {
            Body::Body(body) => body,
            Body::Clear(true) => Vec::new(),
            Body::Clear(false) => return answer,
        };
        answer.replace_own_body(body);
    }
    answer
}

/// The fields of a mutation, as far as they are valid ones and not the gateway's own.
fn change_fields(edit: &mut Edit, mutation: &HeaderMutation, has: impl Fn(&[u8]) -> bool) {
    for name in &mutation.remove_headers {
        if is_free(name.as_bytes()) {
            edit.remove(name.as_bytes());
        }
    }
    for option in &mutation.set_headers {
        let Some(header) = &option.header else { continue };
        let (name, value) = (header.key.as_bytes(), value_of(header));
        if !is_free(name) || !is_value(value) {
            continue;
        }
        let added = edit.fields.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let there = added || (has(name) && !edit.drops(name));
        let appends = option.append.as_ref().is_some_and(|append| append.value);
        match option.append_action {
            1 if there => {}
            3 if !there => {}
            0 if appends => edit.fields.push((name.to_vec(), value.to_vec())),
            _ => edit.set(name, value.to_vec()),
        }
    }
}

fn value_of(header: &HeaderValue) -> &[u8] {
    match header.raw_value.is_empty() {
        true => &header.value,
        false => &header.raw_value,
    }
}

/// Whether a processor may change a field: those of framing, of the connection and of who calls are the
/// gateway's.
fn is_free(name: &[u8]) -> bool {
    const OWN: [&[u8]; 14] = [
        b"connection",
        b"content-length",
        b"forwarded",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-request-id",
    ];
    let own = || OWN.iter().any(|own| own.eq_ignore_ascii_case(name));
    is_name(name) && !own() && !rewrite::is_identity(name)
}

/// What a processor answers itself.
fn answer(
    shard: &Shard,
    responder: &Responder,
    from: &ImmediateResponse,
) -> Result<Answer, LocalReply> {
    let status = from.status.as_ref().map_or(200, |status| status.code);
    let status = u16::try_from(status).ok().filter(|status| (200..=999).contains(status));
    let status = status.ok_or_else(|| LocalReply::new(502, Reason::ExtensionRefused))?;
    let mut edit = Edit::default();
    if let Some(mutation) = &from.headers {
        change_fields(&mut edit, mutation, |_| false);
    }
    let fields: Vec<(&[u8], &[u8])> =
        edit.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    let answer = Answer::own(shard, responder.is_head, status, &fields, from.body.clone())?;
    Ok(Answer { reason: Reason::ExtensionRefused, ..answer })
}

#[cfg(test)]
mod tests;
