//! The short forms of what a spec says about callers.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::spec::model::{
    ClaimRule, ClaimTest, ClientProof, CredentialSource, Discovery, KeyStore, OAuthClient, Origins,
    RedisKeys, RouteAuth, Secret, Unidentified,
};
use crate::spec::scalars::{Digest, Timestamp};

/// What takes whatever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnyWord {
    /// Whatever comes.
    Any,
}

/// Where in a request a credential is: "bearer", {header: NAME}, {query: NAME} or {cookie: NAME}.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SourceForm {
    Word(BearerWord),
    Header(HeaderSource),
    Query(QuerySource),
    Cookie(CookieSource),
}

#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BearerWord {
    /// Authorization: Bearer (RFC 6750).
    Bearer,
}

/// A header field.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderSource {
    /// Name of the field.
    header: String,
    /// What stands before the credential, such as Token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheme: Option<String>,
}

/// A parameter of the query. It ends up in logs and histories: use it as the last resort.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuerySource {
    /// Name of the parameter.
    query: String,
}

/// A cookie.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CookieSource {
    /// Name of the cookie.
    cookie: String,
}

impl From<SourceForm> for CredentialSource {
    fn from(form: SourceForm) -> Self {
        match form {
            SourceForm::Word(BearerWord::Bearer) => CredentialSource::Bearer,
            SourceForm::Header(HeaderSource { header, scheme }) => {
                CredentialSource::Header { name: header, scheme }
            }
            SourceForm::Query(QuerySource { query }) => CredentialSource::Query(query),
            SourceForm::Cookie(CookieSource { cookie }) => CredentialSource::Cookie(cookie),
        }
    }
}

impl From<CredentialSource> for SourceForm {
    fn from(source: CredentialSource) -> Self {
        match source {
            CredentialSource::Bearer => SourceForm::Word(BearerWord::Bearer),
            CredentialSource::Header { name, scheme } => {
                SourceForm::Header(HeaderSource { header: name, scheme })
            }
            CredentialSource::Query(query) => SourceForm::Query(QuerySource { query }),
            CredentialSource::Cookie(cookie) => SourceForm::Cookie(CookieSource { cookie }),
        }
    }
}

/// A claim that must be there: its name, or how it must be.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // Only its schema is used.
pub enum AnyClaimRule {
    /// Name of the claim.
    Short(String),
    Full(ClaimRuleForm),
}

/// Where API keys are known: embedded (in the spec), or in Redis too.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // Only its schema is used.
pub enum KeyStoreForm {
    Word(KeyStoreWord),
    Redis(RedisStore),
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code)] // Only its schema is used.
pub enum KeyStoreWord {
    /// In the spec.
    Embedded,
    /// In the spec's redis too, with the defaults.
    Redis,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // Only its schema is used.
pub struct RedisStore {
    /// In the spec's redis, too.
    redis: RedisKeys,
}

/// A claim that must be there; with one of one_of, equals and prefix also like this.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRuleForm {
    /// Name of the claim; names of nested ones are joined by dots.
    claim: String,
    /// The claim is one of these, or a list with one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    one_of: Option<Vec<ClaimValue>>,
    /// Short for one_of with one value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    equals: Option<ClaimValue>,
    /// The claim begins with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
}

/// A value of a claim: text, a whole number, true or false.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ClaimValue {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl From<ClaimValue> for String {
    fn from(value: ClaimValue) -> String {
        match value {
            ClaimValue::Text(text) => text,
            ClaimValue::Number(number) => number.to_string(),
            ClaimValue::Flag(flag) => flag.to_string(),
        }
    }
}

impl TryFrom<ClaimRuleForm> for ClaimRule {
    type Error = &'static str;

    fn try_from(form: ClaimRuleForm) -> Result<Self, Self::Error> {
        let test = match (form.one_of, form.equals, form.prefix) {
            (None, None, None) => ClaimTest::Present,
            (Some(values), None, None) => {
                ClaimTest::OneOf(values.into_iter().map(Into::into).collect())
            }
            (None, Some(value), None) => ClaimTest::OneOf(vec![value.into()]),
            (None, None, Some(prefix)) => ClaimTest::Prefix(prefix),
            _ => return Err("a claim has at most one of one_of, equals and prefix"),
        };
        Ok(ClaimRule { claim: form.claim, test })
    }
}

impl From<ClaimRule> for ClaimRuleForm {
    fn from(rule: ClaimRule) -> Self {
        let mut form =
            ClaimRuleForm { claim: rule.claim, one_of: None, equals: None, prefix: None };
        match rule.test {
            ClaimTest::Present => {}
            ClaimTest::OneOf(values) => {
                form.one_of = Some(values.into_iter().map(ClaimValue::Text).collect());
            }
            ClaimTest::Prefix(prefix) => form.prefix = Some(prefix),
        }
        form
    }
}

/// true, or the URL of the document.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DiscoveryForm {
    Issuer(bool),
    At(String),
}

impl TryFrom<DiscoveryForm> for Discovery {
    type Error = &'static str;

    fn try_from(form: DiscoveryForm) -> Result<Self, Self::Error> {
        match form {
            DiscoveryForm::Issuer(true) => Ok(Discovery::Issuer),
            DiscoveryForm::Issuer(false) => Err("discovery is true or a URL"),
            DiscoveryForm::At(url) => Ok(Discovery::At(url)),
        }
    }
}

impl From<Discovery> for DiscoveryForm {
    fn from(discovery: Discovery) -> Self {
        match discovery {
            Discovery::Issuer => DiscoveryForm::Issuer(true),
            Discovery::At(url) => DiscoveryForm::At(url),
        }
    }
}

/// What a route asks of its callers. A name, or a list of them, is short for any.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RouteAuthForm {
    /// Name of an authenticator.
    One(String),
    /// Names of authenticators, any of which is enough.
    Any(#[schemars(length(min = 1))] Vec<String>),
    Full(Box<FullRouteAuth>),
}

/// What a route asks of its callers: any or all of some authenticators, and more.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = any_or_all)]
pub struct FullRouteAuth {
    /// Names of authenticators, tried in this order; the first that knows the caller decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    any: Option<Vec<String>>,
    /// Names of authenticators that all have to agree on one caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    all: Option<Vec<String>>,
    /// true: requests without a credential go on as nobody's. With a wrong one they are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
    /// Requests without a credential go on as this consumer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    anonymous: Option<String>,
    /// Scopes that the caller must have, all of them; else 403.
    #[serde(default)]
    scopes: Vec<String>,
    /// Groups of which the caller must be in one; else 403. Empty: any or none.
    #[serde(default)]
    groups: Vec<String>,
    /// An expression in CEL over request, consumer and claims that must be true; else 403.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    /// true: upstreams do not see the credential. The default is false: they do, as with most
    /// gateways, since many look at the token themselves.
    #[serde(default)]
    hide_credentials: bool,
}

impl TryFrom<RouteAuthForm> for RouteAuth {
    type Error = &'static str;

    fn try_from(form: RouteAuthForm) -> Result<Self, Self::Error> {
        let full = match form {
            RouteAuthForm::One(name) => {
                FullRouteAuth { any: Some(vec![name]), ..FullRouteAuth::default() }
            }
            RouteAuthForm::Any(names) => {
                FullRouteAuth { any: Some(names), ..FullRouteAuth::default() }
            }
            RouteAuthForm::Full(full) => *full,
        };
        let (authenticators, all) = match (full.any, full.all) {
            (Some(any), None) => (any, false),
            (None, Some(all)) => (all, true),
            _ => return Err("auth has one of any and all"),
        };
        let unidentified = match (full.optional, full.anonymous) {
            (false, None) => Unidentified::Refuse,
            (true, None) => Unidentified::Pass,
            (false, Some(consumer)) => Unidentified::As(consumer),
            (true, Some(_)) => return Err("auth has one of optional and anonymous"),
        };
        Ok(RouteAuth {
            authenticators,
            all,
            unidentified,
            scopes: full.scopes,
            groups: full.groups,
            policy: full.policy,
            hide_credentials: full.hide_credentials,
        })
    }
}

impl From<RouteAuth> for RouteAuthForm {
    fn from(auth: RouteAuth) -> Self {
        let (any, all) = match auth.all {
            true => (None, Some(auth.authenticators)),
            false => (Some(auth.authenticators), None),
        };
        let (optional, anonymous) = match auth.unidentified {
            Unidentified::Refuse => (false, None),
            Unidentified::Pass => (true, None),
            Unidentified::As(consumer) => (false, Some(consumer)),
        };
        RouteAuthForm::Full(Box::new(FullRouteAuth {
            any,
            all,
            optional,
            anonymous,
            scopes: auth.scopes,
            groups: auth.groups,
            policy: auth.policy,
            hide_credentials: auth.hide_credentials,
        }))
    }
}

fn any_or_all(schema: &mut Schema) {
    schema.insert("oneOf".into(), json!([{"required": ["any"]}, {"required": ["all"]}]));
}

/// "*" for all, or a list.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OriginsForm {
    Any(Star),
    Listed(#[schemars(length(min = 1))] Vec<String>),
}

#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub enum Star {
    /// All of them.
    #[serde(rename = "*")]
    Star,
}

impl From<OriginsForm> for Origins {
    fn from(form: OriginsForm) -> Self {
        match form {
            OriginsForm::Any(Star::Star) => Origins::Any,
            OriginsForm::Listed(list) => Origins::Listed(list),
        }
    }
}

impl From<Origins> for OriginsForm {
    fn from(origins: Origins) -> Self {
        match origins {
            Origins::Any => OriginsForm::Any(Star::Star),
            Origins::Listed(list) => OriginsForm::Listed(list),
        }
    }
}

/// How the gateway proves who it is to an authorization server: by a secret, a key, or a certificate.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientForm {
    /// Our client_id.
    id: String,
    /// How: without it basic for a secret, tls for cert and key, private_key_jwt for a key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<ProofWord>,
    /// Our client_secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Secret>,
    /// File with our private key in PEM: RSA or P-256, as PKCS#8 for private_key_jwt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// What the authorization server calls the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    /// File with our certificate chain in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cert: Option<String>,
}

/// How the gateway proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProofWord {
    /// Not at all: a public client.
    None,
    /// The secret in Authorization: Basic.
    Basic,
    /// The secret in the body.
    Post,
    /// A signed assertion (RFC 7523).
    PrivateKeyJwt,
    /// A client certificate (RFC 8705).
    Tls,
}

impl TryFrom<ClientForm> for OAuthClient {
    type Error = &'static str;

    fn try_from(form: ClientForm) -> Result<Self, Self::Error> {
        let ClientForm { id, method, secret, key, kid, cert } = form;
        let proof = match (method, secret, cert, key) {
            (None | Some(ProofWord::None), None, None, None) => ClientProof::None,
            (None | Some(ProofWord::Basic), Some(secret), None, None) => ClientProof::Basic(secret),
            (Some(ProofWord::Post), Some(secret), None, None) => ClientProof::Post(secret),
            (None | Some(ProofWord::PrivateKeyJwt), None, None, Some(key)) => {
                return Ok(OAuthClient { id, proof: ClientProof::PrivateKeyJwt { key, kid } });
            }
            (None | Some(ProofWord::Tls), None, Some(cert), Some(key)) => {
                ClientProof::Tls { cert, key }
            }
            _ => return Err("a client has what its method needs, and no more"),
        };
        match kid {
            None => Ok(OAuthClient { id, proof }),
            Some(_) => Err("kid is of a key"),
        }
    }
}

impl From<OAuthClient> for ClientForm {
    fn from(client: OAuthClient) -> Self {
        let id = client.id;
        let mut form =
            ClientForm { id, method: None, secret: None, key: None, kid: None, cert: None };
        form.method = Some(match client.proof {
            ClientProof::None => ProofWord::None,
            ClientProof::Basic(secret) => {
                form.secret = Some(secret);
                ProofWord::Basic
            }
            ClientProof::Post(secret) => {
                form.secret = Some(secret);
                ProofWord::Post
            }
            ClientProof::PrivateKeyJwt { key, kid } => {
                (form.key, form.kid) = (Some(key), kid);
                ProofWord::PrivateKeyJwt
            }
            ClientProof::Tls { cert, key } => {
                (form.cert, form.key) = (Some(cert), Some(key));
                ProofWord::Tls
            }
        });
        form
    }
}

/// Adds the short form `url: URL` beside `urls`.
pub fn one_url(schema: &mut Schema) {
    let url =
        json!({"type": "string", "description": "The one server's address; instead of urls."});
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("url".into(), url);
    }
    schema.remove("required");
    schema.insert("oneOf".into(), json!([{"required": ["url"]}, {"required": ["urls"]}]));
}

/// Adds the short form `requests` and `per` beside `windows`.
pub fn one_window(schema: &mut Schema) {
    let about = "So many requests per `per`; instead of windows.";
    let requests = json!({"type": "integer", "minimum": 1, "description": about});
    let about = "Length of the one window, such as 1s or day.";
    let per = json!({"type": "string", "description": about});
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("requests".into(), requests);
        properties.insert("per".into(), per);
    }
}

/// A struct into which an enum is flattened comes as its fields and a list of alternatives with one
/// field each. Editors complete all fields when they stand in one list.
pub fn fold_kinds(schema: &mut Schema) {
    let Some(Value::Array(kinds)) = schema.remove("oneOf") else { return };
    let mut fields = Map::new();
    let mut choices = Vec::new();
    for kind in kinds {
        let about = kind.get("description").cloned();
        let Some(Value::Object(own)) = kind.get("properties") else { continue };
        choices.push(json!({"required": own.keys().collect::<Vec<_>>()}));
        for (name, field) in own {
            let mut field = field.clone();
            if let (Some(about), Some(field)) = (&about, field.as_object_mut()) {
                field.insert("description".into(), about.clone());
            }
            fields.insert(name.clone(), field);
        }
    }
    schema.remove("unevaluatedProperties");
    schema.insert("additionalProperties".into(), Value::Bool(false));
    schema.insert("oneOf".into(), Value::Array(choices));
    if let Some(properties) =
        schema.ensure_object().entry("properties").or_insert_with(|| json!({})).as_object_mut()
    {
        properties.extend(fields);
    }
}

schema_as!(CredentialSource, SourceForm);
schema_as!(ClaimRule, AnyClaimRule);
schema_as!(KeyStore, KeyStoreForm);
schema_as!(Discovery, DiscoveryForm);
schema_as!(RouteAuth, RouteAuthForm);
schema_as!(Origins, OriginsForm);
schema_as!(OAuthClient, ClientForm);

impl JsonSchema for Digest {
    fn schema_name() -> Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A SHA-256 hash in hexadecimal; colons between the bytes are fine.",
            "pattern": "^([0-9A-Fa-f]{2}:?){32}$",
        })
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A time like 2027-01-01T00:00:00Z (RFC 3339), or a date, which begins in UTC.",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].*)?$",
        })
    }
}
