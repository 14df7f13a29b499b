//! The least of HTTP/2 (RFC 9113) that a generator and an origin need: frames under any split,
//! header compression, and what may be sent under the peer's windows. Our own windows are as
//! large as can be, so that the other side never waits for us.
//!
//! It is code of its own because what the load spends is taken from the machine under test: the
//! request is encoded once, bodies are counted and not kept, and of an answer's fields only the
//! status is read.

pub mod flow;
pub mod hpack;
pub mod huffman;

use std::fmt;

/// What a client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest frame that is taken, as every peer must assume while we do not say otherwise.
pub const MAX_FRAME_BYTES: usize = 16_384;
/// The window of a connection before anything is said about it.
pub const FIRST_WINDOW: i64 = 65_535;
/// The largest window there may be.
pub const MAX_WINDOW: i64 = 0x7fff_ffff;
/// The longest header block taken.
const MAX_BLOCK_BYTES: usize = 64 * 1024;
const HEAD_BYTES: usize = 9;

pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub mod flag {
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
}

pub const CANCEL: u32 = 8;

/// What was wrong with the peer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A frame longer than [`MAX_FRAME_BYTES`], or not as long as its kind has to be.
    FrameSize,
    /// Padding longer than the frame, a block that another frame interrupts, a pushed stream.
    Protocol,
    /// A header block that does not decode, or is longer than we take.
    Compression,
    /// More than a window allows.
    Window,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FrameSize => "a frame has the wrong size",
            Self::Protocol => "a frame is where it must not be",
            Self::Compression => "a header block does not decode",
            Self::Window => "a window grew too large",
        })
    }
}

/// What a peer has said in its SETTINGS, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub table_bytes: Option<u32>,
    pub max_streams: Option<u32>,
    pub window: Option<u32>,
    pub max_frame: Option<u32>,
}

/// One thing that has come. Header blocks come whole, bodies in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Headers {
        stream: u32,
        block: &'a [u8],
        end: bool,
    },
    /// `counted` bytes of the windows are used up, padding among them.
    Data {
        stream: u32,
        piece: &'a [u8],
        counted: usize,
        end: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    Settings(Settings),
    Ping([u8; 8]),
    GoAway {
        last: u32,
        code: u32,
    },
    Window {
        stream: u32,
        more: u32,
    },
}

/// The body of a frame that is passed on as it comes.
#[derive(Clone, Copy, Debug)]
struct Passing {
    stream: u32,
    left: usize,
    end: bool,
}

/// Takes bytes as they come and says what is in them.
#[derive(Debug, Default)]
pub struct Reader {
    /// A frame of which only a part has come.
    carry: Vec<u8>,
    /// The one in `carry` has been given out.
    given: bool,
    passing: Option<Passing>,
    /// A header block of which CONTINUATION frames are still to come: its stream, and its end.
    block: Vec<u8>,
    open: Option<(u32, bool)>,
}

impl Reader {
    /// Takes some of `input`, at most to the end of one event. Returns the bytes used.
    pub fn next<'a>(&'a mut self, input: &'a [u8]) -> Result<(usize, Option<Event<'a>>), Broken> {
        if self.given {
            self.given = false;
            self.carry.clear();
        }
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            if let Some(mut passing) = self.passing {
                let (piece, _) = rest.split_at(passing.left.min(rest.len()));
                if piece.is_empty() && passing.left > 0 {
                    return Ok((used, None));
                }
                passing.left -= piece.len();
                let ended = passing.left == 0;
                self.passing = (!ended).then_some(passing);
                let Passing { stream, end, .. } = passing;
                let event = Event::Data { stream, piece, counted: piece.len(), end: end && ended };
                return Ok((used + piece.len(), Some(event)));
            }
            // The head, from the carry if it began there.
            let from_carry = !self.carry.is_empty();
            let head = if from_carry {
                let missing = HEAD_BYTES.saturating_sub(self.carry.len()).min(rest.len());
                self.carry.extend_from_slice(rest.get(..missing).unwrap_or_default());
                used += missing;
                Head::parse(&self.carry)
            } else {
                Head::parse(rest)
            };
            let Some(head) = head else {
                if !from_carry {
                    self.carry.extend_from_slice(rest);
                    used += rest.len();
                }
                return Ok((used, None));
            };
            self.check(&head)?;
            let rest = input.get(used..).unwrap_or_default();
            if head.kind == kind::DATA && head.flags & flag::PADDED == 0 {
                used += if from_carry { 0 } else { HEAD_BYTES };
                self.carry.clear();
                let end = head.flags & flag::END_STREAM != 0;
                self.passing = Some(Passing { stream: head.stream, left: head.length, end });
                continue;
            }
            // Every other frame is taken whole.
            let whole = HEAD_BYTES + head.length;
            if !from_carry {
                let Some(frame) = rest.get(..whole) else {
                    self.carry.extend_from_slice(rest);
                    return Ok((input.len(), None));
                };
                used += whole;
                let payload = frame.get(HEAD_BYTES..).unwrap_or_default();
                match understand(&head, payload, &mut self.block, &mut self.open)? {
                    Meaning::Nothing => continue,
                    // The block lives here, so the borrow has to begin anew.
                    Meaning::Block { stream, end } => {
                        return Ok((
                            used,
                            Some(Event::Headers { stream, block: &self.block, end }),
                        ));
                    }
                    Meaning::Event(event) => return Ok((used, Some(event))),
                }
            }
            let missing = whole.saturating_sub(self.carry.len());
            let Some(more) = rest.get(..missing) else {
                self.carry.extend_from_slice(rest);
                return Ok((input.len(), None));
            };
            self.carry.extend_from_slice(more);
            used += missing;
            self.given = true;
            let payload = self.carry.get(HEAD_BYTES..).unwrap_or_default();
            let event = match understand(&head, payload, &mut self.block, &mut self.open)? {
                Meaning::Nothing => None,
                Meaning::Block { stream, end } => {
                    Some(Event::Headers { stream, block: &self.block, end })
                }
                Meaning::Event(event) => Some(event),
            };
            return Ok((used, event));
        }
    }

    fn check(&self, head: &Head) -> Result<(), Broken> {
        if head.length > MAX_FRAME_BYTES {
            return Err(Broken::FrameSize);
        }
        // Nothing may come between the parts of a block (RFC 9113 §6.10).
        match self.open {
            Some((stream, _)) if head.kind != kind::CONTINUATION || head.stream != stream => {
                Err(Broken::Protocol)
            }
            None if head.kind == kind::CONTINUATION => Err(Broken::Protocol),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, ref stream @ ..] = bytes.first_chunk::<HEAD_BYTES>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes(*stream) & 0x7fff_ffff;
        Some(Self { length, kind, flags, stream })
    }
}

enum Meaning<'a> {
    /// The frame is only part of something, or nothing that matters.
    Nothing,
    /// The whole of a block is in the reader's own buffer.
    Block {
        stream: u32,
        end: bool,
    },
    Event(Event<'a>),
}

fn understand<'a>(
    head: &Head,
    payload: &'a [u8],
    block: &mut Vec<u8>,
    open: &mut Option<(u32, bool)>,
) -> Result<Meaning<'a>, Broken> {
    let &Head { kind, flags, stream, .. } = head;
    let end = flags & flag::END_STREAM != 0;
    let event = match kind {
        kind::HEADERS => {
            let mut part = unpadded(payload, flags)?;
            if flags & flag::PRIORITY != 0 {
                part = part.get(5..).ok_or(Broken::FrameSize)?;
            }
            if flags & flag::END_HEADERS == 0 {
                block.clear();
                block.extend_from_slice(part);
                *open = Some((stream, end));
                return Ok(Meaning::Nothing);
            }
            Event::Headers { stream, block: part, end }
        }
        kind::CONTINUATION => {
            if block.len() + payload.len() > MAX_BLOCK_BYTES {
                return Err(Broken::Compression);
            }
            block.extend_from_slice(payload);
            if flags & flag::END_HEADERS == 0 {
                return Ok(Meaning::Nothing);
            }
            let (stream, end) = open.take().ok_or(Broken::Protocol)?;
            return Ok(Meaning::Block { stream, end });
        }
        kind::DATA => {
            Event::Data { stream, piece: unpadded(payload, flags)?, counted: payload.len(), end }
        }
        kind::RST_STREAM => Event::Reset { stream, code: number(payload)? },
        kind::SETTINGS if flags & flag::ACK != 0 => return Ok(Meaning::Nothing),
        kind::SETTINGS => Event::Settings(settings(payload)?),
        kind::PING if flags & flag::ACK != 0 => return Ok(Meaning::Nothing),
        kind::PING => Event::Ping(payload.try_into().map_err(|_| Broken::FrameSize)?),
        kind::GOAWAY => {
            let (last, rest) = payload.split_at_checked(4).ok_or(Broken::FrameSize)?;
            let code = number(rest.get(..4).unwrap_or_default())?;
            Event::GoAway { last: number(last)? & 0x7fff_ffff, code }
        }
        kind::WINDOW_UPDATE => Event::Window { stream, more: number(payload)? & 0x7fff_ffff },
        // We have forbidden it.
        kind::PUSH_PROMISE => return Err(Broken::Protocol),
        // PRIORITY, and what others may have added (RFC 9113 §5.5).
        _ => return Ok(Meaning::Nothing),
    };
    Ok(Meaning::Event(event))
}

fn number(payload: &[u8]) -> Result<u32, Broken> {
    Ok(u32::from_be_bytes(payload.try_into().map_err(|_| Broken::FrameSize)?))
}

fn unpadded(payload: &[u8], flags: u8) -> Result<&[u8], Broken> {
    if flags & flag::PADDED == 0 {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(Broken::FrameSize)?;
    let length = rest.len().checked_sub(usize::from(padding)).ok_or(Broken::Protocol)?;
    Ok(rest.get(..length).unwrap_or_default())
}

fn settings(payload: &[u8]) -> Result<Settings, Broken> {
    let (entries, []) = payload.as_chunks::<6>() else { return Err(Broken::FrameSize) };
    let mut settings = Settings::default();
    for &[id_high, id_low, ref value @ ..] in entries {
        let value = Some(u32::from_be_bytes(*value));
        match u16::from_be_bytes([id_high, id_low]) {
            setting::HEADER_TABLE_SIZE => settings.table_bytes = value,
            setting::MAX_CONCURRENT_STREAMS => settings.max_streams = value,
            setting::INITIAL_WINDOW_SIZE => settings.window = value,
            setting::MAX_FRAME_SIZE => settings.max_frame = value,
            _ => {}
        }
    }
    if settings.window.is_some_and(|window| i64::from(window) > MAX_WINDOW) {
        return Err(Broken::Window);
    }
    Ok(settings)
}

/// Appends a frame's head.
pub fn put_head(length: usize, kind: u8, flags: u8, stream: u32, out: &mut Vec<u8>) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags, s, t, u, v]);
}

/// Appends a header block that fits into one frame.
pub fn put_headers(block: &[u8], stream: u32, end: bool, out: &mut Vec<u8>) {
    let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
    put_head(block.len(), kind::HEADERS, flags, stream, out);
    out.extend_from_slice(block);
}

/// Appends our SETTINGS, and a connection window as large as can be.
pub fn put_greeting(client: bool, out: &mut Vec<u8>) {
    if client {
        out.extend_from_slice(PREFACE);
    }
    let first =
        if client { (setting::ENABLE_PUSH, 0) } else { (setting::MAX_CONCURRENT_STREAMS, 10_000) };
    let settings = [first, (setting::INITIAL_WINDOW_SIZE, MAX_WINDOW as u32)];
    put_head(settings.len() * 6, kind::SETTINGS, 0, 0, out);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    put_window(0, (MAX_WINDOW - FIRST_WINDOW) as u32, out);
}

pub fn put_window(stream: u32, more: u32, out: &mut Vec<u8>) {
    put_head(4, kind::WINDOW_UPDATE, 0, stream, out);
    out.extend_from_slice(&more.to_be_bytes());
}

pub fn put_reset(stream: u32, code: u32, out: &mut Vec<u8>) {
    put_head(4, kind::RST_STREAM, 0, stream, out);
    out.extend_from_slice(&code.to_be_bytes());
}

pub fn put_settings_ack(out: &mut Vec<u8>) {
    put_head(0, kind::SETTINGS, flag::ACK, 0, out);
}

pub fn put_pong(payload: [u8; 8], out: &mut Vec<u8>) {
    put_head(8, kind::PING, flag::ACK, 0, out);
    out.extend_from_slice(&payload);
}

#[cfg(test)]
mod tests;
