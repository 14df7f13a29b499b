//! How much callers may ask for: exact sliding limits at the price of a local counter.
//!
//! A *bucket* is one window of one policy for one caller (or whatever the policy counts by). Who may
//! admit a request holds a *token* of each of its buckets. Tokens are leased: Redis leases them to nodes
//! (the node's *ledger*, on the store thread), the ledger leases them to shards. Each level obeys the
//! same rule, so that there is no moment at which more requests can be admitted than the limit says:
//!
//! **What was spent within the window, and what anybody still holds, is together never more than the
//! limit.** A held token does not age. One that was spent ages from when the upstream is known to have
//! got the request; it leaves the window when it is older than the window, rounded up to a slot.
//!
//! So clocks need not agree: whoever states that it has spent a token says how long ago.

pub mod account;
pub mod admit;
pub mod fields;
pub mod key;
pub mod lease;
pub mod ledger;
pub mod log;
pub mod messages;
pub mod policy;
pub mod protocol;
pub mod rule;
#[cfg(test)]
pub mod server;

pub use self::admit::{Limiter, Ticket, admit, settle};
pub use self::key::Keys;
pub use self::policy::Policies;
