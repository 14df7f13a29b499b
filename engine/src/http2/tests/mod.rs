//! Tests of connections, by raw frames.

mod abuse;
mod differential;
mod flow;
mod rules;
mod split;

use std::collections::VecDeque;

use super::frame::{FrameHeader, HEADER, flag, kind};
use super::*;

/// An event, without its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Head(StreamId, Vec<(String, String)>, bool),
    Data(StreamId, Vec<u8>, bool),
    Trailers(StreamId, Vec<(String, String)>),
    Reset(StreamId, ErrorCode, bool),
    Writable(StreamId),
    GoingAway(StreamId, ErrorCode),
    SettingsChanged,
    PingAck,
}

fn list(block: &HeaderBlock) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    block.iter().map(|(name, value)| (text(name), text(value))).collect()
}

impl From<Event> for Seen {
    fn from(event: Event) -> Seen {
        match event {
            Event::Head { stream, block, end } => Seen::Head(stream, list(&block), end),
            Event::Data { stream, data, end } => Seen::Data(stream, data.bytes().to_vec(), end),
            Event::Trailers { stream, block } => Seen::Trailers(stream, list(&block)),
            Event::Reset { stream, code, by_peer } => Seen::Reset(stream, code, by_peer),
            Event::Writable { stream } => Seen::Writable(stream),
            Event::GoingAway { last, code } => Seen::GoingAway(last, code),
            Event::SettingsChanged => Seen::SettingsChanged,
            Event::PingAck => Seen::PingAck,
        }
    }
}

/// A connection, what it has told and what it has sent.
pub(super) struct Bench {
    pub connection: Connection,
    pub seen: Vec<Seen>,
    pub error: Option<ConnectionError>,
    pub now_ms: u64,
}

impl Bench {
    /// A server whose client has sent preface and SETTINGS; a client whose server has sent SETTINGS.
    pub fn new(config: Config) -> Bench {
        let connection = Connection::new(config);
        let mut bench = Bench { connection, seen: Vec::new(), error: None, now_ms: 1000 };
        if config.role == Role::Server {
            bench.receive(PREFACE);
        }
        bench.receive(&frame(kind::SETTINGS, 0, 0, &[]));
        assert_eq!(bench.take(), [Seen::SettingsChanged]);
        bench.frames();
        bench
    }

    pub fn server() -> Bench {
        Bench::new(Config::SERVER)
    }

    pub fn client() -> Bench {
        Bench::new(Config::CLIENT)
    }

    /// Receives bytes as one chunk; false once the connection has failed.
    pub fn receive(&mut self, bytes: &[u8]) -> bool {
        let mut events = VecDeque::new();
        let result =
            self.connection.receive(Chunk::from_vec(bytes.to_vec()), self.now_ms, &mut events);
        self.seen.extend(events.into_iter().map(Seen::from));
        self.error = result.err();
        self.error.is_none()
    }

    /// Events so far.
    pub fn take(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    /// Frames sent so far.
    pub fn frames(&mut self) -> Vec<(FrameHeader, Vec<u8>)> {
        let output = self.connection.take_output(Vec::new()).unwrap_or_default();
        let mut events = VecDeque::new();
        self.connection.poll_writable(&mut events);
        self.seen.extend(events.into_iter().map(Seen::from));
        frames_of(output.strip_prefix(PREFACE).unwrap_or(&output))
    }

    /// The code of a RST_STREAM sent for `stream`.
    pub fn reset_sent(&mut self, stream: StreamId) -> Option<ErrorCode> {
        let frames = self.frames();
        let (_, payload) = frames
            .iter()
            .find(|(header, _)| header.kind == kind::RST_STREAM && header.stream == stream)?;
        Some(ErrorCode(u32::from_be_bytes(payload.as_slice().try_into().unwrap())))
    }

    /// The error, which must be the code of the GOAWAY sent.
    #[track_caller]
    pub fn failure(&mut self) -> ErrorCode {
        let error = self.error.expect("the connection goes on");
        let frames = self.frames();
        let (header, payload) = frames.last().expect("no GOAWAY");
        assert_eq!(header.kind, kind::GOAWAY);
        assert_eq!(payload[4..8], error.code.0.to_be_bytes());
        error.code
    }
}

pub(super) fn frames_of(mut bytes: &[u8]) -> Vec<(FrameHeader, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(header) = FrameHeader::parse(bytes) {
        let (payload, rest) = bytes[HEADER..].split_at(header.length);
        frames.push((header, payload.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty());
    frames
}

pub(super) fn frame(kind: u8, flags: u8, stream: StreamId, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    FrameHeader { length: payload.len(), kind, flags, stream }.write(&mut out);
    out.extend_from_slice(payload);
    out
}

pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        // As it is: tests send what the encoder never would.
        out.extend_from_slice(&[0, name.len() as u8]);
        out.extend_from_slice(name.as_bytes());
        hpack::shortest(&mut out, value.as_bytes());
    }
    out
}

pub(super) const GET: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")];

/// HEADERS of `fields`, whole.
pub(super) fn headers(stream: StreamId, end: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
    frame(kind::HEADERS, flags, stream, &block(fields))
}

/// A request without body.
pub(super) fn get(stream: StreamId) -> Vec<u8> {
    headers(stream, true, GET)
}

pub(super) fn data(stream: StreamId, end: bool, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, if end { flag::END_STREAM } else { 0 }, stream, payload)
}

pub(super) fn rst(stream: StreamId, code: ErrorCode) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

pub(super) fn window_update(stream: StreamId, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(super) fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in list {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, &payload)
}

pub(super) fn status(code: &str) -> Vec<(&str, &str)> {
    vec![(":status", code)]
}

pub(super) fn encoded_status(code: u16) -> Vec<u8> {
    let mut block = Vec::new();
    Encoder::status(&mut block, code);
    block
}
