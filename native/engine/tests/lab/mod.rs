//! Two engines that share a session, a TUN and a socket in memory for each, and faults on demand.

#![allow(dead_code, reason = "not every test uses everything")]

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use wgd_engine::aead::Cipher;
use wgd_engine::allowed_ips::Prefix;
use wgd_engine::endpoint::Endpoint;
use wgd_engine::engine::{Engine, Senders};
use wgd_engine::inbound::Inbound;
use wgd_engine::io::{Message, Received, Socket, Tun};
use wgd_engine::offload::VirtioHeader;
use wgd_engine::outbound::Outbound;
use wgd_engine::session::Keypair;

/// The one peer that each end has.
pub const PEER: u64 = 7;

/// What a TUN gives and takes.
type Packet = (VirtioHeader, Vec<u8>);

/// A TUN queue in memory.
#[derive(Default)]
pub struct MemoryTun {
    /// What will be read.
    pub waiting: Mutex<VecDeque<io::Result<Packet>>>,
    /// What was written.
    pub written: Mutex<Vec<Packet>>,
    /// The error of every write of packets put together.
    pub refuses_coalesced: Mutex<Option<i32>>,
    /// The error of every write.
    pub refuses_all: Mutex<Option<i32>>,
    /// How often the offloads were switched off.
    pub switched_off: Mutex<usize>,
}

impl MemoryTun {
    /// Let a packet be read.
    pub fn inject(&self, header: VirtioHeader, packet: Vec<u8>) {
        self.waiting.lock().push_back(Ok((header, packet)));
    }
}

impl Tun for MemoryTun {
    fn read(&self, packet: &mut [u8]) -> io::Result<(VirtioHeader, usize)> {
        let Some(next) = self.waiting.lock().pop_front() else {
            return Err(ErrorKind::WouldBlock.into());
        };
        let (header, bytes) = next?;
        packet[..bytes.len()].copy_from_slice(&bytes);
        Ok((header, bytes.len()))
    }

    fn write(&self, header: &VirtioHeader, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let refused = *self.refuses_all.lock();
        let refused = refused.or_else(|| {
            let is_coalesced = header.gso_type != 0;
            is_coalesced
                .then_some(*self.refuses_coalesced.lock())
                .flatten()
        });
        if let Some(number) = refused {
            return Err(io::Error::from_raw_os_error(number));
        }
        let bytes = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.written.lock().push((*header, bytes));
        Ok(())
    }

    fn has_virtio_header(&self) -> bool {
        true
    }

    fn switch_off_offloads(&self) -> io::Result<()> {
        *self.switched_off.lock() += 1;
        Ok(())
    }
}

/// A socket in memory.
#[derive(Default)]
pub struct MemorySocket {
    /// What was sent: bytes, and the size of each datagram in them.
    pub sent: Mutex<Vec<(Vec<u8>, usize)>>,
    /// What will be received: bytes, the size of each datagram in them, and whether it was cut.
    pub waiting: Mutex<VecDeque<(Vec<u8>, usize, bool)>>,
    /// The error of every send of several datagrams.
    pub refuses_segments: Mutex<Option<i32>>,
    /// How often GRO was switched off.
    pub switched_off: Mutex<usize>,
}

impl MemorySocket {
    /// All datagrams sent, one by one, in their order.
    pub fn datagrams(&self) -> Vec<Vec<u8>> {
        let sent = self.sent.lock();
        sent.iter()
            .flat_map(|(bytes, size)| bytes.chunks(*size).map(<[u8]>::to_vec))
            .collect()
    }
}

impl Socket for MemorySocket {
    fn is_ipv6(&self) -> bool {
        false
    }

    fn max_segments(&self) -> usize {
        64
    }

    fn send(&self, datagram: &[u8], _: &Endpoint, _: u8) -> io::Result<()> {
        self.sent
            .lock()
            .push((datagram.to_vec(), datagram.len().max(1)));
        Ok(())
    }

    fn send_segments(&self, datagrams: &[u8], size: usize, _: &Endpoint, _: u8) -> io::Result<()> {
        if let Some(number) = *self.refuses_segments.lock() {
            return Err(io::Error::from_raw_os_error(number));
        }
        self.sent.lock().push((datagrams.to_vec(), size));
        Ok(())
    }

    fn receive(&self, received: &mut Received) -> io::Result<()> {
        received.messages.clear();
        let mut messages = Vec::new();
        for slot in received.slots() {
            let Some((bytes, segment_size, is_truncated)) = self.waiting.lock().pop_front() else {
                break;
            };
            slot[..bytes.len()].copy_from_slice(&bytes);
            messages.push(Message {
                length: bytes.len(),
                segment_size,
                source: endpoint(),
                traffic_class: 0,
                is_truncated,
            });
        }
        received.messages = messages;
        if received.messages.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    fn switch_off_gro(&self) -> io::Result<()> {
        *self.switched_off.lock() += 1;
        Ok(())
    }
}

/// One end of the tunnel.
pub struct End {
    pub engine: Arc<Engine>,
    pub tun: MemoryTun,
    pub socket: Arc<MemorySocket>,
    pub outbound: Outbound,
    pub inbound: Inbound,
}

/// Where everybody is.
pub fn endpoint() -> Endpoint {
    Endpoint {
        address: SocketAddr::from(([192, 0, 2, 1], 51820)),
        source: None,
    }
}

/// A keypair whose two directions have these keys.
pub fn keypair(index: u32, send: u8, receive: u8) -> Keypair {
    Keypair {
        local_index: index,
        remote_index: index,
        sealer: Cipher::new(&[send; 32]),
        opener: Cipher::new(&[receive; 32]),
        is_initiator: true,
        created_ns: 0,
    }
}

impl End {
    /// An end whose peer has all IPv4 addresses; without a session.
    pub fn new() -> Self {
        let engine = Arc::new(Engine::new().expect("a descriptor"));
        engine.add_peer(PEER);
        engine.set_endpoint(PEER, endpoint()).expect("known");
        let all = Prefix {
            address: IpAddr::from([0, 0, 0, 0]),
            length: 0,
        };
        engine.add_allowed_ip(PEER, all).expect("known");
        let socket = Arc::new(MemorySocket::default());
        engine.set_senders(Senders {
            v4: Some(socket.clone()),
            v6: None,
        });
        Self {
            engine,
            tun: MemoryTun::default(),
            socket,
            outbound: Outbound::new(),
            inbound: Inbound::new(),
        }
    }

    /// Two ends with a session.
    pub fn pair() -> (Self, Self) {
        let (left, right) = (Self::new(), Self::new());
        for (end, send, receive) in [(&left, 1, 2), (&right, 2, 1)] {
            let freed = end.engine.install_keypair(PEER, keypair(5, send, receive));
            assert_eq!(freed.expect("known"), []);
        }
        (left, right)
    }

    /// Handle all that the TUN holds.
    pub fn send(&mut self) {
        let drained = self.outbound.drain(&self.engine, &self.tun, 1);
        drained.expect("the TUN can be read");
    }

    /// Bring everything to this end that the other one has sent.
    pub fn receive_from(&mut self, other: &Self) {
        for (bytes, size) in other.socket.sent.lock().drain(..) {
            self.socket.waiting.lock().push_back((bytes, size, false));
        }
        while !self.socket.waiting.lock().is_empty() {
            let drained = self
                .inbound
                .drain(&self.engine, &*self.socket, &self.tun, 1);
            drained.expect("the socket can be read");
        }
    }
}

/// A TCP packet (IPv4, no options) of a flow, its payload all of one byte; no checksums.
pub fn tcp(sequence: u32, payload: usize) -> Vec<u8> {
    let mut packet = vec![0; 40 + payload];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(40 + payload as u16).to_be_bytes());
    packet[6] = 0x40; // do not fragment
    packet[8..10].copy_from_slice(&[64, 6]);
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet[20..24].copy_from_slice(&[0x30, 0x39, 0x00, 0x50]);
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[32..36].copy_from_slice(&[0x50, 0x10, 0xff, 0xff]);
    packet[40..].fill(sequence as u8);
    packet
}

/// The virtio-net header of such a packet if it shall be cut into pieces of `size` bytes.
pub fn tso(size: u16) -> VirtioHeader {
    VirtioHeader {
        flags: 1,
        gso_type: 1,
        hdr_len: 40,
        gso_size: size,
        csum_start: 20,
        csum_offset: 16,
    }
}

/// Let the inbound way have what `input` describes: noise, transport messages with honest and
/// dishonest inner packets, damaged ones, and messages of many datagrams. Nothing may panic, and
/// what comes out must have been sealed.
pub fn receive_noise(mut input: &[u8]) {
    let (_, mut right) = End::pair();
    let sealer = Cipher::new(&[1; 32]);
    let mut sealed_packets = Vec::new();
    let mut counter = 0_u64;
    while let [kind, size, rest @ ..] = input {
        let length = if kind & 0x80 == 0 {
            usize::from(*size)
        } else {
            usize::from(*size) * 8
        };
        let (content, following) = rest.split_at(length.min(rest.len()));
        input = following;
        let mut datagram = content.to_vec();
        if kind & 3 != 0 {
            datagram = [4, 0, 0, 0, 5, 0, 0, 0].to_vec();
            datagram.extend(counter.to_le_bytes());
            datagram.extend(content);
        }
        if kind & 2 != 0 {
            datagram.extend([0; 16]);
            sealer.seal(counter, &mut datagram[16..]);
            counter += u64::from(kind >> 6); // sometimes it is repeated
            sealed_packets.push(content);
        }
        if kind & 7 == 7 {
            let place = counter as usize % datagram.len();
            datagram[place] ^= 1;
        }
        let segment_size = match kind & 8 {
            0 => datagram.len(),
            _ => usize::from(*size),
        };
        let is_truncated = kind & 0x30 == 0x30;
        right
            .socket
            .waiting
            .lock()
            .push_back((datagram, segment_size, is_truncated));
    }
    while !right.socket.waiting.lock().is_empty() {
        let drained = right
            .inbound
            .drain(&right.engine, &*right.socket, &right.tun, 1);
        drained.expect("the socket can be read");
    }
    for (header, packet) in right.tun.written.lock().iter() {
        let was_sealed = |sealed: &&[u8]| sealed.starts_with(packet);
        assert!(header.gso_type != 0 || sealed_packets.iter().any(was_sealed));
    }
}
