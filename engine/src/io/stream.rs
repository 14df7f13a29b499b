//! A connected socket: receives that hold no buffer while idle, sends that ride with the next
//! enter.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::{cqueue, opcode, squeue, types};

use super::buffers::{Chunk, GROUP};
use super::ring::{Chore, Io, Ring, bump};
use super::slots::{Slot, Token};

/// A reader that is this far behind stops its multishot receive (back-pressure to the peer).
const PAUSE_BYTES: usize = 32 * 1024;
/// Size of the buffer of a receive that found no provided one.
const FALLBACK_BYTES: usize = 4 * 1024;

/// What a send owns until its completion.
#[derive(Debug)]
pub enum SendBuf {
    Vec(Vec<u8>),
    Chunk(Chunk),
    Static(&'static [u8]),
    /// Kept by the sender too, who may have to send it again elsewhere.
    Shared(Rc<Vec<u8>>),
}

impl SendBuf {
    /// What is sent.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            SendBuf::Vec(bytes) => bytes,
            SendBuf::Chunk(chunk) => chunk.bytes(),
            SendBuf::Static(bytes) => bytes,
            SendBuf::Shared(bytes) => bytes,
        }
    }
}

struct RecvHalf {
    queue: RefCell<VecDeque<Chunk>>,
    queued: Cell<usize>,
    armed: Cell<Option<Token>>,
    /// The armed receive is a multishot one that has not been asked to stop.
    multishot: Cell<bool>,
    /// 0: open; 1: end of stream; otherwise 1 + errno.
    end: Cell<i32>,
    starved: Cell<bool>,
    /// Memory of a fallback receive in flight.
    fallback: RefCell<Vec<u8>>,
    waker: RefCell<Option<Waker>>,
    bulk: Cell<bool>,
}

struct SendHalf {
    armed: Cell<Option<Token>>,
    buf: RefCell<Option<SendBuf>>,
    /// Bytes of `buf` that the kernel has taken.
    done: Cell<usize>,
    /// 0 or errno of a failed send; sticky.
    error: Cell<i32>,
    waker: RefCell<Option<Waker>>,
}

/// The part of a stream that operations in flight keep alive.
pub(super) struct Conn {
    fd: RawFd,
    closed: Cell<bool>,
    recv: RecvHalf,
    send: SendHalf,
}

fn wake(waker: &RefCell<Option<Waker>>) {
    let waker = waker.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn remember(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

impl Conn {
    pub(super) fn received(self: &Rc<Self>, ring: &Rc<Ring>, result: i32, flags: u32) {
        let recv = &self.recv;
        if !cqueue::more(flags) {
            recv.armed.set(None);
            recv.multishot.set(false);
        }
        let len = usize::try_from(result).unwrap_or(0);
        let chunk = match cqueue::buffer_select(flags) {
            Some(id) => Chunk::received(&ring.buffers, id, len),
            None if len > 0 => {
                let mut bytes = std::mem::take(&mut *recv.fallback.borrow_mut());
                bytes.truncate(len);
                Some(Chunk::from_vec(bytes))
            }
            None => None,
        };
        match result {
            1.. => {
                if let Some(chunk) = chunk.filter(|_| !self.closed.get()) {
                    let queued = recv.queued.get() + chunk.len();
                    recv.queued.set(queued);
                    recv.queue.borrow_mut().push_back(chunk);
                    if queued > PAUSE_BYTES && recv.multishot.get() {
                        ring.chores.borrow_mut().push(Chore::Pause(self.clone()));
                    }
                }
            }
            0 => recv.end.set(1),
            _ => match -result {
                libc::ENOBUFS => {
                    bump(&ring.counts.starved);
                    ring.buffers.ran_dry();
                    recv.starved.set(true);
                }
                libc::EINVAL if ring.multishot.get() && recv.end.get() == 0 => {
                    // A kernel without multishot receive: one by one from now on.
                    ring.multishot.set(false);
                }
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                errno => recv.end.set(1 + errno),
            },
        }
        wake(&recv.waker);
    }

    /// Stops the multishot receive; the next [`Stream::recv`] that finds nothing arms a new one.
    pub(super) fn pause(&self, ring: &Ring) {
        if let Some(token) = self.recv.armed.get().filter(|_| self.recv.multishot.get()) {
            self.recv.multishot.set(false);
            ring.cancel(token);
        }
    }

    fn arm_recv(self: &Rc<Self>, ring: &Ring) {
        let fd = types::Fd(self.fd);
        let entry = if self.recv.starved.take() {
            bump(&ring.counts.one_shot);
            let mut memory = self.recv.fallback.borrow_mut();
            memory.clear();
            memory.resize(FALLBACK_BYTES, 0);
            opcode::Recv::new(fd, memory.as_mut_ptr(), FALLBACK_BYTES as u32).build()
        } else if self.recv.bulk.get() || !ring.multishot.get() {
            bump(&ring.counts.one_shot);
            opcode::Recv::new(fd, std::ptr::null_mut(), 0)
                .buf_group(GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        } else {
            self.recv.multishot.set(true);
            opcode::RecvMulti::new(fd, GROUP).build()
        };
        self.recv.armed.set(Some(ring.submit(entry, Slot::Recv(self.clone()))));
    }

    fn submit_send(self: &Rc<Self>, ring: &Ring) {
        let buf = self.send.buf.borrow();
        let Some(bytes) = buf.as_ref().and_then(|buf| buf.bytes().get(self.send.done.get()..))
        else {
            return;
        };
        let entry = opcode::Send::new(types::Fd(self.fd), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.send.armed.set(Some(ring.submit(entry, Slot::Send(self.clone()))));
    }

    pub(super) fn resend(self: &Rc<Self>, ring: &Ring) {
        if self.closed.get() {
            self.finish_send(ring);
        } else {
            self.submit_send(ring);
        }
    }

    pub(super) fn sent(self: &Rc<Self>, ring: &Rc<Ring>, result: i32) {
        let total = self.send.buf.borrow().as_ref().map_or(0, |buf| buf.bytes().len());
        match usize::try_from(result) {
            Ok(n) if self.send.done.get() + n < total => {
                bump(&ring.counts.short_sends);
                self.send.done.set(self.send.done.get() + n);
                // Stays armed (by the old token) until the rest is gone, so no one else sends.
                ring.chores.borrow_mut().push(Chore::Resend(self.clone()));
                return;
            }
            Ok(_) => {}
            Err(_) if result == -libc::EINTR || result == -libc::EAGAIN => {
                ring.chores.borrow_mut().push(Chore::Resend(self.clone()));
                return;
            }
            Err(_) => self.send.error.set(-result),
        }
        self.finish_send(ring);
    }

    fn finish_send(&self, ring: &Ring) {
        self.send.armed.set(None);
        self.send.done.set(0);
        if let Some(SendBuf::Vec(vec)) = self.send.buf.borrow_mut().take() {
            ring.give_vec(vec);
        }
        wake(&self.send.waker);
    }
}

/// A connected TCP socket of one shard. Dropping it cancels what is in flight and closes it.
pub struct Stream {
    ring: Rc<Ring>,
    conn: Rc<Conn>,
}

impl Stream {
    pub(super) fn new(ring: Rc<Ring>, fd: OwnedFd) -> Stream {
        let conn = Conn {
            fd: fd.into_raw_fd(),
            closed: Cell::new(false),
            recv: RecvHalf {
                queue: RefCell::default(),
                queued: Cell::new(0),
                armed: Cell::new(None),
                multishot: Cell::new(false),
                end: Cell::new(0),
                starved: Cell::new(false),
                fallback: RefCell::default(),
                waker: RefCell::default(),
                bulk: Cell::new(false),
            },
            send: SendHalf {
                armed: Cell::new(None),
                buf: RefCell::default(),
                done: Cell::new(0),
                error: Cell::new(0),
                waker: RefCell::default(),
            },
        };
        Stream { ring, conn: Rc::new(conn) }
    }

    /// A stream over an already connected socket (tests).
    pub fn from_fd(io: &Io, fd: OwnedFd) -> Stream {
        Stream::new(io.0.clone(), fd)
    }

    /// The next bytes; `None` at the end of the stream.
    ///
    /// # Errors
    /// What the socket reports (ECONNRESET …), again on every later call.
    pub async fn recv(&self) -> io::Result<Option<Chunk>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        let recv = &self.conn.recv;
        if let Some(chunk) = recv.queue.borrow_mut().pop_front() {
            recv.queued.set(recv.queued.get().saturating_sub(chunk.len()));
            return Poll::Ready(Ok(Some(chunk)));
        }
        match recv.end.get() {
            0 => {}
            1 => return Poll::Ready(Ok(None)),
            errno => return Poll::Ready(Err(io::Error::from_raw_os_error(errno - 1))),
        }
        if recv.armed.get().is_none() {
            self.conn.arm_recv(&self.ring);
        }
        remember(&recv.waker, cx);
        Poll::Pending
    }

    /// Whether bytes, an end or an error wait to be received.
    pub fn has_input(&self) -> bool {
        !self.conn.recv.queue.borrow().is_empty() || self.conn.recv.end.get() != 0
    }

    /// Listens for the peer's end although no one is receiving, without holding a buffer.
    pub fn keep_watch(&self) {
        let recv = &self.conn.recv;
        if recv.armed.get().is_none() && !self.has_input() {
            self.conn.arm_recv(&self.ring);
        }
    }

    /// Ready once the connection has failed (a reset, not a mere end). For a task that waits for
    /// something else and wants to know that its peer is gone.
    pub fn poll_failed(&self, cx: &Context<'_>) -> Poll<()> {
        if self.conn.recv.end.get() > 1 || self.conn.send.error.get() != 0 {
            return Poll::Ready(());
        }
        remember(&self.conn.recv.waker, cx);
        Poll::Pending
    }

    /// Whether the peer has closed its half or the connection failed, as far as is known.
    pub fn has_ended(&self) -> bool {
        self.conn.recv.end.get() != 0
    }

    /// Puts bytes back in front of what is to be received.
    pub fn unrecv(&self, chunk: Chunk) {
        if !chunk.is_empty() {
            let recv = &self.conn.recv;
            recv.queued.set(recv.queued.get() + chunk.len());
            recv.queue.borrow_mut().push_front(chunk);
        }
    }

    /// For long bodies: receive one buffer at a time, so that a fast peer cannot run ahead of a slow
    /// reader by more than that.
    pub fn set_bulk(&self, bulk: bool) {
        self.conn.recv.bulk.set(bulk);
        if bulk {
            self.conn.pause(&self.ring);
        }
    }

    /// Waits for the previous send, then queues `buf`, which leaves with the next enter. At most one
    /// send is outstanding, which bounds what a slow peer makes us hold.
    ///
    /// # Errors
    /// The failure of an earlier send; `buf` is dropped.
    pub async fn send(&self, buf: SendBuf) -> io::Result<()> {
        self.flush().await?;
        self.queue_send(buf);
        Ok(())
    }

    /// Queues `buf` if no send is outstanding; otherwise gives it back.
    #[inline]
    pub fn try_send(&self, buf: SendBuf) -> Result<(), SendBuf> {
        if self.is_sending() || self.conn.send.error.get() != 0 {
            return Err(buf);
        }
        self.queue_send(buf);
        Ok(())
    }

    /// Sends what the socket takes at once, without the ring: for a few last bytes right before
    /// the end or the close. Not to be called while a send is outstanding.
    ///
    /// # Errors
    /// EPIPE, ECONNRESET …
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        use rustix::io::Errno;
        use rustix::net::{SendFlags, send};
        match send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            sent => Ok(sent?),
        }
    }

    fn queue_send(&self, buf: SendBuf) {
        if buf.bytes().is_empty() {
            return;
        }
        *self.conn.send.buf.borrow_mut() = Some(buf);
        self.conn.send.done.set(0);
        self.conn.submit_send(&self.ring);
    }

    /// Whether a send is outstanding.
    pub fn is_sending(&self) -> bool {
        self.conn.send.armed.get().is_some()
    }

    /// Waits until everything queued is in the kernel's hands.
    ///
    /// # Errors
    /// The failure of a send (EPIPE, ECONNRESET …).
    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| {
            if self.is_sending() {
                remember(&self.conn.send.waker, cx);
                return Poll::Pending;
            }
            match self.conn.send.error.get() {
                0 => Poll::Ready(Ok(())),
                errno => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
            }
        })
        .await
    }

    /// Ends our half: the peer sees the end of the stream after what was sent.
    pub fn shutdown_write(&self) {
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Write);
    }

    /// Makes the coming close a reset, so that the peer cannot take a cut answer for a whole one.
    pub fn set_reset_on_close(&self) {
        let _ =
            rustix::net::sockopt::set_socket_linger(self, Some(std::time::Duration::from_secs(0)));
    }

    /// The local address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        rustix::net::getsockname(self).ok().and_then(|addr| SocketAddr::try_from(addr).ok())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as this Stream lives.
        unsafe { BorrowedFd::borrow_raw(self.conn.fd) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.conn.closed.set(true);
        if let Some(token) = self.conn.recv.armed.get() {
            self.ring.cancel(token);
        }
        if let Some(token) = self.conn.send.armed.get() {
            self.ring.cancel(token);
        }
        self.conn.recv.queue.borrow_mut().clear();
        self.ring.close(self.conn.fd);
    }
}

/// Connects to `address`. Dropping the future gives the attempt up.
///
/// # Errors
/// What `socket(2)` or `connect(2)` report.
pub async fn connect(io: &Io, address: SocketAddr) -> io::Result<Stream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let fd = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    let (storage, len) = sockaddr(address);
    let entry =
        opcode::Connect::new(types::Fd(fd.as_raw_fd()), (&raw const *storage).cast(), len).build();
    io.0.once(entry, Some(storage)).await?;
    Ok(Stream::new(io.0.clone(), fd))
}

fn sockaddr(address: SocketAddr) -> (Box<libc::sockaddr_storage>, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid sockaddr_storage.
    let mut storage: Box<libc::sockaddr_storage> = Box::new(unsafe { std::mem::zeroed() });
    let len = match address {
        SocketAddr::V4(v4) => {
            let sin = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is large and aligned enough for every sockaddr type.
            unsafe { (&raw mut *storage).cast::<libc::sockaddr_in>().write(sin) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let sin6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut *storage).cast::<libc::sockaddr_in6>().write(sin6) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as libc::socklen_t)
}
