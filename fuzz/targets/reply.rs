//! See `streamgate::fuzzing`: it says what has to hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamgate::fuzzing::run("reply", data));
