//! Why a store did not do what it was asked. Nothing of it has been done then.

use thiserror::Error;

#[derive(Debug, Error)]
pub enum StoreError {
    #[error("the revision store {path} cannot be opened: {reason}")]
    Open { path: String, reason: String },
    #[error(
        "the revision store {path} was written by a newer sluice (layout {found}, this one reads up to {known}); use that version or another store"
    )]
    Layout { path: String, found: i64, known: i64 },
    /// The revision was to be stored over another one than the latest.
    #[error("revision {latest} is the latest one now; look at it and try again")]
    Changed { latest: u64 },
    /// A revision is on trial on some nodes, and no other one is taken meanwhile.
    #[error(
        "revision {revision} is on trial; wait, or end it with `sluice rollout promote` or `sluice rollout abort`"
    )]
    OnTrial { revision: u64 },
    #[error("the revision store failed: {0}; the running configuration is not affected")]
    Failed(String),
}
