//! The serialised request: the head, and the body when all of it is there and small.

use std::rc::Rc;

use contract::snapshot::{HostHeader, Protocol};

use crate::exchange::{Downstream, Request, Responder};
use crate::io::Chunk;
use crate::limits;
use crate::message::{Dialect, Framing};
use crate::pipeline;
use crate::plan::{Route, Target, Upstream};
use crate::route::rewrite_path;
use crate::shard::Shard;

pub struct Outgoing {
    /// In HTTP/1 with the whole body behind it.
    pub head: Rc<Vec<u8>>,
    /// The whole body apart: of a client's stream, or for an upstream's.
    pub body: Vec<u8>,
    /// All of the body is here, or there is none.
    whole: bool,
    idempotent: bool,
    /// Each attempt needs a head of its own: the target's name is in it, or what is left of the
    /// deadline, or the dialect is not known before there is a connection.
    anew: bool,
}

impl Outgoing {
    pub fn new(
        shard: &Shard,
        request: &mut Request,
        responder: &Responder,
        route: &Route,
        upstream: &Upstream,
    ) -> Outgoing {
        let mut rewritten = Vec::new();
        rewrite_path(&route.rewrite, request.path(), &mut rewritten);
        if !rewritten.is_empty() {
            request.normal_path = Some(rewritten);
        }
        let bytes = request.bytes();
        let behind = bytes.len().saturating_sub(request.head.head_len);
        let mut body = Vec::new();
        let whole = match (&responder.down, request.head.framing) {
            (_, Framing::None) => true,
            // Translated on its way, so not to be had whole here.
            _ if request.decodes() => false,
            (Downstream::Http1(_), Framing::Length(length)) => {
                length <= behind.min(limits::REPLAY_BODY) as u64
            }
            (Downstream::Http1(_), Framing::Chunked) => false,
            // Its bytes come beside the head, in frames of their own.
            (Downstream::Http2(stream), _) => match stream.take_whole(limits::REPLAY_BODY) {
                Some(whole) => {
                    body = whole;
                    true
                }
                None => false,
            },
        };
        let idempotent = is_idempotent(request.head.method(bytes));
        request.notes.request_bytes = body.len() as u64;
        let per_target = upstream.host_header == HostHeader::Target && upstream.targets.len() > 1;
        let anew = per_target || request.deadline_ms != 0 || upstream.protocol == Protocol::Auto;
        Outgoing { head: Rc::new(shard.io.take_vec()), body, whole, idempotent, anew }
    }

    /// Writes the head (and in HTTP/1 a whole small body) for this attempt.
    pub fn write(
        &mut self,
        request: &mut Request,
        responder: &Responder,
        dialect: Dialect,
        upstream: &Upstream,
        target: &Target,
        timeout_ms: Option<u64>,
    ) {
        if !self.head.is_empty() && !self.anew {
            return;
        }
        if Rc::get_mut(&mut self.head).is_none() {
            self.head = Rc::default();
        }
        let Some(out) = Rc::get_mut(&mut self.head) else { return };
        out.clear();
        let framing = match (dialect, request.framing_out()) {
            // Known by now: a length saves the upstream the chunked coding.
            (Dialect::Http1, Framing::Chunked) if self.whole => {
                Framing::Length(self.body.len() as u64)
            }
            (_, framing) => framing,
        };
        pipeline::outbound(request, framing, timeout_ms).write(out, dialect, upstream, target);
        if !self.whole {
            return;
        }
        let length = match (&responder.down, request.head.framing) {
            (Downstream::Http1(_), Framing::Length(length)) => length as usize,
            _ => 0,
        };
        let start = request.head.head_len;
        let behind = request.bytes().get(start..start + length).unwrap_or_default();
        match dialect {
            Dialect::Http1 => {
                out.extend_from_slice(behind);
                out.extend_from_slice(&self.body);
            }
            Dialect::Http2 if length > 0 => self.body = behind.to_vec(),
            Dialect::Http2 => {}
        }
        if length > 0 {
            request.notes.request_bytes = length as u64;
        }
        if !self.anew {
            // The head is written for good: its receive buffer goes back before the wait.
            self.unread_rest(request, responder);
        } else if let Some(chunk) = request.bytes.as_mut().filter(|chunk| chunk.is_ring()) {
            *chunk = Chunk::copy_of(chunk.bytes());
        }
    }

    /// Puts what came behind a whole request back: it is the next one's.
    pub fn unread_rest(&self, request: &mut Request, responder: &Responder) {
        if !self.whole {
            return;
        }
        if let Some(mut rest) = request.take_rest() {
            if let Framing::Length(length) = request.head.framing {
                rest.advance(length as usize);
            }
            responder.down.unread(rest);
        }
    }

    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether the same bytes may be sent again without harm (RFC 9110 §9.2.2).
    pub fn replayable(&self) -> bool {
        self.whole && self.idempotent
    }

    pub fn finish(self, shard: &Shard) {
        if let Ok(head) = Rc::try_unwrap(self.head) {
            shard.io.give_vec(head);
        }
    }
}

fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE" | b"TRACE")
}
