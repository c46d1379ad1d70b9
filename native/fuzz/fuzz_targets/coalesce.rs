#![no_main]

#[path = "../../engine/tests/fuzzing/mod.rs"]
mod fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::run("coalesce", input));
