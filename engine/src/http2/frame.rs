//! Frames on the wire (RFC 9113 §4.1, §6).

use super::StreamId;
use super::error::ErrorCode;

/// Bytes of a frame's header.
pub(super) const HEADER: usize = 9;

/// Frame types (RFC 9113 §6).
pub(super) mod kind {
    pub const DATA: u8 = 0x0;
    pub const HEADERS: u8 = 0x1;
    pub const PRIORITY: u8 = 0x2;
    pub const RST_STREAM: u8 = 0x3;
    pub const SETTINGS: u8 = 0x4;
    pub const PUSH_PROMISE: u8 = 0x5;
    pub const PING: u8 = 0x6;
    pub const GOAWAY: u8 = 0x7;
    pub const WINDOW_UPDATE: u8 = 0x8;
    pub const CONTINUATION: u8 = 0x9;
}

/// Flags. ACK shares its bit with END_STREAM.
pub(super) mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: StreamId,
}

impl FrameHeader {
    /// The header at the beginning of `bytes`, if it is all there.
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Option<FrameHeader> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *bytes.first_chunk::<HEADER>()?;
        Some(FrameHeader {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: stream_id([s0, s1, s2, s3]),
        })
    }

    #[inline]
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Appends the header.
    #[inline]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        out.extend_from_slice(&[a, b, c, self.kind, self.flags, s0, s1, s2, s3]);
    }
}

/// The reserved bit is ignored (RFC 9113 §4.1).
#[inline]
pub(super) fn stream_id(bytes: [u8; 4]) -> StreamId {
    u32::from_be_bytes(bytes) & 0x7fff_ffff
}

/// Appends a header block, cut into HEADERS and CONTINUATION frames where `max_frame` asks for it
/// (RFC 9113 §6.10). `prefix` goes before the block.
pub(super) fn write_block(
    out: &mut Vec<u8>,
    stream: StreamId,
    prefix: &[u8],
    block: &[u8],
    end: bool,
    max_frame: usize,
) {
    let mut flags = if end { flag::END_STREAM } else { 0 };
    let room = max_frame - prefix.len();
    let (mut part, mut rest) = block.split_at_checked(room).unwrap_or((block, &[]));
    let (mut kind, mut length) = (kind::HEADERS, prefix.len() + part.len());
    out.reserve(HEADER + length);
    loop {
        if rest.is_empty() {
            flags |= flag::END_HEADERS;
        }
        FrameHeader { length, kind, flags, stream }.write(out);
        if kind == kind::HEADERS {
            out.extend_from_slice(prefix);
        }
        out.extend_from_slice(part);
        if rest.is_empty() {
            return;
        }
        (part, rest) = rest.split_at_checked(max_frame).unwrap_or((rest, &[]));
        (kind, flags, length) = (kind::CONTINUATION, 0, part.len());
    }
}

pub(super) fn write_rst_stream(out: &mut Vec<u8>, stream: StreamId, code: ErrorCode) {
    FrameHeader { length: 4, kind: kind::RST_STREAM, flags: 0, stream }.write(out);
    out.extend_from_slice(&code.0.to_be_bytes());
}

pub(super) fn write_ping(out: &mut Vec<u8>, ack: bool, payload: [u8; 8]) {
    let flags = if ack { flag::ACK } else { 0 };
    FrameHeader { length: 8, kind: kind::PING, flags, stream: 0 }.write(out);
    out.extend_from_slice(&payload);
}

pub(super) fn write_window_update(out: &mut Vec<u8>, stream: StreamId, increment: u32) {
    FrameHeader { length: 4, kind: kind::WINDOW_UPDATE, flags: 0, stream }.write(out);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// `debug` is for whoever reads the peer's logs (RFC 9113 §6.8).
pub(super) fn write_goaway(out: &mut Vec<u8>, last: StreamId, code: ErrorCode, debug: &str) {
    let length = 8 + debug.len();
    FrameHeader { length, kind: kind::GOAWAY, flags: 0, stream: 0 }.write(out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(debug.as_bytes());
}
