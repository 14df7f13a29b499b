//! What a route changes of requests and answers, and what it answers itself.
//!
//! Rules are compiled with the plan. A request's are judged once, after everything that may refuse it and
//! before anyone else changes it; what they say of fields is applied as the head is written, by whoever
//! writes it (`rewrite.rs`, `relay.rs`), so that tries that are made again cost nothing. An answer's are
//! judged when its head is here. Answers of the gateway's own making that are no route's (errors, CORS
//! preflights, logins) are not changed, nor are tunnels.
//!
//! A value that is missing skips the rule; so does one that cannot stand in a field (RFC 9110 §5.5), which
//! is counted. Where a value is needed (host, path, location, body) the answer is 400.

mod build;
mod captures;
mod cookies;
mod fields;
mod own;
mod path;
mod query;
#[cfg(test)]
mod tests;
mod values;

use contract::Counter;
use contract::record::Reason;
use contract::snapshot::{StatusRule, status_has_body};

pub use build::scope;
pub use captures::Captures;
pub use fields::{FieldRules, Judged};
pub use values::{AnswerValues, RequestValues};

use crate::answer::{Answer, Edit};
use crate::auth::credentials::fields as fields_of;
use crate::exchange::{self, Responder};
use crate::filter::Filter;
use crate::local_reply::LocalReply;
use crate::message::{Authority, BodyFraming, Span};
use crate::plan::Route;
use crate::shard::Shard;
use crate::template::{Escape, Root, Template};
use cookies::{AnswerCookies, CookieRules};
use own::Own;
use path::PathRule;
use query::QueryRules;

/// The rules of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub request: Request,
    pub response: Response,
    /// In place of an upstream's answer.
    pub own: Option<Own>,
    /// Rules for answers ask for something of the request.
    keeps: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    method: Option<Box<[u8]>>,
    host: Option<Template>,
    path: Option<PathRule>,
    query: QueryRules,
    pub fields: FieldRules,
    cookies: CookieRules,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    status: Box<[StatusRule]>,
    pub fields: FieldRules,
    pub cookies: AnswerCookies,
    max_body_bytes: Option<u64>,
}

/// Changes the request as its route says.
///
/// # Errors
/// 400 when it lacks a value that the host or the path is made of.
#[inline]
pub fn request(
    shard: &Shard,
    request: &mut exchange::Request,
    route: &Route,
) -> Result<(), LocalReply> {
    match route.shape.as_deref() {
        Some(shape) => shape.request(shard, request),
        None => Ok(()),
    }
}

/// The answer that the route gives itself, if it does.
///
/// # Errors
/// 400 when the request lacks a value that is needed.
#[inline]
pub fn own(
    shard: &Shard,
    request: &mut exchange::Request,
    responder: &Responder,
    route: &Route,
) -> Option<Result<Answer, LocalReply>> {
    let own = route.shape.as_deref()?.own.as_ref()?;
    let values = RequestValues::new(request, shard.io.clock().wall_us());
    let given = own.give(shard, &values, responder.is_head);
    drop(values);
    request.notes.reason = own.reason();
    Some(given)
}

/// Refuses an upstream's answer whose body is larger than its route allows, as soon as that is known.
///
/// # Errors
/// 502.
#[inline]
pub fn bound(route: &Route, answer: &mut Answer) -> Result<(), LocalReply> {
    let Some(most) = route.shape.as_deref().and_then(|shape| shape.response.max_body_bytes) else {
        return Ok(());
    };
    match answer.head.framing {
        _ if answer.switched => {}
        BodyFraming::None => {}
        BodyFraming::Length(length) if length > most => {
            return Err(LocalReply::new(502, Reason::AnswerTooLarge));
        }
        BodyFraming::Length(_) => {}
        // Of unknown length: seen as it comes.
        _ => answer.filters.insert(0, Filter::Cap { left: most }),
    }
    Ok(())
}

/// Changes the answer as its route says.
#[inline]
pub fn answer(shard: &Shard, request: &exchange::Request, route: &Route, answer: &mut Answer) {
    if let Some(shape) = route.shape.as_deref()
        && !answer.switched
        && !shape.response.is_empty()
    {
        shape.answer(shard, request, answer);
    }
}

impl Shape {
    fn request(&self, shard: &Shard, request: &mut exchange::Request) -> Result<(), LocalReply> {
        if self.keeps {
            request.keep();
        }
        let rules = &self.request;
        let missing = || LocalReply::new(400, Reason::ValueMissing);
        let values = RequestValues::new(request, shard.io.clock().wall_us());
        let mut unfit = 0;
        let mut judged = Judged::default();
        if !rules.fields.is_empty() {
            // What the gateway says of the caller goes before any rule.
            let identity = request.identity.as_deref();
            let taken = |name: &[u8]| identity.is_some_and(|identity| identity.tells(name));
            let (fields, bytes) = (&request.head.fields, request.bytes());
            unfit += rules.fields.judge(&values, fields, bytes, taken, &mut judged);
        }
        let host = match &rules.host {
            None => None,
            Some(host) => {
                let mut text = Vec::with_capacity(64);
                host.text(&values, Escape::None, &mut text).map_err(|_| missing())?;
                Some(text).filter(|text| is_authority(text)).ok_or_else(missing)?.into()
            }
        };
        let path = match &rules.path {
            None => None,
            Some(path) => path.render(&values, request.path()).map_err(|_| missing())?,
        };
        let query = (!rules.query.is_empty()).then(|| rules.query.render(&values, values.query()));
        let cookies = (!rules.cookies.is_empty()).then(|| {
            let hidden = request.hidden.as_ref().and_then(|hidden| hidden.cookies.as_deref());
            let bytes = request.bytes();
            let lines = fields_of(&request.head, bytes, b"cookie").filter(|_| hidden.is_none());
            let (line, bad) = rules.cookies.render(&values, lines.chain(hidden));
            unfit += bad;
            line
        });
        drop(values);
        count(shard, unfit);
        if let Some(path) = path {
            request.replace_path(path);
        }
        if cookies.is_some() {
            request.hidden.get_or_insert_default().cookies = cookies;
        }
        let method = rules.method.as_deref();
        if method.is_some() || host.is_some() || query.is_some() || !judged.is_idle() {
            let edit = request.edit();
            edit.method = method.map(<[u8]>::to_vec);
            edit.host = host;
            edit.query = query;
            edit.judged = judged;
        }
        Ok(())
    }

    fn answer(&self, shard: &Shard, request: &exchange::Request, answer: &mut Answer) {
        let rules = &self.response;
        let status = answer.head.status;
        let bytes = answer.bytes.bytes();
        let values = AnswerValues {
            request: RequestValues::new(request, shard.io.clock().wall_us()),
            status,
            head: &answer.head,
            bytes,
        };
        let mut judged = Judged::default();
        let mut unfit =
            rules.fields.judge(&values, &answer.head.fields, bytes, |_| false, &mut judged);
        let (cookies, bad) = rules.cookies.render(&values);
        unfit += bad;
        count(shard, unfit);
        // The status of a gRPC call is elsewhere.
        let mapped = (request.grpc.is_none()).then(|| rules.status(status)).flatten();
        let edit: &mut Edit = answer.edit.get_or_insert_default();
        // What others have changed before this is changed like the rest.
        edit.fields.retain(|(name, _)| !rules.fields.replaces(&judged, name));
        edit.drop.retain(|name| !rules.fields.replaces(&judged, name));
        edit.judged = judged;
        edit.cookies = cookies;
        edit.status = mapped.or(edit.status);
    }
}

impl Response {
    fn is_empty(&self) -> bool {
        self.status.is_empty() && self.fields.is_empty() && self.cookies.is_empty()
    }

    fn status(&self, status: u16) -> Option<u16> {
        let mut rules =
            self.status.iter().filter(|rule| (rule.first..=rule.last).contains(&status));
        rules.next().map(|rule| rule.to).filter(|_| status_has_body(status))
    }

    fn keeps(&self) -> bool {
        let mut templates = self.fields.templates().chain(self.cookies.templates());
        // Everything else that a request has is still there when its answer comes.
        let roots =
            [Root::Path, Root::Query, Root::Header, Root::Cookie, Root::Request, Root::Client];
        templates.any(|template| roots.iter().any(|root| template.uses(*root)))
    }
}

fn count(shard: &Shard, unfit: u64) {
    if unfit > 0 {
        shard.meter.count(Counter::ValuesUnfit, unfit);
    }
}

/// Whether a text is a host, with or without a port.
fn is_authority(text: &[u8]) -> bool {
    let span = Span { start: 0, end: text.len() as u32 };
    Authority::parse(text, span).is_some()
}
