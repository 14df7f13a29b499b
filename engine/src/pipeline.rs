//! THE LIFE OF ONE REQUEST, in order. Nothing else knows the order.

use contract::Counter;
use contract::record::Reason;
use contract::snapshot::Priority;

use crate::aggregate;
use crate::answer::Answer;
use crate::auth::{self, Passed};
use crate::cache;
use crate::cors;
use crate::exchange::{Ended, Fields, Next, Request, Responder, Upgrade};
use crate::extension;
use crate::forward::{self, retry_after};
use crate::graphql;
use crate::grpc;
use crate::grpc_web;
use crate::io::Chunk;
use crate::limit;
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{Field, Framing, Name, Target, Version};
use crate::observe::End;
use crate::payload;
use crate::plan::{Plan, Route};
use crate::relay;
use crate::rewrite::Outbound;
use crate::route::{Miss, Query, RouteIndex};
use crate::serve::websocket;
use crate::shape;
use crate::shard::Shard;
use crate::transcode;
use crate::validate;

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
    read_call(shard, request);
    own_methods(request)?;
    admit_site(request)?;
    request.normalise_path()?;
    auth::login::own_path(shard, &plan.plan.auth, request).await?;
    let index = find_route(&plan.plan, request)?;
    let route = plan.plan.route(index);
    request.notes.route = Some(index);
    admit_address(request, route)?;
    cors::admit(request, route)?;
    admit_load(shard, &plan.plan, route)?;
    auth::admit(shard, request, route).await?;
    limit::admit(shard, request, route).await?;
    read_patience(shard, request, route);
    admit_early(request, route)?;
    admit_web(request, route)?;
    admit_body(request, route)?;
    admit_content(request, responder)?;
    admit_upgrade(request, route)?;
    admit_valid(shard, request, responder, route).await?;
    if let Some(rules) = &route.graphql {
        graphql::admit(shard, request, responder, rules, route.max_body_bytes).await?;
    }
    outbound(request, request.head.framing, None).check_loop()?;
    let answer = match ask_extension(shard, request, responder, route).await? {
        Some(answer) => answer,
        None => serve(shard, request, responder, index).await?,
    };
    let mut answer = show_extension(shard, request, responder, route, answer).await?;
    shape::bound(route, &mut answer)?;
    let mut answer = payload::answer(shard, request, responder, route, answer).await?;
    shape::answer(shard, request, route, &mut answer);
    Ok(payload::compress(shard, request, responder, route, answer).await)
}

/// From an admitted request to an answer: by the route itself, by the cache, or by what stands behind it.
async fn serve(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    index: RouteIndex,
) -> Result<Answer, LocalReply> {
    let plan = request.plan.clone();
    let route = plan.plan.route(index);
    shape::request(shard, request, route)?;
    payload::request(shard, request, responder, route).await?;
    if let Some(own) = shape::own(shard, request, responder, route) {
        return own;
    }
    match &route.cache {
        // Boxed: most routes have none, and their requests are not to carry its weight.
        Some(rules) => Box::pin(cache::serve(shard, request, responder, index, rules)).await,
        None => produce(shard, request, responder, index).await,
    }
}

/// Has whatever stands behind the route answer.
///
/// # Errors
/// As [`forward::forward`].
pub async fn produce(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    index: RouteIndex,
) -> Result<Answer, LocalReply> {
    let plan = request.plan.clone();
    let route = plan.plan.route(index);
    // Boxed: by choice only, and large enough to weigh on every other request.
    let mut answer = if let Some(own) = &route.aggregate {
        let most = route.max_body_bytes;
        Box::pin(aggregate::answer(shard, request, responder, own, most)).await
    } else if let Some(own) = &route.transcode {
        Box::pin(transcode::forward(shard, request, responder, index, own)).await
    } else {
        forward::forward(shard, request, responder, index).await
    };
    limit::settle(request, &mut answer);
    answer
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
    // A preflight is about the request that is to follow.
    if let Some(method) = cors::preflight(head, bytes)
        && let Ok(index) = plan.router.find(&Query { method, ..query })
        && plan.route(index).cors.is_some()
    {
        return Ok(index);
    }
    plan.router.find(&query).map_err(|miss| match miss {
        Miss::NotFound => LocalReply::new(404, Reason::NoRoute),
        Miss::MethodNotAllowed(allow) => {
            let mut methods = Vec::new();
            plan.router.write_allow(allow, &mut methods);
            LocalReply::method_not_allowed(methods)
        }
    })
}

/// Refuses addresses that the route does not serve.
fn admit_address(request: &Request, route: &Route) -> Result<(), LocalReply> {
    match &route.networks {
        Some(networks) if !networks.admit(request.client_address()) => {
            Err(LocalReply::new(403, Reason::AddressDenied))
        }
        _ => Ok(()),
    }
}

/// Refuses what the node cannot bear now, by the route's priority. Before everything that costs: a
/// refusal has to be cheaper than what it spares.
fn admit_load(shard: &Shard, plan: &Plan, route: &Route) -> Result<(), LocalReply> {
    if !shard.refuses(route.priority, &plan.node.overload) {
        return Ok(());
    }
    shard.meter.count(
        match route.priority {
            Priority::Low => Counter::ShedLow,
            Priority::Normal => Counter::ShedNormal,
            Priority::High | Priority::Critical => Counter::ShedHigh,
        },
        1,
    );
    // The connection stays: the client would only open another.
    Err(LocalReply {
        field: Some(("Retry-After", b"1".to_vec())),
        ..LocalReply::new(503, Reason::Overload)
    })
}

/// Has a gRPC-Web call translated where the route says so. B-60: what calls itself gRPC but is of no
/// kind that is known cannot be.
fn admit_web(request: &mut Request, route: &Route) -> Result<(), LocalReply> {
    if !route.grpc_web {
        return Ok(());
    }
    let bytes = request.bytes.as_ref().map_or(&[][..], Chunk::bytes);
    if let Some(call) = &mut request.web {
        // Every call is a POST; what else has this type is no call.
        call.translated = request.head.method(bytes) == b"POST";
        request.head.te_trailers |= call.translated;
        return Ok(());
    }
    let content_type = request.head.value(bytes, Name::ContentType).unwrap_or_default();
    if request.grpc.is_none() && grpc_web::is_unknown(content_type) {
        return Err(LocalReply::new(415, Reason::UnsupportedMediaType));
    }
    Ok(())
}

/// Refuses a body whose announced length is past the route's bound, before any of it is read.
fn admit_body(request: &Request, route: &Route) -> Result<(), LocalReply> {
    match request.head.framing {
        Framing::Length(length) if length > route.max_body_bytes => {
            Err(LocalReply::closing(413, Reason::BodyTooLarge))
        }
        _ => Ok(()),
    }
}

/// Refuses a body that is here as a whole and not what was signed, before anyone else sees it. What is
/// still to come is compared on its way (`upload.rs`).
fn admit_content(request: &mut Request, responder: &Responder) -> Result<(), LocalReply> {
    let Some(mut content) = request.content.take() else { return Ok(()) };
    match request.whole_body(responder).map(|body| content.pass(&body, true)) {
        Some(Passed::Wrong) => Err(LocalReply { close: false, ..LocalReply::wrong_content() }),
        Some(_) => Ok(()),
        None => {
            request.content = Some(content);
            Ok(())
        }
    }
}

/// Refuses a request that is not what the route's API describes. Last of all, as it may have to read
/// the whole body.
async fn admit_valid(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    route: &Route,
) -> Result<(), LocalReply> {
    match &route.rules {
        Some(rules) => {
            validate::admit(shard, request, responder, rules, route.max_body_bytes).await
        }
        None => Ok(()),
    }
}

/// Has the route's external processor see the request; it may answer in the upstream's place.
async fn ask_extension(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    route: &Route,
) -> Result<Option<Answer>, LocalReply> {
    match &route.extension {
        // Boxed: by choice only, and large.
        Some(own) => Box::pin(extension::request(shard, request, responder, route, own)).await,
        None => Ok(None),
    }
}

/// Has the route's external processor see an upstream's answer.
async fn show_extension(
    shard: &Shard,
    request: &Request,
    responder: &Responder,
    route: &Route,
    answer: Answer,
) -> Result<Answer, LocalReply> {
    match &route.extension {
        Some(own) if answer.reason == Reason::None => {
            Box::pin(extension::response(shard, request, responder, own, answer)).await
        }
        _ => Ok(answer),
    }
}

/// Takes a switch of protocols that the route lists; a malformed handshake is refused. In HTTP/1
/// an upgrade that is not listed is a plain request (RFC 9110 §7.8); in HTTP/2 there is nothing
/// else that it could be.
fn admit_upgrade(request: &mut Request, route: &Route) -> Result<(), LocalReply> {
    let Some(token) = request.head.upgrade else { return Ok(()) };
    let token = token.of(request.bytes());
    if !route.allows_upgrade(token) || !request.head.framing.is_empty() {
        return match request.head.version {
            Version::V20 => Err(LocalReply::new(501, Reason::NotImplemented)),
            _ => Ok(()),
        };
    }
    let token = token.to_vec();
    let mut websocket_key = None;
    if token.eq_ignore_ascii_case(b"websocket") {
        websocket::check(request)?;
        websocket_key = websocket::client_key(request);
    }
    request.upgrade = Some(Box::new(Upgrade { token, websocket_key }));
    Ok(())
}

/// Refuses what came as early data where the route does not take it, or where a replay would
/// matter (RFC 8470 §3, §5.2).
fn admit_early(request: &Request, route: &Route) -> Result<(), LocalReply> {
    let safe = matches!(request.head.method(request.bytes()), b"GET" | b"HEAD" | b"OPTIONS");
    if request.client.early && !(route.early_data && safe && request.head.framing.is_empty()) {
        return Err(LocalReply::new(425, Reason::TooEarly));
    }
    Ok(())
}

/// Refuses a request for a site that the connection's certificate (or the client's, towards it)
/// does not stand for (RFC 9110 §7.4).
fn admit_site(request: &Request) -> Result<(), LocalReply> {
    let Some(connected) = &request.client.tls else { return Ok(()) };
    let host = request.head.site.map_or(&[][..], |site| site.host.of(request.bytes()));
    match connected.covers(host) {
        true => Ok(()),
        false => Err(LocalReply::new(421, Reason::Misdirected)),
    }
}

/// Reads what makes a request a gRPC call: its kind, and its deadline.
fn read_call(shard: &Shard, request: &mut Request) {
    let (head, bytes) = (&*request.head, request.bytes.as_ref().map_or(&[][..], Chunk::bytes));
    let Some(content_type) = head.value(bytes, Name::ContentType) else { return };
    request.grpc = grpc::Kind::of(content_type);
    if request.grpc.is_some() {
        let timeout = head.other(bytes, b"grpc-timeout");
        request.deadline_ms = grpc::deadline_ms(timeout, shard.io.clock().now_ms());
        let accept = head.fields.iter().filter(|field| field.id == Name::Accept);
        let accept = accept.map(|field| field.value.of(bytes));
        request.web = grpc_web::Call::read(content_type, accept).map(Box::new);
    }
}

/// Reads how long the client will wait, where the route has a field for that. What is no number is
/// as if it were not there.
fn read_patience(shard: &Shard, request: &mut Request, route: &Route) {
    let Some(name) = &route.deadline_header else { return };
    let fields = &request.head.fields;
    let bytes = request.bytes.as_ref().map_or(&[][..], Chunk::bytes);
    let named = |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes());
    let patience_ms = fields.iter().find(named).and_then(|field| {
        let value = field.value.of(bytes);
        retry_after::number(value)
    });
    if let Some(ms) = patience_ms {
        let own_ms = shard.io.clock().now_ms() + ms.clamp(1, limits::PATIENCE_MS);
        request.deadline_ms = forward::soonest(own_ms, request.deadline_ms);
    }
}

/// The request as `rewrite` will write it for an upstream, its body framed by `framing`.
/// `timeout_ms`: what is left of the client's deadline.
pub fn outbound(request: &Request, framing: Framing, timeout_ms: Option<u64>) -> Outbound<'_> {
    let upgrade = request.upgrade.as_ref();
    let route = request.notes.route.map(|index| request.plan.plan.route(index));
    Outbound {
        framing,
        timeout_ms,
        deadline_header: route.and_then(|route| route.deadline_header.as_deref()),
        mirrored: false,
        edit: request.edit.as_deref(),
        rules: route.and_then(|route| route.shape.as_deref()).map(|shape| &shape.request.fields),
        is_call: request.grpc.is_some(),
        content_type: request.web.as_ref().and_then(|web| web.content_type()),
        plan: &request.plan.plan,
        head: &request.head,
        bytes: request.bytes(),
        path: request.path(),
        client: &request.client,
        identity: request.identity.as_deref(),
        hidden: request.hidden.as_deref(),
        authorization: None,
        request_id: &request.id,
        upgrade: upgrade.map(|upgrade| upgrade.token.as_slice()),
    }
}

fn record(shard: &Shard, request: &mut Request, ended: &Ended, client: std::net::SocketAddr) {
    request.ticket.end();
    if ended.reason != Reason::None {
        request.notes.reason = ended.reason;
    }
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
