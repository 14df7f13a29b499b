//! Every bound of the engine that is not a setting of the spec. A bound that could be crossed by a
//! hostile peer is here or in the snapshot; nothing grows without one.

use std::mem::size_of;

/// Request line without its CRLF, in bytes: past it 414. RFC 9112 §3 asks for at least 8,000.
pub const REQUEST_LINE: usize = 8 * 1024;
/// One field name, in bytes.
pub const FIELD_NAME: usize = 256;
/// Client-chosen `X-Request-Id` values longer than this are replaced.
pub const REQUEST_ID: usize = 128;
/// Head that the gateway may write to an upstream: the client's, rewritten, and our own fields.
pub const FORWARDED_HEAD: usize = 64 * 1024;
/// Body bytes in front of the upstream that make one buffer with the head (and can be replayed).
pub const REPLAY_BODY: usize = 8 * 1024;
/// Unread body that is drained after an early answer, so that the connection can be kept.
pub const DRAIN_BODY: u64 = 64 * 1024;
/// Milliseconds that a lingering close reads and discards, so that the answer is not lost to a
/// reset (RFC 9112 §9.6).
pub const LINGER_MS: u64 = 1_000;
/// Bytes that it discards at most.
pub const LINGER_BYTES: usize = 1024 * 1024;
/// Longest rest of a body that may run ahead of its reader in one burst; longer ones are received
/// one buffer at a time.
pub const RUN_AHEAD: u64 = 64 * 1024;
/// Interim (1xx) answers that one exchange may have.
pub const INTERIM_ANSWERS: u32 = 16;
/// Tries of one request at upstreams: the first, and one more after a stale pooled connection.
pub const ATTEMPTS: u8 = 3;
/// Window over which the slowest body rate is judged, in milliseconds.
pub const BODY_RATE_WINDOW_MS: u64 = 10_000;
/// Pause after a failed accept (no descriptors, no memory), in milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Longest PROXY protocol header: v2 with addresses and TLVs.
pub const PROXY_HEADER: usize = 16 + 512;
/// How long a draining shard goes on accepting what has queued up, in milliseconds.
pub const BACKLOG_MS: u64 = 50;
/// How long a draining shard waits for the first request of a fresh connection, in milliseconds.
pub const DRAIN_FIRST_MS: u64 = 1_000;
/// Period of the shard's housekeeping (idle pool connections, heartbeat), in milliseconds.
pub const HOUSEKEEPING_MS: u64 = 500;
/// Requests that wait for one target's connection on one shard.
pub const POOL_WAITERS: usize = 10_000;
/// Heads for reuse that a shard keeps.
pub const SPARE_HEADS: usize = 64;
/// Received TLS bytes that wait for the rest of their record or handshake message.
pub const TLS_CARRY: usize = 80 * 1024;
/// ClientHello, in bytes with its record headers. Post-quantum key shares make them about 2 KiB.
pub const TLS_CLIENT_HELLO: usize = 32 * 1024;
/// Sessions that a listener with early data remembers, over all shards.
pub const TLS_SESSIONS: usize = 16 * 1024;
/// One remembered session, in bytes (it carries the client's certificates).
pub const TLS_SESSION_BYTES: usize = 8 * 1024;
/// How long a session can be resumed, in seconds (RFC 8446 §4.6.1 allows a week).
pub const TLS_SESSION_S: u32 = 6 * 60 * 60;
/// Sessions that are remembered per upstream, by server name.
pub const TLS_UPSTREAM_SESSIONS: usize = 256;

const _: () = assert!(TLS_CARRY > 64 * 1024 + 18 * 1024 - 4096, "a message of rustls' bound");
const _: () = assert!(REQUEST_LINE >= 8_000, "RFC 9112 §3");
const _: () = assert!(FORWARDED_HEAD > 32 * 1024 + 4096);
const _: () = assert!(DRAIN_BODY <= 64 * 1024, "bad-input B-41");
const _: () = assert!(ATTEMPTS >= 2);
const _: () = assert!(size_of::<usize>() == 8, "sizes are 64-bit throughout");
