//! How long an answer of several parts may be stored: as long as the least of them (RFC 9111 §4.2).

use crate::message::write;

/// What the parts of an answer allow, so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    no_store: bool,
    no_cache: bool,
    private: bool,
    must_revalidate: bool,
    parts: u32,
    /// In seconds; `None` once a part did not say it.
    max_age: Option<u64>,
    /// For shared caches, which take it before `max_age`.
    shared: Option<u64>,
    /// A part named one for shared caches of its own.
    names_shared: bool,
}

impl Freshness {
    /// Nothing of it may be stored.
    pub fn forbid(&mut self) {
        self.no_store = true;
    }

    /// It is for one client only.
    pub fn keep_private(&mut self) {
        self.private = true;
    }

    /// Adds a part. `safe`: it was asked for with a safe method; other answers are not to be stored unless
    /// they say so (RFC 9110 §9.3.3).
    pub fn add(&mut self, safe: bool, fields: &[(Vec<u8>, Vec<u8>)]) {
        let named = |name: &'static str| {
            fields.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name.as_bytes()))
        };
        let (mut max_age, mut shared) = (None, None);
        for (_, value) in named("cache-control") {
            for directive in value.split(|byte| *byte == b',') {
                let directive = directive.trim_ascii();
                let at = directive.iter().position(|byte| *byte == b'=');
                let (name, argument) = directive.split_at(at.unwrap_or(directive.len()));
                let argument = argument.strip_prefix(b"=").unwrap_or_default();
                match name.to_ascii_lowercase().as_slice() {
                    b"no-store" => self.no_store = true,
                    // With a field's name behind it, too: what it is about is not known here.
                    b"no-cache" => self.no_cache = true,
                    b"private" => self.private = true,
                    b"must-revalidate" | b"proxy-revalidate" => self.must_revalidate = true,
                    b"max-age" => max_age = Some(seconds(argument)),
                    b"s-maxage" => shared = Some(seconds(argument)),
                    _ => {}
                }
            }
        }
        self.no_store |= named("vary").any(|(_, value)| value.trim_ascii() == b"*");
        let age = named("age").next().map_or(0, |(_, value)| seconds(value));
        let max_age = max_age.map(|own: u64| own.saturating_sub(age));
        let shared = shared.map(|own: u64| own.saturating_sub(age));
        self.no_store |= !safe && max_age.is_none() && shared.is_none();
        let first = self.parts == 0;
        let least = |all: Option<u64>, own: Option<u64>| match first {
            true => own,
            false => all.zip(own).map(|(all, own)| all.min(own)),
        };
        self.names_shared |= shared.is_some();
        self.max_age = least(self.max_age, max_age);
        self.shared = least(self.shared, shared.or(max_age));
        self.parts += 1;
    }

    /// The value of `Cache-Control`; `None`: the parts say nothing.
    pub fn field(&self) -> Option<Vec<u8>> {
        if self.no_store {
            return Some(b"no-store".to_vec());
        }
        let mut out = Vec::new();
        let word = |out: &mut Vec<u8>, word: &[u8]| {
            if !out.is_empty() {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(word);
        };
        if self.private {
            word(&mut out, b"private");
        }
        if self.no_cache {
            word(&mut out, b"no-cache");
        }
        if let Some(seconds) = self.max_age {
            word(&mut out, b"max-age=");
            write::decimal(&mut out, seconds);
        }
        if let Some(seconds) = self.shared.filter(|_| self.names_shared && !self.private) {
            word(&mut out, b"s-maxage=");
            write::decimal(&mut out, seconds);
        }
        if self.must_revalidate {
            word(&mut out, b"must-revalidate");
        }
        Some(out).filter(|out| !out.is_empty())
    }
}

/// RFC 9111 §1.2.2; what is no number is as if it had passed.
fn seconds(text: &[u8]) -> u64 {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| digits);
    // More than that is as much as that.
    number.map_or(0, |text| text.parse().unwrap_or(1 << 31).min(1 << 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&[(&str, &str)]]) -> String {
        let mut all = Freshness::default();
        for part in parts {
            let fields = part
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
            all.add(true, &fields.collect::<Vec<_>>());
        }
        all.field().map_or_else(String::new, |out| String::from_utf8(out).unwrap())
    }

    const MINUTE: &[(&str, &str)] = &[("Cache-Control", "public, max-age=60")];

    #[test]
    fn the_least_of_the_parts_counts() {
        assert_eq!(of(&[MINUTE, &[("cache-control", "max-age=5")]]), "max-age=5");
        assert_eq!(
            of(&[MINUTE, &[("cache-control", "max-age=600"), ("Age", "590")]]),
            "max-age=10"
        );
        assert_eq!(of(&[MINUTE, &[("cache-control", "no-store")]]), "no-store");
        assert_eq!(of(&[MINUTE, &[("cache-control", "private")]]), "private");
        assert_eq!(of(&[MINUTE, &[("vary", "*")]]), "no-store");
        assert_eq!(
            of(&[MINUTE, &[("cache-control", "max-age=9, s-maxage=99")]]),
            "max-age=9, s-maxage=60"
        );
        assert_eq!(
            of(&[MINUTE, &[("cache-control", "max-age=x, no-cache")]]),
            "no-cache, max-age=0"
        );
    }

    #[test]
    fn a_part_that_says_nothing_leaves_nothing_to_say() {
        assert_eq!(of(&[MINUTE, &[]]), "");
        assert_eq!(of(&[&[], MINUTE]), "");
        assert_eq!(of(&[]), "");
    }

    #[test]
    fn answers_to_unsafe_methods_are_not_stored_unless_they_say_so() {
        let mut all = Freshness::default();
        all.add(false, &[]);
        assert_eq!(all.field().unwrap(), b"no-store");
        let mut all = Freshness::default();
        all.add(false, &[(b"cache-control".to_vec(), b"max-age=3".to_vec())]);
        assert_eq!(all.field().unwrap(), b"max-age=3");
    }
}
