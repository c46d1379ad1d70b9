//! Handshake messages: from the sockets through the gate to the control plane, and back.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::endpoint::Endpoint;
use crate::engine::{Engine, HANDSHAKE_TRAFFIC_CLASS, Result};
use crate::gate::Verdict;
use crate::handshakes::Lane;
use crate::peer::{Peer, PeerId};

/// Type and size of a handshake message.
type MessageKind = (u32, usize);
const INITIATION: MessageKind = (1, 148);
const RESPONSE: MessageKind = (2, 92);
const COOKIE_REPLY: MessageKind = (3, 64);

fn kind(datagram: &[u8]) -> Option<MessageKind> {
    (datagram.len() >= 4)
        .then(|| (word(datagram, 0), datagram.len()))
        .filter(|kind| matches!(*kind, INITIATION | RESPONSE | COOKIE_REPLY))
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("4 bytes"))
}

impl Engine {
    /// Hand a handshake message to the control plane, or its sender a cookie; see `gate`. Anything
    /// may be given that is not a transport message.
    pub fn receive_handshake(&self, datagram: &[u8], source: &Endpoint, now_ns: u64) {
        let (kind, answers) = match kind(datagram) {
            Some(INITIATION) => (INITIATION, None),
            Some(kind) => {
                let index = word(datagram, if kind == RESPONSE { 8 } else { 4 });
                if !self.awaits(index, kind) {
                    self.drops.unknown_index.count();
                    return;
                }
                (kind, Some(index))
            }
            None => {
                self.drops.malformed_datagram.count();
                return;
            }
        };
        let verdict = match answers {
            Some(index) if kind == COOKIE_REPLY => {
                if self.gate.judge_cookie_reply(index, now_ns) {
                    Verdict::Hear(Lane::CookieReplies)
                } else {
                    self.drops.under_load.count();
                    Verdict::Drop
                }
            }
            _ => self.gate.judge(
                datagram,
                source.address,
                answers,
                || self.peer_endpoints(),
                now_ns,
                &self.drops,
            ),
        };
        match verdict {
            Verdict::Hear(lane) => {
                let (was_full, queued) = self.inbox.push(lane, datagram, source);
                if was_full {
                    self.drops.handshake_queue_full.count();
                }
                self.gate.note_queued(queued, now_ns);
            }
            Verdict::Answer(reply) => {
                let _ = self.send_to(source, &reply, HANDSHAKE_TRAFFIC_CLASS); // counted if it fails
            }
            Verdict::Drop => {}
        }
    }

    /// Whether a message of this kind may answer what we sent under `index`. A response answers an
    /// initiation; a cookie reply a response, too, whose index is a session's already.
    fn awaits(&self, index: u32, kind: MessageKind) -> bool {
        let tables = self.tables.read();
        tables.open_initiations.contains_key(&index)
            || (kind == COOKIE_REPLY && tables.sessions.contains_key(&index))
    }

    fn peer_endpoints(&self) -> HashSet<(IpAddr, u16)> {
        let peers: Vec<_> = self.tables.read().peers.values().cloned().collect();
        peers
            .iter()
            .filter_map(|peer| peer.state.lock().endpoint)
            .map(|endpoint| (endpoint.address.ip(), endpoint.address.port()))
            .collect()
    }

    /// No answer to the peer's last initiation is waited for any more.
    pub(crate) fn forget_initiation(&self, peer: &Peer) {
        let Some(index) = peer.state.lock().initiation_index.take() else {
            return;
        };
        let mut tables = self.tables.write();
        if tables.open_initiations.get(&index) == Some(&peer.id) {
            tables.open_initiations.remove(&index);
        }
    }

    /// Send a handshake message to the peer's endpoint; false if it has none or it failed. It is
    /// counted and stamped in either case.
    pub fn send_to_peer(&self, id: PeerId, datagram: &[u8], now_ns: u64) -> Result<bool> {
        let peer = self.peer(id)?;
        if let Some(INITIATION) = kind(datagram) {
            self.forget_initiation(&peer);
            let index = word(datagram, 4);
            peer.state.lock().initiation_index = Some(index);
            self.tables.write().open_initiations.insert(index, id);
        }
        {
            let mut state = peer.state.lock();
            state.stamp_sent(now_ns, false, &self.inbox);
            state.counters.sent_bytes += datagram.len() as u64;
            state.counters.sent_packets += 1;
        }
        Ok(self.transmit(&peer, datagram, HANDSHAKE_TRAFFIC_CLASS, now_ns))
    }

    /// Count and stamp an authenticated handshake message and roam to its `source`.
    pub fn note_received(
        &self,
        id: PeerId,
        length: u64,
        source: Endpoint,
        now_ns: u64,
    ) -> Result<()> {
        let peer = self.peer(id)?;
        let mut state = peer.state.lock();
        state.stamp_received(now_ns, false, &self.inbox);
        state.counters.received_bytes += length;
        state.counters.received_packets += 1;
        state.roam(source);
        Ok(())
    }
}
