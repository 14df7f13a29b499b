//! The typed walk: tree → [`Spec`], gathering every problem on the way.
//!
//! A field that cannot be read gets a stand-in and an error, so that the walk goes on and indexes
//! stay those of the text. [`crate::check`] asks [`Problems::is_broken`] before it judges one.

mod access;
mod admin;
mod aggregate;
mod authenticators;
mod cache;
mod consumers;
mod fields;
mod graphql;
mod health;
mod limits;
mod listener;
mod oauth;
mod parts;
mod payload;
mod processor;
mod resilience;
mod route;
mod shape;
mod tls;
mod tokens;
mod transcode;
mod upstream;
mod validate;

use std::collections::HashMap;

pub use consumers::REDACTED;
pub use parts::{route_alone, spec};

/// A place in the text; lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub line: usize,
    pub column: usize,
}

impl Mark {
    pub const START: Mark = Mark { line: 1, column: 1 };
}

/// Where the fields of a spec stand, by their path.
#[derive(Clone, Debug, Default)]
pub struct Places {
    marks: HashMap<String, Mark>,
    few: bool,
}

/// Fields of routes of which it matters to [`crate::check`] that the text has them.
const TOLD: [&str; 6] =
    [".aggregate", ".auth", ".networks", ".cors", ".validate", ".validate.max_bytes"];

impl Places {
    /// Will hold few of the fields of routes, and none of consumers.
    pub fn few() -> Places {
        Places { few: true, ..Places::default() }
    }

    pub fn set(&mut self, field: &str, mark: Mark) {
        let left_out = self.few
            && (field.starts_with("consumers[")
                || field.starts_with("routes[") && !TOLD.iter().any(|end| field.ends_with(end)));
        if !left_out {
            self.marks.insert(field.into(), mark);
        }
    }

    /// Whether the text has this field.
    pub fn has(&self, field: &str) -> bool {
        self.marks.contains_key(field)
    }

    /// The place of `field`, or of the nearest thing around it.
    pub fn get(&self, field: &str) -> Mark {
        let mut path = field;
        loop {
            if let Some(mark) = self.marks.get(path) {
                return *mark;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or(""),
                None => return Mark::START,
            }
        }
    }
}
