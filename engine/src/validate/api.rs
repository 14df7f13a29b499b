//! Which operation of an API a request is for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use contract::snapshot::{self, Form, Place, Validation};

use super::percent::decoded;
use super::schema::{Memory, Schema};

/// An API: its operations by their paths.
#[derive(Debug)]
pub struct Api {
    pub name: Box<str>,
    operations: Box<[Operation]>,
    /// Operations on any path.
    anywhere: Vec<usize>,
    root: Node,
}

/// What a request for one operation must look like.
#[derive(Debug)]
pub struct Operation {
    /// Upper case. Empty: any.
    method: Box<str>,
    pub parameters: Box<[Parameter]>,
    pub body: Option<Body>,
}

#[derive(Debug)]
pub struct Parameter {
    pub name: Box<str>,
    pub place: Place,
    /// Which of the path's parameters it is.
    pub position: usize,
    pub required: bool,
    pub form: Form,
    pub schema: Option<Arc<Schema>>,
}

#[derive(Debug)]
pub struct Body {
    pub required: bool,
    /// The most specific types first.
    pub content: Box<[Content]>,
}

#[derive(Debug)]
pub struct Content {
    pub media_type: Box<str>,
    pub schema: Option<Arc<Schema>>,
}

/// A request's operation.
pub struct Found<'a> {
    pub operation: &'a Operation,
    /// What stands in the path for the parameters of the template, decoded.
    pub path: Vec<Vec<u8>>,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    Path,
    /// What the path has instead, as a field value.
    Method(String),
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<[u8]>, Node>,
    /// Tried in this order, after the literals (OpenAPI: concrete paths go first).
    patterns: Vec<(Pattern, Node)>,
    operations: Vec<usize>,
}

/// A segment with parameters: `{id}`, `{name}.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    prefix: Box<[u8]>,
    /// What stands behind each parameter. None but the last is empty.
    behind: Box<[Box<[u8]>]>,
}

impl Pattern {
    /// What stands for the parameters in `segment`.
    fn captures(&self, segment: &[u8], out: &mut Vec<Vec<u8>>) -> bool {
        let before = out.len();
        let fits = self.take(segment, out);
        if !fits {
            out.truncate(before);
        }
        fits
    }

    fn take(&self, segment: &[u8], out: &mut Vec<Vec<u8>>) -> bool {
        let all = segment.len();
        if !segment.starts_with(&self.prefix) {
            return false;
        }
        let mut at = self.prefix.len();
        for (n, behind) in self.behind.iter().enumerate() {
            let rest = segment.get(at..).unwrap_or_default();
            let end = match n + 1 == self.behind.len() {
                true if rest.ends_with(behind) => all - behind.len(),
                true => return false,
                // A parameter has a byte at least.
                false => match memchr::memmem::find(rest.get(1..).unwrap_or_default(), behind) {
                    Some(found) => at + 1 + found,
                    None => return false,
                },
            };
            if end <= at {
                return false;
            }
            out.push(segment.get(at..end).unwrap_or_default().to_vec());
            at = end + behind.len();
        }
        true
    }
}

impl Api {
    /// # Errors
    /// Which operation cannot be used, and why.
    pub fn build(from: &snapshot::Api, schemas: &Schemas<'_>) -> Result<Api, String> {
        let mut api = Api {
            name: from.name.as_str().into(),
            operations: Box::default(),
            anywhere: Vec::new(),
            root: Node::default(),
        };
        let mut operations = Vec::with_capacity(from.operations.len());
        for (at, operation) in from.operations.iter().enumerate() {
            let error = |problem| format!("{} {}: {problem}", operation.method, operation.template);
            let names = api.place(at, &operation.template).map_err(error)?;
            operations.push(build(operation, &names, schemas).map_err(error)?);
        }
        api.operations = operations.into();
        Ok(api)
    }

    /// Puts operation `at` where its template says; returns the names of the parameters in that.
    fn place(&mut self, at: usize, template: &str) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        if template.is_empty() {
            self.anywhere.push(at);
            return Ok(names);
        }
        let path = template.strip_prefix('/').ok_or("the path does not begin with `/`")?;
        let mut node = &mut self.root;
        for segment in path.split('/') {
            node = match pattern(segment, &mut names)? {
                None => {
                    let segment = decoded(segment.as_bytes(), false).into_owned();
                    node.literals.entry(segment.into()).or_default()
                }
                Some(pattern) => {
                    let known = node.patterns.iter().position(|(other, _)| *other == pattern);
                    let place = known.unwrap_or_else(|| {
                        node.patterns.push((pattern, Node::default()));
                        node.patterns.len() - 1
                    });
                    &mut node.patterns[place].1
                }
            };
        }
        node.operations.push(at);
        Ok(names)
    }

    /// The operation for `method` on `path`, which is in normal form.
    ///
    /// # Errors
    /// The API has no such path, or not this method on it.
    pub fn find(&self, method: &[u8], path: &[u8]) -> Result<Found<'_>, Missing> {
        let segments = path.strip_prefix(b"/").unwrap_or(path).split(|byte| *byte == b'/');
        let segments: Vec<Cow<'_, [u8]>> =
            segments.map(|segment| decoded(segment, false)).collect();
        let mut others: Vec<&str> = Vec::new();
        // RFC 9110 §9.3.2: HEAD asks what GET does.
        let methods: &[&[u8]] = if method == b"HEAD" { &[b"HEAD", b"GET"] } else { &[method] };
        for method in methods {
            let mut search = Search { api: self, method, others, captured: Vec::new() };
            if let Some(operation) = search.descend(&self.root, &segments) {
                return Ok(Found { operation, path: search.captured });
            }
            others = search.others;
            if let Some(operation) = self.pick(&self.anywhere, method) {
                return Ok(Found { operation, path: Vec::new() });
            }
        }
        let anywhere = self.anywhere.iter().filter_map(|at| self.operations.get(*at));
        others.extend(anywhere.map(|one| &*one.method));
        others.sort_unstable();
        others.dedup();
        Err(match others.is_empty() {
            true => Missing::Path,
            false => Missing::Method(others.join(", ")),
        })
    }

    fn pick(&self, among: &[usize], method: &[u8]) -> Option<&Operation> {
        let mut known = among.iter().filter_map(|at| self.operations.get(*at));
        known.find(|one| one.method.is_empty() || one.method.as_bytes() == method)
    }
}

struct Search<'a, 'm> {
    api: &'a Api,
    method: &'m [u8],
    others: Vec<&'a str>,
    captured: Vec<Vec<u8>>,
}

impl<'a> Search<'a, '_> {
    /// Depth first. Each node stands on one level only, so none is seen twice.
    fn descend(&mut self, node: &'a Node, segments: &[Cow<'_, [u8]>]) -> Option<&'a Operation> {
        let Some((segment, rest)) = segments.split_first() else {
            let found = self.api.pick(&node.operations, self.method);
            if found.is_none() {
                let others = node.operations.iter().filter_map(|at| self.api.operations.get(*at));
                self.others.extend(others.map(|one| &*one.method));
            }
            return found;
        };
        if let Some(next) = node.literals.get(&**segment)
            && let Some(found) = self.descend(next, rest)
        {
            return Some(found);
        }
        for (pattern, next) in &node.patterns {
            let before = self.captured.len();
            if pattern.captures(segment, &mut self.captured) {
                if let Some(found) = self.descend(next, rest) {
                    return Some(found);
                }
                self.captured.truncate(before);
            }
        }
        None
    }
}

/// The schemas of a snapshot, compiled when they are first asked for.
pub struct Schemas<'s> {
    pub from: &'s Validation,
    pub memory: &'s Memory,
}

impl Schemas<'_> {
    fn get(&self, index: Option<u32>) -> Result<Option<Arc<Schema>>, String> {
        let Some(index) = index else { return Ok(None) };
        let text = self.from.schemas.get(index as usize).ok_or("its schema does not exist")?;
        self.memory.schema(text).map(Some)
    }
}

fn build(
    from: &snapshot::Operation,
    names: &[String],
    schemas: &Schemas<'_>,
) -> Result<Operation, String> {
    let mut parameters = Vec::with_capacity(from.parameters.len());
    for one in &from.parameters {
        let error = |problem| format!("parameter `{}`: {problem}", one.name);
        let position = match one.place {
            Place::Path => names.iter().position(|name| *name == one.name),
            _ => Some(0),
        };
        parameters.push(Parameter {
            name: one.name.as_str().into(),
            place: one.place,
            position: position.ok_or_else(|| error("it is not in the path".into()))?,
            required: one.required,
            form: one.form.clone(),
            schema: schemas.get(one.schema).map_err(error)?,
        });
    }
    let body = from.body.as_ref().map(|body| {
        let mut content = Vec::with_capacity(body.content.len());
        for one in &body.content {
            let schema = schemas.get(one.schema);
            let schema = schema.map_err(|problem| format!("{}: {problem}", one.media_type))?;
            content.push(Content { media_type: one.media_type.as_str().into(), schema });
        }
        content.sort_by_key(|one| one.media_type.matches('*').count());
        Ok::<_, String>(Body { required: body.required, content: content.into() })
    });
    Ok(Operation {
        method: from.method.as_str().into(),
        parameters: parameters.into(),
        body: body.transpose()?,
    })
}

/// The pattern of a segment; `None`: it has no parameters.
fn pattern(segment: &str, names: &mut Vec<String>) -> Result<Option<Pattern>, String> {
    let Some((prefix, mut rest)) = segment.split_once('{') else { return Ok(None) };
    let mut behind = Vec::new();
    loop {
        let (name, after) = rest.split_once('}').ok_or("a `{` in the path is never closed")?;
        names.push(name.into());
        let (literal, next) = match after.split_once('{') {
            Some((literal, next)) => (literal, Some(next)),
            None => (after, None),
        };
        if literal.is_empty() && next.is_some() {
            return Err("two parameters stand side by side in the path".into());
        }
        behind.push(decoded(literal.as_bytes(), false).into_owned().into_boxed_slice());
        match next {
            Some(next) => rest = next,
            None => break,
        }
    }
    let prefix = decoded(prefix.as_bytes(), false).into_owned().into();
    Ok(Some(Pattern { prefix, behind: behind.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(operations: &[(&str, &str)]) -> Api {
        let operations = operations.iter().map(|(method, template)| snapshot::Operation {
            method: (*method).into(),
            template: (*template).into(),
            ..Default::default()
        });
        let from = snapshot::Api { name: "a".into(), operations: operations.collect() };
        let (validation, memory) = (Validation::default(), Memory::default());
        Api::build(&from, &Schemas { from: &validation, memory: &memory }).unwrap()
    }

    #[test]
    fn concrete_paths_go_first_and_the_method_decides() {
        let api = api(&[
            ("GET", "/users/{id}"),
            ("DELETE", "/users/{id}"),
            ("GET", "/users/me"),
            ("GET", "/users/{id}/files/{name}.{kind}"),
            ("GET", "/v{n}/a b"),
        ]);
        let find = |method: &str, path: &str| {
            let found = api.find(method.as_bytes(), path.as_bytes())?;
            let at = api.operations.iter().position(|one| std::ptr::eq(one, found.operation));
            let path = found.path.iter().map(|one| String::from_utf8_lossy(one).into_owned());
            Ok((at.unwrap(), path.collect::<Vec<_>>().join(" ")))
        };
        let is = |at, path: &str| Ok((at, path.to_string()));
        assert_eq!(find("GET", "/users/7"), is(0, "7"));
        assert_eq!(find("HEAD", "/users/7"), is(0, "7"));
        assert_eq!(find("GET", "/users/me"), is(2, ""));
        assert_eq!(find("DELETE", "/users/me"), is(1, "me"));
        assert_eq!(find("PUT", "/users/me"), Err(Missing::Method("DELETE, GET".into())));
        assert_eq!(find("GET", "/users/%C3%BC/files/a.tar.gz"), is(3, "ü a tar.gz"));
        assert_eq!(find("GET", "/users/7/files/.gz"), Err(Missing::Path));
        assert_eq!(find("GET", "/v12/a%20b"), is(4, "12"));
        for path in ["/users/", "/users", "/users/7/", "/", "", "/v/a%20b"] {
            assert_eq!(find("GET", path), Err(Missing::Path), "{path}");
        }
    }

    #[test]
    fn paths_without_a_meaning_are_refused() {
        let mut api = api(&[]);
        for template in ["users", "/{a", "/{a}{b}"] {
            assert!(api.place(0, template).is_err(), "{template}");
        }
    }
}
