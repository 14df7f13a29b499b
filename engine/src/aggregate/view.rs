//! What templates of an aggregate see: the request, its body, what calls have answered, an item.

use std::borrow::Cow;

use serde_json::Value;

use super::body::to_value;
use super::outcome::Outcome;
use crate::limits;
use crate::payload::json::Json;
use crate::template::{CallPart, Pointer, Reference, Step, Template, Values};

/// The request that an aggregate answers, without its body.
pub trait Incoming: Values {
    /// Names and values of the query's parameters of that name, as they came.
    fn parameters(&self, name: &str, each: &mut dyn FnMut(&[u8], &[u8]));
}

/// The values at hand at one place. `'a` is how long answers live.
#[derive(Clone, Copy)]
pub struct View<'v, 'a> {
    /// Of the request without its body.
    pub request: &'v dyn Incoming,
    pub body: Option<&'v Json<'a>>,
    /// By call; `None`: it has not ended.
    pub outcomes: &'v [Option<Outcome<'a>>],
    /// The item that a call is made for, and its place.
    pub item: Option<(usize, &'v Json<'a>)>,
}

impl<'v, 'a> View<'v, 'a> {
    /// What a template gives, with its type and with numbers as they came.
    pub fn value(&self, template: &Template) -> Option<Json<'a>> {
        match template.plain() {
            Some((what, default)) if is_json(what) => {
                match self.json(what).filter(|value| **value != Json::Null) {
                    Some(value) => Some(value.clone()),
                    None => match default {
                        Some(default) => Some(Json::from(default)),
                        // Null is null, and what is not there is not there.
                        None => self.json(what).map(|_| Json::Null),
                    },
                }
            }
            _ => template.value(self).map(|value| Json::from(&value)),
        }
    }

    /// Whether its value is there and is not null, false, 0 or empty.
    pub fn holds(&self, template: &Template) -> bool {
        match self.value(template) {
            None | Some(Json::Null | Json::Bool(false)) => false,
            Some(Json::Bool(true) | Json::Object(_)) => true,
            Some(Json::Number(text)) => text.parse() != Ok(0.0),
            Some(Json::String(text)) => !matches!(&*text.decoded(), "" | "0" | "false"),
            Some(Json::Array(items)) => !items.is_empty(),
        }
    }

    fn json(&self, what: &Reference) -> Option<&'v Json<'a>> {
        match what {
            Reference::Body(pointer) => find(pointer, self.body?),
            Reference::Item(pointer) => find(pointer, self.item?.1),
            Reference::Call { index, part: CallPart::Body(pointer) } => {
                find(pointer, self.outcomes.get(*index)?.as_ref()?.body()?)
            }
            _ => None,
        }
    }
}

/// Whether it is a place in JSON.
fn is_json(what: &Reference) -> bool {
    matches!(
        what,
        Reference::Body(_) | Reference::Item(_) | Reference::Call { part: CallPart::Body(_), .. }
    )
}

fn find<'j, 'a>(pointer: &Pointer, value: &'j Json<'a>) -> Option<&'j Json<'a>> {
    pointer.0.iter().try_fold(value, |value, step| match (value, step) {
        (Json::Array(items), Step::At(at)) => items.get(*at),
        (value, Step::Key(key)) => value.member(key),
        _ => None,
    })
}

impl Values for View<'_, '_> {
    fn text(&self, what: &Reference) -> Option<Cow<'_, [u8]>> {
        if is_json(what) {
            return match self.json(what)? {
                Json::Null => None,
                Json::Number(text) => Some(Cow::Borrowed(text.as_bytes())),
                Json::String(text) => Some(match text.decoded() {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                }),
                value => Some(Cow::Owned(value.to_vec())),
            };
        }
        match what {
            Reference::Index => {
                let (index, _) = self.item?;
                Some(Cow::Owned(index.to_string().into_bytes()))
            }
            Reference::Call { index, part } => {
                let Outcome::Answered(answer) = self.outcomes.get(*index)?.as_ref()? else {
                    return None;
                };
                match part {
                    CallPart::Status => Some(Cow::Owned(answer.status.to_string().into_bytes())),
                    CallPart::Header(name) => {
                        let name = name.text.as_bytes();
                        let mut fields = answer.fields.iter();
                        let found = fields.find(|(own, _)| own.eq_ignore_ascii_case(name));
                        found.map(|(_, value)| Cow::Borrowed(value.as_slice()))
                    }
                    CallPart::Body(_) => None,
                }
            }
            _ => self.request.text(what),
        }
    }

    fn value(&self, what: &Reference) -> Option<Value> {
        if is_json(what) {
            let value = self.json(what)?;
            // What is larger is not for templates; as a text it would be cut, and as JSON it costs most.
            return (value.weight() <= limits::AGGREGATE_TEMPLATE_VALUE).then(|| to_value(value));
        }
        match what {
            Reference::Index | Reference::Call { part: CallPart::Status, .. } => {
                let text = Values::text(self, what)?;
                std::str::from_utf8(&text).ok()?.parse::<u64>().ok().map(Value::from)
            }
            Reference::Call { .. } => {
                let text = Values::text(self, what)?;
                Some(Value::String(String::from_utf8_lossy(&text).into_owned()))
            }
            _ => self.request.value(what),
        }
    }
}
