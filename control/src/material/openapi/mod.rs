//! OpenAPI documents (3.0 and 3.1) and JSON Schemas, as far as requests are held against them.
//!
//! What they refer to is followed inside of a file and to the files beside it, never over the network,
//! and bundled: every schema that leaves here is whole, and a JSON Schema of draft 2020-12.

mod bundle;
mod document;
mod operations;
#[cfg(test)]
mod tests;

use contract::snapshot as flat;

pub use document::Broken;
use document::{Documents, member};
use operations::{Dialect, Reader};

use crate::spec::{OwnBody, SchemaSource};

/// What requests are held against: operations, with their schemas beside them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Described {
    pub operations: Vec<flat::Operation>,
    /// What the operations' indexes mean.
    pub schemas: Vec<String>,
    /// All files that were read.
    pub files: Vec<String>,
    /// What is described but cannot be validated.
    pub notes: Vec<String>,
}

/// Reads the OpenAPI document in `file`. `base`: what goes before its paths; without it the path of its
/// first server.
pub fn api(file: &str, base: Option<&str>) -> Result<Described, Broken> {
    let mut documents = Documents::default();
    let root = documents.open(file)?;
    let version = member(&root, "openapi").and_then(|node| node.excerpt()).unwrap_or_default();
    let dialect = match version.as_str() {
        version if version.starts_with("3.0") => Dialect::V30,
        version if version.starts_with("3.1") || version.starts_with("3.2") => Dialect::V31,
        _ if member(&root, "swagger").is_some() => {
            let message = "this is a Swagger 2.0 document; convert it to OpenAPI 3";
            return Err(Broken::at(file, root.mark.line, message));
        }
        _ => {
            let message =
                "this is no OpenAPI document; expected `openapi: 3.0.x` or `openapi: 3.1.x`";
            return Err(Broken::at(file, root.mark.line, message));
        }
    };
    let mut reader = Reader::new(documents, dialect);
    reader.paths(file, &root, base)?;
    Ok(reader.described)
}

/// What a route says of its requests itself.
pub fn own(
    parameters: &[serde_json::Value],
    body: Option<&OwnBody>,
) -> Result<Described, (&'static str, Broken)> {
    let mut reader = Reader::new(Documents::default(), Dialect::V31);
    let list = serde_json::Value::from(parameters.to_vec());
    let of_parameters = |broken| ("parameters", broken);
    let root = reader.documents.inline(INLINE_PARAMETERS, &list).map_err(of_parameters)?;
    let parameters = reader.listed(INLINE_PARAMETERS, &root).map_err(of_parameters)?;
    let body = body.map(|body| {
        let (file, root) = match &body.schema {
            SchemaSource::File(file) => (file.as_str(), reader.documents.open(file)?),
            SchemaSource::Inline(schema) => {
                (INLINE_SCHEMA, reader.documents.inline(INLINE_SCHEMA, schema)?)
            }
        };
        let schema = Some(reader.schema(file, &root)?);
        // Whatever kind of JSON it is.
        let content = vec![flat::Content { media_type: "*+json".into(), schema }];
        Ok(flat::Body { required: body.required, content })
    });
    let body = body.transpose().map_err(|broken| ("body.schema", broken))?;
    let (method, template) = (String::new(), String::new());
    let mut described = reader.described;
    described.operations = vec![flat::Operation { method, template, parameters, body }];
    Ok(described)
}

/// What stands in the spec has names that no file has.
const INLINE_PARAMETERS: &str = "";
const INLINE_SCHEMA: &str = "\0";

/// Whether a path may be one of a template, and whether one that begins with it may.
pub fn meets(template: &str, path: &str, prefix: bool) -> bool {
    let mut theirs = template.split('/');
    let path = if prefix { path.strip_suffix('/').unwrap_or(path) } else { path };
    for segment in path.split('/') {
        let Some(known) = theirs.next() else { return false };
        if !known.contains('{') && known != segment {
            return false;
        }
    }
    prefix || theirs.next().is_none()
}

/// Percent-encoded as paths are matched.
pub fn encoded(path: &str) -> String {
    let mut out = String::new();
    for c in path.chars() {
        let mut bytes = [0; 4];
        match c {
            c if c.is_ascii_alphanumeric() || "%-._~!$&'()*+,;=:@/".contains(c) => out.push(c),
            c => c
                .encode_utf8(&mut bytes)
                .bytes()
                .for_each(|byte| out.push_str(&format!("%{byte:02X}"))),
        }
    }
    out
}
