//! Http rules bound to the methods of a set: which request is which call, and where its parts go.

use super::percent::{self, Keep};
use super::proto::{Method, Proto, Rule};
use super::schema::{Field, Kind, Known, MessageIndex, Schema, Shape};
use super::table::Path;
use super::template::Template;
use super::wire::{self, WireType, write_tag};

/// A way to a method.
#[derive(Debug)]
pub struct Binding {
    /// Place in [`Proto::methods`].
    pub method: usize,
    /// Upper case; `*`: any.
    pub http_method: Box<str>,
    pub template: Template,
    /// Of the template's variables, in their order.
    pub variables: Vec<FieldPath>,
    pub body: BodyTo,
    /// The answer is this field of the message, and not all of it.
    pub response: Option<usize>,
}

/// Where a request's body goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyTo {
    /// There is none.
    Nowhere,
    Message,
    Field(FieldPath),
}

/// A field of a message, or of one in it: the message and the field's place at each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath(pub Box<[(MessageIndex, u16)]>);

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRule {
    /// `path`, `body`, `response_body`
    pub field: &'static str,
    pub problem: String,
}

/// Why a name leads to no field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoField {
    Unknown,
    /// What stands before the last point is no single message.
    Unsuited,
}

impl FieldPath {
    /// Follows `a.b.c` from a message. Names may be those of JSON, too.
    ///
    /// # Errors
    /// There is no such field.
    pub fn find(schema: &Schema, from: MessageIndex, name: &str) -> Result<FieldPath, NoField> {
        let mut steps = Vec::with_capacity(2);
        let mut message = Some(from);
        for part in name.split('.') {
            let Some(index) = message else { return Err(NoField::Unsuited) };
            let own = schema.message(index);
            let place = own.place_named(part).ok_or(NoField::Unknown)?;
            steps.push((index, place as u16));
            message = match own.fields.get(place) {
                Some(Field { kind: Kind::Message(next), shape: Shape::One, .. })
                    if schema.message(*next).known == Known::None =>
                {
                    Some(*next)
                }
                _ => None,
            };
        }
        Ok(FieldPath(steps.into()))
    }

    /// The field that it leads to. Never empty, so there is one.
    pub fn field<'s>(&self, schema: &'s Schema) -> Option<&'s Field> {
        let (message, place) = self.0.last()?;
        schema.message(*message).fields.get(usize::from(*place))
    }

    /// Appends the field, written by `write`, inside of the messages that lead to it. Where they are there
    /// already, a reader merges them.
    pub fn write<E>(
        &self,
        schema: &Schema,
        out: &mut Vec<u8>,
        write: impl FnOnce(&Field, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        write_steps(schema, &self.0, out, write)
    }

    /// Whether this or what it is in is the other, or what that is in.
    fn meets(&self, other: &FieldPath) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

fn write_steps<E>(
    schema: &Schema,
    steps: &[(MessageIndex, u16)],
    out: &mut Vec<u8>,
    write: impl FnOnce(&Field, &mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let Some(((message, place), rest)) = steps.split_first() else { return Ok(()) };
    let Some(field) = schema.message(*message).fields.get(usize::from(*place)) else {
        return Ok(());
    };
    if rest.is_empty() {
        return write(field, out);
    }
    write_tag(out, field.number, WireType::Bytes);
    let part = wire::begin(out);
    write_steps(schema, rest, out, write)?;
    part.end(out);
    Ok(())
}

impl Binding {
    /// # Errors
    /// What of the rule does not fit the method.
    pub fn of(proto: &Proto, place: usize, rule: &Rule) -> Result<Binding, BadRule> {
        let schema = &proto.schema;
        let Some(method) = proto.methods.get(place) else { return Err(bad("path", "no method")) };
        let template = Template::parse(&rule.path).map_err(|error| BadRule {
            field: "path",
            problem: format!("`{}`: {error}", rule.path),
        })?;
        let mut variables: Vec<FieldPath> = Vec::with_capacity(template.variables.len());
        for variable in &template.variables {
            let name = &variable.field;
            let path = find(schema, method.input, name, "path")?;
            let suits = path.field(schema).is_some_and(|field| takes_text(schema, field));
            if !suits {
                let problem = format!("`{name}` is a list or a message; a path has single values");
                return Err(BadRule { field: "path", problem });
            }
            if variables.iter().any(|other| other.meets(&path)) {
                return Err(bad("path", &format!("`{name}` is there twice")));
            }
            variables.push(path);
        }
        let body = match rule.body.as_str() {
            "" => BodyTo::Nowhere,
            "*" => BodyTo::Message,
            name => {
                let path = find(schema, method.input, name, "body")?;
                if variables.iter().any(|other| other.meets(&path)) {
                    return Err(bad("body", &format!("`{name}` is in the path, too")));
                }
                BodyTo::Field(path)
            }
        };
        let response = match rule.response_body.as_str() {
            "" => None,
            name => {
                let message = schema.message(method.output);
                let place = message.place_named(name);
                Some(place.ok_or_else(|| {
                    bad("response_body", &format!("{} has no field `{name}`", message.name))
                })?)
            }
        };
        let http_method = rule.method.to_ascii_uppercase().into();
        Ok(Binding { method: place, http_method, template, variables, body, response })
    }

    /// The binding of a method without a rule: `POST /pkg.Service/Method`, with the message as body.
    pub fn auto(proto: &Proto, place: usize) -> Option<Binding> {
        let method = proto.methods.get(place)?;
        Some(Binding {
            method: place,
            http_method: "POST".into(),
            template: Template::parse(&method.path).ok()?,
            variables: Vec::new(),
            body: BodyTo::Message,
            response: None,
        })
    }

    /// What a path has for the variables, decoded.
    pub fn values(&self, path: &Path<'_>) -> Vec<Vec<u8>> {
        let bare;
        let path = match self.template.verb.is_empty() {
            true => path,
            false => {
                bare = path.without_verb();
                &bare
            }
        };
        let values = self.template.variables.iter().map(|variable| {
            let (start, end) = self.template.range(variable, path.segments.len());
            let own = path.segments.get(start..end).unwrap_or_default();
            let keep = if self.template.is_multi(variable) { Keep::Slash } else { Keep::Nothing };
            match own {
                [one] => percent::decoded(one, keep).into_owned(),
                own => percent::decoded(&own.join(&b'/'), keep).into_owned(),
            }
        });
        values.collect()
    }

    pub fn is_bound(&self, path: &FieldPath) -> bool {
        let body = match &self.body {
            BodyTo::Field(body) => Some(body),
            BodyTo::Nowhere | BodyTo::Message => None,
        };
        self.variables.iter().chain(body).any(|own| own.meets(path))
    }

    pub fn method<'p>(&self, proto: &'p Proto) -> Option<&'p Method> {
        proto.methods.get(self.method)
    }
}

fn bad(field: &'static str, problem: &str) -> BadRule {
    BadRule { field, problem: problem.into() }
}

fn find(
    schema: &Schema,
    from: MessageIndex,
    name: &str,
    field: &'static str,
) -> Result<FieldPath, BadRule> {
    FieldPath::find(schema, from, name).map_err(|no| {
        let message = &schema.message(from).name;
        let problem = match no {
            NoField::Unknown => format!("{message} has no field `{name}`"),
            NoField::Unsuited => format!("`{name}` of {message} goes through what is no message"),
        };
        BadRule { field, problem }
    })
}

/// Whether a text of a path or query can be its value (or one of them).
pub fn is_textual(schema: &Schema, field: &Field) -> bool {
    match field.kind {
        Kind::Message(index) => matches!(
            schema.message(index).known,
            Known::Timestamp | Known::Duration | Known::FieldMask | Known::Wrapper | Known::Value
        ),
        Kind::Group(_) => false,
        _ => true,
    }
}

fn takes_text(schema: &Schema, field: &Field) -> bool {
    field.shape == Shape::One && is_textual(schema, field)
}
