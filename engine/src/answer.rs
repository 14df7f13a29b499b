//! An answer before it is relayed: an upstream's, or one that the gateway has put together, and what
//! is to be changed of either on its way.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use contract::record::Reason;
use contract::snapshot::Timeouts;

use crate::body::BodyReader;
use crate::cache::Fill;
use crate::channel::{Source, SourceFault};
use crate::exchange::Responder;
use crate::filter::Filter;
use crate::forward::soonest;
use crate::grpc;
use crate::io::Chunk;
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{BodyFraming, HeadLimits, Progress, ResponseHead, write};
use crate::mux::MuxStream;
use crate::pipe::Reader;
use crate::shape::Judged;
use crate::shard::Shard;
use crate::upload::{Upload, UploadEnd};
use crate::upstream::pool::Connection;
use crate::upstream::{Admitted, InFlight, Verdict};

/// The head of an answer, and everything needed to relay the rest.
pub struct Answer {
    pub carrier: Carrier,
    /// `None`: no upstream is to be judged by it any more.
    pub account: Option<Account>,
    pub head: Box<ResponseHead>,
    /// The head's bytes and what came behind them.
    pub bytes: Chunk,
    /// The rest of the request's body, still on its way (an early answer).
    pub upload: Option<Upload>,
    pub timeouts: Timeouts,
    /// Monotonic milliseconds; 0: none.
    pub deadline_ms: u64,
    /// The upstream has switched protocols: bytes in both directions follow.
    pub switched: bool,
    /// Why it is not an upstream's, for the record.
    pub reason: Reason,
    /// What the relay changes in the head.
    pub edit: Option<Box<Edit>>,
    /// What changes the body on its way, in this order. Where there are any, its length is not known
    /// before its end.
    pub filters: Vec<Filter>,
    /// Keeps the body as it comes, before any change of it.
    pub fill: Option<Box<Fill>>,
}

/// What carries an exchange with an upstream.
pub enum Carrier {
    Http1(Connection),
    Http2(Rc<MuxStream>),
    /// Nothing does: the whole body is here.
    Own(RefCell<Body>),
}

/// A whole body and its trailer lines.
#[derive(Default)]
pub struct Body {
    pub data: Option<Chunk>,
    pub trailers: Vec<u8>,
    /// The body is still being made, and comes from there.
    pub pipe: Option<Reader>,
}

impl Carrier {
    /// Where the answer's body comes from, once. `rest` is what came behind its head.
    pub fn source(&self, reader: BodyReader, rest: Option<Chunk>) -> Source {
        match self {
            Carrier::Http1(connection) => Source::http1(connection.stream.clone(), reader, rest),
            Carrier::Http2(stream) => Source::http2(stream.clone()),
            Carrier::Own(body) => Source::own(body.take()),
        }
    }

    /// The answer was relayed to its end, or not.
    pub fn release(self, cleanly: bool, now_ms: u64) {
        match self {
            Carrier::Http1(connection) if cleanly => connection.give_back(now_ms),
            // Dropped, a connection closes and an unfinished stream is reset.
            Carrier::Http1(_) | Carrier::Http2(_) | Carrier::Own(_) => {}
        }
    }
}

/// Changes of a head, applied as it is written. Names and values must be valid ones (RFC 9110 §5.1,
/// §5.5): who makes an edit has seen to that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// Of an answer.
    pub status: Option<u16>,
    /// Of a request.
    pub method: Option<Vec<u8>>,
    /// Of a request, in place of what the upstream's `host_header` says.
    pub host: Option<Vec<u8>>,
    /// Of a request, without `?`; empty: none.
    pub query: Option<Vec<u8>>,
    /// Fields that do not go on, lower case.
    pub drop: Vec<Box<[u8]>>,
    /// Fields that are put behind the others.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Which of the route's own rules hold. What `drop` names goes before them.
    pub judged: Judged,
    /// Of an answer: `Set-Cookie` fields of the route's own.
    pub cookies: Vec<Vec<u8>>,
}

impl Edit {
    /// Whether a field of that name does not go on.
    #[inline]
    pub fn drops(&self, name: &[u8]) -> bool {
        self.drop.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// One field with that value in place of all of that name.
    pub fn set(&mut self, name: &[u8], value: Vec<u8>) {
        self.remove(name);
        self.fields.push((name.to_vec(), value));
    }

    /// No field of that name, neither theirs nor one of this edit.
    pub fn remove(&mut self, name: &[u8]) {
        self.fields.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        if !self.drops(name) {
            self.drop.push(name.to_ascii_lowercase().into());
        }
    }
}

/// What an answer owes: the target's verdict, and the upstream's. Both count the request for as long
/// as this lives; dropped without a word it says nothing.
pub struct Account {
    flight: InFlight,
    admitted: Admitted,
    /// By the head.
    verdict: Verdict,
    settled: Cell<bool>,
    /// From the try's begin, and from the request's, to the head.
    try_us: u32,
    whole_us: u32,
}

impl Account {
    pub fn new(
        flight: InFlight,
        admitted: Admitted,
        verdict: Verdict,
        try_us: u32,
        whole_us: u32,
    ) -> Account {
        Account { flight, admitted, verdict, settled: Cell::new(false), try_us, whole_us }
    }

    /// The answer's head goes to the client. What is bad already is said now, and so is what lasts:
    /// a tunnel.
    pub fn begin(&self, lasts: bool, now_ms: u64) {
        if lasts || self.verdict != Verdict::Good {
            self.settle(self.verdict, now_ms);
        }
    }

    /// Says how the answer ended, if that is still open.
    pub fn settle(&self, verdict: Verdict, now_ms: u64) {
        if !self.settled.replace(true) {
            self.flight.judge(verdict, self.try_us, now_ms);
            self.admitted.finish(verdict, self.whole_us, now_ms);
        }
    }
}

impl Answer {
    /// The values of the fields of that name, as they will go on.
    pub fn values(&self, name: &[u8]) -> Vec<Vec<u8>> {
        let bytes = self.bytes.bytes();
        let edit = self.edit.as_deref();
        let is = |own: &[u8]| own.eq_ignore_ascii_case(name);
        let theirs = self.head.fields.iter().filter(|field| {
            field.forwarded()
                && is(field.name.of(bytes))
                && !edit.is_some_and(|edit| edit.drops(name))
        });
        let theirs = theirs.map(|field| field.value.of(bytes).to_vec());
        let ours = edit.map_or(&[][..], |edit| &edit.fields);
        let ours = ours.iter().filter(|(own, _)| is(own)).map(|(_, value)| value.clone());
        theirs.chain(ours).collect()
    }

    /// The first of them.
    pub fn value(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.values(name).into_iter().next()
    }

    /// An answer of the gateway's own making that goes the way of an upstream's. Its framing is the
    /// relay's: fields that speak of it are left out, and a body where the status (or `HEAD`) allows
    /// none.
    ///
    /// # Errors
    /// 500 when status and fields make no valid head.
    pub fn own(
        shard: &Shard,
        is_head: bool,
        status: u16,
        fields: &[(&[u8], &[u8])],
        body: Vec<u8>,
    ) -> Result<Answer, LocalReply> {
        let mut text = Vec::with_capacity(64 + fields.iter().map(line_len).sum::<usize>());
        write::bare_status_line(&mut text, status);
        for (name, value) in fields {
            if !is_framing(name) {
                write::field(&mut text, name, value);
            }
        }
        let length = body.len() as u64;
        text.extend_from_slice(b"Content-Length: ");
        write::decimal(&mut text, length);
        text.extend_from_slice(b"\r\n\r\n");
        let data = (!body.is_empty()).then(|| Chunk::from_vec(body));
        Answer::of_text(shard, is_head, text, data)
    }

    /// The same with the head as text, its framing and the empty line at its end included.
    ///
    /// # Errors
    /// 500 when that is no valid head.
    pub fn of_text(
        shard: &Shard,
        is_head: bool,
        text: Vec<u8>,
        data: Option<Chunk>,
    ) -> Result<Answer, LocalReply> {
        let mut head = shard.take_response_head();
        let read = head.parse(&text, is_head, &HeadLimits::RESPONSE);
        if read != Ok(Progress::Complete) || head.status < 200 || head.head_len != text.len() {
            return Err(LocalReply::new(500, Reason::Internal));
        }
        Ok(Answer::of_parts(head, Chunk::from_vec(text), data, Vec::new()))
    }

    /// Likewise, with a body that is still being made.
    ///
    /// # Errors
    /// As [`Answer::own`].
    pub fn piped(
        shard: &Shard,
        is_head: bool,
        status: u16,
        fields: &[(&[u8], &[u8])],
        pipe: Reader,
    ) -> Result<Answer, LocalReply> {
        let answer = Answer::own(shard, is_head, status, fields, Vec::new())?;
        let mut head = answer.head;
        if head.framing != BodyFraming::None {
            head.framing = BodyFraming::Chunked;
        }
        let body = Body { pipe: Some(pipe), ..Body::default() };
        Ok(Answer { head, carrier: Carrier::Own(RefCell::new(body)), ..answer })
    }

    fn of_parts(
        head: Box<ResponseHead>,
        bytes: Chunk,
        data: Option<Chunk>,
        trailers: Vec<u8>,
    ) -> Answer {
        Answer {
            carrier: Carrier::Own(RefCell::new(Body { data, trailers, pipe: None })),
            account: None,
            head,
            bytes,
            upload: None,
            timeouts: Timeouts::default(),
            deadline_ms: 0,
            switched: false,
            reason: Reason::None,
            edit: None,
            filters: Vec::new(),
            fill: None,
        }
    }

    /// Whether a body follows the head, as far as that is known.
    pub fn has_body(&self) -> bool {
        !matches!(self.head.framing, BodyFraming::None | BodyFraming::Length(0))
    }

    /// Another body for an answer that is of the gateway's own making, or was gathered.
    pub fn replace_own_body(&mut self, body: Vec<u8>) {
        let Carrier::Own(own) = &self.carrier else { return };
        if self.head.framing != BodyFraming::None {
            self.head.framing = BodyFraming::Length(body.len() as u64);
            own.borrow_mut().data = (!body.is_empty()).then(|| Chunk::from_vec(body));
        }
    }

    /// Reads the whole body, of at most `most` bytes, and says how the upstream did.
    ///
    /// # Errors
    /// 502 for a longer body and for one that breaks off, 504 when it comes too slowly; the client may
    /// be gone.
    pub async fn gather(
        self,
        shard: &Shard,
        responder: &Responder,
        call: Option<bool>,
        most: usize,
    ) -> Result<Whole, LocalReply> {
        let Answer { carrier, account, head, mut bytes, mut upload, timeouts, mut fill, .. } = self;
        let too_large = || LocalReply::new(502, Reason::AnswerTooLarge);
        if matches!(head.framing, BodyFraming::Length(length) if length > most as u64) {
            return Err(too_large());
        }
        let head_bytes = Chunk::copy_of(bytes.bytes().get(..head.head_len).unwrap_or_default());
        bytes.advance(head.head_len);
        let reader = BodyReader::of_response(head.framing);
        let mut over = reader.is_done() && !matches!(carrier, Carrier::Http2(_));
        let rest = Some(bytes).filter(|bytes| !bytes.is_empty());
        let mut source = carrier.source(reader, rest);
        let mut body = Vec::new();
        if let BodyFraming::Length(length) = head.framing {
            body.reserve_exact(length as usize);
        }
        let clock = shard.io.clock();
        let fault = loop {
            if over {
                break None;
            }
            let idle_ms = clock.now_ms() + u64::from(timeouts.idle_ms);
            responder.watch.set_at(soonest(idle_ms, self.deadline_ms));
            let next = poll_fn(|cx| {
                if let Some(going) = &mut upload
                    && let Poll::Ready(end) = Pin::new(going).poll(cx)
                {
                    upload = None;
                    match end {
                        UploadEnd::Done | UploadEnd::UpstreamGone => {}
                        UploadEnd::ClientGone => return Poll::Ready(Err(Fault::ClientGone)),
                        UploadEnd::Refused(reply) => return Poll::Ready(Err(Fault::Reply(reply))),
                    }
                }
                if let Poll::Ready(piece) = source.poll_piece(cx) {
                    return Poll::Ready(piece.map_err(Fault::Source));
                }
                match upload.is_none() && responder.down.poll_gone(cx).is_ready() {
                    true => Poll::Ready(Err(Fault::ClientGone)),
                    false => Poll::Pending,
                }
            });
            match responder.watch.bound(next).await {
                Ok(Ok(piece)) => {
                    Fill::see(&mut fill, &piece);
                    if let Some(data) = &piece.data {
                        if body.len() + data.len() > most {
                            break Some(Fault::Reply(too_large()));
                        }
                        body.extend_from_slice(data.bytes());
                    }
                    over = piece.end;
                }
                Ok(Err(fault)) => break Some(fault),
                Err(_) => break Some(Fault::Late),
            }
        };
        let now_ms = clock.now_ms();
        let verdict = match (&fault, call) {
            (None, Some(has_deadline)) => {
                let told = grpc::status_in_trailers(source.trailers());
                let told = told.or_else(|| grpc::status_in_head(&head, head_bytes.bytes()));
                told.map_or(Verdict::Good, |code| grpc::verdict(code, has_deadline))
            }
            (None, None) => Verdict::Good,
            (Some(Fault::Source(_)), _) => Verdict::Gateway,
            (Some(Fault::Late), _) => {
                let own = self.deadline_ms == 0 || now_ms < self.deadline_ms;
                if own { Verdict::Gateway } else { Verdict::Nothing }
            }
            _ => Verdict::Nothing,
        };
        if let Some(account) = account {
            account.settle(verdict, now_ms);
        }
        if let Some(fault) = fault {
            return Err(match fault {
                Fault::Reply(reply) => reply,
                Fault::ClientGone => LocalReply::closing(0, Reason::ClientAborted),
                Fault::Source(SourceFault::Malformed(_)) => {
                    LocalReply::new(502, Reason::UpstreamInvalid)
                }
                Fault::Source(SourceFault::Gone) => LocalReply::new(502, Reason::UpstreamTruncated),
                Fault::Late if self.deadline_ms != 0 && now_ms >= self.deadline_ms => {
                    LocalReply::new(504, Reason::TotalTimeout)
                }
                Fault::Late => LocalReply::new(504, Reason::UpstreamTruncated),
            });
        }
        let trailers = source.trailers().to_vec();
        let cleanly = source.is_clean() && head.keep_alive && upload.is_none();
        drop(source);
        carrier.release(cleanly, now_ms);
        let (edit, filters) = (self.edit, self.filters);
        Ok(Whole { head, bytes: head_bytes, body, trailers, upload, edit, filters })
    }
}

enum Fault {
    Reply(LocalReply),
    ClientGone,
    Source(SourceFault),
    Late,
}

/// An answer all of which is here.
pub struct Whole {
    pub head: Box<ResponseHead>,
    /// The head's bytes.
    pub bytes: Chunk,
    pub body: Vec<u8>,
    /// Trailer lines.
    pub trailers: Vec<u8>,
    /// The rest of the request's body.
    upload: Option<Upload>,
    pub edit: Option<Box<Edit>>,
    filters: Vec<Filter>,
}

impl Whole {
    /// The fields that go on, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let bytes = self.bytes.bytes();
        let own = self.head.fields.iter().filter(|field| field.forwarded());
        own.map(move |field| (field.name.of(bytes), field.value.of(bytes)))
    }

    /// The value of the first field of that name.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        let mut fields = self.fields();
        fields.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The same answer with another body, of the length that it has. What the old one's fields say of
    /// its bytes (`Content-Encoding`, `ETag`, `Content-MD5`, digests, ranges) is for the caller to edit.
    pub fn into_answer(self, body: Vec<u8>) -> Answer {
        let Whole { mut head, bytes, trailers, upload, edit, filters, .. } = self;
        if head.framing != BodyFraming::None {
            head.framing = BodyFraming::Length(body.len() as u64);
        }
        let data = (!body.is_empty()).then(|| Chunk::from_vec(body));
        let answer = Answer::of_parts(head, bytes, data, trailers);
        Answer { upload, edit, filters, ..answer }
    }
}

fn line_len((name, value): &(&[u8], &[u8])) -> usize {
    name.len() + value.len() + 4
}

/// Fields that say where a message ends, or are of one connection (RFC 9110 §7.6.1).
fn is_framing(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] = [
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"upgrade",
        b"trailer",
    ];
    NAMES.iter().any(|own| own.eq_ignore_ascii_case(name))
}

const _: () = assert!(limits::GATHERED_BYTES <= u32::MAX as usize);
