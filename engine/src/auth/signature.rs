//! Signed requests (RFC 9421) with HMAC-SHA-256.
//!
//! What is signed is a text made of *components*: parts of the request that the signer lists, in its
//! order. The gateway makes the same text from what came, before anything is normalised or rewritten.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use contract::snapshot::{self, ConsumerIndex, CredentialSource, Snapshot};
use ring::hmac;
use sfv::{BareItem, Dictionary, InnerList, Item, ListEntry, ListSerializer, Parser};

use super::credentials::{Found, fields};
use super::registry::Unfit;
use super::{Call, Check, ContentDigest, Identity, Refusal};
use crate::limits;
use crate::message::{Framing, RequestHead};

/// An authenticator by signatures over requests.
#[derive(Debug)]
pub struct Signature {
    /// Only to hide them.
    pub from: Box<[CredentialSource]>,
    components: Box<[Box<str>]>,
    max_age_s: i64,
    keys: HashMap<Box<str>, Key>,
}

#[derive(Debug)]
struct Key {
    secret: hmac::Key,
    owner: ConsumerIndex,
}

/// A request as it is signed.
#[derive(Clone, Copy)]
struct Signed<'a> {
    head: &'a RequestHead,
    bytes: &'a [u8],
    /// It came over TLS.
    secure: bool,
}

impl<'a> Signed<'a> {
    fn of(call: Call<'a>) -> Signed<'a> {
        Signed { head: call.head, bytes: call.bytes, secure: call.client.tls.is_some() }
    }

    fn has_body(self) -> bool {
        !matches!(self.head.framing, Framing::None | Framing::Length(0))
    }
}

/// Whose signature is on a request.
struct Signer<'a> {
    id: String,
    key: &'a Key,
    /// What the body has to be, where the signature covers that.
    content: Option<ContentDigest>,
}

/// A signature that was found in a request, with what it says of itself.
struct Given {
    /// The components, and the parameters.
    input: InnerList,
    value: Vec<u8>,
}

impl Signature {
    pub fn build(from: &snapshot::Signature, snapshot: &Snapshot) -> Result<Signature, Unfit> {
        let mut keys = HashMap::new();
        for (index, consumer) in snapshot.auth.consumers.iter().enumerate() {
            for key in &consumer.signing_keys {
                let secret = hmac::Key::new(hmac::HMAC_SHA256, &key.secret);
                let owner = index as ConsumerIndex;
                keys.insert(key.id.as_str().into(), Key { secret, owner });
            }
        }
        let header = |name: &str| CredentialSource::Header { name: name.into(), scheme: None };
        Ok(Signature {
            from: [header("signature"), header("signature-input")].into(),
            components: from.components.iter().map(|name| name.as_str().into()).collect(),
            max_age_s: from.max_age_s.into(),
            keys,
        })
    }

    /// There is a signature or none; which one counts is found when it is verified.
    pub fn credential<'a>(&'a self, call: Call<'a>) -> Found<'a> {
        let there = |name: &[u8]| fields(call.head, call.bytes, name).next().is_some();
        match there(b"signature") || there(b"signature-input") {
            true => Found::One(Cow::Borrowed(b"")),
            false => Found::Absent,
        }
    }

    pub fn verify<'a>(&'a self, call: Call<'a>, _credential: &[u8]) -> Check<'a> {
        let now_s = i64::try_from(call.wall_ms() / 1_000).unwrap_or(i64::MAX);
        match self.signer(Signed::of(call), now_s) {
            Some(Signer { id, key, content }) => {
                let identity = call.registry.identity(key.owner);
                let (credential, content) = (Some(id.as_str().into()), content.map(Box::new));
                Check::known(Identity { credential, content, ..identity })
            }
            None => Check::refused(Refusal::Invalid),
        }
    }

    /// Whose signature is on the request. Others may have signed it as well (RFC 9421 §4.3): the first
    /// one by a key of ours counts.
    fn signer(&self, request: Signed<'_>, now_s: i64) -> Option<Signer<'_>> {
        for given in given(request)? {
            let Some(BareItem::String(id)) = given.input.params.get("keyid") else { continue };
            let Some(key) = self.keys.get(id.as_str()) else { continue };
            self.admit(&given.input, request.has_body(), now_s)?;
            let base = base(request, &given.input)?;
            hmac::verify(&key.secret, base.as_bytes(), &given.value).ok()?;
            let content = match covers(&given.input, CONTENT_DIGEST) {
                true => {
                    let digests = dictionary(request, CONTENT_DIGEST.as_bytes())?;
                    // Without one that can be compared any body would do.
                    Some(ContentDigest::read(&digests, request.head.framing)?)
                }
                false => None,
            };
            return Some(Signer { id: id.as_str().to_owned(), key, content });
        }
        None
    }

    /// Whether a signature covers what it must, and is of now (RFC 9421 §3.2, §7.2.1).
    fn admit(&self, input: &InnerList, has_body: bool, now_s: i64) -> Option<()> {
        let params = &input.params;
        let number = |name: &str| match params.get(name) {
            Some(BareItem::Integer(number)) => Some(i64::from(*number)),
            _ => None,
        };
        match params.get("alg") {
            None => {}
            // The key says what it is for; a signature may only agree.
            Some(BareItem::String(alg)) if alg.as_str() == "hmac-sha256" => {}
            Some(_) => return None,
        }
        let created = number("created")?;
        if created > now_s + limits::SIGNATURE_LEEWAY_S || now_s - created > self.max_age_s {
            return None;
        }
        if params.get("expires").is_some() && number("expires")? < now_s {
            return None;
        }
        let needed = |wanted: &str| has_body || wanted != CONTENT_DIGEST;
        let mut wanted = self.components.iter().filter(|wanted| needed(wanted));
        wanted.all(|wanted| covers(input, wanted)).then_some(())
    }
}

const CONTENT_DIGEST: &str = "content-digest";

fn covers(input: &InnerList, wanted: &str) -> bool {
    input.items.iter().any(|item| name(item) == Some(wanted) && item.params.is_empty())
}

fn name(item: &Item) -> Option<&str> {
    match &item.bare_item {
        BareItem::String(name) => Some(name.as_str()),
        _ => None,
    }
}

/// The signatures of a request; `None`: what says so is malformed (RFC 9421 §4.1, §4.2).
fn given(request: Signed<'_>) -> Option<Vec<Given>> {
    let inputs = dictionary(request, b"signature-input")?;
    let mut values = dictionary(request, b"signature")?;
    if inputs.len() > limits::SIGNATURES {
        return None;
    }
    let mut all = Vec::with_capacity(inputs.len());
    for (label, input) in inputs {
        let (ListEntry::InnerList(input), Some(ListEntry::Item(value))) =
            (input, values.swap_remove(label.as_str()))
        else {
            return None;
        };
        let BareItem::ByteSequence(value) = value.bare_item else { return None };
        all.push(Given { input, value });
    }
    Some(all)
}

fn dictionary(request: Signed<'_>, name: &[u8]) -> Option<Dictionary> {
    let lines: Vec<&[u8]> = fields(request.head, request.bytes, name).collect();
    Parser::new(&lines.join(&b", "[..])).parse().ok()
}

/// The text that is signed (RFC 9421 §2.5). `None`: a component that there is not, is there twice, or
/// that the gateway does not know.
fn base(request: Signed<'_>, input: &InnerList) -> Option<String> {
    let mut out = String::new();
    for (at, item) in input.items.iter().enumerate() {
        if input.items.iter().take(at).any(|before| before == item) {
            return None;
        }
        let value = component(request, item)?;
        // A line feed inside of a value would begin a component of its own.
        let value = std::str::from_utf8(&value).ok().filter(|value| value.is_ascii())?;
        writeln!(out, "{}: {value}", serialised(item)?).ok()?;
    }
    let mut list = ListSerializer::new();
    list.members([&ListEntry::InnerList(input.clone())]);
    write!(out, "\"@signature-params\": {}", list.finish()?).ok()?;
    Some(out)
}

fn serialised(item: &Item) -> Option<String> {
    let mut list = ListSerializer::new();
    list.members([&ListEntry::Item(item.clone())]);
    list.finish()
}

/// The value of a component (RFC 9421 §2.1, §2.2).
fn component<'a>(request: Signed<'a>, item: &Item) -> Option<Cow<'a, [u8]>> {
    let (head, bytes) = (request.head, request.bytes);
    let name = name(item)?;
    if name == "@query-param" {
        return query_param(request, item).map(|value| Cow::Owned(value.into_bytes()));
    }
    if !item.params.is_empty() {
        return None;
    }
    let path = match head.path(bytes) {
        [] => &b"/"[..],
        path => path,
    };
    let query = head.query(bytes);
    let scheme: &[u8] = if request.secure { b"https" } else { b"http" };
    let with_query = || match query {
        Some(query) => [path, b"?", query].concat(),
        None => path.to_vec(),
    };
    Some(match name {
        "@method" => Cow::Borrowed(head.method(bytes)),
        "@scheme" => Cow::Borrowed(scheme),
        "@authority" => Cow::Owned(authority(request)?),
        "@path" => Cow::Borrowed(path),
        "@query" => Cow::Owned([b"?", query.unwrap_or_default()].concat()),
        "@request-target" => Cow::Owned(with_query()),
        "@target-uri" => Cow::Owned([scheme, b"://", &authority(request)?, &with_query()].concat()),
        name if name.starts_with('@') => return None,
        // RFC 9421 §2.1: in lower case, or `covers` would not see it.
        name if name.bytes().any(|byte| byte.is_ascii_uppercase()) => return None,
        name => {
            let lines: Vec<&[u8]> = fields(head, bytes, name.as_bytes()).collect();
            match lines.as_slice() {
                [] => return None,
                [only] => Cow::Borrowed(*only),
                _ => Cow::Owned(lines.join(&b", "[..])),
            }
        }
    })
}

/// RFC 9421 §2.2.3: in lower case, without the scheme's own port.
fn authority(request: Signed<'_>) -> Option<Vec<u8>> {
    let given = request.head.authority()?.of(request.bytes).to_ascii_lowercase();
    let default: &[u8] = if request.secure { b":443" } else { b":80" };
    Some(given.strip_suffix(default).map_or(given.clone(), <[u8]>::to_vec))
}

/// RFC 9421 §2.2.8: names and values decoded, and encoded again in one way. What is there twice has
/// no one value.
fn query_param(request: Signed<'_>, item: &Item) -> Option<String> {
    let Some(BareItem::String(wanted)) = item.params.get("name") else { return None };
    if item.params.len() != 1 {
        return None;
    }
    let query = request.head.query(request.bytes)?;
    let wanted = super::credentials::decoded(wanted.as_str().as_bytes()).into_owned();
    let mut found = super::credentials::parameters(query)
        .filter(|(name, _)| super::credentials::decoded(name) == wanted);
    let (_, value) = found.next()?;
    if found.next().is_some() {
        return None;
    }
    let mut out = String::new();
    for &byte in super::credentials::decoded(value).iter() {
        // The component percent-encode set of the WHATWG URL standard, but for the space.
        match byte {
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'!'
            | b'*'
            | b'\''
            | b'('
            | b')' => out.push(char::from(byte)),
            byte => write!(out, "%{byte:02X}").ok()?,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use contract::snapshot::{Auth, Consumer, SigningKey};
    use proptest::prelude::*;

    use super::*;
    use crate::message::{HeadLimits, Progress};

    // RFC 9421 appendix B.1.5 and B.2.5.
    const SECRET: &[u8] = &[
        0xbb, 0x3b, 0xc9, 0x7c, 0x1e, 0x2e, 0xdc, 0xdd, 0x09, 0xcb, 0x84, 0xfb, 0x35, 0x9e, 0xf9,
        0x30, 0x35, 0x5c, 0xaf, 0xcc, 0xd2, 0x4c, 0x89, 0xde, 0x74, 0x9b, 0x64, 0x81, 0xcb, 0xb8,
        0xe9, 0x85, 0xb8, 0x5c, 0x1c, 0xb3, 0x34, 0x98, 0xf1, 0x05, 0xdb, 0x63, 0x52, 0x47, 0x49,
        0x3c, 0x1b, 0x5b, 0x98, 0x78, 0x48, 0x0e, 0x2e, 0xa9, 0x72, 0x5f, 0x23, 0xb1, 0xab, 0x23,
        0x95, 0x33, 0x2d, 0x0d,
    ];
    const INPUT: &str = "sig-b25=(\"date\" \"@authority\" \"content-type\");\
                         created=1618884473;keyid=\"test-shared-secret\"";
    const VALUE: &str = "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:";
    const CREATED: i64 = 1_618_884_473;

    fn signature(components: &[&str]) -> Signature {
        let key = SigningKey { id: "test-shared-secret".into(), secret: SECRET.into() };
        let consumer = Consumer { signing_keys: vec![key], ..Consumer::default() };
        let auth = Auth { consumers: vec![consumer].into(), ..Auth::default() };
        let snapshot = Snapshot { auth, ..Snapshot::default() };
        let components = components.iter().map(|name| (*name).into()).collect();
        let rules = snapshot::Signature { components, max_age_s: 300 };
        Signature::build(&rules, &snapshot).unwrap()
    }

    fn request(target: &str, input: &str, value: &str) -> String {
        request_with("", target, input, value)
    }

    fn request_with(fields: &str, target: &str, input: &str, value: &str) -> String {
        format!(
            "POST {target} HTTP/1.1\r\nHost: example.com\r\nDate: Tue, 20 Apr 2021 02:07:55 GMT\r\n\
             Content-Type: application/json\r\nContent-Length: 18\r\n{fields}\
             Signature-Input: {input}\r\nSignature: {value}\r\n\r\n"
        )
    }

    fn judged(signature: &Signature, bytes: &str, now_s: i64) -> bool {
        let mut head = RequestHead::new();
        let parsed = head.parse(bytes.as_bytes(), &HeadLimits::REQUEST);
        assert_eq!(parsed, Ok(Progress::Complete), "{bytes}");
        let request = Signed { head: &head, bytes: bytes.as_bytes(), secure: false };
        signature.signer(request, now_s).is_some()
    }

    /// A request with a right signature over these components.
    fn signed(target: &str, components: &str, more: &str) -> String {
        signed_with("", target, components, more)
    }

    fn signed_with(fields: &str, target: &str, components: &str, more: &str) -> String {
        let input = format!("({components});created={CREATED};keyid=\"test-shared-secret\"{more}");
        let bytes = request_with(fields, target, &format!("s={input}"), "s=:AA==:");
        let mut head = RequestHead::new();
        head.parse(bytes.as_bytes(), &HeadLimits::REQUEST).unwrap();
        let request_parts = Signed { head: &head, bytes: bytes.as_bytes(), secure: false };
        let given = given(request_parts).unwrap();
        let base = base(request_parts, &given[0].input).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        let tag = hmac::sign(&key, base.as_bytes());
        let mut value = sfv::DictSerializer::new();
        let _ = value.bare_item(sfv::KeyRef::from_str("s").unwrap(), tag.as_ref());
        request_with(fields, target, &format!("s={input}"), &value.finish().unwrap())
    }

    /// Whether a request with this digest, signed over it by this name, has a body that is to be
    /// compared; `None`: it is refused.
    fn compares(digest: &str, component: &str) -> Option<bool> {
        let field = format!("Content-Digest: {digest}\r\n");
        let bytes = signed_with(&field, "/", &format!("\"@method\" {component}"), "");
        let mut head = RequestHead::new();
        head.parse(bytes.as_bytes(), &HeadLimits::REQUEST).unwrap();
        let request = Signed { head: &head, bytes: bytes.as_bytes(), secure: false };
        signature(&[]).signer(request, CREATED).map(|signer| signer.content.is_some())
    }

    #[test]
    fn the_example_of_the_rfc_verifies() {
        let plain = signature(&[]);
        let bytes = request("/foo?param=Value&Pet=dog", INPUT, VALUE);
        assert!(judged(&plain, &bytes, CREATED + 10));
        assert!(!judged(&plain, &bytes.replace("example.com", "example.org"), CREATED));
        assert!(!judged(&plain, &bytes.replace("02:07:55", "02:07:56"), CREATED));
        assert!(!judged(&plain, &bytes.replace("test-shared-secret", "other"), CREATED));
        assert!(!judged(&plain, &bytes.replace("pxcQ", "pxcR"), CREATED));
        assert!(!judged(&plain, &bytes.replace("sig-b25=(", "sig-b26=("), CREATED), "no value");
    }

    #[test]
    fn it_must_be_of_now() {
        let plain = signature(&[]);
        let bytes = request("/", INPUT, VALUE);
        assert!(judged(&plain, &bytes, CREATED + 300) && !judged(&plain, &bytes, CREATED + 301));
        assert!(judged(&plain, &bytes, CREATED - 60) && !judged(&plain, &bytes, CREATED - 61));
        let expires = signed("/", "\"@method\"", &format!(";expires={}", CREATED + 5));
        assert!(judged(&plain, &expires, CREATED + 5) && !judged(&plain, &expires, CREATED + 6));
        let odd = signed("/", "\"@method\"", ";expires=\"soon\"");
        assert!(!judged(&plain, &odd, CREATED));
    }

    #[test]
    fn it_must_cover_what_is_asked_for_and_nothing_unknown() {
        let strict = signature(&["@method", "@target-uri", "content-digest"]);
        assert!(!judged(&strict, &request("/", INPUT, VALUE), CREATED));
        let without_digest = signed("/a?b", "\"@method\" \"@target-uri\"", "");
        assert!(!judged(&strict, &without_digest, CREATED), "it has a body");
        let bodiless = without_digest.replace("Content-Length: 18\r\n", "");
        assert!(judged(&strict, &bodiless, CREATED));
        assert!(!judged(&strict, &bodiless.replace("/a?b", "/a?c"), CREATED));
        assert!(!judged(&strict, &bodiless.replace("POST", "PUT"), CREATED));
        let algorithm = signed("/", "\"@method\"", ";alg=\"hmac-sha256\"");
        assert!(judged(&signature(&[]), &algorithm, CREATED));
        let other = signed("/", "\"@method\"", ";alg=\"ed25519\"");
        assert!(!judged(&signature(&[]), &other, CREATED));
    }

    #[test]
    fn a_covered_digest_is_one_to_compare_the_body_with() {
        let sha256 = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
        let both = format!("md5=:AA==:, {sha256}");
        for digest in [sha256, &both] {
            assert_eq!(compares(digest, "\"content-digest\""), Some(true));
            assert_eq!(compares(digest, ""), Some(false), "what is not covered is anybody's");
        }
        for digest in ["md5=:AA==:", "sha-256=:AA==:", "sha-256=x", "=", ""] {
            assert_eq!(compares(digest, "\"content-digest\""), None, "{digest}");
            assert_eq!(compares(digest, ""), Some(false), "{digest}");
        }
        // In another case it would pass uncompared.
        let field = format!("Content-Digest: {sha256}\r\n");
        for (component, known) in [("content-digest", true), ("Content-Digest", false)] {
            let input = format!("s=(\"{component}\")");
            let bytes = request_with(&field, "/", &input, "s=:AA==:");
            let mut head = RequestHead::new();
            head.parse(bytes.as_bytes(), &HeadLimits::REQUEST).unwrap();
            let request = Signed { head: &head, bytes: bytes.as_bytes(), secure: false };
            let given = given(request).unwrap();
            assert_eq!(base(request, &given[0].input).is_some(), known, "{component}");
        }
    }

    #[test]
    fn every_component_counts() {
        let plain = signature(&[]);
        for (component, before, after) in [
            ("@method", "POST", "PUT"),
            ("@authority", "example.com", "example.net"),
            ("@path", "/p/q", "/p/r"),
            ("@query", "a=1", "a=2"),
            ("@request-target", "a=1", "a=2"),
            ("@target-uri", "/p/q", "/p/r"),
            ("content-type", "application/json", "application/xml"),
        ] {
            let bytes = signed("/p/q?a=1&b=2", &format!("\"{component}\""), "");
            assert!(judged(&plain, &bytes, CREATED), "{component}");
            assert!(!judged(&plain, &bytes.replacen(before, after, 1), CREATED), "{component}");
        }
        let param = signed("/p/q?a=1&b=%C3%a9+x", "\"@query-param\";name=\"b\"", "");
        assert!(judged(&plain, &param, CREATED));
        assert!(judged(&plain, &param.replacen("a=1", "a=2", 1), CREATED), "another parameter");
        assert!(!judged(&plain, &param.replacen("b=%C3", "b=%C4", 1), CREATED));
        assert!(!judged(&plain, &param.replacen("a=1", "b=1", 1), CREATED), "twice");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_no_signature(input in "\\PC{0,60}", value in "\\PC{0,60}") {
            let ascii = |text: &str| text.chars().filter(char::is_ascii).collect::<String>();
            let bytes = request("/", ascii(&input).trim(), ascii(&value).trim());
            let mut head = RequestHead::new();
            if head.parse(bytes.as_bytes(), &HeadLimits::REQUEST) == Ok(Progress::Complete) {
                prop_assert!(!judged(&signature(&[]), &bytes, CREATED));
            }
        }
    }
}
