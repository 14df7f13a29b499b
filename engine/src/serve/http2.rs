//! One HTTP/2 client connection: each stream is an exchange of its own, in a task of its own.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use contract::Counter;
use contract::record::Reason;

use super::{Connection, head_limits};
use crate::exchange::{Downstream, Request, Responder};
use crate::http2::{self, HeaderBlock};
use crate::io::{Chunk, Elapsed};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{Framing, Name, Refusal, Version};
use crate::mux::{Happened, Mux, MuxStream, Over};
use crate::observe::Notes;
use crate::pipeline;
use crate::rewrite::RequestId;
use crate::transport::Transport;

/// Serves a connection to its end: the client's, an abuse, idleness, or a drain.
pub async fn serve(connection: Connection, transport: Rc<Transport>) {
    let connection = Rc::new(connection);
    let (shard, watch) = (&connection.shard, &connection.watch);
    let plan = shard.plan();
    let Some(listener) = connection.listener(&plan) else { return };
    let limits = listener.limits;
    let upgrades = plan.plan.routes.iter().any(|route| !route.upgrades.is_empty());
    let config = http2::Config {
        max_concurrent_streams: limits.max_streams,
        max_fields: usize::from(limits.max_fields),
        extended_connect: upgrades,
        ..http2::Config::SERVER
    };
    drop(plan);
    let mux = Mux::new(shard.io.clone(), transport, config);
    shard.meter.count(Counter::Http2Connections, 1);
    let mut served = 0u32;
    let mut farewell = Farewell::No;
    watch.set_in(u64::from(limits.header_timeout_ms));
    loop {
        if mux.is_overdue() {
            break;
        }
        if farewell == Farewell::No && (shard.is_draining() || served >= limits.max_requests) {
            mux.shut_down();
            farewell = Farewell::Announced;
            watch.set_in(limits::GOAWAY_GRACE_MS);
        }
        if farewell == Farewell::Said && mux.streams() == 0 {
            break;
        }
        let happened = watch.bound(poll_fn(|cx| {
            if farewell == Farewell::No && shard.is_draining() {
                return Poll::Ready(None);
            }
            if farewell == Farewell::Said && mux.streams() == 0 {
                return Poll::Ready(None);
            }
            mux.poll_happened(cx).map(Some)
        }));
        match happened.await {
            Ok(None) => continue,
            Ok(Some(Ok(Happened::Opened(stream, block, end)))) => {
                served += 1;
                let exchange = exchange(connection.clone(), stream, block, end);
                shard.io.spawn(exchange);
                if farewell == Farewell::No {
                    watch.set_in(u64::from(limits.idle_timeout_ms));
                }
            }
            Ok(Some(Ok(Happened::Changed))) => {}
            Ok(Some(Err(Over::Gone))) => break,
            Ok(Some(Err(Over::Broken(_)))) => {
                shard.meter.count(Counter::Http2Faults, 1);
                break;
            }
            Err(Elapsed) => match farewell {
                Farewell::No if mux.streams() > 0 => {
                    watch.set_in(u64::from(limits.idle_timeout_ms));
                }
                Farewell::No => {
                    let idle_ms = shard.io.clock().now_ms().saturating_sub(mux.used_ms());
                    let limit_ms = u64::from(limits.idle_timeout_ms);
                    if served == 0 || idle_ms >= limit_ms {
                        mux.shut_down();
                        mux.finish_shutdown();
                        break;
                    }
                    watch.set_in(limit_ms - idle_ms);
                }
                // The client has had the time to hear of it: what came until now is served.
                Farewell::Announced => {
                    mux.finish_shutdown();
                    farewell = Farewell::Said;
                    watch.clear();
                }
                Farewell::Said => break,
            },
        }
    }
    mux.close();
    watch.set_in(limits::LINGER_MS);
    if matches!(watch.bound(mux.flush()).await, Ok(())) {
        mux.transport.shutdown_write();
        linger(&mux, watch).await;
    }
}

/// Reads on for a moment: a close with unread input is a reset, which may overtake the GOAWAY.
async fn linger(mux: &Mux, watch: &crate::io::Watch) {
    let mut discarded = 0;
    while discarded < limits::LINGER_BYTES {
        match watch.bound(mux.transport.recv()).await {
            Ok(Ok(Some(chunk))) => discarded += chunk.len(),
            _ => return,
        }
    }
}

/// How far a graceful end has come (RFC 9113 §6.8).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    No,
    /// A GOAWAY without a last stream: no new requests, please.
    Announced,
    /// A GOAWAY that names the last stream served.
    Said,
}

/// One stream from its head to its end.
async fn exchange(connection: Rc<Connection>, stream: MuxStream, block: HeaderBlock, end: bool) {
    let shard = &connection.shard;
    let started_us = shard.io.clock().now_us();
    let plan = shard.plan();
    let Some(listener) = connection.listener(&plan) else { return };
    let limits = listener.limits;
    let mut head = shard.take_request_head();
    let HeaderBlock { mut bytes, fields, too_large, .. } = block;
    let read = match too_large {
        true => Err(Refusal::HeadTooLarge),
        false => head.read_http2(&mut bytes, &fields, end, &head_limits(listener)),
    };
    let refused = read.err().map(|refusal| {
        if refusal != Refusal::ExpectationFailed {
            // Nothing of it is to be believed, nor to be looked up.
            head.clear();
        }
        LocalReply::from(refusal)
    });
    let refused = match stream.fault() {
        // Reset before it began: nothing of it reaches an upstream.
        Some(_) => Some(LocalReply::closing(0, Reason::ClientAborted)),
        None => refused,
    };
    if refused.is_none() && head.framing == Framing::Length(0) && !end {
        // Nothing may follow, but that shows only at the end: then it is a request.
        let watch = shard.io.watch();
        watch.set_in(u64::from(limits.header_timeout_ms));
        if !matches!(watch.bound(poll_fn(|cx| stream.poll_data(cx))).await, Ok(Ok(None))) {
            return;
        }
    }
    let client = connection.describe(listener, &stream.mux().transport);
    let method = head.method(&bytes);
    let parts = [
        method,
        head.site.map_or(&[], |site| site.whole.of(&bytes)),
        head.path(&bytes),
        head.value(&bytes, Name::UserAgent).unwrap_or_default(),
    ];
    let notes = Notes::new(started_us, Version::V20, shard.io.take_vec(), parts);
    let id = head
        .value(&bytes, Name::XRequestId)
        .and_then(RequestId::from_client)
        .unwrap_or_else(|| shard.new_request_id());
    let responder = Responder {
        is_head: method == b"HEAD",
        down: Downstream::Http2(Rc::new(stream)),
        watch: Rc::new(shard.io.watch()),
        limits,
        version: Version::V20,
        keep_alive: true,
        peer: connection.client,
    };
    let mut request = Request {
        plan,
        head,
        bytes: Some(Chunk::from_vec(bytes)),
        normal_path: None,
        refused,
        client,
        id,
        grpc: None,
        web: None,
        deadline_ms: 0,
        upgrade: None,
        notes,
    };
    pipeline::handle(shard, &mut request, responder).await;
    shard.give_request_head(request.head);
    shard.io.give_vec(request.notes.into_text());
}
