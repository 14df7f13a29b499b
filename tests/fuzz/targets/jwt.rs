//! JSON Web Tokens: whatever comes is read in one way or refused, and nothing of it reaches a field
//! that does not fit one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::fuzz_jwt(data));
