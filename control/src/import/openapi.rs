//! OpenAPI 3.0 and 3.1: one route for each operation.
//!
//! The document is walked as it is, not read into types: crates with types know 3.0 or 3.1, not both, and
//! none keeps lines. What it says of parameters and bodies stays in it: the spec names the document as an
//! API, and each route holds its requests against that.

use std::collections::BTreeMap;

use super::openapi_security::{self as security, Schemes};
use super::source::{self, View};
use super::{Address, Draft, Imported, Kind, close};
use crate::{
    material::{self, openapi::encoded},
    yaml::{Map, Yaml},
};

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// References that lead on to others, at most.
const MAX_HOPS: usize = 16;

/// Where the spec finds a document for the validation of requests.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// To read it now.
    pub path: &'a str,
    /// As the spec is to name it.
    pub named: &'a str,
}

/// Reads the document `text` of `file`. Requests go to `upstream` (a URL), or to the first server.
/// With `document` routes validate requests.
///
/// # Errors
/// It is no OpenAPI document, or it is not known where requests go.
pub fn import(
    file: &str,
    text: &str,
    upstream: Option<&str>,
    document: Option<Document<'_>>,
) -> Result<Imported, String> {
    let root = source::parse(file, text)?;
    let root = View::new(file, &root);
    match (root.get("openapi").text(), root.get("swagger").is_some()) {
        (Some(version), _) if version.starts_with("3.0") || version.starts_with("3.1") => {}
        (Some(version), _) => {
            return Err(format!("{file}: OpenAPI {version} is not known here; 3.0 and 3.1 are"));
        }
        (None, true) => {
            return Err(format!("{file}: this is Swagger 2.0; make it OpenAPI 3 first"));
        }
        (None, false) => return Err(format!("{file}: `openapi: 3.x` is missing")),
    }
    let title = root.get("info").get("title").text().unwrap_or_default();
    let mut draft = Draft::new(format!("Made of {file} ({title}) by `sluice import openapi`."));
    let servers = servers(root, &mut draft);
    let address = match upstream {
        Some(url) => Address::parse(url).ok_or_else(|| {
            format!("--upstream {url} is no URL; expected one like http://10.0.0.7:8080")
        })?,
        None => servers.first().and_then(|one| one.address.clone()).ok_or_else(|| {
            format!("{file}: no server has an absolute URL; say --upstream http://HOST:PORT")
        })?,
    };
    let mut walk = Walk {
        root,
        draft,
        upstream: String::new(),
        api: None,
        hosts: Vec::new(),
        base: String::new(),
    };
    walk.places(&servers, &address, upstream.is_some());
    let schemes = security::schemes(root, &mut walk.draft);
    walk.api(&title, document);
    walk.extensions();
    walk.operations(&schemes);
    if root.get("webhooks").is_some() {
        walk.draft
            .warn(&root.get("webhooks").place(), "webhooks are requests to others; not taken");
    }
    if walk.draft.list(Kind::Routes).is_empty() {
        return Err(format!("{file}: there is no operation in `paths`"));
    }
    walk.draft.finish()
}

/// A server: where it is, or only a path.
#[derive(Clone, Debug)]
struct Server {
    address: Option<Address>,
    path: String,
}

fn servers(root: View<'_>, draft: &mut Draft) -> Vec<Server> {
    let mut list = Vec::new();
    for server in root.get("servers").items() {
        let mut url = server.get("url").text().unwrap_or_default();
        for (name, variable) in server.get("variables").entries() {
            let value = variable.get("default").text().unwrap_or_default();
            if url.contains(&format!("{{{name}}}")) {
                let message = format!("the variable `{name}` of this server is taken as `{value}`");
                draft.warn(&variable.place(), message);
            }
            url = url.replace(&format!("{{{name}}}"), &value);
        }
        match Address::parse(&url) {
            Some(address) => {
                let path = address.path.clone();
                list.push(Server { address: Some(address), path });
            }
            None if url.starts_with('/') => list.push(Server { address: None, path: url }),
            None => draft.warn(&server.place(), format!("the server `{url}` is no URL; not taken")),
        }
    }
    list
}

struct Walk<'d> {
    root: View<'d>,
    draft: Draft,
    /// Name of the upstream of all routes.
    upstream: String,
    /// Name of what all requests are held against.
    api: Option<String>,
    hosts: Vec<String>,
    /// What paths begin with.
    base: String,
}

impl<'d> Walk<'d> {
    /// Where requests come in, and where they go.
    fn places(&mut self, servers: &[Server], address: &Address, elsewhere: bool) {
        let place = self.root.get("servers").place();
        let title = self.root.get("info").get("title").text().unwrap_or_default();
        self.upstream = self.draft.name(Kind::Upstreams, &title);
        let mut fields = Map::new().with("name", self.upstream.as_str());
        fields.set("targets", vec![address.target()]);
        if address.tls {
            fields.set("tls", Map::new());
        }
        if !elsewhere {
            fields.set("host_header", "target");
        }
        self.draft.add(Kind::Upstreams, &place, fields);
        let first = servers.first();
        let base = first.map(|one| one.path.trim_end_matches('/').to_owned()).unwrap_or_default();
        for other in servers.iter().skip(1) {
            if other.path.trim_end_matches('/') != base {
                let message =
                    format!("paths below `{}` of another server are not taken", other.path);
                self.draft.warn(&place, message);
            } else if let (Some(other), false) = (&other.address, elsewhere) {
                let message =
                    format!("the server {} is not taken; the first one is", other.target());
                self.draft.warn(&place, message);
            }
        }
        self.base = base;
        if elsewhere {
            let mut hosts: Vec<String> = servers
                .iter()
                .filter_map(|one| Some(one.address.as_ref()?.host.to_ascii_lowercase()))
                .collect();
            hosts.sort();
            hosts.dedup();
            self.hosts = hosts;
        }
    }

    /// What requests are held against, if the document can be used for it.
    fn api(&mut self, title: &str, document: Option<Document<'_>>) {
        let place = self.root.get("paths").place();
        let Some(Document { path, named }) = document else {
            let message = "schemas of parameters and bodies are not enforced by these routes";
            return self.draft.warn(&place, message);
        };
        let base = Some(self.base.as_str()).filter(|base| !base.is_empty());
        let described = match material::openapi::api(path, base) {
            Ok(described) => described,
            Err(broken) => {
                let message = format!("requests are not validated: {broken}");
                return self.draft.warn(&place, message);
            }
        };
        for note in described.notes {
            self.draft.warn(&place, note);
        }
        let name = self.draft.name(Kind::Apis, title);
        let mut fields = Map::new().with("name", name.as_str()).with("openapi", named);
        if let Some(base) = base {
            fields.set("base_path", base);
        }
        self.draft.add(Kind::Apis, &place, fields);
        self.api = Some(name);
    }

    /// Upstreams and limits that routes may name.
    fn extensions(&mut self) {
        for (word, kind) in
            [("x-sluice-upstreams", Kind::Upstreams), ("x-sluice-limits", Kind::Limits)]
        {
            for one in self.root.get(word).items() {
                let Yaml::Map(fields) = one.yaml() else {
                    self.draft.warn(&one.place(), format!("{word} has maps only; not taken"));
                    continue;
                };
                self.draft.add(kind, &one.place(), fields);
            }
        }
        for (key, value) in self.root.entries() {
            let known = ["x-sluice-upstreams", "x-sluice-limits", "x-sluice-route"];
            if key.starts_with("x-sluice-") && !known.contains(&key) {
                self.draft.warn(&value.place(), format!("{key} is not known; not taken"));
            }
        }
    }

    fn operations(&mut self, schemes: &Schemes) {
        // Literal segments go before parameters, as regular expressions are tried in the spec's order.
        let mut paths: Vec<(Vec<Segment>, &str, View<'d>)> = Vec::new();
        for (path, item) in self.root.get("paths").entries() {
            if path.starts_with("x-") {
                continue;
            }
            if !path.starts_with('/') {
                let message = format!("the path `{path}` does not begin with `/`; not taken");
                self.draft.warn(&item.place(), message);
                continue;
            }
            let item = self.resolve(item);
            paths.push((segments(path), path, item));
        }
        paths.sort_by(|one, other| one.0.cmp(&other.0));
        for (segments, path, item) in paths {
            if item.get("servers").is_some() {
                let message = format!("servers of {path} alone are not taken");
                self.draft.warn(&item.get("servers").place(), message);
            }
            for (method, operation) in item.entries() {
                if METHODS.contains(&method) && operation.is_map() {
                    self.operation(schemes, (path, &segments, item), method, operation);
                }
            }
        }
    }

    fn operation(
        &mut self,
        schemes: &Schemes,
        (path, segments, item): (&str, &[Segment], View<'d>),
        method: &str,
        operation: View<'d>,
    ) {
        let place = operation.place();
        let wanted = operation.get("operationId").text();
        let wanted = wanted.unwrap_or_else(|| format!("{method}{path}"));
        let mut route = Map::new().with("name", self.draft.name(Kind::Routes, &wanted));
        let mut matches = Map::new();
        if !self.hosts.is_empty() {
            matches.set("hosts", self.hosts.clone());
        }
        matches.set("path", self.path(segments));
        matches.set("methods", vec![method.to_ascii_uppercase()]);
        route.set("match", matches);
        route.set("upstream", self.upstream.as_str());
        if let Some(api) = &self.api {
            route.set("validate", Map::new().with("api", api.as_str()));
        }
        let own = operation.get("security");
        let asked = if own.is_some() { own } else { self.root.get("security") };
        match security::demand(asked, schemes, &mut self.draft) {
            Ok(None) => {}
            Ok(Some(auth)) => {
                route.set("auth", auth);
            }
            Err(why) => {
                self.draft.warn(&place, format!("{wanted} is closed: {why}"));
                close(&mut route, &why);
            }
        }
        // The nearer word counts.
        let mut more: BTreeMap<&str, Yaml> = BTreeMap::new();
        for level in [self.root, item, operation] {
            for (key, value) in level.get("x-sluice-route").entries() {
                more.insert(key, value.yaml());
            }
        }
        for (key, value) in more {
            if matches!(key, "name" | "match") {
                let message = format!("{key} of a route comes from the operation; not taken");
                self.draft.warn(&place, message);
                continue;
            }
            route.remove(if key == "upstreams" { "upstream" } else { key });
            route.set(key, value);
        }
        for word in ["callbacks", "servers"] {
            if operation.get(word).is_some() {
                let message = format!("{word} of {wanted} are not taken");
                self.draft.warn(&operation.get(word).place(), message);
            }
        }
        self.draft.add(Kind::Routes, &place, route);
    }

    /// `/pets/{id}` as the spec has it: exact without parameters, else a regular expression, in which a
    /// parameter is one segment or a part of one.
    fn path(&self, segments: &[Segment]) -> Yaml {
        let plain: Option<Vec<&str>> = segments.iter().map(Segment::literal).collect();
        if let Some(plain) = plain {
            let path = format!("{}/{}", self.base, plain.join("/"));
            return Map::new().with("exact", encoded(&path)).into();
        }
        let mut pattern = format!("^{}", regex::escape(&encoded(&self.base)));
        for segment in segments {
            pattern.push('/');
            for piece in &segment.0 {
                match piece {
                    Piece::Literal(text) => pattern.push_str(&regex::escape(&encoded(text))),
                    Piece::Parameter => pattern.push_str("[^/]+"),
                }
            }
        }
        pattern.push('$');
        Map::new().with("regex", pattern).into()
    }

    /// Follows `$ref` within the document.
    fn resolve(&mut self, view: View<'d>) -> View<'d> {
        let mut view = view;
        for _ in 0..MAX_HOPS {
            let Some(reference) = view.get("$ref").text() else { return view };
            let Some(found) = pointer(self.root, &reference) else {
                let message = format!("{reference} is not in this document; not taken");
                self.draft.warn(&view.place(), message);
                return view;
            };
            view = found;
        }
        self.draft.warn(&view.place(), "references that go round in a circle; not taken");
        view.get("$ref").get("nothing")
    }
}

/// Where `#/components/…` leads (RFC 6901 in a fragment).
pub(super) fn pointer<'d>(root: View<'d>, reference: &str) -> Option<View<'d>> {
    let mut view = root;
    for step in reference.strip_prefix("#/")?.split('/') {
        let step =
            step.replace("%7B", "{").replace("%7D", "}").replace("~1", "/").replace("~0", "~");
        view = view.get(&step);
    }
    view.is_some().then_some(view)
}

/// The part of a path between two slashes. Literal text sorts before parameters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Segment(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Literal(String),
    Parameter,
}

impl Segment {
    fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

fn segments(path: &str) -> Vec<Segment> {
    let whole = path.strip_prefix('/').unwrap_or(path);
    // Parameters have no slash in their names, but who knows: braces are looked for first.
    let mut out = vec![Segment(Vec::new())];
    let mut rest = whole;
    while !rest.is_empty() {
        let next = rest.find(['/', '{']).unwrap_or(rest.len());
        let (text, after) = rest.split_at(next);
        let last = out.len() - 1;
        if !text.is_empty() {
            out[last].0.push(Piece::Literal(text.into()));
        }
        rest = match (after.strip_prefix('/'), after.find('}')) {
            (Some(after), _) => {
                out.push(Segment(Vec::new()));
                after
            }
            (None, Some(end)) => {
                out[last].0.push(Piece::Parameter);
                &after[end + 1..]
            }
            (None, None) => {
                if !after.is_empty() {
                    out[last].0.push(Piece::Literal(after.into()));
                }
                ""
            }
        };
    }
    out
}
