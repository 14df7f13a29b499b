//! The store thread's work against a real server.

#![allow(clippy::disallowed_methods, reason = "a test is the peer of the gateway")]

pub(crate) mod authorization_server;
mod grant;
mod http;
mod oauth_client;

/// Runs work as the store thread does.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}
