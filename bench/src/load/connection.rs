//! One connection of the load: clear or TLS, HTTP/1.1 or HTTP/2, behind one face.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::os::fd::OwnedFd;

use super::response::{Answer, Parser};
use super::streams::{Ended, Request, Streams};
use super::target::Rotation;
use crate::faults::origin::ID_DIGITS;
use crate::h2::Broken;
use crate::tls::Session;
use crate::wire::Malformed;

/// Bytes that may wait to be sent before no more requests are taken up.
const MAX_UNSENT_BYTES: usize = 1 << 20;

/// Why a connection is given up.
#[derive(Debug)]
pub enum Fault {
    Http1(Malformed),
    Http2(Broken),
    Tls(rustls::Error),
    /// Bytes that nobody asked for.
    Unasked,
    /// The server does not speak HTTP/2, or would rather not.
    NotHttp2,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1(error) => write!(f, "HTTP/1.1: {error}"),
            Self::Http2(error) => write!(f, "HTTP/2: {error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Unasked => f.write_str("an answer that nobody asked for"),
            Self::NotHttp2 => f.write_str("TLS: the server did not choose h2"),
        }
    }
}

/// What is spoken.
enum Talk {
    /// The starts of the requests in flight, in ns, beside the parser.
    Http1(Parser, VecDeque<u64>),
    Http2(Box<Streams>),
}

/// How the request `start` has ended. Its start is its id: no two are due at once.
fn judge(parser: &Parser, answer: &Answer, start: u64) -> Ended {
    if parser.is_wrong(answer, start) {
        return Ended::Wrong;
    }
    Ended::Answer { status: answer.status }
}

impl Talk {
    /// `false` means that the connection has to be closed.
    fn feed(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut ended: impl FnMut(u64, Ended),
    ) -> Result<bool, Fault> {
        match self {
            Self::Http1(parser, in_flight) => {
                let mut used = 0;
                while used < input.len() {
                    let rest = input.get(used..).unwrap_or_default();
                    let (took, answer) = parser.feed(rest).map_err(Fault::Http1)?;
                    used += took;
                    let Some(answer) = answer else { continue };
                    let start = in_flight.pop_front().ok_or(Fault::Unasked)?;
                    ended(start, judge(parser, &answer, start));
                    if answer.close {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Http2(streams) => {
                streams.feed(input, out, ended).map_err(Fault::Http2)?;
                Ok(!streams.is_over())
            }
        }
    }
}

/// Room that all connections of a thread use in turn.
#[derive(Default)]
pub struct Scratch {
    plain: Vec<u8>,
    said: Vec<u8>,
}

/// What every connection of a run does.
pub struct Script<'a> {
    /// Copies of the HTTP/1.1 request, so that a batch goes out with one send.
    pub batch: &'a [u8],
    /// Bytes of one of them.
    pub each: usize,
    /// Set for HTTP/2.
    pub request: Option<Request>,
    pub head_only: bool,
    /// Requests in flight on one connection.
    pub pipeline: usize,
    /// Where in a request its id stands; set where ids are checked.
    pub id_at: Option<usize>,
    /// What differs from request to request.
    pub rotation: Option<&'a Rotation>,
}

impl Script<'_> {
    /// Writes one request with its id.
    fn stamp(&self, at: usize, id: u64, out: &mut Vec<u8>) {
        let begin = out.len() + at;
        out.extend_from_slice(self.batch.get(..self.each).unwrap_or_default());
        let place = out.get_mut(begin..begin + ID_DIGITS).into_iter().flatten();
        for (digit, n) in place.rev().zip(0..) {
            *digit = b'0' + (id / 10u64.pow(n) % 10) as u8;
        }
    }
}

pub struct Connection {
    pub socket: OwnedFd,
    /// TCP is connected.
    pub connected: bool,
    pub watches_out: bool,
    /// When it was begun, in ns.
    pub opened: u64,
    tls: Option<Session>,
    /// Requests may be sent: after the handshake, if there is one.
    ready: bool,
    talk: Talk,
    /// What of the present batch is still to be sent as it is.
    unsent: Range<usize>,
    /// What else is to be sent.
    out: Vec<u8>,
    sent: usize,
}

impl Connection {
    pub fn new(socket: OwnedFd, tls: Option<Session>, opened: u64, script: &Script<'_>) -> Self {
        let talk = match &script.request {
            Some(request) => Talk::Http2(Box::new(Streams::new(request.clone(), script.pipeline))),
            None => {
                let new = if script.id_at.is_some() { Parser::checking } else { Parser::new };
                Talk::Http1(new(script.head_only), VecDeque::with_capacity(script.pipeline))
            }
        };
        Self {
            socket,
            connected: false,
            watches_out: true,
            opened,
            tls,
            ready: false,
            talk,
            unsent: 0..0,
            out: Vec::new(),
            sent: 0,
        }
    }

    /// TCP is connected: begins what comes next.
    pub fn begin(&mut self) {
        self.connected = true;
        match &mut self.tls {
            Some(tls) => tls.flush(&mut self.out),
            None => self.greet(),
        }
    }

    fn greet(&mut self) {
        self.ready = true;
        let Talk::Http2(streams) = &self.talk else { return };
        match &mut self.tls {
            None => streams.greet(&mut self.out),
            Some(tls) => {
                let mut said = Vec::new();
                streams.greet(&mut said);
                // Without a limit on its buffer rustls takes everything.
                let _ = tls.write(&said, &mut self.out);
            }
        }
    }

    /// Takes what came. Calls `ended` for each request that has ended. `false` means that the
    /// connection has to be closed.
    pub fn take(
        &mut self,
        wire: &[u8],
        scratch: &mut Scratch,
        ended: impl FnMut(u64, Ended),
    ) -> Result<bool, Fault> {
        let Some(tls) = &mut self.tls else {
            return self.talk.feed(wire, &mut self.out, ended);
        };
        let Scratch { plain, said } = scratch;
        plain.clear();
        let open = tls.feed(wire, plain, &mut self.out).map_err(Fault::Tls)?;
        if !self.ready {
            if tls.is_handshaking() {
                return Ok(open);
            }
            if matches!(self.talk, Talk::Http2(_)) && !tls.speaks_http2() {
                return Err(Fault::NotHttp2);
            }
            self.greet();
        }
        said.clear();
        let goes_on = self.talk.feed(plain, said, ended)?;
        self.say(said);
        Ok(open && goes_on)
    }

    /// Sends bytes of the conversation through TLS, if there is one.
    fn say(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            _ if bytes.is_empty() => {}
            Some(tls) => {
                let _ = tls.write(bytes, &mut self.out);
            }
            None => self.out.extend_from_slice(bytes),
        }
    }

    /// The server has ended the connection: so may an HTTP/1.1 answer.
    pub fn end(&mut self, mut ended: impl FnMut(u64, Ended)) {
        if let Talk::Http1(parser, in_flight) = &mut self.talk
            && let Some(answer) = parser.end()
            && let Some(start) = in_flight.pop_front()
        {
            ended(start, judge(parser, &answer, start));
        }
    }

    /// How many more requests may be sent now.
    pub fn free(&self, script: &Script<'_>) -> usize {
        if !self.ready || !self.unsent.is_empty() || self.out.len() > MAX_UNSENT_BYTES {
            return 0;
        }
        match &self.talk {
            Talk::Http1(_, in_flight) => script.pipeline.saturating_sub(in_flight.len()),
            Talk::Http2(streams) => streams.free(),
        }
    }

    /// Sends as many requests as there are `starts`, at most [`Self::free`].
    pub fn send(
        &mut self,
        starts: impl Iterator<Item = u64>,
        script: &Script<'_>,
        scratch: &mut Scratch,
    ) {
        match &mut self.talk {
            Talk::Http1(_, in_flight) if script.id_at.is_some() => {
                let said = &mut scratch.said;
                said.clear();
                for start in starts {
                    in_flight.push_back(start);
                    script.stamp(script.id_at.unwrap_or_default(), start, said);
                }
                self.say(said);
            }
            Talk::Http1(_, in_flight) if script.rotation.is_some() => {
                let Some(rotation) = script.rotation else { return };
                let said = &mut scratch.said;
                said.clear();
                let request = script.batch.get(..script.each).unwrap_or_default();
                for start in starts {
                    in_flight.push_back(start);
                    rotation.write(request, said);
                }
                self.say(said);
            }
            Talk::Http1(_, in_flight) => {
                let before = in_flight.len();
                in_flight.extend(starts);
                let bytes = 0..(in_flight.len() - before) * script.each;
                if self.tls.is_none() {
                    self.unsent = bytes;
                } else {
                    self.say(script.batch.get(bytes).unwrap_or_default());
                }
            }
            Talk::Http2(streams) if self.tls.is_none() => {
                starts.for_each(|start| streams.send(start, &mut self.out));
            }
            Talk::Http2(streams) => {
                let said = &mut scratch.said;
                said.clear();
                starts.for_each(|start| streams.send(start, said));
                self.say(said);
            }
        }
    }

    /// What is to be sent next.
    pub fn unsent<'a>(&'a self, script: &Script<'a>) -> &'a [u8] {
        if self.out.is_empty() {
            script.batch.get(self.unsent.clone()).unwrap_or_default()
        } else {
            self.out.get(self.sent..).unwrap_or_default()
        }
    }

    /// So much of it has been sent.
    pub fn sent(&mut self, bytes: usize) {
        if self.out.is_empty() {
            self.unsent.start += bytes;
            return;
        }
        self.sent += bytes;
        if self.sent >= self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
    }

    /// The start of the oldest request in flight.
    pub fn oldest(&self) -> Option<u64> {
        match &self.talk {
            Talk::Http1(_, in_flight) => in_flight.front().copied(),
            Talk::Http2(streams) => streams.in_flight().next(),
        }
    }

    pub fn is_idle(&self) -> bool {
        self.oldest().is_none()
    }

    /// The starts of all requests in flight.
    pub fn in_flight(&self) -> Vec<u64> {
        match &self.talk {
            Talk::Http1(_, in_flight) => in_flight.iter().copied().collect(),
            Talk::Http2(streams) => streams.in_flight().collect(),
        }
    }

    /// Gives up the requests that started before `start`, and returns their starts. Where one
    /// cannot be given up alone it is all of the connection, which then has to be closed.
    pub fn give_up(&mut self, start: u64) -> (Vec<u64>, bool) {
        match &mut self.talk {
            Talk::Http1(..) => (self.in_flight(), true),
            Talk::Http2(streams) => {
                let mut said = Vec::new();
                let late = streams.give_up(start, &mut said);
                self.say(&said);
                (late, false)
            }
        }
    }

    /// Whether the handshake is over, and if so, whether it resumed a session.
    pub fn resumed(&self) -> Option<bool> {
        let tls = self.tls.as_ref().filter(|_| self.ready)?;
        Some(tls.resumed())
    }
}
