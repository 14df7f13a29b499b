//! TLS over a [`Stream`], with the same calls.
//!
//! Received chunks are opened record by record in place; the plaintext of all records of a chunk is
//! moved together and handed on as the same chunk. Only a record that is cut by the chunk's end is
//! carried over in memory of its own. What is to be sent is sealed into one buffer, which is what
//! the socket gets: there is no queue beside it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use super::facts::TlsFacts;
use super::machine::{Machine, RECORD_HEADER, Step, record_len};
use crate::io::{Chunk, Io, SendBuf, Stream};
use crate::limits;

/// Plaintext that one send encrypts at a time.
const PIECE: usize = 3 * 16 * 1024;

/// How the peer's half stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Open,
    /// close_notify came: the end is the peer's own.
    Closed,
    /// The socket's end came without one.
    Truncated,
    /// errno of the socket.
    Socket(i32),
    /// A record or a message that TLS does not allow.
    Broken,
}

impl End {
    fn result(self) -> Option<io::Result<Option<Chunk>>> {
        match self {
            End::Open => None,
            End::Closed => Some(Ok(None)),
            End::Truncated => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            End::Socket(errno) => Some(Err(io::Error::from_raw_os_error(errno))),
            End::Broken => Some(Err(io::ErrorKind::InvalidData.into())),
        }
    }
}

struct Core {
    machine: Machine,
    /// Received and not consumed: the first part of a record, or of a message over several records.
    carry: Vec<u8>,
    /// So many bytes of `carry` are whole records that rustls has seen.
    seen: usize,
    /// Sealed and not handed to the socket yet: it is still at an earlier send.
    out: Vec<u8>,
    /// Why the handshake or the connection failed.
    error: Option<rustls::Error>,
}

/// A TLS connection of one shard. Dropping it closes it, with a close_notify if it is idle.
pub struct TlsStream {
    io: Io,
    stream: Stream,
    facts: OnceCell<Box<TlsFacts>>,
    core: RefCell<Core>,
    /// Plaintext that waits for its reader.
    plain: RefCell<VecDeque<Chunk>>,
    end: Cell<End>,
    /// Nothing more may be sent: our close_notify is out, or a send was cut short.
    write_closed: Cell<bool>,
    reset_on_close: Cell<bool>,
    fin_wanted: Cell<bool>,
}

impl TlsStream {
    pub(super) fn new(io: &Io, stream: Stream, machine: Machine) -> TlsStream {
        TlsStream {
            io: io.clone(),
            stream,
            facts: OnceCell::new(),
            core: RefCell::new(Core {
                machine,
                carry: Vec::new(),
                seen: 0,
                out: Vec::new(),
                error: None,
            }),
            plain: RefCell::default(),
            end: Cell::new(End::Open),
            write_closed: Cell::new(false),
            reset_on_close: Cell::new(false),
            fin_wanted: Cell::new(false),
        }
    }

    /// What the handshake has settled.
    pub fn facts(&self) -> &TlsFacts {
        self.facts.get_or_init(|| Box::new(TlsFacts::none()))
    }

    pub(super) fn set_facts(&self, facts: TlsFacts) {
        let _ = self.facts.set(Box::new(facts));
    }

    pub(super) fn with_machine<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.core.borrow().machine)
    }

    pub(super) fn take_error(&self) -> Option<rustls::Error> {
        self.core.borrow_mut().error.take()
    }

    pub(super) fn end(&self) -> End {
        self.end.get()
    }

    /// Makes the first message of a client.
    pub(super) fn begin(&self) {
        let core = &mut *self.core.borrow_mut();
        self.open(core, &mut []);
        self.pump_core(core);
    }

    /// Whether something sealed waits for an earlier send.
    pub(super) fn has_output(&self) -> bool {
        !self.core.borrow().out.is_empty()
    }

    pub(super) fn has_plain(&self) -> bool {
        !self.plain.borrow().is_empty()
    }

    /// The next bytes; `None` at the end of the stream.
    ///
    /// # Errors
    /// As [`crate::transport::Transport::recv`].
    pub async fn recv(&self) -> io::Result<Option<Chunk>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        loop {
            if let Some(chunk) = self.plain.borrow_mut().pop_front() {
                return Poll::Ready(Ok(Some(chunk)));
            }
            if let Some(result) = self.end.get().result() {
                return Poll::Ready(result);
            }
            if self.poll_records(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Ready when something was received, whatever it was.
    pub(super) fn poll_records(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.stream.poll_recv(cx) {
            Poll::Pending => {
                self.pump();
                return Poll::Pending;
            }
            Poll::Ready(Ok(Some(chunk))) => self.feed(chunk),
            Poll::Ready(Ok(None)) => self.end.set(End::Truncated),
            Poll::Ready(Err(error)) => {
                self.end.set(End::Socket(error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
        Poll::Ready(())
    }

    /// Opens what was received.
    pub(super) fn feed(&self, mut chunk: Chunk) {
        let core = &mut *self.core.borrow_mut();
        while !chunk.is_empty() && self.end.get() == End::Open {
            if core.carry.is_empty() {
                let opened = self.open(core, chunk.bytes_mut());
                core.carry_over(&chunk, opened.start);
                self.keep(chunk, opened);
                break;
            }
            if core.complete_record(&mut chunk) {
                let mut carry = std::mem::take(&mut core.carry);
                let opened = self.open(core, &mut carry);
                if opened.plain_len > 0 {
                    let carried = Chunk::from_vec(carry);
                    core.carry_over(&carried, opened.start);
                    self.keep(carried, opened);
                } else {
                    carry.drain(..opened.start.min(carry.len()));
                    core.carry = if carry.is_empty() { Vec::new() } else { carry };
                }
            }
            if core.carry.len() > limits::TLS_CARRY {
                core.error = Some(rustls::InvalidMessage::MessageTooLarge.into());
                self.end.set(End::Broken);
            }
        }
        if self.end.get() != End::Open {
            // What follows a close_notify is ignored (RFC 8446 §6.1).
            core.carry = Vec::new();
            core.seen = 0;
        }
        if let Some(facts) = self.facts.get()
            && facts.early.get()
            && !core.machine.is_handshaking()
        {
            facts.early.set(false);
        }
        self.pump_core(core);
    }

    /// Queues the plaintext of `chunk` for its reader.
    fn keep(&self, mut chunk: Chunk, opened: Opened) {
        if opened.plain_len > 0 {
            chunk.advance(opened.plain);
            chunk.truncate(opened.plain_len);
            self.plain.borrow_mut().push_back(chunk);
        }
    }

    /// Opens the records of `bytes`, of which the first [`Core::seen`] bytes were seen before.
    fn open(&self, core: &mut Core, bytes: &mut [u8]) -> Opened {
        // What rustls has not consumed begins at `start`; it has seen all up to `end`.
        let (mut start, mut end) = (0, std::mem::take(&mut core.seen));
        // Where the plaintext stands, and the last record.
        let (mut plain, mut plain_len, mut record) = (0, 0, 0);
        let mut more = true;
        while self.end.get() == End::Open {
            if let Some(len) = record_len(bytes.get(end..).unwrap_or_default())
                && end + len <= bytes.len()
                && len > 0
            {
                record = end;
                end += len;
            } else if more {
                // Once more without a new record: what is left to be said.
                more = false;
            } else {
                break;
            }
            loop {
                let window = bytes.get_mut(start..end).unwrap_or_default();
                let (discard, step) = core.machine.step(window, &mut core.out);
                start = (start + discard).min(end);
                match step {
                    Step::Data { len, edge } => {
                        let at = record + RECORD_HEADER;
                        let opened = bytes.get(at..at + len).unwrap_or_default();
                        if opened.len() != len || opened.iter().zip(edge).any(|(a, b)| *a != b) {
                            core.error = Some(rustls::Error::General("not in place".into()));
                            self.end.set(End::Broken);
                            break;
                        }
                        if plain_len == 0 {
                            plain = at;
                        } else {
                            bytes.copy_within(at..at + len, plain + plain_len);
                        }
                        plain_len += len;
                        if start == end {
                            break;
                        }
                    }
                    Step::Early(data) => {
                        if let Some(facts) = self.facts.get() {
                            facts.took_early.set(true);
                        }
                        self.plain.borrow_mut().push_back(Chunk::from_vec(data));
                    }
                    Step::Again => {}
                    Step::Idle => break,
                    Step::PeerClosed => {
                        self.end.set(End::Closed);
                        break;
                    }
                    Step::Failed(error) => {
                        core.error = Some(error);
                        self.end.set(End::Broken);
                        core.say_why();
                        break;
                    }
                }
            }
        }
        core.seen = end - start;
        Opened { start, plain, plain_len }
    }

    /// Hands what is sealed to the socket, if that is free.
    fn pump(&self) {
        self.pump_core(&mut self.core.borrow_mut());
    }

    /// Whether the socket has not failed, as far as is known.
    fn pump_core(&self, core: &mut Core) -> bool {
        if !core.out.is_empty() && !self.stream.is_sending() {
            let out = std::mem::take(&mut core.out);
            if let Err(SendBuf::Vec(out)) = self.stream.try_send(SendBuf::Vec(out)) {
                self.io.give_vec(out);
                return false;
            }
        } else if self.fin_wanted.get() && core.out.is_empty() && !self.stream.is_sending() {
            self.fin_wanted.set(false);
            self.stream.shutdown_write();
        }
        true
    }

    /// Whether bytes, an end or an error wait to be received.
    pub fn has_input(&self) -> bool {
        // Session tickets and key updates are no input: look inside. This never waits, as a stream
        // with input gives it at once.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while self.plain.borrow().is_empty()
            && self.end.get() == End::Open
            && self.stream.has_input()
        {
            if self.poll_records(&mut cx).is_pending() {
                break;
            }
        }
        !self.plain.borrow().is_empty() || self.end.get() != End::Open
    }

    /// Listens for the peer's end although no one is receiving, without holding a buffer.
    pub fn keep_watch(&self) {
        if !self.has_input() {
            self.stream.keep_watch();
        }
    }

    /// Ready once the connection has failed (a reset, a broken record; not a mere end).
    pub fn poll_failed(&self, cx: &Context<'_>) -> Poll<()> {
        match self.end.get() {
            End::Socket(_) | End::Broken => Poll::Ready(()),
            _ => self.stream.poll_failed(cx),
        }
    }

    /// Whether the peer has closed its half or the connection failed, as far as is known.
    pub fn has_ended(&self) -> bool {
        self.end.get() != End::Open || self.stream.has_ended()
    }

    /// Puts bytes back in front of what is to be received.
    pub fn unrecv(&self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.plain.borrow_mut().push_front(chunk);
        }
    }

    /// For long bodies: receive one buffer at a time.
    pub fn set_bulk(&self, bulk: bool) {
        self.stream.set_bulk(bulk);
    }

    /// As [`crate::transport::Transport::send`].
    ///
    /// # Errors
    /// The failure of an earlier send; `buf` is dropped.
    pub async fn send(&self, buf: SendBuf) -> io::Result<()> {
        self.flush().await?;
        let bytes = buf.bytes();
        let (mut at, len) = (0, bytes.len());
        while at < len {
            let end = (at + PIECE).min(len);
            self.seal(bytes.get(at..end).unwrap_or_default())?;
            at = end;
            if at < len {
                // Between two pieces: who gives up here has sent a part, so nothing may follow.
                self.write_closed.set(true);
                self.flush().await?;
                self.write_closed.set(false);
            }
        }
        if let SendBuf::Vec(vec) = buf {
            self.io.give_vec(vec);
        }
        Ok(())
    }

    /// Queues `buf` if no send is outstanding; otherwise gives it back.
    pub fn try_send(&self, buf: SendBuf) -> Result<(), SendBuf> {
        if self.is_sending() || self.seal(buf.bytes()).is_err() {
            return Err(buf);
        }
        if let SendBuf::Vec(vec) = buf {
            self.io.give_vec(vec);
        }
        Ok(())
    }

    /// Seals `plain` and hands it to the socket.
    fn seal(&self, plain: &[u8]) -> io::Result<()> {
        if plain.is_empty() {
            return Ok(());
        }
        if self.write_closed.get() || self.end.get() == End::Broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let core = &mut *self.core.borrow_mut();
        if core.out.capacity() == 0 {
            core.out = self.io.take_vec();
        }
        let seen = core.seen;
        let window = core.carry.get_mut(..seen).unwrap_or_default();
        if let Err(error) = core.machine.seal(window, plain, &mut core.out) {
            self.write_closed.set(true);
            core.error = Some(error);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.pump_core(core) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    /// Whether a send is outstanding.
    pub fn is_sending(&self) -> bool {
        if self.stream.is_sending() {
            return true;
        }
        self.pump();
        self.stream.is_sending()
    }

    /// Waits until everything queued is in the kernel's hands.
    ///
    /// # Errors
    /// The failure of a send (EPIPE, ECONNRESET …).
    pub async fn flush(&self) -> io::Result<()> {
        loop {
            self.pump();
            self.stream.flush().await?;
            if !self.has_output() {
                // The end that was asked for meanwhile.
                self.pump();
                return Ok(());
            }
        }
    }

    /// Ends our half: close_notify (RFC 8446 §6.1), then the socket's end.
    pub fn shutdown_write(&self) {
        self.close_notify();
        self.fin_wanted.set(true);
        self.pump();
    }

    /// Queues a close_notify, once.
    fn close_notify(&self) {
        if self.write_closed.replace(true) || self.end.get() == End::Broken {
            return;
        }
        let core = &mut *self.core.borrow_mut();
        let seen = core.seen;
        let window = core.carry.get_mut(..seen).unwrap_or_default();
        let _ = core.machine.close(window, &mut core.out);
        if self.stream.is_sending() || core.out.is_empty() {
            return;
        }
        // At once if the socket takes it, as the end or the close may follow right behind.
        match self.stream.send_now(&core.out) {
            Ok(sent) => drop(core.out.drain(..sent.min(core.out.len()))),
            Err(_) => core.out.clear(),
        }
        if core.out.is_empty() {
            self.io.give_vec(std::mem::take(&mut core.out));
        }
    }

    /// Makes the coming close a reset, so that the peer cannot take a cut answer for a whole one.
    pub fn set_reset_on_close(&self) {
        self.reset_on_close.set(true);
        self.stream.set_reset_on_close();
    }

    /// The local address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.stream.local_addr()
    }

    /// The socket below, for what ends it.
    pub(super) fn socket(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.core.borrow().machine.is_handshaking()
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        // A send in flight is cut off by the close: no end may be claimed behind it. A connection
        // that never got through its handshake has nothing to end.
        let whole = !self.stream.is_sending() && self.core.get_mut().out.is_empty();
        if whole && !self.reset_on_close.get() && !self.is_handshaking() {
            self.close_notify();
        }
    }
}

/// Where things are in bytes that were opened.
#[derive(Clone, Copy)]
struct Opened {
    /// The first byte that is not done with.
    start: usize,
    plain: usize,
    plain_len: usize,
}

impl Core {
    /// After a failure: seals the alert that says why. The records are not shown again, as rustls
    /// must not judge them twice; it gives what it has to send before it looks at any.
    fn say_why(&mut self) {
        while self.machine.wants_write() {
            if !matches!(self.machine.step(&mut [], &mut self.out).1, Step::Again) {
                break;
            }
        }
    }

    /// Keeps what follows the last whole record of `chunk`.
    fn carry_over(&mut self, chunk: &Chunk, start: usize) {
        let rest = chunk.bytes().get(start..).unwrap_or_default();
        if !rest.is_empty() {
            // Room for the record that it begins, so that this grows once.
            let room = record_len(rest).unwrap_or(0).min(limits::TLS_CARRY).max(rest.len());
            self.carry.reserve_exact(room);
            self.carry.extend_from_slice(rest);
        }
    }

    /// Takes from `chunk` what the carried record still lacks. Whether it is complete now.
    fn complete_record(&mut self, chunk: &mut Chunk) -> bool {
        while let Some(lacking) = self.lacking() {
            let bytes = chunk.bytes();
            let take = lacking.min(bytes.len());
            if take == 0 {
                return false;
            }
            self.carry.extend_from_slice(bytes.get(..take).unwrap_or_default());
            chunk.advance(take);
        }
        true
    }

    /// How many bytes are lacking to the first record that rustls has not seen, as far as is known.
    fn lacking(&self) -> Option<usize> {
        let rest = self.carry.get(self.seen..).unwrap_or_default();
        let lacking = match record_len(rest) {
            None => RECORD_HEADER - rest.len().min(RECORD_HEADER - 1),
            Some(len) => len.saturating_sub(rest.len()),
        };
        (lacking > 0).then_some(lacking)
    }
}
