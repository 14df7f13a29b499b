//! Who calls, how callers prove it, and what they may do.
//!
//! Secrets stand here in the clear (but API keys and passwords, which are hashed before they come
//! this far): a snapshot lives in memory only. Their types print without them.

use std::fmt;

use super::{CertificateIndex, Cidr, Consumers, TrustIndex};

/// Index into [`Auth::consumers`].
pub type ConsumerIndex = u32;
/// Index into [`Auth::authenticators`].
pub type AuthenticatorIndex = u32;
/// Index into [`Auth::key_sets`].
pub type KeySetIndex = u32;

/// All that identifies callers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Auth {
    /// A digest of the rest, of certificates and trust it names: what shards remember of credentials is
    /// forgotten when it changes. 0 where there are no authenticators.
    pub version: u64,
    pub consumers: Consumers,
    pub key_sets: Vec<KeySet>,
    pub authenticators: Vec<Authenticator>,
    /// Where API keys are that are not in the snapshot; also what limits are kept in.
    pub redis: Option<Redis>,
    pub throttle: Throttle,
}

/// Someone who calls: an application, a service, a person. Groups' scopes and policies are merged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumer {
    /// Unique; what upstreams, records and limits call it.
    pub name: String,
    pub groups: Vec<String>,
    /// What it may do. Sorted, none twice.
    pub scopes: Vec<String>,
    /// Name of its limit policy.
    pub limits: Option<String>,
    pub api_keys: Vec<ApiKey>,
    pub passwords: Vec<Password>,
    /// Any of them is enough.
    pub certificates: Vec<CertificateMatch>,
    pub signing_keys: Vec<SigningKey>,
    /// Values of an authenticator's consumer claim that mean this consumer.
    pub subjects: Vec<Subject>,
}

/// An API key, of which only a hash is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// SHA-256 of the whole key as it is sent.
    pub digest: [u8; 32],
    /// Its first characters, by which people recognise it; also its name in records.
    pub prefix: String,
    /// Milliseconds since the Unix epoch; 0: never.
    pub expires_ms: u64,
    /// Narrows the consumer's scopes; `None`: all of them. Sorted, none twice.
    pub scopes: Option<Vec<String>>,
    /// In place of the consumer's.
    pub limits: Option<String>,
}

/// A name and password for HTTP Basic (RFC 7617).
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    /// Unique over all consumers.
    pub username: String,
    /// A PHC string, `$argon2id$…`.
    pub hash: String,
}

impl fmt::Debug for Password {
    /// Without the hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Password").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Which client certificates are a consumer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateMatch {
    /// SHA-256 of the DER certificate.
    Fingerprint([u8; 32]),
    /// The subject's common name.
    CommonName(NamePattern),
    /// A subject alternative name (RFC 5280 §4.2.1.6).
    Dns(NamePattern),
    /// Such as `spiffe://example.org/ns/prod/sa/web`.
    Uri(NamePattern),
    Email(NamePattern),
}

/// Text to be met as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    Exact(String),
    /// `*` stands for any characters but the separators `.`, `/` and `@`, `**` for any at all.
    Glob(String),
}

/// A key that requests are signed with (RFC 9421 §3.3.3, `hmac-sha256`).
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// The parameter `keyid`. Unique over all consumers.
    pub id: String,
    pub secret: Vec<u8>,
}

impl fmt::Debug for SigningKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Whom an identity provider means by this consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub authenticator: AuthenticatorIndex,
    /// Value of [`Tokens::consumer_claim`].
    pub value: String,
}

/// Keys that tokens are signed with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    /// Where control gets them (for messages); empty: they stand in the spec.
    pub source: String,
    /// They have been there once. Without: nobody can be judged, which is the provider's fault (503).
    pub loaded: bool,
    /// Place of this set in [`crate::segment`]'s wishes: a shard that sees an unknown `kid` asks there
    /// for the set to be fetched again. `None`: it cannot change.
    pub wish: Option<u32>,
    pub keys: Vec<VerifyKey>,
}

/// A key that verifies signatures of JSON Web Tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyKey {
    pub kid: Option<String>,
    /// What it may verify: never what a token says (RFC 8725 §3.1). At least one, all of the material's
    /// kind ([`KeyMaterial::suits`]).
    pub algorithms: Vec<JwsAlgorithm>,
    pub material: KeyMaterial,
}

impl fmt::Debug for VerifyKey {
    /// Without the material.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VerifyKey { kid, algorithms, .. } = self;
        f.debug_struct("VerifyKey")
            .field("kid", kid)
            .field("algorithms", algorithms)
            .finish_non_exhaustive()
    }
}

/// RFC 7518 §3.1, RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// P-521.
    Es512,
    EdDsa,
}

/// The key itself, big-endian numbers without leading zeros.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// 2,048 to 8,192 bits.
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// Uncompressed points (SEC 1 §2.3.3), 65, 97 or 133 bytes.
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
    Ed25519([u8; 32]),
    /// Secret. At least as long as the hash (RFC 7518 §3.2).
    Hmac(Vec<u8>),
}

/// One way to prove who one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticator {
    /// Unique.
    pub name: String,
    pub kind: AuthenticatorKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthenticatorKind {
    ApiKey(ApiKeys),
    Jwt(Box<Jwt>),
    Introspection(Box<Introspection>),
    Login(Box<Login>),
    /// The client's certificate, which the listener has verified.
    Certificate(Certificates),
    Basic(Basic),
    Signature(Signature),
    External(Box<External>),
}

/// Where in a request a credential is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// The value of a field (lower case), behind a scheme such as `Bearer` where one is named.
    Header {
        name: String,
        scheme: Option<String>,
    },
    /// A parameter of the query, percent-decoded.
    Query(String),
    Cookie(String),
}

/// Keys that are looked up by their hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeys {
    /// At least one.
    pub from: Vec<CredentialSource>,
    pub store: KeyStore,
}

/// Where API keys are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyStore {
    /// [`Consumer::api_keys`].
    Embedded,
    /// [`Auth::redis`], beside those of the snapshot.
    Redis(RedisKeys),
}

/// API keys in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisKeys {
    /// A key's record stands at this and the SHA-256 of the key in lower-case hexadecimal.
    pub prefix: String,
    /// How long a record is believed while Redis tells of changes.
    pub cache_ms: u32,
    /// How long it is believed that there is no record.
    pub negative_ms: u32,
    /// How long known keys go on while Redis cannot be asked.
    pub grace_ms: u32,
    /// One look-up.
    pub timeout_ms: u32,
}

/// Redis: one server, several among which keys are spread, or a cluster.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Redis {
    /// `redis://[user:password@]host:port[/db]`, or `rediss://` for TLS. One: a server; several: shards
    /// by the hash of a key, or the first nodes known of a cluster. May hold a password.
    pub urls: Vec<String>,
    pub cluster: bool,
    /// `urls` are Sentinels that know where the primary of this name is. Not with `cluster`.
    pub sentinel: Option<String>,
    /// Who must vouch for it over TLS; `None`: what the system trusts.
    pub trust: Option<TrustIndex>,
    /// Longest that a request waits for an answer about limits.
    pub limits_timeout_ms: u32,
}

impl fmt::Debug for Redis {
    /// Without the addresses, which may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("urls", &self.urls.len()).finish_non_exhaustive()
    }
}

/// What is asked of tokens, however they are verified, and what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// At least one.
    pub from: Vec<CredentialSource>,
    /// `iss` has to be this; `None`: anything.
    pub issuer: Option<String>,
    /// `aud` has to name one of them; empty: anything.
    pub audiences: Vec<String>,
    /// Claims that must be there.
    pub require: Vec<ClaimRule>,
    /// Claim with the scopes, a text with spaces or a list: `scope` (RFC 8693 §4.2), `scp`.
    pub scope_claims: Vec<String>,
    /// Claim with groups, a list or a text with spaces.
    pub groups_claim: Option<String>,
    /// Claim that says who calls: one of [`Consumer::subjects`], else the name of a consumer.
    pub consumer_claim: String,
    /// Who is no consumer of ours is refused.
    pub consumer_required: bool,
    /// Claims that upstreams are told: the path of the claim (names between dots), and a field (lower
    /// case) that clients cannot send.
    pub claim_headers: Vec<(String, String)>,
    /// Tokens without a bound certificate (`cnf.x5t#S256`, RFC 8705 §3) are refused. Bound ones are
    /// checked in any case.
    pub bound_only: bool,
    /// Clocks may differ by this much, in seconds.
    pub leeway_s: u32,
}

/// A claim that must be there, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRule {
    /// Names between dots.
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

/// JSON Web Tokens (RFC 7519), verified here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    pub tokens: Tokens,
    pub keys: KeySetIndex,
    /// From `iat` (or `nbf`) to `exp` at most, in seconds; 0: any.
    pub max_lifetime_s: u32,
    /// Tokens without `exp` are taken.
    pub allow_endless: bool,
    /// Only access tokens: `typ` is `at+jwt` (RFC 9068 §4).
    pub access_token: bool,
}

/// An HTTP service that is asked about requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Empty: not discovered yet, so that the answer is 503.
    pub url: String,
    /// `None`: what the system trusts.
    pub trust: Option<TrustIndex>,
    /// Private and loopback addresses may be asked. Link-local ones never are.
    pub allow_private: bool,
    pub timeout_ms: u32,
}

/// How the gateway proves who it is to an authorization server (RFC 6749 §2.3, RFC 8705 §2, RFC 7523).
#[derive(Clone, PartialEq, Eq)]
pub struct OAuthClient {
    pub id: String,
    pub proof: ClientProof,
}

impl fmt::Debug for OAuthClient {
    /// Without the proof.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthClient").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Eq)]
pub enum ClientProof {
    /// A public client.
    None,
    /// `client_secret_basic`.
    Basic(String),
    /// `client_secret_post`.
    Post(String),
    /// `private_key_jwt`: the PKCS#8 key in DER; RS256 or ES256 by its kind.
    PrivateKeyJwt { key: Vec<u8>, kid: Option<String> },
    /// `tls_client_auth`, `self_signed_tls_client_auth`.
    Tls { identity: CertificateIndex },
}

impl fmt::Debug for ClientProof {
    /// Its kind alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientProof::None => "None",
            ClientProof::Basic(_) => "Basic",
            ClientProof::Post(_) => "Post",
            ClientProof::PrivateKeyJwt { .. } => "PrivateKeyJwt",
            ClientProof::Tls { .. } => "Tls",
        })
    }
}

/// Token introspection (RFC 7662).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    pub tokens: Tokens,
    pub endpoint: Endpoint,
    pub client: OAuthClient,
    /// Longest that an answer is believed; never longer than the token lives.
    pub cache_ms: u32,
    /// How long it is believed that a token is not active.
    pub negative_ms: u32,
}

/// The login of browsers: authorization code with PKCE (RFC 6749 §4.1, RFC 7636, OpenID Connect Core
/// 1.0 §3.1), and a session in an encrypted cookie.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Of the identity token. `from` is not looked at.
    pub tokens: Tokens,
    /// What identity tokens are verified with.
    pub keys: KeySetIndex,
    pub client: OAuthClient,
    /// Where browsers are sent; empty: not discovered yet.
    pub authorization_url: String,
    pub token: Endpoint,
    /// Where browsers are sent after a logout; empty: to `after_logout`.
    pub end_session_url: String,
    /// `openid` and more.
    pub scopes: Vec<String>,
    /// Paths of the gateway's own, on each host that uses this.
    pub callback_path: String,
    pub logout_path: String,
    /// Path to go to after a logout.
    pub after_logout: String,
    pub cookie: String,
    /// Keys of the cookie, newest first: the first one seals, all of them open.
    pub cookie_keys: Vec<[u8; 32]>,
    /// Longest session, in seconds.
    pub lifetime_s: u32,
    /// The access token goes to upstreams as `Authorization: Bearer`.
    pub forward_token: bool,
}

impl fmt::Debug for Login {
    /// Without the keys of the cookie.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Client certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// A certificate that is no consumer's is refused; otherwise its name is the caller's.
    pub consumer_required: bool,
}

/// HTTP Basic (RFC 7617).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Basic {
    pub realm: String,
}

/// Signed requests (RFC 9421).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Components that must be covered, such as `@method` or `content-digest` (the latter only of
    /// requests with a body). A body whose digest is covered has to have it in any case.
    pub components: Vec<String>,
    /// How old `created` may be, in seconds; it has to be there.
    pub max_age_s: u32,
}

/// Another service decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    pub endpoint: Endpoint,
    /// Fields of the request that it gets, lower case. They are also what decisions are remembered by.
    pub send: Vec<String>,
    /// Fields of its answer that upstreams get, lower case; clients cannot send them.
    pub take: Vec<String>,
    /// Field of its answer with the name of the consumer, lower case.
    pub consumer_header: Option<String>,
    /// How long a decision is believed; 0: it is asked each time.
    pub cache_ms: u32,
}

/// Against guessing: how many failures one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// Failures within `window_ms`, by address (IPv6: by /64) and by the first characters of what was
    /// sent; past it 429 without a look. 0: any number.
    pub failures: u32,
    pub window_ms: u32,
}

impl Default for Throttle {
    fn default() -> Self {
        Throttle { failures: 50, window_ms: 60_000 }
    }
}

/// What a route asks of its callers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteAuth {
    /// At least one.
    pub authenticators: Vec<AuthenticatorIndex>,
    /// All of them have to agree on one caller; otherwise any of them is enough.
    pub all: bool,
    pub unidentified: Unidentified,
    /// All must be among the caller's.
    pub scopes: Vec<String>,
    /// One of them must be among the caller's; empty: any or none.
    pub groups: Vec<String>,
    /// An expression in CEL that must be true.
    pub policy: Option<String>,
    /// Upstreams do not see the credential.
    pub hide_credentials: bool,
}

/// What becomes of a request without a credential. (With a wrong one it is refused in any case.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unidentified {
    /// 401.
    #[default]
    Refuse,
    /// It goes on as nobody's.
    Pass,
    /// It goes on as this consumer's.
    As(ConsumerIndex),
}

/// Which addresses a route serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Empty: all.
    pub allow: Vec<Cidr>,
    /// The longer prefix goes before the shorter; of equal ones the refusal.
    pub deny: Vec<Cidr>,
}

/// Cross-origin requests (Fetch standard, "CORS protocol"), answered at the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    pub origins: Origins,
    /// What a preflight may ask for. Empty: the methods of the route, or of the usual ones.
    pub methods: Vec<String>,
    /// Lower case; empty: whatever is asked for.
    pub headers: Vec<String>,
    /// What scripts may read beside the usual fields.
    pub expose: Vec<String>,
    pub credentials: bool,
    /// How long browsers may remember a preflight, in seconds.
    pub max_age_s: u32,
    /// Also allow requests from public into private networks.
    pub private_network: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    #[default]
    Any,
    /// `https://app.example.com`, or `https://*.example.com` for one or more labels.
    Listed(Vec<String>),
}

/// A token of our own that an upstream gets (RFC 6749 §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCredentials {
    pub endpoint: Endpoint,
    pub client: OAuthClient,
    pub scopes: Vec<String>,
    /// RFC 8707 `resource` or the `audience` that some servers want.
    pub audience: Option<String>,
}
