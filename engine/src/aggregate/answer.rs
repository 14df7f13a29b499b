//! A request that calls together answer: from the pipeline to its answer.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use contract::record::Reason;

use super::ask::Asked;
use super::compose::{compose, errors, render};
use super::freshness::Freshness;
use super::outcome::{Failure, Outcome, Why};
use super::plan::{Aggregate, HttpCall, Source};
use super::run::{Asker, Bodies, Given, Ran, Reply, run};
use super::stream::streamed;
use super::view::{Incoming, View};
use crate::answer::Answer;
use crate::auth::credentials::{decoded, parameters};
use crate::call::{Call, Called, Caller, call};
use crate::exchange::{Request, Responder};
use crate::forward::soonest;
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::write;
use crate::payload::json::Json;
use crate::rewrite::RequestId;
use crate::shape::RequestValues;
use crate::shard::Shard;
use crate::template::Escape;
use crate::transcode::Unary;
use crate::upload;

/// Whether all parts of the answer are there.
pub(super) const COMPLETE: &str = "Sluice-Complete";
const PROBLEM: &str = "application/problem+json";

/// Makes the calls and puts their answers together.
///
/// # Errors
/// A required call failed, or all did: its status where that is to be passed on, else 502 or 504; 4xx when
/// the request's body is asked for and no JSON.
pub async fn answer(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    plan: &Aggregate,
    max_body_bytes: u64,
) -> Result<Answer, LocalReply> {
    let body = match plan.reads_body {
        true => {
            let most = limits::AGGREGATE_REQUEST_BODY;
            upload::gather_request(shard, request, responder, most, max_body_bytes).await?
        }
        false => Vec::new(),
    };
    let json = match &*body {
        [] => None,
        bytes => match Json::parse(bytes) {
            Ok(json) => Some(json),
            Err(_) => return Err(LocalReply::new(400, Reason::BodyUnusable)),
        },
    };
    let now_ms = shard.io.clock().now_ms();
    let own_ms = now_ms + u64::from(plan.deadline_ms);
    let deadline_ms = soonest(own_ms, request.deadline_ms);
    if let Some(index) = request.notes.route.filter(|_| plan.stream) {
        drop(json);
        return streamed(shard, request, responder, plan, index, body, deadline_ms).await;
    }
    let bodies = Bodies::new(plan.calls.len());
    let asker = Calls { shard, caller: Caller::of(request) };
    let values = RequestValues::new(request, shard.io.clock().wall_us());
    let given = Given { plan, bodies: &bodies, request: &values, body: json, deadline_ms };
    let mut told = |_: usize, _: &Outcome<'_>| ();
    let mut ran = {
        let mut run = pin!(run(&given, &asker, &mut told));
        let ran = poll_fn(|cx| match run.as_mut().poll(cx) {
            Poll::Ready(ran) => Poll::Ready(Some(ran)),
            Poll::Pending => responder.down.poll_gone(cx).map(|()| None),
        });
        ran.await.ok_or_else(|| LocalReply::closing(0, Reason::ClientAborted))?
    };
    let timing = if plan.server_timing { server_timing(plan, &ran) } else { Vec::new() };
    let made = match failed(plan, &ran) {
        Some(failure) => Err(broken(plan, &ran, failure, &asker.caller.id)),
        None => composed(shard, responder, &given, &mut ran, &timing),
    };
    drop((ran, given));
    drop(values);
    if made.is_err() {
        request.answer_fields.push((COMPLETE, b"false".to_vec()));
        if !timing.is_empty() {
            request.answer_fields.push(("Server-Timing", timing));
        }
    }
    made
}

/// The failure that makes the whole fail, if there is one: a required call's, or the first, if no call has
/// been answered.
pub(super) fn failed<'r>(plan: &Aggregate, ran: &'r Ran<'_>) -> Option<&'r Failure> {
    let of = |at: usize| ran.outcomes.get(at)?.as_ref()?.failed().map(|failed| &failed.why);
    if let Some(at) = ran.broken {
        return of(at);
    }
    let asked = |at: &usize| matches!(plan.calls.get(*at), Some(call) if matches!(call.source, Source::Http(_)));
    let mut first = None;
    for at in (0..plan.calls.len()).filter(asked) {
        match ran.outcomes.get(at) {
            Some(Some(Outcome::Failed(failed))) => first = first.or(Some(&failed.why)),
            Some(Some(Outcome::Answered(_) | Outcome::Stood(..))) => return None,
            Some(Some(Outcome::Skipped) | None) | None => {}
        }
    }
    first
}

/// The answer to a request that failed.
pub(super) fn broken(
    plan: &Aggregate,
    ran: &Ran<'_>,
    failure: &Failure,
    id: &RequestId,
) -> LocalReply {
    let reply = LocalReply {
        field: failure.field.clone(),
        ..LocalReply::new(failure.whole, Reason::CallFailed)
    };
    let Some(errors) = errors(plan, &ran.outcomes).filter(|_| plan.errors) else { return reply };
    let mut body = Json::Object(Vec::new());
    body.set_member("type", Json::string("urn:sluice:problem:call_failed"));
    body.set_member("title", Json::string(crate::local_reply::title(Reason::CallFailed)));
    body.set_member("status", Json::number(failure.whole.into()));
    let id = String::from_utf8_lossy(id.bytes());
    body.set_member("request_id", Json::string(&id));
    body.set_member("errors", errors);
    let text = String::from_utf8_lossy(&body.to_vec()).into_owned();
    reply.with_text(failure.whole, PROBLEM, &text)
}

fn composed<'a>(
    shard: &Shard,
    responder: &Responder,
    given: &Given<'_, 'a>,
    ran: &mut Ran<'a>,
    timing: &[u8],
) -> Result<Answer, LocalReply> {
    let plan = given.plan;
    let complete = ran.outcomes.iter().flatten().all(Outcome::is_complete);
    let view = View {
        request: given.request,
        body: given.body.as_ref(),
        outcomes: &ran.outcomes,
        item: None,
    };
    let mut fields: Vec<(&[u8], Vec<u8>)> = Vec::with_capacity(6);
    for (name, template) in &plan.headers {
        let mut value = Vec::new();
        if template.text(&view, Escape::Header, &mut value).is_ok() {
            let value = value.trim_ascii().to_vec();
            if !value.is_empty() {
                fields.push((name.as_bytes(), value));
            }
        }
    }
    let has = |fields: &[(&[u8], Vec<u8>)], name: &[u8]| fields.iter().any(|(own, _)| *own == name);
    let rendered = render(plan, &view);
    let freshness = freshness(plan, ran, complete);
    let body = compose(plan, &mut ran.outcomes, rendered);
    let body = body.map_err(|_| LocalReply::new(502, Reason::AnswerTooLarge))?;
    let mut bytes = Vec::with_capacity(1024);
    body.write(&mut bytes);
    if !has(&fields, b"content-type") {
        fields.push((b"Content-Type", b"application/json".to_vec()));
    }
    if let Some(value) = freshness.filter(|_| !has(&fields, b"cache-control")) {
        fields.push((b"Cache-Control", value));
    }
    if !plan.vary.is_empty() && !has(&fields, b"vary") {
        fields.push((b"Vary", plan.vary.as_bytes().to_vec()));
    }
    let complete: &[u8] = if complete { b"true" } else { b"false" };
    fields.push((COMPLETE.as_bytes(), complete.to_vec()));
    if !timing.is_empty() {
        fields.push((b"Server-Timing", timing.to_vec()));
    }
    let fields: Vec<(&[u8], &[u8])> =
        fields.iter().map(|(name, value)| (*name, value.as_slice())).collect();
    Answer::own(shard, responder.is_head, plan.status, &fields, bytes)
}

/// The value of `Cache-Control`.
fn freshness(plan: &Aggregate, ran: &Ran<'_>, complete: bool) -> Option<Vec<u8>> {
    let mut all = Freshness::default();
    if !complete {
        all.forbid();
    }
    if plan.private {
        all.keep_private();
    }
    for (call, outcome) in plan.calls.iter().zip(&ran.outcomes) {
        if let (Source::Http(http), Some(Outcome::Answered(part))) = (&call.source, outcome) {
            // Of a call for an empty list there is no answer that would say anything.
            if !(part.fields.is_empty() && call.repeat.is_some()) {
                all.add(http.is_safe(), &part.fields);
            }
        }
    }
    all.field()
}

/// How long each call took (<https://www.w3.org/TR/server-timing/>).
fn server_timing(plan: &Aggregate, ran: &Ran<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for (call, outcome) in plan.calls.iter().zip(&ran.outcomes) {
        let (took_us, why) = match outcome {
            Some(Outcome::Answered(part)) => (part.took_us, None),
            Some(Outcome::Failed(failed) | Outcome::Stood(_, failed)) => {
                (failed.took_us, Some(failed.why.reason()))
            }
            Some(Outcome::Skipped) | None => continue,
        };
        if !out.is_empty() {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(call.name.as_bytes());
        out.extend_from_slice(b";dur=");
        write::decimal(&mut out, took_us / 1000);
        out.push(b'.');
        let rest = took_us % 1000;
        out.extend([rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8));
        if let Some(why) = why {
            out.extend_from_slice(b";desc=\"");
            out.extend_from_slice(why.as_bytes());
            out.push(b'"');
        }
    }
    out
}

/// Calls to upstreams.
pub(super) struct Calls<'s> {
    pub shard: &'s Shard,
    pub caller: Caller,
}

impl Asker for Calls<'_> {
    async fn ask<'s>(&'s self, http: &'s HttpCall, asked: Asked) -> Result<Reply, Failure> {
        let made = Call {
            route: &http.route,
            upstream: http.upstream,
            method: http.method.as_bytes(),
            host: None,
            target: &asked.target,
            fields: &asked.fields,
            body: asked.body,
            is_grpc: http.grpc.is_some(),
            deadline_ms: asked.deadline_ms,
            most_bytes: asked.most_bytes,
        };
        match call(self.shard, &self.caller, made).await {
            Ok(called) => match &http.grpc {
                Some(unary) => told(unary, called),
                None => {
                    Ok(Reply { status: called.status, fields: called.fields, body: called.body })
                }
            },
            // What the operator has an upstream answer when it cannot: not for long.
            Err(LocalReply { status, text: Some(text), .. }) if http.succeeds(status) => {
                Ok(Reply {
                    status,
                    fields: vec![(b"cache-control".to_vec(), b"no-store".to_vec())],
                    body: text.body.into_bytes(),
                })
            }
            Err(reply) => Err(Failure::unanswered(&reply)),
        }
    }

    fn now_us(&self) -> u64 {
        self.shard.io.clock().now_us()
    }
}

/// The answer of gRPC as one of HTTP.
fn told(unary: &Unary, called: Called) -> Result<Reply, Failure> {
    let status = match (called.status, called.grpc_status()) {
        (200, Some(code)) => Unary::status(code),
        // Not of a gRPC server.
        (200, None) => return Err(Failure::new(Why::NotJson, 502)),
        (status, _) => status,
    };
    if status != 200 {
        return Ok(Reply { status, fields: called.fields, body: Vec::new() });
    }
    match unary.response(&called.body) {
        Ok(body) => Ok(Reply { status, fields: called.fields, body }),
        Err(_) => Err(Failure { status, ..Failure::new(Why::NotJson, 502) }),
    }
}

impl Incoming for RequestValues<'_> {
    fn parameters(&self, name: &str, each: &mut dyn FnMut(&[u8], &[u8])) {
        let query = self.query().unwrap_or_default();
        let named = parameters(query).filter(|(own, _)| *decoded(own) == *name.as_bytes());
        named.for_each(|(name, value)| each(name, value));
    }
}
