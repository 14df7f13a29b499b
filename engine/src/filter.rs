//! What changes the body of an answer while it is relayed, piece by piece.

use contract::record::Reason;

use crate::coding::Encoding;
use crate::grpc_web::Answering;
use crate::io::Chunk;
use crate::payload::{self, Stream};
use crate::transcode::Outward;

/// One change of a body on its way. An enum: the relay knows them all.
pub enum Filter {
    /// From gRPC to gRPC-Web.
    Web(Box<Answering>),
    /// No change: what is past so many bytes is refused.
    Cap { left: u64 },
    /// Record by record, as a rule says.
    Records(Box<Stream>),
    /// Compressed.
    Encode(Box<Encoding>),
    /// From gRPC to JSON.
    Transcode(Box<Outward>),
}

/// A part of a body.
#[derive(Default)]
pub struct Part {
    pub data: Option<Chunk>,
    /// Trailer lines: this is the last part.
    pub end: Option<Vec<u8>>,
}

/// The body is not what it should be: nothing more of it may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Filter {
    /// What becomes of a part of the body. Called once with each part, and with nothing after the last
    /// one. An empty part may come back: there is nothing to be sent yet.
    ///
    /// # Errors
    /// The upstream has sent what cannot be changed.
    pub fn part(&mut self, part: Part) -> Result<Part, Broken> {
        match self {
            Filter::Web(web) => {
                let data = web.part(part.data, part.end.as_deref()).map_err(|_| Broken)?;
                Ok(Part { data, end: part.end.map(|_| Vec::new()) })
            }
            Filter::Cap { left } => {
                let length = part.data.as_ref().map_or(0, Chunk::len) as u64;
                *left = left.checked_sub(length).ok_or(Broken)?;
                Ok(part)
            }
            Filter::Records(stream) => {
                let mut out = Vec::new();
                let data = part.data.as_ref().map_or(&[][..], Chunk::bytes);
                let passed = stream.pass(data, part.end.is_some(), &mut out);
                passed.map_err(|_: payload::Fault| Broken)?;
                let data = (!out.is_empty()).then(|| Chunk::from_vec(out));
                Ok(Part { data, end: part.end })
            }
            Filter::Transcode(outward) => outward.part(part),
            Filter::Encode(encoding) => {
                Ok(Part { data: encoding.pass(part.data, part.end.is_some()), end: part.end })
            }
        }
    }

    /// What it is called when a part is [`Broken`].
    pub fn fault(&self) -> Reason {
        match self {
            Filter::Cap { .. } => Reason::AnswerTooLarge,
            Filter::Records(_) => Reason::AnswerUnusable,
            Filter::Web(_) | Filter::Encode(_) | Filter::Transcode(_) => Reason::UpstreamInvalid,
        }
    }

    /// The body ends here, too early. What could still be sent so that the client understands that, as
    /// an end of the body; `None`: it has to be cut off.
    pub fn broken(&mut self, reason: Reason) -> Option<Chunk> {
        match self {
            Filter::Web(web) => {
                let late = reason == Reason::TotalTimeout && web.is_between();
                web.part(None, Some(late.then_some(LATE)?)).ok().flatten()
            }
            Filter::Cap { .. } | Filter::Records(_) | Filter::Encode(_) => None,
            Filter::Transcode(outward) => outward.broken(reason),
        }
    }
}

/// The trailers of a call whose deadline has passed.
pub const LATE: &[u8] = b"grpc-status: 4\r\ngrpc-message: The deadline of the request passed\r\n";
