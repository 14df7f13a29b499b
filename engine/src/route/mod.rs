//! The router: which route a request belongs to.
//!
//! An exact host goes before the longest wildcard, and that before routes without hosts. Within a
//! host the path decides: exact before the longest prefix before regular expressions. A path with named
//! segments is a prefix, of its literal beginning, with one condition more. Each step of
//! that order is a *tier*. The first tier with a route whose header and query conditions hold
//! decides: there the method picks the route, and if none has the method the answer is 405. Within
//! a tier (all regular expressions of a host are one) more conditions go first, then the order of
//! the spec.

mod build;
mod condition;
pub mod explain;
mod host;
mod method;
#[cfg(test)]
mod model;
pub mod path;
mod rewrite;
mod segments;
mod table;

use std::sync::Arc;

use regex::bytes::RegexSet;

pub(crate) use self::condition::regex as pattern;
pub(crate) use self::rewrite::prefix;
pub use self::rewrite::{Rewrite, rewrite_path};
pub use self::segments::Segments;
use self::{condition::Condition, method::Methods, table::Table};

/// Index into [`crate::plan::Plan::routes`]; what access records carry.
pub type RouteIndex = u32;

/// What the router needs to know of a request.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// The authority as the request has it: any case, may have a port. Empty: none was given.
    pub host: &'a [u8],
    /// As [`path::normalise`] returned it.
    pub path: &'a [u8],
    /// What follows the `?`, as it came.
    pub query: Option<&'a [u8]>,
    pub method: &'a [u8],
    pub headers: &'a dyn HeaderLookup,
}

/// The fields of a request, as far as the router asks for them.
pub trait HeaderLookup {
    /// Whether any field called `name` (which is in lower case; field names have no case) has a
    /// value for which `test` is true.
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// Pairs of name and value are the plainest request head.
impl<N: AsRef<[u8]>, V: AsRef<[u8]>> HeaderLookup for Vec<(N, V)> {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.iter()
            .any(|(field, value)| field.as_ref().eq_ignore_ascii_case(name) && test(value.as_ref()))
    }
}

/// Why no route was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// 404.
    NotFound,
    /// 405; `Allow` is written by [`Router::write_allow`] (RFC 9110 §15.5.6).
    MethodNotAllowed(AllowList),
}

/// The methods that the resource has, in the terms of the router that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowList(u64);

/// Finds routes. Built from the snapshot's routes, immutable, shared by all shards.
#[derive(Debug)]
pub struct Router {
    /// Lower-case names in the contexts [`EXACT_HOST`] and [`WILD_HOST`], to `realms`.
    hosts: Table,
    /// Longest suffix of a wildcard in bytes; 0: there is none.
    longest_suffix: usize,
    /// Routes without hosts.
    any_host: Option<u32>,
    realms: Vec<Realm>,
    /// (node, segment) → node, of all trees.
    edges: Table,
    nodes: Vec<Node>,
    candidates: Vec<Candidate>,
    /// Of all routes, end to end; first a route's headers, then its query parameters.
    conditions: Vec<Condition>,
    /// Paths with named segments.
    segments: Vec<Segments>,
    methods: Methods,
}

const EXACT_HOST: u32 = 0;
const WILD_HOST: u32 = 1;

/// The routes of one host.
#[derive(Debug)]
struct Realm {
    /// Top of its tree.
    root: u32,
    /// The last tier: routes by regular expression, in the order of the set's patterns. Hosts with
    /// the same routes share it.
    patterns: Option<Arc<Patterns>>,
}

#[derive(Debug)]
struct Patterns {
    set: RegexSet,
    candidates: Vec<Candidate>,
}

/// A place in a tree: the segments from the root to here.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Routes for exactly this path.
    exact: Span,
    /// Routes for this path and all below.
    prefix: Span,
    /// The nearest node above with routes in `prefix`, or [`NONE`].
    above: u32,
}

const NONE: u32 = u32::MAX;

/// A run of [`Router::candidates`], the best first.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    len: u32,
}

/// A route in one tier.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    methods: u64,
    route: RouteIndex,
    /// Its conditions begin here in [`Router::conditions`].
    conditions: u32,
    headers: u16,
    parameters: u16,
    /// In [`Router::segments`], or [`NONE`].
    segments: u32,
}

impl Router {
    /// Finds the route of a request.
    ///
    /// # Errors
    /// [`Miss`]: answer 404 or 405.
    pub fn find(&self, query: &Query<'_>) -> Result<RouteIndex, Miss> {
        let method = self.methods.bit(query.method);
        let mut buffer = [0; host::MAX_NAME];
        let name = host::name(query.host, &mut buffer);
        if let Some(realm) = self.hosts.get(EXACT_HOST, name)
            && let Some(outcome) = self.search(realm, query, method)
        {
            return outcome;
        }
        if self.longest_suffix > 0 {
            // Labels must be in front of the suffix, so it begins after a dot that is not first.
            let dots = memchr::memchr_iter(b'.', name).filter(|&at| at > 0);
            for suffix in dots.filter_map(|at| name.get(at + 1..)) {
                if suffix.len() <= self.longest_suffix
                    && let Some(realm) = self.hosts.get(WILD_HOST, suffix)
                    && let Some(outcome) = self.search(realm, query, method)
                {
                    return outcome;
                }
            }
        }
        let outcome = self.any_host.and_then(|realm| self.search(realm, query, method));
        outcome.unwrap_or(Err(Miss::NotFound))
    }

    /// The methods of a 405's `Allow` field.
    pub fn allowed(&self, allow: AllowList) -> impl Iterator<Item = &[u8]> {
        self.methods.names(allow.0)
    }

    /// Appends the value of a 405's `Allow` field (RFC 9110 §10.2.1).
    pub fn write_allow(&self, allow: AllowList, out: &mut Vec<u8>) {
        for (i, name) in self.allowed(allow).enumerate() {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(name);
        }
    }

    /// Looks through the tiers of one host.
    #[inline]
    fn search(&self, realm: u32, query: &Query<'_>, method: u64) -> Option<Outcome> {
        let realm = self.realms.get(realm as usize)?;
        let mut at = realm.root;
        let mut rest = query.path.get(1..);
        while let Some(path) = rest {
            let (segment, after) = match memchr::memchr(b'/', path) {
                Some(end) => (path.get(..end).unwrap_or_default(), path.get(end + 1..)),
                None => (path, None),
            };
            match self.edges.get(at, segment) {
                Some(below) => at = below,
                None => break,
            }
            rest = after;
        }
        let mut node = self.nodes.get(at as usize)?;
        if rest.is_none()
            && let Some(outcome) = self.choose(self.span(node.exact), query, method)
        {
            return Some(outcome);
        }
        loop {
            if let Some(outcome) = self.choose(self.span(node.prefix), query, method) {
                return Some(outcome);
            }
            match self.nodes.get(node.above as usize) {
                Some(above) => node = above,
                None => break,
            }
        }
        let patterns = realm.patterns.as_deref()?;
        let matches = patterns.set.matches(query.path);
        let matching = matches.iter().filter_map(|at| patterns.candidates.get(at));
        self.choose(matching, query, method)
    }

    fn span(&self, span: Span) -> std::slice::Iter<'_, Candidate> {
        let start = span.start as usize;
        self.candidates.get(start..start + span.len as usize).unwrap_or_default().iter()
    }

    /// The outcome of one tier; `None`: the conditions of no route in it hold.
    #[inline]
    fn choose<'a>(
        &self,
        tier: impl Iterator<Item = &'a Candidate>,
        query: &Query<'_>,
        method: u64,
    ) -> Option<Outcome> {
        let mut allow = 0;
        for candidate in tier {
            if candidate.headers | candidate.parameters != 0 && !self.holds(candidate, query) {
                continue;
            }
            if candidate.segments != NONE
                && let Some(segments) = self.segments.get(candidate.segments as usize)
                && !segments.matches(query.path)
            {
                continue;
            }
            if candidate.methods & method != 0 {
                return Some(Ok(candidate.route));
            }
            allow |= candidate.methods;
        }
        (allow != 0).then_some(Err(Miss::MethodNotAllowed(AllowList(allow))))
    }

    fn holds(&self, candidate: &Candidate, query: &Query<'_>) -> bool {
        let start = candidate.conditions as usize;
        let middle = start + usize::from(candidate.headers);
        let headers = self.conditions.get(start..middle).unwrap_or_default();
        let end = middle + usize::from(candidate.parameters);
        let parameters = self.conditions.get(middle..end).unwrap_or_default();
        headers.iter().all(|condition| condition.holds_for_headers(query.headers))
            && parameters
                .iter()
                .all(|condition| query.query.is_some_and(|q| condition.holds_for_query(q)))
    }
}

type Outcome = Result<RouteIndex, Miss>;
