//! What a request wants and has of buckets.

use contract::snapshot::{LimitMode, OnStoreFailure};
use smallvec::SmallVec;

use crate::limit::messages::BucketId;
use crate::limit::rule::Rule;

/// Until when what a request takes counts as held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Its answer begins, or its time to reach the upstream is over.
    Reached,
    /// Its answer says what it has cost.
    Answered,
    /// It ends. Then it is as if it had never been.
    Ended,
}

/// What a request wants of one bucket.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub id: BucketId,
    pub rule: Rule,
    pub mode: LimitMode,
    pub on_store_failure: OnStoreFailure,
    /// At least 1.
    pub cost: u64,
    pub until: Until,
    /// What is missing is noted only.
    pub dry_run: bool,
    /// Of which policy it is.
    pub policy: u32,
}

/// What a request has of one bucket.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    pub(super) id: BucketId,
    pub(super) place: u32,
    pub(super) until: Until,
    pub(super) settled: bool,
    pub(super) policy: u32,
    pub(super) cost: u64,
    pub(super) at_ms: u64,
}

impl Hold {
    pub fn until(&self) -> Until {
        self.until
    }

    pub fn policy(&self) -> u32 {
        self.policy
    }
}

/// A list with a place for each bucket of most requests.
pub type Few<T> = SmallVec<[T; 4]>;

/// What came of a request's wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Taken {
        /// Without Redis.
        shared: bool,
        /// A dry run would have refused it.
        over: bool,
    },
    /// There is nothing before `retry_at_ms` of the want at that place.
    Refused { at: usize, retry_at_ms: u64 },
    /// The ledger has to be asked: [`Leases::wait`].
    Dry,
    /// Whoever counts cannot be asked, and that is a reason to refuse.
    Unavailable,
}

/// How a bucket stands, roughly, for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub remaining: u64,
    /// Monotonic milliseconds.
    pub reset_at_ms: u64,
}
