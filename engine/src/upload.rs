//! The request's body on its way to the upstream, beside whatever the exchange waits for.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use contract::record::Reason;
use contract::snapshot::ListenerLimits;

use crate::channel::{Piece, Sink, Source, SourceFault};
use crate::exchange::Responder;
use crate::grpc_web::{Base64, NotBase64};
use crate::io::{Chunk, Elapsed, Io, Watch};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::shard::Shard;

/// How an upload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadEnd {
    /// The whole body is in the kernel's hands.
    Done,
    /// The upstream takes no more; it may have answered.
    UpstreamGone,
    /// The client went away or closed in the middle of its body.
    ClientGone,
    /// The body is malformed, too large or too slow.
    Refused(LocalReply),
}

/// A body in transit. A future of its end; must be polled beside the wait for the answer.
pub struct Upload {
    future: Pin<Box<dyn Future<Output = UploadEnd>>>,
    bytes: Rc<Cell<u64>>,
}

impl Upload {
    /// Moves the body from `source` to `sink`; bytes behind the body go back to the client's
    /// connection, where the next request is read. `judged`: it must keep up the listener's rate.
    /// `text`: it is base64 and goes on decoded.
    pub fn new(
        shard: &Shard,
        responder: &Responder,
        source: Source,
        sink: Sink,
        max_bytes: u64,
        judged: bool,
        text: Option<Base64>,
    ) -> Upload {
        let bytes = Rc::new(Cell::new(0));
        let run = Run {
            io: shard.io.clone(),
            source,
            sink,
            watch: shard.io.watch(),
            limits: responder.limits,
            max_bytes,
            judged,
            text,
            bytes: bytes.clone(),
        };
        Upload { future: Box::pin(run.run()), bytes }
    }

    /// Body bytes sent so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

impl Future for Upload {
    type Output = UploadEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<UploadEnd> {
        self.future.as_mut().poll(cx)
    }
}

struct Run {
    io: Io,
    source: Source,
    sink: Sink,
    watch: Watch,
    limits: ListenerLimits,
    max_bytes: u64,
    /// A slow body is refused. Not that of a gRPC call, which may be a conversation with pauses.
    judged: bool,
    text: Option<Base64>,
    bytes: Rc<Cell<u64>>,
}

impl Run {
    async fn run(mut self) -> UploadEnd {
        self.source.set_bulk(true);
        let end = self.transfer().await;
        self.source.set_bulk(false);
        end
    }

    async fn transfer(&mut self) -> UploadEnd {
        let mut rate = Rate::new(&self.io, self.limits.min_body_rate);
        loop {
            let piece = match self.receive(&mut rate).await {
                Ok(piece) => piece,
                Err(end) => return end,
            };
            let len = piece.data.as_ref().map_or(0, Chunk::len);
            rate.progress(len);
            self.bytes.set(self.bytes.get() + len as u64);
            // A chunk's size counts when it is announced: there is no need to wait for the bytes.
            if self.bytes.get().saturating_add(self.source.announced()) > self.max_bytes {
                return UploadEnd::Refused(LocalReply::closing(413, Reason::BodyTooLarge));
            }
            let Ok(piece) = self.decode(piece) else {
                return UploadEnd::Refused(LocalReply::closing(400, Reason::BadRequest));
            };
            if piece.data.is_some() || piece.end {
                let end = piece.end.then(|| self.source.trailers());
                let head = self.io.take_vec();
                match self.sink.start(&self.io, head, piece.data, end) {
                    Ok(None) => {}
                    Ok(Some(unsent)) => {
                        self.watch.set_in(u64::from(self.limits.write_timeout_ms));
                        match self.watch.bound(self.sink.finish(unsent)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(_)) | Err(Elapsed) => return UploadEnd::UpstreamGone,
                        }
                    }
                    Err(_) => return UploadEnd::UpstreamGone,
                }
                // Time that the upstream took is not the client's slowness.
                rate.restart(&self.io);
            }
            if piece.end {
                self.source.unread();
                return UploadEnd::Done;
            }
        }
    }

    fn decode(&mut self, piece: Piece) -> Result<Piece, NotBase64> {
        let Some(text) = &mut self.text else { return Ok(piece) };
        let mut out = Vec::new();
        if let Some(data) = &piece.data {
            text.decode(data.bytes(), &mut out)?;
        }
        if piece.end {
            text.finish()?;
        }
        let data = (!out.is_empty()).then(|| Chunk::copy_of(&out));
        Ok(Piece { data, end: piece.end })
    }

    async fn receive(&mut self, rate: &mut Rate) -> Result<Piece, UploadEnd> {
        loop {
            self.watch.set_at(rate.deadline_ms);
            let source = &mut self.source;
            match self.watch.bound(poll_fn(|cx| source.poll_piece(cx))).await {
                Ok(Ok(piece)) => return Ok(piece),
                Ok(Err(SourceFault::Malformed(error))) => {
                    return Err(UploadEnd::Refused(LocalReply::from(error.refusal())));
                }
                // B-43: cut off; the upstream's request is aborted, never completed.
                Ok(Err(SourceFault::Gone)) => return Err(UploadEnd::ClientGone),
                Err(Elapsed) if rate.suffices() => rate.restart(&self.io),
                Err(Elapsed) if !self.judged => rate.restart(&self.io),
                Err(Elapsed) => {
                    let reply = LocalReply::closing(408, Reason::BodyTimeout);
                    return Err(UploadEnd::Refused(reply));
                }
            }
        }
    }
}

/// Judges the rate of a body over windows of [`limits::BODY_RATE_WINDOW_MS`].
struct Rate {
    min_per_s: u32,
    bytes: u64,
    deadline_ms: u64,
}

impl Rate {
    fn new(io: &Io, min_per_s: u32) -> Rate {
        let mut rate = Rate { min_per_s, bytes: 0, deadline_ms: 0 };
        rate.restart(io);
        rate
    }

    fn restart(&mut self, io: &Io) {
        // An honest sender of small pieces keeps its window; one that filled it gets a new one.
        if self.deadline_ms == 0 || self.suffices() {
            self.bytes = 0;
            self.deadline_ms = io.clock().now_ms() + limits::BODY_RATE_WINDOW_MS;
        }
    }

    fn progress(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn suffices(&self) -> bool {
        self.bytes * 1000 >= u64::from(self.min_per_s) * limits::BODY_RATE_WINDOW_MS
    }
}
