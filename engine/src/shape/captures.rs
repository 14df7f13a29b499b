//! The parts of a request's path that its route's match names, for templates: `path.NAME`.

use contract::snapshot::PathMatch;
use regex::bytes::Regex;
use smallvec::SmallVec;

use crate::message::Span;
use crate::route::{Segments, pattern, prefix};

/// Where the parts of a path are. Built with the route, from what it matches.
#[derive(Clone, Debug, Default)]
pub enum Captures {
    /// The path is known as a whole.
    #[default]
    Exact,
    /// `rest`: what is behind the prefix, without `/` in front. Missing where there is nothing.
    Prefix {
        /// Bytes of the prefix without its last `/`.
        cut: usize,
    },
    /// The groups of a regular expression, by name, or from 1 by number.
    Regex { regex: Regex, names: Box<[Box<str>]> },
    /// Named segments.
    Segments(Segments),
}

/// The parts of one path, in the order of [`Captures::names`].
pub type Captured = SmallVec<[Option<Span>; 6]>;

impl PartialEq for Captures {
    fn eq(&self, other: &Captures) -> bool {
        match (self, other) {
            (Captures::Exact, Captures::Exact) => true,
            (Captures::Prefix { cut }, Captures::Prefix { cut: other }) => cut == other,
            (Captures::Regex { regex, .. }, Captures::Regex { regex: other, .. }) => {
                regex.as_str() == other.as_str()
            }
            (Captures::Segments(segments), Captures::Segments(other)) => segments == other,
            _ => false,
        }
    }
}

impl Captures {
    /// # Errors
    /// What is wrong with the pattern.
    pub fn build(matched: &PathMatch) -> Result<Captures, String> {
        Ok(match matched {
            PathMatch::Exact(_) => Captures::Exact,
            PathMatch::Prefix(text) => Captures::Prefix { cut: prefix(text)?.len() },
            PathMatch::Regex(text) => Captures::of(pattern(text)?),
            PathMatch::Template(text) => Captures::Segments(Segments::parse(text)?),
        })
    }

    /// The groups of `regex`.
    pub fn of(regex: Regex) -> Captures {
        let names = regex.capture_names().enumerate().skip(1);
        let names = names.map(|(at, name)| name.map_or_else(|| at.to_string(), String::from));
        let names = names.map(Into::into).collect();
        Captures::Regex { regex, names }
    }

    /// What templates may ask for.
    pub fn names(&self) -> Vec<String> {
        match self {
            Captures::Exact => Vec::new(),
            Captures::Prefix { .. } => vec!["rest".into()],
            Captures::Regex { names, .. } => {
                names.iter().map(|name| String::from(&**name)).collect()
            }
            Captures::Segments(segments) => {
                segments.names().iter().map(|name| String::from(&**name)).collect()
            }
        }
    }

    /// The parts of a path that matched.
    pub fn find(&self, path: &[u8]) -> Captured {
        match self {
            Captures::Exact => Captured::new(),
            Captures::Prefix { cut } => {
                let start = (cut + 1).min(path.len());
                let rest = Span { start: start as u32, end: path.len() as u32 };
                [Some(rest).filter(|rest| !rest.is_empty())].into_iter().collect()
            }
            Captures::Segments(segments) => segments.find(path).unwrap_or_default(),
            Captures::Regex { regex, .. } => {
                let mut groups = regex.capture_locations();
                if regex.captures_read(&mut groups, path).is_none() {
                    return Captured::new();
                }
                let span = |(start, end)| Span { start: start as u32, end: end as u32 };
                (1..groups.len()).map(|at| groups.get(at).map(span)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(matched: PathMatch, path: &str) -> Vec<(String, Option<String>)> {
        let captures = Captures::build(&matched).unwrap();
        let spans = captures.find(path.as_bytes());
        let text = |span: &Option<Span>| {
            span.map(|span| String::from_utf8_lossy(span.of(path.as_bytes())).into_owned())
        };
        captures.names().into_iter().zip(spans.iter().map(text)).collect()
    }

    #[test]
    fn parts_of_paths_have_names() {
        let some = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        assert_eq!(found(PathMatch::Exact("/a".into()), "/a"), []);
        let prefix = |text: &str| PathMatch::Prefix(text.into());
        assert_eq!(found(prefix("/users/"), "/users/7/x"), [some("rest", "7/x")]);
        assert_eq!(found(prefix("/"), "/users"), [some("rest", "users")]);
        assert_eq!(found(prefix("/users"), "/users"), [("rest".into(), None)]);
        assert_eq!(found(prefix("/users"), "/users/"), [("rest".into(), None)]);
        let regex = PathMatch::Regex("^/u/(?P<id>[0-9]+)(/x)?(/.*)?$".into());
        let want = [some("id", "7"), ("2".into(), None), some("3", "/y")];
        assert_eq!(found(regex, "/u/7/y"), want);
    }
}
