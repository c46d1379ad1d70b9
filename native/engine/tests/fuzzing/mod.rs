//! The fuzz targets: each is a function that takes any bytes and panics for a find.
//!
//! `corpora` replays the inputs that are kept with them on any compiler; `native/fuzz` lets libFuzzer
//! look for more.

#![allow(dead_code, unused_imports)] // Each program uses a part.

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../offload_support/mod.rs"]
mod offload_support;

mod handshakes;
mod routing;

use wgd_engine::offload::{Coalescer, VirtioHeader};

use offload_support::{Bytes, check_coalescing, check_split, cut, super_packet};

/// A target by its name, which is that of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("inbound", lab::receive_noise),
    ("outbound", outbound),
    ("split", split),
    ("coalesce", coalesce),
    ("handshakes", handshakes::handshakes),
    ("allowed_ips", routing::allowed_ips),
    ("replay", routing::replay),
];

/// Run the target called `name`.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.0 == name);
    target.expect("a target").1(input);
}

/// Cutting what the TUN gives: noise, and super-packets with up to three bytes changed. What is
/// not refused must be cut as the slow way cuts it.
fn split(input: &[u8]) {
    match input {
        [0, header @ ..] => {
            if let Some((header, packet)) = header.split_first_chunk() {
                let header = VirtioHeader::from_bytes(header);
                assert_eq!(VirtioHeader::from_bytes(&header.to_bytes()), header);
                check_split(&header, packet);
            }
        }
        _ => {
            let (header, packet, is_good) = super_packet(&mut Bytes(input));
            let packets = check_split(&header, &packet);
            assert!(packets.is_some() || !is_good, "refused a good super-packet");
        }
    }
}

/// Putting packets together: flows with oddities between them. Cut again, every run must give the
/// packets it was made of, in an order that each flow can live with.
fn coalesce(input: &[u8]) {
    check_coalescing(&mut Coalescer::new(), &offload_support::traffic(input));
}

/// What the TUN gives, on its whole way: reads with any header and any packet. Whatever leaves
/// opens at the other end, and is what the slow way cuts, with its padding and in its order.
fn outbound(input: &[u8]) {
    let (mut left, mut right) = lab::End::pair();
    let mut input = Bytes(input);
    let mut expected = Vec::new();
    for _ in 0..16 {
        if input.0.is_empty() {
            break;
        }
        let (header, packet) = if input.byte() % 4 == 0 {
            let raw = <[u8; 10]>::try_from(input.take(10)).unwrap_or_default();
            let size = usize::from(input.byte());
            (VirtioHeader::from_bytes(&raw), input.take(size).to_vec())
        } else {
            let (header, packet, _) = super_packet(&mut input);
            (header, packet)
        };
        let packets = check_split(&header, &packet).unwrap_or_default();
        expected.extend(packets.into_iter().filter(|packet| has_ipv4_route(packet)));
        left.tun.inject(header, packet);
    }
    while !left.tun.waiting.lock().is_empty() {
        left.send();
    }
    let datagrams = left.socket.datagrams();
    assert_eq!(datagrams.len(), expected.len());
    for (datagram, packet) in datagrams.iter().zip(&expected) {
        assert_eq!(datagram[..4], [4, 0, 0, 0]);
        let sealed = datagram.len() - 32;
        assert!(sealed >= packet.len() && sealed < packet.len() + 16);
    }
    right.receive_from(&left);
    let delivered: usize = right
        .tun
        .written
        .lock()
        .iter()
        .map(|each| each.1.len())
        .sum();
    assert!(delivered <= expected.iter().map(Vec::len).sum());
}

/// Whether a packet goes to the one peer of the laboratory.
fn has_ipv4_route(packet: &[u8]) -> bool {
    packet.len() >= 20 && packet[0] >> 4 == 4
}
