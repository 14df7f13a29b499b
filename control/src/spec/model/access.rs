//! What routes ask of callers, in the spec.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cidr, schema};

/// What a route asks of its callers. A name, or a list of them, is short for any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "schema::RouteAuthForm", into = "schema::RouteAuthForm")]
pub struct RouteAuth {
    /// Names, at least one.
    pub authenticators: Vec<String>,
    /// All of them have to agree on one caller; otherwise any of them is enough.
    pub all: bool,
    pub unidentified: Unidentified,
    pub scopes: Vec<String>,
    pub groups: Vec<String>,
    pub policy: Option<String>,
    pub hide_credentials: bool,
}

/// What becomes of a request without a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Unidentified {
    /// 401.
    #[default]
    Refuse,
    /// It goes on as nobody's.
    Pass,
    /// It goes on as the consumer of this name.
    As(String),
}

/// Which addresses a route serves. The longer prefix goes before the shorter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Networks {
    /// Only these. Without it: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub allow: Vec<Cidr>,
    /// Not these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Cidr>,
}

/// Cross-origin requests of browsers, answered here; upstreams' own fields about it are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins that may read: "*" for all, or a list like ["https://app.example.com",
    /// "https://*.example.com"].
    pub origins: Origins,
    /// Methods that may be used. Empty: those of the route, or the usual ones.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Header fields that may be sent. Empty: whatever is asked for.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Header fields that scripts may read beside the usual ones.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Cookies and other credentials may be sent. Not with "*".
    #[serde(default)]
    pub credentials: bool,
    /// How long browsers may remember what is allowed, in seconds.
    #[serde(default = "Cors::default_max_age_s")]
    #[schemars(range(max = 86_400))]
    pub max_age_s: u32,
    /// Public pages may call, although we are in a private network.
    #[serde(default)]
    pub private_network: bool,
}

impl Cors {
    pub(crate) fn default_max_age_s() -> u32 {
        600
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "schema::OriginsForm", into = "schema::OriginsForm")]
pub enum Origins {
    Any,
    /// At least one.
    Listed(Vec<String>),
}
