//! One attempt over one connection: sends the request, waits for the head of the answer.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use contract::record::Reason;
use contract::snapshot::Timeouts;

use super::outgoing::Outgoing;
use super::{Answer, Carrier, Failed, soonest};
use crate::body::BodyWriter;
use crate::channel::Sink;
use crate::exchange::{Request, Responder};
use crate::grpc_web::Base64;
use crate::http2::{ErrorCode, RequestKind};
use crate::io::{Chunk, SendBuf};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{Dialect, Framing, HeadLimits, Progress, ResponseHead};
use crate::mux::{Head, MuxStream, StreamFault};
use crate::plan::{Target, Upstream};
use crate::relay;
use crate::serve::websocket;
use crate::shard::Shard;
use crate::transport::Transport;
use crate::upload::{Upload, UploadEnd};
use crate::upstream::InFlight;
use crate::upstream::pool::{Connection, Lease, Share};

pub struct Attempt<'a> {
    pub shard: &'a Shard,
    pub request: &'a mut Request,
    pub responder: &'a Responder,
    pub upstream: &'a Upstream,
    pub target: &'a Target,
    pub timeouts: &'a Timeouts,
    pub deadline_ms: u64,
}

/// What the wait for an answer saw.
enum Seen<T> {
    Came(T),
    Uploaded(UploadEnd),
    ClientGone,
}

impl Attempt<'_> {
    pub async fn run(
        mut self,
        outgoing: &mut Outgoing,
        lease: Lease,
        flight: InFlight,
    ) -> Result<Answer, Failed> {
        // The client's deadline is passed on, lowered to the route's own.
        let timeout_ms = match self.request.deadline_ms {
            0 => None,
            _ => Some(self.deadline_ms.saturating_sub(self.shard.io.clock().now_ms())),
        };
        let dialect = match &lease {
            Lease::Http1(_) => Dialect::Http1,
            Lease::Http2(_) => Dialect::Http2,
        };
        outgoing.write(
            self.request,
            self.responder,
            dialect,
            self.upstream,
            self.target,
            timeout_ms,
        );
        let answer = match lease {
            Lease::Http1(connection) => self.over_http1(outgoing, connection, flight).await,
            Lease::Http2(share) => self.over_http2(outgoing, share, flight).await,
        }?;
        outgoing.unread_rest(self.request, self.responder);
        Ok(answer)
    }

    async fn over_http1(
        &mut self,
        outgoing: &Outgoing,
        connection: Connection,
        flight: InFlight,
    ) -> Result<Answer, Failed> {
        let stream = connection.stream.clone();
        if stream.try_send(SendBuf::Shared(outgoing.head.clone())).is_err() {
            return Err(Failed::Stale);
        }
        let mut upload = None;
        if !outgoing.is_whole() {
            let writer = match self.request.framing_out() {
                Framing::Chunked => BodyWriter::CHUNKED,
                _ => BodyWriter::Plain,
            };
            upload = Some(self.upload(Sink::Http1 { stream: stream.clone(), writer }).await);
        }
        let sent_us = self.shard.io.clock().now_us();
        let (head, bytes) = self.http1_head(&stream, &mut upload, sent_us).await?;
        let switched = head.switching;
        if switched && !self.accepts(&head, bytes.bytes()) {
            return Err(invalid());
        }
        let carrier = Carrier::Http1(connection);
        Ok(self.answer(carrier, flight, head, bytes, upload, switched))
    }

    async fn over_http2(
        &mut self,
        outgoing: &Outgoing,
        share: Share,
        flight: InFlight,
    ) -> Result<Answer, Failed> {
        let upgrades = self.request.upgrade.is_some();
        if upgrades && !self.takes_extended_connect(&share).await {
            return Err(LocalReply::new(502, Reason::UpstreamUnsuited).into());
        }
        let kind = match (upgrades, self.responder.is_head) {
            (true, _) => RequestKind::Connect,
            (_, true) => RequestKind::Head,
            _ => RequestKind::Plain,
        };
        let end = outgoing.is_whole() && outgoing.body.is_empty() && !upgrades;
        let opened = share.mux.open(&outgoing.head, end, kind);
        let stream = Rc::new(opened.map_err(|_| Failed::Unprocessed)?);
        let sent_us = self.shard.io.clock().now_us();
        let mut upload = None;
        if !outgoing.is_whole() {
            upload = Some(self.upload(Sink::Http2 { stream: stream.clone() }).await);
        } else if !end && !upgrades {
            self.send_whole(&stream, &outgoing.body, share.reused).await?;
        }
        let (head, bytes) = self.http2_head(&stream, &mut upload, share.reused, sent_us).await?;
        let switched = upgrades && (200..300).contains(&head.status);
        Ok(self.answer(Carrier::Http2(stream), flight, head, bytes, upload, switched))
    }

    fn answer(
        &self,
        carrier: Carrier,
        flight: InFlight,
        head: Box<ResponseHead>,
        bytes: Chunk,
        upload: Option<Upload>,
        switched: bool,
    ) -> Answer {
        Answer {
            carrier,
            flight,
            head,
            bytes,
            upload,
            timeouts: *self.timeouts,
            deadline_ms: self.deadline_ms,
            switched,
        }
    }

    /// Whether a switch to WebSocket answers the key that we have sent: where the client speaks
    /// HTTP/2, the gateway is the handshake's client (RFC 6455 §4.1).
    fn accepts(&self, head: &ResponseHead, bytes: &[u8]) -> bool {
        let upgrade = self.request.upgrade.as_ref();
        let ours = upgrade.is_some_and(|upgrade| {
            upgrade.websocket_key.is_none() && upgrade.token.eq_ignore_ascii_case(b"websocket")
        });
        let mut fields = head.fields.iter();
        let accept = fields
            .find(|field| field.name.of(bytes).eq_ignore_ascii_case(b"sec-websocket-accept"))
            .map(|field| field.value.of(bytes));
        let key = websocket::key(self.request.id.bytes());
        !ours || accept == Some(&websocket::accept(&key))
    }

    /// Begins to move the body beside the wait for the answer.
    async fn upload(&mut self, sink: Sink) -> Upload {
        let request = &mut *self.request;
        if request.head.expect_continue && request.bytes().len() == request.head.head_len {
            // The gateway takes the request: it has passed every check that needs no body.
            relay::interim_continue(self.responder).await;
        }
        let limit = request.plan.plan.route(request.notes.route.unwrap_or(0)).max_body_bytes;
        let judged = request.grpc.is_none();
        let source = request.source(self.responder);
        let text = request.decodes().then(Base64::default);
        Upload::new(self.shard, self.responder, source, sink, limit, judged, text)
    }

    /// A peer announces it in its first settings, which a fresh connection has to wait for.
    async fn takes_extended_connect(&self, share: &Share) -> bool {
        let limit_ms = self.shard.io.clock().now_ms() + u64::from(self.timeouts.connect_ms);
        self.responder.watch.set_at(soonest(limit_ms, self.deadline_ms));
        let told = self.responder.watch.bound(share.mux.told_settings());
        told.await.is_ok()
            && share.mux.extended_connect() == Some(true)
            && share.mux.available() > 0
    }

    async fn send_whole(
        &self,
        stream: &MuxStream,
        body: &[u8],
        reused: bool,
    ) -> Result<(), Failed> {
        let limit_ms = self.shard.io.clock().now_ms() + u64::from(self.timeouts.first_byte_ms);
        self.responder.watch.set_at(soonest(limit_ms, self.deadline_ms));
        match self.responder.watch.bound(stream.send(body, true)).await {
            Ok(Ok(())) => Ok(()),
            // It may have answered all the same: that is found out by reading.
            Ok(Err(StreamFault::Reset { code: ErrorCode::NO_ERROR, .. })) => Ok(()),
            Ok(Err(fault)) => Err(failed(fault, reused)),
            Err(_) => Err(self.late(Some(stream)).into()),
        }
    }

    /// Reads up to the end of a final head, passing interim ones on.
    async fn http1_head(
        &mut self,
        stream: &Transport,
        upload: &mut Option<Upload>,
        sent_us: u64,
    ) -> Result<(Box<ResponseHead>, Chunk), Failed> {
        let mut head = self.shard.take_response_head();
        let mut partial: Option<Vec<u8>> = None;
        let mut interim = 0;
        self.expect_answer(upload.is_some());
        loop {
            let seen = self.see(upload, None, |cx| stream.poll_recv(cx)).await?;
            let chunk = match seen {
                Seen::Came(Ok(Some(chunk))) => chunk,
                Seen::Came(_) if partial.is_none() && interim == 0 => return Err(Failed::Stale),
                Seen::Came(_) => {
                    return Err(LocalReply::new(502, Reason::UpstreamReset).into());
                }
                Seen::Uploaded(end) => {
                    self.uploaded(upload, end)?;
                    continue;
                }
                Seen::ClientGone => return Err(client_gone()),
            };
            self.note_first_byte(sent_us);
            let mut chunk = match partial.take() {
                None => chunk,
                Some(mut bytes) => {
                    bytes.extend_from_slice(chunk.bytes());
                    Chunk::from_vec(bytes)
                }
            };
            // Several heads may be in one chunk: interim ones and the final one.
            loop {
                let parsed =
                    head.parse(chunk.bytes(), self.responder.is_head, &HeadLimits::RESPONSE);
                match parsed {
                    Err(_) => return Err(invalid()),
                    Ok(Progress::Partial) => {
                        partial = Some(chunk.bytes().to_vec());
                        break;
                    }
                    Ok(Progress::Complete) if head.is_interim() => {
                        interim += 1;
                        if interim > limits::INTERIM_ANSWERS {
                            return Err(invalid());
                        }
                        relay::interim(self.responder, &head, chunk.bytes()).await;
                        chunk.advance(head.head_len);
                        if chunk.is_empty() {
                            break;
                        }
                    }
                    // RFC 9110 §15.2.2: no one asked for it.
                    Ok(Progress::Complete) if head.switching && self.request.upgrade.is_none() => {
                        return Err(invalid());
                    }
                    Ok(Progress::Complete) => return Ok((head, chunk)),
                }
            }
        }
    }

    async fn http2_head(
        &mut self,
        stream: &MuxStream,
        upload: &mut Option<Upload>,
        reused: bool,
        sent_us: u64,
    ) -> Result<(Box<ResponseHead>, Chunk), Failed> {
        let mut interim = 0;
        self.expect_answer(upload.is_some());
        loop {
            let seen = self.see(upload, Some(stream), |cx| stream.poll_head(cx)).await?;
            let (block, end): Head = match seen {
                Seen::Came(Ok(head)) => head,
                Seen::Came(Err(fault)) if interim == 0 => return Err(failed(fault, reused)),
                Seen::Came(Err(_)) => {
                    return Err(LocalReply::new(502, Reason::UpstreamReset).into());
                }
                Seen::Uploaded(end) => {
                    self.uploaded(upload, end)?;
                    continue;
                }
                Seen::ClientGone => return Err(client_gone()),
            };
            self.note_first_byte(sent_us);
            if block.too_large {
                return Err(invalid());
            }
            let mut head = self.shard.take_response_head();
            let read = head.read_http2(&block.bytes, &block.fields, self.responder.is_head, end);
            if read.is_err() {
                return Err(invalid());
            }
            if head.is_interim() {
                interim += 1;
                if interim > limits::INTERIM_ANSWERS {
                    return Err(invalid());
                }
                relay::interim(self.responder, &head, &block.bytes).await;
                stream.mux().recycle(block);
                continue;
            }
            return Ok((head, Chunk::from_vec(block.bytes)));
        }
    }

    fn note_first_byte(&mut self, sent_us: u64) {
        if self.request.notes.first_byte_us == 0 {
            let first_us = self.shard.io.clock().now_us() - sent_us;
            self.request.notes.first_byte_us = u32::try_from(first_us).unwrap_or(u32::MAX);
        }
    }

    /// The deadline of the first byte counts from the end of the request.
    fn expect_answer(&self, uploading: bool) {
        let now_ms = self.shard.io.clock().now_ms();
        let first_ms = match uploading && self.request.grpc.is_some() {
            // A call that streams its requests may be answered when they are all there.
            true => 0,
            false => now_ms + u64::from(self.timeouts.first_byte_ms),
        };
        self.responder.watch.set_at(soonest(first_ms, self.deadline_ms));
    }

    /// Waits for `came`, the upload going on beside it.
    async fn see<T>(
        &self,
        upload: &mut Option<Upload>,
        stream: Option<&MuxStream>,
        mut came: impl FnMut(&mut std::task::Context<'_>) -> Poll<T>,
    ) -> Result<Seen<T>, LocalReply> {
        let down = &self.responder.down;
        let next = poll_fn(|cx| {
            if let Some(upload) = upload
                && let Poll::Ready(end) = Pin::new(upload).poll(cx)
            {
                return Poll::Ready(Seen::Uploaded(end));
            }
            if let Poll::Ready(came) = came(cx) {
                return Poll::Ready(Seen::Came(came));
            }
            // While a body is read, its reader sees a reset itself.
            if upload.is_none() && down.poll_gone(cx).is_ready() {
                return Poll::Ready(Seen::ClientGone);
            }
            Poll::Pending
        });
        self.responder.watch.bound(next).await.map_err(|_| self.late(stream))
    }

    /// The answer to a wait that took too long.
    fn late(&self, stream: Option<&MuxStream>) -> LocalReply {
        let now_ms = self.shard.io.clock().now_ms();
        let past = |at_ms: u64| at_ms != 0 && now_ms >= at_ms;
        if past(self.request.deadline_ms) {
            return LocalReply::new(504, Reason::DeadlineExceeded);
        }
        if let Some(stream) = stream {
            stream.mux().suspect();
        }
        if past(self.deadline_ms) {
            LocalReply::new(504, Reason::TotalTimeout)
        } else {
            LocalReply::new(504, Reason::FirstByteTimeout)
        }
    }

    fn uploaded(&mut self, upload: &mut Option<Upload>, end: UploadEnd) -> Result<(), LocalReply> {
        if let Some(upload) = upload.take() {
            self.request.notes.request_bytes = upload.bytes();
        }
        match end {
            // An upstream that stops reading may still have answered (RFC 9112 §9.3: 413 …).
            UploadEnd::Done | UploadEnd::UpstreamGone => {
                self.expect_answer(false);
                Ok(())
            }
            UploadEnd::ClientGone => Err(LocalReply::closing(0, Reason::ClientAborted)),
            UploadEnd::Refused(reply) => Err(reply),
        }
    }
}

fn invalid() -> Failed {
    LocalReply::new(502, Reason::UpstreamInvalid).into()
}

fn client_gone() -> Failed {
    LocalReply::closing(0, Reason::ClientAborted).into()
}

fn failed(fault: StreamFault, reused: bool) -> Failed {
    match fault {
        StreamFault::Reset { code: ErrorCode::REFUSED_STREAM, by_peer: true } => {
            Failed::Unprocessed
        }
        // The peer's answer breaks the protocol: our state machine reset the stream.
        StreamFault::Reset { by_peer: false, .. } => invalid(),
        StreamFault::Lost if reused => Failed::Stale,
        _ => LocalReply::new(502, Reason::UpstreamReset).into(),
    }
}
