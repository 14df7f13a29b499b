//! Targets that speak HTTP/2: both ends of a connection are the real state machine; the bytes' way
//! between them, and which connection a request gets, are played.

use std::collections::{BTreeMap, VecDeque};

use super::script::{Dice, Temper, answered};
use super::{Event, World};
use crate::forward::course::Outcome;
use crate::http2::{
    Config, Connection, Encoder, ErrorCode, Event as Seen, RequestKind, Role, StreamId,
};
use crate::io::Chunk;
use crate::limits;
use crate::mux::StreamFault;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Gateway,
    Target,
}

/// What a try has of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A connection of its own, which nobody counts.
    Nothing,
    /// It waits for a connection to share, or opens one: the pool, and how many of its connections
    /// are too old for it.
    Awaits { pool: (usize, u64) },
    /// `reused`: the connection was there before; `heard`: what had come by then.
    Stream { line: usize, stream: StreamId, reused: bool, heard: u64, opened_us: u64 },
}

/// The connections of one shard to one target, as `upstream::pool` has them.
#[derive(Default)]
struct Pool {
    target: usize,
    lines: Vec<usize>,
    numbered: u64,
    /// The try that opens one for all.
    opening: Option<(usize, u32)>,
    waiters: VecDeque<(usize, u32)>,
}

/// A connection.
pub struct Line {
    pool: usize,
    number: u64,
    client: Connection,
    server: Connection,
    latency_us: u64,
    to_server: VecDeque<Vec<u8>>,
    /// `None`: the connection's end.
    to_client: VecDeque<Option<Vec<u8>>>,
    /// By stream: the request.
    owners: Vec<usize>,
    /// Streams under way, as the gateway knows them: request and try.
    streams: BTreeMap<StreamId, (usize, u32)>,
    heard: u64,
    /// When the last answer began.
    answered_us: u64,
    /// The target's end is gone.
    dead: bool,
    /// So is the gateway's.
    over: bool,
}

pub struct Lines {
    pools: Vec<Pool>,
    targets: usize,
    lines: Vec<Line>,
    /// Streams that a target takes at a time.
    most: u32,
    latency_us: u64,
}

impl Lines {
    pub fn new(dice: &mut Dice, shards: usize, targets: usize) -> Lines {
        let pool = |at| Pool { target: at % targets, ..Pool::default() };
        Lines {
            pools: (0..shards * targets).map(pool).collect(),
            targets,
            lines: Vec::new(),
            most: dice.one(&[2, 5, 100]),
            latency_us: dice.one(&[50, 500, 4_000]),
        }
    }

    /// Where a try gets its connection from.
    pub fn pool(&self, shard: usize, target: usize, fresh: bool) -> (usize, u64) {
        let at = shard * self.targets + target;
        (at, if fresh { self.pools[at].numbered } else { 0 })
    }

    /// A try may have met a connection that was stale: it has answered nothing meanwhile.
    pub fn may_be_stale(&self, held: Held) -> bool {
        match held {
            Held::Stream { line, opened_us, .. } => self.lines[line].answered_us <= opened_us,
            _ => true,
        }
    }

    /// What must hold in the end.
    pub fn judge(&self) {
        for pool in &self.pools {
            assert!(pool.opening.is_none(), "a connection is still being opened");
        }
        for line in &self.lines {
            assert!(line.streams.is_empty(), "streams {:?} are still held", line.streams);
            assert!(line.over || line.client.is_idle(), "the connection still has streams");
        }
    }
}

impl World<'_> {
    /// Gives back what a try had of its target, as dropping it does.
    pub fn let_go(&mut self, request: usize, serial: u32, held: Held) {
        match held {
            Held::Nothing => {}
            Held::Awaits { pool: (at, _) } => {
                let pool = &mut self.lines.pools[at];
                if pool.opening == Some((request, serial)) {
                    pool.opening = None;
                    self.call(at);
                }
            }
            Held::Stream { line: at, stream, .. } => {
                let line = &mut self.lines.lines[at];
                if line.streams.remove(&stream).is_some() {
                    line.client.reset(stream, ErrorCode::CANCEL);
                    self.flush(at);
                }
                self.tidy(at);
            }
        }
    }

    /// As `Pool::place`: a stream on a connection that is there, or one to be opened.
    pub fn lease(&mut self, request: usize, serial: u32) {
        let Some(Held::Awaits { pool: (at, after) }) = self.held(request, serial).copied() else {
            return;
        };
        let pool = &mut self.lines.pools[at];
        let lines = &self.lines.lines;
        let open = |line: &usize| {
            let line = &lines[*line];
            line.number > after && line.client.available_streams() > 0
        };
        let found = pool.lines.iter().copied().find(open);
        if let Some(line) = found {
            // Its target may have closed it for being idle.
            let idle = self.lines.lines[line].streams.is_empty();
            if idle && after == 0 && self.dice.percent(3) {
                self.dies(line);
            }
            return self.open(request, serial, line, true);
        }
        if pool.opening.is_some() {
            pool.waiters.push_back((request, serial));
            self.tally.waited += 1;
            return;
        }
        pool.opening = Some((request, serial));
        let temper = self.targets[pool.target].temper(self.now_us);
        let refused = temper == Temper::RefusesConnections;
        let at_us = self.now_us + 2 * self.lines.latency_us;
        self.at(at_us, Event::Connected { request, serial, refused });
    }

    fn held(&mut self, request: usize, serial: u32) -> Option<&mut Held> {
        let tries = &mut self.requests[request].tries;
        tries.iter_mut().find(|one| one.serial == serial).map(|one| &mut one.held)
    }

    /// The next one who waits looks again.
    fn call(&mut self, pool: usize) {
        while let Some((request, serial)) = self.lines.pools[pool].waiters.pop_front() {
            if matches!(self.held(request, serial), Some(Held::Awaits { .. })) {
                return self.lease(request, serial);
            }
        }
    }

    pub fn connected(&mut self, request: usize, serial: u32, refused: bool) {
        let Some(Held::Awaits { pool: (at, _) }) = self.held(request, serial).copied() else {
            return;
        };
        let pool = &mut self.lines.pools[at];
        assert_eq!(pool.opening, Some((request, serial)));
        if refused {
            // Letting go of it calls the next one.
            return self.try_ends(request, serial, Outcome::NoConnection, false);
        }
        pool.opening = None;
        pool.numbered += 1;
        let client = Config {
            role: Role::Client,
            max_concurrent_streams: limits::UPSTREAM_STREAMS,
            ..Config::CLIENT
        };
        let server = Config { max_concurrent_streams: self.lines.most, ..Config::SERVER };
        let line = self.lines.lines.len();
        pool.lines.push(line);
        self.lines.lines.push(Line {
            pool: at,
            number: pool.numbered,
            client: Connection::new(client),
            server: Connection::new(server),
            latency_us: self.lines.latency_us,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            owners: Vec::new(),
            streams: BTreeMap::new(),
            heard: 0,
            answered_us: 0,
            dead: false,
            over: false,
        });
        self.tally.connections += 1;
        self.open(request, serial, line, false);
        for (request, serial) in std::mem::take(&mut self.lines.pools[at].waiters) {
            self.lease(request, serial);
        }
    }

    /// As `Attempt::over_http2`: opens a stream for the try.
    fn open(&mut self, request: usize, serial: u32, at: usize, reused: bool) {
        let (begun_us, now_us) = {
            let own = &self.requests[request];
            let one = own.tries.iter().find(|one| one.serial == serial);
            (one.expect("it waits").begun_us, self.now_us)
        };
        self.sends(request, true);
        let (due_us, late) = self.late(request, begun_us, false);
        let streams = self.requests[request].streams as usize;
        let line = &mut self.lines.lines[at];
        self.tally.shared += u64::from(!line.streams.is_empty());
        let mut head = Vec::new();
        Encoder::method(&mut head, if streams > 0 { b"POST" } else { b"GET" });
        Encoder::scheme(&mut head, b"http");
        Encoder::authority(&mut head, b"t");
        Encoder::path(&mut head, b"/");
        let opened = line.client.open(&head, streams == 0, RequestKind::Plain);
        let stream = opened.expect("it was available");
        if streams > 0 {
            let sent = line.client.send_data(stream, &vec![0; streams], true);
            assert_eq!(sent, Ok(streams));
        }
        line.streams.insert(stream, (request, serial));
        line.owners.push(request);
        let held = Held::Stream { line: at, stream, reused, heard: line.heard, opened_us: now_us };
        let own = &mut self.requests[request];
        let one = own.tries.iter_mut().find(|one| one.serial == serial).expect("it waits");
        one.held = held;
        (one.due_us, one.due) = (due_us.max(now_us), (late, false));
        self.at(due_us, Event::TryEnds { request, serial });
        self.flush(at);
    }

    /// Sends what either end has queued.
    fn flush(&mut self, at: usize) {
        let line = &mut self.lines.lines[at];
        let at_us = self.now_us + line.latency_us;
        let (mut writable, mut sent) = (VecDeque::new(), [None, None]);
        if let Some(bytes) = line.client.take_output(Vec::new()).filter(|_| !line.over) {
            line.client.poll_writable(&mut writable);
            line.to_server.push_back(bytes);
            sent[0] = Some(Side::Target);
        }
        if let Some(bytes) = line.server.take_output(Vec::new()).filter(|_| !line.dead) {
            line.server.poll_writable(&mut writable);
            line.to_client.push_back(Some(bytes));
            sent[1] = Some(Side::Gateway);
        }
        assert!(writable.is_empty(), "bodies are too short to wait");
        for to in sent.into_iter().flatten() {
            self.at(at_us, Event::Bytes { line: at, to });
        }
    }

    pub fn bytes(&mut self, line: usize, to: Side) {
        match to {
            Side::Gateway => self.gateway_receives(line),
            Side::Target => self.target_receives(line),
        }
        self.flush(line);
        self.tidy(line);
    }

    /// As `Mux` and `upstream::shared` have it.
    fn gateway_receives(&mut self, at: usize) {
        let now_ms = self.now_ms();
        let line = &mut self.lines.lines[at];
        let Some(bytes) = line.to_client.pop_front() else { return };
        if line.over {
            return;
        }
        let Some(bytes) = bytes else { return self.lose(at) };
        line.heard += 1;
        let mut events = VecDeque::new();
        let came = line.client.receive(Chunk::from_vec(bytes), now_ms, &mut events);
        for event in events {
            let line = &mut self.lines.lines[at];
            match event {
                Seen::Head { stream, block, .. } => {
                    line.answered_us = self.now_us;
                    let status = block.pseudo.status;
                    line.client.recycle(block);
                    if let Some((request, serial)) = line.streams.get(&stream).copied() {
                        let outcome = answered(status, &mut self.dice);
                        self.try_ends(request, serial, outcome, false);
                    }
                }
                Seen::Data { stream, data, end } => {
                    line.client.release(stream, data.len());
                    if end && let Some((request, _)) = line.streams.remove(&stream) {
                        self.body_ends(request);
                    }
                }
                Seen::Reset { stream, code, by_peer } => {
                    if let Some(owner) = line.streams.remove(&stream) {
                        self.fails(at, stream, owner, StreamFault::Reset { code, by_peer });
                    }
                }
                Seen::GoingAway { .. } => self.tally.goaways += 1,
                Seen::Trailers { .. } | Seen::Writable { .. } => unreachable!("nobody asked"),
                Seen::SettingsChanged | Seen::PingAck => {}
            }
        }
        if came.is_err() {
            self.lose(at);
        }
    }

    /// A stream has ended before its time. It is not among the connection's any more.
    fn fails(
        &mut self,
        at: usize,
        stream: StreamId,
        (request, serial): (usize, u32),
        fault: StreamFault,
    ) {
        let line = &self.lines.lines[at];
        let leaving = line.over || line.client.is_going_away();
        let own = &mut self.requests[request];
        if let Some(one) = own.tries.iter().find(|one| one.serial == serial) {
            let Held::Stream { reused, heard, .. } = one.held else { unreachable!("it has one") };
            let stale = reused && heard == line.heard;
            let outcome = Outcome::of_fault(fault, leaving, stale);
            return self.try_ends(request, serial, outcome, false);
        }
        let own_stream = |held| matches!(held, Held::Stream { line, stream: own, .. } if line == at && own == stream);
        let relay = own.relay.as_mut().filter(|relay| own_stream(relay.held));
        relay.expect("a stream is of a try or of an answer").cut = true;
        self.body_ends(request);
    }

    /// The gateway sees the connection end: so does each stream.
    fn lose(&mut self, at: usize) {
        let line = &mut self.lines.lines[at];
        (line.over, line.dead) = (true, true);
        let streams = std::mem::take(&mut line.streams);
        self.tally.lost += streams.len() as u64;
        self.tally.died_in_use += u64::from(streams.len() > 1);
        let pool = line.pool;
        self.lines.pools[pool].lines.retain(|line| *line != at);
        for (stream, owner) in streams {
            self.fails(at, stream, owner, StreamFault::Lost);
        }
    }

    /// A connection that takes no more streams is forgotten, and ends with its last one.
    fn tidy(&mut self, at: usize) {
        let line = &mut self.lines.lines[at];
        if line.over || !line.client.is_going_away() {
            return;
        }
        let pool = line.pool;
        if line.streams.is_empty() {
            (line.over, line.dead) = (true, true);
        }
        self.lines.pools[pool].lines.retain(|line| *line != at);
    }

    fn target_receives(&mut self, at: usize) {
        let now_ms = self.now_ms();
        let line = &mut self.lines.lines[at];
        let Some(bytes) = line.to_server.pop_front().filter(|_| !line.dead) else { return };
        let mut events = VecDeque::new();
        let came = line.server.receive(Chunk::from_vec(bytes), now_ms, &mut events);
        for event in events {
            let line = &mut self.lines.lines[at];
            match event {
                Seen::Head { stream, block, .. } => {
                    line.server.recycle(block);
                    self.serves(at, stream);
                }
                Seen::Data { stream, data, .. } => line.server.release(stream, data.len()),
                _ => {}
            }
        }
        if came.is_err() {
            // It has said why, and closes.
            self.flush(at);
            self.dies(at);
        }
    }

    /// The target has read a request's head.
    fn serves(&mut self, at: usize, stream: StreamId) {
        let line = &mut self.lines.lines[at];
        if !line.server.is_open(stream) {
            return;
        }
        let request = line.owners[stream as usize / 2];
        let temper = self.targets[self.lines.pools[line.pool].target].temper(self.now_us);
        if temper == Temper::RefusesStreams {
            return line.server.reset(stream, ErrorCode::REFUSED_STREAM);
        }
        if temper == Temper::Leaves {
            let latency_us = line.latency_us;
            if self.dice.percent(50) {
                line.server.finish_shutdown();
            } else {
                line.server.shut_down();
                self.at(self.now_us + 2 * latency_us, Event::Leaves { line: at });
            }
            if self.dice.percent(20) {
                let at_us = self.now_us + self.dice.below(10_000);
                self.at(at_us, Event::Dies { line: at });
            }
        }
        // Connections that are there are not refused.
        let temper = if temper == Temper::RefusesConnections { Temper::Good } else { temper };
        self.requests[request].executed += u32::from(temper.executes());
        if let Some(took_us) = temper.took_us(&mut self.dice) {
            self.at(self.now_us + took_us, Event::Acts { line: at, stream, temper });
        }
    }

    pub fn acts(&mut self, at: usize, stream: StreamId, temper: Temper) {
        let body_us = self.dice.below(20_000);
        let line = &mut self.lines.lines[at];
        if line.dead || !line.server.is_open(stream) {
            return;
        }
        let mut head = Vec::new();
        match temper {
            Temper::Dies => return self.dies(at),
            Temper::ResetsEarly | Temper::ResetsLate => {
                line.server.reset(stream, ErrorCode::INTERNAL_ERROR);
                return self.flush(at);
            }
            // No status: that is no answer (RFC 9113 §8.3.2).
            Temper::Garbage => Encoder::field(&mut head, b"x", b"y"),
            Temper::Status(status) => Encoder::status(&mut head, status),
            _ => Encoder::status(&mut head, 200),
        }
        line.server.send_head(stream, &head, false).expect("it is open");
        self.flush(at);
        let cut = temper == Temper::Lies;
        self.at(self.now_us + body_us, Event::AnswerEnds { line: at, stream, cut });
    }

    pub fn answer_ends(&mut self, at: usize, stream: StreamId, cut: bool) {
        let line = &mut self.lines.lines[at];
        if line.dead || !line.server.is_open(stream) {
            return;
        }
        match cut {
            true => line.server.reset(stream, ErrorCode::INTERNAL_ERROR),
            false => assert_eq!(line.server.send_data(stream, b"body", true), Ok(4)),
        }
        self.flush(at);
    }

    pub fn leaves(&mut self, at: usize) {
        let line = &mut self.lines.lines[at];
        if !line.dead {
            line.server.finish_shutdown();
            self.flush(at);
        }
    }

    /// The target's end goes, with what it has not sent; the gateway will see.
    pub fn dies(&mut self, at: usize) {
        let line = &mut self.lines.lines[at];
        if !std::mem::replace(&mut line.dead, true) {
            line.to_client.push_back(None);
            let at_us = self.now_us + line.latency_us;
            self.at(at_us, Event::Bytes { line: at, to: Side::Gateway });
        }
    }
}
