//! Black-box suites: the real binary, real sockets, nothing shared with the gateway's code.

#![forbid(unsafe_code)]
// The bans of clippy.toml (clocks, blocking sockets) protect the engine; tests live on both.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
mod admin;
mod aggregate;
mod auth;
mod bad_input;
mod cache;
mod changes;
mod cli;
mod cluster;
mod crossings;
mod examples;
mod extension;
mod faults;
mod grpc;
mod http2;
mod keys_redis;
mod limits;
mod observe;
mod overload;
mod payload;
mod proxy;
mod reload;
mod resilience;
mod shape;
mod standing;
mod tls;
mod transcode;
mod validation;
mod websocket;
