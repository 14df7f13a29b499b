//! `grpc.health.v1.Health/Check` (gRPC's `doc/health-checking.md`), over the target's own pool.

use std::future::poll_fn;
use std::rc::Rc;

use contract::snapshot::HostHeader;

use super::{Found, reach};
use crate::grpc;
use crate::http2::{Encoder, ErrorCode, HeaderBlock, RequestKind};
use crate::io::{Elapsed, Io, Watch};
use crate::limits;
use crate::mux::{Mux, MuxStream, StreamFault};
use crate::plan::{Target, Upstream};
use crate::upstream::pool::{Lease, Pool};

const PATH: &[u8] = b"/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;

pub async fn check(
    io: &Io,
    watch: &Watch,
    pool: &Rc<Pool>,
    upstream: &Upstream,
    target: &Target,
    service: &str,
) -> Found {
    let mux = match reach::lease(io, watch, pool, false).await {
        Ok(Lease::Http2(share)) => share.mux,
        // gRPC is not to be had over HTTP/1.
        Ok(Lease::Http1(_)) => return Found::Unhealthy,
        Err(found) => return found,
    };
    let left_ms = watch.deadline_ms().saturating_sub(io.clock().now_ms());
    let head = request_head(upstream, target, left_ms);
    match watch.bound(call(&mux, &head, &request(service))).await {
        Ok(Ok(true)) => Found::Healthy,
        // Not looked at: a server that closes its connection, or allows no more streams just now.
        Ok(Err(StreamFault::Reset { code: ErrorCode::REFUSED_STREAM, .. })) => Found::Nothing,
        Ok(_) => Found::Unhealthy,
        Err(Elapsed) => {
            mux.suspect();
            Found::Unhealthy
        }
    }
}

fn request_head(upstream: &Upstream, target: &Target, left_ms: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    let authority = match &upstream.host_header {
        HostHeader::Literal(host) => host.as_bytes(),
        HostHeader::Preserve | HostHeader::Target => target.name.as_bytes(),
    };
    let scheme: &[u8] = if upstream.tls.is_some() { b"https" } else { b"http" };
    let mut timeout = Vec::new();
    grpc::write_timeout(&mut timeout, left_ms.max(1));
    let fields: [(&[u8], &[u8]); 8] = [
        (b":method", b"POST"),
        (b":scheme", scheme),
        (b":authority", authority),
        (b":path", PATH),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"grpc-timeout", &timeout),
        (b"user-agent", b"sluice-health"),
    ];
    fields.iter().for_each(|(name, value)| Encoder::field(&mut head, name, value));
    head
}

/// `HealthCheckRequest { string service = 1; }` as a gRPC message.
fn request(service: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(service.len() + 8);
    if !service.is_empty() {
        body.push(0x0a);
        let mut len = service.len();
        while len >= 0x80 {
            body.push(len as u8 | 0x80);
            len >>= 7;
        }
        body.push(len as u8);
        body.extend_from_slice(service.as_bytes());
    }
    let mut message = vec![0];
    // A service's name is bounded by the spec that names it.
    message.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(&body);
    message
}

/// Whether the target says that it serves.
async fn call(mux: &Rc<Mux>, head: &[u8], body: &[u8]) -> Result<bool, StreamFault> {
    let stream = mux.open(head, false, RequestKind::Plain)?;
    match stream.send(body, true).await {
        // It may have answered all the same.
        Ok(()) | Err(StreamFault::Reset { code: ErrorCode::NO_ERROR, .. }) => {}
        Err(fault) => return Err(fault),
    }
    let (block, bare) = final_head(&stream).await?;
    let status = field(&block, b":status") == Some(b"200");
    let mut told = field(&block, b"grpc-status").map(<[u8]>::to_vec);
    mux.recycle(block);
    if !status {
        return Ok(false);
    }
    let mut message = Vec::new();
    if !bare {
        while let Some(data) = poll_fn(|cx| stream.poll_data(cx)).await? {
            message.extend_from_slice(data.bytes());
            if message.len() > limits::HEALTH_ANSWER {
                return Ok(false);
            }
        }
        let mut lines = Vec::new();
        stream.trailers(&mut lines);
        told = status_line(&lines).map(<[u8]>::to_vec).or(told);
    }
    Ok(told.as_deref() == Some(b"0") && serves(&message))
}

async fn final_head(stream: &MuxStream) -> Result<(HeaderBlock, bool), StreamFault> {
    let mut interim = 0;
    loop {
        let (block, end) = poll_fn(|cx| stream.poll_head(cx)).await?;
        let is_interim = field(&block, b":status").is_some_and(|status| status.starts_with(b"1"));
        interim += 1;
        if !is_interim || interim > limits::INTERIM_ANSWERS {
            return Ok((block, end));
        }
        stream.mux().recycle(block);
    }
}

fn field<'a>(block: &'a HeaderBlock, name: &[u8]) -> Option<&'a [u8]> {
    block.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

fn status_line(lines: &[u8]) -> Option<&[u8]> {
    let mut lines = lines.split(|&byte| byte == b'\n');
    lines.find_map(|line| line.strip_prefix(b"grpc-status:")).map(<[u8]>::trim_ascii)
}

/// Whether a gRPC message is a `HealthCheckResponse { ServingStatus status = 1; }` of a target that
/// serves.
fn serves(message: &[u8]) -> bool {
    let Some((prefix, body)) = message.split_first_chunk::<5>() else { return false };
    let [flag, a, b, c, d] = *prefix;
    let whole = u32::from_be_bytes([a, b, c, d]) as usize == body.len();
    flag == 0 && whole && serving_status(body) == Some(SERVING)
}

/// Field 1 of a message, by protobuf's rules: unknown fields are skipped, the last one counts;
/// `None`: no message.
fn serving_status(mut body: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !body.is_empty() {
        let tag = varint(&mut body)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = varint(&mut body)?,
            (1, _) => return None,
            (_, 0) => drop(varint(&mut body)?),
            (_, 1) => body = body.get(8..)?,
            (_, 2) => {
                let len = usize::try_from(varint(&mut body)?).ok()?;
                body = body.get(len..)?;
            }
            (_, 5) => body = body.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(body: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = body.split_first()?;
        *body = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_request_is_a_message_with_the_service() {
        assert_eq!(request(""), b"\0\0\0\0\0");
        assert_eq!(request("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = request(&"x".repeat(300));
        assert_eq!(long.get(..8), Some(&b"\0\0\0\x01\x2f\x0a\xac\x02"[..]));
    }

    #[test]
    fn only_serving_serves() {
        assert!(serves(b"\0\0\0\0\x02\x08\x01"));
        // Unknown fields of every kind before it.
        assert!(serves(b"\0\0\0\0\x16\x10\x05\x19abcdefgh\x22\x02hi\x2dabcd\x08\x01"));
        for not in [
            &b""[..],
            b"\0\0\0\0\0",
            b"\0\0\0\0\x02\x08\0",
            b"\0\0\0\0\x02\x08\x02",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x03\x08\x01",
            b"\0\0\0\0\x04\x08\x01\x08\x02",
            b"\0\0\0\0\x02\x0a\x00",
            b"\0\0\0\0\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert!(!serves(not), "{not:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = serving_status(&body);
            let _ = serves(&body);
        }
    }
}
