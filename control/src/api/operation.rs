//! One operation of the API: what it is called, who may, what it takes and answers, and what does it.
//! The router and the OpenAPI document are both made of these, so that neither knows what the other
//! does not.

use axum::{
    handler::Handler,
    http::{Method, StatusCode},
    routing::{MethodFilter, MethodRouter, on},
};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use crate::{running::Running, spec::Role};

/// What is taken for JSON.
pub const JSON: &[&str] = &["application/json"];
/// What is taken for a merge patch (RFC 7396).
pub const PATCH: &[&str] = &["application/merge-patch+json", "application/json"];
/// What is taken for the text of a spec.
pub const SPEC: &[&str] = &["application/yaml", "application/json"];

/// A parameter in the query, the path or a header field.
pub struct Parameter {
    pub name: String,
    /// `query`, `path` or `header`.
    pub place: &'static str,
    pub required: bool,
    pub about: String,
    pub schema: Value,
}

pub struct Answer {
    pub status: StatusCode,
    pub about: &'static str,
    /// Media type and schema; none: no body.
    pub body: Option<(&'static str, Value)>,
    pub fields: Vec<&'static str>,
}

pub struct Operation {
    pub method: Method,
    /// With `{name}` for what varies.
    pub path: String,
    /// Unique; what the audit log calls it.
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: String,
    /// Who may; `None`: anybody, without being known.
    pub role: Option<Role>,
    /// It changes something: it is audited, and knows idempotency keys.
    pub changes: bool,
    pub parameters: Vec<Parameter>,
    /// Media types and schema.
    pub body: Option<(&'static [&'static str], Value)>,
    /// Without a body all is as usual.
    pub body_optional: bool,
    pub answers: Vec<Answer>,
    pub call: MethodRouter<Running>,
}

impl Operation {
    pub fn new<H, T>(
        (method, path): (Method, impl Into<String>),
        (tag, id): (&'static str, &'static str),
        summary: impl Into<String>,
        handler: H,
    ) -> Operation
    where
        H: Handler<T, Running>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        let path = path.into();
        let parameters = path_parameters(&path);
        Operation {
            role: Some(if method == Method::GET { Role::Viewer } else { Role::Editor }),
            method,
            path,
            id,
            tag,
            summary: summary.into(),
            changes: false,
            parameters,
            body: None,
            body_optional: false,
            answers: Vec::new(),
            call: on(filter, handler),
        }
    }

    pub fn role(self, role: Role) -> Operation {
        Operation { role: Some(role), ..self }
    }

    pub fn open(self) -> Operation {
        Operation { role: None, ..self }
    }

    /// It changes something.
    pub fn change(mut self) -> Operation {
        self.header("Idempotency-Key", "Any text that is new for a new change: the same request with the same key within 24 h gets the first one's answer, and nothing is done again.", 255);
        Operation { changes: true, ..self }
    }

    pub fn if_match(mut self, about: &str) -> Operation {
        self.header("If-Match", about, 1_000);
        self
    }

    pub fn if_none_match(mut self) -> Operation {
        self.header("If-None-Match", "`*`: only if there is no such thing yet.", 1_000);
        self
    }

    fn header(&mut self, name: &str, about: &str, most: u32) {
        self.parameters.push(Parameter {
            name: name.into(),
            place: "header",
            required: false,
            about: about.into(),
            schema: serde_json::json!({"type": "string", "minLength": 1, "maxLength": most}),
        });
    }

    /// The fields of `T` as parameters in the query.
    pub fn query<T: JsonSchema>(mut self) -> Operation {
        let mut settings = schemars::generate::SchemaSettings::draft2020_12();
        settings.inline_subschemas = true;
        let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
        let fields = schema.get("properties").and_then(Value::as_object);
        for (name, field) in fields.into_iter().flatten() {
            let mut schema = field.clone();
            let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            let about = about.to_owned();
            if let Some(schema) = schema.as_object_mut() {
                schema.remove("description");
                schema.remove("default");
                // Absent, not null: a query has no null.
                if let Some(Value::Array(kinds)) = schema.get("type").cloned() {
                    let kind = kinds.into_iter().find(|kind| kind != "null");
                    schema.insert("type".into(), kind.unwrap_or_default());
                }
            }
            let (name, place) = (name.clone(), "query");
            self.parameters.push(Parameter { name, place, required: false, about, schema });
        }
        self
    }

    pub fn takes(self, kinds: &'static [&'static str], schema: Value) -> Operation {
        Operation { body: Some((kinds, schema)), ..self }
    }

    pub fn may_take(self, kinds: &'static [&'static str], schema: Value) -> Operation {
        Operation { body_optional: true, ..self.takes(kinds, schema) }
    }

    pub fn answers<T: JsonSchema>(self, g: &mut SchemaGenerator, about: &'static str) -> Operation {
        let schema = g.subschema_for::<T>().to_value();
        self.answer(StatusCode::OK, about, Some(("application/json", schema)))
    }

    pub fn answer(
        mut self,
        status: StatusCode,
        about: &'static str,
        body: Option<(&'static str, Value)>,
    ) -> Operation {
        self.answers.push(Answer { status, about, body, fields: Vec::new() });
        self
    }

    /// Fields of the answer that came last.
    pub fn with_fields(mut self, fields: &[&'static str]) -> Operation {
        if let Some(answer) = self.answers.last_mut() {
            answer.fields = fields.to_vec();
        }
        self
    }

    /// Problems beyond those that every operation may answer with.
    pub fn problems(mut self, list: &[(u16, &'static str)]) -> Operation {
        for (status, about) in list {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_REQUEST);
            let problem = serde_json::json!({"$ref": "#/components/schemas/ProblemDocument"});
            self.answers.push(Answer {
                status,
                about,
                body: Some(("application/problem+json", problem)),
                fields: Vec::new(),
            });
        }
        self
    }
}

fn path_parameters(path: &str) -> Vec<Parameter> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let (about, schema) = match name {
            "id" => (
                "Number of the revision.",
                serde_json::json!({"type": "integer", "minimum": 1, "maximum": 9_007_199_254_740_991_u64}),
            ),
            "sha256" => (
                "SHA-256 of the key, in hexadecimal.",
                serde_json::json!({"type": "string", "pattern": "^[0-9a-f]{64}$"}),
            ),
            _ => (
                "Its name.",
                serde_json::json!({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"}),
            ),
        };
        Parameter { name: name.into(), place: "path", required: true, about: about.into(), schema }
    };
    names.map(parameter).collect()
}
