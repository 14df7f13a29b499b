//! Streams and their states (RFC 9113 §5.1), and how those ended that are gone.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::StreamId;
use super::flow::{ReceiveWindow, SendWindow};
use crate::limits;

/// A stream of which at least one half is open.
pub(super) struct Stream {
    pub send: SendWindow,
    pub receive: ReceiveWindow,
    /// The peer has ended its half.
    pub remote_done: bool,
    /// We have ended ours.
    pub local_done: bool,
    /// The peer's final head is there: what follows is DATA or trailers.
    pub headed: bool,
    /// Body bytes that the peer's content-length announces and that are still to come.
    pub expected: Option<u64>,
    /// The last `send_data` was short: a `Writable` is owed.
    pub waiting: bool,
    /// When it was last served, in turns of the connection: who waits longest is first.
    pub served: u64,
    /// What was asked for, in the client role.
    pub kind: super::RequestKind,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Both halves by END_STREAM.
    Finished,
    ResetByPeer,
    /// By us: frames that were under way are ignored (RFC 9113 §5.1).
    ResetByUs,
}

/// Stream ids are counted up by the peer, within a small table: multiplying spreads them.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32) // Both ends of it are used.
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The streams of a connection.
#[derive(Default)]
pub(super) struct Streams {
    open: HashMap<StreamId, Stream, BuildHasherDefault<IdHasher>>,
    /// The last ones that ended.
    ended: VecDeque<(StreamId, Ending)>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    #[inline]
    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.open.get(&id)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.open.get_mut(&id)
    }

    pub(super) fn insert(&mut self, id: StreamId, stream: Stream) {
        self.open.insert(id, stream);
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.open.values_mut()
    }

    /// Ids above `last`, in order.
    pub(super) fn above(&self, last: StreamId) -> Vec<StreamId> {
        let mut ids: Vec<_> = self.open.keys().copied().filter(|id| *id > last).collect();
        ids.sort_unstable();
        ids
    }

    /// Removes a stream and remembers its ending. False: there was none.
    pub(super) fn end(&mut self, id: StreamId, ending: Ending) -> bool {
        let found = self.open.remove(&id).is_some();
        if found {
            self.remember(id, ending);
        }
        found
    }

    pub(super) fn remember(&mut self, id: StreamId, ending: Ending) {
        if self.ended.len() >= limits::H2_ENDED_STREAMS {
            self.ended.pop_front();
        }
        self.ended.push_back((id, ending));
    }

    /// How a stream ended that is not open any more; `None` if that is long ago, or if it never
    /// was.
    pub(super) fn ending(&self, id: StreamId) -> Option<Ending> {
        self.ended.iter().rev().find(|(ended, _)| *ended == id).map(|(_, ending)| *ending)
    }

    /// Removes the stream if both halves are done.
    #[inline]
    pub(super) fn end_if_done(&mut self, id: StreamId) -> bool {
        match self.open.get(&id) {
            Some(stream) if stream.remote_done && stream.local_done => {
                self.end(id, Ending::Finished)
            }
            _ => false,
        }
    }
}
