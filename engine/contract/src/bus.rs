//! The bus: messages with file descriptors between the supervisor and its engine or control.
//!
//! An `AF_UNIX` `SOCK_SEQPACKET` pair keeps each message whole and in order and tells when the peer
//! is gone. Received descriptors are close-on-exec, and closed if the message is not understood.

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
mod tests {
    use super::*;
    use rustix::io::{FdFlags, fcntl_getfd};
    use std::io::{Read, Write};

    const SOON: Duration = Duration::from_secs(10);

    fn pass(message: Message) -> Message {
        let (a, b) = Bus::pair().unwrap();
        a.send(&message).unwrap();
        b.recv_timeout(SOON).unwrap().unwrap()
    }

    #[test]
    fn every_message_without_descriptors_arrives_as_sent() {
        let v4: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let v6: SocketAddr = "[::1%3]:8080".parse().unwrap();
        for message in [
            Message::CloseListener { address: v6 },
            Message::Drain { timeout_ms: 7 },
            Message::Ready { pid: 1, shards: 2 },
            Message::Rejected { epoch: 3, reason: "no such upstream".into() },
            Message::Adopted { epoch: u64::MAX },
            Message::Drained,
            Message::Bind { id: 9, addresses: vec![v4, v6] },
            Message::Bound { id: 9, error: None },
            Message::Bound { id: 9, error: Some("in use".into()) },
            Message::Published { epoch: 4 },
            Message::EngineUp { pid: 5 },
            Message::EngineDown { reason: "signal 9".into() },
            Message::Shutdown,
        ] {
            let sent = format!("{message:?}");
            assert_eq!(format!("{:?}", pass(message)), sent);
        }
    }

    #[test]
    fn descriptors_arrive_and_are_close_on_exec() {
        type Make = fn(OwnedFd) -> Message;
        let makes: [Make; 4] = [
            |fd| Message::Segment { fd },
            |fd| Message::Snapshot { epoch: 7, fd },
            |fd| Message::Publish { epoch: 7, fd },
            |fd| Message::LastSnapshot { epoch: 7, fd },
        ];
        for make in makes {
            let fd = match pass(make(seal(b"bytes").unwrap())) {
                Message::Segment { fd }
                | Message::Snapshot { epoch: 7, fd }
                | Message::Publish { epoch: 7, fd }
                | Message::LastSnapshot { epoch: 7, fd } => fd,
                other => panic!("{other:?}"),
            };
            assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
            assert_eq!(&*read_sealed(&fd).unwrap(), b"bytes");
        }
    }

    #[test]
    fn listening_sockets_arrive_in_their_order_up_to_the_bound() {
        let address = "127.0.0.1:1".parse().unwrap();
        let sockets = |count| {
            let one = |n: usize| seal(&n.to_le_bytes()).unwrap();
            (0..count).map(one).collect::<Vec<_>>()
        };
        for count in [0, 1, MAX_FDS] {
            match pass(Message::Listener { address, sockets: sockets(count) }) {
                Message::Listener { address: got, sockets } => {
                    assert_eq!(got, address);
                    assert_eq!(sockets.len(), count);
                    for (n, socket) in sockets.iter().enumerate() {
                        assert_eq!(&*read_sealed(socket).unwrap(), &n.to_le_bytes());
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        let (a, _b) = Bus::pair().unwrap();
        let error = a.send(&Message::Listener { address, sockets: sockets(MAX_FDS + 1) });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = "\u{20ac}".repeat(30_000);
        match pass(Message::EngineDown { reason: reason.clone() }) {
            Message::EngineDown { reason: got } => {
                assert!(reason.starts_with(&got) && got.len() > 16_000);
            }
            other => panic!("{other:?}"),
        }
        let addresses = vec!["127.0.0.1:1".parse().unwrap(); 10_000];
        let (a, _b) = Bus::pair().unwrap();
        let error = a.send(&Message::Bind { id: 1, addresses }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_end_of_the_peer_shows_after_all_it_said() {
        let (a, b) = Bus::pair().unwrap();
        a.send(&Message::Adopted { epoch: 1 }).unwrap();
        a.send(&Message::Drained).unwrap();
        b.send(&Message::Shutdown).unwrap();
        // `a` goes with a message unread.
        drop(a);
        assert!(matches!(b.recv().unwrap(), Some(Message::Adopted { epoch: 1 })));
        assert!(matches!(b.recv().unwrap(), Some(Message::Drained)));
        assert!(b.recv().unwrap().is_none());
        assert!(b.recv_timeout(SOON).unwrap().is_none());
        assert_eq!(b.send(&Message::Shutdown).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn silence_times_out() {
        let (_a, b) = Bus::pair().unwrap();
        let error = b.recv_timeout(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn nonsense_is_refused_its_descriptors_closed_and_the_next_message_read() {
        let (a, b) = Bus::pair().unwrap();
        let send_raw = |bytes: &[u8], fds: &[BorrowedFd<'_>]| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
            sendmsg(&a, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
        };
        let (mut reader, writer) = io::pipe().unwrap();
        send_raw(&[200], &[writer.as_fd()]);
        send_raw(&[DRAINED], &[writer.as_fd()]);
        send_raw(&[SEGMENT], &[writer.as_fd(), writer.as_fd()]);
        send_raw(&[SEGMENT], &[]);
        send_raw(&[DRAIN, 1, 2], &[]);
        send_raw(&[DRAINED, 0], &[]);
        send_raw(&vec![0; MAX_MESSAGE + 1], &[]);
        for _ in 0..7 {
            let error = b.recv_timeout(SOON).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        a.send(&Message::Drained).unwrap();
        assert!(matches!(b.recv_timeout(SOON).unwrap(), Some(Message::Drained)));
        // With ours closed, nobody holds the pipe open for writing any more.
        (&writer).write_all(b"x").unwrap();
        drop(writer);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"x");
    }

    /// The child's side of the next test; alone it has no bus to stand on.
    #[test]
    #[ignore = "started by a_child_inherits_its_end_as_standard_input"]
    fn echo_as_a_child() {
        let bus = Bus::from_stdin().unwrap();
        // Standard input is empty now, not the bus.
        assert_eq!(io::stdin().read(&mut [0; 8]).unwrap(), 0);
        while let Some(message) = bus.recv().unwrap() {
            bus.send(&message).unwrap();
        }
    }

    #[test]
    fn a_child_inherits_its_end_as_standard_input() {
        let (ours, theirs) = Bus::pair().unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "bus::tests::echo_as_a_child"])
            .stdin(OwnedFd::from(theirs))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        ours.send(&Message::Segment { fd: seal(b"passed on").unwrap() }).unwrap();
        match ours.recv_timeout(SOON).unwrap() {
            Some(Message::Segment { fd }) => assert_eq!(&*read_sealed(fd).unwrap(), b"passed on"),
            other => panic!("{other:?}"),
        }
        drop(ours);
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn only_a_socket_is_a_bus() {
        assert!(Bus::from_fd(seal(b"x").unwrap()).is_err());
    }
}
