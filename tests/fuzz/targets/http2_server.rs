//! HTTP/2: whatever comes, however it is cut, it means the same and no bound is crossed.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::http2::fuzz_http2_server(data));
