//! Bodies that are changed: JSON by operations, forms and XML as JSON, records in any pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::fuzz_payload(data));
