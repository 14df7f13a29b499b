//! What requests must look like.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::schema;

/// Largest body that is held against a schema when a route does not say it: 1 MiB.
pub const DEFAULT_VALIDATED_BYTES: u64 = 1024 * 1024;

/// An API that an OpenAPI document describes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiDocument {
    /// Unique among APIs; routes name it.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// Whose it is: who may change only some workspaces may change it when this is one of them.
    /// Without it: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub workspace: Option<String>,
    /// File with an OpenAPI document (3.0 or 3.1), in YAML or JSON.
    pub openapi: String,
    /// What goes before its paths, such as /v1. Without it the path of the document's first server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_path: Option<String>,
}

/// What the requests of a route must look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Validate {
    /// Name of an API: requests must be as the operation for their method and path says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// With `api`: whether parameters are looked at. Without: the parameters, as OpenAPI writes them.
    #[serde(default)]
    pub parameters: RuleParameters,
    /// With `api`: whether bodies are looked at. Without: what they must be.
    #[serde(default)]
    pub body: RuleBody,
    /// Largest body that is held against a schema, in bytes or as "1MiB"; past it 413.
    #[serde(default = "default_max_bytes")]
    #[schemars(with = "schema::SizeForm")]
    pub max_bytes: u64,
    /// Whether requests are refused, or only counted.
    #[serde(default)]
    pub mode: ValidateMode,
    /// What is done with requests that are no operation of the API.
    #[serde(default)]
    pub undocumented: Undocumented,
}

fn default_max_bytes() -> u64 {
    DEFAULT_VALIDATED_BYTES
}

/// Which parameters are looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RuleParameters {
    /// Those of the API, or none.
    Flag(bool),
    /// Parameter objects of OpenAPI: {name, in, required, schema}.
    Own(Vec<Value>),
}

impl Default for RuleParameters {
    fn default() -> RuleParameters {
        RuleParameters::Flag(true)
    }
}

impl RuleParameters {
    pub fn is_on(&self) -> bool {
        *self != RuleParameters::Flag(false)
    }

    pub fn own(&self) -> &[Value] {
        match self {
            RuleParameters::Flag(_) => &[],
            RuleParameters::Own(list) => list,
        }
    }
}

/// What bodies are held against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RuleBody {
    /// The API's schemas, or none.
    Flag(bool),
    Own(OwnBody),
}

impl Default for RuleBody {
    fn default() -> RuleBody {
        RuleBody::Flag(true)
    }
}

impl RuleBody {
    pub fn is_on(&self) -> bool {
        *self != RuleBody::Flag(false)
    }

    pub fn own(&self) -> Option<&OwnBody> {
        match self {
            RuleBody::Flag(_) => None,
            RuleBody::Own(body) => Some(body),
        }
    }
}

/// A body that has to be JSON of a schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnBody {
    /// A JSON Schema (draft 2020-12): the file that holds it, or itself.
    pub schema: SchemaSource,
    /// Whether there must be a body.
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

/// Where a schema stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SchemaSource {
    /// A file, in YAML or JSON.
    File(String),
    /// Here.
    Inline(Value),
}

/// What happens to requests that are not valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValidateMode {
    /// They are refused: 400, or 404, 405, 413, 415.
    #[default]
    Enforce,
    /// They are counted and go on.
    Log,
}

/// What happens to requests that are no operation of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Undocumented {
    /// 404, or 405 for the method.
    #[default]
    Refuse,
    Pass,
}
