//! Decoding of header blocks.

use super::field::Class;
use super::huffman;
use super::table::{OVERHEAD, Table, judge};
use crate::message::Span;

/// Why a block cannot be decoded. The connection is over then, as its state is lost
/// (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends inside a field.
    Truncated,
    /// An integer that is too large (RFC 7541 §5.1).
    Integer,
    /// No entry has that index (§2.3.3).
    Index,
    /// Broken Huffman code (§5.2).
    Huffman,
    /// A table size above the setting, not at the block's beginning, or missing (§4.2, §6.3).
    TableSize,
    /// The decoded block is so large that not even its end is waited for.
    TooLarge,
}

impl HpackError {
    pub fn reason(self) -> &'static str {
        match self {
            HpackError::Truncated => "header block ends inside a field",
            HpackError::Integer => "HPACK integer overflows",
            HpackError::Index => "HPACK index without entry",
            HpackError::Huffman => "broken Huffman code",
            HpackError::TableSize => "HPACK table size is wrong",
            HpackError::TooLarge => "header block decodes to far too much",
        }
    }
}

/// Bounds of one decoded block.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// By RFC 9113 §6.5.2: 32 bytes per field on top. Beyond it contents are dropped.
    pub size: usize,
    pub fields: usize,
    /// Size and fields past which decoding is given up, as multiples of the above.
    pub give_up: usize,
}

/// Takes the fields of a block.
pub trait Sink {
    /// The buffer that names and values are appended to.
    fn bytes(&mut self) -> &mut Vec<u8>;

    /// A field that was appended. `valid`: its bytes may stand in a message.
    fn field(&mut self, name: Span, value: Span, class: Class, valid: bool);

    /// The block is over a limit; nothing more is appended.
    fn too_large(&mut self);
}

/// What is still allowed, and what has been found.
struct Count {
    size: usize,
    fields: usize,
    over: bool,
}

/// The decoding end of one direction of a connection.
pub struct Decoder {
    table: Table,
    /// The largest table that the peer may ask for: our setting, once acknowledged.
    allowed: usize,
}

impl Decoder {
    pub fn new(allowed: usize) -> Decoder {
        // Until a size update comes, the table has the protocol's first size (RFC 9113 §6.5.2).
        Decoder { table: Table::new(4096), allowed: allowed.max(4096) }
    }

    /// The peer has acknowledged the setting.
    pub fn acknowledged(&mut self, allowed: usize) {
        self.allowed = allowed;
    }

    #[cfg(test)]
    pub(super) fn dump(&self) -> (Vec<(String, String)>, usize) {
        self.table.dump()
    }

    #[cfg(test)]
    pub(super) fn table_max(&self) -> usize {
        self.table.max()
    }

    /// Decodes one whole block into `sink`.
    ///
    /// # Errors
    /// The block is broken, or decodes to far more than `limits` allow.
    pub fn decode(
        &mut self,
        mut block: &[u8],
        limits: &Limits,
        sink: &mut impl Sink,
    ) -> Result<(), HpackError> {
        while let [first @ 0x20..=0x3f, rest @ ..] = block {
            let size = integer(*first, 5, rest, &mut block)?;
            if size > self.allowed {
                return Err(HpackError::TableSize);
            }
            self.table.resize(size);
        }
        if self.table.max() > self.allowed {
            return Err(HpackError::TableSize); // RFC 7541 §4.2: it had to be reduced first.
        }
        let mut count = Count { size: 0, fields: 0, over: false };
        while let [first, rest @ ..] = block {
            match first {
                0x80.. => {
                    let index = integer(*first, 7, rest, &mut block)?;
                    self.indexed(index, limits, &mut count, sink)?;
                }
                0x40..=0x7f => {
                    let index = integer(*first, 6, rest, &mut block)?;
                    self.literal(index, true, &mut block, limits, &mut count, sink)?;
                }
                0x20..=0x3f => return Err(HpackError::TableSize),
                0..=0x1f => {
                    let index = integer(*first, 4, rest, &mut block)?;
                    self.literal(index, false, &mut block, limits, &mut count, sink)?;
                }
            }
        }
        Ok(())
    }

    /// RFC 7541 §6.1.
    #[inline]
    fn indexed(
        &self,
        index: usize,
        limits: &Limits,
        count: &mut Count,
        sink: &mut impl Sink,
    ) -> Result<(), HpackError> {
        let entry = self.table.get(index).ok_or(HpackError::Index)?;
        if admit(entry.name.len() + entry.value.len() + OVERHEAD, limits, count, sink)? {
            let bytes = sink.bytes();
            let start = bytes.len();
            bytes.extend_from_slice(entry.name);
            let middle = bytes.len();
            bytes.extend_from_slice(entry.value);
            let end = bytes.len();
            sink.field(span(start, middle), span(middle, end), entry.class, entry.valid);
        }
        Ok(())
    }

    /// RFC 7541 §6.2: the name by index or as it is, the value as it is.
    #[inline]
    fn literal(
        &mut self,
        index: usize,
        insert: bool,
        block: &mut &[u8],
        limits: &Limits,
        count: &mut Count,
        sink: &mut impl Sink,
    ) -> Result<(), HpackError> {
        // Even what will be dropped has to be decoded if it can enter the table.
        let room = limits.size.saturating_sub(count.size).max(self.table.max());
        let bytes = sink.bytes();
        let start = bytes.len();
        let (name_len, known) = if index == 0 {
            (string(block, bytes, room)?, None)
        } else {
            let entry = self.table.get(index).ok_or(HpackError::Index)?;
            bytes.extend_from_slice(entry.name);
            (entry.name.len(), Some(entry.class))
        };
        let middle = bytes.len();
        let value_len = string(block, bytes, room)?;
        let end = bytes.len();
        let size = name_len.saturating_add(value_len).saturating_add(OVERHEAD);
        let name = bytes.get(start..middle).unwrap_or_default();
        let value = bytes.get(middle..end).unwrap_or_default();
        let (class, valid) = match known {
            Some(class) => (class, class != Class::Invalid && super::value_is_valid(value)),
            None => judge(name, value),
        };
        if insert {
            self.table.insert(name, value, size, class, valid);
        }
        if admit(size, limits, count, sink)? {
            sink.field(span(start, middle), span(middle, end), class, valid);
        } else {
            sink.bytes().truncate(start);
        }
        Ok(())
    }
}

fn span(start: usize, end: usize) -> Span {
    Span { start: start as u32, end: end as u32 }
}

/// Counts a field in. False: it is past the limits, drop it.
#[inline]
fn admit(
    size: usize,
    limits: &Limits,
    count: &mut Count,
    sink: &mut impl Sink,
) -> Result<bool, HpackError> {
    count.size = count.size.saturating_add(size);
    count.fields += 1;
    if count.size <= limits.size && count.fields <= limits.fields {
        return Ok(true);
    }
    if count.size / limits.give_up > limits.size || count.fields / limits.give_up > limits.fields {
        return Err(HpackError::TooLarge);
    }
    if !std::mem::replace(&mut count.over, true) {
        sink.too_large();
    }
    Ok(false)
}

/// An integer with a prefix of `bits` bits in `first` (RFC 7541 §5.1). `block` becomes what follows.
#[inline]
fn integer<'a>(
    first: u8,
    bits: u32,
    mut rest: &'a [u8],
    block: &mut &'a [u8],
) -> Result<usize, HpackError> {
    let mask = (1usize << bits) - 1;
    let mut value = usize::from(first) & mask;
    if value == mask {
        // Up to four more bytes: 28 bits, far more than any length or index here can be.
        let mut shift = 0;
        loop {
            let (&byte, behind) = rest.split_first().ok_or(HpackError::Truncated)?;
            rest = behind;
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
            if shift > 21 {
                return Err(HpackError::Integer);
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// A string literal (RFC 7541 §5.2), appended to `out` as far as `room` goes. Returns its length.
#[inline]
fn string(block: &mut &[u8], out: &mut Vec<u8>, room: usize) -> Result<usize, HpackError> {
    let (&first, rest) = block.split_first().ok_or(HpackError::Truncated)?;
    let length = integer(first, 7, rest, block)?;
    let (text, rest) = block.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *block = rest;
    if first & 0x80 != 0 {
        return huffman::decode(text, out, room).map_err(|_| HpackError::Huffman);
    }
    out.extend_from_slice(text.get(..room).unwrap_or(text));
    Ok(length)
}
