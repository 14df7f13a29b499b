//! The PROXY protocol, versions 1 and 2, from listed peers only
//! (HAProxy, `doc/proxy-protocol.txt`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits;

/// What has come of a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Valid so far.
    Partial,
    /// The header is `len` bytes long. `client` is `None` where it names no one (`UNKNOWN`,
    /// `LOCAL`): the peer itself is the client then.
    Complete { len: usize, client: Option<SocketAddr> },
}

/// The peer must begin with a PROXY header and did not: the connection is dropped without answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_MAX: usize = 107;

/// Reads the header at the start of `bytes`.
///
/// # Errors
/// [`Invalid`] as soon as the bytes cannot be a header.
pub fn parse(bytes: &[u8]) -> Result<Header, Invalid> {
    let signed = bytes.iter().zip(SIGNATURE).take_while(|(a, b)| a == b).count();
    if signed == SIGNATURE.len() {
        return parse_v2(bytes);
    }
    if signed == bytes.len() {
        return Ok(Header::Partial);
    }
    parse_v1(bytes)
}

fn parse_v1(bytes: &[u8]) -> Result<Header, Invalid> {
    const START: &[u8] = b"PROXY ";
    if bytes.iter().zip(START).any(|(a, b)| a != b) {
        return Err(Invalid);
    }
    let window = bytes.get(..bytes.len().min(V1_MAX)).unwrap_or_default();
    let Some(end) = memchr::memmem::find(window, b"\r\n") else {
        return if bytes.len() < V1_MAX { Ok(Header::Partial) } else { Err(Invalid) };
    };
    let line = window.get(START.len()..end).ok_or(Invalid)?;
    let line = std::str::from_utf8(line).map_err(|_| Invalid)?;
    let len = end + 2;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Header::Complete { len, client: None });
    }
    let mut words = line.split(' ');
    let family = words.next().ok_or(Invalid)?;
    let source: IpAddr = words.next().and_then(|word| word.parse().ok()).ok_or(Invalid)?;
    let target: IpAddr = words.next().and_then(|word| word.parse().ok()).ok_or(Invalid)?;
    let port = port(words.next())?;
    let _ = self::port(words.next())?;
    let fits = match family {
        "TCP4" => source.is_ipv4() && target.is_ipv4(),
        "TCP6" => source.is_ipv6() && target.is_ipv6(),
        _ => false,
    };
    if !fits || words.next().is_some() {
        return Err(Invalid);
    }
    Ok(Header::Complete { len, client: Some(SocketAddr::new(source, port)) })
}

fn port(word: Option<&str>) -> Result<u16, Invalid> {
    let word = word.filter(|word| word.bytes().all(|b| b.is_ascii_digit())).ok_or(Invalid)?;
    if word.len() > 1 && word.starts_with('0') {
        return Err(Invalid);
    }
    word.parse().map_err(|_| Invalid)
}

fn parse_v2(bytes: &[u8]) -> Result<Header, Invalid> {
    let Some(&[command, family, high, low]) = bytes.get(12..16).and_then(|b| b.first_chunk::<4>())
    else {
        return Ok(Header::Partial);
    };
    let body = usize::from(u16::from_be_bytes([high, low]));
    let len = 16 + body;
    if command >> 4 != 2 || command & 0xf > 1 || len > limits::PROXY_HEADER {
        return Err(Invalid);
    }
    let Some(addresses) = bytes.get(16..len) else { return Ok(Header::Partial) };
    if command & 0xf == 0 {
        return Ok(Header::Complete { len, client: None });
    }
    let client = match family {
        0x11 => {
            let part: &[u8; 12] = addresses.first_chunk().ok_or(Invalid)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *part;
            let ip = Ipv4Addr::new(a, b, c, d);
            Some(SocketAddr::new(ip.into(), u16::from_be_bytes([high, low])))
        }
        0x21 => {
            let part: &[u8; 36] = addresses.first_chunk().ok_or(Invalid)?;
            let ip: &[u8; 16] = part.first_chunk().ok_or(Invalid)?;
            let port = part.get(32..34).and_then(|b| b.first_chunk::<2>()).ok_or(Invalid)?;
            Some(SocketAddr::new(Ipv6Addr::from(*ip).into(), u16::from_be_bytes(*port)))
        }
        // UNSPEC: a proxy that does not know. Datagrams and UNIX sockets cannot have come here.
        0x00 => None,
        _ => return Err(Invalid),
    };
    Ok(Header::Complete { len, client })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(bytes: &[u8]) -> (usize, Option<SocketAddr>) {
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(Header::Partial), "cut at {cut}");
        }
        match parse(bytes) {
            Ok(Header::Complete { len, client }) => (len, client),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn version_1() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
        assert_eq!(complete(line), (line.len(), Some("192.0.2.1:56324".parse().unwrap())));
        let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n";
        assert_eq!(complete(line), (line.len(), Some("[2001:db8::1]:1".parse().unwrap())));
        assert_eq!(complete(b"PROXY UNKNOWN\r\n").1, None);
    }

    #[test]
    fn version_2() {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend_from_slice(&[0x21, 0x11, 0, 12, 192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80]);
        assert_eq!(complete(&bytes), (28, Some("192.0.2.1:4660".parse().unwrap())));
        let mut local = SIGNATURE.to_vec();
        local.extend_from_slice(&[0x20, 0, 0, 0]);
        assert_eq!(complete(&local), (16, None));
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
            b"PROXY TCP4 2001:db8::1 198.51.100.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 065 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ] {
            assert_eq!(parse(bad), Err(Invalid), "{}", bad.escape_ascii());
        }
        assert_eq!(parse(&[b'P'; 200]), Err(Invalid));
    }
}
