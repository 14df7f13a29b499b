//! Authenticators by tokens, in the spec.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CredentialSource, OAuthClient, Secret, schema};

/// What claims must say, and what they mean. Claims are called by their names, dots and all, such as
/// https://example.com/roles; where there is none of that name, dots lead into nested ones: org.name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Claims {
    /// Clocks may differ by this much, in seconds.
    #[schemars(range(max = 3_600))]
    pub leeway_s: u32,
    /// Claims that must be there.
    pub require: Vec<ClaimRule>,
    /// Claims with the scopes, as a text with spaces or a list.
    pub scope_claims: Vec<String>,
    /// Claim with groups, as a list or a text with spaces: groups, realm_access.roles for the roles in
    /// realm_access, https://example.com/roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups_claim: Option<String>,
    /// Claim that says who calls: a consumer's subject, or else a consumer's name.
    pub consumer_claim: String,
    /// true: who is no consumer of the spec is refused.
    pub consumer_required: bool,
    /// Header fields that upstreams are told claims in, by claim, such as sub, or org.name for the name
    /// in org, or https://example.com/roles. Clients cannot send these fields.
    pub claim_headers: BTreeMap<String, String>,
}

impl Default for Claims {
    fn default() -> Self {
        Claims {
            leeway_s: 60,
            require: Vec::new(),
            scope_claims: vec!["scope".into(), "scp".into()],
            groups_claim: None,
            consumer_claim: "sub".into(),
            consumer_required: false,
            claim_headers: BTreeMap::new(),
        }
    }
}

/// A claim that must be there; with one_of, equals or prefix also like this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "schema::ClaimRuleForm", into = "schema::ClaimRuleForm")]
pub struct ClaimRule {
    pub claim: String,
    pub test: ClaimTest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimTest {
    Present,
    /// The claim is one of these, or a list with one of these.
    OneOf(Vec<String>),
    Prefix(String),
}

/// An algorithm that tokens are signed with (RFC 7518 §3.1, RFC 8037).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum JwsAlgorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl JwsAlgorithm {
    /// Whoever can verify can sign.
    pub fn is_symmetric(self) -> bool {
        matches!(self, JwsAlgorithm::Hs256 | JwsAlgorithm::Hs384 | JwsAlgorithm::Hs512)
    }

    /// As RFC 7518 §3.1 and RFC 8037 §3.1 call it.
    pub fn name(self) -> &'static str {
        match self {
            JwsAlgorithm::Hs256 => "HS256",
            JwsAlgorithm::Hs384 => "HS384",
            JwsAlgorithm::Hs512 => "HS512",
            JwsAlgorithm::Rs256 => "RS256",
            JwsAlgorithm::Rs384 => "RS384",
            JwsAlgorithm::Rs512 => "RS512",
            JwsAlgorithm::Ps256 => "PS256",
            JwsAlgorithm::Ps384 => "PS384",
            JwsAlgorithm::Ps512 => "PS512",
            JwsAlgorithm::Es256 => "ES256",
            JwsAlgorithm::Es384 => "ES384",
            JwsAlgorithm::Es512 => "ES512",
            JwsAlgorithm::EdDsa => "EdDSA",
        }
    }
}

/// JSON Web Tokens (RFC 7519), verified here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::fold_kinds)]
pub struct Jwt {
    /// What iss must be; any: whatever the keys have signed.
    pub issuer: OrAny<String>,
    #[serde(flatten)]
    pub keys: KeySource,
    /// Algorithms that are taken. Default: of a key set all but HS*, otherwise those of the keys.
    #[serde(default = "Jwt::default_algorithms")]
    #[schemars(length(min = 1))]
    pub algorithms: Vec<JwsAlgorithm>,
    /// What aud must name one of; any: whatever it says.
    pub audiences: OrAny<Vec<String>>,
    /// Where the token is: bearer, {header: NAME}, {cookie: NAME} or {query: NAME}.
    #[serde(default = "bearer")]
    #[schemars(length(min = 1))]
    pub from: Vec<CredentialSource>,
    /// Longest life of a token, from iat (or nbf) to exp, in seconds; 0: any.
    #[serde(default)]
    pub max_lifetime_s: u32,
    /// true: tokens without exp are taken.
    #[serde(default)]
    pub allow_endless: bool,
    /// true: only access tokens are taken, with typ at+jwt (RFC 9068).
    #[serde(default)]
    pub access_token: bool,
    /// true: only tokens bound to a client certificate are taken (RFC 8705 §3).
    #[serde(default)]
    pub bound_only: bool,
    #[serde(flatten)]
    pub claims: Claims,
    #[serde(flatten)]
    pub fetch: Fetch,
}

impl Jwt {
    /// All that cannot be signed by whoever can verify.
    pub(crate) fn default_algorithms() -> Vec<JwsAlgorithm> {
        use JwsAlgorithm::*;
        vec![Rs256, Rs384, Rs512, Ps256, Ps384, Ps512, Es256, Es384, Es512, EdDsa]
    }
}

pub(crate) fn bearer() -> Vec<CredentialSource> {
    vec![CredentialSource::Bearer]
}

/// Something, or the word `any`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "{T}OrAny")]
pub enum OrAny<T> {
    /// "any" takes whatever comes.
    Any(schema::AnyWord),
    Some(T),
}

impl<T> OrAny<T> {
    pub const ANY: OrAny<T> = OrAny::Any(schema::AnyWord::Any);

    pub fn as_option(&self) -> Option<&T> {
        match self {
            OrAny::Any(_) => None,
            OrAny::Some(value) => Some(value),
        }
    }
}

impl<T> Default for OrAny<T> {
    fn default() -> Self {
        OrAny::ANY
    }
}

/// Where the keys that tokens are signed with come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// The provider's metadata (OpenID Connect Discovery) names the key set: true for the issuer's
    /// /.well-known/openid-configuration, or the URL of the document.
    Discovery(Discovery),
    /// URL of a JWK Set (RFC 7517 §5). It is fetched again as it says, or when a token names a new key.
    JwksUrl(String),
    /// File with a JWK Set.
    JwksFile(String),
    /// The keys themselves.
    Keys(Vec<StaticKey>),
}

/// Where the provider's metadata is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "schema::DiscoveryForm", into = "schema::DiscoveryForm")]
pub enum Discovery {
    /// Below the issuer (OpenID Connect Discovery 1.0 §4).
    Issuer,
    At(String),
}

impl Discovery {
    /// The URL of the document.
    pub fn url(&self, issuer: Option<&str>) -> Option<String> {
        match self {
            Discovery::At(url) => Some(url.clone()),
            Discovery::Issuer => issuer.map(|issuer| {
                format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
            }),
        }
    }
}

/// A key that tokens are signed with: the one algorithm it is for, and secret or public_key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::fold_kinds)]
pub struct StaticKey {
    #[serde(flatten)]
    pub material: StaticMaterial,
    /// The only algorithm that it verifies.
    pub algorithm: JwsAlgorithm,
    /// What tokens call it; without it any token may be meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StaticMaterial {
    /// The shared secret of HS*, at least as long as the hash.
    Secret(Secret),
    /// File with a public key (-----BEGIN PUBLIC KEY-----) or a certificate, in PEM.
    PublicKey(String),
}

/// How a service is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Fetch {
    /// File with the certificates, in PEM, that the service's must come from; without it the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// true: private and loopback addresses may be asked, and over http://. Link-local ones never are.
    pub allow_private: bool,
    /// Longest wait for an answer, in milliseconds.
    #[schemars(range(min = 1, max = 60_000))]
    pub timeout_ms: u32,
}

impl Default for Fetch {
    fn default() -> Self {
        Fetch { ca: None, allow_private: false, timeout_ms: 5_000 }
    }
}

/// Token introspection (RFC 7662).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::fold_kinds)]
pub struct Introspection {
    /// What iss must be, if the answer has one; also where discovery: true looks.
    #[serde(default)]
    pub issuer: OrAny<String>,
    #[serde(flatten)]
    pub endpoint: IntrospectionEndpoint,
    /// Who we are for the authorization server.
    pub client: OAuthClient,
    /// What aud must name one of; any: whatever it says.
    pub audiences: OrAny<Vec<String>>,
    /// Where the token is: bearer, {header: NAME}, {cookie: NAME} or {query: NAME}.
    #[serde(default = "bearer")]
    #[schemars(length(min = 1))]
    pub from: Vec<CredentialSource>,
    /// true: only tokens bound to a client certificate are taken (RFC 8705 §3).
    #[serde(default)]
    pub bound_only: bool,
    /// Longest that an answer is believed, in milliseconds; never longer than the token lives. 0: each
    /// request is asked about.
    #[serde(default = "Introspection::default_cache_ms")]
    #[schemars(range(max = 3_600_000))]
    pub cache_ms: u32,
    /// How long it is believed that a token is not active, in milliseconds.
    #[serde(default = "Introspection::default_negative_ms")]
    #[schemars(range(max = 3_600_000))]
    pub negative_ms: u32,
    #[serde(flatten)]
    pub claims: Claims,
    #[serde(flatten)]
    pub fetch: Fetch,
}

impl Introspection {
    pub(crate) fn default_cache_ms() -> u32 {
        30_000
    }

    pub(crate) fn default_negative_ms() -> u32 {
        5_000
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntrospectionEndpoint {
    /// URL of the introspection endpoint.
    Url(String),
    /// The provider's metadata names it: true for the issuer's, or the URL of the document.
    Discovery(Discovery),
}
