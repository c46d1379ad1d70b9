//! Packets spelled out field by field, with right checksums of the slow kind.

use wgd_engine::offload::VirtioHeader;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// The fields of a packet; `bytes` fills in lengths and checksums.
#[derive(Clone, Debug)]
pub struct Packet {
    pub is_ipv6: bool,
    /// The last bytes of the addresses.
    pub source: u8,
    pub destination: u8,
    /// TOS or traffic class: DSCP and ECN.
    pub traffic_class: u8,
    pub flow_label: u16,
    pub hop_limit: u8,
    pub identification: u16,
    /// Flags and offset of IPv4.
    pub fragment: u16,
    /// IPv4 options, or IPv6 destination options of the same length; a multiple of 8 bytes.
    pub ip_options: Vec<u8>,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Packet {
    /// A TCP segment with timestamps and 100 bytes of payload, "do not fragment".
    pub fn tcp(is_ipv6: bool) -> Self {
        Self {
            is_ipv6,
            source: 1,
            destination: 2,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
            identification: 0xfffe,
            fragment: 0x4000,
            ip_options: Vec::new(),
            protocol: TCP,
            source_port: 5201,
            destination_port: 43210,
            sequence: 0xffff_ff00,
            acknowledgement: 77,
            flags: 0x10,
            window: 512,
            urgent: 0,
            tcp_options: vec![1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4],
            payload: (0..100).collect(),
        }
    }

    pub fn udp(is_ipv6: bool) -> Self {
        Self {
            protocol: UDP,
            ..Self::tcp(is_ipv6)
        }
    }

    /// The packet that follows this one in its flow, of the same size.
    pub fn next(&self) -> Self {
        Self {
            identification: self.identification.wrapping_add(1),
            sequence: self.sequence.wrapping_add(self.payload.len() as u32),
            ..self.clone()
        }
    }

    pub fn ip_size(&self) -> usize {
        self.ip_options.len() + if self.is_ipv6 { 40 } else { 20 }
    }

    pub fn transport_size(&self) -> usize {
        match self.protocol {
            TCP => 20 + self.tcp_options.len(),
            UDP => 8,
            _ => 0,
        }
    }

    pub fn checksum_offset(&self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    /// The packet on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.ip_header();
        bytes.extend(self.transport());
        if matches!(self.protocol, TCP | UDP) {
            let start = self.ip_size();
            let sum = add(
                pseudo_sum(&bytes, start, self.protocol),
                internet_sum(&bytes[start..]),
            );
            let checksum = if self.protocol == UDP && sum == 0xffff {
                0xffff
            } else {
                !sum
            };
            put(&mut bytes, start + self.checksum_offset(), checksum);
        }
        bytes
    }

    /// The packet as the kernel hands it over before it is cut into segments of `size` bytes.
    pub fn super_packet(&self, size: u16) -> (VirtioHeader, Vec<u8>) {
        let mut bytes = self.bytes();
        let start = self.ip_size();
        let sum = pseudo_sum(&bytes, start, self.protocol);
        put(&mut bytes, start + self.checksum_offset(), sum);
        let header = VirtioHeader {
            flags: 1,
            gso_type: match (self.protocol, self.is_ipv6) {
                (TCP, false) => 1,
                (TCP, true) => 4,
                _ => 5,
            },
            hdr_len: (start + self.transport_size()) as u16,
            gso_size: size,
            csum_start: start as u16,
            csum_offset: self.checksum_offset() as u16,
        };
        (header, bytes)
    }

    fn ip_header(&self) -> Vec<u8> {
        let after = self.transport_size() + self.payload.len();
        let mut bytes = Vec::new();
        if self.is_ipv6 {
            bytes.extend([0x60 | self.traffic_class >> 4, self.traffic_class << 4]);
            bytes.extend(self.flow_label.to_be_bytes());
            bytes.extend(((self.ip_options.len() + after) as u16).to_be_bytes());
            bytes.push(if self.ip_options.is_empty() {
                self.protocol
            } else {
                60
            });
            bytes.push(self.hop_limit);
            for last in [self.source, self.destination] {
                bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
            }
            let options = bytes.len();
            bytes.extend(&self.ip_options);
            if !self.ip_options.is_empty() {
                bytes[options] = self.protocol;
                bytes[options + 1] = (self.ip_options.len() / 8 - 1) as u8;
            }
        } else {
            let size = self.ip_size();
            bytes.extend([0x40 | (size / 4) as u8, self.traffic_class]);
            bytes.extend(((size + after) as u16).to_be_bytes());
            bytes.extend(self.identification.to_be_bytes());
            bytes.extend(self.fragment.to_be_bytes());
            bytes.extend([self.hop_limit, self.protocol, 0, 0]);
            bytes.extend([10, 0, 0, self.source, 10, 0, 0, self.destination]);
            bytes.extend(&self.ip_options);
            let checksum = !internet_sum(&bytes);
            put(&mut bytes, 10, checksum);
        }
        bytes
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if matches!(self.protocol, TCP | UDP) {
            bytes.extend(self.source_port.to_be_bytes());
            bytes.extend(self.destination_port.to_be_bytes());
        }
        if self.protocol == TCP {
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend(self.acknowledgement.to_be_bytes());
            bytes.extend([(self.transport_size() / 4 * 16) as u8, self.flags]);
            bytes.extend(self.window.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(self.urgent.to_be_bytes());
            bytes.extend(&self.tcp_options);
        } else if self.protocol == UDP {
            bytes.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes.extend(&self.payload);
        bytes
    }
}

/// RFC 1071 section 1, byte by byte.
pub fn internet_sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u16::from_be_bytes([*high, *low]),
        [high] => u16::from_be_bytes([*high, 0]),
        _ => unreachable!(),
    });
    words.fold(0, add)
}

/// The one's complement sum of two words.
pub fn add(left: u16, right: u16) -> u16 {
    let (sum, carry) = left.overflowing_add(right);
    sum + u16::from(carry)
}

/// The sum of the pseudo header of a packet whose transport header is at `start`.
pub fn pseudo_sum(packet: &[u8], start: usize, protocol: u8) -> u16 {
    let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let length = (packet.len() - start) as u16;
    add(
        add(internet_sum(&packet[addresses]), protocol.into()),
        length,
    )
}

pub fn put(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}

pub fn get(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}
