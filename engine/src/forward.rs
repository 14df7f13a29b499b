//! Sending a request to an upstream, with as many attempts as are safe, until the head of an
//! answer is there.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use contract::Counter;
use contract::record::Reason;
use contract::snapshot::{HostHeader, Timeouts};

use crate::exchange::{Request, Responder};
use crate::io::{Chunk, SendBuf, Stream};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{Framing, HeadLimits, Progress, ResponseHead};
use crate::pipeline;
use crate::plan::{Route, Target, Upstream};
use crate::relay;
use crate::route::{RouteIndex, rewrite_path};
use crate::shard::Shard;
use crate::upload::{Upload, UploadEnd};
use crate::upstream::InFlight;
use crate::upstream::pool::{Lease, NoLease};

/// The head of an upstream's answer, and everything needed to relay the rest.
pub struct Answer {
    pub lease: Lease,
    pub flight: InFlight,
    pub head: Box<ResponseHead>,
    /// The head's bytes and what came behind them.
    pub bytes: Chunk,
    /// The rest of the request's body, still on its way (an early answer).
    pub upload: Option<Upload>,
    pub timeouts: Timeouts,
    /// Monotonic milliseconds; 0: none.
    pub deadline_ms: u64,
}

/// Why an attempt gave no answer.
enum Failed {
    /// Nothing of an answer came on a reused connection: its peer may never have seen the request.
    Stale,
    Reply(LocalReply),
}

impl From<LocalReply> for Failed {
    fn from(reply: LocalReply) -> Failed {
        Failed::Reply(reply)
    }
}

/// Forwards the request to a target of its route.
///
/// # Errors
/// The answer to give instead: 502, 503, 504 by what failed; 4xx when the body did.
pub async fn forward(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    index: RouteIndex,
) -> Result<Answer, LocalReply> {
    let plan = request.plan.clone();
    let route = plan.plan.route(index);
    let no_target = || LocalReply::new(503, Reason::NoTarget);
    let backend = plan.backend(index).ok_or_else(no_target)?;
    let (upstream, state) = plan.upstream(backend);
    request.notes.upstream = Some(backend.upstream);
    let timeouts = route.timeouts(upstream);
    let deadline_ms = match timeouts.total_ms {
        u32::MAX => 0,
        total_ms => shard.io.clock().now_ms() + u64::from(total_ms),
    };
    let mut outgoing = Outgoing::new(shard, request, route, upstream);
    let mut avoid = None;
    let mut fresh = false;
    for attempt in 1..=limits::ATTEMPTS {
        request.notes.attempts = attempt;
        let last = attempt == limits::ATTEMPTS;
        let flight = state.pick(avoid).ok_or_else(no_target)?;
        let Some(target) = upstream.targets.get(flight.index) else { return Err(no_target()) };
        request.notes.target = Some(target.address);
        let others = upstream.targets.len() > 1;
        avoid = Some(flight.index);
        // Nothing has been sent when there is no connection, so another target may be tried
        // whatever the method.
        let lease =
            match lease(shard, request, responder, &flight, &timeouts, deadline_ms, fresh).await {
                Ok(lease) => lease,
                Err(reply) if last || !others => return Err(reply),
                Err(_) => {
                    shard.meter.count(Counter::UpstreamRetries, 1);
                    continue;
                }
            };
        let reused = lease.reused;
        let attempted = exchange(
            shard,
            request,
            responder,
            &mut outgoing,
            lease,
            flight,
            target,
            &timeouts,
            deadline_ms,
        );
        match attempted.await {
            Ok(answer) => {
                outgoing.finish(shard);
                return Ok(answer);
            }
            Err(Failed::Stale) if reused && outgoing.replayable() && !last => {
                shard.meter.count(Counter::UpstreamRetries, 1);
                avoid = None;
                fresh = true;
            }
            Err(Failed::Stale) => return Err(LocalReply::new(502, Reason::UpstreamReset)),
            Err(Failed::Reply(reply)) => return Err(reply),
        }
    }
    Err(LocalReply::new(502, Reason::UpstreamReset))
}

async fn lease(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    flight: &InFlight,
    timeouts: &Timeouts,
    deadline_ms: u64,
    fresh: bool,
) -> Result<Lease, LocalReply> {
    let clock = shard.io.clock();
    if !fresh && let Some(lease) = flight.pool().reuse(clock.now_ms()) {
        shard.meter.count(Counter::UpstreamReuses, 1);
        return Ok(lease);
    }
    let started_us = clock.now_us();
    responder.watch.set_at(soonest(clock.now_ms() + u64::from(timeouts.connect_ms), deadline_ms));
    let leased = flight.pool().lease(&shard.io, &responder.watch, fresh).await;
    request.notes.connect_us = u32::try_from(clock.now_us() - started_us).unwrap_or(u32::MAX);
    match leased {
        Ok(lease) => {
            shard.meter.count(Counter::UpstreamConnects, u64::from(!lease.reused));
            Ok(lease)
        }
        Err(why) => {
            shard.meter.count(Counter::UpstreamConnectErrors, 1);
            Err(match why {
                NoLease::Failed(_) => LocalReply::new(502, Reason::ConnectFailed),
                NoLease::Timeout => LocalReply::new(504, Reason::ConnectTimeout),
                NoLease::Exhausted => LocalReply::new(503, Reason::PoolExhausted),
            })
        }
    }
}

/// The earlier of two deadlines, where 0 is none.
pub fn soonest(a: u64, b: u64) -> u64 {
    if a == 0 || (b != 0 && b < a) { b } else { a }
}

/// The serialised request: the head, and the body when all of it is there and small.
struct Outgoing {
    head: Rc<Vec<u8>>,
    /// The body is in `head`, or there is none.
    whole: bool,
    idempotent: bool,
    /// The target's name is in the head, so another target needs another head.
    per_target: Option<usize>,
    upgrade: Option<Vec<u8>>,
}

impl Outgoing {
    fn new(shard: &Shard, request: &mut Request, route: &Route, upstream: &Upstream) -> Outgoing {
        let bytes = request.bytes();
        let upgrade = request
            .head
            .upgrade
            .map(|span| span.of(bytes))
            .filter(|token| route.allows_upgrade(token) && request.head.framing.is_empty())
            .map(<[u8]>::to_vec);
        let mut rewritten = Vec::new();
        rewrite_path(&route.rewrite, request.path(), &mut rewritten);
        if !rewritten.is_empty() {
            request.normal_path = Some(rewritten);
        }
        let bytes = request.bytes();
        let behind = bytes.len().saturating_sub(request.head.head_len);
        let whole = match request.head.framing {
            Framing::None => true,
            Framing::Length(length) => length <= behind.min(limits::REPLAY_BODY) as u64,
            Framing::Chunked => false,
        };
        let idempotent = is_idempotent(request.head.method(bytes));
        let per_target = (upstream.host_header == HostHeader::Target && upstream.targets.len() > 1)
            .then_some(usize::MAX);
        Outgoing { head: Rc::new(shard.io.take_vec()), whole, idempotent, per_target, upgrade }
    }

    /// Writes the head (and a whole small body), unless it is there already.
    fn write(
        &mut self,
        request: &mut Request,
        responder: &Responder,
        upstream: &Upstream,
        target: &Target,
        at: usize,
    ) {
        let stale = self.per_target.is_some_and(|written| written != at);
        if !self.head.is_empty() && !stale {
            return;
        }
        if Rc::get_mut(&mut self.head).is_none() {
            self.head = Rc::default();
        }
        let Some(out) = Rc::get_mut(&mut self.head) else { return };
        out.clear();
        pipeline::outbound(request, self.upgrade.as_deref()).write(out, upstream, target);
        if self.per_target.is_some() {
            self.per_target = Some(at);
        }
        if !self.whole {
            return;
        }
        if let Framing::Length(length) = request.head.framing {
            let start = request.head.head_len;
            let body = request.bytes().get(start..start + length as usize).unwrap_or_default();
            out.extend_from_slice(body);
            request.notes.request_bytes = length;
        }
        if self.per_target.is_none() {
            // The head is written for good: its receive buffer goes back before the wait.
            let rest = request.take_rest();
            if let Some(mut rest) = rest {
                if let Framing::Length(length) = request.head.framing {
                    rest.advance(length as usize);
                }
                responder.stream.unrecv(rest);
            }
        }
    }

    /// Whether the same bytes may be sent again without harm (RFC 9110 §9.2.2).
    fn replayable(&self) -> bool {
        self.whole && self.idempotent
    }

    fn finish(self, shard: &Shard) {
        if let Ok(head) = Rc::try_unwrap(self.head) {
            shard.io.give_vec(head);
        }
    }
}

fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE" | b"TRACE")
}

/// One attempt over one connection: sends the request, waits for the head of the answer.
#[allow(clippy::too_many_arguments)]
async fn exchange(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    outgoing: &mut Outgoing,
    lease: Lease,
    flight: InFlight,
    target: &Target,
    timeouts: &Timeouts,
    deadline_ms: u64,
) -> Result<Answer, Failed> {
    let plan = request.plan.clone();
    let upstream = &plan.plan.upstreams[request.notes.upstream.unwrap_or(0) as usize];
    outgoing.write(request, responder, upstream, target, flight.index);
    if lease.stream.try_send(SendBuf::Shared(outgoing.head.clone())).is_err() {
        return Err(Failed::Stale);
    }
    let sent_us = shard.io.clock().now_us();
    let mut upload = None;
    if !outgoing.whole {
        if request.head.expect_continue && request.bytes().len() == request.head.head_len {
            // The gateway takes the request: it has passed every check that needs no body.
            relay::interim_continue(responder).await;
        }
        let limit = plan.plan.route(request.notes.route.unwrap_or(0)).max_body_bytes;
        let reader = request.body();
        let rest = request.take_rest();
        upload = Some(Upload::new(shard, responder, lease.stream.clone(), reader, rest, limit));
    } else if outgoing.per_target.is_some()
        && let Some(chunk) = request.bytes.as_mut().filter(|chunk| chunk.is_ring())
    {
        *chunk = Chunk::copy_of(chunk.bytes());
    }
    let mut waiting = Waiting { shard, request, responder, timeouts, deadline_ms, sent_us };
    let (head, bytes) = waiting.head(&lease.stream, &mut upload, outgoing).await?;
    if outgoing.whole && outgoing.per_target.is_some() {
        // The answer is there: what came behind the request is the next one's.
        let length = match request.head.framing {
            Framing::Length(length) => length as usize,
            _ => 0,
        };
        if let Some(mut rest) = request.take_rest() {
            rest.advance(length);
            responder.stream.unrecv(rest);
        }
    }
    Ok(Answer { lease, flight, head, bytes, upload, timeouts: *timeouts, deadline_ms })
}

/// The wait for the head of an answer.
struct Waiting<'a> {
    shard: &'a Shard,
    request: &'a mut Request,
    responder: &'a Responder,
    timeouts: &'a Timeouts,
    deadline_ms: u64,
    sent_us: u64,
}

enum Event {
    Received(std::io::Result<Option<Chunk>>),
    Uploaded(UploadEnd),
    ClientGone,
}

impl Waiting<'_> {
    /// Reads up to the end of a final head, passing interim ones on.
    async fn head(
        &mut self,
        stream: &Stream,
        upload: &mut Option<Upload>,
        outgoing: &Outgoing,
    ) -> Result<(Box<ResponseHead>, Chunk), Failed> {
        let mut head = self.shard.take_response_head();
        let mut partial: Option<Vec<u8>> = None;
        let mut interim = 0;
        self.expect_answer();
        loop {
            let chunk = match self.event(stream, upload).await? {
                Event::Received(Ok(Some(chunk))) => chunk,
                Event::Received(_) if partial.is_none() && interim == 0 => {
                    return Err(Failed::Stale);
                }
                Event::Received(_) => {
                    return Err(LocalReply::new(502, Reason::UpstreamReset).into());
                }
                Event::Uploaded(end) => {
                    self.uploaded(upload, end)?;
                    continue;
                }
                Event::ClientGone => {
                    return Err(LocalReply::closing(0, Reason::ClientAborted).into());
                }
            };
            if self.request.notes.first_byte_us == 0 {
                let first_us = self.shard.io.clock().now_us() - self.sent_us;
                self.request.notes.first_byte_us = u32::try_from(first_us).unwrap_or(u32::MAX);
            }
            let mut chunk = match partial.take() {
                None => chunk,
                Some(mut bytes) => {
                    bytes.extend_from_slice(chunk.bytes());
                    Chunk::from_vec(bytes)
                }
            };
            // Several heads may be in one chunk: interim ones and the final one.
            loop {
                let parsed =
                    head.parse(chunk.bytes(), self.responder.is_head, &HeadLimits::RESPONSE);
                match parsed {
                    Err(_) => {
                        return Err(LocalReply::new(502, Reason::UpstreamInvalid).into());
                    }
                    Ok(Progress::Partial) => {
                        partial = Some(chunk.bytes().to_vec());
                        break;
                    }
                    Ok(Progress::Complete) if head.is_interim() => {
                        interim += 1;
                        if interim > limits::INTERIM_ANSWERS {
                            return Err(LocalReply::new(502, Reason::UpstreamInvalid).into());
                        }
                        relay::interim(self.responder, &head, chunk.bytes()).await;
                        chunk.advance(head.head_len);
                        if chunk.is_empty() {
                            break;
                        }
                    }
                    Ok(Progress::Complete) if head.switching && outgoing.upgrade.is_none() => {
                        // RFC 9110 §15.2.2: no one asked for it.
                        return Err(LocalReply::new(502, Reason::UpstreamInvalid).into());
                    }
                    Ok(Progress::Complete) => return Ok((head, chunk)),
                }
            }
        }
    }

    /// The deadline of the first byte counts from the end of the request.
    fn expect_answer(&self) {
        let now_ms = self.shard.io.clock().now_ms();
        let first_ms = now_ms + u64::from(self.timeouts.first_byte_ms);
        self.responder.watch.set_at(soonest(first_ms, self.deadline_ms));
    }

    async fn event(
        &self,
        stream: &Stream,
        upload: &mut Option<Upload>,
    ) -> Result<Event, LocalReply> {
        let mut recv = pin!(stream.recv());
        let client = &self.responder.stream;
        let next = poll_fn(|cx| {
            if let Some(upload) = upload
                && let Poll::Ready(end) = Pin::new(upload).poll(cx)
            {
                return Poll::Ready(Event::Uploaded(end));
            }
            if let Poll::Ready(received) = recv.as_mut().poll(cx) {
                return Poll::Ready(Event::Received(received));
            }
            // While a body is read, its reader sees a reset itself.
            if upload.is_none() && client.poll_failed(cx).is_ready() {
                return Poll::Ready(Event::ClientGone);
            }
            Poll::Pending
        });
        self.responder.watch.bound(next).await.map_err(|_| {
            let now_ms = self.shard.io.clock().now_ms();
            if self.deadline_ms != 0 && now_ms >= self.deadline_ms {
                LocalReply::new(504, Reason::TotalTimeout)
            } else {
                LocalReply::new(504, Reason::FirstByteTimeout)
            }
        })
    }

    fn uploaded(&mut self, upload: &mut Option<Upload>, end: UploadEnd) -> Result<(), LocalReply> {
        if let Some(upload) = upload.take() {
            self.request.notes.request_bytes = upload.bytes();
        }
        match end {
            // An upstream that stops reading may still have answered (RFC 9112 §9.3: 413 …).
            UploadEnd::Done | UploadEnd::UpstreamGone => {
                self.expect_answer();
                Ok(())
            }
            UploadEnd::ClientGone => Err(LocalReply::closing(0, Reason::ClientAborted)),
            UploadEnd::Refused(reply) => Err(reply),
        }
    }
}
