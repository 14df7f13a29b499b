//! The parts of a request's message that stand in its path and query.

use super::binding::{Binding, BodyTo, FieldPath, NoField, is_textual};
use super::json::Reading;
use super::percent::{self, Keep};
use super::schema::{MessageIndex, Shape};
use super::table::Path;
use crate::limits;
use crate::validate::{Fault, In};

/// What happens to parameters of a query that are no fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnknownQuery {
    Refuse,
    Ignore,
    /// These are passed over, others refused.
    Listed(Box<[Box<str>]>),
}

/// Appends to a message what the path has for it.
///
/// # Errors
/// A value is not of its field.
pub fn write_path(
    reading: &Reading<'_>,
    binding: &Binding,
    path: &Path<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let values = binding.values(path);
    let named = binding.template.variables.iter().map(|variable| &variable.field);
    for ((field, value), name) in binding.variables.iter().zip(values).zip(named) {
        write_one(reading, field, &value, In::Path, name, out)?;
    }
    Ok(())
}

/// Appends to a message what the query has for it.
///
/// # Errors
/// A parameter is no field, or not of it.
pub fn write_query(
    reading: &Reading<'_>,
    binding: &Binding,
    input: MessageIndex,
    query: &[u8],
    unknown: &UnknownQuery,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let mut count = 0;
    let mut singles: Vec<FieldPath> = Vec::new();
    for pair in query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (pair.get(..at), pair.get(at + 1..)),
            None => (Some(pair), None),
        };
        let name = percent::decoded(name.unwrap_or_default(), Keep::PlusIsSpace);
        let value = percent::decoded(value.unwrap_or_default(), Keep::PlusIsSpace);
        let name = String::from_utf8_lossy(&name);
        count += 1;
        if count > limits::PARAMETER_VALUES {
            return Err(fault(In::Query, "", "there are too many parameters"));
        }
        let passes = match unknown {
            UnknownQuery::Refuse => false,
            UnknownQuery::Ignore => true,
            UnknownQuery::Listed(names) => names.iter().any(|own| **own == *name),
        };
        let place = In::Query;
        // With the message as body there is nothing left for the query.
        let found = match binding.body {
            BodyTo::Message => Err(NoField::Unknown),
            _ => FieldPath::find(reading.schema, input, &name),
        };
        let path = match found {
            Ok(path) => path,
            Err(_) if passes => continue,
            Err(NoField::Unknown) => return Err(fault(place, &name, "there is no such parameter")),
            Err(NoField::Unsuited) => return Err(fault(place, &name, "this is no single message")),
        };
        if binding.is_bound(&path) {
            if passes {
                continue;
            }
            return Err(fault(place, &name, "it stands in the path or body already"));
        }
        let Some(field) = path.field(reading.schema) else { continue };
        if field.shape == Shape::Map || !is_textual(reading.schema, field) {
            if passes {
                continue;
            }
            return Err(fault(place, &name, "a message or map cannot stand in a query"));
        }
        if field.shape == Shape::One {
            if singles.contains(&path) {
                return Err(fault(place, &name, "it is there twice"));
            }
            singles.push(path.clone());
        }
        write_one(reading, &path, &value, place, &name, out)?;
    }
    Ok(())
}

fn write_one(
    reading: &Reading<'_>,
    path: &FieldPath,
    value: &[u8],
    place: In,
    name: &str,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let text = std::str::from_utf8(value);
    let text = text.map_err(|_| fault(place, name, "the value is not UTF-8"))?;
    let written = path.write(reading.schema, out, |field, out| reading.parameter(text, field, out));
    written.map_err(|found| fault(place, name, &found.problem))
}

fn fault(place: In, name: &str, message: &str) -> Fault {
    Fault::new(place, name, message)
}
