//! What requests must look like.

use contract::encode::MAX_VALIDATED_BODY;
use serde_json::{Map, Number, Value as Json};

use super::fields::Walk;
use super::parts::{flag, locality, name};
use super::route::size;
use crate::spec::model::{
    ApiDocument, DEFAULT_VALIDATED_BYTES, OwnBody, RuleBody, RuleParameters, SchemaSource,
    Undocumented, Validate, ValidateMode,
};
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

pub(super) fn api(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<ApiDocument> {
    let Some(fields) = walk.fields(node, path, &["name", "workspace", "openapi", "base_path"])
    else {
        let (name, openapi) = (String::new(), String::new());
        return Some(ApiDocument { name, workspace: None, openapi, base_path: None });
    };
    let name = name(walk, &fields);
    let workspace = fields.read(walk, "workspace", locality);
    let openapi = fields.require(walk, "openapi", "a file with an OpenAPI document", file);
    let base_path = fields.read(walk, "base_path", |walk, node, path| {
        walk.parsed(node, path, "bad-path", scalars::prefix)
    });
    Some(ApiDocument { name, workspace, openapi: openapi.unwrap_or_default(), base_path })
}

fn file(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.parsed(node, path, "bad-value", |text| match text {
        "" => Err("expected the name of a file".into()),
        text => Ok(text.into()),
    })
}

pub(super) fn validate(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Validate> {
    const KNOWN: &[&str] = &["api", "parameters", "body", "max_bytes", "mode", "undocumented"];
    const MODES: &[(&str, ValidateMode)] =
        &[("enforce", ValidateMode::Enforce), ("log", ValidateMode::Log)];
    const UNDOCUMENTED: &[(&str, Undocumented)] =
        &[("refuse", Undocumented::Refuse), ("pass", Undocumented::Pass)];
    let f = walk.fields(node, path, KNOWN)?;
    let api = f.read(walk, "api", |walk, node, path| walk.text(node, path));
    let known = f.node("api").is_some();
    let parameters = f.read(walk, "parameters", |walk, node, path| {
        walk.places.set(path, node.mark);
        match (&node.value, known) {
            (Value::Bool(on), true) => Some(RuleParameters::Flag(*on)),
            (Value::Bool(false), false) => Some(RuleParameters::Flag(false)),
            (Value::List(_), false) => {
                let list = walk.list(node, path, |walk, node, path| value(walk, node, path))?;
                Some(RuleParameters::Own(list))
            }
            (_, true) => {
                walk.wrong_type(
                    node,
                    path,
                    "true or false (the API says which parameters there are)",
                );
                None
            }
            (_, false) => {
                walk.wrong_type(node, path, "a list of parameters as in OpenAPI, or an `api`");
                None
            }
        }
    });
    let body = f.read(walk, "body", |walk, node, path| {
        walk.places.set(path, node.mark);
        match (&node.value, known) {
            (Value::Bool(on), true) => Some(RuleBody::Flag(*on)),
            (Value::Bool(false), false) => Some(RuleBody::Flag(false)),
            (Value::Map(_), false) => own_body(walk, node, path).map(RuleBody::Own),
            (_, true) => {
                walk.wrong_type(node, path, "true or false (the API says what bodies must be)");
                None
            }
            (_, false) => {
                walk.wrong_type(node, path, "a map with `schema`, or an `api`");
                None
            }
        }
    });
    if f.node("api").is_none() && f.node("parameters").is_none() && f.node("body").is_none() {
        let message =
            "there is nothing to hold requests against; expected `api`, `parameters` or `body`";
        walk.error("missing-field", node, path, message.into());
    }
    let max_bytes = f.read(walk, "max_bytes", size).unwrap_or(DEFAULT_VALIDATED_BYTES);
    if let Some(node) = f.node("max_bytes")
        && max_bytes > u64::from(MAX_VALIDATED_BODY)
    {
        let message = format!("at most {MAX_VALIDATED_BODY} bytes (16MiB) are validated");
        walk.error("out-of-range", node, &f.at("max_bytes"), message);
    }
    let mode = f.read(walk, "mode", |walk, node, path| walk.word(node, path, MODES));
    let undocumented =
        f.read(walk, "undocumented", |walk, node, path| walk.word(node, path, UNDOCUMENTED));
    Some(Validate {
        api,
        parameters: parameters.unwrap_or(RuleParameters::Flag(known)),
        body: body.unwrap_or(RuleBody::Flag(known)),
        max_bytes,
        mode: mode.unwrap_or_default(),
        undocumented: undocumented.unwrap_or_default(),
    })
}

fn own_body(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<OwnBody> {
    let fields = walk.fields(node, path, &["schema", "required"])?;
    let schema =
        fields.require(walk, "schema", "a file or a schema", |walk, node, path| {
            match &node.value {
                Value::Text(_) => file(walk, node, path).map(SchemaSource::File),
                _ => {
                    walk.places.set(path, node.mark);
                    value(walk, node, path).map(SchemaSource::Inline)
                }
            }
        });
    let required = flag(walk, &fields, "required", true);
    Some(OwnBody { schema: schema?, required })
}

/// Anything, as JSON.
pub(super) fn value(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Json> {
    Some(match &node.value {
        Value::Null => Json::Null,
        Value::Bool(on) => Json::Bool(*on),
        Value::Integer(number) => match i64::try_from(*number) {
            Ok(number) => number.into(),
            Err(_) if u64::try_from(*number).is_ok() => (*number as u64).into(),
            Err(_) => Json::Number(Number::from_f64(*number as f64)?),
        },
        Value::Float(text) => match text.parse().ok().and_then(Number::from_f64) {
            Some(number) => Json::Number(number),
            None => {
                walk.wrong_type(node, path, "a number that JSON has");
                return None;
            }
        },
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => {
            let items = items.iter().map(|item| value(walk, item, path));
            Json::Array(items.collect::<Option<_>>()?)
        }
        Value::Map(entries) => {
            let mut map = Map::new();
            for entry in entries {
                map.insert(entry.key.clone(), value(walk, &entry.value, path)?);
            }
            Json::Object(map)
        }
    })
}
