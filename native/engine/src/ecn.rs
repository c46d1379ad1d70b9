//! Explicit congestion notification through the tunnel (RFC 6040): a router on the way outside marks
//! the outer packet, and who is inside has to hear of it. The field is the two lowest bits of the
//! IPv4 type of service and of the IPv6 traffic class.

/// The packet's sender does not understand such marks.
pub const NOT_CAPABLE: u8 = 0;
/// The packet's sender does, and has classified the packet as ECT(1).
pub const CAPABLE_1: u8 = 1;
/// The packet's sender does; ECT(0).
pub const CAPABLE_0: u8 = 2;
/// A router has marked the packet.
pub const CONGESTION_EXPERIENCED: u8 = 3;

const MASK: u8 = 3;

/// The field of an IP packet, which is that of the outer packet as well (section 4.1, normal mode);
/// 0 for what is no IP packet.
pub fn of(packet: &[u8]) -> u8 {
    match *packet {
        [first, second, ..] if first >> 4 == 4 => second & MASK,
        [first, second, ..] if first >> 4 == 6 => second >> 4 & MASK,
        _ => NOT_CAPABLE,
    }
}

/// Let the IP packet that was inside an outer one with this field, or traffic class, have the field
/// of figure 4 (section 4.2); false if it must be dropped. Its header must be all there.
pub fn decapsulate(outer: u8, packet: &mut [u8]) -> bool {
    match (of(packet), outer & MASK) {
        (NOT_CAPABLE, CONGESTION_EXPERIENCED) => return false,
        (CAPABLE_0, CAPABLE_1) => set(packet, CAPABLE_1),
        (CAPABLE_0 | CAPABLE_1, CONGESTION_EXPERIENCED) => set(packet, CONGESTION_EXPERIENCED),
        _ => {}
    }
    true
}

fn set(packet: &mut [u8], field: u8) {
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & !(MASK << 4) | field << 4;
        return;
    }
    let before = word(packet, 0);
    packet[1] = packet[1] & !MASK | field;
    // By difference (RFC 1624): a wrong checksum stays wrong.
    let sum = [!word(packet, 10), !before, word(packet, 0)]
        .into_iter()
        .map(u32::from)
        .sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn word(packet: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([packet[offset], packet[offset + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::Sum;

    /// RFC 6040, figure 4: by inner field, then by outer; None is "drop".
    const FIGURE_4: [[Option<u8>; 4]; 4] = [
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];

    fn ipv4(class: u8) -> Vec<u8> {
        let mut packet = vec![0x45, class, 0, 20, 1, 2, 0, 0, 64, 17, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        let checksum = Sum::of(&packet).checksum();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn ipv6(class: u8) -> Vec<u8> {
        let mut packet = vec![0x60 | class >> 4, class << 4 | 0x0a, 0xbc, 0xde];
        packet.resize(40, 7);
        packet
    }

    #[test]
    fn joins_inner_and_outer_as_figure_4_says_and_keeps_the_rest() {
        for dscp in [0, 0x88, 0xfc] {
            for (inner, row) in FIGURE_4.iter().enumerate() {
                for (outer, expected) in row.iter().enumerate() {
                    for make in [ipv4, ipv6] {
                        let mut packet = make(dscp | inner as u8);
                        // The outer DSCP means nothing here.
                        let passes = decapsulate(outer as u8 | 0x88, &mut packet);
                        assert_eq!(passes, expected.is_some());
                        let expected = expected.unwrap_or(inner as u8);
                        assert_eq!(of(&packet), expected);
                        assert_eq!(packet, make(dscp | expected), "{inner} in {outer}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let mut packet = ipv4(2);
        packet[11] ^= 1;
        assert!(decapsulate(3, &mut packet));
        assert!(!Sum::of(&packet).is_right());
    }

    #[test]
    fn what_is_no_packet_has_no_field() {
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[0x45]), 0);
        assert_eq!(of(&[0x75, 3]), 0);
    }
}
