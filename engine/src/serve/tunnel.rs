//! After a 101: bytes both ways, until both sides have ended or nothing moves any more.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use contract::record::Reason;

use crate::exchange::{Ended, Next, Request, Responder};
use crate::forward::Answer;
use crate::io::{Chunk, Elapsed, Io, SendBuf, Stream};
use crate::message::{Name, write};
use crate::shard::Shard;

/// Relays the 101 and then the bytes (RFC 9110 §7.8). Nothing was passed on before it.
pub async fn tunnel(
    shard: &Shard,
    request: &mut Request,
    responder: Responder,
    answer: Answer,
) -> Ended {
    let Answer { lease, flight, head, mut bytes, timeouts, .. } = answer;
    let mut out = shard.io.take_vec();
    write::status_line(&mut out, 101);
    for field in &head.fields {
        if field.forwarded() {
            write::field(&mut out, field.name.of(bytes.bytes()), field.value.of(bytes.bytes()));
        }
    }
    if let Some(token) = head.value(bytes.bytes(), Name::Upgrade) {
        write::field(&mut out, b"Upgrade", token);
    }
    write::field(&mut out, b"X-Request-Id", request.id.bytes());
    out.extend_from_slice(b"Connection: upgrade\r\n\r\n");
    bytes.advance(head.head_len);
    out.extend_from_slice(bytes.bytes());
    drop(bytes);
    shard.give_response_head(head);
    let ended = |response_bytes| Ended {
        status: 101,
        reason: Reason::None,
        response_bytes,
        relayed_bytes: response_bytes,
        next: Next::Abort,
    };
    if responder.stream.send(SendBuf::Vec(out)).await.is_err() {
        return ended(0);
    }
    responder.watch.clear();
    let idle_ms = u64::from(timeouts.idle_ms);
    let rest = request.take_rest();
    let (client, upstream) = (&responder.stream, &lease.stream);
    let moved_ms = Cell::new(shard.io.clock().now_ms());
    let mut up = pin!(pump(&shard.io, client, upstream, rest, idle_ms, &moved_ms));
    let mut down = pin!(pump(&shard.io, upstream, client, None, idle_ms, &moved_ms));
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
    drop(flight);
    ended(received)
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
    from: &Stream,
    to: &Stream,
    mut first: Option<Chunk>,
    idle_ms: u64,
    moved_ms: &Cell<u64>,
) -> u64 {
    let watch = io.watch();
    let mut moved = 0;
    from.set_bulk(true);
    loop {
        let chunk = match first.take() {
            Some(chunk) => chunk,
            None => {
                watch.set_at(moved_ms.get() + idle_ms);
                match watch.bound(from.recv()).await {
                    Ok(Ok(Some(chunk))) => chunk,
                    // The other direction may have moved meanwhile: a tunnel is idle as a whole.
                    Err(Elapsed) if moved_ms.get() + idle_ms > io.clock().now_ms() => continue,
                    _ => break,
                }
            }
        };
        moved_ms.set(io.clock().now_ms());
        moved += chunk.len() as u64;
        watch.set_in(idle_ms);
        if !matches!(watch.bound(to.send(SendBuf::Chunk(chunk))).await, Ok(Ok(()))) {
            break;
        }
    }
    let _ = watch.bound(to.flush()).await;
    to.shutdown_write();
    moved
}
