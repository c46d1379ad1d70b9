//! The virtio-net header before each packet of a TUN device (linux/virtio_net.h).

/// The header's length in bytes, without the count of merged buffers.
pub const VIRTIO_HEADER_SIZE: usize = 10;

/// Flag: the transport checksum is to be completed from `csum_start` on.
pub const NEEDS_CSUM: u8 = 1;

/// Not a super-packet.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4, to be cut into segments.
pub const GSO_TCPV4: u8 = 1;
/// UDP over IPv4, to be cut into fragments: a datagram larger than the MTU. Never asked for.
pub const GSO_UDP: u8 = 3;
/// TCP over IPv6, to be cut into segments.
pub const GSO_TCPV6: u8 = 4;
/// UDP over IPv4 or IPv6, to be cut into datagrams (Linux 6.2).
pub const GSO_UDP_L4: u8 = 5;
/// Added to a TCP type: the first segment has CWR set, the others must not have it.
pub const GSO_ECN: u8 = 0x80;

/// What the kernel tells about a packet that is yet to be cut or summed, or is told by us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioHeader {
    /// `NEEDS_CSUM` or nothing; other flags mean nothing to us.
    pub flags: u8,
    /// One of the `GSO_` constants.
    pub gso_type: u8,
    /// The length of all headers in bytes. A hint: forwarded packets show a too large one.
    pub hdr_len: u16,
    /// The payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Where the transport header begins, in bytes.
    pub csum_start: u16,
    /// Where the checksum is, in bytes from `csum_start`.
    pub csum_offset: u16,
}

impl VirtioHeader {
    /// Read a header; its numbers are in the machine's byte order.
    pub fn from_bytes(bytes: &[u8; VIRTIO_HEADER_SIZE]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Write the header as the kernel reads it.
    pub fn to_bytes(self) -> [u8; VIRTIO_HEADER_SIZE] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_kernels_layout() {
        let mut bytes = [1, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
        for (index, number) in [52_u16, 1368, 20, 16].into_iter().enumerate() {
            bytes[2 + 2 * index..4 + 2 * index].copy_from_slice(&number.to_ne_bytes());
        }
        let header = VirtioHeader::from_bytes(&bytes);
        let expected = VirtioHeader {
            flags: 1,
            gso_type: 0x81,
            hdr_len: 52,
            gso_size: 1368,
            csum_start: 20,
            csum_offset: 16,
        };
        assert_eq!(header, expected);
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(VirtioHeader::default().to_bytes(), [0; 10]);
    }
}
