//! Whether a request is what its API describes: its parameters, and its body where that is JSON.
//!
//! Parameters are judged before any of the body is read. A body that has to be judged is read whole
//! first, and goes on to the upstream as it came. Values are never said again to whoever sent them.

mod api;
mod fault;
mod fuzz;
mod json;
mod parameter;
pub(crate) mod percent;
mod schema;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use contract::Counter;
use contract::record::Reason;
use contract::snapshot::RouteValidation;

pub use self::api::{Api, Schemas};
use self::api::{Body, Missing};
pub use self::fault::{Fault, Faults, In};
pub use self::fuzz::fuzz_validate;
pub use self::schema::{Memory, Schema};
use crate::auth::credentials;
use crate::exchange::{Request, Responder};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::Framing;
use crate::shard::Shard;
use crate::upload::{self, Gathered, UploadEnd};

/// How the requests of a route are held against an API.
#[derive(Clone, Debug)]
pub struct Rules {
    pub api: Arc<Api>,
    pub parameters: bool,
    pub body: bool,
    /// Largest body that is judged, in bytes.
    pub max_bytes: usize,
    /// Nothing is refused.
    pub dry_run: bool,
    /// What is no operation of the API is refused.
    pub refuse_unknown: bool,
}

impl Rules {
    pub fn new(from: &RouteValidation, api: Arc<Api>) -> Rules {
        Rules {
            api,
            parameters: from.parameters,
            body: from.body,
            max_bytes: from.max_bytes as usize,
            dry_run: from.dry_run,
            refuse_unknown: from.refuse_unknown,
        }
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Rules) -> bool {
        Arc::ptr_eq(&self.api, &other.api)
            && (self.parameters, self.body, self.max_bytes, self.dry_run, self.refuse_unknown)
                == (
                    other.parameters,
                    other.body,
                    other.max_bytes,
                    other.dry_run,
                    other.refuse_unknown,
                )
    }
}

/// Why a request does not go on.
enum No {
    /// It is not what it should be. 400 and not 422 (RFC 9110 §15.5.21), which presumes that syntax and
    /// type of the content are right: here they may be what is wrong, or it is no content at all.
    Invalid(u16, Faults),
    /// Its method is none of these.
    Method(String),
    /// Its body cannot be judged now.
    Unavailable,
    /// It would not have gone on without rules either.
    Broken(LocalReply),
}

/// Refuses a request that is not what the API of its route describes.
///
/// # Errors
/// 400, 404 for a path and 405 for a method that the API does not have, 413 and 415 for a body; 503 when
/// there is no room to judge it.
pub async fn admit(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    rules: &Rules,
    max_body_bytes: u64,
) -> Result<(), LocalReply> {
    let judged = judge(shard, request, responder, rules, max_body_bytes).await;
    let (counter, result) = match judged {
        Ok(()) => (Counter::ValidationPassed, Ok(())),
        Err(No::Broken(reply)) => return Err(reply),
        Err(_) if rules.dry_run => (Counter::ValidationDryRun, Ok(())),
        Err(No::Invalid(status, faults)) => {
            let faults = faults.into_list();
            let reply = LocalReply { faults, ..LocalReply::new(status, Reason::NotValid) };
            (Counter::ValidationRefused, Err(reply))
        }
        Err(No::Method(allow)) => {
            let reply = LocalReply::method_not_allowed(allow.into_bytes());
            (Counter::ValidationRefused, Err(LocalReply { reason: Reason::NotValid, ..reply }))
        }
        Err(No::Unavailable) => {
            let field = Some(("Retry-After", b"1".to_vec()));
            let reply = LocalReply { field, ..LocalReply::new(503, Reason::Overload) };
            (Counter::ValidationUnavailable, Err(reply))
        }
    };
    shard.meter.count(counter, 1);
    result
}

async fn judge(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    rules: &Rules,
    max_body_bytes: u64,
) -> Result<(), No> {
    let operation = {
        let method = request.head.method(request.bytes());
        let found = match rules.api.find(method, request.path()) {
            Ok(found) => found,
            Err(_) if !rules.refuse_unknown => return Ok(()),
            Err(Missing::Path) => {
                return Err(invalid(404, In::Path, "the API has no such path"));
            }
            Err(Missing::Method(allow)) => {
                return Err(No::Method(allow));
            }
        };
        let mut faults = Faults::default();
        if rules.parameters {
            parameter::judge(&found, &request.head, request.bytes(), &mut faults);
        }
        if !faults.is_empty() {
            return Err(No::Invalid(400, faults));
        }
        found.operation
    };
    match &operation.body {
        // A call's body is no JSON, whatever it is called.
        Some(body) if rules.body && request.grpc.is_none() && request.web.is_none() => {
            judge_body(shard, request, responder, rules, body, max_body_bytes).await
        }
        _ => Ok(()),
    }
}

fn invalid(status: u16, place: In, message: &str) -> No {
    let mut faults = Faults::default();
    faults.add(place, "", message);
    No::Invalid(status, faults)
}

async fn judge_body(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    rules: &Rules,
    body: &Body,
    max_body_bytes: u64,
) -> Result<(), No> {
    let absent = || match body.required {
        true => Err(invalid(400, In::Body, "a body is required")),
        false => Ok(()),
    };
    if request.head.framing.is_empty() {
        return absent();
    }
    let schema = content(request, body).map_err(|message| invalid(415, In::Body, message))?;
    let Some(schema) = schema else { return Ok(()) };
    let too_large = || invalid(413, In::Body, "the body is too large to be validated");
    if matches!(request.head.framing, Framing::Length(length) if length > rules.max_bytes as u64) {
        return Err(too_large());
    }
    if request.whole_body(responder).is_none() {
        match gather(shard, request, responder, rules, max_body_bytes).await? {
            Gathered::Whole => {}
            Gathered::TooLarge => return Err(too_large()),
            Gathered::NoRoom => return Err(No::Unavailable),
        }
    }
    let feed = request.feed.clone();
    let feed = feed.as_ref().map(|feed| feed.borrow());
    let bytes = match &feed {
        Some(feed) => Cow::Borrowed(feed.gathered().unwrap_or_default()),
        None => request.whole_body(responder).unwrap_or_default(),
    };
    if bytes.is_empty() {
        return absent();
    }
    if bytes.len() > rules.max_bytes {
        return Err(too_large());
    }
    let faults = if bytes.len() <= limits::VALIDATED_INLINE {
        compare(&schema, &bytes)
    } else {
        let place = shard.desk().store().validations().take().ok_or(No::Unavailable)?;
        let bytes = bytes.into_owned();
        drop(feed);
        let work = move || compare(&schema, &bytes);
        let asked = shard.desk().ask(async move { place.work(work).await });
        asked.await.ok().flatten().ok_or(No::Unavailable)?
    };
    match faults.is_empty() {
        true => Ok(()),
        false => Err(No::Invalid(400, faults)),
    }
}

/// What is wrong with a body.
fn compare(schema: &Schema, bytes: &[u8]) -> Faults {
    let mut faults = Faults::default();
    match json::parse(bytes) {
        Ok(body) => schema.judge(&body.value, body.size, (In::Body, ""), &mut faults),
        Err(message) => faults.add(In::Body, "", &message),
    }
    faults
}

/// What the body has to be, if it is looked at.
///
/// # Errors
/// It is of a type that the operation does not have, or not to be read as it is.
fn content(request: &Request, body: &Body) -> Result<Option<Arc<Schema>>, &'static str> {
    if body.content.is_empty() {
        return Ok(None);
    }
    let (head, bytes) = (&*request.head, request.bytes());
    let mut types = credentials::fields(head, bytes, b"content-type");
    let (first, more) = (types.next().unwrap_or_default(), types.next().is_some());
    if more {
        return Err("there is more than one Content-Type");
    }
    let media_type = first.split(|byte| *byte == b';').next().unwrap_or_default();
    let media_type = media_type.trim_ascii().to_ascii_lowercase();
    let fits = |known: &str| match known.strip_suffix('*') {
        Some("*/") => true,
        None if known == "*+json" => is_json(&media_type),
        Some(range) => media_type.starts_with(range.as_bytes()),
        None => known.as_bytes() == media_type,
    };
    let mut known = body.content.iter();
    let known = known.find(|one| fits(&one.media_type)).ok_or(match media_type.is_empty() {
        true => "the Content-Type is missing",
        false => "this Content-Type is not accepted here",
    })?;
    let Some(schema) = known.schema.as_ref().filter(|_| is_json(&media_type)) else {
        return Ok(None);
    };
    let mut codings = credentials::fields(head, bytes, b"content-encoding");
    match codings.all(|coding| coding.eq_ignore_ascii_case(b"identity")) {
        true => Ok(Some(schema.clone())),
        false => Err("a body that is compressed cannot be validated; send it as it is"),
    }
}

/// RFC 6839 §3.1.
fn is_json(media_type: &[u8]) -> bool {
    matches!(media_type, b"application/json" | b"text/json") || media_type.ends_with(b"+json")
}

/// Reads the body, so that it can be judged before it goes on.
async fn gather(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    rules: &Rules,
    max_body_bytes: u64,
) -> Result<Gathered, No> {
    let most = rules.max_bytes;
    let gathered = upload::gather_up_to(shard, request, responder, most, max_body_bytes).await;
    gathered.map_err(|end| {
        No::Broken(match end {
            UploadEnd::Refused(reply) => reply,
            UploadEnd::Done | UploadEnd::UpstreamGone | UploadEnd::ClientGone => {
                LocalReply::closing(0, Reason::ClientAborted)
            }
        })
    })
}
