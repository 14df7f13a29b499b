//! One request and the one chance to answer it, as the pipeline sees them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use contract::record::Reason;
use contract::snapshot::ListenerLimits;

use crate::answer::{Body, Edit};
use crate::auth::credentials::Hidden;
use crate::auth::{ContentDigest, Identity};
use crate::body::{BodyReader, BodyWriter};
use crate::channel::{Sink, Source};
use crate::coding::Coding;
use crate::forwarded_for;
use crate::grpc;
use crate::grpc_web::{self, Base64};
use crate::http2::ErrorCode;
use crate::io::{Chunk, Watch};
use crate::limit;
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{Dialect, Framing, Name, RequestHead, Version};
use crate::mux::MuxStream;
use crate::observe::Notes;
use crate::rewrite::{Client, RequestId};
use crate::route::{HeaderLookup, path};
use crate::shard::{Shard, ShardPlan};
use crate::transport::Transport;
use crate::upload::{Feed, Inward};

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
    /// Set for a gRPC call.
    pub grpc: Option<grpc::Kind>,
    /// Set for a gRPC-Web call, translated or not.
    pub web: Option<Box<grpc_web::Call>>,
    /// The client's own deadline, in monotonic milliseconds; 0: none.
    pub deadline_ms: u64,
    /// The switch of protocols that the client asks for, where its route lists it.
    pub upgrade: Option<Box<Upgrade>>,
    /// Who calls, where the route asks and it is known.
    pub identity: Option<Rc<Identity>>,
    /// What the body has to be, as long as that is not known: it is signed.
    pub content: Option<Box<ContentDigest>>,
    /// The body, where it was read before the request goes on.
    pub feed: Option<Rc<RefCell<Feed>>>,
    /// What changes the body on its way to the upstream, beside the decoding of gRPC-Web.
    pub inward: Option<Box<Inward>>,
    /// The body goes on in another length, by what was in `inward`.
    pub reframed: bool,
    /// The client is answered so, whatever its request has become.
    pub answer_as: Option<AnswerAs>,
    /// What is changed of the head for the upstream.
    pub edit: Option<Box<Edit>>,
    /// How the answer is compressed, where its route does that and the client takes it.
    pub coding: Option<Coding>,
    /// What rules for the answer still need of the head and the path.
    pub kept: Option<Box<Kept>>,
    /// What upstreams see in place of what came with a credential.
    pub hidden: Option<Box<Hidden>>,
    /// What policies add to the answer, whoever gives it.
    pub answer_fields: Vec<(&'static str, Vec<u8>)>,
    /// What it has taken of limits.
    pub ticket: limit::Ticket,
    pub notes: Notes,
}

impl Request {
    /// A request as it came: `bytes` begin with its head, which has been read.
    pub fn new(
        shard: &Shard,
        plan: Rc<ShardPlan>,
        head: Box<RequestHead>,
        bytes: Chunk,
        client: Client,
        started_us: u64,
    ) -> Request {
        let all = bytes.bytes();
        let parts = [
            head.method(all),
            head.site.map_or(&[], |site| site.whole.of(all)),
            head.path(all),
            head.value(all, Name::UserAgent).unwrap_or_default(),
        ];
        let notes = Notes::new(started_us, head.version, shard.io.take_vec(), parts);
        let id = head
            .value(all, Name::XRequestId)
            .and_then(RequestId::from_client)
            .unwrap_or_else(|| shard.new_request_id());
        Request {
            plan,
            head,
            bytes: Some(bytes),
            normal_path: None,
            refused: None,
            client,
            id,
            grpc: None,
            web: None,
            deadline_ms: 0,
            upgrade: None,
            identity: None,
            content: None,
            feed: None,
            inward: None,
            reframed: false,
            answer_as: None,
            edit: None,
            coding: None,
            kept: None,
            hidden: None,
            answer_fields: Vec::new(),
            ticket: limit::Ticket::default(),
            notes,
        }
    }

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

    /// The address of whoever sent this: the peer's, or whom it forwards for, where it is trusted.
    pub fn client_address(&self) -> IpAddr {
        let peer = self.client.address.ip();
        if !self.client.trusted {
            return peer;
        }
        let listeners = &self.plan.plan.listeners;
        match listeners.iter().find(|listener| listener.address == self.client.listener) {
            Some(listener) => {
                forwarded_for::client_address(listener, &self.head, self.bytes(), peer)
            }
            None => peer,
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

    /// How the body goes out: with an unknown length where it changes on its way.
    pub fn framing_out(&self) -> Framing {
        match self.head.framing {
            Framing::Length(_) if self.decodes() => Framing::Chunked,
            framing => framing,
        }
    }

    /// Whether there is a body that changes on its way.
    pub fn decodes(&self) -> bool {
        let web = || self.web.as_ref().is_some_and(|web| web.decodes());
        !self.head.framing.is_empty() && (self.inward.is_some() || self.reframed || web())
    }

    /// What becomes of the body on its way, once.
    pub fn take_inward(&mut self) -> Option<Box<Inward>> {
        match self.decodes() {
            true => {
                let web = self.web.as_ref().is_some_and(|web| web.decodes());
                let base64 = || Box::new(Inward::Base64(Base64::default()));
                self.inward.take().or_else(|| web.then(base64))
            }
            false => None,
        }
    }

    /// The method at the upstream.
    pub fn method_out(&self) -> &[u8] {
        let edited = self.edit.as_ref().and_then(|edit| edit.method.as_deref());
        edited.unwrap_or_else(|| self.head.method(self.bytes()))
    }

    /// The edit of the head for the upstream, to be added to.
    pub fn edit(&mut self) -> &mut Edit {
        self.edit.get_or_insert_default()
    }

    /// Keeps the head and the path that was matched for templates that are rendered once the body is
    /// under way, or the path replaced.
    pub fn keep(&mut self) {
        if self.kept.is_none() {
            let head = self.bytes().get(..self.head.head_len).unwrap_or_default().to_vec();
            self.kept = Some(Box::new(Kept { head, path: self.path().to_vec() }));
        }
    }

    /// The head's bytes, as long as they are here or were kept.
    pub fn head_bytes(&self) -> &[u8] {
        match (&self.bytes, &self.kept) {
            (None, Some(kept)) => &kept.head,
            _ => self.bytes(),
        }
    }

    /// The path that the route matched, if it is still here or was kept.
    pub fn matched_path(&self) -> &[u8] {
        self.kept.as_ref().map_or_else(|| self.path(), |kept| &kept.path)
    }

    /// The path for the upstream.
    pub fn replace_path(&mut self, path: Vec<u8>) {
        self.normal_path = Some(path);
    }

    /// The body for the upstream, in place of the client's, which was gathered (`upload::gather_request`)
    /// or is none.
    pub fn replace_body(&mut self, body: Vec<u8>) {
        self.head.framing = Framing::Length(body.len() as u64);
        self.feed = Some(Feed::of(body));
    }

    /// The kind of gRPC that an answer of ours has to be, if any.
    pub fn answer_kind(&self) -> Option<grpc::Kind> {
        match self.answer_as {
            Some(AnswerAs::Json) => None,
            Some(AnswerAs::Grpc(kind)) => Some(kind),
            None => self.web.as_ref().map(|web| web.answer).or(self.grpc),
        }
    }

    /// Whether it is a call that the gateway has made of something else.
    pub fn is_made(&self) -> bool {
        self.answer_as == Some(AnswerAs::Json) && self.grpc.is_some()
    }

    /// The body as it came, if all of it came with the head (or was gathered) and it is small. It stays
    /// where it is.
    pub fn whole_body(&self, responder: &Responder) -> Option<Cow<'_, [u8]>> {
        if let Some(feed) = &self.feed {
            let feed = feed.borrow();
            let small = feed.gathered().filter(|body| body.len() <= limits::REPLAY_BODY);
            return small.map(|body| Cow::Owned(body.to_vec()));
        }
        match (&responder.down, self.head.framing) {
            (_, Framing::None) => Some(Cow::Borrowed(&[])),
            (Downstream::Http1(_), Framing::Length(length))
                if length <= limits::REPLAY_BODY as u64 =>
            {
                let start = self.head.head_len;
                self.bytes().get(start..start + length as usize).map(Cow::Borrowed)
            }
            (Downstream::Http1(_) | Downstream::Nobody, _) => None,
            (Downstream::Http2(stream), _) => {
                stream.peek_whole(limits::REPLAY_BODY).map(Cow::Owned)
            }
        }
    }

    /// The request's body from the client.
    pub fn source(&mut self, responder: &Responder) -> Source {
        match &responder.down {
            Downstream::Http1(stream) => {
                Source::http1(stream.clone(), self.body(), self.take_rest())
            }
            Downstream::Http2(stream) => Source::http2(stream.clone()),
            Downstream::Nobody => Source::own(Body::default()),
        }
    }
}

/// What [`Request::keep`] keeps.
pub struct Kept {
    head: Vec<u8>,
    path: Vec<u8>,
}

/// What a client speaks whose request is transcoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerAs {
    Json,
    Grpc(grpc::Kind),
}

/// The client's side of an exchange: a whole connection, or one of its streams.
pub enum Downstream {
    Http1(Rc<Transport>),
    Http2(Rc<MuxStream>),
    /// No client: the gateway asks for itself.
    Nobody,
}

impl Downstream {
    pub fn dialect(&self) -> Dialect {
        match self {
            Downstream::Http1(_) | Downstream::Nobody => Dialect::Http1,
            Downstream::Http2(_) => Dialect::Http2,
        }
    }

    /// Where an answer goes whose body is framed by `writer` in HTTP/1.
    pub fn sink(&self, writer: BodyWriter) -> Sink {
        match self {
            Downstream::Http1(stream) => Sink::Http1 { stream: stream.clone(), writer },
            Downstream::Http2(stream) => Sink::Http2 { stream: stream.clone() },
            Downstream::Nobody => Sink::Nobody,
        }
    }

    /// Ready once the client is gone, as far as can be known without reading.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Downstream::Http1(stream) => stream.poll_failed(cx),
            Downstream::Http2(stream) => stream.poll_fault(cx).map(|_| ()),
            Downstream::Nobody => Poll::Pending,
        }
    }

    /// Puts bytes behind a request back, for the next one.
    pub fn unread(&self, rest: Chunk) {
        if let Downstream::Http1(stream) = self {
            stream.unrecv(rest);
        }
    }

    /// A stream whose answer is complete takes no more of its request (RFC 9113 §8.1).
    pub fn refuse_rest(&self, next: Next) {
        if let Downstream::Http2(stream) = self
            && !(next == Next::Keep && stream.is_done())
        {
            stream.reset(if next == Next::Abort { ErrorCode::CANCEL } else { ErrorCode::NO_ERROR });
        }
    }
}

/// A switch of protocols (RFC 9110 §7.8, RFC 8441).
pub struct Upgrade {
    pub token: Vec<u8>,
    /// The key of a WebSocket handshake in HTTP/1.
    pub websocket_key: Option<Vec<u8>>,
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
    pub down: Downstream,
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
