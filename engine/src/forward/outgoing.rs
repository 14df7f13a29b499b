//! The serialised request: the head, and the body when all of it is there and small.

use std::cell::RefCell;
use std::rc::Rc;

use contract::snapshot::{HostHeader, Protocol};

use crate::exchange::{Downstream, Request, Responder};
use crate::io::Chunk;
use crate::limits;
use crate::message::{Dialect, Framing};
use crate::pipeline;
use crate::plan::{Target, Upstream};
use crate::shard::Shard;
use crate::upload::Feed;

pub struct Outgoing {
    /// In HTTP/1 with the whole body behind it.
    pub head: Rc<Vec<u8>>,
    /// The whole body apart: of a client's stream, or for an upstream's.
    body: Option<Rc<Vec<u8>>>,
    /// All of the body is here, or there is none.
    whole: bool,
    /// It came with the head of a connection's request, and is behind it there.
    behind: bool,
    /// Its bytes, if it is here.
    length: usize,
    /// Some of the request may be with an upstream.
    sent: bool,
    /// The body that is not: made when its first byte is about to move.
    feed: Option<Rc<RefCell<Feed>>>,
    /// Largest body that is sent again.
    replay_bytes: usize,
    /// Each try needs a head of its own: the target's name is in it, or what is left of the
    /// deadline, or the dialect is not known before there is a connection.
    anew: bool,
    /// Our own credential at the upstream.
    authorization: Option<Rc<[u8]>>,
    /// The client's head, where the body has taken what it came in and it is still needed.
    saved: Option<Chunk>,
}

impl Outgoing {
    pub fn new(
        shard: &Shard,
        request: &mut Request,
        responder: &Responder,
        upstream: &Upstream,
        authorization: Option<Rc<[u8]>>,
        replay_bytes: u32,
    ) -> Outgoing {
        let bytes = request.bytes();
        let behind = bytes.len().saturating_sub(request.head.head_len);
        let mut body = Vec::new();
        let feed = request.feed.as_ref().map(|feed| feed.borrow());
        let gathered = match feed.as_ref().and_then(|feed| feed.gathered()) {
            Some(gathered) if gathered.len() <= limits::REPLAY_BODY => {
                body.extend_from_slice(gathered);
                true
            }
            _ => false,
        };
        let whole = match (&responder.down, request.head.framing) {
            (_, Framing::None) => true,
            // Translated or compared on its way, so not to be had whole here.
            _ if request.decodes() || request.content.is_some() => false,
            _ if request.feed.is_some() => gathered,
            (Downstream::Http1(_), Framing::Length(length)) => {
                length <= behind.min(limits::REPLAY_BODY) as u64
            }
            (Downstream::Http1(_), Framing::Chunked) | (Downstream::Nobody, _) => false,
            // Its bytes come beside the head, in frames of their own.
            (Downstream::Http2(stream), _) => match stream.take_whole(limits::REPLAY_BODY) {
                Some(whole) => {
                    body = whole;
                    true
                }
                None => false,
            },
        };
        drop(feed);
        let behind = whole && body.is_empty() && request.feed.is_none();
        let length = match request.head.framing {
            Framing::Length(length) if behind => length as usize,
            _ => body.len(),
        };
        request.notes.request_bytes = body.len() as u64;
        let per_target = upstream.host_header == HostHeader::Target && upstream.targets.len() > 1;
        let anew = per_target
            || request.deadline_ms != 0
            || request.is_made()
            || upstream.protocol == Protocol::Auto;
        Outgoing {
            head: Rc::new(shard.io.take_vec()),
            body: (!body.is_empty()).then(|| Rc::new(body)),
            whole,
            behind,
            length,
            sent: false,
            feed: None,
            replay_bytes: replay_bytes as usize,
            anew,
            authorization,
            saved: None,
        }
    }

    /// Writes the head (and in HTTP/1 a whole small body) for this try.
    pub fn write(
        &mut self,
        request: &mut Request,
        responder: &Responder,
        dialect: Dialect,
        upstream: &Upstream,
        target: &Target,
        timeout_ms: Option<u64>,
    ) {
        self.sent = true;
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
            (Dialect::Http1, Framing::Chunked) if self.whole => Framing::Length(self.length as u64),
            (_, framing) => framing,
        };
        let consumed = self.saved.is_some();
        if consumed {
            request.bytes = self.saved.take();
        }
        let mut outbound = pipeline::outbound(request, framing, timeout_ms);
        outbound.authorization = self.authorization.as_deref();
        outbound.write(out, dialect, upstream, target);
        if consumed {
            self.saved = request.bytes.take();
        }
        if !self.whole {
            return;
        }
        let length = match (&responder.down, request.head.framing) {
            (Downstream::Http1(_), Framing::Length(length)) if self.behind => length as usize,
            _ => 0,
        };
        let start = request.head.head_len;
        let behind = request.bytes().get(start..start + length).unwrap_or_default();
        match dialect {
            Dialect::Http1 if length > 0 => out.extend_from_slice(behind),
            Dialect::Http2 if length > 0 => self.body = Some(Rc::new(behind.to_vec())),
            Dialect::Http1 => {
                out.extend_from_slice(self.body.as_deref().map_or(&[][..], Vec::as_slice));
            }
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

    /// The body that is not whole, to be moved beside the wait for the answer. `goes_on`: another
    /// try may follow.
    pub fn feed(
        &mut self,
        request: &mut Request,
        responder: &Responder,
        goes_on: bool,
    ) -> Rc<RefCell<Feed>> {
        let feed = match &self.feed {
            Some(feed) => feed.clone(),
            None => {
                if goes_on && self.anew {
                    let head = request.bytes().get(..request.head.head_len).unwrap_or_default();
                    self.saved = Some(Chunk::copy_of(head));
                }
                match request.feed.clone() {
                    Some(gathered) => gathered,
                    None => {
                        let inward = request.take_inward();
                        let content = request.content.take();
                        Feed::new(request.source(responder), inward, content)
                    }
                }
            }
        };
        match goes_on {
            true => feed.borrow_mut().keep(self.replay_bytes),
            false => feed.borrow_mut().keep_no_more(),
        }
        self.feed.insert(feed).clone()
    }

    /// Puts what came behind a whole request back: it is the next one's.
    pub fn unread_rest(&self, request: &mut Request, responder: &Responder) {
        if !self.whole {
            return;
        }
        if let Some(mut rest) = request.take_rest() {
            if let Framing::Length(length) = request.head.framing
                && self.behind
            {
                rest.advance(length as usize);
            }
            responder.down.unread(rest);
        }
    }

    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The whole body, if there is one, for an upstream's stream.
    pub fn body(&self) -> Option<Rc<Vec<u8>>> {
        self.body.clone()
    }

    /// Whether all that was sent can be sent again.
    pub fn at_hand(&self) -> bool {
        match &self.feed {
            _ if self.whole => !self.sent || self.length <= self.replay_bytes,
            None => true,
            Some(feed) => feed.borrow().is_replayable() && (self.saved.is_some() || !self.anew),
        }
    }

    pub fn finish(self, shard: &Shard) {
        if let Ok(head) = Rc::try_unwrap(self.head) {
            shard.io.give_vec(head);
        }
    }
}
