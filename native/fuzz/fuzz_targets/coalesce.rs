//! Putting packets together: flows with oddities between them. Cut again, every run must give the
//! packets it was made of, in an order that each flow can live with.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wgd_engine::offload::Coalescer;

#[path = "../../engine/tests/offload_support/mod.rs"]
mod support;

fuzz_target!(|input: &[u8]| {
    support::check_coalescing(&mut Coalescer::new(), &support::traffic(input));
});
