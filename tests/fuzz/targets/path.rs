//! Paths: one normal form, which normalising again leaves alone.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::route::path::fuzz_path(data));
