//! Entry points for fuzzing: they panic where a promise is broken, never on bad input.

/// A server that receives `data` behind the preface.
pub fn fuzz_http2_server(_data: &[u8]) {}

/// A client with requests under way that receives `data`.
pub fn fuzz_http2_client(_data: &[u8]) {}

/// Decodes `data` as header blocks.
pub fn fuzz_hpack(_data: &[u8]) {}
