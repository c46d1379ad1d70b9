//! Putting decrypted neighbours of one flow together, so that the TUN takes them in one write.
//!
//! Packets are pushed in the order of their arrival and fall into runs. Each flow has at most one
//! run that grows: a packet that does not continue it begins the flow's next run, and nothing is
//! added to an older one, so order within a flow is kept. A packet whose flow cannot be told (a
//! fragment, say) ends all runs. Checksums are verified when a second packet comes, because a
//! packet alone goes out as it is; a wrong one is never put together with others, since the
//! kernel would then make it right.
//!
//! The packets stay where they are. A run holds their places, and a header for all of them.

use std::ops::Range;

use super::checksum::Sum;
use super::flows::Flows;
use super::transport::{
    DO_NOT_FRAGMENT, ICMP, ICMPV6, IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, TCP, Transport, UDP,
    Version, read_u16, read_u32, tcp, udp, write_u16,
};
use super::virtio::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VirtioHeader};

const MAX_PACKET_SIZE: usize = 65_535;
/// IPv6 and TCP with all its options, in bytes.
const MAX_HEADERS_SIZE: usize = 100;
/// The kernel's UDP_MAX_SEGMENTS of old.
const MAX_DATAGRAMS: usize = 64;
/// Well below the 1,024 pieces that one `writev` takes.
const MAX_SEGMENTS: usize = 512;

/// The transport protocol of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP segments, cut by the kernel with TSO.
    Tcp,
    /// UDP datagrams, cut by the kernel with USO.
    Udp,
}

/// The packets of a batch, as runs. Allocates only while it grows.
#[derive(Debug)]
pub struct Coalescer {
    /// Those of this batch, then old ones for use again.
    runs: Vec<Run>,
    used: usize,
    /// Runs before this one do not grow any more.
    open_from: usize,
    flows: Flows,
    merges_tcp: bool,
    merges_udp: bool,
}

impl Default for Coalescer {
    fn default() -> Self {
        Self::new()
    }
}

impl Coalescer {
    /// One that puts TCP and UDP together.
    pub fn new() -> Self {
        Self {
            runs: Vec::new(),
            used: 0,
            open_from: 0,
            flows: Flows::new(),
            merges_tcp: true,
            merges_udp: true,
        }
    }

    /// Say what may be put together from now on.
    pub fn set_kinds(&mut self, tcp: bool, udp: bool) {
        (self.merges_tcp, self.merges_udp) = (tcp, udp);
        self.open_from = self.used;
    }

    /// Add the IP packet at `place` in `arena`. Until `clear`, packets that were pushed must stay
    /// as they are, and in the same arena.
    pub fn push(&mut self, arena: &[u8], place: Range<usize>) {
        let packet = &arena[place.clone()];
        match Class::of(packet) {
            Class::Flow(transport, segment) if self.merges(transport) => {
                let youngest = self.flows.youngest_run(packet, transport);
                if let (Some(segment), Some(number)) = (&segment, *youngest)
                    && number as usize >= self.open_from
                    && self.runs[number as usize].append(arena, &place, segment)
                {
                    return;
                }
                *youngest = Some(self.used as u32);
                self.begin(place, segment);
            }
            Class::Flow(..) | Class::Alone => self.begin(place, None),
            Class::Unknown => {
                self.begin(place, None);
                self.open_from = self.used;
            }
        }
    }

    /// The runs, in the order of their first packets.
    pub fn runs(&self) -> &[Run] {
        &self.runs[..self.used]
    }

    /// Forget all packets.
    pub fn clear(&mut self) {
        self.used = 0;
        self.open_from = 0;
        self.flows.clear();
    }

    fn merges(&self, transport: Transport) -> bool {
        if transport.protocol == TCP {
            self.merges_tcp
        } else {
            self.merges_udp
        }
    }

    fn begin(&mut self, place: Range<usize>, segment: Option<Segment>) {
        if self.used == self.runs.len() {
            self.runs.push(Run::default());
        }
        self.runs[self.used].begin(place, segment);
        self.used += 1;
    }
}

/// Packets to be written at once: one as it is, or several of one flow.
#[derive(Debug)]
pub struct Run {
    packets: Vec<Range<usize>>,
    /// The first packet, if others may follow it or did.
    first: Option<Segment>,
    is_open: bool,
    /// Whether the first packet's checksums have been verified.
    is_verified: bool,
    /// By how much the IPv4 identification grows from packet to packet, once there are two.
    identification_step: Option<u16>,
    /// The payload of all packets together, in bytes.
    payload: usize,
    /// The sums of the header without what changes as the run grows: the IPv4 header's, and the
    /// pseudo header's.
    sums: (Sum, Sum),
    header: [u8; MAX_HEADERS_SIZE],
}

impl Default for Run {
    fn default() -> Self {
        Self {
            packets: Vec::new(),
            first: None,
            is_open: false,
            is_verified: false,
            identification_step: None,
            payload: 0,
            sums: Default::default(),
            header: [0; MAX_HEADERS_SIZE],
        }
    }
}

impl Run {
    /// What to write before the packet, all zero for a single one.
    pub fn virtio(&self) -> VirtioHeader {
        let Some(first) = self.merged() else {
            return VirtioHeader::default();
        };
        let (gso_type, csum_offset) = match (first.transport.protocol, first.transport.version) {
            (TCP, Version::V4) => (GSO_TCPV4, tcp::CHECKSUM),
            (TCP, Version::V6) => (GSO_TCPV6, tcp::CHECKSUM),
            _ => (GSO_UDP_L4, udp::CHECKSUM),
        };
        VirtioHeader {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: first.headers as u16,
            gso_size: first.payload as u16,
            csum_start: first.transport.offset as u16,
            csum_offset: csum_offset as u16,
        }
    }

    /// The headers of all packets as one, with the sum of the pseudo header in the checksum field;
    /// empty for a single packet.
    pub fn header(&self) -> &[u8] {
        &self.header[..self.merged().map_or(0, |first| first.headers)]
    }

    /// What follows the header: the payloads, or a single packet as it is.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = Range<usize>> {
        let headers = self.header().len();
        self.packets
            .iter()
            .map(move |packet| packet.start + headers..packet.end)
    }

    /// The packets as they came, one or more.
    pub fn packets(&self) -> &[Range<usize>] {
        &self.packets
    }

    /// What the packets are, if there are several. One alone is not looked into.
    pub fn kind(&self) -> Kind {
        match self.merged() {
            Some(first) if first.transport.protocol == UDP => Kind::Udp,
            _ => Kind::Tcp,
        }
    }

    fn merged(&self) -> Option<&Segment> {
        self.first.as_ref().filter(|_| self.packets.len() > 1)
    }

    fn begin(&mut self, place: Range<usize>, segment: Option<Segment>) {
        self.packets.clear();
        self.packets.push(place);
        self.first = segment;
        self.is_open = segment.is_some_and(|segment| !segment.is_pushed);
        self.is_verified = false;
        self.identification_step = None;
        self.payload = segment.map_or(0, |segment| segment.payload);
    }

    /// Add a packet if it continues this run. If it does not, the run must not grow any more.
    fn append(&mut self, arena: &[u8], place: &Range<usize>, segment: &Segment) -> bool {
        let Some(first) = self.first.filter(|_| self.is_open) else {
            return false;
        };
        let first_packet = &arena[self.packets[0].clone()];
        let packet = &arena[place.clone()];
        if !first.has_equal_headers(first_packet, segment, packet)
            || segment.payload > first.payload
            || first.headers + self.payload + segment.payload > MAX_PACKET_SIZE
            || !self.continues_sequence(&first, first_packet, packet)
        {
            return false;
        }
        let Some(step) = self.next_identification_step(arena, packet, first.transport.version)
        else {
            return false;
        };
        if !self.is_verified && !first.is_right(first_packet) || !segment.is_right(packet) {
            return false;
        }
        if self.packets.len() == 1 {
            self.start_header(&first, first_packet);
        }
        self.is_verified = true;
        self.identification_step = Some(step);
        self.packets.push(place.clone());
        self.payload += segment.payload;
        self.update_header(&first, segment.is_pushed);
        let max_packets = if first.transport.protocol == TCP {
            MAX_SEGMENTS
        } else {
            MAX_DATAGRAMS
        };
        self.is_open = segment.payload == first.payload
            && !segment.is_pushed
            && self.packets.len() < max_packets;
        true
    }

    fn continues_sequence(&self, first: &Segment, first_packet: &[u8], packet: &[u8]) -> bool {
        let field = first.transport.offset + tcp::SEQUENCE;
        first.transport.protocol != TCP
            || read_u32(packet, field)
                == read_u32(first_packet, field).wrapping_add(self.payload as u32)
    }

    /// How much the packet's identification is more than the last one's; None if the packet
    /// cannot follow. Cut again, the run will count up by one; equal ones, of packets that
    /// nobody may fragment, mean nothing (RFC 6864 section 4.1).
    fn next_identification_step(
        &self,
        arena: &[u8],
        packet: &[u8],
        version: Version,
    ) -> Option<u16> {
        if version == Version::V6 {
            return Some(0);
        }
        let last = self.packets.last()?;
        let step = read_u16(packet, 4).wrapping_sub(read_u16(&arena[last.clone()], 4));
        let can_follow = match self.identification_step {
            Some(before) => step == before,
            None => step == 1 || step == 0 && read_u16(packet, 6) & DO_NOT_FRAGMENT != 0,
        };
        can_follow.then_some(step)
    }

    fn start_header(&mut self, first: &Segment, packet: &[u8]) {
        self.header[..first.headers].copy_from_slice(&packet[..first.headers]);
        let ip_sum = match first.transport.version {
            Version::V4 => Sum::of(&packet[..IPV4_HEADER_SIZE])
                .minus(read_u16(packet, 2))
                .minus(read_u16(packet, 10)),
            Version::V6 => Sum::default(),
        };
        self.sums = (ip_sum, first.transport.pseudo_header(packet));
    }

    fn update_header(&mut self, first: &Segment, is_pushed: bool) {
        let (ip_sum, pseudo_sum) = self.sums;
        let (ip, transport) = self.header[..first.headers].split_at_mut(first.transport.offset);
        let transport_length = (transport.len() + self.payload) as u16;
        match first.transport.version {
            Version::V4 => {
                let length = ip.len() as u16 + transport_length;
                write_u16(ip, 2, length);
                write_u16(ip, 10, ip_sum.plus(length).checksum());
            }
            Version::V6 => write_u16(ip, 4, transport_length),
        }
        let partial_checksum = pseudo_sum.plus(transport_length).folded();
        if first.transport.protocol == TCP {
            let flags = read_u16(transport, tcp::OFFSET_AND_FLAGS);
            let pushed = if is_pushed { tcp::PSH } else { 0 };
            write_u16(transport, tcp::OFFSET_AND_FLAGS, flags | pushed);
            write_u16(transport, tcp::CHECKSUM, partial_checksum);
        } else {
            write_u16(transport, udp::LENGTH, transport_length);
            write_u16(transport, udp::CHECKSUM, partial_checksum);
        }
    }
}

/// What a packet means for the runs.
enum Class {
    /// Of a TCP or UDP flow; and how it can be part of a run, if it can.
    Flow(Transport, Option<Segment>),
    /// Of no flow that has runs.
    Alone,
    /// Perhaps of any flow, which it must not be overtaken by.
    Unknown,
}

impl Class {
    fn of(packet: &[u8]) -> Self {
        let Ok(transport) = Transport::find(packet) else {
            return Self::Unknown;
        };
        let has_options = match transport.version {
            Version::V4 => transport.offset != IPV4_HEADER_SIZE,
            Version::V6 => transport.offset != IPV6_HEADER_SIZE,
        };
        if has_options {
            return Self::Unknown;
        }
        let data = &packet[transport.offset..];
        match (transport.version, transport.protocol) {
            (Version::V4, ICMP) | (Version::V6, ICMPV6) => Self::Alone,
            (_, TCP) => match tcp::header_size(data) {
                Some(size) => Self::Flow(transport, Segment::tcp(transport, data, size)),
                None => Self::Unknown,
            },
            (_, UDP) if data.len() >= udp::HEADER_SIZE => {
                Self::Flow(transport, Segment::udp(transport, data))
            }
            _ => Self::Unknown,
        }
    }
}

/// A packet that can be part of a run, if its neighbours fit.
#[derive(Clone, Copy, Debug)]
struct Segment {
    transport: Transport,
    /// The length of all headers in bytes.
    headers: usize,
    /// In bytes; more than 0.
    payload: usize,
    /// Whether TCP's PSH is set, which ends a run.
    is_pushed: bool,
}

impl Segment {
    fn tcp(transport: Transport, data: &[u8], header_size: usize) -> Option<Self> {
        let flags = read_u16(data, tcp::OFFSET_AND_FLAGS) & tcp::FLAGS;
        let is_plain = flags & !tcp::PSH == tcp::ACK && data.len() > header_size;
        is_plain.then_some(Self {
            transport,
            headers: transport.offset + header_size,
            payload: data.len() - header_size,
            is_pushed: flags & tcp::PSH != 0,
        })
    }

    fn udp(transport: Transport, data: &[u8]) -> Option<Self> {
        let is_plain = usize::from(read_u16(data, udp::LENGTH)) == data.len()
            && read_u16(data, udp::CHECKSUM) != 0
            && data.len() > udp::HEADER_SIZE;
        is_plain.then_some(Self {
            transport,
            headers: transport.offset + udp::HEADER_SIZE,
            payload: data.len() - udp::HEADER_SIZE,
            is_pushed: false,
        })
    }

    /// Whether the headers of `packet` are those of `own`, apart from what differs within a run.
    fn has_equal_headers(&self, own: &[u8], other: &Self, packet: &[u8]) -> bool {
        if (self.transport, self.headers) != (other.transport, other.headers) {
            return false;
        }
        let equal =
            |start: usize, size: usize| own[start..start + size] == packet[start..start + size];
        let ip_is_equal = match self.transport.version {
            Version::V4 => equal(0, 2) && equal(6, 4) && equal(12, 8),
            Version::V6 => equal(0, 4) && equal(6, 34),
        };
        let start = self.transport.offset;
        if !ip_is_equal || !equal(start, 4) {
            return false;
        }
        if self.transport.protocol == UDP {
            return true;
        }
        // Acknowledgement and data offset; window; urgent pointer and options. The flags are known
        // to be equal but for PSH.
        equal(start + 8, 5) && equal(start + 14, 2) && equal(start + 18, self.headers - start - 18)
    }

    /// Verify the checksums of the packet this was made of.
    fn is_right(&self, packet: &[u8]) -> bool {
        let (ip, data) = packet.split_at(self.transport.offset);
        let sum = self.transport.pseudo_header(packet).plus(data.len() as u16);
        (self.transport.version == Version::V6 || Sum::of(ip).is_right())
            && sum.join(Sum::of(data)).is_right()
    }
}
