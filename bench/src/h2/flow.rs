//! What may be sent: bodies wait here for the peer's windows (RFC 9113 §5.2).

use std::collections::VecDeque;
use std::rc::Rc;

use super::{Broken, FIRST_WINDOW, MAX_FRAME_BYTES, MAX_WINDOW, flag, kind, put_head, put_headers};

/// Consumed bytes after which the connection's window is filled up again.
const REFILL_BYTES: u64 = 1 << 30;

/// A body on its way out.
#[derive(Debug)]
struct Sending {
    stream: u32,
    window: i64,
    body: Rc<[u8]>,
    at: usize,
    /// A header block to end with; without it the last DATA frame ends the stream.
    trailers: Option<Rc<[u8]>>,
}

/// The sending side of one connection, and our own window.
#[derive(Debug)]
pub struct Flow {
    window: i64,
    /// The window that a new stream has.
    first: i64,
    max_frame: usize,
    waiting: VecDeque<Sending>,
    consumed: u64,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            window: FIRST_WINDOW,
            first: FIRST_WINDOW,
            max_frame: MAX_FRAME_BYTES,
            waiting: VecDeque::new(),
            consumed: 0,
        }
    }
}

impl Flow {
    /// Sends a body, as far as the windows allow now; `granted` is what the peer has added to
    /// the stream's window so far. The rest follows from [`Self::pump`].
    pub fn send(
        &mut self,
        stream: u32,
        granted: i64,
        body: Rc<[u8]>,
        trailers: Option<Rc<[u8]>>,
        out: &mut Vec<u8>,
    ) {
        let window = self.first + granted;
        self.waiting.push_back(Sending { stream, window, body, at: 0, trailers });
        self.pump(out);
    }

    /// Sends what the windows allow.
    pub fn pump(&mut self, out: &mut Vec<u8>) {
        let mut place = 0;
        while let Some(sending) = self.waiting.get_mut(place) {
            loop {
                let left = sending.body.len() - sending.at;
                let allowed = self.window.min(sending.window).max(0);
                let now = left.min(self.max_frame).min(allowed as usize);
                if now == 0 && left > 0 {
                    break;
                }
                let last = now == left;
                if now > 0 || sending.trailers.is_none() {
                    let end = last && sending.trailers.is_none();
                    let flags = if end { flag::END_STREAM } else { 0 };
                    put_head(now, kind::DATA, flags, sending.stream, out);
                    let piece = sending.body.get(sending.at..sending.at + now);
                    out.extend_from_slice(piece.unwrap_or_default());
                }
                sending.at += now;
                sending.window -= now as i64;
                self.window -= now as i64;
                if last {
                    if let Some(block) = &sending.trailers {
                        put_headers(block, sending.stream, true, out);
                    }
                    break;
                }
            }
            if sending.at == sending.body.len() {
                self.waiting.remove(place);
            } else if self.window <= 0 {
                return;
            } else {
                place += 1;
            }
        }
    }

    /// The peer has added to a window.
    pub fn grant(&mut self, stream: u32, more: u32) -> Result<(), Broken> {
        let window = if stream == 0 {
            &mut self.window
        } else {
            match self.waiting.iter_mut().find(|sending| sending.stream == stream) {
                Some(sending) => &mut sending.window,
                None => return Ok(()),
            }
        };
        *window += i64::from(more);
        if *window > MAX_WINDOW { Err(Broken::Window) } else { Ok(()) }
    }

    /// The peer has changed the window of all streams (RFC 9113 §6.9.2), or its frame size.
    pub fn settings(&mut self, window: Option<u32>, max_frame: Option<u32>) {
        if let Some(window) = window.map(i64::from) {
            for sending in &mut self.waiting {
                sending.window += window - self.first;
            }
            self.first = window;
        }
        if let Some(max_frame) = max_frame {
            // More than we need only makes for larger buffers.
            self.max_frame = (max_frame as usize).clamp(1, MAX_FRAME_BYTES);
        }
    }

    pub fn forget(&mut self, stream: u32) {
        self.waiting.retain(|sending| sending.stream != stream);
    }

    /// Bytes of bodies have come: what to add to the connection's window, if it is time.
    pub fn consume(&mut self, bytes: usize) -> Option<u32> {
        self.consumed += bytes as u64;
        if self.consumed < REFILL_BYTES {
            return None;
        }
        Some(std::mem::take(&mut self.consumed) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2::{Event, Reader};

    fn frames(bytes: &[u8]) -> Vec<(u32, usize, bool)> {
        let mut reader = Reader::default();
        let (mut rest, mut out) = (bytes, Vec::new());
        while !rest.is_empty() {
            let (used, event) = reader.next(rest).unwrap();
            match event {
                Some(Event::Data { stream, piece, end, .. }) => {
                    out.push((stream, piece.len(), end));
                }
                Some(Event::Headers { stream, end, .. }) => out.push((stream, 0, end)),
                other => panic!("{other:?}"),
            }
            rest = &rest[used..];
        }
        out
    }

    #[test]
    fn a_body_waits_for_both_windows() {
        let mut flow = Flow::default();
        let mut out = Vec::new();
        flow.send(1, 0, vec![0; 70_000].into(), None, &mut out);
        let max = MAX_FRAME_BYTES;
        let first = [(1, max, false), (1, max, false), (1, max, false), (1, max - 1, false)];
        assert_eq!(frames(&out), first);
        out.clear();
        flow.send(3, 0, [0; 5][..].into(), Some([0x88][..].into()), &mut out);
        flow.grant(1, 10_000).unwrap();
        flow.pump(&mut out);
        assert!(out.is_empty(), "the connection's window is used up");
        flow.grant(0, 4_470).unwrap();
        flow.pump(&mut out);
        assert_eq!(frames(&out), [(1, 4_465, true), (3, 5, false), (3, 0, true)]);
        assert_eq!(flow.grant(0, 0x7fff_ffff), Ok(()));
        assert_eq!(flow.grant(0, 1), Err(Broken::Window));
    }

    #[test]
    fn a_stream_that_waits_does_not_hold_up_the_next() {
        let mut flow = Flow::default();
        flow.settings(Some(0), None);
        let mut out = Vec::new();
        flow.send(1, 0, [0; 3][..].into(), None, &mut out);
        flow.send(3, 2, [0; 2][..].into(), None, &mut out);
        flow.send(5, 0, [][..].into(), None, &mut out);
        assert_eq!(frames(&out), [(3, 2, true), (5, 0, true)]);
        out.clear();
        flow.settings(Some(2), Some(1));
        flow.pump(&mut out);
        assert_eq!(frames(&out), [(1, 1, false), (1, 1, false)]);
        flow.forget(1);
        flow.settings(Some(9), None);
        out.clear();
        flow.pump(&mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn our_window_is_filled_up_before_it_ends() {
        let mut flow = Flow::default();
        assert_eq!(flow.consume(1 << 29), None);
        assert_eq!(flow.consume(1 << 29), Some(1 << 30));
        assert_eq!(flow.consume(1), None);
    }
}
