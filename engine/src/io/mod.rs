//! The reactor: one io_uring per shard, driven from inside a pinned glommio executor.
//!
//! This is the only room that names `io_uring` or `glommio`, that reads a clock, and (with the
//! contract crate) that holds `unsafe`. Everything above it sees [`Io`], [`Stream`], [`Acceptor`],
//! [`Chunk`] and [`Watch`].
//!
//! How it hangs together: the **driver** task owns the wait. It enters the ring, hands completions
//! to the slots that expect them (which wakes tasks), yields until no task of this shard is
//! runnable, and enters again with everything that the tasks submitted meanwhile: one system call
//! for a whole batch. glommio never parks; its own rings are polled from ours.

mod accept;
mod buffers;
mod clock;
mod driver;
mod lag;
mod probe;
mod ring;
mod slots;
mod stream;
mod swap;
mod timer;

pub use accept::Acceptor;
pub use buffers::{Chunk, HEADROOM};
pub use clock::{Clock, monotonic_ms, monotonic_us, wall_ms};
pub use driver::{Launch, launch};
pub use lag::Lag;
pub use probe::{StartError, probe};
pub use ring::{Io, IoCounts, RingConfig};
pub use stream::{SendBuf, Stream, connect};
pub use swap::Swap;
pub use timer::{Elapsed, Watch};

#[cfg(test)]
pub(crate) mod tests;
