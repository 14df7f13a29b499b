//! A connection read strictly and within a bound, for both ends of the fixtures.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::PATIENCE;
use crate::message::{Head, parse_chunk_size};
use crate::stream::Stream;

/// Why a message could not be read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// The peer closed where a message could have begun.
    Closed,
    /// The peer closed inside a message, after these bytes of its body (or head).
    Truncated(Vec<u8>),
    /// The peer reset the connection; the bytes of the unfinished message before that.
    Reset(Vec<u8>),
    /// Nothing more came within the bound; the bytes of the unfinished message so far.
    TimedOut(Vec<u8>),
    /// Bytes that are not strict HTTP/1.
    Malformed(String),
}

/// Most bytes a fixture collects of one head.
const HEAD_LIMIT: usize = 1 << 20;

/// A connection with what was read ahead of it.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    ahead: Vec<u8>,
    /// Everything ever received, when kept.
    kept: Option<Vec<u8>>,
    patience: Duration,
}

impl Wire {
    pub fn new(stream: impl Into<Stream>) -> Wire {
        let stream = stream.into();
        stream.tcp().set_nodelay(true).expect("TCP_NODELAY");
        stream.tcp().set_write_timeout(Some(PATIENCE)).expect("SO_SNDTIMEO");
        Wire { stream, ahead: Vec::new(), kept: None, patience: PATIENCE }
    }

    /// Keeps a copy of every byte received from now on.
    pub fn keep(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// Every byte received since [`Wire::keep`].
    pub fn kept(&self) -> &[u8] {
        self.kept.as_deref().unwrap_or_default()
    }

    /// Sets how long one message may take to arrive.
    pub fn patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.tcp()
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends FIN (after close_notify, where there is TLS) and goes on reading.
    pub fn half_close(&mut self) {
        self.stream.finish();
    }

    /// Closes by RST instead of FIN.
    pub fn reset(self) {
        let _ = sockopt::set_socket_linger(self.stream.tcp(), Some(Duration::ZERO));
    }

    /// Shrinks the kernel's buffers so that back-pressure shows early.
    pub fn small_buffers(&self) {
        let _ = sockopt::set_socket_recv_buffer_size(self.stream.tcp(), 8 * 1024);
        let _ = sockopt::set_socket_send_buffer_size(self.stream.tcp(), 8 * 1024);
    }

    /// Reads whatever comes next into the read-ahead. Ok(0) is FIN.
    fn fill(&mut self, deadline: Instant) -> Result<usize, ErrorKind> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut);
        }
        self.stream.tcp().set_read_timeout(Some(left)).expect("SO_RCVTIMEO");
        let mut room = [0u8; 64 * 1024];
        match self.stream.read(&mut room) {
            Ok(n) => {
                self.ahead.extend_from_slice(&room[..n]);
                if let Some(kept) = &mut self.kept {
                    kept.extend_from_slice(&room[..n]);
                }
                Ok(n)
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => self.fill(deadline),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut),
            Err(e) => Err(e.kind()),
        }
    }

    /// [`Wire::fill`] inside a message: the end of the connection is an error that carries `so_far`.
    fn fill_inside(&mut self, deadline: Instant, so_far: &[u8]) -> Result<(), WireError> {
        let with = |wire: &Wire| [so_far, &wire.ahead].concat();
        match self.fill(deadline) {
            Ok(0) => Err(WireError::Truncated(with(self))),
            Ok(_) => Ok(()),
            Err(ErrorKind::TimedOut) => Err(WireError::TimedOut(with(self))),
            Err(_) => Err(WireError::Reset(with(self))),
        }
    }

    /// Reads one head, start line to empty line.
    pub fn head(&mut self) -> Result<Head, WireError> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                let raw: Vec<u8> = self.ahead.drain(..end + 4).collect();
                return Head::parse(raw).map_err(WireError::Malformed);
            }
            if self.ahead.len() > HEAD_LIMIT {
                return Err(WireError::Malformed("a head beyond 1 MiB".into()));
            }
            if self.ahead.is_empty() {
                match self.fill(deadline) {
                    Ok(0) => return Err(WireError::Closed),
                    Ok(_) => {}
                    Err(ErrorKind::TimedOut) => return Err(WireError::TimedOut(Vec::new())),
                    Err(_) => return Err(WireError::Reset(Vec::new())),
                }
            } else {
                self.fill_inside(deadline, &[])?;
            }
        }
    }

    /// Reads exactly `n` bytes of body, handing them to `sink` as they come.
    pub fn body(&mut self, mut n: u64, sink: &mut dyn FnMut(&[u8])) -> Result<(), WireError> {
        while n > 0 {
            if self.ahead.is_empty() {
                // Bodies may be long: the bound is on each silence, not on the whole.
                self.fill_inside(Instant::now() + self.patience, &[])?;
            }
            let take = self.ahead.len().min(usize::try_from(n).unwrap_or(usize::MAX));
            sink(&self.ahead[..take]);
            self.ahead.drain(..take);
            n -= take as u64;
        }
        Ok(())
    }

    fn line(&mut self) -> Result<Vec<u8>, WireError> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                let mut line: Vec<u8> = self.ahead.drain(..end + 2).collect();
                line.truncate(end);
                return Ok(line);
            }
            self.fill_inside(deadline, &[])?;
        }
    }

    /// Reads the line before a chunk's data; its size.
    pub fn chunk_size(&mut self) -> Result<u64, WireError> {
        let line = self.line()?;
        parse_chunk_size(&line).map_err(WireError::Malformed)
    }

    /// Reads a chunked body to its end; returns the trailer fields.
    pub fn chunked(
        &mut self,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Vec<(String, String)>, WireError> {
        loop {
            let size = self.chunk_size()?;
            if size == 0 {
                break;
            }
            self.body(size, sink)?;
            let mut end = Vec::new();
            self.body(2, &mut |bytes| end.extend_from_slice(bytes))?;
            if end != b"\r\n" {
                return Err(WireError::Malformed(format!("chunk data ended by {end:?}")));
            }
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(trailers);
            }
            trailers.push(Head::field(&line).map_err(WireError::Malformed)?);
        }
    }

    /// Reads until FIN, handing what comes to `sink`; how it ended otherwise is the error.
    pub fn until_close(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<(), WireError> {
        loop {
            sink(&self.ahead);
            self.ahead.clear();
            match self.fill(Instant::now() + self.patience) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(ErrorKind::TimedOut) => return Err(WireError::TimedOut(Vec::new())),
                Err(_) => return Err(WireError::Reset(Vec::new())),
            }
        }
    }

    /// Whether the peer has closed and left nothing unread. Waits at most `patience` for it.
    pub fn closes_within(&mut self, patience: Duration) -> Result<(), String> {
        if !self.ahead.is_empty() {
            return Err(format!("{} unread bytes: {:?}", self.ahead.len(), lossy(&self.ahead)));
        }
        match self.fill(Instant::now() + patience) {
            Ok(0) | Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(()),
            Ok(n) => Err(format!("{n} more bytes instead of a close: {:?}", lossy(&self.ahead))),
            Err(ErrorKind::TimedOut) => Err(format!("still open after {patience:?}")),
            Err(e) => Err(format!("{e:?}")),
        }
    }

    /// Whether nothing arrives and the connection stays open for `quiet`.
    pub fn stays_quiet(&mut self, quiet: Duration) -> bool {
        self.ahead.is_empty() && self.fill(Instant::now() + quiet) == Err(ErrorKind::TimedOut)
    }
}

/// Where `needle` begins in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// The first bytes as text, for messages.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned()
}
