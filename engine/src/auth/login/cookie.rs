//! Cookies as browsers keep them (RFC 6265): at most some 4 KiB each, so that a session may need several.

use std::borrow::Cow;

use crate::auth::credentials;
use crate::limits;
use crate::message::RequestHead;

/// The value of a session that may be spread over `name`, `name.1`, `name.2` …
pub fn whole<'a>(head: &'a RequestHead, bytes: &'a [u8], name: &str) -> Option<Cow<'a, [u8]>> {
    let first = one(head, bytes, name)?;
    let Some(second) = one(head, bytes, &part(name, 1)) else { return Some(Cow::Borrowed(first)) };
    let mut all = [first, second].concat();
    for at in 2..limits::SESSION_COOKIES {
        let Some(next) = one(head, bytes, &part(name, at)) else { break };
        all.extend_from_slice(next);
    }
    Some(Cow::Owned(all))
}

/// The first cookie of that name that says something: the more specific path's (RFC 6265 §5.4).
pub fn one<'a>(head: &'a RequestHead, bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut all = credentials::cookies(head, bytes, name.as_bytes());
    all.find(|value| !value.is_empty())
}

/// The names of all cookies that a session may be spread over.
pub fn names(name: &str) -> impl Iterator<Item = Cow<'_, str>> {
    (0..limits::SESSION_COOKIES).map(move |at| part(name, at))
}

fn part(name: &str, at: usize) -> Cow<'_, str> {
    match at {
        0 => Cow::Borrowed(name),
        at => Cow::Owned(format!("{name}.{at}")),
    }
}

/// How a cookie is set.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    pub path: &'a str,
    /// Seconds; 0 removes it.
    pub max_age_s: u32,
    pub secure: bool,
}

/// `Set-Cookie` fields for `value` under `name`. Parts that an earlier, longer value may have left are
/// removed. `None`: it is too long for any number of cookies that there may be.
pub fn set(name: &str, value: &str, setting: Setting<'_>) -> Option<Vec<Vec<u8>>> {
    // Values are base64url, one byte a character.
    let mut rest = value;
    let mut fields = Vec::new();
    for at in 0..limits::SESSION_COOKIES {
        let (now, after) = rest.split_at_checked(limits::SESSION_COOKIE).unwrap_or((rest, ""));
        rest = after;
        if at > 0 && now.is_empty() {
            fields.push(line(&part(name, at), "", Setting { max_age_s: 0, ..setting }));
        } else {
            fields.push(line(&part(name, at), now, setting));
        }
    }
    rest.is_empty().then_some(fields)
}

/// `Set-Cookie` fields that remove all of `name`.
pub fn remove(name: &str, setting: Setting<'_>) -> Vec<Vec<u8>> {
    let gone = Setting { max_age_s: 0, ..setting };
    (0..limits::SESSION_COOKIES).map(|at| line(&part(name, at), "", gone)).collect()
}

/// One `Set-Cookie` (RFC 6265 §4.1): no script reads it, and only navigations bring it from elsewhere.
pub fn line(name: &str, value: &str, setting: Setting<'_>) -> Vec<u8> {
    let Setting { path, max_age_s, secure } = setting;
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={value}; Path={path}; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HeadLimits;

    const SETTING: Setting<'static> = Setting { path: "/", max_age_s: 60, secure: true };

    fn cookies_of(fields: &[Vec<u8>]) -> String {
        let pair = |field: &Vec<u8>| {
            let text = String::from_utf8(field.clone()).unwrap();
            (!text.contains("Max-Age=0")).then(|| text.split(';').next().unwrap().to_string())
        };
        fields.iter().filter_map(pair).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn long_sessions_are_spread_and_put_together() {
        for len in [0, 1, 3_000, limits::SESSION_COOKIE, limits::SESSION_COOKIE + 1, 9_000] {
            let value: String = (0..len).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
            let fields = set("s", &value, SETTING).unwrap();
            let line = cookies_of(&fields);
            let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; {line}\r\n\r\n");
            let mut head = RequestHead::new();
            let limits = HeadLimits { max_line: 16 * 1024, ..HeadLimits::REQUEST };
            head.parse(bytes.as_bytes(), &limits).unwrap();
            let found = whole(&head, bytes.as_bytes(), "s");
            assert_eq!(found.as_deref().unwrap_or_default(), value.as_bytes(), "{len}");
        }
        let most = limits::SESSION_COOKIE * limits::SESSION_COOKIES;
        assert!(set("s", &"a".repeat(most), SETTING).is_some());
        assert!(set("s", &"a".repeat(most + 1), SETTING).is_none());
    }

    #[test]
    fn a_shorter_session_removes_what_the_longer_one_left() {
        let fields = set("s", "short", SETTING).unwrap();
        assert_eq!(fields.len(), limits::SESSION_COOKIES);
        assert!(
            fields[0].starts_with(b"s=short; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure")
        );
        assert!(fields[1].starts_with(b"s.1=; Path=/; Max-Age=0;"));
        assert!(remove("s", SETTING)[0].starts_with(b"s=; Path=/; Max-Age=0;"));
    }
}
