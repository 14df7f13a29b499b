//! What every row of the bad-input table, every foreign vector and every split of the input gets.

mod bad_input;
mod llhttp;
mod responses;
mod splits;

use super::{
    BodyFraming, ChunkedDecoder, Event, Framing, HeadLimits, Progress, Refusal, RequestHead,
    ResponseHead, ResponseRefusal, Target,
};

/// What a connection's bytes amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So many whole messages, and nothing wrong up to the end of the bytes.
    Read(usize),
    /// Bytes came behind the last message of a connection; they are never parsed.
    Ignored(usize),
    /// After so many whole messages: what the offender is answered.
    Refused(usize, u16, String),
}

impl Outcome {
    fn refused(messages: usize, refusal: Refusal) -> Outcome {
        Outcome::Refused(messages, refusal.status(), refusal.to_string())
    }
}

/// The status of an outcome: 0 when nothing was refused.
pub(super) fn status(outcome: &Outcome) -> u16 {
    match outcome {
        Outcome::Read(_) | Outcome::Ignored(_) => 0,
        Outcome::Refused(_, status, _) => *status,
    }
}

/// Reads requests as a server would that grants every tunnel and upgrade.
pub(super) fn read_requests(mut bytes: &[u8]) -> Outcome {
    let mut head = RequestHead::new();
    let mut messages = 0;
    while !bytes.is_empty() {
        match head.parse(bytes, &HeadLimits::REQUEST) {
            Ok(Progress::Complete) => {}
            Ok(Progress::Partial) => return Outcome::Read(messages),
            Err(refusal) => return Outcome::refused(messages, refusal),
        }
        if matches!(head.target, Target::Authority(_)) {
            return Outcome::Read(messages + 1); // A tunnel, where the server allows it.
        }
        bytes = &bytes[head.head_len..];
        let body = match head.framing {
            Framing::None => Ok(Some(0)),
            Framing::Length(length) => {
                Ok((length <= bytes.len() as u64).then_some(length as usize))
            }
            Framing::Chunked => chunked_len(bytes),
        };
        match body {
            Ok(Some(len)) => bytes = &bytes[len..],
            Ok(None) => return Outcome::Read(messages),
            Err(refusal) => return Outcome::refused(messages, refusal),
        }
        messages += 1;
        if head.upgrade.is_some() {
            return Outcome::Read(messages); // The bytes of another protocol.
        }
        if !head.keep_alive && !bytes.is_empty() {
            return Outcome::Ignored(messages);
        }
    }
    Outcome::Read(messages)
}

/// Reads responses, each as the answer to a GET, until the connection can carry no more.
pub(super) fn read_responses(mut bytes: &[u8]) -> Outcome {
    let mut head = ResponseHead::new();
    let mut messages = 0;
    let refused =
        |messages, refusal: ResponseRefusal| Outcome::Refused(messages, 502, refusal.to_string());
    while !bytes.is_empty() {
        match head.parse(bytes, false, &HeadLimits::RESPONSE) {
            Ok(Progress::Complete) => {}
            Ok(Progress::Partial) => return Outcome::Read(messages),
            Err(refusal) => return refused(messages, refusal),
        }
        bytes = &bytes[head.head_len..];
        messages += 1;
        if head.switching {
            return Outcome::Read(messages);
        }
        match head.framing {
            BodyFraming::None => {}
            BodyFraming::UntilClose => return Outcome::Read(messages),
            BodyFraming::Length(length) if length > bytes.len() as u64 => {
                return Outcome::Read(messages);
            }
            BodyFraming::Length(length) => bytes = &bytes[length as usize..],
            BodyFraming::Chunked => match chunked_len(bytes) {
                Ok(Some(len)) => bytes = &bytes[len..],
                Ok(None) => return Outcome::Read(messages),
                Err(refusal) => return Outcome::refused(messages, refusal),
            },
        }
        if !head.keep_alive && !bytes.is_empty() {
            return Outcome::Ignored(messages);
        }
    }
    Outcome::Read(messages)
}

/// Bytes of the chunked body at the start of `bytes`; `None`: not all there.
fn chunked_len(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut decoder = ChunkedDecoder::new();
    let mut at = 0;
    loop {
        let (used, event) = decoder.next(&bytes[at..]).map_err(|error| error.refusal())?;
        at += used;
        match event {
            Event::Data(_) => {}
            Event::NeedMore => return Ok(None),
            Event::Done => return Ok(Some(at)),
        }
    }
}
