//! Specs out of the configuration of others: OpenAPI, Kong, nginx.
//!
//! Three promises. What is written passes the checker: whatever it refuses is taken out again, and said.
//! Nothing is lost silently: each thing without a counterpart is a [`Warning`] with its line. Nothing gets
//! more open: a route whose protection could not be taken is closed until a person has looked.

pub mod kong;
mod kong_guards;
pub mod nginx;
mod nginx_location;
mod nginx_syntax;
pub mod openapi;
mod openapi_security;
mod source;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::spec::{self, Severity};
use crate::yaml::{Map, Yaml, harmless};

/// Warnings repeated in the comments at the top of what is written.
const MAX_COMMENTS: usize = 200;
/// Rounds of taking out what the checker refuses. A round takes all that it names, at most 200.
const MAX_ROUNDS: usize = 1_000;

/// Something that was not taken, or not as it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    pub place: Place,
    pub message: String,
}

/// A line of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: String,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.place.file, self.place.line, self.message)
    }
}

/// What an import gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The spec, in YAML.
    pub text: String,
    /// In the order of the source.
    pub warnings: Vec<Warning>,
}

/// The lists of a spec, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Authenticators,
    Groups,
    Consumers,
    Limits,
    Apis,
    Protos,
    Listeners,
    Upstreams,
    Routes,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Authenticators,
        Kind::Groups,
        Kind::Consumers,
        Kind::Limits,
        Kind::Apis,
        Kind::Protos,
        Kind::Listeners,
        Kind::Upstreams,
        Kind::Routes,
    ];

    fn word(self) -> &'static str {
        match self {
            Kind::Authenticators => "authenticators",
            Kind::Groups => "groups",
            Kind::Consumers => "consumers",
            Kind::Limits => "limits",
            Kind::Apis => "apis",
            Kind::Protos => "protos",
            Kind::Listeners => "listeners",
            Kind::Upstreams => "upstreams",
            Kind::Routes => "routes",
        }
    }
}

/// A spec in the making.
struct Draft {
    /// What the head of the file says.
    origin: String,
    entities: [Vec<Entity>; 9],
    warnings: Vec<Warning>,
    /// Names in use, by kind.
    names: HashSet<(&'static str, String)>,
}

struct Entity {
    place: Place,
    fields: Map,
}

impl Draft {
    fn new(origin: String) -> Draft {
        let (warnings, names) = (Vec::new(), HashSet::new());
        Draft { origin, entities: Default::default(), warnings, names }
    }

    fn warn(&mut self, place: &Place, message: impl Into<String>) {
        let warning = Warning { place: place.clone(), message: harmless(&message.into()) };
        // A block that several things inherit from says it once.
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// A name for something of `kind` that is like `wanted`, and nothing else's.
    fn name(&mut self, kind: Kind, wanted: &str) -> String {
        let base = slug(wanted, kind.word().trim_end_matches('s'));
        let mut name = base.clone();
        let mut n = 1;
        while !self.names.insert((kind.word(), name.clone())) {
            n += 1;
            // Room for the number, within the 100 characters of a name. The name is ASCII.
            name = format!("{}-{n}", base.get(..base.len().min(90)).unwrap_or(&base));
        }
        name
    }

    fn add(&mut self, kind: Kind, place: &Place, fields: Map) {
        self.entities[kind as usize].push(Entity { place: place.clone(), fields });
    }

    fn list(&self, kind: Kind) -> &[Entity] {
        &self.entities[kind as usize]
    }

    /// The file. What the checker refuses is taken out, until it refuses nothing.
    ///
    /// # Errors
    /// Nothing is left, or what is wrong belongs to nothing that could be taken out.
    fn finish(mut self) -> Result<Imported, String> {
        for _ in 0..MAX_ROUNDS {
            if self.list(Kind::Listeners).is_empty() {
                let listener = Map::new().with("name", "http").with("listen", ":8080");
                self.add(Kind::Listeners, &Place::default(), listener);
            }
            let text = self.text();
            let problems = spec::load("import", &text).problems;
            let errors = problems.iter().filter(|one| one.severity == Severity::Error);
            let mut refused = Vec::new();
            for error in errors {
                let (kind, at, field) = entity(&error.field).ok_or_else(|| {
                    format!("the import is not a spec: {error}; this is a defect")
                })?;
                refused.push((kind, at, Part::of(kind, field), error.message.clone()));
            }
            if refused.is_empty() {
                self.warnings.sort();
                return Ok(Imported { text: self.text(), warnings: self.warnings });
            }
            self.take_out(refused);
        }
        Err("the import comes to no end; this is a defect".into())
    }

    /// Takes out what was refused, from the end, so that the places of the rest stay.
    fn take_out(&mut self, mut refused: Vec<(Kind, usize, Part, String)>) {
        refused.sort_by_key(|(kind, at, part, _)| Reverse((*kind as usize, *at, part.clone())));
        refused.dedup_by_key(|(kind, at, part, _)| (*kind as usize, *at, part.clone()));
        let mut gone = None;
        for (kind, at, part, message) in refused {
            if gone == Some((kind as usize, at)) {
                continue;
            }
            let Some(entity) = self.entities[kind as usize].get_mut(at) else { continue };
            let (place, fields) = (entity.place.clone(), &mut entity.fields);
            let name = match fields.get("name") {
                Some(Yaml::Text(name)) => name.clone(),
                _ => String::new(),
            };
            let what = kind.word().trim_end_matches('s');
            let text = match part {
                Part::Window(window) if fields.len_of("windows") > 1 => {
                    fields.remove_from("windows", window);
                    format!("a window of the limit `{name}` is left out: {message}")
                }
                Part::Guard(field) => {
                    fields.remove(field);
                    fields.remove("networks");
                    close(fields, &format!("its {field} could not be taken"));
                    format!("route `{name}` is closed, as its {field} cannot be taken: {message}")
                }
                Part::Extra(field) => {
                    fields.remove(field);
                    format!("{field} of the route `{name}` is left out: {message}")
                }
                Part::Window(_) | Part::Whole => {
                    self.entities[kind as usize].remove(at);
                    gone = Some((kind as usize, at));
                    format!("{what} `{name}` is left out: {message}")
                }
            };
            self.warn(&place, text);
        }
    }

    fn text(&self) -> String {
        let mut out = format!("# {}\n", harmless(&self.origin));
        if !self.warnings.is_empty() {
            out.push_str("#\n# Not taken, or not as it was:\n");
        }
        let mut warnings: Vec<&Warning> = self.warnings.iter().collect();
        warnings.sort();
        for warning in warnings.iter().take(MAX_COMMENTS) {
            out.push_str(&format!("#   {}\n", harmless(&warning.to_string())));
        }
        if let more @ 1.. = warnings.len().saturating_sub(MAX_COMMENTS) {
            out.push_str(&format!("#   and {more} more\n"));
        }
        let mut spec = Map::new();
        spec.set("version", 1_u64);
        for kind in Kind::ALL {
            let list: Vec<Map> = self.list(kind).iter().map(|one| one.fields.clone()).collect();
            if !list.is_empty() {
                spec.set(kind.word(), list);
            }
        }
        out.push_str(&Yaml::from(spec).document());
        out
    }
}

/// What a field belongs to, and where in it: `routes[3].match.path` is `match.path` of route 3.
fn entity(field: &str) -> Option<(Kind, usize, &str)> {
    let (word, rest) = field.split_once('[')?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word)?;
    let (at, rest) = rest.split_once(']')?;
    Some((kind, at.parse().ok()?, rest.trim_start_matches('.')))
}

/// What of an entity has to go for a field that was refused. The whole comes last: it is taken out first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Of a limit.
    Window(usize),
    /// What a route can do without.
    Extra(&'static str),
    /// What keeps somebody out of a route.
    Guard(&'static str),
    Whole,
}

impl Part {
    fn of(kind: Kind, field: &str) -> Part {
        const GUARDS: [&str; 2] = ["auth", "networks"];
        const EXTRAS: [&str; 7] =
            ["limits", "cors", "timeouts", "max_body_bytes", "upgrades", "retry", "validate"];
        let end = field.find(['.', '[']).unwrap_or(field.len());
        let (first, rest) = field.split_at(end);
        let known = |names: &[&'static str]| names.iter().copied().find(|name| *name == first);
        match kind {
            Kind::Limits if first == "windows" => {
                let number = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                number.and_then(|(at, _)| at.parse().ok()).map_or(Part::Whole, Part::Window)
            }
            Kind::Routes => match (known(&GUARDS), known(&EXTRAS)) {
                (Some(guard), _) => Part::Guard(guard),
                (_, Some(extra)) => Part::Extra(extra),
                _ => Part::Whole,
            },
            _ => Part::Whole,
        }
    }
}

/// A name as the spec has it: letters, digits and `._-`, 100 at most, beginning with one of the first.
fn slug(wanted: &str, otherwise: &str) -> String {
    let mut name = String::new();
    for c in wanted.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') => name.push(c),
            _ if name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    let name = name.trim_matches(['-', '.', '_']);
    let name = name.get(..name.len().min(100)).unwrap_or(name);
    if name.is_empty() { otherwise.into() } else { name.into() }
}

/// Closes a route whose protection could not be taken.
fn close(route: &mut Map, why: &str) {
    route.comment(format!("Closed: {why}. Say who may call, then take this away."));
    route.set("networks", Map::new().with("deny", vec!["0.0.0.0/0", "::/0"]));
}

/// A network without bits behind its prefix, as the spec has it; `None`: it is none.
fn network(text: &str) -> Option<String> {
    let (address, bits) = match text.trim().split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
        None => (text.trim(), None),
    };
    match address.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(v4) => {
            // Of ::ffff:10.0.0.0/104 the last 8 bits are the prefix.
            let mapped = address.contains(':');
            let bits = bits.map(|bits| if mapped { bits.saturating_sub(96) } else { bits });
            let bits = bits.unwrap_or(32);
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0);
            Some(format!("{}/{bits}", Ipv4Addr::from(u32::from(v4) & mask)))
        }
        IpAddr::V6(v6) => {
            let bits = bits.unwrap_or(128);
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(bits)?).unwrap_or(0);
            Some(format!("{}/{bits}", Ipv6Addr::from(u128::from(v6) & mask)))
        }
    }
}

/// Where an HTTP service is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    tls: bool,
    /// A name, or an IP address; IPv6 in brackets.
    host: String,
    port: u16,
    /// From the `/` on; empty without one.
    path: String,
}

impl Address {
    /// An absolute URL of http or https.
    fn parse(url: &str) -> Option<Address> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit('@').next().unwrap_or(authority);
        let colon = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (host, port) = match colon {
            Some(at) => (&authority[..at], authority[at + 1..].parse().ok()?),
            None => (authority, if tls { 443 } else { 80 }),
        };
        let bare = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '{');
        bare.then(|| Address { tls, host: host.into(), port, path: path.into() })
    }

    fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Its path as a prefix: nothing for `/`.
    fn base(&self) -> &str {
        self.path.trim_end_matches('/')
    }
}

#[cfg(test)]
mod tests;
