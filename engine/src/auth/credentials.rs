//! Credentials in a request: where they are, and how upstreams are kept from seeing them.

use std::borrow::Cow;

use contract::snapshot::{CredentialSource, RouteAuth};

use super::Call;
use super::registry::Registry;
use crate::exchange::Request;
use crate::message::{Name, RequestHead};

/// What there is of one credential.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Absent,
    One(Cow<'a, [u8]>),
    /// In more than one place, or twice in one: nobody knows which is meant (RFC 6750 §2).
    Several,
}

/// The credential at one of `sources`. An empty one is none.
pub fn find<'a>(call: Call<'a>, sources: &'a [CredentialSource]) -> Found<'a> {
    let mut found = Found::Absent;
    for source in sources {
        let mut take = |credential: Cow<'a, [u8]>| {
            if !credential.is_empty() {
                found = match found {
                    Found::Absent => Found::One(credential),
                    _ => Found::Several,
                };
            }
        };
        match source {
            CredentialSource::Header { name, scheme } => {
                for value in fields(call.head, call.bytes, name.as_bytes()) {
                    match scheme {
                        None => take(Cow::Borrowed(value)),
                        Some(scheme) => {
                            if let Some(rest) = behind_scheme(value, scheme.as_bytes()) {
                                take(Cow::Borrowed(rest));
                            }
                        }
                    }
                }
            }
            CredentialSource::Query(name) => {
                for (_, value) in parameters(call.head.query(call.bytes).unwrap_or_default())
                    .filter(|(key, _)| decoded(key) == name.as_bytes())
                {
                    take(decoded(value));
                }
            }
            CredentialSource::Cookie(name) => {
                for value in cookies(call.head, call.bytes, name.as_bytes()) {
                    take(Cow::Borrowed(value));
                }
            }
        }
    }
    found
}

/// The values of all fields of that name (lower case).
pub fn fields<'a>(
    head: &'a RequestHead,
    bytes: &'a [u8],
    name: &[u8],
) -> impl Iterator<Item = &'a [u8]> {
    let id = Name::classify(name);
    head.fields
        .iter()
        .filter(move |field| {
            field.id == id
                && !field.drop
                && (id != Name::Other || field.name.of(bytes).eq_ignore_ascii_case(name))
        })
        .map(|field| field.value.of(bytes))
}

/// What is behind `scheme` and at least one space (RFC 9110 §11.4); schemes have no case.
pub fn behind_scheme<'a>(value: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (given, rest) = value.split_at_checked(scheme.len())?;
    let rest = rest.strip_prefix(b" ")?;
    given.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii())
}

/// The pairs of a query, as they came. What has no `=` has an empty value.
pub fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        }
    })
}

/// Percent-decoded, `+` for a space (WHATWG URL, `application/x-www-form-urlencoded`).
pub fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(out)
}

/// The values of the cookies of that name (RFC 6265 §5.4), without quotes.
pub fn cookies<'a>(
    head: &'a RequestHead,
    bytes: &'a [u8],
    name: &[u8],
) -> impl Iterator<Item = &'a [u8]> {
    fields(head, bytes, b"cookie").flat_map(move |line| in_line(line, name))
}

/// The value of the first cookie of that name in a `Cookie` field's value.
pub fn cookie_in<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    in_line(line, name).next()
}

fn in_line<'a>(line: &'a [u8], name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    line.split(|&byte| byte == b';').filter_map(move |pair| {
        let at = memchr::memchr(b'=', pair)?;
        let value = pair.get(at + 1..)?.trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
        (pair.get(..at)?.trim_ascii() == name).then_some(value)
    })
}

/// What an upstream sees of a request in place of what came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// The query without credentials; `Some(empty)`: none is left.
    pub query: Option<Vec<u8>>,
    /// The cookies without credentials, as one line; empty: none is left.
    pub cookies: Option<Vec<u8>>,
}

/// Takes fields out of the request that only the route's authenticators may set, whether or not they
/// will.
pub fn drop_own_fields(request: &mut Request, registry: &Registry, rules: &RouteAuth) {
    let bytes = request.bytes.as_ref().map_or(&[][..], crate::io::Chunk::bytes);
    for name in registry.of(rules).flat_map(|authenticator| &authenticator.own_fields) {
        let id = Name::classify(name.as_bytes());
        for field in request.head.fields.iter_mut().filter(|field| field.id == id) {
            field.drop |=
                id != Name::Other || field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes());
        }
    }
}

/// Takes the credentials that the route's authenticators look at out of the request.
pub fn hide(request: &mut Request, registry: &Registry, rules: &RouteAuth) {
    for authenticator in registry.of(rules) {
        for source in authenticator.kind.sources() {
            hide_one(request, source);
        }
    }
}

fn hide_one(request: &mut Request, source: &CredentialSource) {
    let bytes = request.bytes.as_ref().map_or(&[][..], crate::io::Chunk::bytes);
    match source {
        CredentialSource::Header { name, scheme } => {
            let id = Name::classify(name.as_bytes());
            for field in &mut request.head.fields {
                let same = field.id == id
                    && (id != Name::Other
                        || field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()));
                let value = field.value.of(bytes);
                let meant =
                    scheme.as_ref().is_none_or(|s| behind_scheme(value, s.as_bytes()).is_some());
                field.drop |= same && meant;
            }
        }
        CredentialSource::Query(name) => {
            let hidden = request.hidden.take().unwrap_or_default();
            let query = hidden.query.as_deref().or_else(|| request.head.query(bytes));
            let query = query.map(|query| without_parameter(query, name.as_bytes()));
            request.hidden = Some(Box::new(Hidden { query, ..*hidden }));
        }
        CredentialSource::Cookie(name) => {
            let hidden = request.hidden.take().unwrap_or_default();
            let lines: Vec<u8> = match &hidden.cookies {
                Some(cookies) => cookies.clone(),
                None => {
                    fields(&request.head, bytes, b"cookie").collect::<Vec<_>>().join(&b"; "[..])
                }
            };
            let cookies = Some(without_cookie(&lines, name.as_bytes()));
            request.hidden = Some(Box::new(Hidden { cookies, ..*hidden }));
        }
    }
}

fn without_parameter(query: &[u8], name: &[u8]) -> Vec<u8> {
    let pairs = query.split(|&byte| byte == b'&').filter(|pair| {
        let key = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
        decoded(key) != name
    });
    pairs.collect::<Vec<_>>().join(&b"&"[..])
}

fn without_cookie(line: &[u8], name: &[u8]) -> Vec<u8> {
    let pairs = line.split(|&byte| byte == b';').filter(|pair| {
        let key = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
        !pair.trim_ascii().is_empty() && key.trim_ascii() != name
    });
    pairs.map(<[u8]>::trim_ascii).collect::<Vec<_>>().join(&b"; "[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_have_no_case_and_need_a_space() {
        assert_eq!(behind_scheme(b"bearer abc", b"Bearer"), Some(&b"abc"[..]));
        assert_eq!(behind_scheme(b"Bearer   abc ", b"Bearer"), Some(&b"abc"[..]));
        assert_eq!(behind_scheme(b"Bearerabc", b"Bearer"), None);
        assert_eq!(behind_scheme(b"Basic abc", b"Bearer"), None);
        assert_eq!(behind_scheme(b"Bear", b"Bearer"), None);
    }

    #[test]
    fn texts_are_decoded() {
        assert_eq!(&*decoded(b"a%2Bb+c%zz"), b"a+b c%zz");
        assert_eq!(&*decoded(b"%4"), b"%4");
    }

    #[test]
    fn credentials_are_taken_out_and_the_rest_stays() {
        assert_eq!(without_parameter(b"a=1&api%6Bey=x&b=2", b"apikey"), b"a=1&b=2");
        assert_eq!(without_parameter(b"apikey=x", b"apikey"), b"");
        assert_eq!(without_cookie(b"a=1; sid=x;b=2", b"sid"), b"a=1; b=2");
        assert_eq!(without_cookie(b"sid=x", b"sid"), b"");
    }
}
