//! Entry points for fuzzing: they panic where a promise is broken, never on bad input.
//!
//! The first byte chooses where the rest is cut, so that one corpus covers all ways of arrival.

use std::collections::VecDeque;

use super::frame::{FrameHeader, HEADER, kind};
use super::hpack::{Class, Decoder, Encoder, Limits, Sink};
use super::{Config, Connection, Event, PREFACE, RequestKind, Role, StreamId};
use crate::io::Chunk;
use crate::message::Span;

/// Limits that short inputs can reach.
const SMALL: Config = Config {
    max_concurrent_streams: 5,
    stream_window: 70_000,
    connection_window: 100_000,
    max_header_list: 2_000,
    max_fields: 20,
    extended_connect: true,
    ..Config::SERVER
};

/// What the peer sends at least: an empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, kind::SETTINGS, 0, 0, 0, 0, 0];

/// A server that receives `data` behind preface and SETTINGS.
pub fn fuzz_http2_server(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else { return };
    let start = || begun(SMALL);
    assert_eq!(told(start(), bytes, bytes.len().max(1)), told(start(), bytes, step_len(step)));
    answered(start(), bytes, step_len(step));
}

/// A client with requests under way that receives `data` behind SETTINGS.
pub fn fuzz_http2_client(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else { return };
    let start = || {
        let mut client = begun(Config { role: Role::Client, ..SMALL });
        for (end, kind) in
            [(true, RequestKind::Plain), (true, RequestKind::Head), (false, RequestKind::Connect)]
        {
            assert!(client.open(&[0x82, 0x86, 0x84], end, kind).is_ok());
        }
        client
    };
    assert_eq!(told(start(), bytes, bytes.len().max(1)), told(start(), bytes, step_len(step)));
    answered(start(), bytes, step_len(step));
}

fn step_len(step: u8) -> usize {
    usize::from(step / 2) + 1
}

fn begun(config: Config) -> Connection {
    let mut connection = Connection::new(config);
    let mut events = VecDeque::new();
    let preface = if config.role == Role::Server { &PREFACE[..] } else { &[] };
    let bytes = [preface, SETTINGS].concat();
    assert!(connection.receive(Chunk::from_vec(bytes), 0, &mut events).is_ok());
    connection
}

/// Events in a form that can be compared: DATA that was cut differently reads the same.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    events: Vec<(u8, StreamId, Vec<u8>, bool)>,
    error: Option<super::ConnectionError>,
    output: Vec<u8>,
}

/// What a connection makes of `bytes` in pieces, if nobody reacts.
fn told(mut connection: Connection, bytes: &[u8], step: usize) -> Told {
    let mut told = Told { events: Vec::new(), error: None, output: Vec::new() };
    let mut events = VecDeque::new();
    for piece in bytes.chunks(step) {
        told.error = connection.receive(Chunk::copy_of(piece), 0, &mut events).err();
        check(&connection);
        if told.error.is_some() {
            break;
        }
    }
    for event in events {
        let line = match event {
            Event::Head { stream, block, end } => (0, stream, check_block(&block), end),
            Event::Trailers { stream, block } => (1, stream, check_block(&block), true),
            Event::Data { stream, data, end } => {
                assert!(end || !data.is_empty());
                match told.events.last_mut() {
                    Some((2, last, bytes, over)) if *last == stream && !*over => {
                        bytes.extend_from_slice(data.bytes());
                        *over = end;
                        continue;
                    }
                    _ => (2, stream, data.bytes().to_vec(), end),
                }
            }
            Event::Reset { stream, code, by_peer } => {
                (3, stream, code.0.to_be_bytes().to_vec(), by_peer)
            }
            Event::Writable { stream } => (4, stream, Vec::new(), false),
            Event::GoingAway { last, code } => (5, last, code.0.to_be_bytes().to_vec(), false),
            Event::SettingsChanged => (6, 0, Vec::new(), false),
            Event::PingAck => (7, 0, Vec::new(), false),
        };
        told.events.push(line);
    }
    told.output = connection.take_output(Vec::new()).unwrap_or_default();
    check_frames(&told.output);
    told
}

/// Lets an application react to everything, in ways that depend on the stream.
fn answered(mut connection: Connection, bytes: &[u8], step: usize) {
    let mut events = VecDeque::new();
    let body = [b'x'; 30_000];
    for (now, piece) in bytes.chunks(step).enumerate() {
        let over = connection.receive(Chunk::copy_of(piece), now as u64, &mut events).is_err();
        while let Some(event) = events.pop_front() {
            match event {
                Event::Head { stream, block, .. } => {
                    check_block(&block);
                    connection.recycle(block);
                    let open = connection.is_open(stream);
                    match stream % 7 {
                        0 => connection.reset(stream, super::ErrorCode::CANCEL),
                        1 => {
                            let sent = connection.send_head(stream, &[0x88], true);
                            assert!(open || sent.is_err());
                        }
                        _ => {
                            let _ = connection.send_head(stream, &[0x88], false);
                            let _ = connection.send_data(stream, &body, stream % 3 == 0);
                        }
                    }
                }
                Event::Data { stream, data, .. } if stream % 5 != 0 => {
                    connection.release(stream, data.len());
                }
                Event::Writable { stream } => {
                    let capacity = connection.capacity(stream);
                    assert!(
                        capacity > 0 || !connection.is_open(stream) || connection.output_len() > 0
                    );
                    if let Ok(n) = connection.send_data(stream, &body, true) {
                        assert_eq!(n, capacity.min(body.len()));
                    }
                }
                Event::Trailers { stream, .. } => {
                    let _ = connection.send_trailers(stream, &[0, 1, b'a', 1, b'b']);
                }
                _ => {}
            }
        }
        check(&connection);
        if now % 3 == 0 || over {
            check_frames(&connection.take_output(Vec::new()).unwrap_or_default());
            connection.poll_writable(&mut events);
        }
        if over {
            return;
        }
    }
}

fn check(connection: &Connection) {
    assert!(connection.stream_count() <= 5);
    assert!(connection.unreleased() <= 100_000);
    assert!(connection.output_len() <= 512 * 1024);
}

fn check_frames(mut bytes: &[u8]) {
    bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    while let Some(header) = FrameHeader::parse(bytes) {
        assert!(header.length <= 16_384);
        bytes = bytes.get(HEADER + header.length..).expect("a whole frame");
    }
    assert!(bytes.is_empty());
}

/// Everything in a block as one text.
fn check_block(block: &super::HeaderBlock) -> Vec<u8> {
    assert!(block.bytes.len() <= 2_000 && block.fields.len() <= 20);
    let mut text = Vec::new();
    for (name, value) in block.iter() {
        assert!(block.too_large || !name.is_empty());
        assert!(block.too_large || !name.iter().any(u8::is_ascii_uppercase));
        text.extend_from_slice(name);
        text.push(b'\n');
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    text
}

#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    list: Vec<(Span, Span)>,
    too_large: bool,
}

impl Sink for Fields {
    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn field(&mut self, name: Span, value: Span, class: Class, valid: bool) {
        assert!(name.end == value.start && value.end as usize == self.bytes.len());
        assert!(!valid || Class::of(name.of(&self.bytes)) == class);
        assert!(!self.too_large);
        self.list.push((name, value));
    }

    fn too_large(&mut self) {
        self.too_large = true;
    }
}

/// Decodes `data` as two header blocks; what was decoded survives being encoded again.
pub fn fuzz_hpack(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let limits = Limits { size: 1_000, fields: 30, give_up: 4 };
    let mut decoder = Decoder::new(4096);
    let (first, second) = bytes.split_at_checked(cut.into()).unwrap_or((bytes, &[]));
    for block in [first, second] {
        let mut fields = Fields::default();
        if decoder.decode(block, &limits, &mut fields).is_err() {
            return;
        }
        assert!(fields.bytes.len() + 32 * fields.list.len() <= 1_000);
        assert!(fields.list.len() <= 30);
        let mut encoded = Vec::new();
        let mut lower = fields.bytes.clone();
        for (name, value) in &fields.list {
            Encoder::field(&mut encoded, name.of(&fields.bytes), value.of(&fields.bytes));
            if let Some(name) = lower.get_mut(name.start as usize..name.end as usize) {
                name.make_ascii_lowercase();
            }
        }
        let mut again = Fields::default();
        assert_eq!(Decoder::new(4096).decode(&encoded, &limits, &mut again), Ok(()));
        assert_eq!((again.bytes, again.list), (lower, fields.list));
    }
}
