//! Request heads: whatever comes, the parser judges and never panics.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::message::fuzz_request(data));
