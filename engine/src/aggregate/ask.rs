//! What a call sends, from its templates and what it may forward.

use super::outcome::{Failure, Place, Why};
use super::plan::{Call, HttpCall};
use super::view::View;
use crate::payload::json::Json;
use crate::template::{Escape, Missing};

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Path and query.
    pub target: Vec<u8>,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Option<Vec<u8>>,
    /// Monotonic milliseconds; 0: none.
    pub deadline_ms: u64,
    /// Largest answer, in bytes.
    pub most_bytes: usize,
}

/// Renders a call.
///
/// # Errors
/// A value is missing that the call cannot do without, or cannot stand where it should.
pub fn asked(call: &Call, http: &HttpCall, view: &View<'_, '_>) -> Result<Asked, Failure> {
    // What is missing of a request is its sender's fault; of another call's answer it is not.
    let whole = if call.needs.is_empty() && view.item.is_none() { 400 } else { 502 };
    let missing = |place| Failure::new(Why::Value(place), whole);
    if let Some(unary) = &http.grpc {
        let json = http.body.as_ref().and_then(|body| body.render(view));
        let json = json.map_or_else(|| b"{}".to_vec(), |json| json.to_vec());
        let body = unary.request(&json).map_err(|_| Failure::new(Why::NotMessage, whole))?;
        let mut fields = fields(http, view).map_err(|()| missing(Place::Header))?;
        fields.retain(|(name, _)| name != b"content-type");
        fields.push((b"content-type".to_vec(), b"application/grpc".to_vec()));
        let (target, most_bytes) = (unary.path().as_bytes().to_vec(), http.max_bytes);
        return Ok(Asked { target, fields, body: Some(body), deadline_ms: 0, most_bytes });
    }
    let mut target = Vec::with_capacity(64);
    http.path.text(view, Escape::Path, &mut target).map_err(|_: Missing| missing(Place::Path))?;
    if !is_meant(&target, http.empty_segments) {
        return Err(missing(Place::Path));
    }
    let mut query = Query { out: &mut target, begun: false };
    for name in &http.forward_query {
        view.request.parameters(name, &mut |name, value| {
            let out = query.begin();
            out.extend_from_slice(name);
            out.push(b'=');
            out.extend_from_slice(value);
        });
    }
    for (name, template) in &http.query {
        match template.plain().and_then(|_| view.value(template)) {
            Some(Json::Array(items)) => {
                for item in items.iter().filter(|item| **item != Json::Null) {
                    let out = query.begin();
                    out.extend_from_slice(name);
                    out.push(b'=');
                    percent_encode(item.to_text().as_bytes(), out);
                }
            }
            _ => {
                let mut value = Vec::new();
                if template.text(view, Escape::Query, &mut value).is_ok() {
                    let out = query.begin();
                    out.extend_from_slice(name);
                    out.push(b'=');
                    out.append(&mut value);
                }
            }
        }
    }
    let mut fields = fields(http, view).map_err(|()| missing(Place::Header))?;
    let has =
        |fields: &[(Vec<u8>, Vec<u8>)], name: &[u8]| fields.iter().any(|(own, _)| own == name);
    if !has(&fields, b"accept") {
        fields.push((b"accept".to_vec(), b"application/json".to_vec()));
    }
    let body = http.body.as_ref().and_then(|body| body.render(view)).map(|body| body.to_vec());
    if body.is_some() && !has(&fields, b"content-type") {
        fields.push((b"content-type".to_vec(), b"application/json".to_vec()));
    }
    Ok(Asked { target, fields, body, deadline_ms: 0, most_bytes: http.max_bytes })
}

/// Names and values of fields.
type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// The fields that a call forwards and sets.
///
/// # Errors
/// A value cannot stand there.
fn fields(http: &HttpCall, view: &View<'_, '_>) -> Result<Lines, ()> {
    let mut fields = Vec::new();
    for (name, what) in &http.forward_headers {
        if let Some(value) = view.request.text(what) {
            fields.push((name.as_bytes().to_vec(), value.into_owned()));
        }
    }
    for (name, template) in &http.headers {
        let mut value = Vec::new();
        match template.text(view, Escape::Header, &mut value) {
            Ok(()) => {
                let value = value.trim_ascii().to_vec();
                fields.retain(|(own, _)| own != name.as_bytes());
                if !value.is_empty() {
                    fields.push((name.as_bytes().to_vec(), value));
                }
            }
            Err(error) if error.unfit => return Err(()),
            Err(_) => {}
        }
    }
    let mut cookies = Vec::new();
    for (name, what) in &http.forward_cookies {
        if let Some(value) = view.request.text(what) {
            if !cookies.is_empty() {
                cookies.extend_from_slice(b"; ");
            }
            cookies.extend_from_slice(name.as_bytes());
            cookies.push(b'=');
            cookies.extend_from_slice(&value);
        }
    }
    if !cookies.is_empty() {
        fields.push((b"cookie".to_vec(), cookies));
    }
    Ok(fields)
}

struct Query<'q> {
    out: &'q mut Vec<u8>,
    begun: bool,
}

impl Query<'_> {
    fn begin(&mut self) -> &mut Vec<u8> {
        self.out.push(if self.begun { b'&' } else { b'?' });
        self.begun = true;
        self.out
    }
}

/// Whether no value has changed what the path is about: with dot segments (RFC 3986 §5.2.4) it would name
/// another resource, and with nothing for a segment, its parent.
fn is_meant(path: &[u8], empty_segments: usize) -> bool {
    let mut empty = 0;
    for segment in path.split(|byte| *byte == b'/') {
        let mut plain = Vec::new();
        let mut rest = segment;
        while let Some((first, tail)) = rest.split_first() {
            match (first, tail) {
                (b'%', [b'2', b'e' | b'E', tail @ ..]) => {
                    plain.push(b'.');
                    rest = tail;
                }
                _ => {
                    plain.push(*first);
                    rest = tail;
                }
            }
            if plain.len() > 2 {
                break;
            }
        }
        if matches!(&*plain, b"." | b"..") {
            return false;
        }
        empty += usize::from(segment.is_empty());
    }
    empty <= empty_segments && !path.contains(&b'?') && !path.contains(&b'#')
}

/// RFC 3986 §2.1: all but unreserved characters.
fn percent_encode(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(*byte);
        } else {
            let digit = |nibble: u8| DIGITS.get(usize::from(nibble & 15)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(*byte)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_do_not_change_what_a_path_is_about() {
        assert!(is_meant(b"/users/7", 1));
        assert!(is_meant(b"/users/a%2Fb/x.y/...", 1));
        for path in ["/users/..", "/users/./x", "/users/%2e%2E/x", "/users/.%2e", "/users/", "//x"]
        {
            assert!(!is_meant(path.as_bytes(), 1), "{path}");
        }
        assert!(is_meant(b"/users/", 2));
    }

    #[test]
    fn texts_are_encoded_for_queries() {
        let mut out = Vec::new();
        percent_encode("a b&c=é".as_bytes(), &mut out);
        assert_eq!(out, b"a%20b%26c%3D%C3%A9");
    }
}
