//! HPACK: whatever comes, blocks are decoded within their bounds or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::http2::fuzz_hpack(data));
