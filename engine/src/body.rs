//! Message bodies on their way: out of one framing, into another, without copying where one
//! buffer suffices.

use crate::io::{Chunk, SendBuf};
use crate::message::{BodyFraming, ChunkError, ChunkedDecoder, Event, Framing, write};

/// Where the body ends, in what comes.
pub enum BodyReader {
    /// Bytes still to come.
    Length(u64),
    Chunked(Box<ChunkedDecoder>),
    UntilClose,
}

/// What one received chunk held.
pub struct Taken {
    /// Body bytes, without framing.
    pub data: Option<Chunk>,
    /// Bytes behind the body's end.
    pub rest: Option<Chunk>,
    pub done: bool,
}

impl BodyReader {
    pub fn of_request(framing: Framing) -> BodyReader {
        match framing {
            Framing::None => BodyReader::Length(0),
            Framing::Length(length) => BodyReader::Length(length),
            Framing::Chunked => BodyReader::Chunked(Box::default()),
        }
    }

    pub fn of_response(framing: BodyFraming) -> BodyReader {
        match framing {
            BodyFraming::None => BodyReader::Length(0),
            BodyFraming::Length(length) => BodyReader::Length(length),
            BodyFraming::Chunked => BodyReader::Chunked(Box::default()),
            BodyFraming::UntilClose => BodyReader::UntilClose,
        }
    }

    /// Whether the body is over, as far as can be known without further bytes.
    pub fn is_done(&self) -> bool {
        match self {
            BodyReader::Length(left) => *left == 0,
            BodyReader::Chunked(decoder) => decoder.is_done(),
            BodyReader::UntilClose => false,
        }
    }

    /// Whether the end of the stream ends this body properly.
    pub fn ends_with_stream(&self) -> bool {
        matches!(self, BodyReader::UntilClose)
    }

    /// Bytes that are known to follow.
    pub fn announced(&self) -> u64 {
        match self {
            BodyReader::Length(left) => *left,
            BodyReader::Chunked(decoder) => decoder.announced(),
            BodyReader::UntilClose => 0,
        }
    }

    /// Trailer lines of a finished chunked body.
    pub fn trailers(&self) -> &[u8] {
        match self {
            BodyReader::Chunked(decoder) => decoder.trailers(),
            _ => &[],
        }
    }

    /// Takes the body's part of `chunk`.
    ///
    /// # Errors
    /// The framing is broken; whatever came before the fault in this chunk is dropped with it.
    pub fn take(&mut self, mut chunk: Chunk) -> Result<Taken, ChunkError> {
        match self {
            BodyReader::UntilClose => Ok(Taken { data: some(chunk), rest: None, done: false }),
            BodyReader::Length(left) => {
                let mut rest = None;
                if chunk.len() as u64 > *left {
                    rest = some(chunk.split_off(*left as usize));
                }
                *left -= chunk.len() as u64;
                Ok(Taken { data: some(chunk), rest, done: *left == 0 })
            }
            BodyReader::Chunked(decoder) => take_chunked(decoder, chunk),
        }
    }
}

fn some(chunk: Chunk) -> Option<Chunk> {
    Some(chunk).filter(|chunk| !chunk.is_empty())
}

fn take_chunked(decoder: &mut ChunkedDecoder, mut chunk: Chunk) -> Result<Taken, ChunkError> {
    let mut first: Option<(usize, usize)> = None;
    let mut joined: Option<Vec<u8>> = None;
    let mut at = 0;
    let mut done = false;
    loop {
        let bytes = chunk.bytes();
        let (used, event) = decoder.next(bytes.get(at..).unwrap_or_default())?;
        at += used;
        match event {
            Event::Data(data) => match (&first, &mut joined) {
                (None, _) => first = Some((at - data.len(), data.len())),
                (Some(_), Some(joined)) => joined.extend_from_slice(data),
                (Some((start, len)), None) => {
                    // Several small chunks in one buffer become one.
                    let mut both = Vec::with_capacity(bytes.len());
                    both.extend_from_slice(bytes.get(*start..start + len).unwrap_or_default());
                    both.extend_from_slice(data);
                    joined = Some(both);
                }
            },
            Event::NeedMore => break,
            Event::Done => {
                done = true;
                break;
            }
        }
    }
    let rest = (done && at < chunk.len()).then(|| chunk.split_off(at));
    let data = match (first, joined) {
        (_, Some(joined)) => Some(Chunk::copy_of(&joined)),
        (Some((start, len)), None) => {
            chunk.advance(start);
            chunk.truncate(len);
            Some(chunk)
        }
        (None, None) => None,
    };
    Ok(Taken { data, rest, done })
}

/// How the body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyWriter {
    /// As it is: a length was announced, or the close ends it.
    Plain,
    /// The chunked coding. `open`: the CRLF behind the last chunk's data is still owed; it goes out
    /// in front of the next chunk, so that data needs bytes only before it.
    Chunked { open: bool },
}

impl BodyWriter {
    pub const CHUNKED: BodyWriter = BodyWriter::Chunked { open: false };

    /// Appends what must precede `len` (more than 0) bytes of data.
    pub fn prefix(&mut self, len: usize, out: &mut Vec<u8>) {
        if let BodyWriter::Chunked { open } = self {
            if std::mem::replace(open, true) {
                out.extend_from_slice(write::CRLF);
            }
            let mut space = [0; write::MAX_CHUNK_HEADER];
            out.extend_from_slice(write::chunk_header(&mut space, len));
        }
    }

    /// Appends what follows the last data.
    pub fn suffix(&mut self, trailers: &[u8], out: &mut Vec<u8>) {
        if let BodyWriter::Chunked { open } = self {
            if std::mem::replace(open, false) {
                out.extend_from_slice(write::CRLF);
            }
            if trailers.is_empty() {
                out.extend_from_slice(write::LAST_CHUNK);
            } else {
                out.extend_from_slice(write::LAST_CHUNK_SIZE);
                out.extend_from_slice(trailers);
                out.extend_from_slice(write::CRLF);
            }
        }
    }
}

/// Makes `head`, `data` and `tail` one buffer to send: in `data`'s own memory where there is room,
/// else by copying.
pub fn join(mut head: Vec<u8>, data: Option<Chunk>, tail: &[u8]) -> SendBuf {
    let Some(mut data) = data else {
        head.extend_from_slice(tail);
        return SendBuf::Vec(head);
    };
    let appended = tail.is_empty() || data.append(tail);
    if appended && data.prepend(&head) {
        return SendBuf::Chunk(data);
    }
    head.extend_from_slice(data.bytes());
    if !appended {
        head.extend_from_slice(tail);
    }
    SendBuf::Vec(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(reader: &mut BodyReader, input: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<u8>, bool) {
        let (mut data, mut rest, mut done) = (Vec::new(), Vec::new(), false);
        let mut start = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            let part = &input[start..end];
            start = end;
            if part.is_empty() {
                continue;
            }
            if done {
                rest.extend_from_slice(part);
                continue;
            }
            let taken = reader.take(Chunk::copy_of(part)).unwrap();
            data.extend(taken.data.iter().flat_map(|chunk| chunk.bytes().to_vec()));
            rest.extend(taken.rest.iter().flat_map(|chunk| chunk.bytes().to_vec()));
            done = taken.done;
        }
        (data, rest, done)
    }

    proptest! {
        #[test]
        fn chunked_in_any_pieces_is_the_body(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..6),
            mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            extra in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut wire = Vec::new();
            let mut writer = BodyWriter::CHUNKED;
            for part in &parts {
                writer.prefix(part.len(), &mut wire);
                wire.extend_from_slice(part);
            }
            writer.suffix(b"x-sum: 1\r\n", &mut wire);
            wire.extend_from_slice(&extra);
            let mut at: Vec<usize> = cuts.drain(..).map(|cut| cut.index(wire.len())).collect();
            at.sort();
            let mut reader = BodyReader::of_request(Framing::Chunked);
            let (data, rest, done) = through(&mut reader, &wire, &at);
            prop_assert!(done);
            prop_assert_eq!(data, parts.concat());
            prop_assert_eq!(rest, extra);
            prop_assert_eq!(reader.trailers(), b"x-sum: 1\r\n");
        }

        #[test]
        fn a_length_takes_so_many(
            body in prop::collection::vec(any::<u8>(), 0..300),
            extra in prop::collection::vec(any::<u8>(), 0..50),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut wire = body.clone();
            wire.extend_from_slice(&extra);
            prop_assume!(!wire.is_empty() && !body.is_empty());
            let mut reader = BodyReader::Length(body.len() as u64);
            let (data, rest, done) = through(&mut reader, &wire, &[cut.index(wire.len())]);
            prop_assert!(done && reader.is_done());
            prop_assert_eq!(data, body);
            prop_assert_eq!(rest, extra);
        }
    }

    #[test]
    fn joining_uses_the_room_or_copies() {
        let bytes = |buf: SendBuf| match buf {
            SendBuf::Vec(bytes) => bytes,
            SendBuf::Chunk(chunk) => chunk.bytes().to_vec(),
            _ => unreachable!(),
        };
        let head = vec![b'h'; 100];
        assert!(matches!(join(head.clone(), Some(Chunk::copy_of(b"d")), b"t"), SendBuf::Chunk(_)));
        for head in [vec![b'h'; 3], vec![b'h'; 5000]] {
            let mut whole = head.clone();
            whole.extend_from_slice(b"datatail");
            assert_eq!(bytes(join(head, Some(Chunk::copy_of(b"data")), b"tail")), whole);
        }
        assert_eq!(bytes(join(b"a".to_vec(), None, b"b")), b"ab");
    }
}
