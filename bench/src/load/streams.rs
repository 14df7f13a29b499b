//! The client's side of one HTTP/2 connection: many requests, all the same, in flight at once.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::h2::flow::Flow;
use crate::h2::hpack::{self, Decoder};
use crate::h2::{self, Broken, CANCEL, Event, Reader};
use crate::wire::decimal;

/// Until the server's SETTINGS have come; that every server takes so many is what
/// RFC 9113 §6.5.2 recommends.
const STREAMS_UNSEEN: usize = 100;
const LAST_STREAM: u32 = 0x7fff_ffff;

/// The request as it goes out on every stream.
#[derive(Clone, Debug)]
pub struct Request {
    /// The block of a connection's first request, and of all later ones.
    first: Rc<[u8]>,
    rest: Rc<[u8]>,
    /// The block for a server that keeps no table.
    stateless: Rc<[u8]>,
    body: Rc<[u8]>,
    grpc: bool,
}

impl Request {
    /// `body` is what comes in DATA frames, a gRPC message with its prefix. With `grpc` an
    /// answer is good only if its trailers say `grpc-status: 0`.
    pub fn new(fields: &[(String, String)], body: &[u8], grpc: bool) -> Self {
        let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let stateless = hpack::stateless(&fields);
        let (first, rest) =
            hpack::indexed(&fields).unwrap_or((stateless.clone(), stateless.clone()));
        Self {
            first: first.into(),
            rest: rest.into(),
            stateless: stateless.into(),
            body: body.into(),
            grpc,
        }
    }
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Answer {
        status: u16,
    },
    /// HTTP said 200, `grpc-status` something else than 0, or nothing.
    GrpcFailure,
    Reset,
    /// A whole answer, but not the one to this request.
    Wrong,
}

#[derive(Debug)]
struct Stream {
    id: u32,
    /// The (intended) start of its request, in ns.
    start: u64,
    status: u16,
    grpc_ok: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Streams {
    request: Request,
    reader: Reader,
    decoder: Decoder,
    flow: Flow,
    /// In flight, the oldest first.
    open: VecDeque<Stream>,
    next_id: u32,
    wanted: usize,
    server_allows: usize,
    /// The server's table is too small for ours.
    stateless: bool,
    /// That we have noticed is still to be said (RFC 7541 §4.2).
    shrunk: bool,
    going_away: bool,
}

impl Streams {
    /// A connection with up to `wanted` streams.
    pub fn new(request: Request, wanted: usize) -> Self {
        Self {
            request,
            reader: Reader::default(),
            decoder: Decoder::default(),
            flow: Flow::default(),
            open: VecDeque::with_capacity(wanted),
            next_id: 1,
            wanted,
            server_allows: STREAMS_UNSEEN,
            stateless: false,
            shrunk: false,
            going_away: false,
        }
    }

    /// Puts what a client says first into `out`.
    pub fn greet(&self, out: &mut Vec<u8>) {
        h2::put_greeting(true, out);
    }

    /// How many more requests may go out now.
    pub fn free(&self) -> usize {
        if self.going_away || self.next_id >= LAST_STREAM {
            return 0;
        }
        self.wanted.min(self.server_allows).saturating_sub(self.open.len())
    }

    /// The starts of the requests in flight, the oldest first.
    pub fn in_flight(&self) -> impl Iterator<Item = u64> {
        self.open.iter().map(|stream| stream.start)
    }

    /// The server wants no more requests here, or there are no more numbers for them.
    pub fn is_over(&self) -> bool {
        (self.going_away || self.next_id >= LAST_STREAM) && self.open.is_empty()
    }

    /// Sends one request.
    pub fn send(&mut self, start: u64, out: &mut Vec<u8>) {
        let id = self.next_id;
        self.next_id += 2;
        self.open.push_back(Stream { id, start, status: 0, grpc_ok: false });
        let Request { first, rest, stateless, body, .. } = &self.request;
        let block = match id {
            _ if self.stateless => stateless,
            1 => first,
            _ => rest,
        };
        if std::mem::take(&mut self.shrunk) {
            let block = [&[hpack::EMPTY_TABLE][..], block].concat();
            h2::put_headers(&block, id, body.is_empty(), out);
        } else {
            h2::put_headers(block, id, body.is_empty(), out);
        }
        if !body.is_empty() {
            self.flow.send(id, 0, body.clone(), None, out);
        }
    }

    /// Gives up the requests that started before `start`; returns their starts.
    pub fn give_up(&mut self, start: u64, out: &mut Vec<u8>) -> Vec<u64> {
        let mut late = Vec::new();
        while self.open.front().is_some_and(|stream| stream.start < start) {
            let Some(stream) = self.open.pop_front() else { break };
            h2::put_reset(stream.id, CANCEL, out);
            self.flow.forget(stream.id);
            late.push(stream.start);
        }
        late
    }

    /// Takes what came; calls `ended` with the start of each request that ended and how. What is
    /// to be said to it is put into `out`.
    pub fn feed(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut ended: impl FnMut(u64, Ended),
    ) -> Result<(), Broken> {
        let mut used = 0;
        while used < input.len() {
            let rest = input.get(used..).unwrap_or_default();
            let (took, event) = self.reader.next(rest)?;
            used += took;
            let Some(event) = event else { continue };
            let over = match event {
                Event::Headers { stream, block, end } => {
                    let (mut status, mut grpc_ok) = (0, false);
                    // Also that of a stream given up: the table must not miss it.
                    self.decoder.decode(
                        block,
                        |name| name == b":status" || name == b"grpc-status",
                        |name, value| match name {
                            b":status" => status = decimal(value).unwrap_or(0) as u16,
                            _ => grpc_ok = value == b"0",
                        },
                    )?;
                    if let Some(stream) = self.open.iter_mut().find(|open| open.id == stream) {
                        stream.grpc_ok |= grpc_ok;
                        // Interim answers (1xx) and trailers do not change it.
                        if status >= 200 {
                            stream.status = status;
                        }
                    }
                    end.then_some(stream)
                }
                Event::Data { stream, counted, end, .. } => {
                    if let Some(more) = self.flow.consume(counted) {
                        h2::put_window(0, more, out);
                    }
                    end.then_some(stream)
                }
                Event::Reset { stream, .. } => {
                    self.flow.forget(stream);
                    if let Some(stream) = self.take(stream) {
                        ended(stream.start, Ended::Reset);
                    }
                    None
                }
                Event::Settings(settings) => {
                    if let Some(max) = settings.max_streams {
                        self.server_allows = max as usize;
                    } else if self.server_allows == STREAMS_UNSEEN {
                        self.server_allows = usize::MAX;
                    }
                    if settings
                        .table_bytes
                        .is_some_and(|bytes| (bytes as usize) < hpack::TABLE_BYTES)
                    {
                        self.stateless = true;
                        self.shrunk = true;
                    }
                    self.flow.settings(settings.window, settings.max_frame);
                    h2::put_settings_ack(out);
                    self.flow.pump(out);
                    None
                }
                Event::Ping(payload) => {
                    h2::put_pong(payload, out);
                    None
                }
                Event::GoAway { .. } => {
                    self.going_away = true;
                    None
                }
                Event::Window { stream, more } => {
                    self.flow.grant(stream, more)?;
                    self.flow.pump(out);
                    None
                }
            };
            if let Some(stream) = over.and_then(|id| self.take(id)) {
                // Its body may still wait to be sent: the server answered early.
                self.flow.forget(stream.id);
                let failed = self.request.grpc && stream.status == 200 && !stream.grpc_ok;
                let how = if failed {
                    Ended::GrpcFailure
                } else {
                    Ended::Answer { status: stream.status }
                };
                ended(stream.start, how);
            }
        }
        Ok(())
    }

    fn take(&mut self, id: u32) -> Option<Stream> {
        let place = self.open.iter().position(|stream| stream.id == id)?;
        self.open.remove(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2::{flag, kind, put_head, put_headers};

    fn request(body: &[u8], grpc: bool) -> Request {
        let fields = [(":method", "POST"), (":path", "/x"), ("te", "trailers")];
        Request::new(&fields.map(|(n, v)| (n.to_owned(), v.to_owned())), body, grpc)
    }

    fn feed(streams: &mut Streams, input: &[u8]) -> (Vec<(u64, Ended)>, Vec<u8>) {
        let (mut ended, mut out) = (Vec::new(), Vec::new());
        for piece in input.chunks(5) {
            streams.feed(piece, &mut out, |start, how| ended.push((start, how))).unwrap();
        }
        (ended, out)
    }

    fn answer(id: u32, out: &mut Vec<u8>) {
        put_headers(&hpack::stateless(&[(":status", "100")]), id, false, out);
        put_headers(&hpack::stateless(&[(":status", "200")]), id, false, out);
        put_head(3, kind::DATA, 0, id, out);
        out.extend_from_slice(b"abc");
    }

    #[test]
    fn answers_in_any_order_with_what_grpc_says() {
        let mut out = Vec::new();
        let mut streams = Streams::new(request(b"\0\0\0\0\0", true), 3);
        for start in [10, 20, 30] {
            assert!(streams.free() > 0);
            streams.send(start, &mut out);
        }
        assert_eq!(streams.free(), 0);
        let mut input = Vec::new();
        answer(5, &mut input);
        put_headers(&hpack::stateless(&[("grpc-status", "0")]), 5, true, &mut input);
        answer(1, &mut input);
        put_headers(&hpack::stateless(&[("grpc-status", "13")]), 1, true, &mut input);
        h2::put_reset(3, 2, &mut input);
        h2::put_reset(3, 2, &mut input);
        let (ended, _) = feed(&mut streams, &input);
        let ok = Ended::Answer { status: 200 };
        assert_eq!(ended, [(30, ok), (10, Ended::GrpcFailure), (20, Ended::Reset)]);
        assert!(streams.in_flight().next().is_none() && !streams.is_over());
    }

    #[test]
    fn the_servers_settings_are_kept() {
        let mut streams = Streams::new(request(b"", false), 500);
        assert_eq!(streams.free(), 100, "before SETTINGS");
        let mut input = Vec::new();
        put_head(18, kind::SETTINGS, 0, 0, &mut input);
        input.extend_from_slice(&[0, 3, 0, 0, 0, 7, 0, 1, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1]);
        put_head(8, kind::PING, 0, 0, &mut input);
        input.extend_from_slice(b"pingpong");
        let (_, said) = feed(&mut streams, &input);
        assert_eq!(streams.free(), 7);
        let mut expected = Vec::new();
        h2::put_settings_ack(&mut expected);
        h2::put_pong(*b"pingpong", &mut expected);
        assert_eq!(said, expected);
        // Its table is gone, so every block stands alone.
        let (mut first, mut second) = (Vec::new(), Vec::new());
        streams.send(0, &mut first);
        streams.send(0, &mut second);
        assert_eq!(first[9], hpack::EMPTY_TABLE);
        assert_eq!(first[10..], second[9..]);
        assert_eq!(first[4], flag::END_HEADERS | flag::END_STREAM);
    }

    #[test]
    fn a_server_that_goes_away_is_sent_no_more() {
        let mut out = Vec::new();
        let mut streams = Streams::new(request(b"", false), 2);
        streams.send(1, &mut out);
        let mut input = Vec::new();
        put_head(8, kind::GOAWAY, 0, 0, &mut input);
        input.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
        feed(&mut streams, &input);
        assert!(streams.free() == 0 && !streams.is_over());
        let mut input = Vec::new();
        put_headers(&hpack::stateless(&[(":status", "204")]), 1, true, &mut input);
        assert_eq!(feed(&mut streams, &input).0, [(1, Ended::Answer { status: 204 })]);
        assert!(streams.is_over());
    }

    #[test]
    fn late_ones_are_given_up_and_their_answers_ignored() {
        let mut out = Vec::new();
        let mut streams = Streams::new(request(b"", false), 4);
        for start in [1, 2, 9] {
            streams.send(start, &mut out);
        }
        out.clear();
        assert_eq!(streams.give_up(5, &mut out), [1, 2]);
        let mut expected = Vec::new();
        h2::put_reset(1, CANCEL, &mut expected);
        h2::put_reset(3, CANCEL, &mut expected);
        assert_eq!(out, expected);
        let mut input = Vec::new();
        answer(1, &mut input);
        assert!(feed(&mut streams, &input).0.is_empty());
        assert_eq!(streams.in_flight().collect::<Vec<_>>(), [9]);
    }
}
