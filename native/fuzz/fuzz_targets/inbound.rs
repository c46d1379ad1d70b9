//! What a socket receives: noise, and transport messages with anything inside.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../engine/tests/lab/mod.rs"]
mod lab;

fuzz_target!(|input: &[u8]| lab::receive_noise(input));
