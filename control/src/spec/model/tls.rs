//! TLS in the spec: certificates are named by their files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Longest handshake, in milliseconds, when the spec does not say it.
pub const DEFAULT_HANDSHAKE_TIMEOUT_MS: u32 = 5_000;
/// Most early data that may be allowed, in bytes.
pub const MAX_EARLY_DATA: u64 = 1 << 20;

/// A version of TLS.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}

/// An application protocol (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Alpn {
    /// HTTP/2.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http11,
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// Oldest version that is spoken: "1.3", or "1.2" for both.
    #[serde(default = "ListenerTls::default_version")]
    pub min_version: TlsVersion,
    /// Application protocols, the preferred one first.
    #[serde(default = "ListenerTls::default_alpn")]
    #[schemars(length(min = 1))]
    pub alpn: Vec<Alpn>,
    /// From the accept to the end of the handshake, in milliseconds.
    #[serde(default = "ListenerTls::default_handshake_timeout_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub handshake_timeout_ms: u32,
    /// Most early data (0-RTT) that a client may send, in bytes or as "16KiB"; 0: none is taken.
    /// Requests in it can be replayed by an attacker: only routes with early_data: true serve them.
    #[serde(default)]
    #[schemars(with = "schema::SizeForm")]
    pub early_data: u64,
    /// true: a client without a known server name is refused; false: it is shown the first
    /// certificate.
    #[serde(default)]
    pub strict_sni: bool,
    /// Certificates by server name: an exact name goes before a wildcard.
    #[schemars(length(min = 1))]
    pub certificates: Vec<Certificate>,
}

impl ListenerTls {
    pub(crate) fn default_version() -> TlsVersion {
        TlsVersion::V13
    }

    pub(crate) fn default_alpn() -> Vec<Alpn> {
        vec![Alpn::H2, Alpn::Http11]
    }

    pub(crate) fn default_handshake_timeout_ms() -> u32 {
        DEFAULT_HANDSHAKE_TIMEOUT_MS
    }
}

/// A certificate and its key, and the server names they are for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// File with the certificate chain in PEM, the leaf first; relative to the spec's directory.
    /// It is watched: a new one is used at once.
    pub cert: String,
    /// File with the private key in PEM: PKCS#8, SEC1 or PKCS#1.
    pub key: String,
    /// Server names, such as api.example.com or *.example.com. Empty: those of the certificate.
    #[serde(default)]
    pub names: Vec<String>,
    /// Client certificates (mTLS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
}

/// Client certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// Whether a client must have one.
    pub mode: ClientAuthMode,
    /// File with the certificates, in PEM, that client certificates must come from.
    pub ca: String,
    /// File with revocation lists, in PEM or DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// A certificate is asked for, and judged if it comes.
    Request,
    /// Without a certificate there is no handshake.
    Require,
}

/// What is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2; without tls by prior knowledge.
    Http2,
    /// What the upstream agrees to (ALPN), HTTP/2 preferred; needs tls.
    Auto,
}

/// How an upstream is reached over TLS. Without any field: verified against the system's roots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// File with the certificates, in PEM, that the upstream's must come from; without it the
    /// system's. Relative to the spec's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Name to ask for and to verify; without it the target's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// File with our own certificate chain in PEM, shown when the upstream asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    /// File with its private key in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// false: anybody may pretend to be the upstream.
    pub verify: bool,
    /// Oldest version that is spoken: "1.2" or "1.3".
    pub min_version: TlsVersion,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        UpstreamTls {
            ca: None,
            server_name: None,
            cert: None,
            key: None,
            verify: true,
            min_version: TlsVersion::V12,
        }
    }
}
