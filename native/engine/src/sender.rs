//! From sealed packets to datagrams, in one arena that is allocated once:
//!
//! ```text
//!     [ header 16 ][ packet ][ padding ][ tag 16 ][ header 16 ][ room for the next packet ...
//!       `------- a sealed datagram, waiting -----'
//! ```
//!
//! 1 `slot` gives the place for a packet;
//! 2 `seal` pads it to a multiple of 16 within the MTU, and encrypts it in place;
//! 3 the datagram waits, so that neighbours of one size and one ECN field for one peer leave in one
//!   system call (UDP GSO), through the socket of the endpoint's family, from the pinned source;
//! 4 `flush` ends the wait.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use crate::aead::TAG_SIZE;
use crate::ecn;
use crate::endpoint::Endpoint;
use crate::engine::Engine;
use crate::events::Event;
use crate::faults::Reason;
use crate::io::{MAX_PACKET_SIZE, is_lack_of_offload};
use crate::peer::Peer;
use crate::session::Session;

/// The header of a transport message: type, receiver index, counter (paper, section 5.4.6).
pub const HEADER_SIZE: usize = 16;
/// The type of a transport message, with its three reserved bytes.
pub const TRANSPORT: u32 = 4;

const PADDING_MULTIPLE: usize = 16;
const MAX_DATAGRAMS_SIZE: usize = 65_507;
const MAX_SEALED_SIZE: usize = HEADER_SIZE + MAX_PACKET_SIZE + PADDING_MULTIPLE + TAG_SIZE;
// A full batch, and one packet that is not compatible with it.
const ARENA_SIZE: usize = MAX_DATAGRAMS_SIZE + 2 * MAX_SEALED_SIZE;

/// Seals packets and sends them in batches. Each thread has its own.
pub struct Sender {
    arena: Box<[u8]>,
    /// Where in the arena the next datagram will be.
    position: usize,
    batch: Option<Batch>,
}

/// What waits: datagrams of one size (the last may be shorter) and of one traffic class, from
/// `start` to `position`.
struct Batch {
    peer: Arc<Peer>,
    start: usize,
    size: usize,
    room: usize,
    traffic_class: u8,
}

impl Sender {
    /// One for which nothing waits. The memory is used only when something is sent.
    pub fn new() -> Self {
        Self {
            arena: vec![0; ARENA_SIZE].into_boxed_slice(),
            position: 0,
            batch: None,
        }
    }

    /// The place for the next packet, of `length` bytes.
    pub fn slot(&mut self, length: usize) -> &mut [u8] {
        let start = self.position + HEADER_SIZE;
        &mut self.arena[start..start + length]
    }

    /// Seal the packet of `length` bytes in the slot. The datagram may wait for `flush`.
    pub fn seal(
        &mut self,
        engine: &Engine,
        peer: &Arc<Peer>,
        session: &Session,
        counter: u64,
        length: usize,
        now_ns: u64,
    ) {
        let packet = self.position + HEADER_SIZE;
        // The two bits and no more: the DSCP would tell a stranger what is inside.
        let traffic_class = ecn::of(&self.arena[packet..packet + length]);
        let padding = padding(length, engine.mtu());
        let end = packet + length + padding + TAG_SIZE;
        self.arena[packet + length..end - TAG_SIZE].fill(0);

        let datagram = &mut self.arena[self.position..end];
        let (header, sealed) = datagram.split_at_mut(HEADER_SIZE);
        header[..4].copy_from_slice(&TRANSPORT.to_le_bytes());
        header[4..8].copy_from_slice(&session.keypair.remote_index.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        session.keypair.sealer.seal(counter, sealed);
        self.append(engine, peer, end, traffic_class, now_ns);
    }

    /// Let the datagram from `position` to `end` wait with its like.
    fn append(
        &mut self,
        engine: &Engine,
        peer: &Arc<Peer>,
        end: usize,
        traffic_class: u8,
        now_ns: u64,
    ) {
        let start = self.position;
        let size = end - start;
        let fits = self.batch.as_ref().is_some_and(|batch| {
            Arc::ptr_eq(&batch.peer, peer)
                && traffic_class == batch.traffic_class
                && size <= batch.size
                && size <= batch.room
        });
        if !fits {
            if let Some(batch) = self.batch.take() {
                batch.send(engine, &self.arena[batch.start..start], now_ns);
            }
            self.batch = Some(Batch {
                peer: peer.clone(),
                start,
                size,
                room: MAX_DATAGRAMS_SIZE.min(size.saturating_mul(engine.max_segments(peer))),
                traffic_class,
            });
        }
        self.position = end;
        let Some(batch) = &mut self.batch else { return };
        batch.room = batch.room.saturating_sub(size);
        let is_last = size < batch.size || size > batch.room;
        if is_last || end > ARENA_SIZE - MAX_SEALED_SIZE {
            self.flush(engine, now_ns);
        }
    }

    /// Send all that waits.
    pub fn flush(&mut self, engine: &Engine, now_ns: u64) {
        if let Some(batch) = self.batch.take() {
            batch.send(engine, &self.arena[batch.start..self.position], now_ns);
        }
        self.position = 0;
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

/// How many zeros follow a packet. One beyond the MTU will be cut into units of it: only the last
/// of them is padded.
fn padding(length: usize, mtu: usize) -> usize {
    let last_unit = if length <= mtu { length } else { length % mtu };
    last_unit.next_multiple_of(PADDING_MULTIPLE).min(mtu) - last_unit
}

impl Batch {
    /// Send the datagrams, together if that can be.
    fn send(&self, engine: &Engine, datagrams: &[u8], now_ns: u64) {
        let count = datagrams.len().div_ceil(self.size);
        let endpoint = self.peer.state.lock().endpoint;
        let Some(endpoint) = endpoint else {
            engine.drops.no_endpoint.add(count);
            return;
        };
        let error = if datagrams.len() > self.size {
            match engine.send_segments(datagrams, self.size, &endpoint, self.traffic_class) {
                Ok(()) => {
                    let counters = &mut self.peer.state.lock().counters;
                    counters.sent_bytes += datagrams.len() as u64;
                    counters.sent_packets += count as u64;
                    return;
                }
                Err(error) if is_queue_full(&error) => {
                    engine.drops.send_failed.add(count);
                    self.peer.note_send_failed(&error, count, now_ns);
                    return;
                }
                Err(error) => Some(error),
            }
        } else {
            None
        };

        let mut are_all_sent = true;
        let (mut sent_bytes, mut sent_packets) = (0, 0);
        for datagram in datagrams.chunks(self.size) {
            if engine.transmit(&self.peer, datagram, self.traffic_class, now_ns) {
                sent_bytes += datagram.len() as u64;
                sent_packets += 1;
            } else {
                are_all_sent = false;
            }
        }
        let mut state = self.peer.state.lock();
        state.counters.sent_bytes += sent_bytes;
        state.counters.sent_packets += sent_packets;
        if let Some(error) = error
            && is_lack_of_offload(&error)
            && are_all_sent
            && state.may_batch
            && state.endpoint == Some(endpoint)
        {
            // One by one they go, from the same source: it is the path that cannot do it.
            state.may_batch = false;
            engine.inbox.emit(Event::OffloadOff {
                name: "udp_gso",
                reason: format!("{error} to {}", endpoint.address),
            });
        }
    }
}

/// Errors that another source address cannot mend: the datagram is too long, or the queue is full.
fn is_not_the_source(error: &io::Error) -> bool {
    is_queue_full(error) || error.raw_os_error() == Some(libc::EMSGSIZE)
}

fn is_queue_full(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

impl Peer {
    fn note_send_failed(&self, error: &io::Error, count: usize, now_ns: u64) {
        let errno = error.raw_os_error().unwrap_or(0);
        let mut state = self.state.lock();
        (state.faults).note(Reason::SendFailed, count, now_ns, errno);
    }
}

impl Engine {
    /// Send a datagram to the peer's endpoint; false if it has none or it failed.
    pub fn transmit(&self, peer: &Peer, datagram: &[u8], traffic_class: u8, now_ns: u64) -> bool {
        let endpoint = peer.state.lock().endpoint;
        let Some(endpoint) = endpoint else {
            self.drops.no_endpoint.count();
            return false;
        };
        match self.send_to(&endpoint, datagram, traffic_class) {
            Err(error) => {
                peer.note_send_failed(&error, 1, now_ns);
                false
            }
            Ok(reached) => {
                if reached != endpoint {
                    let mut state = peer.state.lock();
                    if state.endpoint == Some(endpoint) {
                        state.endpoint = Some(reached);
                    }
                }
                true
            }
        }
    }

    /// Send a datagram; return the endpoint that worked. A pinned source that is no longer ours is
    /// left out if that helps. Errors are counted as drops: EAFNOSUPPORT without a socket of the
    /// endpoint's family.
    pub fn send_to(
        &self,
        endpoint: &Endpoint,
        datagram: &[u8],
        traffic_class: u8,
    ) -> io::Result<Endpoint> {
        let sockets = self.senders.read();
        let Some(socket) = sockets.of(endpoint) else {
            self.drops.no_socket.count();
            return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        };
        let sent = match socket.send(datagram, endpoint, traffic_class) {
            Ok(()) => Ok(*endpoint),
            Err(error) if endpoint.source.is_some() && !is_not_the_source(&error) => {
                let without = endpoint.without_source();
                socket
                    .send(datagram, &without, traffic_class)
                    .map(|()| without)
            }
            Err(error) => Err(error),
        };
        if sent.is_err() {
            self.drops.send_failed.count();
        }
        sent
    }

    fn send_segments(
        &self,
        datagrams: &[u8],
        size: usize,
        endpoint: &Endpoint,
        traffic_class: u8,
    ) -> io::Result<()> {
        match self.senders.read().of(endpoint) {
            Some(socket) => socket.send_segments(datagrams, size, endpoint, traffic_class),
            None => Err(ErrorKind::NotConnected.into()), // counted one by one
        }
    }

    /// How many datagrams may leave for the peer at once.
    fn max_segments(&self, peer: &Peer) -> usize {
        let (endpoint, may_batch) = {
            let state = peer.state.lock();
            (state.endpoint, state.may_batch)
        };
        match endpoint {
            Some(endpoint) if may_batch => self
                .senders
                .read()
                .of(&endpoint)
                .map_or(1, |socket| socket.max_segments()),
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::padding;

    #[test]
    fn padding_follows_the_white_paper_and_the_mtu() {
        for (length, mtu, expected) in [
            (0, 1420, 0),
            (1, 1420, 15),
            (16, 1420, 0),
            (1408, 1420, 0),
            (1409, 1420, 11),
            (1420, 1420, 0),
            (1421, 1420, 15),
            (2840, 1420, 0),
            (2849, 1420, 7),
            (1, 1, 0),
        ] {
            assert_eq!(padding(length, mtu), expected, "{length} at {mtu}");
        }
    }
}
