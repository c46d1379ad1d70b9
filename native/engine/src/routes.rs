//! The owners of the inner addresses met last, so that a flow costs one search, not one a packet.

use std::net::IpAddr;
use std::sync::Arc;

use crate::engine::Engine;
use crate::peer::Peer;

const SLOTS: usize = 256;

/// A direct-mapped cache of one thread. It is emptied when allowed IPs change.
pub struct RouteCache {
    version: u64,
    slots: Vec<Option<(IpAddr, Arc<Peer>)>>,
}

impl RouteCache {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            version: 0,
            slots: vec![None; SLOTS],
        }
    }

    /// The peer that an inner address belongs to.
    pub fn find(&mut self, engine: &Engine, address: IpAddr) -> Option<&Arc<Peer>> {
        let version = engine.routes_version();
        if version != self.version {
            self.version = version;
            self.slots.fill(None);
        }
        let slot = &mut self.slots[slot_of(address)];
        if !matches!(slot, Some((known, _)) if *known == address) {
            *slot = Some((address, engine.route(address)?));
        }
        slot.as_ref().map(|(_, peer)| peer)
    }
}

impl Default for RouteCache {
    fn default() -> Self {
        Self::new()
    }
}

/// Neighbours, and addresses of one pattern, shall not meet in one slot.
fn slot_of(address: IpAddr) -> usize {
    let bits = match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            (bits as u64) ^ ((bits >> 64) as u64)
        }
    };
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % SLOTS
}
