//! Control's own listener, and who may use it.

use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DEFAULT_ADMIN, schema};
use crate::spec::scalars::Digest;

/// Control's own listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address and port, such as 127.0.0.1:9901. Without `access` there is no login: keep it on the
    /// loopback then.
    #[schemars(with = "schema::SocketAddress")]
    pub listen: SocketAddr,
    /// TLS of the listener; without it clear text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<AdminTls>,
    /// Who may use the API. Empty: whoever reaches it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<Access>,
}

impl Default for Admin {
    fn default() -> Self {
        Admin { listen: DEFAULT_ADMIN, tls: None, access: Vec::new() }
    }
}

/// TLS of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// File with the certificate chain (PEM), the leaf first.
    pub certificate: String,
    /// File with its private key (PEM).
    pub key: String,
    /// File with issuers of client certificates (PEM). Who has none may still come with a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,
}

/// Somebody who may use the admin API: by a token, or by a client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::one_proof)]
pub struct Access {
    /// Unique; the author of what it changes, in revisions and the audit log.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// SHA-256 of its token, in hexadecimal: `sluice keys admin-token` makes both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_sha256: Option<Digest>,
    /// Subject's common name, DNS name, URI or e-mail address of its client certificate, as it stands
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub certificate: Option<String>,
    /// What it may do.
    pub role: Role,
    /// What it may change: things of these workspaces. Empty: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<schema::Name>")]
    pub workspaces: Vec<String>,
}

/// What somebody may do with the admin API. Each may also do what those before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See everything but secrets.
    Viewer,
    /// Try out and make changes.
    Editor,
    /// Change `admin`, and see the audit log.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Viewer => "viewer",
            Role::Editor => "editor",
            Role::Admin => "admin",
        })
    }
}

/// The workspace of what names none.
pub const DEFAULT_WORKSPACE: &str = "default";
