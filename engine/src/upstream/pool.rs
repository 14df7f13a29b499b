//! Keep-alive connections to one target, of one shard.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

use contract::snapshot;

use crate::io::{Elapsed, Io, Stream, Watch, connect};
use crate::limits;

/// The connections of one shard to one target of one upstream.
pub struct Pool {
    address: SocketAddr,
    settings: Cell<snapshot::Pool>,
    /// Most recently used last: those are reused first, so that the rest can age out.
    idle: RefCell<Vec<Idle>>,
    /// Idle and leased connections, and connects under way.
    open: Cell<u32>,
    waiters: RefCell<VecDeque<Waker>>,
}

struct Idle {
    stream: Rc<Stream>,
    since_ms: u64,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum NoLease {
    Failed(io::Error),
    /// The connect time-out passed.
    Timeout,
    /// The pool stayed full until the connect time-out, or its queue is full.
    Exhausted,
}

impl Pool {
    pub fn new(address: SocketAddr, settings: snapshot::Pool) -> Rc<Pool> {
        Rc::new(Pool {
            address,
            settings: Cell::new(settings),
            idle: RefCell::default(),
            open: Cell::new(0),
            waiters: RefCell::default(),
        })
    }

    pub fn configure(&self, settings: snapshot::Pool) {
        self.settings.set(settings);
    }

    /// An idle connection that is still good, if there is one. Never waits.
    #[inline]
    pub fn reuse(self: &Rc<Self>, now_ms: u64) -> Option<Lease> {
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            let place = Place { pool: self.clone() };
            let lease = Lease { place, stream: idle.stream, reused: true };
            // Bytes that no one asked for, or an end: never reuse it (CVE-2025-4366's class).
            let too_old = now_ms.saturating_sub(idle.since_ms)
                >= u64::from(self.settings.get().idle_timeout_ms);
            if !too_old && !lease.stream.has_input() {
                return Some(lease);
            }
        }
    }

    /// A new connection, or one that becomes free while waiting for a place. `watch` carries the
    /// connect deadline.
    pub async fn lease(self: &Rc<Self>, io: &Io, watch: &Watch) -> Result<Lease, NoLease> {
        let Ok(turn) = watch.bound(self.place(io)).await else { return Err(NoLease::Exhausted) };
        let place = match turn? {
            Turn::Reused(lease) => return Ok(lease),
            Turn::Place(place) => place,
        };
        match watch.bound(connect(io, self.address)).await {
            Ok(Ok(stream)) => Ok(Lease { place, stream: Rc::new(stream), reused: false }),
            Ok(Err(error)) => Err(NoLease::Failed(error)),
            Err(Elapsed) => Err(NoLease::Timeout),
        }
    }

    async fn place(self: &Rc<Self>, io: &Io) -> Result<Turn, NoLease> {
        poll_fn(|cx| {
            if let Some(lease) = self.reuse(io.clock().now_ms()) {
                return Poll::Ready(Ok(Turn::Reused(lease)));
            }
            if self.open.get() < self.settings.get().max_connections {
                self.open.set(self.open.get() + 1);
                return Poll::Ready(Ok(Turn::Place(Place { pool: self.clone() })));
            }
            let mut waiters = self.waiters.borrow_mut();
            if waiters.len() >= limits::POOL_WAITERS {
                return Poll::Ready(Err(NoLease::Exhausted));
            }
            // A waiter that gave up leaves its waker behind; waking it costs a poll.
            waiters.push_back(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn freed(&self) {
        let waiter = self.waiters.borrow_mut().pop_front();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
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
    }
}

enum Turn {
    Reused(Lease),
    Place(Place),
}

/// One of the pool's `max_connections`, before it has a connection.
struct Place {
    pool: Rc<Pool>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.open.set(self.pool.open.get() - 1);
        self.pool.freed();
    }
}

/// A connection in use by one exchange. Dropped, it closes; [`Lease::give_back`] keeps it.
pub struct Lease {
    place: Place,
    pub stream: Rc<Stream>,
    /// It has carried an exchange before, so its peer may have closed it without our knowing.
    pub reused: bool,
}

impl Lease {
    pub fn address(&self) -> SocketAddr {
        self.place.pool.address
    }

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
