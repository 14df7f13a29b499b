//! The two ends of a body on its way, whatever is spoken there: a [`Source`] it comes from and a
//! [`Sink`] it goes to. Requests and answers use the same two, so the relay is written once.

use std::rc::Rc;
use std::task::{Context, Poll};

use crate::answer::Body;
use crate::body::{self, BodyReader, BodyWriter};
use crate::http2::ErrorCode;
use crate::io::{Chunk, Io, SendBuf};
use crate::limits;
use crate::message::{ChunkError, encode_trailers};
use crate::mux::MuxStream;
use crate::transport::Transport;

/// Part of a body.
pub struct Piece {
    pub data: Option<Chunk>,
    /// Nothing follows but trailers, see [`Source::trailers`].
    pub end: bool,
}

/// Why a body stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceFault {
    /// The framing is broken.
    Malformed(ChunkError),
    /// The peer went away or reset the stream.
    Gone,
}

/// Where a body comes from.
pub enum Source {
    Http1 {
        stream: Rc<Transport>,
        reader: BodyReader,
        /// What came with the head; afterwards what came behind the body.
        rest: Option<Chunk>,
        /// The peer's close ended the body.
        closed: bool,
    },
    Http2 {
        stream: Rc<MuxStream>,
        /// Trailer lines, once the body is over.
        trailers: Vec<u8>,
    },
    /// All of it is here.
    Own(Body),
}

impl Source {
    pub fn http1(stream: Rc<Transport>, reader: BodyReader, rest: Option<Chunk>) -> Source {
        Source::Http1 { stream, reader, rest, closed: false }
    }

    pub fn http2(stream: Rc<MuxStream>) -> Source {
        Source::Http2 { stream, trailers: Vec::new() }
    }

    pub fn own(body: Body) -> Source {
        Source::Own(body)
    }

    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, SourceFault>> {
        match self {
            Source::Http1 { stream, reader, rest, closed } => {
                let chunk = match rest.take() {
                    Some(chunk) => chunk,
                    None => match stream.poll_recv(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(Some(chunk))) => chunk,
                        Poll::Ready(Ok(None)) if reader.ends_with_stream() => {
                            *closed = true;
                            return Poll::Ready(Ok(Piece { data: None, end: true }));
                        }
                        Poll::Ready(_) => return Poll::Ready(Err(SourceFault::Gone)),
                    },
                };
                let taken = reader.take(chunk).map_err(SourceFault::Malformed)?;
                *rest = taken.rest;
                let end = taken.done || reader.is_done();
                Poll::Ready(Ok(Piece { data: taken.data, end }))
            }
            Source::Http2 { stream, trailers } => match stream.poll_data(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(_)) => Poll::Ready(Err(SourceFault::Gone)),
                Poll::Ready(Ok(data)) => {
                    let end = stream.is_done();
                    if end {
                        stream.trailers(trailers);
                    }
                    Poll::Ready(Ok(Piece { data, end }))
                }
            },
            Source::Own(Body { pipe: Some(pipe), .. }) => pipe.poll_piece(cx),
            Source::Own(body) => {
                // What is shared goes without a copy, but for the part that goes with the head.
                let first = body.data.as_mut().and_then(|data| data.cut(limits::OWN_FIRST));
                let end = first.is_none();
                Poll::Ready(Ok(Piece { data: first.or_else(|| body.data.take()), end }))
            }
        }
    }

    /// Body bytes that are known to follow.
    pub fn announced(&self) -> u64 {
        match self {
            Source::Http1 { reader, .. } => reader.announced(),
            Source::Http2 { .. } | Source::Own(_) => 0,
        }
    }

    /// Trailer lines of a body that is over.
    pub fn trailers(&self) -> &[u8] {
        match self {
            Source::Http1 { reader, .. } => reader.trailers(),
            Source::Http2 { trailers, .. } => trailers,
            Source::Own(body) => &body.trailers,
        }
    }

    /// For a long body: take one buffer at a time. (HTTP/2 has its windows.)
    pub fn set_bulk(&self, bulk: bool) {
        if let Source::Http1 { stream, .. } = self {
            stream.set_bulk(bulk);
        }
    }

    /// Whether what is left could run ahead of its reader by more than one burst.
    pub fn is_long(&self) -> bool {
        match self {
            Source::Http1 { reader, .. } => {
                !matches!(reader, BodyReader::Length(left) if *left <= limits::RUN_AHEAD)
            }
            Source::Http2 { .. } | Source::Own(_) => false,
        }
    }

    /// Whether a connection that carried this whole body may carry another message: it did not end
    /// with the connection, and nothing came behind it.
    pub fn is_clean(&self) -> bool {
        match self {
            Source::Http1 { rest, closed, .. } => rest.is_none() && !closed,
            Source::Http2 { .. } | Source::Own(_) => true,
        }
    }

    /// Puts what came behind the body back, for the next message.
    pub fn unread(&mut self) {
        if let Source::Http1 { stream, rest, .. } = self
            && let Some(rest) = rest.take()
        {
            stream.unrecv(rest);
        }
    }
}

/// Where a body goes.
pub enum Sink {
    Http1 {
        stream: Rc<Transport>,
        writer: BodyWriter,
    },
    Http2 {
        stream: Rc<MuxStream>,
    },
    /// There is no one.
    Nobody,
}

/// The peer takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkGone;

/// What could not be sent at once; [`Sink::finish`] waits for it.
pub enum Unsent {
    Http1(SendBuf),
    Http2 {
        data: Option<Chunk>,
        /// `Some`: the body ends, with these trailers (an encoded block, or none).
        end: Option<Vec<u8>>,
    },
}

impl Sink {
    /// Queues a head in this sink's dialect (may be empty: it is gone already), data behind it, and
    /// with `end` the body's end and its trailer lines. What does not go at once comes back.
    ///
    /// # Errors
    /// The peer takes no more.
    #[inline]
    pub fn start(
        &mut self,
        io: &Io,
        mut head: Vec<u8>,
        data: Option<Chunk>,
        end: Option<&[u8]>,
    ) -> Result<Option<Unsent>, SinkGone> {
        match self {
            Sink::Http1 { stream, writer } => {
                if let Some(data) = &data {
                    writer.prefix(data.len(), &mut head);
                }
                let buf = match end {
                    None => body::join(head, data, &[]),
                    Some(trailers) => {
                        let mut tail = io.take_vec();
                        writer.suffix(trailers, &mut tail);
                        let buf = body::join(head, data, &tail);
                        io.give_vec(tail);
                        buf
                    }
                };
                Ok(stream.try_send(buf).err().map(Unsent::Http1))
            }
            Sink::Http2 { stream } => {
                let ends = end.is_some();
                let mut block = Vec::new();
                if let Some(trailers) = end {
                    encode_trailers(trailers, &mut block);
                }
                let bare = data.is_none();
                if !head.is_empty() {
                    let last = ends && bare && block.is_empty();
                    stream.send_head(&head, last).map_err(|_| SinkGone)?;
                    io.give_vec(head);
                    if last {
                        return Ok(None);
                    }
                }
                if let Some(mut data) = data {
                    let last = ends && block.is_empty();
                    let taken = stream.try_send(data.bytes(), last).map_err(|_| SinkGone)?;
                    if taken < data.len() {
                        data.advance(taken);
                        let end = ends.then_some(block);
                        return Ok(Some(Unsent::Http2 { data: Some(data), end }));
                    }
                    if last {
                        return Ok(None);
                    }
                }
                if ends {
                    end_stream(stream, &block)?;
                }
                Ok(None)
            }
            Sink::Nobody => Err(SinkGone),
        }
    }

    /// Waits until what [`Sink::start`] left over is queued.
    ///
    /// # Errors
    /// The peer takes no more.
    pub async fn finish(&self, unsent: Unsent) -> Result<(), SinkGone> {
        match (self, unsent) {
            (Sink::Http1 { stream, .. }, Unsent::Http1(buf)) => {
                stream.send(buf).await.map_err(|_| SinkGone)
            }
            (Sink::Http2 { stream }, Unsent::Http2 { data, end }) => {
                let plain_end = end.as_ref().is_some_and(Vec::is_empty);
                if let Some(data) = &data {
                    stream.send(data.bytes(), plain_end).await.map_err(|_| SinkGone)?;
                }
                match end {
                    Some(block) if data.is_none() || !plain_end => end_stream(stream, &block),
                    _ => Ok(()),
                }
            }
            _ => Err(SinkGone),
        }
    }

    /// Makes sure that the peer cannot take what it has for the whole.
    pub fn cut(&self) {
        match self {
            Sink::Http1 { stream, .. } => stream.set_reset_on_close(),
            Sink::Http2 { stream } => stream.reset(ErrorCode::INTERNAL_ERROR),
            Sink::Nobody => {}
        }
    }
}

fn end_stream(stream: &MuxStream, block: &[u8]) -> Result<(), SinkGone> {
    if block.is_empty() {
        stream.try_send(&[], true).map(|_| ()).map_err(|_| SinkGone)
    } else {
        stream.send_trailers(block).map_err(|_| SinkGone)
    }
}
