//! What routes change of requests and answers, and what they answer themselves.
//!
//! Values are templates: `${root.name | filter}`, checked when the spec is applied.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::schema;

/// What is changed of requests on their way to the upstream. Values are templates, such as
/// "${claim.sub}" or "/v2/${path.rest}": ${path}, ${path.NAME} (rest behind a prefix, groups of a regex),
/// ${query.NAME}, ${header.NAME}, ${cookie.NAME}, ${claim.a.b}, ${consumer.id}, .username, .group,
/// ${client.address}, ${request.id}, .method, .host, .path, .query, .scheme, ${route.name},
/// ${time.unix}, .iso, with filters: default("x"), lower, upper, trim, prefix("x"), replace("a", "b"),
/// urlencode, base64, json, int, string, join(","). $${ is a literal ${. A rule whose value is missing is
/// skipped; for the host and the path the answer is 400 then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteRequest {
    /// Another method, in upper case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Another host, with or without a port; goes before the upstream's host_header. A template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Another path: a template for all of it, or what a regex matches and a template in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathEdit>,
    /// Parameters of the query; values are percent-encoded as they are put there.
    #[serde(skip_serializing_if = "NameEdits::is_empty")]
    pub query: NameEdits,
    /// Header fields. What frames the message, belongs to one connection or says who calls (Host,
    /// Content-Length, Connection, X-Forwarded-*, X-Consumer-*, Via and their like) is the gateway's.
    #[serde(skip_serializing_if = "NameEdits::is_empty")]
    pub headers: NameEdits,
    /// Cookies.
    #[serde(skip_serializing_if = "CookieEdits::is_empty")]
    pub cookies: CookieEdits,
}

/// A new path. Values are percent-encoded; one that would be a dot segment, or more than one segment,
/// is answered with 400.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PathEdit {
    /// All of it, such as "/v2/${path.rest}".
    Whole(String),
    Replace(PathReplace),
}

/// A part of the path gives way, wherever it is; a path without it stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathReplace {
    /// A regular expression for the path in normal form, unanchored unless it says so.
    pub regex: String,
    /// A template; ${path.NAME} and ${path[1]} are groups of this regex.
    pub with: String,
}

/// What is changed of fields or parameters. All of it looks at the message as it came: rename and copy
/// first, then remove, set and add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NameEdits {
    /// From old name to new; what has the new name already gives way.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
    /// From name to another that gets the same values; what has that name already gives way.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub copy: BTreeMap<String, String>,
    /// Names that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// One with this value (a template) in place of all of the name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// One more with this value (a template).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
}

impl NameEdits {
    pub fn is_empty(&self) -> bool {
        *self == NameEdits::default()
    }
}

/// What is changed of the cookies of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CookieEdits {
    /// Name and value (a template).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Names that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

impl CookieEdits {
    pub fn is_empty(&self) -> bool {
        *self == CookieEdits::default()
    }
}

/// What is changed of answers on their way to the client: the upstream's, and those of redirect and
/// respond. The gateway's own (errors, preflights, logins) and tunnels stay as they are. Values are templates as in
/// request, with ${response.status} and ${response.header.NAME} (as the upstream gave them).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteResponse {
    /// From a status ("404") or several ("500-599", "5xx") to another; a single one goes first. Those without
    /// a body (204, 205, 304) stay, and so do answers of gRPC, whose status is elsewhere.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, schema::AnswerStatus>")]
    pub status: BTreeMap<String, u16>,
    /// Header fields. What frames the message or belongs to one connection is the gateway's.
    #[serde(skip_serializing_if = "NameEdits::is_empty")]
    pub headers: NameEdits,
    /// Cookies that the answer sets.
    #[serde(skip_serializing_if = "AnswerCookieEdits::is_empty")]
    pub cookies: AnswerCookieEdits,
    /// Largest body of an upstream's answer, in bytes or as "10MiB"; past it 502. One whose length is not
    /// announced is cut off when it has come so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::SizeForm>")]
    pub max_body_bytes: Option<u64>,
}

/// What is changed of the cookies that an answer sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnswerCookieEdits {
    /// By name: a cookie of the gateway's, in place of one of the upstream's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, NewCookie>,
    /// Names of cookies of the upstream's that are not passed on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// New attributes for cookies of the upstream's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rewrite: Vec<CookieRewrite>,
}

impl AnswerCookieEdits {
    pub fn is_empty(&self) -> bool {
        *self == AnswerCookieEdits::default()
    }
}

/// A cookie that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCookie {
    /// A template. What cannot be a cookie's value (RFC 6265 §4.1.1) is not set.
    pub value: String,
    /// Without it: only for the host that set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(default = "root")]
    pub path: String,
    #[serde(default)]
    pub secure: bool,
    #[serde(default)]
    pub http_only: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<CookieSite>,
    /// In seconds, 0 or less to delete it; without it until the browser ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
}

pub(crate) fn root() -> String {
    "/".into()
}

/// New attributes; what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CookieRewrite {
    /// Of the cookie of this name; without it of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Empty: the attribute goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Empty: the attribute goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_site: Option<CookieSite>,
    /// In seconds; also in place of Expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
}

/// With which requests of other sites a browser sends a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CookieSite {
    /// None.
    Strict,
    /// When somebody follows a link.
    Lax,
    /// All; needs secure.
    None,
}

/// The gateway answers with a redirect; a route with it has no upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "found")]
    #[schemars(with = "schema::RedirectStatus")]
    pub status: u16,
    /// A template: a path, or https://host/path. Values are percent-encoded, and cannot lead to a host
    /// that the template does not name.
    pub location: String,
    /// The request's path goes behind it.
    #[serde(default)]
    pub keep_path: bool,
    /// The request's query goes behind it.
    #[serde(default)]
    pub keep_query: bool,
}

pub(crate) fn found() -> u16 {
    302
}

/// The gateway answers by itself; a route with it has no upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    #[serde(default = "ok")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Without it text/plain for body, application/json for json. Where it is HTML or XML, values are
    /// escaped for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Header fields; values are templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body, a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body as JSON, in which texts are templates. One that is a placeholder and nothing else keeps
    /// its type. Instead of body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
}

pub(crate) fn ok() -> u16 {
    200
}
