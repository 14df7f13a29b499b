//! The request as the upstream gets it: re-serialised from the parsed head, with the gateway's own
//! fields set after everything hop-by-hop is gone (RFC 9110 §7.6).

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use contract::record::Reason;
use contract::snapshot::HostHeader;

use crate::answer::Edit;
use crate::auth::Identity;
use crate::auth::credentials::Hidden;
use crate::grpc;
use crate::http2::Encoder;
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{Dialect, Framing, HeadWriter, Name, RequestHead, Version, write};
use crate::plan::{Plan, Target, Upstream};
use crate::serve::Secured;
use crate::serve::websocket;
use crate::shape::FieldRules;

/// The id of a request: the client's, where it sent a sane one, else ours.
#[derive(Clone, Copy)]
pub struct RequestId {
    len: u8,
    text: [u8; limits::REQUEST_ID],
}

impl RequestId {
    pub fn from_words(words: [u64; 2]) -> RequestId {
        let mut id = RequestId { len: 32, text: [0; limits::REQUEST_ID] };
        let value = u128::from(words[0]) << 64 | u128::from(words[1]);
        for (at, slot) in id.text[..32].iter_mut().enumerate() {
            *slot = b"0123456789abcdef"[(value >> (124 - 4 * at)) as usize & 15];
        }
        id
    }

    /// A client's id, if it is short and of characters that need escaping nowhere.
    pub fn from_client(value: &[u8]) -> Option<RequestId> {
        let sane = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(b);
        if value.is_empty() || value.len() > limits::REQUEST_ID || !value.iter().all(sane) {
            return None;
        }
        let mut id = RequestId { len: value.len() as u8, text: [0; limits::REQUEST_ID] };
        id.text[..value.len()].copy_from_slice(value);
        Some(id)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

/// What the connection knows of its client.
#[derive(Clone, Debug)]
pub struct Client {
    /// The peer of the connection, or whom the PROXY protocol named.
    pub address: SocketAddr,
    /// Where it connected to.
    pub listener: SocketAddr,
    /// Its forwarding fields are believed.
    pub trusted: bool,
    /// Also send `Forwarded`.
    pub forwarded: bool,
    /// What the connection's handshake has settled; `None` on clear text.
    pub tls: Option<Rc<Secured>>,
    /// The request came as early data (RFC 8470).
    pub early: bool,
}

/// What a head is written from.
pub struct Outbound<'a> {
    pub plan: &'a Plan,
    pub head: &'a RequestHead,
    pub bytes: &'a [u8],
    pub path: &'a [u8],
    pub client: &'a Client,
    /// Who calls, where that is known.
    pub identity: Option<&'a Identity>,
    pub hidden: Option<&'a Hidden>,
    /// Our own credential, in place of the client's.
    pub authorization: Option<&'a [u8]>,
    pub request_id: &'a RequestId,
    pub upgrade: Option<&'a [u8]>,
    /// How the body goes out.
    pub framing: Framing,
    /// In place of the client's, where the body is translated.
    pub content_type: Option<&'a [u8]>,
    /// What is left of the client's deadline, in milliseconds (`grpc-timeout`).
    pub timeout_ms: Option<u64>,
    /// A gRPC call, whose deadline is ours to tell.
    pub is_call: bool,
    /// A field that tells the deadline as well, lower case.
    pub deadline_header: Option<&'a str>,
    /// A copy for another upstream, which is told so.
    pub mirrored: bool,
    /// What the route changes.
    pub edit: Option<&'a Edit>,
    /// Its rules for fields; which of them hold stands in `edit`.
    pub rules: Option<&'a FieldRules>,
}

impl Outbound<'_> {
    /// Whether the request has passed this gateway before (RFC 9110 §7.6.3).
    ///
    /// # Errors
    /// 508 when `Via` names this gateway.
    pub fn check_loop(&self) -> Result<(), LocalReply> {
        let own = self.plan.node.via.as_bytes();
        let passed = self.head.fields.iter().filter(|field| field.id == Name::Via).any(|field| {
            field.value.of(self.bytes).split(|b| *b == b',').any(|entry| {
                let mut words =
                    entry.split(|b| *b == b' ' || *b == b'\t').filter(|word| !word.is_empty());
                words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(own))
            })
        });
        if passed { Err(LocalReply::closing(508, Reason::Loop)) } else { Ok(()) }
    }

    /// Appends the head for `target`.
    pub fn write(&self, out: &mut Vec<u8>, dialect: Dialect, upstream: &Upstream, target: &Target) {
        let (head, bytes) = (self.head, self.bytes);
        let authority = head.authority().map(|span| span.of(bytes));
        let host = match &upstream.host_header {
            HostHeader::Preserve => authority.unwrap_or(target.name.as_bytes()),
            HostHeader::Target => target.name.as_bytes(),
            HostHeader::Literal(host) => host.as_bytes(),
        };
        let host = self.edit.and_then(|edit| edit.host.as_deref()).unwrap_or(host);
        match dialect {
            Dialect::Http1 => {
                write::request_line(out, self.method(), self.path, self.query());
                write::field(out, b"Host", host);
            }
            Dialect::Http2 => self.pseudo_fields(out, upstream, host),
        }
        let out = &mut HeadWriter::new(out, dialect);
        let mut seen = Seen::default();
        let shaped = self.rules.zip(self.edit);
        // The upstream has a credential of its own.
        let except = self.authorization.map(|_| Name::Authorization);
        for field in &head.fields {
            let value = field.value.of(bytes);
            if self.edit.is_some_and(|edit| edit.drops(field.name.of(bytes))) {
                continue;
            }
            if let Some((rules, edit)) = shaped
                && !rules.pass(&edit.judged, field, bytes, except, out)
            {
                continue;
            }
            match field.id {
                Name::Other => {
                    let name = field.name.of(bytes);
                    if !field.drop && self.passes(name, dialect) {
                        out.field(name, value);
                    }
                    continue;
                }
                // Written anew below or above, or by the framing.
                Name::Host | Name::ContentLength | Name::XRequestId | Name::Expect => continue,
                Name::Authorization if self.authorization.is_some() => continue,
                // Written anew, as one line.
                Name::Cookie if self.hidden.is_some_and(|hidden| hidden.cookies.is_some()) => {
                    continue;
                }
                Name::Via => {
                    seen.via = true;
                    continue;
                }
                Name::XForwardedFor => {
                    seen.forwarded_for = true;
                    continue;
                }
                Name::ContentType if field.forwarded() => {
                    out.field(b"Content-Type", self.content_type.unwrap_or(value));
                    continue;
                }
                Name::XForwardedProto if self.client.trusted => seen.proto = true,
                Name::XForwardedHost if self.client.trusted => seen.host = true,
                Name::Forwarded if self.client.forwarded && self.client.trusted => {
                    seen.forwarded = true;
                    continue;
                }
                Name::XForwardedProto
                | Name::XForwardedHost
                | Name::XForwardedPort
                | Name::XRealIp
                | Name::Forwarded
                    if !self.client.trusted =>
                {
                    continue;
                }
                _ => {}
            }
            if field.forwarded() {
                out.field(field.name.of(bytes), value);
            }
        }
        self.own_fields(out, &seen, authority);
        for (name, value) in self.edit.map_or(&[][..], |edit| &edit.fields) {
            out.field(name, value);
        }
        if let Some((rules, edit)) = shaped {
            rules.finish(edit, except, out);
        }
        match self.framing {
            _ if self.upgrade.is_some() => {}
            // RFC 9110 §8.6: what is a POST by now says that it has no body.
            Framing::None if self.is_made_of_none() => out.field(b"Content-Length", b"0"),
            Framing::None => {}
            Framing::Length(length) => out.field_decimal(b"Content-Length", length),
            Framing::Chunked if dialect == Dialect::Http2 => {}
            Framing::Chunked => out.field(b"Transfer-Encoding", b"chunked"),
        }
        match (dialect, self.upgrade) {
            (Dialect::Http1, Some(token)) => {
                out.field(b"Upgrade", token);
                out.field(b"Connection", b"upgrade");
                if head.version == Version::V20 && token.eq_ignore_ascii_case(b"websocket") {
                    // HTTP/2 has no key (RFC 8441 §5), so the gateway makes one and judges the answer.
                    out.field(b"Sec-WebSocket-Key", &websocket::key(self.request_id.bytes()));
                }
            }
            (Dialect::Http1, None) if head.te_trailers => {
                out.field(b"TE", b"trailers");
                out.field(b"Connection", b"TE");
            }
            (Dialect::Http2, None) if head.te_trailers => out.field(b"te", b"trailers"),
            _ => {}
        }
        out.end();
    }

    /// Whether the method was made one that usually has a body.
    fn is_made_of_none(&self) -> bool {
        let method = self.edit.and_then(|edit| edit.method.as_deref());
        matches!(method, Some(b"POST" | b"PUT" | b"PATCH"))
    }

    fn method(&self) -> &[u8] {
        let edited = self.edit.and_then(|edit| edit.method.as_deref());
        edited.unwrap_or_else(|| self.head.method(self.bytes))
    }

    /// The route's query, or the client's without credentials that are hidden.
    fn query(&self) -> Option<&[u8]> {
        if let Some(query) = self.edit.and_then(|edit| edit.query.as_deref()) {
            return Some(query).filter(|query| !query.is_empty());
        }
        match self.hidden.and_then(|hidden| hidden.query.as_deref()) {
            Some([]) => None,
            Some(query) => Some(query),
            None => self.head.query(self.bytes),
        }
    }

    /// RFC 9113 §8.3.1; for an upgrade the extended CONNECT of RFC 8441 §4.
    fn pseudo_fields(&self, out: &mut Vec<u8>, upstream: &Upstream, host: &[u8]) {
        let method = if self.upgrade.is_some() { b"CONNECT" } else { self.method() };
        Encoder::field(out, b":method", method);
        if let Some(token) = self.upgrade {
            Encoder::field(out, b":protocol", &token.to_ascii_lowercase());
        }
        let scheme: &[u8] = if upstream.tls.is_some() { b"https" } else { b"http" };
        Encoder::field(out, b":scheme", scheme);
        Encoder::field(out, b":authority", host);
        let path = if self.path.is_empty() { b"/" } else { self.path };
        match self.query() {
            None => Encoder::field(out, b":path", path),
            Some(query) => Encoder::field(out, b":path", &[path, b"?", query].concat()),
        }
    }

    /// Whether a field that the gateway does not know goes on.
    fn passes(&self, name: &[u8], dialect: Dialect) -> bool {
        if matches!(name.first(), Some(b'x' | b'X')) && is_identity(name) {
            // A certificate that the gateway saw itself goes before anyone's word.
            let certificate = name.len() == CERTIFICATE.len();
            let own = self.client.tls.as_ref().is_some_and(|tls| tls.peer.is_some());
            // And who we know goes before what anyone says of them.
            let known = self.identity.is_some() && !certificate;
            return self.client.trusted && !(certificate && own) && !known;
        }
        if self.identity.is_some_and(|identity| identity.tells(name)) {
            return false;
        }
        if name.len() == TIMEOUT.len() && name.eq_ignore_ascii_case(TIMEOUT) {
            return !self.is_call;
        }
        if let Some(told) = self.deadline_header
            && self.timeout_ms.is_some()
            && name.eq_ignore_ascii_case(told.as_bytes())
        {
            return false;
        }
        if self.mirrored && name.eq_ignore_ascii_case(MIRROR) {
            return false;
        }
        if name.len() == WEBSOCKET_KEY.len() && name.eq_ignore_ascii_case(WEBSOCKET_KEY) {
            // Only HTTP/1's handshake has it; with HTTP/2's, ours goes in its place.
            return dialect == Dialect::Http1 && self.head.version != Version::V20;
        }
        !self.client.early || !name.eq_ignore_ascii_case(b"early-data")
    }

    fn own_fields(&self, out: &mut HeadWriter<'_>, seen: &Seen, authority: Option<&[u8]>) {
        let tls = self.client.tls.as_deref();
        let proto: &[u8] = if tls.is_some() { b"https" } else { b"http" };
        out.field_of(b"X-Forwarded-For", |out| {
            if seen.forwarded_for && self.client.trusted {
                self.join(out, Name::XForwardedFor);
            }
            write_ip(out, self.client.address.ip());
        });
        if !seen.proto {
            out.field(b"X-Forwarded-Proto", proto);
        }
        if !seen.host
            && let Some(authority) = authority
        {
            out.field(b"X-Forwarded-Host", authority);
        }
        if self.client.forwarded {
            out.field_of(b"Forwarded", |out| {
                if seen.forwarded {
                    self.join(out, Name::Forwarded);
                }
                write_forwarded(out, self.client.address.ip(), authority, proto);
            });
        }
        if let Some(cookies) = self.hidden.and_then(|hidden| hidden.cookies.as_deref())
            && !cookies.is_empty()
        {
            out.field(b"Cookie", cookies);
        }
        if let Some(identity) = self.identity {
            identity.write(out, self.authorization.is_none());
        }
        if let Some(authorization) = self.authorization {
            out.field(b"Authorization", authorization);
        }
        if let Some(certificate) = tls.and_then(|tls| tls.peer.as_ref()) {
            out.field(b"X-Forwarded-Client-Cert", certificate.xfcc.as_bytes());
        }
        if self.client.early {
            // RFC 8470 §5.1.
            out.field(b"Early-Data", b"1");
        }
        if let Some(timeout_ms) = self.timeout_ms {
            if self.is_call {
                out.field_of(b"grpc-timeout", |out| grpc::write_timeout(out, timeout_ms));
            }
            if let Some(name) = self.deadline_header {
                out.field_decimal(name.as_bytes(), timeout_ms);
            }
        }
        if self.mirrored {
            out.field(MIRROR, b"1");
        }
        out.field_of(b"Via", |out| {
            if seen.via {
                self.join(out, Name::Via);
            }
            out.extend_from_slice(via_version(self.head));
            out.extend_from_slice(self.plan.node.via.as_bytes());
        });
        out.field(b"X-Request-Id", self.request_id.bytes());
    }

    /// The values of all fields of that name, each with `, ` behind it.
    fn join(&self, out: &mut Vec<u8>, id: Name) {
        for field in self.head.fields.iter().filter(|field| field.id == id && !field.drop) {
            let value = field.value.of(self.bytes);
            if !value.is_empty() {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        }
    }
}

/// Whether a field claims who the client is: only the gateway and trusted proxies may (B-45).
pub fn is_identity(name: &[u8]) -> bool {
    const CONSUMER: &[u8] = b"x-consumer-";
    matches!(name.first(), Some(b'x' | b'X'))
        && (name.get(..CONSUMER.len()).is_some_and(|start| start.eq_ignore_ascii_case(CONSUMER))
            || name.eq_ignore_ascii_case(CERTIFICATE))
}

const CERTIFICATE: &[u8] = b"x-forwarded-client-cert";
const TIMEOUT: &[u8] = b"grpc-timeout";
const MIRROR: &[u8] = b"X-Sluice-Mirror";
const WEBSOCKET_KEY: &[u8] = b"sec-websocket-key";

#[derive(Default)]
struct Seen {
    via: bool,
    forwarded_for: bool,
    proto: bool,
    host: bool,
    forwarded: bool,
}

fn via_version(head: &RequestHead) -> &'static [u8] {
    match head.version.number() {
        10 => b"1.0 ",
        20 => b"2.0 ",
        _ => b"1.1 ",
    }
}

fn write_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            for (at, part) in v4.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                write::decimal(out, u64::from(part));
            }
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => write_ip(out, v4.into()),
            // Writing to a Vec cannot fail.
            None => drop(write!(out, "{v6}")),
        },
    }
}

/// One `Forwarded` element (RFC 7239 §4): IPv6 addresses and hosts with ports need quotes.
fn write_forwarded(out: &mut Vec<u8>, ip: IpAddr, authority: Option<&[u8]>, proto: &[u8]) {
    out.extend_from_slice(b"for=");
    if ip.is_ipv6() && ip.to_canonical().is_ipv6() {
        out.extend_from_slice(b"\"[");
        write_ip(out, ip);
        out.extend_from_slice(b"]\"");
    } else {
        write_ip(out, ip);
    }
    if let Some(authority) = authority {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(authority);
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(proto);
}
