//! Requests that are sent when they are due, whatever became of others.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Clock, Dice};
use crate::PATIENCE;
use crate::wire::find;

/// Connections to each node. A request that is due while all wait for answers is sent late, and what
/// counts is when it was sent.
const CONNECTIONS: usize = 16;

/// How demand comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    Uniform,
    Poisson,
    /// Half just before the edge of a window, half just after, every second window: twice the limit in no
    /// time for whoever counts by fixed windows. Where the edges are against the wall clock, the dice
    /// say: at it in a quarter of the cases.
    Edge,
}

impl Pattern {
    pub const ALL: [Pattern; 3] = [Pattern::Uniform, Pattern::Poisson, Pattern::Edge];

    pub fn name(self) -> &'static str {
        match self {
            Pattern::Uniform => "uniform",
            Pattern::Poisson => "poisson",
            Pattern::Edge => "edge",
        }
    }

    /// When requests come from `from` to `to`, so many in a `window` on average.
    pub fn times(
        self,
        clock: Clock,
        (from, to): (u64, u64),
        per_window: f64,
        window: u64,
        dice: &mut Dice,
    ) -> Vec<u64> {
        let gap = window as f64 / per_window;
        let mut times = Vec::new();
        match self {
            Pattern::Uniform | Pattern::Poisson => {
                let mut at = from as f64 + gap * dice.unit();
                while at < to as f64 {
                    times.push(at as u64);
                    at += gap * if self == Pattern::Poisson { -dice.unit().ln() } else { 1.0 };
                }
            }
            Pattern::Edge => {
                let phase = if dice.roll().is_multiple_of(4) { 0 } else { dice.roll() % 16 };
                let mut edge = clock.edge(from, window) + phase * window / 16;
                let half = per_window.ceil().max(1.0) as u64;
                let around = window / 20;
                while edge < to {
                    let first = edge.saturating_sub(around);
                    let burst = (0..2 * half).map(|n| first + 2 * around * n / (2 * half));
                    times.extend(burst.filter(|at| (from..to).contains(at)));
                    edge += 2 * window;
                }
            }
        }
        times
    }
}

/// A request that will be sent.
#[derive(Debug, Clone)]
pub struct Offer {
    pub at: u64,
    pub node: usize,
    /// Whose it is; for the test.
    pub case: usize,
}

/// What became of the offer with this number (its place in the list).
#[derive(Debug, Clone)]
pub struct Answered {
    pub number: u32,
    pub sent: u64,
    pub done: u64,
    /// The status, or why there was none.
    pub status: Result<u16, String>,
}

/// Sends all, in order of their time, each to its node; `target` says the path of a case, to which the
/// number is added. Returns when all are answered, in the order of the offers.
pub fn offer(
    clock: Clock,
    nodes: &[SocketAddr],
    offers: &[Offer],
    target: &(dyn Fn(usize) -> String + Sync),
) -> Vec<Answered> {
    debug_assert!(offers.is_sorted_by_key(|offer| offer.at));
    let queues: Vec<(Vec<u32>, AtomicUsize)> = (0..nodes.len())
        .map(|node| {
            let of_node = (0u32..).zip(offers).filter(|(_, offer)| offer.node == node);
            (of_node.map(|(number, _)| number).collect(), AtomicUsize::new(0))
        })
        .collect();
    let mut all: Vec<Answered> = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (&address, (queue, next)) in nodes.iter().zip(&queues) {
            for _ in 0..CONNECTIONS.min(queue.len()) {
                threads.push(scope.spawn(move || {
                    let mut answered = Vec::new();
                    let mut connection = Connection::new(address);
                    while let Some(&number) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let offer = &offers[number as usize];
                        let path = target(offer.case);
                        let request =
                            format!("GET {path}/{number} HTTP/1.1\r\nHost: a.test\r\n\r\n");
                        clock.sleep_until(offer.at);
                        let sent = clock.now();
                        let status = connection.ask(request.as_bytes()).map_err(|e| e.to_string());
                        answered.push(Answered { number, sent, done: clock.now(), status });
                    }
                    answered
                }));
            }
        }
        threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect()
    });
    all.sort_unstable_by_key(|answered| answered.number);
    all
}

/// One keep-alive connection, opened when it is needed.
#[derive(Debug)]
struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    bytes: Vec<u8>,
}

impl Connection {
    fn new(address: SocketAddr) -> Connection {
        Connection { address, stream: None, bytes: Vec::new() }
    }

    /// The status of the answer.
    fn ask(&mut self, request: &[u8]) -> io::Result<u16> {
        let fresh = self.stream.is_none();
        match self.try_ask(request) {
            // An idle connection may be closed by a server that drains or was killed.
            Err(e) if !fresh && e.kind() == ErrorKind::ConnectionAborted => self.try_ask(request),
            other => other,
        }
    }

    fn try_ask(&mut self, request: &[u8]) -> io::Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                self.bytes.clear();
                let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
            }
        };
        stream.write_all(request)?;
        let mut room = [0; 4096];
        let end = loop {
            if let Some(end) = find(&self.bytes, b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut room)? {
                0 if self.bytes.is_empty() => return Err(ErrorKind::ConnectionAborted.into()),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => self.bytes.extend_from_slice(&room[..read]),
            }
        };
        let head = String::from_utf8_lossy(&self.bytes[..end]).to_ascii_lowercase();
        let word = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status: u16 = word.ok_or(ErrorKind::InvalidData)?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|text| text.trim().parse::<usize>().ok());
        let whole = end + length.ok_or(ErrorKind::InvalidData)?;
        while self.bytes.len() < whole {
            match stream.read(&mut room)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => self.bytes.extend_from_slice(&room[..read]),
            }
        }
        self.bytes.drain(..whole);
        if !head.contains("\r\nconnection: close") {
            self.stream = Some(stream);
        }
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arrivals, MS, judge};
    use super::*;

    #[test]
    fn patterns_offer_what_they_say() {
        let clock = Clock::default();
        let (from, to) = (500 * MS, 20_500 * MS);
        for pattern in Pattern::ALL {
            let times = pattern.times(clock, (from, to), 50.0, 1_000 * MS, &mut Dice::new(7));
            assert!(times.is_sorted() && times.iter().all(|at| (from..to).contains(at)));
            assert!((800..1_200).contains(&times.len()), "{pattern:?}: {}", times.len());
            let (worst, _) = judge::worst_window(&times, 100 * MS);
            if pattern == Pattern::Edge {
                assert!(worst >= 99, "{worst}");
            }
        }
    }

    #[test]
    fn clients_and_origin_agree() {
        let clock = Clock::default();
        let origin = Arrivals::start(clock);
        let offers: Vec<Offer> = (0u64..200)
            .map(|n| Offer { at: n * MS / 2, node: 0, case: (n % 2) as usize })
            .collect();
        let answered = offer(clock, &[origin.address()], &offers, &|case| format!("/{case}"));
        assert_eq!(answered.len(), 200);
        let arrivals = origin.taken();
        assert_eq!(arrivals.len(), 200);
        for (number, answered) in answered.iter().enumerate() {
            assert_eq!((answered.number as usize, &answered.status), (number, &Ok(200)));
            let arrival = arrivals.iter().find(|arrival| arrival.number == answered.number);
            let at = arrival.expect("it came").at;
            assert!(answered.sent <= at && at <= answered.done);
        }
    }
}
