//! Where the load goes: the URL, and the request as it is sent again and again.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use memchr::memmem;

use crate::faults::origin::{ID_DIGITS, ID_FIELD};
use crate::h2::MAX_FRAME_BYTES;

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// For the `Host` field.
    pub authority: String,
    pub path: String,
    /// `https`.
    pub secure: bool,
}

impl Target {
    /// Takes `http://host[:port][/path][?query]`, or `https`, and resolves the host.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (secure, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(format!("{url}: write the URL as http://HOST[:PORT]/PATH, or https")),
        };
        let cut = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        let path = path.split('#').next().unwrap_or("");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let usual = if secure { 443 } else { 80 };
        let with_port =
            if has_port { authority.to_owned() } else { format!("{authority}:{usual}") };
        let address = with_port
            .to_socket_addrs()
            .map_err(|error| format!("{url}: cannot find {authority:?}: {error}"))?
            .next()
            .ok_or_else(|| format!("{url}: {authority:?} has no address"))?;
        Ok(Self { address, authority: authority.to_owned(), path, secure })
    }

    /// The name or address in the authority.
    pub fn host(&self) -> &str {
        let end = self.authority.rfind(':').filter(|&at| !self.authority[at..].contains(']'));
        let host = self.authority.get(..end.unwrap_or(self.authority.len())).unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// What is asked, over and over.
#[derive(Clone, Debug)]
pub struct Message {
    pub method: String,
    /// Lines like `Name: value`; a `Host` or `Content-Length` among them replaces ours.
    pub headers: Vec<String>,
    pub body_bytes: usize,
    /// This body instead. HTTP/1.1 only.
    pub body: Option<Arc<[u8]>>,
    pub http2: bool,
    /// A unary call with a message of `body_bytes`.
    pub grpc: bool,
    /// Each request carries an id, and its answer must bring it back as `bench origin --fault`
    /// does. HTTP/1.1 only.
    pub checked: bool,
    /// A field that has another value in each request. HTTP/1.1 only.
    pub rotation: Option<Arc<Rotation>>,
}

/// A field whose values are sent in turn.
#[derive(Debug)]
pub struct Rotation {
    name: String,
    values: Vec<String>,
    next: AtomicUsize,
}

impl Rotation {
    pub fn new(name: &str, values: Vec<String>) -> Self {
        Self { name: name.to_owned(), values, next: AtomicUsize::new(0) }
    }

    /// Writes `request`, which ends with its head, with the next value in it.
    pub fn write(&self, request: &[u8], out: &mut Vec<u8>) {
        let next = self.next.fetch_add(1, Relaxed) % self.values.len().max(1);
        out.extend_from_slice(request.strip_suffix(b"\r\n").unwrap_or(request));
        let value = self.values.get(next).map_or("", |value| value);
        for part in [self.name.as_str(), ": ", value] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

impl Default for Message {
    fn default() -> Self {
        let method = "GET".to_owned();
        let headers = Vec::new();
        Self {
            method,
            headers,
            body_bytes: 0,
            body: None,
            http2: false,
            grpc: false,
            checked: false,
            rotation: None,
        }
    }
}

impl Message {
    /// Refuses what cannot be sent.
    pub fn check(&self, target: &Target) -> Result<(), String> {
        if let Some(line) = self.headers.iter().find(|line| !line.contains(':')) {
            return Err(format!("{line:?} is not like 'Name: value'"));
        }
        let fields = self.fields(target);
        let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        if self.http2 && bytes > MAX_FRAME_BYTES {
            return Err(format!("{bytes} bytes of header fields do not fit into one frame"));
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|line| {
            line.split_once(':').is_some_and(|(given, _)| given.trim().eq_ignore_ascii_case(name))
        })
    }

    /// The bytes of one HTTP/1.1 request.
    pub fn http1(&self, target: &Target) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, target.path);
        if !self.has("host") {
            out += &format!("Host: {}\r\n", target.authority);
        }
        for line in &self.headers {
            out += line.trim();
            out += "\r\n";
        }
        if self.checked {
            out += &format!("{ID_FIELD}: {}\r\n", "0".repeat(ID_DIGITS));
        }
        let bytes = self.body.as_ref().map_or(self.body_bytes, |body| body.len());
        if bytes > 0 && !self.has("content-length") {
            out += &format!("Content-Length: {bytes}\r\n");
        }
        out += "\r\n";
        let mut out = out.into_bytes();
        match &self.body {
            Some(body) => out.extend_from_slice(body),
            None => out.resize(out.len() + self.body_bytes, b'x'),
        }
        out
    }

    /// Where in [`Message::http1`] the digits of the id begin; `None`: ids are not checked.
    pub fn id_at(&self, target: &Target) -> Option<usize> {
        let request = self.checked.then(|| self.http1(target))?;
        Some(memmem::find(&request, ID_FIELD.as_bytes())? + ID_FIELD.len() + 2)
    }

    /// The fields of one HTTP/2 request (RFC 9113 §8.3.1).
    pub fn fields(&self, target: &Target) -> Vec<(String, String)> {
        let method = if self.grpc { "POST" } else { &self.method };
        let mut authority = target.authority.clone();
        let mut more = Vec::new();
        for line in &self.headers {
            let Some((name, value)) = line.split_once(':') else { continue };
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
            match name.as_str() {
                "host" => authority = value,
                // There is no such thing in HTTP/2 (RFC 9113 §8.2.2).
                "connection" | "keep-alive" | "transfer-encoding" | "upgrade" => {}
                _ => more.push((name, value)),
            }
        }
        let mut fields = vec![
            (":method".to_owned(), method.to_owned()),
            (":scheme".to_owned(), if target.secure { "https" } else { "http" }.to_owned()),
            (":authority".to_owned(), authority),
            (":path".to_owned(), target.path.clone()),
        ];
        let mut add = |name: &str, value: &str| {
            if !self.has(name) {
                fields.push((name.to_owned(), value.to_owned()));
            }
        };
        if self.grpc {
            // The specification "gRPC over HTTP2" asks for both.
            add("te", "trailers");
            add("content-type", "application/grpc");
        } else if self.body_bytes > 0 {
            add("content-length", &self.body_bytes.to_string());
        }
        fields.extend(more);
        fields
    }

    /// The body of one HTTP/2 request: with gRPC a message behind its prefix.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.grpc {
            body.push(0);
            body.extend_from_slice(&(self.body_bytes as u32).to_be_bytes());
        }
        body.resize(body.len() + self.body_bytes, b'x');
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let target = Target::parse("http://127.0.0.1:8080/a/b?c=d#e").unwrap();
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(target.path, "/a/b?c=d");
        assert_eq!(target.host(), "127.0.0.1");
        let target = Target::parse("http://127.0.0.1?x").unwrap();
        assert_eq!((target.address.port(), target.path.as_str()), (80, "/?x"));
        assert!(!target.secure);
        let target = Target::parse("http://[::1]:81").unwrap();
        assert_eq!((target.address.port(), target.host()), (81, "::1"));
        let target = Target::parse("https://[::1]").unwrap();
        assert_eq!((target.address.port(), target.host(), target.secure), (443, "::1", true));
        assert!(Target::parse("ftp://127.0.0.1/").unwrap_err().contains("http://"));
    }

    #[test]
    fn the_users_host_replaces_ours() {
        let target = Target::parse("http://127.0.0.1:81/").unwrap();
        let message = Message {
            method: "POST".to_owned(),
            headers: vec!["host: example.org".into(), "X-Y: Z".into()],
            body_bytes: 3,
            ..Message::default()
        };
        let text = String::from_utf8(message.http1(&target)).unwrap();
        let head = "POST / HTTP/1.1\r\nhost: example.org\r\nX-Y: Z\r\nContent-Length: 3\r\n";
        assert_eq!(text, format!("{head}\r\nxxx"));
        let text = String::from_utf8(Message::default().http1(&target)).unwrap();
        assert_eq!(text, "GET / HTTP/1.1\r\nHost: 127.0.0.1:81\r\n\r\n");
        let fields = message.fields(&target);
        let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            fields,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "example.org"),
                (":path", "/"),
                ("content-length", "3"),
                ("x-y", "Z"),
            ]
        );
    }

    #[test]
    fn a_grpc_call() {
        let target = Target::parse("https://127.0.0.1/pkg.Service/Call").unwrap();
        let message = Message { body_bytes: 3, grpc: true, http2: true, ..Message::default() };
        assert_eq!(message.body(), b"\0\0\0\0\x03xxx");
        let fields = message.fields(&target);
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/pkg.Service/Call"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ] {
            assert!(fields.contains(&(name.to_owned(), value.to_owned())), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let target = Target::parse("http://127.0.0.1/").unwrap();
        let with =
            |line: String, http2| Message { headers: vec![line], http2, ..Message::default() };
        assert!(with("nonsense".to_owned(), false).check(&target).is_err());
        let long = format!("x: {}", "y".repeat(20_000));
        assert!(with(long.clone(), true).check(&target).is_err());
        assert!(with(long, false).check(&target).is_ok());
    }
}
