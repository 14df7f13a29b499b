//! Between JSON and gRPC.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::schema;

/// Largest message that is transcoded when a route does not say it: 4 MiB, as gRPC has it.
pub const DEFAULT_TRANSCODED_BYTES: u64 = 4 * 1024 * 1024;

/// Descriptors of gRPC services, from one of files, descriptor_set and reflection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtoSource {
    /// Unique among protos; routes name it.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// Whose it is: who may change only some workspaces may change it when this is one of them.
    /// Without it: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub workspace: Option<String>,
    /// .proto files, which are compiled. What they import is looked for in `includes`; the files of
    /// google/protobuf, google/api (http, annotations, httpbody) and google/rpc are always there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Directories that names in imports are relative to. Without any: those of the files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub includes: Vec<String>,
    /// File with a FileDescriptorSet, as `protoc --include_imports -o` and `buf build -o` write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor_set: Option<String>,
    /// Ask a server (gRPC server reflection, v1 or v1alpha).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reflection: Option<Reflection>,
}

/// Descriptors that a server tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reflection {
    /// Name of the upstream whose targets are asked, one after the other until one answers.
    pub upstream: String,
    /// How often they are asked again, in seconds. What cannot be had leaves the last answer in use.
    #[serde(default = "default_refresh_s")]
    #[schemars(range(min = 1, max = 86_400))]
    pub refresh_s: u32,
}

fn default_refresh_s() -> u32 {
    DEFAULT_REFRESH_S
}

/// How often reflection is asked when the spec does not say it, in seconds.
pub const DEFAULT_REFRESH_S: u32 = 60;

/// How a route's requests are transcoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transcode {
    /// Name of the descriptors (`protos`).
    pub proto: String,
    /// Full names of the services, such as shop.v1.Catalog.
    #[schemars(length(min = 1))]
    pub services: Vec<String>,
    /// What the upstream speaks: grpc, for clients that speak JSON, or json, for clients that speak
    /// gRPC (unary calls). Who speaks what the upstream does goes on untouched.
    #[serde(default)]
    pub to: TranscodeTarget,
    /// Http rules in place of the annotations (google.api.http) of the methods they name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<HttpBinding>,
    /// Methods without a rule are POST /pkg.Service/Method, with the message as the body.
    #[serde(default)]
    pub auto_mapping: bool,
    /// How answers are written.
    #[serde(default)]
    pub print: PrintOptions,
    /// How streams of answers are written where the client's Accept does not say it.
    #[serde(default)]
    pub streams: StreamFormat,
    /// Parameters of the query that are no fields: refuse, ignore, or the names of those to ignore.
    #[serde(default)]
    pub unknown_query: UnknownQuery,
    /// Fields of the body, and names of enums, that are not known.
    #[serde(default)]
    pub unknown_fields: Unknown,
    /// Tell clients the details of a status (google.rpc.Status).
    #[serde(default = "yes")]
    pub status_details: bool,
    /// Take names of enums in any case.
    #[serde(default)]
    pub case_insensitive_enums: bool,
    /// Largest message of a request, in bytes or as "1MiB"; past it 413.
    #[serde(default = "default_transcoded")]
    #[schemars(with = "schema::SizeForm")]
    pub max_request_bytes: u64,
    /// Largest message of an answer, in bytes or as "1MiB"; past it 502.
    #[serde(default = "default_transcoded")]
    #[schemars(with = "schema::SizeForm")]
    pub max_response_bytes: u64,
}

fn yes() -> bool {
    true
}

fn default_transcoded() -> u64 {
    DEFAULT_TRANSCODED_BYTES
}

/// What the upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TranscodeTarget {
    #[default]
    Grpc,
    Json,
}

/// An http rule (google.api.HttpRule): one of get, put, post, delete, patch and custom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpBinding {
    /// Full name of the method, such as shop.v1.Catalog.GetItem. Not in additional bindings.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Path of the requests, such as /v1/{name=items/*}:publish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub get: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomMethod>,
    /// Field that the body is, * for the whole message. Without it there is no body.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Field that the answer's body is. Without it the whole message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub response_body: String,
    /// More ways to the same method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_bindings: Vec<HttpBinding>,
}

/// Any HTTP method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomMethod {
    /// Its name, or * for any.
    pub kind: String,
    pub path: String,
}

impl HttpBinding {
    /// The method and the path; of several the first.
    pub fn pattern(&self) -> Option<(&str, &str)> {
        let plain = [
            ("GET", &self.get),
            ("PUT", &self.put),
            ("POST", &self.post),
            ("DELETE", &self.delete),
            ("PATCH", &self.patch),
        ];
        let mut plain = plain.into_iter();
        plain
            .find_map(|(method, path)| path.as_deref().map(|path| (method, path)))
            .or_else(|| self.custom.as_ref().map(|own| (own.kind.as_str(), own.path.as_str())))
    }
}

/// How answers are written in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PrintOptions {
    /// Also fields with their default value that have no presence: 0, "", false, [], {}.
    pub always_print_primitive_fields: bool,
    /// Numbers of enums instead of names.
    pub enums_as_ints: bool,
    /// Names of fields as in the .proto files, not in lowerCamelCase.
    pub preserve_proto_field_names: bool,
    /// On lines of their own, indented.
    pub whitespace: bool,
}

/// How a stream of answers is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamFormat {
    /// One JSON array.
    #[default]
    Array,
    /// One message per line.
    Ndjson,
    /// Server-sent events.
    Sse,
}

/// What happens to what is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// 400.
    #[default]
    Refuse,
    /// It is passed over.
    Ignore,
}

/// What happens to parameters of the query that are no fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum UnknownQuery {
    All(Unknown),
    /// These are passed over, others refused.
    Listed(Vec<String>),
}

impl Default for UnknownQuery {
    fn default() -> UnknownQuery {
        UnknownQuery::All(Unknown::Refuse)
    }
}
