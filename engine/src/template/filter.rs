//! What stands behind a `|`.
//!
//! | filter | |
//! |---|---|
//! | `default(x)` | `x` where there is no value, or `null`: a text, number, `true`, `false`, `null`, `[]`, `{}` |
//! | `lower`, `upper`, `trim` | |
//! | `prefix("x")`, `replace("a", "b")` | |
//! | `urlencode`, `base64` | |
//! | `json` | the value as JSON text, with quotes where it is a string |
//! | `int`, `string` | as a number (nothing, where it is none), as a text |
//! | `join(",")` | a list's items as one text |

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::escape;
use super::reference::text_of;
use crate::limits;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    Default {
        value: Value,
        /// Its text; `None` for `null`.
        text: Option<Box<[u8]>>,
    },
    Lower,
    Upper,
    Trim,
    Prefix(Box<str>),
    /// The first is not empty.
    Replace(Box<str>, Box<str>),
    Urlencode,
    Base64,
    Json,
    Int,
    String,
    Join(Box<str>),
}

/// A value on its way through filters.
pub(super) enum Datum<'a> {
    Text(Cow<'a, [u8]>),
    Value(Value),
}

impl<'a> Datum<'a> {
    pub(super) fn into_text(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Datum::Text(text) => Some(text),
            Datum::Value(Value::String(text)) => Some(Cow::Owned(text.into_bytes())),
            Datum::Value(value) => text_of(&value).map(|text| Cow::Owned(text.into_owned())),
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Datum::Text(text) => Value::String(String::from_utf8_lossy(&text).into_owned()),
            Datum::Value(value) => value,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Datum::Value(Value::Null))
    }
}

impl Filter {
    pub(super) fn default(value: Value) -> Filter {
        let text = text_of(&value).map(|text| text.into_owned().into());
        Filter::Default { value, text }
    }

    /// Whether it looks at more than the text of a value.
    pub(super) fn wants_type(&self) -> bool {
        matches!(self, Filter::Json | Filter::Join(_))
    }

    /// Whether what it gives is percent-encoded: `before` says whether what it got was.
    pub(super) fn leaves_encoded(&self, before: bool) -> bool {
        match self {
            Filter::Urlencode => true,
            // Beside an encoded value it goes out as it is.
            Filter::Default { text, .. } => {
                before && text.as_deref().is_none_or(|text| escape::urlencode(text) == *text)
            }
            _ => before && matches!(self, Filter::String),
        }
    }

    /// `typed`: the caller wants the type of what comes out.
    pub(super) fn apply<'a>(&'a self, datum: Option<Datum<'a>>, typed: bool) -> Option<Datum<'a>> {
        if let Filter::Default { value, text } = self {
            return match datum {
                Some(datum) if !datum.is_null() => Some(datum),
                _ if typed => Some(Datum::Value(value.clone())),
                _ => text.as_deref().map(|text| Datum::Text(Cow::Borrowed(text))),
            };
        }
        let datum = datum.filter(|datum| !datum.is_null())?;
        let text = match self {
            Filter::Json => {
                let value = datum.into_value();
                return Some(Datum::Text(Cow::Owned(value.to_string().into_bytes())));
            }
            Filter::Join(between) => return join(datum, between).map(Datum::Text),
            Filter::Int => return int(datum).map(|number| Datum::Value(number.into())),
            _ => datum.into_text()?,
        };
        Some(Datum::Text(match self {
            Filter::Lower if !text.iter().any(|byte| byte.is_ascii_uppercase()) => text,
            Filter::Lower => Cow::Owned(text.to_ascii_lowercase()),
            Filter::Upper => Cow::Owned(text.to_ascii_uppercase()),
            Filter::Trim => match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim_ascii()),
                Cow::Owned(text) => Cow::Owned(text.trim_ascii().to_vec()),
            },
            Filter::Prefix(before) => Cow::Owned([before.as_bytes(), &text].concat()),
            Filter::Replace(from, to) => replace(text, from.as_bytes(), to.as_bytes())?,
            Filter::Urlencode => Cow::Owned(escape::urlencode(&text)),
            Filter::Base64 => Cow::Owned(STANDARD.encode(&text).into_bytes()),
            _ => text,
        }))
    }
}

fn join<'a>(datum: Datum<'a>, between: &str) -> Option<Cow<'a, [u8]>> {
    let items = match datum {
        Datum::Value(Value::Array(items)) => items,
        // One is a list of one.
        datum => return datum.into_text(),
    };
    let mut out = Vec::new();
    for text in items.iter().filter_map(text_of) {
        if !out.is_empty() {
            out.extend_from_slice(between.as_bytes());
        }
        out.extend_from_slice(&text);
    }
    (!out.is_empty()).then_some(Cow::Owned(out))
}

/// A whole number, if it is one.
fn int(datum: Datum<'_>) -> Option<serde_json::Number> {
    if let Datum::Value(Value::Number(number)) = &datum
        && !number.is_f64()
    {
        return Some(number.clone());
    }
    let text = datum.into_text()?;
    let text = std::str::from_utf8(&text).ok()?.trim();
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.into());
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(number.into());
    }
    // `1e3`, `2.0`: a whole number all the same, as long as a double tells it from its neighbours.
    let number = text.parse::<f64>().ok()?;
    let exact = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
    exact.then_some((number as i64).into())
}

fn replace<'a>(text: Cow<'a, [u8]>, from: &[u8], to: &[u8]) -> Option<Cow<'a, [u8]>> {
    let finder = memchr::memmem::Finder::new(from);
    let Some(_) = finder.find(&text) else { return Some(text) };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = &text[..];
    while let Some(at) = finder.find(rest) {
        out.extend_from_slice(rest.get(..at)?);
        out.extend_from_slice(to);
        rest = rest.get(at + from.len()..)?;
        if out.len() > limits::TEMPLATE_VALUE {
            return None;
        }
    }
    out.extend_from_slice(rest);
    Some(Cow::Owned(out))
}
