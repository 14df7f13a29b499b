//! The request's body on its way to the upstream, beside whatever the exchange waits for.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use contract::record::Reason;
use contract::snapshot::ListenerLimits;

use crate::body::{self, BodyReader, BodyWriter};
use crate::exchange::Responder;
use crate::io::{Chunk, Elapsed, Io, Stream, Watch};
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
    /// Moves the body from the client to `upstream`. `rest` is what came with the head; bytes
    /// behind the body go back to the client's stream, where the next request is read.
    pub fn new(
        shard: &Shard,
        responder: &Responder,
        upstream: Rc<Stream>,
        reader: BodyReader,
        rest: Option<Chunk>,
        max_bytes: u64,
    ) -> Upload {
        let bytes = Rc::new(Cell::new(0));
        let run = Run {
            io: shard.io.clone(),
            client: responder.stream.clone(),
            upstream,
            watch: shard.io.watch(),
            limits: responder.limits,
            max_bytes,
            bytes: bytes.clone(),
        };
        Upload { future: Box::pin(run.run(reader, rest)), bytes }
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
    client: Rc<Stream>,
    upstream: Rc<Stream>,
    watch: Watch,
    limits: ListenerLimits,
    max_bytes: u64,
    bytes: Rc<Cell<u64>>,
}

impl Run {
    async fn run(self, mut reader: BodyReader, mut rest: Option<Chunk>) -> UploadEnd {
        let mut writer = match reader {
            BodyReader::Chunked(_) => BodyWriter::CHUNKED,
            _ => BodyWriter::Plain,
        };
        self.client.set_bulk(true);
        let mut rate = Rate::new(&self.io, self.limits.min_body_rate);
        let end = loop {
            let chunk = match rest.take() {
                Some(chunk) => chunk,
                None => match self.receive(&mut rate).await {
                    Ok(chunk) => chunk,
                    Err(end) => break end,
                },
            };
            rate.progress(&self.io, chunk.len());
            let taken = match reader.take(chunk) {
                Ok(taken) => taken,
                Err(error) => break UploadEnd::Refused(LocalReply::from(error.refusal())),
            };
            let len = taken.data.as_ref().map_or(0, Chunk::len);
            self.bytes.set(self.bytes.get() + len as u64);
            // A chunk's size counts when it is announced: there is no need to wait for the bytes.
            if self.bytes.get().saturating_add(reader.announced()) > self.max_bytes {
                break UploadEnd::Refused(LocalReply::closing(413, Reason::BodyTooLarge));
            }
            let mut head = self.io.take_vec();
            if len > 0 {
                writer.prefix(len, &mut head);
            }
            let mut tail = self.io.take_vec();
            if taken.done {
                writer.suffix(reader.trailers(), &mut tail);
            }
            if len > 0 || !tail.is_empty() {
                let buf = body::join(head, taken.data, &tail);
                self.watch.set_in(u64::from(self.limits.write_timeout_ms));
                match self.watch.bound(self.upstream.send(buf)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(Elapsed) => break UploadEnd::UpstreamGone,
                }
                // Time that the upstream took is not the client's slowness.
                rate.restart(&self.io);
            }
            self.io.give_vec(tail);
            if let Some(rest) = taken.rest {
                self.client.unrecv(rest);
            }
            if taken.done {
                break UploadEnd::Done;
            }
        };
        self.client.set_bulk(false);
        end
    }

    async fn receive(&self, rate: &mut Rate) -> Result<Chunk, UploadEnd> {
        loop {
            self.watch.set_at(rate.deadline_ms);
            match self.watch.bound(self.client.recv()).await {
                Ok(Ok(Some(chunk))) => return Ok(chunk),
                // B-43: cut off; the upstream's request is aborted, never completed.
                Ok(_) => return Err(UploadEnd::ClientGone),
                Err(Elapsed) if rate.suffices() => rate.restart(&self.io),
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

    fn progress(&mut self, _io: &Io, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn suffices(&self) -> bool {
        self.bytes * 1000 >= u64::from(self.min_per_s) * limits::BODY_RATE_WINDOW_MS
    }
}
