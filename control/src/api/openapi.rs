//! The OpenAPI 3.1 document of the API, made of its operations.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::operation::{Answer, Operation, Parameter};
use super::table;
use crate::spec::REDACTED;

/// A generator whose definitions stand where OpenAPI wants them.
pub fn generator() -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    settings.into_generator()
}

/// The whole document.
pub fn document() -> Value {
    let mut generator = generator();
    let operations = table::operations(&mut generator);
    let mut schemas = generator.take_definitions(true);
    shown(&mut schemas);
    let mut paths: Map<String, Value> = Map::new();
    for one in &operations {
        let path = paths.entry(one.path.clone()).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(one.method.as_str().to_ascii_lowercase(), operation(one));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The admin API of the Sluice gateway",
            "description": "What is configured stands below `/v1/spec`; how things stand, elsewhere. Every change is checked whole before it is made, is a revision, and can be undone. Refusals are `application/problem+json` (RFC 9457).",
            "license": {"name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT"},
        },
        "servers": [{"url": "/", "description": "Where this document comes from"}],
        "tags": [
            {"name": "spec", "description": "What is configured"},
            {"name": "revisions", "description": "What was configured, and going back to it"},
            {"name": "questions", "description": "What a spec would do"},
            {"name": "state", "description": "How things stand"},
            {"name": "node", "description": "For probes and scrapers: nobody needs to be known"},
        ],
        "security": [{"token": []}, {"certificate": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "slt_...",
                    "description": "A token of `admin.access` (`sluice keys admin-token` makes one), or the one in the state directory. While nobody is listed none is needed.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate issued by `admin.tls.client_ca` with a name of `admin.access`.",
                },
            },
        },
    })
}

fn operation(one: &Operation) -> Value {
    let mut out = json!({
        "operationId": one.id,
        "tags": [one.tag],
        "summary": one.summary,
        "parameters": one.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": answers(one),
    });
    let Some(out_fields) = out.as_object_mut() else { return out };
    match one.role {
        Some(role) => {
            out_fields.insert("x-sluice-role".into(), json!(role));
            out_fields.insert("description".into(), format!("Needs the role {role}.").into());
        }
        None => drop(out_fields.insert("security".into(), json!([]))),
    }
    if let Some((kinds, schema)) = &one.body {
        let content: Map<String, Value> =
            kinds.iter().map(|kind| ((*kind).into(), json!({"schema": schema}))).collect();
        let body = json!({"required": !one.body_optional, "content": content});
        out_fields.insert("requestBody".into(), body);
    }
    out
}

fn parameter(one: &Parameter) -> Value {
    json!({
        "name": one.name,
        "in": one.place,
        "required": one.required,
        "description": one.about,
        "schema": one.schema,
    })
}

/// Its own answers, and those that any operation of its kind has.
fn answers(one: &Operation) -> Value {
    let mut out = Map::new();
    let problem = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}});
    let mut usual: Vec<(u16, &str)> = Vec::new();
    if one.role.is_some() {
        usual.extend([
            (400, "The request makes no sense"),
            (401, "Nobody is proven by token or certificate"),
            (403, "Who asks may not, or the request came from a web page"),
            (408, "The request did not come in time"),
            (413, "The body is too large"),
            (500, "A defect; please report it"),
            (503, "The store or the engine cannot do it now; the detail says why"),
        ]);
    } else {
        usual.extend([(403, "The request came from a web page")]);
    }
    if one.body.is_some() {
        usual.push((415, "The body is of another media type"));
    }
    if one.changes {
        usual.extend([
            (404, "There is no such thing"),
            (409, "It contradicts itself or what there is, or the same idempotency key is in use just now"),
            (412, "It is not as If-Match or If-None-Match say"),
            (422, "The spec would have problems, or the idempotency key was used for another request"),
        ]);
    }
    for (status, about) in usual {
        out.insert(status.to_string(), json!({"description": about, "content": problem}));
    }
    if let Some(unknown) = out.get_mut("401").and_then(Value::as_object_mut) {
        unknown.insert("headers".into(), json!({"WWW-Authenticate": field("WWW-Authenticate")}));
    }
    for Answer { status, about, body, fields } in &one.answers {
        let mut answer = json!({"description": about});
        if let Some(answer) = answer.as_object_mut() {
            if let Some((kind, schema)) = body {
                answer.insert("content".into(), json!({(*kind): {"schema": schema}}));
            }
            if !fields.is_empty() {
                let fields: Map<String, Value> =
                    fields.iter().map(|name| ((*name).into(), field(name))).collect();
                answer.insert("headers".into(), fields.into());
            }
        }
        out.insert(status.as_str().into(), answer);
    }
    out.into()
}

fn field(name: &str) -> Value {
    let about = match name {
        "ETag" => "What If-Match takes to change just this",
        "Link" => "rel=\"next\": the next page (RFC 8288); without it this is the last",
        "Location" => "Where the new thing is",
        "WWW-Authenticate" => "How to prove who one is (RFC 6750 §3)",
        _ => "",
    };
    json!({"description": about, "schema": {"type": "string"}})
}

/// Where secrets are not shown something else stands in their place.
fn shown(schemas: &mut Map<String, Value>) {
    let hash = schemas.get_mut("Password").and_then(|one| one.pointer_mut("/properties/hash"));
    if let Some(hash) = hash.and_then(Value::as_object_mut) {
        let plain = REDACTED.replace('[', "\\[").replace(']', "\\]");
        hash.insert("pattern".into(), format!("^(\\$argon2id\\$|{plain}$)").into());
    }
}
