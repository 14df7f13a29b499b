//! What we send of our own will.

use super::super::error::{ErrorCode, Gone, OpenError};
use super::super::frame::{self, FrameHeader, flag, kind};
use super::super::stream::Ending;
use super::super::{Role, StreamId};
use super::{Connection, LAST_ID, RequestKind};

/// DATA frames are not made larger than this, so that streams take turns.
const DATA_FRAME: usize = 16_384;

/// RFC 7541 §6.3: a table of no size.
const NO_TABLE: &[u8] = &[0x20];

impl Connection {
    /// Client: sends a request's head on a new stream.
    ///
    /// # Errors
    /// No stream can be opened; nothing was queued.
    pub fn open(
        &mut self,
        block: &[u8],
        end: bool,
        kind: RequestKind,
    ) -> Result<StreamId, OpenError> {
        debug_assert_eq!(self.config.role, Role::Client);
        if self.is_going_away() {
            return Err(OpenError::GoingAway);
        }
        if self.next_local > LAST_ID {
            return Err(OpenError::Exhausted);
        }
        if self.available_streams() == 0 {
            return Err(OpenError::NoCapacity);
        }
        let id = self.next_local;
        self.next_local += 2;
        let mut stream = self.fresh_stream(kind);
        stream.local_done = end;
        self.streams.insert(id, stream);
        self.write_head(id, block, end);
        Ok(id)
    }

    /// Server: sends a response's head. Interim ones (1xx) go the same way, without `end`.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn send_head(&mut self, stream: StreamId, block: &[u8], end: bool) -> Result<(), Gone> {
        let state = self.streams.get_mut(stream).filter(|state| !state.local_done).ok_or(Gone)?;
        state.local_done = end;
        self.write_head(stream, block, end);
        self.settle(stream);
        Ok(())
    }

    /// Sends the trailer section, which ends the message.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn send_trailers(&mut self, stream: StreamId, block: &[u8]) -> Result<(), Gone> {
        self.send_head(stream, block, true)
    }

    fn write_head(&mut self, stream: StreamId, block: &[u8], end: bool) {
        let prefix = if std::mem::take(&mut self.tell_table) { NO_TABLE } else { &[] };
        let max = self.peer.max_frame as usize;
        frame::write_block(&mut self.output, stream, prefix, block, end, max);
        self.budget.useful();
    }

    /// Queues as much of `data` as the windows and the output's bound allow, and tells how much
    /// that is. END_STREAM goes out with the last byte. If it is less than all,
    /// [`super::super::Event::Writable`] tells when there is room again.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn send_data(
        &mut self,
        stream: StreamId,
        mut data: &[u8],
        end: bool,
    ) -> Result<usize, Gone> {
        let room = self.room();
        let state = self.streams.get_mut(stream).filter(|state| !state.local_done).ok_or(Gone)?;
        let taken = data.len().min(room).min(state.send.available());
        let all = taken == data.len();
        if taken > 0 {
            state.send.take(taken);
            self.turn += 1;
            state.served = self.turn;
            self.send_window.take(taken);
        }
        if all {
            state.local_done = end;
        } else if !std::mem::replace(&mut state.waiting, true) {
            self.waiting.push(stream);
        }
        data = data.get(..taken).unwrap_or_default();
        let most = DATA_FRAME.min(self.peer.max_frame as usize);
        self.output.reserve(taken + taken.div_ceil(most).max(1) * frame::HEADER);
        loop {
            let (part, rest) = data.split_at_checked(most).unwrap_or((data, &[]));
            let last = rest.is_empty() && all && end;
            if part.is_empty() && !last {
                break;
            }
            let flags = if last { flag::END_STREAM } else { 0 };
            FrameHeader { length: part.len(), kind: kind::DATA, flags, stream }
                .write(&mut self.output);
            self.output.extend_from_slice(part);
            self.budget.sent(part.len());
            data = rest;
            if rest.is_empty() {
                break;
            }
        }
        self.settle(stream);
        Ok(taken)
    }

    /// What [`Connection::send_data`] would take now.
    pub fn capacity(&self, stream: StreamId) -> usize {
        match self.streams.get(stream) {
            Some(state) if !state.local_done => state.send.available().min(self.room()),
            _ => 0,
        }
    }

    /// Asks for [`super::super::Event::Writable`] as if a [`Connection::send_data`] had been short.
    pub fn want_write(&mut self, stream: StreamId) {
        if let Some(state) = self.streams.get_mut(stream)
            && !std::mem::replace(&mut state.waiting, true)
        {
            self.waiting.push(stream);
        }
    }

    /// Ends a stream with RST_STREAM and forgets it. Nothing if it is gone already. Codes that blame
    /// the peer count towards what it may cost.
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode) {
        if self.streams.get(stream).is_none() {
            return;
        }
        self.cut(stream, code);
        let blames = !matches!(
            code,
            ErrorCode::NO_ERROR
                | ErrorCode::INTERNAL_ERROR
                | ErrorCode::REFUSED_STREAM
                | ErrorCode::CANCEL
                | ErrorCode::CONNECT_ERROR
                | ErrorCode::HTTP_1_1_REQUIRED
        );
        if blames
            && self.failed.is_none()
            && let Err(error) = self.budget.reset(self.now_ms)
        {
            self.fail(error);
        }
    }

    /// The reader is done with `n` DATA bytes of the stream: the peer may send as many more. For
    /// streams that have ended, too: the connection's window needs it.
    pub fn release(&mut self, stream: StreamId, n: usize) {
        let n = n.min(self.unreleased);
        if self.crumbs > 0 && n > 0 {
            self.crumbs -= (self.crumbs * n).div_ceil(self.unreleased);
        }
        self.unreleased -= n;
        self.give_back(stream, n);
    }

    /// Gives credit back, to the stream as long as more can come, and to the connection.
    pub(super) fn give_back(&mut self, stream: StreamId, n: usize) {
        if self.failed.is_some() {
            return;
        }
        if let Some(state) = self.streams.get_mut(stream).filter(|state| !state.remote_done)
            && let Some(increment) = state.receive.release(n)
        {
            // A reader that has dealt with half a window keeps up: a larger one lets more be under
            // way. Not if others leave their bytes lying about.
            let window = state.receive.target().saturating_mul(2);
            let window = window.min(self.config.max_stream_window);
            let crowded = self.unreleased > self.config.connection_window as usize / 2;
            let more = if crowded { 0 } else { state.receive.widen(window) };
            frame::write_window_update(&mut self.output, stream, increment + more);
        }
        if let Some(increment) = self.receive_window.release(n) {
            frame::write_window_update(&mut self.output, 0, increment);
        }
    }

    /// Asks the peer for a sign of life; [`super::super::Event::PingAck`] is its answer.
    pub fn send_ping(&mut self, now_ms: u64) {
        if self.ping_since.is_none() && self.failed.is_none() {
            self.ping_since = Some(now_ms);
            self.pings += 1;
            frame::write_ping(&mut self.output, false, self.pings.to_be_bytes());
        }
    }

    /// Begins a graceful end (RFC 9113 §6.8). Server: tells the client to open no more streams, but
    /// takes those that are under way; [`Connection::finish_shutdown`] follows after a round trip.
    /// Client: opens no more.
    pub fn shut_down(&mut self) {
        if self.goaway_sent.is_none() {
            self.goaway_sent = Some(LAST_ID);
            if self.config.role == Role::Server {
                frame::write_goaway(&mut self.output, LAST_ID, ErrorCode::NO_ERROR, "");
            }
        }
    }

    /// The final GOAWAY: streams above the last one seen are ignored from now on.
    pub fn finish_shutdown(&mut self) {
        if self.failed.is_none() && self.goaway_sent.is_none_or(|last| last == LAST_ID) {
            self.goaway_sent = Some(self.last_remote);
            frame::write_goaway(&mut self.output, self.last_remote, ErrorCode::NO_ERROR, "");
        }
    }

    /// Forgets a stream that the peer has reset.
    pub(super) fn drop_stream(&mut self, stream: StreamId) -> bool {
        self.streams.end(stream, Ending::ResetByPeer)
    }
}
