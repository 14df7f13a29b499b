//! An answer that is stored while it is relayed.

use std::sync::Arc;

use bytes::Bytes;

use super::object::{Draft, Object};
use super::store::{Leader, Room, Since, Store};
use crate::channel::Piece;
use crate::io::Chunk;
use crate::limits;

/// Takes a copy of a body as it comes, and stores it once all of it is there. Dropped before that, it
/// stores nothing: an answer that was cut off is none (RFC 9111 §3.3). Whoever waits for the answer waits
/// for as long as this lives.
#[derive(Debug)]
pub struct Fill {
    draft: Draft,
    since: Since,
    body: Vec<u8>,
    room: Room,
    /// Of the body, in bytes.
    most: usize,
    length: Option<u64>,
    _leader: Option<Leader>,
}

impl Fill {
    /// For a body of at most `most` bytes, or of exactly `length`. `None`: there is no room for it.
    pub fn new(
        store: &Arc<Store>,
        draft: Draft,
        since: Since,
        most: usize,
        length: Option<u64>,
        leader: Option<Leader>,
    ) -> Option<Box<Fill>> {
        let mut room = Room::none(store);
        let mut body = Vec::new();
        if let Some(length) = length {
            let length = usize::try_from(length).ok().filter(|length| *length <= most)?;
            if !room.grow(length) {
                return None;
            }
            body.reserve_exact(length);
        }
        Some(Box::new(Fill { draft, since, body, room, most, length, _leader: leader }))
    }

    /// The next piece of the body, or of an answer that is not stored.
    #[inline]
    pub fn see(fill: &mut Option<Box<Fill>>, piece: &Piece) {
        if fill.is_some() {
            Fill::take(fill, piece);
        }
    }

    #[cold]
    fn take(fill: &mut Option<Box<Fill>>, piece: &Piece) {
        let Some(own) = fill else { return };
        if let Some(data) = &piece.data
            && !own.add(data)
        {
            *fill = None;
            return;
        }
        if piece.end
            && let Some(own) = fill.take()
        {
            own.store();
        }
    }

    fn add(&mut self, data: &Chunk) -> bool {
        let bytes = self.body.len() + data.len();
        if bytes > self.most {
            return false;
        }
        if bytes > self.room.bytes() {
            let step = (bytes - self.room.bytes()).next_multiple_of(limits::CACHE_STEP);
            if self.length.is_some() || !self.room.grow(step) {
                return false;
            }
        }
        // What is kept free is also what is taken: no doubling behind the back of the bound.
        let free = self.room.bytes() - self.body.len();
        if self.body.capacity() - self.body.len() < data.len() {
            self.body.reserve_exact(free);
        }
        self.body.extend_from_slice(data.bytes());
        true
    }

    fn store(self: Box<Fill>) {
        let Fill { draft, since, mut body, room, length, _leader, .. } = *self;
        if length.is_some_and(|length| length != body.len() as u64) {
            return;
        }
        body.shrink_to_fit();
        let store = room.store().clone();
        store.insert(Object::new(draft, Bytes::from(body)), since, Some(room));
    }
}
