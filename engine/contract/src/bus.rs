//! The bus: messages with file descriptors between the supervisor and its engine or control.
//!
//! An `AF_UNIX` `SOCK_SEQPACKET` pair keeps each message whole and in order and tells when the peer
//! is gone. Received descriptors are close-on-exec, and closed if the message is not understood.

use crate::cache_report::Purge;
use crate::encode::{DecodeError, Fault};
use crate::wire::{In, Out};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

pub use crate::sealed::{Mapped, read_sealed, seal};

/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most file descriptors of a message (the kernel's own bound is 253).
pub const MAX_FDS: usize = 200;
/// Most addresses of a [`Message::Bind`].
pub const MAX_ADDRESSES: usize = crate::encode::MAX_LISTENERS;
/// A peer that does not read for this long fails the sender, instead of stopping it too.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// What is said over the bus.
#[derive(Debug)]
pub enum Message {
    // Supervisor to engine and to control.
    /// The segment to open; the first message a child gets.
    Segment {
        fd: OwnedFd,
    },

    // Supervisor to engine.
    /// Listening sockets for `address`, one per shard in their order (`SO_REUSEPORT`). More than
    /// [`MAX_FDS`] come in several messages, whose sockets add up.
    Listener {
        address: SocketAddr,
        sockets: Vec<OwnedFd>,
    },
    /// The sealed snapshot of an epoch, to be adopted once the segment says that epoch.
    Snapshot {
        epoch: u64,
        fd: OwnedFd,
    },
    /// Accept no more on `address`.
    CloseListener {
        address: SocketAddr,
    },
    /// From control. Which buckets of limits there are, of a consumer (empty: of all), and how they
    /// stand; at most so many. Answered by [`Message::Limits`] with the same `id`.
    ListLimits {
        id: u64,
        consumer: String,
        most: u32,
    },
    /// From control. Have stored answers go, where `purge` says which; tell how the cache stands.
    /// Answered by [`Message::Cache`] with the same `id`.
    AskCache {
        id: u64,
        purge: Option<Purge>,
    },
    /// Finish what is in flight, within this time, then exit.
    Drain {
        timeout_ms: u32,
    },

    // Engine to supervisor.
    /// All shards run.
    Ready {
        pid: u32,
        shards: u16,
    },
    /// A snapshot that the engine does not take; it stays with what it has.
    Rejected {
        epoch: u64,
        reason: String,
    },
    /// All shards serve this epoch.
    Adopted {
        epoch: u64,
    },
    /// For control: lines ([`crate::LimitLine`]) in sealed memory.
    Limits {
        id: u64,
        fd: OwnedFd,
    },
    /// For control: a [`crate::CacheReport`] in sealed memory.
    Cache {
        id: u64,
        fd: OwnedFd,
    },
    /// Nothing is in flight any more.
    Drained,

    // Control to supervisor.
    /// Have exactly these addresses bound; those no longer listed are closed once a snapshot
    /// without them is published. Answered by [`Message::Bound`] with the same `id`.
    Bind {
        id: u64,
        addresses: Vec<SocketAddr>,
    },
    /// The sealed snapshot of an epoch, kept for restarts and forwarded to the engine. Answered by
    /// [`Message::Published`]; only then may the segment say the epoch.
    Publish {
        epoch: u64,
        fd: OwnedFd,
    },

    // Supervisor to control.
    Bound {
        id: u64,
        error: Option<String>,
    },
    Published {
        epoch: u64,
    },
    EngineUp {
        pid: u32,
    },
    EngineDown {
        reason: String,
    },
    /// For a control that starts while a snapshot is being served.
    LastSnapshot {
        epoch: u64,
        fd: OwnedFd,
    },
    /// Finish and exit.
    Shutdown,
}

/// One end of a bus. Sending and receiving may go on in different threads at once.
#[derive(Debug)]
pub struct Bus {
    socket: OwnedFd,
}

impl AsFd for Bus {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<Bus> for OwnedFd {
    /// To hand an end to a child, for example as its standard input; see [`Bus::from_stdin`].
    fn from(bus: Bus) -> OwnedFd {
        bus.socket
    }
}

impl Bus {
    /// Two connected ends, close-on-exec.
    ///
    /// # Errors
    /// No file descriptors left.
    pub fn pair() -> io::Result<(Bus, Bus)> {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Bus::from_fd(a)?, Bus::from_fd(b)?))
    }

    /// An end that came from another process.
    ///
    /// # Errors
    /// `fd` is not a socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Bus> {
        set_socket_timeout(&fd, Timeout::Send, Some(SEND_TIMEOUT))?;
        Ok(Bus { socket: fd })
    }

    /// The end that the parent put in place of this process' standard input
    /// (`Command::stdin(OwnedFd::from(bus))`), the one way to inherit a descriptor without unsafe
    /// code. Standard input is the null device afterwards, so nobody else reads from the bus.
    ///
    /// # Errors
    /// Standard input is not a socket: the program was not started by its supervisor.
    pub fn from_stdin() -> io::Result<Bus> {
        let bus = Bus::from_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(bus)
    }

    /// Sends a message; its descriptors are duplicated to the peer and closed here.
    ///
    /// # Errors
    /// `BrokenPipe` or `ConnectionReset` if the peer is gone, `TimedOut` if it has not read for
    /// 5 s, `InvalidInput` if the message is longer than [`MAX_MESSAGE`] or carries more than
    /// [`MAX_FDS`] descriptors.
    pub fn send(&self, message: &Message) -> io::Result<()> {
        let (bytes, fds) = message.encode();
        if bytes.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a bus message of {} bytes and {} file descriptors; at most {MAX_MESSAGE} and \
                     {MAX_FDS} fit: split it",
                    bytes.len(),
                    fds.len()
                ),
            ));
        }
        let sent = retry_on_intr(|| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
                assert!(fits, "MAX_FDS descriptors fit their buffer");
            }
            sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
        });
        match sent {
            Ok(_) => Ok(()),
            Err(Errno::AGAIN) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer on the bus has not read for 5 seconds",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the next message. `None`: the peer is gone and nothing of it is left.
    ///
    /// # Errors
    /// `InvalidData` for a message that makes no sense; the next one may be fine.
    pub fn recv(&self) -> io::Result<Option<Message>> {
        match self.recv_once() {
            // The peer went without reading all that we sent. The kernel says this once, and first;
            // what the peer itself had sent is still there.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                match self.recv_once() {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
                    other => other,
                }
            }
            other => other,
        }
    }

    /// As [`Bus::recv`], waiting no longer than `timeout`.
    ///
    /// # Errors
    /// `TimedOut` if nothing came (or a signal did); else as [`Bus::recv`].
    pub fn recv_timeout(&self, timeout: Duration) -> io::Result<Option<Message>> {
        let timeout = Timespec::try_from(timeout)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "time-out too long"))?;
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => self.recv(),
            Err(error) => Err(error.into()),
        }
    }

    fn recv_once(&self) -> io::Result<Option<Message>> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut fds = Vec::new();
        let received = retry_on_intr(|| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            Ok(received)
        })?;
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a bus message longer than its bound, or no file descriptors left to receive it",
            ));
        }
        let bytes = bytes.get(..received.bytes).unwrap_or_default();
        let message = Message::decode(bytes, fds).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("bus message {error}"))
        })?;
        Ok(Some(message))
    }
}

const SEGMENT: u8 = 1;
const LISTENER: u8 = 2;
const SNAPSHOT: u8 = 3;
const CLOSE_LISTENER: u8 = 4;
const DRAIN: u8 = 5;
const READY: u8 = 6;
const REJECTED: u8 = 7;
const ADOPTED: u8 = 8;
const DRAINED: u8 = 9;
const BIND: u8 = 10;
const PUBLISH: u8 = 11;
const BOUND: u8 = 12;
const PUBLISHED: u8 = 13;
const ENGINE_UP: u8 = 14;
const ENGINE_DOWN: u8 = 15;
const LAST_SNAPSHOT: u8 = 16;
const SHUTDOWN: u8 = 17;
const LIST_LIMITS: u8 = 18;
const LIMITS: u8 = 19;
const ASK_CACHE: u8 = 20;
const CACHE: u8 = 21;

impl Message {
    fn encode(&self) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
        let mut out = Out::default();
        let mut fds = Vec::new();
        match self {
            Message::Segment { fd } => {
                out.u8(SEGMENT);
                fds.push(fd.as_fd());
            }
            Message::Listener { address, sockets } => {
                out.u8(LISTENER);
                out.address(*address);
                fds.extend(sockets.iter().map(AsFd::as_fd));
            }
            Message::Snapshot { epoch, fd } => {
                out.u8(SNAPSHOT);
                out.u64(*epoch);
                fds.push(fd.as_fd());
            }
            Message::CloseListener { address } => {
                out.u8(CLOSE_LISTENER);
                out.address(*address);
            }
            Message::Drain { timeout_ms } => {
                out.u8(DRAIN);
                out.u32(*timeout_ms);
            }
            Message::Ready { pid, shards } => {
                out.u8(READY);
                out.u32(*pid);
                out.u16(*shards);
            }
            Message::Rejected { epoch, reason } => {
                out.u8(REJECTED);
                out.u64(*epoch);
                out.text(cut(reason));
            }
            Message::Adopted { epoch } => {
                out.u8(ADOPTED);
                out.u64(*epoch);
            }
            Message::Drained => out.u8(DRAINED),
            Message::Bind { id, addresses } => {
                out.u8(BIND);
                out.u64(*id);
                out.list(addresses, |out, address| out.address(*address));
            }
            Message::Publish { epoch, fd } => {
                out.u8(PUBLISH);
                out.u64(*epoch);
                fds.push(fd.as_fd());
            }
            Message::Bound { id, error } => {
                out.u8(BOUND);
                out.u64(*id);
                out.u8(error.is_some().into());
                if let Some(error) = error {
                    out.text(cut(error));
                }
            }
            Message::Published { epoch } => {
                out.u8(PUBLISHED);
                out.u64(*epoch);
            }
            Message::EngineUp { pid } => {
                out.u8(ENGINE_UP);
                out.u32(*pid);
            }
            Message::EngineDown { reason } => {
                out.u8(ENGINE_DOWN);
                out.text(cut(reason));
            }
            Message::LastSnapshot { epoch, fd } => {
                out.u8(LAST_SNAPSHOT);
                out.u64(*epoch);
                fds.push(fd.as_fd());
            }
            Message::Shutdown => out.u8(SHUTDOWN),
            Message::ListLimits { id, consumer, most } => {
                out.u8(LIST_LIMITS);
                out.u64(*id);
                out.text(cut(consumer));
                out.u32(*most);
            }
            Message::AskCache { id, purge } => {
                out.u8(ASK_CACHE);
                out.u64(*id);
                out.option(purge.as_ref(), |out, purge| purge.write(out));
            }
            Message::Cache { id, fd } => {
                out.u8(CACHE);
                out.u64(*id);
                fds.push(fd.as_fd());
            }
            Message::Limits { id, fd } => {
                out.u8(LIMITS);
                out.u64(*id);
                fds.push(fd.as_fd());
            }
        }
        (out.bytes, fds)
    }

    /// Reads what [`Message::encode`] wrote; `fds` came along.
    fn decode(bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Message, DecodeError> {
        let mut input = In::new(bytes, 0);
        let found = fds.len();
        let mut fds = fds.into_iter();
        let message = match input.u8("message")? {
            SEGMENT => Message::Segment { fd: one(&input, &mut fds)? },
            LISTENER => Message::Listener {
                address: input.address("address")?,
                sockets: fds.by_ref().collect(),
            },
            SNAPSHOT => {
                Message::Snapshot { epoch: input.u64("epoch")?, fd: one(&input, &mut fds)? }
            }
            CLOSE_LISTENER => Message::CloseListener { address: input.address("address")? },
            DRAIN => Message::Drain { timeout_ms: input.u32("timeout_ms")? },
            READY => Message::Ready { pid: input.u32("pid")?, shards: input.u16("shards")? },
            REJECTED => {
                Message::Rejected { epoch: input.u64("epoch")?, reason: input.text("reason")? }
            }
            ADOPTED => Message::Adopted { epoch: input.u64("epoch")? },
            DRAINED => Message::Drained,
            BIND => Message::Bind {
                id: input.u64("id")?,
                addresses: input
                    .list("addresses", MAX_ADDRESSES, |input| input.address("address"))?,
            },
            PUBLISH => Message::Publish { epoch: input.u64("epoch")?, fd: one(&input, &mut fds)? },
            BOUND => Message::Bound {
                id: input.u64("id")?,
                error: if input.bool("error")? { Some(input.text("error")?) } else { None },
            },
            PUBLISHED => Message::Published { epoch: input.u64("epoch")? },
            ENGINE_UP => Message::EngineUp { pid: input.u32("pid")? },
            ENGINE_DOWN => Message::EngineDown { reason: input.text("reason")? },
            LAST_SNAPSHOT => {
                Message::LastSnapshot { epoch: input.u64("epoch")?, fd: one(&input, &mut fds)? }
            }
            SHUTDOWN => Message::Shutdown,
            LIST_LIMITS => Message::ListLimits {
                id: input.u64("id")?,
                consumer: input.text("consumer")?,
                most: input.u32("most")?,
            },
            ASK_CACHE => Message::AskCache {
                id: input.u64("id")?,
                purge: input.option("purge", Purge::read)?,
            },
            CACHE => Message::Cache { id: input.u64("id")?, fd: one(&input, &mut fds)? },
            LIMITS => Message::Limits { id: input.u64("id")?, fd: one(&input, &mut fds)? },
            other => return Err(input.tag("message", other)),
        };
        input.end()?;
        match fds.len() {
            0 => Ok(message),
            more => {
                let fault = Fault::Descriptors { found, expected: found - more };
                Err(input.fault("fd", fault))
            }
        }
    }
}

fn one(input: &In<'_>, fds: &mut impl Iterator<Item = OwnedFd>) -> Result<OwnedFd, DecodeError> {
    fds.next().ok_or_else(|| input.fault("fd", Fault::Descriptors { found: 0, expected: 1 }))
}

/// A reason fits a message whatever its length: people need its beginning.
fn cut(text: &str) -> &str {
    const LONGEST: usize = 16 * 1024;
    // A character is at most 4 bytes, so one of these is a boundary.
    (LONGEST - 3..=LONGEST).rev().find_map(|end| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests;
