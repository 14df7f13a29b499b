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

use contract::Counter;
use contract::record::Reason;
use contract::snapshot::Fallback;

use self::errand::{Errand, Unserved};
use crate::answer::Answer;
use crate::exchange::{Request, Responder};
use crate::local_reply::LocalReply;
use crate::plan::{Backend, Route};
use crate::route::{RouteIndex, rewrite_path};
use crate::shard::{Shard, ShardPlan};
use crate::upstream::Refusal;

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
    rewrite(plan.plan.route(index), request);
    forward_rewritten(shard, request, responder, index).await
}

/// Gives the request the path that its route has for the upstream.
pub fn rewrite(route: &Route, request: &mut Request) {
    let mut rewritten = Vec::new();
    rewrite_path(&route.rewrite, request.path(), &mut rewritten);
    if !rewritten.is_empty() {
        request.normal_path = Some(rewritten);
    }
}

/// The same for a request that has its path already.
///
/// # Errors
/// As [`forward`].
pub async fn forward_rewritten(
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
    if let Some(mirror) = &route.mirror {
        mirror::consider(shard, request, responder, *mirror);
    }
    send(shard, request, responder, &plan, route, backend).await
}

/// Has one upstream answer the request, or what its fallback says.
///
/// # Errors
/// As [`forward`].
pub async fn send(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    plan: &ShardPlan,
    route: &Route,
    backend: Backend,
) -> Result<Answer, LocalReply> {
    match Errand::run(shard, request, responder, plan, route, backend).await {
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
                    let run = Errand::run(shard, request, responder, plan, route, other);
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
