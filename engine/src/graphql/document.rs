//! What an operation of a document asks for: how deep, how much, of what.
//!
//! Fragments are measured once each, however often they are spread, so that the work is no more than the
//! document is long.

use std::collections::HashMap;

use apollo_parser::Parser;
use apollo_parser::cst::{
    Argument, CstNode, Definition, Document, Field, ObjectField, OperationDefinition, Selection,
    SelectionSet, Value, VariableDefinition,
};

use super::{Refused, Rules};
use crate::limits;
use crate::payload::json::Json;

/// An operation that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    pub kind: Kind,
    pub cost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Query,
    Mutation,
    Subscription,
}

/// How much there is in a selection set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    cost: u64,
    depth: u32,
    aliases: u64,
}

impl Size {
    fn beside(self, other: Size) -> Size {
        Size {
            cost: self.cost.saturating_add(other.cost),
            depth: self.depth.max(other.depth),
            aliases: self.aliases.saturating_add(other.aliases),
        }
    }
}

/// Measures the operation of that name, or the only one.
///
/// # Errors
/// It is past a bound, or there is none.
pub fn measure(
    text: &str,
    name: Option<&str>,
    variables: Option<&Json<'_>>,
    rules: &Rules,
) -> Result<Measured, Refused> {
    let parser =
        Parser::new(text).recursion_limit(limits::GRAPHQL_RECURSION).token_limit(rules.max_tokens);
    let tree = parser.parse();
    if let Some(error) = tree.errors().next() {
        return Err(match error.is_limit() {
            true => Refused::new("QUERY_TOO_LARGE", "the document is too long or nests too deep"),
            false => Refused::new("GRAPHQL_PARSE_FAILED", "the document cannot be parsed"),
        });
    }
    let document = tree.document();
    let operation = operation(&document, name)?;
    let own = operation.name().map(|name| name.text().to_string());
    let allowed = rules.operations.is_empty()
        || own.is_some_and(|own| rules.operations.iter().any(|name| **name == *own));
    if !allowed {
        return Err(Refused::new("OPERATION_NOT_ALLOWED", "this operation is not allowed here"));
    }
    let mut defaults = HashMap::new();
    let definitions = operation.variable_definitions();
    for definition in definitions.iter().flat_map(|list| list.variable_definitions()) {
        if let Some((name, default)) = default_of(&definition) {
            defaults.insert(name, default);
        }
    }
    let mut measuring =
        Measuring { rules, variables, defaults, fragments: fragments(&document)?, nesting: 0 };
    let set = operation.selection_set();
    let set = set.ok_or_else(|| Refused::new("GRAPHQL_PARSE_FAILED", "there is no selection"))?;
    let size = measuring.set(&set)?;
    if size.depth > rules.max_depth {
        let problem = format!("fields nest {} deep; at most {}", size.depth, rules.max_depth);
        return Err(Refused::new("QUERY_TOO_DEEP", &problem));
    }
    if size.aliases > rules.max_aliases {
        let problem = format!("there are {} aliases; at most {}", size.aliases, rules.max_aliases);
        return Err(Refused::new("TOO_MANY_ALIASES", &problem));
    }
    let kind = operation.operation_type();
    let kind = match kind {
        Some(kind) if kind.mutation_token().is_some() => Kind::Mutation,
        Some(kind) if kind.subscription_token().is_some() => Kind::Subscription,
        _ => Kind::Query,
    };
    Ok(Measured { kind, cost: size.cost })
}

fn operation(document: &Document, name: Option<&str>) -> Result<OperationDefinition, Refused> {
    let mut found = None;
    for definition in document.definitions() {
        match definition {
            Definition::OperationDefinition(operation) => {
                let own = operation.name().map(|name| name.text().to_string());
                match (name, &found) {
                    (Some(name), None) if own.as_deref() != Some(name) => {}
                    (Some(name), Some(_)) if own.as_deref() != Some(name) => {}
                    (_, None) => found = Some(operation),
                    // Two of the name, or several and no name.
                    (_, Some(_)) => {
                        return Err(Refused::new(
                            "OPERATION_RESOLUTION_FAILURE",
                            "it is not clear which operation is meant",
                        ));
                    }
                }
            }
            Definition::FragmentDefinition(_) => {}
            _ => {
                let problem = "a request has operations and fragments, no types";
                return Err(Refused::new("GRAPHQL_VALIDATION_FAILED", problem));
            }
        }
    }
    let problem = "there is no such operation";
    found.ok_or_else(|| Refused::new("OPERATION_RESOLUTION_FAILURE", problem))
}

/// A fragment, and what is known of it.
enum Fragment {
    New(SelectionSet),
    /// It is being measured: who spreads it now is in it.
    Open,
    Known(Size),
}

fn fragments(document: &Document) -> Result<HashMap<String, Fragment>, Refused> {
    let mut fragments = HashMap::new();
    for definition in document.definitions() {
        if let Definition::FragmentDefinition(fragment) = definition {
            let name = fragment.fragment_name().and_then(|name| name.name());
            let (Some(name), Some(set)) = (name, fragment.selection_set()) else { continue };
            if fragments.insert(name.text().to_string(), Fragment::New(set)).is_some() {
                let problem = "a fragment is there twice";
                return Err(Refused::new("GRAPHQL_VALIDATION_FAILED", problem));
            }
        }
    }
    Ok(fragments)
}

struct Measuring<'m, 'j> {
    rules: &'m Rules,
    variables: Option<&'m Json<'j>>,
    defaults: HashMap<String, u64>,
    fragments: HashMap<String, Fragment>,
    /// Selection sets around this one, those of fragments included.
    nesting: usize,
}

impl Measuring<'_, '_> {
    fn set(&mut self, set: &SelectionSet) -> Result<Size, Refused> {
        if self.nesting >= limits::GRAPHQL_RECURSION {
            return Err(Refused::new("QUERY_TOO_DEEP", "fields and fragments nest too deep"));
        }
        self.nesting += 1;
        let mut size = Size::default();
        for selection in set.selections() {
            let one = match selection {
                Selection::Field(field) => self.field(&field)?,
                Selection::InlineFragment(inline) => match inline.selection_set() {
                    Some(set) => self.set(&set)?,
                    None => Size::default(),
                },
                Selection::FragmentSpread(spread) => {
                    let name = spread.fragment_name().and_then(|name| name.name());
                    self.fragment(&name.map(|name| name.text().to_string()).unwrap_or_default())?
                }
            };
            size = size.beside(one);
        }
        self.nesting -= 1;
        Ok(size)
    }

    fn field(&mut self, field: &Field) -> Result<Size, Refused> {
        let name = field.name().map(|name| name.text().to_string()).unwrap_or_default();
        if matches!(name.as_str(), "__schema" | "__type") && !self.rules.introspection {
            let problem = "the schema cannot be asked for here";
            return Err(Refused::new("INTROSPECTION_DISABLED", problem));
        }
        let inner = match field.selection_set() {
            Some(set) => self.set(&set)?,
            None => Size::default(),
        };
        let mut times = 1;
        for argument in field.arguments().iter().flat_map(|list| list.arguments()) {
            times = times.max(self.times(&argument));
        }
        let weight = self.rules.weights.get(name.as_str()).copied().unwrap_or(1);
        Ok(Size {
            cost: inner.cost.saturating_mul(times).saturating_add(weight.into()),
            depth: inner.depth.saturating_add(1),
            aliases: inner.aliases.saturating_add(field.alias().is_some().into()),
        })
    }

    fn fragment(&mut self, name: &str) -> Result<Size, Refused> {
        let problem = match self.fragments.insert(name.to_owned(), Fragment::Open) {
            Some(Fragment::New(set)) => {
                let size = self.set(&set)?;
                self.fragments.insert(name.to_owned(), Fragment::Known(size));
                return Ok(size);
            }
            Some(Fragment::Known(size)) => {
                self.fragments.insert(name.to_owned(), Fragment::Known(size));
                return Ok(size);
            }
            Some(Fragment::Open) => "a fragment is in itself",
            None => "there is no such fragment",
        };
        Err(Refused::new("GRAPHQL_VALIDATION_FAILED", problem))
    }

    /// How long an argument lets a list be.
    fn times(&self, argument: &Argument) -> u64 {
        let name = argument.name().map(|name| name.text().to_string()).unwrap_or_default();
        let Some(value) = argument.value() else { return 1 };
        self.length(&name, &value, 8)
    }

    fn length(&self, name: &str, value: &Value, depth: u32) -> u64 {
        let counts = self.rules.list_arguments.iter().any(|own| **own == *name);
        match value {
            Value::IntValue(_) | Value::FloatValue(_) if counts => number(&value.source_string()),
            Value::Variable(variable) => {
                let name = variable.text().to_string();
                let given = self.variables.and_then(|all| all.member(&name));
                match given {
                    Some(given) => self.given(counts, given, depth),
                    None if counts => self.defaults.get(&name).copied().unwrap_or(1),
                    None => 1,
                }
            }
            // Such as `page: {first: 10}`.
            Value::ObjectValue(object) if depth > 0 => {
                let one = |field: ObjectField| {
                    let name = field.name()?.text().to_string();
                    Some(self.length(&name, &field.value()?, depth - 1))
                };
                object.object_fields().filter_map(one).max().unwrap_or(1)
            }
            _ => 1,
        }
    }

    /// Likewise, of a variable's value.
    fn given(&self, counts: bool, given: &Json<'_>, depth: u32) -> u64 {
        match given {
            Json::Number(text) if counts => number(text),
            Json::Object(members) if depth > 0 => {
                let one = |(name, value): &(crate::payload::json::Text<'_>, Json<'_>)| {
                    let counts = self.rules.list_arguments.iter().any(|own| name.is(own));
                    self.given(counts, value, depth - 1)
                };
                members.iter().map(one).max().unwrap_or(1)
            }
            _ => 1,
        }
    }
}

fn default_of(definition: &VariableDefinition) -> Option<(String, u64)> {
    let name = definition.variable()?.text().to_string();
    let value = definition.default_value()?.value()?;
    matches!(value, Value::IntValue(_)).then(|| (name, number(&value.source_string())))
}

/// A number as a factor: at least 1.
fn number(text: &str) -> u64 {
    let text = text.trim();
    match text.parse::<u64>() {
        Ok(number) => number.max(1),
        // `as` keeps what is too large, or none, within bounds.
        Err(_) => text.parse::<f64>().map_or(1, |number| (number as u64).max(1)),
    }
}
