//! An origin that does what a test tells it to, and writes down what it was sent.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::message::{Framing, Head, values};
use crate::tls::{Accepted, TlsServer};
use crate::wire::{Wire, WireError};
use crate::{PATIENCE, eventually};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which accepted connection, from 0.
    pub connection: usize,
    /// Which request of that connection, from 0.
    pub nth: usize,
    pub method: String,
    pub target: String,
    pub version: String,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// False: the connection ended inside the body.
    pub complete: bool,
}

impl Seen {
    /// The value of a field that must not repeat.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// Every value of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.head.fields, name)
    }
}

/// What to do on the connection once a request is there.
#[derive(Debug, Clone, Default)]
pub struct Script {
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    Send(Vec<u8>),
    Sleep(Duration),
    HalfClose,
    Close,
    Reset,
}

impl Script {
    pub fn send(mut self, bytes: impl Into<Vec<u8>>) -> Script {
        self.steps.push(Step::Send(bytes.into()));
        self
    }

    pub fn sleep(mut self, pause: Duration) -> Script {
        self.steps.push(Step::Sleep(pause));
        self
    }

    /// Puts a pause before everything.
    pub fn after(mut self, pause: Duration) -> Script {
        self.steps.insert(0, Step::Sleep(pause));
        self
    }

    /// FIN, then wait for the peer's.
    pub fn half_close(mut self) -> Script {
        self.steps.push(Step::HalfClose);
        self
    }

    pub fn close(mut self) -> Script {
        self.steps.push(Step::Close);
        self
    }

    pub fn reset(mut self) -> Script {
        self.steps.push(Step::Reset);
        self
    }

    /// Whether the connection goes on.
    fn play(self, wire: &mut Wire) -> Flow {
        for step in self.steps {
            match step {
                Step::Send(bytes) => {
                    if wire.write(&bytes).is_err() {
                        return Flow::Close;
                    }
                }
                Step::Sleep(pause) => thread::sleep(pause),
                Step::HalfClose => wire.half_close(),
                Step::Close => return Flow::Close,
                Step::Reset => return Flow::Reset,
            }
        }
        Flow::Keep
    }
}

enum Flow {
    Keep,
    Close,
    Reset,
}

/// A plain 200 with `body`.
pub fn answer(body: &str) -> Script {
    answer_with("200 OK", "", body)
}

/// An answer with a status line's tail, field lines (each ended by CRLF) and a body.
pub fn answer_with(status: &str, fields: &str, body: &str) -> Script {
    Script::default()
        .send(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len()))
}

#[derive(Debug, Default)]
struct Records {
    seen: Mutex<Vec<Seen>>,
    /// Requests that were not strict HTTP/1.1, which is the gateway's fault.
    malformed: Mutex<Vec<String>>,
    /// Per connection: every byte received.
    bytes: Mutex<Vec<Vec<u8>>>,
    /// For hanging up from outside.
    streams: Mutex<Vec<Option<TcpStream>>>,
    /// What each finished TLS handshake told.
    accepted_tls: Mutex<Vec<Accepted>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    stop: AtomicBool,
}

/// A listening origin; a thread for each connection.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    records: Arc<Records>,
    lenient: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    AfterBody,
    AfterHead,
}

impl Origin {
    /// Answers each request, once it is there whole, by the script that `respond` returns.
    pub fn start(respond: impl Fn(&Seen) -> Script + Send + Sync + 'static) -> Origin {
        Origin::start_at(None, respond)
    }

    /// As [`Origin::start`], on a given address.
    pub fn start_at(
        address: Option<SocketAddr>,
        respond: impl Fn(&Seen) -> Script + Send + Sync + 'static,
    ) -> Origin {
        Origin::listen(address, move |wire, n, records| {
            converse(wire, n, records, &respond, When::AfterBody)
        })
    }

    /// Answers as soon as the head is there, then reads the body.
    pub fn early(respond: impl Fn(&Seen) -> Script + Send + Sync + 'static) -> Origin {
        Origin::listen(None, move |wire, n, records| {
            converse(wire, n, records, &respond, When::AfterHead)
        })
    }

    /// As [`Origin::start`], over TLS. A client whose handshake fails is dropped.
    pub fn tls(
        server: TlsServer,
        respond: impl Fn(&Seen) -> Script + Send + Sync + 'static,
    ) -> Origin {
        Origin::listen_tls(server, move |wire, n, records| {
            converse(wire, n, records, &respond, When::AfterBody)
        })
    }

    /// Answers 200 and `METHOD target` with a newline, and the connection's number in `X-Conn`.
    pub fn echo() -> Origin {
        Origin::start(echo)
    }

    /// Leaves each connection wholly to `serve`, which also gets its number.
    pub fn raw(serve: impl Fn(Wire, usize) + Send + Sync + 'static) -> Origin {
        Origin::listen(None, move |wire, n, _| serve(wire, n))
    }

    /// Sends `bytes` to each request, then closes (`close`) or keeps the connection.
    pub fn canned(bytes: impl Into<Vec<u8>>, close: bool) -> Origin {
        let bytes = bytes.into();
        Origin::start(move |_| {
            let script = Script::default().send(bytes.clone());
            if close { script.close() } else { script }
        })
    }

    fn listen(
        address: Option<SocketAddr>,
        serve: impl Fn(Wire, usize, &Records) + Send + Sync + 'static,
    ) -> Origin {
        Origin::accept(address, move |tcp, n, records| serve(Wire::new(tcp), n, records))
    }

    fn listen_tls(
        server: TlsServer,
        serve: impl Fn(Wire, usize, &Records) + Send + Sync + 'static,
    ) -> Origin {
        Origin::accept(None, move |tcp, n, records| {
            if let Ok((stream, accepted)) = server.accept(tcp) {
                records.accepted_tls.lock().expect("handshakes").push(accepted);
                serve(Wire::new(stream), n, records);
            }
        })
    }

    fn accept(
        address: Option<SocketAddr>,
        serve: impl Fn(TcpStream, usize, &Records) + Send + Sync + 'static,
    ) -> Origin {
        let wanted = address.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
        let listener =
            TcpListener::bind(wanted).unwrap_or_else(|e| panic!("origin at {wanted}: {e}"));
        let address = listener.local_addr().expect("bound address");
        let records = Arc::new(Records::default());
        let shared = records.clone();
        let serve = Arc::new(serve);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let n = shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                shared.bytes.lock().expect("bytes").push(Vec::new());
                shared.streams.lock().expect("streams").push(stream.try_clone().ok());
                let (serve, shared) = (serve.clone(), shared.clone());
                thread::spawn(move || {
                    serve(stream, n, &shared);
                    // The clone kept for `hang_up` would hold the connection open.
                    if let Some(Some(clone)) = shared.streams.lock().expect("streams").get(n) {
                        let _ = clone.shutdown(Shutdown::Both);
                    }
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Origin { address, records, lenient: false }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has arrived so far, whole and broken requests, in order of their end.
    pub fn seen(&self) -> Vec<Seen> {
        self.records.seen.lock().expect("seen").clone()
    }

    /// The latest whole request.
    #[track_caller]
    pub fn last(&self) -> Seen {
        let seen = self.seen();
        let last = seen.into_iter().rev().find(|seen| seen.complete);
        last.expect("the origin should have seen a request")
    }

    /// How many whole requests have arrived.
    pub fn completed(&self) -> usize {
        self.records.seen.lock().expect("seen").iter().filter(|seen| seen.complete).count()
    }

    /// Waits until `n` requests, whole or broken, are written down.
    #[track_caller]
    pub fn await_seen(&self, n: usize) {
        let there = || self.records.seen.lock().expect("seen").len();
        assert!(eventually(PATIENCE, || there() >= n), "{} of {n} requests came", there());
    }

    /// Connections accepted since the start.
    pub fn accepted(&self) -> usize {
        self.records.accepted.load(Ordering::SeqCst)
    }

    /// What each finished TLS handshake told, in order.
    pub fn handshakes(&self) -> Vec<Accepted> {
        self.records.accepted_tls.lock().expect("handshakes").clone()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.records.open.load(Ordering::SeqCst)
    }

    /// Every byte that connection `n` has received with its whole or broken requests.
    pub fn bytes(&self, n: usize) -> Vec<u8> {
        self.records.bytes.lock().expect("bytes").get(n).cloned().unwrap_or_default()
    }

    /// Whether any connection has received `needle`.
    pub fn received(&self, needle: &str) -> bool {
        let bytes = self.records.bytes.lock().expect("bytes");
        bytes.iter().any(|bytes| crate::wire::find(bytes, needle.as_bytes()).is_some())
    }

    /// Closes every open connection (FIN), as an origin does whose keep-alive ran out.
    pub fn hang_up(&self) {
        for stream in self.records.streams.lock().expect("streams").iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        assert!(eventually(PATIENCE, || self.open() == 0), "origin connections stay open");
    }

    /// Forgets the requests seen so far; connections keep their numbers.
    pub fn forget(&self) {
        self.records.seen.lock().expect("seen").clear();
        for bytes in self.records.bytes.lock().expect("bytes").iter_mut() {
            bytes.clear();
        }
    }

    /// Does not fail the test when malformed requests arrive.
    pub fn lenient(mut self) -> Origin {
        self.lenient = true;
        self
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.records.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then drops the listener.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        for stream in self.records.streams.lock().expect("streams").iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let malformed = self.records.malformed.lock().expect("malformed");
        if !thread::panicking() && !self.lenient {
            assert!(malformed.is_empty(), "the origin was sent malformed requests: {malformed:?}");
        }
    }
}

/// The answer of [`Origin::echo`].
pub fn echo(seen: &Seen) -> Script {
    let conn = format!("X-Conn: {}\r\n", seen.connection);
    let body = format!("{} {}\n", seen.method, seen.target);
    if seen.method == "HEAD" {
        let length = body.len();
        return Script::default()
            .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{conn}\r\n"));
    }
    answer_with("200 OK", &conn, &body)
}

fn converse(
    mut wire: Wire,
    connection: usize,
    records: &Records,
    respond: &dyn Fn(&Seen) -> Script,
    when: When,
) {
    wire.keep();
    // A pooled connection may lie idle for a whole test.
    wire.patience(Duration::from_secs(120));
    for nth in 0.. {
        let head = match wire.head() {
            Ok(head) => head,
            Err(WireError::Malformed(what)) => return blame(records, what),
            Err(_) => return keep_bytes(records, connection, &wire),
        };
        let mut seen = match begin(head, connection, nth) {
            Ok(seen) => seen,
            Err(what) => return blame(records, what),
        };
        let mut flow = Flow::Keep;
        if when == When::AfterHead {
            flow = respond(&seen).play(&mut wire);
        }
        if matches!(flow, Flow::Keep) {
            let read = read_body(&mut wire, &mut seen);
            if let Err(WireError::Malformed(what)) = &read {
                blame(records, what.clone());
            }
            seen.complete = read.is_ok();
        }
        let complete = seen.complete;
        keep_bytes(records, connection, &wire);
        records.seen.lock().expect("seen").push(seen.clone());
        if when == When::AfterBody && complete {
            flow = respond(&seen).play(&mut wire);
        }
        match flow {
            Flow::Keep if complete => {}
            Flow::Keep | Flow::Close => return,
            Flow::Reset => {
                // Only closing the last handle sends the RST.
                if let Some(slot) = records.streams.lock().expect("streams").get_mut(connection) {
                    *slot = None;
                }
                return wire.reset();
            }
        }
    }
}

fn begin(head: Head, connection: usize, nth: usize) -> Result<Seen, String> {
    let words: Vec<String> = head.words().iter().map(ToString::to_string).collect();
    let [method, target, version] =
        <[String; 3]>::try_from(words).map_err(|_| format!("request line {:?}", head.start))?;
    if version != "HTTP/1.1" && version != "HTTP/1.0" {
        return Err(format!("request line {:?}", head.start));
    }
    if head.all("host").len() != 1 {
        return Err(format!("{} Host fields in {:?}", head.all("host").len(), head.fields));
    }
    head.announced()?;
    let body = Vec::new();
    let trailers = Vec::new();
    Ok(Seen { connection, nth, method, target, version, head, body, trailers, complete: false })
}

fn read_body(wire: &mut Wire, seen: &mut Seen) -> Result<(), WireError> {
    let framing = seen.head.announced().map_err(WireError::Malformed)?;
    let mut body = Vec::new();
    let read = match framing {
        Some(Framing::Length(n)) => wire.body(n, &mut |bytes| body.extend_from_slice(bytes)),
        Some(Framing::Chunked) => wire
            .chunked(&mut |bytes| body.extend_from_slice(bytes))
            .map(|trailers| seen.trailers = trailers),
        _ => Ok(()),
    };
    seen.body = body;
    read
}

fn blame(records: &Records, what: String) {
    records.malformed.lock().expect("malformed").push(what);
}

fn keep_bytes(records: &Records, connection: usize, wire: &Wire) {
    if let Some(slot) = records.bytes.lock().expect("bytes").get_mut(connection) {
        *slot = wire.kept().to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, get};

    #[test]
    fn client_and_origin_understand_each_other() {
        let origin = Origin::echo();
        let mut client = Client::connect(origin.address());
        let first = client.ask(get("/1"));
        let second = client.ask("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        let third = client.ask(
            "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n",
        );
        assert_eq!((first.text(), second.text()), ("GET /1\n".into(), "POST /2\n".into()));
        assert_eq!((third.status, origin.accepted()), (200, 1));
        let seen = origin.seen();
        assert_eq!(seen[1].body, b"hi");
        assert_eq!(seen[2].trailers, [("X-T".to_owned(), "1".to_owned())]);
        assert!(origin.received("X-T: 1"));
        let head = client.ask("HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head.framing, Framing::None);
        origin.hang_up();
        client.assert_closed("after hang_up");
    }

    #[test]
    fn a_broken_request_is_written_down_as_broken() {
        let origin = Origin::echo();
        let mut client = Client::connect(origin.address());
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
        drop(client);
        origin.await_seen(1);
        let seen = origin.seen();
        assert!(!seen[0].complete);
        assert_eq!(seen[0].body, b"half");
    }

    #[test]
    fn scripts_end_as_told() {
        let origin = Origin::start(|seen| match seen.target.as_str() {
            "/reset" => Script::default().reset(),
            "/cut" => {
                Script::default().send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").close()
            }
            _ => Script::default().send("HTTP/1.1 200 OK\r\n\r\nall").half_close(),
        });
        let ask = |target: &str| {
            let mut client = Client::connect(origin.address());
            client.send(get(target)).response()
        };
        assert_eq!(ask("/reset").unwrap_err(), WireError::Reset(Vec::new()));
        assert!(matches!(ask("/cut"), Err(WireError::Truncated(_))));
        assert_eq!(ask("/").unwrap().framing, Framing::UntilClose);
    }

    #[test]
    #[should_panic(expected = "malformed requests")]
    fn a_loose_request_fails_the_test() {
        let origin = Origin::echo();
        let mut client = Client::connect(origin.address());
        client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
        client.assert_closed("a loose request");
        // The record is written just before the close.
        assert!(eventually(PATIENCE, || origin.open() == 0));
    }
}
