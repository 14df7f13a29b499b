//! From text to template.

use serde_json::Value;

use super::filter::Filter;
use super::reference::{
    CallPart, Capture, ConsumerPart, FieldName, Pointer, Reference, RequestPart, Root, Step,
    TimePart,
};
use super::scope::{Scope, list};
use super::{Part, Placeholder, Template, TemplateError};
use crate::limits;
use crate::message::fields::is_tchar;

pub(super) fn template(text: &str, scope: &Scope) -> Result<Template, TemplateError> {
    if text.len() > limits::TEMPLATE_BYTES {
        let problem = format!("is longer than {} bytes", limits::TEMPLATE_BYTES);
        return Err(TemplateError { at: 0, problem });
    }
    let mut parser = Parser { text, at: 0, scope };
    let mut parts = Vec::new();
    let mut literal = String::new();
    while let Some(rest) = text.get(parser.at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("$${") {
            literal.push_str("${");
            parser.at += 3;
        } else if rest.starts_with("${") {
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Value(Box::new(parser.placeholder()?)));
            if parts.len() > limits::TEMPLATE_PARTS {
                return Err(parser.fault("one placeholder too many"));
            }
        } else {
            // To the next `$`, but past the one that may be here.
            let dollar = rest.get(1..).and_then(|rest| rest.find('$'));
            // What begins with a longer character has no `$` there, and no boundary at 1.
            let end = match rest.is_char_boundary(1) {
                true => dollar.map_or(rest.len(), |at| at + 1),
                false => rest.find('$').unwrap_or(rest.len()),
            };
            literal.push_str(rest.get(..end).unwrap_or_default());
            parser.at += end;
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(Template { parts: parts.into() })
}

struct Parser<'t> {
    text: &'t str,
    /// Always at a character's boundary.
    at: usize,
    scope: &'t Scope,
}

type Parsed<T> = Result<T, TemplateError>;

impl<'t> Parser<'t> {
    fn fault(&self, problem: impl Into<String>) -> TemplateError {
        TemplateError { at: self.at, problem: problem.into() }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.rest().bytes().next()
    }

    /// Takes `what` if it is next.
    fn takes(&mut self, what: u8) -> bool {
        let there = self.peek() == Some(what);
        self.at += usize::from(there);
        there
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    /// What is next, for people.
    fn found(&self) -> String {
        match self.rest().chars().next() {
            Some(next) => format!("found `{}`", next.escape_debug()),
            None => "the text ends".into(),
        }
    }

    fn expect(&mut self, what: u8, where_: &str) -> Parsed<()> {
        if self.takes(what) {
            return Ok(());
        }
        let what = char::from(what);
        Err(self.fault(format!("expected `{what}` {where_}, but {}", self.found())))
    }

    /// From `${` to `}`.
    fn placeholder(&mut self) -> Parsed<Placeholder> {
        self.at += 2;
        let start = self.at;
        self.skip_space();
        let what = self.reference()?;
        let mut filters = Vec::new();
        let mut encoded = false;
        loop {
            self.skip_space();
            if !self.takes(b'|') {
                break;
            }
            self.skip_space();
            if filters.len() >= limits::TEMPLATE_FILTERS {
                return Err(self.fault(format!("more than {} filters", limits::TEMPLATE_FILTERS)));
            }
            let filter = self.filter()?;
            encoded = filter.leaves_encoded(encoded);
            filters.push(filter);
        }
        let end = self.at;
        self.expect(b'}', "or `|` and a filter")?;
        let source = self.text.get(start..end).unwrap_or_default().trim().into();
        Ok(Placeholder { source, what, filters: filters.into(), encoded })
    }

    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let end = rest.bytes().position(|byte| !named(byte)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn reference(&mut self) -> Parsed<Reference> {
        let start = self.at;
        let word = self.word();
        if word.is_empty() {
            let problem = format!("expected {}, but {}", self.scope.roots(), self.found());
            return Err(self.fault(problem));
        }
        let root = Root::ALL.iter().find(|(name, _)| *name == word).map(|(_, root)| *root);
        let problem = match root {
            Some(root) if self.scope.has(root) => return self.of_root(root),
            Some(_) => format!("`{word}` is not at hand here; expected {}", self.scope.roots()),
            None => format!("`{word}` is unknown; expected {}", self.scope.roots()),
        };
        Err(TemplateError { at: start, problem })
    }

    fn of_root(&mut self, root: Root) -> Parsed<Reference> {
        Ok(match root {
            Root::Path if !matches!(self.peek(), Some(b'.' | b'[')) => Reference::Path,
            Root::Path => {
                let at = self.at;
                let name = self.name("a part of the path")?;
                let index = known(at, &name, "part of the path", &self.scope.captures)?;
                Reference::Capture(Capture { name: name.into(), index })
            }
            Root::Query => Reference::Query(self.name("the name of a parameter")?.into()),
            Root::Header => Reference::Header(self.field_name()?),
            Root::Cookie => Reference::Cookie(self.name("the name of a cookie")?.into()),
            Root::Claim => {
                let at = self.at;
                match self.pointer()? {
                    pointer if matches!(pointer.0.first(), Some(Step::Key(_))) => {
                        Reference::Claim(pointer)
                    }
                    _ => return Err(wants(at, "the name of a claim behind it, such as claim.sub")),
                }
            }
            Root::Consumer => Reference::Consumer(self.one_of(&[
                ("id", ConsumerPart::Id),
                ("username", ConsumerPart::Username),
                ("group", ConsumerPart::Group),
            ])?),
            Root::Client => self.one_of(&[("address", Reference::ClientAddress)])?,
            Root::Request => Reference::Request(self.one_of(&[
                ("id", RequestPart::Id),
                ("method", RequestPart::Method),
                ("host", RequestPart::Host),
                ("path", RequestPart::Path),
                ("query", RequestPart::Query),
                ("scheme", RequestPart::Scheme),
            ])?),
            Root::Route => self.one_of(&[("name", Reference::RouteName)])?,
            Root::Time => {
                Reference::Time(self.one_of(&[("unix", TimePart::Unix), ("iso", TimePart::Iso)])?)
            }
            Root::Response => match self.one_of(&[("status", false), ("header", true)])? {
                false => Reference::ResponseStatus,
                true => Reference::ResponseHeader(self.field_name()?),
            },
            Root::Body => Reference::Body(self.pointer()?),
            Root::Call => {
                let at = self.at;
                let name = self.name("the name of a call")?;
                let index = known(at, &name, "call", &self.scope.calls)?;
                let part = match self.one_of(&[("status", 0), ("header", 1), ("body", 2)])? {
                    0 => CallPart::Status,
                    1 => CallPart::Header(self.field_name()?),
                    _ => CallPart::Body(self.pointer()?),
                };
                Reference::Call { index, part }
            }
            Root::Item => Reference::Item(self.pointer()?),
            Root::Index => Reference::Index,
        })
    }

    /// `.word` or `["text"]` or `[0]`, if that is next.
    fn step(&mut self) -> Parsed<Option<Step>> {
        if self.takes(b'.') {
            let word = self.word();
            if word.is_empty() {
                return Err(self.fault(format!("expected a name behind `.`, but {}", self.found())));
            }
            return Ok(Some(Step::Key(word.into())));
        }
        if !self.takes(b'[') {
            return Ok(None);
        }
        self.skip_space();
        let step = match self.peek() {
            Some(b'"') => Step::Key(self.quoted()?.into()),
            Some(b'0'..=b'9') => {
                let start = self.at;
                let digits = self.word();
                let number = digits.parse().map_err(|_| TemplateError {
                    at: start,
                    problem: format!("expected a number from 0, but `{digits}` is none"),
                })?;
                Step::At(number)
            }
            _ => {
                let problem = "expected a number or a text in double quotes";
                return Err(self.fault(format!("{problem}, but {}", self.found())));
            }
        };
        self.skip_space();
        self.expect(b']', "behind it")?;
        Ok(Some(step))
    }

    fn pointer(&mut self) -> Parsed<Pointer> {
        let mut steps = Vec::new();
        while let Some(step) = self.step()? {
            steps.push(step);
            if steps.len() > limits::TEMPLATE_STEPS {
                return Err(self.fault(format!("more than {} steps", limits::TEMPLATE_STEPS)));
            }
        }
        Ok(Pointer(steps.into()))
    }

    /// One step that is a name.
    fn name(&mut self, what: &str) -> Parsed<String> {
        let start = self.at;
        match self.step()? {
            Some(Step::Key(name)) if !name.is_empty() => Ok(name.into()),
            // The captures of a regular expression that have no name have a number.
            Some(Step::At(at)) => Ok(at.to_string()),
            _ => Err(wants(start, &format!("{what} behind it"))),
        }
    }

    fn field_name(&mut self) -> Parsed<FieldName> {
        let start = self.at;
        let name = self.name("the name of a header field")?;
        match name.bytes().all(is_tchar) {
            true => Ok(FieldName::new(&name)),
            false => Err(wants(start, "the name of a header field behind it")),
        }
    }

    fn one_of<T: Clone>(&mut self, parts: &[(&str, T)]) -> Parsed<T> {
        let start = self.at;
        if self.takes(b'.') {
            let word = self.word();
            if let Some((_, part)) = parts.iter().find(|(name, _)| *name == word) {
                return Ok(part.clone());
            }
        }
        let names: Vec<String> = parts.iter().map(|(name, _)| format!(".{name}")).collect();
        Err(wants(start, &format!("{} behind it", list(names.iter().map(String::as_str)))))
    }

    fn filter(&mut self) -> Parsed<Filter> {
        let start = self.at;
        let word = self.word();
        Ok(match word {
            "lower" => Filter::Lower,
            "upper" => Filter::Upper,
            "trim" => Filter::Trim,
            "urlencode" => Filter::Urlencode,
            "base64" => Filter::Base64,
            "json" => Filter::Json,
            "int" => Filter::Int,
            "string" => Filter::String,
            "default" => {
                self.open()?;
                let value = self.constant()?;
                self.close()?;
                Filter::default(value)
            }
            "prefix" => Filter::Prefix(self.argument()?.into()),
            "join" => Filter::Join(self.argument()?.into()),
            "replace" => {
                self.open()?;
                let at = self.at;
                let from = self.quoted()?;
                if from.is_empty() {
                    return Err(wants(at, "a text that is not empty to replace"));
                }
                self.skip_space();
                self.expect(b',', "and what to put in its place")?;
                self.skip_space();
                let to = self.quoted()?;
                self.close()?;
                Filter::Replace(from.into(), to.into())
            }
            _ => {
                let found = if word.is_empty() { self.found() } else { format!("found `{word}`") };
                let names = "default, lower, upper, trim, prefix, replace, join, urlencode, base64, \
                             json, int or string";
                let problem = format!("expected a filter ({names}), but {found}");
                return Err(TemplateError { at: start, problem });
            }
        })
    }

    fn open(&mut self) -> Parsed<()> {
        self.expect(b'(', "and an argument")?;
        self.skip_space();
        Ok(())
    }

    fn close(&mut self) -> Parsed<()> {
        self.skip_space();
        self.expect(b')', "behind the argument")
    }

    /// `("text")`.
    fn argument(&mut self) -> Parsed<String> {
        self.open()?;
        let text = self.quoted()?;
        self.close()?;
        Ok(text)
    }

    /// A text in double quotes, with the escapes of JSON.
    fn quoted(&mut self) -> Parsed<String> {
        let rest = self.rest();
        if !rest.starts_with('"') {
            let found = self.found();
            return Err(self.fault(format!("expected a text in double quotes, but {found}")));
        }
        let mut escaped = false;
        for (at, byte) in rest.bytes().enumerate().skip(1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    let text = rest.get(..=at).unwrap_or_default();
                    let text = serde_json::from_str(text)
                        .map_err(|error| self.fault(format!("the text is not valid: {error}")))?;
                    self.at += at + 1;
                    return Ok(text);
                }
                _ => {}
            }
        }
        Err(self.fault("expected `\"` at the end of this text"))
    }

    /// A text, number, `true`, `false`, `null`, `[]` or `{}`.
    fn constant(&mut self) -> Parsed<Value> {
        if self.peek() == Some(b'"') {
            return self.quoted().map(Value::String);
        }
        let rest = self.rest();
        let end = rest.find([')', ' ', '\t', '\n', '\r', '|']).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        // Nothing that could nest deeply.
        match serde_json::from_str(word).ok().filter(|_| word.len() <= 64) {
            Some(value) => {
                self.at += end;
                Ok(value)
            }
            None => Err(self.fault(format!(
                "expected a text in double quotes, a number, true, false, null, [] or {{}}, but {}",
                self.found()
            ))),
        }
    }
}

fn wants(at: usize, what: &str) -> TemplateError {
    TemplateError { at, problem: format!("expected {what}") }
}

/// The place of a name in a list.
fn known(at: usize, name: &str, what: &str, names: &[String]) -> Parsed<usize> {
    names.iter().position(|one| one == name).ok_or_else(|| TemplateError {
        at,
        problem: match names {
            [] => format!("there is no {what} `{name}`; there are none here"),
            names => {
                let names = list(names.iter().map(String::as_str));
                format!("there is no {what} `{name}`; expected {names}")
            }
        },
    })
}
