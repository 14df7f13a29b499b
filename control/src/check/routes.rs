//! Routes that can never match, or not for all they say.
//!
//! This follows the engine's router: a request's path is looked up under its host, exact before the
//! longest prefix before regex, and the first of these with a route whose conditions hold decides.
//! So routes compete only under the same host and path, where more conditions go first and then the
//! order of the spec; and no regex is tried where a prefix takes every path.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::Check;
use crate::spec::{FieldMatch, PathMatch, Route, Severity, ValueMatch};

/// Routes of the same host and path that a route is compared with; bounds the work for thousands of
/// routes that differ in a header only.
const MAX_COMPARED: usize = 512;

/// Routes by what they compete for: host (empty: any) and path.
type Groups<'a> = HashMap<(&'a str, &'a PathMatch), Vec<(usize, &'a Route)>>;

pub fn shadows(check: &mut Check<'_>) {
    let spec = check.spec;
    let judged = |at: &usize, route: &Route| {
        !route.name.is_empty() && !check.problems.is_broken(&format!("routes[{at}].match"))
    };
    let routes: Vec<(usize, &Route)> = spec
        .routes
        .plain()
        .into_iter()
        .enumerate()
        .filter(|(at, route)| judged(at, route))
        .collect();
    let catch_all = catch_all(&routes);
    let mut groups: Groups<'_> = HashMap::new();
    for &(at, route) in &routes {
        for host in hosts(route) {
            groups.entry((host, &route.matches.path)).or_default().push((at, route));
        }
    }
    for group in groups.values_mut() {
        group.sort_by_key(|&(at, route)| rank(at, route));
        group.truncate(MAX_COMPARED);
    }
    for (at, route) in routes {
        let cover = cover(at, route, &groups, &catch_all);
        report(check, at, route, &cover);
    }
}

/// Where a route stands among those of its host and path.
fn rank(at: usize, route: &Route) -> (Reverse<usize>, usize) {
    (Reverse(route.matches.headers.len() + route.matches.query.len()), at)
}

fn hosts(route: &Route) -> impl Iterator<Item = &str> {
    let any = route.matches.hosts.is_empty().then_some("");
    any.into_iter().chain(route.matches.hosts.iter().map(String::as_str))
}

/// Routes that decide about every path of a host: no regex there is ever tried. Their methods do
/// not matter, as the answer to another one is 405.
fn catch_all<'a>(routes: &[(usize, &'a Route)]) -> HashMap<&'a str, usize> {
    let mut map = HashMap::new();
    for (at, route) in routes {
        let bare = route.matches.headers.is_empty() && route.matches.query.is_empty();
        if bare && route.matches.path == PathMatch::default() {
            for host in hosts(route) {
                map.entry(host).or_insert(*at);
            }
        }
    }
    map
}

/// Which of a route's requests go elsewhere.
#[derive(Default)]
struct Cover {
    /// The first route that takes some.
    by: Option<usize>,
    /// Host and method (empty: any) of what is taken, for the message.
    taken: Vec<String>,
    /// Whether something is left.
    left: bool,
}

fn cover(at: usize, route: &Route, groups: &Groups<'_>, catch_all: &HashMap<&str, usize>) -> Cover {
    let mut cover = Cover::default();
    for host in hosts(route) {
        let group = groups.get(&(host, &route.matches.path)).map_or(&[][..], Vec::as_slice);
        let rivals: Vec<(usize, &Route)> = group
            .iter()
            .copied()
            .filter(|&(other, rival)| rank(other, rival) < rank(at, route) && weaker(rival, route))
            .collect();
        let last = matches!(route.matches.path, PathMatch::Regex(_));
        let above = catch_all.get(host).copied().filter(|_| last);
        let any = route.matches.methods.is_empty().then_some("");
        for method in any.into_iter().chain(route.matches.methods.iter().map(String::as_str)) {
            let taker = rivals.iter().find(|(_, rival)| {
                let methods = &rival.matches.methods;
                methods.is_empty() || methods.iter().any(|one| one == method)
            });
            match taker.map(|(other, _)| *other).or(above) {
                Some(by) => {
                    cover.by.get_or_insert(by);
                    let host = if host.is_empty() { "any host" } else { host };
                    let method = if method.is_empty() { "any method" } else { method };
                    cover.taken.push(format!("{method} on {host}"));
                }
                None => cover.left = true,
            }
        }
    }
    cover
}

/// Whether each of the rival's conditions holds whenever those of `route` do.
fn weaker(rival: &Route, route: &Route) -> bool {
    implied(&rival.matches.headers, &route.matches.headers)
        && implied(&rival.matches.query, &route.matches.query)
}

fn implied(weak: &[FieldMatch], strong: &[FieldMatch]) -> bool {
    weak.iter().all(|one| {
        strong.iter().any(|other| {
            one.name == other.name && (one.value == ValueMatch::Present || one.value == other.value)
        })
    })
}

fn report(check: &mut Check<'_>, at: usize, route: &Route, cover: &Cover) {
    let Some((by, rival)) = cover.by.and_then(|by| Some((by, check.spec.routes.get(by)?))) else {
        return;
    };
    let (name, other) = (&route.name, &rival.name);
    let equal = route.matches.path == rival.matches.path
        && same(&route.matches.hosts, &rival.matches.hosts)
        && same(&route.matches.methods, &rival.matches.methods)
        && weaker(route, rival)
        && weaker(rival, route);
    let (severity, code, message) = match (cover.left, equal) {
        (false, true) => (
            Severity::Error,
            "colliding-route",
            format!("`{name}` matches the same requests as `{other}`; change one"),
        ),
        (false, false) if route.matches.path != rival.matches.path => (
            Severity::Error,
            "shadowed-route",
            format!(
                "`{name}` can never match: a prefix is tried before a regex, and `{other}` has \
                 every path; use a prefix here, or give `{other}` a narrower one"
            ),
        ),
        (false, false) => (
            Severity::Error,
            "shadowed-route",
            format!(
                "`{name}` can never match: `{other}` goes first and takes all of its requests; \
                 put `{name}` before it, or make `{other}` narrower"
            ),
        ),
        (true, _) => {
            let some: Vec<&str> = cover.taken.iter().take(3).map(String::as_str).collect();
            let more = if cover.taken.len() > some.len() { ", …" } else { "" };
            (
                Severity::Warning,
                "partly-shadowed-route",
                format!("`{other}` takes some requests of `{name}`: {}{more}", some.join(", ")),
            )
        }
    };
    let related = check.places.get(&format!("routes[{by}].name"));
    let mark = check.places.get(&format!("routes[{at}].name"));
    let field = format!("routes[{at}]");
    check.problems.add(severity, code, mark, &field, Some(name), message, Some(related));
}

fn same(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().all(|text| other.contains(text))
}
