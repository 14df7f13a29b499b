use std::future::Future;

use super::*;
use crate::io::tests::{listener, shard, small};

fn pool(address: SocketAddr, max_connections: u32) -> Rc<Pool> {
    let settings = snapshot::Pool { max_idle: 8, max_connections, idle_timeout_ms: 60_000 };
    let target = Target { address, name: "t:1".into(), ..Default::default() };
    Pool::new(&Upstream { pool: settings, ..Upstream::default() }, &target)
}

fn http1(lease: Result<Lease, NoLease>) -> Connection {
    match lease.expect("a connection") {
        Lease::Http1(connection) => connection,
        Lease::Http2(_) => unreachable!("nobody asked for HTTP/2"),
    }
}

#[test]
fn a_place_passes_over_those_who_gave_up() {
    let (_origin, address) = listener();
    shard(small(), move |io| async move {
        let pool = pool(address, 1);
        let watch = io.watch();
        watch.set_in(5_000);
        let first = http1(pool.lease(&io, &watch, false).await);
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
        let lease = http1(pool.lease(&io, &watch, false).await);
        let (peer, _) = origin.accept().unwrap();
        lease.give_back(io.clock().now_ms());
        let lease = http1(pool.reuse(io.clock().now_ms()).ok_or(NoLease::Exhausted));
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
        http1(pool.lease(&io, &watch, false).await).give_back(io.clock().now_ms());
        let fresh = http1(pool.lease(&io, &watch, true).await);
        assert!(!fresh.reused);
        assert_eq!(pool.open.get(), 1);
    });
}

#[test]
fn a_call_that_nobody_heeds_goes_to_the_next() {
    let (_origin, address) = listener();
    shard(small(), move |io| async move {
        let pool = pool(address, 1);
        let watch = io.watch();
        watch.set_in(5_000);
        let first = http1(pool.lease(&io, &watch, false).await);
        let (own, own_watch) = (pool.clone(), io.watch());
        own_watch.set_in(5_000);
        let mut waits = Box::pin(own.lease(&io, &own_watch, false));
        let polled = poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending()));
        assert!(polled.await, "the pool is full");
        let done = Rc::new(Cell::new(false));
        let (pool2, io2, told) = (pool.clone(), io.clone(), done.clone());
        io.spawn(async move {
            let watch = io2.watch();
            watch.set_in(5_000);
            http1(pool2.lease(&io2, &watch, false).await);
            told.set(true);
        });
        io.sleep_ms(20).await;
        // The first of the two is called, and gone before it looks.
        first.give_back(io.clock().now_ms());
        drop(waits);
        for _ in 0..100 {
            if !done.get() {
                io.sleep_ms(20).await;
            }
        }
        assert!(done.get(), "an idle connection is there");
    });
}

#[test]
fn streams_that_lost_a_connection_share_a_fresh_one() {
    let (_origin, address) = listener();
    shard(small(), move |io| async move {
        let upstream = Upstream {
            protocol: Protocol::Http2,
            pool: snapshot::Pool { max_idle: 8, max_connections: 64, idle_timeout_ms: 60_000 },
            ..Upstream::default()
        };
        let target = Target { address, name: "t:1".into(), ..Default::default() };
        let pool = Pool::new(&upstream, &target);
        let watch = io.watch();
        watch.set_in(5_000);
        assert!(pool.lease(&io, &watch, false).await.is_ok());
        let done = Rc::new(Cell::new(0));
        for _ in 0..20 {
            let (pool, io2, done) = (pool.clone(), io.clone(), done.clone());
            io.spawn(async move {
                let watch = io2.watch();
                watch.set_in(5_000);
                let lease = pool.lease(&io2, &watch, true).await.expect("a connection");
                let Lease::Http2(share) = lease else { unreachable!("it is HTTP/2") };
                let [(_, old), ..] = &pool.shared.borrow()[..] else { unreachable!() };
                assert!(!Rc::ptr_eq(old, &share.mux));
                done.set(done.get() + 1);
            });
        }
        for _ in 0..100 {
            if done.get() < 20 {
                io.sleep_ms(20).await;
            }
        }
        assert_eq!((done.get(), pool.open.get()), (20, 2));
        pool.clear();
    });
}
