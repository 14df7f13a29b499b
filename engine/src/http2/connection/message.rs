//! Frames that carry messages: HEADERS, CONTINUATION and DATA (RFC 9113 §6.1, §6.2, §6.10, §8.1).

use std::collections::VecDeque;

use super::super::error::{ConnectionError, ErrorCode};
use super::super::frame::{FrameHeader, flag, stream_id};
use super::super::headers::{self, HeaderBlock, Reading};
use super::super::hpack::{HpackError, Limits};
use super::super::stream::Ending;
use super::super::{Event, Role, StreamId};
use super::{Arriving, Connection, RequestKind, Unfinished};
use crate::io::Chunk;
use crate::limits;

/// What a header block is for, by the state of its stream.
enum Purpose {
    Request,
    Response,
    Trailers,
    /// Decoded for the connection's sake, then forgotten.
    Nothing,
    /// The stream is closed on the peer's side: a stream error (RFC 9113 §5.1).
    Closed,
}

impl Connection {
    /// RFC 9113 §6.2.
    pub(super) fn headers(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        if header.stream == 0 {
            return Err(ConnectionError::protocol("HEADERS on stream 0"));
        }
        let mut fragment = payload;
        if header.has(flag::PADDED) {
            let (&padding, rest) = fragment
                .split_first()
                .ok_or(ConnectionError::size("HEADERS without its padding's length"))?;
            fragment = rest
                .len()
                .checked_sub(padding.into())
                .and_then(|length| rest.get(..length))
                .ok_or(ConnectionError::protocol("padding longer than its frame"))?;
        }
        let mut self_dependent = false;
        if header.has(flag::PRIORITY) {
            let (&[d0, d1, d2, d3, _], rest) = fragment
                .split_first_chunk::<5>()
                .ok_or(ConnectionError::size("HEADERS without its priority"))?;
            fragment = rest;
            self_dependent = stream_id([d0, d1, d2, d3]) == header.stream;
        }
        let (stream, end) = (header.stream, header.has(flag::END_STREAM));
        if header.has(flag::END_HEADERS) {
            return self.block(stream, end, self_dependent, fragment, events);
        }
        let bytes = fragment.to_vec();
        self.unfinished = Some(Unfinished { stream, end, self_dependent, frames: 1, bytes });
        Ok(())
    }

    /// RFC 9113 §6.10. That it belongs to the block has been seen to.
    pub(super) fn continuation(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let most = self.config.max_header_list as usize + limits::H2_BLOCK_SLACK;
        let Some(unfinished) = &mut self.unfinished else {
            return Err(ConnectionError::protocol("CONTINUATION without HEADERS"));
        };
        unfinished.frames += 1;
        if unfinished.frames > limits::H2_BLOCK_FRAMES
            || unfinished.bytes.len() + payload.len() > most
        {
            return Err(ConnectionError::calm("header block has too many frames or bytes"));
        }
        unfinished.bytes.reserve_exact(payload.len());
        unfinished.bytes.extend_from_slice(payload);
        if header.has(flag::END_HEADERS)
            && let Some(Unfinished { stream, end, self_dependent, bytes, .. }) =
                self.unfinished.take()
        {
            return self.block(stream, end, self_dependent, &bytes, events);
        }
        Ok(())
    }

    /// What HEADERS mean on this stream.
    fn purpose(&self, stream: StreamId) -> Result<Purpose, ConnectionError> {
        let server = self.config.role == Role::Server;
        if let Some(state) = self.streams.get(stream) {
            return Ok(match (state.remote_done, state.headed) {
                (true, _) => Purpose::Closed,
                (false, true) => Purpose::Trailers,
                (false, false) => Purpose::Response,
            });
        }
        if stream.is_multiple_of(2) {
            // RFC 9113 §5.1.1: servers open none either, as pushing is off.
            return Err(ConnectionError::protocol("HEADERS on an even stream"));
        }
        if server && self.goaway_sent.is_some_and(|last| stream > last) {
            return Ok(Purpose::Nothing); // RFC 9113 §6.8.
        }
        if server && stream > self.last_remote {
            return Ok(Purpose::Request);
        }
        if !server && stream >= self.next_local {
            return Err(ConnectionError::protocol("HEADERS on an idle stream"));
        }
        match self.streams.ending(stream) {
            Some(Ending::ResetByUs) => Ok(Purpose::Nothing),
            Some(Ending::ResetByPeer) => Ok(Purpose::Closed),
            Some(Ending::Finished) => Err(closed()),
            None if server => Err(ConnectionError::protocol("stream ids go backwards")),
            None => Ok(Purpose::Nothing),
        }
    }

    /// A whole header block.
    fn block(
        &mut self,
        stream: StreamId,
        end: bool,
        self_dependent: bool,
        fragment: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let purpose = self.purpose(stream)?;
        let limits = Limits {
            size: self.config.max_header_list as usize,
            fields: self.config.max_fields,
            give_up: limits::H2_BLOCK_GIVE_UP,
        };
        let mut block = self.spare.pop().unwrap_or_default();
        let mut reading = Reading::new(&mut block);
        self.decoder.decode(fragment, &limits, &mut reading).map_err(|error| match error {
            HpackError::TooLarge => ConnectionError::calm(error.reason()),
            _ => ConnectionError::compression(error.reason()),
        })?;
        let fault = reading.fault;
        if self_dependent && !matches!(purpose, Purpose::Nothing) {
            if matches!(purpose, Purpose::Request) {
                self.last_remote = stream;
            }
            self.recycle(block);
            return self.stream_error(stream, ErrorCode::PROTOCOL_ERROR, events);
        }
        match purpose {
            Purpose::Request => self.request(stream, block, fault, end, events),
            Purpose::Response => self.response(stream, block, fault, end, events),
            Purpose::Trailers => self.trailers(stream, block, fault, end, events),
            Purpose::Nothing => {
                self.recycle(block);
                self.budget.control(1, self.now_ms)
            }
            Purpose::Closed => {
                self.recycle(block);
                self.stream_error(stream, ErrorCode::STREAM_CLOSED, events)
            }
        }
    }

    fn request(
        &mut self,
        stream: StreamId,
        block: HeaderBlock,
        fault: Option<headers::Fault>,
        end: bool,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        self.last_remote = stream;
        if self.streams.len() >= self.config.max_concurrent_streams as usize {
            // RFC 9113 §5.1.2: the client may try again.
            self.recycle(block);
            self.cut(stream, ErrorCode::REFUSED_STREAM);
            self.budget.reply()?;
            return self.budget.refused(self.now_ms);
        }
        let expected = if block.too_large { None } else { block.content_length };
        let verdict = match fault {
            _ if block.too_large => Ok(()),
            Some(fault) => Err(fault),
            None => headers::check_request(&block, self.config.extended_connect),
        };
        if verdict.is_err() || (end && expected.is_some_and(|length| length > 0)) {
            self.recycle(block);
            return self.stream_error(stream, ErrorCode::PROTOCOL_ERROR, events);
        }
        let mut state = self.fresh_stream(RequestKind::Plain);
        state.headed = true;
        state.remote_done = end;
        state.expected = expected;
        self.streams.insert(stream, state);
        self.budget.useful();
        events.push_back(Event::Head { stream, block, end });
        Ok(())
    }

    fn response(
        &mut self,
        stream: StreamId,
        block: HeaderBlock,
        fault: Option<headers::Fault>,
        end: bool,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let status = block.pseudo.status;
        let interim = (100..200).contains(&status);
        let verdict = match fault {
            _ if block.too_large => Ok(()),
            Some(fault) => Err(fault),
            None if interim && end => Err("interim response with END_STREAM"),
            None => headers::check_response(&block),
        };
        let Some(state) = self.streams.get_mut(stream) else { return Ok(()) };
        let mut verdict = verdict.is_ok();
        if verdict && (!interim || block.too_large) {
            state.headed = true;
            state.remote_done = end;
            state.expected = match state.kind {
                _ if block.too_large => None,
                RequestKind::Connect if (200..300).contains(&status) => None,
                // RFC 9110 §6.4.1: no content, whatever content-length says.
                RequestKind::Head => Some(0),
                _ if matches!(status, 204 | 304) => Some(0),
                _ => block.content_length,
            };
            verdict = !(end && state.expected.is_some_and(|length| length > 0));
        }
        if !verdict {
            self.recycle(block);
            return self.stream_error(stream, ErrorCode::PROTOCOL_ERROR, events);
        }
        match interim {
            true => self.budget.control(1, self.now_ms)?,
            false => self.budget.useful(),
        }
        events.push_back(Event::Head { stream, block, end });
        self.settle(stream);
        Ok(())
    }

    fn trailers(
        &mut self,
        stream: StreamId,
        block: HeaderBlock,
        fault: Option<headers::Fault>,
        end: bool,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let Some(state) = self.streams.get_mut(stream) else { return Ok(()) };
        let verdict = match fault {
            // RFC 9113 §8.1: HEADERS behind the head end the message.
            _ if !end => Err("trailers without END_STREAM"),
            _ if state.expected.is_some_and(|left| left > 0) => Err("less than content-length"),
            _ if block.too_large => Ok(()),
            Some(fault) => Err(fault),
            None => headers::check_trailers(&block),
        };
        if verdict.is_err() {
            self.recycle(block);
            return self.stream_error(stream, ErrorCode::PROTOCOL_ERROR, events);
        }
        state.remote_done = true;
        self.budget.useful();
        events.push_back(Event::Trailers { stream, block });
        self.settle(stream);
        Ok(())
    }

    /// RFC 9113 §6.1: the header of a DATA frame, and the length of its padding.
    pub(super) fn data(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let FrameHeader { length, stream, .. } = header;
        if stream == 0 {
            return Err(ConnectionError::protocol("DATA on stream 0"));
        }
        let (mut left, mut padding) = (length, 0);
        if header.has(flag::PADDED) {
            padding = usize::from(
                *payload
                    .first()
                    .ok_or(ConnectionError::size("DATA without its padding's length"))?,
            );
            left = length
                .checked_sub(1 + padding)
                .ok_or(ConnectionError::protocol("padding longer than its frame"))?;
        }
        if !self.receive_window.receive(length) {
            return Err(ConnectionError::new(
                ErrorCode::FLOW_CONTROL_ERROR,
                "DATA over the connection's window",
            ));
        }
        let end = header.has(flag::END_STREAM);
        let error = self.judge_data(stream, length, left, end)?;
        if left == 0 && !end {
            self.budget.control(1, self.now_ms)?;
        } else {
            self.budget.useful();
        }
        let ignored = error.is_some();
        // Padding is nobody's; what is ignored, neither.
        self.give_back(stream, if ignored { length } else { length - left });
        self.arriving = Some(Arriving { stream, left, padding, end: end && !ignored, ignored });
        if ignored {
            // All of it is passed over alike.
            self.arriving =
                Some(Arriving { stream, left: 0, padding: left + padding, end: false, ignored });
        } else {
            self.unreleased += left;
        }
        match error {
            Some(Some(code)) => self.stream_error(stream, code, events),
            _ => Ok(()),
        }
    }

    /// Whether DATA may come on this stream: `None` if so; `Some(None)` if it is to be ignored;
    /// else the stream error.
    fn judge_data(
        &mut self,
        stream: StreamId,
        length: usize,
        data: usize,
        end: bool,
    ) -> Result<Option<Option<ErrorCode>>, ConnectionError> {
        let Some(state) = self.streams.get_mut(stream) else {
            if self.is_unopened(stream) {
                return Err(ConnectionError::protocol("DATA on an idle stream"));
            }
            let ignored = self.goaway_sent.is_some_and(|last| stream > last);
            return match self.streams.ending(stream) {
                _ if ignored && self.config.role == Role::Server => Ok(Some(None)),
                Some(Ending::ResetByUs) => Ok(Some(None)),
                Some(Ending::ResetByPeer) => Ok(Some(Some(ErrorCode::STREAM_CLOSED))),
                None if self.config.role == Role::Client => Ok(Some(None)),
                Some(Ending::Finished) | None => Err(closed()),
            };
        };
        if state.remote_done {
            return Ok(Some(Some(ErrorCode::STREAM_CLOSED))); // RFC 9113 §5.1.
        }
        if !state.headed {
            return Ok(Some(Some(ErrorCode::PROTOCOL_ERROR))); // §8.1: the head is first.
        }
        if !state.receive.receive(length) {
            return Ok(Some(Some(ErrorCode::FLOW_CONTROL_ERROR)));
        }
        if let Some(expected) = &mut state.expected {
            // RFC 9113 §8.1.1.
            match expected.checked_sub(data as u64) {
                Some(left) if left == 0 || !end => *expected = left,
                _ => return Ok(Some(Some(ErrorCode::PROTOCOL_ERROR))),
            }
        }
        Ok(None)
    }

    /// Hands out a part of a DATA frame in its own buffer.
    pub(super) fn deliver(
        &mut self,
        stream: StreamId,
        data: Chunk,
        end: bool,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let Some(state) = self.streams.get_mut(stream) else {
            // Reset while the frame was arriving.
            self.release(stream, data.len());
            return Ok(());
        };
        state.remote_done = end;
        if !data.is_empty() && data.len() < limits::H2_CRUMB as usize {
            // A chunk costs more than so few bytes: their number is bounded beside the window.
            self.crumbs += 1;
            if self.crumbs > limits::H2_CRUMBS_HELD {
                return Err(ConnectionError::calm("too much DATA in crumbs"));
            }
        }
        events.push_back(Event::Data { stream, data, end });
        if end {
            self.settle(stream);
        }
        Ok(())
    }

    /// The same for bytes in a buffer that holds more, or that is too large for them. Joins those
    /// that follow each other.
    pub(super) fn deliver_copy(
        &mut self,
        stream: StreamId,
        bytes: &[u8],
        end: bool,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        if let Some(Event::Data { stream: last, data, end: over @ false }) = events.back_mut()
            && *last == stream
            && !data.is_ring()
            && data.len() + bytes.len() <= limits::H2_HAND_OVER
            && self.streams.get(stream).is_some()
            && data.append(bytes)
        {
            *over = end;
            if let Some(state) = self.streams.get_mut(stream) {
                state.remote_done = end;
            }
            if end {
                self.settle(stream);
            }
            return Ok(());
        }
        let data = match bytes.len() {
            // Room in front of so few bytes would be most of it.
            n if n < limits::H2_CRUMB as usize => Chunk::from_vec(bytes.to_vec()),
            _ => Chunk::copy_of(bytes),
        };
        self.deliver(stream, data, end, events)
    }

    /// A stream error (RFC 9113 §5.4.2): the peer has broken a stream. Costs as much as if it had
    /// reset it.
    pub(super) fn stream_error(
        &mut self,
        stream: StreamId,
        code: ErrorCode,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let known = self.is_open(stream);
        self.cut(stream, code);
        if known {
            events.push_back(Event::Reset { stream, code, by_peer: false });
        }
        self.budget.reply()?;
        self.budget.reset(self.now_ms)
    }
}

fn closed() -> ConnectionError {
    ConnectionError::new(ErrorCode::STREAM_CLOSED, "frame on a closed stream")
}
