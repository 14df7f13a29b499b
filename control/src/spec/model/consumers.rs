//! Who calls, in the spec: consumers, their groups, and their credentials.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use crate::spec::scalars::{Digest, Refresh, Timestamp};

/// What consumers have in common, such as a plan or a team.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Unique among groups; what consumers and routes refer to, and what upstreams are told.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// Whose it is: who may change only some workspaces may change it when this is one of them.
    /// Without it: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub workspace: Option<String>,
    /// What its members may do, beside what they may themselves.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Name of the limit policy of members without one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub limits: Option<String>,
}

/// Someone who calls: an application, a service, a person. Any of the credentials is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// Unique among consumers; what upstreams, the access log and limits call it.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// Whose it is: who may change only some workspaces may change it when this is one of them.
    /// Without it: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub workspace: Option<String>,
    /// Names of its groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What it may do, beside what its groups may.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Name of its limit policy; without it that of its first group with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub limits: Option<String>,
    /// API keys, of which only a hash is kept: `sluice keys new` makes one.
    #[serde(default)]
    pub api_keys: Vec<ApiKey>,
    /// Names and passwords for HTTP Basic.
    #[serde(default)]
    pub passwords: Vec<Password>,
    /// Client certificates that are this consumer's: by dns, uri, cn, email or sha256.
    #[serde(default)]
    pub certificates: Vec<CertificateMatch>,
    /// Keys that it signs requests with.
    #[serde(default)]
    pub signing_keys: Vec<SigningKey>,
    /// What authenticators by tokens call it. Without any: its name.
    #[serde(default)]
    pub subjects: Vec<Subject>,
}

impl Consumer {
    /// How many credentials it has of which kind, for people: `2 api keys, 1 password`.
    pub fn credentials(&self) -> String {
        let kinds = [
            (self.api_keys.len(), "api key"),
            (self.passwords.len(), "password"),
            (self.certificates.len(), "certificate"),
            (self.signing_keys.len(), "signing key"),
            (self.subjects.len(), "subject"),
        ];
        let some = kinds.into_iter().filter(|(count, _)| *count > 0);
        let some = some.map(|(n, noun)| format!("{n} {noun}{}", if n == 1 { "" } else { "s" }));
        some.collect::<Vec<_>>().join(", ")
    }
}

/// An API key, of which only a hash is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// SHA-256 of the whole key as it is sent, in hexadecimal; `sluice keys hash` tells it.
    pub sha256: Digest,
    /// Its first characters, by which people recognise it; what the access log calls it. Without it
    /// the beginning of the hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// When it ends, such as 2027-01-01T00:00:00Z. Without it: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Narrows the consumer's scopes to these. Without it: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// Name of a limit policy in place of the consumer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub limits: Option<String>,
}

/// A name and password for HTTP Basic (RFC 7617).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Password {
    /// Unique over all consumers.
    pub username: String,
    /// The password's hash by argon2id, $argon2id$...: `sluice password hash` makes it.
    #[schemars(regex(pattern = r"^\$argon2id\$"))]
    pub hash: String,
}

impl fmt::Debug for Password {
    /// Without the hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Password").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A client certificate, by one of its names or its fingerprint. In names * stands for any characters
/// but . / and @, and ** for any at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateMatch {
    /// A DNS name, such as *.svc.example.com.
    Dns(String),
    /// A URI, such as spiffe://example.org/**.
    Uri(String),
    /// The subject's common name.
    Cn(String),
    /// An e-mail address.
    Email(String),
    /// SHA-256 of the certificate in DER, in hexadecimal.
    Sha256(Digest),
}

/// A key that requests are signed with (RFC 9421, hmac-sha256).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SigningKey {
    /// What signatures call it (keyid). Unique over all consumers.
    pub id: String,
    /// The shared secret, 32 bytes or more.
    pub secret: Secret,
}

/// What an authenticator by tokens calls a consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Name of the authenticator.
    pub authenticator: String,
    /// Value of its consumer_claim, such as the token's sub.
    pub value: String,
}

/// A secret: {file: NAME}, {env: NAME}, {command: [PROGRAM, ...]}, or {inline: TEXT} for trials.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "schema::SecretForm", into = "schema::SecretForm")]
pub enum Secret {
    /// File with the secret; one newline at its end does not count. Relative to the spec's directory,
    /// and watched.
    File(String),
    /// Environment variable of the control process.
    Env(String),
    /// What a program prints.
    Command(SecretCommand),
    /// The secret itself. It is kept with the spec, but not shown where the spec is.
    Inline(String),
}

impl Secret {
    /// What the secret is known by; `None`: it stands here. Names of files are absolute where it counts,
    /// and so like none of the others.
    pub fn key(&self) -> Option<String> {
        match self {
            Secret::File(file) => Some(file.clone()),
            Secret::Env(name) => Some(format!("env:{name}")),
            Secret::Command(command) => Some(command.key()),
            Secret::Inline(_) => None,
        }
    }
}

/// A program that prints a secret, and how often it is asked anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretCommand {
    /// The program and its arguments, at least the first. No shell is between.
    pub command: Vec<String>,
    pub refresh: Refresh,
}

impl SecretCommand {
    pub fn key(&self) -> String {
        format!("command:{:?}", self.command)
    }
}

impl fmt::Display for SecretCommand {
    /// For people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.command.join(" "))
    }
}

impl fmt::Debug for Secret {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::File(file) => f.debug_tuple("File").field(file).finish(),
            Secret::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Secret::Command(command) => f.debug_tuple("Command").field(command).finish(),
            Secret::Inline(_) => f.debug_tuple("Inline").finish_non_exhaustive(),
        }
    }
}

/// What concerns all of authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSettings {
    /// Against guessing: how many failures one may have.
    pub throttle: Throttle,
}

/// Against guessing: past so many failures of an address (IPv6: of a /64), or of keys that begin the
/// same, the answer is 429 without a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Throttle {
    /// Failures within window_ms; 0: any number.
    #[schemars(range(max = 1_000_000))]
    pub failures: u32,
    /// Length of the window, in milliseconds.
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub window_ms: u32,
}

impl Default for Throttle {
    fn default() -> Self {
        let contract::snapshot::Throttle { failures, window_ms } = Default::default();
        Throttle { failures, window_ms }
    }
}

/// What `limits_timeout_ms` is when the spec does not say it.
pub const LIMITS_TIMEOUT_MS: u32 = 5;

fn limits_timeout_ms() -> u32 {
    LIMITS_TIMEOUT_MS
}

/// Redis: one server, several among which keys are spread, or a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::one_url)]
pub struct Redis {
    /// redis://host:port/db, or rediss:// for TLS. Several: keys are spread among them, or they are
    /// the first nodes known of a cluster.
    #[schemars(length(min = 1))]
    pub urls: Vec<String>,
    /// The servers are nodes of a Redis Cluster.
    #[serde(default)]
    pub cluster: bool,
    /// The addresses are Sentinels, which know where the primary of this name is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub sentinel: Option<String>,
    /// Longest that a request waits for an answer about limits, in milliseconds; where `on_store_failure`
    /// is `share` it waits until the server counts as lost: for three of these, and at least 50 ms.
    #[serde(default = "limits_timeout_ms")]
    #[schemars(range(min = 1, max = 10_000))]
    pub limits_timeout_ms: u32,
    /// Who we are (ACL); without it the user default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Our password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// File with the certificates, in PEM, that the servers' must come from; without it the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}
