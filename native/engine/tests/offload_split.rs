//! Cutting super-packets: one example for each rule.

mod offload_support;

use offload_support::{Packet, check_split, cut, is_right};
use wgd_engine::offload::{VirtioHeader, split};

fn number(packet: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([packet[offset], packet[offset + 1]])
}

#[test]
fn a_plain_packet_is_copied() {
    let packet = Packet::tcp(false).bytes();
    assert_eq!(
        cut(&VirtioHeader::default(), &packet),
        Some(vec![packet.clone()])
    );
    assert_eq!(cut(&VirtioHeader::default(), &[]), Some(vec![]));
}

#[test]
fn a_missing_checksum_is_filled_in() {
    for packet in [
        Packet::tcp(false),
        Packet::tcp(true),
        Packet::udp(false),
        Packet::udp(true),
    ] {
        let (mut header, bytes) = packet.super_packet(0);
        header.gso_type = 0;
        assert_eq!(cut(&header, &bytes), Some(vec![packet.bytes()]));
    }
}

#[test]
fn a_udp_checksum_is_never_zero() {
    let mut packet = Packet::udp(true);
    packet.payload = vec![0, 0];
    // Make the last word the checksum, so that the checksum itself becomes zero.
    let bytes = packet.bytes();
    packet.payload = bytes[46..48].to_vec();
    assert_eq!(packet.bytes()[46..48], [0xff, 0xff], "the example is wrong");
    let (mut header, bytes) = packet.super_packet(2);
    assert_eq!(cut(&header, &bytes).unwrap()[0][46..48], [0xff, 0xff]);
    header.gso_type = 0;
    assert_eq!(cut(&header, &bytes).unwrap()[0][46..48], [0xff, 0xff]);
}

#[test]
fn tcp_is_cut_with_its_flags_where_they_belong() {
    for is_ipv6 in [false, true] {
        let mut packet = Packet::tcp(is_ipv6);
        packet.payload = (0..250).collect();
        packet.flags = 0x10 | 0x80 | 0x40 | 0x08 | 0x01; // ACK, CWR, ECE, PSH, FIN
        let (mut header, bytes) = packet.super_packet(100);
        header.gso_type |= 0x80;
        let segments = cut(&header, &bytes).unwrap();

        let tcp = if is_ipv6 { 40 } else { 20 };
        let flags: Vec<_> = segments.iter().map(|segment| segment[tcp + 13]).collect();
        assert_eq!(
            flags,
            [0x10 | 0x80 | 0x40, 0x10 | 0x40, 0x10 | 0x40 | 0x08 | 0x01]
        );
        let sequences: Vec<_> = segments
            .iter()
            .map(|segment| u32::from_be_bytes(segment[tcp + 4..tcp + 8].try_into().unwrap()))
            .collect();
        assert_eq!(sequences, [0xffff_ff00, 0xffff_ff64, 0xffff_ffc8]);
        let lengths: Vec<_> = segments
            .iter()
            .map(|segment| segment.len() - tcp - 32)
            .collect();
        assert_eq!(lengths, [100, 100, 50]);
        let payload: Vec<_> = segments
            .iter()
            .flat_map(|segment| &segment[tcp + 32..])
            .collect();
        assert!(payload.into_iter().eq(&packet.payload));
        assert!(segments.iter().all(|segment| is_right(segment)));
        if !is_ipv6 {
            let identifications: Vec<_> = segments.iter().map(|ip| number(ip, 4)).collect();
            assert_eq!(identifications, [0xfffe, 0xffff, 0]);
            assert_eq!(number(&segments[2], 2), 20 + 32 + 50);
        } else {
            assert_eq!(number(&segments[2], 4), 32 + 50);
        }
        check_split(&header, &bytes);
    }
}

#[test]
fn udp_is_cut_into_datagrams() {
    let mut packet = Packet::udp(false);
    packet.payload = (0..250).collect();
    let (header, bytes) = packet.super_packet(100);
    let datagrams = cut(&header, &bytes).unwrap();
    let lengths: Vec<_> = datagrams
        .iter()
        .map(|datagram| number(datagram, 24))
        .collect();
    assert_eq!(lengths, [108, 108, 58]);
    assert!(datagrams.iter().all(|datagram| is_right(datagram)));
    check_split(&header, &bytes);
}

#[test]
fn options_are_in_every_segment() {
    for is_ipv6 in [false, true] {
        let mut packet = Packet::tcp(is_ipv6);
        packet.ip_options = vec![1; 16];
        packet.payload = (0..250).collect();
        let (header, bytes) = packet.super_packet(100);
        let segments = check_split(&header, &bytes).unwrap();
        let after = if is_ipv6 { 42..56 } else { 20..36 };
        for segment in segments {
            assert_eq!(segment[after.clone()], bytes[after.clone()]);
        }
    }
}

#[test]
fn the_header_length_of_a_forwarded_packet_is_not_believed() {
    let (header, bytes) = Packet::tcp(false).super_packet(60);
    let wrong = VirtioHeader {
        hdr_len: 152,
        ..header
    };
    assert_eq!(cut(&wrong, &bytes), cut(&header, &bytes));
}

#[test]
fn a_super_packet_without_checksum_request_is_cut_too() {
    let (header, bytes) = Packet::tcp(false).super_packet(60);
    let verified = VirtioHeader {
        flags: 2,
        csum_start: 0,
        csum_offset: 0,
        ..header
    };
    assert_eq!(cut(&verified, &bytes), cut(&header, &bytes));
}

#[test]
fn what_is_smaller_than_a_segment_is_one() {
    let packet = Packet::tcp(false);
    let (header, bytes) = packet.super_packet(60_000);
    assert_eq!(cut(&header, &bytes), Some(vec![packet.bytes()]));
    let empty = Packet {
        payload: Vec::new(),
        ..packet
    };
    let (header, bytes) = empty.super_packet(100);
    assert_eq!(cut(&header, &bytes), Some(vec![empty.bytes()]));
}

#[test]
fn contradictions_are_refused() {
    let packet = Packet {
        payload: vec![1; 20],
        ..Packet::tcp(false)
    };
    let (good, bytes) = packet.super_packet(6);
    assert!(split(&good, &bytes).is_ok());
    let wrong_headers = [
        VirtioHeader {
            gso_size: 0,
            ..good
        },
        VirtioHeader {
            gso_type: 4,
            ..good
        },
        VirtioHeader {
            gso_type: 5,
            ..good
        },
        VirtioHeader {
            gso_type: 3,
            ..good
        },
        VirtioHeader {
            gso_type: 2,
            ..good
        },
        VirtioHeader {
            gso_type: 0x80,
            ..good
        },
        VirtioHeader {
            csum_start: 24,
            ..good
        },
        VirtioHeader {
            csum_offset: 6,
            ..good
        },
        VirtioHeader {
            gso_type: 0,
            csum_start: 0xffff,
            csum_offset: 0xffff,
            ..good
        },
        VirtioHeader {
            gso_type: 0,
            csum_start: 0,
            csum_offset: 71,
            ..good
        },
    ];
    for header in wrong_headers {
        assert!(split(&header, &bytes).is_err(), "{header:?}");
    }
    for length in 0..bytes.len() {
        assert!(split(&good, &bytes[..length]).is_err(), "{length}");
    }
    // Version, header length, total length, a fragment, protocol, TCP data offset too small and
    // too large.
    for (place, value) in [
        (0, 0x65),
        (0, 0x44),
        (3, 7),
        (6, 0x20),
        (9, 17),
        (32, 0x4f),
        (32, 0xff),
    ] {
        let mut wrong = bytes.clone();
        wrong[place] = value;
        assert!(split(&good, &wrong).is_err(), "{place}");
    }
    let (udp, bytes) = Packet::udp(true).super_packet(60);
    assert!(
        split(
            &VirtioHeader {
                gso_type: 0x85,
                ..udp
            },
            &bytes
        )
        .is_err()
    );
    assert!(split(&VirtioHeader { gso_type: 4, ..udp }, &bytes).is_err());
    let mut wrong = bytes.clone();
    wrong[45] += 1; // UDP length
    assert!(split(&udp, &wrong).is_err());
}
