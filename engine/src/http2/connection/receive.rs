//! What the peer sends: bytes to frames, and the frames that are not about one message. Those that
//! are go on to [`super::message`].

use std::collections::VecDeque;

use super::super::error::{ConnectionError, ErrorCode};
use super::super::frame::{self, FrameHeader, HEADER, flag, kind, stream_id};
use super::super::settings;
use super::super::stream::Ending;
use super::super::{Event, PREFACE, Role, StreamId};
use super::Connection;
use crate::io::Chunk;
use crate::limits;

impl Connection {
    /// Takes received bytes; what they mean is appended to `events`.
    ///
    /// # Errors
    /// The connection is over. A GOAWAY is queued: send the output, then close. Events in front of
    /// the fault stand.
    pub fn receive(
        &mut self,
        chunk: Chunk,
        now_ms: u64,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.now_ms = now_ms;
        self.settings_since.get_or_insert(now_ms);
        match self.take_in(chunk, events) {
            Ok(()) => {
                if !self.carry.is_empty() || self.unfinished.is_some() {
                    self.partial_since.get_or_insert(now_ms);
                }
                self.poll_writable(events);
                Ok(())
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    fn take_in(
        &mut self,
        mut chunk: Chunk,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let mut at = self.take_preface(chunk.bytes())?;
        loop {
            let rest = chunk.bytes().get(at..).unwrap_or_default();
            if let Some(arriving) = &mut self.arriving {
                if arriving.left > 0 || arriving.end {
                    if rest.is_empty() && arriving.left > 0 {
                        return Ok(());
                    }
                    let n = arriving.left.min(rest.len());
                    arriving.left -= n;
                    let end = arriving.left == 0 && std::mem::take(&mut arriving.end);
                    let (stream, ignored) = (arriving.stream, arriving.ignored);
                    if ignored || (n == 0 && !end) {
                        at += n;
                    } else if n >= limits::H2_HAND_OVER && n == rest.len() {
                        // Nothing is behind it: the buffer goes on as it is.
                        chunk.advance(at);
                        return self.deliver(stream, chunk, end, events);
                    } else {
                        at += n;
                        self.deliver_copy(stream, rest.get(..n).unwrap_or_default(), end, events)?;
                    }
                    continue;
                }
                let n = arriving.padding.min(rest.len());
                arriving.padding -= n;
                at += n;
                if arriving.padding == 0 {
                    self.arriving = None;
                } else if n == rest.len() {
                    return Ok(());
                }
                continue;
            }
            if rest.is_empty() {
                return Ok(());
            }
            if self.carry.is_empty() {
                let need = self.need(rest)?;
                match rest.get(..need) {
                    Some(frame) => {
                        at += need;
                        self.frame(frame, events)?;
                    }
                    None => {
                        // The header alone does not make us reserve what it promises.
                        self.carry.extend_from_slice(rest);
                        return Ok(());
                    }
                }
                continue;
            }
            let need = self.need(&self.carry)?;
            let missing = need.saturating_sub(self.carry.len());
            if missing > 0 {
                let n = missing.min(rest.len());
                self.carry.extend_from_slice(rest.get(..n).unwrap_or_default());
                at += n;
                if self.carry.len() < need {
                    return Ok(());
                }
            }
            if self.need(&self.carry)? == self.carry.len() {
                let frame = std::mem::take(&mut self.carry);
                self.frame(&frame, events)?;
            }
        }
    }

    /// Compares what is there with the client's preface; returns how much of `bytes` it was.
    fn take_preface(&mut self, bytes: &[u8]) -> Result<usize, ConnectionError> {
        if self.preface_left == 0 {
            return Ok(0);
        }
        let expected = PREFACE.get(PREFACE.len() - self.preface_left..).unwrap_or_default();
        let n = expected.len().min(bytes.len());
        if bytes.get(..n) != expected.get(..n) {
            return Err(ConnectionError::protocol("no HTTP/2 preface"));
        }
        self.preface_left -= n;
        Ok(n)
    }

    /// How many bytes of the frame that begins with `bytes` have to be there to go on with it: all
    /// of them, but DATA's payload is taken as it comes.
    #[inline]
    fn need(&self, bytes: &[u8]) -> Result<usize, ConnectionError> {
        let Some(header) = FrameHeader::parse(bytes) else { return Ok(HEADER) };
        if header.length > self.config.max_frame as usize {
            return Err(ConnectionError::size("frame over SETTINGS_MAX_FRAME_SIZE"));
        }
        Ok(match header.kind {
            kind::DATA if header.has(flag::PADDED) => HEADER + header.length.min(1),
            kind::DATA => HEADER,
            _ => HEADER + header.length,
        })
    }

    /// One frame, and with it the end of what was awaited, unless more of its block is to come.
    fn frame(&mut self, bytes: &[u8], events: &mut VecDeque<Event>) -> Result<(), ConnectionError> {
        self.take_frame(bytes, events)?;
        if self.unfinished.is_none() {
            self.partial_since = None;
        }
        Ok(())
    }

    /// One frame; of DATA the header, and the padding's length if there is one.
    fn take_frame(
        &mut self,
        bytes: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let Some(header) = FrameHeader::parse(bytes) else { return Ok(()) };
        let payload = bytes.get(HEADER..).unwrap_or_default();
        if !self.settled && (header.kind != kind::SETTINGS || header.has(flag::ACK)) {
            // RFC 9113 §3.4.
            return Err(ConnectionError::protocol("SETTINGS must come first"));
        }
        if let Some(unfinished) = &self.unfinished
            && (header.kind != kind::CONTINUATION || header.stream != unfinished.stream)
        {
            // RFC 9113 §6.10.
            return Err(ConnectionError::protocol("header block is interrupted"));
        }
        match header.kind {
            kind::DATA => self.data(header, payload, events),
            kind::HEADERS => self.headers(header, payload, events),
            kind::CONTINUATION => self.continuation(header, payload, events),
            kind::RST_STREAM => self.rst_stream(header, payload, events),
            kind::WINDOW_UPDATE => self.window_update(header, payload, events),
            kind::SETTINGS => self.settings(header, payload, events),
            kind::PING => self.ping(header, payload, events),
            kind::PRIORITY => self.priority(header, payload, events),
            kind::GOAWAY => self.goaway(header, payload, events),
            // RFC 9113 §8.4: only servers push, and we have forbidden it.
            kind::PUSH_PROMISE => Err(ConnectionError::protocol("PUSH_PROMISE")),
            // RFC 9113 §4.1: unknown types are ignored.
            _ => self.budget.control(1, self.now_ms),
        }
    }

    /// Whether nobody has opened the stream yet (RFC 9113 §5.1).
    pub(super) fn is_unopened(&self, stream: StreamId) -> bool {
        let odd = stream % 2 == 1;
        match (self.config.role, odd) {
            (Role::Server, true) => {
                stream > self.last_remote && self.goaway_sent.is_none_or(|last| stream <= last)
            }
            (Role::Client, true) => stream >= self.next_local,
            (_, false) => true,
        }
    }

    /// RFC 9113 §6.4.
    fn rst_stream(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let &[c0, c1, c2, c3] = payload else {
            return Err(ConnectionError::size("RST_STREAM is not 4 bytes"));
        };
        if header.stream == 0 || self.is_unopened(header.stream) {
            return Err(ConnectionError::protocol("RST_STREAM on an idle stream"));
        }
        if !self.drop_stream(header.stream) {
            return self.budget.control(1, self.now_ms);
        }
        let code = ErrorCode(u32::from_be_bytes([c0, c1, c2, c3]));
        events.push_back(Event::Reset { stream: header.stream, code, by_peer: true });
        match self.config.role {
            Role::Server => self.budget.reset(self.now_ms),
            // An upstream that cannot serve is no attacker; who asks is bounded elsewhere.
            Role::Client => Ok(()),
        }
    }

    /// RFC 9113 §6.9.
    fn window_update(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let &[i0, i1, i2, i3] = payload else {
            return Err(ConnectionError::size("WINDOW_UPDATE is not 4 bytes"));
        };
        let increment = stream_id([i0, i1, i2, i3]);
        self.budget.credit(increment, self.now_ms)?;
        if header.stream == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE of 0"));
            }
            return self.send_window.grow(i64::from(increment)).map_err(|_| {
                ConnectionError::new(ErrorCode::FLOW_CONTROL_ERROR, "window over 2^31-1")
            });
        }
        if self.is_unopened(header.stream) {
            return Err(ConnectionError::protocol("WINDOW_UPDATE on an idle stream"));
        }
        let Some(stream) = self.streams.get_mut(header.stream) else { return Ok(()) };
        if increment == 0 {
            return self.stream_error(header.stream, ErrorCode::PROTOCOL_ERROR, events);
        }
        if stream.send.grow(i64::from(increment)).is_err() {
            return self.stream_error(header.stream, ErrorCode::FLOW_CONTROL_ERROR, events);
        }
        Ok(())
    }

    /// RFC 9113 §6.5.
    fn settings(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        if header.stream != 0 {
            return Err(ConnectionError::protocol("SETTINGS on a stream"));
        }
        if header.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(ConnectionError::size("SETTINGS acknowledgement with payload"));
            }
            if !std::mem::replace(&mut self.settings_acked, true) {
                self.decoder.acknowledged(self.config.header_table as usize);
            }
            return self.budget.control(1, self.now_ms);
        }
        // What it costs grows with its settings; honest frames have up to ten.
        self.budget.control(1 + payload.len() as u32 / 64, self.now_ms)?;
        let before = self.peer;
        self.peer.apply(payload, self.config.role)?;
        // RFC 9113 §6.9.2: the difference applies to all streams.
        let change = i64::from(self.peer.initial_window) - i64::from(before.initial_window);
        if change != 0 {
            for stream in self.streams.values_mut() {
                stream.send.grow(change).map_err(|_| {
                    ConnectionError::new(ErrorCode::FLOW_CONTROL_ERROR, "window over 2^31-1")
                })?;
            }
        }
        // RFC 7541 §4.2: our encoder uses no table; where the peer has a smaller one than the
        // default, the next block has to say so.
        if self.peer.header_table < before.header_table && self.peer.header_table < 4096 {
            self.tell_table = true;
        }
        settings::write_ack(&mut self.output);
        self.budget.reply()?;
        if !std::mem::replace(&mut self.settled, true) || self.peer != before {
            events.push_back(Event::SettingsChanged);
        }
        Ok(())
    }

    /// RFC 9113 §6.7.
    fn ping(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let Ok(payload) = <[u8; 8]>::try_from(payload) else {
            return Err(ConnectionError::size("PING is not 8 bytes"));
        };
        if header.stream != 0 {
            return Err(ConnectionError::protocol("PING on a stream"));
        }
        if header.has(flag::ACK) {
            if self.ping_since.is_some() && payload == self.pings.to_be_bytes() {
                self.ping_since = None;
                events.push_back(Event::PingAck);
                return Ok(());
            }
            return self.budget.control(1, self.now_ms);
        }
        self.budget.control(1, self.now_ms)?;
        frame::write_ping(&mut self.output, true, payload);
        self.budget.reply()
    }

    /// RFC 9113 §5.3.2: priorities are ignored, but still have a form (§6.3).
    fn priority(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        self.budget.control(1, self.now_ms)?;
        if header.stream == 0 {
            return Err(ConnectionError::protocol("PRIORITY on stream 0"));
        }
        let code = match payload {
            &[d0, d1, d2, d3, _] => {
                // RFC 7540 §5.3.1: a stream cannot depend on itself.
                if stream_id([d0, d1, d2, d3]) != header.stream {
                    return Ok(());
                }
                ErrorCode::PROTOCOL_ERROR
            }
            _ => ErrorCode::FRAME_SIZE_ERROR,
        };
        if self.is_open(header.stream) {
            return self.stream_error(header.stream, code, events);
        }
        if self.is_unopened(header.stream) {
            // No RST_STREAM on idle streams (RFC 9113 §6.4).
            return Err(ConnectionError::new(code, "bad PRIORITY on an idle stream"));
        }
        Ok(())
    }

    /// RFC 9113 §6.8.
    fn goaway(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        self.budget.control(1, self.now_ms)?;
        if header.stream != 0 {
            return Err(ConnectionError::protocol("GOAWAY on a stream"));
        }
        let Some(&[l0, l1, l2, l3, c0, c1, c2, c3]) = payload.first_chunk::<8>() else {
            return Err(ConnectionError::size("GOAWAY is too short"));
        };
        let last = stream_id([l0, l1, l2, l3]);
        let code = ErrorCode(u32::from_be_bytes([c0, c1, c2, c3]));
        self.goaway_received = true;
        events.push_back(Event::GoingAway { last, code });
        if self.config.role == Role::Client {
            for stream in self.streams.above(last) {
                self.streams.end(stream, Ending::ResetByUs);
                let code = ErrorCode::REFUSED_STREAM;
                events.push_back(Event::Reset { stream, code, by_peer: true });
            }
        }
        Ok(())
    }
}
