//! Why a request goes where it goes: for `sluice explain`.
//!
//! The answer and the verdict on every route come from the router itself: a route is judged by
//! routers that hold only it, with more and more of its conditions.

use contract::snapshot::{FieldMatch, PathMatch, Route, Snapshot, ValueMatch};

use super::{AllowList, Condition, Miss, Query, Router, host, path, rewrite_path};
use crate::plan::{Plan, PlanError};

/// The request to explain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExplainRequest {
    pub method: String,
    /// May have a port; empty: none.
    pub host: String,
    /// As on the request line, `/users/7?full=1`.
    pub path_and_query: String,
    pub headers: Vec<(String, String)>,
}

/// What the gateway does with a request, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub outcome: Outcome,
    /// The path that was matched: the normal form of the request's. Empty for a bad path.
    pub path: String,
    /// Every route but the one that matched, the nearest to matching first.
    pub others: Vec<Other>,
}

/// What the gateway does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Matched(Matched),
    /// 404.
    NotFound,
    /// 405 with these methods in `Allow`.
    MethodNotAllowed {
        allow: Vec<String>,
    },
    /// 400 before any route is looked at.
    BadPath {
        problem: String,
    },
}

/// The route of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Place in the spec's order.
    pub index: usize,
    pub route: String,
    /// Path and query as the upstream gets them.
    pub rewritten: String,
    pub backends: Vec<Share>,
}

/// A backend of the matched route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub upstream: String,
    pub weight: u32,
}

/// A route that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Place in the spec's order.
    pub index: usize,
    pub route: String,
    pub verdict: Verdict,
    /// The verdict for people, with the values that differ.
    pub text: String,
}

/// The first thing that kept a route from matching, in the order in which the router looks.
/// Smaller is nearer to matching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It matches, but another route goes before it (or decided that the answer is 405).
    Outranked,
    Method,
    Query,
    Header,
    Path,
    Host,
}

impl Verdict {
    /// One stable word, for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Outranked => "outranked",
            Verdict::Method => "method",
            Verdict::Query => "query",
            Verdict::Header => "header",
            Verdict::Path => "path",
            Verdict::Host => "host",
        }
    }
}

/// Explains `request` under `snapshot`.
///
/// # Errors
/// The snapshot cannot become a [`Plan`].
pub fn explain(snapshot: Snapshot, request: &ExplainRequest) -> Result<Explanation, PlanError> {
    let plan = Plan::build(snapshot.clone())?;
    let target = request.path_and_query.as_bytes();
    let (raw, query) = match memchr::memchr(b'?', target) {
        Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..)),
        None => (target, None),
    };
    let mut buffer = Vec::new();
    let path = match path::normalise(raw, &mut buffer) {
        Ok(path) => path,
        Err(bad) => {
            let outcome = Outcome::BadPath { problem: bad.to_string() };
            return Ok(Explanation { outcome, path: String::new(), others: Vec::new() });
        }
    };
    let query = Query {
        host: request.host.as_bytes(),
        path,
        query,
        method: request.method.as_bytes(),
        headers: &request.headers,
    };
    let found = plan.router.find(&query);
    let winner = found.ok().map(|index| index as usize);
    let mut others = Vec::new();
    for (index, route) in snapshot.routes.iter().enumerate() {
        if winner != Some(index) {
            let best = winner.and_then(|at| snapshot.routes.get(at));
            let (verdict, text) = judge(route, best, &query)?;
            others.push(Other { index, route: route.name.clone(), verdict, text });
        }
    }
    // Among those whose path differs, the nearest is the one with most of it in common.
    others.sort_by_cached_key(|other| {
        let route = snapshot.routes.get(other.index);
        let common = match (other.verdict, route.map(|route| &route.path)) {
            (
                Verdict::Path,
                Some(PathMatch::Exact(text) | PathMatch::Prefix(text) | PathMatch::Template(text)),
            ) => text.bytes().zip(path).take_while(|(a, b)| a == *b).count(),
            _ => 0,
        };
        (other.verdict, std::cmp::Reverse(common), other.index)
    });
    let outcome = match found {
        Ok(index) => Outcome::Matched(matched(&plan, index, &query)),
        Err(Miss::NotFound) => Outcome::NotFound,
        Err(Miss::MethodNotAllowed(allow)) => {
            Outcome::MethodNotAllowed { allow: names(&plan.router, allow) }
        }
    };
    Ok(Explanation { outcome, path: text(path), others })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn names(router: &Router, allow: AllowList) -> Vec<String> {
    router.allowed(allow).map(text).collect()
}

fn matched(plan: &Plan, index: u32, query: &Query<'_>) -> Matched {
    let route = plan.route(index);
    let mut buffer = Vec::new();
    let mut rewritten = text(rewrite_path(&route.rewrite, query.path, &mut buffer));
    if let Some(query) = query.query {
        rewritten.push('?');
        rewritten.push_str(&text(query));
    }
    let share = |backend: &crate::plan::Backend| Share {
        upstream: plan.upstream(*backend).name.to_string(),
        weight: backend.weight,
    };
    Matched {
        index: index as usize,
        route: route.name.to_string(),
        rewritten,
        backends: route.backends.iter().map(share).collect(),
    }
}

/// Why `route` did not get the request that `winner` got (or nobody).
fn judge(
    route: &Route,
    winner: Option<&Route>,
    query: &Query<'_>,
) -> Result<(Verdict, String), PlanError> {
    // Only the host, and then host and path, of the route.
    let mut only = Route { methods: vec![], headers: vec![], query: vec![], ..route.clone() };
    only.path = PathMatch::Prefix("/".into());
    if Router::build(std::slice::from_ref(&only))?.find(query).is_err() {
        let mut buffer = [0; host::MAX_NAME];
        let name = text(host::name(query.host, &mut buffer));
        return Ok((Verdict::Host, format!("host {name:?} is not {}", any_of(&route.hosts))));
    }
    only.path = route.path.clone();
    if Router::build(std::slice::from_ref(&only))?.find(query).is_err() {
        let path = text(query.path);
        let text = match &route.path {
            PathMatch::Exact(exact) => format!("path {path:?} is not exactly {exact:?}"),
            PathMatch::Prefix(prefix) => format!("path {path:?} is not at or below {prefix:?}"),
            PathMatch::Regex(regex) => format!("path {path:?} does not match /{regex}/"),
            PathMatch::Template(template) => format!("path {path:?} is not like {template:?}"),
        };
        return Ok((Verdict::Path, text));
    }
    let built = |field: &FieldMatch| {
        Condition::build(field).map_err(|problem| PlanError {
            entity: "route",
            name: route.name.clone(),
            field: field.name.clone(),
            problem,
        })
    };
    for field in &route.headers {
        if !built(field)?.holds_for_headers(query.headers) {
            return Ok((Verdict::Header, format!("no header {}", wanted(field))));
        }
    }
    for field in &route.query {
        let condition = built(field)?;
        if !query.query.is_some_and(|query| condition.holds_for_query(query)) {
            return Ok((Verdict::Query, format!("no query parameter {}", wanted(field))));
        }
    }
    only.methods.clone_from(&route.methods);
    if Router::build(std::slice::from_ref(&only))?.find(query).is_err() {
        let method = text(query.method);
        return Ok((Verdict::Method, format!("method {method} is not {}", any_of(&route.methods))));
    }
    Ok((Verdict::Outranked, outranked(route, winner, query)?))
}

fn any_of(options: &[String]) -> String {
    match options {
        [one] => one.clone(),
        many => format!("one of {}", many.join(", ")),
    }
}

fn wanted(field: &FieldMatch) -> String {
    match &field.value {
        ValueMatch::Present => format!("{:?}", field.name),
        ValueMatch::Exact(value) => format!("{:?} with the value {value:?}", field.name),
        ValueMatch::Regex(regex) => format!("{:?} with a value matching /{regex}/", field.name),
    }
}

fn conditions(route: &Route) -> usize {
    route.headers.len() + route.query.len()
}

/// The step of the router's order that put `winner` before `route`, which matches as well.
fn outranked(
    route: &Route,
    winner: Option<&Route>,
    query: &Query<'_>,
) -> Result<String, PlanError> {
    let Some(winner) = winner else {
        return Ok("a nearer route has this path but not this method (405)".into());
    };
    // The nearer host, then the nearer path, shows when the two compete with nothing else.
    let wins = |a: &Route, b: &Route| -> Result<bool, PlanError> {
        // The winner last in order, so that order alone does not let it win.
        Ok(Router::build(&[b.clone(), a.clone()])?.find(query) == Ok(1))
    };
    let bare =
        |route: &Route| Route { methods: vec![], headers: vec![], query: vec![], ..route.clone() };
    let host_only = |route: &Route| Route { path: PathMatch::Prefix("/".into()), ..bare(route) };
    let by = if wins(&host_only(winner), &host_only(route))? {
        "its host is more specific"
    } else if wins(&bare(winner), &bare(route))? {
        "its path is more specific"
    } else if conditions(winner) > conditions(route) {
        "it has more conditions"
    } else {
        "it comes earlier in the spec"
    };
    Ok(format!("matches too, but {:?} goes first: {by}", winner.name))
}
