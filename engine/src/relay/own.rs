//! Answers of the gateway's own, interim ones, and what is done with a body that no one wants.

use contract::record::Reason;

use crate::body::BodyReader;
use crate::exchange::{Downstream, Ended, Next, Request, Responder};
use crate::http2::ErrorCode;
use crate::io::{Chunk, SendBuf};
use crate::limit;
use crate::limits;
use crate::local_reply::{LocalReply, ReplyHead};
use crate::message::{Dialect, HeadWriter, ResponseHead, Version};
use crate::shard::Shard;

/// Sends an answer of our own.
pub async fn reply(
    shard: &Shard,
    request: &mut Request,
    responder: Responder,
    reply: LocalReply,
) -> Ended {
    let reason = reply.reason;
    if reply.status == 0 {
        // The client is gone: there is no one to answer.
        responder.down.refuse_rest(Next::Abort);
        return Ended { status: 0, reason, response_bytes: 0, relayed_bytes: 0, next: Next::Abort };
    }
    if let (Downstream::Http2(stream), Reason::Malformed) = (&responder.down, reason) {
        stream.reset(ErrorCode::PROTOCOL_ERROR);
        let (status, next) = (reply.status, Next::Abort);
        return Ended { status, reason, response_bytes: 0, relayed_bytes: 0, next };
    }
    let keep = responder.keep_alive && !reply.close && !shard.is_draining();
    let keep = keep && drain_body(request, &responder).await;
    limit::fields::tell(request);
    let date = shard.date();
    let head = ReplyHead {
        date: &date,
        request_id: request.id.bytes(),
        close: !keep && responder.down.dialect() == Dialect::Http1,
        with_body: !responder.is_head,
        fields: &request.answer_fields,
        grpc: request.answer_kind(),
    };
    responder.watch.set_in(u64::from(responder.limits.write_timeout_ms));
    let (sent, response_bytes) = send_reply(shard, &responder, &reply, &head).await;
    let next = match sent {
        true if keep => Next::Keep,
        true => Next::Linger,
        false => Next::Abort,
    };
    if let (Downstream::Http2(stream), Next::Linger) = (&responder.down, next) {
        // Some clients take the reset of a half-sent body for a failure of the answer.
        responder.watch.set_in(limits::LINGER_MS);
        let _ = responder.watch.bound(stream.discard(limits::DRAIN_BODY as usize)).await;
    }
    responder.down.refuse_rest(next);
    Ended { status: reply.status, reason, response_bytes, relayed_bytes: 0, next }
}

async fn send_reply(
    shard: &Shard,
    responder: &Responder,
    reply: &LocalReply,
    head: &ReplyHead<'_>,
) -> (bool, u64) {
    let mut out = shard.io.take_vec();
    match &responder.down {
        Downstream::Http1(stream) => {
            let body = reply.write(&mut out, Dialect::Http1, head);
            out.extend_from_slice(&body);
            let bytes = out.len() as u64;
            let sent = responder.watch.bound(stream.send(SendBuf::Vec(out))).await;
            (matches!(sent, Ok(Ok(()))), bytes)
        }
        Downstream::Http2(stream) => {
            let body = reply.write(&mut out, Dialect::Http2, head);
            let bytes = (out.len() + body.len()) as u64;
            let sent = stream.send_head(&out, body.is_empty());
            shard.io.give_vec(out);
            if sent.is_err() || body.is_empty() {
                return (sent.is_ok(), bytes);
            }
            let sent = responder.watch.bound(stream.send(&body, true)).await;
            (matches!(sent, Ok(Ok(()))), bytes)
        }
        Downstream::Nobody => (false, 0),
    }
}

/// Reads the rest of a small body that no one wants, so that the connection can go on. What is
/// larger, unknown or late ends the connection instead; its bytes are never parsed as a request.
pub(super) async fn drain_body(request: &mut Request, responder: &Responder) -> bool {
    let stream = match &responder.down {
        // The stream ends with its answer; the others go on.
        Downstream::Http2(stream) => return stream.is_done(),
        Downstream::Http1(stream) => stream,
        Downstream::Nobody => return true,
    };
    if let Some(feed) = &request.feed
        && feed.borrow().was_gathered()
    {
        return true;
    }
    if request.feed.is_some() || request.bytes.is_none() {
        // The body was under way to an upstream: it is not known how much of it is left.
        return request.head.framing.is_empty();
    }
    let mut reader = request.body();
    let mut rest = request.take_rest();
    if !matches!(reader, BodyReader::Length(left) if left <= limits::DRAIN_BODY) {
        return false;
    }
    if request.head.expect_continue && rest.is_none() && !reader.is_done() {
        // The client has not begun to send it, and may never (RFC 9110 §10.1.1).
        return false;
    }
    responder.watch.set_in(limits::LINGER_MS);
    loop {
        if reader.is_done() {
            if let Some(rest) = rest {
                stream.unrecv(rest);
            }
            return true;
        }
        let chunk = match rest.take() {
            Some(chunk) => chunk,
            None => match responder.watch.bound(stream.recv()).await {
                Ok(Ok(Some(chunk))) => chunk,
                _ => return false,
            },
        };
        let Ok(taken) = reader.take(chunk) else { return false };
        request.notes.request_bytes += taken.data.as_ref().map_or(0, Chunk::len) as u64;
        rest = taken.rest;
    }
}

/// Tells the client to send its body.
pub async fn interim_continue(responder: &Responder) {
    let deadline_ms = responder.watch.deadline_ms();
    responder.watch.set_in(u64::from(responder.limits.write_timeout_ms));
    let mut out = Vec::with_capacity(32);
    let mut writer = HeadWriter::new(&mut out, responder.down.dialect());
    writer.status(100, b"");
    writer.end();
    send_interim(responder, out).await;
    responder.watch.set_at(deadline_ms);
}

/// Passes an interim answer on. 100 is our own business (see `forward`), and HTTP/1.0 knows none
/// (RFC 9110 §15.2).
pub async fn interim(responder: &Responder, head: &ResponseHead, bytes: &[u8]) {
    if responder.version == Version::V10 || head.status == 100 {
        return;
    }
    let mut out = Vec::with_capacity(bytes.len() + 32);
    let mut writer = HeadWriter::new(&mut out, responder.down.dialect());
    writer.status(head.status, b"");
    for field in head.fields.iter().filter(|field| field.forwarded()) {
        writer.field(field.name.of(bytes), field.value.of(bytes));
    }
    writer.end();
    send_interim(responder, out).await;
}

async fn send_interim(responder: &Responder, out: Vec<u8>) {
    match &responder.down {
        Downstream::Http1(stream) => {
            let _ = responder.watch.bound(stream.send(SendBuf::Vec(out))).await;
        }
        Downstream::Http2(stream) => drop(stream.send_head(&out, false)),
        Downstream::Nobody => {}
    }
}
