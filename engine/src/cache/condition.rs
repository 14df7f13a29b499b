//! What a request asks of a stored answer: only if it has changed (RFC 9110 §13), only a part of it
//! (§14).

use crate::forward::retry_after;
use crate::message::fields::trim;

/// The conditions and the part that a request has, as it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions<'a> {
    /// All lines of `If-None-Match`.
    pub if_none_match: &'a [&'a [u8]],
    pub if_modified_since: Option<&'a [u8]>,
    pub range: Option<&'a [u8]>,
    pub if_range: Option<&'a [u8]>,
}

/// What of a stored answer a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// 304.
    Unchanged,
    /// 206: these bytes, from the first to behind the last.
    Range(usize, usize),
    /// 416.
    Unsatisfiable,
}

/// Decides by the validators of a stored 200 of `length` bytes.
pub fn part(asked: &Conditions<'_>, held: &Validators<'_>, length: usize) -> Part {
    if !asked.if_none_match.is_empty() {
        // RFC 9110 §13.1.3: goes before If-Modified-Since.
        if asked.if_none_match.iter().any(|line| held.matches_any(line)) {
            return Part::Unchanged;
        }
    } else if let Some(since) = asked.if_modified_since.and_then(retry_after::date)
        && let Some(changed) = held.last_modified.or(held.date).and_then(retry_after::date)
        && changed <= since
    {
        // RFC 9111 §4.3.2: without Last-Modified, Date is compared.
        return Part::Unchanged;
    }
    let Some(range) = asked.range else { return Part::Whole };
    if asked.if_range.is_some_and(|condition| !held.is_exactly(condition)) {
        return Part::Whole;
    }
    range_of(range, length)
}

/// The validators that a stored answer has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    pub etag: Option<&'a [u8]>,
    pub last_modified: Option<&'a [u8]>,
    pub date: Option<&'a [u8]>,
}

impl Validators<'_> {
    /// Whether a line of `If-None-Match` has the tag, compared weakly (RFC 9110 §8.8.3.2).
    fn matches_any(&self, line: &[u8]) -> bool {
        let line = trim(line);
        if line == b"*" {
            return true;
        }
        let Some(own) = self.etag.map(opaque) else { return false };
        tags(line).any(|tag| opaque(tag) == own)
    }

    /// Whether `If-Range` means this very answer (RFC 9110 §13.1.5): a strong tag, or a date that is a
    /// strong validator, as it is a minute before the answer's own (§8.8.2.2).
    fn is_exactly(&self, condition: &[u8]) -> bool {
        let condition = trim(condition);
        if condition.contains(&b'"') {
            return self.etag.is_some_and(|own| own == condition && own.starts_with(b"\""));
        }
        let (Some(changed), Some(date)) = (self.last_modified, self.date) else { return false };
        let (Some(at), Some(made)) = (retry_after::date(changed), retry_after::date(date)) else {
            return false;
        };
        retry_after::date(condition) == Some(at) && at.saturating_add(60) <= made
    }
}

/// A tag without its mark of weakness.
fn opaque(tag: &[u8]) -> &[u8] {
    let tag = trim(tag);
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The tags of a list; commas within quotes are part of one.
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    line.split(move |&byte| {
        quoted ^= byte == b'"';
        byte == b',' && !quoted
    })
    .map(trim)
    .filter(|tag| !tag.is_empty())
}

/// RFC 9110 §14.1.2. Several ranges, and what is none, are as if not asked for: the whole is an answer to
/// them, too (§14.2).
fn range_of(value: &[u8], length: usize) -> Part {
    let value = trim(value);
    let Some((unit, set)) = value.split_at_checked(6) else { return Part::Whole };
    if !unit.eq_ignore_ascii_case(b"bytes=") || set.contains(&b',') {
        return Part::Whole;
    }
    let set = trim(set);
    let Some(at) = memchr::memchr(b'-', set) else { return Part::Whole };
    let (first, last) = (&set[..at], set.get(at + 1..).unwrap_or_default());
    let number =
        |digits| retry_after::number(digits).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    match (first, last) {
        (b"", last) => match number(last) {
            None => Part::Whole,
            Some(0) => Part::Unsatisfiable,
            Some(_) if length == 0 => Part::Unsatisfiable,
            Some(suffix) => Part::Range(length.saturating_sub(suffix), length),
        },
        (first, last) => {
            let (Some(first), true) = (number(first), last.is_empty() || number(last).is_some())
            else {
                return Part::Whole;
            };
            let last = number(last).unwrap_or(usize::MAX);
            match () {
                () if last < first => Part::Whole,
                () if first >= length => Part::Unsatisfiable,
                () => Part::Range(first, last.saturating_add(1).min(length)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(etag: &str, line: &str) -> bool {
        let held = Validators { etag: Some(etag.as_bytes()), ..Validators::default() };
        let lines = [line.as_bytes()];
        let asked = Conditions { if_none_match: &lines, ..Conditions::default() };
        part(&asked, &held, 3) == Part::Unchanged
    }

    #[test]
    fn tags_are_compared_weakly() {
        for line in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "\"b,\", W/\"a\"", "*", " \"x\" ,\"a\""] {
            assert!(matches("\"a\"", line) && matches("W/\"a\"", line), "{line}");
        }
        for line in ["\"b\"", "\"b, a\"", "a", ""] {
            assert!(!matches("\"a\"", line), "{line}");
        }
        assert!(matches("abc", "abc") && matches("\"ü\"", "\"ü\""));
    }

    #[test]
    fn a_date_counts_only_without_tags() {
        let (early, late) =
            (&b"Sun, 06 Nov 1994 08:49:37 GMT"[..], &b"Sun, 06 Nov 1994 08:49:38 GMT"[..]);
        let held = Validators { etag: Some(b"\"a\""), last_modified: Some(late), date: None };
        let of = |since, tags| {
            let asked = Conditions {
                if_none_match: tags,
                if_modified_since: Some(since),
                ..Conditions::default()
            };
            part(&asked, &held, 3)
        };
        assert_eq!(of(late, &[]), Part::Unchanged);
        assert_eq!(of(early, &[]), Part::Whole);
        assert_eq!(of(b"foo", &[]), Part::Whole);
        assert_eq!(of(late, &[b"\"b\""]), Part::Whole);
        assert_eq!(of(early, &[b"\"a\""]), Part::Unchanged);
    }

    #[test]
    fn one_range_is_served() {
        for (value, want) in [
            ("bytes=0-1", Part::Range(0, 2)),
            ("Bytes=1-", Part::Range(1, 11)),
            ("bytes=-1", Part::Range(10, 11)),
            ("bytes=-99", Part::Range(0, 11)),
            ("bytes=5-99999999999999999999999", Part::Range(5, 11)),
            ("bytes=11-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=3-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=a-1", Part::Whole),
            ("bytes=1-a", Part::Whole),
            ("bytes=-", Part::Whole),
            ("items=0-1", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(range_of(value.as_bytes(), 11), want, "{value}");
        }
        assert_eq!(range_of(b"bytes=-1", 0), Part::Unsatisfiable);
    }

    #[test]
    fn a_part_is_of_the_very_answer() {
        let date = &b"Sun, 06 Nov 1994 08:49:37 GMT"[..];
        let of = |condition, held: &Validators<'_>| {
            let asked = Conditions {
                range: Some(b"bytes=0-0"),
                if_range: Some(condition),
                ..Conditions::default()
            };
            part(&asked, held, 9) == Part::Range(0, 1)
        };
        let strong = Validators { etag: Some(b"\"a\""), ..Validators::default() };
        let weak = Validators { etag: Some(b"W/\"a\""), ..Validators::default() };
        assert!(of(b"\"a\"", &strong) && !of(b"\"b\"", &strong));
        assert!(!of(b"W/\"a\"", &weak) && !of(b"W/\"a\"", &strong) && !of(date, &strong));
        let same = Validators { last_modified: Some(date), date: Some(date), etag: None };
        let later = Validators { date: Some(b"Sun, 06 Nov 1994 08:50:37 GMT"), ..same };
        assert!(!of(date, &same) && of(date, &later));
    }

    proptest! {
        #[test]
        fn ranges_lie_within(value in "bytes=[0-9,-]{0,12}|[ -~]{0,16}", length in 0..40usize) {
            if let Part::Range(start, end) = range_of(value.as_bytes(), length) {
                prop_assert!(start < end && end <= length);
            }
        }
    }
}
