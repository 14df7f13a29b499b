//! One HTTP/2 client connection: each stream is an exchange of its own, in a task of its own.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use contract::Counter;
use contract::record::Reason;

use super::{Connection, head_limits};
use crate::exchange::{Downstream, Request, Responder};
use crate::http2::{self, ErrorCode, HeaderBlock};
use crate::io::{Chunk, Elapsed};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{Framing, Refusal, Version};
use crate::mux::{Happened, Mux, MuxStream, Over};
use crate::pipeline;
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
        max_header_list: limits.max_head_bytes,
        extended_connect: upgrades,
        ..http2::Config::SERVER
    };
    drop(plan);
    let mux = Mux::new(shard.io.clone(), transport, config);
    shard.meter.count(Counter::Http2Connections, 1);
    let mut served = 0u32;
    let mut farewell = Farewell::No;
    let header_ms = u64::from(limits.header_timeout_ms);
    let in_ms = |ms: u64| shard.io.clock().now_ms().saturating_add(ms);
    let is_past = |at_ms: u64| at_ms != 0 && at_ms <= shard.io.clock().now_ms();
    let mut due_ms = in_ms(header_ms);
    loop {
        if mux.is_overdue() {
            break;
        }
        if farewell == Farewell::No && (shard.is_draining() || served >= limits.max_requests) {
            mux.shut_down();
            farewell = Farewell::Announced;
            due_ms = in_ms(limits::GOAWAY_GRACE_MS);
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
            let happened = mux.poll_happened(cx).map(Some);
            // A head has its time from its first byte to its end, whatever else goes on.
            watch.set_at(sooner(due_ms, mux.partial_deadline_ms(header_ms)));
            happened
        }));
        match happened.await {
            Ok(None) => continue,
            Ok(Some(Ok(Happened::Opened(stream, block, end)))) => {
                served += 1;
                let exchange = exchange(connection.clone(), stream, block, end);
                shard.io.spawn(exchange);
                if farewell == Farewell::No {
                    due_ms = in_ms(u64::from(limits.idle_timeout_ms));
                }
            }
            Ok(Some(Ok(Happened::Changed))) => {}
            Ok(Some(Err(Over::Gone))) => break,
            Ok(Some(Err(Over::Broken(_)))) => {
                shard.meter.count(Counter::Http2Faults, 1);
                break;
            }
            Err(Elapsed) if is_past(mux.partial_deadline_ms(header_ms)) => {
                mux.abandon(ErrorCode::ENHANCE_YOUR_CALM);
                shard.meter.count(Counter::Http2Faults, 1);
                break;
            }
            Err(Elapsed) if !is_past(due_ms) => {}
            Err(Elapsed) => match farewell {
                Farewell::No if mux.streams() > 0 => {
                    due_ms = in_ms(u64::from(limits.idle_timeout_ms));
                }
                Farewell::No => {
                    let idle_ms = shard.io.clock().now_ms().saturating_sub(mux.used_ms());
                    let limit_ms = u64::from(limits.idle_timeout_ms);
                    if served == 0 || idle_ms >= limit_ms {
                        mux.shut_down();
                        mux.finish_shutdown();
                        break;
                    }
                    due_ms = in_ms(limit_ms - idle_ms);
                }
                // The client has had the time to hear of it: what came until now is served.
                Farewell::Announced => {
                    mux.finish_shutdown();
                    farewell = Farewell::Said;
                    due_ms = 0;
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

/// The earlier of two deadlines, of which 0 is none.
fn sooner(one_ms: u64, other_ms: u64) -> u64 {
    if one_ms == 0 || other_ms == 0 { one_ms.max(other_ms) } else { one_ms.min(other_ms) }
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
    let responder = Responder {
        is_head: head.method(&bytes) == b"HEAD",
        down: Downstream::Http2(Rc::new(stream)),
        watch: Rc::new(shard.io.watch()),
        limits,
        version: Version::V20,
        keep_alive: true,
        peer: connection.client,
    };
    let bytes = Chunk::from_vec(bytes);
    let mut request = Request::new(shard, plan, head, bytes, client, started_us);
    request.refused = refused;
    pipeline::handle(shard, &mut request, responder).await;
    shard.give_request_head(request.head);
    shard.io.give_vec(request.notes.into_text());
}
