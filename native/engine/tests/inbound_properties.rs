//! Nothing that a socket receives can hurt; native/fuzz looks for what this does not find.

mod lab;

use proptest::prelude::*;

/// An inner packet whose header is honest, or nearly.
fn inner_packet() -> impl Strategy<Value = Vec<u8>> {
    (20_u8..60, any::<u8>(), any::<bool>(), any::<u16>()).prop_map(|(size, byte, is_v4, noise)| {
        let mut packet = vec![byte; usize::from(size)];
        packet[0] = if is_v4 { 0x45 } else { 0x60 };
        let length = u16::from(size).wrapping_add(noise & noise >> 8 & 7);
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[4..6].copy_from_slice(&length.saturating_sub(40).to_be_bytes());
        packet
    })
}

proptest! {
    #[test]
    fn noise_does_not_hurt(input in prop::collection::vec(any::<u8>(), 0..4000)) {
        lab::receive_noise(&input);
    }

    #[test]
    fn nor_do_dishonest_packets(
        packets in prop::collection::vec((any::<u8>(), inner_packet()), 0..40)
    ) {
        let mut input = Vec::new();
        for (kind, packet) in packets {
            input.extend([kind & 0x7f, packet.len() as u8]);
            input.extend(packet);
        }
        lab::receive_noise(&input);
    }
}
