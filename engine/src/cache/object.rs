//! A stored answer.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use bytes::Bytes;
use contract::snapshot::{CacheCookies, RouteCache};

use super::freshness::Freshness;
use super::key::{Key, Selecting};
use super::said::Said;
use crate::limits;
use crate::message::{Name, write};

/// What is known of an answer before its body is here.
#[derive(Clone, Debug)]
pub struct Draft {
    pub key: Key,
    pub selecting: Selecting,
    pub route: Box<str>,
    pub status: u16,
    /// Field lines, each with its CRLF: those of the answer but of its connection, framing and age.
    pub fields: Box<[u8]>,
    pub freshness: Freshness,
    /// Whoever may call the route may have it, whatever credentials it was asked for with.
    pub for_all: bool,
    pub tags: Box<[Box<[u8]>]>,
}

impl Draft {
    /// Bytes that it counts for without its body: what it has on the heap, and what it costs beside.
    pub fn cost(&self) -> usize {
        let selecting = self.selecting.iter();
        let selecting = selecting.map(|(name, value)| {
            limits::CACHE_ITEM_COST + name.len() + value.as_ref().map_or(0, |value| value.len())
        });
        let tags = self.tags.iter().map(|tag| limits::CACHE_ITEM_COST + tag.len());
        // The key stands in the index, too.
        limits::CACHE_OBJECT_COST
            + 2 * self.key.len()
            + self.route.len()
            + self.fields.len()
            + selecting.sum::<usize>()
            + tags.sum::<usize>()
    }
}

/// A stored answer. It never changes; what is learned of it makes another one in its place.
#[derive(Debug)]
pub struct Object {
    pub draft: Draft,
    pub body: Bytes,
    cost: usize,
    /// How often it was used of late, up to 3 (see `store/queues.rs`).
    used: AtomicU8,
    gone: AtomicBool,
    /// Until when someone asks about it, in monotonic milliseconds.
    asked_until_ms: AtomicU64,
}

impl Object {
    pub fn new(draft: Draft, body: Bytes) -> Object {
        let cost = draft.cost() + body.len();
        Object {
            draft,
            body,
            cost,
            used: AtomicU8::new(0),
            gone: AtomicBool::new(false),
            asked_until_ms: AtomicU64::new(0),
        }
    }

    /// Bytes that it counts for.
    pub fn cost(&self) -> usize {
        self.cost
    }

    pub fn used(&self) -> u8 {
        self.used.load(Ordering::Relaxed)
    }

    /// It was used once more. A use that is lost to another shard's does no harm.
    pub fn touch(&self) {
        let used = self.used();
        if used < 3 {
            self.used.store(used + 1, Ordering::Relaxed);
        }
    }

    pub fn fade(&self) {
        self.used.store(self.used().saturating_sub(1), Ordering::Relaxed);
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// True once: for who took it out of the index.
    pub fn leave(&self) -> bool {
        !self.gone.swap(true, Ordering::Relaxed)
    }

    /// True for the one that is to ask about it now.
    pub fn claim(&self, now_ms: u64) -> bool {
        let until_ms = self.asked_until_ms.load(Ordering::Relaxed);
        let mine = now_ms + limits::CACHE_REFRESH_MS;
        until_ms <= now_ms
            && self
                .asked_until_ms
                .compare_exchange(until_ms, mine, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// What was asked has been answered.
    pub fn unclaim(&self) {
        self.asked_until_ms.store(0, Ordering::Relaxed);
    }

    /// The value of the first field of that name.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        let mut fields = lines(&self.draft.fields);
        fields.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The fields of a block of lines.
pub fn lines(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let end = memchr::memmem::find(rest, b"\r\n")?;
        let line = &rest[..end];
        rest = rest.get(end + 2..).unwrap_or_default();
        let colon = memchr::memchr(b':', line)?;
        let value = line.get(colon + 1..).unwrap_or_default();
        Some((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)))
    })
}

/// Fields that are not stored: of the connection (those that a forwarder leaves out are not seen here),
/// of the proxy before us (RFC 9111 §3.1), and what is said anew with each use.
fn is_left_out(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 5] = [
        b"content-length",
        b"age",
        b"proxy-authentication-info",
        b"x-request-id",
        b"transfer-encoding",
    ];
    NAMES.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// The lines to be stored of an answer's fields: without what it says must not be (RFC 9111 §5.2.2.4,
/// §5.2.2.7), with the time at which it came where it has none (RFC 9110 §6.6.1).
pub fn block<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    said: &Said,
    rules: &RouteCache,
    wall_s: u64,
) -> Box<[u8]> {
    let mut out = Vec::with_capacity(512);
    let mut dated = false;
    for (name, value) in fields {
        let id = Name::classify(name);
        let cookie = id == Name::SetCookie || name.eq_ignore_ascii_case(b"set-cookie2");
        if is_left_out(name)
            || said.control.no_cache.names(name)
            || said.control.private.names(name)
            || (cookie && rules.set_cookie != CacheCookies::Store)
        {
            continue;
        }
        dated |= id == Name::Date;
        write::field(&mut out, name, value);
    }
    if !dated {
        write::field(&mut out, b"Date", &write::http_date(wall_s));
    }
    out.into()
}

/// The fields of a stored answer as a 304 about it says they are now (RFC 9111 §3.2): what it has is new,
/// but for what describes the stored bytes.
pub fn updated(stored: &[u8], new: &[(&[u8], &[u8])]) -> Vec<u8> {
    let is_new = |name: &[u8]| {
        !describes_bytes(name) && new.iter().any(|(own, _)| own.eq_ignore_ascii_case(name))
    };
    let mut out = Vec::with_capacity(stored.len() + 64);
    for (name, value) in lines(stored).filter(|(name, _)| !is_new(name)) {
        write::field(&mut out, name, value);
    }
    for (name, value) in new.iter().filter(|(name, _)| !describes_bytes(name) && !is_left_out(name))
    {
        write::field(&mut out, name, value);
    }
    out
}

fn describes_bytes(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 8] = [
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-md5",
        b"content-digest",
        b"repr-digest",
        b"digest",
        b"etag",
    ];
    NAMES.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// The tags in the lines of a field: separated by spaces (`Surrogate-Key`) or commas (`Cache-Tag`).
pub fn tags<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Box<[Box<[u8]>]> {
    let split = |line: &'a [u8]| line.split(|byte| matches!(byte, b' ' | b',' | b'\t'));
    let all = lines.flat_map(split).filter(|tag| !tag.is_empty());
    let mut all: Vec<Box<[u8]>> = all.take(limits::CACHE_TAGS).map(Into::into).collect();
    all.sort_unstable();
    all.dedup();
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(block: &[u8]) -> Vec<String> {
        String::from_utf8_lossy(block).lines().map(str::to_owned).collect()
    }

    fn pairs<'a>(fields: &[(&'a str, &'a str)]) -> Vec<(&'a [u8], &'a [u8])> {
        fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
    }

    #[test]
    fn not_all_of_a_head_is_stored() {
        let fields = pairs(&[
            ("Cache-Control", "max-age=9, no-cache=\"x-a, X-B\", private=x-c"),
            ("X-A", "1"),
            ("x-b", "2"),
            ("X-C", "3"),
            ("X-D", "4"),
            ("Age", "7"),
            ("Content-Length", "5"),
            ("Proxy-Authentication-Info", "a=b"),
            ("Set-Cookie", "a=b"),
            ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ]);
        let said = Said::read(fields.iter().copied());
        let stored = block(fields.iter().copied(), &said, &RouteCache::default(), 1);
        assert_eq!(text(&stored)[1..], ["X-D: 4", "Date: Sun, 06 Nov 1994 08:49:37 GMT"]);
        let rules = RouteCache { set_cookie: CacheCookies::Store, ..RouteCache::default() };
        let stored = block(fields[8..9].iter().copied(), &Said::default(), &rules, 0);
        assert_eq!(text(&stored), ["Set-Cookie: a=b", "Date: Thu, 01 Jan 1970 00:00:00 GMT"]);
        assert_eq!(lines(&stored).collect::<Vec<_>>()[0], (&b"Set-Cookie"[..], &b"a=b"[..]));
    }

    #[test]
    fn what_describes_the_bytes_stays() {
        let stored = b"ETag: \"a\"\r\nX-A: 1\r\nX-A: 2\r\nContent-Encoding: gzip\r\nX-B: 3\r\n";
        let new = pairs(&[
            ("etag", "\"b\""),
            ("x-a", "9"),
            ("content-encoding", "br"),
            ("x-c", "4"),
            ("age", "1"),
        ]);
        let want = ["ETag: \"a\"", "Content-Encoding: gzip", "X-B: 3", "x-a: 9", "x-c: 4"];
        assert_eq!(text(&updated(stored, &new)), want);
    }

    #[test]
    fn tags_are_words() {
        let found = tags([&b"b a"[..], b"c,  a"].into_iter());
        assert_eq!(found.iter().map(|tag| &**tag).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    }

    #[test]
    fn one_asks_at_a_time() {
        let draft = Draft {
            key: Key { uri: Box::default(), way: Box::default() },
            selecting: Box::default(),
            route: "".into(),
            status: 200,
            fields: Box::default(),
            freshness: Freshness::default(),
            for_all: true,
            tags: Box::default(),
        };
        let object = Object::new(draft, Bytes::new());
        assert!(object.claim(5) && !object.claim(6));
        assert!(object.claim(5 + limits::CACHE_REFRESH_MS));
        object.unclaim();
        assert!(object.claim(7));
        assert!(object.leave() && !object.leave() && object.is_gone());
    }
}
