//! The segment: one memfd that all processes of a node map for as long as it runs.
//!
//! The supervisor creates it and passes it on, so engine and control find their counters, epochs and
//! rings again after a restart. Its size is sealed: no process can take mapped pages from another.
//!
//! ```text
//! 0       Head      magic, version, shards, ring size, counters; written once
//! 128     Control   the published epoch
//! 256     Wishes    which key sets to fetch again
//! …       Figures   of the store thread
//! 4096    Table     what is known of upstreams and targets
//! …       shard 0:  ShardBlock | Positions of its ring | … to 4096 | the ring's buffer
//! …       shard 1:  …
//! ```

use crate::counter::{COUNTERS, Counter};
use crate::figures::{self, Figures};
use crate::memory::Mapping;
use crate::publish::EpochCell;
use crate::ring::{MAX_RING, MIN_RING, Positions, RingMemory, RingReader, RingWriter};
use crate::sealed::{check_seals, memory_file, size};
use crate::targets::{Table, Targets};
use crate::wishes;
pub use crate::wishes::{MAX_WISHES, Wishes};
use rustix::fs::{SealFlags, fcntl_add_seals, ftruncate};
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Most shards of a segment.
pub const MAX_SHARDS: u16 = 1024;
/// Changes with every change of the layout, [`Counter`]'s order included.
pub const VERSION: u32 = 5;

const MAGIC: u64 = u64::from_le_bytes(*b"SLUICEsg");
const PAGE: usize = 4096;
const TABLE: usize = size_of::<Table>();

#[repr(C)]
struct Head {
    magic: AtomicU64,
    version: AtomicU32,
    shards: AtomicU32,
    ring_bytes: AtomicU32,
    counters: AtomicU32,
}

#[repr(C, align(128))]
struct Root {
    head: Head,
    epoch: EpochCell,
    /// Not in the epoch's cache line, which all requests look at.
    wishes: wishes::Table,
    figures: figures::Table,
}

#[repr(C, align(128))]
struct ShardBlock {
    adopted: AtomicU64,
    heartbeat_ms: AtomicU64,
    state: AtomicU32,
    counters: [AtomicU64; COUNTERS],
}

/// What a shard's first page holds; the ring's buffer follows it.
#[repr(C)]
struct ShardPage {
    block: ShardBlock,
    positions: Positions,
}

const _: () = assert!(size_of::<Root>() <= PAGE && size_of::<ShardPage>() <= PAGE);
const _: () = assert!(TABLE.is_multiple_of(PAGE));

/// Why a descriptor is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error(
        "not a sealed memfd: its bytes could change or vanish while they are used; pass on the descriptor that the supervisor sent"
    )]
    NotSealed,
    #[error("{found} bytes is not a size that this should have")]
    Size { found: u64 },
    #[error("not a Sluice segment (magic {found:#018x})")]
    Magic { found: u64 },
    #[error(
        "segment layout {found}, this program speaks {VERSION}: control and engine come from different releases; restart `sluice up`"
    )]
    Version { found: u32 },
    #[error(
        "the segment's own description is impossible: {shards} shards, rings of {ring_bytes} bytes, {counters} counters"
    )]
    Layout { shards: u32, ring_bytes: u32, counters: u32 },
    #[error("the memory could not be mapped: {0}")]
    Map(#[from] io::Error),
}

/// A mapped segment. Clones share the mapping.
#[derive(Clone)]
pub struct Segment {
    inner: Arc<Inner>,
}

struct Inner {
    mapping: Mapping,
    shards: u16,
    ring_bytes: u32,
    /// Which ends of which rings are taken in this process: writer and reader of each shard.
    taken: Box<[[AtomicBool; 2]]>,
}

impl Segment {
    /// Creates a segment for `shards` shards with a ring of `ring_bytes` each, and the descriptor to
    /// pass to other processes (close-on-exec).
    ///
    /// # Errors
    /// `InvalidInput` if `shards` is not 1..=[`MAX_SHARDS`], or `ring_bytes` not a power of two from
    /// [`MIN_RING`] to [`MAX_RING`]; else what the kernel says.
    pub fn create(shards: u16, ring_bytes: u32) -> io::Result<(OwnedFd, Segment)> {
        if !valid_layout(shards.into(), ring_bytes) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a segment has 1 to {MAX_SHARDS} shards and rings of a power of two from \
                     {MIN_RING} to {MAX_RING} bytes, not {shards} and {ring_bytes}"
                ),
            ));
        }
        let len = total_size(shards, ring_bytes);
        let fd = memory_file("sluice-segment")?;
        ftruncate(&fd, len as u64)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let segment = Segment::over(Mapping::shared(&fd, len)?, shards, ring_bytes);
        let head = &segment.root().head;
        head.version.store(VERSION, Ordering::Relaxed);
        head.shards.store(shards.into(), Ordering::Relaxed);
        head.ring_bytes.store(ring_bytes, Ordering::Relaxed);
        head.counters.store(COUNTERS as u32, Ordering::Relaxed);
        head.magic.store(MAGIC, Ordering::Release);
        Ok((fd, segment))
    }

    /// Maps a segment that another process created.
    ///
    /// # Errors
    /// The descriptor is not a memfd with a sealed size, or does not hold a segment of this
    /// [`VERSION`] that fills it exactly.
    pub fn open(fd: impl AsFd) -> Result<Segment, SegmentError> {
        check_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        let len = size(&fd)?;
        if len < PAGE {
            return Err(SegmentError::Size { found: len as u64 });
        }
        let mapping = Mapping::shared(fd, len)?;
        let head = &root(&mapping).head;
        let magic = head.magic.load(Ordering::Acquire);
        if magic != MAGIC {
            return Err(SegmentError::Magic { found: magic });
        }
        let version = head.version.load(Ordering::Relaxed);
        if version != VERSION {
            return Err(SegmentError::Version { found: version });
        }
        // Read once: what is checked is what is used, whatever happens to the memory later.
        let shards = head.shards.load(Ordering::Relaxed);
        let ring_bytes = head.ring_bytes.load(Ordering::Relaxed);
        let counters = head.counters.load(Ordering::Relaxed);
        if !valid_layout(shards, ring_bytes) || counters as usize != COUNTERS {
            return Err(SegmentError::Layout { shards, ring_bytes, counters });
        }
        // At most MAX_SHARDS.
        let shards = shards as u16;
        if len != total_size(shards, ring_bytes) {
            return Err(SegmentError::Size { found: len as u64 });
        }
        Ok(Segment::over(mapping, shards, ring_bytes))
    }

    fn over(mapping: Mapping, shards: u16, ring_bytes: u32) -> Segment {
        assert_eq!(mapping.len(), total_size(shards, ring_bytes));
        let taken = (0..shards).map(|_| [false, false].map(AtomicBool::new)).collect();
        Segment { inner: Arc::new(Inner { mapping, shards, ring_bytes, taken }) }
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.inner.shards
    }

    /// Bytes of each shard's ring.
    pub fn ring_bytes(&self) -> u32 {
        self.inner.ring_bytes
    }

    /// The published epoch and its wake.
    pub fn epoch_cell(&self) -> &EpochCell {
        &self.root().epoch
    }

    /// The epoch published last; 0 before the first. Cheap enough for every request.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.root().epoch.get()
    }

    /// Publishes `epoch`, in all processes, and wakes who waits; see [`EpochCell::publish`].
    pub fn publish(&self, epoch: u64) {
        self.root().epoch.publish(epoch);
    }

    /// Waits until the epoch differs from `seen`; see [`EpochCell::wait`].
    pub fn wait_epoch(&self, seen: u64, timeout: Duration) -> u64 {
        self.root().epoch.wait(seen, timeout)
    }

    /// What shard `shard` reports of itself.
    ///
    /// # Panics
    /// If there is no such shard: [`Segment::shards`] is the bound.
    pub fn shard(&self, shard: u16) -> ShardView {
        assert!(shard < self.shards(), "shard {shard} of {}", self.shards());
        let page = shard_page(&self.inner, shard).cast::<ShardBlock>();
        ShardView { block: page, _segment: Arc::clone(&self.inner) }
    }

    /// What the engine tells of its upstreams and targets.
    pub fn targets(&self) -> Targets {
        // SAFETY: every mapping is at least a page, the table and a shard long (`over`), and begins
        // with a page; the pointer's page is aligned for it.
        unsafe {
            let table = self.inner.mapping.start().byte_add(PAGE).cast::<Table>();
            Targets::new(table, Keeper { inner: Arc::clone(&self.inner) })
        }
    }

    /// Which key sets shards wish to be fetched again.
    pub fn wishes(&self) -> Wishes {
        Wishes::new(Keeper { inner: Arc::clone(&self.inner) })
    }

    /// How the store thread fares.
    pub fn figures(&self) -> Figures {
        Figures::new(Keeper { inner: Arc::clone(&self.inner) })
    }

    /// The writing end of a shard's ring. `None` if there is no such shard, or while another writer
    /// of it exists in this process (through this [`Segment`] or its clones).
    ///
    /// Between processes nothing guards this: one engine process writes, and its successor starts
    /// only when it is gone. Two writers garble messages, which the reader survives.
    pub fn ring_writer(&self, shard: u16) -> Option<RingWriter> {
        Some(RingWriter::new(self.ring_memory(shard, WRITER)?))
    }

    /// The reading end of a shard's ring; as [`Segment::ring_writer`].
    pub fn ring_reader(&self, shard: u16) -> Option<RingReader> {
        Some(RingReader::new(self.ring_memory(shard, READER)?))
    }

    fn ring_memory(&self, shard: u16, end: usize) -> Option<RingMemory> {
        let claim = Claim::new(&self.inner, shard, end)?;
        let page = shard_page(&self.inner, shard);
        // SAFETY: `shard` exists (else there is no claim), so its page and the buffer behind it lie
        // in the mapping (`over`), page-aligned, positions inside the page; `ring_bytes` is a power
        // of two ≥ MIN_RING (`valid_layout`); the claim keeps the mapping.
        unsafe {
            let positions = page.byte_add(offset_of!(ShardPage, positions)).cast::<Positions>();
            let buffer = page.byte_add(PAGE);
            Some(RingMemory::new(positions, buffer, self.inner.ring_bytes as usize, claim))
        }
    }

    #[inline]
    fn root(&self) -> &Root {
        root(&self.inner.mapping)
    }
}

/// Keeps a mapping, for what points into it.
#[derive(Clone)]
pub(crate) struct Keeper {
    inner: Arc<Inner>,
}

impl Keeper {
    #[inline]
    pub(crate) fn wishes(&self) -> &wishes::Table {
        &root(&self.inner.mapping).wishes
    }

    #[inline]
    pub(crate) fn figures(&self) -> &figures::Table {
        &root(&self.inner.mapping).figures
    }
}

const WRITER: usize = 0;
const READER: usize = 1;

/// The right to use one end of one ring in this process, given back on drop.
pub(crate) struct Claim {
    inner: Arc<Inner>,
    shard: u16,
    end: usize,
}

impl Claim {
    fn new(inner: &Arc<Inner>, shard: u16, end: usize) -> Option<Claim> {
        let taken = inner.taken.get(usize::from(shard))?.get(end)?;
        if taken.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(Claim { inner: Arc::clone(inner), shard, end })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inner.taken[usize::from(self.shard)][self.end].store(false, Ordering::Release);
    }
}

/// What one shard reports of itself. One thread writes it (the shard), anybody reads it.
#[derive(Clone)]
pub struct ShardView {
    block: NonNull<ShardBlock>,
    _segment: Arc<Inner>,
}

// SAFETY: the pointer is into a mapping of the process that `_segment` keeps, to atomics only.
unsafe impl Send for ShardView {}
// SAFETY: as above.
unsafe impl Sync for ShardView {}

impl ShardView {
    #[inline]
    fn block(&self) -> &ShardBlock {
        // SAFETY: in the mapping and aligned (`Segment::shard`), kept by `_segment`; atomics only,
        // for which any bytes are valid.
        unsafe { self.block.as_ref() }
    }

    /// A new engine takes the shard over: nothing adopted, [`ShardState::Starting`], and what a
    /// killed predecessor left open counted as closed. Counters are never reset.
    pub fn start(&self, now_ms: u64) {
        self.set_adopted(0);
        self.beat(now_ms);
        let open = self.get(Counter::Accepted).saturating_sub(self.get(Counter::Closed));
        self.count(Counter::Closed, open);
        self.set_state(ShardState::Starting);
    }

    /// The epoch that the shard serves new requests with; 0: none yet.
    pub fn adopted(&self) -> u64 {
        self.block().adopted.load(Ordering::Acquire)
    }

    pub fn set_adopted(&self, epoch: u64) {
        self.block().adopted.store(epoch, Ordering::Release);
    }

    /// Says that the shard is alive, in milliseconds of `CLOCK_MONOTONIC` (one clock for all
    /// processes of the machine).
    #[inline]
    pub fn beat(&self, now_ms: u64) {
        self.block().heartbeat_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When the shard beat last, in milliseconds of `CLOCK_MONOTONIC`; 0: never.
    pub fn heartbeat(&self) -> u64 {
        self.block().heartbeat_ms.load(Ordering::Relaxed)
    }

    pub fn state(&self) -> ShardState {
        ShardState::from_u32(self.block().state.load(Ordering::Acquire))
    }

    pub fn set_state(&self, state: ShardState) {
        self.block().state.store(state as u32, Ordering::Release);
    }

    /// Adds to a counter. By the shard's own thread only: with one writer a load and a store are
    /// exact and cost less than an atomic add.
    #[inline]
    pub fn count(&self, counter: Counter, n: u64) {
        let cell = &self.block().counters[counter as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// One counter's value.
    pub fn get(&self, counter: Counter) -> u64 {
        self.block().counters[counter as usize].load(Ordering::Relaxed)
    }

    /// All counters, by their position; each is exact, together they are of about one moment.
    pub fn counters(&self) -> [u64; COUNTERS] {
        std::array::from_fn(|i| self.block().counters[i].load(Ordering::Relaxed))
    }
}

/// Where a shard is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum ShardState {
    /// No engine has taken it yet.
    #[default]
    Absent = 0,
    Starting = 1,
    Serving = 2,
    Draining = 3,
    Stopped = 4,
}

impl ShardState {
    /// Stable, lower case.
    pub fn name(self) -> &'static str {
        match self {
            ShardState::Absent => "absent",
            ShardState::Starting => "starting",
            ShardState::Serving => "serving",
            ShardState::Draining => "draining",
            ShardState::Stopped => "stopped",
        }
    }

    fn from_u32(number: u32) -> ShardState {
        match number {
            1 => ShardState::Starting,
            2 => ShardState::Serving,
            3 => ShardState::Draining,
            4 => ShardState::Stopped,
            _ => ShardState::Absent,
        }
    }
}

fn valid_layout(shards: u32, ring_bytes: u32) -> bool {
    (1..=u32::from(MAX_SHARDS)).contains(&shards)
        && (MIN_RING..=MAX_RING).contains(&ring_bytes)
        && ring_bytes.is_power_of_two()
}

fn total_size(shards: u16, ring_bytes: u32) -> usize {
    PAGE + TABLE + usize::from(shards) * (PAGE + ring_bytes as usize)
}

fn root(mapping: &Mapping) -> &Root {
    assert!(mapping.len() >= PAGE);
    // SAFETY: at the start of the mapping, which is page-aligned and at least a page long, and lives
    // as long as the reference. Root is made of atomics, for which any bytes are valid.
    unsafe { mapping.start().cast::<Root>().as_ref() }
}

fn shard_page(inner: &Inner, shard: u16) -> NonNull<u8> {
    assert!(shard < inner.shards);
    let offset = total_size(shard, inner.ring_bytes);
    // SAFETY: the mapping holds `total_size(shards)` bytes (`Segment::over`) and `shard < shards`.
    unsafe { inner.mapping.start().byte_add(offset) }
}

#[cfg(test)]
mod tests;
