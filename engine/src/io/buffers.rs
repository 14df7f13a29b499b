//! The provided-buffer ring: memory that the kernel picks from when data arrives, so that an idle
//! connection holds none.
//!
//! Each buffer keeps [`HEADROOM`] bytes in front of what the kernel fills: a rewritten head is put
//! there, right before the body, and one contiguous send carries both.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// Bytes kept free in front of received data.
pub const HEADROOM: usize = 512;

/// The one buffer group of a shard.
pub(super) const GROUP: u16 = 0;

/// The buffers of one shard and the ring that offers them to the kernel.
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    layout: (Layout, Layout),
    /// Bytes per buffer, headroom included.
    stride: usize,
    mask: u16,
    tail: Cell<u16>,
    /// How many the kernel holds as we know it (it takes one per completion we have seen).
    offered: Cell<u16>,
    /// How many we want it to hold; grows when it runs dry.
    depth: Cell<u16>,
    /// Buffers kept back, the most recently used on top: they are still in the cache.
    reserve: RefCell<Vec<u16>>,
}

impl Buffers {
    /// `count` (a power of two ≤ 32,768) buffers of `size` bytes of data each, registered with
    /// `ring`. The kernel is given `depth` of them at a time.
    pub(super) fn new(ring: &IoUring, count: u16, size: usize, depth: u16) -> io::Result<Buffers> {
        assert!(count.is_power_of_two() && depth <= count);
        let stride = (HEADROOM + size).next_multiple_of(64);
        let entries_layout = Layout::array::<BufRingEntry>(count as usize)
            .and_then(|layout| layout.align_to(4096))
            .map_err(io::Error::other)?;
        let memory_layout =
            Layout::from_size_align(stride * count as usize, 4096).map_err(io::Error::other)?;
        // SAFETY: both layouts have non-zero size (count ≥ 1, stride ≥ HEADROOM).
        let (entries, memory) =
            unsafe { (alloc_zeroed(entries_layout), alloc_zeroed(memory_layout)) };
        let Some(entries) = NonNull::new(entries.cast::<BufRingEntry>()) else {
            handle_alloc_error(entries_layout)
        };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(memory_layout) };
        let buffers = Buffers {
            entries,
            memory,
            layout: (entries_layout, memory_layout),
            stride,
            mask: count - 1,
            tail: Cell::new(0),
            offered: Cell::new(0),
            depth: Cell::new(depth),
            reserve: RefCell::new((0..count).rev().collect()),
        };
        // SAFETY: `entries` is page-aligned, holds `count` entries, and outlives the ring: the
        // owner (`ring.rs`) drops the IoUring before the Buffers.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                count,
                GROUP,
                0,
            )?;
        }
        buffers.top_up();
        Ok(buffers)
    }

    fn base(&self, id: u16) -> *mut u8 {
        debug_assert!(id <= self.mask);
        // SAFETY: `id` ≤ mask, so the offset lies inside the allocation of count × stride bytes.
        unsafe { self.memory.as_ptr().add(id as usize * self.stride) }
    }

    /// The kernel took buffer `id`; it is ours until recycled.
    pub(super) fn taken(&self) {
        self.offered.set(self.offered.get().saturating_sub(1));
    }

    /// The kernel found no buffer: offer more at a time from now on.
    pub(super) fn ran_dry(&self) {
        self.depth.set(self.depth.get().saturating_mul(2).min(self.mask + 1));
    }

    fn recycle(&self, id: u16) {
        self.reserve.borrow_mut().push(id);
    }

    /// Fills the kernel's ring up to the wanted depth. Called once per turn, before entering.
    pub(super) fn top_up(&self) {
        let mut reserve = self.reserve.borrow_mut();
        let mut tail = self.tail.get();
        let before = tail;
        while self.offered.get() < self.depth.get() {
            let Some(id) = reserve.pop() else { break };
            // SAFETY: the index is masked to the ring's size; the kernel reads an entry only after
            // the tail store below makes it visible. Writing fields one by one leaves `resv` of
            // entry 0 (where the kernel keeps the tail) alone.
            unsafe {
                let entry = &mut *self.entries.as_ptr().add((tail & self.mask) as usize);
                entry.set_addr(self.base(id).add(HEADROOM) as u64);
                entry.set_len((self.stride - HEADROOM) as u32);
                entry.set_bid(id);
            }
            tail = tail.wrapping_add(1);
            self.offered.set(self.offered.get() + 1);
        }
        if tail != before {
            self.tail.set(tail);
            // SAFETY: BufRingEntry::tail gives the address of the ring's tail, a u16 that the
            // kernel reads with acquire; it lives as long as `entries`.
            unsafe {
                let kernel_tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
                AtomicU16::from_ptr(kernel_tail).store(tail, Ordering::Release);
            }
        }
    }

    /// Buffers that are neither offered nor held back: those in chunks.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.mask as usize + 1 - self.reserve.borrow().len() - self.offered.get() as usize
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with these layouts; the ring is gone and every Chunk holds an
        // Rc of this value, so no one else can reach the memory.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), self.layout.0);
            dealloc(self.memory.as_ptr(), self.layout.1);
        }
    }
}

enum Backing {
    Ring {
        buffers: Rc<Buffers>,
        id: u16,
    },
    Heap(Vec<u8>),
    /// Others have it, too; it is never changed.
    Shared(Bytes),
}

/// Received bytes, owned. Dropping it gives the buffer back.
pub struct Chunk {
    backing: Backing,
    start: u32,
    end: u32,
}

impl Chunk {
    /// Takes over what the kernel wrote: `len` bytes into buffer `id`.
    pub(super) fn received(buffers: &Rc<Buffers>, id: u16, len: usize) -> Option<Chunk> {
        if id > buffers.mask || len > buffers.stride - HEADROOM {
            return None;
        }
        buffers.taken();
        Some(Chunk {
            backing: Backing::Ring { buffers: buffers.clone(), id },
            start: HEADROOM as u32,
            end: (HEADROOM + len) as u32,
        })
    }

    /// A chunk of its own memory. `bytes.len()` must fit 32 bits, as every buffer here does.
    pub fn from_vec(bytes: Vec<u8>) -> Chunk {
        let end = u32::try_from(bytes.len()).expect("a chunk is bounded by limits.rs");
        Chunk { backing: Backing::Heap(bytes), start: 0, end }
    }

    /// Bytes that others have, too, without a copy. Their number must fit 32 bits.
    pub fn shared(bytes: Bytes) -> Chunk {
        let end = u32::try_from(bytes.len()).expect("a chunk is bounded by limits.rs");
        Chunk { backing: Backing::Shared(bytes), start: 0, end }
    }

    /// The first `n` bytes, and what follows, both without a copy. `None`: the bytes are not shared, or
    /// there is nothing to be cut.
    pub fn cut(&mut self, n: usize) -> Option<Chunk> {
        let Backing::Shared(bytes) = &self.backing else { return None };
        if n == 0 || n >= self.len() {
            return None;
        }
        let bytes = bytes.clone();
        let first = Chunk {
            backing: Backing::Shared(bytes),
            start: self.start,
            end: self.start + n as u32,
        };
        self.advance(n);
        Some(first)
    }

    /// A heap copy of `bytes` with room before them.
    pub fn copy_of(bytes: &[u8]) -> Chunk {
        let mut memory = Vec::with_capacity(HEADROOM + bytes.len());
        memory.resize(HEADROOM, 0);
        memory.extend_from_slice(bytes);
        let mut chunk = Chunk::from_vec(memory);
        chunk.start = HEADROOM as u32;
        chunk
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let (start, end) = (self.start as usize, self.end as usize);
        match &self.backing {
            // SAFETY: start ≤ end ≤ stride (kept by every method), the buffer belongs to this
            // chunk alone until it is recycled in drop, and it was zeroed at allocation.
            Backing::Ring { buffers, id } => unsafe {
                std::slice::from_raw_parts(buffers.base(*id).add(start), end - start)
            },
            Backing::Heap(bytes) => &bytes[start..end],
            Backing::Shared(bytes) => &bytes[start..end],
        }
    }

    /// The same bytes, to be changed in place (TLS decrypts there).
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if let Backing::Shared(_) = self.backing {
            *self = Chunk::copy_of(self.bytes());
        }
        let (start, end) = (self.start as usize, self.end as usize);
        match &mut self.backing {
            Backing::Shared(_) => &mut [],
            // SAFETY: as in `bytes`; `self` is borrowed mutably, so no other slice of it lives.
            Backing::Ring { buffers, id } => unsafe {
                std::slice::from_raw_parts_mut(buffers.base(*id).add(start), end - start)
            },
            Backing::Heap(bytes) => &mut bytes[start..end],
        }
    }

    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets the first `n` bytes (all of them if there are fewer).
    #[inline]
    pub fn advance(&mut self, n: usize) {
        self.start = (self.start as usize + n).min(self.end as usize) as u32;
    }

    /// Keeps only the first `n` bytes.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.end = self.end.min((self.start as usize + n).min(u32::MAX as usize) as u32);
    }

    /// Cuts the chunk at `n` and returns what follows as a heap copy (rare: only pipelined input
    /// has anything there).
    pub fn split_off(&mut self, n: usize) -> Chunk {
        let rest = Chunk::copy_of(self.bytes().get(n..).unwrap_or_default());
        self.truncate(n);
        rest
    }

    /// Puts `head` right before the bytes, if the room there suffices.
    #[inline]
    pub fn prepend(&mut self, head: &[u8]) -> bool {
        if head.is_empty() {
            return true;
        }
        let Some(start) = (self.start as usize).checked_sub(head.len()) else { return false };
        match &mut self.backing {
            // SAFETY: start ≤ self.start and start + head.len() == self.start, inside the buffer
            // that this chunk owns; `head` borrows other memory, as `self` is borrowed mutably.
            Backing::Ring { buffers, id } => unsafe {
                std::ptr::copy_nonoverlapping(
                    head.as_ptr(),
                    buffers.base(*id).add(start),
                    head.len(),
                );
            },
            Backing::Heap(bytes) => bytes[start..start + head.len()].copy_from_slice(head),
            Backing::Shared(_) => return false,
        }
        self.start = start as u32;
        true
    }

    /// Puts `tail` right behind the bytes, if the room there suffices. Whatever was cut off there
    /// is overwritten.
    pub fn append(&mut self, tail: &[u8]) -> bool {
        if tail.is_empty() {
            return true;
        }
        let end = self.end as usize;
        match &mut self.backing {
            Backing::Shared(_) => return false,
            Backing::Ring { buffers, id } => {
                if tail.len() > buffers.stride - end {
                    return false;
                }
                // SAFETY: end + tail.len() ≤ stride, inside the buffer that this chunk owns.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        tail.as_ptr(),
                        buffers.base(*id).add(end),
                        tail.len(),
                    );
                }
            }
            Backing::Heap(bytes) => {
                bytes.truncate(end);
                bytes.extend_from_slice(tail);
            }
        }
        self.end += tail.len() as u32;
        true
    }

    /// Whether it occupies a buffer of the shard's ring (which others wait for).
    pub fn is_ring(&self) -> bool {
        matches!(self.backing, Backing::Ring { .. })
    }
}

impl Drop for Chunk {
    #[inline]
    fn drop(&mut self) {
        if let Backing::Ring { buffers, id } = &self.backing {
            buffers.recycle(*id);
        }
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}
