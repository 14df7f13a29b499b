//! One HTTP/1 client connection: heads in, exchanges to the pipeline, one after the other
//! (RFC 9112 §9.3).

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use contract::Counter;
use contract::record::Reason;
use contract::snapshot::UnderscoreFields;

use crate::exchange::{Ended, Next, Request, Responder};
use crate::io::{Chunk, Elapsed, Stream, Watch};
use crate::limits;
use crate::local_reply::{LocalReply, ReplyHead};
use crate::message::{HeadLimits, MAX_FIELDS, Name, Progress, Refusal, RequestHead, Version};
use crate::observe::{End, Notes};
use crate::pipeline;
use crate::plan::Listener;
use crate::proxy_protocol::{self, Header};
use crate::rewrite::{Client, RequestId};
use crate::shard::{Shard, ShardPlan};

/// Serves a connection to its end.
pub async fn serve(shard: Rc<Shard>, stream: Stream, peer: SocketAddr, listener: SocketAddr) {
    let _ticket = poll_fn(|cx| Poll::Ready(shard.enter(cx.waker().clone()))).await;
    let connection = Connection {
        watch: Rc::new(shard.io.watch()),
        stream: Rc::new(stream),
        shard,
        peer,
        client: peer,
        listener,
        served: 0,
    };
    connection.run().await;
}

struct Connection {
    shard: Rc<Shard>,
    stream: Rc<Stream>,
    watch: Rc<Watch>,
    /// The other end of the socket.
    peer: SocketAddr,
    /// Whom the PROXY protocol named, else the peer.
    client: SocketAddr,
    listener: SocketAddr,
    served: u32,
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
        if self.read_proxy_header().await.is_err() {
            return;
        }
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

    fn listener<'a>(&self, plan: &'a ShardPlan) -> Option<&'a Listener> {
        plan.plan.listeners.iter().find(|listener| listener.address == self.listener)
    }

    /// Reads the PROXY header of a peer that must send one.
    async fn read_proxy_header(&mut self) -> Result<(), ()> {
        let plan = self.shard.plan();
        let Some(listener) = self.listener(&plan) else { return Err(()) };
        if !listener.expects_proxy_protocol(self.peer.ip()) {
            return Ok(());
        }
        self.watch.set_in(u64::from(listener.limits.header_timeout_ms));
        let mut bytes = Vec::new();
        loop {
            let Ok(Ok(Some(chunk))) = self.watch.bound(self.stream.recv()).await else {
                return Err(());
            };
            bytes.extend_from_slice(chunk.bytes());
            match proxy_protocol::parse(&bytes) {
                Ok(Header::Partial) if bytes.len() < limits::PROXY_HEADER => {}
                Ok(Header::Complete { len, client }) => {
                    self.client = client.unwrap_or(self.peer);
                    bytes.drain(..len);
                    self.stream.unrecv(Chunk::from_vec(bytes));
                    return Ok(());
                }
                _ => return Err(()),
            }
        }
    }

    /// Waits for the next request and reads its head.
    async fn read(&self) -> Read {
        let plan = self.shard.plan();
        let Some(listener) = self.listener(&plan) else { return Read::Ended };
        let limits = listener.limits;
        let head_limits = HeadLimits {
            max_head: limits.max_head_bytes as usize,
            max_line: limits::REQUEST_LINE.min(limits.max_head_bytes as usize),
            max_fields: usize::from(limits.max_fields).min(MAX_FIELDS),
            max_name: limits::FIELD_NAME,
            drop_underscore: listener.underscore_fields == UnderscoreFields::Drop,
        };
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
        let all = bytes.bytes();
        let client = Client {
            address: self.client,
            trusted: listener.trusts(self.client.ip()),
            forwarded: listener.forwarded,
        };
        let method = head.method(all);
        let parts = [
            method,
            head.site.map_or(&[], |site| site.whole.of(all)),
            head.path(all),
            head.value(all, Name::UserAgent).unwrap_or_default(),
        ];
        let notes = Notes::new(started_us, head.version, self.shard.io.take_vec(), parts);
        let id = head
            .value(all, Name::XRequestId)
            .and_then(RequestId::from_client)
            .unwrap_or_else(|| self.shard.new_request_id());
        let responder = Responder {
            stream: self.stream.clone(),
            watch: self.watch.clone(),
            limits,
            is_head: method == b"HEAD",
            version: head.version,
            keep_alive: head.keep_alive && self.served < limits.max_requests,
            peer: self.client,
        };
        let mut request = Request {
            plan,
            head,
            bytes: Some(bytes),
            normal_path: None,
            refused,
            client,
            id,
            notes,
        };
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
        };
        reply.write(&mut out, &head);
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

/// Counts a connection that was accepted, or turned away at its listener's bound.
pub fn admit(shard: &Shard, listener: SocketAddr) -> bool {
    shard.meter.count(Counter::Accepted, 1);
    let plan = shard.plan();
    let bound = plan.plan.listeners.iter().find(|l| l.address == listener);
    let admitted = bound.is_some_and(|l| shard.connections() < l.limits.max_connections);
    if !admitted {
        shard.meter.count(Counter::Refused, 1);
        shard.meter.closed();
    }
    admitted
}
