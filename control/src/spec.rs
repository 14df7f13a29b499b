//! The spec: what people write, in YAML or JSON.
//!
//! [`load`] turns a text into a [`Spec`] or into every reason why it is none, each with its place
//! in the text. The stages are: [`tree`] (YAML with positions) → [`read`] (a typed walk) →
//! [`crate::check`] (what only the whole can tell). Nothing but a loaded spec is ever compiled.

mod files;
mod json;
mod list;
mod model;
mod problem;
mod read;
mod render;
pub(crate) mod scalars;
mod schema;
mod secrets;
pub(crate) mod tree;

pub use files::rooted_text;
pub use list::List;
pub use model::*;
pub use problem::{Problem, Problems, Severity};
pub use read::{Mark, Places, REDACTED};
pub use render::render;
#[allow(unused_imports)] // Part of the model, whoever names it.
pub use scalars::{Cidr, Digest, Refresh, TargetAddress, TargetHost, Timestamp};
pub use schema::schema;
pub use secrets::{Part, SecretUse, is_secret, redact, redacted};
pub(crate) use tree::{Node as Tree, Value as TreeValue, parse as tree};

/// Largest spec, in bytes.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What [`load`] found.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The spec; `None` when any problem is an error.
    pub spec: Option<Spec>,
    /// Errors and warnings in the order of the text.
    pub problems: Vec<Problem>,
    /// Where the fields stand; empty for a text that is no map at all.
    pub places: Places,
}

/// Reads and checks a spec in YAML or JSON. `file_name` only serves the messages.
///
/// Total: whatever the text is, the answer is a spec or at least one error.
pub fn load(file_name: &str, text: &str) -> Loaded {
    let mut problems = Problems::new(file_name);
    let (spec, places) = gather(text, Places::default(), &mut problems).unzip();
    let failed = problems.has_errors();
    Loaded {
        spec: spec.filter(|_| !failed),
        problems: problems.finish(),
        places: places.unwrap_or_default(),
    }
}

/// As [`load_bytes`], but where there is nothing to say about a spec the places of its routes and
/// consumers are left out: of a large one they are most of the work.
pub fn load_quickly(file_name: &str, bytes: &[u8]) -> Loaded {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let mut problems = Problems::new(file_name);
        if let Some((spec, places)) = gather(text, Places::few(), &mut problems)
            && problems.is_empty()
        {
            return Loaded { spec: Some(spec), problems: Vec::new(), places };
        }
    }
    load_bytes(file_name, bytes)
}

/// Reads a route by itself, in JSON. What is wrong with it goes to `problems`.
pub fn route_alone(text: &str, problems: &mut Problems) -> Option<Route> {
    let root = tree::parse(text, problems)?;
    read::route_alone(&root, problems)
}

/// Like [`load`], for bytes that may not be UTF-8.
pub fn load_bytes(file_name: &str, bytes: &[u8]) -> Loaded {
    match std::str::from_utf8(bytes) {
        Ok(text) => load(file_name, text),
        Err(error) => {
            let valid = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or(&[]));
            let line = valid.matches('\n').count() + 1;
            let column = valid.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            let mut problems = Problems::new(file_name);
            problems.error(
                "not-utf8",
                Mark { line, column },
                "",
                None,
                "this byte is not UTF-8; save the file as UTF-8".into(),
            );
            Loaded { spec: None, problems: problems.finish(), places: Places::default() }
        }
    }
}

fn gather(text: &str, places: Places, problems: &mut Problems) -> Option<(Spec, Places)> {
    if text.len() > MAX_BYTES {
        let message =
            format!("the spec has {} bytes; at most {MAX_BYTES} (64 MiB) are read", text.len());
        problems.error("file-too-large", Mark::START, "", None, message);
        return None;
    }
    let root = tree::parse(text, problems)?;
    let (spec, places) = read::spec(&root, places, problems)?;
    crate::check::check(&spec, &places, problems);
    Some((spec, places))
}

#[cfg(test)]
pub(crate) mod tests;
