//! What a route changes of requests and answers, and what it answers itself.

use contract::snapshot::{NameRules, OwnAnswer, PathShape, RouteShape, Snapshot};

/// What the route of this name changes, a line for each kind.
pub fn changes(snapshot: &Snapshot, route: &str) -> Vec<String> {
    let route = snapshot.routes.iter().find(|one| one.name == route);
    route.and_then(|route| route.shape.as_deref()).map(all).unwrap_or_default()
}

fn all(shape: &RouteShape) -> Vec<String> {
    let mut lines = Vec::new();
    match &shape.answer {
        Some(OwnAnswer::Redirect { status, location, .. }) => {
            lines.push(format!("answered with {status} to {location}"));
        }
        Some(OwnAnswer::Static { status, content_type, .. }) => {
            let kind = if content_type.is_empty() { "no body" } else { content_type };
            lines.push(format!("answered with {status}, {kind}"));
        }
        None => {}
    }
    let request = &shape.request;
    if let Some(method) = &request.method {
        lines.push(format!("method {method}"));
    }
    if let Some(host) = &request.host {
        lines.push(format!("host {host}"));
    }
    match &request.path {
        Some(PathShape::Whole(path)) => lines.push(format!("path {path}")),
        Some(PathShape::Replace { pattern, with }) => {
            lines.push(format!("path /{pattern}/ becomes {with}"));
        }
        None => {}
    }
    names(&mut lines, "parameters", &request.query);
    names(&mut lines, "request headers", &request.headers);
    let set = request.cookies.set.iter().map(|(name, _)| name);
    list(&mut lines, "request cookies", set.chain(&request.cookies.remove));
    let response = &shape.response;
    for rule in &response.status {
        match rule.first == rule.last {
            true => lines.push(format!("status {} becomes {}", rule.first, rule.to)),
            false => lines.push(format!("status {}-{} becomes {}", rule.first, rule.last, rule.to)),
        }
    }
    names(&mut lines, "response headers", &response.headers);
    let cookies = &response.cookies;
    let set = cookies.set.iter().map(|cookie| &cookie.name);
    list(&mut lines, "response cookies", set.chain(&cookies.remove));
    if !cookies.rewrite.is_empty() {
        lines.push("attributes of response cookies".into());
    }
    if let Some(bytes) = response.max_body_bytes {
        lines.push(format!("answers of more than {bytes} bytes become 502"));
    }
    lines
}

fn names(lines: &mut Vec<String>, what: &str, rules: &NameRules) {
    let moved = rules.rename.iter().chain(&rules.copy).map(|(_, to)| to);
    let valued = rules.set.iter().chain(&rules.add).map(|(name, _)| name);
    list(lines, what, moved.chain(&rules.remove).chain(valued));
}

fn list<'a>(lines: &mut Vec<String>, what: &str, names: impl Iterator<Item = &'a String>) {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if !names.is_empty() {
        lines.push(format!("{what} {}", names.join(", ")));
    }
}
