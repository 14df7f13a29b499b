//! The origin: a server that does as little as can be, so that what is measured in front of it
//! is the proxy. `…/bytes/N` answers N bytes, `…/chunked/N` the same in chunks, anything else the
//! default; what comes before these words in the path does not matter, so that proxies need no
//! rewriting. HTTP/2 is spoken where the client begins with it, over TLS or without; a gRPC call
//! is answered with what it brought, or with N bytes.

mod calls;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calls::{Calls, Meal};
use memchr::memmem;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use rustls::ServerConfig;

use crate::h2::PREFACE;
use crate::pin;
use crate::tls::Session;
use crate::wire::{Body, Fields, HeadBuffer, Malformed, decimal, first_line};

/// The largest body that can be asked for, in bytes.
const MAX_BODY_BYTES: u64 = 64 << 20;
/// Bytes of a chunk of `/chunked/N`.
const CHUNK_BYTES: usize = 4096;
/// Answers kept ready, by kind and size.
const MAX_KEPT: usize = 256;
const LISTENER: u64 = u64::MAX;

/// How an origin is to run.
#[derive(Clone, Debug)]
pub struct Origin {
    pub port: u16,
    /// Bytes of the default body.
    pub bytes: u64,
    /// One thread for each; none means one thread held to no CPU.
    pub cpus: Vec<usize>,
    /// Burns this much CPU time for every request, to stand for a server that works.
    pub spin: Duration,
    pub tls: Option<Arc<ServerConfig>>,
}

impl Origin {
    /// Binds, says so on stdout, and serves until it fails.
    pub fn run(&self) -> io::Result<()> {
        pin::raise_open_files();
        let first = listen(self.port)?;
        let port = match net::getsockname(&first)?.try_into() {
            Ok(SocketAddr::V4(address)) => address.port(),
            _ => self.port,
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        println!("origin on {scheme}://127.0.0.1:{port}");
        let mut listeners = vec![first];
        for _ in 1..self.cpus.len() {
            listeners.push(listen(port)?);
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = listeners
                .into_iter()
                .enumerate()
                .map(|(n, listener)| {
                    scope.spawn(move || {
                        if let Some(&cpu) = self.cpus.get(n) {
                            pin::this_thread(cpu)?;
                        }
                        serve(listener, Pantry::new(self.bytes, self.spin), self.tls.clone())
                    })
                })
                .collect();
            for thread in threads {
                thread.join().map_err(|_| io::Error::other("an origin thread panicked"))??;
            }
            Ok(())
        })
    }
}

fn listen(port: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .map_err(|error| io::Error::other(format!("cannot listen on port {port}: {error}")))?;
    net::listen(&socket, 4096)?;
    Ok(socket)
}

/// Which answer a request is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Bytes(u64),
    Chunked(u64),
    /// A JSON object of about so many bytes.
    Json(u64),
    /// The path asked for more than we give, or the request made no sense.
    Refused,
}

/// One request as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    kind: Kind,
    head_only: bool,
    close: bool,
    body: Body,
}

fn parse_request(head: &[u8], default_bytes: u64) -> Result<Request, Malformed> {
    let line = first_line(head);
    let mut words = line.split(|&byte| byte == b' ');
    let (Some(method), Some(path), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Malformed::FirstLine);
    };
    if !version.starts_with(b"HTTP/1.") {
        return Err(Malformed::FirstLine);
    }
    let fields = Fields::parse(head)?;
    let body = match fields.content_length {
        _ if fields.chunked => Body::CHUNKED,
        None | Some(0) => Body::Ended,
        Some(length) => Body::Length(length),
    };
    let close = fields.close || (version == b"HTTP/1.0" && !fields.keep_alive);
    Ok(Request { kind: kind(path, default_bytes), head_only: method == b"HEAD", close, body })
}

fn kind(path: &[u8], default_bytes: u64) -> Kind {
    let size = |word: &[u8]| {
        let at = memmem::find(path, word)? + word.len();
        let rest = path.get(at..)?;
        let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        Some(decimal(rest.get(..end)?).unwrap_or(u64::MAX))
    };
    if let Some(n @ 0..=MAX_BODY_BYTES) = size(b"/json/") {
        return Kind::Json(n);
    }
    match (size(b"/bytes/"), size(b"/chunked/")) {
        (Some(n), _) if n <= MAX_BODY_BYTES => Kind::Bytes(n),
        (None, Some(n)) if n <= MAX_BODY_BYTES => Kind::Chunked(n),
        (None, None) => Kind::Bytes(default_bytes),
        _ => Kind::Refused,
    }
}

/// An answer ready to be sent.
struct Ready {
    bytes: Vec<u8>,
    head_bytes: usize,
}

fn ready(kind: Kind) -> Ready {
    if let Kind::Json(n) = kind {
        let body = json(n);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        return Ready { head_bytes: head.len(), bytes: [head.into_bytes(), body].concat() };
    }
    let text = "content-type: text/plain\r\n";
    let (head, n) = match kind {
        Kind::Bytes(n) => (format!("HTTP/1.1 200 OK\r\n{text}content-length: {n}\r\n\r\n"), n),
        Kind::Chunked(n) => {
            (format!("HTTP/1.1 200 OK\r\n{text}transfer-encoding: chunked\r\n\r\n"), n)
        }
        Kind::Json(_) | Kind::Refused => {
            ("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned(), 0)
        }
    };
    let head_bytes = head.len();
    let mut bytes = head.into_bytes();
    let body = vec![b'x'; n as usize];
    if let Kind::Chunked(_) = kind {
        for chunk in body.chunks(CHUNK_BYTES) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    } else {
        bytes.extend_from_slice(&body);
    }
    Ready { bytes, head_bytes }
}

/// An object with a list, numbers and a text that fills it up.
fn json(n: u64) -> Vec<u8> {
    let start = "{\"id\":12345,\"tags\":[\"a\",\"b\"],\"price\":12.5,\"text\":\"";
    let fill = (n as usize).saturating_sub(start.len() + 2);
    [start.as_bytes(), &vec![b'x'; fill], b"\"}"].concat()
}

/// What answers are made from, for all connections of a thread.
struct Pantry {
    bytes: u64,
    spin: Duration,
    kept: HashMap<Kind, Rc<Ready>>,
    meals: HashMap<(Kind, bool), Meal>,
    /// Room that all connections use in turn.
    plain: Vec<u8>,
    said: Vec<u8>,
}

impl Pantry {
    fn new(bytes: u64, spin: Duration) -> Self {
        let (kept, meals) = (HashMap::new(), HashMap::new());
        Self { bytes, spin, kept, meals, plain: Vec::new(), said: Vec::new() }
    }

    fn work(&self) {
        if !self.spin.is_zero() {
            let begun = Instant::now();
            while begun.elapsed() < self.spin {
                std::hint::spin_loop();
            }
        }
    }

    fn answer(&mut self, kind: Kind) -> Rc<Ready> {
        self.work();
        if let Some(answer) = self.kept.get(&kind) {
            return answer.clone();
        }
        if self.kept.len() >= MAX_KEPT {
            self.kept.clear();
        }
        let answer = Rc::new(ready(kind));
        self.kept.insert(kind, answer.clone());
        answer
    }

    /// The same for HTTP/2.
    fn meal(&mut self, kind: Kind, grpc: bool) -> Meal {
        self.work();
        if let Some(meal) = self.meals.get(&(kind, grpc)) {
            return meal.clone();
        }
        if self.meals.len() >= MAX_KEPT {
            self.meals.clear();
        }
        let meal = Meal::new(kind, grpc);
        self.meals.insert((kind, grpc), meal.clone());
        meal
    }
}

/// What the client speaks.
enum Talk {
    /// Not known yet: so many bytes of the HTTP/2 preface have come.
    Unheard(usize),
    Http1,
    Http2(Box<Calls>),
}

struct Connection {
    socket: OwnedFd,
    tls: Option<Session>,
    talk: Talk,
    head: HeadBuffer,
    /// The body of the request being read, and the answer to give at its end.
    body: Body,
    waiting: Option<Request>,
    /// What could not be sent at once: the answer and the part that is left.
    unsent: VecDeque<(Rc<Ready>, std::ops::Range<usize>)>,
    /// The same of HTTP/2 and TLS.
    out: Vec<u8>,
    sent: usize,
    closing: bool,
}

struct Server {
    poll: OwnedFd,
    listener: OwnedFd,
    tls: Option<Arc<ServerConfig>>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    pantry: Pantry,
}

fn serve(listener: OwnedFd, pantry: Pantry, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut server =
        Server { poll, listener, tls, connections: Vec::new(), free: Vec::new(), pantry };
    let mut events: Vec<epoll::Event> = Vec::with_capacity(512);
    let mut buffer = vec![0; 32 * 1024];
    loop {
        events.clear();
        match epoll::wait(&server.poll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => server.accept()?,
                at => server.ready(at as usize, event.flags, &mut buffer)?,
            }
        }
    }
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match net::accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                // The client is gone again, or we are at the bound of open files: others go on.
                Err(_) => return Ok(()),
            };
            sockopt::set_tcp_nodelay(&socket, true)?;
            let tls = match &self.tls {
                None => None,
                Some(config) => Some(Session::server(config.clone()).map_err(io::Error::other)?),
            };
            let at = self.free.pop().unwrap_or(self.connections.len());
            epoll::add(&self.poll, &socket, EventData::new_u64(at as u64), EventFlags::IN)?;
            let connection = Some(Connection {
                socket,
                tls,
                talk: Talk::Unheard(0),
                head: HeadBuffer::default(),
                body: Body::Ended,
                waiting: None,
                unsent: VecDeque::new(),
                out: Vec::new(),
                sent: 0,
                closing: false,
            });
            match self.connections.get_mut(at) {
                Some(place) => *place = connection,
                None => self.connections.push(connection),
            }
        }
    }

    fn ready(&mut self, at: usize, flags: EventFlags, buffer: &mut [u8]) -> io::Result<()> {
        let Some(Some(connection)) = self.connections.get_mut(at) else { return Ok(()) };
        let mut alive = true;
        if flags.contains(EventFlags::OUT) {
            alive = connection.flush();
            if alive && connection.is_flushed() {
                let data = EventData::new_u64(at as u64);
                epoll::modify(&self.poll, &connection.socket, data, EventFlags::IN)?;
            }
        }
        let closing = EventFlags::HUP | EventFlags::ERR;
        if alive && connection.is_flushed() && flags.intersects(EventFlags::IN | closing) {
            alive = match net::recv(&connection.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => false,
                Ok((received, _)) => {
                    let input = buffer.get(..received).unwrap_or_default();
                    connection.arrive(input, &mut self.pantry)
                }
                Err(Errno::AGAIN | Errno::INTR) => true,
                Err(_) => false,
            };
            if alive && !connection.is_flushed() {
                let data = EventData::new_u64(at as u64);
                epoll::modify(&self.poll, &connection.socket, data, EventFlags::OUT)?;
            }
        }
        let over = !alive || (connection.closing && connection.is_flushed());
        if over && let Some(place) = self.connections.get_mut(at) {
            *place = None;
            self.free.push(at);
        }
        Ok(())
    }
}

impl Connection {
    /// Takes what came from the socket. `false` means: close it.
    fn arrive(&mut self, wire: &[u8], pantry: &mut Pantry) -> bool {
        let Some(tls) = &mut self.tls else {
            return self.hear(wire, pantry) && self.flush();
        };
        let mut plain = std::mem::take(&mut pantry.plain);
        plain.clear();
        let open = tls.feed(wire, &mut plain, &mut self.out);
        let alive = open.is_ok() && self.hear(&plain, pantry);
        pantry.plain = plain;
        // Also the alert that says why not.
        self.flush() && alive && open == Ok(true)
    }

    /// Finds out what is spoken, and listens.
    fn hear(&mut self, mut input: &[u8], pantry: &mut Pantry) -> bool {
        if let Talk::Unheard(heard) = self.talk {
            let expected = PREFACE.get(heard..).unwrap_or_default();
            let same = expected.iter().zip(input).take_while(|(a, b)| a == b).count();
            if same == expected.len() {
                input = input.get(same..).unwrap_or_default();
                let mut said = std::mem::take(&mut pantry.said);
                said.clear();
                self.talk = Talk::Http2(Box::new(Calls::new(&mut said)));
                let alive = self.say(&said);
                pantry.said = said;
                if !alive {
                    return false;
                }
            } else if same == input.len() {
                self.talk = Talk::Unheard(heard + same);
                return true;
            } else {
                self.talk = Talk::Http1;
                let begun = PREFACE.get(..heard).unwrap_or_default();
                if !self.take(begun, pantry) {
                    return false;
                }
            }
        }
        let Talk::Http2(calls) = &mut self.talk else { return self.take(input, pantry) };
        let mut said = std::mem::take(&mut pantry.said);
        said.clear();
        let alive = calls.take(input, pantry, &mut said).is_ok() && self.say(&said);
        pantry.said = said;
        alive
    }

    /// Puts bytes where they are sent from.
    fn say(&mut self, bytes: &[u8]) -> bool {
        match &mut self.tls {
            _ if bytes.is_empty() => true,
            Some(tls) => tls.write(bytes, &mut self.out).is_ok(),
            None => {
                self.out.extend_from_slice(bytes);
                true
            }
        }
    }

    /// Reads HTTP/1 requests out of `input` and answers them. `false` means: close it.
    fn take(&mut self, input: &[u8], pantry: &mut Pantry) -> bool {
        let mut rest = input;
        while !self.closing {
            if let Some(request) = self.waiting {
                let Ok(used) = self.body.skip(rest) else { return false };
                rest = rest.get(used..).unwrap_or_default();
                if self.body != Body::Ended {
                    return true;
                }
                self.waiting = None;
                if !self.answer(request, pantry) {
                    return false;
                }
            }
            if rest.is_empty() {
                return true;
            }
            match self.head.take(rest, |head| parse_request(head, pantry.bytes)) {
                Ok((used, request)) => {
                    rest = rest.get(used..).unwrap_or_default();
                    let Some(request) = request else { return true };
                    self.body = request.body;
                    self.waiting = Some(request);
                }
                Err(_) => {
                    let refused = Request {
                        kind: Kind::Refused,
                        head_only: false,
                        close: true,
                        body: Body::Ended,
                    };
                    return self.answer(refused, pantry);
                }
            }
        }
        true
    }

    fn answer(&mut self, request: Request, pantry: &mut Pantry) -> bool {
        let answer = pantry.answer(request.kind);
        let end = if request.head_only { answer.head_bytes } else { answer.bytes.len() };
        self.closing |= request.close;
        if self.tls.is_some() {
            return self.say(answer.bytes.get(..end).unwrap_or_default());
        }
        self.unsent.push_back((answer, 0..end));
        self.flush()
    }

    fn is_flushed(&self) -> bool {
        self.unsent.is_empty() && self.out.is_empty()
    }

    /// Sends what waits. `false` means that the peer is gone.
    fn flush(&mut self) -> bool {
        while let Some(part) = self.out.get(self.sent..).filter(|part| !part.is_empty()) {
            match net::send(&self.socket, part, SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        self.out.clear();
        self.sent = 0;
        while let Some((answer, range)) = self.unsent.front_mut() {
            let part = answer.bytes.get(range.clone()).unwrap_or_default();
            match net::send(&self.socket, part, SendFlags::NOSIGNAL) {
                Ok(sent) if sent == part.len() => drop(self.unsent.pop_front()),
                Ok(sent) => range.start += sent,
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    /// An origin on a free port, for as long as the test process lives.
    pub fn running(tls: Option<Arc<ServerConfig>>) -> std::net::SocketAddr {
        let listener = listen(0).unwrap();
        let address = SocketAddr::try_from(net::getsockname(&listener).unwrap()).unwrap();
        std::thread::spawn(move || serve(listener, Pantry::new(128, Duration::ZERO), tls));
        address
    }

    fn origin() -> TcpStream {
        let stream = TcpStream::connect(running(None)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn until_close(mut stream: TcpStream) -> String {
        let mut out = String::new();
        stream.read_to_string(&mut out).unwrap();
        out
    }

    #[test]
    fn pipelined_requests_in_pieces_are_answered_in_order() {
        let mut stream = origin();
        let requests = b"POST /r7/bytes/3 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello\
            PUT /chunked/5 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n\
            HEAD /bytes/9 HTTP/1.1\r\n\r\n\
            GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        for piece in requests.chunks(7) {
            stream.write_all(piece).unwrap();
        }
        let text = until_close(stream);
        let heads: Vec<&str> = text.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
        assert_eq!(heads.len(), 4, "{text}");
        assert!(heads[0].ends_with("content-length: 3\r\n\r\nxxx"));
        assert!(heads[1].ends_with("\r\n\r\n5\r\nxxxxx\r\n0\r\n\r\n"));
        assert!(heads[2].ends_with("content-length: 9\r\n\r\n"));
        assert!(heads[3].ends_with(&"x".repeat(128)));
    }

    #[test]
    fn a_large_answer_arrives_whole() {
        let mut stream = origin();
        stream.write_all(b"GET /bytes/20000000 HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let text = until_close(stream);
        assert_eq!(text.len() - text.find("\r\n\r\n").unwrap() - 4, 20_000_000);
    }

    #[test]
    fn nonsense_is_refused_and_closed() {
        let mut stream = origin();
        stream.write_all(b"what is this\r\n\r\n").unwrap();
        assert!(until_close(stream).starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn sizes() {
        assert_eq!(kind(b"/a/bytes/16384?x", 1), Kind::Bytes(16384));
        assert_eq!(kind(b"/chunked/0", 1), Kind::Chunked(0));
        assert_eq!(kind(b"/bytes/", 7), Kind::Refused);
        assert_eq!(kind(b"/bytes/99999999999999999999", 7), Kind::Refused);
        assert_eq!(kind(b"/x", 7), Kind::Bytes(7));
    }
}
