//! Traffic made of random bytes, the same for proptest and libFuzzer: every input means something.

use wgd_engine::offload::VirtioHeader;

use super::packet::{Packet, put};

const MAX_PACKETS: usize = 200;

/// The kind of change that is a packet of noise. Kinds that no function knows change nothing.
const ANY_PACKET: u8 = 40;

/// Random bytes taken from the front; zeros when there are no more.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Interleaved packets of a few flows, most of them in sequence, some of them odd or corrupted.
pub fn traffic(input: &[u8]) -> Vec<Vec<u8>> {
    let mut input = Bytes(input);
    let mut flows = [
        Packet::tcp(false),
        Packet::udp(false),
        Packet::tcp(true),
        Packet::udp(true),
        Packet {
            destination_port: 1,
            fragment: 0,
            ..Packet::tcp(false)
        },
        Packet {
            destination: 3,
            fragment: 0,
            ..Packet::udp(false)
        },
        Packet {
            tcp_options: Vec::new(),
            source: 9,
            ..Packet::tcp(true)
        },
        Packet {
            payload: vec![7; 20_000],
            source_port: 9,
            ..Packet::tcp(false)
        },
    ];
    for flow in &mut flows {
        // Small numbers, so that one's complement reaches its zeros now and then.
        flow.acknowledgement = input.byte().into();
    }
    let mut packets = Vec::new();
    while !input.0.is_empty() && packets.len() < MAX_PACKETS {
        let flow = &mut flows[usize::from(input.byte() % 8)];
        let (change, argument) = (input.byte() % 64, input.byte());
        change_flow(flow, change, argument);
        let mut packet = flow.clone();
        for byte in packet.payload.iter_mut().take(2) {
            *byte ^= input.byte();
        }
        change_packet(&mut packet, change, argument);
        let next = packet.next();
        (flow.sequence, flow.identification) = (next.sequence, next.identification);
        let mut bytes = packet.bytes();
        change_bytes(&mut bytes, &packet, change, argument);
        packets.push(if change == ANY_PACKET {
            any_packet(&mut input)
        } else {
            bytes
        });
    }
    packets
}

/// Change this packet and those after it.
fn change_flow(flow: &mut Packet, change: u8, argument: u8) {
    let number = u16::from(argument);
    match change {
        0 => flow.payload.truncate(usize::from(number) + 2),
        1 => flow.sequence = flow.sequence.wrapping_add(number.into()),
        2 => flow.acknowledgement += u32::from(number),
        3 => flow.window = number,
        4 => flow.identification = flow.identification.wrapping_add(number),
        5 => flow.identification = flow.identification.wrapping_sub(1),
        6 => flow.fragment ^= 0x4000,
        7 => flow.hop_limit = argument,
        8 => flow.traffic_class = argument,
        9 => flow.flow_label = number,
        10 => flow.tcp_options = vec![1; usize::from(argument % 11) * 4],
        _ => {}
    }
}

/// Change this packet only.
fn change_packet(packet: &mut Packet, change: u8, argument: u8) {
    let number = usize::from(argument);
    match change {
        11 => packet.flags |= 0x08,
        12 => packet.flags |= 0x80,
        13 => packet.flags |= 0x40,
        14 => packet.flags |= 0x01,
        15 => packet.flags = argument,
        16 => packet.urgent = argument.into(),
        17 => packet.payload.truncate(number % 100),
        18 => packet.payload.clear(),
        19 => packet.payload.extend([1, 2]),
        20 => packet.traffic_class |= 3,
        21 => packet.fragment |= 0x2000,
        22 => packet.fragment = u16::from(argument) << 7,
        23 => packet.ip_options = vec![1; 8 * (1 + number % 5)],
        24 => packet.protocol = argument,
        25 => packet.protocol = if packet.is_ipv6 { 58 } else { 1 },
        _ => {}
    }
}

/// Change bytes after the checksums were made, but not those that say where the packet ends.
fn change_bytes(bytes: &mut [u8], packet: &Packet, change: u8, argument: u8) {
    let place = usize::from(argument);
    match change {
        30..=32 => bytes[6 + place % 80 % (bytes.len() - 6)] ^= 1 << (change - 30),
        33 => *bytes.last_mut().unwrap() ^= argument,
        // UDP's none, and the other zero of one's complement.
        34 => put(bytes, packet.ip_size() + packet.checksum_offset(), 0),
        35 => put(bytes, packet.ip_size() + packet.checksum_offset(), 0xffff),
        36 if !packet.is_ipv6 => put(bytes, 10, 0xffff),
        _ => {}
    }
}

/// Noise in an IP packet that only has the right lengths, as the engine has made sure.
fn any_packet(input: &mut Bytes<'_>) -> Vec<u8> {
    let count = usize::from(input.byte());
    let mut bytes = input.take(count).to_vec();
    let length;
    if bytes.first().is_some_and(|byte| byte % 2 == 0) {
        bytes.resize(bytes.len().max(40), 0);
        bytes[0] = 0x60;
        length = bytes.len() - 40;
        put(&mut bytes, 4, length as u16);
    } else {
        bytes.resize(bytes.len().max(60), 0);
        bytes[0] = 0x45 + bytes[0] % 11;
        length = bytes.len();
        put(&mut bytes, 2, length as u16);
    }
    bytes
}

/// A super-packet, and whether it is as the kernel would make it.
pub fn super_packet(input: &mut Bytes<'_>) -> (VirtioHeader, Vec<u8>, bool) {
    let (form, options) = (input.byte(), input.byte());
    let mut packet = match form % 2 {
        0 => Packet::tcp(form & 2 != 0),
        _ => Packet::udp(form & 2 != 0),
    };
    packet.flags = 0x10 | input.byte() & 0x89;
    packet.identification = input.number();
    packet.sequence = u32::from(input.number()) << 16 | u32::from(input.number());
    packet.tcp_options = vec![1; usize::from(options % 11) * 4];
    packet.ip_options = vec![1; usize::from(options >> 4 & 3) * 8];
    let size = 1 + input.number() % 10_000;
    let headers = packet.ip_size() + packet.transport_size();
    let length = usize::from(input.number())
        .min(65_535 - headers)
        .min(usize::from(size) * 300);
    let bytes = input.take(64);
    packet.payload = (0..length)
        .map(|at| bytes.get(at % 64).map_or(0, |byte| byte ^ at as u8))
        .collect();
    let (mut header, mut bytes) = packet.super_packet(size);
    let is_ecn = packet.protocol == super::TCP && packet.flags & 0x80 != 0;
    header.gso_type |= if is_ecn { 0x80 } else { 0 };
    let changes = form >> 2 & 3;
    for _ in 0..changes {
        let (place, value) = (usize::from(input.byte()), input.byte());
        let mut raw = header.to_bytes();
        match place.checked_sub(10) {
            None => raw[place] ^= value,
            Some(place) if place < bytes.len() => bytes[place] ^= value,
            Some(_) => bytes.truncate(bytes.len().saturating_sub(value.into())),
        }
        header = VirtioHeader::from_bytes(&raw);
    }
    (header, bytes, changes == 0)
}
