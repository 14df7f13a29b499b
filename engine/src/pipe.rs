//! A body of the gateway's own that is sent while it is made. What is in it is not bounded here: whoever
//! writes holds to a bound of its own.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::channel::{Piece, SourceFault};
use crate::io::Chunk;

#[derive(Default)]
struct State {
    pieces: VecDeque<Vec<u8>>,
    end: Option<End>,
    /// The reader is gone.
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Cut,
}

/// The end that is written to. Dropped before [`Writer::end`], the body is cut.
pub struct Writer(Rc<RefCell<State>>);

/// The end that is read.
pub struct Reader(Rc<RefCell<State>>);

pub fn pipe() -> (Writer, Reader) {
    let state: Rc<RefCell<State>> = Rc::default();
    (Writer(state.clone()), Reader(state))
}

impl Writer {
    pub fn write(&self, piece: Vec<u8>) {
        let mut state = self.0.borrow_mut();
        if !piece.is_empty() && !state.closed {
            state.pieces.push_back(piece);
        }
        wake(&mut state.reader);
    }

    /// The body is whole.
    pub fn end(self) {
        self.0.borrow_mut().end = Some(End::Whole);
    }

    /// Ready once nobody reads any more.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        if state.closed {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        state.end.get_or_insert(End::Cut);
        wake(&mut state.reader);
    }
}

impl Reader {
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, SourceFault>> {
        let mut state = self.0.borrow_mut();
        let piece = state.pieces.pop_front();
        let over = state.pieces.is_empty();
        match (piece, state.end) {
            (Some(piece), end) => {
                let end = over && end == Some(End::Whole);
                Poll::Ready(Ok(Piece { data: Some(Chunk::from_vec(piece)), end }))
            }
            (None, Some(End::Whole)) => Poll::Ready(Ok(Piece { data: None, end: true })),
            (None, Some(End::Cut)) => Poll::Ready(Err(SourceFault::Gone)),
            (None, None) => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ready once there is something to read, or the end.
    pub fn poll_begun(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        if !state.pieces.is_empty() || state.end.is_some() {
            return Poll::Ready(());
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        state.closed = true;
        state.pieces.clear();
        wake(&mut state.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reader: &mut Reader) -> Option<(Option<Vec<u8>>, bool)> {
        match reader.poll_piece(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(piece)) => {
                Some((piece.data.map(|data| data.bytes().to_vec()), piece.end))
            }
            Poll::Ready(Err(_)) => Some((None, false)),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_end_is_told() {
        let (writer, mut reader) = pipe();
        assert_eq!(read(&mut reader), None);
        writer.write(b"a".to_vec());
        writer.write(Vec::new());
        writer.write(b"b".to_vec());
        assert_eq!(read(&mut reader), Some((Some(b"a".to_vec()), false)));
        writer.end();
        assert_eq!(read(&mut reader), Some((Some(b"b".to_vec()), true)));
        let (writer, mut reader) = pipe();
        writer.end();
        assert_eq!(read(&mut reader), Some((None, true)));
    }

    #[test]
    fn either_end_learns_that_the_other_is_gone() {
        let (writer, mut reader) = pipe();
        writer.write(b"a".to_vec());
        drop(writer);
        assert_eq!(read(&mut reader), Some((Some(b"a".to_vec()), false)));
        assert_eq!(read(&mut reader), Some((None, false)));
        let (writer, reader) = pipe();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(writer.poll_closed(&mut cx).is_pending());
        drop(reader);
        assert!(writer.poll_closed(&mut cx).is_ready());
        writer.write(b"a".to_vec());
    }
}
