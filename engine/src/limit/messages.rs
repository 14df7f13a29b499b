//! What shards and the node's ledger say to each other, over lock-free queues.
//!
//! For each bucket a shard has at most one [`Ask`] under way; the ledger answers every one by a
//! [`Told`], within the time that a request may wait. It may send more of these by itself, without a
//! grant: to have tokens back, or to say that there are some again.

use std::sync::Arc;

use contract::snapshot::{LimitMode, OnStoreFailure};
use smallvec::SmallVec;

use super::rule::Rule;

/// A keyed hash of all that makes a bucket: 128 bits, so that two never meet.
pub type BucketId = u128;

/// A bucket as people know it, and what holds for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The policy, the window and the values counted by, such as `gold:1s:consumer=acme`: printable
    /// ASCII, without braces, at most 256 bytes. Its name in Redis follows from it.
    pub name: Box<str>,
    /// What places it on a Redis server (the consumer, where it counts by one); also its hash tag.
    pub tag: Box<str>,
    /// For people who ask by consumer; empty: none.
    pub consumer: Box<str>,
    pub rule: Rule,
    pub mode: LimitMode,
    pub on_store_failure: OnStoreFailure,
}

/// So many tokens were spent then, in milliseconds of the monotonic clock that all threads share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    pub at_ms: u64,
    pub tokens: u64,
}

/// From a shard: how it stands, and what it wants.
#[derive(Debug)]
pub struct Ask {
    pub id: BucketId,
    /// With the first `Ask` after the shard has got to know the bucket, or when its rule changed.
    pub bucket: Option<Arc<Bucket>>,
    /// What the shard holds now; together with `spent`, what it held before and was granted. Of a
    /// concurrent bucket also what its requests under way have.
    pub hold: u64,
    /// Since the last `Ask`. Requests whose upstream may not have got them yet count as held.
    pub spent: SmallVec<[Spent; 2]>,
    /// Of the requests that wait the first needs so many: less is of no use. 0: nobody waits.
    pub need: u64,
    /// All that wait need so many, `need` included: granted before anybody gets tokens in advance.
    pub waiting: u64,
    /// How many it could use until it asks again, `waiting` included, going by its rate.
    pub want: u64,
    /// Spent beyond what it held: what an answer said that a request has cost more than was reserved.
    pub debt: u64,
    /// The shard forgets the bucket with this: no answer is needed.
    pub last: bool,
}

/// From the ledger.
#[derive(Clone, Debug)]
pub struct Told {
    pub id: BucketId,
    /// Answers an `Ask`.
    pub answers: bool,
    /// To be added to what the shard holds.
    pub granted: u64,
    /// What the shard should hold at most; it gives the rest back with its next `Ask`, now if it holds
    /// more.
    pub fair: u64,
    /// Roughly what the limit has left for everybody, this shard's included, after this.
    pub remaining: u64,
    /// No token will be to be had before, in milliseconds of the monotonic clock; 0: ask at any time.
    pub retry_at_ms: u64,
    /// When what was spent first will have left the window, in milliseconds of the monotonic clock:
    /// what clients are told as the time of reset.
    pub reset_at_ms: u64,
    pub state: State,
    /// The ledger does not know the bucket (any more): the shard asks again, with it.
    pub unknown: bool,
}

/// How the ledger decides now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// By the truth.
    #[default]
    Exact,
    /// By this node's part, as the store cannot be asked.
    Share,
    /// Not at all, as the store cannot be asked: requests are refused (503).
    Denied,
    /// Not at all, as the store cannot be asked: requests are not limited.
    Open,
}
