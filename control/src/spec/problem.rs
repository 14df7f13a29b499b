//! What is wrong with a spec, and where.

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

use super::Mark;

/// Problems reported for one spec; what is past it is only counted.
pub const MAX_PROBLEMS: usize = 200;

/// Fields remembered as broken.
const MAX_BROKEN: usize = 100_000;

/// Longest excerpt of a value in a problem, in characters.
const MAX_VALUE: usize = 80;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The spec is refused.
    Error,
    /// The spec is taken; a person should look.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One thing that is wrong with a spec. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    pub file: String,
    pub line: usize,
    pub column: usize,
    /// Path of the field, such as `routes[2].match.path.regex`; empty for the whole text.
    pub field: String,
    /// The value as it was written, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What is wrong and what was expected.
    pub message: String,
    /// Stable id of the kind of problem, in kebab case.
    pub code: &'static str,
    /// Line and column of the other place this is about, such as the first use of a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<(usize, usize)>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { severity, file, line, column, field, message, code, .. } = self;
        write!(f, "{file}:{line}:{column}: {severity}[{code}]: ")?;
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        f.write_str(message)?;
        // One line must do without the text beside it.
        if let Some(value) = self.value.as_ref().filter(|value| !message.contains(*value)) {
            write!(f, " (found `{value}`)")?;
        }
        match self.related {
            Some((line, column)) => write!(f, " (see {file}:{line}:{column})"),
            None => Ok(()),
        }
    }
}

/// Gathers problems; bounded, and each said once even when an alias repeats its place.
#[derive(Debug)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
    seen: HashSet<(usize, usize, &'static str, String)>,
    /// Paths of the fields that have an error.
    broken: HashSet<String>,
    errors: usize,
    dropped: usize,
}

impl Problems {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn new(file: &str) -> Problems {
        Problems {
            file: file.into(),
            list: Vec::new(),
            seen: HashSet::new(),
            broken: HashSet::new(),
            errors: 0,
            dropped: 0,
        }
    }

    pub fn error(
        &mut self,
        code: &'static str,
        at: Mark,
        field: &str,
        value: Option<&str>,
        message: String,
    ) {
        self.add(Severity::Error, code, at, field, value, message, None);
    }

    #[allow(clippy::too_many_arguments)]
    pub fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        at: Mark,
        field: &str,
        value: Option<&str>,
        message: String,
        related: Option<Mark>,
    ) {
        if severity == Severity::Error {
            self.errors += 1;
            self.mark_broken(field);
        }
        if !self.seen.insert((at.line, at.column, code, message.clone())) {
            return;
        }
        if self.list.len() >= MAX_PROBLEMS {
            self.dropped += 1;
            self.seen.clear();
            return;
        }
        self.list.push(Problem {
            severity,
            file: self.file.clone(),
            line: at.line,
            column: at.column,
            field: field.into(),
            value: value.map(shorten),
            message,
            code,
            related: related.map(|mark| (mark.line, mark.column)),
        });
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Whether `field`, or something below it, has an error.
    pub fn is_broken(&self, field: &str) -> bool {
        self.broken.contains(field)
    }

    /// Notes that `field` has an error, which another problem tells.
    pub fn mark_broken(&mut self, field: &str) {
        // By then nothing more is shown anyway.
        if self.broken.len() > MAX_BROKEN {
            return;
        }
        let mut end = field.len();
        while self.broken.insert(field[..end].to_owned()) {
            match field[..end].rfind(['.', '[']) {
                Some(parent) => end = parent,
                None => break,
            }
        }
    }

    /// The problems in the order of the text.
    pub fn finish(mut self) -> Vec<Problem> {
        self.list
            .sort_by_key(|problem| (problem.line, problem.column, problem.severity, problem.code));
        if self.dropped > 0 {
            self.list.push(Problem {
                severity: Severity::Error,
                file: self.file,
                line: 1,
                column: 1,
                field: String::new(),
                value: None,
                message: format!("{} more problems are not shown; mend these first", self.dropped),
                code: "too-many-problems",
                related: None,
            });
        }
        self.list
    }
}

fn shorten(value: &str) -> String {
    let mut short: String = value.chars().take(MAX_VALUE).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    short
}
