//! Answers whose parts go out as they come: NDJSON, a line for each call and one at the end.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use contract::record::Reason;
use serde_json::Value;

use super::answer::{COMPLETE, Calls, broken, failed};
use super::compose::{error, errors};
use super::outcome::Outcome;
use super::plan::{Aggregate, Call};
use super::run::{Bodies, Given, run};
use super::view::Incoming;
use crate::answer::Answer;
use crate::auth::credentials::{decoded, parameters};
use crate::call::Caller;
use crate::exchange::{Request, Responder};
use crate::local_reply::LocalReply;
use crate::payload::json::{Json, Text};
use crate::pipe::{Writer, pipe};
use crate::route::RouteIndex;
use crate::shape::RequestValues;
use crate::shard::Shard;
use crate::template::{Reference, Values};

/// What an aggregate asks of a request, once and for all: the calls go on while the answer is sent.
struct Kept {
    values: Vec<(Reference, Option<Vec<u8>>, Option<Value>)>,
    query: Vec<u8>,
}

impl Kept {
    fn of(plan: &Aggregate, values: &RequestValues<'_>) -> Kept {
        let kept = plan.asks.iter().map(|what| {
            let text = values.text(what).map(Cow::into_owned);
            (what.clone(), text, values.value(what))
        });
        Kept { values: kept.collect(), query: values.query().unwrap_or_default().to_vec() }
    }
}

impl Values for Kept {
    fn text(&self, what: &Reference) -> Option<Cow<'_, [u8]>> {
        let found = self.values.iter().find(|(own, ..)| own == what)?;
        found.1.as_deref().map(Cow::Borrowed)
    }

    fn value(&self, what: &Reference) -> Option<Value> {
        self.values.iter().find(|(own, ..)| own == what)?.2.clone()
    }
}

impl Incoming for Kept {
    fn parameters(&self, name: &str, each: &mut dyn FnMut(&[u8], &[u8])) {
        let named = parameters(&self.query).filter(|(own, _)| *decoded(own) == *name.as_bytes());
        named.for_each(|(name, value)| each(name, value));
    }
}

/// Begins to make the calls, and answers with the first line that there is.
///
/// # Errors
/// A required call, or all, failed before there was one.
pub async fn streamed(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    plan: &Aggregate,
    index: RouteIndex,
    body: Vec<u8>,
    deadline_ms: u64,
) -> Result<Answer, LocalReply> {
    let Some(own) = shard.own() else {
        return Err(LocalReply::new(500, Reason::Internal));
    };
    let kept = Kept::of(plan, &RequestValues::new(request, shard.io.clock().wall_us()));
    let (writer, reader) = pipe();
    let refused: Rc<RefCell<Option<LocalReply>>> = Rc::default();
    let caller = Caller::of(request);
    let told = refused.clone();
    shard.io.spawn(async move {
        make(&own, caller, index, kept, body, deadline_ms, writer, &told).await;
    });
    let begun = poll_fn(|cx| match reader.poll_begun(cx) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending => responder.down.poll_gone(cx).map(|()| false),
    });
    if !begun.await {
        return Err(LocalReply::closing(0, Reason::ClientAborted));
    }
    if let Some(reply) = refused.borrow_mut().take() {
        request.answer_fields.push((COMPLETE, b"false".to_vec()));
        return Err(reply);
    }
    let fields: [(&[u8], &[u8]); 2] =
        [(b"Content-Type", b"application/x-ndjson"), (b"Cache-Control", b"no-store")];
    let mut answer = Answer::piped(shard, responder.is_head, plan.status, &fields, reader)?;
    // The calls have their own end.
    answer.timeouts.idle_ms = plan.deadline_ms.saturating_add(1_000);
    Ok(answer)
}

#[allow(clippy::too_many_arguments, reason = "all that a task of its own has to own")]
async fn make(
    shard: &Shard,
    caller: Caller,
    index: RouteIndex,
    kept: Kept,
    body: Vec<u8>,
    deadline_ms: u64,
    writer: Writer,
    refused: &RefCell<Option<LocalReply>>,
) {
    let plans = caller.plan.clone();
    let Some(plan) = plans.plan.route(index).aggregate.as_deref() else { return };
    let bodies = Bodies::new(plan.calls.len());
    let json = if body.is_empty() { None } else { Json::parse(&body).ok() };
    let given = Given { plan, bodies: &bodies, request: &kept, body: json, deadline_ms };
    let asker = Calls { shard, caller };
    let mut lines = 0u32;
    let ran = {
        let mut tell = |at: usize, outcome: &Outcome<'_>| {
            if let Some(call) = plan.calls.get(at)
                && let Some(line) = line(plan, call, outcome)
            {
                lines += 1;
                writer.write(line);
            }
        };
        let mut run = pin!(run(&given, &asker, &mut tell));
        let ran = poll_fn(|cx| match run.as_mut().poll(cx) {
            Poll::Ready(ran) => Poll::Ready(Some(ran)),
            Poll::Pending => writer.poll_closed(cx).map(|()| None),
        });
        let Some(ran) = ran.await else { return };
        ran
    };
    let failure = failed(plan, &ran);
    if let Some(failure) = failure.filter(|_| lines == 0) {
        *refused.borrow_mut() = Some(broken(plan, &ran, failure, &asker.caller.id));
        return;
    }
    let complete = failure.is_none() && ran.outcomes.iter().flatten().all(Outcome::is_complete);
    let mut last = Json::Object(vec![(Text::new("complete"), Json::Bool(complete))]);
    if let Some(errors) = errors(plan, &ran.outcomes).filter(|_| plan.errors) {
        last.set_member("errors", errors);
    }
    writer.write(ended(last));
    writer.end();
}

/// What is told of a call. Of one that failed with nothing to stand for it, and was not to be shown, nothing.
fn line(plan: &Aggregate, call: &Call, outcome: &Outcome<'_>) -> Option<Vec<u8>> {
    if call.hidden {
        return None;
    }
    let mut line = Json::Object(vec![(Text::new("call"), Json::string(&call.key))]);
    match outcome {
        Outcome::Answered(part) => line.set_member("status", Json::number(part.status.into())),
        // Only where failures are shown; the last line says that something is missing.
        Outcome::Failed(_) if !plan.errors => return None,
        Outcome::Failed(failed) | Outcome::Stood(_, failed) if plan.errors => {
            line.set_member("error", error(plan, call, &failed.why, failed.item));
        }
        Outcome::Stood(..) => {}
        Outcome::Failed(_) | Outcome::Skipped => return None,
    }
    // A required call that failed ends the whole: as long as nothing was sent, with a status of its own.
    if matches!(outcome, Outcome::Failed(_)) && call.mode == super::plan::Mode::Required {
        return None;
    }
    if let Some(body) = outcome.body() {
        let mut body = body.clone();
        call.projection.apply(&mut body);
        line.set_member("body", body);
    }
    Some(ended(line))
}

fn ended(line: Json<'_>) -> Vec<u8> {
    let mut out = line.to_vec();
    out.push(b'\n');
    out
}
