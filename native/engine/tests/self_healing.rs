//! What an offload that fails costs: nothing but speed, and one event.

mod lab;

use lab::{End, PEER, tcp, tso};
use wgd_engine::endpoint::{Endpoint, Source};
use wgd_engine::engine::Senders;
use wgd_engine::events::Event;

/// The names of the offloads that were reported off, leaving other events out.
fn switched_off(end: &End) -> Vec<&'static str> {
    let events = end.engine.inbox.drain();
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::OffloadOff { name, .. } => Some(name),
            _ => None,
        })
        .collect()
}

/// The names of the offloads in use, on a TUN with virtio-net headers.
fn in_use(end: &End) -> Vec<&'static str> {
    end.engine.offloads_in_use(true)
}

#[test]
fn all_are_in_use_that_tun_and_sockets_have() {
    let end = End::new();
    let all = ["tun_gro", "tun_tso", "tun_uso", "udp_gro", "udp_gso"];
    assert_eq!(in_use(&end), all);
    assert_eq!(end.engine.offloads_in_use(false), all[3..]);
    end.engine.set_senders(Senders::default());
    assert_eq!(in_use(&end), all[..3]);
}

#[test]
fn a_super_packet_comes_out_as_it_went_in() {
    let (mut left, mut right) = End::pair();
    let packet = tcp(100, 10_000);
    left.tun.inject(tso(1380), packet.clone());
    left.send();
    assert_eq!(left.socket.sent.lock().len(), 1);
    assert_eq!(left.socket.datagrams().len(), 8);

    right.receive_from(&left);
    let written = right.tun.written.lock();
    let [(header, bytes)] = &written[..] else {
        panic!("{} writes", written.len());
    };
    assert_eq!((header.gso_type, header.gso_size), (1, 1380));
    assert_eq!(bytes[24..28], packet[24..28]);
    assert_eq!(bytes[40..], packet[40..]);
}

#[test]
fn packets_the_tun_refuses_together_are_written_one_by_one() {
    for number in [libc::EINVAL, libc::EIO, libc::EMSGSIZE] {
        let (mut left, mut right) = End::pair();
        *right.tun.refuses_coalesced.lock() = Some(number);
        for sequence in [0, 2760] {
            left.tun.inject(tso(1380), tcp(sequence, 2760));
        }
        left.send();
        right.receive_from(&left);
        let payloads: Vec<usize> = (right.tun.written.lock().iter())
            .map(|(header, bytes)| {
                assert_eq!(header.gso_type, 0);
                bytes.len() - 40
            })
            .collect();
        assert_eq!(payloads, [1380; 4]);
        assert_eq!(switched_off(&right), ["tun_tcp_gro"]);
        assert_eq!(in_use(&right), ["tun_tso", "tun_uso", "udp_gro", "udp_gso"]);
        assert_eq!(right.engine.drops.tun_failed.get(), 0);

        // It is not tried again.
        *right.tun.refuses_coalesced.lock() = None;
        left.tun.inject(tso(1380), tcp(5520, 2760));
        left.send();
        right.receive_from(&left);
        assert_eq!(right.tun.written.lock().len(), 6);
        assert_eq!(switched_off(&right), [] as [&str; 0]);
    }
}

#[test]
fn a_tun_that_is_down_says_nothing_about_offloads() {
    let (mut left, mut right) = End::pair();
    *right.tun.refuses_all.lock() = Some(libc::EIO);
    left.tun.inject(tso(1380), tcp(0, 2760));
    left.send();
    right.receive_from(&left);
    assert_eq!(right.engine.drops.tun_failed.get(), 2);
    assert_eq!(switched_off(&right), [] as [&str; 0]);
    *right.tun.refuses_all.lock() = None;
    left.tun.inject(tso(1380), tcp(2760, 2760));
    left.send();
    right.receive_from(&left);
    assert_eq!(right.tun.written.lock().len(), 1);
}

#[test]
fn a_kernel_that_cannot_describe_a_super_packet_is_not_asked_for_them() {
    let (mut left, _) = End::pair();
    let failure = || Err(std::io::Error::from_raw_os_error(libc::EINVAL));
    left.tun.waiting.lock().push_back(failure());
    assert!(left.outbound.drain(&left.engine, &left.tun, 1).is_err());
    left.tun.waiting.lock().push_back(failure());
    assert!(left.outbound.drain(&left.engine, &left.tun, 1).is_err());
    assert!(*left.tun.switched_off.lock() > 0);
    assert_eq!(switched_off(&left), ["tun_tso"]);
    assert_eq!(in_use(&left), ["tun_gro", "udp_gro", "udp_gso"]);
    left.tun.inject(Default::default(), tcp(0, 100));
    left.send();
    assert_eq!(left.socket.datagrams().len(), 1);
}

#[test]
fn messages_that_are_cut_switch_gro_off() {
    let (mut left, mut right) = End::pair();
    left.tun.inject(tso(1380), tcp(0, 2760));
    left.send();
    let (bytes, size) = left.socket.sent.lock().remove(0);
    for _ in 0..2 {
        let cut = (bytes.clone(), size, true);
        right.socket.waiting.lock().push_back(cut);
    }
    right.receive_from(&left);
    assert!(right.tun.written.lock().is_empty());
    assert!(*right.socket.switched_off.lock() > 0);
    assert_eq!(switched_off(&right), ["udp_gro"]);
    assert_eq!(in_use(&right), ["tun_gro", "tun_tso", "tun_uso", "udp_gso"]);
    right.engine.sockets_replaced(); // other sockets have it on again
    assert!(in_use(&right).contains(&"udp_gro"));
    assert_eq!(right.engine.drops.malformed_datagram.get(), 2);
}

#[test]
fn a_path_that_refuses_batches_gets_datagrams_one_by_one() {
    for number in [libc::EINVAL, libc::EIO, libc::EMSGSIZE] {
        let (mut left, mut right) = End::pair();
        *left.socket.refuses_segments.lock() = Some(number);
        left.tun.inject(tso(1380), tcp(0, 2760));
        left.tun.inject(tso(1380), tcp(2760, 2760));
        left.send();
        assert_eq!(left.socket.sent.lock().len(), 4);
        assert_eq!(switched_off(&left), ["udp_gso"]);
        assert_eq!(in_use(&left), ["tun_gro", "tun_tso", "tun_uso", "udp_gro"]);
        assert_eq!(left.engine.faults(PEER).expect("known"), []);
        assert_eq!(left.engine.drops.send_failed.get(), 0);
        right.receive_from(&left);
        let received: usize = (right.tun.written.lock().iter())
            .map(|(_, bytes)| bytes.len() - 40)
            .sum();
        assert_eq!(received, 5520);
        let counters = left.engine.counters(PEER).expect("known");
        assert_eq!(counters.sent_bytes, 4 * (1420 + 32));
        assert_eq!(counters.sent_packets, 4);
    }
}

#[test]
fn an_error_of_another_kind_switches_nothing_off() {
    for number in [libc::ENOMEM, libc::EPERM, libc::EAGAIN, libc::ENOBUFS] {
        let (mut left, mut right) = End::pair();
        left.tun.inject(tso(1380), tcp(0, 2760));
        left.send();
        *right.tun.refuses_coalesced.lock() = Some(number);
        right.receive_from(&left);
        assert_eq!(right.tun.written.lock().len(), 2);
        assert_eq!(switched_off(&right), [] as [&str; 0], "{number}");

        *left.socket.refuses_segments.lock() = Some(number);
        left.tun.inject(tso(1380), tcp(2760, 2760));
        left.send();
        *left.socket.refuses_segments.lock() = None;
        left.tun.inject(tso(1380), tcp(5520, 2760));
        left.send();
        let sent = left.socket.sent.lock();
        assert_eq!(sent.last().map(|(bytes, _)| bytes.len()), Some(2 * 1452));
        assert_eq!(switched_off(&left), [] as [&str; 0], "{number}");
    }
}

#[test]
fn a_peer_that_reaches_us_at_two_addresses_is_still_on_one_path() {
    let (mut left, _) = End::pair();
    *left.socket.refuses_segments.lock() = Some(libc::EINVAL);
    for number in 0..10 {
        left.tun.inject(tso(1380), tcp(0, 2760));
        left.send();
        let source = Some(Source {
            address: [192, 0, 2, 100 + number % 2].into(),
            interface_index: 1,
        });
        let from = Endpoint {
            source,
            ..lab::endpoint()
        };
        let known = left.engine.note_received(PEER, 92, from, 1);
        known.expect("the peer is known");
    }
    assert_eq!(switched_off(&left), ["udp_gso"]);
}
