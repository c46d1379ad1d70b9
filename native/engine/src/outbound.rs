//! From the TUN to UDP:
//!
//! 1 read a packet, or up to 64 KiB of one flow that the kernel has put together (TSO, USO);
//! 2 its destination finds the peer, by the longest prefix of the allowed IPs; if there is none, or
//!   nobody knows where it is, the sender is told (see `unreachable`);
//! 3 the peer's current keypair is taken, and a counter for each packet; without a usable one the
//!   packets are staged and a handshake asked for;
//! 4 stamps are set, and a keypair that has grown old asks for its renewal: once for all packets;
//! 5 each packet is cut to its place in the arena, with right lengths and checksums, and sealed;
//! 6 datagrams of one size leave together (see `sender`), at the latest when the TUN is empty.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use crate::engine::Engine;
use crate::faults::Reason;
use crate::io::{MAX_PACKET_SIZE, Tun};
use crate::offload::{Split, VirtioHeader, split};
use crate::packet::destination;
use crate::peer::Peer;
use crate::routes::RouteCache;
use crate::sender::Sender;

/// Reads of the TUN after which a thread looks at something else.
const READS_AT_ONCE: usize = 64;

/// One outbound way. Nothing in here fails because of a packet or a network.
pub struct Outbound {
    packet: Box<[u8]>,
    sender: Sender,
    routes: RouteCache,
}

impl Outbound {
    /// A way that nothing was sent on.
    pub fn new() -> Self {
        Self {
            packet: vec![0; MAX_PACKET_SIZE].into_boxed_slice(),
            sender: Sender::new(),
            routes: RouteCache::new(),
        }
    }

    /// Send what the TUN holds, up to a limit. Errors are those of the first read.
    pub fn drain(&mut self, engine: &Engine, tun: &dyn Tun, now_ns: u64) -> io::Result<Drained> {
        let mut reads = 0;
        let result = loop {
            if reads == READS_AT_ONCE {
                break Ok(Drained::Partly);
            }
            match tun.read(&mut self.packet) {
                Ok((header, length)) => {
                    reads += 1;
                    self.forward(engine, &header, length, now_ns);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    break Ok(if reads > 0 {
                        Drained::Empty
                    } else {
                        Drained::Nothing
                    });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    engine.drops.tun_failed.count();
                    heal(engine, tun, &error);
                    if reads > 0 {
                        break Ok(Drained::Partly);
                    }
                    break Err(error);
                }
            }
        };
        self.sender.flush(engine, now_ns);
        result
    }

    fn forward(&mut self, engine: &Engine, header: &VirtioHeader, length: usize, now_ns: u64) {
        let packet = &self.packet[..length];
        let (Some(destination), Ok(mut segments)) = (destination(packet), split(header, packet))
        else {
            engine.drops.malformed_packet.count();
            return;
        };
        let Some(peer) = self.routes.find(engine, destination) else {
            engine.drops.no_route.count();
            refuse(engine, &mut self.sender, &mut segments, now_ns);
            return;
        };

        let mut state = peer.state.lock();
        if state.is_refused && state.endpoint.is_none() {
            let count = segments.count();
            (state.faults).note(Reason::NoEndpoint, count, now_ns, 0);
            drop(state);
            engine.drops.no_endpoint.add(count);
            refuse(engine, &mut self.sender, &mut segments, now_ns);
            return;
        }
        if state.is_sending_staged || !state.staged.is_empty() && state.keypairs.current().is_some()
        {
            // Older packets come first: send them, or wait until somebody has.
            drop(state);
            self.sender.send_staged(engine, peer, now_ns);
            state = peer.state.lock();
        }
        let reserved = state.reserve(segments.count(), true, now_ns, &engine.inbox);
        if let Some((session, counters)) = reserved {
            drop(state);
            for counter in counters {
                let Some(length) = segments.next_length() else {
                    break;
                };
                segments.write_next(self.sender.slot(length));
                self.sender
                    .seal(engine, peer, &session, counter, length, now_ns);
            }
            if segments.next_length().is_none() {
                return;
            }
            // The keypair has come to its last counter. What is staged must not overtake the batch.
            self.sender.flush(engine, now_ns);
            state = peer.state.lock();
        }
        while let Some(length) = segments.next_length() {
            let slot = self.sender.slot(length);
            segments.write_next(slot);
            if state.stage(slot) {
                engine.drops.staged_full.count();
            }
        }
        state.need_handshake(&engine.inbox);
    }
}

impl Default for Outbound {
    fn default() -> Self {
        Self::new()
    }
}

/// Tell the sender of packets that they have nowhere to go: of a super-packet, with its first one.
fn refuse(engine: &Engine, sender: &mut Sender, segments: &mut Split<'_>, now_ns: u64) {
    if let Some(length) = segments.next_length() {
        let packet = sender.slot(length);
        segments.write_next(packet);
        engine.refusals.refuse(packet, now_ns);
    }
}

/// A kernel that cannot describe what it has put together shall not do so.
fn heal(engine: &Engine, tun: &dyn Tun, error: &io::Error) {
    if is_closed(error) {
        engine.close_tun(&error.to_string());
    } else if error.raw_os_error() == Some(libc::EINVAL)
        && tun.has_virtio_header()
        && tun.switch_off_offloads().is_ok()
    {
        engine.offloads.tun_tso.switch_off(error, &engine.inbox);
    }
}

/// How much of what waited was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing waited.
    Nothing,
    /// All of it.
    Empty,
    /// There may be more.
    Partly,
}

/// Whether the error is what a TUN device returns that is not there any more.
pub fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADF | libc::EBADFD | libc::ENODEV | libc::ENXIO)
    )
}

impl Sender {
    /// Send what is staged, oldest first; ask for a handshake if something has to stay.
    pub fn send_staged(&mut self, engine: &Engine, peer: &Arc<Peer>, now_ns: u64) {
        let _order = peer.order.lock();
        let (session, counters, packets) = {
            let mut state = peer.state.lock();
            if state.staged.is_empty() {
                return;
            }
            let is_data = state.staged.iter().any(|packet| !packet.is_empty());
            let count = state.staged.len();
            let Some((session, counters)) = state.reserve(count, is_data, now_ns, &engine.inbox)
            else {
                state.need_handshake(&engine.inbox);
                return;
            };
            let taken = (counters.end - counters.start) as usize;
            let packets: Vec<_> = state.staged.drain(..taken).collect();
            if !state.staged.is_empty() {
                state.need_handshake(&engine.inbox);
            }
            state.is_sending_staged = true;
            (session, counters, packets)
        };
        for (counter, packet) in counters.zip(&packets) {
            self.slot(packet.len()).copy_from_slice(packet);
            self.seal(engine, peer, &session, counter, packet.len(), now_ns);
        }
        self.flush(engine, now_ns);
        peer.state.lock().is_sending_staged = false;
    }
}
