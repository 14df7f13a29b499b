//! The request as the upstream gets it: re-serialised from the parsed head, with the gateway's own
//! fields set after everything hop-by-hop is gone (RFC 9110 §7.6).

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use contract::record::Reason;
use contract::snapshot::HostHeader;

use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{Framing, Name, RequestHead, write};
use crate::plan::{Plan, Target, Upstream};

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
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The peer of the connection, or whom the PROXY protocol named.
    pub address: SocketAddr,
    /// Its forwarding fields are believed.
    pub trusted: bool,
    /// Also send `Forwarded`.
    pub forwarded: bool,
}

/// What a head is written from.
pub struct Outbound<'a> {
    pub plan: &'a Plan,
    pub head: &'a RequestHead,
    pub bytes: &'a [u8],
    pub path: &'a [u8],
    pub client: Client,
    pub request_id: &'a RequestId,
    pub upgrade: Option<&'a [u8]>,
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
    pub fn write(&self, out: &mut Vec<u8>, upstream: &Upstream, target: &Target) {
        let (head, bytes) = (self.head, self.bytes);
        write::request_line(out, head.method(bytes), self.path, head.query(bytes));
        let authority = head.authority().map(|span| span.of(bytes));
        match &upstream.host_header {
            HostHeader::Preserve => {
                write::field(out, b"Host", authority.unwrap_or(target.name.as_bytes()));
            }
            HostHeader::Target => write::field(out, b"Host", target.name.as_bytes()),
            HostHeader::Literal(host) => write::field(out, b"Host", host.as_bytes()),
        }
        let mut seen = Seen::default();
        for field in &head.fields {
            let value = field.value.of(bytes);
            match field.id {
                Name::Other => {
                    let name = field.name.of(bytes);
                    if !field.drop && (self.client.trusted || !is_identity(name)) {
                        write::field(out, name, value);
                    }
                    continue;
                }
                // Written anew below or above, or by the framing.
                Name::Host | Name::ContentLength | Name::XRequestId | Name::Expect => continue,
                Name::Via => {
                    seen.via = true;
                    continue;
                }
                Name::XForwardedFor => {
                    seen.forwarded_for = true;
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
                write::field(out, field.name.of(bytes), value);
            }
        }
        self.own_fields(out, &seen, authority);
        match head.framing {
            Framing::None => {}
            Framing::Length(length) => write::field_decimal(out, b"Content-Length", length),
            Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        }
        match self.upgrade {
            Some(token) => {
                write::field(out, b"Upgrade", token);
                out.extend_from_slice(b"Connection: upgrade\r\n");
            }
            None if head.te_trailers => {
                out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
            }
            None => {}
        }
        out.extend_from_slice(write::CRLF);
    }

    fn own_fields(&self, out: &mut Vec<u8>, seen: &Seen, authority: Option<&[u8]>) {
        out.extend_from_slice(b"X-Forwarded-For: ");
        if seen.forwarded_for && self.client.trusted {
            self.join(out, Name::XForwardedFor);
        }
        write_ip(out, self.client.address.ip());
        out.extend_from_slice(write::CRLF);
        if !seen.proto {
            out.extend_from_slice(b"X-Forwarded-Proto: http\r\n");
        }
        if !seen.host
            && let Some(authority) = authority
        {
            write::field(out, b"X-Forwarded-Host", authority);
        }
        if self.client.forwarded {
            out.extend_from_slice(b"Forwarded: ");
            if seen.forwarded {
                self.join(out, Name::Forwarded);
            }
            write_forwarded(out, self.client.address.ip(), authority);
            out.extend_from_slice(write::CRLF);
        }
        out.extend_from_slice(b"Via: ");
        if seen.via {
            self.join(out, Name::Via);
        }
        out.extend_from_slice(via_version(self.head));
        out.extend_from_slice(self.plan.node.via.as_bytes());
        out.extend_from_slice(write::CRLF);
        write::field(out, b"X-Request-Id", self.request_id.bytes());
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
fn is_identity(name: &[u8]) -> bool {
    const CONSUMER: &[u8] = b"x-consumer-";
    matches!(name.first(), Some(b'x' | b'X'))
        && (name.get(..CONSUMER.len()).is_some_and(|start| start.eq_ignore_ascii_case(CONSUMER))
            || name.eq_ignore_ascii_case(b"x-forwarded-client-cert"))
}

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
fn write_forwarded(out: &mut Vec<u8>, ip: IpAddr, authority: Option<&[u8]>) {
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
    out.extend_from_slice(b";proto=http");
}
