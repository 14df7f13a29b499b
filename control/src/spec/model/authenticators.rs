//! Ways to prove who one is, in the spec.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fetch, Introspection, Jwt, Login, schema};

/// One way to prove who one is: a name, and one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::fold_kinds)]
pub struct Authenticator {
    /// Unique among authenticators; what routes refer to.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// Whose it is: who may change only some workspaces may change it when this is one of them.
    /// Without it: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub workspace: Option<String>,
    #[serde(flatten)]
    pub kind: AuthenticatorKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthenticatorKind {
    /// API keys, looked up by their hash.
    ApiKey(ApiKeys),
    /// JSON Web Tokens (RFC 7519), verified here.
    Jwt(Box<Jwt>),
    /// Tokens that an authorization server is asked about (RFC 7662).
    Introspection(Box<Introspection>),
    /// Browsers, which are sent to a login (OpenID Connect) and get a session.
    Login(Box<Login>),
    /// Client certificates, verified by the listener's client_auth.
    Certificate(Certificates),
    /// Name and password (RFC 7617).
    Basic(Basic),
    /// Signed requests (RFC 9421).
    Signature(Signature),
    /// A service of your own decides.
    External(Box<External>),
}

impl AuthenticatorKind {
    /// As the spec calls it.
    pub fn word(&self) -> &'static str {
        match self {
            AuthenticatorKind::ApiKey(_) => "api_key",
            AuthenticatorKind::Jwt(_) => "jwt",
            AuthenticatorKind::Introspection(_) => "introspection",
            AuthenticatorKind::Login(_) => "login",
            AuthenticatorKind::Certificate(_) => "certificate",
            AuthenticatorKind::Basic(_) => "basic",
            AuthenticatorKind::Signature(_) => "signature",
            AuthenticatorKind::External(_) => "external",
        }
    }
}

/// Where in a request a credential is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "schema::SourceForm", into = "schema::SourceForm")]
pub enum CredentialSource {
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// The value of a field (lower case), behind a scheme where one is named.
    Header {
        name: String,
        scheme: Option<String>,
    },
    Query(String),
    Cookie(String),
}

/// API keys, looked up by their hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApiKeys {
    /// Where the key is: {header: NAME}, bearer, {query: NAME} or {cookie: NAME}. In two of them at
    /// once it is refused.
    #[schemars(length(min = 1))]
    pub from: Vec<CredentialSource>,
    /// Where keys are known: embedded (the consumers' api_keys), or {redis: {}} beside those.
    pub store: KeyStore,
}

impl Default for ApiKeys {
    fn default() -> Self {
        let header = CredentialSource::Header { name: "x-api-key".into(), scheme: None };
        ApiKeys { from: vec![header], store: KeyStore::Embedded }
    }
}

/// Where API keys are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStore {
    /// In the spec.
    #[default]
    Embedded,
    /// In the spec's redis, too.
    Redis(RedisKeys),
}

/// API keys in Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisKeys {
    /// A key's record stands at this and the SHA-256 of the key in hexadecimal.
    pub prefix: String,
    /// How long a record is believed, in milliseconds, while Redis tells of changes.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub cache_ms: u32,
    /// How long it is believed that there is no record, in milliseconds.
    #[schemars(range(max = 3_600_000))]
    pub negative_ms: u32,
    /// How long known keys go on while Redis cannot be asked, in milliseconds. Unknown ones get 503.
    #[schemars(range(max = 86_400_000))]
    pub grace_ms: u32,
    /// Longest look-up, in milliseconds.
    #[schemars(range(min = 1, max = 60_000))]
    pub timeout_ms: u32,
}

impl Default for RedisKeys {
    fn default() -> Self {
        RedisKeys {
            prefix: "sluice:key:".into(),
            cache_ms: 60_000,
            negative_ms: 5_000,
            grace_ms: 300_000,
            timeout_ms: 500,
        }
    }
}

/// Client certificates, verified by the listener's client_auth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// true: a certificate that is no consumer's is refused; false: its name is the caller's.
    pub consumer_required: bool,
}

/// Name and password (RFC 7617), compared with the consumers' passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Basic {
    /// What browsers show when they ask.
    pub realm: String,
}

impl Default for Basic {
    fn default() -> Self {
        Basic { realm: "sluice".into() }
    }
}

/// Signed requests (RFC 9421), by the consumers' signing_keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Signature {
    /// What a signature must cover: derived components such as @method, and header fields.
    /// content-digest only of requests with a body. Whoever signs that signs the body: another one is
    /// refused (400), and no upstream gets all of it. It must be by sha-256 or sha-512.
    #[schemars(length(min = 1))]
    pub components: Vec<String>,
    /// How old a signature may be, in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub max_age_s: u32,
}

impl Default for Signature {
    fn default() -> Self {
        let components = ["@method", "@target-uri", "content-digest"];
        Signature { components: components.map(Into::into).into(), max_age_s: 300 }
    }
}

/// A service of your own decides: 2xx lets a request in, 401 and 403 do not, others are its fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Whom to ask.
    pub url: String,
    /// Header fields of the request that it gets; also what decisions are remembered by.
    #[serde(default = "External::default_send")]
    pub send: Vec<String>,
    /// Header fields of its answer that upstreams get. Clients cannot send them.
    #[serde(default)]
    pub take: Vec<String>,
    /// Header field of its answer with the name of the consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_header: Option<String>,
    /// How long a decision is believed, in milliseconds; 0: it is asked each time.
    #[serde(default)]
    #[schemars(range(max = 3_600_000))]
    pub cache_ms: u32,
    #[serde(flatten)]
    pub fetch: Fetch,
}

impl External {
    pub(crate) fn default_send() -> Vec<String> {
        vec!["authorization".into()]
    }
}
