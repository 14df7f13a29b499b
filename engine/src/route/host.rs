//! Host names as the router compares them.

/// Longest name that is looked up, in bytes: no DNS name is longer (RFC 1035 §2.3.4).
pub(super) const MAX_NAME: usize = 255;

/// The name in an authority: without port and without one trailing dot, in lower case.
///
/// Empty for a name that no route can have, so that only routes without hosts match it.
#[inline]
pub(super) fn name<'a>(authority: &[u8], out: &'a mut [u8; MAX_NAME]) -> &'a [u8] {
    let end = if authority.first() == Some(&b'[') {
        // An IPv6 literal: the colons inside are not the port's (RFC 3986 §3.2.2).
        memchr::memchr(b']', authority).map(|at| at + 1)
    } else {
        memchr::memchr(b':', authority)
    };
    let host = end.and_then(|end| authority.get(..end)).unwrap_or(authority);
    let host = host.strip_suffix(b".").unwrap_or(host);
    let Some(out) = out.get_mut(..host.len()) else { return b"" };
    out.copy_from_slice(host);
    out.make_ascii_lowercase();
    out
}

/// What a route's host asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Exact(Vec<u8>),
    /// `*.` and this: one or more labels in front.
    Suffix(Vec<u8>),
}

/// Reads a host of a route.
pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    let (wild, rest) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let rest = rest.strip_suffix('.').unwrap_or(rest);
    let literal = rest.starts_with('[') && rest.ends_with(']') && !wild;
    let usable = !rest.is_empty()
        && rest.len() <= MAX_NAME
        && !rest.starts_with('.')
        && !rest.bytes().any(|byte| byte == b'*' || byte == b'/' || byte <= b' ')
        && (literal || !rest.contains(':'));
    if !usable {
        return Err(format!(
            "{text:?} is not a host; write a name such as \"api.example.com\" or \
             \"*.example.com\", without port"
        ));
    }
    let name = rest.to_ascii_lowercase().into_bytes();
    Ok(if wild { Pattern::Suffix(name) } else { Pattern::Exact(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (authority, want) in [
            ("Example.COM", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:80", "example.com"),
            ("example.com..", "example.com."),
            ("[2001:DB8::1]:80", "[2001:db8::1]"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("[broken", "[broken"),
            ("", ""),
            (":80", ""),
        ] {
            let mut out = [0; MAX_NAME];
            assert_eq!(name(authority.as_bytes(), &mut out), want.as_bytes(), "{authority}");
        }
        let mut out = [0; MAX_NAME];
        assert_eq!(name(&[b'a'; 255], &mut out).len(), 255);
        assert_eq!(name(&[b'a'; 256], &mut out), b"");
    }

    #[test]
    fn patterns() {
        assert_eq!(pattern("A.example."), Ok(Pattern::Exact(b"a.example".to_vec())));
        assert_eq!(pattern("*.Example.com"), Ok(Pattern::Suffix(b"example.com".to_vec())));
        assert_eq!(pattern("[::1]"), Ok(Pattern::Exact(b"[::1]".to_vec())));
        for bad in ["", "*", "*.", "*.*.com", "a.*.com", "a:80", "a/b", "a b", "*..com", "*.[::1]"]
        {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
