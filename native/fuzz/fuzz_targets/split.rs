//! Cutting what the TUN gives: noise, and super-packets with up to three bytes changed. What is
//! not refused must be cut as the slow way cuts it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wgd_engine::offload::VirtioHeader;

#[path = "../../engine/tests/offload_support/mod.rs"]
mod support;

fuzz_target!(|input: &[u8]| {
    match input {
        [0, header @ ..] => {
            if let Some((header, packet)) = header.split_first_chunk() {
                support::check_split(&VirtioHeader::from_bytes(header), packet);
            }
        }
        _ => {
            let (header, packet, is_good) = support::super_packet(&mut support::Bytes(input));
            let packets = support::check_split(&header, &packet);
            assert!(packets.is_some() || !is_good, "refused a good super-packet");
        }
    }
});
