//! What the threads promise: order, and sockets that are really given back.

mod lab;

use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use lab::{End, PEER, keypair};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wgd_engine::aead::Cipher;
use wgd_engine::endpoint::Endpoint;
use wgd_engine::engine::Engine;
use wgd_engine::events::Event;
use wgd_engine::tun::DescriptorTun;
use wgd_engine::udp::DescriptorSocket;
use wgd_engine::workers::{Workers, boot_ns};

/// An IPv4 packet that carries a number.
fn numbered(number: u32) -> Vec<u8> {
    let mut packet = vec![0; 24];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&24_u16.to_be_bytes());
    packet[9] = 253; // for experiments
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet[20..].copy_from_slice(&number.to_be_bytes());
    packet
}

/// The number that a datagram of the session `keypair(_, 1, _)` carries; none in a keepalive.
fn number_in(datagram: &[u8]) -> Option<u32> {
    let counter = u64::from_le_bytes(datagram[8..16].try_into().expect("8 bytes"));
    let mut sealed = datagram[16..].to_vec();
    assert!(Cipher::new(&[1; 32]).open(counter, &mut sealed));
    (sealed.len() > 16).then(|| u32::from_be_bytes(sealed[20..24].try_into().expect("4 bytes")))
}

#[test]
fn what_was_staged_is_never_overtaken() {
    for round in 0..300_u32 {
        let mut end = End::new();
        for number in 0..40 {
            end.tun.inject(Default::default(), numbered(number));
        }
        end.send();
        for number in 40..80 {
            end.tun.inject(Default::default(), numbered(number));
        }
        let together = Arc::new(Barrier::new(2));
        let control = {
            let (engine, together) = (end.engine.clone(), together.clone());
            thread::spawn(move || {
                let _ = engine.install_keypair(PEER, keypair(round, 1, 2));
                together.wait();
                let _ = engine.send_keepalive(PEER, 1);
            })
        };
        together.wait();
        end.send();
        control.join().expect("the control plane lives");
        let numbers: Vec<_> = end
            .socket
            .datagrams()
            .iter()
            .filter_map(|datagram| number_in(datagram))
            .collect();
        assert_eq!(numbers, (0..80).collect::<Vec<_>>(), "round {round}");
    }
}

struct Running {
    workers: Workers,
    end: End,
    /// The host's side of the TUN.
    host: UnixDatagram,
}

fn running() -> Running {
    let end = End::new();
    let (ours, host) = UnixDatagram::pair().expect("two sockets");
    ours.set_nonblocking(true).expect("an open socket");
    let patience = Some(Duration::from_secs(10));
    host.set_read_timeout(patience).expect("an open socket");
    let tun = DescriptorTun::new(ours.as_fd(), 0, false).expect("a descriptor");
    let workers = Workers::start(end.engine.clone(), vec![tun]).expect("threads");
    Running { workers, end, host }
}

fn duplicate(socket: &UdpSocket) -> DescriptorSocket {
    DescriptorSocket::new(socket.as_fd(), false, 64).expect("a descriptor")
}

#[test]
fn packets_go_through_threads_and_sockets_are_given_back() {
    let left = running();
    let right = running();
    for (running, send, receive) in [(&left, 1, 2), (&right, 2, 1)] {
        let mut keypair = keypair(5, send, receive);
        keypair.created_ns = boot_ns();
        let freed = running.end.engine.install_keypair(PEER, keypair);
        assert_eq!(freed.expect("known"), []);
    }
    let bind = |port: u16| UdpSocket::bind(("127.0.0.1", port));
    let at_right = bind(0).expect("a port");
    right.workers.attach_sockets(vec![duplicate(&at_right)]);
    let address = at_right.local_addr().expect("an address");
    let source = None;
    let known = left
        .end
        .engine
        .set_endpoint(PEER, Endpoint { address, source });
    known.expect("the peer is known");

    let mut buffer = [0; 100];
    let mut port = 0;
    for number in 0..100 {
        // The former socket is closed here; that its port can be had shows that nobody uses it.
        let at_left = bind(port).expect("nobody has the port");
        port = at_left.local_addr().expect("an address").port();
        left.workers.attach_sockets(vec![duplicate(&at_left)]);
        left.host.send(&numbered(number)).expect("room");
        let length = right.host.recv(&mut buffer).expect("a packet");
        assert_eq!(buffer[..length], numbered(number));
        left.workers.attach_sockets(Vec::new());
    }
}

/// Let both ends have the keys of rekey `round`: the responder first, as its response is what
/// lets the initiator have them.
fn rekey(initiator: &Running, responder: &Running, round: u32) {
    for (running, is_initiator) in [(responder, false), (initiator, true)] {
        let (send, receive) = if is_initiator { (1, 2) } else { (2, 1) };
        let mut keypair = keypair(round, send, receive);
        keypair.is_initiator = is_initiator;
        keypair.created_ns = boot_ns();
        let known = running.end.engine.install_keypair(PEER, keypair);
        known.expect("the peer is known");
    }
}

#[test]
fn rekeys_under_full_load_lose_no_packet() {
    const PACKETS: u32 = 60_000;
    const REKEYS: u32 = 50;
    const UNDER_WAY: u32 = 64; // at most, so that no queue of the kernel overflows
    let (left, right) = (running(), running());
    let bind = || UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (at_left, at_right) = (bind(), bind());
    left.workers.attach_sockets(vec![duplicate(&at_left)]);
    right.workers.attach_sockets(vec![duplicate(&at_right)]);
    let address = at_right.local_addr().expect("an address");
    let source = None;
    let known = left
        .end
        .engine
        .set_endpoint(PEER, Endpoint { address, source });
    known.expect("the peer is known");

    let received = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..PACKETS {
                while number.saturating_sub(received.load(Ordering::Acquire)) >= UNDER_WAY {
                    thread::yield_now();
                }
                left.host.send(&numbered(number)).expect("room");
            }
        });
        scope.spawn(|| {
            for round in 0..REKEYS {
                while received.load(Ordering::Acquire) < round * (PACKETS / REKEYS) {
                    thread::yield_now();
                }
                rekey(&left, &right, round);
                let known = left.end.engine.send_keepalive(PEER, boot_ns());
                known.expect("the peer is known");
                // Else the next one might come before anything came under this one.
                while !wait_for_events(&right.end.engine)
                    .iter()
                    .any(is_confirmation)
                {}
            }
        });
        let mut buffer = [0; 100];
        for number in 0..PACKETS {
            let length = right.host.recv(&mut buffer).unwrap_or(0);
            if buffer[..length] != numbered(number) {
                received.store(PACKETS, Ordering::Release); // so that the other two come to an end
                panic!("packet {number} did not come in its turn");
            }
            received.store(number + 1, Ordering::Release);
        }
    });
}

fn is_confirmation(event: &Event) -> bool {
    matches!(event, Event::KeypairConfirmed { .. })
}

/// What the control plane has to hear, as soon as there is something; nothing for too long fails.
fn wait_for_events(engine: &Engine) -> Vec<Event> {
    // SAFETY: the engine lives longer than the borrow.
    let event_fd = unsafe { BorrowedFd::borrow_raw(engine.inbox.fd()) };
    let mut polled = [PollFd::from_borrowed_fd(event_fd, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut polled, Some(&patience)), Ok(1));
    engine.inbox.drain()
}

#[test]
fn a_tun_that_ends_is_reported_once() {
    let engine = Arc::new(Engine::new().expect("a descriptor"));
    let (ours, host) = UnixStream::pair().expect("two sockets");
    ours.set_nonblocking(true).expect("an open socket");
    let tun = DescriptorTun::new(ours.as_fd(), 0, false).expect("a descriptor");
    let _workers = Workers::start(engine.clone(), vec![tun]).expect("threads");
    drop(host);
    let events = wait_for_events(&engine);
    assert!(matches!(&events[..], [Event::TunClosed(_)]), "{events:?}");
    engine.close_tun("again");
    assert_eq!(engine.inbox.drain(), []);
}

#[test]
fn a_tun_that_would_block_is_refused() {
    let (ours, _host) = UnixDatagram::pair().expect("two sockets");
    assert!(DescriptorTun::new(ours.as_fd(), 0, false).is_err());
}
