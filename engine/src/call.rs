//! Requests of the gateway's own to upstreams: parts of a composed answer, what a cache asks again.
//! They are forwarded as any request is, with the upstream's tries, breaker, pools and time-outs.

use std::rc::Rc;

use contract::Counter;
use contract::record::Reason;
use contract::snapshot::ListenerLimits;

use crate::auth::Identity;
use crate::exchange::{Downstream, Request, Responder};
use crate::forward;
use crate::grpc;
use crate::io::Chunk;
use crate::local_reply::LocalReply;
use crate::message::{Framing, HeadLimits, Progress, Version, write};
use crate::plan::{Backend, Route};
use crate::rewrite::{Client, RequestId};
use crate::shard::{Shard, ShardPlan};
use crate::upload::Feed;

/// On whose behalf calls are made.
#[derive(Clone)]
pub struct Caller {
    pub plan: Rc<ShardPlan>,
    pub client: Client,
    pub identity: Option<Rc<Identity>>,
    pub id: RequestId,
}

impl Caller {
    pub fn of(request: &Request) -> Caller {
        Caller {
            plan: request.plan.clone(),
            client: request.client.clone(),
            identity: request.identity.clone(),
            id: request.id,
        }
    }
}

/// What is asked.
pub struct Call<'a> {
    /// Its time-outs and tries hold; nothing else of it does.
    pub route: &'a Route,
    /// Index of the upstream in the plan.
    pub upstream: u32,
    pub method: &'a [u8],
    /// `None`: the target's name, or what the upstream's `host_header` says.
    pub host: Option<&'a [u8]>,
    /// Path and query.
    pub target: &'a [u8],
    /// Must be valid ones; those of framing are left out.
    pub fields: &'a [(Vec<u8>, Vec<u8>)],
    pub body: Option<Vec<u8>>,
    /// The body is a gRPC message in its frame.
    pub is_grpc: bool,
    /// Bounds the whole; monotonic milliseconds, 0: nothing does but the time-outs.
    pub deadline_ms: u64,
    /// Largest answer, in bytes.
    pub most_bytes: usize,
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    pub status: u16,
    /// Without those of the connection and its framing.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Trailer lines.
    pub trailers: Vec<u8>,
    /// Microseconds to the end of the answer.
    pub took_us: u64,
    pub attempts: u8,
}

impl Called {
    /// The value of the first field of that name.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        fields.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// The status of a gRPC call.
    pub fn grpc_status(&self) -> Option<u8> {
        grpc::status_in_trailers(&self.trailers)
            .or_else(|| self.field(b"grpc-status").map(grpc::read_status))
    }
}

/// Makes a call. Dropped, it is given up.
///
/// # Errors
/// What the gateway would have answered a client: 502, 503, 504 by what failed, 400 when the call makes no
/// valid request.
pub async fn call(shard: &Shard, caller: &Caller, call: Call<'_>) -> Result<Called, LocalReply> {
    let mut request = request(shard, caller, &call)?;
    let started_us = request.notes.started_us;
    let responder = Responder {
        down: Downstream::Nobody,
        watch: Rc::new(shard.io.watch()),
        limits: ListenerLimits::default(),
        is_head: call.method == b"HEAD",
        version: Version::V11,
        keep_alive: true,
        peer: caller.client.address,
    };
    let backend = Backend { upstream: call.upstream, weight: 1 };
    let answered = ask(shard, &mut request, &responder, &call, backend).await;
    let notes = request.notes;
    shard.meter.count(Counter::UpstreamBytesOut, notes.request_bytes);
    let attempts = notes.attempts;
    shard.io.give_vec(notes.into_text());
    shard.give_request_head(request.head);
    let mut called = answered?;
    shard.meter.count(Counter::UpstreamBytesIn, called.body.len() as u64);
    called.took_us = shard.io.clock().now_us().saturating_sub(started_us);
    called.attempts = attempts;
    Ok(called)
}

async fn ask(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    call: &Call<'_>,
    backend: Backend,
) -> Result<Called, LocalReply> {
    let plan = request.plan.clone();
    if call.upstream as usize >= plan.plan.upstreams.len() {
        return Err(LocalReply::new(503, Reason::NoTarget));
    }
    let answer = forward::send(shard, request, responder, &plan, call.route, backend).await?;
    let kind = call.is_grpc.then_some(call.deadline_ms != 0);
    let whole = answer.gather(shard, responder, kind, call.most_bytes).await?;
    let fields = whole.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    let status = whole.head.status;
    Ok(Called { status, fields, body: whole.body, trailers: whole.trailers, ..Called::default() })
}

/// The call as if a client had sent it: parsed by the one parser, so that nothing in it is believed.
fn request(shard: &Shard, caller: &Caller, call: &Call<'_>) -> Result<Request, LocalReply> {
    let invalid = || LocalReply::new(400, Reason::ValueMissing);
    let mut text = Vec::with_capacity(256 + call.target.len());
    text.extend_from_slice(call.method);
    text.push(b' ');
    text.extend_from_slice(call.target);
    text.extend_from_slice(b" HTTP/1.1\r\n");
    let host = match call.host {
        Some(host) => host,
        None => {
            let upstream = caller.plan.plan.upstreams.get(call.upstream as usize);
            let target = upstream.and_then(|upstream| upstream.targets.first());
            target.map_or(&b"upstream.invalid"[..], |target| target.name.as_bytes())
        }
    };
    write::field(&mut text, b"Host", host);
    for (name, value) in call.fields {
        write::field(&mut text, name, value);
    }
    text.extend_from_slice(b"\r\n");
    let mut head = shard.take_request_head();
    let read = head.parse(&text, &HeadLimits { max_fields: 128, ..HeadLimits::REQUEST });
    if !matches!(read, Ok(Progress::Complete))
        || head.head_len != text.len()
        || !head.framing.is_empty()
    {
        return Err(invalid());
    }
    head.te_trailers |= call.is_grpc;
    let client = Client { early: false, ..caller.client.clone() };
    let started_us = shard.io.clock().now_us();
    let bytes = Chunk::from_vec(text);
    let mut request = Request::new(shard, caller.plan.clone(), head, bytes, client, started_us);
    request.id = caller.id;
    request.identity = caller.identity.clone();
    request.deadline_ms = call.deadline_ms;
    request.grpc = call.is_grpc.then_some(grpc::Kind::Grpc);
    if let Some(body) = &call.body {
        request.head.framing = Framing::Length(body.len() as u64);
        request.feed = Some(Feed::of(body.clone()));
    }
    if call.host.is_some() {
        request.edit().host = call.host.map(<[u8]>::to_vec);
    }
    Ok(request)
}
