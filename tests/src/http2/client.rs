//! An HTTP/2 client that sends any frames and reads answers strictly.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::frame::*;
use super::{End, Event, Peer, pseudo};
use crate::PATIENCE;
use crate::message::values;
use crate::stream::Stream;
use crate::tls::TlsClient;

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The fields of each 1xx before it.
    pub interim: Vec<Vec<(String, String)>>,
}

impl Answer {
    /// The value of a field that must not repeat.
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = values(&self.fields, name);
        assert!(all.len() <= 1, "{name} is there {} times in {:?}", all.len(), self.fields);
        all.first().copied()
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        values(&self.trailers, name).first().copied()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// RST_STREAM, and what of the answer had come.
    Reset(u32, Answer),
    /// GOAWAY that leaves the stream out, or with an error.
    GoAway(u32),
    Closed,
    TimedOut,
    Malformed(String),
}

#[derive(Debug, Default)]
struct Open {
    answer: Answer,
    head: bool,
    done: bool,
    reset: Option<u32>,
    is_head: bool,
}

/// One connection.
#[derive(Debug)]
pub struct H2Client {
    pub peer: Peer,
    next: u32,
    streams: BTreeMap<u32, Open>,
    /// Every GOAWAY so far: last stream and code.
    pub goaways: Vec<(u32, u32)>,
    /// Streams that were reset.
    pub resets: Vec<(u32, u32)>,
    pub closed: bool,
    pub pongs: usize,
}

/// A request of `method` for `path` at host a.test.
pub fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", "a.test"), (":path", path)]
}

impl H2Client {
    /// Over a connection that stands; sends nothing.
    pub fn over(stream: impl Into<Stream>) -> H2Client {
        H2Client {
            peer: Peer::new(stream),
            next: 1,
            streams: BTreeMap::new(),
            goaways: Vec::new(),
            resets: Vec::new(),
            closed: false,
            pongs: 0,
        }
    }

    /// Connects in clear text by prior knowledge (RFC 9113 §3.3).
    pub fn clear(address: SocketAddr) -> H2Client {
        H2Client::clear_with(address, &[])
    }

    pub fn clear_with(address: SocketAddr, settings: &[(u16, u32)]) -> H2Client {
        let tcp = TcpStream::connect_timeout(&address, PATIENCE)
            .unwrap_or_else(|e| panic!("connect to {address}: {e}"));
        H2Client::over(tcp).open(settings)
    }

    /// Connects over TLS; ALPN must give h2.
    #[track_caller]
    pub fn tls(address: SocketAddr, tls: &TlsClient) -> H2Client {
        let (stream, agreed) = tls
            .clone()
            .alpn(&["h2", "http/1.1"])
            .connect(address)
            .unwrap_or_else(|e| panic!("handshake with {address}: {e}"));
        assert_eq!(agreed.alpn.as_deref(), Some("h2"));
        H2Client::over(stream).open(&[])
    }

    /// Sends the preface and settings.
    pub fn open(mut self, settings: &[(u16, u32)]) -> H2Client {
        self.peer.write(PREFACE);
        self.peer.send_settings(settings);
        self
    }

    pub fn send(&mut self, frame: &Frame) -> &mut H2Client {
        self.peer.send(frame);
        self
    }

    /// Takes the next stream's number without using it.
    pub fn take_stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Opens a stream with these fields.
    pub fn begin(&mut self, fields: &[(&str, &str)], end: bool) -> u32 {
        let stream = self.take_stream();
        let is_head = fields.contains(&(":method", "HEAD"));
        self.streams.insert(stream, Open { is_head, ..Open::default() });
        let mut block = block(fields);
        let mut kind = HEADERS;
        let mut flags = u8::from(end);
        while block.len() > 16_384 {
            let rest = block.split_off(16_384);
            self.peer.send(&Frame::new(kind, flags, stream, block));
            (kind, flags, block) = (CONTINUATION, 0, rest);
        }
        self.peer.send(&Frame::new(kind, flags | END_HEADERS, stream, block));
        stream
    }

    pub fn get(&mut self, path: &str) -> u32 {
        self.begin(&request("GET", path), true)
    }

    /// Sends DATA as the windows allow it; reads meanwhile. Stops early when the stream ends.
    pub fn body(&mut self, stream: u32, mut bytes: &[u8], end: bool) -> Result<(), Broken> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let n = self.peer.send_some(stream, bytes, end);
            bytes = &bytes[n..];
            if bytes.is_empty() {
                return Ok(());
            }
            if n == 0 {
                if self.over_with(stream) || self.closed {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    return Err(Broken::TimedOut);
                }
                match self.pump(PATIENCE) {
                    Ok(()) | Err(End::Closed) => {}
                    Err(End::TimedOut) => return Err(Broken::TimedOut),
                    Err(End::Malformed(what)) => return Err(Broken::Malformed(what)),
                }
            }
        }
    }

    pub fn trailers(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.peer.send(&Frame::headers(stream, fields, true));
    }

    fn over_with(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|open| open.done || open.reset.is_some())
    }

    /// Reads one event and files it.
    pub fn pump(&mut self, patience: Duration) -> Result<(), End> {
        let event = self.peer.event(patience).inspect_err(|end| {
            self.closed |= *end == End::Closed;
        })?;
        let wrong = |what: String| Err(End::Malformed(what));
        match event {
            Event::Head { stream, fields, end } => {
                let Some(open) = self.streams.get_mut(&stream) else {
                    return wrong(format!("an answer on stream {stream}: {fields:?}"));
                };
                if open.done || open.reset.is_some() {
                    return wrong(format!("HEADERS on closed stream {stream}"));
                }
                open.file(fields, end).map_err(End::Malformed)
            }
            Event::Data { stream, bytes, end } => {
                let Some(open) = self.streams.get_mut(&stream) else {
                    return wrong(format!("DATA on stream {stream}"));
                };
                if open.done || open.reset.is_some() || !open.head {
                    return wrong(format!("DATA out of place on stream {stream}"));
                }
                if open.is_head && !bytes.is_empty() {
                    return wrong(format!("a body for HEAD on stream {stream}"));
                }
                open.answer.body.extend_from_slice(&bytes);
                if end { open.finish().map_err(End::Malformed) } else { Ok(()) }
            }
            Event::Reset { stream, code } => {
                self.resets.push((stream, code));
                if let Some(open) = self.streams.get_mut(&stream) {
                    // NO_ERROR after a whole answer only stops the request (RFC 9113 §8.1).
                    if !open.done {
                        open.reset = Some(code);
                    }
                }
                Ok(())
            }
            Event::GoAway { last, code } => {
                self.goaways.push((last, code));
                Ok(())
            }
            Event::Pong => {
                self.pongs += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Reads until the answer on `stream` is whole or will not come.
    pub fn answer(&mut self, stream: u32) -> Result<Answer, Broken> {
        self.await_answer(stream, PATIENCE)
    }

    pub fn await_answer(&mut self, stream: u32, patience: Duration) -> Result<Answer, Broken> {
        let deadline = Instant::now() + patience;
        loop {
            let open = self.streams.entry(stream).or_default();
            if open.done {
                return Ok(open.answer.clone());
            }
            if let Some(code) = open.reset {
                return Err(Broken::Reset(code, open.answer.clone()));
            }
            if let Some(&(last, code)) = self.goaways.last()
                && stream > last
            {
                return Err(Broken::GoAway(code));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.pump(left) {
                Ok(()) => {}
                Err(End::TimedOut) if left.is_zero() => return Err(Broken::TimedOut),
                Err(End::TimedOut) => {}
                Err(End::Malformed(what)) => return Err(Broken::Malformed(what)),
                Err(End::Closed) => {
                    let code = self.goaways.last().map(|&(_, code)| code);
                    return Err(code.map_or(Broken::Closed, Broken::GoAway));
                }
            }
        }
    }

    /// What has come of an answer so far.
    pub fn so_far(&self, stream: u32) -> Answer {
        self.streams.get(&stream).map(|open| open.answer.clone()).unwrap_or_default()
    }

    /// Reads until `done` says yes; false when `patience` has passed or the connection has ended.
    pub fn until(&mut self, patience: Duration, mut done: impl FnMut(&H2Client) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            match self.pump(left) {
                Ok(()) | Err(End::TimedOut) => {}
                Err(End::Closed) => return done(self),
                Err(End::Malformed(what)) => panic!("the gateway broke the protocol: {what}"),
            }
        }
        true
    }

    /// Sends a request with an optional body and reads the answer.
    #[track_caller]
    pub fn ask(&mut self, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        let stream = self.begin(fields, body.is_empty());
        if !body.is_empty() {
            self.body(stream, body, true).unwrap_or_else(|e| panic!("{fields:?}: body: {e:?}"));
        }
        self.answer(stream).unwrap_or_else(|e| panic!("no answer to {fields:?}: {e:?}"))
    }

    /// Reads until the gateway closes the connection; the code of its last GOAWAY.
    pub fn close_code(&mut self, patience: Duration) -> Result<Option<u32>, String> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.pump(left) {
                Ok(()) => {}
                Err(End::Closed) => return Ok(self.goaways.last().map(|&(_, code)| code)),
                Err(End::TimedOut) if left.is_zero() => {
                    return Err(format!("still open; GOAWAYs {:?}", self.goaways));
                }
                Err(End::TimedOut) => {}
                Err(End::Malformed(what)) => return Err(what),
            }
        }
    }

    /// Asserts that the connection still serves.
    #[track_caller]
    pub fn assert_alive(&mut self, why: &str) {
        let stream = self.get("/alive");
        match self.answer(stream) {
            Ok(answer) => assert_eq!(answer.status, 200, "{why}: {answer:?}"),
            Err(e) => panic!("{why}: the connection must stay usable: {e:?}"),
        }
    }
}

impl Open {
    fn file(&mut self, fields: Vec<(String, String)>, end: bool) -> Result<(), String> {
        if self.head {
            pseudo(&fields, &[])?;
            if !end {
                return Err(format!("trailers that do not end the stream: {fields:?}"));
            }
            self.answer.trailers = fields;
            return self.finish();
        }
        pseudo(&fields, &[":status"])?;
        let status = values(&fields, ":status");
        let status = match status[..] {
            [code] if code.len() == 3 => code.parse::<u16>().map_err(|e| format!("{e}: {code}"))?,
            _ => return Err(format!(":status in {fields:?}")),
        };
        if (100..200).contains(&status) {
            if end || status == 101 {
                return Err(format!("an interim answer: {fields:?}"));
            }
            self.answer.interim.push(fields);
            return Ok(());
        }
        self.head = true;
        self.answer.status = status;
        self.answer.fields = fields;
        if end { self.finish() } else { Ok(()) }
    }

    /// RFC 9113 §8.1.1: a content-length must be true.
    fn finish(&mut self) -> Result<(), String> {
        self.done = true;
        if let Some(length) = self.answer.field("content-length")
            && !self.is_head
            && self.answer.status != 304
            && length.parse() != Ok(self.answer.body.len())
        {
            return Err(format!("content-length {length}, {} bytes", self.answer.body.len()));
        }
        Ok(())
    }
}
