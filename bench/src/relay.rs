//! The bare relay: the least that a proxy on io_uring can cost. It pairs every client connection
//! with one upstream connection and passes bytes both ways without looking at them: one ring,
//! multishot accept and recv into provided buffers, sends straight out of these buffers, and
//! everything submitted in the same enter that waits. It parses nothing, routes nothing and
//! records nothing: a floor to measure the gateway against, not a product.
//!
//! Outside of `engine/` this is the only file with `unsafe` code. The io-uring crate's `push` and
//! the provided buffers need it, and the engine's reactor cannot stand in: a reference that shares
//! the code it is the reference for would hide what that code costs. It is not shipped.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::net::{self, AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};

use crate::pin;

const GROUP: u16 = 0;
const PAGE_BYTES: usize = 4096;
const SQ_ENTRIES: u32 = 4096;

/// How a relay is to run.
#[derive(Clone, Copy, Debug)]
pub struct Relay {
    pub port: u16,
    pub upstream: SocketAddrV4,
    /// Provided buffers: a power of two, at most 32768.
    pub buffers: u16,
    pub buffer_bytes: u32,
}

impl Relay {
    /// Listens, says so on stdout, and relays until something fails.
    pub fn run(&self) -> io::Result<()> {
        pin::raise_open_files();
        let listener = listen(self.port)?;
        println!("relay on http://127.0.0.1:{} to {}", self.port, self.upstream);
        Reactor::new(self, listener)?.run()
    }
}

fn listen(port: u16) -> io::Result<OwnedFd> {
    let socket =
        net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .map_err(|error| io::Error::other(format!("cannot listen on port {port}: {error}")))?;
    net::listen(&socket, 4096)?;
    Ok(socket)
}

/// What a completion is about: packed into the user data of its submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Accept,
    Connect,
    Receive,
    Send,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    operation: Operation,
    /// 0 is the client's side of a pair, 1 the upstream's.
    side: usize,
    pair: usize,
}

impl Tag {
    fn pack(self) -> u64 {
        (self.pair as u64) << 8 | (self.side as u64) << 4 | self.operation as u64
    }

    fn unpack(data: u64) -> Self {
        let operation = match data & 15 {
            0 => Operation::Accept,
            1 => Operation::Connect,
            2 => Operation::Receive,
            _ => Operation::Send,
        };
        Self { operation, side: (data >> 4 & 1) as usize, pair: (data >> 8) as usize }
    }
}

/// The buffers that the kernel picks from for received bytes.
struct Buffers {
    ring: NonNull<types::BufRingEntry>,
    ring_layout: Layout,
    memory: NonNull<u8>,
    memory_layout: Layout,
    entries: u16,
    bytes: u32,
    tail: u16,
    /// Buffers that the kernel has.
    offered: u32,
}

impl Buffers {
    fn new(ring: &IoUring, entries: u16, bytes: u32) -> io::Result<Self> {
        let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let size = usize::from(entries) * size_of::<types::BufRingEntry>();
        let ring_layout = Layout::from_size_align(size, PAGE_BYTES).map_err(wrong)?;
        let size = usize::from(entries) * bytes as usize;
        let memory_layout = Layout::from_size_align(size, PAGE_BYTES).map_err(wrong)?;
        if !entries.is_power_of_two() || bytes == 0 {
            return Err(io::Error::other("the number of buffers must be a power of two"));
        }
        // SAFETY: neither layout is of size zero, as was just checked.
        let (entry, memory) =
            unsafe { (alloc_zeroed(ring_layout).cast(), alloc_zeroed(memory_layout)) };
        let (Some(entry), Some(memory)) = (NonNull::new(entry), NonNull::new(memory)) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        // SAFETY: the ring is page-aligned, holds `entries` entries, and lives until the io_uring
        // is gone: `Reactor` drops that one first.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entry.as_ptr() as u64,
                entries,
                GROUP,
                0,
            )?;
        }
        let mut buffers = Self {
            ring: entry,
            ring_layout,
            memory,
            memory_layout,
            entries,
            bytes,
            tail: 0,
            offered: 0,
        };
        for id in 0..entries {
            buffers.give(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    fn address(&self, id: u16) -> *mut u8 {
        debug_assert!(id < self.entries);
        // SAFETY: `id` is below `entries`, so this stays inside of the allocation.
        unsafe { self.memory.as_ptr().add(usize::from(id) * self.bytes as usize) }
    }

    /// Gives a buffer back. The kernel sees it after `publish`.
    fn give(&mut self, id: u16) {
        let address = self.address(id) as u64;
        let at = usize::from(self.tail & (self.entries - 1));
        // SAFETY: `at` is below `entries`, and the kernel reads an entry only after the tail has
        // moved past it. The tail itself lies in a field that these setters do not touch.
        let entry = unsafe { &mut *self.ring.as_ptr().add(at) };
        entry.set_addr(address);
        entry.set_len(self.bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        self.offered += 1;
    }

    fn publish(&self) {
        // SAFETY: the pointer is that of the registered ring's first entry; the tail is aligned
        // as a u16 must be, and only this thread writes to it.
        let tail = unsafe {
            let tail = types::BufRingEntry::tail(self.ring.as_ptr());
            &*tail.cast::<AtomicU16>()
        };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts and are freed once. The io_uring that
        // knew them has been dropped before.
        unsafe {
            dealloc(self.ring.as_ptr().cast(), self.ring_layout);
            dealloc(self.memory.as_ptr(), self.memory_layout);
        }
    }
}

/// One direction's receiving end, and what waits to be sent to it.
struct Side {
    socket: OwnedFd,
    /// Buffers to send to this side, with the number of bytes in each.
    queue: VecDeque<(u16, u32)>,
    /// Bytes of the first that are gone.
    sent: u32,
    sending: bool,
    receiving: bool,
    /// This side will send no more.
    ended: bool,
    /// It has been told that no more will come.
    shut: bool,
}

impl Side {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            queue: VecDeque::new(),
            sent: 0,
            sending: false,
            receiving: false,
            ended: false,
            shut: false,
        }
    }
}

struct Pair {
    sides: [Side; 2],
    connecting: bool,
    broken: bool,
}

struct Reactor {
    // Declared before the buffers, so that it is dropped before them.
    ring: IoUring,
    buffers: Buffers,
    listener: OwnedFd,
    upstream: Box<libc::sockaddr_in>,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    /// Sides whose recv ended for want of a buffer.
    starved: Vec<(usize, usize)>,
}

impl Reactor {
    fn new(relay: &Relay, listener: OwnedFd) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_cqsize(SQ_ENTRIES * 4)
            .build(SQ_ENTRIES)
            .map_err(|error| {
                io::Error::other(format!(
                    "cannot set up io_uring: {error}. It needs Linux 6.1, \
                     kernel.io_uring_disabled = 0, and a container profile that allows it"
                ))
            })?;
        let buffers = Buffers::new(&ring, relay.buffers, relay.buffer_bytes)?;
        // SAFETY: all zeroes is a valid sockaddr_in.
        let mut upstream: Box<libc::sockaddr_in> = Box::new(unsafe { mem::zeroed() });
        upstream.sin_family = libc::AF_INET as libc::sa_family_t;
        upstream.sin_port = relay.upstream.port().to_be();
        upstream.sin_addr.s_addr = u32::from_ne_bytes(relay.upstream.ip().octets());
        Ok(Self {
            ring,
            buffers,
            listener,
            upstream,
            pairs: Vec::new(),
            free: Vec::new(),
            starved: Vec::new(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        self.arm_accept()?;
        let mut completions: Vec<cqueue::Entry> = Vec::new();
        loop {
            // With something to wait for, this enter carries GETEVENTS, without which deferred
            // work never runs.
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                // The completions are to be taken first.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
            completions.extend(self.ring.completion());
            for completion in completions.drain(..) {
                self.complete(&completion)?;
            }
            self.buffers.publish();
            if !self.starved.is_empty() && self.buffers.offered > 0 {
                for (pair, side) in mem::take(&mut self.starved) {
                    self.arm_receive(pair, side)?;
                    self.settle(pair);
                }
            }
        }
    }

    fn push(&mut self, entry: &squeue::Entry, tag: Tag) -> io::Result<()> {
        let entry = entry.clone().user_data(tag.pack());
        // SAFETY: what the entries point to outlives the operations: buffers and the upstream's
        // address live as long as the ring; a pair keeps its sockets until nothing is in flight.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    fn arm_accept(&mut self) -> io::Result<()> {
        let fd = types::Fd(self.listener.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
        self.push(&entry, Tag { operation: Operation::Accept, side: 0, pair: 0 })
    }

    fn arm_receive(&mut self, at: usize, side: usize) -> io::Result<()> {
        let Some(Some(pair)) = self.pairs.get_mut(at) else { return Ok(()) };
        if pair.broken {
            return Ok(());
        }
        let end = &mut pair.sides[side];
        end.receiving = true;
        let entry = opcode::RecvMulti::new(types::Fd(end.socket.as_raw_fd()), GROUP).build();
        self.push(&entry, Tag { operation: Operation::Receive, side, pair: at })
    }

    fn complete(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let tag = Tag::unpack(completion.user_data());
        let result = completion.result();
        match tag.operation {
            Operation::Accept => {
                if !cqueue::more(completion.flags()) {
                    self.arm_accept()?;
                }
                if result >= 0 {
                    // SAFETY: the kernel has just made this descriptor for us.
                    let client = unsafe { OwnedFd::from_raw_fd(result) };
                    self.pair(client)?;
                }
                return Ok(());
            }
            Operation::Connect => {
                let Some(Some(pair)) = self.pairs.get_mut(tag.pair) else { return Ok(()) };
                pair.connecting = false;
                if result < 0 {
                    pair.broken = true;
                } else {
                    self.arm_receive(tag.pair, 0)?;
                    self.arm_receive(tag.pair, 1)?;
                }
            }
            Operation::Receive => self.received(tag, result, completion.flags())?,
            Operation::Send => {
                let Some(Some(pair)) = self.pairs.get_mut(tag.pair) else { return Ok(()) };
                let end = &mut pair.sides[tag.side];
                end.sending = false;
                if result < 0 {
                    pair.broken = true;
                } else {
                    end.sent += result as u32;
                    if let Some(&(id, bytes)) = end.queue.front()
                        && end.sent >= bytes
                    {
                        end.sent = 0;
                        end.queue.pop_front();
                        self.buffers.give(id);
                    }
                    self.send(tag.pair, tag.side)?;
                }
            }
        }
        self.settle(tag.pair);
        Ok(())
    }

    fn pair(&mut self, client: OwnedFd) -> io::Result<()> {
        let upstream =
            net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_tcp_nodelay(&client, true)?;
        sockopt::set_tcp_nodelay(&upstream, true)?;
        let fd = types::Fd(upstream.as_raw_fd());
        let address: *const libc::sockaddr_in = &*self.upstream;
        let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        let entry = opcode::Connect::new(fd, address.cast(), length).build();
        let at = self.free.pop().unwrap_or(self.pairs.len());
        let sides = [Side::new(client), Side::new(upstream)];
        let pair = Some(Pair { sides, connecting: true, broken: false });
        match self.pairs.get_mut(at) {
            Some(place) => *place = pair,
            None => self.pairs.push(pair),
        }
        self.push(&entry, Tag { operation: Operation::Connect, side: 1, pair: at })
    }

    fn received(&mut self, tag: Tag, result: i32, flags: u32) -> io::Result<()> {
        let Some(Some(pair)) = self.pairs.get_mut(tag.pair) else { return Ok(()) };
        let more = cqueue::more(flags);
        pair.sides[tag.side].receiving = more;
        if let Some(id) = cqueue::buffer_select(flags) {
            self.buffers.offered -= 1;
            if result > 0 && !pair.broken {
                pair.sides[1 - tag.side].queue.push_back((id, result as u32));
            } else {
                self.buffers.give(id);
            }
        }
        match result {
            1.. => {
                if !more {
                    self.arm_receive(tag.pair, tag.side)?;
                }
                self.send(tag.pair, 1 - tag.side)
            }
            0 => {
                pair.sides[tag.side].ended = true;
                Ok(())
            }
            _ if result == -libc::ENOBUFS => {
                self.starved.push((tag.pair, tag.side));
                Ok(())
            }
            _ => {
                pair.broken = true;
                Ok(())
            }
        }
    }

    /// Sends the first waiting buffer of a side, unless one is on its way.
    fn send(&mut self, at: usize, side: usize) -> io::Result<()> {
        let Some(Some(pair)) = self.pairs.get_mut(at) else { return Ok(()) };
        let end = &mut pair.sides[side];
        let Some(&(id, bytes)) = end.queue.front() else { return Ok(()) };
        if end.sending || pair.broken {
            return Ok(());
        }
        end.sending = true;
        // SAFETY: `sent` is below `bytes`, which is at most the size of the buffer.
        let from = unsafe { self.buffers.address(id).add(end.sent as usize) };
        let fd = types::Fd(end.socket.as_raw_fd());
        let entry = opcode::Send::new(fd, from, bytes - end.sent)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(&entry, Tag { operation: Operation::Send, side, pair: at })
    }

    /// Passes an end on, and frees a pair once nothing of it is in flight.
    fn settle(&mut self, at: usize) {
        let Some(place) = self.pairs.get_mut(at) else { return };
        let Some(pair) = place else { return };
        for side in 0..2 {
            let drained = pair.sides[side].queue.is_empty();
            let other_ended = pair.sides[1 - side].ended;
            let end = &mut pair.sides[side];
            if !end.shut && ((drained && other_ended) || pair.broken) {
                end.shut = true;
                let how = if pair.broken { Shutdown::Both } else { Shutdown::Write };
                let _ = net::shutdown(&end.socket, how);
            }
        }
        let busy = pair.connecting || pair.sides.iter().any(|s| s.sending || s.receiving);
        let over = pair.broken || pair.sides.iter().all(|s| s.ended && s.queue.is_empty());
        if over && !busy {
            for end in &mut pair.sides {
                for (id, _) in end.queue.drain(..) {
                    self.buffers.give(id);
                }
            }
            *place = None;
            self.free.push(at);
            self.starved.retain(|&(pair, _)| pair != at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn tags_survive_packing() {
        for operation in
            [Operation::Accept, Operation::Connect, Operation::Receive, Operation::Send]
        {
            for side in 0..2 {
                let tag = Tag { operation, side, pair: 123_456 };
                assert_eq!(Tag::unpack(tag.pack()), tag);
            }
        }
    }

    /// More bytes than there are buffers, both ways at once, then a half-close.
    #[test]
    fn bytes_pass_both_ways_and_so_does_the_end() {
        if IoUring::new(4).is_err() {
            eprintln!("skipped: no io_uring here");
            return;
        }
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = match echo.local_addr().unwrap() {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => unreachable!(),
        };
        std::thread::spawn(move || {
            for stream in echo.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        stream.write_all(&buffer[..n]).unwrap();
                    }
                });
            }
        });
        let relay = Relay { port: 0, upstream, buffers: 4, buffer_bytes: 512 };
        let listener = listen(0).unwrap();
        let address = SocketAddr::try_from(net::getsockname(&listener).unwrap()).unwrap();
        std::thread::spawn(move || Reactor::new(&relay, listener).unwrap().run());
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let sent: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
            let mut writer = stream.try_clone().unwrap();
            let copy = sent.clone();
            let thread = std::thread::spawn(move || {
                writer.write_all(&copy).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            thread.join().unwrap();
            assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
        }
    }
}
