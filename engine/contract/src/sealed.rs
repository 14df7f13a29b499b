//! Sealed bytes: a memfd that nobody can write, grow or shrink any more.

use crate::encode::MAX_SNAPSHOT;
use crate::memory::Mapping;
use crate::segment::SegmentError;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};

/// Puts `bytes` into a new memfd and seals it against every change. Close-on-exec.
///
/// # Errors
/// Out of memory or file descriptors, or a kernel without memfd.
pub fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memory_file("sluice-snapshot")?);
    file.write_all(bytes)?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

/// Maps what [`seal`] made, for reading.
///
/// # Errors
/// The descriptor is no memfd, lacks a seal (its bytes could change while we read them), is empty,
/// or is larger than [`MAX_SNAPSHOT`].
pub fn read_sealed(fd: impl AsFd) -> Result<Mapped, SegmentError> {
    check_seals(&fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW)?;
    let len = size(&fd)?;
    if len == 0 || len > MAX_SNAPSHOT {
        return Err(SegmentError::Size { found: len as u64 });
    }
    Ok(Mapped { mapping: Mapping::read_only(fd, len)? })
}

/// Sealed bytes, mapped: derefs to `[u8]`.
#[derive(Debug)]
pub struct Mapped {
    mapping: Mapping,
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped for reading, `len` bytes, unmapped with `self`. The seals (checked in
        // `read_sealed`, and not removable) keep every process from writing or shrinking the file.
        unsafe { std::slice::from_raw_parts(self.mapping.start().as_ptr(), self.mapping.len()) }
    }
}

/// A memfd that can be sealed, not executable where the kernel knows that flag (6.3).
pub(crate) fn memory_file(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(rustix::io::Errno::INVAL) => Ok(memfd_create(name, flags)?),
        other => Ok(other?),
    }
}

pub(crate) fn check_seals(fd: impl AsFd, wanted: SealFlags) -> Result<(), SegmentError> {
    // EINVAL: not a memfd at all.
    let seals = fcntl_get_seals(fd).unwrap_or(SealFlags::empty());
    if seals.contains(wanted) { Ok(()) } else { Err(SegmentError::NotSealed) }
}

pub(crate) fn size(fd: impl AsFd) -> Result<usize, SegmentError> {
    let stat = fstat(fd).map_err(io::Error::from)?;
    usize::try_from(stat.st_size).map_err(|_| SegmentError::Size { found: u64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_come_back_and_cannot_change() {
        let fd = seal(b"one epoch").unwrap();
        let mapped = read_sealed(&fd).unwrap();
        assert_eq!(&*mapped, b"one epoch");
        let mut file = File::from(fd.try_clone().unwrap());
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(1).is_err());
        assert!(file.set_len(100).is_err());
        assert!(Mapping::shared(&fd, 9).is_err());
        drop((fd, file));
        assert_eq!(&*mapped, b"one epoch", "a mapping outlives its descriptor");
    }

    #[test]
    fn what_could_change_is_refused() {
        let mut open = File::from(memory_file("open").unwrap());
        open.write_all(b"bytes").unwrap();
        assert!(matches!(read_sealed(&open), Err(SegmentError::NotSealed)));
        // All but one seal is not enough.
        fcntl_add_seals(&open, SealFlags::WRITE | SealFlags::SHRINK).unwrap();
        assert!(matches!(read_sealed(&open), Err(SegmentError::NotSealed)));
        let (pipe, _writer) = std::io::pipe().unwrap();
        assert!(matches!(read_sealed(&pipe), Err(SegmentError::NotSealed)));
        let empty = seal(b"").unwrap();
        assert!(matches!(read_sealed(&empty), Err(SegmentError::Size { found: 0 })));
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let file = File::from(memory_file("large").unwrap());
        file.set_len(MAX_SNAPSHOT as u64 + 1).unwrap();
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW).unwrap();
        assert!(matches!(read_sealed(&file), Err(SegmentError::Size { .. })));
    }
}
