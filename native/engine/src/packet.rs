//! What the data plane reads of an inner IP packet (RFC 791, section 3.1; RFC 8200, section 3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const IPV4_HEADER_SIZE: usize = 20;
const IPV6_HEADER_SIZE: usize = 40;

/// The destination of a packet; `None` if it is too short to be one.
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 if packet.len() >= IPV4_HEADER_SIZE => Some(v4(packet, 16)),
        6 if packet.len() >= IPV6_HEADER_SIZE => Some(v6(packet, 24)),
        _ => None,
    }
}

/// The source of a packet; `None` if it is too short to be one.
pub fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 if packet.len() >= IPV4_HEADER_SIZE => Some(v4(packet, 12)),
        6 if packet.len() >= IPV6_HEADER_SIZE => Some(v6(packet, 8)),
        _ => None,
    }
}

/// The source of a packet that may be followed by padding, and its own length; `None` if its
/// header contradicts itself or what there is.
pub fn source_and_length(padded: &[u8]) -> Option<(IpAddr, usize)> {
    match padded.first()? >> 4 {
        4 if padded.len() >= IPV4_HEADER_SIZE => {
            let header_length = usize::from(padded[0] & 15) * 4;
            let length = usize::from(u16::from_be_bytes([padded[2], padded[3]]));
            (IPV4_HEADER_SIZE <= header_length && header_length <= length && length <= padded.len())
                .then(|| (v4(padded, 12), length))
        }
        6 if padded.len() >= IPV6_HEADER_SIZE => {
            let payload = usize::from(u16::from_be_bytes([padded[4], padded[5]]));
            let length = IPV6_HEADER_SIZE + payload;
            (length <= padded.len()).then(|| (v6(padded, 8), length))
        }
        _ => None,
    }
}

fn v4(packet: &[u8], offset: usize) -> IpAddr {
    let octets: [u8; 4] = packet[offset..offset + 4].try_into().expect("4 bytes");
    Ipv4Addr::from(octets).into()
}

fn v6(packet: &[u8], offset: usize) -> IpAddr {
    let octets: [u8; 16] = packet[offset..offset + 16].try_into().expect("16 bytes");
    Ipv6Addr::from(octets).into()
}
