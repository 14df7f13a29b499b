//! Answers on their way to the client: the upstream's, relayed as they come, and our own.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use contract::record::Reason;

use crate::body::{self, BodyReader, BodyWriter};
use crate::exchange::{Ended, Next, Request, Responder};
use crate::forward::{Answer, soonest};
use crate::io::{Chunk, Elapsed, SendBuf};
use crate::limits;
use crate::local_reply::{LocalReply, ReplyHead};
use crate::message::{BodyFraming, Name, ResponseHead, Version, write};
use crate::serve::tunnel;
use crate::shard::Shard;
use crate::upload::{Upload, UploadEnd};

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
        return Ended { status: 0, reason, response_bytes: 0, relayed_bytes: 0, next: Next::Abort };
    }
    let keep = responder.keep_alive && !reply.close && !shard.is_draining();
    let keep = keep && drain_body(request, &responder).await;
    let mut out = shard.io.take_vec();
    let head = ReplyHead {
        date: &shard.date(),
        request_id: request.id.bytes(),
        close: !keep,
        with_body: !responder.is_head,
    };
    reply.write(&mut out, &head);
    let response_bytes = out.len() as u64;
    responder.watch.set_in(u64::from(responder.limits.write_timeout_ms));
    let sent = responder.watch.bound(responder.stream.send(SendBuf::Vec(out))).await;
    let next = match sent {
        Ok(Ok(())) if keep => Next::Keep,
        Ok(Ok(())) => Next::Linger,
        Ok(Err(_)) | Err(Elapsed) => Next::Abort,
    };
    Ended { status: reply.status, reason, response_bytes, relayed_bytes: 0, next }
}

/// Reads the rest of a small body that no one wants, so that the connection can go on. What is
/// larger, unknown or late ends the connection instead; its bytes are never parsed as a request.
async fn drain_body(request: &mut Request, responder: &Responder) -> bool {
    if request.bytes.is_none() {
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
                responder.stream.unrecv(rest);
            }
            return true;
        }
        let chunk = match rest.take() {
            Some(chunk) => chunk,
            None => match responder.watch.bound(responder.stream.recv()).await {
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
    responder.watch.set_in(u64::from(responder.limits.write_timeout_ms));
    let buf = SendBuf::Static(b"HTTP/1.1 100 Continue\r\n\r\n");
    let _ = responder.watch.bound(responder.stream.send(buf)).await;
}

/// Passes an interim answer on. 100 is our own business (see `forward`), and HTTP/1.0 knows none
/// (RFC 9110 §15.2).
pub async fn interim(responder: &Responder, head: &ResponseHead, bytes: &[u8]) {
    if responder.version == Version::V10 || head.status == 100 {
        return;
    }
    let mut out = Vec::with_capacity(bytes.len());
    write::status_line(&mut out, head.status);
    for field in head.fields.iter().filter(|field| field.forwarded()) {
        write::field(&mut out, field.name.of(bytes), field.value.of(bytes));
    }
    out.extend_from_slice(write::CRLF);
    let deadline = responder.watch.deadline_ms();
    let _ = responder.watch.bound(responder.stream.send(SendBuf::Vec(out))).await;
    responder.watch.set_at(deadline);
}

/// Relays an upstream's answer to its end.
pub async fn relay(
    shard: &Shard,
    request: &mut Request,
    responder: Responder,
    answer: Answer,
) -> Ended {
    if answer.head.switching {
        // Boxed: rare, and large enough to weigh on every other connection.
        return Box::pin(tunnel::tunnel(shard, request, responder, answer)).await;
    }
    let Answer { lease, flight, head, mut bytes, upload, timeouts, deadline_ms } = answer;
    let status = head.status;
    let mut relay = Relay {
        shard,
        responder: &responder,
        upload,
        upload_failed: false,
        idle_ms: u64::from(timeouts.idle_ms),
        deadline_ms,
        sent: 0,
    };
    let reader = BodyReader::of_response(head.framing);
    let framing = Framed::of(&head, &responder);
    // A body of unknown end needs the close to end it towards an old client; an upload that is
    // still going on after an early answer is not waited for (RFC 9112 §9.3).
    let mut keep = responder.keep_alive && !framing.close_ends && !shard.is_draining();
    if relay.upload.is_some() {
        keep &= relay.upload_is_over().await;
    }
    let mut out = shard.io.take_vec();
    write_head(shard, request, &responder, &head, bytes.bytes(), &framing, keep, &mut out);
    bytes.advance(head.head_len);
    let upstream_keeps = head.keep_alive;
    shard.give_response_head(head);
    let ended = relay.body(&lease.stream, reader, framing.writer, out, bytes).await;
    let upload_done = relay.upload.is_none() && !relay.upload_failed;
    let response_bytes = relay.sent;
    drop(flight);
    let (reason, next) = match ended {
        Ok(clean) => {
            if clean && upstream_keeps && upload_done {
                lease.give_back(shard.io.clock().now_ms());
            }
            (Reason::None, if keep && upload_done { Next::Keep } else { Next::Linger })
        }
        Err(reason) => {
            // The client must not take what it has for the whole answer: with a length or chunks
            // the missing rest tells, an answer that the close ends needs a reset.
            if framing.close_ends {
                responder.stream.set_reset_on_close();
            }
            (reason, Next::Abort)
        }
    };
    Ended { status, reason, response_bytes, relayed_bytes: response_bytes, next }
}

/// How an answer's body goes to this client.
struct Framed {
    writer: BodyWriter,
    length: Option<u64>,
    chunked: bool,
    /// Only the close ends it.
    close_ends: bool,
}

impl Framed {
    fn of(head: &ResponseHead, responder: &Responder) -> Framed {
        let plain = |length| Framed {
            writer: BodyWriter::Plain,
            length,
            chunked: false,
            close_ends: false,
        };
        match head.framing {
            BodyFraming::None => plain(None),
            BodyFraming::Length(length) => plain(Some(length)),
            _ if responder.version == Version::V10 => Framed { close_ends: true, ..plain(None) },
            _ => Framed { writer: BodyWriter::CHUNKED, chunked: true, ..plain(None) },
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn write_head(
    shard: &Shard,
    request: &Request,
    responder: &Responder,
    head: &ResponseHead,
    bytes: &[u8],
    framing: &Framed,
    keep: bool,
    out: &mut Vec<u8>,
) {
    let phrase = head.reason.of(bytes);
    if phrase.is_empty() || head.status == 200 {
        write::status_line(out, head.status);
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        write::decimal(out, u64::from(head.status));
        out.push(b' ');
        out.extend_from_slice(phrase);
        out.extend_from_slice(write::CRLF);
    }
    let mut dated = false;
    for field in &head.fields {
        match field.id {
            // Without a body (HEAD, 304) the length says what a GET would have had.
            Name::ContentLength if head.framing == BodyFraming::None => {}
            Name::ContentLength | Name::XRequestId => continue,
            Name::Date => dated = true,
            _ => {}
        }
        if field.forwarded() {
            write::field(out, field.name.of(bytes), field.value.of(bytes));
        }
    }
    if !dated {
        write::field(out, b"Date", &shard.date());
    }
    out.extend_from_slice(b"Via: 1.1 ");
    out.extend_from_slice(request.plan.plan.node.via.as_bytes());
    out.extend_from_slice(write::CRLF);
    write::field(out, b"X-Request-Id", request.id.bytes());
    if let Some(length) = framing.length {
        write::field_decimal(out, b"Content-Length", length);
    } else if framing.chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if !keep {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if responder.version == Version::V10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(write::CRLF);
}

struct Relay<'a> {
    shard: &'a Shard,
    responder: &'a Responder,
    upload: Option<Upload>,
    upload_failed: bool,
    idle_ms: u64,
    deadline_ms: u64,
    sent: u64,
}

impl Relay<'_> {
    /// Whether the upload ended by itself by the time the answer came.
    async fn upload_is_over(&mut self) -> bool {
        poll_fn(|cx| {
            self.poll_upload(cx);
            Poll::Ready(())
        })
        .await;
        self.upload.is_none() && !self.upload_failed
    }

    fn poll_upload(&mut self, cx: &mut std::task::Context<'_>) {
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(end) = Pin::new(upload).poll(cx)
        {
            self.upload_failed = end != UploadEnd::Done;
            self.upload = None;
        }
    }

    /// Awaits `future` within `ms` and the total deadline, the upload going on beside it.
    async fn beside<T>(&mut self, ms: u64, future: impl Future<Output = T>) -> Result<T, Elapsed> {
        let watch = self.responder.watch.clone();
        watch.set_at(soonest(self.shard.io.clock().now_ms() + ms, self.deadline_ms));
        let mut future = pin!(future);
        if self.upload.is_none() {
            return watch.bound(future).await;
        }
        let both = poll_fn(|cx| {
            self.poll_upload(cx);
            future.as_mut().poll(cx)
        });
        watch.bound(both).await
    }

    /// Sends the head (`out`) and the body. `Ok(true)`: the upstream's message ended cleanly, with
    /// nothing behind it.
    async fn body(
        &mut self,
        upstream: &crate::io::Stream,
        mut reader: BodyReader,
        mut writer: BodyWriter,
        mut out: Vec<u8>,
        bytes: Chunk,
    ) -> Result<bool, Reason> {
        let mut came = Some(bytes).filter(|bytes| !bytes.is_empty());
        let mut bulk = false;
        let mut clean = true;
        loop {
            let mut ended = reader.is_done();
            let mut data = None;
            if let Some(chunk) = came.take() {
                match reader.take(chunk) {
                    Ok(taken) => {
                        // Bytes behind the message: no one asked for them.
                        clean &= taken.rest.is_none();
                        data = taken.data;
                        ended = taken.done || reader.is_done();
                    }
                    Err(_) => {
                        self.flush_head(out).await?;
                        return Err(Reason::UpstreamInvalid);
                    }
                }
            }
            if let Some(data) = &data {
                self.sent += data.len() as u64;
                writer.prefix(data.len(), &mut out);
            }
            if ended {
                return self.finish(&reader, &mut writer, out, data).await.map(|()| clean);
            }
            if data.is_some() || !out.is_empty() {
                let buf = body::join(std::mem::take(&mut out), data, &[]);
                self.send(buf).await?;
            }
            if !bulk && !matches!(reader, BodyReader::Length(left) if left <= limits::RUN_AHEAD) {
                bulk = true;
                upstream.set_bulk(true);
            }
            match self.beside(self.idle_ms, upstream.recv()).await {
                Ok(Ok(Some(chunk))) => {
                    out = self.shard.io.take_vec();
                    came = Some(chunk);
                }
                Ok(Ok(None)) if reader.ends_with_stream() => {
                    let out = self.shard.io.take_vec();
                    self.finish(&reader, &mut writer, out, None).await?;
                    return Ok(false);
                }
                Ok(_) => return Err(Reason::UpstreamTruncated),
                Err(Elapsed) => return Err(Reason::UpstreamTruncated),
            }
        }
    }

    async fn finish(
        &mut self,
        reader: &BodyReader,
        writer: &mut BodyWriter,
        out: Vec<u8>,
        data: Option<Chunk>,
    ) -> Result<(), Reason> {
        let mut tail = self.shard.io.take_vec();
        writer.suffix(reader.trailers(), &mut tail);
        let buf = body::join(out, data, &tail);
        self.shard.io.give_vec(tail);
        self.send(buf).await
    }

    async fn flush_head(&mut self, out: Vec<u8>) -> Result<(), Reason> {
        if out.is_empty() { Ok(()) } else { self.send(SendBuf::Vec(out)).await }
    }

    async fn send(&mut self, buf: SendBuf) -> Result<(), Reason> {
        // The common case: nothing outstanding, so nothing to wait for.
        let buf = match self.responder.stream.try_send(buf) {
            Ok(()) => return Ok(()),
            Err(buf) => buf,
        };
        let write_ms = u64::from(self.responder.limits.write_timeout_ms);
        let stream = self.responder.stream.clone();
        match self.beside(write_ms, stream.send(buf)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(Elapsed) => Err(Reason::ClientAborted),
        }
    }
}
