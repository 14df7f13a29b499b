//! Which fields of a request an answer depends on (RFC 9111 §4.1), and how their values are compared.

use std::borrow::Cow;

use crate::limits;
use crate::message::fields::{is_tchar, trim};
use crate::rewrite;

/// What `Vary` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// On these fields: lower case, sorted, each once.
    On(Vec<Box<[u8]>>),
    /// On more than a cache can know.
    Any,
}

impl Default for Vary {
    fn default() -> Vary {
        Vary::On(Vec::new())
    }
}

impl Vary {
    /// Takes one line of the field.
    pub fn line(&mut self, line: &[u8]) {
        for name in line.split(|&byte| byte == b',').map(trim).filter(|name| !name.is_empty()) {
            let Vary::On(names) = self else { return };
            if name == b"*" || !name.iter().all(|byte| is_tchar(*byte)) || is_ours(name) {
                *self = Vary::Any;
                return;
            }
            let name: Box<[u8]> = name.to_ascii_lowercase().into();
            if let Err(at) = names.binary_search(&name) {
                names.insert(at, name);
            }
            if names.len() > limits::CACHE_VARY_FIELDS {
                *self = Vary::Any;
            }
        }
    }
}

/// Whether the gateway itself sets a field of requests: what it says differs from what came, for each
/// client, request, or caller.
fn is_ours(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] =
        [b"x-forwarded-for", b"forwarded", b"via", b"x-request-id", b"early-data", b"x-real-ip"];
    rewrite::is_identity(name) || NAMES.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// A request's value of a field, in the form that values are compared in: its lines as one, without
/// space around commas (RFC 9111 §4.1). `None`: the field is not there.
pub fn normalise<'a>(name: &[u8], lines: impl Iterator<Item = &'a [u8]>) -> Option<Box<[u8]>> {
    let mut out: Option<Vec<u8>> = None;
    for line in lines {
        let line = commas(line);
        match &mut out {
            None => out = Some(line.into_owned()),
            Some(out) => {
                out.push(b',');
                out.extend_from_slice(&line);
            }
        }
    }
    let mut value = out?;
    // Their members have no case and no order (RFC 9110 §12.5.3, §12.5.4).
    if name == b"accept-language" || name == b"accept-encoding" {
        value.make_ascii_lowercase();
        let mut members: Vec<&[u8]> = value.split(|&byte| byte == b',').map(trim).collect();
        members.sort_unstable();
        value = members.join(&b","[..]);
    }
    Some(value.into())
}

fn commas(line: &[u8]) -> Cow<'_, [u8]> {
    let line = trim(line);
    // Within quotes space counts.
    if line.contains(&b'"') || !line.iter().any(|byte| matches!(byte, b' ' | b'\t')) {
        return Cow::Borrowed(line);
    }
    Cow::Owned(line.split(|&byte| byte == b',').map(trim).collect::<Vec<_>>().join(&b","[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(lines: &[&str]) -> Vary {
        let mut vary = Vary::default();
        lines.iter().for_each(|line| vary.line(line.as_bytes()));
        vary
    }

    fn value(name: &str, lines: &[&str]) -> Option<String> {
        let lines = lines.iter().map(|line| line.as_bytes());
        normalise(name.as_bytes(), lines).map(|value| String::from_utf8_lossy(&value).into())
    }

    #[test]
    fn a_star_anywhere_is_all() {
        for lines in [&["*"][..], &["*, *"], &["", "*"], &[", *"], &["foo, *"], &["foo", "*,bar"]] {
            assert_eq!(of(lines), Vary::Any, "{lines:?}");
        }
        assert_eq!(of(&["a b"]), Vary::Any);
        for ours in ["X-Consumer-Id", "x-forwarded-for", "Via"] {
            assert_eq!(of(&[ours]), Vary::Any, "{ours}");
        }
    }

    #[test]
    fn names_are_a_set() {
        let names: Vec<Box<[u8]>> = vec![b"accept"[..].into(), b"foo"[..].into()];
        assert_eq!(of(&["Foo, accept", "FOO"]), Vary::On(names));
        assert_eq!(of(&[]), Vary::On(vec![]));
    }

    #[test]
    fn values_have_one_form() {
        assert_eq!(value("foo", &[]), None);
        assert_eq!(value("foo", &[""]), Some(String::new()));
        assert_eq!(value("foo", &["1", "2"]), value("foo", &[" 1 ,2"]));
        assert_ne!(value("foo", &["a b"]), value("foo", &["ab"]));
        assert_ne!(value("foo", &["\"a, b\""]), value("foo", &["\"a,b\""]));
        assert_eq!(value("accept-language", &["eN , de"]), value("accept-language", &["De,en"]));
        assert_ne!(value("accept", &["a/b,c/d"]), value("accept", &["c/d,a/b"]));
    }

    proptest! {
        #[test]
        fn the_form_of_a_form_is_itself(lines in prop::collection::vec("[a-c ,\"\t]{0,9}", 0..3)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            for name in ["foo", "accept-encoding"] {
                if let Some(once) = value(name, &lines) {
                    prop_assert_eq!(value(name, &[&once]), Some(once.clone()));
                }
            }
        }

        #[test]
        fn reads_anything(line in prop::collection::vec(any::<u8>(), 0..60)) {
            Vary::default().line(&line);
        }
    }
}
