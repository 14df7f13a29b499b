//! Client connections: what stands before HTTP on them, and which HTTP it is.

pub mod http1;
pub mod http2;
mod secured;
pub mod tunnel;
pub mod websocket;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use contract::Counter;
use contract::snapshot::{Alpn, UnderscoreFields};

pub use self::secured::Secured;
use crate::io::{Chunk, Stream, Watch};
use crate::limits;
use crate::message::{HeadLimits, MAX_FIELDS};
use crate::plan::Listener;
use crate::proxy_protocol::{self, Header};
use crate::rewrite::Client;
use crate::shard::{Shard, ShardPlan};
use crate::tls;
use crate::transport::Transport;

/// What begins every HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One client connection, before and below its HTTP.
pub struct Connection {
    shard: Rc<Shard>,
    watch: Rc<Watch>,
    /// The other end of the socket.
    peer: SocketAddr,
    /// Whom the PROXY protocol named, else the peer.
    client: SocketAddr,
    listener: SocketAddr,
    tls: Option<Rc<Secured>>,
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

/// Serves a connection to its end.
pub async fn serve(shard: Rc<Shard>, stream: Stream, peer: SocketAddr, listener: SocketAddr) {
    let _ticket = poll_fn(|cx| Poll::Ready(shard.enter(cx.waker().clone()))).await;
    let watch = Rc::new(shard.io.watch());
    let mut connection = Connection { shard, watch, peer, client: peer, listener, tls: None };
    if connection.read_proxy_header(&stream).await.is_err() {
        return;
    }
    // What comes before HTTP is boxed: it must not weigh on the connection for life.
    let Some((transport, speaks_http2)) = Box::pin(connection.begin(stream)).await else { return };
    if speaks_http2 {
        Box::pin(http2::serve(connection, transport)).await;
    } else {
        http1::serve(connection, transport).await;
    }
}

impl Connection {
    fn listener<'a>(&self, plan: &'a ShardPlan) -> Option<&'a Listener> {
        plan.plan.listeners.iter().find(|listener| listener.address == self.listener)
    }

    /// Reads the PROXY header of a peer that must send one.
    async fn read_proxy_header(&mut self, stream: &Stream) -> Result<(), ()> {
        let plan = self.shard.plan();
        let Some(listener) = self.listener(&plan) else { return Err(()) };
        if !listener.expects_proxy_protocol(self.peer.ip()) {
            return Ok(());
        }
        self.watch.set_in(u64::from(listener.limits.header_timeout_ms));
        let mut bytes = Vec::new();
        loop {
            let Ok(Ok(Some(chunk))) = self.watch.bound(stream.recv()).await else {
                return Err(());
            };
            bytes.extend_from_slice(chunk.bytes());
            match proxy_protocol::parse(&bytes) {
                Ok(Header::Partial) if bytes.len() < limits::PROXY_HEADER => {}
                Ok(Header::Complete { len, client }) => {
                    self.client = client.unwrap_or(self.peer);
                    bytes.drain(..len);
                    stream.unrecv(Chunk::from_vec(bytes));
                    return Ok(());
                }
                _ => return Err(()),
            }
        }
    }

    /// The handshake, where the listener has TLS, and whether HTTP/2 is spoken.
    async fn begin(&mut self, stream: Stream) -> Option<(Rc<Transport>, bool)> {
        let plan = self.shard.plan();
        let listener = self.listener(&plan)?;
        let (side, h2c, limits) = (listener.tls.clone(), listener.h2c, listener.limits);
        drop(plan);
        let Some(side) = side else {
            let transport = Transport::Plain(stream);
            let preface =
                h2c && self.begins_with_preface(&transport, limits.header_timeout_ms).await;
            return Some((Rc::new(transport), preface));
        };
        let meter = &self.shard.meter;
        self.watch.set_in(u64::from(side.handshake_timeout_ms()));
        let stream = match tls::accept(&self.shard.io, stream, &side, &self.watch).await {
            Ok(stream) => stream,
            Err(_) => {
                meter.count(Counter::TlsFailed, 1);
                return None;
            }
        };
        let facts = stream.facts();
        meter.count(Counter::TlsHandshakes, 1);
        meter.count(Counter::TlsResumed, u64::from(facts.resumed));
        meter.count(Counter::TlsEarlyData, u64::from(facts.took_early_data()));
        let speaks_http2 = facts.alpn == Some(Alpn::H2);
        self.tls = Some(Rc::new(Secured::new(side, facts)));
        Some((Rc::new(Transport::from(stream)), speaks_http2))
    }

    /// Looks at the first bytes of a clear-text connection and puts them back.
    async fn begins_with_preface(&self, transport: &Transport, timeout_ms: u32) -> bool {
        self.watch.set_in(u64::from(timeout_ms));
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            let received = poll_fn(|cx| match transport.poll_recv(cx) {
                // An unused connection ends with the drain; HTTP/1 knows how.
                Poll::Pending if self.shard.is_draining() => Poll::Ready(Ok(None)),
                other => other,
            });
            let Ok(Ok(Some(chunk))) = self.watch.bound(received).await else { break };
            if bytes.is_empty() && chunk.len() >= PREFACE.len() {
                let preface = chunk.bytes().starts_with(PREFACE);
                transport.unrecv(chunk);
                return preface;
            }
            bytes.extend_from_slice(chunk.bytes());
            let len = bytes.len().min(PREFACE.len());
            if bytes.get(..len) != PREFACE.get(..len) || len == PREFACE.len() {
                break;
            }
        }
        let preface = bytes.starts_with(PREFACE);
        transport.unrecv(Chunk::from_vec(bytes));
        preface
    }

    /// What the pipeline is told of the client of a request that is read now.
    fn describe(&self, listener: &Listener, transport: &Transport) -> Client {
        Client {
            address: self.client,
            listener: self.listener,
            trusted: listener.trusts(self.client.ip()),
            forwarded: listener.forwarded,
            tls: self.tls.clone(),
            early: transport.tls().is_some_and(|facts| facts.is_early()),
        }
    }
}

/// The bounds of a request's head on this listener.
fn head_limits(listener: &Listener) -> HeadLimits {
    let limits = &listener.limits;
    HeadLimits {
        max_head: limits.max_head_bytes as usize,
        max_line: limits::REQUEST_LINE.min(limits.max_head_bytes as usize),
        max_fields: usize::from(limits.max_fields).min(MAX_FIELDS),
        max_name: limits::FIELD_NAME,
        drop_underscore: listener.underscore_fields == UnderscoreFields::Drop,
    }
}
