//! Heads that came as HTTP/2 header blocks (RFC 9113 §8.3): the same [`RequestHead`] and
//! [`ResponseHead`] as HTTP/1 text gives, so that everything behind sees one kind of message.
//!
//! The block's syntax (names, values, pseudo-fields, connection-specific fields) was judged where
//! it was decoded, in [`crate::http2`]. What it means is judged here, by HTTP/1's rules.

use super::fields::{self, Field, Name};
use super::target::{self, Authority, Target};
use super::{
    BodyFraming, Framing, HeadLimits, MAX_METHOD, Refusal, RequestHead, ResponseHead,
    ResponseRefusal, Span, Version,
};

/// Name and value of each line of a block, pseudo-fields included.
pub type Lines<'a> = &'a [(Span, Span)];

/// The pseudo-fields of a request.
#[derive(Default)]
struct Pseudo {
    method: Option<Span>,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    protocol: Option<Span>,
}

impl RequestHead {
    /// Fills this head from the `lines` of a block whose texts are in `bytes`. `end`: no body
    /// follows. What needs other words in HTTP/1 (a joined `Cookie`, the method of an extended
    /// CONNECT) is appended to `bytes`.
    ///
    /// # Errors
    /// A [`Refusal`], as for a head of HTTP/1. On [`Refusal::ExpectationFailed`] alone, the head is
    /// filled in.
    pub fn read_http2(
        &mut self,
        bytes: &mut Vec<u8>,
        lines: Lines<'_>,
        end: bool,
        limits: &HeadLimits,
    ) -> Result<(), Refusal> {
        let mut pseudo = Pseudo::default();
        self.fields.clear();
        self.fields.reserve(lines.len());
        self.version = Version::V20;
        self.keep_alive = true;
        self.te_trailers = false;
        self.upgrade = None;
        let mut length = None;
        let mut host = None;
        let mut expect = None;
        let mut cookies = 0;
        for &(name, value) in lines {
            let text = name.of(bytes);
            if text.first() == Some(&b':') {
                let slot = match text {
                    b":method" => &mut pseudo.method,
                    b":scheme" => &mut pseudo.scheme,
                    b":authority" => &mut pseudo.authority,
                    b":path" => &mut pseudo.path,
                    b":protocol" => &mut pseudo.protocol,
                    _ => return Err(Refusal::Malformed("unknown pseudo-field")),
                };
                *slot = Some(value);
                continue;
            }
            if text.len() > limits.max_name {
                return Err(Refusal::HeadTooLarge);
            }
            let id = Name::classify(text);
            let mut drop = false;
            match id {
                Name::Other => {
                    drop = memchr::memchr(b'_', text).is_some();
                    if drop && !limits.drop_underscore {
                        return Err(Refusal::BadRequest("underscore in a field name"));
                    }
                }
                Name::Host if host.is_some() => {
                    return Err(Refusal::BadRequest("several Host lines"));
                }
                Name::Host => host = Some(value),
                Name::ContentLength if length.is_some() => {
                    return Err(Refusal::BadRequest("several Content-Length lines"));
                }
                Name::ContentLength => {
                    let number = fields::content_length(value.of(bytes));
                    length = Some(number.ok_or(Refusal::BadRequest("invalid Content-Length"))?);
                }
                Name::Te => self.te_trailers |= fields::lists(value.of(bytes), b"trailers"),
                Name::Cookie => cookies += 1,
                Name::Expect => expect = Some(value),
                _ => {}
            }
            self.fields.push(Field { name, value, id, drop });
        }
        if cookies > 1 {
            self.join_cookies(bytes);
        }
        self.framing = match length {
            Some(length) => Framing::Length(length),
            None if end => Framing::None,
            None => Framing::Chunked,
        };
        self.read_pseudo(bytes, &pseudo, host, limits)?;
        self.head_len = bytes.len();
        self.expect_continue = expect.is_some() && !self.framing.is_empty();
        if expect.is_some_and(|span| !span.of(bytes).eq_ignore_ascii_case(b"100-continue")) {
            self.expect_continue = false;
            return Err(Refusal::ExpectationFailed);
        }
        Ok(())
    }

    fn read_pseudo(
        &mut self,
        bytes: &mut Vec<u8>,
        pseudo: &Pseudo,
        host: Option<Span>,
        limits: &HeadLimits,
    ) -> Result<(), Refusal> {
        let method = pseudo.method.ok_or(Refusal::Malformed("no :method"))?;
        if method.len() > MAX_METHOD {
            return Err(Refusal::MethodTooLong);
        }
        if method.is_empty() || !method.of(bytes).iter().all(|&byte| fields::is_tchar(byte)) {
            return Err(Refusal::BadRequest("method is not a token"));
        }
        self.method = method;
        self.host = None;
        let authority = pseudo.authority.filter(|span| !span.is_empty());
        let site = match (authority, host) {
            (Some(authority), Some(host)) => {
                // RFC 9113 §8.3.1: a request whose Host differs is malformed.
                if !authority.of(bytes).eq_ignore_ascii_case(host.of(bytes)) {
                    return Err(Refusal::Malformed(":authority and Host differ"));
                }
                authority
            }
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return Err(Refusal::Malformed("no :authority")),
        };
        let site =
            Authority::parse(bytes, site).ok_or(Refusal::BadRequest("invalid :authority"))?;
        self.host = Some(site);
        self.site = Some(site);
        if method.of(bytes) == b"CONNECT" && pseudo.protocol.is_none() {
            if site.port.is_none() {
                return Err(Refusal::BadRequest("CONNECT needs host:port"));
            }
            self.target = Target::Authority(site.whole);
            return Ok(());
        }
        let scheme = pseudo.scheme.map(|span| span.of(bytes)).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(b"https") && !scheme.eq_ignore_ascii_case(b"http") {
            return Err(Refusal::Malformed(":scheme is neither http nor https"));
        }
        let path = pseudo.path.ok_or(Refusal::Malformed("no :path"))?;
        if path.len() > limits.max_line {
            return Err(Refusal::UriTooLong);
        }
        if let Some(protocol) = pseudo.protocol {
            // RFC 8441 §5: what HTTP/1 asks for with GET and Upgrade.
            if protocol.is_empty() || !protocol.of(bytes).iter().all(|&b| fields::is_tchar(b)) {
                return Err(Refusal::Malformed(":protocol is not a token"));
            }
            let start = bytes.len();
            bytes.extend_from_slice(b"GET");
            self.method = Span::at(start, bytes.len());
            self.upgrade = Some(protocol);
            self.framing = Framing::None;
        }
        if !matches!(path.of(bytes), [b'/', ..] | b"*") {
            return Err(Refusal::Malformed(":path does not begin with /"));
        }
        let method = self.method.of(bytes);
        (self.target, _) = target::parse(bytes, method, path).map_err(Refusal::BadRequest)?;
        Ok(())
    }

    /// RFC 9113 §8.2.3: crumbs become one field again, as HTTP/1 allows no more than one.
    fn join_cookies(&mut self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        let mut first = None;
        for at in 0..self.fields.len() {
            let Some(&Field { id: Name::Cookie, value, .. }) = self.fields.get(at) else {
                continue;
            };
            if first.is_none() {
                first = Some(at);
            } else {
                bytes.extend_from_slice(b"; ");
            }
            bytes.extend_from_within(value.start as usize..value.end as usize);
        }
        let joined = Span::at(start, bytes.len());
        let mut at = 0;
        self.fields.retain(|field| {
            let keep = field.id != Name::Cookie || Some(at) == first;
            at += 1;
            keep
        });
        if let Some(field) = self.fields.iter_mut().find(|field| field.id == Name::Cookie) {
            field.value = joined;
        }
    }
}

impl ResponseHead {
    /// Fills this head from the `lines` of a block whose texts are in `bytes`. `end`: no body
    /// follows.
    ///
    /// # Errors
    /// What is no valid answer.
    pub fn read_http2(
        &mut self,
        bytes: &[u8],
        lines: Lines<'_>,
        request_is_head: bool,
        end: bool,
    ) -> Result<(), ResponseRefusal> {
        self.fields.clear();
        self.fields.reserve(lines.len());
        self.status = 0;
        self.version = Version::V20;
        self.head_len = bytes.len();
        self.reason = Span::default();
        self.switching = false;
        self.keep_alive = true;
        let mut length = None;
        for &(name, value) in lines {
            let text = name.of(bytes);
            if text == b":status" {
                self.status = match value.of(bytes) {
                    [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                        u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
                    }
                    _ => return Err(ResponseRefusal::Invalid("malformed :status")),
                };
                continue;
            }
            let id = Name::classify(text);
            if id == Name::ContentLength {
                let number = fields::content_length(value.of(bytes));
                if length.is_some() {
                    return Err(ResponseRefusal::Invalid("several Content-Length lines"));
                }
                length = Some(number.ok_or(ResponseRefusal::Invalid("invalid Content-Length"))?);
            }
            self.fields.push(Field { name, value, id, drop: false });
        }
        if self.status < 100 || self.status == 101 {
            return Err(ResponseRefusal::Invalid("status that HTTP/2 does not have"));
        }
        let bodiless_status = self.status < 200 || self.status == 204;
        if bodiless_status {
            for field in &mut self.fields {
                field.drop |= field.id == Name::ContentLength;
            }
        }
        let bodiless = bodiless_status || request_is_head || self.status == 304;
        self.framing = match length {
            _ if bodiless => BodyFraming::None,
            Some(length) => BodyFraming::Length(length),
            None if end => BodyFraming::Length(0),
            // Its end will be told, as a last chunk tells it.
            None => BodyFraming::Chunked,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(lines: &[(&str, &str)]) -> (Vec<u8>, Vec<(Span, Span)>) {
        let mut bytes = Vec::new();
        let mut spans = Vec::new();
        let mut put = |text: &str| {
            let start = bytes.len();
            bytes.extend_from_slice(text.as_bytes());
            Span::at(start, bytes.len())
        };
        for (name, value) in lines {
            let name = put(name);
            spans.push((name, put(value)));
        }
        (bytes, spans)
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/x?y=1")];

    fn read(lines: &[(&str, &str)]) -> Result<(RequestHead, Vec<u8>), Refusal> {
        let (mut bytes, spans) = block(lines);
        let mut head = RequestHead::new();
        head.read_http2(&mut bytes, &spans, false, &HeadLimits::REQUEST)?;
        Ok((head, bytes))
    }

    #[test]
    fn a_request_reads_as_one_of_http_1() {
        let mut lines = GET.to_vec();
        lines.extend([("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2"), ("x", "y")]);
        let (head, bytes) = read(&lines).unwrap();
        assert_eq!(head.method(&bytes), b"GET");
        assert_eq!(head.path(&bytes), b"/x");
        assert_eq!(head.query(&bytes), Some(&b"y=1"[..]));
        assert_eq!(head.site.unwrap().whole.of(&bytes), b"a.test");
        assert_eq!(head.value(&bytes, Name::Cookie), Some(&b"a=1; b=2"[..]));
        assert_eq!(head.fields.iter().filter(|field| field.id == Name::Cookie).count(), 1);
        assert!(head.te_trailers);
        assert_eq!(head.framing, Framing::Chunked);
        assert_eq!(head.head_len, bytes.len());
    }

    #[test]
    fn what_http_1_could_not_carry_is_refused() {
        for (name, value) in [
            (":path", "/a b"),
            (":path", "x"),
            (":path", "/a\r\nx: y"),
            (":method", "GE T"),
            (":authority", "a.test/x"),
            (":authority", "u@a.test"),
            (":authority", ""),
            (":scheme", "ftp"),
        ] {
            let lines = GET.map(|line| if line.0 == name { (name, value) } else { line });
            assert!(
                matches!(read(&lines), Err(Refusal::BadRequest(_) | Refusal::Malformed(_))),
                "{name} {value:?}"
            );
        }
        let mut lines = GET.to_vec();
        lines.push(("host", "b.test"));
        assert!(read(&lines).is_err());
        lines.pop();
        lines.push(("content_length", "3"));
        assert!(read(&lines).is_err());
    }

    #[test]
    fn an_extended_connect_is_an_upgrade() {
        let mut lines =
            GET.map(|line| if line.0 == ":method" { (line.0, "CONNECT") } else { line });
        lines[0] = (":method", "CONNECT");
        let mut lines = lines.to_vec();
        lines.insert(1, (":protocol", "websocket"));
        let (head, bytes) = read(&lines).unwrap();
        assert_eq!(head.method(&bytes), b"GET");
        assert_eq!(head.upgrade.unwrap().of(&bytes), b"websocket");
        assert_eq!(head.framing, Framing::None);
    }

    #[test]
    fn answers_have_a_status_and_a_framing() {
        type Case<'a> = (&'a [(&'a str, &'a str)], bool, Result<BodyFraming, ()>);
        let cases: [Case<'_>; 6] = [
            (&[(":status", "200")], true, Ok(BodyFraming::Length(0))),
            (&[(":status", "200")], false, Ok(BodyFraming::Chunked)),
            (&[(":status", "200"), ("content-length", "7")], false, Ok(BodyFraming::Length(7))),
            (&[(":status", "204")], true, Ok(BodyFraming::None)),
            (&[(":status", "101")], false, Err(())),
            (&[("x", "y")], false, Err(())),
        ];
        for (lines, end, want) in cases {
            let (bytes, spans) = block(lines);
            let mut head = ResponseHead::new();
            let read = head.read_http2(&bytes, &spans, false, end).map_err(|_| ());
            assert_eq!(read.map(|()| head.framing), want, "{lines:?}");
        }
    }
}
