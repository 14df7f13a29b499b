//! Limits measured on the origin's own log: real engines, real Redis servers, demand that comes when
//! it is due. What the gateway counts itself is not asked for.
//!
//! A binary of its own, whose tests run one after the other: each fills the machine. What a limit left
//! unused depends on when threads run, so beside other tests it would say nothing.

#![forbid(unsafe_code)]
// The bans of clippy.toml (clocks, blocking sockets) protect the engine; tests live on both.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod case;
mod faults;
mod healthy;
mod matrix;
mod namespace;
mod world;
