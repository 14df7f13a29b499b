//! Requests held against an API: whatever comes is valid or refused, and no text of it is said again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::fuzz_validate(data));
