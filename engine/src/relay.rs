//! Answers on their way to the client: the upstream's, relayed as they come, and our own.

mod own;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use contract::record::Reason;

use own::drain_body;
pub use own::{interim, interim_continue, reply};

use crate::answer::{Answer, Carrier, Edit};
use crate::body::{BodyReader, BodyWriter};
use crate::cache::Fill;
use crate::channel::{Piece, Sink, Source, SourceFault, Unsent};
use crate::cors;
use crate::exchange::{Ended, Next, Request, Responder};
use crate::filter::{self, Filter, Part};
use crate::forward::soonest;
use crate::grpc::{self, Kind};
use crate::io::Chunk;
use crate::limit;
use crate::local_reply::LocalReply;
use crate::message::{BodyFraming, Dialect, HeadWriter, Name, ResponseHead, Version};
use crate::serve::tunnel;
use crate::shard::Shard;
use crate::upload::{Upload, UploadEnd};
use crate::upstream::Verdict;

/// Relays an upstream's answer to its end.
pub async fn relay(
    shard: &Shard,
    request: &mut Request,
    responder: Responder,
    answer: Answer,
) -> Ended {
    if answer.switched {
        // Boxed: rare, and large enough to weigh on every other connection.
        return Box::pin(tunnel::tunnel(shard, request, responder, answer)).await;
    }
    let mut answer = answer;
    let mut content_type = None;
    if let Some(call) = request.web.as_ref().filter(|call| call.translated) {
        let Some(mut web) = call.answering(&answer.head, answer.bytes.bytes()) else {
            let refusal = not_grpc(answer.head.status);
            if let Some(account) = &answer.account {
                account.settle(Verdict::Gateway, shard.io.clock().now_ms());
            }
            drop(answer);
            return Box::pin(reply(shard, request, responder, refusal)).await;
        };
        content_type = Some(std::mem::take(&mut web.content_type));
        answer.filters.insert(0, Filter::Web(Box::new(web)));
    }
    let Answer { carrier, account, head, mut bytes, upload, timeouts, deadline_ms, edit, .. } =
        answer;
    let (filters, fill, own_reason) = (answer.filters, answer.fill, answer.reason);
    let edit = edit.as_deref();
    let status = edit.and_then(|edit| edit.status).unwrap_or(head.status);
    let is_call = request.grpc.is_some();
    let told = if is_call { grpc::status_in_head(&head, bytes.bytes()) } else { None };
    let framing = Framed::of(&head, &responder, !filters.is_empty(), content_type);
    let mut relay = Relay {
        shard,
        responder: &responder,
        sink: responder.down.sink(framing.writer),
        upload,
        upload_failed: false,
        upload_broken: None,
        idle_ms: u64::from(timeouts.idle_ms),
        deadline_ms,
        call_ends: request.grpc == Some(Kind::Grpc) && responder.down.dialect() == Dialect::Http2,
        filters,
        fill,
        sent: 0,
    };
    // A body of unknown end needs the close to end it towards an old client; an upload that is
    // still going on after an early answer is not waited for (RFC 9112 §9.3), unless it is a
    // stream of its own.
    let mut keep = responder.keep_alive && !framing.close_ends && !shard.is_draining();
    // Of what nobody has asked for the connection has to be freed, or it ends.
    let unread = request.bytes.is_some() && request.feed.is_none();
    if unread && matches!(carrier, Carrier::Own(_)) {
        let drained = drain_body(request, &responder).await;
        keep &= drained || responder.down.dialect() == Dialect::Http2;
    }
    if relay.upload.is_some() {
        let over = relay.upload_is_over().await;
        keep &= over || responder.down.dialect() == Dialect::Http2;
    }
    let mut out = shard.io.take_vec();
    write_head(shard, request, &responder, &head, bytes.bytes(), edit, &framing, keep, &mut out);
    let reader = BodyReader::of_response(head.framing);
    // An HTTP/2 answer without body may still be told to end only by its last frame; gRPC-Web wants
    // to know what that is.
    let own = matches!(carrier, Carrier::Own(_));
    let waits = !relay.filters.is_empty() && matches!(carrier, Carrier::Http2(_));
    // Asked for with another method, whose answers have bodies.
    let unwanted = responder.is_head && head.framing != BodyFraming::None;
    let bodiless = unwanted || (reader.is_done() && !waits && !own);
    bytes.advance(head.head_len);
    let upstream_keeps = head.keep_alive;
    shard.give_response_head(head);
    let rest = Some(bytes).filter(|bytes| !bytes.is_empty());
    let mut source = carrier.source(reader, rest);
    let ended = relay.body(&mut source, bodiless, out).await;
    let upload_done = relay.upload.is_none() && !relay.upload_failed;
    let response_bytes = relay.sent;
    let verdict = match ended {
        // A call's status is in its trailers, or in a head that nothing follows.
        Ok(()) if is_call => match grpc::status_in_trailers(source.trailers()).or(told) {
            Some(code) => grpc::verdict(code, request.deadline_ms != 0),
            None => Verdict::Good,
        },
        _ => verdict(&ended),
    };
    if let Some(account) = account {
        account.settle(verdict, shard.io.clock().now_ms());
    }
    let (reason, next) = match ended {
        Ok(()) => {
            let cleanly = source.is_clean() && upstream_keeps && upload_done && !unwanted;
            carrier.release(cleanly, shard.io.clock().now_ms());
            (own_reason, if keep && upload_done { Next::Keep } else { Next::Linger })
        }
        Err(reason) => {
            // The client must not take what it has for the whole answer: with a length or chunks
            // the missing rest tells, an answer that the close ends needs a reset.
            if framing.close_ends || responder.down.dialect() == Dialect::Http2 {
                relay.sink.cut();
            }
            (reason, Next::Abort)
        }
    };
    drop(relay);
    responder.down.refuse_rest(next);
    let relayed_bytes = if own { 0 } else { response_bytes };
    Ended { status, reason, response_bytes, relayed_bytes, next }
}

/// What the end of an answer says of the upstream.
fn verdict(ended: &Result<(), Reason>) -> Verdict {
    match ended {
        Ok(()) => Verdict::Good,
        Err(Reason::UpstreamTruncated | Reason::UpstreamInvalid) => Verdict::Gateway,
        // The client went away, or was slow, or had no patience.
        Err(_) => Verdict::Nothing,
    }
}

/// What answered a call is no gRPC server: its status becomes the call's
/// (`http-grpc-status-mapping.md`).
fn not_grpc(status: u16) -> LocalReply {
    LocalReply::new(if status < 400 { 500 } else { status }, Reason::UpstreamInvalid)
}

/// How an answer's body goes to this client.
struct Framed {
    /// The answer is translated: in place of the upstream's.
    content_type: Option<Vec<u8>>,
    writer: BodyWriter,
    length: Option<u64>,
    chunked: bool,
    /// Only the close ends it.
    close_ends: bool,
}

impl Framed {
    fn of(
        head: &ResponseHead,
        responder: &Responder,
        filtered: bool,
        content_type: Option<Vec<u8>>,
    ) -> Framed {
        let plain = |length| Framed {
            content_type: None,
            writer: BodyWriter::Plain,
            length,
            chunked: false,
            close_ends: false,
        };
        let open = || match responder.version {
            Version::V20 => plain(None),
            Version::V10 => Framed { close_ends: true, ..plain(None) },
            Version::V11 => Framed { writer: BodyWriter::CHUNKED, chunked: true, ..plain(None) },
        };
        match head.framing {
            _ if responder.is_head => plain(None),
            // Where nothing can follow, nothing is changed.
            BodyFraming::None if content_type.is_none() => plain(None),
            _ if filtered => Framed { content_type, ..open() },
            BodyFraming::None => plain(None),
            // An answer that was whole in its head frame needs no length of ours.
            BodyFraming::Length(0) if head.version == Version::V20 => {
                plain(match responder.version {
                    Version::V20 => None,
                    _ => Some(0),
                })
            }
            BodyFraming::Length(length) => plain(Some(length)),
            _ => open(),
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
    edit: Option<&Edit>,
    framing: &Framed,
    keep: bool,
    out: &mut Vec<u8>,
) {
    let out = &mut HeadWriter::new(out, responder.down.dialect());
    match edit.and_then(|edit| edit.status) {
        Some(status) if status != head.status => out.status(status, b""),
        _ => out.status(head.status, head.reason.of(bytes)),
    }
    let mut dated = false;
    let route = request.notes.route.map(|index| request.plan.plan.route(index));
    let shaped = edit.zip(route.and_then(|route| route.shape.as_deref()));
    let shaped = shaped.map(|(edit, shape)| (&shape.response, edit));
    let own_cors = route.is_some_and(|route| route.cors.is_some());
    for field in &head.fields {
        if edit.is_some_and(|edit| edit.drops(field.name.of(bytes))) {
            continue;
        }
        if let Some((rules, edit)) = shaped
            && !rules.fields.pass(&edit.judged, field, bytes, None, out)
        {
            continue;
        }
        match field.id {
            Name::ContentType => {
                if let Some(translated) = &framing.content_type {
                    out.field(b"Content-Type", translated);
                    continue;
                }
            }
            // Without a body (HEAD, 304) the length says what a GET would have had.
            Name::ContentLength if head.framing == BodyFraming::None => {}
            Name::ContentLength | Name::XRequestId => continue,
            Name::Date => dated = true,
            Name::SetCookie => {
                if let Some((rules, edit)) = shaped {
                    if let Some(cookie) = rules.cookies.pass(field.value.of(bytes), &edit.cookies)
                        && field.forwarded()
                    {
                        out.field(b"Set-Cookie", &cookie);
                    }
                    continue;
                }
            }
            Name::Other if own_cors && cors::is_ours(field.name.of(bytes)) => continue,
            _ => {}
        }
        if field.forwarded() {
            out.field(field.name.of(bytes), field.value.of(bytes));
        }
    }
    if !dated {
        out.field(b"Date", &shard.date());
    }
    out.field_of(b"Via", |out| {
        let version: &[u8] = match head.version {
            Version::V10 => b"1.0 ",
            Version::V11 => b"1.1 ",
            Version::V20 => b"2.0 ",
        };
        out.extend_from_slice(version);
        out.extend_from_slice(request.plan.plan.node.via.as_bytes());
    });
    out.field(b"X-Request-Id", request.id.bytes());
    for (name, value) in &request.answer_fields {
        out.field(name.as_bytes(), value);
    }
    for (name, value) in edit.map_or(&[][..], |edit| &edit.fields) {
        out.field(name, value);
    }
    if let Some((rules, edit)) = shaped {
        rules.fields.finish(edit, None, out);
        for cookie in &edit.cookies {
            out.field(b"Set-Cookie", cookie);
        }
    }
    let (policies, shown) = limit::admit::shown(request);
    limit::fields::write(out, policies, shown);
    if let Some(length) = framing.length {
        out.field_decimal(b"Content-Length", length);
    } else if framing.chunked {
        out.field(b"Transfer-Encoding", b"chunked");
    }
    if out.dialect() == Dialect::Http1 {
        if !keep {
            out.field(b"Connection", b"close");
        } else if responder.version == Version::V10 {
            out.field(b"Connection", b"keep-alive");
        }
    }
    out.end();
}

struct Relay<'a> {
    shard: &'a Shard,
    responder: &'a Responder,
    sink: Sink,
    upload: Option<Upload>,
    upload_failed: bool,
    /// The client ended its body in the middle, or why it is not acceptable.
    upload_broken: Option<Reason>,
    idle_ms: u64,
    deadline_ms: u64,
    /// A gRPC call whose client understands a status behind a cut answer.
    call_ends: bool,
    /// What changes the body, in this order.
    filters: Vec<Filter>,
    /// What keeps the body as it comes.
    fill: Option<Box<Fill>>,
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
            self.upload_broken = match end {
                UploadEnd::Done | UploadEnd::UpstreamGone => None,
                UploadEnd::ClientGone => Some(Reason::ClientAborted),
                UploadEnd::Refused(reply) => Some(reply.reason),
            };
            self.upload = None;
        }
    }

    /// Awaits `future` within `ms` and the total deadline, the upload going on beside it, for as
    /// long as the client is there.
    async fn beside<T>(&mut self, ms: u64, future: impl Future<Output = T>) -> Result<T, Stop> {
        let watch = self.responder.watch.clone();
        watch.set_at(soonest(self.shard.io.clock().now_ms() + ms, self.deadline_ms));
        let mut future = pin!(future);
        let both = poll_fn(|cx| {
            self.poll_upload(cx);
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            // While a body is read, its reader sees a reset itself.
            let gone = match self.upload {
                Some(_) => false,
                None => {
                    self.upload_broken.is_some() || self.responder.down.poll_gone(cx).is_ready()
                }
            };
            if gone { Poll::Ready(Err(Stop::ClientGone)) } else { Poll::Pending }
        });
        watch.bound(both).await.unwrap_or(Err(Stop::Late))
    }

    /// Sends the head (`out`) and the body.
    async fn body(
        &mut self,
        source: &mut Source,
        bodiless: bool,
        mut out: Vec<u8>,
    ) -> Result<(), Reason> {
        if bodiless {
            return self.send(out, None, Some(&[])).await;
        }
        let mut bulk = false;
        loop {
            // A head does not wait for a body that is not there yet.
            let came = match out.is_empty() {
                false => now(source).await,
                true => Some(self.next(source).await?),
            };
            let piece = match came {
                Some(Ok(piece)) => piece,
                None => {
                    self.send(std::mem::take(&mut out), None, None).await?;
                    continue;
                }
                Some(Err(fault)) => {
                    self.flush_head(out).await?;
                    return Err(self
                        .broken(match fault {
                            SourceFault::Malformed(_) => Reason::UpstreamInvalid,
                            SourceFault::Gone => Reason::UpstreamTruncated,
                        })
                        .await);
                }
            };
            Fill::see(&mut self.fill, &piece);
            if let Some(data) = &piece.data {
                self.sent += data.len() as u64;
            }
            if piece.end {
                return self.send(out, piece.data, Some(source.trailers())).await;
            }
            if piece.data.is_some() || !out.is_empty() {
                self.send(std::mem::take(&mut out), piece.data, None).await?;
            }
            if !bulk && source.is_long() {
                bulk = true;
                source.set_bulk(true);
            }
        }
    }

    /// Waits for the next piece, or for the client to go away.
    async fn next(&mut self, source: &mut Source) -> Result<Result<Piece, SourceFault>, Reason> {
        match self.beside(self.idle_ms, poll_fn(|cx| source.poll_piece(cx))).await {
            Ok(seen) => Ok(seen),
            Err(Stop::ClientGone) => Err(self.upload_broken.unwrap_or(Reason::ClientAborted)),
            Err(Stop::Late) => {
                let reason = self.late().await;
                Err(self.broken(reason).await)
            }
        }
    }

    /// The upstream was silent, or the exchange as a whole took too long.
    async fn late(&mut self) -> Reason {
        let now_ms = self.shard.io.clock().now_ms();
        if self.deadline_ms == 0 || now_ms < self.deadline_ms {
            return Reason::UpstreamTruncated;
        }
        if self.call_ends && self.filters.is_empty() {
            let _ = self.send(Vec::new(), None, Some(filter::LATE)).await;
        }
        Reason::TotalTimeout
    }

    async fn flush_head_as_is(&mut self, out: Vec<u8>) -> Result<(), Reason> {
        if out.is_empty() { Ok(()) } else { self.start(out, None, None).await }
    }

    async fn flush_head(&mut self, out: Vec<u8>) -> Result<(), Reason> {
        if out.is_empty() { Ok(()) } else { self.send(out, None, None).await }
    }

    async fn send(
        &mut self,
        head: Vec<u8>,
        data: Option<Chunk>,
        end: Option<&[u8]>,
    ) -> Result<(), Reason> {
        if self.filters.is_empty() {
            return self.start(head, data, end).await;
        }
        let mut part = Part { data, end: end.map(<[u8]>::to_vec) };
        for filter in &mut self.filters {
            match filter.part(part) {
                Ok(changed) => part = changed,
                Err(_) => {
                    let fault = filter.fault();
                    self.flush_head_as_is(head).await?;
                    return Err(self.broken(fault).await);
                }
            }
        }
        if head.is_empty() && part.data.is_none() && part.end.is_none() {
            return Ok(());
        }
        self.start(head, part.data, part.end.as_deref()).await
    }

    /// The body breaks off. Where what changes it can say so, it ends after all.
    async fn broken(&mut self, reason: Reason) -> Reason {
        for at in 0..self.filters.len() {
            let Some(data) = self.filters.get_mut(at).and_then(|filter| filter.broken(reason))
            else {
                continue;
            };
            let mut part = Part { data: Some(data), end: Some(Vec::new()) };
            for filter in self.filters.iter_mut().skip(at + 1) {
                match filter.part(part) {
                    Ok(changed) => part = changed,
                    Err(_) => return reason,
                }
            }
            let _ = self.start(Vec::new(), part.data, Some(&[])).await;
            break;
        }
        reason
    }

    async fn start(
        &mut self,
        head: Vec<u8>,
        data: Option<Chunk>,
        end: Option<&[u8]>,
    ) -> Result<(), Reason> {
        // The common case: nothing outstanding, so nothing to wait for.
        match self.sink.start(&self.shard.io, head, data, end) {
            Ok(None) => Ok(()),
            Ok(Some(unsent)) => self.finish(unsent).await,
            Err(_) => Err(Reason::ClientAborted),
        }
    }

    async fn finish(&mut self, unsent: Unsent) -> Result<(), Reason> {
        let write_ms = u64::from(self.responder.limits.write_timeout_ms);
        let sink = self.responder.down.sink(BodyWriter::Plain);
        match self.beside(write_ms, sink.finish(unsent)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.upload_broken.unwrap_or(Reason::ClientAborted)),
        }
    }
}

/// Why a wait within an answer ends.
enum Stop {
    Late,
    ClientGone,
}

/// The piece that is there already, if one is.
async fn now(source: &mut Source) -> Option<Result<Piece, SourceFault>> {
    poll_fn(|cx| match source.poll_piece(cx) {
        Poll::Ready(piece) => Poll::Ready(Some(piece)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
