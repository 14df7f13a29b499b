//! What templates find in a request and in what answered it.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::io::Write;

use serde_json::Value;

use super::captures::Captured;
use crate::auth::credentials::{cookie_in, decoded, parameters};
use crate::exchange::Request;
use crate::message::fields::Field;
use crate::message::{Name, ResponseHead};
use crate::rewrite::is_identity;
use crate::template::{
    Capture, ConsumerPart, FieldName, Reference, RequestPart, TimePart, Values, text_of,
};
use crate::validate::percent;

/// A request as templates see it: without credentials that upstreams are not to see, and without what
/// it may not say of itself (`X-Consumer-*`, and from those who are not trusted `X-Forwarded-*`).
///
/// Once its body is under way, only what [`Request::keep`] has kept is there.
pub struct RequestValues<'a> {
    request: &'a Request,
    /// The head's bytes.
    bytes: &'a [u8],
    /// The path that was matched.
    path: &'a [u8],
    /// Seconds since 1970.
    now_s: u64,
    captured: OnceCell<Captured>,
}

impl<'a> RequestValues<'a> {
    /// `wall_us`: as the shard's clock has it.
    pub fn new(request: &'a Request, wall_us: u64) -> RequestValues<'a> {
        RequestValues {
            request,
            bytes: request.head_bytes(),
            path: request.matched_path(),
            now_s: wall_us / 1_000_000,
            captured: OnceCell::new(),
        }
    }

    /// The same with other parts of the path.
    pub fn with_captured(&self, captured: Captured) -> RequestValues<'a> {
        RequestValues {
            request: self.request,
            bytes: self.bytes,
            path: self.path,
            now_s: self.now_s,
            captured: OnceCell::from(captured),
        }
    }

    /// The path that was matched.
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    fn header(&self, name: &FieldName) -> Option<Cow<'a, [u8]>> {
        if name.id == Name::Cookie
            && let Some(cookies) = self.cookies()
        {
            return Some(Cow::Borrowed(cookies)).filter(|cookies| !cookies.is_empty());
        }
        if !self.request.client.trusted && is_claim(name.id, name.text.as_bytes()) {
            return None;
        }
        let separator: &[u8] = if name.id == Name::Cookie { b"; " } else { b", " };
        joined(&self.request.head.fields, self.bytes, name, separator)
    }

    /// In place of the client's.
    fn cookies(&self) -> Option<&'a [u8]> {
        self.request.hidden.as_ref().and_then(|hidden| hidden.cookies.as_deref())
    }

    /// The query that upstreams see, without `?`.
    pub fn query(&self) -> Option<&'a [u8]> {
        match self.request.hidden.as_ref().and_then(|hidden| hidden.query.as_deref()) {
            Some(query) => Some(query).filter(|query| !query.is_empty()),
            None => self.request.head.query(self.bytes),
        }
    }

    fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        if let Some(cookies) = self.cookies() {
            return cookie_in(cookies, name.as_bytes());
        }
        let fields = self.request.head.fields.iter();
        let mut lines = fields.filter(|field| field.id == Name::Cookie && !field.drop);
        lines.find_map(|field| cookie_in(field.value.of(self.bytes), name.as_bytes()))
    }

    fn capture(&self, capture: &Capture) -> Option<Cow<'a, [u8]>> {
        let captured = self.captured.get_or_init(|| {
            let route = self.request.notes.route.map(|at| self.request.plan.plan.route(at));
            route.map(|route| route.captures.find(self.path)).unwrap_or_default()
        });
        let span = captured.get(capture.index).copied().flatten()?;
        Some(percent::decoded(span.of(self.path), false))
    }

    fn consumer(&self, part: ConsumerPart) -> Option<&'a str> {
        let identity = self.request.identity.as_deref()?;
        match part {
            ConsumerPart::Id => Some(&*identity.id),
            ConsumerPart::Username => identity.consumer.map(|_| &*identity.id),
            ConsumerPart::Group => identity.groups.first().map(|group| &**group),
        }
        .filter(|text| !text.is_empty())
    }

    fn part(&self, part: RequestPart) -> Option<&'a [u8]> {
        let head = &self.request.head;
        match part {
            RequestPart::Id => Some(self.request.id.bytes()),
            RequestPart::Method => Some(head.method(self.bytes)),
            RequestPart::Host => head.authority().map(|authority| authority.of(self.bytes)),
            RequestPart::Path => Some(self.path),
            RequestPart::Query => self.query(),
            RequestPart::Scheme => {
                let told = head.value(self.bytes, Name::XForwardedProto);
                let told = told.filter(|told| {
                    self.request.client.trusted && matches!(*told, b"http" | b"https")
                });
                let own: &[u8] = match self.request.client.tls {
                    Some(_) => b"https",
                    None => b"http",
                };
                Some(told.unwrap_or(own))
            }
        }
    }

    fn json(&self, what: &Reference) -> Option<&'a Value> {
        match what {
            Reference::Claim(pointer) => {
                let identity = self.request.identity.as_deref()?;
                pointer.find_in(identity.claims.as_deref()?)
            }
            _ => None,
        }
    }
}

impl Values for RequestValues<'_> {
    fn text(&self, what: &Reference) -> Option<Cow<'_, [u8]>> {
        match what {
            Reference::Path => Some(Cow::Borrowed(self.path)),
            Reference::Capture(capture) => self.capture(capture),
            Reference::Query(name) => {
                let mut pairs = parameters(self.query()?);
                let found = pairs.find(|(key, _)| *decoded(key) == *name.as_bytes());
                found.map(|(_, value)| decoded(value))
            }
            Reference::Header(name) => self.header(name),
            Reference::Cookie(name) => self.cookie(name).map(Cow::Borrowed),
            Reference::Claim(_) => self.json(what).and_then(text_of),
            Reference::Consumer(part) => {
                self.consumer(*part).map(|text| Cow::Borrowed(text.as_bytes()))
            }
            Reference::ClientAddress => {
                let mut text = Vec::with_capacity(40);
                // Writing to a Vec cannot fail.
                let _ = write!(text, "{}", self.request.client_address().to_canonical());
                Some(Cow::Owned(text))
            }
            Reference::Request(part) => self.part(*part).map(Cow::Borrowed),
            Reference::RouteName => {
                let index = self.request.notes.route?;
                Some(Cow::Borrowed(self.request.plan.plan.route(index).name.as_bytes()))
            }
            Reference::Time(TimePart::Unix) => Some(Cow::Owned(self.now_s.to_string().into())),
            Reference::Time(TimePart::Iso) => Some(Cow::Owned(iso(self.now_s).into())),
            Reference::ResponseStatus
            | Reference::ResponseHeader(_)
            | Reference::Body(_)
            | Reference::Call { .. }
            | Reference::Item(_)
            | Reference::Index => None,
        }
    }

    fn value(&self, what: &Reference) -> Option<Value> {
        match what {
            Reference::Claim(_) => self.json(what).cloned(),
            Reference::Time(TimePart::Unix) => Some(self.now_s.into()),
            what => self.text(what).map(|text| String::from_utf8_lossy(&text).into_owned().into()),
        }
    }
}

/// A request and the head of what answered it.
pub struct AnswerValues<'a> {
    pub request: RequestValues<'a>,
    /// As the upstream gave it.
    pub status: u16,
    pub head: &'a ResponseHead,
    pub bytes: &'a [u8],
}

impl Values for AnswerValues<'_> {
    fn text(&self, what: &Reference) -> Option<Cow<'_, [u8]>> {
        match what {
            Reference::ResponseStatus => Some(Cow::Owned(self.status.to_string().into())),
            Reference::ResponseHeader(name) => joined(&self.head.fields, self.bytes, name, b", "),
            what => self.request.text(what),
        }
    }

    fn value(&self, what: &Reference) -> Option<Value> {
        match what {
            Reference::ResponseStatus => Some(self.status.into()),
            Reference::ResponseHeader(_) => {
                let text = self.text(what)?;
                Some(String::from_utf8_lossy(&text).into_owned().into())
            }
            what => self.request.value(what),
        }
    }
}

/// Whether a field claims who or where the client is, which only trusted proxies may.
fn is_claim(id: Name, name: &[u8]) -> bool {
    match id {
        Name::Other => is_identity(name),
        Name::XForwardedFor
        | Name::XForwardedHost
        | Name::XForwardedPort
        | Name::XForwardedProto
        | Name::XRealIp
        | Name::Forwarded => true,
        _ => false,
    }
}

/// The values of all fields of that name as one (RFC 9110 §5.3); of `Set-Cookie`, which cannot be
/// joined, the first.
fn joined<'a>(
    fields: &[Field],
    bytes: &'a [u8],
    name: &FieldName,
    separator: &[u8],
) -> Option<Cow<'a, [u8]>> {
    let mut found: Option<Cow<'a, [u8]>> = None;
    for field in fields.iter().filter(|field| field.id == name.id && !field.drop) {
        if name.id == Name::Other
            && !field.name.of(bytes).eq_ignore_ascii_case(name.text.as_bytes())
        {
            continue;
        }
        let value = field.value.of(bytes);
        match &mut found {
            None => found = Some(Cow::Borrowed(value)),
            Some(_) if name.id == Name::SetCookie => break,
            Some(before) => {
                let before = before.to_mut();
                before.extend_from_slice(separator);
                before.extend_from_slice(value);
            }
        }
    }
    found
}

/// `2001-02-03T04:05:06Z` (RFC 3339).
fn iso(unix_s: u64) -> String {
    let time = i64::try_from(unix_s).ok().and_then(|s| chrono::DateTime::from_timestamp(s, 0));
    let time = time.unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_says() {
        assert_eq!(iso(981_173_106), "2001-02-03T04:05:06Z");
        assert_eq!(iso(u64::MAX), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn what_a_client_says_of_itself_is_no_value() {
        for (name, claims) in [
            ("X-Forwarded-For", true),
            ("forwarded", true),
            ("X-Consumer-Id", true),
            ("X-Forwarded-Client-Cert", true),
            ("X-Other", false),
            ("Host", false),
        ] {
            let name = FieldName::new(name);
            assert_eq!(is_claim(name.id, name.text.as_bytes()), claims, "{name:?}");
        }
    }
}
