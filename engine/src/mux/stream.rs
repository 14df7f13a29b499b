//! One stream of a shared connection, as its task has it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Mux;
use crate::http2::{ErrorCode, HeaderBlock, StreamId};
use crate::io::Chunk;
use crate::message::decode_trailers;

/// Why a stream is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFault {
    /// One side reset it. `REFUSED_STREAM` from the peer: it was never looked at.
    Reset { code: ErrorCode, by_peer: bool },
    /// The connection ended under it.
    Lost,
}

/// A head, with whether no body follows.
pub type Head = (HeaderBlock, bool);

#[derive(Default)]
pub(super) struct State {
    pub(super) heads: RefCell<VecDeque<Head>>,
    pub(super) inbox: RefCell<VecDeque<Chunk>>,
    /// The peer's side is over, once the inbox is empty.
    pub(super) ended: Cell<bool>,
    pub(super) trailers: RefCell<Option<HeaderBlock>>,
    pub(super) fault: Cell<Option<StreamFault>>,
    /// Our side is over.
    pub(super) sent_end: Cell<bool>,
    pub(super) reader: RefCell<Option<Waker>>,
    pub(super) writer: RefCell<Option<Waker>>,
}

pub(super) fn wake(slot: &RefCell<Option<Waker>>) {
    let waker = slot.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

pub(super) fn remember(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

impl State {
    pub(super) fn fail(&self, fault: StreamFault) {
        if self.fault.get().is_none() {
            self.fault.set(Some(fault));
        }
        wake(&self.reader);
        wake(&self.writer);
    }
}

/// One stream: reading, writing, and its end. Dropped before both sides have ended, it is reset.
pub struct MuxStream {
    pub(super) mux: Rc<Mux>,
    pub(super) id: StreamId,
    pub(super) state: Rc<State>,
    /// [`Mux`]'s count when it was opened.
    pub(super) heard: u64,
}

impl MuxStream {
    pub fn mux(&self) -> &Rc<Mux> {
        &self.mux
    }

    /// Nothing came on the connection, for any stream, since this one was opened.
    pub fn is_unheard(&self) -> bool {
        self.mux.heard.get() == self.heard
    }

    /// The next head of an answer, interim ones included.
    pub fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<Head, StreamFault>> {
        if let Some(head) = self.state.heads.borrow_mut().pop_front() {
            return Poll::Ready(Ok(head));
        }
        self.poll_fault(cx).map(Err)
    }

    /// The next bytes of the body; `None` at its end.
    pub fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, StreamFault>> {
        if let Some(data) = self.state.inbox.borrow_mut().pop_front() {
            // The reader has taken it: the peer may send as much again.
            self.mux.core.borrow_mut().release(self.id, data.len());
            self.mux.kick();
            return Poll::Ready(Ok(Some(data)));
        }
        if self.state.ended.get() {
            return Poll::Ready(Ok(None));
        }
        self.poll_fault(cx).map(Err)
    }

    /// Ready once the stream has failed.
    pub fn poll_fault(&self, cx: &mut Context<'_>) -> Poll<StreamFault> {
        match self.state.fault.get() {
            Some(fault) => Poll::Ready(fault),
            None => {
                remember(&self.state.reader, cx);
                Poll::Pending
            }
        }
    }

    /// Whether the peer's side is over and read.
    pub fn is_done(&self) -> bool {
        self.state.ended.get() && self.state.inbox.borrow().is_empty()
    }

    /// Reads on until the peer's side is over, or `most` bytes have come.
    pub async fn discard(&self, most: usize) {
        let mut came = 0;
        while came < most {
            match poll_fn(|cx| self.poll_data(cx)).await {
                Ok(Some(data)) => came += data.len(),
                _ => return,
            }
        }
    }

    /// Why the stream is of no use, if it is not.
    pub fn fault(&self) -> Option<StreamFault> {
        self.state.fault.get()
    }

    /// A copy of the whole body if it is here and of at most `max` bytes.
    pub fn peek_whole(&self, max: usize) -> Option<Vec<u8>> {
        let inbox = self.state.inbox.borrow();
        let len = inbox.iter().map(Chunk::len).sum::<usize>();
        if !self.state.ended.get() || self.state.trailers.borrow().is_some() || len > max {
            return None;
        }
        let mut whole = Vec::with_capacity(len);
        inbox.iter().for_each(|chunk| whole.extend_from_slice(chunk.bytes()));
        Some(whole)
    }

    /// The whole body if it is here and of at most `max` bytes.
    pub fn take_whole(&self, max: usize) -> Option<Vec<u8>> {
        let whole = self.peek_whole(max)?;
        if !whole.is_empty() {
            self.state.inbox.borrow_mut().clear();
            self.mux.core.borrow_mut().release(self.id, whole.len());
            self.mux.kick();
        }
        Some(whole)
    }

    /// Trailer fields behind the body, as lines, once it is over.
    pub fn trailers(&self, out: &mut Vec<u8>) {
        if let Some(block) = self.state.trailers.borrow_mut().take() {
            decode_trailers(&block.bytes, &block.fields, out);
            self.mux.recycle(block);
        }
    }

    /// Queues a head (an interim one, or with `end` one without body).
    ///
    /// # Errors
    /// The stream has failed.
    pub fn send_head(&self, block: &[u8], end: bool) -> Result<(), StreamFault> {
        self.alive()?;
        let sent = self.mux.core.borrow_mut().send_head(self.id, block, end);
        self.state.sent_end.set(end);
        self.mux.kick();
        sent.map_err(|_| StreamFault::Lost)
    }

    /// Queues as much of `data` as there is room for; returns how much. `end` goes with the last.
    ///
    /// # Errors
    /// The stream has failed.
    pub fn try_send(&self, data: &[u8], end: bool) -> Result<usize, StreamFault> {
        self.alive()?;
        let sent = self.mux.core.borrow_mut().send_data(self.id, data, end);
        let taken = sent.map_err(|_| StreamFault::Lost)?;
        if taken == data.len() {
            self.state.sent_end.set(end);
        }
        self.mux.kick();
        Ok(taken)
    }

    /// Sends all of `data` as room comes.
    ///
    /// # Errors
    /// The stream has failed.
    pub async fn send(&self, data: &[u8], end: bool) -> Result<(), StreamFault> {
        let mut at = 0;
        poll_fn(|cx| {
            let rest = data.get(at..).unwrap_or_default();
            at += self.try_send(rest, end)?;
            if at >= data.len() {
                return Poll::Ready(Ok(()));
            }
            remember(&self.state.writer, cx);
            Poll::Pending
        })
        .await
    }

    /// Ends our side with trailers.
    ///
    /// # Errors
    /// The stream has failed.
    pub fn send_trailers(&self, block: &[u8]) -> Result<(), StreamFault> {
        self.alive()?;
        let sent = self.mux.core.borrow_mut().send_trailers(self.id, block);
        self.state.sent_end.set(true);
        self.mux.kick();
        sent.map_err(|_| StreamFault::Lost)
    }

    /// Ends the stream at once.
    pub fn reset(&self, code: ErrorCode) {
        if self.state.fault.get().is_none() && !self.mux.closed.get() {
            self.mux.core.borrow_mut().reset(self.id, code);
            self.mux.kick();
        }
        self.state.fail(StreamFault::Reset { code, by_peer: false });
    }

    fn alive(&self) -> Result<(), StreamFault> {
        match self.state.fault.get() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        let over = self.state.ended.get() && self.state.sent_end.get();
        if !over {
            self.reset(ErrorCode::CANCEL);
        }
        let unread: usize = self.state.inbox.borrow().iter().map(Chunk::len).sum();
        if unread > 0 {
            self.mux.core.borrow_mut().release(self.id, unread);
            self.mux.kick();
        }
        self.mux.streams.borrow_mut().remove(&self.id);
        self.mux.used_ms.set(self.mux.io.clock().now_ms());
        self.mux.call_freed();
        // The connection's task may wait for the last stream to end.
        self.mux.kick();
    }
}
