//! Snapshots: arbitrary bytes from shared memory are refused or decode, never more.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| contract::encode::fuzz_snapshot(data));
