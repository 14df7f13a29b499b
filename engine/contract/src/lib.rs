//! What crosses the shared memory between control and engine, and nothing else.
//!
//! - [`snapshot`] and [`encode`]: the configuration of one epoch as flat, checksummed bytes.
//! - [`segment`]: one memfd with the published epoch, each shard's counters and its ring.
//! - [`publish`]: the epoch and its wake; [`ring`]: records from a shard to control.
//! - [`targets`]: what the engine tells of upstreams and targets; [`wishes`]: what it asks control for.
//! - [`record`], [`key_use`]: what a ring carries; [`counter`]: what a shard counts.
//! - [`bus`]: messages and file descriptors between supervisor, engine and control;
//!   [`sealed`]: bytes that nobody can change any more.
//! - [`background`]: threads for which no request waits.
//!
//! Every byte that another process wrote is judged before it is believed: decoding is total, lengths
//! are bounded, nothing here panics on what it reads. All shared-memory `unsafe` of the project is in
//! this crate. Under `--cfg loom` the atomics come from loom, and what needs real memory or real
//! system calls is left out.

// Under loom only the tests use what the segment uses otherwise.
#![cfg_attr(all(loom, not(test)), allow(dead_code))]

#[cfg(not(loom))]
pub mod background;
#[cfg(not(loom))]
pub mod bus;
pub mod cache_report;
pub mod counter;
pub mod encode;
#[cfg(not(loom))]
pub mod figures;
pub mod key_use;
pub mod limit_lines;
#[cfg(not(loom))]
mod memory;
pub mod publish;
pub mod record;
pub mod ring;
#[cfg(not(loom))]
pub mod sealed;
#[cfg(not(loom))]
pub mod segment;
pub mod snapshot;
mod sync;
#[cfg(not(loom))]
pub mod targets;
mod wire;
#[cfg(not(loom))]
pub mod wishes;

pub use cache_report::{CacheLine, CacheReport, Purge};
pub use counter::Counter;
pub use encode::DecodeError;
pub use key_use::KeyUse;
pub use limit_lines::{LimitLine, MAX_LIMIT_LINES};
pub use record::{Reason, Record};
pub use ring::{RingReader, RingWriter};
#[cfg(not(loom))]
pub use segment::{Segment, SegmentError, ShardState, ShardView};
pub use snapshot::Snapshot;
