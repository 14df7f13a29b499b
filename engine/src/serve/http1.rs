//! One HTTP/1 client connection: heads in, exchanges to the pipeline, one after the other
//! (RFC 9112 §9.3).

use std::future::poll_fn;
use std::ops::Deref;
use std::rc::Rc;
use std::task::Poll;

use contract::record::Reason;

use super::head_limits;
use crate::exchange::{Downstream, Ended, Next, Request, Responder};
use crate::io::{Chunk, Elapsed};
use crate::limits;
use crate::local_reply::{LocalReply, ReplyHead};
use crate::message::{Dialect, Progress, Refusal, RequestHead, Version};
use crate::observe::{End, Notes};
use crate::pipeline;
use crate::shard::ShardPlan;
use crate::transport::Transport;

/// Serves a connection that speaks HTTP/1 to its end.
pub async fn serve(connection: super::Connection, stream: Rc<Transport>) {
    Connection { below: connection, stream, served: 0 }.run().await;
}

struct Connection {
    below: super::Connection,
    stream: Rc<Transport>,
    served: u32,
}

impl Deref for Connection {
    type Target = super::Connection;

    fn deref(&self) -> &super::Connection {
        &self.below
    }
}

/// What came instead of, or as, a request head.
enum Read {
    Head {
        head: Box<RequestHead>,
        bytes: Chunk,
        started_us: u64,
        refused: Option<LocalReply>,
    },
    /// Answer this and close.
    Refused {
        reply: LocalReply,
        started_us: u64,
        plan: Rc<ShardPlan>,
    },
    /// Nothing to answer: the client has ended, or never began.
    Ended,
}

impl Connection {
    async fn run(mut self) {
        loop {
            let next = match self.read().await {
                Read::Head { head, bytes, started_us, refused } => {
                    self.served += 1;
                    self.exchange(head, bytes, started_us, refused).await
                }
                Read::Refused { reply, started_us, plan } => {
                    self.refuse(&reply, started_us, &plan).await
                }
                Read::Ended => return,
            };
            match next {
                Next::Keep => {}
                Next::Linger => return self.linger().await,
                Next::Abort => return,
            }
        }
    }

    /// Waits for the next request and reads its head.
    async fn read(&self) -> Read {
        let plan = self.shard.plan();
        let Some(listener) = self.listener(&plan) else { return Read::Ended };
        let limits = listener.limits;
        let (head_limits, h2c) = (head_limits(listener), listener.h2c);
        drop(plan);
        let first_ms =
            if self.served == 0 { limits.header_timeout_ms } else { limits.idle_timeout_ms };
        let idle_ms =
            if self.stream.is_sending() { first_ms.min(limits.write_timeout_ms) } else { first_ms };
        self.watch.set_in(u64::from(idle_ms));
        let Some(mut chunk) = self.first_bytes().await else { return Read::Ended };
        let started_us = self.shard.io.clock().now_us();
        let mut head = self.shard.take_request_head();
        head.reset();
        let mut partial = false;
        loop {
            let parsed = head.parse(chunk.bytes(), &head_limits);
            match parsed {
                Ok(Progress::Complete) => {
                    return Read::Head { head, bytes: chunk, started_us, refused: None };
                }
                Ok(Progress::Partial) => {}
                Err(Refusal::ExpectationFailed) => {
                    let refused = Some(LocalReply::from(Refusal::ExpectationFailed));
                    return Read::Head { head, bytes: chunk, started_us, refused };
                }
                // Someone who knows that HTTP/2 is spoken here, and cannot speak it: an answer in
                // HTTP/1 would not be understood (RFC 9113 §3.4).
                Err(Refusal::NotHttp) if self.served == 0 && h2c => {
                    self.shard.give_request_head(head);
                    return Read::Ended;
                }
                Err(refusal) => {
                    self.shard.give_request_head(head);
                    let reply = LocalReply { close: true, ..LocalReply::from(refusal) };
                    return Read::Refused { reply, started_us, plan: self.shard.plan() };
                }
            }
            if !partial {
                partial = true;
                self.watch.set_in(u64::from(limits.header_timeout_ms));
            }
            // A half-read head waits in memory of its own size, not in a buffer of the ring.
            let mut bytes = chunk.bytes().to_vec();
            drop(chunk);
            match self.watch.bound(self.stream.recv()).await {
                Ok(Ok(Some(more))) => bytes.extend_from_slice(more.bytes()),
                Ok(_) => {
                    self.shard.give_request_head(head);
                    return Read::Ended;
                }
                Err(Elapsed) => {
                    self.shard.give_request_head(head);
                    let only_newlines = bytes.iter().all(|b| matches!(b, b'\r' | b'\n'));
                    if only_newlines {
                        return Read::Ended;
                    }
                    let reply = LocalReply::closing(408, Reason::HeaderTimeout);
                    return Read::Refused { reply, started_us, plan: self.shard.plan() };
                }
            }
            chunk = Chunk::from_vec(bytes);
        }
    }

    /// The first bytes of a request; `None` at the end, at the deadline, and when draining.
    async fn first_bytes(&self) -> Option<Chunk> {
        let received = poll_fn(|cx| {
            if let Poll::Ready(received) = self.stream.poll_recv(cx) {
                return Poll::Ready(received.ok().flatten());
            }
            if self.shard.is_draining() {
                if self.served > 0 {
                    return Poll::Ready(None);
                }
                // Accepted, so its first request is answered, if it comes soon.
                let now_ms = self.shard.io.clock().now_ms();
                let soon_ms = now_ms + limits::DRAIN_FIRST_MS;
                self.watch.set_at(self.watch.deadline_ms().min(soon_ms));
            }
            Poll::Pending
        });
        let chunk = self.watch.bound(received).await.ok().flatten();
        if chunk.is_none() {
            // A last answer may still be on its way.
            self.watch.set_in(limits::LINGER_MS);
            let _ = self.watch.bound(self.stream.flush()).await;
        }
        chunk
    }

    async fn exchange(
        &self,
        head: Box<RequestHead>,
        bytes: Chunk,
        started_us: u64,
        refused: Option<LocalReply>,
    ) -> Next {
        // The newest plan when its head is there is the request's plan to its end.
        let plan = self.shard.plan();
        let Some(listener) = self.listener(&plan) else { return Next::Abort };
        let limits = listener.limits;
        let client = self.describe(listener, &self.stream);
        let is_head = head.method(bytes.bytes()) == b"HEAD";
        let responder = Responder {
            down: Downstream::Http1(self.stream.clone()),
            watch: self.watch.clone(),
            limits,
            is_head,
            version: head.version,
            keep_alive: head.keep_alive && self.served < limits.max_requests,
            peer: self.client,
        };
        let mut request = Request::new(&self.shard, plan, head, bytes, client, started_us);
        request.refused = refused;
        let next = pipeline::handle(&self.shard, &mut request, responder).await;
        self.shard.give_request_head(request.head);
        self.shard.io.give_vec(request.notes.into_text());
        next
    }

    /// Answers what never became a request.
    async fn refuse(&self, reply: &LocalReply, started_us: u64, plan: &ShardPlan) -> Next {
        let id = self.shard.new_request_id();
        let mut out = self.shard.io.take_vec();
        let head = ReplyHead {
            date: &self.shard.date(),
            request_id: id.bytes(),
            close: true,
            with_body: true,
            fields: &[],
            grpc: None,
        };
        let body = reply.write(&mut out, Dialect::Http1, &head);
        out.extend_from_slice(&body);
        let ended = Ended {
            status: reply.status,
            reason: reply.reason,
            response_bytes: out.len() as u64,
            relayed_bytes: 0,
            next: Next::Linger,
        };
        let mut notes = Notes::new(started_us, Version::V11, self.shard.io.take_vec(), [&[]; 4]);
        notes.reason = ended.reason;
        let end = End {
            epoch: plan.plan.epoch,
            status: ended.status,
            response_bytes: ended.response_bytes,
            client: self.client,
            request_id: id.bytes(),
        };
        self.shard.meter.record(&notes.record(&self.shard.io, end));
        self.watch.set_in(limits::LINGER_MS);
        let sent = self.watch.bound(self.stream.send(crate::io::SendBuf::Vec(out))).await;
        if matches!(sent, Ok(Ok(()))) { ended.next } else { Next::Abort }
    }

    /// Ends our half and reads on for a moment: a close with unread input is a reset, which may
    /// overtake the answer (RFC 9112 §9.6).
    async fn linger(&self) {
        self.watch.set_in(limits::LINGER_MS);
        if !matches!(self.watch.bound(self.stream.flush()).await, Ok(Ok(()))) {
            return;
        }
        self.stream.shutdown_write();
        let mut discarded = 0;
        while discarded < limits::LINGER_BYTES {
            match self.watch.bound(self.stream.recv()).await {
                Ok(Ok(Some(chunk))) => discarded += chunk.len(),
                _ => return,
            }
        }
    }
}
