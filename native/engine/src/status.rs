//! What the control plane, and whoever watches, may ask of an engine. Nothing here changes anything.

use crate::engine::{Engine, Result, Senders};
use crate::faults::Fault;
use crate::peer::{PeerId, Stamps};

/// Datagrams of a peer, and the bytes of UDP payload that they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// To the peer.
    pub sent_bytes: u64,
    /// From the peer, authentic.
    pub received_bytes: u64,
    /// To the peer.
    pub sent_packets: u64,
    /// From the peer, authentic.
    pub received_packets: u64,
}

impl Engine {
    /// When things last happened to the peer.
    pub fn stamps(&self, id: PeerId) -> Result<Stamps> {
        Ok(self.peer(id)?.state.lock().stamps)
    }

    /// What was sent to and received from the peer.
    pub fn counters(&self, id: PeerId) -> Result<Counters> {
        Ok(self.peer(id)?.state.lock().counters)
    }

    /// What has gone wrong with the peer's packets, each reason at most once.
    pub fn faults(&self, id: PeerId) -> Result<Vec<Fault>> {
        Ok(self.peer(id)?.state.lock().faults.all().to_vec())
    }

    /// Whether the peer has a current keypair that may still send.
    pub fn has_session(&self, id: PeerId, now_ns: u64) -> Result<bool> {
        let peer = self.peer(id)?;
        let state = peer.state.lock();
        Ok((state.keypairs.current()).is_some_and(|session| session.can_send(now_ns)))
    }

    /// How many packets wait for a session with the peer.
    pub fn staged_packets(&self, id: PeerId) -> Result<usize> {
        Ok(self.peer(id)?.state.lock().staged.len())
    }

    /// How many handshake messages wait, and how many packets are staged for all peers.
    pub fn queue_depths(&self) -> (usize, usize) {
        let tables = self.tables.read();
        let staged = (tables.peers.values())
            .map(|peer| peer.state.lock().staged.len())
            .sum();
        (self.inbox.queued_handshakes(), staged)
    }

    /// The kernel's offloads in use, sorted by name, if the TUN has virtio-net headers or not.
    ///
    /// Of those that failed for some only, "tun_gro" is not in use any more, and "udp_gso" is as
    /// long as it may be used to any peer.
    pub fn offloads_in_use(&self, has_virtio_header: bool) -> Vec<&'static str> {
        let Self { offloads, .. } = self;
        let takes_segments = {
            let Senders { v4, v6 } = &*self.senders.read();
            [v4, v6]
                .into_iter()
                .flatten()
                .any(|socket| socket.max_segments() > 1)
        };
        let joins = offloads.tun_tcp_gro.is_on() && offloads.tun_udp_gro.is_on();
        [
            ("tun_gro", has_virtio_header && joins),
            ("tun_tso", has_virtio_header && offloads.tun_tso.is_on()),
            ("tun_uso", has_virtio_header && offloads.tun_tso.is_on()),
            ("udp_gro", takes_segments && offloads.udp_gro.is_on()),
            ("udp_gso", takes_segments && self.may_any_batch()),
        ]
        .into_iter()
        .filter_map(|(name, is_in_use)| is_in_use.then_some(name))
        .collect()
    }

    fn may_any_batch(&self) -> bool {
        let peers = &self.tables.read().peers;
        peers.is_empty() || peers.values().any(|peer| peer.state.lock().may_batch)
    }
}
