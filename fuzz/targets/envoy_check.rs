//! See `streamgate::fuzzing` for the property that must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamgate::fuzzing::run("envoy_check", data));
