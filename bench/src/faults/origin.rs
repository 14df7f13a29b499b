//! An origin that fails on purpose. Every answer carries the id of its request in a field and at
//! the start of its body, so that an answer that reaches somebody else shows.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::pin;
use crate::wire::{Body, Fields, HeadBuffer, Malformed, value};

/// The field that carries a request's id, there and back.
pub const ID_FIELD: &str = "x-bench-id";
/// Digits of an id.
pub const ID_DIGITS: usize = 20;
/// Bytes of a whole body: the id, then filler.
pub const BODY_BYTES: usize = 256;

/// Heads of the flood, and bytes of the head that is too big.
const INTERIMS: usize = 5_000;
const BIG_HEAD_BYTES: usize = 100 * 1024;
/// How often a waiting thread looks whether anything has changed.
const GLANCE: Duration = Duration::from_millis(100);
/// How long a flapping origin is good, and then bad.
const FLAP: Duration = Duration::from_secs(1);
/// Threads of one origin are small and many.
const STACK_BYTES: usize = 128 * 1024;

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The port is closed.
    Refuse,
    /// RST as soon as there is a connection.
    ResetAccept,
    /// RST after the request has been read.
    ResetRequest,
    /// FIN after the request, before any byte.
    Fin,
    /// FIN in the middle of a counted body.
    FinBody,
    /// RST there.
    ResetBody,
    /// The request is read and nothing comes.
    Hang,
    /// A byte a second.
    Drip,
    /// No HTTP at all.
    Garbage,
    /// 5,000 times 103, then an answer.
    Interims,
    Status503,
    Status500,
    /// A whole answer and behind it one that nobody asked for: the length was too short.
    Surplus,
    /// The length is more than what comes, and the connection stays.
    Short,
    /// `Content-Length` and `Transfer-Encoding` in one head.
    Both,
    /// A head of 100 KB.
    BigHead,
    /// Good for a second, then resets for one.
    Flap,
}

impl Fault {
    pub const ALL: [Self; 17] = [
        Self::Refuse,
        Self::ResetAccept,
        Self::ResetRequest,
        Self::Fin,
        Self::Hang,
        Self::Drip,
        Self::Garbage,
        Self::Interims,
        Self::Status503,
        Self::Status500,
        Self::Both,
        Self::BigHead,
        Self::Surplus,
        Self::Flap,
        Self::FinBody,
        Self::ResetBody,
        Self::Short,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::ResetAccept => "reset-accept",
            Self::ResetRequest => "reset-request",
            Self::Fin => "fin",
            Self::FinBody => "fin-body",
            Self::ResetBody => "reset-body",
            Self::Hang => "hang",
            Self::Drip => "drip",
            Self::Garbage => "garbage",
            Self::Interims => "interims",
            Self::Status503 => "503",
            Self::Status500 => "500",
            Self::Surplus => "surplus",
            Self::Short => "short",
            Self::Both => "both",
            Self::BigHead => "big-head",
            Self::Flap => "flap",
        }
    }

    pub fn parse(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|fault| fault.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|fault| fault.name()).collect();
            format!("unknown fault {name:?}: it is one of {}", known.join(", "))
        })
    }

    /// Whether it shows before the head of an answer has passed: a proxy can then ask elsewhere.
    pub fn can_be_hidden(self) -> bool {
        !matches!(self, Self::FinBody | Self::ResetBody | Self::Short)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What all threads of an origin share.
#[derive(Debug)]
struct Shared {
    begun: Instant,
    /// The place of the present fault in [`Fault::ALL`]; beyond it: none.
    fault: AtomicUsize,
    /// Requests of a hundred that it strikes.
    share: u64,
    /// Requests so far, for the share and for whoever asks.
    asked: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn fault(&self) -> Option<Fault> {
        match Fault::ALL.get(self.fault.load(Relaxed)).copied() {
            Some(Fault::Flap) => {
                let turn = self.begun.elapsed().as_nanos() / FLAP.as_nanos();
                (turn % 2 == 1).then_some(Fault::ResetRequest)
            }
            fault => fault,
        }
    }

    /// The fault that strikes the request that has just come.
    fn strike(&self) -> Option<Fault> {
        let n = self.asked.fetch_add(1, Relaxed);
        // Evenly among the requests, without chance.
        let strikes = (n + 1) * self.share / 100 > n * self.share / 100;
        self.fault().filter(|_| strikes)
    }

    /// Those that need no request. They strike all or, with a share, at their turn as requests do.
    fn closes(&self) -> bool {
        self.share >= 100 && matches!(self.fault(), Some(Fault::Refuse | Fault::ResetAccept))
    }

    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

/// A running origin. Ends when dropped.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Origin {
    /// Listens on 127.0.0.1; port 0 picks one. `share`: requests of a hundred that faults strike.
    pub fn start(port: u16, share: u64, cpu: Option<usize>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|e| io::Error::other(format!("cannot listen on port {port}: {e}")))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            fault: AtomicUsize::new(usize::MAX),
            share: share.min(100),
            asked: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || accept(listener, address, &theirs, cpu));
        Ok(Self { address, shared, thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Fails in this way from now on; `None`: not at all.
    pub fn fail(&self, fault: Option<Fault>) {
        let place = Fault::ALL.iter().position(|&other| Some(other) == fault);
        self.shared.fault.store(place.unwrap_or(usize::MAX), Relaxed);
    }

    /// Requests that have come so far.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Relaxed)
    }

    /// Waits for ever, or for an end that comes from within.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A port that is taken and refuses.
fn hold(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket =
        net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &address)?;
    Ok(socket)
}

fn accept(listener: TcpListener, address: SocketAddr, shared: &Arc<Shared>, cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        // Threads that are started from here are held to it, too.
        let _ = pin::this_thread(cpu);
    }
    let mut listener = Some(listener);
    let mut held: Option<OwnedFd> = None;
    let glance =
        Timespec { tv_sec: 0, tv_nsec: GLANCE.as_nanos().try_into().unwrap_or(100_000_000) };
    while !shared.stopped() {
        if shared.closes() && shared.fault() == Some(Fault::Refuse) {
            drop(listener.take());
            held = held.or_else(|| hold(address).ok());
            std::thread::sleep(GLANCE);
            continue;
        }
        let Some(open) = &listener else {
            drop(held.take());
            listener = TcpListener::bind(address).ok();
            continue;
        };
        let ready = poll(&mut [PollFd::new(open, PollFlags::IN)], Some(&glance));
        if ready.is_ok_and(|ready| ready == 0) {
            continue;
        }
        let Ok((stream, _)) = open.accept() else { continue };
        if shared.closes() {
            reset(stream);
            continue;
        }
        let theirs = shared.clone();
        let started = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || Conversation::new(stream, theirs).run());
        // Without a thread there is no connection, which the peer sees as another fault.
        drop(started);
    }
}

/// Closes by RST instead of FIN.
fn reset(stream: TcpStream) {
    let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
}

/// What becomes of a connection.
enum Flow {
    Keep,
    Close,
    Reset,
}

struct Conversation {
    stream: TcpStream,
    shared: Arc<Shared>,
}

/// What matters of a request.
struct Request {
    id: [u8; ID_DIGITS],
    body: Body,
    close: bool,
}

fn parse(head: &[u8]) -> Result<Request, Malformed> {
    let fields = Fields::parse(head)?;
    let mut id = [b'0'; ID_DIGITS];
    if let Some(given) = value(head, ID_FIELD.as_bytes()).filter(|v| v.len() == ID_DIGITS) {
        id.copy_from_slice(given);
    }
    let body = match fields.content_length {
        _ if fields.chunked => Body::CHUNKED,
        None | Some(0) => Body::Ended,
        Some(length) => Body::Length(length),
    };
    let old = crate::wire::first_line(head).ends_with(b"HTTP/1.0");
    Ok(Request { id, body, close: fields.close || (old && !fields.keep_alive) })
}

impl Conversation {
    fn new(stream: TcpStream, shared: Arc<Shared>) -> Self {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(GLANCE));
        Self { stream, shared }
    }

    fn run(mut self) {
        match self.talk() {
            Ok(Flow::Reset) => reset(self.stream),
            _ => drop(self.stream.shutdown(Shutdown::Both)),
        }
    }

    fn talk(&mut self) -> io::Result<Flow> {
        let mut head = HeadBuffer::default();
        let mut pending: Option<Request> = None;
        let mut room = [0; 16 * 1024];
        loop {
            let received = match self.stream.read(&mut room) {
                Ok(0) => return Ok(Flow::Close),
                Ok(received) => received,
                Err(e) if is_pause(&e) => {
                    if self.shared.stopped() || self.shared.closes() {
                        return Ok(Flow::Reset);
                    }
                    continue;
                }
                Err(e) => return Err(e),
            };
            let mut rest = room.get(..received).unwrap_or_default();
            loop {
                if let Some(request) = &mut pending {
                    let Ok(used) = request.body.skip(rest) else { return Ok(Flow::Close) };
                    rest = rest.get(used..).unwrap_or_default();
                    if request.body != Body::Ended {
                        break;
                    }
                    let (id, close) = (request.id, request.close);
                    pending = None;
                    match self.answer(&id)? {
                        Flow::Keep if !close => {}
                        Flow::Keep => return Ok(Flow::Close),
                        flow => return Ok(flow),
                    }
                }
                if rest.is_empty() {
                    break;
                }
                let Ok((used, request)) = head.take(rest, parse) else { return Ok(Flow::Close) };
                rest = rest.get(used..).unwrap_or_default();
                pending = request;
                if pending.is_none() {
                    break;
                }
            }
        }
    }

    fn answer(&mut self, id: &[u8; ID_DIGITS]) -> io::Result<Flow> {
        let Some(fault) = self.shared.strike() else {
            return self.say(&whole(id, "200 OK", ""), Flow::Keep);
        };
        let half = |bytes: Vec<u8>| bytes.get(..bytes.len() - BODY_BYTES / 2).map(<[u8]>::to_vec);
        let half = half(whole(id, "200 OK", "")).unwrap_or_default();
        match fault {
            Fault::Refuse | Fault::ResetAccept | Fault::ResetRequest | Fault::Flap => {
                Ok(Flow::Reset)
            }
            Fault::Fin => Ok(Flow::Close),
            Fault::FinBody => self.say(&half, Flow::Close),
            Fault::ResetBody => {
                self.say(&half, Flow::Keep)?;
                // A reset at once could take back what was sent.
                std::thread::sleep(Duration::from_millis(10));
                Ok(Flow::Reset)
            }
            Fault::Hang => self.hang(),
            Fault::Drip => self.drip(&whole(id, "200 OK", "")),
            Fault::Garbage => self.say(&b"\x16\x03garbage\0 ".repeat(20), Flow::Keep),
            Fault::Interims => {
                let flood = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(INTERIMS);
                self.say(flood.as_bytes(), Flow::Keep)?;
                self.say(&whole(id, "200 OK", ""), Flow::Keep)
            }
            Fault::Status503 => self.say(&whole(id, "503 Service Unavailable", ""), Flow::Keep),
            Fault::Status500 => self.say(&whole(id, "500 Internal Server Error", ""), Flow::Keep),
            Fault::Surplus => {
                let mut bytes = whole(id, "200 OK", "");
                bytes.extend_from_slice(&whole(&[b'9'; ID_DIGITS], "200 OK", ""));
                self.say(&bytes, Flow::Keep)
            }
            Fault::Short => {
                self.say(&half, Flow::Keep)?;
                self.hang()
            }
            Fault::Both => {
                self.say(&whole(id, "200 OK", "transfer-encoding: chunked\r\n"), Flow::Keep)
            }
            Fault::BigHead => {
                let field = format!("x-big: {}\r\n", "x".repeat(BIG_HEAD_BYTES));
                self.say(&whole(id, "200 OK", &field), Flow::Keep)
            }
        }
    }

    fn say(&mut self, bytes: &[u8], then: Flow) -> io::Result<Flow> {
        self.stream.write_all(bytes)?;
        Ok(then)
    }

    /// Says nothing until the peer goes.
    fn hang(&mut self) -> io::Result<Flow> {
        let mut room = [0; 1024];
        loop {
            match self.stream.read(&mut room) {
                Ok(0) => return Ok(Flow::Close),
                Ok(_) => {}
                Err(e) if is_pause(&e) && !self.shared.stopped() => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn drip(&mut self, bytes: &[u8]) -> io::Result<Flow> {
        let mut next = Instant::now();
        let mut left = bytes.iter();
        let mut room = [0; 1024];
        loop {
            if Instant::now() >= next {
                let Some(&byte) = left.next() else { return Ok(Flow::Keep) };
                self.stream.write_all(&[byte])?;
                next += Duration::from_secs(1);
            }
            match self.stream.read(&mut room) {
                Ok(0) => return Ok(Flow::Close),
                Ok(_) => {}
                Err(e) if is_pause(&e) && !self.shared.stopped() => {}
                Err(e) => return Err(e),
            }
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// A whole answer to the request `id`.
fn whole(id: &[u8; ID_DIGITS], status: &str, more: &str) -> Vec<u8> {
    let id = String::from_utf8_lossy(id);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\n{ID_FIELD}: {id}\r\n{more}\
         content-length: {BODY_BYTES}\r\n\r\n{id}"
    );
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + BODY_BYTES - ID_DIGITS, b'x');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nX-Bench-Id: 00000000000000000042\r\n\r\n";

    fn ask(origin: &Origin) -> (Vec<u8>, io::Result<()>) {
        let mut out = Vec::new();
        let Ok(mut stream) = TcpStream::connect(origin.address()) else {
            return (out, Err(ErrorKind::ConnectionRefused.into()));
        };
        stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        let _ = stream.write_all(GET);
        let end = loop {
            let mut room = [0; 8192];
            match stream.read(&mut room) {
                Ok(0) => break Ok(()),
                Ok(n) => out.extend_from_slice(&room[..n]),
                Err(e) => break Err(e),
            }
        };
        (out, end)
    }

    #[test]
    fn a_good_answer_carries_the_requests_id_twice() {
        let origin = Origin::start(0, 100, None).unwrap();
        let (bytes, end) = ask(&origin);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("x-bench-id: 00000000000000000042"), "{head}");
        assert!(body.starts_with("00000000000000000042x") && body.len() == BODY_BYTES, "{body}");
        assert!(is_pause(&end.unwrap_err()), "the connection stays");
        assert_eq!(origin.asked(), 1);
    }

    #[test]
    fn every_fault_is_what_it_says() {
        let origin = Origin::start(0, 100, None).unwrap();
        for fault in Fault::ALL.into_iter().filter(|&fault| fault != Fault::Flap) {
            origin.fail(Some(fault));
            // The one that listens or not takes note at its next glance.
            std::thread::sleep(GLANCE * 3);
            let (bytes, end) = ask(&origin);
            let kind = end.err().map(|e| e.kind());
            let open = matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut));
            let was_reset = kind == Some(ErrorKind::ConnectionReset);
            let good = match fault {
                Fault::Refuse => kind == Some(ErrorKind::ConnectionRefused),
                Fault::ResetAccept | Fault::ResetRequest => was_reset && bytes.is_empty(),
                Fault::Fin => kind.is_none() && bytes.is_empty(),
                Fault::FinBody => kind.is_none() && bytes.ends_with(b"x"),
                Fault::ResetBody => was_reset && bytes.ends_with(b"x"),
                Fault::Hang => open && bytes.is_empty(),
                Fault::Drip => open && bytes == b"H",
                Fault::Garbage => open && !bytes.starts_with(b"HTTP"),
                Fault::Interims => open && bytes.len() > INTERIMS * 20,
                Fault::Status503 => open && bytes.starts_with(b"HTTP/1.1 503 "),
                Fault::Status500 => open && bytes.starts_with(b"HTTP/1.1 500 "),
                Fault::Surplus => open && bytes.len() > 2 * BODY_BYTES,
                Fault::Short => open && bytes.len() < 2 * BODY_BYTES,
                Fault::Both => open && bytes.windows(7).any(|window| window == b"chunked"),
                Fault::BigHead => open && bytes.len() > BIG_HEAD_BYTES,
                Fault::Flap => true,
            };
            assert!(good, "{fault}: {} bytes, {kind:?}", bytes.len());
        }
        origin.fail(None);
        std::thread::sleep(GLANCE * 3);
        assert!(ask(&origin).0.starts_with(b"HTTP/1.1 200 "), "it comes back");
    }

    #[test]
    fn a_share_strikes_evenly() {
        let origin = Origin::start(0, 25, None).unwrap();
        origin.fail(Some(Fault::Status503));
        let failed = (0..8).filter(|_| ask(&origin).0.starts_with(b"HTTP/1.1 503 ")).count();
        assert_eq!(failed, 2);
    }

    #[test]
    fn names_are_read_back() {
        for fault in Fault::ALL {
            assert_eq!(Fault::parse(fault.name()), Ok(fault));
        }
        assert!(Fault::parse("reset").unwrap_err().contains("reset-accept"));
    }
}
