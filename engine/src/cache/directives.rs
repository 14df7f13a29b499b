//! `Cache-Control` (RFC 9111 §5.2) as it is really written: in any case, quoted or not, said twice, or
//! wrongly. What cannot be read counts as its strictest reading: a cache that keeps less is never wrong.

use crate::message::fields::trim;

/// Longest time that counts, in seconds (RFC 9111 §1.2.2).
const MOST_S: u64 = 1 << 31;

/// What a directive is about that may name fields: `private`, `no-cache`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// It is not there.
    #[default]
    Unsaid,
    /// These fields alone, lower case.
    Fields(Vec<Box<[u8]>>),
    /// The whole answer.
    All,
}

impl Scope {
    pub fn is_all(&self) -> bool {
        *self == Scope::All
    }

    /// Whether it is about the field of that name.
    pub fn names(&self, field: &[u8]) -> bool {
        match self {
            Scope::Fields(names) => names.iter().any(|name| name.eq_ignore_ascii_case(field)),
            Scope::Unsaid | Scope::All => false,
        }
    }

    fn add(&mut self, value: Value<'_>) {
        let Value::Text(text) = value else {
            *self = Scope::All;
            return;
        };
        let names = text.split(|&byte| byte == b',').map(trim).filter(|name| !name.is_empty());
        let names: Vec<Box<[u8]>> = names.map(|name| name.to_ascii_lowercase().into()).collect();
        match self {
            _ if names.is_empty() => *self = Scope::All,
            Scope::Unsaid => *self = Scope::Fields(names),
            Scope::Fields(known) => known.extend(names),
            Scope::All => {}
        }
    }
}

/// The directives of an answer. Times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub no_store: bool,
    pub must_understand: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub public: bool,
    pub private: Scope,
    pub no_cache: Scope,
    pub max_age_s: Option<u64>,
    pub s_maxage_s: Option<u64>,
    /// RFC 5861.
    pub stale_while_revalidate_s: Option<u64>,
    pub stale_if_error_s: Option<u64>,
}

impl Directives {
    /// Takes one line of the field.
    pub fn line(&mut self, line: &[u8]) {
        members(line, |name, value| {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            match () {
                () if is("no-store") => self.no_store = true,
                () if is("must-understand") => self.must_understand = true,
                () if is("must-revalidate") => self.must_revalidate = true,
                () if is("proxy-revalidate") => self.proxy_revalidate = true,
                () if is("public") => self.public = true,
                () if is("private") => self.private.add(value),
                () if is("no-cache") => self.no_cache.add(value),
                () if is("max-age") => least(&mut self.max_age_s, value),
                () if is("s-maxage") => least(&mut self.s_maxage_s, value),
                () if is("stale-while-revalidate") => {
                    least(&mut self.stale_while_revalidate_s, value);
                }
                () if is("stale-if-error") => least(&mut self.stale_if_error_s, value),
                // RFC 9111 §5.2.3: what is not known is ignored.
                () => {}
            }
        });
    }
}

/// The directives of a request (RFC 9111 §5.2.1). Times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    pub no_store: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    pub max_age_s: Option<u64>,
    /// Without a number: however stale.
    pub max_stale_s: Option<u64>,
    pub min_fresh_s: Option<u64>,
}

impl Wishes {
    /// Takes one line of the field.
    pub fn line(&mut self, line: &[u8]) {
        members(line, |name, value| {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            match () {
                () if is("no-store") => self.no_store = true,
                () if is("no-cache") => self.no_cache = true,
                () if is("only-if-cached") => self.only_if_cached = true,
                () if is("max-age") => least(&mut self.max_age_s, value),
                () if is("min-fresh") => self.min_fresh_s = Some(value.seconds().unwrap_or(MOST_S)),
                () if is("max-stale") => {
                    let most =
                        if value == Value::None { MOST_S } else { value.seconds().unwrap_or(0) };
                    self.max_stale_s = Some(self.max_stale_s.map_or(most, |have| have.min(most)));
                }
                () => {}
            }
        });
    }
}

/// RFC 9111 §4.2.1: of several values the first counts, or the answer is stale; the least is either that
/// or stricter. What is no number of seconds is none at all.
fn least(have: &mut Option<u64>, value: Value<'_>) {
    let seconds = value.seconds().unwrap_or(0);
    *have = Some(have.map_or(seconds, |have| have.min(seconds)));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    None,
    /// Without its quotes. Pairs with a backslash stay as they are: no value of a known directive has any.
    Text(&'a [u8]),
    /// Neither a token nor a quoted text.
    Malformed,
}

impl Value<'_> {
    /// RFC 9111 §1.2.2.
    fn seconds(self) -> Option<u64> {
        let Value::Text(text) = self else { return None };
        seconds(text)
    }
}

/// A number of seconds: digits alone; what is too large is the largest.
pub fn seconds(digits: &[u8]) -> Option<u64> {
    crate::forward::retry_after::number(digits).map(|seconds| seconds.min(MOST_S))
}

/// Calls `each` with every member of a list of directives (RFC 9111 §5.2). A comma within quotes is part
/// of a value.
fn members(line: &[u8], mut each: impl FnMut(&[u8], Value<'_>)) {
    let mut rest = line;
    while !rest.is_empty() {
        let end = end_of_member(rest);
        let member = trim(rest.get(..end).unwrap_or_default());
        rest = rest.get(end + 1..).unwrap_or_default();
        match memchr::memchr(b'=', member) {
            _ if member.is_empty() => {}
            None => each(member, Value::None),
            Some(at) => {
                let (name, value) = (&member[..at], member.get(at + 1..).unwrap_or_default());
                // RFC 9110 §5.6.6: no whitespace around the sign.
                let value = if name.last().is_some_and(u8::is_ascii_whitespace) {
                    Value::Malformed
                } else {
                    read(value)
                };
                each(trim(name), value);
            }
        }
    }
}

fn read(value: &[u8]) -> Value<'_> {
    match value {
        [b'"', text @ .., b'"'] if !text.contains(&b'"') => Value::Text(text),
        [] | [b'"', ..] => Value::Malformed,
        text if text.iter().any(|byte| matches!(byte, b'"' | b' ' | b'\t')) => Value::Malformed,
        text => Value::Text(text),
    }
}

fn end_of_member(text: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(lines: &[&str]) -> Directives {
        let mut all = Directives::default();
        lines.iter().for_each(|line| all.line(line.as_bytes()));
        all
    }

    #[test]
    fn names_have_no_case_and_lines_add_up() {
        let all = of(&["Max-Age=60, No-StOrE,", ", ,public", "s-maxage=\"7\",x=\"private, a\""]);
        let want = Directives {
            no_store: true,
            public: true,
            max_age_s: Some(60),
            s_maxage_s: Some(7),
            ..Directives::default()
        };
        assert_eq!(all, want);
    }

    #[test]
    fn what_is_no_time_is_none() {
        for bad in ["'3600'", "-1", "a1", "1a", "1.0", "", "\"1", " 1", "\"1\"2"] {
            assert_eq!(of(&[&format!("max-age={bad}")]).max_age_s, Some(0), "{bad}");
        }
        assert_eq!(of(&["max-age"]).max_age_s, Some(0));
        assert_eq!(of(&["max-age =9"]).max_age_s, Some(0));
        assert_eq!(of(&["max-age=003600"]).max_age_s, Some(3600));
        assert_eq!(of(&["max-age=99999999999999999999999"]).max_age_s, Some(1 << 31));
    }

    #[test]
    fn of_two_the_least() {
        assert_eq!(of(&["max-age=3, max-age=1"]).max_age_s, Some(1));
        assert_eq!(of(&["max-age=1", "max-age=3"]).max_age_s, Some(1));
    }

    #[test]
    fn fields_are_named_or_all_is_meant() {
        let names = |scope: &Scope| match scope {
            Scope::Fields(names) => {
                names.iter().map(|n| String::from_utf8_lossy(n).into()).collect()
            }
            _ => Vec::<String>::new(),
        };
        assert_eq!(names(&of(&["no-cache=\"A, b\", no-cache=c"]).no_cache), ["a", "b", "c"]);
        for all in
            ["private", "private=\"\"", "private=\"a", "private=\"a\", private", "private =a"]
        {
            assert!(of(&[all]).private.is_all(), "{all}");
        }
        assert!(of(&["private=\"Set-Cookie\""]).private.names(b"set-cookie"));
    }

    #[test]
    fn requests_have_wishes() {
        let mut wishes = Wishes::default();
        wishes.line(b"max-stale, min-fresh=x, max-age=5, only-if-cached");
        assert_eq!((wishes.max_stale_s, wishes.min_fresh_s), (Some(1 << 31), Some(1 << 31)));
        assert!(wishes.only_if_cached && wishes.max_age_s == Some(5) && !wishes.no_cache);
        wishes.line(b"max-stale=9");
        assert_eq!(wishes.max_stale_s, Some(9));
    }

    proptest! {
        #[test]
        fn reads_anything(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut all = Directives::default();
            all.line(&line);
            let mut wishes = Wishes::default();
            wishes.line(&line);
        }

        /// Whatever stands around it, a directive that forbids is not lost.
        #[test]
        fn no_store_is_never_lost(
            before in "([a-z-]{1,8}(=(\"[^\"\\\\]{0,6}\"|[a-z0-9]{1,5}))?,){0,3}",
            after in "(,[a-z-]{1,8}(=(\"[^\"\\\\]{0,6}\"|[a-z0-9]{1,5}))?){0,3}",
        ) {
            let line = format!("{before} no-store {after}");
            prop_assert!(of(&[&line]).no_store);
        }
    }
}
