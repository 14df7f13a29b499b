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
/// How long a shard remembers whose a certificate is.
pub const AUTH_CERTIFICATE_MS: u64 = 60_000;
/// Most signatures on one request.
pub const SIGNATURES: usize = 8;
/// How far ahead the clock of who signs may be.
pub const SIGNATURE_LEEWAY_S: i64 = 60;
/// Counters against guessing, twice, and accounts with the addresses they were entered from; 8 bytes each.
pub const THROTTLE_SLOTS: usize = 64 * 1024;
/// First characters of an API key by which failures are counted: what names keys, not what opens.
pub const THROTTLE_PREFIX: usize = 8;
/// Base64 of a user and a password, in bytes.
pub const BASIC_CREDENTIAL: usize = 1_024;
/// How long a good password is remembered.
pub const BASIC_MEMORY_MS: u64 = 5 * 60_000;
/// Threads of the store that compute.
pub const STORE_THREADS: usize = 10;
/// Passwords that are hashed at once.
pub const BASIC_HASHES: usize = 3;
/// The same with those that wait: under a second at 50 ms each.
pub const BASIC_WAITING: usize = 48;
/// Memory and passes of argon2 that a hash may ask for.
pub const ARGON2_KIB: u32 = 256 * 1024;
pub const ARGON2_PASSES: u32 = 16;
/// A policy's text, in bytes.
pub const POLICY_TEXT: usize = 4 * 1024;
/// Operations, names and constants of a policy.
pub const POLICY_NODES: usize = 512;
/// How deep they nest.
pub const POLICY_DEPTH: usize = 64;
/// Most items of a list or map that a policy looks at.
pub const POLICY_ITEMS: usize = 1_024;
/// Stack on which policies are compiled: the parser nests as deep as the text is long.
pub const POLICY_STACK: usize = 64 * 1024 * 1024;
/// Memory that a compiled regular expression of a policy may take, in bytes.
pub const POLICY_PATTERN: usize = 1024 * 1024;
/// Lengths of API keys, in bytes.
pub const API_KEY: std::ops::RangeInclusive<usize> = 8..=512;
/// How long a shard remembers an API key without a look at where it is known, in milliseconds.
pub const KEY_REMEMBER_MS: u64 = 3_600_000;
/// The same for keys in Redis: by then a shard looks at what the node knows.
pub const KEY_ASK_MS: u64 = 60_000;
/// How long Redis' word on a key is good while nobody would tell of a change, in milliseconds.
pub const KEY_UNTRACKED_MS: u64 = 1_000;
/// A key's record in Redis, in bytes.
pub const KEY_RECORD: usize = 4 * 1024;
/// Times that a key is asked for as its record changes while it is read.
pub const KEY_TRIES: u32 = 3;
/// Good keys in Redis that a node knows, twice (see `store::keys::table`).
pub const KEYS_KNOWN: usize = 64 * 1024;
/// Keys that a node knows not to be there, twice.
pub const KEYS_ABSENT: usize = 64 * 1024;
/// Keys whose use is to be written, of a node to Redis, or of a shard to control.
pub const KEYS_USED: usize = 64 * 1024;
/// How often the use of one key is noted, in milliseconds.
pub const KEY_USED_MS: u64 = 60_000;
/// How often what was noted is written.
pub const KEY_USED_WRITE_MS: u64 = 1_000;
/// Uses of keys that a shard tells control of at once.
pub const KEYS_USED_TOLD: usize = 1_024;
/// How long Redis keeps when a key was last used, in seconds.
pub const KEY_USED_S: i64 = 400 * 24 * 3_600;
/// Commands that wait for one Redis connection.
pub const REDIS_COMMANDS: usize = 20_000;
/// Commands that are written together.
pub const REDIS_BATCH: usize = 256;
/// Connecting to Redis, in milliseconds, handshakes included.
pub const REDIS_CONNECT_MS: u64 = 2_000;
/// How long after the start questions to Redis wait for the first connection.
pub const REDIS_FIRST_MS: u64 = 1_000;
/// An answer of Redis that nobody bounds otherwise; a connection that owes one for longer is given up.
pub const REDIS_COMMAND_MS: u64 = 2_000;
/// Pauses between attempts to connect to Redis: the first, doubled up to the second.
pub const REDIS_BACKOFF_MS: (u32, u32) = (50, 500);
/// The pause after Redis refused to tell of changes.
pub const REDIS_REFUSED_MS: u32 = 5_000;
/// How often Redis is asked whether it is there...
pub const REDIS_BEAT_MS: u64 = 250;
/// ...and how many of these questions it may leave open.
pub const REDIS_BEATS_MISSED: u32 = 2;
/// A message of Redis' about changes, in bytes.
pub const REDIS_PUSH: usize = 4 * 1024 * 1024;
/// How long known keys do without the question after Redis was silent.
pub const REDIS_SILENT_MS: u64 = 500;
/// How often a cluster's servers are looked at.
pub const REDIS_TOPOLOGY_MS: u64 = 500;
/// How long a token without an end is remembered.
pub const AUTH_ENDLESS_MS: u64 = 60_000;
/// JSON Web Token, in bytes.
pub const JWT: usize = 16 * 1024;
/// Keys that one token is tried with.
pub const JWT_KEYS: usize = 8;
/// A shard asks for a key set to be fetched at most once in this time.
pub const KEY_WISH_MS: u64 = 10_000;
/// How long a token with a key that nobody knows waits for the set to come.
pub const KEY_WAIT_MS: u64 = 2_000;
/// How often it looks.
pub const KEY_LOOK_MS: u64 = 50;
/// Requests of one shard that wait for key sets.
pub const KEY_WAITERS: u32 = 64;
/// Bytes of a session in one cookie: browsers take 4,096 with name and attributes (RFC 6265 §6.1).
pub const SESSION_COOKIE: usize = 3_800;
/// Cookies of one session. All of them have to fit in a request head.
pub const SESSION_COOKIES: usize = 4;
/// How long a login waits for the provider's new keys; control fetches them every ten seconds at most.
pub const LOGIN_KEY_MS: u64 = 11_000;
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
/// Names of `Access-Control-Request-Headers` that are looked at.
pub const CORS_HEADERS: usize = 128;
/// Questions to one service (introspection, a token endpoint, an external decision) that are open at
/// once; more wait for their turn.
pub const ENDPOINT_QUESTIONS: usize = 256;
/// Its answer, in bytes.
pub const ENDPOINT_ANSWER: usize = 256 * 1024;
/// Answers of one service that the node keeps, twice (see `store::answers`).
pub const ANSWERS: usize = 16 * 1024;
/// Their bytes, twice.
pub const ANSWERS_BYTES: usize = 16 * 1024 * 1024;
/// Challenges of an external decision that callers are told, in bytes.
pub const CHALLENGES: usize = 2 * 1024;
/// Fields that upstreams get of one answer of an external decision, in bytes.
pub const TAKEN_FIELDS: usize = 16 * 1024;
/// Life of an upstream's token that does not say how long it lives, and the longest believed, in
/// milliseconds.
pub const GRANT_LIFE_MS: u64 = 5 * 60_000;
pub const GRANT_LONGEST_MS: u64 = 30 * 24 * 3_600_000;
/// Shortest pause between two fetches of it; the pause after many failures.
pub const GRANT_PAUSE_MS: u64 = 1_000;
pub const GRANT_BACK_OFF_MS: u64 = 30_000;
/// An upstream's 401 has it fetched anew at most once in this time, in milliseconds.
pub const GRANT_DOUBT_MS: u64 = 10_000;
/// Names of services that are being resolved at once. Each holds one of the store's threads.
pub const LOOKUPS: usize = 2;
/// Connections to services that no one has asked for this long are forgotten, in milliseconds.
pub const CLIENT_IDLE_MS: u64 = 10 * 60_000;
/// The operator is told of one service's failures once in this time, in milliseconds.
pub const COMPLAINT_MS: u64 = 60_000;
/// Leases that a shard has (see `limit::lease`).
pub const LEASES: usize = 512 * 1024;
/// Requests of one shard that wait for tokens.
pub const LEASE_WAITERS: usize = 10_000;
/// How long a request waits for tokens before it is refused, in milliseconds. The ledger answers sooner.
pub const LEASE_WAIT_MS: u64 = 1_000;
/// A lease is made for what was used in this time, in milliseconds.
pub const LEASE_AHEAD_MS: u64 = 100;
/// Tokens that nobody took for so long are given back...
pub const LEASE_RETURN_MS: u64 = 1_000;
/// ...and after this the lease is forgotten.
pub const LEASE_IDLE_MS: u64 = 10_000;
/// What was spent is told after this at the latest, however long the window is, in milliseconds.
pub const LEASE_REPORT_MS: u64 = 30_000;
/// While limits are not kept as Redis cannot be asked, the ledger is asked at most once in this time.
pub const LEASE_LOST_MS: u64 = 100;
/// A bucket's name, in bytes, and what places it.
pub const BUCKET_NAME: usize = 256;
pub const BUCKET_TAG: usize = 128;
/// Segments of an http rule's path template.
pub const TEMPLATE_SEGMENTS: usize = 64;
/// Bindings of a route that transcodes.
pub const BINDINGS: usize = 10_000;
/// Fields of a message that is transcoded.
pub const MESSAGE_FIELDS: usize = 10_000;
/// How deep the messages of a message, and values in JSON, may be nested.
pub const MESSAGE_DEPTH: usize = 100;
/// Details of a call's status, and metadata behind its message, that a client is told.
pub const STATUS_DETAILS: usize = 64;
/// Values that one path template takes out of a path.
pub const TEMPLATE_NAMES: usize = 16;
/// Request line without its CRLF, in bytes: past it 414. RFC 9112 §3 asks for at least 8,000.
pub const REQUEST_LINE: usize = 8 * 1024;
/// One field name, in bytes.
pub const FIELD_NAME: usize = 256;
/// Client-chosen `X-Request-Id` values longer than this are replaced.
pub const REQUEST_ID: usize = 128;
/// Things wrong with a request that its sender is told of.
pub const FAULTS: usize = 10;
/// Longest text of one, and of its place, in bytes: names in them may be the client's.
pub const FAULT_TEXT: usize = 200;
/// Values in a document of which all faults are gathered; of larger ones the first is told.
pub const FAULTS_LISTED: usize = 1_000;
/// Values in a document that is validated. A small object takes 700 bytes in memory.
pub const VALIDATED_VALUES: usize = 200_000;
/// Values of one parameter.
pub const PARAMETER_VALUES: usize = 1_000;
/// Steps that a pattern with look-around or back-references may take on one value.
pub const PATTERN_STEPS: usize = 10_000;
/// Bodies up to this are validated on the shard (well under a millisecond), larger ones by the store's
/// threads.
pub const VALIDATED_INLINE: usize = 16 * 1024;
/// Bodies that the store's threads validate at once.
pub const VALIDATIONS: usize = 2;
/// The same with those that wait.
pub const VALIDATIONS_WAITING: usize = 64;
/// Bodies that a shard has gathered to validate them, in bytes.
pub const GATHERED_BYTES: usize = 256 * 1024 * 1024;
/// What an external processor may answer beside a body, in bytes.
pub const PROCESSOR_ANSWER: usize = 256 * 1024;
/// Head that the gateway may write to an upstream: the client's, rewritten, and our own fields.
pub const FORWARDED_HEAD: usize = 64 * 1024;
/// First part of a body of the gateway's own, which goes in one buffer with the head.
pub const OWN_FIRST: usize = 16 * 1024;
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
/// Resets in a row at one target, without an answer between, that are taken for peers closing
/// connections that were idle; more are failures.
pub const STALE_RESETS: u32 = 3;
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

const _: () = assert!(
    REDIS_BEAT_MS * (REDIS_BEATS_MISSED as u64 + 1) <= 1_000 && KEY_UNTRACKED_MS <= 1_000,
    "a revoked key ends within a second"
);
const _: () = assert!(
    BASIC_HASHES + VALIDATIONS + PAYLOADS + JQ_WORKERS < STORE_THREADS,
    "one is left for signatures"
);
const _: () = assert!(JWT <= AUTH_CREDENTIAL, "what was verified is remembered");
const _: () = assert!(TLS_CARRY > 64 * 1024 + 18 * 1024 - 4096, "a message of rustls' bound");
const _: () = assert!(REQUEST_LINE >= 8_000, "RFC 9112 §3");
const _: () = assert!(FORWARDED_HEAD > 32 * 1024 + 4096 + TAKEN_FIELDS);
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

/// Windows of limits that a node counts at a time; past it the oldest go.
pub const LIMIT_BUCKETS: usize = 256 * 1024;
/// Of these looked at in one go.
pub const LIMIT_CHECKS: usize = 4 * 1024;
/// Statements of one call, and calls that one server has to answer at a time. A statement takes Redis some
/// 30 to 60 us, so that beats and whoever waits come through within milliseconds, however many keys there
/// are.
pub const LIMIT_STATEMENTS: usize = 32;
pub const LIMIT_CALLS: usize = 4;
/// Times at which tokens were spent that a statement tells apart.
pub const LIMIT_SPENT: usize = 640;
/// When those are asked again that were refused for a server that does not answer.
pub const LIMIT_AGAIN_MS: u64 = 20;
/// How long a request waits for tokens that another shard holds.
pub const LIMIT_RECALL_MS: u64 = 5;
/// A server that answers within this is not slow; one that does not is not waited for (or for three
/// time-outs of the spec, where these are longer).
pub const LIMIT_SOON_MS: u64 = 50;
/// How long to wait before connecting again to a Redis that keeps limits: at first, and at most.
pub const LIMIT_BACKOFF_MS: (u64, u64) = (20, 500);
/// Nodes of a cluster that are asked who has its slots.
pub const LIMIT_SEEDS: usize = 64;
/// People are told at once of all partitions of a cluster that are lost within this.
pub const LIMIT_TELL_MS: u64 = 300;
/// A connection on which nothing was answered for so long is given up.
pub const LIMIT_SILENT_MS: u64 = 2_000;
/// How long the end of a process waits for what it gives back.
pub const LIMIT_FAREWELL_MS: u64 = 300;
/// How deep JSON (and XML) nests that is changed.
pub const JSON_DEPTH: usize = 128;
/// Values in one JSON document that is changed: 32 bytes each and more.
pub const JSON_VALUES: usize = 1_000_000;
/// Pairs of a form.
pub const FORM_PAIRS: usize = 10_000;
/// Attributes of one XML element.
pub const XML_ATTRIBUTES: usize = 256;
/// Segments of a JSON Pointer, and names of a dotted path, in a rule.
pub const POINTER_SEGMENTS: usize = 32;
/// What the operations of a rule may add to a document, by copies and values of their own, in bytes.
pub const PAYLOAD_ADDED: usize = 16 * 1024 * 1024;
/// Largest body that is changed on the shard itself, in bytes; others are changed on a thread of the store.
pub const PAYLOAD_INLINE: usize = 16 * 1024;
/// How many times its size a decoded body may have...
pub const DECODE_RATIO: u64 = 250;
/// ...once it is larger than this, in bytes.
pub const DECODE_FREE: u64 = 256 * 1024;
/// Encoders that a shard keeps for the next body: less than 1 MiB each.
pub const ENCODERS_KEPT: usize = 16;

/// Longest template, in bytes; its literals and placeholders; filters of a placeholder; steps into JSON.
pub const TEMPLATE_BYTES: usize = 64 * 1024;
pub const TEMPLATE_PARTS: usize = 256;
pub const TEMPLATE_FILTERS: usize = 16;
pub const TEMPLATE_STEPS: usize = 32;
/// Where a filter that makes a value longer stops, in bytes.
pub const TEMPLATE_VALUE: usize = 1024 * 1024;
/// A jq program's text, in bytes.
pub const JQ_PROGRAM: usize = 16 * 1024;
/// Stack on which jq programs are compiled and run: both nest as deep as the program wants.
pub const JQ_STACK: usize = 256 * 1024 * 1024;
/// Memory of a jq worker, in bytes, its stack included.
pub const JQ_MEMORY: u64 = 768 * 1024 * 1024;
/// What a jq program may give, in bytes.
pub const JQ_OUTPUT: usize = 64 * 1024 * 1024;
/// Programs that run at once, and with those that wait.
pub const JQ_WORKERS: usize = 2;
pub const JQ_WAITING: usize = 64;
/// Programs that a worker has compiled.
pub const JQ_PROGRAMS: usize = 256;
/// After so many runs a worker gives way to a new one.
pub const JQ_RUNS: u32 = 100_000;
/// Bodies that are changed at once away from their shards, and with those that wait.
pub const PAYLOADS: usize = 2;
pub const PAYLOADS_WAITING: usize = 128;
/// How nice the store's threads for work that computes are, beside shards of 0.
pub const STORE_NICE: i32 = 5;

/// What a stored answer costs beside its bytes: its struct, its places in the index and in a queue, and
/// what allocators add.
pub const CACHE_OBJECT_COST: usize = 1_024;
/// The same for each tag and each field that selects it.
pub const CACHE_ITEM_COST: usize = 48;
/// Fields that an answer may depend on (`Vary`).
pub const CACHE_VARY_FIELDS: usize = 16;
/// Their names and values, in bytes.
pub const CACHE_SELECTING_BYTES: usize = 8 * 1024;
/// Answers under one key that differ by such fields.
pub const CACHE_VARIANTS: usize = 32;
/// Field lines of a stored answer, and their bytes: less than an answer may have, as what is said with each
/// use comes on top.
pub const CACHE_HEAD_FIELDS: usize = 112;
pub const CACHE_HEAD_BYTES: usize = 48 * 1024;
/// Tags of a stored answer that count.
pub const CACHE_TAGS: usize = 128;
/// Longest that an answer is guessed to be good, in seconds.
pub const CACHE_HEURISTIC_S: u64 = 24 * 3_600;
/// Longest that one request asks about a stored answer for all, in milliseconds; also how long the next
/// one waits if that has failed.
pub const CACHE_REFRESH_MS: u64 = 10_000;
/// How long nobody waits for an answer like one that could not be stored, in milliseconds.
pub const CACHE_ALONE_MS: u64 = 10_000;
/// What a body that comes without its length is given room by, in bytes.
pub const CACHE_STEP: usize = 64 * 1024;
/// Largest JSON value of an answer that a filter of a template is given, as memory, in bytes.
pub const AGGREGATE_TEMPLATE_VALUE: usize = 1024 * 1024;
/// Largest body of a request whose templates ask for it, in bytes.
pub const AGGREGATE_REQUEST_BODY: usize = 1024 * 1024;
/// How deep selections and values of a GraphQL document nest, fragments followed.
pub const GRAPHQL_RECURSION: usize = 200;
