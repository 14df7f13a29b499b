//! Connections that requests share: HTTP/2 towards a target.

use std::future::poll_fn;
use std::rc::Rc;

use super::pool::{Place, Pool};
use crate::http2::Config;
use crate::io::{Elapsed, Io};
use crate::limits;
use crate::mux::Mux;
use crate::transport::Transport;

/// Begins HTTP/2 on a fresh connection, with a task that drives it to its end.
pub fn start(pool: &Rc<Pool>, io: &Io, transport: Transport, place: Place) -> Rc<Mux> {
    let config = Config {
        max_concurrent_streams: limits::UPSTREAM_STREAMS,
        max_header_list: limits::UPSTREAM_HEADER_LIST,
        ..Config::CLIENT
    };
    let mux = Mux::new(io.clone(), Rc::new(transport), config);
    let freed = Rc::downgrade(pool);
    mux.on_freed(move || {
        if let Some(pool) = freed.upgrade() {
            pool.freed();
        }
    });
    io.spawn(drive(mux.clone(), pool.clone(), place));
    mux
}

/// Ends with the connection: by the peer, by a fault, after its farewell, or idle.
async fn drive(mux: Rc<Mux>, pool: Rc<Pool>, place: Place) {
    let watch = mux.io.watch();
    loop {
        if mux.is_overdue() {
            break;
        }
        if mux.is_going_away() {
            pool.forget(&mux);
            if mux.streams() == 0 {
                break;
            }
        }
        let now_ms = mux.io.clock().now_ms();
        watch.set_at(mux.used_ms().max(now_ms.saturating_sub(1)) + pool.idle_timeout_ms());
        if let Some(verdict_ms) = mux.verdict_ms() {
            watch.set_at(verdict_ms);
        }
        match watch.bound(poll_fn(|cx| mux.poll_happened(cx))).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => break,
            Err(Elapsed) if mux.is_dead() => break,
            Err(Elapsed) => {
                let idle_ms = mux.io.clock().now_ms().saturating_sub(mux.used_ms());
                if mux.streams() == 0 && idle_ms >= pool.idle_timeout_ms() {
                    break;
                }
            }
        }
    }
    pool.forget(&mux);
    mux.shut_down();
    mux.close();
    watch.set_in(limits::LINGER_MS);
    let _ = watch.bound(mux.flush()).await;
    mux.transport.shutdown_write();
    drop(place);
}
