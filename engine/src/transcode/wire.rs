//! The wire format of protocol buffers: bytes in, fields out, and back.

use super::schema::Kind;
use crate::limits;

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no message")]
pub struct Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Group = 3,
    Fixed32 = 5,
}

impl Kind {
    pub fn wire_type(self) -> WireType {
        match self {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::Fixed64,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::Fixed32,
            Kind::String | Kind::Bytes | Kind::Message(_) => WireType::Bytes,
            Kind::Group(_) => WireType::Group,
            _ => WireType::Varint,
        }
    }

    /// Whether a list of it can be packed.
    pub fn is_packable(self) -> bool {
        matches!(self.wire_type(), WireType::Varint | WireType::Fixed32 | WireType::Fixed64)
    }
}

/// One field as it stands in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    pub number: u32,
    pub wire: WireType,
    /// Varints as their value, the others as their bytes.
    pub value: u64,
    pub bytes: &'a [u8],
}

/// Reads the fields of a message one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    pub left: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn of(bytes: &'a [u8]) -> Fields<'a> {
        Fields { left: bytes }
    }

    /// The next one; `None`: there is none.
    ///
    /// # Errors
    /// The rest is no message.
    pub fn next(&mut self) -> Result<Option<Raw<'a>>, Malformed> {
        if self.left.is_empty() {
            return Ok(None);
        }
        match self.field(0)? {
            Some(raw) => Ok(Some(raw)),
            // An end without a begin.
            None => Err(Malformed),
        }
    }

    /// `None`: the end of a group.
    fn field(&mut self, depth: usize) -> Result<Option<Raw<'a>>, Malformed> {
        let tag = varint(&mut self.left)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
        if number == 0 || number > 0x1fff_ffff {
            return Err(Malformed);
        }
        let raw = |wire, value, bytes| Ok(Some(Raw { number, wire, value, bytes }));
        match tag & 7 {
            0 => raw(WireType::Varint, varint(&mut self.left)?, &[]),
            1 => {
                let bytes = self.take(8)?;
                raw(
                    WireType::Fixed64,
                    u64::from_le_bytes(bytes.try_into().map_err(|_| Malformed)?),
                    bytes,
                )
            }
            2 => {
                let len = varint(&mut self.left)?;
                let len = usize::try_from(len).map_err(|_| Malformed)?;
                raw(WireType::Bytes, 0, self.take(len)?)
            }
            3 => {
                let content = self.group(number, depth + 1)?;
                raw(WireType::Group, 0, content)
            }
            4 => Ok(None),
            5 => {
                let bytes = self.take(4)?;
                let value = u32::from_le_bytes(bytes.try_into().map_err(|_| Malformed)?);
                raw(WireType::Fixed32, u64::from(value), bytes)
            }
            _ => Err(Malformed),
        }
    }

    /// What is in a group that has begun.
    fn group(&mut self, number: u32, depth: usize) -> Result<&'a [u8], Malformed> {
        if depth > limits::MESSAGE_DEPTH {
            return Err(Malformed);
        }
        let start = self.left;
        loop {
            let before = self.left;
            if self.field(depth)?.is_none() {
                let mut end = before;
                if varint(&mut end)? >> 3 != u64::from(number) {
                    return Err(Malformed);
                }
                return start.get(..start.len() - before.len()).ok_or(Malformed);
            }
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        if len > self.left.len() {
            return Err(Malformed);
        }
        let (taken, left) = self.left.split_at(len);
        self.left = left;
        Ok(taken)
    }
}

/// # Errors
/// It does not end, or is past 64 bits.
#[inline]
pub fn varint(input: &mut &[u8]) -> Result<u64, Malformed> {
    if let Some((&byte, left)) = input.split_first()
        && byte < 0x80
    {
        *input = left;
        return Ok(u64::from(byte));
    }
    let mut value = 0u64;
    for (at, &byte) in input.iter().take(10).enumerate() {
        if at == 9 && byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *input = input.get(at + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[inline]
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub fn write_tag(out: &mut Vec<u8>, number: u32, wire: WireType) {
    write_varint(out, u64::from(number) << 3 | wire as u64);
}

pub fn write_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    write_tag(out, number, WireType::Bytes);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A part of `out` whose length goes before it.
#[must_use]
pub struct Delimited {
    start: usize,
}

/// Begins a part whose length is not known yet.
pub fn begin(out: &mut Vec<u8>) -> Delimited {
    // Most are shorter than 128 bytes, whose length takes one.
    out.push(0);
    Delimited { start: out.len() }
}

impl Delimited {
    pub fn end(self, out: &mut Vec<u8>) {
        let len = out.len() - self.start;
        if len < 0x80 {
            out[self.start - 1] = len as u8;
            return;
        }
        let mut prefix = Vec::with_capacity(10);
        write_varint(&mut prefix, len as u64);
        out.splice(self.start - 1..self.start, prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_and_lengths_are_read_as_they_are_written() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            let mut input = &out[..];
            assert_eq!((varint(&mut input), input.len()), (Ok(value), 0));
            assert_eq!(varint(&mut &out[..out.len() - 1]), Err(Malformed));
        }
        assert_eq!(varint(&mut &[0xff; 11][..]), Err(Malformed));
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
        for len in [0, 127, 128, 20_000] {
            let mut out = vec![7];
            let part = begin(&mut out);
            out.resize(out.len() + len, 1);
            part.end(&mut out);
            let mut input = &out[1..];
            assert_eq!(varint(&mut input), Ok(len as u64));
            assert_eq!(input.len(), len);
        }
    }

    #[test]
    fn groups_are_kept_together() {
        let bytes = [0x0b, 0x10, 0x05, 0x0c, 0x18, 0x07];
        let mut fields = Fields::of(&bytes);
        let group = fields.next().unwrap().unwrap();
        assert_eq!((group.number, group.wire, group.bytes), (1, WireType::Group, &bytes[1..3]));
        assert_eq!(fields.next().unwrap().unwrap().value, 7);
        assert_eq!(fields.next(), Ok(None));
        for bad in [&[0x0b][..], &[0x0c], &[0x0b, 0x14], &[0x00], &[0x0f], &[0x0a, 5, 1]] {
            let mut fields = Fields::of(bad);
            assert_eq!(fields.next(), Err(Malformed), "{bad:?}");
        }
        assert!(Fields::of(&[0x0b; 5000]).next().is_err());
    }
}
