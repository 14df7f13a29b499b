//! The origin's side of one HTTP/2 connection, gRPC among it.

use std::rc::Rc;

use memchr::memmem;

use super::{Kind, Pantry, kind};
use crate::h2::flow::Flow;
use crate::h2::hpack::{self, Decoder};
use crate::h2::{self, Broken, Event, Reader};

/// The largest gRPC message that is sent back.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// The prefix of a gRPC message: a flag, and the length.
const PREFIX_BYTES: usize = 5;
/// Requests whose end has not come, on one connection.
const MAX_CALLS: usize = 10_000;

/// An answer ready to be sent.
#[derive(Clone, Debug)]
pub struct Meal {
    block: Rc<[u8]>,
    body: Rc<[u8]>,
    trailers: Option<Rc<[u8]>>,
}

impl Meal {
    pub fn new(kind: Kind, grpc: bool) -> Self {
        let (Kind::Bytes(n) | Kind::Chunked(n)) = kind else {
            return Self {
                block: hpack::stateless(&[(":status", "400")]).into(),
                body: Rc::default(),
                trailers: None,
            };
        };
        if grpc {
            let mut body = vec![0];
            body.extend_from_slice(&(n as u32).to_be_bytes());
            body.resize(PREFIX_BYTES + n as usize, b'x');
            return Self::message(body.into());
        }
        let length = n.to_string();
        let mut fields = vec![(":status", "200"), ("content-type", "text/plain")];
        if let Kind::Bytes(_) = kind {
            fields.push(("content-length", &length));
        }
        Self {
            block: hpack::stateless(&fields).into(),
            body: vec![b'x'; n as usize].into(),
            trailers: None,
        }
    }

    /// The answer to a gRPC call.
    fn message(body: Rc<[u8]>) -> Self {
        let fields = [(":status", "200"), ("content-type", "application/grpc")];
        let block = hpack::stateless(&fields).into();
        let trailers = Some(hpack::stateless(&[("grpc-status", "0")]).into());
        Self { block, body, trailers }
    }
}

/// A request of which more is to come.
#[derive(Debug)]
struct Call {
    id: u32,
    kind: Kind,
    head_only: bool,
    grpc: bool,
    /// Send back what comes.
    echo: bool,
    message: Vec<u8>,
    granted: i64,
}

#[derive(Debug, Default)]
pub struct Calls {
    reader: Reader,
    decoder: Decoder,
    flow: Flow,
    open: Vec<Call>,
}

impl Calls {
    /// Begins after the preface, and puts what is said first into `out`.
    pub fn new(out: &mut Vec<u8>) -> Self {
        h2::put_greeting(false, out);
        Self::default()
    }

    /// Reads requests out of `input` and puts the answers into `out`.
    pub fn take(
        &mut self,
        input: &[u8],
        pantry: &mut Pantry,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let mut used = 0;
        while used < input.len() {
            let (took, event) = self.reader.next(input.get(used..).unwrap_or_default())?;
            used += took;
            let Some(event) = event else { continue };
            match event {
                Event::Headers { stream, block, end } => {
                    let default = pantry.bytes;
                    let mut call = Call {
                        id: stream,
                        kind: Kind::Refused,
                        head_only: false,
                        grpc: false,
                        echo: false,
                        message: Vec::new(),
                        granted: 0,
                    };
                    let mut echo = false;
                    self.decoder.decode(
                        block,
                        |name| matches!(name, b":path" | b":method" | b"content-type"),
                        |name, value| match name {
                            b":path" => {
                                echo = memmem::find(value, b"/bytes/").is_none();
                                call.kind = kind(value, default);
                            }
                            b":method" => call.head_only = value == b"HEAD",
                            _ => call.grpc = value.starts_with(b"application/grpc"),
                        },
                    )?;
                    call.echo = call.grpc && echo;
                    let known = self.open.iter().position(|open| open.id == stream);
                    match known {
                        // Trailers.
                        Some(place) if end => {
                            let call = self.open.swap_remove(place);
                            self.answer(call, pantry, out);
                        }
                        Some(_) => return Err(Broken::Protocol),
                        None if end => self.answer(call, pantry, out),
                        None if self.open.len() >= MAX_CALLS => return Err(Broken::Protocol),
                        None => self.open.push(call),
                    }
                }
                Event::Data { stream, piece, counted, end } => {
                    if let Some(more) = self.flow.consume(counted) {
                        h2::put_window(0, more, out);
                    }
                    let Some(place) = self.open.iter().position(|open| open.id == stream) else {
                        continue;
                    };
                    if let Some(call) = self.open.get_mut(place)
                        && call.echo
                        && call.message.len() + piece.len() <= PREFIX_BYTES + MAX_MESSAGE_BYTES
                    {
                        call.message.extend_from_slice(piece);
                    }
                    if end {
                        let call = self.open.swap_remove(place);
                        self.answer(call, pantry, out);
                    }
                }
                Event::Reset { stream, .. } => {
                    self.open.retain(|open| open.id != stream);
                    self.flow.forget(stream);
                }
                Event::Settings(settings) => {
                    self.flow.settings(settings.window, settings.max_frame);
                    h2::put_settings_ack(out);
                    self.flow.pump(out);
                }
                Event::Ping(payload) => h2::put_pong(payload, out),
                Event::Window { stream, more } => {
                    match self.open.iter_mut().find(|open| open.id == stream) {
                        Some(call) => call.granted += i64::from(more),
                        None => self.flow.grant(stream, more)?,
                    }
                    self.flow.pump(out);
                }
                Event::GoAway { .. } => {}
            }
        }
        Ok(())
    }

    fn answer(&mut self, call: Call, pantry: &mut Pantry, out: &mut Vec<u8>) {
        let meal = if !call.echo {
            pantry.meal(call.kind, call.grpc)
        } else if is_message(&call.message) {
            pantry.work();
            Meal::message(call.message.into())
        } else {
            // INTERNAL: what came is not what a client sends.
            let fields =
                [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "13")];
            let block = hpack::stateless(&fields).into();
            Meal { block, body: Rc::default(), trailers: None }
        };
        let bare = call.head_only || (meal.body.is_empty() && meal.trailers.is_none());
        h2::put_headers(&meal.block, call.id, bare, out);
        if !bare {
            self.flow.send(call.id, call.granted, meal.body, meal.trailers, out);
        }
    }
}

/// Whether `bytes` are one message, whole, not compressed.
fn is_message(bytes: &[u8]) -> bool {
    match bytes.split_first_chunk::<PREFIX_BYTES>() {
        Some((&[0, a, b, c, d], message)) => {
            message.len() == u32::from_be_bytes([a, b, c, d]) as usize
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::h2::{flag, kind, put_head, put_headers};

    /// What is answered to `input`, frame by frame: kind, flags, stream, payload.
    fn answers(input: &[u8], piece: usize) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut pantry = Pantry::new(128, Duration::ZERO);
        let mut out = Vec::new();
        let mut calls = Calls::new(&mut Vec::new());
        for piece in input.chunks(piece) {
            calls.take(piece, &mut pantry, &mut out).unwrap();
        }
        let (mut rest, mut frames) = (&out[..], Vec::new());
        while !rest.is_empty() {
            let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
            let stream = u32::from_be_bytes([rest[5], rest[6], rest[7], rest[8]]);
            frames.push((rest[3], rest[4], stream, rest[9..9 + length].to_vec()));
            rest = &rest[9 + length..];
        }
        frames
    }

    fn headers(fields: &[(&str, &str)], stream: u32, end: bool, out: &mut Vec<u8>) {
        put_headers(&hpack::stateless(fields), stream, end, out);
    }

    #[test]
    fn sizes_and_heads() {
        let mut input = Vec::new();
        headers(&[(":method", "GET"), (":path", "/r1/bytes/3")], 1, true, &mut input);
        headers(&[(":method", "HEAD"), (":path", "/")], 3, true, &mut input);
        headers(&[(":method", "POST"), (":path", "/bytes/0")], 5, false, &mut input);
        put_head(2, kind::DATA, flag::END_STREAM, 5, &mut input);
        input.extend_from_slice(b"hi");
        let both = flag::END_HEADERS | flag::END_STREAM;
        let frames = answers(&input, 7);
        let seen: Vec<_> = frames.iter().map(|f| (f.0, f.1, f.2)).collect();
        assert_eq!(
            seen,
            [
                (kind::HEADERS, flag::END_HEADERS, 1),
                (kind::DATA, flag::END_STREAM, 1),
                (kind::HEADERS, both, 3),
                (kind::HEADERS, both, 5),
            ]
        );
        assert_eq!(frames[1].3, b"xxx");
    }

    #[test]
    fn calls_are_answered_with_what_they_brought() {
        let call = [(":method", "POST"), (":path", "/s/M"), ("content-type", "application/grpc")];
        let mut input = Vec::new();
        headers(&call, 1, false, &mut input);
        headers(&call, 3, false, &mut input);
        for (stream, bytes) in [(1, &b"\0\0\0\0\x02hi"[..]), (3, b"\0\0\0\0\x02h")] {
            put_head(bytes.len(), kind::DATA, flag::END_STREAM, stream, &mut input);
            input.extend_from_slice(bytes);
        }
        for piece in [1, 1000] {
            let frames = answers(&input, piece);
            assert_eq!(frames.len(), 4);
            assert_eq!(frames[1].3, b"\0\0\0\0\x02hi");
            let both = flag::END_HEADERS | flag::END_STREAM;
            assert_eq!((frames[2].0, frames[2].1, frames[2].2), (kind::HEADERS, both, 1));
            assert_eq!(frames[2].3, hpack::stateless(&[("grpc-status", "0")]));
            assert_eq!((frames[3].1, frames[3].2), (both, 3), "a broken message");
        }
    }

    #[test]
    fn a_long_answer_waits_for_the_client() {
        let mut input = Vec::new();
        headers(&[(":method", "GET"), (":path", "/bytes/100000")], 1, true, &mut input);
        let sent = |frames: Vec<(u8, u8, u32, Vec<u8>)>| -> usize {
            frames.iter().filter(|f| f.0 == kind::DATA).map(|f| f.3.len()).sum()
        };
        assert_eq!(sent(answers(&input, 1000)), 65_535);
        h2::put_window(0, 100_000, &mut input);
        assert_eq!(sent(answers(&input, 1000)), 65_535);
        h2::put_window(1, 100_000, &mut input);
        assert_eq!(sent(answers(&input, 1000)), 100_000);
    }
}
