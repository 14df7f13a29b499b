//! Conditions on headers and query parameters.

use contract::snapshot::{FieldMatch, ValueMatch};
use regex::bytes::{Regex, RegexBuilder};
use smallvec::SmallVec;

use super::{HeaderLookup, path::hex};

/// Largest compiled size of one regular expression, in bytes.
pub(super) const MAX_REGEX_BYTES: usize = 1 << 20;

/// What a header or query parameter must be like.
#[derive(Debug)]
pub(super) struct Condition {
    name: Box<[u8]>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Exact(Box<[u8]>),
    Regex(Regex),
}

impl Condition {
    /// # Errors
    /// What is wrong with the value's regular expression.
    pub(super) fn build(from: &FieldMatch) -> Result<Condition, String> {
        let test = match &from.value {
            ValueMatch::Present => Test::Present,
            ValueMatch::Exact(value) => Test::Exact(value.as_bytes().into()),
            ValueMatch::Regex(pattern) => Test::Regex(regex(pattern)?),
        };
        Ok(Condition { name: from.name.as_bytes().into(), test })
    }

    /// Whether any field of the name has a value that passes.
    pub(super) fn holds_for_headers(&self, headers: &dyn HeaderLookup) -> bool {
        headers.any(&self.name, &mut |value| match &self.test {
            Test::Present => true,
            Test::Exact(exact) => **exact == *value,
            Test::Regex(regex) => regex.is_match(value),
        })
    }

    /// Whether any parameter of the name has a value that passes, both percent-decoded.
    pub(super) fn holds_for_query(&self, query: &[u8]) -> bool {
        query.split(|&byte| byte == b'&').any(|pair| {
            let (name, value) = match memchr::memchr(b'=', pair) {
                Some(at) => (pair.get(..at), pair.get(at + 1..)),
                None => (Some(pair), None),
            };
            let (name, value) = (name.unwrap_or_default(), value.unwrap_or_default());
            !pair.is_empty()
                && equals_decoded(name, &self.name)
                && match &self.test {
                    Test::Present => true,
                    Test::Exact(exact) => equals_decoded(value, exact),
                    Test::Regex(regex) if is_plain(value) => regex.is_match(value),
                    Test::Regex(regex) => {
                        regex.is_match(&decoded(value).collect::<SmallVec<[u8; 128]>>())
                    }
                }
        })
    }
}

/// Compiles a pattern of the spec.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn regex(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => {
                format!("/{pattern}/ compiles to more than {limit} bytes; repeat less of it")
            }
            error => format!("/{pattern}/ is not a regular expression: {error}"),
        })
}

/// Whether a query component stands for itself.
fn is_plain(raw: &[u8]) -> bool {
    memchr::memchr2(b'%', b'+', raw).is_none()
}

fn equals_decoded(raw: &[u8], want: &[u8]) -> bool {
    if is_plain(raw) { raw == want } else { decoded(raw).eq(want.iter().copied()) }
}

/// The bytes that a query component stands for. A `%` without two digits stands for itself.
fn decoded(raw: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        Some(match (byte, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match hex(*high).zip(hex(*low)) {
                Some((high, low)) => {
                    rest = after;
                    high << 4 | low
                }
                None => b'%',
            },
            _ => byte,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(name: &str, value: ValueMatch) -> Condition {
        Condition::build(&FieldMatch { name: name.into(), value }).unwrap()
    }

    #[test]
    fn query_parameters() {
        let present = condition("a b", ValueMatch::Present);
        let exact = condition("k", ValueMatch::Exact("1+é".into()));
        let regex = condition("k", ValueMatch::Regex("^x y$".into()));
        let empty = condition("k", ValueMatch::Exact("".into()));
        for (query, want) in [
            ("a+b", [true, false, false, false]),
            ("x=1&a%20b=2", [true, false, false, false]),
            ("a%2", [false; 4]),
            ("k=1%2b%C3%a9", [false, true, false, false]),
            ("%6B=1%2b%C3%a9&k=2", [false, true, false, false]),
            ("k=1+%C3%a9", [false; 4]),
            ("k=x+y", [false, false, true, false]),
            ("k=x%20y", [false, false, true, false]),
            ("k=0&k=x%20y&k", [false, false, true, true]),
            ("k=", [false, false, false, true]),
            ("", [false; 4]),
            ("&&", [false; 4]),
        ] {
            let got =
                [&present, &exact, &regex, &empty].map(|c| c.holds_for_query(query.as_bytes()));
            assert_eq!(got, want, "{query}");
        }
    }

    #[test]
    fn bad_patterns_say_why() {
        assert!(regex("a(").unwrap_err().contains("not a regular expression"));
        assert!(regex(r"\w{500}{500}").unwrap_err().contains("repeat less"));
    }
}
