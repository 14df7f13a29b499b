//! The JSON Schema of the spec, and the short forms that people may write.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::model::{
    Balance, Fallback, FieldMatch, Health, LimitMs, PathMatch, Redirect, RetryMethods, RetryOn,
    Rewrite, Spec, StatusRange, ValueMatch,
};
use super::scalars::{Cidr, TargetAddress};
macro_rules! schema_as {
    ($type:ty, $form:ty) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                <$form>::json_schema(generator)
            }
        }
    };
}

pub use auth::*;
pub use secret::*;
pub use upstream::*;

mod auth;
mod secret;
mod upstream;

/// JSON Schema (draft 2020-12) of what may be written, for editors and for `sluice schema`.
pub fn schema() -> serde_json::Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Spec>().to_value()
}

/// A name of a listener, an upstream or a route.
#[derive(JsonSchema)]
#[schemars(inline)]
#[allow(dead_code)] // Only its schema is used.
pub struct Name(#[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"))] String);

/// `address:port` of a socket.
#[derive(JsonSchema)]
#[schemars(inline)]
#[allow(dead_code)] // Only its schema is used.
pub struct SocketAddress(
    #[schemars(regex(pattern = r"^([0-9.]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"))] String,
);

/// A target: "host:port" or its parts.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // Only its schema is used.
pub enum TargetForm {
    /// host:port.
    Short(TargetAddress),
    Full(TargetParts),
}

/// A target with its weight.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // Only its schema is used.
pub struct TargetParts {
    /// host:port. A host name with several addresses becomes one target per address.
    address: TargetAddress,
    /// Share, 1 to 1000.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    weight: u32,
    /// Targets of a larger number are used as those of smaller ones fail.
    #[serde(default)]
    priority: u8,
    /// Where it is; those of the node's own locality are preferred.
    locality: Option<Name>,
}

fn one() -> u32 {
    1
}

/// How a path is matched; a plain text is a prefix.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // Only its schema is used.
pub enum PathForm {
    /// A prefix.
    Short(String),
    Full(PathMatch),
}

/// A size in bytes, or with a unit: "512KiB", "10MiB", "1GiB".
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // Only its schema is used.
pub enum SizeForm {
    Bytes(u64),
    Unit(#[schemars(regex(pattern = r"^[0-9]+ ?(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?$"))] String),
}

/// A redirect; a text is its location.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // Only its schema is used.
pub enum RedirectForm {
    /// The location; the status is 302.
    Short(String),
    Full(Redirect),
}

/// A status that redirects.
#[derive(JsonSchema)]
#[schemars(inline)]
#[allow(dead_code)] // Only its schema is used.
pub struct RedirectStatus(#[schemars(range(min = 301, max = 308))] u16);

/// A status that an answer may have instead of its own.
#[derive(JsonSchema)]
#[schemars(inline)]
#[allow(dead_code)] // Only its schema is used.
pub struct AnswerStatus(#[schemars(range(min = 200, max = 599))] u16);

/// How a time-out that may be none is written.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LimitForm {
    /// Milliseconds.
    After(#[schemars(range(min = 1, max = 86_400_000))] u32),
    Word(NoneWord),
}

/// What turns something off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoneWord {
    /// Nothing of the kind.
    None,
}

impl From<LimitForm> for LimitMs {
    fn from(form: LimitForm) -> Self {
        match form {
            LimitForm::After(ms) => LimitMs::After(ms),
            LimitForm::Word(NoneWord::None) => LimitMs::None,
        }
    }
}

impl From<LimitMs> for LimitForm {
    fn from(total: LimitMs) -> Self {
        match total {
            LimitMs::After(ms) => LimitForm::After(ms),
            LimitMs::None => LimitForm::Word(NoneWord::None),
        }
    }
}

/// A condition on a header field or a query parameter: a name and one of exact, regex, present.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldForm {
    /// Name of the field or parameter.
    name: String,
    /// The whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exact: Option<String>,
    /// A regular expression, unanchored unless it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
    /// true: any value will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    present: Option<bool>,
}

impl TryFrom<FieldForm> for FieldMatch {
    type Error = &'static str;

    fn try_from(form: FieldForm) -> Result<Self, Self::Error> {
        let value = match (form.exact, form.regex, form.present) {
            (Some(exact), None, None) => ValueMatch::Exact(exact),
            (None, Some(regex), None) => ValueMatch::Regex(regex),
            (None, None, Some(true)) => ValueMatch::Present,
            _ => return Err("a condition has one of exact, regex and present: true"),
        };
        Ok(FieldMatch { name: form.name, value })
    }
}

impl From<FieldMatch> for FieldForm {
    fn from(field: FieldMatch) -> Self {
        let mut form = FieldForm { name: field.name, exact: None, regex: None, present: None };
        match field.value {
            ValueMatch::Exact(exact) => form.exact = Some(exact),
            ValueMatch::Regex(regex) => form.regex = Some(regex),
            ValueMatch::Present => form.present = Some(true),
        }
        form
    }
}

/// How the path is changed on the way to the upstream; one of the two.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewriteForm {
    /// true: remove what match.path matched; the result always begins with /.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strip_prefix: Option<bool>,
    /// Put this in place of what match.path matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replace_prefix: Option<String>,
}

impl TryFrom<RewriteForm> for Rewrite {
    type Error = &'static str;

    fn try_from(form: RewriteForm) -> Result<Self, Self::Error> {
        match (form.strip_prefix.unwrap_or(false), form.replace_prefix) {
            (false, None) => Ok(Rewrite::Keep),
            (true, None) => Ok(Rewrite::StripPrefix),
            (false, Some(prefix)) => Ok(Rewrite::ReplacePrefix(prefix)),
            (true, Some(_)) => Err("a rewrite has one of strip_prefix and replace_prefix"),
        }
    }
}

impl From<Rewrite> for RewriteForm {
    fn from(rewrite: Rewrite) -> Self {
        match rewrite {
            Rewrite::Keep => RewriteForm::default(),
            Rewrite::StripPrefix => RewriteForm { strip_prefix: Some(true), replace_prefix: None },
            Rewrite::ReplacePrefix(prefix) => {
                RewriteForm { strip_prefix: None, replace_prefix: Some(prefix) }
            }
        }
    }
}

/// Access is by a token or by a certificate.
pub fn one_proof(schema: &mut Schema) {
    let either = serde_json::json!([{"required": ["token_sha256"]}, {"required": ["certificate"]}]);
    schema.insert("oneOf".into(), either);
}

/// Adds the short form `upstream: NAME` beside `upstreams`.
pub fn route_with_upstream(schema: &mut Schema) {
    let upstream = serde_json::json!({
        "type": "string",
        "description": "Name of the upstream; instead of upstreams.",
    });
    if let Some(properties) = schema.get_mut("properties").and_then(|value| value.as_object_mut()) {
        properties.insert("upstream".into(), upstream);
        // An absent list and an empty one are not the same here.
        if let Some(list) = properties.get_mut("upstreams").and_then(|value| value.as_object_mut())
        {
            list.remove("default");
        }
    }
    let ways = ["upstream", "upstreams", "aggregate", "redirect", "respond"];
    let either = ways.map(|way| serde_json::json!({"required": [way]}));
    schema.insert("oneOf".into(), either.as_slice().into());
}

schema_as!(FieldMatch, FieldForm);
schema_as!(Rewrite, RewriteForm);
schema_as!(LimitMs, LimitForm);
schema_as!(Balance, BalanceForm);
schema_as!(RetryOn, CausesForm);
schema_as!(RetryMethods, MethodsForm);
schema_as!(Fallback, FallbackForm);
schema_as!(Health, HealthForm);
schema_as!(StatusRange, StatusForm);

impl JsonSchema for Cidr {
    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A network such as 10.0.0.0/8 or fd00::/8, or one address.",
            "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$",
        })
    }
}

impl JsonSchema for TargetAddress {
    fn schema_name() -> Cow<'static, str> {
        "TargetAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "host:port; the host is a name, an IPv4 address or an [IPv6 address].",
            "pattern": "^([^:\\s/\\[\\]]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$",
        })
    }
}
