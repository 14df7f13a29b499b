//! One request and the one chance to answer it, as the pipeline sees them.

use std::net::SocketAddr;
use std::rc::Rc;

use contract::record::Reason;
use contract::snapshot::ListenerLimits;

use crate::body::BodyReader;
use crate::io::{Chunk, Stream, Watch};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{Name, RequestHead, Version};
use crate::observe::Notes;
use crate::rewrite::{Client, RequestId};
use crate::route::{HeaderLookup, path};
use crate::shard::ShardPlan;

/// A request with its parsed head. The body is still on its way.
pub struct Request {
    /// The plan it began with and keeps to its end.
    pub plan: Rc<ShardPlan>,
    pub head: Box<RequestHead>,
    /// The head's bytes and what came behind them; gone once the body is under way.
    pub bytes: Option<Chunk>,
    /// The path in normal form, where that differs from what came.
    pub normal_path: Option<Vec<u8>>,
    /// The head is valid but asks for what cannot be (417): the answer to give.
    pub refused: Option<LocalReply>,
    pub client: Client,
    pub id: RequestId,
    pub notes: Notes,
}

impl Request {
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref().map_or(&[], Chunk::bytes)
    }

    /// Normalises the path, once, for matching and for all that follows.
    ///
    /// # Errors
    /// 400 for a path without a safe reading.
    pub fn normalise_path(&mut self) -> Result<(), LocalReply> {
        let mut out = Vec::new();
        let path = self.head.path(self.bytes());
        if path.is_empty() {
            self.normal_path = Some(b"/".to_vec());
            return Ok(());
        }
        let normal = path::normalise(path, &mut out)
            .map_err(|_| LocalReply::closing(400, Reason::BadRequest))?;
        if normal.as_ptr() != path.as_ptr() {
            self.normal_path = Some(out);
        }
        Ok(())
    }

    /// The path that was matched and is forwarded.
    pub fn path(&self) -> &[u8] {
        match &self.normal_path {
            Some(path) => path,
            None => self.head.path(self.bytes()),
        }
    }

    /// The body's first bytes (or the next request's), once.
    pub fn take_rest(&mut self) -> Option<Chunk> {
        let mut chunk = self.bytes.take()?;
        chunk.advance(self.head.head_len);
        Some(chunk).filter(|chunk| !chunk.is_empty())
    }

    pub fn body(&self) -> BodyReader {
        BodyReader::of_request(self.head.framing)
    }
}

/// The head's fields, as the router asks for them.
pub struct Fields<'a> {
    pub head: &'a RequestHead,
    pub bytes: &'a [u8],
}

impl HeaderLookup for Fields<'_> {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let id = Name::classify(name);
        self.head.fields.iter().any(|field| {
            field.id == id
                && !field.drop
                && (id != Name::Other || field.name.of(self.bytes).eq_ignore_ascii_case(name))
                && test(field.value.of(self.bytes))
        })
    }
}

/// The one chance to answer: not `Clone`, and consumed by the answer. (Interim answers go by
/// reference.)
pub struct Responder {
    pub stream: Rc<Stream>,
    pub watch: Rc<Watch>,
    pub limits: ListenerLimits,
    /// A HEAD request: its answer has no body.
    pub is_head: bool,
    pub version: Version,
    /// What the client and the connection's own limits allow.
    pub keep_alive: bool,
    pub peer: SocketAddr,
}

/// What the connection does after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Reads the next request.
    Keep,
    /// Ends its half, reads on for a moment so that the answer arrives, and closes.
    Linger,
    /// Closes at once: the client must see that the answer is cut, or is gone anyway.
    Abort,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// 0: nothing was sent.
    pub status: u16,
    pub reason: Reason,
    pub response_bytes: u64,
    /// Those of them that an upstream sent.
    pub relayed_bytes: u64,
    pub next: Next,
}

const _: () = assert!(limits::DRAIN_BODY <= u32::MAX as u64);
