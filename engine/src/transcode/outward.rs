//! The messages of a call on their way to a client, as a stream of JSON.
//!
//! What goes wrong once the first message is out can no longer be an HTTP status. It is the last element
//! then: `{"error": {"code": .., "message": .., "details": [..]}}`, of an SSE stream an event of the type
//! `error` with the inner object. A body that is passed on as it is (`HttpBody`) is cut off instead.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use contract::record::Reason;
use contract::snapshot::StreamForm;

use super::Transcode;
use super::frames::{self, BadFrame, Frames};
use super::json::Unprintable;
use super::schema::MessageIndex;
use super::status::{self, Status};
use super::wire::{Fields, WireType};
use crate::answer::{Answer, Carrier};
use crate::exchange::Responder;
use crate::filter::{Broken, Part};
use crate::io::Chunk;

/// What becomes of a call's messages.
pub struct Outward {
    transcode: Arc<Transcode>,
    output: MessageIndex,
    /// Only this field of each message is told.
    field: Option<usize>,
    form: Form,
    frames: Frames,
    /// Messages so far.
    count: u64,
    over: bool,
    /// What was read to know the first message.
    ahead: Vec<u8>,
    /// What was told before a message that cannot be.
    left: Vec<u8>,
}

/// How a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json(StreamForm),
    /// The data of `HttpBody` messages.
    Raw,
}

impl Form {
    pub fn content_type(self) -> &'static [u8] {
        match self {
            Form::Json(StreamForm::Array) => b"application/json",
            Form::Json(StreamForm::Ndjson) => b"application/x-ndjson",
            Form::Json(StreamForm::Sse) => b"text/event-stream",
            Form::Raw => b"application/octet-stream",
        }
    }
}

/// A message that cannot be told.
struct Bad;

impl From<BadFrame> for Bad {
    fn from(_: BadFrame) -> Bad {
        Bad
    }
}

impl Outward {
    pub fn new(
        transcode: Arc<Transcode>,
        output: MessageIndex,
        field: Option<usize>,
        form: Form,
    ) -> Outward {
        let frames = Frames::new(transcode.max_response);
        Outward {
            transcode,
            output,
            field,
            form,
            frames,
            count: 0,
            over: false,
            ahead: Vec::new(),
            left: Vec::new(),
        }
    }

    /// Waits for the first message and returns the content type in it: the head has to say it.
    pub async fn first_content_type(
        &mut self,
        answer: &mut Answer,
        responder: &Responder,
    ) -> Option<Vec<u8>> {
        // An upload that goes on has to be polled, which is the relay's business.
        let (Carrier::Http2(stream), None) = (&answer.carrier, &answer.upload) else { return None };
        let most = self.transcode.max_response;
        loop {
            if let Some((message, _)) = frames::next(&self.ahead, most).ok()? {
                let (content_type, _) = http_body(message).ok()?;
                let content_type = content_type.to_vec();
                return super::forward::is_field_value(&content_type).then_some(content_type);
            }
            responder.watch.set_in(u64::from(answer.timeouts.idle_ms));
            let next = poll_fn(|cx| match stream.poll_data(cx) {
                Poll::Pending if responder.down.poll_gone(cx).is_ready() => Poll::Ready(Ok(None)),
                polled => polled,
            });
            match responder.watch.bound(next).await {
                Ok(Ok(Some(data))) => self.ahead.extend_from_slice(data.bytes()),
                // Whatever it is, the relay meets it, too.
                _ => return None,
            }
        }
    }

    /// What becomes of a part of the answer's body; with trailers it is the last.
    ///
    /// # Errors
    /// A message cannot be told.
    pub fn part(&mut self, part: Part) -> Result<Part, Broken> {
        let mut out = Vec::new();
        let ahead = std::mem::take(&mut self.ahead);
        let data = part.data.as_ref().map_or(&[][..], Chunk::bytes);
        if [&ahead[..], data].into_iter().any(|data| self.take(data, &mut out).is_err()) {
            self.left = out;
            return Err(Broken);
        }
        if let Some(trailers) = &part.end {
            self.over = true;
            let whole = self.frames.is_between();
            match Status::of_trailers(trailers) {
                Some(status) if status.code == 0 && whole => self.close(&mut out),
                Some(status) if status.code != 0 => self.error(&status, &mut out)?,
                _ => {
                    let status = Status::new(status::INTERNAL, "the answer has no status");
                    self.error(&status, &mut out)?;
                }
            }
        }
        let data = (!out.is_empty()).then(|| Chunk::from_vec(out));
        Ok(Part { data, end: part.end })
    }

    /// What ends the stream understandably when it breaks off.
    pub fn broken(&mut self, reason: Reason) -> Option<Chunk> {
        if std::mem::replace(&mut self.over, true) {
            return None;
        }
        let status = match reason {
            Reason::TotalTimeout | Reason::DeadlineExceeded => {
                Status::new(status::DEADLINE_EXCEEDED, "the deadline of the request passed")
            }
            Reason::UpstreamInvalid => {
                Status::new(status::INTERNAL, "the service sent what is no message")
            }
            _ => Status::new(status::UNAVAILABLE, "the answer stopped in the middle"),
        };
        let mut out = std::mem::take(&mut self.left);
        self.error(&status, &mut out).ok()?;
        Some(Chunk::from_vec(out))
    }

    fn take(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Bad> {
        let Outward { transcode, output, field, form, frames, count, .. } = self;
        frames.feed(data, |message| {
            let printing = transcode.printing(false);
            let start = out.len();
            let behind = begin(*form, *count == 0, out);
            let told = match (*form, *field) {
                (Form::Raw, _) => http_body(message).map(|(_, data)| out.extend_from_slice(data)),
                (Form::Json(_), None) => printing.message(message, *output, out),
                (Form::Json(_), Some(place)) => printing.field(message, *output, place, out),
            };
            if told.is_err() {
                out.truncate(start);
                return Err(Bad);
            }
            *count += 1;
            out.extend_from_slice(behind);
            Ok(())
        })
    }

    fn close(&self, out: &mut Vec<u8>) {
        if self.form == Form::Json(StreamForm::Array) {
            out.extend_from_slice(if self.count == 0 { b"[]" } else { b"]" });
        }
    }

    fn error(&mut self, status: &Status, out: &mut Vec<u8>) -> Result<(), Broken> {
        let Form::Json(form) = self.form else { return Err(Broken) };
        let behind = match form {
            StreamForm::Sse => {
                out.extend_from_slice(b"event: error\ndata: ");
                &b"\n\n"[..]
            }
            _ => begin(self.form, self.count == 0, out),
        };
        self.count += 1;
        let wrapped = form != StreamForm::Sse;
        if wrapped {
            out.extend_from_slice(b"{\"error\":");
        }
        status.print(&self.transcode.printing(false), self.transcode.details, out);
        if wrapped {
            out.push(b'}');
        }
        out.extend_from_slice(behind);
        self.close(out);
        Ok(())
    }
}

/// Appends what goes before a message; returns what goes behind it.
fn begin(form: Form, first: bool, out: &mut Vec<u8>) -> &'static [u8] {
    match form {
        Form::Raw => b"",
        Form::Json(StreamForm::Array) => {
            out.push(if first { b'[' } else { b',' });
            b""
        }
        Form::Json(StreamForm::Ndjson) => b"\n",
        Form::Json(StreamForm::Sse) => {
            out.extend_from_slice(b"data: ");
            b"\n\n"
        }
    }
}

/// Content type and data of a `google.api.HttpBody`.
///
/// # Errors
/// It is malformed.
pub fn http_body(message: &[u8]) -> Result<(&[u8], &[u8]), Unprintable> {
    let (mut content_type, mut data) = (&[][..], &[][..]);
    let mut fields = Fields::of(message);
    while let Some(raw) = fields.next()? {
        match (raw.number, raw.wire) {
            (1, WireType::Bytes) => content_type = raw.bytes,
            (2, WireType::Bytes) => data = raw.bytes,
            _ => {}
        }
    }
    Ok((content_type, data))
}
