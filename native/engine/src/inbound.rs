//! From UDP to the TUN:
//!
//! 1 receive messages, each of which may be many datagrams that the kernel has put together (GRO);
//! 2 what is not a transport message goes to the gate of handshake messages;
//! 3 the receiver index finds the session, which must not be too old;
//! 4 each packet is opened in place, and only if it is authentic its counter goes to the replay
//!   window;
//! 5 once for all neighbours of a session: the peer roams to where they came from, stamps and
//!   counters are set, a first packet under the next keypair makes it the current one and what was
//!   staged is sent, and a keypair close to its end asks for its renewal;
//! 6 each inner packet is cut to its own length, its source must be routed to this very peer;
//! 7 a mark that a router has set on the outer packet goes to the inner one (see `ecn`);
//! 8 neighbours of one flow are put together (see `offload::coalesce`);
//! 9 and written to the TUN. An empty packet (a keepalive) ends before 6.

use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use crate::aead::TAG_SIZE;
use crate::ecn;
use crate::engine::Engine;
use crate::faults::Reason;
use crate::io::{MESSAGES, Message, Received, Socket, Tun, is_lack_of_offload};
use crate::offload::{Coalescer, Kind, Run, VirtioHeader};
use crate::outbound::{Drained, is_closed};
use crate::packet::source_and_length;
use crate::peer::Peer;
use crate::routes::RouteCache;
use crate::sender::{HEADER_SIZE, Sender, TRANSPORT};
use crate::session::Session;

const MIN_SIZE: usize = HEADER_SIZE + TAG_SIZE;

/// One inbound way. Nothing in here fails because of what a datagram holds.
pub struct Inbound {
    received: Received,
    way: Way,
    coalescer: Coalescer,
}

/// All but the buffers.
struct Way {
    neighbours: Option<Neighbours>,
    /// Where in the buffer the packets are that the neighbours opened, padding included.
    opened: Vec<Range<usize>>,
    sender: Sender,
    routes: RouteCache,
}

/// Datagrams of one session that came one after the other from one place.
struct Neighbours {
    peer: Arc<Peer>,
    session: Arc<Session>,
    received_bytes: u64,
    received_packets: u64,
    are_data: bool,
}

impl Inbound {
    /// A way that nothing came on.
    pub fn new() -> Self {
        Self {
            received: Received::new(),
            way: Way {
                neighbours: None,
                opened: Vec::new(),
                sender: Sender::new(),
                routes: RouteCache::new(),
            },
            coalescer: Coalescer::new(),
        }
    }

    /// Handle what a socket holds, up to a limit. Errors are those of receiving.
    pub fn drain(
        &mut self,
        engine: &Engine,
        socket: &dyn Socket,
        tun: &dyn Tun,
        now_ns: u64,
    ) -> io::Result<Drained> {
        match socket.receive(&mut self.received) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Drained::Nothing),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Drained::Partly),
            Err(error) => {
                engine.drops.receive_failed.count();
                return Err(error);
            }
        }
        let can_coalesce = tun.has_virtio_header();
        self.coalescer.set_kinds(
            can_coalesce && engine.offloads.tun_tcp_gro.is_on(),
            can_coalesce && engine.offloads.tun_udp_gro.is_on(),
        );
        let is_full = self.received.messages.len() == MESSAGES;
        for number in 0..self.received.messages.len() {
            let message = self.received.messages[number];
            if message.is_truncated {
                engine.drops.malformed_datagram.count();
                heal(engine, socket, &message);
                continue;
            }
            let start = Received::start(number);
            let end = start + message.length;
            // A size of 0 would never end; and an empty datagram is a datagram.
            let step = message.segment_size.max(1);
            for datagram in (start..end.max(start + 1)).step_by(step) {
                let range = datagram..(datagram + step).min(end);
                self.way.receive(
                    engine,
                    &mut self.received.bytes,
                    range,
                    &message,
                    now_ns,
                    &mut self.coalescer,
                );
            }
            self.way.finish(
                engine,
                &mut self.received.bytes,
                &message,
                now_ns,
                &mut self.coalescer,
            );
        }
        for run in self.coalescer.runs() {
            deliver(engine, tun, &self.received.bytes, run);
        }
        self.coalescer.clear();
        Ok(if is_full {
            Drained::Partly
        } else {
            Drained::Empty
        })
    }
}

impl Default for Inbound {
    fn default() -> Self {
        Self::new()
    }
}

impl Way {
    /// Open one datagram, or take it to the gate if it may be a handshake message.
    fn receive(
        &mut self,
        engine: &Engine,
        bytes: &mut [u8],
        range: Range<usize>,
        message: &Message,
        now_ns: u64,
        coalescer: &mut Coalescer,
    ) {
        let datagram = &bytes[range.clone()];
        if datagram.len() < MIN_SIZE {
            engine.drops.malformed_datagram.count();
            return;
        }
        if word(datagram, 0) != TRANSPORT {
            engine.receive_handshake(datagram, &message.source, now_ns);
            return;
        }
        let index = word(datagram, 4);
        let counter = u64::from_le_bytes(datagram[8..16].try_into().expect("8 bytes"));
        if self
            .neighbours
            .as_ref()
            .is_none_or(|known| known.session.keypair.local_index != index)
        {
            self.finish(engine, bytes, message, now_ns, coalescer);
            let Some((peer, session)) = engine.session(index) else {
                engine.drops.unknown_index.count();
                return;
            };
            self.neighbours = Some(Neighbours {
                peer,
                session,
                received_bytes: 0,
                received_packets: 0,
                are_data: false,
            });
        }
        let Some(neighbours) = &mut self.neighbours else {
            return;
        };
        let session = &neighbours.session;
        let sealed = &mut bytes[range.start + HEADER_SIZE..range.end];
        if !session.may_open(counter, now_ns) {
            engine.drops.expired_keypair.count();
            note(&neighbours.peer, Reason::SessionExpired, now_ns);
        } else if !session.keypair.opener.open(counter, sealed) {
            engine.drops.not_authentic.count();
            note(&neighbours.peer, Reason::NotAuthentic, now_ns);
        } else if !session.replay.lock().accept(counter) {
            engine.drops.replayed.count();
            note(&neighbours.peer, Reason::Replayed, now_ns);
        } else {
            neighbours.received_bytes += range.len() as u64;
            neighbours.received_packets += 1;
            if range.len() > MIN_SIZE {
                neighbours.are_data = true;
                self.opened
                    .push(range.start + HEADER_SIZE..range.end - TAG_SIZE);
            }
        }
    }

    /// Do once what the neighbours have in common, and pass their packets on.
    fn finish(
        &mut self,
        engine: &Engine,
        bytes: &mut [u8],
        message: &Message,
        now_ns: u64,
        coalescer: &mut Coalescer,
    ) {
        let Some(neighbours) = self.neighbours.take() else {
            return;
        };
        if neighbours.received_packets == 0 {
            return;
        }
        let Neighbours { peer, session, .. } = &neighbours;
        let is_unconfirmed = {
            let mut state = peer.state.lock();
            state.roam(message.source);
            state.counters.received_bytes += neighbours.received_bytes;
            state.counters.received_packets += neighbours.received_packets;
            state.stamp_received(now_ns, neighbours.are_data, &engine.inbox);
            let is_unconfirmed = state.keypairs.is_next(session);
            if !is_unconfirmed {
                state.renew_in_time(now_ns, &engine.inbox);
            }
            is_unconfirmed
        };
        if is_unconfirmed && engine.confirm(peer, session) {
            self.sender.send_staged(engine, peer, now_ns);
            peer.state.lock().renew_in_time(now_ns, &engine.inbox);
        }
        for padded in self.opened.drain(..) {
            match source_and_length(&bytes[padded.clone()]) {
                None => {
                    engine.drops.malformed_inner_packet.count();
                    note(peer, Reason::Malformed, now_ns);
                }
                Some((source, length)) => {
                    let place = padded.start..padded.start + length;
                    let owner = self.routes.find(engine, source);
                    if owner.is_none_or(|owner| !Arc::ptr_eq(owner, peer)) {
                        engine.drops.wrong_source.count();
                        note(peer, Reason::NotAnAllowedIp, now_ns);
                    } else if !ecn::decapsulate(message.traffic_class, &mut bytes[place.clone()]) {
                        engine.drops.congested.count();
                    } else {
                        coalescer.push(bytes, place);
                    }
                }
            }
        }
    }
}

fn note(peer: &Peer, reason: Reason, now_ns: u64) {
    peer.state.lock().faults.note(reason, 1, now_ns, 0);
}

/// A kernel that puts more together than fits shall not do so.
fn heal(engine: &Engine, socket: &dyn Socket, message: &Message) {
    if message.segment_size < message.length && socket.switch_off_gro().is_ok() {
        let error = io::Error::from_raw_os_error(libc::EMSGSIZE);
        engine.offloads.udp_gro.switch_off(&error, &engine.inbox);
    }
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("4 bytes"))
}

/// Write packets of one flow to the TUN: together, or if that fails, one by one.
fn deliver(engine: &Engine, tun: &dyn Tun, bytes: &[u8], run: &Run) {
    let packets = run.packets();
    if packets.len() == 1 {
        write_plain(engine, tun, &bytes[packets[0].clone()]);
        return;
    }
    let mut parts = Vec::with_capacity(packets.len() + 1);
    parts.push(IoSlice::new(run.header()));
    parts.extend(run.pieces().map(|piece| IoSlice::new(&bytes[piece])));
    let Err(error) = tun.write(&run.virtio(), &parts) else {
        return;
    };
    // Not `all`, which would end with the first failure.
    let written = packets
        .iter()
        .filter(|packet| write_plain(engine, tun, &bytes[(*packet).clone()]))
        .count();
    if written == packets.len() && is_lack_of_offload(&error) {
        let offload = match run.kind() {
            Kind::Tcp => &engine.offloads.tun_tcp_gro,
            Kind::Udp => &engine.offloads.tun_udp_gro,
        };
        offload.switch_off(&error, &engine.inbox);
    }
}

fn write_plain(engine: &Engine, tun: &dyn Tun, packet: &[u8]) -> bool {
    match tun.write(&VirtioHeader::default(), &[IoSlice::new(packet)]) {
        Ok(()) => true,
        Err(error) => {
            engine.drops.tun_failed.count();
            if is_closed(&error) {
                engine.close_tun(&error.to_string());
            }
            false
        }
    }
}
