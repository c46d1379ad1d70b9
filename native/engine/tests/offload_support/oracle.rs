//! What the offloads must do, done again slowly; panics where the code under test differs.

use std::collections::HashMap;

use wgd_engine::offload::{Coalescer, Kind, Run, VirtioHeader, split};

use super::packet::{TCP, UDP, add, get, internet_sum, pseudo_sum, put};

/// Cut with the code under test, into buffers in which an excess write shows; None if refused.
pub fn cut(header: &VirtioHeader, packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut segments = split(header, packet).ok()?;
    let count = segments.count();
    let mut packets = Vec::new();
    while let Some(length) = segments.next_length() {
        assert!(
            length <= packet.len(),
            "a segment longer than the super-packet"
        );
        let mut out = vec![0xa5; length + 8];
        assert_eq!(segments.write_next(&mut out), length);
        assert_eq!(out.split_off(length), [0xa5; 8], "written past the end");
        packets.push(out);
    }
    assert_eq!(
        segments.write_next(&mut []),
        0,
        "written after the last one"
    );
    assert_eq!(packets.len(), count);
    assert!(count <= packet.len());
    Some(packets)
}

/// Cut, and compare with the slow way. Any input goes.
pub fn check_split(header: &VirtioHeader, packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let packets = cut(header, packet)?;
    if header.gso_type != 0 {
        assert_eq!(packets, cut_again(header, packet));
    } else if header.flags & 1 == 0 {
        assert!(packet.is_empty() || packets == [packet]);
    } else {
        assert_eq!(packets.len(), 1);
        check_completion(header, packet, &packets[0]);
    }
    Some(packets)
}

fn check_completion(header: &VirtioHeader, before: &[u8], after: &[u8]) {
    let start = usize::from(header.csum_start);
    let field = start + usize::from(header.csum_offset);
    let mut restored = after.to_vec();
    put(&mut restored, field, get(before, field));
    assert_eq!(restored, before, "changed more than the checksum");
    if header.csum_offset.is_multiple_of(2) {
        let sum = add(internet_sum(&after[start..]), get(before, field));
        assert_eq!(sum, 0xffff, "the checksum is wrong");
        assert_ne!(get(after, field), 0);
    }
}

/// Cut the slow way what is known to be well-formed.
pub fn cut_again(header: &VirtioHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let is_tcp = header.gso_type != 5;
    let is_ipv6 = packet[0] >> 4 == 6;
    let start = transport_offset(packet);
    let payload = start
        + if is_tcp {
            usize::from(packet[start + 12] >> 4) * 4
        } else {
            8
        };
    let mut chunks: Vec<_> = packet[payload..].chunks(header.gso_size.into()).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let mut packets = Vec::new();
    let mut sequence = 0;
    for (index, chunk) in chunks.iter().enumerate() {
        let mut segment = [&packet[..payload], *chunk].concat();
        let length = segment.len();
        if is_ipv6 {
            put(&mut segment, 4, (length - 40) as u16);
        } else {
            put(&mut segment, 2, length as u16);
            put(&mut segment, 4, get(packet, 4).wrapping_add(index as u16));
            put(&mut segment, 10, 0);
            let checksum = !internet_sum(&segment[..start]);
            put(&mut segment, 10, checksum);
        }
        let field = start + if is_tcp { 16 } else { 6 };
        put(&mut segment, field, 0);
        if is_tcp {
            let first = packet[start + 4..start + 8].try_into().unwrap();
            let number = u32::from_be_bytes(first).wrapping_add(sequence);
            segment[start + 4..start + 8].copy_from_slice(&number.to_be_bytes());
            if index > 0 {
                segment[start + 13] &= 0x7f; // CWR
            }
            if index + 1 < chunks.len() {
                segment[start + 13] &= 0xf6; // PSH, FIN
            }
        } else {
            put(&mut segment, start + 4, (length - start) as u16);
        }
        let protocol = if is_tcp { TCP } else { UDP };
        let sum = add(
            pseudo_sum(&segment, start, protocol),
            internet_sum(&segment[start..]),
        );
        let checksum = if !is_tcp && sum == 0xffff {
            0xffff
        } else {
            !sum
        };
        put(&mut segment, field, checksum);
        sequence += chunk.len() as u32;
        packets.push(segment);
    }
    packets
}

fn transport_offset(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 {
        return usize::from(packet[0] & 15) * 4;
    }
    let (mut next, mut offset) = (packet[6], 40);
    while [0, 43, 60].contains(&next) {
        next = packet[offset];
        offset += (usize::from(packet[offset + 1]) + 1) * 8;
    }
    offset
}

/// Whether all checksums of a TCP or UDP packet without IP options are right.
pub fn is_right(packet: &[u8]) -> bool {
    let (start, protocol) = if packet[0] >> 4 == 4 {
        (20, packet[9])
    } else {
        (40, packet[6])
    };
    let sum = add(
        pseudo_sum(packet, start, protocol),
        internet_sum(&packet[start..]),
    );
    let has_sum = protocol == TCP || get(packet, start + 6) != 0;
    sum == 0xffff && has_sum && (start == 40 || internet_sum(&packet[..20]) == 0xffff)
}

/// Coalesce with the code under test; the runs as places in `packets`, with their bytes.
pub fn coalesce(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Vec<(Vec<usize>, Written)> {
    let mut arena = vec![0xa5; 7];
    let mut places = HashMap::new();
    let mut pushed = Vec::new();
    for (index, packet) in packets.iter().enumerate() {
        places.insert(arena.len(), index);
        pushed.push(arena.len()..arena.len() + packet.len());
        arena.extend(packet);
        arena.extend([0xa5; 5]);
    }
    coalescer.clear();
    for place in &pushed {
        coalescer.push(&arena, place.clone());
    }
    let mut runs = Vec::new();
    for run in coalescer.runs() {
        let indices: Vec<_> = run
            .packets()
            .iter()
            .map(|place| places[&place.start])
            .collect();
        for (index, place) in indices.iter().zip(run.packets()) {
            assert_eq!(pushed[*index], *place);
        }
        let written = Written {
            virtio: run.virtio(),
            kind: run.kind(),
            bytes: merged(run, &arena),
        };
        runs.push((indices, written));
    }
    runs
}

/// What is written to the TUN for one run.
#[derive(Debug, PartialEq)]
pub struct Written {
    pub virtio: VirtioHeader,
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

/// The bytes after the virtio header.
pub fn merged(run: &Run, arena: &[u8]) -> Vec<u8> {
    let mut bytes = run.header().to_vec();
    for piece in run.pieces() {
        bytes.extend(&arena[piece]);
    }
    bytes
}

/// Coalesce, cut every run again, and find the same packets in an order that each flow can live
/// with. `packets` are IP packets whose lengths are right; all else may be wrong.
pub fn check_coalescing(coalescer: &mut Coalescer, packets: &[Vec<u8>]) {
    let runs = coalesce(coalescer, packets);
    let mut order = Vec::new();
    for (indices, written) in &runs {
        order.extend(indices.iter().copied());
        if let [index] = indices[..] {
            assert_eq!(written.virtio, VirtioHeader::default());
            assert_eq!(
                written.bytes, packets[index],
                "a packet alone has been changed"
            );
        } else {
            let originals: Vec<_> = indices.iter().map(|index| &packets[*index]).collect();
            check_merged(&originals, written);
        }
    }
    assert!(
        runs.is_sorted_by_key(|(indices, _)| indices[0]),
        "runs are not in order"
    );
    check_order(packets, &order);
}

fn check_merged(originals: &[&Vec<u8>], written: &Written) {
    let (header, bytes) = (&written.virtio, &written.bytes);
    let first = originals[0];
    let is_ipv6 = first[0] >> 4 == 6;
    let (start, protocol) = if is_ipv6 {
        (40, first[6])
    } else {
        (20, first[9])
    };
    let is_udp = protocol == UDP;
    let headers = start
        + if is_udp {
            8
        } else {
            usize::from(first[start + 12] >> 4) * 4
        };
    let checksum_offset = if is_udp { 6 } else { 16 };
    let expected = VirtioHeader {
        flags: 1,
        gso_type: if is_udp {
            5
        } else if is_ipv6 {
            4
        } else {
            1
        },
        hdr_len: headers as u16,
        gso_size: (first.len() - headers) as u16,
        csum_start: start as u16,
        csum_offset: checksum_offset as u16,
    };
    assert_eq!(*header, expected);
    assert_eq!(written.kind, if is_udp { Kind::Udp } else { Kind::Tcp });
    assert!(bytes.len() <= 65535);
    assert!(!is_udp || originals.len() <= 64);
    assert!(
        is_ipv6 || internet_sum(&bytes[..20]) == 0xffff,
        "wrong IPv4 checksum of a run"
    );
    let partial = pseudo_sum(bytes, start, protocol);
    assert_eq!(
        get(bytes, start + checksum_offset),
        partial,
        "not the pseudo header's sum"
    );

    let packets = check_split(header, bytes).expect("a run that cannot be cut");
    assert_eq!(
        packets.len(),
        originals.len(),
        "not cut where it was put together"
    );
    for (packet, original) in packets.iter().zip(originals) {
        assert!(
            is_right(original),
            "a packet with a wrong checksum was merged"
        );
        assert_eq!(normal(packet), normal(original));
        if !is_udp {
            assert_eq!(
                original[start + 13] & !0x08,
                0x10,
                "not just ACK or ACK and PSH"
            );
        }
    }
}

/// Both zeros of one's complement as one, and no identification where it has no meaning.
fn normal(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let (start, protocol) = if packet[0] >> 4 == 4 {
        (20, packet[9])
    } else {
        (40, packet[6])
    };
    if start == 20 {
        if packet[6] & 0x40 != 0 {
            put(&mut packet, 4, 0);
        }
        put(&mut packet, 10, 0); // is_right has looked at it
    }
    if protocol == TCP && get(&packet, start + 16) == 0xffff {
        put(&mut packet, start + 16, 0);
    }
    packet
}

fn check_order(packets: &[Vec<u8>], order: &[usize]) {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    assert!(
        sorted.into_iter().eq(0..packets.len()),
        "a packet lost or invented"
    );
    for (place, later) in order.iter().enumerate() {
        for earlier in &order[..place] {
            let is_overtaken = earlier > later && are_related(&packets[*earlier], &packets[*later]);
            assert!(!is_overtaken, "packet {earlier} has overtaken {later}");
        }
    }
}

/// Whether two packets are of one flow, or may be.
fn are_related(left: &[u8], right: &[u8]) -> bool {
    if left[0] >> 4 != right[0] >> 4 {
        return false;
    }
    let addresses = if left[0] >> 4 == 4 { 12..20 } else { 8..40 };
    if left[addresses.clone()] != right[addresses] {
        return false;
    }
    match (flow(left), flow(right)) {
        (Some(left), Some(right)) => left == right,
        _ => true,
    }
}

/// Protocol and ports; None if they cannot be told.
fn flow(packet: &[u8]) -> Option<(u8, [u8; 4])> {
    let (start, protocol, is_plain) = if packet[0] >> 4 == 4 {
        (
            20,
            packet[9],
            packet[0] == 0x45 && get(packet, 6) & 0x3fff == 0,
        )
    } else {
        (40, packet[6], true)
    };
    match protocol {
        _ if !is_plain => None,
        TCP | UDP => Some((protocol, packet.get(start..start + 4)?.try_into().unwrap())),
        1 if start == 20 => Some((protocol, [0; 4])),
        58 if start == 40 => Some((protocol, [0; 4])),
        _ => None,
    }
}
