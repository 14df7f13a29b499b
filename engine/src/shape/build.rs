//! From the snapshot's rules to the plan's.

use contract::snapshot::{
    OwnAnswer, RequestShape, ResponseShape, Route, RouteShape, StatusRule, fixed_field,
    status_has_body,
};

use super::captures::Captures;
use super::cookies::{AnswerCookies, CookieRules};
use super::fields::FieldRules;
use super::own::Own;
use super::path::PathRule;
use super::query::QueryRules;
use super::{Request, Response, Shape};
use crate::route::path;
use crate::template::{Root, Scope, Template};

/// The field of a rule that cannot be used, such as `request.headers.set.x-a`, and why.
pub(super) type Problem = (String, String);

/// What the templates of a route may ask for of its requests. `claim` and `consumer` only where the route
/// asks who calls.
pub fn scope(route: &Route, captures: &Captures) -> Scope {
    let scope = Scope::request(captures.names());
    match route.auth {
        Some(_) => scope,
        None => scope.without(Root::Claim).without(Root::Consumer),
    }
}

/// A template, or what is wrong with it, for people.
pub(super) fn template(text: &str, scope: &Scope) -> Result<Template, String> {
    Template::compile(text, scope)
        .map_err(|error| format!("{} (at byte {} of it)", error.problem, error.at))
}

impl Shape {
    /// # Errors
    /// The first rule that cannot be used.
    pub fn build(route: &Route, from: &RouteShape, captures: &Captures) -> Result<Shape, Problem> {
        let scope = scope(route, captures);
        let request = request(&from.request, &scope)?;
        let answers = scope.clone().with_response();
        let response = response(&from.response, &answers)?;
        let own = from.answer.as_ref().map(|answer| Own::build(answer, &scope)).transpose()?;
        let shape = Shape { keeps: response.keeps(), request, response, own };
        fits(route, from, &shape)?;
        Ok(shape)
    }
}

fn request(from: &RequestShape, scope: &Scope) -> Result<Request, Problem> {
    let method = from.method.as_deref().map(method).transpose()?;
    let host = from.host.as_ref().map(|text| {
        let place = || "request.host".to_owned();
        let host = template(text, scope).map_err(|problem| (place(), problem))?;
        match host.literal() {
            Some(text) if !super::is_authority(text.as_bytes()) => {
                Err((place(), format!("`{text}` is no host, with or without a port")))
            }
            _ => Ok(host),
        }
    });
    Ok(Request {
        method,
        host: host.transpose()?,
        path: from.path.as_ref().map(|path| PathRule::build(path, scope)).transpose()?,
        query: QueryRules::build(&from.query, scope).map_err(within("request.query"))?,
        fields: FieldRules::build(&from.headers, scope, false)
            .map_err(within("request.headers"))?,
        cookies: CookieRules::build(&from.cookies, scope).map_err(within("request.cookies"))?,
    })
}

fn response(from: &ResponseShape, scope: &Scope) -> Result<Response, Problem> {
    for (at, rule) in from.status.iter().enumerate() {
        let StatusRule { first, last, to } = *rule;
        let sound = first <= last && (200..=599).contains(&first) && last <= 599;
        if !sound || !status_has_body(to) || (first == last && !status_has_body(first)) {
            let problem = "expected statuses from 200 to 599 that can have a body, so not 204, 205 \
                           or 304";
            return Err((format!("response.status[{at}]"), problem.into()));
        }
    }
    Ok(Response {
        status: from.status.as_slice().into(),
        fields: FieldRules::build(&from.headers, scope, true)
            .map_err(within("response.headers"))?,
        cookies: AnswerCookies::build(&from.cookies, scope).map_err(within("response.cookies"))?,
        max_body_bytes: from.max_body_bytes,
    })
}

fn method(text: &str) -> Result<Box<[u8]>, Problem> {
    use crate::message::{MAX_METHOD, fields::is_tchar};
    let place = || "request.method".to_owned();
    let token = !text.is_empty() && text.len() <= MAX_METHOD && text.bytes().all(is_tchar);
    match text {
        "CONNECT" | "TRACE" => Err((place(), format!("{text} is not passed on to upstreams"))),
        _ if !token => Err((place(), format!("`{text}` is no method"))),
        _ => Ok(text.as_bytes().into()),
    }
}

/// Whether the rules go together with the rest of the route.
fn fits(route: &Route, from: &RouteShape, shape: &Shape) -> Result<(), Problem> {
    use contract::snapshot::PathRewrite;
    let fault = |field: &str, problem: &str| Err((field.to_owned(), problem.to_owned()));
    if route.rewrite != PathRewrite::Keep && from.request.path.is_some() {
        let problem = "`rewrite` changes the path, too; keep one of them";
        return fault("request.path", problem);
    }
    if from.answer.is_some() {
        let answer = match from.answer {
            Some(OwnAnswer::Redirect { .. }) => "redirect",
            _ => "respond",
        };
        if from.request != RequestShape::default() || route.rewrite != PathRewrite::Keep {
            let problem = "there is no upstream whose request could be changed; leave `request` and \
                           `rewrite` out";
            return fault(answer, problem);
        }
        if !route.backends.is_empty() {
            return fault(answer, "the gateway answers itself; leave `upstream` out");
        }
        if from.response.max_body_bytes.is_some() || !from.response.status.is_empty() {
            let problem = "there is no upstream's answer whose status or size could matter; leave \
                           `response.status` and `response.max_body_bytes` out";
            return fault(answer, problem);
        }
        if !route.upgrades.is_empty() {
            return fault(
                answer,
                "what the gateway answers itself switches no protocols; leave \
                                  `upgrades` out",
            );
        }
    }
    if route.grpc_web {
        let mut names = shape.request.fields.names().chain(shape.response.fields.names());
        if names.any(|name| name == "content-type") {
            let problem = "grpc_web translates the body and its type; leave Content-Type alone";
            return fault("grpc_web", problem);
        }
        if shape.request.method.is_some() {
            return fault("request.method", "a call of gRPC is a POST; leave the method alone");
        }
    }
    if !route.upgrades.is_empty() && shape.request.method.is_some() {
        let problem = "a switch of protocols is a GET; leave the method alone, or `upgrades` out";
        return fault("request.method", problem);
    }
    if let Some(name) = &route.deadline_header
        && shape.request.fields.names().any(|own| own.eq_ignore_ascii_case(name))
    {
        return fault(
            "request.headers",
            "it changes the field of `deadline_header`, which the \
                                         gateway writes itself",
        );
    }
    if route.cors.is_some()
        && let Some(name) =
            shape.response.fields.names().find(|name| crate::cors::is_ours(name.as_bytes()))
    {
        let problem = format!("`{name}` is what `cors` is for; keep one of them");
        return Err(("response.headers".into(), problem));
    }
    Ok(())
}

pub(super) fn within(place: &'static str) -> impl Fn(Problem) -> Problem {
    move |(field, problem)| (format!("{place}{field}"), problem)
}

/// Whether a text of the operator's is a path in normal form.
pub(super) fn is_normal(text: &str) -> bool {
    path::normalise(text.as_bytes(), &mut Vec::new()) == Ok(text.as_bytes())
}

/// For answers of the gateway's own: names that are no rule's to set.
pub(super) fn own_field(name: &str) -> Result<(), String> {
    use crate::message::fields::is_tchar;
    if name.is_empty() || !name.bytes().all(is_tchar) {
        return Err(format!("`{name}` is no name of a header field"));
    }
    match fixed_field(&name.to_ascii_lowercase(), true) {
        Some(why) => Err(format!("`{name}` is not set here: {why}")),
        None => Ok(()),
    }
}
