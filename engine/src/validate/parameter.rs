//! The parameters of a request, as JSON that schemas judge.

use std::borrow::Cow;

use contract::snapshot::{Form, Kinds, Place};
use serde_json::{Map, Number, Value};

use super::api::{Found, Parameter};
use super::fault::{Faults, In, member};
use super::json;
use super::percent::decoded;
use crate::auth::credentials;
use crate::limits;
use crate::message::RequestHead;

/// Adds what is wrong with the parameters of a request, whose head is in `bytes`, to `faults`.
pub fn judge(found: &Found<'_>, head: &RequestHead, bytes: &[u8], faults: &mut Faults) {
    let query = pairs(head.query(bytes).unwrap_or_default());
    for parameter in &found.operation.parameters {
        if faults.is_full() {
            return;
        }
        let name = parameter.name.as_bytes();
        let (values, place) = match parameter.place {
            Place::Path => (
                found
                    .path
                    .get(parameter.position)
                    .map(|value| Cow::Borrowed(&**value))
                    .into_iter()
                    .collect(),
                In::Path,
            ),
            Place::Query => (in_query(&query, parameter), In::Query),
            Place::Header => {
                let values = credentials::fields(head, bytes, name).map(Cow::Borrowed);
                (values.take(limits::PARAMETER_VALUES + 1).collect::<Vec<_>>(), In::Header)
            }
            Place::Cookie => {
                let values = credentials::cookies(head, bytes, name).map(Cow::Borrowed);
                (values.take(limits::PARAMETER_VALUES + 1).collect(), In::Cookie)
            }
        };
        one(parameter, &query, &values, place, faults);
    }
}

fn one(
    parameter: &Parameter,
    query: &[Pair<'_>],
    values: &[Cow<'_, [u8]>],
    place: In,
    faults: &mut Faults,
) {
    let pointer = member(&parameter.name);
    let absent = match &parameter.form {
        Form::Deep(_) => !query.iter().any(|(name, _)| key(name, &parameter.name).is_some()),
        _ => values.is_empty(),
    };
    if absent {
        if parameter.required {
            faults.add(place, &pointer, "it is required");
        }
        return;
    }
    let Some(schema) = &parameter.schema else { return };
    match read(parameter, query, values) {
        Err(message) => faults.add(place, &pointer, message),
        Ok(Read::Known(value)) => schema.judge(&value, 1, (place, &pointer), faults),
        Ok(Read::Unknown(text)) => {
            // Of all that the text may stand for one is enough.
            let mut first = None;
            for kinds in [Kinds::TEXT, Kinds::NUMBER, Kinds::BOOL, Kinds::NULL] {
                let value = scalar(&text, kinds);
                if kinds != Kinds::TEXT && value.is_string() {
                    continue;
                }
                let mut wrong = Faults::default();
                schema.judge(&value, 1, (place, &pointer), &mut wrong);
                if wrong.is_empty() {
                    return;
                }
                first.get_or_insert(wrong);
            }
            for fault in first.unwrap_or_default().into_list() {
                faults.add(place, &fault.pointer, &fault.message);
            }
        }
    }
}

enum Read {
    Known(Value),
    /// A text, and it is not known what it stands for.
    Unknown(String),
}

const NOT_TEXT: &str = "it is not UTF-8";
const TWICE: &str = "it is there more than once";
const TOO_MANY: &str = "it has too many values";

fn read(
    parameter: &Parameter,
    query: &[Pair<'_>],
    values: &[Cow<'_, [u8]>],
) -> Result<Read, &'static str> {
    if values.len() > limits::PARAMETER_VALUES {
        return Err(TOO_MANY);
    }
    let escaped = parameter.place == Place::Query;
    let text = |value: &[u8]| {
        let value = if escaped { decoded(value, true) } else { Cow::Borrowed(value) };
        String::from_utf8(value.into_owned()).map_err(|_| NOT_TEXT)
    };
    let only = || match values {
        [value] => Ok(value),
        // What an upstream takes of several is not known.
        _ => Err(TWICE),
    };
    match &parameter.form {
        Form::Scalar(Kinds::UNKNOWN) => Ok(Read::Unknown(text(only()?)?)),
        Form::Scalar(kinds) => Ok(Read::Known(scalar(&text(only()?)?, *kinds))),
        Form::Repeated(kinds) => {
            let list = values.iter().map(|value| Ok(scalar(&text(value)?, *kinds)));
            Ok(Read::Known(Value::Array(list.collect::<Result<_, &str>>()?)))
        }
        Form::Separated(separator, kinds) => {
            if parameter.place != Place::Header {
                only()?;
            }
            let mut list = Vec::new();
            for value in values {
                // A comma that is escaped is part of a value (RFC 6570 §3.2.8); the others are escaped
                // themselves.
                let late = escaped && *separator != b',';
                let value = if late { decoded(value, true) } else { Cow::Borrowed(&**value) };
                for part in value.split(|byte| byte == separator) {
                    let part = match parameter.place {
                        Place::Header => part.trim_ascii(),
                        _ => part,
                    };
                    let part = match late {
                        true => String::from_utf8(part.to_vec()).map_err(|_| NOT_TEXT)?,
                        false => text(part)?,
                    };
                    list.push(scalar(&part, *kinds));
                    if list.len() > limits::PARAMETER_VALUES {
                        return Err(TOO_MANY);
                    }
                }
            }
            Ok(Read::Known(Value::Array(list)))
        }
        Form::Deep(known) => {
            let mut object = Map::new();
            for (name, value) in query {
                let Some(key) = key(name, &parameter.name) else { continue };
                let kinds = known.iter().find(|(name, _)| *name == key).map(|(_, kinds)| *kinds);
                let value = scalar(&text(value)?, kinds.unwrap_or(Kinds::TEXT));
                if object.insert(key, value).is_some() {
                    return Err(TWICE);
                }
                if object.len() > limits::PARAMETER_VALUES {
                    return Err(TOO_MANY);
                }
            }
            Ok(Read::Known(Value::Object(object)))
        }
        Form::Json => {
            let text = text(only()?)?;
            let document = json::parse(text.as_bytes()).map_err(|_| "it is not JSON")?;
            Ok(Read::Known(document.value))
        }
    }
}

/// What `text` stands for, if it may be of these kinds; text, if it is nothing else.
fn scalar(text: &str, kinds: Kinds) -> Value {
    if kinds.has(Kinds::NUMBER)
        && text.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        && text.ends_with(|c: char| c.is_ascii_digit())
        && let Ok(number) = serde_json::from_str::<Number>(text)
    {
        return Value::Number(number);
    }
    match text {
        "true" if kinds.has(Kinds::BOOL) => Value::Bool(true),
        "false" if kinds.has(Kinds::BOOL) => Value::Bool(false),
        "" | "null" if kinds.has(Kinds::NULL) => Value::Null,
        _ => Value::String(text.into()),
    }
}

/// A name and a value of a query: the name decoded, the value as it came.
type Pair<'a> = (Cow<'a, [u8]>, &'a [u8]);

fn pairs(query: &[u8]) -> Vec<Pair<'_>> {
    let pairs = query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match memchr::memchr(b'=', pair) {
            Some(at) => (decoded(&pair[..at], true), &pair[at + 1..]),
            None => (decoded(pair, true), &[][..]),
        })
        .collect()
}

fn in_query<'a>(query: &[Pair<'a>], parameter: &Parameter) -> Vec<Cow<'a, [u8]>> {
    let name = parameter.name.as_bytes();
    let values = query.iter().filter(|(other, _)| **other == *name);
    values.take(limits::PARAMETER_VALUES + 1).map(|(_, value)| Cow::Borrowed(*value)).collect()
}

/// `key` of `name[key]`.
fn key(name: &[u8], parameter: &str) -> Option<String> {
    let key = name.strip_prefix(parameter.as_bytes())?.strip_prefix(b"[")?.strip_suffix(b"]")?;
    String::from_utf8(key.to_vec()).ok()
}
