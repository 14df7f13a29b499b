//! Accepting connections: one multishot accept per listening socket.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use io_uring::{opcode, types};

use super::ring::{Io, Ring};
use super::slots::{Slot, Token};
use super::stream::Stream;

pub(super) struct Accepting {
    queue: RefCell<VecDeque<OwnedFd>>,
    error: Cell<Option<i32>>,
    armed: Cell<Option<Token>>,
    waker: RefCell<Option<Waker>>,
    multishot: Cell<bool>,
    closed: Cell<bool>,
}

impl Accepting {
    pub(super) fn accepted(&self, result: i32, more: bool) {
        if !more {
            self.armed.set(None);
        }
        match result {
            fd if fd > 2 => {
                // SAFETY: a fresh descriptor from accept, owned by no one else. (0–2 are never
                // closed by us, so the kernel cannot have handed them out.)
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                if !self.closed.get() {
                    self.queue.borrow_mut().push_back(fd);
                }
            }
            0..=2 => {}
            error if error == -libc::EINVAL && self.multishot.get() => self.multishot.set(false),
            error if error == -libc::ECANCELED || error == -libc::ECONNABORTED => {}
            error => self.error.set(Some(-error)),
        }
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// A listening socket of one shard. Dropping it stops accepting; the socket itself belongs to the
/// supervisor and keeps queueing connections.
pub struct Acceptor {
    ring: Rc<Ring>,
    listener: OwnedFd,
    state: Rc<Accepting>,
}

impl Acceptor {
    pub fn new(io: &Io, listener: OwnedFd) -> Acceptor {
        let state = Accepting {
            queue: RefCell::default(),
            error: Cell::new(None),
            armed: Cell::new(None),
            waker: RefCell::default(),
            multishot: Cell::new(io.0.multishot.get()),
            closed: Cell::new(false),
        };
        Acceptor { ring: io.0.clone(), listener, state: Rc::new(state) }
    }

    /// The next connection and its peer.
    ///
    /// # Errors
    /// What the kernel says when it cannot accept (EMFILE, ENFILE, ENOMEM …). The caller waits a
    /// little before it asks again, or it would spin.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        loop {
            let fd = poll_fn(|cx| {
                if let Some(fd) = self.state.queue.borrow_mut().pop_front() {
                    return Poll::Ready(Ok(fd));
                }
                if let Some(error) = self.state.error.take() {
                    return Poll::Ready(Err(io::Error::from_raw_os_error(error)));
                }
                if self.state.armed.get().is_none() {
                    self.arm();
                }
                *self.state.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await?;
            // Fails for what is no connected socket (a bogus descriptor, a peer already gone).
            let Ok(Some(peer)) = rustix::net::getpeername(&fd) else { continue };
            if let Ok(peer) = SocketAddr::try_from(peer) {
                return Ok((Stream::new(self.ring.clone(), fd), peer));
            }
        }
    }

    fn arm(&self) {
        let fd = types::Fd(self.listener.as_raw_fd());
        let flags = libc::SOCK_CLOEXEC;
        let entry = if self.state.multishot.get() {
            opcode::AcceptMulti::new(fd).flags(flags).build()
        } else {
            opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).flags(flags).build()
        };
        let token = self.ring.submit(entry, Slot::Accept(self.state.clone()));
        self.state.armed.set(Some(token));
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.state.closed.set(true);
        self.state.queue.borrow_mut().clear();
        if let Some(token) = self.state.armed.get() {
            self.ring.cancel(token);
        }
    }
}
