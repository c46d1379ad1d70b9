//! Cutting super-packets from the TUN into packets: what a network card does for TSO and USO.
//!
//! `split` judges the virtio header and the packet's headers once and for all; a `Split` then
//! writes one packet after another. The sums of the headers are computed once, with the fields
//! that differ between segments left out; a segment adds its own fields and its payload.

use super::Malformed;
use super::checksum::Sum;
use super::transport::{
    IPV6_HEADER_SIZE, TCP, Transport, UDP, Version, read_u16, read_u32, tcp, udp, write_u16,
};
use super::virtio::{
    GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VirtioHeader,
};

/// Start to cut what the TUN gave. Refuses what contradicts itself; `hdr_len` is not looked at,
/// because the kernel itself says too much there for forwarded packets.
pub fn split<'a>(header: &VirtioHeader, packet: &'a [u8]) -> Result<Split<'a>, Malformed> {
    let work = match (header.gso_type, header.flags & NEEDS_CSUM) {
        (GSO_NONE, 0) => Work::Copy,
        (GSO_NONE, _) => Work::Complete(Completion::plan(header, packet)?),
        _ => Work::Cut(Cut::plan(header, packet)?),
    };
    let count = match &work {
        Work::Cut(cut) => (packet.len() - cut.headers).div_ceil(cut.size).max(1),
        _ => usize::from(!packet.is_empty()),
    };
    Ok(Split {
        packet,
        work,
        count,
        written: 0,
    })
}

/// The packets that one super-packet becomes, in order.
#[derive(Debug)]
pub struct Split<'a> {
    packet: &'a [u8],
    work: Work,
    count: usize,
    written: usize,
}

impl Split<'_> {
    /// How many packets there are, written or not; at most the super-packet's length.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The length in bytes of the next packet, headers included; None after the last one.
    pub fn next_length(&self) -> Option<usize> {
        if self.written == self.count {
            return None;
        }
        Some(match &self.work {
            Work::Cut(cut) => {
                let left = self.packet.len() - cut.headers - self.written * cut.size;
                cut.headers + left.min(cut.size)
            }
            _ => self.packet.len(),
        })
    }

    /// Write the next packet to the beginning of `out` and return its length; 0 after the last
    /// one. Panics if `out` is shorter than `next_length`.
    pub fn write_next(&mut self, out: &mut [u8]) -> usize {
        let Some(length) = self.next_length() else {
            return 0;
        };
        let out = &mut out[..length];
        match &self.work {
            Work::Copy => out.copy_from_slice(self.packet),
            Work::Complete(completion) => completion.write(self.packet, out),
            Work::Cut(cut) => {
                let is_last = self.written + 1 == self.count;
                cut.write(self.packet, self.written, is_last, out);
            }
        }
        self.written += 1;
        length
    }
}

#[derive(Debug)]
enum Work {
    Copy,
    Complete(Completion),
    Cut(Cut),
}

/// A packet that only lacks its checksum, of whatever protocol.
#[derive(Debug)]
struct Completion {
    start: usize,
    field: usize,
}

impl Completion {
    fn plan(header: &VirtioHeader, packet: &[u8]) -> Result<Self, Malformed> {
        let start = usize::from(header.csum_start);
        let field = start + usize::from(header.csum_offset);
        if field + 2 > packet.len() {
            return Err(Malformed("the checksum is outside the packet"));
        }
        Ok(Self { start, field })
    }

    fn write(&self, packet: &[u8], out: &mut [u8]) {
        // The field holds the sum of the pseudo header, which is so counted in.
        let checksum = Sum::of(&packet[self.start..]).checksum();
        out.copy_from_slice(packet);
        write_u16(out, self.field, never_zero(checksum));
    }
}

/// How to cut a super-packet.
#[derive(Debug)]
struct Cut {
    transport: Transport,
    /// The length of all headers in bytes.
    headers: usize,
    /// The payload of each segment but the last, in bytes; more than 0.
    size: usize,
    /// The IPv4 header's sum without total length, identification and checksum.
    ip_sum: Sum,
    /// The transport header's sum, pseudo header included, without lengths and checksum, and
    /// without a TCP header's sequence number and flags.
    transport_sum: Sum,
}

impl Cut {
    fn plan(header: &VirtioHeader, packet: &[u8]) -> Result<Self, Malformed> {
        let transport = Transport::find(packet)?;
        let has_ecn = header.gso_type & GSO_ECN != 0;
        let segment = &packet[transport.offset..];
        let pseudo_sum = transport.pseudo_header(packet);
        let (header_size, checksum_field, transport_sum) = match (
            header.gso_type & !GSO_ECN,
            transport.version,
            transport.protocol,
        ) {
            (GSO_TCPV4, Version::V4, TCP) | (GSO_TCPV6, Version::V6, TCP) => {
                let size = tcp::header_size(segment).ok_or(Malformed("no TCP header"))?;
                let sum = Sum::of(&segment[..size])
                    .minus(read_u16(segment, tcp::SEQUENCE))
                    .minus(read_u16(segment, tcp::SEQUENCE + 2))
                    .minus(read_u16(segment, tcp::OFFSET_AND_FLAGS))
                    .minus(read_u16(segment, tcp::CHECKSUM));
                (size, tcp::CHECKSUM, pseudo_sum.join(sum))
            }
            (GSO_UDP_L4, _, UDP) if !has_ecn => {
                if segment.len() < udp::HEADER_SIZE
                    || usize::from(read_u16(segment, udp::LENGTH)) != segment.len()
                {
                    return Err(Malformed("wrong UDP length"));
                }
                let ports = Sum::of(&segment[..udp::LENGTH]);
                (udp::HEADER_SIZE, udp::CHECKSUM, pseudo_sum.join(ports))
            }
            _ => return Err(Malformed("the packet is not what its GSO type says")),
        };
        if header.flags & NEEDS_CSUM != 0
            && (
                usize::from(header.csum_start),
                usize::from(header.csum_offset),
            ) != (transport.offset, checksum_field)
        {
            return Err(Malformed("the checksum is in the wrong place"));
        }
        if header.gso_size == 0 {
            return Err(Malformed("segments of no size"));
        }
        let ip_sum = match transport.version {
            Version::V4 => Sum::of(&packet[..transport.offset])
                .minus(read_u16(packet, 2))
                .minus(read_u16(packet, 4))
                .minus(read_u16(packet, 10)),
            Version::V6 => Sum::default(),
        };
        Ok(Self {
            transport,
            headers: transport.offset + header_size,
            size: usize::from(header.gso_size),
            ip_sum,
            transport_sum,
        })
    }

    /// Write segment number `index` to `out`, which has its length.
    fn write(&self, packet: &[u8], index: usize, is_last: bool, out: &mut [u8]) {
        let before = index * self.size;
        let start = self.headers + before;
        let payload = &packet[start..start + out.len() - self.headers];
        // The sum comes first: read again right after the copy, the bytes would be slower.
        let sum = self.transport_sum.join(Sum::of(payload));
        let (headers, body) = out.split_at_mut(self.headers);
        headers.copy_from_slice(&packet[..self.headers]);
        body.copy_from_slice(payload);

        let (ip, transport) = headers.split_at_mut(self.transport.offset);
        let transport_length = (transport.len() + payload.len()) as u16;
        match self.transport.version {
            Version::V4 => self.finish_ipv4(ip, index, transport_length),
            Version::V6 => {
                let extensions = (ip.len() - IPV6_HEADER_SIZE) as u16;
                write_u16(ip, 4, extensions + transport_length);
            }
        }
        let sum = sum.plus(transport_length);
        if self.transport.protocol == TCP {
            finish_tcp(transport, before as u32, index == 0, is_last, sum);
        } else {
            write_u16(transport, udp::LENGTH, transport_length);
            // In the sum a second time: once from the pseudo header, once from this field.
            let checksum = sum.plus(transport_length).checksum();
            write_u16(transport, udp::CHECKSUM, never_zero(checksum));
        }
    }

    fn finish_ipv4(&self, ip: &mut [u8], index: usize, transport_length: u16) {
        let length = ip.len() as u16 + transport_length;
        let identification = read_u16(ip, 4).wrapping_add(index as u16);
        write_u16(ip, 2, length);
        write_u16(ip, 4, identification);
        write_u16(
            ip,
            10,
            self.ip_sum.plus(length).plus(identification).checksum(),
        );
    }
}

/// `before` is how many payload bytes came in earlier segments.
fn finish_tcp(header: &mut [u8], before: u32, is_first: bool, is_last: bool, sum: Sum) {
    let sequence = read_u32(header, tcp::SEQUENCE).wrapping_add(before);
    let mut flags = read_u16(header, tcp::OFFSET_AND_FLAGS);
    if !is_first {
        // One reduction of the window is told once (RFC 3168 section 6.1.2).
        flags &= !tcp::CWR;
    }
    if !is_last {
        flags &= !(tcp::FIN | tcp::PSH);
    }
    let sum = sum
        .plus((sequence >> 16) as u16)
        .plus(sequence as u16)
        .plus(flags);
    header[tcp::SEQUENCE..tcp::SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
    write_u16(header, tcp::OFFSET_AND_FLAGS, flags);
    write_u16(header, tcp::CHECKSUM, sum.checksum());
}

/// A checksum of 0 means "none" in UDP; 0xffff is the same number (RFC 768).
fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}
