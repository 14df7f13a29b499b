//! Bodies decoded as they come, within bounds: what unfolds to more than it may, or out of all proportion to
//! what was sent, is refused before it takes memory.

use std::io::{self, Write};

use brotli::DecompressorWriter;
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{self, DParameter, InBuffer, Operation, OutBuffer};

use super::Coding;
use crate::limits;

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// It is not what its coding says, or is cut off.
    Malformed,
    /// It unfolds to too much.
    TooLarge,
}

/// Decodes one body of one coding.
pub struct Decoder {
    state: State,
    bound: Bound,
}

/// What may come out.
struct Bound {
    /// Bytes in all.
    most: u64,
    taken: u64,
    given: u64,
}

impl Bound {
    /// Room for output at this moment.
    fn room(&self) -> u64 {
        let ratio = self.taken.saturating_mul(limits::DECODE_RATIO);
        let fair = ratio.max(limits::DECODE_FREE);
        self.most.min(fair).saturating_sub(self.given)
    }
}

enum State {
    /// Gzip or zlib; for zlib the first byte is not seen yet.
    Inflate {
        state: Box<Decompress>,
        gzip: bool,
        begun: bool,
        over: bool,
    },
    Brotli {
        writer: Box<DecompressorWriter<Output>>,
        over: bool,
    },
    Zstd {
        state: raw::Decoder<'static>,
        within: bool,
        begun: bool,
    },
}

/// Room that is made for output at once, in bytes.
const STEP: usize = 16 * 1024;
/// Largest window of zstd, as a power of two: 8 MiB (RFC 9659 §3).
const WINDOW_LOG: u32 = 23;

impl Decoder {
    /// `most`: bytes that may come out in all.
    ///
    /// # Errors
    /// There is no memory for its state.
    pub fn new(coding: Coding, most: u64) -> Result<Decoder, Undecodable> {
        let inflate = |gzip| {
            let state = match gzip {
                true => Decompress::new_gzip(15),
                false => Decompress::new(true),
            };
            State::Inflate { state: Box::new(state), gzip, begun: false, over: false }
        };
        let state = match coding {
            Coding::Gzip => inflate(true),
            Coding::Deflate => inflate(false),
            Coding::Brotli => {
                let writer = DecompressorWriter::new(Output::default(), STEP);
                State::Brotli { writer: Box::new(writer), over: false }
            }
            Coding::Zstd => {
                let mut state = raw::Decoder::new().map_err(|_| Undecodable::Malformed)?;
                let window = state.set_parameter(DParameter::WindowLogMax(WINDOW_LOG));
                window.map_err(|_| Undecodable::Malformed)?;
                State::Zstd { state, within: false, begun: false }
            }
        };
        Ok(Decoder { state, bound: Bound { most, taken: 0, given: 0 } })
    }

    /// Takes the next part of the body and appends what comes out. Nothing may follow an error or the end.
    ///
    /// # Errors
    /// See [`Undecodable`].
    pub fn pass(&mut self, data: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Undecodable> {
        self.bound.taken += data.len() as u64;
        let start = out.len();
        match &mut self.state {
            State::Inflate { state, gzip, begun, over } => {
                inflate(state, (*gzip, begun, over), data, &mut self.bound, out)?;
                // An empty body is no body of this coding.
                if end && !*over {
                    return Err(Undecodable::Malformed);
                }
            }
            State::Brotli { writer, over } => {
                let room = self.bound.room();
                *writer.get_mut() = Output { out: std::mem::take(out), room, full: false };
                let written = brotli(writer, data, end, over);
                let output = std::mem::take(writer.get_mut());
                *out = output.out;
                match (written, output.full) {
                    (_, true) => return Err(Undecodable::TooLarge),
                    (Err(_), false) => return Err(Undecodable::Malformed),
                    (Ok(()), false) => self.bound.given += (out.len() - start) as u64,
                }
            }
            State::Zstd { state, within, begun } => {
                zstd(state, (within, begun), data, &mut self.bound, out)?;
                if end && (*within || !*begun) {
                    return Err(Undecodable::Malformed);
                }
            }
        }
        Ok(())
    }
}

fn inflate(
    state: &mut Decompress,
    (gzip, begun, over): (bool, &mut bool, &mut bool),
    data: &[u8],
    bound: &mut Bound,
    out: &mut Vec<u8>,
) -> Result<(), Undecodable> {
    let mut rest = data;
    loop {
        if *over && !rest.is_empty() {
            // Another member (RFC 1952 §2.2); zlib has but one.
            if !gzip {
                return Err(Undecodable::Malformed);
            }
            *state = Decompress::new_gzip(15);
            *over = false;
        }
        if let (false, Some(first)) =
            (std::mem::replace(begun, *begun || !rest.is_empty()), rest.first())
        {
            // Some send deflate without the zlib format around it, whose first byte says 8 (RFC 1950 §2.2).
            if !gzip && first & 0x0f != 8 {
                *state = Decompress::new(false);
            }
        }
        // One byte more than there is room for, to see whether there would be more.
        let room = bound.room().saturating_add(1).min(STEP as u64) as usize;
        let start = out.len();
        out.resize(start + room, 0);
        let (read, written) = (state.total_in(), state.total_out());
        let status = state.decompress(rest, &mut out[start..], FlushDecompress::None);
        let read = (state.total_in() - read) as usize;
        let written = (state.total_out() - written) as usize;
        out.truncate(start + written);
        let status = status.map_err(|_| Undecodable::Malformed)?;
        rest = rest.get(read..).unwrap_or_default();
        if written as u64 > bound.room() {
            return Err(Undecodable::TooLarge);
        }
        bound.given += written as u64;
        *over = status == Status::StreamEnd;
        if (*over && rest.is_empty()) || (!*over && rest.is_empty() && written < room) {
            return Ok(());
        }
        if !*over && read == 0 && written == 0 {
            return Err(Undecodable::Malformed);
        }
    }
}

/// Where brotli's output goes, up to a bound.
#[derive(Default)]
struct Output {
    out: Vec<u8>,
    room: u64,
    full: bool,
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.room.checked_sub(data.len() as u64) {
            Some(room) => self.room = room,
            None => {
                self.full = true;
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.out.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn brotli(
    writer: &mut DecompressorWriter<Output>,
    data: &[u8],
    end: bool,
    over: &mut bool,
) -> io::Result<()> {
    let mut rest = data;
    while !rest.is_empty() {
        // It takes less than it is given once it is over, and nothing more then.
        let taken = match *over {
            true => 0,
            false => writer.write(rest)?,
        };
        if taken == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        *over = taken < rest.len();
        rest = &rest[taken..];
    }
    if end { writer.close() } else { Ok(()) }
}

fn zstd(
    state: &mut raw::Decoder<'static>,
    (within, begun): (&mut bool, &mut bool),
    data: &[u8],
    bound: &mut Bound,
    out: &mut Vec<u8>,
) -> Result<(), Undecodable> {
    let mut input = InBuffer::around(data);
    loop {
        let room = bound.room().saturating_add(1).min(STEP as u64) as usize;
        let start = out.len();
        out.resize(start + room, 0);
        let before = input.pos();
        let mut output = OutBuffer::around(&mut out[start..]);
        let left = state.run(&mut input, &mut output);
        let written = output.pos();
        out.truncate(start + written);
        let left = left.map_err(|_| Undecodable::Malformed)?;
        if written as u64 > bound.room() {
            return Err(Undecodable::TooLarge);
        }
        bound.given += written as u64;
        if input.pos() > before {
            // 0: a frame has ended; others may follow (RFC 8878 §3.1).
            *begun = true;
            *within = left != 0;
        } else if written > 0 {
            *within = left != 0;
        }
        if input.pos() == data.len() && written < room {
            return Ok(());
        }
        if input.pos() == before && written == 0 {
            return Err(Undecodable::Malformed);
        }
    }
}

/// Decodes a whole body, to at most `most` bytes. `codings` in the order in which they were applied.
///
/// # Errors
/// See [`Undecodable`].
pub fn decode_all(codings: &[Coding], body: &[u8], most: u64) -> Result<Vec<u8>, Undecodable> {
    let mut decoded: Option<Vec<u8>> = None;
    for coding in codings.iter().rev() {
        let from = decoded.as_deref().unwrap_or(body);
        let mut out = Vec::new();
        Decoder::new(*coding, most)?.pass(from, true, &mut out)?;
        decoded = Some(out);
    }
    Ok(decoded.unwrap_or_else(|| body.to_vec()))
}
