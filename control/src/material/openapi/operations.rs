//! The operations of a document, and the parameters and bodies of their requests.

use std::collections::HashMap;
use std::rc::Rc;

use contract::encode::{MAX_OPERATIONS, MAX_SCHEMAS};
use contract::snapshot::{self as flat, Form, Kinds, Place};

use super::bundle::bundle;
use super::document::{Broken, Documents, Part, flag, member, shared, text};
use super::{Described, encoded};
use crate::spec::tree::{Node, Value};

/// Which words a document speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V30,
    V31,
}

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// These say what other parts of OpenAPI are about (3.1.0 §4.8.12.1).
const IGNORED: [&str; 3] = ["accept", "content-type", "authorization"];

pub struct Reader {
    pub documents: Documents,
    dialect: Dialect,
    pub described: Described,
    /// Schemas by their text.
    known: HashMap<String, u32>,
}

/// What a parameter's schema says of its kind.
enum Shape {
    Scalar(Kinds),
    Array(Kinds),
    Object(Vec<(String, Kinds)>),
}

impl Reader {
    pub fn new(documents: Documents, dialect: Dialect) -> Reader {
        Reader { documents, dialect, described: Described::default(), known: HashMap::new() }
    }

    pub fn paths(&mut self, file: &str, root: &Node, base: Option<&str>) -> Result<(), Broken> {
        let base = match base {
            Some(base) => base.trim_end_matches('/').to_owned(),
            None => server_path(root),
        };
        let Some(Value::Map(paths)) = member(root, "paths").map(|node| &node.value) else {
            return Err(Broken::at(file, root.mark.line, "it has no `paths`"));
        };
        for path in paths.iter().filter(|path| !path.key.starts_with("x-")) {
            if !path.key.starts_with('/') {
                let message = format!("the path `{}` does not begin with `/`", path.key);
                return Err(Broken::at(file, path.key_mark.line, message));
            }
            let part = Part { file: file.into(), pointer: String::new(), node: path.value.clone() };
            let item = self.documents.resolved(part)?;
            let template = encoded_template(&format!("{base}{}", path.key));
            for method in METHODS {
                let Some(operation) = shared(&item.node, method) else { continue };
                if self.described.operations.len() >= MAX_OPERATIONS {
                    let message = format!("it has over {MAX_OPERATIONS} operations");
                    return Err(Broken::at(file, path.key_mark.line, message));
                }
                let operation = self.operation(&item, &operation, method, &template)?;
                self.described.operations.push(operation);
            }
        }
        self.described.files = self.documents.files();
        match self.described.operations.is_empty() {
            true => Err(Broken::at(file, root.mark.line, "it has no operation")),
            false => Ok(()),
        }
    }

    fn operation(
        &mut self,
        item: &Part,
        operation: &Rc<Node>,
        method: &str,
        template: &str,
    ) -> Result<flat::Operation, Broken> {
        let mut parameters: Vec<flat::Parameter> = Vec::new();
        for holder in [&item.node, operation] {
            let Some(list) = member(holder, "parameters") else { continue };
            for parameter in self.listed(&item.file, list)? {
                // The operation's own go before those of its path.
                parameters.retain(|other| {
                    (&other.name, other.place) != (&parameter.name, parameter.place)
                });
                parameters.push(parameter);
            }
        }
        for parameter in parameters.iter().filter(|one| one.place == Place::Path) {
            if !template.contains(&format!("{{{}}}", parameter.name)) {
                let name = &parameter.name;
                let message = format!("the path {template} has no parameter `{{{name}}}`");
                return Err(Broken::at(&item.file, operation.mark.line, message));
            }
        }
        let body = match shared(operation, "requestBody") {
            Some(node) => {
                let part = Part { file: item.file.clone(), pointer: String::new(), node };
                Some(self.body(part)?)
            }
            None => None,
        };
        Ok(flat::Operation {
            method: method.to_ascii_uppercase(),
            template: template.into(),
            parameters,
            body,
        })
    }

    /// The parameters of a list.
    pub fn listed(&mut self, file: &str, list: &Node) -> Result<Vec<flat::Parameter>, Broken> {
        let Value::List(items) = &list.value else {
            return Err(Broken::at(file, list.mark.line, "`parameters` must be a list"));
        };
        let mut out = Vec::with_capacity(items.len());
        for node in items {
            let part = Part { file: file.into(), pointer: String::new(), node: node.clone() };
            let part = self.documents.resolved(part)?;
            out.extend(self.parameter(&part)?);
        }
        Ok(out)
    }

    fn parameter(&mut self, part: &Part) -> Result<Option<flat::Parameter>, Broken> {
        let (file, node) = (part.file.as_str(), &part.node);
        let broken = |message: String| Broken::at(file, node.mark.line, message);
        let name = text(node, "name").filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| broken("a parameter needs a `name`".into()))?;
        let place = match text(node, "in") {
            Some("path") => Place::Path,
            Some("query") => Place::Query,
            Some("header") => Place::Header,
            Some("cookie") => Place::Cookie,
            _ => {
                let message =
                    format!("parameter `{name}`: `in` must be path, query, header or cookie");
                return Err(broken(message));
            }
        };
        let name = match place {
            Place::Header => name.to_ascii_lowercase(),
            _ => name.to_owned(),
        };
        if place == Place::Header && IGNORED.contains(&name.as_str()) {
            return Ok(None);
        }
        let required = flag(node, "required").unwrap_or(place == Place::Path);
        let content = member(node, "content").and_then(|content| match &content.value {
            Value::Map(entries) => entries.first(),
            _ => None,
        });
        let (form, schema) = match (content, shared(node, "schema")) {
            (Some(entry), _) => {
                let schema = shared(&entry.value, "schema");
                (Some(Form::Json), schema.filter(|_| is_json(&entry.key)))
            }
            (None, Some(schema)) => {
                let shape = self.shape(file, &schema, 0)?;
                (form(node, place, shape), Some(schema))
            }
            (None, None) => (Some(Form::Scalar(Kinds::TEXT)), None),
        };
        let Some(form) = form else {
            let style = text(node, "style").unwrap_or("default");
            self.described.notes.push(format!(
                "{file}:{}: parameter `{name}` is not validated: its style ({style}, for its kind of \
                 value) is not supported",
                node.mark.line
            ));
            return Ok(None);
        };
        let schema = schema.map(|schema| self.schema(file, &schema)).transpose()?;
        Ok(Some(flat::Parameter { name, place, required, form, schema }))
    }

    fn body(&mut self, part: Part) -> Result<flat::Body, Broken> {
        let Part { file, node, .. } = self.documents.resolved(part)?;
        let mut content = Vec::new();
        if let Some(Value::Map(types)) = member(&node, "content").map(|node| &node.value) {
            for entry in types {
                let media_type = entry.key.split(';').next().unwrap_or_default();
                let media_type = media_type.trim().to_ascii_lowercase();
                let schema = match shared(&entry.value, "schema") {
                    Some(schema) if is_json(&media_type) || media_type.contains('*') => {
                        Some(self.schema(&file, &schema)?)
                    }
                    _ => None,
                };
                content.push(flat::Content { media_type, schema });
            }
        }
        Ok(flat::Body { required: flag(&node, "required").unwrap_or(false), content })
    }

    /// The index of the schema at `node`.
    pub fn schema(&mut self, file: &str, node: &Rc<Node>) -> Result<u32, Broken> {
        let text = bundle(&mut self.documents, self.dialect, file, node)?;
        if let Some(index) = self.known.get(&text) {
            return Ok(*index);
        }
        let index = self.described.schemas.len() as u32;
        if self.described.schemas.len() >= MAX_SCHEMAS {
            let message = format!("there are over {MAX_SCHEMAS} schemas");
            return Err(Broken::at(file, node.mark.line, message));
        }
        self.described.schemas.push(text.clone());
        self.known.insert(text, index);
        Ok(index)
    }

    fn shape(&mut self, file: &str, node: &Rc<Node>, depth: usize) -> Result<Shape, Broken> {
        let unknown = Shape::Scalar(Kinds::UNKNOWN);
        let part = Part { file: file.into(), pointer: String::new(), node: node.clone() };
        let Part { file, node, .. } = self.documents.resolved(part)?;
        // What `allOf` says together, the first that says something says.
        if member(&node, "type").is_none() {
            let Some(Value::List(all)) = member(&node, "allOf").map(|node| &node.value) else {
                return Ok(unknown);
            };
            for one in all.iter().filter(|_| depth < 8) {
                match self.shape(&file, one, depth + 1)? {
                    Shape::Scalar(Kinds::UNKNOWN) => {}
                    shape => return Ok(shape),
                }
            }
            return Ok(unknown);
        }
        let mut words = Vec::new();
        match member(&node, "type").map(|node| &node.value) {
            Some(Value::Text(word)) => words.push(word.clone()),
            Some(Value::List(items)) => words.extend(items.iter().filter_map(|one| one.excerpt())),
            _ => {}
        }
        if flag(&node, "nullable") == Some(true) {
            words.push("null".into());
        }
        if words.iter().any(|word| word == "array") {
            let items = match shared(&node, "items") {
                Some(items) => self.shape(&file, &items, depth + 1)?,
                None => unknown,
            };
            return Ok(Shape::Array(match items {
                Shape::Scalar(kinds) if kinds != Kinds::UNKNOWN => kinds,
                _ => Kinds::TEXT,
            }));
        }
        if words.iter().any(|word| word == "object") {
            let mut keys = Vec::new();
            if let Some(Value::Map(properties)) = member(&node, "properties").map(|n| &n.value) {
                for property in properties.iter().filter(|_| depth < 2) {
                    let kinds = match self.shape(&file, &property.value, depth + 1)? {
                        Shape::Scalar(kinds) => kinds,
                        _ => Kinds::TEXT,
                    };
                    keys.push((property.key.clone(), kinds));
                }
            }
            return Ok(Shape::Object(keys));
        }
        let mut kinds = Kinds::UNKNOWN;
        for word in words {
            kinds.0 |= match word.as_str() {
                "string" => Kinds::TEXT.0,
                "integer" | "number" => Kinds::NUMBER.0,
                "boolean" => Kinds::BOOL.0,
                "null" => Kinds::NULL.0,
                _ => 0,
            };
        }
        Ok(Shape::Scalar(kinds))
    }
}

/// How a value of this shape is written; `None`: in a way that is not read.
fn form(node: &Node, place: Place, shape: Shape) -> Option<Form> {
    let usual = match place {
        Place::Query | Place::Cookie => "form",
        Place::Path | Place::Header => "simple",
    };
    let style = text(node, "style").unwrap_or(usual);
    let explode = flag(node, "explode").unwrap_or(style == "form");
    match (style, shape, place) {
        ("form" | "simple", Shape::Scalar(kinds), _) => Some(Form::Scalar(kinds)),
        ("form", Shape::Array(kinds), Place::Query) if explode => Some(Form::Repeated(kinds)),
        ("form" | "simple", Shape::Array(kinds), _) => Some(Form::Separated(b',', kinds)),
        ("spaceDelimited", Shape::Array(kinds), _) if !explode => {
            Some(Form::Separated(b' ', kinds))
        }
        ("pipeDelimited", Shape::Array(kinds), _) if !explode => Some(Form::Separated(b'|', kinds)),
        ("spaceDelimited" | "pipeDelimited", Shape::Array(kinds), _) => Some(Form::Repeated(kinds)),
        ("deepObject", Shape::Object(keys), Place::Query) => Some(Form::Deep(keys)),
        _ => None,
    }
}

fn is_json(media_type: &str) -> bool {
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(media_type.as_str(), "application/json" | "text/json") || media_type.ends_with("+json")
}

/// A template as requests' paths are compared with it: what stands between parameters is percent-encoded.
fn encoded_template(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some((literal, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        out.push_str(&format!("{}{{{name}}}", encoded(literal)));
        rest = after;
    }
    out.push_str(&encoded(rest));
    out
}

/// The path of the first server, without a `/` at its end.
pub fn server_path(root: &Node) -> String {
    let Some(Value::List(servers)) = member(root, "servers").map(|node| &node.value) else {
        return String::new();
    };
    let url = servers.first().and_then(|server| text(server, "url")).unwrap_or_default();
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => url,
    };
    match path.starts_with('/') && !path.contains('{') {
        true => path.trim_end_matches('/').to_owned(),
        false => String::new(),
    }
}
