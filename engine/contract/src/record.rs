//! The access record: one per request, written by a shard into its ring, read by control.
//!
//! As bytes: a head of fixed size, the addresses, the texts. Written for speed (a few stores at known
//! places), read without trust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Why the gateway answered a request itself. The number is stable: it is what records carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The upstream's answer was relayed to its end.
    #[default]
    None = 0,
    BadRequest = 1,
    NoRoute = 2,
    MethodNotAllowed = 3,
    HeaderTimeout = 4,
    BodyTimeout = 5,
    HeadTooLarge = 6,
    BodyTooLarge = 7,
    UriTooLong = 8,
    NotImplemented = 9,
    VersionNotSupported = 10,
    ExpectationFailed = 11,
    /// No target to send to (none configured, or none resolved).
    NoTarget = 12,
    ConnectFailed = 13,
    ConnectTimeout = 14,
    /// No connection became free within the connect time-out.
    PoolExhausted = 15,
    /// The upstream closed or reset before a full head.
    UpstreamReset = 16,
    /// The upstream's answer is not valid HTTP.
    UpstreamInvalid = 17,
    FirstByteTimeout = 18,
    /// The answer stopped in the middle: what the client got is detectably short.
    UpstreamTruncated = 19,
    TotalTimeout = 20,
    /// The client went away before the end of the exchange.
    ClientAborted = 21,
    Loop = 22,
    Draining = 23,
    /// A defect of ours (a caught panic).
    Internal = 24,
    /// Answered by the gateway as asked (`OPTIONS *`).
    Local = 25,
    /// The site of the request is not one that the connection's certificate stands for (421).
    Misdirected = 26,
    /// Early data that the route does not take (425).
    TooEarly = 27,
    /// The TLS handshake with the upstream failed, or its certificate did not verify.
    UpstreamTls = 28,
    /// The client's own deadline (`grpc-timeout`) passed.
    DeadlineExceeded = 29,
    /// The body is not of a type that the route translates.
    UnsupportedMediaType = 30,
    /// The upstream does not speak what the request needs (an extended CONNECT, say).
    UpstreamUnsuited = 31,
    /// A request that HTTP/2 calls malformed: its stream was reset.
    Malformed = 32,
    /// The node has more to do than it can; this request had to go.
    Overload = 33,
    /// The upstream's circuit breaker is open.
    BreakerOpen = 34,
    /// The upstream has as many requests as it may have, or can bear.
    UpstreamBusy = 35,
    /// Too little of the upstream is alive to bear the load.
    BelowFloor = 36,
    /// No try was answered within the time that one try has.
    TryTimeout = 37,
    /// No credential where one is needed (401).
    CredentialMissing = 38,
    /// A credential that is not good (401).
    CredentialInvalid = 39,
    /// More than one credential of a kind (400).
    CredentialAmbiguous = 40,
    /// The caller lacks a scope (403).
    ScopeMissing = 41,
    /// The caller may not do this (403).
    Forbidden = 42,
    /// Who knows the caller cannot be asked (503).
    AuthUnavailable = 43,
    /// Too many failed credentials (429).
    AuthThrottled = 44,
    /// The client's address is not served here (403).
    AddressDenied = 45,
    /// A preflight that the gateway answered (204).
    Preflight = 46,
    /// A step of a login: the browser is sent on (302, 303).
    Login = 47,
    /// The caller has used up a limit (429).
    RateLimited = 48,
    /// Whoever counts cannot be asked, and the limit says to refuse then (503).
    LimitUnavailable = 49,
    /// The body is not the one that was signed (400).
    DigestMismatch = 50,
    /// The request is not what its API describes (400, 404, 413 or 415).
    NotValid = 51,
    /// The upstream's answer is larger than what may be held of it (502).
    AnswerTooLarge = 52,
    /// The body is not what a rule of the route has to read (400, 415).
    BodyUnusable = 53,
    /// The upstream's answer is not what a rule of the route has to read (502).
    AnswerUnusable = 54,
    /// A value that the route puts into its request to the upstream is not in the client's (400).
    ValueMissing = 55,
    /// A call that the answer cannot be composed without has failed.
    CallFailed = 56,
    /// Nothing stored answers a request that wants nothing else (504).
    OnlyIfCached = 57,
    /// A query that is deeper, dearer or of another kind than the route takes.
    QueryRefused = 58,
    /// Sent on to another place, as the route says.
    Redirected = 59,
    /// Answered with what the route says.
    Static = 60,
    /// An extension has refused it.
    ExtensionRefused = 61,
    /// No method of the route's services is bound to this path (404).
    NoBinding = 62,
}

/// Why a request that failed at an upstream was not tried again, though failures of that kind are.
/// The number is stable: it is what records carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetryStop {
    /// It needed no other try, or none is ever made.
    #[default]
    None = 0,
    /// Not all of the body could be sent again: too large to be kept.
    Body = 1,
    /// The upstream's retry budget was used up.
    Budget = 2,
    /// The pause before it would have ended behind the request's deadline.
    Deadline = 3,
    /// The upstream may have acted on it, and its method may not be repeated.
    Method = 4,
    /// As many tries as there may be were made.
    Attempts = 5,
    /// The upstream asked for a longer pause than is waited for.
    RetryAfter = 6,
}

impl RetryStop {
    /// Every value, in the order of its number.
    pub const ALL: [RetryStop; 7] = [
        RetryStop::None,
        RetryStop::Body,
        RetryStop::Budget,
        RetryStop::Deadline,
        RetryStop::Method,
        RetryStop::Attempts,
        RetryStop::RetryAfter,
    ];

    /// The value of that number.
    pub fn from_u8(number: u8) -> Option<RetryStop> {
        RetryStop::ALL.get(usize::from(number)).copied()
    }

    /// Stable, snake_case; what logs say.
    pub fn name(self) -> &'static str {
        match self {
            RetryStop::None => "none",
            RetryStop::Body => "body",
            RetryStop::Budget => "budget",
            RetryStop::Deadline => "deadline",
            RetryStop::Method => "method",
            RetryStop::Attempts => "attempts",
            RetryStop::RetryAfter => "retry_after",
        }
    }
}

/// One finished request. Times are microseconds, sizes bytes on the wire without heads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Record<'a> {
    /// Wall clock at the end of the request, microseconds since the Unix epoch.
    pub time_us: u64,
    /// From the complete request head to the last byte of the answer handed to the kernel.
    pub duration_us: u32,
    /// From the request sent to the first byte of the upstream's answer; 0: not reached.
    pub first_byte_us: u32,
    /// Time to get a connection; 0: taken from the pool.
    pub connect_us: u32,
    /// Epoch of the plan that the request ran under.
    pub epoch: u64,
    /// Index into that epoch's routes; `u32::MAX`: none.
    pub route: u32,
    /// Index into that epoch's upstreams; `u32::MAX`: none.
    pub upstream: u32,
    pub status: u16,
    pub reason: Reason,
    /// Tries made at upstreams.
    pub attempts: u8,
    /// Why there were no more of them.
    pub retry_stopped: RetryStop,
    /// HTTP version of the request, as `10`, `11`, `20`.
    pub version: u8,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub client: Option<SocketAddr>,
    pub target: Option<SocketAddr>,
    /// At most [`MAX_TEXT`] bytes each; longer ones are cut.
    pub request_id: &'a [u8],
    pub method: &'a [u8],
    pub host: &'a [u8],
    /// Path without the query.
    pub path: &'a [u8],
    pub user_agent: &'a [u8],
    /// Who called: the consumer's name, or what the authenticator calls the caller. Empty: nobody known.
    pub consumer: &'a [u8],
}

/// Longest text field a record carries, in bytes.
pub const MAX_TEXT: usize = 512;

/// Bytes of the fixed head.
const HEAD: usize = 73;
const FORMAT: u8 = 3;
/// Texts of a record.
const TEXTS: usize = 6;
const ABSENT: u8 = 0;
const V4: u8 = 4;
const V6: u8 = 6;

/// Longest encoding of a record, in bytes.
pub const MAX_RECORD: usize = HEAD + 2 * 26 + TEXTS * MAX_TEXT;
const _: () = assert!(MAX_RECORD <= crate::ring::MAX_MESSAGE);

impl Record<'_> {
    /// Bytes that [`Record::encode_into`] writes.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        let texts = self.texts();
        let texts: usize = texts.iter().map(|text| text.len()).sum();
        HEAD + address_len(self.client) + address_len(self.target) + texts
    }

    /// Writes the record to the beginning of `out` and returns its length; `None` if it does not fit.
    /// Texts longer than [`MAX_TEXT`] are cut.
    #[inline]
    pub fn encode_into(&self, out: &mut [u8]) -> Option<usize> {
        let (head, mut rest) = out.split_first_chunk_mut::<HEAD>()?;
        let room = rest.len();
        let texts = self.texts();
        head[0] = FORMAT;
        head[1] = self.reason as u8;
        head[2] = self.attempts;
        head[3] = self.version;
        head[4..6].copy_from_slice(&self.status.to_le_bytes());
        head[6] = address_tag(self.client);
        head[7] = address_tag(self.target);
        head[8..16].copy_from_slice(&self.time_us.to_le_bytes());
        head[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        head[24..32].copy_from_slice(&self.request_bytes.to_le_bytes());
        head[32..40].copy_from_slice(&self.response_bytes.to_le_bytes());
        head[40..44].copy_from_slice(&self.duration_us.to_le_bytes());
        head[44..48].copy_from_slice(&self.first_byte_us.to_le_bytes());
        head[48..52].copy_from_slice(&self.connect_us.to_le_bytes());
        head[52..56].copy_from_slice(&self.route.to_le_bytes());
        head[56..60].copy_from_slice(&self.upstream.to_le_bytes());
        for (place, text) in head[60..72].as_chunks_mut::<2>().0.iter_mut().zip(texts) {
            // At most MAX_TEXT.
            *place = (text.len() as u16).to_le_bytes();
        }
        head[72] = self.retry_stopped as u8;
        for address in [self.client, self.target] {
            rest = put_address(rest, address)?;
        }
        for text in texts {
            rest = put(rest, text)?;
        }
        Some(HEAD + room - rest.len())
    }

    #[inline]
    fn texts(&self) -> [&[u8]; TEXTS] {
        [self.request_id, self.method, self.host, self.path, self.user_agent, self.consumer]
            .map(|text| text.get(..MAX_TEXT).unwrap_or(text))
    }
}

impl<'a> Record<'a> {
    /// Reads what [`Record::encode_into`] wrote. `None` for any other bytes.
    pub fn decode(bytes: &'a [u8]) -> Option<Record<'a>> {
        let (head, mut rest) = bytes.split_first_chunk::<HEAD>()?;
        if head[0] != FORMAT {
            return None;
        }
        let u32_at = |at: usize| head.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
        let u64_at = |at: usize| head.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
        let client = take_address(&mut rest, head[6])?;
        let target = take_address(&mut rest, head[7])?;
        let mut texts = [&[][..]; TEXTS];
        for (text, len) in texts.iter_mut().zip(head[60..72].as_chunks::<2>().0) {
            let len = usize::from(u16::from_le_bytes(*len));
            if len > MAX_TEXT {
                return None;
            }
            (*text, rest) = rest.split_at_checked(len)?;
        }
        if !rest.is_empty() {
            return None;
        }
        let [request_id, method, host, path, user_agent, consumer] = texts;
        Some(Record {
            time_us: u64_at(8)?,
            duration_us: u32_at(40)?,
            first_byte_us: u32_at(44)?,
            connect_us: u32_at(48)?,
            epoch: u64_at(16)?,
            route: u32_at(52)?,
            upstream: u32_at(56)?,
            status: u16::from_le_bytes([head[4], head[5]]),
            reason: Reason::from_u8(head[1])?,
            attempts: head[2],
            retry_stopped: RetryStop::from_u8(head[72])?,
            version: head[3],
            request_bytes: u64_at(24)?,
            response_bytes: u64_at(32)?,
            client,
            target,
            request_id,
            method,
            host,
            path,
            user_agent,
            consumer,
        })
    }
}

#[inline]
fn address_tag(address: Option<SocketAddr>) -> u8 {
    match address {
        None => ABSENT,
        Some(SocketAddr::V4(_)) => V4,
        Some(SocketAddr::V6(_)) => V6,
    }
}

#[inline]
fn address_len(address: Option<SocketAddr>) -> usize {
    match address {
        None => 0,
        Some(SocketAddr::V4(_)) => 6,
        Some(SocketAddr::V6(_)) => 26,
    }
}

#[inline]
fn put<'o>(out: &'o mut [u8], bytes: &[u8]) -> Option<&'o mut [u8]> {
    let (place, rest) = out.split_at_mut_checked(bytes.len())?;
    place.copy_from_slice(bytes);
    Some(rest)
}

#[inline]
fn put_address(out: &mut [u8], address: Option<SocketAddr>) -> Option<&mut [u8]> {
    match address {
        None => Some(out),
        Some(SocketAddr::V4(v4)) => {
            let (place, rest) = out.split_first_chunk_mut::<6>()?;
            place[..4].copy_from_slice(&v4.ip().octets());
            place[4..].copy_from_slice(&v4.port().to_le_bytes());
            Some(rest)
        }
        Some(SocketAddr::V6(v6)) => {
            let (place, rest) = out.split_first_chunk_mut::<26>()?;
            place[..16].copy_from_slice(&v6.ip().octets());
            place[16..18].copy_from_slice(&v6.port().to_le_bytes());
            place[18..22].copy_from_slice(&v6.flowinfo().to_le_bytes());
            place[22..].copy_from_slice(&v6.scope_id().to_le_bytes());
            Some(rest)
        }
    }
}

/// Takes an address of the kind `tag` off the front. The outer `None`: refused.
fn take_address(bytes: &mut &[u8], tag: u8) -> Option<Option<SocketAddr>> {
    match tag {
        ABSENT => Some(None),
        V4 => {
            let ip = Ipv4Addr::from(*take::<4>(bytes)?);
            let port = u16::from_le_bytes(*take(bytes)?);
            Some(Some(SocketAddr::new(IpAddr::V4(ip), port)))
        }
        V6 => {
            let ip = Ipv6Addr::from(*take::<16>(bytes)?);
            let port = u16::from_le_bytes(*take(bytes)?);
            let flow = u32::from_le_bytes(*take(bytes)?);
            let scope = u32::from_le_bytes(*take(bytes)?);
            Some(Some(SocketAddrV6::new(ip, port, flow, scope).into()))
        }
        _ => None,
    }
}

fn take<'b, const N: usize>(bytes: &mut &'b [u8]) -> Option<&'b [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

impl Reason {
    /// Every reason, in the order of its number.
    pub const ALL: [Reason; 63] = [
        Reason::None,
        Reason::BadRequest,
        Reason::NoRoute,
        Reason::MethodNotAllowed,
        Reason::HeaderTimeout,
        Reason::BodyTimeout,
        Reason::HeadTooLarge,
        Reason::BodyTooLarge,
        Reason::UriTooLong,
        Reason::NotImplemented,
        Reason::VersionNotSupported,
        Reason::ExpectationFailed,
        Reason::NoTarget,
        Reason::ConnectFailed,
        Reason::ConnectTimeout,
        Reason::PoolExhausted,
        Reason::UpstreamReset,
        Reason::UpstreamInvalid,
        Reason::FirstByteTimeout,
        Reason::UpstreamTruncated,
        Reason::TotalTimeout,
        Reason::ClientAborted,
        Reason::Loop,
        Reason::Draining,
        Reason::Internal,
        Reason::Local,
        Reason::Misdirected,
        Reason::TooEarly,
        Reason::UpstreamTls,
        Reason::DeadlineExceeded,
        Reason::UnsupportedMediaType,
        Reason::UpstreamUnsuited,
        Reason::Malformed,
        Reason::Overload,
        Reason::BreakerOpen,
        Reason::UpstreamBusy,
        Reason::BelowFloor,
        Reason::TryTimeout,
        Reason::CredentialMissing,
        Reason::CredentialInvalid,
        Reason::CredentialAmbiguous,
        Reason::ScopeMissing,
        Reason::Forbidden,
        Reason::AuthUnavailable,
        Reason::AuthThrottled,
        Reason::AddressDenied,
        Reason::Preflight,
        Reason::Login,
        Reason::RateLimited,
        Reason::LimitUnavailable,
        Reason::DigestMismatch,
        Reason::NotValid,
        Reason::AnswerTooLarge,
        Reason::BodyUnusable,
        Reason::AnswerUnusable,
        Reason::ValueMissing,
        Reason::CallFailed,
        Reason::OnlyIfCached,
        Reason::QueryRefused,
        Reason::Redirected,
        Reason::Static,
        Reason::ExtensionRefused,
        Reason::NoBinding,
    ];

    /// The reason of that number.
    pub fn from_u8(number: u8) -> Option<Reason> {
        Reason::ALL.get(usize::from(number)).copied()
    }

    /// Stable, snake_case; what logs and problem documents say.
    pub fn name(self) -> &'static str {
        match self {
            Reason::None => "none",
            Reason::BadRequest => "bad_request",
            Reason::NoRoute => "no_route",
            Reason::MethodNotAllowed => "method_not_allowed",
            Reason::HeaderTimeout => "header_timeout",
            Reason::BodyTimeout => "body_timeout",
            Reason::HeadTooLarge => "head_too_large",
            Reason::BodyTooLarge => "body_too_large",
            Reason::UriTooLong => "uri_too_long",
            Reason::NotImplemented => "not_implemented",
            Reason::VersionNotSupported => "version_not_supported",
            Reason::ExpectationFailed => "expectation_failed",
            Reason::NoTarget => "no_target",
            Reason::ConnectFailed => "connect_failed",
            Reason::ConnectTimeout => "connect_timeout",
            Reason::PoolExhausted => "pool_exhausted",
            Reason::UpstreamReset => "upstream_reset",
            Reason::UpstreamInvalid => "upstream_invalid",
            Reason::FirstByteTimeout => "first_byte_timeout",
            Reason::UpstreamTruncated => "upstream_truncated",
            Reason::TotalTimeout => "total_timeout",
            Reason::ClientAborted => "client_aborted",
            Reason::Loop => "loop",
            Reason::Draining => "draining",
            Reason::Internal => "internal",
            Reason::Local => "local",
            Reason::Misdirected => "misdirected",
            Reason::TooEarly => "too_early",
            Reason::UpstreamTls => "upstream_tls",
            Reason::DeadlineExceeded => "deadline_exceeded",
            Reason::UnsupportedMediaType => "unsupported_media_type",
            Reason::UpstreamUnsuited => "upstream_unsuited",
            Reason::Malformed => "malformed",
            Reason::Overload => "overload",
            Reason::BreakerOpen => "breaker_open",
            Reason::UpstreamBusy => "upstream_busy",
            Reason::BelowFloor => "below_floor",
            Reason::TryTimeout => "try_timeout",
            Reason::CredentialMissing => "credential_missing",
            Reason::CredentialInvalid => "credential_invalid",
            Reason::CredentialAmbiguous => "credential_ambiguous",
            Reason::ScopeMissing => "scope_missing",
            Reason::Forbidden => "forbidden",
            Reason::AuthUnavailable => "auth_unavailable",
            Reason::AuthThrottled => "auth_throttled",
            Reason::AddressDenied => "address_denied",
            Reason::Preflight => "preflight",
            Reason::Login => "login",
            Reason::RateLimited => "rate_limited",
            Reason::LimitUnavailable => "limit_unavailable",
            Reason::DigestMismatch => "digest_mismatch",
            Reason::NotValid => "not_valid",
            Reason::AnswerTooLarge => "answer_too_large",
            Reason::BodyUnusable => "body_unusable",
            Reason::AnswerUnusable => "answer_unusable",
            Reason::ValueMissing => "value_missing",
            Reason::CallFailed => "call_failed",
            Reason::OnlyIfCached => "only_if_cached",
            Reason::QueryRefused => "query_refused",
            Reason::Redirected => "redirected",
            Reason::Static => "static",
            Reason::ExtensionRefused => "extension_refused",
            Reason::NoBinding => "no_binding",
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
