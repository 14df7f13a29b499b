//! The response cache: a shared cache as RFC 9111 has it, one per node.
//!
//! Stored is what upstreams answer, before the gateway changes any of it for a client: what is written into
//! an answer from a caller's claims must not be another caller's. So a stored answer goes the rest of the
//! way as an upstream's does.
//!
//! | file | what |
//! |---|---|
//! | `directives.rs`, `said.rs`, `vary.rs` | what heads say. Pure, as the next three are |
//! | `freshness.rs` | may it be kept, how long is it good, what may be done with it then |
//! | `condition.rs` | 304, 206, 416 of a stored answer |
//! | `object.rs` | a stored answer, and what becomes of it with a 304 |
//! | `key.rs` | what tells answers apart |
//! | `store/` | all that the node keeps: its bound, who goes first, who waits for whom |
//! | `serve.rs` | the way of a request; `told.rs`: what it says of it in `Cache-Status` |
//! | `fill.rs`, `refresh.rs` | storing an answer while it is relayed; asking about one that is being used |
//!
//! **Whose answers are whose.** An answer to a request with credentials is for others only if it says
//! `public` or `s-maxage` (RFC 9111 §3.5; `must-revalidate` is not enough here), or if the route keeps
//! answers by caller, and then for the same caller with the same groups and scopes. Credentials are an
//! `Authorization` field, a client certificate, or whatever an authenticator of the route took. A caller
//! with credentials does not get either what was answered to one without, but for what is public: it may
//! be the page for strangers. Answers with `Set-Cookie` are not kept unless the route says so.
//!
//! `Pragma` is not looked at (RFC 9111 §5.4).

mod condition;
mod directives;
mod fill;
mod freshness;
mod key;
mod object;
mod refresh;
mod said;
mod serve;
mod store;
mod told;
mod vary;

pub use fill::Fill;
pub use serve::serve;
pub use store::Store;

#[cfg(test)]
mod tests;
