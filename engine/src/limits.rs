//! Every bound of the engine that is not a setting of the spec. A bound that could be crossed by a
//! hostile peer is here or in the snapshot; nothing grows without one.

use std::mem::size_of;

/// Longest credential whose outcome is remembered, in bytes.
pub const AUTH_CREDENTIAL: usize = 16 * 1024;
/// Credentials that a shard remembers, twice (see `auth::memory`).
pub const AUTH_MEMORY: usize = 32 * 1024;
/// Their bytes, twice.
pub const AUTH_MEMORY_BYTES: usize = 32 * 1024 * 1024;
/// How long a wrong credential is remembered.
pub const AUTH_NEGATIVE_MS: u64 = 1_000;
/// Bytes of a session in one cookie: browsers take 4,096 with name and attributes (RFC 6265 §6.1).
pub const SESSION_COOKIE: usize = 3_800;
/// Cookies of one session. All of them have to fit in a request head.
pub const SESSION_COOKIES: usize = 4;
/// How long a login may take, in seconds.
pub const LOGIN_S: u32 = 600;
/// Longest path and query that a login goes back to.
pub const LOGIN_BACK: usize = 1_500;
/// How long before its end an access token is refreshed, in seconds.
pub const REFRESH_AHEAD_S: u64 = 10;
/// How long requests that still come with the old session get what it was refreshed to.
pub const REFRESHED_MS: u64 = 30_000;
/// Refreshes of one authenticator in that time.
pub const REFRESHES: usize = 10_000;
/// How long a shard remembers whose a session is.
pub const AUTH_SESSION_MS: u64 = 60_000;
/// Questions of one shard to the store thread that are open at once.
pub const STORE_QUESTIONS: usize = 10_000;
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
/// Tries of one request at an upstream that may be asked for (`Retry::attempts`), the first included.
pub const TRIES: usize = 10;
/// Rest of an answer that is thrown away so that its connection can be used for another try; with
/// more left the connection is closed.
pub const DISCARDED_ANSWER: usize = 64 * 1024;
/// Copies of requests that a shard has under way to mirrors.
pub const MIRRORS: u32 = 128;
/// How long such a copy may take as a whole, in milliseconds.
pub const MIRROR_MS: u64 = 10_000;
/// Answer of a mirror that is read and thrown away; with more its connection is closed.
pub const MIRROR_ANSWER: usize = 256 * 1024;
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
/// Output of an HTTP/2 connection that waits for the peer: past it nothing more is read from it.
pub const MUX_OUTPUT: usize = 64 * 1024;
/// Streams of one upstream connection, if the upstream allows as many.
pub const UPSTREAM_STREAMS: u32 = 1_000;
/// Header list that an upstream may send, in bytes as HTTP/2 counts them.
pub const UPSTREAM_HEADER_LIST: u32 = 64 * 1024;
/// How long a suspect upstream connection has for the answer to a ping, in milliseconds.
pub const PING_ANSWER_MS: u64 = 5_000;
/// How long a draining HTTP/2 connection still takes requests that were sent before the client
/// knew, in milliseconds.
pub const GOAWAY_GRACE_MS: u64 = 200;
/// Points of a ring that targets are hashed to: 8 bytes each.
pub const RING_POINTS: usize = 128 * 1024;
/// Points of it that one pick looks at before it takes the least loaded target.
pub const RING_STEPS: usize = 256;
/// Answer to a health check, in bytes.
pub const HEALTH_ANSWER: usize = 4 * 1024;
/// Longest that a client can say it will wait (`grpc-timeout` or a route's `deadline_header`), in
/// milliseconds.
pub const PATIENCE_MS: u64 = 30 * 24 * 3_600_000;
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
const _: () = assert!(TRIES >= 2 && TRIES < u8::MAX as usize);
const _: () = assert!(size_of::<usize>() == 8, "sizes are 64-bit throughout");

// HTTP/2 (http2/budget.rs tells how the budgets are used).

/// Frames that one header block may come in.
pub const H2_BLOCK_FRAMES: usize = 32;
/// Encoded bytes of a header block beyond the limit of the decoded one.
pub const H2_BLOCK_SLACK: usize = 16 * 1024;
/// Times the limit that a header block may decode to, contents being dropped past the limit,
/// before the connection is given up.
pub const H2_BLOCK_GIVE_UP: usize = 4;
/// Streams that ended, of which is known how.
pub const H2_ENDED_STREAMS: usize = 256;
/// Streams that a peer may reset, or make us reset, at once...
pub const H2_RESETS: u32 = 80;
/// ...and per second. Every second finished stream allows one more.
pub const H2_RESETS_PER_SECOND: u32 = 20;
/// Frames without use that a peer may send at once...
pub const H2_CONTROL_FRAMES: u32 = 500;
/// ...and per second...
pub const H2_CONTROL_FRAMES_PER_SECOND: u32 = 20;
/// ...and for each HEADERS and DATA frame, of either side.
pub const H2_CONTROL_FRAMES_EARNED: u32 = 2;
/// WINDOW_UPDATE increments below this are never part of a sensible flow; DATA below it costs more
/// to keep than it carries.
pub const H2_CRUMB: u32 = 256;
/// Pieces of DATA below that size that readers may leave unread on one connection.
pub const H2_CRUMBS_HELD: usize = 16 * 1024;
/// DATA of this size is handed on in the buffer it came in; less is copied, so that a few bytes do
/// not occupy one.
pub const H2_HAND_OVER: usize = 8 * 1024;
/// Replies to control frames that may wait for a peer that does not read.
pub const H2_QUEUED_REPLIES: usize = 900;
/// Output that may be queued before no more DATA is taken.
pub const H2_OUTPUT: usize = 256 * 1024;
/// Time to acknowledge SETTINGS and PING, in milliseconds.
pub const H2_ACK_MS: u64 = 10_000;
/// Header blocks for reuse that a connection keeps, and the largest kept.
pub const H2_SPARE_BLOCKS: usize = 4;
pub const H2_SPARE_BLOCK_BYTES: usize = 8 * 1024;

const _: () = assert!(H2_RESETS < 1_000 && H2_CONTROL_FRAMES < 1_000, "faults 16, 19");
const _: () = assert!(H2_QUEUED_REPLIES < 1_000, "faults 19");
const _: () = assert!(H2_BLOCK_FRAMES <= 32, "faults 18");
