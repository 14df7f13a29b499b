//! Sluice's data plane. `pipeline.rs` tells the life of one request; `ARCHITECTURE.md` beside this
//! crate tells the rest.

mod aggregate;
mod answer;
mod auth;
mod body;
mod cache;
mod call;
mod channel;
mod coding;
mod cors;
mod exchange;
mod extension;
mod filter;
mod forward;
mod forwarded_for;
mod graphql;
mod grpc;
mod grpc_web;
pub mod http2;
pub mod io;

pub mod limit;
pub mod limits;
mod listener;
mod local_reply;
mod media;
pub mod message;
mod mux;
mod observe;
mod offload;
mod overload;
mod payload;
mod pipe;
mod pipeline;
pub mod plan;
pub mod proxy_protocol;
mod relay;
mod rewrite;
pub mod route;
mod serve;
mod shape;
mod shard;
mod start;
mod store;
mod template;
#[cfg(test)]
mod testing;
pub mod tls;
mod transcode;
pub mod transport;
mod upload;
pub mod upstream;
mod validate;

#[doc(hidden)]
pub use auth::fuzz_jwt;
#[doc(hidden)]
pub use extension::fuzz_processor;
pub use io::{StartError, probe};
#[doc(hidden)]
pub use payload::fuzz_payload;
pub use payload::jq::{COMMAND as JQ_COMMAND, work as run_jq};
pub use start::{Start, run};
#[doc(hidden)]
pub use template::fuzz_template;
pub use transcode::fuzz_transcode;
#[doc(hidden)]
pub use validate::fuzz_validate;
