//! The request's body on its way to the upstream, beside whatever the exchange waits for.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use contract::record::Reason;
use contract::snapshot::ListenerLimits;

use crate::answer::Body;
use crate::auth::{ContentDigest, Passed};
use crate::channel::{Piece, Sink, Source, SourceFault};
use crate::exchange::{Request, Responder};
use crate::grpc_web::{Base64, NotBase64};
use crate::io::{Chunk, Elapsed, Io, Watch};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::payload;
use crate::relay;
use crate::shard::Shard;
use crate::transcode;

/// How an upload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadEnd {
    /// The whole body is in the kernel's hands.
    Done,
    /// The upstream takes no more; it may have answered.
    UpstreamGone,
    /// The client went away or closed in the middle of its body.
    ClientGone,
    /// The body is malformed, too large or too slow.
    Refused(LocalReply),
}

/// A request's body as it comes from the client, and what of it is kept for another try.
pub struct Feed {
    source: Source,
    /// What it has to be; an upstream never gets all of another one.
    content: Option<Box<ContentDigest>>,
    /// What becomes of it on its way.
    inward: Option<Box<Inward>>,
    /// Bytes that came from the client.
    received: u64,
    /// All that was handed out, for as long as `keeps` has a bound for it.
    kept: Vec<u8>,
    keeps: Option<usize>,
    ended: bool,
    /// What was gathered before the first try counts against the shard's bound.
    room: Option<Room>,
    /// All of it was.
    whole: bool,
}

impl Feed {
    /// `inward`: what becomes of the body on its way. `content`: what it has to be.
    pub fn new(
        source: Source,
        inward: Option<Box<Inward>>,
        content: Option<Box<ContentDigest>>,
    ) -> Rc<RefCell<Feed>> {
        let (kept, keeps) = (Vec::new(), None);
        let feed = Feed {
            source,
            content,
            inward,
            received: 0,
            kept,
            keeps,
            ended: false,
            room: None,
            whole: false,
        };
        Rc::new(RefCell::new(feed))
    }

    /// A body that is here as a whole.
    pub fn of(body: Vec<u8>) -> Rc<RefCell<Feed>> {
        let feed = Feed::new(Source::own(Body::default()), None, None);
        {
            let feed = &mut *feed.borrow_mut();
            feed.received = body.len() as u64;
            feed.kept = body;
            feed.ended = true;
            feed.whole = true;
        }
        feed
    }

    /// Keeps what comes for another try, if all of it is at most `bytes`. Counts before anything has
    /// come, and for what was gathered.
    pub fn keep(&mut self, bytes: usize) {
        let gathered = self.gathered().is_some_and(|body| body.len() <= bytes);
        if gathered || (self.received == 0 && self.source.announced() <= bytes as u64) {
            self.keeps = Some(bytes);
        }
    }

    /// The next try is the last one: what is kept for it goes as it is sent.
    pub fn keep_no_more(&mut self) {
        self.keeps = None;
    }

    /// There will be no other try.
    pub fn forget(&mut self) {
        self.keeps = None;
        self.kept = Vec::new();
    }

    /// The whole body, where [`gather`] has it.
    pub fn gathered(&self) -> Option<&[u8]> {
        let whole = self.whole && self.kept.len() as u64 == self.received;
        whole.then_some(&*self.kept)
    }

    /// Whether nothing of it is left on the client's connection: [`gather`] has taken all.
    pub fn was_gathered(&self) -> bool {
        self.whole
    }

    /// Whether all that was handed out can be handed out again.
    pub fn is_replayable(&self) -> bool {
        self.received == 0 || self.keeps.is_some()
    }

    fn take(&mut self, piece: &Piece) {
        let Some(most) = self.keeps else { return };
        let Some(data) = &piece.data else { return };
        match self.kept.len() + data.len() <= most {
            true => self.kept.extend_from_slice(data.bytes()),
            // Too large after all.
            false => self.forget(),
        }
    }

    /// Whether the body may still be what it has to be.
    fn is_right(&mut self, piece: &Piece) -> bool {
        let Some(content) = &mut self.content else { return true };
        let passed = content.pass(piece.data.as_ref().map_or(&[], Chunk::bytes), piece.end);
        if passed == Passed::Right {
            self.content = None;
        }
        passed != Passed::Wrong
    }

    fn change(&mut self, piece: Piece) -> Result<Piece, LocalReply> {
        let Some(inward) = &mut self.inward else { return Ok(piece) };
        let data = piece.data.as_ref().map_or(&[][..], Chunk::bytes);
        let mut out = Vec::new();
        inward.pass(data, piece.end, &mut out)?;
        let data = (!out.is_empty()).then(|| Chunk::copy_of(&out));
        Ok(Piece { data, end: piece.end })
    }
}

/// What becomes of a request's body on its way to the upstream, piece by piece. An enum: the upload
/// knows them all.
pub enum Inward {
    /// Base64 goes on decoded (gRPC-Web).
    Base64(Base64),
    /// Records are changed as a rule says.
    Records(Box<payload::Stream>),
    /// A stream of JSON goes on as messages.
    Transcode(transcode::Inward),
}

impl Inward {
    /// Appends what becomes of a part of the body.
    ///
    /// # Errors
    /// The client has sent what cannot be changed: the answer to give.
    pub fn pass(&mut self, data: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), LocalReply> {
        match self {
            Inward::Base64(text) => {
                let read = text.decode(data, out);
                let read = read.and_then(|()| if end { text.finish() } else { Ok(()) });
                read.map_err(|NotBase64| LocalReply::closing(400, Reason::BadRequest))
            }
            Inward::Records(stream) => stream.pass(data, end, out).map_err(|fault| {
                let reply = payload::refusal(fault);
                // Some of the body is still to come.
                LocalReply { close: true, ..reply }
            }),
            Inward::Transcode(json) => json.pass(data, end, out),
        }
    }
}

/// Reads the whole body of a request, before any of it goes on; it goes on as it came unless it is
/// replaced (`Request::replace_body`). At most `most` bytes, and what the route takes (`max_body_bytes`).
///
/// # Errors
/// 413 past the bound, 503 when the shard holds too much; 4xx, or nothing, by what the body does.
pub async fn gather_request(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    most: usize,
    max_body_bytes: u64,
) -> Result<Vec<u8>, LocalReply> {
    if let Some(feed) = &request.feed
        && let Some(body) = feed.borrow().gathered()
    {
        return match body.len() <= most {
            true => Ok(body.to_vec()),
            false => Err(LocalReply::closing(413, Reason::BodyTooLarge)),
        };
    }
    match gather_up_to(shard, request, responder, most, max_body_bytes).await {
        Ok(Gathered::Whole) => {}
        Ok(Gathered::TooLarge) => return Err(LocalReply::closing(413, Reason::BodyTooLarge)),
        Ok(Gathered::NoRoom) => {
            let field = Some(("Retry-After", b"1".to_vec()));
            return Err(LocalReply { field, ..LocalReply::closing(503, Reason::Overload) });
        }
        Err(UploadEnd::Refused(reply)) => return Err(reply),
        Err(_) => return Err(LocalReply::closing(0, Reason::ClientAborted)),
    }
    let feed = request.feed.as_ref().map(|feed| feed.borrow());
    Ok(feed.and_then(|feed| feed.gathered().map(<[u8]>::to_vec)).unwrap_or_default())
}

/// Begins to read the body of a request, and holds it in the request's feed.
///
/// # Errors
/// As [`gather`].
pub async fn gather_up_to(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    most: usize,
    max_body_bytes: u64,
) -> Result<Gathered, UploadEnd> {
    if request.head.framing.is_empty() {
        return Ok(Gathered::Whole);
    }
    if request.head.expect_continue && request.bytes().len() == request.head.head_len {
        relay::interim_continue(responder).await;
    }
    request.head.expect_continue = false;
    let head = request.bytes().get(..request.head.head_len).unwrap_or_default();
    let head = Chunk::copy_of(head);
    let content = request.content.take();
    let feed = Feed::new(request.source(responder), None, content);
    // The head is still needed; its receive buffer went with the body.
    request.bytes = Some(head);
    request.feed = Some(feed.clone());
    gather(shard, responder, &feed, most, max_body_bytes).await
}

/// A body in transit. A future of its end; must be polled beside the wait for the answer.
pub struct Upload {
    future: Pin<Box<dyn Future<Output = UploadEnd>>>,
    feed: Rc<RefCell<Feed>>,
}

impl Upload {
    /// Moves the body of `feed` to `sink`, from its beginning; bytes behind the body go back to the
    /// client's connection, where the next request is read. `judged`: it must keep up the listener's
    /// rate.
    pub fn new(
        shard: &Shard,
        responder: &Responder,
        feed: Rc<RefCell<Feed>>,
        sink: Sink,
        max_bytes: u64,
        judged: bool,
    ) -> Upload {
        let intake = Intake::new(shard, responder, &feed, max_bytes, judged);
        let run = Run { intake, sink };
        Upload { future: Box::pin(run.run()), feed }
    }

    /// Body bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.feed.borrow().received
    }

    /// There will be no other try.
    pub fn forget(&self) {
        self.feed.borrow_mut().forget();
    }
}

impl Future for Upload {
    type Output = UploadEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<UploadEnd> {
        self.future.as_mut().poll(cx)
    }
}

/// Takes the body of `feed` before anything is sent, up to its end or until more than `most` bytes are
/// here.
///
/// # Errors
/// The client is gone, or the body would not have been let through either.
pub async fn gather(
    shard: &Shard,
    responder: &Responder,
    feed: &Rc<RefCell<Feed>>,
    most: usize,
    max_bytes: u64,
) -> Result<Gathered, UploadEnd> {
    let intake = Intake::new(shard, responder, feed, max_bytes, true);
    let mut rate = Rate::new(&shard.io, responder.limits.min_body_rate);
    feed.borrow_mut().room = Some(Room { taken: shard.gathered.clone(), bytes: 0 });
    feed.borrow().source.set_bulk(true);
    let gathered = loop {
        let piece = match intake.receive(&mut rate).await {
            Ok(piece) => piece,
            Err(end) => break Err(end),
        };
        let feed = &mut *feed.borrow_mut();
        if let Some(data) = &piece.data {
            feed.kept.extend_from_slice(data.bytes());
        }
        let bytes = piece.data.as_ref().map_or(0, Chunk::len);
        if !feed.room.as_mut().is_some_and(|room| room.grow(bytes)) {
            break Ok(Gathered::NoRoom);
        }
        // What is announced need not be waited for.
        if feed.kept.len() as u64 + feed.source.announced() > most as u64 {
            break Ok(Gathered::TooLarge);
        }
        if piece.end {
            feed.source.unread();
            feed.whole = true;
            break Ok(Gathered::Whole);
        }
        rate.restart(&shard.io);
    };
    feed.borrow().source.set_bulk(false);
    gathered
}

/// How far [`gather`] came. What it has goes on first, whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathered {
    Whole,
    TooLarge,
    /// The shard has gathered too much.
    NoRoom,
}

/// Bytes that count against [`limits::GATHERED_BYTES`] until this is dropped.
struct Room {
    taken: Rc<Cell<usize>>,
    bytes: usize,
}

impl Room {
    #[must_use]
    fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.taken.set(self.taken.get() + bytes);
        self.taken.get() <= limits::GATHERED_BYTES
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.set(self.taken.get() - self.bytes);
    }
}

struct Run {
    intake: Intake,
    sink: Sink,
}

impl Run {
    async fn run(mut self) -> UploadEnd {
        self.intake.feed.borrow().source.set_bulk(true);
        let end = self.transfer().await;
        self.intake.feed.borrow().source.set_bulk(false);
        end
    }

    async fn transfer(&mut self) -> UploadEnd {
        let mut rate = Rate::new(&self.intake.io, self.intake.limits.min_body_rate);
        let mut piece = self.kept();
        loop {
            let next = match piece.take() {
                Some(kept) => kept,
                None => match self.intake.receive(&mut rate).await {
                    Ok(piece) => piece,
                    Err(end) => return end,
                },
            };
            let end = next.end;
            if let Err(gone) = self.send(next).await {
                return gone;
            }
            if end {
                self.intake.feed.borrow_mut().source.unread();
                return UploadEnd::Done;
            }
            // Time that the upstream took is not the client's slowness.
            rate.restart(&self.intake.io);
        }
    }

    /// What an earlier try has had, to begin with.
    fn kept(&self) -> Option<Piece> {
        let feed = &mut *self.intake.feed.borrow_mut();
        let data = match feed.keeps {
            _ if feed.kept.is_empty() => None,
            Some(_) => Some(Chunk::copy_of(&feed.kept)),
            None => Some(Chunk::from_vec(std::mem::take(&mut feed.kept))),
        };
        (data.is_some() || feed.ended).then_some(Piece { data, end: feed.ended })
    }

    async fn send(&mut self, piece: Piece) -> Result<(), UploadEnd> {
        if piece.data.is_none() && !piece.end {
            return Ok(());
        }
        let head = self.intake.io.take_vec();
        let started = {
            let feed = self.intake.feed.borrow();
            let end = piece.end.then(|| feed.source.trailers());
            self.sink.start(&self.intake.io, head, piece.data, end)
        };
        match started {
            Ok(None) => Ok(()),
            Ok(Some(unsent)) => {
                self.intake.watch.set_in(u64::from(self.intake.limits.write_timeout_ms));
                match self.intake.watch.bound(self.sink.finish(unsent)).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) | Err(Elapsed) => Err(UploadEnd::UpstreamGone),
                }
            }
            Err(_) => Err(UploadEnd::UpstreamGone),
        }
    }
}

/// What is asked of a body while it comes.
struct Intake {
    io: Io,
    feed: Rc<RefCell<Feed>>,
    watch: Watch,
    limits: ListenerLimits,
    max_bytes: u64,
    /// A slow body is refused. Not that of a gRPC call, which may be a conversation with pauses.
    judged: bool,
}

impl Intake {
    fn new(
        shard: &Shard,
        responder: &Responder,
        feed: &Rc<RefCell<Feed>>,
        max_bytes: u64,
        judged: bool,
    ) -> Intake {
        Intake {
            io: shard.io.clone(),
            feed: feed.clone(),
            watch: shard.io.watch(),
            limits: responder.limits,
            max_bytes,
            judged,
        }
    }

    /// The next piece of the body, counted, decoded, and kept where that is asked for.
    async fn receive(&self, rate: &mut Rate) -> Result<Piece, UploadEnd> {
        let piece = self.piece(rate).await?;
        let len = piece.data.as_ref().map_or(0, Chunk::len);
        rate.progress(len);
        let feed = &mut *self.feed.borrow_mut();
        feed.received += len as u64;
        // A chunk's size counts when it is announced: there is no need to wait for the bytes.
        if feed.received.saturating_add(feed.source.announced()) > self.max_bytes {
            return Err(UploadEnd::Refused(LocalReply::closing(413, Reason::BodyTooLarge)));
        }
        if !feed.is_right(&piece) {
            return Err(UploadEnd::Refused(LocalReply::wrong_content()));
        }
        let piece = feed.change(piece).map_err(UploadEnd::Refused)?;
        feed.take(&piece);
        feed.ended = piece.end;
        Ok(piece)
    }

    async fn piece(&self, rate: &mut Rate) -> Result<Piece, UploadEnd> {
        loop {
            self.watch.set_at(rate.deadline_ms);
            let next = poll_fn(|cx| self.feed.borrow_mut().source.poll_piece(cx));
            match self.watch.bound(next).await {
                Ok(Ok(piece)) => return Ok(piece),
                Ok(Err(SourceFault::Malformed(error))) => {
                    return Err(UploadEnd::Refused(LocalReply::from(error.refusal())));
                }
                // B-43: cut off; the upstream's request is aborted, never completed.
                Ok(Err(SourceFault::Gone)) => return Err(UploadEnd::ClientGone),
                Err(Elapsed) if rate.suffices() => rate.restart(&self.io),
                Err(Elapsed) if !self.judged => rate.restart(&self.io),
                Err(Elapsed) => {
                    let reply = LocalReply::closing(408, Reason::BodyTimeout);
                    return Err(UploadEnd::Refused(reply));
                }
            }
        }
    }
}

/// Judges the rate of a body over windows of [`limits::BODY_RATE_WINDOW_MS`].
struct Rate {
    min_per_s: u32,
    bytes: u64,
    deadline_ms: u64,
}

impl Rate {
    fn new(io: &Io, min_per_s: u32) -> Rate {
        let mut rate = Rate { min_per_s, bytes: 0, deadline_ms: 0 };
        rate.restart(io);
        rate
    }

    fn restart(&mut self, io: &Io) {
        // An honest sender of small pieces keeps its window; one that filled it gets a new one.
        if self.deadline_ms == 0 || self.suffices() {
            self.bytes = 0;
            self.deadline_ms = io.clock().now_ms() + limits::BODY_RATE_WINDOW_MS;
        }
    }

    fn progress(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn suffices(&self) -> bool {
        self.bytes * 1000 >= u64::from(self.min_per_s) * limits::BODY_RATE_WINDOW_MS
    }
}
