//! What a route changes of requests and answers, and what it answers itself. Texts that are called
//! templates hold `${...}`; the engine compiles them.

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteShape {
    pub request: RequestShape,
    pub response: ResponseShape,
    /// In place of an upstream's answer.
    pub answer: Option<OwnAnswer>,
}

/// What is changed of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestShape {
    /// A token, not CONNECT or TRACE.
    pub method: Option<String>,
    /// A template.
    pub host: Option<String>,
    pub path: Option<PathShape>,
    pub query: NameRules,
    /// Names are lower case.
    pub headers: NameRules,
    pub cookies: CookieRules,
}

/// A new path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathShape {
    /// A template for all of it.
    Whole(String),
    /// What a regular expression matches gives way to a template, in which `path.NAME` are its groups.
    Replace { pattern: String, with: String },
}

/// What is changed of fields or parameters, by their names. All of it looks at the message as it came:
/// first `rename` and `copy`, then `remove`, `set` and `add`. No name is changed by two of the first four.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRules {
    /// From, to. What is called so already goes.
    pub rename: Vec<(String, String)>,
    /// Likewise.
    pub copy: Vec<(String, String)>,
    pub remove: Vec<String>,
    /// One with this template's text in place of all.
    pub set: Vec<(String, String)>,
    /// One more.
    pub add: Vec<(String, String)>,
}

impl NameRules {
    pub fn is_empty(&self) -> bool {
        *self == NameRules::default()
    }
}

/// What is changed of the cookies of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieRules {
    /// Name and template.
    pub set: Vec<(String, String)>,
    pub remove: Vec<String>,
}

/// What is changed of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseShape {
    /// The first that holds.
    pub status: Vec<StatusRule>,
    /// Names are lower case.
    pub headers: NameRules,
    pub cookies: AnswerCookies,
    /// A larger body of the upstream's is refused: 502.
    pub max_body_bytes: Option<u64>,
}

/// A status in place of those from `first` to `last`. Those without a body stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRule {
    pub first: u16,
    pub last: u16,
    pub to: u16,
}

/// What is changed of the cookies that an answer sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerCookies {
    pub set: Vec<NewCookie>,
    /// Names of those that are not passed on.
    pub remove: Vec<String>,
    pub rewrite: Vec<CookieRewrite>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewCookie {
    pub name: String,
    /// A template.
    pub value: String,
    /// Without empty texts.
    pub attributes: CookieAttributes,
}

/// Attributes of cookies that get new values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieRewrite {
    /// Of the cookies of that name; `None`: of all.
    pub name: Option<String>,
    pub attributes: CookieAttributes,
}

/// RFC 6265 §4.1. `None`: as it is, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieAttributes {
    /// Empty: the attribute goes.
    pub domain: Option<String>,
    /// Empty: the attribute goes.
    pub path: Option<String>,
    pub secure: Option<bool>,
    pub http_only: Option<bool>,
    pub same_site: Option<SameSite>,
    /// In seconds; 0 or less: at once.
    pub max_age_s: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}

/// What the gateway answers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnAnswer {
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// A template.
        location: String,
        /// The request's path goes behind it.
        keep_path: bool,
        /// The request's query goes behind it.
        keep_query: bool,
    },
    Static {
        status: u16,
        /// Empty: none.
        content_type: String,
        /// Names (lower case) and templates.
        headers: Vec<(String, String)>,
        body: StaticBody,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StaticBody {
    #[default]
    Empty,
    /// A template.
    Text(String),
    /// JSON whose strings are templates.
    Json(String),
}

/// Why a field is not for header rules to change, as what to do instead: it frames the message, belongs
/// to one connection, says who calls, or has rules of its own. `name` is lower case.
pub fn fixed_field(name: &str, of_answer: bool) -> Option<&'static str> {
    Some(match name {
        "host" => "it says where the request goes; use request.host",
        "cookie" => "it holds several values; use request.cookies",
        "set-cookie" => "it holds a value with attributes; use response.cookies",
        "location" if of_answer => return None,
        "content-length" | "transfer-encoding" | "trailer" | "content-range" => {
            "it says where the message ends, which the gateway sees to"
        }
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "te"
        | "upgrade"
        | "http2-settings"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "expect"
        | "sec-websocket-key"
        | "sec-websocket-accept"
        | "early-data" => {
            "it belongs to one connection (RFC 9110 §7.6.1), which the gateway sees to"
        }
        "x-forwarded-for"
        | "x-forwarded-host"
        | "x-forwarded-port"
        | "x-forwarded-proto"
        | "x-forwarded-client-cert"
        | "forwarded"
        | "x-real-ip"
        | "via"
        | "x-request-id"
        | "x-sluice-mirror" => {
            "it says where the request comes from, which the gateway does itself; put the value \
             into a field of another name, such as from ${client.address} or ${request.id}"
        }
        "grpc-timeout" | "grpc-status" | "grpc-message" => {
            "it is a part of gRPC, which the gateway sees to"
        }
        "date" if of_answer => "it says when the answer was made, which the gateway sees to",
        name if name.starts_with("x-consumer-") => {
            "it says who calls, which the gateway does itself; put the value into a field of \
             another name, such as from ${consumer.id}"
        }
        name if name.starts_with(':') => "it is no field of a header; use request.host or path",
        _ => return None,
    })
}

/// Whether a status can have a body in its answer (RFC 9110 §6.4.1), and is final.
pub fn status_has_body(status: u16) -> bool {
    (200..=599).contains(&status) && !matches!(status, 204 | 205 | 304)
}

/// Bytes of a cookie's value that need no quotes (RFC 6265 §4.1.1).
pub fn is_cookie_value(value: &[u8]) -> bool {
    let octet =
        |byte: &u8| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
    value.iter().all(octet)
}

/// A cookie attribute's value that ends nothing (RFC 6265 §4.1.1): printable, no `;`.
pub fn is_attribute_value(value: &str) -> bool {
    value.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && byte != b';')
}
