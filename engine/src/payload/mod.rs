//! Bodies of requests and answers, changed by a route's rules: JSON by operations (`steps.rs`) and by jq,
//! forms and XML as JSON, records of NDJSON and server-sent events while they stream.
//!
//! A body is read whole only where a rule has to see it whole, within the rule's bound, and changed on the
//! shard only while it is small. JSON is a type of its own (`json.rs`): numbers, strings and the order of
//! members stay as they were written where no rule changes them.

mod build;
mod fault;
pub mod form;
mod fuzz;
pub mod jq;
pub mod json;
pub mod pointer;
pub mod project;
pub mod records;
mod rule;
pub mod steps;
mod stream;
pub mod template;
pub mod xml;

use std::sync::Arc;

use contract::snapshot::BodyForm;

pub use fuzz::fuzz_payload;
pub use rule::{Fault, Rule};
pub use stream::Stream;

use crate::answer::{Answer, Carrier, Edit, Whole};
use crate::auth::credentials;
use crate::coding::{self, Coding, Compression};
use crate::exchange::{Request, Responder};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{BodyFraming, Name};
use crate::offload::offload;
use crate::plan::Route;
use crate::shape::{AnswerValues, RequestValues};
use crate::shard::Shard;
use crate::upload::{self, Inward};
pub use fault::of_request as refusal;
use fault::{of_answer, of_request, unsupported};
use template::Known;

/// The rules of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    request: Box<[Rule]>,
    response: Box<[Rule]>,
    pub compress: Option<Compression>,
    /// Rules for answers ask for something of the request.
    keeps: bool,
}

/// Changes the request's body as its route says, and remembers what its answer's needs of it.
///
/// # Errors
/// 400 for a body that is not what a rule reads, 413 for one that is too large, 415 for one that is encoded,
/// 503 where there is no room, or what reading it ends with.
#[inline]
pub async fn request(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    route: &Route,
) -> Result<(), LocalReply> {
    match &route.payload {
        Some(payload) if !payload.note(request) => Ok(()),
        // Boxed: what it awaits would weigh on every other request.
        Some(payload) => {
            let most = route.max_body_bytes;
            Box::pin(change_request(shard, request, responder, payload, most)).await
        }
        None => Ok(()),
    }
}

/// Changes the answer's body as its route says.
///
/// # Errors
/// 502 for a body that is not what a rule reads, or too large; 503 where there is no room, or what reading it
/// ends with.
#[inline]
pub async fn answer(
    shard: &Shard,
    request: &Request,
    responder: &Responder,
    route: &Route,
    answer: Answer,
) -> Result<Answer, LocalReply> {
    match &route.payload {
        Some(payload) if !payload.response.is_empty() => {
            Box::pin(change_answer(shard, request, responder, payload, answer)).await
        }
        _ => Ok(answer),
    }
}

/// Compresses the answer, if its route says so and the client takes it. Last of all.
#[inline]
pub async fn compress(
    shard: &Shard,
    request: &Request,
    responder: &Responder,
    route: &Route,
    answer: Answer,
) -> Answer {
    let compression = route.payload.as_ref().and_then(|payload| payload.compress.as_ref());
    let Some(compression) = compression else { return answer };
    let mut answer = answer;
    match coding::compress(shard, request, responder, compression, &mut answer) {
        Some(how) => Box::pin(coding::encode_elsewhere(shard, how, answer)).await,
        None => answer,
    }
}

impl Payload {
    /// Remembers what the answer's body needs of the request. Whether the request's is to be changed.
    fn note(&self, request: &mut Request) -> bool {
        if request.grpc.is_some() || request.web.is_some() || request.upgrade.is_some() {
            return false;
        }
        if let Some(compression) = &self.compress {
            compression.note(request);
        }
        if !self.response.is_empty() {
            prepare(request, self);
        }
        !request.head.framing.is_empty() && !self.request.is_empty()
    }
}

/// Where a body is to be changed.
struct Job {
    payload: Arc<Payload>,
    of_request: bool,
    at: usize,
    codings: Vec<Coding>,
    known: Known,
    body: Vec<u8>,
}

impl Job {
    fn rule(&self) -> &Rule {
        let rules = if self.of_request { &self.payload.request } else { &self.payload.response };
        &rules[self.at]
    }

    /// What becomes of the body; what it was, too, where it cannot be changed.
    async fn run(self, shard: &Shard) -> Result<Vec<u8>, (Fault, Vec<u8>)> {
        let blocks = self.rule().blocks();
        let store = shard.desk().store();
        let jq = store.jq().clone();
        if !blocks && self.body.len() <= limits::PAYLOAD_INLINE && self.codings.is_empty() {
            return self.work(&jq);
        }
        let places = if blocks { store.jq_places() } else { store.payloads() };
        match offload(shard, places, move || self.work(&jq)).await {
            Ok(done) => done,
            Err(why) => Err((why.into(), Vec::new())),
        }
    }

    fn work(self, jq: &jq::Workers) -> Result<Vec<u8>, (Fault, Vec<u8>)> {
        let rule = self.rule();
        let changed = match self.codings.is_empty() {
            true => rule.change_all(&self.body, &self.known, jq),
            false => {
                let decoded = rule.decoded(&self.codings, &self.body);
                decoded.and_then(|body| rule.change_all(&body, &self.known, jq))
            }
        };
        changed.map_err(|fault| (fault, self.body))
    }
}

async fn change_request(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    payload: &Arc<Payload>,
    max_body_bytes: u64,
) -> Result<(), LocalReply> {
    let (head, bytes) = (&*request.head, request.bytes());
    let content_type = head.value(bytes, Name::ContentType).unwrap_or_default();
    let found = payload.request.iter().position(|rule| rule.types.take(content_type));
    let Some(at) = found else { return Ok(()) };
    let rule = &payload.request[at];
    let codings = Coding::list(credentials::fields(head, bytes, b"content-encoding"));
    let codings = match codings {
        Ok(codings) if codings.is_empty() || rule.decode => codings,
        _ if rule.pass => return Ok(()),
        _ => return Err(unsupported(rule)),
    };
    let values = RequestValues::new(request, shard.io.clock().wall_us());
    let known = Known::collect(&rule.asks, &values);
    drop(values);
    let decoded = !codings.is_empty();
    let streams = matches!(rule.from, BodyForm::Lines | BodyForm::Events);
    if streams && request.feed.is_none() {
        let stream = Stream::new(payload.clone(), true, at, codings, known, shard);
        request.inward = Some(Box::new(Inward::Records(Box::new(stream))));
        edit_request(request, rule, decoded);
        return Ok(());
    }
    // Records are here only if they were read already, to be validated.
    let most = if streams { usize::MAX } else { rule.most };
    let body = upload::gather_request(shard, request, responder, most, max_body_bytes).await?;
    if body.is_empty() {
        return Ok(());
    }
    let job = Job { payload: payload.clone(), of_request: true, at, codings, known, body };
    match job.run(shard).await.map_err(|(fault, _)| fault) {
        Ok(body) => {
            request.replace_body(body);
            edit_request(request, rule, decoded);
            Ok(())
        }
        Err(Fault::Unreadable(_)) if rule.pass => Ok(()),
        Err(fault) => Err(of_request(fault)),
    }
}

/// Sees to it that the answer is one that rules can read.
fn prepare(request: &mut Request, payload: &Payload) {
    if payload.keeps {
        request.keep();
    }
    let (head, bytes) = (&*request.head, request.bytes());
    let has = |name: &[u8]| credentials::fields(head, bytes, name).next().is_some();
    let ranges = has(b"range");
    let accepted = coding::known(credentials::fields(head, bytes, b"accept-encoding"));
    if ranges {
        // Of a part of a body nobody can tell what is in it (RFC 9110 §14.2: Range may be ignored).
        let edit = request.edit();
        edit.remove(b"range");
        edit.remove(b"if-range");
    }
    if let Some(accepted) = accepted {
        request.edit().set(b"accept-encoding", accepted);
    }
}

fn edit_request(request: &mut Request, rule: &Rule, decoded: bool) {
    let edit = request.edit();
    if let Some(new_type) = rule.new_type() {
        edit.set(b"content-type", new_type.into());
    }
    if decoded {
        edit.remove(b"content-encoding");
    }
    for name in DIGESTS {
        edit.remove(name);
    }
}

/// What is said of a body's bytes (RFC 9530; RFC 3230, RFC 1864 before it).
const DIGESTS: [&[u8]; 4] = [b"content-digest", b"repr-digest", b"digest", b"content-md5"];

async fn change_answer(
    shard: &Shard,
    request: &Request,
    responder: &Responder,
    payload: &Arc<Payload>,
    mut answer: Answer,
) -> Result<Answer, LocalReply> {
    if answer.switched || request.grpc.is_some() || request.web.is_some() {
        return Ok(answer);
    }
    let (head, bytes) = (&*answer.head, answer.bytes.bytes());
    let content_type = head.value(bytes, Name::ContentType).unwrap_or_default();
    let is_for = |rule: &Rule| rule.is_for_status(head.status) && rule.types.take(content_type);
    let Some(at) = payload.response.iter().position(is_for) else { return Ok(answer) };
    let rule = &payload.response[at];
    if head.framing == BodyFraming::None {
        // What it says of a body (HEAD, 304) is of another one.
        let etag = answer.value(b"etag");
        edit_answer(answer.edit.get_or_insert_default(), rule, false, etag, true);
        return Ok(answer);
    }
    let codings = answer.values(b"content-encoding");
    let codings = match Coding::list(codings.iter().map(|value| &**value)) {
        Ok(codings) if head.status != 206 => codings,
        _ if rule.pass => return Ok(answer),
        _ => return Err(of_answer(Fault::Unreadable(String::new()))),
    };
    let values = AnswerValues {
        request: RequestValues::new(request, shard.io.clock().wall_us()),
        status: head.status,
        head,
        bytes,
    };
    let known = Known::collect(&rule.asks, &values);
    drop(values);
    let etag = answer.value(b"etag");
    let decoded = !codings.is_empty();
    // What is here as a whole would be changed in one go.
    let is_own = matches!(answer.carrier, Carrier::Own(_));
    let streams = matches!(rule.from, BodyForm::Lines | BodyForm::Events);
    if streams && !is_own {
        let stream = Stream::new(payload.clone(), false, at, codings, known, shard);
        answer.filters.push(crate::filter::Filter::Records(Box::new(stream)));
        edit_answer(answer.edit.get_or_insert_default(), rule, decoded, etag, false);
        return Ok(answer);
    }
    let most = if streams { usize::MAX } else { rule.most };
    let mut whole: Whole = answer.gather(shard, responder, None, most).await?;
    let body = std::mem::take(&mut whole.body);
    if body.is_empty() {
        return Ok(whole.into_answer(body));
    }
    let job = Job { payload: payload.clone(), of_request: false, at, codings, known, body };
    match job.run(shard).await {
        Ok(body) => {
            let mut answer = whole.into_answer(body);
            edit_answer(answer.edit.get_or_insert_default(), rule, decoded, etag, false);
            Ok(answer)
        }
        Err((Fault::Unreadable(_), body)) if rule.pass => Ok(whole.into_answer(body)),
        Err((fault, _)) => Err(of_answer(fault)),
    }
}

fn edit_answer(edit: &mut Edit, rule: &Rule, decoded: bool, etag: Option<Vec<u8>>, bodiless: bool) {
    if let Some(new_type) = rule.new_type() {
        edit.set(b"content-type", new_type.into());
    }
    if decoded {
        edit.remove(b"content-encoding");
    }
    if bodiless {
        edit.remove(b"content-length");
    }
    for name in DIGESTS {
        edit.remove(name);
    }
    edit.remove(b"accept-ranges");
    coding::weaken(edit, etag);
}
