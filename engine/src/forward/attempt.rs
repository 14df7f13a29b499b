//! One attempt over one connection: sends the request, waits for the head of the answer.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use contract::Counter;
use contract::record::Reason;

use super::course::Outcome;
use super::errand::{Caught, Errand, Failed, client_gone};
use super::soonest;
use crate::answer::Carrier;
use crate::body::BodyWriter;
use crate::channel::Sink;
use crate::http2::{ErrorCode, RequestKind};
use crate::io::{Chunk, SendBuf, Watch};
use crate::limits;
use crate::message::{Dialect, Framing, HeadLimits, Progress, ResponseHead};
use crate::mux::{Head, MuxStream, StreamFault};
use crate::plan::Target;
use crate::relay;
use crate::serve::websocket;
use crate::transport::Transport;
use crate::upload::{Upload, UploadEnd};
use crate::upstream::InFlight;
use crate::upstream::pool::{Connection, Lease, NoLease, Share};

/// One try. Several of one errand may go on at once.
pub struct Attempt<'e, 'r> {
    pub errand: &'e Errand<'r>,
    pub target: &'e Target,
    /// Bounds this try; no other one meanwhile.
    pub watch: Rc<Watch>,
    /// When `Timeouts::try_ms` will have passed; monotonic milliseconds, 0: never.
    pub try_ms: u64,
    /// Over a connection that has carried nothing yet.
    pub fresh: bool,
    /// It goes on beside another: what comes before the final answer is not passed on.
    pub beside: bool,
}

/// What the wait for an answer saw.
enum Seen<T> {
    Came(T),
    Uploaded(UploadEnd),
    ClientGone,
}

impl Attempt<'_, '_> {
    /// From no connection to the head of an answer.
    ///
    /// # Errors
    /// How the try has failed, and the answer to give if no other one follows.
    pub async fn run(&self, flight: &InFlight) -> Result<Caught, Failed> {
        let lease = self.lease(flight).await?;
        let errand = self.errand;
        let dialect = match &lease {
            Lease::Http1(_) => Dialect::Http1,
            Lease::Http2(_) => Dialect::Http2,
        };
        errand.write(dialect, self.target);
        match lease {
            Lease::Http1(connection) => self.over_http1(connection).await,
            Lease::Http2(share) => self.over_http2(share).await,
        }
    }

    async fn lease(&self, flight: &InFlight) -> Result<Lease, Failed> {
        let Errand { shard, timeouts, .. } = self.errand;
        let clock = shard.io.clock();
        if !self.fresh
            && let Some(lease) = flight.pool().reuse(clock.now_ms())
        {
            shard.meter.count(Counter::UpstreamReuses, 1);
            return Ok(lease);
        }
        let started_us = clock.now_us();
        self.watch.set_at(self.soonest(clock.now_ms() + u64::from(timeouts.connect_ms)));
        let leased = flight.pool().lease(&shard.io, &self.watch, self.fresh).await;
        let connect_us = u32::try_from(clock.now_us() - started_us).unwrap_or(u32::MAX);
        self.errand.request.borrow_mut().notes.connect_us = connect_us;
        match leased {
            Ok(lease) => {
                if !lease.reused() {
                    shard.meter.count(Counter::UpstreamConnects, 1);
                    if let Some(facts) = lease.tls() {
                        shard.meter.count(Counter::UpstreamTlsHandshakes, 1);
                        shard.meter.count(Counter::UpstreamTlsResumed, u64::from(facts.resumed));
                    }
                }
                Ok(lease)
            }
            Err(why) => Err(self.no_lease(&why)),
        }
    }

    fn no_lease(&self, why: &NoLease) -> Failed {
        let Errand { shard, .. } = self.errand;
        shard.meter.count(Counter::UpstreamConnectErrors, 1);
        let now_ms = shard.io.clock().now_ms();
        if passed(self.errand.patience_ms, now_ms) {
            return Failed::new(Outcome::ClientDeadline, 504, Reason::DeadlineExceeded);
        }
        if passed(self.errand.deadline_ms, now_ms) {
            return Failed::new(Outcome::Timeout, 504, Reason::TotalTimeout);
        }
        match why {
            NoLease::Failed(_) => Failed::new(Outcome::NoConnection, 502, Reason::ConnectFailed),
            NoLease::Handshake(_) => {
                shard.meter.count(Counter::UpstreamTlsFailed, 1);
                Failed::new(Outcome::NoConnection, 502, Reason::UpstreamTls)
            }
            NoLease::Timeout => Failed::new(Outcome::NoConnection, 504, Reason::ConnectTimeout),
            NoLease::Exhausted => Failed::new(Outcome::Exhausted, 503, Reason::PoolExhausted),
        }
    }

    async fn over_http1(&self, connection: Connection) -> Result<Caught, Failed> {
        let errand = self.errand;
        let stream = connection.stream.clone();
        let (head, whole) = {
            let outgoing = errand.outgoing.borrow();
            (outgoing.head.clone(), outgoing.is_whole())
        };
        if stream.try_send(SendBuf::Shared(head)).is_err() {
            return Err(reset(connection.reused));
        }
        let mut upload = None;
        if !whole {
            let writer = match errand.request.borrow().framing_out() {
                Framing::Chunked => BodyWriter::CHUNKED,
                _ => BodyWriter::Plain,
            };
            let sink = Sink::Http1 { stream: stream.clone(), writer };
            upload = Some(self.upload(sink, false).await);
        }
        let sent_us = errand.shard.io.clock().now_us();
        let reused = connection.reused;
        let (head, bytes) = self.http1_head(&stream, &mut upload, reused, sent_us).await?;
        let switched = head.switching;
        if switched && !self.accepts(&head, bytes.bytes()) {
            return Err(invalid());
        }
        Ok(Caught { carrier: Carrier::Http1(connection), head, bytes, upload, switched })
    }

    async fn over_http2(&self, share: Share) -> Result<Caught, Failed> {
        let errand = self.errand;
        let upgrades = errand.request.borrow().upgrade.is_some();
        if upgrades && !self.takes_extended_connect(&share).await {
            return Err(Failed::new(Outcome::Ours, 502, Reason::UpstreamUnsuited));
        }
        let kind = match (upgrades, errand.is_head) {
            (true, _) => RequestKind::Connect,
            (_, true) => RequestKind::Head,
            _ => RequestKind::Plain,
        };
        let (head, whole, body) = {
            let outgoing = errand.outgoing.borrow();
            (outgoing.head.clone(), outgoing.is_whole(), outgoing.body())
        };
        let end = whole && body.is_none() && !upgrades;
        let opened = share.mux.open(&head, end, kind);
        // Another has taken the place, or the connection has ended: nothing was sent.
        let stream = Rc::new(opened.map_err(|_| refused(true))?);
        let sent_us = errand.shard.io.clock().now_us();
        let mut upload = None;
        if !whole {
            upload = Some(self.upload(Sink::Http2 { stream: stream.clone() }, true).await);
        } else if let Some(body) = body
            && !upgrades
        {
            self.send_whole(&stream, &body, share.reused).await?;
        }
        let (head, bytes) = self.http2_head(&stream, &mut upload, share.reused, sent_us).await?;
        let switched = upgrades && (200..300).contains(&head.status);
        Ok(Caught { carrier: Carrier::Http2(stream), head, bytes, upload, switched })
    }

    /// Whether a switch to WebSocket answers the key that we have sent: where the client speaks
    /// HTTP/2, the gateway is the handshake's client (RFC 6455 §4.1).
    fn accepts(&self, head: &ResponseHead, bytes: &[u8]) -> bool {
        let request = self.errand.request.borrow();
        let upgrade = request.upgrade.as_ref();
        let ours = upgrade.is_some_and(|upgrade| {
            upgrade.websocket_key.is_none() && upgrade.token.eq_ignore_ascii_case(b"websocket")
        });
        let mut fields = head.fields.iter();
        let accept = fields
            .find(|field| field.name.of(bytes).eq_ignore_ascii_case(b"sec-websocket-accept"))
            .map(|field| field.value.of(bytes));
        let key = websocket::key(request.id.bytes());
        !ours || accept == Some(&websocket::accept(&key))
    }

    /// Begins to move the body beside the wait for the answer. `refusals`: the peer can say that it
    /// has not looked at the request.
    async fn upload(&self, sink: Sink, refusals: bool) -> Upload {
        let errand = self.errand;
        let responder = errand.responder;
        let awaited = {
            let request = errand.request.borrow();
            request.head.expect_continue && request.bytes().len() == request.head.head_len
        };
        if awaited {
            // The gateway takes the request: it has passed every check that needs no body.
            relay::interim_continue(responder).await;
        }
        let request = &mut **errand.request.borrow_mut();
        let goes_on = errand.may_go_on(refusals);
        let feed = errand.outgoing.borrow_mut().feed(request, responder, goes_on);
        let judged = request.grpc.is_none();
        Upload::new(errand.shard, responder, feed, sink, errand.route.max_body_bytes, judged)
    }

    /// A peer announces it in its first settings, which a fresh connection has to wait for.
    async fn takes_extended_connect(&self, share: &Share) -> bool {
        let Errand { shard, timeouts, .. } = self.errand;
        let limit_ms = shard.io.clock().now_ms() + u64::from(timeouts.connect_ms);
        self.watch.set_at(self.soonest(limit_ms));
        let told = self.watch.bound(share.mux.told_settings());
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
        let Errand { shard, timeouts, .. } = self.errand;
        let limit_ms = shard.io.clock().now_ms() + u64::from(timeouts.first_byte_ms);
        self.watch.set_at(self.soonest(limit_ms));
        match self.watch.bound(stream.send(body, true)).await {
            Ok(Ok(())) => Ok(()),
            // It may have answered all the same: that is found out by reading.
            Ok(Err(StreamFault::Reset { code: ErrorCode::NO_ERROR, .. })) => Ok(()),
            Ok(Err(fault)) => Err(failed(fault, stream, reused)),
            Err(_) => Err(self.late(Some(stream))),
        }
    }

    /// Reads up to the end of a final head, passing interim ones on.
    async fn http1_head(
        &self,
        stream: &Transport,
        upload: &mut Option<Upload>,
        reused: bool,
        sent_us: u64,
    ) -> Result<(Box<ResponseHead>, Chunk), Failed> {
        let errand = self.errand;
        let is_head = errand.is_head;
        let mut head = errand.shard.take_response_head();
        let mut partial: Option<Vec<u8>> = None;
        let mut interim = 0;
        self.expect_answer(upload.is_some());
        loop {
            let seen = self.see(upload, None, |cx| stream.poll_recv(cx)).await?;
            let chunk = match seen {
                Seen::Came(Ok(Some(chunk))) => chunk,
                Seen::Came(_) if partial.is_none() && interim == 0 => return Err(reset(reused)),
                Seen::Came(_) => {
                    return Err(Failed::new(Outcome::Invalid, 502, Reason::UpstreamReset));
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
                match head.parse(chunk.bytes(), is_head, &HeadLimits::RESPONSE) {
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
                        self.interim(&head, chunk.bytes()).await;
                        chunk.advance(head.head_len);
                        if chunk.is_empty() {
                            break;
                        }
                    }
                    // RFC 9110 §15.2.2: no one asked for it.
                    Ok(Progress::Complete) if head.switching && !self.upgrades() => {
                        return Err(invalid());
                    }
                    Ok(Progress::Complete) => return Ok((head, chunk)),
                }
            }
        }
    }

    async fn http2_head(
        &self,
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
                Seen::Came(Err(fault)) if interim == 0 => {
                    return Err(failed(fault, stream, reused));
                }
                Seen::Came(Err(_)) => {
                    return Err(Failed::new(Outcome::Invalid, 502, Reason::UpstreamReset));
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
            let mut head = self.errand.shard.take_response_head();
            let is_head = self.errand.is_head;
            let read = head.read_http2(&block.bytes, &block.fields, is_head, end);
            if read.is_err() {
                return Err(invalid());
            }
            if head.is_interim() {
                interim += 1;
                if interim > limits::INTERIM_ANSWERS {
                    return Err(invalid());
                }
                self.interim(&head, &block.bytes).await;
                stream.mux().recycle(block);
                continue;
            }
            return Ok((head, Chunk::from_vec(block.bytes)));
        }
    }

    async fn interim(&self, head: &ResponseHead, bytes: &[u8]) {
        if !self.beside {
            relay::interim(self.errand.responder, head, bytes).await;
        }
    }

    fn upgrades(&self) -> bool {
        self.errand.request.borrow().upgrade.is_some()
    }

    fn note_first_byte(&self, sent_us: u64) {
        let notes = &mut self.errand.request.borrow_mut().notes;
        if notes.first_byte_us == 0 {
            let first_us = self.errand.shard.io.clock().now_us() - sent_us;
            notes.first_byte_us = u32::try_from(first_us).unwrap_or(u32::MAX);
        }
    }

    /// The earlier of `at_ms` and all that bounds this try.
    fn soonest(&self, at_ms: u64) -> u64 {
        soonest(at_ms, soonest(self.try_ms, self.errand.deadline_ms))
    }

    /// The deadline of the first byte counts from the end of the request.
    fn expect_answer(&self, uploading: bool) {
        let now_ms = self.errand.shard.io.clock().now_ms();
        let first_ms = match uploading && self.errand.request.borrow().grpc.is_some() {
            // A call that streams its requests may be answered when they are all there.
            true => 0,
            false => now_ms + u64::from(self.errand.timeouts.first_byte_ms),
        };
        self.watch.set_at(self.soonest(first_ms));
    }

    /// Waits for `came`, the upload going on beside it.
    async fn see<T>(
        &self,
        upload: &mut Option<Upload>,
        stream: Option<&MuxStream>,
        mut came: impl FnMut(&mut std::task::Context<'_>) -> Poll<T>,
    ) -> Result<Seen<T>, Failed> {
        let down = &self.errand.responder.down;
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
        self.watch.bound(next).await.map_err(|_| self.late(stream))
    }

    /// A wait took too long.
    fn late(&self, stream: Option<&MuxStream>) -> Failed {
        let now_ms = self.errand.shard.io.clock().now_ms();
        if passed(self.errand.patience_ms, now_ms) {
            return Failed::new(Outcome::ClientDeadline, 504, Reason::DeadlineExceeded);
        }
        if let Some(stream) = stream {
            stream.mux().suspect();
        }
        if passed(self.errand.deadline_ms, now_ms) {
            Failed::new(Outcome::Timeout, 504, Reason::TotalTimeout)
        } else if passed(self.try_ms, now_ms) {
            Failed::new(Outcome::TryTimeout, 504, Reason::TryTimeout)
        } else {
            Failed::new(Outcome::Timeout, 504, Reason::FirstByteTimeout)
        }
    }

    fn uploaded(&self, upload: &mut Option<Upload>, end: UploadEnd) -> Result<(), Failed> {
        if let Some(upload) = upload.take() {
            self.errand.request.borrow_mut().notes.request_bytes = upload.bytes();
        }
        match end {
            // An upstream that stops reading may still have answered (RFC 9112 §9.3: 413 …).
            UploadEnd::Done | UploadEnd::UpstreamGone => {
                self.expect_answer(false);
                Ok(())
            }
            UploadEnd::ClientGone => Err(client_gone()),
            UploadEnd::Refused(reply) => Err(Failed { outcome: Outcome::Ours, reply }),
        }
    }
}

fn passed(at_ms: u64, now_ms: u64) -> bool {
    at_ms != 0 && now_ms >= at_ms
}

fn invalid() -> Failed {
    Failed::new(Outcome::Invalid, 502, Reason::UpstreamInvalid)
}

fn reset(reused: bool) -> Failed {
    Failed::new(Outcome::Reset { reused }, 502, Reason::UpstreamReset)
}

fn refused(leaving: bool) -> Failed {
    Failed::new(Outcome::Refused { leaving }, 502, Reason::UpstreamReset)
}

fn failed(fault: StreamFault, stream: &MuxStream, reused: bool) -> Failed {
    let stale = reused && stream.is_unheard();
    match Outcome::of_fault(fault, stream.mux().is_going_away(), stale) {
        Outcome::Invalid => invalid(),
        outcome => Failed::new(outcome, 502, Reason::UpstreamReset),
    }
}
