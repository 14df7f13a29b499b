//! Where the load goes: the URL, and the request as the bytes that are sent again and again.

use std::net::{SocketAddr, ToSocketAddrs};

/// A parsed `http://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// For the `Host` field.
    pub authority: String,
    pub path: String,
}

impl Target {
    /// Takes `http://host[:port][/path][?query]` and resolves the host.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| format!("{url}: write the URL as http://HOST[:PORT]/PATH"))?;
        let cut = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        let path = path.split('#').next().unwrap_or("");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let with_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let address = with_port
            .to_socket_addrs()
            .map_err(|error| format!("{url}: cannot find {authority:?}: {error}"))?
            .next()
            .ok_or_else(|| format!("{url}: {authority:?} has no address"))?;
        Ok(Self { address, authority: authority.to_owned(), path })
    }
}

/// Builds the bytes of one request. `headers` are lines like `Name: value`; a `Host` or
/// `Content-Length` among them replaces ours.
pub fn request(target: &Target, method: &str, headers: &[String], body_bytes: usize) -> Vec<u8> {
    let has = |name: &str| {
        headers.iter().any(|line| {
            line.split_once(':').is_some_and(|(given, _)| given.trim().eq_ignore_ascii_case(name))
        })
    };
    let mut out = format!("{method} {} HTTP/1.1\r\n", target.path);
    if !has("host") {
        out += &format!("Host: {}\r\n", target.authority);
    }
    for line in headers {
        out += line.trim();
        out += "\r\n";
    }
    if body_bytes > 0 && !has("content-length") {
        out += &format!("Content-Length: {body_bytes}\r\n");
    }
    out += "\r\n";
    let mut out = out.into_bytes();
    out.resize(out.len() + body_bytes, b'x');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let target = Target::parse("http://127.0.0.1:8080/a/b?c=d#e").unwrap();
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(target.path, "/a/b?c=d");
        let target = Target::parse("http://127.0.0.1?x").unwrap();
        assert_eq!((target.address.port(), target.path.as_str()), (80, "/?x"));
        assert_eq!(Target::parse("http://[::1]:81").unwrap().address.port(), 81);
        assert!(Target::parse("https://127.0.0.1/").unwrap_err().contains("http://"));
    }

    #[test]
    fn the_users_host_replaces_ours() {
        let target = Target::parse("http://127.0.0.1:81/").unwrap();
        let bytes = request(&target, "POST", &["host: example.org".into()], 3);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "POST / HTTP/1.1\r\nhost: example.org\r\nContent-Length: 3\r\n\r\nxxx");
        let text = String::from_utf8(request(&target, "GET", &[], 0)).unwrap();
        assert_eq!(text, "GET / HTTP/1.1\r\nHost: 127.0.0.1:81\r\n\r\n");
    }
}
