//! Putting packets together: one example for each rule.

mod offload_support;

use offload_support::{Packet, check_coalescing, coalesce};
use wgd_engine::offload::{Coalescer, Kind, VirtioHeader};

/// Which packets go together; and all that must hold for any packets does.
fn runs(packets: &[Vec<u8>]) -> Vec<Vec<usize>> {
    let mut coalescer = Coalescer::new();
    check_coalescing(&mut coalescer, packets);
    coalesce(&mut coalescer, packets)
        .into_iter()
        .map(|(indices, _)| indices)
        .collect()
}

fn all_forms() -> [Packet; 4] {
    [
        Packet::tcp(false),
        Packet::tcp(true),
        Packet::udp(false),
        Packet::udp(true),
    ]
}

/// This many packets in sequence.
fn stream(first: &Packet, count: usize) -> Vec<Packet> {
    std::iter::successors(Some(first.clone()), |packet| Some(packet.next()))
        .take(count)
        .collect()
}

fn on_the_wire(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(Packet::bytes).collect()
}

/// Change the second of four packets and see how the runs come out.
fn runs_with(first: &Packet, change: impl Fn(&mut Packet)) -> Vec<Vec<usize>> {
    let mut packets = stream(first, 4);
    change(&mut packets[1]);
    runs(&on_the_wire(&packets))
}

#[test]
fn a_stream_becomes_one_packet() {
    for first in all_forms() {
        let packets = stream(&first, 5);
        let whole = Packet {
            payload: packets
                .iter()
                .flat_map(|packet| packet.payload.clone())
                .collect(),
            ..first.clone()
        };
        let (virtio, bytes) = whole.super_packet(100);
        let written = coalesce(&mut Coalescer::new(), &on_the_wire(&packets));
        assert_eq!(written.len(), 1);
        assert_eq!((written[0].1.virtio, &written[0].1.bytes), (virtio, &bytes));
        let kind = if first.protocol == 6 {
            Kind::Tcp
        } else {
            Kind::Udp
        };
        assert_eq!(written[0].1.kind, kind);
        assert_eq!(runs(&on_the_wire(&packets)), [[0, 1, 2, 3, 4]]);
    }
}

#[test]
fn a_packet_alone_goes_as_it_is() {
    let packet = Packet::tcp(false).bytes();
    let written = coalesce(&mut Coalescer::new(), std::slice::from_ref(&packet));
    assert_eq!(
        (written[0].1.virtio, &written[0].1.bytes),
        (VirtioHeader::default(), &packet)
    );
}

#[test]
fn flows_do_not_disturb_each_other() {
    let first = Packet::tcp(false);
    let others = [
        Packet {
            source: 5,
            ..first.clone()
        },
        Packet {
            destination: 5,
            ..first.clone()
        },
        Packet {
            source_port: 5,
            ..first.clone()
        },
        Packet {
            destination_port: 5,
            ..first.clone()
        },
        Packet::udp(false),
        Packet::tcp(true),
    ];
    for other in others {
        let packets: Vec<_> = stream(&first, 3)
            .into_iter()
            .zip(stream(&other, 3))
            .flat_map(|(left, right)| [left, right])
            .collect();
        assert_eq!(runs(&on_the_wire(&packets)), [[0, 2, 4], [1, 3, 5]]);
    }
}

#[test]
fn a_thousand_flows_stay_apart() {
    let flow = |port| Packet {
        source_port: port,
        ..Packet::udp(false)
    };
    let firsts: Vec<_> = (1..=1000).map(flow).collect();
    let seconds = firsts.iter().map(Packet::next);
    let packets: Vec<_> = firsts.iter().cloned().chain(seconds).collect();
    let count = runs(&on_the_wire(&packets)).len();
    // The table of flows is full, so some of them stay alone.
    assert!((1000..1400).contains(&count), "{count}");
}

#[test]
fn a_shorter_packet_is_the_last() {
    for first in all_forms() {
        let mut packets = stream(&first, 2);
        packets[1].payload.truncate(99);
        let more = stream(&packets[1].next(), 2);
        packets.extend(more);
        assert_eq!(runs(&on_the_wire(&packets)), [[0, 1], [2, 3]]);
    }
}

#[test]
fn a_longer_packet_begins_a_run() {
    for first in all_forms() {
        let mut packets = stream(&first, 1);
        let mut longer = packets[0].next();
        longer.payload.push(1);
        packets.extend(stream(&longer, 2));
        assert_eq!(runs(&on_the_wire(&packets)), [&[0][..], &[1, 2]]);
    }
}

#[test]
fn a_gap_begins_a_run() {
    for (gap, expected) in [(1, 2), (u32::MAX, 2), (0, 1)] {
        let mut packets = stream(&Packet::tcp(true), 2);
        packets[1].sequence = packets[1].sequence.wrapping_add(gap);
        assert_eq!(runs(&on_the_wire(&packets)).len(), expected);
    }
}

#[test]
fn push_ends_a_run_and_shows() {
    let mut packets = stream(&Packet::tcp(false), 5);
    packets[2].flags |= 0x08;
    let packets = on_the_wire(&packets);
    let written = coalesce(&mut Coalescer::new(), &packets);
    let flags: Vec<_> = written
        .iter()
        .map(|(_, written)| written.bytes[33])
        .collect();
    assert_eq!(flags, [0x18, 0x10]);
    assert_eq!(runs(&packets), [&[0, 1, 2][..], &[3, 4]]);
    let pushed = Packet {
        flags: 0x18,
        ..Packet::tcp(false)
    };
    assert_eq!(runs(&on_the_wire(&stream(&pushed, 3))), [[0], [1], [2]]);
}

#[test]
fn flags_and_pure_acknowledgements_stay_alone() {
    for flags in [0x11, 0x12, 0x14, 0x30, 0x50, 0x90, 0x00] {
        let cut = runs_with(&Packet::tcp(false), |packet| packet.flags = flags);
        assert_eq!(cut, [&[0][..], &[1], &[2, 3]], "{flags:#x}");
    }
    for first in [Packet::tcp(false), Packet::tcp(true)] {
        let mut packets = stream(&first, 2);
        packets[1].payload.clear();
        packets.extend(stream(&packets[1].next(), 1));
        packets[2].payload = first.payload.clone();
        packets[2].identification = packets[1].identification.wrapping_add(1);
        packets.push(packets[2].next());
        assert_eq!(runs(&on_the_wire(&packets)), [&[0][..], &[1], &[2, 3]]);
    }
}

#[test]
fn a_different_header_field_begins_a_run() {
    type Change = fn(&mut Packet);
    let apart = [vec![0], vec![1], vec![2, 3]];
    let of_ip: [Change; 3] = [
        |packet| packet.traffic_class = 3, // congestion experienced
        |packet| packet.traffic_class = 4,
        |packet| packet.hop_limit -= 1,
    ];
    for first in all_forms() {
        for change in of_ip {
            assert_eq!(runs_with(&first, change), apart);
        }
    }
    let of_tcp: [Change; 4] = [
        |packet| packet.acknowledgement += 1,
        |packet| packet.window += 1,
        |packet| packet.urgent += 1,
        |packet| packet.tcp_options[11] += 1,
    ];
    for change in of_tcp {
        assert_eq!(runs_with(&Packet::tcp(false), change), apart);
        assert_eq!(runs_with(&Packet::tcp(true), change), apart);
    }
    let no_options: Change = |packet| packet.tcp_options.clear();
    assert_eq!(runs_with(&Packet::tcp(false), no_options), apart);
    assert_eq!(
        runs_with(&Packet::udp(true), |packet| packet.flow_label = 1),
        apart
    );
    assert_eq!(
        runs_with(&Packet::udp(false), |packet| packet.fragment = 0),
        apart
    );
}

#[test]
fn identifications_count_up_or_stand_still() {
    let count = |fragment, identifications: [u16; 3]| {
        let first = Packet {
            fragment,
            ..Packet::tcp(false)
        };
        let mut packets = stream(&first, 3);
        for (packet, identification) in packets.iter_mut().zip(identifications) {
            packet.identification = identification;
        }
        runs(&on_the_wire(&packets)).len()
    };
    let (may_fragment, may_not) = (0, 0x4000);
    assert_eq!(count(may_fragment, [0xffff, 0, 1]), 1);
    assert_eq!(count(may_not, [0xffff, 0, 1]), 1);
    assert_eq!(count(may_not, [0, 0, 0]), 1);
    assert_eq!(count(may_fragment, [0, 0, 0]), 3);
    assert_eq!(count(may_not, [0, 0, 1]), 2);
    assert_eq!(count(may_not, [0, 1, 1]), 2);
    assert_eq!(count(may_not, [5, 7, 9]), 3);
    assert_eq!(count(may_not, [5, 4, 3]), 3);
}

#[test]
fn a_wrong_checksum_stays_alone_and_wrong() {
    for first in all_forms() {
        let good = on_the_wire(&stream(&first, 4));
        let last = good[0].len() - 1;
        let corrupted = |index: usize| {
            let mut packets = good.clone();
            packets[index][last] ^= 1;
            runs(&packets)
        };
        assert_eq!(corrupted(0), [&[0][..], &[1, 2, 3]]);
        assert_eq!(corrupted(1), [&[0][..], &[1], &[2, 3]]);
        assert_eq!(corrupted(2), [&[0, 1][..], &[2], &[3]]);
        assert_eq!(corrupted(3), [&[0, 1, 2][..], &[3]]);
    }
    let mut packets = on_the_wire(&stream(&Packet::tcp(false), 3));
    packets[1][10] ^= 1; // IPv4
    assert_eq!(runs(&packets), [[0], [1], [2]]);
    let mut packets = on_the_wire(&stream(&Packet::udp(false), 3));
    packets[1][26..28].fill(0); // None
    assert_eq!(runs(&packets), [[0], [1], [2]]);
}

#[test]
fn a_udp_length_or_checksum_that_says_nothing_stays_alone() {
    let mut first = Packet::udp(true);
    first.payload = vec![0, 0];
    // With the checksum as payload, the checksum itself becomes zero, written as 0xffff.
    first.payload = first.bytes()[46..48].to_vec();
    let mut packets = on_the_wire(&stream(&first, 3));
    assert_eq!(runs(&packets), [[0, 1, 2]]);
    packets[1][46..48].fill(0); // No checksum, which happens to be the right one
    assert_eq!(runs(&packets), [[0], [1], [2]]);

    let mut packets = on_the_wire(&stream(&Packet::udp(true), 3));
    packets[1][45] -= 1; // Length
    let checksum = u16::from_be_bytes([packets[1][46], packets[1][47]]);
    packets[1][46..48].copy_from_slice(&(checksum + 1).to_be_bytes());
    assert_eq!(runs(&packets), [&[0][..], &[1], &[2]]);
}

#[test]
fn nothing_is_left_of_the_batch_before() {
    let mut coalescer = Coalescer::new();
    let first = Packet::tcp(false);
    let mut standing = stream(&first, 3);
    standing
        .iter_mut()
        .for_each(|packet| packet.identification = 7);
    for packets in [standing, stream(&first, 3), stream(&Packet::udp(true), 3)] {
        let packets = on_the_wire(&packets);
        check_coalescing(&mut coalescer, &packets);
        assert_eq!(coalesce(&mut coalescer, &packets).len(), 1);
    }
}

#[test]
fn nothing_overtakes_a_fragment_or_an_option() {
    for first in all_forms() {
        let end_of_runs = |change: fn(&mut Packet)| {
            let mut packets = stream(&first, 4);
            change(&mut packets[2]);
            packets[3] = packets[1].next();
            assert_eq!(runs(&on_the_wire(&packets)), [&[0, 1][..], &[2], &[3]]);
        };
        end_of_runs(|packet| packet.ip_options = vec![1; 8]);
        end_of_runs(|packet| packet.protocol = 50);
        if first.is_ipv6 {
            end_of_runs(|packet| packet.protocol = 44);
        } else {
            end_of_runs(|packet| packet.fragment = 0x2000);
            end_of_runs(|packet| packet.fragment = 1);
        }
    }
}

#[test]
fn a_ping_ends_no_run() {
    for first in all_forms() {
        let mut packets = stream(&first, 2);
        packets.push(Packet {
            protocol: if first.is_ipv6 { 58 } else { 1 },
            ..first.clone()
        });
        packets.push(packets[1].next());
        assert_eq!(runs(&on_the_wire(&packets)), [&[0, 1, 3][..], &[2]]);
    }
}

#[test]
fn runs_end_where_the_kernel_would_refuse_them() {
    let lengths = |first: &Packet, count| -> Vec<_> {
        runs(&on_the_wire(&stream(first, count)))
            .iter()
            .map(Vec::len)
            .collect()
    };
    assert_eq!(lengths(&Packet::udp(false), 130), [64, 64, 2]);
    for is_ipv6 in [false, true] {
        let headers = if is_ipv6 { 72 } else { 52 };
        let exact = Packet {
            payload: vec![1; (65_535 - headers) / 3],
            ..Packet::tcp(is_ipv6)
        };
        assert_eq!(lengths(&exact, 3), [3]);
        let more = Packet {
            payload: vec![1; (65_535 - headers) / 3 + 1],
            ..exact
        };
        assert_eq!(lengths(&more, 3), [2, 1]);
    }
    // More pieces than one writev takes.
    let tiny = Packet {
        payload: vec![1],
        ..Packet::tcp(false)
    };
    assert!(lengths(&tiny, 1100).iter().all(|length| *length <= 1000));
}

#[test]
fn kinds_can_be_switched_off() {
    let packets: Vec<_> = all_forms()
        .iter()
        .flat_map(|first| on_the_wire(&stream(first, 2)))
        .collect();
    let mut coalescer = Coalescer::new();
    let mut count = |tcp, udp| {
        coalescer.set_kinds(tcp, udp);
        check_coalescing(&mut coalescer, &packets);
        coalesce(&mut coalescer, &packets).len()
    };
    assert_eq!(count(true, true), 4);
    assert_eq!(count(false, true), 6);
    assert_eq!(count(true, false), 6);
    assert_eq!(count(false, false), 8);
    assert_eq!(count(true, true), 4);
}

#[test]
fn switching_a_kind_off_and_on_lets_nothing_overtake() {
    let arena: Vec<_> = on_the_wire(&stream(&Packet::udp(true), 3)).concat();
    let size = arena.len() / 3;
    let mut coalescer = Coalescer::new();
    coalescer.push(&arena, 0..size);
    coalescer.set_kinds(true, false);
    coalescer.push(&arena, size..2 * size);
    coalescer.set_kinds(true, true);
    coalescer.push(&arena, 2 * size..3 * size);
    let starts: Vec<_> = coalescer
        .runs()
        .iter()
        .map(|run| run.packets()[0].start)
        .collect();
    assert_eq!(starts, [0, size, 2 * size]);
}
