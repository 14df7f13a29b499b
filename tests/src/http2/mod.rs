//! An HTTP/2 of the tests' own: either end of a connection, read strictly, able to send anything.

pub mod client;
pub mod frame;
pub mod origin;

pub use client::{Answer, Broken, H2Client};
pub use frame::Frame;
pub use origin::{H2Origin, H2Seen, Reply};

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use loona_hpack::Decoder;

use crate::stream::Stream;
use frame::*;

/// The largest frame that we allow the peer (the default of RFC 9113 §6.5.2).
const LARGEST: usize = 16_384;

/// What the peer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole header block, head or trailers.
    Head {
        stream: u32,
        fields: Vec<(String, String)>,
        end: bool,
    },
    Data {
        stream: u32,
        bytes: Vec<u8>,
        end: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    GoAway {
        last: u32,
        code: u32,
    },
    /// The peer's settings; they are in force.
    Settings,
    /// The peer took ours.
    SettingsAck,
    Pong,
    /// There is more room to send.
    Room,
    /// A frame that says nothing here (PRIORITY, unknown types).
    Other,
}

/// Why no event came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Closed,
    TimedOut,
    /// The peer broke the protocol.
    Malformed(String),
}

/// One end of a connection.
pub struct Peer {
    pub stream: Stream,
    ahead: Vec<u8>,
    decoder: Decoder<'static>,
    /// The peer's settings, where they are not the defaults.
    pub settings: BTreeMap<u16, u32>,
    /// What we may still send, on the connection and on streams.
    window: i64,
    windows: BTreeMap<u32, i64>,
    /// What the peer may still send.
    granted: i64,
    granted_streams: BTreeMap<u32, i64>,
    /// Our INITIAL_WINDOW_SIZE.
    initial: i64,
    /// Grant again what was read.
    pub generous: bool,
    /// Answer PING and SETTINGS.
    pub polite: bool,
    /// Bytes of DATA received, for bounds.
    pub received: u64,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Peer {
    pub fn new(stream: impl Into<Stream>) -> Peer {
        let stream = stream.into();
        stream.tcp().set_nodelay(true).expect("TCP_NODELAY");
        stream.tcp().set_write_timeout(Some(crate::PATIENCE)).expect("SO_SNDTIMEO");
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(4096);
        Peer {
            stream,
            ahead: Vec::new(),
            decoder,
            settings: BTreeMap::new(),
            window: 65_535,
            windows: BTreeMap::new(),
            granted: 65_535,
            granted_streams: BTreeMap::new(),
            initial: 65_535,
            generous: true,
            polite: true,
            received: 0,
        }
    }

    /// Sends bytes; a peer that has gone away shows when reading.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_ok()
    }

    pub fn send(&mut self, frame: &Frame) -> bool {
        self.write(&frame.encode())
    }

    /// Sends our settings and keeps their promises.
    pub fn send_settings(&mut self, settings: &[(u16, u32)]) {
        if let Some((_, size)) = settings.iter().find(|(name, _)| *name == INITIAL_WINDOW_SIZE) {
            self.initial = i64::from(*size);
        }
        self.send(&Frame::settings(settings));
    }

    /// Allows the peer more on a stream, or on the connection (0).
    pub fn grant(&mut self, stream: u32, increment: u32) {
        if stream == 0 {
            self.granted += i64::from(increment);
        } else {
            *self.granted_streams.entry(stream).or_insert(self.initial) += i64::from(increment);
        }
        self.send(&Frame::window_update(stream, increment));
    }

    pub fn setting(&self, name: u16, default: u32) -> u32 {
        self.settings.get(&name).copied().unwrap_or(default)
    }

    fn peer_initial(&self) -> i64 {
        i64::from(self.setting(INITIAL_WINDOW_SIZE, 65_535))
    }

    /// How much may be sent on a stream now.
    pub fn room(&self, stream: u32) -> usize {
        let of_stream = self.windows.get(&stream).copied().unwrap_or(self.peer_initial());
        let most = i64::from(self.setting(MAX_FRAME_SIZE, 16_384));
        of_stream.min(self.window).min(most).max(0) as usize
    }

    /// Sends as much of `bytes` as there is room for in one frame; how much that was.
    pub fn send_some(&mut self, stream: u32, bytes: &[u8], end: bool) -> usize {
        let n = self.room(stream).min(bytes.len());
        let last = end && n == bytes.len();
        if n > 0 || last {
            self.spend(stream, n);
            self.send(&Frame::data(stream, &bytes[..n], last));
        }
        n
    }

    /// Counts what was sent around [`Peer::send_some`].
    pub fn spend(&mut self, stream: u32, n: usize) {
        let initial = self.peer_initial();
        self.window -= n as i64;
        *self.windows.entry(stream).or_insert(initial) -= n as i64;
    }

    /// Reads one frame.
    pub fn frame(&mut self, patience: Duration) -> Result<Frame, End> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(frame) = self.cut()? {
                return Ok(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(End::TimedOut);
            }
            self.stream.tcp().set_read_timeout(Some(left)).expect("SO_RCVTIMEO");
            let mut room = [0u8; 32 * 1024];
            match self.stream.read(&mut room) {
                Ok(0) => return Err(End::Closed),
                Ok(n) => self.ahead.extend_from_slice(&room[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(End::TimedOut);
                }
                Err(_) => return Err(End::Closed),
            }
        }
    }

    fn cut(&mut self) -> Result<Option<Frame>, End> {
        let Some(head) = self.ahead.get(..9) else { return Ok(None) };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if length > LARGEST {
            return Err(End::Malformed(format!("a frame of {length} bytes: {head:?}")));
        }
        if self.ahead.len() < 9 + length {
            return Ok(None);
        }
        let bytes: Vec<u8> = self.ahead.drain(..9 + length).collect();
        let stream = number(&bytes, 5).unwrap_or(0) & 0x7fff_ffff;
        Ok(Some(Frame::new(bytes[3], bytes[4], stream, &bytes[9..])))
    }

    /// Reads frames up to one that says something, and does what is due for it.
    pub fn event(&mut self, patience: Duration) -> Result<Event, End> {
        let frame = self.frame(patience)?;
        let Frame { kind, stream, .. } = frame;
        let wrong = |what: &str| Err(End::Malformed(format!("{what}: {frame:?}")));
        match kind {
            HEADERS => self.head(frame),
            DATA => {
                let bytes = unpad(&frame).map_err(End::Malformed)?;
                let spent = frame.payload.len() as i64;
                let initial = self.initial;
                let left = self.granted_streams.entry(stream).or_insert(initial);
                *left -= spent;
                self.granted -= spent;
                if *left < 0 || self.granted < 0 {
                    return Err(End::Malformed(format!("{spent} bytes beyond the window")));
                }
                self.received += bytes.len() as u64;
                let end = frame.has(END_STREAM);
                if self.generous && spent > 0 {
                    self.grant(0, spent as u32);
                    if !end {
                        self.grant(stream, spent as u32);
                    }
                }
                Ok(Event::Data { stream, bytes, end })
            }
            RST_STREAM => match frame.number() {
                Some(code) if frame.payload.len() == 4 && stream != 0 => {
                    Ok(Event::Reset { stream, code })
                }
                _ => wrong("RST_STREAM"),
            },
            SETTINGS if frame.has(ACK) => {
                if frame.payload.is_empty() {
                    Ok(Event::SettingsAck)
                } else {
                    wrong("SETTINGS")
                }
            }
            SETTINGS => self.settings(&frame),
            PING if frame.payload.len() != 8 || stream != 0 => wrong("PING"),
            PING if frame.has(ACK) => Ok(Event::Pong),
            PING => {
                if self.polite {
                    self.send(&Frame::new(PING, ACK, 0, frame.payload));
                }
                Ok(Event::Other)
            }
            GOAWAY => match (number(&frame.payload, 0), number(&frame.payload, 4)) {
                (Some(last), Some(code)) if stream == 0 => Ok(Event::GoAway { last, code }),
                _ => wrong("GOAWAY"),
            },
            WINDOW_UPDATE => match frame.number() {
                Some(n) if n > 0 && frame.payload.len() == 4 => {
                    if stream == 0 {
                        self.window += i64::from(n);
                    } else {
                        let initial = self.peer_initial();
                        *self.windows.entry(stream).or_insert(initial) += i64::from(n);
                    }
                    Ok(Event::Room)
                }
                _ => wrong("WINDOW_UPDATE"),
            },
            PUSH_PROMISE => wrong("a push that nobody allowed"),
            CONTINUATION => wrong("CONTINUATION alone"),
            _ => Ok(Event::Other),
        }
    }

    fn settings(&mut self, frame: &Frame) -> Result<Event, End> {
        if !frame.payload.len().is_multiple_of(6) || frame.stream != 0 {
            return Err(End::Malformed(format!("SETTINGS: {frame:?}")));
        }
        let before = self.peer_initial();
        for setting in frame.payload.chunks(6) {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            self.settings.insert(name, number(setting, 2).expect("six bytes"));
        }
        // RFC 9113 §6.9.2: open streams change with it.
        let change = self.peer_initial() - before;
        self.windows.values_mut().for_each(|window| *window += change);
        if self.polite {
            self.send(&Frame::new(SETTINGS, ACK, 0, []));
        }
        Ok(Event::Settings)
    }

    fn head(&mut self, first: Frame) -> Result<Event, End> {
        let stream = first.stream;
        let end = first.has(END_STREAM);
        let mut block = unpad(&first).map_err(End::Malformed)?;
        let mut whole = first.has(END_HEADERS);
        while !whole {
            let next = self.frame(crate::PATIENCE)?;
            if next.kind != CONTINUATION || next.stream != stream {
                return Err(End::Malformed(format!("inside a header block: {next:?}")));
            }
            whole = next.has(END_HEADERS);
            block.extend_from_slice(&next.payload);
        }
        let decoded = self.decoder.decode(&block);
        let decoded = decoded.map_err(|e| End::Malformed(format!("HPACK: {e:?}")))?;
        let fields = decoded.into_iter().map(|(name, value)| checked(&name, &value));
        let fields = fields.collect::<Result<Vec<_>, _>>().map_err(End::Malformed)?;
        Ok(Event::Head { stream, fields, end })
    }
}

fn unpad(frame: &Frame) -> Result<Vec<u8>, String> {
    let mut payload = &frame.payload[..];
    if frame.has(PADDED) && matches!(frame.kind, DATA | HEADERS) {
        let (&pad, rest) = payload.split_first().ok_or("no pad length")?;
        let keep = rest.len().checked_sub(usize::from(pad)).ok_or("padding beyond the frame")?;
        payload = &rest[..keep];
    }
    if frame.has(PRIORITISED) && frame.kind == HEADERS {
        payload = payload.get(5..).ok_or("no priority")?;
    }
    Ok(payload.to_vec())
}

/// RFC 9113 §8.2: what a field may be, in either direction.
fn checked(name: &[u8], value: &[u8]) -> Result<(String, String), String> {
    let shown = || format!("{:?}: {:?}", crate::wire::lossy(name), crate::wire::lossy(value));
    let plain = name.strip_prefix(b":").unwrap_or(name);
    let token = |b: &u8| b.is_ascii_graphic() && !b.is_ascii_uppercase() && *b != b':';
    if plain.is_empty() || !plain.iter().all(token) {
        return Err(format!("field name in {}", shown()));
    }
    if value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')) || value.trim_ascii() != value {
        return Err(format!("field value in {}", shown()));
    }
    let hop = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    if hop.iter().any(|hop| hop.as_bytes() == name) || (name == b"te" && value != b"trailers") {
        return Err(format!("connection-specific field {}", shown()));
    }
    Ok((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()))
}

/// RFC 9113 §8.3: pseudo-fields first, each at most once, none but `allowed`.
fn pseudo(fields: &[(String, String)], allowed: &[&str]) -> Result<(), String> {
    let mut seen = Vec::new();
    let mut regular = false;
    for (name, _) in fields {
        if !name.starts_with(':') {
            regular = true;
        } else if regular || seen.contains(&name) || !allowed.contains(&name.as_str()) {
            return Err(format!("{name} is wrong in {fields:?}"));
        } else {
            seen.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
