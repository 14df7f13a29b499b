//! THE LIFE OF ONE REQUEST, in order. Nothing else knows the order.

use contract::Counter;
use contract::record::Reason;

use crate::exchange::{Ended, Fields, Next, Request, Responder};
use crate::forward::{self, Answer};
use crate::local_reply::LocalReply;
use crate::message::Target;
use crate::observe::End;
use crate::plan::{Plan, Route};
use crate::relay;
use crate::rewrite::Outbound;
use crate::route::{Miss, Query, RouteIndex};
use crate::serve::websocket;
use crate::shard::Shard;

/// Takes a request from its parsed head to its record. Answers exactly once: `responder` is
/// consumed by the relay or by the reply.
pub async fn handle(shard: &Shard, request: &mut Request, responder: Responder) -> Next {
    let peer = responder.peer;
    let ended = match decide(shard, request, &responder).await {
        Ok(answer) => relay::relay(shard, request, responder, answer).await,
        Err(reply) => relay::reply(shard, request, responder, reply).await,
    };
    record(shard, request, &ended, peer);
    ended.next
}

/// Everything between the head and the upstream's answer. Each `?` is an answer of our own.
async fn decide(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
) -> Result<Answer, LocalReply> {
    let plan = request.plan.clone();
    request.refused.take().map_or(Ok(()), Err)?;
    own_methods(request)?;
    request.normalise_path()?;
    let index = find_route(&plan.plan, request)?;
    let route = plan.plan.route(index);
    request.notes.route = Some(index);
    admit_body(request, route)?;
    admit_upgrade(request, route)?;
    outbound(request, None).check_loop()?;
    forward::forward(shard, request, responder, index).await
}

/// What the gateway itself answers, whatever the routes: `OPTIONS *`, CONNECT, TRACE.
fn own_methods(request: &Request) -> Result<(), LocalReply> {
    match request.head.target {
        // RFC 9110 §9.3.7: about the gateway, so not forwarded.
        Target::Asterisk => Err(LocalReply {
            field: Some(("Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_vec())),
            ..LocalReply::new(204, Reason::Local)
        }),
        // RFC 9110 §9.3.6: a gateway is no tunnel.
        Target::Authority(_) => Err(LocalReply::closing(501, Reason::NotImplemented)),
        // RFC 9110 §9.3.8: would reflect the gateway's own fields.
        _ if request.head.method(request.bytes()) == b"TRACE" => {
            Err(LocalReply::method_not_allowed(
                b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_vec(),
            ))
        }
        _ => Ok(()),
    }
}

fn find_route(plan: &Plan, request: &Request) -> Result<RouteIndex, LocalReply> {
    let (head, bytes) = (&*request.head, request.bytes());
    let query = Query {
        host: head.site.map_or(&[], |site| site.whole.of(bytes)),
        path: request.path(),
        query: head.query(bytes),
        method: head.method(bytes),
        headers: &Fields { head, bytes },
    };
    plan.router.find(&query).map_err(|miss| match miss {
        Miss::NotFound => LocalReply::new(404, Reason::NoRoute),
        Miss::MethodNotAllowed(allow) => {
            let mut methods = Vec::new();
            plan.router.write_allow(allow, &mut methods);
            LocalReply::method_not_allowed(methods)
        }
    })
}

/// Refuses a body whose announced length is past the route's bound, before any of it is read.
fn admit_body(request: &Request, route: &Route) -> Result<(), LocalReply> {
    match request.head.framing {
        crate::message::Framing::Length(length) if length > route.max_body_bytes => {
            Err(LocalReply::closing(413, Reason::BodyTooLarge))
        }
        _ => Ok(()),
    }
}

/// Refuses a malformed handshake of an upgrade that the route would tunnel.
fn admit_upgrade(request: &Request, route: &Route) -> Result<(), LocalReply> {
    let token = request.head.upgrade.map(|span| span.of(request.bytes()));
    match token {
        Some(token) if route.allows_upgrade(token) && token.eq_ignore_ascii_case(b"websocket") => {
            websocket::check(request)
        }
        _ => Ok(()),
    }
}

/// The request as `rewrite` will write it for an upstream.
pub fn outbound<'a>(request: &'a Request, upgrade: Option<&'a [u8]>) -> Outbound<'a> {
    Outbound {
        plan: &request.plan.plan,
        head: &request.head,
        bytes: request.bytes(),
        path: request.path(),
        client: request.client,
        request_id: &request.id,
        upgrade,
    }
}

fn record(shard: &Shard, request: &mut Request, ended: &Ended, client: std::net::SocketAddr) {
    request.notes.reason = ended.reason;
    if request.notes.attempts > 0 {
        shard.meter.count(Counter::UpstreamBytesOut, request.notes.request_bytes);
        shard.meter.count(Counter::UpstreamBytesIn, ended.relayed_bytes);
    }
    let end = End {
        epoch: request.plan.plan.epoch,
        status: ended.status,
        response_bytes: ended.response_bytes,
        client,
        request_id: request.id.bytes(),
    };
    shard.meter.record(&request.notes.record(&shard.io, end));
}
