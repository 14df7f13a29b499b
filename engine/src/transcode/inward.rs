//! A stream of JSON values from a client, as the messages of a call.

use std::sync::Arc;

use contract::record::Reason;

use super::Transcode;
use super::binding::BodyTo;
use super::frames;
use super::split::{Splitter, Uncut};
use super::wire::{self, WireType, write_bytes, write_tag};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::validate::{Fault, In};

/// What becomes of a request's body on its way.
pub struct Inward {
    transcode: Arc<Transcode>,
    binding: usize,
    form: Form,
    /// What path and query say: of the first message.
    first: Option<Vec<u8>>,
    /// Messages so far.
    count: usize,
}

enum Form {
    Json(Splitter),
    /// `google.api.HttpBody`: pieces as they come, with their content type in the first.
    Raw(Vec<u8>),
}

enum Stop {
    Uncut(Uncut),
    Reply(LocalReply),
}

impl From<Uncut> for Stop {
    fn from(uncut: Uncut) -> Stop {
        Stop::Uncut(uncut)
    }
}

impl Inward {
    /// `first`: what the first message has besides its body. `raw`: the content type of a body that is
    /// taken as it is.
    pub fn new(
        transcode: Arc<Transcode>,
        binding: usize,
        first: Vec<u8>,
        raw: Option<Vec<u8>>,
    ) -> Inward {
        let form = match raw {
            None => Form::Json(Splitter::new(transcode.max_request)),
            Some(content_type) => Form::Raw(content_type),
        };
        Inward { transcode, binding, form, first: Some(first), count: 0 }
    }

    /// Appends the frames of what has come.
    ///
    /// # Errors
    /// The client has sent what is no message: the answer to give.
    pub fn pass(&mut self, data: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), LocalReply> {
        let Inward { transcode, binding, form, first, count } = self;
        let Some(binding) = transcode.bindings.get(*binding) else {
            return Err(LocalReply::closing(500, Reason::Internal));
        };
        let result = match form {
            Form::Json(splitter) => splitter.feed(data, end, |value| {
                let frame = frames::write(out, |out| {
                    message(transcode, &binding.body, binding.method, value, out)?;
                    out.extend(first.take().unwrap_or_default());
                    Ok::<(), super::json::Fault>(())
                });
                let place = *count;
                *count += 1;
                frame.map_err(|fault| {
                    let pointer = format!("/{place}{}", fault.pointer);
                    Stop::Reply(unusable(&pointer, &fault.problem))
                })
            }),
            Form::Raw(content_type) => {
                if !data.is_empty() {
                    for piece in data.chunks(transcode.max_request.max(1)) {
                        let _ = frames::write(out, |out| {
                            raw(transcode, &binding.body, content_type, piece, out);
                            content_type.clear();
                            out.extend(first.take().unwrap_or_default());
                            Ok::<(), Uncut>(())
                        });
                    }
                }
                Ok(())
            }
        };
        result.map_err(|stop| match stop {
            Stop::Reply(reply) => reply,
            Stop::Uncut(Uncut::TooLarge) => LocalReply::closing(413, Reason::BodyTooLarge),
            Stop::Uncut(Uncut::Malformed(problem)) => unusable("", problem),
        })
    }
}

/// 400 for a body that is no message.
pub fn unusable(pointer: &str, problem: &str) -> LocalReply {
    LocalReply {
        faults: vec![Fault::new(In::Body, pointer, problem)],
        ..LocalReply::closing(400, Reason::BodyUnusable)
    }
}

/// Appends the message that the body is, or is a field of.
pub fn message(
    transcode: &Transcode,
    body: &BodyTo,
    method: usize,
    value: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), super::json::Fault> {
    let (reading, schema) = (transcode.reading(), &transcode.proto.schema);
    match body {
        BodyTo::Nowhere => Ok(()),
        BodyTo::Message => {
            let Some(method) = transcode.proto.methods.get(method) else { return Ok(()) };
            reading.message(value, method.input, out)
        }
        BodyTo::Field(path) => {
            path.write(schema, out, |field, out| reading.field(value, field, out))
        }
    }
}

/// Appends a body as it is, in an `HttpBody`.
pub fn raw(
    transcode: &Transcode,
    body: &BodyTo,
    content_type: &[u8],
    data: &[u8],
    out: &mut Vec<u8>,
) {
    let write = |out: &mut Vec<u8>| {
        if !content_type.is_empty() {
            write_bytes(out, 1, content_type);
        }
        write_bytes(out, 2, data);
    };
    match body {
        BodyTo::Nowhere => {}
        BodyTo::Message => write(out),
        BodyTo::Field(path) => {
            let _ = path.write(&transcode.proto.schema, out, |field, out| {
                write_tag(out, field.number, WireType::Bytes);
                let part = wire::begin(out);
                write(out);
                part.end(out);
                Ok::<(), Uncut>(())
            });
        }
    }
}

const _: () = assert!(limits::MESSAGE_DEPTH < 1_000);
