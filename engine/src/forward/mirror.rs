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
use crate::exchange::{Downstream, Request, Responder};
use crate::http2::RequestKind;
use crate::io::{Chunk, Elapsed, Io, SendBuf, Watch};
use crate::limits;
use crate::message::{Dialect, Framing, HeadLimits, Progress, ResponseHead};
use crate::pipeline;
use crate::plan::Backend;
use crate::shard::Shard;
use crate::upstream::pool::{Connection, Lease, Share};
use crate::upstream::{Admitted, Ask, InFlight, Verdict};

/// Sends a copy of the request, if it is this one's turn. One that is not to be had whole, or for
/// which there is no room, is counted instead.
pub fn consider(shard: &Shard, request: &Request, responder: &Responder, mirror: Mirror) {
    if shard.random() % 10_000 >= u64::from(mirror.per_ten_thousand) || request.upgrade.is_some() {
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

fn begin(shard: &Shard, request: &Request, responder: &Responder, mirror: Mirror) -> Option<Copy> {
    let place = Place::take(&shard.mirrors)?;
    let body = whole_body(request, responder)?;
    let plan = &request.plan;
    plan.plan.upstreams.get(mirror.upstream as usize)?;
    let (upstream, state) = plan.upstream(Backend { upstream: mirror.upstream, weight: 1 });
    let now_ms = shard.io.clock().now_ms();
    let authorization = match state.bearer() {
        None => None,
        Some(bearer) => Some(bearer.get(now_ms)?),
    };
    let admitted = state.admit(now_ms).ok()?;
    let random = shard.random();
    let ask = Ask { tried: &[], hash: hash(upstream, request), random, now_ms };
    let flight = state.pick(&ask).ok()?;
    let target = upstream.targets.get(flight.index)?;
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
    Some(Copy {
        http1,
        http2,
        body,
        is_head: responder.is_head,
        deadline_ms: now_ms + limits::MIRROR_MS.min(u64::from(upstream.timeouts.total_ms)),
        admitted,
        flight,
        _place: place,
    })
}

/// The body, if all of it came with the head. It stays where it is.
fn whole_body(request: &Request, responder: &Responder) -> Option<Vec<u8>> {
    if request.decodes() {
        return None;
    }
    match (&responder.down, request.head.framing) {
        (_, Framing::None) => Some(Vec::new()),
        (Downstream::Http1(_), Framing::Length(length)) if length <= limits::REPLAY_BODY as u64 => {
            let start = request.head.head_len;
            let body = request.bytes().get(start..start + length as usize)?;
            Some(body.to_vec())
        }
        (Downstream::Http1(_), _) => None,
        (Downstream::Http2(stream), _) => stream.peek_whole(limits::REPLAY_BODY),
    }
}

/// One of the shard's [`limits::MIRRORS`].
struct Place {
    taken: Rc<Cell<u32>>,
}

impl Place {
    fn take(taken: &Rc<Cell<u32>>) -> Option<Place> {
        if taken.get() >= limits::MIRRORS {
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

/// A copy on its way.
struct Copy {
    /// The request in HTTP/1, body and all, and its head in HTTP/2; as far as the upstream may speak
    /// it.
    http1: Vec<u8>,
    http2: Vec<u8>,
    body: Vec<u8>,
    is_head: bool,
    deadline_ms: u64,
    admitted: Admitted,
    flight: InFlight,
    _place: Place,
}

impl Copy {
    async fn go(mut self, io: &Io) {
        let watch = io.watch();
        watch.set_at(self.deadline_ms);
        let begun_us = io.clock().now_us();
        let verdict = match self.send(io, &watch).await {
            Some(status) => Outcome::Answered { status, retry_after_ms: None }.verdict(),
            None => Verdict::Gateway,
        };
        let (took_us, now_ms) = (micros(io.clock().now_us() - begun_us), io.clock().now_ms());
        self.flight.judge(verdict, took_us, now_ms);
        self.admitted.finish(verdict, took_us, now_ms);
    }

    /// The status of the answer, once that has been thrown away.
    async fn send(&mut self, io: &Io, watch: &Watch) -> Option<u16> {
        let pool = self.flight.pool();
        let lease = match pool.reuse(io.clock().now_ms()) {
            Some(lease) => lease,
            None => pool.lease(io, watch, false).await.ok()?,
        };
        match lease {
            Lease::Http1(connection) => {
                let request = std::mem::take(&mut self.http1);
                let answer = over_http1(io, connection, request, self.is_head);
                watch.bound(answer).await.ok().flatten()
            }
            Lease::Http2(share) => {
                let answer = over_http2(&share, &self.http2, &self.body, self.is_head);
                match watch.bound(answer).await {
                    Ok(status) => status,
                    Err(Elapsed) => {
                        share.mux.suspect();
                        None
                    }
                }
            }
        }
    }
}

async fn over_http1(
    io: &Io,
    connection: Connection,
    request: Vec<u8>,
    is_head: bool,
) -> Option<u16> {
    let stream = connection.stream.clone();
    stream.send(SendBuf::Vec(request)).await.ok()?;
    let mut head = ResponseHead::new();
    let mut chunk = stream.recv().await.ok()??;
    for _ in 0..=limits::INTERIM_ANSWERS {
        while head.parse(chunk.bytes(), is_head, &HeadLimits::RESPONSE).ok()? == Progress::Partial {
            let more = stream.recv().await.ok()??;
            let mut bytes = chunk.bytes().to_vec();
            bytes.extend_from_slice(more.bytes());
            chunk = Chunk::from_vec(bytes);
        }
        chunk.advance(head.head_len);
        if !head.is_interim() {
            break;
        }
    }
    if head.is_interim() || head.switching {
        return None;
    }
    let reader = BodyReader::of_response(head.framing);
    let mut over = reader.is_done();
    let rest = Some(chunk).filter(|chunk| !chunk.is_empty());
    let mut source = Source::http1(stream, reader, rest);
    let mut came = 0;
    while !over && came < limits::MIRROR_ANSWER {
        let piece = poll_fn(|cx| source.poll_piece(cx)).await.ok()?;
        came += piece.data.as_ref().map_or(0, Chunk::len);
        over = piece.end;
    }
    if over && source.is_clean() && head.keep_alive {
        drop(source);
        connection.give_back(io.clock().now_ms());
    }
    Some(head.status)
}

async fn over_http2(share: &Share, head: &[u8], body: &[u8], is_head: bool) -> Option<u16> {
    let kind = if is_head { RequestKind::Head } else { RequestKind::Plain };
    let stream = share.mux.open(head, body.is_empty(), kind).ok()?;
    if !body.is_empty() {
        stream.send(body, true).await.ok()?;
    }
    for _ in 0..=limits::INTERIM_ANSWERS {
        let (block, end) = poll_fn(|cx| stream.poll_head(cx)).await.ok()?;
        let mut answer = ResponseHead::new();
        answer.read_http2(&block.bytes, &block.fields, is_head, end).ok()?;
        stream.mux().recycle(block);
        if !answer.is_interim() {
            stream.discard(limits::MIRROR_ANSWER).await;
            return Some(answer.status);
        }
    }
    None
}
