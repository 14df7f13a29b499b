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
    waiters: RefCell<VecDeque<Waiter>>,
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
    /// connect deadline. With `fresh`, a connection that has carried nothing yet.
    pub async fn lease(
        self: &Rc<Self>,
        io: &Io,
        watch: &Watch,
        fresh: bool,
    ) -> Result<Lease, NoLease> {
        let Ok(turn) = watch.bound(self.place(io, fresh)).await else {
            return Err(NoLease::Exhausted);
        };
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

    async fn place(self: &Rc<Self>, io: &Io, fresh: bool) -> Result<Turn, NoLease> {
        let turn = Turned { pool: self, turn: Rc::default() };
        poll_fn(|cx| {
            // A full pool closes an idle connection to make room for a fresh one.
            let full = self.open.get() >= self.settings.get().max_connections;
            if (!fresh || full)
                && let Some(lease) = self.reuse(io.clock().now_ms())
                && !fresh
            {
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
            turn.turn.set(Wait::Waiting);
            waiters.push_back(Waiter { waker: cx.waker().clone(), turn: turn.turn.clone() });
            Poll::Pending
        })
        .await
    }

    fn freed(&self) {
        loop {
            let Some(waiter) = self.waiters.borrow_mut().pop_front() else { return };
            // One that gave up has no use for the place.
            if waiter.turn.get() == Wait::Waiting {
                waiter.turn.set(Wait::Called);
                return waiter.waker.wake();
            }
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

/// A waiter's end: when it was called and leaves without a look, the next one is called.
struct Turned<'a> {
    pool: &'a Pool,
    turn: Rc<Cell<Wait>>,
}

impl Drop for Turned<'_> {
    fn drop(&mut self) {
        let pool = self.pool;
        let called = self.turn.replace(Wait::Over) == Wait::Called;
        if called && pool.open.get() < pool.settings.get().max_connections {
            pool.freed();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::tests::{listener, shard, small};

    fn pool(address: SocketAddr, max_connections: u32) -> Rc<Pool> {
        let settings = snapshot::Pool { max_idle: 8, max_connections, idle_timeout_ms: 60_000 };
        Pool::new(address, settings)
    }

    #[test]
    fn a_place_passes_over_those_who_gave_up() {
        let (_origin, address) = listener();
        shard(small(), move |io| async move {
            let pool = pool(address, 1);
            let watch = io.watch();
            watch.set_in(5_000);
            let first = pool.lease(&io, &watch, false).await.unwrap();
            let done = Rc::new(Cell::new(0));
            for (patience_ms, wins) in [(20, false), (20, false), (5_000, true)] {
                let (pool, io2, done) = (pool.clone(), io.clone(), done.clone());
                io.spawn(async move {
                    let watch = io2.watch();
                    watch.set_in(patience_ms);
                    let leased = pool.lease(&io2, &watch, false).await;
                    assert_eq!(leased.is_ok(), wins);
                    done.set(done.get() + 1);
                });
            }
            io.sleep_ms(100).await;
            assert_eq!(done.get(), 2, "two gave up");
            first.give_back(io.clock().now_ms());
            io.sleep_ms(100).await;
            assert_eq!(done.get(), 3, "the third got the connection");
        });
    }

    #[test]
    fn a_connection_its_peer_closed_is_never_reused() {
        let (origin, address) = listener();
        shard(small(), move |io| async move {
            let pool = pool(address, 4);
            let watch = io.watch();
            watch.set_in(5_000);
            let lease = pool.lease(&io, &watch, false).await.unwrap();
            let (peer, _) = origin.accept().unwrap();
            lease.give_back(io.clock().now_ms());
            let lease = pool.reuse(io.clock().now_ms()).expect("it is good");
            assert!(lease.reused);
            lease.give_back(io.clock().now_ms());
            drop(peer);
            io.sleep_ms(50).await;
            assert!(pool.reuse(io.clock().now_ms()).is_none());
            assert_eq!(pool.open.get(), 0);
        });
    }

    #[test]
    fn a_fresh_connection_makes_room_in_a_full_pool() {
        let (_origin, address) = listener();
        shard(small(), move |io| async move {
            let pool = pool(address, 1);
            let watch = io.watch();
            watch.set_in(5_000);
            pool.lease(&io, &watch, false).await.unwrap().give_back(io.clock().now_ms());
            let fresh = pool.lease(&io, &watch, true).await.unwrap();
            assert!(!fresh.reused);
            assert_eq!(pool.open.get(), 1);
        });
    }
}
