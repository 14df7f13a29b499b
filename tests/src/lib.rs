//! The fixtures of Sluice's black-box suites: a gateway process, scripted origins, a raw client.
//!
//! Everything here is blocking `std::net` and shares no code with the gateway, so that a bug in the
//! gateway's parser cannot hide in the parser that checks it. Every wait has a bound.

#![forbid(unsafe_code)]
// The bans of clippy.toml (clocks, blocking sockets) protect the engine; tests live on both.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod certificates;
pub mod cgroup;
pub mod client;
pub mod gateway;
pub mod http2;
pub mod limits;
pub mod load;
pub mod message;
pub mod origin;
#[path = "../../control/src/store/postgres/server.rs"]
pub mod postgres;
pub mod process;
pub mod redis;
pub mod scratch;
pub mod spec;
pub mod stream;
pub mod tls;
pub mod websocket;
pub mod wire;

pub use certificates::{Authority, Identity};
pub use client::{Client, exchange, get};
pub use gateway::Gateway;
pub use load::Load;
pub use message::{Framing, Head, Response};
pub use origin::{Origin, Script, Seen, answer};
pub use process::{cli, sluice_binary};
pub use redis::Redis;
pub use tls::{TlsClient, TlsServer};
pub use wire::{Wire, WireError};

use std::time::{Duration, Instant};

/// How long a step may take before a test gives up on it. Not a promise of the gateway: a bound.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Asks `done` every 10 ms until it says yes; false when `patience` has passed.
pub fn eventually(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
