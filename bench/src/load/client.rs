//! One thread of the load generator: an epoll loop over its connections.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use rustix::time::Timespec;

use super::response::Parser;
use super::schedule::Due;
use crate::histogram;

/// What one thread needs to know.
pub struct Job<'a> {
    pub address: SocketAddr,
    /// `pipeline` copies of the request, so that a batch goes out with one send.
    pub batch: &'a [u8],
    pub pipeline: usize,
    pub head_only: bool,
    pub connections: usize,
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
    pub connect_errors: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    pub timeouts: u64,
    /// Connections opened anew after a clean close by the server.
    pub reconnects: u64,
    /// Requests that were due but had no answer when the run was over.
    pub unfinished: u64,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            latency: histogram::latencies(),
            answers: 0,
            bytes: 0,
            not_2xx: 0,
            connect_errors: 0,
            read_errors: 0,
            write_errors: 0,
            timeouts: 0,
            reconnects: 0,
            unfinished: 0,
        }
    }

    pub fn add(&mut self, other: &Self) {
        // Same bounds by construction, so this cannot fail.
        let _ = self.latency.add(&other.latency);
        self.answers += other.answers;
        self.bytes += other.bytes;
        self.not_2xx += other.not_2xx;
        self.connect_errors += other.connect_errors;
        self.read_errors += other.read_errors;
        self.write_errors += other.write_errors;
        self.timeouts += other.timeouts;
        self.reconnects += other.reconnects;
        self.unfinished += other.unfinished;
    }
}

struct Connection {
    /// `None` between a failed connect and the next try.
    socket: Option<OwnedFd>,
    connected: bool,
    watches_out: bool,
    parser: Parser,
    /// The starts (intended, with a schedule) of the requests in flight, in ns.
    in_flight: VecDeque<u64>,
    /// What of the present batch is still to be sent.
    unsent: std::ops::Range<usize>,
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
        connections: Vec::with_capacity(job.connections),
        tally: Tally::new(),
        answered: 0,
        buffer: vec![0; READ_BYTES],
        job,
    };
    client.run()?;
    Ok(client.tally)
}

struct Client<'a> {
    job: Job<'a>,
    poll: OwnedFd,
    connections: Vec<Connection>,
    tally: Tally,
    answered: u64,
    buffer: Vec<u8>,
}

impl Client<'_> {
    fn now_ns(&self) -> u64 {
        self.job.start.elapsed().as_nanos() as u64
    }

    fn run(&mut self) -> io::Result<()> {
        for place in 0..self.job.connections {
            self.connections.push(Connection {
                socket: None,
                connected: false,
                watches_out: false,
                parser: Parser::new(self.job.head_only),
                in_flight: VecDeque::with_capacity(self.job.pipeline),
                unsent: 0..0,
                due: 0,
                taken: 0,
            });
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
                    if let Some(connection) = self.connections.get_mut(place) {
                        connection.due += 1;
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
            self.job.answered.store(self.answered, Relaxed);
        }
        self.count_unfinished();
        self.job.answered.store(self.answered, Relaxed);
        Ok(())
    }

    fn idle(&self) -> bool {
        self.connections.iter().all(|c| c.in_flight.is_empty() && c.due == c.taken)
    }

    /// Requests that were due and never answered count with the age that they have reached:
    /// leaving them out would flatter a server that stalls at the end.
    fn count_unfinished(&mut self) {
        let now = self.now_ns();
        let Some(due) = &self.job.due else { return };
        for (place, connection) in self.connections.iter().enumerate() {
            let waiting = (connection.taken..connection.due).map(|n| due.start_ns(place, n));
            for start in connection.in_flight.iter().copied().chain(waiting) {
                self.tally.unfinished += 1;
                self.tally.latency.saturating_record(now.saturating_sub(start));
            }
        }
    }

    fn connect(&mut self, place: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(place) else { return Ok(()) };
        connection.parser = Parser::new(self.job.head_only);
        connection.in_flight.clear();
        connection.unsent = 0..0;
        connection.connected = false;
        connection.watches_out = true;
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
                connection.socket = Some(socket);
            }
            Err(_) => {
                connection.socket = None;
                self.tally.connect_errors += 1;
            }
        }
        Ok(())
    }

    fn lose(&mut self, place: usize, how: Lost) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(place) else { return Ok(()) };
        // Closing also takes it out of the poll set.
        connection.socket = None;
        connection.connected = false;
        connection.in_flight.clear();
        match how {
            Lost::Connect => {
                self.tally.connect_errors += 1;
                // The next sweep tries again: at once would be a busy loop.
                return Ok(());
            }
            Lost::Read => self.tally.read_errors += 1,
            Lost::Write => self.tally.write_errors += 1,
            Lost::Timeout => self.tally.timeouts += 1,
            Lost::Closed => self.tally.reconnects += 1,
        }
        self.connect(place)
    }

    fn sweep(&mut self, now: u64) -> io::Result<()> {
        let timeout = self.job.timeout.as_nanos() as u64;
        let warmup = self.job.warmup.as_nanos() as u64;
        for place in 0..self.connections.len() {
            let Some(connection) = self.connections.get(place) else { break };
            if connection.socket.is_none() {
                self.connect(place)?;
                continue;
            }
            let Some(&start) = connection.in_flight.front() else { continue };
            let age = now.saturating_sub(start);
            if age > timeout {
                // Its latency is at least this; without it a hung server would look fast.
                for &start in connection.in_flight.iter().filter(|&&start| start >= warmup) {
                    self.tally.latency.saturating_record(now.saturating_sub(start));
                }
                self.lose(place, Lost::Timeout)?;
            }
        }
        Ok(())
    }

    fn ready(&mut self, place: usize, flags: EventFlags) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(place) else { return Ok(()) };
        let Some(socket) = &connection.socket else { return Ok(()) };
        if !connection.connected {
            if sockopt::socket_error(socket)?.is_err() || flags.contains(EventFlags::HUP) {
                return self.lose(place, Lost::Connect);
            }
            connection.connected = true;
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

    /// Takes up as many requests as may be in flight, and sends them.
    fn fill(&mut self, place: usize) -> io::Result<()> {
        let pipeline = self.job.pipeline;
        let now = if self.job.due.is_none() { self.now_ns() } else { 0 };
        let Some(connection) = self.connections.get_mut(place) else { return Ok(()) };
        if !connection.connected {
            return Ok(());
        }
        if !connection.unsent.is_empty() {
            return self.send(place);
        }
        let mut free = pipeline.saturating_sub(connection.in_flight.len());
        if let Some(due) = &self.job.due {
            free = free.min((connection.due - connection.taken) as usize);
            for _ in 0..free {
                connection.in_flight.push_back(due.start_ns(place, connection.taken));
                connection.taken += 1;
            }
        } else {
            connection.in_flight.extend(std::iter::repeat_n(now, free));
        }
        connection.unsent = 0..free * (self.job.batch.len() / pipeline);
        self.send(place)
    }

    fn send(&mut self, place: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(place) else { return Ok(()) };
        let Some(socket) = &connection.socket else { return Ok(()) };
        while !connection.unsent.is_empty() {
            let rest = self.job.batch.get(connection.unsent.clone()).unwrap_or_default();
            match net::send(socket, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => connection.unsent.start += sent,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // An answer before the close may still be there to read.
                Err(_) if connection.watches_out => return self.lose(place, Lost::Write),
                Err(_) => return self.receive(place),
            }
        }
        let wants_out = !connection.unsent.is_empty();
        if wants_out != connection.watches_out {
            let mut flags = EventFlags::IN | EventFlags::RDHUP;
            flags.set(EventFlags::OUT, wants_out);
            epoll::modify(&self.poll, socket, EventData::new_u64(place as u64), flags)?;
            connection.watches_out = wants_out;
        }
        Ok(())
    }

    /// One read an event is enough: the poll is level-triggered, and a read that would only
    /// say "nothing more" costs as much as one that brings an answer.
    fn receive(&mut self, place: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(place) else { return Ok(()) };
        let Some(socket) = &connection.socket else { return Ok(()) };
        let received = match net::recv(socket, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((received, _)) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return self.lose(place, Lost::Read),
        };
        let now = self.job.start.elapsed().as_nanos() as u64;
        let warmup = self.job.warmup.as_nanos() as u64;
        let counts = now >= warmup;
        if received == 0 {
            if let Some(answer) = connection.parser.end() {
                self.answer(place, answer.status, now);
            }
            let clean = self.connections.get(place).is_none_or(|c| c.in_flight.is_empty());
            return self.lose(place, if clean { Lost::Closed } else { Lost::Read });
        }
        if counts {
            self.tally.bytes += received as u64;
        }
        let mut used = 0;
        let mut close = false;
        while used < received && !close {
            let Some(connection) = self.connections.get_mut(place) else { return Ok(()) };
            let rest = self.buffer.get(used..received).unwrap_or_default();
            match connection.parser.feed(rest) {
                // Bytes that nobody asked for.
                Ok((_, Some(_))) if connection.in_flight.is_empty() => {
                    return self.lose(place, Lost::Read);
                }
                Ok((took, Some(answer))) => {
                    used += took;
                    close = answer.close;
                    self.answer(place, answer.status, now);
                }
                Ok((took, None)) => used += took,
                Err(_) => return self.lose(place, Lost::Read),
            }
        }
        if close {
            let clean = self.connections.get(place).is_none_or(|c| c.in_flight.is_empty());
            return self.lose(place, if clean { Lost::Closed } else { Lost::Read });
        }
        let end = self.job.end.as_nanos() as u64;
        if self.job.due.is_none() && now >= end {
            return Ok(());
        }
        self.fill(place)
    }

    fn answer(&mut self, place: usize, status: u16, now: u64) {
        let Some(connection) = self.connections.get_mut(place) else { return };
        let Some(start) = connection.in_flight.pop_front() else { return };
        self.answered += 1;
        // With a schedule the intended start decides, so that what the warm-up left waiting
        // does not leak into the window.
        let warmup = self.job.warmup.as_nanos() as u64;
        let moment = if self.job.due.is_some() { start } else { now };
        if moment < warmup {
            return;
        }
        self.tally.answers += 1;
        self.tally.latency.saturating_record(now.saturating_sub(start));
        if status / 100 != 2 && status / 100 != 3 {
            self.tally.not_2xx += 1;
        }
    }
}
