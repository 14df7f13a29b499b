//! Sending a request to an upstream, with as many attempts as are safe, until the head of an
//! answer is there.

mod attempt;
mod outgoing;

use std::rc::Rc;

use contract::Counter;
use contract::record::Reason;
use contract::snapshot::Timeouts;

use self::attempt::Attempt;
use self::outgoing::Outgoing;
use crate::body::BodyReader;
use crate::channel::Source;
use crate::exchange::{Request, Responder};
use crate::io::Chunk;
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::ResponseHead;
use crate::mux::MuxStream;
use crate::route::RouteIndex;
use crate::shard::Shard;
use crate::upload::Upload;
use crate::upstream::InFlight;
use crate::upstream::pool::{Connection, Lease, NoLease};

/// The head of an upstream's answer, and everything needed to relay the rest.
pub struct Answer {
    pub carrier: Carrier,
    pub flight: InFlight,
    pub head: Box<ResponseHead>,
    /// The head's bytes and what came behind them.
    pub bytes: Chunk,
    /// The rest of the request's body, still on its way (an early answer).
    pub upload: Option<Upload>,
    pub timeouts: Timeouts,
    /// Monotonic milliseconds; 0: none.
    pub deadline_ms: u64,
    /// The upstream has switched protocols: bytes in both directions follow.
    pub switched: bool,
}

/// What carries an exchange with an upstream.
pub enum Carrier {
    Http1(Connection),
    Http2(Rc<MuxStream>),
}

impl Carrier {
    /// Where the answer's body comes from. `rest` is what came behind its head.
    pub fn source(&self, reader: BodyReader, rest: Option<Chunk>) -> Source {
        match self {
            Carrier::Http1(connection) => Source::http1(connection.stream.clone(), reader, rest),
            Carrier::Http2(stream) => Source::http2(stream.clone()),
        }
    }

    /// The answer was relayed to its end, or not.
    pub fn release(self, cleanly: bool, now_ms: u64) {
        match self {
            Carrier::Http1(connection) if cleanly => connection.give_back(now_ms),
            // Dropped, a connection closes and an unfinished stream is reset.
            Carrier::Http1(_) | Carrier::Http2(_) => {}
        }
    }
}

/// Why an attempt gave no answer.
enum Failed {
    /// Nothing of an answer came on a reused connection: its peer may never have seen the request.
    Stale,
    /// The peer says, or it is certain, that it did not look at the request (RFC 9113 §8.7).
    Unprocessed,
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
        u32::MAX => request.deadline_ms,
        total_ms => {
            let own_ms = shard.io.clock().now_ms() + u64::from(total_ms);
            soonest(own_ms, request.deadline_ms)
        }
    };
    let mut outgoing = Outgoing::new(shard, request, responder, route, upstream);
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
        let reused = lease.reused();
        let attempted = Attempt {
            shard,
            request,
            responder,
            upstream,
            target,
            timeouts: &timeouts,
            deadline_ms,
        }
        .run(&mut outgoing, lease, flight);
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
            Err(Failed::Unprocessed) if outgoing.is_whole() && !last => {
                shard.meter.count(Counter::UpstreamRetries, 1);
            }
            Err(Failed::Stale | Failed::Unprocessed) => {
                return Err(LocalReply::new(502, Reason::UpstreamReset));
            }
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
            if !lease.reused() {
                shard.meter.count(Counter::UpstreamConnects, 1);
                if let Some(facts) = lease.tls() {
                    shard.meter.count(Counter::UpstreamTlsHandshakes, 1);
                    shard.meter.count(Counter::UpstreamTlsResumed, u64::from(facts.resumed));
                }
            }
            Ok(lease)
        }
        Err(why) => {
            shard.meter.count(Counter::UpstreamConnectErrors, 1);
            let late = request.deadline_ms != 0 && clock.now_ms() >= request.deadline_ms;
            Err(match why {
                _ if late => LocalReply::new(504, Reason::DeadlineExceeded),
                NoLease::Failed(_) => LocalReply::new(502, Reason::ConnectFailed),
                NoLease::Handshake(_) => {
                    shard.meter.count(Counter::UpstreamTlsFailed, 1);
                    LocalReply::new(502, Reason::UpstreamTls)
                }
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
