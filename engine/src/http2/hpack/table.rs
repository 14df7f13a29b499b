//! The tables that indices point into: the static one of RFC 7541 Appendix A, and the dynamic one
//! of a decoder.

use std::collections::VecDeque;

use super::field::{Class, value_is_valid};

/// Appendix A, from index 1.
pub(super) const STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// The class of each static name.
const CLASSES: [Class; 61] = {
    let mut classes = [Class::Regular; 61];
    let mut n = 0;
    while n < 61 {
        classes[n] = Class::of(STATIC[n].0);
        n += 1;
    }
    classes
};

/// What the size of an entry counts on top of its bytes (RFC 7541 §4.1).
pub(super) const OVERHEAD: usize = 32;

/// A field that an index names.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    pub class: Class,
    /// Whether name and value are allowed to stand in a message.
    pub valid: bool,
}

#[derive(Clone, Copy)]
struct Place {
    start: u32,
    name: u32,
    value: u32,
    class: Class,
    valid: bool,
}

impl Place {
    fn size(&self) -> usize {
        self.name as usize + self.value as usize + OVERHEAD
    }
}

/// A decoder's dynamic table: the bytes of all entries in one buffer, the oldest first.
pub(super) struct Table {
    bytes: Vec<u8>,
    /// The newest first, as indices count.
    places: VecDeque<Place>,
    size: usize,
    max: usize,
}

impl Table {
    pub(super) fn new(max: usize) -> Table {
        Table { bytes: Vec::new(), places: VecDeque::new(), size: 0, max }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// The field at `index` (RFC 7541 §2.3.3): the static table from 1, the dynamic one from 62.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<Entry<'_>> {
        let n = index.checked_sub(1)?;
        if let (Some(&(name, value)), Some(&class)) = (STATIC.get(n), CLASSES.get(n)) {
            return Some(Entry { name, value, class, valid: true });
        }
        let place = self.places.get(n - STATIC.len())?;
        let start = place.start as usize;
        let middle = start + place.name as usize;
        Some(Entry {
            name: self.bytes.get(start..middle)?,
            value: self.bytes.get(middle..middle + place.value as usize)?,
            class: place.class,
            valid: place.valid,
        })
    }

    /// RFC 7541 §4.3: entries that do not fit any more go.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict(0);
        if self.places.is_empty() {
            self.bytes = Vec::new();
        }
    }

    fn evict(&mut self, room: usize) {
        while self.size + room > self.max {
            let Some(oldest) = self.places.pop_back() else { break };
            self.size -= oldest.size();
        }
    }

    /// RFC 7541 §4.4: puts a field in front; one that is too large empties the table. `name` and
    /// `value` may be shorter than `size` says if they are too large.
    pub(super) fn insert(
        &mut self,
        name: &[u8],
        value: &[u8],
        size: usize,
        class: Class,
        valid: bool,
    ) {
        self.evict(size);
        if size > self.max {
            return;
        }
        let length = name.len() + value.len();
        // Twice the table's bytes at most: what has been evicted in front is squeezed out.
        if self.bytes.len() + length > 2 * self.max {
            self.squeeze();
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let (name, value) = (name.len() as u32, value.len() as u32);
        self.places.push_front(Place { start, name, value, class, valid });
        self.size += size;
    }

    fn squeeze(&mut self) {
        let gone = match self.places.back() {
            Some(oldest) => oldest.start as usize,
            None => self.bytes.len(),
        };
        self.bytes.drain(..gone.min(self.bytes.len()));
        for place in &mut self.places {
            place.start -= gone as u32;
        }
    }

    /// Entries from the newest, and the size: what Appendix C prints.
    #[cfg(test)]
    pub(super) fn dump(&self) -> (Vec<(String, String)>, usize) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let entries = (62..).map_while(|index| self.get(index));
        (entries.map(|entry| (text(entry.name), text(entry.value))).collect(), self.size)
    }
}

/// Whether a literal may stand in a message.
#[inline]
pub(super) fn judge(name: &[u8], value: &[u8]) -> (Class, bool) {
    let class = Class::of(name);
    (class, class != Class::Invalid && value_is_valid(value))
}
