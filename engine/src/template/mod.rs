//! The one template language: `${ root.name | filter }` in texts that a spec holds.
//!
//! A template is compiled when a plan is built, against the [`Scope`] of the rule that it stands in: what
//! is not at hand there is an error with its place. At run time a rule hands over its [`Values`]. A
//! literal costs a copy into the output and nothing else; values are borrowed where they can be.
//!
//! | root | |
//! |---|---|
//! | `path` | the whole path, normalised; `path.NAME`: a part that the route's match names |
//! | `query.NAME`, `header.NAME`, `cookie.NAME` | of the request |
//! | `claim.a.b[0]` | of the caller's token |
//! | `consumer.id`, `.username`, `.group` | the caller, if known |
//! | `client.address` | |
//! | `request.id`, `.method`, `.host`, `.path`, `.query`, `.scheme` | |
//! | `route.name` | |
//! | `time.unix`, `time.iso` | now |
//! | `response.status`, `response.header.NAME` | in rules for answers |
//! | `body.a.b[0]` | where a JSON body is at hand |
//! | `call.NAME.status`, `.header.X`, `.body.a.b` | in aggregates |
//! | `item`, `item.a`, `index` | in `foreach` |
//!
//! A name that is not made of letters, digits, `-` and `_` is written `["like this"]`. `$${` is a literal
//! `${`. Filters are listed in `filter.rs`. A value that is missing (or `null`) has no text: `default("x")`
//! gives it one, else the rule is skipped, or fails where it needs a value.

mod escape;
mod filter;
mod fuzz;
mod json;
mod parse;
mod reference;
mod scope;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

pub use escape::{Escape, is_field_value, write_query};
#[doc(hidden)]
pub use fuzz::fuzz_template;
pub use json::JsonTemplate;
pub use reference::{
    CallPart, Capture, ConsumerPart, FieldName, Pointer, Reference, RequestPart, Root, Step,
    TimePart, text_of,
};
pub use scope::Scope;

use filter::{Datum, Filter};

/// A compiled template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    /// Never empty, and never two of them in a row.
    Literal(Box<str>),
    Value(Box<Placeholder>),
}

/// What stands between `${` and `}`.
#[derive(Clone, Debug, PartialEq)]
struct Placeholder {
    /// As it is written.
    source: Arc<str>,
    what: Reference,
    filters: Box<[Filter]>,
    /// The filters leave it percent-encoded.
    encoded: bool,
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} (at byte {at})")]
pub struct TemplateError {
    /// Byte of the text at which the problem is.
    pub at: usize,
    /// What is wrong, and what was expected.
    pub problem: String,
}

/// Why a template gave no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{what}` {}", if *.unfit { "holds bytes that cannot stand here" } else { "has no value" })]
pub struct Missing {
    /// The placeholder, as it is written.
    pub what: Arc<str>,
    /// There is a value, but not one that can stand where it should ([`Escape::Header`]).
    pub unfit: bool,
}

/// Where a template's values come from.
pub trait Values {
    /// As text. Path captures and query parameters are percent-decoded; `null` has no text.
    fn text(&self, what: &Reference) -> Option<Cow<'_, [u8]>>;

    /// With its type. What has none is a string.
    fn value(&self, what: &Reference) -> Option<Value> {
        self.text(what).map(|text| Value::String(String::from_utf8_lossy(&text).into_owned()))
    }
}

impl Template {
    /// # Errors
    /// Where `text` is no template, or asks for what is not in `scope`.
    pub fn compile(text: &str, scope: &Scope) -> Result<Template, TemplateError> {
        parse::template(text, scope)
    }

    /// The text of a template that always gives the same.
    pub fn literal(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The same with other literals.
    pub fn map_literals(mut self, map: impl Fn(&str) -> String) -> Template {
        for part in &mut self.parts {
            if let Part::Literal(text) = part {
                *text = map(text).into();
            }
        }
        self
    }

    /// Appends its text to `out`. Values are escaped, literals are not.
    ///
    /// # Errors
    /// A value is missing (or may not stand here): `out` is as it was.
    pub fn text(
        &self,
        from: &dyn Values,
        escape: Escape,
        out: &mut Vec<u8>,
    ) -> Result<(), Missing> {
        let start = out.len();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Value(place) => {
                    if let Err(unfit) = place.text(from, escape, out) {
                        out.truncate(start);
                        return Err(Missing { what: place.source.clone(), unfit });
                    }
                }
            }
        }
        Ok(())
    }

    /// Its value: with its type where the template is one placeholder and nothing else, else a string.
    pub fn value(&self, from: &dyn Values) -> Option<Value> {
        self.render(from).ok()
    }

    /// Likewise, and what was missing.
    fn render(&self, from: &dyn Values) -> Result<Value, Missing> {
        if let [Part::Value(place)] = &*self.parts {
            let missing = || Missing { what: place.source.clone(), unfit: false };
            return place.find(from, true).map(Datum::into_value).ok_or_else(missing);
        }
        let mut out = Vec::new();
        self.text(from, Escape::None, &mut out)?;
        Ok(Value::String(match String::from_utf8(out) {
            Ok(text) => text,
            Err(bytes) => String::from_utf8_lossy(bytes.as_bytes()).into_owned(),
        }))
    }

    /// What it asks for, where it is one placeholder that changes nothing, and what stands in for a value
    /// that is missing or `null`.
    pub fn plain(&self) -> Option<(&Reference, Option<&Value>)> {
        let [Part::Value(place)] = &*self.parts else { return None };
        match &*place.filters {
            [] => Some((&place.what, None)),
            [Filter::Default { value, .. }] => Some((&place.what, Some(value))),
            _ => None,
        }
    }

    /// Whether it asks for anything of that root.
    pub fn uses(&self, root: Root) -> bool {
        self.references().any(|what| what.root() == root)
    }

    /// What it asks for, if it is that and nothing else.
    pub fn only(&self) -> Option<&Reference> {
        match &*self.parts {
            [Part::Value(place)] if place.filters.is_empty() => Some(&place.what),
            _ => None,
        }
    }

    /// What of it is always the same, in its order.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(&**text),
            Part::Value(_) => None,
        })
    }

    /// What it asks for, in its order.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Value(place) => Some(&place.what),
        })
    }
}

impl Placeholder {
    /// # Errors
    /// There is no value; `true`: there is one, but it cannot stand here.
    fn text(&self, from: &dyn Values, escape: Escape, out: &mut Vec<u8>) -> Result<(), bool> {
        let datum = self.find(from, false).ok_or(false)?;
        let text = datum.into_text().ok_or(false)?;
        let escape = if self.encoded { Escape::None } else { escape };
        escape::write(&text, escape, &self.what, out).map_err(|escape::Unfit| true)
    }

    fn find<'v>(&'v self, from: &'v dyn Values, typed: bool) -> Option<Datum<'v>> {
        let typed = typed || self.filters.first().is_some_and(Filter::wants_type);
        let mut datum = match typed {
            true => from.value(&self.what).map(Datum::Value),
            false => from.text(&self.what).map(Datum::Text),
        };
        for filter in &self.filters {
            datum = filter.apply(datum, typed);
        }
        datum
    }
}
