//! One normal form of a request's path (RFC 3986 §6.2.2), for matching and all that follows.
//!
//! The path that a route matched is the path that is sent upstream, so there is no second reading
//! of it to disagree with ours. What has two readings in the wild is refused, not repaired.

/// Why a path is answered with 400: the client's fault, never repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error("the path does not begin with `/`")]
    NotAbsolute,
    /// RFC 3986 §3.3; B-25.
    #[error("the path holds a byte that must be percent-encoded")]
    Byte,
    /// RFC 3986 §2.1; B-26.
    #[error("the path holds a `%` without two hexadecimal digits")]
    Escape,
    #[error("the path holds %00")]
    Nul,
    /// RFC 3629 §3: also overlong forms and surrogates.
    #[error("the percent-encoded bytes of the path are not UTF-8")]
    Utf8,
    /// A server behind us may read it as a separator.
    #[error("the path holds an encoded `/` or `\\`")]
    EncodedSeparator,
    #[error("the path leads above the root")]
    AboveRoot,
    /// `/..;x/`: servers that cut parameters before dot segments read it as `/../`.
    #[error("the path holds a dot segment with parameters")]
    DotParameters,
}

/// A byte that sends a path to [`normalise_slowly`]: `%`, or not allowed in a path at all.
const SLOW: u8 = 1;
/// `/`
const SLASH: u8 = 2;
/// A byte that after `/` may be part of something to remove: `/` and `.`.
const AFTER_SLASH: u8 = 4;
/// A byte that may stand in a path as it is: pchar without `%`, and `/` (RFC 3986 §3.3).
const PLAIN: u8 = 8;
/// RFC 3986 §2.3.
const UNRESERVED: u8 = 16;

static CLASS: [u8; 256] = {
    let mut class = [SLOW; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            class[b] = PLAIN | UNRESERVED;
        } else if matches!(
            byte,
            b'!' | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
        ) {
            class[b] = PLAIN;
        }
        b += 1;
    }
    class[b'.' as usize] |= AFTER_SLASH;
    class[b'/' as usize] = PLAIN | SLASH | AFTER_SLASH;
    class
};

fn class(byte: u8) -> u8 {
    CLASS[usize::from(byte)]
}

/// The normal form of `path` (without query): escapes of unreserved characters decoded, other
/// escapes in upper case, dot segments removed, runs of `/` merged. `;parameters` stay.
///
/// A path that needs none of it comes back as it is; else the result is written to `out`, whose
/// content is replaced.
///
/// # Errors
/// [`BadPath`] for what has no safe reading: answer 400.
pub fn normalise<'a>(path: &'a [u8], out: &'a mut Vec<u8>) -> Result<&'a [u8], BadPath> {
    if path.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    let mut slow = 0;
    let mut before = 0;
    for &byte in path {
        let class = class(byte);
        slow |= class & SLOW | (before & SLASH) << 1 & class;
        before = class;
    }
    if slow == 0 {
        return Ok(path);
    }
    normalise_slowly(path, out)
}

fn normalise_slowly<'a>(path: &[u8], out: &'a mut Vec<u8>) -> Result<&'a [u8], BadPath> {
    out.clear();
    let relative = path.strip_prefix(b"/").ok_or(BadPath::NotAbsolute)?;
    let mut segments = relative.split(|&byte| byte == b'/').peekable();
    // Here and after each turn `out` ends in `/`, except after the last segment.
    out.push(b'/');
    while let Some(segment) = segments.next() {
        let start = out.len();
        decode(segment, out)?;
        match out.get(start..).unwrap_or_default() {
            b"" => continue,
            b"." => out.truncate(start),
            b".." => {
                let parents = out.get(..start - 1).unwrap_or_default();
                let parent = parents.iter().rposition(|&byte| byte == b'/');
                out.truncate(parent.ok_or(BadPath::AboveRoot)? + 1);
            }
            [b'.', b'.', rest @ ..] | [b'.', rest @ ..]
                if rest.starts_with(b";") || rest.starts_with(b"%3B") =>
            {
                return Err(BadPath::DotParameters);
            }
            _ if segments.peek().is_some() => out.push(b'/'),
            _ => {}
        }
    }
    Ok(out)
}

/// Appends one segment with the escapes in their normal form.
fn decode(segment: &[u8], out: &mut Vec<u8>) -> Result<(), BadPath> {
    let mut rest = segment;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            if class(byte) & PLAIN == 0 {
                return Err(BadPath::Byte);
            }
            out.push(byte);
            continue;
        }
        let value = escape(&mut rest)?;
        match value {
            0 => return Err(BadPath::Nul),
            b'/' | b'\\' => return Err(BadPath::EncodedSeparator),
            0x80.. => {
                // The whole character must be here, in escapes.
                let length = match value {
                    0xC2..=0xDF => 2,
                    0xE0..=0xEF => 3,
                    0xF0..=0xF4 => 4,
                    _ => return Err(BadPath::Utf8),
                };
                let mut character = [value, 0, 0, 0];
                let character = character.get_mut(..length).ok_or(BadPath::Utf8)?;
                for byte in character.iter_mut().skip(1) {
                    rest = rest.strip_prefix(b"%").ok_or(BadPath::Utf8)?;
                    *byte = escape(&mut rest)?;
                }
                std::str::from_utf8(character).map_err(|_| BadPath::Utf8)?;
                character.iter().for_each(|&byte| push_escaped(byte, out));
            }
            _ if class(value) & UNRESERVED != 0 => out.push(value),
            _ => push_escaped(value, out),
        }
    }
    Ok(())
}

/// The value of the two digits after a `%`.
fn escape(rest: &mut &[u8]) -> Result<u8, BadPath> {
    let [high, low, after @ ..] = *rest else { return Err(BadPath::Escape) };
    let value = hex(*high).zip(hex(*low)).ok_or(BadPath::Escape)?;
    *rest = after;
    Ok(value.0 << 4 | value.1)
}

/// The value of a hexadecimal digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn push_escaped(byte: u8, out: &mut Vec<u8>) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 };
    out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
}

/// The normal form of a path that an operator wrote, where text outside ASCII need not be escaped.
pub(super) fn normalise_pattern(text: &str) -> Result<Box<[u8]>, String> {
    let mut escaped = Vec::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte.is_ascii() { escaped.push(byte) } else { push_escaped(byte, &mut escaped) }
    }
    let mut out = Vec::new();
    match normalise(&escaped, &mut out) {
        Ok(path) => Ok(path.into()),
        Err(bad) => Err(format!("{text:?} is not a usable path: {bad}")),
    }
}

/// Entry for a fuzzer: must not panic, and what it checks must hold for every input.
pub fn fuzz_path(input: &[u8]) {
    let (mut fast, mut slow, mut again) = (Vec::new(), Vec::new(), Vec::new());
    let normal = normalise(input, &mut fast);
    assert_eq!(normal, normalise_slowly(input, &mut slow), "fast and slow path differ");
    if let Ok(normal) = normal {
        assert_eq!(normalise(normal, &mut again), Ok(normal), "not idempotent");
        assert!(normal.starts_with(b"/") && normal.is_ascii());
        for segment in normal.split(|&byte| byte == b'/') {
            assert!(segment != b"." && segment != b"..", "a dot segment is left");
        }
        assert!(!normal.windows(2).any(|pair| pair == b"//"), "an empty segment is left");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn normal_forms() {
        for (path, want) in [
            ("/", "/"),
            ("/users/7", "/users/7"),
            ("/users/", "/users/"),
            ("//", "/"),
            ("/a//b///c", "/a/b/c"),
            ("/a/./b/.", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a//../b", "/b"),
            ("/a/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b/%2e", "/b/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/.../..a/a..", "/.../..a/a.."),
            ("/%7Euser/%41%2d%5f", "/~user/A-_"),
            ("/caf%c3%a9/%e2%82%ac/%f0%9f%98%80", "/caf%C3%A9/%E2%82%AC/%F0%9F%98%80"),
            ("/%252e%252e/%252f", "/%252e%252e/%252f"),
            ("/a;x=1/b;y", "/a;x=1/b;y"),
            ("/;x/..a;b", "/;x/..a;b"),
            ("/a%20b%3b%3f%23", "/a%20b%3B%3F%23"),
            ("/!$&'()*+,;=:@-._~", "/!$&'()*+,;=:@-._~"),
        ] {
            let mut out = Vec::new();
            let got = normalise(path.as_bytes(), &mut out).map(String::from_utf8_lossy);
            assert_eq!(got.as_deref(), Ok(want), "{path}");
        }
    }

    #[test]
    fn refusals() {
        for (path, want) in [
            ("", BadPath::NotAbsolute),
            ("a", BadPath::NotAbsolute),
            ("*", BadPath::NotAbsolute),
            ("/a b", BadPath::Byte),
            ("/a#b", BadPath::Byte),
            ("/a?b", BadPath::Byte),
            ("/a\\b", BadPath::Byte),
            ("/<", BadPath::Byte),
            ("/{a}", BadPath::Byte),
            ("/a|b^\"", BadPath::Byte),
            ("/caf\u{e9}", BadPath::Byte),
            ("/\u{7f}", BadPath::Byte),
            ("/%", BadPath::Escape),
            ("/%0", BadPath::Escape),
            ("/%zz", BadPath::Escape),
            ("/%+1", BadPath::Escape),
            ("/a%00", BadPath::Nul),
            ("/%C0%AF", BadPath::Utf8),
            ("/%E0%80%AF", BadPath::Utf8),
            ("/%ED%A0%80", BadPath::Utf8),
            ("/%F5%80%80%80", BadPath::Utf8),
            ("/%C3", BadPath::Utf8),
            ("/%C3a9", BadPath::Utf8),
            ("/%C3/%A9", BadPath::Utf8),
            ("/%A9", BadPath::Utf8),
            ("/a%2fb", BadPath::EncodedSeparator),
            ("/a%2Fb", BadPath::EncodedSeparator),
            ("/..%5c..", BadPath::EncodedSeparator),
            ("/..", BadPath::AboveRoot),
            ("/a/../..", BadPath::AboveRoot),
            ("/%2e%2e/a", BadPath::AboveRoot),
            ("/a/..;/b", BadPath::DotParameters),
            ("/a/.;x=1/b", BadPath::DotParameters),
            ("/a/%2e%2e;/b", BadPath::DotParameters),
            ("/a/..%3b/b", BadPath::DotParameters),
        ] {
            assert_eq!(normalise(path.as_bytes(), &mut Vec::new()), Err(want), "{path}");
        }
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        let (path, mut out) = (b"/users/7;v=1", Vec::new());
        let normal = normalise(path, &mut out).unwrap();
        assert!(std::ptr::eq(normal, path.as_slice()));
        assert!(out.is_empty());
    }

    #[test]
    fn patterns_may_hold_any_text() {
        assert_eq!(normalise_pattern("/caf\u{e9}/./x").as_deref(), Ok(&b"/caf%C3%A9/x"[..]));
        assert!(normalise_pattern("users").unwrap_err().contains("\"users\""));
    }

    proptest! {
        #[test]
        fn any_bytes(input: Vec<u8>) {
            fuzz_path(&input);
        }

        #[test]
        fn pieces(pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "/", "/", "/", ".", "..", "%2e", "%2E", ";", "%3b", "a", "Z", "%41", "%c3%a9",
                "%C3", "%25", "%2f", "%5C", "%00", "%", "2", "e", "~", " ", "\\", "?", ":",
            ]),
            0..12,
        )) {
            fuzz_path(format!("/{}", pieces.concat()).as_bytes());
        }
    }
}
