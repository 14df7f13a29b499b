//! HTTP/2 (RFC 9113) and HPACK (RFC 7541) as pure code: bytes in, events out, bytes out. No I/O,
//! no clock: the time is an argument.
//!
//! - [`Connection`] is one connection, in either [`Role`]. Give it what was received with
//!   [`Connection::receive`], send what [`Connection::take_output`] gives.
//! - [`HeaderBlock`] is a decoded, validated header block: one buffer and spans into it. What is
//!   malformed (RFC 9113 §8.1.1) never becomes an event; its stream is reset here.
//! - [`Encoder`] writes header blocks that depend on no connection's state, so that a block can be
//!   sent again elsewhere.
//! - What a peer may cost without being useful is bounded natively ([`budget`]).

mod budget;
mod connection;
mod error;
mod flow;
mod frame;
mod fuzz;
mod headers;
pub mod hpack;
mod settings;
mod stream;
#[cfg(test)]
mod tests;

pub use connection::{Connection, RequestKind};
pub use error::{ConnectionError, ErrorCode, Gone, OpenError};
pub use headers::{HeaderBlock, Pseudo};
pub use hpack::Encoder;

#[doc(hidden)]
pub use fuzz::{fuzz_hpack, fuzz_http2_client, fuzz_http2_server};

use crate::io::Chunk;

/// A stream's number. Clients use odd ones (RFC 9113 §5.1.1).
pub type StreamId = u32;

/// What a client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// What a connection announces and allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub role: Role,
    /// Streams at a time: announced by servers; for clients a bound beside the peer's.
    pub max_concurrent_streams: u32,
    /// Receive window of a new stream. It grows while its reader keeps up.
    pub stream_window: u32,
    /// What it may grow to.
    pub max_stream_window: u32,
    /// Receive window of the connection: the most that can be received and not yet released.
    pub connection_window: u32,
    /// Size of a decoded header block by RFC 9113 §6.5.2 (32 bytes per field on top).
    pub max_header_list: u32,
    /// Field lines of one block, pseudo-header fields included.
    pub max_fields: usize,
    /// HPACK table that the peer's encoder may use.
    pub header_table: u32,
    /// Largest frame payload received. 16,384 to 16,777,215 (RFC 9113 §4.2).
    pub max_frame: u32,
    /// Servers: announce extended CONNECT (RFC 8441).
    pub extended_connect: bool,
}

impl Config {
    pub const SERVER: Config = Config {
        role: Role::Server,
        max_concurrent_streams: 100,
        stream_window: 64 * 1024,
        max_stream_window: 1024 * 1024,
        connection_window: 1024 * 1024,
        max_header_list: 64 * 1024,
        max_fields: crate::message::MAX_FIELDS,
        header_table: 4096,
        max_frame: 16_384,
        extended_connect: false,
    };
    pub const CLIENT: Config = Config { role: Role::Client, ..Config::SERVER };
}

/// What [`Connection::receive`] found.
#[derive(Debug)]
pub enum Event {
    /// A request's head (server), or a response's, interim ones included (client).
    Head { stream: StreamId, block: HeaderBlock, end: bool },
    /// Body bytes; empty only with `end`. Give their number to [`Connection::release`] when they
    /// have been dealt with, even if the stream is gone by then.
    Data { stream: StreamId, data: Chunk, end: bool },
    /// The trailer section; it ends the message.
    Trailers { stream: StreamId, block: HeaderBlock },
    /// The stream is over, both ways: reset by the peer, or by us since the peer broke the rules.
    Reset { stream: StreamId, code: ErrorCode, by_peer: bool },
    /// A stream whose last [`Connection::send_data`] was short can send again.
    Writable { stream: StreamId },
    /// The peer's GOAWAY. Our streams above `last` did not reach it; each has a
    /// [`Event::Reset`] with REFUSED_STREAM of its own.
    GoingAway { last: StreamId, code: ErrorCode },
    /// The peer's settings came: the first, or new ones.
    SettingsChanged,
    /// The peer answered [`Connection::send_ping`].
    PingAck,
}
