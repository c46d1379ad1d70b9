//! Splitting and coalescing under random packets, against the slow way of `offload_support`.

mod offload_support;

use offload_support::{
    Bytes, Packet, UDP, check_coalescing, check_split, coalesce, super_packet, traffic,
};
use proptest::collection::vec;
use proptest::prelude::*;
use wgd_engine::offload::{Coalescer, VirtioHeader};

/// A packet that can be both cut and put together, and the size of its segments.
fn mergeable() -> impl Strategy<Value = (Packet, u16)> {
    let shape = (
        any::<bool>(),
        any::<bool>(),
        0..=10_usize,
        1..=1500_u16,
        2..=64_usize,
    );
    let numbers = (
        any::<u16>(),
        any::<u32>(),
        any::<u32>(),
        any::<u8>(),
        any::<bool>(),
    );
    let content = (1..=1500_u16, vec(any::<u8>(), 1..64));
    (shape, numbers, content).prop_map(|(shape, numbers, (last, pattern))| {
        let (is_ipv6, is_udp, options, size, count) = shape;
        let (identification, sequence, acknowledgement, traffic_class, is_pushed) = numbers;
        let mut packet = if is_udp {
            Packet::udp(is_ipv6)
        } else {
            Packet::tcp(is_ipv6)
        };
        packet.tcp_options = vec![1; options * 4];
        packet.identification = identification;
        packet.fragment = if is_pushed { 0 } else { 0x4000 };
        packet.sequence = sequence;
        packet.acknowledgement = acknowledgement;
        packet.traffic_class = traffic_class;
        packet.flags = if is_pushed { 0x18 } else { 0x10 };
        let room = 65_535 - packet.ip_size() - packet.transport_size();
        let length = usize::from(size) * (count - 1) + usize::from(last.min(size));
        packet.payload = pattern.into_iter().cycle().take(length.min(room)).collect();
        (packet, size)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_the_kernel_makes_is_cut_right(input in vec(any::<u8>(), 16..100)) {
        let (header, packet, is_good) = super_packet(&mut Bytes(&input));
        let packets = check_split(&header, &packet);
        prop_assert!(packets.is_some() || !is_good);
    }

    #[test]
    fn noise_is_cut_right_or_refused(
        header in any::<[u8; 10]>(),
        gso_type in 0..6_u8,
        packet in vec(any::<u8>(), 0..300),
        version in prop_oneof![Just(0x45), Just(0x60), any::<u8>()],
    ) {
        let mut packet = packet;
        if let Some(first) = packet.first_mut() {
            *first = version;
        }
        let mut header = VirtioHeader::from_bytes(&header);
        check_split(&header, &packet);
        header.gso_type = gso_type;
        header.csum_start %= 64;
        header.csum_offset %= 32;
        check_split(&header, &packet);
    }

    #[test]
    fn cut_and_put_together_is_the_same((packet, size) in mergeable()) {
        let (header, bytes) = packet.super_packet(size);
        let packets = check_split(&header, &bytes).expect("a good super-packet");
        let written = coalesce(&mut Coalescer::new(), &packets);
        prop_assert_eq!(written.len(), 1);
        if packets.len() > 1 {
            prop_assert_eq!(written[0].1.virtio, header);
            prop_assert_eq!(&written[0].1.bytes, &bytes);
        } else {
            prop_assert_eq!(&written[0].1.bytes, &packet.bytes());
        }
        prop_assert_eq!(packet.protocol == UDP, header.gso_type == 5);
    }

    #[test]
    fn put_together_and_cut_is_the_same(inputs in vec(vec(any::<u8>(), 0..600), 1..3)) {
        // One after the other, as old runs are used again.
        let mut coalescer = Coalescer::new();
        for input in inputs {
            check_coalescing(&mut coalescer, &traffic(&input));
        }
    }
}

/// The generators are worth something only if they merge, and refuse to merge.
#[test]
fn traffic_has_runs_and_oddities() {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let input: Vec<u8> = (0..1000).map(|_| next()).collect();
    let packets = traffic(&input);
    let runs = coalesce(&mut Coalescer::new(), &packets);
    let longest = runs.iter().map(|(indices, _)| indices.len()).max();
    assert!(packets.len() >= 150);
    assert!(longest >= Some(4), "{longest:?}");
    assert!(runs.len() >= 40, "{}", runs.len());
}
