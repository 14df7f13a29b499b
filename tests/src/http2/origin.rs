//! An HTTP/2 origin that does what a test tells it to, and writes down what it was sent.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::frame::*;
use super::{End, Event, Peer, pseudo};
use crate::message::values;
use crate::stream::Stream;
use crate::tls::{Accepted, TlsServer};
use crate::{PATIENCE, eventually};

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct H2Seen {
    /// Which accepted connection, from 0.
    pub connection: usize,
    pub stream: u32,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// It ended with END_STREAM.
    pub complete: bool,
    /// The code of the gateway's RST_STREAM.
    pub reset: Option<u32>,
}

impl H2Seen {
    /// The value of a field, pseudo or not, that must not repeat.
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = values(&self.fields, name);
        assert!(all.len() <= 1, "{name} is there {} times in {:?}", all.len(), self.fields);
        all.first().copied()
    }

    pub fn path(&self) -> &str {
        self.field(":path").unwrap_or_default()
    }

    pub fn method(&self) -> &str {
        self.field(":method").unwrap_or_default()
    }
}

/// What to do on a stream.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    acts: VecDeque<Act>,
}

#[derive(Debug, Clone)]
enum Act {
    Head(Vec<(String, String)>, bool),
    Data(Vec<u8>, bool),
    Sleep(Duration),
    /// Waits until the request is there whole.
    Request,
    Echo,
    Answer(fn(&[u8]) -> Vec<u8>),
    Reset(u32),
    GoAway(u32),
    Raw(Vec<u8>),
    Close,
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

impl Reply {
    fn act(mut self, act: Act) -> Reply {
        self.acts.push_back(act);
        self
    }

    /// A 200 with a body and its length.
    pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
        let body = body.into();
        let length = body.len().to_string();
        Reply::default().head(&[(":status", "200"), ("content-length", &length)]).data(body).end()
    }

    /// HEADERS that do not end the stream.
    pub fn head(self, fields: &[(&str, &str)]) -> Reply {
        self.act(Act::Head(owned(fields), false))
    }

    /// HEADERS that end the stream: a whole answer, or trailers.
    pub fn last(self, fields: &[(&str, &str)]) -> Reply {
        self.act(Act::Head(owned(fields), true))
    }

    pub fn data(self, bytes: impl Into<Vec<u8>>) -> Reply {
        self.act(Act::Data(bytes.into(), false))
    }

    /// An empty DATA frame with END_STREAM.
    pub fn end(self) -> Reply {
        self.act(Act::Data(Vec::new(), true))
    }

    pub fn sleep(self, pause: Duration) -> Reply {
        self.act(Act::Sleep(pause))
    }

    /// Goes on when the request is there whole.
    pub fn request(self) -> Reply {
        self.act(Act::Request)
    }

    /// Sends back the body as it comes, and ends when it does.
    pub fn echo(self) -> Reply {
        self.act(Act::Echo)
    }

    /// What the function makes of the body, once it is there whole.
    pub fn answer(self, answer: fn(&[u8]) -> Vec<u8>) -> Reply {
        self.act(Act::Request).act(Act::Answer(answer))
    }

    pub fn reset(self, code: u32) -> Reply {
        self.act(Act::Reset(code))
    }

    /// GOAWAY with this stream as the last.
    pub fn goaway(self, code: u32) -> Reply {
        self.act(Act::GoAway(code))
    }

    pub fn raw(self, frame: Frame) -> Reply {
        self.act(Act::Raw(frame.encode()))
    }

    pub fn close(self) -> Reply {
        self.act(Act::Close)
    }
}

#[derive(Debug, Default)]
struct Records {
    seen: Mutex<Vec<H2Seen>>,
    malformed: Mutex<Vec<String>>,
    handshakes: Mutex<Vec<Accepted>>,
    streams: Mutex<Vec<Option<TcpStream>>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    sent: AtomicUsize,
    stop: AtomicBool,
}

/// A listening origin; a thread for each connection.
#[derive(Debug)]
pub struct H2Origin {
    address: SocketAddr,
    records: Arc<Records>,
    lenient: bool,
}

type Respond = dyn Fn(&H2Seen) -> Reply + Send + Sync;

impl H2Origin {
    /// Clear text. `respond` is asked when a request's head is there; [`Reply::request`] waits for
    /// the rest.
    pub fn clear(respond: impl Fn(&H2Seen) -> Reply + Send + Sync + 'static) -> H2Origin {
        H2Origin::listen(None, &[(ENABLE_CONNECT_PROTOCOL, 1)], respond)
    }

    /// Over TLS.
    pub fn tls(
        server: TlsServer,
        respond: impl Fn(&H2Seen) -> Reply + Send + Sync + 'static,
    ) -> H2Origin {
        H2Origin::listen(Some(server), &[(ENABLE_CONNECT_PROTOCOL, 1)], respond)
    }

    /// With settings of its own.
    pub fn with(
        settings: &[(u16, u32)],
        respond: impl Fn(&H2Seen) -> Reply + Send + Sync + 'static,
    ) -> H2Origin {
        H2Origin::listen(None, settings, respond)
    }

    /// Answers 200 and `METHOD target` with a newline.
    pub fn echo() -> H2Origin {
        H2Origin::clear(echo)
    }

    fn listen(
        server: Option<TlsServer>,
        settings: &[(u16, u32)],
        respond: impl Fn(&H2Seen) -> Reply + Send + Sync + 'static,
    ) -> H2Origin {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("an origin's port");
        let address = listener.local_addr().expect("bound address");
        let records = Arc::new(Records::default());
        let shared = records.clone();
        let respond: Arc<Respond> = Arc::new(respond);
        let settings = settings.to_vec();
        thread::spawn(move || {
            while let Ok((tcp, _)) = listener.accept() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let n = shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                shared.streams.lock().expect("streams").push(tcp.try_clone().ok());
                let (server, shared) = (server.clone(), shared.clone());
                let (respond, settings) = (respond.clone(), settings.clone());
                thread::spawn(move || {
                    if let Some(stream) = secure(tcp, server, &shared) {
                        Connection::new(stream, n, &shared, &*respond).serve(&settings);
                    }
                    if let Some(Some(clone)) = shared.streams.lock().expect("streams").get(n) {
                        let _ = clone.shutdown(Shutdown::Both);
                    }
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        H2Origin { address, records, lenient: false }
    }

    /// Does not fail the test for what the gateway sends, such as to streams that were broken.
    pub fn lenient(mut self) -> H2Origin {
        self.lenient = true;
        self
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far, in order of their heads, as far as they have come.
    pub fn seen(&self) -> Vec<H2Seen> {
        self.records.seen.lock().expect("seen").clone()
    }

    #[track_caller]
    pub fn last(&self) -> H2Seen {
        self.seen().pop().expect("the origin should have seen a request")
    }

    pub fn count(&self) -> usize {
        self.records.seen.lock().expect("seen").len()
    }

    /// Waits until some request is as `test` wants it.
    #[track_caller]
    pub fn await_one(&self, why: &str, test: impl Fn(&H2Seen) -> bool) {
        let there = || self.records.seen.lock().expect("seen").iter().any(&test);
        assert!(eventually(PATIENCE, there), "{why}: the origin saw {:?}", self.seen());
    }

    pub fn accepted(&self) -> usize {
        self.records.accepted.load(Ordering::SeqCst)
    }

    pub fn open(&self) -> usize {
        self.records.open.load(Ordering::SeqCst)
    }

    /// Bytes of DATA sent so far.
    pub fn sent(&self) -> usize {
        self.records.sent.load(Ordering::SeqCst)
    }

    pub fn handshakes(&self) -> Vec<Accepted> {
        self.records.handshakes.lock().expect("handshakes").clone()
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.records.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        for stream in self.records.streams.lock().expect("streams").iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let malformed = self.records.malformed.lock().expect("malformed");
        if !thread::panicking() && !self.lenient {
            assert!(malformed.is_empty(), "the origin was sent malformed HTTP/2: {malformed:?}");
        }
    }
}

/// The answer of [`H2Origin::echo`].
pub fn echo(seen: &H2Seen) -> Reply {
    let body = format!("{} {}\n", seen.method(), seen.path());
    let length = body.len().to_string();
    let head = [(":status", "200"), ("content-length", length.as_str())];
    match seen.method() {
        "HEAD" => Reply::default().last(&head),
        _ => Reply::default().request().head(&head).data(body).end(),
    }
}

fn secure(tcp: TcpStream, server: Option<TlsServer>, records: &Records) -> Option<Stream> {
    let Some(server) = server else { return Some(tcp.into()) };
    let (stream, accepted) = server.accept(tcp).ok()?;
    let h2 = accepted.alpn.as_deref() == Some("h2");
    records.handshakes.lock().expect("handshakes").push(accepted);
    h2.then_some(stream)
}

/// A request on its way, and what is left of its answer.
struct Task {
    /// Index into the records.
    seen: usize,
    acts: VecDeque<Act>,
    until: Option<Instant>,
    echo: bool,
    ended: bool,
    complete: bool,
}

struct Connection<'a> {
    peer: Peer,
    nth: usize,
    records: &'a Records,
    respond: &'a Respond,
    tasks: BTreeMap<u32, Task>,
}

impl<'a> Connection<'a> {
    fn new(stream: Stream, nth: usize, records: &'a Records, respond: &'a Respond) -> Self {
        Connection { peer: Peer::new(stream), nth, records, respond, tasks: BTreeMap::new() }
    }

    fn blame(&self, what: String) {
        self.records.malformed.lock().expect("malformed").push(what);
    }

    fn serve(mut self, settings: &[(u16, u32)]) {
        match self.preface() {
            Ok(true) => {}
            Ok(false) => return,
            Err(what) => return self.blame(what),
        }
        self.peer.send_settings(settings);
        while !self.records.stop.load(Ordering::SeqCst) {
            if !self.work() {
                return;
            }
            match self.peer.event(Duration::from_millis(5)) {
                Ok(event) => {
                    if let Err(what) = self.take(event) {
                        return self.blame(what);
                    }
                }
                Err(End::TimedOut) => {}
                Err(End::Closed) => return,
                Err(End::Malformed(what)) => return self.blame(what),
            }
        }
    }

    /// Reads the client's preface; false: nothing came (a connection that was not used).
    fn preface(&mut self) -> Result<bool, String> {
        use std::io::Read;
        let mut preface = [0u8; 24];
        self.peer.stream.tcp().set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
        if self.peer.stream.read_exact(&mut preface).is_err() {
            return Ok(false);
        }
        if preface != PREFACE {
            return Err(format!("preface {:?}", crate::wire::lossy(&preface)));
        }
        Ok(true)
    }

    fn record(&self, index: usize, change: impl FnOnce(&mut H2Seen)) {
        if let Some(seen) = self.records.seen.lock().expect("seen").get_mut(index) {
            change(seen);
        }
    }

    fn take(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Head { stream, fields, end } => {
                if let Some(task) = self.tasks.get_mut(&stream) {
                    pseudo(&fields, &[])?;
                    if !end || task.complete {
                        return Err(format!("HEADERS out of place: {fields:?}"));
                    }
                    let seen = task.seen;
                    self.record(seen, |seen| seen.trailers = fields);
                    return self.finished(stream);
                }
                self.begin(stream, fields, end)
            }
            Event::Data { stream, bytes, end } => {
                let Some(task) = self.tasks.get_mut(&stream) else {
                    return Err(format!("DATA on stream {stream}, which is not open"));
                };
                if task.complete {
                    return Err(format!("DATA after the end of stream {stream}"));
                }
                if task.echo && !bytes.is_empty() {
                    task.acts.push_back(Act::Data(bytes.clone(), false));
                }
                let seen = task.seen;
                self.record(seen, |seen| seen.body.extend_from_slice(&bytes));
                if end { self.finished(stream) } else { Ok(()) }
            }
            Event::Reset { stream, code } => {
                if let Some(task) = self.tasks.get_mut(&stream) {
                    task.acts.clear();
                    task.ended = true;
                    task.complete = true;
                    let seen = task.seen;
                    self.record(seen, |seen| seen.reset = Some(code));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin(
        &mut self,
        stream: u32,
        fields: Vec<(String, String)>,
        end: bool,
    ) -> Result<(), String> {
        if stream.is_multiple_of(2) || self.tasks.keys().next_back().is_some_and(|&s| s > stream) {
            return Err(format!("stream {stream} out of order"));
        }
        pseudo(&fields, &[":method", ":scheme", ":path", ":authority", ":protocol"])?;
        let one = |name: &str| values(&fields, name).len() == 1;
        if ![":method", ":scheme", ":path"].iter().all(|name| one(name)) {
            return Err(format!("pseudo-fields are missing in {fields:?}"));
        }
        let seen = H2Seen { connection: self.nth, stream, fields, ..H2Seen::default() };
        let acts = (self.respond)(&seen).acts;
        let index = {
            let mut all = self.records.seen.lock().expect("seen");
            all.push(seen);
            all.len() - 1
        };
        let task =
            Task { seen: index, acts, until: None, echo: false, ended: false, complete: false };
        self.tasks.insert(stream, task);
        if end { self.finished(stream) } else { Ok(()) }
    }

    fn finished(&mut self, stream: u32) -> Result<(), String> {
        let Some(task) = self.tasks.get_mut(&stream) else { return Ok(()) };
        task.complete = true;
        if task.echo {
            task.acts.push_back(Act::Data(Vec::new(), true));
        }
        let index = task.seen;
        let mut wrong = None;
        self.record(index, |seen| {
            seen.complete = true;
            if let Some(length) = seen.field("content-length")
                && length.parse() != Ok(seen.body.len())
            {
                wrong = Some(format!("content-length {length}, {} bytes", seen.body.len()));
            }
        });
        wrong.map_or(Ok(()), Err)
    }

    /// Does what can be done now; false: the connection is to end.
    fn work(&mut self) -> bool {
        for (&stream, task) in &mut self.tasks {
            while let Some(act) = task.acts.front_mut() {
                match act {
                    Act::Request if !task.complete => break,
                    Act::Request => {}
                    Act::Sleep(pause) => {
                        let until = *task.until.get_or_insert(Instant::now() + *pause);
                        if Instant::now() < until {
                            break;
                        }
                        task.until = None;
                    }
                    Act::Head(fields, end) => {
                        let fields: Vec<(&str, &str)> =
                            fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                        task.ended |= *end;
                        self.peer.send(&Frame::headers(stream, &fields, *end));
                    }
                    Act::Data(bytes, end) => {
                        let n = self.peer.send_some(stream, bytes, *end);
                        self.records.sent.fetch_add(n, Ordering::SeqCst);
                        bytes.drain(..n);
                        if !bytes.is_empty() {
                            break;
                        }
                        task.ended |= *end;
                    }
                    Act::Echo => {
                        task.echo = true;
                        let seen = self.records.seen.lock().expect("seen");
                        let body = seen.get(task.seen).map(|seen| seen.body.clone());
                        task.acts.push_back(Act::Data(body.unwrap_or_default(), task.complete));
                    }
                    Act::Answer(answer) => {
                        let seen = self.records.seen.lock().expect("seen");
                        let body = seen.get(task.seen).map(|seen| seen.body.clone());
                        *act = Act::Data(answer(&body.unwrap_or_default()), false);
                        continue;
                    }
                    Act::Reset(code) => {
                        task.ended = true;
                        // What the gateway sent before it learned of this is not its fault.
                        let code = *code;
                        self.peer.send(&Frame::reset(stream, code));
                    }
                    Act::GoAway(code) => {
                        let mut payload = stream.to_be_bytes().to_vec();
                        payload.extend_from_slice(&code.to_be_bytes());
                        self.peer.send(&Frame::new(GOAWAY, 0, 0, payload));
                    }
                    Act::Raw(bytes) => {
                        self.peer.write(bytes);
                    }
                    Act::Close => return false,
                }
                task.acts.pop_front();
            }
        }
        true
    }
}
