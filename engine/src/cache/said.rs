//! What the head of an answer says to a cache, read once.

use super::directives::{self, Directives};
use super::vary::Vary;
use crate::forward::retry_after;
use crate::message::Name;
use crate::message::fields::trim;

/// The `Age` of an answer (RFC 9111 §5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Age {
    #[default]
    Unsaid,
    Seconds(u64),
    /// It is there and cannot be read: nobody knows how old the answer is.
    Unclear,
}

/// All that a cache reads of an answer's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub control: Directives,
    pub age: Age,
    /// Seconds since 1970.
    pub date_s: Option<u64>,
    /// `Some(0)`: it is there and no date, which has passed (RFC 9111 §5.3).
    pub expires_s: Option<u64>,
    pub last_modified_s: Option<u64>,
    pub has_etag: bool,
    pub vary: Vary,
    pub sets_cookie: bool,
}

impl Said {
    /// Reads the fields that a forwarder passes on.
    pub fn read<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Said {
        let mut said = Said::default();
        for (name, value) in fields {
            match Name::classify(name) {
                Name::CacheControl => said.control.line(value),
                Name::Age => {
                    said.age = match said.age {
                        Age::Unsaid => age(value),
                        // Of two lines nobody knows which one is meant.
                        _ => Age::Unclear,
                    };
                }
                Name::Date => said.date_s = said.date_s.or(retry_after::date(value)),
                Name::LastModified => {
                    said.last_modified_s = said.last_modified_s.or(retry_after::date(value));
                }
                Name::Etag => said.has_etag = true,
                Name::Vary => said.vary.line(value),
                Name::SetCookie => said.sets_cookie = true,
                Name::Other if name.eq_ignore_ascii_case(b"expires") => {
                    let at = retry_after::date(value).unwrap_or(0);
                    said.expires_s = Some(said.expires_s.map_or(at, |have: u64| have.min(at)));
                }
                Name::Other if name.eq_ignore_ascii_case(b"set-cookie2") => said.sets_cookie = true,
                _ => {}
            }
        }
        said
    }

    /// Whether the answer can be asked about again.
    pub fn has_validator(&self) -> bool {
        self.has_etag || self.last_modified_s.is_some()
    }
}

/// RFC 9111 §5.1: of a list the first member counts. A list that is not plainly one is not read.
fn age(value: &[u8]) -> Age {
    let value = trim(value);
    let mut members = value.split(|&byte| byte == b',').map(directives::seconds);
    let first = members.next().flatten();
    match first {
        Some(seconds) if members.all(|member| member.is_some()) => Age::Seconds(seconds),
        _ => Age::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, &str)]) -> Said {
        Said::read(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    #[test]
    fn an_age_is_a_number_or_unclear() {
        assert_eq!(of(&[]).age, Age::Unsaid);
        for (value, want) in
            [("7", Age::Seconds(7)), ("7200,0", Age::Seconds(7200)), ("0,7", Age::Seconds(0))]
        {
            assert_eq!(of(&[("Age", value)]).age, want, "{value}");
        }
        for bad in ["abc", "-1", "7.0", "7;a=b", "", "0, 0", "7200, 7200"] {
            assert_eq!(of(&[("age", bad)]).age, Age::Unclear, "{bad}");
        }
        assert_eq!(of(&[("Age", "0"), ("Age", "0")]).age, Age::Unclear);
    }

    #[test]
    fn a_date_that_is_none_has_passed() {
        assert_eq!(of(&[("Expires", "0")]).expires_s, Some(0));
        let said = of(&[("Expires", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Date", "foo")]);
        assert_eq!((said.expires_s, said.date_s), (Some(784_111_777), None));
        assert!(!said.has_validator());
    }
}
