//! One HTTP/2 connection of a shard: the state machine of [`crate::http2`] on a transport, and the
//! tasks that wait for its streams.
//!
//! A task of its own drives the connection ([`Mux::drive`]). Streams queue frames in the state
//! machine and wake the driver, which runs behind them in the executor's queue: what all streams
//! have queued by then leaves with one send.

mod stream;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::{Future as _, poll_fn};
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::http2::{
    Config, Connection, ErrorCode, Event, HeaderBlock, RequestKind, Role, StreamId,
};
use crate::io::{Io, SendBuf};
use crate::limits;
use crate::transport::Transport;

/// Stream ids are small and their order is the peer's choice within the protocol's rules.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u32(&mut self, id: u32) {
        // Fibonacci hashing: spreads consecutive ids over the table's high and low bits.
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

pub use self::stream::{Head, MuxStream, StreamFault};
use self::stream::{State, remember, wake};

type Streams = HashMap<StreamId, Rc<State>, BuildHasherDefault<IdHasher>>;

/// What the driver of a connection sees happen.
pub enum Happened {
    /// A client began a stream.
    Opened(MuxStream, HeaderBlock, bool),
    /// A stream ended, settings changed, the peer is going away: time to look.
    Changed,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The peer closed, or the transport failed.
    Gone,
    /// The peer broke the protocol or a budget; a GOAWAY has been queued.
    Broken(ErrorCode),
}

pub struct Mux {
    pub io: Io,
    pub transport: Rc<Transport>,
    /// We open the streams.
    is_client: bool,
    core: RefCell<Connection>,
    streams: RefCell<Streams>,
    events: RefCell<VecDeque<Event>>,
    driver: RefCell<Option<Waker>>,
    kicked: Cell<bool>,
    closed: Cell<bool>,
    /// The peer's first SETTINGS have come.
    settled: Cell<bool>,
    unsettled: RefCell<Vec<Waker>>,
    /// When the last stream ended, in monotonic milliseconds.
    used_ms: Cell<u64>,
    /// When bytes came last.
    heard_ms: Cell<u64>,
    /// How often bytes came.
    heard: Cell<u64>,
    /// When a suspect peer was pinged; 0: it is not suspect.
    pinged_ms: Cell<u64>,
    /// Called by a stream's end, for whoever waits for a free one.
    freed: RefCell<Option<Box<dyn Fn()>>>,
}

impl Mux {
    pub fn new(io: Io, transport: Rc<Transport>, config: Config) -> Rc<Mux> {
        let now_ms = io.clock().now_ms();
        Rc::new(Mux {
            used_ms: Cell::new(now_ms),
            heard_ms: Cell::new(now_ms),
            heard: Cell::new(0),
            pinged_ms: Cell::new(0),
            io,
            transport,
            is_client: config.role == Role::Client,
            core: RefCell::new(Connection::new(config)),
            streams: RefCell::default(),
            events: RefCell::default(),
            driver: RefCell::default(),
            kicked: Cell::new(false),
            closed: Cell::new(false),
            settled: Cell::new(false),
            unsettled: RefCell::default(),
            freed: RefCell::default(),
        })
    }

    /// Calls `freed` whenever a stream has ended, and when the connection has.
    pub fn on_freed(&self, freed: impl Fn() + 'static) {
        *self.freed.borrow_mut() = Some(Box::new(freed));
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Streams under way.
    pub fn streams(&self) -> usize {
        self.streams.borrow().len()
    }

    /// Streams that could be opened now (client's role).
    pub fn available(&self) -> u32 {
        if self.closed.get() { 0 } else { self.core.borrow().available_streams() }
    }

    /// Waits for the peer's first settings, or the connection's end.
    pub async fn told_settings(&self) {
        poll_fn(|cx| {
            if self.settled.get() || self.closed.get() {
                return Poll::Ready(());
            }
            self.unsettled.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn tell_settings(&self) {
        std::mem::take(&mut *self.unsettled.borrow_mut()).into_iter().for_each(Waker::wake);
    }

    /// Whether the peer takes an extended CONNECT (RFC 8441); `None`: its settings have not come.
    pub fn extended_connect(&self) -> Option<bool> {
        let allowed = self.core.borrow().peer_allows_extended_connect();
        (self.settled.get() || allowed).then_some(allowed)
    }

    /// Whether no new stream can be opened ever again.
    pub fn is_going_away(&self) -> bool {
        self.closed.get() || self.core.borrow().is_going_away()
    }

    pub fn used_ms(&self) -> u64 {
        self.used_ms.get()
    }

    /// An exchange got no answer in time: maybe the peer is gone without a word. A ping will tell.
    pub fn suspect(&self) {
        if self.pinged_ms.get() == 0 && !self.closed.get() {
            self.pinged_ms.set(self.io.clock().now_ms());
            self.core.borrow_mut().send_ping(self.io.clock().now_ms());
            self.kick();
        }
    }

    /// When a suspect peer must have given a sign of life.
    pub fn verdict_ms(&self) -> Option<u64> {
        match self.pinged_ms.get() {
            0 => None,
            pinged_ms if self.heard_ms.get() > pinged_ms => {
                self.pinged_ms.set(0);
                None
            }
            pinged_ms => Some(pinged_ms + limits::PING_ANSWER_MS),
        }
    }

    /// Whether a suspect peer has not been heard in time.
    pub fn is_dead(&self) -> bool {
        self.verdict_ms().is_some_and(|at_ms| at_ms <= self.io.clock().now_ms())
    }

    /// Whether the peer owes the answer to our settings for too long; it is told so.
    pub fn is_overdue(&self) -> bool {
        let mut core = self.core.borrow_mut();
        let overdue = core.overdue(self.io.clock().now_ms());
        if overdue {
            core.abandon(ErrorCode::SETTINGS_TIMEOUT);
        }
        overdue
    }

    /// When the frame or header block that has begun must have ended, if it may take `timeout_ms`;
    /// 0: none has. While the peer takes nothing, we read nothing, and cannot know.
    pub fn partial_deadline_ms(&self, timeout_ms: u64) -> u64 {
        let core = self.core.borrow();
        match core.partial_since() {
            Some(since_ms) if core.output_len() <= limits::MUX_OUTPUT => since_ms + timeout_ms,
            _ => 0,
        }
    }

    /// Gives the connection up; the peer is told why.
    pub fn abandon(&self, code: ErrorCode) {
        self.core.borrow_mut().abandon(code);
    }

    /// Lets streams under way end and begins no more.
    pub fn shut_down(&self) {
        self.core.borrow_mut().shut_down();
        self.kick();
    }

    /// The second half of a server's farewell: what has come by now is served, nothing else.
    pub fn finish_shutdown(&self) {
        self.core.borrow_mut().finish_shutdown();
        self.kick();
    }

    /// Opens a stream with a request's head. The caller has looked at [`Mux::available`].
    ///
    /// # Errors
    /// No stream can be opened (any more).
    pub fn open(
        self: &Rc<Self>,
        block: &[u8],
        end: bool,
        kind: RequestKind,
    ) -> Result<MuxStream, StreamFault> {
        if self.closed.get() {
            return Err(StreamFault::Lost);
        }
        let opened = self.core.borrow_mut().open(block, end, kind);
        let refused = StreamFault::Reset { code: ErrorCode::REFUSED_STREAM, by_peer: true };
        let id = opened.map_err(|_| refused)?;
        let state = Rc::new(State::default());
        state.sent_end.set(end);
        self.streams.borrow_mut().insert(id, state.clone());
        self.kick();
        Ok(MuxStream { mux: self.clone(), id, state, heard: self.heard.get() })
    }

    /// Has the driver look at the output.
    fn kick(&self) {
        if !self.kicked.replace(true)
            && let Some(driver) = &*self.driver.borrow()
        {
            driver.wake_by_ref();
        }
    }

    /// Gives memory of a header block back.
    pub fn recycle(&self, block: HeaderBlock) {
        self.core.borrow_mut().recycle(block);
    }

    /// Moves bytes both ways until something has happened that the connection's task must see.
    pub fn poll_happened(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<Result<Happened, Over>> {
        remember(&self.driver, cx);
        self.kicked.set(false);
        let mut idle = false;
        loop {
            let event = self.events.borrow_mut().pop_front();
            if let Some(event) = event {
                if let Some(happened) = self.dispatch(event) {
                    return Poll::Ready(Ok(happened));
                }
                continue;
            }
            if self.poll_output(cx).is_err() {
                return Poll::Ready(Err(Over::Gone));
            }
            if !self.events.borrow().is_empty() {
                continue;
            }
            if idle || self.core.borrow().output_len() > limits::MUX_OUTPUT {
                return Poll::Pending;
            }
            match self.transport.poll_recv(cx) {
                Poll::Ready(Ok(Some(chunk))) => {
                    let now_ms = self.io.clock().now_ms();
                    self.heard_ms.set(now_ms);
                    self.heard.set(self.heard.get() + 1);
                    let events = &mut *self.events.borrow_mut();
                    let received = self.core.borrow_mut().receive(chunk, now_ms, events);
                    if let Err(error) = received {
                        return Poll::Ready(Err(Over::Broken(error.code)));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Err(Over::Gone)),
                Poll::Pending => idle = true,
            }
        }
    }

    /// Sends what is queued, if nothing is under way; then those who waited may queue more.
    fn poll_output(&self, cx: &mut Context<'_>) -> Result<(), ()> {
        loop {
            if self.core.borrow().output_len() == 0 {
                return Ok(());
            }
            if self.transport.is_sending() {
                let flushed = pin!(self.transport.flush()).poll(cx);
                match flushed {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Err(()),
                }
            }
            let Some(out) = self.core.borrow_mut().take_output(self.io.take_vec()) else {
                return Ok(());
            };
            if self.transport.try_send(SendBuf::Vec(out)).is_err() {
                return Err(());
            }
            self.core.borrow_mut().poll_writable(&mut self.events.borrow_mut());
        }
    }

    fn dispatch(self: &Rc<Self>, event: Event) -> Option<Happened> {
        let state = |id: StreamId| self.streams.borrow().get(&id).cloned();
        match event {
            Event::Head { stream, block, end } => {
                if let Some(state) = state(stream) {
                    state.heads.borrow_mut().push_back((block, end));
                    state.ended.set(end);
                    wake(&state.reader);
                    return None;
                }
                if self.is_client {
                    self.recycle(block);
                    return None;
                }
                let state = Rc::new(State::default());
                state.ended.set(end);
                self.streams.borrow_mut().insert(stream, state.clone());
                let heard = self.heard.get();
                let stream = MuxStream { mux: self.clone(), id: stream, state, heard };
                return Some(Happened::Opened(stream, block, end));
            }
            Event::Data { stream, data, end } => match state(stream) {
                Some(state) => {
                    if !data.is_empty() {
                        state.inbox.borrow_mut().push_back(data);
                    }
                    state.ended.set(end);
                    wake(&state.reader);
                }
                None => self.core.borrow_mut().release(stream, data.len()),
            },
            Event::Trailers { stream, block } => {
                if let Some(state) = state(stream) {
                    *state.trailers.borrow_mut() = Some(block);
                    state.ended.set(true);
                    wake(&state.reader);
                }
            }
            Event::Reset { stream, code, by_peer } => {
                if let Some(state) = state(stream) {
                    state.fail(StreamFault::Reset { code, by_peer });
                }
                return Some(Happened::Changed);
            }
            Event::Writable { stream } => {
                if let Some(state) = state(stream) {
                    wake(&state.writer);
                }
            }
            Event::SettingsChanged => {
                self.settled.set(true);
                self.tell_settings();
                self.call_freed();
                return Some(Happened::Changed);
            }
            Event::GoingAway { .. } => {
                self.call_freed();
                return Some(Happened::Changed);
            }
            Event::PingAck => {}
        }
        None
    }

    fn call_freed(&self) {
        if let Some(freed) = &*self.freed.borrow() {
            freed();
        }
    }

    /// The connection is over: every stream is.
    pub fn close(&self) {
        self.closed.set(true);
        let states: Vec<_> = self.streams.borrow().values().cloned().collect();
        states.iter().for_each(|state| state.fail(StreamFault::Lost));
        self.events.borrow_mut().clear();
        self.tell_settings();
        self.call_freed();
    }

    /// Waits until what is queued has left, for a last GOAWAY.
    pub async fn flush(&self) {
        let done = poll_fn(|cx| match self.poll_output(cx) {
            Err(()) => Poll::Ready(()),
            Ok(()) if self.core.borrow().output_len() > 0 => Poll::Pending,
            Ok(()) => Poll::Ready(()),
        });
        done.await;
        let _ = self.transport.flush().await;
    }
}
