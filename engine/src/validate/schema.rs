//! JSON Schemas, compiled once and shared by all routes and plans that have them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jsonschema::{Draft, PatternOptions, Validator};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::fault::{Faults, In};
use crate::limits;

/// A schema in the form that values are held against.
///
/// Patterns are matched in linear time; those that need to look around or back are tried a bounded
/// number of steps, and then refuse. Nothing is ever fetched.
pub struct Schema {
    validator: Validator,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

impl Schema {
    /// # Errors
    /// What in it is no JSON Schema.
    pub fn build(text: &str) -> Result<Schema, String> {
        let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let options = || {
            jsonschema::options()
                .with_draft(Draft::Draft202012)
                .should_validate_formats(true)
                .should_ignore_unknown_formats(true)
                .offline()
        };
        let linear = options().with_pattern_options(PatternOptions::regex()).build(&schema);
        let validator = linear.or_else(|_| {
            let bounded = PatternOptions::fancy_regex().backtrack_limit(limits::PATTERN_STEPS);
            options().with_pattern_options(bounded).build(&schema)
        });
        let validator = validator.map_err(|error| {
            let (place, problem) = (error.instance_path().to_string(), error.to_string());
            let problem: String = problem.chars().take(limits::FAULT_TEXT).collect();
            match place.as_str() {
                "" => problem,
                place => format!("{place}: {problem}"),
            }
        })?;
        Ok(Schema { validator })
    }

    /// Adds what is wrong with `value`, which has `size` values in it and stands at `pointer`, to
    /// `faults`. What it is stays unsaid.
    pub fn judge(&self, value: &Value, size: usize, at: (In, &str), faults: &mut Faults) {
        if self.validator.is_valid(value) {
            return;
        }
        let (place, pointer) = at;
        // All faults are gathered before the first is seen, so of a large value only one is asked for.
        if size > limits::FAULTS_LISTED {
            if let Err(error) = self.validator.validate(value) {
                let pointer = format!("{pointer}{}", error.instance_path());
                faults.add(place, &pointer, &error.masked().to_string());
            }
        } else {
            for error in self.validator.iter_errors(value) {
                let pointer = format!("{pointer}{}", error.instance_path());
                faults.add(place, &pointer, &error.masked().to_string());
                if faults.is_full() {
                    break;
                }
            }
        }
        if faults.is_empty() {
            faults.add(place, pointer, "value is not valid");
        }
    }
}

/// The schemas of all plans, by the digest of their text.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<[u8; 32], Weak<Schema>>>);

impl Memory {
    /// Forgets schemas that no plan has any more.
    pub fn sweep(&self) {
        let mut schemas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        schemas.retain(|_, schema| schema.strong_count() > 0);
    }

    /// # Errors
    /// As [`Schema::build`].
    pub fn schema(&self, text: &str) -> Result<Arc<Schema>, String> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        let mut schemas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(schema) = schemas.get(&key).and_then(Weak::upgrade) {
            return Ok(schema);
        }
        let schema = Arc::new(Schema::build(text)?);
        schemas.insert(key, Arc::downgrade(&schema));
        Ok(schema)
    }
}
