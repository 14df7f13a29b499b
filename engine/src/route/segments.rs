//! Paths with names for segments: `/users/{id}/orders/{rest...}`.

use smallvec::SmallVec;

use super::path::normalise_pattern;
use crate::message::Span;

/// Most named segments.
const MAX_NAMES: usize = 32;

/// A path of literal and named segments. A name stands for one segment that is not empty; `{name...}`, which
/// is the last, for all that is left, which may be nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Literal segments in front of the first name, in normal form: empty, or begins with `/`.
    start: Box<[u8]>,
    rest: Box<[Segment]>,
    names: Box<[Box<str>]>,
    /// How many literals there are.
    literals: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<[u8]>),
    One,
    Rest,
}

/// Where named segments are, in the order of the names.
pub type Found = SmallVec<[Option<Span>; 6]>;

impl Segments {
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Segments, String> {
        let Some(inner) = text.strip_prefix('/') else {
            return Err(format!("{text:?} does not begin with `/`"));
        };
        let mut names: Vec<Box<str>> = Vec::new();
        let mut start = String::new();
        let mut rest = Vec::new();
        let mut literals = 0u16;
        for segment in inner.split('/') {
            if rest.last() == Some(&Segment::Rest) {
                return Err("`{name...}` stands for all that is left, so nothing follows it".into());
            }
            let name = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
            let Some(name) = name else {
                if segment.contains(['{', '}']) {
                    return Err(format!(
                        "`{segment}` mixes a name and a text; a name is a whole segment, or use regex"
                    ));
                }
                literals = literals.saturating_add(1);
                match names.is_empty() {
                    true => {
                        start.push('/');
                        start.push_str(segment);
                    }
                    false => rest.push(Segment::Literal(literal(segment)?)),
                }
                continue;
            };
            let (name, kind) = match name.strip_suffix("...") {
                Some(name) => (name, Segment::Rest),
                None => (name, Segment::One),
            };
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if name.is_empty() || !name.bytes().all(word) {
                return Err(format!("`{segment}` has no name of letters, digits, `-` and `_`"));
            }
            if names.iter().any(|known| **known == *name) {
                return Err(format!("the name `{name}` is there twice"));
            }
            if names.len() >= MAX_NAMES {
                return Err(format!("more than {MAX_NAMES} names"));
            }
            names.push(name.into());
            rest.push(kind);
        }
        if names.is_empty() {
            return Err(format!(
                "{text:?} names no segment, as in /users/{{id}}; use exact or prefix"
            ));
        }
        let start = if start.is_empty() { Box::default() } else { normalise_pattern(&start)? };
        Ok(Segments { start, rest: rest.into(), names: names.into(), literals })
    }

    /// The literal segments in front of the first name: a prefix of all paths that match.
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// What decides among those of the same start: the greater goes first.
    pub(super) fn nearness(&self) -> u16 {
        let open = u16::from(self.rest.last() == Some(&Segment::Rest));
        self.literals.saturating_mul(2).saturating_add(1 - open)
    }

    #[inline]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.walk(path, |_| {})
    }

    /// The named segments of a path; `None` where it does not match.
    pub fn find(&self, path: &[u8]) -> Option<Found> {
        let mut found = Found::new();
        let span = |(start, end): (usize, usize)| Span { start: start as u32, end: end as u32 };
        self.walk(path, |part| found.push(Some(span(part)).filter(|span| !span.is_empty())))
            .then_some(found)
    }

    fn walk(&self, path: &[u8], mut named: impl FnMut((usize, usize))) -> bool {
        if !path.starts_with(&self.start) {
            return false;
        }
        let mut at = self.start.len();
        for segment in &self.rest {
            if path.get(at) != Some(&b'/') {
                return false;
            }
            at += 1;
            let left = path.get(at..).unwrap_or_default();
            let length = memchr::memchr(b'/', left).unwrap_or(left.len());
            match segment {
                Segment::Literal(text) if left.get(..length) == Some(text) => at += length,
                Segment::Literal(_) => return false,
                Segment::One if length == 0 => return false,
                Segment::One => {
                    named((at, at + length));
                    at += length;
                }
                Segment::Rest => {
                    named((at, path.len()));
                    at = path.len();
                }
            }
        }
        at == path.len()
    }
}

/// A segment in normal form.
fn literal(segment: &str) -> Result<Box<[u8]>, String> {
    let path = normalise_pattern(&format!("/{segment}"))?;
    Ok(path.strip_prefix(b"/").unwrap_or(&path).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_named() {
        let found = |template: &str, path: &str| {
            let segments = Segments::parse(template).unwrap();
            let found = segments.find(path.as_bytes());
            assert_eq!(found.is_some(), segments.matches(path.as_bytes()));
            found.map(|found| {
                let text = |span: &Option<Span>| span.map(|span| span.of(path.as_bytes()).to_vec());
                let texts = found.iter().map(text).map(|text| text.unwrap_or_default());
                texts.map(|text| String::from_utf8(text).unwrap()).collect::<Vec<_>>().join("|")
            })
        };
        for (template, path, want) in [
            ("/users/{id}", "/users/7", Some("7")),
            ("/users/{id}", "/users/", None),
            ("/users/{id}", "/users", None),
            ("/users/{id}", "/users/7/", None),
            ("/users/{id}", "/users/7/x", None),
            ("/users/{id}", "/usersx/7", None),
            ("/{a}/b/{c}", "/1/b/2", Some("1|2")),
            ("/{a}/b/{c}", "/1/c/2", None),
            ("/f/{rest...}", "/f/a/b", Some("a/b")),
            ("/f/{rest...}", "/f/", Some("")),
            ("/f/{rest...}", "/f", None),
            ("/{id}/caf\u{e9}", "/1/caf%C3%A9", Some("1")),
            ("/a/{id}/", "/a/1/", Some("1")),
            ("/a/{id}/", "/a/1", None),
        ] {
            assert_eq!(found(template, path).as_deref(), want, "{template} {path}");
        }
    }

    #[test]
    fn what_names_nothing_or_twice_is_refused() {
        for (text, problem) in [
            ("users/{id}", "does not begin"),
            ("/users", "names no segment"),
            ("/{a}/{a}", "twice"),
            ("/{rest...}/x", "nothing follows"),
            ("/{}", "no name"),
            ("/{a b}", "no name"),
            ("/{id}.json", "a whole segment"),
            ("/{a}/..", "not a usable path"),
        ] {
            let error = Segments::parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
