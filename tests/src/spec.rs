//! Specs as text, with `{NAME}` left to fill in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use crate::scratch::free_port;

/// One listener, one upstream, one route for everything; each with more settings when a test needs
/// them. The strings are pieces of YAML flow mappings such as `max_body_bytes: 10`.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    targets: Vec<String>,
    listener: String,
    upstream: String,
    route: String,
    matching: String,
    more_routes: String,
    more_listeners: String,
    more_upstreams: String,
    more: String,
}

impl Spec {
    /// Everything to one origin.
    pub fn to(origin: SocketAddr) -> Spec {
        Spec::default().target(origin, 1)
    }

    /// One more target of the upstream `origin`.
    pub fn target(mut self, address: SocketAddr, weight: u32) -> Spec {
        self.targets.push(format!("{{ address: \"{address}\", weight: {weight} }}"));
        self
    }

    pub fn listener(mut self, setting: &str) -> Spec {
        add(&mut self.listener, setting);
        self
    }

    pub fn upstream(mut self, setting: &str) -> Spec {
        add(&mut self.upstream, setting);
        self
    }

    pub fn route(mut self, setting: &str) -> Spec {
        add(&mut self.route, setting);
        self
    }

    /// What the route `all` matches, besides the path prefix `/`.
    pub fn matching(mut self, condition: &str) -> Spec {
        add(&mut self.matching, condition);
        self
    }

    /// A whole further route, as one flow mapping.
    pub fn also_route(mut self, route: &str) -> Spec {
        self.more_routes.push_str(&format!("  - {route}\n"));
        self
    }

    /// A whole further listener on the port called `{name}`, which begins with PORT.
    pub fn also_listener(mut self, port: &str, settings: &str) -> Spec {
        let name = port.to_ascii_lowercase();
        let comma = if settings.is_empty() { "" } else { ", " };
        self.more_listeners.push_str(&format!(
            "  - {{ name: {name}, listen: \"127.0.0.1:{{{port}}}\"{comma}{settings} }}\n"
        ));
        self
    }

    /// A whole further upstream with one target.
    pub fn also_upstream(mut self, name: &str, address: SocketAddr, settings: &str) -> Spec {
        let comma = if settings.is_empty() { "" } else { ", " };
        self.more_upstreams.push_str(&format!(
            "  - {{ name: {name}, targets: [ {{ address: \"{address}\" }} ]{comma}{settings} }}\n"
        ));
        self
    }

    /// A whole further entry at the top, such as `node: { … }`.
    pub fn also(mut self, entry: &str) -> Spec {
        self.more.push_str(&format!("{entry}\n"));
        self
    }

    /// The YAML, with `{PORT}`, `{ADMIN}` and `{DIR}` left open.
    pub fn text(&self) -> String {
        let Spec { listener, upstream, route, matching, .. } = self;
        let Spec { more_routes, more_upstreams, more_listeners, more, .. } = self;
        let targets = self.targets.join(", ");
        format!(
            "version: 1\n\
             admin: {{ listen: \"127.0.0.1:{{ADMIN}}\" }}\n\
             access_log: {{ path: \"{{DIR}}/access.jsonl\" }}\n\
             {more}\
             listeners:\n  - {{ name: web, listen: \"127.0.0.1:{{PORT}}\"{listener} }}\n\
             {more_listeners}\
             upstreams:\n  - {{ name: origin, targets: [ {targets} ]{upstream} }}\n\
             {more_upstreams}\
             routes:\n{more_routes}  \
             - {{ name: all, match: {{ path: {{ prefix: / }}{matching} }}, upstream: origin{route} }}\n"
        )
    }
}

fn add(to: &mut String, setting: &str) {
    to.push_str(", ");
    to.push_str(setting);
}

/// What the names in a template stand for; the same for every spec of one gateway.
#[derive(Debug, Default)]
pub struct Names {
    values: BTreeMap<String, String>,
}

impl Names {
    pub fn new(dir: &Path) -> Names {
        let mut names = Names::default();
        names.values.insert("DIR".into(), dir.display().to_string());
        names
    }

    /// Fills in a template. `{ADMIN}` and names that begin with `PORT` get free ports the first
    /// time they occur.
    pub fn fill(&mut self, template: &str) -> String {
        let mut text = String::new();
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            let after = &rest[open + 1..];
            let length = after.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit());
            let name = &after[..length.unwrap_or(after.len())];
            text.push_str(&rest[..open]);
            if name.is_empty() || !after[name.len()..].starts_with('}') {
                text.push('{');
                rest = after;
                continue;
            }
            text.push_str(&self.value(name));
            rest = &after[name.len() + 1..];
        }
        text.push_str(rest);
        text
    }

    /// Makes a name stand for this port.
    pub fn set(&mut self, name: &str, port: u16) {
        self.values.insert(name.to_owned(), port.to_string());
    }

    /// The port that a name stands for.
    pub fn port(&mut self, name: &str) -> u16 {
        self.value(name).parse().unwrap_or_else(|e| panic!("{{{name}}} is no port: {e}"))
    }

    fn value(&mut self, name: &str) -> String {
        if let Some(value) = self.values.get(name) {
            return value.clone();
        }
        assert!(name == "ADMIN" || name.starts_with("PORT"), "what is {{{name}}} in this spec?");
        let value = free_port().to_string();
        self.values.insert(name.to_owned(), value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_stay() {
        let mut names = Names::new(Path::new("/d"));
        let first = names.fill("{ a: {PORT}, b: {PORT2}, c: {DIR}/x, d: { e: 1 } }");
        let (port, other) = (names.port("PORT"), names.port("PORT2"));
        assert_ne!(port, other);
        assert_eq!(first, format!("{{ a: {port}, b: {other}, c: /d/x, d: {{ e: 1 }} }}"));
        assert_eq!(names.fill("{PORT}"), port.to_string());
    }
}
