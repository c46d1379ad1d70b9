//! What the data plane knows of one peer, and how the threads share it.
//!
//! `state` is locked briefly, once a batch. `order` is held by whoever sends what was staged, from
//! taking it to having sent it, so that nothing newer overtakes: lock `order` before `state`.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::endpoint::Endpoint;
use crate::events::{Event, Inbox};
use crate::faults::Faults;
use crate::session::{Keypairs, Session};
use crate::status::Counters;

/// A number that the control plane gives each peer, and never gives again.
pub type PeerId = u64;

/// Packets that wait for a keypair at most; then the oldest is dropped.
pub const MAX_STAGED_PACKETS: usize = 128;

/// One peer, shared by the threads.
pub struct Peer {
    /// Its number.
    pub id: PeerId,
    /// All that changes.
    pub state: Mutex<PeerState>,
    /// Held while staged packets are sent.
    pub order: Mutex<()>,
}

impl Peer {
    /// A peer with no endpoint and no keypairs.
    pub fn new(id: PeerId) -> Self {
        Self {
            id,
            state: Mutex::new(PeerState {
                id,
                may_batch: true,
                ..PeerState::default()
            }),
            order: Mutex::new(()),
        }
    }
}

/// When things last happened, in boot nanoseconds; 0 for never or "not since".
#[derive(Clone, Copy, Default)]
pub struct Stamps {
    /// Any authenticated packet sent.
    pub last_sent_ns: u64,
    /// Any authenticated packet received.
    pub last_received_ns: u64,
    /// First data packet sent since the last authenticated packet received.
    pub first_data_sent_unanswered_ns: u64,
    /// First data packet received since the last authenticated packet sent.
    pub first_data_received_unanswered_ns: u64,
}

/// The changing part of a peer.
#[derive(Default)]
pub struct PeerState {
    id: PeerId,
    /// Where it was last heard from, or was set to be.
    pub endpoint: Option<Endpoint>,
    /// Whether several datagrams at once (UDP GSO) may be tried on the path to it.
    pub may_batch: bool,
    /// The index of the last initiation sent, until it is answered.
    pub initiation_index: Option<u32>,
    /// Its sessions.
    pub keypairs: Keypairs,
    /// Packets that wait for a session.
    pub staged: VecDeque<Box<[u8]>>,
    /// Whether packets are refused as long as there is no endpoint.
    pub is_refused: bool,
    /// Whether somebody holds `order` and has taken packets from `staged`.
    pub is_sending_staged: bool,
    /// When things last happened.
    pub stamps: Stamps,
    /// What was sent to it and received from it.
    pub counters: Counters,
    /// What has gone wrong with its packets.
    pub faults: Faults,
    /// Whether the control plane knows that it needs a handshake.
    pub is_handshake_reported: bool,
    /// Whether the control plane has a check of its stamps to come.
    pub is_check_armed: bool,
    /// Whether the control plane has removed it: then nothing is reported of it any more.
    pub is_removed: bool,
}

impl PeerState {
    /// Report that it needs a handshake, unless that was reported already.
    pub fn need_handshake(&mut self, inbox: &Inbox) {
        if !self.is_handshake_reported && !self.is_removed {
            self.is_handshake_reported = true;
            inbox.emit(Event::NeedsHandshake(self.id));
        }
    }

    /// Report that a first-data stamp is set, unless a check is armed already.
    pub fn become_active(&mut self, inbox: &Inbox) {
        if !self.is_check_armed && !self.is_removed {
            self.is_check_armed = true;
            inbox.emit(Event::BecameActive(self.id));
        }
    }

    /// An authenticated packet was sent, or was meant to be.
    pub fn stamp_sent(&mut self, now_ns: u64, is_data: bool, inbox: &Inbox) {
        self.stamps.last_sent_ns = now_ns;
        self.stamps.first_data_received_unanswered_ns = 0;
        if is_data && self.stamps.first_data_sent_unanswered_ns == 0 {
            self.stamps.first_data_sent_unanswered_ns = now_ns;
            self.become_active(inbox);
        }
    }

    /// An authenticated packet was received.
    pub fn stamp_received(&mut self, now_ns: u64, is_data: bool, inbox: &Inbox) {
        self.stamps.last_received_ns = now_ns;
        self.stamps.first_data_sent_unanswered_ns = 0;
        if is_data && self.stamps.first_data_received_unanswered_ns == 0 {
            self.stamps.first_data_received_unanswered_ns = now_ns;
            self.become_active(inbox);
        }
    }

    /// Take at most `count` counters of the current session, stamp the packets that will be sent
    /// with them, and ask for a new keypair in time.
    pub fn reserve(
        &mut self,
        count: usize,
        is_data: bool,
        now_ns: u64,
        inbox: &Inbox,
    ) -> Option<(Arc<Session>, Range<u64>)> {
        let session = self.keypairs.current()?.clone();
        let counters = session.reserve(count, now_ns);
        if counters.is_empty() {
            return None;
        }
        // Stamped even if sending fails: then the silence leads to a handshake on a new path.
        self.stamp_sent(now_ns, is_data, inbox);
        if session.is_due_for_renewal(&counters, now_ns) {
            self.need_handshake(inbox);
        }
        Some((session, counters))
    }

    /// An authenticated message came from `source`: answers go there.
    pub fn roam(&mut self, source: Endpoint) {
        let address = self.endpoint.map(|endpoint| endpoint.address);
        if address != Some(source.address) {
            self.may_batch = true; // another path may do what the last one could not
        }
        self.endpoint = Some(source);
    }

    /// A packet was received: ask for a new keypair if the current one is close to its end.
    pub fn renew_in_time(&mut self, now_ns: u64, inbox: &Inbox) {
        if let Some(current) = self.keypairs.current()
            && current.asks_for_renewal_on_receive(now_ns)
        {
            self.need_handshake(inbox);
        }
    }

    /// Keep a packet until there is a session; true if another one was dropped for it.
    pub fn stage(&mut self, packet: &[u8]) -> bool {
        let is_full = self.staged.len() == MAX_STAGED_PACKETS;
        if is_full {
            self.staged.pop_front();
        }
        self.staged.push_back(packet.into());
        is_full
    }
}
