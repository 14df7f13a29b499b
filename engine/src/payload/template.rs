//! JSON that a rule makes: with templates in its strings, values with their types, numbers of the body as
//! they were written.
//!
//! What has no value leaves no trace: a member of an object is not there, an item of an array is null.

use std::borrow::Cow;

use super::json::{Json, Text};
use crate::template::{Reference, Scope, Step, Template, TemplateError, Values, text_of};

/// A JSON value to be filled in.
#[derive(Clone, Debug, PartialEq)]
pub enum Made {
    /// Nothing in it is to be filled in.
    Fixed(Json<'static>),
    Text(Template),
    Array(Vec<Made>),
    Object(Vec<(Text<'static>, Made)>),
}

/// What a request says that templates ask for, apart from its body: collected on the shard, so that a body
/// can be changed elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Known(Vec<(Reference, Option<serde_json::Value>)>);

/// What templates are filled in from.
pub struct From<'f> {
    pub known: &'f Known,
    pub body: &'f Json<'f>,
}

impl Made {
    /// # Errors
    /// The first string that is no template.
    pub fn compile(value: &Json<'_>, scope: &Scope) -> Result<Made, TemplateError> {
        Ok(match value {
            Json::String(text) => {
                let template = Template::compile(&text.decoded(), scope)?;
                match template.literal() {
                    Some(text) => Made::Fixed(Json::string(text)),
                    None => Made::Text(template),
                }
            }
            Json::Array(items) => {
                let made = items.iter().map(|item| Made::compile(item, scope));
                let made: Vec<_> = made.collect::<Result<_, _>>()?;
                match made.iter().all(|item| matches!(item, Made::Fixed(_))) {
                    true => Made::Fixed(Json::Array(made.into_iter().filter_map(fixed).collect())),
                    false => Made::Array(made),
                }
            }
            Json::Object(members) => {
                let made = members.iter().map(|(name, value)| {
                    Ok((name.clone().into_owned(), Made::compile(value, scope)?))
                });
                let made: Vec<_> = made.collect::<Result<_, TemplateError>>()?;
                match made.iter().all(|(_, value)| matches!(value, Made::Fixed(_))) {
                    true => Made::Fixed(Json::Object(
                        made.into_iter()
                            .filter_map(|(name, value)| Some((name, fixed(value)?)))
                            .collect(),
                    )),
                    false => Made::Object(made),
                }
            }
            other => Made::Fixed(other.clone().into_owned()),
        })
    }

    /// What it is for this request. `None`: it has no value.
    pub fn render(&self, from: &From<'_>) -> Option<Json<'static>> {
        match self {
            Made::Fixed(value) => Some(value.clone()),
            // The body's own text, which a value of serde_json would not keep.
            Made::Text(template) => match template.only() {
                Some(Reference::Body(pointer)) => {
                    find(from.body, &pointer.0).map(|value| value.clone().into_owned())
                }
                _ => template.value(from).map(|value| Json::from(&value)),
            },
            Made::Array(items) => Some(Json::Array(
                items.iter().map(|item| item.render(from).unwrap_or_default()).collect(),
            )),
            Made::Object(members) => {
                let members = members.iter();
                let made =
                    members.filter_map(|(name, value)| Some((name.clone(), value.render(from)?)));
                Some(Json::Object(made.collect()))
            }
        }
    }

    /// What it asks for.
    pub fn asks(&self, list: &mut Vec<Reference>) {
        match self {
            Made::Fixed(_) => {}
            Made::Text(template) => {
                for what in template.references() {
                    if !matches!(what, Reference::Body(_)) && !list.contains(what) {
                        list.push(what.clone());
                    }
                }
            }
            Made::Array(items) => items.iter().for_each(|item| item.asks(list)),
            Made::Object(members) => members.iter().for_each(|(_, value)| value.asks(list)),
        }
    }
}

fn fixed(made: Made) -> Option<Json<'static>> {
    match made {
        Made::Fixed(value) => Some(value),
        _ => None,
    }
}

fn find<'v, 'a>(body: &'v Json<'a>, steps: &[Step]) -> Option<&'v Json<'a>> {
    steps.iter().try_fold(body, |value, step| match (step, value) {
        (Step::Key(name), value) => value.member(name),
        (Step::At(at), Json::Array(items)) => items.get(*at),
        (Step::At(_), _) => None,
    })
}

impl Known {
    /// Looks up all of `asks`.
    pub fn collect(asks: &[Reference], from: &dyn Values) -> Known {
        Known(asks.iter().map(|what| (what.clone(), from.value(what))).collect())
    }

    fn find(&self, what: &Reference) -> Option<&serde_json::Value> {
        self.0.iter().find(|(own, _)| own == what)?.1.as_ref()
    }
}

impl Values for From<'_> {
    fn text(&self, what: &Reference) -> Option<Cow<'_, [u8]>> {
        match what {
            Reference::Body(pointer) => match find(self.body, &pointer.0)? {
                Json::Null => None,
                value => Some(match value.to_text() {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                }),
            },
            what => text_of(self.known.find(what)?),
        }
    }

    fn value(&self, what: &Reference) -> Option<serde_json::Value> {
        match what {
            Reference::Body(pointer) => {
                let value = find(self.body, &pointer.0)?;
                serde_json::from_slice(&value.to_vec()).ok()
            }
            what => self.known.find(what).cloned(),
        }
    }
}
