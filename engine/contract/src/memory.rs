//! A mapping: memory shared with other processes, unmapped with its owner.

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;

/// A range of pages mapped from a file descriptor. It outlives the descriptor.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to the thread that made it; this type hands out only
// its address, and whoever dereferences that answers for the access.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd`, readable and writable, shared with all who map it.
    pub(crate) fn shared(fd: impl AsFd, len: usize) -> io::Result<Mapping> {
        Mapping::new(fd, len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)
    }

    /// Maps `len` bytes of `fd` for reading. Private, as kernels before 6.7 refuse a shared mapping
    /// of what is sealed against writing.
    pub(crate) fn read_only(fd: impl AsFd, len: usize) -> io::Result<Mapping> {
        Mapping::new(fd, len, ProtFlags::READ, MapFlags::PRIVATE)
    }

    fn new(fd: impl AsFd, len: usize, prot: ProtFlags, flags: MapFlags) -> io::Result<Mapping> {
        // SAFETY: a null hint without MAP_FIXED lets the kernel choose unused pages, so no memory of
        // ours is replaced.
        let start = unsafe { mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) }?;
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| io::Error::other("the kernel mapped page zero"))?;
        Ok(Mapping { start, len })
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `mmap` returned, unmapped once; users of the memory hold the mapping.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.len) };
    }
}
