//! A new path, in the normal form of all paths: `route/path.rs`.

use contract::snapshot::PathShape;
use regex::bytes::Regex;

use super::build::{Problem, is_normal, template};
use super::captures::Captures;
use super::values::RequestValues;
use crate::message::Span;
use crate::route::{path, pattern};
use crate::template::{Escape, Reference, RequestPart, Scope, Template};

#[derive(Clone, Debug)]
pub enum PathRule {
    Whole(Template),
    /// Each match gives way.
    Replace {
        regex: Regex,
        with: Template,
    },
}

impl PartialEq for PathRule {
    fn eq(&self, other: &PathRule) -> bool {
        match (self, other) {
            (PathRule::Whole(one), PathRule::Whole(other)) => one == other,
            (
                PathRule::Replace { regex, with },
                PathRule::Replace { regex: other, with: others },
            ) => regex.as_str() == other.as_str() && with == others,
            _ => false,
        }
    }
}

/// There is no such path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPath;

impl PathRule {
    pub(super) fn build(from: &PathShape, scope: &Scope) -> Result<PathRule, Problem> {
        let place = |field: &str| format!("request.path{field}");
        match from {
            PathShape::Whole(text) => {
                let path = template(text, scope).map_err(|problem| (place(""), problem))?;
                let first = path.references().next();
                let absolute = text.starts_with('/')
                    || (text.starts_with("${")
                        && matches!(
                            first,
                            Some(Reference::Path | Reference::Request(RequestPart::Path))
                        ));
                if !absolute {
                    return Err((place(""), "a path begins with `/`".into()));
                }
                if text.contains('?') && text.split("${").next().is_some_and(|l| l.contains('?')) {
                    return Err((place(""), "a path has no `?`; use request.query".into()));
                }
                if path.literal().is_some_and(|text| !is_normal(text)) {
                    let problem = "is no path in normal form: percent-encode what needs it, and leave \
                                   out `//`, `/./` and `/../`";
                    return Err((place(""), problem.into()));
                }
                Ok(PathRule::Whole(path))
            }
            PathShape::Replace { pattern: text, with } => {
                let regex = pattern(text).map_err(|problem| (place(".regex"), problem))?;
                // Its parts are those of this expression.
                let names = Captures::of(regex.clone()).names();
                let with = template(with, &scope.clone().capturing(names))
                    .map_err(|problem| (place(".with"), problem))?;
                Ok(PathRule::Replace { regex, with })
            }
        }
    }

    /// The path in place of `old`, which is what `values` has. `None`: it stays.
    ///
    /// # Errors
    /// A value is missing, or makes no path that has one safe reading only.
    pub fn render(
        &self,
        values: &RequestValues<'_>,
        old: &[u8],
    ) -> Result<Option<Vec<u8>>, NoPath> {
        let mut out = Vec::with_capacity(old.len() + 32);
        match self {
            PathRule::Whole(path) => {
                path.text(values, Escape::Path, &mut out).map_err(|_| NoPath)?;
            }
            PathRule::Replace { regex, with } => {
                let mut behind = 0;
                for found in regex.captures_iter(old) {
                    let Some(all) = found.get(0) else { continue };
                    out.extend_from_slice(old.get(behind..all.start()).unwrap_or_default());
                    let span = |part: regex::bytes::Match<'_>| Span {
                        start: part.start() as u32,
                        end: part.end() as u32,
                    };
                    let parts = found.iter().skip(1).map(|part| part.map(span)).collect();
                    let values = values.with_captured(parts);
                    with.text(&values, Escape::Path, &mut out).map_err(|_| NoPath)?;
                    behind = all.end();
                }
                if behind == 0 && out.is_empty() {
                    return Ok(None);
                }
                out.extend_from_slice(old.get(behind..).unwrap_or_default());
            }
        }
        // A value that is a dot segment would lead elsewhere; one that is part of a segment is harmless.
        let dots = |segment: &[u8]| matches!(segment, b"." | b"..");
        if out.split(|byte| *byte == b'/').any(dots) {
            return Err(NoPath);
        }
        let mut buffer = Vec::new();
        let normal = path::normalise(&out, &mut buffer).map_err(|_| NoPath)?;
        match normal.len() == out.len() && normal == out {
            true => Ok(Some(out)),
            false => Ok(Some(normal.to_vec())),
        }
    }
}
