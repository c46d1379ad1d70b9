//! What each step of a packet's way costs: run `benchmarks/micro`.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use divan::{Bencher, counter::BytesCount};
use wgd_engine::aead::{Cipher, TAG_SIZE};
use wgd_engine::allowed_ips::{AllowedIps, Prefix};
use wgd_engine::offload::{Coalescer, VirtioHeader, split};
use wgd_engine::packet::source_and_length;
use wgd_engine::peer::Peer;
use wgd_engine::replay::ReplayWindow;

const PAYLOAD: usize = 1368;
const HEADERS: usize = 52; // IPv4, and TCP with timestamps
const SEGMENTS: usize = 46;

fn main() {
    divan::main();
}

/// Inner packets as they are sealed: small ones, and those of an MTU of 1420.
#[divan::bench(args = [64, 1424])]
fn seal(bencher: Bencher, size: usize) {
    let cipher = Cipher::new(&[1; 32]);
    let mut sealed = vec![0; size + TAG_SIZE];
    let mut counter = 0;
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        counter += 1;
        cipher.seal(counter, black_box(&mut sealed));
    });
}

#[divan::bench(args = [64, 1424])]
fn open(bencher: Bencher, size: usize) {
    let cipher = Cipher::new(&[1; 32]);
    let mut sealed = vec![0; size + TAG_SIZE];
    cipher.seal(1, &mut sealed);
    bencher
        .counter(BytesCount::new(size))
        .with_inputs(|| sealed.clone())
        .bench_local_values(|mut sealed| assert!(cipher.open(1, black_box(&mut sealed))));
}

/// 46 segments, as the TUN hands them over.
fn super_packet() -> (VirtioHeader, Vec<u8>) {
    let mut packet = vec![7; HEADERS + SEGMENTS * PAYLOAD];
    let length = packet.len() as u16;
    packet[..HEADERS].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[6..10].copy_from_slice(&[0x40, 0, 64, 6]);
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet[32..34].copy_from_slice(&[0x80, 0x10]);
    packet[40..44].copy_from_slice(&[1, 1, 8, 10]);
    let header = VirtioHeader {
        flags: 1,
        gso_type: 1,
        hdr_len: HEADERS as u16,
        gso_size: PAYLOAD as u16,
        csum_start: 20,
        csum_offset: 16,
    };
    (header, packet)
}

/// The segments of `super_packet`, end to end with room for what is around each in a datagram.
fn segments() -> Vec<u8> {
    let (header, packet) = super_packet();
    let mut cut = split(&header, &packet).expect("well-formed");
    let mut arena = vec![0; SEGMENTS * 1500];
    for place in arena.chunks_exact_mut(1500) {
        let length = cut.next_length().expect("as many segments");
        cut.write_next(&mut place[..length]);
    }
    arena
}

#[divan::bench]
fn split_46_segments(bencher: Bencher) {
    let (header, packet) = super_packet();
    let mut arena = vec![0; SEGMENTS * 1500];
    bencher
        .counter(BytesCount::new(packet.len()))
        .bench_local(|| {
            let mut cut = split(&header, black_box(&packet)).expect("well-formed");
            for place in arena.chunks_exact_mut(1500) {
                let Some(length) = cut.next_length() else {
                    break;
                };
                cut.write_next(&mut place[..length]);
            }
        });
}

#[divan::bench]
fn merge_46_segments(bencher: Bencher) {
    let arena = segments();
    let mut coalescer = Coalescer::new();
    bencher
        .counter(BytesCount::new(arena.len()))
        .bench_local(|| {
            coalescer.clear();
            for place in (0..arena.len()).step_by(1500) {
                coalescer.push(black_box(&arena), place..place + HEADERS + PAYLOAD);
            }
            assert_eq!(coalescer.runs().len(), 1);
        });
}

/// Among so many prefixes of 32 bits.
#[divan::bench(args = [100, 10_000, 1_000_000])]
fn lookup(bencher: Bencher, prefixes: u32) {
    let mut table = AllowedIps::default();
    let peer = Arc::new(Peer::new(1));
    let address = |number: u32| IpAddr::from(number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    for number in 0..prefixes {
        let (address, length) = (address(number), 32);
        table.insert(Prefix { address, length }, &peer);
    }
    let mut number = 0;
    bencher.bench_local(|| {
        number = (number + 7919) % prefixes;
        assert!(table.lookup(black_box(address(number))).is_some());
    });
}

#[divan::bench]
fn replay(bencher: Bencher) {
    let mut window = ReplayWindow::new();
    let mut counter = 0;
    bencher.bench_local(|| {
        counter += 1;
        assert!(window.accept(black_box(counter)));
    });
}

#[divan::bench]
fn inner_header(bencher: Bencher) {
    let arena = segments();
    bencher.bench_local(|| source_and_length(black_box(&arena[..1424])));
}
