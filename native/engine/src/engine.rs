//! One device's data plane: what the threads share, and what the control plane calls.
//!
//! Locks, in the order in which they may be held together: `control`, a peer's `order`, the gate's,
//! `tables`, a peer's `state`, then `senders` or the inbox. A packet never waits for the control plane longer
//! than one change of a table takes.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::allowed_ips::{AllowedIps, Prefix};
use crate::drops::Drops;
use crate::endpoint::Endpoint;
use crate::events::{Event, Inbox};
use crate::gate::Gate;
use crate::io::{MAX_PACKET_SIZE, Socket};
use crate::offloads::Offloads;
use crate::peer::{Peer, PeerId};
use crate::sender::Sender;
use crate::session::{Keypair, Session};
use crate::unreachable::Refusals;

const DEFAULT_MTU: usize = 1420;

/// What handshake messages are marked with: DSCP AF41, as the kernel does.
pub const HANDSHAKE_TRAFFIC_CLASS: u8 = 0x88;

/// What the threads share.
pub struct Engine {
    /// What the control plane has to hear.
    pub inbox: Inbox,
    /// Who is heard under load.
    pub gate: Gate,
    /// What was dropped.
    pub drops: Drops,
    /// The sockets to send through.
    pub senders: RwLock<Senders>,
    /// What the kernel has not failed at yet.
    pub offloads: Offloads,
    /// What tells local senders that their packets have nowhere to go.
    pub refusals: Refusals,
    pub(crate) tables: RwLock<Tables>,
    /// Grows with every change of the allowed IPs: what was looked up before is void.
    routes_version: AtomicU64,
    mtu: AtomicUsize,
    is_tun_closed: AtomicBool,
    /// Seals and sends for the control plane.
    control: Mutex<Sender>,
}

/// Peers, and how packets find them.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) peers: HashMap<PeerId, Arc<Peer>>,
    /// By receiver index.
    pub(crate) sessions: HashMap<u32, (Arc<Peer>, Arc<Session>)>,
    /// By the index of an initiation that was sent last to a peer and not answered.
    pub(crate) open_initiations: HashMap<u32, PeerId>,
    allowed_ips: AllowedIps,
}

/// The sockets to send through, one per family.
#[derive(Default)]
pub struct Senders {
    /// For IPv4.
    pub v4: Option<Arc<dyn Socket>>,
    /// For IPv6.
    pub v6: Option<Arc<dyn Socket>>,
}

impl Senders {
    /// The socket that reaches an endpoint.
    pub fn of(&self, endpoint: &Endpoint) -> Option<&dyn Socket> {
        let socket = if endpoint.address.is_ipv6() {
            &self.v6
        } else {
            &self.v4
        };
        socket.as_deref()
    }
}

/// The control plane named a peer that was not added, or was removed.
#[derive(Debug)]
pub struct UnknownPeer;

pub(crate) type Result<T> = std::result::Result<T, UnknownPeer>;

impl Engine {
    /// An engine without peers and sockets.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            inbox: Inbox::new()?,
            gate: Gate::default(),
            drops: Drops::default(),
            senders: RwLock::default(),
            offloads: Offloads::default(),
            refusals: Refusals::default(),
            tables: RwLock::default(),
            routes_version: AtomicU64::new(0),
            mtu: AtomicUsize::new(DEFAULT_MTU),
            is_tun_closed: AtomicBool::new(false),
            control: Mutex::new(Sender::new()),
        })
    }

    // -- for the packets' ways -------------------------------------------------------------------

    /// The MTU of the TUN, in bytes.
    pub fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Changes whenever what `route` answers may have changed.
    pub fn routes_version(&self) -> u64 {
        self.routes_version.load(Ordering::Acquire)
    }

    /// The peer that an inner address belongs to.
    pub fn route(&self, address: IpAddr) -> Option<Arc<Peer>> {
        self.tables.read().allowed_ips.lookup(address).cloned()
    }

    /// The session with this receiver index, and whose it is.
    pub fn session(&self, index: u32) -> Option<(Arc<Peer>, Arc<Session>)> {
        self.tables.read().sessions.get(&index).cloned()
    }

    /// A packet came under the peer's next session: if so, it is the current one from now on, and
    /// what was staged is due.
    pub fn confirm(&self, peer: &Peer, session: &Arc<Session>) -> bool {
        let freed_indices = {
            let mut state = peer.state.lock();
            if state.is_removed || !state.keypairs.is_next(session) {
                return false;
            }
            state.is_handshake_reported = false;
            state.keypairs.confirm()
        };
        self.forget_sessions(&freed_indices);
        self.inbox.emit(Event::KeypairConfirmed {
            peer: peer.id,
            local_index: session.keypair.local_index,
            freed_indices,
        });
        true
    }

    /// Report, once, that the TUN is gone.
    pub fn close_tun(&self, reason: &str) {
        if !self.is_tun_closed.swap(true, Ordering::Relaxed) {
            self.inbox.emit(Event::TunClosed(reason.to_owned()));
        }
    }

    /// Whether the TUN is gone.
    pub fn is_tun_closed(&self) -> bool {
        self.is_tun_closed.load(Ordering::Relaxed)
    }

    // -- the outside world -----------------------------------------------------------------------

    /// Send through these sockets from now on. Of those before, none is in use here any more.
    pub fn set_senders(&self, senders: Senders) {
        let former = std::mem::replace(&mut *self.senders.write(), senders);
        drop(former); // not while the lock is held
    }

    /// There are other sockets: forget the pinned sources, and what those before could not do.
    pub fn sockets_replaced(&self) {
        self.offloads.udp_gro.switch_on();
        for peer in self.tables.read().peers.values() {
            let mut state = peer.state.lock();
            state.may_batch = true;
            state.endpoint = state.endpoint.map(Endpoint::without_source);
        }
    }

    /// Padding never makes an inner packet longer than this (bytes).
    pub fn set_mtu(&self, mtu: usize) {
        self.mtu
            .store(mtu.clamp(1, MAX_PACKET_SIZE), Ordering::Relaxed);
    }

    // -- peers -----------------------------------------------------------------------------------

    pub(crate) fn peer(&self, id: PeerId) -> Result<Arc<Peer>> {
        let tables = self.tables.read();
        tables.peers.get(&id).cloned().ok_or(UnknownPeer)
    }

    /// Know a peer: no endpoint, allowed IPs or keypairs yet; a check is not armed.
    pub fn add_peer(&self, id: PeerId) {
        let peer = Arc::new(Peer::new(id));
        self.tables.write().peers.insert(id, peer);
    }

    /// Forget a peer, its keypairs, staged packets and allowed IPs; return its freed indices.
    pub fn remove_peer(&self, id: PeerId) -> Result<Vec<u32>> {
        let peer = {
            let mut tables = self.tables.write();
            tables.allowed_ips.remove_all(id);
            tables.peers.remove(&id).ok_or(UnknownPeer)?
        };
        self.routes_changed();
        let freed = {
            let mut state = peer.state.lock();
            state.is_removed = true;
            state.staged.clear();
            state.keypairs.clear()
        };
        self.forget_initiation(&peer);
        self.forget_sessions(&freed);
        Ok(freed)
    }

    /// Send to `endpoint` from now on (until the peer roams).
    pub fn set_endpoint(&self, id: PeerId, endpoint: Endpoint) -> Result<()> {
        let peer = self.peer(id)?;
        let mut state = peer.state.lock();
        state.endpoint = Some(endpoint);
        state.may_batch = true;
        Ok(())
    }

    /// Where the peer was last heard from, or was set to be.
    pub fn endpoint(&self, id: PeerId) -> Result<Option<Endpoint>> {
        Ok(self.peer(id)?.state.lock().endpoint)
    }

    /// Forget the peer's pinned source address; the kernel chooses one.
    pub fn clear_source(&self, id: PeerId) -> Result<()> {
        let peer = self.peer(id)?;
        let mut state = peer.state.lock();
        state.endpoint = state.endpoint.map(Endpoint::without_source);
        Ok(())
    }

    /// Route `prefix` to this peer, taking it from any other.
    pub fn add_allowed_ip(&self, id: PeerId, prefix: Prefix) -> Result<()> {
        let peer = self.peer(id)?;
        self.tables.write().allowed_ips.insert(prefix, &peer);
        self.routes_changed();
        Ok(())
    }

    /// Stop routing exactly `prefix` to this peer; nothing if another peer has it.
    pub fn remove_allowed_ip(&self, id: PeerId, prefix: Prefix) -> Result<()> {
        self.peer(id)?;
        self.tables.write().allowed_ips.remove(prefix, id);
        self.routes_changed();
        Ok(())
    }

    fn routes_changed(&self) {
        self.routes_version.fetch_add(1, Ordering::Release);
    }

    // -- sessions --------------------------------------------------------------------------------

    /// Add a keypair; return the receiver indices that it pushed out.
    pub fn install_keypair(&self, id: PeerId, keypair: Keypair) -> Result<Vec<u32>> {
        let peer = self.peer(id)?;
        let index = keypair.local_index;
        let session = Arc::new(Session::new(keypair));
        // First known by its index: from `install` on, the other side may use it.
        let known = (peer.clone(), session.clone());
        {
            let mut tables = self.tables.write();
            tables.open_initiations.remove(&index);
            tables.sessions.insert(index, known);
        }
        let freed = {
            let mut state = peer.state.lock();
            state.is_handshake_reported = false;
            state.keypairs.install(session)
        };
        self.forget_sessions(&freed);
        Ok(freed)
    }

    fn forget_sessions(&self, indices: &[u32]) {
        if indices.is_empty() {
            return;
        }
        let mut tables = self.tables.write();
        for index in indices {
            tables.sessions.remove(index);
        }
    }

    /// Never send under the present keypairs again; still open what arrives under them.
    pub fn expire_keypairs(&self, id: PeerId) -> Result<()> {
        self.peer(id)?.state.lock().keypairs.expire();
        Ok(())
    }

    /// Erase all keypairs of the peer; return their receiver indices.
    pub fn drop_keypairs(&self, id: PeerId) -> Result<Vec<u32>> {
        let peer = self.peer(id)?;
        let freed = peer.state.lock().keypairs.clear();
        self.forget_sessions(&freed);
        Ok(freed)
    }

    /// Forget all peers and whatever waits; erase all keys.
    pub fn clear(&self) {
        let tables = std::mem::take(&mut *self.tables.write());
        self.routes_changed();
        for peer in tables.peers.values() {
            let mut state = peer.state.lock();
            state.is_removed = true;
            state.staged.clear();
            state.keypairs.clear();
        }
        self.inbox.clear();
        self.gate.set_keys(None);
    }

    /// Send what is staged, or if nothing is, an empty packet (staged without a keypair).
    pub fn send_keepalive(&self, id: PeerId, now_ns: u64) -> Result<()> {
        let peer = self.peer(id)?;
        {
            let mut state = peer.state.lock();
            state.stamps.first_data_received_unanswered_ns = 0;
            if state.staged.is_empty() {
                state.stage(&[]);
            }
        }
        self.control.lock().send_staged(self, &peer, now_ns);
        Ok(())
    }

    /// Send what is staged; without a keypair report that one is needed (again).
    pub fn send_staged(&self, id: PeerId, now_ns: u64) -> Result<()> {
        let peer = self.peer(id)?;
        {
            let mut state = peer.state.lock();
            state.is_handshake_reported = false;
            state.is_refused = false;
        }
        self.control.lock().send_staged(self, &peer, now_ns);
        Ok(())
    }

    /// Throw the staged packets away.
    pub fn drop_staged(&self, id: PeerId) -> Result<()> {
        let peer = self.peer(id)?;
        let mut state = peer.state.lock();
        state.staged.clear();
        state.is_handshake_reported = false;
        state.is_refused = false;
        Ok(())
    }

    /// There is no endpoint and none is to come: tell the senders of what is staged, throw it away,
    /// and do so at once with what follows, until `send_staged`, `drop_staged` or an endpoint.
    pub fn refuse_staged(&self, id: PeerId, now_ns: u64) -> Result<()> {
        let peer = self.peer(id)?;
        let staged = {
            let mut state = peer.state.lock();
            state.is_handshake_reported = false;
            state.is_refused = true;
            std::mem::take(&mut state.staged)
        };
        for packet in &staged {
            self.refusals.refuse(packet, now_ns);
        }
        self.drops.no_endpoint.add(staged.len());
        Ok(())
    }

    /// Let the next packet under the current keypair have this counter: for tests of the limits.
    pub fn set_send_counter(&self, id: PeerId, counter: u64) -> Result<()> {
        if let Some(session) = self.peer(id)?.state.lock().keypairs.current() {
            session.set_send_counter(counter);
        }
        Ok(())
    }

    // -- stamps ---------------------------------------------------------------------

    /// Report when a first-data stamp is set from now on, or is set already.
    pub fn disarm(&self, id: PeerId) -> Result<()> {
        let peer = self.peer(id)?;
        let mut state = peer.state.lock();
        state.is_check_armed = false;
        let stamps = state.stamps;
        if stamps.first_data_sent_unanswered_ns != 0
            || stamps.first_data_received_unanswered_ns != 0
        {
            state.become_active(&self.inbox);
        }
        Ok(())
    }

    /// Forget the "first data packet sent" stamp: the control plane has acted on it.
    pub fn clear_data_sent_unanswered(&self, id: PeerId) -> Result<()> {
        let peer = self.peer(id)?;
        peer.state.lock().stamps.first_data_sent_unanswered_ns = 0;
        Ok(())
    }

    /// Forget both "first data packet" stamps, and be disarmed.
    pub fn clear_stamps(&self, id: PeerId) -> Result<()> {
        let peer = self.peer(id)?;
        let mut state = peer.state.lock();
        state.stamps.first_data_sent_unanswered_ns = 0;
        state.stamps.first_data_received_unanswered_ns = 0;
        state.is_check_armed = false;
        Ok(())
    }
}
