//! Flat little-endian bytes: how snapshots and bus messages are written and, untrusting, read.

use crate::encode::{DecodeError, Fault};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Longest text anywhere, in bytes.
pub(crate) const MAX_TEXT: usize = 64 * 1024;

const V4: u8 = 4;
const V6: u8 = 6;

/// Appends values to bytes.
#[derive(Default)]
pub(crate) struct Out {
    pub(crate) bytes: Vec<u8>,
}

impl Out {
    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A number of things to come. More than `u32::MAX` cannot be written truthfully; the reader
    /// then refuses the bytes, as no count near that is allowed.
    pub(crate) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// A byte that says whether something is there, and then the thing.
    pub(crate) fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Out, &T)) {
        self.u8(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Out, &T)) {
        self.count(items.len());
        for item in items {
            write(self, item);
        }
    }

    pub(crate) fn texts(&mut self, texts: &[String]) {
        self.list(texts, |out, text| out.text(text));
    }

    pub(crate) fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => {
                self.u8(V4);
                self.bytes.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.u8(V6);
                self.bytes.extend_from_slice(&ip.octets());
            }
        }
    }

    pub(crate) fn address(&mut self, address: SocketAddr) {
        self.ip(address.ip());
        self.u16(address.port());
        if let SocketAddr::V6(v6) = address {
            self.u32(v6.flowinfo());
            self.u32(v6.scope_id());
        }
    }
}

/// Reads values from bytes that it does not trust. Every method names the field it reads, for the
/// error.
pub(crate) struct In<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> In<'a> {
    /// Reads `bytes` from `at` on; offsets in errors count from the start of `bytes`.
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> In<'a> {
        In { bytes, at }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(crate) fn fault(&self, field: &'static str, fault: Fault) -> DecodeError {
        DecodeError { field, offset: self.at, fault }
    }

    pub(crate) fn take(
        &mut self,
        field: &'static str,
        len: usize,
    ) -> Result<&'a [u8], DecodeError> {
        let taken = self.at.checked_add(len).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| self.fault(field, Fault::Short))?;
        self.at += len;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A number of at most `max`.
    pub(crate) fn u64_within(&mut self, field: &'static str, max: u64) -> Result<u64, DecodeError> {
        let before = self.at;
        let value = self.u64(field)?;
        if value > max {
            let fault = Fault::OutOfRange { found: value, min: 0, max };
            return Err(DecodeError { field, offset: before, fault });
        }
        Ok(value)
    }

    /// A number within `min..=max`.
    pub(crate) fn u32_within(
        &mut self,
        field: &'static str,
        min: u32,
        max: u32,
    ) -> Result<u32, DecodeError> {
        let before = self.at;
        let value = self.u32(field)?;
        if value < min || value > max {
            let fault = Fault::OutOfRange { found: value.into(), min: min.into(), max: max.into() };
            return Err(DecodeError { field, offset: before, fault });
        }
        Ok(value)
    }

    /// A number within `min..=max`.
    pub(crate) fn u16_within(
        &mut self,
        field: &'static str,
        min: u16,
        max: u16,
    ) -> Result<u16, DecodeError> {
        let before = self.at;
        let value = self.u16(field)?;
        if value < min || value > max {
            let fault = Fault::OutOfRange { found: value.into(), min: min.into(), max: max.into() };
            return Err(DecodeError { field, offset: before, fault });
        }
        Ok(value)
    }

    /// A number within `min..=max`.
    pub(crate) fn u8_within(
        &mut self,
        field: &'static str,
        min: u8,
        max: u8,
    ) -> Result<u8, DecodeError> {
        let before = self.at;
        let value = self.u8(field)?;
        if value < min || value > max {
            let fault = Fault::OutOfRange { found: value.into(), min: min.into(), max: max.into() };
            return Err(DecodeError { field, offset: before, fault });
        }
        Ok(value)
    }

    /// The next `len` bytes as an input of their own, and moves past them.
    pub(crate) fn part(&mut self, field: &'static str, len: usize) -> Result<In<'a>, DecodeError> {
        let at = self.at;
        self.take(field, len)?;
        Ok(In { bytes: self.bytes.get(..self.at).unwrap_or_default(), at })
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Reads on from here without moving on itself.
    pub(crate) fn ahead(&self) -> In<'a> {
        In { bytes: self.bytes, at: self.at }
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.tag(field, other)),
        }
    }

    /// The error for a tag just read that means nothing.
    pub(crate) fn tag(&self, field: &'static str, found: u8) -> DecodeError {
        DecodeError { field, offset: self.at.saturating_sub(1), fault: Fault::Tag { found } }
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let len = self.u32_within(field, 0, MAX_TEXT as u32)?;
        let before = self.at;
        let bytes = self.take(field, len as usize)?;
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError {
            field,
            offset: before,
            fault: Fault::NotUtf8,
        })?;
        Ok(text.to_owned())
    }

    /// Bytes without meaning here, at most `max` of them.
    pub(crate) fn blob(&mut self, field: &'static str, max: usize) -> Result<Vec<u8>, DecodeError> {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let len = self.u32_within(field, 0, max)?;
        Ok(self.take(field, len as usize)?.to_vec())
    }

    /// An index into a list of `len` things.
    pub(crate) fn index(&mut self, field: &'static str, len: usize) -> Result<u32, DecodeError> {
        let before = self.at;
        let index = self.u32(field)?;
        if index as usize >= len {
            // Of an empty list nothing is in range: 1 to 0.
            let (min, max) = (u64::from(len == 0), len.saturating_sub(1) as u64);
            let fault = Fault::OutOfRange { found: index.into(), min, max };
            return Err(DecodeError { field, offset: before, fault });
        }
        Ok(index)
    }

    /// Something that may be absent.
    pub(crate) fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut In<'a>) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.bool(field)? {
            true => read(self).map(Some),
            false => Ok(None),
        }
    }

    /// A list of at most `max` things. Its memory grows with the bytes read, whatever the count says.
    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        max: usize,
        mut read: impl FnMut(&mut In<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let count = self.u32_within(field, 0, max)? as usize;
        // Everything takes a byte at least.
        if count > self.remaining() {
            return Err(self.fault(field, Fault::Short));
        }
        let mut items = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// A list of one to `max` things.
    pub(crate) fn some<T>(
        &mut self,
        field: &'static str,
        max: usize,
        read: impl FnMut(&mut In<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let before = self.fault(field, Fault::Short);
        let list = self.list(field, max, read)?;
        if list.is_empty() {
            let fault = Fault::OutOfRange { found: 0, min: 1, max: max as u64 };
            return Err(DecodeError { fault, ..before });
        }
        Ok(list)
    }

    /// A list of at most `max` texts.
    pub(crate) fn texts(
        &mut self,
        field: &'static str,
        max: usize,
    ) -> Result<Vec<String>, DecodeError> {
        self.list(field, max, |input| input.text(field))
    }

    pub(crate) fn ip(&mut self, field: &'static str) -> Result<IpAddr, DecodeError> {
        match self.u8(field)? {
            V4 => self.array::<4>(field).map(|octets| Ipv4Addr::from(octets).into()),
            V6 => self.array::<16>(field).map(|octets| Ipv6Addr::from(octets).into()),
            other => Err(self.tag(field, other)),
        }
    }

    pub(crate) fn address(&mut self, field: &'static str) -> Result<SocketAddr, DecodeError> {
        let ip = self.ip(field)?;
        let port = self.u16(field)?;
        Ok(match ip {
            IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
            IpAddr::V6(ip) => {
                let flow = self.u32(field)?;
                SocketAddrV6::new(ip, port, flow, self.u32(field)?).into()
            }
        })
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            more => Err(self.fault("end", Fault::Trailing { bytes: more })),
        }
    }
}
