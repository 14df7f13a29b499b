//! Connections to one target, of one shard: idle ones of HTTP/1 that are used again, and those of
//! HTTP/2 that many requests share.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Poll, Waker};

use contract::snapshot::{self, Alpn, Protocol};

use super::shared;
use crate::io::{Elapsed, Io, Watch, connect};
use crate::limits;
use crate::mux::Mux;
use crate::plan::{Target, Upstream};
use crate::tls::{self, ClientSide, HandshakeFailed, TlsFacts};
use crate::transport::Transport;

/// The connections of one shard to one target of one upstream.
pub struct Pool {
    address: SocketAddr,
    /// What the spec calls the target; TLS asks for its host unless the upstream says otherwise.
    name: Box<str>,
    protocol: Protocol,
    tls: Option<Arc<ClientSide>>,
    settings: Cell<snapshot::Pool>,
    /// How many may wait for a connection, of the node.
    queue: RefCell<Option<Queue>>,
    /// Most recently used last: those are reused first, so that the rest can age out.
    idle: RefCell<Vec<Idle>>,
    /// Connections of HTTP/2 that take, or will take again, new streams; by number.
    shared: RefCell<Vec<(u64, Rc<Mux>)>>,
    /// How many of those there have been.
    numbered: Cell<u64>,
    /// A connection is being opened that others may share: they wait for it.
    opening: Cell<bool>,
    /// What ALPN agreed on last, where that is open.
    agreed: Cell<Option<Alpn>>,
    /// Idle and leased connections, and connects under way.
    open: Cell<u32>,
    waiters: RefCell<VecDeque<Waiter>>,
}

/// Who waits for a connection on the node: at this target, and at the upstream.
#[derive(Clone)]
pub(crate) struct Queue {
    pub target: (Arc<AtomicU32>, u32),
    pub upstream: (Arc<AtomicU32>, u32),
}

impl Queue {
    /// A place among those who wait, where there is one.
    fn join(&self) -> Option<Queued> {
        let enter = |(waiting, most): &(Arc<AtomicU32>, u32)| {
            let before = waiting.fetch_add(1, Ordering::AcqRel);
            // Counted first: what two shards ask for at once, one of them gets.
            let full = *most > 0 && before >= *most;
            if full {
                waiting.fetch_sub(1, Ordering::AcqRel);
            }
            !full
        };
        if !enter(&self.target) {
            return None;
        }
        if !enter(&self.upstream) {
            self.target.0.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Queued { waiting: [self.target.0.clone(), self.upstream.0.clone()] })
    }
}

/// Counted among those who wait, until this is dropped.
struct Queued {
    waiting: [Arc<AtomicU32>; 2],
}

impl Drop for Queued {
    fn drop(&mut self) {
        for waiting in &self.waiting {
            waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// A request that waits for a place.
struct Waiter {
    waker: Waker,
    turn: Rc<Cell<Wait>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wait {
    #[default]
    Waiting,
    /// A place became free and it was this waiter's turn.
    Called,
    /// It took a place, or gave up.
    Over,
}

struct Idle {
    stream: Rc<Transport>,
    since_ms: u64,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum NoLease {
    Failed(io::Error),
    /// There is one, but nothing to trust on it.
    Handshake(HandshakeFailed),
    /// The connect time-out passed.
    Timeout,
    /// The pool stayed full until the connect time-out, or its queue is full.
    Exhausted,
}

/// What an exchange has of an upstream.
pub enum Lease {
    Http1(Connection),
    Http2(Share),
}

impl Lease {
    /// What the handshake of its connection has settled.
    pub fn tls(&self) -> Option<&TlsFacts> {
        match self {
            Lease::Http1(connection) => connection.stream.tls(),
            Lease::Http2(share) => share.mux.transport.tls(),
        }
    }

    /// It has carried an exchange before, so its peer may have closed it without our knowing.
    pub fn reused(&self) -> bool {
        match self {
            Lease::Http1(connection) => connection.reused,
            Lease::Http2(share) => share.reused,
        }
    }
}

/// The right to open a stream, to be used at once.
pub struct Share {
    pub mux: Rc<Mux>,
    pub reused: bool,
}

impl Pool {
    pub fn new(upstream: &Upstream, target: &Target) -> Rc<Pool> {
        Rc::new(Pool {
            address: target.address,
            name: target.name.clone(),
            protocol: upstream.protocol,
            tls: upstream.tls.clone(),
            settings: Cell::new(upstream.pool),
            queue: RefCell::default(),
            idle: RefCell::default(),
            shared: RefCell::default(),
            numbered: Cell::new(0),
            opening: Cell::new(false),
            agreed: Cell::new(None),
            open: Cell::new(0),
            waiters: RefCell::default(),
        })
    }

    pub fn configure(&self, settings: snapshot::Pool) {
        self.settings.set(settings);
    }

    /// Bounds who waits for a connection.
    pub(crate) fn bound_queue(&self, queue: Option<Queue>) {
        self.queue.replace(queue);
    }

    /// Whether connections made for `upstream` and `target` would be like this pool's: with
    /// another identity, trust or protocol, none of them may be reused.
    pub fn suits(&self, upstream: &Upstream, target: &Target) -> bool {
        let same_tls = match (&self.tls, &upstream.tls) {
            (None, None) => true,
            (Some(own), Some(theirs)) => Arc::ptr_eq(own, theirs),
            _ => false,
        };
        same_tls && self.protocol == upstream.protocol && self.name == target.name
    }

    /// A connection that is still good, if there is one. Never waits.
    #[inline]
    pub fn reuse(self: &Rc<Self>, now_ms: u64) -> Option<Lease> {
        if let Some(share) = self.share(0) {
            return Some(Lease::Http2(share));
        }
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            let place = Place { pool: self.clone() };
            let connection = Connection { place, stream: idle.stream, reused: true };
            // Bytes that no one asked for, or an end: never reuse it (CVE-2025-4366's class).
            let too_old = now_ms.saturating_sub(idle.since_ms)
                >= u64::from(self.settings.get().idle_timeout_ms);
            if !too_old && !connection.stream.has_input() {
                return Some(Lease::Http1(connection));
            }
        }
    }

    /// A stream on a shared connection that was opened after so many others.
    #[inline]
    fn share(&self, after: u64) -> Option<Share> {
        if self.protocol == Protocol::Http1 {
            return None;
        }
        let shared = self.shared.borrow();
        let mut newer = shared.iter().filter(|(number, _)| *number > after);
        let (_, mux) = newer.find(|(_, mux)| mux.available() > 0)?;
        Some(Share { mux: mux.clone(), reused: true })
    }

    /// A new connection, or one that becomes free while waiting for a place. `watch` carries the
    /// connect deadline. With `fresh`, a connection that is opened from now on.
    pub async fn lease(
        self: &Rc<Self>,
        io: &Io,
        watch: &Watch,
        fresh: bool,
    ) -> Result<Lease, NoLease> {
        let Ok(turn) = watch.bound(self.place(io, fresh)).await else {
            return Err(if self.opening.get() { NoLease::Timeout } else { NoLease::Exhausted });
        };
        let (place, opening) = match turn? {
            Turn::Reused(lease) => return Ok(lease),
            Turn::Place(place, opening) => (place, opening),
        };
        let stream = match watch.bound(connect(io, self.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(NoLease::Failed(error)),
            Err(Elapsed) => return Err(NoLease::Timeout),
        };
        let transport = match &self.tls {
            None => Transport::Plain(stream),
            Some(client) => match tls::connect(io, stream, client, &self.name, watch).await {
                Ok(stream) => Transport::Tls(Box::new(stream)),
                Err(failed) if failed.cause == tls::Cause::Timeout => return Err(NoLease::Timeout),
                Err(failed) => return Err(NoLease::Handshake(failed)),
            },
        };
        if self.speaks_http2(&transport) {
            let mux = shared::start(self, io, transport, place);
            let number = self.numbered.get() + 1;
            self.numbered.set(number);
            self.shared.borrow_mut().push((number, mux.clone()));
            drop(opening);
            // Those who waited for the connection share it.
            self.call(mux.available() as usize);
            return Ok(Lease::Http2(Share { mux, reused: false }));
        }
        drop(opening);
        Ok(Lease::Http1(Connection { place, stream: Rc::new(transport), reused: false }))
    }

    fn speaks_http2(&self, transport: &Transport) -> bool {
        match (self.protocol, transport.tls()) {
            (Protocol::Http1, _) => false,
            (Protocol::Http2, _) => true,
            (Protocol::Auto, facts) => {
                let agreed = facts.and_then(|facts| facts.alpn).unwrap_or(Alpn::Http11);
                self.agreed.set(Some(agreed));
                agreed == Alpn::H2
            }
        }
    }

    /// Whether a connection under way will be one to share, as far as is known.
    fn expects_to_share(&self) -> bool {
        match self.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => self.agreed.get() != Some(Alpn::Http11),
        }
    }

    async fn place(self: &Rc<Self>, io: &Io, fresh: bool) -> Result<Turn, NoLease> {
        let turn = Turned { pool: self, turn: Rc::default(), queued: RefCell::default() };
        let before = self.numbered.get();
        poll_fn(|cx| {
            // Many streams may have lost their connection at once: one fresh one is for all of them.
            if fresh && let Some(share) = self.share(before) {
                return Poll::Ready(Ok(Turn::Reused(Lease::Http2(share))));
            }
            // A full pool closes an idle connection to make room for a fresh one.
            let full = self.open.get() >= self.settings.get().max_connections;
            if (!fresh || full)
                && let Some(lease) = self.reuse(io.clock().now_ms())
                && (!fresh || matches!(lease, Lease::Http2(_)))
            {
                return Poll::Ready(Ok(Turn::Reused(lease)));
            }
            let shares = self.expects_to_share();
            let wait = shares && self.opening.get();
            if !wait && self.open.get() < self.settings.get().max_connections {
                self.open.set(self.open.get() + 1);
                let opening = shares.then(|| {
                    self.opening.set(true);
                    Opening { pool: self.clone() }
                });
                return Poll::Ready(Ok(Turn::Place(Place { pool: self.clone() }, opening)));
            }
            let mut waiters = self.waiters.borrow_mut();
            if waiters.len() >= limits::POOL_WAITERS {
                return Poll::Ready(Err(NoLease::Exhausted));
            }
            if turn.queued.borrow().is_none()
                && let Some(queue) = &*self.queue.borrow()
            {
                let Some(queued) = queue.join() else {
                    return Poll::Ready(Err(NoLease::Exhausted));
                };
                turn.queued.replace(Some(queued));
            }
            turn.turn.set(Wait::Waiting);
            waiters.push_back(Waiter { waker: cx.waker().clone(), turn: turn.turn.clone() });
            Poll::Pending
        })
        .await
    }

    /// Calls the next one who waits, if anyone does.
    pub(super) fn freed(&self) {
        loop {
            let Some(waiter) = self.waiters.borrow_mut().pop_front() else { return };
            // One that gave up has no use for the place.
            if waiter.turn.get() == Wait::Waiting {
                waiter.turn.set(Wait::Called);
                return waiter.waker.wake();
            }
        }
    }

    /// Whether there is anything for one more who waits.
    fn has_room(&self) -> bool {
        self.open.get() < self.settings.get().max_connections
            || !self.idle.borrow().is_empty()
            || self.share(0).is_some()
    }

    fn call(&self, count: usize) {
        let waiting = self.waiters.borrow().len();
        (0..count.min(waiting)).for_each(|_| self.freed());
    }

    /// A shared connection is over, or takes no more streams.
    pub(super) fn forget(&self, mux: &Rc<Mux>) {
        self.shared.borrow_mut().retain(|(_, one)| !Rc::ptr_eq(one, mux));
    }

    pub(super) fn idle_timeout_ms(&self) -> u64 {
        u64::from(self.settings.get().idle_timeout_ms)
    }

    /// Closes idle connections that are too old, that their peers closed, or that are too many.
    pub fn sweep(&self, now_ms: u64) {
        let settings = self.settings.get();
        let keep = |idle: &Idle| {
            now_ms.saturating_sub(idle.since_ms) < u64::from(settings.idle_timeout_ms)
                && !idle.stream.has_input()
        };
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(keep);
        let closed = (before - idle.len()) as u32;
        drop(idle);
        self.open.set(self.open.get() - closed);
    }

    /// Closes all idle connections: the target is gone from the plan.
    pub fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        self.open.set(self.open.get() - idle.len() as u32);
        let shared = std::mem::take(&mut *self.shared.borrow_mut());
        shared.iter().for_each(|(_, mux)| mux.shut_down());
    }
}

/// A waiter's end: when it was called and leaves without a look, the next one is called.
struct Turned<'a> {
    pool: &'a Pool,
    turn: Rc<Cell<Wait>>,
    /// Its place among those who wait on the node, where that is bounded.
    queued: RefCell<Option<Queued>>,
}

impl Drop for Turned<'_> {
    fn drop(&mut self) {
        let pool = self.pool;
        let called = self.turn.replace(Wait::Over) == Wait::Called;
        if called && pool.has_room() {
            pool.freed();
        }
    }
}

enum Turn {
    Reused(Lease),
    Place(Place, Option<Opening>),
}

/// One who opens a connection for all. Gone without one, the next opens it.
struct Opening {
    pool: Rc<Pool>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.pool.opening.set(false);
        self.pool.freed();
    }
}

/// One of the pool's `max_connections`, before it has a connection.
pub struct Place {
    pool: Rc<Pool>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.open.set(self.pool.open.get() - 1);
        self.pool.freed();
    }
}

/// A connection in use by one exchange. Dropped, it closes; [`Connection::give_back`] keeps it.
pub struct Connection {
    place: Place,
    pub stream: Rc<Transport>,
    /// It has carried an exchange before, so its peer may have closed it without our knowing.
    pub reused: bool,
}

impl Connection {
    /// Keeps the connection for another exchange. Only after a cleanly ended message.
    pub fn give_back(self, now_ms: u64) {
        let pool = &self.place.pool;
        if !self.stream.has_input() && !self.stream.is_sending() {
            let mut idle = pool.idle.borrow_mut();
            if (idle.len() as u32) < pool.settings.get().max_idle {
                self.stream.set_bulk(false);
                self.stream.keep_watch();
                idle.push(Idle { stream: self.stream.clone(), since_ms: now_ms });
                // The idle connection keeps the place that the drop below gives up.
                pool.open.set(pool.open.get() + 1);
            }
        }
        drop(self);
    }
}
