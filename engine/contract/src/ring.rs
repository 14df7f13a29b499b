//! The ring from a shard to control: one writer, one reader, messages of bytes.
//!
//! Positions are byte counts that only grow; `tail` is where the writer writes next, `head` where
//! the reader reads next, `position & mask` the place in the buffer. Both live in the shared memory,
//! so that a restarted writer or reader continues where the last one stopped. A message is an 8-byte
//! header (length, and the length again under a mask) and its bytes, padded to 8; one that would
//! cross the end of the buffer starts over at its beginning, behind a header that says so.
//!
//! The writer never waits: a full ring refuses. The reader believes nothing: whatever it finds, it
//! either delivers a message that lies in the buffer or skips to the writer's tail and counts that.

use crate::sync::{AtomicU64, Ordering};

#[cfg(loom)]
pub(crate) use modelled::RingMemory;
#[cfg(not(loom))]
pub(crate) use shared::RingMemory;

/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 4096;
/// Smallest buffer of a ring in a segment, in bytes: several of the longest messages.
pub const MIN_RING: u32 = 16 * 1024;
/// Largest buffer of a ring in a segment, in bytes.
pub const MAX_RING: u32 = 256 * 1024 * 1024;

const HEADER: usize = 8;
/// In place of a length: nothing more up to the end of the buffer.
const SKIP: u32 = u32::MAX;
/// The second half of a header is the first under this mask: scribbled memory rarely has that.
const CHECK: u32 = 0x51CE_5A17;

/// The two positions, on cache lines of their own (two lines each, for the adjacent-line prefetch).
#[repr(C)]
pub(crate) struct Positions {
    tail: OwnLine,
    head: OwnLine,
}

#[repr(C, align(128))]
struct OwnLine(AtomicU64);

fn header(len: u32) -> u64 {
    u64::from(len) | u64::from(len ^ CHECK) << 32
}

/// Bytes that a message of `len` takes in the buffer.
fn footprint(len: usize) -> usize {
    HEADER + len.next_multiple_of(8)
}

/// The writing end. One at a time may exist; see [`Segment::ring_writer`](crate::Segment).
pub struct RingWriter {
    memory: RingMemory,
    tail: u64,
    /// The reader's position as last seen: the shared one is read only when the ring seems full.
    head: u64,
}

impl RingWriter {
    pub(crate) fn new(memory: RingMemory) -> RingWriter {
        let positions = memory.positions();
        let found = positions.tail.0.load(Ordering::Acquire);
        // A multiple of 8 unless somebody scribbled; the reader skips to it either way.
        let tail = found.wrapping_add(7) & !7;
        if tail != found {
            positions.tail.0.store(tail, Ordering::Release);
        }
        let head = positions.head.0.load(Ordering::Acquire);
        RingWriter { memory, tail, head }
    }

    /// Appends a message. False: it did not fit and is dropped. Never waits.
    #[inline]
    pub fn push(&mut self, message: &[u8]) -> bool {
        self.push_with(message.len(), |room| {
            room.copy_from_slice(message);
            Some(message.len())
        })
    }

    /// Appends a record, encoded in place. False: it did not fit and is dropped. Never waits.
    #[inline]
    pub fn push_record(&mut self, record: &crate::Record<'_>) -> bool {
        self.push_with(record.encoded_len(), |room| record.encode_into(room))
    }

    /// Appends a message that `fill` writes into `len` bytes of the ring itself; it returns how many
    /// of them it used, or `None` to append nothing. False: nothing was appended.
    ///
    /// The bytes that `fill` is given hold whatever was there before.
    #[inline]
    pub fn push_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let capacity = self.memory.capacity();
        let need = footprint(len);
        // Half a buffer at most, so that a message with a skip before it fits an empty ring.
        if len > MAX_MESSAGE || need > capacity / 2 {
            return false;
        }
        let place = self.memory.place(self.tail);
        let to_end = capacity - place;
        let skip = if need > to_end { to_end } else { 0 };
        if self.free() < skip + need {
            self.head = self.memory.positions().head.0.load(Ordering::Acquire);
            if self.free() < skip + need {
                return false;
            }
        }
        let at = if skip > 0 { 0 } else { place };
        let Some(used) = self.memory.write(at + HEADER, len, fill) else { return false };
        let used = used.min(len);
        if skip > 0 {
            self.memory.write_header(place, header(SKIP));
        }
        // At most MAX_MESSAGE.
        self.memory.write_header(at, header(used as u32));
        self.tail = self.tail.wrapping_add((skip + footprint(used)) as u64);
        self.memory.positions().tail.0.store(self.tail, Ordering::Release);
        true
    }

    /// Bytes between the tail and the head; 0 if the head cannot be one (the reader scribbled).
    #[inline]
    fn free(&self) -> usize {
        let used = self.tail.wrapping_sub(self.head);
        (self.memory.capacity() as u64).saturating_sub(used) as usize
    }
}

/// The reading end. One at a time may exist; see [`Segment::ring_reader`](crate::Segment).
pub struct RingReader {
    memory: RingMemory,
    head: u64,
    corruptions: u64,
    /// A message is copied out before anybody looks at it, so that it cannot change under them.
    message: Box<[u8; MAX_MESSAGE]>,
}

impl RingReader {
    pub(crate) fn new(memory: RingMemory) -> RingReader {
        let head = memory.positions().head.0.load(Ordering::Acquire);
        RingReader { memory, head, corruptions: 0, message: Box::new([0; MAX_MESSAGE]) }
    }

    /// Gives every message that is in the ring at this moment to `take`, oldest first, and returns
    /// how many there were. A message is out of the ring before `take` sees it: a panic in there
    /// loses it, and does not repeat it.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8])) -> usize {
        let tail = self.memory.positions().tail.0.load(Ordering::Acquire);
        let mut count = 0;
        while self.head != tail {
            match self.next(tail) {
                Some(Next::Message(len)) => {
                    count += 1;
                    take(self.message.get(..len).unwrap_or_default());
                }
                Some(Next::Skipped) => {}
                None => {
                    self.corruptions += 1;
                    self.release(tail & !7);
                    break;
                }
            }
        }
        count
    }

    /// How often the ring held something that no writer of ours writes, so that messages were lost.
    pub fn corruptions(&self) -> u64 {
        self.corruptions
    }

    /// Takes what is at the head, known to be before `tail`. `None`: that is not a ring.
    fn next(&mut self, tail: u64) -> Option<Next> {
        let capacity = self.memory.capacity();
        let filled = usize::try_from(tail.wrapping_sub(self.head)).ok()?;
        if filled > capacity || !filled.is_multiple_of(8) || !self.head.is_multiple_of(8) {
            return None;
        }
        let place = self.memory.place(self.head);
        let to_end = capacity - place;
        let found = self.memory.read_header(place);
        let len = found as u32;
        if found != header(len) {
            return None;
        }
        if len == SKIP {
            if to_end > filled {
                return None;
            }
            self.release(self.head.wrapping_add(to_end as u64));
            return Some(Next::Skipped);
        }
        let len = len as usize;
        let into = self.message.get_mut(..len)?;
        let taken = footprint(len);
        if taken > filled || taken > to_end {
            return None;
        }
        self.memory.read(place + HEADER, into);
        self.release(self.head.wrapping_add(taken as u64));
        Some(Next::Message(len))
    }

    fn release(&mut self, head: u64) {
        self.head = head;
        // Release: our copy out of the buffer comes before the writer's next use of it.
        self.memory.positions().head.0.store(head, Ordering::Release);
    }
}

enum Next {
    Message(usize),
    Skipped,
}

/// The ring's memory as it is: in a segment, shared with another process.
#[cfg(not(loom))]
mod shared {
    use super::Positions;
    use crate::segment::Claim;
    use std::ptr::NonNull;

    /// Positions and buffer of one ring, and the right to use one end of it.
    pub(crate) struct RingMemory {
        positions: NonNull<Positions>,
        buffer: NonNull<u8>,
        capacity: usize,
        /// Keeps the mapping, and keeps others from the same end.
        _claim: Claim,
    }

    // SAFETY: the pointers are into a mapping of the process, kept by the claim; positions are
    // atomics, and an end is used through `&mut` of its only owner.
    unsafe impl Send for RingMemory {}

    impl RingMemory {
        /// # Safety
        /// `positions` and `capacity` bytes at `buffer` lie in the mapping that `claim` keeps, both
        /// aligned as their types ask (the buffer to 8) and not overlapping; `capacity` is a power of two ≥ 16.
        pub(crate) unsafe fn new(
            positions: NonNull<Positions>,
            buffer: NonNull<u8>,
            capacity: usize,
            claim: Claim,
        ) -> RingMemory {
            debug_assert!(capacity.is_power_of_two());
            RingMemory { positions, buffer, capacity, _claim: claim }
        }

        #[inline]
        pub(super) fn positions(&self) -> &Positions {
            // SAFETY: in the mapping and aligned (`new`), made of atomics only.
            unsafe { self.positions.as_ref() }
        }

        #[inline]
        pub(super) fn capacity(&self) -> usize {
            self.capacity
        }

        #[inline]
        pub(super) fn place(&self, position: u64) -> usize {
            position as usize & (self.capacity - 1)
        }

        #[inline]
        pub(super) fn write<R>(
            &mut self,
            at: usize,
            len: usize,
            fill: impl FnOnce(&mut [u8]) -> R,
        ) -> R {
            assert!(at <= self.capacity && len <= self.capacity - at);
            // SAFETY: inside the buffer (asserted). The range is behind the reader's head, so the
            // reader does not look at it until the tail is stored with Release, and the writer is
            // one (`&mut self` of the claimed end). Any bytes are valid u8.
            fill(unsafe { std::slice::from_raw_parts_mut(self.buffer.as_ptr().add(at), len) })
        }

        #[inline]
        pub(super) fn write_header(&mut self, at: usize, header: u64) {
            assert!(at + 8 <= self.capacity && at.is_multiple_of(8));
            // SAFETY: inside the buffer and aligned (asserted); exclusive as in `write`.
            unsafe { self.buffer.as_ptr().add(at).cast::<u64>().write(header) }
        }

        #[inline]
        pub(super) fn read_header(&self, at: usize) -> u64 {
            assert!(at + 8 <= self.capacity && at.is_multiple_of(8));
            // SAFETY: inside the buffer and aligned (asserted). Volatile: should the writer break
            // the protocol, we still judge the one value that we then use.
            unsafe { self.buffer.as_ptr().add(at).cast::<u64>().read_volatile() }
        }

        #[inline]
        pub(super) fn read(&self, at: usize, into: &mut [u8]) {
            assert!(at <= self.capacity && into.len() <= self.capacity - at);
            // SAFETY: inside the buffer (asserted); `into` is private memory, so they do not overlap.
            unsafe {
                self.buffer.as_ptr().add(at).copy_to_nonoverlapping(into.as_mut_ptr(), into.len());
            }
        }
    }
}

/// The ring's memory as loom watches it: every word in a cell that reports unordered access.
#[cfg(loom)]
mod modelled {
    use super::{OwnLine, Positions};
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;

    #[derive(Clone)]
    pub(crate) struct RingMemory {
        shared: Arc<(Positions, Vec<UnsafeCell<[u8; 8]>>)>,
    }

    // SAFETY: loom checks every access to the cells; that is what this type is for.
    unsafe impl Send for RingMemory {}

    impl RingMemory {
        pub(super) fn new(capacity: usize) -> RingMemory {
            let line = || OwnLine(AtomicU64::new(0));
            let words = (0..capacity / 8).map(|_| UnsafeCell::new([0; 8])).collect();
            RingMemory { shared: Arc::new((Positions { tail: line(), head: line() }, words)) }
        }

        pub(super) fn positions(&self) -> &Positions {
            &self.shared.0
        }

        pub(super) fn capacity(&self) -> usize {
            self.shared.1.len() * 8
        }

        pub(super) fn place(&self, position: u64) -> usize {
            position as usize & (self.capacity() - 1)
        }

        pub(super) fn write<R>(
            &mut self,
            at: usize,
            len: usize,
            fill: impl FnOnce(&mut [u8]) -> R,
        ) -> R {
            let mut bytes = vec![0; len.next_multiple_of(8)];
            let result = fill(&mut bytes[..len]);
            for (cell, chunk) in self.shared.1[at / 8..].iter().zip(bytes.chunks(8)) {
                // SAFETY: loom reports it if another thread accesses the cell meanwhile.
                cell.with_mut(|word| unsafe { *word = chunk.try_into().unwrap() });
            }
            result
        }

        pub(super) fn write_header(&mut self, at: usize, header: u64) {
            // SAFETY: as in `write`.
            self.shared.1[at / 8].with_mut(|word| unsafe { *word = header.to_ne_bytes() });
        }

        pub(super) fn read_header(&self, at: usize) -> u64 {
            // SAFETY: as in `write`.
            self.shared.1[at / 8].with(|word| u64::from_ne_bytes(unsafe { *word }))
        }

        pub(super) fn read(&self, at: usize, into: &mut [u8]) {
            for (cell, chunk) in self.shared.1[at / 8..].iter().zip(into.chunks_mut(8)) {
                // SAFETY: as in `write`.
                let word = cell.with(|word| unsafe { *word });
                chunk.copy_from_slice(&word[..chunk.len()]);
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    // The ends are made before the threads start. loom looks for a race with the last access to an
    // atomic only, so a writer made in its thread would hide the reader's loads behind its own
    // first load of the tail, and a single interleaving would be explored. The sets of outcomes
    // below would show that.

    /// Messages of one word through a buffer of four: every push contends with the reader's head,
    /// and the ring wraps.
    #[test]
    fn loom_messages_arrive_whole_in_order_or_not_at_all() {
        let outcomes = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&outcomes);
        loom::model(move || {
            let memory = RingMemory::new(32);
            let mut reader = RingReader::new(memory.clone());
            let mut writer = RingWriter::new(memory);
            let writer = loom::thread::spawn(move || {
                (1..=3u8).filter(|n| writer.push(&[*n; 8])).collect::<Vec<_>>()
            });
            let mut got = Vec::new();
            let mut drain = |reader: &mut RingReader| {
                reader.drain(|message| {
                    assert_eq!(message.len(), 8);
                    assert!(message.iter().all(|byte| *byte == message[0]));
                    got.push(message[0]);
                })
            };
            let early = drain(&mut reader) + drain(&mut reader);
            let pushed = writer.join().unwrap();
            drain(&mut reader);
            assert_eq!(got, pushed);
            assert_eq!(reader.corruptions(), 0);
            seen.lock().unwrap().insert((early, pushed.len()));
        });
        // Nothing, a part or all taken while the writer ran; a third message only into freed room.
        let outcomes = outcomes.lock().unwrap();
        for outcome in [(0, 2), (1, 2), (1, 3), (2, 3), (3, 3)] {
            assert!(outcomes.contains(&outcome), "{outcome:?} not among {outcomes:?}");
        }
        assert!(!outcomes.contains(&(0, 3)), "a third message over two unread ones");
    }

    /// A writer that dies between two messages, and one that follows it.
    #[test]
    fn loom_a_new_writer_continues() {
        let outcomes = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&outcomes);
        loom::model(move || {
            let memory = RingMemory::new(32);
            let mut reader = RingReader::new(memory.clone());
            let mut first = RingWriter::new(memory.clone());
            let writers = loom::thread::spawn(move || {
                assert!(first.push(&[1; 3]));
                drop(first);
                assert!(RingWriter::new(memory).push(&[2; 3]));
            });
            let mut got = Vec::new();
            let early = reader.drain(|message| got.push(message.to_vec()));
            writers.join().unwrap();
            reader.drain(|message| got.push(message.to_vec()));
            assert_eq!(got, [vec![1; 3], vec![2; 3]]);
            assert_eq!(reader.corruptions(), 0);
            seen.lock().unwrap().insert(early);
        });
        assert_eq!(*outcomes.lock().unwrap(), BTreeSet::from([0, 1, 2]));
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
