//! Where the transport header of an IP packet is, and what it counts into its checksum.
//!
//! The only place that reads IP headers. It trusts nothing: what it returns lies in the packet.

use super::Malformed;
use super::checksum::Sum;

pub(super) const IPV4_HEADER_SIZE: usize = 20;
pub(super) const IPV6_HEADER_SIZE: usize = 40;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

/// Flag in the word at byte 6 of an IPv4 header: do not fragment.
pub(super) const DO_NOT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

/// The transport header of one whole packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transport {
    pub(super) version: Version,
    pub(super) protocol: u8,
    /// Where the header begins, in bytes; at most the packet's length.
    pub(super) offset: usize,
}

impl Transport {
    /// Find the header. Refuses fragments, lengths that are not the packet's, and a source route
    /// not yet at its end, whose checksum counts another destination (RFC 8200 section 8.1).
    pub(super) fn find(packet: &[u8]) -> Result<Self, Malformed> {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) if packet.len() >= IPV4_HEADER_SIZE => Self::find_in_ipv4(packet),
            Some(6) if packet.len() >= IPV6_HEADER_SIZE => Self::find_in_ipv6(packet),
            _ => Err(Malformed("not an IP packet")),
        }
    }

    fn find_in_ipv4(packet: &[u8]) -> Result<Self, Malformed> {
        let offset = usize::from(packet[0] & 0x0f) * 4;
        let length = usize::from(read_u16(packet, 2));
        if offset < IPV4_HEADER_SIZE || offset > length || length != packet.len() {
            return Err(Malformed("wrong IPv4 length"));
        }
        if read_u16(packet, 6) & MORE_FRAGMENTS_OR_OFFSET != 0 {
            return Err(Malformed("a fragment"));
        }
        Ok(Self {
            version: Version::V4,
            protocol: packet[9],
            offset,
        })
    }

    fn find_in_ipv6(packet: &[u8]) -> Result<Self, Malformed> {
        if IPV6_HEADER_SIZE + usize::from(read_u16(packet, 4)) != packet.len() {
            return Err(Malformed("wrong IPv6 length"));
        }
        let mut protocol = packet[6];
        let mut offset = IPV6_HEADER_SIZE;
        // Each header takes 8 bytes at least, so this ends. A fragment header ends it too, as a
        // protocol that is not a transport.
        while matches!(protocol, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
            let Some(&[next, length, _, segments_left]) = packet[offset..].first_chunk() else {
                return Err(Malformed("truncated extension header"));
            };
            if protocol == ROUTING && segments_left != 0 {
                return Err(Malformed("a source route"));
            }
            protocol = next;
            offset += (usize::from(length) + 1) * 8;
            if offset > packet.len() {
                return Err(Malformed("truncated extension header"));
            }
        }
        Ok(Self {
            version: Version::V6,
            protocol,
            offset,
        })
    }

    /// The sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1), without the
    /// transport length. `packet` is the one this was found in.
    pub(super) fn pseudo_header(self, packet: &[u8]) -> Sum {
        Sum::of(self.addresses(packet)).plus(u16::from(self.protocol))
    }

    /// Source and destination of the packet this was found in.
    pub(super) fn addresses(self, packet: &[u8]) -> &[u8] {
        match self.version {
            Version::V4 => &packet[12..20],
            Version::V6 => &packet[8..40],
        }
    }
}

/// The places and flags of a TCP header (RFC 9293 section 3.1).
pub(super) mod tcp {
    pub(in crate::offload) const SEQUENCE: usize = 4;
    pub(in crate::offload) const OFFSET_AND_FLAGS: usize = 12;
    pub(in crate::offload) const CHECKSUM: usize = 16;

    pub(in crate::offload) const FIN: u16 = 0x01;
    pub(in crate::offload) const PSH: u16 = 0x08;
    pub(in crate::offload) const ACK: u16 = 0x10;
    pub(in crate::offload) const CWR: u16 = 0x80;
    /// All flags in their byte. The bits above them are reserved.
    pub(in crate::offload) const FLAGS: u16 = 0xff;

    const HEADER_SIZE: usize = 20;

    /// The length of a segment's header in bytes, if it is all there.
    pub(in crate::offload) fn header_size(segment: &[u8]) -> Option<usize> {
        let size = usize::from(segment.get(OFFSET_AND_FLAGS)? >> 4) * 4;
        (HEADER_SIZE <= size && size <= segment.len()).then_some(size)
    }
}

/// The places of a UDP header (RFC 768).
pub(super) mod udp {
    pub(in crate::offload) const LENGTH: usize = 4;
    pub(in crate::offload) const CHECKSUM: usize = 6;
    pub(in crate::offload) const HEADER_SIZE: usize = 8;
}

/// The number in network byte order at `offset`, which must be in `bytes`.
pub(super) fn read_u16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

pub(super) fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    u32::from(read_u16(bytes, offset)) << 16 | u32::from(read_u16(bytes, offset + 2))
}

pub(super) fn write_u16(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 packet of 40 bytes and these.
    fn ipv6(next_header: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next_header, 64];
        packet.resize(IPV6_HEADER_SIZE, 0);
        packet.extend(rest);
        packet
    }

    fn found(packet: &[u8]) -> Option<(u8, usize)> {
        let transport = Transport::find(packet).ok()?;
        Some((transport.protocol, transport.offset))
    }

    #[test]
    fn walks_extension_headers() {
        assert_eq!(found(&ipv6(17, &[])), Some((17, 40)));
        // Hop-by-hop of 8 bytes, destination options of 16 bytes, a finished source route.
        let mut rest = vec![60, 0, 0, 0, 0, 0, 0, 0];
        rest.extend([43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([6, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(found(&ipv6(0, &rest)), Some((6, 72)));
        for length in 0..rest.len() {
            assert_eq!(found(&ipv6(0, &rest[..length])), None, "{length}");
        }
        rest[24 + 3] = 1; // Another stop to make
        assert_eq!(found(&ipv6(0, &rest)), None);
        assert_eq!(found(&ipv6(44, &[6, 0, 0, 1, 0, 0, 0, 0])), Some((44, 40)));
    }

    #[test]
    fn refuses_wrong_lengths() {
        let mut packet = ipv6(17, &[0; 8]);
        packet.push(0);
        assert_eq!(found(&packet), None);
        packet.truncate(47);
        assert_eq!(found(&packet), None);

        let mut packet = vec![0x46, 0, 0, 28, 0, 0, 0, 0, 64, 17];
        packet.resize(28, 0);
        assert_eq!(found(&packet), Some((17, 24)));
        for wrong in [0x44, 0x48, 0x56, 0x06] {
            packet[0] = wrong;
            assert_eq!(found(&packet), None, "{wrong:#x}");
        }
        packet[0] = 0x46;
        packet[3] = 27;
        assert_eq!(found(&packet), None);
        assert_eq!(found(&[]), None);
    }
}
