//! Bodies encoded as they come.

use std::cell::RefCell;
use std::io::Write;

use brotli::CompressorWriter;
use flate2::{Compress, Compression, FlushCompress};
use zstd::stream::raw::{self, CParameter, InBuffer, Operation, OutBuffer};

use super::Coding;
use crate::limits;

/// Encodes one body.
pub struct Encoder {
    coding: Coding,
    level: u8,
    state: State,
}

enum State {
    Deflate(Box<Compress>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(raw::Encoder<'static>),
    /// There was no memory, or the body has ended: nothing comes out.
    Over,
}

/// Window of brotli and zstd as a power of two: 256 KiB, so that a state takes less than 1 MiB.
const WINDOW_LOG: u32 = 18;
/// Room that is made for output at once, in bytes.
const STEP: usize = 8 * 1024;

impl Encoder {
    fn new(coding: Coding, level: u8) -> Encoder {
        let compression = Compression::new(u32::from(level).min(9));
        let state = match coding {
            Coding::Gzip => State::Deflate(Box::new(Compress::new_gzip(compression, 15))),
            Coding::Deflate => State::Deflate(Box::new(Compress::new(compression, true))),
            Coding::Brotli => {
                let level = u32::from(level).min(11);
                let writer = CompressorWriter::new(Vec::new(), STEP, level, WINDOW_LOG);
                State::Brotli(Box::new(writer))
            }
            Coding::Zstd => zstd_encoder(level).map_or(State::Over, State::Zstd),
        };
        Encoder { coding, level, state }
    }

    /// Takes the next part of the body and appends what comes out. `flush`: all that was taken can be
    /// read from what has come out.
    pub fn pass(&mut self, data: &[u8], flush: bool, out: &mut Vec<u8>) {
        match &mut self.state {
            State::Deflate(state) => {
                deflate(state, data, FlushCompress::None, out);
                if flush && !data.is_empty() {
                    deflate(state, b"", FlushCompress::Sync, out);
                }
            }
            State::Brotli(writer) => {
                // A Vec takes whatever it is given.
                let _ = writer.write_all(data);
                if flush && !data.is_empty() {
                    let _ = writer.flush();
                }
                out.append(writer.get_mut());
            }
            State::Zstd(state) => {
                let mut input = InBuffer::around(data);
                while input.pos() < data.len() {
                    let ran = zstd_step(out, |out| state.run(&mut input, out));
                    if ran.is_none() {
                        return;
                    }
                }
                if flush && !data.is_empty() {
                    while zstd_step(out, |out| state.flush(out)).is_some_and(|left| left > 0) {}
                }
            }
            State::Over => {}
        }
    }

    /// Appends the end of the body.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match &mut self.state {
            State::Deflate(state) => deflate(state, b"", FlushCompress::Finish, out),
            State::Brotli(_) => {
                if let State::Brotli(writer) = std::mem::replace(&mut self.state, State::Over) {
                    out.append(&mut writer.into_inner());
                }
            }
            State::Zstd(state) => {
                while zstd_step(out, |out| state.finish(out, true)).is_some_and(|left| left > 0) {}
            }
            State::Over => {}
        }
    }

    /// Makes it as new. Whether it can be used again.
    fn reset(&mut self) -> bool {
        match &mut self.state {
            State::Deflate(state) => {
                state.reset();
                true
            }
            State::Zstd(state) => state.reinit().is_ok(),
            // brotli's state cannot.
            State::Brotli(_) | State::Over => false,
        }
    }
}

fn deflate(state: &mut Compress, data: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
    let (mut rest, ends) = (data, flush == FlushCompress::Finish);
    loop {
        out.reserve(STEP);
        let (read, written) = (state.total_in(), state.total_out());
        let Ok(status) = state.compress_vec(rest, out, flush) else { return };
        rest = rest.get((state.total_in() - read) as usize..).unwrap_or_default();
        let full = out.len() == out.capacity();
        let idle = state.total_out() == written;
        let over = match ends {
            true => status == flate2::Status::StreamEnd || (idle && !full),
            false => rest.is_empty() && !full,
        };
        if over {
            return;
        }
    }
}

fn zstd_encoder(level: u8) -> Option<raw::Encoder<'static>> {
    let mut encoder = raw::Encoder::new(i32::from(level)).ok()?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG)).ok()?;
    Some(encoder)
}

/// Runs one step with room for its output. `None`: it failed, which without a bound on memory it never
/// does.
fn zstd_step(
    out: &mut Vec<u8>,
    step: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> std::io::Result<usize>,
) -> Option<usize> {
    out.reserve(STEP);
    let start = out.len();
    step(&mut OutBuffer::around_pos(out, start)).ok()
}

/// Encoders of one shard, kept for the next body: their tables take longer to make than to clear.
#[derive(Default)]
pub struct Encoders(RefCell<Vec<Encoder>>);

impl Encoders {
    /// An encoder at the beginning of a body.
    pub fn take(&self, coding: Coding, level: u8) -> Encoder {
        let mut kept = self.0.borrow_mut();
        match kept.iter().position(|one| (one.coding, one.level) == (coding, level)) {
            Some(at) => kept.swap_remove(at),
            None => Encoder::new(coding, level),
        }
    }

    /// Keeps an encoder for the next body, whatever it was in the middle of.
    pub fn give(&self, mut encoder: Encoder) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < limits::ENCODERS_KEPT && encoder.reset() {
            kept.push(encoder);
        }
    }
}
