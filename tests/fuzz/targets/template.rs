//! Templates: any text compiles or says where it does not, and no value breaks out of its place.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::fuzz_template(data));
