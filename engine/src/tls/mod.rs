//! TLS below HTTP (RFC 8446, RFC 5246): rustls' state machine over the reactor's streams.
//!
//! `stream.rs` is the transport: records are opened in place in the buffers they were received
//! into, and sealed straight into the buffer that is sent. `machine.rs` is the seam to rustls.
//! [`accept`] and [`connect`] make a stream of a socket; what they need is built once per plan
//! ([`ServerSide`], [`ClientSide`]) and kept over plans that leave it as it was ([`Memory`]).

mod client;
mod facts;
mod handshake;
mod hello;
mod identity;
mod machine;
mod memory;
mod peer;
mod server;
mod service;
mod sessions;
mod stream;
mod tickets;

pub use client::ClientSide;
pub use facts::{Cause, CertificateNames, ClientCertificate, HandshakeFailed, TlsFacts};
pub use handshake::{accept, connect};
pub use identity::{Digest, Fingerprint, Unusable};
pub use memory::Memory;
pub use server::ServerSide;
pub use service::{Service, ServiceTls, fingerprint as service_fingerprint};
pub use stream::TlsStream;

#[cfg(test)]
pub(crate) mod tests;
