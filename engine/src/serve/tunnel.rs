//! After a switch of protocols: bytes both ways, until both sides have ended or nothing moves any
//! more. Either side may be a whole connection (HTTP/1's 101) or a stream (HTTP/2's extended
//! CONNECT, RFC 8441).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use contract::record::Reason;

use super::websocket;
use crate::answer::{Answer, Carrier};
use crate::exchange::{Downstream, Ended, Next, Request, Responder};
use crate::io::{Chunk, Elapsed, Io, SendBuf};
use crate::limit;
use crate::message::{Dialect, HeadWriter, Name, ResponseHead};
use crate::mux::MuxStream;
use crate::shard::Shard;
use crate::transport::Transport;

/// Relays the answer that switches and then the bytes (RFC 9110 §7.8). Nothing was passed on
/// before it.
pub async fn tunnel(
    shard: &Shard,
    request: &mut Request,
    responder: Responder,
    answer: Answer,
) -> Ended {
    let Answer { carrier, account, head, mut bytes, timeouts, .. } = answer;
    let mut out = shard.io.take_vec();
    let status = write_head(request, &responder, &head, bytes.bytes(), &mut out);
    bytes.advance(head.head_len);
    shard.give_response_head(head);
    let ended = |response_bytes| Ended {
        status,
        reason: Reason::None,
        response_bytes,
        relayed_bytes: response_bytes,
        next: Next::Abort,
    };
    let rest = request.take_rest();
    let client = match &responder.down {
        Downstream::Http1(stream) => {
            if stream.send(SendBuf::Vec(out)).await.is_err() {
                return ended(0);
            }
            End::Connection(stream.clone())
        }
        Downstream::Http2(stream) => {
            if stream.send_head(&out, false).is_err() {
                return ended(0);
            }
            End::Stream(stream.clone())
        }
        Downstream::Nobody => return ended(0),
    };
    let upstream = match &carrier {
        Carrier::Http1(connection) => End::Connection(connection.stream.clone()),
        Carrier::Http2(stream) => End::Stream(stream.clone()),
        Carrier::Own(_) => return ended(0),
    };
    responder.watch.clear();
    let idle_ms = u64::from(timeouts.idle_ms);
    let came = Some(bytes).filter(|bytes| !bytes.is_empty());
    let moved_ms = Cell::new(shard.io.clock().now_ms());
    let mut up = pin!(pump(&shard.io, &client, &upstream, rest, idle_ms, &moved_ms));
    let mut down = pin!(pump(&shard.io, &upstream, &client, came, idle_ms, &moved_ms));
    let (mut sent, mut received) = (None, None);
    let (sent, received) = poll_fn(|cx| {
        poll_once(&mut sent, up.as_mut(), cx);
        poll_once(&mut received, down.as_mut(), cx);
        match (sent, received) {
            (Some(sent), Some(received)) => Poll::Ready((sent, received)),
            _ => Poll::Pending,
        }
    })
    .await;
    request.notes.request_bytes = sent;
    drop(account);
    ended(received)
}

/// The answer in the client's terms. Returns its status.
fn write_head(
    request: &Request,
    responder: &Responder,
    head: &ResponseHead,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> u16 {
    let dialect = responder.down.dialect();
    let mut out = HeadWriter::new(out, dialect);
    let status = if dialect == Dialect::Http1 { 101 } else { 200 };
    out.status(status, b"");
    for field in &head.fields {
        let name = field.name.of(bytes);
        // The accept key belongs to HTTP/1's handshake alone (RFC 8441 §5).
        let accept = name.eq_ignore_ascii_case(b"sec-websocket-accept");
        if field.forwarded()
            && field.id != Name::ContentLength
            && !(accept && (dialect == Dialect::Http2 || !head.switching))
        {
            out.field(name, field.value.of(bytes));
        }
    }
    out.field(b"X-Request-Id", request.id.bytes());
    for (name, value) in &request.answer_fields {
        out.field(name.as_bytes(), value);
    }
    let (policies, shown) = limit::admit::shown(request);
    limit::fields::write(&mut out, policies, shown);
    if dialect == Dialect::Http1 {
        let upgrade = request.upgrade.as_deref();
        let asked = upgrade.map_or(&b"websocket"[..], |upgrade| &upgrade.token);
        out.field(b"Upgrade", head.value(bytes, Name::Upgrade).unwrap_or(asked));
        let key = upgrade.and_then(|upgrade| upgrade.websocket_key.as_deref());
        if let Some(key) = key.filter(|_| !head.switching) {
            out.field(b"Sec-WebSocket-Accept", &websocket::accept(key));
        }
        out.field(b"Connection", b"upgrade");
    }
    out.end();
    status
}

/// One side of a tunnel.
enum End {
    Connection(Rc<Transport>),
    Stream(Rc<MuxStream>),
}

impl End {
    async fn recv(&self) -> Option<Chunk> {
        match self {
            End::Connection(stream) => stream.recv().await.ok().flatten(),
            End::Stream(stream) => poll_fn(|cx| stream.poll_data(cx)).await.ok().flatten(),
        }
    }

    async fn send(&self, chunk: Chunk) -> Result<(), ()> {
        match self {
            End::Connection(stream) => stream.send(SendBuf::Chunk(chunk)).await.map_err(|_| ()),
            End::Stream(stream) => stream.send(chunk.bytes(), false).await.map_err(|_| ()),
        }
    }

    /// Ends our half after what was sent.
    async fn finish(&self) {
        match self {
            End::Connection(stream) => {
                let _ = stream.flush().await;
                stream.shutdown_write();
            }
            End::Stream(stream) => drop(stream.try_send(&[], true)),
        }
    }

    fn set_bulk(&self) {
        if let End::Connection(stream) = self {
            stream.set_bulk(true);
        }
    }
}

fn poll_once(
    done: &mut Option<u64>,
    pump: Pin<&mut impl Future<Output = u64>>,
    cx: &mut Context<'_>,
) {
    if done.is_none()
        && let Poll::Ready(moved) = pump.poll(cx)
    {
        *done = Some(moved);
    }
}

/// Copies one direction until its end, then ends the other side's input.
async fn pump(
    io: &Io,
    from: &End,
    to: &End,
    mut first: Option<Chunk>,
    idle_ms: u64,
    moved_ms: &Cell<u64>,
) -> u64 {
    let watch = io.watch();
    let mut moved = 0;
    from.set_bulk();
    loop {
        let chunk = match first.take() {
            Some(chunk) => chunk,
            None => {
                watch.set_at(moved_ms.get() + idle_ms);
                match watch.bound(from.recv()).await {
                    Ok(Some(chunk)) => chunk,
                    // The other direction may have moved meanwhile: a tunnel is idle as a whole.
                    Err(Elapsed) if moved_ms.get() + idle_ms > io.clock().now_ms() => continue,
                    _ => break,
                }
            }
        };
        moved_ms.set(io.clock().now_ms());
        moved += chunk.len() as u64;
        watch.set_in(idle_ms);
        if !matches!(watch.bound(to.send(chunk)).await, Ok(Ok(()))) {
            break;
        }
    }
    let _ = watch.bound(to.finish()).await;
    moved
}
