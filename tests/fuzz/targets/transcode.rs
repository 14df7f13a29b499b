//! JSON and messages, path templates, streams: whatever is read can be told, and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::fuzz_transcode(data));
