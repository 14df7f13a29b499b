//! `GET` of a path, over the target's own pool and in the protocol that requests go in.

use std::future::poll_fn;
use std::rc::Rc;

use contract::snapshot::HostHeader;

use super::{Found, reach};
use crate::body::BodyReader;
use crate::channel::Source;
use crate::http2::{Encoder, ErrorCode, RequestKind};
use crate::io::{Chunk, Elapsed, Io, SendBuf, Watch};
use crate::limits;
use crate::message::{HeadLimits, Progress, ResponseHead, write};
use crate::mux::{Mux, MuxStream, StreamFault};
use crate::plan::{Target, Upstream};
use crate::upstream::pool::{Connection, Lease, Pool};

/// What a check asks, and which answers are good.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// With its query, if any.
    pub path: &'a str,
    /// `None`: what the upstream's requests carry, as far as that is known, else the target's name.
    pub host: Option<&'a str>,
    /// Both ends included.
    pub statuses: &'a [(u16, u16)],
    /// Must be in the first [`limits::HEALTH_ANSWER`] bytes of the body.
    pub body: Option<&'a str>,
}

/// Why there is no answer.
enum NoAnswer {
    /// A connection that was used before ended before any byte of it: nothing about the target.
    Stale,
    /// The target did not look at the request, for it closes the connection or allows no more
    /// streams just now.
    Unprocessed,
    Broken,
}

/// What is known of an answer, also when its end does not come in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Anything at all.
    begun: bool,
    verdict: Option<bool>,
}

pub async fn check(
    io: &Io,
    watch: &Watch,
    pool: &Rc<Pool>,
    upstream: &Upstream,
    target: &Target,
    wanted: Wanted<'_>,
) -> Found {
    let asked = Asked { upstream, target, wanted };
    for fresh in [false, true] {
        let lease = match reach::lease(io, watch, pool, fresh).await {
            Ok(lease) => lease,
            Err(found) => return found,
        };
        let mut seen = Seen::default();
        let reused = lease.reused();
        let mux = match &lease {
            Lease::Http1(_) => None,
            Lease::Http2(share) => Some(share.mux.clone()),
        };
        let exchange = async {
            match lease {
                Lease::Http1(connection) => asked.over_http1(io, connection, &mut seen).await,
                Lease::Http2(share) => asked.over_http2(&share.mux, &mut seen).await,
            }
        };
        let ended = watch.bound(exchange).await;
        if let (Err(Elapsed), Some(mux)) = (&ended, mux) {
            mux.suspect();
        }
        match (seen.verdict, ended) {
            (Some(true), _) => return Found::Healthy,
            (Some(false), _) => return Found::Unhealthy,
            (None, Ok(Err(NoAnswer::Stale))) if reused && !seen.begun => {}
            (None, Ok(Err(NoAnswer::Unprocessed))) => return Found::Nothing,
            (None, _) => return Found::Unhealthy,
        }
    }
    Found::Unhealthy
}

/// One check's request.
struct Asked<'a> {
    upstream: &'a Upstream,
    target: &'a Target,
    wanted: Wanted<'a>,
}

const AGENT: &[u8] = b"sluice-health";

impl Asked<'_> {
    fn host(&self) -> &[u8] {
        match (self.wanted.host, &self.upstream.host_header) {
            (Some(host), _) => host.as_bytes(),
            (None, HostHeader::Literal(host)) => host.as_bytes(),
            (None, HostHeader::Preserve | HostHeader::Target) => self.target.name.as_bytes(),
        }
    }

    fn http1_head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(256);
        write::request_line(&mut head, b"GET", self.wanted.path.as_bytes(), None);
        write::field(&mut head, b"Host", self.host());
        write::field(&mut head, b"User-Agent", AGENT);
        head.extend_from_slice(write::CRLF);
        head
    }

    fn http2_head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(256);
        let scheme: &[u8] = if self.upstream.tls.is_some() { b"https" } else { b"http" };
        let path = if self.wanted.path.is_empty() { "/" } else { self.wanted.path };
        let fields: [(&[u8], &[u8]); 5] = [
            (b":method", b"GET"),
            (b":scheme", scheme),
            (b":authority", self.host()),
            (b":path", path.as_bytes()),
            (b"user-agent", AGENT),
        ];
        fields.iter().for_each(|(name, value)| Encoder::field(&mut head, name, value));
        head
    }

    async fn over_http1(
        &self,
        io: &Io,
        connection: Connection,
        seen: &mut Seen,
    ) -> Result<(), NoAnswer> {
        let stream = connection.stream.clone();
        let sent = stream.send(SendBuf::Vec(self.http1_head())).await;
        sent.map_err(|_| NoAnswer::Stale)?;
        let mut head = ResponseHead::new();
        let mut rest = Chunk::from_vec(Vec::new());
        let mut interim = 0;
        loop {
            match head.parse(rest.bytes(), false, &HeadLimits::RESPONSE) {
                Err(_) => return Err(NoAnswer::Broken),
                Ok(Progress::Complete) if head.is_interim() => {
                    interim += 1;
                    if interim > limits::INTERIM_ANSWERS {
                        return Err(NoAnswer::Broken);
                    }
                    rest.advance(head.head_len);
                    continue;
                }
                Ok(Progress::Complete) => break,
                Ok(Progress::Partial) => {}
            }
            match stream.recv().await {
                Ok(Some(chunk)) if rest.is_empty() => rest = chunk,
                Ok(Some(chunk)) => rest = Chunk::from_vec([rest.bytes(), chunk.bytes()].concat()),
                Ok(None) | Err(_) => return Err(NoAnswer::Stale),
            }
            seen.begun = true;
        }
        // 101: nobody asked for it (RFC 9110 §15.2.2).
        if head.switching {
            return Err(NoAnswer::Broken);
        }
        rest.advance(head.head_len);
        let rest = Some(rest).filter(|rest| !rest.is_empty());
        let reader = BodyReader::of_response(head.framing);
        let bodiless = reader.is_done();
        let mut source = Source::http1(stream, reader, rest);
        let whole = self.judge(head.status, &mut source, bodiless, seen).await;
        if whole && head.keep_alive && source.is_clean() {
            drop(source);
            connection.give_back(io.clock().now_ms());
        }
        Ok(())
    }

    async fn over_http2(&self, mux: &Rc<Mux>, seen: &mut Seen) -> Result<(), NoAnswer> {
        let opened = mux.open(&self.http2_head(), true, RequestKind::Plain);
        let stream = Rc::new(opened.map_err(unanswered)?);
        let (status, bodiless) = final_status(&stream, seen).await.map_err(unanswered)?;
        let mut source = Source::http2(stream);
        self.judge(status, &mut source, bodiless, seen).await;
        Ok(())
    }

    /// Reads the body as far as that is of use, and says so as soon as it is clear how the answer
    /// is. Returns whether the body is over.
    async fn judge(
        &self,
        status: u16,
        source: &mut Source,
        bodiless: bool,
        seen: &mut Seen,
    ) -> bool {
        let text = self.wanted.body.filter(|text| !text.is_empty()).map(str::as_bytes);
        let listed = self.wanted.statuses.iter().any(|(from, to)| (*from..=*to).contains(&status));
        if !listed || text.is_none() {
            seen.verdict = Some(listed);
        }
        let mut body = Vec::new();
        let mut over = bodiless;
        // Also when all is clear: the connection can be kept once its answer is read.
        while !over && body.len() < limits::HEALTH_ANSWER {
            let Ok(piece) = poll_fn(|cx| source.poll_piece(cx)).await else { break };
            let data = piece.data.as_ref().map_or(&[][..], Chunk::bytes);
            let room = limits::HEALTH_ANSWER - body.len();
            body.extend_from_slice(data.get(..room).unwrap_or(data));
            over = piece.end;
            if seen.verdict.is_none() && text.is_some_and(|text| holds(&body, text)) {
                seen.verdict = Some(true);
            }
        }
        seen.verdict.get_or_insert(false);
        over
    }
}

fn holds(body: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(body, text).is_some()
}

fn unanswered(fault: StreamFault) -> NoAnswer {
    match fault {
        StreamFault::Reset { code: ErrorCode::REFUSED_STREAM, by_peer: true } => {
            NoAnswer::Unprocessed
        }
        StreamFault::Lost => NoAnswer::Stale,
        StreamFault::Reset { .. } => NoAnswer::Broken,
    }
}

/// The status behind any interim ones, and whether nothing follows.
async fn final_status(stream: &MuxStream, seen: &mut Seen) -> Result<(u16, bool), StreamFault> {
    let mut interim = 0;
    loop {
        let (block, end) = poll_fn(|cx| stream.poll_head(cx)).await?;
        seen.begun = true;
        let mut head = ResponseHead::new();
        let read = head.read_http2(&block.bytes, &block.fields, false, end);
        let good = !block.too_large && read.is_ok();
        stream.mux().recycle(block);
        interim += 1;
        if good && head.is_interim() && interim <= limits::INTERIM_ANSWERS {
            continue;
        }
        // What breaks the rules is no status, so it is in no range.
        let status = if good && !head.is_interim() { head.status } else { 0 };
        return Ok((status, end));
    }
}

#[cfg(test)]
mod tests;
