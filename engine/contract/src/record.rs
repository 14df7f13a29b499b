//! The access record: one per request, written by a shard into its ring, read by control.

use std::net::SocketAddr;

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
}

/// Longest text field a record carries, in bytes.
pub const MAX_TEXT: usize = 512;
