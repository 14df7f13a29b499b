//! Copies of a share of a route's requests for another upstream, whose answers are thrown away. A
//! copy goes its own way: the request never waits for it.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;

use contract::Counter;
use contract::snapshot::{Mirror, Protocol};

use super::course::Outcome;
use super::errand::{hash, micros};
use crate::body::BodyReader;
use crate::channel::Source;
use crate::exchange::{Request, Responder};
use crate::grpc;
use crate::http2::{ErrorCode, RequestKind};
use crate::io::{Chunk, Elapsed, Io, SendBuf, Watch};
use crate::limits;
use crate::message::{Dialect, Framing, HeadLimits, Progress, ResponseHead};
use crate::mux::StreamFault;
use crate::pipeline;
use crate::plan::Backend;
use crate::shard::Shard;
use crate::upstream::pool::{Connection, Lease, NoLease, Share};
use crate::upstream::{Admitted, Ask, InFlight, UpstreamState};

/// Sends a copy of the request, if it is this one's turn. One that is not to be had whole, or for
/// which there is no room, is counted instead.
pub fn consider(shard: &Shard, request: &Request, responder: &Responder, mirror: Mirror) {
    if !is_turn(&mirror, shard.random()) || request.upgrade.is_some() {
        return;
    }
    match begin(shard, request, responder, mirror) {
        Some(copy) => {
            shard.meter.count(Counter::Mirrored, 1);
            let io = shard.io.clone();
            shard.io.spawn(async move { copy.go(&io).await });
        }
        None => shard.meter.count(Counter::MirrorsDropped, 1),
    }
}

/// Whether a request is one of the share that is copied, by a random word.
pub fn is_turn(mirror: &Mirror, random: u64) -> bool {
    random % 10_000 < u64::from(mirror.per_ten_thousand)
}

fn begin(shard: &Shard, request: &Request, responder: &Responder, mirror: Mirror) -> Option<Copy> {
    let place = Place::take(&shard.mirrors, limits::MIRRORS)?;
    // Translated on its way, or not known to be what was signed.
    if request.decodes() || request.content.is_some() {
        return None;
    }
    let body = request.whole_body(responder)?.into_owned();
    let plan = &request.plan;
    plan.plan.upstreams.get(mirror.upstream as usize)?;
    let (upstream, state) = plan.upstream(Backend { upstream: mirror.upstream, weight: 1 });
    let now_ms = shard.io.clock().now_ms();
    let authorization = match state.bearer() {
        None => None,
        Some(bearer) => Some(bearer.get(now_ms)?),
    };
    let random = shard.random();
    let ask = Ask { tried: &[], hash: hash(upstream, request), random, now_ms };
    let trip = Trip::begin(place, state, &ask, upstream.timeouts.total_ms)?;
    let target = upstream.targets.get(trip.flight.index)?;
    let framing = match request.head.framing {
        Framing::None => Framing::None,
        _ => Framing::Length(body.len() as u64),
    };
    let write = |dialect| {
        let mut outbound = pipeline::outbound(request, framing, None);
        outbound.mirrored = true;
        outbound.authorization = authorization.as_deref();
        let mut head = Vec::with_capacity(512);
        outbound.write(&mut head, dialect, upstream, target);
        head
    };
    let speaks = upstream.protocol;
    let mut http1 = Vec::new();
    if speaks != Protocol::Http2 {
        http1 = write(Dialect::Http1);
        http1.extend_from_slice(&body);
    }
    let http2 = if speaks == Protocol::Http1 { Vec::new() } else { write(Dialect::Http2) };
    let (is_head, is_call) = (responder.is_head, request.grpc.is_some());
    Some(Copy { http1, http2, body, is_head, is_call, trip })
}

/// One of the copies that a shard may have under way.
pub struct Place {
    taken: Rc<Cell<u32>>,
}

impl Place {
    pub fn take(taken: &Rc<Cell<u32>>, most: u32) -> Option<Place> {
        if taken.get() >= most {
            return None;
        }
        taken.set(taken.get() + 1);
        Some(Place { taken: taken.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.set(self.taken.get() - 1);
    }
}

/// What a copy takes up while it is under way. No I/O, no clock: the simulation has it, too.
pub struct Trip {
    pub flight: InFlight,
    admitted: Admitted,
    /// It is given up then; monotonic milliseconds.
    pub deadline_ms: u64,
    _place: Place,
}

impl Trip {
    /// `None`: the mirror does not take it.
    pub fn begin(
        place: Place,
        state: &Rc<UpstreamState>,
        ask: &Ask<'_>,
        total_ms: u32,
    ) -> Option<Trip> {
        let admitted = state.admit(ask.now_ms).ok()?;
        let flight = state.pick(ask).ok()?;
        let deadline_ms = ask.now_ms + limits::MIRROR_MS.min(u64::from(total_ms));
        Some(Trip { flight, admitted, deadline_ms, _place: place })
    }

    /// Says how it went. Nothing is tried again.
    pub fn end(self, outcome: Outcome, took_us: u32, now_ms: u64) {
        let verdict = outcome.lone_verdict();
        self.flight.judge(verdict, took_us, now_ms);
        self.admitted.finish(verdict, took_us, now_ms);
    }
}

/// A copy on its way.
struct Copy {
    /// The request in HTTP/1, body and all, and its head in HTTP/2; as far as the upstream may speak
    /// it.
    http1: Vec<u8>,
    http2: Vec<u8>,
    body: Vec<u8>,
    is_head: bool,
    is_call: bool,
    trip: Trip,
}

impl Copy {
    async fn go(mut self, io: &Io) {
        let watch = io.watch();
        watch.set_at(self.trip.deadline_ms);
        let begun_us = io.clock().now_us();
        let outcome = match self.send(io, &watch).await {
            Ok(told) => told.outcome(self.is_call),
            Err(outcome) => outcome,
        };
        let took_us = micros(io.clock().now_us() - begun_us);
        self.trip.end(outcome, took_us, io.clock().now_ms());
    }

    /// What the answer says, once that has been thrown away.
    async fn send(&mut self, io: &Io, watch: &Watch) -> Result<Told, Outcome> {
        let pool = self.trip.flight.pool();
        let lease = match pool.reuse(io.clock().now_ms()) {
            Some(lease) => lease,
            None => pool.lease(io, watch, false).await.map_err(|why| match why {
                // That says nothing of the target.
                NoLease::Exhausted => Outcome::Exhausted,
                _ => Outcome::NoConnection,
            })?,
        };
        match lease {
            Lease::Http1(connection) => {
                let request = std::mem::take(&mut self.http1);
                let answer = over_http1(io, connection, request, self.is_head);
                watch.bound(answer).await.unwrap_or(Err(Outcome::Timeout))
            }
            Lease::Http2(share) => {
                let answer = over_http2(&share, &self.http2, &self.body, self.is_head);
                watch.bound(answer).await.unwrap_or_else(|Elapsed| {
                    share.mux.suspect();
                    Err(Outcome::Timeout)
                })
            }
        }
    }
}

async fn over_http1(
    io: &Io,
    connection: Connection,
    request: Vec<u8>,
    is_head: bool,
) -> Result<Told, Outcome> {
    let stream = connection.stream.clone();
    let gone = Outcome::Reset { reused: connection.reused };
    stream.send(SendBuf::Vec(request)).await.map_err(|_| gone)?;
    let mut head = ResponseHead::new();
    let Ok(Some(mut chunk)) = stream.recv().await else { return Err(gone) };
    for _ in 0..=limits::INTERIM_ANSWERS {
        while head
            .parse(chunk.bytes(), is_head, &HeadLimits::RESPONSE)
            .map_err(|_| Outcome::Invalid)?
            == Progress::Partial
        {
            let Ok(Some(more)) = stream.recv().await else { return Err(Outcome::Invalid) };
            let mut bytes = chunk.bytes().to_vec();
            bytes.extend_from_slice(more.bytes());
            chunk = Chunk::from_vec(bytes);
        }
        if !head.is_interim() {
            break;
        }
        chunk.advance(head.head_len);
    }
    if head.is_interim() || head.switching {
        return Err(Outcome::Invalid);
    }
    let mut told = Told::of(&head, chunk.bytes());
    chunk.advance(head.head_len);
    let reader = BodyReader::of_response(head.framing);
    let mut over = reader.is_done();
    let rest = Some(chunk).filter(|chunk| !chunk.is_empty());
    let mut source = Source::http1(stream, reader, rest);
    let mut came = 0;
    while !over && came < limits::MIRROR_ANSWER {
        let piece = poll_fn(|cx| source.poll_piece(cx)).await.map_err(|_| Outcome::Invalid)?;
        came += piece.data.as_ref().map_or(0, Chunk::len);
        over = piece.end;
    }
    told.end(source.trailers());
    if over && source.is_clean() && head.keep_alive {
        drop(source);
        connection.give_back(io.clock().now_ms());
    }
    Ok(told)
}

async fn over_http2(
    share: &Share,
    head: &[u8],
    body: &[u8],
    is_head: bool,
) -> Result<Told, Outcome> {
    let kind = if is_head { RequestKind::Head } else { RequestKind::Plain };
    // Another has taken the place, or the connection has ended: nothing was sent.
    let opened = share.mux.open(head, body.is_empty(), kind);
    let stream = opened.map_err(|_| Outcome::Refused { leaving: true })?;
    let failed = |fault| {
        let stale = share.reused && stream.is_unheard();
        Outcome::of_fault(fault, stream.mux().is_going_away(), stale)
    };
    if !body.is_empty() {
        match stream.send(body, true).await {
            // It may have answered all the same (RFC 9113 §8.1).
            Ok(()) | Err(StreamFault::Reset { code: ErrorCode::NO_ERROR, .. }) => {}
            Err(fault) => return Err(failed(fault)),
        }
    }
    for _ in 0..=limits::INTERIM_ANSWERS {
        let (block, end) = poll_fn(|cx| stream.poll_head(cx)).await.map_err(failed)?;
        let mut answer = ResponseHead::new();
        let read = answer.read_http2(&block.bytes, &block.fields, is_head, end);
        let mut told = Told::of(&answer, &block.bytes);
        stream.mux().recycle(block);
        read.map_err(|_| Outcome::Invalid)?;
        if !answer.is_interim() {
            stream.discard(limits::MIRROR_ANSWER).await;
            let mut trailers = Vec::new();
            stream.trailers(&mut trailers);
            told.end(&trailers);
            return Ok(told);
        }
    }
    Err(Outcome::Invalid)
}

/// What an answer says of who gave it.
struct Told {
    status: u16,
    /// That of a call.
    code: Option<u8>,
}

impl Told {
    fn of(head: &ResponseHead, bytes: &[u8]) -> Told {
        Told { status: head.status, code: grpc::status_in_head(head, bytes) }
    }

    fn end(&mut self, trailers: &[u8]) {
        self.code = grpc::status_in_trailers(trailers).or(self.code);
    }

    fn outcome(&self, is_call: bool) -> Outcome {
        match self.code.filter(|_| is_call) {
            Some(code) => {
                // Copies are told of no deadline.
                let verdict = grpc::verdict(code, false);
                Outcome::Ended { code, verdict, retry_after_ms: None }
            }
            None => Outcome::Answered { status: self.status, retry_after_ms: None },
        }
    }
}
