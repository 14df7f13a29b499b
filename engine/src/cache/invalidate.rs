//! What an unsafe request makes invalid (RFC 9111 §4.4).

use contract::snapshot::RouteCache;

use super::key::{self, Key};
use super::store::Store;
use crate::answer::Answer;
use crate::message::Name;
use crate::route::path;

/// What an unsafe request was for, and what its answer names at the same host, has changed.
pub fn invalidate(store: &Store, host: &[u8], uri: &[u8], answer: &Answer, rules: &RouteCache) {
    store.invalidate(uri);
    let (head, bytes) = (&answer.head, answer.bytes.bytes());
    let base = Key { uri: uri.into(), way: Box::default() };
    let location = head.value(bytes, Name::Location);
    for place in location.into_iter().chain(head.other(bytes, b"content-location")) {
        if let Some((path, query)) = same_host(place, host, base.place().1) {
            store.invalidate(&key::uri(host, &path, query, rules));
        }
    }
}

/// Path and query of a reference to the same host (RFC 9111 §4.4: others are not ours to judge).
fn same_host<'a>(place: &'a [u8], host: &[u8], base: &[u8]) -> Option<(Vec<u8>, Option<&'a [u8]>)> {
    let place = place.split(|&byte| byte == b'#').next().unwrap_or_default();
    let at = memchr::memchr(b'?', place).unwrap_or(place.len());
    let (path, query) = (&place[..at], place.get(at + 1..));
    let rest = match path {
        [b'/', b'/', rest @ ..] => Some(rest),
        path => {
            let scheme = memchr::memmem::find(path, b"://");
            scheme.filter(|at| !path[..*at].contains(&b'/')).and_then(|at| path.get(at + 3..))
        }
    };
    let path = match (rest, path) {
        (Some(rest), _) => {
            let at = memchr::memchr(b'/', rest).unwrap_or(rest.len());
            if !rest[..at].eq_ignore_ascii_case(host) {
                return None;
            }
            if at == rest.len() { b"/".to_vec() } else { rest[at..].to_vec() }
        }
        (None, [b'/', ..]) => path.to_vec(),
        (None, path) => {
            let end = memchr::memrchr(b'/', base).map_or(0, |at| at + 1);
            [base.get(..end).unwrap_or_default(), path].concat()
        }
    };
    let mut normal = Vec::new();
    let path = path::normalise(&path, &mut normal).ok()?.to_vec();
    Some((path, query))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_to_the_same_host_or_nowhere() {
        let of = |place: &str| {
            let found = same_host(place.as_bytes(), b"api.test:8080", b"/a/b");
            found.map(|(path, query)| {
                let query = query.map(|query| String::from_utf8_lossy(query).into_owned());
                (String::from_utf8(path).unwrap(), query)
            })
        };
        let at = |path: &str| Some((path.to_owned(), None));
        assert_eq!(of("/x"), at("/x"));
        assert_eq!(of("c"), at("/a/c"));
        assert_eq!(of("../c#d"), at("/c"));
        assert_eq!(of("http://API.test:8080/x"), at("/x"));
        assert_eq!(of("//api.test:8080"), at("/"));
        assert_eq!(of("/x?y=/z"), Some(("/x".into(), Some("y=/z".into()))));
        assert_eq!(of("https://other.test/x"), None);
        assert_eq!(of("//other.test/x"), None);
    }
}
