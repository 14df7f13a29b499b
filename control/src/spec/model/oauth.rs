//! The gateway as a client of authorization servers, in the spec.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Claims, Fetch, JwsAlgorithm, Jwt, KeySource, OrAny, Secret, schema};

/// The login of browsers: OpenID Connect, authorization code with PKCE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::fold_kinds)]
pub struct Login {
    /// The provider: what iss of its tokens must be.
    pub issuer: String,
    #[serde(flatten)]
    pub keys: KeySource,
    /// Where browsers are sent; without it as discovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_url: Option<String>,
    /// Where codes become tokens; without it as discovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// Where browsers are sent after a logout; without it as discovered, or nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_session_url: Option<String>,
    /// Algorithms that are taken of identity tokens.
    #[serde(default = "Jwt::default_algorithms")]
    #[schemars(length(min = 1))]
    pub algorithms: Vec<JwsAlgorithm>,
    /// Who we are for the provider.
    pub client: OAuthClient,
    /// What aud of identity tokens must name one of; without it our client_id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audiences: Option<OrAny<Vec<String>>>,
    /// What is asked for; openid is among them.
    #[serde(default = "Login::default_scopes")]
    #[schemars(length(min = 1))]
    pub scopes: Vec<String>,
    /// Path, on each host of the routes with this, that the provider sends browsers back to.
    #[serde(default = "Login::default_callback_path")]
    pub callback_path: String,
    /// Path that ends the session.
    #[serde(default = "Login::default_logout_path")]
    pub logout_path: String,
    /// Path to go to after a logout.
    #[serde(default = "Login::default_after_logout")]
    pub after_logout: String,
    /// Name of the session's cookie.
    #[serde(default = "Login::default_cookie")]
    pub cookie: String,
    /// Keys that the cookie is sealed with, newest first, each 32 bytes in hexadecimal or base64.
    /// Without any the node makes its own; several nodes need the same.
    #[serde(default)]
    pub cookie_keys: Vec<Secret>,
    /// Longest session, in seconds.
    #[serde(default = "Login::default_lifetime_s")]
    #[schemars(range(min = 60, max = 2_592_000))]
    pub lifetime_s: u32,
    /// true: upstreams get the access token, as Authorization: Bearer.
    #[serde(default)]
    pub forward_token: bool,
    #[serde(flatten)]
    pub claims: Claims,
    #[serde(flatten)]
    pub fetch: Fetch,
}

impl Login {
    pub(crate) fn default_scopes() -> Vec<String> {
        vec!["openid".into()]
    }

    pub(crate) fn default_callback_path() -> String {
        "/oauth2/callback".into()
    }

    pub(crate) fn default_logout_path() -> String {
        "/oauth2/logout".into()
    }

    pub(crate) fn default_after_logout() -> String {
        "/".into()
    }

    pub(crate) fn default_cookie() -> String {
        "sluice_session".into()
    }

    pub(crate) fn default_lifetime_s() -> u32 {
        8 * 3_600
    }
}

/// How the gateway proves who it is to an authorization server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "schema::ClientForm", into = "schema::ClientForm")]
pub struct OAuthClient {
    pub id: String,
    pub proof: ClientProof,
}

/// RFC 6749 §2.3, RFC 7523, RFC 8705 §2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientProof {
    /// A public client.
    None,
    Basic(Secret),
    Post(Secret),
    PrivateKeyJwt {
        /// File.
        key: String,
        kid: Option<String>,
    },
    Tls {
        /// Files.
        cert: String,
        key: String,
    },
}

/// A token of our own that goes with every request (client credentials, RFC 6749 §4.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::fold_kinds)]
pub struct ClientCredentials {
    #[serde(flatten)]
    pub endpoint: TokenEndpoint,
    /// Who we are for the authorization server.
    pub client: OAuthClient,
    /// What is asked for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Whom the token is for (RFC 8707).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    #[serde(flatten)]
    pub fetch: Fetch,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenEndpoint {
    /// URL of the token endpoint.
    TokenUrl(String),
    /// URL of the provider's metadata, which names it.
    Discovery(String),
}
