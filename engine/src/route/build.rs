//! From the snapshot's routes to the router's tables.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use contract::snapshot::{FieldMatch, PathMatch, Route};
use regex::bytes::RegexSetBuilder;

use super::{
    Candidate, EXACT_HOST, NONE, Node, Patterns, Realm, Router, Span, WILD_HOST,
    condition::{self, Condition, MAX_REGEX_BYTES},
    host, method,
    method::Methods,
    path, rewrite,
    segments::Segments,
    table::Table,
};
use crate::plan::PlanError;

/// Largest compiled size of all path patterns of one host together, in bytes.
const MAX_SET_BYTES: usize = 256 * MAX_REGEX_BYTES;
/// Most places of routes in trees (each host of a route has its own), so that a small snapshot
/// cannot become a huge plan.
const MAX_PLACES: usize = 4 << 20;
/// Most conditions of each kind on one route.
const MAX_CONDITIONS: usize = 1000;

impl Router {
    /// Builds the router over `routes`; its answers are indexes into them.
    ///
    /// # Errors
    /// Names the route and the field that cannot be used.
    pub fn build(routes: &[Route]) -> Result<Router, PlanError> {
        let mut builder = Builder::new();
        for (index, route) in routes.iter().enumerate() {
            let index = u32::try_from(index).ok().filter(|&index| index != NONE);
            let index = index.ok_or(()).map_err(|()| fail(route, "name", "is one too many"))?;
            builder.add(index, route)?;
        }
        builder.finish(routes)
    }
}

fn fail(route: &Route, field: impl Into<String>, problem: impl Into<String>) -> PlanError {
    PlanError {
        entity: "route",
        name: route.name.clone(),
        field: field.into(),
        problem: problem.into(),
    }
}

struct Builder {
    hosts: Table,
    longest_suffix: usize,
    any_host: Option<u32>,
    realms: Vec<Growing>,
    edges: Table,
    nodes: Vec<Sprout>,
    places: usize,
    conditions: Vec<Condition>,
    segments: Vec<Segments>,
    methods: Methods,
}

/// A [`Realm`] to be.
struct Growing {
    root: u32,
    patterns: Vec<(Candidate, String)>,
}

/// A [`Node`] to be.
struct Sprout {
    parent: u32,
    exact: Vec<Candidate>,
    prefix: Vec<Candidate>,
}

/// A route's path as the tree takes it.
enum Place {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Pattern(String),
}

impl Builder {
    fn new() -> Builder {
        Builder {
            hosts: Table::new(),
            longest_suffix: 0,
            any_host: None,
            realms: Vec::new(),
            edges: Table::new(),
            nodes: Vec::new(),
            places: 0,
            conditions: Vec::new(),
            segments: Vec::new(),
            methods: Methods::default(),
        }
    }

    fn add(&mut self, index: u32, route: &Route) -> Result<(), PlanError> {
        let place = match &route.path {
            PathMatch::Exact(text) => path::normalise_pattern(text).map(Place::Exact),
            PathMatch::Prefix(text) => rewrite::prefix(text).map(Place::Prefix),
            PathMatch::Regex(text) => condition::regex(text).map(|_| Place::Pattern(text.clone())),
            PathMatch::Template(text) => Segments::parse(text).map(|segments| {
                let start = segments.start().into();
                self.segments.push(segments);
                Place::Prefix(start)
            }),
        };
        let place = place.map_err(|problem| fail(route, "path", problem))?;
        let mut candidate = self.candidate(index, route)?;
        if let PathMatch::Template(_) = &route.path {
            candidate.segments = self.segments.len() as u32 - 1;
        }
        let full = || fail(route, "hosts", "do not fit: all hosts and paths together are too many");
        if route.hosts.is_empty() {
            let realm = match self.any_host {
                Some(realm) => realm,
                None => self.new_realm(),
            };
            self.any_host = Some(realm);
            self.put(realm, candidate, &place).ok_or_else(full)?;
        }
        for (i, text) in route.hosts.iter().enumerate() {
            let pattern = host::pattern(text)
                .map_err(|problem| fail(route, format!("hosts[{i}]"), problem))?;
            let (context, name) = match pattern {
                host::Pattern::Exact(name) => (EXACT_HOST, name),
                host::Pattern::Suffix(name) => {
                    self.longest_suffix = self.longest_suffix.max(name.len());
                    (WILD_HOST, name)
                }
            };
            let next = self.realms.len() as u32;
            let realm = self.hosts.get_or_insert(context, &name, next).ok_or_else(full)?;
            if realm == next {
                self.new_realm();
            }
            self.put(realm, candidate, &place).ok_or_else(full)?;
        }
        Ok(())
    }

    fn candidate(&mut self, route: u32, from: &Route) -> Result<Candidate, PlanError> {
        let mut methods = if from.methods.is_empty() { method::ANY } else { 0 };
        for (i, name) in from.methods.iter().enumerate() {
            methods |= self.methods.add(name.as_bytes()).ok_or_else(|| {
                let problem = format!(
                    "{name:?} is one method too many: all routes together may name {} unusual ones",
                    method::MAX_OTHERS
                );
                fail(from, format!("methods[{i}]"), problem)
            })?;
        }
        let conditions = self.conditions.len() as u32;
        let headers = self.add_conditions(from, "headers", &from.headers)?;
        let parameters = self.add_conditions(from, "query", &from.query)?;
        Ok(Candidate { methods, route, conditions, headers, parameters, segments: NONE })
    }

    fn add_conditions(
        &mut self,
        route: &Route,
        kind: &str,
        fields: &[FieldMatch],
    ) -> Result<u16, PlanError> {
        if fields.len() > MAX_CONDITIONS {
            return Err(fail(route, kind, format!("has more than {MAX_CONDITIONS} conditions")));
        }
        for (i, field) in fields.iter().enumerate() {
            let condition = Condition::build(field)
                .map_err(|problem| fail(route, format!("{kind}[{i}].value"), problem))?;
            self.conditions.push(condition);
        }
        Ok(fields.len() as u16)
    }

    fn new_realm(&mut self) -> u32 {
        let root = self.new_node(NONE);
        self.realms.push(Growing { root, patterns: Vec::new() });
        self.realms.len() as u32 - 1
    }

    fn new_node(&mut self, parent: u32) -> u32 {
        self.nodes.push(Sprout { parent, exact: Vec::new(), prefix: Vec::new() });
        self.nodes.len() as u32 - 1
    }

    /// Puts a route into the tree of one host; `None`: the plan is full.
    fn put(&mut self, realm: u32, candidate: Candidate, place: &Place) -> Option<()> {
        self.places += 1;
        if self.places > MAX_PLACES {
            return None;
        }
        let realm = self.realms.get_mut(realm as usize)?;
        let root = realm.root;
        match place {
            Place::Exact(path) => {
                let node = self.grow(root, path)?;
                self.nodes.get_mut(node as usize)?.exact.push(candidate);
            }
            Place::Prefix(path) => {
                let node = self.grow(root, path)?;
                self.nodes.get_mut(node as usize)?.prefix.push(candidate);
            }
            Place::Pattern(text) => realm.patterns.push((candidate, text.clone())),
        }
        Some(())
    }

    /// The node of a path, which is empty or begins with `/`.
    fn grow(&mut self, root: u32, path: &[u8]) -> Option<u32> {
        let mut at = root;
        for segment in path.split(|&byte| byte == b'/').skip(1) {
            let next = self.nodes.len() as u32;
            let below = self.edges.get_or_insert(at, segment, next)?;
            if below == next {
                self.new_node(at);
            }
            at = below;
        }
        Some(at)
    }

    fn finish(self, routes: &[Route]) -> Result<Router, PlanError> {
        let all = &self.segments;
        let mut nodes: Vec<Node> = Vec::with_capacity(self.nodes.len());
        let mut candidates = Vec::new();
        let mut span = |mut tier: Vec<Candidate>| {
            tier.sort_by_key(|candidate| rank(candidate, all));
            let start = candidates.len() as u32;
            candidates.extend_from_slice(&tier);
            Span { start, len: tier.len() as u32 }
        };
        // A parent comes before its children.
        for sprout in self.nodes {
            let above = match nodes.get(sprout.parent as usize) {
                Some(parent) if parent.prefix.len > 0 => sprout.parent,
                Some(parent) => parent.above,
                None => NONE,
            };
            let (exact, prefix) = (span(sprout.exact), span(sprout.prefix));
            nodes.push(Node { exact, prefix, above });
        }
        // Many hosts of the same routes need one set.
        let mut sets: HashMap<Vec<u32>, Arc<Patterns>> = HashMap::new();
        let mut realms = Vec::with_capacity(self.realms.len());
        for Growing { root, patterns } in self.realms {
            let key: Vec<u32> = patterns.iter().map(|(candidate, _)| candidate.route).collect();
            let patterns = match sets.get(&key) {
                Some(set) => Some(set.clone()),
                None => set(patterns, routes, all)?.map(Arc::new),
            };
            if let Some(set) = &patterns {
                sets.insert(key, set.clone());
            }
            realms.push(Realm { root, patterns });
        }
        Ok(Router {
            hosts: self.hosts,
            longest_suffix: self.longest_suffix,
            any_host: self.any_host,
            realms,
            edges: self.edges,
            nodes,
            candidates,
            conditions: self.conditions,
            segments: self.segments,
            methods: self.methods,
        })
    }
}

/// Order inside a tier: more conditions first, named segments being one, then more literal segments, then
/// as in the spec.
fn rank(candidate: &Candidate, segments: &[Segments]) -> (Reverse<u32>, Reverse<u16>, u32) {
    let conditions = u32::from(candidate.headers) + u32::from(candidate.parameters);
    let segments = segments.get(candidate.segments as usize);
    let nearness = segments.map_or(0, Segments::nearness);
    (Reverse(conditions + u32::from(segments.is_some())), Reverse(nearness), candidate.route)
}

/// Compiles the path patterns of one host, each of which is known to compile by itself.
fn set(
    mut patterns: Vec<(Candidate, String)>,
    routes: &[Route],
    segments: &[Segments],
) -> Result<Option<Patterns>, PlanError> {
    let Some((last, _)) = patterns.last() else { return Ok(None) };
    let last = last.route as usize;
    patterns.sort_by_key(|(candidate, _)| rank(candidate, segments));
    let set = RegexSetBuilder::new(patterns.iter().map(|(_, text)| text))
        .size_limit(MAX_SET_BYTES)
        .build()
        .map_err(|error| {
            let problem = format!("the patterns of its host are too large together: {error}");
            fail(&routes[last], "path", problem)
        })?;
    let candidates = patterns.into_iter().map(|(candidate, _)| candidate).collect();
    Ok(Some(Patterns { set, candidates }))
}
