//! The single values of a spec: each is read whole or refused with what was expected.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::model::StatusRange;

macro_rules! text_form {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}

mod auth;

pub use auth::*;

/// Largest compiled form of one regular expression, in bytes.
pub const REGEX_SIZE: usize = 1 << 20;
/// Longest regular expression, in bytes.
pub const REGEX_LENGTH: usize = 4096;
/// Methods every gateway sees; others are allowed but worth a second look.
pub const COMMON_METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

/// A network prefix without bits set behind it. Read and written as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    pub network: IpAddr,
    /// 0..=32 for IPv4, 0..=128 for IPv6.
    pub prefix: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| {
            format!("`{text}` is not a network; expected one like 10.0.0.0/8, fd00::/8 or 10.1.2.3")
        })?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits) => decimal(digits)
                .filter(|&bits| bits <= u64::from(longest))
                .and_then(|bits| u8::try_from(bits).ok())
                .ok_or_else(|| {
                    format!("the prefix length `/{digits}` must be a number from 0 to {longest}")
                })?,
        };
        if let IpAddr::V6(v6) = network
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            let bits = prefix.saturating_sub(96);
            return Err(format!(
                "IPv4 addresses are compared as IPv4, so this never matches; write {v4}/{bits}"
            ));
        }
        let clean = mask(network, prefix);
        if clean != network {
            return Err(format!("there are bits set behind the prefix; write {clean}/{prefix}"));
        }
        Ok(Cidr { network, prefix })
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let ones = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(v4) & ones))
        }
        IpAddr::V6(v6) => {
            let ones = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & ones))
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// Where a target is. Read and written as `host:port`, names in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetAddress {
    pub host: TargetHost,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetHost {
    Ip(IpAddr),
    /// A DNS name in lower case, without a final dot.
    Name(String),
}

impl FromStr for TargetAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected host:port, like 127.0.0.1:9001 or users.internal:80";
        if let Some((scheme, rest)) = text.split_once("://") {
            let rest = rest.split('/').next().unwrap_or(rest);
            return Err(match scheme {
                "http" => format!("a target is host:port without a scheme; write {rest}"),
                _ => format!("the scheme {scheme}:// is not supported here; {EXPECTED}"),
            });
        }
        let (host, port) = text
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':') || host.starts_with('['))
            .ok_or_else(|| match text.parse::<Ipv6Addr>() {
                Ok(v6) => format!("the port is missing; write [{v6}]:80 with your port"),
                Err(_) => format!("the port is missing in `{text}`; {EXPECTED}"),
            })?;
        let port = parse_port(port)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => {
                let v6: Ipv6Addr =
                    v6.parse().map_err(|_| format!("`[{v6}]` is not an IPv6 address"))?;
                TargetHost::Ip(IpAddr::V6(v6))
            }
            None => match host.parse::<Ipv4Addr>() {
                Ok(v4) => TargetHost::Ip(IpAddr::V4(v4)),
                Err(_) => TargetHost::Name(dns_name(host).map_err(|why| {
                    format!("`{host}` is neither an address nor a host name: {why}; {EXPECTED}")
                })?),
            },
        };
        if let TargetHost::Ip(ip) = &host
            && ip.is_unspecified()
        {
            return Err(format!("nothing can be reached at {ip}; name the target's own address"));
        }
        Ok(TargetAddress { host, port })
    }
}

impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            TargetHost::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            TargetHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

text_form!(Cidr);
text_form!(TargetAddress);

/// `0.0.0.0:8080`, `[::]:8080`, or `:8080` for all IPv4 addresses.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    const EXPECTED: &str = "expected address:port, like 0.0.0.0:8080, [::]:8080 or :8080";
    if let Some(port) = text.strip_prefix(':')
        && !port.contains(':')
    {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), parse_port(port)?));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        parse_port(&address.port().to_string())?;
        return match address {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => {
                Err("an address with a zone (%) cannot be listened on".into())
            }
            address => Ok(address),
        };
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("the port is missing in `{text}`; {EXPECTED}"));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Err(format!("a listener needs an address, not a name; write 127.0.0.1:{port}"));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => {
            parse_port(port)?;
            Err(format!("`{host}` is not an IP address; {EXPECTED}"))
        }
        None => Err(format!("`{text}` is not an address with a port; {EXPECTED}")),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    decimal(text)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|&port| port > 0)
        .ok_or_else(|| format!("the port `{text}` must be a number from 1 to 65535"))
}

fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Name of a listener, an upstream or a route.
pub fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    match first && text.len() <= 100 && text.chars().all(fits) {
        true => Ok(text.into()),
        false => Err("a name has 1 to 100 letters, digits, `.`, `_` or `-`, \
                      and begins with a letter or digit"
            .into()),
    }
}

/// A DNS name in lower case, without a final dot.
fn dns_name(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() || text.len() > 253 {
        return Err("a host name has 1 to 253 characters".into());
    }
    if !text.is_ascii() {
        return Err("a name beyond ASCII is written in its xn-- form".into());
    }
    for label in text.split('.') {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if label.is_empty() || label.len() > 63 {
            return Err("each label between dots has 1 to 63 characters".into());
        }
        if !label.bytes().all(fits) || label.starts_with('-') || label.ends_with('-') {
            return Err(format!("`{label}` may only have letters, digits and inner hyphens"));
        }
    }
    // An address with a slip in it (`10.0.0.300`) must not pass for a name.
    let last = text.rsplit('.').next().unwrap_or(text);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it looks like an IPv4 address but is none".into());
    }
    Ok(text.to_ascii_lowercase())
}

/// What a route's `hosts` may have: a name, an address, or `*.` and a name.
pub fn host_pattern(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected a name like api.example.com or *.example.com";
    if text == "*" {
        return Err("for any host leave `hosts` out".into());
    }
    if let Some(v6) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let v6: Ipv6Addr = v6.parse().map_err(|_| format!("`{text}` is not an IPv6 address"))?;
        return Ok(format!("[{v6}]"));
    }
    if text.contains("://") || text.contains('/') {
        return Err(format!("a host has no scheme and no path; {EXPECTED}"));
    }
    if let Some((host, port)) = text.split_once(':') {
        return Err(match port.parse::<u16>() {
            Ok(_) => format!("hosts are matched without the port; write {host}"),
            Err(_) => format!("`{text}` is not a host; {EXPECTED}, an IPv6 address in brackets"),
        });
    }
    if let Ok(v4) = text.parse::<Ipv4Addr>() {
        return Ok(v4.to_string());
    }
    let (star, rest) = match text.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", text),
    };
    if rest.contains('*') {
        return Err(format!("`*` may only be the whole first label; {EXPECTED}"));
    }
    let name = dns_name(rest).map_err(|why| format!("{why}; {EXPECTED}"))?;
    Ok(format!("{star}{name}"))
}

/// A server name as TLS has it (RFC 6066 §3): a DNS name, never an address.
pub fn server_name(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected a name like api.example.com";
    if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Err(format!("clients send no server name for an address; {EXPECTED}"));
    }
    if text.contains("://") || text.contains([':', '/']) {
        return Err(format!("a server name has no scheme, port or path; {EXPECTED}"));
    }
    if text.contains('*') {
        return Err(format!("a server name has no `*`; {EXPECTED}"));
    }
    dns_name(text).map_err(|why| format!("{why}; {EXPECTED}"))
}

/// A server name, or `*.` and a name: the wildcard is the whole left-most label (RFC 6125 §6.4.3).
pub fn server_pattern(text: &str) -> Result<String, String> {
    let Some(rest) = text.strip_prefix("*.") else {
        return match text.contains('*') {
            true => Err("`*` may only be the whole first label, as in *.example.com".into()),
            false => server_name(text),
        };
    };
    if rest.contains('*') {
        return Err("`*` may only be the whole first label, as in *.example.com".into());
    }
    Ok(format!("*.{}", server_name(rest)?))
}

/// A token of RFC 9110 §5.6.2.
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

pub fn method(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    if !is_token(text) || text.len() > 32 {
        return Err("expected a method like GET or POST".into());
    }
    if upper != text {
        return Err(format!("methods are case-sensitive and in upper case; write {upper}"));
    }
    match text {
        "CONNECT" | "TRACE" => Err(format!("{text} is never forwarded; leave it out")),
        _ => Ok(text.into()),
    }
}

/// A header field's name, in lower case.
pub fn field_name(text: &str) -> Result<String, String> {
    if text.starts_with(':') {
        return Err("for the host and the path use match.hosts and match.path".into());
    }
    match is_token(text) && text.len() <= 256 {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("expected the name of a header field, like x-version".into()),
    }
}

/// A path as it stands after normalisation, so that it can match at all.
pub fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("a path begins with `/`; write /{text}"));
    }
    if let Some(c) = text.chars().find(|c| matches!(c, '?' | '#')) {
        return Err(format!("a path has no `{c}`; conditions on the query go into match.query"));
    }
    if text.contains("//") {
        return Err("`//` is made one `/` before matching, so this never matches".into());
    }
    for segment in text.split('/') {
        if matches!(segment, "." | "..") {
            return Err("`.` and `..` are resolved before matching, so this never matches".into());
        }
        let rest = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
        if rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B")) {
            return Err(format!("requests with `{segment}` are refused, so this never matches"));
        }
    }
    let mut encoded = String::new();
    for c in text.chars() {
        let mut bytes = [0; 4];
        match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '%' => encoded.push(c),
            c if "-._~!$&'()*+,;=:@/".contains(c) => encoded.push(c),
            c => c.encode_utf8(&mut bytes).bytes().for_each(|byte| {
                encoded.push_str(&format!("%{byte:02X}"));
            }),
        }
    }
    if encoded != text {
        return Err(format!("paths are matched percent-encoded; write {encoded}"));
    }
    percent_encoding(text)?;
    Ok(text.into())
}

/// Each `%XX` must be in the form that normalisation gives (RFC 3986 §6.2.2).
fn percent_encoding(text: &str) -> Result<(), String> {
    let mut plain = Vec::with_capacity(text.len());
    for piece in text.split('%').skip(1) {
        let digits = piece.get(..2).unwrap_or(piece);
        let byte = u8::from_str_radix(digits, 16)
            .ok()
            .filter(|_| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .ok_or_else(|| format!("`%{digits}` is not a percent-encoded byte"))?;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            let plain = char::from(byte);
            return Err(format!("`%{digits}` is decoded before matching; write {plain}"));
        }
        if matches!(byte, b'/' | b'\\' | 0) {
            return Err(format!("requests with `%{digits}` are refused, so this never matches"));
        }
        if digits != digits.to_ascii_uppercase() {
            return Err(format!("write %{} with capitals", digits.to_ascii_uppercase()));
        }
        plain.push(byte);
        plain.extend(piece.bytes().skip(2));
    }
    match std::str::from_utf8(&plain) {
        Ok(_) => Ok(()),
        Err(_) => Err("the percent-encoded bytes are not UTF-8; such requests are refused".into()),
    }
}

/// A path in which whole segments have names, as in /users/{id}/{rest...}.
pub fn path_template(text: &str) -> Result<String, String> {
    let segments = text.split('/').map(|segment| {
        let name = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
        let name = name.map(|name| name.strip_suffix("...").unwrap_or(name));
        match name {
            Some(name) if name.is_empty() || !is_token(name) => {
                Err(format!("`{segment}` has no name of letters, digits, `-` and `_`"))
            }
            Some(_) => Ok((true, "x")),
            None if segment.contains(['{', '}']) => Err(format!(
                "`{segment}` mixes a name and a text; a name is a whole segment, or use regex"
            )),
            None => Ok((false, segment)),
        }
    });
    let segments = segments.collect::<Result<Vec<_>, String>>()?;
    let plain: Vec<&str> = segments.iter().map(|(_, text)| *text).collect();
    path(&plain.join("/"))?;
    match segments.iter().any(|(named, _)| *named) {
        true => Ok(text.into()),
        false => Err(format!("no segment has a name, as in {text}/{{id}}; use exact or prefix")),
    }
}

/// A prefix goes by whole segments, so a final `/` says nothing.
pub fn prefix(text: &str) -> Result<String, String> {
    let path = path(text)?;
    Ok(match path.strip_suffix('/') {
        Some("") | None => path,
        Some(stripped) => stripped.into(),
    })
}

/// Compiles the pattern as the engine will, and says where it fails.
pub fn regex(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("an empty pattern matches everything; leave it out".into());
    }
    if text.len() > REGEX_LENGTH {
        return Err(format!("the pattern has {} bytes; at most {REGEX_LENGTH}", text.len()));
    }
    match regex::RegexBuilder::new(text).size_limit(REGEX_SIZE).build() {
        Ok(_) => Ok(text.into()),
        Err(regex::Error::CompiledTooBig(_)) => Err(format!(
            "the pattern grows past {REGEX_SIZE} bytes when compiled; use smaller repetitions"
        )),
        Err(error) => Err(regex_message(&error.to_string())),
    }
}

/// The regex crate prints the pattern, a caret below it and the reason; this makes one line of it.
fn regex_message(text: &str) -> String {
    let reason = text.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or("is invalid");
    let caret = text
        .lines()
        .find(|line| line.contains('^') && line.chars().all(|c| matches!(c, '^' | ' ')))
        .and_then(|line| line.find('^'))
        // The pattern is indented by four columns.
        .and_then(|column| column.checked_sub(4));
    match caret {
        Some(column) => format!("the pattern is wrong at its character {}: {reason}", column + 1),
        None => format!("the pattern is wrong: {reason}"),
    }
}

/// `10485760`, `512KiB`, `10MiB`, `1GB`.
pub fn size(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is not a size; expected bytes or a unit: 512KiB, 10MiB");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number = decimal(digits).ok_or_else(expected)?;
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(expected()),
    };
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large"))
}

/// `204` or `200-299`.
pub fn status_range(text: &str) -> Result<StatusRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |digits: &str| {
        let status = decimal(digits).and_then(|status| u16::try_from(status).ok());
        status.filter(|status| (100..=599).contains(status))
    };
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok(StatusRange { first, last }),
        (Some(first), Some(last)) => {
            Err(format!("the range ends before it begins; write \"{last}-{first}\""))
        }
        _ => Err("expected a status like 204, or a range like \"200-299\"".into()),
    }
}

/// Path and query of a request of our own.
pub fn request_target(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("a path begins with `/`; write /{text}"));
    }
    if text.len() > 2048 || text.contains('#') || !text.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err("expected a path like /healthz, percent-encoded, of at most 2048 bytes".into());
    }
    Ok(text.into())
}

/// A header field's value: visible ASCII with blanks inside.
pub fn field_value(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    match !text.is_empty() && text.len() <= 256 && text.trim() == text && text.bytes().all(fits) {
        true => Ok(text.into()),
        false => Err("expected a header field's value of 1 to 256 ASCII characters".into()),
    }
}
