//! Sending a request to an upstream, with as many attempts as are safe, until the head of an
//! answer is there.

mod attempt;
mod course;
mod errand;
mod hedge;
mod mirror;
mod outgoing;
mod race;
pub mod retry_after;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::rc::Rc;

use contract::Counter;
use contract::record::Reason;
use contract::snapshot::{Fallback, Timeouts};

use self::errand::{Errand, Unserved};
use crate::body::BodyReader;
use crate::channel::Source;
use crate::exchange::{Request, Responder};
use crate::io::Chunk;
use crate::local_reply::LocalReply;
use crate::message::ResponseHead;
use crate::mux::MuxStream;
use crate::plan::Backend;
use crate::route::{RouteIndex, rewrite_path};
use crate::shard::Shard;
use crate::upload::Upload;
use crate::upstream::pool::Connection;
use crate::upstream::{Admitted, InFlight, Refusal, Verdict};

/// The head of an upstream's answer, and everything needed to relay the rest.
pub struct Answer {
    pub carrier: Carrier,
    pub account: Account,
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

/// What an answer owes: the target's verdict, and the upstream's. Both count the request for as long
/// as this lives; dropped without a word it says nothing.
pub struct Account {
    flight: InFlight,
    admitted: Admitted,
    /// By the head.
    verdict: Verdict,
    settled: Cell<bool>,
    /// From the try's begin, and from the request's, to the head.
    try_us: u32,
    whole_us: u32,
}

impl Account {
    fn new(
        flight: InFlight,
        admitted: Admitted,
        verdict: Verdict,
        try_us: u32,
        whole_us: u32,
    ) -> Account {
        Account { flight, admitted, verdict, settled: Cell::new(false), try_us, whole_us }
    }

    /// The answer's head goes to the client. What is bad already is said now, and so is what lasts:
    /// a tunnel.
    fn begin(&self, lasts: bool, now_ms: u64) {
        if lasts || self.verdict != Verdict::Good {
            self.settle(self.verdict, now_ms);
        }
    }

    /// Says how the answer ended, if that is still open.
    pub fn settle(&self, verdict: Verdict, now_ms: u64) {
        if !self.settled.replace(true) {
            self.flight.judge(verdict, self.try_us, now_ms);
            self.admitted.finish(verdict, self.whole_us, now_ms);
        }
    }
}

/// Forwards the request to a target of its route.
///
/// # Errors
/// The answer to give instead: 502, 503, 504 by what failed; 4xx when the body did; or what the
/// upstream's fallback says.
pub async fn forward(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    index: RouteIndex,
) -> Result<Answer, LocalReply> {
    let plan = request.plan.clone();
    let route = plan.plan.route(index);
    let Some(backend) = plan.backend(index) else {
        return Err(LocalReply::new(503, Reason::NoTarget));
    };
    let mut rewritten = Vec::new();
    rewrite_path(&route.rewrite, request.path(), &mut rewritten);
    if !rewritten.is_empty() {
        request.normal_path = Some(rewritten);
    }
    if let Some(mirror) = &route.mirror {
        mirror::consider(shard, request, responder, *mirror);
    }
    match Errand::run(shard, request, responder, &plan, route, backend).await {
        Ok(answer) => Ok(answer),
        Err(Unserved::Reply(reply)) => Err(reply),
        Err(Unserved::Refused { refusal, begun }) => {
            shard.meter.count(Counter::Fallbacks, 1);
            let fallback = &plan.plan.upstream(backend).fallback;
            match fallback {
                Fallback::Refuse => Err(refused(refusal)),
                Fallback::Answer { status, content_type, body } => {
                    Err(refused(refusal).with_text(*status, content_type, body))
                }
                // Some of the request may be gone.
                Fallback::Upstream(_) if begun => Err(refused(refusal)),
                Fallback::Upstream(other) => {
                    if *other as usize >= plan.plan.upstreams.len() {
                        return Err(refused(refusal));
                    }
                    let other = Backend { upstream: *other, weight: 1 };
                    // Boxed: rare, and as large as the first.
                    let run = Errand::run(shard, request, responder, &plan, route, other);
                    match Box::pin(run).await {
                        Ok(answer) => Ok(answer),
                        Err(Unserved::Reply(reply)) => Err(reply),
                        // One hop: its own fallback is not followed.
                        Err(Unserved::Refused { refusal, .. }) => Err(refused(refusal)),
                    }
                }
            }
        }
    }
}

/// The gateway's own answer for an upstream that does not take the request.
fn refused(refusal: Refusal) -> LocalReply {
    let reason = match refusal {
        Refusal::NoTarget => Reason::NoTarget,
        Refusal::BelowFloor => Reason::BelowFloor,
        Refusal::BreakerOpen => Reason::BreakerOpen,
        Refusal::Bound | Refusal::Adaptive => Reason::UpstreamBusy,
    };
    let field = match refusal {
        Refusal::Bound | Refusal::Adaptive => Some(("Retry-After", b"1".to_vec())),
        _ => None,
    };
    LocalReply { field, ..LocalReply::new(503, reason) }
}

/// The earlier of two deadlines, where 0 is none.
pub fn soonest(a: u64, b: u64) -> u64 {
    if a == 0 || (b != 0 && b < a) { b } else { a }
}
