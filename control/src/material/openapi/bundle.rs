//! A schema with everything that it refers to, in one piece.

use std::collections::BTreeMap;
use std::rc::Rc;

use contract::encode::MAX_SCHEMA;
use serde_json::{Map, Value as Json, json};

use super::document::{Broken, Documents, Part, flag, json as plain, member};
use super::operations::Dialect;
use crate::spec::tree::{Node, Value};

/// Most schemas that one refers to.
const MAX_DEFINITIONS: usize = 10_000;

/// Keywords with a schema, with a list of schemas, with a map of schemas.
const ONE: [&str; 12] = [
    "not",
    "additionalProperties",
    "items",
    "contains",
    "propertyNames",
    "if",
    "then",
    "else",
    "unevaluatedItems",
    "unevaluatedProperties",
    "additionalItems",
    "contentSchema",
];
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const MAP: [&str; 3] = ["properties", "patternProperties", "dependentSchemas"];
/// What says nothing of what is valid.
const SILENT: [&str; 15] = [
    "$id",
    "$schema",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "example",
    "examples",
    "default",
    "xml",
    "externalDocs",
    "discriminator",
    "deprecated",
    "id",
];

/// The schema at `node` of `file` as a text.
pub fn bundle(
    documents: &mut Documents,
    dialect: Dialect,
    file: &str,
    node: &Rc<Node>,
) -> Result<String, Broken> {
    let mut bundle = Bundle { documents, dialect, names: BTreeMap::new(), waiting: Vec::new() };
    let mut schema = bundle.schema(file, node)?;
    let mut definitions = Map::new();
    while let Some((name, part)) = bundle.waiting.pop() {
        let definition = bundle.schema(&part.file, &part.node)?;
        definitions.insert(name, definition);
    }
    if let (Json::Object(schema), false) = (&mut schema, definitions.is_empty()) {
        schema.insert("$defs".into(), Json::Object(definitions));
    }
    let text = schema.to_string();
    match text.len() <= MAX_SCHEMA {
        true => Ok(text),
        false => {
            let message =
                format!("with all that it refers to this schema has over {MAX_SCHEMA} bytes");
            Err(Broken::at(file, node.mark.line, message))
        }
    }
}

struct Bundle<'d> {
    documents: &'d mut Documents,
    dialect: Dialect,
    /// What is referred to, by file and pointer.
    names: BTreeMap<(String, String), String>,
    /// Of these, what has not been read yet.
    waiting: Vec<(String, Part)>,
}

impl Bundle<'_> {
    fn schema(&mut self, file: &str, node: &Rc<Node>) -> Result<Json, Broken> {
        let line = node.mark.line;
        let entries = match &node.value {
            Value::Bool(value) => return Ok(Json::Bool(*value)),
            Value::Map(entries) => entries,
            _ => return Err(Broken::at(file, line, "expected a schema: a map, true or false")),
        };
        let mut out = Map::new();
        if let Some(reference) = member(node, "$ref") {
            let name = self.refer(file, reference)?;
            out.insert("$ref".into(), format!("#/$defs/{name}").into());
            // OpenAPI 3.0: what stands beside a reference is ignored.
            if self.dialect == Dialect::V30 {
                return Ok(Json::Object(out));
            }
        }
        for entry in entries {
            let (key, value) = (entry.key.as_str(), &entry.value);
            let word = |list: &[&str]| list.contains(&key);
            let line = entry.key_mark.line;
            let converted = match &value.value {
                _ if key == "$ref" || key.starts_with("x-") || word(&SILENT) => continue,
                _ if matches!(
                    key,
                    "$dynamicRef" | "$recursiveRef" | "$anchor" | "$dynamicAnchor"
                ) =>
                {
                    let message = format!("`{key}` is not supported; use $ref with a JSON pointer");
                    return Err(Broken::at(file, line, message));
                }
                // Before draft 2020-12 `items` could be a list.
                Value::List(items) if word(&LIST) || key == "items" => {
                    let items = items.iter().map(|item| self.schema(file, item));
                    let items = Json::Array(items.collect::<Result<_, _>>()?);
                    if key == "items" {
                        out.insert("prefixItems".into(), items);
                        continue;
                    }
                    items
                }
                _ if word(&ONE) => self.schema(file, value)?,
                Value::Map(members) if word(&MAP) => {
                    let mut map = Map::new();
                    for member in members {
                        map.insert(member.key.clone(), self.schema(file, &member.value)?);
                    }
                    Json::Object(map)
                }
                _ if word(&LIST) || word(&MAP) => {
                    let message = format!("`{key}` must hold schemas");
                    return Err(Broken::at(file, line, message));
                }
                _ => plain(value),
            };
            out.insert(key.into(), converted);
        }
        self.drop_read_only(file, node, &mut out)?;
        if self.dialect == Dialect::V30 {
            modernise(&mut out);
        }
        Ok(Json::Object(out))
    }

    /// The name under which what `reference` means is in the bundle.
    fn refer(&mut self, file: &str, reference: &Node) -> Result<String, Broken> {
        let part = self.documents.follow(file, reference)?;
        let key = (part.file.clone(), part.pointer.clone());
        if let Some(name) = self.names.get(&key) {
            return Ok(name.clone());
        }
        if self.names.len() >= MAX_DEFINITIONS {
            let message = format!("this leads to over {MAX_DEFINITIONS} schemas");
            return Err(Broken::at(file, reference.mark.line, message));
        }
        let last = part.pointer.rsplit('/').next().unwrap_or_default();
        let word: String = last.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        let name = format!("{word}{}", self.names.len());
        self.names.insert(key, name.clone());
        self.waiting.push((name.clone(), part));
        Ok(name)
    }

    /// What only answers have is required of answers only (OpenAPI 3.0 §4.7.24.2: `readOnly`).
    fn drop_read_only(
        &mut self,
        file: &str,
        node: &Rc<Node>,
        out: &mut Map<String, Json>,
    ) -> Result<(), Broken> {
        let Some(Value::Map(properties)) = member(node, "properties").map(|node| &node.value)
        else {
            return Ok(());
        };
        let Some(Json::Array(required)) = out.get_mut("required") else { return Ok(()) };
        for property in properties {
            let part =
                Part { file: file.into(), pointer: String::new(), node: property.value.clone() };
            let read_only = flag(&property.value, "readOnly") == Some(true)
                || flag(&self.documents.resolved(part)?.node, "readOnly") == Some(true);
            if read_only {
                required.retain(|name| name.as_str() != Some(&property.key));
            }
        }
        Ok(())
    }
}

/// The keywords of OpenAPI 3.0 in the words of draft 2020-12.
fn modernise(schema: &mut Map<String, Json>) {
    for (limit, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        match schema.get(exclusive) {
            Some(Json::Bool(true)) => match schema.remove(limit) {
                Some(bound) => schema.insert(exclusive.into(), bound),
                None => schema.remove(exclusive),
            },
            Some(Json::Bool(false)) => schema.remove(exclusive),
            _ => None,
        };
    }
    let nullable = schema.remove("nullable") == Some(Json::Bool(true));
    // It says something only beside a `type` (OpenAPI 3.0.3, proposal 003).
    if nullable && let Some(Json::String(kind)) = schema.get("type").cloned() {
        schema.insert("type".into(), json!([kind, "null"]));
        if let Some(Json::Array(values)) = schema.get_mut("enum")
            && !values.contains(&Json::Null)
        {
            values.push(Json::Null);
        }
    }
}
