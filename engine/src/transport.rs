//! What HTTP is spoken over: a socket, or TLS on one. The same calls with the same meaning, so that
//! nothing above knows which it has.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use crate::io::{Chunk, SendBuf, Stream};
use crate::tls::{TlsFacts, TlsStream};

/// A connection's two directions. All calls take `&self`: a reader and a writer of one thread use
/// it at the same time.
pub enum Transport {
    Plain(Stream),
    Tls(Box<TlsStream>),
}

impl From<Stream> for Transport {
    fn from(stream: Stream) -> Transport {
        Transport::Plain(stream)
    }
}

impl From<TlsStream> for Transport {
    fn from(stream: TlsStream) -> Transport {
        Transport::Tls(Box::new(stream))
    }
}

macro_rules! dispatch {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self {
            Transport::Plain($stream) => $call,
            Transport::Tls($stream) => $call,
        }
    };
}

impl Transport {
    /// What the handshake has settled; `None` on clear text.
    #[inline]
    pub fn tls(&self) -> Option<&TlsFacts> {
        match self {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => Some(stream.facts()),
        }
    }

    /// The next bytes; `None` at the end of the stream.
    ///
    /// # Errors
    /// What the socket reports, again on every later call. Over TLS also a record that cannot be
    /// opened (`InvalidData`), and an end without close_notify (`UnexpectedEof`): someone on the
    /// way may have cut the stream there (RFC 8446 §6.1).
    #[inline]
    pub async fn recv(&self) -> io::Result<Option<Chunk>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    #[inline]
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        dispatch!(self, stream => stream.poll_recv(cx))
    }

    /// Whether bytes, an end or an error wait to be received.
    #[inline]
    pub fn has_input(&self) -> bool {
        dispatch!(self, stream => stream.has_input())
    }

    /// Listens for the peer's end although no one is receiving, without holding a buffer.
    #[inline]
    pub fn keep_watch(&self) {
        dispatch!(self, stream => stream.keep_watch());
    }

    /// Ready once the connection has failed (a reset, not a mere end).
    #[inline]
    pub fn poll_failed(&self, cx: &Context<'_>) -> Poll<()> {
        dispatch!(self, stream => stream.poll_failed(cx))
    }

    /// Whether the peer has closed its half or the connection failed, as far as is known.
    #[inline]
    pub fn has_ended(&self) -> bool {
        dispatch!(self, stream => stream.has_ended())
    }

    /// Puts bytes back in front of what is to be received.
    #[inline]
    pub fn unrecv(&self, chunk: Chunk) {
        dispatch!(self, stream => stream.unrecv(chunk));
    }

    /// For long bodies: receive one buffer at a time.
    #[inline]
    pub fn set_bulk(&self, bulk: bool) {
        dispatch!(self, stream => stream.set_bulk(bulk));
    }

    /// Waits for the previous send, then queues `buf`. At most one send is outstanding. Over TLS a
    /// long `buf` is encrypted piece by piece as the socket takes it; dropping the future between
    /// two pieces leaves a connection that sends nothing more.
    ///
    /// # Errors
    /// The failure of an earlier send; `buf` is dropped.
    #[inline]
    pub async fn send(&self, buf: SendBuf) -> io::Result<()> {
        dispatch!(self, stream => stream.send(buf).await)
    }

    /// Queues `buf` if no send is outstanding; otherwise gives it back.
    #[inline]
    pub fn try_send(&self, buf: SendBuf) -> Result<(), SendBuf> {
        dispatch!(self, stream => stream.try_send(buf))
    }

    /// Whether a send is outstanding.
    #[inline]
    pub fn is_sending(&self) -> bool {
        dispatch!(self, stream => stream.is_sending())
    }

    /// Waits until everything queued is in the kernel's hands.
    ///
    /// # Errors
    /// The failure of a send (EPIPE, ECONNRESET …).
    #[inline]
    pub async fn flush(&self) -> io::Result<()> {
        dispatch!(self, stream => stream.flush().await)
    }

    /// Ends our half: the peer sees the end of the stream after what was sent (over TLS:
    /// close_notify, then the end). Flush first.
    #[inline]
    pub fn shutdown_write(&self) {
        dispatch!(self, stream => stream.shutdown_write());
    }

    /// Makes the coming close a reset, so that the peer cannot take a cut answer for a whole one.
    #[inline]
    pub fn set_reset_on_close(&self) {
        dispatch!(self, stream => stream.set_reset_on_close());
    }

    /// The local address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        dispatch!(self, stream => stream.local_addr())
    }
}
