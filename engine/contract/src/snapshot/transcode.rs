//! How requests in JSON become calls, and calls requests in JSON.

/// Index into [`super::Snapshot::protos`].
pub type ProtoIndex = u32;

/// A set of descriptors that routes transcode by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtoSet {
    pub name: String,
    /// A `google.protobuf.FileDescriptorSet` with all that its files import.
    pub descriptors: Vec<u8>,
}

/// How a route transcodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTranscode {
    pub proto: ProtoIndex,
    pub to: TranscodeTo,
    /// Full names. At least one.
    pub services: Vec<String>,
    /// Http rules of the route's own: in place of the annotations of the methods they name.
    pub rules: Vec<HttpRule>,
    /// Methods without a rule are `POST /pkg.Service/Method`.
    pub auto_mapping: bool,
    pub print: PrintJson,
    pub streams: StreamForm,
    pub unknown_query: UnknownQuery,
    /// JSON may have fields and enum names that are not known.
    pub ignore_unknown_fields: bool,
    /// Tell clients the details of a call's status.
    pub status_details: bool,
    /// Names of enums in any case.
    pub any_case_enums: bool,
    /// Largest message of a request, and of an answer, in bytes.
    pub max_request_bytes: u32,
    pub max_response_bytes: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TranscodeTo {
    /// From JSON to gRPC.
    #[default]
    Grpc,
    /// From gRPC to JSON.
    Json,
}

/// One binding of a method (`google.api.HttpRule`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRule {
    /// Which of the route's bindings it is of, for people.
    pub at: u32,
    /// `pkg.Service.Method`
    pub selector: String,
    /// Upper case; `*`: any.
    pub method: String,
    pub path: String,
    pub body: String,
    pub response_body: String,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrintJson {
    /// Fields without presence also with their default.
    pub always: bool,
    pub enums_as_ints: bool,
    /// Fields as the descriptors call them.
    pub proto_names: bool,
    /// On lines of their own.
    pub whitespace: bool,
}

/// How a stream of answers is written, where the client does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamForm {
    #[default]
    Array,
    Ndjson,
    Sse,
}

/// What happens to parameters of a query that are no fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UnknownQuery {
    #[default]
    Refuse,
    Ignore,
    /// These are passed over, others refused.
    Listed(Vec<String>),
}
