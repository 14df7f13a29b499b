//! One thread of the load generator: an epoll loop over its connections.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use rustix::time::Timespec;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::connection::{Connection, Fault, Scratch, Script};
use super::schedule::Due;
use super::streams::Ended;
use crate::histogram;
use crate::tls::Session;

/// How to speak TLS.
#[derive(Clone)]
pub struct Secure {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

/// What one thread needs to know.
pub struct Job<'a> {
    pub address: SocketAddr,
    pub secure: Option<Secure>,
    pub script: Script<'a>,
    pub connections: usize,
    /// A connection of its own for every request.
    pub fresh: bool,
    /// The intended starts; without it every connection is kept busy.
    pub due: Option<Due>,
    pub start: Instant,
    pub warmup: Duration,
    /// Counted from `start`, warm-up included.
    pub end: Duration,
    pub timeout: Duration,
    /// Answers so far, for whoever watches.
    pub answered: &'a AtomicU64,
    pub stop: &'a AtomicBool,
}

/// What one thread saw after the warm-up.
pub struct Tally {
    pub latency: Histogram<u64>,
    pub answers: u64,
    pub bytes: u64,
    pub not_2xx: u64,
    /// Answers whose trailers do not say `grpc-status: 0`.
    pub grpc_failures: u64,
    /// Requests that the server ended with RST_STREAM.
    pub resets: u64,
    /// Answers that are not those to their requests, or not all of them; where ids are checked.
    pub wrong: u64,
    pub connect_errors: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    pub timeouts: u64,
    /// Connections opened anew after a clean close by the server.
    pub reconnects: u64,
    /// TLS handshakes, and those of them that resumed a session.
    pub handshakes: u64,
    pub resumed: u64,
    /// Requests that were due but had no answer when the run was over.
    pub unfinished: u64,
    /// What was wrong the first time that a server's bytes made no sense.
    pub first_fault: Option<String>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            latency: histogram::latencies(),
            answers: 0,
            bytes: 0,
            not_2xx: 0,
            grpc_failures: 0,
            resets: 0,
            wrong: 0,
            connect_errors: 0,
            read_errors: 0,
            write_errors: 0,
            timeouts: 0,
            reconnects: 0,
            handshakes: 0,
            resumed: 0,
            unfinished: 0,
            first_fault: None,
        }
    }

    pub fn add(&mut self, other: &Self) {
        // Same bounds by construction, so this cannot fail.
        let _ = self.latency.add(&other.latency);
        self.answers += other.answers;
        self.bytes += other.bytes;
        self.not_2xx += other.not_2xx;
        self.grpc_failures += other.grpc_failures;
        self.resets += other.resets;
        self.wrong += other.wrong;
        self.connect_errors += other.connect_errors;
        self.read_errors += other.read_errors;
        self.write_errors += other.write_errors;
        self.timeouts += other.timeouts;
        self.reconnects += other.reconnects;
        self.handshakes += other.handshakes;
        self.resumed += other.resumed;
        self.unfinished += other.unfinished;
        self.first_fault = self.first_fault.take().or_else(|| other.first_fault.clone());
    }
}

/// The place of one connection, and what the schedule asks of it.
#[derive(Default)]
struct Slot {
    /// `None` between a failed connect and the next try.
    connection: Option<Connection>,
    /// Requests due by the schedule, and those taken up.
    due: u64,
    taken: u64,
}

enum Lost {
    Connect,
    Read,
    Write,
    Timeout,
    Closed,
    /// It was for one request.
    Done,
}

/// Time-outs are looked for, and failed connects tried again, this often.
const SWEEP: Duration = Duration::from_millis(100);
/// How long after the end answers to scheduled requests are waited for.
const DRAIN: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 64 * 1024;

/// Runs the loop to its end.
pub fn run(job: Job<'_>) -> io::Result<Tally> {
    // The default slack of 50 µs would show as latency at a fixed rate.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut client = Client {
        poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        slots: Vec::with_capacity(job.connections),
        book: Book {
            tally: Tally::new(),
            answered: 0,
            warmup: job.warmup.as_nanos() as u64,
            scheduled: job.due.is_some(),
        },
        buffer: vec![0; READ_BYTES],
        scratch: Scratch::default(),
        job,
    };
    client.run()?;
    Ok(client.book.tally)
}

/// Where answers are written down.
struct Book {
    tally: Tally,
    answered: u64,
    warmup: u64,
    scheduled: bool,
}

impl Book {
    fn ended(&mut self, start: u64, how: Ended, now: u64) {
        self.answered += 1;
        // With a schedule the intended start decides, so that what the warm-up left waiting
        // does not leak into the window.
        let moment = if self.scheduled { start } else { now };
        if moment < self.warmup {
            return;
        }
        self.tally.answers += 1;
        self.tally.latency.saturating_record(now.saturating_sub(start));
        match how {
            Ended::Answer { status: 200..400 } => {}
            Ended::Answer { .. } => self.tally.not_2xx += 1,
            Ended::GrpcFailure => self.tally.grpc_failures += 1,
            Ended::Reset => self.tally.resets += 1,
            Ended::Wrong => self.tally.wrong += 1,
        }
    }

    fn fault(&mut self, fault: &Fault) {
        self.tally.first_fault.get_or_insert_with(|| fault.to_string());
    }
}

struct Client<'a> {
    job: Job<'a>,
    poll: OwnedFd,
    slots: Vec<Slot>,
    book: Book,
    buffer: Vec<u8>,
    scratch: Scratch,
}

impl Client<'_> {
    fn now_ns(&self) -> u64 {
        self.job.start.elapsed().as_nanos() as u64
    }

    fn run(&mut self) -> io::Result<()> {
        for place in 0..self.job.connections {
            self.slots.push(Slot::default());
            self.connect(place)?;
        }
        let mut events = Vec::with_capacity(self.job.connections.clamp(16, 1024));
        let end_ns = self.job.end.as_nanos() as u64;
        let drained_ns = if self.job.due.is_some() {
            end_ns + self.job.timeout.min(DRAIN).as_nanos() as u64
        } else {
            end_ns
        };
        let mut sweep_ns = 0;
        loop {
            let now = self.now_ns();
            let ended = now >= end_ns;
            if now >= drained_ns || self.job.stop.load(Relaxed) || (ended && self.idle()) {
                break;
            }
            let mut wake = if ended { drained_ns } else { end_ns };
            if !ended {
                while let Some(place) = self.job.due.as_mut().and_then(|due| due.pop(now)) {
                    if let Some(slot) = self.slots.get_mut(place) {
                        slot.due += 1;
                    }
                    self.fill(place)?;
                }
                if let Some(due) = &self.job.due {
                    wake = wake.min(due.next_ns());
                }
            }
            if now >= sweep_ns {
                self.sweep(now)?;
                sweep_ns = now + SWEEP.as_nanos() as u64;
            }
            let wait = wake.min(sweep_ns).saturating_sub(self.now_ns());
            let wait = Timespec {
                tv_sec: (wait / 1_000_000_000) as i64,
                tv_nsec: (wait % 1_000_000_000) as i64,
            };
            events.clear();
            match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let event: &epoll::Event = event;
                self.ready(event.data.u64() as usize, event.flags)?;
            }
            self.job.answered.store(self.book.answered, Relaxed);
        }
        self.count_unfinished();
        self.job.answered.store(self.book.answered, Relaxed);
        Ok(())
    }

    fn idle(&self) -> bool {
        let idle = |slot: &Slot| slot.connection.as_ref().is_none_or(Connection::is_idle);
        self.slots.iter().all(|slot| idle(slot) && slot.due == slot.taken)
    }

    /// Requests that were due and never answered count with the age that they have reached:
    /// leaving them out would flatter a server that stalls at the end.
    fn count_unfinished(&mut self) {
        let now = self.now_ns();
        let Some(due) = &self.job.due else { return };
        for (place, slot) in self.slots.iter().enumerate() {
            let waiting = (slot.taken..slot.due).map(|n| due.start_ns(place, n));
            let in_flight = slot.connection.as_ref().map(Connection::in_flight);
            for start in in_flight.into_iter().flatten().chain(waiting) {
                self.book.tally.unfinished += 1;
                self.book.tally.latency.saturating_record(now.saturating_sub(start));
            }
        }
    }

    fn connect(&mut self, place: usize) -> io::Result<()> {
        let opened = self.now_ns();
        let Some(slot) = self.slots.get_mut(place) else { return Ok(()) };
        slot.connection = None;
        let tls = match &self.job.secure {
            None => None,
            Some(secure) => Some(
                Session::client(secure.config.clone(), secure.name.clone())
                    .map_err(io::Error::other)?,
            ),
        };
        let family = AddressFamily::from_raw(match self.job.address {
            SocketAddr::V4(_) => AddressFamily::INET.as_raw(),
            SocketAddr::V6(_) => AddressFamily::INET6.as_raw(),
        });
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match net::connect(&socket, &self.job.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {
                let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
                epoll::add(&self.poll, &socket, EventData::new_u64(place as u64), flags)?;
                slot.connection = Some(Connection::new(socket, tls, opened, &self.job.script));
            }
            Err(_) => self.book.tally.connect_errors += 1,
        }
        Ok(())
    }

    fn lose(&mut self, place: usize, how: Lost) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(place) else { return Ok(()) };
        // Closing also takes it out of the poll set.
        slot.connection = None;
        let tally = &mut self.book.tally;
        match how {
            Lost::Connect => {
                tally.connect_errors += 1;
                // The next sweep tries again: at once would be a busy loop.
                return Ok(());
            }
            Lost::Read => tally.read_errors += 1,
            Lost::Write => tally.write_errors += 1,
            Lost::Timeout => tally.timeouts += 1,
            Lost::Closed => tally.reconnects += 1,
            Lost::Done => {}
        }
        self.connect(place)
    }

    fn sweep(&mut self, now: u64) -> io::Result<()> {
        let limit = now.saturating_sub(self.job.timeout.as_nanos() as u64);
        for place in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(place) else { break };
            let Some(connection) = &mut slot.connection else {
                self.connect(place)?;
                continue;
            };
            if connection.oldest().is_none_or(|start| start >= limit) {
                continue;
            }
            let (late, all) = connection.give_up(limit);
            // Their latency is at least this; without it a hung server would look fast.
            for &start in late.iter().filter(|&&start| start >= self.book.warmup) {
                self.book.tally.latency.saturating_record(now.saturating_sub(start));
            }
            if all {
                self.lose(place, Lost::Timeout)?;
            } else {
                self.book.tally.timeouts += late.len() as u64;
                self.fill(place)?;
            }
        }
        Ok(())
    }

    fn ready(&mut self, place: usize, flags: EventFlags) -> io::Result<()> {
        let Some(connection) = self.connection(place) else { return Ok(()) };
        if !connection.connected {
            let failed = sockopt::socket_error(&connection.socket)?.is_err();
            if failed || flags.contains(EventFlags::HUP) {
                return self.lose(place, Lost::Connect);
            }
            connection.begin();
            return self.fill(place);
        }
        if flags.contains(EventFlags::OUT) {
            self.send(place)?;
        }
        let closing = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(EventFlags::IN | closing) {
            self.receive(place)?;
        }
        Ok(())
    }

    fn connection(&mut self, place: usize) -> Option<&mut Connection> {
        self.slots.get_mut(place)?.connection.as_mut()
    }

    /// Takes up as many requests as may be in flight, and sends them.
    fn fill(&mut self, place: usize) -> io::Result<()> {
        let now = if self.job.due.is_none() { self.now_ns() } else { 0 };
        let Some(slot) = self.slots.get_mut(place) else { return Ok(()) };
        let Some(connection) = &mut slot.connection else { return Ok(()) };
        let (script, scratch) = (&self.job.script, &mut self.scratch);
        let mut free = connection.free(script);
        if let Some(due) = &self.job.due {
            free = free.min((slot.due - slot.taken) as usize);
            let first = slot.taken;
            slot.taken += free as u64;
            let starts = (first..slot.taken).map(|n| due.start_ns(place, n));
            connection.send(starts, script, scratch);
        } else if free > 0 {
            // The handshake is part of what such a request costs.
            let (start, count) = if self.job.fresh { (connection.opened, 1) } else { (now, free) };
            connection.send(std::iter::repeat_n(start, count), script, scratch);
        }
        self.send(place)
    }

    fn send(&mut self, place: usize) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(place) else { return Ok(()) };
        let Some(connection) = &mut slot.connection else { return Ok(()) };
        if !connection.connected {
            return Ok(());
        }
        let wants_out = loop {
            let rest = connection.unsent(&self.job.script);
            if rest.is_empty() {
                break false;
            }
            match net::send(&connection.socket, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => connection.sent(sent),
                Err(Errno::AGAIN) => break true,
                Err(Errno::INTR) => {}
                // An answer before the close may still be there to read.
                Err(_) if connection.watches_out => return self.lose(place, Lost::Write),
                Err(_) => return self.receive(place),
            }
        };
        if wants_out != connection.watches_out {
            let mut flags = EventFlags::IN | EventFlags::RDHUP;
            flags.set(EventFlags::OUT, wants_out);
            let data = EventData::new_u64(place as u64);
            epoll::modify(&self.poll, &connection.socket, data, flags)?;
            connection.watches_out = wants_out;
        }
        Ok(())
    }

    /// One read an event is enough: the poll is level-triggered, and a read that would only
    /// say "nothing more" costs as much as one that brings an answer.
    fn receive(&mut self, place: usize) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(place) else { return Ok(()) };
        let Some(connection) = &mut slot.connection else { return Ok(()) };
        let socket = &connection.socket;
        let received = match net::recv(socket, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((received, _)) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return self.lose(place, Lost::Read),
        };
        let now = self.job.start.elapsed().as_nanos() as u64;
        let book = &mut self.book;
        if received == 0 {
            connection.end(|start, how| book.ended(start, how, now));
            let clean = connection.is_idle();
            return self.lose(place, if clean { Lost::Closed } else { Lost::Read });
        }
        let counts = now >= book.warmup;
        if counts {
            book.tally.bytes += received as u64;
        }
        let wire = self.buffer.get(..received).unwrap_or_default();
        let before = (book.answered, connection.resumed());
        let taken = connection.take(wire, &mut self.scratch, |start, how| {
            book.ended(start, how, now);
        });
        if let (None, Some(resumed), true) = (before.1, connection.resumed(), counts) {
            book.tally.handshakes += 1;
            book.tally.resumed += u64::from(resumed);
        }
        let one_ended = book.answered > before.0;
        let over = self.job.due.is_none() && now >= self.job.end.as_nanos() as u64;
        match taken {
            Err(fault) => {
                book.fault(&fault);
                let handshake = matches!(fault, Fault::Tls(_) | Fault::NotHttp2);
                // A server that we do not understand is tried again by the next sweep.
                self.lose(place, if handshake { Lost::Connect } else { Lost::Read })
            }
            Ok(_) if over => Ok(()),
            Ok(_) if self.job.fresh && one_ended => self.lose(place, Lost::Done),
            Ok(true) => self.fill(place),
            Ok(false) => {
                let clean = connection.is_idle();
                self.lose(place, if clean { Lost::Closed } else { Lost::Read })
            }
        }
    }
}
