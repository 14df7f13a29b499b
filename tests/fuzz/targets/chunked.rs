//! Chunked bodies, cut anywhere: the decoder never panics and never reads past the end.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::message::fuzz_chunked(data));
