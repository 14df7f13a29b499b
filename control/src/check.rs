//! What only the whole spec can tell: names that are there twice or point nowhere, addresses that
//! clash, routes that can never match.
//!
//! A part that already has an error is not judged again, so that one slip gives one message.

mod admin;
mod aggregate;
mod cache;
mod callers;
mod guards;
mod limits;
mod providers;
mod resilience;
mod routes;
mod tls;
mod transcode;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use crate::spec::{Balance, Mark, Places, Problems, Severity, Spec, scalars};

/// Adds what is wrong between the parts of a spec to `problems`.
pub fn check(spec: &Spec, places: &Places, problems: &mut Problems) {
    let mut check = Check { spec, places, problems };
    check.names();
    check.addresses();
    check.references();
    check.targets();
    admin::check(&mut check);
    tls::check(&mut check);
    resilience::check(&mut check);
    aggregate::check(&mut check);
    callers::check(&mut check);
    providers::check(&mut check);
    guards::check(&mut check);
    transcode::check(&mut check);
    limits::check(&mut check);
    cache::check(&mut check);
    check.counts();
    routes::shadows(&mut check);
}

struct Check<'a> {
    spec: &'a Spec,
    places: &'a Places,
    problems: &'a mut Problems,
}

impl Check<'_> {
    fn report(
        &mut self,
        severity: Severity,
        code: &'static str,
        field: &str,
        value: &str,
        message: String,
        related: Option<Mark>,
    ) {
        let mark = self.places.get(field);
        let value = Some(value).filter(|value| !value.is_empty());
        self.problems.add(severity, code, mark, field, value, message, related);
    }

    fn names(&mut self) {
        let spec = self.spec;
        let authenticators = spec.authenticators.iter().map(|one| one.name.as_str());
        self.unique("authenticators", authenticators);
        self.unique("groups", spec.groups.iter().map(|one| one.name.as_str()));
        self.unique("consumers", spec.consumers.iter().map(|one| one.name.as_str()));
        self.unique("apis", spec.apis.iter().map(|one| one.name.as_str()));
        self.unique("protos", spec.protos.iter().map(|one| one.name.as_str()));
        self.unique("listeners", spec.listeners.iter().map(|one| one.name.as_str()));
        self.unique("upstreams", spec.upstreams.iter().map(|one| one.name.as_str()));
        self.unique("routes", spec.routes.iter().map(|one| one.name.as_str()));
    }

    fn unique<'n>(&mut self, list: &str, names: impl Iterator<Item = &'n str>) {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (at, name) in names.enumerate().filter(|(_, name)| !name.is_empty()) {
            let Some(before) = first.get(name) else {
                first.insert(name, at);
                continue;
            };
            let related = self.places.get(&format!("{list}[{before}].name"));
            let message = format!(
                "the name `{name}` is taken by {list}[{before}] on line {}; choose another",
                related.line
            );
            let field = format!("{list}[{at}].name");
            self.report(Severity::Error, "duplicate-name", &field, name, message, Some(related));
        }
    }

    fn addresses(&mut self) {
        let spec = self.spec;
        let mut taken: Vec<(SocketAddr, String)> = Vec::new();
        let listeners = spec.listeners.iter().enumerate();
        let listeners = listeners.map(|(at, one)| (one.listen, format!("listeners[{at}].listen")));
        for (address, field) in listeners.chain([(spec.admin.listen, "admin.listen".into())]) {
            // Port 0 stands in for an address that could not be read.
            if address.port() == 0 {
                continue;
            }
            for (other, place) in &taken {
                if address.port() != other.port() {
                    continue;
                }
                let same = address == *other;
                let wild = |address: &SocketAddr| address.ip().is_unspecified();
                if !same && !wild(&address) && !wild(other) {
                    continue;
                }
                let related = self.places.get(place);
                let (severity, code, message) = match same {
                    true => (
                        Severity::Error,
                        "duplicate-listener",
                        format!("{address} is already the address of {place}; choose another"),
                    ),
                    false => (
                        Severity::Warning,
                        "overlapping-listener",
                        format!("{address} overlaps {other} of {place}: the narrower one wins"),
                    ),
                };
                self.report(severity, code, &field, &address.to_string(), message, Some(related));
                break;
            }
            taken.push((address, field));
        }
    }

    fn references(&mut self) {
        let spec = self.spec;
        let known: HashSet<&str> = spec.upstreams.iter().map(|one| one.name.as_str()).collect();
        let mut used: HashSet<&str> = HashSet::new();
        for (at, route) in spec.routes.iter().enumerate() {
            let short = format!("routes[{at}].upstream");
            let long = format!("routes[{at}].upstreams");
            let mut first: HashMap<&str, String> = HashMap::new();
            for (n, backend) in route.upstreams.iter().enumerate() {
                let name = backend.name.as_str();
                let field = match self.places.has(&short) {
                    true => short.clone(),
                    false => format!("{long}[{n}].name"),
                };
                if name.is_empty() {
                    if !self.problems.is_broken(&field) {
                        let message = "expected the name of an upstream".into();
                        self.report(Severity::Error, "bad-name", &field, "", message, None);
                    }
                    continue;
                }
                used.insert(name);
                if !known.contains(name) {
                    let message = dangling("upstream", name, &known);
                    self.report(Severity::Error, "unknown-upstream", &field, name, message, None);
                }
                if let Some(other) = first.insert(name, field.clone()) {
                    let related = self.places.get(&other);
                    let message = format!("`{name}` is there twice; give it one weight");
                    let code = "duplicate-value";
                    self.report(Severity::Error, code, &field, name, message, Some(related));
                }
            }
            let idle = route.upstreams.iter().all(|backend| backend.weight == 0);
            if !route.upstreams.is_empty() && idle && !self.problems.is_broken(&long) {
                let message = "all weights are 0, so no upstream would get anything".into();
                self.report(Severity::Error, "zero-weight", &long, "", message, None);
            }
        }
        for (field, name) in
            resilience::references(spec).into_iter().chain(aggregate::references(spec))
        {
            // An empty one has its own message, as has one that is no text.
            if name.is_empty() || self.problems.is_broken(&field) {
                continue;
            }
            used.insert(name);
            if !known.contains(name) {
                let message = dangling("upstream", name, &known);
                self.report(Severity::Error, "unknown-upstream", &field, name, message, None);
            }
        }
        self.unused(&used);
    }

    fn unused(&mut self, used: &HashSet<&str>) {
        // Beside an error, a missing use is hardly more than its consequence.
        if self.problems.has_errors() {
            return;
        }
        let spec = self.spec;
        for (at, upstream) in spec.upstreams.iter().enumerate() {
            let name = upstream.name.as_str();
            if !used.contains(name) {
                let field = format!("upstreams[{at}].name");
                let message = format!("no route uses the upstream `{name}`");
                self.report(Severity::Warning, "unused-upstream", &field, name, message, None);
            }
        }
        if spec.routes.is_empty() {
            let message = "there are no routes: every request will be answered 404".into();
            self.report(Severity::Warning, "no-routes", "routes", "", message, None);
        }
    }

    fn targets(&mut self) {
        for (at, upstream) in self.spec.upstreams.iter().enumerate() {
            let list = format!("upstreams[{at}].targets");
            if self.problems.is_broken(&list) {
                continue;
            }
            let mut first = HashMap::new();
            for (n, target) in upstream.targets.iter().enumerate() {
                if let Some(before) = first.insert(&target.address, n) {
                    let related = self.places.get(&format!("{list}[{before}]"));
                    let address = target.address.to_string();
                    let message = format!("{address} is there twice and gets two shares");
                    let (field, code) = (format!("{list}[{n}]"), "duplicate-target");
                    self.report(Severity::Warning, code, &field, &address, message, Some(related));
                }
            }
            let weights = upstream.targets.iter().map(|target| target.weight);
            let uneven = weights.clone().min() != weights.max();
            if uneven && upstream.balance == Balance::RoundRobin {
                let message = "round_robin ignores weights; set `balance: weighted` \
                               or leave the weights out"
                    .into();
                self.report(Severity::Warning, "ignored-weights", &list, "", message, None);
            }
        }
    }
}

/// Methods that all routes together may name besides the usual ones: the engine has a bit for each.
const MAX_METHODS: usize = 54;
/// Conditions on headers, and on query parameters, that a route may have.
const MAX_CONDITIONS: usize = 1000;

impl Check<'_> {
    /// What the engine has bounds for.
    fn counts(&mut self) {
        let mut unusual: HashSet<&str> = HashSet::new();
        for (at, route) in self.spec.routes.iter().enumerate() {
            for (n, method) in route.matches.methods.iter().enumerate() {
                let new =
                    !scalars::COMMON_METHODS.contains(&method.as_str()) && unusual.insert(method);
                if new && unusual.len() == MAX_METHODS + 1 {
                    let message = format!(
                        "all routes together may name {MAX_METHODS} unusual methods, and this is \
                         one more; leave `methods` out to take any"
                    );
                    let (field, code) =
                        (format!("routes[{at}].match.methods[{n}]"), "too-many-methods");
                    self.report(Severity::Error, code, &field, method, message, None);
                }
            }
            let kinds = [("headers", &route.matches.headers), ("query", &route.matches.query)];
            for (kind, conditions) in kinds {
                if conditions.len() > MAX_CONDITIONS {
                    let message = format!(
                        "{} conditions; at most {MAX_CONDITIONS} on one route",
                        conditions.len()
                    );
                    let (field, code) =
                        (format!("routes[{at}].match.{kind}"), "too-many-conditions");
                    self.report(Severity::Error, code, &field, "", message, None);
                }
            }
        }
    }
}

fn dangling(kind: &str, name: &str, known: &HashSet<&str>) -> String {
    let mut names: Vec<&str> = known.iter().copied().filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    // For a very large spec the search for the nearest is not worth its time.
    let near = names
        .iter()
        .take(10_000)
        .map(|word| (strsim::damerau_levenshtein(name, word), *word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min();
    match (near, names.as_slice()) {
        (Some((_, near)), _) => {
            format!("there is no {kind} `{name}`; did you mean `{near}`?")
        }
        (None, []) => format!("there is no {kind} `{name}`; the spec defines none"),
        (None, names) if names.len() <= 8 => {
            format!("there is no {kind} `{name}`; expected one of: {}", names.join(", "))
        }
        (None, names) => {
            format!("there is no {kind} `{name}` among the {} defined", names.len())
        }
    }
}
