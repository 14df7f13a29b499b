//! The single values of authentication.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::Uri;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{field_name, is_token};

/// A SHA-256 hash. Read and written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl FromStr for Digest {
    type Err = String;

    /// Takes colons too, as openssl writes fingerprints.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let nibble = |byte: &u8| char::from(*byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let nibbles: Option<Vec<u8>> = digits.iter().map(nibble).collect();
        let bytes: Option<Vec<u8>> = nibbles
            .filter(|nibbles| nibbles.len() == 64)
            .map(|nibbles| nibbles.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect());
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Digest)
            .ok_or_else(|| "expected a SHA-256 hash: 64 hexadecimal digits".into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A point in time, in seconds since the Unix epoch. Read and written as RFC 3339 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(pub u32);

impl FromStr for Timestamp {
    type Err = String;

    /// Takes a date alone, too: its beginning in UTC.
    fn from_str(text: &str) -> Result<Self, String> {
        let whole = match text.len() {
            10 => format!("{text}T00:00:00Z"),
            _ => text.to_ascii_uppercase(),
        };
        let time = OffsetDateTime::parse(&whole, &Rfc3339)
            .map_err(|_| "expected a time like 2027-01-01T00:00:00Z, or a date like 2027-01-01")?;
        // Until 2106.
        let second = u32::try_from(time.unix_timestamp());
        second.map(Timestamp).map_err(|_| "expected a time from 1970 to 2105".into())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}Z", crate::records::date(self.0.into()))
    }
}

/// How often something is done again, in seconds: read and written as `5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Refresh(u32);

impl Refresh {
    const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

    /// 10 to 86 400.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl Default for Refresh {
    fn default() -> Self {
        Refresh(300)
    }
}

impl FromStr for Refresh {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = Refresh::UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit));
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let seconds = unit
            .filter(|_| digits.len() + 1 == text.len() && !digits.starts_with('+'))
            .and_then(|(_, seconds)| digits.parse::<u32>().ok()?.checked_mul(seconds));
        match seconds {
            Some(seconds @ 10..=86_400) => Ok(Refresh(seconds)),
            Some(_) => Err(format!("{text} is out of range; expected 10s to 1d")),
            None => Err(format!("`{text}` is no time; expected one like 30s, 5m or 1h")),
        }
    }
}

impl fmt::Display for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = Refresh::UNITS.into_iter().find(|(_, unit)| self.0.is_multiple_of(*unit));
        let (word, unit) = largest.unwrap_or(('s', 1));
        write!(f, "{}{word}", self.0 / unit)
    }
}

text_form!(Digest);
text_form!(Refresh);
text_form!(Timestamp);

/// What a URL's host is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Loopback,
    Private,
    /// Where clouds keep their metadata. Never asked.
    LinkLocal,
    Public,
    /// A name, of which only its addresses will tell.
    Name,
}

/// An absolute `https://` or `http://` URL, as it stands.
pub fn url(text: &str) -> Result<String, String> {
    let uri: Uri = text.parse().map_err(|_| format!("`{text}` is not a URL; {URL}"))?;
    match uri.scheme_str() {
        Some("https" | "http") => {}
        Some(_) => return Err(format!("only https:// (and http://) can be asked; {URL}")),
        None => return Err(format!("`{text}` is not an absolute URL; {URL}")),
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err("a URL has no name and password here: it would be shown".into());
    }
    if uri.host().is_none_or(str::is_empty) || authority.ends_with(':') {
        return Err(format!("the URL has no host; {URL}"));
    }
    if text.contains('#') {
        return Err("a URL that is asked has no fragment (#)".into());
    }
    if text.len() > 2_048 {
        return Err("a URL has at most 2048 characters".into());
    }
    Ok(text.into())
}

const URL: &str = "expected one like https://id.example.com/path";

/// What is known of the host of a URL that [`url`] has taken.
pub fn place(url: &str) -> Place {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let bare = host.trim_matches(['[', ']']);
    if host.eq_ignore_ascii_case("localhost") {
        return Place::Loopback;
    }
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => of_v4(v4),
        Ok(IpAddr::V6(v6)) => v6.to_ipv4_mapped().map_or_else(|| of_v6(v6), of_v4),
        Err(_) => Place::Name,
    }
}

fn of_v4(v4: Ipv4Addr) -> Place {
    if v4.is_loopback() {
        Place::Loopback
    } else if v4.is_link_local() {
        Place::LinkLocal
    // 100.64.0.0/10: carriers' (RFC 6598).
    } else if v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64) {
        Place::Private
    } else {
        Place::Public
    }
}

fn of_v6(v6: Ipv6Addr) -> Place {
    if v6.is_loopback() {
        Place::Loopback
    } else if v6.is_unicast_link_local() {
        Place::LinkLocal
    } else if v6.is_unique_local() {
        Place::Private
    } else {
        Place::Public
    }
}

/// An issuer (RFC 8414 §2): a URL without query and fragment. Compared character by character.
pub fn issuer(text: &str) -> Result<String, String> {
    // Some providers, old ones, have no scheme in it (accounts.google.com).
    if text.contains("://") {
        url(text)?;
    }
    match text.contains(['?', '#', ' ']) || text.is_empty() || text.len() > 2_048 {
        true => Err("an issuer is a URL like https://id.example.com, exactly as in tokens".into()),
        false => Ok(text.into()),
    }
}

/// The address of a Redis server: `redis://host:port/db`, or `rediss://` for TLS.
pub fn redis_url(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected one like redis://127.0.0.1:6379 or rediss://redis.internal/0";
    let uri: Uri = text.parse().map_err(|_| format!("this is not a URL; {EXPECTED}"))?;
    if !matches!(uri.scheme_str(), Some("redis" | "rediss")) {
        return Err(format!("the scheme is redis://, or rediss:// for TLS; {EXPECTED}"));
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err("a name and password do not belong into the address, which is shown; write \
                    `username: NAME` and `password: {file: FILE}` beside it"
            .into());
    }
    if uri.host().is_none_or(str::is_empty) || authority.ends_with(':') {
        return Err(format!("the address has no host; {EXPECTED}"));
    }
    let database = uri.path().trim_start_matches('/');
    let number = database.is_empty() || database.parse::<u8>().is_ok();
    if uri.query().is_some() || text.contains('#') || !number {
        return Err(format!("what follows the host is the number of a database; {EXPECTED}"));
    }
    Ok(text.into())
}

/// A scope (RFC 6749 §3.3).
pub fn scope(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    match !text.is_empty() && text.len() <= 256 && text.bytes().all(fits) {
        true => Ok(text.into()),
        false if text.contains(' ') => Err("this is one scope; write several as a list".into()),
        false => Err("a scope has 1 to 256 printable ASCII characters without \" and \\".into()),
    }
}

/// A claim: its name, or names between dots.
pub fn claim(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 256 && !text.contains(char::is_control);
    match fits && !text.starts_with('.') && !text.ends_with('.') {
        true => Ok(text.into()),
        false => Err(
            "expected the name of a claim, like sub or https://example.com/roles, or a path like \
                       org.name"
                .into(),
        ),
    }
}

/// A name of a cookie (RFC 6265 §4.1.1) or of a scheme (RFC 9110 §11.1).
pub fn token(text: &str) -> Result<String, String> {
    match is_token(text) && text.len() <= 256 {
        true => Ok(text.into()),
        false => Err("expected one word of letters, digits and -._".into()),
    }
}

/// Fields that describe the connection or the message (RFC 9110 §7.6.1), or that the gateway writes
/// itself.
const OWN_FIELDS: [&str; 22] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-client-cert",
    "x-real-ip",
    "x-request-id",
];

/// A field, in lower case, that upstreams may be told something about the caller in.
pub fn told_field(text: &str) -> Result<String, String> {
    let name = field_name(text)?;
    let own = OWN_FIELDS.contains(&name.as_str())
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-consumer-");
    match own {
        true => Err(format!("`{name}` has a meaning of its own; choose another field")),
        false => Ok(name),
    }
}

/// An origin (RFC 6454 §6.2), or `https://*.` and a name.
pub fn origin(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected an origin like https://app.example.com or \
                            https://*.example.com:8443";
    match text {
        "*" => return Err("for all origins write `origins: \"*\"`".into()),
        "null" => {
            return Err("`null` is the origin of any sandboxed page, so of everybody".into());
        }
        _ => {}
    }
    let lower = text.to_ascii_lowercase();
    let Some((scheme, rest)) = lower.split_once("://") else {
        return Err(format!("`{text}` has no scheme; {EXPECTED}"));
    };
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !scheme_fits {
        return Err(format!("`{scheme}` is not a scheme; {EXPECTED}"));
    }
    if rest.contains(['/', '?', '#', '@']) {
        return Err(format!("an origin has no path; {EXPECTED}"));
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    if let Some(port) = port {
        let port = super::parse_port(port)?;
        if matches!((scheme, port), ("http", 80) | ("https", 443)) {
            return Err(format!(
                "browsers leave the usual port out, so this never matches; write {scheme}://{host}"
            ));
        }
    }
    if host == "*" || host.contains("**") {
        return Err(format!("`*` stands before a name; {EXPECTED}"));
    }
    super::host_pattern(host).map_err(|why| format!("{why}; {EXPECTED}"))?;
    Ok(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_hexadecimal() {
        let text = "00ff".repeat(16);
        let digest: Digest = text.parse().expect("is one");
        assert_eq!(digest.to_string(), text);
        let colons: Vec<&str> = ["00", "FF"].repeat(16);
        assert_eq!(colons.join(":").parse(), Ok(digest));
        for wrong in ["", "00", &"0g".repeat(32), &"0".repeat(66), "ü"] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (text, canonical) in [
            ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2027-01-01", "2027-01-01T00:00:00Z"),
            ("2027-01-01t02:30:59.9+02:30", "2027-01-01T00:00:59Z"),
        ] {
            let time: Timestamp = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(time.to_string(), canonical);
        }
        for wrong in ["", "2027", "2027-13-01", "2027-01-01 00:00", "1969-12-31", "soon"] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn places_of_hosts() {
        for (url, expected) in [
            ("https://id.example.com/x", Place::Name),
            ("http://localhost:8080", Place::Loopback),
            ("http://127.0.0.1", Place::Loopback),
            ("http://[::1]:1/x", Place::Loopback),
            ("https://10.1.2.3/", Place::Private),
            ("https://100.64.0.1/", Place::Private),
            ("https://[fd00::1]/", Place::Private),
            ("http://169.254.169.254/latest", Place::LinkLocal),
            ("http://[fe80::1]/", Place::LinkLocal),
            ("http://[::ffff:169.254.169.254]/", Place::LinkLocal),
            ("https://1.1.1.1", Place::Public),
        ] {
            assert_eq!(super::url(url).as_deref(), Ok(url));
            assert_eq!(place(url), expected, "{url}");
        }
        for wrong in
            ["", "id.example.com", "/x", "ftp://a", "https://", "https://u:p@a/", "https://a/#b"]
        {
            assert!(super::url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn origins_are_what_browsers_send() {
        for good in ["https://a.example", "http://localhost:3000", "https://*.a.example:8443"] {
            assert_eq!(origin(good).as_deref(), Ok(good));
        }
        assert_eq!(origin("HTTPS://A.example").as_deref(), Ok("https://a.example"));
        for wrong in [
            "*",
            "null",
            "a.example",
            "https://a.example/",
            "https://a.example:443",
            "https://*",
            "https://a.*.example",
            "https://a:99999",
            "https://",
        ] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
        assert_eq!(origin("https://[::1]:8080").as_deref(), Ok("https://[::1]:8080"));
    }
}
