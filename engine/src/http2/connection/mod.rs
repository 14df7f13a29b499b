//! One connection: its state, and what is asked about it.

mod message;
mod receive;
mod send;

use std::collections::VecDeque;

use super::budget::Budget;
use super::error::{ConnectionError, ErrorCode};
use super::flow::{FIRST_WINDOW, ReceiveWindow, SendWindow};
use super::frame;
use super::headers::HeaderBlock;
use super::hpack::Decoder;
use super::settings::{self, PeerSettings};
use super::stream::{Ending, Stream, Streams};
use super::{Config, Event, PREFACE, Role, StreamId};
use crate::limits;

/// What a client asks for, as far as it decides how the response is framed (RFC 9110 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestKind {
    #[default]
    Plain,
    /// HEAD: content-length in the response announces no DATA.
    Head,
    /// CONNECT: content-length in a 2xx response means nothing.
    Connect,
}

/// The last id that a first, graceful GOAWAY names (RFC 9113 §6.8), and the last there is.
const LAST_ID: StreamId = 0x7fff_ffff;

/// A DATA frame whose header has been read.
struct Arriving {
    stream: StreamId,
    /// Payload still to come, without padding.
    left: usize,
    padding: usize,
    end: bool,
    /// Nobody waits for it; its credit has been given back.
    ignored: bool,
}

/// A header block whose END_HEADERS has not come yet.
struct Unfinished {
    stream: StreamId,
    end: bool,
    self_dependent: bool,
    frames: usize,
    bytes: Vec<u8>,
}

/// An HTTP/2 connection without its socket.
pub struct Connection {
    config: Config,
    peer: PeerSettings,
    /// Bytes of the client's preface that a server still waits for.
    preface_left: usize,
    /// The peer's first SETTINGS are there.
    settled: bool,
    settings_acked: bool,
    /// Since when an acknowledgement is awaited.
    settings_since: Option<u64>,
    ping_since: Option<u64>,
    pings: u64,

    // Receiving.
    carry: Vec<u8>,
    arriving: Option<Arriving>,
    unfinished: Option<Unfinished>,
    /// Since when the end of a frame or header block is awaited.
    partial_since: Option<u64>,
    decoder: Decoder,
    spare: Vec<HeaderBlock>,
    receive_window: ReceiveWindow,
    /// DATA bytes handed out and not released yet.
    unreleased: usize,
    /// Chunks of a few bytes among them, or so.
    crumbs: usize,

    // Sending.
    output: Vec<u8>,
    send_window: SendWindow,
    /// Streams that wait to send; those that ended meanwhile may still be in here.
    waiting: Vec<StreamId>,
    turn: u64,
    /// The peer has made its table smaller: the next block says that we use none
    /// (RFC 7541 §4.2).
    tell_table: bool,

    streams: Streams,
    /// The highest stream that the peer has opened.
    last_remote: StreamId,
    /// The next stream that we open.
    next_local: StreamId,
    /// The last stream that our GOAWAY lets through.
    goaway_sent: Option<StreamId>,
    goaway_received: bool,
    budget: Budget,
    now_ms: u64,
    failed: Option<ConnectionError>,
}

impl Connection {
    /// Queues what we send first: a client's preface, SETTINGS, and the connection's window.
    pub fn new(config: Config) -> Connection {
        let mut output = Vec::new();
        if config.role == Role::Client {
            output.extend_from_slice(PREFACE);
        }
        settings::write(&mut output, &config);
        let window = config.connection_window.max(FIRST_WINDOW);
        if window > FIRST_WINDOW {
            frame::write_window_update(&mut output, 0, window - FIRST_WINDOW);
        }
        Connection {
            config,
            peer: PeerSettings::default(),
            preface_left: if config.role == Role::Server { PREFACE.len() } else { 0 },
            settled: false,
            settings_acked: false,
            settings_since: None,
            ping_since: None,
            pings: 0,
            carry: Vec::new(),
            arriving: None,
            unfinished: None,
            partial_since: None,
            decoder: Decoder::new(config.header_table as usize),
            spare: Vec::new(),
            receive_window: ReceiveWindow::new(window, window),
            unreleased: 0,
            crumbs: 0,
            output,
            send_window: SendWindow::new(FIRST_WINDOW),
            waiting: Vec::new(),
            turn: 0,
            tell_table: false,
            streams: Streams::default(),
            last_remote: 0,
            next_local: 1,
            goaway_sent: None,
            goaway_received: false,
            budget: Budget::new(),
            now_ms: 0,
            failed: None,
        }
    }

    /// What is to be sent; `fresh`, an empty vector, takes its place. `None` if there is nothing.
    /// Call [`Connection::poll_writable`] afterwards: there is room again.
    pub fn take_output(&mut self, fresh: Vec<u8>) -> Option<Vec<u8>> {
        debug_assert!(fresh.is_empty());
        if self.output.is_empty() {
            return None;
        }
        self.budget.taken();
        Some(std::mem::replace(&mut self.output, fresh))
    }

    /// Bytes that wait for [`Connection::take_output`].
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Takes a block's memory back for the next one.
    pub fn recycle(&mut self, mut block: HeaderBlock) {
        if self.spare.len() < limits::H2_SPARE_BLOCKS
            && block.bytes.capacity() <= limits::H2_SPARE_BLOCK_BYTES
        {
            block.clear();
            self.spare.push(block);
        }
    }

    /// Streams of which a half is open.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Whether the stream is known: not reset, not finished. An event's stream may have ended by
    /// an event behind it.
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some()
    }

    /// No stream is open.
    pub fn is_idle(&self) -> bool {
        self.streams.len() == 0
    }

    /// A GOAWAY was sent or received, or the connection has failed.
    pub fn is_going_away(&self) -> bool {
        self.goaway_sent.is_some() || self.goaway_received || self.failed.is_some()
    }

    /// The peer's first SETTINGS are there.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Since when a frame or a header block has begun and its end is awaited, in monotonic
    /// milliseconds: for whoever times slow peers. Not for the payload of DATA, which is taken as it
    /// comes.
    pub fn partial_since(&self) -> Option<u64> {
        self.partial_since
    }

    /// The peer speaks extended CONNECT (RFC 8441 §3).
    pub fn peer_allows_extended_connect(&self) -> bool {
        self.peer.extended_connect
    }

    /// Largest header list that the peer wants to see: advice (RFC 9113 §6.5.2).
    pub fn peer_max_header_list(&self) -> u32 {
        self.peer.max_header_list
    }

    /// DATA bytes received and not released yet: what the connection's readers hold.
    pub fn unreleased(&self) -> usize {
        self.unreleased
    }

    /// Client: how many more streams could be opened now.
    pub fn available_streams(&self) -> u32 {
        if self.is_going_away() || self.next_local > LAST_ID {
            return 0;
        }
        let most = self.config.max_concurrent_streams.min(self.peer.max_concurrent_streams);
        most.saturating_sub(self.streams.len() as u32)
    }

    /// Whether the peer has let the time pass in which SETTINGS or a PING are acknowledged
    /// (RFC 9113 §6.5.3). Close with [`Connection::abandon`] then.
    pub fn overdue(&mut self, now_ms: u64) -> bool {
        let late = |since: u64| now_ms.saturating_sub(since) > limits::H2_ACK_MS;
        if !self.settings_acked && late(*self.settings_since.get_or_insert(now_ms)) {
            return true;
        }
        self.ping_since.is_some_and(late)
    }

    /// Ends the connection at our will: queues a GOAWAY with `code`.
    pub fn abandon(&mut self, code: ErrorCode) {
        if self.failed.is_none() {
            self.fail(ConnectionError::new(code, "given up"));
        }
    }

    fn fail(&mut self, error: ConnectionError) -> ConnectionError {
        self.failed = Some(error);
        let last = self.last_remote.min(self.goaway_sent.unwrap_or(LAST_ID));
        frame::write_goaway(&mut self.output, last, error.code, error.reason);
        self.goaway_sent = Some(last);
        error
    }

    /// A stream with the windows of this moment.
    fn fresh_stream(&self, kind: RequestKind) -> Stream {
        let window = self.config.stream_window;
        Stream {
            send: SendWindow::new(self.peer.initial_window),
            // Until our SETTINGS arrive, the peer counts from the protocol's default.
            receive: ReceiveWindow::new(window.max(FIRST_WINDOW), window),
            remote_done: false,
            local_done: false,
            headed: false,
            expected: None,
            waiting: false,
            served: 0,
            kind,
        }
    }

    /// Tells which waiting streams can send again, those first that have waited longest. Done by
    /// [`Connection::receive`]; to be called after [`Connection::take_output`].
    pub fn poll_writable(&mut self, events: &mut VecDeque<Event>) {
        if self.waiting.is_empty() {
            return;
        }
        let room = self.room();
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut ready = Vec::new();
        waiting.retain(|&id| match self.streams.get_mut(id) {
            Some(stream) if room > 0 && stream.send.available() > 0 => {
                stream.waiting = false;
                ready.push((stream.served, id));
                false
            }
            Some(_) => true,
            None => false,
        });
        self.waiting = waiting;
        ready.sort_unstable();
        events.extend(ready.into_iter().map(|(_, stream)| Event::Writable { stream }));
    }

    /// DATA bytes that the connection's window and the output's bound allow.
    fn room(&self) -> usize {
        let output = limits::H2_OUTPUT.saturating_sub(self.output.len());
        self.send_window.available().min(output)
    }

    /// Removes a stream whose halves are both done.
    fn settle(&mut self, stream: StreamId) {
        if self.streams.end_if_done(stream) {
            self.budget.finished();
        }
    }

    /// Queues RST_STREAM and forgets the stream.
    fn cut(&mut self, stream: StreamId, code: ErrorCode) {
        if !self.streams.end(stream, Ending::ResetByUs) {
            self.streams.remember(stream, Ending::ResetByUs);
        }
        frame::write_rst_stream(&mut self.output, stream, code);
    }
}
