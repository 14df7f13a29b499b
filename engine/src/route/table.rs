//! One flat hash table of byte strings in contexts: the edges of all trees, and the hosts.
//!
//! Keeping every edge of every tree in one open-addressed array makes a step down a tree one probe
//! of a small slot, however many children a node has.

/// From (context, bytes) to a number. Filled when a Plan is built, only read afterwards.
#[derive(Debug)]
pub(super) struct Table {
    /// Length is a power of two, at most half of it filled.
    slots: Vec<Slot>,
    filled: usize,
    /// The keys, end to end.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Upper half of the key's hash.
    tag: u32,
    context: u32,
    start: u32,
    len: u32,
    /// [`EMPTY`]: nothing is here.
    value: u32,
}

/// Most keys of one table.
const MAX_KEYS: usize = 4 << 20;
/// Most bytes of all keys of one table; well inside the `u32` that a slot's `start` is.
const MAX_KEY_BYTES: usize = 256 << 20;

const EMPTY: u32 = u32::MAX;
const FREE: Slot = Slot { tag: 0, context: 0, start: 0, len: 0, value: EMPTY };

impl Table {
    pub(super) fn new() -> Table {
        Table { slots: vec![FREE; 8], filled: 0, bytes: Vec::new() }
    }

    #[inline]
    pub(super) fn get(&self, context: u32, key: &[u8]) -> Option<u32> {
        let hash = hash(context, key);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        // Ends: at least half of the slots are free.
        loop {
            let slot = self.slots.get(at)?;
            if slot.value == EMPTY {
                return None;
            }
            if slot.tag == (hash >> 32) as u32
                && slot.context == context
                && slot.len as usize == key.len()
                && self.key(slot) == key
            {
                return Some(slot.value);
            }
            at = (at + 1) & mask;
        }
    }

    /// The value of a key, `value` if it is new. `None`: the table is full.
    pub(super) fn get_or_insert(&mut self, context: u32, key: &[u8], value: u32) -> Option<u32> {
        debug_assert_ne!(value, EMPTY);
        if let Some(found) = self.get(context, key) {
            return Some(found);
        }
        if self.filled >= MAX_KEYS || self.bytes.len() + key.len() > MAX_KEY_BYTES {
            return None;
        }
        if (self.filled + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(key);
        let hash = hash(context, key);
        let tag = (hash >> 32) as u32;
        self.place(hash, Slot { tag, context, start, len: key.len() as u32, value });
        self.filled += 1;
        Some(value)
    }

    fn grow(&mut self) {
        let doubled = vec![FREE; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, doubled) {
            if slot.value != EMPTY {
                self.place(hash(slot.context, self.key(&slot)), slot);
            }
        }
    }

    fn place(&mut self, hash: u64, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].value != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    fn key(&self, slot: &Slot) -> &[u8] {
        let start = slot.start as usize;
        self.bytes.get(start..start + slot.len as usize).unwrap_or_default()
    }
}

/// A folded multiply per eight bytes. Keys are the operator's, so nobody can aim at collisions of
/// stored keys; a request can at most walk the longest run of slots.
#[inline]
fn hash(context: u32, key: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut state = fold(u64::from(context) << 32 | key.len() as u64, ODD);
    let (words, tail) = key.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), ODD);
    }
    if !tail.is_empty() {
        let last = tail.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        state = fold(state ^ last, ODD);
    }
    state
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x2545_F491_4F6C_DD1D) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_inserted_and_nothing_else() {
        let mut table = Table::new();
        let key = |i: u32| format!("key-{i}-{}", "x".repeat(i as usize % 20)).into_bytes();
        for i in 0..5000 {
            assert_eq!(table.get_or_insert(i % 7, &key(i), i), Some(i));
        }
        for i in 0..5000 {
            assert_eq!(table.get_or_insert(i % 7, &key(i), 1_000_000), Some(i), "kept");
            assert_eq!(table.get(i % 7, &key(i)), Some(i));
            assert_eq!(table.get(i % 7 + 7, &key(i)), None, "another context");
        }
        assert_eq!(table.get(0, b"key"), None);
        assert_eq!(table.get(0, b""), None);
    }

    #[test]
    fn is_bounded() {
        let mut table = Table::new();
        let long = vec![b'x'; MAX_KEY_BYTES];
        assert_eq!(table.get_or_insert(0, b"a", 1), Some(1));
        assert_eq!(table.get_or_insert(0, &long, 2), None);
        assert_eq!(table.get_or_insert(0, b"a", 3), Some(1));
        assert_eq!(table.get_or_insert(0, b"b", 4), Some(4));
    }

    #[test]
    fn hashes_spread() {
        // Keys that differ in little must not share their low bits: 4096 keys, 8192 places.
        let mut places = std::collections::HashSet::new();
        for i in 0..4096 {
            places.insert(hash(1, format!("svc-{i}").as_bytes()) as usize & 8191);
        }
        // 4096 balls fall into about 3223 of 8192 places.
        assert!(places.len() > 3000, "{} places", places.len());
    }
}
