//! Answers that are compressed on their way to the client.

use std::rc::Rc;
use std::sync::Arc;

use contract::snapshot::{self, ContentCoding};

use super::{Coding, Encoder, Encoders, choose};
use crate::answer::{Answer, Carrier, Edit};
use crate::auth::credentials;
use crate::exchange::{Request, Responder};
use crate::filter::Filter;
use crate::io::Chunk;
use crate::limits;
use crate::media::Types;
use crate::message::{BodyFraming, Name};
use crate::offload::offload;
use crate::shard::Shard;

/// How a route's answers are compressed.
#[derive(Clone, Debug, PartialEq)]
pub struct Compression {
    codings: Box<[Coding]>,
    levels: [u8; 4],
    min_bytes: u64,
    types: Types,
    /// Those of which each part is wanted at once.
    flushed: Types,
}

impl Compression {
    /// # Errors
    /// What cannot be, by field.
    pub fn build(from: &snapshot::Compress) -> Result<Compression, (String, String)> {
        let mut levels = [0; 4];
        let mut codings = Vec::new();
        for (coding, level) in &from.codings {
            if !coding.levels().contains(level) {
                let (name, range) = (Coding::from(*coding).name(), coding.levels());
                let why = format!("expected a level from {} to {}", range.start(), range.end());
                return Err((format!("levels.{name}"), why));
            }
            let coding = Coding::from(*coding);
            levels[coding as usize] = *level;
            codings.push(coding);
        }
        if codings.is_empty() {
            return Err(("codings".into(), "expected at least one coding".into()));
        }
        let types = Types::parse(&from.content_types)
            .map_err(|(at, why)| (format!("content_types[{at}]"), why))?;
        let min_bytes = u64::from(from.min_bytes);
        let flushed = Types::of(&[
            "text/event-stream",
            "application/x-ndjson",
            "application/ndjson",
            "application/jsonl",
        ]);
        Ok(Compression { codings: codings.into(), levels, min_bytes, types, flushed })
    }

    /// Chooses a coding while the request's head is here.
    pub fn note(&self, request: &mut Request) {
        let (head, bytes) = (&*request.head, request.bytes());
        let fields = |name| credentials::fields(head, bytes, name);
        // RFC 9111 §5.2.1.6.
        let coding = match fields(b"cache-control").any(has_no_transform) {
            true => None,
            false => choose(fields(b"accept-encoding"), &self.codings),
        };
        request.coding = coding;
    }
}

impl From<ContentCoding> for Coding {
    fn from(coding: ContentCoding) -> Coding {
        match coding {
            ContentCoding::Gzip => Coding::Gzip,
            ContentCoding::Deflate => Coding::Deflate,
            ContentCoding::Brotli => Coding::Brotli,
            ContentCoding::Zstd => Coding::Zstd,
        }
    }
}

fn has_no_transform(value: &[u8]) -> bool {
    let mut directives = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// What is left to be done with an answer that is here as a whole.
pub struct Elsewhere {
    coding: Coding,
    level: u8,
}

/// Compresses an answer, where the client takes that and it is worth it. A large one that is here as a whole
/// has to be [encoded elsewhere](encode_elsewhere) yet.
pub fn compress(
    shard: &Shard,
    request: &Request,
    responder: &Responder,
    compression: &Compression,
    answer: &mut Answer,
) -> Option<Elsewhere> {
    let (head, bytes) = (&*answer.head, answer.bytes.bytes());
    let content_type = answer.value(b"content-type").unwrap_or_default();
    let bodiless = head.framing == BodyFraming::None;
    let is_out = answer.switched
        || request.grpc.is_some()
        || request.web.is_some()
        || !compression.types.take(&content_type)
        // Where there can be no body at all, or only a part of one.
        || matches!(head.status, 204..=206)
        || (bodiless && !responder.is_head && head.status != 304)
        || !Coding::list(answer.values(b"content-encoding").iter().map(|value| &**value))
            .is_ok_and(|codings| codings.is_empty())
        // RFC 9110 §7.7.
        || answer.values(b"cache-control").iter().any(|value| has_no_transform(value));
    if is_out {
        return None;
    }
    let small = matches!(head.framing, BodyFraming::Length(length) if length < compression.min_bytes)
        && answer.filters.is_empty();
    let etag = answer.value(b"etag");
    let vary = answer.values(b"vary");
    let status = head.status;
    let length = head
        .value(bytes, Name::ContentLength)
        .and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
    let coding = request.coding.filter(|_| !small);
    let edit = answer.edit.get_or_insert_default();
    // RFC 9110 §12.5.5: another client, or this one at another time, may get another coding.
    let varies = vary.iter().flat_map(|value| value.split(|byte| *byte == b',')).any(|name| {
        let name = name.trim_ascii();
        name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding")
    });
    if !varies {
        edit.fields.push((b"Vary".to_vec(), b"Accept-Encoding".to_vec()));
    }
    let coding = coding?;
    // As the answer to GET would have been.
    if bodiless && (status == 304 || length.is_some_and(|length| length < compression.min_bytes)) {
        if status == 304 {
            weaken(edit, etag);
        }
        return None;
    }
    edit.set(b"Content-Encoding", coding.name().into());
    for name in
        [&b"content-digest"[..], b"repr-digest", b"digest", b"content-md5", b"accept-ranges"]
    {
        edit.remove(name);
    }
    weaken(edit, etag);
    if bodiless {
        edit.remove(b"content-length");
        return None;
    }
    let level = compression.levels[coding as usize];
    if let Carrier::Own(body) = &answer.carrier
        && answer.filters.is_empty()
        && body.borrow().data.as_ref().is_some_and(|data| data.len() > limits::PAYLOAD_INLINE)
    {
        return Some(Elsewhere { coding, level });
    }
    let flush = compression.flushed.take(&content_type);
    answer.filters.push(Filter::Encode(Box::new(Encoding::new(shard, coding, level, flush))));
    None
}

/// Encodes a large body that is here as a whole.
pub async fn encode_elsewhere(shard: &Shard, how: Elsewhere, mut answer: Answer) -> Answer {
    let Elsewhere { coding, level } = how;
    let Carrier::Own(body) = &answer.carrier else { return answer };
    let plain = body.borrow_mut().data.take().map(|data| data.bytes().to_vec());
    let plain = Arc::new(plain.unwrap_or_default());
    let work = {
        let plain = plain.clone();
        move || {
            let mut encoder = Encoders::default().take(coding, level);
            let mut out = Vec::with_capacity(plain.len() / 4);
            encoder.pass(&plain, false, &mut out);
            encoder.finish(&mut out);
            out
        }
    };
    if let Ok(coded) = offload(shard, shard.desk().store().payloads(), work).await {
        answer.head.framing = BodyFraming::Length(coded.len() as u64);
        body.borrow_mut().data = Some(Chunk::from_vec(coded));
        return answer;
    }
    // Nobody has time for it now: it goes on as it is.
    body.borrow_mut().data = Some(Chunk::copy_of(&plain));
    if let Some(edit) = &mut answer.edit {
        edit.fields.retain(|(name, _)| name != b"Content-Encoding");
    }
    answer
}

/// Says that an answer's bytes are not those that its entity tag was made for (RFC 9110 §8.8.1).
pub fn weaken(edit: &mut Edit, etag: Option<Vec<u8>>) {
    if let Some(etag) = etag.filter(|etag| etag.starts_with(b"\"")) {
        edit.set(b"ETag", [b"W/", &*etag].concat());
    }
}

/// A body that is encoded while it is relayed.
pub struct Encoding {
    /// `None`: it has ended.
    encoder: Option<Encoder>,
    encoders: Rc<Encoders>,
    /// Each part can be read as soon as it is sent.
    flush: bool,
}

impl Encoding {
    fn new(shard: &Shard, coding: Coding, level: u8, flush: bool) -> Encoding {
        let encoders = shard.encoders.clone();
        Encoding { encoder: Some(encoders.take(coding, level)), encoders, flush }
    }

    /// What becomes of a part of the body.
    pub fn pass(&mut self, data: Option<Chunk>, end: bool) -> Option<Chunk> {
        let encoder = self.encoder.as_mut()?;
        let mut out = Vec::new();
        if let Some(data) = data {
            encoder.pass(data.bytes(), self.flush && !end, &mut out);
        }
        if end {
            encoder.finish(&mut out);
            if let Some(encoder) = self.encoder.take() {
                self.encoders.give(encoder);
            }
        }
        (!out.is_empty()).then(|| Chunk::from_vec(out))
    }
}
